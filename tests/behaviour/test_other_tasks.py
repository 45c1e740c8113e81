# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Classification and regression from the command line: fine-tuning, evaluation and what they leave."""

import json
import logging
import re

import numpy as np
import pytest
import rasterio
from transformers import pipeline

from prithvi_hf import PrithviForImageClassification, PrithviForPixelRegression
from prithvi_hf.cli.__main__ import main
from tests.finetune_factory import HEADS, QUICK, SIZES, flags, run_in_two_processes
from tests.raster_factory import make_biomass, make_land_cover


SPLITS = {"train": 6, "validation": 3, "test": 3}
LAND_COVER = ["Forest", "River", "Town"]
BANDS = ["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"]
INPUT = {"image_mean": [500] * 6, "image_std": [800] * 6, "image_size": 32, "test_splits": "test", "bands": BANDS}
TRAINING = {**QUICK, "max_steps": 120, "learning_rate": 0.005, "eval_strategy": "steps", "save_strategy": "steps"}
TRAINING |= {"load_best_model_at_end": True, "lr_scheduler_type": "constant", "per_device_train_batch_size": 3}


def finetune(data, output, builder, **options):
    builder = {**builder, "cache_dir": str(data.parent / "cache")}
    values = {"data_dir": data, "output_dir": output, "dataset_options": json.dumps(builder)}
    values |= {**SIZES, **INPUT, **TRAINING, "decoded_cache_dir": data.parent / "cache", **options}
    return flags(**{name: value for name, value in values.items() if value is not None})


def read_results(output):
    return json.loads((output / "all_results.json").read_text())


def evaluate(output, *words):
    """What `prithvi-hf evaluate` writes of the test split."""
    path = output / "figures.json"
    command = ["evaluate", "--model", output, "--device", "cpu", "--output", path, "--quiet", *words]
    assert main(list(map(str, command))) == 0
    return json.loads(path.read_text())["splits"]["test"]["metrics"]


def assert_same(first, second, prefix):
    for name, value in first.items():
        if name not in ("epoch", "model_preparation_time") and not name.endswith(("runtime", "per_second")):
            assert second[f"{prefix}_{name}"] == pytest.approx(value, rel=1e-5), name


def biomass_options(**options):
    return {**HEADS, "use_auxiliary_head": False, "task": "regression", "target_name": "biomass", **options}


@pytest.fixture(scope="module")
def biomass(tmp_path_factory):
    root = tmp_path_factory.mktemp("biomass") / "data"
    make_biomass(root, SPLITS)
    return root, {"image_suffix": "_image.tif", "mask_suffix": "_agb.tif"}


@pytest.fixture(scope="module")
def mapped(biomass):
    data, builder = biomass
    output = data.parent / "OUT"
    assert main(["finetune", *finetune(data, output, builder, **biomass_options(target_unit="Mg/ha"))]) == 0
    return output


def test_regression_learns_and_is_measured_in_its_unit(biomass, mapped, capsys):
    data, _ = biomass
    results, config = read_results(mapped), json.loads((mapped / "config.json").read_text())
    values = [rasterio.open(path).read(1)[1:] for path in sorted((data / "train").glob("*_agb.tif"))]
    assert config["target_mean"] == pytest.approx(np.mean(values), rel=1e-6)
    assert config["target_std"] == pytest.approx(np.std(values), rel=1e-6)
    # The trivial predictor, the mean of the training split, has an R2 of about 0.
    assert results["test_r2"] > 0.5
    assert results["test_rmse"] < 0.7 * config["target_std"]
    assert results["test_valid_pixels"] == 3 * 31 * 32
    assert_same(evaluate(mapped), results, "test")
    assert PrithviForPixelRegression.from_pretrained(mapped).config.target_unit == "Mg/ha"
    card = (mapped / "README.md").read_text()
    for part in ("A map of biomass from 1 date", "RMSE (Mg/ha)", "geospatial-regression", "unit: Mg/ha"):
        assert part in card
    assert "IoU" not in card
    for name in ("learning_curves.png", "sample_predictions.png"):
        assert (mapped / name).stat().st_size > 1000
    capsys.readouterr()
    assert main(["evaluate", "--model", str(mapped), "--device", "cpu"]) == 0
    assert re.search(r"test: 3 chips; in Mg/ha.*\n.*\n +rmse +- +\d+\.\d+ ", capsys.readouterr().out)


def test_the_map_of_a_scene_has_the_measured_error_and_the_unit(biomass, mapped, tmp_path):
    data, _ = biomass
    errors = []
    for number in range(SPLITS["test"]):
        chip, output = data / "test" / f"{number}_image.tif", tmp_path / f"{number}.tif"
        command = ["predict", "--model", mapped, "--frames", chip, "--output", output, "--device", "cpu", "--quiet"]
        assert main(list(map(str, command))) == 0
        with rasterio.open(output) as found, rasterio.open(data / "test" / f"{number}_agb.tif") as true:
            assert (found.units, found.descriptions) == (("Mg/ha",), ("biomass",))
            errors.append(found.read(1)[1:] - true.read(1)[1:])
    rmse = np.sqrt(np.mean(np.square(errors)))
    assert rmse == pytest.approx(read_results(mapped)["test_rmse"], rel=1e-4)


@pytest.mark.slow
def test_a_regression_goes_on_from_a_checkpoint_and_from_a_model_with_its_statistics(biomass, mapped, tmp_path):
    data, builder = biomass
    options = biomass_options(max_steps=122, do_predict=False, num_sample_predictions=0, load_best_model_at_end=False)
    resumed = {**options, "resume_from_checkpoint": mapped / "checkpoint-120"}
    assert main(["finetune", *finetune(data, tmp_path / "resumed", builder, **resumed)]) == 0
    assert read_results(tmp_path / "resumed")["eval_r2"] > 0.5
    # Other values to learn, but the head of the model was trained for its own mean.
    more = {**options, "model": mapped, "max_steps": 1, "target_rescale_factor": 1.1}
    assert main(["finetune", *finetune(data, tmp_path / "more", builder, **more)]) == 0
    first, second = (json.loads((folder / "config.json").read_text()) for folder in (mapped, tmp_path / "more"))
    assert second["target_mean"] == first["target_mean"]


def test_the_best_checkpoint_of_a_regression_has_the_smallest_error(mapped):
    history = json.loads((mapped / "trainer_state.json").read_text())
    errors = [entry["eval_rmse"] for entry in history["log_history"] if "eval_rmse" in entry]
    assert history["best_metric"] == min(errors)


def test_the_baseline_is_fine_tuned_for_a_regression(biomass, tmp_path):
    data, builder = biomass
    sizes = {**dict.fromkeys([*SIZES, *HEADS, "use_auxiliary_head"]), "image_size": 32}
    options = biomass_options(**sizes, architecture="unet", max_steps=4)
    assert main(["finetune", *finetune(data, tmp_path / "OUT", builder, **options)]) == 0
    results = read_results(tmp_path / "OUT")
    assert results["test_rmse"] > 0
    assert_same(evaluate(tmp_path / "OUT"), results, "test")
    assert PrithviForPixelRegression.from_pretrained(tmp_path / "OUT").config.architecture == "unet"


def test_integer_targets_with_a_factor_are_the_same_values(biomass, tmp_path):
    data = make_biomass(tmp_path / "data", SPLITS, dtype="uint16")
    _, builder = biomass
    options = biomass_options(target_rescale_factor=0.1, max_steps=2, do_predict=False)
    assert main(["finetune", *finetune(data, tmp_path / "OUT", builder, **options)]) == 0
    config = json.loads((tmp_path / "OUT" / "config.json").read_text())
    assert config["target_mean"] == pytest.approx(170, abs=40)


def test_a_fill_value_without_a_tag_is_a_warning(biomass, tmp_path, caplog, monkeypatch):
    for name in ("prithvi_hf", "prithvi_hf.training.recipe_chips"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    data, (_, builder) = make_biomass(tmp_path / "data", SPLITS, dtype="uint16"), biomass
    path = data / "train" / "0_agb.tif"
    with rasterio.open(path, "r+") as dataset:
        dataset.nodata = None
    options = biomass_options(target_rescale_factor=0.1, max_steps=1, do_predict=False)
    assert main(["finetune", *finetune(data, tmp_path / "OUT", builder, **options)]) == 0
    assert caplog.text.count("65535 is among the values that count") == 1
    assert "train: 65535 is" in caplog.text


@pytest.fixture(scope="module")
def covers(tmp_path_factory):
    return make_land_cover(tmp_path_factory.mktemp("covers") / "data", {"train": 9, "validation": 3, "test": 6})


def cover_options(**options):
    values = {"task": "classification", "dataset": "geotiff_classification", "class_names": LAND_COVER}
    return {**values, "augmentation": "d4", **options}


def test_classification_learns_classes_of_folders(covers, tmp_path, capsys):
    output = tmp_path / "OUT"
    assert main(["finetune", *finetune(covers, output, {}, **cover_options())]) == 0
    assert "train: 9 chips; labels: Forest 33.3%, River 33.3%, Town 33.3%" in capsys.readouterr().out
    results = read_results(output)
    assert results["test_accuracy"] > 0.8  # by chance 1/3
    assert_same(evaluate(output), results, "test")
    model = PrithviForImageClassification.from_pretrained(output)
    assert model.config.problem_type == "single_label_classification"
    assert list(model.config.id2label.values()) == LAND_COVER
    card = (output / "README.md").read_text()
    for part in ("Classification of images", "| split | Macro F1 | Accuracy | Micro F1 |", "F1 of each class (%)"):
        assert part in card
    assert (output / "sample_predictions.png").stat().st_size > 1000
    images = sorted((covers / "test").rglob("*.tif"))
    found = pipeline("geospatial-classification", model=str(output), device="cpu")(list(map(str, images)), top_k=1)
    right = [labels[0]["label"] == image.parent.name for image, labels in zip(images, found, strict=True)]
    assert np.mean(right) == pytest.approx(results["test_accuracy"])


def test_classification_learns_several_labels_of_a_table(tmp_path):
    data, output = tmp_path / "data", tmp_path / "OUT"
    make_land_cover(data, {"train": 12, "validation": 5, "test": 7}, several=True)
    options = cover_options(problem_type="multi_label_classification", metric_for_best_model="mean_average_precision")
    assert main(["finetune", *finetune(data, output, {"image_dir": "images"}, **options)]) == 0
    results = read_results(output)
    assert results["test_mean_average_precision"] > 0.8
    assert results["test_micro_f1"] > 0.7
    assert_same(evaluate(output), results, "test")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_two_processes_measure_and_learn_what_one_does(biomass, covers, tmp_path, task):
    data, builder = biomass if task == "regression" else (covers, {})
    options = biomass_options() if task == "regression" else cover_options()
    options |= {"max_steps": 4, "hidden_dropout_prob": 0, "classifier_dropout": 0, "load_best_model_at_end": False}
    options |= {"logging_steps": 1, "lr_scheduler_type": "constant"}
    one = finetune(data, tmp_path / "one", builder, per_device_train_batch_size=2, **options)
    assert main(["finetune", *one]) == 0
    two = finetune(data, tmp_path / "two", builder, per_device_train_batch_size=1, **options)
    run_in_two_processes(tmp_path, "prithvi_hf.cli", "finetune", *two)
    first, second = (read_results(tmp_path / name) for name in ("one", "two"))
    for name in first:
        if "runtime" not in name and "per_second" not in name:
            pairs = zip(np.ravel(second[name]).tolist(), np.ravel(first[name]).tolist(), strict=True)
            assert all(own == pytest.approx(other, rel=1e-3) for own, other in pairs), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (biomass_options(class_names=["a", "b"]), "Expected options of task regression, found class_names"),
        (biomass_options(metric_for_best_model="mean_iou"), "Expected metric_for_best_model of task regression"),
        (biomass_options(target_mean=3), "Expected target_mean and target_std together"),
        (biomass_options(target_range=[1000, 2000]), "expected values that vary, found none"),
        (cover_options(label_map='{"1": 0}'), "Expected options of task classification, found label_map"),
        (cover_options(neck="geospatial"), "Expected options of task classification, found neck"),
        (cover_options(class_names=["Forest", "River"]), r"expected a label among class_names (Forest, River), found"),
        (cover_options(class_names=None), "Expected class_names"),
        ({"target_unit": "m", "class_names": ["a", "b"]}, "Expected options of task segmentation, found target_unit"),
    ],
)
def test_what_does_not_go_with_a_task_is_refused_before_anything_is_written(
    biomass, covers, tmp_path, capsys, options, message
):
    data, builder = (covers, {}) if "dataset" in options else biomass
    assert main(["finetune", *finetune(data, tmp_path / "OUT", builder, **options)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "OUT").exists()
