# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Original tensor names: what each becomes, and what is left out and why."""

import re
from collections.abc import Mapping

import torch


_ENCODER_NAMES = [
    (r"cls_token", r"embeddings.cls_token"),
    (r"patch_embed\.proj\.(weight|bias)", r"embeddings.patch_embeddings.\1"),
    (r"blocks\.(\d+)\.norm1\.(weight|bias)", r"layers.\1.layernorm_before.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(weight|bias)", r"layers.\1.attention.o_proj.\2"),
    (r"blocks\.(\d+)\.norm2\.(weight|bias)", r"layers.\1.layernorm_after.\2"),
    (r"blocks\.(\d+)\.mlp\.(fc[12])\.(weight|bias)", r"layers.\1.mlp.\2.\3"),
    (r"norm\.(weight|bias)", r"layernorm.\1"),
]
_HEAD_NAMES = [
    (r"neck\.fpn1\.0\.(weight|bias)", r"neck.upsample_blocks.0.conv_transpose_1.\1"),
    (r"neck\.fpn1\.1\.ln\.(weight|bias)", r"neck.upsample_blocks.0.norm.\1"),
    (r"neck\.fpn1\.3\.(weight|bias)", r"neck.upsample_blocks.0.conv_transpose_2.\1"),
    (r"neck\.fpn2\.0\.(weight|bias)", r"neck.upsample_blocks.1.conv_transpose_1.\1"),
    (r"neck\.fpn2\.1\.ln\.(weight|bias)", r"neck.upsample_blocks.1.norm.\1"),
    (r"neck\.fpn2\.3\.(weight|bias)", r"neck.upsample_blocks.1.conv_transpose_2.\1"),
    (r"(decode|auxiliary)_head\.convs\.(\d+)\.conv\.weight", r"\1_head.layers.\2.convolution.weight"),
    (r"(decode|auxiliary)_head\.convs\.(\d+)\.bn\.(\w+)", r"\1_head.layers.\2.normalization.\3"),
    (r"(decode|auxiliary)_head\.conv_seg\.(weight|bias)", r"\1_head.classifier.\2"),
]
_GEOSPATIAL_CONV_TRANSPOSE = re.compile(r"neck\.layers\.(\d+)\.0\.(weight|bias)")
_GEOSPATIAL_CONV = re.compile(r"neck\.layers\.(\d+)\.([1-9]\d*)\.([01])\.(\w+)")
_QKV = re.compile(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)")
_DROPPED = [
    (r"pos_embed", "fixed sine-cosine positions are computed, not stored"),
    (r"decoder_pos_embed", "belongs to the pretraining decoder"),
    (r"mask_token|decoder_(embed|blocks|norm|pred)(\..*)?", "belongs to the pretraining decoder"),
]
_NO_AUXILIARY_HEAD = "use_auxiliary_head is false; only training uses this head"


def is_segmentation_layout(state_dict: Mapping[str, torch.Tensor]) -> bool:
    """Whether the names are those of an mmsegmentation segmentor."""
    return any(name.startswith("backbone.") for name in state_dict)


def convert_names(
    state_dict: Mapping[str, torch.Tensor], use_auxiliary_head: bool = True
) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, str]]:
    """Sort every original tensor into converted and dropped.

    Args:
        state_dict (`Mapping[str, torch.Tensor]`): Tensors under their original names.
        use_auxiliary_head (`bool`, defaults to `True`): Whether to convert the auxiliary head where there is one.

    Returns:
        Original name to its tensors under their new names, and original name to the reason it is dropped.

    Raises:
        ValueError: A name belongs to no known layout.
    """
    converted, dropped, unknown = {}, {}, []
    segmentation = is_segmentation_layout(state_dict)
    for name, tensor in state_dict.items():
        if reason := _drop_reason(name, segmentation, use_auxiliary_head):
            dropped[name] = reason
        elif tensors := _convert_tensor(name, tensor, segmentation):
            converted[name] = tensors
        else:
            unknown.append(name)
    if unknown or not converted:
        raise ValueError(
            "Expected the flat layout of Prithvi_100M.pt or an mmsegmentation checkpoint of hls-foundation-os, found "
            f"{len(unknown)} unknown name(s) of {len(state_dict)}: {unknown[:5]}. Pass the original file."
        )
    return converted, dropped


def _drop_reason(name: str, segmentation: bool, use_auxiliary_head: bool) -> str | None:
    """Why a tensor has no place in the model, or None."""
    if segmentation and not use_auxiliary_head and name.startswith("auxiliary_head."):
        return _NO_AUXILIARY_HEAD
    short = name.removeprefix("backbone.") if segmentation else name
    return next((why for pattern, why in _DROPPED if re.fullmatch(pattern, short)), None)


def _convert_tensor(name: str, tensor: torch.Tensor, segmentation: bool) -> dict[str, torch.Tensor]:
    """New names and tensors of one tensor; none where the name is unknown."""
    if not segmentation:
        return _convert_encoder_tensor(name, tensor)
    if name.startswith("backbone."):
        encoder = _convert_encoder_tensor(name.removeprefix("backbone."), tensor)
        return {f"prithvi.{new}": value for new, value in encoder.items()}
    head = _rename(name, _HEAD_NAMES) or _rename_geospatial(name)
    return {} if head is None else {head: tensor}


def _convert_encoder_tensor(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """New names and tensors of one encoder tensor; the fused query-key-value projection becomes three."""
    if match := _QKV.fullmatch(name):
        if tensor.ndim == 0 or tensor.shape[0] % 3:
            raise ValueError(f"Expected {name} to hold three projections, found shape {tuple(tensor.shape)}.")
        target = f"layers.{match[1]}.attention.{{}}_proj.{match[2]}"
        return {target.format(part): chunk.clone() for part, chunk in zip("qkv", tensor.chunk(3), strict=True)}
    renamed = _rename(name, _ENCODER_NAMES)
    return {} if renamed is None else {renamed: tensor}


def _rename_geospatial(name: str) -> str | None:
    """The new name of a tensor of the geospatial neck, whose convolutions follow the transposed one from 1 on."""
    if match := _GEOSPATIAL_CONV_TRANSPOSE.fullmatch(name):
        return f"neck.upsample_blocks.{match[1]}.conv_transpose.{match[2]}"
    if match := _GEOSPATIAL_CONV.fullmatch(name):
        part = "normalization" if match[3] == "1" else "convolution"
        return f"neck.upsample_blocks.{match[1]}.layers.{int(match[2]) - 1}.{part}.{match[4]}"
    return None


def _rename(name: str, names: list[tuple[str, str]]) -> str | None:
    """The first full match's replacement, or None."""
    for pattern, replacement in names:
        if match := re.fullmatch(pattern, name):
            return match.expand(replacement)
    return None


__all__ = ["convert_names", "is_segmentation_layout"]
