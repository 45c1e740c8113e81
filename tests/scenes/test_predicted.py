# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The result of a prediction: what it reads from the files, and its report."""

import json

import pytest
from matplotlib.axes import Axes

from prithvi_hf.scenes import predict_scene
from tests.scene_factory import CRS_UTM, TRANSFORM, scene_pixels, tiny_model, tiny_processor, write_scene


QUIET = {"show_progress": False}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def test_result_and_report(tmp_path, model):
    pixels = scene_pixels()
    pixels[:, :18] = -9999
    scene = write_scene(tmp_path / "scene.tif", pixels)
    result = predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", batch_size=3, **QUIET)
    counts = {name: int((result.mask == index).sum()) for index, name in model.config.id2label.items()}
    assert result.class_counts() == {**counts, "no data": 18 * 90}
    assert (result.shape, result.crs, tuple(result.transform)) == ((72, 90), CRS_UTM, tuple(TRANSFORM))
    assert result.probabilities is None
    result.to_json(tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report == result.report
    assert report["nodata_fraction"] == 0.25
    assert report["files"] == [str(scene)]
    assert report["outputs"] == {"map": str(tmp_path / "map.tif")}
    assert report["strips"] == {"total": 4, "resumed": 0, "computed": 4}
    assert (report["crs"], report["height"], report["width"]) == ("EPSG:32720", 72, 90)
    assert report["options"]["batch_size"] == 3
    assert report["bad_windows"] == []
    assert set(report["seconds"]) == {"reading", "model", "waiting", "writing", "finishing", "total"}
    result.report = {}
    assert result.class_counts() == {**counts, "no data": 18 * 90}


def test_no_pixel_is_lost_in_the_report_and_making_polygons_shows_its_progress(tmp_path, capfd):
    model = tiny_model()
    model.config.id2label = {0: "crop", 1: "crop", 2: "no data"}
    pixels = scene_pixels(40, 45)
    pixels[:, :9] = -9999
    scene = write_scene(tmp_path / "scene.tif", pixels)
    result = predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", polygons=True, report=True)
    counts = {f"{name} ({index})": int((result.mask == index).sum()) for index, name in model.config.id2label.items()}
    expected = {**counts, "no data": 9 * 45}
    assert sum(expected.values()) == 40 * 45
    report = json.loads(result.outputs["report"].read_text())
    assert report["class_pixels"] == result.class_counts() == expected
    result.report = {}
    assert result.class_counts() == expected
    assert result.to_polygons().class_value.nunique() == 3
    assert "polygons: 100%" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("bands", "dates", "title"),
    [
        (("GREEN", "RED", "NIR_NARROW"), None, "scene\nNIR_NARROW, RED, GREEN in false colours"),
        (("BLUE", "GREEN", "RED"), ["2022-08-06"], "scene, 2022-08-06"),
    ],
)
def test_the_quick_look_says_what_it_shows(tmp_path, monkeypatch, bands, dates, title):
    titles, set_title = [], Axes.set_title
    monkeypatch.setattr(Axes, "set_title", lambda axes, text: titles.append(text) or set_title(axes, text))
    processor = tiny_processor(bands=list(bands), image_mean=[1500.0] * 3, image_std=[800.0] * 3)
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(40, 45, bands=3), descriptions=bands)
    model = tiny_model(bands=list(bands), num_channels=3)
    options = {} if dates is None else {"dates": dates}
    predict_scene(model, processor, scene, tmp_path / "map.tif", quicklook=True, **options, **QUIET)
    assert titles == [title, "classes"]
