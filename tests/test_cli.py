# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf`: what it writes, and one message and nothing written for every error of a user's."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rio_cogeo import cog_validate

from prithvi_hf import cli
from prithvi_hf.configuration_prithvi import PrithviConfig
from prithvi_hf.data.geotiff import GeoTiffRaster
from prithvi_hf.describe import band_statistics, describe_raster
from prithvi_hf.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.modeling_prithvi import PrithviForSemanticSegmentation, PrithviModel
from tests.scene_factory import CRS_UTM, TRANSFORM, WINDOW, save_model, scene_pixels, tiny_processor, write_scene


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), class_colors=["#101010", "#0000fe", "#fefefe"])


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "scene.tif", scene_pixels(40, 45))


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def predict(model, frames, output, *options):
    return run("predict", "--model", model, "--frames", *frames, "--output", output, "--device", "cpu", *options)


def folder_contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(capsys, folder, message, *arguments):
    """The command ends with 2 and one message on stderr that says `message`, and the folder is as it was."""
    before = folder_contents(folder), sorted(os.listdir(folder))
    capsys.readouterr()
    assert run(*arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    lines = [line for line in output.err.splitlines() if "prithvi-hf" in line]
    assert len(lines) == 1
    assert f"prithvi-hf {arguments[0]}: error: " in lines[0]
    assert message in output.err
    assert "Traceback" not in output.err
    assert (folder_contents(folder), sorted(os.listdir(folder))) == before


def test_predict_writes_a_map(model_folder, scene, tmp_path, capsys):
    assert predict(model_folder, [scene], tmp_path / "map.tif") == 0
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert (dataset.crs, tuple(dataset.transform), dataset.shape) == (CRS_UTM, tuple(TRANSFORM), (40, 45))
        assert dataset.colormap(1)[1] == (0, 0, 254, 255)
        assert dataset.tags(1)["class_2"] == "cloud"
        counts = np.bincount(dataset.read(1).ravel(), minlength=3)
    assert cog_validate(tmp_path / "map.tif", strict=True)[0]
    output = capsys.readouterr()
    assert all(f" {count} pixels" in output.out for count in counts[:3])
    assert "4/4" in output.err
    assert sorted(os.listdir(tmp_path)) == ["map.tif", "scene.tif"]


def test_predict_writes_everything_it_can(model_folder, scene, tmp_path, capsys):
    options = ["--probabilities", "--probabilities_dtype", "uint8", "--quicklook", tmp_path / "q.png", "--quiet"]
    options += ["--window", WINDOW, 40, "--overlap", 0.25, "--batch_size", 3, "--class_values", "0=10", "2=30"]
    assert predict(model_folder, [scene], tmp_path / "map.tif", *options) == 0
    with rasterio.open(tmp_path / "map.tif") as dataset, rasterio.open(tmp_path / "map_probabilities.tif") as second:
        values = np.array([10, 1, 30])[second.read().argmax(0)]
        assert (dataset.read(1) == values).mean() > 0.95  # bytes round near ties away
        assert second.dtypes == ("uint8",) * 3
    assert sorted(os.listdir(tmp_path)) == ["map.tif", "map_probabilities.tif", "q.png", "scene.tif"]
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "")


def test_predict_takes_a_name_for_the_probabilities(model_folder, scene, tmp_path):
    assert predict(model_folder, [scene], tmp_path / "map.tif", "--probabilities", tmp_path / "p.tif", "--quiet") == 0
    with rasterio.open(tmp_path / "p.tif") as dataset:
        assert dataset.dtypes == ("float32",) * 3


def test_predict_takes_frames_in_time_order(tmp_path):
    model = save_model(tmp_path / "model", num_frames=2)
    frames = [write_scene(tmp_path / f"{index}.tif", scene_pixels(40, 45, seed=index)) for index in range(2)]
    assert predict(model, frames, tmp_path / "map.tif", "--quiet") == 0
    assert predict(model, frames[::-1], tmp_path / "swapped.tif", "--quiet") == 0
    assert (tmp_path / "map.tif").read_bytes() != (tmp_path / "swapped.tif").read_bytes()


def test_predict_on_a_real_chip(model_folder, flood_chips, tmp_path):
    (chip,) = flood_chips.rglob("Bolivia_103757_S2Hand.tif")
    options = ["--overlap", 0, "--window", 128, "--quiet"]
    assert predict(model_folder, [chip], tmp_path / "map.tif", *options) == 0
    with rasterio.open(chip) as source, rasterio.open(tmp_path / "map.tif") as written:
        assert (written.crs, written.transform, written.shape) == (source.crs, source.transform, source.shape)
        edge = (source.read([2, 3, 4, 9, 12, 13]) == 0).all(axis=0)
        np.testing.assert_array_equal(written.read(1) == 255, edge)


def test_existing_outputs_are_replaced_or_refused(model_folder, scene, tmp_path, capsys):
    assert predict(model_folder, [scene], tmp_path / "map.tif", "--quiet") == 0
    arguments = ["predict", "--model", model_folder, "--frames", scene, "--output", tmp_path / "map.tif"]
    assert_refused(capsys, tmp_path, "exists already", *arguments, "--no_overwrite")
    assert predict(model_folder, [scene], tmp_path / "map.tif", "--quiet") == 0


def truncated(path):
    write_scene(path, scene_pixels(40, 45))
    path.write_bytes(path.read_bytes()[:-2000])


def text_file(path):
    path.write_text("date,place\n2018-02-15,Bolivia\n")


def five_bands(path):
    write_scene(path, scene_pixels(bands=5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (truncated, "truncated"),
        (text_file, "expected a GeoTIFF"),
        (five_bands, "5 bands"),
        (lambda path: path.write_bytes(b""), "expected a GeoTIFF"),
        (lambda path: path.mkdir(), "directory"),
        (lambda path: None, "bad.tif"),
        (lambda path: path.symlink_to(path), "bad.tif"),
    ],
    ids=["truncated", "text", "five bands", "empty", "folder", "missing", "link to itself"],
)
def test_bad_frame_is_refused(model_folder, tmp_path, capsys, make, message):
    make(tmp_path / "bad.tif")
    arguments = ["predict", "--model", model_folder, "--frames", tmp_path / "bad.tif", "--output", tmp_path / "m.tif"]
    assert_refused(capsys, tmp_path, message, *arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--overlap", "1"], "0 <= overlap < 1, found 1.0"),
        (["--overlap", "-0.5"], "0 <= overlap < 1"),
        (["--overlap", "nan"], "0 <= overlap < 1"),
        (["--window", "0"], "whole and positive"),
        (["--window", "8", "8", "8"], "whole and positive"),
        (["--batch_size", "0"], "at least 1, found 0"),
        (["--device", "gpu"], "--device gpu cannot be used here"),
        (["--class_values", "0"], "CLASS=VALUE"),
        (["--class_values", "0=1"], "of their own"),
        (["--class_values", "0=255"], "of their own"),
        (["--probabilities", "none/p.tif"], "does not exist: create it first"),
        (["--quicklook", "none/q.png"], "does not exist: create it first"),
    ],
)
def test_bad_option_is_refused(model_folder, scene, tmp_path, capsys, options, message):
    arguments = ["predict", "--model", model_folder, "--frames", scene, "--output", tmp_path / "map.tif", *options]
    assert_refused(capsys, tmp_path, message, *arguments)


def test_bad_output_is_refused(model_folder, scene, tmp_path, capsys):
    start = ["predict", "--model", model_folder, "--frames", scene, "--output"]
    assert_refused(capsys, tmp_path, "does not exist: create it first", *start, tmp_path / "none" / "map.tif")
    assert_refused(capsys, tmp_path, "is a folder", *start, tmp_path)
    assert_refused(capsys, tmp_path, "also an input", *start, scene)
    assert_refused(capsys, tmp_path, "same file", *start, tmp_path / "m.tif", "--quicklook", tmp_path / "m.tif")


def test_wrong_number_of_frames_is_refused(model_folder, scene, tmp_path, capsys):
    copy = write_scene(tmp_path / "copy.tif", scene_pixels(40, 45))
    arguments = ["predict", "--model", model_folder, "--frames", scene, copy, "--output", tmp_path / "map.tif"]
    assert_refused(capsys, tmp_path, "frame", *arguments)


def test_frames_of_different_size_are_refused(model_folder, scene, tmp_path, capsys):
    other = write_scene(tmp_path / "other.tif", scene_pixels(40, 44))
    arguments = ["predict", "--model", model_folder, "--frames", scene, other, "--output", tmp_path / "map.tif"]
    assert_refused(capsys, tmp_path, ") has 40 x 44 pixels", *arguments)


@pytest.mark.parametrize("name", ["none/of/these", "./none", "none", "{tmp}/none", "{tmp}/scene.tif", "{tmp}/empty"])
def test_no_model_is_refused(scene, tmp_path, capsys, name):
    (tmp_path / "empty").mkdir()
    model = name.replace("{tmp}", str(tmp_path))
    arguments = ["predict", "--model", model, "--frames", scene, "--output", tmp_path / "map.tif"]
    assert_refused(capsys, tmp_path, "no model", *arguments)


def test_backbone_without_a_head_is_refused(scene, tmp_path, capsys):
    config = PrithviConfig(num_frames=1, image_size=32, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    PrithviModel(config).save_pretrained(tmp_path / "backbone")
    tiny_processor().save_pretrained(tmp_path / "backbone")
    arguments = ["predict", "--model", tmp_path / "backbone", "--frames", scene, "--output", tmp_path / "map.tif"]
    assert_refused(capsys, tmp_path, "no fine-tuned segmentation model", *arguments)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b'{"model_type": "prithvi", "hidden_size": 17}'),
        ("preprocessor_config.json", b"[]"),
        ("preprocessor_config.json", b'{"image_std": 0}'),
        ("preprocessor_config.json", None),
        ("model.safetensors", b"not safe"),
        ("model.safetensors", None),
    ],
)
def test_damaged_model_folder_is_refused(scene, tmp_path, capsys, name, content):
    folder = save_model(tmp_path / "model")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    arguments = ["predict", "--model", folder, "--frames", scene, "--output", tmp_path / "map.tif"]
    assert_refused(capsys, tmp_path, "", *arguments)


def test_pickled_weights_are_refused(scene, tmp_path, capsys):
    folder = save_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"a": Path("an object of another class")}, folder / "pytorch_model.bin")
    arguments = ["predict", "--model", folder, "--frames", scene, "--output", tmp_path / "map.tif"]
    assert_refused(capsys, tmp_path, "could run code", *arguments)


def test_out_of_memory_says_what_helps(model_folder, scene, tmp_path, capsys, monkeypatch):
    def exhaust(*_, **__):
        raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB")

    monkeypatch.setattr(PrithviForSemanticSegmentation, "forward", exhaust)
    arguments = ["predict", "--model", model_folder, "--frames", scene, "--output", tmp_path / "map.tif", "--quiet"]
    assert_refused(capsys, tmp_path, "smaller --batch_size", *arguments)


def test_faults_of_the_program_are_not_hidden(model_folder, scene, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(PrithviForSemanticSegmentation, "forward", fail)
    with pytest.raises(RuntimeError, match="multiplied"):
        predict(model_folder, [scene], tmp_path / "map.tif", "--quiet")
    assert os.listdir(tmp_path) == ["scene.tif"]


def test_interruption_leaves_nothing(model_folder, scene, tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(PrithviForSemanticSegmentation, "forward", interrupt)
    assert predict(model_folder, [scene], tmp_path / "map.tif", "--quiet") == 130
    assert "interrupted" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["scene.tif"]


def test_warnings_are_shown_without_source_lines(model_folder, tmp_path, capsys):
    reflectance = scene_pixels(40, 45).astype(np.float32) / 10_000  # the processor expects reflectance x 10,000
    scene = write_scene(tmp_path / "scene.tif", reflectance)
    assert predict(model_folder, [scene], tmp_path / "map.tif", "--quiet") == 0
    error = capsys.readouterr().err
    assert "prithvi-hf: warning: " in error
    assert "rescale_factor" in error
    assert ".py" not in error


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
    monkeypatch.setattr("prithvi_hf.describe._VALUES_IN_MEMORY", 6 * 17 * 4)
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
    """Help and usage errors need no torch; the file is loaded by itself, as the package's own import brings torch."""
    path = importlib.util.find_spec("prithvi_hf.cli").origin
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('cli', {path!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "try:\n    module.main(['predict', '--help'])\n"
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
