# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""From an image, as the image processor takes it, to its frames: which bands are read, and where each date lies."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .bands_prithvi import is_undescribed, resolve_bands, resolve_bands_once
from .raster_values_prithvi import Frame, as_array, check_axes, is_raster, read_pixels


def used_bands(
    descriptions: Sequence[str | None] | None, count: int, options: Mapping[str, Any], num_frames: int
) -> tuple[list[int], bool]:
    """Finds the bands to read.

    Args:
        descriptions: band descriptions, one a band, or None where there are none.
        count: number of bands.
        options: the image processor's `bands` and `band_indices`, and `names`, what messages call the image.
        num_frames: number of dates that the bands may stack.

    Returns:
        0-based positions, and whether they stack all dates.

    Raises:
        ValueError: bands are missing or ambiguous.
    """
    bands = options["bands"]
    if num_frames > 1 and count == len(bands) * num_frames and is_undescribed(descriptions):
        return list(range(count)), True
    described = None if descriptions is None else tuple(descriptions)
    indices = None if options["band_indices"] is None else tuple(options["band_indices"])
    try:
        return list(resolve_bands_once(described, count, tuple(bands), indices)), False
    except ValueError:  # once more for the message, which names the file
        return resolve_bands(descriptions, count, bands, options["band_indices"], options["names"]), False


def read_frames(image: Any, options: Mapping[str, Any]) -> list[Frame]:
    """Reads the needed bands of each frame of one image.

    Args:
        image: one image, as the image processor takes it.
        options: the image processor's `bands`, `band_indices` and `num_frames`, and `names`, `file_nodata` and
            `band_names` of the call.

    Returns:
        The frames, all of one size.

    Raises:
        ValueError: bands or frames are missing, or sizes differ.
    """
    parts = list(image) if isinstance(image, list | tuple) else [image]
    # Several files or arrays hold one frame each; a single one may hold them all.
    num_frames = 1 if len(parts) > 1 else options["num_frames"]
    frames = [frame for part in parts for frame in _read_part(part, options, num_frames)]
    if len(frames) != options["num_frames"]:
        raise ValueError(
            f"{options['names']}: expected {options['num_frames']} frames (num_frames), found {len(frames)}. "
            "Remedy: give the frames of one image as a tuple (a list is a batch of images) or as one array "
            f"(num_channels, num_frames, height, width), or set num_frames={len(frames)} in the processor and the "
            "model."
        )
    sizes = [frame.values.shape[-2:] for frame in frames]
    if len(set(sizes)) > 1:
        found = ", ".join(f"{frame.name} {h} x {w}" for frame, (h, w) in zip(frames, sizes, strict=True))
        raise ValueError(
            f"{options['names']}: expected frames of one size (height x width), found {found}. Remedy: bring all "
            "frames to one grid."
        )
    return frames


def _read_part(part: Any, options: Mapping[str, Any], num_frames: int) -> list[Frame]:
    if is_raster(part):
        return _read_raster(part, options, num_frames)
    return _read_array(as_array(part, options["names"]), options, num_frames)


def _read_array(array: np.ndarray, options: Mapping[str, Any], num_frames: int) -> list[Frame]:
    check_axes(array, options)
    stack_of = num_frames if array.ndim == 3 else 1
    indices, is_stack = used_bands(options["band_names"], array.shape[0], options, stack_of)
    if array.ndim == 4:
        arrays = list(np.moveaxis(array[indices], 1, 0))
    else:
        arrays = split_stacked_frames(array, num_frames) if is_stack else [array[indices]]
    return [Frame(values, options["names"], options["file_nodata"]) for values in arrays]


def _read_raster(raster: Any, options: Mapping[str, Any], num_frames: int) -> list[Frame]:
    name = getattr(raster, "name", None) or options["names"]
    descriptions = raster.descriptions if options["band_names"] is None else options["band_names"]
    indices, is_stack = used_bands(descriptions, raster.count, {**options, "names": name}, num_frames)
    # What a raster says of its mask and its limits is meant of the bands in use: GDAL takes the fourth of four
    # bands without a description for an alpha band.
    narrowed = raster.select(indices) if hasattr(raster, "select") else raster
    values = as_array(raster.read(bands=indices) if narrowed is raster else read_pixels(narrowed), name)
    arrays = split_stacked_frames(values, num_frames) if is_stack else [values]
    tag = options["file_nodata"] if raster.nodata is None else raster.nodata
    mask, limits = narrowed.read_nodata_mask(), getattr(narrowed, "limits", None)
    return [Frame(array, name, tag, mask, limits) for array in arrays]


def split_stacked_frames(array: np.ndarray, num_frames: int) -> list[np.ndarray]:
    """Takes apart a stack of dates: all bands of the first date, then all bands of the second.

    Args:
        array: (num_frames * num_channels, height, width).
        num_frames: number of dates.

    Returns:
        `num_frames` views (num_channels, height, width).
    """
    return list(array.reshape(num_frames, -1, *array.shape[-2:]))


def name_of(image: Any, position: int) -> str:
    """What messages call an image: the name of its first raster, or its place in the batch.

    Args:
        image: one image.
        position: its place.
    """
    first = image[0] if isinstance(image, list | tuple) and image else image
    return getattr(first, "name", None) or f"image {position}"


__all__ = ["name_of", "read_frames", "split_stacked_frames", "used_bands"]
