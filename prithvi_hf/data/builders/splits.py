# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Splits that keep neighbours together: by MGRS tile, or by place on a grid of chips.

What goes where follows from names and a seed alone, never from the order in which a file system lists files, so every
machine and every process gets the same splits.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets.utils import logging

from prithvi_hf.data.builders.files import examples


logger = logging.get_logger(__name__)

PUBLISHED, THREE_WAY = "published", "three_way"
_SCHEMES = (PUBLISHED, THREE_WAY)
# An MGRS tile as HLS writes it: zone, latitude band, 100 km square.
_TILE = re.compile(r"(?<![A-Za-z0-9])T(\d{2}[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])(?![A-Za-z0-9])")
_GRID = re.compile(r"(\d+)_(\d+)$")


@dataclass(frozen=True)
class OfficialSplits:
    """The two splits that a data set was published with, as chip ids.

    Attributes:
        name (`str`): the data set, for messages.
        train (`list[str]`): training chips.
        validation (`list[str]`): validation chips.
    """

    name: str
    train: list[str]
    validation: list[str]

    def __post_init__(self) -> None:
        shared = sorted(set(self.train) & set(self.validation))
        if shared:
            raise ValueError(
                f"{self.name}: expected training and validation chips to differ, found {len(shared)} in both: "
                f"{examples(shared)}. Remove them from one."
            )

    def arrange(
        self, scheme: str, seed: int, group_of: Callable[[Sequence[str], str], Mapping[str, str]], kind: str
    ) -> dict[str, list[str]]:
        """Makes train, validation and test of the two.

        Args:
            scheme (`str`): "published" gives the validation chips as test too, as the original evaluates; "three_way"
                halves them into validation and test, a group always whole, and leaves the training chips of test
                groups out.
            seed (`int`): chooses which groups are test.
            group_of (`Callable`): gives the group of each chip; called with the chips and the data set's name.
            kind (`str`): what groups are, for messages.

        Returns:
            `dict[str, list[str]]`: chip ids by split, of the splits that there are.

        Raises:
            ValueError: no training or no validation chips, too few groups to divide, or no training chip left.
        """
        if scheme == PUBLISHED:
            splits = {"train": self.train, "validation": self.validation, "test": self.validation}
            return {split: chips for split, chips in splits.items() if chips}
        if not (self.train and self.validation):
            raise ValueError(
                f"{self.name}: split_scheme='three_way' expects training and validation chips, found "
                f"{len(self.train)} and {len(self.validation)}. Add the missing folder, or use "
                "split_scheme='published'."
            )
        groups = group_of([*self.train, *self.validation], self.name)
        held_out = {chip: groups[chip] for chip in self.validation}
        parts = divide(held_out, {"validation": 1, "test": 1}, seed, self.name, kind)
        test_groups = {groups[chip] for chip in parts["test"]}
        train = [chip for chip in self.train if groups[chip] not in test_groups]
        self._report_left_out(train)
        return {"train": train, **parts}

    def _report_left_out(self, train: Sequence[str]) -> None:
        if not train:
            raise ValueError(
                f"{self.name}: split_scheme='three_way' leaves none of {len(self.train)} training chips, for all lie "
                "where test chips lie. Choose another split_seed, or split_scheme='published'."
            )
        if len(train) < len(self.train):
            logger.warning(
                f"{self.name}: {len(self.train) - len(train)} of {len(self.train)} training chips are left out, for "
                "they lie where chips of the test split lie."
            )


def divide(
    groups: Mapping[str, str], shares: Mapping[str, float], seed: int, name: str, kind: str
) -> dict[str, list[str]]:
    """Divides chips among splits, all chips of a group together.

    Groups are taken in an order that the seed decides, each to the split that lacks most chips. Every split gets at
    least one group.

    Args:
        groups (`Mapping[str, str]`): the group of each chip.
        shares (`Mapping[str, float]`): how the chips shall be divided, by split; any unit.
        seed (`int`): decides the order of the groups.
        name (`str`): the data set, for messages.
        kind (`str`): what groups are, for messages.

    Returns:
        `dict[str, list[str]]`: sorted chip ids by split.

    Raises:
        ValueError: fewer groups than splits.
    """
    members: dict[str, list[str]] = {}
    for chip in sorted(groups):
        members.setdefault(groups[chip], []).append(chip)
    if len(members) < len(shares):
        raise ValueError(
            f"{name}: expected chips of at least {len(shares)} {kind} to divide among {', '.join(shares)} with none "
            f"on two sides, found {len(members)}: {examples(sorted(members)) or 'none'}. Add chips of others, or use "
            "geotiff_folder with splits of your own."
        )
    lacking = {split: share * len(groups) / sum(shares.values()) for split, share in shares.items()}
    divided: dict[str, list[str]] = {split: [] for split in shares}
    order = sorted(members, key=lambda group: hashlib.sha256(f"{seed} {group}".encode()).digest())
    for position, group in enumerate(order):
        empty = [split for split, chips in divided.items() if not chips]
        candidates = empty if len(empty) == len(order) - position else list(shares)
        split = max(candidates, key=lambda candidate: lacking[candidate])
        divided[split] += members[group]
        lacking[split] -= len(members[group])
    return {split: sorted(chips) for split, chips in divided.items()}


def mgrs_tile(name: str) -> str | None:
    """The MGRS tile in the name of an HLS file or chip, such as "10SEH"; None if there is none.

    Example:
    ```python
    >>> mgrs_tile("subsetted_512x512_HLS.S30.T10SEH.2018190.v1.4")
    '10SEH'
    ```
    """
    match = _TILE.search(name)
    return match[1] if match else None


def tiles_of(chips: Iterable[str], name: str) -> dict[str, str]:
    """The MGRS tile of each chip.

    Args:
        chips (`Iterable[str]`): chip ids.
        name (`str`): the data set, for messages.

    Raises:
        ValueError: ids without a tile.
    """
    tiles = {chip: mgrs_tile(chip) for chip in chips}
    unknown = [chip for chip, tile in tiles.items() if tile is None]
    if unknown:
        raise ValueError(
            f"{name}: expected an MGRS tile such as T10SEH in the name of each chip to divide them by tile, found "
            f"none in {len(unknown)}: {examples(unknown)}. Restore the official file names, or use "
            "split_scheme='published' where the data set has it."
        )
    return tiles


def grid_blocks(chips: Iterable[str], name: str) -> dict[str, str]:
    """Groups chips whose ids end in a row and a column of a grid: those that touch, also at a corner, are one group.

    Args:
        chips (`Iterable[str]`): chip ids such as "chip_328_501".
        name (`str`): the data set, for messages.

    Returns:
        `dict[str, str]`: for each chip the id of the first chip of its group.

    Raises:
        ValueError: ids without a place on the grid.
    """
    places: dict[tuple[int, int], list[str]] = {}
    for chip in sorted(chips):
        match = _GRID.search(chip)
        if match is None:
            raise ValueError(
                f"{name}: expected ids that end in a row and a column, such as chip_328_501, found {chip}. Restore "
                "the official file names, or use split_scheme='published'."
            )
        places.setdefault((int(match[1]), int(match[2])), []).append(chip)
    blocks: dict[str, str] = {}
    for place, (first, *_) in places.items():
        if first not in blocks:
            blocks.update(dict.fromkeys(_connected(place, places), first))
    return blocks


def _connected(start: tuple[int, int], places: Mapping[tuple[int, int], list[str]]) -> list[str]:
    """Chips that can be reached from a place by steps to one of the eight neighbours."""
    seen, pending = {start}, [start]
    while pending:
        row, column = pending.pop()
        around = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)}
        fresh = [place for place in around if place in places and place not in seen]
        seen.update(fresh)
        pending += fresh
    return [chip for place in seen for chip in places[place]]


def check_split_options(name: str, seed: Any, scheme: Any = PUBLISHED) -> None:
    """Checks the options `split_seed` and `split_scheme`.

    Raises:
        ValueError: a seed that is no integer, or another scheme than "published" and "three_way".
    """
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ValueError(f"{name}: expected split_seed as an integer, found {seed!r}.")
    if scheme not in _SCHEMES:
        raise ValueError(f"{name}: expected split_scheme among {list(_SCHEMES)}, found {scheme!r}.")
