# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The encoder as a backbone: its maps against those of the model, and heads of transformers that train on it."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoBackbone,
    DPTConfig,
    DPTForDepthEstimation,
    DPTForSemanticSegmentation,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    PreTrainedModel,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from prithvi_hf import (
    PrithviBackbone,
    PrithviConfig,
    PrithviForPreTraining,
    PrithviForSemanticSegmentation,
    PrithviModel,
)


def make_config(**values) -> PrithviConfig:
    """A small encoder of four layers for one frame."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "image_size": 64, "patch_size": 16}
    decoder = {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 4}
    return PrithviConfig(
        **{"num_frames": 1, "head_hidden_size": 8, "neck_hidden_size": 8, **sizes, **decoder} | values
    )


def make_upernet(**values) -> UperNetForSemanticSegmentation:
    backbone = make_config(out_indices=[0, 1, 2, 3], **values)
    width = 32 * backbone.num_frames
    heads = {"hidden_size": 16, "auxiliary_in_channels": width, "auxiliary_channels": 16, "num_labels": 3}
    return UperNetForSemanticSegmentation(UperNetConfig(backbone_config=backbone, **heads))


def make_dpt(**values) -> DPTForSemanticSegmentation:
    """DPT takes a backbone as "hybrid": three of its layers, the last of which layers of its own go on with."""
    backbone = make_config(out_indices=[0, 1, 3], **values)
    width = 32 * backbone.num_frames
    shapes = {"backbone_featmap_shape": [1, width, 4, 4], "neck_hidden_sizes": [width, width, 16, 16]}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    images = {"image_size": 64, "num_channels": 6 * backbone.num_frames}
    return DPTForSemanticSegmentation(
        DPTConfig(
            is_hybrid=True,
            backbone_config=backbone,
            backbone_out_indices=[0, 0, 0, 1],
            fusion_hidden_size=16,
            num_labels=3,
            **shapes,
            **sizes,
            **images,
        )
    )


def make_mask2former(**values) -> Mask2FormerForUniversalSegmentation:
    pytest.importorskip("scipy")
    sizes = ("feature_size", "hidden_dim", "mask_feature_size", "encoder_feedforward_dim", "dim_feedforward")
    layers = {"encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 4}
    return Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(
            backbone_config=make_config(out_indices=[0, 1, 2, 3], **values),
            **dict.fromkeys(sizes, 32),
            **layers,
            num_queries=5,
            train_num_points=64,
            num_labels=3,
        )
    )


@pytest.mark.parametrize("num_frames", [1, 2])
@pytest.mark.parametrize("make_model", [make_upernet, make_dpt, make_mask2former])
def test_heads_of_transformers_train_on_it_and_load_again(make_model, num_frames: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: PreTrainedModel = make_model(num_frames=num_frames)
    pixel_values = torch.randn(2, 6, num_frames, 64, 64).flatten(1, 2)
    labels = torch.randint(0, 3, (2, 64, 64))
    targets = {"labels": labels}
    if isinstance(model, Mask2FormerForUniversalSegmentation):
        masks = [torch.stack([(one == label).float() for label in range(3)]) for one in labels]
        targets = {"mask_labels": masks, "class_labels": [torch.arange(3)] * 2}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        torch.manual_seed(1)  # of dropout, and of the points that Mask2Former compares
        loss = model(pixel_values, **targets).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert torch.tensor(losses).isfinite().all()
    assert losses[-1] < losses[0]
    (kernel,) = [one for name, one in model.named_parameters() if "prithvi" in name and "patch_emb" in name][:1]
    assert kernel.grad.abs().max() > 0

    model.eval().save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    name = "masks_queries_logits" if isinstance(model, Mask2FormerForUniversalSegmentation) else "logits"
    with torch.no_grad():
        assert torch.equal(model(pixel_values)[name], again(pixel_values)[name])


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (50, 70)])
def test_maps_are_the_tokens_of_the_layers_of_the_encoder(size: tuple[int, int]) -> None:
    config = make_config(num_frames=2, out_indices=[1, 3], coords_encoding=["time", "location"])
    backbone = PrithviBackbone(config).eval()
    images = torch.randn(2, 6, 2, *size)
    coords = (torch.tensor([[[2021.0, 10.0], [2021.0, 60.0]]] * 2), torch.tensor([[10.0, 20.0]] * 2))
    rows, columns = -(-size[0] // 16), -(-size[1] // 16)
    padded = torch.nn.functional.pad(
        images.flatten(1, 2), (0, columns * 16 - size[1], 0, rows * 16 - size[0]), "reflect"
    )
    with torch.no_grad():
        maps = backbone(images, *coords).feature_maps
        flat = backbone(images.flatten(1, 2), *coords).feature_maps
        outputs = backbone.prithvi(padded.unflatten(1, (6, 2)), *coords, output_hidden_states=True)
        without = backbone(images).feature_maps
    assert backbone.channels == [64, 64]
    for feature_map, tokens in zip(maps, (outputs.hidden_states[2], outputs.last_hidden_state), strict=True):
        frames = tokens[:, 1:].unflatten(1, (2, rows, columns))  # (B, T, h, w, E)
        for frame in range(2):
            by_frame = feature_map.unflatten(1, (32, 2))[:, :, frame]
            assert torch.equal(by_frame, frames[:, frame].permute(0, 3, 1, 2))
    assert all(map(torch.equal, maps, flat))
    assert not torch.allclose(maps[-1], without[-1])


def test_tokens_go_to_models_that_lay_them_out_themselves() -> None:
    config = make_config(out_indices=[0, 1, 2, 3], reshape_hidden_states=False)
    model = DPTForDepthEstimation(DPTConfig(backbone_config=config, neck_hidden_sizes=[8, 8, 16, 16]))
    depth = model(torch.randn(1, 6, 64, 96)).predicted_depth
    depth.mean().backward()
    assert depth.shape == (1, 64, 96)
    assert model.backbone.prithvi.embeddings.patch_embeddings.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    "source", [PrithviModel, PrithviForPreTraining, PrithviForSemanticSegmentation, PrithviBackbone]
)
def test_every_folder_gives_its_encoder_and_a_saved_backbone_is_one(source: type, tmp_path: Path) -> None:
    model = source(make_config()).eval()
    model.save_pretrained(tmp_path / "source")
    backbone = PrithviBackbone.from_pretrained(tmp_path / "source", out_features=["stage2", "stage4"])
    assert type(AutoBackbone.from_config(backbone.config)) is PrithviBackbone
    images = torch.randn(1, 6, 64, 64)
    with torch.no_grad():
        expected = model.base_model(images).last_hidden_state[:, 1:].transpose(1, 2).reshape(1, 32, 4, 4)
        assert torch.equal(backbone(images).feature_maps[-1], expected)
        backbone.save_pretrained(tmp_path / "again")
        again = PrithviModel.from_pretrained(tmp_path / "again")
        assert torch.equal(again(images).last_hidden_state[:, 1:].transpose(1, 2).reshape(1, 32, 4, 4), expected)
    assert PrithviConfig.from_pretrained(tmp_path / "again").to_diff_dict()["out_indices"] == [1, 3]


def test_a_model_with_a_neck_of_maps_gives_the_layers_of_that_neck() -> None:
    config = make_config(decode_head="unet", unet_channels=[8, 8, 8, 8], num_hidden_layers=8)
    assert PrithviBackbone(config).out_features == ["stage2", "stage4", "stage6", "stage8"]
    assert PrithviBackbone(make_config(decode_head="unet", out_indices=[0, 1, 2, 3])).out_indices == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"out_indices": [0, 4]}, "some of its 4 layers"),
        ({"out_indices": [2, 1]}, "in order"),
        ({"out_indices": [1, 1]}, "each once"),
        ({"out_indices": []}, "got \\[\\]"),
        ({"out_features": ["stem"]}, "stage1, stage2, stage3, stage4, got \\['stem'\\]"),
        ({"out_features": ["stage1"], "out_indices": [1]}, "the same layers"),
    ],
)
def test_layers_that_there_are_not_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrithviBackbone(make_config(**values))


def test_other_bands_and_frames_than_the_models_are_refused() -> None:
    backbone = PrithviBackbone(make_config(num_frames=2))
    with pytest.raises(ValueError, match=r"Expected 2 frame.*found 1"):
        backbone(torch.randn(1, 6, 64, 64))
    with pytest.raises(ValueError, match="6 bands in dimension 1"):
        backbone(torch.randn(1, 5, 64, 64))
    backbone.set_bands(["RED", "NIR_NARROW"])
    assert backbone(torch.randn(1, 4, 64, 64)).feature_maps[0].shape == (1, 64, 4, 4)
