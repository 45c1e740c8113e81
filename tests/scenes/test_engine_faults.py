# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The reader thread, and scenes that cannot be read or predicted."""

import gc
import itertools
import threading
import time
from contextlib import closing

import numpy as np
import pytest
import rasterio
import torch

from prithvi_hf.rasters.geotiff_raster import GeoTiffError, GeoTiffNotFoundError, GeoTiffRaster
from prithvi_hf.scenes.engine import iterate_in_background, predict_strips
from tests.engine_factory import NODATA, PixelModel, WatchedRaster, make_scene, plan_for, reader_threads
from tests.golden import assert_matches
from tests.scene_factory import scene_pixels, tiny_processor, write_scene


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert reader_threads() == []


def test_an_iterator_in_the_background_runs_a_few_items_ahead_and_is_closed():
    made, closed = [], threading.Event()

    def count():
        try:
            for number in itertools.count():
                made.append(number)
                yield number
        finally:
            closed.set()

    with closing(iterate_in_background(count, limit=2, name="scene reader")) as items:
        assert [next(items) for _ in range(3)] == [0, 1, 2]
        patience = time.monotonic() + 30
        while len(made) < 6 and time.monotonic() < patience:
            time.sleep(0.01)
        time.sleep(0.1)
        assert made == [0, 1, 2, 3, 4, 5], "two that wait, and one that waits to be put there"
    assert closed.is_set()
    assert reader_threads() == []


@pytest.mark.parametrize("count", [0, 1, 5])
def test_an_error_in_the_background_comes_after_the_items_before_it(count):
    def fail():
        yield from range(count)
        raise KeyError("lost")

    seen = []
    with pytest.raises(KeyError, match="lost"):
        seen.extend(iterate_in_background(fail, limit=2, name="scene reader"))
    assert seen == list(range(count))


def test_the_thread_ends_when_the_consumer_does():
    scene = make_scene(WatchedRaster(3200, 40))
    plan = plan_for(scene, (32, 32), (32, 32))
    for strip in predict_strips(PixelModel(), tiny_processor(), scene, plan):
        assert len(reader_threads()) == 1
        if strip.index == 2:
            break
    gc.collect()
    assert reader_threads() == []
    strips = predict_strips(PixelModel(), tiny_processor(), scene, plan)
    next(strips)
    strips.close()
    assert reader_threads() == []


def test_the_thread_ends_when_the_model_fails():
    class Failing(PixelModel):
        def forward(self, pixel_values):
            raise RuntimeError("out of memory")

    scene = make_scene(WatchedRaster(3200, 40))
    with pytest.raises(RuntimeError, match="out of memory"):
        list(predict_strips(Failing(), tiny_processor(), scene, plan_for(scene)))


def test_strips_before_a_damaged_block_come_out_and_then_the_error():
    raster = WatchedRaster(160, 40, (16, 40), fail_at_row=100)
    scene = make_scene(raster)
    strips = predict_strips(PixelModel(), tiny_processor(), scene, plan_for(scene, (32, 32), (32, 32)))
    assert [next(strips).index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(GeoTiffError, match=r"watched\.tif: damaged\. The pixels that were read: rows 96 to 127, col"):
        next(strips)


def test_a_file_that_disappears_is_an_error(tmp_path):
    path = write_scene(tmp_path / "scene.tif", scene_pixels(400, 40), blockysize=8)
    scene = make_scene(GeoTiffRaster(path))
    strips = predict_strips(PixelModel(), tiny_processor(), scene, plan_for(scene, (32, 32), (32, 32)))
    next(strips)
    path.unlink()
    with pytest.raises(GeoTiffNotFoundError, match=r"scene\.tif.*rows \d+ to \d+, columns 0 to 39"):
        list(strips)


def damage_block(path, row, column):
    """Overwrite one tile of the first band; a pixel-interleaved file loses it in all bands."""
    with rasterio.open(path) as dataset:
        offset, size = (
            int(dataset.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE")
        )
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * size)


@pytest.mark.parametrize("rule", ["all", "any"])
def test_damaged_blocks_are_no_data_by_option_and_listed(tmp_path, rule):
    dates = [scene_pixels(110, 90, seed=seed) for seed in range(2)]
    options = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate", "interleave": "pixel"}
    paths = [write_scene(tmp_path / f"{seed}.tif", pixels, **options) for seed, pixels in enumerate(dates)]
    damage_block(paths[1], 1, 2)
    damage_block(paths[0], 3, 0)
    scene = make_scene(*(GeoTiffRaster(path) for path in paths))
    plan = plan_for(scene, (32, 32), (24, 32))
    processor = tiny_processor(2, nodata_rule=rule)
    with pytest.raises(GeoTiffError, match=r"1\.tif.*damaged.*rows 32 to 63"):
        list(predict_strips(PixelModel(), processor, scene, plan))
    strips = list(predict_strips(PixelModel(), processor, scene, plan, on_read_error="nodata"))
    expected = np.zeros((110, 90), bool)
    expected[32:64, 64:90] = expected[96:110, :32] = True
    np.testing.assert_array_equal(np.concatenate([strip.nodata for strip in strips]), expected)
    logits = torch.cat([strip.logits for strip in strips], dim=1)
    sound = processor(np.stack(dates, axis=1), return_tensors="pt")["pixel_values"]
    valid = torch.from_numpy(~expected)
    assert_matches(logits[:, valid], PixelModel()(sound).logits[0, :, valid].detach())
    found = np.zeros((110, 90), bool)
    for strip in strips:
        for name, (row, column, height, width) in strip.bad_windows:
            assert name == str(paths[0 if column == 0 else 1])
            assert strip.start <= row < row + height <= strip.stop
            found[row : row + height, column : column + width] = True
    np.testing.assert_array_equal(found, expected)
    assert strips[0].bad_windows == []
    for strip in strips:  # the same, wherever a run begins
        (alone,) = predict_strips(
            PixelModel(), processor, scene, plan, range(strip.index, strip.index + 1), on_read_error="nodata"
        )
        assert alone.bad_windows == strip.bad_windows
        np.testing.assert_array_equal(alone.nodata, strip.nodata)


def test_a_file_that_disappears_is_an_error_by_any_option(tmp_path):
    path = write_scene(tmp_path / "scene.tif", scene_pixels(40, 40))
    scene = make_scene(GeoTiffRaster(path))
    path.unlink()
    with pytest.raises(GeoTiffNotFoundError, match=r"scene\.tif"):
        list(predict_strips(PixelModel(), tiny_processor(), scene, plan_for(scene), on_read_error="nodata"))


def test_values_that_are_not_finite_are_an_error_that_says_where():
    class Overflowing(PixelModel):
        def forward(self, pixel_values):
            output = super().forward(pixel_values)
            output.logits[:, 1, 5, 7:9] = torch.inf
            return output

    pixels = scene_pixels(64, 64)
    scene = make_scene(pixels)
    plan = plan_for(scene, (32, 32), (32, 32))
    message = "scene: .* not finite at 4 pixels with data, in rows 5 to 5 and columns 7 to 40"
    with pytest.raises(ValueError, match=message):
        list(predict_strips(Overflowing(), tiny_processor(), scene, plan))
    pixels[:, [5, 37]] = NODATA
    assert len(list(predict_strips(Overflowing(), tiny_processor(), scene, plan))) == 2
