# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""From the files of a scene to batches of tiles, ready for the model. Runs in the reader thread.

The rows that the tiles at hand need are read once, from top to bottom. A frame's rows are kept in a ring, as they are
in the file: row r at place r modulo the ring's capacity, which is one tile and one block of the file. Reading goes by
whole blocks, so that none is decoded twice, and some of them at a time, so that what GDAL and the copy take does not
grow with the scene.

As many threads as the source is given decode parts of the files and prepare tiles. Nothing here computes with torch:
each thread that does gets a pool of threads of its own, which would take the cores from the model.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
import rasterio
import torch
from rasterio.session import DummySession
from transformers.utils import logging

from prithvi_hf.cores import CORES
from prithvi_hf.models.prithvi.bands_prithvi import SelectedBand
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.pixel_values_prithvi import Frame, find_nodata, read_frames, scale_and_normalize
from prithvi_hf.models.prithvi.processor_options_prithvi import ProcessorOptions
from prithvi_hf.models.prithvi.segmentation_map_prithvi import choose_color_bands
from prithvi_hf.outputs.quicklook import thumbnail_step
from prithvi_hf.rasters.raster import ArrayRaster, GeoTiffDecodeError, GeoTiffError, Raster, Window
from prithvi_hf.scenes.scene import Scene, scene_coordinates
from prithvi_hf.scenes.tiles import TilePlan


logger = logging.get_logger(__name__)

BadWindow: TypeAlias = tuple[str, Window]
"""Name of a file, and (row, column, height, width) in the scene, of pixels that could not be read."""
_T = TypeVar("_T")
_Each: TypeAlias = Callable[..., Iterator[Any]]  # `map`, or that of a pool of threads
_GDAL_CACHE_BYTES = 64 * 2**20  # a twentieth of the machine's memory otherwise
_BYTES_A_READ = 16 * 2**20  # of all threads together
_BYTES_OF_BLOCKS = 256 * 2**20
"""Blocks of a file side by side, of the bands in use, above which they are not kept whole. Files of one strip come
to it: a strip as high as the scene would be the scene in memory."""
_MASKED, _LOST = 1, 2  # flags of a pixel: no data by the frame's own mask; not read, or excluded by the frame
_MOST_WORKERS, _TILES_A_WORKER = 8, 8  # tiles of a row: small scenes start no threads
_TELLING_FRACTION = 0.25
"""Fraction of a tile's pixels with data above which its values tell the units of the scene."""


class SceneRows:
    """The rows of all frames that are at hand; `window_height` of them are needed at once."""

    def __init__(
        self,
        frames: Sequence[Raster],
        image_processor: PrithviImageProcessor,
        window_height: int,
        on_read_error: str,
        each: _Each = map,
        workers: int = 1,
    ) -> None:
        options = (window_height, on_read_error, each, workers)
        self._frames = [FrameRows(frame, image_processor, *options) for frame in frames]

    def read_to(self, top: int, stop: int) -> None:
        """Have the rows `top` to `stop` of every frame at hand; those above are given up."""
        for frame in self._frames:
            frame.read_to(top, stop)

    def cut(self, rows: range, columns: slice) -> tuple[ArrayRaster | tuple[ArrayRaster, ...], np.ndarray | None]:
        """Take pixels of every frame, which hold until the next rows are read.

        Returns:
            An image as the image processor takes it, and where the map has no data whatever the other frames hold,
            bool (height, width), or None for nowhere: a frame could not be read, or excludes the pixels.
        """
        rasters: list[ArrayRaster] = []
        lost: np.ndarray | None = None
        for frame in self._frames:
            raster, flags = frame.cut(rows, columns)
            rasters.append(raster)
            if flags is not None:
                lost = flags if lost is None else lost | flags
        return rasters[0] if len(rasters) == 1 else tuple(rasters), lost

    def find_bad_windows(self, start: int, stop: int) -> list[BadWindow]:
        """List what could not be read of the rows `start` to `stop`, cut to them, however the reading was divided."""
        found = set()
        for frame in self._frames:
            for name, (row, column, height, width) in frame.bad_windows:
                first, end = max(row, start), min(row + height, stop)
                if first < end:
                    found.add((name, (first, column, end - first, width)))
        return sorted(found)


class FrameRows:
    """The rows of one frame that are at hand. Arguments and methods are those of `SceneRows`.

    Attributes:
        bad_windows: What could not be read and reaches into the rows at hand.
    """

    def __init__(
        self,
        frame: Raster,
        image_processor: PrithviImageProcessor,
        window_height: int,
        on_read_error: str,
        each: _Each = map,
        workers: int = 1,
    ) -> None:
        self._each, self._bytes_a_read = each, _BYTES_A_READ // workers
        used = image_processor.find_bands(frame.descriptions, frame.count, frame.name)
        self._band_names = [SelectedBand(band) for band in image_processor.bands]
        self._band_names *= len(used) // len(self._band_names)  # a stack of dates
        self.frame, self._on_read_error = frame.select(bands=used), on_read_error
        count, self._height, self._width = self.frame.shape
        self._offset = self.frame.window[:2]
        self._pixel_bytes = count * np.dtype(frame.dtype).itemsize
        self._block = self.frame.block_shape
        rows = min(self._block[0], self._height)
        if rows > 1 and rows * self._width * self._pixel_bytes > _BYTES_OF_BLOCKS:
            logger.warning(
                f"{frame.name} has blocks of {self._block[0]:,} rows. Every row of tiles decodes them again, which is "
                "slow: write it in tiles first, for example `gdal_translate -co TILED=YES -co COMPRESS=DEFLATE`."
            )
            self._block = (1, self._width)
        self._capacity = min(self._height, window_height + self._block[0] - 1)
        self._values = np.empty((count, self._capacity, self._width), dtype=frame.dtype)
        self._flags = np.zeros((self._capacity, self._width), dtype=np.uint8)  # takes memory once one is set
        self._flagged = False
        self._stop = 0
        self.bad_windows: list[BadWindow] = []

    def read_to(self, top: int, stop: int) -> None:
        """Have rows at hand, see `SceneRows.read_to`."""
        self.bad_windows = [(name, bad) for name, bad in self.bad_windows if bad[0] + bad[2] > top]
        begin = max(self._stop, top)
        if begin >= stop:
            return
        # To the end of the block, which would be decoded a second time for the rows that are left.
        (height, width), (down, right) = self._block, self._offset
        _, self._stop = next(aligned_ranges(stop - 1, self._height, height, down))
        # Whole blocks, as many as a read may be large: over the full width, or side by side where that is too much.
        row_bytes = height * self._width * self._pixel_bytes
        columns = right + self._width
        if row_bytes > self._bytes_a_read:
            columns = width * max(1, self._bytes_a_read // (height * width * self._pixel_bytes))
        windows = [
            (row, left, end - row, border - left)
            for row, end in aligned_ranges(begin, self._stop, height * max(1, self._bytes_a_read // row_bytes), down)
            for left, border in aligned_ranges(0, self._width, columns, right)
        ]
        for _ in self._each(self._read, windows):  # parts do not overlap, and an error of one is raised here
            pass

    def _read(self, window: Window) -> None:
        """Read a window of the frame into the ring."""
        row, column, height, width = window
        excluded: np.ndarray | None = None
        if self._on_read_error == "nodata":
            values, mask, excluded, bad = read_blocks_or_nodata(self.frame, window)
        else:
            try:
                part, bad = self.frame.select(window=window), []
                values, mask = part.read(), part.read_nodata_mask()
                excluded = part.read_excluded()
            except GeoTiffError as error:
                place = f"rows {row} to {row + height - 1}, columns {column} to {column + width - 1}"
                raise type(error)(f"{error} The pixels that were read: {place}.") from error
        self.bad_windows += bad
        if mask is not None or excluded is not None or bad:
            self._flagged = True  # never taken back: other threads read at the same time
        flags = np.zeros((height, width), dtype=np.uint8)
        if mask is not None:
            flags[mask] = _MASKED
        if excluded is not None:
            flags[excluded] |= _LOST
        for _, (top, left, rows, columns) in bad:
            flags[top - row : top - row + rows, left - column : left - column + columns] |= _LOST
        for ring, part_rows in ring_parts(row, row + height, self._capacity):
            self._values[:, ring, column : column + width] = values[:, part_rows]
            if self._flagged:
                self._flags[ring, column : column + width] = flags[part_rows]

    def cut(self, rows: range, columns: slice) -> tuple[ArrayRaster, np.ndarray | None]:
        """Take pixels that are at hand, see `SceneRows.cut`: a copy only where they go round the end of the ring."""
        parts, flag_parts = [], []
        for ring, _ in ring_parts(rows.start, rows.stop, self._capacity):
            parts.append(self._values[:, ring, columns])
            flag_parts.append(self._flags[ring, columns])
        mask = lost = None
        if self._flagged:
            flags = np.concatenate(flag_parts)[:: rows.step]
            mask, lost = (flags & _MASKED) != 0, (flags & _LOST) != 0
        values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        raster = ArrayRaster(
            values[:, :: rows.step],
            name=self.frame.name,
            descriptions=self._band_names,
            nodata=self.frame.nodata,
            nodata_mask=mask,
        )
        return raster, lost


def ring_parts(start: int, stop: int, capacity: int) -> Iterator[tuple[slice, slice]]:
    """Find the rows `start` to `stop` in a ring of `capacity` rows, which they are at most, in one piece or two.

    Yields the rows in the ring, and the same rows counted from `start`.
    """
    first, count = start % capacity, stop - start
    head = min(count, capacity - first)
    yield slice(first, first + head), slice(0, head)
    if head < count:
        yield slice(0, count - head), slice(head, count)


def aligned_ranges(start: int, stop: int, step: int, offset: int) -> Iterator[tuple[int, int]]:
    """Divide the pixels `start` to `stop` along one side where blocks of `step` pixels of the file end.

    `offset` are the pixels of the file before pixel 0. Yields the first pixel and the one after the last of each part.
    """
    while start < stop:
        end = min(((start + offset) // step + 1) * step - offset, stop)
        yield start, end
        start = end


def read_blocks_or_nodata(
    frame: Raster, window: Window
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None, list[BadWindow]]:
    """Read a window of a frame; blocks that cannot be decoded become no data.

    Only damage inside a file counts. A file that has disappeared, cannot be opened or cannot be reached is an error,
    as it would take the rest of the scene with it. Gives the values (bands, height, width); bool (height, width) where
    there is no data by the frame's own mask and in damaged blocks, None for nowhere; the same where the map excludes
    pixels or it cannot be told; and the damaged parts of the window, with their files, in pixels of the frame.
    """
    row, column, height, width = window
    dtype, fill = np.dtype(frame.dtype), frame.nodata or 0
    if dtype.kind != "f":  # the mask tells in any case
        limits = np.iinfo(dtype)
        fill = int(fill) if float(fill).is_integer() and limits.min <= fill <= limits.max else 0
    values = np.full((frame.count, height, width), fill, dtype=dtype)
    mask, excluded = np.zeros((height, width), dtype=bool), np.zeros((height, width), dtype=bool)
    bad: list[BadWindow] = []
    pixels = _read_by_halves(frame, window, lambda part: (part.read(), part.read_nodata_mask()))
    for (top, left, rows, columns), found, file in pixels:
        place = np.s_[top - row : top - row + rows, left - column : left - column + columns]
        if found is None:
            mask[place] = True
            bad.append((file, (top, left, rows, columns)))
            continue
        values[(slice(None), *place)] = found[0]
        mask[place] = False if found[1] is None else found[1]
    if frame.excludes:
        parts = _read_by_halves(frame, window, lambda part: part.read_excluded())
        for (top, left, rows, columns), flags, file in parts:
            place = np.s_[top - row : top - row + rows, left - column : left - column + columns]
            excluded[place] = bool(file) if flags is None else flags
    return values, mask if mask.any() else None, excluded if excluded.any() else None, bad


def _read_by_halves(
    frame: Raster, window: Window, read: Callable[[Raster], _T]
) -> Iterator[tuple[Window, _T | None, str]]:
    """Read a window by halves where it is damaged, down to single blocks; of a bad one None and the file's name."""
    try:
        result, damage = read(frame.select(window=window)), None
    except GeoTiffDecodeError as error:
        result, damage = None, error
    if damage is None:
        yield window, result, ""
        return
    row, column, height, width = window
    (down, right), offset = frame.block_shape, frame.window[:2]
    if cut := _find_block_edge(row + offset[0], height, down):
        halves = [(row, column, cut, width), (row + cut, column, height - cut, width)]
    elif cut := _find_block_edge(column + offset[1], width, right):
        halves = [(row, column, height, cut), (row, column + cut, height, width - cut)]
    else:
        yield window, None, damage.file or frame.name
        return
    for half in halves:
        yield from _read_by_halves(frame, half, read)


def _find_block_edge(start: int, length: int, block: int) -> int:
    """Find the block edge nearest to the middle, counted from the start; 0 where none is inside."""
    first, last = start // block + 1, (start + length - 1) // block
    if first > last:
        return 0
    middle = round((start + length / 2) / block)
    return min(max(middle, first), last) * block - start


@dataclass
class TileBatch:
    """Tiles of one row of tiles."""

    row: int
    lefts: list[int]  # first column of each tile
    pixel_values: torch.Tensor  # (B, C, T, h, w) float32
    coordinates: dict[
        str, torch.Tensor
    ]  # `temporal_coords` (B, T, 2), `location_coords` (B, 2) where the model has them


@dataclass
class RowEnd:
    """What is known of a strip once its row of tiles was read."""

    row: int  # of tiles, the strip's index
    skipped: int  # tiles without any data, which are in no batch
    nodata: np.ndarray  # bool (h, W) of the strip, True = no data
    thumbnail: np.ndarray | None  # rows of the picture, see `Strip`
    bad_windows: list[BadWindow]
    frame_nodata: list[int]  # pixels of the strip in which each frame has no value at all
    seconds: float  # spent on reading and preparing
    band_sums: list[
        float
    ]  # number and sums, over the bands, of values that tell whether the scene is like the training


@dataclass
class TileSource:
    """Makes the batches of some strips."""

    scene: Scene
    image_processor: PrithviImageProcessor
    plan: TilePlan
    strips: range
    batch_size: int
    encoded: tuple[str, ...] = ()  # coordinates that the model takes, "time" and "location"
    on_read_error: str = "raise"
    thumbnail: bool = False  # whether to keep some rows for a picture of the scene
    pin_memory: bool = False  # for an accelerator
    # Threads that read and prepare tiles: all cores beside an accelerator, few beside a model that needs them itself.
    workers: int | None = None
    _options: ProcessorOptions = field(init=False)
    units_checked: bool = field(default=False, init=False)  # whether a tile has told the units of the scene

    def __iter__(self) -> Iterator[TileBatch | RowEnd]:
        """Read from top to bottom: the batches of a row of tiles, then its end, and so on."""
        plan, (height, width) = self.plan, self.plan.window
        self._options = self.image_processor.checked_options()
        # The pool starts threads when it is first asked for something.
        cores = CORES if self.pin_memory else CORES // 4
        workers = self.workers or max(1, min(cores, len(plan.lefts) // _TILES_A_WORKER, _MOST_WORKERS))
        pool = ThreadPoolExecutor(workers, thread_name_prefix="scene reader")
        each: _Each = map if workers == 1 else pool.map
        with rasterio.Env(session=DummySession(), GDAL_CACHEMAX=_GDAL_CACHE_BYTES), pool:
            rows = SceneRows(self.scene.frames, self.image_processor, height, self.on_read_error, each, workers)
            for row in plan.tile_rows_for(self.strips):
                clock, seconds, skipped = time.perf_counter(), 0.0, 0
                nodata = np.empty((height, plan.width), dtype=bool)
                absent = np.zeros((self.image_processor.num_frames, height, plan.width), dtype=bool)
                rows.read_to(plan.tops[row], plan.tops[row] + height)
                prepare = partial(self._prepare, rows, plan.tops[row])
                start, stop = plan.strip(row)
                band_sums = np.zeros(1 + len(self._options.bands))
                ready: list[tuple[int, list[Frame], list[np.ndarray | None]]] = []
                for first in range(0, len(plan.lefts), self.batch_size):  # no more than a batch ahead
                    lefts = plan.lefts[first : first + self.batch_size]
                    for left, tile in zip(lefts, each(prepare, lefts), strict=True):
                        frames, missing, nodata[:, left : left + width], absent[:, :, left : left + width] = tile
                        if frames is None:
                            skipped += 1
                        else:
                            ready.append((left, frames, missing))
                        if ready and (len(ready) == self.batch_size or left == plan.lefts[-1]):
                            batch, ready = self._collate(row, ready, each), []
                            if self._options.training_statistics:
                                band_sums += self._sum_bands(batch, nodata, stop - start)
                            seconds += time.perf_counter() - clock
                            yield batch
                            clock = time.perf_counter()  # it stood still while the batch waited
                # A copy: the rows below, which are not final, would stay in memory with a view.
                final = nodata[: stop - start].copy()
                frame_nodata = np.count_nonzero(absent[:, : stop - start], axis=(1, 2)).tolist()
                thumbnail = self._read_thumbnail(rows, start, stop) if self.thumbnail else None
                bad_windows = rows.find_bad_windows(start, stop)
                seconds += time.perf_counter() - clock
                found = (thumbnail, bad_windows, frame_nodata, seconds, band_sums.tolist())
                yield RowEnd(row, skipped, final, *found)

    def _sum_bands(self, batch: TileBatch, nodata: np.ndarray, height: int) -> np.ndarray:
        """Count and sum, over the bands, what the tiles of a batch have to themselves: pixels with data, one of 16.

        `nodata` (h, W) is of the row of tiles, of which `height` rows are in no later one.
        """
        sums, ends = np.zeros(1 + len(self._options.bands)), [*self.plan.lefts[1:], self.plan.width]
        for left, values in zip(batch.lefts, batch.pixel_values, strict=True):
            end = ends[self.plan.lefts.index(left)]
            valid = ~nodata[:height:4, left:end:4]
            part = self.image_processor.restore_frame_order(values[..., :height:4, : end - left : 4]).numpy()
            sums[0] += np.count_nonzero(valid) * part.shape[1]
            sums[1:] += part[:, :, valid].sum(axis=(1, 2), dtype=np.float64)
        return sums

    def _prepare(
        self, rows: SceneRows, top: int, left: int
    ) -> tuple[list[Frame] | None, list[np.ndarray | None], np.ndarray, np.ndarray]:
        """Find what is missing of a tile.

        Returns:
            Its frames, None without any data; missing values of each; nodata (h, w); and where each frame has no
            value, (T, h, w) or (T, 1, 1).
        """
        height, width = self.plan.window
        image, lost = rows.cut(range(top, top + height), slice(left, left + width))
        name = f"{self.scene.name}, rows {top} to {top + height - 1}, columns {left} to {left + width - 1}"
        frames = read_frames(image, self._options, name)
        missing, nodata = find_nodata(frames, self._options)
        absent = np.zeros((len(frames), 1, 1), dtype=bool)
        if any(where is not None for where in missing):
            absent = np.zeros((len(frames), height, width), dtype=bool)
            for flags, where in zip(absent, missing, strict=True):
                if where is not None:
                    where.all(axis=0, out=flags)
        if lost is not None:
            nodata = nodata | lost
        if nodata.all():
            return None, missing, nodata, absent
        # The first tile that is not nearly empty, of no data or of zeros, tells the units as well as all of them.
        if not self.units_checked and nodata.mean() < 1 - _TELLING_FRACTION:
            filled = max(np.count_nonzero(frame.values) / frame.values.size for frame in frames)
            if filled > _TELLING_FRACTION:
                self.units_checked = True
                self.image_processor.check_units(frames, missing, name)
        return frames, missing, nodata, absent

    def _collate(
        self, row: int, tiles: list[tuple[int, list[Frame], list[np.ndarray | None]]], each: _Each
    ) -> TileBatch:
        """Make a batch of tiles: first column, frames and missing values of each. They are normalised in place."""
        lefts, frames, missing = zip(*tiles, strict=True)
        shape = (len(tiles), len(self._options.bands), len(frames[0]), *self.plan.window)
        # On the CPU by numpy: torch's aligned memory would leave holes of tens of MB in the heap of this thread.
        if self.pin_memory:
            pixel_values = torch.empty(shape, dtype=torch.float32, pin_memory=True)
        else:
            pixel_values = torch.from_numpy(np.empty(shape, dtype=np.float32))
        for _ in each(scale_and_normalize, frames, missing, [self._options] * len(tiles), pixel_values.numpy()):
            pass
        coordinates: dict[str, torch.Tensor] = {}
        if self.encoded:  # of the middle of each tile
            windows = [(self.plan.tops[row], left, *self.plan.window) for left in lefts]
            order = self.encoded, self.image_processor.first_day_of_year, self.image_processor.num_frames
            places = [scene_coordinates(self.scene, window, *order) for window in windows]
            for name in places[0]:
                values = np.stack([np.asarray(place[name], dtype=np.float32) for place in places])
                coordinates[name] = torch.from_numpy(values)
        return TileBatch(row, list(lefts), pixel_values, coordinates)

    def _read_thumbnail(self, rows: SceneRows, start: int, stop: int) -> np.ndarray:
        """Read the rows and columns of a strip that are part of the small picture of the scene."""
        colors, _ = choose_color_bands(self.image_processor.bands)
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
