# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The dtype that a model predicts in: half precision where the machine is made for it and the answers are the same."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from transformers.utils import logging

from .sliding_window_prithvi import evaluation_mode


logger = logging.get_logger(__name__)

INFERENCE_DTYPES = ("float32", "bfloat16", "float16", "auto")
LEAST_AGREEMENT = 0.995
"""Fraction of the pixels with data that have to get in bfloat16 the class that they get in float32."""
VALUE_TOLERANCE = 0.05
"""In standard deviations of the target: how far a value in bfloat16 may be from that in float32 and agree with it. Of
a model whose error is half a standard deviation, such a difference everywhere raises the RMSE by half a percent."""
MAX_TILES = 8
"""Tiles that are compared."""
_PLACES = 64  # that are looked at for tiles with data
Sample = tuple[Mapping[str, torch.Tensor], torch.Tensor]
"""The arguments of a model for one tile, and where it has data, bool (1, h, w), or (1,) of a whole image."""


class DtypeChoice(NamedTuple):
    """The dtype that a model predicts in, and why."""

    chosen: str
    reason: str
    agreement: float | None = None  # fraction of the pixels with data that agree with float32; None if not measured


def find_matrix_units(device: torch.device) -> str | None:
    """Name the units that multiply matrices of bfloat16 on a device; None where it has none."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            name = ".".join(map(str, torch.cuda.get_device_capability()))
            is_made_for_it = torch.cuda.is_bf16_supported(including_emulation=False)
        return f"CUDA compute capability {name}" if is_made_for_it else None
    tests = {"AMX": "_is_amx_tile_supported", "AVX512-BF16": "_is_avx512_bf16_supported"}
    found = [name for name, test in tests.items() if device.type == "cpu" and getattr(torch.cpu, test, bool)()]
    return " and ".join(found) or None


def convert_model(model: Any, dtype: str) -> Any:
    """Give a copy of a model in a dtype, on its device; itself where that is its own."""
    wanted = getattr(torch, dtype)
    return model if model.dtype == wanted else copy.deepcopy(model).to(wanted)


def spread_places(rows: Sequence[int], columns: Sequence[int], most: int = _PLACES) -> Iterator[tuple[int, int]]:
    """Give positions of a grid, each once and at most so many, far from those before (M. Roberts' sequence R2)."""
    seen = set()
    for number in range(most):
        place = tuple(
            sides[int((0.5 + number * step) % 1 * len(sides))]
            for sides, step in ((rows, 0.7548776662466927), (columns, 0.5698402909980532))
        )
        if place not in seen:
            seen.add(place)
            yield place  # type: ignore[misc]  # of two numbers


def count_tiles_to_compare(tiles: int) -> int:
    """Give how many of a scene's tiles to compare: at most a fourth, so that it takes much less than the map does."""
    return min(MAX_TILES, max(2, tiles // 4))


def resolve_dtype(model: Any, dtype: str, samples: Iterable[Sample], count: int = MAX_TILES) -> DtypeChoice:
    """Choose the dtype to predict in.

    "auto" is bfloat16 where the model's device has matrix units for it and the model agrees with itself in float32 on
    99.5 % of the pixels with data of some tiles, and float32 elsewhere. Pixels agree where the most probable class is
    the same, of a model of values where they differ by no more than a twentieth of the target's standard deviation,
    and of several classes per image where each one is found by both or by neither. Another dtype is taken as it is,
    with a warning where the device is slow at it.

    Args:
        model: A model with `logits`, on the device where it is to predict; it is not changed.
        dtype: One of `INFERENCE_DTYPES`.
        samples: Tiles to compare. Those in which float32 finds more than one class are preferred, so that up to
            twice as many as are compared are taken.
        count: How many to compare, at least 1.

    Raises:
        ValueError: If the dtype is not known.
    """
    if dtype not in INFERENCE_DTYPES:
        raise ValueError(f"dtype: expected one of {', '.join(INFERENCE_DTYPES)}, found {dtype!r}.")
    device, units = model.device, find_matrix_units(model.device)
    if dtype != "auto":
        has_units = units is not None
        if dtype == "float16":  # GPUs are made for it
            has_units = device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_fp16_supported()
        if dtype != "float32" and not has_units:
            logger.warning(f"{dtype} is slow on this {device.type}, which has no matrix units for it: use float32.")
        return DtypeChoice(dtype, "as asked for")
    if units is None:
        return DtypeChoice("float32", f"this {device.type} has no matrix units for bfloat16")
    try:
        half = convert_model(model, "bfloat16")
    except ValueError:  # of an exported model
        return DtypeChoice("float32", "the runtime that computes the graph has no bfloat16")
    agreement, compared = measure_agreement(convert_model(model, "float32"), half, samples, count)
    if agreement is None:
        return DtypeChoice("float32", "no tile with data was found to compare bfloat16 with")
    text = f"{100 * agreement:.2f} % of the pixels of {compared} tiles agree with float32"
    if agreement < LEAST_AGREEMENT:
        return DtypeChoice("float32", f"in bfloat16 only {text}, less than {100 * LEAST_AGREEMENT:g} %", agreement)
    return DtypeChoice("bfloat16", f"{units}; {text}", agreement)


@torch.no_grad()
def measure_agreement(exact: Any, half: Any, samples: Iterable[Sample], count: int) -> tuple[float | None, int]:
    """Give the fraction of pixels with data that a model in two dtypes agrees on, and the number of tiles compared.

    The fraction is None without any data. The other arguments are those of `resolve_dtype`.
    """
    device, config = exact.device, exact.config
    mixed: list[tuple[Sample, torch.Tensor]] = []  # tiles of several classes
    plain: list[tuple[Sample, torch.Tensor]] = []
    agreed = pixels = 0
    with evaluation_mode(exact), evaluation_mode(half):
        for inputs, valid in islice((sample for sample in samples if sample[1].any()), 2 * count):
            inputs, valid = {name: value.to(device) for name, value in inputs.items()}, valid.to(device)
            expected = exact(**inputs).logits.float()
            classes = expected.argmax(dim=1)[valid]
            (mixed if (classes != classes[0]).any() else plain).append(((inputs, valid), expected))
            if len(mixed) == count:
                break
        compared = (mixed + plain)[:count]
        for (inputs, valid), expected in compared:
            found = half(**inputs).logits.float()
            if getattr(config, "problem_type", None) == "multi_label_classification":
                same = ((found > 0) == (expected > 0)).all(dim=1)
            elif expected.shape[1] == 1 or getattr(config, "problem_type", None) == "regression":
                same = ((found - expected).abs() <= VALUE_TOLERANCE * config.target_std).all(dim=1)
            else:
                same = found.argmax(dim=1) == expected.argmax(dim=1)
            agreed += int((same & found.isfinite().all(dim=1))[valid].sum())
            pixels += int(valid.sum())
    return (agreed / pixels if pixels else None), len(compared)


__all__ = ["INFERENCE_DTYPES", "DtypeChoice", "convert_model", "resolve_dtype"]
