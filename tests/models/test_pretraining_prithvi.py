"""The masked autoencoder: what is hidden, what counts, dates and places."""

import pytest
import torch
from transformers import AutoModelForPreTraining

from prithvi_hf import PrithviConfig, PrithviForPreTraining, PrithviModel
from tests.models.test_modeling_prithvi import small_config


def tiny_config(**overrides) -> PrithviConfig:
    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    return small_config(**{"num_frames": 2, "num_hidden_layers": 1, **decoder, **overrides})


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


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_pixels_without_data_have_no_part(norm_pix_loss):
    model = tiny_model(norm_pix_loss=norm_pix_loss)
    pixels, noise = torch.randn(1, 6, 2, 32, 32), torch.arange(8.0).unsqueeze(0)
    nodata = torch.zeros(1, 2, 32, 32, dtype=torch.bool)
    nodata[:, 0, :16] = True  # two whole patches
    nodata[:, 1, 20:, 20:] = True  # a part of one
    outputs = model(pixels, noise=noise, nodata_mask=nodata)
    assert outputs.mask.tolist() == [[1, 1, 0, 0, 1, 1, 1, 1]], "patches that hold nothing are the first to be hidden"
    changed = torch.where(nodata.unsqueeze(1), pixels + 100, pixels)
    other = model(changed, noise=noise, nodata_mask=nodata)
    assert torch.equal(outputs.loss, other.loss)
    missing = torch.where(nodata.unsqueeze(1), torch.nan, pixels)
    assert torch.equal(outputs.loss, model(missing, noise=noise, nodata_mask=nodata).loss)
    first, second = (model.reconstruct(one, image, nodata) for one, image in ((outputs, pixels), (other, changed)))
    assert torch.equal(*(values.masked_fill(nodata.unsqueeze(1), 0) for values in (first, second)))
    assert not torch.equal(outputs.loss, model(changed, noise=noise).loss)
    everything = torch.ones_like(nodata)
    assert model(pixels, nodata_mask=everything).loss == 0
    with pytest.raises(ValueError, match=r"nodata_mask of shape \(1, 2, 32, 32\), found \(1, 1, 32, 32\)"):
        model(pixels, nodata_mask=nodata[:, :1])


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


def test_hidden_patches_are_counted_as_the_loss_counts_them():
    model, pixels = tiny_model(), torch.randn(3, 6, 2, 32, 32)
    nodata = torch.zeros(3, 2, 32, 32, dtype=torch.bool)
    nodata[1, :, :16] = True  # four of eight patches
    nodata[2, :, 1:] = True  # no patch without any data
    nodata[2, :, 16:] = True
    outputs = model(pixels, nodata_mask=nodata, noise=torch.rand(3, 8))
    has_data = model.patchify((~nodata).unsqueeze(1).float()).any(dim=-1)
    assert model.count_hidden(nodata) == (outputs.mask.bool() & has_data).sum() == 6 + 2 + 2
    assert model.count_hidden(nodata, mask_ratio=0.5) == 4 + 0 + 0


def test_bands_move_in_the_encoder_and_in_the_predictions():
    model, pixels, noise = tiny_model(), torch.randn(2, 6, 2, 32, 32), torch.rand(2, 8)
    expected = model.reconstruct(model(pixels, noise=noise), pixels)
    order = [5, 0, 3]
    rest = [channel for channel in range(6) if channel not in order]
    names = [model.config.bands[channel] for channel in [*order, *rest]]
    assert model.set_bands(names) == []
    moved = pixels[:, [*order, *rest]]
    assert torch.allclose(model.reconstruct(model(moved, noise=noise), moved), expected[:, [*order, *rest]], atol=1e-5)
    assert model.set_bands([*names[:2], "RED_EDGE_1"]) == ["RED_EDGE_1"]
    outputs = model(pixels[:, :3], noise=noise)
    assert outputs.logits.shape == (2, 8, 16 * 16 * 3)
    assert outputs.loss.isfinite()


@pytest.mark.parametrize("width", [8, 24])
def test_a_decoder_whose_width_has_no_positions_is_refused(width):
    with pytest.raises(ValueError, match=f"decoder_hidden_size that is a multiple of 16 .*, found {width}"):
        tiny_model(decoder_hidden_size=width)
