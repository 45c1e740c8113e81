# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Whole scenes from GeoTIFF to map."""

import json
import os
import pickle
import threading

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rio_cogeo import cog_validate
from transformers import pipeline
from transformers.modeling_outputs import SemanticSegmenterOutput

from prithvi_hf.models.prithvi.input_shift_prithvi import InputShiftWarning
from prithvi_hf.models.prithvi.segmentation_map_prithvi import (
    PreparedScene,
    assemble_map,
    open_frames,
    prepare_scene,
    stretch_colors,
)
from prithvi_hf.models.prithvi.sliding_window_prithvi import sliding_window_logits
from prithvi_hf.outputs.quicklook import write_quicklook
from prithvi_hf.scenes import predict_scene, reading
from prithvi_hf.scenes.predict_scene import join_windows, sort_options
from prithvi_hf.scenes.scene import open_scene
from tests.granule_factory import set_scale
from tests.raster_factory import flip_unnoticed, write_part
from tests.scene_factory import CRS_UTM, TRANSFORM, WINDOW, scene_pixels, tiny_model, tiny_processor, write_scene


QUIET = {"show_progress": False}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def whole_image_classes(model, processor, pixels):
    inputs = processor(pixels, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits[0].argmax(0).numpy()


@pytest.mark.parametrize("size", [(20, 27), (5, 40), (WINDOW, WINDOW)])
def test_scene_within_one_window_is_the_models_own_answer(tmp_path, model, size):
    pixels = scene_pixels(*size)
    scene = write_scene(tmp_path / "scene.tif", pixels)
    window = max(WINDOW, *size)
    result = predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", window=window, **QUIET)
    np.testing.assert_array_equal(result.mask, whole_image_classes(model, tiny_processor(), pixels))
    assert len(np.unique(result.mask)) > 1


def test_map_is_that_of_the_sliding_window_and_keeps_the_georeference(tmp_path, model):
    pixels = scene_pixels()
    scene = write_scene(tmp_path / "scene.tif", pixels)
    predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", **QUIET)
    inputs = tiny_processor()(pixels, return_tensors="pt")["pixel_values"]
    logits = sliding_window_logits(model, inputs, (WINDOW, WINDOW), (WINDOW // 2, WINDOW // 2))
    with rasterio.open(tmp_path / "map.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), logits[0].argmax(0).numpy())
        assert (dataset.crs, tuple(dataset.transform)) == (CRS_UTM, tuple(TRANSFORM))
        assert dataset.tags(1)["class_1"] == "water"
    assert cog_validate(tmp_path / "map.tif", strict=True)[0]


def test_batch_size_does_not_change_the_map(tmp_path, model):
    scene = write_scene(tmp_path / "scene.tif")
    maps = [
        predict_scene(model, tiny_processor(), scene, tmp_path / f"{size}.tif", batch_size=size, **QUIET)
        for size in (1, 4, 64)
    ]
    np.testing.assert_array_equal(maps[0].mask, maps[1].mask)
    np.testing.assert_array_equal(maps[0].mask, maps[2].mask)


def test_nodata_follows_the_processors_rule(tmp_path, model):
    pixels = scene_pixels()
    pixels[:, :10] = -9999  # every band: no data
    pixels[0, 20:25] = -9999  # one band alone: data
    scene = write_scene(tmp_path / "scene.tif", pixels)
    result = predict_scene(
        model, tiny_processor(), scene, tmp_path / "all.tif", probabilities=tmp_path / "p.tif", **QUIET
    )
    np.testing.assert_array_equal(result.mask == 255, (pixels == -9999).all(0))
    np.testing.assert_array_equal(np.isnan(result.probabilities).any(0), result.mask == 255)
    strict = predict_scene(model, tiny_processor(nodata_rule="any"), scene, tmp_path / "any.tif", **QUIET)
    np.testing.assert_array_equal(strict.mask == 255, (pixels == -9999).any(0))


def test_nan_is_no_data(tmp_path, model):
    pixels = scene_pixels().astype(np.float32)
    pixels[:, :, :9] = np.nan
    scene = write_scene(tmp_path / "scene.tif", pixels, nodata=np.nan)
    result = predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", **QUIET)
    np.testing.assert_array_equal(result.mask == 255, np.isnan(pixels[0]))


def test_scene_without_any_data_is_a_map_without_any_class(tmp_path, model):
    scene = write_scene(tmp_path / "scene.tif", np.full((6, 40, 40), -9999, np.int16))
    options = {"quicklook": tmp_path / "map.png", "probabilities": tmp_path / "p.tif", **QUIET}
    result = predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", **options)
    assert (result.mask == 255).all()


def test_probabilities_belong_to_the_map(tmp_path, model):
    scene = write_scene(tmp_path / "scene.tif")
    path = tmp_path / "p.tif"
    result = predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", probabilities=path, **QUIET)
    with rasterio.open(path) as dataset:
        probabilities = dataset.read()
        assert dataset.descriptions == ("no water", "water", "cloud")
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(0), result.mask)


def test_frames_of_several_dates(tmp_path):
    model, processor = tiny_model(num_frames=3), tiny_processor(num_frames=3)
    dates = [scene_pixels(40, 45, seed=seed) for seed in range(3)]
    paths = [write_scene(tmp_path / f"{index}.tif", pixels) for index, pixels in enumerate(dates)]
    result = predict_scene(model, processor, paths, tmp_path / "map.tif", window=48, **QUIET)
    np.testing.assert_array_equal(result.mask, whole_image_classes(model, processor, np.stack(dates, axis=1)))
    swapped = predict_scene(model, processor, paths[::-1], tmp_path / "swapped.tif", window=48, **QUIET)
    assert (swapped.mask != result.mask).any()


def moved(pixels_right=0.0, degrees_of_freedom=TRANSFORM):
    t = degrees_of_freedom
    return Affine(t.a, t.b, t.c + pixels_right * t.a, t.d, t.e, t.f)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixels": scene_pixels(70, 90)}, r"Frame 2 \(.*b\.tif\) has 70 x 90 pixels, the first 72 x 90"),
        ({"crs": CRS.from_epsg(32719)}, r"Frame 2 \(.*b\.tif\) is in EPSG:32719, the first in EPSG:32720"),
        ({"crs": None}, r"Frame 2 \(.*b\.tif\) is in no CRS, the first in EPSG:32720"),
        ({"transform": moved(3)}, "up to 3.00 pixels beside the first"),
        ({"transform": Affine(10.1, 0, TRANSFORM.c, 0, TRANSFORM.e, TRANSFORM.f)}, "up to 0.90 pixels"),
    ],
)
def test_frames_on_other_grids_are_refused(tmp_path, options, message):
    first, second = write_scene(tmp_path / "a.tif"), write_scene(tmp_path / "b.tif", **options)
    with pytest.raises(ValueError, match=message):
        open_frames([first, second])
    arguments = (tiny_model(2), tiny_processor(2), [first, second], tmp_path / "map.tif")
    with pytest.raises(ValueError, match=r"b\.tif"):
        predict_scene(*arguments, grid_mismatch="refuse", **QUIET)
    assert sorted(os.listdir(tmp_path)) == ["a.tif", "b.tif"]


def test_frames_on_other_grids_are_warped_to_the_first(tmp_path):
    """The second frame lies three pixels to the right, so that it has nothing for the first three columns."""
    pixels = scene_pixels()
    first = write_scene(tmp_path / "a.tif", pixels)
    second = write_scene(tmp_path / "b.tif", pixels[:, :, 3:], transform=moved(3))
    arguments = (tiny_model(2), tiny_processor(2, nodata_rule="any"))
    result = predict_scene(*arguments, [first, second], tmp_path / "map.tif", **QUIET)
    np.testing.assert_array_equal(result.mask == 255, np.arange(90)[None].repeat(72, 0) < 3)
    same = predict_scene(*arguments, [first, first], tmp_path / "same.tif", **QUIET)
    np.testing.assert_array_equal(result.mask[:, 32:], same.mask[:, 32:])
    far = write_scene(tmp_path / "far.tif", transform=moved(300))
    with pytest.raises(ValueError, match=r"far\.tif"):
        predict_scene(*arguments, [first, far], tmp_path / "no.tif", **QUIET)


@pytest.mark.parametrize("shift", [1e-9, 0.3])
def test_less_than_half_a_pixel_does_not_matter(tmp_path, shift):
    frames = [write_scene(tmp_path / "a.tif"), write_scene(tmp_path / "b.tif", transform=moved(shift))]
    assert len(open_frames(frames)) == 2


def test_mode_of_every_module_is_restored(tmp_path):
    model = tiny_model().train()
    model.decode_head.eval()  # a frozen part
    before = {name: module.training for name, module in model.named_modules()}
    statistics = {name: value.clone() for name, value in model.state_dict().items()}
    scene = write_scene(tmp_path / "scene.tif")
    result = predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", **QUIET)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert all(torch.equal(value, statistics[name]) for name, value in model.state_dict().items())
    same = predict_scene(model.eval(), tiny_processor(), scene, tmp_path / "map.tif", **QUIET)
    np.testing.assert_array_equal(result.mask, same.mask)


def test_model_can_be_trained_after_a_prediction(tmp_path):
    model = tiny_model()
    scene = write_scene(tmp_path / "scene.tif")
    predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", **QUIET)
    inputs = tiny_processor()(scene_pixels(32, 32), return_tensors="pt")
    model.train()(**inputs, labels=torch.zeros(1, 32, 32, dtype=torch.long)).loss.backward()


def test_values_that_are_not_finite_are_an_error(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.decode_head.classifier.bias[0] = float("nan")
    scene = write_scene(tmp_path / "scene.tif")
    with pytest.raises(
        ValueError, match="scene: the model gives values that are not finite at 1440 pixels with data, in rows 0 to 15"
    ):
        predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", **QUIET)
    assert os.listdir(tmp_path) == ["scene.tif"]


def test_model_in_bfloat16_predicts(tmp_path):
    scene = write_scene(tmp_path / "scene.tif")
    result = predict_scene(tiny_model().bfloat16(), tiny_processor(), scene, tmp_path / "map.tif", **QUIET)
    reference = predict_scene(tiny_model(), tiny_processor(), scene, tmp_path / "map.tif", **QUIET)
    assert (result.mask == reference.mask).mean() > 0.9


def test_factor_and_offset_of_a_run_take_the_place_of_the_processors_and_of_tags(tmp_path, model):
    pixels = scene_pixels().astype(np.float32)
    reference = predict_scene(model, tiny_processor(), write_scene(tmp_path / "a.tif", pixels), tmp_path / "map.tif")
    other = write_scene(tmp_path / "b.tif", pixels / 4 + 100)
    set_scale(other, 0.5, 3.0)  # of which nothing is applied then
    options = {"rescale_factor": 4, "rescale_offset": -400, "report": True}
    result = predict_scene(model, tiny_processor(), other, tmp_path / "map_b.tif", **QUIET, **options)
    assert (result.mask == reference.mask).mean() > 0.999
    assert json.loads((tmp_path / "map_b.json").read_text())["options"]["rescale_factor"] == 4
    assert result.report["options"]["rescale_offset"] == -400
    pipe = pipeline("geospatial-segmentation", model=model, image_processor=tiny_processor())
    assert (pipe(str(other), rescale_factor=4, rescale_offset=-400).mask == result.mask).all()
    with pytest.raises(ValueError, match="rescale_factor"):
        predict_scene(model, tiny_processor(), other, tmp_path / "map_b.tif", **QUIET, rescale_factor=0)
    with pytest.raises(ValueError, match="expected no rescale_factor and rescale_offset beside it"):
        predict_scene(model, tiny_processor(), other, tmp_path / "c.tif", rescale_factor=2, boa_add_offset=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 1.0}, "0 <= overlap < 1, found 1.0"),
        ({"overlap": -0.1}, "0 <= overlap < 1"),
        ({"overlap": float("nan")}, "0 <= overlap < 1"),
        ({"batch_size": 0}, "at least 1, found 0"),
        ({"window": 0}, "whole and positive"),
        ({"window": (32, 32, 32)}, "whole and positive"),
        ({"window": (32, -1)}, "whole and positive"),
        ({"window": 0.5}, "whole and positive"),
        ({"probabilities": "none/p.tif"}, "does not exist"),
        ({"probabilities_dtype": "int8"}, "written as one of"),
        ({"class_values": {0: 1}}, "of their own"),
        ({"quicklook": "none/q.png"}, "does not exist"),
        ({"quicklook": "q.jpg"}, r"ends in \.png for the quicklook, found q\.jpg"),
        ({"probabilities": "p.jpg"}, r"ends in \.tif or \.tiff for the probabilities, found p\.jpg"),
        ({"entropy": "e"}, r"ends in \.tif or \.tiff for the entropy, found e"),
        ({"report": "r.yaml"}, r"ends in \.json for the report, found r\.yaml"),
    ],
)
def test_bad_options_are_refused_before_any_work(tmp_path, model, options, message):
    scene = write_scene(tmp_path / "scene.tif")

    def never(*_, **__):
        raise AssertionError("the scene was read")

    with pytest.raises(ValueError, match=message):
        predict_scene(model, never, scene, tmp_path / "map.tif", **options, **QUIET)
    assert os.listdir(tmp_path) == ["scene.tif"]


def test_outputs_never_replace_an_input_or_each_other(tmp_path, model):
    scene = write_scene(tmp_path / "scene.tif")
    before = scene.read_bytes()
    with pytest.raises(ValueError, match="also an input"):
        predict_scene(model, tiny_processor(), scene, scene, **QUIET)
    with pytest.raises(ValueError, match="same file"):
        predict_scene(model, tiny_processor(), scene, tmp_path / "m.tif", probabilities=tmp_path / "m.tif", **QUIET)
    assert scene.read_bytes() == before
    assert os.listdir(tmp_path) == ["scene.tif"]


def test_existing_map_is_kept_where_asked(tmp_path, model):
    scene = write_scene(tmp_path / "scene.tif")
    predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", **QUIET)
    with pytest.raises(ValueError, match="exists already"):
        predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", overwrite=False, **QUIET)
    predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", **QUIET)


def test_progress_bar_counts_the_windows(tmp_path, model, capsys):
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(64, 64))
    predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif")
    assert "9/9" in capsys.readouterr().err


def test_whoever_asks_hears_of_the_progress_and_may_end_the_run(tmp_path, model):
    scene, heard = write_scene(tmp_path / "scene.tif"), []
    options = {"overlap": 0, "batch_size": 1, **QUIET}

    def stop_half_way(done, total):
        heard.append((done, total))
        if 2 * done > total:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped") as error:
        predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", on_progress=stop_half_way, **options)
    assert heard[0] == (0, 9)
    assert heard[-1] == (5, 9)
    assert heard == sorted(heard)
    assert "1 of 3 parts of the map are kept" in "".join(error.value.__notes__)
    heard.clear()
    listen = {"on_progress": lambda *progress: heard.append(progress)}
    result = predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", **listen, **options)
    assert (heard[0], heard[-1]) == ((0, 6), (6, 6))
    assert result.report["strips"] == {"total": 3, "resumed": 1, "computed": 2}
    whole = predict_scene(model, tiny_processor(), scene, tmp_path / "whole.tif", **options)
    assert whole.path.read_bytes() == result.path.read_bytes()


def test_more_classes_than_a_byte_holds_are_refused():
    scene = PreparedScene(torch.zeros(1, 6, 1, 2, 2), np.zeros((2, 2), bool))
    with pytest.raises(ValueError, match="at most 255"):
        assemble_map(None, torch.zeros(256, 2, 2), scene)


def test_prepared_scene_goes_to_worker_processes(tmp_path):
    scene = prepare_scene(tiny_processor(), open_frames(write_scene(tmp_path / "scene.tif")))
    copy = pickle.loads(pickle.dumps(scene))
    assert (copy.crs, tuple(copy.transform)) == (CRS_UTM, tuple(TRANSFORM))
    assert torch.equal(copy.pixel_values, scene.pixel_values)


def test_a_scene_has_frames():
    with pytest.raises(ValueError, match="at least one frame"):
        open_frames([])
    for wrong in (5, None, ((scene_pixels(), scene_pixels()),)):
        with pytest.raises(TypeError, match="found"):
            open_frames(wrong)


def test_real_chip_at_the_edge_of_the_swath(tmp_path, flood_chips, model):
    (chip,) = flood_chips.rglob("Bolivia_103757_S2Hand.tif")
    result = predict_scene(model, tiny_processor(), chip, tmp_path / "map.tif", overlap=0, window=128, **QUIET)
    with rasterio.open(chip) as source, rasterio.open(tmp_path / "map.tif") as written:
        used = source.read([2, 3, 4, 9, 12, 13])
        assert written.crs == source.crs
        assert tuple(written.transform) == tuple(source.transform)
        assert written.shape == source.shape
        np.testing.assert_array_equal(written.read(1) == 255, (used == 0).all(axis=0))
    assert (result.mask == 255).mean() == pytest.approx(0.63, abs=0.005)
    assert cog_validate(tmp_path / "map.tif", strict=True)[0]


def test_ground_control_points_are_refused_and_not_lost(tmp_path):
    path = write_scene(tmp_path / "a.tif", crs=None, transform=Affine.identity())
    points = [GroundControlPoint(row, column, 500 + column, 900 - row) for row in (0, 72) for column in (0, 90)]
    with rasterio.open(path, "r+") as scene:
        scene.gcps = (points, CRS.from_epsg(32720))
    with pytest.raises(ValueError, match=r"a\.tif.*ground control points.*gdalwarp"):
        predict_scene(tiny_model(), tiny_processor(), path, tmp_path / "map.tif", **QUIET)
    assert not (tmp_path / "map.tif").exists()


@pytest.mark.parametrize("damage", ["absent", "flipped"])
@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_absent_and_corrupt_blocks_count_as_unreadable(tmp_path, model, damage, interleave):
    path, tiles = tmp_path / "scene.tif", {"tiled": True, "blockxsize": 32, "blockysize": 32, "interleave": interleave}
    if damage == "absent":
        write_part(path, scene_pixels(64, 64), slice(32, 64), compress="deflate", **tiles)
        hole = np.s_[:32]
    else:
        flip_unnoticed(write_scene(path, scene_pixels(64, 64), **tiles))
        hole = np.s_[:32, :32]
        predict_scene(model, tiny_processor(), path, tmp_path / "unnoticed.tif", **QUIET)
    options = {"verify": damage == "flipped", **QUIET}
    message = {"absent": "blocks are absent", "flipped": "do not fit their own checksums"}[damage]
    with pytest.raises(ValueError, match=rf"scene\.tif: \d+ of \d+ .*{message}"):
        predict_scene(model, tiny_processor(), path, tmp_path / "map.tif", **options)
    result = predict_scene(model, tiny_processor(), path, tmp_path / "map.tif", on_read_error="nodata", **options)
    expected = np.zeros((64, 64), dtype=bool)
    expected[hole] = True
    np.testing.assert_array_equal(result.mask == 255, expected)
    assert {bad["file"] for bad in result.report["bad_windows"]} == {str(path)}


def test_a_local_crs_ends_polygons_before_the_model_runs(tmp_path):
    scene = write_scene(tmp_path / "a.tif", crs=CRS.from_wkt('LOCAL_CS["site grid",UNIT["metre",1]]'))
    with pytest.raises(ValueError, match="expected places on Earth"):
        predict_scene(tiny_model(), tiny_processor(), scene, tmp_path / "m.tif", polygons=True, **QUIET)
    assert os.listdir(tmp_path) == ["a.tif"]


def smooth_scene(height=160, width=160):
    """A landscape without edges: what jumps on its map comes from the tiles."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / (20 + 3 * band)) + np.cos(columns / (25 + 2 * band)) for band in range(6)]
    return (1500 + 400 * np.stack(waves)).astype(np.int16)


def jump_at_lines(probabilities, stride):
    """Mean change from one row to the next across the lines where tiles begin, in units of the largest elsewhere."""
    change = np.abs(np.diff(probabilities, axis=1)).mean(axis=(0, 2))
    lines = np.arange(1, probabilities.shape[1]) % stride == 0
    return change[lines].mean() / change[~lines].max()


def test_seams(tmp_path, model):
    """A model whose answer depends on the place in the tile, as convolutions with padding have it at the border."""

    class Tilted(torch.nn.Module):
        config, device = model.config, torch.device("cpu")

        def forward(self, pixel_values):
            bands = pixel_values[:, :3, -1] * 0.5
            return SemanticSegmenterOutput(logits=bands + torch.linspace(-1, 1, WINDOW)[None, None, :, None] * TILT)

    TILT = torch.tensor([1.0, 0.0, -1.0])[None, :, None, None]
    scene = write_scene(tmp_path / "scene.tif", smooth_scene())
    jumps = {}
    for blending, overlap in (("uniform", 0), ("uniform", 0.5), ("cosine", 0.5), ("gaussian", 0.5)):
        options = {"probabilities": tmp_path / "p.tif", "blending": blending, "overlap": overlap, **QUIET}
        result = predict_scene(Tilted(), tiny_processor(), scene, tmp_path / "map.tif", **options)
        jumps[blending, overlap] = jump_at_lines(result.probabilities, WINDOW // 2 if overlap else WINDOW)
    assert jumps["uniform", 0] > 10
    assert jumps["uniform", 0.5] < 0.7 * jumps["uniform", 0]
    assert jumps["cosine", 0.5] < 1
    assert jumps["gaussian", 0.5] < 1


def test_all_outputs_of_one_run(tmp_path, model):
    pytest.importorskip("pyogrio")
    scene = write_scene(tmp_path / "scene.tif")
    paths = {
        "probabilities": tmp_path / "p.tif",
        "confidence": tmp_path / "c.tif",
        "entropy": tmp_path / "e.tif",
        "polygons": tmp_path / "regions.gpkg",
        "quicklook": tmp_path / "q.png",
    }
    result = predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", class_values={0: 7}, **paths, **QUIET)
    assert sorted(os.listdir(tmp_path)) == sorted(["scene.tif", "map.tif", *(path.name for path in paths.values())])
    with rasterio.open(paths["probabilities"]) as probabilities, rasterio.open(paths["entropy"]) as entropy:
        values = probabilities.read()
        expected = -(values * np.log(values)).sum(0) / np.log(3)
        np.testing.assert_allclose(entropy.read(1), expected, atol=1e-5)
        assert entropy.descriptions == ("entropy",)
        assert (entropy.crs, tuple(entropy.transform)) == (CRS_UTM, tuple(TRANSFORM))
        np.testing.assert_allclose(values.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(result.mask, values.argmax(0))
    with rasterio.open(paths["confidence"]) as dataset:
        np.testing.assert_allclose(dataset.read(1), values.max(0), atol=1e-6)
    with rasterio.open(tmp_path / "map.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), np.where(result.mask == 0, 7, result.mask))
    import pyogrio

    columns = pyogrio.read_dataframe(paths["polygons"], read_geometry=False)
    assert set(columns["class_name"]) == {name for name, count in result.class_counts().items() if count}
    assert set(columns["class_value"]) == set(np.unique(np.where(result.mask == 0, 7, result.mask)))
    assert columns["mean_probability"].between(1 / 3, 1).all()


def test_bytes_take_the_place_of_floats(tmp_path, model):
    scene = write_scene(tmp_path / "scene.tif")
    options = {"probabilities": tmp_path / "p.tif", "entropy": tmp_path / "e.tif", **QUIET}
    exact = predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", **options).probabilities
    options["probabilities_dtype"] = "uint8"
    rounded = predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", **options).probabilities
    np.testing.assert_allclose(rounded, exact, atol=0.5 / 254 + 1e-6)
    with rasterio.open(tmp_path / "e.tif") as dataset:
        assert (dataset.dtypes, dataset.nodata) == (("uint8",), 255)


def test_quick_look_of_a_scene_in_strips_is_that_of_the_whole_map(tmp_path, model):
    pixels = scene_pixels(60, 1600)
    pixels[:, :, :200] = -9999
    scene = write_scene(tmp_path / "scene.tif", pixels)
    result = predict_scene(
        model, tiny_processor(), scene, tmp_path / "map.tif", quicklook=tmp_path / "a.png", overlap=0, **QUIET
    )
    whole = prepare_scene(tiny_processor(), open_frames(scene))
    colors = [tiny_processor().bands.index(name) for name in ("RED", "GREEN", "BLUE")]
    rgb = stretch_colors(pixels[colors].astype(np.float32)[:, ::2, ::2], ~whole.nodata_mask[::2, ::2])
    grid = {"crs": result.crs, "transform": result.transform}
    write_quicklook(tmp_path / "b.png", result.mask, id2label=model.config.id2label, rgb=rgb, **grid)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_quick_look_without_colours_shows_the_map_alone(tmp_path):
    bands = ["NIR_NARROW", "SWIR_1"]
    model = tiny_model(bands=bands, num_channels=2)
    processor = tiny_processor(bands=bands, image_mean=[1000, 1000], image_std=[1000, 1000])
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(40, 40, bands=2), descriptions=bands)
    predict_scene(model, processor, scene, tmp_path / "map.tif", quicklook=tmp_path / "q.png", **QUIET)
    assert (tmp_path / "q.png").stat().st_size > 1000


def test_scene_that_is_open_already(tmp_path, model):
    path = write_scene(tmp_path / "scene.tif")
    expected = predict_scene(model, tiny_processor(), path, tmp_path / "a.tif", **QUIET)
    scene = open_scene(path, image_processor=tiny_processor())
    result = predict_scene(model, tiny_processor(), scene, tmp_path / "b.tif", **QUIET)
    np.testing.assert_array_equal(result.mask, expected.mask)
    with pytest.raises(TypeError, match="grid"):
        predict_scene(model, tiny_processor(), scene, tmp_path / "b.tif", grid="first", **QUIET)


def test_array_without_a_place(tmp_path, model, recwarn):
    pixels = scene_pixels()
    result = predict_scene(model, tiny_processor(), [pixels], tmp_path / "map.tif", **QUIET)
    same = predict_scene(model, tiny_processor(), write_scene(tmp_path / "s.tif"), tmp_path / "b.tif", **QUIET)
    np.testing.assert_array_equal(result.mask, same.mask)
    assert result.crs is None
    assert not [warning for warning in recwarn if "georeferenc" in str(warning.message)]
    with pytest.raises(ValueError, match="expected a CRS"):
        predict_scene(model, tiny_processor(), [pixels], tmp_path / "c.tif", polygons=tmp_path / "p.gpkg", **QUIET)


def test_same_call_gives_the_same_bytes(tmp_path, model):
    scene = write_scene(tmp_path / "scene.tif")
    for name in ("a", "b"):
        outputs = {"probabilities": tmp_path / f"{name}_p.tif", "quicklook": tmp_path / f"{name}.png"}
        predict_scene(model, tiny_processor(), scene, tmp_path / f"{name}.tif", **outputs, **QUIET)
    for suffix in (".tif", "_p.tif", ".png"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("rule", ["raise", "nodata"])
def test_any_number_of_threads_that_read_gives_the_same_bytes(tmp_path, monkeypatch, rule):
    """A mask band, a damaged block and another grid; rows of tiles as long as those of a scene."""
    pixels = scene_pixels(72, 128)
    frames = [write_scene(tmp_path / "a.tif", pixels, tiled=True, blockxsize=16, blockysize=16, nodata=None)]
    shifted = TRANSFORM @ Affine.translation(2.5, 3)
    frames.append(write_scene(tmp_path / "b.tif", pixels[:, 3:, 2:], transform=shifted))
    with rasterio.open(frames[0], "r+") as dataset:
        dataset.write_mask(np.kron(np.eye(8, 16), np.ones((9, 8))).astype(bool))
    if rule == "nodata":
        flip_unnoticed(frames[0])
    model, seen, read = tiny_model(num_frames=2), set(), reading.FrameRows._read
    options = {
        "overlap": 0.9,
        "grid_mismatch": "warp",
        "on_read_error": rule,
        "report": True,
        "verify": rule != "raise",
    }

    def watch(rows, window):
        seen.add(threading.current_thread().name)
        read(rows, window)

    monkeypatch.setattr(reading.FrameRows, "_read", watch)
    monkeypatch.setattr(reading, "_BYTES_A_READ", 2**15)
    results = {}
    for cores in (1, 64):
        monkeypatch.setattr(reading, "CORES", cores)
        path = tmp_path / f"{cores}.tif"
        results[cores] = predict_scene(model, tiny_processor(2), frames, path, **options, **QUIET)
    assert {"scene reader", "scene reader_1"} <= seen
    assert (tmp_path / "1.tif").read_bytes() == (tmp_path / "64.tif").read_bytes()
    assert len(np.unique(results[1].mask)) > 2
    bad = [result.report["bad_windows"] for result in results.values()]
    assert bad[0] == bad[1]
    assert bool(bad[0]) == (rule == "nodata")


def test_test_time_augmentation_and_blending_reach_the_model(tmp_path, model):
    scene = write_scene(tmp_path / "scene.tif")
    maps = [
        predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", **options, **QUIET).mask
        for options in ({}, {"tta": "d4"}, {"blending": "cosine"})
    ]
    assert (maps[0] != maps[1]).any()
    assert (maps[0] != maps[2]).any()
    for wrong in ({"tta": "d5"}, {"blending": "linear"}, {"on_read_error": "pass"}):
        with pytest.raises(ValueError, match="xpected"):
            predict_scene(model, tiny_processor(), scene, tmp_path / "no.tif", **wrong, **QUIET)
    assert sorted(os.listdir(tmp_path)) == ["map.tif", "scene.tif"]


def test_options_are_sorted_by_name(tmp_path, model):
    """Unknown ones are named, with those that there are."""
    asked, windows, opening, writing = sort_options(
        {"quicklook": True, "overlap": 0.25, "scale": "apply", "min_area": 5}
    )
    assert (asked, windows.overlap, opening.scale, writing.min_area) == ({"quicklook": True}, 0.25, "apply", 5)
    scene = write_scene(tmp_path / "scene.tif")
    with pytest.raises(TypeError, match=r"no option augmentation, polygon_options.*batch_size.*min_area"):
        predict_scene(
            model, tiny_processor(), scene, tmp_path / "m.tif", augmentation="d4", polygon_options={}, **QUIET
        )


def test_true_is_the_default_name(tmp_path, model):
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(40, 40))
    options = {"probabilities": True, "quicklook": False, "polygons": "parquet", **QUIET}
    result = predict_scene(model, tiny_processor(), scene, tmp_path / "map.tif", **options)
    assert sorted(os.listdir(tmp_path)) == ["map.parquet", "map.tif", "map_probabilities.tif", "scene.tif"]
    assert result.outputs["probabilities"] == tmp_path / "map_probabilities.tif"


def test_windows_one_below_the_other_are_one():
    windows = [
        ("b", (0, 0, 8, 4)),
        ("a", (20, 0, 4, 4)),
        ("a", (8, 0, 8, 4)),
        ("a", (0, 0, 8, 4)),
        ("a", (8, 4, 8, 4)),
    ]
    assert join_windows([*windows, windows[0]]) == [
        ("a", (0, 0, 16, 4)),
        ("a", (8, 4, 8, 4)),
        ("a", (20, 0, 4, 4)),
        ("b", (0, 0, 8, 4)),
    ]


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_a_scene_far_from_the_training_is_warned_of_and_reported(tmp_path, model, overlap):
    pixels = scene_pixels(90, 75)
    pixels[3] *= 2
    pixels[:, :40, :33] = -9999
    scene = write_scene(tmp_path / "scene.tif", pixels)
    statistics = {"chips": 9, "mean": [0.9, 0.8, 0.6, -0.2, -0.1, 0.4], "std": [0.5] * 6, "contrast_std": [0.3] * 6}
    processor = tiny_processor(training_statistics=statistics)
    with pytest.warns(InputShiftWarning, match="scene: expected band means like .* 9 training chips"):
        report = predict_scene(model, processor, scene, tmp_path / "map.tif", overlap=overlap, **QUIET).report
    valid = pixels[:, (pixels != -9999).all(0)]
    for band, values in zip(processor.bands, valid, strict=True):
        assert report["input_check"][band]["mean"] == pytest.approx(values.mean(), rel=0.07)  # of one pixel of 16
    assert report["input_check"]["NIR_NARROW"]["contrast_z_score"] > 3
    pipe = pipeline("geospatial-segmentation", model=model, image_processor=processor, device="cpu")
    with pytest.warns(InputShiftWarning):
        in_memory = pipe(str(scene)).input_check
    assert in_memory["NIR_NARROW"]["z_score"] == pytest.approx(report["input_check"]["NIR_NARROW"]["z_score"], abs=0.2)
    assert "input_check" not in predict_scene(model, tiny_processor(), scene, tmp_path / "b.tif", **QUIET).report
