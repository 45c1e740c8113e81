# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Where the chips of a scene are, in blocks that do not touch, and which of these blocks train, validate and test."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from prithvi_hf.data.builders.splits import divide_groups
from prithvi_hf.rasters.raster import Window


SPLITS = ("train", "validation", "test")
_GAP = 16  # of the side of a chip, between blocks
_BLOCKS = 100  # that a scene is divided into, where it is large enough
_LARGEST_BLOCK = 8  # chips along a side
_TRIALS, _MOST_DRAWS = 256, 400_000  # of divisions that are compared, and of chips in all of them


@dataclass(frozen=True)
class ChipPlace:
    """A chip of a scene.

    Attributes:
        window: its pixels.
        index: row and column among the chips; chips of other blocks are never neighbours by these.
        block: row and column of its block.
    """

    window: Window
    index: tuple[int, int]
    block: tuple[int, int]


@dataclass(frozen=True)
class ChipOptions:
    """How a scene is divided into chips.

    Attributes:
        size: side of a chip in pixels.
        stride: pixels from one chip to the next; None is the size, so that chips do not overlap.
        min_labelled: fraction of a chip's pixels that must have a label and data; chips without any are always left
            out.
        split: "spatial" divides blocks of chips among train, validation and test; "none" leaves all in train.
        fractions: of the chips that train, validation and test get.
        gap: pixels between blocks, which no chip has; None is a sixteenth of the size.
        block: chips along the side of a block; None for about a hundred blocks.
        seed: what decides among divisions into splits.
    """

    size: int = 512
    stride: int | None = None
    min_labelled: float = 0.0
    split: Literal["spatial", "none"] = "spatial"
    fractions: Sequence[float] = (0.7, 0.15, 0.15)
    gap: int | None = None
    block: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split not in ("spatial", "none"):
            raise ValueError(f"split: expected spatial or none, found {self.split!r}.")
        if not 0 <= self.min_labelled <= 1:
            raise ValueError(f"min_labelled: expected a fraction from 0 to 1, found {self.min_labelled:g}.")
        if self.split == "spatial":
            check_fractions(self.fractions)
        object.__setattr__(self, "fractions", tuple(map(float, self.fractions)))

    def lay_out(self, shape: tuple[int, int]) -> list[ChipPlace]:
        """Lay out the chips of a scene of (height, width) pixels."""
        stride = self.size if self.stride is None else self.stride
        if self.split == "none":
            return lay_out_chips(shape, self.size, stride, 0, max(shape))
        gap = max(1, self.size // _GAP) if self.gap is None else self.gap
        return lay_out_chips(shape, self.size, stride, gap, self.block)


def lay_out_chips(
    shape: tuple[int, int], size: int, stride: int, gap: int = 0, block: int | None = None
) -> list[ChipPlace]:
    """Lay out chips over a scene, row by row.

    A block has so many chips along each side, and blocks are `gap` pixels apart. Where half a chip or more is left at
    an edge of the scene, the last block has one more chip there, which overlaps with others of the block.

    Args:
        shape: height and width of the scene in pixels.
        size: side of a chip in pixels.
        stride: pixels from one chip to the next within a block.
        gap: pixels between blocks.
        block: chips along the side of a block; None for a size of which about a hundred fit, 8 at most.

    Raises:
        ValueError: an option is out of its range, or the scene is smaller than a chip.
    """
    for name, value, least in (("size", size, 1), ("stride", stride, 1), ("gap", gap, 0), ("block", block or 1, 1)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, found {value}.")
    if size > min(shape):
        raise ValueError(
            f"size: expected chips within the scene of {shape[0]} x {shape[1]} pixels, found a side of {size}. Give a "
            "smaller size."
        )
    if block is None:
        chips = math.prod((side - size) // stride + 1 for side in shape)
        block = int(np.clip(math.isqrt(chips // _BLOCKS), 1, _LARGEST_BLOCK))

    def place(side: int) -> list[tuple[int, int, int]]:
        """Give start, index and block of the chips along one side."""
        found, start, number = [], 0, 0
        while start + size <= side:
            for position in range(min(block, (side - size - start) // stride + 1)):
                found.append((start + position * stride, number * (block + 2) + position, number))
            start, number = start + (block - 1) * stride + size + gap, number + 1
        last, index, number = found[-1]
        rest = side - last - size
        return [*found, (side - size, index + 1, number)] if 2 * rest >= size else found

    rows, columns = map(place, shape)
    return [
        ChipPlace((row, column, size, size), (i, j), (down, right))
        for row, i, down in rows
        for column, j, right in columns
    ]


def check_fractions(fractions: Sequence[float]) -> None:
    """Refuse what are not the fractions of three splits, of which the first one is more than 0."""
    if len(fractions) != len(SPLITS) or any(not 0 <= one <= 1 for one in fractions) or not fractions[0] > 0:
        raise ValueError(
            "fractions: expected three from 0 to 1, of train (more than 0), validation and test, found "
            f"{' '.join(f'{one:g}' for one in fractions)}."
        )


def split_chips(
    pixels: Mapping[str, Sequence[int]], blocks: Mapping[str, str], fractions: Sequence[float], seed: int = 0
) -> dict[str, list[str]]:
    """Divide chips among train, validation and test, all chips of a block together.

    Of many divisions that the seed draws, the one is taken in which each split has its fraction of the pixels of each
    class most nearly, and lacks no class that could be there.

    Args:
        pixels: labelled pixels of each class, by chip.
        blocks: block of each chip.
        fractions: of the chips that train, validation and test get; a split of 0 is not made.
        seed: what decides among divisions; the same chips and seed give the same splits.

    Raises:
        ValueError: fractions that are none, or fewer blocks than splits.
    """
    check_fractions(fractions)
    wanted = {split: one for split, one in zip(SPLITS, fractions, strict=True) if one > 0}
    groups = {chip: blocks[chip] for chip in sorted(pixels)}
    if len(set(groups.values())) < len(wanted):
        raise ValueError(
            f"Expected labelled chips in at least {len(wanted)} blocks, one for each of {', '.join(wanted)}, found "
            f"{len(groups)} chips in {len(set(groups.values()))}. Give a smaller size, block or gap, label more of "
            "the scene, or set the fraction of a split to 0."
        )
    counts = np.array([pixels[chip] for chip in groups], dtype=float)  # (chips, classes)
    totals, place = counts.sum(axis=0), {chip: number for number, chip in enumerate(groups)}
    counts, totals = counts[:, totals > 0], totals[totals > 0]
    shares = np.array(list(wanted.values())) / sum(wanted.values())
    best, lowest = {}, math.inf
    for trial in range(int(np.clip(_MOST_DRAWS // len(groups), 1, _TRIALS))):
        divided = divide_groups(groups, wanted, seed * _TRIALS + trial, "the scene", "blocks")
        found = np.array([counts[[place[chip] for chip in chips]].sum(axis=0) for chips in divided.values()]) / totals
        score = np.abs(found - shares[:, None]).sum() + (found == 0).sum()
        if score < lowest:
            best, lowest = divided, score
    return best
