# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Scale and offset of numbers, applied once or refused."""

import warnings

import numpy as np
import pytest

from prithvi_hf.rasters.radiometry import RadiometryWarning, input_units
from prithvi_hf.scenes.scene import open_scene
from tests.granule_factory import product_folder, read_bands, same_size_bands, set_scale, stack_bands, write_sentinel2
from tests.scene_factory import tiny_processor


def test_an_offset_that_the_processor_applies_is_not_applied_again(tmp_path):
    """Both ways: numbers with the offset stay, and those without get what the processor will take away."""
    processor = tiny_processor(
        rescale_factor=0.0001, rescale_offset=-0.1, image_mean=[0.1] * 6, image_std=[0.05] * 6, nodata_value=0
    )
    assert input_units(processor) == pytest.approx((10_000, 1000))
    bands = same_size_bands()
    write_sentinel2(product_folder(tmp_path / "new", "0400"), bands)
    write_sentinel2(product_folder(tmp_path / "old", "0301"), bands)
    np.testing.assert_array_equal(
        read_bands(open_scene(tmp_path / "new", image_processor=processor)), stack_bands(bands)
    )
    with pytest.warns(RadiometryWarning):
        scene = open_scene(tmp_path / "old", image_processor=processor)
    np.testing.assert_array_equal(read_bands(scene), stack_bands(bands) + 1000)


def test_reflectance_for_a_model_of_it(tmp_path):
    bands = same_size_bands()
    write_sentinel2(product_folder(tmp_path, "0400"), bands)
    processor = tiny_processor(image_mean=[0.1] * 6, image_std=[0.05] * 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no model of reflectance was trained on the numbers: nothing is in doubt
        scene = open_scene(tmp_path, image_processor=processor)
    np.testing.assert_allclose(read_bands(scene), (stack_bands(bands) - 1000) / 10_000, rtol=1e-6)
    np.testing.assert_allclose(
        read_bands(open_scene(tmp_path, scale="apply")), (stack_bands(bands) - 1000) / 10_000, rtol=1e-6
    )
    np.testing.assert_array_equal(read_bands(open_scene(tmp_path, scale="ignore")), stack_bands(bands))
    with pytest.raises(ValueError, match="scale 'refuse' does not allow it"):
        open_scene(tmp_path, image_processor=processor, scale="refuse")


def test_tags_count_where_they_tell_the_offset_and_are_doubted_where_they_do_not(tmp_path):
    bands = same_size_bands()
    paths = write_sentinel2(product_folder(tmp_path, "0400"), bands)
    for path in paths:
        set_scale(path, 0.0001, -0.1)
    with pytest.warns(RadiometryWarning, match="scale and offset tags"):
        scene = open_scene(tmp_path, image_processor=tiny_processor())
    np.testing.assert_array_equal(read_bands(scene), stack_bands(bands) - 1000)
    for path in paths:
        set_scale(path, 0.0001, 0.0)
    with pytest.raises(ValueError, match="one of them may have been applied to the numbers before"):
        open_scene(tmp_path, image_processor=tiny_processor())
    scene = open_scene(tmp_path, image_processor=tiny_processor(), boa_add_offset=0)
    np.testing.assert_array_equal(read_bands(scene), stack_bands(bands))
