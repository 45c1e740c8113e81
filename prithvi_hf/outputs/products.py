# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What is kept of a strip's logits: classes, and where asked for probabilities, entropy and confidence."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from prithvi_hf.outputs.cog import NODATA_CLASS, check_probability_dtype, quantized


CLASSES, ENTROPY, CONFIDENCE = "classes", "entropy", "confidence"
_CHUNK_VALUES = 2**20  # logits turned at once: temporary arrays stay small whatever the strip's size


@dataclass(frozen=True)
class ProductOptions:
    """Which products are made besides the classes.

    Attributes:
        probabilities: Whether to keep the softmax of the logits.
        entropy: Whether to keep the entropy of the probabilities, as a share of the largest possible one,
            ln(num_labels): 0 where one class is certain, 1 where all are equally probable, whatever their number.
        confidence: Whether to keep the probability of the chosen class, float32 (polygons take its mean).
        dtype: "float32" or "uint8" (0..254 for 0..1), for probabilities and entropy.
    """

    probabilities: bool = False
    entropy: bool = False
    confidence: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_probability_dtype(self.dtype)

    def to_dict(self) -> dict[str, Any]:
        """Describe the products for the plan of a run."""
        return asdict(self)

    def bytes_per_pixel(self, num_labels: int) -> int:
        """Count the bytes that the products of one pixel take before compression."""
        size = np.dtype(self.dtype).itemsize
        return 1 + size * (num_labels * self.probabilities + self.entropy) + 4 * self.confidence


def probability_name(index: int) -> str:
    """Name the product that holds the probability of one class."""
    return f"probability_{index:03d}"


def strip_products(logits: torch.Tensor, nodata: np.ndarray, options: ProductOptions) -> dict[str, np.ndarray]:
    """Turn logits into products.

    This runs beside the model, so it computes with numpy: a thread that uses torch gets a pool of threads of its own,
    which would take the cores from the model.

    Args:
        logits: (num_labels, h, W) float32 or wider on the CPU; any value where there is no data, finite elsewhere.
        nodata: (h, W) bool, True = no data.
        options: Which products.

    Returns:
        By name, each (h, W): `CLASSES` uint8 with 255 for no data, and as asked for one `probability_name(i)` a class,
        `ENTROPY` and `CONFIDENCE`, with NaN (float32) or 255 (uint8) for no data.

    Raises:
        ValueError: If there are more than 255 classes.
    """
    check_class_count(len(logits))
    values = logits.numpy()
    rows = max(1, _CHUNK_VALUES // max(1, values[:, 0].size))
    products: dict[str, np.ndarray] = {}
    for first in range(0, values.shape[1], rows):
        place = slice(first, first + rows)
        for name, part in _chunk_products(values[:, place].astype(np.float32), nodata[place], options):
            products.setdefault(name, np.empty(nodata.shape, part.dtype))[place] = part
    return products


def check_class_count(num_labels: int) -> None:
    """Refuse more classes than a map holds.

    Args:
        num_labels: Classes of the model.

    Raises:
        ValueError: If there are more than 255.
    """
    if num_labels > NODATA_CLASS:
        raise ValueError(f"A map of uint8 classes holds at most {NODATA_CLASS} of them, the model has {num_labels}.")


def _chunk_products(
    logits: np.ndarray, nodata: np.ndarray, options: ProductOptions
) -> Iterator[tuple[str, np.ndarray]]:
    """Make the products of a few rows; `logits` are used up."""
    classes, largest = _best_classes(logits)
    classes[nodata] = NODATA_CLASS
    yield CLASSES, classes
    if not (options.probabilities or options.entropy or options.confidence):
        return
    logits -= largest
    shares = np.exp(logits)
    total = shares.sum(axis=0)
    if options.probabilities:
        for index, values in enumerate(shares):
            yield probability_name(index), _as_product(values / total, nodata, options.dtype)
    if options.entropy:
        yield ENTROPY, _as_product(_entropy(logits, shares, total), nodata, options.dtype)
    if options.confidence:
        yield CONFIDENCE, _as_product(1 / total, nodata, "float32")


def _best_classes(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the class of the largest logit, the first of equal ones, and that logit, both (h, W)."""
    classes, largest = np.zeros(logits.shape[1:], dtype=np.uint8), logits[0].copy()
    for index, values in enumerate(logits[1:], start=1):
        classes[values > largest] = index
        np.maximum(largest, values, out=largest)
    return classes, largest


def _entropy(logits: np.ndarray, shares: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Entropy as a share of the largest one, 0 for a single class.

    With x the logits below their largest, probabilities are e^x / total, so the sum over -p ln p is ln total - the sum
    over p x. That takes no logarithm of a probability, which may be 0.
    """
    if len(logits) == 1:
        return np.zeros_like(total)
    entropy = np.log(total) - (shares * logits).sum(axis=0) / total
    return np.clip(entropy / math.log(len(logits)), 0, 1, dtype=np.float32)


def _as_product(values: np.ndarray, nodata: np.ndarray, dtype: str) -> np.ndarray:
    """Mark no data in (h, W) values from 0 to 1, which are used up, and store them as `dtype`."""
    values[nodata] = np.nan
    return values if dtype == "float32" else quantized(values)


__all__ = [
    "CLASSES",
    "CONFIDENCE",
    "ENTROPY",
    "ProductOptions",
    "check_class_count",
    "probability_name",
    "strip_products",
]
