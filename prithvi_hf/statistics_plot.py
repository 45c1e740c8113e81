# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A picture of a data set's statistics: the values of its bands and the pixels of its classes."""

import os

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .data.moments import ValueHistogram
from .scenes.writer import complete_or_absent
from .statistics_report import StatisticsReport


_PANEL_INCHES = 6.0
_DPI = 120
_TAIL = 0.001  # share of the values at either end that may lie outside the picture
_MAX_BARS = 40


def write_statistics_plot(path: str | os.PathLike, report: StatisticsReport) -> None:
    """Draw the histograms of the bands and a bar chart of the classes as PNG.

    Args:
        path: The PNG to write; an existing one is replaced, and only by a complete one.
        report: Statistics that were measured with histograms.

    Raises:
        ValueError: If the folder does not exist.
    """
    # A figure of its own canvas leaves pyplot and its global state alone.
    figure = Figure(figsize=(2 * _PANEL_INCHES, _PANEL_INCHES), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    bands, classes = figure.subplots(1, 2)
    _draw_bands(bands, report)
    _draw_classes(classes, report)
    with complete_or_absent(path) as part:
        canvas.print_figure(part, dpi=_DPI, format="png")


def _draw_bands(axes: Axes, report: StatisticsReport) -> None:
    """Draw the density of each band's values after scaling."""
    main, ends = report.main, []
    for name, histogram in zip(main.band_names, main.histograms, strict=True):
        if not histogram.counts.size:
            continue
        edges = histogram.edges * main.scale + main.offset
        density = histogram.counts / (histogram.counts.sum() * np.abs(np.diff(edges)))
        axes.stairs(density, edges, label=_plain(name))
        ends += [end * main.scale + main.offset for end in _ends(histogram)]
    axes.set_title(f"bands, split {_plain(report.split)}")
    axes.set_xlabel("value after scaling")
    axes.set_ylabel("density")
    if ends:
        axes.set_xlim(min(ends), max(ends))
        axes.legend(frameon=False)


def _ends(histogram: ValueHistogram) -> tuple[float, float]:
    """Edges between which nearly all values lie; a few outliers would press the rest into one line."""
    shares = histogram.counts.cumsum() / histogram.counts.sum()
    first, last = np.searchsorted(shares, [_TAIL, 1 - _TAIL])
    return float(histogram.edges[first]), float(histogram.edges[last + 1])


def _draw_classes(axes: Axes, report: StatisticsReport) -> None:
    """Draw the share of each class in the labelled pixels."""
    pixels = report.main.class_pixels
    labels = sorted(pixels) if report.num_labels is None else list(range(report.num_labels))
    labels = labels[:_MAX_BARS]
    names = [f"class {label}" if report.class_names is None else report.class_names[label] for label in labels]
    shares = [pixels.get(label, 0) / max(sum(pixels.values()), 1) for label in labels]
    bars = axes.barh(range(len(labels)), shares)
    axes.bar_label(bars, [f"{share:.2%}" for share in shares], padding=3)
    axes.set_yticks(range(len(labels)), [_plain(name) for name in names])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("share of the labelled pixels")
    axes.set_title("classes")


def _plain(text: str) -> str:
    """Text in which matplotlib sees neither formulas nor entries to leave out."""
    return text.replace("$", r"\$").lstrip("_")


__all__ = ["write_statistics_plot"]
