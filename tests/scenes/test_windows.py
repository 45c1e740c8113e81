# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Windows of scenes: what they follow from, what is no data, dates and places."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from prithvi_hf import PrithviConfig, PrithviImageProcessor
from prithvi_hf.scenes.scene import open_scene
from prithvi_hf.scenes.windows import SceneWindows, read_window
from tests.granule_factory import write_hls_granule
from tests.pretrain_factory import SIZES, SWATH, make_scenes, smooth_pixels, write_smooth_scene
from tests.raster_factory import coordinate_array
from tests.scene_factory import write_scene


SIZE = (32, 32)


def make_windows(scenes, num_frames=1, count=12, processor=None, seed=3, **options):
    config = {name: options.pop(name) for name in ("coords_encoding",) if name in options}
    return SceneWindows(
        scenes,
        processor or PrithviImageProcessor(num_frames=num_frames),
        PrithviConfig(num_frames=num_frames, **SIZES, **config),
        SIZE,
        count,
        seed,
        **options,
    )


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = make_scenes(tmp_path_factory.mktemp("windows"), names=("a", "b", "c"))
    return [open_scene(path, PrithviImageProcessor(num_frames=1)) for path in sorted(folder.glob("*.tif"))]


def same(first, other):
    return first.keys() == other.keys() and all(torch.equal(first[name], other[name]) for name in first)


def test_windows_follow_from_seed_epoch_and_index_alone(scenes):
    windows, again = make_windows(scenes, augmentation="d4"), make_windows(scenes, augmentation="d4")
    first = [windows[index] for index in range(12)]
    assert all(same(again[index], first[index]) for index in reversed(range(12)))
    assert len({example["noise"].numpy().tobytes() for example in first}) == 12
    loaded = DataLoader(windows, batch_size=3, num_workers=2)
    for number, batch in enumerate(loaded):
        assert same({name: values[1] for name, values in batch.items()}, first[3 * number + 1])
    windows.set_epoch(1)
    assert not same(windows[0], first[0])
    windows.set_epoch(0)
    assert same(windows[0], first[0])
    assert not same(make_windows(scenes, seed=4)[0], first[0])
    assert same(pickle.loads(pickle.dumps(windows))[5], first[5])
    with pytest.raises(IndexError, match="from 0 to 11"):
        windows[12]


def test_pixels_are_those_of_the_file_through_the_image_processor(tmp_path):
    write_scene(tmp_path / "a.tif", coordinate_array((70, 90)))
    scene = open_scene(tmp_path / "a.tif", PrithviImageProcessor(num_frames=1))
    plain = PrithviImageProcessor(num_frames=1, do_normalize=False)
    places = set()
    for example in map(make_windows([scene], processor=plain, count=40).__getitem__, range(40)):
        row, column = example["pixel_values"][:2, 0, 0, 0].int().tolist()
        expected = coordinate_array((70, 90))[:, row - 1 : row + 31, column - 1 : column + 31]
        assert (example["pixel_values"][:, 0].numpy() == expected).all()
        places.add((row, column))
    assert len(places) > 35
    assert max(row for row, _ in places) > 30
    assert max(column for _, column in places) > 50


def test_windows_with_too_little_data_are_drawn_again_and_the_rest_is_marked(scenes):
    gaps = [
        example["nodata_mask"].float().mean() for example in map(make_windows(scenes, count=60).__getitem__, range(60))
    ]
    assert 0 < max(gaps) <= 0.5
    whole = [
        example["nodata_mask"].any() for example in map(make_windows(scenes, min_valid=1.0).__getitem__, range(12))
    ]
    assert not any(whole)
    window = read_window(scenes[1], PrithviImageProcessor(num_frames=1), (0, SWATH - 8, *SIZE))
    assert window.nodata_mask[0, :, :8].all()
    assert not window.nodata_mask[0, :, 8:].any()


def test_scenes_without_enough_data_are_an_error(tmp_path):
    write_smooth_scene(tmp_path / "a.tif", gap=(slice(None), slice(None)))
    scene = open_scene(tmp_path / "a.tif", PrithviImageProcessor(num_frames=1))
    with pytest.raises(ValueError, match=r"50% has data \(min_valid\), found none"):
        make_windows([scene])[0]


def test_a_value_that_is_missing_in_one_band_is_missing(tmp_path):
    pixels = smooth_pixels(32, 32)
    pixels[3, 5, 7] = -9999
    write_scene(tmp_path / "a.tif", pixels)
    scene = open_scene(tmp_path / "a.tif", PrithviImageProcessor(num_frames=1))
    mask = read_window(scene, PrithviImageProcessor(num_frames=1), (0, 0, *SIZE)).nodata_mask[0]
    assert np.argwhere(mask).tolist() == [[5, 7]]


def test_larger_scenes_give_more_windows(tmp_path):
    write_smooth_scene(tmp_path / "large.tif", 32, 288, nodata=1)
    pixels = np.full((6, 32, 32), 7, dtype=np.int16)
    write_scene(tmp_path / "small.tif", pixels)
    both = [open_scene(tmp_path / f"{name}.tif", PrithviImageProcessor(num_frames=1)) for name in ("large", "small")]
    plain = PrithviImageProcessor(num_frames=1, do_normalize=False)
    examples = map(make_windows(both, processor=plain, count=200).__getitem__, range(200))
    assert 0.04 < np.mean([(example["pixel_values"] == 7).all() for example in examples]) < 0.18  # a tenth


# ---------------------------------------------------------------- dates and places


GRANULES = (("S30", (2022, 6, 7)), ("L30", (2022, 7, 10)), ("S30", (2022, 8, 6)))


@pytest.fixture(scope="module")
def dated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("granules")
    for sensor, day in GRANULES:
        write_hls_granule(folder, sensor, day, tile="10SEH")
    return open_scene(folder, PrithviImageProcessor(num_frames=3))


def test_dates_and_places_are_given_where_the_model_takes_them(dated):
    options = {"num_frames": 3, "coords_encoding": ["time", "location"]}
    example = make_windows([dated], **options)[0]
    days = [[2022, 157], [2022, 190], [2022, 217]]  # 1 January is day 0
    assert example["temporal_coords"].tolist() == days
    latitude, longitude = example["location_coords"].tolist()
    assert 30 < latitude < 45
    assert -126 < longitude < -118
    assert "temporal_coords" not in make_windows([dated], num_frames=3)[0]
    dropped = list(map(make_windows([dated], **options, count=40, coords_dropout=0.5).__getitem__, range(40)))
    gone = [[bool(one[name].isnan().any()) for one in dropped] for name in ("temporal_coords", "location_coords")]
    assert all(5 < sum(flags) < 35 for flags in gone)
    assert gone[0] != gone[1]


def test_of_more_dates_some_are_drawn_in_their_order_with_their_days(dated):
    windows = make_windows([dated], num_frames=2, coords_encoding=["time"], count=30)
    days = {tuple(windows[index]["temporal_coords"][:, 1].tolist()) for index in range(30)}
    assert days == {(157, 190), (157, 217), (190, 217)}


def test_unknown_dates_and_places_are_nan(tmp_path):
    write_smooth_scene(tmp_path / "a.tif", crs=None)
    scene = open_scene(tmp_path / "a.tif", PrithviImageProcessor(num_frames=1))
    example = make_windows([scene], coords_encoding=["time", "location"])[0]
    assert example["temporal_coords"].isnan().all()
    assert example["temporal_coords"].shape == (1, 2)
    assert example["location_coords"].isnan().all()


def test_what_does_not_fit_is_refused(scenes, dated):
    with pytest.raises(ValueError, match=r"whole patches of 16 x 16 pixels, found crop_size 30 x 32"):
        SceneWindows(scenes, PrithviImageProcessor(num_frames=1), PrithviConfig(num_frames=1, **SIZES), (30, 32), 1, 0)
    config = PrithviConfig(num_frames=1, **SIZES)
    with pytest.raises(ValueError, match=r"a.*expected at least 128 x 128 pixels"):
        SceneWindows(scenes, PrithviImageProcessor(num_frames=1), config, (128, 128), 1, 0)
    with pytest.raises(ValueError, match=r"expected at least 4 dates \(num_frames\), found 3"):
        make_windows([dated], num_frames=4)
