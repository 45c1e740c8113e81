# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The splits of a fold: no chip in two of them, no group on two sides, and what cannot be divided."""

import re

import numpy as np
import pytest

from prithvi_hf.training.fold_splits import arrange_fold, divide_chips, join_fold_splits
from prithvi_hf.training.recipe import parse_arguments
from prithvi_hf.training.recipe_chips import load_splits
from tests.finetune_factory import command_line, finetune, make_chips, read_pixels, replace_pixels


DIVIDED = ["Ghana_1", "Ghana_7", "India_3", "India_5", "Mekong_4", "Spain_2", "Spain_6"]


@pytest.fixture
def make_recipe(data, tmp_path):
    def make(place=data, **options):
        return parse_arguments(command_line(place, tmp_path / "OUT", **{"folds": 3, "group_by": "event", **options}))

    return make


def ids(splits):
    return {name: list(split.with_format(None)["id"]) for name, split in splits.items()}


def test_each_chip_is_held_out_once_by_a_fold_that_has_not_seen_its_group(make_recipe):
    held = []
    for fold in range(3):
        recipe = make_recipe(fold=fold)
        assert recipe.data.test_splits == ["held_out", "test", "bolivia"]
        found = ids(load_splits(recipe, ["train", "validation", "held_out", "test"], ""))
        parts = [found[name] for name in ("train", "validation", "held_out")]
        assert sorted(chip for part in parts for chip in part) == DIVIDED
        events = [{chip.split("_")[0] for chip in part} for part in parts]
        assert not events[0] & events[1]
        assert not events[0] & events[2]
        assert not events[1] & events[2]
        assert found["test"] == ["Ghana_8", "Spain_9"]
        held += found["held_out"]
    assert sorted(held) == DIVIDED


def test_a_training_that_evaluates_nothing_takes_all_folds_but_one(make_recipe):
    quiet = {"do_eval": False, "eval_strategy": "no", "load_best_model_at_end": False}
    found = ids(load_splits(make_recipe(folds=2, fold=1, **quiet), ["train", "held_out"], ""))
    assert sorted(found["train"] + found["held_out"]) == DIVIDED
    with pytest.raises(ValueError, match="at least 3 folds where one of them chooses the checkpoint, found 2"):
        load_splits(make_recipe(folds=2, fold=1), ["train"], "")


def test_a_table_says_the_folds_in_place_of_groups(make_recipe, tmp_path):
    table = tmp_path / "mine.csv"
    lines = [f"{name},{place % 3}" for place, name in enumerate(DIVIDED)]
    table.write_text("\n".join(["chip,fold", *lines]))
    recipe = make_recipe(fold=0, fold_file=table, group_by=None)
    assert sorted(ids(load_splits(recipe, ["held_out"], ""))["held_out"]) == ["Ghana_1", "India_5", "Spain_6"]
    table.write_text("\n".join(["chip,fold", *lines[1:], "Peru_1,0"]))
    with pytest.raises(ValueError, match=r"found 1 chips without one \(Ghana_1\) and 1 .*\(Peru_1\)"):
        load_splits(make_recipe(fold=0, fold_file=table), ["held_out"], "")


def test_a_class_of_one_fold_alone_is_refused_and_of_some_folds_named(make_recipe, tmp_path, caplog):
    place = make_chips(tmp_path / "data")
    for path in place.rglob("*_LabelHand.tif"):
        pixels = read_pixels(path)
        if not path.name.startswith(("Ghana", "Spain")):
            replace_pixels(path, np.where(pixels == 1, 0, pixels))
    recipe = make_recipe(place, folds=4)
    chips = join_fold_splits(recipe, load_splits(recipe, ["train", "validation"], ""))
    divide_chips(recipe, chips)
    assert "have the class water" not in caplog.text
    assert "has the class water: their own figures are means of the other classes" in caplog.text
    for path in place.rglob("Spain*_LabelHand.tif"):
        replace_pixels(path, np.zeros_like(read_pixels(path)))
    with pytest.raises(ValueError, match=r"the class water in at least two folds, found it in fold \d alone"):
        divide_chips(recipe, chips)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "at least 2 folds"),
        ({"folds": 3, "fold": 3}, "fold from 0 to folds - 1, found folds 3 and fold 3"),
        ({"folds": None, "group_by": None, "fold": 0}, "Expected folds with fold, found none"),
        ({"group_by": None}, "takes each chip as a group of its own"),
        ({"fold": 0, "fold_splits": ["train", "held_out"]}, "without held_out"),
        ({"fold": 0, "fold_splits": ["train", "nowhere"]}, r"the split\(s\) \['nowhere'\]"),
        ({"fold": 0, "folds": 5}, r"as many groups as folds \(5\), found 4 among 7 chips"),
    ],
)
def test_folds_that_cannot_be_are_refused_before_anything_is_written(data, tmp_path, capsys, options, message):
    words = command_line(data, tmp_path / "OUT", **{"folds": 3, "group_by": "event", **options})
    assert finetune.main(words) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not (tmp_path / "OUT").exists()


def test_chips_of_one_name_in_two_splits_are_refused(make_recipe):
    recipe = make_recipe(fold=0)
    splits = load_splits(make_recipe(), ["train", "validation"], "")
    with pytest.raises(ValueError, match="ids that differ in train, validation to divide into folds, found 4 more"):
        arrange_fold(recipe, {"train": splits["train"], "validation": splits["train"]})
