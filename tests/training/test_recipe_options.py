# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The options of a recipe: what they say of themselves, and what they refuse by themselves."""

from dataclasses import fields

import pytest
import yaml

from prithvi_hf import PrithviConfig
from prithvi_hf.data.builders import DATASETS
from prithvi_hf.models.prithvi.decode_heads_prithvi import HEADS, NECKS
from prithvi_hf.models.prithvi.loss_prithvi import LOSSES
from prithvi_hf.training.recipe_options import DataArguments, ModelArguments


def helps(group):
    return {option.name: option.metadata.get("help", "") for option in fields(group)}


@pytest.mark.parametrize(
    ("group", "option", "registry"),
    [
        (DataArguments, "dataset", DATASETS),
        (ModelArguments, "neck", NECKS),
        (ModelArguments, "decode_head", HEADS),
        (ModelArguments, "loss", LOSSES),
    ],
)
def test_help_names_every_choice(group, option, registry):
    assert all(name in helps(group)[option] for name in registry)


def test_every_option_has_a_help_text():
    assert all({**helps(ModelArguments), **helps(DataArguments)}.values())


def test_options_of_the_model_are_fields_of_its_configuration():
    others = {"model", "attn_implementation", "freeze_backbone", "train_norms", "adapter"}
    others |= {option.name for option in fields(ModelArguments) if option.name.startswith("adapter_")}
    assert {option.name for option in fields(ModelArguments)} - others <= {
        option.name for option in fields(PrithviConfig)
    }


def test_json_is_read_once():
    data = DataArguments(dataset_options='{"months": [1, 2]}', published='{"test": {"mean_iou": 88.68}}')
    assert data.dataset_options == {"months": [1, 2]}
    assert data.published == {"test": {"mean_iou": 88.68}}
    with pytest.raises(ValueError, match="--dataset_options as a JSON object"):
        DataArguments(dataset_options="[1]")


@pytest.mark.parametrize(
    ("published", "part"),
    [
        ("{test: 88}", "found 88 for test"),
        ("{test: {iou: [1]}}", "for test"),
        ("{test: {mean_iou: high}}", r"found \['high'\]"),
        ("{test: {mean_iou: 0.5, iou: {water: 101}}}", r"found \[101\]"),
        ("{test: {miou: 50}}", "under mean_iou, .*found miou"),
    ],
)
def test_published_figures_are_percents(published, part):
    with pytest.raises(ValueError, match=part):
        DataArguments(class_names=["land", "water"], published=yaml.safe_load(published))


@pytest.mark.parametrize("names", [["a", "b", "a"], ["Water", "land", "water "], ["No  water", "no water"]])
def test_class_names_differ(names):
    with pytest.raises(ValueError, match=f"found {names[0]}.* more than once.*label_map"):
        DataArguments(class_names=names)


@pytest.mark.parametrize("name", ["no data", "NoData", "no-data", "NO_DATA", "Ignore", "ignored", " ", "-"])
def test_names_of_pixels_without_a_class_are_no_classes(name):
    with pytest.raises(ValueError, match=r"Expected names of classes, found .*Remedy.*ignore_values"):
        DataArguments(class_names=["land", name])
    assert DataArguments(class_names=["no water", "data centre", "none", "other"]).class_names


@pytest.mark.parametrize(("given", "found"), [('{"255": 1}', {"255": 1}), ({10: 0}, {10: 0}), (None, None)])
def test_label_map_comes_as_json_or_as_yaml_has_it(given, found):
    assert DataArguments(label_map=given).label_map == found
    with pytest.raises(ValueError, match=r"--label_map as a JSON object such as '\{\"255\": 1\}'"):
        DataArguments(label_map="255=1")


def test_the_home_folder_of_a_starting_model(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert ModelArguments(model="~/model").model == "/somewhere/model"
