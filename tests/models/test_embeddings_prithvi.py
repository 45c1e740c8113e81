"""Positions, dates and places of tokens."""

import copy

import pytest
import torch

from prithvi_hf import PrithviConfig, PrithviModel
from prithvi_hf.models.prithvi import embeddings_prithvi
from prithvi_hf.models.prithvi.embeddings_prithvi import interpolate_position_table, sincos_position_table
from tests.golden import assert_matches, read_golden
from tests.models.test_modeling_prithvi import small_config
from tests.models.test_pretraining_prithvi import COORDS, DATES, PLACE, tiny_config


def test_positions_at_other_sizes_match_the_original(golden_dir):
    golden = read_golden(golden_dir, "v2_interp")
    config = PrithviConfig(
        image_size=64, num_frames=4, num_channels=2, hidden_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    embeddings = PrithviModel(config).embeddings
    for name, pixels in golden.group("in_").items():
        frames, height, width = pixels.shape[2:]
        table = embeddings.position_embeddings
        positions = interpolate_position_table(table, config.grid_size, (frames, height // 16, width // 16))
        assert_matches(positions, golden[f"out.{name}.pos_embed"])


def test_interpolated_positions_are_kept_until_something_changes(monkeypatch):
    model, pixels = PrithviModel(small_config()).eval(), torch.randn(1, 6, 1, 48, 32)
    embeddings, computed = model.embeddings, []

    def interpolate(table, grid_size, new_grid_size):
        computed.append(new_grid_size)
        return interpolate_position_table(table, grid_size, new_grid_size)

    monkeypatch.setattr(embeddings_prithvi, "interpolate_position_table", interpolate)
    with torch.inference_mode():
        expected = model(pixels).last_hidden_state
    assert_matches(model(pixels).last_hidden_state, expected)
    assert computed == [(1, 3, 2)]
    model(pixels[..., :32]).last_hidden_state.sum().backward()
    with torch.no_grad():
        embeddings.position_embeddings.mul_(2)
    assert (model(pixels).last_hidden_state - expected).abs().max() > 0.01
    assert model.double()(pixels.double()).last_hidden_state.dtype == torch.float64
    assert copy.deepcopy(PrithviModel(small_config())).embeddings._kept_positions is None


def test_table_of_one_frame_is_the_first_frame_of_three():
    one, three = (sincos_position_table(48, (frames, 3, 5)) for frames in (1, 3))
    assert torch.equal(one, three[:, : one.shape[1]])


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


@pytest.mark.parametrize("size", [(2, 32, 128), (1, 48, 80), (5, 32, 32), (2, 50, 70)])
def test_each_image_gets_its_own_terms_at_any_size(size):
    """An image of a batch without a date, or without a place, is as if it were alone without it."""
    model = PrithviModel(tiny_config(**COORDS)).eval()
    with torch.no_grad():
        model.embeddings.coordinates.time_scale.fill_(1)
        model.embeddings.coordinates.location_scale.fill_(1)
    pixels = torch.randn(2, 6, *size)
    dates = torch.tensor([[[2020.0 + frame, 10 * frame + image] for frame in range(size[0])] for image in range(2)])
    places = torch.tensor([[-33.0, 151.0], [60.0, -120.0]])
    dates[0], places[1] = float("nan"), float("nan")
    together = model(pixels, dates, places).last_hidden_state
    assert_matches(together[:1], model(pixels[:1], None, places[:1]).last_hidden_state)
    assert_matches(together[1:], model(pixels[1:], dates[1:], None).last_hidden_state)
    for dtype in (torch.float64, torch.int64):
        known = model(pixels[1:], dates[1:].to(dtype)).last_hidden_state
        assert torch.equal(known, model(pixels[1:], dates[1:]).last_hidden_state)


def test_terms_are_sines_and_cosines_of_halves_of_the_channels():
    model = PrithviModel(tiny_config(**COORDS)).eval()
    pixels = torch.zeros(1, 6, 2, 32, 48)
    scales = {"time_scale": DATES, "location_scale": PLACE}
    added = model.embeddings(pixels, DATES, PLACE) - model.embeddings(pixels)
    terms = []
    for name, pairs in scales.items():
        count = model.config.hidden_size // 4
        angles = pairs.double().unsqueeze(-1) / 10000 ** (torch.arange(count).double() / count)
        waves = torch.cat([angles.sin(), angles.cos()], -1).flatten(-2)
        terms.append(waves * getattr(model.embeddings.coordinates, name).double())
    expected = terms[0].repeat_interleave((added.shape[1] - 1) // 2, dim=1) + terms[1].unsqueeze(1)
    assert (added[:, 1:] - expected).abs().max() < 1e-4
    assert not added[:, 0].any()
