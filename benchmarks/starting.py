# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The second start of a training on unchanged chips, many against few: `python -m benchmarks.starting [--chips N]`.

Not a part of `python -m benchmarks`: the first start, which reads every chip, takes minutes.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from affine import Affine

from prithvi_hf.rasters.write_geotiff import write_geotiff


_SIZES = "--hidden_size 32 --num_hidden_layers 1 --num_attention_heads 2 --neck_hidden_size 16 --head_hidden_size 8"
_RUN = "--image_size 32 --crop_size 32 --max_steps 1 --warmup_steps 0 --per_device_train_batch_size 2 --use_cpu true"
_NOTHING_ELSE = (
    "--do_eval false --do_predict false --eval_strategy no --load_best_model_at_end false --disable_tqdm true"
)


def main() -> None:
    """Make chips of 64 pixels, start twice, and print the second start's seconds of the processor and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.starting")
    parser.add_argument("--chips", type=int, default=20_000, help="chips of the large set (default 20000)")
    count = parser.parse_args().chips
    with tempfile.TemporaryDirectory() as folder:
        seconds = [start(make_chips(Path(folder) / str(number), number)) for number in (200, count)]
    print(f"second start with 200 chips {seconds[0]:.1f} s, with {count:,} {seconds[1]:.1f} s of the processor")
    print(f"ratio {seconds[1] / seconds[0]:.2f}")


def make_chips(folder: Path, count: int) -> Path:
    """Write images of six bands and masks."""
    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 300_000 + 640 * number, 0, -10, 4_000_000)}
        pixels = generator.integers(100, 3000, (6, 64, 64)).astype(np.int16)
        write_geotiff(folder / "images" / f"{number}.tif", pixels, **place)
        write_geotiff(folder / "masks" / f"{number}.tif", (pixels[:1] > 1500).astype(np.uint8), **place)
    return folder


def start(folder: Path) -> float:
    """Start a training of one step twice; give the seconds of the processor that the second one took."""
    beside = Path(f"{folder}_made")  # what a run writes is not among its data
    options = json.dumps({"image_dir": "images", "mask_dir": "masks", "cache_dir": str(beside / "cache")})
    words = [*_SIZES.split(), *_RUN.split(), *_NOTHING_ELSE.split(), "--dataset_options", options, "--class_names"]
    words += ["land", "water", "--band_indices", *"012345", "--data_dir", folder, "--output_dir", beside / "out"]
    before = 0.0
    for _ in range(2):
        before = measure_children()
        command = [sys.executable, "-m", "prithvi_hf.cli", "finetune", *map(str, words)]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)  # noqa: S603
    return measure_children() - before


def measure_children() -> float:
    """Give the seconds of the processor that finished child processes took."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
