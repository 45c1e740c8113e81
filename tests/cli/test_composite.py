# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `composite`."""

import numpy as np
import rasterio

from tests.command_line import assert_refused, run
from tests.granule_factory import CLOUD, MONTHS, SIZE, write_hls_granule
from tests.scene_factory import write_scene


def write_granules(folder):
    """Three dates, of which the first is all cloud and the last is the largest."""
    for number, (sensor, day) in enumerate(MONTHS, start=1):
        clouds = np.full(SIZE, CLOUD if number == 1 else 0, dtype=np.uint8)
        write_hls_granule(folder, sensor, day, pixels=np.full((6, *SIZE), 1000 * number, np.int16), fmask=clouds)
    return folder


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def test_granules_of_a_folder_become_one_file_that_predict_maps(tmp_path, model_folder, capsys):
    words = ["--scenes", write_granules(tmp_path / "granules"), "--output", tmp_path / "a.tif"]
    assert run("composite", *words) == 0
    output = capsys.readouterr()
    assert "72 x 90 pixels, CRS EPSG:32610, dates: 3, 100.0 % clear on at least one" in output.out
    assert "72/72" in output.err
    assert set(np.unique(read(tmp_path / "a.tif")[:6])) == {2500}
    assert run("composite", *words, "--fmask", "--quiet") == 0  # nothing is left out
    assert capsys.readouterr() == ("", "")
    assert set(np.unique(read(tmp_path / "a.tif")[:6])) == {2000}
    assert run("composite", *words, "--method", "clearest", "--quiet") == 0
    assert set(np.unique(read(tmp_path / "a.tif")[:6])) == {2000}
    options = ["--frames", tmp_path / "a.tif", "--output", tmp_path / "map.tif", "--device", "cpu", "--quiet"]
    assert run("predict", "--model", model_folder, *options) == 0
    assert read(tmp_path / "map.tif").shape == (1, *SIZE)


def test_the_bands_are_those_of_a_model(tmp_path, model_folder):
    words = ["--scenes", write_granules(tmp_path / "granules"), "--output", tmp_path / "a.tif", "--quiet"]
    assert run("composite", *words, "--model", model_folder, "--resolution", 60) == 0
    assert read(tmp_path / "a.tif").shape == (7, 36, 45)


def test_what_cannot_be_composed_is_refused_and_nothing_written(tmp_path, capsys):
    granules = write_granules(tmp_path / "granules")
    (tmp_path / "scenes").mkdir()
    write_scene(tmp_path / "scenes" / "a.tif")
    (tmp_path / "old.tif").write_bytes(b"old")
    for options, message in (
        (["--scenes", tmp_path / "none", "--output", tmp_path / "a.tif"], "found nothing there"),
        (["--scenes", tmp_path / "scenes", "--output", tmp_path / "a.tif"], "for the option fmask, found other files"),
        (["--scenes", granules, "--output", tmp_path / "none" / "a.tif"], "does not exist: create it first"),
        (["--scenes", granules, "--output", tmp_path / "old.tif", "--no_overwrite"], "exists already"),
        (["--scenes", granules, "--output", tmp_path / "a.tif", "--resolution", -1], "resolution: expected a side"),
    ):
        assert_refused(capsys, tmp_path, message, "composite", *options)
    [one, *_] = granules.rglob("*.B04.tif")
    one.write_bytes(one.read_bytes()[:-20])
    words = ["--scenes", granules, "--output", tmp_path / "a.tif"]
    assert_refused(capsys, tmp_path, one.name, "composite", *words)
