# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Areas of the classes of a map, against the areas of its polygons."""

from itertools import pairwise

import geopandas
import numpy as np
import pyproj
import pytest
from affine import Affine
from rasterio.crs import CRS

from prithvi_hf.outputs import class_areas
from prithvi_hf.outputs.class_areas import measure_classes
from prithvi_hf.outputs.polygons import write_polygons
from tests.outputs.test_polygons import NAMES, UTM, square_with_a_hole, write_map
from tests.scene_factory import write_scene


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (UTM, Affine(10, 0, 399_960, 0, -10, 5_300_040)),
        (CRS.from_epsg(4326), Affine(0.01, 0, 10, 0, -0.01, 61)),
        (CRS.from_epsg(3857), Affine(500, 0, 0, 0, -500, 8e6)),
    ],
)
def test_areas_are_those_of_the_polygons(tmp_path, monkeypatch, crs, transform):
    class_map = write_map(tmp_path / "map.tif", square_with_a_hole(), crs, transform, class_values={1: 7})
    monkeypatch.setattr(class_areas, "_STRIP_PIXELS", 1000)  # many strips
    found = {one.value: one for one in measure_classes(class_map)}
    write_polygons(tmp_path / "p.parquet", class_map)
    areas = geopandas.read_parquet(tmp_path / "p.parquet").groupby("class_value").area_m2.sum()
    assert {value: one.name for value, one in found.items()} == {0: NAMES[0], 2: NAMES[2], 7: NAMES[1]}
    assert {value: one.pixels for value, one in found.items()} == {0: 14_300, 2: 0, 7: 9_600}
    for value, one in found.items():
        # Areas of pixels are linear between points of a lattice, which is another one for other strips.
        assert one.square_metres == pytest.approx(areas.get(value, 0.0), rel=1e-5)
    assert found[7].color.startswith("#")
    assert len({one.color for one in found.values()}) == 3


def test_pixels_are_those_of_numpy_and_areas_those_of_geodesics_row_by_row(tmp_path):
    mask = np.random.default_rng(1).choice([0, 1, 2, 255], (60, 50), p=[0.5, 0.3, 0.1, 0.1]).astype(np.uint8)
    class_map = write_map(tmp_path / "map.tif", mask, CRS.from_epsg(4326), Affine(0.02, 0, 20, 0, -0.02, 70))
    geod, edges = pyproj.Geod(ellps="WGS84"), 70 - 0.02 * np.arange(61)
    longitudes = 20 + np.linspace(0, 0.02, 21)  # a parallel is no geodesic, but short ones come close
    areas = np.array(
        [
            abs(geod.polygon_area_perimeter([*longitudes, *longitudes[::-1]], [south] * 21 + [north] * 21)[0])
            for north, south in pairwise(edges)
        ]
    )
    for one in measure_classes(class_map):
        in_rows = (mask == one.value).sum(1)
        assert one.pixels == in_rows.sum() > 0
        assert one.square_metres == pytest.approx(
            (in_rows * areas).sum(), rel=5e-6
        )  # linear between points of a lattice


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_without_a_place_there_are_pixels_alone(tmp_path):
    class_map = write_map(tmp_path / "map.tif", square_with_a_hole(), None, None)
    assert [one.square_metres for one in measure_classes(class_map)] == [None] * 3
    class_map = write_map(tmp_path / "map.tif", np.zeros((5, 5), np.uint8))
    assert [one.square_metres for one in measure_classes(class_map, has_place=False)] == [None] * 3


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a map of classes"):
        measure_classes(write_scene(tmp_path / "scene.tif"))
