# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Sentinel-2 L1C and L2A: what names of files and folders say, and the radiometric offset of a product.

Since processing baseline 04.00 (January 2022, and older scenes that were processed again) digital numbers are
`reflectance * 10,000 + 1,000`. A file of one band does not say so itself. What may tell: GeoTIFF scale and
offset tags; the item PROCESSING_BASELINE that GDAL copies from a product; the metadata file `MTD_MSIL2A.xml` in a
folder above; `_N0400_` in the product's name, in the file name or in a folder above. Where nothing does, the offset
has to be given.
"""

import datetime
import os
import re
from dataclasses import dataclass
from pathlib import Path

from prithvi_hf.models.prithvi.bands_prithvi import SENSOR_BANDS, band_key


SENTINEL_2_NODATA = 0
"""Digital number of pixels without data."""

SENTINEL_2_SCALE = 0.0001
"""Reflectance in one digital number."""

BASELINE_OFFSET = -1000
"""What has to be added to digital numbers since processing baseline 04.00."""

BASELINE_ITEM = "PROCESSING_BASELINE"
"""Metadata item that GDAL copies from a product into what it converts."""

_FIRST_BASELINE_WITH_OFFSET = 400
# Products made by the user with ESA's processor carry this number and say nothing by it.
_USER_BASELINE = 9999

_LAYER = r"(?P<layer>B\d{2}|B8A|SCL|AOT|WVP|TCI|CLD|SNW|MSK[A-Z0-9_]*)(?:_(?P<resolution>10|20|60)m)?"
_PRODUCT = (
    r"(?P<satellite>S2[A-D])_MSI(?P<level>L1C|L2A)_(?P<time>\d{8}T\d{6})_N(?P<baseline>\d{4})_R\d{3}_T(?P<tile>\d{2}[A-Z]{3})"
    r"_\d{8}T\d{6}"
)
_PRODUCT_NAME = re.compile(_PRODUCT)
_FILE_NAMES = (
    re.compile(rf"(?:L2A_)?T(?P<tile>\d{{2}}[A-Z]{{3}})_(?P<time>\d{{8}}T\d{{6}})_{_LAYER}"),
    re.compile(rf"{_PRODUCT}(?:\.SAFE)?[._-]{_LAYER}"),
    re.compile(rf"S2[A-D]_T?(?P<tile>\d{{1,2}}[A-Z]{{3}})_(?P<time>\d{{8}})_\d+_(?P<level>L1C|L2A)[._/-]{_LAYER}"),
)
_METADATA_NAMES = ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml")
_METADATA_BYTES = 2**22
_BASELINE_ELEMENT = re.compile(rb"<PROCESSING_BASELINE>\s*(\d{2})\.(\d{2})\s*</PROCESSING_BASELINE>")
# GRANULE/<granule>/IMG_DATA/R10m: the product's folder is four above the file's own.
_FOLDERS_ABOVE = 5


@dataclass(frozen=True)
class Sentinel2Name:
    """What the name of a Sentinel-2 band file and the folders above it say.

    Attributes:
        tile: MGRS tile without the leading T.
        date: acquisition (start of the datatake), UTC; midnight where the name gives no time.
        layer: "B02", "SCL", ...
        resolution: side of a pixel in metres, where the name says it.
        level: "L1C" or "L2A", where something says it.
    """

    tile: str
    date: datetime.datetime
    layer: str
    resolution: int | None = None
    level: str | None = None

    @property
    def granule(self) -> str:
        """What the files of one granule share."""
        return f"S2_T{self.tile}_{self.date:%Y%m%dT%H%M%S}"

    @property
    def band(self) -> str | None:
        """The layer's name among `bands_prithvi.CANONICAL_BANDS`; None for a layer that is no band."""
        return SENSOR_BANDS["Sentinel-2 / HLS S30"].get(band_key(self.layer))


def parse_sentinel2_name(path: str | os.PathLike) -> Sentinel2Name | None:
    """Reads the name of a file of one Sentinel-2 band.

    Args:
        path: such as `T31TFJ_20220315T105751_B8A_20m.tif`, `S2A_MSIL2A_..._B02_10m.tif` or
            `S2B_31TFJ_20220315_0_L2A/B02.tif`.

    Returns:
        What it says, None for another name.

    Raises:
        ValueError: a Sentinel-2 name with a date that does not exist.
    """
    text = re.sub(r"\.(?:tiff?|vrt)$", "", os.fspath(path).split("?")[0], flags=re.IGNORECASE).replace(os.sep, "/")
    parts = text.split("/")
    candidates = (parts[-1], "/".join(parts[-2:]))
    matches = (pattern.fullmatch(name) for pattern in _FILE_NAMES for name in candidates)
    match = next((match for match in matches if match is not None), None)
    if match is None:
        return None
    found = match.groupdict()
    level = found.get("level") or next((product["level"] for product in _products_in(path)), None)
    resolution = int(found["resolution"]) if found["resolution"] else None
    return Sentinel2Name(found["tile"].zfill(5), _date(found["time"], path), found["layer"], resolution, level)


def find_offset(path: str | os.PathLike, item: str | None = None) -> int | None:
    """Finds what has to be added to the digital numbers of a product before they are reflectance times 10,000.

    Args:
        path: a band file.
        item: the file's metadata item PROCESSING_BASELINE, such as "04.00".

    Returns:
        -1000 or 0, None where nothing tells.

    Raises:
        ValueError: two sources tell different offsets.
    """
    baselines = _find_baselines(path, item)
    offsets = {name: _offset_of(baseline) for name, baseline in baselines.items() if baseline != _USER_BASELINE}
    if len(set(offsets.values())) > 1:
        raise ValueError(
            f"{path}: expected one processing baseline, found several: "
            + ", ".join(f"{baseline:04} in {name}" for name, baseline in baselines.items())
            + f". Give boa_add_offset: {BASELINE_OFFSET} since 04.00, 0 before."
        )
    return next(iter(offsets.values()), None)


def is_product_name(path: str | os.PathLike) -> bool:
    """Whether a file is named after a Sentinel-2 product.

    Args:
        path: a path or URL.

    Returns:
        True where the file's own name holds that of a product.
    """
    return _PRODUCT_NAME.search(os.path.basename(os.fspath(path))) is not None


def _find_baselines(path: str | os.PathLike, item: str | None) -> dict[str, int]:
    """Each place that tells a processing baseline, as a number such as 400 for 04.00."""
    found = {}
    stated = re.fullmatch(r"(\d{2})\.(\d{2})", item or "")
    if stated:
        found[f"the item {BASELINE_ITEM}"] = int(stated[1] + stated[2])
    metadata = _find_metadata(Path(path))
    text = _BASELINE_ELEMENT.search(_read_start(metadata)) if metadata else None
    if text:
        found[str(metadata)] = int(text[1] + text[2])
    for product in _products_in(path):
        found[product[0]] = int(product["baseline"])
    return found


def _offset_of(baseline: int) -> int:
    return BASELINE_OFFSET if baseline >= _FIRST_BASELINE_WITH_OFFSET else 0


def _products_in(path: str | os.PathLike) -> list[re.Match[str]]:
    """Product names in the file name and the folders above, the nearest first."""
    text = os.fspath(path) if "://" in os.fspath(path) else os.path.abspath(os.fspath(path))
    parts = text.replace(os.sep, "/").split("/")[::-1][: _FOLDERS_ABOVE + 1]
    return [match for match in map(_PRODUCT_NAME.search, parts) if match is not None]


def _find_metadata(path: Path) -> Path | None:
    """The metadata file of the product that a local file lies in."""
    if "://" in os.fspath(path) or ":/" in str(path)[:8]:
        return None
    folders = path.absolute().parents[:_FOLDERS_ABOVE]
    candidates = (folder / name for folder in folders for name in _METADATA_NAMES)
    return next((file for file in candidates if file.is_file()), None)


def _read_start(path: Path) -> bytes:
    """The beginning of a metadata file: the baseline stands in its first part, and a file may be of any size."""
    with path.open("rb") as file:
        return file.read(_METADATA_BYTES)


def _date(text: str, path: str | os.PathLike) -> datetime.datetime:
    form = "%Y%m%dT%H%M%S" if "T" in text else "%Y%m%d"
    try:
        return datetime.datetime.strptime(text, form).replace(tzinfo=datetime.UTC)
    except ValueError as error:
        raise ValueError(
            f"{path}: expected a date YYYYMMDD in a Sentinel-2 name, found {text}. Restore the name that the file was "
            "published under."
        ) from error


__all__ = [
    "BASELINE_ITEM",
    "BASELINE_OFFSET",
    "SENTINEL_2_NODATA",
    "SENTINEL_2_SCALE",
    "Sentinel2Name",
    "find_offset",
    "is_product_name",
    "parse_sentinel2_name",
]
