# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A check of every chip of a split before training: what it holds, and everything that is wrong with it at once."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from datasets import Dataset, IterableDataset

from prithvi_hf.data.chips import (
    Chip,
    ChipDigest,
    check_grid,
    collect_results,
    describe_wrong_masks,
    digest_pixels,
    digest_split,
    find_coordinates,
    hash_file,
    read_chips,
)
from prithvi_hf.data.statistics import BandMoments
from prithvi_hf.models.prithvi.coordinates_prithvi import find_unknown, is_in_time_order
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.labels_prithvi import IGNORED_LABEL, MaskValuesError
from prithvi_hf.models.prithvi.processor_options_prithvi import update_options


_UNKNOWN = {
    "date": "have no date, or not one for each frame; their term is left out of the tokens, as in pretraining",
    "place": "have no CRS and so no place; this term is left out of the tokens, as in pretraining",
}
# Class, ignored and nodata pixels, size and digests of one chip, and its values.
_Counts = tuple[np.ndarray, int, int, tuple[int, ...], ChipDigest, str | None, BandMoments]


@dataclass(frozen=True)
class SplitAudit:
    """What a split holds, counted through the image processor, that is by the rules of training.

    Attributes:
        split_name (`str`): the split.
        chips (`int`): number of chips.
        class_pixels (`tuple[int, ...]`): labelled pixels of each class; of labels of whole chips, chips.
        class_chips (`tuple[int, ...]`): number of chips in which each class occurs.
        ignored_pixels (`int`): pixels whose label is ignored.
        nodata_pixels (`int`): pixels without image data; they may be labelled.
        sizes (`dict[tuple[int, int], int]`): number of chips of each (height, width).
        digest (`str`): sha256 over the ids of the chips and the content of their image and mask files, independent of
            folder and order.
        image_digests (`dict[str, str]`): id of a chip by the digest of its pixels in the bands in use; images whose
            bands are constant are left out.
        coordinate_problems (`dict[str, int]`): number of chips by what is odd about the date or place that the model
            encodes, such as "have no date".
        files (`dict[str, tuple[int, int, str]]`): size, time of modification (ns) and sha256 of each file.
        values (`BandMoments`, *optional*): of a regression, its values over all pixels.
        chips_without_value (`int`): those of them that have none.
    """

    split_name: str
    chips: int
    class_pixels: tuple[int, ...]
    class_chips: tuple[int, ...]
    ignored_pixels: int
    nodata_pixels: int
    sizes: dict[tuple[int, int], int]
    digest: str
    image_digests: dict[str, str] = field(default_factory=dict)
    coordinate_problems: dict[str, int] = field(default_factory=dict)
    files: dict[str, tuple[int, int, str]] = field(default_factory=dict, repr=False)
    values: BandMoments | None = None
    chips_without_value: int = 0

    @property
    def labelled_pixels(self) -> int:
        """Pixels that carry a label of some class or a value; of labels of whole chips, their number."""
        return sum(self.class_pixels) if self.values is None else self.values.count

    @property
    def total_pixels(self) -> int:
        """All pixels."""
        return sum(height * width * chips for (height, width), chips in self.sizes.items())

    def find_changed_files(self) -> list[str]:
        """Find the files that are not as they were when they were read, or gone; one that was only touched is not."""

        def is_as_it_was(path: str, size: int, time: int, digest: str) -> bool:
            try:
                status = os.stat(path)
                if (status.st_size, status.st_mtime_ns) == (size, time):
                    return True
                return status.st_size == size and hash_file(path) == digest
            except OSError:
                return False

        return [path for path, state in self.files.items() if not is_as_it_was(path, *state)]

    def summary(self, class_names: Sequence[str]) -> str:
        """Describe in one line how much of the labels each class has, and what is ignored or without data.

        Args:
            class_names (`Sequence[str]`): name of each class.
        """
        labelled, total = max(self.labelled_pixels, 1), max(self.total_pixels, 1)
        fractions = ", ".join(
            f"{name} {pixels / labelled:.1%}" for name, pixels in zip(class_names, self.class_pixels, strict=True)
        )
        labels = f"labels: {fractions}"
        if self.values is not None:
            found = self.values
            labels = f"values {found.minimum:.6g} to {found.maximum:.6g}, mean {found.mean:.6g}, std {found.std:.6g}"
            labels += f" ({self.chips_without_value} chips have none)" if self.chips_without_value else ""
        return (
            f"{self.split_name}: {self.chips} chips; {labels}; ignored {self.ignored_pixels / total:.1%}, "
            f"without data {self.nodata_pixels / total:.1%} of the pixels"
        )


@dataclass
class _ChipCounter:
    """Counts chips, in several threads; the arguments are those of [`audit_split`]."""

    image_processor: PrithviImageProcessor
    num_labels: int
    find_classes: Callable[[Chip], list[int]] | None
    coords_encoding: Sequence[str]
    files: dict[str, tuple[int, int, str]] = field(default_factory=dict)  # as in SplitAudit
    problems: list[str] = field(default_factory=list)  # of dates and places

    def __post_init__(self) -> None:
        self.options = update_options(self.image_processor.checked_options(), {"num_labels": self.num_labels or None})

    def count(self, chip: Chip) -> _Counts | MaskValuesError:
        """Count the pixels of one chip; raise what is wrong with it."""
        mask = chip.mask if self.find_classes is None else None
        if mask is None and self.find_classes is None:
            raise ValueError(f"{chip.id}: expected a mask, found none")
        rasters = chip.frames if mask is None else (*chip.frames, mask)
        check_grid(rasters)
        if self.coords_encoding:
            found = find_coordinates(chip.image, chip.dates, self.image_processor, self.coords_encoding)
            self.problems.extend(_UNKNOWN[name] for name in find_unknown(found))
            if not is_in_time_order(found.get("temporal_coords", ())):
                self.problems.append("have dates that are not in time order")
        paths = [raster.path for raster in rasters if raster.path is not None]
        states = [os.stat(path) for path in paths]  # before they are read
        chip.verify()
        try:
            inputs = self.image_processor.preprocess(
                [chip.image],
                None if mask is None else [mask],
                num_labels=self.num_labels or None,
                return_nodata_mask=True,
                return_tensors="np",
            )
        except MaskValuesError as error:  # said of all masks together
            return error
        nodata, values = inputs["nodata_mask"][0], BandMoments()
        if self.find_classes is not None:
            class_pixels, ignored = np.bincount(self.find_classes(chip), minlength=self.num_labels), 0
        elif self.options.label_type == "value":
            targets = inputs["labels"][0]
            values = BandMoments.of(targets[~np.isnan(targets)])
            class_pixels, ignored = np.zeros(0, np.int64), targets.size - values.count
        else:
            labels = inputs["labels"][0]
            valid = labels[labels != IGNORED_LABEL]
            class_pixels, ignored = np.bincount(valid, minlength=self.num_labels), labels.size - valid.size
        # The files have just been read, so the system holds them in memory for the digest.
        digest = chip.digest()
        if len(paths) == len(rasters):
            hashes = [*digest[1], digest[2] or ""][: len(paths)]
            for path, state, sha256 in zip(paths, states, hashes, strict=True):
                self.files[path] = (state.st_size, state.st_mtime_ns, sha256)
        digests = digest, digest_pixels(inputs["pixel_values"])
        return class_pixels, ignored, int(nodata.sum()), nodata.shape, *digests, values


def audit_split(
    dataset: Dataset | IterableDataset,
    image_processor: PrithviImageProcessor,
    num_labels: int,
    split_name: str,
    show_progress: bool = True,
    find_classes: Callable[[Chip], list[int]] | None = None,
    coords_encoding: Sequence[str] = (),
) -> SplitAudit:
    """Read every chip of a split once and count its labels.

    With an image processor of `label_type` "value" these are values, whose range it gives.

    Args:
        dataset: rows with `image` (a raster or a list of frames), `mask` and `id`; a transform on it is left aside.
        image_processor: the one of training.
        num_labels: number of classes of the model; 0 for values.
        split_name: for messages.
        show_progress: draw a progress bar.
        find_classes: gives the class numbers of a chip whose label is of the whole, or raises a `ValueError`; masks
            are not read then.
        coords_encoding: that of the model: dates and places are checked and counted then.

    Raises:
        ValueError: an empty split, a split whose every pixel is ignored or without image data, or chips that cannot be
            used, each with its file: unreadable or truncated files, missing bands or masks, images, frames and masks
            of different size or place, mask values outside the classes, dates and places that cannot be.
    """
    counter = _ChipCounter(image_processor, num_labels, find_classes, coords_encoding)
    options = counter.options
    results = list(read_chips(dataset, counter.count, f"Checking {split_name}", show_progress))
    wrong = [result for result in results if isinstance(result, MaskValuesError)]
    counts = [result for result in results if not isinstance(result, MaskValuesError)]
    message = None
    if wrong:
        values = {value for error in wrong for value in error.values}
        if not options.label_map:
            first = 1 if options.do_reduce_labels else 0
            good = [result[0] for result in counts if not isinstance(result, str)]
            values |= {int(label) + first for pixels in good for label in np.flatnonzero(pixels)}
        totals = sum((Counter(error.wrong) for error in wrong), Counter[float]())
        message = describe_wrong_masks([error.name for error in wrong], len(results), totals, values, options)
    counts = collect_results(counts, split_name, wrong_masks=message)
    class_pixels, ignored_pixels, nodata_pixels, sizes, digests, image_digests, parts = zip(*counts, strict=True)
    pixels = np.stack(class_pixels)  # (chips, classes)
    audit = SplitAudit(
        split_name=split_name,
        chips=len(counts),
        class_pixels=tuple(pixels.sum(0).tolist()),
        class_chips=tuple((pixels > 0).sum(0).tolist()),
        ignored_pixels=sum(ignored_pixels),
        nodata_pixels=sum(nodata_pixels),
        sizes=dict(Counter(sizes)),
        digest=digest_split(digests),
        image_digests={pixels: chip for (chip, *_), pixels in zip(digests, image_digests, strict=True) if pixels},
        coordinate_problems=dict(Counter(counter.problems)),
        files=counter.files,
        values=sum(parts, BandMoments()) if options.label_type == "value" else None,
        chips_without_value=sum(not part.count for part in parts) if options.label_type == "value" else 0,
    )
    # No data comes first, for labels of pixels without data may be ignored as well.
    if audit.nodata_pixels == audit.total_pixels:
        raise ValueError(
            f"Split {split_name}: expected pixels with image data, found all {audit.total_pixels:,} pixels of "
            f"{audit.chips} chips without data. Check nodata_value, nodata_rule and the files' nodata tags."
        )
    if audit.labelled_pixels == 0:
        remedy = "Check ignore_values, label_map and do_reduce_labels against the masks."
        if find_classes is not None:
            raise ValueError(f"Split {split_name}: expected chips of some class, found {audit.chips} without.")
        if options.label_type == "value":
            remedy = "Check target_nodata_value and target_range against the files."
        raise ValueError(
            f"Split {split_name}: expected labelled pixels, found all {audit.total_pixels:,} pixels of {audit.chips} "
            f"chips ignored. {remedy}"
        )
    return audit
