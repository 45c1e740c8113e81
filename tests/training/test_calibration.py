# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The temperature: found again where it is known, refused where nothing tells it, saved by a training."""

import json
import shutil

import pytest
import torch

from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation
from prithvi_hf.training.calibration import (
    CalibrationError,
    LabelledLogits,
    fit_temperature,
    sample_chip,
    write_temperature,
)
from tests.finetune_factory import label_by_model, run, save_model


def draw(temperature, num_labels=3, count=40_000):
    """Labels that have just the probabilities of the logits at a temperature."""
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(count, num_labels, generator=generator)
    labels = torch.multinomial((logits / temperature).softmax(1), 1, generator=generator)[:, 0]
    return LabelledLogits(logits, labels, torch.ones(count, dtype=torch.float64))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_drew_the_labels_is_found_again(temperature):
    sample = draw(temperature)
    found = fit_temperature(sample)
    assert found == pytest.approx(temperature, rel=0.03)
    assert sample.measure_loss(found) <= min(sample.measure_loss(found * factor) for factor in (0.99, 1.01))
    assert sample.measure_error(found) < 0.01
    if temperature != 1:
        assert sample.measure_error(found) < sample.measure_error(1.0) / 3


def test_pixels_count_by_what_they_stand_for():
    sample = draw(2.0, count=5000)
    half = LabelledLogits(sample.logits, sample.labels, sample.weights.clone())
    half.weights[2500:] = 0
    alone = LabelledLogits(sample.logits[:2500], sample.labels[:2500], sample.weights[:2500])
    assert fit_temperature(half) == fit_temperature(alone) != fit_temperature(sample)
    # Chips of which every pixel was taken, and one pixel of three.
    sure = sample.logits.abs().amax(dim=1) > 5
    parts = [(sample.logits[where], sample.labels[where]) for where in (sure, ~sure, ~sure, ~sure)]
    whole = LabelledLogits(*map(torch.cat, zip(*parts, strict=True)), torch.ones(sum(len(part) for _, part in parts)))
    thinned = LabelledLogits(sample.logits, sample.labels, torch.where(sure, 1.0, 3.0).double())
    for temperature in (1.0, 2.0):
        assert thinned.measure_error(temperature) == pytest.approx(whole.measure_error(temperature), rel=1e-9)
        assert thinned.measure_loss(temperature) == pytest.approx(whole.measure_loss(temperature), rel=1e-6)
        assert thinned.measure_error(temperature) != pytest.approx(sample.measure_error(temperature), rel=0.02)


@pytest.mark.parametrize(
    ("labels", "logits", "message"),
    [
        ([], torch.zeros(0, 2), "found none"),
        ([1, 1], torch.randn(2, 2), "found class 1 alone"),
        ([0, 1], 5 * torch.eye(2), "right at every pixel"),
        ([1, 0], 5 * torch.eye(2), "no better than chance"),
    ],
)
def test_what_tells_no_temperature_is_refused(labels, logits, message):
    sample = LabelledLogits(logits, torch.tensor(labels, dtype=torch.int64), torch.ones(len(labels)).double())
    with pytest.raises(CalibrationError, match=message):
        fit_temperature(sample)


def test_a_sample_of_a_chip_is_bounded_leaves_unlabelled_pixels_out_and_is_the_same_each_time():
    logits, labels = torch.randn(3, 40, 50), torch.randint(3, (40, 50))
    labels[:20] = -100
    first, again = (sample_chip(logits, labels, 100) for _ in range(2))
    assert (len(first.labels), first.weights.sum()) == (100, 1000)
    torch.testing.assert_close(first.logits, again.logits)
    whole = sample_chip(logits, labels, 5000)
    assert (len(whole.labels), whole.weights.unique().tolist()) == (1000, [1.0])
    torch.testing.assert_close(
        whole.measure_loss(1.0), float(torch.nn.functional.cross_entropy(logits[None], labels[None]))
    )


def test_an_image_with_several_classes_is_as_many_decisions():
    logits = torch.tensor([2.0, -1.0, 0.5])
    sample = sample_chip(logits, torch.tensor([1.0, 0.0, float("nan")]), 10)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:2] / 3, torch.tensor([1.0, 0.0]))
    assert sample.measure_loss(3.0) == pytest.approx(float(expected), rel=1e-6)


def test_a_temperature_is_written_beside_weights_that_stay(tmp_path):
    config = PrithviConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, neck_hidden_size=16, num_frames=1
    )
    PrithviForSemanticSegmentation(config).save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_temperature(tmp_path, 1.75)
    assert PrithviForSemanticSegmentation.from_pretrained(tmp_path).config.temperature == 1.75
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == {"config.json"}


def test_a_training_saves_the_temperature_that_fits_its_validation_split(data, tmp_path, capsys):
    chips, model = shutil.copytree(data, tmp_path / "data"), save_model(tmp_path / "model", ("no water", "water"))
    label_by_model(chips, model)
    results = run(chips, tmp_path / "OUT", model=model, learning_rate=0, max_steps=2, num_sample_predictions=0)
    config = PrithviConfig.from_pretrained(tmp_path / "OUT")
    assert config.temperature == results["calibration_temperature"] != 1.0
    assert results["calibration_chips"] == 3
    assert results["calibration_loss_after"] < results["calibration_loss_before"]
    assert "fitted on" in capsys.readouterr().out
    for checkpoint in (tmp_path / "OUT").glob("checkpoint-*"):
        assert PrithviConfig.from_pretrained(checkpoint).temperature == 1.0


def test_labels_that_nothing_predicts_leave_a_training_its_probabilities(finished):
    assert PrithviConfig.from_pretrained(finished).temperature == 1.0
    assert "calibration_temperature" not in json.loads((finished / "all_results.json").read_text())
