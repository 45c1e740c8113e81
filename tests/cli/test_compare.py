# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""`prithvi-hf compare`: stored figures, and two models on the chips of a recipe."""

import json

import pytest
import torch

from prithvi_hf import PrithviForSemanticSegmentation, PrithviImageProcessor
from prithvi_hf.cli.__main__ import main
from prithvi_hf.training.chip_figures import compute_figures, find_splits, read_chip_figures
from tests.finetune_factory import make_chips, save_model


def compare(*words):
    return main(["compare", *map(str, words)])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_chips(tmp_path_factory.mktemp("floods") / "data")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models of one image processor; the second with another classifier."""
    folders = [tmp_path_factory.mktemp("models") / name for name in "ab"]
    for folder in folders:
        save_model(folder, ("no water", "water"))
        processor = PrithviImageProcessor(
            band_indices=[1, 2, 3, 8, 11, 12], num_labels=2, ignore_values=[-1], nodata_value=0
        )
        processor.save_pretrained(folder)
    other = PrithviForSemanticSegmentation.from_pretrained(folders[1])
    with torch.no_grad():
        other.decode_head.classifier.weight.neg_()
    other.save_pretrained(folders[1])
    return folders


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("recipe") / "floods.yaml"
    options = json.dumps({"cache_dir": str(data.parent / "cache")})
    path.write_text(
        "dataset: sen1floods11\nclass_names: [no water, water]\ntest_splits: [validation, test]\neval_window: 32\n"
        f"group_by: event\ndata_dir: {data}\ndataset_options: {options}\n"
    )
    return path


@pytest.fixture(scope="module")
def compared(models, recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared") / "DIR"
    words = ["--config", recipe, "--output_dir", folder, "--device", "cpu", "--num_maps", 1, "--quiet"]
    assert compare(*models, *words) == 0
    return folder


def test_two_models_are_measured_on_the_same_chips_and_drawn(compared, models):
    content = json.loads((compared / "comparison.json").read_text())
    assert [content[name]["model"] for name in "ab"] == [str(folder) for folder in models]
    for side in "ab":
        for split, part in find_splits(read_chip_figures(compared / f"chip_figures_{side}.parquet")).items():
            figures = compute_figures(part)
            row = content["splits"][split]["metrics"]["mean_iou"]
            assert row[side] == figures["mean_iou"]
            assert row["difference"] == row["b"] - row["a"] != 0
    groups = content["splits"]["validation"]["groups"]
    assert list(groups) == ["Ghana", "India", "Spain"]
    for split in ("validation", "test"):
        assert (compared / f"differences_{split}.png").read_bytes().startswith(b"\x89PNG")
    assert not list(compared.parent.glob(".*"))


def test_stored_figures_are_compared_without_a_model(compared, tmp_path, capsys):
    files = [compared / f"chip_figures_{side}.parquet" for side in "ab"]
    assert compare(*files, "--splits", "test", "--output_dir", tmp_path / "DIR") == 0
    printed = capsys.readouterr().out
    assert "test: 2 chips" in printed
    assert "validation" not in printed
    assert "fewer than 10, the interval says little" in printed
    again = json.loads((tmp_path / "DIR" / "comparison.json").read_text())["splits"]["test"]
    assert again == json.loads((compared / "comparison.json").read_text())["splits"]["test"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--group_by", "event"], "--group_by with --config"),
        (["--num_maps", "-1"], "num_maps of at least 0"),
        (["--splits", "bolivia"], "bolivia"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(compared, tmp_path, capsys, words, message):
    file = compared / "chip_figures_a.parquet"
    assert compare(file, file, *words, "--output_dir", tmp_path / "DIR") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "DIR").exists()


def test_a_model_without_stored_figures_and_a_full_folder_are_refused(models, compared, capsys):
    assert compare(*models) == 2
    assert "evaluate --chip_figures FILE" in capsys.readouterr().err
    file = compared / "chip_figures_a.parquet"
    assert compare(file, file, "--output_dir", compared) == 2
    assert "new or empty folder" in capsys.readouterr().err
