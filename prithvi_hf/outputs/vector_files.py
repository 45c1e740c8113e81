# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Files of polygons, written batch by batch: GeoPackage and GeoParquet."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from rasterio.crs import CRS


if TYPE_CHECKING:
    from pyarrow.parquet import ParquetWriter

LAYER = "polygons"
_GEOPARQUET_VERSION = "1.1.0"
_GEOPACKAGE_DATE = {"OGR_CURRENT_DATE": "1970-01-01T00:00:00.000Z"}
"""GeoPackage notes when a layer was changed last; with one date for all, the same scene gives the same bytes."""


def import_vector_package(name: str) -> ModuleType:
    """Import a package of the extra `vector`, or say in an ImportError how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"Polygons need the package {name}, which cannot be imported here ({error}): install the extra `vector`, "
            'pip install "prithvi_hf[vector]".'
        ) from error


def check_vector_path(path: str | os.PathLike) -> Path:
    """Refuse a file of polygons that cannot be written here, before any work is done for it.

    Raises:
        ValueError: If the suffix, which chooses the format, is not one of them.
        ImportError: If the packages of the extra `vector` are not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".gpkg", ".parquet"):
        raise ValueError(
            f"Polygons are written as GeoPackage (.gpkg) or GeoParquet (.parquet), found {path.name}: end its name in "
            "one of the two."
        )
    for name in ("shapely", "pyproj", *(["pyogrio"] if suffix == ".gpkg" else [])):
        import_vector_package(name)
    return path


@contextmanager
def open_vector_file(path: Path, crs: CRS) -> "Iterator[_GeoPackage | _GeoParquet]":
    """Lend a file of polygons; it is complete and checked when the block ends.

    Raises:
        OSError: If it cannot be written, or holds fewer polygons than were written.
    """
    make = _GeoPackage if check_vector_path(path).suffix.lower() == ".gpkg" else _GeoParquet
    file = make(path, crs)
    try:
        yield file
    finally:
        file.close()
    found = file.read_count()
    if found != file.count:
        raise OSError(f"{path}: expected {file.count} polygons in the file, found {found}: is the disk full?")


class _GeoPackage:
    """A GeoPackage of one layer."""

    def __init__(self, path: Path, crs: CRS) -> None:
        self._pyogrio = import_vector_package("pyogrio")
        self._shapely = import_vector_package("shapely")
        self._path, self._crs, self.count = path, crs.to_wkt(), 0

    def write(self, geometries: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
        """Append (N,) polygons and their columns; the first call makes the layer, with none of them too."""
        errors = self._pyogrio.errors
        self._pyogrio.set_gdal_config_options(_GEOPACKAGE_DATE)
        try:
            self._pyogrio.raw.write(
                self._path,
                self._shapely.to_wkb(geometries),
                list(columns.values()),
                list(columns),
                layer=LAYER,
                driver="GPKG",
                geometry_type="Polygon",
                crs=self._crs,
                append=self._path.exists(),
            )
        except (errors.DataSourceError, errors.DataLayerError, errors.FeatureError, errors.GeometryError) as error:
            raise OSError(f"{self._path.name}: the polygons cannot be written ({error}).") from error
        finally:
            self._pyogrio.set_gdal_config_options(dict.fromkeys(_GEOPACKAGE_DATE))
        self.count += len(geometries)

    def close(self) -> None:
        """Do nothing: no file is held open between batches."""

    def read_count(self) -> int:
        """Count the polygons in the file."""
        return int(self._pyogrio.read_info(self._path, layer=LAYER, force_feature_count=True)["features"])


class _GeoParquet:
    """A GeoParquet file: geometry as well-known binary, described by the metadata `geo`."""

    def __init__(self, path: Path, crs: CRS) -> None:
        self._arrow, self._parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
        self._shapely = import_vector_package("shapely")
        self._path, self._crs, self.count = path, crs.to_dict(projjson=True), 0
        self._writer: ParquetWriter | None = None
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])

    def write(self, geometries: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
        """Append (N,) polygons and their columns as one row group; names and types of the first call hold for all."""
        values = {name: self._arrow.array(column, from_pandas=True) for name, column in columns.items()}
        shapes = self._arrow.array(list(self._shapely.to_wkb(geometries)), type=self._arrow.binary())
        table = self._arrow.table({**values, "geometry": shapes})
        if self._writer is None:
            self._writer = self._parquet.ParquetWriter(self._path, table.schema, compression="zstd")
        self._writer.write_table(table)
        self.count += len(geometries)
        if len(geometries):
            bounds = self._shapely.total_bounds(geometries)
            self._bounds[:2] = np.minimum(self._bounds[:2], bounds[:2])
            self._bounds[2:] = np.maximum(self._bounds[2:], bounds[2:])

    def close(self) -> None:
        """Write what GeoParquet says of its geometry column, and the footer."""
        if self._writer is None:
            return
        column = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": self._crs}
        if self.count:
            column["bbox"] = self._bounds.tolist()
        geo = {"version": _GEOPARQUET_VERSION, "primary_column": "geometry", "columns": {"geometry": column}}
        self._writer.add_key_value_metadata({"geo": json.dumps(geo)})
        self._writer.close()

    def read_count(self) -> int:
        """Count the polygons in the file."""
        return self._parquet.read_metadata(self._path).num_rows
