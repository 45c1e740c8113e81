# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Figures of many values that add up piece by piece: moments and histograms."""

import math
from dataclasses import dataclass, field

import numpy as np


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


__all__ = ["BandMoments", "ValueHistogram"]
