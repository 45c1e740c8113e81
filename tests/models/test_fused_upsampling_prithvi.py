# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The fused operator of neck and heads: the same values as the modules, and the modules where it must not serve."""

import pytest
import torch

from prithvi_hf.models.prithvi import fused_upsampling_prithvi
from tests.golden import assert_matches, read_golden
from tests.models.test_modeling_prithvi import (
    GRADIENT_NAMES,
    SEGMENTORS,
    golden_labels,
    golden_segmentor,
)
from tests.upsampling_factory import assert_same_step, batch, count_neck_calls, make_model, plain, step


@pytest.fixture(autouse=True)
def however_small(monkeypatch):
    """Fuse the small steps of these tests too."""
    monkeypatch.setattr(fused_upsampling_prithvi, "SMALLEST_STEP", 0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("size", [(16, 16), (32, 48), (37, 21), (80, 16)])
def test_inference_is_that_of_the_modules(monkeypatch, size, frames, dtype, tolerance):
    """Borders included: no pixel is left out of the comparison."""
    model = make_model(dtype, num_frames=frames)
    pixels, _ = batch(size, frames, dtype=dtype)
    with torch.no_grad():
        expected = plain(model)(pixels).logits
        calls = count_neck_calls(monkeypatch)
        logits = model(pixels).logits
    assert not calls
    assert_matches(logits, expected, tolerance)


@pytest.mark.parametrize("convs", [1, 2, 3])
def test_heads_of_several_layers(convs):
    model = make_model(head_num_convs=convs, auxiliary_head_num_convs=convs)
    pixels, labels = batch()
    with torch.no_grad():
        assert_matches(model(pixels).logits, plain(model)(pixels).logits)
    assert_same_step(model.double(), pixels.double(), labels, 1e-10)


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("size", [(16, 16), (32, 48), (37, 21)])
def test_training_is_that_of_the_modules(monkeypatch, size, frames):
    model = make_model(torch.float64, num_frames=frames)
    pixels, labels = batch(size, frames, dtype=torch.float64)
    assert_same_step(model, pixels, labels, 1e-10)
    calls = count_neck_calls(monkeypatch)
    step(model, pixels, labels)
    assert not calls


def test_gradients_in_evaluation_mode():
    """As for a saliency map: running statistics, gradients to the pixels."""
    model = make_model(torch.float64)
    pixels, _ = batch(dtype=torch.float64)
    gradients = []
    for candidate in (model, plain(model)):
        inputs = pixels.clone().requires_grad_()
        candidate(inputs).logits.square().sum().backward()
        gradients.append(inputs.grad)
    assert_matches(*gradients, 1e-10)


def test_a_frozen_backbone_trains_the_rest():
    model = make_model(torch.float64)
    model.freeze_backbone()
    pixels, labels = batch(dtype=torch.float64)
    expected = plain(model).train()
    for candidate in (model.train(), expected):
        candidate(pixels, labels=labels).loss.backward()
    for (name, parameter), other in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert (parameter.grad is None) == name.startswith("prithvi."), name
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-8, atol=1e-12, msg=name)


def test_dropout_draws_what_the_modules_draw():
    model = make_model(torch.float64, classifier_dropout=0.5).train()
    pixels, labels = batch(dtype=torch.float64)
    losses = []
    for candidate in (model, plain(model)):
        torch.manual_seed(3)
        losses.append(candidate(pixels, labels=labels).loss)
    assert_matches(*losses, 1e-12)


@pytest.mark.parametrize("name", SEGMENTORS)
def test_golden_logits(golden_dir, name):
    golden = read_golden(golden_dir, name)
    model, labels = golden_segmentor(golden).eval(), golden_labels(golden)
    with torch.no_grad():
        outputs = model(golden["in_.x"], labels=labels)
    assert_matches(outputs.logits, golden["out.logits"])
    assert_matches(outputs.loss, model.segmentation_loss(golden["out.logits"], labels))


def golden_step(golden, fused: bool, dtype: torch.dtype):
    """A training step of a golden segmentor: the model, the loss, and gradients by the original's names."""
    model = golden_segmentor(golden).to(dtype).train()
    model.set_fused_upsampling(fused)
    loss = model(golden["in_.x"].to(dtype), labels=golden_labels(golden)).loss
    loss.backward()
    parameters = dict(model.named_parameters())
    gradients = {original: parameters[name].grad for original, name in GRADIENT_NAMES.items()}
    parts = [parameters[f"prithvi.layers.0.attention.{part}_proj.weight"].grad for part in "qkv"]
    return model, loss, {**gradients, "backbone.blocks.0.attn.qkv.weight": torch.cat(parts)}


@pytest.mark.parametrize("name", SEGMENTORS)
def test_golden_training(golden_dir, name):
    """Loss and statistics are the original's; gradients too, but for single ReLUs that sit within rounding of zero.

    Of 800 thousand ReLU inputs of each of these models one or another is within 1e-6 of zero (the flood model's is
    -2.5e-7, which the original's float32 rounded to above zero). Which side it falls on depends on the order of
    addition, here also on the number of threads, and shows in gradients by up to 4e-3 of their maximum. Without
    rounding there is no such difference: the next test.
    """
    torch.set_float32_matmul_precision("highest")
    golden = read_golden(golden_dir, name)
    model, loss, gradients = golden_step(golden, True, torch.float32)
    assert_matches(loss, golden["out.train.total"])
    for original, gradient in gradients.items():
        assert_matches(gradient, golden[f"grad.{original}"], tolerance=1e-2)
    for original, expected in golden.group("out.train_after").items():
        head, _, index, _, statistic = original.split(".")
        assert_matches(getattr(getattr(model, head).layers[int(index)].normalization, statistic), expected)


@pytest.mark.parametrize("name", SEGMENTORS)
def test_golden_models_agree_without_rounding(golden_dir, name):
    golden = read_golden(golden_dir, name)
    _, loss, gradients = golden_step(golden, fused=True, dtype=torch.float64)
    _, expected_loss, expected = golden_step(golden, fused=False, dtype=torch.float64)
    assert_matches(loss, expected_loss, 1e-10)
    for original, gradient in gradients.items():
        assert_matches(gradient, expected[original], 1e-10)
