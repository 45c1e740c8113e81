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


STATISTICS = {
    "mean": [1087.0, 1342.0, 1433.0, 2734.0, 1958.0, 1363.0],
    "std": [2248.0, 2179.0, 2178.0, 1850.0, 1242.0, 1049.0],
}


def block_shapes(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    """Shapes of one transformer layer."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in {
        **{"norm1": (width,), "attn.qkv": (3 * width, width), "attn.proj": (width, width), "norm2": (width,)},
        **{"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)},
    }.items():
        shapes |= {f"{prefix}.{name}.weight": shape, f"{prefix}.{name}.bias": shape[:1]}
    return shapes


def encoder_shapes(hidden: int, layers: int, bands: int = 6, patch: int = 16) -> dict[str, tuple[int, ...]]:
    """Shapes of an encoder without its positions."""
    shapes = {
        "cls_token": (1, 1, hidden),
        "patch_embed.proj.weight": (hidden, bands, 1, patch, patch),
        "patch_embed.proj.bias": (hidden,),
        "norm.weight": (hidden,),
        "norm.bias": (hidden,),
    }
    for index in range(layers):
        shapes |= block_shapes(f"blocks.{index}", hidden)
    return shapes


def decoder_shapes(
    hidden: int, width: int, layers: int, bands: int = 6, patch: int = 16
) -> dict[str, tuple[int, ...]]:
    """Shapes of the decoder of a masked autoencoder without its positions."""
    shapes = {
        "mask_token": (1, 1, width),
        "decoder_embed.weight": (width, hidden),
        "decoder_embed.bias": (width,),
        "decoder_norm.weight": (width,),
        "decoder_norm.bias": (width,),
        "decoder_pred.weight": (patch**2 * bands, width),
        "decoder_pred.bias": (patch**2 * bands,),
    }
    for index in range(layers):
        shapes |= block_shapes(f"decoder_blocks.{index}", width)
    return shapes


def fill(shapes: dict[str, tuple[int, ...]], device: str = "cpu") -> dict[str, torch.Tensor]:
    """Random weights of these shapes; variances are positive, counts of batch normalisation integers."""
    generator = torch.Generator().manual_seed(0)
    if device == "meta":
        return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    tensors = {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}
    for name in tensors:
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(100)
        elif name.endswith("running_var"):
            tensors[name] = tensors[name].abs() + 1
    return tensors


def masked_autoencoder(hidden: int = 32, layers: int = 2, frames: int = 3, side: int = 2, bands: int = 6) -> dict:
    """A state dict in the layout of Prithvi_100M.pt, decoder included, with random weights."""
    tensors = fill(encoder_shapes(hidden, layers, bands) | decoder_shapes(hidden, 16, 1, bands))
    tensors["pos_embed"] = sincos_position_table(hidden, (frames, side, side))
    tensors["decoder_pos_embed"] = sincos_position_table(16, (frames, side, side))
    return tensors


def second_generation(
    hidden: int, layers: int, patch: int = 16, coords: bool = True, decoder: tuple[int, int] = (512, 8), **kwargs
) -> dict:
    """A state dict in the layout of Prithvi_EO_V2_300M_TL.pt: four frames of 224 pixels."""
    grid, (width, depth) = (4, 224 // patch, 224 // patch), decoder
    shapes = {f"encoder.{name}": shape for name, shape in encoder_shapes(hidden, layers, patch=patch).items()}
    shapes |= {f"decoder.{name}": shape for name, shape in decoder_shapes(hidden, width, depth, patch=patch).items()}
    for part in ("enc", "dec") if coords else ():
        module = {"enc": "encoder", "dec": "decoder"}[part]
        shapes |= {f"{module}.{kind}_embed_{part}.scale": (1,) for kind in ("temporal", "location")}
    tensors = fill(shapes, **kwargs)
    tensors["encoder.pos_embed"] = sincos_position_table(hidden, grid)
    tensors["decoder.decoder_pos_embed"] = sincos_position_table(width, grid)
    return tensors


def hub_config(hidden, layers, heads, patch=16, coords=True, decoder=(512, 8)) -> dict:
    """A `config.json` as the published backbones have it."""
    given = {"img_size": 224, "num_frames": 4, "patch_size": [1, patch, patch], "in_chans": 6, "embed_dim": hidden}
    given |= {"depth": layers, "num_heads": heads, "decoder_embed_dim": decoder[0], "decoder_depth": decoder[1]}
    given |= {"decoder_num_heads": 16, "mlp_ratio": 4, "mask_ratio": 0.75, "norm_pix_loss": False}
    given |= {"coords_encoding": ["time", "location"] if coords else [], "coords_scale_learn": coords}
    bands = ["B02", "B03", "B04", "B05", "B06", "B07"]  # of HLS L30
    return {
        "architecture": "prithvi_eo",
        "num_features": hidden,
        "pretrained_cfg": {**given, "bands": bands, **STATISTICS},
    }


def terratorch_model(
    hidden: int, layers: int, channels: int | list[int], labels: int = 2, coords: bool = False, **kwargs
) -> dict:
    """A state dict of terratorch's learned pyramid with UPerNet (channels: a number) or UNet (a list), one frame."""
    shapes = {f"encoder.{name}": shape for name, shape in encoder_shapes(hidden, layers).items()}
    if coords:
        shapes |= {f"encoder.{kind}_embed_enc.scale": (1,) for kind in ("temporal", "location")}
    shapes |= {
        "neck.2.fpn1.0.weight": (hidden, hidden // 2, 2, 2),
        "neck.2.fpn1.0.bias": (hidden // 2,),
        "neck.2.fpn1.3.weight": (hidden // 2, hidden // 4, 2, 2),
        "neck.2.fpn1.3.bias": (hidden // 4,),
        "neck.2.fpn2.0.weight": (hidden, hidden // 2, 2, 2),
        "neck.2.fpn2.0.bias": (hidden // 2,),
    }
    maps = [hidden // 4, hidden // 2, hidden, hidden]
    convolutions = {}  # name without parts: output, input, kernel
    if isinstance(channels, int):
        parts = ("decoder.{}.conv", "decoder.{}.norm")
        convolutions |= {f"psp_modules.{scale}.1": (channels, hidden, 1) for scale in range(4)}
        convolutions["bottleneck"] = (channels, hidden + 4 * channels, 3)
        convolutions |= {f"lateral_convs.{level}": (channels, maps[level], 1) for level in range(3)}
        convolutions |= {f"fpn_convs.{level}": (channels, channels, 3) for level in range(3)}
        convolutions["fpn_bottleneck"] = (channels, 4 * channels, 3)
    else:
        parts = ("decoder.decoder.blocks.{}.0", "decoder.decoder.blocks.{}.1")
        inputs = [hidden + maps[2], channels[0] + maps[1], channels[1] + maps[0], channels[2]]
        for block, (width, wide) in enumerate(zip(channels, inputs, strict=True)):
            convolutions |= {f"{block}.conv1": (width, wide, 3), f"{block}.conv2": (width, width, 3)}
    norms = {"neck.2.fpn1.1": hidden // 2}
    for name, (width, wide, kernel) in convolutions.items():
        shapes[f"{parts[0].format(name)}.weight"] = (width, wide, kernel, kernel)
        norms[parts[1].format(name)] = width
    for name, width in norms.items():
        shapes |= {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{name}.num_batches_tracked"] = ()
    width = channels if isinstance(channels, int) else channels[-1]
    classifier = f"head.head.{1 if labels == 1 else 2}"  # that of a regression is one place before
    shapes |= {f"{classifier}.weight": (labels, width, 1, 1), f"{classifier}.bias": (labels,)}
    return {**fill(shapes, **kwargs), "encoder.pos_embed": sincos_position_table(hidden, (1, 14, 14))}


def lightning_file(path, state_dict, **hyper_parameters):
    """A checkpoint as Lightning saves the task of terratorch."""
    content = {
        **{"epoch": 41, "global_step": 630, "pytorch-lightning_version": "2.4.0", "loops": {"fit_loop": {}}},
        "state_dict": OrderedDict((f"model.{name}", value) for name, value in state_dict.items()),
        **{"hparams_name": "kwargs", "hyper_parameters": hyper_parameters},
    }
    torch.save(content, path)
    return path


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
