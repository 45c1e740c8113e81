# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Metrics of regression over all valid pixels, from sums that do not grow with the data.

The pure functions come first, the `evaluate` metric that streams them last. `evaluate` copies this one file elsewhere
and scans its lines for imports, so there is one import per line and none is relative.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
import torch.distributed as dist


_DESCRIPTION = """
Root mean square error, mean absolute error, bias and coefficient of determination over all pixels with a reference.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: predicted values, one (height, width) map per image.
    references: values of the same shape; NaN is left out.
Returns:
    dict with rmse, mae, bias (prediction - reference; all in the unit of the values), r2 and valid_pixels. What is
    not defined is None.
Examples:
    >>> metric = evaluate.load("prithvi_hf/metrics/regression_metrics")
    >>> metric.add_batch(predictions=[[[1.0, 2.0]]], references=[[[1.0, 4.0]]])
    >>> metric.compute()["mae"]
    1.0
"""

ValueMaps = torch.Tensor | np.ndarray | Sequence[Any]


def sum_errors(predictions: ValueMaps, references: ValueMaps) -> torch.Tensor:
    """Sum what the metrics need; the sums of several batches add up.

    Args:
        predictions: values of any shape; what is predicted where there is no reference is not looked at.
        references: values of the same shape; NaN does not count.

    Returns:
        float64 tensor of the count, and of the sums of the errors, their absolute values, their squares, of the
        references and of the references' squares; on the device of `predictions`, or on the CPU where that device has
        no float64.

    Raises:
        ValueError: the shapes differ, or a prediction is not finite where there is a reference.
    """
    predictions, references = torch.as_tensor(predictions), torch.as_tensor(references)
    if predictions.shape != references.shape:
        raise ValueError(
            f"predictions and references must have one shape, got {tuple(predictions.shape)} and "
            f"{tuple(references.shape)}."
        )
    device = torch.device("cpu") if predictions.device.type == "mps" else predictions.device
    values = references.to(device).double()
    counted = ~values.isnan()
    errors = torch.where(counted, predictions.detach().to(device).double() - values, 0)
    if not errors.isfinite().all():
        raise ValueError("predictions must be finite, got NaN or infinite values where there is a reference.")
    values = torch.where(counted, values, 0)
    terms = (counted.double(), errors, errors.abs(), errors.square(), values, values.square())
    return torch.stack([term.sum() for term in terms])


def metrics_from_sums(sums: torch.Tensor | Sequence[float]) -> dict[str, float | None]:
    """Derive every metric from the sums of [`sum_errors`].

    Args:
        sums: (6,), those of one call, or of several calls added up.

    Returns:
        `rmse`, `mae`, `bias` (mean of prediction - reference), `r2` (1 - squared errors / squared deviations of the
        references from their mean; None where these do not vary) and `valid_pixels`. Without a reference all are None.
    """
    count, error, absolute, square, total, squares = torch.as_tensor(sums, dtype=torch.float64).tolist()
    if not count:
        return {**dict.fromkeys(("rmse", "mae", "bias", "r2")), "valid_pixels": 0.0}
    deviations = squares - total**2 / count
    # What rounding leaves of constant references is not a spread.
    r2 = 1 - square / deviations if deviations > 1e-12 * squares else None
    return {
        "rmse": (square / count) ** 0.5,
        "mae": absolute / count,
        "bias": error / count,
        "r2": r2,
        "valid_pixels": count,
    }


class RegressionMetrics(evaluate.Metric):
    """Regression metrics over a stream of batches, in memory that does not grow with their number.

    Load it by `evaluate.load(folder)` or construct it. In a torch.distributed run each process adds its own images and
    every process calls `compute`, which adds the sums up once and returns one result everywhere.

    Args:
        **kwargs: handed to `evaluate.Metric`.
    """

    def __init__(self, **kwargs: Any) -> None:
        self._sums = torch.zeros(6, dtype=torch.float64)
        super().__init__(**kwargs)

    def _info(self) -> evaluate.MetricInfo:
        value_map = datasets.Sequence(datasets.Sequence(datasets.Value("float32")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": value_map, "references": value_map}),
        )

    def add(self, *, prediction: ValueMaps, reference: ValueMaps) -> None:
        """Count one image: values (height, width)."""
        self._sums += sum_errors(prediction, reference).cpu()

    def add_batch(self, *, predictions: ValueMaps, references: ValueMaps) -> None:
        """Count a batch of maps (batch_size, height, width), or a list of maps that may differ in size."""
        if len(predictions) != len(references):
            raise ValueError(
                f"Expected a reference for each of {len(predictions)} predictions, got {len(references)}."
            )
        for prediction, reference in zip(predictions, references, strict=True):
            self.add(prediction=prediction, reference=reference)

    def compute(
        self, *, predictions: ValueMaps | None = None, references: ValueMaps | None = None
    ) -> dict[str, float | None]:
        """Return the metrics of everything added since the last call, and start again.

        In a torch.distributed run this is a collective call: every process makes it, and gets the result of them all.

        Args:
            predictions: a last (or only) batch.
            references: its references.
        """
        if predictions is not None and references is not None:
            self.add_batch(predictions=predictions, references=references)
        sums, self._sums = self._sums, torch.zeros(6, dtype=torch.float64)
        if dist.is_available() and dist.is_initialized():
            nccl = dist.get_backend() == "nccl"
            sums = sums.to(torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu"))
            dist.all_reduce(sums)
        return metrics_from_sums(sums)
