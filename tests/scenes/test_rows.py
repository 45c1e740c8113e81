# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Rows at hand: every block is read once, and damaged ones become no data where that is asked for."""

import os
import warnings

import numpy as np
import pytest
import rasterio

from prithvi_hf.rasters.geotiff_raster import GeoTiffError, GeoTiffNotFoundError
from prithvi_hf.scenes.engine import predict_strips
from prithvi_hf.scenes.rows import read_blocks_or_nodata
from prithvi_hf.scenes.scene import open_scene
from tests.engine_factory import PixelModel, WatchedRaster, make_scene, plan_for, whole_map
from tests.scene_factory import scene_pixels, tiny_processor, write_scene


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
