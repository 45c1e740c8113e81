# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""How overlapping tiles are averaged, and the sums that are not final yet.

Weights are products of a profile down the rows and one along the columns, so their sum at a pixel is the product of
two sums along the sides of the scene, known before any tile is. Dividing by it makes the weights of a pixel sum to 1.
"""

import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from prithvi_hf.scenes.rows import ring_parts
from prithvi_hf.scenes.tiles import BLENDINGS, TilePlan


_ROWS_AT_A_TIME = 16
_GAUSSIAN_DEVIATIONS = 4  # from the middle of a tile to its border


def weight_profile(blending: str, size: int) -> np.ndarray:
    """Give the weights along one side of a tile.

    Args:
        blending: "uniform" (1 everywhere), "cosine" (a Hann window) or "gaussian" (four deviations from the middle to
            the border).
        size: Pixels along the side.

    Returns:
        (size,) float32, symmetric, greater than 0 everywhere and at most 1.

    Raises:
        ValueError: If there is no such blending.
    """
    if blending not in BLENDINGS:
        raise ValueError(f"Expected a blending among {', '.join(BLENDINGS)}, found {blending!r}.")
    # Middles of pixels: no weight is 0, so a pixel that one tile alone holds has a mean as well.
    place = (np.arange(size) + 0.5) / size
    if blending == "cosine":
        return (np.sin(math.pi * place) ** 2).astype(np.float32)
    if blending == "gaussian":
        return np.exp(-0.5 * ((2 * place - 1) * _GAUSSIAN_DEVIATIONS) ** 2).astype(np.float32)
    return np.ones(size, dtype=np.float32)


def profile_sums(profile: np.ndarray, starts: Sequence[int], size: int) -> np.ndarray:
    """Sum the weights of all tiles along one side of the scene.

    Args:
        profile: Weights along a tile.
        starts: First pixel of each tile.
        size: Pixels along the side of the scene.

    Returns:
        (size,) float64, greater than 0 where the tiles cover the side.
    """
    sums = np.zeros(size)
    for start in starts:
        sums[start : start + len(profile)] += profile
    return sums


@dataclass(frozen=True, eq=False)
class Blending:
    """The weights of one plan.

    Args:
        kind: "uniform", which averages as the in-memory sliding window does, "cosine" or "gaussian".
        plan: Where the tiles lie.

    Raises:
        ValueError: If there is no such blending.
    """

    kind: str
    plan: TilePlan

    def __post_init__(self) -> None:
        rows, columns = (weight_profile(self.kind, side) for side in self.plan.window)
        sums = (
            profile_sums(rows, self.plan.tops, self.plan.height),
            profile_sums(columns, self.plan.lefts, self.plan.width),
        )
        object.__setattr__(self, "_profiles", (torch.from_numpy(rows), torch.from_numpy(columns)))
        object.__setattr__(self, "_sums", tuple(torch.from_numpy(side) for side in sums))

    def tile_weights(self, dtype: torch.dtype, device: torch.device) -> torch.Tensor | None:
        """Give the weights of a tile before division.

        Args:
            dtype: Of the sums.
            device: Of the sums.

        Returns:
            (h, w); None where all are 1.
        """
        if self.kind == "uniform":
            return None
        rows, columns = self._profiles
        return torch.outer(rows, columns).to(device, dtype)

    def weight_sums(self, start: int, stop: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Give what the sums of some rows are divided by.

        Args:
            start: First row.
            stop: The row after the last.
            dtype: Of the sums.
            device: Of the sums.

        Returns:
            (stop - start, W): with uniform weights the number of tiles that hold the pixel.
        """
        rows, columns = self._sums
        return torch.outer(rows[start:stop].to(device, dtype), columns.to(device, dtype))


class RowSums:
    """Weighted sums of logits of the rows that are not final yet: a ring one tile high and as wide as the scene.

    Args:
        blending: The weights and their plan.
        num_labels: Number of classes.
        dtype: Type of the sums, float32 or wider.
        device: Where the sums are kept.
    """

    def __init__(self, blending: Blending, num_labels: int, dtype: torch.dtype, device: torch.device) -> None:
        self._blending, self._plan = blending, blending.plan
        self._weights = blending.tile_weights(dtype, device)
        self._shape = (num_labels, self._plan.window[0], self._plan.width)
        self._dtype, self._device = dtype, device
        self._sums = self._new_sums()

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
        for ring, rows in ring_parts(start, stop, self._shape[1]):
            self._divide(self._sums[:, ring], start + rows.start)
        if stop - start == self._shape[1] and start % self._shape[1] == 0 and self._device.type == "cpu":
            # Tiles do not overlap here: the ring is the strip, and its taker may have it without a copy.
            means, self._sums = self._sums, self._new_sums()
            return means
        means = zeros_of_its_own((self._shape[0], stop - start, self._shape[2]), self._dtype)
        for ring, rows in ring_parts(start, stop, self._shape[1]):
            means[:, rows] = self._sums[:, ring]
        self.drop(row)
        return means

    def drop(self, row: int) -> None:
        """Make room for the next row of tiles.

        Args:
            row: Row of tiles, the index of the strip that is dropped.
        """
        for ring, _ in ring_parts(*self._plan.strip(row), self._shape[1]):
            self._sums[:, ring] = 0

    def _divide(self, sums: torch.Tensor, start: int) -> None:
        """Turn the sums of rows from `start` on into means, in place and some rows at a time to spare memory."""
        for first in range(0, sums.shape[1], _ROWS_AT_A_TIME):
            part = sums[:, first : first + _ROWS_AT_A_TIME]
            row = start + first
            part /= self._blending.weight_sums(row, row + part.shape[1], self._dtype, self._device)

    def _new_sums(self) -> torch.Tensor:
        if self._device.type == "cpu":
            return zeros_of_its_own(self._shape, self._dtype)
        return torch.zeros(self._shape, dtype=self._dtype, device=self._device)


def zeros_of_its_own(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Make zeros in memory that goes back to the system as soon as nobody holds them.

    The allocator of the C library keeps some of what large arrays leave, which adds up to as much again.

    Args:
        shape: Of the tensor, no side 0.
        dtype: Of the tensor.

    Returns:
        The tensor, on the CPU. Memory is taken where values are written.
    """
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


__all__ = ["BLENDINGS", "Blending", "RowSums", "profile_sums", "weight_profile", "zeros_of_its_own"]
