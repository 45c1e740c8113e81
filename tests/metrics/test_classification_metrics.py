# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Classification metrics: values worked out by hand, classes that are nowhere, and average precision."""

from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch

import prithvi_hf.metrics
from prithvi_hf.metrics import classification_metrics
from prithvi_hf.metrics.classification_metrics.classification_metrics import average_precision


# Classes 0, 0, 1, 1 predicted as 0, 1, 1, 1; class 2 is nowhere.
LOGITS = [[3.0, 1, 0], [0, 2, 1], [0, 1, -1], [1, 4, 2]]
LABELS = [0, 0, 1, 1]


def test_one_class_per_image():
    found = classification_metrics(LOGITS, LABELS)
    assert found["accuracy"] == found["micro_f1"] == 0.75
    assert found["per_category_precision"] == [1, 2 / 3, None]
    assert found["per_category_recall"] == [0.5, 1, None]
    assert found["per_category_f1"] == [2 / 3, 0.8, None]
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2)
    assert "mean_average_precision" not in found


def test_a_class_that_is_never_found_lowers_the_mean():
    found = classification_metrics(LOGITS, [0, 0, 2, 1])
    assert found["per_category_f1"] == [2 / 3, 0.5, 0]


def test_several_classes_per_image():
    logits = [[1.0, -1, 2], [-2, 1, -1], [0.5, -3, 1]]
    labels = [[1, 0, 1], [0, 1, 1], [0, 0, 1]]
    found = classification_metrics(logits, labels)
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["per_category_f1"] == [2 / 3, 1, 0.8]
    assert found["micro_f1"] == pytest.approx(8 / 10)
    assert found["per_category_average_precision"] == [1, 1, 1]
    assert found["mean_average_precision"] == 1


def test_average_precision_takes_equal_scores_as_one_step():
    positives = torch.tensor([True, False, True, False])
    # Ranks 1, 2-3 together, 4: precision 1 at a recall of 1/2, then 2/3 at 1.
    assert average_precision(torch.tensor([0.9, 0.5, 0.5, 0.1]), positives) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precision(torch.zeros(4), positives) == 0.5
    assert average_precision(torch.zeros(4), ~positives & positives) is None


def test_ignored_images_do_not_count():
    expected = classification_metrics(LOGITS[:3], LABELS[:3])
    assert classification_metrics(LOGITS, [*LABELS[:3], -100]) == expected
    several = classification_metrics(LOGITS[:2], [[1, 0, 1], [0, 1, 1]])
    assert classification_metrics(LOGITS[:3], [[1, 0, 1], [0, 1, 1], [np.nan, 0, 1]]) == several
    assert classification_metrics(LOGITS[:1], [-100])["accuracy"] is None


def test_shapes_and_classes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(3,\)"):
        classification_metrics(LOGITS, LABELS[:3])
    with pytest.raises(ValueError, match="num_labels=3, got 3"):
        classification_metrics(LOGITS, [0, 0, 3, 1])


@pytest.mark.parametrize("labels", [LABELS, [[1, 0, 0], [0, 1, 1], [1, 0, 0], [0, 0, 0]]])
def test_the_metric_of_evaluate_streams_batches(labels):
    folder = str(Path(prithvi_hf.metrics.__file__).parent / "classification_metrics")
    metric = evaluate.load(folder, multi_label=isinstance(labels[0], list))
    for first in (0, 2):
        metric.add_batch(predictions=LOGITS[first : first + 2], references=labels[first : first + 2])
    assert metric.compute() == classification_metrics(LOGITS, labels)
