# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures, areas and degrees of the page against what the files hold."""

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from prithvi_hf import predict_scene
from prithvi_hf.demo.pictures import confidence_colors, make_grid_lines, measure_map
from prithvi_hf.outputs.palette import class_palette
from prithvi_hf.rasters.raster import find_degrees
from prithvi_hf.rasters.warping import Grid
from tests.scene_factory import (
    CRS_UTM,
    LABELS,
    TRANSFORM,
    read_map,
    scene_pixels,
    tiny_model,
    tiny_processor,
    write_scene,
)


@pytest.fixture(scope="module")
def scene_file(tmp_path_factory):
    pixels = scene_pixels(90, 72)
    pixels[:, :20, :30] = -9999
    return write_scene(tmp_path_factory.mktemp("scene") / "scene.tif", pixels)


@pytest.fixture(scope="module")
def result(scene_file):
    options = {"confidence": True, "probabilities_dtype": "uint8", "show_progress": False}
    return predict_scene(tiny_model(), tiny_processor(), scene_file, scene_file.parent / "map.tif", **options)


def test_the_figures_of_a_map_are_those_of_its_pixels(result):
    figures = measure_map(result, has_place=True)
    mask, sure = read_map(result.path), read_map(result.outputs["confidence"])
    assert [row.name for row in figures.rows] == list(LABELS.values())
    assert figures.nodata_fraction == (mask == 255).mean() == 20 * 30 / (90 * 72)
    for index, row in enumerate(figures.rows):
        assert row.pixels == (mask == index).sum()
        assert row.fraction == pytest.approx((mask == index).sum() / (mask != 255).sum())
        assert row.square_metres == pytest.approx(row.pixels * 100, rel=2e-3)  # 10 m pixels of UTM
        assert row.confidence == pytest.approx((sure[mask == index] / 254).mean())
    palette = class_palette(3, names=list(LABELS.values()))
    painted = np.array([(*color, 255) for color in palette], dtype=np.uint8)[np.where(mask == 255, 0, mask)]
    painted[mask == 255] = 0
    assert np.array_equal(figures.classes, painted)
    assert np.array_equal(figures.confidence[..., 3] == 0, mask == 255)


def test_a_map_without_a_place_has_no_areas(result):
    assert [row.square_metres for row in measure_map(result, has_place=False).rows] == [None] * 3


def test_the_colours_of_confidence_begin_at_equal_probabilities():
    colors = confidence_colors(2)
    assert np.array_equal(colors[127], colors[0])
    assert not np.array_equal(colors[160], colors[127])
    assert colors[255].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (CRS_UTM, TRANSFORM),
        (CRS.from_epsg(4326), Affine(0.0003, 0, 179.99, 0, -0.0003, 10.0)),  # across 180 degrees
        (CRS_UTM, TRANSFORM @ Affine.rotation(30)),
    ],
)
def test_lines_of_degrees_are_where_they_say(crs, transform):
    lines = make_grid_lines(Grid(crs, transform, 300, 400))
    assert {line.is_meridian for line in lines} == {True, False}
    for line in lines:
        x, y = (line.points * (400, 300)).T
        a, b, c, d, e, f = transform[:6]
        degrees = find_degrees(crs, a * x + b * y + c, d * x + e * y + f, "test")[0 if line.is_meridian else 1]
        number, letter = line.label.split("° ")
        value = float(number) * (1 if letter in "EN" else -1)
        assert np.allclose(np.remainder(degrees - value + 180, 360) - 180, 0, atol=1e-6), line.label


def test_no_lines_where_nothing_tells_the_place():
    assert make_grid_lines(Grid(None, TRANSFORM, 30, 40)) == []
    assert make_grid_lines(Grid(CRS.from_wkt('LOCAL_CS["here",UNIT["metre",1]]'), TRANSFORM, 30, 40)) == []
    polar = Grid(CRS.from_epsg(3413), Affine(1000, 0, -20000, 0, -1000, 20000), 40, 40)  # around the pole
    assert make_grid_lines(polar) == []
