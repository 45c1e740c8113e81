# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Statistics of a split in one pass: what normalisation, class weights and a look at the labels need.

Chips are measured in threads and added up in the order of the rows, so the figures do not depend on the number of
threads. In memory are a few chips and, for each chip, its digest; everything else is a fixed number of sums.
"""

import math
import operator
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from datasets import Dataset, IterableDataset

from prithvi_hf.data.chip_labels import SEPARATOR
from prithvi_hf.data.chips import (
    Chip,
    ChipDigest,
    check_grid,
    collect_results,
    digest_pixels,
    digest_split,
    find_grid_problem,
    read_chips,
)
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.labels_prithvi import (
    IGNORED_LABEL,
    check_mask_shape,
    count_values,
    find_unlabelled,
    make_labels,
    make_targets,
    read_mask,
)
from prithvi_hf.models.prithvi.pixel_values_prithvi import LARGEST_VALUE, Frame
from prithvi_hf.models.prithvi.processor_options_prithvi import update_options
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster


_MAX_BINS = 512
# A mask with more values than this is an image, a map of parcel numbers or a probability, not a mask of classes.
MAX_MASK_VALUES = 1_024
# Masks of parcel numbers, a few in each chip, would fill the memory otherwise.
_MAX_COUNTED_VALUES = 2**16
_LARGEST_CLASS_NUMBER = 2.0**53  # what float masks count exactly, and int64 labels hold


@dataclass(frozen=True)
class BandMoments:
    """Count, mean, spread and range of the valid values of one band, in float64.

    Two of them add up to those of both sets of values together; the sums are of squared deviations from the mean, so
    large means take nothing from the precision of the standard deviation.
    """

    count: int = 0
    mean: float = 0.0
    deviations: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf

    @classmethod
    def of(cls, values: np.ndarray) -> "BandMoments":
        """Measure values, finite numbers of any shape and type."""
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
    """A histogram that needs no range beforehand: bins as wide as a power of two, at multiples of their width.

    So the bins of two histograms nest, and their sum is exact, in whatever order.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # (bins,), at most 512
    edges: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (bins + 1,)

    @classmethod
    def of(cls, values: np.ndarray) -> "ValueHistogram":
        """Count values, finite numbers of any shape; whole numbers get no bins narrower than 1."""
        if values.size == 0:
            return cls()
        edges = _make_edges(float(values.min()), float(values.max()), 1.0 if values.dtype.kind in "iu" else 0.0)
        return cls(_count_in_bins(values, edges), edges)

    def __add__(self, other: "ValueHistogram") -> "ValueHistogram":
        if not self.counts.size or not other.counts.size:
            return self if self.counts.size else other
        low, high = min(self.edges[0], other.edges[0]), max(self.edges[-2], other.edges[-2])
        edges = _make_edges(low, high, max(self.edges[1] - self.edges[0], other.edges[1] - other.edges[0]))
        counts = (_count_in_bins(part.edges[:-1], edges, part.counts) for part in (self, other))
        return ValueHistogram(np.add(*counts), edges)


def _make_edges(low: float, high: float, least_width: float) -> np.ndarray:
    """Edges of the narrowest bins for numbers from `low` to `high`."""
    # Bins below the precision of float32 would be empty for the most part.
    precision = 2.0 ** (math.frexp(max(abs(low), abs(high)))[1] - 24)
    width = max(least_width, precision, 2.0**-1000)
    while math.floor(high / width) - math.floor(low / width) >= _MAX_BINS:
        width *= 2
    return np.arange(math.floor(low / width), math.floor(high / width) + 2) * width


def _count_in_bins(values: np.ndarray, edges: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    # numpy finds the bins of a range faster than those of a list.
    return np.histogram(values, len(edges) - 1, (edges[0], edges[-1]), weights=weights)[0]


@dataclass(frozen=True)
class LabelProblem:
    """Labels of a mask that training would refuse."""

    name: str  # of the mask's file
    text: str  # what is wrong with it
    # Pixels of each value that is not a class; empty where the mask as a whole does not fit its image.
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
        infinite_values (`tuple[int, ...]`): values of each band that are infinite, or of 1e30 and more, in pixels with
            data; they count as missing.
        mask_values (`dict[int, int]`): pixels of each whole mask value, as in the files; of more than 65,536 values
            the most frequent ones.
        class_pixels (`dict[int, int]`): labelled pixels of each class that occurs, after the processor's rules.
        class_chips (`dict[int, int]`): number of chips in which the class occurs.
        ignored_pixels (`int`): pixels of masks whose label is ignored.
        label_problems (`tuple[LabelProblem, ...]`): every mask that training would refuse.
        values (`BandMoments`): of an image processor of `label_type` "value", the targets of all masks, in their unit.
        chip_labels (`dict[str, int]`): chips of each label, where chips have labels as a whole.
        unreadable (`tuple[str, ...]`): for every chip that could not be read, and counts nowhere, why, with its file.
        digest, image_digests (`str`, `dict[str, str]`): of the content of the chips, as in [`SplitAudit`].
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
    image_digests: dict[str, str] = field(default_factory=dict)
    values: BandMoments = BandMoments()
    chip_labels: dict[str, int] = field(default_factory=dict)

    @property
    def image_mean(self) -> list[float]:
        """Mean of each band after scaling, as the processor takes it; NaN for a band without valid values."""
        return [band.mean * self.scale + self.offset if band.count else math.nan for band in self.bands]

    @property
    def image_std(self) -> list[float]:
        """Standard deviation of each band after scaling; NaN for a band without valid values."""
        return [band.std * abs(self.scale) for band in self.bands]

    def class_weights(self, num_labels: int) -> list[float]:
        """Suggest weights by inverse frequency, `total / (classes that occur * pixels of the class)`.

        All classes then have the same part in cross entropy and focal loss, which are averaged over pixels. The mean
        of the weights over the labelled pixels is 1, so these losses keep their size and the learning rate its
        meaning. A Dice loss gives every class the same part by itself; its size would change with the weights.

        Args:
            num_labels (`int`): number of classes.

        Returns:
            `list[float]`: one weight per class; 1 for a class that does not occur, whose weight touches no pixel.
        """
        pixels = [self.class_pixels.get(label, 0) for label in range(num_labels)]
        present = sum(count > 0 for count in pixels)
        return [sum(pixels) / (present * count) if count else 1.0 for count in pixels]


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
    """Measure a split in one pass, each file read once.

    Bands, frames, nodata and labels are read by the rules of the processor; its statistics are not used. A value
    counts unless it is missing: nodata by itself (NaN, infinite, 1e30 and more, the nodata tag or value), or in a
    nodata pixel. The frames of a band are pooled.

    Args:
        dataset (`Dataset` or `IterableDataset`): rows with `image` (a raster or a list of frames), `mask` (or None)
            and `id`; a transform that is set on it is left aside.
        image_processor (`PrithviImageProcessor`): says how files are read.
        num_labels (`int`, *optional*): number of classes; the processor's by default, and without it every label from
            0 on is taken for a class.
        split_name (`str`, *optional*, defaults to `"train"`): for the result and for messages.
        with_histograms (`bool`, *optional*, defaults to `False`): also count values in bins.
        show_progress (`bool`, *optional*, defaults to `True`): draw a progress bar.
        num_threads (`int`, *optional*): by default one per core, at most eight.

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
    unreadable: list[str] = []
    sums: _Sums | None = None
    for result in read_chips(dataset, measure, f"Measuring {split_name}", show_progress, num_threads):
        if isinstance(result, str):
            unreadable.append(result)
        elif sums is None:
            sums = result
        else:
            sums.add(result)
    if sums is None:
        found = "at least one chip, found none."
        if unreadable:
            found = f"chips that can be read, found none among {len(unreadable)}. The first: {unreadable[0]}"
        raise ValueError(f"Split {split_name}: expected {found}")
    return DatasetStatistics(
        split_name=split_name,
        chips=len(sums.digests),
        chips_without_mask=sums.chips_without_mask,
        sizes=dict(sorted(sums.sizes.items())),
        band_names=tuple(image_processor.bands),
        bands=tuple(sums.bands),
        histograms=tuple(sums.histograms),
        scale=image_processor.rescale_factor if image_processor.do_rescale else 1.0,
        offset=image_processor.rescale_offset if image_processor.do_rescale else 0.0,
        total_pixels=sum(height * width * chips for (height, width), chips in sums.sizes.items()),
        nodata_pixels=sums.nodata_pixels,
        infinite_values=tuple(sums.infinite_values.tolist()),
        mask_values=dict(sorted(sums.mask_values.items())),
        class_pixels=dict(sorted(sums.class_pixels.items())),
        class_chips=dict(sorted(sums.class_chips.items())),
        ignored_pixels=sums.ignored_pixels,
        label_problems=tuple(sums.label_problems),
        unreadable=tuple(unreadable),
        digest=digest_split(sums.digests),
        image_digests=sums.image_digests,
        values=sums.values,
        chip_labels=dict(sorted(sums.chip_labels.items())),
    )


def measure_targets(
    dataset: Dataset | IterableDataset,
    image_processor: PrithviImageProcessor,
    split_name: str = "train",
    show_progress: bool = True,
) -> BandMoments:
    """Measure the values that a regression is to learn, by the rules of an image processor of `label_type` "value".

    Raises:
        ValueError: files that cannot be read, each by name, or a split without a value, or whose values are all equal.
    """
    options = image_processor.checked_options()

    def measure(chip: Chip) -> BandMoments:
        if chip.mask is None:
            raise ValueError(f"{chip.id}: expected a raster of values, found none")
        frame = read_mask(chip.mask, chip.mask.name)
        targets = make_targets(frame, None, options)
        return BandMoments.of(targets[~np.isnan(targets)])

    results = read_chips(dataset, measure, f"Measuring values of {split_name}", show_progress)
    found = sum(collect_results(results, split_name), BandMoments())
    if not found.std > 0:
        values = f"{found.count:,} values of {found.minimum:.6g}" if found.count else "none"
        raise ValueError(
            f"Split {split_name}: expected values that vary, found {values}. Check the files, target_nodata_value and "
            "target_range."
        )
    return found


@dataclass
class _Sums:
    """What one chip holds, or all chips so far; the attributes are those of `DatasetStatistics`, and add up by `+`."""

    sizes: Counter[tuple[int, int]]
    bands: np.ndarray  # of BandMoments
    histograms: np.ndarray  # of ValueHistogram
    infinite_values: np.ndarray
    nodata_pixels: int
    digests: list[ChipDigest]
    image_digests: dict[str, str] = field(default_factory=dict)
    chips_without_mask: int = 0
    mask_values: Counter[int] = field(default_factory=Counter)
    class_pixels: Counter[int] = field(default_factory=Counter)
    class_chips: Counter[int] = field(default_factory=Counter)
    ignored_pixels: int = 0
    label_problems: list[LabelProblem] = field(default_factory=list)
    values: BandMoments = BandMoments()
    chip_labels: Counter[str] = field(default_factory=Counter)

    def add(self, other: "_Sums") -> None:
        """Take in a chip."""
        for name, value in vars(other).items():
            setattr(self, name, (operator.ior if type(value) is dict else operator.iadd)(getattr(self, name), value))
        for counts in (self.mask_values, self.class_pixels):
            if len(counts) > _MAX_COUNTED_VALUES:
                for value, _ in counts.most_common()[_MAX_COUNTED_VALUES // 2 :]:
                    del counts[value]


def _measure(chip: Chip, processor: PrithviImageProcessor, num_labels: int | None, with_histograms: bool) -> _Sums:
    """Measure a chip; raise why it cannot be read."""
    check_grid(chip.frames)
    chip.verify()
    frames, missing, nodata = processor.read_frames(chip.image)
    bands, histograms, infinite_values = [], [], []
    for channel in range(len(processor.bands)):
        moments, histogram, infinite = BandMoments(), ValueHistogram(), 0
        for frame, where in zip(frames, missing, strict=True):
            values = frame.values[channel]
            if where is not None:
                if values.dtype.kind == "f":  # where there is data otherwise
                    infinite += int((np.abs(values[where[channel] & ~nodata]) >= LARGEST_VALUE).sum())
                values = values[~where[channel]]
            moments += BandMoments.of(values)
            if with_histograms:
                histogram += ValueHistogram.of(values)
        bands.append(moments)
        if with_histograms:
            histograms.append(histogram)
        infinite_values.append(infinite)
    sums = _Sums(
        sizes=Counter([nodata.shape]),
        bands=np.array(bands),
        histograms=np.array(histograms),
        infinite_values=np.array(infinite_values),
        nodata_pixels=int(nodata.sum()),
        digests=[],
    )
    if chip.label is not None:
        sums.chip_labels.update(text.strip() for text in chip.label.split(SEPARATOR))
    elif chip.mask is None:
        sums.chips_without_mask = 1
    else:
        _measure_mask(chip, chip.mask, nodata, processor, num_labels, sums)
    sums.digests.append(chip.digest())
    pixels = digest_pixels(frame.values for frame in frames)
    sums.image_digests = {} if pixels is None else {pixels: chip.id}
    return sums


def _measure_mask(
    chip: Chip,
    mask: GeoTiffRaster,
    nodata: np.ndarray,
    processor: PrithviImageProcessor,
    num_labels: int | None,
    sums: _Sums,
) -> None:
    """Count the labels of a mask that fits its image, and say what is wrong with one that does not."""
    problem = find_grid_problem(chip.frames[0], mask)
    if mask.shape[-2:] != nodata.shape:
        expected, found = (" x ".join(map(str, size)) for size in (nodata.shape, mask.shape[-2:]))
        problem = f"expected the image's size {expected}, found {found}"
    try:
        check_mask_shape(mask, mask.name)
    except ValueError as error:
        problem = str(error).removeprefix(f"{mask.name}: ")
    counts: dict[float, int] = {}
    options = update_options(processor.checked_options(), {"num_labels": num_labels, "mask_nodata_labels": False})
    if problem is None and processor.label_type == "value":
        targets = make_targets(read_mask(mask, mask.name), nodata, processor.checked_options())
        sums.values = BandMoments.of(targets[~np.isnan(targets)])
        sums.ignored_pixels = targets.size - sums.values.count
        return
    if problem is None:
        frame = read_mask(mask, mask.name)
        values, unlabelled = frame.values, find_unlabelled(frame, options)
        counts = count_values(values if unlabelled is None else values[~unlabelled])
        if len(counts) > MAX_MASK_VALUES:
            found = f"{len(counts):,} different values"
            problem = f"expected a mask of classes, found {found}. Remedy: make classes of them, e.g. by a threshold"
    if problem is not None:
        sums.label_problems.append(LabelProblem(mask.name, problem))
        return
    # Values that can be class numbers, and their labels by the processor's rules.
    whole = {
        int(value): count for value, count in counts.items() if abs(value) < _LARGEST_CLASS_NUMBER and not value % 1
    }
    others = {value: count for value, count in counts.items() if value not in whole}
    row = Frame(np.array([list(whole)], dtype=np.int64), mask.name, frame.tag)
    unlimited = update_options(options, {"num_labels": None})
    labels = dict(zip(whole, make_labels(row, row.values.shape, None, unlimited)[0].tolist(), strict=True))
    # Training checks the range of all labels, before those of nodata pixels are put aside.
    labelled = counts
    if processor.mask_nodata_labels:
        labelled = count_values(values[~nodata if unlabelled is None else ~(nodata | unlabelled)])
    strangers: dict[float, int] = {}
    for value, label in labels.items():
        if 0 <= label < (math.inf if num_labels is None else num_labels):
            sums.class_pixels[label] += labelled.get(value, 0)
        elif label != IGNORED_LABEL:
            strangers[value] = whole[value]
    sums.class_pixels = +sums.class_pixels  # those that occur
    sums.class_chips.update(sums.class_pixels.keys())
    sums.mask_values.update(whole)
    sums.ignored_pixels = values.size - sums.class_pixels.total() - sum(strangers.values()) - sum(others.values())
    for text, wrong in (("values that are not class numbers", others), ("values outside the classes", strangers)):
        if wrong:
            sums.label_problems.append(LabelProblem(mask.name, text, wrong))
