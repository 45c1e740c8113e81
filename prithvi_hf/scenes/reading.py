# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""From the rows of a scene to batches of tiles, ready for the model. Runs in the reader thread.

Nothing here computes with torch: each thread that does gets a pool of threads of its own, which would take the cores
from the model.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.session import DummySession

from prithvi_hf.models.prithvi.pixel_values_prithvi import Frame, scale_and_normalize
from prithvi_hf.outputs.quicklook import (
    find_colors,
    natural_values,
    thumbnail_rows,
    thumbnail_step,
)
from prithvi_hf.scenes.rows import BadWindow, SceneRows
from prithvi_hf.scenes.scene import scene_coordinates
from prithvi_hf.scenes.tiles import TilePlan


_GDAL_CACHE_BYTES = 64 * 2**20  # a twentieth of the machine's memory otherwise
_Tile = tuple[np.ndarray | None, np.ndarray, list[np.ndarray | None]]
_Map = Callable[..., Iterator[Any]]
_TELLING_SHARE = 0.25
"""Share of a tile's pixels with data above which its values tell the units of the scene."""


@dataclass
class TileBatch:
    """Tiles of one row of tiles.

    Attributes:
        row: Row of tiles.
        lefts: First column of each tile.
        pixel_values: (B, C, T, h, w) float32.
        coordinates: Further arguments of the model, `temporal_coords` (B, T, 2) and `location_coords` (B, 2) where it
            takes them.
    """

    row: int
    lefts: list[int]
    pixel_values: torch.Tensor
    coordinates: dict[str, torch.Tensor]


@dataclass
class RowEnd:
    """What is known of a strip once its row of tiles was read.

    Attributes:
        row: Row of tiles, the strip's index.
        skipped: Number of tiles without any data, which are in no batch.
        nodata: bool (h, W) of the strip, True = no data.
        thumbnail: (3, h', W') float32, see `thumbnails.natural_values`; None where the model has no such bands.
        bad_windows: What could not be read among the strip's rows.
        frame_nodata: Pixels of the strip in which each frame has no value at all.
        seconds: Spent on reading and preparing.
    """

    row: int
    skipped: int
    nodata: np.ndarray
    thumbnail: np.ndarray | None
    bad_windows: list[BadWindow]
    frame_nodata: list[int]
    seconds: float = 0.0


@dataclass
class TileSource:
    """Makes the batches of some strips.

    Args:
        scene: The scene.
        image_processor: The model's image processor.
        plan: Where the tiles lie.
        strips: Which strips to make tiles for.
        batch_size: Tiles of a batch, at most.
        encoded: Coordinates that the model takes, "time" and "location".
        on_read_error: "raise" or "nodata".
        pin_memory: Whether batches shall lie in pinned memory, for an accelerator.
        workers: Threads that prepare tiles. More than one pays where the model does not need the cores.
    """

    scene: Any
    image_processor: Any
    plan: TilePlan
    strips: range
    batch_size: int
    encoded: tuple[str, ...] = ()
    on_read_error: str = "raise"
    pin_memory: bool = False
    workers: int = 1
    _units_checked: bool = field(default=False, init=False)

    def __iter__(self) -> Iterator[TileBatch | RowEnd]:
        """Read from top to bottom: the batches of a row of tiles, then its end, and so on."""
        # The pool starts threads when it is first asked for something.
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="scene reader")
        with rasterio.Env(session=DummySession(), GDAL_CACHEMAX=_GDAL_CACHE_BYTES), pool:
            rows = SceneRows(self.scene, self.image_processor, self.plan.window[0], self.on_read_error)
            for row in self.plan.tile_rows_for(self.strips):
                yield from self._one_row(rows, row, map if self.workers == 1 else pool.map)

    def _one_row(self, rows: SceneRows, row: int, apply: _Map) -> Iterator[TileBatch | RowEnd]:
        height, width = self.plan.window
        clock = time.perf_counter()
        busy, skipped = 0.0, 0
        nodata = np.empty((height, self.plan.width), dtype=bool)
        empty = np.zeros((self.image_processor.num_frames, *nodata.shape), dtype=bool)
        rows.read_to(self.plan.tops[row], self.plan.tops[row] + height)
        batch: list[tuple[int, np.ndarray]] = []
        for left, (values, missing, absent) in self._tiles(rows, row, apply):
            nodata[:, left : left + width] = missing
            for frame, flags in zip(empty, absent, strict=True):
                frame[:, left : left + width] = False if flags is None else flags
            skipped += values is None
            batch += [] if values is None else [(left, values)]
            if batch and (len(batch) == self.batch_size or left == self.plan.lefts[-1]):
                made, batch = self._as_batch(row, batch), []
                busy += time.perf_counter() - clock
                yield made  # the clock stands still while this one waits
                clock = time.perf_counter()
        end = self._row_end(rows, row, skipped, nodata, empty)
        end.seconds = busy + time.perf_counter() - clock
        yield end

    def _tiles(self, rows: SceneRows, row: int, apply: _Map) -> Iterator[tuple[int, _Tile]]:
        """The tiles of a row by their first columns, prepared no more than a batch ahead."""
        for first in range(0, len(self.plan.lefts), self.batch_size):
            lefts = self.plan.lefts[first : first + self.batch_size]
            yield from zip(lefts, apply(partial(self._tile, rows, row), lefts), strict=True)

    def _tile(self, rows: SceneRows, row: int, left: int) -> _Tile:
        """Pixel values (C, T, h, w), None without any data, nodata (h, w), and where each frame has no value."""
        top, (height, width) = self.plan.tops[row], self.plan.window
        image, bad = rows.cut(range(top, top + height), slice(left, left + width))
        name = f"{self.scene.name}, rows {top} to {top + height - 1}, columns {left} to {left + width - 1}"
        frames, missing, nodata = self.image_processor.read_frames(image, name)
        nodata = nodata if bad is None else nodata | bad
        absent = [None if where is None else where.all(axis=0) for where in missing]
        if all(where is not None for where in absent):
            # Infinite values are not nodata by the processor's rule, but of nothing else no class can be told.
            nodata = nodata | np.logical_and.reduce(absent)
        if nodata.all():
            return None, nodata, absent
        self._check_units(frames, missing, nodata, name)
        processor = self.image_processor
        return scale_and_normalize(frames, missing, processor.checked_options()), nodata, absent

    def _check_units(self, frames: list[Frame], missing: list[Any], nodata: np.ndarray, name: str) -> None:
        """Let the processor judge the first tile that is not nearly empty: one tile tells as much as all."""
        if not self._units_checked and nodata.mean() < 1 - _TELLING_SHARE:
            filled = any(np.count_nonzero(frame.values) > _TELLING_SHARE * frame.values.size for frame in frames)
            if filled:
                self._units_checked = True
                self.image_processor.check_units(frames, missing, name)

    def _as_batch(self, row: int, tiles: list[tuple[int, np.ndarray]]) -> TileBatch:
        lefts = [left for left, _ in tiles]
        pixel_values = torch.from_numpy(np.stack([values for _, values in tiles]))
        if self.pin_memory:
            pixel_values = pixel_values.pin_memory()
        return TileBatch(row, lefts, pixel_values, self._coordinates(row, lefts))

    def _coordinates(self, row: int, lefts: list[int]) -> dict[str, torch.Tensor]:
        """What the model takes beside pixels, of the middle of each tile."""
        if not self.encoded:
            return {}
        windows = [(self.plan.tops[row], left, *self.plan.window) for left in lefts]
        return _stack([scene_coordinates(self.scene, window, self.encoded) for window in windows])

    def _row_end(self, rows: SceneRows, row: int, skipped: int, nodata: np.ndarray, empty: np.ndarray) -> RowEnd:
        start, stop = self.plan.strip(row)
        thumbnail, bad = self._thumbnail(rows, start, stop), rows.bad_windows(start, stop)
        # A copy: the rows below, which are not final, would stay in memory with a view.
        final = nodata[: stop - start].copy()
        return RowEnd(row, skipped, final, thumbnail, bad, [int(frame[: stop - start].sum()) for frame in empty])

    def _thumbnail(self, rows: SceneRows, start: int, stop: int) -> np.ndarray | None:
        colors = find_colors(self.image_processor.bands)
        if colors is None:
            return None
        step = thumbnail_step(self.plan.height, self.plan.width)
        chosen = thumbnail_rows(start, stop, step)
        if not chosen:
            return np.empty((len(colors), 0, -(-self.plan.width // step)), dtype=np.float32)
        image, bad = rows.cut(chosen, slice(None, None, step))
        return natural_values(image, self.image_processor, colors, bad)


def _stack(coordinates: list[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """One tensor an argument, from those of each tile."""
    return {
        name: torch.from_numpy(np.stack([np.asarray(one[name], dtype=np.float32) for one in coordinates]))
        for name in coordinates[0]
    }


__all__ = ["RowEnd", "TileBatch", "TileSource"]
