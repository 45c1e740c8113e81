# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The image processor: bands, nodata, scaling, units, frames, labels, saving and post-processing."""

import json
import math
import pickle
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import prithvi_hf.models.prithvi.image_processing_prithvi as module
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.pixel_values_prithvi import UnitsWarning
from prithvi_hf.models.prithvi.remote_code_prithvi import source_files
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster


FLOOD_MEAN = [0.14245495, 0.13921481, 0.12434631, 0.31420089, 0.20743526, 0.12046503]
FLOOD_STD = [0.04036231, 0.04186983, 0.05267646, 0.0822221, 0.06834774, 0.05294205]
FLOOD = {"rescale_factor": 1e-4, "image_mean": FLOOD_MEAN, "image_std": FLOOD_STD, "nodata_value": -9999}
PLAIN = {"bands": ["A", "B"], "image_mean": [0.0, 0.0], "image_std": [1.0, 1.0]}
SEN1FLOODS11 = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")


class FakeRaster:
    """Bands in memory behind the reading interface of a GeoTIFF; remembers what was read."""

    def __init__(self, values, descriptions=None, nodata=None, mask=None, name="chip.tif"):
        self.values, self.nodata, self.mask, self.name = values, nodata, mask, name
        self.count, *_ = self.shape = values.shape
        self.descriptions = descriptions or (None,) * self.count
        self.bands_read = None

    def read(self, bands=None):
        self.bands_read = bands
        return self.values if bands is None else self.values[list(bands)]

    def read_nodata_mask(self):
        return self.mask


def digital_numbers(*shape, seed=0):
    return np.random.default_rng(seed).integers(1, 4000, shape).astype(np.int16)


def expected_values(array, factor, offset, mean, std):
    """The formula in double precision, one band at a time."""
    bands = [
        ((band.astype(np.float64) * factor + offset) - m) / s for band, m, s in zip(array, mean, std, strict=True)
    ]
    return np.stack(bands)


# ---------------------------------------------------------------------- values


def test_values_equal_the_formula():
    chip = digital_numbers(6, 9, 7)
    output = PrithviImageProcessor(**FLOOD, rescale_offset=-0.1)(chip, return_tensors="pt")
    assert output["pixel_values"].shape == (1, 6, 1, 9, 7)
    assert output["pixel_values"].dtype == torch.float32
    expected = expected_values(chip, 1e-4, -0.1, FLOOD_MEAN, FLOOD_STD)
    np.testing.assert_allclose(output["pixel_values"][0, :, 0], expected, rtol=1e-5, atol=1e-6)


def test_scaling_and_normalising_can_be_left_out_for_one_call():
    processor, chip = PrithviImageProcessor(**FLOOD), digital_numbers(6, 4, 4)
    raw = processor(chip, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(raw[0, :, 0], chip.astype(np.float32))
    doubled = processor(chip, rescale_factor=2, do_normalize=False, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(doubled[0, :, 0], chip * 2.0)
    assert processor.rescale_factor == 1e-4
    assert processor.do_normalize is True


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_arrays_of_any_number_type_and_tensors_give_the_same(dtype):
    chip = digital_numbers(2, 5, 4).astype(np.uint8)
    processor = PrithviImageProcessor(**PLAIN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnitsWarning)
        first, second = processor([chip.astype(dtype), torch.from_numpy(chip).to(torch.bfloat16)])["pixel_values"]
    torch.testing.assert_close(first, second)


def test_one_number_for_all_bands_becomes_a_list():
    processor = PrithviImageProcessor(image_mean=0.166, image_std=0.114, rescale_factor=1e-4)
    assert processor.image_mean == [0.166] * 6
    assert processor.image_std == [0.114] * 6


def test_the_input_is_not_changed():
    chip = np.full((2, 3, 3), -9999, dtype=np.float32)
    copy = chip.copy()
    PrithviImageProcessor(**PLAIN, nodata_value=-9999)(chip)
    np.testing.assert_array_equal(chip, copy)


# ---------------------------------------------------------------------- images, frames, batches


def test_frames_come_as_tuple_inner_list_or_array():
    frames = [digital_numbers(6, 5, 4, seed=seed) for seed in range(3)]
    processor = PrithviImageProcessor(num_frames=3)
    cases = [tuple(frames), [frames], np.stack(frames, axis=1), np.stack(frames, axis=1)[None]]
    cases += [np.concatenate(frames), FakeRaster(np.concatenate(frames)), tuple(map(FakeRaster, frames))]
    outputs = [processor(case, return_tensors="pt")["pixel_values"] for case in cases]
    assert outputs[0].shape == (1, 6, 3, 5, 4)
    for t, frame in enumerate(frames):
        single = PrithviImageProcessor()(frame, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(outputs[0][:, :, t], single[:, :, 0], rtol=0, atol=0)
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], rtol=0, atol=0)


def test_a_stack_of_dates_is_read_in_order_and_found_whole():
    assert PrithviImageProcessor(num_frames=3).find_bands((None,) * 18, 18) == list(range(18))


def test_a_list_is_a_batch_and_sizes_may_differ_without_stacking():
    batch = [digital_numbers(6, 5, 4), digital_numbers(6, 8, 3)]
    processor = PrithviImageProcessor()
    assert [tuple(image.shape) for image in processor(batch)["pixel_values"]] == [(6, 1, 5, 4), (6, 1, 8, 3)]
    with pytest.raises(ValueError, match=r"one size to stack, found 5 x 4, 8 x 3"):
        processor(batch, return_tensors="pt")


def test_a_wrong_number_of_frames_states_expected_and_found():
    frames = tuple(digital_numbers(6, 4, 4) for _ in range(2))
    with pytest.raises(ValueError, match=r"expected 3 frames .* found 2.*Remedy"):
        PrithviImageProcessor(num_frames=3)(frames)
    with pytest.raises(ValueError, match=r"expected 1 frames .* found 2"):
        PrithviImageProcessor()(frames)


def test_frames_of_different_size_are_an_error_that_names_them():
    frames = (
        FakeRaster(digital_numbers(6, 4, 4), name="june.tif"),
        FakeRaster(digital_numbers(6, 4, 5), name="july.tif"),
    )
    with pytest.raises(ValueError, match=r"june\.tif 4 x 4, july\.tif 4 x 5"):
        PrithviImageProcessor(num_frames=2)(frames)


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [((8, 6, 4, 4), "as a list"), ((4, 4, 6), "last axis"), ((4, 4), "stack the bands"), ((5, 4, 4), "band_indices")],
)
def test_axes_in_another_order_are_refused_with_a_remedy(shape, remedy):
    with pytest.raises(ValueError, match=rf"(?s)expected.*found.*Remedy.*{remedy}"):
        PrithviImageProcessor()(digital_numbers(*shape))


@pytest.mark.parametrize("image", [{"path": "scene.tif"}, np.zeros((6, 2, 2), dtype=complex), None, 3])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(TypeError, match=r"(?i)expected .*array.*, found"):
        PrithviImageProcessor()(image)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        PrithviImageProcessor()([])


# ---------------------------------------------------------------------- bands


def test_only_the_needed_bands_of_a_raster_are_read():
    raster = FakeRaster(digital_numbers(13, 4, 4), SEN1FLOODS11)
    output = PrithviImageProcessor()(raster, return_tensors="pt")["pixel_values"]
    assert raster.bands_read == [1, 2, 3, 8, 11, 12]
    same = PrithviImageProcessor()(raster.values[[1, 2, 3, 8, 11, 12]], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(output, same, rtol=0, atol=0)


def test_arrays_take_band_names_and_indices():
    chip = digital_numbers(13, 4, 4)
    named = PrithviImageProcessor()(chip, band_names=SEN1FLOODS11, return_tensors="pt")
    indexed = PrithviImageProcessor(band_indices=[1, 2, 3, 8, 11, 12])(chip, return_tensors="pt")
    torch.testing.assert_close(named["pixel_values"], indexed["pixel_values"], rtol=0, atol=0)
    both = PrithviImageProcessor()([chip, chip[:6]], band_names=[SEN1FLOODS11, None])["pixel_values"]
    torch.testing.assert_close(both[0], named["pixel_values"][0], rtol=0, atol=0)


def test_missing_bands_name_the_file():
    raster = FakeRaster(digital_numbers(5, 4, 4), ("B02", "B03", "B04", "B08", "B12"), name="folder/five.tif")
    with pytest.raises(ValueError, match=r"folder/five\.tif.*expected the 6 bands.*found 5 bands.*B08"):
        PrithviImageProcessor()(raster)
    with pytest.raises(ValueError, match=r"folder/five\.tif.*expected 6 bands.*found 5 bands"):
        PrithviImageProcessor()(FakeRaster(raster.values, name="folder/five.tif"))


# ---------------------------------------------------------------------- nodata


def reference_nodata(frames, tag, values, rule, masks):
    """The rule word by word, a pixel at a time."""
    _, height, width = frames[0].shape
    combine = all if rule == "all" else any
    missing = [np.zeros(frame.shape, dtype=bool) for frame in frames]
    pixels = np.zeros((height, width), dtype=bool)
    for i in range(height):
        for j in range(width):
            own = []
            for frame, mask in zip(frames, masks, strict=True):
                bands = [not abs(x) < 1e30 or x in (tag, *values) for x in frame[:, i, j].tolist()]
                own.append(combine(bands) or bool(mask[i, j]))
            pixels[i, j] = combine(own)
            for t, frame in enumerate(frames):
                for c, x in enumerate(frame[:, i, j].tolist()):
                    bad = not abs(x) < 1e30 or x in (tag, *values)
                    missing[t][c, i, j] = bad or own[t] or pixels[i, j]
    return missing, pixels


VALUES = st.sampled_from([0.0, 5.0, 7.0, -9999.0, math.nan, math.inf, -math.inf, 9.96921e36, -3.4028235e38])


@settings(max_examples=80, deadline=None)
@given(
    cells=st.lists(VALUES, min_size=24, max_size=24),
    masked=st.lists(st.booleans(), min_size=12, max_size=12),
    tag=st.sampled_from([None, 0.0, -9999.0, math.nan]),
    nodata_value=st.sampled_from([None, -9999.0, math.nan, [0.0, -9999.0], [7.0]]),
    rule=st.sampled_from(["all", "any"]),
)
def test_the_nodata_rule_holds_for_any_pixels(cells, masked, tag, nodata_value, rule):
    frames = np.array(cells, dtype=np.float32).reshape(2, 2, 2, 3)
    masks = np.array(masked).reshape(2, 2, 3)
    rasters = tuple(FakeRaster(frame, nodata=tag, mask=mask) for frame, mask in zip(frames, masks, strict=True))
    processor = PrithviImageProcessor(
        **PLAIN, num_frames=2, nodata_value=nodata_value, nodata_rule=rule, nodata_replacement=3.0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnitsWarning)
        output = processor(rasters, return_nodata_mask=True, return_tensors="np")
    values = nodata_value if isinstance(nodata_value, list) else [nodata_value]
    missing, pixels = reference_nodata(frames, tag, values, rule, masks)
    np.testing.assert_array_equal(output["nodata_mask"][0], pixels)
    for t in range(2):
        np.testing.assert_array_equal(output["pixel_values"][0, :, t], np.where(missing[t], 3.0, frames[t]))


def test_nodata_is_replaced_before_scaling():
    chip = np.full((6, 2, 2), 1000, dtype=np.int16)
    chip[:, 0, 0] = -9999
    chip[2, 1, 1] = -9999
    output = PrithviImageProcessor(**FLOOD)(chip, return_nodata_mask=True, return_tensors="np")
    zero = -np.array(FLOOD_MEAN) / np.array(FLOOD_STD)
    np.testing.assert_allclose(output["pixel_values"][0, :, 0, 0, 0], zero, rtol=1e-5)
    np.testing.assert_allclose(output["pixel_values"][0, 2, 0, 1, 1], zero[2], rtol=1e-5)
    assert output["nodata_mask"][0].tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize(
    ("dtype", "tag"),
    [(np.float32, -3.4028234663852886e38), (np.float32, -3.4028235e38), (np.uint8, 255.0), (np.int16, -32768.0)],
)
def test_tags_are_compared_in_the_precision_of_the_file(dtype, tag):
    chip = np.ones((2, 2, 2), dtype=dtype)
    chip[:, 0, 0] = dtype(tag)
    mask = PrithviImageProcessor(**PLAIN)(FakeRaster(chip, nodata=tag), return_nodata_mask=True)["nodata_mask"][0]
    assert mask.tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("tag", [-9999.0, 1e20, 0.5, math.nan, math.inf])
def test_tags_that_the_type_cannot_hold_match_nothing(tag):
    chip = np.zeros((2, 2, 2), dtype=np.uint8)
    output = PrithviImageProcessor(**PLAIN)(FakeRaster(chip, nodata=tag), return_nodata_mask=True)
    assert not output["nodata_mask"][0].any()


def test_arrays_take_the_file_nodata_of_the_call():
    chips = [np.zeros((2, 2, 2), dtype=np.int16), np.ones((2, 2, 2), dtype=np.int16)]
    processor = PrithviImageProcessor(**PLAIN)
    masks = processor(chips, file_nodata=0, return_nodata_mask=True)["nodata_mask"]
    assert [bool(mask.all()) for mask in masks] == [True, False]
    masks = processor(chips, file_nodata=[None, 1], return_nodata_mask=True)["nodata_mask"]
    assert [bool(mask.all()) for mask in masks] == [False, True]
    tagged = [FakeRaster(chips[1]), FakeRaster(chips[1], nodata=7.0)]
    masks = processor(tagged, file_nodata=1, return_nodata_mask=True)["nodata_mask"]
    assert [bool(mask.all()) for mask in masks] == [True, False]


def test_a_nodata_mask_of_another_size_names_the_file():
    raster = FakeRaster(np.ones((2, 3, 3)), mask=np.zeros((3, 4), dtype=bool))
    with pytest.raises(ValueError, match=r"chip\.tif: expected a nodata mask of the bands' size 3 x 3, found 3 x 4"):
        PrithviImageProcessor(**PLAIN)(raster)


# ---------------------------------------------------------------------- units


def warned(processor, *args, **kwargs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        processor(*args, **kwargs)
    return [str(entry.message) for entry in caught if entry.category is UnitsWarning]


def test_digital_numbers_against_reflectance_warn_once_with_the_figures():
    processor = PrithviImageProcessor(image_mean=FLOOD_MEAN, image_std=FLOOD_STD)
    chip = np.full((6, 40, 40), 1500, dtype=np.int16)
    (message,) = warned(processor, FakeRaster(chip, name="chip.tif"))
    assert message.startswith("chip.tif: ")
    assert "rescale_factor=0.0001" in message
    for band, mean, std in zip(processor.bands, FLOOD_MEAN, FLOOD_STD, strict=True):
        assert any(
            band in line and "1500" in line and f"{mean:.6g}" in line and f"{std:.6g}" in line
            for line in message.splitlines()
        )
    assert warned(processor, chip) == []
    assert len(warned(processor, chip, image_mean=[0.2] * 6)) == 1
    assert warned(processor, chip, rescale_factor=1e-4) == []


def test_reflectance_against_digital_numbers_warns():
    (message,) = warned(PrithviImageProcessor(), np.full((6, 9, 9), 0.15, dtype=np.float32))
    assert "rescale_factor=10000" in message
    assert "smaller" in message


def test_the_factor_that_the_warning_suggests_silences_it():
    chip = digital_numbers(6, 30, 30)
    assert warned(PrithviImageProcessor(image_mean=FLOOD_MEAN, image_std=FLOOD_STD), chip)
    assert not warned(PrithviImageProcessor(**FLOOD), chip)
    assert not warned(PrithviImageProcessor(), chip)


SCENES = {
    "clear deep water": [0.03, 0.02, 0.008, 0.002, 0.0005, 0.0003],
    "snow": [1.1, 1.1, 1.1, 1.0, 0.15, 0.12],
    "bright cloud": [1.5, 1.5, 1.5, 1.6, 1.2, 1.0],
    "dense vegetation": [0.02, 0.05, 0.02, 0.5, 0.2, 0.08],
}


@pytest.mark.parametrize("scene", SCENES)
def test_real_surfaces_do_not_warn(scene):
    reflectance = np.broadcast_to(np.array(SCENES[scene])[:, None, None], (6, 16, 16))
    dark = {
        "image_mean": [0.033, 0.057, 0.059, 0.232, 0.197, 0.119],
        "image_std": [0.023, 0.027, 0.04, 0.078, 0.087, 0.072],
    }
    assert not warned(PrithviImageProcessor(**dark), reflectance)
    assert not warned(PrithviImageProcessor(**FLOOD), reflectance * 1e4)
    assert not warned(PrithviImageProcessor(), reflectance * 1e4)


LAND = {
    "forest": [0.02, 0.035, 0.02, 0.25, 0.1, 0.045],
    "crops": [0.04, 0.08, 0.05, 0.4, 0.25, 0.13],
    "bare soil": [0.1, 0.14, 0.18, 0.25, 0.3, 0.26],
    "town": [0.06, 0.08, 0.1, 0.2, 0.2, 0.17],
}
OTHERS = {
    **{name: values for name, values in SCENES.items() if name != "bright cloud"},
    "thick cloud": [0.9, 0.9, 0.9, 0.92, 0.6, 0.45],
    "turbid water": [0.08, 0.1, 0.09, 0.04, 0.01, 0.008],
    "lake": [0.02, 0.02, 0.012, 0.01, 0.008, 0.006],
    "burn scar": [0.03, 0.04, 0.045, 0.08, 0.15, 0.14],
    "shadow": [0.025, 0.02, 0.015, 0.06, 0.03, 0.02],
    "salt": [0.5, 0.6, 0.65, 0.7, 0.5, 0.3],
}


def with_noise(reflectance):
    spread = np.random.default_rng(0).normal(1, 0.15, (6, 48, 48))
    return np.array(reflectance)[:, None, None] * spread * 10_000


@pytest.mark.parametrize("scene", [*LAND, *OTHERS])
def test_ten_times_and_numbers_of_landsat_are_noticed_and_no_real_surface_is(scene):
    chip = with_noise({**LAND, **OTHERS}[scene])
    assert not warned(PrithviImageProcessor(), chip)
    if scene in LAND:
        for power, suggested in ((10, 0.1), (0.1, 10)):
            (message,) = warned(PrithviImageProcessor(), chip * power)
            assert f"10 times {'larger' if power > 1 else 'smaller'}" in message
            assert f"rescale_factor={suggested:g} and rescale_offset=0 (on the command line --rescale_fact" in message
    landsat = (chip / 10_000 + 0.2) / 0.0000275
    messages = warned(PrithviImageProcessor(), landsat)
    assert messages
    if scene not in ("snow", "thick cloud", "salt"):
        assert "Landsat Collection 2 Level 2" in messages[0]
        assert "rescale_factor=0.275 and rescale_offset=-2000" in messages[0]
        reflectance = PrithviImageProcessor(image_mean=[0.1] * 6, image_std=[0.1] * 6)
        assert "rescale_factor=2.75e-05 and rescale_offset=-0.2" in warned(reflectance, landsat)[0]
    assert not warned(PrithviImageProcessor(rescale_factor=0.275, rescale_offset=-2000), landsat)
    mean = landsat.mean(axis=(1, 2)).tolist()
    assert not warned(PrithviImageProcessor(image_mean=mean, image_std=[2000] * 6), landsat), "a model of such numbers"


def test_an_offset_that_was_applied_twice_is_noticed():
    (message,) = warned(PrithviImageProcessor(), with_noise(LAND["crops"]) * 0.275 - 2000)
    assert "mostly below zero" in message


@pytest.mark.parametrize("power", [1, 10, 0.1])
def test_units_of_the_eight_flood_chips(flood_chips, power):
    """Seven of eight ten times too large: of the eighth, mostly water, that could be land."""
    found = 0
    for path in sorted(flood_chips.rglob("*_S2Hand.tif")):
        raster = GeoTiffRaster(path)
        processor = PrithviImageProcessor()
        pixels = raster.read(processor.find_bands(raster.descriptions, raster.count)).astype(np.float32)
        found += len(warned(processor, pixels * power, file_nodata=0))
    assert found == {1: 0, 10: 7, 0.1: 8}[power]


def test_nodata_alone_does_not_warn():
    for fill in (-9999, 0):
        assert not warned(PrithviImageProcessor(**FLOOD), np.full((6, 8, 8), fill, dtype=np.int16))
    assert not warned(PrithviImageProcessor(), np.full((6, 8, 8), np.nan))
    edge = digital_numbers(6, 64, 64)
    edge[:, :, 1:] = 0
    assert not warned(PrithviImageProcessor(**FLOOD), edge)


def test_fill_values_are_not_measured():
    chip = np.full((6, 8, 8), 1500.0, dtype=np.float32)
    chip[:, :4], chip[1, 5] = -3.4e38, -3.4e38
    assert not warned(PrithviImageProcessor(nodata_value=-3.4e38), chip)
    (message,) = warned(PrithviImageProcessor(image_mean=FLOOD_MEAN, image_std=FLOOD_STD, nodata_value=-3.4e38), chip)
    assert message.count("measured mean 1500") == 6


def test_one_odd_band_is_no_matter_of_units():
    reflectance = np.broadcast_to(np.array(FLOOD_MEAN)[:, None, None], (6, 8, 8)).copy()
    for factor in (1e4, 1e-4):
        chip = reflectance.copy()
        chip[0] *= factor
        assert not warned(PrithviImageProcessor(image_mean=FLOOD_MEAN, image_std=FLOOD_STD), chip)


def test_the_warning_is_not_saved():
    processor = PrithviImageProcessor(image_mean=FLOOD_MEAN, image_std=FLOOD_STD)
    before = processor.to_dict()
    assert warned(processor, digital_numbers(6, 8, 8))
    assert processor.to_dict() == before


def test_threads_that_find_it_at_once_warn_once(monkeypatch):
    meeting = Barrier(2)

    def both_find_it(*_):
        meeting.wait(10)
        return "other units"

    monkeypatch.setattr(module, "describe_units_problem", both_find_it)
    processor, chips = PrithviImageProcessor(), [digital_numbers(6, 8, 8)] * 2
    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(2) as threads:
        warnings.simplefilter("always")
        list(threads.map(processor, chips))
    assert [str(entry.message) for entry in caught] == ["other units"]


class Chips(torch.utils.data.Dataset):
    def __init__(self, processor):
        self.processor = processor

    def __len__(self):
        return 4

    def __getitem__(self, index):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.processor(digital_numbers(6, 8, 8))
        return len(caught), torch.utils.data.get_worker_info().id


def test_one_worker_process_speaks_for_all():
    chips = Chips(PrithviImageProcessor(image_mean=FLOOD_MEAN, image_std=FLOOD_STD))
    loader = torch.utils.data.DataLoader(chips, batch_size=1, num_workers=2, multiprocessing_context="fork")
    rows = [(int(count), int(worker)) for count, worker in loader]
    assert sum(count for count, _ in rows) == 1
    assert [worker for count, worker in rows if count] == [0]


# ---------------------------------------------------------------------- labels


CHIP = np.full((6, 2, 3), 1500, dtype=np.int16)


def labels(mask, chip=CHIP, **options):
    return PrithviImageProcessor(**FLOOD, **options)(chip, mask, return_tensors="pt")["labels"]


def test_labels_are_int64_and_ignored_values_become_minus_100():
    mask = np.array([[-1, 0, 1], [1, 255, -100]], dtype=np.int16)
    output = labels(mask, ignore_values=[-1, 255], num_labels=2)
    assert output.dtype == torch.int64
    assert output.tolist() == [[[-100, 0, 1], [1, -100, -100]]]


def test_labels_counted_from_one_are_reduced_once_after_ignoring():
    mask = np.array([[0, 1, 2], [13, 255, 1]], dtype=np.uint8)
    output = labels(mask, ignore_values=[255], do_reduce_labels=True, num_labels=13)
    assert output.tolist() == [[[-100, 0, 1], [12, -100, 0]]]


def test_float_masks_of_whole_numbers_are_taken_and_nodata_is_ignored():
    mask = np.array([[0.0, 1.0, np.nan], [np.inf, -3.4e38, 0.0]], dtype=np.float32)
    assert labels(torch.from_numpy(mask)).tolist() == [[[0, 1, -100], [-100, -100, 0]]]
    for wrong in (0.5, 1e18):
        with pytest.raises(ValueError, match=rf"whole class numbers, found {re.escape(str(wrong))} \(2 pixels\)"):
            labels(np.array([[0, 1, wrong], [1, wrong, 1]]))


def test_values_outside_the_classes_name_file_values_and_pixels():
    raster = FakeRaster(np.array([[[0, 1, 2], [7, 2, -1]]], dtype=np.int16), name="LabelHand/x.tif")
    with pytest.raises(ValueError, match=r"LabelHand/x\.tif: .*0 to 1 .*found -1 \(1 pixel\), 2 \(2 pixels\), 7 \(1"):
        labels(raster, num_labels=2)
    with pytest.raises(ValueError, match=r"mask of Ghana_1: .*1 to 6 .*found -1 \(1 pixel\), 7 \(1 pixel\)"):
        PrithviImageProcessor(num_labels=6, do_reduce_labels=True)(CHIP, raster.values[0], names="Ghana_1")
    assert labels(raster).tolist() == [[[0, 1, 2], [7, 2, -1]]]


@pytest.mark.parametrize("shape", [(3, 2), (2, 2)])
def test_a_mask_of_another_size_names_both(shape):
    image = FakeRaster(CHIP, name="a_S2Hand.tif")
    mask = FakeRaster(np.zeros((1, *shape), dtype=np.uint8), name="a_LabelHand.tif")
    size = f"{shape[0]} x {shape[1]}"
    with pytest.raises(ValueError, match=rf"a_LabelHand\.tif: .*size 2 x 3, found {size} .*a_S2Hand\.tif"):
        labels(mask, chip=image)


def test_a_mask_of_several_bands_is_refused_unread():
    mask = FakeRaster(np.zeros((2, 2, 3), dtype=np.uint8), name="two.tif")
    mask.read = None
    with pytest.raises(ValueError, match=r"two\.tif: expected a mask .* found shape \(2, 2, 3\)"):
        labels(mask)


def test_masks_pair_with_images():
    batch = [CHIP, CHIP]
    masks = np.array([[[0, 1, 1], [0, 0, 0]], [[1, 1, 1], [0, 0, 0]]], dtype=np.uint8)
    for given_masks in (list(masks), masks, masks[:, None], list(masks == 1)):
        assert labels(given_masks, chip=batch).tolist() == masks.tolist()
    assert labels(masks[:1]).tolist() == masks[:1].tolist()
    with pytest.raises(ValueError, match="one mask for each of 2 images, found 3"):
        labels([masks[0]] * 3, chip=batch)


def test_nodata_pixels_keep_their_labels_unless_asked():
    chip, mask = CHIP.copy(), np.ones((2, 3), dtype=np.uint8)
    chip[:, 0, 0] = -9999
    assert labels(mask, chip=chip).tolist() == [[[1, 1, 1], [1, 1, 1]]]
    assert labels(mask, chip=chip, mask_nodata_labels=True).tolist() == [[[-100, 1, 1], [1, 1, 1]]]


# ---------------------------------------------------------------------- options and saving


EVERY_OPTION = {
    "bands": ["BLUE", "NIR_NARROW"],
    "band_indices": [3, 1],
    "band_map": {"NIR_NARROW": "B08", "BLUE": 0},
    "band_names": ["B02", None, "B08"],
    "num_frames": 3,
    "frame_order": "original_crop",
    "do_rescale": False,
    "rescale_factor": 1e-4,
    "rescale_offset": -0.1,
    "do_normalize": False,
    "image_mean": [0.1, 1 / 3],
    "image_std": [0.2, 2 / 3],
    "nodata_value": [-9999.0, 0.0],
    "nodata_replacement": 1e-4,
    "nodata_rule": "any",
    "ignore_values": [-1, 255],
    "label_map": {10: 0, 20: 12, -3: 1},
    "do_reduce_labels": False,
    "num_labels": 13,
    "mask_nodata_labels": True,
    "first_day_of_year": 1,
    "label_type": "class",
    "target_rescale_factor": 0.1,
    "target_rescale_offset": -2,
    "target_nodata_value": [-1, 65535],
    "target_range": [0, 500.5],
    "training_statistics": {"chips": 5, "mean": [0.1, -0.2], "std": [0.5, 1], "contrast_std": [0.25, 0.5]},
}


def test_the_list_of_options_is_complete():
    assert set(PrithviImageProcessor.option_names()) == set(EVERY_OPTION)


@pytest.mark.parametrize("options", [{}, EVERY_OPTION, {"nodata_value": math.nan}, {"num_labels": None}])
def test_saving_and_loading_gives_the_same(tmp_path, options):
    processor = PrithviImageProcessor(**options)
    processor.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "preprocessor_config.json").read_text(), parse_constant=pytest.fail)
    assert written["image_processor_type"] == "PrithviImageProcessor"
    assert set(written) == {*EVERY_OPTION, "image_processor_type"}
    loaded = PrithviImageProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    assert vars(loaded).keys() == vars(processor).keys()
    for name, value in options.items():
        np.testing.assert_equal(getattr(loaded, name), value)
    assert pickle.loads(pickle.dumps(loaded)).to_dict() == processor.to_dict()


def test_options_given_when_loading_win(tmp_path):
    PrithviImageProcessor(nodata_value=-9999, num_labels=2).save_pretrained(tmp_path)
    loaded = PrithviImageProcessor.from_pretrained(tmp_path, nodata_value=None, num_labels=5)
    assert (loaded.nodata_value, loaded.num_labels) == (None, 5)


def test_none_switches_off_what_may_be_none_for_one_call():
    processor = PrithviImageProcessor(**PLAIN, nodata_value=1)
    ones = np.ones((2, 2, 2), dtype=np.uint8)
    assert processor(ones, return_nodata_mask=True)["nodata_mask"][0].all()
    assert not processor(ones, nodata_value=None, return_nodata_mask=True)["nodata_mask"][0].any()


def test_defaults_are_not_shared_between_processors():
    first = PrithviImageProcessor()
    first.bands.append("X")
    first.image_mean[0] = 0.0
    assert PrithviImageProcessor().bands == PrithviImageProcessor.bands
    assert PrithviImageProcessor().image_mean[0] == 775.0


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="unknown option nodata_valeu; expected some of"):
        PrithviImageProcessor(nodata_valeu=0)
    with pytest.raises(TypeError, match="unknown option nodata_valeu"):
        PrithviImageProcessor()(CHIP, nodata_valeu=0)
    with pytest.raises(TypeError, match="return_tensors: expected in a call"):
        PrithviImageProcessor(return_tensors="pt")


@pytest.mark.parametrize(
    "options",
    [{"return_tensors": "tf"}, {"names": ["a", "b"]}, {"file_nodata": [0, 0]}, {"band_names": [["A"], ["B"]]}],
)
def test_options_of_a_call_are_checked(options):
    with pytest.raises(Exception, match=next(iter(options))):
        PrithviImageProcessor()(CHIP, **options)


# ---------------------------------------------------------------------- code on the Hub


def test_the_processor_loads_from_code_saved_beside_it(tmp_path, monkeypatch):
    from transformers import dynamic_module_utils

    monkeypatch.setattr(PrithviImageProcessor, "_auto_class", "AutoImageProcessor")
    processor = PrithviImageProcessor(nodata_value=math.nan)
    processor.save_pretrained(tmp_path / "repo")
    assert {path.name for path in (tmp_path / "repo").glob("*.py")} >= {path.name for path in source_files()}
    written = json.loads((tmp_path / "repo" / "preprocessor_config.json").read_text())
    reference = "image_processing_prithvi.PrithviImageProcessor"
    assert written["auto_map"] == {"AutoImageProcessor": reference}

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    remote = dynamic_module_utils.get_class_from_dynamic_module(reference, str(tmp_path / "repo"))
    assert remote.__module__.startswith("transformers_modules")
    loaded = remote.from_pretrained(tmp_path / "repo")
    assert loaded.to_dict() == processor.to_dict()
    torch.testing.assert_close(loaded(CHIP)["pixel_values"][0], processor(CHIP)["pixel_values"][0])


@pytest.mark.slow
def test_it_works_without_pillow_and_torchvision():
    code = """
import importlib.util, sys
find_spec = importlib.util.find_spec
blocked = {"PIL", "torchvision"}
importlib.util.find_spec = lambda name, *a: None if name.split(".")[0] in blocked else find_spec(name, *a)
sys.modules.update(dict.fromkeys(blocked))
import numpy
from transformers.utils import is_torchvision_available, is_vision_available
from prithvi_hf import PrithviImageProcessor
assert not is_vision_available() and not is_torchvision_available()
output = PrithviImageProcessor()(numpy.ones((6, 8, 8)) * 1000, numpy.ones((8, 8)), return_tensors="pt")
assert output["pixel_values"].shape == (1, 6, 1, 8, 8)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


# ---------------------------------------------------------------------- logits to maps


def test_logits_become_maps_in_the_size_asked_for():
    processor = PrithviImageProcessor()
    logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    outputs = SimpleNamespace(logits=logits)
    maps = processor.post_process_semantic_segmentation(outputs)
    assert [tuple(one.shape) for one in maps] == [(8, 8), (8, 8)]
    assert torch.equal(torch.stack(maps), logits.argmax(1))
    maps = processor.post_process_semantic_segmentation({"logits": logits}, target_sizes=[(8, 8), (13, 5)])
    resized = torch.nn.functional.interpolate(logits, size=(13, 5), mode="bilinear", align_corners=False)
    assert torch.equal(maps[0], logits[0].argmax(0))
    assert torch.equal(maps[1], resized[1].argmax(0))
    assert maps[1].dtype == torch.int64
    sizes = torch.tensor([[8, 8], [4, 4]])
    assert processor.post_process_semantic_segmentation(outputs, sizes)[1].shape == (4, 4)


@pytest.mark.parametrize("sizes", [[(8, 8)], [(8, 8)] * 3, [(8,), (8,)]])
def test_target_sizes_must_pair_with_the_logits(sizes):
    outputs = SimpleNamespace(logits=torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"target_sizes: expected one \(height, width\) for each of the 2 images"):
        PrithviImageProcessor().post_process_semantic_segmentation(outputs, sizes)


# ---------------------------------------------------------------------- real chips


def test_a_real_chip_equals_an_independent_computation(flood_chips):
    rasterio = pytest.importorskip("rasterio")
    from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster

    hand = flood_chips / "v1.1" / "data" / "flood_events" / "HandLabeled"
    image_path = hand / "S2Hand" / "Bolivia_103757_S2Hand.tif"
    mask_path = hand / "LabelHand" / "Bolivia_103757_LabelHand.tif"
    processor = PrithviImageProcessor(**FLOOD, ignore_values=[-1], num_labels=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnitsWarning)
        output = processor(
            GeoTiffRaster(image_path), GeoTiffRaster(mask_path), return_nodata_mask=True, return_tensors="pt"
        )
    with rasterio.open(image_path) as image, rasterio.open(mask_path) as mask:
        bands, truth = image.read([2, 3, 4, 9, 12, 13]), mask.read(1)
    expected = expected_values(bands, 1e-4, 0.0, FLOOD_MEAN, FLOOD_STD)
    np.testing.assert_allclose(output["pixel_values"][0, :, 0], expected, rtol=1e-5, atol=2e-6)
    np.testing.assert_array_equal(output["nodata_mask"][0], (bands == 0).all(0))
    assert output["nodata_mask"].float().mean() == pytest.approx(0.632, abs=1e-3)
    np.testing.assert_array_equal(output["labels"][0], np.where(truth == -1, -100, truth))


def test_every_real_chip_is_in_the_units_of_the_recipe(flood_chips):
    pytest.importorskip("rasterio")
    from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster

    paths = sorted((flood_chips / "v1.1" / "data" / "flood_events" / "HandLabeled" / "S2Hand").glob("*.tif"))
    recipe, unscaled = PrithviImageProcessor(**FLOOD), {**FLOOD, "rescale_factor": 1.0}
    for path in paths:
        raster = GeoTiffRaster(path).select(window=(128, 128, 256, 256))
        assert not warned(recipe, raster)
        assert len(warned(PrithviImageProcessor(**unscaled), raster)) == 1
