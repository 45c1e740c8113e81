# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The HTML of the page: what it holds, and that texts of others stay texts."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prithvi_hf.demo.jobs import MapView, SceneView
from prithvi_hf.demo.page import draw_legend, draw_map, draw_scene, escape, format_area
from prithvi_hf.demo.pictures import ClassFigures, MapFigures
from prithvi_hf.scenes import open_scene
from tests.scene_factory import tiny_processor, write_scene


HOSTILE = "<img src=x onerror=alert(1)>{{value}}${value}"


@pytest.fixture
def view(tmp_path):
    scene = open_scene(write_scene(tmp_path / "scene.tif"), tiny_processor(), name=HOSTILE)
    picture = np.random.default_rng(0).integers(0, 255, (72, 90, 4), dtype=np.uint8)
    picture[..., 3] = 255
    rows = [
        ClassFigures(HOSTILE, "#e3ddcb", 3000, 0.75, 300_000.0, 0.9),
        ClassFigures("water", "#0072b2", 1000, 0.25, 90_000.0, None),
    ]
    figures = MapFigures(picture, picture[::-1], rows, 0.125)
    return MapView(SceneView(scene, "scene", picture), figures, [Path("map.tif")], 1.5, ["Note <b>"])


def test_texts_of_users_and_models_stay_texts(view):
    for text in (draw_scene(view.view), draw_map(view), draw_legend(view, True)):
        assert "<img src=x" not in text
        assert "{{" not in text
        assert "${" not in text
    assert "Note &lt;b&gt;" in draw_legend(view, True)
    assert escape("a{b`") == "a&#123;b&#96;"


def test_the_page_holds_the_pixels_themselves(view):
    text = draw_map(view)
    kinds = re.findall(r'<img class="(.*?)"', text)
    assert kinds == ["", "pd-classes", "pd-confidence"]
    contents = re.findall(r'src="data:image/webp;base64,([^"]+)"', text)
    classes = np.array(Image.open(io.BytesIO(base64.b64decode(contents[1]))).convert("RGBA"))
    assert np.array_equal(classes, view.figures.classes)
    assert "http" not in re.sub(r'href="https://www.openstreetmap.org/[^"]*"', "", text)


def test_pictures_and_the_slider_have_words_for_those_who_do_not_see_them(view):
    text = draw_map(view)
    assert all(alt for alt in re.findall(r'<img [^>]*alt="(.*?)"', text))
    assert "water 25.0 %" in text
    assert 'type="range"' in text
    assert "aria-label=" in text


def test_the_legend_has_areas_fractions_and_what_the_confidence_means(view):
    text = draw_legend(view, is_calibrated=True)
    assert "<td>0.30</td>" in text
    assert "<td>0.0900</td>" in text
    assert "25.00 %" in text
    assert "no data: 12.5 %" in text
    assert "is calibrated" in text
    assert "is not calibrated" in draw_legend(view, is_calibrated=False)


def test_areas_of_small_classes_keep_their_digits():
    assert format_area(1_234_567_890) == "1,234.57"
    assert format_area(900) == "0.0009"
