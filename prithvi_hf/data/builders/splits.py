# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Splits that keep neighbours together: by MGRS tile, or by place on a grid of chips.

What goes where follows from names and a seed alone, never from the order in which a file system lists files, so every
machine and every process gets the same splits.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence

from datasets.utils import logging

from prithvi_hf.data.builders.files import ChipRow, show_some


logger = logging.get_logger(__name__)

PUBLISHED, THREE_WAY = "published", "three_way"
# An MGRS tile as HLS writes it: zone, latitude band, 100 km square.
_TILE = re.compile(r"(?<![A-Za-z0-9])T(\d{2}[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])(?![A-Za-z0-9])")
_GRID = re.compile(r"(\d+)_(\d+)$")


def arrange_splits(
    name: str,
    rows: Mapping[str, list[ChipRow]],
    scheme: str,
    seed: int,
    find_groups: Callable[[Sequence[str], str], Mapping[str, str]],
    kind: str,
) -> dict[str, list[ChipRow]]:
    """Make train, validation and test of the two splits that a dataset was published with.

    The scheme "published" gives the validation chips as test too, as the original evaluates; "three_way" halves them
    into validation and test, a group always whole, and leaves the training chips of test groups out. The seed chooses
    which groups are test; `find_groups` gives the group of each chip, by ids and the dataset's name.
    """
    chips = {row["id"]: row for part in rows.values() for row in part}
    train, validation = ([row["id"] for row in rows.get(split, ())] for split in ("train", "validation"))
    shared = sorted(set(train) & set(validation))
    if shared:
        raise ValueError(
            f"{name}: expected training and validation chips to differ, found {len(shared)} in both: "
            f"{show_some(shared)}. Remove them from one."
        )
    if scheme == PUBLISHED:
        return {**rows, **({"test": rows["validation"]} if validation else {})}
    if not (train and validation):
        raise ValueError(
            f"{name}: split_scheme='three_way' expects training and validation chips, found {len(train)} and "
            f"{len(validation)}. Add the missing folder, or use split_scheme='published'."
        )
    groups = find_groups([*train, *validation], name)
    held_out = {chip: groups[chip] for chip in validation}
    parts = divide_groups(held_out, {"validation": 1, "test": 1}, seed, name, kind)
    test_groups = {groups[chip] for chip in parts["test"]}
    kept = [chip for chip in train if groups[chip] not in test_groups]
    if not kept:
        raise ValueError(
            f"{name}: split_scheme='three_way' leaves none of {len(train)} training chips, because all are in the "
            f"{kind} of test chips. Choose another split_seed, or split_scheme='published'."
        )
    if len(kept) < len(train):
        logger.warning(
            f"{name}: {len(train) - len(kept)} of {len(train)} training chips are left out, because they are in the "
            f"{kind} of test chips."
        )
    return {split: [chips[chip] for chip in ids] for split, ids in {"train": kept, **parts}.items()}


def divide_groups(
    groups: Mapping[str, str], fractions: Mapping[str, float], seed: int, name: str, kind: str
) -> dict[str, list[str]]:
    """Divide chips among splits, all chips of a group together.

    Groups, given for each chip, are taken in an order that the seed decides, each to the split that lacks most chips.
    Every split gets at least one group. `fractions` may be of any unit; the dataset's `name` and `kind`, what groups
    are, are for messages.
    """
    members: dict[str, list[str]] = {}
    for chip in sorted(groups):
        members.setdefault(groups[chip], []).append(chip)
    if len(members) < len(fractions):
        raise ValueError(
            f"{name}: expected chips of at least {len(fractions)} {kind} to divide among {', '.join(fractions)} with "
            f"none on two sides, found {len(members)}: {show_some(sorted(members)) or 'none'}. Add chips of others, "
            "or use geotiff_folder with splits of your own."
        )
    lacking = {split: fraction * len(groups) / sum(fractions.values()) for split, fraction in fractions.items()}
    divided: dict[str, list[str]] = {split: [] for split in fractions}
    order = sorted(members, key=lambda group: hashlib.sha256(f"{seed} {group}".encode()).digest())
    for position, group in enumerate(order):
        empty = [split for split, chips in divided.items() if not chips]
        candidates = empty if len(empty) == len(order) - position else list(fractions)
        split = max(candidates, key=lambda candidate: lacking[candidate])
        divided[split] += members[group]
        lacking[split] -= len(members[group])
    return {split: sorted(chips) for split, chips in divided.items()}


def find_tiles(chips: Collection[str], name: str) -> dict[str, str]:
    """Find the MGRS tile of each chip, "10SEH" in "HLS.S30.T10SEH.2018190.v1.4"; ids without one are a ValueError."""
    tiles = {chip: match[1] for chip in chips if (match := _TILE.search(chip))}
    unknown = [chip for chip in chips if chip not in tiles]
    if unknown:
        raise ValueError(
            f"{name}: expected an MGRS tile such as T10SEH in the name of each chip to divide them by tile, found "
            f"none in {len(unknown)}: {show_some(unknown)}. Restore the official file names, or choose another "
            "split_scheme or group_by."
        )
    return tiles


def find_blocks(chips: Collection[str], name: str) -> dict[str, str]:
    """Group chips whose ids end in a row and a column of a grid: those that touch, also at a corner, are one group.

    A group is named by its first chip, "chip_328_501". Ids without a place on the grid are a ValueError.
    """
    places: dict[tuple[int, int], list[str]] = {}
    for chip in sorted(chips):
        match = _GRID.search(chip)
        if match is None:
            raise ValueError(
                f"{name}: expected ids that end in a row and a column, such as chip_328_501, found {chip}. Restore "
                "the official file names, or choose another split_scheme or group_by."
            )
        places.setdefault((int(match[1]), int(match[2])), []).append(chip)
    blocks: dict[str, str] = {}
    for start, (first, *_) in places.items():
        pending = [] if first in blocks else [start]
        while pending:  # from a place to its eight neighbours, and on from there
            row, column = pending.pop()
            blocks.update(dict.fromkeys(places[row, column], first))
            around = [(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
            pending += [place for place in around if place in places and places[place][0] not in blocks]
    return blocks


def check_split_options(name: str, seed: object, scheme: object = PUBLISHED) -> None:
    """Check the options `split_seed` and `split_scheme`; other than an integer and a known scheme are a ValueError."""
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ValueError(f"{name}: expected split_seed as an integer, found {seed!r}.")
    if scheme not in (PUBLISHED, THREE_WAY):
        raise ValueError(f"{name}: expected split_scheme among {[PUBLISHED, THREE_WAY]}, found {scheme!r}.")
