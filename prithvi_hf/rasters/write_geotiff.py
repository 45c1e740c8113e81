# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A small GeoTIFF writer for chips and masks; maps are written by `prithvi_hf.scenes`."""

import os
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetWriter, MemoryFile
from rasterio.session import DummySession

from prithvi_hf.rasters.raster import GDAL_ERRORS, GeoTiffError


# Arrays without georeference are ordinary input of the writer.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"prithvi_hf\.rasters\.write_geotiff$")


def write_geotiff(
    path: str | os.PathLike,
    array: np.ndarray,
    *,
    crs: CRS | str | dict[str, Any] | None,
    transform: Affine,
    nodata: float | None = None,
    descriptions: Sequence[str | None] | None = None,
    tags: tuple[Sequence[float], Sequence[float]] | None = None,
    nodata_mask: np.ndarray | None = None,
    **creation: Any,
) -> None:
    """Write an array as a GeoTIFF; the file appears under its name only when it is complete.

    Args:
        path (`str` or `os.PathLike`): the file to write; an existing one is replaced.
        array (`np.ndarray` of shape `(bands, height, width)` or `(height, width)`): pixels.
        crs (`rasterio.crs.CRS`, `str` or `dict`, *optional*): anything that rasterio takes for a CRS, or None.
        transform (`affine.Affine`): from (column, row) to coordinates of the CRS.
        nodata (`float`, *optional*): the nodata tag.
        descriptions (`Sequence[str | None]`, *optional*): a name for each band.
        tags (`tuple[Sequence[float], Sequence[float]]`, *optional*): scale and offset of each band.
        nodata_mask (`np.ndarray` of shape `(height, width)`, *optional*): bool, True where there is no data; becomes
            the file's mask.
        creation: creation options of GDAL's GTiff driver, such as `compress="lzw"`; deflate by default.

    Raises:
        ValueError: an array of another rank, another number of descriptions than of bands, or what GDAL cannot write.
    """
    pixels = np.asarray(array)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3:
        raise ValueError(
            f"{path}: expected an array (bands, height, width) or (height, width), found {np.shape(array)}."
        )
    count, height, width = pixels.shape
    if descriptions is not None and len(descriptions) != count:
        raise ValueError(f"{path}: expected {count} band descriptions, found {len(descriptions)}.")
    size = {"count": count, "height": height, "width": width, "dtype": pixels.dtype.name}
    profile = {**size, "crs": crs, "transform": transform, "nodata": nodata, "compress": "deflate", **creation}
    target = Path(path).absolute()
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    # Made in memory: GDAL does not report a disk that fills up as it closes a file, Python does.
    with rasterio.Env(session=DummySession(), GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as memory:
        try:
            with DatasetWriter(memory.name, "w", driver="GTiff", **profile) as dataset:
                dataset.write(pixels)
                if tags is not None:
                    dataset.scales, dataset.offsets = tags
                if nodata_mask is not None:
                    dataset.write_mask(~nodata_mask)
                for index, description in enumerate(descriptions or (), start=1):
                    if description is not None:
                        dataset.set_band_description(index, description)
        except GDAL_ERRORS as error:
            raise GeoTiffError(
                f"{path}: expected an array, CRS and options that GDAL can write, found: {error}. Change them."
            ) from error
        try:
            temporary.write_bytes(memory.getbuffer())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
