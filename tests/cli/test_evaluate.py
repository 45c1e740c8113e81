# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""`prithvi-hf evaluate`: measured figures beside published ones."""

import json
import re
import shutil

import numpy as np
import pytest
import torch

from prithvi_hf import PrithviForSemanticSegmentation, PrithviImageProcessor, load_dataset
from prithvi_hf.cli.__main__ import main
from prithvi_hf.models.prithvi import inference_dtype_prithvi
from prithvi_hf.models.prithvi.sliding_window_prithvi import sliding_window_logits
from tests.finetune_factory import make_chips, run_in_two_processes
from tests.scene_factory import tiny_model


CLASSES = {0: "no water", 1: "water"}
RECIPE = """
dataset: sen1floods11
class_names: [no water, water]
test_splits: [test, bolivia]
eval_window: 32
eval_overlap: 0.5
published:
  test: {chips: 90, mean_iou: 88.68, iou: {water: 80.46}}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_chips(tmp_path_factory.mktemp("floods") / "data")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A saved random model of two classes that both occur, with the image processor of the flood chips."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    torch.manual_seed(3)
    own = tiny_model()
    config = own.config
    config.id2label, config.label2id = CLASSES, {name: index for index, name in CLASSES.items()}
    own = PrithviForSemanticSegmentation(config).eval()
    with torch.no_grad():
        own.decode_head.classifier.weight.mul_(50)
    own.save_pretrained(folder)
    PrithviImageProcessor(
        band_indices=[1, 2, 3, 8, 11, 12], num_labels=2, ignore_values=[-1], nodata_value=0
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def recipe(tmp_path, data):
    path = tmp_path / "floods.yaml"
    options = json.dumps({"cache_dir": str(data.parent / "cache")})
    path.write_text(f"{RECIPE}data_dir: {data}\ndataset_options: {options}\n")
    return path


def measure(model, data, split):
    """IoU of both classes and overall accuracy, by hand."""
    network = PrithviForSemanticSegmentation.from_pretrained(model).eval()
    processor = PrithviImageProcessor.from_pretrained(model)
    counts = np.zeros((2, 2), dtype=np.int64)
    for row in load_dataset("sen1floods11", data, split=split, cache_dir=str(data.parent / "cache")):
        inputs = processor([row["image"]], [row["mask"]], return_tensors="pt")
        with torch.no_grad():
            logits = sliding_window_logits(network, inputs["pixel_values"], (32, 32), (16, 16))
        predicted, labels = logits.argmax(1).numpy(), inputs["labels"].numpy()
        for label in (0, 1):
            for found in (0, 1):
                counts[label, found] += int(((labels == label) & (predicted == found)).sum())
    right = np.diag(counts)
    return right / (counts.sum(0) + counts.sum(1) - right), right.sum() / counts.sum()


def evaluate(*words):
    return main(["evaluate", "--device", "cpu", *map(str, words)])


def test_measured_figures_stand_beside_the_published_ones(model, recipe, data, tmp_path, capsys):
    assert evaluate("--model", model, "--config", recipe, "--output", tmp_path / "all.json") == 0
    output = capsys.readouterr().out
    content = json.loads((tmp_path / "all.json").read_text())
    assert list(content["splits"]) == ["test", "bolivia"]
    assert content["class_names"] == ["no water", "water"]
    assert "test: 2 chips; the published figures are of 90\n" in output
    assert "bolivia: 1 chip\n" in output
    for split, chips in (("test", 2), ("bolivia", 1)):
        iou, accuracy = measure(model, data, split)
        assert (iou > 0).all()
        found = content["splits"][split]
        assert found["chips"] == chips
        assert re.fullmatch("[0-9a-f]{64}", found["digest"])
        assert found["metrics"]["per_category_iou"] == pytest.approx(iou.tolist())
        assert found["metrics"]["mean_iou"] == pytest.approx(iou.mean())
        assert found["metrics"]["overall_accuracy"] == pytest.approx(accuracy)
        assert re.search(rf"calibration_error +- +{100 * found['metrics']['calibration_error']:.2f} +-\n", output)
    iou, _ = measure(model, data, "test")
    water, mean = 100 * iou[1], 100 * iou.mean()
    assert re.search(rf"IoU of water +80\.46 +{water:.2f} +{water - 80.46:+.2f}", output)
    assert re.search(rf"mean_iou +88\.68 +{mean:.2f} +{mean - 88.68:+.2f}", output)
    assert re.search(r"mean_accuracy +- +\d+\.\d\d +-", output)
    assert not list(tmp_path.rglob(".all.json*"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "auto"])
def test_figures_are_of_the_dtype_that_is_given(model, recipe, tmp_path, capsys, monkeypatch, dtype):
    """A recipe's half precision, which autocast would bring, gives way."""
    monkeypatch.setattr(inference_dtype_prithvi, "find_matrix_units", lambda device: "units of a test")
    seen = set()

    def watch(network, *arguments):
        seen.add((network.dtype, torch.is_autocast_enabled("cpu")))
        return sliding_window_logits(network, *arguments)

    monkeypatch.setattr("prithvi_hf.training.tasks.sliding_window_logits", watch)
    recipe.write_text(f"{recipe.read_text()}bf16: true\n")
    words = ["--config", recipe, "--splits", "test", "--output", tmp_path / "all.json", "--dtype", dtype]
    assert evaluate("--model", model, *words) == 0
    choice = json.loads((tmp_path / "all.json").read_text())["splits"]["test"]["dtype"]
    assert seen == {(getattr(torch, choice["chosen"]), False)}
    if dtype == "auto":
        assert 0.8 < choice["agreement"] <= 1
        assert f"evaluated in {choice['chosen']}: " in capsys.readouterr().out
    else:
        assert choice == {"chosen": dtype, "reason": "as asked for", "agreement": None}


def test_other_units_than_the_models_are_given_as_factor_and_offset(model, recipe, data, tmp_path):
    figures = {}
    for name, words in {"own": (), "same": ("--rescale_factor", 1), "other": ("--rescale_offset", 2000)}.items():
        output = tmp_path / f"{name}.json"
        assert evaluate("--model", model, "--config", recipe, "--splits", "bolivia", "--output", output, *words) == 0
        figures[name] = json.loads(output.read_text())["splits"]["bolivia"]["metrics"]["per_category_iou"]
    assert figures["own"] == figures["same"] != figures["other"]


def test_options_win_over_the_recipe(model, recipe, capsys):
    assert evaluate("--model", model, "--config", recipe, "--splits", "validation", "--overlap", 0, "--quiet") == 0
    output = capsys.readouterr().out
    assert output.startswith("validation: 3 chips\n")
    assert "published" in output.splitlines()[1]
    assert "test" not in output


@pytest.mark.filterwarnings("ignore:the bands")
def test_bands_given_on_the_command_line_or_in_the_recipe_win(model, recipe, tmp_path):
    """The model's processor has positions; both ways give other ones, or one other band."""
    words, figures = ["--model", model, "--splits", "bolivia", "--no_check", "--quiet"], []
    other = tmp_path / "other.yaml"
    other.write_text(f"{recipe.read_text()}band_indices: [1, 2, 3, 7, 11, 12]\n")
    for config, more in (
        (recipe, []),
        (recipe, ["--band_indices", 1, 2, 3, 7, 11, 12]),
        (other, []),
        (recipe, ["--band_map", "BLUE=1", "GREEN=2", "RED=3", "NIR_NARROW=7", "SWIR_1=11", "SWIR_2=12"]),
    ):
        assert evaluate(*words, "--config", config, "--output", tmp_path / "all.json", *more) == 0
        metrics = json.loads((tmp_path / "all.json").read_text())["splits"]["bolivia"]["metrics"]
        figures.append(metrics["per_category_iou"])
    assert figures[0] != figures[1] == figures[2] == figures[3]


def test_the_recipe_of_the_model_is_the_default(model, recipe, tmp_path, capsys):
    folder = tmp_path / "copy"
    PrithviForSemanticSegmentation.from_pretrained(model).save_pretrained(folder)
    PrithviImageProcessor.from_pretrained(model).save_pretrained(folder)
    assert evaluate("--model", folder) == 2
    assert re.search("by --config: a YAML file, or .*multi_temporal_crop", capsys.readouterr().err)
    (folder / "recipe.yaml").write_text(recipe.read_text())
    assert evaluate("--model", folder, "--splits", "bolivia", "--no_check") == 0
    assert "bolivia: 1 chip\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "absent.yaml"], "one of the recipes"),
        (["--splits", "holdout"], r"split\(s\) \['holdout'\]"),
        (["--data_dir", "/nowhere"], "/nowhere"),
        (["--overlap", "1"], "eval_overlap must be"),
        (["--dataset_options", "[]"], "JSON object"),
    ],
)
def test_what_is_wrong_is_said(model, recipe, tmp_path, capsys, words, message):
    words = words if "--config" in words else ["--config", recipe, *words]
    assert evaluate("--model", model, "--output", tmp_path / "all.json", *words) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "all.json").exists()


def test_an_output_that_cannot_be_is_refused_at_once(model, tmp_path, capsys):
    assert evaluate("--model", model, "--config", "absent.yaml", "--output", tmp_path) == 2
    assert "is a folder" in capsys.readouterr().err
    assert evaluate("--model", model, "--config", "absent.yaml", "--output", tmp_path / "nowhere" / "x.json") == 2
    assert "does not exist" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def test_a_model_of_other_classes_is_refused(model, recipe, tmp_path, capsys):
    recipe.write_text(recipe.read_text().replace("[no water, water]", "[water, no water]"))
    assert evaluate("--model", model, "--config", recipe) == 2
    assert "classes ['water', 'no water'], found one with ['no water', 'water']" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one(model, recipe, tmp_path):
    """As a user starts it, with the module under torchrun."""
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    options = ["--model", model, "--config", recipe, "--splits", "validation", "test", "bolivia"]
    assert evaluate(*options, "--output", one, "--quiet") == 0
    words = ["prithvi_hf.cli", "evaluate", "--device", "cpu", *options, "--output", two]
    printed = run_in_two_processes(tmp_path, *words)
    assert printed.count("test: 2 chips; the published") == 1
    assert printed.count("2 processes: left") == 2
    assert printed.count("wrapped 0 models, left with 0") == 2
    first, second = (json.loads(path.read_text())["splits"] for path in (one, two))
    for split in first:
        assert second[split]["digest"] == first[split]["digest"]
        for name in ("mean_iou", "overall_accuracy", "per_category_iou", "per_category_f1"):
            assert second[split]["metrics"][name] == first[split]["metrics"][name]


HARMFUL = """
decoded_cache_dir: {place}/decoded
output_dir: {place}/out
hub_token: secret
push_to_hub: true
deepspeed: {place}/plugin.json
fsdp: full_shard
report_to: [tensorboard]
resume_from_checkpoint: {place}/checkpoint
logging_steps: 1
"""


def test_a_recipe_that_comes_with_a_model_chooses_no_place_and_loads_nothing(model, recipe, tmp_path, capsys):
    folder, place = shutil.copytree(model, tmp_path / "stranger"), tmp_path / "place"
    options = json.dumps({"cache_dir": str(place / "cache"), "base_url": "http://localhost:9"})
    text = re.sub("dataset_options: .*", lambda _: f"dataset_options: {options}", recipe.read_text())
    (folder / "recipe.yaml").write_text(text + HARMFUL.format(place=place))
    assert evaluate("--model", folder, "--splits", "bolivia", "--no_check") == 0
    assert "bolivia: 1 chip\n" in capsys.readouterr().out
    assert not place.exists()


@pytest.mark.parametrize("value", ["/etc", "../other", "masks/../../x", "~/masks", "C:\\masks", "file:///etc"])
def test_a_recipe_that_comes_with_a_model_names_no_file_outside_the_data(model, data, tmp_path, capsys, value):
    folder = shutil.copytree(model, tmp_path / "stranger")
    options = json.dumps({"splits": {"test": ["a", value]}})
    (folder / "recipe.yaml").write_text(f"dataset: geotiff_folder\ndata_dir: {data}\ndataset_options: {options}\n")
    assert evaluate("--model", folder, "--splits", "test") == 2
    message = capsys.readouterr().err
    assert f"found {value!r}" in message
    assert f"--config {folder / 'recipe.yaml'}" in message
