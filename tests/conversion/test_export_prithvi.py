# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Graphs of models of every task, with dates and places, and how far they are from the models."""

import os

import numpy as np
import pytest
import torch

from prithvi_hf.conversion.export_prithvi import (
    export_model,
    make_tiles,
    measure_parity,
    read_chips,
    report_parity,
    trace_graph,
)
from prithvi_hf.models.prithvi.classification_prithvi import PrithviForImageClassification
from prithvi_hf.models.prithvi.exported_prithvi import PrithviExportedModel
from tests.export_factory import require
from tests.scene_factory import scene_pixels, tiny_model, tiny_processor, tiny_regressor, write_scene
from tests.upsampling_factory import make_model


def parity(model, exported, *samples):
    return measure_parity(model, {"graph": exported}, samples)["graph"]


@pytest.mark.slow
def test_dates_and_places_go_into_the_graph_and_values_come_out_of_it_in_their_unit():
    """In bfloat16 a year would be off by three, and 120 Mg/ha by a half; neither is in the graph."""
    require("openvino")
    model = tiny_regressor(num_frames=3, coords_encoding=["time", "location"], coords_scale_learn=True)
    for parameter in model.prithvi.embeddings.coordinates.parameters():
        torch.nn.init.constant_(parameter, 2.0)
    graph, runtime = trace_graph(model, "torch_export"), trace_graph(model, fixed_size=True)
    known = make_tiles(model.config, 2, (32, 32))
    partly = {name: values.clone() for name, values in known.items()}
    partly["temporal_coords"][0, 1] = torch.nan
    partly["location_coords"][1] = torch.nan
    without = {"pixel_values": known["pixel_values"]}
    assert (model(**known).logits - model(**without).logits).abs().max() > 0.01
    for exported in (graph, runtime):
        assert parity(model, exported, known, partly, without)["relative_difference"] < 1e-5
    wide = make_tiles(model.config, 2, (32, 40))
    assert parity(model, graph, wide)["relative_difference"] < 1e-5
    assert graph(**wide).predicted_values.shape == (2, 32, 40)
    half = parity(model, runtime.to(torch.bfloat16), known)
    assert half["relative_difference"] < 0.01
    assert half["class_agreement"] is None


def test_images_are_classified():
    options = {"problem_type": "regression", "target_mean": 5.0, "target_std": 2.0}
    model = tiny_model(kind=PrithviForImageClassification, **options)
    exported = trace_graph(model, "torch_export")
    samples = [make_tiles(model.config, count, size) for count, size in ((1, (32, 32)), (3, (40, 37)))]
    assert parity(model, exported, *samples)["relative_difference"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("export_format", "options"),
    [
        ("torch_export", {"image_size": [32, 16], "num_frames": 2}),
        ("onnx", {"input_upsampling": 1.75, "image_size": 64, "num_frames": 2}),
        ("openvino", {"input_upsampling": 0.5}),
    ],
)
def test_sizes_stay_open_for_a_tile_of_few_patches_and_for_images_that_are_upsampled(export_format, options):
    require(export_format)
    model = make_model(**options)
    exported = trace_graph(model, export_format)
    samples = [make_tiles(model.config, 2, size) for size in ((32, 16), (38, 90), (5, 9))]
    assert parity(model, exported, *samples)["relative_difference"] < 1e-5


def test_a_graph_of_one_size_pads_smaller_images_and_refuses_larger_ones():
    model = tiny_model()
    exported = trace_graph(model, "torch_export", fixed_size=True)
    assert exported.fixed_size == (32, 32)
    assert parity(model, exported, make_tiles(model.config, 3, (32, 32)))["relative_difference"] < 1e-5
    assert exported(torch.zeros(1, 6, 1, 20, 32)).logits.shape == (1, 3, 20, 32)
    with pytest.raises(ValueError, match=r"at most \(32, 32\) pixels.*Give --window 32"):
        exported(torch.zeros(1, 6, 1, 33, 32))


def test_parity_sees_what_differs():
    model, other = tiny_model(), tiny_model()
    with torch.no_grad():
        other.decode_head.classifier.bias += torch.tensor([0.0, 100.0, 0.0])
    sample = make_tiles(model.config, 1, (32, 32))
    found = parity(model, other, sample)
    assert found["difference"] == pytest.approx(100, rel=1e-3)
    assert found["class_agreement"] == pytest.approx((model(**sample).logits.argmax(1) == 1).float().mean().item())
    with torch.no_grad():
        other.decode_head.classifier.bias.fill_(torch.nan)
    assert parity(model, other, sample)["difference"] == np.inf


def test_chips_are_read_and_masks_beside_them_left_out(tmp_path):
    (tmp_path / "deep").mkdir()
    write_scene(tmp_path / "deep" / "a.tif", scene_pixels(40, 45))
    write_scene(tmp_path / "a.mask.tif", scene_pixels(40, 45, bands=1))
    [scene] = read_chips(tmp_path, tiny_model(), tiny_processor())
    assert scene.pixel_values.shape == (1, 6, 1, 40, 45)
    (tmp_path / "deep" / "a.tif").unlink()
    write_scene(tmp_path / "empty.tif", np.full((6, 40, 45), -9999, np.int16))
    with pytest.raises(ValueError, match="Expected GeoTIFF chips of the model's bands"):
        list(read_chips(tmp_path, tiny_model(), tiny_processor()))


def test_a_model_in_half_precision_is_compared_in_float32_as_its_graph_is(tmp_path):
    model = tiny_model().to(torch.bfloat16)
    report = export_model(model, tiny_processor(), tmp_path / "graph", "torch_export", fixed_size=True)
    assert report["float32"]["tiles"]["relative_difference"] < 1e-5
    assert model.dtype == torch.bfloat16
    exported = PrithviExportedModel.from_pretrained(tmp_path / "graph", trust_remote_code=True)
    with pytest.raises(ValueError, match="Expected a model with weights, found an exported one"):
        export_model(exported, tiny_processor(), tmp_path / "again", "torch_export")


def test_chips_that_a_graph_of_one_size_would_pad_are_not_compared(tmp_path):
    """The model takes them as they are, the graph padded by reflection: neither is wrong."""
    for size in (20, 40):
        write_scene(tmp_path / f"{size}.tif", scene_pixels(size, 45))
    model = tiny_model()
    exported = trace_graph(model, "torch_export", fixed_size=True)
    report = report_parity(model, exported, list(read_chips(tmp_path, model, tiny_processor())))
    assert report["num_chips"] == 1
    assert report["float32"]["chips"]["relative_difference"] < 1e-5


def test_a_full_disk_is_named_and_nothing_stays(tmp_path, monkeypatch):
    """As OpenVINO's writer says it, which is no fault of the graph."""

    def fail(*_):
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr("prithvi_hf.conversion.export_prithvi.trace_graph", fail)
    with pytest.raises(OSError, match="found the disk full"):
        export_model(tiny_model(), tiny_processor(), tmp_path / "new", "torch_export")
    assert os.listdir(tmp_path) == []
