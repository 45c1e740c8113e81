# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The change between two maps against numpy on whole arrays and pyproj's areas, on any grids and class orders."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from pyproj import Geod

from prithvi_hf.outputs.cog import write_class_map
from prithvi_hf.outputs.map_change import compare_maps
from prithvi_hf.outputs.polygons import read_class_names
from prithvi_hf.rasters.write_geotiff import write_geotiff
from tests.scene_factory import read_map


UTM = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000)}
DEGREES = {"crs": "EPSG:4326", "transform": Affine(0.002, 0, 10, 0, -0.003, 60)}
NAMES = {0: "land", 1: "water", 2: "forest"}


def draw(seed, size=(600, 2100), classes=3):
    """A map with patches of nodata."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, classes, size).astype(np.uint8)
    found[rng.random(size) < 0.05] = 255
    return found


def write(path, classes, names=NAMES, **options):
    write_class_map(path, classes, id2label=names, **{**UTM, **options})
    return path


def count(first, second, classes=3):
    """The matrix by numpy on whole arrays."""
    both = (first != 255) & (second != 255)
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (first[both], second[both]), 1)
    return matrix


def test_the_matrix_is_that_of_whole_arrays_and_the_map_has_every_change(tmp_path):
    first, second = draw(0), draw(1)
    a, b = write(tmp_path / "a.tif", first), write(tmp_path / "b.tif", second)
    change = compare_maps(a, b, tmp_path / "c.tif", report=tmp_path / "c.json", picture=tmp_path / "c.png")
    expected = count(first, second)
    np.testing.assert_array_equal(change.pixels, expected)
    np.testing.assert_allclose(change.areas.sum(), expected.sum() * 1e-4, rtol=1e-3)  # the scale of UTM
    assert change.only_first == ((first != 255) & (second == 255)).sum()
    assert change.only_second == ((first == 255) & (second != 255)).sum()
    assert change.neither == ((first == 255) & (second == 255)).sum()

    names, written = read_class_names(tmp_path / "c.tif"), read_map(tmp_path / "c.tif")
    drawn = np.random.default_rng(2).integers(0, 600, (200, 2)).tolist()
    for row, column in [(0, 0), (511, 2047), (599, 2099), *drawn]:
        pair = int(first[row, column]), int(second[row, column])
        if 255 in pair:
            assert written[row, column] == 255
        else:
            texts = [NAMES[index] for index in pair]
            assert names[written[row, column]] == (texts[0] if pair[0] == pair[1] else " -> ".join(texts))
    with rasterio.open(tmp_path / "c.tif") as dataset:
        assert dataset.nodata == 255
        assert len({dataset.colormap(1)[value] for value in names}) == 9
    report = json.loads((tmp_path / "c.json").read_text())
    assert report["matrix_pixels"] == expected.tolist()
    assert sum(one["area_km2"] for one in report["changes"]) == pytest.approx(change.areas.sum())
    water = report["classes"][1]
    assert water["gain_pixels"] == expected[:, 1].sum() - expected[1, 1]
    assert water["loss_pixels"] == expected[1].sum() - expected[1, 1]
    assert Image.open(tmp_path / "c.png").size[0] > 1000


def test_areas_in_degrees_are_those_of_the_ellipsoid(tmp_path):
    first, second = draw(0, (30, 40)), draw(1, (30, 40))
    change = compare_maps(write(tmp_path / "a.tif", first, **DEGREES), write(tmp_path / "b.tif", second, **DEGREES))
    geod, expected = Geod(ellps="WGS84"), np.zeros((3, 3))
    for row, column in zip(*np.nonzero((first != 255) & (second != 255)), strict=True):
        (left, top), (right, bottom) = (DEGREES["transform"] @ (column + i, row + i) for i in (0, 1))
        area = geod.polygon_area_perimeter([left, right, right, left], [top, top, bottom, bottom])[0]
        expected[first[row, column], second[row, column]] += abs(area) / 1e6
    np.testing.assert_allclose(change.areas, expected, rtol=1e-4)


def test_classes_are_matched_by_name(tmp_path):
    first, second = draw(0, (60, 50)), draw(1, (60, 50))
    other = {0: "cloud", 1: "forest", 2: "land", 3: "water"}
    numbers = np.array([2, 3, 1, *[255] * 253], dtype=np.uint8)
    a, b = write(tmp_path / "a.tif", first), write(tmp_path / "b.tif", numbers[second], other)
    change = compare_maps(a, b, tmp_path / "c.tif")
    assert change.names == ("land", "water", "forest", "cloud")
    np.testing.assert_array_equal(change.pixels[:3, :3], count(first, second))
    assert change.pixels[3].sum() == change.pixels[:, 3].sum() == 0
    assert read_class_names(tmp_path / "c.tif")[4] == "land -> water"


@pytest.mark.parametrize("pixel", [10.0, 20.0])
def test_a_map_on_another_grid_is_brought_by_the_nearest_pixel_or_refused(tmp_path, pixel):
    first, second = draw(0, (60, 50)), draw(1, (20, 20))
    a = write(tmp_path / "a.tif", first)
    b = write(tmp_path / "b.tif", second, transform=Affine(pixel, 0, 500_100, 0, -pixel, 4_999_900))
    change = compare_maps(a, b)
    fine = second.repeat(int(pixel // 10), 0).repeat(int(pixel // 10), 1)
    placed = np.full((60, 50), 255, dtype=np.uint8)
    placed[10 : 10 + len(fine), 10 : 10 + len(fine)] = fine[:50, :40]
    np.testing.assert_array_equal(change.pixels, count(first, placed))
    with pytest.raises(ValueError, match="grid_mismatch 'warp' brings it there"):
        compare_maps(a, b, grid_mismatch="refuse")


def test_more_than_15_classes_number_the_changes_that_there_are(tmp_path):
    names = {index: f"crop {index}" for index in range(20)}
    first = np.repeat(np.arange(20, dtype=np.uint8)[None], 20, axis=0)
    second = first.copy()
    second[:10, 3] = 17
    a, b = write(tmp_path / "a.tif", first, names), write(tmp_path / "b.tif", second, names)
    change = compare_maps(a, b, tmp_path / "c.tif")
    assert change.values[3, 17] == 20
    assert read_class_names(tmp_path / "c.tif")[20] == "crop 3 -> crop 17"
    np.testing.assert_array_equal(read_map(tmp_path / "c.tif"), np.where(first != second, 20, first))

    many = [write(tmp_path / f"{seed}.tif", draw(seed, (100, 100), 20), names) for seed in (0, 1)]
    with pytest.raises(ValueError, match="expected at most 235 different changes of 20 classes, found 3"):
        compare_maps(*many, tmp_path / "f.tif")


def test_maps_without_names_are_compared_by_their_values_or_by_names_that_are_given(tmp_path):
    first, second = draw(0, (40, 30)), draw(1, (40, 30))
    first[first == 2] = 7
    for name, classes in (("a", first), ("b", second)):
        write_geotiff(tmp_path / f"{name}.tif", classes, **UTM)  # 255 is nodata all the same
    change = compare_maps(tmp_path / "a.tif", tmp_path / "b.tif", picture=tmp_path / "c.png")
    assert change.names == ("0", "1", "2", "7")
    assert change.pixels[3].sum() == ((first == 7) & (second != 255)).sum()
    named = write(tmp_path / "d.tif", second)
    with pytest.raises(ValueError, match=r"b.tif: expected the names of its classes .* the option class_names"):
        compare_maps(named, tmp_path / "b.tif")
    change = compare_maps(named, tmp_path / "b.tif", class_names=["land", "water", "forest"])
    assert change.agreement == 1
    with pytest.raises(ValueError, match="expected values that the names in the file explain, found 7 too"):
        compare_maps(named, tmp_path / "a.tif", class_names=["land", "water", "forest"])


def test_maps_without_a_crs_have_no_areas(tmp_path):
    a, b = (write(tmp_path / f"{seed}.tif", draw(seed, (30, 20)), crs=None) for seed in (0, 1))
    change = compare_maps(a, b, report=tmp_path / "c.json")
    assert change.areas is None
    assert json.loads((tmp_path / "c.json").read_text())["matrix_area_km2"] is None
    assert "pixels" in change.table()


def test_maps_without_a_place_are_read_without_a_warning(tmp_path):
    """In a process of its own, as the warnings that tests are told of are not those that users see."""
    path = write(tmp_path / "a.tif", draw(0, (30, 20)), crs=None, transform=None)
    words = [sys.executable, "-m", "prithvi_hf.cli", "compare-maps", path, path, "--quiet"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"names": {0: "urban", 1: "road", 2: "sea"}},
            "expected a class that is in both maps, found urban, road",
        ),
        (
            {"transform": Affine(10, 0, 900_000, 0, -10, 5_000_000)},
            "found one that is elsewhere (x 900000 to 900200, ",
        ),
        ({"crs": None}, "without"),
    ],
)
def test_maps_that_cannot_be_compared_are_refused_before_anything_is_written(tmp_path, options, message):
    a, b = write(tmp_path / "a.tif", draw(0, (30, 20))), write(tmp_path / "b.tif", draw(1, (20, 20)), **options)
    with pytest.raises(ValueError) as caught:
        compare_maps(a, b, tmp_path / "c.tif", report=tmp_path / "c.json")
    assert message in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["a.tif", "b.tif"]


def test_inputs_are_not_replaced_and_nothing_is_written_of_maps_without_a_common_pixel(tmp_path):
    a, b = write(tmp_path / "a.tif", draw(0, (30, 20))), write(tmp_path / "b.tif", draw(1, (30, 20)))
    with pytest.raises(ValueError, match="is also an input"):
        compare_maps(a, b, a)
    nothing = write(tmp_path / "d.tif", np.full((30, 20), 255, np.uint8))
    with pytest.raises(ValueError, match="expected pixels that have a class in both maps, found none"):
        compare_maps(a, nothing, tmp_path / "c.tif")
