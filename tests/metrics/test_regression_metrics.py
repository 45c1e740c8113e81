# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Regression metrics: their values, the valid pixels, and sums that add up."""

from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch

import prithvi_hf.metrics
from prithvi_hf.metrics import RegressionMetrics, metrics_from_sums, sum_errors


def make_maps(seed=0, shape=(3, 5, 7)):
    numbers = np.random.default_rng(seed)
    references = numbers.normal(300, 5, shape).astype(np.float32)
    return (references + numbers.normal(1, 2, shape)).astype(np.float32), references


def test_the_metrics_are_those_of_their_definitions():
    predictions, references = make_maps()
    found = metrics_from_sums(sum_errors(predictions, references))
    errors = predictions.astype(np.float64) - references
    assert found["rmse"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-12)
    assert found["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-12)
    assert found["bias"] == pytest.approx(errors.mean(), rel=1e-12)
    assert found["r2"] == pytest.approx(1 - (errors**2).mean() / references.astype(np.float64).var(), rel=1e-9)
    assert found["valid_pixels"] == errors.size


def test_the_mean_of_the_references_has_an_r2_of_zero():
    _, references = make_maps()
    mean = np.full(references.shape, references.astype(np.float64).mean())
    assert metrics_from_sums(sum_errors(mean, references))["r2"] == pytest.approx(0, abs=1e-9)


def test_pixels_without_a_reference_do_not_count_whatever_is_predicted_there():
    predictions, references = make_maps()
    expected = metrics_from_sums(sum_errors(predictions[:, 1:], references[:, 1:]))
    predictions[:, 0], references[:, 0] = np.nan, np.nan
    assert metrics_from_sums(sum_errors(predictions, references)) == pytest.approx(expected, rel=1e-12)


def test_what_is_not_defined_is_none():
    nothing = torch.full((2, 2), torch.nan)
    assert metrics_from_sums(sum_errors(nothing, nothing)) == {
        **dict.fromkeys(("rmse", "mae", "bias", "r2")),
        "valid_pixels": 0.0,
    }
    constant = metrics_from_sums(sum_errors(torch.zeros(2, 2), torch.full((2, 2), 0.1)))
    assert constant["r2"] is None
    assert constant["mae"] == pytest.approx(0.1)


def test_a_prediction_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="must be finite"):
        sum_errors([[np.nan]], [[1.0]])
    with pytest.raises(ValueError, match="one shape"):
        sum_errors([[1.0]], [[1.0, 2.0]])


def test_batches_of_the_metric_add_up_to_the_whole_and_it_starts_again():
    predictions, references = make_maps()
    expected = metrics_from_sums(sum_errors(predictions, references))
    metric = evaluate.load(str(Path(prithvi_hf.metrics.__file__).parent / "regression_metrics"))
    assert type(metric).__name__ == RegressionMetrics.__name__
    metric.add_batch(predictions=list(predictions[:2]), references=list(references[:2]))
    assert metric.compute(predictions=predictions[2:], references=references[2:]) == pytest.approx(expected, rel=1e-12)
    assert metric.compute()["valid_pixels"] == 0
