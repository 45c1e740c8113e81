# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What products say about their numbers: Fmask of HLS, the offset of Sentinel-2, the formulas of Landsat."""

import warnings

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from prithvi_hf.rasters.derived import MaskedRaster
from prithvi_hf.rasters.products import FMASK_BITS, find_offset, fmask_bits
from prithvi_hf.rasters.radiometry import RadiometryWarning
from prithvi_hf.rasters.raster import ArrayRaster
from prithvi_hf.scenes.scene import open_scene
from tests.granule_factory import PRODUCT, product_folder, read_bands, same_size_bands, stack_bands, write_sentinel2
from tests.scene_factory import tiny_processor


@given(st.lists(st.sampled_from(sorted(FMASK_BITS)), unique=True, min_size=1))
def test_fmask_masks_exactly_the_values_with_a_bit_that_was_asked_for(names):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = [any(value >> FMASK_BITS[name] & 1 for name in names) or value == 255 for value in range(256)]
    frame = ArrayRaster(np.zeros((1, 16, 16), dtype=np.int16))
    masked = MaskedRaster(frame, ArrayRaster(values[None]), fmask_bits(names))
    np.testing.assert_array_equal(masked.read_nodata_mask().ravel(), expected)
    assert fmask_bits(names) == sum(2 ** FMASK_BITS[name] for name in names)


def test_fmask_names_are_checked_and_one_may_stand_alone():
    assert fmask_bits("cloud") == 2
    assert fmask_bits(["cloud", "cloud", "shadow"]) == 10
    with pytest.raises(ValueError, match="found 'haze'"):
        fmask_bits(["cloud", "haze"])


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
