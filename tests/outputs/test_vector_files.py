# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Files of polygons: their packages are optional, and no incomplete file is left."""

import builtins
import errno
import importlib

import pytest

from prithvi_hf.outputs.polygons import write_polygons
from tests.outputs.test_polygons import square_with_a_hole, write_map


def test_parquet_on_a_full_disk(tmp_path, monkeypatch):
    import pyarrow.parquet

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pyarrow.parquet.ParquetWriter, "write_table", fail)
    class_map = write_map(tmp_path / "map.tif", square_with_a_hole())
    with pytest.raises(OSError, match="No space left"):
        write_polygons(tmp_path / "p.parquet", class_map)
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.tif"]


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.gpkg.*\.parquet.*\.geojson.*found p\.shp"):
        write_polygons(tmp_path / "p.shp", tmp_path / "map.tif")


@pytest.mark.parametrize(("package", "suffix"), [("pyogrio", ".gpkg"), ("shapely", ".parquet"), ("pyproj", ".gpkg")])
def test_missing_packages_are_named_with_their_extra(tmp_path, monkeypatch, package, suffix):
    importer = importlib.import_module

    def missing(name, *arguments):
        if name == package:
            raise ImportError(f"No module named {name!r}")
        return importer(name, *arguments)

    monkeypatch.setattr("prithvi_hf.outputs.vector_files.import_module", missing)
    with pytest.raises(ImportError, match=rf"{package}.*`vector`.*prithvi_hf\[vector\]"):
        write_polygons(tmp_path / f"p{suffix}", tmp_path / "map.tif")


def test_importing_the_module_needs_none_of_the_packages(monkeypatch):
    importer = builtins.__import__

    def refuse(name, *arguments, **options):
        if name.partition(".")[0] in ("pyogrio", "shapely", "pyproj", "geopandas"):
            raise ImportError(name)
        return importer(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    importlib.reload(importlib.import_module("prithvi_hf.outputs.vector_files"))
