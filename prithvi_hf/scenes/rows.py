# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The rows of a scene that the tiles at hand need, read from its files once, from top to bottom.

A frame's rows are kept in a ring, as they lie in the file: row r at place r modulo the ring's capacity, which is one
tile and one block of the file. Reading goes by whole blocks, so that none is decoded twice, and some of them at a
time, so that what GDAL and the copy take does not grow with the scene.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from transformers.utils import logging

from prithvi_hf.rasters.raster import ArrayRaster, GeoTiffDecodeError, GeoTiffError, Window, union


BadWindow = tuple[str, Window]
"""Name of a file, and (row, column, height, width) in the scene, of pixels that could not be read."""


def read_blocks_or_nodata(frame: Any, window: Window) -> tuple[np.ndarray, np.ndarray | None, list[BadWindow]]:
    """Reads a window of a frame; blocks that cannot be decoded become no data.

    Only damage inside a file counts. A file that has disappeared, cannot be opened or cannot be reached is an error,
    as it would take the rest of the scene with it.

    Args:
        frame: the frame.
        window: (row offset, column offset, height, width) in the frame.

    Returns:
        The values (bands, height, width); where there is no data by the frame's own mask and in damaged blocks, bool
        (height, width), or None where nothing says so; and the damaged parts of the window: the file that cannot be
        read there, and the part in pixels of the frame.

    Raises:
        GeoTiffError: a file cannot be opened.
    """
    part = frame.select(window=window)
    try:
        return part.read(), part.read_nodata_mask(), []
    except GeoTiffDecodeError:
        values = np.full(part.shape, _fill_value(frame), dtype=frame.dtype)
        mask = np.ones(part.shape[-2:], dtype=bool)
        bad: list[BadWindow] = []
        for half in _halves(frame, window):
            _read_into(values, mask, bad, frame, half, window)
        return values, mask, bad


def read_excluded_blocks(frame: Any, window: Window) -> np.ndarray | None:
    """Reads which pixels of a window the map excludes, see `DerivedRaster.read_excluded`.

    Args:
        frame: the frame.
        window: (row offset, column offset, height, width) in the frame.

    Returns:
        bool (height, width), True also in blocks that cannot be decoded; None where nothing can be excluded.

    Raises:
        GeoTiffError: a file cannot be opened.
    """
    try:
        return frame.select(window=window).read_excluded()
    except GeoTiffDecodeError:
        flags, halves = np.ones(window[2:], dtype=bool), _halves(frame, window)
        for half in halves if len(halves) > 1 else ():
            top, left = half[0] - window[0], half[1] - window[1]
            flags[top : top + half[2], left : left + half[3]] = read_excluded_blocks(frame, half)
        return flags


def _read_into(
    values: np.ndarray, mask: np.ndarray, bad: list[BadWindow], frame: Any, window: Window, whole: Window
) -> None:
    """Reads a part of a window, by halves where it is damaged, down to single blocks."""
    part = frame.select(window=window)
    top, left = window[0] - whole[0], window[1] - whole[1]
    place = (slice(top, top + window[2]), slice(left, left + window[3]))
    try:
        pixels, own = part.read(), part.read_nodata_mask()
    except GeoTiffDecodeError as error:
        halves = _halves(frame, window)
        if len(halves) == 1:
            bad.append((error.file or frame.name, window))
            return
        for half in halves:
            _read_into(values, mask, bad, frame, half, whole)
        return
    values[(slice(None), *place)] = pixels
    mask[place] = False if own is None else own


def _halves(frame: Any, window: Window) -> list[Window]:
    """Two parts of a window that share no block of the file, or the window itself where it lies in one block."""
    row, column, height, width = window
    down, right = getattr(frame, "block_shape", (1, frame.width))
    offset = getattr(frame, "window", (0, 0))
    cut = _block_cut(row + offset[0], height, down)
    if cut:
        return [(row, column, cut, width), (row + cut, column, height - cut, width)]
    cut = _block_cut(column + offset[1], width, right)
    if cut:
        return [(row, column, height, cut), (row, column + cut, height, width - cut)]
    return [window]


def _block_cut(start: int, length: int, block: int) -> int:
    """Where the block edge nearest to the middle lies, from the start; 0 where none lies inside."""
    first, last = start // block + 1, (start + length - 1) // block
    if first > last:
        return 0
    middle = round((start + length / 2) / block)
    return min(max(middle, first), last) * block - start


def _fill_value(frame: Any) -> float:
    """The nodata value where pixels can hold it; the mask tells in any case."""
    dtype, nodata = np.dtype(frame.dtype), frame.nodata
    if nodata is None or dtype.kind == "f":
        return 0 if nodata is None else nodata
    limits = np.iinfo(dtype)
    return int(nodata) if float(nodata).is_integer() and limits.min <= nodata <= limits.max else 0


logger = logging.get_logger(__name__)

_BYTES_A_READ = 16 * 2**20
_BYTES_OF_BLOCKS = 256 * 2**20
"""Blocks of a file side by side, of the bands in use, above which they are not kept whole. Files of one strip come
to it: a strip as high as the scene would be the scene in memory."""


def ring_parts(start: int, stop: int, capacity: int) -> Iterator[tuple[slice, slice]]:
    """Find consecutive rows in a ring.

    Args:
        start: First row.
        stop: The row after the last, at most `capacity` rows.
        capacity: Rows that the ring holds.

    Yields:
        One piece or two: the rows in the ring, and the same rows counted from `start`.
    """
    first, count = start % capacity, stop - start
    head = min(count, capacity - first)
    yield slice(first, first + head), slice(0, head)
    if head < count:
        yield slice(0, count - head), slice(head, count)


def aligned_ranges(start: int, stop: int, step: int, offset: int) -> Iterator[tuple[int, int]]:
    """Divide pixels along one side where blocks end.

    Args:
        start: First pixel.
        stop: The pixel after the last.
        step: Pixels of the blocks that are taken together.
        offset: Pixels of the file before pixel 0.

    Yields:
        First pixel and the pixel after the last of each part.
    """
    while start < stop:
        end = min(((start + offset) // step + 1) * step - offset, stop)
        yield start, end
        start = end


class _FlagRows:
    """A ring of flags that takes memory only once one of them is set."""

    def __init__(self, capacity: int, width: int) -> None:
        self._shape = (capacity, width)
        self._flags: np.ndarray | None = None

    def write(self, row: int, left: int, flags: np.ndarray | None, shape: tuple[int, int]) -> None:
        """Store flags (h, w) of rows from `row` on; None stands for none set."""
        if self._flags is None:
            if flags is None or not flags.any():
                return
            self._flags = np.zeros(self._shape, dtype=bool)
        for ring, rows in ring_parts(row, row + shape[0], self._shape[0]):
            self._flags[ring, left : left + shape[1]] = False if flags is None else flags[rows]

    def cut(self, rows: range, columns: slice) -> np.ndarray | None:
        """Copy flags; None where none was ever set."""
        return None if self._flags is None else _cut(self._flags, rows, columns, self._shape[0])


class FrameRows:
    """The rows of one frame that are at hand.

    Args:
        frame: The frame, already narrowed to the bands in use.
        band_names: What the image processor calls these bands; None where they stack several dates.
        window_height: Rows that are needed at once.
        on_read_error: "raise", or "nodata" to take blocks that cannot be read for no data.

    Attributes:
        bad_windows: What could not be read and reaches into the rows at hand.
    """

    def __init__(self, frame: Any, band_names: Sequence[str] | None, window_height: int, on_read_error: str) -> None:
        self.frame, self._band_names, self._on_read_error = frame, band_names, on_read_error
        _, self._height, self._width = frame.shape
        self._offset = tuple(getattr(frame, "window", (0, 0)))[:2]
        self._pixel_bytes = frame.count * np.dtype(frame.dtype).itemsize
        self._block = self._block_to_keep()
        self._capacity = min(self._height, window_height + self._block[0] - 1)
        self._values = np.empty((frame.count, self._capacity, self._width), dtype=frame.dtype)
        self._mask = _FlagRows(self._capacity, self._width)
        self._lost = _FlagRows(self._capacity, self._width)
        self._stop = 0
        self.bad_windows: list[BadWindow] = []

    def read_to(self, top: int, stop: int) -> None:
        """Have rows at hand; those above are given up.

        Args:
            top: First row needed, no less than in the call before.
            stop: The row after the last.

        Raises:
            GeoTiffError: If pixels cannot be decoded; the message says which.
        """
        self.bad_windows = [(name, bad) for name, bad in self.bad_windows if bad[0] + bad[2] > top]
        begin = max(self._stop, top)
        if begin >= stop:
            return
        # To the end of the block, which would be decoded a second time for the rows that are left.
        _, end = next(aligned_ranges(stop - 1, self._height, self._block[0], self._offset[0]))
        for window in self._parts(begin, end):
            self._store(window)
        self._stop = end

    def cut(self, rows: range, columns: slice) -> tuple[ArrayRaster, np.ndarray | None]:
        """Copy pixels that are at hand.

        Args:
            rows: Their rows in the scene.
            columns: Their columns.

        Returns:
            A raster of them, and where the map has no data whatever the other frames hold, bool (height, width), or
            None for nowhere: they could not be read, or the frame excludes them.
        """
        raster = ArrayRaster(
            _cut(self._values, rows, columns, self._capacity),
            name=self.frame.name,
            descriptions=self._band_names,
            nodata=self.frame.nodata,
            nodata_mask=self._mask.cut(rows, columns),
        )
        return raster, self._lost.cut(rows, columns)

    def _block_to_keep(self) -> tuple[int, int]:
        """The file's blocks, or single rows where blocks are too large to keep."""
        height, width = getattr(self.frame, "block_shape", None) or (1, self._width)
        if min(height, self._height) * self._width * self._pixel_bytes <= _BYTES_OF_BLOCKS or height == 1:
            return height, width
        logger.warning(
            f"{self.frame.name} has blocks of {height:,} rows. Every row of tiles decodes them anew, which is slow: "
            "write it in tiles first, for example `gdal_translate -co TILED=YES -co COMPRESS=DEFLATE`."
        )
        return 1, self._width

    def _parts(self, start: int, stop: int) -> Iterator[Window]:
        """Windows of whole blocks, each about as large as a read may be."""
        height, width = self._block
        rows = height * max(1, _BYTES_A_READ // (height * self._width * self._pixel_bytes))
        columns = self._offset[1] + self._width  # in one piece
        if height * self._width * self._pixel_bytes > _BYTES_A_READ:
            columns = width * max(1, _BYTES_A_READ // (height * width * self._pixel_bytes))
        for top, bottom in aligned_ranges(start, stop, rows, self._offset[0]):
            for left, right in aligned_ranges(0, self._width, columns, self._offset[1]):
                yield top, left, bottom - top, right - left

    def _store(self, window: Window) -> None:
        top, left, height, width = window
        values, mask, bad, excluded = self._read(window)
        for ring, rows in ring_parts(top, top + height, self._capacity):
            self._values[:, ring, left : left + width] = values[:, rows]
        self._mask.write(top, left, mask, (height, width))
        lost = [one for one in (_flags_of(bad, window), excluded) if one is not None]
        self._lost.write(top, left, union(lost), (height, width))
        self.bad_windows += bad

    def _read(self, window: Window) -> tuple[np.ndarray, np.ndarray | None, list[BadWindow], np.ndarray | None]:
        """Values, mask, what could not be read, and what the frame excludes."""
        excludes = getattr(self.frame, "excludes", False)
        if self._on_read_error == "nodata":
            excluded = read_excluded_blocks(self.frame, window) if excludes else None
            return *read_blocks_or_nodata(self.frame, window), excluded
        try:
            part = self.frame.select(window=window)
            return part.read(), part.read_nodata_mask(), [], part.read_excluded() if excludes else None
        except GeoTiffError as error:
            row, column, height, width = window
            place = f"rows {row} to {row + height - 1}, columns {column} to {column + width - 1}"
            raise type(error)(f"{error} The pixels that were read: {place}.") from error


class SceneRows:
    """The rows of all frames that are at hand.

    Args:
        scene: The scene.
        image_processor: Tells which bands are used.
        window_height: Rows that are needed at once.
        on_read_error: "raise" or "nodata".

    Raises:
        ValueError: If a frame lacks bands.
    """

    def __init__(self, scene: Any, image_processor: Any, window_height: int, on_read_error: str) -> None:
        self._frames = [
            FrameRows(*_used_part(frame, image_processor), window_height, on_read_error) for frame in scene.frames
        ]

    def read_to(self, top: int, stop: int) -> None:
        """Have rows of every frame at hand, see `FrameRows.read_to`."""
        for frame in self._frames:
            frame.read_to(top, stop)

    def cut(self, rows: range, columns: slice) -> tuple[Any, np.ndarray | None]:
        """Copy pixels of every frame.

        Args:
            rows: Their rows in the scene.
            columns: Their columns.

        Returns:
            An image as the image processor takes it, and where the map has no data because a frame could not be read
            or excludes pixels, bool (height, width), or None for nowhere.
        """
        rasters, flags = zip(*(frame.cut(rows, columns) for frame in self._frames), strict=True)
        return (rasters[0] if len(rasters) == 1 else rasters), union([one for one in flags if one is not None])

    def bad_windows(self, start: int, stop: int) -> list[BadWindow]:
        """List what could not be read among some rows, the same however the reading was divided.

        Args:
            start: First row.
            stop: The row after the last.

        Returns:
            File names and windows, cut to the rows.
        """
        found = []
        for frame in self._frames:
            for name, (row, column, height, width) in frame.bad_windows:
                first, end = max(row, start), min(row + height, stop)
                if first < end:
                    found.append((name, (first, column, end - first, width)))
        return sorted(set(found))


def _used_part(frame: Any, image_processor: Any) -> tuple[Any, list[str] | None]:
    """Narrow a frame to the bands that the model takes, and name them; a stack of dates has no names."""
    used = image_processor.find_bands(frame.descriptions, frame.count, frame.name)
    names = list(image_processor.bands)
    return frame.select(bands=used), (names if len(used) == len(names) else None)


def _flags_of(bad: Sequence[BadWindow], window: Window) -> np.ndarray | None:
    """Where the pixels of a window are bad."""
    if not bad:
        return None
    flags = np.zeros(window[2:], dtype=bool)
    for _, (row, column, height, width) in bad:
        top, left = row - window[0], column - window[1]
        flags[max(top, 0) : top + height, max(left, 0) : left + width] = True
    return flags


def _cut(ring: np.ndarray, rows: range, columns: slice, capacity: int) -> np.ndarray:
    """Copy rows and columns of a ring (..., capacity, W)."""
    parts = [ring[..., place, columns] for place, _ in ring_parts(rows.start, rows.stop, capacity)]
    return np.concatenate(parts, axis=-2)[..., :: rows.step, :]


__all__ = [
    "BadWindow",
    "FrameRows",
    "SceneRows",
    "aligned_ranges",
    "read_blocks_or_nodata",
    "read_excluded_blocks",
    "ring_parts",
]
