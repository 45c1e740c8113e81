# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The baseline U-Net: what it computes, what it shares with the models that have an encoder, and what it refuses."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from prithvi_hf import (
    PrithviConfig,
    PrithviForImageClassification,
    PrithviForPixelRegression,
    PrithviForPreTraining,
    PrithviForSemanticSegmentation,
    PrithviModel,
)
from prithvi_hf.models.prithvi.embeddings_prithvi import pad_by_reflection


def baseline(model_class=PrithviForSemanticSegmentation, num_frames=1, **options):
    torch.manual_seed(0)
    return model_class(PrithviConfig(architecture="unet", num_frames=num_frames, **options)).eval()


@torch.no_grad()
def logits(model, pixel_values):
    return model(pixel_values=pixel_values).logits


def test_it_has_two_million_parameters_and_no_encoder():
    model = baseline()
    assert 1_900_000 < sum(parameter.numel() for parameter in model.parameters()) < 2_100_000
    assert not any(isinstance(module, PrithviModel | nn.LayerNorm) for module in model.modules())
    assert model.auxiliary_head is None
    assert model.config.use_auxiliary_head is False


@pytest.mark.parametrize("size", [(64, 64), (37, 81), (5, 7)])
@pytest.mark.parametrize("num_frames", [1, 3])
def test_images_of_any_size_and_number_of_dates_give_a_score_per_pixel(size, num_frames):
    model = baseline(num_frames=num_frames, num_labels=4)
    images = torch.rand(2, 6, num_frames, *size)
    assert logits(model, images).shape == (2, 4, *size)
    if num_frames > 1:  # dates are channels of their own, in their order
        assert not torch.allclose(logits(model, images), logits(model, images.flip(2)))
        with pytest.raises(ValueError, match="Expected 3 frame"):
            model(pixel_values=images[:, :, :2])


@pytest.mark.parametrize("padding", ["right_bottom", "both_sides"])
def test_an_image_is_padded_by_reflection_as_for_the_encoder(padding):
    model, image = baseline(padding=padding), torch.rand(1, 6, 1, 37, 50)
    multiple = 32 if padding == "both_sides" else 16
    padded, (top, left) = pad_by_reflection(image, (multiple, multiple), padding == "both_sides")
    expected = logits(model, padded)[..., top : top + 37, left : left + 50]
    torch.testing.assert_close(logits(model, image), expected)


def test_frames_are_convolved_as_channels():
    model, images = baseline(num_frames=2), torch.rand(1, 6, 2, 32, 32)
    convolution = model.get_input_embeddings()
    in_three_dimensions = nn.Conv3d(6, 16, (2, 3, 3), padding=(0, 1, 1), bias=False)
    in_three_dimensions.weight = convolution.weight
    torch.testing.assert_close(convolution(images), in_three_dimensions(images).squeeze(2))


def test_leaving_a_band_out_is_feeding_it_zeros():
    model, images = baseline(num_frames=2), torch.rand(1, 6, 2, 32, 32)
    without = images.clone()
    without[:, [0, 4]] = 0
    expected = logits(model, without)
    assert model.set_bands(["RED", "GREEN", "NIR_NARROW", "SWIR_2"]) == []
    torch.testing.assert_close(logits(model, images[:, [2, 1, 3, 5]]), expected)
    assert model.config.num_channels == 4


def test_half_precision_is_close_to_full():
    model, images = baseline(num_frames=3), torch.rand(1, 6, 3, 48, 48)
    expected = logits(model, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (logits(model, images).float() - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("model_class", [PrithviForSemanticSegmentation, PrithviForPixelRegression])
def test_it_learns_and_is_saved_as_the_other_models_are(model_class, tmp_path):
    model = baseline(model_class, num_frames=2, loss="cross_entropy").train()
    images = torch.rand(2, 6, 2, 32, 32)
    labels = (images[:, 0, 0] > 0.5).long() if model_class is PrithviForSemanticSegmentation else images[:, 0, 0]
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    for _ in range(25):
        losses.append(model(pixel_values=images, labels=labels).loss)
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert losses[-1] < 0.5 * losses[0]
    model.eval().save_pretrained(tmp_path)
    again = model_class.from_pretrained(tmp_path)
    assert again.config.architecture == "unet"
    again.check_trained()
    torch.testing.assert_close(again(pixel_values=images)[0], model(pixel_values=images)[0], rtol=0, atol=0)


def test_hidden_states_are_the_maps_of_the_levels():
    outputs = baseline()(pixel_values=torch.rand(1, 6, 1, 48, 32), output_hidden_states=True)
    sizes = [(16, 48, 32), (32, 24, 16), (64, 12, 8), (128, 6, 4), (256, 3, 2)]
    assert [tuple(level.shape[1:]) for level in outputs.hidden_states] == sizes
    some = baseline()(pixel_values=torch.rand(1, 6, 1, 32, 32), output_hidden_states=[1, -1]).hidden_states
    assert [number for number, level in enumerate(some) if level is not None] == [1, 4]
    assert baseline()(pixel_values=torch.rand(1, 6, 1, 32, 32)).hidden_states is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 64, "num_hidden_layers": 2}, "got hidden_size 64, num_hidden_layers 2. Leave"),
        ({"decode_head": "unet"}, "got neck pyramid, decode_head unet. Leave"),
        ({"coords_encoding": ["time"]}, "coords_encoding"),
        ({"patch_size": [1, 8, 8]}, "patch_size"),
        ({"use_auxiliary_head": True}, "use_auxiliary_head True"),
        ({"architecture": "resnet"}, "architecture must be one of prithvi, unet, got 'resnet'"),
    ],
)
def test_fields_of_an_encoder_are_refused(options, message):
    with pytest.raises(StrictDataclassError, match=message):
        PrithviConfig(**{"architecture": "unet", **options})


@pytest.mark.parametrize("model_class", [PrithviModel, PrithviForPreTraining, PrithviForImageClassification])
def test_models_that_are_an_encoder_refuse_it(model_class):
    with pytest.raises(ValueError, match="Expected architecture prithvi, with an encoder, found unet"):
        baseline(model_class)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda model: model.freeze_backbone(), "Expected an encoder to freeze"),
        (lambda model: model(torch.rand(1, 6, 16, 16), output_attentions=True), "no output_attentions"),
        (lambda model: model.activation_checkpointing_enable(), "does not support"),
    ],
)
def test_what_needs_an_encoder_is_refused(use, message):
    with pytest.raises(ValueError, match=message):
        use(baseline())
