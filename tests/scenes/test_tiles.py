# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The plan of tiles and strips."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prithvi_hf import PrithviConfig
from prithvi_hf.models.prithvi.sliding_window_prithvi import window_starts
from prithvi_hf.scenes.tiles import TilePlan, WindowOptions


@st.composite
def plans(draw):
    window = (draw(st.integers(1, 60)), draw(st.integers(1, 60)))
    stride = tuple(draw(st.integers(1, side)) for side in window)
    return TilePlan(draw(st.integers(1, 200)), draw(st.integers(1, 200)), window, stride)


@given(plan=plans())
def test_strips_divide_the_rows(plan):
    rows = [plan.strip(index) for index in range(plan.num_strips)]
    assert rows[0][0] == 0
    assert rows[-1][1] == plan.height
    assert all(start < stop for start, stop in rows)
    assert all(above[1] == below[0] for above, below in itertools.pairwise(rows))


@given(plan=plans())
def test_a_strip_is_final_after_its_row_of_tiles_and_not_before(plan):
    for index in range(plan.num_strips):
        start, stop = plan.strip(index)
        touching = [row for row, top in enumerate(plan.tops) if top < stop and top + plan.window[0] > start]
        assert max(touching) == index
        assert plan.tops[index] <= start, "the strip lies within its own row of tiles"
        assert stop <= plan.tops[index] + plan.window[0]


@given(plan=plans(), data=st.data())
def test_the_rows_of_tiles_of_some_strips_are_those_that_touch_them(plan, data):
    first = data.draw(st.integers(0, plan.num_strips - 1))
    strips = range(first, data.draw(st.integers(first + 1, plan.num_strips)))
    start, stop = plan.strip(strips[0])[0], plan.strip(strips[-1])[1]
    touching = [row for row, top in enumerate(plan.tops) if top < stop and top + plan.window[0] > start]
    assert list(plan.tile_rows_for(strips)) == touching
    assert plan.count_tiles(strips) == len(touching) * len(plan.lefts)


@given(plan=plans())
def test_tiles_are_those_of_the_sliding_window(plan):
    assert list(plan.tops) == window_starts(plan.height, plan.window[0], plan.stride[0])
    assert list(plan.lefts) == window_starts(plan.width, plan.window[1], plan.stride[1])


def test_a_window_larger_than_the_scene_is_the_scene():
    plan = TilePlan(20, 90, (32, 32), (32, 16))
    assert (plan.window, plan.stride) == ((20, 32), (20, 16))
    assert plan == TilePlan(20, 90, plan.window, plan.stride)
    assert plan.tops == (0,)
    assert plan.strip(0) == (0, 20)


def test_a_plan_of_a_model():
    plan = TilePlan.for_model(PrithviConfig(image_size=[64, 96], num_frames=1), 200, 300)
    assert (plan.window, plan.stride) == ((64, 96), (32, 48))
    assert plan == TilePlan(200, 300, (64, 96), (32, 48))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 10, (4, 4), (2, 2)), "at least 1 pixel, found 0 x 10"),
        ((10, 10, (4, 4), (5, 2)), r"strides from 1 to the window \(4, 4\), found \(5, 2\)"),
        ((10, 10, (4, 4), (0, 2)), "strides from 1"),
    ],
)
def test_a_plan_that_leaves_pixels_out_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TilePlan(*arguments)


@pytest.mark.parametrize("strips", [range(0), range(-1, 2), range(2, 99), range(0, 4, 2), range(3, 2)])
def test_strips_outside_the_scene_are_refused(strips):
    plan = TilePlan(100, 10, (20, 10), (20, 10))
    with pytest.raises(ValueError, match="consecutive strips among the 5"):
        plan.tile_rows_for(strips)
    with pytest.raises(IndexError, match="from 0 to 4"):
        plan.strip(5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 1.0}, "overlap"),
        ({"overlap": -0.1}, "overlap"),
        ({"batch_size": 0}, "batch_size"),
        ({"window": 0}, "window"),
        ({"window": (32, 32, 32)}, "window"),
        ({"blending": "linear"}, "uniform, cosine, gaussian"),
        ({"tta": "d5"}, "none, d4"),
    ],
)
def test_window_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        WindowOptions(**options)


def test_window_options_take_the_two_sides_as_a_list():
    assert WindowOptions(window=[32, 48]) == WindowOptions(window=(32, 48))
