# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The configuration of an original checkpoint, as far as the shapes of its tensors show it."""

import re
from collections.abc import Mapping
from typing import Any

import torch

from prithvi_hf.conversion.tensor_names import is_segmentation_layout
from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.models.prithvi.modeling_prithvi import sincos_position_table


POSITION_TOLERANCE = 1e-3
"""Largest difference at which a stored position table counts as the fixed one; both generations differ by 1e-6."""


def infer_values(state_dict: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Every `PrithviConfig` field that the shapes of an original state dict show.

    Args:
        state_dict (`Mapping[str, torch.Tensor]`): Tensors under their original names.

    Raises:
        ValueError: The tensors that show it are missing or have another number of dimensions.
    """
    if not is_segmentation_layout(state_dict):
        return _infer_encoder(state_dict, "")
    neck = _infer_neck(state_dict)
    hidden_size = _infer_encoder_width(state_dict, "backbone.").shape[0]
    frames = max(1, neck.pop("token_channels") // hidden_size)
    return {**_infer_encoder(state_dict, "backbone.", frames), **neck, **_infer_heads(state_dict)}


def infer_config(state_dict: Mapping[str, torch.Tensor], **overrides: Any) -> PrithviConfig:
    """Read a configuration from the shapes of an original state dict.

    The number of attention heads shows in no shape: heads of 64 channels are assumed, as in every published model of
    the first generation but the multi-temporal crop one (8 heads).

    Args:
        state_dict (`Mapping[str, torch.Tensor]`): Tensors under their original names.
        overrides: `PrithviConfig` fields that replace what was read or assumed.

    Raises:
        ValueError: Neck or head tensors are missing, or the values do not describe a model.
    """
    values = infer_values(state_dict)
    values["num_attention_heads"] = max(1, values["hidden_size"] // 64)
    if "id2label" in overrides:
        values.pop("num_labels", None)
    return PrithviConfig(**{**values, **overrides})


def stored_positions(state_dict: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """The encoder's position table, where the checkpoint holds one."""
    return state_dict.get("backbone.pos_embed" if is_segmentation_layout(state_dict) else "pos_embed")


def infer_grid(positions: torch.Tensor | None, frames: int | None = None) -> tuple[tuple[int, int, int], float]:
    """Token grid of a stored position table, and how far the table is from the computed one.

    Only the values tell three frames of 4 x 4 from twelve of 2 x 2: the best fitting grid is taken. Without a table
    it is the published one, 14 x 14, with three frames unless `frames` says otherwise.

    Args:
        positions (`torch.Tensor` of shape `(1, 1 + frames * rows * columns, hidden_size)`, *optional*): The table.
        frames (`int`, *optional*): Frames of tokens, where another tensor shows them.

    Returns:
        Frames, rows and columns of tokens, and the largest difference from the fixed table of that grid.

    Raises:
        ValueError: No square grid has so many tokens.
    """
    if positions is None:
        return (frames or 3, 14, 14), 0.0
    candidates = [] if positions.ndim != 3 else _grid_candidates(positions.shape[1] - 1)
    candidates = [grid for grid in candidates if frames in (None, grid[0])]
    if not candidates:
        of_frames = "" if frames is None else f" of {frames} frame(s), as the neck takes them"
        raise ValueError(f"Expected pos_embed of a square token grid{of_frames}, found {tuple(positions.shape)}.")
    differences = [
        (sincos_position_table(positions.shape[2], grid) - positions.float()).abs().max().item() for grid in candidates
    ]
    best = min(range(len(candidates)), key=lambda index: (differences[index] > POSITION_TOLERANCE, index))
    return candidates[best], differences[best]


def _grid_candidates(num_tokens: int) -> list[tuple[int, int, int]]:
    """Square token grids of a length, the published 224-pixel grid and three frames first."""
    grids = [
        (frames, round((num_tokens / frames) ** 0.5))
        for frames in (3, 1, 4, 2, *range(5, 65))
        if num_tokens % frames == 0 and round((num_tokens / frames) ** 0.5) ** 2 * frames == num_tokens
    ]
    return [(frames, side, side) for frames, side in sorted(grids, key=lambda grid: grid[1] != 14)]


def _layer_count(state_dict: Mapping[str, torch.Tensor], prefix: str) -> int:
    """One more than the highest number that follows the prefix."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return max((int(match[1]) + 1 for name in state_dict if (match := pattern.match(name))), default=0)


def _tensor(state_dict: Mapping[str, torch.Tensor], name: str, dimensions: int) -> torch.Tensor:
    """A tensor that the configuration is read from."""
    tensor = state_dict.get(name)
    if tensor is None or tensor.ndim != dimensions:
        raise ValueError(
            f"Expected a tensor {name} with {dimensions} dimensions, found "
            f"{None if tensor is None else tuple(tensor.shape)}. This is not a Prithvi checkpoint of a known layout."
        )
    return tensor


def _infer_encoder_width(state_dict: Mapping[str, torch.Tensor], prefix: str) -> torch.Tensor:
    """The patch embedding's weight (hidden_size, num_channels, frames, rows, columns)."""
    return _tensor(state_dict, f"{prefix}patch_embed.proj.weight", 5)


def _infer_encoder(
    state_dict: Mapping[str, torch.Tensor], prefix: str, token_frames: int | None = None
) -> dict[str, Any]:
    """Configuration values that the encoder's shapes show."""
    hidden_size, num_channels, *patch_size = _infer_encoder_width(state_dict, prefix).shape
    (frames, rows, columns), _ = infer_grid(state_dict.get(f"{prefix}pos_embed"), token_frames)
    fc1 = state_dict.get(f"{prefix}blocks.0.mlp.fc1.weight")
    image_size = [rows * patch_size[1], columns * patch_size[2]]
    return {
        "hidden_size": hidden_size,
        "num_channels": num_channels,
        "patch_size": patch_size,
        "num_frames": frames * patch_size[0],
        "image_size": image_size[0] if image_size[0] == image_size[1] else image_size,
        "num_hidden_layers": _layer_count(state_dict, f"{prefix}blocks."),
        "mlp_ratio": 4.0 if fc1 is None else fc1.shape[0] / hidden_size,
        "qkv_bias": f"{prefix}blocks.0.attn.qkv.bias" in state_dict,
    }


def _infer_neck(state_dict: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Configuration values that the neck's shapes show, and the channels of its input, `token_channels`."""
    if "neck.layers.0.0.weight" not in state_dict:
        token_channels, neck_hidden_size, *_ = _tensor(state_dict, "neck.fpn1.0.weight", 4).shape
        return {"neck": "conv_transpose", "neck_hidden_size": neck_hidden_size, "token_channels": token_channels}
    levels = range(_layer_count(state_dict, "neck.layers."))
    widths = [_tensor(state_dict, f"neck.layers.{level}.0.weight", 4).shape[1] for level in levels]
    return {
        "neck": "geospatial",
        "first_conv_channels": widths[0],
        "channel_reduction_factor": _reduction_factor(widths),
        "num_convs_per_upscale": _layer_count(state_dict, "neck.layers.0.") - 1,
        "token_channels": state_dict["neck.layers.0.0.weight"].shape[0],
    }


def _reduction_factor(widths: list[int]) -> int:
    """What each width is the one before divided by, rounded down; every factor that gives these widths is the same."""
    for factor in range(1, widths[0] + 1):
        if all(widths[0] // factor**level == width for level, width in enumerate(widths)):
            return factor
    raise ValueError(f"Expected neck channels that shrink by one factor, found {widths} after the enlargements.")


def _infer_heads(state_dict: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Configuration values that the heads' shapes show."""
    num_labels, head_hidden_size, *_ = _tensor(state_dict, "decode_head.conv_seg.weight", 4).shape
    auxiliary_convs = _layer_count(state_dict, "auxiliary_head.convs.")
    values = {
        "num_labels": num_labels,
        "head_hidden_size": head_hidden_size,
        "head_num_convs": _layer_count(state_dict, "decode_head.convs."),
        "use_auxiliary_head": auxiliary_convs > 0,
    }
    return {**values, "auxiliary_head_num_convs": auxiliary_convs} if auxiliary_convs else values


__all__ = ["POSITION_TOLERANCE", "infer_config", "infer_grid", "infer_values", "stored_positions"]
