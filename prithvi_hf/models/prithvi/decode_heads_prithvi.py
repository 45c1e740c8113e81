# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Necks and decode heads, which turn the encoder's tokens into class scores, and their registries `NECKS`, `HEADS`.

The configuration reads the names of both registries, so this module knows it as a type only.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, cast

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
    """A 3x3 convolution, batch normalisation and ReLU. The heads' convolutions have no bias, the neck's have one."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = False) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=bias)
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


NECKS: dict[str, type[PrithviTokenUpsampler]] = {"conv_transpose": PrithviNeck, "geospatial": PrithviGeospatialNeck}
"""Class of each value of `PrithviConfig.neck`."""


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


HEADS: dict[str, type[nn.Module]] = {"fcn": PrithviFCNHead}
"""Class of each value of `PrithviConfig.decode_head`.

Another head is a class and a line here: it is made from a `PrithviConfig` and maps `(B, neck_output_size, H, W)` to
logits `(B, num_labels, H, W)`.
"""
