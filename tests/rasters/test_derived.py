# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""One file per band, masks by flags, and scaled numbers."""

import os

import numpy as np
import pytest

from prithvi_hf.rasters.derived import BandStack, MaskedRaster, ScaledRaster
from prithvi_hf.rasters.geotiff_raster import GeoTiffError, GeoTiffRaster
from prithvi_hf.rasters.raster import ArrayRaster, find_files
from tests.rasters.test_raster import NAMES, array_raster, band_files, stack
from tests.scene_factory import scene_pixels, write_scene


def test_a_stack_reads_the_files_of_selected_bands_alone(tmp_path):
    raster = stack(tmp_path)
    os.remove(tmp_path / "nir.tif")
    np.testing.assert_array_equal(raster.read([2, 0]), scene_pixels()[[2, 0]])
    assert find_files(raster.select([2, 0])) == (str(tmp_path / "red.tif"), str(tmp_path / "blue.tif"))
    with pytest.raises(GeoTiffError, match=r"nir.tif"):
        raster.read()


def test_bands_that_do_not_fit_together_are_refused(tmp_path):
    files = band_files(tmp_path)
    other = GeoTiffRaster(write_scene(tmp_path / "other.tif", scene_pixels(72, 91, 1)))
    tagged = GeoTiffRaster(write_scene(tmp_path / "tagged.tif", scene_pixels(72, 90, 1), nodata=0))
    two = GeoTiffRaster(write_scene(tmp_path / "two.tif", scene_pixels(72, 90, 2)))
    for wrong, message in (
        (other, "90 pixels as in .*blue.tif, found 72 x 91"),
        (tagged, "tag -9999.0 as in"),
        (two, "found 2"),
    ):
        with pytest.raises(ValueError, match=message):
            BandStack([*files[:5], wrong], NAMES, name="granule")
    with pytest.raises(ValueError, match="for each of 6 band names, found 5"):
        BandStack(files[:5], NAMES, name="granule")


def test_a_stack_of_several_types_holds_all_values(tmp_path):
    first = ArrayRaster(np.full((1, 2, 2), -5, dtype=np.int16))
    second = ArrayRaster(np.full((1, 2, 2), 60_000, dtype=np.uint16))
    values = BandStack([first, second], ["a", "b"], name="granule").read()
    assert values[:, 0, 0].tolist() == [-5, 60_000]


def test_masks_of_band_files_come_together(tmp_path):
    masks = [np.zeros((2, 2), dtype=bool) for _ in range(2)]
    masks[0][0, 0] = masks[1][1, 1] = True
    bands = [ArrayRaster(np.ones((1, 2, 2), dtype=np.uint8), nodata_mask=mask) for mask in masks]
    raster = BandStack(bands, ["a", "b"], name="granule")
    assert raster.read_nodata_mask().tolist() == [[True, False], [False, True]]
    assert raster.select([1]).read_nodata_mask().tolist() == [[False, False], [False, True]]


def test_scaled_values_are_exact_and_no_data_is_found_before():
    numbers = np.arange(-9999, 30_000, dtype=np.int16).reshape(1, 1, -1)
    raster = ScaledRaster(ArrayRaster(numbers, nodata=-9999), [0.0001], [0], nodata_values=[7])
    values = raster.read()[0, 0]
    assert values.dtype == np.float32
    expected = (numbers[0, 0] / 10_000).astype(np.float32)
    missing = (numbers[0, 0] == -9999) | (numbers[0, 0] == 7)
    np.testing.assert_array_equal(np.isnan(values), missing)
    assert (values == expected)[~missing].mean() > 0.99
    np.testing.assert_allclose(values[~missing], expected[~missing], rtol=1.2e-7)
    with pytest.raises(ValueError, match="expected a factor and an offset for each of 1 bands"):
        ScaledRaster(ArrayRaster(numbers), [1, 2], [0])


def test_flags_of_another_size_or_type_are_refused():
    frame = array_raster()
    for flags in (np.zeros((1, 72, 91), dtype=np.uint8), np.zeros((1, 72, 90), dtype=np.int16)):
        with pytest.raises(ValueError, match="expected one band of unsigned integers of 72 x 90 pixels"):
            MaskedRaster(frame, ArrayRaster(flags), 2)
