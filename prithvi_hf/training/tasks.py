# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The tasks that a model is fine-tuned for: its class, and how an evaluation adds up its metrics."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from prithvi_hf.metrics.boundary_iou import count_boundaries
from prithvi_hf.metrics.calibration import measure_bins
from prithvi_hf.metrics.regression_metrics.regression_metrics import sum_errors
from prithvi_hf.metrics.segmentation_metrics.segmentation_metrics import confusion_matrix
from prithvi_hf.models.prithvi.classification_prithvi import PrithviForImageClassification
from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.models.prithvi.embeddings_prithvi import COORDINATE_ARGUMENTS
from prithvi_hf.models.prithvi.loss_prithvi import LOSSES
from prithvi_hf.models.prithvi.modeling_prithvi import PrithviForSemanticSegmentation
from prithvi_hf.models.prithvi.regression_prithvi import PrithviForPixelRegression
from prithvi_hf.models.prithvi.sliding_window_prithvi import sliding_window_logits, window_and_stride
from prithvi_hf.training.chip_figures import Metrics, compute_metrics
from prithvi_hf.training.training_args import PrithviTrainingArguments


Batch = Mapping[str, torch.Tensor]


class SegmentationFigures:
    """What each chip of an evaluation gave, in each process until `compute`: a confusion matrix and the loss.

    Args:
        model: of the task.
        args: how chips are cut.
        accelerator: of the trainer.
        detailed: also what `Task.measures` measure, and a digest of the labels, which takes longer.
    """

    def __init__(
        self, model: Any, args: PrithviTrainingArguments, accelerator: Accelerator, detailed: bool = False
    ) -> None:
        self.model, self.args, self.accelerator, self.detailed = model, args, accelerator, detailed
        self.rows: list[dict[str, torch.Tensor]] = []  # of each chip, numbers by column of its table
        self.columns: dict[str, np.ndarray] = {}  # of the chips of all processes, once they are computed

    def add(self, batch: Batch) -> None:
        """Predict the chips of a batch and count them, each by itself."""
        with self.accelerator.autocast():
            predictions = self.predict(batch)
        for own, found in zip(predictions.split(1), batch["labels"].split(1), strict=True):
            labels = found.to(own.device)
            loss, weight = self.measure_loss(own, labels)
            row = {**self.count(own, labels), "loss": loss.detach().float(), "loss_weight": weight}
            if self.detailed:
                digest = hashlib.sha256(found.cpu().numpy().tobytes()).digest()
                row["label_digest"] = torch.tensor(int.from_bytes(digest[:8], "little", signed=True))
                for measure in TASKS[self.model.task].measures:
                    row |= measure(self.model.config, own[0], labels[0])
            self.rows.append(row)

    def compute(self) -> tuple[Metrics, int]:
        """Gather the chips of all processes, once: metrics, `loss` among them, and the number of chips."""
        names = self.rows[0] if self.rows else ()
        own = {name: torch.stack([row[name] for row in self.rows]).cpu().numpy() for name in names}
        parts: list[dict[str, np.ndarray]] = gather_object([own])
        chips = sum(len(part["loss"]) for part in parts if part)
        if chips == 0:
            raise ValueError("Expected chips to evaluate, found an empty split. Name another one.")
        for name, first in parts[0].items():
            dtype = first.dtype if first.dtype == np.int64 else np.float64
            self.columns[name] = np.empty((chips, *first.shape[1:]), dtype)
            for process, part in enumerate(parts):  # process p has every n-th chip from the p-th on
                if part:
                    self.columns[name][process :: len(parts)] = part[name]
        return compute_metrics(self.model.task, self.columns), chips

    def predict(self, batch: Batch) -> torch.Tensor:
        """Predict whole chips by sliding window, (batch_size, num_labels, height, width)."""
        window, stride = window_and_stride(self.model.config, self.args.eval_window, self.args.eval_overlap)
        count, coordinates = self.args.eval_window_batch_size, self.find_coordinates(batch)
        return sliding_window_logits(self.model, batch["pixel_values"], window, stride, count, coordinates)

    @staticmethod
    def find_coordinates(batch: Batch) -> dict[str, torch.Tensor]:
        """Find the dates and places in a batch, where the model takes them."""
        return {name: batch[name] for name in COORDINATE_ARGUMENTS.values() if name in batch}

    def count(self, predictions: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Count what the metrics of one chip, (1, ...), are computed from."""
        num_labels = int(self.model.config.num_labels or 0)
        matrix = confusion_matrix(predictions.argmax(dim=1), labels, num_labels)
        return {"confusion": matrix.flatten(), "pixels": matrix.sum()}

    def measure_loss(self, predictions: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the mean loss, and the number of what it is the mean of: valid pixels or, as Dice is, chips."""
        over_pixels = LOSSES[self.model.config.loss].is_sum_over_pixels
        weight = (labels != -100).sum() if over_pixels else labels.new_tensor(len(labels))
        return self.model.segmentation_loss(predictions, labels), weight


class RegressionFigures(SegmentationFigures):
    """Sums of errors over the pixels that have a value, in the unit of the labels."""

    def count(self, predictions: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Sum the errors of predictions (1, 1, height, width)."""
        return {"error_sums": sum_errors(predictions[:, 0], labels)}

    def measure_loss(self, predictions: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the mean loss, and the number of pixels that have a value."""
        return self.model.regression_loss(predictions[:, 0], labels), self.model.count_loss_items(labels)


class ClassificationFigures(SegmentationFigures):
    """Logits and labels of all chips, a few numbers for each, because average precision is not a sum over chips."""

    def predict(self, batch: Batch) -> torch.Tensor:
        """Classify whole chips, (batch_size, num_labels)."""
        inputs = {"pixel_values": batch["pixel_values"], **self.find_coordinates(batch)}
        return self.model(**{name: values.to(self.model.device) for name, values in inputs.items()}).logits

    def count(self, predictions: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Keep logits and labels, one number or one of each class."""
        return {"logits": predictions[0].float(), "labels": labels.reshape(-1).float()}

    def measure_loss(self, predictions: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the mean loss, and the number of labels that count."""
        return self.model.classification_loss(predictions, labels), self.model.count_loss_items(labels)


def measure_boundaries(
    config: PrithviConfig, predictions: torch.Tensor, labels: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Count the pixels along the contours of the classes of one chip, of logits (num_labels, height, width)."""
    counts = count_boundaries(predictions.argmax(dim=0), labels, int(config.num_labels or 0))
    return dict(zip(("boundary_intersection", "boundary_union"), counts, strict=True))


@dataclass(frozen=True)
class Task:
    """One entry of `TASKS`.

    Attributes:
        model: class of the model.
        figures: adds up the metrics of an evaluation.
        measures: what final evaluations measure of each chip besides, from the configuration, the model's output for
            the chip and its labels: tensors of one number or a list of numbers, by the name of their column in the
            table of chips.
    """

    model: type[Any]
    figures: type[SegmentationFigures]
    measures: tuple[Callable[[PrithviConfig, torch.Tensor, torch.Tensor], dict[str, torch.Tensor]], ...] = ()


TASKS: dict[str, Task] = {
    "segmentation": Task(PrithviForSemanticSegmentation, SegmentationFigures, (measure_boundaries, measure_bins)),
    "classification": Task(PrithviForImageClassification, ClassificationFigures, (measure_bins,)),
    "regression": Task(PrithviForPixelRegression, RegressionFigures),
}
"""The task of each value of the recipe option `task`, which is the attribute `task` of its model."""
