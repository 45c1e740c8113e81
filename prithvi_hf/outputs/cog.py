# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Maps as Cloud-Optimized GeoTIFF: classes with names and colours, probabilities with one band a class.

A file appears under its name only when it is complete: it is made in a hidden folder beside the target and renamed.
"""

import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetWriter, MemoryFile
from rasterio.session import DummySession
from rasterio.shutil import copy as copy_dataset

from prithvi_hf.outputs.palette import Rgb, class_palette


NODATA_CLASS = 255  # in masks in memory; files may use another value
BLOCK_SIZE = 512
SOFTWARE = "prithvi_hf"
PROBABILITY_DTYPES = ("float32", "uint8")
# Options of GDAL's COG driver: for classes, and for values from 0 to 1 (probabilities, entropy).
_OPTIONS = {"compress": "DEFLATE", "blocksize": BLOCK_SIZE, "bigtiff": "IF_SAFER"}
CLASS_OPTIONS = {**_OPTIONS, "predictor": "NO", "overview_resampling": "MODE"}
SHARE_OPTIONS = {**_OPTIONS, "predictor": "YES", "overview_resampling": "AVERAGE"}
# Else GDAL takes 3 or 4 bands of bytes for red, green, blue and opacity, and the fourth class for a mask.
PHOTOMETRIC = {"photometric": "MINISBLACK"}
_SHARE_STEPS = 254  # shares in uint8 are 0..254, so that 255 stays free for no data
_COPY_BYTES = 2**22

# A map made from a bare array has no georeference, and its user knows that. Once for all and only for the modules that
# write maps: `warnings.catch_warnings` around each write would not be safe in threads.
_QUIET_MODULES = r"prithvi_hf\.(outputs\.(cog|assemble)|scenes\.predicted)$"
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=_QUIET_MODULES)


def check_output_path(
    path: str | os.PathLike, inputs: Sequence[Any] = (), overwrite: bool = True, purpose: str = "map"
) -> Path:
    """Refuse a path that cannot or must not be written, before any work is done for it.

    Args:
        path: The file to be written.
        inputs: Files that are read for it; those that are no paths are passed over.
        overwrite: Whether an existing file may be replaced.
        purpose: What the file is, for messages.

    Returns:
        The path.

    Raises:
        ValueError: If the folder does not exist, the path is a folder or one of the inputs, or it exists and may not
            be replaced.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"The folder {path.parent} of the {purpose} {path.name} does not exist: create it first.")
    if path.is_dir():
        raise ValueError(f"The {purpose} is to be written to a file, but {path} is a folder: add a file name.")
    for source in inputs:
        if isinstance(source, str | os.PathLike) and _is_same_file(path, source):
            raise ValueError(f"The {purpose} {path} is also an input: choose another name, inputs are never replaced.")
    if path.exists() and not overwrite:
        raise ValueError(f"The {purpose} {path} exists already: choose another name, or allow it to be overwritten.")
    return path


@contextmanager
def complete_or_absent(path: str | os.PathLike) -> Iterator[Path]:
    """Lend a name to write to that becomes `path` at the end, or nothing at all when the block fails.

    The name lies in a hidden folder of its own beside the target: on the same file system, so the final rename is
    atomic, and whatever side files a library makes vanish with it.

    Args:
        path: The file that shall appear.

    Yields:
        The temporary name.

    Raises:
        ValueError: If the folder of `path` does not exist or `path` is a folder.
        OSError: If the block or the renaming fails for want of space or permission; the message names the file.
    """
    path = check_output_path(path, purpose="file")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".partial") as folder:
        part = Path(folder) / path.name
        try:
            yield part
        except OSError as error:
            if error.errno is None or error.filename is not None:
                raise
            raise OSError(error.errno, error.strerror, str(path)) from error  # "No space left on device" of what?
        os.replace(part, path)
    # Statistics that a viewer kept for the file of that name before are not true of this one.
    Path(f"{path}.aux.xml").unlink(missing_ok=True)


def write_class_map(
    path: str | os.PathLike,
    mask: np.ndarray,
    *,
    id2label: Mapping[int, str],
    crs: Any = None,
    transform: Any = None,
    class_colors: Sequence[str] | None = None,
    nodata: int = NODATA_CLASS,
    class_values: Mapping[int, int] | None = None,
) -> None:
    """Write class indices as a Cloud-Optimized GeoTIFF of one uint8 band.

    The band carries a colour table, the description "class", and one metadata item a class, `class_<file value>` with
    the name. Overviews take the most frequent class and leave no data out of the count.

    Args:
        path: The file to write; an existing one is replaced.
        mask: (H, W) integers: class indices, 255 = no data.
        id2label: Class index to name, for every class 0 .. n-1.
        crs: CRS of the map as rasterio reads it, or None.
        transform: Affine transform from pixel to CRS coordinates, or None.
        class_colors: `"#rrggbb"` a class, or None for default colours.
        nodata: File value of pixels without data, 0 to 255.
        class_values: Class index to file value, 0 to 255, where the two differ; classes not in it keep their index.

    Raises:
        ValueError: If there are more than 255 classes, the mask holds other values or has another form, or two classes
            (or a class and no data) share a file value.
    """
    values = file_values(id2label, class_values, nodata)
    colors = class_palette(len(values), class_colors)
    pixels = file_value_table(values, nodata)[_checked_mask(mask, len(values))]
    with _staged(path, pixels[None], crs, transform, nodata, CLASS_OPTIONS) as dataset:
        describe_classes(dataset, id2label, values, colors, nodata)


def write_probabilities(
    path: str | os.PathLike,
    probabilities: np.ndarray,
    *,
    id2label: Mapping[int, str],
    crs: Any = None,
    transform: Any = None,
    dtype: str = "float32",
) -> None:
    """Write class probabilities as a Cloud-Optimized GeoTIFF of one band a class, described by the class name.

    Args:
        path: The file to write; an existing one is replaced.
        probabilities: (num_labels, H, W) floats 0 to 1, NaN = no data.
        id2label: Class index to name, for every band.
        crs: CRS of the map as rasterio reads it, or None.
        transform: Affine transform from pixel to CRS coordinates, or None.
        dtype: "float32" (no data is NaN), or "uint8": 0 to 254 with the band scale 1/254 in the file, no data 255.

    Raises:
        ValueError: If `dtype` is another, or the bands are not the classes.
    """
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 3 or len(probabilities) != len(id2label):
        raise ValueError(
            f"Expected probabilities of shape ({len(id2label)}, height, width), found {probabilities.shape}."
        )
    check_probability_dtype(dtype)
    pixels = probabilities.astype(np.float32) if dtype == "float32" else quantized(probabilities)
    with _staged(path, pixels, crs, transform, share_nodata(dtype), SHARE_OPTIONS) as dataset:
        describe_shares(dataset, [str(id2label[index]) for index in range(len(pixels))], dtype)


def file_value_table(values: Mapping[int, int], nodata: int = NODATA_CLASS) -> np.ndarray:
    """Tabulate the file values of masks.

    Args:
        values: Class index to file value, as [`file_values`] gives them.
        nodata: File value of pixels without data.

    Returns:
        (256,) uint8: the file value at each class index and at 255.
    """
    table = np.full(256, nodata, dtype=np.uint8)
    table[list(values)] = list(values.values())
    return table


def describe_classes(
    dataset: DatasetWriter, id2label: Mapping[int, str], values: Mapping[int, int], colors: Sequence[Rgb], nodata: int
) -> None:
    """Give a new class map its names and colours.

    Args:
        dataset: The file, not yet copied to a Cloud-Optimized one.
        id2label: Class index to name.
        values: Class index to file value.
        colors: Red, green and blue of each class.
        nodata: File value of pixels without data.
    """
    dataset.set_band_description(1, "class")
    dataset.update_tags(1, **{f"class_{value}": str(id2label[index]) for index, value in values.items()})
    colormap = {value: (*colors[index], 255) for index, value in values.items()}
    dataset.write_colormap(1, {**colormap, nodata: (0, 0, 0, 0)})


def describe_shares(dataset: DatasetWriter, names: Sequence[str], dtype: str) -> None:
    """Give a new file of values from 0 to 1 its band names and, for bytes, the scale.

    Args:
        dataset: The file, not yet copied to a Cloud-Optimized one.
        names: Description of each band.
        dtype: One of `PROBABILITY_DTYPES`.
    """
    if dtype == "uint8":
        dataset.scales = (1 / _SHARE_STEPS,) * len(names)
    for index, name in enumerate(names, start=1):
        dataset.set_band_description(index, name)


def share_nodata(dtype: str) -> float:
    """Give the file value for no data of values from 0 to 1: NaN for "float32", 255 for "uint8"."""
    return math.nan if dtype == "float32" else NODATA_CLASS


def file_values(
    id2label: Mapping[int, str], class_values: Mapping[int, int] | None = None, nodata: int = NODATA_CLASS
) -> dict[int, int]:
    """Give each class its value in the file.

    Args:
        id2label: Class index to name, for every class 0 .. n-1.
        class_values: Class index to file value, 0 to 255, where the two differ; classes not in it keep their index.
        nodata: File value of pixels without data, 0 to 255.

    Returns:
        Class index to file value, for every class.

    Raises:
        ValueError: If there are more than 255 classes, or file values collide or leave their range.
    """
    count = len(id2label)
    if sorted(id2label) != list(range(count)) or not 1 <= count <= NODATA_CLASS:
        raise ValueError(
            f"A map has 1 to 255 classes numbered from 0, found {count} "
            f"({list(id2label)[:5]}...): 255 of the 256 values of a byte, the last means no data."
        )
    unknown = sorted(set(class_values or {}) - set(id2label))
    if unknown:
        raise ValueError(f"`class_values` names the classes {unknown}, but the map has 0 to {count - 1}.")
    values = {index: index for index in range(count)} | dict(class_values or {})
    taken = [*values.values(), nodata]
    if any(not isinstance(value, int | np.integer) or not 0 <= value <= 255 for value in taken):
        raise ValueError(f"File values of classes and of no data are integers 0 to 255, found {taken}.")
    if len(set(taken)) < len(taken):
        raise ValueError(f"Every class and no data ({nodata}) need file values of their own, found {values}.")
    return values


def check_probability_dtype(dtype: str) -> None:
    """Refuse a data type that probabilities are not written in.

    Args:
        dtype: One of `PROBABILITY_DTYPES`.

    Raises:
        ValueError: If it is another.
    """
    if dtype not in PROBABILITY_DTYPES:
        raise ValueError(f"Probabilities are written as one of {PROBABILITY_DTYPES}, found {dtype!r}.")


@contextmanager
def _staged(
    path: str | os.PathLike,
    pixels: np.ndarray,
    crs: Any,
    transform: Any,
    nodata: float,
    options: Mapping[str, Any],
) -> Iterator[DatasetWriter]:
    """Lend a dataset of (C, H, W) `pixels` for its metadata, then write it out as a Cloud-Optimized GeoTIFF."""
    check_output_path(path, purpose="file")
    count, height, width = pixels.shape
    size = {"count": count, "height": height, "width": width, "dtype": pixels.dtype.name}
    place = {"crs": crs, "transform": transform, "nodata": nodata}
    # The environment registers GDAL's drivers; the dummy session keeps cloud credentials out of it.
    with rasterio.Env(session=DummySession()), MemoryFile(ext=".tif") as plain, MemoryFile(ext=".tif") as optimized:
        with DatasetWriter(
            plain.name, "w", driver="GTiff", BIGTIFF="IF_SAFER", **PHOTOMETRIC, **size, **place
        ) as dataset:
            dataset.write(pixels)
            dataset.update_tags(TIFFTAG_SOFTWARE=SOFTWARE)
            yield dataset
        copy_dataset(plain.name, optimized.name, driver="COG", **options)
        # GDAL does not report a disk that is full when it closes a file; Python does.
        with complete_or_absent(path) as part, part.open("wb") as file:
            shutil.copyfileobj(optimized, file, length=_COPY_BYTES)
            file.flush()
            os.fsync(file.fileno())


def _checked_mask(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the mask if it is (H, W) and holds class indices and 255 only."""
    mask = np.asarray(mask)
    if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.integer) or mask.size == 0:
        raise ValueError(f"A map is an (height, width) array of integers, found {mask.dtype} of shape {mask.shape}.")
    wrong = (mask < 0) | ((mask >= num_classes) & (mask != NODATA_CLASS))
    if wrong.any():
        raise ValueError(
            f"A map of {num_classes} classes holds 0 to {num_classes - 1} and 255 for no data, "
            f"found {np.unique(mask[wrong])[:5].tolist()}."
        )
    return mask


def quantized(shares: np.ndarray) -> np.ndarray:
    """Round values from 0 to 1 to 0..254 of uint8, NaN to 255."""
    steps = np.where(np.isnan(shares), NODATA_CLASS, np.rint(shares * _SHARE_STEPS))
    return np.clip(steps, 0, 255).astype(np.uint8)


def _is_same_file(path: Path, other: str | os.PathLike) -> bool:
    """Whether two names mean one file, links included; a name that does not exist yet is compared as text."""
    if path.exists() and Path(other).exists():
        return path.samefile(other)
    return os.path.realpath(path) == os.path.realpath(other)  # takes a loop of links for a name


__all__ = [
    "BLOCK_SIZE",
    "CLASS_OPTIONS",
    "NODATA_CLASS",
    "PHOTOMETRIC",
    "PROBABILITY_DTYPES",
    "SHARE_OPTIONS",
    "SOFTWARE",
    "check_output_path",
    "check_probability_dtype",
    "complete_or_absent",
    "describe_classes",
    "describe_shares",
    "file_value_table",
    "file_values",
    "quantized",
    "share_nodata",
    "write_class_map",
    "write_probabilities",
]
