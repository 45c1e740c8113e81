# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The radiometric offset of Sentinel-2 products, and what tells it."""

import warnings

import numpy as np
import pytest
import rasterio

from prithvi_hf.rasters.radiometry import RadiometryWarning
from prithvi_hf.rasters.sentinel2 import find_offset
from prithvi_hf.scenes.scene import open_scene
from tests.granule_factory import PRODUCT, product_folder, read_bands, same_size_bands, stack_bands, write_sentinel2
from tests.scene_factory import tiny_processor


@pytest.mark.parametrize(("baseline", "offset"), [("0301", 0), ("0400", -1000), ("0510", -1000)])
def test_the_offset_of_the_baseline_is_applied_once(tmp_path, baseline, offset):
    bands = same_size_bands()
    bands["B02"][0, 0] = 0  # no data, which stays so
    write_sentinel2(product_folder(tmp_path, baseline), bands)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scene = open_scene(tmp_path, image_processor=tiny_processor())
    assert [one.category for one in caught] == ([RadiometryWarning] if offset else [])
    values, expected = read_bands(scene).astype(float), stack_bands(bands) + offset
    assert np.isnan(values[0, 0, 0]) if offset else values[0, 0, 0] == 0
    values[0, 0, 0] = expected[0, 0, 0] = 0
    np.testing.assert_array_equal(values, expected)


def test_where_nothing_tells_the_baseline_it_has_to_be_given(tmp_path):
    bands = same_size_bands()
    write_sentinel2(tmp_path, bands)
    with pytest.raises(ValueError, match=r"found none in the names .* Give boa_add_offset: -1000"):
        open_scene(tmp_path, image_processor=tiny_processor())
    np.testing.assert_array_equal(
        read_bands(open_scene(tmp_path, image_processor=tiny_processor(), boa_add_offset=0)), stack_bands(bands)
    )
    with pytest.warns(RadiometryWarning):
        scene = open_scene(tmp_path, image_processor=tiny_processor(), boa_add_offset=-1000)
    np.testing.assert_array_equal(read_bands(scene), stack_bands(bands) - 1000)
    scene = open_scene(tmp_path, image_processor=tiny_processor(), scale="ignore")
    np.testing.assert_array_equal(read_bands(scene), stack_bands(bands))


def test_the_baseline_is_read_from_metadata_and_tags(tmp_path):
    folder = tmp_path / "product" / "IMG_DATA"
    paths = write_sentinel2(folder, same_size_bands())
    assert find_offset(paths[0]) is None
    assert find_offset(paths[0], "05.09") == -1000
    assert find_offset(paths[0], "02.14") == 0
    text = "<x><PROCESSING_BASELINE>04.00</PROCESSING_BASELINE></x>"
    (tmp_path / "product" / "MTD_MSIL2A.xml").write_text(text)
    assert find_offset(paths[0]) == -1000
    with pytest.raises(ValueError, match="found several: 0301 in the item PROCESSING_BASELINE, 0400 in"):
        find_offset(paths[0], "03.01")
    for path in paths:
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(PROCESSING_BASELINE="04.00")
    (tmp_path / "product" / "MTD_MSIL2A.xml").unlink()
    with pytest.warns(RadiometryWarning):
        open_scene(folder, image_processor=tiny_processor())


def test_products_that_the_user_processed_tell_nothing(tmp_path):
    assert find_offset(f"{PRODUCT.format(baseline='9999')}_B02_10m.tif") is None
