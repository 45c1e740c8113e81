"""`frame_order`: bands and dates as the published crop checkpoint takes them, and everything else untouched by it."""

import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prithvi_hf import PrithviImageProcessor
from prithvi_hf.models.prithvi.pipeline_prithvi import GeospatialSegmentationPipeline
from prithvi_hf.models.prithvi.pixel_values_prithvi import UnitsWarning
from prithvi_hf.models.prithvi.segmentation_map_prithvi import open_frames, prepare_scene
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.scenes.predict_scene import predict_scene
from prithvi_hf.training.recipe import read_recipe
from tests.golden import read_golden
from tests.scene_factory import CRS_UTM, scene_pixels, tiny_model, write_scene


CROP_MEAN = [494.905781, 815.239594, 924.335066, 2968.881459, 2634.621962, 1739.579917]
CROP_STD = [284.925432, 357.84876, 575.566823, 896.601013, 951.900334, 921.407808]
BANDS, FRAMES = 6, 3


def processor(frame_order="original_crop", num_frames=FRAMES, **options):
    return PrithviImageProcessor(
        num_frames=num_frames, image_mean=CROP_MEAN, image_std=CROP_STD, frame_order=frame_order, **options
    )


def crop_chip(height=7, width=5, seed=0):
    """A file of 18 bands, all bands of the first date first."""
    return scene_pixels(height, width, bands=BANDS * FRAMES, seed=seed)


def by_the_original(stack):
    """The original pipeline word by word: 18 means and deviations on 18 channels, then the reshape."""
    means, deviations = np.array(CROP_MEAN * FRAMES), np.array(CROP_STD * FRAMES)
    normalized = (stack.astype(np.float64) - means[:, None, None]) / deviations[:, None, None]
    return normalized.reshape(BANDS, FRAMES, *stack.shape[1:])


@pytest.mark.parametrize(
    ("frame_order", "name"), [("original_crop", "original"), ("time_major", "intended_not_original")]
)
def test_both_orders_equal_the_reference_values(golden_dir, frame_order, name):
    golden = read_golden(golden_dir, "crop_reshape")
    output = processor(frame_order, do_normalize=False)(golden["in_.x"], return_tensors="pt")["pixel_values"]
    assert torch.equal(output[0], golden[f"out.{name}"])


@pytest.mark.parametrize("size", [(7, 5), (16, 16), (1, 9)])
def test_values_equal_the_original_pipeline(size):
    chip = crop_chip(*size)
    output = processor()(chip, return_tensors="np")["pixel_values"]
    assert (output.dtype, output.shape) == (np.float32, (1, BANDS, FRAMES, *size))
    np.testing.assert_allclose(output[0], by_the_original(chip), rtol=1e-5, atol=1e-6)


def test_each_channel_holds_the_file_channel_that_the_original_put_there():
    chip = np.broadcast_to(np.arange(18.0)[:, None, None], (18, 2, 2))
    output = processor(do_normalize=False)(chip, return_tensors="np")["pixel_values"][0, :, :, 0, 0]
    assert output[0].tolist() == [0, 1, 2], "blue at three dates is blue, green and red of the first date"
    assert output[5].tolist() == [15, 16, 17]


@pytest.mark.parametrize("frame_order", ["time_major", "original_crop"])
def test_every_form_of_an_image_gives_the_same(tmp_path, frame_order):
    chip = crop_chip()
    dates = list(chip.reshape(FRAMES, BANDS, *chip.shape[1:]))
    rasters = [GeoTiffRaster(write_scene(tmp_path / f"{index}.tif", date)) for index, date in enumerate(dates)]
    stacked = GeoTiffRaster(write_scene(tmp_path / "stack.tif", chip))
    cube = np.stack(dates, axis=1)
    forms = [stacked, tuple(dates), tuple(rasters), [*rasters[:2], dates[2]], cube, cube[None], torch.from_numpy(cube)]
    expected = processor(frame_order)(chip, return_tensors="pt")["pixel_values"]
    for form in forms:
        form = [form] if isinstance(form, list) else form
        output = processor(frame_order)(form, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(output, expected, rtol=0, atol=0)


def test_bands_are_found_by_name_before_they_are_mixed():
    chip = crop_chip()
    dates = chip.reshape(FRAMES, BANDS, *chip.shape[1:])
    names = ["SWIR_2", "SWIR_1", "NIR_NARROW", "RED", "GREEN", "BLUE"]
    swapped = processor()(np.stack([date[::-1] for date in dates], axis=1), band_names=names, return_tensors="np")
    np.testing.assert_array_equal(swapped["pixel_values"], processor()(chip, return_tensors="np")["pixel_values"])


def test_other_numbers_of_bands_and_dates_are_mixed_alike():
    options = {"bands": ["A", "B"], "image_mean": [0, 10], "image_std": [1, 2], "num_frames": 4}
    chip = np.random.default_rng(0).integers(1, 30, (8, 3, 3)).astype(np.float32)
    means, deviations = np.array([0, 10] * 4), np.array([1, 2] * 4)
    expected = ((chip - means[:, None, None]) / deviations[:, None, None]).reshape(2, 4, 3, 3)
    output = PrithviImageProcessor(**options, frame_order="original_crop")(chip, return_tensors="np")
    np.testing.assert_allclose(output["pixel_values"][0], expected, rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(*[st.integers(1, 5)] * 4, st.booleans())
def test_either_order_holds_for_any_size(channels, frames, height, width, by_date):
    cube = np.random.default_rng(0).normal(size=(channels, frames, height, width)).astype(np.float32)
    options = {"bands": list("ABCDE")[:channels], "num_frames": frames, "do_normalize": False}
    order = "original_crop" if by_date else "time_major"
    output = PrithviImageProcessor(**options, frame_order=order)(cube, return_tensors="np")["pixel_values"][0]
    stack = np.concatenate([cube[:, date] for date in range(frames)])
    np.testing.assert_array_equal(output, stack.reshape(cube.shape) if by_date else cube)


def test_one_frame_has_no_order():
    chip = crop_chip()[:BANDS]
    outputs = [
        processor(order, 1)(chip, return_tensors="pt")["pixel_values"] for order in ("time_major", "original_crop")
    ]
    assert torch.equal(*outputs)


def test_it_is_an_option_of_a_call():
    chip, plain = crop_chip(), processor("time_major")
    mixed = plain(chip, frame_order="original_crop", return_tensors="pt")["pixel_values"]
    assert torch.equal(mixed, processor()(chip, return_tensors="pt")["pixel_values"])
    assert not torch.equal(mixed, plain(chip, return_tensors="pt")["pixel_values"])
    assert plain.frame_order == "time_major"


def test_it_is_saved_and_older_files_mean_time_major(tmp_path):
    processor().save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    written = json.loads(path.read_text())
    assert written["frame_order"] == "original_crop"
    assert PrithviImageProcessor.from_pretrained(tmp_path).frame_order == "original_crop"
    del written["frame_order"]
    path.write_text(json.dumps(written))
    assert PrithviImageProcessor.from_pretrained(tmp_path).frame_order == "time_major"


@pytest.mark.parametrize("value", ["band_major", "", 1, ["time_major"]])
def test_other_orders_are_refused(value):
    with pytest.raises(ValueError, match="frame_order: expected 'time_major' or 'original_crop', found"):
        processor(value)
    with pytest.raises(ValueError, match="frame_order: expected"):
        processor()(crop_chip(), frame_order=value)


def test_nodata_and_labels_do_not_depend_on_it():
    chip, labels = crop_chip(), np.arange(35).reshape(7, 5) % 3
    chip[:, 0, 0] = -9999  # no data in every band of every date
    chip[:6, 1, 1] = -9999  # in the first date alone
    chip[7, 2, 2] = -9999  # one value: green of the second date
    options = {"nodata_value": -9999, "mask_nodata_labels": True, "return_nodata_mask": True, "return_tensors": "np"}
    plain, mixed = (processor(order)(chip, labels, **options) for order in ("time_major", "original_crop"))
    np.testing.assert_array_equal(plain["nodata_mask"], mixed["nodata_mask"])
    np.testing.assert_array_equal(plain["labels"], mixed["labels"])
    assert mixed["nodata_mask"].sum() == 1
    filled = np.where(chip == -9999, 0, chip)
    np.testing.assert_allclose(mixed["pixel_values"][0], by_the_original(filled), rtol=1e-5, atol=1e-6)


def test_units_are_judged_by_the_true_bands():
    """Statistics that differ widely between bands: mixed, every one would look wrong."""
    options = {"image_mean": [1, 10, 100, 1e3, 1e4, 1e5], "image_std": [1, 10, 100, 1e3, 1e4, 1e5]}
    chip = np.broadcast_to(np.array(options["image_mean"] * FRAMES)[:, None, None], (18, 4, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnitsWarning)
        PrithviImageProcessor(num_frames=FRAMES, frame_order="original_crop", **options)(chip)
    with pytest.warns(UnitsWarning):
        PrithviImageProcessor(num_frames=FRAMES, frame_order="original_crop", **options)(chip * 1e4)


@pytest.mark.parametrize("frame_order", ["time_major", "original_crop"])
def test_the_true_bands_can_be_had_back(frame_order):
    chip = crop_chip()
    pixel_values = processor(frame_order)(chip, return_tensors="pt")["pixel_values"][0]
    expected = processor("time_major")(chip, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(processor(frame_order).restore_frame_order(pixel_values), expected)


# ---------------------------------------------------------------------- scenes


def test_a_scene_is_mixed_for_the_model_and_not_for_the_eye(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", crop_chip(40, 48))
    mixed = prepare_scene(processor(), open_frames(scene))
    plain = prepare_scene(processor("time_major"), open_frames(scene))
    expected = processor()(GeoTiffRaster(scene), return_tensors="pt")["pixel_values"]
    assert torch.equal(mixed.pixel_values, expected)
    assert not torch.equal(mixed.pixel_values, plain.pixel_values)
    assert mixed.rgb.shape == (40, 48, 4)
    np.testing.assert_array_equal(mixed.rgb, plain.rgb)
    np.testing.assert_array_equal(mixed.nodata_mask, plain.nodata_mask)


def test_prediction_and_pipeline_give_the_model_what_the_processor_makes(tmp_path):
    model, chip = tiny_model(FRAMES), crop_chip(32, 32)
    path = write_scene(tmp_path / "scene.tif", chip)
    with torch.inference_mode():
        logits = model(torch.from_numpy(by_the_original(chip)[None]).float()).logits
        other = model(processor("time_major")(chip, return_tensors="pt")["pixel_values"]).logits
    expected = logits[0].argmax(0).numpy()
    assert not np.array_equal(expected, other[0].argmax(0).numpy()), "the order must matter for this test to"
    result = predict_scene(model, processor(), path, tmp_path / "map.tif", show_progress=False)
    np.testing.assert_array_equal(result.mask, expected)
    assert result.crs == CRS_UTM
    pipe = GeospatialSegmentationPipeline(model=model, image_processor=processor(), device="cpu")
    np.testing.assert_array_equal(pipe(chip).mask, expected)


def test_the_training_recipe_has_no_reason_to_mix():
    assert read_recipe("multi_temporal_crop").build_image_processor().frame_order == "time_major"
