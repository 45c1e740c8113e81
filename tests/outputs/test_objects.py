# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Maps as a DataArray of xarray and a GeoDataFrame of geopandas, in memory and from files."""

import sys
import warnings

import geopandas
import numpy as np
import pytest
import rasterio
from affine import Affine

from prithvi_hf.models.prithvi.segmentation_map_prithvi import SegmentationMap
from prithvi_hf.scenes import predict_scene
from tests.scene_factory import CRS_UTM, LABELS, TRANSFORM, scene_pixels, tiny_model, tiny_processor, write_scene


NAMES = {0: "dry land", 1: "water", 2: "water"}


def make_map(**options):
    mask = np.zeros((30, 40), np.uint8)
    mask[3:9, 5:25], mask[20:25, 30:35], mask[:, 38:] = 1, 2, 255
    place = {"crs": CRS_UTM, "transform": TRANSFORM, **options}
    return SegmentationMap(mask, id2label=NAMES, **place)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("map")
    scene = write_scene(folder / "scene.tif", scene_pixels(40, 45))
    options = {"probabilities": True, "polygons": True, "class_values": {0: 7}, "show_progress": False}
    return predict_scene(tiny_model(), tiny_processor(), scene, folder / "map.tif", **options)


@pytest.mark.parametrize("transform", [TRANSFORM, Affine(10, 0, 500_000, 0, 10, 8_000_000)])
def test_a_data_array_holds_map_place_and_classes(transform):
    pytest.importorskip("xarray")
    result = make_map(transform=transform)
    array = result.to_xarray()
    assert (array.dims, array.dtype, array.name) == (("y", "x"), np.uint8, "classes")
    np.testing.assert_array_equal(array.values, result.mask)
    a, _, c, _, e, f = transform[:6]
    assert (array.x.values[0], array.y.values[-1]) == pytest.approx((c + a / 2, f + 29.5 * e), abs=1e-9)
    assert array.attrs["flag_meanings"] == "dry_land water water"
    assert array.attrs["flag_values"].tolist() == [0, 1, 2]


def test_rioxarray_reads_the_place_and_writes_a_file(tmp_path):
    pytest.importorskip("rioxarray")
    array = make_map().to_xarray()
    assert (array.rio.crs, array.rio.nodata) == (CRS_UTM, 255)
    assert tuple(array.rio.transform()) == pytest.approx(tuple(TRANSFORM), abs=1e-6)
    array.rio.to_raster(tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert (dataset.crs, dataset.nodata) == (CRS_UTM, 255)


def test_maps_without_a_place_and_rotated_ones_have_no_coordinates():
    pytest.importorskip("xarray")
    assert not make_map(crs=None, transform=None).to_xarray().coords
    rotated = make_map(transform=Affine(7, 7, 4e5, 7, -7, 8e6)).to_xarray()
    assert list(rotated.coords) == ["spatial_ref"]
    assert rotated.spatial_ref.attrs["GeoTransform"] == "400000.0 7.0 7.0 8000000.0 7.0 -7.0"


def test_probabilities_are_an_array_where_they_were_asked_for(written):
    assert written.probabilities.shape == (3, 40, 45)
    pytest.importorskip("xarray")
    array = written.to_xarray(probabilities=True)
    assert array.dims == ("class", "y", "x")
    assert array["class"].values.tolist() == list(LABELS.values())
    np.testing.assert_array_equal(array.argmax("class"), written.to_xarray())
    with pytest.raises(ValueError, match="holds no probabilities: ask for them with `probabilities=True`"):
        make_map().to_xarray(probabilities=True)


def test_polygons_of_a_map_in_memory():
    polygons = make_map().to_polygons()
    assert isinstance(polygons, geopandas.GeoDataFrame)
    assert polygons.crs.to_epsg() == 32720
    assert list(polygons.columns) == ["class_value", "class_name", "area_m2", "geometry"]
    areas = dict(zip(polygons.class_value, polygons.area_m2, strict=True))
    assert areas[1] == pytest.approx(120 * 100, rel=2e-3)
    assert areas[2] == pytest.approx(25 * 100, rel=2e-3)
    assert set(make_map().to_polygons(polygon_classes=["water"]).class_value) == {1, 2}
    assert set(make_map().to_polygons(min_area=5000).class_value) == {0, 1}


def test_polygons_of_a_written_map_are_those_of_its_file(written):
    polygons = written.to_polygons()
    file = geopandas.read_file(written.outputs["polygons"])
    assert polygons.class_name.tolist() == file.class_name.tolist()
    np.testing.assert_allclose(polygons.area_m2, file.area_m2)
    np.testing.assert_allclose(polygons.mean_probability, file.mean_probability, atol=1e-6)
    assert set(written.to_polygons(polygon_classes=[7]).class_value) == {7}


def test_polygons_need_a_place_and_classes_of_the_map():
    with pytest.raises(ValueError, match="The map: expected a CRS"):
        make_map(crs=None, transform=None).to_polygons()
    with pytest.raises(ValueError, match="found \\['ice'\\]"):
        make_map().to_polygons(polygon_classes=["ice"])


@pytest.mark.parametrize(("place", "warned"), [({}, False), ({"crs": None}, True), ({"transform": None}, True)])
def test_writing_a_map_without_a_place_warns(tmp_path, place, warned):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        make_map(**place).to_geotiff(tmp_path / "map.tif")
    assert any("found one without, which no other program" in str(one.message) for one in found) == warned


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match="needs the package xarray"):
        make_map().to_xarray()
