# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""On a GPU: the model against the original architecture in bfloat16, and how much of the processor is used.

`python -m benchmarks.gpu [--repeats 15] [--side 10980] [--device cuda]` prints a page: forward passes of the model as
it is, compiled, and compiled with CUDA graphs, and a whole Sentinel-2 tile, split into decoding, model and writing. On
a machine with a GPU `python -m benchmarks` prints it too.

The rate of the processor is measured, not looked up: the best of several square products of matrices in bfloat16. The
rate of a step is the floating-point operations that it executes (torch's counter, so that the fused operator counts
for what it costs, not for what it replaces) over its time.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.model import make_pair
from benchmarks.peers import describe_cpu
from benchmarks.scenes import write_scene
from benchmarks.timing import comparison
from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation, PrithviImageProcessor, predict_scene
from prithvi_hf.scenes.engine import predict_tiles
from prithvi_hf.scenes.inference import CompiledModel


MATRIX_SIDES = (4096, 8192)
# What, frames, images in a batch.
BATCHES = (("inference", 1, 32), ("inference", 3, 16), ("training step", 1, 16), ("training step", 3, 8))
FORWARD_BATCHES = ((1, 32), (3, 16))  # frames, images in a batch
FORMS = ("eager", "compiled", "compiled, CUDA graphs")
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


def make_forms(model: PrithviForSemanticSegmentation, batch_size: int) -> dict[str, Callable[..., Any]]:
    """The model as it is, compiled, and, on a GPU, compiled with CUDA graphs as `predict --compile` does.

    Args:
        model (`PrithviForSemanticSegmentation`): On its device, in evaluation mode.
        batch_size (`int`): Images in every batch.
    """
    forms: dict[str, Callable[..., Any]] = {"eager": model, "compiled": torch.compile(model, dynamic=False)}
    if model.device.type == "cuda":
        forms["compiled, CUDA graphs"] = CompiledModel(model, batch_size).eval()
    return forms


def measure_forward(
    frames: int, batch_size: int, repeats: int, device: torch.device, peak: float, forms: Sequence[str], **sizes: int
) -> list[dict[str, float | str | None]]:
    """Rows of the page: forward passes in bfloat16, weights and all.

    Args:
        frames (`int`): Dates of an image.
        batch_size (`int`): Images in a batch.
        repeats (`int`): Timed passes.
        device (`torch.device`): Where to run.
        peak (`float`): The measured matrix rate in operations per second.
        forms (`Sequence[str]`): Which of `make_forms`.
        sizes (`int`): Fields of the configuration in place of those of Prithvi 100M.
    """
    torch.manual_seed(0)
    config = PrithviConfig(num_frames=frames, num_labels=2, **sizes)
    model = PrithviForSemanticSegmentation(config).eval().to(device, torch.bfloat16)
    pixels = torch.randn(batch_size, config.num_channels, frames, *config.frame_size, device=device)
    operations = operations_of(lambda: predict_tiles(model, pixels))
    rows: list[dict[str, float | str | None]] = []
    for name, form in make_forms(model, batch_size).items():
        if name not in forms:
            continue
        start = time.perf_counter()
        predict_tiles(form, pixels)
        _wait_for(device)
        first = time.perf_counter() - start
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        seconds = seconds_of(lambda form=form: predict_tiles(form, pixels), repeats, device)
        memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
        what = {"what": name, "frames": frames, "batch": batch_size, "first_call_s": first, "memory_gib": memory}
        rows.append({**what, "chips_per_s": batch_size / seconds, **_use(operations, seconds, peak)})
    return rows


def measure_tile(
    side: int, device: torch.device, batch_size: int = 32, compiled: bool = False, **sizes: int
) -> dict[str, float | str]:
    """One row of the page: a tile of one date, int16, deflate, mapped from file to file with half overlap.

    Args:
        side (`int`): Rows and columns; 10,980 of a Sentinel-2 tile.
        device (`torch.device`): Where the model runs, in the dtype that `dtype="auto"` chooses there.
        batch_size (`int`, defaults to 32): Windows in a batch.
        compiled (`bool`, defaults to False): Whether to compile the model.
        sizes (`int`): As in `measure_forward`.

    Returns:
        `dict`: Seconds: decoding and preparing in their thread, model, waiting of the model for tiles, writing of
        strips in its thread, making the map of them, and in total.
    """
    torch.manual_seed(0)
    model = PrithviForSemanticSegmentation(PrithviConfig(num_frames=1, num_labels=2, **sizes)).eval()
    options: dict[str, Any] = {"batch_size": batch_size, "device": device, "dtype": "auto", "show_progress": False}
    with tempfile.TemporaryDirectory() as folder:
        scene = write_scene(Path(folder) / "scene.tif", side)
        output, processor = Path(folder) / "map.tif", PrithviImageProcessor()
        report = predict_scene(model, processor, scene, output, compile=compiled, **options).report
    seconds = report["seconds"]
    spent = {"decode_s": seconds["reading"], "model_s": seconds["model"], "waiting_s": seconds["waiting"]}
    spent |= {"write_s": seconds["writing"], "finish_s": seconds["finishing"], "total_s": seconds["total"]}
    what = f"{side:,} px, {'compiled' if compiled else 'eager'}, {report['dtype']['chosen']}"
    return {"what": what, **spent}


def make_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """A table in markdown.

    Args:
        rows (`Sequence[Mapping]`): Values by name; None is a dash.
        columns (`Mapping[str, str]`): Heading and format of each column, by name, as in "chips/s:.1f".
    """
    heads = [column.rpartition(":") for column in columns.values()]
    lines = ["| " + " | ".join(head for head, _, _ in heads) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        cells = [
            "-" if row[name] is None else format(row[name], form)
            for name, (_, _, form) in zip(columns, heads, strict=True)
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def make_page(
    repeats: int,
    device: torch.device,
    side: int = 10_980,
    batches: Sequence[tuple[int, int]] = FORWARD_BATCHES,
    sides: tuple[int, ...] = MATRIX_SIDES,
    forms: Sequence[str] = FORMS,
    **sizes: int,
) -> str:
    """Measure forward passes and a whole tile, and make a page of markdown of them.

    Args:
        repeats (`int`): Timed calls of each contender; the tile is mapped once.
        device (`torch.device`): Where to run.
        side (`int`, defaults to 10980): Rows and columns of the tile.
        batches (`Sequence[tuple[int, int]]`): Frames and images of each batch.
        sides (`tuple[int, ...]`): Rows of the matrices whose product gives the rate.
        forms (`Sequence[str]`): Which of `make_forms`; the tile is mapped compiled too, where one of them is.
        sizes (`int`): As in `measure_forward`.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else describe_cpu()
    peak = matrix_rate(device, repeats, sides)
    rows = [row for batch in batches for row in measure_forward(*batch, repeats, device, peak, forms, **sizes)]
    tiles = [measure_tile(side, device, compiled=compiled, **sizes) for compiled in sorted({False, len(forms) > 1})]
    forward = {"what": "model:", "frames": "frames:", "batch": "batch:", "chips_per_s": "chips/s:.1f"}
    forward |= {"tflops": "TFLOP/s:.3g", "fraction_of_matrix_rate": "of the matrix rate:.0%"}
    forward |= {"memory_gib": "peak memory, GiB:.2f", "first_call_s": "first call, s:.1f"}
    tile = {
        "what": "tile:",
        "decode_s": "decode, s:.1f",
        "model_s": "model, s:.1f",
        "waiting_s": "wait for tiles, s:.1f",
    }
    tile |= {"write_s": "write strips, s:.1f", "finish_s": "make the map, s:.1f", "total_s": "total, s:.1f"}
    return "\n\n".join(
        [
            f"# {name}, torch {torch.__version__}",
            f"Products of matrices in bfloat16 reach {peak / 1e12:.3g} TFLOP/s. Forward passes in bfloat16:",
            make_table(rows, forward),
            "One tile from file to file, overlap 0.5. Decoding, the model and writing of strips overlap in time; the "
            "total includes choosing the dtype and, of the compiled model, compiling it:",
            make_table(tiles, tile),
        ]
    )


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


def main() -> None:
    """Measure and print the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="A page of figures of one device.")
    parser.add_argument("--repeats", type=int, default=15, help="timed calls of each contender (default 15)")
    parser.add_argument("--side", type=int, default=10_980, help="side of the tile in pixels (default 10980)")
    parser.add_argument("--device", default="cuda", help="default: cuda; cpu measures the same there, slowly")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("expected a CUDA GPU, found none: --device cpu measures the processor")
    print(make_page(options.repeats, torch.device(options.device), options.side))


if __name__ == "__main__":
    main()
