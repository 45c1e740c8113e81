# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""From rows of rasters to training examples: paired crops, the image processor, flips and rotations, batches."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch

from prithvi_hf.data.augmentations import Augmentation, RadiometricJitter, augment_crop
from prithvi_hf.data.chip_labels import make_chip_labels
from prithvi_hf.data.chips import Image, find_coordinates
from prithvi_hf.data.shared_batches import BatchRows, make_batch
from prithvi_hf.models.prithvi.coordinates_prithvi import check_coordinates
from prithvi_hf.models.prithvi.embeddings_prithvi import COORDINATE_ARGUMENTS
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.labels_prithvi import IGNORED_LABEL, find_ignored_between, write_labels_between
from prithvi_hf.models.prithvi.pixel_values_prithvi import (
    ImageValues,
    ReadImage,
    can_stay_as_in_file,
    replacement_changes_nothing,
    turn_array,
)
from prithvi_hf.models.prithvi.processor_options_prithvi import ProcessorOptions
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.raster import Window


CHIP_INDEX = "chip_index"
"""Name of the indices of a batch's chips in their split, beside its tensors for the model."""
_MAX_DRAWS = 10
# Looking for values in other units takes three times as long as the rest of a crop; so many of a process tell.
_CROPS_CHECKED_FOR_UNITS = 16
# As many random numbers as a crop may ever need, so that one example's crops do not depend on another's: for the turn,
# the windows, and the window around a pixel. They are so large that a remainder is as good as evenly distributed.
_NUMBERS_PER_CROP = 2 + 2 * _MAX_DRAWS + 3
_NUMBERS_BELOW = 2**62


@dataclass
class _Chip:
    """An image and its mask, of which crops are read. Sizes are height and width in pixels."""

    image: Image
    mask: GeoTiffRaster | None  # None where the chip has one label as a whole
    size: tuple[int, int]
    sides: tuple[int, int]  # of its crops, which are smaller than wanted where the chip is
    is_large: bool  # a whole crop fits into it
    in_memory: ImageValues | None = None  # the whole chip, where its pixels are in memory anyway
    # Its crops need no look at single values: none is missing, and its mask holds integers between known limits.
    is_plain: bool = False


# A chip, its random numbers, and its places in the batch: of values and of labels (None: of none for each pixel).
_Example = tuple[_Chip, list[int], np.ndarray, np.ndarray | None]


class PastedCrop(NamedTuple):
    """Another training crop, the pixels of one of whose classes are written over a crop."""

    image: Image
    mask: GeoTiffRaster
    numbers: list[int]  # its random numbers, and one more that chooses the class
    focus: int | None  # as of `TrainingCrops`


class SegmentationTransform:
    """Turn rows of a dataset of chips into examples, for `Dataset.with_transform`.

    In training a crop is drawn at random, image and mask are read only there, the image processor is applied, and then
    the tensors are flipped and rotated together. A crop without any valid label is drawn again; a chip without any
    gives a crop as it is. A chip smaller than the crop is padded right and bottom, the image by reflection and the
    labels by -100. With an image processor of `label_type` "value" labels are float32, and NaN stands for -100. In
    evaluation the whole chip is read, without augmentation.

    Values in other units than the statistics are looked for in the first crops of each process only; a check of the
    data (`audit_split`) and evaluation look at every chip.

    Random numbers come from torch's global generator, which differs in each worker of a DataLoader, or with the rows,
    as [`TrainingCrops`] gives them.

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
        coords_encoding (`Sequence[str]`, *optional*, defaults to `()`): that of the model's configuration: "time" adds
            `temporal_coords` from the columns `date` or `dates`, "location" adds `location_coords` of the centre of
            the whole chip, also to its crops, as the published models were trained. NaN stands for what is unknown.
        jitter (`RadiometricJitter`, *optional*): changes the values of training examples at random, once they are
            turned.
        custom_augmentation (`Augmentation`, *optional*): a function of image, mask and random numbers, called with
            each training example after that; see [`~prithvi_hf.data.augmentations.Augmentation`].

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

    needs_mask = True  # each training chip has one

    def __init__(
        self,
        image_processor: PrithviImageProcessor,
        crop_size: int | Sequence[int] | None = None,
        augmentation: Literal["none", "hflip", "d4"] = "none",
        train: bool = False,
        normalize: bool = True,
        coords_encoding: Sequence[str] = (),
        jitter: RadiometricJitter | None = None,
        custom_augmentation: Augmentation | None = None,
    ) -> None:
        if augmentation not in ("none", "hflip", "d4"):
            raise ValueError(f"Expected augmentation none, hflip or d4, found {augmentation!r}.")
        kind = type(image_processor)
        overridden = kind.preprocess is not PrithviImageProcessor.preprocess
        if overridden and kind.read_image is PrithviImageProcessor.read_image:
            raise TypeError(
                f"Expected {kind.__name__} to override read_image where it overrides preprocess, found preprocess "
                "alone: training crops are read by read_image."
            )
        size = None
        if crop_size is not None:
            size = tuple(crop_size) if isinstance(crop_size, list | tuple) else (crop_size, crop_size)
            if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
                raise ValueError(
                    f"Expected crop_size as one or two positive integers (height, width), found {crop_size!r}."
                )
        if not normalize and not (train and size is not None):
            raise ValueError("Expected crop_size and train=True with normalize=False, which is for training crops.")
        self.jitter = jitter if jitter is not None and jitter.is_on else None
        self.custom_augmentation = custom_augmentation
        if self.jitter is not None:
            self.jitter.check_options(image_processor.checked_options())
        self.augments_values = self.jitter is not None or custom_augmentation is not None
        if self.augments_values and not (train and normalize):
            raise ValueError(
                "Expected train=True and normalize=True with jitter or custom_augmentation, which change normalised "
                f"training examples, found train={train} and normalize={normalize}."
            )
        self.image_processor = image_processor
        self.crop_size = size
        self.augmentation = augmentation
        self.train = train
        self.normalize = normalize
        self.coords_encoding = tuple(coords_encoding)
        self._crops_checked = 0
        # Chips whose pixels are in memory, by where their rasters are in this process, and the options they were
        # looked at with.
        self._chips: dict[tuple[int, ...], _Chip] = {}
        self._chips_options: ProcessorOptions | None = None
        self._coordinates: dict[tuple[Any, ...], dict[str, np.ndarray]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_chips": {}, "_coordinates": {}}

    def __call__(self, rows: Mapping[str, list[Any]]) -> dict[str, torch.Tensor] | dict[str, list[torch.Tensor]]:
        """Transform a batch of rows.

        Args:
            rows (`Mapping[str, list]`): columns `image` (a raster or a list of frames) and `mask` (a raster; None, or
                no such column, for evaluation without labels); with `coords_encoding` also `date`, or `dates` of the
                frames; as [`TrainingCrops`] gives them, `numbers`, the random numbers of each row, `focus`, a class
                of each row, on a pixel of which its crop is placed, and `pasted`, a [`PastedCrop`] or None of each.

        Returns:
            `dict`: one tensor per row, in a list or, of training crops, along the first axis of one tensor:
            `pixel_values` float32, each `(num_channels, num_frames, height, width)`, or `file_values` (see
            `normalize`), and `labels` int64 (with `file_values` int16), each `(height, width)`, ignored pixels -100;
            no `labels` where no row has a mask. With `coords_encoding` also `temporal_coords` float32, each
            `(num_frames, 2)`, and `location_coords` float32, each `(2,)`.
        """
        images = [tuple(image) if isinstance(image, list | tuple) else image for image in rows["image"]]
        masks = rows.get("mask") or [None] * len(images)
        coordinates = self._find_coordinates(images, rows)
        if self.train and self.crop_size is not None:
            drawn: dict[str, Any] = {name: rows[name] for name in ("focus", "pasted") if name in rows}
            extra = coordinates | _find_chip_indices(rows)
            return self._draw_batch(images, masks, self.crop_size, rows.get("numbers"), extra, **drawn)
        has_labels = self.train or any(mask is not None for mask in masks)
        batch: dict[str, list[torch.Tensor]] = {"pixel_values": [], **({"labels": []} if has_labels else {})}
        for image, mask in zip(images, masks, strict=True):
            _check_rasters(image, mask, has_labels)
            inputs = self.image_processor.preprocess([image], [mask] if has_labels else None, return_tensors="pt")
            # (num_channels, num_frames, height, width), (height, width)
            parts = [inputs[name][0] for name in batch]
            if self.train:
                numbers = torch.randint(_NUMBERS_BELOW, (_NUMBERS_PER_CROP,)).tolist()
                turn = self._draw_turn(parts[1].shape, iter(numbers))
                parts = [torch.from_numpy(turn_array(part.numpy(), *turn)) for part in parts]
                self._augment(parts[0].numpy(), parts[1].numpy(), numbers)
            for tensors, part in zip(batch.values(), parts, strict=True):
                tensors.append(part)
        return {**batch, **{name: list(torch.from_numpy(values)) for name, values in coordinates.items()}}

    def _find_coordinates(self, images: Sequence[Image], rows: Mapping[str, list[Any]]) -> dict[str, np.ndarray]:
        """Give what the model encodes of the chips' dates and places, each of the whole batch."""
        if not self.coords_encoding:
            return {}
        dates, processor = rows.get("dates") or rows.get("date") or [None] * len(images), self.image_processor
        options, found = (processor.num_frames, processor.first_day_of_year), []
        for image, days in zip(images, dates, strict=True):
            first = _as_frames(image)[0]
            # Finding them takes longer than a crop; a file tells them once.
            key = (first.path, first.window, str(days), options)
            if first.path is None or key not in self._coordinates:
                self._coordinates[key] = find_coordinates(image, days, processor, self.coords_encoding)
            found.append(self._coordinates[key])
        return {name: np.stack([one[name] for one in found]) for name in found[0]}

    def _draw_batch(
        self,
        images: Sequence[Image],
        masks: Sequence[GeoTiffRaster | None],
        size: tuple[int, int],
        numbers: Sequence[list[int]] | None,
        coordinates: Mapping[str, np.ndarray],
        chip_labels: torch.Tensor | None = None,
        focus: Sequence[int] | None = None,
        pasted: Sequence[PastedCrop | None] = (),
    ) -> dict[str, torch.Tensor]:
        """Draw crops of several chips, each written to its place in one batch; `chip_labels` stand for masks."""
        processor, options = self.image_processor, self.image_processor.checked_options()
        if options != self._chips_options:
            self._chips, self._chips_options = {}, deepcopy(options)
        chips = [self._open_chip(image, mask, size) for image, mask in zip(images, masks, strict=True)]
        name, dtype, label_dtype = "pixel_values", torch.float32, torch.int64
        if not self.normalize:
            read = [*images, *(crop.image for crop in pasted if crop is not None)]
            name, dtypes = "file_values", {frame.dtype for image in read for frame in _as_frames(image)}
            own = dtypes.pop() if len(dtypes) == 1 else "several"
            dtype = getattr(torch, own) if can_stay_as_in_file(own, processor.nodata_replacement) else dtype
            # Two bytes per label are enough on the way to a trainer that finishes the batch, and sooner written.
            if processor.num_labels is not None and processor.num_labels <= torch.iinfo(torch.int16).max:
                label_dtype = torch.int16
        if processor.label_type == "value":
            label_dtype = torch.float32
        shape = (len(chips), len(processor.bands), processor.num_frames, *size)
        label_shape: tuple[int, ...] = (len(chips), *size)
        if chip_labels is not None:
            label_shape, label_dtype = tuple(chip_labels.shape), chip_labels.dtype
        shapes = {name: (shape, dtype), "labels": (label_shape, label_dtype)}
        beside = {key: torch.from_numpy(pairs) for key, pairs in coordinates.items()}
        batch = make_batch(shapes | {key: (tuple(pairs.shape), pairs.dtype) for key, pairs in beside.items()})
        values, labels = batch[name].numpy(), batch["labels"].numpy()
        for key, pairs in beside.items():
            batch[key].copy_(pairs)
        if numbers is None:  # drawn for the whole batch at once: one by one they take longer than a crop
            numbers = torch.randint(_NUMBERS_BELOW, (len(chips), _NUMBERS_PER_CROP)).tolist()
        if chip_labels is not None:
            batch["labels"].copy_(chip_labels)
            for chip, row, place in zip(chips, numbers, values, strict=True):
                self._write_example(chip, row, place, None)
                self._augment(place, None, row)
            return batch
        examples: list[_Example] = list(zip(chips, numbers, values, labels, strict=True))
        if focus is None:
            for example in self._write_plain_examples(examples, labels, options):
                self._write_example(*example)
        else:
            for example, kind in zip(examples, focus, strict=True):
                self._write_example(*example, focus=kind)
        for crop, place in zip(pasted, zip(values, labels, strict=True), strict=False):
            if crop is not None:
                self._paste(crop, *place)
        for _, row, pixel_values, own_labels in examples:
            self._augment(pixel_values, own_labels, row)
        return batch

    def _paste(self, crop: PastedCrop, values: np.ndarray, labels: np.ndarray) -> None:
        """Draw another crop, and write the pixels of one of its classes over this one."""
        others = np.empty_like(values), np.empty_like(labels)
        size = (values.shape[-2], values.shape[-1])
        self._write_example(self._open_chip(crop.image, crop.mask, size), crop.numbers, *others, focus=crop.focus)
        present = np.unique(others[1][others[1] != IGNORED_LABEL])
        if present.size:
            where = others[1] == present[crop.numbers[-1] % present.size]
            for place, other in zip((values, labels), others, strict=True):
                np.copyto(place, other, where=where)

    def _augment(self, values: np.ndarray, labels: np.ndarray | None, numbers: Sequence[int]) -> None:
        if self.augments_values:
            augment_crop(values, labels, numbers, self.image_processor, self.jitter, self.custom_augmentation)

    def _open_chip(self, image: Image, mask: GeoTiffRaster | None, crop_size: tuple[int, int]) -> _Chip:
        """Check a chip. One whose pixels are in memory is looked at once, not for every crop."""
        frames, processor = _as_frames(image), self.image_processor
        key = (*map(id, frames), id(mask))  # of objects that the remembered chip keeps alive
        if key in self._chips:
            return self._chips[key]
        _check_rasters(image, mask, self.needs_mask)
        height, width = frames[0].shape[-2:]
        sides = (min(height, crop_size[0]), min(width, crop_size[1]))
        chip = _Chip(image, mask, (height, width), sides, is_large=sides == crop_size)
        # A processor that takes a step in its own way is asked for each crop.
        steps = ("read_image", "open_image", "examine")
        own_way = any(getattr(type(processor), step) is not getattr(PrithviImageProcessor, step) for step in steps)
        rasters = frames if mask is None else (*frames, mask)
        if own_way or not all(hasattr(raster, "read_shared") for raster in rasters):
            return chip
        whole = processor.open_image(image, mask)
        whole.nothing_missing = replacement_changes_nothing(whole.frames, whole.options)
        if whole.is_lasting:
            chip.in_memory = whole
            mask_values = whole.mask
            if mask_values is not None and mask_values.values.dtype.kind in "iu" and mask_values.limits is not None:
                needs_no_look = whole.nothing_missing and not whole.options.mask_nodata_labels
                chip.is_plain = chip.is_large and needs_no_look and mask_values.file_mask is None
            self._chips[key] = chip
        return chip

    def _write_plain_examples(
        self, examples: list[_Example], labels: np.ndarray, options: ProcessorOptions
    ) -> list[_Example]:
        """Write a batch of plain chips in fewer steps than `_write_example`, and give the examples still to write.

        These are the ones whose first crop holds no valid label, or all, where their chips are not plain. Labels are
        made for the whole batch at once, which saves a seventh of a crop's time.
        """
        plain = [chip.in_memory for chip, *_ in examples if chip.is_plain and chip.in_memory is not None]
        if self._crops_checked < _CROPS_CHECKED_FOR_UNITS or len(plain) < len(examples):
            return examples
        masks = [whole.mask for whole in plain if whole.mask is not None]
        smallest, largest = zip(*[mask.limits for mask in masks if mask.limits is not None], strict=True)
        limits = (min(smallest), max(largest))
        if find_ignored_between(limits, options) is None:
            return examples
        own, turns = labels if labels.dtype == np.int16 else np.empty(labels.shape, dtype=np.int16), []
        for (chip, row, values, _), whole, mask in zip(examples, plain, own, strict=True):
            numbers = iter(row)
            turn = self._draw_turn(mask.shape, numbers)
            crop = whole.crop(_draw_window(chip, numbers))
            if crop.mask is not None:
                mask[...] = crop.mask.values  # as it is in the file
            read = ReadImage(crop.frames, [None] * len(crop.frames), None, None, crop.options)
            self._write_values(read.turn(*turn), values)
            turns.append(turn)
        write_labels_between(own, limits, options, own)
        for place, turn in zip(own, turns, strict=True):
            if any(turn):
                place[...] = turn_array(place, *turn)
        if own is not labels:
            labels[...] = own
        is_empty = (own.max(axis=(1, 2)) == IGNORED_LABEL).tolist()
        return [example for example, empty in zip(examples, is_empty, strict=True) if empty]

    def _write_example(
        self, chip: _Chip, row: list[int], values: np.ndarray, labels: np.ndarray | None, focus: int | None = None
    ) -> None:
        """Draw crops until one holds a valid label; after a few, place one on a valid label of the chip, if any.

        With a class in focus place it on a pixel of that class at once, if the chip has any.
        """
        numbers = iter(row)
        turn = self._draw_turn(values.shape[-2:], numbers)
        dtype = None if labels is None else labels.dtype
        place = labels if labels is None or chip.is_large else np.empty(chip.sides, dtype=dtype)
        for _ in range(_MAX_DRAWS if focus is None else 1):
            crop = self._read(chip, _draw_window(chip, numbers), place)
            if focus is None and (place is None or _find_labelled(place).any()):
                break
        else:
            all_labels = np.empty(chip.size, dtype=dtype)
            self._read(chip, None, all_labels)
            valid = np.argwhere(_find_labelled(all_labels) if focus is None else all_labels == focus)
            if len(valid):
                pixel = valid[next(numbers) % len(valid)].tolist()
                crop = self._read(chip, _draw_window(chip, numbers, pixel), place)
        if chip.is_large:
            self._write_values(crop.turn(*turn), values)
            if any(turn) and labels is not None:
                labels[...] = turn_array(labels, *turn)
            return
        small = np.empty((*values.shape[:2], *chip.sides), dtype=values.dtype)
        self._write_values(crop, small)
        # Reflection goes back and forth where a chip is smaller than its padding.
        extra = [(0, whole - side) for whole, side in zip(values.shape[-2:], chip.sides, strict=True)]
        values[...] = turn_array(np.pad(small, [(0, 0), (0, 0), *extra], mode="reflect"), *turn)
        if labels is not None and place is not None:
            ignored = IGNORED_LABEL if labels.dtype.kind == "i" else np.nan
            labels[...] = turn_array(np.pad(place, extra, constant_values=ignored), *turn)

    def _read(self, chip: _Chip, window: Window | None, labels: np.ndarray | None) -> ReadImage:
        """Read a part of a chip, or everything, as [`PrithviImageProcessor.read_image`] does; labels get a place."""
        check_units = self._crops_checked < _CROPS_CHECKED_FOR_UNITS
        self._crops_checked += check_units
        if chip.in_memory is not None:
            values = chip.in_memory if window is None else chip.in_memory.crop(window)
            return self.image_processor.examine(values, check_units, labels)
        image, mask = chip.image, chip.mask
        if window is not None:
            frames = tuple(frame.select(window=window) for frame in _as_frames(image))
            image = frames if isinstance(image, tuple) else frames[0]
            mask = None if mask is None else mask.select(window=window)
        return self.image_processor.read_image(image, mask, check_units, labels)

    def _write_values(self, crop: ReadImage, place: np.ndarray) -> None:
        (crop.write_pixel_values if self.normalize else crop.write_file_values)(place)

    def _draw_turn(self, size: Sequence[int], numbers: Iterator[int]) -> tuple[bool, int]:
        """Draw whether to flip left-right, and by how many quarters to turn then."""
        if self.augmentation == "none":
            return False, 0
        flip = bool(next(numbers) % 2)
        if self.augmentation == "hflip":
            return flip, 0
        return flip, next(numbers) % 4 if size[0] == size[1] else 2 * (next(numbers) % 2)


class ClassificationTransform(SegmentationTransform):
    """Turn rows of a dataset of labelled chips into examples, for `Dataset.with_transform`.

    Training crops are drawn and turned as [`SegmentationTransform`] does it, anywhere in the chip, whose label they
    have; a chip smaller than the crop is padded by reflection. In evaluation the whole chip is read.

    Args:
        image_processor (`PrithviImageProcessor`): bands, nodata, scale and statistics.
        class_names (`list[str]`): name of each class, in the order of the model's labels.
        multi_label (`bool`, *optional*, defaults to `False`): whether a chip may have several classes.
        options: `crop_size` (needed to train), `augmentation`, `train`, `normalize` and `coords_encoding` of
            [`SegmentationTransform`].

    Raises:
        ValueError: training without `crop_size`; when called, a label that is not a class, and what the image
            processor finds wrong.
    """

    needs_mask = False

    def __init__(
        self,
        image_processor: PrithviImageProcessor,
        class_names: Sequence[str],
        multi_label: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(image_processor, **options)
        if self.train and self.crop_size is None:
            raise ValueError("Expected crop_size to draw crops of labelled chips, found None. Give it in pixels.")
        self.class_names, self.multi_label = list(class_names), multi_label

    def __call__(self, rows: Mapping[str, list[Any]]) -> dict[str, torch.Tensor] | dict[str, list[torch.Tensor]]:
        """Transform a batch of rows.

        Args:
            rows (`Mapping[str, list]`): columns `image` (a raster or a list of frames), `label` (text, see
                [`~prithvi_hf.data.chip_labels.find_chip_classes`]; no such column for evaluation without labels), `id`
                and, if given, `numbers`.

        Returns:
            `dict`: `pixel_values` or `file_values` as of [`SegmentationTransform`], and `labels`: for each row an
            int64 class number or, with `multi_label`, float32 `(num_labels,)` of zeros and ones.
        """
        images = [tuple(image) if isinstance(image, list | tuple) else image for image in rows["image"]]
        labels = None
        if self.train or "label" in rows:
            names = [str(name) for name in rows.get("id") or range(len(images))]
            labels = make_chip_labels(rows["label"], self.class_names, self.multi_label, names)
        if self.train and self.crop_size is not None:
            coordinates, masks = self._find_coordinates(images, rows), [None] * len(images)
            coordinates |= _find_chip_indices(rows)
            return self._draw_batch(images, masks, self.crop_size, rows.get("numbers"), coordinates, labels)
        batch: dict[str, Any] = super().__call__({**rows, "image": images, "mask": []})
        return batch if labels is None else {**batch, "labels": list(labels)}


class TrainingCrops(torch.utils.data.Dataset):
    """Training crops whose place and turn follow from a seed, the epoch and the chip's index in its split alone.

    So a crop is the same whichever process or worker of a DataLoader draws it, in whatever batch, and again in a run
    that is resumed.

    With `class_pixels` crops are balanced: for each a class is drawn, each with the same probability, then one of its
    pixels in the whole split, and the crop is placed at random around it. So an epoch is as many crops as there are
    chips, but not one of each; a chip comes the more often the more it holds of rare classes.

    Args:
        chips (`datasets.Dataset` or `CachedChips`): the chips; a transform that is set on them is left aside.
        transform (`SegmentationTransform`): one that draws crops.
        seed (`int`): at least 0.
        class_pixels (`np.ndarray`, *optional*): labelled pixels of each class in each chip, (chips, num_labels), as
            [`~prithvi_hf.data.augmentations.count_class_pixels`] counts them. Of chips that have a label as a whole
            it is 1 for each class of a chip, and their crops are anywhere in it.
        copy_paste (`float`, *optional*, defaults to 0): probability that the pixels of one class of another crop, each
            of its classes as likely, are written over a crop, image and labels.
        give_index (`bool`, *optional*, defaults to `False`): whether examples also have their chip's index in the
            split, `chip_index`, which [`PrithviTrainer`] names the chips of a bad batch by.
    """

    def __init__(
        self,
        chips: Any,
        transform: SegmentationTransform,
        seed: int,
        class_pixels: np.ndarray | None = None,
        copy_paste: float = 0.0,
        give_index: bool = False,
    ) -> None:
        if class_pixels is not None and len(class_pixels) != len(chips):
            raise ValueError(f"Expected class_pixels of {len(chips)} chips, found {len(class_pixels)} rows.")
        self.chips, self.transform, self.seed = chips.with_format(None), transform, seed
        self.copy_paste, self.give_index = copy_paste, give_index
        self._pixels_up_to = None if class_pixels is None else class_pixels.cumsum(axis=0)
        # Shared, so that workers which outlive an epoch learn of the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """The epoch whose crops are drawn."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw other crops from now on."""
        self._epoch.fill_(epoch)

    def find_id(self, index: int) -> str:
        """Find the id of a chip."""
        return str(self.chips[index].get("id", index))

    def __len__(self) -> int:
        return len(self.chips)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> BatchRows:
        """Examples of a batch, which torch's DataLoader asks for together."""
        numbers = self._draw_numbers(indices, _NUMBERS_PER_CROP)
        chosen, focus = self._choose_chips(indices, numbers)
        rows = {**self.chips[chosen], "numbers": numbers, **({"focus": focus} if focus else {})}
        if self.give_index:
            rows[CHIP_INDEX] = chosen
        if self.copy_paste:
            # Other numbers, and two more: whether to paste, and what.
            others = self._draw_numbers(indices, _NUMBERS_PER_CROP + 2, 1)
            wanted = [place for place, row in enumerate(others) if row[-2] < self.copy_paste * _NUMBERS_BELOW]
            others = [others[place] for place in wanted]
            # Without a class in focus any chip may come, its own among them.
            any_chips = [row[-2] % len(self) for row in others]
            chosen, focus = self._choose_chips(any_chips, [row[:_NUMBERS_PER_CROP] for row in others])
            found = self.chips[chosen] if chosen else {"image": [], "mask": []}
            kinds: Sequence[int | None] = focus or [None] * len(chosen)
            crops = zip(found["image"], found["mask"], others, kinds, strict=True)
            rows["pasted"] = [None] * len(numbers)
            for place, (image, mask, row, kind) in zip(wanted, crops, strict=True):
                frames = tuple(image) if isinstance(image, list | tuple) else image
                rows["pasted"][place] = PastedCrop(frames, mask, row, kind)
        return BatchRows(cast("dict[str, torch.Tensor]", self.transform(rows)), len(indices))

    def _draw_numbers(self, indices: Sequence[int], count: int, *stream: int) -> list[list[int]]:
        """Draw the numbers of each crop, which has its own part of the epoch's."""
        bits = np.random.PCG64((self.seed, int(self._epoch), *stream))
        start, numbers = bits.state, []
        for index in indices:
            bits.state = start
            numbers.append((bits.advance(index * count).random_raw(count) % _NUMBERS_BELOW).tolist())
        return numbers

    def _choose_chips(self, indices: Sequence[int], numbers: Sequence[list[int]]) -> tuple[list[int], list[int]]:
        """Choose the chip of each crop, its own or, balanced, one by class; and the classes, empty if not balanced."""
        if self._pixels_up_to is None:
            return list(indices), []
        draws = [self._draw_pixel(*row[-2:]) for row in numbers]
        return [chip for chip, _ in draws], [kind for _, kind in draws]

    def _draw_pixel(self, class_number: int, pixel_number: int) -> tuple[int, int]:
        """Draw a class that occurs, then a chip by its pixels of it; the numbers are of those that a focus leaves."""
        up_to: Any = self._pixels_up_to
        present = np.flatnonzero(up_to[-1])
        kind = int(present[class_number % len(present)])
        chip = np.searchsorted(up_to[:, kind], pixel_number % int(up_to[-1, kind]), side="right")
        return int(chip), kind


def collate_chips(rows: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Stack examples of [`SegmentationTransform`] into a batch, for a DataLoader.

    Returns:
        `pixel_values` (or `file_values`) (batch_size, num_channels, num_frames, height, width) and, where the examples
        have them, `labels` (batch_size, height, width), `temporal_coords` (batch_size, num_frames, 2) and
        `location_coords` (batch_size, 2).

    Raises:
        ValueError: examples of different sizes, of which only some have labels or coordinates, or with dates or places
            that cannot be.
    """
    if isinstance(rows, BatchRows):
        return rows.batch
    names = ("pixel_values", "file_values", "labels", *COORDINATE_ARGUMENTS.values())
    keys = [key for key in names if any(key in row for row in rows)]
    for key in keys:
        if not all(key in row for row in rows):
            remedy = "Give all chips a mask." if key == "labels" else "Write NaN where a date or place is not known."
            raise ValueError(f"Expected {key} in every example of a batch, found some without. {remedy}")
        shapes = sorted({tuple(row[key].shape) for row in rows})
        if len(shapes) > 1:
            raise ValueError(
                f"Expected {key} of one shape in a batch, found {', '.join(map(str, shapes))}. Train on crops "
                "(crop_size), and evaluate chips of different sizes with a batch size of 1."
            )
    batch = make_batch({key: ((len(rows), *rows[0][key].shape), rows[0][key].dtype) for key in keys})
    for key, tensor in batch.items():
        torch.stack([row[key] for row in rows], out=tensor)
    check_coordinates(batch)
    return batch


def _find_chip_indices(rows: Mapping[str, list[Any]]) -> dict[str, np.ndarray]:
    """Find the indices of chips, where the rows have them, as a part of the batch."""
    return {CHIP_INDEX: np.array(rows[CHIP_INDEX], np.int64)} if CHIP_INDEX in rows else {}


def _as_frames(image: Image) -> tuple[GeoTiffRaster, ...]:
    return image if isinstance(image, tuple) else (image,)


def _find_labelled(labels: np.ndarray) -> np.ndarray:
    """Find the pixels whose label counts."""
    return labels != IGNORED_LABEL if labels.dtype.kind == "i" else ~np.isnan(labels)


def _check_rasters(image: Image, mask: GeoTiffRaster | None, needs_mask: bool) -> None:
    """Check an image and its mask. One window is read from all frames and the mask, so they must be on one grid."""
    rasters = [*_as_frames(image), *([] if mask is None else [mask])]
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
    if mask is None and needs_mask:
        raise ValueError(f"{rasters[0].name}: expected a mask for each chip, found none. Add it, or leave it out.")


def _draw_window(chip: _Chip, numbers: Iterator[int], pixel: Sequence[int] | None = None) -> Window:
    """Draw a crop window; all that hold `pixel`, if given, are equally likely."""
    starts = []
    for axis, (size, side) in enumerate(zip(chip.size, chip.sides, strict=True)):
        first = 0 if pixel is None else max(0, pixel[axis] - side + 1)
        last = size - side if pixel is None else min(size - side, pixel[axis])
        starts.append(first + next(numbers) % (last + 1 - first))
    return starts[0], starts[1], *chip.sides
