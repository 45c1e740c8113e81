# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Files of one band each, sorted into the granules that they belong to by their names alone."""

import datetime
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prithvi_hf.rasters.hls import HLSName, parse_hls_name
from prithvi_hf.rasters.sentinel2 import Sentinel2Name, parse_sentinel2_name


SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class BandFile:
    """A file of one layer of a granule.

    Attributes:
        path: the file.
        name: what its name says.
    """

    path: str
    name: HLSName | Sentinel2Name


@dataclass(frozen=True)
class Granule:
    """One tile at one time by one sensor: the files of its layers.

    Attributes:
        name: what its files share.
        product: "HLS" or "Sentinel-2".
        tile: MGRS tile such as "10SEH".
        date: acquisition, UTC.
        files: its files, in the order of their names.
    """

    name: str
    product: str
    tile: str
    date: datetime.datetime
    files: tuple[BandFile, ...]

    def find_layer(self, layer: str) -> BandFile | None:
        """The file of a layer such as "Fmask"; None where there is none."""
        return next((file for file in self.files if (file.name.layer or "").lower() == layer.lower()), None)


def parse_band_file(path: str | os.PathLike) -> BandFile | None:
    """Reads the name of a file of one layer.

    Args:
        path: a path or URL.

    Returns:
        The file, None where its name is not that of a layer of an HLS or Sentinel-2 product.

    Raises:
        ValueError: such a name with a date that does not exist.
    """
    hls = parse_hls_name(path)
    if hls is not None:
        return BandFile(os.fspath(path), hls) if hls.layer is not None else None
    sentinel2 = parse_sentinel2_name(path)
    return None if sentinel2 is None else BandFile(os.fspath(path), sentinel2)


def find_date(path: str | os.PathLike) -> datetime.datetime | None:
    """The acquisition that a file's name states, whether it is one layer or a stack of bands.

    Args:
        path: a path or URL.

    Returns:
        UTC, None where the name states none.
    """
    name = parse_hls_name(path) or parse_sentinel2_name(path)
    return None if name is None else name.date


def group_granules(paths: Iterable[str | os.PathLike]) -> list[Granule]:
    """Sorts files of one layer each into granules.

    Args:
        paths: files with names of HLS or Sentinel-2 layers, in any order.

    Returns:
        The granules by time, and those of one time by name.

    Raises:
        ValueError: a file with another name, or two files of one layer in one resolution of a granule.
    """
    groups: dict[str, list[BandFile]] = {}
    for path in paths:
        file = parse_band_file(path)
        if file is None:
            raise ValueError(
                f"{os.fspath(path)}: expected the name of a file of one HLS or Sentinel-2 layer, such as "
                "HLS.S30.T10SEH.2018190T185921.v2.0.B02.tif. Restore the published name, or give the files of one "
                "date as a list of their own."
            )
        groups.setdefault(file.name.granule, []).append(file)
    granules = [_granule(name, files) for name, files in groups.items()]
    return sorted(granules, key=lambda granule: (granule.date, granule.name))


def list_band_files(folder: str | os.PathLike) -> list[str]:
    """Finds GeoTIFFs of one layer each in a folder and its subfolders.

    Args:
        folder: the folder of one granule or of several.

    Returns:
        Paths, sorted; hidden files and the `._*` files of macOS are left out.
    """
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(root, name) for name in files if not name.startswith(".")]
        found += [str(path) for path in paths if path.suffix.lower() in SUFFIXES and parse_band_file(path)]
    return sorted(found)


def _granule(name: str, files: Sequence[BandFile]) -> Granule:
    files = sorted(files, key=lambda file: os.path.basename(file.path))
    seen: dict[tuple[str | None, int | None], BandFile] = {}
    for file in files:
        key = (file.name.layer, getattr(file.name, "resolution", None))
        if key in seen:
            raise ValueError(
                f"{name}: expected one file of each layer, found {seen[key].path} and {file.path}. Leave one out."
            )
        seen[key] = file
    first = files[0].name
    product = "HLS" if isinstance(first, HLSName) else "Sentinel-2"
    return Granule(name, product, first.tile, first.date, tuple(files))


__all__ = ["SUFFIXES", "BandFile", "Granule", "find_date", "group_granules", "list_band_files", "parse_band_file"]
