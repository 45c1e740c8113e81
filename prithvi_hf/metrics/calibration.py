# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""How far the confidence of a model is from how often it is right, counted in bins of confidence.

The confidence of a pixel is the probability of its class, the largest one. It is in one of 15 bins of equal width;
the lower edge of a bin belongs to it, and 1 to the last. The counts of chips add up to those of all of them. Where an
image may have several classes, each class of each image counts by itself: its confidence is its probability, and it is
right where the label is there.
"""

from typing import Any

import torch


NUM_BINS = 15
"""Bins of confidence, of equal width from 0 to 1, as in Guo et al., "On Calibration of Modern Neural Networks"."""


def count_bins(
    logits: torch.Tensor, labels: torch.Tensor, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Count pixels by predicted class and confidence, in one pass on the device of the logits.

    Args:
        logits: (num_labels, ...), of any number of pixels.
        labels: int64 (...), -100 where a pixel has none; or floating point (num_labels, ...), 1 for a class that is
            there, 0 for one that is not, negative or NaN where that is not known.
        temperature: What logits are divided by.

    Returns:
        Pixels int64, those of them that have the predicted class int64, and the sum of their confidences float64, each
        (num_labels, 15) on the CPU: of the pixels that have a label, by predicted class and bin.
    """
    num_labels = len(logits)
    scaled = logits.reshape(num_labels, -1).float() / temperature  # (K, N)
    if labels.is_floating_point():
        right = labels.reshape(num_labels, -1).to(scaled.device)
        confidence, is_counted = scaled.sigmoid(), right >= 0
        predicted = torch.arange(num_labels, device=scaled.device)[:, None].expand_as(right)
        is_right = right > 0.5
    else:
        own = labels.flatten().to(scaled.device)
        confidence, predicted = scaled.softmax(0).max(0)
        is_counted, is_right = own != -100, predicted == own
    confidence, predicted, is_right = (values[is_counted].cpu() for values in (confidence, predicted, is_right))
    place = predicted * NUM_BINS + (confidence * NUM_BINS).long().clamp(max=NUM_BINS - 1)
    size = num_labels * NUM_BINS
    count, correct = torch.bincount(place, minlength=size), torch.bincount(place[is_right], minlength=size)
    sums = torch.bincount(place, confidence.double(), minlength=size).double()  # of nothing they would be integers
    return count.view(num_labels, -1), correct.view(num_labels, -1), sums.view(num_labels, -1)


def measure_bins(config: Any, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Count the bins of one chip at the temperature of the model, as columns of the table of chips."""
    count, correct, confidence = count_bins(logits, labels, config.temperature)
    return {"bin_count": count.flatten(), "bin_correct": correct.flatten(), "bin_confidence": confidence.flatten()}


def calibration_metrics(count: torch.Tensor, correct: torch.Tensor, confidence: torch.Tensor) -> dict[str, Any]:
    """Compute the expected calibration error from counts of bins, (num_labels, 15) each, see `count_bins`.

    Returns:
        `calibration_error`: the mean over all pixels of the difference, in the bin of a pixel, between the mean
        confidence and the fraction that is right, where bins are of all classes together; None without a pixel.
        `per_category_calibration_error`: the same among the pixels that were given each class, None for a class that
        none was given.
    """

    def measure(bins: tuple[torch.Tensor, ...]) -> float | None:
        total, right, sums = bins
        return float((sums - right).abs().sum() / total.sum()) if total.sum() else None

    parts = tuple(part.double() for part in (count, correct, confidence))
    return {
        "calibration_error": measure(tuple(part.sum(0) for part in parts)),
        "per_category_calibration_error": [measure(bins) for bins in zip(*parts, strict=True)],
    }
