# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Tiny models exported to graphs, once for all tests that take one."""

from functools import cache

import pytest

from prithvi_hf.conversion.export_prithvi import export_model
from prithvi_hf.models.prithvi.exported_prithvi import FORMATS
from tests.scene_factory import tiny_model, tiny_processor


PACKAGES = {"openvino": ("openvino",), "onnx": ("onnx", "onnxscript", "onnxruntime"), "torch_export": ()}
assert PACKAGES.keys() == FORMATS.keys()


def require(export_format):
    """Skip a test where the extra of a format is missing."""
    for package in PACKAGES[export_format]:
        pytest.importorskip(package, reason=f"the extra {export_format} is not installed")


@cache
def _export(base, export_format):
    model = tiny_model()
    report = export_model(model, tiny_processor(), base / export_format, export_format)
    return base / export_format, model, report


def export_tiny(tmp_path_factory, export_format):
    """Folder, model and report of a tiny segmentation model."""
    require(export_format)
    base = tmp_path_factory.getbasetemp() / "exported"
    base.mkdir(exist_ok=True)
    return _export(base, export_format)
