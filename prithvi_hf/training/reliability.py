# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The reliability diagram: accuracy by confidence, of all classes and of each."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from prithvi_hf.metrics.calibration import NUM_BINS, calibration_metrics
from prithvi_hf.training.chip_figures import Columns, sum_bins


if TYPE_CHECKING:
    from matplotlib.figure import Figure

RELIABILITY = "reliability.png"
"""The file in the folder of a run."""
_MOST_PANELS, _PANELS_A_ROW = 12, 4
_NAME_LENGTH = 28


def make_reliability_figure(columns: Columns, class_names: Sequence[str], title: str) -> "Figure":
    """Draw the reliability diagram of some chips: a panel of all classes, and one of each that was predicted.

    Bars are the accuracy in each bin of confidence, beside the diagonal where both are equal; the grey area below is
    the fraction of the pixels in each bin. Of many classes the most frequent ones are drawn.

    Args:
        columns: Of a table of chips that has bins, see `chip_figures.read_columns`.
        class_names: Name of each class.
        title: What stands above.
    """
    from prithvi_hf.outputs.figures import escape_label, make_figure

    bins = sum_bins(columns)
    errors = calibration_metrics(*bins)
    count, correct, sums = (part.double().numpy() for part in bins)
    order = [int(index) for index in np.argsort(-count.sum(1), kind="stable") if count[index].sum()]
    shown = sorted(order[: _MOST_PANELS - 1])
    panels = [("all classes", errors["calibration_error"], count.sum(0), correct.sum(0), sums.sum(0))]
    for index in shown:
        name, own = class_names[index], errors["per_category_calibration_error"][index]
        panels.append((escape_label(name[:_NAME_LENGTH]), own, count[index], correct[index], sums[index]))
    columns_of_panels = min(_PANELS_A_ROW, len(panels))
    rows = -(-len(panels) // columns_of_panels)
    figure = make_figure(3.2 * columns_of_panels, 3.4 * rows + 0.4)
    figure.suptitle(escape_label(title))
    edges, width = np.arange(NUM_BINS) / NUM_BINS, 1 / NUM_BINS
    axes_of_panels = figure.subplots(rows, columns_of_panels, squeeze=False).ravel()
    for axes in axes_of_panels:
        axes.set_axis_off()
    for axes, (name, error, total, right, confidence) in zip(axes_of_panels, panels, strict=False):
        axes.set_axis_on()
        used = total > 0
        axes.bar(edges, total / max(total.sum(), 1), width, align="edge", color="#d9d9d9", label="fraction of pixels")
        axes.plot([0, 1], [0, 1], color="#555555", linewidth=1, linestyle="--")
        accuracy = right[used] / total[used]
        axes.bar(edges[used], accuracy, width, align="edge", fc="#1f6fb455", ec="#1f6fb4", label="accuracy")
        axes.plot(
            confidence[used] / total[used], accuracy, "o", color="#b23b3b", markersize=3, label="mean confidence"
        )
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", aspect="equal")
        text = "no label" if error is None else f"calibration error {100 * error:.1f} %"
        axes.set_title(f"{name}\n{text}", fontsize=9)
    axes_of_panels[0].legend(loc="upper left", fontsize=7, frameon=False)
    return figure
