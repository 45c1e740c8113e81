# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What trains, when and how fast: parameters under weight decay, learning rates by layer, gradual unfreezing."""

import re
from collections import defaultdict
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


_LAYER = re.compile(r"prithvi\.layers\.(\d+)\.")


def find_decay_parameters(model: nn.Module, decay_all_parameters: bool) -> list[str]:
    """Name the parameters under weight decay: all, or matrices and kernels without the class token."""
    return [
        name
        for name, parameter in model.named_parameters()
        if decay_all_parameters or (parameter.ndim > 1 and not name.endswith("cls_token"))
    ]


def find_depth(name: str, num_hidden_layers: int) -> int:
    """Find how deep a parameter is: 0 in the embeddings, 1 and more in the layers, most after them."""
    layer = _LAYER.match(name)
    if layer is not None:
        return int(layer[1]) + 1
    return 0 if name.startswith("prithvi.embeddings.") else num_hidden_layers + 1


def group_parameters(
    model: Any, learning_rate: float, layer_decay: float, weight_decay: float, decay_all_parameters: bool = False
) -> list[dict[str, Any]]:
    """Group the parameters that train by their learning rate and weight decay, as masked autoencoders are fine-tuned.

    What follows the encoder's layers has the full rate, each layer below it `layer_decay` times that of the next, the
    embeddings the lowest. The groups begin with the full rate, which is the one that a log shows.
    """
    depths, decayed = model.config.num_hidden_layers, set(find_decay_parameters(model, decay_all_parameters))
    groups: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[depths + 1 - find_depth(name, depths), name not in decayed].append(parameter)
    return [
        {
            "params": groups[below, is_exempt],
            "lr": learning_rate * layer_decay**below,
            "weight_decay": 0.0 if is_exempt else weight_decay,
        }
        for below, is_exempt in sorted(groups)
    ]


class GradualUnfreezing(TrainerCallback):
    """Begin with neck and heads alone; every so many steps one more layer of the encoder trains, the last first.

    The optimizer has every parameter from the start, so that a resumed run goes on as it would have. In one process
    what is frozen takes no gradient and costs nothing; on several, gradients are computed and left out, for what waits
    for them was built for all of them.

    Args:
        every (`int` or `float`): Steps from one layer to the next or, below 1, a fraction of the run. The embeddings
            come after the first layer.
    """

    def __init__(self, every: float) -> None:
        self.every = every
        self.frozen: list[nn.Parameter] = []
        self._names: list[tuple[int, nn.Parameter]] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Find how deep the parameters are, and freeze those whose turn has not come."""
        model = kwargs["model"]
        depths = model.config.num_hidden_layers
        self._names = [
            (depths - find_depth(name, depths), parameter)
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and find_depth(name, depths) <= depths
        ]
        self.on_step_end(args, state, control)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Unfreeze what the next step trains."""
        steps = self.every if self.every >= 1 else max(1, round(self.every * state.max_steps))
        self.frozen = [parameter for above, parameter in self._names if (above + 1) * steps > state.global_step]
        if args.world_size == 1:
            waiting = {id(parameter) for parameter in self.frozen}
            for _, parameter in self._names:
                parameter.requires_grad_(id(parameter) not in waiting)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the model as it came."""
        for _, parameter in self._names:
            parameter.requires_grad_(True)
        self._names, self.frozen = [], []

    def drop_gradients(self) -> None:
        """Leave out the gradients of what is frozen, after they were computed and before they are clipped."""
        for parameter in self.frozen:
            parameter.grad = None
