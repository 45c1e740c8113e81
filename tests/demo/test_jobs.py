# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Maps of visitors: what they get, what is refused within which limits, and that nothing is left."""

import re

import geopandas
import numpy as np
import pytest
import rasterio

from prithvi_hf import predict_scene
from prithvi_hf.cli.common import remote_message
from prithvi_hf.demo.jobs import Limits, Mapper, StoppedError, read_options
from prithvi_hf.demo.sessions import Sessions
from prithvi_hf.rasters.opening import FrameOptions
from tests.granule_factory import write_hls_granule
from tests.scene_factory import read_map, scene_pixels, tiny_model, tiny_processor, write_scene


@pytest.fixture
def sessions(tmp_path):
    (tmp_path / "server").mkdir()
    return Sessions(tmp_path / "server")


@pytest.fixture
def session(sessions):
    return sessions.open("a")


@pytest.fixture(scope="module")
def mapper():
    return Mapper(tiny_model(), tiny_processor(), Limits())


def choose(session, *files):
    session.choose(files, files[0].stem)
    return session


def test_a_map_is_that_of_predict_scene(mapper, session, tmp_path):
    scene, calls = write_scene(tmp_path / "scene.tif"), []
    view = mapper.map(choose(session, scene), FrameOptions(), lambda done, total: calls.append((done, total)))
    endings = (".tif", ".gpkg", ".png", "_confidence.tif")
    assert [file.name for file in view.files] == [f"scene_map{ending}" for ending in endings]
    predict_scene(mapper.model, mapper.image_processor, scene, tmp_path / "own.tif", show_progress=False)
    assert np.array_equal(read_map(view.files[0]), read_map(tmp_path / "own.tif"))
    polygons = geopandas.read_file(view.files[1])
    assert polygons.area_m2.sum() == pytest.approx(sum(row.square_metres for row in view.figures.rows))
    assert calls[0][0] == 0
    assert calls[-1][0] == calls[-1][1] > 1
    assert view.notes == []
    assert session.running == 0


def test_three_dates_make_one_map(session, tmp_path):
    mapper = Mapper(tiny_model(3), tiny_processor(3), Limits())
    dates = [write_scene(tmp_path / f"{name}.tif", scene_pixels(seed=seed)) for seed, name in enumerate("abc")]
    assert mapper.map(choose(session, *dates), FrameOptions()).view.title == "scene, date 3 of 3"
    with pytest.raises(ValueError, match="expected 3 frames"):
        mapper.map(choose(session, dates[0]), FrameOptions())


def test_files_of_one_band_each_are_one_frame(mapper, sessions, tmp_path):
    """As a visitor uploads an HLS granule: each file is in a folder of its own."""
    granule = write_hls_granule(tmp_path / "granule", "S30", (2022, 6, 7), tile="10SEH")
    files = sorted(granule.glob("*.tif"))
    mapper.check_files(files)
    session = sessions.open("a")
    session.choose(sessions.take(session, files), "granule")
    assert mapper.view(session, FrameOptions()).title == "scene, 2022-06-07"


def test_a_scene_without_a_place_has_a_map_and_a_note(mapper, session, tmp_path):
    scene = write_scene(tmp_path / "nowhere.tif", crs=None, transform=None)
    view = mapper.map(choose(session, scene), FrameOptions())
    assert [file.suffix for file in view.files] == [".tif", ".png", ".tif"]
    assert "no CRS" in view.notes[0]
    local = rasterio.crs.CRS.from_wkt('LOCAL_CS["here",UNIT["metre",1]]')
    view = mapper.map(choose(session, write_scene(tmp_path / "local.tif", crs=local)), FrameOptions())
    assert len(view.files) == 3
    assert view.notes


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(max_megapixels=0.005), "at most 0.005 million pixels, found 72 x 90"),
        (Limits(max_seconds=1e-6), "expected a map within 1e-06 seconds, found 0 of"),
    ],
)
def test_what_is_beyond_a_limit_is_refused_and_nothing_is_left(mapper, session, tmp_path, limits, message):
    scene = write_scene(tmp_path / "scene.tif")
    small = Mapper(mapper.model, mapper.image_processor, limits)
    with pytest.raises((ValueError, TimeoutError), match=message) as caught:
        small.map(choose(session, scene), FrameOptions())
    assert "prithvi-hf predict" in remote_message(caught.value)
    assert list(session.folder.iterdir()) == []


def test_files_are_checked_before_they_are_opened(mapper, tmp_path):
    small = Mapper(mapper.model, mapper.image_processor, Limits(max_megabytes=0.001))
    scene = write_scene(tmp_path / "scene.tif")
    for files, message in (
        ([scene], "scene.tif: expected at most 0.001 MB"),
        ([tmp_path / "scene.vrt"], "whose name ends in .tif"),
        ([], "found 0 files"),
        ([scene] * 21, "found 21 files"),
    ):
        with pytest.raises(ValueError, match=message):
            small.check_files(files)


def test_a_file_of_another_format_in_disguise_is_refused(mapper, session, tmp_path):
    (tmp_path / "scene.tif").write_text('<VRTDataset rasterXSize="9" rasterYSize="9"></VRTDataset>')
    with pytest.raises(ValueError, match="GeoTIFF") as caught:
        mapper.view(choose(session, tmp_path / "scene.tif"), FrameOptions())
    assert str(tmp_path) not in remote_message(caught.value)


@pytest.mark.parametrize("leaves", [False, True])
def test_a_run_that_is_stopped_leaves_nothing(mapper, sessions, tmp_path, leaves):
    session = sessions.open("a")
    session.choose(sessions.take(session, [write_scene(tmp_path / "scene.tif")]), "scene")

    def stop(done, total):
        if done and leaves:
            sessions.close("a")
        elif done:
            session.stopped.set()

    with pytest.raises(StoppedError):
        mapper.map(session, FrameOptions(), stop)
    assert list(session.folder.glob("map-*")) == []
    assert session.folder.exists() is not leaves


def test_a_run_that_was_stopped_while_it_waited_does_not_begin(mapper, session, tmp_path):
    choose(session, write_scene(tmp_path / "scene.tif"))
    session.stopped.set()
    with pytest.raises(StoppedError):
        mapper.map(session, FrameOptions(), pytest.fail)
    session.stopped.clear()
    assert mapper.map(session, FrameOptions()).files


def test_options_are_read_from_texts():
    assert read_options("B G,R", "", "apply", "-1000") == FrameOptions(
        band_names=["B", "G", "R"], scale="apply", boa_add_offset=-1000.0
    )
    assert read_options(band_indices="1, 2 3").band_indices == [1, 2, 3]
    assert read_options() == FrameOptions()
    for options, message in (
        ({"band_indices": "one"}, "band_indices: expected whole numbers"),
        ({"boa_add_offset": "1 2"}, "found 2. Give one."),
        ({"boa_add_offset": "nan"}, "finite"),
        ({"scale": "sideways"}, "scale: expected one of"),
    ):
        with pytest.raises(ValueError, match=message):
            read_options(**options)


def test_bands_of_files_that_do_not_name_them_can_be_given(mapper, session, tmp_path):
    pixels = np.concatenate([scene_pixels(bands=1, seed=9), scene_pixels()])
    scene = write_scene(tmp_path / "scene.tif", pixels, descriptions=None)
    named = write_scene(tmp_path / "named.tif")
    first = read_map(mapper.map(choose(session, scene), read_options(band_indices="1 2 3 4 5 6")).files[0])
    assert np.array_equal(first, read_map(mapper.map(choose(session, named), FrameOptions()).files[0]))


def test_values_in_other_units_are_told_with_the_first_picture(mapper, session, tmp_path):
    scene = write_scene(tmp_path / "scene.tif", (scene_pixels() / 10_000).astype(np.float32))
    [note] = mapper.view(choose(session, scene), FrameOptions()).notes
    factor = re.search(r"rescale_factor=(\S+)", note)[1]
    assert mapper.view(session, read_options(rescale_factor=factor, rescale_offset="0")).notes == []


def test_bands_that_are_far_from_the_training_are_named_with_the_map(session, tmp_path):
    spread = {"chips": 9, "mean": [0.0] * 6, "std": [0.1] * 6, "contrast_std": [0.1] * 6}
    mapper = Mapper(tiny_model(), tiny_processor(training_statistics=spread), Limits())
    scene = write_scene(tmp_path / "scene.tif", scene_pixels() // 4)
    [note] = mapper.map(choose(session, scene), FrameOptions()).notes
    assert "BLUE" in note
    assert "far from those that the model was trained with" in note


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_limits_are_numbers_above_zero(value):
    with pytest.raises(ValueError, match="max_seconds: expected a number above 0"):
        Limits(max_seconds=value)
