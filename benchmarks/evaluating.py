# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Metrics of many chips: a streamed confusion matrix against keeping every map, as `evaluate` does by itself."""

import datasets
import evaluate
import torch

from benchmarks.timing import comparison, median_seconds
from prithvi_hf.metrics.segmentation_metrics.segmentation_metrics import (
    SegmentationMetrics,
    confusion_matrix,
    metrics_from_confusion_matrix,
)


class StoredMaps(evaluate.Metric):
    """The same figures from maps that `evaluate` keeps in an Arrow table until the end."""

    def _info(self) -> evaluate.MetricInfo:
        maps = datasets.Sequence(datasets.Sequence(datasets.Value("int64")))
        return evaluate.MetricInfo(
            description="stored maps",
            citation="",
            inputs_description="",
            features=datasets.Features({"predictions": maps, "references": maps}),
        )

    def _compute(self, predictions: list, references: list) -> dict:
        return metrics_from_confusion_matrix(confusion_matrix(predictions, references, 2))


def _feed(metric: evaluate.Metric, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> dict:
    """Add all batches and compute."""
    for predictions, references in batches:
        metric.add_batch(predictions=predictions, references=references)
    return metric.compute()


def run(repeats: int) -> dict[str, float | str]:
    """Measure both ways on 32 random chips of 512 px.

    Args:
        repeats (`int`): Timed calls of each.

    Returns:
        `dict`: Milliseconds for all chips of both, and their ratio.
    """
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(0, 2, (8, 2, 4, 512, 512), generator=generator)
    batches = [(predictions, references) for predictions, references in maps]
    contenders = {
        "ours": lambda: _feed(SegmentationMetrics(num_labels=2), batches),
        "stored": lambda: _feed(StoredMaps(keep_in_memory=True), batches),
    }
    seconds = median_seconds(contenders, max(1, repeats // 5))
    return comparison(
        "metrics of 32 chips of 512 px", seconds["ours"], seconds["stored"], "evaluate keeping every map"
    )
