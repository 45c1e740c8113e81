# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The model over a scene of any size, strip by strip.

A thread reads rows and prepares tiles; the model runs in the thread of the caller; each strip is handed out as soon as
it is final. What is in memory grows with the width of the scene: the rows of the files that a row of tiles needs, and
the sums of as many rows. The same strips come out, bit by bit, whether all of them are asked for or a few, since
batches hold tiles of one row only and sums run in raster order.

Weights of overlapping tiles are products of a profile down the rows and one along the columns, so their sum at a pixel
is the product of two sums along the sides of the scene, known before any tile is. Dividing by it makes the weights of
a pixel sum to 1.
"""

import math
import mmap
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

import numpy as np
import torch

from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.modeling_prithvi import PrithviMapModel
from prithvi_hf.models.prithvi.sliding_window_prithvi import evaluation_mode, tile_threads
from prithvi_hf.scenes.reading import BadWindow, RowEnd, TileBatch, TileSource, ring_parts
from prithvi_hf.scenes.scene import Scene, warn_of_unknown_coordinates
from prithvi_hf.scenes.tiles import TilePlan, WindowOptions


READ_ERROR_RULES = ("raise", "nodata")
_BATCHES_AHEAD = 2
_ROWS_AT_A_TIME = 16  # spares memory where all rows of a strip are looked at
_GAUSSIAN_DEVIATIONS = 4  # from the middle of a tile to its border
_T = TypeVar("_T")


def weight_profile(blending: str, size: int) -> torch.Tensor:
    """Give the weights along one side of a tile, (size,) float32, symmetric, greater than 0 and at most 1.

    "uniform" is 1 everywhere, "cosine" a Hann window, "gaussian" has four deviations from the middle to the border.
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
    """Weighted sums of logits of the rows that are not final yet: a ring one tile high and as wide as the scene."""

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
        """Add the logits (num_labels, h, w) of a tile. Tiles come in raster order: the sums are always the same."""
        height, width = self._plan.window
        top = self._plan.tops[row]
        if self._weights is not None:
            logits = logits.to(self._dtype) * self._weights
        for ring, rows in ring_parts(top, top + height, height):
            self._sums[:, ring, left : left + width] += logits[:, rows]

    def take(self, row: int) -> torch.Tensor:
        """Take the means (num_labels, h, W) of the strip that is final after a row of tiles, and make room again.

        They are on the CPU, and 0 where no tile was added.
        """
        start, stop = self._plan.strip(row)
        num_labels, capacity, width = self._sums.shape
        on_cpu = self._device.type == "cpu"
        # Tiles that do not overlap: the ring is the strip, and its taker may have it without a copy.
        is_whole = stop - start == capacity and start % capacity == 0 and on_cpu
        means = self._sums if is_whole else mmap_zeros((num_labels, stop - start, width), self._dtype)
        for ring, rows in ring_parts(start, stop, capacity):
            for first in range(rows.start, rows.stop, _ROWS_AT_A_TIME):  # some rows at a time to spare memory
                last = min(first + _ROWS_AT_A_TIME, rows.stop)
                part = self._sums[:, ring][:, first - rows.start : last - rows.start]
                weights = torch.outer(self._row_weights[start + first : start + last], self._column_weights)
                quotient = torch.div(part, weights, out=means[:, first:last] if on_cpu else None)
                if not on_cpu:
                    means[:, first:last] = quotient
            if not is_whole:
                self._sums[:, ring] = 0  # for the next row of tiles
        if is_whole:
            self._sums = mmap_zeros((num_labels, capacity, width), self._dtype)
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


@dataclass(eq=False)
class Strip:
    """Rows of the map that are final."""

    index: int  # in the plan
    start: int  # first row
    stop: int  # the row after the last
    # (num_labels, h, W) float32 or wider on the CPU, the mean of the tiles that hold a pixel; NaN = no data.
    logits: torch.Tensor
    nodata: np.ndarray  # bool (h, W), True = no data
    # (3, h', W') float32, what is shown as red, green and blue of the last date, in the units of the file, NaN = no
    # data; None where it was not asked for.
    thumbnail: np.ndarray | None = None
    bad_windows: list[BadWindow] = field(default_factory=list)  # what could not be read among these rows
    frame_nodata: list[int] = field(default_factory=list)  # pixels in which each frame has no value at all
    band_sums: list[float] = field(default_factory=list)  # see `RowEnd`
    # "reading" (in the thread), "model", and "waiting" of the model for the reader, since the strip before.
    seconds: dict[str, float] = field(default_factory=dict)


def predict_strips(
    model: PrithviMapModel,
    image_processor: PrithviImageProcessor,
    scene: Scene,
    plan: TilePlan,
    strips: range | None = None,
    *,
    batch_size: int = 8,
    blending: str = "uniform",
    tta: str = "none",
    device: str | torch.device | None = None,
    on_read_error: str = "raise",
    thumbnail: bool = False,
    on_windows: Callable[[int], None] | None = None,
) -> Iterator[Strip]:
    """Predict consecutive strips of a scene, all of them by default, one after the other.

    Tiles without any data are not run; rows of tiles before the first strip that reach into it are. The reader thread
    starts with the first strip that is taken and ends with the last, on an error, or when the iterator is closed,
    which leaving a `for` loop early does. The model is moved to `device` and stays, in evaluation mode meanwhile.
    A batch never holds tiles of two rows. With `on_read_error="nodata"` blocks that cannot be read are no data, and
    listed. `on_windows` is called with a number of tiles once they are done or known to be without data; all calls add
    up to `plan.count_tiles(strips)`.

    Raises:
        ValueError: At once if an argument leaves its range or the plan is not of the scene; from the iterator if the
            processor refuses the frames, or the model gives values that are not finite on pixels with data.
        GeoTiffError: From the iterator, if pixels cannot be read; the message names file and window.
    """
    strips = range(plan.num_strips) if strips is None else strips
    plan.tile_rows_for(strips)  # refuses strips that are not of the scene
    WindowOptions(batch_size=batch_size, blending=blending, tta=tta)  # refuses what leaves its range
    if on_read_error not in READ_ERROR_RULES:
        raise ValueError(f"on_read_error: expected {' or '.join(READ_ERROR_RULES)}, found {on_read_error!r}.")
    sizes = {(scene.grid.height, scene.grid.width)}
    for frame in scene.frames:
        sizes.add((frame.shape[-2], frame.shape[-1]))
    if sizes != {(plan.height, plan.width)}:
        found = ", ".join(f"{height} x {width}" for height, width in sorted(sizes))
        raise ValueError(
            f"Expected a scene of {plan.height} x {plan.width} pixels, as the plan says, found {found}. Make the plan "
            "for the scene's grid."
        )
    if device is not None:
        model.to(device)  # type: ignore[arg-type]  # transformers wraps the method
    encoded = tuple(getattr(model.config, "coords_encoding", None) or ())
    if encoded:
        warn_of_unknown_coordinates(scene, image_processor, encoded)
    tiles = TileSource(
        scene,
        image_processor,
        plan,
        strips,
        batch_size,
        encoded=encoded,
        on_read_error=on_read_error,
        thumbnail=thumbnail,
        pin_memory=model.device.type == "cuda",
    )
    return _run_model(model, tiles, batch_size, blending, tta, on_windows or (lambda count: None))


def _run_model(
    model: PrithviMapModel,
    tiles: TileSource,
    batch_size: int,
    blending: str,
    tta: str,
    on_windows: Callable[[int], None],
) -> Iterator[Strip]:
    """Run the model on what the thread prepares, and hand out the strips."""
    sums: RowSums | None = None  # its type is that of the first logits
    seconds = {"reading": 0.0, "model": 0.0, "waiting": 0.0}
    items = iterate_in_background(partial(iter, tiles), _BATCHES_AHEAD, "scene reader")
    with evaluation_mode(model), tile_threads(model, batch_size) as compute_parts, closing(items):
        clock = time.perf_counter()
        for item in items:
            begin = time.perf_counter()
            seconds["waiting"] += begin - clock
            if isinstance(item, TileBatch):
                predict = partial(predict_tiles, model, item.pixel_values, item.coordinates, tta)
                logits = compute_parts(predict, len(item.lefts))
                if sums is None:
                    dtype = torch.promote_types(logits.dtype, torch.float32)
                    sums = RowSums(tiles.plan, blending, logits.shape[1], dtype, logits.device)
                for left, tile in zip(item.lefts, logits, strict=True):
                    sums.add(item.row, left, tile)
                seconds["model"] += time.perf_counter() - begin
                on_windows(len(item.lefts))
            elif item.row in tiles.strips:
                on_windows(item.skipped)
                num_labels: int = model.config.num_labels  # type: ignore[assignment]  # optional in the stubs
                # Without a name here: the strip is its taker's alone, and may be gone before the next is made.
                yield _finish_strip(sums, tiles, item, num_labels, seconds)
                seconds = dict.fromkeys(seconds, 0.0)
            else:
                # Rows above the first strip, whose tiles were run for what they hold of it.
                if sums is not None:
                    sums.drop(item.row)
                on_windows(item.skipped)
            clock = time.perf_counter()


@torch.no_grad()
def predict_tiles(
    model: PrithviMapModel,
    pixel_values: torch.Tensor,
    coordinates: dict[str, torch.Tensor] | None = None,
    tta: str = "none",
    part: slice = slice(None),
) -> torch.Tensor:
    """Give the logits (B, num_labels, h, w) of tiles (B, C, T, h, w), or their mean over the tiles' symmetries.

    "d4" takes all symmetries that leave the tile's shape as it is, and gives float32 or wider. `coordinates` are
    further arguments of the model. Of the tiles in `part` alone, where it is given.
    """
    pixel_values = pixel_values[part].to(model.device, non_blocking=True)
    if coordinates:
        coordinates = {name: values[part].to(model.device) for name, values in coordinates.items()}
    coordinates = coordinates or {}
    logits = model(pixel_values=pixel_values, **coordinates).logits
    if tta == "none":
        return logits
    # Quarter turns of the tile as it is and mirrored: eight symmetries of a square, four of another rectangle.
    turns = range(4) if pixel_values.shape[-1] == pixel_values.shape[-2] else range(0, 4, 2)
    symmetries = [(turn, mirrored) for mirrored in (False, True) for turn in turns]
    total = logits.to(torch.promote_types(logits.dtype, torch.float32))
    for turn, mirrored in symmetries[1:]:
        tiles = torch.rot90(pixel_values.flip(-1) if mirrored else pixel_values, turn, (-2, -1)).contiguous()
        back = torch.rot90(model(pixel_values=tiles, **coordinates).logits, -turn, (-2, -1))
        total = total + (back.flip(-1) if mirrored else back)
    return total / len(symmetries)


def _finish_strip(
    sums: RowSums | None, tiles: TileSource, end: RowEnd, num_labels: int, seconds: dict[str, float]
) -> Strip:
    """Take the means of a strip and refuse logits that are not finite where there is data."""
    clock = time.perf_counter()
    start, stop = tiles.plan.strip(end.row)
    # Without any data no tile was run.
    logits = torch.zeros((num_labels, stop - start, tiles.plan.width)) if sums is None else sums.take(end.row)
    broken = np.zeros_like(end.nodata)
    # A sum is not finite where a value is not, which one pass tells; it is looked for only then.
    for first in range(0, 0 if math.isfinite(logits.sum()) else stop - start, _ROWS_AT_A_TIME):  # to spare memory
        rows = slice(first, first + _ROWS_AT_A_TIME)
        broken[rows] = ~torch.isfinite(logits[:, rows]).all(dim=0).numpy() & ~end.nodata[rows]
    if broken.any():
        bad_rows, bad_columns = np.flatnonzero(broken.any(axis=1)), np.flatnonzero(broken.any(axis=0))
        raise ValueError(
            f"{tiles.scene.name}: the model gives values that are not finite at {int(broken.sum())} pixels with data, "
            f"in rows {start + bad_rows[0]} to {start + bad_rows[-1]} and columns {bad_columns[0]} to "
            f"{bad_columns[-1]}: check its weights, the dtype it runs in (float32 or bfloat16 instead of float16), "
            f"and the values of {', '.join(tiles.scene.files) or 'the frames'}."
        )
    if end.nodata.any():
        logits.masked_fill_(torch.from_numpy(end.nodata), torch.nan)
    seconds = {**seconds, "reading": end.seconds, "model": seconds["model"] + time.perf_counter() - clock}
    found = (end.thumbnail, end.bad_windows, end.frame_nodata, end.band_sums)
    return Strip(end.row, start, stop, logits, end.nodata, *found, seconds)


def iterate_in_background(
    make: Callable[[], Iterator[_T]], limit: int, name: str = "reader"
) -> Generator[_T, None, None]:
    """Run the iterator that `make` makes in a thread, at most `limit` items ahead of the consumer.

    An error in the thread is raised where the next item is taken, after the items before it. The thread ends when the
    iterator does, and otherwise when this generator is closed, at the latest once the item that it works on is made;
    the iterator is closed in the thread, so that its `finally` and `with` blocks run.
    """
    items: SimpleQueue[tuple[_T] | None] = SimpleQueue()
    room, closed = threading.Semaphore(limit), threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            iterator = make()
            try:
                for item in iterator:
                    room.acquire()
                    if closed.is_set():
                        break
                    items.put((item,))
            finally:
                if hasattr(iterator, "close"):
                    iterator.close()
        except BaseException as error:  # raised again in the thread that takes the items
            errors.append(error)
        items.put(None)

    # A daemon: at the end of the process nobody may be left who would close the generator.
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        while (taken := items.get()) is not None:
            room.release()
            yield taken[0]
        if errors:
            raise errors.pop()
    finally:
        closed.set()
        room.release()
        thread.join()
