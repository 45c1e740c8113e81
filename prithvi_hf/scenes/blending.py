# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""How overlapping tiles are averaged, and the sums that are not final yet.

Weights are products of a profile down the rows and one along the columns, so their sum at a pixel is the product of
two sums along the sides of the scene, known before any tile is. Dividing by it makes the weights of a pixel sum to 1.
"""

import math
import mmap

import numpy as np
import torch

from prithvi_hf.scenes.rows import ring_parts
from prithvi_hf.scenes.tiles import TilePlan


_ROWS_AT_A_TIME = 16
_GAUSSIAN_DEVIATIONS = 4  # from the middle of a tile to its border


def weight_profile(blending: str, size: int) -> torch.Tensor:
    """Give the weights along one side of a tile.

    Args:
        blending: "uniform" (1 everywhere), "cosine" (a Hann window) or "gaussian" (four deviations from the middle to
            the border).
        size: Pixels along the side.

    Returns:
        (size,) float32, symmetric, greater than 0 everywhere and at most 1.
    """
    # Middles of pixels: no weight is 0, so a pixel that one tile alone holds has a mean as well.
    place = (np.arange(size) + 0.5) / size
    profile = np.ones(size)
    if blending == "cosine":
        profile = np.sin(math.pi * place) ** 2
    elif blending == "gaussian":
        profile = np.exp(-0.5 * ((2 * place - 1) * _GAUSSIAN_DEVIATIONS) ** 2)
    return torch.from_numpy(profile.astype(np.float32))


class RowSums:
    """Weighted sums of logits of the rows that are not final yet: a ring one tile high and as wide as the scene.

    Args:
        plan: Where the tiles are.
        blending: "uniform", which averages as the in-memory sliding window does, "cosine" or "gaussian".
        num_labels: Number of classes.
        dtype: Type of the sums, float32 or wider.
        device: Where the sums are kept.
    """

    def __init__(
        self, plan: TilePlan, blending: str, num_labels: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        height, width = plan.window
        rows, columns = weight_profile(blending, height), weight_profile(blending, width)
        self._plan, self._dtype, self._device = plan, dtype, device
        self._weights = None if blending == "uniform" else torch.outer(rows, columns).to(device, dtype)
        # What the sums are divided by, along either side of the scene.
        row_weights = torch.zeros(plan.height, dtype=torch.float64)
        for top in plan.tops:
            row_weights[top : top + height] += rows
        column_weights = torch.zeros(plan.width, dtype=torch.float64)
        for left in plan.lefts:
            column_weights[left : left + width] += columns
        self._row_weights, self._column_weights = row_weights.to(device, dtype), column_weights.to(device, dtype)
        self._sums = mmap_zeros((num_labels, height, plan.width), dtype).to(device)

    def add(self, row: int, left: int, logits: torch.Tensor) -> None:
        """Add a tile. Tiles come in raster order, which makes the sums the same on every run.

        Args:
            row: Row of tiles.
            left: First column of the tile.
            logits: (num_labels, h, w).
        """
        height, width = self._plan.window
        top = self._plan.tops[row]
        if self._weights is not None:
            logits = logits.to(self._dtype) * self._weights
        for ring, rows in ring_parts(top, top + height, height):
            self._sums[:, ring, left : left + width] += logits[:, rows]

    def take(self, row: int) -> torch.Tensor:
        """Take the means of the strip that is final after a row of tiles, and make room for the next.

        Args:
            row: Row of tiles, which is the strip's index.

        Returns:
            (num_labels, h, W) on the CPU; 0 where no tile was added.
        """
        start, stop = self._plan.strip(row)
        num_labels, capacity, width = self._sums.shape
        for ring, rows in ring_parts(start, stop, capacity):
            sums = self._sums[:, ring]
            for first in range(0, sums.shape[1], _ROWS_AT_A_TIME):  # some rows at a time to spare memory
                part = sums[:, first : first + _ROWS_AT_A_TIME]
                place = start + rows.start + first
                part /= torch.outer(self._row_weights[place : place + part.shape[1]], self._column_weights)
        if stop - start == capacity and start % capacity == 0 and self._device.type == "cpu":
            # Tiles do not overlap here: the ring is the strip, and its taker may have it without a copy.
            means, self._sums = self._sums, mmap_zeros((num_labels, capacity, width), self._dtype)
            return means
        means = mmap_zeros((num_labels, stop - start, width), self._dtype)
        for ring, rows in ring_parts(start, stop, capacity):
            means[:, rows] = self._sums[:, ring]
        self.drop(row)
        return means

    def drop(self, row: int) -> None:
        """Make room for the next row of tiles without taking the strip `row`."""
        for ring, _ in ring_parts(*self._plan.strip(row), self._plan.window[0]):
            self._sums[:, ring] = 0


def mmap_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Make zeros on the CPU, of no side 0, in memory that goes back to the system as soon as nobody holds them.

    The allocator of the C library keeps some of what large arrays leave, which adds up to as much again.
    """
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
    return torch.frombuffer(memory, dtype=dtype).view(shape)
