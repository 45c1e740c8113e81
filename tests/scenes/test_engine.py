# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Scenes strip by strip: the numbers of the in-memory sliding window, in bounded memory, with threads that end."""

import itertools
import time
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.sliding_window_prithvi import sliding_window_logits
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.scenes.engine import RowSums, predict_strips, predict_tiles, weight_profile
from prithvi_hf.scenes.tiles import BLENDINGS, TilePlan
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
from tests.scene_factory import scene_pixels, tiny_model, tiny_processor, write_scene
from tests.scenes.test_tiles import plans


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
    options = {"blending": blending, "batch_size": 3, "thumbnail": True}
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


def test_tta_runs_every_tile_eight_times():
    scene = make_scene(scene_pixels(64, 64))
    model, counted = PixelModel(), []
    list(predict_strips(model, tiny_processor(), scene, plan_for(scene), tta="d4", on_windows=counted.append))
    assert sum(shape[0] for shape in model.calls) == 8 * 9
    assert sum(counted) == 9


class RampModel(PixelModel):
    """Answers that depend on the place in the tile, as a real model's do."""

    def forward(self, pixel_values):
        output = super().forward(pixel_values)
        height, width = output.logits.shape[-2:]
        ramp = torch.linspace(0, 1, height * width, dtype=output.logits.dtype).reshape(height, width)
        self.tiles.append(pixel_values)
        return SimpleNamespace(logits=output.logits * ramp)


@pytest.mark.parametrize(("size", "count"), [((6, 6), 8), ((4, 6), 4)])
def test_tta_is_the_mean_of_what_was_brought_back(size, count):
    """The eight symmetries of a square and the four of another rectangle, by numpy."""
    model, pixels = RampModel(), torch.randn(2, 6, 1, *size)
    model.tiles = []
    found = predict_tiles(model, pixels, tta="d4")
    assert len({tuple(tile.flatten().tolist()) for tile in model.tiles}) == count
    expected = []
    for mirrored, turns in itertools.product((False, True), range(0, 4, 8 // count)):
        turned = np.rot90(pixels.numpy()[..., ::-1] if mirrored else pixels.numpy(), turns, (-2, -1))
        back = np.rot90(model(torch.from_numpy(turned.copy())).logits.detach().numpy(), -turns, (-2, -1))
        expected.append(back[..., ::-1] if mirrored else back)
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-5, atol=1e-6)
    assert not np.allclose(found, model(pixels).logits.detach())
    assert torch.equal(predict_tiles(model, pixels), model(pixels).logits)


def test_tta_is_summed_in_float32():
    pixels = torch.randn(1, 6, 1, 4, 4).bfloat16()
    assert predict_tiles(PixelModel().bfloat16(), pixels, tta="d4").dtype == torch.float32


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
        ({"batch_size": 0}, "batch_size"),
        ({"blending": "linear"}, "blending"),
        ({"tta": "mirror"}, "tta"),
        ({"on_read_error": "ignore"}, "on_read_error"),
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


# ------------------------------------------------------------------ weights of overlapping tiles


CPU = torch.device("cpu")


def means_of(plan: TilePlan, kind: str, tiles: dict[tuple[int, int], torch.Tensor]) -> torch.Tensor:
    """Means of all strips, from logits by row of tiles and first column."""
    num_labels = next(iter(tiles.values())).shape[0]
    sums, strips = RowSums(plan, kind, num_labels, torch.float32, CPU), []
    for row in range(plan.num_strips):
        for left in plan.lefts:
            sums.add(row, left, tiles[row, left])
        strips.append(sums.take(row))
        assert strips[-1].shape[1] == plan.strip(row)[1] - plan.strip(row)[0]
    return torch.cat(strips, dim=1)


@settings(max_examples=25, deadline=None)
@given(plan=plans(), kind=st.sampled_from(BLENDINGS))
def test_weights_of_every_pixel_sum_to_one(plan, kind):
    plan = TilePlan(plan.height // 3 + 1, plan.width // 3 + 1, plan.window, plan.stride)
    tiles = {(row, left): torch.ones((1, *plan.window)) for row in range(plan.num_strips) for left in plan.lefts}
    torch.testing.assert_close(
        means_of(plan, kind, tiles), torch.ones((1, plan.height, plan.width)), rtol=1e-6, atol=0
    )


@settings(max_examples=25, deadline=None)
@given(plan=plans(), kind=st.sampled_from(BLENDINGS), seed=st.integers(0, 99))
def test_sums_give_the_weighted_mean_of_each_pixel(plan, kind, seed):
    plan = TilePlan(plan.height // 4 + 1, plan.width // 4 + 1, plan.window, plan.stride)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.outer(*(weight_profile(kind, side).double() for side in plan.window))
    total = torch.zeros((2, plan.height, plan.width), dtype=torch.float64)
    divisor, tiles = torch.zeros_like(total[0]), {}
    for row, top in enumerate(plan.tops):
        for left in plan.lefts:
            tiles[row, left] = torch.randn((2, *plan.window), generator=generator)
            place = np.s_[top : top + plan.window[0], left : left + plan.window[1]]
            total[(slice(None), *place)] += tiles[row, left] * weights
            divisor[place] += weights
    torch.testing.assert_close(means_of(plan, kind, tiles), (total / divisor).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", BLENDINGS)
@pytest.mark.parametrize("size", [1, 2, 31, 224])
def test_profiles_are_symmetric_and_never_zero(kind, size):
    profile = weight_profile(kind, size)
    torch.testing.assert_close(profile, profile.flip(0), rtol=1e-4, atol=0)
    assert profile.min() > 0
    assert profile.max() <= 1
    assert kind == "uniform" or size < 3 or profile[size // 2] > 10 * profile[0]
