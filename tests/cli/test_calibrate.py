# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""`prithvi-hf calibrate` on a folder of a model and chips beside it."""

import json
import shutil

import pytest

from tests.command_line import run
from tests.finetune_factory import label_by_model, make_chips, save_model


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrate")
    make_chips(folder / "data", size=32)
    model = save_model(folder / "model", ("no water", "water"))
    label_by_model(folder / "data", model)
    return folder


@pytest.fixture
def model(place, tmp_path):
    return shutil.copytree(place / "model", tmp_path / "model")


def calibrate(place, model, *more):
    words = [
        "calibrate",
        "--model",
        model,
        "--config",
        "sen1floods11",
        "--data_dir",
        place / "data",
        "--device",
        "cpu",
    ]
    cache = json.dumps({"cache_dir": str(place / "cache")})
    return run(*words, "--dataset_options", cache, "--quiet", *more)


def test_the_temperature_is_written_and_told_and_found_again(place, model, capsys):
    assert calibrate(place, model) == 0
    printed = capsys.readouterr().out
    found = json.loads((model / "config.json").read_text())["temperature"]
    assert found != 1.0
    assert f"temperature {found:.4f}, fitted on " in printed
    assert "labels of 3 chips of validation" in printed
    assert calibrate(place, model, "--no_check") == 0  # of logits, whatever the temperature was
    assert json.loads((model / "config.json").read_text())["temperature"] == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: ("--split", "holiday"), "holiday"),
        (lambda model: ("--model", "owner/name"), "Expected the folder of a model"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_and_stays(place, model, capsys, change, message):
    before = (model / "config.json").read_bytes()
    assert calibrate(place, model, *change(model)) == 2
    assert message in capsys.readouterr().err
    assert (model / "config.json").read_bytes() == before
