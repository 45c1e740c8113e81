# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A training whose weights are divided over two processes is that of one, and what it saves is whole."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from safetensors.torch import load_file

from prithvi_hf import PrithviForSemanticSegmentation
from prithvi_hf.training import finetune
from prithvi_hf.training.checkpoints import find_damage
from prithvi_hf.training.sharding import check_parts
from tests.finetune_factory import command_line, run, save_model
from tests.process_factory import start_run


pytestmark = pytest.mark.slow


pytestmark = pytest.mark.slow
CONFIGS = {"whole": {}, "parts": {"state_dict_type": "SHARDED_STATE_DICT"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sharding")


@pytest.fixture(scope="module")
def options(folder):
    """Those of a run of two steps, an evaluation and a checkpoint after each."""
    options = {"learning_rate": 0.02, "max_steps": 2, "augmentation": "d4", "decoded_cache_dir": folder / "cache"}
    options |= {"hidden_dropout_prob": 0, "classifier_dropout": 0, "load_best_model_at_end": False}
    return {**options, "model": save_model(folder / "model", ("no water", "water"))}


@pytest.fixture(scope="module")
def alone(data, folder, options):
    """Output folder of one process."""
    run(data, folder / "alone", **options, per_device_train_batch_size=2)
    return folder / "alone"


@pytest.fixture(scope="module", params=CONFIGS)
def divided(request, data, folder, options):
    """Output folder, command line and output of two processes, whose checkpoints are whole or in parts."""
    output = folder / request.param
    sharding = {"fsdp": "true", "fsdp_config": json.dumps(CONFIGS[request.param]), "per_device_train_batch_size": 1}
    words = command_line(data, output, **options, **sharding)
    started = start_run(folder / f"{request.param}-run", words, processes=2)
    assert started.finish() == [0, 0], started.printed()[-3000:]
    return output, words, started.printed()


def read_losses(output):
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def test_it_trains_and_evaluates_as_one_process(alone, divided):
    output, _, printed = divided
    assert read_losses(output) == pytest.approx(read_losses(alone), abs=1e-5)
    mine, theirs = (json.loads((folder / "all_results.json").read_text()) for folder in (output, alone))
    for split in ("eval", "test", "bolivia"):  # 3, 2 and 1 chips
        assert mine[f"{split}_mean_iou"] == theirs[f"{split}_mean_iou"]
    assert (output / "sample_predictions.png").is_file()
    assert "Warning" not in printed


def test_checkpoints_and_the_result_load_as_any_model(alone, divided):
    output = divided[0]
    for name in ("checkpoint-1", "checkpoint-2", ""):
        loaded = PrithviForSemanticSegmentation.from_pretrained(output / name)
        assert loaded.config.architectures == ["PrithviForSemanticSegmentation"]
        expected = load_file(alone / name / "model.safetensors")
        torch.testing.assert_close(loaded.state_dict(), expected, atol=1e-4, rtol=0, check_device=False)


def test_it_goes_on_from_a_checkpoint_to_the_same_weights(data, divided, tmp_path):
    output, words, _ = divided
    parts = sorted(path for path in (output / "checkpoint-2").rglob("*") if path.is_file())
    again = shutil.copytree(output, tmp_path / "again")
    largest = max((path for path in parts if "fsdp" in str(path)), key=lambda path: path.stat().st_size)
    damaged = again / largest.relative_to(output)
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert find_damage(again / "checkpoint-2") is not None
    words = [str(again) if word == str(output) else word for word in words]
    started = start_run(tmp_path / "run", [*words, "--resume_from_checkpoint", "true"], processes=2)
    assert started.finish() == [0, 0], started.printed()[-3000:]
    assert f"Resuming from {again / 'checkpoint-1'}" in started.printed()
    expected, found = (load_file(folder / "model.safetensors") for folder in (output, again))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_run_without_fsdp_says_how_to_go_on_from_a_checkpoint_of_it(divided, tmp_path, capsys):
    output, words, _ = divided
    alone = words[: words.index("--fsdp")] + words[words.index("--fsdp") + 4 :]
    alone[alone.index(str(output))] = str(tmp_path / "alone")
    assert finetune.main([*alone, "--resume_from_checkpoint", str(output / "checkpoint-1")]) == 2
    [form] = CONFIGS[output.name].values() or ["FULL_STATE_DICT"]
    error = capsys.readouterr().err
    assert "Expected a checkpoint without FSDP to resume from" in error
    assert f"found one of FSDP with {form} at {output / 'checkpoint-1'}." in error
    assert f"""--fsdp true --fsdp_config '{{"state_dict_type": "{form}"}}'""" in error


@pytest.mark.parametrize(
    ("part", "found"),
    [("model.safetensors", "without FSDP"), ("pytorch_model_fsdp.bin", "of FSDP with FULL_STATE_DICT")],
)
def test_a_run_of_fsdp_in_parts_goes_on_from_parts_alone(tmp_path, part, found):
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, state_dict_type="SHARDED_STATE_DICT")
    accelerator = SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin))
    other, parts = tmp_path / "other", tmp_path / "parts"
    other.mkdir()
    (other / part).touch()
    with pytest.raises(ValueError, match=f"FSDP with SHARDED_STATE_DICT to resume from.*found one {found} at"):
        check_parts(other, accelerator)
    (parts / "pytorch_model_fsdp_0").mkdir(parents=True)
    check_parts(parts, accelerator)
