# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The dtype of a scene, and models compiled for its tiles."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch._inductor.config

from prithvi_hf.models.prithvi import inference_dtype_prithvi as inference_dtype
from prithvi_hf.rasters.raster import GeoTiffError
from prithvi_hf.scenes.engine import predict_tiles
from prithvi_hf.scenes.inference import CompiledModel, compile_model, sample_tiles
from prithvi_hf.scenes.predict_scene import predict_scene
from prithvi_hf.scenes.reading import TileBatch, TileSource
from prithvi_hf.scenes.scene import open_scene
from prithvi_hf.scenes.tiles import TilePlan
from tests.scene_factory import WINDOW, scene_pixels, tiny_model, tiny_processor, tiny_regressor, write_scene


QUIET = {"show_progress": False}


class Small(torch.nn.Module):
    """A model that is compiled in no time."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.config = SimpleNamespace(num_channels=6, coords_encoding=["location"])
        self.sizes = []

    device = property(lambda self: self.weight.device)
    dtype = property(lambda self: self.weight.dtype)

    def forward(self, pixel_values, location_coords):
        mean = pixel_values.mean(dim=2) * self.weight
        return SimpleNamespace(logits=mean[:, :2] + location_coords[:, :, None, None])


@pytest.fixture
def units(monkeypatch):
    """A machine that is made for bfloat16."""
    monkeypatch.setattr(inference_dtype, "find_matrix_units", lambda device: "units of a test")


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "scene.tif", scene_pixels(64, 70))


def test_sampled_tiles_are_those_of_the_run(tmp_path):
    pixels = scene_pixels(96, 130)
    pixels[:, :60, :100] = -9999
    scene = open_scene(write_scene(tmp_path / "scene.tif", pixels), tiny_processor())
    model = tiny_model(coords_encoding=["location"])
    plan = TilePlan.for_model(model.config, 96, 130)
    source = TileSource(scene, tiny_processor(), plan, range(plan.num_strips), 1, ("location",))
    expected = [item for item in source if isinstance(item, TileBatch)]
    found = list(sample_tiles(scene, tiny_processor(), plan, model.config))
    assert 5 < len(found) <= len(expected)  # tiles without data are in neither
    for inputs, valid in found:
        same = [one for one in expected if torch.equal(one.pixel_values, inputs["pixel_values"])]
        assert len(same) == 1
        place = {"rtol": 0, "atol": 1e-5}
        torch.testing.assert_close(inputs["location_coords"], same[0].coordinates["location_coords"], **place)
        assert valid.shape == (1, WINDOW, WINDOW)
        assert valid.sum() > 0
    assert any(not valid.all() for _, valid in found)


def test_damage_is_told_of_by_the_run_in_rows_of_the_scene(units, tmp_path):
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    path = write_scene(tmp_path / "scene.tif", scene_pixels(300, 70), **options)
    content = bytearray(path.read_bytes())
    start, stop = (len(content) * percent // 100 for percent in (60, 95))
    content[start:stop] = b"\xff" * (stop - start)
    path.write_bytes(content)
    with pytest.raises(GeoTiffError, match=r"rows (128|192|256) to \d+"):
        predict_scene(tiny_model(), tiny_processor(), path, tmp_path / "map.tif", dtype="auto", **QUIET)


@pytest.mark.parametrize("kind", [tiny_model, tiny_regressor])
def test_auto_is_in_the_report_and_is_the_map_of_the_dtype(units, tmp_path, scene, kind):
    model = kind()
    auto = predict_scene(model, tiny_processor(), scene, tmp_path / "auto.tif", dtype="auto", **QUIET)
    assert auto.report["dtype"]["chosen"] == auto.report["options"]["dtype"] == "bfloat16"
    assert auto.report["dtype"]["agreement"] > 0.995
    assert model.dtype == torch.float32
    half = predict_scene(model, tiny_processor(), scene, tmp_path / "half.tif", dtype="bfloat16", **QUIET)
    assert half.report["dtype"] == {"chosen": "bfloat16", "reason": "as asked for", "agreement": None}
    assert (tmp_path / "auto.tif").read_bytes() == (tmp_path / "half.tif").read_bytes()


def test_auto_is_float32_where_classes_change(units, tmp_path, scene):
    model = tiny_model()
    with torch.no_grad():  # classes by differences that bfloat16 does not keep
        model.decode_head.classifier.weight.mul_(1e-3)
        model.decode_head.classifier.bias.fill_(1.0)
    auto = predict_scene(model, tiny_processor(), scene, tmp_path / "auto.tif", dtype="auto", **QUIET)
    assert auto.report["dtype"]["chosen"] == "float32"
    assert auto.report["dtype"]["agreement"] < 0.995
    predict_scene(model, tiny_processor(), scene, tmp_path / "as_is.tif", **QUIET)
    assert (tmp_path / "auto.tif").read_bytes() == (tmp_path / "as_is.tif").read_bytes()


def test_a_scene_without_data_stays_in_float32(units, tmp_path):
    scene = write_scene(tmp_path / "scene.tif", np.full((6, 70, 70), -9999, dtype=np.int16))
    result = predict_scene(tiny_model(), tiny_processor(), scene, tmp_path / "map.tif", dtype="auto", **QUIET)
    assert result.report["dtype"]["chosen"] == "float32"
    assert "no tile with data" in result.report["dtype"]["reason"]


def test_an_interrupted_run_in_the_dtype_of_its_check_continues(units, tmp_path, scene, monkeypatch):
    model, options = tiny_model(), {**QUIET, "batch_size": 2, "dtype": "auto"}
    predict_scene(model, tiny_processor(), scene, tmp_path / "whole.tif", **options)

    def interrupt(*_, **__):
        raise RuntimeError("interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[predict_scene.__module__], "finish_map", interrupt)
        with pytest.raises(RuntimeError, match="interrupted"):
            predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", **options)
    result = predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", **options)
    assert result.report["strips"]["computed"] == 0
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_compiled_batches_are_filled_up_and_every_size_is_one_graph():
    model, graphs = Small().eval(), []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = CompiledModel(model, batch_size=4)
    compiled.compiled = torch.compile(model, dynamic=False, backend=count)
    for size in (4, 1, 3, 4):
        tiles, places = torch.randn(size, 6, 1, 8, 8), {"location_coords": torch.randn(size, 2)}
        found = predict_tiles(compiled, tiles, places)
        torch.testing.assert_close(found, model(tiles, **places).logits)
    assert len(graphs) == 1


def test_a_compiled_model_is_kept_for_the_next_scene_with_the_weights_of_that_time():
    model = Small().eval()
    _, first = compile_model(model, "bfloat16", 2, (8, 8), num_frames=1)
    with torch.no_grad():
        model.weight.fill_(3)
    converted, second = compile_model(model, "bfloat16", 2, (8, 8), num_frames=1)
    assert second is first
    tiles = torch.ones(1, 6, 1, 8, 8, dtype=torch.bfloat16)
    assert (predict_tiles(second, tiles, {"location_coords": torch.zeros(1, 2)}) == 3).all()
    assert (converted.dtype, model.dtype) == (torch.bfloat16, torch.float32)


def test_without_a_compiler_nothing_is_begun(tmp_path, scene):
    without = torch._inductor.config.patch({"cpp.cxx": ("/nowhere/g++",), "force_disable_caches": True})
    with without, pytest.raises(ValueError, match=r"cannot be compiled here.*C\+\+ compiler.*leave --compile out"):
        predict_scene(tiny_model(), tiny_processor(), scene, tmp_path / "map.tif", compile=True, **QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_a_graph_that_is_compiled_already_is_refused():
    with pytest.raises(ValueError, match="Expected a model of PyTorch to compile, found a SimpleNamespace"):
        compile_model(SimpleNamespace(export_format="onnx"), "float32", 1, (8, 8), num_frames=1)


@pytest.mark.slow
def test_a_compiled_model_gives_the_same_classes(tmp_path, scene):
    model = tiny_model()
    plain = predict_scene(model, tiny_processor(), scene, tmp_path / "plain.tif", **QUIET)
    compiled = predict_scene(model, tiny_processor(), scene, tmp_path / "compiled.tif", compile=True, **QUIET)
    assert (plain.report["compiled"], compiled.report["compiled"]) == (False, True)
    assert (plain.mask == compiled.mask).mean() > 0.999


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "auto"])
def test_cuda_graphs_give_the_same_classes(tmp_path, scene, dtype):
    options = {**QUIET, "device": "cuda", "dtype": dtype, "batch_size": 4}
    plain = predict_scene(tiny_model(), tiny_processor(), scene, tmp_path / "plain.tif", **options)
    compiled = predict_scene(tiny_model(), tiny_processor(), scene, tmp_path / "c.tif", compile=True, **options)
    assert plain.report["dtype"]["chosen"] == compiled.report["dtype"]["chosen"]
    assert (plain.mask == compiled.mask).mean() > 0.99
