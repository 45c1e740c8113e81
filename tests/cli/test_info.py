# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf`: what it writes, and one message and nothing written for every error of a user's."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from prithvi_hf.cli import __main__ as cli
from prithvi_hf.cli.info import band_statistics, describe_raster
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.modeling_prithvi import PrithviForSemanticSegmentation, PrithviModel
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from tests.command_line import assert_refused, run
from tests.scene_factory import TRANSFORM, save_model, scene_pixels, write_scene


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
    (folder / "preprocessor_config.json").write_text("[]")
    assert_refused(capsys, tmp_path, "damaged", "info", folder)


@pytest.fixture
def checkpoint(tmp_path, golden_dir):
    from safetensors.torch import load_file

    tensors = load_file(golden_dir / "v1_encoder_T1.safetensors")
    torch.save({name[3:]: value for name, value in tensors.items() if name.startswith("sd.")}, tmp_path / "v1.pt")
    return tmp_path / "v1.pt"


def test_convert(checkpoint, tmp_path, capsys):
    settings = ["num_attention_heads=2", "layer_norm_eps=1e-5", "hidden_act=gelu"]
    assert run("convert", checkpoint, tmp_path / "out", "--set", *settings) == 0
    assert "tensors converted" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_attention_heads"] == 2
    assert PrithviModel.from_pretrained(tmp_path / "out").config.hidden_act == "gelu"


def test_convert_refuses(checkpoint, tmp_path, capsys):
    torch.save({"model": Path("a pickle of another class")}, tmp_path / "pickle.pt")
    out = tmp_path / "out"
    assert_refused(capsys, tmp_path, "could run code", "convert", tmp_path / "pickle.pt", out)
    assert_refused(capsys, tmp_path, "none.pt", "convert", tmp_path / "none.pt", out)
    assert_refused(capsys, tmp_path, "hf://owner/name/file", "convert", "hf://owner", out)
    assert_refused(capsys, tmp_path, "NAME=VALUE", "convert", checkpoint, out, "--set", "num_frames")
    assert_refused(capsys, tmp_path, "hidden_size", "convert", checkpoint, out, "--set", "hidden_size=17")
    assert_refused(
        capsys, tmp_path, "num_attention_heads", "convert", checkpoint, out, "--set", "num_atention_heads=2"
    )
    assert_refused(capsys, tmp_path, "new or empty folder", "convert", checkpoint, tmp_path)


@pytest.mark.parametrize("arguments", [[], ["map"], ["predict"], ["predict", "--overlap", "half"], ["info"]])
def test_usage_errors_end_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    assert "usage: prithvi-hf" in capsys.readouterr().err


def test_every_option_is_explained(capsys):
    parser = cli.build_parser()
    (commands,) = [action for action in parser._actions if action.dest == "command"]
    assert set(commands.choices) >= {"convert", "predict", "info"}
    for name, command in commands.choices.items():
        for action in command._actions:
            assert action.help, f"{name} {action.dest}"


def test_the_module_is_quick_to_load():
    """Help and usage errors need no torch; an empty package stands in, as the real one's own import brings torch."""
    folder = str(Path(cli.__file__).parents[1])
    code = (
        "import sys, types\n"
        "package = types.ModuleType('prithvi_hf')\n"
        f"package.__path__ = [{folder!r}]\n"
        "sys.modules['prithvi_hf'] = package\n"
        "from prithvi_hf.cli.__main__ import main\n"
        "try:\n    main(['predict', '--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'rasterio', 'datasets', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--overlap" in done.stdout


def test_run_as_a_module(tmp_path):
    command = [sys.executable, "-m", "prithvi_hf.cli", "info", str(tmp_path / "none.tif")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("prithvi-hf info: error: There is no model folder")
