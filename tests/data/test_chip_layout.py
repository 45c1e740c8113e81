# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Where chips are, by a look at every pixel, and splits that have their fraction of every class."""

import numpy as np
import pytest

from prithvi_hf.data.builders.splits import find_blocks
from prithvi_hf.data.chip_layout import lay_out_chips, split_chips


def paint_blocks(places, shape):
    """The block of each pixel, -1 for none; chips of two blocks on one pixel are a failure."""
    canvas = np.full(shape, -1)
    numbers = {block: number for number, block in enumerate(dict.fromkeys(place.block for place in places))}
    for place in places:
        row, column, height, width = place.window
        part = canvas[row : row + height, column : column + width]
        assert part.shape == (height, width)
        assert np.isin(part, (-1, numbers[place.block])).all()
        part[...] = numbers[place.block]
    return canvas


@pytest.mark.parametrize("shape", [(100, 173), (64, 64), (65, 300), (211, 97)])
@pytest.mark.parametrize(
    ("size", "stride", "gap", "block"), [(16, 16, 4, 2), (16, 10, 1, 3), (20, 20, 0, 1), (7, 7, 9, 4)]
)
def test_blocks_are_apart_by_the_gap_and_the_rest_is_in_chips(shape, size, stride, gap, block):
    places = lay_out_chips(shape, size, stride, gap, block)
    canvas = paint_blocks(places, shape)
    if gap:  # from any pixel of a block to those of others
        for axis in (0, 1):
            for away in range(1, gap + 1):
                one, other = (np.moveaxis(canvas, axis, 0)[part] for part in (slice(away, None), slice(None, -away)))
                assert ((one == other) | (one < 0) | (other < 0)).all()
    used = canvas >= 0
    for lines in (
        used.any(axis=1),
        used.any(axis=0),
    ):  # what is left out is gaps, and less than half a chip at the edge
        inside = lines[: np.flatnonzero(lines)[-1] + 1]
        runs = np.diff(np.flatnonzero(np.diff(np.r_[1, inside, 1])))[::2]
        assert runs.max(initial=0) <= gap
        assert 2 * (len(lines) - len(inside)) < size


def test_chips_of_a_block_are_neighbours_by_their_ids_and_no_others():
    places = lay_out_chips((150, 190), 16, 16, 2, 3)
    blocks = {f"scene_{place.index[0]:04d}_{place.index[1]:04d}": place.block for place in places}
    assert len(blocks) == len(places)
    groups = find_blocks(blocks, "chips")
    for chip, other in zip(blocks, [*blocks][1:], strict=False):
        assert (groups[chip] == groups[other]) == (blocks[chip] == blocks[other])
    assert len(set(groups.values())) == len(set(blocks.values()))


def test_a_large_scene_has_about_a_hundred_blocks():
    blocks = {place.block for place in lay_out_chips((20_000, 20_000), 512, 512, 32)}
    assert 100 <= len(blocks) <= 200
    assert len({place.block for place in lay_out_chips((3660, 3660), 512, 512, 32)}) > 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 200}, "size: expected chips within the scene of 100 x 150 pixels, found a side of 200"),
        ({"size": 0}, "size: expected at least 1"),
        ({"stride": 0}, "stride: expected at least 1"),
        ({"gap": -1}, "gap: expected at least 0"),
        ({"block": -2}, "block: expected at least 1"),
    ],
)
def test_layouts_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        lay_out_chips((100, 150), **{"size": 16, "stride": 16, **options})


def make_blocks(seed=0, chips=120):
    """Chips in blocks of four, a class that is everywhere, one in clusters, and one in three blocks alone."""
    rng = np.random.default_rng(seed)
    blocks = {f"c{number:03d}": f"b{number // 4:02d}" for number in range(chips)}
    pixels = {
        chip: [int(rng.integers(50, 150)), int(200 * (number % 40 < 12)), int(90 * (number // 4 in (3, 11, 20)))]
        for number, chip in enumerate(blocks)
    }
    return pixels, blocks


def test_splits_have_their_fraction_of_every_class_and_blocks_stay_whole():
    pixels, blocks = make_blocks()
    splits = split_chips(pixels, blocks, (0.7, 0.15, 0.15))
    assert sorted(chip for chips in splits.values() for chip in chips) == sorted(pixels)
    sums = {split: np.sum([pixels[chip] for chip in chips], axis=0) for split, chips in splits.items()}
    shares = np.array([sums[split] for split in ("train", "validation", "test")]) / sum(sums.values())
    np.testing.assert_allclose(shares[:, :2], [[0.7] * 2, [0.15] * 2, [0.15] * 2], atol=0.08)
    assert (shares[:, 2] > 0).all()  # one of three blocks each
    of = {blocks[chip]: split for split, chips in splits.items() for chip in chips}
    assert all(of[blocks[chip]] == split for split, chips in splits.items() for chip in chips)


def test_the_seed_alone_decides():
    pixels, blocks = make_blocks()
    mixed = {chip: pixels[chip] for chip in sorted(pixels, reverse=True)}
    assert split_chips(pixels, blocks, (0.6, 0.2, 0.2), 3) == split_chips(mixed, blocks, (0.6, 0.2, 0.2), 3)
    assert split_chips(pixels, blocks, (0.6, 0.2, 0.2), 3) != split_chips(pixels, blocks, (0.6, 0.2, 0.2), 4)


def test_a_split_of_nothing_is_not_made():
    assert set(split_chips(*make_blocks(), (0.8, 0.2, 0))) == {"train", "validation"}


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0, 0.5, 0.5), (0.7, -0.1, 0.4), (2, 0.1, 0.1)])
def test_fractions_that_are_none_are_refused(fractions):
    with pytest.raises(ValueError, match="fractions: expected three from 0 to 1"):
        split_chips(*make_blocks(), fractions)


def test_too_few_blocks_are_refused_with_the_remedy():
    pixels, blocks = make_blocks(chips=8)
    with pytest.raises(ValueError, match=r"at least 3 blocks.* found 8 chips in 2. Give a smaller size, block or gap"):
        split_chips(pixels, blocks, (0.7, 0.15, 0.15))
