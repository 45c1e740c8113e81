# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Figures with a canvas of their own: shown by a notebook, written whole or not at all, unknown to pyplot."""

import io
import subprocess
import sys

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from prithvi_hf.outputs.figures import escape_label, make_figure, save_chart, save_picture


def test_a_notebook_gets_the_picture_of_a_figure():
    figure = make_figure(4.0, 2.0)
    figure.subplots().plot([0, 1], [1, 0])
    picture = imread(io.BytesIO(figure._repr_png_()))
    assert isinstance(figure, Figure)
    assert picture.shape[1] > picture.shape[0] > 100
    assert picture[..., :3].min() < 0.5


def test_pyplot_does_not_know_of_a_figure():
    code = (
        "import sys; from prithvi_hf.outputs.figures import make_figure; make_figure(1.0, 1.0)._repr_png_();"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_chart_has_its_size_and_a_picture_ends_where_it_ends(tmp_path):
    figure = make_figure(5.0, 3.0)
    figure.text(0.4, 0.5, "small")
    save_chart(figure, tmp_path / "chart.png")
    save_picture(figure, tmp_path / "picture.png")
    chart, picture = (imread(tmp_path / name) for name in ("chart.png", "picture.png"))
    assert chart.shape[:2] == (360, 600)
    assert picture.shape[1] < 200


def test_a_file_that_cannot_be_written_is_absent(tmp_path):
    figure = make_figure(2.0, 2.0)
    figure.text(0, 0, "$unfinished{$")
    with pytest.raises(ValueError, match="unfinished"):
        save_chart(figure, tmp_path / "chart.png")
    assert not list(tmp_path.iterdir())


def test_names_are_no_formulas_and_no_hidden_entries():
    assert escape_label("_a$b$") == r"a\$b\$"
