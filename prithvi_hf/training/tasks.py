# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The tasks that a model is fine-tuned for: its class, and how an evaluation adds up its metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from prithvi_hf.metrics.classification_metrics.classification_metrics import classification_metrics
from prithvi_hf.metrics.regression_metrics.regression_metrics import metrics_from_sums, sum_errors
from prithvi_hf.metrics.segmentation_metrics.segmentation_metrics import (
    confusion_matrix,
    metrics_from_confusion_matrix,
)
from prithvi_hf.models.prithvi.classification_prithvi import PrithviForImageClassification
from prithvi_hf.models.prithvi.embeddings_prithvi import COORDINATE_ARGUMENTS
from prithvi_hf.models.prithvi.loss_prithvi import LOSSES
from prithvi_hf.models.prithvi.modeling_prithvi import PrithviForSemanticSegmentation
from prithvi_hf.models.prithvi.regression_prithvi import PrithviForPixelRegression
from prithvi_hf.models.prithvi.sliding_window_prithvi import sliding_window_logits, window_and_stride
from prithvi_hf.training.training_args import PrithviTrainingArguments


Batch = Mapping[str, torch.Tensor]
Metrics = dict[str, Any]


class SegmentationFigures:
    """What the chips of an evaluation add up to, in each process until `compute`: a confusion matrix and the loss."""

    def __init__(self, model: Any, args: PrithviTrainingArguments, accelerator: Accelerator) -> None:
        self.model, self.args, self.accelerator = model, args, accelerator
        # Loss x weight, weight, chips; Apple's GPUs have no float64.
        dtype = torch.float32 if args.device.type == "mps" else torch.float64
        self.totals = torch.zeros(3, dtype=dtype, device=args.device)
        self.sums: Any = self.make_sums()

    def add(self, batch: Batch) -> None:
        """Predict the chips of a batch and count them."""
        with self.accelerator.autocast():
            predictions = self.predict(batch)
        labels = batch["labels"].to(predictions.device)
        self.count(predictions, labels)
        loss, weight = self.measure_loss(predictions, labels)
        weight = weight.to(self.totals.dtype)
        self.totals += torch.stack([loss.to(self.totals.dtype) * weight, weight, self.totals.new_tensor(len(labels))])

    def compute(self) -> tuple[Metrics, int]:
        """Add up the figures of all processes, once: metrics, `loss` among them, and the number of chips."""
        metrics = self.gather()
        weighted_loss, weight, chips = self.accelerator.reduce(self.totals, reduction="sum").tolist()
        return {**metrics, "loss": weighted_loss / weight if weight else None}, int(chips)

    def make_sums(self) -> Any:
        """Make the sums that metrics are computed from."""
        num_labels = int(self.model.config.num_labels or 0)
        return torch.zeros(num_labels, num_labels, dtype=torch.int64, device=self.args.device)

    def predict(self, batch: Batch) -> torch.Tensor:
        """Predict whole chips by sliding window, (batch_size, num_labels, height, width)."""
        window, stride = window_and_stride(self.model.config, self.args.eval_window, self.args.eval_overlap)
        count, coordinates = self.args.eval_window_batch_size, self.find_coordinates(batch)
        return sliding_window_logits(self.model, batch["pixel_values"], window, stride, count, coordinates)

    @staticmethod
    def find_coordinates(batch: Batch) -> dict[str, torch.Tensor]:
        """Find the dates and places in a batch, where the model takes them."""
        return {name: batch[name] for name in COORDINATE_ARGUMENTS.values() if name in batch}

    def count(self, predictions: torch.Tensor, labels: torch.Tensor) -> None:
        """Add predictions and labels to the sums."""
        self.sums += confusion_matrix(predictions.argmax(dim=1), labels, len(self.sums))

    def measure_loss(self, predictions: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the mean loss, and the number of what it is the mean of: valid pixels or, as Dice is, chips."""
        over_pixels = LOSSES[self.model.config.loss].is_sum_over_pixels
        weight = (labels != -100).sum() if over_pixels else self.totals.new_tensor(len(labels))
        return self.model.segmentation_loss(predictions, labels), weight

    def gather(self) -> Metrics:
        """Compute the metrics of the chips of all processes."""
        return dict(metrics_from_confusion_matrix(self.accelerator.reduce(self.sums, reduction="sum")))


class RegressionFigures(SegmentationFigures):
    """Sums of errors over the pixels that have a value, in the unit of the labels."""

    def make_sums(self) -> Any:
        """Make the sums of `sum_errors`."""
        return self.totals.new_zeros(6)

    def count(self, predictions: torch.Tensor, labels: torch.Tensor) -> None:
        """Add the errors of predictions (batch_size, 1, height, width)."""
        self.sums += sum_errors(predictions[:, 0], labels).to(self.sums)

    def measure_loss(self, predictions: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the mean loss, and the number of pixels that have a value."""
        return self.model.regression_loss(predictions[:, 0], labels), self.model.count_loss_items(labels)

    def gather(self) -> Metrics:
        """Compute the metrics of the pixels of all processes."""
        return dict(metrics_from_sums(self.accelerator.reduce(self.sums, reduction="sum")))


class ClassificationFigures(SegmentationFigures):
    """Logits and labels of all chips, a few numbers for each, because average precision is not a sum over chips."""

    def make_sums(self) -> Any:
        """Make the list of what the chips gave."""
        return []

    def predict(self, batch: Batch) -> torch.Tensor:
        """Classify whole chips, (batch_size, num_labels)."""
        inputs = {"pixel_values": batch["pixel_values"], **self.find_coordinates(batch)}
        return self.model(**{name: values.to(self.model.device) for name, values in inputs.items()}).logits

    def count(self, predictions: torch.Tensor, labels: torch.Tensor) -> None:
        """Keep logits and labels."""
        self.sums.append((predictions.float().cpu(), labels.cpu()))

    def measure_loss(self, predictions: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the mean loss, and the number of labels that count."""
        return self.model.classification_loss(predictions, labels), self.model.count_loss_items(labels)

    def gather(self) -> Metrics:
        """Compute the metrics of the chips of all processes."""
        logits, labels = (torch.cat(parts) for parts in zip(*gather_object(self.sums), strict=True))
        return dict(classification_metrics(logits, labels))


@dataclass(frozen=True)
class Task:
    """One entry of `TASKS`.

    Attributes:
        model: class of the model.
        figures: adds up the metrics of an evaluation.
    """

    model: type[Any]
    figures: type[SegmentationFigures]


TASKS: dict[str, Task] = {
    "segmentation": Task(PrithviForSemanticSegmentation, SegmentationFigures),
    "classification": Task(PrithviForImageClassification, ClassificationFigures),
    "regression": Task(PrithviForPixelRegression, RegressionFigures),
}
"""The task of each value of the recipe option `task`, which is the attribute `task` of its model."""
