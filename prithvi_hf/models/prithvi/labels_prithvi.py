# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""From mask files to labels: ignored values, classes counted from 1, and the check that no other value occurs."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from .pixel_values_prithvi import as_array, is_raster, read_pixels


IGNORED_LABEL = -100
_FEW_VALUES = 4  # each costs a pass; with more of them a table is faster


def read_labels(
    segmentation_map: Any, nodata_mask: np.ndarray, options: Mapping[str, Any], out: np.ndarray | None = None
) -> np.ndarray:
    """Reads one mask.

    Args:
        segmentation_map: array or tensor (height, width) or (1, height, width), or a raster of one band.
        nodata_mask: bool (height, width), the nodata pixels of the image.
        options: the image processor's `ignore_values`, `do_reduce_labels`, `num_labels` and `mask_nodata_labels`, and
            `names`, what messages call the image.
        out: contiguous array of the mask's size to write into, such as one example's place in a batch: int64 or, where
            `num_labels` is set, int16.

    Returns:
        Class numbers (height, width), ignored pixels -100: `out`, or else int64.

    Raises:
        ValueError: another size than the image, more than one band, fractions, or values that are no class.
    """
    name = mask_name(segmentation_map, options)
    return labels_of(read_mask(segmentation_map, name), name, nodata_mask.shape, nodata_mask, options, out)


def mask_name(segmentation_map: Any, options: Mapping[str, Any]) -> str:
    """What messages call a mask: a raster's own name, or that of the image."""
    return getattr(segmentation_map, "name", None) or f"mask of {options['names']}"


def labels_of(
    values: np.ndarray,
    name: str,
    size: tuple[int, ...],
    nodata_mask: np.ndarray | None,
    options: Mapping[str, Any],
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Turns the values of one mask into labels, as `read_labels`.

    Args:
        values: (height, width), as `read_mask` gives them.
        name: what messages call the mask.
        size: height and width of the image.
        nodata_mask: as there; None where it is known that no pixel is without data, or where labels do not go by it.
        options: as there, and `mask_limits`, two numbers between which all values are known to lie, which spares the
            look at each value; None or absent where nothing is known.
        out: as there.
    """
    if values.shape != size:
        raise ValueError(
            f"{name}: expected a mask of the image's size {_size(size)}, found {_size(values.shape)} (the image is "
            f"{options['names']}). Remedy: pair each image with its own mask, on the same grid."
        )
    labels = labels_between(values, options.get("mask_limits"), options, out)
    if labels is None and values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
        labels = _labels_by_table(values, options, out)
    if labels is None:  # no table for this data type, or a value that is no class: the rule says which
        labels = _into(out, _labels_by_rule(values, name, options))
    if options["mask_nodata_labels"] and nodata_mask is not None:
        labels[nodata_mask] = IGNORED_LABEL
    return labels


def _into(out: np.ndarray | None, labels: np.ndarray) -> np.ndarray:
    if out is None:
        return labels
    out[...] = labels
    return out


def labels_between(
    values: np.ndarray, limits: tuple[float, float] | None, options: Mapping[str, Any], out: np.ndarray | None
) -> np.ndarray | None:
    """Labels of integers whose limits leave only classes and ignored values.

    Args:
        values: values of one mask or of several.
        limits: two numbers between which all of them are known to lie, or None.
        options: as in `read_labels`.
        out: int16, the same shape, also `values` itself.

    Returns:
        `out`; None where the limits do not say that all values are classes or ignored.
    """
    found = ignored_between(limits, options)
    if found is None or out is None or out.dtype != np.int16 or values.dtype.kind not in "iu":
        return None
    first = 1 if options["do_reduce_labels"] else 0
    changes = [_change_where(values == value, IGNORED_LABEL + first - value) for value in found]
    if first or out is not values:
        np.subtract(values, first, out=out, dtype=np.int16, casting="unsafe")
    for change in changes:
        out += change
    return out


def _change_where(places: np.ndarray, change: int) -> np.ndarray:
    """What to add: arithmetic is several times faster than a write to the places found.

    One byte a pixel where that is enough, since numpy works on whole registers of them.
    """
    change_type = np.int8 if -128 <= change <= 127 else np.int16
    return np.multiply(places.view(np.int8), change_type(change))


def ignored_between(limits: tuple[float, float] | None, options: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Finds the ignored values between two limits.

    Args:
        limits: two numbers between which all values are known to lie, or None.
        options: as in `read_labels`.

    Returns:
        The values; None where another value between the limits is no class, where there are too many, or without
        limits.
    """
    if limits is None:
        return None
    ignored = tuple(options["ignore_values"] or ())
    return _find_ignored_between(*limits, ignored, options["do_reduce_labels"], options["num_labels"])


@lru_cache(maxsize=256)
def _find_ignored_between(
    smallest: float, largest: float, ignored: tuple[int, ...], reduce_labels: bool, num_labels: int | None
) -> tuple[int, ...] | None:
    # So that no sum leaves two bytes.
    if num_labels is None or not -1024 <= smallest <= largest <= 1024:
        return None
    options = {"ignore_values": list(ignored), "do_reduce_labels": reduce_labels}
    values = np.arange(int(smallest), int(largest) + 1)
    is_ignored = _find_ignored(values, options)
    first = 1 if reduce_labels else 0
    if not ((values >= first) & (values < first + num_labels) | is_ignored).all():
        return None
    found = tuple(values[is_ignored].tolist())
    return found if len(found) <= _FEW_VALUES else None


def _labels_by_table(values: np.ndarray, options: Mapping[str, Any], out: np.ndarray | None) -> np.ndarray | None:
    """Labels of integers of one or two bytes, looked up; None where a value is no class. Many times faster."""
    ignored = tuple(options["ignore_values"] or ())
    dtype = np.dtype(np.int64) if out is None else out.dtype
    table = _label_table(values.dtype, ignored, options["do_reduce_labels"], options["num_labels"], dtype)
    # Every value is in the table; "clip" only spares the check of that.
    labels = table.take(values.view(f"u{values.dtype.itemsize}"), mode="clip", out=out)
    is_wrong = options["num_labels"] is not None and labels.size and labels.min() == np.iinfo(dtype).min
    return None if is_wrong else labels


@lru_cache(maxsize=64)
def _label_table(
    dtype: np.dtype, ignored: tuple[int, ...], reduce_labels: bool, num_labels: int | None, label_dtype: np.dtype
) -> np.ndarray:
    """The label of every value of a data type, by the bits of the value; for what is no class the smallest number."""
    values = np.arange(2 ** (8 * dtype.itemsize)).astype(f"u{dtype.itemsize}").view(dtype)
    options = {"ignore_values": list(ignored), "do_reduce_labels": reduce_labels, "num_labels": None}
    labels = _labels_by_rule(values, "", options)
    if num_labels is not None:
        no_class = ~_find_ignored(values.astype(np.int64), options) & ((labels < 0) | (labels >= num_labels))
        labels[no_class] = np.iinfo(label_dtype).min
    return labels.astype(label_dtype)


def _labels_by_rule(values: np.ndarray, name: str, options: Mapping[str, Any]) -> np.ndarray:
    """Labels of a mask's values, the nodata pixels of the image left aside."""
    labels = _integral(values, name)
    ignored = _find_ignored(labels, options)
    first = 1 if options["do_reduce_labels"] else 0
    if options["num_labels"] is not None:
        _check_range(labels, ignored, first, options["num_labels"], name)
    return np.where(ignored, IGNORED_LABEL, labels - first)


def _find_ignored(labels: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
    """Which mask values stand for no class."""
    ignored = labels == IGNORED_LABEL
    if options["ignore_values"]:
        ignored |= np.isin(labels, options["ignore_values"])
    return ignored | (labels == 0) if options["do_reduce_labels"] else ignored


def read_mask(segmentation_map: Any, name: str) -> np.ndarray:
    """The values of one mask as they are in the file.

    Args:
        segmentation_map: array or tensor (height, width) or (1, height, width), or a raster of one band.
        name: what messages call it.

    Returns:
        (height, width); of a raster in memory a view that cannot be written to.

    Raises:
        ValueError: more than one band.
    """
    if is_raster(segmentation_map):
        shape = tuple(segmentation_map.shape)
        values = None if len(shape) == 3 and shape[0] != 1 else as_array(read_pixels(segmentation_map), name)
    else:
        values = as_array(_bools_to_ints(segmentation_map), name)
        shape = values.shape
    if len(shape) == 3 and shape[0] == 1:
        return values[0]
    if len(shape) != 2:
        raise ValueError(
            f"{name}: expected a mask (height, width) or (1, height, width), found shape {shape}. Remedy: give the "
            "band of the labels alone."
        )
    return values


def _bools_to_ints(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype == bool:
        return value.astype(np.uint8)
    return value.to(torch.uint8) if isinstance(value, torch.Tensor) and value.dtype == torch.bool else value


def _integral(values: np.ndarray, name: str) -> np.ndarray:
    """Mask values as int64, NaN as -100; a fraction is an error."""
    if values.dtype.kind != "f":
        return values.astype(np.int64)
    filled = np.where(np.isnan(values), values.dtype.type(IGNORED_LABEL), values)
    wrong = ~np.isfinite(filled) | (filled != np.rint(filled))
    if wrong.any():
        raise ValueError(
            f"{name}: expected whole class numbers, found {_counts(filled[wrong])}. Remedy: write the mask with "
            "integer values; resample masks by nearest neighbour."
        )
    return filled.astype(np.int64)


def _check_range(labels: np.ndarray, ignored: np.ndarray, first: int, num_labels: int, name: str) -> None:
    wrong = ~ignored & ((labels < first) | (labels >= first + num_labels))
    if wrong.any():
        raise ValueError(
            f"{name}: expected mask values {first} to {first + num_labels - 1} ({num_labels} classes), found "
            f"{_counts(labels[wrong])}. Remedy: add values that are no class to ignore_values, correct the mask, or "
            "raise num_labels; masks that count classes from 1 need do_reduce_labels=True."
        )


def _counts(values: np.ndarray, limit: int = 10) -> str:
    """`7 (12 pixels), 9 (1 pixel)`."""
    unique, counts = np.unique(values, return_counts=True)
    pairs = zip(unique[:limit].tolist(), counts[:limit].tolist(), strict=True)
    text = ", ".join(f"{value} ({count} pixel{'s' if count > 1 else ''})" for value, count in pairs)
    return text + (f" and {len(unique) - limit} more values" if len(unique) > limit else "")


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[-2]} x {shape[-1]}"


__all__ = ["IGNORED_LABEL", "ignored_between", "labels_between", "labels_of", "mask_name", "read_labels", "read_mask"]
