# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Metrics of semantic segmentation, from a confusion matrix that grows with the classes and never with the data.

The pure functions come first, the `evaluate` metric that streams them last. `evaluate` copies this one file elsewhere
and scans its lines for imports, so there is one import per line and none is relative.
"""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
import torch.distributed as dist


_DESCRIPTION = """
Intersection over union, accuracy, F1, precision and recall of semantic segmentation over all pixels of all images, as
mmsegmentation computes them.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: predicted class indices, one (height, width) map per image.
    references: class indices of the same shape; pixels equal to `ignore_index` are left out.
    num_labels (int): number of classes; once is enough: when loading, with a batch, or in `compute`.
    ignore_index (int): the ignored reference value, -100 by default.
Returns:
    dict with mean_iou, mean_accuracy, overall_accuracy, mean_f1, mean_precision, mean_recall (fractions) and
    per_category_iou, per_category_accuracy, per_category_f1, per_category_precision, per_category_recall (lists in
    class order). What is not defined is None.
Examples:
    >>> metric = evaluate.load("prithvi_hf/metrics/segmentation_metrics", num_labels=2)
    >>> metric.add_batch(predictions=[[[0, 1], [1, 1]]], references=[[[0, 0], [1, -100]]])
    >>> metric.compute()["per_category_iou"]
    [0.5, 0.5]
"""

_CITATION = ""

# Array-likes of class indices, or a list of them where the images of one batch differ in size.
ClassMaps = torch.Tensor | np.ndarray | Sequence[Any]
MetricValues = dict[str, float | list[float | None] | None]


def _as_indices(values: ClassMaps, name: str) -> torch.Tensor:
    """Turn class indices into an int64 tensor; a tensor stays on its device."""
    if isinstance(values, torch.Tensor):
        dtype, scores = str(values.dtype), values.is_floating_point() or values.is_complex()
    else:
        # numpy first: every integer type becomes int64, which torch knows in either byte order.
        values = np.asarray(values)
        dtype, scores = str(values.dtype), values.dtype.kind not in "biu" and values.size > 0  # an empty list is float
    if scores:
        raise ValueError(
            f"{name} must hold integer class indices, got {dtype}; take the argmax over the classes first."
        )
    return values.to(torch.int64) if isinstance(values, torch.Tensor) else torch.from_numpy(values.astype(np.int64))


def _check_range(values: torch.Tensor, num_labels: int, name: str, remedy: str) -> None:
    """Refuse class indices outside 0 .. num_labels - 1 and name them."""
    if values.numel() == 0:
        return
    lowest, highest = (int(value) for value in torch.aminmax(values))
    if lowest >= 0 and highest < num_labels:
        return
    found = torch.unique(values[(values < 0) | (values >= num_labels)]).tolist()
    listed = ", ".join(map(str, found[:10])) + (f" and {len(found) - 10} more" if len(found) > 10 else "")
    raise ValueError(f"{name} must be in 0 to {num_labels - 1} (num_labels={num_labels}), found {listed}; {remedy}")


def _check_num_labels(num_labels: int) -> None:
    """Refuse a number of classes that is not a positive integer."""
    if isinstance(num_labels, bool) or not isinstance(num_labels, Integral) or num_labels < 1:
        raise ValueError(
            f"num_labels must be a positive integer, got {num_labels!r}; pass config.num_labels of the model."
        )


def confusion_matrix(
    predictions: ClassMaps, references: ClassMaps, num_labels: int, ignore_index: int = -100
) -> torch.Tensor:
    """Count the pixels of every pair of reference and predicted class.

    Args:
        predictions: class indices in 0 .. num_labels - 1, of any shape: a tensor, an array, nested lists, or a list of
            tensors or arrays of different sizes. What is predicted at ignored pixels is not looked at.
        references: class indices of the same shape; `ignore_index` marks pixels that do not count.
        num_labels: number of classes.
        ignore_index: the ignored reference value.

    Returns:
        int64 tensor (num_labels, num_labels) indexed [reference, prediction], on the device of `predictions`.

    Raises:
        ValueError: when the shapes differ, the values are not integers, or a class index is out of range (the message
            names the values).
    """
    _check_num_labels(num_labels)
    for maps in (predictions, references):
        if isinstance(maps, list | tuple) and any(isinstance(one, torch.Tensor | np.ndarray) for one in maps):
            # Maps that may differ in size: their matrices add up.
            if len(predictions) != len(references):
                raise ValueError(
                    f"predictions and references must pair up, got {len(predictions)} and {len(references)} images; "
                    "pass the label map of each predicted map."
                )
            pairs = zip(predictions, references, strict=True)
            return torch.stack([confusion_matrix(*pair, num_labels, ignore_index) for pair in pairs]).sum(dim=0)
    predictions = _as_indices(predictions, "predictions")
    references = _as_indices(references, "references").to(predictions.device)
    if predictions.shape != references.shape:
        raise ValueError(
            f"predictions and references must have one shape, got {tuple(predictions.shape)} and "
            f"{tuple(references.shape)}; resize the logits to the size of the labels before the argmax."
        )
    counted = references != ignore_index
    # Ignored pixels take part as class 0 and are subtracted again: selecting the others is three times as slow.
    predictions, references = torch.where(counted, predictions, 0), torch.where(counted, references, 0)
    _check_range(references, num_labels, "references", f"only ignore_index={ignore_index} may be outside.")
    _check_range(predictions, num_labels, "predictions", "check num_labels against the model's classes.")
    cells = torch.bincount((references * num_labels + predictions).flatten(), minlength=num_labels**2)
    cells[0] -= (~counted).sum()
    return cells.reshape(num_labels, num_labels)


def metrics_from_confusion_matrix(
    matrix: torch.Tensor | np.ndarray | Sequence[Sequence[int]],
) -> MetricValues:
    """Derive every metric from pixel counts.

    A class that occurs neither in the references nor in the predictions is None throughout. A class that is only
    predicted has IoU and precision 0, but no accuracy, recall and F1; a class of which no pixel is predicted has IoU
    and recall 0, but no precision and F1. Without a hit F1 is None. The means skip None. All this is mmsegmentation's.

    Args:
        matrix: counts (num_labels, num_labels) indexed [reference, prediction].

    Returns:
        dict of `mean_iou`, `mean_accuracy`, `overall_accuracy`, `mean_f1`, `mean_precision`, `mean_recall` (fractions
        in 0 to 1, or None) and `per_category_iou`, `per_category_accuracy`, `per_category_f1`,
        `per_category_precision`, `per_category_recall` (lists in class order). The values are Python floats and None,
        hence valid JSON.

    Raises:
        ValueError: when the matrix is not square.
    """
    matrix = torch.as_tensor(matrix).to(device="cpu", dtype=torch.int64)
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"the confusion matrix must be (num_labels, num_labels), got {tuple(matrix.shape)}.")

    def divide(numerator: torch.Tensor, denominator: torch.Tensor) -> list[float | None]:
        # None where nothing was counted.
        return [n / d if d else None for n, d in zip(numerator.tolist(), denominator.tolist(), strict=True)]

    hits, labelled, predicted = matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0)
    recall, precision = divide(hits, labelled), divide(hits, predicted)
    per_category = {
        "iou": divide(hits, labelled + predicted - hits),
        "accuracy": recall,
        # The harmonic mean; not defined where both are 0.
        "f1": [2 * p * r / (p + r) if p and r else None for p, r in zip(precision, recall, strict=True)],
        "precision": precision,
        "recall": list(recall),  # of one class, accuracy and recall are one number under two names
    }
    metrics: MetricValues = {}
    for name, values in per_category.items():
        defined = [value for value in values if value is not None]
        metrics[f"mean_{name}"] = sum(defined) / len(defined) if defined else None
    metrics["overall_accuracy"] = divide(hits.sum().reshape(1), matrix.sum().reshape(1))[0]
    return {**metrics, **{f"per_category_{name}": values for name, values in per_category.items()}}


class SegmentationMetrics(evaluate.Metric):
    """Segmentation metrics over a stream of batches, in memory that does not grow with their number.

    Load it by `evaluate.load(folder, num_labels=...)` or construct it. In a torch.distributed run each process adds
    its own images and every process calls `compute`, which sums the counts once and returns one result everywhere.

    Args:
        num_labels: number of classes; may instead come with the first batch.
        ignore_index: reference value of the pixels that do not count.
        **kwargs: handed to `evaluate.Metric`.
    """

    def __init__(self, *, num_labels: int | None = None, ignore_index: int = -100, **kwargs: Any) -> None:
        if num_labels is not None:
            _check_num_labels(num_labels)
        self.num_labels, self.ignore_index = num_labels, ignore_index
        self._matrix: torch.Tensor | None = None
        self._num_examples = 0
        super().__init__(**kwargs)

    def __len__(self) -> int:
        return self._num_examples

    def _info(self) -> evaluate.MetricInfo:
        class_map = datasets.Sequence(datasets.Sequence(datasets.Value("int64")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": class_map, "references": class_map}),
        )

    def _set_options(self, num_labels: int | None, ignore_index: int | None) -> int:
        """Take over what was given and return the number of classes; once counting, options may only be repeated."""
        given = {"num_labels": num_labels, "ignore_index": ignore_index}
        for name, value in given.items():
            if value is None or value == getattr(self, name):
                continue
            if self._matrix is not None:
                raise ValueError(
                    f"{name}={value} given after batches counted with {name}={getattr(self, name)}; "
                    "call compute() first, which starts again."
                )
            setattr(self, name, value)
        if self.num_labels is None:
            raise ValueError(
                "num_labels is not known: pass it to evaluate.load(folder, num_labels=...), add_batch or compute."
            )
        return self.num_labels

    def add(
        self,
        *,
        prediction: ClassMaps,
        reference: ClassMaps,
        num_labels: int | None = None,
        ignore_index: int | None = None,
    ) -> None:
        """Count one image: class indices (height, width); the options are those of `add_batch`."""
        self.add_batch(
            predictions=[prediction], references=[reference], num_labels=num_labels, ignore_index=ignore_index
        )

    def add_batch(
        self,
        *,
        predictions: ClassMaps,
        references: ClassMaps,
        num_labels: int | None = None,
        ignore_index: int | None = None,
    ) -> None:
        """Count a batch; the images themselves are not kept.

        Args:
            predictions: class indices (batch_size, height, width), or a list of (height, width) maps.
            references: class indices of the same shapes.
            num_labels: number of classes, when not given before.
            ignore_index: the ignored reference value, when not given before.
        """
        num_labels = self._set_options(num_labels, ignore_index)
        matrix = confusion_matrix(predictions, references, num_labels, self.ignore_index)
        self._matrix = matrix if self._matrix is None else self._matrix + matrix.to(self._matrix.device)
        self._num_examples += len(predictions)

    def compute(
        self,
        *,
        predictions: ClassMaps | None = None,
        references: ClassMaps | None = None,
        num_labels: int | None = None,
        ignore_index: int | None = None,
    ) -> MetricValues:
        """Return the metrics of everything added since the last call, and start again.

        In a torch.distributed run this is a collective call: every process makes it, and gets the result of them all.

        Args:
            predictions: a last (or only) batch of class indices.
            references: its references.
            num_labels: number of classes, when not given before.
            ignore_index: the ignored reference value, when not given before.
        """
        num_labels = self._set_options(num_labels, ignore_index)
        if predictions is not None and references is not None:
            self.add_batch(predictions=predictions, references=references)
        elif predictions is not None or references is not None:
            raise ValueError("predictions and references come together, but only one of the two was given.")
        distributed, matrix = dist.is_available() and dist.is_initialized(), self._matrix
        if self.num_process > 1 and not distributed:
            raise ValueError(
                f"num_process={self.num_process}, but torch.distributed, through which the processes share their "
                "counts, is not initialised; start them with torchrun or accelerate launch, or leave num_process out."
            )
        if matrix is None and not distributed:
            raise ValueError("nothing was added: call add_batch first, or pass predictions and references to compute.")
        if matrix is None:  # a process that got no image must still take part in the sum
            matrix = torch.zeros(num_labels, num_labels, dtype=torch.int64)
        if distributed:
            # NCCL only takes CUDA tensors. Every other backend takes CPU ones, which a process without images has.
            nccl = dist.get_backend() == "nccl"
            device = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
            matrix = matrix.to(device, copy=True)
            dist.all_reduce(matrix)
        self._matrix, self._num_examples = None, 0
        return metrics_from_confusion_matrix(matrix)
