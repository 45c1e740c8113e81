# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The tasks: their models, metrics and options fit each other."""

from dataclasses import fields

import pytest
import torch
from accelerate import Accelerator

from prithvi_hf import PrithviConfig
from prithvi_hf.training.recipe_options import CLASS_FIGURES, REFUSED_OPTIONS, DataArguments, ModelArguments
from prithvi_hf.training.tasks import TASKS
from prithvi_hf.training.training_args import SELECTABLE_METRICS, TASK_METRICS, PrithviTrainingArguments


SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16}
SIZES |= {"neck_hidden_size": 16, "head_hidden_size": 8, "num_frames": 1, "num_labels": 3}


def figures_of(task, tmp_path, **config):
    torch.manual_seed(0)
    model = TASKS[task].model(PrithviConfig(**SIZES, **config)).eval()
    args = PrithviTrainingArguments(output_dir=tmp_path, use_cpu=True)
    return TASKS[task].figures(model, args, Accelerator(cpu=True)), model


def test_a_task_is_that_of_its_model_and_its_options_exist():
    options = {option.name for group in (ModelArguments, DataArguments) for option in fields(group)}
    for name, task in TASKS.items():
        assert task.model.task == name
        assert set(REFUSED_OPTIONS[name]) <= options
        best = next(iter(TASK_METRICS[name]))
        assert best in SELECTABLE_METRICS
    assert set(TASKS) == set(TASK_METRICS) == set(CLASS_FIGURES) | {"regression"}


@torch.no_grad()
@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_the_loss_of_chips_is_that_of_one_batch_of_them(tmp_path, problem):
    figures, model = figures_of("classification", tmp_path, problem_type=problem)
    pixel_values, labels = torch.randn(5, 6, 1, 16, 16), torch.tensor([0, 2, 1, -100, 0])
    if problem.startswith("multi"):
        labels = torch.nn.functional.one_hot(labels.clamp(min=0), 3).float()
        labels[3] = torch.nan
    for chips in (slice(0, 2), slice(2, 5)):
        figures.add({"pixel_values": pixel_values[chips], "labels": labels[chips]})
    metrics, chips = figures.compute()
    assert chips == 5
    expected = model(pixel_values=pixel_values, labels=labels).loss
    assert metrics["loss"] == pytest.approx(float(expected), rel=1e-5)


@torch.no_grad()
def test_values_are_measured_over_all_pixels_of_all_chips(tmp_path):
    figures, model = figures_of("regression", tmp_path, target_mean=50.0, target_std=20.0)
    parts = []
    for side, valid in ((16, 1.0), (24, 0.1)):
        image, target = torch.randn(1, 6, 1, side, side), 50 + 20 * torch.randn(1, side, side)
        target[torch.rand(target.shape) > valid] = torch.nan
        figures.add({"pixel_values": image, "labels": target})
        errors = (figures.predict({"pixel_values": image})[:, 0] - target).flatten()
        parts.append(errors[~errors.isnan()])
    metrics, _ = figures.compute()
    errors = torch.cat(parts).double()
    assert metrics["valid_pixels"] == len(errors)
    assert metrics["rmse"] == pytest.approx(float(errors.square().mean().sqrt()), rel=1e-6)
    assert metrics["loss"] == pytest.approx(metrics["rmse"] ** 2 / model.config.target_std**2, rel=1e-5)


def test_nothing_labelled_has_no_figures(tmp_path):
    figures, _ = figures_of("regression", tmp_path)
    figures.add({"pixel_values": torch.randn(1, 6, 1, 16, 16), "labels": torch.full((1, 16, 16), torch.nan)})
    metrics, chips = figures.compute()
    assert (metrics["rmse"], metrics["loss"], chips) == (None, None, 1)
