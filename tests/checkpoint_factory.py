# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Original checkpoints, pretrained and fine-tuned, as they were saved, and the command that converts them."""

import os
from collections import OrderedDict

import numpy as np
import torch

from prithvi_hf import PrithviForSemanticSegmentation
from prithvi_hf.cli.__main__ import main
from prithvi_hf.models.prithvi.embeddings_prithvi import sincos_position_table
from tests.golden import read_golden


RECIPES = {"flood": "sen1floods11", "burn": "hls_burn_scars", "crop": "multi_temporal_crop"}
REPOSITORY = "ibm-nasa-geospatial/Prithvi-EO-1.0-100M-multi-temporal-crop-classification"
# What the reference models have less of than the published ones.
REDUCED = {
    "flood": ["num_attention_heads=4"],
    "burn": ["num_attention_heads=4"],
    "crop": ["num_attention_heads=4", "num_hidden_layers=2"],
}
CROP_CLASSES = ["Natural Vegetation", "Forest", "Corn", "Soybeans", "Wetlands", "Developed/Barren", "Open Water"]
CROP_CLASSES += ["Winter Wheat", "Alfalfa", "Fallow/Idle Cropland", "Cotton", "Sorghum", "Other"]


def masked_autoencoder(hidden: int = 32, layers: int = 2, frames: int = 3, side: int = 2, bands: int = 6) -> dict:
    """A state dict in the layout of Prithvi_100M.pt, decoder included, with random weights."""
    generator = torch.Generator().manual_seed(0)

    def block(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
        return {
            f"{prefix}.norm1.weight": (width,),
            f"{prefix}.norm1.bias": (width,),
            f"{prefix}.attn.qkv.weight": (3 * width, width),
            f"{prefix}.attn.qkv.bias": (3 * width,),
            f"{prefix}.attn.proj.weight": (width, width),
            f"{prefix}.attn.proj.bias": (width,),
            f"{prefix}.norm2.weight": (width,),
            f"{prefix}.norm2.bias": (width,),
            f"{prefix}.mlp.fc1.weight": (4 * width, width),
            f"{prefix}.mlp.fc1.bias": (4 * width,),
            f"{prefix}.mlp.fc2.weight": (width, 4 * width),
            f"{prefix}.mlp.fc2.bias": (width,),
        }

    shapes = {
        "cls_token": (1, 1, hidden),
        "mask_token": (1, 1, 16),
        "patch_embed.proj.weight": (hidden, bands, 1, 16, 16),
        "patch_embed.proj.bias": (hidden,),
        "norm.weight": (hidden,),
        "norm.bias": (hidden,),
        "decoder_embed.weight": (16, hidden),
        "decoder_embed.bias": (16,),
        "decoder_norm.weight": (16,),
        "decoder_norm.bias": (16,),
        "decoder_pred.weight": (256 * bands, 16),
        "decoder_pred.bias": (256 * bands,),
    }
    for index in range(layers):
        shapes |= block(f"blocks.{index}", hidden)
    shapes |= block("decoder_blocks.0", 16)
    tensors = {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}
    tensors["pos_embed"] = sincos_position_table(hidden, (frames, side, side))
    tensors["decoder_pos_embed"] = sincos_position_table(16, (frames, side, side))
    return tensors


def mmcv_file(path, state_dict, prefix="", averaging=False, **meta):
    """A checkpoint as mmcv's runner saves it: texts and numpy's numbers beside the tensors, and the optimizer."""
    tensors = OrderedDict((prefix + name, value) for name, value in state_dict.items())
    if averaging:
        tensors |= {f"ema_{name.replace('.', '_')}": value + 1 for name, value in state_dict.items()}
    hooks = {"best_score": np.float64(0.8868), "best_ckpt": "best_mIoU_epoch_100.pth", "last_ckpt": "latest.pth"}
    meta = {"mmseg_version": "0.30.0", "config": "model = dict()", "epoch": 100, "iter": np.int64(6300), **meta}
    moments = {"step": torch.tensor(6300.0), "exp_avg": torch.zeros(3)}
    optimizer = {"state": {0: moments}, "param_groups": [{"lr": np.float32(1.5e-5), "params": [0], "amsgrad": False}]}
    content = {"meta": {**meta, "hook_msgs": hooks}, "state_dict": tensors, "optimizer": optimizer}
    torch.save(content, path)
    return path


def convert(source, output, *options):
    return main(["convert", str(source), str(output), *map(str, options)])


def convert_golden(golden_dir, tmp_path, which, *options, **variant):
    golden = read_golden(golden_dir, f"v1_segmentor_{which}")
    source = mmcv_file(tmp_path / f"{which}.pth", golden.group("sd"), **variant)
    arguments = ["--recipe", RECIPES[which], "--set", *REDUCED[which], *options]
    assert convert(source, tmp_path / "out", *arguments) == 0
    return golden, PrithviForSemanticSegmentation.from_pretrained(tmp_path / "out").eval()


def assert_refused(capsys, tmp_path, message, source, *options):
    """Exit code 2, one message, and nothing new beside the files that were there."""
    before = sorted(os.listdir(tmp_path))
    capsys.readouterr()
    assert convert(source, tmp_path / "out", *options) == 2
    output = capsys.readouterr()
    assert output.err.count("prithvi-hf convert: error: ") == 1
    assert output.out == ""
    assert "Traceback" not in output.err
    assert message in output.err
    assert sorted(os.listdir(tmp_path)) == before
    return output.err
