# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A loss that is not finite ends a run with the chips of its batch, and nothing is saved after it."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from prithvi_hf.training.loss_guard import LossGuard, NonFiniteLossError
from tests.finetune_factory import SCRIPT, command_line, environment, finetune
from tests.raster_factory import SEN1FLOODS11_CODES, write_raster


LOSSES = {"nan": float("nan"), "inf": float("inf")}


@pytest.mark.parametrize("name", LOSSES)
def test_the_first_bad_batch_since_the_last_check_is_named(name):
    guard = LossGuard(Accelerator(cpu=True), {7: "Ghana_1", 8: "Spain_2", 9: "India_3"}.__getitem__)
    guard.watch(torch.tensor(0.5), 1, 0.1, torch.tensor([7]))
    guard.check()
    guard.check()  # nothing new
    guard.watch(torch.tensor(0.5), 2, 0.2, torch.tensor([7]))
    guard.watch(torch.tensor(LOSSES[name]), 2, 0.2, torch.tensor([8, 9]))
    guard.watch(torch.tensor(float("nan")), 3, 0.3, torch.tensor([7]))
    expected = f"found {name} of the chips Spain_2, India_3 in step 2, at a learning rate of 0.2"
    with pytest.raises(NonFiniteLossError, match=expected):
        guard.check()


def test_batches_of_other_datasets_have_no_names():
    guard = LossGuard(Accelerator(cpu=True))
    guard.watch(torch.tensor(float("nan")), 1, 0.1, None)
    with pytest.raises(NonFiniteLossError, match="nan of a batch of chips without index in step 1"):
        guard.check()


@pytest.fixture(scope="module")
def overflowing(data, tmp_path_factory):
    """The chips, one of which overflows in the model: it is no nodata, and far from every real unit."""
    root = shutil.copytree(data, tmp_path_factory.mktemp("overflowing") / "data")
    path = next(root.rglob("Spain_2_S2Hand.tif"))
    write_raster(path, np.full((13, 48, 48), 1e25, np.float32), descriptions=SEN1FLOODS11_CODES)
    return root


def test_a_chip_that_overflows_ends_the_run_with_its_name(overflowing, tmp_path, capsys):
    """Parts of a step count one by one, and it is looked at before a checkpoint, however rarely lines are logged."""
    options = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "save_steps": 1, "seed": 3}
    options |= {"eval_strategy": "no", "load_best_model_at_end": False, "logging_steps": 100}
    assert finetune.main(command_line(overflowing, tmp_path / "OUT", **options)) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "error: Expected a finite loss, found nan of the chip Spain_2 in step 2, at a learning rate of" in message
    assert "lower --learning_rate" in message
    assert message.endswith(f"--resume_from_checkpoint true continues from {tmp_path / 'OUT' / 'checkpoint-1'}")
    assert [path.name for path in (tmp_path / "OUT").glob("checkpoint-*")] == ["checkpoint-1"]
    assert not (tmp_path / "OUT" / "model.safetensors").exists()


@pytest.mark.slow
def test_both_processes_end_and_name_the_chip_of_one(overflowing, tmp_path):
    options = {"per_device_train_batch_size": 1, "sync_batch_norm": False, "max_steps": 30, "logging_steps": 2}
    options |= {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    words = command_line(overflowing, tmp_path / "OUT", **options)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(SCRIPT)]
    done = subprocess.run([*command, *words], env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if "Expected a finite loss" in line]
    assert 1 <= len(lines) <= 2  # of each process that was not ended before its line, as the other had failed
    assert all("found nan of the chip Spain_2 (process" in line and "of 2) in step" in line for line in lines)
    assert not (tmp_path / "OUT" / "model.safetensors").exists()


def test_batches_of_a_run_carry_no_index_to_the_model(finished):
    """A whole run learns from batches with indices: its losses are there, and finite."""
    state = json.loads((finished / "trainer_state.json").read_text())
    assert all(np.isfinite(entry["loss"]) for entry in state["log_history"] if "loss" in entry)
