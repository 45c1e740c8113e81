# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Values of one pixel grid at the pixels of another: where they lie, and how they are taken from there.

Each value depends on its own pixel alone, on whole-grid coordinates and in a fixed order of operations, so a window
gives the same bits as the same part of the whole. GDAL's warper, which approximates coordinates anew for each window
that it is asked for, does not.
"""

from dataclasses import dataclass

import numpy as np
from affine import Affine
from rasterio._err import CPLE_BaseError  # PROJ's failures come in no public class
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform as transform_points


Window = tuple[int, int, int, int]

# Exact transformation of every pixel costs more than decoding it. Between nodes some pixels apart a map projection
# is straight enough; the distance is halved until the error in the middle is below this share of a pixel.
_NODE_DISTANCES = (64, 32, 16, 8, 4)
_MAX_NODE_ERROR = 0.005
# Whole-pixel positions come out of the arithmetic with errors of 1e-9; values there are taken without interpolation.
_SNAP = 1e-6
# Above this ratio of pixel sizes one sample a pixel would leave out values in between.
_DENSE_SAMPLING_RATIO = 1.25
_MAX_SAMPLES = 16
# One value in 10^6 more or less is rounding of weights, not a missing value.
_FULL_WEIGHT = 1 - 1e-6


@dataclass(frozen=True)
class AffineMap:
    """Source positions of target pixels where both grids are in one CRS.

    Attributes:
        matrix: (a, b, c, d, e, f); (column, row) of the target is (a * column + b * row + c, d * column + e * row + f)
            of the source, corners at whole numbers.
    """

    matrix: tuple[float, float, float, float, float, float]

    @property
    def is_separable(self) -> bool:
        """Whether source rows depend on target rows alone, and columns on columns."""
        return self.matrix[1] == 0 and self.matrix[3] == 0

    @property
    def ratio(self) -> float:
        """Side of a target pixel in source pixels."""
        a, b, _, d, e, _ = self.matrix
        return max(np.hypot(a, d), np.hypot(b, e))

    def at(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the crossings of target rows and columns lie in the source.

        Args:
            y: (height,) float64, rows in the target, pixel edges at whole numbers.
            x: (width,) float64, columns in the target.

        Returns:
            Rows and columns in the source, float64, of shape (height, width), or, if separable, (height, 1) and
            (1, width); NaN where the projection has no value.
        """
        y, x = y[:, None], x[None, :]
        a, b, c, d, e, f = self.matrix
        if self.is_separable:
            return _snap(e * y + f), _snap(a * x + c)
        return _snap(d * x + e * y + f), _snap(a * x + b * y + c)


@dataclass(frozen=True, eq=False)
class NodeMap:
    """Source positions of target pixels where the grids are in different CRSs: exact at nodes, linear in between.

    Attributes:
        rows, columns: float64 (node rows, node columns), source positions of the nodes; NaN where there are none.
        distance: target pixels from one node to the next; the first lies at the corner (0, 0).
        ratio: largest side of a target pixel in source pixels.
    """

    rows: np.ndarray
    columns: np.ndarray
    distance: int
    ratio: float
    is_separable = False

    def at(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the crossings of target rows and columns lie in the source, see `AffineMap.at`."""
        return _snap(self.interpolate(self.rows, y, x)), _snap(self.interpolate(self.columns, y, x))

    def interpolate(self, nodes: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Values between nodes, linear in both directions.

        Args:
            nodes: values at the nodes.
            y: (height,) rows in the target.
            x: (width,) columns in the target.

        Returns:
            (height, width) float64.
        """
        i, j = (y // self.distance).astype(np.intp), (x // self.distance).astype(np.intp)
        down, right = (y / self.distance - i)[:, None], (x / self.distance - j)[None, :]
        lines = nodes[i] * (1 - down) + nodes[i + 1] * down
        return lines[:, j] * (1 - right) + lines[:, j + 1] * right


PixelMap = AffineMap | NodeMap


def map_pixels(
    target_crs: CRS | None,
    target: Affine,
    size: tuple[int, int],
    source_crs: CRS | None,
    source: Affine,
) -> PixelMap:
    """Finds where the pixels of one grid lie in another.

    Args:
        target_crs: CRS of the grid whose pixels are wanted.
        target: its transform.
        size: its (height, width).
        source_crs: CRS of the grid that values come from.
        source: its transform.

    Returns:
        The map from target to source.
    """
    inverse = _invert(source)
    if target_crs == source_crs:
        return AffineMap(_compose(inverse, target))
    for distance in _NODE_DISTANCES:
        nodes = _node_map(target_crs, target, size, source_crs, inverse, distance)
        if _error_between_nodes(nodes, target_crs, target, source_crs, inverse) <= _MAX_NODE_ERROR:
            break
    return nodes


def positions_of(
    pixel_map: PixelMap, window: Window, down: float = 0.5, right: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Where points of the target pixels of a window lie in the source.

    Args:
        pixel_map: from target to source.
        window: target pixels.
        down: place inside each pixel, 0 is its upper edge, 1 its lower one.
        right: 0 is its left edge, 1 its right one.

    Returns:
        Rows and columns as `AffineMap.at` gives them.
    """
    row, column, height, width = window
    return pixel_map.at(np.arange(row, row + height) + down, np.arange(column, column + width) + right)


def sample_density(ratio: float) -> int:
    """How many samples along each side make up one target pixel.

    Args:
        ratio: side of a target pixel in source pixels.

    Returns:
        1 where target pixels are about as large as source pixels or smaller; else enough to meet every source pixel.
    """
    return 1 if ratio <= _DENSE_SAMPLING_RATIO else min(_MAX_SAMPLES, int(np.ceil(ratio - _SNAP)))


def inside(rows: np.ndarray, columns: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Which positions lie in a source.

    Args:
        rows: positions as a pixel map gives them.
        columns: their other part.
        size: (height, width) of the source.

    Returns:
        bool of their broadcast shape.
    """
    return ((rows >= 0) & (rows < size[0])) & ((columns >= 0) & (columns < size[1]))


def needed_window(
    rows: np.ndarray, columns: np.ndarray, within: np.ndarray, size: tuple[int, int], margin: int
) -> Window | None:
    """The source pixels that values at positions come from.

    Args:
        rows: positions as a pixel map gives them.
        columns: their other part.
        within: where they lie in the source.
        size: (height, width) of the source.
        margin: source pixels needed around each position.

    Returns:
        The window, clipped to the source; None where no position lies in it.
    """
    if not within.any():
        return None
    top, bottom = _extent(rows, within, size[0], margin)
    left, right = _extent(columns, within, size[1], margin)
    return (top, left, bottom - top, right - left)


def take_nearest(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, window: Window) -> np.ndarray:
    """Takes the value of the pixel that each position lies in.

    Args:
        values: (..., height, width), the source pixels of `window`.
        rows: positions in the whole source; those outside the window give any of its values.
        columns: their other part.
        window: the source pixels in `values`.

    Returns:
        (..., target height, target width) of the same type.
    """
    i = _indices(np.floor(_numbers(rows)), window[0], window[2])
    j = _indices(np.floor(_numbers(columns)), window[1], window[3])
    return values[..., i, j]


class Interpolator:
    """Bilinear values at fixed positions, for one band after the other.

    Args:
        samples: positions (rows, columns) in the whole source, one pair for each sample that a pixel is the mean of.
        window: the source pixels that values will be given of: all neighbours that the source has of each position.
        precision: float32 or float64, for weights and sums.
    """

    def __init__(self, samples: list[tuple[np.ndarray, np.ndarray]], window: Window, precision: np.dtype) -> None:
        self._precision = precision
        self._taps = [
            (_taps(rows, window[0], window[2], precision), _taps(columns, window[1], window[3], precision))
            for rows, columns in samples
        ]
        ends = [[(tap.first.min(), tap.second.max() + 1) for tap in taps] for taps in zip(*self._taps, strict=True)]
        self._block = tuple(slice(min(low for low, _ in axis), max(high for _, high in axis)) for axis in ends)

    def meets_only(self, present: np.ndarray) -> bool:
        """Whether every value that any position can take is there.

        Args:
            present: bool (height, width) of the window.

        Returns:
            True where nothing is missing in the smallest block of source pixels around all positions.
        """
        return bool(present[self._block].all())

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Weighted mean of the values at each pixel.

        Args:
            values: (height, width), the source pixels of the window.

        Returns:
            (target height, target width) of the precision.
        """
        total = self._sum(values, *self._taps[0])
        for rows, columns in self._taps[1:]:
            total += self._sum(values, rows, columns)
        return total if len(self._taps) == 1 else total / np.asarray(len(self._taps), dtype=self._precision)

    def _sum(self, values: np.ndarray, rows: "_Taps", columns: "_Taps") -> np.ndarray:
        if rows.first.shape[1] == 1 and columns.first.shape[0] == 1:
            i, j = rows.squeeze(1), columns.squeeze(0)
            lines = values[i.first] * (1 - i.share)[:, None] + values[i.second] * i.share[:, None]
            return lines[:, j.first] * (1 - j.share) + lines[:, j.second] * j.share
        flat, width = values.reshape(-1), values.shape[1]
        upper, lower = rows.first * width, rows.second * width
        left, right = 1 - columns.share, columns.share
        above = flat.take(upper + columns.first) * left + flat.take(upper + columns.second) * right
        below = flat.take(lower + columns.first) * left + flat.take(lower + columns.second) * right
        return above * (1 - rows.share) + below * rows.share


def divide_by_weights(sums: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means over what is there, from sums in which missing values are 0.

    Args:
        sums: weighted sums.
        weights: weighted sums of 1 for values that are there and 0 for others.

    Returns:
        The means; sums of full weight as they are, and 0 where there is no weight.
    """
    partial = (weights > 0) & (weights < _FULL_WEIGHT)
    return np.divide(sums, weights, out=sums.copy(), where=partial)


@dataclass(frozen=True)
class _Taps:
    """Two neighbours of each position along one axis, and the share of the second."""

    first: np.ndarray
    second: np.ndarray
    share: np.ndarray

    def squeeze(self, axis: int) -> "_Taps":
        return _Taps(*(np.squeeze(part, axis) for part in (self.first, self.second, self.share)))


def _taps(positions: np.ndarray, offset: int, length: int, precision: np.dtype) -> _Taps:
    """Neighbours as indices into the window; beyond the edge of the source its outermost pixel stands."""
    centres = _numbers(positions) - 0.5
    first = np.floor(centres)
    share = (centres - first).astype(precision)
    return _Taps(_indices(first, offset, length), _indices(first + 1, offset, length), share)


def _indices(positions: np.ndarray, offset: int, length: int) -> np.ndarray:
    return np.clip(positions - offset, 0, length - 1).astype(np.intp)


def _numbers(positions: np.ndarray) -> np.ndarray:
    """Positions without NaN, for pixels whose value will not be used."""
    valid = np.isfinite(positions)
    return positions if valid.all() else np.where(valid, positions, 0.0)


def _snap(positions: np.ndarray) -> np.ndarray:
    """Moves positions by at most `_SNAP` onto edges and centres of pixels."""
    halves = np.rint(positions * 2) / 2
    return np.where(np.abs(positions - halves) < _SNAP, halves, positions)


def _extent(positions: np.ndarray, within: np.ndarray, length: int, margin: int) -> tuple[int, int]:
    """First and last source row, or column, that positions need; the last one excluded."""
    used = positions[within if positions.shape == within.shape else (positions >= 0) & (positions < length)]
    return max(0, int(np.floor(used.min())) - margin), min(length, int(np.floor(used.max())) + margin + 1)


def _node_map(
    target_crs: CRS | None,
    target: Affine,
    size: tuple[int, int],
    source_crs: CRS | None,
    inverse: Affine,
    distance: int,
) -> NodeMap:
    """Transforms the nodes exactly; one row and column of them lie beyond the last pixel."""
    y = np.arange(-(-size[0] // distance) + 2) * float(distance)
    x = np.arange(-(-size[1] // distance) + 2) * float(distance)
    rows, columns = _transform_positions(*np.meshgrid(y, x, indexing="ij"), target_crs, target, source_crs, inverse)
    return NodeMap(rows, columns, distance, _node_ratio(rows, columns, distance))


def _node_ratio(rows: np.ndarray, columns: np.ndarray, distance: int) -> float:
    sides = [np.hypot(np.diff(rows, axis=axis), np.diff(columns, axis=axis)) / distance for axis in (0, 1)]
    finite = np.concatenate([side[np.isfinite(side)] for side in sides])
    return float(np.median(finite)) if finite.size else 1.0


def _error_between_nodes(
    nodes: NodeMap, target_crs: CRS | None, target: Affine, source_crs: CRS | None, inverse: Affine
) -> float:
    """Largest error in the middle of four nodes, in source pixels."""
    i, j = (np.arange(length - 1) + 0.5 for length in nodes.rows.shape)
    y, x = np.meshgrid(i * nodes.distance, j * nodes.distance, indexing="ij")
    exact = _transform_positions(y, x, target_crs, target, source_crs, inverse)
    guesses = [nodes.interpolate(part, y[:, 0], x[0]) for part in (nodes.rows, nodes.columns)]
    errors = np.hypot(*(guess - true for guess, true in zip(guesses, exact, strict=True)))
    finite = errors[np.isfinite(errors)]
    return float(finite.max()) if finite.size else 0.0


def _transform_positions(
    y: np.ndarray, x: np.ndarray, target_crs: CRS | None, target: Affine, source_crs: CRS | None, inverse: Affine
) -> tuple[np.ndarray, np.ndarray]:
    """Source (rows, columns) of target positions; NaN where a projection has no value."""
    eastings, northings = _apply(target, x.ravel(), y.ravel())
    points = np.full((2, eastings.size), np.nan)
    failure = _transform_points(target_crs, source_crs, eastings, northings, points)
    if failure is not None and np.isnan(points).all():
        raise ValueError(
            f"Expected CRSs that can be converted into each other, found {target_crs} and {source_crs} ({failure}). "
            "Warp the file with gdalwarp first."
        ) from failure
    points[:, ~np.isfinite(points).all(axis=0)] = np.nan
    columns, rows = _apply(inverse, *points)
    return rows.reshape(y.shape), columns.reshape(y.shape)


def _transform_points(
    target_crs: CRS, source_crs: CRS, x: np.ndarray, y: np.ndarray, points: np.ndarray
) -> Exception | None:
    """Writes transformed points into `points` (2, n), and gives the last failure.

    One point without a place in the other CRS fails them all: they are halved until it is alone.
    """
    try:
        points[:] = transform_points(target_crs, source_crs, x.tolist(), y.tolist())[:2]
    except (RasterioError, CPLE_BaseError) as error:
        if len(x) == 1:
            return error
        middle = len(x) // 2
        parts = (slice(0, middle), slice(middle, None))
        failures = [_transform_points(target_crs, source_crs, x[part], y[part], points[:, part]) for part in parts]
        return next((failure for failure in failures if failure is not None), error)
    return None


def _apply(matrix: Affine, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b, c, d, e, f = matrix[:6]
    return a * x + b * y + c, d * x + e * y + f


def _invert(matrix: Affine) -> Affine:
    """Written out, as releases of affine differ in the operator."""
    a, b, c, d, e, f = matrix[:6]
    scale = a * e - b * d
    if scale == 0:
        raise ValueError(f"Expected a transform from pixels to places, found {tuple(matrix[:6])}. Repair the file.")
    return Affine(e / scale, -b / scale, (b * f - c * e) / scale, -d / scale, a / scale, (c * d - a * f) / scale)


def _compose(outer: Affine, inner: Affine) -> tuple[float, float, float, float, float, float]:
    """First `inner`, then `outer`."""
    a, b, c, d, e, f = outer[:6]
    p, q, r, s, t, u = inner[:6]
    return (a * p + b * s, a * q + b * t, a * r + b * u + c, d * p + e * s, d * q + e * t, d * r + e * u + f)


__all__ = [
    "AffineMap",
    "Interpolator",
    "NodeMap",
    "PixelMap",
    "divide_by_weights",
    "inside",
    "map_pixels",
    "needed_window",
    "positions_of",
    "sample_density",
    "take_nearest",
]
