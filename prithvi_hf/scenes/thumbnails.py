# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A small picture of the scene in natural colours, of rows that pass by on their way to the model.

How dark and how bright the picture's black and white are is known only when the whole scene was seen. The rows are
kept as values of the file until then.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from prithvi_hf.bands_prithvi import find_band_names


_LARGEST_SIDE = 1536  # pixels; enough for a quick look
_COLORS = ("RED", "GREEN", "BLUE")
_PERCENTILES = (2.0, 98.0)
_GAMMA = 0.7  # lifts dark land, which clouds would otherwise push into black


def thumbnail_step(height: int, width: int) -> int:
    """Give the step that a scene is thinned by.

    Args:
        height: Rows of the scene.
        width: Columns of the scene.

    Returns:
        The smallest whole number that keeps both sides within 1536 pixels.
    """
    return -(-max(height, width) // _LARGEST_SIDE)


def thumbnail_rows(start: int, stop: int, step: int) -> range:
    """Give the rows of a strip that are part of the thumbnail.

    Args:
        start: First row of the strip.
        stop: The row after the last.
        step: As `thumbnail_step` gives it.

    Returns:
        Every row that is a multiple of the step; none, maybe.
    """
    return range(-(-start // step) * step, stop, step)


def find_colors(bands: Sequence[str]) -> list[int] | None:
    """Find red, green and blue.

    Args:
        bands: The bands of the model.

    Returns:
        Their positions, or None if one is missing.
    """
    found = find_band_names(_COLORS, list(bands))
    return None if None in found else found


def natural_values(image: Any, image_processor: Any, colors: Sequence[int], bad: np.ndarray | None) -> np.ndarray:
    """Take the colours of the last date.

    Args:
        image: The thinned rows, as the image processor takes them.
        image_processor: Decides what is no data.
        colors: Positions of red, green and blue among its bands.
        bad: Where pixels could not be read, bool (h, w), or None.

    Returns:
        (3, h, w) float32 in the units of the file, NaN where there is no data.
    """
    frames, missing, nodata = image_processor.read_frames(image)
    values = frames[-1].values[list(colors)].astype(np.float32)
    if missing[-1] is not None:
        values[missing[-1][list(colors)]] = np.nan
    values[:, nodata if bad is None else nodata | bad] = np.nan
    return values


def stretch_thumbnail(values: np.ndarray) -> np.ndarray:
    """Make the picture of the whole scene.

    Args:
        values: (3, h, w) as the strips hold them, all strips one below the other.

    Returns:
        (h, w, 3) uint8: each colour between its 2nd and 98th percentile, white where a colour has no data.
    """
    valid = np.isfinite(values).all(axis=0)
    picture = np.full((*valid.shape, 3), 255, dtype=np.uint8)
    if not valid.any():
        return picture
    for channel, color in enumerate(values):
        shown = color[valid]
        low, high = np.percentile(shown, _PERCENTILES)
        picture[valid, channel] = np.clip((shown - low) / max(high - low, 1e-6), 0, 1) ** _GAMMA * 255
    return picture


__all__ = ["find_colors", "natural_values", "stretch_thumbnail", "thumbnail_rows", "thumbnail_step"]
