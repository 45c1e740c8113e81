# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Small models and batches for the tests of the fused operator of neck and heads."""

import copy

import torch
from torch import nn

from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation
from prithvi_hf.models.prithvi.decode_heads_prithvi import PrithviNeck
from tests.golden import assert_matches


def make_model(dtype=torch.float32, **overrides) -> PrithviForSemanticSegmentation:
    """A small model in which no weight and no statistic is trivial."""
    torch.manual_seed(0)
    values = {
        "image_size": 32,
        "num_frames": 1,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "neck_hidden_size": 12,
        "head_hidden_size": 8,
        "num_labels": 3,
        "classifier_dropout": 0.0,
    }
    model = PrithviForSemanticSegmentation(PrithviConfig(**{**values, **overrides}))
    with torch.no_grad():
        for module in [*model.neck.modules(), *model.decode_head.modules(), *model.auxiliary_head.modules()]:
            if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
                module.weight.normal_(1, 0.3)
            if getattr(module, "bias", None) is not None:
                module.bias.normal_(0, 0.5)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return model.to(dtype).eval()


def plain(model: PrithviForSemanticSegmentation) -> PrithviForSemanticSegmentation:
    """The same model, whose modules are called one by one."""
    model = copy.deepcopy(model)
    model.set_fused_upsampling(False)
    return model


def batch(size=(32, 48), frames: int = 1, images: int = 2, dtype=torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(images, 6, frames, *size, generator=generator).to(dtype)
    return pixels, torch.randint(0, 3, (images, *size), generator=generator)


def count_neck_calls(monkeypatch) -> list[int]:
    """A list that grows by one entry at each call of the neck itself: the sign of the plain path."""
    calls, forward = [], PrithviNeck.forward

    def counting(self, *args):
        calls.append(1)
        return forward(self, *args)

    monkeypatch.setattr(PrithviNeck, "forward", counting)
    return calls


def step(model, pixels, labels):
    """Outputs and gradients by name of one training step."""
    model.zero_grad()
    outputs = model(pixels, labels=labels)
    outputs.loss.backward()
    return outputs, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def assert_same_step(model, pixels, labels, tolerance):
    """Logits, loss, every gradient and every running statistic agree with those of the modules.

    Where a gradient is zero but for rounding, as that of a bias before a batch normalisation, it is measured against
    the largest of all.
    """
    reference = plain(model).train()
    model.train()
    outputs, gradients = step(model, pixels, labels)
    expected_outputs, expected = step(reference, pixels, labels)
    assert_matches(outputs.loss, expected_outputs.loss, tolerance)
    assert_matches(outputs.logits, expected_outputs.logits, tolerance)
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in gradients.items():
        bound = tolerance * max(expected[name].abs().max(), 1e-3 * largest)
        assert (gradient - expected[name]).abs().max() <= bound, name
    for (name, buffer), other in zip(model.named_buffers(), reference.buffers(), strict=True):
        assert_matches(buffer, other, tolerance), name
