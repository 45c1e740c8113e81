# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""On a GPU: the model against the original architecture in bfloat16, and how much of the processor is used.

The rate of the processor is measured, not looked up: the best of several square products of matrices in bfloat16. The
rate of a step is the floating-point operations that it executes (torch's counter, so that the fused operator counts
for what it costs, not for what it replaces) over its time.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.model import make_pair
from benchmarks.timing import comparison
from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation


MATRIX_SIDES = (4096, 8192)
# What, frames, images in a batch.
BATCHES = (("inference", 1, 32), ("inference", 3, 16), ("training step", 1, 16), ("training step", 3, 8))
LARGE = {
    "num_frames": 1,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "neck_hidden_size": 1024,
}
"""Sizes of the 300M backbone, one frame."""


def seconds_of(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median seconds of a call, after two that are not timed.

    Args:
        call (`Callable`): What to time.
        repeats (`int`): Timed calls.
        device (`torch.device`): What has to be finished before the clock is read.
    """
    seconds = []
    for _ in range(repeats + 2):
        _wait_for(device)
        start = time.perf_counter()
        call()
        _wait_for(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def matrix_rate(device: torch.device, repeats: int, sides: tuple[int, ...] = MATRIX_SIDES) -> float:
    """Floating-point operations per second of products of square bfloat16 matrices, the best of several sizes.

    Args:
        device (`torch.device`): Where to multiply.
        repeats (`int`): Timed products of each size.
        sides (`tuple[int, ...]`): Rows of the matrices.
    """
    rates = []
    for side in sides:
        first, second = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
        rates.append(2 * side**3 / seconds_of(lambda a=first, b=second: a @ b, repeats, device))
    return max(rates)


def operations_of(call: Callable[[], object]) -> int:
    """Floating-point operations that a call executes.

    Args:
        call (`Callable`): What to count.
    """
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _under_autocast(call: Callable[[], torch.Tensor], device: torch.device, training: bool) -> Callable[[], object]:
    """A forward pass without gradients, or one with its backward pass, in bfloat16 where autocast uses it."""

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16), torch.set_grad_enabled(training):
            result = call()
        if training:
            result.backward()

    return run


def _compare(what: str, frames: int, batch_size: int, repeats: int, device: torch.device, peak: float) -> dict:
    """One row: ours against the plain model."""
    pair, training = make_pair(frames, batch_size).to(device), what != "inference"
    calls = pair.losses() if training else pair.forwards()
    runs, seconds = {}, {}
    for name, model in pair.models().items():
        model.train(training)
        runs[name] = _under_autocast(calls[name], device, training)
        seconds[name] = seconds_of(runs[name], repeats, device)
    what = f"{what}, {frames} frame{'s' * (frames > 1)}, batch {batch_size}, bfloat16 autocast, {device.type}"
    row = comparison(what, seconds["ours"], seconds["plain"], "plain PyTorch module")
    return row | _use(operations_of(runs["ours"]), seconds["ours"], peak)


def _use(operations: int, seconds: float, peak: float) -> dict[str, float]:
    rate = operations / seconds
    return {"tflops": rate / 1e12, "matrix_tflops": peak / 1e12, "fraction_of_matrix_rate": rate / peak}


def make_large(device: torch.device, **sizes: int) -> PrithviForSemanticSegmentation:
    """The segmentation model on a backbone of the 300M size, with random weights.

    Args:
        device (`torch.device`): Where to put it.
        sizes (`int`): Fields of the configuration that replace those of `LARGE`.
    """
    torch.manual_seed(0)
    return PrithviForSemanticSegmentation(PrithviConfig(**{**LARGE, **sizes})).to(device)


def time_large_training(
    repeats: int, device: torch.device, peak: float, batch_size: int = 16, **sizes: int
) -> dict[str, float | str]:
    """One row: a training step of the 300M size against the time that its operations take at the matrix rate.

    Args:
        repeats (`int`): Timed steps.
        device (`torch.device`): Where to train.
        peak (`float`): The measured matrix rate in operations per second.
        batch_size (`int`, defaults to 16): Images in a batch.
        sizes (`int`): As in `make_large`.
    """
    model = make_large(device, **sizes).train()
    side = model.config.frame_size[0]
    pixels = torch.randn(batch_size, model.config.num_channels, 1, side, side, device=device)
    labels = torch.randint(0, 2, (batch_size, side, side), device=device)
    step = _under_autocast(lambda: model(pixels, labels=labels).loss, device, training=True)
    seconds, operations = seconds_of(step, repeats, device), operations_of(step)
    use = _use(operations, seconds, peak)
    what = (
        f"training step of the 300M size, batch {batch_size}, bfloat16 autocast ({use['tflops']:.3g} TFLOP/s, "
        f"{use['fraction_of_matrix_rate']:.0%} of the measured matrix rate)"
    )
    alternative = "its operations at the measured bfloat16 matrix rate"
    return comparison(what, seconds, operations / peak, alternative) | use


def run(repeats: int) -> list[dict[str, float | str]]:
    """Measure everything on the first CUDA GPU.

    Args:
        repeats (`int`): Timed calls of each contender.

    Returns:
        `list[dict]`: The rows of the table; none without a GPU.
    """
    if not torch.cuda.is_available():
        return []
    device = torch.device("cuda")
    peak = matrix_rate(device, repeats)
    rows = [_compare(*batch, repeats, device, peak) for batch in BATCHES]
    return [*rows, time_large_training(repeats, device, peak)]
