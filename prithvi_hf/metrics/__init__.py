# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Metrics of the package; each folder is an `evaluate` metric that loads from its path."""

from prithvi_hf.metrics.classification_metrics.classification_metrics import (
    ClassificationMetrics,
    classification_metrics,
)
from prithvi_hf.metrics.regression_metrics.regression_metrics import RegressionMetrics, metrics_from_sums, sum_errors
from prithvi_hf.metrics.segmentation_metrics.segmentation_metrics import (
    SegmentationMetrics,
    confusion_matrix,
    metrics_from_confusion_matrix,
)


__all__ = [
    "ClassificationMetrics",
    "RegressionMetrics",
    "SegmentationMetrics",
    "classification_metrics",
    "confusion_matrix",
    "metrics_from_confusion_matrix",
    "metrics_from_sums",
    "sum_errors",
]
