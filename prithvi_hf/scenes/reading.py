# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""From the rows of a scene to batches of tiles, ready for the model. Runs in the reader thread.

Nothing here computes with torch: each thread that does gets a pool of threads of its own, which would take the cores
from the model.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import rasterio
import torch
from rasterio.session import DummySession

from prithvi_hf.models.prithvi.bands_prithvi import find_band_names
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.pixel_values_prithvi import scale_and_normalize
from prithvi_hf.models.prithvi.segmentation_map_prithvi import COLOR_BANDS
from prithvi_hf.outputs.quicklook import thumbnail_step
from prithvi_hf.scenes.rows import BadWindow, SceneRows
from prithvi_hf.scenes.scene import Scene, scene_coordinates
from prithvi_hf.scenes.tiles import TilePlan


_GDAL_CACHE_BYTES = 64 * 2**20  # a twentieth of the machine's memory otherwise
_TELLING_FRACTION = 0.25
"""Fraction of a tile's pixels with data above which its values tell the units of the scene."""


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
        thumbnail: (3, h', W') float32 red, green and blue of the last date in the units of the file, NaN where there
            is no data; None where the model has no such bands, or it was not asked for.
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
    seconds: float


@dataclass
class TileSource:
    """Makes the batches of some strips.

    Args:
        scene: The scene.
        image_processor: The model's image processor.
        plan: Where the tiles are.
        strips: Which strips to make tiles for.
        batch_size: Tiles of a batch, at most.
        encoded: Coordinates that the model takes, "time" and "location".
        on_read_error: "raise" or "nodata".
        thumbnail: Whether to keep some rows for a picture of the scene.
        pin_memory: Whether batches are to be in pinned memory, for an accelerator.
        workers: Threads that prepare tiles. More than one pays where the model does not need the cores.
    """

    scene: Scene
    image_processor: PrithviImageProcessor
    plan: TilePlan
    strips: range
    batch_size: int
    encoded: tuple[str, ...] = ()
    on_read_error: str = "raise"
    thumbnail: bool = False
    pin_memory: bool = False
    workers: int = 1
    _units_checked: bool = field(default=False, init=False)

    def __iter__(self) -> Iterator[TileBatch | RowEnd]:
        """Read from top to bottom: the batches of a row of tiles, then its end, and so on."""
        plan, (height, width) = self.plan, self.plan.window
        # The pool starts threads when it is first asked for something.
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="scene reader")
        with rasterio.Env(session=DummySession(), GDAL_CACHEMAX=_GDAL_CACHE_BYTES), pool:
            rows = SceneRows(self.scene.frames, self.image_processor, height, self.on_read_error)
            for row in plan.tile_rows_for(self.strips):
                clock, seconds, skipped = time.perf_counter(), 0.0, 0
                nodata = np.empty((height, plan.width), dtype=bool)
                absent = np.zeros((self.image_processor.num_frames, height, plan.width), dtype=bool)
                rows.read_to(plan.tops[row], plan.tops[row] + height)
                prepare = partial(self._prepare, rows, plan.tops[row])
                ready: list[tuple[int, np.ndarray]] = []
                for first in range(0, len(plan.lefts), self.batch_size):  # prepared no more than a batch ahead
                    lefts = plan.lefts[first : first + self.batch_size]
                    tiles = map(prepare, lefts) if self.workers == 1 else pool.map(prepare, lefts)
                    for left, (values, tile_nodata, tile_absent) in zip(lefts, tiles, strict=True):
                        nodata[:, left : left + width] = tile_nodata
                        absent[:, :, left : left + width] = tile_absent
                        if values is None:
                            skipped += 1
                        else:
                            ready.append((left, values))
                        if ready and (len(ready) == self.batch_size or left == plan.lefts[-1]):
                            batch, ready = self._collate(row, ready), []
                            seconds += time.perf_counter() - clock
                            yield batch
                            clock = time.perf_counter()  # it stood still while the batch waited
                start, stop = plan.strip(row)
                # A copy: the rows below, which are not final, would stay in memory with a view.
                final = nodata[: stop - start].copy()
                frame_nodata = absent[:, : stop - start].sum(axis=(1, 2)).tolist()
                thumbnail = self._read_thumbnail(rows, start, stop) if self.thumbnail else None
                bad_windows = rows.find_bad_windows(start, stop)
                seconds += time.perf_counter() - clock
                yield RowEnd(row, skipped, final, thumbnail, bad_windows, frame_nodata, seconds)

    def _prepare(self, rows: SceneRows, top: int, left: int) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
        """Prepare a tile.

        Returns:
            Pixel values (C, T, h, w), None without any data; nodata (h, w); and where each frame has no value,
            (T, h, w) or (T, 1, 1).
        """
        processor, (height, width) = self.image_processor, self.plan.window
        image, lost = rows.cut(range(top, top + height), slice(left, left + width))
        name = f"{self.scene.name}, rows {top} to {top + height - 1}, columns {left} to {left + width - 1}"
        frames, missing, nodata = processor.read_frames(image, name)
        absent = np.zeros((len(frames), 1, 1), dtype=bool)
        if any(where is not None for where in missing):
            absent = np.zeros((len(frames), height, width), dtype=bool)
            for flags, where in zip(absent, missing, strict=True):
                if where is not None:
                    where.all(axis=0, out=flags)
            # Infinite values are not nodata by the processor's rule, but of nothing else no class can be told.
            nodata = nodata | absent.all(axis=0)
        if lost is not None:
            nodata = nodata | lost
        if nodata.all():
            return None, nodata, absent
        # The first tile that is not nearly empty, of no data or of zeros, tells the units as well as all of them.
        if not self._units_checked and nodata.mean() < 1 - _TELLING_FRACTION:
            filled = max(np.count_nonzero(frame.values) / frame.values.size for frame in frames)
            if filled > _TELLING_FRACTION:
                self._units_checked = True
                processor.check_units(frames, missing, name)
        return scale_and_normalize(frames, missing, processor.checked_options()), nodata, absent

    def _collate(self, row: int, tiles: list[tuple[int, np.ndarray]]) -> TileBatch:
        """Make a batch of tiles, by their first columns."""
        lefts = [left for left, _ in tiles]
        pixel_values = torch.from_numpy(np.stack([values for _, values in tiles]))
        if self.pin_memory:
            pixel_values = pixel_values.pin_memory()
        coordinates: dict[str, torch.Tensor] = {}
        if self.encoded:  # of the middle of each tile
            windows = [(self.plan.tops[row], left, *self.plan.window) for left in lefts]
            places = [scene_coordinates(self.scene, window, self.encoded) for window in windows]
            for name in places[0]:
                values = np.stack([np.asarray(place[name], dtype=np.float32) for place in places])
                coordinates[name] = torch.from_numpy(values)
        return TileBatch(row, lefts, pixel_values, coordinates)

    def _read_thumbnail(self, rows: SceneRows, start: int, stop: int) -> np.ndarray | None:
        """Read the rows and columns of a strip that are part of the small picture of the scene."""
        found = find_band_names(COLOR_BANDS, self.image_processor.bands)
        colors = [index for index in found if index is not None]
        if len(colors) < len(found):
            return None
        step = thumbnail_step(self.plan.height, self.plan.width)
        chosen = range(-(-start // step) * step, stop, step)
        if not chosen:
            return np.empty((3, 0, -(-self.plan.width // step)), dtype=np.float32)
        image, lost = rows.cut(chosen, slice(None, None, step))
        frames, missing, nodata = self.image_processor.read_frames(image)
        values = frames[-1].values[colors].astype(np.float32)
        if missing[-1] is not None:
            values[missing[-1][colors]] = np.nan
        values[:, nodata if lost is None else nodata | lost] = np.nan
        return values
