# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Where the tiles of a scene are, and which rows of the map are final after which of them. No pixels, no files."""

import bisect
from dataclasses import dataclass, field
from typing import Self

from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.models.prithvi.sliding_window_prithvi import check_window_options, window_and_stride, window_starts


BLENDINGS = ("uniform", "cosine", "gaussian")
TTA = ("none", "d4")


@dataclass(frozen=True)
class WindowOptions:
    """How the model slides over a scene.

    Args:
        window: Side of a tile in pixels, or (height, width); None is the model's `image_size`.
        overlap: Fraction of a tile that the next one covers again, 0 <= overlap < 1.
        batch_size: Tiles in one forward pass, at least 1; memory of the device grows with it.
        blending: Weights of overlapping tiles: "uniform", which averages as the in-memory sliding window does,
            "cosine" or "gaussian".
        tta: "none", or "d4" for the mean over the tile turned and mirrored, at eight times the cost.

    Raises:
        ValueError: If one leaves its range.
    """

    window: int | tuple[int, int] | None = None
    overlap: float = 0.5
    batch_size: int = 8
    blending: str = "uniform"
    tta: str = "none"

    def __post_init__(self) -> None:
        if isinstance(self.window, list):
            object.__setattr__(self, "window", tuple(self.window))  # the class is frozen
        check_window_options(self.window, self.overlap, self.batch_size)
        for name, known in (("blending", BLENDINGS), ("tta", TTA)):
            if getattr(self, name) not in known:
                found = getattr(self, name)
                raise ValueError(f"{name}: expected one of {', '.join(known)}, found {found!r}. Choose one of these.")


@dataclass(frozen=True)
class TilePlan:
    """The tiles that cover a scene, row of tiles by row of tiles, as the in-memory sliding window lays them.

    Strips divide the rows of the scene: strip i holds the rows that no tile after those of row i touches, so that they
    are final once row i is done. There are as many strips as rows of tiles.
    """

    height: int
    width: int
    window: tuple[int, int]  # height and width of a tile in pixels; afterwards no larger than the scene
    stride: tuple[int, int]  # rows and columns from one tile to the next, 1 to the window
    tops: tuple[int, ...] = field(init=False)  # first row of each row of tiles
    lefts: tuple[int, ...] = field(init=False)  # first column of each tile of a row

    def __post_init__(self) -> None:
        window, stride = tuple(self.window), tuple(self.stride)
        if min(self.height, self.width, *window) < 1:
            raise ValueError(
                f"Expected a scene and a window of at least 1 pixel, found {self.height} x {self.width} and {window}."
            )
        if any(not 0 < step <= side for step, side in zip(stride, window, strict=True)):
            raise ValueError(f"Expected strides from 1 to the window {window}, found {stride}.")
        window = (min(window[0], self.height), min(window[1], self.width))
        stride = (min(stride[0], window[0]), min(stride[1], window[1]))
        tops = window_starts(self.height, window[0], stride[0])
        lefts = window_starts(self.width, window[1], stride[1])
        for name, value in {"window": window, "stride": stride, "tops": tuple(tops), "lefts": tuple(lefts)}.items():
            object.__setattr__(self, name, value)  # the class is frozen

    @classmethod
    def for_model(
        cls,
        config: PrithviConfig,
        height: int,
        width: int,
        window: int | tuple[int, int] | None = None,
        overlap: float = 0.5,
    ) -> Self:
        """Plan by a model's own window, its `image_size`, or another one; see `WindowOptions`."""
        return cls(height, width, *window_and_stride(config, window, overlap))

    @property
    def num_strips(self) -> int:
        """Number of strips, which is the number of rows of tiles."""
        return len(self.tops)

    def strip(self, index: int) -> tuple[int, int]:
        """Give the first row of a strip, 0 to `num_strips - 1`, and the row after its last."""
        if not 0 <= index < self.num_strips:
            raise IndexError(f"Expected a strip from 0 to {self.num_strips - 1}, found {index}.")
        return self.tops[index], (*self.tops, self.height)[index + 1]

    def tile_rows_for(self, strips: range) -> range:
        """Give the rows of tiles that reach into consecutive strips: their own, and some before the first."""
        if strips.step != 1 or not 0 <= strips.start < strips.stop <= self.num_strips:
            raise ValueError(
                f"Expected consecutive strips among the {self.num_strips} of the scene, at least one, found {strips}."
            )
        # A tile reaches into the first strip where it begins less than its height above it.
        return range(bisect.bisect_right(self.tops, self.tops[strips.start] - self.window[0]), strips.stop)

    def count_tiles(self, strips: range) -> int:
        """Count the tiles that consecutive strips need, those without any data included, for a progress bar."""
        return len(self.tile_rows_for(strips)) * len(self.lefts)
