# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Mapping a scene beside as many busy processes as there are cores, against the same scene alone on the machine."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.scenes import SIDE, _model, _run_scene, _write_scene
from benchmarks.timing import comparison, median_seconds
from prithvi_hf import PrithviImageProcessor
from prithvi_hf.cores import CORES
from prithvi_hf.scenes.scene import open_scene
from prithvi_hf.scenes.tiles import TilePlan


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


def run(repeats: int, hidden_size: int = 64, num_layers: int = 1) -> dict[str, float | str]:
    """Measure a small model, for which the times between its operations count most.

    Args:
        repeats (`int`): Timed calls of each are a fifth of it.
        hidden_size (`int`, defaults to 64): Width of the model, a multiple of 64.
        num_layers (`int`, defaults to 1): Its depth.

    Returns:
        `dict`: Milliseconds for the scene of both and their ratio; the fair share of a core is a ratio of 0.5.
    """
    model, processor = _model(hidden_size, num_layers), PrithviImageProcessor()
    with tempfile.TemporaryDirectory() as folder:
        scene = open_scene([_write_scene(Path(folder) / "scene.tif")])
        plan = TilePlan.for_model(model.config, scene.grid.height, scene.grid.width)

        def map_beside(count: int) -> None:
            with busy_processes(count):
                _run_scene(model, processor, scene, plan)

        contenders = {"busy": lambda: map_beside(CORES), "alone": lambda: map_beside(0)}
        seconds = median_seconds(contenders, max(1, repeats // 5))
    what = f"map a {SIDE} px scene with a small model beside {CORES} busy processes"
    return comparison(what, seconds["busy"], seconds["alone"], "the same alone on the machine")
