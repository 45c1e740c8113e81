# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Grids of scenes, and rasters read on another grid than their own.

GDAL resamples, in blocks that are a matter of the target grid alone: what a value is does not depend on the window
that was asked for, as it would if GDAL were given the window.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import rasterio
import rasterio.transform
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling as Kernel
from rasterio.session import DummySession
from rasterio.warp import reproject, transform_bounds
from rasterio.warp import transform as transform_points

from prithvi_hf.models.prithvi.pixel_values_prithvi import equals_nodata, list_nodata
from prithvi_hf.rasters.derived import take_header
from prithvi_hf.rasters.raster import (
    GDAL_ERRORS,
    GeoTiffError,
    Raster,
    Window,
    is_same_crs,
    measure_shift,
    name_crs_pair,
    shift_transform,
)


Resampling = Literal["bilinear", "nearest"]

# Two programs write one grid with other last bits; a twentieth of a pixel is not another place, and resampling for it
# would only blur.
SAME_GRID_TOLERANCE = 0.05
# Finer pixels than this say nothing more of the ground, and are mostly a resolution in other units.
_FINEST = 16
_MOST_PIXELS = 2**31 - 1  # a side, in GeoTIFF

# Target pixels along the side of a block, and blocks side by side that one read of the source serves.
_BLOCK = 256
_BLOCKS_PER_READ = 8
# Above this ratio of pixel sizes one sample per pixel would leave out values in between.
_DENSE_SAMPLING_RATIO = 1.25
_MAX_SAMPLES = 16
# Whole-pixel shifts come out of the arithmetic with errors of 1e-9 pixels.
_WHOLE = 1e-6
# Pixels along each side of a picture of two grids, to see how far they overlap.
_OVERLAP_PIXELS = 257
# Source pixels around those of a block: neighbours, and what its edges bulge between the points that GDAL looks at.
_MARGIN = 4


@dataclass(frozen=True)
class Grid:
    """Pixels on the ground.

    Attributes:
        crs: coordinate reference system, None where nothing states one.
        transform: from (column, row) to coordinates of the CRS.
        height: rows.
        width: columns.
    """

    crs: CRS | None
    transform: Affine
    height: int
    width: int

    @classmethod
    def of(cls, raster: "Raster | Grid") -> Self:
        """Give the grid of a raster."""
        return cls(raster.crs, raster.transform, raster.height, raster.width)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return (self.height, self.width)

    @property
    def pixel_size(self) -> tuple[float, float]:
        """(height, width) of a pixel in units of the CRS."""
        a, b, _, d, e, _ = self.transform[:6]
        return (math.hypot(b, e), math.hypot(a, d))

    def is_same_as(self, other: "Raster | Grid", tolerance: float = SAME_GRID_TOLERANCE) -> bool:
        """Whether each pixel of another grid, or of a raster's, is the same place to a tolerance in pixels."""
        if (self.height, self.width) != (other.height, other.width):
            return False
        return measure_shift((self.crs, self.transform), (other.crs, other.transform), self.size) <= tolerance

    def with_resolution(self, resolution: float) -> Self:
        """Cover the same area in pixels of another side, in units of the CRS, from the same upper left corner.

        Raises:
            ValueError: a side that is not a positive number, larger than the area, more than 16 times finer than the
                pixels are, or of more pixels a side than GeoTIFF holds.
        """
        if not (math.isfinite(resolution) and resolution > 0):
            raise ValueError(
                f"resolution: expected a side of a pixel above 0 in units of the CRS, found {resolution}."
            )
        down, right = (resolution / side for side in self.pixel_size)
        height = width = 0
        if min(down, right) * _FINEST >= 1:  # else the numbers of pixels themselves may be out of range
            # A little of a pixel more is rounding, not another row.
            height = math.ceil(self.height / down - SAME_GRID_TOLERANCE)
            width = math.ceil(self.width / right - SAME_GRID_TOLERANCE)
        if min(height, width) < 1 or max(height, width) > _MOST_PIXELS:
            sides = " x ".join(f"{side:g}" for side in self.pixel_size)
            raise ValueError(
                f"resolution: expected pixels at most {_FINEST} times finer than {sides} units of the CRS, and 1 to "
                f"{_MOST_PIXELS:,} rows and columns, found {resolution:g} for {self.height} x {self.width} pixels. "
                "Give the side of a pixel in units of the CRS, such as metres or degrees."
            )
        return type(self)(self.crs, shift_transform(self.transform, 0, 0, (down, right)), height, width)

    def cut(self, window: Window, density: int = 1) -> Self:
        """Give the grid of a window, in pixels of which `density` are side by side where one was."""
        row, column, height, width = window
        transform = shift_transform(self.transform, row, column, (1 / density, 1 / density))
        return type(self)(self.crs, transform, height * density, width * density)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in coordinates of the CRS."""
        rows, columns = [0, 0, self.height, self.height], [0, self.width] * 2
        xs, ys = rasterio.transform.xy(self.transform, rows, columns, offset="ul")
        return min(xs), min(ys), max(xs), max(ys)

    def describe(self) -> dict[str, Any]:
        """Describe the grid as JSON holds it."""
        crs = None if self.crs is None else self.crs.to_wkt()
        return {"crs": crs, "transform": list(self.transform[:6]), "height": self.height, "width": self.width}


class WarpedRaster(Raster):
    """A raster read on another grid.

    Imagery is interpolated bilinearly between the values that are there: what is nodata (the nodata value, one of
    `nodata_values`, NaN, infinity, a mask) and what is outside has no weight. A pixel is there where the source pixel
    that its centre is in is there. Where target pixels are larger than source pixels, each is the mean of samples
    dense enough to meet every source pixel, and is there where half of them are. With `"nearest"`, values are those
    of the source pixel that the centre is in. Masks follow the same rules as values. `fill` is where there is no
    data; None is the nodata value, one of `nodata_values`, NaN, or 0 where the mask alone can tell.

    A window reads as the same part of the whole does, to the last bit. A grid that is shifted by whole pixels is read
    without resampling.

    Raises:
        ValueError: a source or grid without CRS, CRSs that cannot be converted, or another kind of resampling.
    """

    def __init__(
        self,
        raster: Raster,
        grid: Grid,
        resampling: Resampling = "bilinear",
        nodata_values: Sequence[float] = (),
        fill: float | None = None,
    ) -> None:
        if resampling not in ("bilinear", "nearest"):
            raise ValueError(f"resampling: expected 'bilinear' or 'nearest', found {resampling!r}.")
        self._source, self._place, self._grid, self._resampling = raster, Grid.of(raster), grid, resampling
        _check_grids(grid, self._place, raster.name)
        self._missing = list_nodata(raster.nodata, nodata_values)
        dtype = np.dtype(raster.dtype)
        if fill is None:  # a value that is known to mean nodata, where the pixels can hold one
            with np.errstate(over="ignore", invalid="ignore"):
                fits = [
                    value for value in self._missing if dtype.kind == "f" or np.array(value).astype(dtype) == value
                ]
            fill = fits[0] if fits else math.nan if dtype.kind == "f" else 0
        self._fill = fill
        self._shift, ratio = _find_shift(grid, self._place), _find_ratio(grid, self._place)
        dense = resampling == "bilinear" and ratio > _DENSE_SAMPLING_RATIO
        self._density = min(_MAX_SAMPLES, math.ceil(ratio - _WHOLE)) if dense else 1
        self._side = max(8, math.ceil(_BLOCK / max(1.0, ratio)))  # what is read for a block does not grow with it
        blocks = (self._side, self._side) if self._shift is None else raster.block_shape
        place = {"size": grid.size, "crs": grid.crs, "transform": grid.transform, "block_shape": blocks}
        super().__init__(**{**take_header(raster), **place})
        self.excludes = raster.excludes

    @property
    def sources(self) -> tuple[Raster, ...]:
        """The raster on its own grid."""
        return (self._source,)

    @property
    def provenance(self) -> dict[str, Any]:
        """Grid, resampling and values that are missing."""
        missing = [repr(value) for value in self._missing]
        return {"grid": self._grid.describe(), "resampling": self._resampling, "nodata_values": missing}

    def _read(self, bands: tuple[int, ...], window: Window) -> np.ndarray:
        values = np.full((len(bands), *window[2:]), self._fill, dtype=self.dtype)

        def read(place: Window) -> tuple[np.ndarray, np.ndarray | None]:
            """Read the source, and where it has no data, bool (bands, height, width)."""
            source = self._source.read(bands, place)
            if self._resampling == "nearest" or self._shift is not None:
                return source, None
            missing = equals_nodata(source, self._missing)
            mask = self._source.select(bands, place).read_nodata_mask()
            if mask is not None:
                missing = np.broadcast_to(mask, source.shape) if missing is None else missing | mask
            return source, missing

        self._warp(values, window, read, self._resample)
        return values

    def _read_mask(self, bands: tuple[int, ...], window: Window) -> np.ndarray | None:
        return self._read_flags(window, self._source.select(bands).read_nodata_mask, outside=True)

    def _read_excluded(self, window: Window) -> np.ndarray | None:
        return self._read_flags(window, self._source.read_excluded, outside=False)

    def _read_flags(self, window: Window, read: Callable[[Window], np.ndarray | None], outside: bool) -> np.ndarray:
        """Bring flags of the source to the grid; pixels get those of most of their samples, `outside` beside it."""
        target, density = np.full((1, *window[2:]), outside), self._density

        def read_flags(place: Window) -> tuple[np.ndarray, None]:
            flags = read(place)
            return (np.zeros((1, *place[2:]), dtype=bool) if flags is None else flags[None]), None

        def resample(flags: np.ndarray, _: None, place: Grid, block: Grid) -> np.ndarray:
            fine = np.full((1, block.height * density, block.width * density), outside, dtype=np.uint8)
            _reproject(flags.astype(np.uint8), place, fine, block.cut((0, 0, *block.size), density), Kernel.nearest)
            counts = fine.reshape(1, block.height, density, block.width, density).sum(axis=(2, 4), dtype=np.int64)
            return 2 * counts > density**2

        self._warp(target, window, read_flags, resample)
        return target[0]

    def _warp(
        self,
        target: np.ndarray,
        window: Window,
        read: Callable[[Window], tuple[np.ndarray, np.ndarray | None]],
        resample: Callable[..., np.ndarray],
    ) -> None:
        """Write a window into `target` (n, height, width), block by block; what is outside the source stays."""
        row, column, height, width = window
        if self._shift is not None:
            moved = (row + self._shift[0], column + self._shift[1], height, width)
            place = _clip(moved, (0, 0, *self._place.size))
            if place[2] and place[3]:
                target[_index(place, moved)] = read(place)[0]
            return
        side = self._side
        for top in range(row // side * side, row + height, side):
            for left in range(column // side * side, column + width, side * _BLOCKS_PER_READ):
                # One read for blocks side by side, of which each gets its own part: the same whoever is beside it.
                found = []
                for start in range(left, min(left + side * _BLOCKS_PER_READ, column + width), side):
                    block = _clip((top, start, side, side), (0, 0, *self._grid.size))
                    place = _find_window(self._grid.cut(block), self._place)
                    if place[2] and place[3]:
                        found.append((block, place))
                if not found:
                    continue
                tops, lefts, heights, widths = np.transpose([place for _, place in found])
                first, start = int(tops.min()), int(lefts.min())
                end, stop = int((tops + heights).max()), int((lefts + widths).max())
                source, missing = read((first, start, end - first, stop - start))
                for block, place in found:
                    part, wanted = _index(place, (first, start)), _clip(block, window)
                    holes = None if missing is None else missing[part]
                    try:
                        pixels = resample(source[part], holes, self._place.cut(place), self._grid.cut(block))
                    except GDAL_ERRORS as error:
                        raise GeoTiffError(
                            f"{self.name}: expected pixels that can be warped to the grid of the scene, found GDAL "
                            f"unable to ({error}). Warp the file with gdalwarp first."
                        ) from error
                    target[_index(wanted, window)] = pixels[_index(wanted, block)]

    def _resample(self, source: np.ndarray, missing: np.ndarray | None, place: Grid, block: Grid) -> np.ndarray:
        """Give the values (bands, height, width) of a block."""
        count, height, width, density = len(source), block.height, block.width, self._density
        if self._resampling == "nearest":
            pixels = np.full((count, height, width), self._fill, dtype=source.dtype)
            _reproject(source, place, pixels, block, Kernel.nearest)
            return pixels
        # Single precision where it holds every value exactly.
        is_small = source.dtype.itemsize <= 2 or source.dtype == np.float32
        numbers = source.astype(np.float32 if is_small else np.float64)
        fine = block.cut((0, 0, height, width), density)
        means = np.full((count, *fine.size), np.nan, dtype=numbers.dtype)
        holes = np.zeros(count, dtype=bool) if missing is None else missing.any(axis=(1, 2))
        if missing is not None:
            numbers[missing] = 0
        _reproject(numbers, place, means, fine, Kernel.bilinear)
        if missing is not None and holes.any():
            present = (~missing[holes]).astype(numbers.dtype)
            if (present == present[:1]).all():  # mostly the bands lack the same pixels
                present = present[:1]
            weights = np.zeros((len(present), *fine.size), dtype=numbers.dtype)
            _reproject(present, place, weights, fine, Kernel.bilinear)
            there = np.zeros(weights.shape, dtype=np.uint8)  # where the pixel around the centre is
            _reproject(present.astype(np.uint8), place, there, fine, Kernel.nearest)
            means[holes] = np.where(there, means[holes] / np.maximum(weights, np.finfo(weights.dtype).tiny), np.nan)
        if density > 1:
            samples = means.reshape(count, height, density, width, density)
            counts = (~np.isnan(samples)).sum(axis=(2, 4))
            sums = np.nansum(samples, axis=(2, 4), dtype=np.float64)
            means = np.where(2 * counts >= density**2, sums / np.maximum(counts, 1), np.nan)
        dtype, absent = source.dtype, np.isnan(means)
        largest = np.inf if dtype.kind == "f" else np.iinfo(dtype).max
        if dtype.kind != "f":
            means = np.clip(np.rint(np.where(absent, 0, means)), np.iinfo(dtype).min, largest)
        pixels = means.astype(dtype)
        for _ in self._missing:
            # A mean that happens to be a nodata value gives way to the next number, which may be another one.
            clash = equals_nodata(pixels, self._missing)
            if clash is None:
                break
            step = np.where(pixels == largest, -1, 1).astype(dtype)
            if dtype.kind == "f":  # past all numbers that are taken for the value
                step = np.abs(pixels) * dtype.type(4e-6)
            moved = pixels + step
            pixels = np.where(clash, np.nextafter(moved, np.inf) if dtype.kind == "f" else moved, pixels)
        pixels[absent] = self._fill
        return pixels


def warp_to(
    raster: Raster,
    grid: Grid,
    resampling: Resampling = "bilinear",
    nodata_values: Sequence[float] = (),
    fill: float | None = None,
) -> Raster:
    """Bring a raster to a grid: the raster itself where it is on it, else a `WarpedRaster` of the same options.

    Raises:
        ValueError: as `WarpedRaster`, or the two do not overlap.
    """
    if grid.is_same_as(raster):
        return raster
    own = Grid.of(raster)
    if overlap(grid, raster) == 0:
        places = []
        for one in (grid, own):
            left, bottom, right, top = one.bounds
            crs = "no CRS" if one.crs is None else one.crs.to_string()
            places.append(f"x {left:.6g} to {right:.6g}, y {bottom:.6g} to {top:.6g} of {crs}")
        raise ValueError(
            f"{raster.name}: expected a frame that overlaps the grid of the scene ({places[0]}), found one that is "
            f"elsewhere ({places[1]}). Give frames of one place."
        )
    return WarpedRaster(raster, grid, resampling, nodata_values, fill)


def overlap(grid: Grid, raster: Raster) -> float:
    """Measure the fraction of a grid that a raster covers, whatever its mask; 0 only where they do not touch."""
    own, pictures = Grid.of(raster), []
    _check_grids(grid, own, raster.name)
    for one in (grid, own):  # as small pictures; GDAL draws the one into the other
        height, width = min(one.height, _OVERLAP_PIXELS), min(one.width, _OVERLAP_PIXELS)
        place = shift_transform(one.transform, 0, 0, (one.height / height, one.width / width))
        pictures.append((np.zeros((1, height, width), dtype=np.uint8), Grid(one.crs, place, height, width)))
    (target, there), (source, here) = pictures
    _reproject(np.ones_like(source), here, target, there, Kernel.nearest)
    if target.any():
        return float(target.mean())
    # A raster much smaller than the grid may be between the points.
    _reproject(np.ones_like(target), there, source, here, Kernel.nearest)
    return float(source.mean()) * min(1.0, math.prod(own.size) / math.prod(grid.size))


def _reproject(source: np.ndarray, place: Grid, target: np.ndarray, grid: Grid, kernel: Kernel) -> None:
    """Let GDAL write pixels of one grid into another; those outside the source stay as they are."""
    crs = (place.crs, grid.crs)
    if place.crs == grid.crs:  # nothing to convert; GDAL wants some CRS all the same
        crs = (CRS.from_epsg(3857),) * 2
    with rasterio.Env(session=DummySession()):
        reproject(
            source,
            target,
            src_transform=place.transform,
            src_crs=crs[0],
            dst_transform=grid.transform,
            dst_crs=crs[1],
            resampling=kernel,
            init_dest_nodata=False,
            XSCALE=1,  # interpolate, without the blur for coarser grids that GDAL measures for each call
            YSCALE=1,
        )


def _check_grids(grid: Grid, own: Grid, name: str) -> None:
    """Refuse grids of which one has no CRS, transforms without an inverse, and CRSs that have nothing in common."""
    crs, own_crs = name_crs_pair(grid.crs, own.crs)
    if (grid.crs is None) != (own.crs is None):
        raise ValueError(
            f"{name}: expected frames with a CRS each, or without any, found {own_crs} beside {crs}. Write "
            "the CRS into the file, e.g. `gdal_edit.py -a_srs`."
        )
    for transform in (grid.transform, own.transform):
        if transform.a * transform.e == transform.b * transform.d:
            raise ValueError(
                f"{name}: expected a transform from pixels to places, found {tuple(transform[:6])}. Repair the file."
            )
    if grid.crs != own.crs:
        nothing = np.zeros((1, 1, 1), dtype=np.uint8)
        try:
            _reproject(nothing, own, nothing.copy(), grid, Kernel.nearest)
        except GDAL_ERRORS as error:
            raise ValueError(
                f"{name}: expected CRSs that can be converted into each other, found {crs} and {own_crs} "
                f"({error}). Warp the file with gdalwarp first."
            ) from error


def _locate(points: Sequence[tuple[float, float]], grid: Grid, other: Grid) -> np.ndarray:
    """Find where (row, column) of one grid are in another, (n, 2)."""
    xs, ys = rasterio.transform.xy(grid.transform, *zip(*points, strict=True), offset="ul")
    if grid.crs != other.crs:
        xs, ys = transform_points(grid.crs, other.crs, xs, ys)[:2]
    return np.stack(rasterio.transform.rowcol(other.transform, xs, ys, op=np.asarray), axis=-1)


def _find_shift(grid: Grid, source: Grid) -> tuple[int, int] | None:
    """Find by how many rows and columns a grid begins after a source of the same pixels; None for other pixels."""
    if is_same_crs(grid.crs, source.crs, grid.transform, grid.size):
        grid = replace(grid, crs=source.crs)  # no rounding by a conversion
    corners = [(0, 0), (0, grid.width), (grid.height, grid.width)]
    try:
        shifts = _locate(corners, grid, source) - corners
    except GDAL_ERRORS:
        return None
    whole = np.rint(shifts[0])
    return (int(whole[0]), int(whole[1])) if np.abs(shifts - whole).max() < _WHOLE else None


def _find_ratio(grid: Grid, source: Grid) -> float:
    """Find the side of a pixel of a grid in pixels of a source: the median over what they have in common."""
    top, left, height, width = _find_window(source, grid)
    ratios = []
    for down, right in itertools.product((0.1, 0.3, 0.5, 0.7, 0.9), repeat=2):
        row, column = top + down * height, left + right * width
        try:
            place, below, beside = _locate([(row, column), (row + 1, column), (row, column + 1)], grid, source)
        except GDAL_ERRORS:  # there is nothing of the source
            continue
        ratios.append(max(math.dist(place, below), math.dist(place, beside)))
    return statistics.median(ratios or [1.0])


def _find_window(grid: Grid, source: Grid) -> Window:
    """Find the pixels of a source that a grid may need, with a margin; of no height or width where there are none."""
    left, bottom, right, top = grid.bounds
    if grid.crs is not None and source.crs is not None and grid.crs != source.crs:
        try:
            left, bottom, right, top = transform_bounds(grid.crs, source.crs, left, bottom, right, top)
        except GDAL_ERRORS:  # no point of the grid has a place in the source's CRS
            return (0, 0, 0, 0)
        west, south, east, north = source.bounds
        if source.crs.is_geographic and left > right:  # across the antimeridian
            left, right = min(west, left - 360), max(east, right + 360)
        elif source.crs.is_geographic:
            turns = 360 * round((west + east - left - right) / 720)
            left, right = left + turns, right + turns
        # Numbers far beyond the source are as good as its edges, and may be infinite.
        left, right = max(left, 2 * west - east), min(right, 2 * east - west)
        bottom, top = max(bottom, 2 * south - north), min(top, 2 * north - south)
        if not (left <= right and bottom <= top):
            return (0, 0, 0, 0)
    rows, columns = rasterio.transform.rowcol(
        source.transform, [left, left, right, right], [bottom, top, bottom, top], op=np.asarray
    )
    first, start = math.floor(min(rows)) - _MARGIN, math.floor(min(columns)) - _MARGIN
    end, stop = math.ceil(max(rows)) + _MARGIN, math.ceil(max(columns)) + _MARGIN
    return _clip((first, start, end - first, stop - start), (0, 0, *source.size))


def _clip(window: Window, other: Window) -> Window:
    """Give the part of a window that is in another one, of no height or width where there is none."""
    top, left = max(window[0], other[0]), max(window[1], other[1])
    bottom, right = min(window[0] + window[2], other[0] + other[2]), min(window[1] + window[3], other[1] + other[3])
    return (top, left, max(0, bottom - top), max(0, right - left))


def _index(window: Window, origin: Sequence[int]) -> tuple[slice, slice, slice]:
    """Index a window in an array (n, height, width) whose first pixel is at `origin`."""
    top, left = window[0] - origin[0], window[1] - origin[1]
    return slice(None), slice(top, top + window[2]), slice(left, left + window[3])
