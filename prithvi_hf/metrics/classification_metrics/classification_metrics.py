# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Metrics of image classification, of one class per image or of several.

The pure functions come first, the `evaluate` metric last. `evaluate` copies this one file elsewhere and scans its
lines for imports, so there is one import per line and none is relative.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
import torch


_DESCRIPTION = """
Accuracy and F1 of images with one class, and besides mean average precision of images with several.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: logits (num_images, num_labels).
    references: class indices (num_images,), or with several classes zeros and ones (num_images, num_labels).
Returns:
    dict with accuracy, macro_f1, micro_f1 (fractions), per_category_f1, per_category_precision, per_category_recall
    (lists in class order), and with several classes mean_average_precision and per_category_average_precision. What is
    not defined is None.
Examples:
    >>> metric = evaluate.load("prithvi_hf/metrics/classification_metrics")
    >>> metric.compute(predictions=[[2.0, -1.0], [0.5, 0.1]], references=[0, 1])["accuracy"]
    0.5
"""

MetricValues = dict[str, float | list[float | None] | None]


def average_precision(scores: torch.Tensor, positives: torch.Tensor) -> float | None:
    """Compute the area under the curve of precision over recall, in steps: the sum of (R_n - R_(n-1)) P_n.

    Args:
        scores: of any kind, (num_images,); equal scores are one step.
        positives: bool (num_images,).

    Returns:
        A fraction, or None without a positive image.
    """
    if not positives.any():
        return None
    order = scores.argsort(descending=True)
    scores, hits = scores[order], positives[order].double().cumsum(0)
    ends = torch.cat([scores[1:] != scores[:-1], torch.tensor([True])])  # the last image of each score
    hits, ranks = hits[ends], torch.arange(1, len(scores) + 1, dtype=torch.float64)[ends]
    return float((torch.diff(hits, prepend=hits.new_zeros(1)) * hits / ranks).sum() / hits[-1])


def classification_metrics(
    logits: torch.Tensor | np.ndarray | Sequence[Any], labels: torch.Tensor | np.ndarray | Sequence[Any]
) -> MetricValues:
    """Compute every metric of logits and labels.

    The class of an image is that of its largest logit; with several classes they are those whose logit is above 0, a
    probability of 0.5. F1 of a class is 2 TP / (2 TP + FP + FN); of one that is in neither labels nor predictions it
    is None, and left out of the mean.

    Args:
        logits: (num_images, num_labels).
        labels: class indices (num_images,), negative ones are left out; or (num_images, num_labels) of zeros and ones,
            images with NaN or a negative number are left out.

    Returns:
        `accuracy` (with several classes the fraction of images with all classes right), `macro_f1` (mean over the
        classes), `micro_f1` (of all decisions; with one class it is the accuracy), `per_category_f1`,
        `per_category_precision` and `per_category_recall`; with several classes `mean_average_precision` and
        `per_category_average_precision` as well.

    Raises:
        ValueError: the shapes do not fit, or a class index is not below `num_labels`.
    """
    logits, labels = (torch.as_tensor(values).detach().cpu() for values in (logits, labels))
    several = labels.ndim == 2
    if logits.ndim != 2 or len(labels) != len(logits) or (several and labels.shape != logits.shape):
        raise ValueError(
            "Expected logits (num_images, num_labels) and labels (num_images,) or of the same shape, got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)}."
        )
    counted = (labels >= 0).flatten(1).all(1) if several else labels >= 0
    logits, labels = logits[counted].float(), labels[counted]
    num_labels = logits.shape[1]
    if not several and len(labels) and int(labels.max()) >= num_labels:
        raise ValueError(f"Expected labels below num_labels={num_labels}, got {int(labels.max())}.")
    if several:
        truth, found = labels > 0.5, logits > 0
    else:
        classes = torch.arange(num_labels)
        truth, found = labels[:, None] == classes, logits.argmax(1, keepdim=True) == classes

    def divide(parts: torch.Tensor, wholes: torch.Tensor) -> list[float | None]:
        pairs = zip(parts.tolist(), wholes.tolist(), strict=True)
        return [part / whole if whole else None for part, whole in pairs]

    def mean(values: Sequence[float | None]) -> float | None:
        defined = [value for value in values if value is not None]
        return sum(defined) / len(defined) if defined else None

    hits, labelled, predicted = (truth & found).sum(0), truth.sum(0), found.sum(0)
    f1 = divide(2 * hits, labelled + predicted)
    metrics: MetricValues = {
        "accuracy": float((truth == found).all(1).double().mean()) if len(labels) else None,
        "macro_f1": mean(f1),
        "micro_f1": divide(2 * hits.sum()[None], (labelled + predicted).sum()[None])[0],
        "per_category_f1": f1,
        "per_category_precision": divide(hits, predicted),
        "per_category_recall": divide(hits, labelled),
    }
    if several:
        precisions = [average_precision(logits[:, label], truth[:, label]) for label in range(num_labels)]
        metrics |= {"mean_average_precision": mean(precisions), "per_category_average_precision": precisions}
    return metrics


class ClassificationMetrics(evaluate.Metric):
    """Classification metrics; `evaluate.Metric` keeps the logits of the batches until `compute`.

    Args:
        multi_label: whether references are rows of zeros and ones and not class indices.
        **kwargs: handed to `evaluate.Metric`.
    """

    def __init__(self, *, multi_label: bool = False, **kwargs: Any) -> None:
        self.multi_label = multi_label
        super().__init__(**kwargs)

    def _info(self) -> evaluate.MetricInfo:
        reference: Any = datasets.Value("int64")
        if self.multi_label:
            reference = datasets.Sequence(datasets.Value("float32"))
        features = {"predictions": datasets.Sequence(datasets.Value("float32")), "references": reference}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(features),
        )

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> MetricValues:
        return classification_metrics(np.asarray(predictions), np.asarray(references))
