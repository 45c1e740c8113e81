# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Metrics of semantic segmentation, from a confusion matrix that grows with the classes and never with the data.

The pure functions come first, the `evaluate` metric that streams them last. `evaluate` copies this one file elsewhere
and scans its lines for imports, so there is one import a line and none is relative.
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
    predictions: predicted class indices, one (height, width) map an image.
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


def _refuse_scores(name: str, dtype: torch.dtype | np.dtype) -> None:
    """Raises the error for values that are no class indices."""
    raise ValueError(f"{name} must hold integer class indices, got {dtype}; take the argmax over the classes first.")


def _as_index_tensor(values: ClassMaps, name: str) -> torch.Tensor:
    """Turns class indices into an int64 tensor, left on its device."""
    tensor = values if isinstance(values, torch.Tensor) else torch.from_numpy(_as_index_array(values, name))
    if tensor.is_floating_point() or tensor.is_complex():
        _refuse_scores(name, tensor.dtype)
    return tensor.to(torch.int64)


def _as_index_array(values: ClassMaps, name: str) -> np.ndarray:
    """Reads nested lists and arrays; every integer type becomes int64, which torch knows in either byte order."""
    array = np.asarray(values)
    if array.dtype.kind not in "biu" and array.size:  # an empty list has a floating dtype
        _refuse_scores(name, array.dtype)
    return array.astype(np.int64)


def _check_range(values: torch.Tensor, num_labels: int, name: str, remedy: str) -> None:
    """Refuses class indices outside 0 .. num_labels - 1 and names them."""
    if values.numel() == 0:
        return
    lowest, highest = (int(value) for value in torch.aminmax(values))
    if lowest >= 0 and highest < num_labels:
        return
    found = torch.unique(values[(values < 0) | (values >= num_labels)]).tolist()
    listed = ", ".join(map(str, found[:10])) + (f" and {len(found) - 10} more" if len(found) > 10 else "")
    raise ValueError(f"{name} must lie in 0 to {num_labels - 1} (num_labels={num_labels}), found {listed}; {remedy}")


def _check_num_labels(num_labels: int) -> None:
    """Refuses a number of classes that is no positive integer."""
    if isinstance(num_labels, bool) or not isinstance(num_labels, Integral) or num_labels < 1:
        raise ValueError(
            f"num_labels must be a positive integer, got {num_labels!r}; pass config.num_labels of the model."
        )


def _is_list_of_arrays(values: ClassMaps) -> bool:
    """Tells a list of maps, which may differ in size, from nested numbers."""
    return isinstance(values, (list, tuple)) and any(isinstance(value, (torch.Tensor, np.ndarray)) for value in values)


def _confusion_of_list(
    predictions: ClassMaps, references: ClassMaps, num_labels: int, ignore_index: int
) -> torch.Tensor:
    """Adds up the matrices of images that may differ in size."""
    if len(predictions) != len(references):
        raise ValueError(
            f"predictions and references must pair up, got {len(predictions)} and {len(references)} images; "
            "pass the label map of each predicted map."
        )
    matrices = [
        confusion_matrix(prediction, reference, num_labels, ignore_index)
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    return torch.stack(matrices).sum(dim=0)


def confusion_matrix(
    predictions: ClassMaps, references: ClassMaps, num_labels: int, ignore_index: int = -100
) -> torch.Tensor:
    """Counts the pixels of every pair of reference and predicted class.

    Args:
        predictions: class indices in 0 .. num_labels - 1, of any shape: a tensor, an array, nested lists, or a list of
            tensors or arrays of different sizes. What is predicted at ignored pixels is not looked at.
        references: class indices of the same shape; `ignore_index` marks pixels that do not count.
        num_labels: number of classes.
        ignore_index: the ignored reference value.

    Returns:
        int64 tensor (num_labels, num_labels) indexed [reference, prediction], on the device of `predictions`.

    Raises:
        ValueError: when the shapes differ, the values are no integers, or a class index is out of range (the message
            names the values).
    """
    _check_num_labels(num_labels)
    if _is_list_of_arrays(predictions) or _is_list_of_arrays(references):
        return _confusion_of_list(predictions, references, num_labels, ignore_index)
    predictions = _as_index_tensor(predictions, "predictions")
    references = _as_index_tensor(references, "references").to(predictions.device)
    if predictions.shape != references.shape:
        raise ValueError(
            f"predictions and references must have one shape, got {tuple(predictions.shape)} and "
            f"{tuple(references.shape)}; resize the logits to the size of the labels before the argmax."
        )
    counted = references != ignore_index
    # Ignored pixels take part as class 0 and are subtracted again: selecting the others is three times as slow.
    predictions, references = torch.where(counted, predictions, 0), torch.where(counted, references, 0)
    _check_range(references, num_labels, "references", f"only ignore_index={ignore_index} may lie outside.")
    _check_range(predictions, num_labels, "predictions", "check num_labels against the model's classes.")
    cells = torch.bincount((references * num_labels + predictions).flatten(), minlength=num_labels**2)
    cells[0] -= (~counted).sum()
    return cells.reshape(num_labels, num_labels)


def _ratio(numerator: torch.Tensor, denominator: torch.Tensor) -> list[float | None]:
    """Divides class by class; None where nothing was counted."""
    return [n / d if d else None for n, d in zip(numerator.tolist(), denominator.tolist(), strict=True)]


def _f1(precision: float | None, recall: float | None) -> float | None:
    """Harmonic mean; None where either is not defined or both are 0, as in mmsegmentation."""
    if precision is None or recall is None or precision + recall == 0:
        return None
    return 2 * precision * recall / (precision + recall)


def _mean(values: list[float | None]) -> float | None:
    """Mean of the defined values; None when there is none."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def metrics_from_confusion_matrix(
    matrix: torch.Tensor | np.ndarray | Sequence[Sequence[int]],
) -> MetricValues:
    """Derives every metric from pixel counts.

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
    hits, labelled, predicted = matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0)
    recall, precision = _ratio(hits, labelled), _ratio(hits, predicted)
    per_category = {
        "iou": _ratio(hits, labelled + predicted - hits),
        "accuracy": recall,
        "f1": [_f1(p, r) for p, r in zip(precision, recall, strict=True)],
        "precision": precision,
        "recall": list(recall),  # of one class, accuracy and recall are one number under two names
    }
    means = {f"mean_{name}": _mean(values) for name, values in per_category.items()}
    overall = _ratio(hits.sum().reshape(1), matrix.sum().reshape(1))[0]
    return {**means, "overall_accuracy": overall, **{f"per_category_{k}": v for k, v in per_category.items()}}


def _is_distributed() -> bool:
    """Whether a torch.distributed process group is there."""
    return dist.is_available() and dist.is_initialized()


def _all_reduce(matrix: torch.Tensor) -> torch.Tensor:
    """Sums the matrix over the processes of a torch.distributed run; returns it unchanged outside of one."""
    if not _is_distributed():
        return matrix
    # NCCL only takes CUDA tensors. Every other back end takes CPU ones, and a rank that saw no batch has nothing else.
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    total = matrix.to(device, copy=True)
    dist.all_reduce(total)
    return total


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

    def _set_options(self, num_labels: int | None, ignore_index: int | None) -> None:
        """Takes over what was given; once counting, the options may be repeated but not changed."""
        given = {"num_labels": num_labels, "ignore_index": ignore_index}
        for name, value in given.items():
            if value is None or value == getattr(self, name):
                continue
            if self._matrix is not None:
                raise ValueError(
                    f"{name}={value} given after batches counted with {name}={getattr(self, name)}; "
                    "call compute() first, which starts anew."
                )
            setattr(self, name, value)
        if self.num_labels is None:
            raise ValueError(
                "num_labels is not known: pass it to evaluate.load(folder, num_labels=...), add_batch or compute."
            )

    def add(
        self,
        *,
        prediction: ClassMaps,
        reference: ClassMaps,
        num_labels: int | None = None,
        ignore_index: int | None = None,
    ) -> None:
        """Counts one image.

        Args:
            prediction: class indices (height, width).
            reference: class indices (height, width).
            num_labels: number of classes, when not given before.
            ignore_index: the ignored reference value, when not given before.
        """
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
        """Counts a batch; the images themselves are not kept.

        Args:
            predictions: class indices (batch_size, height, width), or a list of (height, width) maps.
            references: class indices of the same shapes.
            num_labels: number of classes, when not given before.
            ignore_index: the ignored reference value, when not given before.
        """
        self._set_options(num_labels, ignore_index)
        matrix = confusion_matrix(predictions, references, self.num_labels, self.ignore_index)
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
        """Returns the metrics of everything added since the last call, and starts anew.

        In a torch.distributed run this is a collective call: every process makes it, and gets the result of them all.

        Args:
            predictions: a last (or only) batch of class indices.
            references: its references.
            num_labels: number of classes, when not given before.
            ignore_index: the ignored reference value, when not given before.
        """
        if (predictions is None) != (references is None):
            raise ValueError("predictions and references come together, but only one of the two was given.")
        self._set_options(num_labels, ignore_index)
        if predictions is not None:
            self.add_batch(predictions=predictions, references=references)
        total = _all_reduce(self._counted())
        self._matrix, self._num_examples = None, 0
        return metrics_from_confusion_matrix(total)

    def _counted(self) -> torch.Tensor:
        """The matrix so far; zeros on a rank that got no image, which must still take part in the sum."""
        if self.num_process > 1 and not _is_distributed():
            raise ValueError(
                f"num_process={self.num_process}, but torch.distributed, through which the processes share their "
                "counts, is not initialised; start them with torchrun or accelerate launch, or leave num_process out."
            )
        if self._matrix is None and not _is_distributed():
            raise ValueError("nothing was added: call add_batch first, or pass predictions and references to compute.")
        if self._matrix is None:
            return torch.zeros(self.num_labels, self.num_labels, dtype=torch.int64)
        return self._matrix
