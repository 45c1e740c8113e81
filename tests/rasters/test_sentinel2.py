# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Sentinel-2 files: names, two resolutions, and the radiometric offset, applied once or refused."""

import datetime
import warnings

import numpy as np
import pytest
import rasterio

from prithvi_hf.models.prithvi.configuration_prithvi import PRITHVI_BANDS
from prithvi_hf.rasters.radiometry import RadiometryWarning, input_units
from prithvi_hf.rasters.sentinel2 import find_offset, parse_sentinel2_name
from prithvi_hf.scenes.scene import open_scene
from tests.granule_factory import sentinel2_bands, set_scale, write_hls_granule, write_sentinel2
from tests.scene_factory import scene_pixels, tiny_processor, write_scene


PRODUCT = "S2A_MSIL2A_20220315T184921_N{baseline}_R113_T10SGJ_20220316T003012"
ORDER = ("B02", "B03", "B04", "B8A", "B11", "B12")


def product_folder(root, baseline: str):
    return root / f"{PRODUCT.format(baseline=baseline)}.SAFE" / "GRANULE" / "L2A_T10SGJ" / "IMG_DATA"


def same_size_bands(seed: int = 0) -> dict[str, np.ndarray]:
    """All bands in 20 m, so that nothing is resampled."""
    bands = sentinel2_bands(seed=seed)
    return {code: values[:36, :36] for code, values in bands.items()}


def stacked(bands) -> np.ndarray:
    return np.stack([bands[code] for code in ORDER]).astype(np.float64)


def read(scene) -> np.ndarray:
    """The six bands in the model's order, whatever the order of the files."""
    frame = scene.frames[0]
    return frame.read([frame.descriptions.index(band) for band in PRITHVI_BANDS])


@pytest.mark.parametrize(
    ("path", "tile", "layer", "resolution", "level"),
    [
        ("T31TFJ_20220315T105751_B8A_20m.tif", "31TFJ", "B8A", 20, None),
        ("T31TFJ_20220315T105751_B02.tif", "31TFJ", "B02", None, None),
        ("L2A_T31TFJ_20220315T105751_SCL_20m.tiff", "31TFJ", "SCL", 20, None),
        (f"{PRODUCT.format(baseline='0400')}.SAFE/a/T10SGJ_20220315T184921_B11_20m.tif", "10SGJ", "B11", 20, "L2A"),
        (f"x/{PRODUCT.format(baseline='0301')}_B04_10m.tif", "10SGJ", "B04", 10, "L2A"),
        ("S2B_1CDE_20220315_0_L2A/B12.tif", "01CDE", "B12", None, "L2A"),
        ("https://example.org/S2B_31TFJ_20220315_0_L1C/B12.tif?key=1", "31TFJ", "B12", None, "L1C"),
    ],
)
def test_names_say_tile_layer_and_resolution(path, tile, layer, resolution, level):
    name = parse_sentinel2_name(path)
    assert (name.tile, name.layer, name.resolution, name.level) == (tile, layer, resolution, level)
    assert name.date.date() == datetime.date(2022, 3, 15)


@pytest.mark.parametrize("path", ["B02.tif", "scene_B02.tif", "T31TFJ_20220315T105751_B02_15m.tif", "T31TFJ_B02.tif"])
def test_other_names_say_nothing(path):
    assert parse_sentinel2_name(path) is None


def test_bands_in_10_and_20_m_come_to_the_finest_or_the_resolution_asked_for(tmp_path):
    bands = sentinel2_bands()
    folder = product_folder(tmp_path, "0301")
    write_sentinel2(folder / "R10m", {code: bands[code] for code in ORDER[:3]})
    write_sentinel2(folder / "R20m", {code: bands[code] for code in ORDER[3:]})
    scene = open_scene(tmp_path, image_processor=tiny_processor())
    values = read(scene)
    assert scene.grid.size == (72, 72)
    for position, code in enumerate(ORDER[:3]):
        np.testing.assert_array_equal(values[position], bands[code])
    # Between the centres of 20 m pixels: a quarter of the one and three quarters of the other, in both directions.
    coarse = bands["B8A"].astype(float)
    assert values[3, 1, 1] == round(
        coarse[0, 0] * 0.5625 + (coarse[0, 1] + coarse[1, 0]) * 0.1875 + coarse[1, 1] * 0.0625
    )
    assert values[3, 0, 0] == coarse[0, 0]
    scene = open_scene(tmp_path, image_processor=tiny_processor(), resolution=20)
    values = read(scene)
    assert scene.grid.size == (36, 36)
    for position, code in enumerate(ORDER[3:], start=3):
        np.testing.assert_array_equal(values[position], bands[code])
    assert np.abs(values[0] - bands["B02"].reshape(36, 2, 36, 2).mean(axis=(1, 3))).max() <= 0.5


def test_of_a_band_in_several_resolutions_the_one_asked_for_is_read(tmp_path):
    fine, coarse = sentinel2_bands(), same_size_bands(seed=1)
    folder = product_folder(tmp_path, "0301")
    write_sentinel2(folder, {code: fine[code] for code in ORDER[:3]})
    write_sentinel2(folder, coarse)
    scene = open_scene(tmp_path, image_processor=tiny_processor(), resolution=20)
    np.testing.assert_array_equal(read(scene), stacked(coarse))
    scene = open_scene(tmp_path, image_processor=tiny_processor())
    np.testing.assert_array_equal(read(scene)[0], fine["B02"])


def test_no_data_of_coarse_bands_does_not_bleed_into_fine_ones(tmp_path):
    bands = sentinel2_bands(low=3000)
    bands["B11"][10:20, 10:20] = 0
    write_sentinel2(product_folder(tmp_path, "0301"), bands)
    values = read(open_scene(tmp_path, image_processor=tiny_processor()))[4]
    assert (values[20:40, 20:40] == 0).all()
    values[20:40, 20:40] = 3000
    assert values.min() >= 3000


@pytest.mark.parametrize(("baseline", "offset"), [("0301", 0), ("0400", -1000), ("0510", -1000)])
def test_the_offset_of_the_baseline_is_applied_once(tmp_path, baseline, offset):
    bands = same_size_bands()
    bands["B02"][0, 0] = 0  # no data, which stays so
    write_sentinel2(product_folder(tmp_path, baseline), bands)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scene = open_scene(tmp_path, image_processor=tiny_processor())
    assert [one.category for one in caught] == ([RadiometryWarning] if offset else [])
    values, expected = read(scene).astype(float), stacked(bands) + offset
    assert np.isnan(values[0, 0, 0]) if offset else values[0, 0, 0] == 0
    values[0, 0, 0] = expected[0, 0, 0] = 0
    np.testing.assert_array_equal(values, expected)


def test_an_offset_that_the_processor_applies_is_not_applied_again(tmp_path):
    """Both ways: numbers with the offset stay, and those without get what the processor will take away."""
    processor = tiny_processor(
        rescale_factor=0.0001, rescale_offset=-0.1, image_mean=[0.1] * 6, image_std=[0.05] * 6, nodata_value=0
    )
    assert input_units(processor) == pytest.approx((10_000, 1000))
    bands = same_size_bands()
    write_sentinel2(product_folder(tmp_path / "new", "0400"), bands)
    write_sentinel2(product_folder(tmp_path / "old", "0301"), bands)
    np.testing.assert_array_equal(read(open_scene(tmp_path / "new", image_processor=processor)), stacked(bands))
    with pytest.warns(RadiometryWarning):
        scene = open_scene(tmp_path / "old", image_processor=processor)
    np.testing.assert_array_equal(read(scene), stacked(bands) + 1000)


def test_reflectance_for_a_model_of_it(tmp_path):
    bands = same_size_bands()
    write_sentinel2(product_folder(tmp_path, "0400"), bands)
    processor = tiny_processor(image_mean=[0.1] * 6, image_std=[0.05] * 6)
    with pytest.warns(RadiometryWarning, match=r"number \* 0.0001 \+ -0.1"):
        scene = open_scene(tmp_path, image_processor=processor)
    np.testing.assert_allclose(read(scene), (stacked(bands) - 1000) / 10_000, rtol=1e-6)
    np.testing.assert_allclose(read(open_scene(tmp_path, scale="apply")), (stacked(bands) - 1000) / 10_000, rtol=1e-6)
    np.testing.assert_array_equal(read(open_scene(tmp_path, scale="ignore")), stacked(bands))
    with pytest.raises(ValueError, match="scale 'refuse' does not allow it"):
        open_scene(tmp_path, image_processor=processor, scale="refuse")


def test_where_nothing_tells_the_baseline_it_has_to_be_given(tmp_path):
    bands = same_size_bands()
    write_sentinel2(tmp_path, bands)
    with pytest.raises(ValueError, match=r"found none in the names .* Give boa_add_offset: -1000"):
        open_scene(tmp_path, image_processor=tiny_processor())
    np.testing.assert_array_equal(
        read(open_scene(tmp_path, image_processor=tiny_processor(), boa_add_offset=0)), stacked(bands)
    )
    with pytest.warns(RadiometryWarning):
        scene = open_scene(tmp_path, image_processor=tiny_processor(), boa_add_offset=-1000)
    np.testing.assert_array_equal(read(scene), stacked(bands) - 1000)
    scene = open_scene(tmp_path, image_processor=tiny_processor(), scale="ignore")
    np.testing.assert_array_equal(read(scene), stacked(bands))


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


def test_tags_count_where_they_tell_the_offset_and_are_doubted_where_they_do_not(tmp_path):
    bands = same_size_bands()
    paths = write_sentinel2(product_folder(tmp_path, "0400"), bands)
    for path in paths:
        set_scale(path, 0.0001, -0.1)
    with pytest.warns(RadiometryWarning, match="scale and offset tags"):
        scene = open_scene(tmp_path, image_processor=tiny_processor())
    np.testing.assert_array_equal(read(scene), stacked(bands) - 1000)
    for path in paths:
        set_scale(path, 0.0001, 0.0)
    with pytest.raises(ValueError, match="it may or may not have been applied"):
        open_scene(tmp_path, image_processor=tiny_processor())
    scene = open_scene(tmp_path, image_processor=tiny_processor(), boa_add_offset=0)
    np.testing.assert_array_equal(read(scene), stacked(bands))


def test_floats_with_the_name_of_a_product_are_no_digital_numbers(tmp_path):
    bands = {code: (values / 10_000).astype(np.float32) for code, values in same_size_bands().items()}
    write_sentinel2(product_folder(tmp_path, "0400"), bands)
    with pytest.raises(ValueError, match="found pixels of float32, which are no digital numbers"):
        open_scene(tmp_path, image_processor=tiny_processor())
    assert read(open_scene(tmp_path, scale="ignore")).dtype == np.float32


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
    with pytest.raises(ValueError, match="expected to know whether the radiometric offset"):
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
    with pytest.warns(RadiometryWarning, match=r"scene\.tif: the option boa_add_offset and the 0\.0001 of"):
        scene = open_scene(plain, image_processor=processor, boa_add_offset=-1000)
    np.testing.assert_array_equal(scene.frames[0].read(), pixels.astype(float) - 1000)
    np.testing.assert_array_equal(open_scene(plain, image_processor=processor).frames[0].read(), pixels)
    with rasterio.open(plain, "r+") as dataset:
        dataset.update_tags(PROCESSING_BASELINE="05.09")
    with pytest.raises(ValueError, match="expected to know whether the radiometric offset"):
        open_scene(plain, image_processor=processor)


def test_an_offset_for_granules_that_have_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="found an HLS granule, whose numbers have no offset"):
        open_scene(write_hls_granule(tmp_path), image_processor=tiny_processor(), boa_add_offset=-1000)


def test_products_as_esa_packs_them_are_to_be_converted(tmp_path):
    folder = product_folder(tmp_path, "0400")
    folder.mkdir(parents=True)
    (folder / "T10SGJ_20220315T184921_B02_10m.jp2").write_bytes(b"jp2")
    with pytest.raises(ValueError, match="found JPEG 2000 files, which are to be converted first"):
        open_scene(tmp_path)
