# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The model over a scene of any size, strip by strip.

A thread reads rows and prepares tiles; the model runs in the thread of the caller; each strip is handed out as soon as
it is final. What is in memory grows with the width of the scene: the rows of the files that a row of tiles needs, and
the sums of as many rows. The same strips come out, bit by bit, whether all of them are asked for or a few, since
batches hold tiles of one row only and sums run in raster order.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Self, TypeVar

import numpy as np
import torch

from prithvi_hf.models.prithvi.sliding_window_prithvi import evaluation_mode
from prithvi_hf.scenes.blending import Blending, RowSums
from prithvi_hf.scenes.reading import RowEnd, TileBatch, TileSource
from prithvi_hf.scenes.rows import BadWindow
from prithvi_hf.scenes.tiles import TTA, TilePlan


Symmetry = tuple[int, bool]
"""Quarter turns counter-clockwise, and whether columns are mirrored before them."""


def symmetries(tta: str, height: int, width: int) -> tuple[Symmetry, ...]:
    """Give the symmetries of a tile, the tile as it is first.

    Args:
        tta: "none", or "d4" for all that leave the tile's shape as it is.
        height: Rows of the tile.
        width: Columns of the tile.

    Returns:
        One for "none"; for "d4" the eight of a square, and four where the tile is none.

    Raises:
        ValueError: If there is no such tta.
    """
    if tta not in TTA:
        raise ValueError(f"Expected tta among {', '.join(TTA)}, found {tta!r}.")
    if tta == "none":
        return ((0, False),)
    turns = range(4) if height == width else (0, 2)
    return tuple((turn, mirrored) for mirrored in (False, True) for turn in turns)


def apply_symmetry(values: torch.Tensor, symmetry: Symmetry) -> torch.Tensor:
    """Mirror and turn.

    Args:
        values: (..., height, width).
        symmetry: Which one.

    Returns:
        The same values elsewhere.
    """
    turns, mirrored = symmetry
    return torch.rot90(values.flip(-1) if mirrored else values, turns, (-2, -1))


def undo_symmetry(values: torch.Tensor, symmetry: Symmetry) -> torch.Tensor:
    """Bring back what `apply_symmetry` moved.

    Args:
        values: (..., height, width).
        symmetry: Which one was applied.

    Returns:
        Every value where it was.
    """
    turns, mirrored = symmetry
    values = torch.rot90(values, -turns, (-2, -1))
    return values.flip(-1) if mirrored else values


def augmented_logits(
    forward: Callable[[torch.Tensor], torch.Tensor], pixel_values: torch.Tensor, tta: str
) -> torch.Tensor:
    """Give the mean logits over the symmetries of the tiles.

    Args:
        forward: From pixel values to logits (B, num_labels, h, w).
        pixel_values: (B, C, T, h, w).
        tta: "none" or "d4".

    Returns:
        (B, num_labels, h, w) in float32 or wider; for "none" what `forward` gives.

    Raises:
        ValueError: If there is no such tta.
    """
    others = symmetries(tta, *pixel_values.shape[-2:])[1:]
    logits = forward(pixel_values)
    if not others:
        return logits
    total = logits.to(torch.promote_types(logits.dtype, torch.float32))
    for symmetry in others:
        total = total + undo_symmetry(forward(apply_symmetry(pixel_values, symmetry).contiguous()), symmetry)
    return total / (1 + len(others))


T = TypeVar("T")


class BackgroundIterator(Generic[T]):
    """Runs an iterator in a thread, a few items ahead of who takes them.

    An error in the thread is raised where the next item is taken, after the items before it. The thread ends when the
    iterator does, and otherwise on `close`, at the latest once the item that it works on is made; the iterator is
    closed in the thread, so that its `finally` and `with` blocks run.

    Args:
        make: Makes the iterator; called in the thread.
        limit: Items that may wait, at least 1.
        name: Of the thread.

    Example:
        >>> with BackgroundIterator(lambda: iter([1, 2, 3]), limit=2) as items:
        ...     list(items)
        [1, 2, 3]
    """

    def __init__(self, make: Callable[[], Iterator[T]], limit: int, name: str = "reader") -> None:
        self._make, self._limit = make, limit
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = self._finished = False
        self._error: BaseException | None = None
        # A daemon: at the end of the process nobody may be left who would close it.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._finished)
            if self._items:
                self._changed.notify_all()
                return self._items.popleft()
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """End the thread and wait for it; what it has made is dropped."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        error = None
        try:
            self._hand_over()
        except BaseException as caught:  # raised again in the thread that takes the items
            error = caught
        with self._changed:
            self._error, self._finished = error, True
            self._changed.notify_all()

    def _hand_over(self) -> None:
        items = self._make()
        try:
            for item in items:
                if not self._put(item):
                    break
        finally:
            if hasattr(items, "close"):
                items.close()

    def _put(self, item: T) -> bool:
        """Wait for room and add an item; False when nobody takes any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._limit)
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()
            return not self._closed


READ_ERROR_RULES = ("raise", "nodata")
_BATCHES_AHEAD = 2
_WORKERS = min(4, os.cpu_count() or 1)
"""Threads that prepare tiles for an accelerator, which takes hundreds of them in a second."""
_ROWS_AT_A_TIME = 16


@dataclass(eq=False)
class Strip:
    """Rows of the map that are final.

    Attributes:
        index: Which strip of the plan.
        start, stop: First row and the row after the last.
        logits: (num_labels, h, W) float32 or wider on the CPU, the mean of the tiles that hold a pixel; NaN where
            there is no data.
        nodata: bool (h, W), True = no data.
        thumbnail: (3, h', W') float32 rows of a picture in natural colours, NaN where there is no data, for
            `thumbnails.stretch_thumbnail`; None where the model's bands have no such colours.
        bad_windows: With `on_read_error="nodata"`, file name and (row, column, height, width) in the scene of what
            could not be read among these rows.
        frame_nodata: Pixels of these rows in which each frame has no value at all.
        seconds: "reading" (in the thread), "model", and "waiting" of the model for the reader, since the strip before.
    """

    index: int
    start: int
    stop: int
    logits: torch.Tensor
    nodata: np.ndarray
    thumbnail: np.ndarray | None = None
    bad_windows: list[BadWindow] = field(default_factory=list)
    frame_nodata: list[int] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def predict_strips(
    model: torch.nn.Module,
    image_processor: Any,
    scene: Any,
    plan: TilePlan,
    strips: range | None = None,
    *,
    batch_size: int = 8,
    blending: str = "uniform",
    tta: str = "none",
    device: str | torch.device | None = None,
    on_read_error: str = "raise",
    on_windows: Callable[[int], None] | None = None,
) -> Iterator[Strip]:
    """Predict strips of a scene, one after the other.

    Tiles without any data are not run. The reader thread starts with the first strip that is taken and ends with the
    last, on an error, or when the iterator is closed, which leaving a `for` loop early does.

    Args:
        model: A `PrithviForSemanticSegmentation`; in evaluation mode meanwhile, and as it was afterwards.
        image_processor: Its `PrithviImageProcessor`.
        scene: The scene, as `open_scene` gives it.
        plan: Where the tiles lie.
        strips: Consecutive strips to predict; None for all. Rows of tiles before the first that reach into it are
            run as well.
        batch_size: Tiles in one forward pass, at least 1; a batch never holds tiles of two rows.
        blending: "uniform", which equals the in-memory sliding window, "cosine" or "gaussian".
        tta: "none", or "d4" for the mean over the tile turned and mirrored, at eight times the cost.
        device: Where to run; the model is moved there and stays. None is where it is.
        on_read_error: "raise", or "nodata" to take blocks that cannot be read for no data and list them.
        on_windows: Called with a number of tiles once they are done or known to be without data; all calls add up to
            `plan.count_tiles(strips)`.

    Returns:
        An iterator over the strips, in order.

    Raises:
        ValueError: At once if an argument leaves its range or the plan is not of the scene; from the iterator if the
            processor refuses the frames, or the model gives values that are not finite on pixels with data.
        GeoTiffError: From the iterator, if pixels cannot be read; the message names file and window.

    Example:
        >>> for strip in predict_strips(model, image_processor, scene, plan):  # doctest: +SKIP
        ...     classes[strip.start : strip.stop] = strip.logits.argmax(dim=0)
    """
    strips = range(plan.num_strips) if strips is None else strips
    _check(scene, plan, strips, batch_size, on_read_error)
    symmetries(tta, *plan.window)  # refuses what there is not
    weights = Blending(blending, plan)
    if device is not None:
        model.to(device)
    encoded = tuple(getattr(model.config, "coords_encoding", None) or ())
    on_cpu, is_cuda = model.device.type == "cpu", model.device.type == "cuda"
    options = {"pin_memory": is_cuda, "workers": 1 if on_cpu else _WORKERS}
    tiles = TileSource(scene, image_processor, plan, strips, batch_size, encoded, on_read_error, **options)
    return _Run(model, tiles, weights, tta, on_windows).strips()


def _check(scene: Any, plan: TilePlan, strips: range, batch_size: int, on_read_error: str) -> None:
    """Refuse arguments out of range before anything is read."""
    plan.check_strips(strips)
    if batch_size < 1:
        raise ValueError(f"Expected a batch_size of at least 1, found {batch_size}.")
    if on_read_error not in READ_ERROR_RULES:
        raise ValueError(
            f"Expected on_read_error to be one of {', '.join(READ_ERROR_RULES)}, found {on_read_error!r}."
        )
    sizes = {(scene.grid.height, scene.grid.width), *(tuple(frame.shape[-2:]) for frame in scene.frames)}
    if sizes != {(plan.height, plan.width)}:
        found = ", ".join(f"{height} x {width}" for height, width in sorted(sizes))
        raise ValueError(
            f"Expected a scene of {plan.height} x {plan.width} pixels, as the plan says, found {found}. Make the plan "
            "for the scene's grid."
        )


@dataclass
class _Run:
    """One call of `predict_strips`."""

    model: torch.nn.Module
    tiles: TileSource
    blending: Blending
    tta: str
    on_windows: Callable[[int], None] | None
    sums: RowSums | None = None
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("reading", "model", "waiting"), 0.0))

    def strips(self) -> Iterator[Strip]:
        """Run the model on what the thread prepares."""
        make = partial(iter, self.tiles)
        with evaluation_mode(self.model), BackgroundIterator(make, _BATCHES_AHEAD, "scene reader") as items:
            while (item := self._next(items)) is not None:
                if isinstance(item, TileBatch):
                    self._add(item)
                elif item.row in self.tiles.strips:
                    # Without a name here: the strip is its taker's alone, and may be gone before the next is made.
                    yield self._strip(item)
                else:
                    self._pass_by(item)

    def _next(self, items: Iterator[TileBatch | RowEnd]) -> TileBatch | RowEnd | None:
        clock = time.perf_counter()
        item = next(items, None)
        self.seconds["waiting"] += time.perf_counter() - clock
        return item

    @torch.no_grad()
    def _add(self, batch: TileBatch) -> None:
        clock = time.perf_counter()
        device = self.model.device
        coordinates = {name: values.to(device) for name, values in batch.coordinates.items()}
        pixel_values = batch.pixel_values.to(device, non_blocking=True)
        logits = augmented_logits(
            lambda tiles: self.model(pixel_values=tiles, **coordinates).logits, pixel_values, self.tta
        )
        if self.sums is None:
            dtype = torch.promote_types(logits.dtype, torch.float32)
            self.sums = RowSums(self.blending, logits.shape[1], dtype, logits.device)
        for left, tile in zip(batch.lefts, logits, strict=True):
            self.sums.add(batch.row, left, tile)
        self.seconds["model"] += time.perf_counter() - clock
        self._report(len(batch.lefts))

    @torch.no_grad()
    def _strip(self, end: RowEnd) -> Strip:
        clock = time.perf_counter()
        start, stop = self.tiles.plan.strip(end.row)
        logits = self._means(end.row)
        _check_finite(logits, end.nodata, start, self.tiles.scene.name)
        logits.masked_fill_(torch.from_numpy(end.nodata), torch.nan)
        self.seconds["model"] += time.perf_counter() - clock
        self._report(end.skipped)
        seconds = {**self.seconds, "reading": end.seconds}
        self.seconds.update(dict.fromkeys(self.seconds, 0.0))
        found = (end.thumbnail, end.bad_windows, end.frame_nodata)
        return Strip(end.row, start, stop, logits, end.nodata, *found, seconds)

    def _pass_by(self, end: RowEnd) -> None:
        """Leave out rows above the first strip, whose tiles were run for what they hold of it."""
        if self.sums is not None:
            self.sums.drop(end.row)
        self._report(end.skipped)

    def _means(self, row: int) -> torch.Tensor:
        """Means of a strip; zeros as long as no tile was run, for want of any data."""
        if self.sums is not None:
            return self.sums.take(row)
        start, stop = self.tiles.plan.strip(row)
        return torch.zeros((self.model.config.num_labels, stop - start, self.tiles.plan.width))

    def _report(self, tiles: int) -> None:
        if self.on_windows is not None and tiles:
            self.on_windows(tiles)


def _check_finite(logits: torch.Tensor, nodata: np.ndarray, start: int, name: str) -> None:
    """Refuse logits that are not finite where there is data; looks at some rows at a time to spare memory."""
    broken = ~nodata
    for first in range(0, len(nodata), _ROWS_AT_A_TIME):
        rows = slice(first, first + _ROWS_AT_A_TIME)
        broken[rows] &= ~torch.isfinite(logits[:, rows]).all(dim=0).numpy()
    if not broken.any():
        return
    rows, columns = (np.flatnonzero(broken.any(axis=axis)) for axis in (1, 0))
    raise ValueError(
        f"{name}: the model gives values that are not finite at {int(broken.sum())} pixels with data, in rows "
        f"{start + rows[0]} to {start + rows[-1]} and columns {columns[0]} to {columns[-1]}: check its weights, and "
        "the dtype it runs in (float32 or bfloat16 instead of float16)."
    )


__all__ = [
    "READ_ERROR_RULES",
    "BackgroundIterator",
    "Strip",
    "apply_symmetry",
    "augmented_logits",
    "predict_strips",
    "symmetries",
    "undo_symmetry",
]
