# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Sentinel-2 L1C and L2A: the radiometric offset of a product, called BOA_ADD_OFFSET in its metadata.

Since processing baseline 04.00 (January 2022, and older scenes that were processed again) digital numbers are
`reflectance * 10,000 + 1,000`. A file of one band does not say so itself. What may tell: GeoTIFF scale and
offset tags; the item PROCESSING_BASELINE that GDAL copies from a product; the metadata file `MTD_MSIL2A.xml` in a
folder above; `_N0400_` in the product's name, in the file name or in a folder above. Where nothing does, the offset
has to be given.
"""

import os
import re
from pathlib import Path

from prithvi_hf.rasters.granules import PRODUCT_NAME


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

_PRODUCT = re.compile(PRODUCT_NAME)
_METADATA_NAMES = ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml")
_METADATA_BYTES = 2**22  # the baseline is in the first part, and a file may be of any size
_BASELINE_ELEMENT = re.compile(rb"<PROCESSING_BASELINE>\s*(\d{2})\.(\d{2})\s*</PROCESSING_BASELINE>")
# GRANULE/<granule>/IMG_DATA/R10m: the product's folder is four above the file's own.
_FOLDERS_ABOVE = 5


def find_offset(path: str | os.PathLike, item: str | None = None) -> int | None:
    """Find what has to be added to the digital numbers of a product before they are reflectance times 10,000.

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
        candidates = (folder / name for folder in Path(text).parents[:_FOLDERS_ABOVE] for name in _METADATA_NAMES)
        metadata = next((file for file in candidates if file.is_file()), None)
        if metadata is not None:
            with metadata.open("rb") as file:
                element = _BASELINE_ELEMENT.search(file.read(_METADATA_BYTES))
            if element:
                baselines[str(metadata)] = int(element[1] + element[2])
    for part in text.replace(os.sep, "/").split("/")[::-1][: _FOLDERS_ABOVE + 1]:
        product = _PRODUCT.search(part)
        if product:
            baselines[product[0]] = int(product["baseline"])
    offsets = {
        BASELINE_OFFSET if baseline >= _FIRST_BASELINE_WITH_OFFSET else 0
        for baseline in baselines.values()
        if baseline != _USER_BASELINE
    }
    if len(offsets) > 1:
        raise ValueError(
            f"{path}: expected one processing baseline, found several: "
            + ", ".join(f"{baseline:04} in {name}" for name, baseline in baselines.items())
            + f". Give boa_add_offset: {BASELINE_OFFSET} since 04.00, 0 before."
        )
    return next(iter(offsets), None)
