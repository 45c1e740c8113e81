"""Whole scenes through a regression model: values, unit, report, resuming, and what is refused."""

import json

import numpy as np
import pytest
import rasterio
import torch
from rio_cogeo import cog_validate
from transformers import pipeline

from prithvi_hf import PrithviForImageClassification
from prithvi_hf.models.prithvi.segmentation_map_prithvi import open_frames, prepare_scene
from prithvi_hf.models.prithvi.sliding_window_prithvi import sliding_window_logits
from prithvi_hf.scenes import PredictedValues, predict_scene
from tests.scene_factory import (
    CRS_UTM,
    TRANSFORM,
    WINDOW,
    scene_pixels,
    tiny_model,
    tiny_processor,
    tiny_regressor,
    write_scene,
)


QUIET = {"show_progress": False}


@pytest.fixture(scope="module")
def model():
    return tiny_regressor()


@pytest.fixture
def scene(tmp_path):
    pixels = scene_pixels()
    pixels[:, :18] = -9999
    return write_scene(tmp_path / "scene.tif", pixels)


def test_values_are_those_of_the_sliding_window_with_their_unit_and_place(tmp_path, model, scene):
    result = predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", quicklook=True, report=True, **QUIET)
    assert isinstance(result, PredictedValues)
    prepared = prepare_scene(tiny_processor(), open_frames(scene))
    expected = sliding_window_logits(model, prepared.pixel_values, (WINDOW, WINDOW), (16, 16))[0, 0].numpy()
    expected[prepared.nodata_mask] = np.nan
    np.testing.assert_allclose(result.values, expected, rtol=1e-6)
    assert np.isnan(result.values[:18]).all()
    assert result.values[18:].std() > 0.01
    assert cog_validate(tmp_path / "map.tif", strict=True)[0]
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert (dataset.descriptions, dataset.units) == (("aboveground biomass",), ("Mg/ha",))
        assert (dataset.crs, tuple(dataset.transform)) == (CRS_UTM, tuple(TRANSFORM))
        assert np.isnan(dataset.nodata)
    assert (tmp_path / "map.png").stat().st_size > 10_000
    report = json.loads((tmp_path / "map.json").read_text())
    valid = expected[18:].astype(np.float64)
    figures = {"pixels": valid.size, "mean": valid.mean(), "std": valid.std(), "min": valid.min(), "max": valid.max()}
    assert result.statistics() == pytest.approx(figures, rel=1e-5)
    assert report["values"] == {"name": "aboveground biomass", "unit": "Mg/ha", **result.statistics()}
    assert report["nodata_fraction"] == 0.25
    assert "class_pixels" not in report
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.json", "map.png", "map.tif", "scene.tif"]


def test_a_run_that_was_interrupted_ends_with_the_same_bytes(tmp_path, model, scene, monkeypatch, set_threads):
    set_threads(1)  # a batch is one call of the model for each symmetry
    # Of one batch size: sums of a batch may end in other last bits.
    options = {**QUIET, "overlap": 0.25, "blending": "gaussian", "tta": "d4", "batch_size": 2}
    predict_scene(model, tiny_processor(), scene, tmp_path / "whole.tif", **options)
    calls, forward = [], model.forward

    def fail(*args, **kwargs):
        calls.append(1)
        if len(calls) == 17:
            raise RuntimeError("interrupted")
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", fail)
    with pytest.raises(RuntimeError, match="interrupted"):
        predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", **options)
    monkeypatch.undo()
    result = predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", **options)
    assert result.report["strips"]["resumed"] > 0
    assert (tmp_path / "map.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_the_mean_over_the_symmetries_is_that_of_the_values(tmp_path, model):
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(WINDOW, WINDOW))
    inputs = prepare_scene(tiny_processor(), open_frames(scene)).pixel_values
    with torch.no_grad():
        turned = [
            torch.rot90(model(torch.rot90(image, turn, (-2, -1))).predicted_values, -turn, (-2, -1)).flip(
                -1 if mirrored else ()
            )
            for mirrored, image in ((False, inputs), (True, inputs.flip(-1)))
            for turn in range(4)
        ]
    result = predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", tta="d4", **QUIET)
    np.testing.assert_allclose(result.values, torch.stack(turned).mean(dim=0)[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"probabilities": True}, "probabilities"),
        ({"entropy": True, "polygons": True}, "entropy, polygons"),
        ({"class_values": {0: 3}}, "class_values"),
    ],
)
def test_outputs_of_classes_are_refused_before_anything_is_written(tmp_path, model, scene, options, found):
    with pytest.raises(ValueError, match=rf"values, not classes \(map, quicklook, report\), found {found}\. Leave"):
        predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", **options, **QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_a_model_of_whole_images_makes_no_map(tmp_path, scene):
    model = tiny_model(kind=PrithviForImageClassification)
    with pytest.raises(ValueError, match=r"regression, found a PrithviForImageClassification\. Use pip"):
        predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", **QUIET)


def test_the_pipeline_gives_the_same_values_in_memory_and_streamed(tmp_path, model, scene):
    model.save_pretrained(tmp_path / "model")
    tiny_processor().save_pretrained(tmp_path / "model")
    pipe = pipeline("geospatial-regression", model=str(tmp_path / "model"), device="cpu", overlap=0.25)
    result = pipe(str(scene))
    assert (result.name, result.unit, result.crs) == ("aboveground biomass", "Mg/ha", CRS_UTM)
    assert result.values.dtype == np.float32
    assert np.isnan(result.values[:18]).all()
    streamed = pipe(str(scene), output=str(tmp_path / "map.tif"))
    np.testing.assert_allclose(streamed.values, result.values, rtol=1e-6)
    assert streamed.to_xarray().attrs["units"] == "Mg/ha"
    first, second = pipe([scene_pixels(), scene_pixels(seed=1)])
    assert first.values.shape == second.values.shape == (72, 90)
    assert not np.array_equal(first.values, second.values)
    with pytest.raises(TypeError, match="geospatial-regression pipeline: it takes batch_size"):
        pipe(str(scene), probabilities=True)
