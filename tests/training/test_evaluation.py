# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The table of an evaluation; whole evaluations are in tests/cli/test_evaluate.py."""

from prithvi_hf import PrithviConfig
from prithvi_hf.training.evaluation import SplitResult, get_class_names


def test_absent_classes_have_no_figure():
    metrics = {"mean_iou": 0.5, "mean_accuracy": None, "overall_accuracy": 1.0, "mean_f1": None}
    result = SplitResult("test", 1, None, {**metrics, "per_category_iou": [0.5, None]}, {"iou": {"b": 12.5}})
    table = result.table(["a", "b"]).splitlines()
    assert table[-1].split() == ["IoU", "of", "b", "12.50", "-", "-"]
    assert table[-2].split() == ["IoU", "of", "a", "-", "50.00", "-"]


def test_class_names_are_in_order():
    names = [f"class {number}" for number in range(12)]
    config = PrithviConfig(id2label={str(index): name for index, name in reversed(list(enumerate(names)))})
    assert get_class_names(config) == names
