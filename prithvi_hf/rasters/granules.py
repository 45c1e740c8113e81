# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Names of HLS, Sentinel-2 and Landsat files, and the granules that files of one layer each belong to by their names.

A granule is one tile at one time by one sensor. Each of its layers is a file of its own, such as
`HLS.S30.T10SEH.2018190T185921.v2.0.B8A.tif`, or a file with a short name such as `B8A.tif` in a folder that is named
after the product. The same code means different bands on different sensors: the narrow near infrared is B8A on
Sentinel-2 and B5 on Landsat 8, which is a short-wave infrared on Landsat 7.
"""

import datetime
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prithvi_hf.models.prithvi.bands_prithvi import (
    LANDSAT,
    LANDSAT_TM,
    SENSOR_BANDS,
    SENTINEL_2,
    band_key,
    parse_band_description,
)
from prithvi_hf.rasters import TIFF_SUFFIXES


Product = Literal["HLS", "Sentinel-2", "Landsat"]

SENSORS = {
    **dict.fromkeys(("S30", "MSI"), SENTINEL_2),
    **dict.fromkeys(("L30", "LC08", "LC09", "LO08", "LO09"), LANDSAT),
    **dict.fromkeys(("LT04", "LT05", "LE07"), LANDSAT_TM),
}
"""Sensor to the key of `SENSOR_BANDS` that its codes are read with."""

PRODUCT_NAME = (
    r"S2[A-D]_MSI(?:L1C|L2A)_(?P<time>\d{8}T\d{6})_N(?P<baseline>\d{4})_R\d{3}_T(?P<tile>\d{2}[A-Z]{3})_\d{8}T\d{6}"
)
"""Name of a whole Sentinel-2 product."""

EARTH_ENGINE, COPERNICUS_BROWSER = "Earth Engine", "Copernicus Browser"
"""Where numbers that go by a product's name come from, if not from its own files."""

FOLDERS_ABOVE = 5
"""How far above a file the folder of its product may be: of GRANULE/<granule>/IMG_DATA/R10m it is four."""

_NO_DATE = datetime.datetime.max.replace(tzinfo=datetime.UTC)  # of files whose name says only what they are of
_FEWEST_BANDS = 3  # files called b1 and b2 may be anything
_BAND = r"[Bb]\d{1,2}[Aa]?"
# Landsat's are not bands where they say QA, name an angle, or are intermediate results of the temperature.
_LANDSAT_LAYER = (
    rf"(?:S[RT]_)?{_BAND}(?:_VCID_\d)?|(?:sr|bt)_band\d{{1,2}}|[A-Za-z_]*(?:QA|qa)(?:_[A-Z]+)?|"
    r"SR_ATMOS_OPACITY|ST_(?:ATRAN|CDIST|DRAD|EMIS|EMSD|TRAD|URAD)|[SV][AZ]A"
)
_SENTINEL_2_OTHERS = "SCL|AOT|WVP|TCI|CLD|SNW|MSK[A-Z0-9_]*"
_SENTINEL_2_LAYER = rf"(?P<layer>{_BAND}|{_SENTINEL_2_OTHERS})(?:_(?P<resolution>10|20|60)m)?"
_HLS_LAYER = rf"{_BAND}|Fmask|[SV][AZ]A"
_BEFORE_LAYER = r"(?:[._-]|[^/]*/)"
_END = r"(?=[._-]|$)"
# Product, where the numbers come from if not from its own files, and the form of a name.
_NAMES: tuple[tuple[Product, str, str], ...] = (
    (
        "HLS",
        "",
        r"HLS\.(?P<sensor>[LS]30)\.T(?P<tile>\d{2}[A-Z]{3})\.(?P<time>\d{7}(?:T\d{6})?)\.v(?P<version>\d+\.\d+)"
        rf"(?:(?:\.|[^/]*/)(?P<layer>{_HLS_LAYER}))?{_END}",
    ),
    (  # as AppEEARS names them: an area takes the place of the tile
        "HLS",
        "",
        rf"HLS(?P<sensor>[LS]30)\.(?P<version>\d{{3}})_(?P<layer>{_HLS_LAYER})_doy(?P<time>\d{{7}})(?:\d{{6}})?_"
        rf"(?P<tile>aid\d+){_END}",
    ),
    (  # L2SP and the like, or the region of analysis ready data; Earth Engine's names have neither
        "Landsat",
        "",
        r"(?P<sensor>L[CO]0[89]|LE07|LT0[45])(?:_(?P<level>L[12][A-Z]{2}|CU|AK|HI))?_(?P<tile>\d{6})_"
        r"(?P<time>\d{8})(?:(?:_\d{8})?_(?P<version>0[12])(?:_(?:T1|T2|RT))?)?"
        rf"(?:{_BEFORE_LAYER}(?P<layer>{_LANDSAT_LAYER}))?{_END}",
    ),
    (
        "Sentinel-2",
        "",
        rf"^(?:L2A_)?T(?P<tile>\d{{2}}[A-Z]{{3}})_(?P<time>\d{{8}}T\d{{6}})_{_SENTINEL_2_LAYER}$",
    ),
    ("Sentinel-2", "", rf"^{PRODUCT_NAME}(?:\.SAFE)?{_BEFORE_LAYER}{_SENTINEL_2_LAYER}$"),
    (
        "Sentinel-2",
        "",
        r"^S2[A-D]_T?(?P<tile>\d{1,2}[A-Z]{3})_(?P<time>\d{8}(?:T\d{6})?)(?:_\d+)?_(?:L1C|L2A)"
        rf"{_BEFORE_LAYER}{_SENTINEL_2_LAYER}$",
    ),
    (
        "Sentinel-2",
        EARTH_ENGINE,
        r"(?P<time>\d{8}T\d{6})_\d{8}T\d{6}_T(?P<tile>\d{2}[A-Z]{3})"
        rf"(?:{_BEFORE_LAYER}{_SENTINEL_2_LAYER})?{_END}",
    ),
    (  # colons do not survive in every file system
        "Sentinel-2",
        COPERNICUS_BROWSER,
        r"(?P<time>\d{4}-\d\d-\d\d)-\d\d[:_-]\d\d_\d{4}-\d\d-\d\d-\d\d[:_-]\d\d_Sentinel-2_L(?:1C|2A)_"
        rf"{_SENTINEL_2_LAYER}_\(Raw\){_END}",
    ),
)
_SHORT_NAME = re.compile(rf"(?:{_BAND}|{_SENTINEL_2_OTHERS})(?:_(?:10|20|60)m)?|{_HLS_LAYER}|{_LANDSAT_LAYER}")


@dataclass(frozen=True)
class StatedFile:
    """A file and what a catalogue such as STAC states of each of its bands; a path wherever one is expected."""

    path: str
    names: tuple[str | None, ...] = ()
    scales: tuple[float, ...] = ()  # value = number * scale + offset; empty where nothing is stated
    offsets: tuple[float, ...] = ()
    nodata: float | None = None
    origin: str = "the catalogue"  # where that is stated, for messages

    def __fspath__(self) -> str:
        return self.path

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class LayerFile:
    """What the name of an HLS, Sentinel-2 or Landsat file says."""

    path: str | os.PathLike
    product: Product
    sensor: str  # a key of `SENSORS`
    tile: str = ""  # MGRS without the leading T, such as "10SEH"; path and row of Landsat, or a name for the area
    date: datetime.datetime = _NO_DATE  # of acquisition, UTC; midnight where the name gives no time
    granule: str = ""  # what the files of one granule share
    layer: str | None = None  # "B02", "SR_B4", "Fmask", "SCL", ...; None for a file that is not a single layer
    resolution: int | None = None  # side of a pixel in metres, where the name says it
    level: str = ""  # "L2SP" and the like of Landsat; `EARTH_ENGINE` or `COPERNICUS_BROWSER`

    @property
    def band(self) -> str | None:
        """The layer's name among `bands_prithvi.CANONICAL_BANDS`; None for a layer that is not a band."""
        layer = (self.layer or "").lower().replace("band", "b")  # sr_band4 was SR_B4 once
        code = re.fullmatch(r"(?:[sb][rt]_)?(b\d{1,2}a?)(?:_vcid_\d)?", layer)
        return None if code is None else SENSOR_BANDS[SENSORS[self.sensor]].get(band_key(code[1]))


def parse_name(path: str | os.PathLike) -> LayerFile | None:
    """Read the name of a file of HLS, Sentinel-2 or Landsat; None for another name.

    Such as `subsetted_512x512_HLS.S30.T10SEH.2018190.v1.4_merged.tif`, `T31TFJ_20220315T105751_B8A_20m.tif`,
    `S2A_MSIL2A_..._B02_10m.tif`, `S2B_31TFJ_20220315_0_L2A/B02.tif` or `LC08_L2SP_..._02_T1_SR_B4.TIF`, after any
    folders or as a URL. A file of one layer with a short name belongs to the product that a folder above is named
    after.

    Raises:
        ValueError: such a name with a date or time that does not exist.
    """
    text = os.fspath(path).split("?")[0].replace(os.sep, "/")
    *folders, stem = re.sub(r"\.(?:tiff?|vrt)$", "", text, flags=re.IGNORECASE).split("/")
    names = [stem]
    if _SHORT_NAME.fullmatch(stem):
        names += [f"{folder}/{stem}" for folder in folders[: -FOLDERS_ABOVE - 1 : -1]]
    for name in names:
        for product, level, pattern in _NAMES:
            found = re.search(pattern, name)
            if found is None:
                continue
            parts = found.groupdict()
            date = _parse_date(parts["time"].replace("-", ""), path)
            level, side, sensor = parts.get("level") or level, parts.get("resolution"), parts.get("sensor", "MSI")
            tile = parts["tile"].zfill(5) if "tile" in parts else "".join(folders[-1:])
            if product == "HLS":
                place = tile if "aid" in tile else f"T{tile}"
                granule = f"HLS.{sensor}.{place}.{date:%Y%jT%H%M%S}.v{parts['version']}"
            elif product == "Sentinel-2":
                granule = f"S2_T{tile}_{date:%Y%m%dT%H%M%S}"
            else:
                granule = "_".join(filter(None, (sensor, level, tile, f"{date:%Y%m%d}", parts["version"])))
            kept = path if isinstance(path, StatedFile) else os.fspath(path)
            return LayerFile(
                kept, product, sensor, tile, date, granule, parts["layer"], int(side) if side else None, level
            )
    return None


def _parse_date(text: str, path: str | os.PathLike) -> datetime.datetime:
    """Read a date, YYYYDDD or YYYYMMDD, and the time after a T, or midnight."""
    day, _, time = text.partition("T")
    form, expected = "%Y%jT%H%M%S", "the year, the day of the year (001 to 366)"
    if len(day) == len("YYYYMMDD"):
        form, expected = "%Y%m%dT%H%M%S", "a date YYYYMMDD"
    try:
        date = datetime.datetime.strptime(f"{day}T{time or '000000'}", form)
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
    """Read the name of a file of one layer; None for another name."""
    file = parse_name(path)
    return file if file is not None and file.layer is not None else None


@dataclass(frozen=True)
class Granule:
    """One tile at one time by one sensor: the files of its layers."""

    name: str  # what its files share
    product: Product
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
                f"{os.fspath(path)}: expected the name of a file of one HLS, Sentinel-2 or Landsat layer, such as "
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
    return sorted(path for path in found if path.lower().endswith(TIFF_SUFFIXES))


def group_bands(paths: Iterable[str]) -> dict[str, list[str]]:
    """Sort files of one band each, which no product name explains but whose names are those of bands, by folder.

    Such as `B02.tif`, `B8A_20m.tif` or `red.tif`. A folder with fewer than three bands is left out; of a band in
    several resolutions the finest is taken.
    """
    folders: dict[str, dict[str, str]] = {}
    for path in sorted(paths):  # 10m comes before 20m and 60m
        label = parse_band_description(Path(path).stem)
        if band := label.code or label.plain:
            folders.setdefault(os.path.dirname(path), {}).setdefault(band, path)
    return {folder: list(bands.values()) for folder, bands in folders.items() if len(bands) >= _FEWEST_BANDS}
