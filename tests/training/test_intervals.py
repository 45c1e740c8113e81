# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Bootstrap intervals: the metrics of draws, whole groups, and what cannot be told."""

import numpy as np
import pytest
import torch

from prithvi_hf.metrics import sum_errors
from prithvi_hf.training.chip_figures import compute_metrics, make_chip_table
from prithvi_hf.training.intervals import (
    bootstrap_interval,
    describe_interval,
    draw_weights,
    resample_metrics,
    weigh_metrics,
)


def columns_of(task, chips=12, seed=0):
    rng = np.random.default_rng(seed)
    common = {"loss": np.ones(chips), "loss_weight": np.ones(chips, np.int64)}
    if task == "segmentation":
        matrices = rng.integers(0, 40, (chips, 3, 3)) * (rng.random((chips, 3, 3)) < 0.5)
        matrices[:, 2] = matrices[:, :, 2] = 0  # a class that is in no chip
        union = rng.integers(5, 20, (chips, 3)) * [1, 1, 0]
        return {**common, "confusion": matrices.reshape(chips, 9), "boundary_union": union,
                "boundary_intersection": union // 2}  # fmt: skip
    if task == "regression":
        maps = torch.from_numpy(rng.normal(size=(chips, 2, 30)))
        return {**common, "error_sums": np.stack([sum_errors(one, two).numpy() for one, two in maps])}
    logits = rng.normal(size=(chips, 4)).round(1)  # some are equal
    labels = rng.integers(-1, 4, (chips, 1)) if task == "classification" else rng.integers(0, 2, (chips, 4))
    return {**common, "logits": logits, "labels": labels.astype(float)}


@pytest.mark.parametrize("kind", ["segmentation", "regression", "classification", "several classes"])
def test_a_chip_that_is_drawn_twice_counts_twice(kind):
    """Every weighting against the metrics of a set in which the chips are as often as it says."""
    columns, task = columns_of(kind), "classification" if kind == "several classes" else kind
    weights = draw_weights(12, None, 20, seed=1)
    found = weigh_metrics(task, columns, weights)
    for draw, counts in enumerate(weights.astype(int)):
        repeated = {name: values.repeat(counts, axis=0) for name, values in columns.items()}
        expected = compute_metrics(task, repeated)
        names = set(expected) - {"loss", "valid_pixels"}
        assert set(found) == names
        for name in names:
            values = np.array(expected[name], dtype=float)  # None becomes NaN
            np.testing.assert_allclose(found[name][draw], values, rtol=1e-9, err_msg=name)


def table_of(chips=12, groups=None):
    return make_chip_table(
        columns_of("segmentation", chips), task="segmentation", split="test", prefix="test",
        chips=[f"chip {place}" for place in range(chips)], groups=groups,
    )  # fmt: skip


def test_the_interval_holds_the_metric_and_repeats_itself():
    table = table_of()
    found = bootstrap_interval(table)
    low, high = found["mean_iou"]
    metrics = compute_metrics("segmentation", columns_of("segmentation"))
    assert low < metrics["mean_iou"] < high
    assert found["per_category_iou"][2] is None
    assert bootstrap_interval(table) == found
    assert bootstrap_interval(table, seed=1) != found


def test_it_narrows_with_the_chips_as_theory_says():
    """The standard error of a mean of n chips of one size is the deviation over the root of n."""
    right = np.random.default_rng(5).random(400)
    matrices = np.stack([right, 1 - right, np.zeros(400), np.zeros(400)], axis=1)
    columns = {"confusion": matrices, "loss": np.ones(400), "loss_weight": np.ones(400)}
    draws = resample_metrics("segmentation", columns)["overall_accuracy"]
    assert draws.std() == pytest.approx(right.std() / 20, rel=0.1)


def test_whole_groups_are_drawn():
    weights = draw_weights(6, ["a", "a", "b", None, "b", None], 50, seed=0)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 4]).all()
    assert (weights[:, 3] != weights[:, 5]).any()
    units = weights[:, 0] + weights[:, 2] + weights[:, 3] + weights[:, 5]
    assert (units == 4).all()


def test_few_chips_are_said_to_say_little_and_one_has_no_interval():
    assert describe_interval(table_of()) == "95 % intervals by bootstrap over 12 chips (1,000 draws, seed 0)"
    assert "of fewer than 10 groups they say little" in describe_interval(table_of(groups=["x"] * 5 + ["y"] * 7))
    alone = table_of(1)
    assert describe_interval(alone) == "no intervals: there is one chip"
    found = bootstrap_interval(alone)
    assert (found["mean_iou"], found["per_category_iou"]) == (None, [None] * 3)
