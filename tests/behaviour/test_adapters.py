# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A run with an adapter, and what every command makes of the small folder that it leaves."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from prithvi_hf import push_folder_to_hub
from prithvi_hf.cli.__main__ import main as cli
from tests.finetune_factory import command_line, finetune, make_chips, read_pixels, run, save_backbone


pytest.importorskip("peft")

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_chips(tmp_path_factory.mktemp("floods") / "data")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_backbone(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def options(base):
    return {"model": base, "adapter": "dora", "adapter_rank": 2, "adapter_dropout": 0.1, "ema_decay": 0.5}


@pytest.fixture(scope="module")
def finished(data, options, tmp_path_factory):
    """A run of four steps with DoRA and an average of the weights, with checkpoints after two and four."""
    output = tmp_path_factory.mktemp("finished") / "OUT"
    return output, run(data, output, **options, load_best_model_at_end=False)


def test_a_run_leaves_an_adapter_and_no_other_weights(finished):
    output, _ = finished
    assert (output / WEIGHTS).is_file()
    assert not list(output.rglob("model.safetensors"))
    assert (output / "preprocessor_config.json").is_file()
    assert "adapter: dora" in (output / "recipe.yaml").read_text()


def test_a_resumed_run_ends_with_the_same_bits(finished, data, options, tmp_path):
    output, _ = finished
    shutil.copytree(output / "checkpoint-2", tmp_path / "OUT" / "checkpoint-2")
    run(data, tmp_path / "OUT", **options, load_best_model_at_end=False, resume_from_checkpoint=True)
    whole, resumed = (load_file(folder / WEIGHTS) for folder in (output, tmp_path / "OUT"))
    assert whole.keys() == resumed.keys()
    assert not [name for name in whole if not torch.equal(whole[name], resumed[name])]


def test_the_best_checkpoint_is_what_is_left(data, options, tmp_path):
    run(data, tmp_path / "OUT", **{**options, "ema_decay": None}, save_total_limit=1)
    [best] = list((tmp_path / "OUT").glob("checkpoint-*"))
    kept, left = load_file(best / WEIGHTS), load_file(tmp_path / "OUT" / WEIGHTS)
    assert not [name for name in kept if not torch.equal(kept[name], left[name])]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"adapter_rank": 4}, "found r 2, lora_alpha 4 in it"),
        ({"adapter": None, "adapter_rank": None, "adapter_dropout": None}, "of the recipe's adapter, found r 2"),
    ],
)
def test_a_checkpoint_continues_with_its_own_adapter_only(finished, data, options, tmp_path, capfd, other, message):
    checkpoint = finished[0] / "checkpoint-2"
    words = command_line(data, tmp_path / "OUT", **{**options, **other}, resume_from_checkpoint=checkpoint)
    assert finetune.main(words) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "OUT").exists()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"model": None}, "Expected --model with an adapter, found none"),
        ({"adapter": None}, "Expected adapter: lora or dora with adapter_rank, adapter_dropout, found none"),
        ({"freeze_backbone": True}, "Expected an adapter or freeze_backbone, found both"),
        ({"adapter_rank": 0}, "a rank from 1 to 32 (hidden_size)"),
        ({"adapter_targets": ["qkv"]}, "targets among attention, mlp, q_proj"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_written(
    data, options, tmp_path, capfd, other, message
):
    assert finetune.main(command_line(data, tmp_path / "OUT", **{**options, **other})) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "OUT").exists()


def test_an_adapter_on_an_adapter_is_refused(finished, data, options, tmp_path, capfd):
    assert finetune.main(command_line(data, tmp_path / "OUT", **{**options, "model": finished[0]})) == 2
    assert "is an adapter. Merge it first: `prithvi-hf merge" in capfd.readouterr().err


# ---------------------------------------------------------------- what the commands make of it


def test_evaluate_gives_the_figures_of_the_run(finished, data, tmp_path, capsys):
    output, results = finished
    words = ["evaluate", "--model", str(output), "--data_dir", str(data), "--device", "cpu", "--quiet"]
    assert cli([*words, "--output", str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["splits"]["test"]["metrics"]["mean_iou"] == pytest.approx(results["test_mean_iou"], abs=1e-6)


def test_a_merged_model_maps_as_the_adapter_does(finished, data, tmp_path, capsys):
    output, _ = finished
    merged = tmp_path / "merged"
    assert cli(["merge", str(output), str(merged)]) == 0
    assert {path.name for path in merged.iterdir()} == {
        *("config.json", "model.safetensors", "preprocessor_config.json", "recipe.yaml"),
    }
    scene = next(data.rglob("*_S2Hand.tif"))
    for model in (output, merged):
        words = ["predict", "--model", str(model), "--frames", str(scene), "--device", "cpu", "--quiet"]
        assert cli([*words, "--output", str(tmp_path / f"{model.name}.tif")]) == 0
    assert (read_pixels(tmp_path / "OUT.tif") == read_pixels(tmp_path / "merged.tif")).all()
    assert cli(["info", str(output)]) == 0
    assert "adapter      dora of rank 2 on " in capsys.readouterr().out
    assert cli(["merge", str(merged), str(tmp_path / "again")]) == 2
    assert "it is a whole model already" in capsys.readouterr().err
    assert cli(["merge", str(output), str(merged)]) == 2
    assert "to be a new or empty folder" in capsys.readouterr().err


def test_an_adapter_of_a_local_base_is_not_pushed(finished, base):
    with pytest.raises(ValueError, match=r"whose base model is on the Hub, found .*prithvi-hf merge"):
        push_folder_to_hub(finished[0], "someone/floods")
