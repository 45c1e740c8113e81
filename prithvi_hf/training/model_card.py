# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What a fine-tuning run leaves for people: learning curves, sample predictions and the model card."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from huggingface_hub import EvalResult, ModelCardData
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from prithvi_hf.data.audit import SplitAudit
from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.modeling_prithvi import PrithviForSemanticSegmentation
from prithvi_hf.models.prithvi.segmentation_map_prithvi import (
    NODATA_CLASS,
    assemble_map,
    predict_scene_logits,
    prepare_scene,
)
from prithvi_hf.models.prithvi.sliding_window_prithvi import window_and_stride
from prithvi_hf.outputs.palette import class_palette
from prithvi_hf.outputs.quicklook import paint_classes
from prithvi_hf.training.recipe import TrainingRecipe as Recipe


_CARD_METRICS = {
    "mean_iou": "Mean IoU",
    "mean_accuracy": "Mean accuracy",
    "overall_accuracy": "Overall accuracy",
    "mean_f1": "Mean F1",
}
_VERSIONS = ("prithvi_hf", "torch", "transformers", "accelerate", "datasets", "rasterio", "numpy")


def _save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG without pyplot's global state."""
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=110)


def plot_learning_curves(log_history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw loss, mean IoU and learning rate over the steps.

    Args:
        log_history (`Sequence[Mapping[str, Any]]`): `trainer.state.log_history`.
        path (`Path`): The PNG.
    """
    figure = Figure(figsize=(13, 4), layout="constrained")
    panels = {
        "loss": ("loss", "eval_loss"),
        "mean IoU": ("eval_mean_iou",),
        "learning rate": ("learning_rate",),
    }
    for axes, (title, names) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for name in names:
            points = [(entry["step"], entry[name]) for entry in log_history if entry.get(name) is not None]
            if points:
                label = "validation" if name.startswith("eval_") else "training"
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    _save(figure, path)


def plot_sample_predictions(
    model: PrithviForSemanticSegmentation,
    processor: PrithviImageProcessor,
    dataset: Dataset,
    path: Path,
    num_samples: int = 4,
    window: int | None = None,
    overlap: float = 0.5,
) -> None:
    """Draw chips in natural colours beside their labels and predictions, made as `prithvi-hf predict` makes a map.

    Args:
        model (`PrithviForSemanticSegmentation`): The model.
        processor (`PrithviImageProcessor`): Its image processor.
        dataset (`Dataset`): Rows with `image` and `mask`; the samples are spread evenly over it.
        path (`Path`): The PNG.
        num_samples (`int`, defaults to 4): How many chips; fewer where there are fewer.
        window (`int`, *optional*): As in [`~prithvi_hf.models.prithvi.sliding_window_prithvi.window_and_stride`].
        overlap (`float`, defaults to 0.5): As there.
    """
    config, rows = model.config, dataset.with_format(None)
    palette = class_palette(config.num_labels, config.class_colors)
    indices = np.unique(np.linspace(0, len(rows) - 1, min(num_samples, len(rows))).round().astype(int))
    figure = Figure(figsize=(12, 4 * len(indices) + 0.6), layout="constrained")
    panels = figure.subplots(len(indices), 3, squeeze=False)
    for row_of_panels, index in zip(panels, indices.tolist(), strict=True):
        pictures = _sample_pictures(model, processor, rows[index], palette, window, overlap)
        for axes, (title, picture) in zip(row_of_panels, pictures.items(), strict=True):
            axes.set_title(title)
            axes.set_axis_off()
            if picture is not None:
                axes.imshow(picture, interpolation="nearest")
    patches = [Patch(color=np.array(color) / 255, label=config.id2label[index]) for index, color in enumerate(palette)]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(6, len(patches)))
    _save(figure, path)


def _sample_pictures(
    model: PrithviForSemanticSegmentation,
    processor: PrithviImageProcessor,
    row: Mapping[str, Any],
    palette: Sequence[tuple[int, int, int]],
    window: int | None,
    overlap: float,
) -> dict[str, np.ndarray | None]:
    """The pictures of one chip by title; ignored labels and pixels without data are white."""
    image = tuple(row["image"]) if isinstance(row["image"], list) else row["image"]
    labels = processor([image], [row["mask"]], return_tensors="np")["labels"][0]
    # The frames were checked as training needs it; `open_frames` would hold them to the stricter grid of a map.
    scene = prepare_scene(processor, image if isinstance(image, tuple) else (image,))
    logits = predict_scene_logits(model, scene, window=window, overlap=overlap)
    return {
        "scene": scene.rgb,
        "label": paint_classes(np.where(labels < 0, NODATA_CLASS, labels), palette),
        "prediction": paint_classes(assemble_map(model.config, logits, scene).mask, palette),
    }


def _percent(value: float | None) -> str:
    """A share as percent; an absent class has none."""
    return "-" if value is None else f"{100 * value:.2f}"


def _metric_tables(
    results: Mapping[str, Any], splits: Mapping[str, str], labels: Sequence[str], published: Mapping[str, Any]
) -> str:
    """One table of the means of each split, and one of the classes' IoU; published figures in rows of their own."""
    if not splits:
        return "Not evaluated."
    header = " | ".join(_CARD_METRICS.values())
    lines = [f"| split | {header} |", "|---" * (len(_CARD_METRICS) + 1) + "|"]
    for prefix, split in splits.items():
        values = [_percent(results.get(f"{prefix}_{name}")) for name in _CARD_METRICS]
        lines.append(f"| {split} | {' | '.join(values)} |")
        if split in published:
            values = [_figure(published[split].get(name)) for name in _CARD_METRICS]
            lines.append(f"| {split}, published | {' | '.join(values)} |")
    lines += [
        "",
        "IoU of each class (%):",
        "",
        "| split | " + " | ".join(labels) + " |",
        "|---" * (len(labels) + 1) + "|",
    ]
    for prefix, split in splits.items():
        values = [_percent(value) for value in results.get(f"{prefix}_per_category_iou", [])]
        lines.append(f"| {split} | {' | '.join(values)} |")
        if published.get(split, {}).get("iou"):
            values = [_figure(published[split]["iou"].get(label)) for label in labels]
            lines.append(f"| {split}, published | {' | '.join(values)} |")
    return "\n".join(lines)


def _figure(percent: float | None) -> str:
    """A published figure; not all are."""
    return "-" if percent is None else f"{percent:.2f}"


def _scene_example(num_frames: int) -> str:
    """How the pipeline is called: one file, or one a date as a tuple."""
    if num_frames == 1:
        return '"scene.tif"'
    return "(" + ", ".join(f'"date_{number}.tif"' for number in range(1, num_frames + 1)) + ")"


def _data_table(audits: Mapping[str, SplitAudit]) -> str:
    """What each split held, with the digest by which others can tell whether they have the same files."""
    if not audits:
        return "The chips were not counted (check_data: false)."
    lines = ["| split | chips | labelled pixels | digest of the files (SHA-256) |", "|---|---|---|---|"]
    rows = [
        f"| {name} | {audit.chips} | {audit.labelled_pixels:,} | `{audit.digest}` |" for name, audit in audits.items()
    ]
    seen: dict[str, str] = {}
    notes = []
    for name, audit in audits.items():
        if audit.digest in seen:
            notes.append(f"\n`{name}` holds the same chips as `{seen[audit.digest]}`: it is no independent test.")
        seen.setdefault(audit.digest, name)
    return "\n".join(lines + rows + notes)


def _statistics_table(processor: PrithviImageProcessor) -> str:
    """Bands with their statistics."""
    lines = ["| band | mean | standard deviation |", "|---|---|---|"]
    rows = zip(processor.bands, processor.image_mean, processor.image_std, strict=True)
    return "\n".join(lines + [f"| {band} | {mean:g} | {std:g} |" for band, mean, std in rows])


def _card_data(recipe: Recipe, results: Mapping[str, Any], splits: Mapping[str, str], name: str) -> ModelCardData:
    """The metadata block that the Hub reads."""
    eval_results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=recipe.data.dataset,
            dataset_name=recipe.data.dataset,
            dataset_split=split,
            metric_type="mean_iou",
            metric_name="Mean IoU",
            metric_value=round(results[f"{prefix}_mean_iou"], 4),
        )
        for prefix, split in splits.items()
        if results.get(f"{prefix}_mean_iou") is not None
    ]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="image-segmentation",
        license="apache-2.0",
        tags=["prithvi", "prithvi_hf", "remote-sensing", "semantic-segmentation", "geospatial"],
        model_name=name,
        eval_results=eval_results or None,
    )


_CARD = """---
{metadata}
---

# {name}

Semantic segmentation of {frames} date(s) of {bands} bands into {num_labels} classes with Prithvi, fine-tuned on
`{dataset}` from {start} by `prithvi_hf`.

```python
from transformers import pipeline

import prithvi_hf  # registers the model and the task

result = pipeline("geospatial-segmentation", model="{name}")({scene})
result.to_geotiff("map.tif")
```

## Classes

{classes}

## Results (%)

Whole chips by sliding window of {window} pixels, overlap {overlap:g}; pixels of ignored labels do not count.

{metrics}

## Input

File values are multiplied by {factor:g}{offset}, then normalised; the image processor in this repository does it.
No data: file tag, NaN, file mask{nodata}; replaced by {replacement:g} before scaling.

{statistics}

## Data

{data}

## Training

`recipe.yaml` beside this card holds every option that was given; `examples/finetune.py --config recipe.yaml` repeats
the run.

{training}
"""


def write_model_card(
    folder: Path,
    recipe: Recipe,
    processor: PrithviImageProcessor,
    model: PrithviForSemanticSegmentation,
    results: Mapping[str, Any],
    splits: Mapping[str, str],
    audits: Mapping[str, SplitAudit] | None = None,
) -> None:
    """Write `README.md`: what the model takes and gives, its figures, and how it was trained.

    Args:
        folder (`Path`): Output folder of the run.
        recipe ([`Recipe`]): The run's options.
        processor ([`PrithviImageProcessor`]): The image processor saved beside the model.
        model ([`PrithviForSemanticSegmentation`]): The model.
        results (`Mapping[str, Any]`): What `all_results.json` holds.
        splits (`Mapping[str, str]`): Metric prefix to split name, as evaluated.
        audits (`Mapping[str, SplitAudit]`, *optional*): What each split held.
    """
    config = model.config
    labels = [config.id2label[index] for index in range(config.num_labels)]
    (window, _), _ = window_and_stride(config, recipe.training.eval_window, recipe.training.eval_overlap)
    name = recipe.training.hub_model_id or folder.resolve().name
    text = _CARD.format(
        metadata=_card_data(recipe, results, splits, name).to_yaml().strip(),
        name=name,
        scene=_scene_example(config.num_frames),
        frames=config.num_frames,
        bands=config.num_channels,
        num_labels=config.num_labels,
        dataset=recipe.data.dataset,
        start=f"`{recipe.model.model}`" if recipe.model.model else "random weights",
        classes="\n".join(f"{index}. {label}" for index, label in enumerate(labels)),
        window=window,
        overlap=recipe.training.eval_overlap,
        metrics=_metric_tables(results, splits, labels, recipe.data.published or {}),
        factor=processor.rescale_factor,
        offset=f" plus {processor.rescale_offset:g}" if processor.rescale_offset else "",
        nodata="" if processor.nodata_value is None else f", {processor.nodata_value}",
        replacement=processor.nodata_replacement,
        statistics=_statistics_table(processor),
        data=_data_table(audits or {}),
        training=_training_lines(recipe, config, results),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _training_lines(recipe: Recipe, config: PrithviConfig, results: Mapping[str, Any]) -> str:
    """The options that matter for repeating the run, and the versions."""
    training = recipe.training
    values = {
        "loss": config.loss,
        "encoder": "frozen" if recipe.model.freeze_backbone else "trained",
        "optimizer": str(getattr(training.optim, "value", training.optim)),
        "learning rate": f"{training.learning_rate:g}, {getattr(training.lr_scheduler_type, 'value', training.lr_scheduler_type)} schedule",
        "weight decay": f"{training.weight_decay:g}"
        + (" on every parameter" if training.decay_all_parameters else ""),
        "batch": f"{training.train_batch_size} x {training.gradient_accumulation_steps} x {training.world_size}"
        " (per device x accumulation x devices)",
        "epochs": f"{results.get('epoch', training.num_train_epochs):g}",
        "augmentation": f"random crop of {recipe.data.crop_size or 'the image size'}, {recipe.data.augmentation}",
        "seed": training.seed,
        "data seed": training.data_seed if training.data_seed is not None else training.seed,
        "python": platform.python_version(),
        **{package: version(package) for package in _VERSIONS},
    }
    return "\n".join(f"- {name}: {value}" for name, value in values.items())


__all__ = ["plot_learning_curves", "plot_sample_predictions", "write_model_card"]
