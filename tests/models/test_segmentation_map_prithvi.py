# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures of a scene in natural colours, and maps in memory; the pipeline's tests hold the way through all steps."""

import numpy as np
import pytest
import torch

from prithvi_hf.models.prithvi.segmentation_map_prithvi import SegmentationMap, natural_colors, stretch_colors
from tests.scene_factory import tiny_processor


def test_the_three_colours_share_one_range():
    values = np.stack([np.full((10, 10), level, dtype=np.float32) for level in (300.0, 600.0, 900.0)])
    picture = stretch_colors(values, np.ones((10, 10), dtype=bool))
    assert picture.shape == (10, 10, 4)
    assert picture[0, 0].tolist() == [0, int(0.5**0.7 * 255), 255, 255]


def test_the_range_leaves_out_extremes_and_pixels_without_data():
    values = np.tile(np.linspace(0, 1, 1000, dtype=np.float32), (3, 1, 1))
    valid = np.ones((1, 1000), dtype=bool)
    values[:, 0, 900:] = 1e6
    valid[0, 900:] = False
    picture = stretch_colors(values, valid)
    assert (picture[0, 900:] == 0).all()  # transparent
    assert (picture[0, :900, 3] == 255).all()
    assert (picture[0, :18, 0] == 0).all()
    assert (picture[0, 882:900, 0] == 255).all()
    assert (np.diff(picture[0, :900, 1].astype(int)) >= 0).all()


@pytest.mark.parametrize("valid", [False, True])
def test_a_picture_of_one_value_or_of_none(valid):
    picture = stretch_colors(np.full((3, 2, 2), 5.0, dtype=np.float32), np.full((2, 2), valid))
    assert (picture[..., :3] == 0).all()
    assert (picture[..., 3] == (255 if valid else 0)).all()


def test_natural_colors_undo_the_statistics_and_are_thinned():
    processor = tiny_processor(num_frames=2, image_mean=[100.0] * 5 + [0.0], image_std=[10, 20, 40, 1, 1, 1])
    pixels = np.random.default_rng(0).integers(100, 200, (6, 2, 4, 2000)).astype(np.float32)
    nodata = np.zeros((4, 2000), bool)
    nodata[:, -500:] = True
    values = processor(pixels, return_tensors="pt")["pixel_values"][0]
    colors = [processor.bands.index(name) for name in ("RED", "GREEN", "BLUE")]
    expected = stretch_colors(pixels[colors, 1, ::2, ::2], ~nodata[::2, ::2])  # the first date is not shown
    picture = natural_colors(processor, values, nodata)
    assert picture.shape == (2, 1000, 4)
    assert np.abs(picture.astype(int) - expected).max() <= 1
    assert (picture[:, 750:] == 0).all()


def test_bands_without_a_colour_make_no_picture():
    bands = ["NIR_NARROW", "SWIR_1"]
    processor = tiny_processor(bands=bands, image_mean=[0.0, 0.0], image_std=[1.0, 1.0])
    assert natural_colors(processor, torch.zeros(2, 1, 4, 4), np.zeros((4, 4), bool)) is None


def test_classes_are_counted_by_name():
    mask = np.array([[0, 1, 1], [255, 1, 0]], dtype=np.uint8)
    assert SegmentationMap(mask).class_counts() == {"LABEL_0": 2, "LABEL_1": 3, "no data": 1}
    assert "2 x 3 pixels" in repr(SegmentationMap(mask, id2label={0: "land", 1: "water"}))
