# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Listing folders of chips, reading id lists, and telling a user which files of a pair are missing."""

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from datasets.utils import logging


logger = logging.get_logger(__name__)

_MAX_DEPTH = 8
_EXAMPLES = 5
# What an image file of each public data set is called.
_PUBLIC_IMAGE_NAMES = {
    "sen1floods11": re.compile(r".+_S2Hand\.tif"),
    "hls_burn_scars": re.compile(r"subsetted_.+_merged\.tif"),
    "hls_irrigation_scenes": re.compile(r"scene_m\d+_.+\.tif"),
    "multi_temporal_crop": re.compile(r"chip_\d+_\d+_merged\.tif"),
}


def list_files(folder: str) -> dict[str, str]:
    """Lists the files below a folder, sorted, by their path relative to it with forward slashes.

    Hidden files and folders are left out, and with them the `._*` copies that macOS puts beside each file. Links are
    followed, at most eight folders deep.

    Raises:
        FileNotFoundError: the folder does not exist.
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


def public_datasets(paths: Iterable[str]) -> list[str]:
    """Names of the public data sets whose image files are among these.

    Args:
        paths (`Iterable[str]`): paths with forward slashes, as [`list_files`] gives them.
    """
    names = {path.rpartition("/")[2] for path in paths}
    return [name for name, pattern in _PUBLIC_IMAGE_NAMES.items() if any(map(pattern.fullmatch, names))]


def decode_text(content: bytes, path: str) -> str:
    """Decodes a small text file in UTF-8, with or without a byte order mark.

    Args:
        content (`bytes`): the file.
        path (`str`): its name, for the message.

    Raises:
        ValueError: it is no such text.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8, found {error}. Save the file in UTF-8.") from error


def parse_id_list(text: str, suffixes: Iterable[str]) -> list[str]:
    """Reads chip ids, one a line: an id, a file name, a path, or a csv row whose first field is one of these.

    Args:
        text (`str`): content of the list.
        suffixes (`Iterable[str]`): endings that make a file name of an id; the longest that fits is cut off.
    """
    fields = (line.split(",")[0].strip().strip('"') for line in text.splitlines())
    return to_ids((name for name in fields if name), suffixes)


def to_ids(names: Iterable[str], suffixes: Iterable[str]) -> list[str]:
    """Makes chip ids of ids, file names and paths.

    Args:
        names (`Iterable[str]`): what names the chips.
        suffixes (`Iterable[str]`): endings that make a file name of an id; the longest that fits is cut off.
    """
    endings = sorted(suffixes, key=len, reverse=True)
    return [strip_suffix(PurePosixPath(name.replace("\\", "/")).name, endings) for name in names]


def strip_suffix(name: str, suffixes: Sequence[str]) -> str:
    """Cuts the first fitting suffix off a name."""
    ending = next((suffix for suffix in suffixes if name.endswith(suffix)), "")
    return name[: len(name) - len(ending)]


def examples(names: Collection[str]) -> str:
    """Writes a collection of names for a message: all of a few, else the first of them."""
    shown = ", ".join(list(names)[:_EXAMPLES])
    return shown if len(names) <= _EXAMPLES else f"{shown}, ..."


def check_ids(ids: Sequence[str], found: Mapping[str, Collection[str]], source: str) -> None:
    """Checks that a list names chips, each once, and that each has all of its files.

    Args:
        ids (`Sequence[str]`): the chips that are wanted.
        found (`Mapping[str, Collection[str]]`): ids for which there is a file, by kind of file ("image", "mask").
        source (`str`): where the ids come from, for messages.

    Raises:
        ValueError: an empty list or an id listed twice.
        FileNotFoundError: chips without a file of each kind.
    """
    if not ids:
        raise ValueError(f"{source}: expected at least one chip, found none.")
    doubles = sorted({chip for chip in ids if ids.count(chip) > 1}) if len(set(ids)) < len(ids) else []
    if doubles:
        raise ValueError(f"{source}: expected each chip once, found {len(doubles)} listed again: {examples(doubles)}.")
    missing = {kind: [chip for chip in ids if chip not in chips] for kind, chips in found.items()}
    report = [f"{len(chips)} without {kind} ({examples(chips)})" for kind, chips in missing.items() if chips]
    if report:
        raise FileNotFoundError(
            f"{source}: expected {' and '.join(found)} of each of {len(ids)} chips, found {' and '.join(report)}. "
            "Add the missing files, or remove these chips from the data set."
        )


def find_folders(paths: Mapping[str, str], names: Sequence[str], data_dir: str) -> dict[str, dict[str, str]]:
    """Finds folders of GeoTIFF files by their own names, wherever they lie below the data set's folder.

    Args:
        paths (`Mapping[str, str]`): files by their path relative to `data_dir`, as [`list_files`] gives them.
        names (`Sequence[str]`): names of the folders.
        data_dir (`str`): folder of the data set, for messages.

    Returns:
        `dict[str, dict[str, str]]`: for each folder that is there its .tif files, {file name: path}. A copy of the
        validation chips alone is enough to evaluate; what is missing is said in a warning.

    Raises:
        FileNotFoundError: none of the folders is there and holds a .tif file.
        ValueError: two folders of one name.
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


def find_file(paths: Mapping[str, str], names: Sequence[str], data_dir: str) -> str | None:
    """Finds one file by any of its usual names, wherever it lies below the data set's folder; None if there is none.

    Args:
        paths (`Mapping[str, str]`): files by their path relative to `data_dir`.
        names (`Sequence[str]`): file names that it may have.
        data_dir (`str`): folder of the data set, for messages.

    Raises:
        ValueError: there are several.
    """
    found = [path for relative, path in paths.items() if relative.rpartition("/")[2] in names]
    if len(found) > 1:
        raise ValueError(
            f"{data_dir}: expected one file named {' or '.join(names)}, found {' and '.join(found)}. Remove all but "
            "one, or point data_dir at the copy to use."
        )
    return found[0] if found else None


def by_chip(files: Mapping[str, str], suffix: str) -> dict[str, str]:
    """Indexes the files that end in a suffix by the part of their name before it."""
    return {name.removesuffix(suffix): path for name, path in files.items() if name.endswith(suffix)}
