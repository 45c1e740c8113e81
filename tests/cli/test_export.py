# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf export`, and the commands that take what it writes."""

import json

import numpy as np
import pytest
import rasterio

from tests.command_line import assert_refused, run
from tests.export_factory import require
from tests.scene_factory import save_model, scene_pixels, write_scene


def read_map(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("export_format", ["openvino", "onnx", "torch_export"])
def test_export_reload_and_predict(export_format, model_folder, tmp_path, capsys):
    require(export_format)
    (tmp_path / "chips").mkdir()
    scene, exported = write_scene(tmp_path / "chips" / "scene.tif", scene_pixels(60, 50)), tmp_path / "exported"
    arguments = ["export", model_folder, exported, "--format", export_format, "--check", tmp_path / "chips"]
    assert run(*arguments) == 0
    output = capsys.readouterr()
    assert "images of any size" in output.out
    assert output.out.count("float32   ") == 2
    assert output.err == ""
    report = json.loads((exported / "parity.json").read_text())
    assert report["float32"]["chips"]["class_agreement"] == 1.0
    assert report["float32"]["tiles"]["relative_difference"] < 1e-5
    assert ("bfloat16" in report) == (export_format == "openvino")

    options = ["--frames", scene, "--device", "cpu", "--quiet"]
    trust = ["--trust_remote_code"] if export_format == "torch_export" else []
    assert run("predict", "--model", model_folder, "--output", tmp_path / "own.tif", *options) == 0
    assert run("predict", "--model", exported, "--output", tmp_path / "map.tif", *options, *trust) == 0
    assert np.array_equal(read_map(tmp_path / "own.tif"), read_map(tmp_path / "map.tif"))
    if export_format == "openvino":
        options += ["--dtype", "bfloat16"]
        assert run("predict", "--model", exported, "--output", tmp_path / "half.tif", *options) == 0
        assert (read_map(tmp_path / "half.tif") == read_map(tmp_path / "own.tif")).mean() > 0.98
    capsys.readouterr()
    assert run("info", exported) == 0
    assert f"exported to {export_format}" in capsys.readouterr().out


def test_what_cannot_be_exported_is_refused_before_anything_is_written(model_folder, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "none").mkdir()
    new, form = tmp_path / "new", ("--format", "torch_export")
    assert_refused(capsys, tmp_path, "new or empty folder", "export", model_folder, tmp_path / "full", *form)
    message = "Expected GeoTIFF chips of the model's bands"
    assert_refused(capsys, tmp_path, message, "export", model_folder, new, *form, "--check", tmp_path / "none")


def test_a_graph_that_differs_from_the_model_is_refused(model_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("prithvi_hf.conversion.export_prithvi.ROUNDING", -1.0)
    arguments = ("export", model_folder, tmp_path / "new", "--format", "torch_export", "--fixed_size")
    assert_refused(capsys, tmp_path, "logits differ by", *arguments)
