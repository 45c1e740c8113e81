# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Sliding-window prediction: images larger than the model's window, logits averaged where windows overlap."""

from collections.abc import Callable, Iterator

import torch

from .configuration_prithvi import PrithviConfig


def window_and_stride(
    config: PrithviConfig, window: int | tuple[int, int] | None = None, overlap: float = 0.5
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Window and stride in pixels.

    Args:
        config (`PrithviConfig`): Its `image_size`, which the position table is made for, is the default window.
        window (`int` or `tuple[int, int]`, *optional*): Height and width of a window.
        overlap (`float`, defaults to 0.5): Share of a window that its neighbour covers again, 0 <= overlap < 1. The
            original's recipes have 0.5: windows of 224 every 112 pixels.

    Raises:
        ValueError: The overlap is out of range or the window is not positive.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"Expected an overlap of at least 0 and below 1 (share of the window), found {overlap}.")
    window = config.frame_size if window is None else window
    height, width = (window, window) if isinstance(window, int) else window
    if min(height, width) < 1:
        raise ValueError(f"Expected a window of at least 1 pixel, found {height} x {width}.")
    return (height, width), (max(1, round(height * (1 - overlap))), max(1, round(width * (1 - overlap))))


def window_starts(size: int, window: int, stride: int) -> list[int]:
    """First pixel of each window along one side: every `stride`, the last one moved back to end at the border.

    Args:
        size (`int`): Pixels along the side.
        window (`int`): Pixels of a window; a side shorter than it gets one window.
        stride (`int`): Pixels from one window to the next.
    """
    steps = max(size - window + stride - 1, 0) // stride + 1
    return [max(min(step * stride, size - window), 0) for step in range(steps)]


def _batches(items: list[tuple[int, int]], batch_size: int) -> Iterator[list[tuple[int, int]]]:
    """Consecutive runs of at most `batch_size` windows."""
    for first in range(0, len(items), batch_size):
        yield items[first : first + batch_size]


@torch.no_grad()
def sliding_window_logits(
    model: torch.nn.Module,
    pixel_values: torch.Tensor,
    window: tuple[int, int],
    stride: tuple[int, int],
    batch_size: int = 8,
    on_windows: Callable[[int], None] | None = None,
) -> torch.Tensor:
    """Logits of images of any size, as the mean over all windows that hold a pixel.

    This is mmsegmentation's `slide_inference`: windows are clamped to the border, logits (not probabilities) are
    averaged. Sums run in raster order of the windows and in float32 or wider, whatever the batch size.

    Args:
        model (`PrithviForSemanticSegmentation`): The model, in evaluation mode.
        pixel_values (`torch.Tensor` of shape `(B, C, T, H, W)` or `(B, C, H, W)`): Images of one size, on any
            device; windows are moved to the model's.
        window (`tuple[int, int]`): Height and width of a window in pixels. An image smaller than it is one window.
        stride (`tuple[int, int]`): Rows and columns between windows, at most the window.
        batch_size (`int`, defaults to 8): Windows in one forward pass.
        on_windows (`Callable[[int], None]`, *optional*): Called with the number of windows done after each pass, for
            a progress bar.

    Returns:
        `torch.Tensor` of shape `(B, num_labels, H, W)` on the device of the model.

    Raises:
        ValueError: A stride is not positive or larger than the window, which would leave pixels out.
    """
    _check_windows(window, stride, batch_size)
    window = tuple(min(size, side) for size, side in zip(window, pixel_values.shape[-2:], strict=True))
    corners = [
        (top, left)
        for top in window_starts(pixel_values.shape[-2], window[0], stride[0])
        for left in window_starts(pixel_values.shape[-1], window[1], stride[1])
    ]
    images = [_image_logits(model, image, window, corners, batch_size, on_windows) for image in pixel_values]
    return torch.stack(images)


def _check_windows(window: tuple[int, int], stride: tuple[int, int], batch_size: int) -> None:
    """Refuse strides that leave pixels out, and empty batches."""
    if batch_size < 1 or any(not 0 < step <= size for step, size in zip(stride, window, strict=True)):
        raise ValueError(
            f"Expected batch_size >= 1 and strides from 1 to the window {window}, found {batch_size} and {stride}."
        )


def _image_logits(
    model: torch.nn.Module,
    image: torch.Tensor,
    window: tuple[int, int],
    corners: list[tuple[int, int]],
    batch_size: int,
    on_windows: Callable[[int], None] | None,
) -> torch.Tensor:
    """Mean logits `(num_labels, H, W)` of one image `(C, T, H, W)` or `(C, H, W)`."""
    total = count = None
    for batch in _batches(corners, batch_size):
        tiles = [_cut(image, corner, window) for corner in batch]
        logits = model(pixel_values=torch.stack(tiles).to(model.device)).logits
        if total is None:
            dtype = torch.promote_types(logits.dtype, torch.float32)
            total = logits.new_zeros((logits.shape[1], *image.shape[-2:]), dtype=dtype)
            count = logits.new_zeros(image.shape[-2:], dtype=dtype)
        for corner, tile in zip(batch, logits, strict=True):
            _cut(total, corner, window).add_(tile)
            _cut(count, corner, window).add_(1)
        if on_windows is not None:
            on_windows(len(batch))
    return total / count


def _cut(image: torch.Tensor, corner: tuple[int, int], window: tuple[int, int]) -> torch.Tensor:
    """The view of one window; rows and columns are the last two dimensions."""
    (top, left), (height, width) = corner, window
    return image[..., top : top + height, left : left + width]


__all__ = ["sliding_window_logits", "window_and_stride", "window_starts"]
