# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""`band_map`, `band_indices` and `band_names` mean the same through every door; described stacks are their dates."""

import numpy as np
import pytest
import yaml
from transformers import pipeline

from prithvi_hf import PrithviImageProcessor, predict_scene
from prithvi_hf.cli.info import describe_raster
from prithvi_hf.models.prithvi.pixel_values_prithvi import UnitsWarning
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.scenes import open_scene
from prithvi_hf.training.recipe import parse_arguments
from tests.command_line import assert_refused, run
from tests.granule_factory import product_folder, same_size_bands, write_sentinel2
from tests.raster_factory import reflectance, write_mask, write_raster
from tests.scene_factory import read_map, scene_pixels, tiny_model, tiny_processor, write_scene


pytestmark = [
    pytest.mark.filterwarnings("ignore:the bands"),
    pytest.mark.filterwarnings(f"ignore::{UnitsWarning.__module__}.UnitsWarning"),
]
BROAD = ("B12", "B11", "B08", "B04", "B03", "B02")  # the bands of the model, from the last to the first
ORDER = [5, 4, 3, 2, 1, 0]
# Three ways to say where the bands are, as keywords and as words of a command line.
WAYS = [
    ({"band_map": {"NIR_NARROW": "B08"}}, ["--band_map", "NIR_NARROW=B08"]),
    ({"band_indices": ORDER}, ["--band_indices", *ORDER]),
    (
        {"band_names": ["SWIR_2", "SWIR_1", "NIR", "RED", "GREEN", "BLUE"]},
        ["--band_names", "SWIR_2", "SWIR_1", "NIR", "RED", "GREEN", "BLUE"],
    ),
]
DATES = ("20210601", "20210701")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A scene in the model's order, and one with its bands the other way round and names that do not do."""
    folder, pixels = tmp_path_factory.mktemp("scenes"), scene_pixels(40, 45)
    plain = write_scene(folder / "plain.tif", pixels)
    return plain, write_scene(folder / "reversed.tif", pixels[::-1].copy(), descriptions=BROAD)


@pytest.fixture(scope="module")
def expected(scenes, tmp_path_factory):
    path = tmp_path_factory.mktemp("map") / "map.tif"
    return predict_scene(tiny_model(), tiny_processor(), scenes[0], path, show_progress=False).mask


@pytest.mark.parametrize(("keywords", "words"), WAYS)
def test_a_scene_is_mapped_alike_by_every_door(model_folder, scenes, expected, tmp_path, keywords, words):
    scene = scenes[1]
    predict_scene(tiny_model(), tiny_processor(), scene, tmp_path / "0.tif", show_progress=False, **keywords)
    predict_scene(tiny_model(), tiny_processor(**keywords), scene, tmp_path / "1.tif", show_progress=False)
    command = ("predict", "--model", model_folder, "--device", "cpu", "--quiet")
    assert run(*command, "--frames", scene, "--output", tmp_path / "2.tif", *words) == 0
    pipe = pipeline("geospatial-segmentation", model=str(model_folder), device="cpu", **keywords)
    pipe(str(scene), output=tmp_path / "3.tif")
    (tmp_path / "list.txt").write_text(f"{scene}\n")
    assert run(*command, "--scenes", tmp_path / "list.txt", "--output_dir", tmp_path / "maps", *words) == 0
    for path in [*(tmp_path / f"{number}.tif" for number in range(4)), tmp_path / "maps" / "reversed.tif"]:
        np.testing.assert_array_equal(read_map(path), expected)
    np.testing.assert_array_equal(pipe(str(scene)).mask, expected)
    plain = pipeline("geospatial-segmentation", model=str(model_folder), device="cpu")
    np.testing.assert_array_equal(plain(str(scene), **keywords).mask, expected)
    assert "BLUE         <- band 6 (B02)" in describe_raster(scene, str(model_folder), **keywords)


def test_a_broad_near_infrared_is_refused_with_the_way_out(model_folder, scenes, tmp_path, capsys):
    words = ("predict", "--model", model_folder, "--frames", scenes[1], "--output", tmp_path / "map.tif")
    assert_refused(capsys, tmp_path, "--band_map NIR_NARROW=B08", *words)


def test_a_processor_keeps_its_band_map_and_refuses_others(tmp_path):
    PrithviImageProcessor(band_map=["NIR_NARROW=B08"]).save_pretrained(tmp_path)
    processor = PrithviImageProcessor.from_pretrained(tmp_path)
    assert processor.find_bands(BROAD, 6) == ORDER
    for wrong, message in (
        ({"NIR": "B08"}, "band_map: expected some of the bands BLUE.*found NIR"),
        ({"RED": -1}, "band_map: expected a description, code or 0-based position"),
        ({"RED": ""}, "band_map: expected a description, code or 0-based position"),
        ({"RED": True}, "band_map: expected a description, code or 0-based position"),
    ):
        with pytest.raises(ValueError, match=message):
            PrithviImageProcessor(band_map=wrong)


@pytest.mark.parametrize("form", ["{band}_{date}", "{date}_{band}", "{band}"])
def test_a_described_stack_is_mapped_like_its_dates(tmp_path, form):
    """The bands of all dates side by side, which is the order of no model."""
    dates = [scene_pixels(40, 45, seed=seed) for seed in range(2)]
    frames = [write_scene(tmp_path / f"{date}.tif", pixels) for date, pixels in zip(DATES, dates, strict=True)]
    codes = ("B02", "B03", "B04", "B8A", "B11", "B12")
    names = [form.format(band=band, date=date) for band in codes for date in DATES]
    stack = write_scene(tmp_path / "stack.tif", np.stack(dates, axis=1).reshape(12, 40, 45), descriptions=names)
    model, processor = tiny_model(2), tiny_processor(2)
    expected = predict_scene(model, processor, frames, tmp_path / "map.tif", show_progress=False).mask
    assert np.array_equal(
        predict_scene(model, processor, stack, tmp_path / "m.tif", show_progress=False).mask, expected
    )
    pipe = pipeline("geospatial-segmentation", model=model, image_processor=processor, device="cpu")
    np.testing.assert_array_equal(pipe(str(stack)).mask, expected)
    inputs = processor(GeoTiffRaster(stack), return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(
        inputs, processor(tuple(map(GeoTiffRaster, frames)), return_tensors="np")["pixel_values"]
    )


@pytest.mark.parametrize(("keywords", "words"), WAYS)
def test_stats_and_recipes_find_the_bands_alike(tmp_path, keywords, words):
    pixels = reflectance(6, seed=3)
    for split in ("train", "validation"):
        write_raster(tmp_path / "chips" / split / "a_image.tif", pixels[::-1].copy(), descriptions=BROAD)
        write_mask(tmp_path / "chips" / split / "a_mask.tif")
    options = f'{{"image_suffix": "_image.tif", "mask_suffix": "_mask.tif", "cache_dir": "{tmp_path / "cache"}"}}'
    bands = ["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"]
    output = tmp_path / "stats.yaml"
    given = ["--ignore_values", -1, "--quiet", "--bands", *bands, *words]
    assert run("stats", tmp_path / "chips", "--dataset_options", options, "--output", output, *given) == 0
    found = yaml.safe_load(output.read_text())
    np.testing.assert_allclose(found["image_mean"], pixels.mean(axis=(1, 2)), rtol=1e-3)
    [[name, value]] = keywords.items()
    assert found[name] == value
    # The recipe and the same words on the command line of a training make one processor.
    start = ["--output_dir", str(tmp_path / "out"), "--image_mean", "1", *"123456"[1:], "--image_std", *"123456"]
    of_file = parse_arguments(["--config", str(output), *start[:2]]).build_image_processor()
    of_words = parse_arguments([*map(str, words), *start, "--bands", *bands]).build_image_processor()
    for processor in (of_file, of_words):
        assert getattr(processor, name) == value
        assert processor.find_bands(BROAD, 6) == ORDER


def test_bands_without_statistics_are_sent_to_stats(tmp_path):
    recipe = parse_arguments(["--output_dir", str(tmp_path), "--bands", "R", "G", "B"])
    with pytest.raises(ValueError, match="`prithvi-hf stats DIR --bands R G B`"):
        recipe.build_image_processor()
    with pytest.raises(ValueError, match=r"image_mean: expected 3 values.*`prithvi-hf stats`"):
        PrithviImageProcessor(bands=["R", "G", "B"])


@pytest.mark.parametrize("keywords", [{"band_map": {"NIR_NARROW": "b8"}}, {"band_map": ["nir_narrow=NIR_BROAD"]}])
def test_a_granule_without_the_narrow_near_infrared_is_mapped_by_a_band_map(tmp_path, keywords):
    bands = same_size_bands()
    bands["B08"] = bands.pop("B8A")
    folder = product_folder(tmp_path, "0301")
    write_sentinel2(folder, bands)
    with pytest.raises(ValueError, match=r"none for NIR_NARROW \(B8A\).*--band_map NIR_NARROW=NIR_BROAD"):
        open_scene(folder, tiny_processor())
    [frame] = open_scene(folder, tiny_processor(), **keywords).frames
    expected = [bands[code] for code in ("B02", "B03", "B04", "B08", "B11", "B12")]
    np.testing.assert_array_equal(frame.read(), expected)
