# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Tests of what the Hub is told of a run: whose data they are, and its results."""

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from prithvi_hf.training.hub_results import find_data_license, find_hub_dataset, write_eval_results
from prithvi_hf.training.recipe_options import DataArguments


RESULTS = {"eval_mean_iou": 0.81234567, "test_mean_iou": 0.5, "bolivia_mean_iou": None}
SPLITS = {"eval": "validation", "test": "test", "bolivia": "bolivia"}


@pytest.mark.parametrize(
    ("options", "dataset", "licence"),
    [
        ({"dataset": "hls_burn_scars"}, "ibm-nasa-geospatial/hls_burn_scars", "cc-by-4.0"),
        ({"dataset": "hls_burn_scars", "dataset_options": {"repository": "me/burns"}}, "me/burns", "cc-by-4.0"),
        ({"hub_dataset_id": "me/mine", "data_license": "mit"}, "me/mine", "mit"),
        ({}, None, None),
    ],
)
def test_dataset_and_licence_are_the_recipes_or_those_of_a_public_dataset(options, dataset, licence):
    data = DataArguments(**options)
    assert find_hub_dataset(data) == dataset
    assert find_data_license(data) == licence


def test_floods_say_what_is_known_of_their_licence():
    assert "no licence" in find_data_license(DataArguments(dataset="sen1floods11"))


def test_each_split_with_a_figure_is_an_entry(tmp_path):
    [path] = write_eval_results(tmp_path, DataArguments(hub_dataset_id="me/mine"), RESULTS, SPLITS)
    assert path == tmp_path / ".eval_results" / "mine.yaml"
    entries = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert [(entry.dataset_id, entry.task_id, entry.value) for entry in entries] == [
        ("me/mine", "validation_mean_iou", 0.8123),
        ("me/mine", "test_mean_iou", 0.5),
    ]


def test_without_a_dataset_on_the_hub_earlier_results_go_and_nothing_is_written(tmp_path):
    write_eval_results(tmp_path, DataArguments(hub_dataset_id="me/mine"), RESULTS, SPLITS)
    assert write_eval_results(tmp_path, DataArguments(), RESULTS, SPLITS) == []
    assert not list((tmp_path / ".eval_results").iterdir())


def test_an_id_that_is_none_is_refused():
    for name in ("mine", "../mine", "me/.."):
        with pytest.raises(ValueError, match=f"hub_dataset_id as owner/name, found '{name}'"):
            DataArguments(hub_dataset_id=name)
