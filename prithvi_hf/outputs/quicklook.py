# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Quick looks: a map with its legend as a picture, beside the scene in natural colours."""

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from prithvi_hf.models.prithvi.bands_prithvi import find_band_names
from prithvi_hf.models.prithvi.segmentation_map_prithvi import stretch_colors
from prithvi_hf.outputs.cog import NODATA_CLASS, complete_or_absent
from prithvi_hf.outputs.palette import class_palette


_LARGEST_SIDE = 1536  # pixels; enough for a quick look
_COLORS = ("RED", "GREEN", "BLUE")


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
        (h, w, 4) uint8 as `stretch_colors` makes it, transparent where a colour has no data.
    """
    return stretch_colors(values, np.isfinite(values).all(axis=0))


_PANEL_INCHES = 6.0
_DPI = 150
_LARGEST_SIDE = 1536  # pixels of the map that are drawn; more would not show at this size
_LEGEND_ENTRIES = 20
_NODATA_COLOR = (255, 255, 255)


def write_quicklook(
    path: str | os.PathLike,
    mask: np.ndarray,
    *,
    id2label: Mapping[int, str],
    class_colors: Sequence[str] | None = None,
    rgb: np.ndarray | None = None,
    present: Collection[int] | None = None,
) -> None:
    """Draw a map as PNG.

    Args:
        path: The PNG to write; an existing one is replaced, and only by a complete one.
        mask: (H, W) class indices, 255 = no data.
        id2label: Class index to name.
        class_colors: `"#rrggbb"` a class, or None for default colours.
        rgb: (h, w, 3 or 4) uint8 picture of the same scene at any resolution, drawn to the left; or None.
        present: Class indices on the map, 255 among them for no data, where `mask` is a thinned one; None looks there.

    Raises:
        ValueError: If the folder does not exist.
    """
    palette = class_palette(len(id2label), class_colors)
    panels = 1 if rgb is None else 2
    # A figure of its own canvas leaves pyplot and its global state alone, so this works in threads and notebooks.
    figure = Figure(figsize=(_PANEL_INCHES * panels, _PANEL_INCHES), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    if rgb is not None:
        _draw(axes[0], rgb, "scene")
    _draw(axes[-1], paint_classes(mask, palette), "classes")
    present = set(np.unique(mask).tolist()) if present is None else set(present)
    entries = _legend_entries(present, id2label, palette)
    figure.legend(handles=entries, loc="outside lower center", ncols=min(4, len(entries)), frameon=False)
    with complete_or_absent(path) as part:
        canvas.print_figure(part, dpi=_DPI, format="png")


def _draw(axes: Axes, picture: np.ndarray, title: str) -> None:
    """Show one picture without axis marks."""
    axes.imshow(picture, interpolation="nearest")
    axes.set_title(title)
    axes.set_axis_off()


def paint_classes(mask: np.ndarray, palette: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Paint a map.

    Args:
        mask: (H, W) class indices, 255 = no data.
        palette: Red, green and blue of each class.

    Returns:
        (h, w, 3) uint8, thinned to what can be seen; no data is white.
    """
    step = -(-max(mask.shape) // _LARGEST_SIDE)
    table = np.full((256, 3), _NODATA_COLOR, dtype=np.uint8)
    table[: len(palette)] = palette
    return table[mask[::step, ::step]]


def _legend_entries(
    present: set[int], id2label: Mapping[int, str], palette: Sequence[tuple[int, int, int]]
) -> list[Patch]:
    """Name the classes: all where they are few, those on the map where they are many."""
    indices = [index for index in sorted(id2label) if len(id2label) <= _LEGEND_ENTRIES or index in present]
    entries = [_entry(palette[index], str(id2label[index])) for index in indices[:_LEGEND_ENTRIES]]
    if NODATA_CLASS in present:
        entries.append(_entry(_NODATA_COLOR, "no data"))
    return entries


def _entry(color: tuple[int, int, int], label: str) -> Patch:
    """Make one coloured field of the legend; underscores in front would hide it."""
    return Patch(facecolor=np.array(color) / 255, edgecolor="#888888", label=label.lstrip("_"))


__all__ = [
    "find_colors",
    "natural_values",
    "paint_classes",
    "stretch_thumbnail",
    "thumbnail_rows",
    "thumbnail_step",
    "write_quicklook",
]
