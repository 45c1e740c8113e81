# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Evaluating a fine-tuned model on the splits of a recipe, with the published figures beside the measured ones."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import PrinterCallback
from transformers.utils import cached_file

from prithvi_hf.data.transforms import SegmentationTransform, collate_chips
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.modeling_prithvi import PrithviForSemanticSegmentation
from prithvi_hf.outputs.cog import complete_or_absent
from prithvi_hf.training.recipe import Recipe, packaged_recipes, parse_arguments
from prithvi_hf.training.recipe_chips import check_splits, load_splits
from prithvi_hf.training.trainer import PrithviTrainer


_MEANS = ("mean_iou", "mean_accuracy", "overall_accuracy", "mean_f1")


@dataclass
class SplitResult:
    """What one split gave.

    Attributes:
        split (`str`): Name of the split.
        chips (`int`): Number of chips.
        digest (`str`, *optional*): Digest of the files, None where they were not checked.
        metrics (`dict[str, Any]`): Every metric, shares from 0 to 1; None where a class is absent.
        published (`dict[str, Any]`): The recipe's published figures in percent.
    """

    split: str
    chips: int
    digest: str | None
    metrics: dict[str, Any]
    published: dict[str, Any] = field(default_factory=dict)

    def rows(self, labels: Sequence[str]) -> list[tuple[str, float | None, float | None]]:
        """Name, published and measured figure in percent of every mean and of the IoU of each class.

        Args:
            labels (`Sequence[str]`): Names of the classes in order.
        """
        classes = self.published.get("iou", {})
        measured = [self.metrics[name] for name in _MEANS] + list(self.metrics["per_category_iou"])
        published = [self.published.get(name) for name in _MEANS] + [classes.get(label) for label in labels]
        names = [*_MEANS, *(f"IoU of {label}" for label in labels)]
        percent = [None if value is None else 100 * value for value in measured]
        return list(zip(names, published, percent, strict=True))

    def table(self, labels: Sequence[str]) -> str:
        """The figures for people, in percent; `-` where there is none.

        Args:
            labels (`Sequence[str]`): Names of the classes in order.
        """
        rows = self.rows(labels)
        width = max(len(name) for name, *_ in rows)
        lines = [f"{self.split}: {self._counted()}", f"  {'':<{width}}  published  measured  difference"]
        for name, published, measured in rows:
            difference = None if published is None or measured is None else measured - published
            lines.append(
                f"  {name:<{width}}  {_cell(published):>9}  {_cell(measured):>8}  {_cell(difference, '+'):>10}"
            )
        return "\n".join(lines)

    def _counted(self) -> str:
        """The number of chips, and that behind the published figures where it is another."""
        own = f"{self.chips} chip{'' if self.chips == 1 else 's'}"
        published = self.published.get("chips", self.chips)
        return own if published == self.chips else f"{own}; the published figures are of {published:g}"


def _cell(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.2f}"


def recipe_of_model(model: str | Path) -> Path:
    """The recipe that a training run left beside its model.

    Args:
        model (`str` or `Path`): Folder or Hub id.

    Raises:
        FileNotFoundError: There is none.
    """
    found = cached_file(str(model), "recipe.yaml", _raise_exceptions_for_missing_entries=False)
    if found is None:
        raise FileNotFoundError(
            f"Expected recipe.yaml in {model}, found none. Name the recipe of the data set by --config: a YAML file, "
            f"or {', '.join(packaged_recipes())}."
        )
    return Path(found)


def evaluation_recipe(configs: Sequence[str | Path], folder: str | Path, **options: Any) -> Recipe:
    """Read the recipes and set what an evaluation needs.

    Args:
        configs (`Sequence[str | Path]`): YAML files or names of recipes; later ones win.
        folder (`str` or `Path`): A folder for what the trainer insists on writing.
        options: Options of a recipe or of `PrithviTrainingArguments` that win over the files; None leaves them.

    Raises:
        FileNotFoundError: A recipe does not exist.
        ValueError: An option is unknown or has the wrong type.
    """
    words = ["--config", *map(str, configs), "--output_dir", str(folder), "--do_train", "false"]
    words += ["--report_to", "none", "--push_to_hub", "false"]
    for name, value in options.items():
        if value is not None:
            words += [f"--{name}", *map(str, value if isinstance(value, list | tuple) else [value])]
    return parse_arguments(words)


def evaluate_recipe(
    model: PrithviForSemanticSegmentation,
    image_processor: PrithviImageProcessor,
    recipe: Recipe,
    splits: Sequence[str] | None = None,
    show_progress: bool = True,
) -> list[SplitResult]:
    """Evaluate a model on splits of a recipe's data set, by sliding window, with the model's own image processor.

    Under `torchrun` or `accelerate launch` every process takes its share of the chips, and all return the same.

    Args:
        model ([`PrithviForSemanticSegmentation`]): The model.
        image_processor ([`PrithviImageProcessor`]): The image processor that belongs to it.
        recipe ([`Recipe`]): The data set, the window and the published figures; with its training options.
        splits (`Sequence[str]`, *optional*): Names of the splits; the recipe's `test_splits` by default.
        show_progress (`bool`, defaults to `True`): Draw progress bars.

    Returns:
        `list[SplitResult]`: One a split.

    Raises:
        ValueError: Chips cannot be used, or the model has other classes than the recipe.
        FileNotFoundError: A file or folder is missing.
    """
    splits = list(splits or recipe.data.test_splits or [recipe.data.eval_split])
    check_classes(model, recipe)
    chips = load_splits(recipe, splits, "Name them with --splits.")
    audits = check_splits(chips, image_processor, recipe, show_progress)
    transform = SegmentationTransform(image_processor, None, "none", train=False)
    trainer = PrithviTrainer(
        model=model,
        args=recipe.training,
        data_collator=collate_chips,
        eval_dataset=chips[splits[0]],  # which options of a training insist on
        processing_class=image_processor,
    )
    trainer.remove_callback(PrinterCallback)  # the table says it for people
    published = recipe.data.published or {}
    results = []
    for name in splits:
        metrics = trainer.evaluate(chips[name].with_transform(transform), metric_key_prefix="eval")
        digest = audits[name].digest if name in audits else None
        own = {key.removeprefix("eval_"): value for key, value in metrics.items()}
        results.append(SplitResult(name, len(chips[name]), digest, own, published.get(name, {})))
    return results


def check_classes(model: PrithviForSemanticSegmentation, recipe: Recipe) -> None:
    """Raise unless the model's classes are those of the recipe.

    Args:
        model ([`PrithviForSemanticSegmentation`]): The model.
        recipe ([`Recipe`]): The recipe; without `class_names` the model's are taken.
    """
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    if recipe.data.class_names is None:
        recipe.data.class_names = labels
    if recipe.data.class_names != labels:
        raise ValueError(
            f"Expected a model with the recipe's classes {recipe.data.class_names}, found one with {labels}. Evaluate "
            "with the recipe that it was trained with, or convert it with --recipe, which names its classes."
        )


def write_results(path: str | Path, model: str, labels: Sequence[str], results: Sequence[SplitResult]) -> None:
    """Write all figures as JSON, whole or not at all.

    Args:
        path (`str` or `Path`): The file.
        model (`str`): What was evaluated.
        labels (`Sequence[str]`): Names of the classes, in the order of the lists.
        results (`Sequence[SplitResult]`): The figures.
    """
    splits = {result.split: asdict(result) for result in results}
    content = {"model": model, "class_names": list(labels), "splits": splits}
    with complete_or_absent(path) as part:
        part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


__all__ = ["SplitResult", "evaluate_recipe", "evaluation_recipe", "recipe_of_model", "write_results"]
