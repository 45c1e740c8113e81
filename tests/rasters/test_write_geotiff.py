# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The writer: what is written is read, and a file is there whole or not at all."""

import os

import numpy as np
import pytest

from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.write_geotiff import write_geotiff
from tests.raster_factory import reflectance, transform_at


def test_writer_round_trip(tmp_path):
    pixels = reflectance(2).astype(np.float32)
    path = tmp_path / "out.tif"
    write_geotiff(
        path,
        pixels,
        crs="EPSG:32630",
        transform=transform_at(),
        nodata=-9999,
        descriptions=("a", None),
        compress="lzw",
    )
    raster = GeoTiffRaster(path)
    np.testing.assert_array_equal(raster.read(), pixels)
    assert (raster.nodata, raster.descriptions, raster.crs.to_epsg()) == (-9999, ("a", None), 32630)
    write_geotiff(path, pixels[0], crs=None, transform=transform_at())
    assert GeoTiffRaster(path).shape == (1, 32, 32)
    assert os.listdir(tmp_path) == ["out.tif"]


def test_writer_leaves_nothing_behind_when_it_fails(tmp_path):
    path = tmp_path / "out.tif"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_geotiff(path, reflectance(1), crs="EPSG:4326", transform=transform_at())
    assert os.listdir(tmp_path) == ["out.tif"]


@pytest.mark.parametrize(("shape", "names"), [((2, 2, 2, 2), None), ((2, 4, 4), ("one",))])
def test_writer_refuses(tmp_path, shape, names):
    with pytest.raises(ValueError, match="expected"):
        write_geotiff(tmp_path / "a.tif", np.zeros(shape), crs=None, transform=transform_at(), descriptions=names)


def test_scale_offset_and_a_mask_go_into_the_file_itself(tmp_path):
    pixels, lost = np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.zeros((3, 4), dtype=bool)
    lost[1, 2] = True
    place = {"crs": "EPSG:32633", "transform": transform_at()}
    write_geotiff(tmp_path / "a.tif", pixels, tags=([0.5, 2.0], [0.0, -1.0]), nodata_mask=lost, **place)
    raster = GeoTiffRaster(tmp_path / "a.tif")
    assert (raster.scales, raster.offsets) == ((0.5, 2.0), (0.0, -1.0))
    np.testing.assert_array_equal(raster.read_nodata_mask(), lost)
    np.testing.assert_array_equal(raster.read(), pixels)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
