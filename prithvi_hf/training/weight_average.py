# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A running average of the weights, which is what a training evaluates, chooses among and saves."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


TRAINED_WEIGHTS = "trained_weights.safetensors"
"""File of a checkpoint with the weights that the optimizer goes on with; its model is the average."""


class WeightAverage(TrainerCallback):
    """Keep an exponential moving average of trained weights and of the statistics of batch normalisation.

    After step `n` the average moves towards the model by `1 - min(decay, (1 + n) / (10 + n))` of their difference, so
    that the first steps, far from where a training ends, are soon forgotten (as TensorFlow's moving averages do).

    Args:
        decay (`float`): Fraction of the average that a step keeps, above 0 and below 1. The average is over about the
            last `1 / (1 - decay)` steps.
        model (`nn.Module`): The model that will be trained.

    Raises:
        ValueError: Weights of the model are of half precision.
    """

    def __init__(self, decay: float, model: nn.Module) -> None:
        half = [name for name, weight in model.named_parameters() if weight.dtype in (torch.bfloat16, torch.float16)]
        if half:
            raise ValueError(
                f"Expected weights of float32 with ema_decay, found {len(half)} tensors of half precision, e.g. "
                f"{half[0]}, in which the small steps of an average are lost. Load the model with dtype float32; "
                "bf16: true computes in bfloat16 all the same."
            )
        self.decay = decay
        self.average: dict[str, torch.Tensor] = {}  # by name; empty but in a training
        self.checkpoint: Path | None = None  # whose trained weights the training continues from
        self._is_lent = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin with the weights at hand; those of a checkpoint are the average, and what it goes on with follows."""
        model: nn.Module = kwargs["model"]
        frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        self.average = {
            name: tensor.detach().clone() for name, tensor in model.state_dict().items() if name not in frozen
        }
        if self.checkpoint is not None:
            model.load_state_dict(load_file(self.checkpoint / TRAINED_WEIGHTS), strict=False)
            self.checkpoint = None

    @torch.no_grad()
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the average towards the weights after a step of the optimizer."""
        weight = 1 - min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        weights = kwargs["model"].state_dict()
        for name, average in self.average.items():
            if average.is_floating_point():
                average.lerp_(weights[name], weight)
            else:  # the number of batches that a normalisation has seen
                average.copy_(weights[name])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the model the average, unless it has that of the best checkpoint already."""
        self._exchange(kwargs["model"])
        self.average = {}

    @contextmanager
    def lend(self, model: nn.Module) -> Iterator[None]:
        """Within it the model of a training has the averaged weights; nothing changes outside a training."""
        if not self.average or self._is_lent:
            yield
            return
        self._exchange(model)
        self._is_lent = True
        try:
            yield
        finally:
            self._is_lent = False
            self._exchange(model)

    def save_trained_weights(self, model: nn.Module, checkpoint: Path) -> None:
        """Write the weights that the optimizer goes on with into the folder of a checkpoint."""
        checkpoint.mkdir(parents=True, exist_ok=True)
        weights = model.state_dict()
        save_file({name: weights[name].contiguous() for name in self.average}, checkpoint / TRAINED_WEIGHTS)

    @torch.no_grad()
    def _exchange(self, model: nn.Module) -> None:
        weights = model.state_dict()
        for name, average in self.average.items():
            kept = weights[name].clone()
            weights[name].copy_(average)
            average.copy_(kept)


def check_averaging(checkpoint: str | Path, ema_decay: float | None) -> None:
    """Refuse to continue a run with an average from a checkpoint without one, or the other way round.

    Raises:
        ValueError: The run that the checkpoint is of was started otherwise.
    """
    has_average = (Path(checkpoint) / TRAINED_WEIGHTS).is_file()
    if has_average != (ema_decay is not None):
        found = "an average of weights" if has_average else "no average of weights"
        raise ValueError(
            f"Expected {checkpoint} to continue with ema_decay {ema_decay}, found {found} in it. Give the ema_decay "
            "that the run was started with, or start a new one."
        )
