# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The space of a search: which options of a recipe have which values, as a YAML file or the recipe says."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.models.prithvi.decode_heads_prithvi import HEADS, find_necks
from prithvi_hf.training.recipe import OPTION_GROUPS, TrainingRecipe, check_value, find_option_types, read_yaml
from prithvi_hf.training.recipe_options import ModelArguments


# With another of these a trial would be measured on something else, or be another kind of run.
_NOT_SEARCHED = {
    *("task", "dataset", "data_dir", "dataset_options", "train_split", "eval_split", "test_splits", "class_names"),
    *("class_colors", "ignore_values", "label_map", "do_reduce_labels", "mask_nodata_labels", "published", "group_by"),
    *("folds", "fold", "fold_splits", "fold_file", "seeds", "hp_search", "hp_trials", "hp_space", "output_dir"),
    *("seed", "resume_from_checkpoint", "do_train", "do_eval", "do_predict", "push_to_hub", "metric_for_best_model"),
    *("greater_is_better", "eval_window", "eval_overlap", "config", "save_strategy", "load_best_model_at_end"),
}
_KEYS = {"low": None, "high": None, "log": False, "step": None}
_WIDTH = 10  # of the default range of a learning rate, down and up


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes:
        low: The smallest.
        high: The largest.
        log: Whether small numbers are tried as often as large ones, by their logarithm.
        step: Distance between two numbers; None for any.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def suggest(self, trial: Any, name: str) -> float:
        """Let a trial of optuna choose a number; a whole one where both ends are."""
        if type(self.low) is int and type(self.high) is int:
            return trial.suggest_int(name, self.low, self.high, log=self.log, step=int(self.step or 1))
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)

    def contains(self, value: Any) -> bool:
        """Whether a value is in the range, and on its steps."""
        is_number = type(value) in (int, float) and self.low <= value <= self.high
        return is_number and (self.step is None or ((value - self.low) / self.step).is_integer())


@dataclass(frozen=True)
class Choices:
    """Values to choose among, each a text, a number, a switch or None."""

    values: tuple[Any, ...]

    def suggest(self, trial: Any, name: str) -> Any:
        """Let a trial of optuna choose a value."""
        return trial.suggest_categorical(name, self.values)

    def contains(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return value in self.values


Space = Mapping[str, Range | Choices]


def read_space(recipe: TrainingRecipe) -> dict[str, Range | Choices]:
    """Read the space of a recipe: of `hp_space`, a mapping or a YAML file, or the default one.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: An unknown option, one that cannot be searched, values of a wrong type, or a range that is none.
    """
    given = recipe.repeats.hp_space
    if given is None:
        return make_default_space(recipe)
    if isinstance(given, str) and not Path(given).expanduser().is_file():
        raise FileNotFoundError(
            f"Expected hp_space as a YAML file, found none at {given}. Write lines such as learning_rate: "
            "{low: 1.0e-5, high: 1.0e-3, log: true} into one."
        )
    where = Path(given).expanduser() if isinstance(given, str) else Path("hp_space")
    content, types = read_yaml(where) if isinstance(given, str) else dict(given), find_option_types(OPTION_GROUPS)
    if not content:
        raise ValueError(f"{where}: expected options to search, found none.")
    unknown = [str(name) for name in content if name not in types or name in _NOT_SEARCHED]
    if unknown:
        raise ValueError(
            f"{where}: expected options of a recipe that a trial may change, found {', '.join(unknown)}. "
            "--help_all lists the options; what is evaluated, and how, must be the same in all trials."
        )
    return {name: _read_values(name, values, types[name], where) for name, values in content.items()}


def _read_values(name: str, values: Any, hint: Any, where: Path) -> Range | Choices:
    """Read a range or a list of choices, of the type of the option."""
    if isinstance(values, list) and len(values) > 1:
        odd = [value for value in values if not (value is None or isinstance(value, str | int | float | bool))]
        if not odd:
            for value in values:
                check_value(name, value, hint, where)
            return Choices(tuple(values))
    content: dict[str, Any] = values if isinstance(values, dict) else {}
    numbers: tuple[Any, ...] = tuple(content.get(key, default) for key, default in _KEYS.items())
    low, high, log, step = numbers
    if not all(type(number) in (int, float) for number in (low, high)) or not set(content) <= set(_KEYS):
        raise ValueError(
            f"{where}: expected {name} as a range {{low: 1.0e-5, high: 1.0e-3, log: true}} or a list of two single "
            f"values or more, found {values!r}. YAML reads 1e-4 as text: write 1.0e-4."
        )
    has_step = step is None or (type(step) in (int, float) and step > 0)
    if not (low < high and type(log) is bool and has_step) or (log and (low <= 0 or step)):
        raise ValueError(
            f"{where}: expected {name} with low below high and, with log: true, low above 0 and no step, found "
            f"{values!r}. Correct it."
        )
    for number in (low, high):
        check_value(name, number, hint, where)
    # 0 and 1 may be the ends of fractions.
    return Range(float(low), float(high), log, step) if "float" in str(hint) else Range(low, high, log, step)


def make_default_space(recipe: TrainingRecipe) -> dict[str, Range | Choices]:
    """Make the space of a recipe that has none: learning rate, decay, heads that fit its neck, rank of its adapter."""
    rate = recipe.training.learning_rate
    space: dict[str, Range | Choices] = {
        "learning_rate": Range(rate / _WIDTH, rate * _WIDTH, log=True),
        "weight_decay": Range(1e-4, 0.3, log=True),
    }
    if not rate > 0:
        raise ValueError(f"Expected a learning_rate above 0 to search about, found {rate}. Set it, or give hp_space.")
    model = recipe.model
    if recipe.data.task != "classification" and model.architecture != "unet":
        neck = model.neck or PrithviConfig().neck
        # Beside a starting model a head brings its neck, unless the recipe has one.
        brings_neck = model.model is not None and model.neck is None
        heads = tuple(name for name, head in HEADS.items() if brings_neck or neck in find_necks(head))
        heads = tuple(name for name in heads if _can_build(recipe.change({"decode_head": name})))
        if len(heads) > 1:
            space["decode_head"] = Choices(heads)
    if getattr(model, "adapter", None) is not None:
        space["adapter_rank"] = Choices((4, 8, 16, 32))
    return space


def _can_build(recipe: TrainingRecipe) -> bool:
    """Whether a model can be made of a recipe."""
    try:
        recipe.build_model().config.validate()
    except (ValueError, StrictDataclassError):
        return False
    return True


def check_space(recipe: TrainingRecipe, space: Space) -> None:
    """Refuse values with which the recipe, or its model, cannot be made, each beside the recipe's own other values.

    Raises:
        ValueError: A value that is refused, with its option.
    """
    own = set(find_option_types([ModelArguments]))
    for name, values in space.items():
        for value in values.values if isinstance(values, Choices) else (values.low, values.high):
            try:
                changed = recipe.change({name: value})
                if name in own:
                    changed.build_model().config.validate()
            except (ValueError, OSError, StrictDataclassError) as error:
                raise ValueError(
                    f"Expected values of {name} in hp_space that the recipe can have, found {value!r}: {error}"
                ) from error


def list_space(space: Space) -> dict[str, Any]:
    """List a space as a YAML file has it."""
    return {
        name: list(values.values)
        if isinstance(values, Choices)
        else {key: value for key, value in vars(values).items() if value not in (None, False)}
        for name, values in space.items()
    }
