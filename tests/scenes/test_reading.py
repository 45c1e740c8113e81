# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Batches of tiles and ends of rows: threads, units, the small picture, coordinates, blocks of files."""

import dataclasses
import datetime
import os
import warnings

import numpy as np
import pytest
import rasterio
import torch

from prithvi_hf.models.prithvi.configuration_prithvi import PRITHVI_BANDS
from prithvi_hf.models.prithvi.coordinates_prithvi import CoordinatesWarning
from prithvi_hf.models.prithvi.pixel_values_prithvi import UnitsWarning
from prithvi_hf.models.prithvi.segmentation_map_prithvi import draw_scene, stretch_colors
from prithvi_hf.rasters.geotiff_raster import GeoTiffError, GeoTiffNotFoundError
from prithvi_hf.rasters.raster import ArrayRaster
from prithvi_hf.scenes.engine import predict_strips
from prithvi_hf.scenes.reading import TileBatch, TileSource, read_blocks_or_nodata
from prithvi_hf.scenes.scene import open_scene, scene_coordinates
from tests.engine_factory import NODATA, PixelModel, WatchedRaster, make_scene, plan_for, whole_map
from tests.scene_factory import CRS_UTM, TRANSFORM, scene_pixels, tiny_processor, write_scene


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
    strips = predict_strips(PixelModel(), processor, scene, plan, thumbnail=True)
    values = np.concatenate([strip.thumbnail for strip in strips], axis=1)
    picture = stretch_colors(values, np.isfinite(values).all(axis=0))
    inputs = processor(pixels, file_nodata=NODATA, return_nodata_mask=True, return_tensors="pt")
    expected = draw_scene(processor, inputs["pixel_values"][0], inputs["nodata_mask"][0].numpy())
    assert picture.shape == expected.shape
    assert np.abs(picture.astype(int) - expected.astype(int)).max() <= 1  # values of the file, and normalised ones
    assert (picture[..., 3] == 0).any()


@pytest.mark.parametrize(("green", "asked"), [("GREEN", True), ("GREEN", False), ("SWIR_1", True)])
def test_thumbnail_is_made_where_it_is_asked_for(green, asked):
    scene = make_scene(scene_pixels(40, 40))
    bands = ["BLUE", green, "RED", "NIR_NARROW"]
    processor = tiny_processor(bands=bands, image_mean=[1000.0] * 4, image_std=1000.0)
    strip = next(predict_strips(PixelModel(), processor, scene, plan_for(scene), thumbnail=asked))
    assert (strip.thumbnail is not None) == asked


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
    model.seen.clear()
    with pytest.warns(CoordinatesWarning, match=r"^scene: the model takes the date, .* Give the option dates"):
        list(predict_strips(model, tiny_processor(2), undated, plan))
    assert all(time.isnan().all() and place.isfinite().all() for time, place in model.seen)


# ------------------------------------------------------------------ blocks of files


@pytest.mark.parametrize("block", [(16, 16), (48, 16), (7, 200), (1, 200), (200, 200)])
@pytest.mark.parametrize("offset", [(0, 0), (5, 9)])
@pytest.mark.parametrize(("bytes_a_read", "workers"), [(1, None), (2**24, None), (1, 3), (2**13, 3)])
def test_every_block_is_read_once(monkeypatch, block, offset, bytes_a_read, workers):
    monkeypatch.setattr("prithvi_hf.scenes.reading._BYTES_A_READ", bytes_a_read)
    raster = WatchedRaster(120 + offset[0], 64 + offset[1], block).select(window=(*offset, 120, 64))
    scene = make_scene(raster)
    plan = plan_for(scene, (32, 32), (11, 16))
    if workers is None:
        list(predict_strips(PixelModel(), tiny_processor(), scene, plan))
        assert raster.threads == {"scene reader"}
    else:
        list(TileSource(scene, tiny_processor(), plan, range(plan.num_strips), batch_size=3, workers=workers))
        assert raster.threads <= {f"scene reader_{index}" for index in range(workers)}
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


def test_blocks_too_large_to_keep_are_not_kept(monkeypatch, caplog):
    monkeypatch.setattr("prithvi_hf.scenes.reading._BYTES_OF_BLOCKS", 10_000)
    monkeypatch.setattr("prithvi_hf.scenes.reading.logger.warning", lambda text: warnings.warn(text, stacklevel=1))
    raster = WatchedRaster(90, 40, (90, 40))
    scene = make_scene(raster)
    with pytest.warns(UserWarning, match=r"watched\.tif has blocks of 90 rows"):
        whole_map(PixelModel(), tiny_processor(), scene, plan_for(scene, (32, 32), (32, 32)))
    assert max(height for _, _, height, _ in raster.reads) <= 32


def test_damaged_blocks_become_no_data_where_that_is_asked_for(tmp_path):
    """One block of one of six files; the rest of the frame is read as ever."""
    pixels = scene_pixels(96, 128)
    names = ("blue", "green", "red", "nir", "swir16", "swir22")
    paths = []
    for band, name in enumerate(names):
        options = {"tiled": True, "blockxsize": 32, "blockysize": 32}
        paths.append(write_scene(tmp_path / f"{name}.tif", pixels[band : band + 1], **options))
    frame = open_scene([paths], image_processor=tiny_processor()).frames[0]
    values, mask, excluded, bad = read_blocks_or_nodata(frame, (0, 0, 96, 128))
    assert mask is None
    assert excluded is None
    assert bad == []
    assert (values == pixels).all()
    _damage_block(paths[3], 6)
    with pytest.raises(GeoTiffError, match="nir"):
        frame.read()
    values, mask, excluded, bad = read_blocks_or_nodata(frame, (16, 8, 80, 120))
    assert bad == [(str(paths[3]), (32, 64, 32, 32))]
    expected = np.zeros((96, 128), dtype=bool)
    expected[32:64, 64:96] = True
    np.testing.assert_array_equal(mask, expected[16:, 8:])
    np.testing.assert_array_equal(values[:, ~mask], pixels[:, 16:, 8:][:, ~mask])
    assert (values[:, mask] == -9999).all()
    os.remove(paths[0])
    with pytest.raises(GeoTiffNotFoundError):
        read_blocks_or_nodata(frame, (0, 0, 96, 128))


def _damage_block(path, block: int) -> None:
    with rasterio.open(path) as dataset:
        rows = dataset.width // 32
        offset = int(dataset.get_tag_item(f"BLOCK_OFFSET_{block % rows}_{block // rows}", "TIFF", bidx=1))
    content = bytearray(path.read_bytes())
    content[offset : offset + 40] = bytes(40)
    path.write_bytes(content)
