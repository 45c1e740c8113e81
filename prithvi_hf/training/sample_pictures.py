# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures of chips beside what a model of values per pixel, or of labels of whole chips, makes of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from prithvi_hf.data.chip_cache import CachedChips
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.regression_map_prithvi import Quantity
from prithvi_hf.models.prithvi.segmentation_map_prithvi import predict_scene_logits, prepare_scene
from prithvi_hf.models.prithvi.sliding_window_prithvi import evaluation_mode
from prithvi_hf.outputs.quicklook import (
    PictureRow,
    draw_pictures,
    make_color_scale,
    measure_width,
    paint_values,
)


def pick_samples(dataset: Dataset | CachedChips, num_samples: int) -> Iterator[tuple[dict[str, Any], Any]]:
    """Give rows that are spread evenly over a dataset, each with its image as one raster or a tuple of frames."""
    rows = dataset.with_format(None)
    places = np.linspace(0, len(rows) - 1, min(num_samples, len(rows))).round().astype(int)
    for index in np.unique(places).tolist():
        row = rows[index]
        yield row, tuple(row["image"]) if isinstance(row["image"], list) else row["image"]


def plot_sample_values(
    model: Any,
    processor: PrithviImageProcessor,
    dataset: Dataset | CachedChips,
    path: Path,
    num_samples: int = 4,
    window: int | None = None,
    overlap: float = 0.5,
) -> None:
    """Draw chips beside their true and predicted values, with one colour bar, which the true values span."""
    config, samples = model.config, []
    for row, image in pick_samples(dataset, num_samples):
        images: list[Any] = [image]
        targets = processor(images, [row["mask"]], return_tensors="np")["labels"][0]
        dates = row.get("dates") or row.get("date")
        scene = prepare_scene(
            processor, image if isinstance(image, tuple) else (image,), config.coords_encoding, dates
        )
        predicted = predict_scene_logits(model, scene, window=window, overlap=overlap)[0].float().cpu().numpy()
        predicted[scene.nodata_mask] = np.nan
        samples.append((scene, targets, predicted))
    scale = make_color_scale(np.concatenate([targets.ravel() for _, targets, _ in samples]))
    rows = []
    for scene, *values in samples:
        painted = [paint_values(part, scale) for part in values]
        width_metres = measure_width(scene.crs, scene.transform, *values[0].shape)
        pictures = {scene.rgb_title: scene.rgb, "target": painted[0], "prediction": painted[1]}
        rows.append(PictureRow(pictures, width_metres))
    colorbar = (Quantity.of(config).title, scale)
    draw_pictures(path, rows, id2label={}, palette=[], present=(), panel_inches=4.0, colorbar=colorbar)


def plot_sample_labels(
    model: Any,
    processor: PrithviImageProcessor,
    dataset: Dataset | CachedChips,
    path: Path,
    num_samples: int = 4,
    window: int | None = None,
    overlap: float = 0.5,
) -> None:
    """Draw chips with their label and the classes that are predicted, with probabilities, above them.

    Chips are classified whole: `window` and `overlap` are those of maps.
    """
    names, several = model.config.id2label, model.config.problem_type == "multi_label_classification"
    rows = []
    for row, image in pick_samples(dataset, num_samples):
        dates, encoded = row.get("dates") or row.get("date"), model.config.coords_encoding
        scene = prepare_scene(processor, image if isinstance(image, tuple) else (image,), encoded, dates)
        inputs = {"pixel_values": scene.pixel_values, **scene.coordinates}
        with evaluation_mode(model), torch.inference_mode():
            logits = (
                model(**{name: values.to(model.device) for name, values in inputs.items()}).logits[0].float().cpu()
            )
        scores = logits.sigmoid() if several else logits.softmax(0)
        chosen = [label for label in range(len(names)) if logits[label] > 0] if several else [int(logits.argmax())]
        texts = [f"{names[label]} ({scores[label]:.2f})" for label in chosen] or ["none"]
        title = f"{row['label'] or 'none'}\npredicted {', '.join(texts)}".replace("$", r"\$")
        width_metres = measure_width(scene.crs, scene.transform, *scene.pixel_values.shape[-2:])
        rows.append(PictureRow({title: scene.rgb}, width_metres))
    draw_pictures(path, rows, id2label={}, palette=[], present=(), panel_inches=4.0)
