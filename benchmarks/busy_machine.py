# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Mapping a scene beside as many busy processes as there are cores, against the same scene alone on the machine."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.scenes import map_scene, write_scene
from benchmarks.timing import comparison, median_seconds
from prithvi_hf import PrithviForSemanticSegmentation
from prithvi_hf.cores import CORES


SIDE = 2196


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep as many processes busy meanwhile."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run(repeats: int, side: int = SIDE) -> dict[str, float | str]:
    """Measure a small model, for which the times between its operations count most.

    Args:
        repeats (`int`): Timed calls of each are a fifth of it.
        side (`int`, defaults to 2196): Pixels of the scene, several seconds for two cores.

    Returns:
        `dict`: Milliseconds for the scene of both and their ratio; the fair share of a core is a ratio of 0.5.
    """
    with tempfile.TemporaryDirectory() as folder:
        scene = write_scene(Path(folder) / "scene.tif", side)

        def map_beside(count: int) -> None:
            with busy_processes(count):
                map_scene(scene, Path(folder) / "map.tif", PrithviForSemanticSegmentation)

        contenders = {"busy": lambda: map_beside(CORES), "alone": lambda: map_beside(0)}
        seconds = median_seconds(contenders, max(1, repeats // 5))
    what = f"map a {side} px scene with a small model beside {CORES} busy processes"
    return comparison(what, seconds["busy"], seconds["alone"], "the same alone on the machine")
