# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""One pass over a split before training: every file is read once, and everything that is wrong is named at once."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from tqdm.auto import tqdm

from ..grid_prithvi import GRID_TOLERANCE, largest_shift
from ..image_processing_prithvi import PrithviImageProcessor
from ..labels_prithvi import IGNORED_LABEL
from .raster import GeoTiffRaster


_MAX_PROBLEMS_SHOWN = 10
_MAX_THREADS = 8


@dataclass(frozen=True)
class SplitAudit:
    """What a split holds, counted through the image processor, that is by the rules of training.

    Attributes:
        split_name (`str`): the split.
        chips (`int`): number of chips.
        class_pixels (`tuple[int, ...]`): labelled pixels of each class.
        class_chips (`tuple[int, ...]`): number of chips in which each class occurs.
        ignored_pixels (`int`): pixels whose label is ignored.
        nodata_pixels (`int`): pixels without image data; they may be labelled.
        sizes (`dict[tuple[int, int], int]`): number of chips of each (height, width).
    """

    split_name: str
    chips: int
    class_pixels: tuple[int, ...]
    class_chips: tuple[int, ...]
    ignored_pixels: int
    nodata_pixels: int
    sizes: dict[tuple[int, int], int]

    @property
    def labelled_pixels(self) -> int:
        """Pixels that carry a label of some class."""
        return sum(self.class_pixels)

    @property
    def total_pixels(self) -> int:
        """All pixels."""
        return self.labelled_pixels + self.ignored_pixels

    def summary(self, class_names: Sequence[str]) -> str:
        """One line for people: how much of the labels each class has, and what is ignored or without data.

        Args:
            class_names (`Sequence[str]`): name of each class.
        """
        labelled, total = max(self.labelled_pixels, 1), max(self.total_pixels, 1)
        shares = ", ".join(
            f"{name} {pixels / labelled:.1%}" for name, pixels in zip(class_names, self.class_pixels, strict=True)
        )
        return (
            f"{self.split_name}: {self.chips} chips; labels: {shares}; ignored {self.ignored_pixels / total:.1%}, "
            f"without data {self.nodata_pixels / total:.1%} of the pixels"
        )


@dataclass(frozen=True)
class _ChipCount:
    """Counts of one chip."""

    class_pixels: torch.Tensor
    ignored_pixels: int
    nodata_pixels: int
    size: tuple[int, int]


def audit_split(
    dataset: Dataset | IterableDataset,
    image_processor: PrithviImageProcessor,
    num_labels: int,
    split_name: str,
    show_progress: bool = True,
) -> SplitAudit:
    """Reads every chip of a split once and counts its labels.

    Args:
        dataset (`Dataset` or `IterableDataset`): rows with `image` (a raster or a list of frames), `mask` and `id`; a
            transform that is set on it is left aside.
        image_processor (`PrithviImageProcessor`): the one of training.
        num_labels (`int`): number of classes of the model.
        split_name (`str`): for messages.
        show_progress (`bool`, *optional*, defaults to `True`): draw a progress bar.

    Returns:
        `SplitAudit`: the counts.

    Raises:
        ValueError: an empty split, a split whose every pixel is ignored, or chips that cannot be used, each with its
            file: unreadable or truncated files, missing bands or masks, images, frames and masks of different size or
            place, mask values that are no class.
    """
    counts, problems = [], []
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        results = pool.map(partial(_audit_row, image_processor=image_processor, num_labels=num_labels), _rows(dataset))
        total = len(dataset) if isinstance(dataset, Dataset) else None
        for result in tqdm(
            results, desc=f"Checking {split_name}", total=total, unit="chip", disable=not show_progress
        ):
            (problems if isinstance(result, str) else counts).append(result)
    if problems:
        raise ValueError(_problem_report(problems, len(counts) + len(problems), split_name))
    if not counts:
        raise ValueError(f"Split {split_name}: expected at least one chip, found none.")
    return _checked(_add_up(counts, split_name))


def _rows(dataset: Dataset | IterableDataset) -> Iterator[Callable[[], dict[str, Any]]]:
    """Gives calls that fetch a row each, so that opening files, which may fail, is left to the threads."""
    if isinstance(dataset, Dataset):
        plain = dataset.with_format(None)
        return (partial(plain.__getitem__, index) for index in range(len(plain)))
    return (partial(dict, row) for row in dataset)


def _audit_row(
    fetch: Callable[[], dict[str, Any]], image_processor: PrithviImageProcessor, num_labels: int
) -> _ChipCount | str:
    """Counts one chip, or says what is wrong with it."""
    try:
        row = fetch()
        image = tuple(row["image"]) if isinstance(row["image"], list | tuple) else row["image"]
        if row.get("mask") is None:
            return f"{row.get('id')}: expected a mask, found none"
        _check_grid(image if isinstance(image, tuple) else (image,), row["mask"])
        inputs = image_processor(
            [image], [row["mask"]], num_labels=num_labels, return_nodata_mask=True, return_tensors="pt"
        )
    except (ValueError, IndexError, OSError) as error:
        return str(error)
    return _count(inputs["labels"][0], inputs["nodata_mask"][0], num_labels)


def _count(labels: torch.Tensor, nodata_mask: torch.Tensor, num_labels: int) -> _ChipCount:
    valid = labels[labels != IGNORED_LABEL]
    return _ChipCount(
        class_pixels=torch.bincount(valid, minlength=num_labels),
        ignored_pixels=labels.numel() - valid.numel(),
        nodata_pixels=int(nodata_mask.sum()),
        size=tuple(labels.shape),
    )


def _check_grid(frames: Iterable[GeoTiffRaster], mask: GeoTiffRaster) -> None:
    """Checks that frames and mask, as far as they are georeferenced, lie on one grid."""
    first, *others = (*frames, mask)
    for other in others:
        # Different sizes are the image processor's to report, with the sizes.
        if first.crs is None or other.crs is None or first.shape[-2:] != other.shape[-2:]:
            continue
        if first.crs != other.crs:
            raise ValueError(
                f"{other.name}: expected the CRS of {first.name} ({first.crs.to_string()}), found "
                f"{other.crs.to_string()}. Check that the files belong together, or reproject one (`gdalwarp`)."
            )
        shift = largest_shift(first.transform, other.transform, first.shape[-2:])
        if shift > GRID_TOLERANCE:
            raise ValueError(
                f"{other.name}: expected the grid of {first.name}, found one shifted by up to {shift:.3g} pixels. "
                "Check that the files belong together, or bring them to one grid (`gdalwarp`)."
            )


def _add_up(counts: list[_ChipCount], split_name: str) -> SplitAudit:
    classes = torch.stack([count.class_pixels for count in counts])
    return SplitAudit(
        split_name=split_name,
        chips=len(counts),
        class_pixels=tuple(classes.sum(0).tolist()),
        class_chips=tuple((classes > 0).sum(0).tolist()),
        ignored_pixels=sum(count.ignored_pixels for count in counts),
        nodata_pixels=sum(count.nodata_pixels for count in counts),
        sizes=dict(Counter(count.size for count in counts)),
    )


def _checked(audit: SplitAudit) -> SplitAudit:
    if audit.labelled_pixels == 0:
        raise ValueError(
            f"Split {audit.split_name}: expected labelled pixels, found all {audit.total_pixels:,} pixels "
            f"of {audit.chips} chips ignored. Check ignore_values and do_reduce_labels against the masks."
        )
    return audit


def _problem_report(problems: list[str], chips: int, split_name: str) -> str:
    shown = "\n".join(f"- {problem}" for problem in problems[:_MAX_PROBLEMS_SHOWN])
    more = len(problems) - _MAX_PROBLEMS_SHOWN
    rest = f"\n- and {more} more" if more > 0 else ""
    return f"Split {split_name}: {len(problems)} of {chips} chips cannot be used:\n{shown}{rest}"
