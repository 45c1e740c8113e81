# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Fields of `PrithviConfig` by the names of the original code."""

from collections.abc import Mapping
from typing import Any


ORIGINAL_FIELDS = {
    "img_size": "image_size",
    "num_frames": "num_frames",
    "patch_size": "patch_size",
    "in_chans": "num_channels",
    "embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "mlp_ratio": "mlp_ratio",
    "coords_encoding": "coords_encoding",
    "coords_scale_learn": "coords_scale_learn",
    "decoder_embed_dim": "decoder_hidden_size",
    "decoder_depth": "decoder_num_hidden_layers",
    "decoder_num_heads": "decoder_num_attention_heads",
    "mask_ratio": "mask_ratio",
    "norm_pix_loss": "norm_pix_loss",
    "bands": "bands",
}
"""Argument of the original code to the field of `PrithviConfig`."""

_L30_BANDS = {
    **{"B02": "BLUE", "B03": "GREEN", "B04": "RED"},
    **{"B05": "NIR_NARROW", "B06": "SWIR_1", "B07": "SWIR_2"},
}


def read_original_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Read the fields that arguments of the original code give.

    Its files name the bands by the codes of HLS L30, on whose sensor B05 is the narrow near infrared, or by name.
    """
    fields = {field: values[name] for name, field in ORIGINAL_FIELDS.items() if values.get(name) is not None}
    if isinstance(fields.get("patch_size"), int):
        fields["patch_size"] = [values.get("tubelet_size") or 1, fields["patch_size"], fields["patch_size"]]
    if isinstance(side := fields.get("image_size"), list | tuple) and len(set(side)) == 1:
        fields["image_size"] = side[0]
    if bands := fields.get("bands"):
        names = [str(getattr(band, "value", band)).split(".")[-1] for band in bands]  # enumerations of terratorch
        is_l30 = set(names) <= _L30_BANDS.keys()
        fields |= {"bands": [_L30_BANDS[name] for name in names] if is_l30 else names, "num_channels": len(names)}
    return fields
