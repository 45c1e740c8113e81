# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Neck and heads of `PrithviForSemanticSegmentation` without the neck's large map: the same numbers, less work.

The neck ends in a transposed convolution and each head begins with a 3x3 convolution. Here they are one operator on
the smaller map (see `winograd_prithvi`), for both heads at once in training; the neck's own output is never made. What
comes before it stays in the layout of the tokens, channels last and pixels in the order that the upsamplings give
them, in which transposed convolutions are products of matrices; the pixels are put in order once, at the end. In
inference, batch normalisation is folded into the kernels, which are kept until one of the weights changes.

State dicts know nothing of all this. Where a module of neck or heads is not what this package built (replaced, hooked,
parametrised, wrapped, quantised, offloaded), the modules themselves are called, one after the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeGuard, TypeVar, cast

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
    plan_products,
    planned_kernels,
)


SMALLEST_STEP = 4_000_000_000
"""Multiplications of the modules below which a training step calls them one by one, 0 for never.

Such a step takes tenths of a second either way. In the modules' order of addition it gives the original's gradients
even where an activation is within rounding of zero, as one is in its reference values; in another order a ReLU may
flip.
"""
_ROWS_AT_A_TIME = 448
"""Rows of a product of matrices that are enough for full speed; more at a time would only leave the caches."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")
_GELU = type(ACT2FN["gelu"])

ModuleType = TypeVar("ModuleType", bound=nn.Module)
Upsampling = Callable[[torch.Tensor, tuple[int, int]], list[torch.Tensor]]
"""Maps tokens (B, 1 + T h w, E) and their grid (h, w) to the logits of each head, (B, num_labels, 16 h, 16 w)."""


def _is_plain(module: object, kind: type[ModuleType]) -> TypeGuard[ModuleType]:
    """Whether calling a module does what its class says and nothing else, with ordinary weights that are at hand."""
    if type(module) is not kind or "forward" in vars(module) or any(vars(module).get(name) for name in _HOOKS):
        return False
    for tensors in (vars(module)["_parameters"], vars(module)["_buffers"]):
        for tensor in tensors.values():
            if tensor is None:
                continue
            # Quantised and sharded weights are of subclasses; tracing has its own, which are what they trace.
            is_ordinary = torch.compiler.is_compiling() or (
                type(tensor) in (torch.Tensor, nn.Parameter, nn.Buffer) and not tensor.is_quantized
            )
            if not is_ordinary or tensor.device.type == "meta":
                return False
    return True


def _is_upsampling(module: nn.Module) -> bool:
    """Whether a module is a plain transposed convolution to twice the size."""
    return (
        _is_plain(module, nn.ConvTranspose2d)
        and (module.kernel_size, module.stride, module.padding) == ((2, 2), (2, 2), (0, 0))
        and (module.output_padding, module.dilation, module.groups) == ((0, 0), (1, 1), 1)
        and module.bias is not None
    )


def _is_convolution(module: nn.Module, kernel_size: int) -> bool:
    """Whether a module is a plain convolution that keeps the size, padded by zeros."""
    return (
        _is_plain(module, nn.Conv2d)
        and (module.kernel_size, module.padding) == ((kernel_size,) * 2, (kernel_size // 2,) * 2)
        and (module.stride, module.dilation, module.groups) == ((1, 1), (1, 1), 1)
        and module.padding_mode == "zeros"
    )


def _is_plain_end(head: PrithviFCNHead, layer: PrithviConvLayer) -> bool:
    """Whether what follows a head's last convolution is as it was built."""
    return (
        _is_plain(layer.normalization, nn.BatchNorm2d)
        and layer.normalization.weight is not None
        and _is_plain(layer.activation, nn.ReLU)
        and _is_plain(head.dropout, nn.Dropout2d)
        and _is_convolution(head.classifier, 1)
    )


def can_fuse(neck: nn.Module, heads: Sequence[nn.Module]) -> bool:
    """Whether neck and heads may be computed together: everything that would not be called is as it was built."""
    if any(getattr(torch_module, name, None) for name in _GLOBAL_HOOKS):  # as `register_module_forward_hook` leaves
        return False
    if not (_is_plain(neck, PrithviNeck) and _is_plain(neck.upsample_blocks, nn.ModuleList)):
        return False
    for block in neck.upsample_blocks:
        if not (
            _is_plain(block, PrithviUpsampleBlock)
            and _is_upsampling(block.conv_transpose_1)
            and _is_plain(block.norm, PrithviChannelNorm)
            and _is_plain(block.activation, _GELU)
            and _is_upsampling(block.conv_transpose_2)
        ):
            return False
    modules = list(neck.modules())
    for head in heads:  # the rest of a head is called, or looked at later
        if not (
            _is_plain(head, PrithviFCNHead)
            and _is_plain(head.layers, nn.ModuleList)
            and _is_plain(head.layers[0], PrithviConvLayer)
            and _is_convolution(head.layers[0].convolution, 3)
            and head.layers[0].convolution.bias is None
        ):
            return False
        modules.append(head.layers[0].convolution)
    devices = {tensor.device for module in modules for tensor in module._parameters.values() if tensor is not None}
    return len(devices) == 1 and len(neck.upsample_blocks) == 2


def _compute_dtype(weight: torch.Tensor) -> torch.dtype:
    """Give the dtype of convolutions here and now."""
    if torch.is_autocast_enabled(weight.device.type):
        return torch.get_autocast_dtype(weight.device.type)
    return weight.dtype


def _takes_strips(weight: torch.Tensor) -> bool:
    """Whether the large map is made a few rows at a time, as suits the caches of a CPU."""
    return weight.device.type == "cpu" and not torch.compiler.is_compiling()


def _upsample(transposed: nn.ConvTranspose2d, pixels: torch.Tensor) -> torch.Tensor:
    """Compute a transposed convolution as a product of matrices: `(..., C)` to `(..., 4, C')`, rows before columns."""
    if not torch.compiler.is_compiling() and pixels.shape[:-1].numel() < pixels.shape[-1]:
        # Few pixels: it is less to put them in order than the weight.
        bias = cast(torch.Tensor, transposed.bias).repeat_interleave(4)
        pixels = nn.functional.linear(pixels, transposed.weight.flatten(1).t(), bias)
        return pixels.unflatten(-1, (-1, 4)).transpose(-1, -2).contiguous()
    weight = transposed.weight.permute(0, 2, 3, 1).flatten(1)  # (C, 4 C')
    bias = cast(torch.Tensor, transposed.bias).repeat(4)
    return nn.functional.linear(pixels, weight.t(), bias).unflatten(-1, (4, -1))


def _normalize(block: PrithviUpsampleBlock, pixels: torch.Tensor) -> torch.Tensor:
    """Apply normalisation and activation of a block, channels last."""
    # As a list of pixels: OpenVINO 2026.4 computes nonsense from a normalisation of more than six dimensions.
    flat = normalized_gelu(pixels.flatten(0, -2), block.norm.weight, block.norm.bias, block.norm.eps)
    return flat.view(pixels.shape)


def _run_first_block(block: PrithviUpsampleBlock, tokens: torch.Tensor, grid_size: tuple[int, int]) -> torch.Tensor:
    """Run the neck's first block: tokens `(B, 1 + T h w, E)` to `(B, h, w, 4, 4, C)`."""
    frames = tokens[:, 1:].unflatten(1, (-1, *grid_size))  # (B, T, h, w, E)
    # Without gaps: where the class token lies between images, `linear` copies the weight for every row of tokens.
    pixels = frames.permute(0, 2, 3, 4, 1).flatten(3).contiguous()  # (B, h, w, E T)
    pixels = _normalize(block, _upsample(block.conv_transpose_1, pixels))
    return _upsample(block.conv_transpose_2, pixels)


def _fuse(
    block: PrithviUpsampleBlock, layers: Sequence[PrithviConvLayer]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make the products of the fused kernel, the heads' convolutions side by side, and the bias; float32 or wider."""
    transposed = block.conv_transpose_2
    dtype = torch.promote_types(transposed.weight.dtype, torch.float32)
    convolution = torch.cat([layer.convolution.weight.to(dtype) for layer in layers])
    bias = cast(torch.Tensor, transposed.bias).to(dtype)
    return fuse_kernels(transposed.weight.to(dtype), convolution), convolution, bias


def _bias_kernels(convolution: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Make the fused kernel of a channel of ones whose taps are the bias: `(4 O, 1, 2, 2)`."""
    return phase_kernels(fuse_kernels(bias.view(1, -1, 1, 1).expand(1, -1, 2, 2), convolution))


def _bias_map(kernels: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Compute what the bias adds to each phase, `(1, 4 O, rows + 1, columns + 1)`: ones inside the image alone."""
    inside = nn.functional.pad(kernels.new_ones(1, 1, *size), (1, 1, 1, 1))
    return nn.functional.conv2d(inside, kernels)


def _put_in_order(pixels: torch.Tensor) -> torch.Tensor:
    """Turn pixels `(B, rows, columns, 4, 4, 4, C)` into a map `(B, 8 rows, 8 columns, C)`."""
    batch_size, rows, columns = pixels.shape[:3]
    pixels = pixels.unflatten(5, (2, 2)).unflatten(4, (2, 2)).unflatten(3, (2, 2))
    pixels = pixels.permute(0, 1, 3, 5, 7, 2, 4, 6, 8, 9)  # (B, rows, 2, 2, 2, columns, 2, 2, 2, C)
    return pixels.reshape(batch_size, 8 * rows, 8 * columns, -1)


def _convolve_padded(features: torch.Tensor, kernels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Compute the four phases as one convolution of the padded map, channels-last."""
    kernels = kernels.to(dtype).contiguous(memory_format=torch.channels_last)
    return nn.functional.conv2d(nn.functional.pad(features.to(dtype), (1, 1, 1, 1)), kernels)


def _join_phases(phases: torch.Tensor) -> torch.Tensor:
    """Join phases `(B, 4 O, rows + 1, columns + 1)` to one map `(B, O, 2 rows, 2 columns)`."""
    rows, columns = phases.shape[-2] - 1, phases.shape[-1] - 1
    phases = phases.unflatten(1, (2, 2, -1)).permute(1, 2, 0, 4, 5, 3)  # (2, 2, B, rows + 1, columns + 1, O)
    lines = [torch.stack([phases[p, q, :, p : p + rows, q : q + columns] for q in (0, 1)], dim=3) for p in (0, 1)]
    return torch.stack(lines, dim=2).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def _finish(head: PrithviFCNHead, features: torch.Tensor, layers: int) -> torch.Tensor:
    """Run the rest of a head, after its first `layers` layers."""
    for layer in head.layers[layers:]:
        features = layer(features)
    return head.classifier(head.dropout(features))


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
        """Compute scores `(B, H * W, num_labels)`, without the classifier's bias, of features `(B, C, H, W)`.

        `statistics` are running mean and variance (updated in place), whether those of the batch count, how much the
        batch counts for the running ones, and epsilon; `classifier` is that of each image, `(B, C, num_labels)`.
        """
        mean, variance, of_batch, momentum, eps = statistics
        activated, batch_mean, batch_scale = torch.native_batch_norm(
            features, weight, bias, mean, variance, of_batch, momentum, eps
        )
        if not of_batch:  # a copy: the running ones may move on before the backward pass
            batch_mean, batch_scale = cast(torch.Tensor, mean).clone(), cast(torch.Tensor, variance).clone()
        ctx.save_for_backward(features, weight, bias, batch_mean, batch_scale, classifier)
        ctx.of_batch, ctx.eps = of_batch, eps
        return torch.bmm(_pixels(activated.relu_()), classifier)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Compute the gradients of features, normalisation and classifier, given that of the scores."""
        features, weight, bias, mean, scale, classifier = ctx.saved_tensors
        running = (None, None) if ctx.of_batch else (mean, scale)
        arguments = (*running, ctx.of_batch, 0.0, ctx.eps)
        activated = torch.native_batch_norm(features, weight, bias, *arguments)[0].relu_()
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
    """View a channels-last map `(B, C, H, W)` as `(B, H * W, C)`."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def normalized_scores(head: PrithviFCNHead, layer: PrithviConvLayer, features: torch.Tensor) -> torch.Tensor:
    """Turn `(B, C, H, W)`, what the convolution of a head's last layer gave, into scores `(B, num_labels, H, W)`.

    A channel that dropout leaves out is one whose column of the classifier is zero for this image.
    """
    features = features.contiguous(memory_format=torch.channels_last)
    kept = head.dropout(features.new_ones(*features.shape[:2], 1, 1)).flatten(2)  # (B, C, 1)
    classifier = (kept * head.classifier.weight.flatten(1).t()).to(features.dtype)
    norm = layer.normalization
    # As the module's own forward counts the batch, and which statistics it takes.
    momentum = 0.0 if norm.momentum is None else norm.momentum
    if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            momentum = 1.0 / float(norm.num_batches_tracked)
    running = (norm.running_mean, norm.running_var)
    if norm.training and not norm.track_running_stats:
        running = (None, None)
    of_batch = norm.training or norm.running_mean is None
    statistics = (*running, of_batch, momentum, norm.eps)
    scores = NormalizedScores.apply(features, norm.weight, norm.bias, statistics, classifier)
    if head.classifier.bias is not None:
        scores = scores + head.classifier.bias.to(scores.dtype)
    return scores.unflatten(1, features.shape[-2:]).permute(0, 3, 1, 2).contiguous()


def _run_unfolded(
    blocks: list[PrithviUpsampleBlock],
    heads: list[PrithviFCNHead],
    layers: list[PrithviConvLayer],
    tokens: torch.Tensor,
    grid_size: tuple[int, int],
) -> list[torch.Tensor]:
    """Run neck and heads (with their first layers) in training, or wherever gradients are wanted."""
    first, last = blocks
    norm, widths = last.norm, tuple(layer.convolution.out_channels for layer in layers)
    pixels = _upsample(last.conv_transpose_1, _run_first_block(first, tokens, grid_size))
    if _takes_strips(norm.weight):
        plan = plan_products(pixels.dtype)
        products, convolution, bias = checkpoint(_fuse, last, layers, use_reentrant=False)
        with torch.autocast(pixels.device.type, enabled=False):
            borders = border_sums(convolution, bias)
            maps = list(
                TiledUpsampling.apply(pixels, norm.weight, norm.bias, norm.eps, products, borders, widths, plan)
            )
        # Nobody else holds on to a map.
        return [_finish_sparingly(head, maps.pop(0).permute(0, 3, 1, 2)) for head in heads]
    # The same by one convolution, in operations that any device has and any tracer follows.
    features = _normalize(last, _put_in_order(pixels)).permute(0, 3, 1, 2)  # (B, C, 8 h, 8 w)
    with torch.autocast(features.device.type, enabled=False):
        products, convolution, bias = _fuse(last, layers)
        kernels = phase_kernels(products)
        bias_map = _bias_map(_bias_kernels(convolution, bias), features.shape[-2:])
    phases = _convolve_padded(features, kernels, _compute_dtype(norm.weight))
    phases = phases + bias_map.to(phases.dtype)
    parts = zip(layers, _join_phases(phases).split(widths, dim=1), strict=True)
    activated = [layer.activation(layer.normalization(part)) for layer, part in parts]
    return [_finish(head, features, 1) for head, features in zip(heads, activated, strict=True)]


def _finish_sparingly(head: PrithviFCNHead, features: torch.Tensor) -> torch.Tensor:
    """Run the rest of a head after its first convolution, with little kept for the backward pass of its end."""
    layer, *layers = cast(list[PrithviConvLayer], list(head.layers))
    for following in layers:
        if not (_is_plain(following, PrithviConvLayer) and _is_plain(following.convolution, nn.Conv2d)):
            return _finish(head, layer.activation(layer.normalization(features)), 1)
        features = following.convolution(layer.activation(layer.normalization(features)))
        layer = following
    if _is_plain_end(head, layer):
        return normalized_scores(head, layer, features)
    return head.classifier(head.dropout(layer.activation(layer.normalization(features))))


@dataclass(frozen=True)
class _Kernels:
    """Fused kernels with batch normalisation folded in, and what they were made of."""

    in_strips: bool
    dtype: torch.dtype
    """Of the maps before and after; the kernels may be of another."""
    eps: float
    sources: list[torch.Tensor]
    kernels: torch.Tensor
    bias: torch.Tensor
    """Of strips, the border sums `(9, O)`; else the kernels of the bias map `(4 O, 1, 2, 2)`."""
    shift: torch.Tensor


def _fold(in_strips: bool, dtype: torch.dtype, block: PrithviUpsampleBlock, layer: PrithviConvLayer) -> _Kernels:
    """Fuse the kernels and fold batch normalisation into them, in float32 or wider."""
    with torch.autocast(block.norm.weight.device.type, enabled=False):
        products, convolution, bias = _fuse(block, [layer])
        norm = layer.normalization
        statistics = cast(list[torch.Tensor], [norm.weight, norm.bias, norm.running_mean, norm.running_var])
        weight, shift, mean, variance = (tensor.to(products.dtype) for tensor in statistics)
        scale = weight * torch.rsqrt(variance + norm.eps)
        products, convolution = products * scale[:, None], convolution * scale[:, None, None, None]
        shift = shift - mean * scale
        if not in_strips:
            bias = _bias_kernels(convolution, bias)
            return _Kernels(False, dtype, norm.eps, [], phase_kernels(products).to(dtype), bias, shift)
        kernels = planned_kernels(products, plan_products(dtype))
        return _Kernels(True, dtype, norm.eps, [], kernels, border_sums(convolution, bias), shift)


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are the same in everything that counts."""
    if (one.dtype, one.device, one.shape) != (other.dtype, other.device, other.shape):
        return False
    if one.is_contiguous() and other.is_contiguous() and one.numel() * one.element_size() % 8 == 0:
        one, other = (tensor.detach().flatten().view(torch.int64) for tensor in (one, other))  # faster, and NaN = NaN
    return torch.equal(one, other)


def _run_folded(
    blocks: list[PrithviUpsampleBlock],
    head: PrithviFCNHead,
    kernels: _Kernels,
    tokens: torch.Tensor,
    grid_size: tuple[int, int],
) -> list[torch.Tensor]:
    """Run neck and decode head in inference."""
    first, last = blocks
    pixels = _run_first_block(first, tokens, grid_size)  # (B, h, w, 4, 4, C)
    classifier = head.classifier
    if kernels.in_strips:
        return [_run_strips(last, head, kernels, pixels)]
    # By one convolution; ReLU and classifier on the phases, so that only the logits are put in order.
    # In order before the normalisation: next to each other OpenVINO would join both permutations to a slower one.
    ordered = _put_in_order(_upsample(last.conv_transpose_1, pixels))
    features = _normalize(last, ordered).permute(0, 3, 1, 2)  # (B, C, 8 h, 8 w)
    with torch.autocast(features.device.type, enabled=False):
        bias_map = _bias_map(kernels.bias, features.shape[-2:])
        bias_map = bias_map + kernels.shift.repeat(4)[:, None, None]
        phases = _convolve_padded(features, kernels.kernels, kernels.dtype)
        phases = torch.relu_(phases.add_(bias_map.to(phases.dtype)))
    if len(head.layers) > 1:
        return [_finish(head, _join_phases(phases), 1)]
    bias = None if classifier.bias is None else classifier.bias.repeat(4)
    scores = nn.functional.conv2d(phases, classifier.weight.repeat(4, 1, 1, 1), bias, groups=4)
    return [_join_phases(scores).contiguous()]


def _run_strips(
    block: PrithviUpsampleBlock, head: PrithviFCNHead, kernels: _Kernels, pixels: torch.Tensor
) -> torch.Tensor:
    """Go a few rows at a time: nothing large is ever made but the padded map of one image."""
    size = (8 * pixels.shape[1], 8 * pixels.shape[2])
    grid, products_dtype = TileGrid(size, len(pixels)), kernels.kernels.dtype
    borders = kernels.bias.clone()
    borders[0] += kernels.shift
    borders = borders.to(products_dtype)
    # Without autocast, all is given in the dtype that it is computed in.
    weight = block.conv_transpose_1.weight.to(pixels.dtype).permute(0, 2, 3, 1).flatten(1).t()
    bias = cast(torch.Tensor, block.conv_transpose_1.bias).to(pixels.dtype).repeat(4)
    class_weight, class_bias = head.classifier.weight.to(products_dtype).flatten(1), head.classifier.bias
    class_bias = None if class_bias is None else class_bias.to(products_dtype)
    has_more_layers = len(head.layers) > 1

    def finish_strip(strip: torch.Tensor) -> torch.Tensor:
        """Apply what follows each pixel's value: ReLU and, where the head has no further layer, the classifier."""
        strip = strip.relu_()
        return strip if has_more_layers else nn.functional.linear(strip, class_weight, class_bias)

    result = None
    room = weight.new_zeros(grid.images, *grid.padded, len(bias) // 4, dtype=products_dtype)  # its border stays zero
    with torch.autocast(pixels.device.type, enabled=False):
        for group in grid.groups():
            # The upsampling before the fused one, (B, h, w, 4, 4, C) to the padded map, in pieces that stay cached.
            images = pixels[group]
            padded = room[: len(images)]
            step = max(1, _ROWS_AT_A_TIME // (len(images) * images.shape[2] * 16))
            for first in range(0, images.shape[1], step):
                piece = nn.functional.linear(images[:, first : first + step], weight, bias).unflatten(-1, (4, -1))
                pad_map(_normalize(block, piece), padded, grid.size, 8 * first)
            del piece
            for rows, strip in filtered_strips(padded, kernels.kernels, borders, grid, finish_strip):
                if result is None:
                    shape = (len(pixels), 2 * size[0], 2 * size[1], strip.shape[-1])
                    result = strip.new_empty(shape, dtype=kernels.dtype)
                result[group, rows[0] : rows[1]] = strip
    features = cast(torch.Tensor, result).permute(0, 3, 1, 2)
    return _finish(head, features, 1) if has_more_layers else features.contiguous()


class FusedUpsampling:
    """Decide, for one model, how neck and heads are run, and keep the kernels that inference fuses.

    A copy or a pickle of it is an empty one. Threads may share it: they see either kernels that are of their weights
    or make their own.
    """

    def __init__(self) -> None:
        self._kernels: _Kernels | None = None
        self._frozen: _Kernels | None = None

    def __reduce__(self) -> tuple[type, tuple]:
        return type(self), ()

    def drop(self) -> None:
        """Forget the fused kernels."""
        self._kernels = None

    @torch.no_grad()
    def freeze(self, neck: nn.Module, head: nn.Module) -> None:
        """Fuse the kernels for good, for a model whose weights stay: an exported graph holds them as constants."""
        if can_fuse(neck, [head]) and _is_plain_end(cast(PrithviFCNHead, head), cast(Any, head).layers[0]):
            block, layer = cast(Any, neck).upsample_blocks[1], cast(Any, head).layers[0]
            self._frozen = _fold(False, block.norm.weight.dtype, block, layer)

    def prepare(self, neck: nn.Module, heads: Sequence[nn.Module], num_pixels: int) -> Upsampling | None:
        """Give what maps tokens and their grid to the logits of each head; None where the modules are to be called.

        `num_pixels` are those of the batch.
        """
        if not can_fuse(neck, heads):
            return None
        blocks = cast(list[PrithviUpsampleBlock], list(cast(PrithviNeck, neck).upsample_blocks))
        plain_heads = cast(list[PrithviFCNHead], list(heads))
        layers = [cast(PrithviConvLayer, head.layers[0]) for head in plain_heads]
        head, norm = plain_heads[0], layers[0].normalization
        in_evaluation = not (head.training or norm.training or head.dropout.training)
        # A linear map and a ReLU: in evaluation mode, with running statistics.
        is_foldable = in_evaluation and _is_plain_end(head, layers[0]) and norm.running_mean is not None
        if not torch.is_grad_enabled() and len(heads) == 1 and is_foldable:
            return partial(_run_folded, blocks, head, self._find_kernels(blocks[1], layers[0]))
        if not torch.compiler.is_compiling():  # while it is traced, sizes are left open
            # A pixel of the image takes one of four taps of the transposed convolution, and all nine of the others.
            products = blocks[1].conv_transpose_2.weight.numel() // 4
            products += sum(layer.convolution.weight.numel() for layer in layers)
            if num_pixels * products < SMALLEST_STEP:
                return None
        return partial(_run_unfolded, blocks, plain_heads, layers)

    def _find_kernels(self, block: PrithviUpsampleBlock, layer: PrithviConvLayer) -> _Kernels:
        """Give the kernels that were kept, or new ones where a weight is not what it was, to the last bit."""
        if self._frozen is not None:
            return self._frozen
        transposed, norm = block.conv_transpose_2, layer.normalization
        in_strips, dtype = _takes_strips(transposed.weight), _compute_dtype(transposed.weight)
        # In a CUDA graph that is being recorded nothing can be compared.
        is_capturing = transposed.weight.is_cuda and torch.cuda.is_current_stream_capturing()
        if torch.compiler.is_compiling() or is_capturing:
            return _fold(in_strips, dtype, block, layer)
        statistics = [norm.weight, norm.bias, norm.running_mean, norm.running_var]
        sources = cast(list[torch.Tensor], [transposed.weight, transposed.bias, layer.convolution.weight, *statistics])
        kept = self._kernels
        # Compared with copies: versions and addresses of weights do not tell of an edit through `.data`.
        if (
            kept is None
            or (kept.in_strips, kept.dtype, kept.eps) != (in_strips, dtype, norm.eps)
            or not all(_same_bits(mine, theirs) for mine, theirs in zip(kept.sources, sources, strict=True))
        ):
            kept = self._kernels = None  # before new ones are made: there is no need to hold both
            copies = [source.detach().clone() for source in sources]
            kept = _fold(in_strips, dtype, block, layer)
            kept.sources.extend(copies)
            # Another thread may have edited a weight between the copy and the end of the fusion.
            if all(_same_bits(copy, source) for copy, source in zip(copies, sources, strict=True)):
                self._kernels = kept
        return kept
