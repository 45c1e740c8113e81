# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Statistics of a split in one pass: what normalisation, class weights and a look at the labels need.

Chips are measured in threads and added up in the order of the rows, so the figures do not depend on the number of
threads. In memory are a few chips and, for each chip, its digest; everything else is a fixed number of sums.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset, IterableDataset

from prithvi_hf.data.chips import (
    Chip,
    check_grid,
    digest_split,
    find_grid_problem,
    read_chips,
)
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.labels_prithvi import IGNORED_LABEL, read_labels
from prithvi_hf.models.prithvi.pixel_values_prithvi import Frame, as_array
from prithvi_hf.models.prithvi.processor_options_prithvi import update_options


_HISTOGRAM_BINS = 512


@dataclass(frozen=True)
class BandMoments:
    """Count, mean, spread and range of the valid values of one band, in float64.

    Two of them add up to those of both sets of values together; the sums are of deviations from the mean, so large
    means take nothing from the precision of the standard deviation.

    Attributes:
        count (`int`): number of values.
        mean (`float`): their mean, 0 where there is none.
        deviations (`float`): sum of the squared deviations from the mean.
        minimum, maximum (`float`): their range; infinity and minus infinity where there is none.
    """

    count: int = 0
    mean: float = 0.0
    deviations: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf

    @classmethod
    def of(cls, values: np.ndarray) -> "BandMoments":
        """Measures values, finite numbers of any shape and type."""
        if values.size == 0:
            return cls()
        residuals = values.ravel().astype(np.float64)
        shift = residuals.mean()
        residuals -= shift
        # What rounding left of the mean, so that the deviations are from the mean itself.
        rest = residuals.mean()
        np.square(residuals, out=residuals)
        deviations = max(float(residuals.sum() - values.size * rest**2), 0.0)
        return cls(values.size, float(shift + rest), deviations, float(values.min()), float(values.max()))

    def __add__(self, other: "BandMoments") -> "BandMoments":
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        step = other.mean - self.mean
        return BandMoments(
            count=count,
            mean=self.mean + step * (other.count / count),
            deviations=self.deviations + other.deviations + step**2 * (self.count * other.count / count),
            minimum=min(self.minimum, other.minimum),
            maximum=max(self.maximum, other.maximum),
        )

    @property
    def std(self) -> float:
        """Standard deviation of the population: divided by the count. NaN without values, 0 for a constant."""
        if not self.count:
            return math.nan
        # Rounding of the mean must not give a constant a spread that somebody divides by.
        return 0.0 if self.minimum == self.maximum else math.sqrt(self.deviations / self.count)


@dataclass(frozen=True)
class ValueHistogram:
    """A histogram that needs no range beforehand: bins as wide as a power of two, widened as values come in.

    Bins start at multiples of their width, so those of two histograms nest and the sum is exact, in whatever order.

    Attributes:
        exponent (`int`): bins are `2.0**exponent` wide.
        first (`int`): the first bin starts at `first * 2.0**exponent`.
        counts (`np.ndarray` of shape `(bins,)`, int64): values a bin, at most 512 bins.
    """

    exponent: int = 0
    first: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(cls, values: np.ndarray) -> "ValueHistogram":
        """Counts values, finite numbers of any shape; whole numbers get no bins narrower than 1."""
        if values.size == 0:
            return cls()
        exponent = _bin_exponent(float(values.min()), float(values.max()), values.dtype.kind in "iu")
        bins = np.floor(values.ravel().astype(np.float64) / 2.0**exponent)
        first = int(bins.min())
        return cls(exponent, first, np.bincount((bins - first).astype(np.int64)))

    def __add__(self, other: "ValueHistogram") -> "ValueHistogram":
        if not self.counts.size or not other.counts.size:
            return self if self.counts.size else other
        exponent = max(self.exponent, other.exponent)
        while True:
            parts = [part._widened(exponent) for part in (self, other)]
            first = min(part.first for part in parts)
            length = max(part.first + len(part.counts) for part in parts) - first
            if length <= _HISTOGRAM_BINS:
                break
            exponent += 1
        counts = np.zeros(length, np.int64)
        for part in parts:
            counts[part.first - first : part.first - first + len(part.counts)] += part.counts
        return ValueHistogram(exponent, first, counts)

    @property
    def edges(self) -> np.ndarray:
        """Edges of the bins, float64 (bins + 1,)."""
        return (self.first + np.arange(len(self.counts) + 1)) * 2.0**self.exponent

    def _widened(self, exponent: int) -> "ValueHistogram":
        factor = 2 ** (exponent - self.exponent)  # may exceed what numpy's integers hold
        first = self.first // factor
        bins = [(self.first + place) // factor - first for place in range(len(self.counts))]
        counts = np.zeros(bins[-1] + 1, np.int64)
        np.add.at(counts, bins, self.counts)
        return ValueHistogram(exponent, first, counts)


def _bin_exponent(low: float, high: float, is_whole: bool) -> int:
    """The least exponent for which bins of that power of two cover a range."""
    # Bins below the precision of float32 would be empty for the most part.
    magnitude = max(abs(low), abs(high))
    exponent = max(math.frexp(magnitude)[1] - 24 if magnitude else -24, -1000)
    if is_whole:
        exponent = max(exponent, 0)
    if high > low:
        exponent = max(exponent, math.frexp((high - low) / _HISTOGRAM_BINS)[1] - 1)
    while math.floor(high / 2.0**exponent) - math.floor(low / 2.0**exponent) >= _HISTOGRAM_BINS:
        exponent += 1
    return exponent


# A mask with more values than this is an image, a map of parcel numbers or a probability, not a mask of classes.
MAX_MASK_VALUES = 1_024
_MAX_TABLE = 2**16  # values counted in a table instead of by sorting
_LARGEST_CLASS_NUMBER = 2.0**53  # what float masks count exactly, and int64 labels hold


@dataclass(frozen=True)
class LabelProblem:
    """Labels of a mask that training would refuse.

    Attributes:
        name (`str`): the mask's file.
        text (`str`): what is wrong with it.
        values (`dict[float, int]`): pixels of each value that is no class; empty where the mask as a whole does not
            fit its image.
    """

    name: str
    text: str
    values: dict[float, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetStatistics:
    """What [`compute_statistics`] measured. Values are in the units of the files, before scaling.

    Attributes:
        split_name (`str`): the split.
        chips (`int`): number of chips that were read.
        chips_without_mask (`int`): those of them that have no mask.
        sizes (`dict[tuple[int, int], int]`): number of chips of each (height, width).
        band_names (`tuple[str, ...]`): the processor's bands.
        bands (`tuple[BandMoments, ...]`): valid values of each band, over all pixels of all frames.
        histograms (`tuple[ValueHistogram, ...]`): of each band; empty unless asked for.
        scale, offset (`float`): the processor's scaling, `value * scale + offset`.
        total_pixels (`int`): pixels of all chips, a pixel of several frames counted once.
        nodata_pixels (`int`): those without data by the processor's rule.
        infinite_values (`tuple[int, ...]`): infinite values of each band in pixels with data; they count as missing.
        mask_values (`dict[int, int]`): pixels of each whole mask value, as in the files; of more than 65,536 values
            the most frequent ones.
        class_pixels (`dict[int, int]`): labelled pixels of each class that occurs, after the processor's rules.
        class_chips (`dict[int, int]`): number of chips in which the class occurs.
        ignored_pixels (`int`): pixels of masks whose label is ignored.
        label_problems (`tuple[LabelProblem, ...]`): every mask that training would refuse.
        unreadable (`tuple[str, ...]`): for every chip that could not be read, and counts nowhere, why, with its file.
        digest (`str`): sha256 over ids and content of the chips, as in [`SplitAudit`].
    """

    split_name: str
    chips: int
    chips_without_mask: int
    sizes: dict[tuple[int, int], int]
    band_names: tuple[str, ...]
    bands: tuple[BandMoments, ...]
    histograms: tuple[ValueHistogram, ...]
    scale: float
    offset: float
    total_pixels: int
    nodata_pixels: int
    infinite_values: tuple[int, ...]
    mask_values: dict[int, int]
    class_pixels: dict[int, int]
    class_chips: dict[int, int]
    ignored_pixels: int
    label_problems: tuple[LabelProblem, ...]
    unreadable: tuple[str, ...]
    digest: str

    @property
    def image_mean(self) -> list[float]:
        """Mean of each band after scaling, as the processor takes it; NaN for a band without valid values."""
        return [band.mean * self.scale + self.offset if band.count else math.nan for band in self.bands]

    @property
    def image_std(self) -> list[float]:
        """Standard deviation of each band after scaling; NaN for a band without valid values."""
        return [band.std * abs(self.scale) for band in self.bands]

    def class_weights(self, num_labels: int) -> list[float]:
        """Suggests a weight for each class, see [`balanced_class_weights`].

        Args:
            num_labels (`int`): number of classes.
        """
        return balanced_class_weights([self.class_pixels.get(label, 0) for label in range(num_labels)])


def balanced_class_weights(class_pixels: Sequence[int]) -> list[float]:
    """Weights by inverse frequency, `total / (classes that occur * pixels of the class)`.

    All classes then have the same share in cross entropy and focal loss, which are averaged over pixels. The mean of
    the weights over the labelled pixels is 1, so these losses keep their size and the learning rate its meaning. A
    Dice loss gives every class the same share by itself; its size would change with the weights.

    Args:
        class_pixels (`Sequence[int]`): labelled pixels of each class.

    Returns:
        `list[float]`: one weight a class; 1 for a class that does not occur, whose weight touches no pixel.
    """
    present = sum(pixels > 0 for pixels in class_pixels)
    return [sum(class_pixels) / (present * pixels) if pixels else 1.0 for pixels in class_pixels]


def count_classes(statistics: Iterable[DatasetStatistics]) -> int | None:
    """Concludes the number of classes from the labels that occur.

    Args:
        statistics (`Iterable[DatasetStatistics]`): of all splits.

    Returns:
        `int`, *optional*: n where the labels are 0, 1, ... n - 1 and n is 2 or more; None where some are left out, as
        beside an undeclared 255.
    """
    labels = {label for split in statistics for label in split.class_pixels}
    return len(labels) if len(labels) > 1 and max(labels) == len(labels) - 1 else None


def compute_statistics(
    dataset: Dataset | IterableDataset,
    image_processor: PrithviImageProcessor,
    num_labels: int | None = None,
    split_name: str = "train",
    *,
    with_histograms: bool = False,
    show_progress: bool = True,
    num_threads: int | None = None,
) -> DatasetStatistics:
    """Measures a split in one pass, each file read once.

    Bands, frames, nodata and labels are read by the rules of the processor; its statistics are not used. A value
    counts unless it is missing: NaN, infinite, equal to the nodata tag or value, or in a nodata pixel. The frames of a
    band are pooled.

    Args:
        dataset (`Dataset` or `IterableDataset`): rows with `image` (a raster or a list of frames), `mask` (or None)
            and `id`; a transform that is set on it is left aside.
        image_processor (`PrithviImageProcessor`): says how files are read.
        num_labels (`int`, *optional*): number of classes; the processor's by default, and without it every label from
            0 on is taken for a class.
        split_name (`str`, *optional*, defaults to `"train"`): for the result and for messages.
        with_histograms (`bool`, *optional*, defaults to `False`): also count values in bins.
        show_progress (`bool`, *optional*, defaults to `True`): draw a progress bar.
        num_threads (`int`, *optional*): by default one a core, at most eight.

    Returns:
        `DatasetStatistics`: the figures, with every chip that could not be read and every unusable mask by name.

    Raises:
        ValueError: a split without a chip, or without one that can be read.

    Example:
    ```python
    >>> chips = load_dataset("geotiff_folder", "my_chips", split="train")
    >>> found = compute_statistics(chips, PrithviImageProcessor(rescale_factor=0.0001, nodata_value=-9999))
    >>> processor = PrithviImageProcessor(
    ...     rescale_factor=0.0001, nodata_value=-9999, image_mean=found.image_mean, image_std=found.image_std
    ... )
    ```
    """
    num_labels = image_processor.num_labels if num_labels is None else num_labels
    measure = partial(_measure, processor=image_processor, num_labels=num_labels, with_histograms=with_histograms)
    sums = _Sums()
    for result in read_chips(dataset, measure, f"Measuring {split_name}", show_progress, num_threads):
        sums.add(result)
    if not sums.digests:
        raise ValueError(_empty_message(split_name, sums.unreadable))
    return sums.result(split_name, image_processor)


@dataclass
class _Labels:
    """What one mask holds."""

    values: Counter = field(default_factory=Counter)
    classes: Counter = field(default_factory=Counter)
    ignored: int = 0
    problems: list[LabelProblem] = field(default_factory=list)


@dataclass
class _Measured:
    """What one chip holds."""

    size: tuple[int, int]
    bands: list[BandMoments]
    histograms: list[ValueHistogram]
    nodata_pixels: int
    infinite_values: list[int]
    labels: _Labels | None
    digests: list[Any]


class _Sums:
    """Everything measured so far."""

    def __init__(self) -> None:
        self.sizes: Counter = Counter()
        self.bands: list[BandMoments] = []
        self.histograms: list[ValueHistogram] = []
        self.nodata_pixels = self.chips_without_mask = 0
        self.infinite_values: list[int] = []
        self.labels, self.class_chips = _Labels(), Counter()
        self.digests: list[list[Any]] = []
        self.unreadable: list[str] = []

    def add(self, chip: _Measured | str) -> None:
        """Takes in a chip, or why it could not be read."""
        if isinstance(chip, str):
            self.unreadable.append(chip)
            return
        self.sizes[chip.size] += 1
        self.bands = _added(self.bands, chip.bands)
        self.histograms = _added(self.histograms, chip.histograms)
        self.nodata_pixels += chip.nodata_pixels
        self.infinite_values = _added(self.infinite_values, chip.infinite_values)
        self.digests.append(chip.digests)
        self._add_labels(chip.labels)

    def _add_labels(self, labels: _Labels | None) -> None:
        if labels is None:
            self.chips_without_mask += 1
            return
        self.labels.values = _bounded(self.labels.values + labels.values)
        self.labels.classes = _bounded(self.labels.classes + labels.classes)
        self.labels.ignored += labels.ignored
        self.labels.problems += labels.problems
        self.class_chips.update(labels.classes.keys())

    def result(self, split_name: str, processor: PrithviImageProcessor) -> DatasetStatistics:
        """The figures of all chips."""
        return DatasetStatistics(
            split_name=split_name,
            chips=len(self.digests),
            chips_without_mask=self.chips_without_mask,
            sizes=dict(sorted(self.sizes.items())),
            band_names=tuple(processor.bands),
            bands=tuple(self.bands),
            histograms=tuple(self.histograms),
            scale=processor.rescale_factor if processor.do_rescale else 1.0,
            offset=processor.rescale_offset if processor.do_rescale else 0.0,
            total_pixels=sum(height * width * chips for (height, width), chips in self.sizes.items()),
            nodata_pixels=self.nodata_pixels,
            infinite_values=tuple(self.infinite_values),
            mask_values=dict(sorted(self.labels.values.items())),
            class_pixels=dict(sorted(self.labels.classes.items())),
            class_chips=dict(sorted(self.class_chips.items())),
            ignored_pixels=self.labels.ignored,
            label_problems=tuple(self.labels.problems),
            unreadable=tuple(self.unreadable),
            digest=digest_split(self.digests),
        )


def _bounded(counts: Counter) -> Counter:
    """Drops the rarest of too many values: masks of parcel numbers, a few in each chip, would fill the memory."""
    return counts if len(counts) <= _MAX_TABLE else Counter(dict(counts.most_common(_MAX_TABLE // 2)))


def _added(sums: list[Any], more: list[Any]) -> list[Any]:
    return [first + second for first, second in zip(sums, more, strict=True)] if sums else more


def _empty_message(split_name: str, unreadable: Sequence[str]) -> str:
    if not unreadable:
        return f"Split {split_name}: expected at least one chip, found none."
    return (
        f"Split {split_name}: expected chips that can be read, found none among {len(unreadable)}. The first: "
        f"{unreadable[0]}"
    )


# ----------------------------------------------------------------- one chip


def _measure(chip: Chip, processor: PrithviImageProcessor, num_labels: int | None, with_histograms: bool) -> _Measured:
    """Measures a chip; raises why it cannot be read."""
    check_grid(chip.frames)
    frames, missing, nodata = processor.read_frames(chip.image)
    bands, histograms, infinite = [], [], []
    for channel in range(len(processor.bands)):
        values = [_valid_values(frame, where, channel) for frame, where in zip(frames, missing, strict=True)]
        bands.append(sum(map(BandMoments.of, values), BandMoments()))
        places = zip(frames, missing, strict=True)
        infinite.append(sum(_count_infinite(frame, where, nodata, channel) for frame, where in places))
        if with_histograms:
            histograms.append(sum(map(ValueHistogram.of, values), ValueHistogram()))
    labels = None if chip.mask is None else _measure_mask(chip, nodata, processor, num_labels)
    return _Measured(nodata.shape, bands, histograms, int(nodata.sum()), infinite, labels, chip.digest())


def _valid_values(frame: Frame, missing: np.ndarray | None, channel: int) -> np.ndarray:
    values = frame.values[channel]
    return values if missing is None else values[~missing[channel]]


def _count_infinite(frame: Frame, missing: np.ndarray | None, nodata: np.ndarray, channel: int) -> int:
    """Infinite values where there is data otherwise, in the float32 that models compute in."""
    if missing is None or frame.values.dtype.kind != "f":
        return 0
    with np.errstate(over="ignore"):
        return int(np.isinf(frame.values[channel][missing[channel] & ~nodata].astype(np.float32)).sum())


def _measure_mask(chip: Chip, nodata: np.ndarray, processor: PrithviImageProcessor, num_labels: int | None) -> _Labels:
    """Counts the labels of a mask that fits its image, and says what is wrong with one that does not."""
    mask = chip.mask
    try:
        _check_mask(chip, nodata)
        values = as_array(mask.read(), mask.name)[0]
        whole, odd = _count_values(values)
        labelled = _count_values(values[~nodata])[0] if processor.mask_nodata_labels else whole
    except _UnfitMaskError as error:
        return _Labels(problems=[LabelProblem(mask.name, str(error))])
    # Training checks the range of all labels, before those of nodata pixels are put aside.
    strangers = _sort_labels(whole, processor, num_labels)[1]
    classes = _sort_labels(labelled, processor, num_labels)[0]
    ignored = values.size - sum(classes.values()) - sum(strangers.values()) - sum(odd.values())
    labels = _Labels(values=whole, classes=classes, ignored=ignored)
    if odd:
        labels.problems.append(LabelProblem(mask.name, "values that are no class numbers", odd))
    if strangers:
        labels.problems.append(LabelProblem(mask.name, "values that are no class", strangers))
    return labels


class _UnfitMaskError(ValueError):
    """A mask that can be read, but does not belong to its image or is no mask of classes."""


def _check_mask(chip: Chip, nodata: np.ndarray) -> None:
    count, *size = chip.mask.shape
    if count != 1:
        raise _UnfitMaskError(f"expected one band, found {count}")
    if tuple(size) != nodata.shape:
        height, width = nodata.shape
        raise _UnfitMaskError(f"expected the image's size {height} x {width}, found {size[0]} x {size[1]}")
    problem = find_grid_problem(chip.frames[0], chip.mask)
    if problem is not None:
        raise _UnfitMaskError(problem)


def _count_values(values: np.ndarray) -> tuple[Counter, dict[float, int]]:
    """Pixels of each value that can be a class number, and of each other; NaN, which is ignored, is in neither."""
    found, counts = _unique(values[~np.isnan(values)] if values.dtype.kind == "f" else values)
    if len(found) > MAX_MASK_VALUES:
        raise _UnfitMaskError(f"expected a mask of classes, found {len(found):,} different values")
    with np.errstate(invalid="ignore"):
        is_whole = (np.abs(found.astype(np.float64)) < _LARGEST_CLASS_NUMBER) & (found == np.rint(found))
    pairs = list(zip(found.tolist(), counts.tolist(), is_whole.tolist(), strict=True))
    whole = Counter({int(value): count for value, count, whole in pairs if whole})
    return whole, {value: count for value, count, whole in pairs if not whole}


def _unique(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`np.unique` with counts; in a table where integers lie close together, which is many times faster."""
    if values.dtype.kind == "f" or values.size == 0 or int(values.max()) - int(values.min()) >= _MAX_TABLE:
        return np.unique(values, return_counts=True)
    low = int(values.min())
    counts = np.bincount((values.ravel().astype(np.int64)) - low)
    (found,) = counts.nonzero()
    return found + low, counts[found]


def _sort_labels(
    counts: Counter, processor: PrithviImageProcessor, num_labels: int | None
) -> tuple[Counter, dict[float, int]]:
    """Divides mask values into classes and values that are neither a class nor ignored, by the processor's rules."""
    values = list(counts)
    options = update_options(processor.checked_options(), {"num_labels": None, "mask_nodata_labels": False})
    row = np.array([values], dtype=np.int64)
    labels = read_labels(row, np.zeros(row.shape, dtype=bool), options)[0].tolist()
    classes, strangers = Counter(), {}
    for value, label in zip(values, labels, strict=True):
        if label == IGNORED_LABEL:
            continue
        if label < 0 or (num_labels is not None and label >= num_labels):
            strangers[value] = counts[value]
        else:
            classes[label] += counts[value]
    return classes, strangers


__all__ = [
    "BandMoments",
    "DatasetStatistics",
    "LabelProblem",
    "ValueHistogram",
    "balanced_class_weights",
    "compute_statistics",
    "count_classes",
]
