# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""LoRA and DoRA of the encoder through PEFT: a small file beside the base model that it is of.

A model in training has the adapter in its encoder's layers, and neck and heads as they are. It is saved in PEFT's
format, in which neck and heads are `modules_to_save`, with the configuration of the whole model beside it. Loaded by
`from_pretrained` it is merged: a plain model, which every command and export takes.
"""

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging
from transformers.utils.hub import cached_file

from .configuration_prithvi import PrithviConfig, check_model_source


if TYPE_CHECKING:
    from collections.abc import Iterator


ADAPTERS = ("lora", "dora")
"""Values of the recipe option `adapter`."""
ADAPTER_CONFIG_FILE, ADAPTER_FILE = "adapter_config.json", "adapter_model.safetensors"
TARGETS = {
    **{"attention": ("q_proj", "k_proj", "v_proj", "o_proj"), "mlp": ("fc1", "fc2")},
    **{name: (name,) for name in ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2")},
}
"""What an adapter can be put on in every layer, by name: linear layers, or all of the attention or the MLP."""
_PREFIX = "base_model.model."  # of names in PEFT's files
ADAPTER_OPTIONS = ("revision", "token", "cache_dir", "subfolder", "local_files_only", "force_download")
"""Arguments of `from_pretrained` that tell how a file is looked for on the Hub."""


@contextmanager
def use_peft() -> "Iterator[Any]":
    """Give PEFT, say how to install it where it is not, and keep away a warning of what it asks transformers for.

    It is imported by name: transformers would refuse all code from the Hub without each package that a file imports.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            yield import_module("peft")
    except ImportError as error:
        raise ImportError(
            "Expected PEFT for an adapter, found it not installed: pip install 'prithvi_hf[peft]'."
        ) from error


def add_adapter(
    model: PreTrainedModel,
    base: str,
    kind: str = "lora",
    rank: int = 8,
    alpha: float | None = None,
    dropout: float = 0.0,
    targets: Sequence[str] = ("attention", "mlp"),
) -> None:
    """Put an adapter into the encoder's layers: it trains, and so do neck and heads; the encoder itself is frozen.

    Args:
        model: A model for a task whose encoder is that of `base`. It is changed in place.
        base: Folder or Hub id that the encoder's weights are from; the saved adapter names it.
        kind: `"lora"`, or `"dora"`, which also learns the length of each row of a weight.
        rank: Rank of the change of a weight, from 1 to the encoder's hidden size.
        alpha: The change is multiplied by `alpha / rank`, above 0; twice the rank by default.
        dropout: Dropout of what goes into the adapter, 0 to below 1.
        targets: Names in `TARGETS`.

    Raises:
        ImportError: PEFT is not installed.
        ValueError: An option is not one of these, or the model has no encoder or has an adapter.
    """
    unknown = [name for name in targets if name not in TARGETS]
    alpha, largest = 2 * rank if alpha is None else alpha, getattr(model.config, "hidden_size", rank)
    is_known = kind in ADAPTERS and targets and not unknown
    if not is_known or not 1 <= rank <= largest or not 0 < alpha < math.inf or not 0 <= dropout < 1:
        raise ValueError(
            f"Expected an adapter of kind {' or '.join(ADAPTERS)}, a rank from 1 to {largest} (hidden_size), an alpha "
            f"above 0, a dropout from 0 to below 1 and targets among {', '.join(TARGETS)}, found {kind!r}, {rank}, "
            f"{alpha}, {dropout} and {list(targets)}."
        )
    if getattr(model.config, "architecture", "prithvi") != "prithvi" or has_adapter(model):
        raise ValueError("Expected an encoder without an adapter, found a model that has none, or one already.")
    linear = dict.fromkeys(name for target in targets for name in TARGETS[target])
    others = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not name.startswith(f"{model.base_model_prefix}.")
    ]
    with use_peft() as peft:
        config = peft.LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            use_dora=kind == "dora",
            target_modules=rf"(.*\.)?layers\.\d+\.(attention|mlp)\.({'|'.join(linear)})",
            base_model_name_or_path=str(Path(base).absolute()) if Path(base).is_dir() else base,
        )
        peft.inject_adapter_in_model(config, model)  # freezes all but the adapter
    for parameter in others:
        parameter.requires_grad_(True)


def has_adapter(model: nn.Module) -> bool:
    """Whether a model has an adapter in its layers."""
    return bool(getattr(model, "peft_config", None))


def save_adapter(
    model: PreTrainedModel, folder: str | os.PathLike, state_dict: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Save the adapter, neck and heads of a model in PEFT's format, and the configuration of the whole model.

    Args:
        model: A model that `add_adapter` changed.
        folder: Where to; it is made when there is none.
        state_dict: Its weights, where they have to be collected from several processes.
    """
    weights = dict(model.state_dict()) if state_dict is None else dict(state_dict)
    others = {name: tensor for name, tensor in weights.items() if not name.startswith(f"{model.base_model_prefix}.")}
    with use_peft() as peft:
        tensors = {**peft.get_peft_model_state_dict(model, state_dict=weights), **others}
    Path(folder).mkdir(parents=True, exist_ok=True)
    config: Any = model.peft_config["default"]
    modules = list(list_trained_modules(model))
    was, config.inference_mode = (config.modules_to_save, config.inference_mode), True
    config.modules_to_save = modules
    try:
        config.save_pretrained(folder)
    finally:
        config.modules_to_save, config.inference_mode = was
    model.config.architectures = [type(model).__name__.removeprefix("FSDP")]
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.save_pretrained(folder)
    save_file(
        {f"{_PREFIX}{name}": tensor.detach().contiguous() for name, tensor in tensors.items()},
        Path(folder) / ADAPTER_FILE,
        {"format": "pt"},
    )


def list_trained_modules(model: PreTrainedModel) -> "Iterator[str]":
    """Name the modules after the encoder so that PEFT, which goes by the ends of names, finds no others."""
    names = [name for name, _ in model.named_modules()]
    for name, module in model.named_children():
        if name == model.base_model_prefix or not module.state_dict():
            continue
        if sum(other.endswith(name) for other in names) == 1:
            yield name
        else:  # `neck` would be `bottleneck` too
            yield from (f"{name}.{child}" for child, part in module.named_children() if part.state_dict())


def load_adapter_weights(model: nn.Module, folder: str | os.PathLike) -> None:
    """Load what `save_adapter` saved into a model that has such an adapter.

    Raises:
        ValueError: The file lacks weights of the model, or has others.
    """
    stored = load_file(Path(folder) / ADAPTER_FILE)
    with use_peft() as peft:
        own = {name.removeprefix(_PREFIX): stored[name] for name in stored}
        result: Any = peft.set_peft_model_state_dict(model, own)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    missing = [name for name in result.missing_keys if name not in frozen]
    if missing or result.unexpected_keys:
        found = [*(f"none of {name}" for name in missing), *result.unexpected_keys]
        raise ValueError(
            f"Expected {folder} to hold the adapter of this model, found {', '.join(found[:4])}. Give the options "
            "of the adapter that it was trained with."
        )


def merge_adapter(encoder_class: Any, source: str, **kwargs: Any) -> dict[str, Any]:
    """Merge a saved adapter into its base; gives what `from_pretrained` takes in place of a name.

    Args:
        encoder_class: `PrithviModel`.
        source: Folder or Hub id of the adapter.
        kwargs: Other arguments of `from_pretrained`; those that are fields of the configuration replace its values.

    Returns:
        `config`, `state_dict` and the arguments that are left.

    Raises:
        ImportError: PEFT is not installed.
        ValueError: The base is not there or is not the one that the adapter was trained on.
    """
    hub = {name: kwargs.pop(name) for name in ADAPTER_OPTIONS if kwargs.get(name) is not None}
    kwargs.pop("adapter_kwargs", None)  # which transformers' Auto classes add
    with use_peft() as peft:
        settings: Any = peft.PeftConfig.from_pretrained(source, **hub)
    base = str(settings.base_model_name_or_path)
    own, config = PrithviConfig.from_pretrained(source, **hub), kwargs.pop("config", None)
    if not (isinstance(config, PreTrainedConfig) and config.name_or_path == own.name_or_path):  # or it is the base's
        fields = {name: kwargs.pop(name) for name in [*kwargs] if name != "dtype" and hasattr(own, name)}
        config = PrithviConfig.from_pretrained(source, **hub, **fields)
    try:
        check_model_source(base)
    except ValueError as error:
        raise ValueError(
            f"Expected the base model of the adapter {source} at {base}, as its {ADAPTER_CONFIG_FILE} says, found "
            f"none: {error} Put it there, or write where it is into base_model_name_or_path."
        ) from error
    start, verbosity = PrithviConfig.from_pretrained(base), logging.get_verbosity()
    values = {name: getattr(own, name) for name in ("num_frames", "num_hidden_layers", "coords_encoding", "dtype")}
    logging.set_verbosity_error()  # of a backbone without heads there is nothing to report
    try:
        encoder = encoder_class.from_pretrained(
            base, coords_scale_learn=own.coords_scale_learn, image_size=own.image_size, **values
        )
        if own.bands is not None and list(own.bands) != list(start.bands or ()):
            encoder.set_bands(list(own.bands))
    finally:
        logging.set_verbosity(verbosity)
    stored = load_file(str(cached_file(source, ADAPTER_FILE, **hub)))
    weights = {name.removeprefix(_PREFIX): tensor for name, tensor in stored.items()}
    prefix = f"{encoder_class.base_model_prefix}."
    settings.modules_to_save, settings.inference_mode = None, True
    ours = {f"{_PREFIX}{name.removeprefix(prefix)}": weights.pop(name) for name in [*weights] if prefix in name}
    try:
        with use_peft():
            adapted = peft.get_peft_model(encoder, settings)
            result: Any = peft.set_peft_model_state_dict(adapted, ours)
        others = [*result.unexpected_keys, *(name for name in result.missing_keys if "lora_" in name)]
    except RuntimeError as error:  # other shapes
        others = [str(error).splitlines()[-1].strip()]
    if others:
        raise ValueError(
            f"Expected the adapter {source} to fit its base model {base}, found otherwise: {', '.join(others[:4])}. "
            f"Name the base that it was trained on as base_model_name_or_path in its {ADAPTER_CONFIG_FILE}."
        )
    merged = {f"{prefix}{name}": tensor for name, tensor in adapted.merge_and_unload().state_dict().items()}
    return {**kwargs, "config": config, "state_dict": {**merged, **weights}}


__all__ = ["add_adapter"]
