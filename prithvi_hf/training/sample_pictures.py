# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures of chips beside their labels and what a model makes of them: classes, values, or labels of whole chips."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset

from prithvi_hf.data.chip_cache import CachedChips
from prithvi_hf.data.chips import spread_indices
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.regression_map_prithvi import Quantity
from prithvi_hf.models.prithvi.segmentation_map_prithvi import (
    NODATA_CLASS,
    PreparedScene,
    assemble_map,
    predict_scene_logits,
    prepare_scene,
)
from prithvi_hf.models.prithvi.sliding_window_prithvi import evaluation_mode
from prithvi_hf.outputs.palette import class_palette
from prithvi_hf.outputs.quicklook import (
    PictureRow,
    draw_pictures,
    make_color_scale,
    measure_width,
    paint_classes,
    paint_values,
    thumbnail_step,
)


if TYPE_CHECKING:
    from matplotlib.cm import ScalarMappable

_WRONG, _RIGHT = (205, 38, 38, 255), (222, 222, 218, 255)  # red, green, blue and opacity in a map of errors


def pick_samples(
    model: Any, processor: PrithviImageProcessor, dataset: Dataset | CachedChips, samples: int | Sequence[int]
) -> Iterator[tuple[dict[str, Any], PreparedScene, Any]]:
    """Give rows, each prepared for the model, with the labels of its mask if any.

    `samples` is how many, spread evenly over the dataset, or the index of each.
    """
    rows = dataset.with_format(None)
    places = spread_indices(len(rows), samples) if isinstance(samples, int) else sorted(set(samples))
    for index in places:
        row = rows[index]
        image = tuple(row["image"]) if isinstance(row["image"], list) else row["image"]
        images: list[Any] = [image]
        has_mask = row.get("mask") is not None
        labels = processor(images, [row["mask"]], return_tensors="np")["labels"][0] if has_mask else None
        # The frames were checked as training needs it; `open_frames` would hold them to the stricter grid of a map.
        frames, dates = image if isinstance(image, tuple) else (image,), row.get("dates") or row.get("date")
        yield row, prepare_scene(processor, frames, model.config.coords_encoding, dates), labels


def predict_map(model: Any, scene: PreparedScene, window: int | None = None, overlap: float = 0.5) -> np.ndarray:
    """Predict a scene as `prithvi-hf predict` does: classes (H, W) uint8, 255 = no data, or values float32, NaN."""
    logits = predict_scene_logits(model, scene, window=window, overlap=overlap)
    if model.task == "segmentation":
        return assemble_map(model.config, logits, scene).mask
    values = logits[0].float().cpu().numpy()
    values[scene.nodata_mask] = np.nan
    return values


def make_row(scene: PreparedScene, painted: dict[str, np.ndarray]) -> PictureRow:
    """Put painted maps beside the picture of their scene."""
    width_metres = measure_width(scene.crs, scene.transform, *scene.nodata_mask.shape)
    return PictureRow({scene.rgb_title: scene.rgb, **painted}, width_metres)


def paint_errors(labels: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Paint where classes (H, W) differ, red, and where they agree, as [`paint_classes`]; 255 is no class in both."""
    step = thumbnail_step(*labels.shape)
    labels, prediction = labels[::step, ::step], prediction[::step, ::step]
    painted = np.where((labels == prediction)[..., None], _RIGHT, _WRONG).astype(np.uint8)
    painted[(labels == NODATA_CLASS) | (prediction == NODATA_CLASS)] = 0
    return painted


def paint_differences(differences: np.ndarray, scale: "ScalarMappable") -> np.ndarray:
    """Paint differences (H, W), NaN = none, blue below zero and red above, up to the span of a scale of values."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    low, high = scale.get_clim()
    span = (high or 1.0) - (low or 0.0)
    return paint_values(differences, ScalarMappable(Normalize(-span, span), "RdBu_r"))


def plot_sample_predictions(
    model: Any,
    processor: PrithviImageProcessor,
    dataset: Dataset | CachedChips,
    path: Path,
    num_samples: int = 4,
    window: int | None = None,
    overlap: float = 0.5,
    errors: bool = False,
) -> None:
    """Draw chips beside their labels and predictions, made as `prithvi-hf predict` makes a map, or errors too.

    The dataset has rows with `image` and `mask`; the samples are spread evenly over it.
    """
    id2label = dict(sorted(model.config.id2label.items()))
    palette = class_palette(len(id2label), model.config.class_colors, [*id2label.values()])
    pictures, present = [], set()
    for _, scene, targets in pick_samples(model, processor, dataset, num_samples):
        labels = np.where(targets < 0, NODATA_CLASS, targets).astype(np.uint8)
        prediction = predict_map(model, scene, window, overlap)
        painted = {"label": paint_classes(labels, palette), "prediction": paint_classes(prediction, palette)}
        if errors:
            painted["errors in red"] = paint_errors(labels, prediction)
        pictures.append(make_row(scene, painted))
        present |= {*np.unique(labels).tolist(), *np.unique(prediction).tolist()}
    draw_pictures(
        path,
        pictures,
        id2label=id2label,
        palette=palette,
        present=present,
        nodata_label="no data or ignored label",
        panel_inches=4.0,
    )


def plot_sample_values(
    model: Any,
    processor: PrithviImageProcessor,
    dataset: Dataset | CachedChips,
    path: Path,
    num_samples: int = 4,
    window: int | None = None,
    overlap: float = 0.5,
    errors: bool = False,
) -> None:
    """Draw chips beside their true and predicted values, with one colour bar, which the true values span.

    With `errors` also prediction minus target, red above and blue below zero, up to the span of the colour bar.
    """
    samples = []
    for _, scene, targets in pick_samples(model, processor, dataset, num_samples):
        samples.append((scene, targets, predict_map(model, scene, window, overlap)))
    scale = make_color_scale(np.concatenate([targets.ravel() for _, targets, _ in samples]))
    rows = []
    for scene, *values in samples:
        painted = {
            name: paint_values(part, scale) for name, part in zip(("target", "prediction"), values, strict=True)
        }
        if errors:
            painted["too high in red, too low in blue"] = paint_differences(values[1] - values[0], scale)
        rows.append(make_row(scene, painted))
    colorbar = (Quantity.of(model.config).title, scale)
    draw_pictures(path, rows, id2label={}, palette=[], present=(), panel_inches=4.0, colorbar=colorbar)


def plot_sample_labels(
    model: Any,
    processor: PrithviImageProcessor,
    dataset: Dataset | CachedChips,
    path: Path,
    num_samples: int = 4,
    window: int | None = None,
    overlap: float = 0.5,
    errors: bool = False,
) -> None:
    """Draw chips with their label and the classes that are predicted, with probabilities, above them.

    Chips are classified whole: `window`, `overlap` and `errors` are those of maps.
    """
    names, several = model.config.id2label, model.config.problem_type == "multi_label_classification"
    rows = []
    for row, scene, _ in pick_samples(model, processor, dataset, num_samples):
        inputs = {"pixel_values": scene.pixel_values, **scene.coordinates}
        with evaluation_mode(model), torch.inference_mode():
            logits = (
                model(**{name: values.to(model.device) for name, values in inputs.items()}).logits[0].float().cpu()
            )
        scaled = logits / model.config.temperature
        scores = scaled.sigmoid() if several else scaled.softmax(0)
        chosen = [label for label in range(len(names)) if logits[label] > 0] if several else [int(logits.argmax())]
        texts = [f"{names[label]} ({scores[label]:.2f})" for label in chosen] or ["none"]
        title = f"{row['label'] or 'none'}\npredicted {', '.join(texts)}".replace("$", r"\$")
        width_metres = measure_width(scene.crs, scene.transform, *scene.pixel_values.shape[-2:])
        rows.append(PictureRow({title: scene.rgb}, width_metres))
    draw_pictures(path, rows, id2label={}, palette=[], present=(), panel_inches=4.0)


PLOTS = {
    "segmentation": plot_sample_predictions,
    "classification": plot_sample_labels,
    "regression": plot_sample_values,
}
"""What draws the samples of a run, by its task."""
