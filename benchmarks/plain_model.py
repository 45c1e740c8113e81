# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The original architecture as an independent plain PyTorch module, which the benchmark compares with.

It follows hls-foundation-os layer by layer: blocks of timm 0.4.12 (fused query-key-value projection, attention written
out as two products and a softmax, as that version has it), the neck's four transposed convolutions with normalisation
over channels and GELU between each pair, mmsegmentation's FCN heads (3x3 convolution, batch normalisation, ReLU in
place, channel dropout, 1x1 classifier), each layer called after the other in the default layout. Only torch is used.
`load_ours` copies the weights of a `PrithviForSemanticSegmentation` into it, so that outputs can be compared.
"""

from collections.abc import Mapping

import torch
from torch import nn


class PlainAttention(nn.Module):
    """Self-attention with a fused projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Attend over `(B, L, width)`."""
        batch_size, length, width = tokens.shape
        qkv = self.qkv(tokens).reshape(batch_size, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind()
        weights = (query @ key.transpose(-2, -1) * self.scale).softmax(dim=-1)
        return self.proj((weights @ value).transpose(1, 2).reshape(batch_size, length, width))


class PlainBlock(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = PlainAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map `(B, L, width)` to the same shape."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class PlainNorm2d(nn.Module):
    """Layer normalisation over the channels of a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map `(B, C, H, W)` to the same shape."""
        return self.ln(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()


def _upsampling(inputs: int, outputs: int) -> nn.Sequential:
    """Two transposed convolutions with normalisation and GELU between."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 2, 2),
        PlainNorm2d(outputs),
        nn.GELU(),
        nn.ConvTranspose2d(outputs, outputs, 2, 2),
    )


class PlainHead(nn.Module):
    """A fully convolutional head."""

    def __init__(self, inputs: int, width: int, classes: int, convs: int, dropout: float) -> None:
        super().__init__()
        layers = []
        for index in range(convs):
            conv = nn.Conv2d(width if index else inputs, width, 3, padding=1, bias=False)
            layers.append(nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)))
        self.convs = nn.Sequential(*layers)
        self.dropout, self.conv_seg = nn.Dropout2d(dropout), nn.Conv2d(width, classes, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map `(B, C, H, W)` to logits `(B, classes, H, W)`."""
        return self.conv_seg(self.dropout(self.convs(features)))


class PlainSegmenter(nn.Module):
    """Encoder, neck and two heads.

    Args:
        frames (`int`): Frames of an input; the neck is `width * frames` channels wide, as in the published recipes.
        depth (`int`): Transformer blocks.
        heads (`int`): Attention heads.
        classes (`int`): Classes.
        position_table (`torch.Tensor` of shape `(1, 1 + tokens, width)`): The fixed positions.
        dropout (`float`, defaults to 0.1): Channel dropout before the classifiers.
    """

    def __init__(
        self, frames: int, depth: int, heads: int, classes: int, position_table: torch.Tensor, dropout: float = 0.1
    ) -> None:
        super().__init__()
        width = position_table.shape[-1]
        self.proj = nn.Conv3d(6, width, (1, 16, 16), (1, 16, 16))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("positions", position_table, persistent=False)
        self.blocks = nn.ModuleList(PlainBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        channels = width * frames
        self.fpn1, self.fpn2 = _upsampling(channels, channels), _upsampling(channels, channels)
        self.decode_head = PlainHead(channels, 256, classes, 1, dropout)
        self.auxiliary_head = PlainHead(channels, 256, classes, 2, dropout)

    def neck(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Normalised pixels `(B, 6, T, H, W)` to the large map `(B, channels, H, W)`."""
        rows, columns = (side // 16 for side in pixel_values.shape[-2:])
        patches = self.proj(pixel_values.to(self.proj.weight.dtype)).to(self.cls_token.dtype)
        tokens = patches.flatten(2).transpose(1, 2) + self.positions[:, 1:]
        cls_token = (self.cls_token + self.positions[:, :1]).expand(len(tokens), -1, -1)
        tokens = torch.cat([cls_token, tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        features = self.norm(tokens)[:, 1:].permute(0, 2, 1).reshape(len(tokens), -1, rows, columns)
        return self.fpn2(self.fpn1(features))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Logits `(B, classes, H, W)` of the decode head."""
        return self.decode_head(self.neck(pixel_values))

    def loss(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross entropy of both heads."""
        features = self.neck(pixel_values)
        heads = (self.decode_head, self.auxiliary_head)
        return sum(nn.functional.cross_entropy(head(features), labels) for head in heads)


_NAMES = {
    "prithvi.embeddings.patch_embeddings": "proj",
    "prithvi.embeddings.cls_token": "cls_token",
    "prithvi.layernorm.": "norm.",
    "prithvi.layers": "blocks",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.o_proj": "attn.proj",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
    "neck.upsample_blocks.0": "fpn1",
    "neck.upsample_blocks.1": "fpn2",
    "conv_transpose_1": "0",
    "conv_transpose_2": "3",
    "fpn1.norm": "fpn1.1.ln",
    "fpn2.norm": "fpn2.1.ln",
    "head.layers": "head.convs",
    "convolution": "0",
    "normalization": "1",
    "classifier": "conv_seg",
}


def convert_names(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the weights of one of our models to those of plain modules; the three projections become one.

    Args:
        state_dict (`Mapping[str, torch.Tensor]`): That of our model.
    """
    weights, parts = {}, {}
    for name, tensor in state_dict.items():
        for ours, theirs in _NAMES.items():
            name = name.replace(ours, theirs)
        block, _, rest = name.partition(".attention.")
        if rest:
            parts.setdefault((block, rest.rsplit(".", 1)[1]), {})[rest[0]] = tensor
        else:
            weights[name] = tensor
    for (block, kind), tensors in parts.items():
        weights[f"{block}.attn.qkv.{kind}"] = torch.cat([tensors[part] for part in "qkv"])
    return weights


def load_ours(model: PlainSegmenter, state_dict: Mapping[str, torch.Tensor]) -> None:
    """Copy the weights of a `PrithviForSemanticSegmentation` of the same sizes.

    Args:
        model (`PlainSegmenter`): Written to.
        state_dict (`Mapping[str, torch.Tensor]`): That of our model; every name and shape must fit.
    """
    model.load_state_dict(convert_names(state_dict), strict=True)
