# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What is kept of a strip's logits: classes, and what the outputs need: probabilities, entropy, confidence."""

import math
from collections.abc import Collection

import numpy as np
import torch

from prithvi_hf.outputs.cog import NODATA_CLASS, quantize


CLASSES, PROBABILITIES, ENTROPY, CONFIDENCE = "classes", "probabilities", "entropy", "confidence"
THUMBNAIL, DETAILS = "thumbnail", "details"  # kept besides by who makes the strips: a small picture, JSON as bytes
_CHUNK_VALUES = 2**20  # logits turned at once: temporary arrays stay small whatever the strip's size


def name_probability(index: int) -> str:
    """Name the array that holds the probability of one class."""
    return f"probability_{index:03d}"


def make_products(
    logits: torch.Tensor, nodata: np.ndarray, needs: Collection[str] = (), dtype: str = "float32"
) -> dict[str, np.ndarray]:
    """Turn logits into what is kept of them.

    This runs beside the model, so it computes with numpy: a thread that uses torch gets a pool of threads of its own,
    which would take the cores from the model.

    Args:
        logits: (num_labels, h, W) float32 or wider on the CPU; any value where there is no data, finite elsewhere.
        nodata: (h, W) bool, True = nodata.
        needs: Some of `PROBABILITIES` (softmax of the logits), `ENTROPY` (of the probabilities, as a fraction of the
            largest possible one, ln(num_labels): 0 where one class is certain, 1 where all are equally probable) and
            `CONFIDENCE` (the probability of the chosen class, always float32).
        dtype: "float32" or "uint8" (0..254 for 0..1), for probabilities and entropy.

    Returns:
        By name, each (h, W): `CLASSES` uint8 with 255 for nodata, and as asked for one `name_probability(i)` per
        class, `ENTROPY` and `CONFIDENCE`, with NaN (float32) or 255 (uint8) for nodata.

    Raises:
        ValueError: If there are more than 255 classes.
    """
    if len(logits) > NODATA_CLASS:
        raise ValueError(f"A map of uint8 classes holds at most {NODATA_CLASS} of them, the model has {len(logits)}.")
    all_values = logits.numpy()
    chunk = max(1, _CHUNK_VALUES // max(1, all_values[:, 0].size))
    products: dict[str, np.ndarray] = {}

    for first in range(0, len(nodata), chunk):
        rows = slice(first, first + chunk)
        values, missing = all_values[:, rows].astype(np.float32), nodata[rows]

        # The class of the largest logit, the first of equal ones.
        classes, largest = np.zeros(missing.shape, dtype=np.uint8), values[0].copy()
        for index, plane in enumerate(values[1:], start=1):
            classes[plane > largest] = index
            np.maximum(largest, plane, out=largest)
        classes[missing] = NODATA_CLASS
        found = {CLASSES: classes}

        if {PROBABILITIES, ENTROPY, CONFIDENCE} & set(needs):
            values -= largest
            powers = np.exp(values)
            total = powers.sum(axis=0)
        if PROBABILITIES in needs:
            found |= {name_probability(index): plane / total for index, plane in enumerate(powers)}
        if ENTROPY in needs:
            # With x the logits below their largest, probabilities are e^x / total, so the sum over -p ln p is
            # ln total - the sum over p x. That takes no logarithm of a probability, which may be 0.
            entropy = np.log(total) - (powers * values).sum(axis=0) / total
            found[ENTROPY] = np.clip(entropy / math.log(max(2, len(values))), 0, 1, dtype=np.float32)
        if CONFIDENCE in needs:
            found[CONFIDENCE] = 1 / total

        for name, part in found.items():
            if name != CLASSES:
                part[missing] = np.nan
                part = part if dtype == "float32" or name == CONFIDENCE else quantize(part)
            products.setdefault(name, np.empty(nodata.shape, part.dtype))[rows] = part
    return products
