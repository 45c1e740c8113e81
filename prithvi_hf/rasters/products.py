# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What products say about their numbers and their pixels: HLS, Sentinel-2, Landsat, and their quality layers.

HLS holds reflectance times 10,000. Landsat Collection 2 Level 2 holds (reflectance + 0.2) / 0.0000275, and
temperatures by another formula; Level 1 needs the rescaling and the sun of its MTL file. Sentinel-2 holds reflectance
times 10,000, and since processing baseline 04.00 (January 2022, and older scenes that were processed again) that plus
1,000. A file of one band does not say so itself. What may tell: GeoTIFF scale and offset tags; the item
PROCESSING_BASELINE that GDAL copies from a product; the metadata file `MTD_MSIL2A.xml` in a folder above; `_N0400_` in
the product's name, in the file name or in a folder above. Where nothing does, the offset has to be given.
"""

import datetime
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prithvi_hf.rasters.granules import COPERNICUS_BROWSER, EARTH_ENGINE, FOLDERS_ABOVE, PRODUCT_NAME, LayerFile


HLS_NODATA = -9999
"""What stands for nodata in reflectance layers of HLS."""

DIGITAL_NUMBER_NODATA = 0
"""What stands for nodata in Sentinel-2, and in Landsat since Collection 2."""

REFLECTANCE_SCALE = 0.0001
"""Reflectance in one digital number of HLS and Sentinel-2."""

LANDSAT_REFLECTANCE, LANDSAT_TEMPERATURE = (0.0000275, -0.2), (0.00341802, 149.0)
"""Scale and offset of Landsat Collection 2 Level 2: reflectance, and surface temperature in kelvins."""


@dataclass(frozen=True)
class QualityLayer:
    """A layer beside the bands of a granule that says what each pixel shows.

    Attributes:
        layer: its name, as `LayerFile.layer` has it.
        kinds: kind of pixel to the bits that say so, or to the classes.
        fill: value of pixels that were not observed.
        has_classes: whether a pixel holds the number of one class, and not bits.
    """

    layer: str
    kinds: Mapping[str, tuple[int, ...]]
    fill: int
    has_classes: bool = False

    def find_flags(self, names: Sequence[str]) -> int | tuple[int, ...]:
        """Give the sum of the bits of kinds of pixels, or their classes, as `derived.MaskedRaster` takes them.

        Raises:
            ValueError: the layer knows nothing of a kind.
        """
        unknown = [name for name in names if name not in self.kinds]
        if unknown:
            raise ValueError(
                f"fmask: expected some of {', '.join(self.kinds)}, which the layer {self.layer} tells apart, found "
                f"{', '.join(unknown)}. Leave that out."
            )
        numbers = {number for name in names for number in self.kinds[name]}
        return tuple(sorted(numbers)) if self.has_classes else sum(1 << number for number in numbers)


PIXEL_KINDS = ("cirrus", "cloud", "adjacent", "shadow", "snow", "water")
"""Kinds of pixels that may be masked; "adjacent" is near clouds or their shadows."""

QUALITY_LAYERS = {
    # HLS user guide, version 2.0: bit 0 is reserved, and was cirrus before version 2.
    "HLS": QualityLayer(
        "Fmask", {"cirrus": (0,), "cloud": (1,), "adjacent": (2,), "shadow": (3,), "snow": (4,), "water": (5,)}, 255
    ),
    # ESA's scene classification: 3 cloud shadows, 6 water, 8 and 9 cloud of medium and high probability, 10 thin
    # cirrus, 11 snow or ice. It has no class for what is near a cloud.
    "Sentinel-2": QualityLayer(
        "SCL", {"cirrus": (10,), "cloud": (8, 9), "shadow": (3,), "snow": (11,), "water": (6,)}, 0, has_classes=True
    ),
    # USGS, Collection 2: bit 0 is fill, 1 is dilated cloud; bits 8 to 15 are confidences.
    "Landsat": QualityLayer(
        "QA_PIXEL", {"cirrus": (2,), "cloud": (3,), "adjacent": (1,), "shadow": (4,), "snow": (5,), "water": (7,)}, 1
    ),
}
"""Product to its quality layer."""

BASELINE_OFFSET = -1000
"""What has to be added to Sentinel-2 numbers since processing baseline 04.00."""

BASELINE_ITEM = "PROCESSING_BASELINE"
"""Metadata item that GDAL copies from a product into what it converts."""

OFFSET_ITEM = "BOA_ADD_OFFSET"
"""Metadata item by which a file itself says what has to be added to its Sentinel-2 numbers, as `fetch` writes it."""

_FIRST_BASELINE_WITH_OFFSET = 400
_FIRST_DAY_WITH_OFFSET = datetime.datetime(2022, 1, 25, tzinfo=datetime.UTC)
# Products made by the user with ESA's processor carry this number and say nothing by it.
_USER_BASELINE = 9999
_THERMAL_HLS_SCALE = 0.01  # degrees Celsius

_PRODUCT = re.compile(PRODUCT_NAME)
_METADATA_NAMES = ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml")
_METADATA_BYTES = 2**22  # what matters is in the first part, and a file may be of any size
_BASELINE_ELEMENT = re.compile(rb"<PROCESSING_BASELINE>\s*(\d{2})\.(\d{2})\s*</PROCESSING_BASELINE>")
# In text, JSON and XML.
_MTL_NUMBER = re.compile(rb"\b(REFLECTANCE_(?:MULT|ADD)_BAND_\d+|SUN_ELEVATION)\W+?(-?[\d.]+(?:E[+-]?\d+)?)")


class UnknownUnitsError(ValueError):
    """Nothing tells how the numbers of a product become reflectance; the message is what was found."""


def check_pixel_kinds(names: Sequence[str]) -> None:
    """Refuse names that are not those of kinds of pixels, see `PIXEL_KINDS`."""
    unknown = [name for name in names if name not in PIXEL_KINDS]
    if unknown:
        raise ValueError(f"fmask: expected some of {', '.join(PIXEL_KINDS)}, found {', '.join(map(repr, unknown))}.")


def find_formula(
    file: LayerFile, dtype: str, item: str | None = None, offset_item: str | None = None
) -> tuple[float, float] | None:
    """Find (scale, offset) of a file of a product: value = number * scale + offset.

    Args:
        file: what its name says; without a layer it holds all bands.
        dtype: type of its pixels. Floats are not the digital numbers that products are published in.
        item: its metadata item `BASELINE_ITEM`.
        offset_item: its metadata item `OFFSET_ITEM`, which counts before everything else.

    Returns:
        The formula; None where the numbers are no product's and nothing is claimed about them.

    Raises:
        UnknownUnitsError: the numbers are a product's, and nothing tells the formula.
        ValueError: two sources tell different ones.
    """
    thermal = (file.band or "").startswith("THERMAL") or (file.layer or "").startswith("ST_B")
    if file.product == "HLS":
        return None if dtype.startswith("float") else (_THERMAL_HLS_SCALE if thermal else REFLECTANCE_SCALE, 0.0)
    if file.product == "Landsat":
        return _find_landsat_formula(file, dtype, thermal)
    if file.level == COPERNICUS_BROWSER:
        if dtype.startswith("float"):
            return None  # reflectance
        raise UnknownUnitsError(
            f"a band of the Copernicus Browser in {dtype}, which scales reflectance to the range of the type (mostly "
            "by 65,535 or 255). Download the 32-bit float, or give rescale_factor and rescale_offset"
        )
    if offset_item is None:
        offset = find_offset(file.path, item)
    elif re.fullmatch(r"[-+]?\d{1,5}", offset_item.strip()):
        offset = int(offset_item)
    else:
        raise ValueError(
            f"{file.path}: expected a whole number in the metadata item {OFFSET_ITEM}, found {offset_item[:40]!r}. "
            "Correct it, e.g. with `gdal_edit.py -mo`, or give boa_add_offset."
        )
    if offset is None and file.level == EARTH_ENGINE and file.date < _FIRST_DAY_WITH_OFFSET:
        offset = 0
    if dtype.startswith("float"):
        raise UnknownUnitsError(f"pixels of {dtype}, which are not digital numbers")
    if offset is None:
        raise UnknownUnitsError("none in the names of files and folders, in a metadata file, or in the files' tags")
    if file.layer is None and offset != 0:  # whoever put the bands together may have applied it
        raise UnknownUnitsError("a file of several bands without scale and offset tags, made from such a product")
    return REFLECTANCE_SCALE, offset * REFLECTANCE_SCALE


def offset_of_baseline(baseline: str | None) -> int | None:
    """Give what has to be added to numbers of a processing baseline such as "05.09"; None for what is none."""
    found = re.fullmatch(r"(\d{2})\.(\d{2})", baseline or "")
    return None if found is None else _offset_of_number(int(found[1] + found[2]))


def _offset_of_number(baseline: int) -> int | None:
    """Give what has to be added to numbers of a processing baseline such as 509; None where that says nothing."""
    if baseline == _USER_BASELINE:
        return None
    return BASELINE_OFFSET if baseline >= _FIRST_BASELINE_WITH_OFFSET else 0


def find_nodata(files: Sequence[LayerFile | None]) -> float | None:
    """Find what stands for nodata in the reflectance layers of products; None for files of no product."""
    products = {(file.product, (file.layer or "").startswith(("sr_", "bt_"))) for file in files if file is not None}
    if not products:
        return None
    return HLS_NODATA if products & {("HLS", False), ("Landsat", True)} else DIGITAL_NUMBER_NODATA


def _find_landsat_formula(file: LayerFile, dtype: str, thermal: bool) -> tuple[float, float] | None:
    """Find scale and offset of a Landsat file."""
    layer, is_float = file.layer or "", dtype.startswith("float")
    if layer.startswith(("sr_", "bt_")):  # surface reflectance of Collection 1
        return None if is_float else (0.1 if thermal else REFLECTANCE_SCALE, 0.0)
    if file.level.startswith("L2") or layer.startswith(("SR_", "ST_")):
        if is_float or (file.layer is None and dtype != "uint16"):
            raise UnknownUnitsError(f"pixels of {dtype}, which are not digital numbers of a Landsat Level 2 product")
        return LANDSAT_TEMPERATURE if thermal else LANDSAT_REFLECTANCE
    if not file.level and (is_float or not layer):
        return None  # of Earth Engine, which names images of every level alike
    numbers: dict[str, float] = {}
    folder, text = Path(file.path).absolute().parent, os.path.abspath(file.path)
    for path in sorted(folder.glob("*_MTL.*")) if "://" not in os.fspath(file.path) else ():
        if path.name.rpartition("_MTL")[0] in text:
            with path.open("rb") as metadata:
                for name, number in reversed(_MTL_NUMBER.findall(metadata.read(_METADATA_BYTES))):
                    numbers[name.decode()] = float(number)
    code = "".join(re.findall(r"\d+", layer)[:1])
    wanted = (f"REFLECTANCE_MULT_BAND_{code}", f"REFLECTANCE_ADD_BAND_{code}", "SUN_ELEVATION")
    if is_float or thermal or not all(name in numbers for name in wanted) or numbers[wanted[2]] <= 0:
        raise UnknownUnitsError(
            "a Landsat image that is not of Level 2, without an MTL file beside it that gives rescaling and sun"
        )
    factor, term, elevation = (numbers[name] for name in wanted)
    sine = math.sin(math.radians(elevation))
    return factor / sine, term / sine


def find_offset(path: str | os.PathLike, item: str | None = None) -> int | None:
    """Find what has to be added to the digital numbers of a Sentinel-2 product to be reflectance times 10,000.

    `item` is the file's metadata item PROCESSING_BASELINE, such as "04.00". The answer is -1000 or 0, None where
    nothing tells.

    Raises:
        ValueError: two sources tell different offsets.
    """
    baselines: dict[str, int] = {}  # such as 400 for 04.00, by what says so
    stated = re.fullmatch(r"(\d{2})\.(\d{2})", item or "")
    if stated:
        baselines[f"the item {BASELINE_ITEM}"] = int(stated[1] + stated[2])
    text = os.fspath(path)
    if "://" not in text:
        text = os.path.abspath(text)
        candidates = (folder / name for folder in Path(text).parents[:FOLDERS_ABOVE] for name in _METADATA_NAMES)
        metadata = next((file for file in candidates if file.is_file()), None)
        if metadata is not None:
            with metadata.open("rb") as file:
                element = _BASELINE_ELEMENT.search(file.read(_METADATA_BYTES))
            if element:
                baselines[str(metadata)] = int(element[1] + element[2])
    for part in text.replace(os.sep, "/").split("/")[::-1][: FOLDERS_ABOVE + 1]:
        product = _PRODUCT.search(part)
        if product:
            baselines[product[0]] = int(product["baseline"])
    offsets = set(map(_offset_of_number, baselines.values())) - {None}
    if len(offsets) > 1:
        raise ValueError(
            f"{path}: expected one processing baseline, found several: "
            + ", ".join(f"{baseline:04} in {name}" for name, baseline in baselines.items())
            + f". Give boa_add_offset: {BASELINE_OFFSET} since 04.00, 0 before."
        )
    return next(iter(offsets), None)
