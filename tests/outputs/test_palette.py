# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Class colours."""

import pytest

from prithvi_hf.outputs.palette import class_palette, default_colors, format_color, parse_color


def test_default_colors_are_distinct_for_every_possible_class():
    assert len(set(default_colors(255))) == 255


def test_first_default_colors_do_not_depend_on_the_number_of_classes():
    assert default_colors(40)[:7] == default_colors(7)


def test_palette_reads_the_models_colors():
    assert class_palette(2, ["#ff0080", "#000aFF"]) == [(255, 0, 128), (0, 10, 255)]


@pytest.mark.parametrize("color", ["red", "#fff", "#12345g", "123456", "#1234567", 3, None])
def test_malformed_color_is_refused(color):
    with pytest.raises(ValueError, match="rrggbb"):
        parse_color(color)


def test_a_color_is_written_as_it_is_read():
    for color in default_colors(20):
        assert format_color(parse_color(color)) == color
    assert format_color((0, 10, 255, 128)) == "#000aff"  # with alpha


def test_number_of_colors_must_be_that_of_classes():
    with pytest.raises(ValueError, match="each of 3 classes, found 2"):
        class_palette(3, ["#000000", "#ffffff"])


def hue(color: str) -> str:
    """Say roughly what colour it is."""
    red, green, blue = parse_color(color)
    if max(red, green, blue) - min(red, green, blue) < 30:
        return "white" if min(red, green, blue) > 235 else "grey"
    return ("red", "green", "blue")[(red, green, blue).index(max(red, green, blue))]


@pytest.mark.parametrize(
    ("names", "hues"),
    [
        (("dry land", "open_water"), {1: "blue"}),
        (("Unburned", "BurnScar"), {1: "red"}),
        (("non-forest", "PrimaryForest", "wildfire"), {1: "green", 2: "red"}),
        (("clear", "thick clouds", "cloud shadow", "Snow/Ice"), {1: "white", 2: "grey", 3: "blue"}),
        (("Built-up", "trees", "flooded area", "permanent water"), {0: "grey", 1: "green", 2: "blue", 3: "blue"}),
    ],
)
def test_classes_have_the_colours_that_their_names_mean(names, hues):
    colors = default_colors(len(names), names)
    assert {index: hue(colors[index]) for index in hues} == hues
    assert len(set(colors)) == len(names)
    if 0 not in hues:
        assert colors[0] == default_colors(1)[0]  # neutral


def test_yellow_crops_and_brown_soil_are_warm_and_equal_meanings_differ():
    names = ["winter wheat", "Corn", "bare soil", *["crop"] * 12]
    colors = default_colors(len(names), names)
    assert len(set(colors)) == len(names)
    for color in colors[:3]:
        red, green, blue = parse_color(color)
        assert red > green > blue


def test_classes_whose_names_say_nothing_stay_apart_from_those_that_do():
    colors = [parse_color(color) for color in default_colors(6, ["a", "b", "water", "c", "lake", "d"])]
    for index, color in enumerate(colors):
        for other in colors[index + 1 :]:
            assert sum(abs(one - two) for one, two in zip(color, other, strict=True)) > 60
