# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Options of `prithvi-hf predict`: every wrong one is one message, and nothing is written."""

import argparse
import json

import pytest

from prithvi_hf.cli import predict_options
from prithvi_hf.outputs.registry import OutputOptions
from prithvi_hf.rasters.opening import FrameOptions
from prithvi_hf.scenes.predict_scene import sort_options
from prithvi_hf.scenes.tiles import WindowOptions
from tests.command_line import assert_refused
from tests.scene_factory import scene_pixels, write_scene


@pytest.fixture
def scene(tmp_path):
    return write_scene(tmp_path / "scene.tif", scene_pixels(40, 45))


@pytest.fixture
def scene_list(tmp_path):
    (tmp_path / "in").mkdir()
    write_scene(tmp_path / "in" / "a.tif", scene_pixels(40, 45))
    path = tmp_path / "list.txt"
    path.write_text("in/a.tif\n")
    return path


def read(*given):
    parser = argparse.ArgumentParser()
    predict_options.add_parser(parser.add_subparsers())
    start = ["predict", "--model", "m", "--frames", "a.tif", "--output", "b.tif"]
    return predict_options.read_options(parser.parse_args([*start, *given]))


def test_defaults_are_those_of_the_library():
    opening, keywords = read()
    assert opening == FrameOptions()
    assert (keywords.pop("dtype"), keywords.pop("compile")) == ("float32", False)
    asked, windows, _, writing = sort_options(keywords)
    assert windows == WindowOptions()
    assert writing == OutputOptions(class_values={})
    assert set(asked.values()) == {None}


def test_options_are_called_as_keywords():
    given = ["--fmask", "cloud", "--fmask_rule", "all", "--on_read_error", "nodata", "--scale", "apply", "--tta", "d4"]
    opening, keywords = read(
        *given, "--window", "32", "--class_values", "0=7", "--probabilities", "--quicklook", "q.png"
    )
    assert (opening.fmask, opening.fmask_rule, opening.on_read_error, opening.scale) == (
        ("cloud",),
        "all",
        "nodata",
        "apply",
    )
    assert (keywords["tta"], keywords["window"], keywords["class_values"]) == ("d4", 32, {0: 7})
    assert (keywords["probabilities"], keywords["quicklook"], keywords["on_read_error"]) == (True, "q.png", "nodata")
    assert read("--window", "32", "48")[1]["window"] == (32, 48)


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
        (["--entropy", "none/e.tif"], "does not exist: create it first"),
        (["--report", "none/r.json"], "does not exist: create it first"),
        (["--polygons", "p.shp"], "ends in .gpkg or .parquet or .geojson for the polygons"),
        (["--polygons", "--polygon_classes", "ice"], "found ['ice']"),
        (["--polygons", "--min_area", "-1"], "at least 0, found -1"),
        (["--polygon_classes", "water"], "add --polygons"),
        (["--fmask", "cloud"], "Fmask"),
        (["--resolution", "-10"], "resolution"),
        (["--grid", "none.tif"], "none.tif"),
        (["--dates", "yesterday"], "expected a date such as"),
        (["--output_dir", "maps"], "leave --output_dir out"),
        (["--probabilities", "p.jpg"], "ends in .tif or .tiff for the probabilities, found p.jpg"),
        (["--quicklook", "q.jpg"], "ends in .png for the quicklook, found q.jpg"),
        (["--report", "r.txt"], "ends in .json for the report, found r.txt"),
        (["--grid", ""], "a value after --grid, found an empty one"),
        (["--output", ""], "a value after --output, found an empty one"),
        (["--model", ""], "a value after --model, found an empty one"),
        (["--frames", ""], "a value after --frames, found an empty one"),
        (["--scenes", ""], "a value after --scenes, found an empty one"),
        (["--scenes", "list.txt"], "found --frames and --scenes"),
        (["--frames", "http://127.0.0.1:9/a.tif"], "the option allow_remote"),
        (["--frames", "a.vrt"], "the option allow_vrt"),
        (["--scenes", "list.txt"], "either --frames or --bbox with --output, or --scenes with --output_dir"),
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
    assert_refused(capsys, tmp_path, "same file", *start, tmp_path / "m.tif", "--entropy", tmp_path / "m.tif")
    assert_refused(capsys, tmp_path, "ends in .tif or .tiff for the map, found m.png", *start, tmp_path / "m.png")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--probabilities", "p.tif"], "give --probabilities without a name"),
        (["--polygons", "p.gpkg"], "give --polygons without a name, or one of gpkg, parquet, geojson"),
        (["--output", "map.tif"], "leave --output out"),
        (["--dates", "2022-06-01"], "--dates are those of one scene"),
        (["--output_dir", "{tmp}/in"], "is an input"),
        (["--output_dir", "{tmp}/list.txt"], "folder"),
        (["--scenes", "{tmp}/none"], "found nothing there"),
        (["--scenes", "{tmp}/double.txt"], "more than once"),
        (["--scenes", "{tmp}/remote.txt"], "--allow_remote"),
        (["--scenes", "{tmp}/clash.jsonl", "--probabilities"], "clash"),
    ],
)
def test_bad_options_of_many_scenes(model_folder, scene_list, tmp_path, capsys, options, message):
    (tmp_path / "double.txt").write_text("in/a.tif\nin/a.tif\n")
    (tmp_path / "remote.txt").write_text("https://example.org/a.tif\n")
    rows = [{"frames": ["in/a.tif"], "name": name} for name in ("a", "a_probabilities")]
    (tmp_path / "clash.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = ["--scenes", scene_list, "--output_dir", tmp_path / "maps"]
    options = [option.replace("{tmp}", str(tmp_path)) for option in options]
    assert_refused(capsys, tmp_path, message, "predict", "--model", model_folder, *given, *options)


def test_neither_scenes_nor_frames(model_folder, tmp_path, capsys):
    assert_refused(capsys, tmp_path, "found none of them", "predict", "--model", model_folder)
    assert_refused(capsys, tmp_path, "goes with --output", "predict", "--model", model_folder, "--frames", "a.tif")
