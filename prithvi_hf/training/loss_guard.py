# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A loss that is NaN or infinite ends the run with the chips of its batch, in all processes."""

from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object


_NONE = 2**62  # place of the first loss that is not finite, where there is none
_MAX_CHIPS_SHOWN = 32


class NonFiniteLossError(ArithmeticError):
    """The loss of a training was NaN or infinite."""


class LossGuard:
    """Looks for a loss that is not finite without waiting for the device at every step.

    `watch` leaves a note on the device. `check` reads those of all processes, once; the trainer calls it when it logs,
    evaluates and saves, so that nothing is saved after such a loss.
    """

    def __init__(self, accelerator: Accelerator, find_id: Callable[[int], str] | None = None) -> None:
        self.accelerator, self.find_id = accelerator, find_id
        self._begin()

    def _begin(self) -> None:
        self._batches: list[tuple[int, float, torch.Tensor | None]] = []  # step, learning rate, chips; since the check
        self._first: torch.Tensor | None = None  # place in it of the first loss that is not finite
        self._loss: torch.Tensor | None = None  # that loss

    def watch(self, loss: torch.Tensor, step: int, learning_rate: float, chips: torch.Tensor | None) -> None:
        """Note the loss of a batch, which may be a part of a step, and the chips, by their index in the split."""
        loss = loss.detach()
        if self._first is None or self._loss is None:
            self._first, self._loss = torch.full((), _NONE, device=loss.device), loss
        is_first = ~torch.isfinite(loss) & (self._first == _NONE)
        self._first = torch.where(is_first, len(self._batches), self._first)
        self._loss = torch.where(is_first, loss, self._loss)
        self._batches.append((step, learning_rate, chips))

    def check(self) -> None:
        """Raise where a loss since the last call was not finite; all processes have to call it.

        Raises:
            NonFiniteLossError: In every process, with the first such step, its learning rate and its chips.
        """
        if self._first is None or self._loss is None:
            return
        places = self.accelerator.gather(self._first[None]).tolist()
        place = min(places)
        if place == _NONE:
            self._begin()
            return
        step, learning_rate, chips = self._batches[place]
        own = [(float(self._loss), self._name_chips(chips))] if places[self.accelerator.process_index] == place else []
        # Of several processes whose losses of this step are not finite, each names its chips.
        found: list[Any] = gather_object(own)
        ranks = [rank for rank, first in enumerate(places) if first == place]
        several = len(places) > 1
        batches = "; ".join(
            f"{loss:g} of {names}{f' (process {rank} of {len(places)})' if several else ''}"
            for rank, (loss, names) in zip(ranks, found, strict=True)
        )
        raise NonFiniteLossError(
            f"Expected a finite loss, found {batches} in step {step}, at a learning rate of {learning_rate:.4g}. "
            "Nothing was saved after it. Look at these chips (`prithvi-hf stats` shows their values), lower "
            "--learning_rate or --max_grad_norm, lengthen --warmup_steps, or train in --bf16, not --fp16"
        )

    def _name_chips(self, chips: torch.Tensor | None) -> str:
        """Name the chips of a batch by their ids, as far as a line holds them."""
        if chips is None or self.find_id is None:
            return "a batch of chips without index"
        names = [self.find_id(index) for index in chips.tolist()]
        more = len(names) - _MAX_CHIPS_SHOWN
        listed = ", ".join(names[:_MAX_CHIPS_SHOWN]) + (f" and {more} more" if more > 0 else "")
        return f"the chip{'s' if len(names) > 1 else ''} {listed}"
