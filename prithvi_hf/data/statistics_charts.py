# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Charts of a dataset's statistics: histograms of bands, and how frequent classes are in each split."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from prithvi_hf.data.statistics import DatasetStatistics
from prithvi_hf.models.prithvi.bands_prithvi import find_band_names
from prithvi_hf.outputs.figures import escape_label
from prithvi_hf.outputs.palette import BAND_COLORS, default_colors


_TAIL = 0.001  # fraction of the values at either end that may be outside the picture
_MAX_BARS = 40


def draw_band_histograms(
    axes: Axes, statistics: DatasetStatistics, normalization: tuple[Sequence[float], Sequence[float]] | None = None
) -> None:
    """Draw the histograms of the bands after scaling, or after normalisation by means and standard deviations.

    Args:
        axes: where to draw.
        statistics: measured with histograms; without them the axes stay empty.
        normalization: mean and standard deviation of each band, in its units after scaling; None for none.
    """
    ends = []
    colors = dict(zip(find_band_names(list(BAND_COLORS), statistics.band_names), BAND_COLORS.values(), strict=True))
    for place, (name, histogram) in enumerate(zip(statistics.band_names, statistics.histograms, strict=True)):
        if not histogram.counts.size:
            continue
        edges = histogram.edges * statistics.scale + statistics.offset
        if normalization is not None:
            edges = (edges - normalization[0][place]) / normalization[1][place]
        density = histogram.counts / (histogram.counts.sum() * np.abs(np.diff(edges)))
        axes.stairs(density, edges, label=escape_label(name), color=colors.get(place, f"C{place}"), linewidth=1.5)
        # Nearly all values are between these; a few outliers would press the rest into one line.
        below = histogram.counts.cumsum() / histogram.counts.sum()
        first, last = np.searchsorted(below, [_TAIL, 1 - _TAIL])
        ends += [edges[first], edges[last + 1]]
    axes.set(ylabel="density")
    if ends:
        axes.set_xlim(min(ends), max(ends))
        axes.legend(frameon=False)


def draw_class_balance(
    axes: Axes,
    splits: Mapping[str, DatasetStatistics],
    class_names: Sequence[str] | None = None,
    class_colors: Sequence[str] | None = None,
) -> None:
    """Draw which fraction of the labelled pixels of each split each class has, as bars.

    The bars of a single split have the colours of the classes, those of several a colour for each split.

    Args:
        axes: where to draw.
        splits: the statistics of each split by its name.
        class_names: name of each class; without them the classes that occur are numbered.
        class_colors: `"#rrggbb"` of each class; None for those that the names suggest.
    """
    found = sorted({label for statistics in splits.values() for label in statistics.class_pixels})
    labels = (found if class_names is None else list(range(len(class_names))))[:_MAX_BARS]
    names = [f"class {label}" if class_names is None else class_names[label] for label in labels]
    own_colors = (class_colors or default_colors(len(labels), names))[: len(labels)]
    height = 0.8 / len(splits)
    for number, (split, statistics) in enumerate(splits.items()):
        total = max(sum(statistics.class_pixels.values()), 1)
        fractions = [statistics.class_pixels.get(label, 0) / total for label in labels]
        bars = axes.barh(
            np.arange(len(labels)) - 0.4 + (number + 0.5) * height,
            fractions,
            height,
            color=own_colors if len(splits) == 1 else f"C{number}",
            edgecolor="#888888",
            label=escape_label(split),
        )
        axes.bar_label(bars, [f"{fraction:.2%}" for fraction in fractions], padding=3)
    axes.set_yticks(range(len(labels)), [escape_label(name) for name in names])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set(title="classes", xlabel="fraction of the labelled pixels")
    if len(splits) > 1:
        axes.legend(frameon=False)
