# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Groups of chips: from ids, columns, tables and patterns, and what cannot give them."""

import datasets
import pytest

from prithvi_hf import PrithviImageProcessor, load_dataset
from prithvi_hf.data.chip_cache import cache_chips
from prithvi_hf.data.groups import GROUPINGS, check_group_by, find_groups
from prithvi_hf.training.recipe import read_recipe
from tests.raster_factory import make_sen1floods11


@pytest.fixture(scope="module")
def floods(tmp_path_factory):
    root = tmp_path_factory.mktemp("floods")
    data = make_sen1floods11(root / "data", {"train": ("Ghana_1", "Mekong_2", "Ghana_30")})
    return load_dataset("sen1floods11", data, split="train", cache_dir=str(root / "cache"))


def chips_of(*ids, **columns):
    return datasets.Dataset.from_dict({"id": list(ids), **columns})


def test_events_and_countries_of_flood_chips(floods):
    assert find_groups(floods, "event") == ["Ghana", "Mekong", "Ghana"]
    assert find_groups(floods, "country") == ["GHA", "CAM", "GHA"]
    assert find_groups(floods, "date") == ["2018-09-19", "2018-08-04", "2018-09-19"]


def test_decoded_chips_have_the_groups_of_their_files(floods, tmp_path):
    processor = PrithviImageProcessor(band_indices=[1, 2, 3, 8, 11, 12], num_labels=2, ignore_values=[-1])
    cached = cache_chips(floods, processor, "train", tmp_path, show_progress=False)
    assert find_groups(cached, "country") == find_groups(floods, "country")


def test_tiles_and_blocks():
    tiles = chips_of("HLS.S30.T10SEH.2018190.v1.4", "HLS.S30.T11SNT.2018190.v1.4")
    assert find_groups(tiles, "tile") == ["10SEH", "11SNT"]
    blocks = find_groups(chips_of("chip_5_5", "chip_9_9", "chip_6_6"), "block")
    assert blocks[0] == blocks[2] != blocks[1]


def test_a_pattern_names_the_group():
    assert find_groups(chips_of("s2_a1", "s2_b7"), r"_(?P<group>[a-z])\d") == ["a", "b"]
    # One group for each row, also where two images have one id.
    assert find_groups(chips_of("s2_a1", "s2_b7", "s2_a1"), r"_(?P<group>[a-z])\d") == ["a", "b", "a"]


def test_a_table_gives_the_group_of_each_chip(tmp_path):
    table = tmp_path / "groups.csv"
    table.write_text("group,chip,note\nnorth,b,x\nsouth,a,\nnorth,c,of another split\n")
    assert find_groups(chips_of("a", "b"), str(table)) == ["south", "north"]


def test_several_dates_are_one_group():
    chips = chips_of("a", dates=[["2022-03-01", None, "2022-09-01"]])
    assert find_groups(chips, "dates") == ["2022-03-01, 2022-09-01"]


@pytest.mark.parametrize(
    ("group_by", "message"),
    [
        ("event", "in the id of each chip to group them, found it not in 1: b"),
        ("tile", "MGRS tile .* found none in 2: a_1, b"),
        ("block", "row and a column"),
        ("basin", r"a column \(river\), one of event, tile, block"),
        ("river", "a group for each of 2 chips in the column river, found none for 1: b"),
        ("id", "a column"),
        ("absent.csv", r"text file at absent\.csv"),
    ],
)
def test_chips_without_a_group_are_named(group_by, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find_groups(chips_of("a_1", "b", river=["Rhine", None]), group_by)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chip,basin\na,x\n", r"found \['chip', 'basin'\]: group missing"),
        ("chip,group\na,x\na,y\n", "found x and y for a"),
        ("chip,group\nb,x\n", "found none for 1: a"),
        ("chip,group\na,\n", "found none for 1: a"),
    ],
)
def test_a_table_without_the_groups_is_refused(tmp_path, text, message):
    (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        find_groups(chips_of("a"), str(tmp_path / "groups.csv"))


def test_a_pattern_that_gives_no_group_is_refused_with_the_recipe(tmp_path):
    for pattern, message in (("(?P<group>[a-z", "as a regular expression"), ("([a-z]+)_", "part named group")):
        (tmp_path / "recipe.yaml").write_text(f"dataset: sen1floods11\ngroup_by: '{pattern}'\n")
        with pytest.raises(ValueError, match=message):
            read_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(ValueError, match="as a regular expression"):
        check_group_by("(" * 5000 + ")" * 5000)
    for name in GROUPINGS:
        check_group_by(name)
