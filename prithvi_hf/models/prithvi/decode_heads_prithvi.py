# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Necks and decode heads, which turn the encoder's tokens into class scores, and their registries `NECKS`, `HEADS`.

The configuration reads the names of both registries, so this module knows it as a type only.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from transformers.activations import ACT2FN


if TYPE_CHECKING:
    from .configuration_prithvi import PrithviConfig


class PrithviChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of a map `(B, C, H, W)`, with the original neck's epsilon of 1e-6."""

    def __init__(self, num_channels: int) -> None:
        super().__init__(num_channels, eps=1e-6)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Normalise each pixel over its channels; the shape stays.

        The result is laid out channels-first again, as in the original: the convolutions that follow then add in the
        original's order. A channels-last map would flip a ReLU that sits within rounding of zero, which shows in the
        gradients of the reference values.
        """
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()  # (B, H, W, C) and back


class PrithviUpsampleBlock(nn.Module):
    """Upsample a map four times: transposed convolution, normalisation, GELU, transposed convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_transpose_1 = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        self.norm = PrithviChannelNorm(out_channels)
        self.activation = ACT2FN["gelu"]
        self.conv_transpose_2 = nn.ConvTranspose2d(out_channels, out_channels, kernel_size=2, stride=2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map `(B, in_channels, H, W)` to `(B, out_channels, 4 H, 4 W)`."""
        features = self.activation(self.norm(self.conv_transpose_1(features)))  # (B, out_channels, 2 H, 2 W)
        return self.conv_transpose_2(features)


class PrithviTokenUpsampler(nn.Module):
    """Lay the tokens out as a map and upsample it 16 times by the blocks; the base of both necks.

    The frames become channels in the order channel-major, frame-minor: channel `c * T + t`. terratorch uses the
    opposite order; published checkpoints of the first generation rely on this one.
    """

    def __init__(self, upsample_blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.upsample_blocks = nn.ModuleList(upsample_blocks)

    def forward(self, tokens: torch.Tensor, grid_size: tuple[int, int]) -> torch.Tensor:
        """Map tokens `(B, 1 + frames * rows * columns, hidden_size)`, class token first, and their rows and columns.

        The result is `(B, neck_output_size, 16 * rows, 16 * columns)`.
        """
        features = tokens[:, 1:].transpose(1, 2)  # (B, E, T h w), without the class token
        features = features.reshape(tokens.shape[0], -1, *grid_size)  # (B, E T, h, w)
        for block in self.upsample_blocks:
            features = block(features)
        return features


class PrithviNeck(PrithviTokenUpsampler):
    """Two blocks of one width, each of which upsamples the map four times (`ConvTransformerTokensToEmbeddingNeck`)."""

    def __init__(self, config: "PrithviConfig") -> None:
        widths = [config.hidden_size * config.grid_size[0], config.neck_output_size, config.neck_output_size]
        super().__init__(PrithviUpsampleBlock(*channels) for channels in pairwise(widths))


class PrithviConvLayer(nn.Module):
    """A convolution, 3x3 by default, batch normalisation and ReLU. Heads have no bias in it, the neck has one."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bias: bool = False,
        kernel_size: int = 3,
        kind: type[nn.Conv2d] = nn.Conv2d,
    ) -> None:
        super().__init__()
        self.convolution = kind(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        self.normalization = nn.BatchNorm2d(out_channels)
        self.activation = nn.ReLU()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map `(B, in_channels, H, W)` to `(B, out_channels, H, W)`."""
        return self.activation(self.normalization(self.convolution(features)))


class PrithviGeospatialUpsampleBlock(nn.Module):
    """Upsample a map twice: transposed convolution, then 3x3 convolutions with batch normalisation and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, num_convs: int) -> None:
        super().__init__()
        self.conv_transpose = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        self.layers = nn.ModuleList(PrithviConvLayer(out_channels, out_channels, bias=True) for _ in range(num_convs))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map `(B, in_channels, H, W)` to `(B, out_channels, 2 H, 2 W)`."""
        features = self.conv_transpose(features)
        for layer in self.layers:
            features = layer(features)
        return features


class PrithviGeospatialNeck(PrithviTokenUpsampler):
    """Four blocks of ever fewer channels, each of which upsamples the map twice (`GeospatialNeck`).

    Names of the original's tensors, i counting blocks and j the convolutions of each, from 0: `layers.{i}.0` is
    `upsample_blocks.{i}.conv_transpose`, `layers.{i}.{1 + j}.0` is `upsample_blocks.{i}.layers.{j}.convolution`, and
    `layers.{i}.{1 + j}.1` is `upsample_blocks.{i}.layers.{j}.normalization`.
    """

    def __init__(self, config: "PrithviConfig") -> None:
        widths = [config.hidden_size * config.grid_size[0], *config.geospatial_neck_channels]
        super().__init__(
            PrithviGeospatialUpsampleBlock(*channels, config.num_convs_per_upscale) for channels in pairwise(widths)
        )


def lay_out_tokens(tokens: torch.Tensor, grid_size: tuple[int, int]) -> torch.Tensor:
    """Lay tokens `(B, 1 + frames * rows * columns, E)` out as maps `(B, frames * E, rows, columns)`, frame-major.

    This is terratorch's order of channels (`ReshapeTokensToImage`), the other way round than in the first generation.
    """
    batch_size, _, width = tokens.shape
    maps = tokens[:, 1:].reshape(batch_size, -1, *grid_size, width)  # (B, T, h, w, E)
    # One frame stays channels-last in memory, as the tokens are; several are copied channels-first. So the original
    # has it, and the convolutions that follow add in its order.
    return maps.permute(0, 1, 4, 2, 3).flatten(1, 2)


class PrithviTokenMapNeck(nn.Module):
    """The tokens of each layer as a map, at the size of the token grid."""

    def __init__(self, config: "PrithviConfig") -> None:
        super().__init__()

    def forward(self, features: Sequence[torch.Tensor], grid_size: tuple[int, int]) -> list[torch.Tensor]:
        """Map tokens of layers `(B, 1 + frames * rows * columns, E)` to maps `(B, frames * E, rows, columns)`."""
        return [lay_out_tokens(tokens, grid_size) for tokens in features]


class PrithviPyramidNeck(nn.Module):
    """The tokens of four layers as maps of four sizes: 4x, 2x, 1x and half of the token grid.

    terratorch's `LearnedInterpolateToPyramidal`.
    """

    def __init__(self, config: "PrithviConfig") -> None:
        super().__init__()
        width = config.hidden_size * config.grid_size[0]
        self.conv_transpose_1 = nn.ConvTranspose2d(width, width // 2, kernel_size=2, stride=2)
        self.normalization = nn.BatchNorm2d(width // 2)
        self.activation = nn.GELU()
        self.conv_transpose_2 = nn.ConvTranspose2d(width // 2, width // 4, kernel_size=2, stride=2)
        self.conv_transpose = nn.ConvTranspose2d(width, width // 2, kernel_size=2, stride=2)
        # The original's images are whole pairs of patches; an odd last row or column counts here.
        self.pooling = nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True)

    def forward(self, features: Sequence[torch.Tensor], grid_size: tuple[int, int]) -> list[torch.Tensor]:
        """Map the tokens of four layers to maps of T E / 4, T E / 2, T E and T E channels, the largest first."""
        first, second, third, fourth = (lay_out_tokens(tokens, grid_size) for tokens in features)
        first = self.conv_transpose_1(first)  # (B, T E / 2, 2 h, 2 w)
        return [
            self.conv_transpose_2(self.activation(self.normalization(first))),
            self.conv_transpose(second),
            third,
            self.pooling(fourth),
        ]


NECKS: dict[str, type[nn.Module]] = {
    "conv_transpose": PrithviNeck,
    "geospatial": PrithviGeospatialNeck,
    "pyramid": PrithviPyramidNeck,
    "token_map": PrithviTokenMapNeck,
}
"""Class of each value of `PrithviConfig.neck`.

The first two make one large map of the last layer's tokens, for the head `"fcn"`; the others give a list of maps of
the layers `PrithviConfig.out_indices`, for the other heads.
"""
MAP_NECKS = ("pyramid", "token_map")
"""Necks that give a list of maps."""


class PrithviFCNHead(nn.Module):
    """Fully convolutional head: 3x3 convolutions, channel dropout, 1x1 classifier (mmsegmentation's `FCNHead`)."""

    def __init__(self, config: "PrithviConfig", num_convs: int | None = None) -> None:
        super().__init__()
        num_convs = config.head_num_convs if num_convs is None else num_convs
        widths = [config.neck_output_size] + [config.head_hidden_size] * num_convs
        self.layers = nn.ModuleList(
            PrithviConvLayer(in_channels, out_channels) for in_channels, out_channels in pairwise(widths)
        )
        self.dropout = nn.Dropout2d(config.classifier_dropout)
        self.classifier = nn.Conv2d(config.head_hidden_size, cast(int, config.num_labels), kernel_size=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map `(B, neck_output_size, H, W)` to logits `(B, num_labels, H, W)`."""
        for layer in self.layers:
            features = layer(features)
        return self.classifier(self.dropout(features))


class PrithviClassifier(nn.Module):
    """3x3 convolutions if there are any (`classifier_channels`), dropout, and a 1x1 convolution to the classes."""

    def __init__(self, config: "PrithviConfig", in_channels: int) -> None:
        super().__init__()
        widths = [in_channels, *config.classifier_channels]
        self.layers = nn.ModuleList(nn.Conv2d(*channels, kernel_size=3, padding=1) for channels in pairwise(widths))
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Conv2d(widths[-1], cast(int, config.num_labels), kernel_size=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map `(B, C, H, W)` to logits `(B, num_labels, H, W)`."""
        for layer in self.layers:
            features = nn.functional.relu(layer(features))
        return self.classifier(self.dropout(features))


class PrithviUNetBlock(nn.Module):
    """Upsample a map to the next larger one, put both together, and convolve twice."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [PrithviConvLayer(in_channels + skip_channels, out_channels), PrithviConvLayer(out_channels, out_channels)]
        )

    def forward(self, features: torch.Tensor, skip: torch.Tensor | None) -> torch.Tensor:
        """Map `(B, in_channels, H, W)` and `(B, skip_channels, 2 H, 2 W)` to `(B, out_channels, 2 H, 2 W)`.

        Without a map to put beside it, the size stays.
        """
        if skip is not None:
            features = nn.functional.interpolate(features, size=skip.shape[-2:], mode="nearest")
            features = torch.cat([features, skip], dim=1)
        for layer in self.layers:
            features = layer(features)
        return features


class PrithviUNetHead(nn.Module):
    """U-Net decoder on the maps of the neck (segmentation_models_pytorch's, as terratorch's `UNetDecoder` uses it)."""

    necks = ("pyramid",)

    def __init__(self, config: "PrithviConfig") -> None:
        super().__init__()
        smallest, *skips = reversed(config.neck_channels)
        widths = [smallest, *config.unet_channels]
        self.blocks = nn.ModuleList(
            PrithviUNetBlock(in_channels, skip_channels, out_channels)
            for (in_channels, out_channels), skip_channels in zip(pairwise(widths), [*skips, 0], strict=True)
        )
        self.classifier = PrithviClassifier(config, widths[-1])

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map the maps of the neck, largest first, to logits `(B, num_labels, H, W)` of the largest one's size."""
        smallest, *skips = reversed(features)
        for block, skip in zip(self.blocks, [*skips, None], strict=True):
            smallest = block(smallest, skip)
        return self.classifier(smallest)


class PrithviPyramidConvolution(nn.Conv2d):
    """A 3x3 convolution of maps that are resized to the first one's size and put side by side."""

    def forward(self, maps: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
        """Map `(B, C, H, W)` and smaller maps of C channels, or all in one tensor, to `(B, out_channels, H, W)`.

        On a CPU the convolution comes before the resizing where a map is upsampled three times or more. Both are
        linear, and resizing is one matrix down the rows and one along the columns; with a copy of either for each of
        the three taps (shifted by a row, zero beyond the border) the sum is the same, for a fraction of the products.
        """
        if isinstance(maps, torch.Tensor):
            return super().forward(maps)
        channels, (height, width) = maps[0].shape[1], maps[0].shape[-2:]
        kernels = self.weight.split(channels, dim=1)
        is_exact = self.weight.dtype in (torch.float32, torch.float64) and self.weight.device.type == "cpu"
        is_exact = is_exact and not (torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"))
        small = [
            level for level, feature in enumerate(maps) if is_exact and height * width >= 9 * feature[0, 0].numel()
        ]
        large = [level for level in range(len(maps)) if level not in small]
        features = torch.cat([resize(maps[level], maps[0]) for level in large], dim=1)
        output = self._conv_forward(features, torch.cat([kernels[level] for level in large], dim=1), self.bias)
        for level in small:
            feature, kernel = maps[level], kernels[level].permute(0, 2, 3, 1).flatten(0, 2)  # (O 3 3, C)
            rows = _interpolate_taps(feature, -2, height)
            columns = _interpolate_taps(feature, -1, width)
            taps = (kernel @ feature.flatten(2)).unflatten(1, (-1, 3, 3)).unflatten(-1, feature.shape[-2:])
            taps = taps.transpose(3, 4).flatten(4) @ columns.T  # (B, O, 3, h, 3 w) to (B, O, 3, h, W)
            output = output + rows @ taps.flatten(2, 3)  # (B, O, H, W)
        return output


def _interpolate_taps(features: torch.Tensor, dim: int, new_size: int) -> torch.Tensor:
    """Make the matrices of `resize` along one side for the three taps of a convolution: `(new_size, 3 size)`."""
    size = features.shape[dim]
    identity = torch.eye(size, dtype=features.dtype, device=features.device)[None, None]
    matrix = nn.functional.interpolate(identity, size=(new_size, size), mode="bilinear", align_corners=True)[0, 0]
    padded = nn.functional.pad(matrix, (0, 0, 1, 1))
    return torch.cat([padded[tap : tap + new_size] for tap in range(3)], dim=1)


class PrithviUperNetHead(nn.Module):
    """UPerNet: the smallest map pooled at several scales, then a feature pyramid (terratorch's `UperNetDecoder`).

    With the neck `"token_map"` all maps have one size, as in some published recipes.
    """

    necks = ("pyramid", "token_map")

    def __init__(self, config: "PrithviConfig") -> None:
        super().__init__()
        *larger, smallest = config.neck_channels
        channels = config.head_hidden_size
        self.pool_scales = tuple(config.pool_scales)
        self.pooled_layers = nn.ModuleList(
            PrithviConvLayer(smallest, channels, kernel_size=1) for _ in self.pool_scales
        )
        self.bottleneck = PrithviConvLayer(smallest + len(self.pool_scales) * channels, channels)
        self.lateral_layers = nn.ModuleList(PrithviConvLayer(width, channels, kernel_size=1) for width in larger)
        self.pyramid_layers = nn.ModuleList(PrithviConvLayer(channels, channels) for _ in larger)
        self.pyramid_bottleneck = PrithviConvLayer(
            (len(larger) + 1) * channels, channels, kind=PrithviPyramidConvolution
        )
        self.classifier = PrithviClassifier(config, channels)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map the maps of the neck, largest first, to logits `(B, num_labels, H, W)` of the largest one's size."""
        *larger, smallest = features
        pooled = [
            resize(layer(nn.functional.adaptive_avg_pool2d(smallest, scale)), smallest)
            for scale, layer in zip(self.pool_scales, self.pooled_layers, strict=True)
        ]
        maps = [layer(feature) for layer, feature in zip(self.lateral_layers, larger, strict=True)]
        maps.append(self.bottleneck(torch.cat([smallest, *pooled], dim=1)))
        for level in range(len(larger), 0, -1):
            maps[level - 1] = maps[level - 1] + resize(maps[level], maps[level - 1])
        outputs: Any = [layer(feature) for layer, feature in zip(self.pyramid_layers, maps, strict=False)] + maps[-1:]
        if not isinstance(self.pyramid_bottleneck.convolution, PrithviPyramidConvolution):  # an adapter around it
            outputs = torch.cat([resize(output, outputs[0]) for output in outputs], dim=1)
        return self.classifier(self.pyramid_bottleneck(outputs))


def resize(features: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Interpolate a map to the size of another one, bilinearly with the corners kept, as terratorch's UPerNet does."""
    return nn.functional.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=True)


class PrithviTransposeFCNBlock(nn.Module):
    """Upsample a map twice: transposed convolution, 3x3 convolution, normalisation, GELU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_transpose = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
        self.convolution = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
        self.normalization = PrithviChannelNorm(out_channels)
        self.activation = nn.GELU()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map `(B, in_channels, H, W)` to `(B, out_channels, 2 H, 2 W)`."""
        return self.activation(self.normalization(self.convolution(self.conv_transpose(features))))


class PrithviTransposeFCNHead(nn.Module):
    """Upsampling blocks on the last map of the neck (terratorch's `FCNDecoder`); it has `head_num_convs` of them."""

    necks = ("token_map", "pyramid")

    def __init__(self, config: "PrithviConfig") -> None:
        super().__init__()
        widths = [config.neck_channels[-1]] + [config.head_hidden_size] * config.head_num_convs
        self.blocks = nn.ModuleList(PrithviTransposeFCNBlock(*channels) for channels in pairwise(widths))
        self.classifier = PrithviClassifier(config, config.head_hidden_size)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map the maps of the neck to logits `(B, num_labels, H, W)`, each block doubling the size of the last map."""
        output = features[-1]
        for block in self.blocks:
            output = block(output)
        return self.classifier(output)


HEADS: dict[str, type[nn.Module]] = {
    "fcn": PrithviFCNHead,
    "unet": PrithviUNetHead,
    "upernet": PrithviUperNetHead,
    "transpose_fcn": PrithviTransposeFCNHead,
}
"""Class of each value of `PrithviConfig.decode_head`.

Another head is a class and a line here. It is made from a `PrithviConfig` and maps what the neck gives, one map
`(B, neck_output_size, H, W)` or a list of maps of `neck_channels` channels, to logits `(B, num_labels, H, W)` of any
size.
Necks other than those of one large map are named in its attribute `necks`, the default first.
"""


def find_necks(head: type[nn.Module] | None) -> tuple[str, ...]:
    """List the necks that a head's class takes, the default first."""
    return getattr(head, "necks", ("conv_transpose", "geospatial"))
