# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Maps as Cloud-Optimized GeoTIFF: classes with names and colours, probabilities per class, values with their unit.

A file appears under its name only when it is complete: it is made in a hidden folder beside the target and renamed.
Making one holds a few hundred rows of one band in memory: a plain tiled GeoTIFF first, then the optimised copy, then a
comparison of the copy with what was to be written, because GDAL does not report every write that fails.
"""

import math
import os
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader, DatasetWriter
from rasterio.session import DummySession
from rasterio.shutil import copy as copy_dataset
from rasterio.windows import Window

from prithvi_hf.cores import CORES
from prithvi_hf.models.prithvi.regression_map_prithvi import Quantity
from prithvi_hf.outputs.palette import class_palette
from prithvi_hf.rasters.raster import GDAL_ERRORS


NODATA_CLASS = 255  # in masks in memory; files may use another value
BLOCK_SIZE = 512
GDAL_CACHE_BYTES = 64 * 2**20  # GDAL's own default is a fraction of the machine's memory
PROBABILITY_DTYPES = ("float32", "uint8")
_QUANTA = 254  # fractions in uint8 are 0..254, so that 255 stays free for nodata
_SOFTWARE = "prithvi_hf"  # of every file written here, by which it is known again
_MOST_THREADS = 8  # each holds a block of all bands
_PROCESS = os.getpid()

# A map made from a bare array has no georeference, and its user knows that. Once for all and only for the modules that
# write maps: `warnings.catch_warnings` around each write would not be safe in threads.
_QUIET_MODULES = r"prithvi_hf\.(outputs\.(class_areas|cog|polygons)|scenes\.predicted|serving\.results)$"
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=_QUIET_MODULES)


@dataclass(frozen=True)
class Layer:
    """What one GeoTIFF of a map holds."""

    name: str  # what the file is, for messages
    bands: tuple[str, ...]  # names of the strips' arrays, one per band
    dtype: str
    nodata: float | None  # in the file
    options: Mapping[str, str | int]  # of GDAL's COG driver
    describe: Callable[[DatasetWriter], None]  # adds names, colours and the like to the new file
    values: np.ndarray | None = None  # (256,) uint8 file value of each class index; None writes pixels as they are
    block_size: int = BLOCK_SIZE  # side of the blocks in pixels


def class_layer(
    id2label: Mapping[int, str],
    class_colors: Sequence[str] | None = None,
    class_values: Mapping[int, int] | None = None,
    nodata: int = NODATA_CLASS,
) -> Layer:
    """Describe a map of classes; for arguments and errors see [`write_class_map`]."""
    values = file_values(id2label, class_values, nodata)
    colors = class_palette(len(values), class_colors, [id2label[index] for index in values])

    def describe(dataset: DatasetWriter) -> None:
        dataset.set_band_description(1, "class")
        dataset.update_tags(1, **{f"class_{value}": str(id2label[index]) for index, value in values.items()})
        colormap = {value: (*colors[index], 255) for index, value in values.items()}
        dataset.write_colormap(1, {**colormap, nodata: (0, 0, 0, 0)})

    # Level 5 of deflate takes half the time of GDAL's 6 where a map has much detail, for 3 to 11 % more bytes.
    options: dict[str, str | int] = {"predictor": "NO", "level": 5, "overview_resampling": "MODE"}
    return Layer("map", ("classes",), "uint8", nodata, options, describe, file_value_table(values, nodata))


def fraction_layer(name: str, bands: Sequence[str], descriptions: Sequence[str], dtype: str) -> Layer:
    """Describe a file of values from 0 to 1, whose bands are called `descriptions`; `dtype` as in probabilities."""

    def describe(dataset: DatasetWriter) -> None:
        if dtype == "uint8":
            dataset.scales = (1 / _QUANTA,) * len(descriptions)
        for index, description in enumerate(descriptions, start=1):
            dataset.set_band_description(index, description)

    nodata = math.nan if dtype == "float32" else NODATA_CLASS
    options = {"predictor": "YES", "overview_resampling": "AVERAGE"}
    return Layer(name, tuple(bands), dtype, nodata, options, describe)


def value_layer(quantity: Quantity) -> Layer:
    """Describe a map of float32 values, whose band says what they are and in which unit; nodata is NaN."""

    def describe(dataset: DatasetWriter) -> None:
        dataset.set_band_description(1, quantity.name)
        if quantity.unit:
            dataset.set_band_unit(1, quantity.unit)

    options = {"predictor": "YES", "overview_resampling": "AVERAGE"}
    return Layer("map", ("values",), "float32", math.nan, options, describe)


def write_class_map(
    path: str | os.PathLike,
    mask: np.ndarray,
    *,
    id2label: Mapping[int, str],
    crs: CRS | str | None = None,
    transform: Affine | None = None,
    class_colors: Sequence[str] | None = None,
    nodata: int = NODATA_CLASS,
    class_values: Mapping[int, int] | None = None,
) -> None:
    """Write class indices as a Cloud-Optimized GeoTIFF of one uint8 band.

    The band carries a colour table, the description "class", and one metadata item per class, `class_<file value>`
    with the name. Overviews take the most frequent class and leave nodata out of the count.

    Args:
        path: The file to write; an existing one is replaced.
        mask: (H, W) integers: class indices, 255 = nodata.
        id2label: Class index to name, for every class 0 .. n-1.
        crs: CRS of the map as rasterio reads it, or None.
        transform: Affine transform from pixel to CRS coordinates, or None.
        class_colors: `"#rrggbb"` per class, or None for default colours.
        nodata: File value of pixels without data, 0 to 255.
        class_values: Class index to file value, 0 to 255, where the two differ; classes not in it keep their index.

    Raises:
        ValueError: If there are more than 255 classes, the mask holds other values or has another form, or two classes
            (or a class and nodata) share a file value.
    """
    layer, count = class_layer(id2label, class_colors, class_values, nodata), len(id2label)
    mask = np.asarray(mask)
    if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.integer) or mask.size == 0:
        raise ValueError(f"A map is a (height, width) array of integers, found {mask.dtype} of shape {mask.shape}.")
    wrong = (mask < 0) | ((mask >= count) & (mask != NODATA_CLASS))
    if wrong.any():
        raise ValueError(
            f"A map of {count} classes holds 0 to {count - 1} and 255 for nodata, "
            f"found {np.unique(mask[wrong])[:5].tolist()}."
        )
    with complete_or_absent(path) as part:
        write_geotiff(part, layer, mask.shape, _cut_blocks(mask[None]), crs, transform)


def write_value_map(
    path: str | os.PathLike,
    values: np.ndarray,
    *,
    name: str = "value",
    unit: str | None = None,
    crs: CRS | str | None = None,
    transform: Affine | None = None,
) -> None:
    """Write values as a Cloud-Optimized GeoTIFF of one float32 band, described by their name, with their unit.

    Args:
        path: The file to write; an existing one is replaced.
        values: (H, W) floats, NaN = nodata.
        name: What they are.
        unit: Their unit, or None.
        crs: CRS of the map as rasterio reads it, or None.
        transform: Affine transform from pixel to CRS coordinates, or None.

    Raises:
        ValueError: If the values have another form.
    """
    values = np.asarray(values)
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating) or values.size == 0:
        raise ValueError(f"A map is a (height, width) array of floats, found {values.dtype} of shape {values.shape}.")
    pixels = values.astype(np.float32, copy=False)[None]
    with complete_or_absent(path) as part:
        write_geotiff(part, value_layer(Quantity(name, unit)), values.shape, _cut_blocks(pixels), crs, transform)


def write_probabilities(
    path: str | os.PathLike,
    probabilities: np.ndarray,
    *,
    id2label: Mapping[int, str],
    crs: CRS | str | None = None,
    transform: Affine | None = None,
    dtype: str = "float32",
) -> None:
    """Write class probabilities as a Cloud-Optimized GeoTIFF of one band per class, described by the class name.

    Args:
        path: The file to write; an existing one is replaced.
        probabilities: (num_labels, H, W) floats 0 to 1, NaN = nodata.
        id2label: Class index to name, for every band.
        crs: CRS of the map as rasterio reads it, or None.
        transform: Affine transform from pixel to CRS coordinates, or None.
        dtype: "float32" (nodata is NaN), or "uint8": 0 to 254 with the band scale 1/254 in the file, nodata 255.

    Raises:
        ValueError: If `dtype` is another, or the bands are not the classes.
    """
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 3 or len(probabilities) != len(id2label):
        raise ValueError(
            f"Expected probabilities of shape ({len(id2label)}, height, width), found {probabilities.shape}."
        )
    check_probability_dtype(dtype)
    names = [str(id2label[index]) for index in range(len(id2label))]
    pixels = probabilities.astype(np.float32, copy=False) if dtype == "float32" else quantize(probabilities)
    layer = fraction_layer("probabilities", names, names, dtype)
    with complete_or_absent(path) as part:
        write_geotiff(part, layer, pixels.shape[1:], _cut_blocks(pixels), crs, transform)


def _cut_blocks(pixels: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Cut (C, H, W) pixels into the blocks that `write_geotiff` takes."""
    for band, values in enumerate(pixels):
        for start in range(0, len(values), BLOCK_SIZE):
            yield band, start, values[start : start + BLOCK_SIZE]


def write_geotiff(
    path: Path,
    layer: Layer,
    shape: Sequence[int],
    blocks: Iterable[tuple[int, int, np.ndarray]],
    crs: CRS | str | None,
    transform: Affine | None,
    *,
    optimized: bool = True,
) -> None:
    """Make one complete GeoTIFF of a layer, band by band, in a folder of its own for the side files.

    `blocks` give the band from 0, the first row and (h, W) pixels, each of the layer's `block_size` rows but for a
    band's last ones. Without `optimized` the file is tiled, without compression and overviews, for use within the run.
    """
    plain = path.with_name("plain.tif") if optimized else path
    (height, width), side = shape, layer.block_size
    profile = {"count": len(layer.bands), "height": height, "width": width, "dtype": layer.dtype}
    place = {"crs": crs, "transform": transform, "nodata": layer.nodata}
    tiling = {"tiled": True, "blockxsize": side, "blockysize": side, "interleave": "band"}
    # Else GDAL takes 3 or 4 bands of bytes for red, green, blue and opacity, and the fourth class for a mask.
    tiling["photometric"] = "MINISBLACK"
    checksums: dict[tuple[int, int, int], int] = {}  # by band, row and column of the block
    # The dummy session keeps cloud credentials out of the environment.
    environment = rasterio.Env(session=DummySession(), GDAL_CACHEMAX=GDAL_CACHE_BYTES)
    try:
        with environment:
            with DatasetWriter(
                os.fspath(plain), "w", driver="GTiff", BIGTIFF="IF_SAFER", **tiling, **profile, **place
            ) as dataset:
                dataset.update_tags(TIFFTAG_SOFTWARE=_SOFTWARE)
                layer.describe(dataset)
                for band, start, rows in blocks:
                    pixels = rows if layer.values is None else layer.values[rows]
                    dataset.write(pixels, band + 1, window=Window(0, start, width, len(pixels)))
                    for left in range(0, width, side):
                        block = np.ascontiguousarray(pixels[:, left : left + side])
                        checksums[band, start // side, left // side] = zlib.crc32(block.data)
            if optimized:
                # The file is the same with any number of them. GDAL's own do not live on in a forked process.
                threads = min(CORES, _MOST_THREADS) if os.getpid() == _PROCESS else 1
                options = {"compress": "DEFLATE", "blocksize": side, "bigtiff": "IF_SAFER", **layer.options}
                copy_dataset(os.fspath(plain), os.fspath(path), driver="COG", num_threads=threads, **options)
                plain.unlink()
                sync_to_disk(path)
            _check_pixels(path, checksums)
    except GDAL_ERRORS as error:
        free = shutil.disk_usage(path.parent).free / 1e6
        raise OSError(
            f"Expected to write the {layer.name} in {path.parent}, found that it cannot be written "
            f"({error.__cause__ or error}); {free:,.0f} MB are free there."
        ) from error


def _check_pixels(path: Path, checksums: Mapping[tuple[int, int, int], int]) -> None:
    """Read a finished file back: every block must hold what was to be written, and every overview must decode."""
    with DatasetReader(os.fspath(path), driver="GTiff") as dataset:
        levels = len(dataset.overviews(1))
        for (row, column), window in dataset.block_windows(1):
            for band, pixels in enumerate(dataset.read(window=window)):
                if zlib.crc32(np.ascontiguousarray(pixels).data) != checksums.get((band, row, column)):
                    raise OSError(
                        f"Expected in {path} the pixels that were written, found others in band {band + 1} at "
                        f"{window}: the file could not be written completely, perhaps because the disk is full."
                    )
    for level in range(levels):
        with DatasetReader(os.fspath(path), driver="GTiff", overview_level=level) as overview:
            for _, window in overview.block_windows(1):
                overview.read(window=window)


def is_own_map(path: str | os.PathLike) -> bool:
    """Tell whether a file is a map, or probabilities or the like, that this package wrote, or a copy of one."""
    if not os.path.isfile(path):
        return False
    try:
        with (
            rasterio.Env(session=DummySession(), GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
            DatasetReader(os.fspath(path), driver="GTiff") as dataset,
        ):
            return dataset.get_tag_item("TIFFTAG_SOFTWARE") == _SOFTWARE
    except (*GDAL_ERRORS, ValueError):  # whoever reads its pixels will say what is wrong with it
        return False


def sync_to_disk(path: Path) -> None:
    """Bring a file or a folder to the disk, which is where a disk that is full must say so at the latest."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def complete_or_absent(path: str | os.PathLike) -> Iterator[Path]:
    """Lend a name to write to that becomes `path` at the end, or nothing at all when the block fails.

    The name is in a hidden folder of its own beside the target: on the same file system, so the final rename is
    atomic, and whatever side files a library makes vanish with it.
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


def check_output_path(
    path: str | os.PathLike,
    inputs: Iterable[object] = (),
    overwrite: bool = True,
    purpose: str = "map",
    suffixes: Sequence[str] = (),
) -> Path:
    """Refuse a path that cannot or must not be written, before any work is done for it, or give it back.

    `inputs` are files that are read for it (what is not a path is passed over), `purpose` says what the file is, and
    its name has to end in one of `suffixes`, where there are any.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"The folder {path.parent} of the {purpose} {path.name} does not exist: create it first.")
    if path.is_dir():
        raise ValueError(f"The {purpose} is to be written to a file, but {path} is a folder: add a file name.")
    for source in inputs:
        if not isinstance(source, str | os.PathLike):
            continue
        # Links count; a name that does not exist yet is compared as text, and a loop of links is such a name.
        both_exist = path.exists() and Path(source).exists()
        if path.samefile(source) if both_exist else os.path.realpath(path) == os.path.realpath(source):
            raise ValueError(f"The {purpose} {path} is also an input: choose another name, inputs are never replaced.")
    if path.exists() and not overwrite:
        raise ValueError(f"The {purpose} {path} exists already: choose another name, or allow it to be overwritten.")
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(
            f"Expected a name that ends in {' or '.join(suffixes)} for the {purpose}, found {path.name}: no other "
            "format is written, name the file so."
        )
    return path


def file_values(
    id2label: Mapping[int, str], class_values: Mapping[int, int] | None = None, nodata: int = NODATA_CLASS
) -> dict[int, int]:
    """Give each class its value in the file; for arguments see [`write_class_map`].

    Raises:
        ValueError: If there are more than 255 classes, or file values collide or leave their range.
    """
    count = len(id2label)
    if sorted(id2label) != list(range(count)) or not 1 <= count <= NODATA_CLASS:
        raise ValueError(
            f"A map has 1 to 255 classes numbered from 0, found {count} "
            f"({list(id2label)[:5]}...): 255 of the 256 values of a byte, the last means nodata."
        )
    unknown = sorted(set(class_values or {}) - set(id2label))
    if unknown:
        raise ValueError(f"`class_values` names the classes {unknown}, but the map has 0 to {count - 1}.")
    values = dict(enumerate(range(count))) | dict(class_values or {})
    taken = [*values.values(), nodata]
    if any(not isinstance(value, int | np.integer) or not 0 <= value <= 255 for value in taken):
        raise ValueError(f"File values of classes and of nodata are integers 0 to 255, found {taken}.")
    if len(set(taken)) < len(taken):
        raise ValueError(f"Every class and nodata ({nodata}) need file values of their own, found {values}.")
    return values


def file_value_table(values: Mapping[int, int], nodata: int = NODATA_CLASS) -> np.ndarray:
    """Tabulate the file value, (256,) uint8, at each class index and at 255."""
    table = np.full(256, nodata, dtype=np.uint8)
    table[list(values)] = list(values.values())
    return table


def check_probability_dtype(dtype: str) -> None:
    """Refuse a data type that probabilities are not written in."""
    if dtype not in PROBABILITY_DTYPES:
        raise ValueError(f"Probabilities are written as one of {PROBABILITY_DTYPES}, found {dtype!r}.")


def quantize(fractions: np.ndarray) -> np.ndarray:
    """Round values from 0 to 1 to 0..254 of uint8, NaN to 255."""
    steps = np.where(np.isnan(fractions), NODATA_CLASS, np.rint(fractions * _QUANTA))
    return np.clip(steps, 0, 255).astype(np.uint8)
