"""The quickstart, from chips to map, with two training steps."""

import importlib.util
from pathlib import Path

import pytest
import rasterio


QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart.py"


@pytest.mark.slow
def test_quickstart_runs_from_chips_to_map(tmp_path, capfd):
    spec = importlib.util.spec_from_file_location("quickstart", QUICKSTART)
    quickstart = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(quickstart)
    assert quickstart.main(["--output_dir", str(tmp_path), "--max_steps", "2"]) == 0
    printed = capfd.readouterr().out
    assert "held-out mean IoU" in printed
    assert "best index          0.7" in printed, "no index alone maps the test chips well"
    with rasterio.open(tmp_path / "map.tif") as written, rasterio.open(tmp_path / "data" / "scene.tif") as scene:
        assert (written.crs, written.transform, written.shape) == (scene.crs, scene.transform, scene.shape)
        assert written.nodata == 255
    for name in ("map.png", "model/README.md", "model/learning_curves.png", "model/sample_predictions.png"):
        assert (tmp_path / name).stat().st_size > 0
