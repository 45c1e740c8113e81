# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Figures for notebooks and papers: chips, bands, classes, errors, calibration, learning curves and maps.

Every function returns a `matplotlib.figure.Figure`, which a notebook shows and `figure.savefig` writes. pyplot and its
global state are left alone, so nothing has to be closed.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from prithvi_hf.data.statistics import DatasetStatistics
from prithvi_hf.data.statistics_charts import draw_band_histograms, draw_class_balance
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.regression_map_prithvi import Quantity, RegressionMap
from prithvi_hf.models.prithvi.segmentation_map_prithvi import SegmentationMap, title_picture
from prithvi_hf.outputs.figures import escape_label, make_figure
from prithvi_hf.outputs.quicklook import make_file_figure, make_map_figure, make_value_figure
from prithvi_hf.scenes.predicted import PredictedMap
from prithvi_hf.scenes.scene import Scene, open_scene
from prithvi_hf.scenes.scene_picture import read_scene_picture
from prithvi_hf.training.chip_figures import find_splits, read_chip_figures, read_columns, read_metadata
from prithvi_hf.training.model_card import make_curve_figure
from prithvi_hf.training.reliability import make_reliability_figure
from prithvi_hf.training.report import explain_damage, read_json
from prithvi_hf.training.sample_pictures import PLOTS, make_prediction_figure
from prithvi_hf.training.training_args import TASK_METRICS


if TYPE_CHECKING:
    from datasets import Dataset

    from prithvi_hf.data.chip_cache import CachedChips

__all__ = [
    "plot_band_histograms",
    "plot_chips",
    "plot_class_balance",
    "plot_confusion_matrix",
    "plot_learning_curves",
    "plot_map",
    "plot_reliability",
]

_MOST_COUNTS = 8  # classes of a confusion matrix whose cells have room for pixels too


def plot_chips(
    dataset: "Dataset | CachedChips",
    image_processor: PrithviImageProcessor,
    model: Any = None,
    *,
    samples: int | Sequence[int] = 4,
    errors: bool = True,
    class_names: Sequence[str] | None = None,
    class_colors: Sequence[str] | None = None,
    window: int | None = None,
    overlap: float = 0.5,
) -> Figure:
    """Draw chips, one per row: the scene, its label and, of a model, prediction and errors.

    Args:
        dataset: Chips with `image` and, where they are labelled, `mask` or `label`, as `load_dataset` gives them.
        image_processor: Says how images and masks are read; the model's own where there is a model.
        model: A model of any task (`PrithviForSemanticSegmentation`, `PrithviForPixelRegression`,
            `PrithviForImageClassification`), or None for labels alone.
        samples: How many chips, spread evenly over the dataset; or the index of each.
        errors: Whether a map is drawn of where label and prediction differ.
        class_names: Names of the classes where there is no model; by default those that the dataset states, and
            numbers where it states none.
        class_colors: `"#rrggbb"` of each class, in the same way.
        window: Side of the model's windows in pixels; None for its default.
        overlap: Their overlap, as a fraction.

    Returns:
        The figure.

    Raises:
        ValueError: A label that is not a class, or chips that the image processor refuses.
    """
    options: dict[str, Any] = {"samples": samples, "window": window, "overlap": overlap, "errors": errors}
    if model is not None:
        return PLOTS[model.task](model, image_processor, dataset, **options)
    if image_processor.label_type == "value":
        return PLOTS["regression"](None, image_processor, dataset, **options)
    columns = getattr(dataset, "features", None) or {}
    if "mask" not in columns and "label" in columns:
        return PLOTS["classification"](None, image_processor, dataset, **options)
    stated = columns.get("mask")
    names = class_names or getattr(stated, "class_names", None)
    colors = class_colors if class_names or class_colors else getattr(stated, "class_colors", None)
    classes = (list(names), colors) if names else None
    return make_prediction_figure(None, image_processor, dataset, classes=classes, **options)


def plot_band_histograms(
    statistics: DatasetStatistics, image_processor: PrithviImageProcessor | None = None
) -> Figure:
    """Draw the histograms of the bands, as they are and after normalisation.

    After it, bands that fit the statistics of the image processor have a mean near 0 and most values from -2 to 2.

    Args:
        statistics: Of `compute_statistics(..., with_histograms=True)`.
        image_processor: Its `image_mean` and `image_std` normalise; None for the mean and standard deviation of the
            chips themselves.

    Returns:
        The figure.

    Raises:
        ValueError: Statistics without histograms, or of other bands than those of the image processor.
    """
    if not any(histogram.counts.size for histogram in statistics.histograms):
        raise ValueError(
            "Expected statistics with histograms, found none: measure with compute_statistics(..., "
            "with_histograms=True)."
        )
    mean, std = statistics.image_mean, statistics.image_std
    if image_processor is not None:
        if list(image_processor.bands) != list(statistics.band_names):
            raise ValueError(
                f"Expected statistics of the bands {', '.join(image_processor.bands)}, found those of "
                f"{', '.join(statistics.band_names)}. Measure them with this image processor."
            )
        mean, std = image_processor.image_mean, image_processor.image_std
    figure = make_figure(12.0, 4.5)
    before, after = figure.subplots(1, 2)
    draw_band_histograms(before, statistics)
    before.set(title=f"before, split {escape_label(statistics.split_name)}", xlabel="value after scaling")
    draw_band_histograms(after, statistics, (mean, [value or 1.0 for value in std]))
    after.set(title="after normalisation", xlabel="(value - mean) / standard deviation")
    after.axvline(0, color="#888888", linewidth=0.8, linestyle="--")
    return figure


def plot_class_balance(
    splits: DatasetStatistics | Mapping[str, DatasetStatistics],
    class_names: Sequence[str] | None = None,
    class_colors: Sequence[str] | None = None,
) -> Figure:
    """Draw which fraction of the labelled pixels of each split each class has.

    Args:
        splits: Of `compute_statistics`, of one split or of several by name.
        class_names: Name of each class; None numbers those that occur.
        class_colors: `"#rrggbb"` of each class for a single split; None for default colours.

    Returns:
        The figure.

    Raises:
        ValueError: No split.
    """
    if isinstance(splits, DatasetStatistics):
        splits = {splits.split_name: splits}
    if not splits:
        raise ValueError("Expected the statistics of at least one split, found none.")
    occurring = {label for statistics in splits.values() for label in statistics.class_pixels}
    bars = len(splits) * (len(occurring) if class_names is None else len(class_names))
    figure = make_figure(7.0, min(1.5 + 0.35 * bars, 14.0))
    axes = figure.subplots()
    draw_class_balance(axes, splits, class_names, class_colors)
    return figure


def plot_confusion_matrix(
    figures: str | os.PathLike[str] | pa.Table | np.ndarray,
    class_names: Sequence[str] | None = None,
    *,
    split: str | None = None,
) -> Figure:
    """Draw a confusion matrix: the fraction of each true class that was given each class.

    Args:
        figures: Folder of a run or a file of `prithvi-hf evaluate --chip_figures`, the table that `read_chip_figures`
            gives, or an array (num_labels, num_labels) of counts with true classes in rows and predictions in columns.
        class_names: Name of each class; None for those in the file, or numbers.
        split: Name of the split; None for the one that was evaluated last.

    Returns:
        The figure.

    Raises:
        FileNotFoundError: There are no figures of chips.
        ValueError: Figures without a confusion matrix, an array of another shape, or a split that is not there.
    """
    title, what = "", ""
    if isinstance(figures, np.ndarray):
        matrix = figures
    else:
        table = _take_evaluation(figures, split)
        columns, about = read_columns(table), read_metadata(table)
        class_names = class_names or about["class_names"] or None
        title = table["split"][0].as_py()
        if about["task"] == "segmentation":
            side, what = round(columns["confusion"].shape[1] ** 0.5), "pixels"
            matrix = columns["confusion"].sum(axis=0).reshape(side, side)
        elif about["task"] == "classification" and columns["labels"].shape[1] == 1:
            side, what = columns["logits"].shape[1], "chips"
            matrix = np.zeros((side, side), dtype=np.int64)
            np.add.at(matrix, (columns["labels"][:, 0].astype(int), columns["logits"].argmax(axis=1)), 1)
        else:
            raise ValueError(f"Expected figures of one class per pixel or chip, found {about['task']}.")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size or (matrix < 0).any():
        raise ValueError(f"Expected a square matrix of counts, found {matrix.dtype} of shape {matrix.shape}.")
    names = class_names or [f"class {label}" for label in range(len(matrix))]
    if len(names) != len(matrix):
        raise ValueError(f"Expected the names of {len(matrix)} classes, found {len(names)}.")
    totals = matrix.sum(axis=1, keepdims=True)
    fractions = np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    has_counts = len(names) <= _MOST_COUNTS
    size = max(3.0, 1.1 * len(names)) if has_counts else min(0.6 * len(names), 30.0)
    figure = make_figure(size + 2.5, size + 1.2)
    axes = figure.subplots()
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(matrix.shape):
        if not totals[row]:
            continue
        fraction, count = fractions[row, column], matrix[row, column]
        text = f"{fraction:.1%}\n{count:,.0f}" if has_counts else f"{100 * fraction:.0f}"
        color = "white" if fraction > 0.6 else "black"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=9)
    labels = [escape_label(name) for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), labels)
    unit = f"% and {what or 'counts'}" if has_counts else "%"
    axes.set(xlabel="prediction", ylabel="label", title=escape_label(f"{title}: {unit}" if title else unit))
    figure.colorbar(image, ax=axes, label="fraction of the label", shrink=0.8)
    return figure


def plot_map(
    result: SegmentationMap | RegressionMap | PredictedMap | str | os.PathLike[str],
    scene: Any = None,
    image_processor: PrithviImageProcessor | None = None,
    *,
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Draw a map beside its scene, with a legend and a scale bar.

    Args:
        result: What the pipeline or `predict_scene` gives, or a GeoTIFF of classes or values: a map, or a mask.
        scene: The frames that were mapped, as `predict_scene` takes them, or an opened `Scene`; None for the map
            alone. What the pipeline gives has its scene with it.
        image_processor: The model's, which finds the colours of `scene`.
        class_names: Names of the values 0, 1, ... of a GeoTIFF that has none inside.

    Returns:
        The figure.

    Raises:
        GeoTiffError: A file cannot be read.
        ValueError: A scene without an image processor, or on another grid than the map; or not a map.
    """
    if isinstance(result, SegmentationMap | RegressionMap):
        place: dict[str, Any] = {"crs": result.crs, "transform": result.transform}
        picture = {"rgb": result.rgb, "rgb_title": result.rgb_title, **place}
        if isinstance(result, RegressionMap):
            return make_value_figure(result.values, title=Quantity(result.name, result.unit).title, **picture)
        return make_map_figure(result.mask, id2label=result.id2label, class_colors=result.class_colors, **picture)
    path = result.path if isinstance(result, PredictedMap) else result
    if scene is None:
        return make_file_figure(path, class_names=class_names)
    if image_processor is None:
        raise ValueError("Expected an image processor with a scene, which finds its colours: give the model's.")
    opened = scene if isinstance(scene, Scene) else open_scene(scene, image_processor)
    rgb, _ = read_scene_picture(opened, image_processor)
    title = title_picture(image_processor.bands, image_processor.num_frames, opened.dates[-1])
    return make_file_figure(path, rgb, title, class_names)


def plot_reliability(figures: str | os.PathLike[str] | pa.Table, split: str | None = None) -> Figure:
    """Draw the reliability diagram: how often a model is right, by how sure it is.

    Args:
        figures: Folder of a run or a file of `prithvi-hf evaluate --chip_figures`, or the table of it.
        split: Name of the split; None for the one that was evaluated last.

    Returns:
        The figure.

    Raises:
        FileNotFoundError: There are no figures of chips.
        ValueError: Figures without confidences, such as those of a regression, or a split that is not there.
    """
    table = _take_evaluation(figures, split)
    about = read_metadata(table)
    if "bin_count" not in table.column_names:
        raise ValueError(f"Expected figures with confidences, found those of a {about['task']} without.")
    columns = read_columns(table)
    names = about["class_names"] or [f"class {label}" for label in range(columns["bin_count"].shape[1])]
    return make_reliability_figure(columns, names, table["split"][0].as_py())


def plot_learning_curves(run: str | os.PathLike[str] | Sequence[Mapping[str, Any]]) -> Figure:
    """Draw loss, validation metric and learning rate over the steps of a training.

    Args:
        run: Folder of a run, or the `state.log_history` of a trainer.

    Returns:
        The figure.

    Raises:
        FileNotFoundError: A folder without the record of a training.
        ValueError: The record is damaged.
    """
    if not isinstance(run, str | os.PathLike):
        return _draw_history(run)
    path = Path(run) / "trainer_state.json"
    if not path.is_file():
        raise FileNotFoundError(f"Expected {path}, found none. Give the folder of a training, its --output_dir.")
    with explain_damage(path):
        return _draw_history(read_json(path)["log_history"])


def _draw_history(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw a history with the first metric of a task that is in it."""
    measured = {name for entry in history for name in entry}
    metrics = [item for names in TASK_METRICS.values() for item in names.items() if f"eval_{item[0]}" in measured]
    name, title = metrics[0] if metrics else ("mean_iou", "mean IoU")
    return make_curve_figure(history, (name, title.replace("Mean", "mean")))


def _take_evaluation(figures: str | os.PathLike[str] | pa.Table, split: str | None) -> pa.Table:
    """Take one evaluation from the figures of chips, by the name or the prefix of its split."""
    table = figures if isinstance(figures, pa.Table) else read_chip_figures(Path(figures))
    found = find_splits(table)
    if split is None:
        return [*found.values()][-1]
    named = {part["split"][0].as_py(): part for part in found.values()} | found
    if split not in named:
        known = ", ".join(dict.fromkeys(part["split"][0].as_py() for part in found.values()))
        raise ValueError(f"Expected a split among {known}, found {split!r}.")
    return named[split]
