# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Comparing two models by the figures of their chips; whole comparisons are in tests/cli/test_compare.py."""

import json

import numpy as np
import pytest

from prithvi_hf.training.chip_figures import make_chip_table
from prithvi_hf.training.comparison import compare_tables, describe_difference, format_comparison, paint_winners


def table_of(right, *, task="segmentation", chips=None, groups=None, digests=None, names=("land", "water")):
    """Chips of 100 pixels of both classes each, of which a fraction is right."""
    right = np.asarray(right, dtype=float)
    count = len(right)
    hits = (right * 100).round().astype(np.int64)
    columns = {"loss": 1 - right, "loss_weight": np.full(count, 200)}
    if task == "segmentation":
        columns["confusion"] = np.stack([hits, 100 - hits, 100 - hits, hits], axis=1)
    else:
        errors = 100 * (1 - right)
        sums = [np.full(count, 100.0), errors, errors, errors, np.full(count, 5.0), np.full(count, 500.0)]
        columns["error_sums"] = np.stack(sums, axis=1)
    columns["label_digest"] = np.arange(count) if digests is None else np.asarray(digests)
    return make_chip_table(
        columns, task=task, split="test", prefix="test", groups=groups, class_names=names,
        chips=[f"chip {place}" for place in range(count)] if chips is None else chips,
    )  # fmt: skip


A = np.linspace(0.4, 0.8, 20)


def test_a_model_that_is_better_on_every_chip_is_told_apart_though_the_intervals_overlap():
    result = compare_tables(table_of(A), table_of(A + 0.02))
    row = result["splits"]["test"]["metrics"]["overall_accuracy"]
    assert row["difference"] == pytest.approx(0.02)
    low, high = row["interval"]
    assert 0.019 < low <= high < 0.021
    assert row["b_better"] == 1
    assert "B is better by" in describe_difference(result, "test")
    assert describe_difference(result, "test").endswith(": distinguishable")
    assert [row["difference"] > 0 for row in result["splits"]["test"]["metrics"]["per_category_iou"]] == [True, True]


def test_models_that_are_better_here_and_there_are_not_told_apart():
    rng = np.random.default_rng(3)
    result = compare_tables(table_of(A), table_of(np.clip(A + rng.normal(0, 0.1, 20), 0, 1)))
    assert describe_difference(result, "test").endswith(": not distinguishable")
    row = result["splits"]["test"]["metrics"]["mean_iou"]
    assert row["interval"][0] < 0 < row["interval"][1]
    assert 0.02 < row["b_better"] < 0.98
    assert "not distinguishable" in format_comparison(result)


def test_the_same_model_does_not_differ():
    result = compare_tables(table_of(A), table_of(A))
    assert result["splits"]["test"]["metrics"]["mean_iou"]["interval"] == [0, 0]
    assert describe_difference(result, "test").endswith(": not distinguishable")


def test_of_errors_the_smaller_one_is_better():
    result = compare_tables(table_of(A, task="regression"), table_of(A - 0.02, task="regression"))
    metrics = result["splits"]["test"]["metrics"]
    assert metrics["rmse"]["difference"] > 0
    assert metrics["rmse"]["b_better"] == 0
    assert metrics["bias"]["b_better"] is None
    assert describe_difference(result, "test").startswith("A is better by")


def test_chips_are_paired_by_their_ids_and_ranked_by_their_difference():
    order = [2, 0, 1]
    other = np.array([0.4, 0.9, 0.65])
    b = table_of(other[order], chips=[f"chip {place}" for place in order], digests=order, groups=["x", "y", "y"])
    found = compare_tables(table_of([0.4, 0.5, 0.6]), b)["splits"]["test"]
    assert [(one["chip"], one["place"]) for one in found["largest_differences"]] == [
        ("chip 1", 1), ("chip 2", 2), ("chip 0", 0),
    ]  # fmt: skip
    assert {name: group["chips"] for name, group in found["groups"].items()} == {"x": 1, "y": 2}


def test_few_chips_are_said_to_say_little():
    result = compare_tables(table_of([0.4, 0.5]), table_of([0.5, 0.6]))
    assert "fewer than 10, the interval says little" in describe_difference(result, "test")
    alone = compare_tables(table_of([0.4]), table_of([0.5]))
    assert describe_difference(alone, "test").startswith("nothing can be said of mean_iou")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (table_of(A[:5]), "found 15 of A alone"),
        (table_of(A, digests=[*range(19), 77]), r"others in 1 of 20 chips: chip 19"),
        (table_of(A, names=("water", "land")), "of one class_names"),
        (table_of(A, task="regression"), "of one task"),
    ],
)
def test_what_cannot_be_compared_is_refused(other, message):
    with pytest.raises(ValueError, match=message):
        compare_tables(table_of(A), other)


def test_a_split_of_one_model_alone_is_refused():
    with pytest.raises(ValueError, match=r"for bolivia, found test of A and test of B"):
        compare_tables(table_of(A), table_of(A), ["bolivia"])


def test_the_map_shows_who_is_right_where_they_differ():
    labels = np.array([[0, 1, 2, 0, 255]])
    painted = paint_winners(labels, np.array([[0, 0, 0, 0, 0]]), np.array([[1, 1, 1, 0, 1]]))
    a_right, b_right, neither, agree, ignored = painted[0].tolist()
    assert len({tuple(color) for color in (a_right, b_right, neither, agree, ignored)}) == 5
    assert ignored[3] == 0


def test_a_chip_that_is_there_twice_and_labels_that_are_not_known_are_refused():
    twice = table_of([0.5, 0.6], chips=["a", "a"])
    with pytest.raises(ValueError, match=r"figures of B with each chip once .*found 1 chips that are there twice"):
        compare_tables(table_of([0.5, 0.6], chips=["a", "b"]), twice)
    with pytest.raises(ValueError, match=r"figures of A .*found no label_digest"):
        compare_tables(table_of([0.5]).drop_columns(["label_digest"]), table_of([0.5]))


def test_a_model_whose_loss_is_no_number_is_compared_by_the_rest_and_written_as_json():
    columns = {"logits": np.eye(2), "labels": np.array([[0], [1]]), "loss": np.array([np.nan, 0.5])}
    columns |= {"loss_weight": np.array([1, 1]), "label_digest": np.arange(2)}
    options = {"split": "test", "prefix": "test", "chips": ["a", "b"], "class_names": ("x", "y")}
    table = make_chip_table(columns, task="classification", **options)
    result = compare_tables(table, table)
    assert json.loads(json.dumps(result, allow_nan=False))["splits"]["test"]["chips"] == 2
