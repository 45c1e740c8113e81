# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""From rows of rasters to training examples: paired crops, the image processor, flips and rotations, batches."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal

import numpy as np
import torch

from prithvi_hf.data.shared_batches import BatchRows, empty_batch, pack_batch
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.labels_prithvi import IGNORED_LABEL, find_ignored_between, write_labels_between
from prithvi_hf.models.prithvi.pixel_values_prithvi import (
    ImageValues,
    ReadImage,
    can_stay_as_in_file,
    replacement_changes_nothing,
    turn_array,
)
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster


_MAX_DRAWS = 10
# Looking for values in other units takes three times as long as the rest of a crop; so many of a process tell.
_CROPS_CHECKED_FOR_UNITS = 16

Image = GeoTiffRaster | tuple[GeoTiffRaster, ...]
CropWindow = tuple[int, int, int, int]
# A chip, its random numbers, and its places in the batch: of values and of labels.
_Example = tuple["_Chip", list[int], np.ndarray, np.ndarray]


class SegmentationTransform:
    """Turns rows of a data set of chips into examples, for `Dataset.with_transform`.

    In training a crop is drawn at random, image and mask are read only there, the image processor is applied, and then
    the tensors are flipped and rotated together. A crop without any valid label is drawn again; a chip without any
    gives a crop as it is. A chip smaller than the crop is padded right and bottom, the image by reflection and the
    labels by -100. In evaluation the whole chip is read, without augmentation.

    The examples of a call are parts of one batch, which `collate_chips` takes whole. Values in other units than the
    statistics are looked for in the first crops of each process only; a check of the data (`audit_split`) and
    evaluation look at every chip.

    Random numbers come from torch's global generator, which differs in each worker of a DataLoader.

    Args:
        image_processor (`PrithviImageProcessor`): bands, nodata, scale, statistics and labels.
        crop_size (`int` or `tuple[int, int]`, *optional*): height and width of training crops in pixels; None takes
            whole chips.
        augmentation (`str`, *optional*, defaults to `"none"`): of training examples, "hflip" for a left-right flip of
            every other one on average, "d4" for one of the eight symmetries of the square (one of the four that keep
            the shape, where height and width differ).
        train (`bool`, *optional*, defaults to `False`): training or evaluation.
        normalize (`bool`, *optional*, defaults to `True`): False gives training crops as `file_values` in place of
            `pixel_values`: missing values replaced, but in the units and, where it holds integers of one or two bytes,
            the data type of the file; and `labels` as int16 where the image processor knows `num_labels`.
            [`PrithviTrainer`] normalises them on the model's device
            ([`PrithviImageProcessor.normalize_file_values`]); half the bytes go there, and half the work is done here.

    Raises:
        TypeError: an image processor of a class that changes `preprocess` but not `read_image`.
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
        normalize: bool = True,
    ) -> None:
        if augmentation not in ("none", "hflip", "d4"):
            raise ValueError(f"Expected augmentation none, hflip or d4, found {augmentation!r}.")
        overridden = type(image_processor).preprocess is not PrithviImageProcessor.preprocess
        if overridden and type(image_processor).read_image is PrithviImageProcessor.read_image:
            raise TypeError(
                f"Expected {type(image_processor).__name__} to override read_image where it overrides preprocess, "
                "found preprocess alone: training crops are read by read_image."
            )
        self.image_processor = image_processor
        self.crop_size = _as_size(crop_size)
        self.augmentation = augmentation
        self.train = train
        self.normalize = normalize
        if not normalize and not (train and crop_size is not None):
            raise ValueError("Expected crop_size and train=True with normalize=False, which is for training crops.")
        self._crops_checked = 0
        self._chips: dict[tuple[int, ...], _Chip] = {}
        self._chips_options: dict[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_chips": {}}  # they are known by where they lie in this process

    def __call__(self, rows: Mapping[str, list[Any]]) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        """Transforms a batch of rows.

        Args:
            rows (`Mapping[str, list]`): columns `image` (a raster or a list of frames) and `mask` (a raster; None, or
                no such column, for evaluation without labels).

        Returns:
            `dict`: one tensor a row, in a list or, of training crops, along the first axis of one tensor:
            `pixel_values` float32, each `(num_channels, num_frames, height, width)`, or `file_values` (see
            `normalize`), and `labels` int64 (with `file_values` int16), each `(height, width)`, ignored pixels -100;
            no `labels` where no row has a mask.
        """
        images = [tuple(image) if isinstance(image, list | tuple) else image for image in rows["image"]]
        masks = rows.get("mask") or [None] * len(images)
        if self.train and self.crop_size is not None:
            return self._draw_batch(images, masks)
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
        """A whole chip, turned in training."""
        _check_rasters(image, mask)
        if not self.train:
            return self._process(image, mask)
        _check_mask(image, mask)
        pixel_values, labels = self._process(image, mask)
        turn = self._draw_turn(labels.shape, _Dice(_Dice.numbers_for(1)[0]))
        pixel_values, labels = (torch.from_numpy(turn_array(part.numpy(), *turn)) for part in (pixel_values, labels))
        return pixel_values, labels

    def _process(self, image: Image, mask: GeoTiffRaster | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Applies the image processor to one image: `(num_channels, num_frames, height, width)`, `(height, width)`."""
        inputs = self.image_processor([image], None if mask is None else [mask], return_tensors="pt")
        return inputs["pixel_values"][0], None if mask is None else inputs["labels"][0]

    # ------------------------------------------------------------------ crops

    def _draw_batch(self, images: Sequence[Image], masks: Sequence[GeoTiffRaster | None]) -> dict[str, torch.Tensor]:
        """Crops of several chips, each written to its place in one batch."""
        self._forget_chips()
        channels, frames = len(self.image_processor.bands), self.image_processor.num_frames
        name, dtype = ("pixel_values", torch.float32) if self.normalize else ("file_values", self._common_type(images))
        batch = empty_batch(
            {
                name: ((len(images), channels, frames, *self.crop_size), dtype),
                "labels": ((len(images), *self.crop_size), self._label_type()),
            }
        )
        arrays = [tensor.numpy() for tensor in batch.values()]
        chips = [self._source(image, mask) for image, mask in zip(images, masks, strict=True)]
        examples = list(zip(chips, _Dice.numbers_for(len(chips)), *arrays, strict=True))
        for example in self._write_plain_examples(examples, arrays[1]):
            self._write_example(*example)
        return batch

    def _common_type(self, images: Sequence[Image]) -> torch.dtype:
        """The data type of all files of a batch, if they have one that can be handed on, or else float32."""
        dtypes = {getattr(frame, "dtype", None) for image in images for frame in _frames(image)}
        replacement = self.image_processor.nodata_replacement
        own = dtypes.pop() if len(dtypes) == 1 else None
        return getattr(torch, own) if own is not None and can_stay_as_in_file(own, replacement) else torch.float32

    def _label_type(self) -> torch.dtype:
        """Two bytes for each label are enough on the way to a trainer that finishes the batch, and sooner written."""
        num_labels = self.image_processor.num_labels
        is_short = not self.normalize and num_labels is not None and num_labels <= torch.iinfo(torch.int16).max
        return torch.int16 if is_short else torch.int64

    def _write_plain_examples(self, examples: list[_Example], labels: np.ndarray) -> list[_Example]:
        """Writes a batch of plain chips with a fraction of the steps of `_write_example`, the same figures.

        Labels are made for the whole batch at once.

        Returns:
            The examples that are still to be written: those whose first crop holds no valid label, or all, where
            their chips are not plain.
        """
        chips, options = [example[0] for example in examples], self._chips_options
        if self._crops_checked < _CROPS_CHECKED_FOR_UNITS or not all(chip.is_plain for chip in chips):
            return examples
        smallest, largest = zip(*[chip.in_memory.mask_limits for chip in chips], strict=True)
        limits = (min(smallest), max(largest))
        if find_ignored_between(limits, options) is None:
            return examples
        own = labels if labels.dtype == np.int16 else np.empty(labels.shape, dtype=np.int16)
        turns = [self._write_plain_values(*example[:3], place) for example, place in zip(examples, own, strict=True)]
        write_labels_between(own, limits, options, own)
        for place, turn in zip(own, turns, strict=True):
            if any(turn):
                place[...] = turn_array(place, *turn)
        if own is not labels:
            labels[...] = own
        best = own.max(axis=(1, 2)).tolist()
        return [example for example, label in zip(examples, best, strict=True) if label == IGNORED_LABEL]

    def _write_plain_values(
        self, chip: "_Chip", numbers: list[int], values: np.ndarray, mask: np.ndarray
    ) -> tuple[bool, int]:
        """Writes the pixel values and the mask as it is in the file; returns the turn that the mask still takes."""
        dice = _Dice(numbers)
        turn = self._draw_turn(self.crop_size, dice)
        crop = chip.in_memory.crop(_draw_window(chip.size, self.crop_size, dice))
        mask[...] = crop.mask
        self._write_values(
            ReadImage(crop.frames, [None] * len(crop.frames), None, None, crop.options).turn(*turn), values
        )
        return turn

    def _write_example(self, chip: "_Chip", numbers: list[int], values: np.ndarray, labels: np.ndarray) -> None:
        dice = _Dice(numbers)
        turn = self._draw_turn(self.crop_size, dice)
        crop = self._draw_crop(chip, dice, labels if chip.is_large else None)
        if chip.is_large:
            self._write_values(crop.turn(*turn), values)
            if any(turn):
                labels[...] = turn_array(labels, *turn)
            return
        small = np.empty((*values.shape[:2], *crop.labels.shape), dtype=values.dtype)
        self._write_values(crop, small)
        padded = _pad(torch.from_numpy(small), torch.from_numpy(crop.labels), self.crop_size)
        values[...], labels[...] = (turn_array(tensor.numpy(), *turn) for tensor in padded)

    def _write_values(self, crop: ReadImage, place: np.ndarray) -> None:
        (crop.write_pixel_values if self.normalize else crop.write_file_values)(place)

    def _source(self, image: Image, mask: GeoTiffRaster | None) -> "_Chip":
        """A checked chip. One whose pixels lie in memory is looked at once, not for every crop."""
        key = (*map(id, _frames(image)), id(mask))  # of objects that the remembered chip keeps alive
        if key in self._chips:
            return self._chips[key]
        _check_rasters(image, mask)
        _check_mask(image, mask)
        chip = _Chip(image, mask, self.image_processor, self.crop_size)
        if chip.in_memory is not None:
            self._chips[key] = chip
        return chip

    def _forget_chips(self) -> None:
        """Forgets chips that were looked at with other options of the image processor."""
        options = self.image_processor.checked_options()
        if options != self._chips_options:
            self._chips, self._chips_options = {}, deepcopy(options)

    def _read(self, chip: "_Chip", window: CropWindow | None = None, labels: np.ndarray | None = None) -> ReadImage:
        check_units = self._crops_checked < _CROPS_CHECKED_FOR_UNITS
        self._crops_checked += check_units
        return chip.read(window, check_units, labels)

    def _draw_crop(self, chip: "_Chip", dice: "_Dice", labels: np.ndarray | None) -> ReadImage:
        """Draws crops until one holds a valid label; after a few, places one on a valid label of the chip, if any."""
        for _ in range(_MAX_DRAWS):
            crop = self._read(chip, _draw_window(chip.size, self.crop_size, dice), labels)
            if crop.labels.max() != IGNORED_LABEL or crop.labels.min() != IGNORED_LABEL:
                return crop
        valid = np.argwhere(self._read(chip).labels != IGNORED_LABEL)
        if not len(valid):
            return crop
        pixel = valid[dice.below(len(valid))].tolist()
        return self._read(chip, _draw_window(chip.size, self.crop_size, dice, pixel), labels)

    def _draw_turn(self, size: Sequence[int], dice: "_Dice") -> tuple[bool, int]:
        """Whether to flip left-right, and by how many quarters to turn then."""
        if self.augmentation == "none":
            return False, 0
        flip = bool(dice.below(2))
        if self.augmentation == "hflip":
            return flip, 0
        return flip, dice.below(4) if size[0] == size[1] else 2 * dice.below(2)


class _Dice:
    """Random numbers of one example, from torch's global generator.

    They are drawn for a whole batch at once, since one by one they take longer than a crop, and as many for each
    example as it may ever need, so that one example's crops do not depend on another's.

    Args:
        numbers (`list[int]`): a row of `numbers_for`.
    """

    _LIMIT = 2**62  # so large that a remainder is as good as evenly distributed
    _COUNT = 2 + 2 * _MAX_DRAWS + 3  # the turn, the windows, and the window around a pixel

    def __init__(self, numbers: list[int]) -> None:
        self._numbers = iter(numbers)

    @classmethod
    def numbers_for(cls, examples: int) -> list[list[int]]:
        """Numbers for so many examples."""
        return torch.randint(cls._LIMIT, (examples, cls._COUNT)).tolist()

    def below(self, limit: int) -> int:
        """A number from 0 to `limit` - 1."""
        return next(self._numbers) % limit


class _Chip:
    """An image and its mask, of which parts are read.

    Attributes:
        size (`tuple[int, int]`): height and width in pixels.
        in_memory (`ImageValues`, *optional*): the whole chip, where its pixels lie in memory anyway.
        is_large (`bool`): whether a crop fits into it.
        is_plain (`bool`): whether its crops need no look at single values: none is missing, and its mask holds
            integers between known limits.
    """

    def __init__(
        self, image: Image, mask: GeoTiffRaster, processor: PrithviImageProcessor, crop_size: tuple[int, int]
    ) -> None:
        self.image, self.mask, self.processor = image, mask, processor
        self.size = tuple(mask.shape[-2:])
        self.in_memory = self._find_in_memory()
        self.is_large = all(side >= wanted for side, wanted in zip(self.size, crop_size, strict=True))
        self.is_plain = self.is_large and self.in_memory is not None and self._needs_no_look(self.in_memory)

    def _find_in_memory(self) -> ImageValues | None:
        kind = type(self.processor)
        steps = ("read_image", "open_image", "examine")
        own_way = any(getattr(kind, step) is not getattr(PrithviImageProcessor, step) for step in steps)
        if own_way or not all(hasattr(raster, "read_shared") for raster in (*_frames(self.image), self.mask)):
            return None
        values = self.processor.open_image(self.image, self.mask)
        values.nothing_missing = replacement_changes_nothing(values.frames, values.options)
        return values if values.is_lasting else None

    @staticmethod
    def _needs_no_look(values: ImageValues) -> bool:
        has_known_mask = values.mask_limits is not None and values.mask.dtype.kind in "iu"
        return has_known_mask and values.nothing_missing and not values.options.mask_nodata_labels

    def read(self, window: CropWindow | None, check_units: bool, labels: np.ndarray | None) -> ReadImage:
        """Reads a part, or everything, as [`PrithviImageProcessor.read_image`] does."""
        if self.in_memory is not None:
            values = self.in_memory if window is None else self.in_memory.crop(window)
            return self.processor.examine(values, check_units, labels)
        image, mask = self.image, self.mask
        if window is not None:
            image, mask = _select(image, window), mask.select(window=window)
        return self.processor.read_image(image, mask, check_units, labels)


def collate_chips(rows: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Stacks examples into a batch, for a DataLoader.

    Args:
        rows (`Sequence[Mapping[str, torch.Tensor]]`): examples of [`SegmentationTransform`].

    Returns:
        `dict[str, torch.Tensor]`: `pixel_values` (or `file_values`) `(batch_size, num_channels, num_frames, height,
        width)` and, where the examples have them, `labels` `(batch_size, height, width)`.

    Raises:
        ValueError: examples of different sizes, or of which only some have labels.
    """
    if isinstance(rows, BatchRows):
        return pack_batch(rows.batch)
    keys = [key for key in ("pixel_values", "file_values", "labels") if any(key in row for row in rows)]
    for key in keys:
        if not all(key in row for row in rows):
            raise ValueError(f"Expected {key} in every example of a batch, found some without. Give all chips a mask.")
        shapes = sorted({tuple(row[key].shape) for row in rows})
        if len(shapes) > 1:
            raise ValueError(
                f"Expected {key} of one shape in a batch, found {', '.join(map(str, shapes))}. Train on crops "
                "(crop_size), and evaluate chips of different sizes with a batch size of 1."
            )
    batch = {key: _stack([row[key] for row in rows]) for key in keys}
    return pack_batch(batch)


def _stack(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Stacks tensors; those that are the parts of one batch, in order, are that batch without a copy."""
    whole = tensors[0]._base
    if whole is None or whole.shape != (len(tensors), *tensors[0].shape) or not whole.is_contiguous():
        return torch.stack(tensors)
    places = (whole.storage_offset() + index * whole.stride(0) for index in range(len(tensors)))
    if any(t._base is not whole or t.storage_offset() != place for t, place in zip(tensors, places, strict=True)):
        return torch.stack(tensors)
    return whole


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


def _draw_window(
    size: tuple[int, int], crop: tuple[int, int], dice: _Dice, pixel: Sequence[int] | None = None
) -> CropWindow:
    """Draws a crop window, as far as the chip reaches; all that hold `pixel`, if given, are equally likely."""
    sides = [min(side, wanted) for side, wanted in zip(size, crop, strict=True)]
    starts = []
    for axis, side in enumerate(sides):
        first = 0 if pixel is None else max(0, pixel[axis] - side + 1)
        last = size[axis] - side if pixel is None else min(size[axis] - side, pixel[axis])
        starts.append(first + dice.below(last + 1 - first))
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
