# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The configuration of an original checkpoint, as far as the shapes of its tensors show it."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from prithvi_hf.conversion.tensor_names import (
    has_pretraining_decoder,
    is_segmentation_layout,
    is_terratorch_layout,
    shorten_names,
)
from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.models.prithvi.embeddings_prithvi import sincos_position_table
from prithvi_hf.models.prithvi.original_fields_prithvi import read_original_fields


_COORDINATES = {"time": "temporal", "location": "location"}
POSITION_TOLERANCE = 1e-3
"""Largest difference at which a stored position table counts as the fixed one; both generations differ by 1e-6."""


def infer_config(state_dict: Mapping[str, torch.Tensor], **overrides: Any) -> PrithviConfig:
    """Read a configuration from the shapes of an original state dict; overrides replace what was read or assumed.

    The number of attention heads shows in no shape: heads of 64 channels are assumed, as in every published model but
    the multi-temporal crop one of the first generation (8 heads) and those of 600 million parameters (16 heads).
    """
    values = infer_values(state_dict)
    if values.get("decode_head") == "upernet" and values["neck"] == "token_map":
        # The weights show how many layers it takes, not which.
        count = 1 + _count_layers(shorten_names(state_dict), "decoder.lateral_convs.")
        depth = values["num_hidden_layers"]
        values["out_indices"] = [max(1, depth * number // count) - 1 for number in range(1, count + 1)]
    values["num_attention_heads"] = 16 if values["hidden_size"] == 1280 else max(1, values["hidden_size"] // 64)
    if "id2label" in overrides:
        values.pop("num_labels", None)
    return PrithviConfig(**{**values, **overrides})


def infer_values(state_dict: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Read every `PrithviConfig` field that the shapes of an original state dict show."""
    state_dict = {short: state_dict[name] for short, name in shorten_names(state_dict).items()}
    segmentation = is_segmentation_layout(state_dict)
    # (hidden_size, num_channels, frames, rows, columns)
    hidden_size, num_channels, *patch_size = _find_tensor(state_dict, "patch_embed.proj.weight", 5).shape
    head_values: dict[str, Any] = {}
    token_frames = None
    if is_terratorch_layout(state_dict):
        head_values = _infer_terratorch_head(state_dict)
        token_frames = max(1, head_values.pop("token_channels") // hidden_size)
    elif segmentation:
        head_values = _infer_neck(state_dict)
        token_frames = max(1, head_values.pop("token_channels") // hidden_size)
        num_labels, head_hidden_size, *_ = _find_tensor(state_dict, "decode_head.conv_seg.weight", 4).shape
        head_values |= {"num_labels": num_labels, "head_hidden_size": head_hidden_size}
        head_values["head_num_convs"] = _count_layers(state_dict, "decode_head.convs.")
        auxiliary_convs = _count_layers(state_dict, "auxiliary_head.convs.")
        head_values["use_auxiliary_head"] = auxiliary_convs > 0
        if auxiliary_convs:
            head_values["auxiliary_head_num_convs"] = auxiliary_convs
    (frames, rows, columns), _ = infer_grid(find_positions(state_dict), token_frames)
    fc1 = state_dict.get("blocks.0.mlp.fc1.weight")
    image_size = [rows * patch_size[1], columns * patch_size[2]]
    scales = {name: state_dict.get(f"{kind}_embed_enc.scale") for name, kind in _COORDINATES.items()}
    found = {name: scale for name, scale in scales.items() if scale is not None}
    if found:
        head_values["coords_encoding"] = list(found)
        head_values["coords_scale_learn"] = any(scale.is_meta or bool((scale != 1).any()) for scale in found.values())
    if has_pretraining_decoder(state_dict):
        decoder = {short.removeprefix("decoder."): value for short, value in state_dict.items()}
        if "decoder_embed.weight" in decoder:
            head_values["decoder_hidden_size"] = decoder["decoder_embed.weight"].shape[0]
            head_values["decoder_num_hidden_layers"] = max(1, _count_layers(decoder, "decoder_blocks."))
    return {
        "hidden_size": hidden_size,
        "num_channels": num_channels,
        "patch_size": patch_size,
        "num_frames": frames * patch_size[0],
        "image_size": image_size[0] if image_size[0] == image_size[1] else image_size,
        "num_hidden_layers": _count_layers(state_dict, "blocks."),
        "mlp_ratio": 4.0 if fc1 is None else fc1.shape[0] / hidden_size,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state_dict,
        **head_values,
    }


def find_positions(state_dict: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """Find the encoder's position table, where the checkpoint holds one."""
    name = shorten_names(state_dict).get("pos_embed")
    return None if name is None else state_dict[name]


def infer_grid(positions: torch.Tensor | None, frames: int | None = None) -> tuple[tuple[int, int, int], float]:
    """Find the token grid of a position table `(1, 1 + frames * rows * columns, hidden_size)`, and how well it fits.

    Only the values tell three frames of 4 x 4 from twelve of 2 x 2, or 2 x 8 from 4 x 4: the best fitting grid is
    taken. Without a table it is the published one, 14 x 14, with three frames unless `frames`, which other tensors
    show, says otherwise.
    Shapes without values, of the meta device, are taken for the published grid too, where they can be it.
    """
    if positions is None:
        return (frames or 3, 14, 14), 0.0
    is_table = positions.ndim == 3 and len(positions) == 1 and positions.shape[2] >= 16
    num_tokens = positions.shape[1] - 1 if is_table else 0
    sides = {count: round((max(num_tokens, 0) / count) ** 0.5) for count in (3, 1, 4, 2, *range(5, 65))}
    grids = [
        (count, side, side)
        for count, side in sides.items()
        if side and count * side**2 == num_tokens and frames in (None, count)
    ]
    grids.sort(key=lambda grid: grid[1] not in (14, 16))  # the published 224 pixels and three frames first
    if num_tokens > 0 and not positions.is_meta:
        # The first channels of columns and rows are the sine of their number: a size ends where that begins again.
        sizes, tokens = [], positions[0, 1:].float()
        for channel in (0, tokens.shape[1] // 16 * 6):
            anew = (tokens[:, channel] - torch.arange(len(tokens)).sin()).abs() > POSITION_TOLERANCE
            sizes.append(max(1, int(anew.int().argmax())) if anew.any() else len(tokens))
            tokens = tokens[:: sizes[-1]]
        shown = (len(tokens), sizes[1], sizes[0])
        if math.prod(shown) == num_tokens and frames in (None, shown[0]):
            table = sincos_position_table(positions.shape[2], shown)
            grids = [shown] if (table - positions.float()).abs().max() <= POSITION_TOLERANCE else grids
    if not grids:
        of_frames = "" if frames is None else f" of {frames} frame(s), as the neck takes them"
        raise ValueError(f"Expected pos_embed of a token grid{of_frames}, found {tuple(positions.shape)}.")
    if positions.is_meta:
        return grids[0], 0.0
    return grids[0], (sincos_position_table(positions.shape[2], grids[0]) - positions.float()).abs().max().item()


def _count_layers(names: Iterable[str], prefix: str) -> int:
    """Count layers: one more than the highest number that follows the prefix."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return max((int(match[1]) + 1 for name in names if (match := pattern.match(name))), default=0)


def _find_tensor(state_dict: Mapping[str, torch.Tensor], name: str, dimensions: int) -> torch.Tensor:
    """Find a tensor that the configuration is read from."""
    tensor = state_dict.get(name)
    if tensor is None or tensor.ndim != dimensions:
        raise ValueError(
            f"Expected a tensor {name} with {dimensions} dimensions, found "
            f"{None if tensor is None else tuple(tensor.shape)}. This is not a Prithvi checkpoint of a known layout."
        )
    return tensor


def _infer_terratorch_head(state_dict: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Read the fields that a model of terratorch's factory shows, and the channels of the tokens, `token_channels`."""
    # That of a regression has nothing before its dropout.
    classifier = "head.head.1.weight" if "head.head.1.weight" in state_dict else "head.head.2.weight"
    if classifier in state_dict and state_dict[classifier].ndim == 2:
        raise ValueError(
            "Expected a model of maps, found the head of a classification of images. It takes the mean of all tokens, "
            "the class token among them, which PrithviForImageClassification does not; convert the encoder alone, "
            "saved as {name: tensor} without decoder and head, and train a new head."
        )
    labels, *_ = _find_tensor(state_dict, classifier, 4).shape
    plain = re.compile(r"head\.head\.(0\.\d+\.0|[12])\.(weight|bias)")
    others = [name for name in state_dict if name.startswith("head.head.") and not plain.fullmatch(name)]
    if others or (labels > 1 and classifier == "head.head.1.weight"):
        raise UnsupportedModelError(
            "Expected a head of plain convolutions, with one output for a regression, found "
            f"{', '.join(others[:3]) or f'{labels} outputs'}. No model here computes the same; convert the encoder "
            "alone, saved as {name: tensor} without decoder and head, and train a new head."
        )
    layers = range(_count_layers(state_dict, "head.head.0."))
    values: dict[str, Any] = {
        "num_labels": labels,
        "padding": "both_sides",
        "use_auxiliary_head": False,
        "classifier_channels": [state_dict[f"head.head.0.{layer}.0.weight"].shape[0] for layer in layers],
    }
    pyramid = next((name for name in state_dict if re.fullmatch(r".*\bfpn1\.0\.weight", name)), None)
    values["neck"] = "token_map" if pyramid is None else "pyramid"
    if "decoder.decoder.blocks.0.conv1.0.weight" in state_dict:
        blocks = range(_count_layers(state_dict, "decoder.decoder.blocks."))
        channels = [state_dict[f"decoder.decoder.blocks.{block}.conv2.0.weight"].shape[0] for block in blocks]
        values |= {"decode_head": "unet", "unet_channels": channels}
    elif "decoder.fpn_bottleneck.conv.weight" in state_dict:
        width = state_dict["decoder.fpn_bottleneck.conv.weight"].shape[0]
        values |= {"decode_head": "upernet", "head_hidden_size": width}
    else:
        width = _find_tensor(state_dict, "decoder.convs.0.0.weight", 4).shape[1]
        convs = _count_layers(state_dict, "decoder.convs.")
        values |= {"decode_head": "transpose_fcn", "head_hidden_size": width, "head_num_convs": convs}
    if pyramid is None and values["decode_head"] == "unet":
        raise ValueError("Expected a learned pyramid (fpn1, fpn2) before the decoder unet, found none.")
    if pyramid is None and values["decode_head"] == "upernet":
        values["token_channels"] = _find_tensor(state_dict, "decoder.lateral_convs.0.conv.weight", 4).shape[1]
    else:
        values["token_channels"] = state_dict[pyramid or "decoder.convs.0.0.weight"].shape[0]
    return values


def _infer_neck(state_dict: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Read the configuration values that the neck's shapes show, and the channels of its input, `token_channels`."""
    if "neck.layers.0.0.weight" not in state_dict:
        token_channels, neck_hidden_size, *_ = _find_tensor(state_dict, "neck.fpn1.0.weight", 4).shape
        return {"neck": "conv_transpose", "neck_hidden_size": neck_hidden_size, "token_channels": token_channels}
    levels = range(_count_layers(state_dict, "neck.layers."))
    widths = [_find_tensor(state_dict, f"neck.layers.{level}.0.weight", 4).shape[1] for level in levels]
    # Each width is the one before divided by the factor, rounded down; every factor that gives these widths will do.
    for factor in range(1, widths[0] + 1):
        if all(widths[0] // factor**level == width for level, width in enumerate(widths)):
            break
    else:
        raise ValueError(f"Expected neck channels that shrink by one factor, found {widths} after the upsamplings.")
    return {
        "neck": "geospatial",
        "first_conv_channels": widths[0],
        "channel_reduction_factor": factor,
        "num_convs_per_upscale": _count_layers(state_dict, "neck.layers.0.") - 1,
        "token_channels": state_dict["neck.layers.0.0.weight"].shape[0],
    }


_TIME_AND_LOCATION: dict[str, Any] = {"coords_encoding": ["time", "location"], "coords_scale_learn": True}
_SIZES: dict[str, dict[str, Any]] = {
    "100": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "300": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
    "600": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "patch_size": [1, 14, 14],
    },
}
PUBLISHED_ENCODERS: dict[str, dict[str, Any]] = {
    "prithvi_eo_tiny": {
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_frames": 1,
        "decoder_hidden_size": 128,
        "decoder_num_hidden_layers": 4,
        "decoder_num_attention_heads": 4,
    },
    "prithvi_eo_v1_100": {**_SIZES["100"], "num_frames": 3},
    "prithvi_eo_v2_tiny_tl": {
        **_TIME_AND_LOCATION,
        "hidden_size": 192,
        "num_hidden_layers": 12,
        "num_attention_heads": 3,
        "num_frames": 1,
    },
    **{f"prithvi_eo_v2_{size}": {**values, "num_frames": 4} for size, values in _SIZES.items()},
    **{
        f"prithvi_eo_v2_{size}_tl": {**values, **_TIME_AND_LOCATION, "num_frames": 4}
        for size, values in _SIZES.items()
    },
}
"""`PrithviConfig` fields of each published encoder that may differ from the defaults, by its name in terratorch."""


class UnsupportedModelError(ValueError):
    """A model whose weights fit one of this package that does not compute the same."""


_NECKS = ("SelectIndices", "ReshapeTokensToImage", "LearnedInterpolateToPyramidal")
_DECODERS = {"UNetDecoder": "unet", "UperNetDecoder": "upernet", "FCNDecoder": "transpose_fcn"}
# Arguments that change what a model computes, and the one value of each that has an equal here.
_PLAIN = {
    **{"peft_config": None, "backbone_padding": "reflect", "backbone_use_temporal": None},
    **{"backbone_vpt": None, "backbone_vit_adapter": None, "decoder_align_corners": True},
    **{"decoder_attention_type": None, "head_final_act": None, "head_learned_upscale_layers": None},
}


def config_from_terratorch(model_args: Mapping[str, Any]) -> PrithviConfig:
    """Read the configuration of a model that terratorch's `EncoderDecoderFactory` makes.

    Args:
        model_args (`Mapping`): What a terratorch `config.yaml` holds under `model_args`, such as `backbone`,
            `backbone_kwargs`, `necks`, `decoder`, `decoder_kwargs`, `head_kwargs` and `num_classes`. Arguments of a
            part may also stand beside it, as in `backbone_num_frames` or `decoder_channels`. As in terratorch, there
            is one frame where nothing else is said.

    Returns:
        [`PrithviConfig`]: Of `PrithviForSemanticSegmentation`.

    Raises:
        ValueError: A backbone, neck or decoder that is not one of Prithvi's published models, or an argument that
            changes what the model computes and has no equal here.
    """
    return PrithviConfig(**read_terratorch_fields(model_args))


def read_terratorch_fields(model_args: Mapping[str, Any]) -> dict[str, Any]:
    """Read the fields that `model_args` of terratorch give, and those of the published encoder that they name."""
    name = str(model_args.get("backbone", "")).lower().removeprefix("terratorch_").removeprefix("timm_")
    if name == "prithvi_vit_100":
        name = "prithvi_eo_v1_100"
    if name not in PUBLISHED_ENCODERS:
        raise ValueError(
            f"Expected a backbone that is one of {', '.join(PUBLISHED_ENCODERS)}, found "
            f"{model_args.get('backbone')!r}."
        )
    backbone, decoder, head = (_read_part(model_args, part) for part in ("backbone", "decoder", "head"))
    # Older runs give some of them to the whole model.
    backbone |= {key: model_args[key] for key in ("bands", "num_frames") if key in model_args}
    values = {**PUBLISHED_ENCODERS[name], "num_frames": 1, **read_original_fields(backbone)}
    necks = {neck["name"]: neck for neck in model_args.get("necks") or model_args.get("post_backbone_ops") or []}
    unknown = [neck for neck in necks if neck not in _NECKS]
    decoder_name = str(model_args.get("decoder")).removeprefix("terratorch_")
    heads = {known.lower(): value for known, value in _DECODERS.items()}  # UPerNetDecoder is written so as well
    if unknown or decoder_name.lower() not in heads:
        raise ValueError(
            f"Expected necks among {', '.join(_NECKS)} and a decoder among {', '.join(_DECODERS)}, found "
            f"{', '.join(necks) or 'none'} and {model_args.get('decoder')!r}."
        )
    # Of the decoder, and since removed, before the pyramid was a neck.
    has_pyramid = "LearnedInterpolateToPyramidal" in necks or bool(decoder.get("scale_modules"))
    in_index = decoder.get("in_index", -1)
    parts = {"backbone": backbone, "decoder": decoder, "head": head}
    given = {**model_args, **{f"{part}_{key}": value for part in parts for key, value in parts[part].items()}}
    wrong = [key for key in _PLAIN.keys() & given.keys() if given[key] != _PLAIN[key] and (given[key] or _PLAIN[key])]
    wrong += ["decoder_in_index"] if has_pyramid and in_index not in (-1, 3) else []
    if wrong:
        found = ", ".join(f"{key} = {given[key]}" for key in sorted(wrong))
        raise UnsupportedModelError(
            f"Expected a model without {found}: no model here computes the same. Where the argument makes no "
            "difference, such as another padding to images of whole pairs of patches, delete it."
        )
    values |= {
        "decode_head": heads[decoder_name.lower()],
        "neck": "pyramid" if has_pyramid else "token_map",
        "num_labels": model_args.get("num_classes") or 1,  # a regression has none
        "padding": "both_sides",
        "classifier_channels": list(head.get("channel_list") or []),
        "classifier_dropout": float(head.get("dropout") or 0.0),
    }
    layers = backbone.get("out_indices") or range(values["num_hidden_layers"])
    if "SelectIndices" in necks:
        layers = [layers[index] for index in necks["SelectIndices"]["indices"]]
    takes_one = not has_pyramid and values["decode_head"] == "transpose_fcn"
    if "SelectIndices" in necks or backbone.get("out_indices") or not (has_pyramid or takes_one) or in_index != -1:
        values["out_indices"] = [layers[in_index]] if takes_one else list(layers)
    if values["decode_head"] == "unet":
        values["unet_channels"] = list(decoder["channels"])
    else:
        values["head_hidden_size"] = decoder.get("channels", 256)
    if values["decode_head"] == "transpose_fcn":
        values["head_num_convs"] = decoder.get("num_convs", 4)
    if "pool_scales" in decoder:
        values["pool_scales"] = list(decoder["pool_scales"])
    return values


def _read_part(model_args: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Collect the arguments of a part of the model: those under `{part}_kwargs` and those beside it."""
    beside = {
        key.removeprefix(f"{part}_"): value
        for key, value in model_args.items()
        if key.startswith(f"{part}_") and key != f"{part}_kwargs"
    }
    return {**beside, **(model_args.get(f"{part}_kwargs") or {})}
