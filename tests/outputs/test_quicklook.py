# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures of maps: what is drawn, what the legend says, and how long the scale bar is."""

import math

import numpy as np
import pytest
from affine import Affine
from matplotlib.figure import Figure
from matplotlib.image import imread

from prithvi_hf.models.prithvi.segmentation_map_prithvi import stretch_colors
from prithvi_hf.outputs.quicklook import (
    PictureRow,
    draw_pictures,
    measure_width,
    paint_classes,
    thumbnail_step,
    write_quicklook,
)


NAMES = {0: "land", 1: "_water"}
UTM = {"crs": "EPSG:32720", "transform": Affine(11, 0, 500_000, 0, -11, 8_500_000)}


@pytest.fixture
def drawn(monkeypatch):
    """What the figures that are written show: texts, and colours of legends."""
    found = {"texts": [], "titles": [], "hatched": 0, "borders": 0}
    savefig = Figure.draw

    def draw(self, renderer):
        savefig(self, renderer)
        for legend in self.legends:
            found["texts"] += [text.get_text() for text in legend.get_texts()]
        for axes in self.axes:
            found["titles"].append(axes.get_title())
            found["borders"] += len(axes.collections)
            found["hatched"] += any(patch.get_hatch() for patch in axes.patches)
            for artist in axes.artists:
                found["texts"].append(artist.txt_label.get_text())

    monkeypatch.setattr(Figure, "draw", draw)
    return found


def half_empty() -> np.ndarray:
    mask = np.zeros((40, 60), np.uint8)
    mask[:, 20:40], mask[:, 40:] = 1, 255
    return mask


def test_legend_names_classes_and_no_data_and_the_bar_is_to_scale(tmp_path, drawn):
    write_quicklook(tmp_path / "a.png", half_empty(), id2label=NAMES, **UTM)
    assert set(drawn["texts"]) == {"land", "water", "no data", "200 m"}
    assert drawn["hatched"]
    assert imread(tmp_path / "a.png").shape[2] >= 3


def test_a_map_without_gaps_has_no_hatch_and_without_a_place_no_bar(tmp_path, drawn):
    write_quicklook(tmp_path / "a.png", np.zeros((40, 60), np.uint8), id2label=NAMES)
    assert set(drawn["texts"]) == {"land", "water"}
    assert not drawn["hatched"]


def test_the_bar_of_a_thinned_map_is_that_of_the_whole(tmp_path, drawn):
    write_quicklook(tmp_path / "a.png", half_empty(), id2label=NAMES, step=10, **UTM)
    assert "2 km" in drawn["texts"]


def test_pictures_of_a_scene_that_has_gaps_where_the_map_has_none_are_explained(tmp_path, drawn):
    rgb = stretch_colors(np.ones((3, 40, 60), np.float32), half_empty() != 255)
    write_quicklook(tmp_path / "a.png", np.zeros((40, 60), np.uint8), id2label=NAMES, rgb=rgb)
    assert "no data" in drawn["texts"]


def test_classes_of_one_name_have_each_an_entry_and_the_picture_its_title(tmp_path, drawn):
    names, rgb = {0: "crop", 1: "crop $a_1$", 2: "crop"}, np.full((40, 60, 4), 255, np.uint8)
    write_quicklook(tmp_path / "a.png", half_empty(), id2label=names, rgb=rgb, rgb_title="scene, date 2 of 2")
    assert {"crop (0)", r"crop \$a_1\$", "crop (2)"} < set(drawn["texts"])
    assert "scene, date 2 of 2" in drawn["titles"]


def test_nothing_of_long_titles_and_names_is_cut_off(tmp_path, drawn):
    rgb = np.full((40, 60, 4), 255, np.uint8)
    names = {0: "land", 1: "water " * 20}
    write_quicklook(tmp_path / "a.png", half_empty(), id2label=names, rgb=rgb, rgb_title="scene\nfalse colours")
    picture = imread(tmp_path / "a.png")[..., :3]
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert (edge == 1).all()
    assert max(map(len, drawn["texts"])) == 48


def test_what_has_no_data_has_a_border(tmp_path, drawn):
    write_quicklook(tmp_path / "gap.png", half_empty(), id2label=NAMES)
    borders = drawn["borders"]
    assert borders
    write_quicklook(tmp_path / "whole.png", np.zeros((40, 60), np.uint8), id2label=NAMES)
    assert drawn["borders"] == borders


def test_many_classes_are_named_where_they_are_on_the_map(tmp_path, drawn):
    names = {index: f"class {index}" for index in range(60)}
    write_quicklook(tmp_path / "a.png", half_empty(), id2label=names, present={3, 59, 255})
    assert set(drawn["texts"]) == {"class 3", "class 59", "no data"}


def test_rows_of_pictures_have_one_legend_and_their_own_bars(tmp_path, drawn):
    picture = paint_classes(half_empty(), [(0, 0, 0), (9, 9, 9)])
    rows = [PictureRow({"scene": None, "label": picture}, metres) for metres in (620.0, 35.0, None)]
    draw_pictures(
        tmp_path / "a.png", rows, id2label=NAMES, palette=[(0, 0, 0), (9, 9, 9)], present={0}, nodata_label="gap"
    )
    assert sorted(set(drawn["texts"])) == ["10 m", "200 m", "gap", "land", "water"]


def test_an_existing_picture_stays_when_the_new_one_fails(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"old")
    monkeypatch.setattr(Figure, "draw", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_quicklook(tmp_path / "a.png", half_empty(), id2label=NAMES)
    assert (tmp_path / "a.png").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_classes_are_painted_in_their_colours_and_no_data_is_transparent():
    painted = paint_classes(np.array([[0, 1, 255]], np.uint8), [(1, 2, 3), (4, 5, 6)])
    assert painted.tolist() == [[[1, 2, 3, 255], [4, 5, 6, 255], [0, 0, 0, 0]]]
    assert paint_classes(np.zeros((4000, 10), np.uint8), [(1, 2, 3)]).shape == (1334, 4, 4)
    assert thumbnail_step(1536, 1537) == 2


@pytest.mark.parametrize(
    ("crs", "transform", "expected"),
    [
        ("EPSG:32720", Affine(10, 0, 500_000, 0, -10, 8_500_000), 10),
        ("EPSG:32633", Affine(0, 20, 5e5, 20, 0, 4e6), 20),  # columns run north
        ("EPSG:4326", Affine(1e-4, 0, 10, 0, -1e-4, 60), 1e-4 * 111_195 * math.cos(math.radians(60))),
        ("EPSG:3857", Affine(10, 0, 1_113_195, 0, -10, 8_399_738), 5),  # at 60 degrees north
        ("EPSG:4326", Affine(0.25, 0, 177.375, 0, -0.25, 1.25), 0.25 * 111_195),  # across 180 degrees
        ("EPSG:2225", Affine(100, 0, 6_561_666, 0, -100, 2_000_000), 30.48),  # feet
        (None, Affine(10, 0, 0, 0, -10, 0), None),
        ("EPSG:32720", None, None),
        ('LOCAL_CS["site",UNIT["metre",1]]', Affine(10, 0, 0, 0, -10, 0), None),
    ],
)
def test_widths_are_measured_on_the_ground(crs, transform, expected):
    found = measure_width(crs, transform, 10, 20)
    assert found == (None if expected is None else pytest.approx(20 * expected, rel=0.006))
