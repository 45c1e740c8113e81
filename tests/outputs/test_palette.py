# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Class colours."""

import pytest

from prithvi_hf.outputs.palette import class_palette, default_colors, parse_color


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


def test_number_of_colors_must_be_that_of_classes():
    with pytest.raises(ValueError, match="each of 3 classes, found 2"):
        class_palette(3, ["#000000", "#ffffff"])
