# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Models in int8: what they are calibrated with, what they cost, and when they are refused."""

import json

import pytest

from prithvi_hf import PrithviForSemanticSegmentation
from prithvi_hf.conversion.export_prithvi import read_chips
from prithvi_hf.conversion.quantize_prithvi import collect_tiles, export_int8, make_quantizer, measure_drop
from prithvi_hf.training.evaluation import make_evaluation_recipe
from tests import finetune_factory
from tests.command_line import assert_refused, run
from tests.export_factory import require
from tests.finetune_factory import RECIPE, make_chips
from tests.scene_factory import save_model, scene_pixels, tiny_model, tiny_processor, tiny_regressor, write_scene


@pytest.fixture(scope="module")
def chips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chips")
    for seed in range(2):
        write_scene(folder / f"{seed}.tif", scene_pixels(60, 50, seed=seed))
    return folder


def test_the_cost_is_measured_on_labels_where_there_are_some(tmp_path):
    data, cache = make_chips(tmp_path / "data"), json.dumps({"cache_dir": str(tmp_path / "cache")})
    options = {
        "data_dir": data,
        "dataset_options": cache,
        "use_cpu": "true",
        "disable_tqdm": "true",
        "eval_window": 32,
    }
    recipe = make_evaluation_recipe([RECIPE], tmp_path / "run", **options)
    model, other = (
        PrithviForSemanticSegmentation.from_pretrained(
            finetune_factory.save_model(tmp_path / name, recipe.data.class_names, unused)
        )
        for name, unused in (("model", ()), ("other", (1,)))
    )
    processor = recipe.build_image_processor()
    assert measure_drop(model, model, processor, [], recipe)["drop"] == 0
    cost = measure_drop(model, other, processor, [], recipe, ["test"])
    assert cost["metric"] == "mean_iou"
    assert cost["splits"] == ["test"]
    assert cost["drop"] == pytest.approx(cost["float32"] - cost["int8"])
    assert 0 < cost["int8"] < cost["float32"] < 100


@pytest.mark.slow
@pytest.mark.parametrize("export_format", ["openvino", "onnx"])
def test_a_model_in_int8_is_exported_and_predicts(export_format, chips, tmp_path, capsys):
    require(export_format)
    pytest.importorskip("nncf", reason="NNCF, of the extras openvino and onnx, is not installed")
    model, exported = save_model(tmp_path / "model"), tmp_path / "int8"
    arguments = ["export", model, exported, "--format", export_format, "--int8", "--calibration", chips]
    assert run(*arguments, "--max_drop", "30") == 0
    output, errors = capsys.readouterr()
    report = json.loads((exported / "parity.json").read_text())
    assert report["int8"]["tiles"] == 8  # two chips of two by two tiles
    assert 70 < report["int8"]["int8"] <= 100
    assert f"int8: class_agreement {report['int8']['int8']:.2f}, in float32 100.00" in output
    assert "int8, rest float32 tiles: " in output
    assert "% of the pixels" not in errors  # which --max_drop is for
    assert f"exported to {export_format} in int8" in (exported / "README.md").read_text()
    assert run("info", exported) == 0
    assert f"exported to {export_format} in int8, for batches" in capsys.readouterr().out
    # It is in int8, and not the model's graph by another name.
    assert 1e-4 < report["float32"]["tiles"]["relative_difference"] < 0.3
    maps = ["--frames", chips / "0.tif", "--output", tmp_path / "map.tif", "--device", "cpu", "--quiet"]
    assert run("predict", "--model", exported, *maps) == 0


def test_int8_that_costs_too_much_is_refused(chips, tmp_path, capsys, monkeypatch):
    cost = {"metric": "mean_iou", "float32": 80.0, "int8": 78.9, "drop": 1.1}
    monkeypatch.setattr("prithvi_hf.conversion.quantize_prithvi.measure_drop", lambda *arguments: cost)
    monkeypatch.setattr("prithvi_hf.conversion.quantize_prithvi.make_quantizer", lambda *arguments: None)
    model = save_model(tmp_path / "model")
    arguments = ("export", model, tmp_path / "new", "--format", "torch_export", "--fixed_size", "--int8")
    message = "at most 1 points of mean_iou, found 1.10: 80.00 in float32"
    assert_refused(capsys, tmp_path, message, *arguments, "--calibration", chips)


def test_tiles_are_what_the_model_is_called_with(chips):
    model = tiny_model(coords_encoding=["location"])
    tiles = collect_tiles(model, read_chips(chips, model, tiny_processor()))
    assert len(tiles) == 8
    assert {tile["pixel_values"].shape for tile in tiles} == {(1, 6, 1, 32, 32)}
    assert len(collect_tiles(model, read_chips(chips, model, tiny_processor()), most=3)) == 3
    assert not model._forward_pre_hooks


def test_a_regression_is_not_judged_without_labels(chips):
    require("openvino")
    pytest.importorskip("nncf", reason="the extra openvino is not installed")
    model = tiny_regressor()
    samples = list(read_chips(chips, model, tiny_processor()))
    with pytest.raises(ValueError, match="Expected labels to measure what int8 costs a regression"):
        measure_drop(model, model, tiny_processor(), samples)
    with pytest.raises(ValueError, match="Expected labels to measure what int8 costs a regression"):
        export_int8(model, tiny_processor(), chips / "new", chips)


def test_wrong_options_are_refused(chips, tmp_path, capsys):
    model = save_model(tmp_path / "model")
    export = ("export", model, tmp_path / "new")
    assert_refused(capsys, tmp_path, "Expected --int8 and --calibration DIR together", *export, "--int8")
    message = "Expected --config, --max_drop with --int8"
    assert_refused(capsys, tmp_path, message, *export, "--config", "sen1floods11", "--max_drop", "2")
    quantized = (*export, "--int8", "--calibration", chips)
    assert_refused(capsys, tmp_path, "Expected --splits with labels", *quantized, "--splits", "test")
    with pytest.raises(ValueError, match="Expected int8 of openvino or onnx, found 'torch_export'"):
        make_quantizer("torch_export", [])
    with pytest.raises(ValueError, match="Expected max_drop in points"):
        export_int8(tiny_model(), tiny_processor(), tmp_path / "new", chips, max_drop=-1.0)
