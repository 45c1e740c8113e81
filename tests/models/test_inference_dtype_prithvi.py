# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The dtype to predict in: chosen by the machine and by what tiles say, never by hope."""

from types import SimpleNamespace

import pytest
import torch

from prithvi_hf.models.prithvi import inference_dtype_prithvi as inference_dtype
from prithvi_hf.models.prithvi.inference_dtype_prithvi import (
    MAX_TILES,
    convert_model,
    count_tiles_to_compare,
    find_matrix_units,
    resolve_dtype,
    spread_places,
)
from tests.scene_factory import tiny_model


CPU = torch.device("cpu")


class Sensitive(torch.nn.Module):
    """Logits (B, 2, 1, w): a class or value of each pixel, which bfloat16 changes at the pixels that are not round."""

    def __init__(self, **config):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.config = SimpleNamespace(**config)
        self.tiles = []

    device = property(lambda self: self.weight.device)
    dtype = property(lambda self: self.weight.dtype)

    def forward(self, pixel_values):
        self.tiles.append(pixel_values)
        values = pixel_values.to(self.weight.dtype) * self.weight
        if hasattr(self.config, "target_std"):
            return SimpleNamespace(logits=values)
        return SimpleNamespace(logits=torch.cat([1 - values, values - 1], dim=1))


def tile(changed, width=1000):
    """A tile in which so many pixels are just above 1, which bfloat16 rounds to 1."""
    pixels = torch.zeros(1, 1, 1, width)
    pixels[..., :changed] = 1.001
    pixels[..., -1] = 2.0
    return {"pixel_values": pixels}, torch.ones(1, 1, width, dtype=torch.bool)


@pytest.fixture
def units(monkeypatch):
    """A machine that is made for bfloat16."""
    monkeypatch.setattr(inference_dtype, "find_matrix_units", lambda device: "units of a test")


@pytest.mark.parametrize(("changed", "chosen"), [(0, "bfloat16"), (5, "bfloat16"), (6, "float32"), (999, "float32")])
def test_bfloat16_is_chosen_where_enough_pixels_keep_their_class(units, changed, chosen):
    choice = resolve_dtype(Sensitive(), "auto", [tile(changed)])
    assert choice.chosen == chosen
    assert choice.agreement == pytest.approx(1 - changed / 1000)
    assert ("units of a test" in choice.reason) == (chosen == "bfloat16")
    assert "agree with float32" in choice.reason


def test_pixels_without_data_do_not_count(units):
    inputs, valid = tile(500)
    valid[..., :500] = False
    assert resolve_dtype(Sensitive(), "auto", [(inputs, valid)]).agreement == 1
    assert resolve_dtype(Sensitive(), "auto", [(inputs, torch.zeros_like(valid))]).agreement is None


def test_values_agree_within_a_fraction_of_the_targets_deviation(units):
    for std, chosen in ((1.0, "bfloat16"), (0.01, "float32")):
        assert resolve_dtype(Sensitive(target_std=std), "auto", [tile(100)]).chosen == chosen


def test_of_several_classes_per_image_each_counts(units):
    model = Sensitive(problem_type="multi_label_classification")
    images = [({"pixel_values": torch.tensor([[value]])}, torch.ones(1, dtype=torch.bool)) for value in (0.0, 1.001)]
    assert resolve_dtype(model, "auto", images).agreement == 0.5


def test_tiles_of_several_classes_are_preferred_and_few_are_run(units):
    model = Sensitive()
    plain = ({"pixel_values": torch.zeros(1, 1, 1, 1000)}, torch.ones(1, 1, 1000, dtype=torch.bool))
    assert resolve_dtype(model, "auto", [plain] * 2 + [tile(200)] * 2, count=2).agreement == pytest.approx(0.8)
    endless = iter(lambda: plain, None)
    assert resolve_dtype(model, "auto", endless).agreement == 1
    assert len(model.tiles) == 4 + 2 * MAX_TILES


def test_values_that_are_not_finite_never_agree(units):
    class Overflowing(Sensitive):
        def forward(self, pixel_values):
            logits = super().forward(pixel_values).logits
            return SimpleNamespace(logits=logits * (torch.nan if self.dtype == torch.bfloat16 else 1))

    assert resolve_dtype(Overflowing(), "auto", [tile(0)]).agreement == 0


def test_a_machine_without_matrix_units_stays_with_float32(monkeypatch):
    for test in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, test, lambda: False)
    choice = resolve_dtype(Sensitive(), "auto", [tile(0)])
    assert choice == ("float32", "this cpu has no matrix units for bfloat16", None)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert find_matrix_units(CPU) == "AMX"
    assert find_matrix_units(torch.device("meta")) is None


def test_a_dtype_that_is_slow_here_is_said_to_be_so(monkeypatch, caplog):
    monkeypatch.setattr(inference_dtype.logger, "propagate", True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: False)
    assert resolve_dtype(Sensitive(), "float32", ()).chosen == "float32"
    assert not caplog.records
    assert resolve_dtype(Sensitive(), "float16", ()) == ("float16", "as asked for", None)
    assert "float16 is slow on this cpu" in caplog.text
    with pytest.raises(ValueError, match="expected one of float32, bfloat16, float16, auto, found 'int8'"):
        resolve_dtype(Sensitive(), "int8", ())


def test_a_model_that_is_bfloat16_on_disk_is_compared_with_itself_in_float32(units):
    model = tiny_model().to(torch.bfloat16)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    sample = {"pixel_values": torch.randn(1, 6, 1, 32, 32)}, torch.ones(1, 32, 32, dtype=torch.bool)
    choice = resolve_dtype(model, "auto", [sample])
    assert 0.9 < choice.agreement <= 1
    assert model.dtype == torch.bfloat16
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


def test_a_copy_is_made_only_for_another_dtype():
    model = tiny_model()
    assert convert_model(model, "float32") is model
    assert convert_model(model, "bfloat16").dtype == torch.bfloat16
    assert model.dtype == torch.float32


def test_places_are_spread_and_come_once():
    rows, columns = range(0, 970, 10), range(0, 500, 5)
    places = list(spread_places(rows, columns))
    assert len(places) == len(set(places)) == 64
    quarters = {(row > 480, column > 250) for row, column in places[:6]}
    assert len(quarters) == 4
    assert set(spread_places((0,), (0, 7))) == {(0, 0), (0, 7)}


@pytest.mark.parametrize(("tiles", "count"), [(1, 2), (12, 3), (10_000, MAX_TILES)])
def test_the_comparison_is_small_beside_the_map(tiles, count):
    assert count_tiles_to_compare(tiles) == count


@pytest.mark.gpu
def test_a_gpu_of_today_is_made_for_bfloat16():
    model = tiny_model().to("cuda")
    sample = {"pixel_values": torch.randn(1, 6, 1, 32, 32)}, torch.ones(1, 32, 32, dtype=torch.bool)
    choice = resolve_dtype(model, "auto", [sample] * 3)
    made_for_it = torch.cuda.get_device_capability() >= (8, 0)
    assert (find_matrix_units(model.device) is not None) == made_for_it
    assert (choice.agreement is not None) == made_for_it
