# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures of chips beside their labels and what a model makes of them: classes, values, or labels of whole chips."""

from collections.abc import Iterator, Mapping, Sequence
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
    make_color_scale,
    make_picture_figure,
    measure_width,
    paint_classes,
    paint_values,
    thumbnail_step,
)


if TYPE_CHECKING:
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

_WRONG, _RIGHT = (205, 38, 38, 255), (222, 222, 218, 255)  # red, green, blue and opacity in a map of errors


def pick_samples(
    model: Any, processor: PrithviImageProcessor, dataset: Dataset | CachedChips, samples: int | Sequence[int]
) -> Iterator[tuple[dict[str, Any], PreparedScene, Any]]:
    """Give rows, each prepared for the model if there is one, with the labels of its mask if any.

    `samples` is how many, spread evenly over the dataset, or the index of each.
    """
    coords_encoding = () if model is None else model.config.coords_encoding
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
        yield row, prepare_scene(processor, frames, coords_encoding, dates), labels


def predict_map(model: Any, scene: PreparedScene, window: int | None = None, overlap: float = 0.5) -> np.ndarray:
    """Predict a scene as `prithvi-hf predict` does: classes (H, W) uint8, 255 = no data, or values float32, NaN."""
    logits = predict_scene_logits(model, scene, window=window, overlap=overlap)
    if model.task == "segmentation":
        return assemble_map(model.config, logits, scene).mask
    values = logits[0].float().cpu().numpy()
    values[scene.nodata_mask] = np.nan
    return values


def make_row(scene: PreparedScene, painted: Mapping[str, np.ndarray | None]) -> PictureRow:
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


def make_prediction_figure(
    model: Any,
    processor: PrithviImageProcessor,
    dataset: Dataset | CachedChips,
    samples: int | Sequence[int] = 4,
    window: int | None = None,
    overlap: float = 0.5,
    errors: bool = False,
    classes: tuple[Sequence[str], Sequence[str] | None] | None = None,
) -> "Figure":
    """Draw chips beside their labels and predictions, made as `prithvi-hf predict` makes a map, or errors too.

    The dataset has rows with `image` and `mask`; the samples are spread evenly over it, or given by their indices.
    Without a model (None) labels are drawn alone, of `classes`: their names, and their colours or None. Without these
    classes are numbered.
    """
    found = []
    for row, scene, targets in pick_samples(model, processor, dataset, samples):
        maps = {} if targets is None else {"label": np.where(targets < 0, NODATA_CLASS, targets)}
        if model is not None:
            maps["prediction"] = predict_map(model, scene, window, overlap)
        found.append((row["id"], scene, maps))
    present = {int(value) for _, _, maps in found for part in maps.values() for value in np.unique(part)}
    if model is not None:
        classes = [*dict(sorted(model.config.id2label.items())).values()], model.config.class_colors
    elif classes is None:
        classes = [f"class {label}" for label in range(max(present - {NODATA_CLASS}, default=0) + 1)], None
    names, colors = classes
    palette = class_palette(len(names), colors, names)
    rows = []
    for name, scene, maps in found:
        for part in maps.values():
            if (part[part != NODATA_CLASS] >= len(names)).any():
                raise ValueError(
                    f"{name}: expected labels of {len(names)} classes, found {part[part != NODATA_CLASS].max()}. Name "
                    "all classes, or give this value to ignore_values of the image processor."
                )
        painted = {title: paint_classes(part.astype(np.uint8), palette) for title, part in maps.items()}
        if errors and len(maps) == 2:
            painted["errors in red"] = paint_errors(maps["label"], maps["prediction"])
        rows.append((scene, painted))
    return make_picture_figure(
        _make_rows(rows),
        id2label=dict(enumerate(names)),
        palette=palette,
        present=present,
        nodata_label="no data or ignored label",
        panel_inches=4.0,
    )


def make_value_sample_figure(
    model: Any,
    processor: PrithviImageProcessor,
    dataset: Dataset | CachedChips,
    samples: int | Sequence[int] = 4,
    window: int | None = None,
    overlap: float = 0.5,
    errors: bool = False,
) -> "Figure":
    """Draw chips beside their true and predicted values, with one colour bar, which the true values span.

    With `errors` also prediction minus target, red above and blue below zero, up to the span of the colour bar.
    Without a model (None) true values are drawn alone.
    """
    found = []
    for _, scene, targets in pick_samples(model, processor, dataset, samples):
        maps = {} if targets is None else {"target": targets}
        if model is not None:
            maps["prediction"] = predict_map(model, scene, window, overlap)
        found.append((scene, maps))
    shown = [maps.get("target", maps.get("prediction")) for _, maps in found]
    scale = make_color_scale(np.concatenate([part.ravel() for part in shown if part is not None] or [np.zeros(0)]))
    rows = []
    for scene, maps in found:
        painted = {name: paint_values(part, scale) for name, part in maps.items()}
        if errors and len(maps) == 2:
            painted["too high in red, too low in blue"] = paint_differences(maps["prediction"] - maps["target"], scale)
        rows.append((scene, painted))
    title = "value" if model is None else Quantity.of(model.config).title
    return make_picture_figure(
        _make_rows(rows), id2label={}, palette=[], present=(), panel_inches=4.0, colorbar=(title, scale)
    )


def make_label_figure(
    model: Any,
    processor: PrithviImageProcessor,
    dataset: Dataset | CachedChips,
    samples: int | Sequence[int] = 4,
    window: int | None = None,
    overlap: float = 0.5,
    errors: bool = False,
) -> "Figure":
    """Draw chips with their label and the classes that are predicted, with probabilities, above them.

    Chips are classified whole: `window`, `overlap` and `errors` are those of maps. Without a model (None) labels are
    drawn alone.
    """
    rows = []
    for row, scene, _ in pick_samples(model, processor, dataset, samples):
        title = f"{row['label'] or 'none'}"
        if model is not None:
            title += f"\npredicted {_describe_prediction(model, scene)}"
        width_metres = measure_width(scene.crs, scene.transform, *scene.pixel_values.shape[-2:])
        rows.append(PictureRow({title.replace("$", r"\$"): scene.rgb}, width_metres))
    return make_picture_figure(rows, id2label={}, palette=[], present=(), panel_inches=4.0)


def _describe_prediction(model: Any, scene: PreparedScene) -> str:
    """Say which classes a model gives a chip as a whole, with their probabilities."""
    names, several = model.config.id2label, model.config.problem_type == "multi_label_classification"
    inputs = {"pixel_values": scene.pixel_values, **scene.coordinates}
    with evaluation_mode(model), torch.inference_mode():
        logits = model(**{name: values.to(model.device) for name, values in inputs.items()}).logits[0].float().cpu()
    scaled = logits / model.config.temperature
    scores = scaled.sigmoid() if several else scaled.softmax(0)
    chosen = [label for label in range(len(names)) if logits[label] > 0] if several else [int(logits.argmax())]
    return ", ".join(f"{names[label]} ({scores[label]:.2f})" for label in chosen) or "none"


def _make_rows(rows: Sequence[tuple[PreparedScene, dict[str, np.ndarray]]]) -> list[PictureRow]:
    """Put painted maps beside their scenes, with an empty place where a chip lacks one that another has."""
    titles = dict.fromkeys(title for _, painted in rows for title in painted)
    return [make_row(scene, {title: painted.get(title) for title in titles}) for scene, painted in rows]


PLOTS = {
    "segmentation": make_prediction_figure,
    "classification": make_label_figure,
    "regression": make_value_sample_figure,
}
"""What draws the samples of a run, by its task."""
