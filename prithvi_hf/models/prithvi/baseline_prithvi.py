# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The baseline: a plain U-Net in place of encoder, neck and heads, chosen by `PrithviConfig.architecture`."""

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from .decode_heads_prithvi import PrithviConvLayer, PrithviUNetBlock


if TYPE_CHECKING:
    from .configuration_prithvi import PrithviConfig


BASELINE_CHANNELS = (16, 32, 64, 128, 256)
"""Channels of the baseline's levels, the image's own size first: about 2 million parameters."""


class PrithviFrameConvolution(nn.Conv3d):
    """A 3x3 convolution of an image whose frames are stacked as channels; its kernels keep bands and frames apart.

    It is computed in two dimensions, where torch's half precision on a CPU is right (see `PrithviPatchEmbeddings`).
    """

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Map `(B, C, T, H, W)` to `(B, out_channels, H, W)`."""
        images = pixel_values.to(self.weight.dtype).flatten(1, 2)  # (B, C T, H, W)
        return nn.functional.conv2d(images, self.weight.flatten(1, 2), padding=1)


class PrithviBaselineUNet(nn.Module):
    """U-Net after Ronneberger et al. (2015, https://arxiv.org/abs/1505.04597), narrow and with batch normalisation.

    Two 3x3 convolutions per level, four times max pooling, then nearest upsampling, the level's own map beside it, and
    two convolutions again. Maps are padded, so that they keep their size.
    """

    def __init__(self, config: "PrithviConfig") -> None:
        super().__init__()
        self.config = config
        first = BASELINE_CHANNELS[0]
        kernel_size = (config.num_frames, 3, 3)
        self.patch_embeddings = PrithviFrameConvolution(config.num_channels, first, kernel_size, bias=False)
        self.normalization = nn.BatchNorm2d(first)
        self.activation = nn.ReLU()
        self.layer = PrithviConvLayer(first, first)
        self.down_blocks = nn.ModuleList(
            PrithviUNetBlock(width, 0, wider) for width, wider in pairwise(BASELINE_CHANNELS)
        )
        self.pooling = nn.MaxPool2d(kernel_size=2, stride=2)
        self.up_blocks = nn.ModuleList(
            PrithviUNetBlock(width, narrower, narrower) for width, narrower in pairwise(reversed(BASELINE_CHANNELS))
        )

    def forward(
        self,
        images: torch.Tensor,
        output_hidden_states: bool = False,
        output_attentions: bool | None = None,
        **kwargs: object,
    ) -> BaseModelOutput:
        """Map images `(B, C, T, H, W)`, sides multiples of 16, to features `(B, 16, H, W)` as `last_hidden_state`.

        `hidden_states`, where they are wanted, are the maps of the five levels on the way down, the largest first.
        There is no attention: to ask for it is a ValueError. What else only the encoder knows is left aside.
        """
        if output_attentions or self.config.output_attentions:
            raise ValueError("Expected no output_attentions with architecture unet, which has none. Leave it out.")
        features = self.layer(self.activation(self.normalization(self.patch_embeddings(images))))  # (B, 16, H, W)
        levels = [features]
        for block in self.down_blocks:
            features = block(self.pooling(features), None)  # half the size, twice the channels
            levels.append(features)
        for block, level in zip(self.up_blocks, levels[-2::-1], strict=True):
            features = block(features, level)
        states = tuple(levels) if output_hidden_states else None
        return BaseModelOutput(last_hidden_state=features, hidden_states=states)
