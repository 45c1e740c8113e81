# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Whole fine-tuning: steps per second from files to updated weights, and the fraction of time spent on waiting.

Ours is `PrithviTrainer` on the cache of decoded chips; the alternative is a plain loop over `plain_model` and the
original's reader. Both have hidden size 768, 12 layers, both heads, AdamW, batches of two and two loading processes.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.loading import Source, make_processor, open_sources
from benchmarks.model import Pair, make_pair
from benchmarks.timing import comparison
from prithvi_hf import PrithviTrainer, PrithviTrainingArguments
from prithvi_hf.data import collate_chips


BATCH, WORKERS = 2, 2
_UNTIMED = 1


class TimedTrainer(PrithviTrainer):
    """Notes when each step began and how long it waited for its batch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.starts: list[float] = []
        self.waits: list[float] = []

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """What the base class does; a step begins here, with the wait for its batch."""
        self.starts.append(time.perf_counter())
        samples = super().get_batch_samples(*args, **kwargs)
        self.waits.append(time.perf_counter() - self.starts[-1])
        return samples


def _train_ours(pair: Pair, source: Source, steps: int) -> tuple[list[float], list[float]]:
    """Seconds of each step, and of its wait for data."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = PrithviTrainingArguments(
            output_dir=folder,
            max_steps=steps + _UNTIMED + 1,  # the last one's end is the begin of nothing
            per_device_train_batch_size=BATCH,
            dataloader_num_workers=WORKERS,
            learning_rate=1.5e-5,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = TimedTrainer(
            model=pair.ours,
            args=arguments,
            train_dataset=source.dataset,
            data_collator=collate_chips,
            processing_class=make_processor(),
        )
        trainer.train()
    seconds = [after - before for before, after in zip(trainer.starts, trainer.starts[1:], strict=False)]
    return seconds[_UNTIMED : _UNTIMED + steps], trainer.waits[_UNTIMED : _UNTIMED + steps]


def _train_plain(pair: Pair, source: Source, steps: int) -> tuple[list[float], list[float]]:
    """The same of a plain loop."""
    optimizer = torch.optim.AdamW(pair.plain.train().parameters(), lr=1.5e-5)
    batches = source.batches(WORKERS, BATCH)
    seconds, waits = [], []
    for _ in range(steps + _UNTIMED):
        start = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - start)
        _plain_step(pair, optimizer, batch)
        seconds.append(time.perf_counter() - start)
    return seconds[_UNTIMED:], waits[_UNTIMED:]


def _plain_step(pair: Pair, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor]) -> None:
    optimizer.zero_grad()
    pair.plain.loss(batch["pixel_values"].unsqueeze(2), batch["labels"]).backward()
    torch.nn.utils.clip_grad_norm_(pair.plain.parameters(), 1.0)
    optimizer.step()


def _measure(repeats: int, data_dir: Path | None) -> Iterator[tuple[str, float, float]]:
    """Name, median seconds of a step, fraction of the time spent waiting."""
    pair, steps = make_pair(1, BATCH), max(2, repeats // 3)
    with open_sources(data_dir) as sources:
        for name, train, source in (
            ("ours", _train_ours, sources["cached"]),
            ("plain", _train_plain, sources["original"]),
        ):
            seconds, waits = train(pair, source, steps)
            yield name, statistics.median(seconds), sum(waits) / sum(seconds)


def run(repeats: int, data_dir: Path | None = None) -> list[dict[str, float | str]]:
    """Measure fine-tuning of one frame.

    Args:
        repeats (`int`): Three for each timed step, at least two steps.
        data_dir (`Path`, *optional*): A folder of Sen1Floods11; chips are generated without it.

    Returns:
        `list[dict]`: One row; `waiting` and `alternative_waiting` are fractions of the time, spent waiting for data;
        `steps_per_second` and `alternative_steps_per_second` the rates.
    """
    figures = {name: (seconds, waiting) for name, seconds, waiting in _measure(repeats, data_dir)}
    (ours, waiting), (plain, plain_waiting) = figures["ours"], figures["plain"]
    what = (
        f"a whole step of fine-tuning, one frame, 12 layers, batch {BATCH}, {WORKERS} workers "
        f"({1 / ours:.3g} steps/s, {waiting:.2%} of the time waiting for data; alternative {1 / plain:.3g} steps/s, "
        f"{plain_waiting:.2%})"
    )
    rates = {"steps_per_second": 1 / ours, "alternative_steps_per_second": 1 / plain}
    row = comparison(what, ours, plain, "plain PyTorch module and loop, the original's reader")
    return [row | rates | {"waiting": waiting, "alternative_waiting": plain_waiting}]
