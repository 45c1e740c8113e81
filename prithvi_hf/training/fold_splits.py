# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The splits of one fold of a cross-validation: what it trains on, chooses its checkpoint by, and is measured on."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset, concatenate_datasets
from transformers.utils import logging

from prithvi_hf.data.builders.files import show_some
from prithvi_hf.data.chip_labels import find_chip_classes
from prithvi_hf.data.chips import Chip, collect_results, read_chips
from prithvi_hf.data.folds import check_scikit_learn, divide_into_folds, read_folds
from prithvi_hf.data.groups import find_groups
from prithvi_hf.models.prithvi.labels_prithvi import IGNORED_LABEL, make_labels, read_mask
from prithvi_hf.models.prithvi.processor_options_prithvi import update_options
from prithvi_hf.training.process_group import compute_in_first_process
from prithvi_hf.training.recipe import TrainingRecipe
from prithvi_hf.training.recipe_options import HELD_OUT


logger = logging.get_logger(__name__)


def arrange_fold(recipe: TrainingRecipe, splits: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """Make the splits of the recipe's fold: of K folds, number k is held out and k + 1 (or 0) chooses the checkpoint.

    So each chip is held out once, by a model that has seen nothing of its group, neither in training nor in choosing.
    A training that evaluates nothing takes all folds but one.

    Args:
        recipe: One with `fold`; the fold of each chip is kept in it.
        splits: Those of the dataset.

    Returns:
        `train_split`, `eval_split` and `held_out`, and the splits that are not divided.

    Raises:
        ValueError: What `divide_chips` refuses, or too few folds.
    """
    data, training = recipe.data, recipe.training
    chips = join_fold_splits(recipe, splits)
    recipe.folds_of_chips = recipe.folds_of_chips or divide_chips(recipe, chips)
    folds = [recipe.folds_of_chips[str(chip)] for chip in chips.with_format(None)["id"]]
    number, count = int(data.fold or 0), int(data.folds or 0)
    needs_validation = training.do_train and (training.do_eval or training.eval_strategy != "no")
    if needs_validation and count < 3:
        raise ValueError(
            f"Expected at least 3 folds where one of them chooses the checkpoint, found {count}. Raise --folds, or "
            "train to the last step: --do_eval false --eval_strategy no --load_best_model_at_end false."
        )
    validation = (number + 1) % count if count > 2 else None
    if training.do_train and not needs_validation:
        validation = None
    parts = {data.train_split: [fold not in (number, validation) for fold in folds]}
    if validation is not None:
        parts[data.eval_split] = [fold == validation for fold in folds]
    parts[HELD_OUT] = [fold == number for fold in folds]
    others = {name: split for name, split in splits.items() if name not in find_fold_splits(recipe)}
    return others | {name: chips.select(np.flatnonzero(chosen)) for name, chosen in parts.items()}


def find_fold_splits(recipe: TrainingRecipe) -> list[str]:
    """Name the splits that are divided into folds."""
    return recipe.data.fold_splits or [recipe.data.train_split, recipe.data.eval_split]


def join_fold_splits(recipe: TrainingRecipe, splits: Mapping[str, Dataset]) -> Dataset:
    """Put the chips of the splits that are divided into one dataset; ids that stand twice are a ValueError."""
    names = find_fold_splits(recipe)
    missing = [name for name in names if name not in splits]
    if missing:
        raise ValueError(
            f"Expected the split(s) {missing} in {recipe.data.dataset} to divide into folds, found {sorted(splits)}. "
            "Name others with --fold_splits."
        )
    chips = concatenate_datasets([splits[name].with_format(None) for name in names])
    doubles = [chip for chip, number in Counter(map(str, chips["id"])).items() if number > 1]
    if doubles:
        raise ValueError(
            f"Expected chips with ids that differ in {', '.join(names)} to divide into folds, found {len(doubles)} "
            f"more than once: {show_some(doubles)}. Rename the files of one split, or name fewer --fold_splits."
        )
    return chips


def divide_chips(recipe: TrainingRecipe, chips: Dataset) -> dict[str, int]:
    """Find the fold of each chip: in `fold_file`, or by dividing groups; the first process does it for all.

    Args:
        recipe: One with `folds`, and `group_by` or `fold_file`.
        chips: Those of all splits that are divided.

    Raises:
        ValueError: A chip without a fold or a group, fewer groups than folds, or a class that is in one fold alone.
    """
    data = recipe.data
    names, count = list(map(str, chips.with_format(None)["id"])), int(data.folds or 0)

    if data.fold_file is None:
        check_scikit_learn()

    def divide() -> dict[str, int]:
        # A table says it all; before a training it is checked that each class can be learned.
        classes = find_classes(recipe, chips) if recipe.training.do_train or data.fold_file is None else {}
        if data.fold_file is not None:
            folds = read_folds(data.fold_file, count)
            check_same_chips(names, folds, data.fold_file)
            folds = {name: folds[name] for name in names}
        else:
            groups = find_groups(chips, str(data.group_by), ", ".join(find_fold_splits(recipe)))
            folds = divide_into_folds(dict(zip(names, groups, strict=True)), count, classes)
        check_classes(folds, classes, count, data.class_names or [])
        return folds

    return compute_in_first_process(recipe.training, divide)


def check_same_chips(chips: Sequence[str], folds: Mapping[str, int], path: str) -> None:
    """Refuse a table of folds that is of other chips."""
    unknown, gone = [chip for chip in chips if chip not in folds], [chip for chip in folds if chip not in set(chips)]
    if unknown or gone:
        raise ValueError(
            f"Expected {path} to hold the fold of each of {len(chips)} chips, found {len(unknown)} chips without one "
            f"({show_some(unknown) or 'none'}) and {len(gone)} that are not in the dataset "
            f"({show_some(gone) or 'none'}). Correct the table, name the same --fold_splits, or restore the files."
        )


def find_classes(recipe: TrainingRecipe, chips: Dataset) -> dict[str, list[int]]:
    """Find the classes of each chip, by its label or in its mask; nothing of values per pixel."""
    data, names = recipe.data, recipe.data.class_names or []
    if data.task == "regression":
        return {}
    options = update_options(recipe.build_image_processor().checked_options(), {"num_labels": len(names) or None})

    def find(chip: Chip) -> tuple[str, list[int]]:
        if data.task == "classification":
            return chip.id, find_chip_classes(chip.label, names, recipe.model.is_multi_label, chip.id)
        if chip.mask is None:
            raise ValueError(f"{chip.id}: expected a mask, found none")
        frame = read_mask(chip.mask, chip.mask.name)
        labels = np.unique(make_labels(frame, frame.values.shape, None, options))
        return chip.id, labels[labels != IGNORED_LABEL].tolist()

    results = read_chips(chips, find, "Reading classes", not recipe.training.disable_tqdm)
    return dict(collect_results(results, ", ".join(find_fold_splits(recipe))))


def check_classes(
    folds: Mapping[str, int], classes: Mapping[str, Sequence[int]], count: int, class_names: Sequence[str]
) -> None:
    """Refuse folds of which one alone has a class, which its model could not learn; say where a class is missing."""
    held = [set[int]() for _ in range(count)]
    for chip, fold in folds.items():
        held[fold].update(classes.get(chip, ()))
    for number, name in enumerate(class_names if classes else ()):
        places = [k for k in range(count) if number in held[k]]
        if len(places) == 1:
            raise ValueError(
                f"Expected the class {name} in at least two folds, found it in fold {places[0]} alone, whose model "
                "would be measured on what it has not seen. Give another group_by or number of folds, or leave the "
                "class out by ignore_values."
            )
        if 0 < len(places) < count:
            absent = ", ".join(str(k) for k in range(count) if k not in places)
            logger.warning(
                f"No chip of fold {absent} has the class {name}: their own figures are means of the other classes. "
                "The pooled figures have all."
            )
