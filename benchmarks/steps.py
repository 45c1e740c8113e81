# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What each step of the model's fast path buys, one after the other, against the plain module.

Run alone by `python -m benchmarks.steps [--repeats 5]`. Every stage has the same weights and gives the same logits.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch

from benchmarks.model import Pair, difference, make_pair
from benchmarks.timing import comparison
from prithvi_hf.models.prithvi import fused_upsampling_prithvi as fast_path


STAGES = {
    "modules one by one": "fused attention, layouts without copies, in inference no auxiliary head",
    "fused, four phases": "the neck's last layer and each head's first as one operator, batch normalisation folded",
    "fused, tiles": "the same by four points for each tile of 2 x 2 pixels instead of nine products",
}
"""The stages in order, and what each adds to the one before."""


@contextmanager
def stage(pair: Pair, name: str) -> Iterator[None]:
    """Hold our model at a stage.

    Args:
        pair (`Pair`): Ours and the plain model.
        name (`str`): One of `STAGES`.
    """
    own = fast_path._takes_strips
    pair.ours.set_fused_upsampling(name != "modules one by one")
    fast_path._takes_strips = own if name == "fused, tiles" else (lambda weight: False)
    try:
        yield
    finally:
        fast_path._takes_strips = own
        pair.ours.set_fused_upsampling(True)


def _seconds(pair: Pair, name: str, call: Callable[[], object]) -> float:
    """Seconds of a call at a stage, after one in which kernels of that stage are fused."""
    with nullcontext() if name == "plain" else stage(pair, name):
        call()
        start = time.perf_counter()
        call()
        return time.perf_counter() - start


def time_stages(training: bool, repeats: int) -> list[dict[str, float | str]]:
    """Time all stages in turns: one frame, 12 layers, batch 2, float32.

    Args:
        training (`bool`): A training step, else inference.
        repeats (`int`): Timed calls of each.

    Returns:
        `list[dict]`: One row a stage; the alternative of all is the plain module.
    """
    pair = make_pair(1, 2)
    for name in STAGES:
        with stage(pair, name):
            difference(pair)
    for model in pair.models().values():
        model.train(training)
    calls = pair.losses() if training else pair.forwards()
    work = {name: (lambda call=call: call().backward()) if training else call for name, call in calls.items()}
    names = ["plain", *STAGES]
    with torch.set_grad_enabled(training):
        rounds = [
            {name: _seconds(pair, name, work["plain" if name == "plain" else "ours"]) for name in names}
            for _ in range(repeats)
        ]
    seconds = {name: statistics.median(one[name] for one in rounds) for name in names}
    return [_row("training step" if training else "inference", name, seconds) for name in STAGES]


def _row(what: str, name: str, seconds: dict[str, float]) -> dict[str, float | str]:
    return comparison(f"{what}, {name}: {STAGES[name]}", seconds[name], seconds["plain"], "plain PyTorch module")


def run(repeats: int) -> list[dict[str, float | str]]:
    """Measure inference and training.

    Args:
        repeats (`int`): Timed calls of each stage; training steps get a third of them.

    Returns:
        `list[dict]`: The rows of the table.
    """
    return [*time_stages(False, repeats), *time_stages(True, max(1, repeats // 3))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What each step of the model's fast path buys.")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each stage (default 5)")
    for row in run(parser.parse_args().repeats):
        print(f"{row['what']}: {row['ours_ms']:.0f} ms, {row['ratio']:.2f}x")
