# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A training that is asked to end saves a checkpoint first, and its continuation is bit-identical."""

import signal

import pytest
import torch
from safetensors.torch import load_file

from prithvi_hf.training.checkpoints import find_damage
from tests.finetune_factory import command_line
from tests.process_factory import Kill, start_run


pytestmark = pytest.mark.slow


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("preemption") / "cache"


@pytest.mark.parametrize(("number", "processes"), [(signal.SIGTERM, 1), (signal.SIGUSR1, 2)])
def test_a_signal_saves_a_checkpoint_and_ends_the_run(data, tmp_path, cache, number, processes):
    options = {"decoded_cache_dir": cache, "per_device_train_batch_size": 2 // processes, "save_steps": 4}
    options |= {"eval_steps": 4, "augmentation": "d4"}
    undisturbed = start_run(tmp_path / "whole", command_line(data, tmp_path / "OUT", **options), processes)
    assert undisturbed.finish() == [0] * processes, undisturbed.printed()[-3000:]

    words = command_line(data, tmp_path / "OUT2", **options)
    # Before the first step the folder is made and locked; the last process alone is asked.
    kill = Kill(event=2, rank=processes - 1, number=number) if processes > 1 else Kill(event=8, number=number)
    stopped = start_run(tmp_path / "stopped", words, processes, kill)
    assert stopped.finish() == [128 + number] * processes, stopped.printed()[-3000:]
    [checkpoint] = (tmp_path / "OUT2").glob("checkpoint-*")
    step = int(checkpoint.name.removeprefix("checkpoint-"))
    assert step < 4
    assert find_damage(checkpoint) is None
    assert f"stopped by {number.name} after step {step}" in stopped.printed()
    assert f"--resume_from_checkpoint true continues from {checkpoint}" in stopped.printed()

    resumed = start_run(tmp_path / "resumed", [*words, "--resume_from_checkpoint", "true"], processes)
    assert resumed.finish() == [0] * processes, resumed.printed()[-3000:]
    expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("OUT", "OUT2"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_the_other_way_to_ask_for_it_is_refused(data, tmp_path, capsys):
    from prithvi_hf.training import finetune

    assert finetune.main(command_line(data, tmp_path / "OUT", enable_jit_checkpoint=True)) == 2
    assert "Expected enable_jit_checkpoint false, found true. Leave it out" in capsys.readouterr().err
