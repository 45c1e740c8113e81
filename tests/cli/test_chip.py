# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""`prithvi-hf chip`: the summary, options of bands in the recipe, Ctrl-C, and errors in one line."""

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from tests.command_line import assert_refused, folder_contents, run
from tests.scene_factory import scene_pixels, write_scene
from tests.vector_factory import make_stars, utm_grid, write_features


@pytest.fixture
def place(tmp_path):
    grid = utm_grid(200, 260)
    layout = {"crs": grid.crs, "transform": grid.transform}
    write_scene(tmp_path / "scene.tif", scene_pixels(200, 260), **layout)
    write_features(tmp_path / "fields.gpkg", make_stars(grid, 9, ["wheat", "barley"]))
    return tmp_path


def words_of(folder, *words):
    return ["chip", folder / "scene.tif", folder / "fields.gpkg", "--attribute", "crop", "--size", "32", *words]


def test_chips_are_counted_and_options_of_bands_are_in_the_recipe(place, capsys):
    output = place / "chips"
    names = ["B02", "B03", "B04", "B8A", "B11", "B12"]
    assert run(*words_of(place, "--output", output, "--band_names", *names, "--fractions", "0.8", "0.2", "0")) == 0
    printed = capsys.readouterr()
    assert "validation: " in printed.out
    assert "test: " not in printed.out
    assert f"recipe written to {output / 'recipe.yaml'}" in printed.out
    assert "pixels are in features" not in printed.err  # which belongs to a mask as a whole
    recipe = yaml.safe_load((output / "recipe.yaml").read_text())
    assert recipe["band_names"] == names
    assert recipe["test_splits"] == []


def test_other_bands_may_be_asked_for(place):
    write_scene(place / "drone.tif", scene_pixels(200, 260, bands=4), descriptions=["R", "G", "B", "N"])
    write_features(place / "all.gpkg", make_stars(utm_grid(200, 260), 9, ["wheat", "barley"]))
    layout = {"crs": utm_grid(1, 1).crs, "transform": utm_grid(1, 1).transform}
    write_scene(place / "drone.tif", scene_pixels(200, 260, bands=4), descriptions=["R", "G", "B", "N"], **layout)
    words = ["chip", place / "drone.tif", place / "all.gpkg", "--attribute", "crop", "--size", "32", "--quiet"]
    assert run(*words, "--output", place / "chips", "--bands", "RED", "GREEN", "BLUE") == 0
    assert yaml.safe_load((place / "chips" / "recipe.yaml").read_text())["bands"] == ["RED", "GREEN", "BLUE"]


def test_ctrl_c_keeps_what_is_done_and_the_same_command_continues(place):
    output = place / "chips"
    words = words_of(place, "--output", output, "--stride", "4", "--quiet")  # thousands of chips
    command = [sys.executable, "-m", "prithvi_hf.cli", *map(str, words)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and len(list(output.glob("masks/*.tif"))) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "prithvi-hf chip: interrupted" in errors
    assert "chips are done; the same command continues" in errors
    assert "Traceback" not in errors
    assert not list(output.glob(".prithvi-labels-*"))
    assert not (output / "recipe.yaml").exists()


def test_errors_are_one_line_and_name_the_remedy(place, capsys):
    words = words_of(place, "--output", place / "chips")
    for more, message in [
        (["--size", "300"], "found a side of 300. Give a smaller size"),
        (["--classes", "wheat"], "found barley (4 features) too"),
        (["--bands", "THERMAL"], "THERMAL"),
        (["--fractions", "0", "1", "0"], "fractions: expected three"),
        (["--num_frames", "4"], "num_frames"),
    ]:
        assert_refused(capsys, place, message, *words, *more)
    (place / "full").mkdir()
    (place / "full" / "a.txt").write_text("x")
    assert_refused(capsys, place, "expected a new or empty folder", *words[:-1], place / "full")
    before = folder_contents(place)
    if os.geteuid() != 0:
        (place / "full").chmod(0o500)
    assert run(*words[:-1], place / "scene.tif" / "chips") == 2
    assert "is not a folder" in capsys.readouterr().err
    assert folder_contents(place) == before
