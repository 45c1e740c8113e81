# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A check of every chip of a split before training: what it holds, and everything that is wrong with it at once."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field

import numpy as np
from datasets import Dataset, IterableDataset
from tqdm.auto import tqdm

from prithvi_hf.data.audit_manifest import AuditManifest, ChipRecord
from prithvi_hf.data.chips import (
    Chip,
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
# So many chips are read at every start, so that what is said of all of a split (their units) is said again.
_ALWAYS_READ = 8
_SAMPLE = 500


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
        unchecked_chips (`int`): chips of the split that were not looked at, where a sample was checked.
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
    unchecked_chips: int = 0

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
        chips = f"{self.chips} chips"
        if self.unchecked_chips:
            chips = f"{self.chips:,} of {self.chips + self.unchecked_chips:,} chips, the others were not looked at"
        return (
            f"{self.split_name}: {chips}; {labels}; ignored {self.ignored_pixels / total:.1%}, "
            f"without data {self.nodata_pixels / total:.1%} of the pixels"
        )


@dataclass
class _ChipCounter:
    """Counts chips, in several threads; the arguments are those of [`audit_split`]."""

    image_processor: PrithviImageProcessor
    num_labels: int
    find_classes: Callable[[Chip], list[int]] | None
    coords_encoding: Sequence[str]

    def __post_init__(self) -> None:
        self.options = update_options(self.image_processor.checked_options(), {"num_labels": self.num_labels or None})

    def count(self, chip: Chip) -> ChipRecord | MaskValuesError:
        """Count the pixels of one chip; raise what is wrong with it."""
        mask = chip.mask if self.find_classes is None else None
        if mask is None and self.find_classes is None:
            raise ValueError(f"{chip.id}: expected a mask, found none")
        rasters = chip.frames if mask is None else (*chip.frames, mask)
        check_grid(rasters)
        problems: list[str] = []
        if self.coords_encoding:
            found = find_coordinates(chip.image, chip.dates, self.image_processor, self.coords_encoding)
            problems.extend(_UNKNOWN[name] for name in find_unknown(found))
            if not is_in_time_order(found.get("temporal_coords", ())):
                problems.append("have dates that are not in time order")
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
        _, hashes, mask_hash = chip.digest()
        return ChipRecord(
            chip.id,
            tuple(class_pixels.tolist()),
            (int(ignored), int(nodata.sum()), *nodata.shape),
            (*hashes, *([] if mask_hash is None else [mask_hash])),
            mask_hash is not None,
            digest_pixels(inputs["pixel_values"]),
            astuple(values),
            tuple(problems),
            tuple(paths) if len(paths) == len(rasters) else (),
            tuple(number for state in states for number in (state.st_size, state.st_mtime_ns)),
        )


def audit_split(
    dataset: Dataset | IterableDataset,
    image_processor: PrithviImageProcessor,
    num_labels: int,
    split_name: str,
    show_progress: bool = True,
    find_classes: Callable[[Chip], list[int]] | None = None,
    coords_encoding: Sequence[str] = (),
    manifest: AuditManifest | None = None,
    sample: bool = False,
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
        manifest: what an earlier check found: chips that are unchanged since are not read again but for a few, and
            what is found now is written to it. The audit is the same.
        sample: check 500 chips spread over the split, always the same, and not all of them.

    Raises:
        ValueError: an empty split, a split whose every pixel is ignored or without image data, or chips that cannot be
            used, each with its file: unreadable or truncated files, missing bands or masks, images, frames and masks
            of different size or place, mask values outside the classes, dates and places that cannot be.
    """
    counter = _ChipCounter(image_processor, num_labels, find_classes, coords_encoding)
    if isinstance(dataset, IterableDataset):
        results = list(read_chips(dataset, counter.count, f"Checking {split_name}", show_progress))
        return _sum_up(_collect(results, counter, split_name), counter, split_name, len(results))
    total = len(dataset)
    wanted = _spread(total, _SAMPLE) if sample else range(total)
    known = {} if manifest is None else manifest.find_unchanged()
    again = {wanted[place] for place in _spread(len(wanted), _ALWAYS_READ)}
    unread = [index for index in wanted if index not in known or index in again]
    if show_progress and len(wanted) > len(again):
        unchanged = len(wanted) - len(unread)
        said = f", {unchanged:,} of them unchanged since an earlier check and not read again" if unchanged else ""
        tqdm.write(f"Checking {len(wanted):,} of {total:,} chips of {split_name}{said}")
    found = read_chips(dataset, counter.count, f"Checking {split_name}", show_progress, indices=unread)
    by_index: dict[int, ChipRecord | MaskValuesError | str] = dict(known)
    by_index |= dict(zip(unread, found, strict=True))
    if manifest is not None and len(unread) > len(again):
        manifest.save({index: record for index, record in by_index.items() if isinstance(record, ChipRecord)})
    return _sum_up(_collect([by_index[index] for index in wanted], counter, split_name), counter, split_name, total)


def _spread(total: int, count: int) -> Sequence[int]:
    """Choose indices all over a split, always the same ones."""
    return range(total) if total <= count else [place * total // count for place in range(count)]


def _collect(
    results: Sequence[ChipRecord | MaskValuesError | str], counter: _ChipCounter, split_name: str
) -> list[ChipRecord]:
    """Collect the records of a split, or raise all that is wrong with its chips."""
    wrong = [result for result in results if isinstance(result, MaskValuesError)]
    counts = [result for result in results if not isinstance(result, MaskValuesError)]
    message, options = None, counter.options
    if wrong:
        values = {value for error in wrong for value in error.values}
        if not options.label_map:
            first = 1 if options.do_reduce_labels else 0
            good = [result.class_pixels for result in counts if not isinstance(result, str)]
            values |= {int(label) + first for pixels in good for label in np.flatnonzero(pixels)}
        totals = sum((Counter(error.wrong) for error in wrong), Counter[float]())
        message = describe_wrong_masks([error.name for error in wrong], len(results), totals, values, options)
    return collect_results(counts, split_name, wrong_masks=message)


def _sum_up(records: Sequence[ChipRecord], counter: _ChipCounter, split_name: str, total: int) -> SplitAudit:
    """Add the records of a split of `total` chips up; raise where nothing of it can be learned."""
    pixels = np.array([record.class_pixels for record in records], dtype=np.int64)  # (chips, classes)
    ignored, nodata, *_ = np.array([record.counts for record in records], dtype=np.int64).sum(0).tolist()
    is_value, find_classes = counter.options.label_type == "value", counter.find_classes
    parts = [BandMoments(int(record.values[0]), *record.values[1:]) for record in records] if is_value else []
    audit = SplitAudit(
        split_name=split_name,
        chips=len(records),
        class_pixels=tuple(pixels.sum(0).tolist()),
        class_chips=tuple((pixels > 0).sum(0).tolist()),
        ignored_pixels=ignored,
        nodata_pixels=nodata,
        sizes=dict(Counter(record.counts[2:] for record in records)),
        digest=digest_split(record.digest for record in records),
        image_digests={record.pixels: record.chip for record in records if record.pixels},
        coordinate_problems=dict(Counter(problem for record in records for problem in record.problems)),
        files={
            path: (record.states[2 * place], record.states[2 * place + 1], record.files[place])
            for record in records
            for place, path in enumerate(record.paths)
        },
        values=sum(parts, BandMoments()) if is_value else None,
        chips_without_value=sum(not part.count for part in parts),
        unchecked_chips=total - len(records),
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
        if is_value:
            remedy = "Check target_nodata_value and target_range against the files."
        raise ValueError(
            f"Split {split_name}: expected labelled pixels, found all {audit.total_pixels:,} pixels of {audit.chips} "
            f"chips ignored. {remedy}"
        )
    return audit
