# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Weights of overlapping tiles, and the means that they give."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prithvi_hf.scenes.blending import RowSums, weight_profile
from prithvi_hf.scenes.tiles import BLENDINGS, TilePlan
from tests.scenes.test_tiles import plans


CPU = torch.device("cpu")


def means_of(plan: TilePlan, kind: str, tiles: dict[tuple[int, int], torch.Tensor]) -> torch.Tensor:
    """Means of all strips, from logits by row of tiles and first column."""
    num_labels = next(iter(tiles.values())).shape[0]
    sums, strips = RowSums(plan, kind, num_labels, torch.float32, CPU), []
    for row in range(plan.num_strips):
        for left in plan.lefts:
            sums.add(row, left, tiles[row, left])
        strips.append(sums.take(row))
        assert strips[-1].shape[1] == plan.strip(row)[1] - plan.strip(row)[0]
    return torch.cat(strips, dim=1)


@settings(max_examples=25, deadline=None)
@given(plan=plans(), kind=st.sampled_from(BLENDINGS))
def test_weights_of_every_pixel_sum_to_one(plan, kind):
    plan = TilePlan(plan.height // 3 + 1, plan.width // 3 + 1, plan.window, plan.stride)
    tiles = {(row, left): torch.ones((1, *plan.window)) for row in range(plan.num_strips) for left in plan.lefts}
    torch.testing.assert_close(
        means_of(plan, kind, tiles), torch.ones((1, plan.height, plan.width)), rtol=1e-6, atol=0
    )


@settings(max_examples=25, deadline=None)
@given(plan=plans(), kind=st.sampled_from(BLENDINGS), seed=st.integers(0, 99))
def test_sums_give_the_weighted_mean_of_each_pixel(plan, kind, seed):
    plan = TilePlan(plan.height // 4 + 1, plan.width // 4 + 1, plan.window, plan.stride)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.outer(*(weight_profile(kind, side).double() for side in plan.window))
    total = torch.zeros((2, plan.height, plan.width), dtype=torch.float64)
    divisor, tiles = torch.zeros_like(total[0]), {}
    for row, top in enumerate(plan.tops):
        for left in plan.lefts:
            tiles[row, left] = torch.randn((2, *plan.window), generator=generator)
            place = np.s_[top : top + plan.window[0], left : left + plan.window[1]]
            total[(slice(None), *place)] += tiles[row, left] * weights
            divisor[place] += weights
    torch.testing.assert_close(means_of(plan, kind, tiles), (total / divisor).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", BLENDINGS)
@pytest.mark.parametrize("size", [1, 2, 31, 224])
def test_profiles_are_symmetric_and_never_zero(kind, size):
    profile = weight_profile(kind, size)
    torch.testing.assert_close(profile, profile.flip(0), rtol=1e-4, atol=0)
    assert profile.min() > 0
    assert profile.max() <= 1
    assert kind == "uniform" or size < 3 or profile[size // 2] > 10 * profile[0]
