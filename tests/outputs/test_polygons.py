# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Polygons of maps, against independent arithmetic: pyproj's geodesics, shapely, and a flood fill in plain Python."""

import json
import time

import geopandas
import numpy as np
import pyogrio
import pyproj
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import shapes

from prithvi_hf.outputs import polygons
from prithvi_hf.outputs.cog import write_class_map, write_probabilities
from prithvi_hf.outputs.polygons import (
    check_polygon_options,
    label_regions,
    measure_pixels,
    read_class_names,
    write_polygons,
)
from prithvi_hf.rasters.warping import Grid
from prithvi_hf.rasters.write_geotiff import write_geotiff


UTM = CRS.from_epsg(32633)
TRANSFORM = Affine(10.0, 0.0, 399_960.0, 0.0, -10.0, 5_300_040.0)
NAMES = {0: "land", 1: "water", 2: "cloud"}
SUFFIXES = (".gpkg", ".parquet")


def write_map(path, mask, crs=UTM, transform=TRANSFORM, **options):
    write_class_map(path, mask, id2label=NAMES, crs=crs, transform=transform, **options)
    return path


def read(path):
    return geopandas.read_file(path) if path.suffix == ".gpkg" else geopandas.read_parquet(path)


def geodesic_area(geometry, crs):
    """Square metres by pyproj, every outline thickened to a vertex a pixel or so."""
    dense = shapely.segmentize(geometry, max(geometry.length / 2_000, 1e-9))
    to_degrees = pyproj.Transformer.from_crs(crs.to_wkt(), "EPSG:4326", always_xy=True)
    degrees = shapely.transform(dense, lambda points: np.stack(to_degrees.transform(*points.T), axis=1))
    return abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(shapely.geometry.polygon.orient(degrees))[0])


def square_with_a_hole():
    """A lake of 100 x 100 pixels with an island of 20 x 20 in it, on land with a corner without data."""
    mask = np.zeros((150, 160), dtype=np.uint8)
    mask[20:120, 30:130] = 1
    mask[60:80, 70:90] = 0
    mask[:10, :10] = 255
    return mask


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_square_with_a_hole(tmp_path, suffix):
    class_map = write_map(tmp_path / "map.tif", square_with_a_hole())
    path = tmp_path / f"polygons{suffix}"
    assert write_polygons(path, class_map) == 3
    frame = read(path)
    assert list(frame.columns) == ["class_value", "class_name", "area_m2", "geometry"]
    assert frame.crs == pyproj.CRS.from_epsg(32633)
    lake = frame[frame.class_name == "water"].iloc[0]
    island = shapely.box(400_660, 5_299_240, 400_860, 5_299_440)
    assert lake.geometry.equals(shapely.box(400_260, 5_298_840, 401_260, 5_299_840) - island)
    assert lake.class_value == 1
    assert lake.area_m2 == pytest.approx(960_000, rel=1e-3)  # in the plane; the scale of UTM is 0.9997 here
    assert lake.area_m2 == pytest.approx(geodesic_area(lake.geometry, UTM), rel=1e-6)
    assert abs(lake.area_m2 - 960_000) > 100  # and that difference is seen
    land = frame[frame.class_name == "land"]
    assert sorted(len(shape.interiors) for shape in land.geometry) == [0, 1]
    assert frame.geometry.area.sum() == pytest.approx(100 * (150 * 160 - 100))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_mean_probability_is_that_of_the_class(tmp_path, suffix):
    mask = square_with_a_hole()
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(3), mask.shape).transpose(2, 0, 1).astype(np.float32)
    probabilities[:, mask == 255] = np.nan
    class_map = write_map(tmp_path / "map.tif", mask, class_values={0: 7, 1: 3, 2: 5})
    expected = {("land", 1): probabilities[0, 60:80, 70:90].mean(), ("water", 1): probabilities[1, mask == 1].mean()}
    for dtype, tolerance in (("float32", 1e-6), ("uint8", 1e-4)):
        write_probabilities(
            tmp_path / "p.tif", probabilities, id2label=NAMES, crs=UTM, transform=TRANSFORM, dtype=dtype
        )
        write_polygons(tmp_path / f"p{suffix}", class_map, probabilities=tmp_path / "p.tif")
        frame = read(tmp_path / f"p{suffix}")
        assert set(frame.class_value) == {7, 3}
        island = frame[(frame.class_name == "land") & (frame.area_m2 < 50_000)].iloc[0]
        lake = frame[frame.class_name == "water"].iloc[0]
        assert island.mean_probability == pytest.approx(expected["land", 1], abs=tolerance)
        assert lake.mean_probability == pytest.approx(expected["water", 1], abs=tolerance)


def test_one_band_of_probabilities_is_that_of_the_class_in_the_map(tmp_path):
    mask = square_with_a_hole()
    own = np.where(mask == 1, 0.75, 0.5).astype(np.float32)
    class_map = write_map(tmp_path / "map.tif", mask)
    write_geotiff(tmp_path / "own.tif", own[None], crs=UTM, transform=TRANSFORM)
    write_polygons(tmp_path / "p.gpkg", class_map, probabilities=tmp_path / "own.tif")
    frame = read(tmp_path / "p.gpkg")
    assert set(zip(frame.class_name, frame.mean_probability, strict=True)) == {("land", 0.5), ("water", 0.75)}


@pytest.mark.parametrize("rows", [1, 3, 8, 40])
def test_strips_leave_no_trace(tmp_path, monkeypatch, rows):
    """Whatever is read at once, the polygons are those of the whole map, as GDAL finds them."""
    mask = np.random.default_rng(rows).choice([0, 1, 2, 255], (40, 31), p=[0.5, 0.3, 0.1, 0.1]).astype(np.uint8)
    mask[5:30, 3:28] = np.where(np.add.outer(np.arange(25), np.arange(25)) % 5, 0, 1)  # diagonals that only touch
    class_map = write_map(tmp_path / "map.tif", mask)
    monkeypatch.setattr(polygons, "_STRIP_ROWS", (rows, rows))
    monkeypatch.setattr(polygons, "_BATCH", 7)
    write_polygons(tmp_path / "p.parquet", class_map)
    found = read(tmp_path / "p.parquet")
    whole = shapes(mask, mask=mask != 255, transform=TRANSFORM)
    expected = [(shapely.normalize(shapely.geometry.shape(outline)).wkt, value) for outline, value in whole]
    outlines = [shapely.normalize(outline).wkt for outline in found.geometry]
    assert sorted(zip(outlines, found.class_value, strict=True)) == sorted(expected)
    assert found.geometry.is_valid.all()
    areas = [geodesic_area(shape, UTM) for shape in found.geometry[:20]]
    np.testing.assert_allclose(found.area_m2[:20], areas, rtol=1e-5)


def test_polygons_tile_the_map(tmp_path):
    mask = np.random.default_rng(1).integers(0, 3, (90, 70)).astype(np.uint8)
    write_polygons(tmp_path / "p.parquet", write_map(tmp_path / "map.tif", mask))
    frame = read(tmp_path / "p.parquet")
    assert frame.area_m2.sum() == pytest.approx(measure_pixels(UTM, TRANSFORM, (0, 0, 90, 70)).sum(), rel=1e-9)
    for value in range(3):
        assert frame.geometry[frame.class_value == value].area.sum() == pytest.approx(100 * (mask == value).sum())


def test_classes_and_smallest_area(tmp_path):
    mask = square_with_a_hole()
    mask[130, 150] = 1
    class_map = write_map(tmp_path / "map.tif", mask)
    assert write_polygons(tmp_path / "a.gpkg", class_map, classes=["water"]) == 2
    assert set(read(tmp_path / "a.gpkg").class_name) == {"water"}
    assert write_polygons(tmp_path / "b.gpkg", class_map, classes=["1", 2], min_area=150) == 1
    assert write_polygons(tmp_path / "c.gpkg", class_map, min_area=39_000) == 3
    with pytest.raises(ValueError, match=r"0 \(land\), 1 \(water\), 2 \(cloud\); found \['ice'\]"):
        write_polygons(tmp_path / "d.gpkg", class_map, classes=["ice"])
    for area in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="min_area"):
            write_polygons(tmp_path / "d.gpkg", class_map, min_area=area)
    assert not (tmp_path / "d.gpkg").exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_map_without_data_gives_a_file_without_polygons(tmp_path, suffix):
    class_map = write_map(tmp_path / "map.tif", np.full((20, 30), 255, dtype=np.uint8))
    assert write_polygons(tmp_path / f"p{suffix}", class_map) == 0
    frame = read(tmp_path / f"p{suffix}")
    assert len(frame) == 0
    assert {"class_value", "class_name", "area_m2"} <= set(frame.columns)
    assert frame.crs == pyproj.CRS.from_epsg(32633)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (CRS.from_epsg(4326), Affine(0.05, 0.0, 170.0, 0.0, -0.05, 72.0)),  # across the 180th meridian
        (CRS.from_epsg(4326), Affine(0.01, 0.0, -60.0, 0.0, -0.01, 0.7)),  # across the equator
        (CRS.from_epsg(3857), Affine(300.0, 0.0, 1e6, 0.0, -300.0, 8e6)),  # Mercator: four times too large
        (CRS.from_epsg(3031), Affine(5_000.0, 0.0, -600_000.0, 0.0, -5_000.0, 400_000.0)),  # by the South Pole
        (UTM, Affine(8.0, 6.0, 500_000.0, 6.0, -8.0, 5_300_000.0)),  # rotated
        (UTM, Affine(10.0, 0.0, 300_000.0, 0.0, 10.0, 5_300_000.0)),  # rows from south to north
    ],
)
def test_area_is_that_of_the_ground(tmp_path, crs, transform):
    mask = np.zeros((140, 300), dtype=np.uint8)
    mask[10:130, 50:250] = 1
    mask[50:80, 100:140] = 0
    write_polygons(tmp_path / "p.parquet", write_map(tmp_path / "map.tif", mask, crs, transform))
    frame = read(tmp_path / "p.parquet")
    outer = np.argmax([outline.length for outline in frame.geometry])  # pyproj has no hole around a pole
    for row in frame.drop(index=outer).itertuples():
        assert row.area_m2 == pytest.approx(geodesic_area(row.geometry, crs), rel=1e-4)


def test_map_without_a_crs_is_refused(tmp_path):
    class_map = write_map(tmp_path / "map.tif", square_with_a_hole(), crs=None)
    with pytest.raises(ValueError, match="expected a CRS"):
        write_polygons(tmp_path / "p.gpkg", class_map)


def test_other_maps_and_probabilities_are_refused(tmp_path):
    class_map = write_map(tmp_path / "map.tif", square_with_a_hole())
    write_geotiff(tmp_path / "two.tif", np.zeros((2, 20, 20), np.uint8), crs=UTM, transform=TRANSFORM)
    with pytest.raises(ValueError, match="one uint8 band, found 2 of uint8"):
        write_polygons(tmp_path / "p.gpkg", tmp_path / "two.tif")
    shifted = Affine(10.0, 0.0, TRANSFORM.c + 10, 0.0, -10.0, TRANSFORM.f)
    for transform, count, message in ((shifted, 3, "expected the grid of"), (TRANSFORM, 2, "one band for each")):
        write_geotiff(tmp_path / "p.tif", np.zeros((count, 150, 160), np.float32), crs=UTM, transform=transform)
        with pytest.raises(ValueError, match=message):
            write_polygons(tmp_path / "p.gpkg", class_map, probabilities=tmp_path / "p.tif")
    assert not (tmp_path / "p.gpkg").exists()


def test_names_come_from_the_map_or_the_caller(tmp_path):
    class_map = write_map(tmp_path / "map.tif", square_with_a_hole(), class_values={0: 9, 1: 4, 2: 6})
    assert list(read_class_names(class_map).items()) == [(4, "water"), (6, "cloud"), (9, "land")]
    write_polygons(tmp_path / "p.gpkg", class_map, class_names={4: "lake"})
    assert set(read(tmp_path / "p.gpkg").class_name) == {"9", "lake"}


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet"])
def test_the_same_map_gives_the_same_bytes_at_any_time(tmp_path, suffix):
    class_map = write_map(tmp_path / "map.tif", square_with_a_hole())
    paths = [tmp_path / f"{name}{suffix}" for name in ("first", "second")]
    write_polygons(paths[0], class_map)
    time.sleep(0.01)  # a GeoPackage notes milliseconds unless told otherwise
    write_polygons(paths[1], class_map)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_existing_file_is_replaced_only_by_a_complete_one(tmp_path, monkeypatch):
    class_map = write_map(tmp_path / "map.tif", square_with_a_hole())
    path = tmp_path / "p.gpkg"
    write_polygons(path, class_map)
    before = path.read_bytes()

    def fail(*_, **__):
        raise pyogrio.errors.FeatureError("database or disk is full")

    monkeypatch.setattr(pyogrio.raw, "write", fail)
    with pytest.raises(OSError, match="disk is full"):
        write_polygons(path, class_map)
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["map.tif", "p.gpkg"]


def flood_fill(values, valid):
    """The regions by the slow and obvious way, numbered in order of their first pixel."""
    labels, count = np.zeros(values.shape, dtype=np.int32), 0
    for start in zip(*np.nonzero(valid), strict=True):
        if labels[start]:
            continue
        count += 1
        stack = [start]
        while stack:
            row, column = stack.pop()
            inside = 0 <= row < values.shape[0] and 0 <= column < values.shape[1]
            if not inside or labels[row, column] or not valid[row, column] or values[row, column] != values[start]:
                continue
            labels[row, column] = count
            stack += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
    return labels, count


@pytest.mark.parametrize("shape", [(1, 1), (1, 17), (17, 1), (12, 19), (30, 30)])
@pytest.mark.parametrize("classes", [1, 2, 4])
def test_regions_are_those_of_a_flood_fill(shape, classes):
    random = np.random.default_rng(classes)
    for _ in range(5):
        values = random.integers(0, classes, shape).astype(np.uint8)
        valid = random.random(shape) < 0.8
        labels, count = label_regions(values, valid)
        expected, expected_count = flood_fill(values, valid)
        assert count == expected_count
        np.testing.assert_array_equal(labels, expected)
    spiral = np.ones((21, 21), dtype=np.uint8)
    for step in range(0, 10, 2):  # walls of a spiral: a region that turns back on itself often
        spiral[step + 1, step : 20 - step] = spiral[20 - step - 1, step + 1 : 20 - step] = 0
    np.testing.assert_array_equal(label_regions(spiral, spiral > 0)[0], flood_fill(spiral, spiral > 0)[0])


@pytest.mark.parametrize(
    "wkt",
    [
        'LOCAL_CS["site grid",UNIT["metre",1]]',
        'ENGCRS["drone",EDATUM["base"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]',
        'ENGCRS["image",EDATUM["sensor"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["foot",0.3048]]',
    ],
)
def test_a_local_crs_is_refused_before_any_work(wkt):
    grid = Grid(CRS.from_wkt(wkt), TRANSFORM, 100, 100)
    with pytest.raises(ValueError, match=r"The scene: expected places on Earth.*gdalwarp"):
        check_polygon_options(grid, NAMES)


def test_pixels_beside_the_earth_are_refused_before_any_work():
    grid = Grid(CRS.from_string("+proj=ortho +lat_0=0 +lon_0=0"), Affine(1e5, 0, -6e6, 0, -1e5, 7e6), 70, 70)
    with pytest.raises(ValueError, match=r"The scene: expected .*Earth"):
        check_polygon_options(grid, NAMES)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("west", "expected"), [(190, (-169.5, -160.5)), (350, (-9.5, -0.5)), (-200, (160.5, 169.5))])
def test_longitudes_beyond_180_go_round(tmp_path, suffix, west, expected):
    mask = np.full((20, 20), 255, dtype=np.uint8)
    mask[5:15, 1:10] = 1
    mask[5:15, 10:19] = 2
    class_map = write_map(tmp_path / "map.tif", mask, CRS.from_epsg(4326), Affine(0.5, 0, west, 0, -0.5, 60))
    write_polygons(tmp_path / f"p{suffix}", class_map)
    frame = read(tmp_path / f"p{suffix}")
    assert (frame.total_bounds[0], frame.total_bounds[2]) == expected
    for row in frame.itertuples():
        assert row.area_m2 == pytest.approx(geodesic_area(row.geometry, CRS.from_epsg(4326)), rel=1e-3)


def test_a_region_across_180_degrees_is_one_polygon(tmp_path):
    mask = np.zeros((20, 40), dtype=np.uint8)
    class_map = write_map(tmp_path / "map.tif", mask, CRS.from_epsg(4326), Affine(0.5, 0, 170, 0, -0.5, 60))
    assert write_polygons(tmp_path / "p.gpkg", class_map) == 1
    assert read(tmp_path / "p.gpkg").total_bounds.tolist() == [170, 50, 190, 60]


@pytest.mark.parametrize(("crs", "west", "parts"), [(UTM, 399_960.0, 1), (CRS.from_epsg(4326), 174.0, 2)])
def test_geojson_is_in_degrees_and_cut_at_180(tmp_path, crs, west, parts):
    side = 10 if crs == UTM else 0.05
    class_map = write_map(tmp_path / "map.tif", square_with_a_hole(), crs, Affine(side, 0, west, 0, -side, 72))
    for suffix in (".gpkg", ".geojson"):
        assert write_polygons(tmp_path / f"p{suffix}", class_map) == 3
    frame, same = geopandas.read_file(tmp_path / "p.geojson"), read(tmp_path / "p.gpkg").to_crs("EPSG:4326")
    assert json.loads((tmp_path / "p.geojson").read_text()).keys() == {"type", "name", "features"}  # no other CRS
    assert frame.drop(columns="geometry").equals(same.drop(columns="geometry"))
    assert max(shapely.get_num_geometries(frame.geometry)) == parts
    assert (abs(frame.total_bounds) <= [180, 90, 180, 90]).all()
    np.testing.assert_allclose(shapely.area(frame.geometry), shapely.area(same.geometry), rtol=1e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.tif", "p.geojson", "p.gpkg"]


def test_a_map_without_regions_is_a_geojson_file_without_features(tmp_path):
    class_map = write_map(tmp_path / "map.tif", np.full((8, 8), 255, dtype=np.uint8))
    assert write_polygons(tmp_path / "p.geojson", class_map) == 0
    assert json.loads((tmp_path / "p.geojson").read_text())["features"] == []


def test_a_name_of_several_classes_means_all_of_them():
    names, grid = {0: "soil", 3: "crop", 7: "crop"}, Grid(CRS.from_epsg(32633), TRANSFORM, 100, 100)
    assert check_polygon_options(grid, names, ["crop"]) == [3, 7]
    assert check_polygon_options(grid, names, [7, "soil"]) == [7, 0]
