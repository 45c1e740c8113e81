# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Connected regions of a class map, and the area of its pixels on the ellipsoid."""

from typing import Any

import numpy as np
from affine import Affine
from rasterio.warp import transform as transform_points


_SEMI_MAJOR_AXIS = 6_378_137.0  # metres, WGS 84
_FLATTENING = 1 / 298.257223563
_SQUARED_ECCENTRICITY = _FLATTENING * (2 - _FLATTENING)
_GEOGRAPHIC = "EPSG:4326"
_LATTICE_METRES = 20_000.0  # the area of a pixel bends by less than 1e-5 of itself between points this far apart
_LARGEST_STEP = 64  # pixels


def label_regions(values: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the regions of equal value whose pixels share an edge.

    Rows are cut into runs of one value, runs that touch in neighbouring rows are edges of a graph, and its components
    are the regions: the work is that of whole arrays, however many regions there are.

    Args:
        values: (H, W) uint8.
        valid: (H, W) bool; other pixels belong to no region.

    Returns:
        (H, W) int32 with 1 to n in order of the first pixel and 0 for no region, and n.
    """
    keys = np.where(valid, values, -1).astype(np.int16)
    begins = np.ones(keys.shape, dtype=bool)
    np.not_equal(keys[:, 1:], keys[:, :-1], out=begins[:, 1:])
    runs = np.cumsum(begins, dtype=np.int32).reshape(keys.shape) - 1
    # Of the columns in which two runs touch, the first is one in which either begins.
    touch = (keys[1:] == keys[:-1]) & (begins[1:] | begins[:-1]) & valid[1:]
    roots = _components(runs[:-1][touch], runs[1:][touch], int(runs[-1, -1]) + 1)
    is_root = (roots == np.arange(len(roots))) & valid[begins]
    numbers = np.cumsum(is_root, dtype=np.int32)
    of_run = np.where(valid[begins], numbers[roots], 0)
    return of_run[runs].astype(np.int32), int(numbers[-1])


def _components(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """Give each of `count` nodes the smallest node that the edges (first, second) connect it with."""
    parents = np.arange(count, dtype=np.int32)
    while True:
        low, high = np.minimum(parents[first], parents[second]), np.maximum(parents[first], parents[second])
        open_edges = low != high
        if not open_edges.any():
            return parents
        first, second = first[open_edges], second[open_edges]
        np.minimum.at(parents, high[open_edges], low[open_edges])
        while not np.array_equal(above := parents[parents], parents):
            parents = above


def pixel_areas(crs: Any, transform: Affine, window: tuple[int, int, int, int]) -> np.ndarray:
    """Measure the pixels of a window on the WGS 84 ellipsoid.

    The area is that of the ground, not of the map projection: what the middles of a pixel's edges span on the
    ellipsoid, at points up to 20 km apart and linear in between.

    Args:
        crs: CRS of the map as rasterio reads it.
        transform: Affine transform from pixel to CRS coordinates.
        window: (row, column, height, width) in pixels.

    Returns:
        (height, width) float64 in square metres.

    Raises:
        ValueError: If the CRS has no place on Earth for pixels of the window.
    """
    row, column, height, width = window
    middle = _areas_at(crs, transform, np.array([row + height / 2]), np.array([column + width / 2]))[0, 0]
    step = int(np.clip(_LATTICE_METRES / max(np.sqrt(middle), 1e-3), 1, _LARGEST_STEP))
    rows, columns = _lattice(row, height, step), _lattice(column, width, step)
    areas = _areas_at(crs, transform, rows, columns)
    return _weights(rows, row, height) @ areas @ _weights(columns, column, width).T


def _lattice(start: int, length: int, step: int) -> np.ndarray:
    """Centres of pixels about `step` apart, those of both ends among them."""
    return start + 0.5 + np.linspace(0, length - 1, max(2, -(-length // step) + 1))


def _weights(points: np.ndarray, start: int, length: int) -> np.ndarray:
    """(length, points) weights that interpolate linearly between the points."""
    spacing = max(points[1] - points[0], 1e-9)
    place = (start + 0.5 + np.arange(length) - points[0]) / spacing
    return np.clip(1 - np.abs(place[:, None] - np.arange(len(points))[None]), 0, None)


def _areas_at(crs: Any, transform: Affine, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(rows, columns) square metres of the pixels around these points, which are in pixel coordinates."""
    row, column = np.meshgrid(rows, columns, indexing="ij")
    left, right = (_ground(crs, transform, row, column + side) for side in (-0.5, 0.5))
    upper, lower = (_ground(crs, transform, row + side, column) for side in (-0.5, 0.5))
    return np.linalg.norm(np.cross(right - left, lower - upper), axis=-1)


def _ground(crs: Any, transform: Affine, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(..., 3) points on the ellipsoid, in metres from the Earth's centre: no pole or meridian is special there."""
    x = transform.a * columns + transform.b * rows + transform.c
    y = transform.d * columns + transform.e * rows + transform.f
    degrees = np.array(transform_points(crs, _GEOGRAPHIC, x.ravel(), y.ravel())[:2]).reshape(2, *x.shape)
    if not np.isfinite(degrees).all():
        raise ValueError(
            f"Expected every pixel of the map to lie on Earth, found some outside the domain of {crs}: polygons have "
            "areas on the ground, so write them without those pixels, or from a map in another CRS."
        )
    longitude, latitude = np.deg2rad(degrees)
    radius = _SEMI_MAJOR_AXIS / np.sqrt(1 - _SQUARED_ECCENTRICITY * np.sin(latitude) ** 2)
    across = radius * np.cos(latitude)
    height = radius * (1 - _SQUARED_ECCENTRICITY) * np.sin(latitude)
    return np.stack([across * np.cos(longitude), across * np.sin(longitude), height], axis=-1)


__all__ = ["label_regions", "pixel_areas"]
