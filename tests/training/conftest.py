# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Chips and one finished run, which every test of this folder may read and none may change."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.finetune_factory import (
    SCRIPT,
    command_line,
    make_chips,
    run,
    run_in_two_processes,
    save_model,
)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A small copy of Sen1Floods11."""
    return make_chips(tmp_path_factory.mktemp("floods") / "data")


@pytest.fixture(scope="session")
def finished(data, tmp_path_factory):
    """Output folder of a fresh run of four steps, with a checkpoint after two and after four."""
    output = tmp_path_factory.mktemp("finished") / "OUT"
    run(data, output)
    return output


@pytest.fixture
def output(finished, tmp_path):
    """A copy of that folder, to be changed."""
    return shutil.copytree(finished, tmp_path / "OUT")


@dataclass
class TrainedByTwo:
    """A run under torchrun, a chip of a batch in each of two processes.

    Attributes:
        output: its output folder.
        options: those of its command line.
        printed: what both processes printed.
    """

    output: Path
    options: dict[str, Any]
    printed: str


@pytest.fixture(scope="session")
def trained_by_two(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    options = {"load_best_model_at_end": False, "learning_rate": 0.02, "max_steps": 6, "augmentation": "d4"}
    options |= {"hidden_dropout_prob": 0, "classifier_dropout": 0}  # which chips it leaves out is each process's own
    options |= {"per_device_train_batch_size": 1, "decoded_cache_dir": folder / "cache"}
    options |= {"model": save_model(folder / "model", ("no water", "water"))}
    printed = run_in_two_processes(folder, SCRIPT, *command_line(data, folder / "OUT", **options))
    return TrainedByTwo(folder / "OUT", options, printed)
