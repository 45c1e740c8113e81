# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Neck and heads of `PrithviForSemanticSegmentation` without the neck's large map: the same numbers, less work.

The neck ends in a transposed convolution and each head begins with a 3x3 convolution. Here they are one operator on
the smaller map (see `winograd_prithvi`), for both heads at once in training; the neck's own output is never
made. What comes before it stays in the layout of the tokens, channels last and pixels in the order that the
enlargements give them, in which transposed convolutions are products of matrices; the pixels are put in order once, at
the end. In inference, batch normalisation is folded into the kernels, which are kept until one of the weights changes.

State dicts know nothing of all this. Where a module of neck or heads is not what this package built (replaced, hooked,
parametrised, wrapped, quantised, offloaded), the modules themselves are called, one after the other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.modules import module as torch_module
from torch.utils.checkpoint import checkpoint
from transformers.activations import ACT2FN

from .decode_heads_prithvi import (
    PrithviChannelNorm,
    PrithviConvLayer,
    PrithviFCNHead,
    PrithviNeck,
    PrithviUpsampleBlock,
)
from .winograd_prithvi import (
    TiledUpsampling,
    TileGrid,
    border_sums,
    filtered_strips,
    fuse_kernels,
    normalized_gelu,
    pad_map,
    phase_kernels,
    tile_kernels,
)


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


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GELU = type(ACT2FN["gelu"])
SMALLEST_STEP = 4_000_000_000
"""Multiplications of the modules below which a training step calls them one by one, 0 for never.

Such a step takes tenths of a second either way. In the modules' order of addition it gives the original's gradients
even where an activation lies within rounding of zero, as one does in its reference values; in another order a ReLU may
flip.
"""
_ROWS_AT_A_TIME = 448
"""Rows of a product of matrices that are enough for full speed; more at a time would only leave the caches."""


def _is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether calling a module does what its class says and nothing else, with ordinary weights that are at hand."""
    return (
        type(module) is kind
        and "forward" not in vars(module)
        and not any(vars(module).get(name) for name in _HOOKS)
        and all(
            tensor is None or (_is_ordinary(tensor) and tensor.device.type != "meta")
            for tensors in (module._parameters, module._buffers)
            for tensor in tensors.values()
        )
    )


def _is_ordinary(tensor: torch.Tensor) -> bool:
    """Whether a tensor is of no subclass (quantised, sharded); tracing has its own, which are what they trace."""
    return torch.compiler.is_compiling() or (
        type(tensor) in (torch.Tensor, nn.Parameter, nn.Buffer) and not tensor.is_quantized
    )


def _is_upsampling(module: nn.Module) -> bool:
    """Whether a module is a plain transposed convolution to twice the size."""
    return _is_plain(module, nn.ConvTranspose2d) and (
        (module.kernel_size, module.stride, module.padding) == ((2, 2), (2, 2), (0, 0))
        and (module.output_padding, module.dilation, module.groups) == ((0, 0), (1, 1), 1)
        and module.bias is not None
    )


def _is_convolution(module: nn.Module, kernel_size: int) -> bool:
    """Whether a module is a plain convolution that keeps the size, padded by zeros."""
    return _is_plain(module, nn.Conv2d) and (
        (module.kernel_size, module.padding) == ((kernel_size,) * 2, (kernel_size // 2,) * 2)
        and (module.stride, module.dilation, module.groups) == ((1, 1), (1, 1), 1)
        and module.padding_mode == "zeros"
    )


def _is_plain_neck(neck: nn.Module) -> bool:
    """Whether the neck and all that it holds is as it was built."""
    if not (_is_plain(neck, PrithviNeck) and _is_plain(neck.upsample_blocks, nn.ModuleList)):
        return False
    return len(neck.upsample_blocks) == 2 and all(
        _is_plain(block, PrithviUpsampleBlock)
        and _is_upsampling(block.conv_transpose_1)
        and _is_plain(block.norm, PrithviChannelNorm)
        and _is_plain(block.activation, _GELU)
        and _is_upsampling(block.conv_transpose_2)
        for block in neck.upsample_blocks
    )


def _is_plain_head(head: nn.Module) -> bool:
    """Whether what the fused operator passes by in a head is as it was built; the rest is called."""
    return (
        _is_plain(head, PrithviFCNHead)
        and _is_plain(head.layers, nn.ModuleList)
        and _is_plain(head.layers[0], PrithviConvLayer)
        and _is_convolution(head.layers[0].convolution, 3)
        and head.layers[0].convolution.bias is None
    )


def _is_plain_end(head: nn.Module, layer: nn.Module) -> bool:
    """Whether what follows a head's last convolution is as it was built."""
    return (
        _is_plain(layer.normalization, nn.BatchNorm2d)
        and layer.normalization.weight is not None
        and _is_plain(layer.activation, nn.ReLU)
        and _is_plain(head.dropout, nn.Dropout2d)
        and _is_convolution(head.classifier, 1)
    )


def _is_foldable(head: nn.Module) -> bool:
    """Whether the first layer of a head is a linear map and a ReLU: in evaluation mode, with running statistics."""
    layer = head.layers[0]
    in_evaluation = not (head.training or layer.normalization.training or head.dropout.training)
    return in_evaluation and _is_plain_end(head, layer) and layer.normalization.running_mean is not None


def _no_hooks_everywhere() -> bool:
    """Whether nothing watches all modules of the process, as `register_module_forward_hook` does."""
    names = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")
    return not any(getattr(torch_module, name, None) for name in names)


def can_fuse(neck: nn.Module, heads: list[nn.Module]) -> bool:
    """Whether neck and heads may be computed together: everything that would not be called is as it was built.

    Args:
        neck (`nn.Module`): The neck.
        heads (`list[nn.Module]`): The heads to be run on its output.
    """
    modules = [*neck.modules(), *(head.layers[0].convolution for head in heads if _is_plain_head(head))]
    devices = {tensor.device for module in modules for tensor in module._parameters.values() if tensor is not None}
    return len(devices) == 1 and _no_hooks_everywhere() and _is_plain_neck(neck) and all(map(_is_plain_head, heads))


def _is_small(neck: PrithviNeck, heads: list[nn.Module], num_pixels: int) -> bool:
    """Whether a step is done in no time by the modules too; while it is traced, sizes are left open."""
    if torch.compiler.is_compiling():
        return False
    weights = [neck.upsample_blocks[1].conv_transpose_2.weight, *(head.layers[0].convolution.weight for head in heads)]
    # A pixel of the image takes one of the four taps of the transposed convolution, and all nine of the others.
    products = weights[0].numel() // 4 + sum(weight.numel() for weight in weights[1:])
    return num_pixels * products < SMALLEST_STEP


def _compute_dtype(weight: torch.Tensor) -> torch.dtype:
    """The dtype of convolutions here and now."""
    if torch.is_autocast_enabled(weight.device.type):
        return torch.get_autocast_dtype(weight.device.type)
    return weight.dtype


def _takes_tiles(weight: torch.Tensor) -> bool:
    """Whether tiles are the fast way: on a CPU in full precision; half precision has matrix units for convolutions."""
    full = (torch.float32, torch.float64)
    return weight.device.type == "cpu" and not torch.compiler.is_compiling() and _compute_dtype(weight) in full


def _enlarge(transposed: nn.ConvTranspose2d, pixels: torch.Tensor) -> torch.Tensor:
    """A transposed convolution as a product of matrices: `(..., C)` to `(..., 4, C')`, rows before columns."""
    weight = transposed.weight.permute(0, 2, 3, 1).flatten(1)  # (C, 4 C')
    bias = transposed.bias.repeat(4)
    return nn.functional.linear(pixels, weight.t(), bias).unflatten(-1, (4, -1))


def _normalize(block: PrithviUpsampleBlock, pixels: torch.Tensor) -> torch.Tensor:
    """Normalisation and activation of a block, channels last."""
    return normalized_gelu(pixels, block.norm.weight, block.norm.bias, block.norm.eps)


def _enlarged_once(neck: PrithviNeck, tokens: torch.Tensor, grid_size: tuple[int, int]) -> torch.Tensor:
    """The neck's first block: tokens `(B, 1 + T h w, E)` to `(B, h, w, 4, 4, C)`."""
    frames = tokens[:, 1:].unflatten(1, (-1, *grid_size))  # (B, T, h, w, E)
    pixels = frames.permute(0, 2, 3, 4, 1).flatten(3)  # (B, h, w, E T)
    block = neck.upsample_blocks[0]
    pixels = _normalize(block, _enlarge(block.conv_transpose_1, pixels))
    return _enlarge(block.conv_transpose_2, pixels)


def _composed(neck: PrithviNeck, heads: list[nn.Module]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Products of the composed kernel, the convolutions of all heads side by side, and the bias; float32 or wider."""
    transposed = neck.upsample_blocks[1].conv_transpose_2
    dtype = torch.promote_types(transposed.weight.dtype, torch.float32)
    convolution = torch.cat([head.layers[0].convolution.weight.to(dtype) for head in heads])
    return fuse_kernels(transposed.weight.to(dtype), convolution), convolution, transposed.bias.to(dtype)


def _bias_map(kernels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """What the bias adds to each phase, `(1, 4 O, rows + 1, columns + 1)`: a channel of ones inside the image."""
    inside = nn.functional.pad(kernels.new_ones(1, 1, *size), (1, 1, 1, 1))
    return nn.functional.conv2d(inside, kernels)


def _bias_kernels(convolution: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The composed kernel of a channel of ones whose taps are the bias: `(4 O, 1, 2, 2)`."""
    return phase_kernels(fuse_kernels(bias.view(1, -1, 1, 1).expand(1, -1, 2, 2), convolution))


def _put_in_order(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels `(B, rows, columns, 4, 4, 4, C)` as a map `(B, C, 8 rows, 8 columns)` that lies channels-last."""
    batch_size, rows, columns = pixels.shape[:3]
    pixels = (
        pixels.unflatten(5, (2, 2)).unflatten(4, (2, 2)).unflatten(3, (2, 2)).permute(0, 1, 3, 5, 7, 2, 4, 6, 8, 9)
    )
    return pixels.reshape(batch_size, 8 * rows, 8 * columns, -1).permute(0, 3, 1, 2)


def _join_phases(phases: torch.Tensor) -> torch.Tensor:
    """Phases `(B, 4 O, rows + 1, columns + 1)` side by side as one map `(B, O, 2 rows, 2 columns)`."""
    rows, columns = phases.shape[-2] - 1, phases.shape[-1] - 1
    phases = phases.unflatten(1, (2, 2, -1)).permute(1, 2, 0, 4, 5, 3)  # (2, 2, B, rows + 1, columns + 1, O)
    lines = [torch.stack([phases[p, q, :, p : p + rows, q : q + columns] for q in (0, 1)], dim=3) for p in (0, 1)]
    return torch.stack(lines, dim=2).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def _finish(head: PrithviFCNHead, features: torch.Tensor, layers: int) -> torch.Tensor:
    """The rest of a head, after its first `layers` layers."""
    for layer in head.layers[layers:]:
        features = layer(features)
    return head.classifier(head.dropout(features))


def _finish_sparingly(head: PrithviFCNHead, features: torch.Tensor) -> torch.Tensor:
    """The rest of a head after its first convolution, with little kept for the backward pass of its end."""
    layer, *layers = head.layers
    for following in layers:
        if not (_is_plain(following, PrithviConvLayer) and _is_plain(following.convolution, nn.Conv2d)):
            return _finish(head, layer.activation(layer.normalization(features)), 1)
        features = following.convolution(layer.activation(layer.normalization(features)))
        layer = following
    if _is_plain_end(head, layer):
        return normalized_scores(head, layer, features)
    return head.classifier(head.dropout(layer.activation(layer.normalization(features))))


class _Unfolded:
    """Neck and heads in training, or wherever gradients are wanted."""

    def __init__(self, neck: PrithviNeck, heads: list[nn.Module]) -> None:
        self.neck, self.heads = neck, heads

    def __call__(self, tokens: torch.Tensor, grid_size: tuple[int, int]) -> list[torch.Tensor]:
        """Logits `(B, num_labels, 16 h, 16 w)` of each head."""
        block = self.neck.upsample_blocks[1]
        pixels = _enlarge(block.conv_transpose_1, _enlarged_once(self.neck, tokens, grid_size))
        if _takes_tiles(block.norm.weight):
            maps = self._tiled(block, pixels)
            return [_finish_sparingly(head, maps.pop(0)) for head in self.heads]  # nobody else holds on to a map
        first_layers = [head.layers[0] for head in self.heads]
        maps = zip(first_layers, self._phased(block, pixels), strict=True)
        maps = [layer.activation(layer.normalization(features)) for layer, features in maps]
        return [_finish(head, features, 1) for head, features in zip(self.heads, maps, strict=True)]

    def _tiled(self, block: PrithviUpsampleBlock, pixels: torch.Tensor) -> list[torch.Tensor]:
        """What each head's first convolution gives, by tiles."""
        products, convolution, bias = checkpoint(_composed, self.neck, self.heads, use_reentrant=False)
        widths = tuple(head.layers[0].convolution.out_channels for head in self.heads)
        norm = block.norm
        maps = TiledUpsampling.apply(
            pixels, norm.weight, norm.bias, norm.eps, products, border_sums(convolution, bias), widths
        )
        return [features.permute(0, 3, 1, 2) for features in maps]

    def _phased(self, block: PrithviUpsampleBlock, pixels: torch.Tensor) -> list[torch.Tensor]:
        """The same by one convolution, written in operations that any device has and any tracer follows."""
        features = _put_in_order(_normalize(block, pixels))
        with torch.autocast(features.device.type, enabled=False):
            products, convolution, bias = _composed(self.neck, self.heads)
            kernels = phase_kernels(products)
            bias_map = _bias_map(_bias_kernels(convolution, bias), features.shape[-2:])
        phases = _convolve_padded(features, kernels, _compute_dtype(block.norm.weight))
        phases = phases + bias_map.to(phases.dtype)
        widths = [head.layers[0].convolution.out_channels for head in self.heads]
        return list(_join_phases(phases).split(widths, dim=1))


def _convolve_padded(features: torch.Tensor, kernels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The four phases as one convolution of the padded map, channels-last."""
    kernels = kernels.to(dtype).contiguous(memory_format=torch.channels_last)
    return nn.functional.conv2d(nn.functional.pad(features.to(dtype), (1, 1, 1, 1)), kernels)


@dataclass(frozen=True)
class _Kernels:
    """Composed kernels with batch normalisation folded in, and what they were made of."""

    tiled: bool
    dtype: torch.dtype
    eps: float
    sources: list[torch.Tensor]
    kernels: torch.Tensor
    bias: torch.Tensor
    """Of tiles, the border sums `(9, O)`; else the kernels of the bias map `(4 O, 1, 2, 2)`."""
    shift: torch.Tensor

    def are_of(self, tiled: bool, dtype: torch.dtype, eps: float, sources: list[torch.Tensor]) -> bool:
        """Whether they are what one would make of these weights, to the last bit.

        The weights are compared with copies: their versions and addresses do not tell of an edit through `.data`.
        """
        return (self.tiled, self.dtype, self.eps) == (tiled, dtype, eps) and all(
            _same_bits(mine, theirs) for mine, theirs in zip(self.sources, sources, strict=True)
        )


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are the same in everything that counts."""
    if (one.dtype, one.device, one.shape) != (other.dtype, other.device, other.shape):
        return False
    if one.is_contiguous() and other.is_contiguous() and one.numel() * one.element_size() % 8 == 0:
        one, other = (tensor.detach().flatten().view(torch.int64) for tensor in (one, other))  # faster, and NaN = NaN
    return torch.equal(one, other)


def _sources(neck: PrithviNeck, head: PrithviFCNHead) -> list[torch.Tensor]:
    """All that the folded kernels are made of."""
    transposed, layer = neck.upsample_blocks[1].conv_transpose_2, head.layers[0]
    norm = layer.normalization
    statistics = [norm.weight, norm.bias, norm.running_mean, norm.running_var]
    return [transposed.weight, transposed.bias, layer.convolution.weight, *statistics]


def _fold(tiled: bool, dtype: torch.dtype, neck: PrithviNeck, head: PrithviFCNHead) -> _Kernels:
    """Compose the kernels and fold batch normalisation into them, in float32 or wider."""
    with torch.autocast(neck.upsample_blocks[1].norm.weight.device.type, enabled=False):
        products, convolution, bias = _composed(neck, [head])
        norm = head.layers[0].normalization
        statistics = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        weight, shift, mean, variance = (tensor.to(products.dtype) for tensor in statistics)
        scale = weight * torch.rsqrt(variance + norm.eps)
        products, convolution = products * scale[:, None], convolution * scale[:, None, None, None]
        shift = shift - mean * scale
        kernels = tile_kernels(products) if tiled else phase_kernels(products)
        bias = border_sums(convolution, bias) if tiled else _bias_kernels(convolution, bias)
        return _Kernels(tiled, dtype, norm.eps, [], kernels.to(dtype), bias, shift)


class _Folded:
    """Neck and decode head in inference."""

    def __init__(self, neck: PrithviNeck, head: PrithviFCNHead, kernels: _Kernels) -> None:
        self.neck, self.head, self.kernels = neck, head, kernels

    def __call__(self, tokens: torch.Tensor, grid_size: tuple[int, int]) -> list[torch.Tensor]:
        """Logits `(B, num_labels, 16 h, 16 w)` of the head, in a list."""
        pixels = _enlarged_once(self.neck, tokens, grid_size)
        return [self._tiled(pixels) if self.kernels.tiled else self._phased(pixels)]

    def _tiled(self, pixels: torch.Tensor) -> torch.Tensor:
        """By tiles, a few rows at a time: nothing large is ever made but the padded map of one image."""
        size = (8 * pixels.shape[1], 8 * pixels.shape[2])
        grid = TileGrid(size, len(pixels))
        borders = self.kernels.bias.clone()
        borders[0] += self.kernels.shift
        layers, classify = self._pointwise()
        result = None
        for group in grid.groups():
            padded = self._padded(pixels[group], grid)
            for rows, strip in filtered_strips(padded, self.kernels.kernels, borders, grid, classify):
                if result is None:
                    result = strip.new_empty(len(pixels), 2 * size[0], 2 * size[1], strip.shape[-1])
                result[group, rows[0] : rows[1]] = strip
        result = result.permute(0, 3, 1, 2)
        return result.contiguous() if layers is None else _finish(self.head, result, layers)

    def _pointwise(self) -> tuple[int | None, Callable[[torch.Tensor], torch.Tensor]]:
        """What follows each pixel's value: ReLU and, where the head has no further layer, the classifier."""
        if len(self.head.layers) > 1:
            return 1, torch.relu_
        classifier = self.head.classifier
        weight = classifier.weight.flatten(1)
        return None, lambda strip: nn.functional.linear(strip.relu_(), weight, classifier.bias)

    def _padded(self, pixels: torch.Tensor, grid: TileGrid) -> torch.Tensor:
        """The last enlargement before the composed one, `(B, h, w, 4, 4, C)` to the padded map, in cached pieces."""
        block = self.neck.upsample_blocks[1]
        weight = block.conv_transpose_1.weight.permute(0, 2, 3, 1).flatten(1).t()
        bias = block.conv_transpose_1.bias.repeat(4)
        padded = pixels.new_zeros(len(pixels), *grid.padded, len(bias) // 4)
        step = max(1, _ROWS_AT_A_TIME // (len(pixels) * pixels.shape[2] * 16))
        for first in range(0, pixels.shape[1], step):
            part = nn.functional.linear(pixels[:, first : first + step], weight, bias).unflatten(-1, (4, -1))
            pad_map(_normalize(block, part), padded, grid.size, 8 * first)
        return padded

    def _phased(self, pixels: torch.Tensor) -> torch.Tensor:
        """By one convolution; ReLU and classifier on the phases, so that only the logits are put in order."""
        block = self.neck.upsample_blocks[1]
        features = _put_in_order(_normalize(block, _enlarge(block.conv_transpose_1, pixels)))
        with torch.autocast(features.device.type, enabled=False):
            bias_map = _bias_map(self.kernels.bias, features.shape[-2:])
            bias_map = bias_map + self.kernels.shift.repeat(4)[:, None, None]
            phases = _convolve_padded(features, self.kernels.kernels, self.kernels.dtype)
            phases = torch.relu_(phases.add_(bias_map.to(phases.dtype)))
        if len(self.head.layers) > 1:
            return _finish(self.head, _join_phases(phases), 1)
        classifier = self.head.classifier
        bias = None if classifier.bias is None else classifier.bias.repeat(4)
        scores = nn.functional.conv2d(phases, classifier.weight.repeat(4, 1, 1, 1), bias, groups=4)
        return _join_phases(scores).contiguous()


class FusedUpsampling:
    """Decides, for one model, how neck and heads are run, and keeps what inference composes.

    A copy or a pickle of it is an empty one. Threads may share it: they see either kernels that are of their weights
    or make their own.
    """

    def __init__(self) -> None:
        self._kernels: _Kernels | None = None

    def __reduce__(self) -> tuple[type, tuple]:
        return type(self), ()

    def drop(self) -> None:
        """Forget the composed kernels."""
        self._kernels = None

    def prepare(
        self, neck: nn.Module, heads: list[nn.Module], num_pixels: int
    ) -> Callable[[torch.Tensor, tuple[int, int]], list[torch.Tensor]] | None:
        """What maps tokens and their grid to the logits of each head; None where the modules are to be called.

        Args:
            neck (`nn.Module`): The neck.
            heads (`list[nn.Module]`): The heads that are needed.
            num_pixels (`int`): Pixels of the batch, whole patches each.
        """
        if not can_fuse(neck, heads):
            return None
        if torch.is_grad_enabled() or len(heads) > 1 or not _is_foldable(heads[0]):
            return None if _is_small(neck, heads, num_pixels) else _Unfolded(neck, heads)
        return _Folded(neck, heads[0], self._folded_kernels(neck, heads[0]))

    def _folded_kernels(self, neck: PrithviNeck, head: PrithviFCNHead) -> _Kernels:
        """The kernels that were kept, or new ones where a weight is not what it was."""
        weight = neck.upsample_blocks[1].conv_transpose_2.weight
        tiled, dtype = _takes_tiles(weight), _compute_dtype(weight)
        if torch.compiler.is_compiling() or _is_capturing(weight):
            return _fold(tiled, dtype, neck, head)
        kept, sources = self._kernels, _sources(neck, head)
        if kept is None or not kept.are_of(tiled, dtype, head.layers[0].normalization.eps, sources):
            self.drop()  # before new ones are made: there is no need to hold both
            copies = [source.detach().clone() for source in sources]
            kept = _fold(tiled, dtype, neck, head)
            kept.sources.extend(copies)
            # Another thread may have edited a weight between the copy and the end of the composition.
            if all(_same_bits(copy, source) for copy, source in zip(copies, sources, strict=True)):
                self._kernels = kept
        return kept


def _is_capturing(tensor: torch.Tensor) -> bool:
    """Whether a CUDA graph is being recorded, in which nothing can be compared."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


__all__ = ["FusedUpsampling", "NormalizedScores", "can_fuse", "normalized_scores"]
