# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Names of HLS and Sentinel-2 files, and the granules that files of one layer each belong to by their names alone.

A granule is one tile at one time by one sensor. Each of its layers is a file of its own, such as
`HLS.S30.T10SEH.2018190T185921.v2.0.B8A.tif`. The same code means different bands on the two sensors of HLS: the narrow
near infrared is B8A on S30 and B05 on L30, the two short-wave infrareds are B11 and B12, and B06 and B07.
"""

import datetime
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prithvi_hf.models.prithvi.bands_prithvi import SENSOR_BANDS, band_key


SUFFIXES = (".tif", ".tiff")

SENSORS = {"S30": "Sentinel-2 / HLS S30", "L30": "Landsat 8/9 / HLS L30", "MSI": "Sentinel-2 / HLS S30"}
"""Sensor to the key of `SENSOR_BANDS` that its codes are read with."""

PRODUCT_NAME = (
    r"S2[A-D]_MSI(?:L1C|L2A)_(?P<time>\d{8}T\d{6})_N(?P<baseline>\d{4})_R\d{3}_T(?P<tile>\d{2}[A-Z]{3})_\d{8}T\d{6}"
)
"""Name of a whole Sentinel-2 product."""

_LAYER = r"(?P<layer>B\d{2}|B8A|SCL|AOT|WVP|TCI|CLD|SNW|MSK[A-Z0-9_]*)(?:_(?P<resolution>10|20|60)m)?"
_HLS = re.compile(
    r"HLS\.(?P<sensor>[LS]30)\.T(?P<tile>\d{2}[A-Z]{3})\.(?P<time>\d{7}(?:T\d{6})?)\.v(?P<version>\d+\.\d+)"
    r"(?:\.(?P<layer>B\d{2}|B8A|Fmask|[SV][AZ]A))?(?=[._-]|$)"
)
_SENTINEL_2 = (
    re.compile(rf"(?:L2A_)?T(?P<tile>\d{{2}}[A-Z]{{3}})_(?P<time>\d{{8}}T\d{{6}})_{_LAYER}"),
    re.compile(rf"{PRODUCT_NAME}(?:\.SAFE)?[._-]{_LAYER}"),
    re.compile(rf"S2[A-D]_T?(?P<tile>\d{{1,2}}[A-Z]{{3}})_(?P<time>\d{{8}})_\d+_(?:L1C|L2A)[._/-]{_LAYER}"),
)


@dataclass(frozen=True)
class LayerFile:
    """What the name of an HLS or Sentinel-2 file says."""

    path: str
    product: Literal["HLS", "Sentinel-2"]
    sensor: str  # "L30" (Landsat 8 and 9) or "S30" (Sentinel-2) of HLS, "MSI" of Sentinel-2's own products
    tile: str  # MGRS, without the leading T, such as "10SEH"
    date: datetime.datetime  # of acquisition, UTC; midnight where the name gives no time
    granule: str  # what the files of one granule share
    layer: str | None = None  # "B02", "Fmask", "SCL", ...; None for a file that is not a single layer
    resolution: int | None = None  # side of a pixel in metres, where the name says it

    @property
    def band(self) -> str | None:
        """The layer's name among `bands_prithvi.CANONICAL_BANDS`; None for a layer that is not a band."""
        return None if self.layer is None else SENSOR_BANDS[SENSORS[self.sensor]].get(band_key(self.layer))


def parse_name(path: str | os.PathLike) -> LayerFile | None:
    """Read the name of an HLS file, or of a file of one Sentinel-2 band; None for another name.

    Such as `subsetted_512x512_HLS.S30.T10SEH.2018190.v1.4_merged.tif`, `T31TFJ_20220315T105751_B8A_20m.tif`,
    `S2A_MSIL2A_..._B02_10m.tif` or `S2B_31TFJ_20220315_0_L2A/B02.tif`, after any folders or as a URL.

    Raises:
        ValueError: such a name with a date or time that does not exist.
    """
    text = os.fspath(path).split("?")[0].replace(os.sep, "/")
    parts = re.sub(r"\.(?:tiff?|vrt)$", "", text, flags=re.IGNORECASE).split("/")
    found = _HLS.search(parts[-1])
    if found is not None:
        date = _parse_date(found["time"], "%Y%jT%H%M%S", "the year, the day of the year (001 to 366)", path)
        granule = f"HLS.{found['sensor']}.T{found['tile']}.{date:%Y%jT%H%M%S}.v{found['version']}"
        return LayerFile(os.fspath(path), "HLS", found["sensor"], found["tile"], date, granule, found["layer"])
    for name in (parts[-1], "/".join(parts[-2:])):
        for pattern in _SENTINEL_2:
            found = pattern.fullmatch(name)
            if found is not None:
                date = _parse_date(found["time"], "%Y%m%dT%H%M%S", "a date YYYYMMDD", path)
                tile, side = found["tile"].zfill(5), found["resolution"]
                granule = f"S2_T{tile}_{date:%Y%m%dT%H%M%S}"
                side = int(side) if side else None
                return LayerFile(os.fspath(path), "Sentinel-2", "MSI", tile, date, granule, found["layer"], side)
    return None


def _parse_date(text: str, form: str, expected: str, path: str | os.PathLike) -> datetime.datetime:
    """Read a date, and midnight where no time follows it."""
    try:
        date = datetime.datetime.strptime(text if "T" in text else f"{text}T000000", form)
    except ValueError:
        date = None
    # Day 366 of a common year reads as the first of the next.
    if date is None or date.year != int(text[:4]):
        raise ValueError(
            f"{os.fspath(path)}: expected {expected} and a time in its name, found {text}. Restore the name that the "
            "file was published under."
        )
    return date.replace(tzinfo=datetime.UTC)


def parse_layer(path: str | os.PathLike) -> LayerFile | None:
    """Read the name of a file of one layer; None where its name is not one of an HLS or Sentinel-2 layer."""
    file = parse_name(path)
    return file if file is not None and file.layer is not None else None


@dataclass(frozen=True)
class Granule:
    """One tile at one time by one sensor: the files of its layers."""

    name: str  # what its files share
    product: Literal["HLS", "Sentinel-2"]
    tile: str
    date: datetime.datetime
    files: tuple[LayerFile, ...]  # in the order of their names


def group_granules(paths: Iterable[str | os.PathLike]) -> list[Granule]:
    """Sort files of one layer each into granules by their names, in any order; the granules come by time.

    Raises:
        ValueError: a file with another name, or two files of one layer in one resolution of a granule.
    """
    groups: dict[str, dict[tuple[str | None, int | None], LayerFile]] = {}
    for path in sorted(paths, key=os.path.basename):
        file = parse_layer(path)
        if file is None:
            raise ValueError(
                f"{os.fspath(path)}: expected the name of a file of one HLS or Sentinel-2 layer, such as "
                "HLS.S30.T10SEH.2018190T185921.v2.0.B02.tif. Restore the published name, or give the files of one "
                "date as a list of their own."
            )
        first = groups.setdefault(file.granule, {}).setdefault((file.layer, file.resolution), file)
        if first is not file:
            raise ValueError(
                f"{file.granule}: expected one file of each layer, found {first.path} and {file.path}. Leave one out."
            )
    granules = []
    for name, layers in groups.items():
        files = tuple(layers.values())
        granules.append(Granule(name, files[0].product, files[0].tile, files[0].date, files))
    return sorted(granules, key=lambda granule: (granule.date, granule.name))


def list_geotiffs(folder: str | os.PathLike) -> list[str]:
    """List the GeoTIFFs of a folder and its subfolders, sorted.

    Hidden files and folders and the `._*` files of macOS are left out; links to folders are not followed.
    """
    found = []
    for root, folders, files in os.walk(os.fspath(folder)):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [str(Path(root, name)) for name in files if not name.startswith(".")]
    return sorted(path for path in found if path.lower().endswith(SUFFIXES))
