# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Learning rates by layer, gradual unfreezing, stochastic depth and what is frozen, alone and all at once."""

import json
import shutil
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from prithvi_hf.models.prithvi.modeling_prithvi import PrithviDropPath
from tests.finetune_factory import SCRIPT, command_line, finetune, run, run_in_two_processes, save_model
from tests.training.test_trainer import WINDOW, Chips, logged_rates, make_arguments, make_trainer, tiny_model
from tests.training.test_weight_average import Weights, same


CHIPS = Chips([(WINDOW, WINDOW)] * 4)
OPTIONS = {
    **{"max_steps": 6, "learning_rate": 0.01, "logging_steps": 1, "per_device_train_batch_size": 2},
    **{"lr_scheduler_type": "linear", "save_strategy": "steps", "save_steps": 3},
}
ALL_AT_ONCE = {
    **{"layer_decay": 0.5, "unfreeze_every": 1, "ema_decay": 0.9, "gradient_accumulation_steps": 2},
    **{"activation_checkpointing": True, "max_grad_norm": 1.0, "optim": "adamw_torch"},
}


def part_of(name):
    """What is unfrozen together: `after` the layers, a layer, or the embeddings."""
    if name.startswith("prithvi.layers."):
        return int(name.split(".")[2])
    return "embeddings" if name.startswith("prithvi.embeddings.") else "after"


# ---------------------------------------------------------------- learning rates by layer


def test_each_layer_learns_slower_than_the_next_and_decay_stays_with_matrices(tmp_path):
    trainer = make_trainer(
        tmp_path, tiny_model(num_hidden_layers=3), learning_rate=0.1, layer_decay=0.5, weight_decay=0.2
    )
    groups = trainer.create_optimizer().param_groups
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    expected = {"after": 0.1, 2: 0.05, 1: 0.025, 0: 0.0125, "embeddings": 0.00625}
    seen = set()
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert group["lr"] == pytest.approx(expected[part_of(name)]), name
            decayed = parameter.ndim > 1 and not name.endswith("cls_token")
            assert group["weight_decay"] == (0.2 if decayed else 0), name
            seen.add(name)
    assert seen == set(names.values())
    assert groups[0]["lr"] == 0.1  # the rate that a log shows


def test_every_parameter_is_decayed_where_that_is_asked_for(tmp_path):
    trainer = make_trainer(tmp_path, layer_decay=0.5, weight_decay=0.2, decay_all_parameters=True, optim="adam")
    optimizer = trainer.create_optimizer()
    assert isinstance(optimizer, torch.optim.Adam)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.2}


@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor", "sgd", "rmsprop"])
def test_optimizers_by_name_take_the_groups(tmp_path, optim):
    trainer = make_trainer(tmp_path, layer_decay=0.5, optim=optim)
    assert len({group["lr"] for group in trainer.create_optimizer().param_groups}) == 3


def test_the_schedule_scales_the_rates_of_all_layers(tmp_path):
    trainer = make_trainer(tmp_path, tiny_model(), CHIPS, **{**OPTIONS, "max_steps": 2}, layer_decay=0.5)
    trainer.train()
    assert list(logged_rates(trainer).values()) == pytest.approx([0.01, 0.005])
    assert {group["initial_lr"] for group in trainer.optimizer.param_groups} == {0.01, 0.005, 0.0025}


# ---------------------------------------------------------------- gradual unfreezing


def test_one_more_layer_trains_after_every_step_from_the_last_to_the_embeddings(tmp_path):
    weights = Weights()
    trainer = make_trainer(tmp_path, tiny_model(num_hidden_layers=2), CHIPS, **OPTIONS, unfreeze_every=1 / 6)
    trainer.add_callback(weights)
    trainer.train()
    first = {"after": 1, 1: 2, 0: 3, "embeddings": 4}
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in trainer.model.named_parameters()}
    for name in trained:
        values = [step[name] for step in weights.steps]
        changed = [not torch.equal(*pair) for pair in pairwise(values)]
        assert changed == [number >= first[part_of(name)] for number in range(1, 7)] or not any(changed), name
    moved = [name for name in trained if not torch.equal(weights.steps[0][name], weights.steps[-1][name])]
    assert {part_of(name) for name in moved} == set(first)


@pytest.mark.slow
def test_a_resumed_run_with_every_strategy_ends_with_the_same_bits(tmp_path):
    model = {"num_hidden_layers": 3, "drop_path_rate": 0.5, "hidden_dropout_prob": 0.1}
    whole = make_trainer(tmp_path / "whole", tiny_model(**model), CHIPS, **OPTIONS, **ALL_AT_ONCE)
    whole.train()
    checkpoint = shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "cut" / "checkpoint-3")
    cut = make_trainer(tmp_path / "cut", tiny_model(**model), CHIPS, **OPTIONS, **ALL_AT_ONCE)
    cut.train(resume_from_checkpoint=str(checkpoint))
    same(cut.model.state_dict(), whole.model.state_dict())


@pytest.mark.slow
def test_two_processes_train_like_one(data, tmp_path):
    options = {"model": save_model(tmp_path / "model", ("no water", "water")), "classifier_dropout": 0}
    options |= {"max_steps": 4, "layer_decay": 0.5, "unfreeze_every": 1, "ema_decay": 0.5, "max_grad_norm": 0.5}
    options |= {"decoded_cache_dir": tmp_path / "cache", "load_best_model_at_end": False, "do_predict": False}
    options |= {"eval_strategy": "no", "save_strategy": "no", "do_eval": False, "check_data": False}
    two = command_line(data, tmp_path / "two", **options, per_device_train_batch_size=1)
    run_in_two_processes(tmp_path, SCRIPT, *two)
    run(data, tmp_path / "one", **options)
    histories = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        state = json.loads((folder / "trainer_state.json").read_text())
        histories.append([entry["loss"] for entry in state["log_history"] if "loss" in entry])
    assert histories[1] == pytest.approx(histories[0], rel=1e-5)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- stochastic depth and what is frozen


def test_the_probability_of_leaving_a_layer_out_grows_with_its_depth():
    layers = tiny_model(num_hidden_layers=3, drop_path_rate=0.4).prithvi.layers
    assert isinstance(layers[0].drop_path, nn.Identity)
    assert [layer.drop_path.rate for layer in layers[1:]] == [0.2, 0.4]
    assert all(isinstance(layer.drop_path, nn.Identity) for layer in tiny_model().prithvi.layers)


def test_a_branch_is_left_out_whole_for_some_samples_and_scaled_for_the_others():
    torch.manual_seed(0)
    drop, branch = PrithviDropPath(0.25), torch.ones(4000, 2, 3)
    assert torch.equal(drop.eval()(branch), branch)
    kept = drop.train()(branch).flatten(1)
    assert torch.equal(kept.amin(1), kept.amax(1))
    assert set(kept[:, 0].tolist()) == {0.0, float(torch.tensor(1.0) / 0.75)}
    assert float((kept[:, 0] == 0).float().mean()) == pytest.approx(0.25, abs=0.03)


def test_normalisations_of_a_frozen_encoder_can_train():
    model = tiny_model(num_hidden_layers=2)
    model.freeze_backbone(train_norms=True)
    trained = {name for name, parameter in model.prithvi.named_parameters() if parameter.requires_grad}
    norms = {f"layers.{layer}.layernorm_{place}" for layer in (0, 1) for place in ("before", "after")} | {"layernorm"}
    assert trained == {f"{name}.{part}" for name in norms for part in ("weight", "bias")}


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_decay": 0}, "layer_decay must be above 0 and at most 1"),
        ({"layer_decay": 1.5}, "layer_decay must be above 0 and at most 1"),
        ({"unfreeze_every": 0}, "unfreeze_every must be a number above 0"),
        ({"unfreeze_every": float("inf")}, "unfreeze_every must be a number above 0"),
    ],
)
def test_numbers_out_of_their_range_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_arguments(tmp_path, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optim": "lion_32bit"}, "`bitsandbytes`"),
        (
            {"unfreeze_every": 2, "freeze_backbone": True},
            "Expected unfreeze_every of an encoder that trains in the end",
        ),
        ({"train_norms": True}, "Expected train_norms with freeze_backbone, found it alone"),
        ({"drop_path_rate": 1}, "drop_path_rate must be a number from 0 to 0.99"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_written(data, tmp_path, capfd, options, message):
    assert finetune.main(command_line(data, tmp_path / "OUT", **options)) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "OUT").exists()
