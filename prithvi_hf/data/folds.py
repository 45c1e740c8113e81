# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Folds of cross-validation: chips divided so that no group is on two sides, and the table that tells it."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from prithvi_hf.data.builders.files import read_chip_column, show_some
from prithvi_hf.outputs.cog import complete_or_absent


FOLDS = "folds.csv"
"""The table in the folder of a run: the columns `chip`, `group` and `fold`."""


def divide_into_folds(groups: Mapping[str, str], count: int, classes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Divide chips into folds of about equal size, all chips of a group together, the same ones every time.

    Where classes are known they are spread as evenly as groups allow, by the rarest class of each chip: this is
    scikit-learn's `StratifiedGroupKFold`, and its `GroupKFold` otherwise.

    Args:
        groups: Group of each chip.
        count: Number of folds, at least 2.
        classes: Numbers of the classes of each chip; empty where there are none, as of values per pixel.

    Returns:
        Fold of each chip, 0 to `count` - 1, in the order of `groups`.

    Raises:
        ValueError: There are fewer groups than folds, or classes that only some groups have cannot be spread.
    """
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    names = sorted(set(groups.values()))
    if len(names) < count:
        raise ValueError(
            f"Expected at least as many groups as folds ({count}), found {len(names)} among {len(groups)} chips: "
            f"{show_some(names)}. Lower --folds, or choose another group_by."
        )
    # Sorted, so that the order of the rows, which is the file system's or the split's, changes nothing.
    chips = sorted(groups)
    own, found = [groups[chip] for chip in chips], dict[str, int]()
    frequency = Counter(number for numbers in classes.values() for number in set(numbers))
    strata = [min(classes.get(chip, ()), key=lambda n: (frequency[n], n), default=-1) for chip in chips]
    # scikit-learn cannot spread a class of fewer chips than folds: they count as chips of the commonest.
    sizes = Counter(strata)
    strata = [number if sizes[number] >= count else max(sizes, key=lambda n: (sizes[n], n)) for number in strata]
    divider = StratifiedGroupKFold(count) if len(set(strata)) > 1 else GroupKFold(count)
    for number, (_, places) in enumerate(divider.split(chips, strata, own)):
        found |= {chips[place]: number for place in places}
    empty = sorted(set(range(count)) - set(found.values()))
    if empty:
        raise ValueError(
            f"Expected chips in each of {count} folds, found none in {', '.join(map(str, empty))}: classes and groups "
            "cannot be spread so far. Lower --folds, or choose another group_by."
        )
    return {chip: found[chip] for chip in groups}


def check_scikit_learn() -> None:
    """Raise an ImportError with the remedy where scikit-learn, which divides groups, is not installed."""
    if find_spec("sklearn") is None:
        raise ImportError(
            "Expected scikit-learn, which divides chips into folds, found it is not installed. Install it by "
            "`pip install prithvi_hf[folds]`, or give the folds as a table (--fold_file)."
        )


def write_folds(path: str | Path, folds: Mapping[str, int], groups: Mapping[str, str]) -> None:
    """Write the fold of each chip, and its group where it has one, as a .csv file, whole or not at all."""
    with complete_or_absent(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["chip", "group", "fold"])
        table.writerows([chip, groups.get(chip, ""), fold] for chip, fold in folds.items())


def read_folds(path: str | Path, count: int) -> dict[str, int]:
    """Read the fold of each chip from a .csv file with the columns `chip` and `fold`; others are left aside.

    Args:
        path: The file.
        count: Number of folds that it must have.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A column is missing, a chip has two folds, or folds are not the numbers 0 to `count` - 1.
    """
    folds: dict[str, int] = {}
    for chip, text in read_chip_column(path, "fold"):
        if not (text.isascii() and text.isdecimal() and int(text) < count):
            raise ValueError(f"{path}: expected a fold from 0 to {count - 1} for {chip}, found {text!r}. Correct it.")
        if folds.setdefault(chip, int(text)) != int(text):
            raise ValueError(f"{path}: expected one fold for {chip}, found {folds[chip]} and {text}. Remove one.")
    absent = sorted(set(range(count)) - set(folds.values()))
    if absent:
        raise ValueError(
            f"{path}: expected chips in each of {count} folds, found none in {', '.join(map(str, absent))}. Give as "
            "many --folds as the table has."
        )
    return folds
