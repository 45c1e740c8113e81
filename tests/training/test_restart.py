# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A run that is killed anywhere and resumed ends with the same bits as one that was not disturbed."""

import json
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.finetune_factory import command_line, run
from tests.process_factory import Kill, start_run


OPTIONS = {"max_steps": 8, "save_steps": 2, "eval_steps": 2, "augmentation": "d4", "num_sample_predictions": 0}
OPTIONS |= {"hidden_dropout_prob": 0.1, "classifier_dropout": 0.1, "early_stopping_patience": 5, "ema_decay": 0.9}
OPTIONS |= {"save_total_limit": 2, "test_splits": "test"}


def read_state(output):
    """What a run ends with: every weight, the optimizer, random numbers and bookkeeping of its last checkpoint."""
    state = json.loads((output / "trainer_state.json").read_text())
    kept = ("global_step", "best_metric", "best_global_step", "epoch", "stateful_callbacks")
    # Time and memory are of the machine.
    names = ("loss", "grad_norm", "learning_rate", "eval_loss", "eval_mean_iou", "eval_overall_accuracy")
    history = [{name: entry[name] for name in (*names, "step") if name in entry} for entry in state["log_history"]]
    results = json.loads((output / "all_results.json").read_text())
    figures = {name: results[name] for name in ("train_loss", "eval_mean_iou", "eval_loss", "test_mean_iou")}
    found = {"state": {name: state[name] for name in kept}, "history": history, "results": figures}
    found["model"] = load_file(output / "model.safetensors")
    last = output / "checkpoint-8"
    found["trained"] = load_file(last / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", *sorted(path.name for path in last.glob("rng_state*"))):
        found[name] = torch.load(last / name, weights_only=False)
    return found


def find_differences(one, other, place=""):
    """Where two nested structures differ in any bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = sorted({*one, *other}, key=str)
        return [part for name in names for part in find_differences(one.get(name), other.get(name), f"{place}/{name}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [part for index, pair in pairs for part in find_differences(*pair, f"{place}/{index}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = torch.equal(one, other)
    elif isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        same = np.array_equal(one, other)
    else:
        same = one == other
    return [] if same else [f"{place}: {str(one)[:80]} and {str(other)[:80]}"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("processes", "trials"), [(1, 20), (2, 5)])
def test_a_run_killed_anywhere_ends_as_if_it_had_not_been(data, tmp_path, processes, trials):
    options = {**OPTIONS, "decoded_cache_dir": tmp_path / "cache", "per_device_train_batch_size": 2 // processes}

    def words(name):
        return command_line(data, tmp_path / name / "OUT", **options)

    undisturbed = start_run(tmp_path / "whole", words("whole"), processes)
    assert undisturbed.finish() == [0] * processes, undisturbed.printed()[-3000:]
    expected, events = read_state(tmp_path / "whole" / "OUT"), undisturbed.events()
    choose = random.Random(0)
    # Some die at the event itself, the others in what follows it, such as writing a file.
    kills = [
        Kill(choose.randrange(1, events), choose.choice([0, 0.003, 0.02]), choose.randrange(processes))
        for _ in range(trials)
    ]

    def try_kill(trial, kill):
        folder = tmp_path / str(trial)
        killed = start_run(folder / "killed", words(str(trial)), processes, kill)
        killed.finish(ends_with=kill.rank)
        resumed = start_run(folder / "resumed", [*words(str(trial)), "--resume_from_checkpoint", "true"], processes)
        if resumed.finish() != [0] * processes:
            return [f"{kill}: {resumed.printed()[-3000:]}"]
        return [f"{kill} {text}" for text in find_differences(expected, read_state(folder / "OUT"))]

    with ThreadPoolExecutor(2 if processes == 1 else 1) as pool:
        problems = list(pool.map(try_kill, range(trials), kills))
    assert [problem for part in problems for problem in part] == []


def test_a_run_that_stopped_early_stays_as_it_was_and_goes_on_with_more_patience(data, tmp_path):
    options = {"max_steps": 8, "save_steps": 2, "eval_steps": 2, "learning_rate": 1e-9, "test_splits": "test"}

    def train(**more):
        run(data, tmp_path / "OUT", **options, num_sample_predictions=0, **more)
        state = json.loads((tmp_path / "OUT" / "trainer_state.json").read_text())
        return state["global_step"], load_file(tmp_path / "OUT" / "model.safetensors")

    stopped, weights = train(early_stopping_patience=1)
    assert stopped == 4
    resumed = train(early_stopping_patience=1, resume_from_checkpoint="true")
    assert find_differences((stopped, weights), resumed) == []
    assert train(early_stopping_patience=9, resume_from_checkpoint="true")[0] == 8


def test_a_resumed_run_may_be_the_first_with_early_stopping(data, output):
    run(data, output, early_stopping_patience=3, resume_from_checkpoint=output / "checkpoint-2")
    state = json.loads((output / "checkpoint-4" / "trainer_state.json").read_text())
    assert "EarlyStoppingCallback" in state["stateful_callbacks"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "event"), [("before the first step", 1), ("at a step", 12)])
def test_a_rank_that_dies_ends_the_run(data, tmp_path, name, event):
    options = {"decoded_cache_dir": tmp_path / "cache", "per_device_train_batch_size": 1, "max_steps": 50}
    run = start_run(tmp_path / "run", command_line(data, tmp_path / "OUT", **options), 2, Kill(event, rank=0))
    statuses = run.finish(timeout=60)  # the other notices by itself, with no launcher to end it
    assert statuses[0] == -9, name
    assert statuses[1] != 0, name
