"""Configurations read from the shapes of original checkpoints."""

import pytest
import torch

from prithvi_hf import (
    PrithviConfig,
    PrithviForSemanticSegmentation,
)
from prithvi_hf.conversion.convert_prithvi_to_hf import convert_checkpoint, convert_state_dict
from prithvi_hf.conversion.infer_config import infer_config
from prithvi_hf.models.prithvi.embeddings_prithvi import sincos_position_table
from tests.checkpoint_factory import masked_autoencoder, mmcv_file
from tests.golden import assert_matches, read_golden


@pytest.mark.parametrize(("frames", "side"), [(1, 2), (3, 2), (12, 1), (3, 4), (4, 14), (1, 14)])
def test_the_position_table_tells_the_grid(frames, side):
    config = infer_config(masked_autoencoder(frames=frames, side=side))
    assert config.grid_size == (frames, side, side)


def test_learned_positions_are_reported(tmp_path):
    state_dict = masked_autoencoder()
    state_dict["pos_embed"] = torch.randn_like(state_dict["pos_embed"])
    torch.save(state_dict, tmp_path / "a.pt")
    report = convert_checkpoint(tmp_path / "a.pt", tmp_path / "out")
    assert "pos_embed differs from the fixed table" in str(report)


def test_positions_of_a_mmsegmentation_file_may_be_missing(golden_dir, tmp_path):
    golden = read_golden(golden_dir, "v1_segmentor_crop")
    tensors = {name: value for name, value in golden.group("sd").items() if name != "backbone.pos_embed"}
    source = mmcv_file(tmp_path / "a.pth", tensors)
    report = convert_checkpoint(source, tmp_path / "out", num_attention_heads=4, image_size=64)
    model = PrithviForSemanticSegmentation.from_pretrained(tmp_path / "out").eval()
    assert model.config.num_frames == 3, "the neck shows it"
    assert list(report.assumed) == ["layer_norm_eps"]
    assert_matches(model(golden["in_.x"]).logits, golden["out.logits"])


@pytest.mark.parametrize(("first", "factor", "convs", "frames"), [(32, 3, 1, 1), (16, 1, 2, 3), (9, 2, 3, 1)])
def test_the_geospatial_neck_is_read_from_its_shapes(first, factor, convs, frames):
    config = PrithviConfig(
        image_size=32,
        num_frames=frames,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        neck="geospatial",
        first_conv_channels=first,
        channel_reduction_factor=factor,
        num_convs_per_upscale=convs,
        head_hidden_size=8,
        num_labels=3,
    )
    model = PrithviForSemanticSegmentation(config)
    tensors = original_names(model)
    inferred = infer_config(tensors, num_attention_heads=2)
    for name in ("neck", "first_conv_channels", "num_convs_per_upscale", "num_frames", "image_size"):
        assert getattr(inferred, name) == getattr(config, name)
    assert inferred.geospatial_neck_channels == config.geospatial_neck_channels
    converted, expected = convert_state_dict(tensors, inferred), model.state_dict()
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[name], expected[name]) for name in expected)


def original_names(model):
    """The tensors of a model with the geospatial neck under the names of the original: conversion backwards."""
    tensors = {}
    for name, value in model.state_dict().items():
        parts = name.split(".")
        if name.startswith("neck."):
            block, rest = parts[2], parts[3:]
            if rest[0] == "conv_transpose":
                original = f"neck.layers.{block}.0.{rest[1]}"
            else:
                kind = {"convolution": 0, "normalization": 1}[rest[2]]
                original = f"neck.layers.{block}.{int(rest[1]) + 1}.{kind}.{rest[3]}"
        elif parts[0] in ("decode_head", "auxiliary_head"):
            original = name.replace("layers", "convs").replace("convolution", "conv").replace("normalization", "bn")
            original = original.replace("classifier", "conv_seg")
        elif "attention" in name and parts[4] != "o_proj":
            if parts[4] != "q_proj":
                continue
            projections = [
                model.get_parameter(name.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")
            ]
            original, value = f"backbone.blocks.{parts[2]}.attn.qkv.{parts[5]}", torch.cat(projections)
        else:
            original = name.replace("prithvi.embeddings.patch_embeddings", "backbone.patch_embed.proj")
            for new, old in {
                "prithvi.embeddings.": "backbone.",
                "prithvi.layernorm": "backbone.norm",
                "prithvi.layers": "backbone.blocks",
                "attention.o_proj": "attn.proj",
                "layernorm_before": "norm1",
                "layernorm_after": "norm2",
            }.items():
                original = original.replace(new, old)
        tensors[original] = value
    config = model.config
    tensors["backbone.pos_embed"] = sincos_position_table(config.hidden_size, config.grid_size)
    return tensors
