# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Charts as SVG: every point is in the frame, names are text, and what was not measured says so."""

import re
from xml.etree import ElementTree

from prithvi_hf.training.report_charts import draw_lines


def places_in(svg):
    circles = ElementTree.fromstring(svg).iter("circle")
    return [(float(circle.get("cx")), float(circle.get("cy"))) for circle in circles]


def test_points_are_placed_by_their_values():
    svg = str(draw_lines({"loss": [(0, 1.0), (10, 3.0), (20, 2.0), (25, float("nan"))]}, "step"))
    (x1, y1), (x2, y2), (x3, y3) = places_in(svg)
    assert x2 - x1 == x3 - x2 > 0
    assert round(y1 - y3, 1) == round(y3 - y2, 1) > 0  # up is more
    _, _, width, height = (float(number) for number in re.search('viewBox="(.*?)"', svg).group(1).split())
    assert all(0 < x < width and 0 < y < height for x, y in places_in(svg))


def test_a_single_point_and_equal_values_are_drawn():
    assert len(places_in(str(draw_lines({"loss": [(3, 0.5)]}, "step")))) == 1
    assert len(places_in(str(draw_lines({"loss": [(3, 0.5), (4, 0.5)]}, "step")))) == 2


def test_names_are_text_and_nothing_is_said():
    chart = str(draw_lines({"<b>": [(0, 1), (1, 2)], "other": [(0, 1)]}, "<i>"))
    assert "&lt;b&gt;" in chart
    assert "<b>" not in chart
    assert "&lt;i&gt;" in chart
    assert "Nothing was measured" in draw_lines({"loss": []}, "step")
