# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""`prithvi-hf compare-maps`: the table, the files, and errors in one line."""

import json

import numpy as np
from affine import Affine

from prithvi_hf.outputs.cog import write_class_map
from tests.command_line import assert_refused, run


def write(path, classes, **options):
    layout = {"crs": "EPSG:32633", "transform": Affine(100, 0, 500_000, 0, -100, 5_000_000)}
    write_class_map(path, classes, id2label={0: "land", 1: "water"}, **{**layout, **options})
    return path


def test_figures_are_printed_and_files_are_written(tmp_path, capsys):
    first = np.zeros((20, 30), dtype=np.uint8)
    second = first.copy()
    second[:, :10] = 1
    second[0] = 255
    a, b = write(tmp_path / "a.tif", first), write(tmp_path / "b.tif", second)
    outputs = {
        name: tmp_path / f"change.{end}" for name, end in (("output", "tif"), ("report", "json"), ("picture", "png"))
    }
    assert run("compare-maps", a, b, *(word for name, path in outputs.items() for word in (f"--{name}", path))) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["from", "\\", "to", "(ha)", "land", "water", "before", "loss"]
    areas = json.loads(outputs["report"].read_text())["matrix_area_km2"][0]
    assert lines[1].split()[1:3] == [f"{100 * area:,.3f}" for area in areas]
    assert "66.67 % of 570 pixels have the same class in both; 30 have one in the first map alone, 0" in lines[-4]
    assert lines[-3:] == [f"{name} written to {path}" for name, path in outputs.items()]
    assert run("compare-maps", a, b, "--quiet") == 0
    assert capsys.readouterr().out == ""


def test_errors_are_one_line_and_nothing_is_written(tmp_path, capsys):
    a, b = write(tmp_path / "a.tif", np.zeros((9, 9), np.uint8)), tmp_path / "b.tif"
    write(b, np.zeros((9, 9), np.uint8), transform=Affine(100, 0, 500_050, 0, -100, 5_000_000))
    (tmp_path / "c.tif").write_bytes(b"no map")
    assert_refused(capsys, tmp_path, "expected the grid of", "compare-maps", a, b, "--grid_mismatch", "refuse")
    assert_refused(capsys, tmp_path, "expected a GeoTIFF", "compare-maps", a, tmp_path / "c.tif")
    assert_refused(capsys, tmp_path, "none.tif", "compare-maps", a, tmp_path / "none.tif")
    assert_refused(capsys, tmp_path, "does not exist", "compare-maps", a, b, "--output", tmp_path / "x" / "c.tif")
    assert_refused(
        capsys, tmp_path, "ends in .png for the picture", "compare-maps", a, b, "--picture", tmp_path / "c.svg"
    )
    assert_refused(
        capsys, tmp_path, "ends in .json for the report", "compare-maps", a, b, "--report", tmp_path / "c.txt"
    )
    assert_refused(capsys, tmp_path, "ends in .tif or .tiff", "compare-maps", a, b, "--output", tmp_path / "c.png")
