# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The registry of outputs: one more record is one more output, in Python and on the command line."""

import json

import numpy as np
import pytest
import rasterio

from prithvi_hf.outputs.assemble import name_probability, write_layer
from prithvi_hf.outputs.cog import fraction_layer
from prithvi_hf.outputs.registry import OUTPUTS, Output, check_outputs, resolve_paths
from prithvi_hf.scenes import predict_scene
from tests.command_line import assert_refused, run
from tests.scene_factory import save_model, scene_pixels, tiny_model, tiny_processor, write_scene


def write_table(path, strips):
    """A table of class counts."""
    rows = [f"{name},{strips.counts[index]}" for index, name in strips.id2label.items()]
    path.write_text("class,pixels\n" + "\n".join(rows) + "\n")


def write_water(path, strips):
    """The probability of one class, as a file of its own."""
    layer = fraction_layer("water", [name_probability(1)], ["water"], "float32")
    write_layer(path, layer, strips)


@pytest.fixture
def more_outputs():
    """Two outputs more, before the report, which tells of all others."""
    table = Output("table", "CSV", "pixels of each class", (".csv", ".txt"), "_classes.csv", write=write_table)
    needs = ("probabilities",)
    water = Output("water", "TIF", "probability of water", (".tif",), "_water.tif", needs=needs, write=write_water)
    for output in (table, water):
        OUTPUTS.insert(-1, output)
    yield
    for output in (table, water):
        OUTPUTS.remove(output)


def test_one_more_record_is_one_more_output(tmp_path, more_outputs):
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(40, 45))
    result = predict_scene(
        tiny_model(),
        tiny_processor(),
        scene,
        tmp_path / "map.tif",
        table=tmp_path / "t.csv",
        water=True,
        probabilities=True,
        report=True,
        show_progress=False,
    )
    counts = result.class_counts()
    rows = (tmp_path / "t.csv").read_text().splitlines()[1:]
    assert rows == [f"{name},{counts[name]}" for name in list(counts)[:3]]
    with (
        rasterio.open(tmp_path / "map_water.tif") as water,
        rasterio.open(tmp_path / "map_probabilities.tif") as whole,
    ):
        np.testing.assert_array_equal(water.read(1), whole.read(2))
    report = json.loads((tmp_path / "map.json").read_text())
    assert report["outputs"]["table"] == str(tmp_path / "t.csv")
    assert report["bytes"]["water"] == (tmp_path / "map_water.tif").stat().st_size
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_one_more_record_is_one_more_option(tmp_path, capsys, more_outputs):
    scene, model = write_scene(tmp_path / "scene.tif", scene_pixels(40, 45)), save_model(tmp_path / "model")
    command = ["predict", "--model", model, "--frames", scene, "--output", tmp_path / "map.tif", "--device", "cpu"]
    assert_refused(capsys, tmp_path, "t.png", *command, "--table", "t.png")
    assert run(*command, "--table", "--water", tmp_path / "w.tif") == 0
    assert f"table written to {tmp_path / 'map_classes.csv'}" in capsys.readouterr().out
    assert (tmp_path / "map_classes.csv").exists()
    assert (tmp_path / "w.tif").exists()
    (tmp_path / "list.txt").write_text("scene.tif\n")
    given = ["--scenes", tmp_path / "list.txt", "--output_dir", tmp_path / "maps", "--device", "cpu"]
    scenes = ["predict", "--model", model, *given]
    assert_refused(capsys, tmp_path, "csv, txt", *scenes, "--table", "t.csv")
    assert run(*scenes, "--table", "txt", "--quiet") == 0
    assert (tmp_path / "maps" / "scene_classes.txt").exists()
    assert run(*scenes, "--table", "txt") == 0
    assert "1 skipped" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run("predict", "--help")
    assert "pixels of each class; without a name NAME_classes.csv" in capsys.readouterr().out


def test_paths_are_names_defaults_or_suffixes(tmp_path):
    asked = {"probabilities": True, "polygons": "parquet", "quicklook": "q.png", "entropy": None, "report": False}
    paths = resolve_paths(tmp_path / "a.b.tif", {**asked, "overlap": 0.5})
    assert {name: path.name for name, path in paths.items()} == {
        "map": "a.b.tif",
        "probabilities": "a.b_probabilities.tif",
        "polygons": "a.b.parquet",
        "quicklook": "q.png",
    }


def test_names_are_checked(tmp_path):
    paths = {"map": tmp_path / "map.tif", "entropy": tmp_path / "e.tif"}
    check_outputs(paths, [np.zeros(3), "other.tif"], overwrite=False)
    for wrong, message in (
        ({"entropy": tmp_path / "e.png"}, "e.png"),
        ({"entropy": tmp_path / "map.tif"}, "same file"),
        ({"polygons": tmp_path / "p.shp"}, ".gpkg"),
        ({"report": tmp_path / "none" / "r.json"}, "create it first"),
    ):
        with pytest.raises(ValueError, match=message):
            check_outputs({**paths, **wrong}, [], overwrite=True)
    (tmp_path / "e.tif").write_text("")
    with pytest.raises(ValueError, match="exists already"):
        check_outputs(paths, [], overwrite=False)
    with pytest.raises(ValueError, match="also an input"):
        check_outputs(paths, [tmp_path / "e.tif"], overwrite=True)
