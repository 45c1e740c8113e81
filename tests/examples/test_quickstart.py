# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The quickstart, from chips to map, with few chips and two training steps."""

import importlib
import re
from pathlib import Path

import pytest
import rasterio


EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.slow
def test_quickstart_runs_from_chips_to_map(tmp_path, capfd, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)  # as Python does for a script
    quickstart = importlib.import_module("quickstart")
    monkeypatch.setattr(quickstart, "CHIPS", {"num_train": 8, "num_validation": 2, "num_test": 20})
    assert quickstart.main(["--output_dir", str(tmp_path), "--max_steps", "2"]) == 0
    printed = capfd.readouterr().out
    assert "held-out mean IoU" in printed
    index = float(re.search(r"best index +(\d\.\d+)", printed)[1])
    assert 0.6 < index < 0.8, "no index alone maps the test chips well"
    with rasterio.open(tmp_path / "map.tif") as written, rasterio.open(tmp_path / "data" / "scene.tif") as scene:
        assert (written.crs, written.transform, written.shape) == (scene.crs, scene.transform, scene.shape)
        assert written.nodata == 255
    for name in ("map.png", "model/README.md", "model/learning_curves.png", "model/sample_predictions.png"):
        assert (tmp_path / name).stat().st_size > 0
