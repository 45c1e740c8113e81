"""What holds for a segmentation model of either neck at any size of image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation
from prithvi_hf.models.prithvi.embeddings_prithvi import pad_by_reflection
from tests.golden import assert_matches


NECKS = ["conv_transpose", "geospatial"]
sizes = st.integers(1, 50)
frame_counts = st.integers(1, 4)


def tiny_model(neck: str, frames: int = 1, **overrides) -> PrithviForSemanticSegmentation:
    torch.manual_seed(0)
    values = {
        "neck": neck,
        "image_size": 32,
        "num_frames": frames,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "neck_hidden_size": 8,
        "first_conv_channels": 16,
        "head_hidden_size": 8,
        "num_labels": 3,
    }
    return PrithviForSemanticSegmentation(PrithviConfig(**{**values, **overrides})).eval()


@pytest.mark.parametrize("neck", NECKS)
@settings(max_examples=15, deadline=None)
@given(height=sizes, width=sizes, frames=frame_counts)
def test_any_size_equals_the_caller_padding_by_reflection(neck, height, width, frames):
    model = tiny_model(neck, frames)
    pixels = torch.randn(1, 6, frames, height, width)
    padding = [(0, 0)] * 3 + [(0, -height % 16), (0, -width % 16)]
    padded = torch.from_numpy(np.pad(pixels.numpy(), padding, mode="reflect"))
    assert torch.equal(pad_by_reflection(pixels, (16, 16))[0], padded)
    with torch.no_grad():
        logits = model(pixels).logits
        assert logits.shape == (1, 3, height, width)
        assert logits.isfinite().all()
        assert_matches(logits, model(padded).logits[..., :height, :width])


@pytest.mark.parametrize("neck", NECKS)
@settings(max_examples=8, deadline=None)
@given(height=sizes, width=sizes, frames=frame_counts, rows=st.sampled_from([8, 14, 16]))
def test_other_patches_keep_the_size_too(neck, height, width, frames, rows):
    model = tiny_model(neck, frames, patch_size=[1, rows, 8], image_size=[2 * rows, 32])
    with torch.no_grad():
        logits = model(torch.randn(1, 6, frames, height, width)).logits
    assert logits.shape == (1, 3, height, width)
    assert logits.isfinite().all()


@pytest.mark.parametrize("neck", NECKS)
@settings(max_examples=8, deadline=None)
@given(height=sizes, width=sizes, frames=frame_counts, batch_size=st.integers(2, 4))
def test_images_of_a_batch_do_not_see_each_other(neck, height, width, frames, batch_size):
    model = tiny_model(neck, frames)
    pixels = torch.randn(batch_size, 6, frames, height, width)
    with torch.no_grad():
        together = model(pixels).logits
        alone = torch.cat([model(image[None]).logits for image in pixels])
    assert_matches(together, alone)


@pytest.mark.parametrize("neck", NECKS)
@settings(max_examples=8, deadline=None)
@given(frames=frame_counts, found_frames=frame_counts, bands=st.integers(1, 8))
def test_wrong_frames_and_bands_are_named(neck, frames, found_frames, bands):
    model = tiny_model(neck, frames)
    pixels = torch.zeros(1, bands, found_frames, 16, 20)
    if bands != 6:
        message = rf"6 bands in dimension 1 .*found {bands} "
    elif found_frames != frames:
        message = rf"{frames} frame\(s\) in dimension 2 .*found {found_frames} "
    else:
        assert model(pixels).logits.shape == (1, 3, 16, 20)
        return
    with pytest.raises(ValueError, match=message):
        model(pixels)


@pytest.mark.parametrize("shape", [(6, 32, 32), (1, 1, 6, 1, 32, 32)])
def test_wrong_numbers_of_dimensions_are_named(shape):
    with pytest.raises(ValueError, match=r"Expected pixel_values of shape .*found \("):
        tiny_model("geospatial")(torch.zeros(shape))


@pytest.mark.parametrize("neck", NECKS)
@settings(max_examples=5, deadline=None)
@given(height=sizes, width=sizes, frames=frame_counts)
def test_every_weight_learns_at_any_size(neck, height, width, frames):
    """In training too, logits and labels are of the size of the image, and the loss reaches the encoder."""
    model = tiny_model(neck, frames).train()
    labels = torch.randint(0, 3, (2, height, width))
    loss = model(torch.randn(2, 6, frames, height, width), labels=labels).loss
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
