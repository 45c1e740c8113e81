# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Are the pixel values in the units of the statistics? Digital numbers taken for reflectance ruin results silently."""

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch

from .bands_prithvi import is_undescribed, resolve_bands, resolve_bands_once


GRID_TOLERANCE = 0.5
"""Pixels: beyond half of one a value belongs to a neighbour. Two programs write one grid with other last bits."""


def largest_shift(first: Any, other: Any, size: tuple[int, int]) -> float:
    """Give the largest distance between the same corner of two grids.

    Args:
        first: Affine transform from pixel to CRS coordinates.
        other: Another one, in the same CRS.
        size: Rows and columns of both grids.

    Returns:
        The distance in pixels of `first`.
    """
    side = max(abs(first.a * first.e - first.b * first.d) ** 0.5, 1e-300)
    corners = [(column, row) for row in (0, size[0]) for column in (0, size[1])]
    return max(math.dist(_place(first, *corner), _place(other, *corner)) for corner in corners) / side


def _place(transform: Any, column: int, row: int) -> tuple[float, float]:
    """Give the coordinates of a pixel corner; written out, as releases of affine differ in the operator for it."""
    x = transform.a * column + transform.b * row + transform.c
    return x, transform.d * column + transform.e * row + transform.f


# Pixels in memory that cannot be written are only ever read here, which torch cannot know.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable", module=re.escape(__name__))


class Raster(Protocol):
    """What the image processor reads band by band, such as `prithvi_hf.rasters.geotiff_raster.GeoTiffRaster`."""

    shape: tuple[int, ...]
    count: int
    descriptions: Sequence[str | None]
    nodata: float | None

    def read(self, bands: Sequence[int] | None = None) -> np.ndarray:
        """Read the pixels of some bands (0-based), or of all, (bands, height, width)."""

    def read_nodata_mask(self) -> np.ndarray | None:
        """Read the file's own mask, bool (height, width), True = no data; None where it has none."""


_RASTER_ATTRIBUTES = ("read", "read_nodata_mask", "descriptions", "count", "nodata", "shape")


@dataclass
class Frame:
    """One date of one image.

    Attributes:
        values: (num_channels, height, width) as in the file, the bands in the model's order.
        name: what messages call it.
        tag: the file's nodata tag, or None.
        file_mask: bool (height, width), True where the file's own mask says that there is no data, or None.
        limits: a smallest and a largest number between which all values are known to lie, all of them finite; None
            where nothing is known. It spares the search for values that cannot occur.
    """

    values: np.ndarray
    name: str
    tag: float | None = None
    file_mask: np.ndarray | None = None
    limits: tuple[float, float] | None = None

    def crop(self, place: tuple[Any, ...]) -> "Frame":
        """A part of the frame, without a copy; `place` indexes the last two axes."""
        file_mask = None if self.file_mask is None else self.file_mask[place]
        return Frame(self.values[place], self.name, self.tag, file_mask, self.limits)


def is_raster(value: Any) -> bool:
    """Whether an object is read band by band as `prithvi_hf.data.geotiff.GeoTiffRaster` is.

    Args:
        value: anything.

    Returns:
        True when it has the attributes that the image processor uses.
    """
    return _is_raster_class(type(value)) or all(hasattr(value, attribute) for attribute in _RASTER_ATTRIBUTES)


@lru_cache(maxsize=256)
def _is_raster_class(kind: type) -> bool:
    """Whether a class has them all; asked of an object, its properties would be computed each time."""
    return all(hasattr(kind, attribute) for attribute in _RASTER_ATTRIBUTES)


def read_pixels(raster: Any) -> np.ndarray:
    """All pixels of a raster; one whose pixels are in memory may show them without a copy, not to be written to.

    Args:
        raster: as in `is_raster`.

    Returns:
        (bands, height, width).
    """
    return getattr(raster, "read_shared", raster.read)()


def as_array(value: Any, name: str) -> np.ndarray:
    """A numpy array of numbers.

    Args:
        value: an array, or a tensor of any device and precision.
        name: what the error message calls it.

    Returns:
        The array, without a copy where possible.

    Raises:
        TypeError: the value is neither, or does not hold real numbers.
    """
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
        found = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise TypeError(
            f"{name}: expected an array or tensor of numbers, or a raster, found {found}. Remedy: open files with "
            "prithvi_hf.data.geotiff.GeoTiffRaster, or read them into arrays (num_channels, height, width) first."
        )
    return value


def check_axes(array: np.ndarray, options: Mapping[str, Any]) -> None:
    """Refuses arrays whose axes are plainly in another order, with the way out.

    Args:
        array: an image.
        options: the image processor's `bands`, and `band_names` and `names` of the call.

    Raises:
        ValueError: the message says what was expected, what was found and what to do.
    """
    expected = "(num_channels, height, width) or (num_channels, num_frames, height, width)"
    channels, remedy = len(options["bands"]), ""
    if array.ndim not in (3, 4):
        remedy = "stack the bands along the first axis."
    elif options["band_names"] is None and array.shape[0] != channels:
        if array.ndim == 4 and array.shape[1] == channels:
            remedy = "pass a batch of images as a list, or swap the first two axes when the frames come first."
        elif array.shape[-1] == channels:
            remedy = "move the last axis, which looks like the bands, to the front."
    if remedy:
        raise ValueError(
            f"{options['names']}: expected an image {expected} with {channels} bands ({', '.join(options['bands'])}), "
            f"found shape {array.shape}. Remedy: {remedy}"
        )


def find_nodata(frames: Sequence[Frame], options: Mapping[str, Any]) -> tuple[list[np.ndarray | None], np.ndarray]:
    """Applies the nodata rule to the frames of one image.

    Args:
        frames: frames of one size.
        options: `nodata_rule` and `nodata_value` of the image processor.

    Returns:
        For each frame the values to replace, bool (num_channels, height, width), or None where there is none; and the
        nodata pixels of the image, bool (height, width).

    Raises:
        ValueError: a file's mask has another size than its bands.
    """
    combine = np.logical_and.reduce if options["nodata_rule"] == "all" else np.logical_or.reduce
    singles = [
        equals_nodata(frame.values, _nodata_values(frame.tag, options["nodata_value"]), frame.limits)
        for frame in frames
    ]
    pixels = [_nodata_pixels(frame, single, combine) for frame, single in zip(frames, singles, strict=True)]
    scene = pixels[0] if len(pixels) == 1 else combine(np.stack(pixels), axis=0)
    missing = [
        _missing_values(frame, single, own if own is scene else own | scene)
        for frame, single, own in zip(frames, singles, pixels, strict=True)
    ]
    return missing, scene


def replacement_changes_nothing(frames: Sequence[Frame], options: Mapping[str, Any]) -> bool:
    """Whether all values that `find_nodata` could find are the replacement already, so that no search is needed.

    So it is for files whose nodata value is 0, replaced by 0, and for files in which no nodata value occurs.

    Args:
        frames: frames of one size.
        options: `nodata_rule`, `nodata_value` and `nodata_replacement` of the image processor.

    Returns:
        False also where it takes the search to know.
    """
    return options["nodata_rule"] == "all" and all(
        frame.file_mask is None
        and (frame.limits is not None or frame.values.dtype.kind != "f")
        and all(
            number == options["nodata_replacement"]
            or math.isnan(number)
            or _cannot_occur(frame.values, frame.limits, number)
            for number in _nodata_values(frame.tag, options["nodata_value"])
        )
        for frame in frames
    )


def _nodata_values(tag: float | None, nodata_value: float | list[float] | None) -> list[float]:
    values = nodata_value if isinstance(nodata_value, list) else [nodata_value]
    return list(dict.fromkeys(float(value) for value in [tag, *values] if value is not None))


def equals_nodata(
    values: np.ndarray, nodata: Sequence[float], limits: tuple[float, float] | None = None
) -> np.ndarray | None:
    """Finds single values that are NaN or equal a nodata value.

    Args:
        values: pixels of any shape.
        nodata: values that mean "no data"; those that the type of the pixels cannot hold occur nowhere.
        limits: as in [`Frame`].

    Returns:
        bool of the same shape, or None when none is.
    """
    is_float = values.dtype.kind == "f"
    found = np.isnan(values) if is_float and limits is None else None
    for number in nodata:
        if math.isnan(number) or not (is_float or number.is_integer()) or _cannot_occur(values, limits, number):
            continue
        # A Python scalar is compared in the array's own precision, so the -3.4e38 of a float32 file is found.
        with np.errstate(over="ignore"):
            equal = values == (number if is_float else int(number))
        found = equal if found is None else found | equal
    return found if found is not None and found.any() else None


def _cannot_occur(values: np.ndarray, limits: tuple[float, float] | None, number: float) -> bool:
    """Whether the limits of values say that a number is not among them."""
    if limits is None:
        return False
    smallest, largest = limits
    if values.dtype.kind != "f":
        own = number
    else:
        with np.errstate(over="ignore"):
            own = values.dtype.type(number)
    if own == smallest and values.size:  # nodata values are often the smallest of a file and absent from most of it
        smallest = values.min()
    return not smallest <= own <= largest


def _nodata_pixels(frame: Frame, single: np.ndarray | None, combine: Any) -> np.ndarray:
    size = frame.values.shape[-2:]
    pixels = np.zeros(size, dtype=bool) if single is None else combine(single, axis=0)
    if frame.file_mask is None:
        return pixels
    if frame.file_mask.shape != size:
        raise ValueError(
            f"{frame.name}: expected a nodata mask of the bands' size {size[0]} x {size[1]}, found "
            f"{' x '.join(map(str, frame.file_mask.shape))}. Remedy: write the mask on the grid of the bands."
        )
    return pixels | np.asarray(frame.file_mask, dtype=bool)


def _missing_values(frame: Frame, single: np.ndarray | None, pixels: np.ndarray) -> np.ndarray | None:
    """Single values and whole pixels to replace. Infinite values are not nodata, but no model can take them."""
    values, missing = frame.values, single
    if values.dtype.kind == "f" and frame.limits is None:
        with np.errstate(over="ignore"):
            infinite = np.isinf(values.astype(np.float32, copy=False))
        if infinite.any():
            missing = infinite if missing is None else missing | infinite
    if pixels.any():
        missing = np.broadcast_to(pixels, values.shape) if missing is None else missing | pixels
    return missing


def scale_and_normalize(
    frames: Sequence[Frame],
    missing: Sequence[np.ndarray | None],
    options: Mapping[str, Any],
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Replaces missing values, scales and normalises, and then puts bands and dates in the wanted order.

    Args:
        frames: frames of one size.
        missing: for each frame the values to replace, as from `find_nodata`.
        options: the image processor's `nodata_replacement`, `do_rescale`, `rescale_factor`, `rescale_offset`,
            `do_normalize`, `image_mean`, `image_std` and `frame_order`.
        out: contiguous float32 array of the result's shape to write into, such as one example's place in a batch.

    Returns:
        float32 (num_channels, num_frames, height, width), `((x * factor + offset) - mean) / std`, computed as
        `(x - shift) * gain` with figures made in float64: two passes in place of four, with rounding errors of the
        same size as in the original's order.
    """
    channels, *size = frames[0].values.shape
    by_date = options["frame_order"] == "original_crop"
    # The original held all bands of a date together and read that memory as (bands, dates) afterwards: laid out alike
    # here, its order costs no copy.
    shape = (len(frames), channels, *size) if by_date else (channels, len(frames), *size)
    memory = np.empty(shape, dtype=np.float32) if out is None else out.reshape(shape)
    output = memory.swapaxes(0, 1) if by_date else memory
    shift, gain = _shift_and_gain(options)
    if any(where is not None for where in missing):
        _replace_missing(frames, missing, options, output)
        _scale(output, shift, gain, output)
    else:
        for t, frame in enumerate(frames):
            _scale(frame.values, shift[:, 0], gain[:, 0], output[:, t])
    return memory.reshape(channels, len(frames), *size) if out is None else out


def _scale(values: np.ndarray, shift: np.ndarray, gain: np.ndarray, out: np.ndarray) -> None:
    """Scales and normalises into float32, which may be the same array."""
    with np.errstate(over="ignore"):
        np.subtract(values, shift, out=out, dtype=np.float32, casting="unsafe")
    np.multiply(out, gain, out=out)


def _shift_and_gain(options: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Scaling and normalisation of each channel as `(x - shift) * gain`, float32 (num_channels, 1, 1, 1)."""
    return _figures_a_channel(*_scaling_of(options))


def _scaling_of(options: Mapping[str, Any]) -> tuple[float, float, tuple[float, ...], tuple[float, ...]]:
    """Factor, offset, mean and standard deviation that apply."""
    factor, offset = (options["rescale_factor"], options["rescale_offset"]) if options["do_rescale"] else (1.0, 0.0)
    mean, std = (options["image_mean"], options["image_std"]) if options["do_normalize"] else ([0.0], [1.0])
    return factor, offset, tuple(mean), tuple(std)


@lru_cache(maxsize=32)
def _figures_a_channel(
    factor: float, offset: float, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    shift, gain = (np.array(mean) - offset) / factor, factor / np.array(std)
    return tuple(figures.astype(np.float32).reshape(-1, 1, 1, 1) for figures in (shift, gain))


@lru_cache(maxsize=32)
def _figures_on_device(
    scaling: tuple[float, float, tuple[float, ...], tuple[float, ...]], device: torch.device
) -> tuple[torch.Tensor, ...]:
    """`_figures_a_channel` where they are used, sent there once."""
    return tuple(torch.from_numpy(figures).to(device) for figures in _figures_a_channel(*scaling))


def turn_array(array: np.ndarray, flip: bool, quarters: int) -> np.ndarray:
    """Flips an array left-right, then turns it by quarters against the clock, over its last two axes.

    torch's copies are several times faster than numpy's, and than work on views of negative strides. It gets the bits,
    since it does not flip all types.

    Args:
        array: numbers of 1, 2, 4 or 8 bytes; it may lie in memory that cannot be written.
        flip: whether to flip.
        quarters: quarters of a full turn.

    Returns:
        A contiguous array, or the same one where nothing is to be done.
    """
    if not flip and not quarters % 4:
        return array
    turned = torch.from_numpy(array.view(f"i{array.dtype.itemsize}"))
    turned = turned.flip(-1) if flip else turned
    turned = torch.rot90(turned, quarters, dims=(-2, -1)) if quarters % 4 else turned
    return turned.contiguous().numpy().view(array.dtype)


def _replace_missing(
    frames: Sequence[Frame], missing: Sequence[np.ndarray | None], options: Mapping[str, Any], output: np.ndarray
) -> None:
    """Writes the values of the frames by (channel, frame), and the replacement of those that are missing."""
    for t, (frame, where) in enumerate(zip(frames, missing, strict=True)):
        if frame.values.dtype.kind == "f":
            with np.errstate(over="ignore"):
                output[:, t] = frame.values
        else:
            output[:, t] = frame.values
        if where is not None:
            np.copyto(output[:, t], output.dtype.type(options["nodata_replacement"]), where=where)


def can_stay_as_in_file(dtype: str, options: Mapping[str, Any]) -> bool:
    """Whether values can be handed on in a file's data type, missing ones replaced, in fewer bytes than as float32.

    Args:
        dtype: numpy name of the data type.
        options: the image processor's `nodata_replacement`.
    """
    if dtype not in ("uint8", "int8", "uint16", "int16"):
        return False
    limits, replacement = np.iinfo(dtype), options["nodata_replacement"]
    return float(replacement).is_integer() and limits.min <= replacement <= limits.max


def normalize_file_values(values: torch.Tensor, options: Mapping[str, Any]) -> torch.Tensor:
    """The second half of [`scale_and_normalize`] for a batch, on any device; the same figures.

    Args:
        values: (batch_size, num_channels, num_frames, height, width), missing values replaced.
        options: as there.

    Returns:
        float32, the same shape.
    """
    if values.device.type == "cpu":
        output = torch.from_numpy(_scaled_images(values.numpy(), options))
    else:
        shift, gain = _figures_on_device(_scaling_of(options), values.device)
        output = values.to(torch.float32, copy=True).sub_(shift).mul_(gain)
    if options["frame_order"] == "original_crop":
        return output.transpose(1, 2).contiguous().reshape(values.shape)
    return output


def _scaled_images(values: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
    """By numpy: torch would take its threads from the processes that load. One image at a time stays in the cache."""
    shift, gain = _shift_and_gain(options)
    output = np.empty(values.shape, dtype=np.float32)
    for own, place in zip(values, output, strict=True):
        _scale(own, shift, gain, place)
    return output


@dataclass
class ImageValues:
    """One image and its mask as their files hold them, before anything is done to either.

    Attributes:
        frames: the frames.
        mask: (height, width), or None.
        mask_name: what messages call the mask.
        mask_limits: a smallest and a largest number between which all values of the mask are known to lie, or None.
        options: options of the image processor.
        nothing_missing: whether it is known that no value of the frames is to be replaced.
    """

    frames: list[Frame]
    mask: np.ndarray | None
    mask_name: str
    mask_limits: tuple[float, float] | None
    options: Mapping[str, Any]
    nothing_missing: bool = False

    @property
    def is_lasting(self) -> bool:
        """Whether all values lie in memory that others keep, so that holding on to them costs nothing."""
        arrays = [array for frame in self.frames for array in (frame.values, frame.file_mask)]
        return not any(array.flags.writeable for array in [*arrays, self.mask] if array is not None)

    def crop(self, window: tuple[int, int, int, int]) -> "ImageValues":
        """A part of the image, without a copy.

        Args:
            window: (row, column, height, width).
        """
        row, column, height, width = window
        place = (..., slice(row, row + height), slice(column, column + width))
        return ImageValues(
            [frame.crop(place) for frame in self.frames],
            None if self.mask is None else self.mask[place],
            self.mask_name,
            self.mask_limits,
            self.options,
            self.nothing_missing,
        )


@dataclass
class ReadImage:
    """One image, read and checked for missing values; scaling and normalisation are still to do.

    It is turned as it lies in the file, a fraction of the bytes of its pixel values, and these are made once, at the
    place wanted.

    Attributes:
        frames: the frames, values as in the file. They may lie in memory that cannot be written.
        missing: for each frame the values to replace, or None, as from `find_nodata`.
        nodata_mask: bool (height, width), the nodata pixels; None where they were not asked for.
        labels: int64 or int16 (height, width), ignored pixels -100; None without a mask.
        options: options of the image processor.
    """

    frames: list[Frame]
    missing: list[np.ndarray | None]
    nodata_mask: np.ndarray | None
    labels: np.ndarray | None
    options: Mapping[str, Any]

    def turned(self, flip: bool, quarters: int) -> "ReadImage":
        """The values to write, flipped left-right, then turned by quarters against the clock; no labels, no mask."""
        if not flip and not quarters % 4:
            return self
        frames = [
            Frame(turn_array(frame.values, flip, quarters), frame.name, frame.tag, limits=frame.limits)
            for frame in self.frames
        ]
        missing = [None if where is None else turn_array(where, flip, quarters) for where in self.missing]
        return ReadImage(frames, missing, None, None, self.options)

    def pixel_values(self, out: np.ndarray | None = None) -> np.ndarray:
        """Scaled and normalised values, as [`scale_and_normalize`] gives them.

        Args:
            out: contiguous float32 array of the result's shape to write into.

        Returns:
            float32 (num_channels, num_frames, height, width).
        """
        return scale_and_normalize(self.frames, self.missing, self.options, out)

    def file_values(self, out: np.ndarray) -> None:
        """Values as in the file, missing ones replaced, for [`normalize_file_values`].

        Args:
            out: (num_channels, num_frames, height, width) to write into, of the file's data type or float32.
        """
        _replace_missing(self.frames, self.missing, self.options, out)


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


# Digital numbers and reflectance differ by a factor of 10,000. The brightest cloud and the darkest water stay well
# within a factor of 100 of usual means, in the bands that `units_factor` goes by.
UNITS_FACTOR = 100.0
_SAMPLED_PIXELS = 4096


class UnitsWarning(UserWarning):
    """The pixel values are plainly in other units than the statistics that normalise them."""


def units_problem(
    frames: Sequence[Frame], missing: Sequence[np.ndarray | None], options: Mapping[str, Any], name: str
) -> str | None:
    """Compares the valid values of an image, after scaling, with the statistics.

    Args:
        frames: the frames as read.
        missing: for each frame the values that do not count, as from `find_nodata`.
        options: the image processor's scaling and statistics.
        name: what the message calls the image.

    Returns:
        The text of a warning with the measured and the expected figures, or None when nothing is plainly wrong.
    """
    height, width = frames[0].values.shape[-2:]
    step = max(1, math.isqrt(height * width // _SAMPLED_PIXELS))
    _, magnitudes = _measure(frames, missing, options, step)
    factor = units_factor(magnitudes, options["image_mean"], options["image_std"])
    if factor is None:
        return None
    means, _ = _measure(frames, missing, options, step=1)
    return _message(factor, means, options, name)


def units_factor(magnitudes: Sequence[float], image_mean: Sequence[float], image_std: Sequence[float]) -> float | None:
    """How many times too large values are.

    Too large needs most bands, so that clouds and snow are let through; too small needs every band, so that water,
    black in the infrared but not in blue, is let through.

    Args:
        magnitudes: mean absolute value of each band; NaN where a band has no valid value.
        image_mean: expected mean of each band.
        image_std: expected standard deviation of each band.

    Returns:
        The median ratio of found to expected, or None when the values may well be in the units of the statistics.
    """
    expected = np.maximum(np.abs(np.asarray(image_mean)), np.asarray(image_std))
    ratios = np.asarray(magnitudes) / expected
    ratios = ratios[np.isfinite(ratios)]
    if ratios.size == 0:
        return None
    middle = float(np.median(ratios))
    return middle if middle > UNITS_FACTOR or ratios.max() < 1 / UNITS_FACTOR else None


def _measure(
    frames: Sequence[Frame], missing: Sequence[np.ndarray | None], options: Mapping[str, Any], step: int
) -> tuple[list[float], list[float]]:
    """Mean and mean magnitude of each band's valid values after scaling; NaN for a band without any."""
    means, magnitudes = [], []
    for channel in range(frames[0].values.shape[0]):
        parts = [_valid_values(frame, where, channel, step) for frame, where in zip(frames, missing, strict=True)]
        values = np.concatenate(parts)
        if options["do_rescale"]:
            values = values * options["rescale_factor"] + options["rescale_offset"]
        means.append(float(values.mean()) if values.size else math.nan)
        magnitudes.append(float(np.abs(values).mean()) if values.size else math.nan)
    return means, magnitudes


def _valid_values(frame: Frame, where: np.ndarray | None, channel: int, step: int) -> np.ndarray:
    values = frame.values[channel, ::step, ::step]
    # Zero is what files without a nodata tag are filled with, and says nothing about units.
    keep = values != 0
    if where is not None:
        keep &= ~where[channel, ::step, ::step]
    return values[keep].astype(np.float64)


def _message(factor: float, means: Sequence[float], options: Mapping[str, Any], name: str) -> str:
    rows = [
        f"  {band:<16} measured mean {measured:<12.6g} expected mean {mean:.6g}, std {std:.6g}"
        for band, measured, mean, std in zip(
            options["bands"], means, options["image_mean"], options["image_std"], strict=True
        )
    ]
    current = options["rescale_factor"] if options["do_rescale"] else 1.0
    suggestion = current * 10.0 ** -round(math.log10(factor))
    offset = options["rescale_offset"] if options["do_rescale"] else 0.0
    direction = f"{factor:,.0f} times larger" if factor > 1 else f"{1 / factor:,.0f} times smaller"
    return "\n".join(
        [
            f"{name}: expected values in the units of image_mean, found values about {direction} after scaling "
            "(digital numbers against reflectance?). Figures after scaling, of the valid pixels:",
            *rows,
            f"Remedy: set do_rescale=True, rescale_factor={suggestion:.6g} (the factor is {current:.6g} now, the "
            f"offset {offset:.6g}), or give image_mean and image_std in the units of the files.",
        ]
    )


__all__ = [
    "GRID_TOLERANCE",
    "UNITS_FACTOR",
    "Frame",
    "ImageValues",
    "ReadImage",
    "UnitsWarning",
    "as_array",
    "can_stay_as_in_file",
    "check_axes",
    "equals_nodata",
    "find_nodata",
    "is_raster",
    "largest_shift",
    "name_of",
    "normalize_file_values",
    "read_frames",
    "read_pixels",
    "replacement_changes_nothing",
    "scale_and_normalize",
    "split_stacked_frames",
    "turn_array",
    "units_factor",
    "units_problem",
    "used_bands",
]
