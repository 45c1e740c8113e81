# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Tiles and bounds of maps of every kind; whole jobs are in test_app.py."""

import io

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from rio_tiler.io import Reader

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


def read_map_at_tile(path, z, x, y):
    """The colours of a tile, pixel by pixel through pyproj, and which pixels are clear of an edge of the map's."""
    half = 20037508.342789244
    side = 2 * half / 2**z
    centres = (np.arange(256) + 0.5) * side / 256
    east, north = np.meshgrid(-half + x * side + centres, half - y * side - centres)
    with rasterio.open(path) as dataset:
        values, table = dataset.read(1), dataset.colormap(1)
        to_map = pyproj.Transformer.from_crs(3857, dataset.crs.to_wkt(), always_xy=True)
        left, _, _, top = dataset.bounds
        east, north = to_map.transform(east, north)
        if dataset.crs.is_geographic:  # a map may go beyond 180 degrees
            east = np.where(east < left, east + 360, np.where(east > dataset.bounds.right, east - 360, east))
        columns, rows = (east - left) / dataset.res[0], (top - north) / dataset.res[1]
        assert dataset.nodata == 255
    inside = (columns >= 0) & (rows >= 0) & (columns < values.shape[1]) & (rows < values.shape[0])
    found = np.full((256, 256), 255)
    found[inside] = values[rows[inside].astype(int), columns[inside].astype(int)]
    colors = np.array([table[value] for value in range(255)] + [(0, 0, 0, 0)], np.uint8)[found]
    clear = np.minimum(np.abs(columns - np.round(columns)), np.abs(rows - np.round(rows))) > 0.2
    return colors, clear


@pytest.mark.parametrize(
    ("crs", "transform", "z", "tiles"),
    [
        (CRS.from_epsg(32633), Affine(10, 0, 399_960, 0, -10, 5_300_040), 15, [(17628, 11412), (17629, 11412)]),
        (CRS.from_epsg(32733), Affine(10, 0, 399_960, 0, -10, 5_300_040), 13, [(4409, 5164), (4410, 5164)]),
        (CRS.from_epsg(4326), Affine(0.01, 0, 10, 0, -0.01, 60), 9, [(270, 150), (271, 150), (272, 150)]),
        (CRS.from_epsg(3857), Affine(100, 0, 0, 0, -100, 15_000), 13, [(4096, 4094), (4099, 4094)]),
        (CRS.from_epsg(32601), Affine(1000, 0, 250_000, 0, -1000, 7e6), 7, [(127, 35), (0, 35)]),
        (CRS.from_epsg(4326), Affine(0.05, 0, 176, 0, -0.05, 60), 7, [(126, 37), (127, 37), (0, 37), (1, 37)]),
        (CRS.from_epsg(4269), Affine(0.05, 0, -184, 0, -0.05, 60), 5, [(31, 9), (0, 9)]),
        (CRS.from_epsg(4326), Affine(2.25, 0, 0, 0, -0.5, 76), 1, [(0, 0), (1, 0)]),  # 0 to 360 degrees
    ],
)
def test_each_pixel_of_a_tile_has_the_colour_of_the_map_there(tmp_path, crs, transform, z, tiles):
    mask = np.random.default_rng(0).choice([0, 1, 2, 255], (15, 16)).repeat(10, 0).repeat(10, 1).astype(np.uint8)
    class_map = write_map(tmp_path / "map.tif", mask, crs, transform)
    for x, y in tiles:
        tile = read_tile(class_map, z, x, y)
        expected, clear = read_map_at_tile(class_map, z, x, y)
        assert 0.02 < (expected[..., 3] > 0).mean() < 1
        assert np.array_equal(tile[..., 3][clear], expected[..., 3][clear])
        seen = clear & (expected[..., 3] > 0)
        assert np.array_equal(tile[seen], expected[seen])
    for tile in ((z, tiles[0][0], 2**z - 1), (25, 0, 0), (z, 2**z, 0), (z, 0, -1), (-1, 0, 0)):
        with pytest.raises(NoTileError, match=r"does not touch|in the grid"):
            render_tile(class_map, *tile)


@pytest.mark.parametrize(
    ("crs", "transform", "zooms"),
    [
        (CRS.from_epsg(32633), Affine(10, 0, 399_960, 0, -10, 5_300_040), (11, 13)),
        (CRS.from_epsg(32733), Affine(10, 0, 399_960, 0, -10, 5_300_040), (11, 13)),
        (CRS.from_epsg(4326), Affine(0.001, 0, 10, 0, -0.001, 60), (8, 10)),
        (CRS.from_epsg(3857), Affine(100, 0, 0, 0, -100, 15_000), (9, 11)),
        (CRS.from_epsg(32601), Affine(10, 0, 198_000, 0, -10, 7e6), (11, 13)),  # across 180 degrees
        (CRS.from_epsg(4326), Affine(0.001, 0, 179.8, 0, -0.001, 60), (8, 10)),
    ],
)
def test_zooms_are_those_of_the_whole_map_and_of_its_pixels(tmp_path, crs, transform, zooms):
    class_map = write_map(tmp_path / "map.tif", np.zeros((700, 800), np.uint8), crs, transform)
    if find_bounds(class_map)[0] < find_bounds(class_map)[2] < 180:
        with Reader(class_map) as reader:
            assert find_zooms(class_map) == (reader.minzoom, reader.maxzoom)
    assert find_zooms(class_map) == zooms


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


def test_one_tile_shows_both_ends_of_a_map_across_180_degrees(tmp_path):
    mask = np.full((80, 160), 1, np.uint8)
    class_map = write_map(tmp_path / "map.tif", mask, CRS.from_epsg(4326), Affine(0.05, 0, 176, 0, -0.05, 60))
    seen = read_tile(class_map, 2, 3, 1)[..., 3] > 0, read_tile(class_map, 2, 0, 1)[..., 3] > 0
    assert seen[0][:, -11:].any(0).all()  # 4 of the 90 degrees of a tile, on either side
    assert seen[1][:, :11].any(0).all()
    assert not seen[0][:, :240].any()
    assert not seen[1][:, 16:].any()
    world = read_tile(class_map, 0, 0, 0)[..., 3] > 0
    assert world[:, :2].any()
    assert world[:, -2:].any()
    assert not world[:, 4:-4].any()


def test_files_beside_a_map_are_not_read(tmp_path):
    place = Affine(100, 0, 0, 0, -100, 15_000)
    class_map = write_map(tmp_path / "map.tif", square_with_a_hole(), CRS.from_epsg(3857), place)
    before = render_tile(class_map, 12, 2048, 2047)
    for suffix in ("aux.xml", "msk", "ovr"):
        (tmp_path / f"map.tif.{suffix}").write_bytes((tmp_path / "map.tif").read_bytes()[:1000])
    assert render_tile(class_map, 12, 2048, 2047) == before
