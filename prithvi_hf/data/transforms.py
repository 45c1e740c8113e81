# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""From rows of rasters to training examples: paired crops, the image processor, flips and rotations, batches."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from ..image_processing_prithvi import PrithviImageProcessor
from ..labels_prithvi import IGNORED_LABEL
from .raster import GeoTiffRaster


_MAX_DRAWS = 10

Image = GeoTiffRaster | tuple[GeoTiffRaster, ...]
CropWindow = tuple[int, int, int, int]


class SegmentationTransform:
    """Turns rows of a data set of chips into examples, for `Dataset.with_transform`.

    In training a crop is drawn at random, image and mask are read only there, the image processor is applied, and then
    the tensors are flipped and rotated together. A crop without any valid label is drawn again; a chip without any
    gives a crop as it is. A chip smaller than the crop is padded right and bottom, the image by reflection and the
    labels by -100. In evaluation the whole chip is read, without augmentation.

    Random numbers come from torch's global generator, which differs in each worker of a DataLoader.

    Args:
        image_processor (`PrithviImageProcessor`): bands, nodata, scale, statistics and labels.
        crop_size (`int` or `tuple[int, int]`, *optional*): height and width of training crops in pixels; None takes
            whole chips.
        augmentation (`str`, *optional*, defaults to `"none"`): of training examples, "hflip" for a left-right flip of
            every other one on average, "d4" for one of the eight symmetries of the square (one of the four that keep
            the shape, where height and width differ).
        train (`bool`, *optional*, defaults to `False`): training or evaluation.

    Raises:
        ValueError: an unknown augmentation or a crop size that is not positive; when called, a mask that is missing
            or not of its image's size, and what the image processor finds wrong.

    Example:
    ```python
    >>> transform = SegmentationTransform(image_processor, crop_size=224, augmentation="hflip", train=True)
    >>> dataset.with_transform(transform)[0]["pixel_values"].shape
    torch.Size([6, 1, 224, 224])
    ```
    """

    def __init__(
        self,
        image_processor: PrithviImageProcessor,
        crop_size: int | Sequence[int] | None = None,
        augmentation: Literal["none", "hflip", "d4"] = "none",
        train: bool = False,
    ) -> None:
        if augmentation not in ("none", "hflip", "d4"):
            raise ValueError(f"Expected augmentation none, hflip or d4, found {augmentation!r}.")
        self.image_processor = image_processor
        self.crop_size = _as_size(crop_size)
        self.augmentation = augmentation
        self.train = train

    def __call__(self, rows: Mapping[str, list[Any]]) -> dict[str, list[torch.Tensor]]:
        """Transforms a batch of rows.

        Args:
            rows (`Mapping[str, list]`): columns `image` (a raster or a list of frames) and `mask` (a raster; None, or
                no such column, for evaluation without labels).

        Returns:
            `dict[str, list[torch.Tensor]]`: `pixel_values` float32, each `(num_channels, num_frames, height, width)`,
            and `labels` int64, each `(height, width)`, ignored pixels -100; no `labels` where no row has a mask.
        """
        images = [tuple(image) if isinstance(image, list | tuple) else image for image in rows["image"]]
        masks = rows.get("mask") or [None] * len(images)
        examples = [self._transform(image, mask) for image, mask in zip(images, masks, strict=True)]
        if all(labels is None for _, labels in examples):
            return {"pixel_values": [pixel_values for pixel_values, _ in examples]}
        for image, (_, labels) in zip(images, examples, strict=True):
            _check_mask(image, labels)
        return {
            "pixel_values": [pixel_values for pixel_values, _ in examples],
            "labels": [labels for _, labels in examples],
        }

    def _transform(self, image: Image, mask: GeoTiffRaster | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        _check_rasters(image, mask)
        if not self.train:
            return self._process(image, mask)
        _check_mask(image, mask)
        if self.crop_size is None:
            return self._augment(*self._process(image, mask))
        return self._augment(*_pad(*self._draw_crop(image, mask), self.crop_size))

    def _process(self, image: Image, mask: GeoTiffRaster | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Applies the image processor to one image: `(num_channels, num_frames, height, width)`, `(height, width)`."""
        inputs = self.image_processor([image], None if mask is None else [mask], return_tensors="pt")
        return inputs["pixel_values"][0], None if mask is None else inputs["labels"][0]

    def _process_window(
        self, image: Image, mask: GeoTiffRaster, window: CropWindow
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._process(_select(image, window), mask.select(window=window))

    def _draw_crop(self, image: Image, mask: GeoTiffRaster) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws crops until one holds a valid label; after a few, places one on a valid label of the chip, if any."""
        size = mask.shape[-2:]
        for _ in range(_MAX_DRAWS):
            example = self._process_window(image, mask, _draw_window(size, self.crop_size))
            if (example[1] != IGNORED_LABEL).any():
                return example
        labels = self._process(image, mask)[1]
        valid = (labels != IGNORED_LABEL).nonzero()
        if not len(valid):
            return example
        pixel = valid[torch.randint(len(valid), ())].tolist()
        return self._process_window(image, mask, _draw_window(size, self.crop_size, pixel))

    def _augment(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Flips and rotates image and labels together; both have height and width as their last axes."""
        if self.augmentation == "none":
            return pixel_values, labels
        flip = bool(torch.randint(2, ()))
        turns = 0
        if self.augmentation == "d4":
            square = labels.shape[-1] == labels.shape[-2]
            turns = int(torch.randint(4, ())) if square else 2 * int(torch.randint(2, ()))
        return tuple(_flip_and_turn(tensor, flip, turns) for tensor in (pixel_values, labels))


def collate_chips(rows: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Stacks examples into a batch, for a DataLoader.

    Args:
        rows (`Sequence[Mapping[str, torch.Tensor]]`): examples of [`SegmentationTransform`].

    Returns:
        `dict[str, torch.Tensor]`: `pixel_values` `(batch_size, num_channels, num_frames, height, width)` and, where
        the examples have them, `labels` `(batch_size, height, width)`.

    Raises:
        ValueError: examples of different sizes, or of which only some have labels.
    """
    keys = [key for key in ("pixel_values", "labels") if any(key in row for row in rows)]
    for key in keys:
        if not all(key in row for row in rows):
            raise ValueError(f"Expected {key} in every example of a batch, found some without. Give all chips a mask.")
        shapes = sorted({tuple(row[key].shape) for row in rows})
        if len(shapes) > 1:
            raise ValueError(
                f"Expected {key} of one shape in a batch, found {', '.join(map(str, shapes))}. Train on crops "
                "(crop_size), and evaluate chips of different sizes with a batch size of 1."
            )
    return {key: torch.stack([row[key] for row in rows]) for key in keys}


def _as_size(crop_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if crop_size is None:
        return None
    size = tuple(crop_size) if isinstance(crop_size, list | tuple) else (crop_size, crop_size)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(f"Expected crop_size as one or two positive integers (height, width), found {crop_size!r}.")
    return size


def _frames(image: Image) -> tuple[GeoTiffRaster, ...]:
    return image if isinstance(image, tuple) else (image,)


def _select(image: Image, window: CropWindow) -> Image:
    return (
        tuple(frame.select(window=window) for frame in image)
        if isinstance(image, tuple)
        else image.select(window=window)
    )


def _check_rasters(image: Image, mask: GeoTiffRaster | None) -> None:
    """One window is read from all frames and the mask, so that they must lie on one grid."""
    rasters = [*_frames(image), *([] if mask is None else [mask])]
    strange = next((raster for raster in rasters if not isinstance(raster, GeoTiffRaster)), None)
    if strange is not None:
        raise TypeError(
            f"Expected rasters in the columns image and mask, found {type(strange).__name__}. Cast the columns with "
            "`dataset.cast_column(name, GeoTiff())`."
        )
    if len({raster.shape[-2:] for raster in rasters}) > 1:
        sizes = ", ".join(f"{raster.name} {raster.height} x {raster.width}" for raster in rasters)
        raise ValueError(
            f"Expected image and mask of one size (height x width), found {sizes}. Bring them to one grid."
        )


def _check_mask(image: Image, mask: Any) -> None:
    if mask is None:
        raise ValueError(
            f"{_frames(image)[0].name}: expected a mask for each chip, found none. Add it, or leave it out."
        )


def _draw_window(size: tuple[int, int], crop: tuple[int, int], pixel: Sequence[int] | None = None) -> CropWindow:
    """Draws a crop window, as far as the chip reaches; all that hold `pixel`, if given, are equally likely."""
    sides = [min(side, wanted) for side, wanted in zip(size, crop, strict=True)]
    starts = []
    for axis, side in enumerate(sides):
        first = 0 if pixel is None else max(0, pixel[axis] - side + 1)
        last = size[axis] - side if pixel is None else min(size[axis] - side, pixel[axis])
        starts.append(int(torch.randint(first, last + 1, ())))
    return (starts[0], starts[1], sides[0], sides[1])


def _pad(pixel_values: torch.Tensor, labels: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pads right and bottom up to a size; reflection goes back and forth where a chip is smaller than its padding."""
    height, width = labels.shape
    missing = (max(0, size[0] - height), max(0, size[1] - width))
    if missing == (0, 0):
        return pixel_values, labels
    rows, columns = (
        torch.from_numpy(np.pad(np.arange(side), (0, extra), mode="reflect"))
        for side, extra in zip((height, width), missing, strict=True)
    )
    padded = torch.nn.functional.pad(labels, (0, missing[1], 0, missing[0]), value=IGNORED_LABEL)
    return pixel_values[..., rows, :][..., columns], padded


def _flip_and_turn(tensor: torch.Tensor, flip: bool, turns: int) -> torch.Tensor:
    """Flips left-right, then turns by quarters, over the last two axes."""
    flipped = tensor.flip(-1) if flip else tensor
    return torch.rot90(flipped, turns, dims=(-2, -1)).contiguous()
