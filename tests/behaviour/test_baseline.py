# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The baseline U-Net from the command line: trained, resumed, evaluated, mapped, described and pushed like others."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import rasterio
import torch
from safetensors.torch import load_file

from prithvi_hf import PrithviForSemanticSegmentation, PrithviImageProcessor, push_folder_to_hub
from tests import command_line
from tests.finetune_factory import HEADS, SIZES, finetune, make_chips, run
from tests.finetune_factory import command_line as training_words
from tests.hub_server import USER


NO_ENCODER = {**dict.fromkeys([*SIZES, *HEADS]), "image_size": 32, "architecture": "unet"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_chips(tmp_path_factory.mktemp("chips") / "data")


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "OUT"
    run(data, folder, **NO_ENCODER)
    return folder


def test_a_run_leaves_what_the_others_leave(trained):
    card = (trained / "README.md").read_text()
    assert "with a plain U-Net (architecture unet), fine-tuned on\n`sen1floods11` from random weights" in card
    assert "- architecture: unet\n" in card
    assert "- encoder: none\n" in card
    results = json.loads((trained / "all_results.json").read_text())
    assert {"eval_mean_iou", "test_mean_iou", "bolivia_mean_iou"} <= results.keys()
    assert "architecture: unet" in (trained / "recipe.yaml").read_text()
    assert (trained / "sample_predictions.png").stat().st_size > 1000


def test_it_is_evaluated_and_described_as_the_others(trained, data, capsys, tmp_path):
    assert command_line.run("info", trained) == 0
    described = capsys.readouterr().out
    assert "encoder      none: the architecture is unet, the baseline" in described
    assert "segmentation loss cross_entropy" in described
    words = ("--model", trained, "--data_dir", data, "--output", tmp_path / "figures.json", "--quiet")
    assert command_line.run("evaluate", *words) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())["splits"]["test"]["metrics"]
    expected = json.loads((trained / "all_results.json").read_text())
    assert figures["mean_iou"] == pytest.approx(expected["test_mean_iou"], abs=1e-9)


def test_its_map_is_that_of_the_whole_chip(trained, data, tmp_path):
    chip = next(data.rglob("Ghana_8_S2Hand.tif"))
    words = ("--model", trained, "--frames", chip, "--output", tmp_path / "map.tif", "--window", 48, "--quiet")
    assert command_line.run("predict", *words) == 0
    with rasterio.open(tmp_path / "map.tif") as dataset:
        mapped = dataset.read(1)
    model = PrithviForSemanticSegmentation.from_pretrained(trained).eval()
    processor = PrithviImageProcessor.from_pretrained(trained)
    with torch.no_grad():
        scores = model(**processor(chip, return_tensors="pt")).logits[0]
    certain = (scores[0] - scores[1]).abs().numpy() > 1e-5
    valid = (mapped != 255) & certain
    assert valid.mean() > 0.5
    assert np.array_equal(mapped[valid], scores.argmax(0).numpy()[valid])


def test_a_resumed_run_ends_like_the_whole_one_and_no_other_model_resumes_it(trained, data, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "OUT")
    shutil.rmtree(tmp_path / "OUT" / "checkpoint-4")
    (tmp_path / "OUT" / "model.safetensors").unlink()
    run(data, tmp_path / "OUT", **NO_ENCODER, resume_from_checkpoint="true")
    whole, resumed = (load_file(folder / "model.safetensors") for folder in (trained, tmp_path / "OUT"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    words = training_words(data, tmp_path / "OUT", resume_from_checkpoint="true")
    assert finetune.main(words) == 2
    assert "architecture: unet, not prithvi" in capsys.readouterr().err


WITHOUT_THE_PACKAGE = """
import sys

sys.modules["prithvi_hf"] = None
import torch
from transformers import AutoModelForSemanticSegmentation

model = AutoModelForSemanticSegmentation.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
with torch.no_grad():
    print(model.config.architecture, model(torch.ones(1, 6, 1, 37, 40)).logits.abs().sum().item())
"""


def test_a_process_without_the_package_loads_it_from_the_hub(trained, hub, monkeypatch):
    hub.redirect_this_process(monkeypatch)
    push_folder_to_hub(trained, f"{USER}/baseline")
    command = [sys.executable, "-I", "-c", WITHOUT_THE_PACKAGE, f"{USER}/baseline"]
    done = subprocess.run(command, env=hub.env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    architecture, total = done.stdout.split()
    assert architecture == "unet"
    with torch.no_grad():
        expected = PrithviForSemanticSegmentation.from_pretrained(trained).eval()(torch.ones(1, 6, 1, 37, 40)).logits
    assert float(total) == pytest.approx(expected.abs().sum().item(), rel=1e-5)
