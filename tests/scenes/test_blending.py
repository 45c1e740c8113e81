# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Weights of overlapping tiles, and test-time augmentation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prithvi_hf.scenes.blending import (
    Blending,
    RowSums,
    weight_profile,
)
from prithvi_hf.scenes.engine import (
    apply_symmetry,
    augmented_logits,
    symmetries,
    undo_symmetry,
)
from prithvi_hf.scenes.tiles import BLENDINGS, TilePlan
from tests.scenes.test_tiles import plans


CPU = torch.device("cpu")


def summed_weights(blending: Blending) -> np.ndarray:
    """What the divided weights of each pixel add up to, tile by tile."""
    plan = blending.plan
    weights = blending.tile_weights(torch.float64, CPU)
    weights = np.ones(plan.window) if weights is None else weights.numpy()
    total = np.zeros((plan.height, plan.width))
    divisor = blending.weight_sums(0, plan.height, torch.float64, CPU).numpy()
    for top in plan.tops:
        for left in plan.lefts:
            place = np.s_[top : top + plan.window[0], left : left + plan.window[1]]
            total[place] += weights / divisor[place]
    return total


@settings(max_examples=25, deadline=None)
@given(plan=plans(), kind=st.sampled_from(BLENDINGS))
def test_weights_of_every_pixel_sum_to_one(plan, kind):
    plan = TilePlan(plan.height // 3 + 1, plan.width // 3 + 1, plan.window, plan.stride)
    np.testing.assert_allclose(summed_weights(Blending(kind, plan)), 1, rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(plan=plans(), kind=st.sampled_from(BLENDINGS), seed=st.integers(0, 99))
def test_sums_give_the_weighted_mean_of_each_pixel(plan, kind, seed):
    plan = TilePlan(plan.height // 4 + 1, plan.width // 4 + 1, plan.window, plan.stride)
    blending = Blending(kind, plan)
    sums = RowSums(blending, 2, torch.float32, CPU)
    generator = torch.Generator().manual_seed(seed)
    weights = blending.tile_weights(torch.float64, CPU)
    weights = torch.ones(plan.window, dtype=torch.float64) if weights is None else weights
    total = torch.zeros((2, plan.height, plan.width), dtype=torch.float64)
    strips = []
    for row, top in enumerate(plan.tops):
        for left in plan.lefts:
            tile = torch.randn((2, *plan.window), generator=generator)
            sums.add(row, left, tile)
            total[:, top : top + plan.window[0], left : left + plan.window[1]] += tile * weights
        strips.append(sums.take(row))
        assert strips[-1].shape[1] == plan.strip(row)[1] - plan.strip(row)[0]
    expected = total / blending.weight_sums(0, plan.height, torch.float64, CPU)
    torch.testing.assert_close(torch.cat(strips, dim=1), expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", BLENDINGS)
@pytest.mark.parametrize("size", [1, 2, 31, 224])
def test_profiles_are_symmetric_and_never_zero(kind, size):
    profile = weight_profile(kind, size)
    np.testing.assert_allclose(profile, profile[::-1], rtol=1e-4)
    assert profile.min() > 0
    assert profile.max() <= 1
    assert kind == "uniform" or size < 3 or profile[size // 2] > 10 * profile[0]


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="uniform, cosine, gaussian, found 'linear'"):
        Blending("linear", TilePlan(4, 4, (2, 2), (1, 1)))
    with pytest.raises(ValueError, match="none, d4, found 'flip'"):
        symmetries("flip", 4, 4)


def test_symmetries_are_the_eight_of_a_square_and_the_four_of_a_rectangle():
    for size, number in {(5, 5): 8, (4, 6): 4}.items():
        values = torch.arange(size[0] * size[1]).reshape(1, 1, *size)
        images = [apply_symmetry(values, one) for one in symmetries("d4", *size)]
        assert all(image.shape == values.shape for image in images)
        assert len({tuple(image.flatten().tolist()) for image in images}) == number
    assert symmetries("none", 4, 4) == ((0, False),)


@given(height=st.integers(1, 9), width=st.integers(1, 9), turns=st.integers(0, 3), mirrored=st.booleans())
def test_symmetries_are_undone_exactly(height, width, turns, mirrored):
    values = torch.randn(2, 3, height, width)
    assert torch.equal(undo_symmetry(apply_symmetry(values, (turns, mirrored)), (turns, mirrored)), values)


def test_augmented_logits_are_the_mean_of_what_was_brought_back():
    ramp = torch.linspace(0, 1, 36).reshape(6, 6)  # depends on the place, as a real model's answer does
    pixels = torch.randn(2, 3, 1, 6, 6)

    def forward(tiles):
        return tiles[:, :2, 0] * ramp

    expected = torch.stack(
        [undo_symmetry(forward(apply_symmetry(pixels, one)), one) for one in symmetries("d4", 6, 6)]
    ).mean(0)
    torch.testing.assert_close(augmented_logits(forward, pixels, "d4"), expected)
    assert not torch.allclose(expected, forward(pixels))
    assert torch.equal(augmented_logits(forward, pixels, "none"), forward(pixels))


def test_augmented_logits_of_a_local_model_are_its_own():
    pixels = torch.randn(1, 3, 2, 5, 8)
    torch.testing.assert_close(augmented_logits(lambda tiles: tiles[:, :, -1], pixels, "d4"), pixels[:, :, -1])


def test_augmented_logits_are_summed_in_float32():
    pixels = torch.randn(1, 2, 1, 4, 4)
    assert augmented_logits(lambda tiles: tiles[:, :, 0].bfloat16(), pixels, "d4").dtype == torch.float32
