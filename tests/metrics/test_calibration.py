# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The expected calibration error against one counted pixel by pixel, and against cases that can be done by hand."""

import math

import numpy as np
import pytest
import torch

from prithvi_hf.metrics.calibration import NUM_BINS, calibration_metrics, count_bins


def count_one_by_one(probabilities, labels):
    """The definition in words: over bins, |mean confidence - accuracy| weighted by the fraction of the pixels."""
    bins = [[] for _ in range(NUM_BINS)]
    for pixel in range(probabilities.shape[1]):
        if labels[pixel] == -100:
            continue
        best = max(range(len(probabilities)), key=lambda k: probabilities[k, pixel])
        confidence = float(probabilities[best, pixel])
        bins[min(int(confidence * NUM_BINS), NUM_BINS - 1)].append((confidence, best == labels[pixel]))
    total = sum(map(len, bins))
    return sum(
        len(part) / total * abs(np.mean([right for _, right in part]) - np.mean([sure for sure, _ in part]))
        for part in bins
        if part
    )


def make_chip(num_labels=3, size=(23, 31), seed=0, sharpness=2.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_labels, size, generator=generator)
    logits = sharpness * torch.randn(num_labels, *size, generator=generator)
    logits += torch.nn.functional.one_hot(labels, num_labels).permute(2, 0, 1)
    labels[:3] = -100
    return logits, labels


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("num_labels", [2, 5])
def test_the_error_is_that_of_its_definition(num_labels, temperature):
    logits, labels = make_chip(num_labels)
    found = calibration_metrics(*count_bins(logits, labels, temperature))
    probabilities = (logits / temperature).softmax(0).flatten(1).numpy()
    assert found["calibration_error"] == pytest.approx(count_one_by_one(probabilities, labels.flatten()), abs=1e-6)
    for index, error in enumerate(found["per_category_calibration_error"]):
        own = torch.where(logits.argmax(0) == index, labels, -100).flatten()
        assert error == pytest.approx(count_one_by_one(probabilities, own), abs=1e-6)


def test_counts_of_chips_add_up_to_those_of_all_pixels():
    chips = [make_chip(seed=seed) for seed in range(3)]
    together = count_bins(torch.cat([logits for logits, _ in chips], 1), torch.cat([labels for _, labels in chips]))
    parts = [count_bins(*chip) for chip in chips]
    for whole, *own in zip(together, *parts, strict=True):
        torch.testing.assert_close(sum(own), whole)


def test_a_model_that_is_always_sure_is_off_by_what_it_gets_wrong():
    labels = torch.tensor([0, 0, 0, 1, 1, -100])
    logits = torch.zeros(2, 6)
    logits[0] = 1000.0  # class 0 with confidence 1, which belongs to the last bin
    count, correct, confidence = count_bins(logits, labels)
    assert (count[0, -1], count.sum(), correct.sum(), confidence.sum()) == (5, 5, 3, 5)
    found = calibration_metrics(count, correct, confidence)
    assert found["calibration_error"] == pytest.approx(0.4)
    assert found["per_category_calibration_error"] == [pytest.approx(0.4), None]


def test_each_class_of_images_with_several_counts_by_its_probability():
    logits = torch.tensor([[math.log(3.0)] * 4, [-math.log(3.0)] * 4])  # 0.75 and 0.25
    labels = torch.tensor([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, math.nan, -1.0]])
    count, correct, confidence = count_bins(logits, labels)
    assert (count.sum(1).tolist(), correct.sum(1).tolist()) == ([4, 2], [3, 0])
    found = calibration_metrics(count, correct, confidence)
    assert found["per_category_calibration_error"] == pytest.approx([0.0, 0.25], abs=1e-6)
    assert found["calibration_error"] == pytest.approx(0.5 / 6, abs=1e-6)


def test_without_a_label_there_is_no_error():
    found = calibration_metrics(*count_bins(torch.randn(2, 4), torch.full((4,), -100)))
    assert found == {"calibration_error": None, "per_category_calibration_error": [None, None]}
