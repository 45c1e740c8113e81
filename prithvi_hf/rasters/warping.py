# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Grids of scenes, and rasters read on another grid than their own."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from prithvi_hf.models.prithvi.pixel_values_prithvi import equals_nodata, largest_shift
from prithvi_hf.rasters.derived import DerivedRaster, Window, header_of
from prithvi_hf.rasters.resampling import (
    Interpolator,
    PixelMap,
    divide_by_weights,
    inside,
    map_pixels,
    needed_window,
    positions_of,
    sample_density,
    take_nearest,
)


Resampling = Literal["bilinear", "nearest"]
_ReadFlags = Callable[[Window], np.ndarray | None]

# Two programs write one grid with other last bits; a twentieth of a pixel is no other place, and resampling for it
# would only blur.
SAME_GRID_TOLERANCE = 0.05
# The source of a wide window lies askew in another projection: in narrow parts, less of it has to be read.
_PART_WIDTH = 2048
# Pixels that are interpolated at once; what they need stays in the processor's cache.
_CHUNK_PIXELS = 2**16
# Points along each side that tell how far two grids overlap.
_OVERLAP_POINTS = 257
# Share of a coarser pixel that has to be there.
_ENOUGH = 0.5
# Finer pixels than this say nothing more of the ground, and are mostly a resolution in other units.
_FINEST = 16
_MOST_PIXELS = 2**31 - 1  # a side, in GeoTIFF


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
    def of(cls, raster: Any) -> Self:
        """The grid of a raster.

        Args:
            raster: anything with crs, transform, height and width.

        Returns:
            Its grid.
        """
        return cls(raster.crs, raster.transform, raster.height, raster.width)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return (self.height, self.width)

    @property
    def pixel_size(self) -> tuple[float, float]:
        """(height, width) of a pixel in units of the CRS."""
        return (
            math.hypot(self.transform.b, self.transform.e),
            math.hypot(self.transform.a, self.transform.d),
        )

    def is_same_as(self, other: "Grid", tolerance: float = SAME_GRID_TOLERANCE) -> bool:
        """Whether each pixel of another grid is the same place.

        Args:
            other: another grid.
            tolerance: in pixels.

        Returns:
            True for one size, one CRS, and corners not farther apart than the tolerance.
        """
        if self.size != other.size or self.crs != other.crs:
            return False
        return largest_shift(self.transform, other.transform, self.size) <= tolerance

    def with_resolution(self, resolution: float) -> Self:
        """The same area in pixels of another size.

        Args:
            resolution: side of a pixel in units of the CRS, above 0.

        Returns:
            A grid with the same upper left corner that covers the whole area.

        Raises:
            ValueError: a side that is no positive number, larger than the area, more than 16 times finer than the
                pixels are, or of more pixels a side than GeoTIFF holds.
        """
        if not (math.isfinite(resolution) and resolution > 0):
            raise ValueError(
                f"resolution: expected a side of a pixel above 0 in units of the CRS, found {resolution}."
            )
        down, right = (resolution / side for side in self.pixel_size)
        # Beyond any sense the numbers of pixels themselves are out of range.
        if min(down, right) * _FINEST < 1:
            raise self._no_resolution(resolution)
        a, b, c, d, e, f = self.transform[:6]
        # A little of a pixel more is rounding, not another row.
        height, width = (
            math.ceil(self.height / down - SAME_GRID_TOLERANCE),
            math.ceil(self.width / right - SAME_GRID_TOLERANCE),
        )
        if min(height, width) < 1 or max(height, width) > _MOST_PIXELS:
            raise self._no_resolution(resolution)
        return type(self)(self.crs, Affine(a * right, b * down, c, d * right, e * down, f), height, width)

    def _no_resolution(self, resolution: float) -> ValueError:
        """The error for a resolution that makes no sense for the grid."""
        sides = " x ".join(f"{side:g}" for side in self.pixel_size)
        return ValueError(
            f"resolution: expected pixels at most {_FINEST} times finer than {sides} units of the CRS, and 1 to "
            f"{_MOST_PIXELS:,} rows and columns, found {resolution:g} for {self.height} x {self.width} pixels. "
            "Give the side of a pixel in units of the CRS, such as metres or degrees."
        )

    def describe(self) -> dict[str, Any]:
        """The grid as JSON holds it."""
        crs = None if self.crs is None else self.crs.to_wkt()
        return {"crs": crs, "transform": list(self.transform[:6]), "height": self.height, "width": self.width}


class WarpedRaster(DerivedRaster):
    """A raster read on another grid.

    Imagery is interpolated bilinearly between the values that are there: what is no data (the nodata value, NaN,
    infinity, a mask) and what lies outside has no weight. A pixel is there where the source pixel that its centre
    lies in is there. Where target pixels are larger than source pixels, each is the mean of samples dense enough to
    meet every source pixel, and is there where half of them are. With `"nearest"`, values are those of the source
    pixel that the centre lies in. Masks follow the same rules as values.

    A window reads as the same part of the whole does, to the last bit, and pixels that coincide with source pixels
    keep their values.

    Args:
        raster: the source.
        grid: the grid to read it on.
        resampling: `"bilinear"` or `"nearest"`.
        nodata_values: values that mean "no data" beside the source's own `nodata`.
        fill: stands where there is no data. None: the nodata value, one of `nodata_values`, NaN, or 0 where the mask
            alone can tell.

    Raises:
        ValueError: a source or grid without CRS, CRSs that cannot be converted, or another kind of resampling.
    """

    def __init__(
        self,
        raster: Any,
        grid: Grid,
        resampling: Resampling = "bilinear",
        nodata_values: Sequence[float] = (),
        fill: float | None = None,
    ) -> None:
        if resampling not in ("bilinear", "nearest"):
            raise ValueError(f"resampling: expected 'bilinear' or 'nearest', found {resampling!r}.")
        place = {"size": grid.size, "crs": grid.crs, "transform": grid.transform}
        super().__init__(**{**header_of(raster), **place})
        self._source, self._grid, self._resampling = raster, grid, resampling
        self._missing = tuple(float(value) for value in (raster.nodata, *nodata_values) if value is not None)
        self._fill = _fill_value(np.dtype(raster.dtype), self._missing) if fill is None else fill
        self._map = _pixel_map(grid, raster)
        self._density = sample_density(self._map.ratio) if resampling == "bilinear" else 1

    @property
    def sources(self) -> tuple[Any, ...]:
        """The raster on its own grid."""
        return (self._source,)

    @property
    def recipe(self) -> dict[str, Any]:
        """Grid, resampling and values that are missing."""
        missing = [repr(value) for value in self._missing]
        return {"grid": self._grid.describe(), "resampling": self._resampling, "nodata_values": missing}

    def _read(self, bands: tuple[int, ...], window: Window) -> np.ndarray:
        values = np.full((len(bands), *window[2:]), self._fill, dtype=self.dtype)
        for part, rows, columns in _parts(window):
            self._read_part(values[:, rows, columns], bands, part)
        return values

    def _read_part(self, target: np.ndarray, bands: tuple[int, ...], window: Window) -> None:
        """Writes what lies in the source into `target` (bands, height, width)."""
        rows, columns = positions_of(self._map, window)
        within = inside(rows, columns, self._source.shape[-2:])
        place = self._needed(rows, columns, within)
        if place is None:
            return
        values = self._source.read(bands, place)
        if self._resampling == "nearest":
            np.copyto(target, take_nearest(values, rows, columns, place), where=within)
            return
        present = self._find_present(values, bands, place)
        if present is not None:
            values = np.where(present, values, np.zeros((), values.dtype))
        for lines, chunk in _chunks(window):
            self._interpolate(target[:, lines], values, present, chunk, place, within[lines])

    def _needed(self, rows: np.ndarray, columns: np.ndarray, within: np.ndarray) -> Window | None:
        margin = 0 if self._resampling == "nearest" else 1 + math.ceil(self._map.ratio if self._density > 1 else 0)
        return needed_window(rows, columns, within, self._source.shape[-2:], margin)

    def _find_present(self, values: np.ndarray, bands: tuple[int, ...], place: Window) -> np.ndarray | None:
        """Where single values of the source are there, bool (bands, height, width); None where all are."""
        missing = equals_nodata(values, self._missing)
        if values.dtype.kind == "f":
            infinite = np.isinf(values)
            missing = infinite if missing is None else missing | infinite
        mask = self._source.select(bands, place).read_nodata_mask()
        if mask is not None and mask.any():
            missing = np.broadcast_to(mask, values.shape) if missing is None else missing | mask
        return None if missing is None or not missing.any() else ~missing

    def _interpolate(
        self,
        target: np.ndarray,
        values: np.ndarray,
        present: np.ndarray | None,
        chunk: Window,
        place: Window,
        within: np.ndarray,
    ) -> None:
        samples = self._samples(chunk)
        centres = samples[0] if self._density == 1 else positions_of(self._map, chunk)
        interpolator = Interpolator(samples, place, _precision(values))
        for band, source in enumerate(values):
            nearest = _Nearest(source, centres, place)
            own = None if present is None or interpolator.meets_only(present[band]) else present[band]
            means, there = _means(interpolator, source, own, nearest, self._density)
            means = self._round(means, nearest)
            np.copyto(target[band], means, where=within if there is None else within & there)

    def _samples(self, chunk: Window) -> list[tuple[np.ndarray, np.ndarray]]:
        """Positions that the pixels of a chunk are means of."""
        offsets = (np.arange(self._density) + 0.5) / self._density
        return [positions_of(self._map, chunk, down, right) for down in offsets for right in offsets]

    def _round(self, means: np.ndarray, nearest: "_Nearest") -> np.ndarray:
        """Brings means to the raster's type; one that happens to be a nodata value gives way to a value nearby."""
        dtype = np.dtype(self.dtype)
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            means = np.clip(np.rint(means), limits.min, limits.max)
        means = means.astype(dtype, copy=False)
        clash = equals_nodata(means, self._missing)
        if clash is not None and clash.any():
            means = np.where(clash, nearest.take(), means)
        return means

    def _read_mask(self, bands: tuple[int, ...], window: Window) -> np.ndarray | None:
        def read(place: Window) -> np.ndarray | None:
            return self._source.select(bands, place).read_nodata_mask()

        return self._read_flags(window, read, outside=True)

    def _read_excluded(self, window: Window) -> np.ndarray | None:
        return self._read_flags(window, self._source.read_excluded, outside=False)

    def _read_flags(self, window: Window, read: _ReadFlags, outside: bool) -> np.ndarray:
        """Brings flags of the source to the grid; `outside` is what pixels beside the source get."""
        flags = np.full(window[2:], outside)
        for part, rows, columns in _parts(window):
            self._read_flags_part(flags[rows, columns], read, part, outside)
        return flags

    def _read_flags_part(self, target: np.ndarray, read: _ReadFlags, window: Window, outside: bool) -> None:
        rows, columns = positions_of(self._map, window)
        within = inside(rows, columns, self._source.shape[-2:])
        target[...] = ~within if outside else False
        place = self._needed(rows, columns, within)
        own = None if place is None else read(place)
        if own is None or not own.any():
            return
        if self._density == 1:
            target |= take_nearest(own, rows, columns, place) & within
            return
        for lines, chunk in _chunks(window):
            interpolator = Interpolator(self._samples(chunk), place, _precision(own))
            # Beside the source nothing has weight: no data there, but nothing that is flagged either.
            target[lines] |= interpolator.sums(~own) < _ENOUGH if outside else interpolator.sums(own) > 1 - _ENOUGH


@dataclass(frozen=True, eq=False)
class _Nearest:
    """The values that centres of pixels lie in, taken only where needed."""

    values: np.ndarray
    positions: tuple[np.ndarray, np.ndarray]
    window: Window

    def take(self, values: np.ndarray | None = None) -> np.ndarray:
        return take_nearest(self.values if values is None else values, *self.positions, self.window)


def _means(
    interpolator: Interpolator, source: np.ndarray, present: np.ndarray | None, nearest: _Nearest, density: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Means of what is there, missing values being 0, and where enough is there; None where everything is."""
    if present is None:
        return interpolator.sums(source), None
    sums = interpolator.sums(source)
    weights = interpolator.sums(present)
    there = nearest.take(present) if density == 1 else weights >= _ENOUGH
    return divide_by_weights(sums, weights), there


def warp_to(
    raster: Any,
    grid: Grid,
    resampling: Resampling = "bilinear",
    nodata_values: Sequence[float] = (),
    fill: float | None = None,
) -> Any:
    """Brings a raster to a grid.

    Args:
        raster: the raster.
        grid: the grid.
        resampling: `"bilinear"` for imagery, `"nearest"` for masks.
        nodata_values: values that mean "no data" beside the raster's own.
        fill: stands where there is no data, see `WarpedRaster`.

    Returns:
        The raster itself where it is on the grid, else a `WarpedRaster`.

    Raises:
        ValueError: as `WarpedRaster`, or the two do not overlap.
    """
    if grid.is_same_as(Grid.of(raster)):
        return raster
    if overlap(grid, raster) == 0:
        raise ValueError(
            f"{raster.name}: expected a frame that overlaps the grid of the scene ({_place_of(grid)}), found one that "
            f"lies elsewhere ({_place_of(Grid.of(raster))}). Give frames of one place."
        )
    return WarpedRaster(raster, grid, resampling, nodata_values, fill)


def overlap(grid: Grid, raster: Any) -> float:
    """How much of a grid a raster covers, mask and nodata left aside.

    Args:
        grid: the grid.
        raster: the raster.

    Returns:
        About the share of the grid's pixels, 0 to 1; 0 only where the two do not touch.
    """
    share = _share_inside(_pixel_map(grid, raster), grid.size, raster.shape[-2:])
    if share > 0:
        return share
    # A raster much smaller than the grid may lie between the points.
    own = Grid.of(raster)
    back = _share_inside(_pixel_map(own, grid), own.size, grid.size)
    return back * min(1.0, math.prod(own.size) / math.prod(grid.size))


def _share_inside(pixel_map: PixelMap, size: tuple[int, int], source_size: tuple[int, int]) -> float:
    y, x = (np.linspace(0.5, length - 0.5, min(length, _OVERLAP_POINTS)) for length in size)
    return float(inside(*pixel_map.at(y, x), source_size).mean())


def _pixel_map(grid: Any, raster: Any) -> PixelMap:
    if (grid.crs is None) != (raster.crs is None):
        name = getattr(raster, "name", "the grid")
        raise ValueError(
            f"{name}: expected frames with a CRS each, or without any, found {raster.crs} beside {grid.crs}. Write "
            "the CRS into the file, e.g. `gdal_edit.py -a_srs`."
        )
    return map_pixels(grid.crs, grid.transform, (grid.height, grid.width), raster.crs, raster.transform)


def _parts(window: Window) -> Iterator[tuple[Window, slice, slice]]:
    """Parts of a window side by side, each with its rows and columns inside the window."""
    row, column, height, width = window
    for left in range(0, width, _PART_WIDTH):
        across = min(_PART_WIDTH, width - left)
        yield (row, column + left, height, across), slice(0, height), slice(left, left + across)


def _chunks(window: Window) -> Iterator[tuple[slice, Window]]:
    """Rows of a window that are worked on at once: their place in the window, and the window that they are."""
    row, column, height, width = window
    step = max(1, _CHUNK_PIXELS // width)
    for top in range(0, height, step):
        lines = slice(top, min(top + step, height))
        yield lines, (row + top, column, lines.stop - top, width)


def _precision(values: np.ndarray) -> np.dtype:
    """Of weights and sums: single where it holds every value exactly."""
    small = values.dtype.itemsize <= 2 or values.dtype == np.float32
    return np.dtype(np.float32 if small else np.float64)


def _fill_value(dtype: np.dtype, missing: Sequence[float]) -> float:
    """What stands for no data: a value that is known to mean it, where there is one."""
    for value in missing:
        if dtype.kind == "f" or (value.is_integer() and _fits(dtype, value)):
            return value
    return math.nan if dtype.kind == "f" else 0


def _fits(dtype: np.dtype, value: float) -> bool:
    limits = np.iinfo(dtype)
    return limits.min <= value <= limits.max


def _place_of(grid: Grid) -> str:
    a, b, c, d, e, f = grid.transform[:6]
    xs = [c, c + a * grid.width + b * grid.height]
    ys = [f, f + d * grid.width + e * grid.height]
    crs = "no CRS" if grid.crs is None else grid.crs.to_string()
    return f"x {min(xs):.6g} to {max(xs):.6g}, y {min(ys):.6g} to {max(ys):.6g} of {crs}"


__all__ = ["SAME_GRID_TOLERANCE", "Grid", "Resampling", "WarpedRaster", "overlap", "warp_to"]
