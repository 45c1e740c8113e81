# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Reading around damaged blocks of a file, where the user asks for that."""

from typing import Any

import numpy as np

from prithvi_hf.data.raster import GeoTiffDecodeError
from prithvi_hf.scenes.rasters import Window


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
    cut = _cut(row + offset[0], height, down)
    if cut:
        return [(row, column, cut, width), (row + cut, column, height - cut, width)]
    cut = _cut(column + offset[1], width, right)
    if cut:
        return [(row, column, height, cut), (row, column + cut, height, width - cut)]
    return [window]


def _cut(start: int, length: int, block: int) -> int:
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


__all__ = ["BadWindow", "read_blocks_or_nodata", "read_excluded_blocks"]
