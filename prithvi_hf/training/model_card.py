# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What a fine-tuning run leaves for people: learning curves and the model card."""

import html
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCardData

from prithvi_hf.data.audit import SplitAudit
from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.sliding_window_prithvi import window_and_stride
from prithvi_hf.training.evaluation import format_figure, get_class_names
from prithvi_hf.training.hub_results import find_data_license, find_hub_dataset
from prithvi_hf.training.recipe import TrainingRecipe
from prithvi_hf.training.recipe_options import CLASS_FIGURES, CLASS_TITLES, DataArguments
from prithvi_hf.training.training_args import TASK_METRICS, PrithviTrainingArguments


if TYPE_CHECKING:
    from matplotlib.figure import Figure


def escape_text(text: str) -> str:
    """Make Markdown that shows a name as it is, in one line: a name is neither a heading, a table cell nor HTML."""
    text = html.escape(" ".join(re.sub(r"[^\S ]|[\0-\x1f\x7f\ud800-\udfff]", " ", text).split()), quote=False)
    text = re.sub(r"([\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)
    return re.sub(r"^(\d*)([#+=.)-])", r"\1\\\2", text)  # what begins a heading, a list or a line


def escape_code(text: object) -> str:
    """Make text that can stand between backticks in one line."""
    return " ".join(str(text).replace("`", "'").split())


def make_curve_figure(
    log_history: Sequence[Mapping[str, Any]], metric: tuple[str, str] = ("mean_iou", "mean IoU")
) -> "Figure":
    """Draw loss, a metric (name, title) and learning rate of `trainer.state.log_history` over the steps."""
    from prithvi_hf.outputs.figures import make_figure

    name, title = metric
    panels = {"loss": ("loss", "eval_loss"), title: (f"eval_{name}",), "learning rate": ("learning_rate",)}
    measured = {name for entry in log_history for name in entry}
    if measured.isdisjoint(panels[title]) and "eval_loss" in measured:  # of a task without such a metric
        del panels[title]
    figure = make_figure(1 + 4 * len(panels), 4)
    for axes, (title, names) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for name in names:
            points = [(entry["step"], entry[name]) for entry in log_history if entry.get(name) is not None]
            if points:
                label = "validation" if name.startswith("eval_") else "training"
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    return figure


_COORDINATES = {
    "time": "dates (`dates=[...]`, where the names of the files do not tell them)",
    "location": "places (`location=(latitude, longitude)`, where a file has no CRS)",
}
_CARD = """---
{metadata}
---

# {name}

{purpose} with {architecture}, fine-tuned on
`{dataset}` from {start} by `prithvi_hf`.

```python
from transformers import pipeline

import prithvi_hf  # registers the model and the task

result = pipeline("geospatial-{task}", model={model})({scene})
{use}
```

## {labels_title}

{labels}

## {results_title}

{procedure}

{metrics}

## Input

File values are multiplied by {factor:g}{offset}, then normalised; the image processor in this repository does this.
No data: file tag, NaN, file mask{nodata}; replaced by {replacement:g} before scaling.{coordinates}

| band | mean | standard deviation |
|---|---|---|
{statistics}

## Data

{data}

Licence of the data: {data_license}

## Training

`recipe.yaml` beside this card holds every option that was given;
`prithvi-hf finetune --config recipe.yaml --output_dir FOLDER` repeats the run.

{training}
"""


@dataclass(frozen=True)
class _TaskTexts:
    """What a card says of a task."""

    hub_task: str
    tag: str
    purpose: str
    use: str
    labels_title: str
    results_title: str
    procedure: str
    labelled: str


_WINDOWS = (
    "Whole chips by sliding window of {window} pixels, overlap {overlap:g}; pixels of ignored labels do not count."
)
_TEXTS = {
    "segmentation": _TaskTexts(
        "image-segmentation",
        "semantic-segmentation",
        "Semantic segmentation of {frames} date(s) of {bands} bands into {num_labels} classes",
        'result.to_geotiff("map.tif")',
        "Classes",
        "Results (%)",
        _WINDOWS,
        "labelled pixels",
    ),
    "classification": _TaskTexts(
        "image-classification",
        "image-classification",
        "Classification of images of {frames} date(s) of {bands} bands into {num_labels} classes",
        "print(result)",
        "Classes",
        "Results (%)",
        "Whole chips; {several}.",
        "labels",
    ),
    "regression": _TaskTexts(
        "image-to-image",
        "regression",
        "A map of {target} from {frames} date(s) of {bands} bands",
        'result.to_geotiff("map.tif")',
        "Values",
        "Results",
        _WINDOWS.replace("of ignored labels", "without a value"),
        "pixels with a value",
    ),
}


def write_model_card(
    folder: Path,
    recipe: TrainingRecipe,
    processor: PrithviImageProcessor,
    model: Any,
    results: Mapping[str, Any],
    splits: Mapping[str, str],
    audits: Mapping[str, SplitAudit] | None = None,
) -> None:
    """Write `README.md`: what the model takes and gives, its figures, and how it was trained.

    `results` are those of `all_results.json`, `splits` the names of the evaluated splits by metric prefix.
    """
    config, data, training = model.config, recipe.data, recipe.training
    texts, labels = _TEXTS[data.task], get_class_names(config) if data.task in CLASS_FIGURES else []
    hub_dataset, start = find_hub_dataset(data), recipe.model.model
    name, (metric, title) = training.hub_model_id or folder.resolve().name, next(iter(TASK_METRICS[data.task].items()))
    encoder = "frozen" if recipe.model.freeze_backbone else "trained"
    if recipe.model.adapter is not None:
        encoder = f"frozen, with an adapter ({recipe.model.adapter}) in its layers"
    scores = {split: results.get(f"{prefix}_{metric}") for prefix, split in splits.items()}
    about = (texts.hub_task, data.dataset, data.dataset, metric)
    eval_results = [
        EvalResult(*about, round(score, 4), dataset_split=split, metric_name=title)
        for split, score in scores.items()
        if score is not None
    ]
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag=texts.hub_task,
        license="apache-2.0",
        tags=["prithvi", "prithvi_hf", "remote-sensing", texts.tag, "geospatial"],
        model_name=name,
        eval_results=eval_results or None,
        datasets=hub_dataset and [hub_dataset],
        base_model=start if start is not None and "/" in start and not Path(start).exists() else None,
    )
    dates = ", ".join(f'"date_{number}.tif"' for number in range(1, config.num_frames + 1))
    given = [_COORDINATES[name] for name in config.coords_encoding]
    loss = config.regression_loss if data.task == "regression" else config.loss
    loss = "binary cross entropy" if recipe.model.is_multi_label else loss
    text = _CARD.format(
        metadata=metadata.to_yaml().strip(),
        name=escape_text(name),
        model=json.dumps(escape_code(name)),
        scene='"scene.tif"' if config.num_frames == 1 else f"({dates})",  # the files of the dates are one tuple
        task=data.task,
        **_fill_texts(recipe, config, labels),
        dataset=escape_code(data.dataset),
        architecture="a plain U-Net (architecture unet)" if config.architecture == "unet" else "Prithvi",
        start=f"`{escape_code(start)}`" if start else "random weights",
        metrics=_tabulate_metrics(results, splits, labels, data, escape_text(config.target_unit or "")),
        factor=processor.rescale_factor,
        offset=f", {processor.rescale_offset:g} is added" if processor.rescale_offset else "",
        nodata="" if processor.nodata_value is None else f", {processor.nodata_value}",
        replacement=processor.nodata_replacement,
        coordinates=f"\nThe model also takes {' and '.join(given)}." if given else "",
        statistics=tabulate_bands(processor),
        data=_tabulate_data(audits or {}, texts.labelled),
        data_license=escape_text(find_data_license(data) or "not known (`data_license` in the recipe names it)."),
        training=list_options(
            training,
            {
                "architecture": config.architecture,
                "loss": loss,
                "encoder": "none" if config.architecture == "unet" else encoder,
                "augmentation": f"random crop of {data.crop_size or 'the image size'}, {data.augmentation}",
            },
            results.get("epoch"),
        ),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _fill_texts(recipe: TrainingRecipe, config: PrithviConfig, labels: Sequence[str]) -> dict[str, str]:
    """Fill what a card says of its task with the figures of the model, and list its classes or describe its values."""
    training, unit = recipe.training, escape_text(config.target_unit or "")
    (window, _), _ = window_and_stride(config, training.eval_window, training.eval_overlap)
    several = "a class is predicted where its probability is above 0.5" if recipe.model.is_multi_label else ""
    facts = {
        **{"frames": config.num_frames, "bands": config.num_channels, "num_labels": len(labels)},
        **{"window": window, "overlap": training.eval_overlap},
        "several": several or "the class is the most probable one",
        "target": escape_text(config.target_name or "a value per pixel"),
    }
    values = (
        f"{escape_text(config.target_name or 'Values')}, unit: {unit or 'not given'}. The network predicts them "
        f"standardised, by a mean of {config.target_mean:.6g} and a standard deviation of {config.target_std:.6g}."
    )
    listed = "\n".join(f"{index}. {escape_text(label)}" for index, label in enumerate(labels)) or values
    names = ("purpose", "use", "labels_title", "results_title", "procedure")
    return {"labels": listed, **{name: getattr(_TEXTS[recipe.data.task], name).format(**facts) for name in names}}


def tabulate_bands(processor: PrithviImageProcessor) -> str:
    """Make the rows of a table of the bands with their statistics."""
    statistics = zip(processor.bands, processor.image_mean, processor.image_std, strict=True)
    return "\n".join(f"| {escape_text(band)} | {mean:g} | {std:g} |" for band, mean, std in statistics)


def _tabulate_metrics(
    results: Mapping[str, Any],
    splits: Mapping[str, str],
    labels: Sequence[str],
    data: DataArguments,
    unit: str,
) -> str:
    """Make a table of the means and one of a figure of each class; published figures have rows of their own."""
    if not splits:
        return "Not evaluated."
    task, published = data.task, data.published if isinstance(data.published, dict) else {}
    known = {name for prefix in splits for name in TASK_METRICS[task] if f"{prefix}_{name}" in results}
    titles = {name: title for name, title in TASK_METRICS[task].items() if name in known}
    with_unit = [
        f"{title} ({escape_text(unit)})" if unit and name != "r2" else title for name, title in titles.items()
    ]
    means = [f"| split | {' | '.join(with_unit)} |", "|---" * (len(titles) + 1) + "|"]
    figure, scale = CLASS_FIGURES.get(task, ""), 100 if task in CLASS_FIGURES else 1
    classes = [f"| split | {' | '.join(map(escape_text, labels))} |", "|---" * (len(labels) + 1) + "|"]
    for prefix, split in splits.items():
        figures = [results.get(f"{prefix}_{name}") for name in titles]
        for table, values in ((means, figures), (classes, results.get(f"{prefix}_per_category_{figure}", []))):
            cells = [format_figure(None if value is None else scale * value, task) for value in values]
            table.append(f"| {escape_text(split)} | {' | '.join(cells)} |")
        per_category = f"{prefix}_per_category_{figure}_interval"
        ends = ([results.get(f"{prefix}_{name}_interval") for name in titles], results.get(per_category) or [])
        for table, intervals in zip((means, classes), ends, strict=True):
            if any(interval is not None for interval in intervals):
                cells = ["-" if one is None else _write_interval(one, scale, task) for one in intervals]
                table.append(f"| {escape_text(split)}, 95 % interval | {' | '.join(cells)} |")
        if split in published:
            cells = [format_figure(published[split].get(name), task) for name in titles]
            means.append(f"| {escape_text(split)}, published | {' | '.join(cells)} |")
        if figure and published.get(split, {}).get(figure):
            cells = [format_figure(published[split][figure].get(label), task) for label in labels]
            classes.append(f"| {escape_text(split)}, published | {' | '.join(cells)} |")
    return "\n".join([*means, *(["", f"{CLASS_TITLES[figure]} of each class (%):", "", *classes] if figure else [])])


def _write_interval(interval: Sequence[float], scale: float, task: str) -> str:
    """Write the ends of an interval."""
    return " to ".join(format_figure(scale * end, task) for end in interval)


def _tabulate_data(audits: Mapping[str, SplitAudit], labelled: str) -> str:
    """Make a table of the splits, with the digest by which others can tell whether they have the same files."""
    if not audits:
        return "The chips were not counted (check_data: false)."
    lines = [f"| split | chips | {labelled} | digest of the files (SHA-256) |", "|---|---|---|---|"]
    notes, seen = [], dict[str, str]()
    for name, audit in audits.items():
        lines.append(f"| {escape_text(name)} | {audit.chips} | {audit.labelled_pixels:,} | `{audit.digest}` |")
        if audit.digest in seen:
            same = escape_code(seen[audit.digest])
            notes.append(f"\n`{escape_code(name)}` holds the same chips as `{same}`: it is not an independent test.")
        seen.setdefault(audit.digest, name)
    return "\n".join(lines + notes)


def list_options(training: PrithviTrainingArguments, own: Mapping[str, Any], epochs: float | None) -> str:
    """List what matters for repeating a run: its `own` options, those of the training, and the versions."""
    optimizer, schedule = (str(getattr(kind, "value", kind)) for kind in (training.optim, training.lr_scheduler_type))
    everywhere = " on every parameter" if training.decay_all_parameters else ""
    sizes = (training.train_batch_size, training.gradient_accumulation_steps, training.world_size)
    values = {
        **own,
        "optimizer": optimizer,
        "learning rate": f"{training.learning_rate:g}, {schedule} schedule",
        "weight decay": f"{training.weight_decay:g}{everywhere}",
        "batch": f"{' x '.join(map(str, sizes))} (per device x accumulation x devices)",
        "epochs": f"{training.num_train_epochs if epochs is None else epochs:g}",
        "seed": training.seed,
        "data seed": training.data_seed if training.data_seed is not None else training.seed,
        **list_versions(),
    }
    return "\n".join(f"- {name}: {value}" for name, value in values.items())


def list_versions() -> dict[str, str]:
    """List the versions of Python and of the packages that a run depends on, as far as they are installed."""
    versions = {"python": platform.python_version()}
    for package in ("prithvi_hf", "torch", "transformers", "accelerate", "peft", "datasets", "rasterio", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # of an extra
            continue
    return versions
