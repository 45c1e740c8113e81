# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Scenes and maps as the page shows them: pictures reduced to what a screen shows, and the figures beside them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points

from prithvi_hf.outputs.class_areas import measure_classes
from prithvi_hf.outputs.cog import NODATA_CLASS
from prithvi_hf.outputs.quicklook import thumbnail_step
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.raster import GDAL_ERRORS, find_degrees
from prithvi_hf.rasters.warping import Grid


if TYPE_CHECKING:
    from prithvi_hf.scenes.predicted import PredictedScene

_ROWS = 256
_LINES = 4  # meridians, and parallels, at most
_POINTS = 33  # of a line
_SURE = 254  # what a confidence of 1 is in a file of bytes


@dataclass(frozen=True)
class ClassFigures:
    """What a map shows of one class.

    Attributes:
        name: Of the class.
        color: `"#rrggbb"`.
        pixels: How many have it.
        fraction: Of the pixels with data, 0 to 1.
        square_metres: On the ground; None where nothing tells the place.
        confidence: Mean probability of the class over its pixels, None without any.
    """

    name: str
    color: str
    pixels: int
    fraction: float
    square_metres: float | None
    confidence: float | None


@dataclass(frozen=True)
class MapFigures:
    """A map as the page shows it.

    Attributes:
        classes: (h, w, 4) uint8 colours of the classes, transparent where there is no data.
        confidence: (h, w, 4) uint8 colours of the confidence.
        rows: The figures of each class.
        nodata_fraction: Of all pixels.
    """

    classes: np.ndarray
    confidence: np.ndarray
    rows: list[ClassFigures]
    nodata_fraction: float


@dataclass(frozen=True)
class GridLine:
    """A meridian or a parallel on a picture.

    Attributes:
        label: Its degrees.
        is_meridian: Whether it is a meridian.
        points: (N, 2) x and y, 0 to 1 from the left and from the top.
    """

    label: str
    is_meridian: bool
    points: np.ndarray


def measure_map(result: "PredictedScene", has_place: bool) -> MapFigures:
    """Measure a finished map with its confidence (uint8), and paint both, some rows at a time.

    Args:
        result: The map.
        has_place: Whether areas on the ground can be told.
    """
    classes = measure_classes(result.path, has_place=has_place)
    class_map, confidence = GeoTiffRaster(result.path), GeoTiffRaster(result.outputs["confidence"])
    step = thumbnail_step(*result.shape)
    sums = np.zeros(256)  # of the confidence of the pixels of each value
    thinned: list[tuple[np.ndarray, np.ndarray]] = []
    for start in range(0, class_map.height, _ROWS):
        window = (start, 0, min(_ROWS, class_map.height - start), class_map.width)
        values, sure = class_map.read(window=window)[0], confidence.read(window=window)[0]
        sums += np.bincount(values.ravel(), weights=sure.ravel() / _SURE, minlength=256)
        thinned.append((values[-start % step :: step, ::step], sure[-start % step :: step, ::step]))
    shown, sure = (np.concatenate(part) for part in zip(*thinned, strict=True))

    table = np.zeros((256, 4), dtype=np.uint8)
    for one in classes:
        table[one.value] = (*bytes.fromhex(one.color[1:]), 255)
    valid = sum(one.pixels for one in classes)
    rows = [
        ClassFigures(
            name=one.name,
            color=one.color,
            pixels=one.pixels,
            fraction=one.pixels / max(valid, 1),
            square_metres=one.square_metres,
            confidence=float(sums[one.value] / one.pixels) if one.pixels else None,
        )
        for one in classes
    ]
    total = math.prod(result.shape)
    return MapFigures(table[shown], confidence_colors(len(classes))[sure], rows, (total - valid) / total)


def confidence_colors(num_classes: int) -> np.ndarray:
    """Give (256, 4) uint8 colours of the values of a file of confidence, from equally probable classes to certain."""
    from matplotlib import colormaps

    least = 1 / max(num_classes, 2)
    fractions = np.clip((np.arange(256) / _SURE - least) / (1 - least), 0, 1)
    table = colormaps["viridis"](fractions, bytes=True)
    table[NODATA_CLASS] = 0
    return table


def make_grid_lines(grid: Grid) -> list[GridLine]:
    """Make meridians and parallels at round degrees across a scene; none where nothing tells the place."""
    if grid.crs is None:
        return []
    height, width = grid.size
    across = np.linspace(0, 1, _POINTS)
    x, y = (values.ravel() for values in np.meshgrid(across * width, across * height))
    a, b, c, d, e, f = grid.transform[:6]
    try:
        longitudes, latitudes = find_degrees(grid.crs, a * x + b * y + c, d * x + e * y + f, "The scene")
    except ValueError:
        return []
    if not (np.isfinite(longitudes).all() and np.isfinite(latitudes).all()):
        return []
    middle = longitudes[len(longitudes) // 2]
    longitudes = middle + (longitudes - middle + 180) % 360 - 180  # without a jump at 180 degrees
    ends = [(float(values.min()), float(values.max())) for values in (longitudes, latitudes)]
    if ends[0][1] - ends[0][0] > 180 or max(map(abs, ends[1])) > 89:  # meridians would meet
        return []
    lines = []
    for is_meridian, (low, high) in zip((True, False), ends, strict=True):
        other = np.linspace(*ends[1 if is_meridian else 0], _POINTS)
        for value, label in _choose_degrees(low, high, ("E", "W") if is_meridian else ("N", "S")):
            places = (np.full(_POINTS, value), other) if is_meridian else (other, np.full(_POINTS, value))
            points = _place(grid.crs, grid.transform, *places) / (width, height)
            if np.isfinite(points).all():
                lines.append(GridLine(label, is_meridian, points))
    return lines


def _choose_degrees(low: float, high: float, letters: Sequence[str]) -> list[tuple[float, str]]:
    """Choose round degrees within two ends, and write them."""
    power = 10.0 ** math.floor(math.log10(max(high - low, 1e-9) / _LINES))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * _LINES >= high - low)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    found = []
    for number in range(math.ceil(low / step), math.floor(high / step) + 1):
        value = number * step
        shown = math.remainder(value, 360)  # beyond 180 degrees east
        found.append((value, f"{abs(shown):.{digits}f}° {letters[0 if shown >= 0 else 1]}"))
    return found


def _place(crs: CRS, transform: Affine, longitudes: np.ndarray, latitudes: np.ndarray) -> np.ndarray:
    """Give the columns and rows (N, 2) of places, NaN where the CRS has no coordinates for them."""
    try:
        xs, ys = (np.array(values) for values in transform_points("EPSG:4326", crs, longitudes, latitudes)[:2])
    except GDAL_ERRORS:
        return np.full((len(longitudes), 2), np.nan)
    a, b, c, d, e, f = (~transform)[:6]
    return np.stack([a * xs + b * ys + c, d * xs + e * ys + f], axis=1)
