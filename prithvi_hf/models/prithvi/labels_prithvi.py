# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""From mask files to labels: ignored values, values that stand for classes, and the check that no other one occurs."""

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from .pixel_values_prithvi import (
    Frame,
    Pixels,
    as_array,
    equals_nodata,
    has_alpha,
    is_raster,
    list_nodata,
    read_pixels,
)
from .processor_options_prithvi import IGNORED_LABEL as IGNORED_LABEL
from .processor_options_prithvi import ProcessorOptions


_FEW_VALUES = 4  # each costs a pass; with more of them a table is faster


class MaskValuesError(ValueError):
    """Values of a mask that are not a class.

    Attributes:
        name (`str`): the mask.
        wrong (`dict[float, int]`): pixels of each value that is not a class.
        values (`tuple[int, ...]`): all values of the mask that are not ignored.
    """

    def __init__(
        self, name: str, wrong: Mapping[float, int], values: Collection[int], options: ProcessorOptions
    ) -> None:
        self.name, self.wrong, self.values = name, dict(wrong), tuple(sorted(values))
        super().__init__(
            f"{name}: {describe_expected_values(options)}, found {list_counts(self.wrong)}. Remedy: "
            f"{advise_label_options(self.values, options)}"
        )


class _Rule(NamedTuple):
    """What mask values mean."""

    ignored: tuple[int, ...]
    label_map: tuple[tuple[int, int], ...]
    first: int  # the mask value of class 0, where the map does not say otherwise
    num_labels: int | None


def read_labels(
    segmentation_map: Pixels,
    nodata_mask: np.ndarray,
    options: ProcessorOptions,
    image_name: str = "",
) -> np.ndarray:
    """Read one mask, as [`read_mask`] does, and make its labels, as [`make_labels`] does."""
    mask = read_mask(segmentation_map, name_mask(segmentation_map, image_name))
    return make_labels(mask, nodata_mask.shape, nodata_mask, options, image_name=image_name)


def name_mask(segmentation_map: Pixels, image_name: str) -> str:
    """Name a mask for messages: a raster's own name, or that of the image."""
    return getattr(segmentation_map, "name", None) or f"mask of {image_name}"


def check_mask_shape(segmentation_map: Pixels, name: str) -> None:
    """Refuse what is neither (height, width) nor one band of it; a raster may have an alpha band beside its band."""
    shape = tuple(segmentation_map.shape)
    bands = shape[0] if len(shape) == 3 else 1
    if len(shape) in (2, 3) and (
        bands == 1 or (bands == 2 and has_alpha(getattr(segmentation_map, "descriptions", None)))
    ):
        return
    remedy = "give the band of the labels alone."
    if bands in (3, 4):
        remedy = (
            "this looks like a picture of a map: turn each of its colours into a class number first (`rgb2pct` makes "
            "one band of numbers), or give the band of the labels alone."
        )
    raise ValueError(
        f"{name}: expected a mask (height, width) or (1, height, width), found shape {shape}. Remedy: {remedy}"
    )


def read_mask(segmentation_map: Pixels, name: str) -> Frame:
    """Read a mask, (height, width), as it is in the file, with what the file says of nodata.

    In memory its values are a read-only view.
    """
    if isinstance(segmentation_map, np.ndarray) and segmentation_map.dtype == bool:
        segmentation_map = segmentation_map.astype(np.uint8)
    elif isinstance(segmentation_map, torch.Tensor) and segmentation_map.dtype == torch.bool:
        segmentation_map = segmentation_map.to(torch.uint8)
    if not is_raster(segmentation_map):
        values = as_array(segmentation_map, name)
        check_mask_shape(values, name)
        return Frame(values[0] if values.ndim == 3 else values, name)
    check_mask_shape(segmentation_map, name)
    band = segmentation_map
    if band.count == 2 and hasattr(band, "select"):  # the other one is its mask
        band = band.select([0])
    values = as_array(read_pixels(band), name)
    return Frame(values[0], name, band.nodata, band.read_nodata_mask(), getattr(band, "limits", None))


def make_labels(
    mask: Frame,
    size: tuple[int, ...],
    nodata_mask: np.ndarray | None,
    options: ProcessorOptions,
    out: np.ndarray | None = None,
    image_name: str = "",
) -> np.ndarray:
    """Turn the values of one mask into labels: class numbers, ignored pixels -100.

    `size` and `nodata_mask` (height, width) are those of the image. `out`, contiguous and int64 or, with `num_labels`,
    int16, is written into; None makes an array of int64. Of `label_type` "value" they are those of [`make_targets`].
    """
    values = mask.values
    if values.shape != size:
        raise ValueError(
            f"{mask.name}: expected a mask of the image's size {size[-2]} x {size[-1]}, found {values.shape[-2]} x "
            f"{values.shape[-1]} (the image is {image_name}). Remedy: pair each image with its own mask, on the same "
            "grid."
        )
    if options.label_type == "value":
        return make_targets(mask, nodata_mask, options, out)
    labels = None if out is None else write_labels_between(values, mask.limits, options, out)
    if labels is not None and mask.file_mask is not None:
        labels[mask.file_mask] = IGNORED_LABEL
    if labels is None and values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
        # Integers of one or two bytes are looked up in a table, many times faster than the rule.
        dtype = np.dtype(np.int64) if out is None else out.dtype
        # Every value is in the table; "clip" only spares the check of that.
        bits = values.view(f"u{values.dtype.itemsize}")
        labels = _make_label_table(values.dtype, _find_rule(mask.tag, options), dtype).take(bits, mode="clip", out=out)
        if mask.file_mask is not None:
            labels[mask.file_mask] = IGNORED_LABEL
        if options.num_labels is not None and labels.size and labels.min() == np.iinfo(dtype).min:
            labels = None
    if labels is None:  # no table for this data type, or a value that is not a class: the rule says which
        labels = _label_by_rule(mask, options)
        if out is not None:
            out[...] = labels
            labels = out
    if options.mask_nodata_labels and nodata_mask is not None:
        labels[nodata_mask] = IGNORED_LABEL
    return labels


def make_targets(
    mask: Frame, nodata_mask: np.ndarray | None, options: ProcessorOptions, out: np.ndarray | None = None
) -> np.ndarray:
    """Turn a raster of a quantity into targets, float32 (height, width) in its unit, NaN where there is none."""
    values, nodata = mask.values, list_nodata(mask.tag, options.target_nodata_value)
    missing = [equals_nodata(values, nodata, mask.limits), mask.file_mask]
    missing += [nodata_mask] if options.mask_nodata_labels else []
    targets = np.empty(values.shape, dtype=np.float32) if out is None else out
    with np.errstate(over="ignore", invalid="ignore"):  # of values that are missing
        targets[...] = values * float(options.target_rescale_factor) + float(options.target_rescale_offset)
    if options.target_range is not None:
        lowest, highest = options.target_range
        missing.append((targets < lowest) | (targets > highest))
    for where in missing:
        if where is not None:
            targets[where] = np.nan
    return targets


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
    if limits is None or options.num_labels is None or options.label_map:
        return None
    # The nodata tag of a mask need not be looked at: a value that it makes an ignored one is not a class without it.
    return _find_ignored_between(*limits, _find_rule(None, options))


@lru_cache(maxsize=256)
def _find_ignored_between(smallest: float, largest: float, rule: _Rule) -> tuple[int, ...] | None:
    if not -1024 <= smallest <= largest <= 1024:  # so that no sum leaves two bytes
        return None
    values = np.arange(int(smallest), int(largest) + 1)
    is_ignored = _find_ignored(values, rule)
    if not (_is_class(values, rule) | is_ignored).all():
        return None
    found = tuple(values[is_ignored].tolist())
    return found if len(found) <= _FEW_VALUES else None


def _find_rule(tag: float | None, options: ProcessorOptions) -> _Rule:
    """Find what the values of a mask mean whose file has this nodata tag."""
    ignored, first = options.ignore_values or (), 1 if options.do_reduce_labels else 0
    rule = _Rule(tuple(ignored), tuple((options.label_map or {}).items()), first, options.num_labels)
    if tag is None or not float(tag).is_integer() or abs(tag) >= 2**53:
        return rule
    # Writers tag 0 as nodata in masks that count it: as long as it is the value of a class, it is one.
    is_class = first <= tag < first + (options.num_labels or 1) or tag in (options.label_map or {})
    return rule if is_class else rule._replace(ignored=(*rule.ignored, int(tag)))


@lru_cache(maxsize=64)
def _make_label_table(dtype: np.dtype, rule: _Rule, label_dtype: np.dtype) -> np.ndarray:
    """List the label of every value of a data type by the value's bits; of what is not a class the smallest number."""
    values = np.arange(2 ** (8 * dtype.itemsize)).astype(f"u{dtype.itemsize}").view(dtype).astype(np.int64)
    labels = _map_values(values, rule)
    is_ignored = _find_ignored(values, rule)
    if rule.num_labels is not None:
        labels[~_is_class(values, rule)] = np.iinfo(label_dtype).min
    labels[is_ignored] = IGNORED_LABEL
    return labels.astype(label_dtype)


def _label_by_rule(mask: Frame, options: ProcessorOptions) -> np.ndarray:
    """Label a mask's values as int64, the nodata pixels of the image left aside."""
    values, rule, missing = mask.values, _find_rule(mask.tag, options), find_unlabelled(mask, options)
    if missing is not None:
        values = np.where(missing, values.dtype.type(0), values)
    if values.dtype.kind == "f" and (wrong := (values != np.rint(values)) | (np.abs(values) >= 2**53)).any():
        raise ValueError(
            f"{mask.name}: expected whole class numbers, found {list_counts(count_values(values[wrong]))}. Remedy: "
            "write the mask with integer values; resample masks by nearest neighbour."
        )
    numbers = values.astype(np.int64)
    is_ignored = _find_ignored(numbers, rule)
    if missing is not None:
        is_ignored |= missing
    wrong = ~is_ignored & ~_is_class(numbers, rule)
    if options.num_labels is not None and wrong.any():
        found = np.unique(numbers[~is_ignored]).tolist()
        raise MaskValuesError(mask.name, count_values(numbers[wrong]), found, options)
    return np.where(is_ignored, IGNORED_LABEL, _map_values(numbers, rule))


def find_unlabelled(mask: Frame, options: ProcessorOptions) -> np.ndarray | None:
    """Find the pixels that a mask's file marks as nodata, bool (height, width); None for none.

    Those of its mask or alpha band; of floats those that are nodata by the rule for images; and those of its tag, if
    this is not the value of a class.
    """
    rule = _find_rule(mask.tag, options)
    is_class = mask.tag is None or (mask.tag.is_integer() and int(mask.tag) not in rule.ignored)
    nodata = equals_nodata(mask.values, () if mask.tag is None or is_class else (mask.tag,))
    if nodata is None or mask.file_mask is None:
        return mask.file_mask if nodata is None else nodata
    return nodata | mask.file_mask


def _map_values(values: np.ndarray, rule: _Rule) -> np.ndarray:
    """Give int64 values as class numbers, whether or not there are such classes."""
    labels = values - rule.first
    for value, label in rule.label_map:
        labels[values == value] = label
    return labels


def _is_class(values: np.ndarray, rule: _Rule) -> np.ndarray:
    """Find the mask values that stand for a class; where their number is not known all do, from 0 on."""
    last = np.inf if rule.num_labels is None else rule.first + rule.num_labels
    found = (values >= rule.first) & (values < last)
    return found | np.isin(values, [value for value, _ in rule.label_map]) if rule.label_map else found


def _find_ignored(values: np.ndarray, rule: _Rule) -> np.ndarray:
    """Find the mask values that are ignored."""
    found = values == IGNORED_LABEL
    if rule.ignored:
        found |= np.isin(values, rule.ignored)
    return found | (values == 0) if rule.first else found


def describe_expected_values(options: ProcessorOptions) -> str:
    """Write `expected mask values 0 to 1 (2 classes)`."""
    if options.num_labels is None:
        return "expected class numbers from 0 on"
    first, named = (1 if options.do_reduce_labels else 0), sorted(options.label_map or {})
    last = first + options.num_labels - 1
    keys = f", or {', '.join(map(str, named))} of label_map" if named else ""
    return f"expected mask values {first} to {last} ({options.num_labels} classes){keys}"


def advise_label_options(values: Collection[int], options: ProcessorOptions) -> str:
    """Say which options of labels fit masks with these values, ignored ones left out, for the classes that there are.

    Args:
        values (`Collection[int]`): the different values of the masks.
        options ([`ProcessorOptions`]): how they were read; without `num_labels` every value is taken for a class.
    """
    found = sorted(values)
    # Without a number: all from 0 on, but not the last of 0, 1, 2, 255.
    known = [value for value in found if value >= 0]
    gap = len(known) > 2 and known[-2] == len(known) - 2 and known[-1] > len(known)
    count = options.num_labels or len(known) - gap
    if options.label_map or options.do_reduce_labels or not found:
        option = "label_map" if options.label_map else "do_reduce_labels"
        return (
            "add values that are not a class to ignore_values, correct the masks, or raise num_labels; as "
            f"{option} is set, values that stand for a class may be missing in label_map."
        )
    rest = ", correct the masks, or raise num_labels (one more of class_names)."
    coded = [value for value in found if value != 0] if len(found) == count + 1 else found
    if found[0] >= 0 and found[-1] == count:
        text = "masks that count classes from 1, with 0 for pixels without a label, need do_reduce_labels=True."
    elif set(range(count)) <= set(found):
        return f"add {', '.join(str(value) for value in found if not 0 <= value < count)} to ignore_values{rest}"
    elif count == 2 and len(found) <= 2 and found[0] in (0, found[-1]):
        text = f"where {found[-1]} is the second class (masks of 0 and {found[-1]}), set label_map={{{found[-1]}: 1}}."
    elif len(coded) == count:
        places = ", ".join(f"{value}: {label}" for label, value in enumerate(coded))
        zero = " and ignore_values=[0]" if 0 not in coded and 0 in found else ""
        text = f"where these values are the classes in their order, set label_map={{{places}}}{zero}."
    else:
        text = "name the value of each class in label_map; masks that count classes from 1 need do_reduce_labels=True."
    return f"{text} Otherwise add values that are not a class to ignore_values{rest}"


def count_values(values: np.ndarray) -> dict[float, int]:
    """Count the pixels of each value but NaN."""
    unique, counts = np.unique(values[values == values], return_counts=True)
    return dict(zip(unique.tolist(), counts.tolist(), strict=True))


def list_counts(counts: Mapping[float, int], limit: int = 10) -> str:
    """Write `7 (12 pixels), 9 (1 pixel)`."""
    pairs = list(counts.items())[:limit]
    text = ", ".join(f"{value} ({count} pixel{'s' if count > 1 else ''})" for value, count in pairs)
    return text + (f" and {len(counts) - limit} more values" if len(counts) > limit else "")
