# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""From mask files to labels: ignored values, classes counted from 1, and the check that no other value occurs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch

from .pixel_values_prithvi import Pixels, as_array, is_raster, read_pixels
from .processor_options_prithvi import ProcessorOptions


IGNORED_LABEL = -100
NODATA_NAME = "no data"
"""What counts and legends call pixels without data."""
_FEW_VALUES = 4  # each costs a pass; with more of them a table is faster


def read_labels(
    segmentation_map: Pixels,
    nodata_mask: np.ndarray,
    options: ProcessorOptions,
    image_name: str = "",
) -> np.ndarray:
    """Read one mask, as [`read_mask`] does, and make its labels, as [`make_labels`] does."""
    name = name_mask(segmentation_map, image_name)
    values = read_mask(segmentation_map, name)
    return make_labels(values, name, nodata_mask.shape, nodata_mask, options, image_name=image_name)


def name_mask(segmentation_map: Pixels, image_name: str) -> str:
    """Name a mask for messages: a raster's own name, or that of the image."""
    return getattr(segmentation_map, "name", None) or f"mask of {image_name}"


def read_mask(segmentation_map: Pixels, name: str) -> np.ndarray:
    """Read a mask, (height, width) or (1, height, width), as it is in the file; in memory it is a read-only view."""
    if is_raster(segmentation_map):
        shape = tuple(segmentation_map.shape)
        values = None if len(shape) == 3 and shape[0] != 1 else as_array(read_pixels(segmentation_map), name)
    else:
        if isinstance(segmentation_map, np.ndarray) and segmentation_map.dtype == bool:
            segmentation_map = segmentation_map.astype(np.uint8)
        elif isinstance(segmentation_map, torch.Tensor) and segmentation_map.dtype == torch.bool:
            segmentation_map = segmentation_map.to(torch.uint8)
        values = as_array(segmentation_map, name)
        shape = values.shape
    if values is None or not (len(shape) == 2 or (len(shape) == 3 and shape[0] == 1)):
        raise ValueError(
            f"{name}: expected a mask (height, width) or (1, height, width), found shape {shape}. Remedy: give the "
            "band of the labels alone."
        )
    return values[0] if len(shape) == 3 else values


def make_labels(
    values: np.ndarray,
    name: str,
    size: tuple[int, ...],
    nodata_mask: np.ndarray | None,
    options: ProcessorOptions,
    out: np.ndarray | None = None,
    limits: tuple[float, float] | None = None,
    image_name: str = "",
) -> np.ndarray:
    """Turn the values of one mask (height, width) into labels: class numbers, ignored pixels -100.

    `size` and `nodata_mask` (height, width) are those of the image; all values are known to be between the `limits`.
    `out`, contiguous and int64 or, with `num_labels`, int16, is written into; None makes an array of int64.
    """
    if values.shape != size:
        raise ValueError(
            f"{name}: expected a mask of the image's size {size[-2]} x {size[-1]}, found {values.shape[-2]} x "
            f"{values.shape[-1]} (the image is {image_name}). Remedy: pair each image with its own mask, on the same "
            "grid."
        )
    rule = (tuple(options.ignore_values or ()), options.do_reduce_labels, options.num_labels)
    labels = None if out is None else write_labels_between(values, limits, options, out)
    if labels is None and values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
        # Integers of one or two bytes are looked up in a table, many times faster than the rule.
        dtype = np.dtype(np.int64) if out is None else out.dtype
        # Every value is in the table; "clip" only spares the check of that.
        bits = values.view(f"u{values.dtype.itemsize}")
        labels = _make_label_table(values.dtype, *rule, dtype).take(bits, mode="clip", out=out)
        if options.num_labels is not None and labels.size and labels.min() == np.iinfo(dtype).min:
            labels = None
    if labels is None:  # no table for this data type, or a value that is not a class: the rule says which
        labels = _label_by_rule(values, name, *rule)
        if out is not None:
            out[...] = labels
            labels = out
    if options.mask_nodata_labels and nodata_mask is not None:
        labels[nodata_mask] = IGNORED_LABEL
    return labels


def write_labels_between(
    values: np.ndarray, limits: tuple[float, float] | None, options: ProcessorOptions, out: np.ndarray
) -> np.ndarray | None:
    """Write labels of integers, of one mask or of several, into int16 `out`, which may be the values themselves.

    None comes back where the limits do not leave only classes and a few ignored values.
    """
    found = find_ignored_between(limits, options)
    if found is None or out.dtype != np.int16 or values.dtype.kind not in "iu":
        return None
    first = 1 if options.do_reduce_labels else 0
    changes = []
    for value in found:
        # Arithmetic is several times faster than a write to the places found. One byte per pixel where that is enough,
        # since numpy works on whole registers of them.
        change = IGNORED_LABEL + first - value
        change_type = np.int8 if -128 <= change <= 127 else np.int16
        changes.append(np.multiply((values == value).view(np.int8), change_type(change)))
    if first or out is not values:
        np.subtract(values, first, out=out, dtype=np.int16, casting="unsafe")
    for change in changes:
        out += change
    return out


def find_ignored_between(limits: tuple[float, float] | None, options: ProcessorOptions) -> tuple[int, ...] | None:
    """Find the ignored values between two limits; None if they are many, or if another value is not a class."""
    if limits is None or options.num_labels is None:
        return None
    return _find_ignored_between(
        *limits, tuple(options.ignore_values or ()), options.do_reduce_labels, options.num_labels
    )


@lru_cache(maxsize=256)
def _find_ignored_between(
    smallest: float, largest: float, ignored: tuple[int, ...], reduce_labels: bool, num_labels: int
) -> tuple[int, ...] | None:
    if not -1024 <= smallest <= largest <= 1024:  # so that no sum leaves two bytes
        return None
    values = np.arange(int(smallest), int(largest) + 1)
    is_ignored = _find_ignored(values, ignored, reduce_labels)
    first = 1 if reduce_labels else 0
    if not ((values >= first) & (values < first + num_labels) | is_ignored).all():
        return None
    found = tuple(values[is_ignored].tolist())
    return found if len(found) <= _FEW_VALUES else None


@lru_cache(maxsize=64)
def _make_label_table(
    dtype: np.dtype, ignored: tuple[int, ...], reduce_labels: bool, num_labels: int | None, label_dtype: np.dtype
) -> np.ndarray:
    """List the label of every value of a data type by the value's bits; of what is not a class the smallest number."""
    values = np.arange(2 ** (8 * dtype.itemsize)).astype(f"u{dtype.itemsize}").view(dtype)
    labels = _label_by_rule(values, "", ignored, reduce_labels, num_labels=None)
    if num_labels is not None:
        is_ignored = _find_ignored(values.astype(np.int64), ignored, reduce_labels)
        labels[~is_ignored & ((labels < 0) | (labels >= num_labels))] = np.iinfo(label_dtype).min
    return labels.astype(label_dtype)


def _label_by_rule(
    values: np.ndarray, name: str, ignored: Sequence[int], reduce_labels: bool, num_labels: int | None
) -> np.ndarray:
    """Label a mask's values as int64, the nodata pixels of the image left aside."""
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), values.dtype.type(IGNORED_LABEL), values)
        wrong = ~np.isfinite(values) | (values != np.rint(values))
        if wrong.any():
            raise ValueError(
                f"{name}: expected whole class numbers, found {_count_values(values[wrong])}. Remedy: write the mask "
                "with integer values; resample masks by nearest neighbour."
            )
    labels = values.astype(np.int64)
    is_ignored = _find_ignored(labels, ignored, reduce_labels)
    first = 1 if reduce_labels else 0
    if num_labels is not None:
        wrong = ~is_ignored & ((labels < first) | (labels >= first + num_labels))
        if wrong.any():
            raise ValueError(
                f"{name}: expected mask values {first} to {first + num_labels - 1} ({num_labels} classes), found "
                f"{_count_values(labels[wrong])}. Remedy: add values that are not a class to ignore_values, correct "
                "the mask, or raise num_labels; masks that count classes from 1 need do_reduce_labels=True."
            )
    return np.where(is_ignored, IGNORED_LABEL, labels - first)


def _find_ignored(labels: np.ndarray, ignored: Sequence[int], reduce_labels: bool) -> np.ndarray:
    """Find the mask values that do not stand for a class."""
    found = labels == IGNORED_LABEL
    if ignored:
        found |= np.isin(labels, ignored)
    return found | (labels == 0) if reduce_labels else found


def _count_values(values: np.ndarray, limit: int = 10) -> str:
    """Write `7 (12 pixels), 9 (1 pixel)`."""
    unique, counts = np.unique(values, return_counts=True)
    pairs = zip(unique[:limit].tolist(), counts[:limit].tolist(), strict=True)
    text = ", ".join(f"{value} ({count} pixel{'s' if count > 1 else ''})" for value, count in pairs)
    return text + (f" and {len(unique) - limit} more values" if len(unique) > limit else "")


def make_unique_names(id2label: Mapping[int, str]) -> dict[int, str]:
    """Name each class so that no two share a name, nor one the name of no data: "crop" becomes "crop (3)" there."""
    names = {index: str(id2label[index]) for index in sorted(id2label)}
    while doubtful := {name for name, count in Counter([*names.values(), NODATA_NAME]).items() if count > 1}:
        names = {index: f"{name} ({index})" if name in doubtful else name for index, name in names.items()}
    return names


def name_counts(counts: np.ndarray, id2label: Mapping[int, str]) -> dict[str, int]:
    """Name pixel counts by class index, (256,) with 255 for no data: in class order, and last "no data".

    Every pixel is in one of them: names are made unique, and a class that has pixels but no name is "LABEL_3".
    """
    nameless = {int(index): f"LABEL_{index}" for index in np.flatnonzero(counts[:-1]) if index not in id2label}
    named = {name: int(counts[index]) for index, name in make_unique_names({**nameless, **id2label}).items()}
    return {**named, NODATA_NAME: int(counts[-1])}
