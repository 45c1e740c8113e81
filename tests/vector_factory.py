# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Small vector files of labels, and what their pixels must be by a plain look at every pixel centre."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from affine import Affine
from rasterio.crs import CRS

from prithvi_hf.rasters.warping import Grid


def utm_grid(height: int, width: int, pixel: float = 10.0) -> Grid:
    """A grid in UTM 33 N."""
    return Grid(CRS.from_epsg(32633), Affine(pixel, 0, 500_000, 0, -pixel, 5_000_000), height, width)


def make_stars(
    grid: Grid, count: int, classes: list, seed: int = 0, reach: tuple[float, float] = (0.05, 0.3)
) -> gpd.GeoDataFrame:
    """Overlapping polygons all over a grid and beyond; `reach` is of its side, and classes take turns."""
    rng, shapes = np.random.default_rng(seed), []
    for _ in range(count):
        centre = rng.uniform(0, 1, 2) * [grid.width, grid.height]
        angles = np.linspace(0, 2 * np.pi, rng.integers(5, 12), endpoint=False)
        radii = rng.uniform(*reach) * max(grid.size) * rng.uniform(0.4, 1, len(angles))
        points = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        shapes.append(shapely.Polygon(np.stack(grid.transform @ points.T, axis=1)))
    column = [classes[number % len(classes)] for number in range(count)]
    return gpd.GeoDataFrame({"crop": column}, geometry=shapes, crs=grid.crs.to_wkt())


def paint(features: gpd.GeoDataFrame, grid: Grid, numbers: dict, fill: int = 255) -> np.ndarray:
    """The class of each pixel, uint8 (height, width), by whether its centre is in a polygon; later ones are on top."""
    columns, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    xs, ys = grid.transform @ (columns, rows)
    labels = np.full(grid.size, fill, dtype=np.uint8)
    for shape, value in zip(features.geometry, features["crop"], strict=True):
        shapely.prepare(shape)
        labels[shapely.contains_xy(shape, xs, ys)] = numbers[value]
    return labels


def write_features(path: Path, features: gpd.GeoDataFrame, **options) -> Path:
    """Write a vector file, whose suffix tells its format."""
    features.to_file(path, **options)
    return path
