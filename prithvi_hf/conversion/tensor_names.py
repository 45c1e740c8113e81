# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Original tensor names: what each becomes, and what is left out and why."""

import re
from collections.abc import Collection, Iterable, Mapping

import torch


_ENCODER_NAMES = [
    (r"cls_token", r"embeddings.cls_token"),
    (r"patch_embed\.proj\.(weight|bias)", r"embeddings.patch_embeddings.\1"),
    (r"blocks\.(\d+)\.norm1\.(weight|bias)", r"layers.\1.layernorm_before.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(weight|bias)", r"layers.\1.attention.o_proj.\2"),
    (r"blocks\.(\d+)\.norm2\.(weight|bias)", r"layers.\1.layernorm_after.\2"),
    (r"blocks\.(\d+)\.mlp\.(fc[12])\.(weight|bias)", r"layers.\1.mlp.\2.\3"),
    (r"norm\.(weight|bias)", r"layernorm.\1"),
    (r"temporal_embed_enc\.scale", r"embeddings.coordinates.time_scale"),
    (r"location_embed_enc\.scale", r"embeddings.coordinates.location_scale"),
]
_PRETRAINING_NAMES = [
    (r"mask_token", r"decoder.mask_token"),
    (r"decoder_embed\.(weight|bias)", r"decoder.embedding.\1"),
    (r"decoder_norm\.(weight|bias)", r"decoder.layernorm.\1"),
    (r"decoder_pred\.(weight|bias)", r"decoder.prediction.\1"),
    (r"temporal_embed_dec\.scale", r"decoder.coordinates.time_scale"),
    (r"location_embed_dec\.scale", r"decoder.coordinates.location_scale"),
]
# Of terratorch's decoders: a convolution and its normalisation, each by the names of both.
_TERRATORCH_LAYERS = [
    (r"decoder\.decoder\.blocks\.(\d+)\.conv1", r"decode_head.blocks.\1.layers.0", "0", "1"),
    (r"decoder\.decoder\.blocks\.(\d+)\.conv2", r"decode_head.blocks.\1.layers.1", "0", "1"),
    (r"decoder\.psp_modules\.(\d+)\.1", r"decode_head.pooled_layers.\1", "conv", "norm"),
    (r"decoder\.bottleneck", r"decode_head.bottleneck", "conv", "norm"),
    (r"decoder\.fpn_bottleneck", r"decode_head.pyramid_bottleneck", "conv", "norm"),
    (r"decoder\.lateral_convs\.(\d+)", r"decode_head.lateral_layers.\1", "conv", "norm"),
    (r"decoder\.fpn_convs\.(\d+)", r"decode_head.pyramid_layers.\1", "conv", "norm"),
]
# Of terratorch's `EncoderDecoderFactory`; the pyramid is a neck or, in older runs, in the decoder.
_TERRATORCH_NAMES = [
    (r"(?:neck\.\d+|decoder)\.fpn1\.0\.(weight|bias)", r"neck.conv_transpose_1.\1"),
    (r"(?:neck\.\d+|decoder)\.fpn1\.1\.(\w+)", r"neck.normalization.\1"),
    (r"(?:neck\.\d+|decoder)\.fpn1\.3\.(weight|bias)", r"neck.conv_transpose_2.\1"),
    (r"(?:neck\.\d+|decoder)\.fpn2\.0\.(weight|bias)", r"neck.conv_transpose.\1"),
    (r"decoder\.convs\.(\d+)\.0\.(weight|bias)", r"decode_head.blocks.\1.conv_transpose.\2"),
    (r"decoder\.convs\.(\d+)\.1\.(weight|bias)", r"decode_head.blocks.\1.convolution.\2"),
    (r"decoder\.convs\.(\d+)\.2\.ln\.(weight|bias)", r"decode_head.blocks.\1.normalization.\2"),
    (r"head\.head\.0\.(\d+)\.0\.(weight|bias)", r"decode_head.classifier.layers.\1.\2"),
    (r"head\.head\.[12]\.(weight|bias)", r"decode_head.classifier.classifier.\1"),
    *((rf"{old}\.{conv}\.weight", f"{new}.convolution.weight") for old, new, conv, _ in _TERRATORCH_LAYERS),
    *(
        (rf"{old}\.{norm}\.(?P<part>\w+)", rf"{new}.normalization.\g<part>")
        for old, new, _, norm in _TERRATORCH_LAYERS
    ),
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
_DECODER = re.compile(
    r"(?:decoder\.)?(mask_token|decoder_pos_embed|(?:temporal|location)_embed_dec\.scale"
    r"|decoder_(?:embed|blocks|norm|pred)\..*)"
)
_QKV = re.compile(r"(.*)blocks\.(\d+)\.attn\.qkv\.(weight|bias)")
_DROPPED = [
    (r"(decoder_)?pos_embed", "fixed sine-cosine positions are computed, not stored"),
    (r"criterion\..*", "belongs to the loss"),
    (r"aux_heads\..*", "belongs to an auxiliary head of terratorch, which only training uses"),
]
_AROUND_MODULES = re.compile(
    r"^((module|model|net|network|encoder|backbone|state_dict|_timm_module|_orig_mod|_forward_module"
    r"|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+"
)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def shorten_names(names: Iterable[str]) -> dict[str, str]:
    """Find each tensor's original name by its short one: that of the encoder or a head, without what is around them.

    The encoder is `encoder.`, `backbone.` or nothing in the module that was saved, and wrappers for data-parallel
    training, compilation, timm or Lightning go before that; several of them are stacked as in
    `model.encoder._timm_module.`. Heads keep the name of their part (`neck.`, `decode_head.`, `auxiliary_head.`).

    Raises:
        ValueError: Two names have the same short one.
    """
    found: dict[str, str] = {}
    for name in names:
        short = _AROUND_MODULES.sub("", name)
        if short in found:
            raise ValueError(
                f"Expected each tensor once, found both {found[short]} and {name}, which are {short} of two models. "
                "Save the state dict of the one to convert."
            )
        found[short] = name
    return found


def is_segmentation_layout(names: Iterable[str]) -> bool:
    """Whether the names are those of a model of mmsegmentation or terratorch, which has heads beside its encoder."""
    beginnings = ("neck.", "decode_head.", "auxiliary_head.", "head.head.")
    return any(short.startswith(beginnings) for short in shorten_names(names))


def is_terratorch_layout(names: Iterable[str]) -> bool:
    """Whether the names are those of a segmentation model that terratorch's `EncoderDecoderFactory` made."""
    return any(short.startswith("head.head.") for short in shorten_names(names))


def has_pretraining_decoder(names: Iterable[str]) -> bool:
    """Whether the names are those of a masked autoencoder with its decoder."""
    return any(_DECODER.fullmatch(short) for short in shorten_names(names)) and not is_segmentation_layout(names)


def convert_names(
    state_dict: Mapping[str, torch.Tensor],
    use_auxiliary_head: bool = True,
    with_decoder: bool = False,
    learned_scales: bool = True,
    coords_encoding: Collection[str] = ("time", "location"),
) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, str]]:
    """Give by original name its tensors under their new names, or the reason it is dropped; unknown is an error.

    `with_decoder` keeps the decoder of the masked autoencoder; `learned_scales` is `config.coords_scale_learn`, and
    `coords_encoding` the configuration's, which may leave out what the weights take.
    """
    converted: dict[str, dict[str, torch.Tensor]] = {}
    dropped: dict[str, str] = {}
    unknown, not_float = [], []
    prefix = "prithvi." if with_decoder or is_segmentation_layout(state_dict) else ""
    renamings = [(pattern, prefix + replacement) for pattern, replacement in _ENCODER_NAMES]
    renamings += _TERRATORCH_NAMES if is_terratorch_layout(state_dict) else _HEAD_NAMES
    blocks = [(pattern, name) for pattern, name in _ENCODER_NAMES if pattern.startswith("blocks")]
    decoder_renamings = [*_PRETRAINING_NAMES, *((f"decoder_{pattern}", f"decoder.{name}") for pattern, name in blocks)]
    for short, name in shorten_names(state_dict).items():
        tensor = state_dict[name]
        in_decoder = _DECODER.fullmatch(short)
        short = in_decoder[1] if in_decoder else short
        reason = next((why for pattern, why in _DROPPED if re.fullmatch(pattern, short)), None)
        if in_decoder and not with_decoder:
            reason = "belongs to the pretraining decoder"
        elif short.endswith(("_embed_enc.scale", "_embed_dec.scale")):
            kind = "time" if short.startswith("temporal") else "location"
            if kind not in coords_encoding:
                dropped[name] = f"coords_encoding leaves the {kind} out"
                continue
            reason = None if learned_scales else "a scale that is not learned is 1"
            if reason is not None and not (tensor.is_meta or bool((tensor == 1).all())):
                raise ValueError(f"Expected {name} to be 1 without coords_scale_learn, found another value. Set it.")
        if not use_auxiliary_head and short.startswith("auxiliary_head."):
            reason = "use_auxiliary_head is false; only training uses this head"
        if reason is not None:
            dropped[name] = reason
            continue
        if tensor.dtype not in _FLOATS and not short.endswith("num_batches_tracked"):  # a count of batch normalisation
            not_float.append(f"{name} ({str(tensor.dtype).removeprefix('torch.')})")
        if _QKV.fullmatch(short) and (tensor.ndim == 0 or tensor.shape[0] % 3):
            raise ValueError(f"Expected {name} to hold three projections, found shape {tuple(tensor.shape)}.")
        names = decoder_renamings if in_decoder else renamings
        if renamed := rename_tensor(short, tensor, names, "decoder." if in_decoder else prefix):
            converted[name] = renamed
        else:
            unknown.append(name)
    if unknown or not converted:
        raise ValueError(
            "Expected the layout of a Prithvi encoder, with or without decoder and prefixes such as encoder., or a "
            f"segmentation model of hls-foundation-os or terratorch, found {len(unknown)} unknown name(s) of "
            f"{len(state_dict)}: {unknown[:5]}. Pass the original file."
        )
    if not_float:
        raise ValueError(
            f"Expected weights in floating point, found {len(not_float)} tensor(s) of another type: "
            f"{', '.join(not_float[:5])}. Save them as float32 first, dequantized where they are quantized."
        )
    return converted, dropped


def rename_tensor(
    short: str, tensor: torch.Tensor, renamings: Iterable[tuple[str, str]], module: str
) -> dict[str, torch.Tensor]:
    """Give a tensor under its new name, or the parts that it becomes under theirs; nothing where it is unknown.

    `module` is what layers of a transformer are in, with a dot at the end.
    """
    if match := _QKV.fullmatch(short):  # the fused projection becomes three
        target = f"{module}layers.{match[2]}.attention.{{}}_proj.{match[3]}"
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {target.format(part): chunk.clone() for part, chunk in parts}
    if match := _GEOSPATIAL_CONV.fullmatch(short):  # they follow a transposed one, from 1 on
        layer, part = int(match[2]) - 1, "normalization" if match[3] == "1" else "convolution"
        return {f"neck.upsample_blocks.{match[1]}.layers.{layer}.{part}.{match[4]}": tensor}
    found = ((re.fullmatch(pattern, short), replacement) for pattern, replacement in renamings)
    return next(({match.expand(replacement): tensor} for match, replacement in found if match), {})
