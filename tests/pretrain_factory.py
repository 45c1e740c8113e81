# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Pretraining runs of a tiny masked autoencoder on a few small scenes."""

import json
from pathlib import Path

import numpy as np
import torch
from affine import Affine

from prithvi_hf import PrithviConfig, PrithviForPreTraining, PrithviImageProcessor
from prithvi_hf.training import pretrain
from tests.finetune_factory import ROOT, flags
from tests.scene_factory import write_scene


SCRIPT = ROOT / "examples" / "pretrain.py"
SIZES = {
    **{"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32},
    **{"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2},
}
QUICK = {
    **{"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 0.01, "warmup_steps": 1, "logging_steps": 1},
    **{"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2, "eval_windows": 5},
    **{"num_sample_reconstructions": 0, "use_cpu": True, "disable_tqdm": True},
}
SWATH = 40  # columns without data in the second scene


def smooth_pixels(height, width, seed=0):
    """int16 (6, height, width), smooth enough for a model to learn something."""
    numbers = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / 40
    waves = [np.sin(rows * numbers.uniform(1, 3) + numbers.uniform(0, 6) + columns) for _ in range(6)]
    return (1500 + 700 * np.array(waves)).astype(np.int16)


def write_smooth_scene(path, height=96, width=110, seed=0, nodata=-9999, gap=None, **options):
    """A scene without data in `gap`, rows and columns as slices; its folder is made."""
    pixels = smooth_pixels(height, width, seed)
    if gap is not None:
        pixels[:, *gap] = nodata
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return write_scene(Path(path), pixels, nodata=nodata, **options)


def make_scenes(folder, names=("a", "b", "c", "d"), **options):
    """Scenes of different places, the second with a swath of no data."""
    for index, name in enumerate(names):
        place = Affine(30, 0, 500_000 + index * 10_000, 0, -30, 8_000_000)
        gap = (slice(None), slice(SWATH)) if index == 1 else None
        write_smooth_scene(Path(folder) / f"{name}.tif", seed=index, gap=gap, transform=place, **options)
    return Path(folder)


def save_autoencoder(folder, num_frames=1, **options):
    """A masked autoencoder and its image processor, as `convert` leaves them."""
    torch.manual_seed(0)
    model = PrithviForPreTraining(PrithviConfig(num_frames=num_frames, **SIZES, **options))
    model.save_pretrained(folder)
    PrithviImageProcessor(num_frames=num_frames).save_pretrained(folder)
    return folder


def command_line(scenes, output, **options):
    """Options of a quick run; None leaves one out."""
    values = {"scenes": scenes, "output_dir": output, **SIZES, **QUICK, **options}
    return flags(**{name: value for name, value in values.items() if value is not None})


def run(scenes, output, **options):
    """Run it in this process, and have it succeed."""
    assert pretrain.main(command_line(scenes, output, **options)) == 0
    return json.loads((Path(output) / "all_results.json").read_text())
