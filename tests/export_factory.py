# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A tiny model exported by the command line, once in each format for all tests that take one."""

from functools import cache

import pytest

from tests.command_line import run
from tests.scene_factory import save_model, scene_pixels, tiny_model, write_scene


FORMATS = {"openvino": ("openvino",), "onnx": ("onnx", "onnxscript", "onnxruntime"), "torch_export": ()}


def require(export_format):
    """Skip a test where the extra of a format is missing."""
    for package in FORMATS[export_format]:
        pytest.importorskip(package, reason=f"the extra {export_format} is not installed")


@cache
def _export(base, export_format):
    model, chips = base / "model", base / "chips"
    if not model.exists():
        save_model(model)
        (model / "recipe.yaml").write_text("dataset: geotiff_folder\n")
        chips.mkdir()
        write_scene(chips / "scene.tif", scene_pixels(60, 50))
    folder = base / export_format
    assert run("export", model, folder, "--format", export_format, "--check", chips) == 0
    return folder


def export_tiny(tmp_path_factory, export_format):
    """The folder of a tiny segmentation model, `tiny_model()`; `model` and `chips/scene.tif` are beside it."""
    require(export_format)
    base = tmp_path_factory.getbasetemp() / "exported"
    base.mkdir(exist_ok=True)
    return _export(base, export_format), tiny_model()
