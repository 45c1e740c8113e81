# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Tiles and bounds of maps of every kind; whole jobs are in test_app.py."""

import io

import numpy as np
import pytest
from affine import Affine
from PIL import Image
from rasterio.crs import CRS

from prithvi_hf.outputs.cog import write_value_map
from prithvi_hf.serving.results import NoTileError, find_bounds, find_zooms, render_tile
from tests.outputs.test_polygons import square_with_a_hole, write_map


def read_tile(*arguments):
    return np.array(Image.open(io.BytesIO(render_tile(*arguments))).convert("RGBA"))


def test_values_are_drawn_from_their_least_to_their_largest(tmp_path):
    values = np.tile(np.linspace(0, 200, 64, dtype=np.float32), (64, 1))
    values[:, :8] = np.nan
    place = {"crs": CRS.from_epsg(3857), "transform": Affine(100, 0, 0, 0, -100, 6400)}
    write_value_map(tmp_path / "map.tif", values, **place)
    statistics = {"min": float(np.nanmin(values)), "max": 200.0}
    tile = read_tile(tmp_path / "map.tif", 12, 2048, 2047, statistics)
    assert (tile[..., 3] == 0).any()
    seen = tile[tile[..., 3] > 0][:, :3]
    assert np.unique(seen, axis=0).shape[0] > 10
    assert seen[0].tolist() != seen[-1].tolist()
    same = read_tile(tmp_path / "map.tif", 12, 2048, 2047, {"min": None, "max": None})
    assert same.shape == (256, 256, 4)


@pytest.mark.parametrize(
    ("crs", "transform", "bounds"),
    [
        (CRS.from_epsg(4326), Affine(0.01, 0, 10, 0, -0.01, 60), [10, 58.5, 11.6, 60]),
        (CRS.from_epsg(4326), Affine(0.05, 0, 176, 0, -0.05, 60), [176, 52.5, 184, 60]),
        (CRS.from_epsg(32601), Affine(1000, 0, 250_000, 0, -1000, 7e6), None),
    ],
)
def test_bounds_are_in_degrees(tmp_path, crs, transform, bounds):
    class_map = write_map(tmp_path / "map.tif", square_with_a_hole(), crs, transform)
    found = find_bounds(class_map)
    if bounds is None:
        assert found[0] > 170 > -170 > found[2]  # across 180 degrees
    else:
        assert found == pytest.approx(bounds)
    least, most = find_zooms(class_map)
    assert 0 <= least <= most < 20


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_map_without_a_crs_has_no_tiles(tmp_path):
    class_map = write_map(tmp_path / "map.tif", square_with_a_hole(), None, None)
    assert find_bounds(class_map) is None
    for ask in (lambda: find_zooms(class_map), lambda: render_tile(class_map, 0, 0, 0)):
        with pytest.raises(NoTileError, match="without a CRS"):
            ask()


def test_files_beside_a_map_are_not_read(tmp_path):
    place = Affine(100, 0, 0, 0, -100, 15_000)
    class_map = write_map(tmp_path / "map.tif", square_with_a_hole(), CRS.from_epsg(3857), place)
    before = render_tile(class_map, 12, 2048, 2047)
    for suffix in ("aux.xml", "msk", "ovr"):
        (tmp_path / f"map.tif.{suffix}").write_bytes((tmp_path / "map.tif").read_bytes()[:1000])
    assert render_tile(class_map, 12, 2048, 2047) == before
