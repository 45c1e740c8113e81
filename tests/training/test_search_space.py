# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The space of a search: what is searched where nothing is said, and what ranges and choices hold."""

import optuna
import pytest

from prithvi_hf.training.recipe import parse_arguments
from prithvi_hf.training.search_space import Choices, Range, check_space, list_space, read_space
from tests.finetune_factory import command_line, save_model


@pytest.fixture
def make_recipe(data, tmp_path):
    return lambda **options: parse_arguments(command_line(data, tmp_path / "OUT", hp_search="optuna", **options))


def test_by_default_rate_and_decay_are_searched_about_the_recipes(make_recipe):
    space = read_space(make_recipe())
    assert space["learning_rate"] == Range(0.0001, 0.01, log=True)
    assert set(space) == {"learning_rate", "weight_decay"}  # only one head fits the neck of a new model


def test_a_starting_model_brings_heads_with_their_necks_and_an_adapter_its_rank(make_recipe, tmp_path):
    start = save_model(tmp_path / "model", ("no water", "water"))
    recipe = make_recipe(model=start, adapter="lora")
    space = read_space(recipe)
    assert {"fcn", "upernet"} <= set(space["decode_head"].values)
    assert space["adapter_rank"] == Choices((4, 8, 16, 32))
    check_space(recipe.change({}, without=("hp_search",)), space)


def test_what_a_space_suggests_is_of_the_kind_of_its_ends():
    trial = optuna.trial.FixedTrial({"rank": 4, "rate": 0.5, "head": "fcn"})
    assert Range(2, 8).suggest(trial, "rank") == 4
    assert Range(0.0, 1.0).suggest(trial, "rate") == 0.5
    assert Choices(("fcn", "unet")).suggest(trial, "head") == "fcn"


def test_a_range_knows_what_it_contains():
    assert Range(2, 8, step=2).contains(4)
    assert not Range(2, 8, step=2).contains(5)
    assert not Range(0.0, 1.0).contains(True)
    assert not Range(0.0, 1.0).contains(None)


def test_a_space_in_a_recipe_is_listed_as_it_was_read(make_recipe, tmp_path):
    lines = "hp_space: {learning_rate: {low: 0.001, high: 0.1, log: true}, augmentation: [none, d4]}\n"
    (tmp_path / "search.yaml").write_text(lines)
    recipe = make_recipe(config=["sen1floods11", tmp_path / "search.yaml"])
    assert list_space(read_space(recipe)) == recipe.repeats.hp_space
