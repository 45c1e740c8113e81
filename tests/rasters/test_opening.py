# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""One frame of the files of a granule, and what a frame of other files has to tell."""

import numpy as np
import pytest
import rasterio

from prithvi_hf.rasters.radiometry import RadiometryWarning
from prithvi_hf.scenes.scene import open_scene
from tests.granule_factory import (
    PRODUCT,
    SENTINEL_2_ORDER,
    product_folder,
    read_bands,
    same_size_bands,
    sentinel2_bands,
    stack_bands,
    write_hls_granule,
    write_sentinel2,
)
from tests.scene_factory import scene_pixels, tiny_processor, write_scene


def test_bands_in_10_and_20_m_come_to_the_finest_or_the_resolution_asked_for(tmp_path):
    bands = sentinel2_bands()
    folder = product_folder(tmp_path, "0301")
    write_sentinel2(folder / "R10m", {code: bands[code] for code in SENTINEL_2_ORDER[:3]})
    write_sentinel2(folder / "R20m", {code: bands[code] for code in SENTINEL_2_ORDER[3:]})
    scene = open_scene(tmp_path, image_processor=tiny_processor())
    values = read_bands(scene)
    assert scene.grid.size == (72, 72)
    for position, code in enumerate(SENTINEL_2_ORDER[:3]):
        np.testing.assert_array_equal(values[position], bands[code])
    # Between the centres of 20 m pixels: a quarter of the one and three quarters of the other, in both directions.
    coarse = bands["B8A"].astype(float)
    assert values[3, 1, 1] == round(
        coarse[0, 0] * 0.5625 + (coarse[0, 1] + coarse[1, 0]) * 0.1875 + coarse[1, 1] * 0.0625
    )
    assert values[3, 0, 0] == coarse[0, 0]
    scene = open_scene(tmp_path, image_processor=tiny_processor(), resolution=20)
    values = read_bands(scene)
    assert scene.grid.size == (36, 36)
    for position, code in enumerate(SENTINEL_2_ORDER[3:], start=3):
        np.testing.assert_array_equal(values[position], bands[code])
    assert np.abs(values[0] - bands["B02"].reshape(36, 2, 36, 2).mean(axis=(1, 3))).max() <= 0.5


def test_of_a_band_in_several_resolutions_the_one_asked_for_is_read(tmp_path):
    fine, coarse = sentinel2_bands(), same_size_bands(seed=1)
    folder = product_folder(tmp_path, "0301")
    write_sentinel2(folder, {code: fine[code] for code in SENTINEL_2_ORDER[:3]})
    write_sentinel2(folder, coarse)
    scene = open_scene(tmp_path, image_processor=tiny_processor(), resolution=20)
    np.testing.assert_array_equal(read_bands(scene), stack_bands(coarse))
    scene = open_scene(tmp_path, image_processor=tiny_processor())
    np.testing.assert_array_equal(read_bands(scene)[0], fine["B02"])


def test_no_data_of_coarse_bands_does_not_bleed_into_fine_ones(tmp_path):
    bands = sentinel2_bands(low=3000)
    bands["B11"][10:20, 10:20] = 0
    write_sentinel2(product_folder(tmp_path, "0301"), bands)
    values = read_bands(open_scene(tmp_path, image_processor=tiny_processor()))[4]
    assert (values[20:40, 20:40] == 0).all()
    values[20:40, 20:40] = 3000
    assert values.min() >= 3000


def test_floats_with_the_name_of_a_product_are_no_digital_numbers(tmp_path):
    bands = {code: (values / 10_000).astype(np.float32) for code, values in same_size_bands().items()}
    write_sentinel2(product_folder(tmp_path, "0400"), bands)
    with pytest.raises(ValueError, match="found pixels of float32, which are not digital numbers"):
        open_scene(tmp_path, image_processor=tiny_processor())
    assert read_bands(open_scene(tmp_path, scale="ignore")).dtype == np.float32


def test_a_missing_band_is_named(tmp_path):
    bands = same_size_bands()
    del bands["B12"]
    write_sentinel2(product_folder(tmp_path, "0301"), bands)
    with pytest.raises(ValueError, match=r"none for SWIR_2 \(B12\)"):
        open_scene(tmp_path, image_processor=tiny_processor())


def test_a_stack_of_a_product_with_an_offset_is_refused_until_somebody_says_what_was_done(tmp_path):
    pixels = scene_pixels().astype(np.uint16)
    path = write_scene(tmp_path / f"{PRODUCT.format(baseline='0509')}.tif", pixels, nodata=0)
    processor = tiny_processor()
    with pytest.raises(ValueError, match="found a file of several bands without scale and offset tags"):
        open_scene(path, image_processor=processor)
    np.testing.assert_array_equal(
        open_scene(path, image_processor=processor, boa_add_offset=0).frames[0].read(), pixels
    )
    with pytest.warns(RadiometryWarning):
        scene = open_scene(path, image_processor=processor, boa_add_offset=-1000)
    np.testing.assert_array_equal(scene.frames[0].read(), pixels.astype(float) - 1000)
    old = write_scene(tmp_path / f"{PRODUCT.format(baseline='0301')}.tif", pixels, nodata=0)
    np.testing.assert_array_equal(open_scene(old, image_processor=processor).frames[0].read(), pixels)
    plain = write_scene(tmp_path / "scene.tif", pixels, nodata=0)
    with pytest.warns(RadiometryWarning, match=r"scene\.tif: by the option boa_add_offset and the 0\.0001 of"):
        scene = open_scene(plain, image_processor=processor, boa_add_offset=-1000)
    np.testing.assert_array_equal(scene.frames[0].read(), pixels.astype(float) - 1000)
    np.testing.assert_array_equal(open_scene(plain, image_processor=processor).frames[0].read(), pixels)
    with rasterio.open(plain, "r+") as dataset:
        dataset.update_tags(PROCESSING_BASELINE="05.09")
    with pytest.raises(ValueError, match="found a file of several bands without scale and offset tags"):
        open_scene(plain, image_processor=processor)


def test_an_offset_for_granules_that_have_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="found HLS files, whose numbers have no such offset"):
        open_scene(write_hls_granule(tmp_path), image_processor=tiny_processor(), boa_add_offset=-1000)


def test_products_as_esa_packs_them_are_to_be_converted(tmp_path):
    folder = product_folder(tmp_path, "0400")
    folder.mkdir(parents=True)
    (folder / "T10SGJ_20220315T184921_B02_10m.jp2").write_bytes(b"jp2")
    with pytest.raises(ValueError, match="found JPEG 2000 files"):
        open_scene(tmp_path)
