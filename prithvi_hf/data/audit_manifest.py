# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What a check of chips found, kept for the next start: chips whose files are unchanged are not read again.

A manifest is a Parquet file with one row a chip, whose name says all that the check depended on. It is written beside
the caches of decoded chips and is whole or absent; of several processes that write it, the last one wins.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from transformers.utils import logging

from prithvi_hf.data.chips import ChipDigest
from prithvi_hf.data.file_states import read_file_states


logger = logging.get_logger(__name__)

# Packages whose code decides what is found in a chip.
_CODE = ("data", "rasters", "models/prithvi")
_FOLDER = "prithvi_hf_checked"
_SCHEMA = pa.schema(
    {
        "state": pa.binary(32),
        "chip": pa.string(),
        "class_pixels": pa.list_(pa.int64()),
        "counts": pa.list_(pa.int64(), 4),  # ignored and nodata pixels, height, width
        "files": pa.list_(pa.string()),  # sha256 of each image and of the mask
        "has_mask": pa.bool_(),
        "pixels": pa.string(),  # sha256 of the pixels in the bands in use
        "values": pa.list_(pa.float64(), 5),  # count, mean, deviations, minimum and maximum
        "problems": pa.list_(pa.string()),
        "paths": pa.list_(pa.string()),
        "states": pa.list_(pa.int64()),  # size and time of each file
    }
)


@dataclass(frozen=True)
class ChipRecord:
    """What the check of one chip found.

    Attributes:
        chip: its id.
        class_pixels: pixels of each class.
        counts: ignored and nodata pixels, height and width.
        files: sha256 of each image file, and of the mask where there is one.
        has_mask: whether the last of them is a mask's.
        pixels: sha256 of the pixels in the bands in use; None of an image whose bands are constant.
        values: of a regression count, mean, sum of squared deviations, minimum and maximum.
        problems: of its date and place.
        paths: of the same files; empty where chips are not files.
        states: size and time (ns) of each path, one after the other.
    """

    chip: str
    class_pixels: tuple[int, ...]
    counts: tuple[int, int, int, int]
    files: tuple[str, ...]
    has_mask: bool
    pixels: str | None
    values: tuple[float, ...]
    problems: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    states: tuple[int, ...] = ()

    @property
    def digest(self) -> ChipDigest:
        """The id with the digests of the files."""
        images = self.files[:-1] if self.has_mask else self.files
        return self.chip, list(images), self.files[-1] if self.has_mask else None


@lru_cache(maxsize=1)
def hash_code() -> str:
    """Hash the code that reads and checks chips, so that no other version's records are taken for its own."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for package in _CODE:
        for path in sorted((root / package).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


class AuditManifest:
    """The manifest of one split under one set of options.

    Args:
        cache_dir: cache folder, as for decoded chips.
        name: of the split, for people.
        options: everything but the chips that records depend on, in types that JSON knows.
        table: rows of the split, whose columns `image` and `mask` hold paths.
    """

    def __init__(self, cache_dir: str | os.PathLike, name: str, options: Mapping[str, Any], table: Dataset) -> None:
        columns = [column for column in ("image", "mask", "id", "label", "date", "dates") if column in table.features]
        cells = table.with_format("arrow")[:].select(columns).to_pydict()
        self._rows = list(zip(*cells.values(), strict=True))
        self._places = [columns.index(column) for column in ("image", "mask") if column in columns]
        self._paths = [self._find_paths(row) for row in self._rows]
        self.is_of_files = all(path is not None for paths in self._paths for path in paths)
        # Where the files are is part of the name: two folders of equal names have a manifest each.
        first = [paths[:1] for paths in self._paths[:1]]
        key = hashlib.sha256(json.dumps([hash_code(), columns, options, first], sort_keys=True).encode()).hexdigest()
        slug = "".join(letter if letter.isalnum() else "_" for letter in name)
        self.path = Path(cache_dir).expanduser().absolute() / _FOLDER / f"{slug}-{key[:16]}.parquet"
        self.states: list[bytes] = []

    def _find_paths(self, row: Sequence[Any]) -> list[str | None]:
        cells = [
            cell for place in self._places for cell in (row[place] if isinstance(row[place], list) else [row[place]])
        ]
        return [None if cell["bytes"] is not None else cell["path"] for cell in cells if cell is not None]

    def find_unchanged(self) -> dict[int, ChipRecord]:
        """Give the records of the chips, by their index in the split, that are as they were when they were checked.

        Reads the state of every file; [`save`] writes it with the records, so that a file that changes while it is
        read counts as changed the next time.
        """
        if not self.is_of_files:
            return {}
        states = iter(read_file_states(str(path) for paths in self._paths for path in paths))
        self.states = []
        for row, paths in zip(self._rows, self._paths, strict=True):
            content = repr((row, [next(states) for _ in paths]))
            self.states.append(hashlib.sha256(content.encode(errors="surrogateescape")).digest())
        if not self.path.is_file():
            return {}
        try:
            table = pq.read_table(self.path, schema=_SCHEMA)
            columns = [table[name].to_pylist() for name in _SCHEMA.names[1:]]
            places = {state: place for place, state in enumerate(table["state"].to_pylist())}
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            logger.warning(
                f"{self.path}: expected what an earlier check of the chips found, found a damaged file "
                f"({str(error).splitlines()[0]}). Every chip is read, and the file made again."
            )
            return {}
        known = ((index, places[state]) for index, state in enumerate(self.states) if state in places)
        return {index: self._make_record(*(column[place] for column in columns)) for index, place in known}

    @staticmethod
    def _make_record(*cells: Any) -> ChipRecord:
        values: list[Any] = [tuple(cell) if isinstance(cell, list) else cell for cell in cells]
        return ChipRecord(*values)

    def save(self, records: Mapping[int, ChipRecord]) -> None:
        """Write records by index, whole or not at all; a cache that cannot be written is a warning."""
        if not self.is_of_files:
            return
        rows = [(self.states[index], *vars(record).values()) for index, record in records.items()]
        arrays = [
            pa.array(column, type=kind) for column, kind in zip(zip(*rows, strict=True), _SCHEMA.types, strict=True)
        ]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for part in self._find_leftovers():
                part.unlink(missing_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=f".{self.path.name}-", suffix=".tmp", dir=self.path.parent)
            os.close(handle)
            try:
                pq.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA), temporary, compression="zstd")
                os.replace(temporary, self.path)
            finally:
                Path(temporary).unlink(missing_ok=True)
        except OSError as error:
            logger.warning(
                f"{self.path.parent}: expected to keep what the check of the chips found, found: "
                f"{error.strerror or error}. The next start reads every chip again; decoded_cache_dir names another "
                "folder."
            )

    def _find_leftovers(self) -> Iterator[Path]:
        """Find what processes that were killed an hour ago or earlier left of this manifest."""
        for part in self.path.parent.glob(f".{self.path.name}-*.tmp"):
            with suppress(OSError):
                if part.stat().st_mtime < self.path.parent.stat().st_mtime - 3600:
                    yield part
