# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Evaluating a fine-tuned model on the splits of a recipe, with the published figures beside the measured ones."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PrinterCallback
from transformers.utils import cached_file, logging

from prithvi_hf.data.chip_cache import CachedChips
from prithvi_hf.data.groups import find_groups, is_portable, read_column
from prithvi_hf.data.transforms import collate_chips
from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.models.prithvi.embeddings_prithvi import COORDINATE_ARGUMENTS
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.inference_dtype_prithvi import (
    DtypeChoice,
    Sample,
    convert_model,
    resolve_dtype,
    spread_places,
)
from prithvi_hf.models.prithvi.sliding_window_prithvi import window_and_stride
from prithvi_hf.outputs.cog import complete_or_absent
from prithvi_hf.training.chip_figures import digest_weights, group_figures, make_chip_table
from prithvi_hf.training.intervals import bootstrap_interval, describe_interval
from prithvi_hf.training.recipe import TrainingRecipe, find_packaged_recipes, parse_arguments, read_options
from prithvi_hf.training.recipe_chips import check_splits, load_splits, make_transform
from prithvi_hf.training.recipe_options import CLASS_FIGURES, CLASS_TITLES, DataArguments
from prithvi_hf.training.trainer import PrithviTrainer
from prithvi_hf.training.training_args import TASK_METRICS, PrithviTrainingArguments


# What an evaluation takes from the recipe that comes with a model: which data, and how they are read and cut.
_TAKEN_FROM_MODEL = {option.name for option in fields(DataArguments)}
_TAKEN_FROM_MODEL -= {"decoded_cache", "decoded_cache_dir", "custom_augmentation"}
_TAKEN_FROM_MODEL |= {"eval_window", "eval_overlap", "eval_window_batch_size", "per_device_eval_batch_size"}
_TAKEN_FROM_MODEL |= {"dataloader_num_workers", "bf16", "fp16", "bf16_full_eval", "fp16_full_eval", "seed"}
_NOT_TAKEN = ("cache_dir", "token", "storage_options", "writer_batch_size", "base_url", "repository", "revision")
_OUTSIDE = re.compile(r"[/\\~]|[A-Za-z][\w+.-]*:|(.*[/\\])?\.\.([/\\]|$)")  # absolute, an address, or above the folder

logger = logging.get_logger(__name__)


@dataclass
class SplitResult:
    """What one split gave."""

    split: str
    chips: int
    digest: str | None  # of the files, None where they were not checked
    metrics: dict[str, Any]  # fractions from 0 to 1, or in the unit of the values; None where it is not defined
    published: dict[str, Any] = field(default_factory=dict)  # the recipe's published figures, fractions in percent
    task: str = "segmentation"
    unit: str | None = None  # of a regression's values
    # What the model computed in: "chosen", "reason" and "agreement" with float32; None as the recipe says
    dtype: dict[str, Any] | None = None
    intervals: dict[str, Any] = field(default_factory=dict)  # by metric, see `bootstrap_interval`
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)  # metrics of each group of chips, and their number
    chip_table: pa.Table | None = None  # the figures of each chip, see `chip_figures`

    def table(self, labels: Sequence[str]) -> str:
        """Format the figures for people, fractions in percent: every mean, one of each class; `-` for none."""
        names = [name for name in TASK_METRICS[self.task] if name in self.metrics]
        measured = [self.metrics[name] for name in names]
        published = [self.published.get(name) for name in names]
        if self.task in CLASS_FIGURES:
            own = CLASS_FIGURES[self.task]
            names += [f"{CLASS_TITLES[own]} of {label}" for label in labels]
            measured += self.metrics[f"per_category_{own}"]
            published += [self.published.get(own, {}).get(label) for label in labels]
        # Of single chips and of what is not defined there is none.
        intervals = [self.intervals.get(name) for name in names[: len(names) - len(labels)]]
        intervals += self.intervals.get(f"per_category_{CLASS_FIGURES.get(self.task)}") or [None] * len(labels)
        heading = f"{self.split}: {self.chips} chip{'' if self.chips == 1 else 's'}"
        heading += f"; in {self.unit}, R² without unit" if self.unit else ""
        if self.published.get("chips", self.chips) != self.chips:
            heading += f"; the published figures are of {self.published['chips']:g}"
        width = max(map(len, names))
        lines = [heading, f"  {'':<{width}}  published  measured  difference"]
        lines[-1] += "  95 % interval" * bool(self.intervals)
        scale = 100 if self.task in CLASS_FIGURES else 1
        for name, figure, value, interval in zip(names, published, measured, intervals, strict=True):
            shown = None if value is None else scale * value
            difference = None if figure is None or shown is None else shown - figure
            cells = [format_figure(number, self.task) for number in (figure, shown)]
            change = "-" if difference is None else f"{'+' * (difference >= 0)}{format_figure(difference, self.task)}"
            lines.append(f"  {name:<{width}}  {cells[0]:>9}  {cells[1]:>8}  {change:>10}")
            if interval is not None:
                lines[-1] += "  " + " to ".join(format_figure(scale * end, self.task) for end in interval)
        if self.chip_table is not None:
            lines.append(f"  {describe_interval(self.chip_table)}")
        return "\n".join([*lines, *self.list_groups(labels)])

    def list_groups(self, labels: Sequence[str]) -> list[str]:
        """Make the lines of a table of the groups: chips, the first of the means and one figure of each class."""
        if not self.groups:
            return []
        first, own = next(iter(TASK_METRICS[self.task])), CLASS_FIGURES.get(self.task, "")
        scale, titles = 100 if own else 1, [first, *(f"{CLASS_TITLES[own]} of {label}" for label in labels if own)]
        width = max(len("group"), *map(len, self.groups))
        lines = [f"  {'group':<{width}}  chips  {'  '.join(titles)}"]
        for group, figures in self.groups.items():
            values = [figures[first], *(figures[f"per_category_{own}"] if own else ())]
            shown = (format_figure(None if value is None else scale * value, self.task) for value in values)
            cells = (f"{text:>{len(title)}}" for text, title in zip(shown, titles, strict=True))
            lines.append(f"  {group:<{width}}  {figures['chips']:>5}  {'  '.join(cells)}")
        return lines


def format_figure(figure: float | None, task: str = "segmentation") -> str:
    """Write a percentage with two decimals, another figure with four digits; an absent class has none."""
    return "-" if figure is None else f"{figure:.2f}" if task in CLASS_FIGURES else f"{figure:.4g}"


def get_class_names(config: PrithviConfig) -> list[str]:
    """Name the classes of a model in order."""
    names: dict[Any, str] = dict(config.id2label or {})
    return [names[index] for index in range(len(names))]


def find_model_recipe(model: str | Path) -> Path:
    """Find the recipe that a training run left beside its model, in a folder or on the Hub."""
    found = cached_file(str(model), "recipe.yaml", _raise_exceptions_for_missing_entries=False)
    if found is None:
        raise FileNotFoundError(
            f"Expected recipe.yaml in {model}, found none. Name the recipe of the dataset by --config: a YAML file, "
            f"or {', '.join(find_packaged_recipes())}."
        )
    return Path(found)


def take_model_recipe(model: str | Path, folder: str | Path) -> Path:
    """Write what an evaluation needs of the recipe beside a model into a folder, as a recipe.

    The recipe may be a stranger's, so that it chooses the data and how they are read and cut, but no place of this
    machine, unless the model is in a folder here and names its data, and nothing that is loaded, reported or uploaded.
    """
    path = find_model_recipe(model)
    values = {name: value for name, value in read_options(path).items() if name in _TAKEN_FROM_MODEL}
    if not Path(model).is_dir() and values.pop("data_dir", None) is not None:
        logger.warning(f"data_dir in the recipe of {model} is a place of another machine: give yours with --data_dir.")
    if not Path(model).is_dir() and not is_portable(str(values.get("group_by"))):
        logger.warning(f"group_by in the recipe of {model} is left out ({values.pop('group_by')}): give --group_by.")
    options = values.get("dataset_options")
    if isinstance(options, str):
        options = json.loads(options)
    if isinstance(options, dict):
        values["dataset_options"] = {name: value for name, value in options.items() if name not in _NOT_TAKEN}
        waiting: list[Any] = [values["dataset_options"]]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict | list):
                waiting += value.values() if isinstance(value, dict) else value
            elif isinstance(value, str) and _OUTSIDE.match(value):
                raise ValueError(
                    f"{path}: expected dataset_options that name files of the data folder, found {value!r}. Where you "
                    f"trust this recipe, name it yourself: --config {path}."
                )
    own = Path(folder) / "recipe.yaml"
    own.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return own


def make_evaluation_recipe(
    configs: Sequence[str | Path], folder: str | Path, **options: str | float | Path | Sequence[str] | None
) -> TrainingRecipe:
    """Read recipes, later ones over earlier ones, and set what an evaluation needs.

    The options win over the files, and None leaves one out; the folder is for what the trainer insists on writing.
    """
    words = ["--config", *map(str, configs), "--output_dir", str(folder), "--do_train", "false"]
    words += ["--report_to", "none", "--push_to_hub", "false"]
    for name, value in options.items():
        if value is not None:
            words += [f"--{name}", *map(str, value if isinstance(value, list | tuple) else [value])]
    return parse_arguments(words)


def match_recipe(model: Any, recipe: TrainingRecipe) -> None:
    """Give a recipe the task and the classes of a model, which it must not contradict."""
    data = recipe.data
    if data.task != model.task and "task" in recipe.given:
        raise ValueError(
            f"Expected a model of task {data.task}, found a {type(model).__name__}. Evaluate with the recipe that it "
            "was trained with."
        )
    data.task, recipe.model.problem_type = model.task, model.config.problem_type
    labels = get_class_names(model.config) if model.task in CLASS_FIGURES else []
    data.class_names = data.class_names or labels
    if data.class_names != labels:
        raise ValueError(
            f"Expected a model with the recipe's classes {data.class_names}, found one with {labels}. Evaluate with "
            "the recipe that it was trained with, or convert it by `prithvi-hf convert --recipe`, which names its "
            "classes."
        )


def match_processor(image_processor: PrithviImageProcessor, recipe: TrainingRecipe) -> PrithviImageProcessor:
    """Give a model's image processor what a recipe says of the files: where the bands are, what masks hold."""
    given: dict[str, Any] = {}
    if recipe.data.bands in (None, image_processor.bands):
        given |= {name: getattr(recipe.data, name) for name in ("band_indices", "band_map", "band_names")}
    if isinstance(recipe.data.label_map, dict):  # of these masks, which may be others than those of the training
        given |= {name: getattr(recipe.data, name) for name in ("label_map", "do_reduce_labels")}
    return image_processor.with_options(**given)


def evaluate_recipe(
    model: Any,
    image_processor: PrithviImageProcessor,
    recipe: TrainingRecipe,
    splits: Sequence[str] | None = None,
    show_progress: bool = True,
    dtype: str | None = None,
) -> list[SplitResult]:
    """Evaluate a model on splits of a recipe's dataset, by sliding window, with the model's own image processor.

    Under `torchrun` or `accelerate launch` every process takes every n-th chip, and all return the same. The splits
    are the recipe's `test_splits` by default; a recipe without `class_names` is given the model's. With a `dtype` a
    copy of the model in it is evaluated; for "auto" see
    [`~models.prithvi.inference_dtype_prithvi.resolve_dtype`], which compares windows of the first split.
    """
    data = recipe.data
    splits = list(splits or data.test_splits or [data.eval_split])
    match_recipe(model, recipe)
    chips = load_splits(recipe, splits, "Name them with --splits.")
    groups = {name: find_groups(chips[name], data.group_by, name) for name in splits if data.group_by is not None}
    encoded = model.config.coords_encoding
    audits = check_splits(chips, image_processor, recipe, show_progress, coords_encoding=encoded)
    transform = make_transform(recipe, image_processor, coords_encoding=encoded)
    choice: DtypeChoice | None = None
    if dtype is not None:
        model.to(recipe.training.device)
        samples = sample_chips(chips[splits[0]].with_transform(transform), model, recipe.training)
        choice = DtypeChoice(*gather_object([tuple(resolve_dtype(model, dtype, samples))])[0])  # the first process's
        model = convert_model(model, choice.chosen)
    trainer = PrithviTrainer(
        model=model,
        args=recipe.training,
        data_collator=collate_chips,
        eval_dataset=chips[splits[0]],  # which options of a training insist on
        processing_class=image_processor,
    )
    trainer.remove_callback(PrinterCallback)  # the table says it for people
    published = data.published if isinstance(data.published, dict) else {}
    unit, results = model.config.target_unit if model.task == "regression" else None, []
    source = getattr(model, "name_or_path", None) or None
    weights = None if source is None else digest_weights(source)
    for name in splits:
        about = {"groups": groups.get(name), "class_names": data.class_names or ()}
        whole = chips[name].with_transform(transform)
        metrics, table = measure_split(trainer, whole, name, name, model=source, model_digest=weights, **about)
        digest = audits[name].digest if name in audits else None
        own = {key.removeprefix(f"{name}_"): value for key, value in metrics.items()}
        results.append(SplitResult(name, len(chips[name]), digest, own, published.get(name, {}), model.task, unit))
        results[-1].dtype = None if choice is None else choice._asdict()
        results[-1].chip_table, results[-1].groups = table, group_figures(table)
        results[-1].intervals = bootstrap_interval(table)
    return results


def measure_split(
    trainer: PrithviTrainer, chips: Dataset | CachedChips, split: str, prefix: str, **about: Any
) -> tuple[dict[str, Any], pa.Table]:
    """Evaluate the chips of a split and measure all there is to be measured.

    Args:
        trainer: of the model.
        chips: whole chips, as the trainer evaluates them.
        split: name of the split.
        prefix: what stands before its metrics.
        about: groups, class names and model of the table, as of [`make_chip_table`].

    Returns:
        The metrics, with the prefix, and the table of the chips.
    """
    metrics, columns = trainer.evaluate_chips(chips, prefix)
    names = read_column(chips, "id")
    return metrics, make_chip_table(columns, task=trainer.model.task, split=split, prefix=prefix, chips=names, **about)


def sample_chips(chips: Dataset, model: Any, args: PrithviTrainingArguments) -> Iterator[Sample]:
    """Take chips from all over a dataset, to compare dtypes on: of one that is to be mapped the window in its middle.

    Pixels, and whole images, count where they have a label.
    """
    for number, _ in spread_places(range(len(chips)), range(1)):
        batch = collate_chips([chips[number]])
        labels = batch.pop("labels")
        valid = ~labels.isnan() if labels.is_floating_point() else labels != -100
        if model.task == "classification":
            valid = valid.reshape(1, -1).any(dim=1)
        else:
            window, _ = window_and_stride(model.config, args.eval_window, args.eval_overlap)
            first = [max(0, (whole - side) // 2) for whole, side in zip(valid.shape[1:], window, strict=True)]
            place: Any = (..., *(slice(start, start + side) for start, side in zip(first, window, strict=True)))
            batch["pixel_values"], valid = batch["pixel_values"][place], valid[place]
        yield {name: batch[name] for name in ("pixel_values", *COORDINATE_ARGUMENTS.values()) if name in batch}, valid


def write_results(path: str | Path, model: str, labels: Sequence[str], results: Sequence[SplitResult]) -> None:
    """Write all figures but those of single chips as JSON, whole or not at all."""
    splits = {
        result.split: {name: value for name, value in vars(result).items() if name != "chip_table"}
        for result in results
    }
    content = {"model": model, "class_names": list(labels), "splits": splits}
    with complete_or_absent(path) as part:
        part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
