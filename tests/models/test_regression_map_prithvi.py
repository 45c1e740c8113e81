"""Maps of values: statistics, files, pictures and objects of other packages."""

import sys

import numpy as np
import pytest
import rasterio
from matplotlib.image import imread
from rio_cogeo import cog_validate

from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.models.prithvi.regression_map_prithvi import Quantity, RegressionMap, measure_values
from prithvi_hf.scenes import write_value_map
from tests.scene_factory import BIOMASS, CRS_UTM, TRANSFORM


NAN = float("nan")


def make_map(height=40, width=60, **options):
    values = np.random.default_rng(0).normal(100, 30, (height, width)).astype(np.float32)
    values[:4] = NAN
    return RegressionMap(values, "canopy height", "m", **{"crs": CRS_UTM, "transform": TRANSFORM, **options})


@pytest.mark.parametrize("parts", [1, 7])
@pytest.mark.parametrize("shift", [0, 1e6])
def test_values_are_measured_together_whatever_their_parts(parts, shift):
    values = make_map().values.astype(np.float64) + shift
    found = measure_values(np.array_split(values, parts))
    valid = values[~np.isnan(values)]
    expected = {"pixels": valid.size, "mean": valid.mean(), "std": valid.std(), "min": valid.min(), "max": valid.max()}
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_map_without_data_has_no_statistics():
    found = measure_values([np.full((2, 3), NAN), np.empty((0, 3))])
    assert found == {"pixels": 0, "mean": None, "std": None, "min": None, "max": None}


@pytest.mark.parametrize(
    ("config", "title"),
    [(PrithviConfig(**BIOMASS), "aboveground biomass (Mg/ha)"), (PrithviConfig(), "value")],
)
def test_the_configuration_says_what_the_values_are(config, title):
    assert Quantity.of(config).title == title


def test_the_file_holds_values_name_unit_and_place(tmp_path):
    result = make_map(600, 700)
    result.to_geotiff(tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert (dataset.dtypes, dataset.descriptions, dataset.units) == (("float32",), ("canopy height",), ("m",))
        assert (dataset.crs, tuple(dataset.transform)) == (CRS_UTM, tuple(TRANSFORM))
        assert np.isnan(dataset.nodata)
        np.testing.assert_array_equal(dataset.read(1), result.values)
        assert dataset.overviews(1) == [2]
    assert cog_validate(tmp_path / "map.tif", strict=True)[0]
    assert result.statistics()["pixels"] == 596 * 700
    assert repr(result) == "RegressionMap(600 x 700 pixels of canopy height (m), crs=EPSG:32720)"


def test_a_map_without_a_place_warns_and_one_of_another_form_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="without, which no other program can place"):
        make_map(crs=None, transform=None).to_geotiff(tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert dataset.crs is None
    with pytest.raises(ValueError, match="array of floats, found uint8"):
        write_value_map(tmp_path / "other.tif", np.zeros((4, 4), np.uint8))
    assert not (tmp_path / "other.tif").exists()


def test_a_data_array_says_what_its_values_are():
    pytest.importorskip("xarray")
    result = make_map()
    array = result.to_xarray()
    assert (array.dims, array.name, array.attrs["units"]) == (("y", "x"), "values", "m")
    assert array.attrs["long_name"] == "canopy height"
    np.testing.assert_array_equal(array.values, result.values)
    assert "units" not in RegressionMap(result.values).to_xarray().attrs


@pytest.mark.parametrize("rgb", [None, np.full((40, 60, 4), 200, np.uint8)])
@pytest.mark.parametrize("values", [make_map().values, np.full((40, 60), NAN, np.float32), np.ones((40, 60))])
def test_a_picture_has_colours_for_any_values(tmp_path, values, rgb):
    RegressionMap(values, "price in $", rgb=rgb).to_png(tmp_path / "map.png")
    height, width, _ = imread(tmp_path / "map.png").shape
    assert (width > 1.5 * height) or rgb is None


def test_without_the_package_the_message_names_what_is_left(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "prithvi_hf.outputs.cog", None)
    with pytest.raises(ImportError, match=r"take `\.values`"):
        make_map().to_geotiff(tmp_path / "map.tif")
