# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The result of a prediction: what it reads from the files, and its report."""

import json

import pytest

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
