# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Files of polygons, written batch by batch: GeoPackage, GeoParquet and GeoJSON."""

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
VECTOR_SUFFIXES = (".gpkg", ".parquet", ".geojson")
_ARROW_BATCH = 10_000  # polygons
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
    if suffix not in VECTOR_SUFFIXES:
        raise ValueError(
            "Polygons are written as GeoPackage (.gpkg), GeoParquet (.parquet) or GeoJSON (.geojson), found "
            f"{path.name}: end its name in one of the three."
        )
    for name in ("shapely", "pyproj", *([] if suffix == ".parquet" else ["pyogrio"])):
        import_vector_package(name)
    return path


@contextmanager
def open_vector_file(path: Path, crs: CRS) -> "Iterator[_GeoPackage | _GeoParquet]":
    """Lend a file of polygons; it is complete and checked when the block ends.

    Raises:
        OSError: If it cannot be written, or holds fewer polygons than were written.
    """
    makers: dict[str, type[_GeoPackage | _GeoParquet]]
    makers = {".gpkg": _GeoPackage, ".parquet": _GeoParquet, ".geojson": _GeoJson}
    file = makers[check_vector_path(path).suffix.lower()](path, crs)
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


class _GeoJson(_GeoPackage):
    """A GeoJSON file as RFC 7946 wants it, in degrees of WGS 84 and cut at 180; until its end a GeoPackage beside it.

    GDAL would hold all polygons in memory to append some to a GeoJSON file.
    """

    def __init__(self, path: Path, crs: CRS) -> None:
        super().__init__(path.with_name(f"{path.name}.gpkg"), crs)
        self._target = path

    def read_count(self) -> int:
        """Turn the GeoPackage into the file, some polygons at a time, and count those in the file."""
        raw, errors = self._pyogrio.raw, self._pyogrio.errors
        try:
            with raw.open_arrow(self._path, layer=LAYER, use_pyarrow=True, batch_size=_ARROW_BATCH) as (meta, batches):
                raw.write_arrow(
                    batches,
                    self._target,
                    layer=LAYER,
                    driver="GeoJSON",
                    geometry_name=meta["geometry_name"],
                    geometry_type="Unknown",  # what is cut at 180 degrees is a MultiPolygon
                    crs=meta["crs"],
                    layer_options={"RFC7946": "YES"},
                )
        except (errors.DataSourceError, errors.DataLayerError, errors.FeatureError, errors.GeometryError) as error:
            raise OSError(f"{self._target.name}: the polygons cannot be written ({error}).") from error
        self._path.unlink()
        self._path = self._target
        return super().read_count()


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
