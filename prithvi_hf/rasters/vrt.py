# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""VRT files: mosaics and stacks of other files, described in XML.

A VRT can name any file and any driver of GDAL, addresses on the web, and programs to run. Only plain mosaics and
stacks of local GeoTIFFs are accepted, and GDAL sees one only after every file that it names has been checked.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import rasterio
from rasterio.io import DatasetReader
from rasterio.session import DummySession

from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.raster import GDAL_ERRORS, GeoTiffError


MAX_VRT_BYTES = 2**26
_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_VRT_ENABLE_RAWRASTERBAND": "NO",
    # One file of a mosaic after the other: a pool would keep them open after the read.
    "GDAL_MAX_DATASET_POOL_SIZE": "2",
}
# One pool of source files serves all VRTs of a process. GDAL refuses the reads of more threads than the pool has
# files, and tells of it, as of any fault of a source, while it holds the pool: the thread that tells waits for Python,
# which a thread that waits for the pool may hold. So one thread at a time has a VRT open, and none has at a fork.
_POOL = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_POOL.acquire, after_in_parent=_POOL.release, after_in_child=_POOL.release)
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
    """A VRT of local GeoTIFFs, see `GeoTiffRaster`; its `files` are the VRT and every file that it reads.

    `changes_numbers` says whether pixels are scaled between the files and the raster.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self._stats: dict[str, tuple[int, int]] = {}
        super().__init__(path)

    def _load_header(self, file_bytes: int, allow_missing_blocks: bool = False) -> None:
        sources = _list_sources(self.name, Path(self.name).absolute())
        self.changes_numbers = re.search(rb"<Scale(?:Ratio|Offset)", Path(self.name).read_bytes()) is not None
        for source in sources:
            GeoTiffRaster(source).check_blocks()  # whether it is one, and complete
        self.files = (str(self.path), *sources)
        self._stats = {file: _stat(file) for file in self.files}
        super()._load_header(sum(size for size, _ in self._stats.values()), allow_missing_blocks)

    def verify(self) -> None:
        """Check the blocks of every file that it reads; see `GeoTiffRaster`. Damage is an error at once."""
        for source in self.files[1:]:
            raster = GeoTiffRaster(source)
            raster.verify()
            raster.check_blocks()

    @contextmanager
    def _open(self) -> Iterator[DatasetReader]:
        for file in self.files:
            if not os.path.isfile(file):
                raise GeoTiffError(f"{self.name}: expected the file {file} that it reads, found none. Restore it.")
            if _stat(file) != self._stats[file]:
                raise GeoTiffError(f"{self.name}: {file} has changed since it was checked. Run again.")
        with _POOL, rasterio.Env(session=DummySession(), **_OPTIONS):
            try:
                dataset = DatasetReader(self.path, driver="VRT")
            except GDAL_ERRORS as error:
                raise GeoTiffError(
                    f"{self.name}: expected a VRT, found a file that cannot be opened ({error}). Make it again with "
                    "`gdalbuildvrt`."
                ) from error
            with dataset:
                yield dataset


def _stat(file: str) -> tuple[int, int]:
    stat = os.stat(file)
    return stat.st_size, stat.st_mtime_ns


def _list_sources(name: str, path: Path) -> list[str]:
    """Check what a VRT is made of, and list every file that it names."""
    if path.stat().st_size > MAX_VRT_BYTES:
        raise GeoTiffError(f"{name}: expected a VRT of at most {MAX_VRT_BYTES:,} bytes. Split the mosaic.")
    text = path.read_bytes()
    # Entities can make a small file large, and can name other files.
    if re.search(rb"<!(?:DOCTYPE|ENTITY)|\0", text, flags=re.IGNORECASE):
        raise GeoTiffError(f"{name}: expected a plain VRT, found a document type, entities or zeros. Make it again.")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - without entities nothing is expanded or included
    except ElementTree.ParseError as error:
        raise GeoTiffError(f"{name}: expected a VRT, found a file that is not XML ({error}).") from error
    sources: dict[str, None] = {}
    for element in root.iter():
        if element.tag not in _ELEMENTS or "subClass" in element.attrib or root.tag != "VRTDataset":
            kind = element.attrib.get("subClass", element.tag)
            raise GeoTiffError(
                f"{name}: expected a VRT that is a mosaic or stack of files, found {kind} in it. Convert it with "
                "`gdal_translate`."
            )
        if element.tag == "SourceFilename":
            source = (element.text or "").strip()
            file = path.parent / source if element.attrib.get("relativeToVRT", "0") == "1" else Path(source)
            if source.startswith("/vsi") or ":" in source or not file.is_absolute() or not file.is_file():
                raise GeoTiffError(
                    f"{name}: expected local GeoTIFF files in a VRT, found {source!r}. Restore or replace it."
                )
            sources[str(file)] = None
    return list(sources)
