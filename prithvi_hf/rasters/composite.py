# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Several frames of one grid as one: the median of their clear values, or the clearest date of each pixel."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import rasterio.transform
from rasterio.warp import transform_bounds

from prithvi_hf.models.prithvi.pixel_values_prithvi import equals_nodata, list_nodata
from prithvi_hf.rasters.derived import take_header
from prithvi_hf.rasters.raster import GDAL_ERRORS, Raster, Window
from prithvi_hf.rasters.warping import SAME_GRID_TOLERANCE, Grid


Method = Literal["median", "clearest"]
METHODS: tuple[Method, ...] = ("median", "clearest")

_BLOCK = 512
_BLOCK_BYTES = 64 * 2**20  # of the values of all frames that are composed at once
_MOST_EMPTY = 20  # times the area of all frames, that a common grid may have


class CompositeRaster(Raster):
    """One frame made of several of one grid; what is clear there is told pixel by pixel.

    A pixel of a frame is clear where its mask does not say otherwise and not every band lacks a value.

    Args:
        frames: float32 rasters with NaN for nodata, of the same bands on the same grid.
        method: "median": in each band the median of the clear values, of an even number the mean of the middle two;
            "clearest": all bands of one frame, of those that are clear there the one that is clear at most pixels of
            the grid, and of equal ones the first.
        name: what messages call it.

    Raises:
        ValueError: no frames, frames of different size or bands, or another method.
    """

    def __init__(self, frames: Sequence[Raster], method: Method, name: str) -> None:
        if method not in METHODS:
            raise ValueError(f"method: expected one of {', '.join(METHODS)}, found {method!r}.")
        if not frames or len({frame.shape for frame in frames}) > 1:
            raise ValueError(
                f"{name}: expected frames of one grid and the same bands, found "
                f"{', '.join(str(frame.shape) for frame in frames) or 'none'}."
            )
        super().__init__(
            **{
                **take_header(frames[0]),
                "name": name,
                "path": None,
                "dtype": "float32",
                "nodata": math.nan,
                "block_shape": (_BLOCK, _BLOCK),
            }
        )
        self.method = method
        self._frames = tuple(frames)
        self._order: tuple[int, ...] | None = tuple(range(len(frames))) if method == "median" else None

    @property
    def sources(self) -> tuple[Raster, ...]:
        """The frames."""
        return self._frames

    @property
    def provenance(self) -> dict[str, Any]:
        """How the frames become one."""
        return {"method": self.method}

    def compose(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Compose a window of the whole, all bands: which date is clear does not depend on those that are asked for.

        Returns:
            Values, float32 (bands, height, width) with NaN where no frame is clear, and the number of clear frames,
            int16 (height, width).
        """
        chosen = tuple(range(self._frames[0].count))
        counts = np.zeros(window[2:], dtype=np.int16)
        stack = np.full((len(self._frames), len(chosen), *window[2:]), np.nan, dtype=np.float32)
        for target, frame in zip(stack, (self._frames[index] for index in self._rank()), strict=True):
            clear, values = _read_clear(frame, chosen, window)
            np.copyto(target, values, where=clear)
            counts += clear
        if self.method == "clearest":
            result = stack[0]
            filled = ~np.isnan(result).all(axis=0)
            for values in stack[1:]:
                wanted = ~filled & ~np.isnan(values).all(axis=0)
                np.copyto(result, values, where=wanted)
                filled |= wanted
            return result, counts
        stack.sort(axis=0)  # NaN comes last
        known = (~np.isnan(stack)).sum(axis=0)[None]
        low, high = np.maximum(known - 1, 0) // 2, known // 2
        high = np.minimum(high, len(stack) - 1)
        middle = np.take_along_axis(stack, low, axis=0) + np.take_along_axis(stack, high, axis=0)
        return (middle / 2)[0].astype(np.float32), counts

    def _rank(self) -> tuple[int, ...]:
        """Rank the frames by the number of their clear pixels on the whole grid, which are counted once."""
        if self._order is None:
            size = (0, 0, *self._frames[0].shape[-2:])
            clear = [
                sum(int(_read_clear(frame, (0,), window)[0].sum()) for window in cut_windows(size, 1))
                if len(self._frames) > 1
                else 0
                for frame in self._frames
            ]
            self._order = tuple(sorted(range(len(clear)), key=lambda index: (-clear[index], index)))
        return self._order

    def _read(self, bands: tuple[int, ...], window: Window) -> np.ndarray:
        return self.compose(window)[0][list(bands)]

    def _read_mask(self, bands: tuple[int, ...], window: Window) -> np.ndarray | None:
        return None  # what is missing is NaN


def _read_clear(frame: Raster, bands: Sequence[int], window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Read where a frame is clear, (height, width), and its values in some bands."""
    values = frame.read(bands, window)
    mask, missing = frame.read_nodata_mask(window), equals_nodata(values, list_nodata(frame.nodata, ()))
    clear = np.ones(window[2:], dtype=bool) if mask is None else ~mask
    if missing is not None:
        clear &= ~missing.all(axis=0)
        values = np.where(missing, np.nan, values)
    return clear, values


def cut_windows(window: Window, depth: int) -> Iterator[Window]:
    """Cut a window into strips of 512 rows, and these into parts that fit into memory.

    Args:
        window: what is cut.
        depth: values of each pixel, of 4 bytes.
    """
    top, left, height, width = window
    step = max(_BLOCK, _BLOCK_BYTES // (4 * max(1, depth) * _BLOCK) // _BLOCK * _BLOCK)
    for row in range(0, height, _BLOCK):
        for column in range(0, width, step):
            yield top + row, left + column, min(_BLOCK, height - row), min(step, width - column)


def find_common_grid(rasters: Sequence[Raster]) -> Grid:
    """Find the grid that covers several rasters, in the CRS and the pixels of the first one.

    Raises:
        ValueError: rasters without a CRS on grids of their own, or so far apart that hardly anything would be covered.
    """
    first, base = rasters[0], Grid.of(rasters[0])
    others = [Grid.of(raster) for raster in rasters]
    if all(base.is_same_as(grid) for grid in others):
        return base
    rows, columns = [0.0, float(base.height)], [0.0, float(base.width)]
    for raster, grid in zip(rasters, others, strict=True):
        if grid.crs is None or base.crs is None or base.transform.b or base.transform.d:
            raise ValueError(
                f"{raster.name}: expected frames with a CRS on grids that are not turned, or all on the grid of "
                f"{first.name}, found others. Warp them with gdalwarp first."
            )
        bounds = grid.bounds
        if grid.crs != base.crs:
            try:
                bounds = transform_bounds(grid.crs, base.crs, *bounds)
            except GDAL_ERRORS as error:
                raise ValueError(
                    f"{raster.name}: expected a CRS that can be converted into that of {first.name}, found {grid.crs} "
                    f"({error}). Warp the file with gdalwarp first."
                ) from error
        left, bottom, right, top = bounds
        found = rasterio.transform.rowcol(base.transform, [left, right], [top, bottom], op=np.asarray)
        rows += map(float, found[0])
        columns += map(float, found[1])
    if not all(map(math.isfinite, (*rows, *columns))):
        raise ValueError(f"{first.name}: expected frames of one place, found some that are out of its CRS.")
    start = [math.floor(min(one) + SAME_GRID_TOLERANCE) for one in (rows, columns)]
    end = [math.ceil(max(one) - SAME_GRID_TOLERANCE) for one in (rows, columns)]
    height, width = end[0] - start[0], end[1] - start[1]
    covered = sum(math.prod(grid.size) * math.prod(grid.pixel_size) for grid in others if grid.crs == base.crs)
    area = height * width * math.prod(base.pixel_size)
    if covered and area > _MOST_EMPTY * max(covered, math.prod(base.size) * math.prod(base.pixel_size)):
        raise ValueError(
            f"{first.name}: expected frames of one place, found some so far apart that less than "
            f"1/{_MOST_EMPTY} of the area would be covered. Compose each place by itself."
        )
    return base.cut((start[0], start[1], height, width))
