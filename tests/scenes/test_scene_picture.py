# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The picture of a scene against the pixels in its file."""

import numpy as np
import pytest

from prithvi_hf.models.prithvi.segmentation_map_prithvi import stretch_colors
from prithvi_hf.scenes import open_scene
from prithvi_hf.scenes.scene_picture import read_scene_picture
from tests.scene_factory import scene_pixels, tiny_processor, write_scene


@pytest.fixture(scope="module")
def scene_file(tmp_path_factory):
    pixels = scene_pixels(90, 72)
    pixels[:, :20, :30] = -9999
    return write_scene(tmp_path_factory.mktemp("scene") / "scene.tif", pixels)


def test_the_picture_of_a_scene_is_that_of_its_pixels(scene_file):
    picture, problem = read_scene_picture(open_scene(scene_file, tiny_processor()), tiny_processor())
    red_green_blue = scene_pixels(90, 72)[[2, 1, 0]].astype(np.float32)
    valid = np.ones((90, 72), dtype=bool)
    valid[:20, :30] = False
    assert np.array_equal(picture, stretch_colors(red_green_blue, valid))
    assert problem is None


def test_the_picture_of_a_large_scene_is_thinned(tmp_path):
    pixels = np.tile(scene_pixels(64, 100), (1, 1, 32))  # 64 x 3200: every third pixel
    scene = open_scene(write_scene(tmp_path / "wide.tif", pixels), tiny_processor())
    picture, _ = read_scene_picture(scene, tiny_processor())
    assert picture.shape == (22, 1067, 4)
    thinned = pixels[[2, 1, 0], ::3, ::3].astype(np.float32)
    assert np.array_equal(picture, stretch_colors(thinned, np.ones((22, 1067), dtype=bool)))
