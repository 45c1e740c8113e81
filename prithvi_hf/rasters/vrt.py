# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""VRT files: mosaics and stacks of other files, described in XML.

A VRT can name any file and any driver of GDAL, addresses on the web, and programs to run. Only plain mosaics and
stacks of local GeoTIFFs are accepted, and GDAL sees one only after every file that it names has been checked.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.session import DummySession

from prithvi_hf.rasters.geotiff_raster import GeoTiffError, GeoTiffRaster
from prithvi_hf.rasters.tiff_layout import find_tiff_fault


MAX_VRT_BYTES = 2**26
_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_VRT_ENABLE_RAWRASTERBAND": "NO",
    # One file of a mosaic after the other: a pool would keep them open after the read.
    "GDAL_MAX_DATASET_POOL_SIZE": "2",
}
# What a plain mosaic or stack is made of; everything that computes or includes is left out on purpose.
_ELEMENTS = {
    *("VRTDataset", "SRS", "GeoTransform", "Metadata", "MDI", "VRTRasterBand", "ColorInterp", "NoDataValue"),
    *("Description", "CategoryNames", "Category", "ColorTable", "Entry", "UnitType", "Offset", "Scale", "Histograms"),
    *("HistItem", "HistMin", "HistMax", "BucketCount", "IncludeOutOfRange", "Approximate", "HistCounts"),
    *("SimpleSource", "ComplexSource", "SourceFilename", "SourceBand", "SourceProperties", "SrcRect", "DstRect"),
    *("NODATA", "ScaleOffset", "ScaleRatio", "HideNoDataValue", "OverviewList", "MaskBand", "BlockXSize"),
    *("BlockYSize", "UseMaskBand"),
}


class VirtualRaster(GeoTiffRaster):
    """A VRT of local GeoTIFFs; see `GeoTiffRaster`.

    Args:
        path: the VRT.

    Attributes:
        files: the VRT and every file that it reads.

    Raises:
        GeoTiffError: the file is no VRT, is more than a mosaic or stack, or names what is no complete local GeoTIFF.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.files: tuple[str, ...] = ()
        super().__init__(path)

    def _check(self) -> None:
        self.files = (self.path, *_check_vrt(self.name, Path(self.path)))

    def _file_bytes(self) -> int:
        return sum(os.path.getsize(file) for file in self.files)

    @contextmanager
    def _open(self) -> Iterator[DatasetReader]:
        self._check()
        with rasterio.Env(session=DummySession(), **_OPTIONS):
            try:
                dataset = DatasetReader(self.path, driver="VRT")
            except RasterioError as error:
                raise GeoTiffError(
                    f"{self.name}: expected a VRT, found a file that cannot be opened ({error}). Make it anew with "
                    "`gdalbuildvrt`."
                ) from error
            with dataset:
                yield dataset


def _check_vrt(name: str, path: Path) -> list[str]:
    """Checks what a VRT is made of.

    Returns:
        Every file that it names.
    """
    root = _parse(name, path)
    for element in root.iter():
        if element.tag not in _ELEMENTS or "subClass" in element.attrib:
            kind = element.attrib.get("subClass", element.tag)
            raise GeoTiffError(
                f"{name}: expected a VRT that is a mosaic or stack of files, found {kind} in it. Convert it with "
                "`gdal_translate`."
            )
    return list(dict.fromkeys(_check_source(name, path, element) for element in root.iter("SourceFilename")))


def _parse(name: str, path: Path) -> ElementTree.Element:
    if path.stat().st_size > MAX_VRT_BYTES:
        raise GeoTiffError(f"{name}: expected a VRT of at most {MAX_VRT_BYTES:,} bytes. Split the mosaic.")
    text = path.read_bytes()
    # Entities can make a small file large, and can name other files.
    if re.search(rb"<!(?:DOCTYPE|ENTITY)|\0", text, flags=re.IGNORECASE):
        raise GeoTiffError(f"{name}: expected a plain VRT, found a document type, entities or zeros. Make it anew.")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - without entities nothing is expanded or included
    except ElementTree.ParseError as error:
        raise GeoTiffError(f"{name}: expected a VRT, found a file that is no XML ({error}).") from error
    if root.tag != "VRTDataset":
        raise GeoTiffError(f"{name}: expected a VRT, found {root.tag}.")
    return root


def _check_source(name: str, path: Path, element: ElementTree.Element) -> str:
    source = (element.text or "").strip()
    relative = element.attrib.get("relativeToVRT", "0") == "1"
    file = path.parent / source if relative else Path(source)
    if source.startswith("/vsi") or ":" in source or not file.is_absolute() or not file.is_file():
        raise GeoTiffError(f"{name}: expected local GeoTIFF files in a VRT, found {source!r}. Restore or replace it.")
    with file.open("rb") as content:
        fault = find_tiff_fault(content, file.stat().st_size)
    if fault is not None:
        raise GeoTiffError(f"{name}: expected GeoTIFF files in a VRT, found {fault} in {file}. Copy it again.")
    return str(file)


__all__ = ["MAX_VRT_BYTES", "VirtualRaster"]
