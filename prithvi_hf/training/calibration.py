# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Temperature scaling: one number that makes the probabilities of a finished model those with which it is right.

Logits are divided by it before the softmax (Guo et al., "On Calibration of Modern Neural Networks", 2017). It is
fitted on labelled pixels that the weights were not trained on, and saved in the configuration; no class changes.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast, gather_object
from torch.utils.data import Dataset, Subset

from prithvi_hf.data.chips import spread_indices
from prithvi_hf.data.transforms import collate_chips
from prithvi_hf.metrics.calibration import NUM_BINS, calibration_metrics, count_bins
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.remote_code_prithvi import CONFIG_FILE
from prithvi_hf.outputs.cog import complete_or_absent
from prithvi_hf.training.evaluation import match_recipe
from prithvi_hf.training.recipe import TrainingRecipe
from prithvi_hf.training.recipe_chips import check_splits, load_splits, make_transform
from prithvi_hf.training.sharding import gather_weights
from prithvi_hf.training.tasks import TASKS
from prithvi_hf.training.trainer import PrithviTrainer


MOST_CHIPS = 256
_MOST_PIXELS, _MOST_LOGITS = 4096, 2**23  # of a chip, and of all chips together: 64 MB in double precision
_TEMPERATURES = (0.05, 20.0)


class CalibrationError(ValueError):
    """Chips that no temperature can be fitted on."""


@dataclass(frozen=True)
class Calibration:
    """A temperature, and what it does to the pixels that it was fitted on.

    Attributes:
        temperature: what logits are to be divided by.
        chips: number of chips.
        pixels: number of labelled pixels that were looked at, evenly many of each chip; of whole images, of labels.
        error_before, error_after: expected calibration error at the temperature that the model had, and at the fitted
            one.
        loss_before, loss_after: mean negative log-likelihood at both.
    """

    temperature: float
    chips: int
    pixels: int
    error_before: float
    error_after: float
    loss_before: float
    loss_after: float

    def describe(self, split: str) -> str:
        """Say in two lines what was fitted, and what it changes."""
        return (
            f"temperature {self.temperature:.4f}, fitted on {self.pixels:,} labels of {self.chips} "
            f"chip{'' if self.chips == 1 else 's'} of {split}\n"
            f"  there the calibration error goes from {100 * self.error_before:.2f} to {100 * self.error_after:.2f} "
            f"percent, the mean negative log-likelihood from {self.loss_before:.4f} to {self.loss_after:.4f}"
        )


@dataclass
class LabelledLogits:
    """Logits of a sample of pixels, (N, num_labels) float32, their labels (N,), and for how many each stands (N,)."""

    logits: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor

    def measure_loss(self, temperature: float) -> float:
        """Compute the mean negative log-likelihood at a temperature."""
        losses = torch.nn.functional.cross_entropy(self.logits.double() / temperature, self.labels, reduction="none")
        return float((losses * self.weights).sum() / self.weights.sum())

    def measure_error(self, temperature: float) -> float:
        """Compute the expected calibration error at a temperature, over all pixels that the sample stands for."""
        bins = [torch.zeros(3, self.logits.shape[1], NUM_BINS, dtype=torch.float64)]
        for weight in self.weights.unique():  # one for each chip, but for small ones
            own = self.weights == weight
            bins.append(weight * torch.stack(count_bins(self.logits[own].T, self.labels[own], temperature)))
        return float(calibration_metrics(*torch.stack(bins).sum(dim=0))["calibration_error"])


def sample_chip(logits: torch.Tensor, labels: torch.Tensor, most: int) -> LabelledLogits:
    """Take labelled pixels of one chip, the same ones each time.

    Args:
        logits: (num_labels, ...).
        labels: int64 (...), -100 for none; or floating point (num_labels,) of an image with several classes, each of
            which then stands for a decision between two.
        most: pixels that are taken at most; each stands for as many as there are.
    """
    if labels.is_floating_point():
        known = labels >= 0
        flat = torch.stack([torch.zeros_like(logits), logits], dim=1)[known]
        chosen = (labels[known] > 0.5).long()
    else:
        known = labels.flatten() != -100
        flat, chosen = logits.reshape(len(logits), -1).T[known], labels.flatten()[known]
    count = len(chosen)
    if count > most:
        places = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].to(chosen.device)
        flat, chosen = flat[places], chosen[places]
    weights = torch.full((len(chosen),), count / max(1, len(chosen)), dtype=torch.float64)
    return LabelledLogits(flat.float().cpu(), chosen.cpu(), weights)


def fit_temperature(sample: LabelledLogits) -> float:
    """Find the temperature of the least negative log-likelihood, to four decimals.

    The loss is convex in the inverse temperature b, and its slope there, the mean over pixels of the logit that the
    probabilities expect minus that of the label, rises: the interval that holds its zero is halved.

    Raises:
        CalibrationError: Labels are missing or all of one class, or none of the temperatures from 0.05 to 20 fits.
    """
    if not len(sample.labels):
        raise CalibrationError("Expected labelled pixels to fit a temperature on, found none.")
    if len(classes := sample.labels.unique()) < 2:
        raise CalibrationError(
            f"Expected labels of at least two classes to fit a temperature on, found class {int(classes[0])} alone."
        )
    logits, weights = sample.logits.double(), sample.weights / sample.weights.sum()
    own = logits.gather(1, sample.labels[:, None])[:, 0]

    def measure_slope(inverse: float) -> float:
        expected = ((inverse * logits).softmax(dim=1) * logits).sum(dim=1)
        return float(((expected - own) * weights).sum())

    low, high = 1 / _TEMPERATURES[1], 1 / _TEMPERATURES[0]
    if not measure_slope(low) < 0 < measure_slope(high):
        is_perfect = measure_slope(high) <= 0
        raise CalibrationError(
            f"Expected a temperature from {_TEMPERATURES[0]} to {_TEMPERATURES[1]:.0f} to fit, found none: the model "
            + (
                "is right at every pixel, so that nothing tells how sure it may be."
                if is_perfect
                else "is no better than chance. Train it further."
            )
        )
    while high / low > 1 + 1e-6:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if measure_slope(middle) < 0 else (low, middle)
    return round(1 / (low * high) ** 0.5, 4)


def calibrate(trainer: PrithviTrainer, dataset: Dataset) -> Calibration:
    """Fit the temperature of a trainer's model on chips, evenly spread over a dataset where they are many.

    Every process predicts its part of them, and all return the same. The model's configuration stays as it is.

    Args:
        trainer: of a model of classes.
        dataset: whole chips, as the trainer evaluates them.

    Raises:
        CalibrationError: As of [`fit_temperature`].
    """
    model, args = trainer.model, trainer.args
    total = len(dataset)  # type: ignore[arg-type]  # every one here has a length
    places = spread_indices(total, MOST_CHIPS)
    num_labels = int(model.config.num_labels or 0)
    most = max(64, min(_MOST_PIXELS, _MOST_LOGITS // (len(places) * num_labels)))
    figures = TASKS[model.task].figures(model, args, trainer.accelerator)
    model.eval()
    broadcast(list(model.buffers()))  # as in an evaluation: those of the first process are what is saved
    samples = []
    with torch.no_grad(), gather_weights(model, trainer.accelerator):
        for batch in trainer.get_eval_dataloader(Subset(dataset, places)):
            with trainer.accelerator.autocast():
                predictions = figures.predict(batch)
            for logits, labels in zip(predictions, batch["labels"].to(predictions.device), strict=True):
                samples.append(sample_chip(logits, labels, most))
    parts = gather_object([(one.logits, one.labels, one.weights) for one in samples])
    sample = LabelledLogits(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
    temperature = fit_temperature(sample)
    error, loss = sample.measure_error, sample.measure_loss
    temperatures = {"before": model.config.temperature, "after": temperature}
    return Calibration(
        temperature,
        len(places),
        len(sample.labels),
        **{f"error_{name}": error(value) for name, value in temperatures.items()},
        **{f"loss_{name}": loss(value) for name, value in temperatures.items()},
    )


def calibrate_recipe(
    model: Any,
    image_processor: PrithviImageProcessor,
    recipe: TrainingRecipe,
    split: str,
    show_progress: bool = True,
) -> Calibration:
    """Fit the temperature of a finished model on a split of a recipe's dataset, see [`calibrate`].

    Raises:
        ValueError: The model gives values, not classes; recipe, data and model do not fit; or as of [`calibrate`].
    """
    if model.task == "regression" or model.config.problem_type == "regression":
        raise ValueError(
            f"Expected a model of classes to calibrate, found a {type(model).__name__} of values, which have no "
            "probabilities."
        )
    match_recipe(model, recipe)
    chips, encoded = load_splits(recipe, [split], "Name another with --split."), model.config.coords_encoding
    check_splits(chips, image_processor, recipe, show_progress, coords_encoding=encoded)
    dataset: Any = chips[split].with_transform(make_transform(recipe, image_processor, coords_encoding=encoded))
    trainer = PrithviTrainer(
        model=model,
        args=recipe.training,
        data_collator=collate_chips,
        eval_dataset=dataset,
        processing_class=image_processor,
    )
    try:
        return calibrate(trainer, dataset)
    except CalibrationError as error:
        raise CalibrationError(f"Split {split}: {error}") from error


def write_temperature(folder: str | Path, temperature: float) -> None:
    """Write a temperature into the configuration in a model's folder, whole or not at all; weights are not touched."""
    path = Path(folder) / CONFIG_FILE
    content = {**json.loads(path.read_text(encoding="utf-8")), "temperature": temperature}
    with complete_or_absent(path) as part:
        part.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def name_figures(calibration: Calibration) -> dict[str, float | int]:
    """Name the figures of a calibration as those of an evaluation."""
    return {f"calibration_{name}": value for name, value in asdict(calibration).items()}
