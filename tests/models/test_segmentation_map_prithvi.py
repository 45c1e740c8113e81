# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures of a scene in natural colours, and maps in memory; the pipeline's tests hold the way through all steps."""

import datetime

import numpy as np
import pytest
import torch

from prithvi_hf.models.prithvi.segmentation_map_prithvi import (
    SegmentationMap,
    choose_color_bands,
    draw_scene,
    stretch_colors,
    title_picture,
)
from tests.scene_factory import tiny_processor


ALL_VALID = np.ones((10, 10), dtype=bool)


def make_colors(*ranges: tuple[float, float]) -> np.ndarray:
    """Make red, green and blue that rise together, from one value to another."""
    return np.stack([np.linspace(*ends, 100, dtype=np.float32).reshape(10, 10) for ends in ranges])


def test_equal_bands_are_grey():
    picture = stretch_colors(make_colors(*[(300, 900)] * 3), ALL_VALID)
    assert picture.shape == (10, 10, 4)
    assert (picture[..., :1] == picture[..., 1:3]).all()
    assert picture[0, 0].tolist() == [0, 0, 0, 255]
    assert picture[-1, -1].tolist() == [255, 255, 255, 255]


def test_haze_that_is_added_to_every_pixel_of_a_band_is_gone():
    clear = make_colors((100, 900), (200, 800), (150, 500))
    haze = np.array([100, 400, 900], np.float32)[:, None, None]
    assert np.array_equal(stretch_colors(clear + haze, ALL_VALID), stretch_colors(clear, ALL_VALID))


def test_a_scene_much_darker_in_red_than_in_blue_stays_blue():
    picture = stretch_colors(make_colors((10, 60), (100, 300), (300, 900)), ALL_VALID).astype(int)
    assert (picture[5:, :, 0] < picture[5:, :, 2]).all()
    assert picture[..., 0].max() < 60


def test_gaps_of_one_band_along_the_edge_of_a_swath_are_not_its_dark_level():
    values = make_colors((500, 900), (500, 900), (500, 900))
    values[0, 0, :5] = 0  # of red alone
    picture = stretch_colors(values, ALL_VALID)
    assert (picture[1:, :, 0] == picture[1:, :, 2]).all()  # not red


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


def test_land_is_not_dark_beside_clouds():
    land = make_colors((200, 900), (300, 800), (150, 500))
    clouds = np.full((3, 2, 10), 6000, dtype=np.float32)
    picture = stretch_colors(np.concatenate([land, clouds], axis=1), np.ones((12, 10), dtype=bool))
    assert (picture[10:, :, :3] == 255).all()
    alone = stretch_colors(land, ALL_VALID)
    assert np.abs(picture[:10].astype(int) - alone.astype(int)).max() < 40
    assert picture[9, 9, 0] == 255  # the brightest land


@pytest.mark.parametrize("valid", [False, True])
def test_a_picture_of_one_value_or_of_none(valid):
    picture = stretch_colors(np.full((3, 2, 2), 5.0, dtype=np.float32), np.full((2, 2), valid))
    assert (picture[..., :3] == 0).all()
    assert (picture[..., 3] == (255 if valid else 0)).all()


def test_draw_scene_undo_the_statistics_and_are_thinned():
    processor = tiny_processor(num_frames=2, image_mean=[100.0] * 5 + [0.0], image_std=[10, 20, 40, 1, 1, 1])
    pixels = np.random.default_rng(0).integers(100, 200, (6, 2, 4, 2000)).astype(np.float32)
    nodata = np.zeros((4, 2000), bool)
    nodata[:, -500:] = True
    values = processor(pixels, return_tensors="pt")["pixel_values"][0]
    colors = [processor.bands.index(name) for name in ("RED", "GREEN", "BLUE")]
    expected = stretch_colors(pixels[colors, 1, ::2, ::2], ~nodata[::2, ::2])  # the first date is not shown
    picture = draw_scene(processor, values, nodata)
    assert picture.shape == (2, 1000, 4)
    assert np.abs(picture.astype(int) - expected).max() <= 1
    assert (picture[:, 750:] == 0).all()


@pytest.mark.parametrize(
    ("bands", "shown", "is_natural"),
    [
        (("B12", "B08", "B04", "B03", "B02"), ("B04", "B03", "B02"), True),
        (("NIR", "RED", "GREEN"), ("NIR", "RED", "GREEN"), False),
        (("GREEN", "RED", "RED_EDGE_1", "NIR_BROAD", "NIR_NARROW"), ("NIR_NARROW", "RED", "GREEN"), False),
        (("SWIR_2", "RED", "NIR_NARROW"), ("SWIR_2", "NIR_NARROW", "RED"), False),
        (("VV", "VH", "ANGLE", "DEM"), ("VV", "VH", "ANGLE"), False),
        (("VV", "VH"), ("VV", "VH", "VH"), False),
        (("DEM",), ("DEM",) * 3, False),
    ],
)
def test_bands_without_red_green_and_blue_are_shown_in_false_colours(bands, shown, is_natural):
    found, natural = choose_color_bands(bands)
    assert (tuple(bands[index] for index in found), natural) == (shown, is_natural)
    processor = tiny_processor(bands=list(bands), image_mean=[0.0] * len(bands), image_std=[1.0] * len(bands))
    values = torch.rand(len(bands), 1, 4, 4, generator=torch.manual_seed(0))
    picture = draw_scene(processor, values, np.zeros((4, 4), bool))
    assert picture.shape == (4, 4, 4)
    assert picture[..., :3].max() > 200
    assert ("false colours" in title_picture(bands)) != is_natural


def test_bands_of_different_units_have_each_their_own_span():
    values = make_colors((-25, -5), (0, 1), (250, 300))
    picture = stretch_colors(values, ALL_VALID, is_natural=False)
    assert (picture[-1, -1, :3] == 255).all()
    assert (picture[..., 0] == picture[..., 1]).all()


def test_dark_land_under_clouds_is_bright_enough():
    values = np.random.default_rng(0).uniform(300, 900, (3, 100, 100)).astype(np.float32)
    values[:, :15] += 6000  # clouds
    picture = stretch_colors(values, np.ones((100, 100), bool))
    assert np.median(picture[15:, :, :3]) > 60
    assert picture[:15, :, :3].min() > 200


@pytest.mark.parametrize(
    ("num_frames", "date", "title"),
    [
        (1, None, "scene"),
        (3, None, "scene, date 3 of 3"),
        (1, datetime.datetime(2022, 8, 6, 18, 49, tzinfo=datetime.UTC), "scene, 2022-08-06"),
        (2, datetime.datetime(2021, 1, 2, tzinfo=datetime.UTC), "scene, 2021-01-02, date 2 of 2"),
    ],
)
def test_the_title_of_a_picture_says_which_date_is_shown(num_frames, date, title):
    assert title_picture(["BLUE", "GREEN", "RED"], num_frames, date) == title


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (("crop", "crop", "forest"), ("crop (0)", "crop (1)", "forest")),
        (("no data", "water", "no data"), ("no data (0)", "water", "no data (2)")),
        (("", "", "a"), (" (0)", " (1)", "a")),
        (("crop", "crop", "crop (0)"), ("crop (0) (0)", "crop (1)", "crop (0) (2)")),
        (("other", "soil"), ("other", "soil", "LABEL_2")),  # the mask has a class more
    ],
)
def test_no_pixel_is_lost_where_classes_share_a_name(names, keys):
    mask = np.random.default_rng(0).choice([0, 1, 2, 255], (20, 30)).astype(np.uint8)
    counts = SegmentationMap(mask, id2label=dict(enumerate(names))).class_counts()
    assert tuple(counts) == (*keys, "no data")
    assert list(counts.values()) == [int((mask == value).sum()) for value in (0, 1, 2, 255)]


def test_classes_are_counted_by_name():
    mask = np.array([[0, 1, 1], [255, 1, 0]], dtype=np.uint8)
    assert SegmentationMap(mask).class_counts() == {"LABEL_0": 2, "LABEL_1": 3, "no data": 1}
    assert "2 x 3 pixels" in repr(SegmentationMap(mask, id2label={0: "land", 1: "water"}))
