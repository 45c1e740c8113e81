# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Weights that are divided over the processes of a training (FSDP2): on a CPU too, and whole for an evaluation."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, parse_flag_from_env
from torch import nn
from torch.distributed.fsdp import FSDPModule

from prithvi_hf.models.prithvi.modeling_prithvi import PrithviLayer
from prithvi_hf.training.training_args import PrithviTrainingArguments


def let_cpus_shard(args: PrithviTrainingArguments) -> None:
    """Have accelerate divide the weights of processes without a GPU too, where FSDP is asked for.

    It would train them with DDP and say nothing. Call it before the `Accelerator` is made.
    """
    is_asked = args.fsdp_plugin_args is not None or parse_flag_from_env("ACCELERATE_USE_FSDP")
    state = PartialState()
    if is_asked and state.distributed_type == DistributedType.MULTI_CPU:
        # Of the kinds that accelerate looks for a plugin of FSDP in; the device and gloo stay what they are.
        state.distributed_type = DistributedType.MULTI_GPU


def choose_layers_to_divide(accelerator: Accelerator, model: nn.Module) -> None:
    """Divide the encoder's layers one by one, and the rest together, where the user has named no other classes.

    Neck and heads then keep the classes for which there are fused kernels.
    """
    plugin: Any = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is None:
        return
    # torch warns of modules whose result is a view, in case that it is changed in place, which nothing here does.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    if plugin.transformer_cls_names_to_wrap is None:
        has_layers = any(isinstance(module, PrithviLayer) for module in model.modules())
        plugin.transformer_cls_names_to_wrap = [PrithviLayer.__name__] * has_layers


def check_parts(checkpoint: str | Path, accelerator: Accelerator) -> None:
    """Refuse to go on from a checkpoint whose weights are divided in another way than those of the run.

    Raises:
        ValueError: One of the two is of FSDP and the other is not, or they save the parts in another form.
    """
    plugin: Any = getattr(accelerator.state, "fsdp_plugin", None)
    asked = None if plugin is None else plugin.state_dict_type.name
    found = None
    if any(Path(checkpoint).glob("pytorch_model_fsdp*")):
        found = "FULL_STATE_DICT" if Path(checkpoint, "pytorch_model_fsdp.bin").is_file() else "SHARDED_STATE_DICT"
    if found == asked:
        return
    described: dict[str | None, str] = {None: "without FSDP"}
    remedy = "Leave --fsdp out"
    if found is not None:
        form = json.dumps({"state_dict_type": found})
        remedy = f"Start several processes, as the run did, with --fsdp true --fsdp_config '{form}'"
    wanted, other = (described.get(form, f"of FSDP with {form}") for form in (asked, found))
    raise ValueError(
        f"Expected a checkpoint {wanted} to resume from, as this run would write it, found one {other} at "
        f"{checkpoint}. {remedy}, or begin a new run from its weights alone with --model {checkpoint}."
    )


@contextmanager
def gather_weights(model: nn.Module, accelerator: Accelerator) -> Iterator[None]:
    """Within it each process has the whole weights, and its forward passes wait for no other process.

    All processes enter and leave it together. It does nothing to a model that is not divided.
    """
    divided = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in divided:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in divided:
            # As accelerate divided them; torch keeps the weights of the outermost module until the backward pass.
            again = module is not model and bool(accelerator.state.fsdp_plugin.reshard_after_forward)
            module.set_reshard_after_forward(again, recurse=False)
            module.reshard()
