# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""From the pixels of files to `pixel_values`: reading frames, no data, scaling and normalisation, units.

One image is a list of [`Frame`], one per date. It goes through [`read_frames`], [`find_nodata`] and
[`scale_and_normalize`], in this order; the other functions are shortcuts of training, with the same figures.
"""

import math
import re
import warnings
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol, TypeGuard

import numpy as np
import torch

from .bands_prithvi import is_undescribed, resolve_bands, resolve_bands_once
from .processor_options_prithvi import ProcessorOptions


# Pixels in memory that cannot be written are only ever read here, which torch cannot know.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable", module=re.escape(__name__))

GRID_TOLERANCE = 0.5
"""Pixels: beyond half of one a value belongs to a neighbour. Two programs write one grid with other last bits."""

LARGEST_VALUE = 1e30
"""From here on a float is no data, whatever the file's tag says: no quantity of remote sensing is so large, and the
usual fill values are (9.969e36 of netCDF, -3.4028e38 of GDAL and Esri)."""
# A tag is text, or went through another type: as a float it is met to a few units in the last place of float32.
_TAG_TOLERANCE = 1e-6

# Digital numbers and reflectance differ by a factor of 10,000. The brightest cloud and the darkest water stay well
# within a factor of 100 of usual means, in the bands that decide.
UNITS_FACTOR = 100.0
# A factor of 10 is told by what reflectance cannot be: the mean of a band above this, four times its usual size;
_LARGEST_REFLECTANCE = 1.7
# or all bands below this fraction of their usual size, the infrared no darker than the visible ones.
_SMALL = 0.2
# Of Landsat Collection 2 Level 2, a reflectance of -0.02, 0.06 and 0.62. No surface is 0.65 in every band and below
# 0.95 in one, as the first two would be elsewhere.
_LANDSAT_NUMBERS = (6_500.0, 9_500.0, 30_000.0)
_SAMPLED_PIXELS = 4096
_CPU = torch.device("cpu")
_RASTER_ATTRIBUTES = ("read", "read_nodata_mask", "descriptions", "count", "nodata", "shape")


class UnitsWarning(UserWarning):
    """The pixel values are plainly in other units than the statistics that normalise them."""


class Raster(Protocol):
    """What is read band by band, such as `prithvi_hf.rasters.geotiff_raster.GeoTiffRaster`.

    It may have a `name` for messages, `select(bands)` for a raster of some of its bands, `limits`, two numbers between
    which all its values are, and `read_shared`, which shows pixels in memory without a copy.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(bands, height, width)."""

    @property
    def count(self) -> int:
        """Number of bands."""

    @property
    def descriptions(self) -> Sequence[str | None]:
        """What the file calls each band."""

    @property
    def nodata(self) -> float | None:
        """The file's nodata tag."""

    def read(self, bands: Sequence[int] | None = None) -> np.ndarray:
        """Read the pixels of some bands (0-based), or of all, (bands, height, width)."""

    def read_nodata_mask(self) -> np.ndarray | None:
        """Read the file's own mask, bool (height, width), True = no data; None where it has none."""


Pixels = np.ndarray | torch.Tensor | Raster
Image = Pixels | Sequence[Pixels] | Any
"""One image: an array, a raster, or what else [`as_frames`] takes; or the frames of one image."""


@dataclass
class Frame:
    """One date of one image; or its mask, whose values are (height, width)."""

    values: np.ndarray  # (num_channels, height, width) as in the file, the bands in the model's order
    name: str  # what messages call it
    tag: float | None = None  # the file's nodata tag
    file_mask: np.ndarray | None = None  # bool (height, width), True where the file's own mask says "no data"
    limits: tuple[float, float] | None = None  # between which all values are known to be, within LARGEST_VALUE


@dataclass
class ImageValues:
    """One image and its mask as their files hold them, before anything is done to either."""

    frames: list[Frame]
    mask: Frame | None  # its values are (height, width)
    options: ProcessorOptions
    nothing_missing: bool = False  # no value of the frames is to be replaced

    @property
    def is_lasting(self) -> bool:
        """Whether all values are in memory that others keep, so that holding on to them costs nothing."""
        parts = self.frames if self.mask is None else [*self.frames, self.mask]
        arrays = [array for part in parts for array in (part.values, part.file_mask)]
        return not any(array.flags.writeable for array in arrays if array is not None)

    def crop(self, window: tuple[int, int, int, int]) -> "ImageValues":
        """Take the part (row, column, height, width) of the image, without a copy."""
        row, column, height, width = window
        place = (..., slice(row, row + height), slice(column, column + width))
        parts = []
        for part in [*self.frames, *([] if self.mask is None else [self.mask])]:
            file_mask = None if part.file_mask is None else part.file_mask[place]
            parts.append(replace(part, values=part.values[place], file_mask=file_mask))
        return replace(self, frames=parts[: len(self.frames)], mask=None if self.mask is None else parts[-1])


@dataclass
class ReadImage:
    """One image, read and checked for missing values; scaling and normalisation are still to do.

    It is turned as it is in the file, a fraction of the bytes of its pixel values, which are made once, in place.
    """

    frames: list[Frame]
    missing: Sequence[np.ndarray | None]  # this and the mask are as from `find_nodata`
    nodata_mask: np.ndarray | None
    labels: np.ndarray | None  # int64 or int16 (height, width), ignored pixels -100
    options: ProcessorOptions

    def turn(self, flip: bool, quarters: int) -> "ReadImage":
        """Flip left-right, then turn by quarters against the clock; what comes back has no labels and no mask."""
        frames = [
            replace(frame, values=turn_array(frame.values, flip, quarters), file_mask=None) for frame in self.frames
        ]
        missing = [None if where is None else turn_array(where, flip, quarters) for where in self.missing]
        return ReadImage(frames, missing, None, None, self.options)

    def write_pixel_values(self, out: np.ndarray | None = None) -> np.ndarray:
        """Scale and normalise into `out` or a new array, as [`scale_and_normalize`] does."""
        return scale_and_normalize(self.frames, self.missing, self.options, out)

    def write_file_values(self, out: np.ndarray) -> None:
        """Write values as in the file, missing ones replaced, into (C, T, H, W) of the file's data type or float32."""
        _replace_missing(self.frames, self.missing, self.options, out)


def is_raster(value: object) -> TypeGuard[Raster]:
    """Whether an object has what [`Raster`] needs; asked of it and not of its class, properties are computed."""
    return all(hasattr(type(value), name) or hasattr(value, name) for name in _RASTER_ATTRIBUTES)


def as_frames(value: Any) -> list[np.ndarray | torch.Tensor | Raster]:
    """Give what holds pixels as arrays and rasters, one for each of its dates.

    Beside those this takes paths and bytes of GeoTIFFs, open rasterio datasets, and DataArrays and Datasets of xarray.
    """
    if isinstance(value, np.ndarray | torch.Tensor) or is_raster(value):
        return [value]
    try:
        from prithvi_hf.rasters.objects import as_rasters
    except ImportError as error:
        raise missing_package("Reading a GeoTIFF", "pass arrays of shape (bands, height, width)") from error
    return list(as_rasters(value))


def missing_package(action: str, alternative: str) -> ImportError:
    """Build the error of a step that needs the installed package; `alternative` is what can be done without it."""
    return ImportError(
        f"{action} needs the prithvi_hf package, which is not installed here: install it, or {alternative}."
    )


def read_pixels(raster: Raster) -> np.ndarray:
    """Read all pixels, (bands, height, width); those in memory may come without a copy, not to be written to."""
    return getattr(raster, "read_shared", raster.read)()


def as_array(value: object, name: str) -> np.ndarray:
    """Give an array, or a tensor of any device and precision, as a numpy array; refuse what is not real numbers.

    Pixels that a masked array masks, as `dataset.read(masked=True)` gives it, become NaN.
    """
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
        found = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise TypeError(
            f"{name}: expected an array or tensor of numbers, or a raster, found {found}. Remedy: open files with "
            "prithvi_hf.rasters.geotiff_raster.GeoTiffRaster, or read them into arrays (num_channels, height, width) "
            "first."
        )
    if isinstance(value, np.ma.MaskedArray):  # integers up to 2**24 are exact in float32
        exact = np.float32 if value.dtype.itemsize <= 2 else np.float64
        widened = value.astype(np.promote_types(value.dtype, exact))
        return np.ma.filled(widened, np.nan) if value.mask.any() else value.data
    return value


def name_image(image: Image, position: int) -> str:
    """Name an image for messages: its first raster's name, or its place in the batch."""
    first = image[0] if isinstance(image, list | tuple) and image else image
    name = first if isinstance(first, str) else getattr(first, "name", None)
    return name if isinstance(name, str) and name else f"image {position}"


def has_alpha(descriptions: Sequence[str | None] | None) -> bool:
    """Whether the last of the bands is called alpha, as rasters call an alpha band that has no description."""
    return bool(descriptions) and (list(descriptions or ())[-1] or "").strip().lower() == "alpha"


def find_used_bands(
    descriptions: Sequence[str | None] | None, count: int, options: ProcessorOptions, num_frames: int, name: str
) -> tuple[list[int], bool]:
    """Find the 0-based positions of the bands to read, and whether they stack all of `num_frames` dates.

    Names among the options win over descriptions, but for those of bands that were selected for a model before.
    """
    bands, indices, band_map = options.bands, options.band_indices, options.band_map
    if descriptions and getattr(descriptions[0], "is_selected", False) and count % len(bands) == 0:
        return list(range(count)), count > len(bands)
    names = options.band_names
    if has_alpha(descriptions) and is_undescribed(list(descriptions or ())[:-1]):
        # It is the file's mask, unless the model needs as many bands as there are: writers take the fourth of four.
        fits = (len(bands), len(bands) * num_frames) if names is None else (len(names),)
        count, descriptions = count - (count not in fits and count - 1 in fits), None
    if names is not None:
        descriptions = names
    described = None if descriptions is None else tuple(descriptions)
    settings = (None if indices is None else tuple(indices), num_frames, tuple((band_map or {}).items()))
    try:
        found = list(resolve_bands_once(described, count, tuple(bands), *settings))
    except ValueError:  # once more for the message, which names the file
        found = resolve_bands(descriptions, count, bands, indices, name, num_frames, band_map)
    return found, len(found) > len(bands)


def read_frames(
    image: Image,
    options: ProcessorOptions,
    name: str,
    file_nodata: float | None = None,
    band_names: Sequence[str | None] | None = None,
) -> list[Frame]:
    """Read the needed bands of each frame of one image, which messages call `name`; frames are of one size.

    `file_nodata` is the nodata tag of what carries none, `band_names` are band descriptions of arrays, or in place of
    the files' own.
    """
    given = image if isinstance(image, list | tuple) else [image]
    parts = [frame for part in given for frame in as_frames(part)]
    if band_names is not None:
        options = copy(options)
        options.band_names = list(band_names)
    # Several files or arrays hold one frame each; a single one may hold them all.
    num_frames = 1 if len(parts) > 1 else options.num_frames
    frames = []
    for part in parts:
        mask = limits = None
        part_name, tag = name, file_nodata
        if not isinstance(part, np.ndarray | torch.Tensor):
            part_name = getattr(part, "name", None) or name
            tag = file_nodata if part.nodata is None else part.nodata
            indices, is_stack = find_used_bands(part.descriptions, part.count, options, num_frames, part_name)
            # What a raster says of its mask and its limits is meant of the bands in use: GDAL takes the fourth of
            # four bands without a description for an alpha band.
            narrowed = part.select(indices) if hasattr(part, "select") else part
            values = as_array(part.read(bands=indices) if narrowed is part else read_pixels(narrowed), part_name)
            mask, limits = narrowed.read_nodata_mask(), getattr(narrowed, "limits", None)
        else:
            array = as_array(part, name)
            _check_axes(array, options, name, has_names=options.band_names is not None)
            stacked = num_frames if array.ndim == 3 else 1
            indices, is_stack = find_used_bands(None, array.shape[0], options, stacked, name)
            values = array if is_stack and indices == list(range(len(array))) else array[indices]
        if is_stack:  # all bands of the first date, then all bands of the second
            dates = list(values.reshape(num_frames, -1, *values.shape[-2:]))
        else:
            dates = list(np.moveaxis(values, 1, 0)) if values.ndim == 4 else [values]
        frames += [Frame(date, part_name, tag, mask, limits) for date in dates]
    if len(frames) != options.num_frames:
        raise ValueError(
            f"{name}: expected {options.num_frames} frames (num_frames), found {len(frames)}. Remedy: give the frames "
            "of one image as a tuple (a list is a batch of images) or as one array (num_channels, num_frames, height, "
            f"width), or set num_frames={len(frames)} in the processor and the model."
        )
    sizes = [frame.values.shape[-2:] for frame in frames]
    if len(set(sizes)) > 1:
        found = ", ".join(f"{frame.name} {h} x {w}" for frame, (h, w) in zip(frames, sizes, strict=True))
        raise ValueError(
            f"{name}: expected frames of one size (height x width), found {found}. Remedy: bring all frames to one "
            "grid."
        )
    return frames


def _check_axes(array: np.ndarray, options: ProcessorOptions, name: str, has_names: bool) -> None:
    """Refuse arrays whose axes are plainly in another order, with the way out."""
    channels, remedy = len(options.bands), ""
    if array.ndim not in (3, 4):
        remedy = "stack the bands along the first axis."
    elif not has_names and array.shape[0] != channels:
        if array.ndim == 4 and array.shape[1] == channels:
            remedy = "pass a batch of images as a list, or swap the first two axes when the frames come first."
        elif array.shape[-1] == channels:
            remedy = "move the last axis, which looks like the bands, to the front."
    if remedy:
        raise ValueError(
            f"{name}: expected an image (num_channels, height, width) or (num_channels, num_frames, height, width) "
            f"with {channels} bands ({', '.join(options.bands)}), found shape {array.shape}. Remedy: {remedy}"
        )


def find_nodata(frames: Sequence[Frame], options: ProcessorOptions) -> tuple[list[np.ndarray | None], np.ndarray]:
    """Find each frame's values to replace, bool (C, H, W) or None for none, and the image's nodata pixels (H, W)."""
    combine = np.logical_and.reduce if options.nodata_rule == "all" else np.logical_or.reduce
    singles, pixels = [], []  # of each frame: single values that are no data, (C, H, W), and nodata pixels, (H, W)
    for frame in frames:
        size = frame.values.shape[-2:]
        single = equals_nodata(frame.values, list_nodata(frame.tag, options.nodata_value), frame.limits)
        own = np.zeros(size, dtype=bool) if single is None else combine(single, axis=0)
        if frame.file_mask is not None:
            if frame.file_mask.shape != size:
                raise ValueError(
                    f"{frame.name}: expected a nodata mask of the bands' size {size[0]} x {size[1]}, found "
                    f"{' x '.join(map(str, frame.file_mask.shape))}. Remedy: write the mask on the grid of the bands."
                )
            own = own | np.asarray(frame.file_mask, dtype=bool)
        singles.append(single)
        pixels.append(own)
    scene = pixels[0] if len(pixels) == 1 else combine(np.stack(pixels), axis=0)
    missing = []
    for frame, where, own in zip(frames, singles, pixels, strict=True):
        whole = own if own is scene else own | scene
        if whole.any():
            where = np.broadcast_to(whole, frame.values.shape) if where is None else where | whole
        missing.append(where)
    return missing, scene


def list_nodata(tag: float | None, values: float | Sequence[float] | None) -> tuple[float, ...]:
    """List the different numbers that mean nodata, a file's tag first; tags too large for a float64 stay exact."""
    found = [tag, *(values if isinstance(values, list | tuple) else [values])]
    numbers: list[Any] = [v if isinstance(v, np.integer) else float(v) for v in found if v is not None]
    return tuple(dict.fromkeys(numbers))


def replacement_changes_nothing(frames: Sequence[Frame], options: ProcessorOptions) -> bool:
    """Whether all that `find_nodata` could find is known, without a search, to be the replacement already.

    So it is for files whose nodata value is 0, replaced by 0, and for files in which no nodata value occurs.
    """
    return options.nodata_rule == "all" and all(
        frame.file_mask is None
        and (frame.limits is not None or frame.values.dtype.kind != "f")
        and all(
            number == options.nodata_replacement or not _may_occur(frame.values, frame.limits, number)
            for number in list_nodata(frame.tag, options.nodata_value)
        )
        for frame in frames
    )


def equals_nodata(
    values: np.ndarray, nodata: Sequence[float], limits: tuple[float, float] | None = None
) -> np.ndarray | None:
    """Find single values that are no data: bool of the same shape, or None when none is. The one rule for all files.

    A float is no data if it is NaN, infinite or of `LARGEST_VALUE` and more, or meets a nodata value to a relative
    1e-6; an integer if it equals one.
    """
    is_float = values.dtype.kind == "f"
    found = None
    with np.errstate(over="ignore"):  # of numbers that the type of the pixels cannot hold
        if is_float and limits is None and values.size:
            # Two passes that only read tell most files to be whole, and which nodata values are not among them.
            limits = float(values.min()), float(values.max())
            if not max(map(abs, limits)) < LARGEST_VALUE:
                found, limits = np.abs(values) < LARGEST_VALUE, None  # NaN is not
                np.logical_not(found, out=found)
        for number in nodata:
            if not _may_occur(values, limits, number):
                continue
            # Python scalars are compared in the array's own precision.
            low, high = _spread(number) if is_float else (int(number), int(number))
            equal = values == low if low == high else (values >= low) & (values <= high)
            found = equal if found is None else np.logical_or(found, equal, out=found)
    return found if found is not None and found.any() else None


def _spread(number: float) -> tuple[float, float]:
    """Give the smallest and the largest float that is taken for a nodata value."""
    tolerance = abs(float(number)) * _TAG_TOLERANCE
    return number - tolerance, number + tolerance


def _may_occur(values: np.ndarray, limits: tuple[float, float] | None, number: float) -> bool:
    """Whether a nodata value is to be looked for: not where its type, its size or the limits of values rule it out."""
    if values.dtype.kind == "f":
        if not abs(number) < LARGEST_VALUE:
            return False
        low, high = _spread(number)
    elif number.is_integer():
        low = high = number
    else:
        return False
    if limits is None:
        return True
    smallest, largest = limits
    # Nodata values are often the smallest of a file, and absent from most of it.
    if low <= smallest <= high and values.size:
        smallest = values.min()
    return low <= largest and high >= smallest


def scale_and_normalize(
    frames: Sequence[Frame],
    missing: Sequence[np.ndarray | None],
    options: ProcessorOptions,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Replace what `find_nodata` found missing, scale and normalise, and put bands and dates in the wanted order.

    It is float32 (num_channels, num_frames, height, width), in `out` (contiguous) or a new array:
    `((x * factor + offset) - mean) / std`, computed as `(x - shift) * gain` with figures made in float64, two passes
    in place of four, with rounding errors of the same size.
    """
    channels, *size = frames[0].values.shape
    by_date = options.frame_order == "original_crop"
    # The original held all bands of a date together and read that memory as (bands, dates) afterwards: laid out alike
    # here, its order costs no copy.
    shape = (len(frames), channels, *size) if by_date else (channels, len(frames), *size)
    memory = np.empty(shape, dtype=np.float32) if out is None else out.reshape(shape)
    output = memory.swapaxes(0, 1) if by_date else memory
    shift, gain, *_ = _find_shift_and_gain(options)
    if any(where is not None for where in missing):
        _replace_missing(frames, missing, options, output)
        _scale(output, shift, gain, output)
    else:
        for t, frame in enumerate(frames):
            _scale(frame.values, shift[:, 0], gain[:, 0], output[:, t])
    return memory.reshape(channels, len(frames), *size) if out is None else out


def normalize_file_values(values: torch.Tensor, options: ProcessorOptions) -> torch.Tensor:
    """Do the second half of [`scale_and_normalize`], on any device, for a batch (B, C, T, H, W) of file values."""
    shift, gain, *on_device = _find_shift_and_gain(options, values.device)
    if values.device.type == "cpu":
        # By numpy: torch would take its threads from the processes that load. One image at a time stays in the cache.
        array = np.empty(values.shape, dtype=np.float32)
        for own, place in zip(values.numpy(), array, strict=True):
            _scale(own, shift, gain, place)
        output = torch.from_numpy(array)
    else:
        output = values.to(torch.float32, copy=True).sub_(on_device[0]).mul_(on_device[1])
    if options.frame_order == "original_crop":
        return output.transpose(1, 2).contiguous().reshape(values.shape)
    return output


def can_stay_as_in_file(dtype: str, replacement: float) -> bool:
    """Whether values can be handed on in a file's data type, missing ones replaced, in fewer bytes than as float32."""
    if dtype not in ("uint8", "int8", "uint16", "int16"):
        return False
    limits = np.iinfo(dtype)
    return float(replacement).is_integer() and limits.min <= replacement <= limits.max


def turn_array(array: np.ndarray, flip: bool, quarters: int) -> np.ndarray:
    """Flip an array left-right, then turn it by quarters against the clock, over its last two axes, if at all."""
    if not flip and not quarters % 4:
        return array
    # torch's copies are several times faster than numpy's, and than work on views of negative strides. It gets the
    # bits, since it does not flip all types.
    turned = torch.from_numpy(array.view(f"i{array.dtype.itemsize}"))
    turned = turned.flip(-1) if flip else turned
    turned = torch.rot90(turned, quarters, dims=(-2, -1)) if quarters % 4 else turned
    return turned.contiguous().numpy().view(array.dtype)


def _replace_missing(
    frames: Sequence[Frame], missing: Sequence[np.ndarray | None], options: ProcessorOptions, output: np.ndarray
) -> None:
    """Write the values of the frames by (channel, frame), and the replacement of those that are missing."""
    for t, (frame, where) in enumerate(zip(frames, missing, strict=True)):
        with np.errstate(over="ignore"):
            output[:, t] = frame.values
        if where is not None:
            np.copyto(output[:, t], output.dtype.type(options.nodata_replacement), where=where)


def _scale(values: np.ndarray, shift: np.ndarray, gain: np.ndarray, out: np.ndarray) -> None:
    """Scale and normalise into float32, which may be the same array."""
    with np.errstate(over="ignore"):
        np.subtract(values, shift, out=out, dtype=np.float32, casting="unsafe")
    np.multiply(out, gain, out=out)


def _find_shift_and_gain(
    options: ProcessorOptions, device: torch.device = _CPU
) -> tuple[np.ndarray, np.ndarray, torch.Tensor, torch.Tensor]:
    """Give `shift` and `gain` by channel, float32 (num_channels, 1, 1, 1), as arrays and as tensors on a device."""
    factor, offset = (options.rescale_factor, options.rescale_offset) if options.do_rescale else (1.0, 0.0)
    mean, std = (options.image_mean, options.image_std) if options.do_normalize else ([0.0], [1.0])
    return _make_shift_and_gain(factor, offset, tuple(mean), tuple(std), device)


@lru_cache(maxsize=64)  # sent to the device once; views of tensors would cost a tenth of a crop
def _make_shift_and_gain(
    factor: float, offset: float, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[np.ndarray, np.ndarray, torch.Tensor, torch.Tensor]:
    shift = ((np.array(mean) - offset) / factor).astype(np.float32).reshape(-1, 1, 1, 1)
    gain = (factor / np.array(std)).astype(np.float32).reshape(-1, 1, 1, 1)
    return shift, gain, torch.from_numpy(shift).to(device), torch.from_numpy(gain).to(device)


def describe_units_problem(
    frames: Sequence[Frame], missing: Sequence[np.ndarray | None], options: ProcessorOptions, name: str
) -> str | None:
    """Warn of valid values that, after scaling, are plainly in other units than the statistics; else give None."""
    scale, offset = (options.rescale_factor, options.rescale_offset) if options.do_rescale else (1.0, 0.0)
    height, width = frames[0].values.shape[-2:]
    # A sample of the pixels tells whether to measure them all.
    sampled = max(1, math.isqrt(height * width // _SAMPLED_PIXELS))
    problem = _find_units_problem(_take_valid(frames, missing, sampled), scale, offset, options)
    if problem is None:
        return None
    found, better_scale, better_offset = problem
    numbers = _take_valid(frames, missing)
    means = [float(values.mean()) * scale + offset if values.size else math.nan for values in numbers]
    rows = [
        f"  {band:<16} measured mean {measured:<12.6g} expected mean {mean:.6g}, std {std:.6g}"
        for band, measured, mean, std in zip(options.bands, means, options.image_mean, options.image_std, strict=True)
    ]
    return (
        f"{name}: expected values in the units of image_mean, found {found}. Figures after scaling, of the valid "
        "pixels:\n" + "\n".join(rows) + "\n"
        f"Remedy: set do_rescale=True, rescale_factor={better_scale:.6g} and rescale_offset={better_offset:.6g} (on "
        f"the command line --rescale_factor and --rescale_offset; they are {scale:.6g} and {offset:.6g} now), or give "
        "image_mean and image_std in the units of the files."
    )


def _take_valid(frames: Sequence[Frame], missing: Sequence[np.ndarray | None], step: int = 1) -> list[np.ndarray]:
    """Take the valid numbers of each band of every n-th pixel, float64."""
    numbers = []
    for channel in range(len(frames[0].values)):
        parts = []
        for frame, where in zip(frames, missing, strict=True):
            values = frame.values[channel, ::step, ::step]
            keep = values != 0  # what files without a nodata tag are filled with, and says nothing about units
            if where is not None:
                keep &= ~where[channel, ::step, ::step]
            parts.append(values[keep].astype(np.float64))
        numbers.append(np.concatenate(parts))
    return numbers


def _find_units_problem(
    numbers: Sequence[np.ndarray], scale: float, offset: float, options: ProcessorOptions
) -> tuple[str, float, float] | None:
    """Say in which other units the numbers of the bands plainly are, and by which factor and offset they would fit.

    Whatever may be land, clouds, snow, water, shadow or burnt is None.
    """
    known = [index for index, values in enumerate(numbers) if values.size]
    if not known:
        return None
    usual = np.maximum(np.abs(options.image_mean), options.image_std)
    scaled = [numbers[index] * scale + offset for index in known]
    sizes = np.array([np.abs(values).mean() for values in scaled])
    ratios = sizes / usual[known]
    middle, largest = float(np.median(ratios)), float(ratios.max())
    # A reflectance of 1 in the units of the statistics; None for statistics of something else.
    size = float(np.median(usual))
    unit = 1.0 if size <= 3 else 10_000.0 if size >= 100 else None
    is_large, is_small = middle > UNITS_FACTOR, largest < 1 / UNITS_FACTOR
    if unit is not None:
        if min(options.image_mean) >= 0 and np.median([values.mean() for values in scaled]) < -0.02 * unit:
            return "values mostly below zero (an offset that had been applied before?)", scale, 0.0
        is_large |= middle > 2 and bool(((sizes > _LARGEST_REFLECTANCE * unit) & (ratios > 4)).any())
        if middle > 3:
            lowest, typical = np.transpose([np.percentile(numbers[index], (2, 50)) for index in known])
            is_dark = _LANDSAT_NUMBERS[0] < lowest.min() < _LANDSAT_NUMBERS[1]
            if (is_large or is_dark) and lowest.min() > _LANDSAT_NUMBERS[0] and typical.max() < _LANDSAT_NUMBERS[2]:
                return (
                    "values that look like digital numbers of Landsat Collection 2 Level 2, where reflectance is "
                    "number * 0.0000275 - 0.2",
                    0.0000275 * unit,
                    -0.2 * unit,
                )
        names = [options.bands[index].upper() for index in known]
        infrared = np.array(["NIR" in band or "SWIR" in band for band in names])
        if largest < _SMALL and 0 < infrared.sum() < len(infrared):
            # Water is darkest in the infrared.
            is_small |= bool(ratios[infrared].max() > ratios[~infrared].max() / 2)
    if not is_large and not is_small:
        return None
    power = round(math.log10(max(middle if is_large else largest, 1e-300)))
    power = max(power, 1) if is_large else min(power, -1)
    direction = f"{10.0 ** abs(power):,.0f} times {'larger' if is_large else 'smaller'}"
    hint = " (digital numbers against reflectance?)" if abs(power) > 1 else ""
    return f"values about {direction} after scaling{hint}", scale * 10.0**-power, offset * 10.0**-power
