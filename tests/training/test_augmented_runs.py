# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Runs with augmented values, a user's own augmentation and balanced classes: resumed, on two processes, refused."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from prithvi_hf.training.evaluation import take_model_recipe
from tests.finetune_factory import SCRIPT, command_line, finetune, run_in_two_processes


AUGMENTED = {"band_gain": [0.2, 0.1], "band_offset": [0.01], "band_noise": 0.002, "band_dropout": 0.1}
AUGMENTED |= {"balance_classes": True, "custom_augmentation": "tests.data.test_augmentations.add_noise"}
PLAIN = {"load_best_model_at_end": False, "do_eval": False, "do_predict": False, "num_sample_predictions": 0}


def weights(folder):
    return load_file(folder / "model.safetensors")


def run_without_results(data, output, **options):
    assert finetune.main(command_line(data, output, **{**PLAIN, **options})) == 0


@pytest.mark.slow
def test_an_augmented_run_ends_alike_when_resumed_and_when_repeated_from_its_recipe(data, tmp_path):
    run_without_results(data, tmp_path / "whole", **AUGMENTED)
    recipe = tmp_path / "whole" / "recipe.yaml"
    assert "custom_augmentation: tests.data.test_augmentations.add_noise" in recipe.read_text()
    (tmp_path / "resumed").mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    run_without_results(data, tmp_path / "resumed", **AUGMENTED, resume_from_checkpoint=True)
    run_without_results(data, tmp_path / "repeated", config=recipe)
    run_without_results(data, tmp_path / "plain")
    whole, *others = (weights(tmp_path / name) for name in ("whole", "resumed", "repeated", "plain"))
    assert [all(torch.equal(whole[name], other[name]) for name in whole) for other in others] == [True, True, False]


@pytest.mark.slow
def test_two_processes_augment_as_one(data, tmp_path):
    """A crop's numbers are its own, and both processes balance by the counts of the first."""
    options = {**PLAIN, **AUGMENTED, "hidden_dropout_prob": 0, "classifier_dropout": 0, "logging_steps": 1}
    options["custom_augmentation"] = None
    together = {**options, "per_device_train_batch_size": 1}
    run_in_two_processes(tmp_path, SCRIPT, *command_line(data, tmp_path / "two", **together))
    run_without_results(data, tmp_path / "one", **options)
    one, two = (weights(tmp_path / name) for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"band_gain": -1.0}, "Expected band_gain as one or two numbers from 0 to 2"),
        ({"band_offset": [0.1, 0.1, 0.1]}, "Expected band_offset as one or two numbers of at least 0"),
        ({"band_offset": 100}, "Expected band_offset in the units of image_std"),
        ({"frame_dropout": 0.5}, "Expected several dates (num_frames) with frame_dropout, found 1"),
        ({"custom_augmentation": "no_such_module.f"}, "Put the folder of the module on Python's path"),
    ],
)
def test_what_cannot_be_augmented_is_refused_before_anything_is_written(data, tmp_path, capsys, options, message):
    assert finetune.main(command_line(data, tmp_path / "OUT", **options, decoded_cache_dir=tmp_path / "cache")) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "OUT").exists()
    assert not (tmp_path / "cache").exists()


def test_a_function_that_fails_on_a_crop_stops_the_run_before_it_starts(data, tmp_path, capsys):
    assert finetune.main(command_line(data, tmp_path / "OUT", custom_augmentation="math.hypot")) == 2
    assert "error: math.hypot: TypeError: " in capsys.readouterr().err
    assert not (tmp_path / "OUT" / "recipe.yaml").exists()


def test_a_recipe_that_comes_with_a_model_imports_nothing(finished, tmp_path, monkeypatch):
    (tmp_path / "imported.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    folder = shutil.copytree(finished, tmp_path / "stranger")
    with open(folder / "recipe.yaml", "a") as recipe:
        recipe.write("custom_augmentation: imported.function\n")
    assert "custom_augmentation" not in take_model_recipe(folder, tmp_path).read_text()
