# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Which model for which machine: sizes of the published encoders, and memory and time that they take here.

Run alone: `python -m benchmarks.model_sizes [--models 300M ...] [--heads unet ...] [--repeats 3]` prints the tables of
docs/models.md. Weights are random and in float32, and each measurement is a process of its own: one training step
(forward, backward, AdamW) of two images of 224 px, one date, and inference of a chip of 512 px as a whole. Memory is
what the operating system had to find for it above a process that has imported everything: weights, gradients, moments
and activations.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

import psutil
import torch

from benchmarks.memory import peak_of
from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation, PrithviModel
from prithvi_hf.conversion.infer_config import PUBLISHED_ENCODERS


TRAIN_SIZE, BATCH, CHIP_SIZE = 224, 2, 512
MODELS = {
    "1.0-100M": ("prithvi_eo_v1_100", "Prithvi-EO-1.0-100M"),
    "tiny": ("prithvi_eo_v2_tiny_tl", "Prithvi-EO-2.0-tiny-TL"),
    "100M": ("prithvi_eo_v2_100_tl", "Prithvi-EO-2.0-100M-TL"),
    "300M": ("prithvi_eo_v2_300_tl", "Prithvi-EO-2.0-300M and -300M-TL"),
    "600M": ("prithvi_eo_v2_600_tl", "Prithvi-EO-2.0-600M and -600M-TL"),
}
"""Name in terratorch and on the Hub. With TL or without, a model is of the same size but for two numbers."""
HEADS = {
    "fcn": {},
    "unet": {"decode_head": "unet", "padding": "both_sides"},
    "upernet": {"decode_head": "upernet", "padding": "both_sides"},
}
KINDS = ("training step", "512 px chip")
# Weights; in training gradients and two moments as well. Activations come on top: a quarter is left for them.
BYTES_PER_PARAMETER, SPARE = {"training step": 16, "512 px chip": 4}, 1.25


def make_config(model: str, head: str | None = None, **overrides: Any) -> PrithviConfig:
    """Configure a published encoder, with a neck and head for one date where a head is named.

    Args:
        model (`str`): A name in `MODELS`.
        head (`str`, *optional*): A name in `HEADS`.
        overrides: Fields of the configuration.
    """
    values = {**PUBLISHED_ENCODERS[MODELS[model][0]]}
    if head is not None:
        values |= {"num_frames": 1, "coords_encoding": [], "coords_scale_learn": False, **HEADS[head]}
    return PrithviConfig(**{**values, **overrides})


def count_parameters(config: PrithviConfig, kind: type[torch.nn.Module]) -> int:
    """Count the parameters of a model without making it.

    Args:
        config (`PrithviConfig`): Its configuration.
        kind (`type`): Its class.
    """
    with torch.device("meta"):
        return sum(weight.numel() for weight in kind(config).parameters())


def measure(config: PrithviConfig, kind: str, repeats: int) -> tuple[int, float]:
    """Measure in this process: bytes at the peak, and the median of the seconds of a call after the first.

    Args:
        config (`PrithviConfig`): Of a segmentation model.
        kind (`str`): One of `KINDS`.
        repeats (`int`): Timed calls.
    """
    seconds: list[float] = []

    def train() -> None:
        model = PrithviForSemanticSegmentation(config).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
        pixels = torch.randn(BATCH, config.num_channels, 1, TRAIN_SIZE, TRAIN_SIZE)
        labels = torch.randint(0, 2, (BATCH, TRAIN_SIZE, TRAIN_SIZE))
        for _ in range(repeats + 1):
            start = time.perf_counter()
            model(pixels, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - start)

    @torch.inference_mode()
    def predict() -> None:
        model = PrithviForSemanticSegmentation(config).eval()
        pixels = torch.randn(1, config.num_channels, 1, CHIP_SIZE, CHIP_SIZE)
        for _ in range(repeats + 1):
            start = time.perf_counter()
            model(pixels)
            seconds.append(time.perf_counter() - start)

    peak = peak_of(train if kind == KINDS[0] else predict)
    return peak, statistics.median(seconds[1:])


def measure_in_fresh_process(model: str, head: str, kind: str, repeats: int) -> str:
    """Measure in a process of its own and return the cell of the table, or why there is no figure.

    Args:
        model (`str`): A name in `MODELS`.
        head (`str`): A name in `HEADS`.
        kind (`str`): One of `KINDS`.
        repeats (`int`): Timed calls.
    """
    parameters = count_parameters(make_config(model, head), PrithviForSemanticSegmentation)
    needed, free = SPARE * BYTES_PER_PARAMETER[kind] * parameters, psutil.virtual_memory().available
    if needed > free:
        return f"not measured: needs {needed / 1e9:.0f} GB, {free / 1e9:.0f} GB are free"
    command = [sys.executable, "-m", "benchmarks.model_sizes", "--measure", model, head, kind, str(repeats)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own module
    if done.returncode:
        return f"not measured: the process ended with {done.returncode}"
    peak, seconds = json.loads(done.stdout.splitlines()[-1])
    return f"{peak / 1e9:.1f} GB, {seconds:.2g} s" if seconds < 10 else f"{peak / 1e9:.1f} GB, {seconds:.0f} s"


def tabulate_models(models: Iterable[str]) -> str:
    """Make the table of sizes.

    Args:
        models (`Iterable[str]`): Names in `MODELS`.
    """
    lines = [
        "| `ibm-nasa-geospatial/` | parameters | layers | width | heads | patch | dates and places | float32 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model in models:
        config = make_config(model)
        parameters = count_parameters(config, PrithviModel)
        patch = " x ".join(map(str, config.tubelet_size[1:]))
        coordinates = "-" if not config.coords_encoding else "with TL" if " and " in MODELS[model][1] else "yes"
        lines.append(
            f"| {MODELS[model][1]} | {parameters / 1e6:,.0f} M | {config.num_hidden_layers} | {config.hidden_size} "
            f"| {config.num_attention_heads} | {patch} | {coordinates} "
            f"| {4 * parameters / 1e6:,.0f} MB |"
        )
    return "\n".join(lines)


def tabulate_costs(models: Iterable[str], heads: Iterable[str], repeats: int) -> str:
    """Measure, and make the table of memory and time.

    Args:
        models (`Iterable[str]`): Names in `MODELS`.
        heads (`Iterable[str]`): Names in `HEADS`.
        repeats (`int`): Timed calls of each.
    """
    lines = [f"| encoder | head | parameters with head | {' | '.join(KINDS)} |", "|---|---|---|---|---|"]
    for model in models:
        for head in heads:
            parameters = count_parameters(make_config(model, head), PrithviForSemanticSegmentation)
            cells = [measure_in_fresh_process(model, head, kind, repeats) for kind in KINDS]
            lines.append(f"| {model} | `{head}` | {parameters / 1e6:,.0f} M | {' | '.join(cells)} |")
            print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def main() -> None:
    """Print the tables, or one measurement of this process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model_sizes", description="Which model fits here.")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of each (default 3)")
    parser.add_argument("--measure", nargs=4, metavar=("MODEL", "HEAD", "KIND", "REPEATS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        model, head, kind, repeats = options.measure
        print(json.dumps(measure(make_config(model, head), kind, int(repeats))))
        return
    memory = psutil.virtual_memory().total / 1e9
    print(f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GB of memory, torch {torch.__version__}\n")
    print(tabulate_models(options.models) + "\n", flush=True)
    print(tabulate_costs(options.models, options.heads, options.repeats))


if __name__ == "__main__":
    main()
