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
    (r"neck\.layers\.(\d+)\.0\.(weight|bias)", r"neck.upsample_blocks.\1.conv_transpose.\2"),
    (r"(decode|auxiliary)_head\.convs\.(\d+)\.conv\.weight", r"\1_head.layers.\2.convolution.weight"),
    (r"(decode|auxiliary)_head\.convs\.(\d+)\.bn\.(\w+)", r"\1_head.layers.\2.normalization.\3"),
    (r"(decode|auxiliary)_head\.conv_seg\.(weight|bias)", r"\1_head.classifier.\2"),
]
_GEOSPATIAL_CONV = re.compile(r"neck\.layers\.(\d+)\.([1-9]\d*)\.([01])\.(\w+)")
_QKV = re.compile(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)")
_DROPPED = [
    (r"pos_embed", "fixed sine-cosine positions are computed, not stored"),
    (r"decoder_pos_embed", "belongs to the pretraining decoder"),
    (r"mask_token|decoder_(embed|blocks|norm|pred)(\..*)?", "belongs to the pretraining decoder"),
]


def is_segmentation_layout(state_dict: Mapping[str, torch.Tensor]) -> bool:
    """Whether the names are those of an mmsegmentation segmentor."""
    return any(name.startswith("backbone.") for name in state_dict)


def convert_names(
    state_dict: Mapping[str, torch.Tensor], use_auxiliary_head: bool = True
) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, str]]:
    """Give by original name its tensors under their new names, or the reason it is dropped; unknown is an error."""
    converted: dict[str, dict[str, torch.Tensor]] = {}
    dropped: dict[str, str] = {}
    unknown = []
    segmentation = is_segmentation_layout(state_dict)
    for name, tensor in state_dict.items():
        short = name.removeprefix("backbone.") if segmentation else name
        is_encoder = not segmentation or name != short
        prefix = "prithvi." if name != short else ""
        reason = next((why for pattern, why in _DROPPED if re.fullmatch(pattern, short)), None)
        if segmentation and not use_auxiliary_head and name.startswith("auxiliary_head."):
            reason = "use_auxiliary_head is false; only training uses this head"
        if reason is not None:
            dropped[name] = reason
        elif is_encoder and (match := _QKV.fullmatch(short)):  # the fused projection becomes three
            if tensor.ndim == 0 or tensor.shape[0] % 3:
                raise ValueError(f"Expected {short} to hold three projections, found shape {tuple(tensor.shape)}.")
            target = f"{prefix}layers.{match[1]}.attention.{{}}_proj.{match[2]}"
            parts = zip("qkv", tensor.chunk(3), strict=True)
            converted[name] = {target.format(part): chunk.clone() for part, chunk in parts}
        elif not is_encoder and (match := _GEOSPATIAL_CONV.fullmatch(name)):  # they follow a transposed one, from 1 on
            layer, part = int(match[2]) - 1, "normalization" if match[3] == "1" else "convolution"
            converted[name] = {f"neck.upsample_blocks.{match[1]}.layers.{layer}.{part}.{match[4]}": tensor}
        else:
            names = _ENCODER_NAMES if is_encoder else _HEAD_NAMES
            found = ((re.fullmatch(pattern, short), replacement) for pattern, replacement in names)
            renamed = next((match.expand(replacement) for match, replacement in found if match), None)
            if renamed is None:
                unknown.append(name)
            else:
                converted[name] = {prefix + renamed: tensor}
    if unknown or not converted:
        raise ValueError(
            "Expected the flat layout of Prithvi_100M.pt or an mmsegmentation checkpoint of hls-foundation-os, found "
            f"{len(unknown)} unknown name(s) of {len(state_dict)}: {unknown[:5]}. Pass the original file."
        )
    return converted, dropped
