# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What Python users hold as rasters: xarray, open rasterio datasets, files in memory, arrays with a place.

xarray is not imported: its objects bring all that is asked of them. Where an array is and what its bands are called
stands in the places that rioxarray, stackstac and odc-stac write it to.
"""

import datetime
import math
import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import CRSError
from rasterio.io import DatasetReader

from prithvi_hf.models.prithvi.bands_prithvi import is_undescribed
from prithvi_hf.models.prithvi.pixel_values_prithvi import as_array
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.raster import ArrayRaster, Raster, measure_shift


_ROWS = ("y", "lat", "latitude", "northing", "row", "rows", "height")
_COLUMNS = ("x", "lon", "long", "longitude", "easting", "column", "columns", "col", "width")
_TIMES = ("time", "date", "dates", "datetime", "times", "t")
_SAME_PLACE = 0.01  # pixels: coordinates are rounded, the transform that an array also carries is exact


def as_raster(
    value: Any,
    *,
    crs: Any = None,
    transform: Sequence[float] | None = None,
    band_names: Sequence[str | None] | None = None,
    nodata: float | None = None,
) -> Raster:
    """Take one date of anything that holds pixels as a raster, which processor, pipeline and `predict_scene` take.

    Args:
        value: An array or tensor (bands, height, width); an `xarray.DataArray` or `Dataset` of one date; an open
            rasterio dataset or `WarpedVRT`; the path or the bytes of a GeoTIFF.
        crs: CRS of an array, in any form that rasterio reads: "EPSG:32633", a number, WKT, an object of pyproj.
        transform: Affine transform of an array, from (column, row) to coordinates of the CRS: six numbers in the order
            of `affine.Affine`.
        band_names: Names of an array's bands.
        nodata: Value of an array that means "no data".

    Raises:
        ValueError: The object holds several dates, lies nowhere where a place is needed, or says where it is itself.
        TypeError: An object that holds no pixels.
    """
    place = read_place(crs, transform)
    if hasattr(value, "__array__") and not hasattr(value, "dims") and not isinstance(value, Raster):
        values = as_array(value, "<array>")
        return ArrayRaster(values, descriptions=band_names, nodata=nodata, crs=place[0], transform=place[1])
    rasters = as_rasters(value)
    if len(rasters) != 1:
        raise ValueError(f"Expected one date, found {len(rasters)}: give them as a tuple of frames.")
    if any(option is not None for option in (crs, transform, band_names, nodata)):
        raise ValueError(
            f"{rasters[0].name}: expected crs, transform, band_names and nodata with an array, found them with "
            f"{type(value).__name__}, which says them itself. Leave them out, or write them into it."
        )
    return rasters[0]


def as_rasters(value: Any) -> list[Raster]:
    """Take an object that holds pixels as rasters, one for each date; see [`as_raster`]."""
    if isinstance(value, Raster):
        return [value]
    if hasattr(value, "dims") and (hasattr(value, "data_vars") or hasattr(value, "to_numpy")):
        return list(_take_xarray(_join_variables(value) if hasattr(value, "data_vars") else value))
    if isinstance(value, str | os.PathLike):
        return [GeoTiffRaster(value)]
    if isinstance(value, bytes | bytearray | memoryview):
        return [GeoTiffRaster(content=bytes(value))]
    if hasattr(value, "getbuffer"):  # a rasterio MemoryFile, an io.BytesIO
        return [GeoTiffRaster(content=bytes(value.getbuffer()))]
    if hasattr(value, "read_masks") and hasattr(value, "closed"):
        return [_take_dataset(value)]
    if hasattr(value, "shape"):
        return [ArrayRaster(as_array(value, "<array>"))]
    raise TypeError(
        "Expected the path or the bytes of a GeoTIFF, an opened raster or rasterio dataset, an xarray DataArray or "
        f"Dataset, or an array (bands, height, width), found {type(value).__name__}. A tuple holds the frames of one "
        "scene, a list several scenes. Files of one band each are a frame of `predict_scene` and of "
        '`pipe(..., output="map.tif")` alone.'
    )


def read_place(crs: Any, transform: Sequence[float] | None) -> tuple[CRS | None, Affine | None]:
    """Read a CRS and a transform in any of their forms; both or none."""
    if (crs is None) != (transform is None):
        given, missing = ("crs", "transform") if transform is None else ("transform", "crs")
        raise ValueError(f"Expected crs and transform together, found {given} alone. Give {missing} too.")
    if transform is None:
        return None, None
    numbers = tuple(float(number) for number in transform)[:6]
    if len(numbers) < 6 or not all(map(math.isfinite, numbers)) or numbers[0] * numbers[4] == numbers[1] * numbers[3]:
        raise ValueError(
            "transform: expected the six numbers of an affine transform (width of a pixel, 0, x of the upper left "
            f"corner, 0, minus its height, y of the corner), found {tuple(transform)}."
        )
    return _read_crs(crs), Affine(*numbers)


def _read_crs(crs: Any) -> CRS:
    try:
        return CRS.from_user_input(crs if isinstance(crs, str | dict | CRS) or hasattr(crs, "to_wkt") else int(crs))
    except (CRSError, TypeError, ValueError) as error:
        raise ValueError(f'crs: expected a CRS such as "EPSG:32633", found {crs!r} ({error}).') from error


def _take_dataset(dataset: DatasetReader) -> Raster:
    """Take an open rasterio dataset: by its file where it is a GeoTIFF as a whole, else by its pixels, read now."""
    name = str(dataset.name)
    if dataset.closed or "r" not in dataset.mode:
        found = "one that is closed" if dataset.closed else f"one opened to be written (mode {dataset.mode!r})"
        raise ValueError(f"{name}: expected an open rasterio dataset, found {found}. Open it again, or give its path.")
    if isinstance(dataset, DatasetReader) and dataset.driver == "GTiff" and os.path.isfile(name):
        raster = GeoTiffRaster(name)
        if raster.shape == (dataset.count, *dataset.shape):  # not one of its overviews
            return raster
    if dataset.gcps[0] or dataset.rpcs:
        raise ValueError(
            f"{name}: expected a dataset on a regular grid, found ground control points or RPCs instead of a "
            "transform. Warp it first, for example with `rasterio.vrt.WarpedVRT`."
        )
    # A warped dataset has an alpha band behind its own; the fourth of four bands may be called so without being one.
    count, flags, mask = dataset.count, dataset.mask_flag_enums[0], None
    if dataset.colorinterp[-1] == ColorInterp.alpha and not dataset.descriptions[-1] and count > 4:
        mask, count = dataset.read(count) == 0, count - 1
    elif MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        mask = dataset.read_masks(1) == 0
    return ArrayRaster(
        dataset.read(list(range(1, count + 1))),
        name=name,
        descriptions=dataset.descriptions[:count],
        nodata=dataset.nodata,
        nodata_mask=mask,
        crs=dataset.crs,
        transform=dataset.transform,
        tags=(dataset.scales[:count], dataset.offsets[:count]),
    )


def _join_variables(dataset: Any) -> Any:
    """Make one DataArray of a Dataset of xarray, whose variables are the bands."""
    notes = {name: one for name, one in dataset.data_vars.items() if one.ndim == 0}  # the CRS of a netCDF file
    dataset = dataset.assign_coords(notes)
    layers = {name: one for name, one in dataset.data_vars.items() if _find_dim(one, _ROWS)}
    tags = {name: _find_nodata(one, one.dtype) for name, one in layers.items()}
    if len({repr(tag) for tag in tags.values()}) != 1:
        raise ValueError(
            "Expected a Dataset with one variable of rows and columns for each band, of one nodata value, found "
            f"{tags or list(dataset.data_vars)}. Give only variables that are bands, as in `dataset[['red', 'nir']]`."
        )
    first, *others = (one.assign_attrs({**dataset.attrs, **one.attrs}) for one in layers.values())
    if not others:
        return first if "long_name" in first.attrs else first.assign_attrs(long_name=first.name)
    titles = []  # rioxarray's "band_1" has the name of the band beside it
    for name, one in layers.items():
        title = one.attrs.get("long_name") if is_undescribed([str(name)]) else name
        titles.append(title if isinstance(title, str) else str(name))
    joined = dataset[list(layers)].to_dataarray("variable").assign_coords(variable=titles)
    joined.encoding, joined.attrs = dict(first.encoding), dict(first.attrs)
    joined.attrs["scales"] = [_per_band(one, ("scale_factor",), 1, 1.0)[0] for one in layers.values()]
    joined.attrs["offsets"] = [_per_band(one, ("add_offset",), 1, 0.0)[0] for one in layers.values()]
    return joined


def _take_xarray(array: Any) -> Iterator[Raster]:
    """Take a DataArray of rows and columns, with or without bands and dates, in any order, date by date."""
    rows, columns, times = (_find_dim(array, known) for known in (_ROWS, _COLUMNS, _TIMES))
    title = array.name if isinstance(array.name, str) else "array"
    is_date = (dim for dim in array.dims if dim in array.coords and array[dim].dtype.kind == "M")
    times = next(is_date, None) if times is None else times
    rest = [dim for dim in array.dims if dim not in (rows, columns, times)]
    bands = [dim for dim in rest if array.sizes[dim] > 1] or rest[:1]
    if rows is None or columns is None or len(bands) > 1:
        raise ValueError(
            f"{title}: expected the dimensions of rows and columns (y and x, or latitude and longitude), one of bands "
            f"and perhaps one of time, found {tuple(map(str, array.dims))}. Rename them: `array.rename(...)`."
        )
    array = array.isel({dim: 0 for dim in rest if dim not in bands})
    values = as_array(array.transpose(*filter(None, (times, *bands, rows, columns))).to_numpy(), title)
    values = values.reshape(array.sizes[times] if times else 1, -1, *values.shape[-2:])  # (time, band, row, column)
    count, names = values.shape[1], _describe_bands(array, *bands)
    # What stands in the encoding instead of the attributes has been applied.
    scales = _per_band(array, ("scales", "scale_factor"), count, 1.0)
    offsets = _per_band(array, ("offsets", "add_offset"), count, 0.0)
    crs, transform = _find_place(array, rows, columns)
    known = times or "time"
    dates = np.atleast_1d(array.coords[known].values) if known in array.coords else [None] * len(values)
    for pixels, date in zip(values, dates, strict=True):
        raster = ArrayRaster(
            pixels,
            name=title,
            descriptions=names if names is not None and len(names) == count else None,
            nodata=_find_nodata(array, values.dtype),
            crs=crs,
            transform=transform,
            tags=(scales, offsets),
        )
        raster.date = _read_date(date)
        yield raster


def _find_dim(array: Any, known: Sequence[str]) -> Any:
    """Find a dimension by its usual names."""
    return next((dim for name in known for dim in array.dims if str(dim).lower() == name), None)


def _per_band(array: Any, keys: Sequence[str], count: int, default: float) -> list[float]:
    """Read an attribute that holds one number, or one for each band."""
    found = next((array.attrs[key] for key in keys if key in array.attrs), default)
    numbers = np.atleast_1d(found).astype(float).tolist()
    if len(numbers) not in (1, count):
        raise ValueError(
            f"{array.name}: expected one of {' or '.join(keys)} for each of {count} bands in the attributes, found "
            f"{len(numbers)}. Correct them with the bands that were selected, `array.assign_attrs(...)`."
        )
    return numbers * count if len(numbers) == 1 else numbers


def _describe_bands(array: Any, bands: Any = None) -> list[str | None] | None:
    """Find the names of a DataArray's bands: the texts along them, or else those of the file that it came from."""
    along = [] if bands is None else [array[name] for name in array.coords if array[name].dims == (bands,)]
    along.sort(key=lambda one: (one.name != bands, one.name != "common_name"))
    for texts in along:
        found = texts.values.tolist()
        if all(isinstance(text, str) for text in found) and not is_undescribed(found):
            return found
    names = next((array.attrs[key] for key in ("long_name", "descriptions", "band_names") if key in array.attrs), None)
    names = [names] if isinstance(names, str) else None if names is None else list(names)
    numbers = array[bands].values if bands in array.coords else np.atleast_1d(array.coords.get("band", 0))
    if names and numbers.dtype.kind in "iu" and numbers.min() >= 1 and numbers.max() <= len(names):
        return [names[number - 1] for number in numbers]  # bands that were selected, of a file whose names are kept
    return names


def _find_nodata(array: Any, dtype: np.dtype) -> float | None:
    """Find what means "no data": a value of the array's own, or of its encoding where that still holds."""
    sources = [array.attrs] if dtype.kind == "f" else [array.attrs, array.encoding]
    keys = ("_FillValue", "missing_value", "nodata", "nodatavals")
    found = [np.atleast_1d(source[key]) for source in sources for key in keys if source.get(key) is not None]
    return float(found[0][0]) if found and found[0].size and found[0][0] is not None else None


def _find_place(array: Any, rows: Any, columns: Any) -> tuple[CRS | None, Affine | None]:
    """Find CRS and transform as rioxarray, stackstac and odc-stac keep them: of the coordinates, if they tell."""
    mapping = array.encoding.get("grid_mapping") or array.attrs.get("grid_mapping") or "spatial_ref"
    notes = dict(array.coords[mapping].attrs) if mapping in array.coords else {}
    crs = next((notes[key] for key in ("crs_wkt", "spatial_ref") if notes.get(key)), None)
    if crs is None and "grid_mapping_name" in notes:  # of the CF conventions alone
        crs = import_module("pyproj").CRS.from_cf(notes)
    crs = crs or array.attrs.get("crs") or (array.coords["epsg"].values[()] if "epsg" in array.coords else None)
    numbers, transform = notes.get("GeoTransform"), None
    if numbers is not None:
        c, a, b, f, d, e = map(float, numbers.split() if isinstance(numbers, str) else numbers)
        transform = Affine(a, b, c, d, e, f)
    elif "transform" in array.attrs:
        transform = Affine(*map(float, tuple(array.attrs["transform"])[:6]))
    centres = [
        array[dim].values.astype(float) if dim in array.coords and array[dim].ndim == 1 else np.zeros(0)
        for dim in (rows, columns)
    ]
    if all(len(one) > 1 for one in centres):
        (down, first_row), (right, first_column) = (((one[-1] - one[0]) / (len(one) - 1), one[0]) for one in centres)
        for one, step in zip(centres, (down, right), strict=True):
            if step == 0 or abs(np.diff(one) / step - 1).max() > 0.05:
                raise ValueError(
                    f"{array.name}: expected coordinates at equal distances, found steps from "
                    f"{np.diff(one).min():g} to {np.diff(one).max():g}. Bring it to a regular grid, e.g. `interp`."
                )
        measured = Affine(right, 0.0, first_column - right / 2, 0.0, down, first_row - down / 2)
        size = (len(centres[0]), len(centres[1]))
        if transform is None or measure_shift((None, measured), (None, transform), size) > _SAME_PLACE:
            transform = measured
    return None if crs is None else _read_crs(crs), transform


def _read_date(value: Any) -> datetime.datetime | None:
    """Read a date of numpy, pandas, cftime or Python, in UTC; None where it is none."""
    if isinstance(value, np.datetime64):
        value = None if np.isnat(value) else value.astype("datetime64[s]").item()
    if not hasattr(value, "timetuple"):
        return None
    return datetime.datetime(*value.timetuple()[:6]).replace(tzinfo=datetime.UTC)
