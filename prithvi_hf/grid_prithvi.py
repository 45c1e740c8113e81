# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Whether two rasters lie on one grid: one measure and one tolerance, for training and for maps."""

import math
from typing import Any


GRID_TOLERANCE = 0.5
"""Pixels: beyond half of one a value belongs to a neighbour. Two programs write one grid with other last bits."""


def largest_shift(first: Any, other: Any, size: tuple[int, int]) -> float:
    """Give the largest distance between the same corner of two grids.

    Args:
        first: Affine transform from pixel to CRS coordinates.
        other: Another one, in the same CRS.
        size: Rows and columns of both grids.

    Returns:
        The distance in pixels of `first`.
    """
    side = max(abs(first.a * first.e - first.b * first.d) ** 0.5, 1e-300)
    corners = [(column, row) for row in (0, size[0]) for column in (0, size[1])]
    return max(math.dist(_place(first, *corner), _place(other, *corner)) for corner in corners) / side


def _place(transform: Any, column: int, row: int) -> tuple[float, float]:
    """Give the coordinates of a pixel corner; written out, as releases of affine differ in the operator for it."""
    x = transform.a * column + transform.b * row + transform.c
    return x, transform.d * column + transform.e * row + transform.f


__all__ = ["GRID_TOLERANCE", "largest_shift"]
