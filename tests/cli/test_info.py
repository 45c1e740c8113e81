# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""`prithvi-hf info`: what it says of models and GeoTIFFs, and what it refuses."""

import numpy as np
import pytest

from prithvi_hf import PrithviForImageClassification
from prithvi_hf.cli.info import band_statistics, describe_raster
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.modeling_prithvi import PrithviForSemanticSegmentation
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from tests.command_line import assert_refused, run
from tests.scene_factory import (
    TRANSFORM,
    save_model,
    scene_pixels,
    tiny_model,
    tiny_processor,
    tiny_regressor,
    write_scene,
)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), class_colors=["#101010", "#0000fe", "#fefefe"])


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "scene.tif", scene_pixels(40, 45))


def text_file(path):
    path.write_text("date,place\n2018-02-15,Bolivia\n")


def five_bands(path):
    write_scene(path, scene_pixels(bands=5))


def test_info_of_a_model(model_folder, capsys):
    assert run("info", model_folder) == 0
    text = capsys.readouterr().out
    for part in ("PrithviForSemanticSegmentation", "1 layers of width 32", "water (#0000fe)", "SWIR_2", "std 1155"):
        assert part in text
    model = PrithviForSemanticSegmentation.from_pretrained(model_folder)
    assert f"{sum(tensor.numel() for tensor in model.state_dict().values()):,} weights" in text


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        (tiny_regressor(), ["regression   neck conv_transpose", "aboveground biomass, mean 120 Mg/ha, standard dev"]),
        (tiny_model(kind=PrithviForImageClassification), ["classes      no water, water, cloud"]),
        (tiny_model(coords_encoding=["time", "location"]), ["coordinates  time and location; 1 January is day 0"]),
    ],
    ids=["regression", "classification", "dates and places"],
)
def test_info_of_models_of_every_kind(model, parts, tmp_path, capsys):
    model.save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    assert run("info", tmp_path) == 0
    text = capsys.readouterr().out
    assert all(part in text for part in parts), text


def test_info_of_a_geotiff(model_folder, tmp_path, capsys):
    pixels = scene_pixels(30, 40)
    pixels[:, :15] = -9999
    pixels[0, 20, 20], pixels[0, 21, 21] = 7, 9999
    scene = write_scene(tmp_path / "scene.tif", pixels)
    assert run("info", scene, "--model", model_folder) == 0
    text = capsys.readouterr().out
    valid = pixels[0, 15:]
    for part in ("6 bands of 30 x 40", "int16", "EPSG:32720", str(tuple(TRANSFORM)[:6]), "no data tag  -9999"):
        assert part in text
    assert f"min 7  mean {valid.mean():.6g}  max 9999  valid 50.0 %" in text
    assert "NIR_NARROW   <- band 4 (NIR_NARROW)" in text
    expected = (pixels[3, 15:].mean() - 2497) / 1368
    assert f"the model's 2497 +- 1368: {expected:+.1f} standard deviations" in text


def test_info_of_a_stack_whose_bands_are_only_numbered(tmp_path, capsys):
    model = save_model(tmp_path / "model", num_frames=2)
    names = [f"Band {number}" for number in range(1, 13)]
    scene = write_scene(tmp_path / "stack.tif", scene_pixels(40, 45, bands=12), descriptions=names)
    assert run("info", scene, "--model", model) == 0
    assert "2 dates of 6 bands" in capsys.readouterr().out


def test_statistics_do_not_depend_on_the_pieces_they_are_read_in(tmp_path, monkeypatch):
    pixels = scene_pixels(31, 17).astype(np.float32)
    pixels[2] = np.nan
    pixels[1, 3] = np.inf
    raster = GeoTiffRaster(write_scene(tmp_path / "scene.tif", pixels, nodata=None))
    whole = band_statistics(raster)
    monkeypatch.setattr("prithvi_hf.cli.info._VALUES_IN_MEMORY", 6 * 17 * 4)
    pieces = band_statistics(raster)
    assert [band.valid for band in pieces] == [31 * 17, 30 * 17, 0, *[31 * 17] * 3]
    assert np.isnan(pieces[2].mean)
    for index in (0, 1, 3, 4, 5):
        values = pixels[index][np.isfinite(pixels[index])].astype(np.float64)
        for band in (whole[index], pieces[index]):
            assert (band.minimum, band.maximum) == (values.min(), values.max())
            assert band.mean == pytest.approx(values.mean(), rel=1e-12)
    assert "no valid pixel" in describe_raster(raster.path)


@pytest.mark.parametrize("rule", ["all", "any"])
def test_info_leaves_out_what_the_model_takes_for_no_data(tmp_path, capsys, rule):
    model = save_model(tmp_path / "model")
    processor = PrithviImageProcessor.from_pretrained(model)
    processor.nodata_value, processor.nodata_rule = -9999, rule
    processor.save_pretrained(model)
    pixels = scene_pixels(30, 40)
    pixels[:, :15], pixels[2, 15:18] = -9999, -9999
    scene = write_scene(tmp_path / "scene.tif", pixels, nodata=None)
    assert run("info", scene, "--model", model) == 0
    text = capsys.readouterr().out
    valid = pixels[3, 15 if rule == "all" else 18 :]
    assert f"min {valid.min()}  mean {valid.mean():.6g}  max {valid.max()}  valid {valid.size / 12:.1f} %" in text
    assert f"mean {valid.mean():.4g}, the model's 2497" in text
    assert f"min {pixels[2, 18:].min()}  mean {pixels[2, 18:].mean():.6g}" in text
    assert run("info", scene) == 0
    assert capsys.readouterr().out.count("min -9999") == 6


def test_info_of_one_band(tmp_path, capsys):
    scene = write_scene(tmp_path / "one.tif", scene_pixels(30, 40, bands=1), descriptions=["BLUE"])
    assert run("info", scene) == 0
    assert "one.tif: 1 band of 30 x 40 pixels" in capsys.readouterr().out


def test_a_tag_that_no_pixel_can_equal_leaves_all_valid(tmp_path):
    path = write_scene(tmp_path / "a.tif", np.zeros((6, 8, 9), dtype=np.int16), nodata=0.5)
    assert "no data tag  0.5" in describe_raster(path)
    assert describe_raster(path).count("valid 100.0 %") == 6


def test_info_refuses_what_it_cannot_describe(model_folder, scene, tmp_path, capsys):
    text_file(tmp_path / "text.tif")
    five_bands(tmp_path / "five.tif")
    assert_refused(capsys, tmp_path, "expected a GeoTIFF", "info", tmp_path / "text.tif")
    assert_refused(capsys, tmp_path, "5 bands", "info", tmp_path / "five.tif", "--model", model_folder)
    assert_refused(capsys, tmp_path, "no model folder", "info", tmp_path / "none")
    assert_refused(capsys, tmp_path, "goes with a GeoTIFF", "info", model_folder, "--model", model_folder)
    folder = save_model(tmp_path / "damaged")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:100])
    assert_refused(capsys, tmp_path, "complete safetensors", "info", folder)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "preprocessor_config.json").write_text("[]")
    assert_refused(capsys, tmp_path, "damaged", "info", folder)
