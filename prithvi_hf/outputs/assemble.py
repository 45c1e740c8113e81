# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The last pass of a map: staged strips become Cloud-Optimized GeoTIFF files, which then get their names.

Each file is made in steps that hold a few hundred rows of one band in memory: a plain tiled GeoTIFF from the strips,
the optimized copy, and a comparison of the copy with the strips, because GDAL does not report every write that fails.
Nothing of this is kept between runs: a pass that was interrupted begins again from the strips.
"""

import os
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio._err import CPLE_BaseError  # what copying raises has no public name
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, DatasetWriter
from rasterio.session import DummySession
from rasterio.shutil import copy as copy_dataset
from rasterio.windows import Window

from prithvi_hf.disk import explain_disk_full
from prithvi_hf.outputs.cog import (
    BLOCK_SIZE,
    CLASS_OPTIONS,
    NODATA_CLASS,
    PHOTOMETRIC,
    SHARE_OPTIONS,
    SOFTWARE,
    describe_classes,
    describe_shares,
    file_value_table,
    file_values,
    share_nodata,
)
from prithvi_hf.outputs.palette import class_palette
from prithvi_hf.outputs.products import (
    CLASSES,
    CONFIDENCE,
    ENTROPY,
    probability_name,
)
from prithvi_hf.outputs.staging import Staging


GDAL_CACHE_BYTES = 64 * 2**20  # GDAL's own default is a share of the machine's memory
_MOST_THREADS = 8  # each holds a block of all bands
_REMEDY = "Free some space and run the same command again: finished strips are kept and not computed again."

Checksums = dict[tuple[int, int, int], int]  # by band, row and column of the block, all from 0

# A map of bare arrays has no georeference, and its user knows that; see writer.py for why it is silenced this way.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"prithvi_hf\.outputs\.assemble$")


@dataclass(frozen=True)
class Layer:
    """One file of the final pass.

    Attributes:
        purpose: What the file is, for messages.
        bands: Names of the staged arrays, one a band.
        dtype: numpy name of the pixel type.
        nodata: File value for no data.
        options: Options of GDAL's COG driver.
        describe: Adds names, colours and the like to the plain file.
        values: (256,) uint8 file value of each staged byte, or None where they are the same.
    """

    purpose: str
    bands: tuple[str, ...]
    dtype: str
    nodata: float
    options: Mapping[str, Any]
    describe: Callable[[DatasetWriter], None]
    values: np.ndarray | None = None


@dataclass(frozen=True)
class Canvas:
    """Size and place of a map.

    Attributes:
        height: Rows.
        width: Columns.
        crs: CRS as rasterio reads it, or None.
        transform: Affine transform from pixel to CRS coordinates, or None.
        starts: First row of each strip, in order; a strip ends where the next one starts.
    """

    height: int
    width: int
    starts: tuple[int, ...]
    crs: Any = None
    transform: Affine | None = None


@dataclass
class Tally:
    """What is learned of the map while its strips pass by.

    Attributes:
        counts: (256,) int64 pixels of each class index; 255 is no data.
        rows: Every `step`-th row and column of the class indices.
        step: Thinning of the picture.
    """

    step: int
    counts: np.ndarray = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    rows: list[np.ndarray] = field(default_factory=list)

    def add(self, start: int, classes: np.ndarray) -> None:
        """Take in the classes (h, W) of the rows from `start` on."""
        self.counts += np.bincount(classes.ravel(), minlength=256)
        self.rows.append(classes[-start % self.step :: self.step, :: self.step].copy())

    def picture(self) -> np.ndarray:
        """Give the thinned map, (h, w) uint8."""
        return np.concatenate(self.rows)


def class_layer(
    id2label: Mapping[int, str],
    class_colors: Sequence[str] | None = None,
    class_values: Mapping[int, int] | None = None,
) -> Layer:
    """Describe the map of classes.

    Args:
        id2label: Class index to name.
        class_colors: `"#rrggbb"` a class, or None for default colours.
        class_values: Class index to file value where the two differ.

    Raises:
        ValueError: If file values collide or leave their range, or colours are malformed.
    """
    values = file_values(id2label, class_values)
    colors = class_palette(len(values), class_colors)

    def describe(dataset: DatasetWriter) -> None:
        describe_classes(dataset, id2label, values, colors, NODATA_CLASS)

    return Layer("map", (CLASSES,), "uint8", NODATA_CLASS, CLASS_OPTIONS, describe, file_value_table(values))


def probability_layer(id2label: Mapping[int, str], dtype: str) -> Layer:
    """Describe the file of probabilities, one band a class.

    Args:
        id2label: Class index to name.
        dtype: "float32" or "uint8".
    """
    names = [str(id2label[index]) for index in range(len(id2label))]
    bands = tuple(probability_name(index) for index in range(len(names)))
    return _share_layer("probabilities", bands, names, dtype)


def entropy_layer(dtype: str) -> Layer:
    """Describe the file of entropy, one band from 0 (certain) to 1 (all classes equally probable).

    Args:
        dtype: "float32" or "uint8".
    """
    return _share_layer("entropy", (ENTROPY,), ["entropy"], dtype)


def confidence_layer() -> Layer:
    """Describe the file with the probability of the chosen class, float32."""
    return _share_layer("confidence", (CONFIDENCE,), ["probability of the class"], "float32")


def _share_layer(purpose: str, bands: tuple[str, ...], names: Sequence[str], dtype: str) -> Layer:
    """Describe a file of values from 0 to 1."""

    def describe(dataset: DatasetWriter) -> None:
        describe_shares(dataset, names, dtype)

    return Layer(purpose, bands, dtype, share_nodata(dtype), SHARE_OPTIONS, describe)


def write_layer(path: Path, layer: Layer, staging: Staging, canvas: Canvas, tally: Tally | None = None) -> None:
    """Make one complete Cloud-Optimized GeoTIFF of the staged strips.

    Args:
        path: The file to make, in a folder of its own for the side files.
        layer: What it holds.
        staging: Where the strips are; all must be done.
        canvas: Size and place.
        tally: Takes in the classes in passing.

    Raises:
        DamagedStripError: If a strip is missing or damaged.
        OSError: If the file could not be written completely.
    """
    plain = path.with_name("plain.tif")
    with _writing(path, layer), small_cache():
        checksums = _write_plain(plain, layer, staging, canvas, tally)
        copy_dataset(os.fspath(plain), os.fspath(path), driver="COG", num_threads=_threads(), **layer.options)
        plain.unlink()
        _sync(path)
        _check_pixels(path, checksums)


def write_plain_layer(path: Path, layer: Layer, staging: Staging, canvas: Canvas) -> None:
    """Make a tiled GeoTIFF without compression and overviews, for use within the run.

    Args:
        path: The file to make.
        layer: What it holds.
        staging: Where the strips are; all must be done.
        canvas: Size and place.

    Raises:
        DamagedStripError: If a strip is missing or damaged.
        OSError: If the file could not be written completely.
    """
    with _writing(path, layer), small_cache():
        _check_pixels(path, _write_plain(path, layer, staging, canvas, None))


@contextmanager
def small_cache() -> Iterator[None]:
    """Keep GDAL to 64 MB of blocks meanwhile."""
    with rasterio.Env(session=DummySession(), GDAL_CACHEMAX=GDAL_CACHE_BYTES):
        yield


def publish(parts: Mapping[Path, Path]) -> None:
    """Give finished files their names, in the order in which they are given; the last one vouches for the others.

    An older file of the last name goes before any other is replaced: if this stops midway, no file stands under that
    name, rather than one beside the others of which it is not.

    Args:
        parts: Finished file to output, both on one file system.

    Raises:
        OSError: If a file cannot be brought to the disk or renamed.
    """
    for part in parts:
        _sync(part)
    last = list(parts.values())[-1]
    if len(parts) > 1 and last.exists():
        last.unlink()
        _sync(last.parent)
    for part, path in parts.items():
        os.replace(part, path)
        # Statistics that a viewer kept for the file of that name before are not true of this one.
        Path(f"{path}.aux.xml").unlink(missing_ok=True)
    for folder in {path.parent for path in parts.values()}:
        _sync(folder)


def check_free_space(folder: Path, needed: int, purpose: str) -> None:
    """Refuse work whose result finds no room.

    Args:
        folder: A folder on the file system in question.
        needed: Bytes, estimated.
        purpose: What they are needed for, for the message.

    Raises:
        OSError: If fewer are free.
    """
    usage = shutil.disk_usage(folder)
    if usage.total and usage.free < needed:  # some network file systems say 0 for everything
        raise OSError(
            f"Expected about {_megabytes(needed)} free in {folder} for {purpose}, found {_megabytes(usage.free)}: "
            "free some space, choose another folder, or ask for fewer outputs (probabilities as uint8 take a quarter)."
        )


def file_system(folder: Path) -> int:
    """Tell file systems apart.

    Args:
        folder: A folder.

    Returns:
        A number, the same for folders that share their free space.
    """
    return folder.stat().st_dev


def space_needed(pixels: int, strip_bytes: int, layers: Sequence[Layer]) -> int:
    """Estimate the space that a run takes at its height.

    Args:
        pixels: Pixels of the map.
        strip_bytes: Bytes that still have to be staged.
        layers: The files to be made.

    Returns:
        Bytes: the strips, the largest plain file beside them, and the finished files at half their size, which classes
        stay well below and probabilities come near to.
    """
    sizes = [pixels * len(layer.bands) * np.dtype(layer.dtype).itemsize for layer in layers]
    return strip_bytes + max(sizes, default=0) + sum(sizes) // 2


@contextmanager
def _writing(path: Path, layer: Layer) -> Iterator[None]:
    """Say of errors which output they concern, and what a full disk leaves to do."""
    try:
        with explain_disk_full(path.parent, _REMEDY):
            yield
    except (RasterioError, CPLE_BaseError) as error:
        cause = error.__cause__ or error
        raise OSError(
            f"Expected to write the {layer.purpose} in {path.parent}, found that it cannot be written ({cause}); "
            f"{_megabytes(shutil.disk_usage(path.parent).free)} are free there. {_REMEDY}"
        ) from error


def _write_plain(path: Path, layer: Layer, staging: Staging, canvas: Canvas, tally: Tally | None) -> Checksums:
    """Write the strips to a tiled file without compression, band by band; returns the checksum of every block."""
    profile = {"count": len(layer.bands), "height": canvas.height, "width": canvas.width, "dtype": layer.dtype}
    place = {"crs": canvas.crs, "transform": canvas.transform, "nodata": layer.nodata, **PHOTOMETRIC}
    tiling = {"tiled": True, "blockxsize": BLOCK_SIZE, "blockysize": BLOCK_SIZE, "interleave": "band"}
    checksums: Checksums = {}
    with DatasetWriter(
        os.fspath(path), "w", driver="GTiff", BIGTIFF="IF_SAFER", **tiling, **profile, **place
    ) as plain:
        plain.update_tags(TIFFTAG_SOFTWARE=SOFTWARE)
        layer.describe(plain)
        for band, name in enumerate(layer.bands):
            for start, rows in _block_rows(staging, canvas, name):
                if tally is not None and name == CLASSES:
                    tally.add(start, rows)
                pixels = rows if layer.values is None else layer.values[rows]
                plain.write(pixels, band + 1, window=Window(0, start, canvas.width, len(pixels)))
                checksums.update(_checksums(pixels, band, start))
    return checksums


def _block_rows(staging: Staging, canvas: Canvas, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """Cut one staged array anew, into rows of blocks: (first row, (h, W) pixels); every strip is read once."""
    first, rows = 0, None
    for index in range(len(canvas.starts)):
        strip = staging.load(index, [name])[name]
        rows = strip if rows is None else np.concatenate([rows, strip])
        while len(rows) >= BLOCK_SIZE:
            yield first, rows[:BLOCK_SIZE]
            first, rows = first + BLOCK_SIZE, rows[BLOCK_SIZE:]
    if len(rows):
        yield first, rows
    if first + len(rows) != canvas.height:
        raise ValueError(f"Expected strips of {canvas.height} rows in all, found {first + len(rows)}.")


def _checksums(pixels: np.ndarray, band: int, start: int) -> Checksums:
    """Checksum of each block in a row of blocks."""
    columns = range(0, pixels.shape[1], BLOCK_SIZE)
    return {
        (band, start // BLOCK_SIZE, left // BLOCK_SIZE): zlib.crc32(
            np.ascontiguousarray(pixels[:, left : left + BLOCK_SIZE])
        )
        for left in columns
    }


def _check_pixels(path: Path, checksums: Checksums) -> None:
    """Read a finished file back: every block must hold what was staged, and every overview must decode."""
    with DatasetReader(os.fspath(path), driver="GTiff") as dataset:
        levels = len(dataset.overviews(1))
        for _, window in dataset.block_windows(1):
            for band, pixels in enumerate(dataset.read(window=window)):
                place = (band, window.row_off // BLOCK_SIZE, window.col_off // BLOCK_SIZE)
                if zlib.crc32(np.ascontiguousarray(pixels)) != checksums.get(place):
                    raise OSError(
                        f"Expected the pixels of {path} to be those of the strips, found others in band {band + 1} "
                        f"at {window}: the file could not be written completely, perhaps for want of space. {_REMEDY}"
                    )
    for level in range(levels):
        with DatasetReader(os.fspath(path), driver="GTiff", overview_level=level) as overview:
            for _, window in overview.block_windows(1):
                overview.read(window=window)


def _sync(path: Path) -> None:
    """Bring a file or a folder to the disk, which is where a disk that is full must say so at the latest."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _threads() -> int:
    """Threads that compress blocks; the file is the same with any number of them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_THREADS)


def _megabytes(count: int) -> str:
    """Write a number of bytes for people."""
    return f"{count / 1e6:,.0f} MB"


__all__ = [
    "GDAL_CACHE_BYTES",
    "Canvas",
    "Layer",
    "Tally",
    "check_free_space",
    "class_layer",
    "confidence_layer",
    "entropy_layer",
    "file_system",
    "probability_layer",
    "publish",
    "small_cache",
    "space_needed",
    "write_layer",
    "write_plain_layer",
]
