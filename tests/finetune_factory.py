# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Fine-tuning runs with a tiny model on a few chips, in this process or by examples/finetune.py as one of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from transformers import pipeline

from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation, PrithviImageProcessor, PrithviModel
from prithvi_hf.training import finetune
from tests.raster_factory import (
    SEN1FLOODS11_CODES,
    make_burn_scars,
    make_crops,
    make_irrigation_scenes,
    make_sen1floods11,
    reflectance,
    write_mask,
    write_raster,
)


ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "examples" / "finetune.py"
RECIPE = ROOT / "examples" / "configs" / "sen1floods11.yaml"
SPLITS = {
    "train": ("Ghana_1", "Spain_2", "India_3", "Mekong_4"),
    "valid": ("India_5", "Spain_6", "Ghana_7"),
    "test": ("Ghana_8", "Spain_9"),
    "bolivia": ("Bolivia_10",),
}
SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32}
HEADS = {"neck_hidden_size": 16, "head_hidden_size": 8}
# What makes a recipe's run one of seconds on a CPU.
QUICK = {
    **{"crop_size": 32, "eval_window": 32, "max_steps": 4, "warmup_steps": 1, "learning_rate": 0.001},
    **{"eval_steps": 0.5, "save_steps": 0.5, "logging_steps": 1, "per_device_train_batch_size": 2},
    **{"dataloader_num_workers": 0, "num_sample_predictions": 1, "use_cpu": True, "disable_tqdm": True},
}


def make_chips(root, *, size=48):
    """A small copy of Sen1Floods11; no chip is like another."""
    root = make_sen1floods11(root, SPLITS, size=size)
    for seed, path in enumerate(sorted(root.rglob("*_S2Hand.tif"))):
        pixels = reflectance(13, size, seed)
        if seed % 2:  # chips of an even brightness have other statistics than chips of noise
            pixels = (pixels * 0.02 + np.linspace(100, 3000, 13)[:, None, None]).astype(np.int16)
        write_raster(path, pixels, descriptions=SEN1FLOODS11_CODES, nodata=0)
        write_mask(next(root.rglob(path.name.replace("S2Hand", "LabelHand"))), size, seed)
    return root


@dataclass(frozen=True)
class Official:
    """A public data set as its publisher ships it.

    Attributes:
        make: writes a small copy into a folder; takes `size`.
        frames: dates of an image.
        ignored: mask values without a class.
        first_class: mask value of the first class.
    """

    make: Callable[..., Path]
    frames: int
    ignored: tuple[int, ...]
    first_class: int


OFFICIAL = {
    "sen1floods11": Official(make_chips, 1, (-1,), 0),
    "hls_burn_scars": Official(make_burn_scars, 1, (-1,), 0),
    "hls_irrigation_scenes": Official(make_irrigation_scenes, 3, (0, 255), 1),
    "multi_temporal_crop": Official(make_crops, 3, (0,), 1),
}


def save_backbone(folder):
    """An encoder whose weights are random, and large enough to tell one model from another."""
    torch.manual_seed(0)
    PrithviModel(PrithviConfig(num_frames=1, **SIZES)).save_pretrained(folder)
    return folder


def save_model(folder, classes, unused=None):
    """A model whose classes `unused` are never predicted."""
    torch.manual_seed(0)
    names = {"id2label": dict(enumerate(classes)), "label2id": {name: index for index, name in enumerate(classes)}}
    model = PrithviForSemanticSegmentation(PrithviConfig(num_frames=1, **SIZES, **HEADS, **names))
    with torch.no_grad():
        model.decode_head.classifier.weight.mul_(50)
        for index in unused or ():
            model.decode_head.classifier.bias[index] = -1e9
    model.save_pretrained(folder)
    return folder


def label_by_model(data, model):
    """Labels of a copy of Sen1Floods11 that a saved model predicts, but for a fifth of the pixels."""
    if not (model / "preprocessor_config.json").exists():
        PrithviImageProcessor().save_pretrained(model)
    pipe, random = pipeline("geospatial-segmentation", model=str(model), device="cpu"), np.random.default_rng(0)
    for mask in data.rglob("*LabelHand.tif"):
        found = pipe(str(mask).replace("LabelHand", "S2Hand")).mask.clip(0, 1)
        replace_pixels(mask, np.where(random.random(found.shape) < 0.2, 1 - found, found))


def read_pixels(path):
    """Every band of a file, (bands, height, width)."""
    with rasterio.open(path) as dataset:
        return dataset.read()


def replace_pixels(path, pixels):
    """New pixels in a file that stays as it is otherwise."""
    with rasterio.open(path, "r+") as dataset:
        dataset.write(pixels.astype(dataset.dtypes[0]).reshape(dataset.count, *dataset.shape))


def flags(**options):
    """`--name value` of every option; a list gives several words."""
    words = []
    for name, value in options.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list | tuple) else [value])]
    return words


def command_line(data, output, **options):
    """The recipe with a tiny model and few steps; the table of `datasets` is cached beside the data."""
    cache = {"cache_dir": str(Path(data).parent / "cache")}
    values = {"config": RECIPE, "data_dir": data, "output_dir": output, "dataset_options": json.dumps(cache)}
    values |= {**SIZES, **HEADS, **QUICK}
    return flags(**{name: value for name, value in {**values, **options}.items() if value is not None})


def run(data, output, **options):
    """Run it in this process, and have it succeed."""
    assert finetune.main(command_line(data, output, **options)) == 0
    return json.loads((Path(output) / "all_results.json").read_text())


def environment(**more):
    own = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **own, **more}


def start(words, launcher=(), program=(str(SCRIPT),), **variables):
    command = [sys.executable, *launcher, *program, *words]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment(**variables), cwd="/", **streams)


def finish(process, timeout=120):
    """Output and exit status; a process that hangs is a failure."""
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        pytest.fail(f"no end after {timeout} s:\n{output[-3000:]}")
    return output, process.returncode


# Runs a program and says, of each process, whether it left torch's process group, and before that its wrapped model.
WATCHED = """
import atexit, gc, os, runpy, sys
import torch.distributed as distributed
from accelerate import PartialState
from torch.nn.parallel import DistributedDataParallel

leave, wrapped, made = distributed.destroy_process_group, [], DistributedDataParallel.__init__

def write(line):  # at once: two processes write to one pipe
    sys.stdout.flush()
    os.write(1, f"{line}\\n".encode())

def make(self, *arguments, **options):
    wrapped.append(id(self))
    made(self, *arguments, **options)

def leave_and_say(*arguments):
    alive = sum(isinstance(thing, DistributedDataParallel) for thing in gc.get_objects())
    write(f"wrapped {len(wrapped)} models, left with {alive}")
    leave(*arguments)

@atexit.register
def say():
    count = PartialState().num_processes  # as the program left it
    write(f"{count} processes: {'a member' if distributed.is_initialized() else 'left'}")

DistributedDataParallel.__init__, distributed.destroy_process_group = make, leave_and_say
module, sys.argv = sys.argv[1], sys.argv[1:]
(runpy.run_path if module.endswith(".py") else runpy.run_module)(module, run_name="__main__")
"""


def run_in_two_processes(folder, *words):
    """Run a program under torchrun, watched, and return what it prints."""
    (folder / "watched.py").write_text(WATCHED)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", folder / "watched.py"]
    command = [sys.executable, *map(str, [*launcher, *words])]
    done = subprocess.run(command, env=environment(), cwd=folder, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr
