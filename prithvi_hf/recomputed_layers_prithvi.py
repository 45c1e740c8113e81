# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The end of a head, of which little is kept for the backward pass.

Batch normalisation, ReLU, channel dropout and the 1x1 classifier are cheap, yet called one after the other they keep
three maps as large as the image. Here the first one's input alone is kept and the rest computed again.
"""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from .decode_heads_prithvi import PrithviConvLayer, PrithviFCNHead


class NormalizedScores(torch.autograd.Function):
    """Batch normalisation, ReLU and a classifier whose weights may differ from image to image."""

    @staticmethod
    def forward(
        ctx: Any,
        features: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        statistics: tuple[torch.Tensor | None, torch.Tensor | None, bool, float, float],
        classifier: torch.Tensor,
    ) -> torch.Tensor:
        """Scores without the classifier's bias.

        Args:
            ctx: Of autograd.
            features (`torch.Tensor` of shape `(B, C, H, W)`): Input of the normalisation, channels-last.
            weight (`torch.Tensor` of shape `(C,)`): Of the normalisation.
            bias (`torch.Tensor` of shape `(C,)`): Of the normalisation.
            statistics (`tuple`): Running mean and variance (updated in place), whether those of the batch count, how
                much the batch counts for the running ones, and epsilon.
            classifier (`torch.Tensor` of shape `(B, C, num_labels)`): Of each image.

        Returns:
            `torch.Tensor` of shape `(B, H * W, num_labels)`.
        """
        mean, variance, of_batch, momentum, eps = statistics
        activated, batch_mean, batch_scale = torch.native_batch_norm(
            features, weight, bias, mean, variance, of_batch, momentum, eps
        )
        if not of_batch:  # a copy: the running ones may move on before the backward pass
            batch_mean, batch_scale = mean.clone(), variance.clone()
        ctx.save_for_backward(features, weight, bias, batch_mean, batch_scale, classifier)
        ctx.of_batch, ctx.eps = of_batch, eps
        return torch.bmm(_pixels(activated.relu_()), classifier)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of features, normalisation and classifier, given that of the scores."""
        features, weight, bias, mean, scale, classifier = ctx.saved_tensors
        running = (None, None) if ctx.of_batch else (mean, scale)
        activated = torch.native_batch_norm(features, weight, bias, *running, ctx.of_batch, 0.0, ctx.eps)[0].relu_()
        classifier_gradient = torch.bmm(_pixels(activated).transpose(1, 2), gradient)
        passed = torch.empty_like(activated)
        torch.bmm(gradient, classifier.transpose(1, 2), out=_pixels(passed))
        torch.ops.aten.threshold_backward.grad_input(passed, activated, 0, grad_input=passed)
        del activated
        feature_gradient, *norm_gradients = torch.ops.aten.native_batch_norm_backward(
            passed, features, weight, *running, mean, scale, ctx.of_batch, ctx.eps, [True] * 3
        )
        return feature_gradient, *norm_gradients, None, classifier_gradient


def _pixels(features: torch.Tensor) -> torch.Tensor:
    """A channels-last map `(B, C, H, W)` as `(B, H * W, C)`, without a copy."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def _count_batch(norm: nn.BatchNorm2d) -> tuple[torch.Tensor | None, torch.Tensor | None, bool, float, float]:
    """What the module's own forward does to its statistics, and what it hands over to the function."""
    of_batch = norm.training or norm.running_mean is None
    momentum = 0.0 if norm.momentum is None else norm.momentum
    if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            momentum = 1.0 / float(norm.num_batches_tracked)
    if norm.training and not norm.track_running_stats:
        return None, None, True, momentum, norm.eps
    return norm.running_mean, norm.running_var, of_batch, momentum, norm.eps


def normalized_scores(head: PrithviFCNHead, layer: PrithviConvLayer, features: torch.Tensor) -> torch.Tensor:
    """What a head makes of the output of its last convolution.

    A channel that dropout leaves out is one whose column of the classifier is zero for this image.

    Args:
        head (`PrithviFCNHead`): Its dropout and classifier are used.
        layer (`PrithviConvLayer`): Its last layer, of which the normalisation and ReLU are left to do.
        features (`torch.Tensor` of shape `(B, C, H, W)`): What the layer's convolution gave.

    Returns:
        `torch.Tensor` of shape `(B, num_labels, H, W)`.
    """
    features = features.contiguous(memory_format=torch.channels_last)
    kept = head.dropout(features.new_ones(*features.shape[:2], 1, 1)).flatten(2)  # (B, C, 1)
    classifier = kept * head.classifier.weight.flatten(1).t()
    norm = layer.normalization
    scores = NormalizedScores.apply(features, norm.weight, norm.bias, _count_batch(norm), classifier)
    if head.classifier.bias is not None:
        scores = scores + head.classifier.bias
    return scores.unflatten(1, features.shape[-2:]).permute(0, 3, 1, 2).contiguous()


__all__ = ["NormalizedScores", "normalized_scores"]
