# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf export`, and the commands that take what it writes."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.command_line import assert_refused, run
from tests.export_factory import FORMATS, export_tiny
from tests.scene_factory import read_map


@pytest.mark.slow
@pytest.mark.parametrize("export_format", FORMATS)
def test_export_reload_and_predict(export_format, tmp_path_factory, tmp_path, capsys):
    exported, _ = export_tiny(tmp_path_factory, export_format)
    report = json.loads((exported / "parity.json").read_text())
    assert report["fixed_size"] is None
    assert report["float32"]["chips"]["class_agreement"] == 1.0
    assert report["float32"]["tiles"]["relative_difference"] < 1e-5
    assert ("bfloat16" in report) == (export_format == "openvino")
    assert (exported / "recipe.yaml").read_text() == "dataset: geotiff_folder\n"  # for evaluate
    card = (exported / "README.md").read_text()
    assert ("--trust_remote_code" in card and "trust_remote_code=True" in card) == (export_format == "torch_export")

    capsys.readouterr()
    options = ["--frames", exported.parent / "chips" / "scene.tif", "--device", "cpu", "--quiet"]
    trust = ["--trust_remote_code"] if export_format == "torch_export" else []
    assert run("predict", "--model", exported.parent / "model", "--output", tmp_path / "own.tif", *options) == 0
    assert run("predict", "--model", exported, "--output", tmp_path / "map.tif", *options, *trust) == 0
    assert np.array_equal(read_map(tmp_path / "own.tif"), read_map(tmp_path / "map.tif"))
    if export_format == "openvino":
        options += ["--dtype", "bfloat16"]
        assert run("predict", "--model", exported, "--output", tmp_path / "half.tif", *options) == 0
        assert (read_map(tmp_path / "half.tif") == read_map(tmp_path / "own.tif")).mean() > 0.98
    assert capsys.readouterr() == ("", "")
    assert run("info", exported) == 0
    assert f"exported to {export_format}, for batches of any size, images of any size" in capsys.readouterr().out


WITHOUT_NAMES = """
import runpy, socket

def refuse(*arguments, **options):
    print("looked up", arguments)
    raise OSError

socket.getaddrinfo = refuse
runpy.run_module("prithvi_hf.cli", run_name="__main__")
"""


@pytest.mark.slow
def test_a_process_of_its_own_maps_with_the_exported_model_and_looks_up_no_address(tmp_path_factory, tmp_path):
    """OpenVINO alone would report its use to its makers from the moment it is imported."""
    exported, _ = export_tiny(tmp_path_factory, "openvino")
    scene, output = exported.parent / "chips" / "scene.tif", tmp_path / "map.tif"
    words = ["predict", "--model", exported, "--frames", scene, "--output", output, "--quiet"]
    command = [sys.executable, "-c", WITHOUT_NAMES, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert read_map(output).shape == (60, 50)


def test_what_cannot_be_exported_is_refused_before_anything_is_written(model_folder, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "none").mkdir()
    new, form = tmp_path / "new", ("--format", "torch_export")
    assert_refused(capsys, tmp_path, "new or empty folder", "export", model_folder, tmp_path / "full", *form)
    message = "Expected GeoTIFF chips of the model's bands"
    assert_refused(capsys, tmp_path, message, "export", model_folder, new, *form, "--check", tmp_path / "none")


def test_an_exported_folder_is_refused_where_weights_are_needed(tmp_path_factory, tmp_path, capsys):
    folder, _ = export_tiny(tmp_path_factory, "openvino")
    scene, message = folder.parent / "chips" / "scene.tif", "Expected a model with weights"
    assert_refused(capsys, tmp_path, message, "export", folder, tmp_path / "new")
    embed = ("embed", "--model", folder, "--frames", scene, "--output", tmp_path / "embedding.tif")
    assert_refused(capsys, tmp_path, message, *embed)
    finetune = ("finetune", "--config", "sen1floods11", "--model", folder, "--data_dir", tmp_path)
    assert_refused(capsys, tmp_path, message, *finetune, "--output_dir", tmp_path / "run")


def test_a_graph_that_differs_from_the_model_is_refused(model_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("prithvi_hf.conversion.export_prithvi.ROUNDING", -1.0)
    arguments = ("export", model_folder, tmp_path / "new", "--format", "torch_export", "--fixed_size")
    assert_refused(capsys, tmp_path, "logits differ by", *arguments)
