# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Scenes strip by strip: the numbers of the in-memory sliding window, in bounded memory, with threads that end."""

import dataclasses
import datetime
import itertools
import time
import tracemalloc
import warnings

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prithvi_hf.models.prithvi.configuration_prithvi import PRITHVI_BANDS
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.pixel_values_prithvi import UnitsWarning
from prithvi_hf.models.prithvi.segmentation_map_prithvi import natural_colors
from prithvi_hf.models.prithvi.sliding_window_prithvi import sliding_window_logits
from prithvi_hf.outputs.quicklook import stretch_thumbnail
from prithvi_hf.rasters.derived import ArrayRaster
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.scenes.engine import predict_strips
from prithvi_hf.scenes.reading import TileBatch, TileSource
from prithvi_hf.scenes.scene import scene_coordinates
from prithvi_hf.scenes.tiles import TilePlan
from tests.engine_factory import (
    NODATA,
    PixelModel,
    WatchedRaster,
    make_scene,
    plan_for,
    whole_map,
)
from tests.golden import assert_matches, read_golden
from tests.models.test_modeling_prithvi import golden_config, golden_segmentor
from tests.scene_factory import CRS_UTM, TRANSFORM, scene_pixels, tiny_model, tiny_processor, write_scene


@pytest.fixture(scope="module")
def model():
    return tiny_model()


MODELS = {frames: tiny_model(frames) for frames in (1, 2, 3)}


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_logits_are_those_of_the_sliding_window(data):
    draw = data.draw
    frames, batch_size = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    window = (draw(st.integers(16, 48)), draw(st.integers(16, 48)))
    stride = tuple(draw(st.integers(side // 3, side)) for side in window)
    dates = [scene_pixels(height, width, seed=seed) for seed in range(frames)]
    processor = tiny_processor(frames)
    scene = make_scene(*dates)
    logits, nodata = whole_map(
        MODELS[frames], processor, scene, TilePlan(height, width, window, stride), batch_size=batch_size
    )
    pixels = processor(np.stack(dates, axis=1), return_tensors="pt")["pixel_values"]
    assert not nodata.any()
    assert_matches(logits, sliding_window_logits(MODELS[frames], pixels, window, stride, batch_size)[0])


def test_logits_are_those_of_the_sliding_window_bit_by_bit_one_tile_at_a_time(model):
    pixels = scene_pixels(75, 90)
    scene = make_scene(pixels)
    logits, _ = whole_map(model, tiny_processor(), scene, plan_for(scene), batch_size=1)
    inputs = tiny_processor()(pixels, return_tensors="pt")["pixel_values"]
    assert torch.equal(logits, sliding_window_logits(model, inputs, (32, 32), (16, 16), batch_size=1)[0])


def test_logits_are_those_of_the_original(golden_dir):
    golden = read_golden(golden_dir, "v1_slide")
    model = golden_segmentor(golden, golden_config(read_golden(golden_dir, "v1_segmentor_burn"))).eval()
    crop, stride = golden.config["crop"], golden.config["stride"]
    pixels = golden["in_.x"][0, :, 0].numpy()
    scene = make_scene(pixels)
    processor = PrithviImageProcessor(do_rescale=False, do_normalize=False)
    logits, _ = whole_map(model, processor, scene, plan_for(scene, (crop, crop), (stride, stride)))
    assert_matches(logits[None], golden["out.logits"])
    assert torch.equal(logits.argmax(dim=0)[None], golden["out.pred"])


@pytest.mark.parametrize("blending", ["uniform", "cosine", "gaussian"])
@pytest.mark.parametrize(("window", "stride"), [((32, 32), (16, 16)), ((32, 40), (9, 40)), ((24, 32), (24, 32))])
def test_any_strips_are_bit_by_bit_those_of_the_whole_run(model, blending, window, stride):
    pixels = scene_pixels(90, 50)
    pixels[:, 30:70, 10:45] = NODATA
    scene = make_scene(pixels)
    plan = plan_for(scene, window, stride)
    options = {"blending": blending, "batch_size": 3}
    whole = list(predict_strips(model, tiny_processor(), scene, plan, **options))
    assert [strip.index for strip in whole] == list(range(plan.num_strips))
    for first in range(plan.num_strips):
        strips = range(first, min(first + 2, plan.num_strips))
        for strip in predict_strips(model, tiny_processor(), scene, plan, strips, **options):
            expected = whole[strip.index]
            assert (strip.start, strip.stop) == (expected.start, expected.stop)
            np.testing.assert_array_equal(strip.logits.numpy(), expected.logits.numpy())
            np.testing.assert_array_equal(strip.nodata, expected.nodata)
            np.testing.assert_array_equal(strip.thumbnail, expected.thumbnail)


@pytest.mark.parametrize("blending", ["uniform", "gaussian"])
def test_batch_sizes_agree(model, blending):
    scene = make_scene(scene_pixels())
    maps = [
        whole_map(model, tiny_processor(), scene, plan_for(scene), batch_size=size, blending=blending)[0]
        for size in (1, 3, 8, 64)
    ]
    for other in maps[1:]:
        assert_matches(other, maps[0])


def test_batches_hold_tiles_of_one_row(model):
    scene = make_scene(scene_pixels(72, 90))
    model = PixelModel()
    whole_map(model, tiny_processor(), scene, plan_for(scene), batch_size=3)
    assert [shape[0] for shape in model.calls] == [3, 2] * 4


def test_tiles_that_several_threads_prepare_are_the_same():
    pixels = scene_pixels(90, 130)
    pixels[:, :50, 40:90] = NODATA
    scene = make_scene(pixels)
    sources = [
        list(TileSource(scene, tiny_processor(), plan_for(scene), range(4), batch_size=3, workers=workers))
        for workers in (1, 3)
    ]
    for one, other in zip(*sources, strict=True):
        assert (one.row, type(one)) == (other.row, type(other))
        if isinstance(one, TileBatch):
            assert one.lefts == other.lefts
            assert torch.equal(one.pixel_values, other.pixel_values)
        else:
            np.testing.assert_array_equal(one.nodata, other.nodata)


def test_weights_do_not_matter_where_tiles_agree():
    pixels = scene_pixels(80, 75)
    scene = make_scene(pixels)
    expected = PixelModel()(tiny_processor()(pixels, return_tensors="pt")["pixel_values"]).logits[0]
    for blending, tta in itertools.product(["uniform", "cosine", "gaussian"], ["none", "d4"]):
        logits, _ = whole_map(PixelModel(), tiny_processor(), scene, plan_for(scene), blending=blending, tta=tta)
        assert_matches(logits, expected.detach())


@pytest.mark.parametrize(
    ("blending", "least", "most"), [("uniform", 0.99, 1), ("cosine", 0, 0.1), ("gaussian", 0, 0.1)]
)
def test_seams_at_tile_lines(blending, least, most):
    """A model whose answer is the tile's own mean: how much of all change lies on tile lines is the blending's."""

    class TileMean(PixelModel):
        def forward(self, pixel_values):
            output = super().forward(pixel_values)
            output.logits = output.logits.mean(dim=(-2, -1), keepdim=True).expand(output.logits.shape)
            return output

    scene = make_scene(scene_pixels(160, 160))
    logits, _ = whole_map(TileMean(), tiny_processor(), scene, plan_for(scene), blending=blending)
    jumps = (logits[:, 1:] - logits[:, :-1]).abs().mean(dim=(0, 2))[16:-16]  # from row y to y + 1
    share = (jumps[15::16].sum() / jumps.sum()).item()
    assert least <= share <= most


def test_augmentation_runs_every_tile_eight_times():
    scene = make_scene(scene_pixels(64, 64))
    model, counted = PixelModel(), []
    list(predict_strips(model, tiny_processor(), scene, plan_for(scene), tta="d4", on_windows=counted.append))
    assert sum(shape[0] for shape in model.calls) == 8 * 9
    assert sum(counted) == 9


# ------------------------------------------------------------------ no data


@pytest.mark.parametrize("rule", ["all", "any"])
def test_nodata_is_that_of_the_image_processor(model, rule):
    dates = [scene_pixels(80, 70, seed=seed) for seed in range(2)]
    dates[0][:, :30] = NODATA
    dates[1][:, 20:50] = NODATA
    dates[1][2, :, 60:] = NODATA
    processor = tiny_processor(2, nodata_rule=rule)
    scene = make_scene(*dates)
    logits, nodata = whole_map(MODELS[2], processor, scene, plan_for(scene))
    inputs = processor(np.stack(dates, axis=1), file_nodata=NODATA, return_nodata_mask=True, return_tensors="pt")
    np.testing.assert_array_equal(nodata, inputs["nodata_mask"][0].numpy())
    expected = sliding_window_logits(MODELS[2], inputs["pixel_values"], (32, 32), (16, 16))[0]
    valid = torch.from_numpy(~nodata)
    assert_matches(logits[:, valid], expected[:, valid])
    assert logits[:, ~valid].isnan().all()


def test_tiles_without_data_are_not_run():
    pixels = scene_pixels(64, 96)
    pixels[:, :, 33:] = NODATA
    scene = make_scene(pixels)
    model, done = PixelModel(), []
    plan = plan_for(scene, (32, 32), (32, 32))
    logits, nodata = whole_map(model, tiny_processor(), scene, plan, on_windows=done.append)
    assert sum(shape[0] for shape in model.calls) == 4
    assert sum(done) == plan.count_tiles(range(2)) == 6
    assert torch.equal(logits.isnan().all(0), torch.from_numpy(nodata))


def test_progress_counts_the_rows_of_tiles_above_the_strips():
    pixels = scene_pixels(100, 96)
    pixels[:, :40, 33:] = NODATA
    scene = make_scene(pixels)
    plan, done = plan_for(scene, (32, 32), (8, 32)), []
    strips = range(5, plan.num_strips)
    list(predict_strips(PixelModel(), tiny_processor(), scene, plan, strips, on_windows=done.append))
    assert sum(done) == plan.count_tiles(strips) == 3 * (plan.num_strips - 2)


def test_a_scene_without_any_data():
    scene = make_scene(np.full((6, 40, 40), NODATA, np.int16))
    model = PixelModel()
    strips = list(predict_strips(model, tiny_processor(), scene, plan_for(scene)))
    assert model.calls == []
    assert all(strip.nodata.all() and strip.logits.isnan().all() for strip in strips)
    assert sum(strip.logits.shape[1] for strip in strips) == 40
    assert {strip.logits.shape[0] for strip in strips} == {3}


def test_a_mask_band_counts(tmp_path):
    pixels = scene_pixels(48, 40)
    scene = make_scene(write_masked(tmp_path / "scene.tif", pixels))
    _, nodata = whole_map(PixelModel(), tiny_processor(), scene, plan_for(scene, (32, 32), (16, 8)))
    expected = np.zeros((48, 40), bool)
    expected[20:, :7] = True
    np.testing.assert_array_equal(nodata, expected)


def write_masked(path, pixels):
    """A file whose mask band takes its lower left corner away."""
    write_scene(path, pixels, nodata=None)
    mask = np.full(pixels.shape[1:], 255, np.uint8)
    mask[20:, :7] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(mask)
    return GeoTiffRaster(path)


# ------------------------------------------------------------------ files, bands and frames


def test_bands_are_found_by_name_and_stacks_of_dates_are_taken_apart(tmp_path):
    pixels = scene_pixels(40, 50)
    names = ["SWIR_2", "AEROSOL", "BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1"]
    shuffled = np.concatenate([pixels[5:], pixels[:1] + 1, pixels[:5]])
    write_scene(tmp_path / "shuffled.tif", shuffled, descriptions=names)
    plain, _ = whole_map(PixelModel(), tiny_processor(), make_scene(pixels), plan_for(make_scene(pixels)))
    scene = make_scene(GeoTiffRaster(tmp_path / "shuffled.tif"))
    assert torch.equal(whole_map(PixelModel(), tiny_processor(), scene, plan_for(scene))[0], plain)

    dates = [scene_pixels(40, 50, seed=seed) for seed in range(3)]
    write_scene(tmp_path / "stack.tif", np.concatenate(dates), descriptions=None)
    processor = tiny_processor(3)
    stack = make_scene(GeoTiffRaster(tmp_path / "stack.tif"))
    single, _ = whole_map(MODELS[3], processor, make_scene(*dates), plan_for(stack))
    assert torch.equal(whole_map(MODELS[3], processor, stack, plan_for(stack))[0], single)


def test_a_wrong_number_of_frames_is_the_processors_error(model):
    scene = make_scene(scene_pixels(40, 40), scene_pixels(40, 40))
    with pytest.raises(ValueError, match="scene, rows 0 to 31, columns 0 to 31: expected 1 frames"):
        list(predict_strips(model, tiny_processor(), scene, plan_for(scene)))


@pytest.mark.parametrize("options", [{"tiled": True, "blockxsize": 32, "blockysize": 16}, {"blockysize": 7}])
def test_a_windowed_file_gives_what_its_pixels_give(tmp_path, options):
    pixels = scene_pixels(100, 90)
    write_scene(tmp_path / "scene.tif", pixels, **options)
    scene = make_scene(GeoTiffRaster(tmp_path / "scene.tif").select(window=(13, 21, 70, 60)))
    logits, _ = whole_map(PixelModel(), tiny_processor(), scene, plan_for(scene, (24, 24), (10, 24)))
    expected = tiny_processor()(pixels[:, 13:83, 21:81], return_tensors="pt")["pixel_values"]
    assert_matches(logits, PixelModel()(expected).logits[0].detach())


@pytest.mark.parametrize("block", [(16, 16), (48, 16), (7, 200), (1, 200), (200, 200)])
@pytest.mark.parametrize("offset", [(0, 0), (5, 9)])
@pytest.mark.parametrize("bytes_a_read", [1, 2**24])
def test_every_block_is_read_once(monkeypatch, block, offset, bytes_a_read):
    monkeypatch.setattr("prithvi_hf.scenes.rows._BYTES_A_READ", bytes_a_read)
    raster = WatchedRaster(120 + offset[0], 64 + offset[1], block).select(window=(*offset, 120, 64))
    scene = make_scene(raster)
    for _ in predict_strips(PixelModel(), tiny_processor(), scene, plan_for(scene, (32, 32), (11, 16))):
        pass
    times = np.zeros((120 + offset[0], 64 + offset[1]), int)
    for row, column, height, width in raster.reads:
        times[row : row + height, column : column + width] += 1
        for edge, start, step, end in (
            (row, offset[0], block[0], None),
            (row + height, None, block[0], 120 + offset[0]),
            (column, offset[1], block[1], None),
            (column + width, None, block[1], 64 + offset[1]),
        ):
            assert edge in (start, end) or edge % step == 0, "reads end where blocks do"
    assert (times[offset[0] :, offset[1] :] == 1).all()
    assert raster.threads == {"scene reader"}


def test_blocks_too_large_to_keep_are_not_kept(monkeypatch, caplog):
    monkeypatch.setattr("prithvi_hf.scenes.rows._BYTES_OF_BLOCKS", 10_000)
    monkeypatch.setattr("prithvi_hf.scenes.rows.logger.warning", lambda text: warnings.warn(text, stacklevel=1))
    raster = WatchedRaster(90, 40, (90, 40))
    scene = make_scene(raster)
    with pytest.warns(UserWarning, match=r"watched\.tif has blocks of 90 rows"):
        whole_map(PixelModel(), tiny_processor(), scene, plan_for(scene, (32, 32), (32, 32)))
    assert max(height for _, _, height, _ in raster.reads) <= 32


# ------------------------------------------------------------------ memory


def peak_bytes(height: int, width: int = 160) -> int:
    """Most memory that Python and numpy held at once."""
    scene = make_scene(WatchedRaster(height, width, (64, 64)))
    plan = plan_for(scene, (32, 32), (32, 32))
    tracemalloc.start()
    try:
        for _ in predict_strips(PixelModel(), tiny_processor(), scene, plan, batch_size=2):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_height():
    small = peak_bytes(256)
    assert peak_bytes(2048) < 1.3 * small  # how far the reader runs ahead is a matter of timing
    assert small < 0.5 * 6 * 2048 * 160 * 2, "not the tall scene, even as it lies in the file"


def test_only_the_rows_at_hand_are_read_ahead():
    raster = WatchedRaster(3200, 40, (16, 40))
    scene = make_scene(raster)
    strips = predict_strips(PixelModel(), tiny_processor(), scene, plan_for(scene, (32, 32), (32, 32)))
    next(strips)
    time.sleep(0.2)
    assert max(row + height for row, _, height, _ in raster.reads) <= 32 * 8
    strips.close()


# ------------------------------------------------------------------ arguments, modes and types


def test_arguments_are_refused_at_once(model):
    scene = make_scene(scene_pixels(40, 40))
    for options, message in (
        ({"batch_size": 0}, "batch_size of at least 1"),
        ({"blending": "linear"}, "blending among"),
        ({"tta": "mirror"}, "tta"),
        ({"on_read_error": "ignore"}, "raise, nodata, found 'ignore'"),
        ({"strips": range(5, 9)}, "consecutive strips"),
    ):
        with pytest.raises(ValueError, match=message):
            predict_strips(model, tiny_processor(), scene, plan_for(scene), **options)
    with pytest.raises(ValueError, match="scene of 40 x 41 pixels, as the plan says, found 40 x 40"):
        predict_strips(model, tiny_processor(), scene, TilePlan(40, 41, (32, 32), (16, 16)))


def test_mode_of_every_module_is_restored():
    model = tiny_model().train()
    model.decode_head.eval()
    before = {name: module.training for name, module in model.named_modules()}
    scene = make_scene(scene_pixels(100, 40))
    strips = predict_strips(model, tiny_processor(), scene, plan_for(scene))
    next(strips)
    assert not model.training
    strips.close()
    assert {name: module.training for name, module in model.named_modules()} == before


def test_strips_are_ordinary_tensors(model):
    scene = make_scene(scene_pixels(40, 40))
    strip = next(predict_strips(model, tiny_processor(), scene, plan_for(scene)))
    assert strip.logits.dtype == torch.float32
    assert not strip.logits.is_inference()
    assert not strip.logits.requires_grad
    assert set(strip.seconds) == {"reading", "model", "waiting"}
    assert all(value >= 0 for value in strip.seconds.values())


def test_a_model_in_bfloat16_is_summed_in_float32():
    scene = make_scene(scene_pixels(64, 48))
    assert whole_map(tiny_model().bfloat16(), tiny_processor(), scene, plan_for(scene))[0].dtype == torch.float32


# ------------------------------------------------------------------ units, thumbnail, coordinates


def test_units_are_judged_once_and_not_by_an_empty_corner():
    pixels = scene_pixels(96, 64)
    pixels[:, :40] = 0  # fill without a tag
    pixels[:, 0, 0] = 1
    scene = make_scene(pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnitsWarning)
        list(predict_strips(PixelModel(), tiny_processor(), scene, plan_for(scene)))
    processor = tiny_processor(rescale_factor=0.0001)
    with pytest.warns(UnitsWarning, match="scene, rows") as caught:
        whole_map(PixelModel(), processor, scene, plan_for(scene))
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnitsWarning)
        whole_map(PixelModel(), processor, scene, plan_for(scene))


@pytest.mark.parametrize("size", [(70, 90), (2000, 33), (40, 3100)])
def test_thumbnail_is_the_scene_in_natural_colours(size):
    pixels = scene_pixels(*size)
    pixels[:, : size[0] // 3, : size[1] // 2] = NODATA
    scene = make_scene(pixels)
    processor = tiny_processor()
    plan = plan_for(scene, (48, 512), (48, 512))
    strips = predict_strips(PixelModel(), processor, scene, plan)
    picture = stretch_thumbnail(np.concatenate([strip.thumbnail for strip in strips], axis=1))
    inputs = processor(pixels, file_nodata=NODATA, return_nodata_mask=True, return_tensors="pt")
    expected = natural_colors(processor, inputs["pixel_values"][0], inputs["nodata_mask"][0].numpy())
    assert picture.shape == expected.shape
    assert np.abs(picture.astype(int) - expected.astype(int)).max() <= 1  # values of the file, and normalised ones
    assert (picture[..., 3] == 0).any()


def test_thumbnail_of_a_model_without_colours_is_none():
    scene = make_scene(scene_pixels(40, 40))
    processor = tiny_processor(bands=["BLUE", "GREEN", "RED", "NIR_NARROW"], image_mean=[1000.0] * 4, image_std=1000.0)
    assert next(predict_strips(PixelModel(), processor, scene, plan_for(scene))).thumbnail is not None
    processor = tiny_processor(
        bands=["BLUE", "RED", "NIR_NARROW", "SWIR_1"], image_mean=[1000.0] * 4, image_std=1000.0
    )
    assert next(predict_strips(PixelModel(), processor, scene, plan_for(scene))).thumbnail is None


def test_thumbnail_of_a_scene_without_data_is_transparent():
    assert (stretch_thumbnail(np.full((3, 4, 5), np.nan, np.float32)) == 0).all()


def test_coordinates_reach_a_model_that_takes_them():
    class Placed(PixelModel):
        def forward(self, pixel_values, temporal_coords, location_coords):
            self.seen.append((temporal_coords, location_coords))
            return super().forward(pixel_values)

    model = Placed()
    model.config.coords_encoding, model.seen = ["time", "location"], []
    georeference = {"crs": CRS_UTM, "transform": TRANSFORM, "descriptions": PRITHVI_BANDS}
    frames = [ArrayRaster(scene_pixels(64, 96, seed=seed), **georeference) for seed in range(2)]
    dates = tuple(datetime.datetime(2021, month, 1, tzinfo=datetime.UTC) for month in (1, 3))
    scene = dataclasses.replace(make_scene(*frames), dates=dates)
    plan = plan_for(scene, (32, 32), (32, 32))
    options = {"batch_size": 2, "tta": "d4"}
    list(predict_strips(model, tiny_processor(2), scene, plan, **options))
    assert [len(time) for time, _ in model.seen] == ([2] * 8 + [1] * 8) * 2
    times = torch.cat([time for time, _ in model.seen[::8]])
    places = torch.cat([place for _, place in model.seen[::8]])
    assert times.tolist() == [[[2021, 0], [2021, 59]]] * 6
    windows = [(top, left, 32, 32) for top in plan.tops for left in plan.lefts]
    expected = [scene_coordinates(scene, window)["location_coords"] for window in windows]
    np.testing.assert_array_equal(places.numpy(), np.stack(expected))
    assert len(np.unique(expected, axis=0)) == 6

    undated = make_scene(*frames)
    with pytest.raises(ValueError, match="a date for each frame"):
        list(predict_strips(model, tiny_processor(2), undated, plan))
