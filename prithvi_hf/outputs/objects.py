# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Maps as objects of other packages: a DataArray of xarray, a GeoDataFrame of geopandas."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from prithvi_hf.models.prithvi.regression_map_prithvi import Quantity
from prithvi_hf.outputs.cog import NODATA_CLASS
from prithvi_hf.outputs.polygons import check_polygon_options, write_polygons
from prithvi_hf.outputs.vector_files import import_vector_package
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.warping import Grid


if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from xarray import DataArray


def make_data_array(
    pixels: np.ndarray, id2label: Mapping[int, str], crs: CRS | str | None, transform: Affine | None
) -> "DataArray":
    """Make a DataArray of classes (y, x), or of probabilities (class, y, x), as rioxarray reads and writes it.

    Names and values of the classes are in the attributes `flag_meanings` and `flag_values` of the CF conventions.
    """
    names = [str(id2label[index]) for index in sorted(id2label)]
    if pixels.ndim == 3:
        attributes = {"long_name": "probability of the class", "units": "1", "_FillValue": np.nan}
        return _place_array(pixels, "probabilities", attributes, crs, transform).assign_coords({"class": names})
    meanings = " ".join("_".join(name.split()) for name in names)
    values = np.arange(len(names), dtype=np.uint8)
    attributes = {"_FillValue": NODATA_CLASS, "flag_values": values, "flag_meanings": meanings, "long_name": "class"}
    return _place_array(pixels, "classes", attributes, crs, transform)


def make_value_array(
    values: np.ndarray, quantity: Quantity, crs: CRS | str | None, transform: Affine | None
) -> "DataArray":
    """Make a DataArray of values (y, x) as rioxarray reads and writes it, with their name and unit."""
    unit = {"units": quantity.unit} if quantity.unit else {}
    attributes = {"long_name": quantity.name, **unit, "_FillValue": np.nan}
    return _place_array(values, "values", attributes, crs, transform)


def _place_array(
    pixels: np.ndarray, title: str, attributes: Mapping[str, object], crs: CRS | str | None, transform: Affine | None
) -> "DataArray":
    """Make a DataArray (y, x) or (class, y, x), with the middles of pixels, and CRS and transform in `spatial_ref`."""
    try:
        xarray = import_module("xarray")
    except ImportError as error:
        raise ImportError(
            f"A DataArray needs the package xarray, which cannot be imported here ({error}): install it, "
            "pip install xarray rioxarray."
        ) from error
    height, width = pixels.shape[-2:]
    coordinates: dict[str, object] = {}
    if transform is not None:
        a, b, c, d, e, f = tuple(transform)[:6]
        if b == d == 0:  # else no coordinate belongs to a row or a column
            coordinates |= {"x": c + a * (np.arange(width) + 0.5), "y": f + e * (np.arange(height) + 0.5)}
        wkt = None if crs is None else CRS.from_user_input(crs).to_wkt()
        known = {} if wkt is None else {"crs_wkt": wkt, "spatial_ref": wkt}
        notes = {**known, "GeoTransform": " ".join(repr(float(number)) for number in (c, a, b, f, d, e))}
        coordinates["spatial_ref"] = xarray.Variable((), 0, notes)
    array = xarray.DataArray(pixels, coordinates, ("class", "y", "x")[-pixels.ndim :], title, attributes)
    if "spatial_ref" in coordinates:
        array.encoding["grid_mapping"] = "spatial_ref"
    return array


def make_geodataframe(
    class_map: str | os.PathLike,
    id2label: Mapping[int, str],
    crs: CRS | str | None,
    *,
    probabilities: str | os.PathLike | None = None,
    classes: Sequence[int | str] | None = None,
    min_area: float = 0.0,
) -> "GeoDataFrame":
    """Read the regions of a map file as a GeoDataFrame; columns and options are those of `write_polygons`."""
    geopandas = import_vector_package("geopandas")
    raster = GeoTiffRaster(class_map)
    grid = replace(Grid.of(raster), crs=None if crs is None else CRS.from_user_input(crs))
    check_polygon_options(grid, id2label, classes, min_area, name="The map")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "polygons.parquet"
        write_polygons(
            path, class_map, probabilities=probabilities, class_names=id2label, classes=classes, min_area=min_area
        )
        return geopandas.read_parquet(path)
