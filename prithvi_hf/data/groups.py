# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Groups of chips that are not independent of each other: of one event, tile, country, or as a table says."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from prithvi_hf.data.builders.files import read_chip_column, show_some
from prithvi_hf.data.builders.splits import find_blocks, find_tiles
from prithvi_hf.data.chip_cache import CachedChips


GROUP = "group"
_EVENT = re.compile(rf"(?P<{GROUP}>.+)_\d+$")
_NOT_COLUMNS = ("image", "mask", "id")

GROUPINGS: dict[str, Callable[[Sequence[str], str], dict[str, str]]] = {
    "event": lambda chips, name: match_groups(chips, _EVENT, name),
    "tile": find_tiles,
    "block": find_blocks,
}
"""What `group_by` may say of ids: `event`, what stands before the number at the end (Ghana in Ghana_103272); `tile`,
the MGRS tile in the name; `block`, chips that touch on the grid that ids such as chip_328_501 give."""


def check_group_by(group_by: str) -> None:
    """Refuse a pattern that cannot give groups; whether a column or a file is there is seen with the chips.

    Raises:
        ValueError: a regular expression that is not one, or one without a group named `group`.
    """
    if group_by in GROUPINGS or not _is_pattern(group_by):
        return
    try:
        names = re.compile(group_by).groupindex
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(
            f"Expected group_by as a regular expression, found {group_by!r} ({error}). Correct it."
        ) from error
    if GROUP not in names:
        raise ValueError(
            f"Expected group_by with a part named {GROUP}, as in '(?P<{GROUP}>[A-Za-z]+)_', found {group_by!r}. "
            "Name it."
        )


def find_groups(dataset: Dataset | CachedChips, group_by: str, name: str = "the dataset") -> list[str]:
    """Find the group of each chip of a split.

    Args:
        dataset: rows with `id`; a transform on it is left aside, and no image is opened.
        group_by: a column of the dataset such as `country`; `event`, `tile` or `block` (see [`GROUPINGS`]); the path
            of a .csv file with the columns `chip` and `group`; or a regular expression that is searched in the ids and
            whose part `(?P<group>...)` is the group.
        name: of the split, for messages.

    Returns:
        One name per chip, in the order of the rows.

    Raises:
        ValueError: chips without a group, or a `group_by` that is none of these.
        FileNotFoundError: the file is missing.
    """
    check_group_by(group_by)
    chips = [str(chip) for chip in read_column(dataset, "id")]
    if group_by in dataset.column_names and group_by not in _NOT_COLUMNS:
        values = read_column(dataset, group_by)
        found = {chip: _write_value(value) for chip, value in zip(chips, values, strict=True)}
        where = f"in the column {group_by}"
    elif group_by in GROUPINGS:
        return [GROUPINGS[group_by](chips, name)[chip] for chip in chips]
    elif group_by.lower().endswith(".csv"):
        found, where = read_groups(group_by), f"in {group_by}"
    elif _is_pattern(group_by):
        matched = match_groups(chips, re.compile(group_by), name)
        return [matched[chip] for chip in chips]
    else:
        columns = [column for column in dataset.column_names if column not in _NOT_COLUMNS]
        raise ValueError(
            f"{name}: expected group_by as a column ({', '.join(columns)}), one of {', '.join(GROUPINGS)}, a "
            f".csv file or a regular expression with (?P<{GROUP}>...), found {group_by!r}. Choose one of these."
        )
    unknown = [chip for chip in chips if not found.get(chip)]
    if unknown:
        raise ValueError(
            f"{name}: expected a group for each of {len(chips)} chips {where}, found none for {len(unknown)}: "
            f"{show_some(unknown)}. Add them there, or choose another group_by."
        )
    return [found[chip] for chip in chips]


def match_groups(chips: Sequence[str], pattern: re.Pattern[str], name: str) -> dict[str, str]:
    """Find the part `group` of a pattern in each id; ids without it are a ValueError."""
    matches = {chip: pattern.search(chip) for chip in chips}
    found = {chip: match[GROUP] for chip, match in matches.items() if match is not None and match[GROUP]}
    unknown = [chip for chip in chips if chip not in found]
    if unknown:
        raise ValueError(
            f"{name}: expected {pattern.pattern} in the id of each chip to group them, found it not in "
            f"{len(unknown)}: {show_some(unknown)}. Give another group_by: a column, a .csv "
            f"file of chip and group, or a regular expression with (?P<{GROUP}>...)."
        )
    return found


def read_groups(path: str | Path) -> dict[str, str]:
    """Read the group of each chip from a .csv file with the columns `chip` and `group`; others are left aside.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, or a chip has two groups.
    """
    groups: dict[str, str] = {}
    for chip, group in read_chip_column(path, GROUP):
        if groups.setdefault(chip, group) != group:
            raise ValueError(
                f"{path}: expected one group for each chip, found {groups[chip]} and {group} for {chip}. Remove one."
            )
    return groups


def is_portable(group_by: str) -> bool:
    """Tell what is a mere name from a file of some machine and from a pattern, which may take for ever to match."""
    return not (_is_pattern(group_by) or group_by.lower().endswith(".csv"))


def read_column(dataset: Dataset | CachedChips, name: str) -> list[Any]:
    """Read a column of a split without opening rasters; a transform on it is left aside."""
    if isinstance(dataset, CachedChips):
        return dataset.columns[name]
    return list(dataset.with_format(None).select_columns(name)[name])


def _is_pattern(group_by: str) -> bool:
    """Tell a regular expression, which has a group, from a name."""
    return "(" in group_by


def _write_value(value: Any) -> str:
    """Write a value of a column as the name of a group; several, such as dates, together, and nothing for None."""
    if isinstance(value, list):
        return ", ".join(filter(None, map(_write_value, value)))
    return "" if value is None else str(value)
