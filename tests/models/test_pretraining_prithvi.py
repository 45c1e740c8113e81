"""The masked autoencoder: what is hidden, what counts, dates and places."""

import pytest
import torch
from transformers import AutoModelForPreTraining

from prithvi_hf import PrithviConfig, PrithviForPreTraining, PrithviModel


def tiny_config(**overrides) -> PrithviConfig:
    values = {
        "image_size": 32,
        "num_frames": 2,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "decoder_hidden_size": 16,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
    }
    return PrithviConfig(**{**values, **overrides})


def tiny_model(**overrides) -> PrithviForPreTraining:
    torch.manual_seed(0)
    return PrithviForPreTraining(tiny_config(**overrides)).eval()


COORDS = {"coords_encoding": ["time", "location"], "coords_scale_learn": True}
DATES = torch.tensor([[[2021.0, 100.0], [2021.0, 200.0]]])
PLACE = torch.tensor([[45.0, 9.0]])


@pytest.mark.parametrize(
    ("ratio", "hidden"), [(0.0, 0), (0.5, 4), (0.75, 6), (0.9, 7), (0.99, 7), (0.999, 7), (0.125, 1)]
)
def test_a_mask_ratio_means_what_it_says_and_one_patch_is_always_seen(ratio, hidden):
    model, pixels = tiny_model(), torch.randn(3, 6, 2, 32, 32)
    outputs = model(pixels, mask_ratio=ratio)
    assert outputs.mask.sum(dim=1).tolist() == [hidden] * 3
    assert outputs.logits.shape == (3, 8, 16 * 16 * 6)
    assert outputs.loss.isfinite()
    assert (outputs.loss == 0) == (hidden == 0)


def test_a_tenth_of_ten_patches_is_one():
    """In floating point 10 * (1 - 0.9) is below 1."""
    model = tiny_model(num_frames=1)
    assert model(torch.randn(1, 6, 1, 32, 80), mask_ratio=0.9).mask.sum() == 9


def test_the_loss_is_that_of_the_hidden_patches_alone():
    model, pixels, noise = tiny_model(), torch.randn(2, 6, 2, 32, 32), torch.rand(2, 8)
    outputs = model(pixels, noise=noise)
    errors = ((outputs.logits - model.patchify(pixels)) ** 2).mean(dim=-1)
    assert torch.allclose(outputs.loss, errors[outputs.mask.bool()].mean())
    assert (outputs.mask.argsort(dim=1)[:, :2].sort().values == noise.argsort(dim=1)[:, :2].sort().values).all()
    changed = pixels.clone()
    where = model.unpatchify(outputs.mask.unsqueeze(-1), (2, 32, 32)).bool().expand_as(pixels)
    changed[where] += 1  # what is hidden cannot be seen
    assert torch.equal(model(changed, noise=noise).logits, outputs.logits)


def test_patches_and_images_are_two_ways_to_write_one_thing():
    model, pixels = tiny_model(patch_size=[1, 8, 16]), torch.randn(2, 6, 2, 32, 48)
    patches = model.patchify(pixels)
    assert patches.shape == (2, 2 * 4 * 3, 8 * 16 * 6)
    assert torch.equal(model.unpatchify(patches, (2, 32, 48)), pixels)


def test_pixels_without_data_have_no_part():
    model, pixels, noise = tiny_model(), torch.randn(1, 6, 2, 32, 32), torch.arange(8.0).unsqueeze(0)
    nodata = torch.zeros(1, 2, 32, 32, dtype=torch.bool)
    nodata[:, 0, :16] = True  # two whole patches
    nodata[:, 1, 20:, 20:] = True  # a part of one
    outputs = model(pixels, noise=noise, nodata_mask=nodata)
    assert outputs.mask.tolist() == [[1, 1, 0, 0, 1, 1, 1, 1]], "patches that hold nothing are the first to be hidden"
    changed = torch.where(nodata.unsqueeze(1), pixels + 100, pixels)
    assert torch.equal(outputs.loss, model(changed, noise=noise, nodata_mask=nodata).loss)
    assert not torch.equal(outputs.loss, model(changed, noise=noise).loss)
    everything = torch.ones_like(nodata)
    assert model(pixels, nodata_mask=everything).loss == 0
    with pytest.raises(ValueError, match=r"nodata_mask of shape \(1, 2, 32, 32\), found \(1, 1, 32, 32\)"):
        model(pixels, nodata_mask=nodata[:, :1])


def test_coordinates_change_tokens_and_missing_ones_are_left_out():
    model = PrithviModel(tiny_config(**COORDS)).eval()
    pixels = torch.randn(1, 6, 2, 32, 32)
    without = model(pixels).last_hidden_state
    with_both = model(pixels, DATES, PLACE).last_hidden_state
    assert not torch.allclose(with_both, without)
    unknown = torch.full_like(DATES, float("nan"))
    assert torch.equal(model(pixels, unknown, torch.full_like(PLACE, float("nan"))).last_hidden_state, without)
    one_unknown = DATES.clone()
    one_unknown[0, 1] = float("nan")
    first = model(pixels, one_unknown).last_hidden_state
    assert not torch.allclose(first, without)
    assert not torch.allclose(first, model(pixels, DATES).last_hidden_state)


def test_a_model_without_encodings_does_not_use_coordinates():
    model, pixels = PrithviModel(tiny_config()).eval(), torch.randn(1, 6, 2, 32, 32)
    assert torch.equal(model(pixels, DATES, PLACE).last_hidden_state, model(pixels).last_hidden_state)


@pytest.mark.parametrize("as_bfloat16", [False, True], ids=["autocast", "weights"])
def test_years_are_told_apart_in_half_precision(as_bfloat16):
    """In bfloat16 the year 2021 is 2024."""
    model = PrithviModel(tiny_config(**COORDS)).eval()
    model = model.bfloat16() if as_bfloat16 else model
    pixels = torch.randn(1, 6, 2, 32, 32)
    later = DATES + torch.tensor([1.0, 0.0])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not as_bfloat16):
        first, second = (model(pixels, dates, PLACE).last_hidden_state for dates in (DATES, later))
    assert not torch.equal(first, second)
    with pytest.raises(ValueError, match=r"float32, found torch\.bfloat16"):
        model(pixels, DATES.bfloat16(), PLACE)


@pytest.mark.parametrize(
    ("dates", "place", "message"),
    [
        (DATES[:, :1], None, r"temporal_coords of shape \(1, 2, 2\), found \(1, 1, 2\)"),
        (DATES[0], None, r"temporal_coords of shape \(1, 2, 2\), found \(2, 2\)"),
        (None, PLACE[0], r"location_coords of shape \(1, 2\), found \(2,\)"),
    ],
)
def test_coordinates_of_another_shape_are_refused(dates, place, message):
    """Dates for the configured number of frames, not for those of the input, were taken by the original."""
    with pytest.raises(ValueError, match=message):
        PrithviModel(tiny_config(**COORDS))(torch.randn(1, 6, 2, 32, 32), dates, place)


def test_every_parameter_has_a_gradient_with_and_without_coordinates():
    """A parameter without one stops training on several processes."""
    for coords in ({}, {"temporal_coords": DATES, "location_coords": PLACE}):
        model = tiny_model(**COORDS).train()
        model(torch.randn(1, 6, 2, 32, 32), **coords).loss.backward()
        assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_it_saves_and_loads_and_the_encoder_is_that_of_other_models(tmp_path):
    model, pixels, noise = tiny_model(**COORDS), torch.randn(1, 6, 2, 32, 32), torch.rand(1, 8)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForPreTraining.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(pixels, noise=noise).logits, model(pixels, noise=noise).logits)
    encoder = PrithviModel.from_pretrained(tmp_path).eval()
    assert torch.equal(encoder(pixels).last_hidden_state, model.prithvi(pixels).last_hidden_state)


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan")])
def test_a_mask_ratio_outside_its_range_is_refused(ratio):
    with pytest.raises(ValueError, match="mask_ratio from 0 to below 1"):
        tiny_model()(torch.randn(1, 6, 2, 32, 32), mask_ratio=ratio)
