# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What the notebooks share: commands that stop them where they fail, and folders that begin empty."""

import subprocess
import sys

import pytest

from tests.docs.pages import ROOT


CODE = """
from notebook_tools import make_folder, run
import synthetic_floods, synthetic_fields

folder = make_folder("lesson")
(folder / "old.txt").write_text("of an earlier run")
assert list(make_folder("lesson").iterdir()) == []
mask = synthetic_floods.generate_scene(32, 32, 1)
mask.write(folder / "scene.tif", folder / "mask.tif")
assert "NIR_NARROW" in run(f"prithvi-hf info {folder}/scene.tif")
run(f"prithvi-hf info {folder}/mask.tif", show=True)
for command in ("rm -rf /", f"prithvi-hf info {folder}/absent.tif", "prithvi-hf no-such-command", "prithvi-hf info"):
    try:
        run(command)
    except (ValueError, RuntimeError) as error:
        print(type(error).__name__, str(error).splitlines())
    else:
        raise SystemExit(f"no error: {command}")
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tools")
    (folder / "code.py").write_text(CODE)
    paths = f"{ROOT}:{ROOT / 'examples' / 'notebooks'}"
    done = subprocess.run(
        [sys.executable, "code.py"], cwd=folder, env={"PYTHONPATH": paths, "PATH": ""}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "notebook_runs" / "lesson" / "scene.tif").is_file()
    return done.stdout


def test_a_command_is_shown_and_what_it_prints_where_asked(printed):
    assert "$ prithvi-hf info notebook_runs/lesson/scene.tif" in printed
    assert "NIR_NARROW" not in printed
    assert "flood" in printed  # the band of the mask


def test_a_command_that_fails_stops_the_notebook_with_what_it_says(printed):
    other, absent, unknown, incomplete = (line for line in printed.splitlines() if "Error [" in line)
    assert other.startswith("ValueError")
    assert "begins with prithvi-hf, found rm" in other
    assert "absent.tif" in absent
    assert "ended with status 2" in absent
    assert "no-such-command" in unknown
    assert "MODEL_OR_TIF" in incomplete
