# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Folders of chips: listing and pairing files, reading lists of ids and days, and naming what is missing."""

import csv
import io
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import PurePosixPath
from typing import TypedDict

from datasets import DownloadConfig
from datasets.utils import logging
from datasets.utils.file_utils import xopen


logger = logging.get_logger(__name__)

DATA_SUFFIXES = (".tif", ".tiff", ".h5", ".csv", ".txt", ".geojson")
"""Endings of the files that datasets consist of."""
VECTOR_SUFFIXES = (".gpkg", ".shp", ".geojson", ".fgb", ".kml", ".gml", ".geoparquet")
"""Endings of files of polygons, which are no masks."""
_MAX_DEPTH = 8
_EXAMPLES = 5


class ChipRow(TypedDict, total=False):
    """One chip: its files by path, or its label, its id, country, and day or days as ISO text."""

    image: str | list[str]
    mask: str | None
    label: str | None
    id: str
    date: str | None
    dates: list[str | None]
    country: str | None


def list_files(folder: str) -> dict[str, str]:
    """List the files below a folder, sorted, by their path relative to it with forward slashes.

    Hidden files and folders are left out, and with them the `._*` copies that macOS puts beside each file. Links are
    followed, at most eight folders deep.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"Expected a folder of GeoTIFF files, found none at {folder}. Check the path.")
    found = {}
    for parent, folders, files in os.walk(folder, followlinks=True):
        relative = os.path.relpath(parent, folder)
        depth = 0 if relative == os.curdir else len(relative.split(os.sep))
        folders[:] = [name for name in folders if not name.startswith(".") and depth < _MAX_DEPTH]
        prefix = "" if depth == 0 else relative.replace(os.sep, "/") + "/"
        found.update({prefix + name: os.path.join(parent, name) for name in files if not name.startswith(".")})
    return dict(sorted(found.items()))


def read_text(path: str) -> str:
    """Read a small text file in UTF-8, with or without a byte order mark; in a stream also a remote one."""
    try:
        with xopen(path, "rb", download_config=DownloadConfig()) as file:
            content = file.read()
    except FileNotFoundError as error:
        if "://" in path:  # an address that cannot be reached; its caller says so
            raise
        raise FileNotFoundError(f"Expected a text file at {path}, found none. Check the option for it.") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8, found {error}. Save the file in UTF-8.") from error


def read_ids(path: str, suffixes: Iterable[str], keep_folders: bool = False) -> list[str]:
    """Read chip ids, one per line: an id, a file name, a path, or a csv row whose first field is one of these."""
    fields = (line.split(",")[0].strip().strip('"') for line in read_text(path).splitlines())
    return make_ids((name for name in fields if name), suffixes, keep_folders)


def read_chip_column(path: str | os.PathLike, name: str) -> Iterator[tuple[str, str]]:
    """Read the pairs of the columns `chip` and `name` of a .csv file; other columns are left aside.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A column is missing.
    """
    table = csv.DictReader(io.StringIO(read_text(os.path.expanduser(path))))
    missing = [column for column in ("chip", name) if column not in (table.fieldnames or ())]
    if missing:
        raise ValueError(
            f"{path}: expected the columns chip and {name} in the first line, found {table.fieldnames}: "
            f"{', '.join(missing)} missing. Add it."
        )
    for row in table:
        yield (row["chip"] or "").strip(), (row[name] or "").strip()


def normalize_name(name: str) -> str:
    """Write a file's name in the one form in which names are compared.

    An accented letter is one code point or, in copies from macOS, two; extensions come in capitals as well.
    """
    stem, dot, extension = unicodedata.normalize("NFC", name).rpartition(".")
    return stem + dot + (extension.lower() if dot else extension)


def make_ids(names: Iterable[str], suffixes: Iterable[str], keep_folders: bool = False) -> list[str]:
    """Make chip ids of ids, file names and paths; the longest suffix that fits is cut off, and by default folders."""
    endings = sorted(map(normalize_name, suffixes), key=len, reverse=True)
    paths = [PurePosixPath(name.replace("\\", "/")) for name in names]
    files = [normalize_name(str(path) if keep_folders else path.name) for path in paths]
    return [name.removesuffix(next((end for end in endings if name.endswith(end)), "")) for name in files]


def read_day(text: str, source: str) -> str | None:
    """Read a day, with or without a time of day, as ISO text; None where the text says that there is none."""
    text = text.strip()
    if text.lower() in ("", "nan", "nat", "none"):
        return None
    # 2022-06-21, 2022/6/21, 20220621 or, by the day of the year, 2022172; a time of day may follow.
    digits = re.split("[T ]", text)[0].replace("/", "-")
    form = {7: "%Y%j", 8: "%Y%m%d"}.get(len(digits), "") if digits.isdigit() else "%Y-%m-%d"
    try:
        day = datetime.strptime(digits, form).date()
        if not digits.startswith(f"{day.year:04}"):  # day 366 of a year without it
            raise ValueError(f"no such day in {digits[:4]}")
    except ValueError as error:
        raise ValueError(
            f"{source}: expected a day such as 2022-06-21 or, with the day of the year, 2022172, found {text!r}. "
            "Correct it, or take it away to go without dates."
        ) from error
    return day.isoformat()


def show_some(names: Collection[str]) -> str:
    """Write a collection of names for a message: all of a few, else the first of them."""
    shown = ", ".join(list(names)[:_EXAMPLES])
    return shown if len(names) <= _EXAMPLES else f"{shown}, ..."


def check_ids(ids: Sequence[str], found: Mapping[str, Collection[str]], source: str) -> None:
    """Check that a list names chips, each once, and that each has a file of each kind ("image", "mask")."""
    if not ids:
        raise ValueError(f"{source}: expected at least one chip, found none.")
    doubles = sorted({chip for chip in ids if ids.count(chip) > 1}) if len(set(ids)) < len(ids) else []
    if doubles:
        raise ValueError(
            f"{source}: expected each chip once, found {len(doubles)} listed again: {show_some(doubles)}."
        )
    missing = {kind: [chip for chip in ids if chip not in chips] for kind, chips in found.items()}
    report = [f"{len(chips)} without {kind} ({show_some(chips)})" for kind, chips in missing.items() if chips]
    if report:
        raise FileNotFoundError(
            f"{source}: expected {' and '.join(found)} of each of {len(ids)} chips, found {' and '.join(report)}. "
            "Add the missing files, or remove these chips from the dataset."
        )


def index_by_chip(files: Mapping[str, str], suffix: str) -> dict[str, str]:
    """Index the files that end in a suffix by the part of their name before it."""
    return {name.removesuffix(suffix): path for name, path in files.items() if name.endswith(suffix)}


def index_by_name(paths: Mapping[str, str], wanted: re.Pattern[str], data_dir: str) -> dict[str, str]:
    """Index the files whose own name matches a pattern by that name; two of one name are a ValueError."""
    named: dict[str, str] = {}
    for relative, path in paths.items():
        name = relative.rpartition("/")[2]
        if not wanted.fullmatch(name):
            continue
        if name in named:
            raise ValueError(
                f"{data_dir}: expected one file named {name}, found {named[name]} and {path}. Point data_dir at the "
                "copy to use."
            )
        named[name] = path
    return named


def find_folders(paths: Mapping[str, str], names: Sequence[str], data_dir: str) -> dict[str, dict[str, str]]:
    """Find the .tif files, {file name: path}, of folders of these names, wherever they are below the dataset's folder.

    A copy of the validation chips alone is enough to evaluate; a warning says what is missing.
    """
    found: dict[str, dict[str, dict[str, str]]] = {name: {} for name in names}
    for relative, path in paths.items():
        folder, _, file = relative.rpartition("/")
        name = folder.rpartition("/")[2]
        if name in found and file.endswith(".tif"):
            found[name].setdefault(folder, {})[file] = path
    missing = [name for name, places in found.items() if not places]
    if len(missing) == len(names):
        raise FileNotFoundError(
            f"{data_dir}: expected folders {' and '.join(names)} with .tif files, found none named "
            f"{' or '.join(missing)}. Point data_dir at the folder that holds them, or use geotiff_folder for files "
            "of your own."
        )
    if missing:
        logger.warning(f"{data_dir}: no folder {' or '.join(missing)} with .tif files, so its split is not offered.")
    for name, places in found.items():
        if len(places) > 1:
            raise ValueError(
                f"{data_dir}: expected one folder named {name}, found {' and '.join(places)}. Point data_dir at the "
                "copy to use."
            )
    return {name: next(iter(places.values())) for name, places in found.items() if places}
