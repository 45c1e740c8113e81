# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What decides the pixels of a map, so that strips of an interrupted run are continued only by the same run."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch


_FORMAT = 1
_PASSING = ("_name_or_path", "transformers_version")  # of a configuration: where it came from, not what it does


def run_plan(
    model: torch.nn.Module, image_processor: Any, fingerprint: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Describe a run.

    Batch size, device and number of processes are no part of it: they may change between the parts of a run that was
    interrupted, for example after the device ran out of memory. Pixels then differ at most by rounding.

    Args:
        model: The model.
        image_processor: Its image processor.
        fingerprint: Of the scene's files and options.
        options: Whatever else decides the content of strips.

    Returns:
        JSON-like dictionary; equal ones belong to runs that make the same strips.
    """
    config = {name: value for name, value in model.config.to_dict().items() if name not in _PASSING}
    return {
        "format": _FORMAT,
        "versions": {name: version(name) for name in ("prithvi_hf", "torch")},
        "scene": dict(fingerprint),
        "model": weights_digest(model),
        "config": json.loads(json.dumps(config, default=str)),
        "processor": json.loads(json.dumps(image_processor.to_dict(), default=str)),
        "options": dict(options),
    }


def weights_digest(model: torch.nn.Module) -> str:
    """Digest the weights, buffers included.

    Args:
        model: The model, on any device.

    Returns:
        SHA-256 over names, types, shapes and bytes of all tensors, as hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():  # tensors one at a time: a model may fill the memory of its device
            content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(memoryview(content.numpy()))
    return digest.hexdigest()


__all__ = ["run_plan", "weights_digest"]
