# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Sliding-window prediction: tiles of images larger than the model's own, logits averaged where tiles overlap."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from threading import Thread
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from .configuration_prithvi import PrithviConfig


def check_window_options(window: int | Sequence[int] | None, overlap: float, batch_size: int = 1) -> None:
    """Refuse options of tiles outside their range, before anything is read; None is the model's own tile."""
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap is a fraction of the window, 0 <= overlap < 1, found {overlap}.")
    if batch_size < 1:
        raise ValueError(f"batch_size is a number of windows, at least 1, found {batch_size}.")
    sides = window if isinstance(window, list | tuple) else (window, window)
    if window is not None and (len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides)):
        raise ValueError(f"window is a side in pixels or (height, width), whole and positive, found {window}.")


def window_and_stride(
    config: PrithviConfig, window: int | Sequence[int] | None = None, overlap: float = 0.5
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Give height and width of a tile, and rows and columns from one tile to the next, in pixels.

    The default tile is `config.image_size`, which the position table is made for, before `input_upsampling`. The
    original's recipes have an overlap of 0.5: tiles of 224 every 112 pixels.
    """
    check_window_options(window, overlap)
    height, width = config.frame_size if window is None else (window, window) if isinstance(window, int) else window
    if window is None and config.input_upsampling != 1:
        height, width = (
            max(1, round(height / config.input_upsampling)),
            max(1, round(width / config.input_upsampling)),
        )
    return (height, width), (max(1, round(height * (1 - overlap))), max(1, round(width * (1 - overlap))))


def window_starts(size: int, window: int, stride: int) -> list[int]:
    """Give the first pixel of each tile along one side: every `stride`, the last moved back to end at the border."""
    steps = max(size - window + stride - 1, 0) // stride + 1
    return [max(min(step * stride, size - window), 0) for step in range(steps)]


def list_windows(
    size: Sequence[int], window: tuple[int, int], stride: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """List the tiles (row, column, height, width) of an image of a size (height, width), row by row."""
    height, width = (min(side, whole) for side, whole in zip(window, size, strict=True))
    return [
        (top, left, height, width)
        for top in window_starts(size[0], height, stride[0])
        for left in window_starts(size[1], width, stride[1])
    ]


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Hold a model in evaluation mode, and give every module its own mode back afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def tile_threads(
    model: nn.Module, batch_size: int
) -> Iterator[Callable[[Callable[[slice], torch.Tensor], int], torch.Tensor]]:
    """Give a function of `predict` and a number of tiles, which joins what `predict` computes of parts of the tiles.

    `predict` gets the places of tiles in the batch as a slice. On a CPU each part is computed in a thread of its own.
    OpenMP would divide every operation among threads instead, and wait for the last of them hundreds of times per
    batch: where other processes keep the cores busy, the last has no core most of the time, and the model takes a
    hundred times as long. A thread with tiles of its own waits for no other. There are as many threads as torch would
    use, but no more than tiles in a whole batch; what the caller does meanwhile has one thread of torch. A model that
    is compiled, or that another runtime computes, has its own threads and gets the batch as it is.
    """
    count = torch.get_num_threads()
    weight = next(model.parameters(), None)
    is_plain = isinstance(model, PreTrainedModel) and model._compiled_call_impl is None
    workers = min(count, batch_size) if is_plain and weight is not None and weight.is_cpu else 1
    if workers == 1:
        yield lambda predict, size: predict(slice(0, size))
        return
    # Autocast and gradients are switched per thread.
    dtype, is_enabled = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")

    def compute(predict: Callable[[slice], torch.Tensor], part: slice) -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cpu", dtype, is_enabled):
            return predict(part)

    def compute_parts(predict: Callable[[slice], torch.Tensor], size: int) -> torch.Tensor:
        step = -(-size // workers)
        starts = range(0, size, step)
        parts = map(slice, starts, [*starts[1:], size])
        return torch.cat(list(pool.map(compute, repeat(predict), parts)))

    with ThreadPoolExecutor(workers, "tiles", set_threads_here, (count // workers, count)) as pool:
        set_threads_here(1, count)
        try:
            yield compute_parts
        finally:
            torch.set_num_threads(count)


def set_threads_here(number: int, elsewhere: int) -> None:
    """Set the number of torch's threads in this thread alone: those that begin after it get `elsewhere`."""
    torch.get_num_threads()  # the first call in a thread sets what was set last anywhere
    torch.set_num_threads(number)
    last = Thread(target=torch.set_num_threads, args=(elsewhere,))
    last.start()
    last.join()


@torch.no_grad()
def sliding_window_logits(
    model: PreTrainedModel,
    pixel_values: torch.Tensor,
    window: tuple[int, int],
    stride: tuple[int, int],
    batch_size: int = 8,
    coordinates: Mapping[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Compute logits of images of any size, as the mean over all tiles that hold a pixel.

    This is mmsegmentation's `slide_inference`: tiles are clamped to the border, logits (not probabilities) are
    averaged. Sums run in raster order of the tiles and in float32 or wider, whatever the batch size. Pixel values
    (B, C, T, H, W) or (B, C, H, W) of any device give (B, num_labels, H, W) on that of the model, which is in
    evaluation mode. An image smaller than the window (height, width) is one tile. `coordinates` are further arguments
    of the model: `temporal_coords` (B, T, 2) and `location_coords` (B, 2) of the images, which every tile gets, or
    `location_coords` (B, N, 2) of each of the N tiles that `list_windows` gives.
    """
    if batch_size < 1 or any(not 0 < step <= size for step, size in zip(stride, window, strict=True)):
        raise ValueError(
            f"Expected batch_size >= 1 and strides from 1 to the window {window}, found {batch_size} and {stride}."
        )
    size = pixel_values.shape[-2:]
    places = [
        (..., slice(top, top + height), slice(left, left + width))
        for top, left, height, width in list_windows(size, window, stride)
    ]

    def predict(image: torch.Tensor, extra: Mapping[str, torch.Tensor], first: int, part: slice) -> torch.Tensor:
        chosen = slice(first + part.start, first + part.stop)
        tiles = torch.stack([image[place] for place in places[chosen]])
        own = {
            name: values[chosen] if name == "location_coords" else values.expand(len(tiles), -1, 2)
            for name, values in extra.items()
        }
        return model(pixel_values=tiles.to(model.device), **own).logits

    results = []
    with tile_threads(model, batch_size) as compute_parts:
        for index, image in enumerate(pixel_values):
            extra = {name: values[index].to(model.device) for name, values in (coordinates or {}).items()}
            if "location_coords" in extra and extra["location_coords"].ndim == 1:
                extra["location_coords"] = extra["location_coords"].expand(len(places), 2)
            total = count = None
            for first in range(0, len(places), batch_size):
                batch = places[first : first + batch_size]
                logits = compute_parts(partial(predict, image, extra, first), len(batch))
                if total is None or count is None:
                    dtype = torch.promote_types(logits.dtype, torch.float32)
                    total = logits.new_zeros((logits.shape[1], *size), dtype=dtype)
                    count = logits.new_zeros(size, dtype=dtype)
                for place, tile in zip(batch, logits, strict=True):
                    total[place].add_(tile)
                    count[place].add_(1)
            results.append(cast(torch.Tensor, total) / cast(torch.Tensor, count))
    return torch.stack(results)
