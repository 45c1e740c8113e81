# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""`prithvi-hf rasterize`: a mask with its summary, warnings of features, and errors in one line."""

import geopandas as gpd
import numpy as np
import pytest
import shapely

from tests.command_line import assert_refused, run
from tests.granule_factory import write_hls_granule
from tests.scene_factory import read_map, scene_pixels, write_scene
from tests.vector_factory import make_stars, paint, utm_grid, write_features


@pytest.fixture
def place(tmp_path):
    grid = utm_grid(60, 80)
    write_scene(tmp_path / "scene.tif", scene_pixels(60, 80), crs=grid.crs, transform=grid.transform)
    stars = make_stars(grid, 12, ["wheat", "barley"])
    write_features(tmp_path / "fields.gpkg", stars)
    return tmp_path, paint(stars, grid, {"barley": 0, "wheat": 1})


def test_a_mask_is_written_and_its_classes_are_printed(place, capsys):
    folder, expected = place
    words = ["rasterize", folder / "fields.gpkg", "--like", folder / "scene.tif", "--attribute", "crop"]
    assert run(*words, "--output", folder / "mask.tif") == 0
    np.testing.assert_array_equal(read_map(folder / "mask.tif"), expected)
    printed = capsys.readouterr()
    assert "12 features, 0 of them outside the scene" in printed.out
    assert f"  1 wheat                    {(expected == 1).sum():>14} pixels" in printed.out
    assert "pixels are in features of several classes; the later feature in the file is on top" in printed.err
    assert run(*words, "--output", folder / "quiet.tif", "--quiet", "--classes", "wheat", "barley") == 0
    assert capsys.readouterr().out == ""
    assert (read_map(folder / "quiet.tif") == 0).sum() == (expected == 1).sum()


def test_the_grid_of_a_granule_is_taken_from_its_folder(tmp_path):
    write_hls_granule(tmp_path / "granules", "S30", (2022, 6, 7), tile="10SEH")
    (granule,) = (tmp_path / "granules").iterdir()
    whole = gpd.GeoDataFrame({"crop": ["wheat"]}, geometry=[shapely.box(-180, -80, 180, 80)], crs=4326)
    write_features(tmp_path / "a.geojson", whole)
    output = tmp_path / "mask.tif"
    assert run("rasterize", tmp_path / "a.geojson", "--like", granule, "--attribute", "crop", "--output", output) == 0
    assert (read_map(output) == 0).all()


def test_errors_are_one_line_and_nothing_is_written(place, capsys):
    folder, _ = place
    words = ["rasterize", folder / "fields.gpkg", "--like", folder / "scene.tif", "--output", folder / "mask.tif"]
    assert_refused(capsys, folder, "expected the attribute that tells the class", *words)
    assert_refused(capsys, folder, "an attribute class, found crop", *words, "--attribute", "class")
    assert_refused(
        capsys, folder, "found barley (6 features) too", *words, "--attribute", "crop", "--classes", "wheat"
    )
    assert_refused(capsys, folder, "is also an input", *words[:4], "--output", folder / "scene.tif")
    run(*words, "--attribute", "crop")
    assert_refused(capsys, folder, "exists already", *words, "--attribute", "crop", "--no_overwrite")
