"""Splits by group: determinism, fractions, and that no group is on two sides."""

import random

import pytest

from prithvi_hf.data.builders.splits import (
    arrange_splits,
    check_split_options,
    divide_groups,
    find_blocks,
    find_tiles,
)


FRACTIONS = {"train": 70, "validation": 15, "test": 15}


def arrange(scheme, seed, find_groups, **ids):
    """Ids by split of rows that hold nothing but an id."""
    rows = {split: [{"id": chip} for chip in chips] for split, chips in ids.items()}
    splits = arrange_splits("x", rows, scheme, seed, find_groups, "tiles")
    return {split: [row["id"] for row in part] for split, part in splits.items()}


def chips_of_tiles(tiles, per_tile):
    return {f"T{10 + i % 50}S{chr(65 + i % 8)}B_chip{j}": f"tile{i}" for i in range(tiles) for j in range(per_tile)}


@pytest.mark.parametrize(
    ("name", "tile"),
    [
        ("subsetted_512x512_HLS.S30.T10SEH.2018190.v1.4", "10SEH"),
        ("T10SFG_chip22", "10SFG"),
        ("scene_m01_T10SFG_chip22.tif", "10SFG"),
    ],
)
def test_tiles_in_names(name, tile):
    assert find_tiles([name], "x") == {name: tile}


@pytest.mark.parametrize("name", ["T10SFGX_chip1", "XT10SFG_chip1", "chip_328_501", "T10SIO.x"])  # no I, no O
def test_names_that_look_like_tiles(name):
    with pytest.raises(ValueError, match=name):
        find_tiles([name], "x")


def test_names_without_a_tile_are_refused():
    with pytest.raises(ValueError, match=r"x: expected an MGRS tile.*found none in 2: a, b"):
        find_tiles(["a", "T10SFG_chip1", "b"], "x")


@pytest.mark.parametrize("per_tile", [1, 4])
def test_division_keeps_groups_together_and_comes_near_the_fractions(per_tile):
    groups = chips_of_tiles(100, per_tile)
    parts = divide_groups(groups, FRACTIONS, 0, "x", "tiles")
    assert sorted(chip for chips in parts.values() for chip in chips) == sorted(groups)
    tiles = {split: {groups[chip] for chip in chips} for split, chips in parts.items()}
    assert not tiles["train"] & tiles["test"]
    assert not tiles["train"] & tiles["validation"]
    assert not tiles["validation"] & tiles["test"]
    for split, fraction in FRACTIONS.items():
        assert abs(len(parts[split]) / len(groups) - fraction / 100) < 0.03


def test_division_follows_from_names_and_seed_alone():
    groups = chips_of_tiles(40, 3)
    shuffled = list(groups.items())
    random.Random(0).shuffle(shuffled)
    assert divide_groups(groups, FRACTIONS, 3, "x", "tiles") == divide_groups(
        dict(shuffled), FRACTIONS, 3, "x", "tiles"
    )
    assert divide_groups(groups, FRACTIONS, 3, "x", "tiles") != divide_groups(groups, FRACTIONS, 4, "x", "tiles")
    # Written down once: another machine, release or process must give the same.
    small = {f"chip{i}": f"tile{i}" for i in range(6)}
    assert divide_groups(small, FRACTIONS, 0, "x", "tiles") == {
        "train": ["chip0", "chip2", "chip4", "chip5"], "validation": ["chip3"], "test": ["chip1"],
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_three_groups_fill_three_splits_even_when_one_is_huge(seed):
    groups = {f"a{i}": "a" for i in range(50)} | {"b1": "b", "c1": "c"}
    assert all(divide_groups(groups, FRACTIONS, seed, "x", "tiles").values())


def test_too_few_groups():
    with pytest.raises(ValueError, match=r"x: expected chips of at least 3 tiles.*found 2: p, q\. Add chips"):
        divide_groups({"a": "p", "b": "q", "c": "q"}, FRACTIONS, 0, "x", "tiles")


def test_grid_blocks_join_what_touches():
    chips = ["chip_328_501", "chip_329_502", "chip_330_503", "chip_328_503", "chip_100_200", "chip_0100_0200"]
    blocks = find_blocks(chips, "x")
    joined = {chip for chip in chips if blocks[chip] == blocks["chip_328_501"]}
    assert joined == {"chip_328_501", "chip_329_502", "chip_330_503", "chip_328_503"}
    assert blocks["chip_100_200"] == blocks["chip_0100_0200"]
    with pytest.raises(ValueError, match=r"x: expected ids that end in a row and a column.*found other"):
        find_blocks(["other"], "x")


def test_published_gives_the_validation_chips_twice():
    splits = arrange("published", 0, find_tiles, train=["b", "a"], validation=["d", "c"])
    assert splits == {"train": ["b", "a"], "validation": ["d", "c"], "test": ["d", "c"]}


def test_three_way_leaves_out_training_chips_of_test_groups(caplog):
    train, validation = ["p1", "q1", "r1", "s1"], ["p2", "q2"]

    def find_groups(chips, name):
        return {chip: chip[0] for chip in chips}

    splits = arrange("three_way", 0, find_groups, train=train, validation=validation)
    (test,) = splits["test"]
    assert {test, *splits["validation"]} == {"p2", "q2"}
    assert splits["train"] == [chip for chip in train if chip[0] != test[0]]
    assert "1 of 4 training chips are left out" in caplog.text


def test_three_way_that_leaves_nothing_to_train_on():
    groups = {"p1": "p", "p2": "p", "q2": "q"}

    with pytest.raises(ValueError, match=r"leaves none of 1 training chips.*Choose another split_seed"):
        [
            arrange("three_way", seed, lambda chips, name: groups, train=["p1"], validation=["p2", "q2"])
            for seed in range(20)
        ]


def test_a_chip_in_both_splits():
    with pytest.raises(ValueError, match=r"x: expected training and validation chips to differ, found 1 in both: b"):
        arrange("published", 0, find_tiles, train=["a", "b"], validation=["b", "c"])


@pytest.mark.parametrize("options", [{"seed": "1"}, {"seed": True}, {"seed": None}, {"seed": 0, "scheme": "random"}])
def test_wrong_options(options):
    with pytest.raises(ValueError, match="expected split_s"):
        check_split_options("x", **options)
