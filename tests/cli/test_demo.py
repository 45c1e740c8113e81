# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""`prithvi-hf demo`: what it refuses before it serves anything. What it serves is in tests/demo/test_app.py."""

import os
import socket
import sys
from importlib.util import find_spec

import pytest

from tests.command_line import assert_refused, run
from tests.scene_factory import tiny_processor, tiny_regressor, write_scene


needs_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="the extra demo is not installed")


def test_the_extra_is_named_where_gradio_is_missing(model_folder, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert_refused(capsys, tmp_path, 'pip install "prithvi_hf[demo]"', "demo", "--model", model_folder)


@needs_gradio
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", 0], "--port: expected a number from 1 to 65535, found 0"),
        (["--port", 65536], "found 65536"),
        (["--max_megapixels", -1], "max_megapixels: expected a number above 0, found -1"),
        (["--max_seconds", "nan"], "max_seconds: expected a number above 0"),
        (["--examples", "nowhere"], "nowhere: expected a folder of GeoTIFFs"),
        (["--max_cloud", 50], "say how scenes are searched for: add --collection"),
        (["--collection", "everything"], "Expected collections of hls, sentinel-2-l2a, landsat-c2-l2"),
        (["--device", "abacus"], "--device abacus cannot be used here"),
    ],
)
def test_options_out_of_range_are_refused(model_folder, capsys, tmp_path, words, message):
    assert_refused(capsys, tmp_path, message, "demo", "--model", model_folder, *words)


@needs_gradio
def test_a_model_of_values_is_refused(capsys, tmp_path):
    tiny_regressor().save_pretrained(tmp_path / "model")
    tiny_processor().save_pretrained(tmp_path / "model")
    assert_refused(capsys, tmp_path, "segmentation", "demo", "--model", tmp_path / "model")


@needs_gradio
def test_a_port_that_is_taken_is_refused_and_no_file_stays(model_folder, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = os.environ.get("GRADIO_TEMP_DIR")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = f"--port: expected a port that is free, found {port} taken"
        assert_refused(capsys, tmp_path, message, "demo", "--model", model_folder, "--port", port)
    assert os.environ.get("GRADIO_TEMP_DIR") == before


@needs_gradio
def test_examples_that_are_left_out_are_named(model_folder, capsys, tmp_path):
    write_scene(tmp_path / "large.tif")
    words = ["--model", model_folder, "--examples", tmp_path, "--max_megapixels", 0.001]
    assert run("demo", *words) == 2
    error = capsys.readouterr().err
    assert "prithvi-hf: warning: large is no example" in error
    assert "expected GeoTIFFs that the model can map, found none" in error
