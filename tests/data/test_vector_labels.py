# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Labels of vector files: the class of every pixel, whatever CRS, format and block it is in, and what is refused."""

import os

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS

from prithvi_hf.data.load import load_dataset
from prithvi_hf.data.vector_labels import LabelOptions, choose_classes, open_vector_labels, rasterize_labels
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.outputs.polygons import read_class_names
from prithvi_hf.rasters.warping import Grid
from tests.raster_factory import write_chip
from tests.scene_factory import read_map
from tests.vector_factory import make_stars, paint, utm_grid, write_features


CROPS = ["wheat", "barley", "grass"]
NUMBERS = {"barley": 0, "grass": 1, "wheat": 2}


def square(left, bottom, side):
    return shapely.box(left, bottom, left + side, bottom + side)


def one_class(shapes, crs="EPSG:32633", crop="wheat"):
    return gpd.GeoDataFrame({"crop": [crop] * len(shapes)}, geometry=shapes, crs=crs)


@pytest.mark.parametrize("size", [(1100, 300), (300, 4300)], ids=["rows of blocks", "columns of blocks"])
def test_pixels_are_those_of_a_look_at_every_centre_across_all_blocks(tmp_path, size):
    grid = utm_grid(*size)
    stars = make_stars(grid, 25, CROPS)
    report = rasterize_labels(write_features(tmp_path / "a.gpkg", stars), grid, tmp_path / "m.tif", attribute="crop")
    expected = paint(stars, grid, NUMBERS)
    np.testing.assert_array_equal(read_map(tmp_path / "m.tif"), expected)
    assert [one["pixels"] for one in report["classes"]] == np.bincount(expected.ravel(), minlength=256)[:3].tolist()
    assert report["unlabelled_pixels"] == (expected == 255).sum()
    assert 0 < report["overlapping_pixels"] == (expected != paint(stars[::-1], grid, NUMBERS)).sum()


@pytest.mark.parametrize("all_touched", [False, True])
def test_any_window_reads_as_the_same_part_of_the_whole(tmp_path, all_touched):
    grid, rng = utm_grid(200, 260), np.random.default_rng(1)
    path = write_features(tmp_path / "a.gpkg", make_stars(grid, 30, CROPS))
    with open_vector_labels(path, grid, LabelOptions("crop", all_touched=all_touched)) as labels:
        whole = labels.read()[0]
        for _ in range(40):
            row, column = (int(rng.integers(0, side - 1)) for side in grid.size)
            height, width = int(rng.integers(1, 200 - row + 1)), int(rng.integers(1, 260 - column + 1))
            part = labels.read(window=(row, column, height, width))[0]
            np.testing.assert_array_equal(part, whole[row : row + height, column : column + width])


def test_all_touched_adds_pixels_at_the_edges_alone(tmp_path):
    grid = utm_grid(20, 20)
    path = write_features(tmp_path / "a.gpkg", one_class([square(500_056, 4_999_856, 48)]))
    rasterize_labels(path, grid, tmp_path / "centre.tif", attribute="crop")
    rasterize_labels(path, grid, tmp_path / "touched.tif", attribute="crop", all_touched=True)
    centre, touched = (read_map(tmp_path / name) == 0 for name in ("centre.tif", "touched.tif"))
    expected = np.zeros((20, 20), dtype=bool)
    expected[10:14, 6:10] = True  # from 5.6 to 10.4 columns and 9.6 to 14.4 rows
    np.testing.assert_array_equal(centre, expected)
    expected[9:15, 5:11] = True
    np.testing.assert_array_equal(touched, expected)


@pytest.mark.parametrize(("suffix", "crs"), [(".geojson", 4326), (".fgb", 3035), (".shp", 3857), (".gpkg", 32632)])
def test_labels_in_any_format_and_crs_are_where_they_were(tmp_path, suffix, crs):
    grid = utm_grid(150, 200)
    fields = [square(500_000 + 400 * i, 4_998_600 + 250 * i, 380) for i in range(5)]
    crops = (CROPS * 2)[:5]
    features = gpd.GeoDataFrame({"crop": crops}, geometry=fields, crs=32633)
    dense = features.set_geometry(features.segmentize(10)).to_crs(crs)
    path = write_features(tmp_path / f"a{suffix}", dense)
    rasterize_labels(path, grid, tmp_path / "m.tif", attribute="crop")
    expected = paint(features, grid, NUMBERS)
    differ = read_map(tmp_path / "m.tif") != expected
    assert differ.sum() <= 2  # centres closer to an edge than the coordinates are written to


def test_an_edge_that_is_straight_in_degrees_bends_as_it_does_on_the_ground(tmp_path):
    # 0.6 degrees along a parallel: the straight line between its ends in UTM is 60 m off in the middle.
    grid = Grid(CRS.from_epsg(32633), Affine(30, 0, 470_000, 0, -30, 6_660_000), 600, 2000)
    field = shapely.box(14.5, 59.95, 15.5, 60.0)
    path = write_features(tmp_path / "a.gpkg", one_class([field], 4326))
    rasterize_labels(path, grid, tmp_path / "m.tif", attribute="crop")
    dense = one_class([shapely.segmentize(field, 0.0005)], 4326).to_crs(32633)
    differ = (read_map(tmp_path / "m.tif") != paint(dense, grid, {"wheat": 0})).sum()
    assert differ <= 10
    straight = one_class([field], 4326).to_crs(32633)
    assert (paint(straight, grid, {"wheat": 0}) != paint(dense, grid, {"wheat": 0})).sum() > 1000


def test_labels_of_the_whole_world_are_cut_to_the_scene(tmp_path):
    path = write_features(tmp_path / "a.gpkg", one_class([shapely.box(-180, -90, 180, 90)], 4326))
    report = rasterize_labels(path, utm_grid(30, 40), tmp_path / "m.tif", attribute="crop")
    assert report["classes"][0]["pixels"] == 1200


@pytest.mark.parametrize("start", [170.0, -190.0, 175.0])
def test_a_scene_across_180_degrees_has_the_labels_of_both_sides(tmp_path, start):
    grid = Grid(CRS.from_epsg(4326), Affine(0.1, 0, start, 0, -0.1, 5), 50, 200)
    west_and_east = [shapely.box(179, 1, 180, 2), shapely.box(-180, 1, -179, 2)]
    path = write_features(tmp_path / "a.gpkg", one_class(west_and_east, 4326))
    rasterize_labels(path, grid, tmp_path / "m.tif", attribute="crop")
    rows, columns = np.nonzero(read_map(tmp_path / "m.tif") == 0)
    edge = round((180 - start % 360) / 0.1) if start > 0 else round((-180 - start) / 0.1)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (edge - 10, edge + 9, 30, 39)


def test_a_utm_scene_across_180_degrees_has_the_labels_of_both_sides(tmp_path):
    grid = Grid(CRS.from_epsg(32660), Affine(100, 0, 800_000, 0, -100, 200_000), 200, 800)
    features = [shapely.box(179.8, 1.7, 180, 1.75), shapely.box(-180, 1.7, -179.8, 1.75)]
    path = write_features(tmp_path / "a.gpkg", one_class(features, 4326))
    rasterize_labels(path, grid, tmp_path / "m.tif", attribute="crop")
    painted = read_map(tmp_path / "m.tif") == 0
    both = one_class([shapely.segmentize(shapely.box(179.8, 1.7, 180.2, 1.75), 0.002)], 4326).to_crs(32660)
    expected = paint(both, grid, {"wheat": 0}) == 0
    assert expected[:, :330].any()
    assert expected[:, 350:].any()
    assert (painted != expected).sum() < 10


def test_points_label_the_pixel_that_they_are_in(tmp_path):
    points = [shapely.Point(500_035, 4_999_985), shapely.MultiPoint([(500_050, 4_999_950), (500_199, 4_999_801)])]
    features = gpd.GeoDataFrame({"crop": ["wheat", "barley"]}, geometry=points, crs=32633)
    path = write_features(tmp_path / "a.gpkg", features)
    rasterize_labels(path, utm_grid(20, 20), tmp_path / "m.tif", attribute="crop")
    labels = read_map(tmp_path / "m.tif")
    assert {
        (row, column): int(labels[row, column]) for row, column in zip(*np.nonzero(labels < 255), strict=True)
    } == {
        (1, 3): 1,
        (5, 5): 0,
        (19, 19): 0,
    }


def test_numbers_stay_as_they_are_and_names_are_sorted(tmp_path):
    grid = utm_grid(20, 40)
    fields = [square(500_000 + 100 * i, 4_999_850, 50) for i in range(3)]
    features = gpd.GeoDataFrame({"crop": ["wheat", "barley", "wheat"], "code": [3, 7, 3]}, geometry=fields, crs=32633)
    path = write_features(tmp_path / "a.gpkg", features)
    rasterize_labels(path, grid, tmp_path / "codes.tif", attribute="code")
    rasterize_labels(path, grid, tmp_path / "names.tif", attribute="crop")
    assert set(np.unique(read_map(tmp_path / "codes.tif"))) == {3, 7, 255}
    assert read_class_names(tmp_path / "codes.tif") == {3: "3", 7: "7"}
    assert read_class_names(tmp_path / "names.tif") == {0: "barley", 1: "wheat"}
    with rasterio.open(tmp_path / "names.tif") as mask:
        assert mask.nodata == 255
        assert mask.colormap(1)[0][3] == 255


@pytest.mark.parametrize(
    ("found", "options", "names", "by_value", "class_values"),
    [
        ({"b": 1, "a": 2}, {}, ("a", "b"), {"a": 0, "b": 1}, {}),
        ({"b": 1, "a": 2}, {"classes": ["b", "a", "c"]}, ("b", "a", "c"), {"b": 0, "a": 1, "c": 2}, {}),
        ({"10": 1, "30": 2}, {"classes": ["10=x", "20=y", "30=y"]}, ("x", "y"), {"10": 0, "20": 1, "30": 1}, {}),
        ({"b": 1, "a": 2}, {"background": "land"}, ("land", "a", "b"), {"a": 1, "b": 2}, {}),
        ({"b": 1, "a": 2}, {"background": "b"}, ("a", "b"), {"a": 0, "b": 1}, {}),
        ({"2": 1, "10": 2}, {}, ("2", "10"), {"2": 0, "10": 1}, {0: 2, 1: 10}),
        ({"1": 1, "2": 2}, {"background": "rest"}, ("rest", "1", "2"), {"1": 1, "2": 2}, {}),
        ({"0": 1, "1": 2, "9": 1}, {"ignore_values": [9]}, ("0", "1"), {"0": 0, "1": 1}, {}),
    ],
)
def test_classes_are_numbered(found, options, names, by_value, class_values):
    classes = choose_classes(found, LabelOptions("crop", **options), "a.gpkg")
    assert (classes.names, dict(classes.by_value), dict(classes.class_values)) == (names, by_value, class_values)


def test_background_and_ignored_values(tmp_path):
    grid = utm_grid(20, 30)
    fields = [square(500_000, 4_999_850, 50), square(500_100, 4_999_850, 50), square(500_200, 4_999_850, 50)]
    features = gpd.GeoDataFrame({"crop": ["wheat", "unknown", None]}, geometry=fields, crs=32633)
    path = write_features(tmp_path / "a.gpkg", features)
    how = {"attribute": "crop", "ignore_values": ["unknown"], "background": "other"}
    report = rasterize_labels(path, grid, tmp_path / "m.tif", **how)
    labels = read_map(tmp_path / "m.tif")
    assert (labels == 1).sum() == 25  # wheat
    assert (labels == 255).sum() == 50  # neither background nor a class
    assert (labels == 0).sum() == 600 - 75
    assert (report["ignored"], report["without_value"]) == (1, 1)


def test_all_features_of_one_class_need_no_attribute(tmp_path):
    grid, path = utm_grid(20, 20), write_features(tmp_path / "a.gpkg", one_class([square(500_000, 4_999_850, 50)]))
    rasterize_labels(path, grid, tmp_path / "m.tif", classes=["burn scar"], background="unburnt")
    assert read_class_names(tmp_path / "m.tif") == {0: "unburnt", 1: "burn scar"}
    assert (read_map(tmp_path / "m.tif") == 1).sum() == 25


def test_invalid_polygons_are_repaired_and_counted_with_all_that_is_not_painted(tmp_path):
    corners = [(500_003, 5_000_000), (500_104, 4_999_900), (500_100, 5_000_000), (500_000, 4_999_907)]
    bow_tie = shapely.Polygon(corners)
    shapes = [bow_tie, square(0, 0, 10), None, square(500_151, 4_999_851, 3), square(500_150, 4_999_850, 50)]
    path = write_features(tmp_path / "a.gpkg", one_class(shapes))
    report = rasterize_labels(path, utm_grid(20, 20), tmp_path / "m.tif", attribute="crop")
    counts = ("features", "repaired", "outside", "empty", "between_pixels")
    assert [report[name] for name in counts] == [5, 1, 1, 1, 1]
    expected = paint(one_class([shapely.make_valid(bow_tie), shapes[-1]]), utm_grid(20, 20), {"wheat": 0})
    np.testing.assert_array_equal(read_map(tmp_path / "m.tif"), expected)


def test_unlabelled_pixels_are_ignored_by_training(tmp_path):
    for name in ("a", "b"):
        write_chip(tmp_path / "images" / f"{name}.tif", 20, crs="EPSG:32633", transform=utm_grid(20, 20).transform)
    path = write_features(tmp_path / "a.gpkg", one_class([square(500_000, 4_999_850, 50)]))
    (tmp_path / "masks").mkdir()
    for name in ("a", "b"):
        like, mask = tmp_path / "images" / f"{name}.tif", tmp_path / "masks" / f"{name}.tif"
        rasterize_labels(path, like, mask, attribute="crop", classes=["wheat", "rye"])
    options = {"image_dir": "images", "mask_dir": "masks", "cache_dir": str(tmp_path / "cache")}
    row = load_dataset("geotiff_folder", tmp_path, split="train", **options)[0]
    labels = PrithviImageProcessor(num_labels=2)(row["image"], row["mask"], return_tensors="np")["labels"]
    assert sorted(np.unique(labels, return_counts=True)[1].tolist()) == [25, 375]
    assert set(np.unique(labels)) == {-100, 0}


GRID = utm_grid(20, 20)


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (one_class([square(500_000, 4_999_850, 50)]), {"attribute": "class"}, "an attribute class, found crop"),
        (one_class([square(500_000, 4_999_850, 50)]), {}, "none named among crop"),
        (
            one_class([square(500_000, 4_999_850, 50)]),
            {"attribute": "crop", "classes": ["rye"]},
            "expected the values rye of crop, found wheat (1 feature) too",
        ),
        (one_class([square(0, 0, 50)]), {"attribute": "crop"}, "none of them there. Check the CRS"),
        (one_class([square(500_000, 4_999_850, 50)], None), {"attribute": "crop"}, "found no CRS and EPSG:32633"),
        (
            one_class([shapely.LineString([(500_000, 4_999_850), (500_100, 4_999_950)])]),
            {"attribute": "crop"},
            "found a LineString in feature 1. Lines have no width",
        ),
        (one_class([square(500_000, 4_999_850, 50)], crop=-3), {"attribute": "crop"}, "whose numbers are 0 to 254"),
        (one_class([square(500_000, 4_999_850, 50)], crop=0.5), {"attribute": "crop"}, "found 0.5 (float)"),
        (one_class([square(500_000, 4_999_850, 50)], crop=None), {"attribute": "crop"}, "found none"),
        (
            one_class([square(500_000, 4_999_850, 50)]),
            {"attribute": "crop", "classes": ["wheat", "wheat=b"]},
            "each value once",
        ),
    ],
)
def test_what_cannot_be_a_label_is_refused_before_anything_is_written(tmp_path, features, options, message):
    path = write_features(tmp_path / "a.gpkg", features)
    with pytest.raises(ValueError) as caught:
        rasterize_labels(path, GRID, tmp_path / "m.tif", **options)
    assert message in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["a.gpkg"]


def test_a_file_of_several_layers_needs_the_name_of_one(tmp_path):
    for layer, crop in (("fields", "wheat"), ("roads", "barley")):
        write_features(tmp_path / "a.gpkg", one_class([square(500_000, 4_999_850, 50)], crop=crop), layer=layer)
    with pytest.raises(ValueError, match="expected one layer with shapes, found fields, roads"):
        rasterize_labels(tmp_path / "a.gpkg", GRID, tmp_path / "m.tif", attribute="crop")
    report = rasterize_labels(tmp_path / "a.gpkg", GRID, tmp_path / "m.tif", attribute="crop", layer="roads")
    assert report["classes"][0]["name"] == "barley"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<OGRVRTDataSource><OGRVRTLayer name='a'/></OGRVRTDataSource>", "found a file that starts with b'<OGRVRTD'"),
        (b"", "found a file that starts with b''"),
        (b'{"type": "FeatureCollection", "features": [{"type": "Fea', "cannot be read"),
        (b"SQLite format 3\0" + b"\0" * 100, "cannot be read"),
    ],
)
def test_files_of_other_formats_and_damaged_ones_are_refused(tmp_path, content, message):
    (tmp_path / "a.gpkg").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.gpkg") as caught:
        rasterize_labels(tmp_path / "a.gpkg", GRID, tmp_path / "m.tif", attribute="crop")
    assert message in str(caught.value)


@pytest.mark.parametrize("suffix", [".shp", ".fgb", ".gpkg", ".geojson"])
def test_a_file_whose_end_is_missing_is_refused(tmp_path, suffix):
    path = write_features(tmp_path / f"a{suffix}", make_stars(GRID, 300, CROPS))
    path.write_bytes(path.read_bytes()[: int(0.6 * path.stat().st_size)])
    with pytest.raises(ValueError, match="Copy"):
        rasterize_labels(path, GRID, tmp_path / "m.tif", attribute="crop")
    assert not (tmp_path / "m.tif").exists()


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.gpkg: expected a GeoPackage"):
        rasterize_labels(tmp_path / "none.gpkg", GRID, tmp_path / "m.tif", attribute="crop")
