# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Frames of clients as scenes, within the limits; refused ones are in test_app.py."""

import asyncio

import pytest
import rasterio

from prithvi_hf.serving.errors import ApiError
from prithvi_hf.serving.frames import check_signature, check_size, explain_frame_error, open_frames
from prithvi_hf.serving.settings import Limits
from prithvi_hf.serving.uploads import Body, name_frame, read_form
from tests.scene_factory import scene_pixels, tiny_model, tiny_processor, write_scene
from tests.serving.test_uploads import FORM, make_part, make_request


def open_one(path, task="segmentation", **options):
    return open_frames([path], ["x.tif"], options, tiny_processor(), tiny_model().config, task, Limits())


@pytest.mark.parametrize(
    ("task", "options", "outputs"),
    [
        ("segmentation", {}, {"quicklook", "polygons"}),
        ("segmentation", {"outputs": []}, set()),
        ("segmentation", {"outputs": ["entropy"]}, {"entropy"}),
        ("regression", {}, {"quicklook"}),
    ],
)
def test_outputs_are_those_asked_for_or_those_that_the_task_has(tmp_path, task, options, outputs):
    scene, _, keywords = open_one(write_scene(tmp_path / "frame_001.tif"), task, **options)
    assert {name for name, value in keywords.items() if value is True} == outputs
    assert scene.name == "x.tif"


def test_a_regression_has_no_outputs_of_classes(tmp_path):
    with pytest.raises(ValueError, match="gives values, not classes"):
        open_one(write_scene(tmp_path / "frame_001.tif"), "regression", outputs=["polygons"])


def test_the_limit_of_pixels_is_that_of_frames_and_of_the_map(tmp_path):
    limits = Limits(max_pixels=0.01)
    check_size(100, 100, "x", limits)
    for size in ((101, 100), (2, 401)):
        with pytest.raises(ApiError, match=r"0\.01 million pixels") as error:
            check_size(*size, "x", limits)
        assert error.value.status == 413
    scene = write_scene(tmp_path / "frame_001.tif", scene_pixels(90, 90))
    arguments = (tiny_processor(), tiny_model().config, "segmentation", limits)
    with pytest.raises(ApiError, match="found a map of 180 x 180"):
        open_frames([scene], ["x.tif"], {"resolution": 5.0000001}, *arguments)


@pytest.mark.parametrize("start", [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"])
def test_tiff_and_bigtiff_of_either_byte_order_pass(tmp_path, start):
    (tmp_path / "x").write_bytes(start)
    check_signature(tmp_path / "x", "x")


def test_messages_name_files_as_the_client_does(tmp_path):
    path = tmp_path / "frame_001.tif"
    error = ValueError(f"{path}: expected a, found {tmp_path}/results/map.tif and frame_001.")
    error.add_note("kept in /somewhere")
    assert explain_frame_error(error, [path], ["x.tif"]) == "x.tif: expected a, found results/map.tif and x.tif."
    assert explain_frame_error(KeyError("x"), [path], ["x.tif"]) is None


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "which is empty"),
        (b"\x89PNG\r\n", "which begins with b'.x89PNG'"),
        (b"<VRTDataset", "b'<VRT'"),
        (b"II", "b'II'"),
    ],
)
def test_files_of_other_drivers_are_refused_before_gdal_sees_them(tmp_path, content, found):
    (tmp_path / "frame_001.tif").write_bytes(content)
    with pytest.raises(ApiError, match=rf"Expected GeoTIFF files, found x\.tif.*{found}") as error:
        open_one(tmp_path / "frame_001.tif")
    assert error.value.status == 415
    assert str(tmp_path) not in str(error.value)


def test_a_signature_with_nothing_behind_it_is_an_error_of_the_frame(tmp_path):
    path = tmp_path / "frame_001.tif"
    path.write_bytes(b"II*\0" + b"\xff" * 100)
    with pytest.raises((OSError, ValueError)) as error:
        open_one(path)
    message = explain_frame_error(error.value, [path], ["x.tif"])
    assert "x.tif" in message
    assert str(tmp_path) not in message


def test_options_of_polygons_need_polygons_among_the_outputs(tmp_path):
    path = write_scene(tmp_path / "frame_001.tif", scene_pixels(40, 40))
    with pytest.raises(ApiError, match="found the outputs quicklook") as error:
        open_one(path, outputs=["quicklook"], min_area=5.0)
    assert error.value.status == 422
    with pytest.raises(ValueError, match="lava"):
        open_one(path, polygon_classes=["lava"])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_no_upload_becomes_a_side_file_of_another_one(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(40, 40))
    for name in ("alone", "beside", "uploaded"):
        (tmp_path / name).mkdir()
    with rasterio.open(
        tmp_path / "mask.tif", "w", driver="GTiff", width=40, height=40, count=1, dtype="uint8"
    ) as mask:
        mask.update_tags(INTERNAL_MASK_FLAGS_1="2")  # of no valid pixel

    def receive(folder, *uploads):
        """Receive files as the server does, by the names that a client gives them."""
        parts = [make_part("files", path.read_bytes(), name) for name, path in uploads]
        body = Body(make_request([*parts, b"--bound--\r\n"]), 10**7, 30)
        return asyncio.run(read_form(body, FORM, folder, len(uploads))).files[0]

    def count_masked(path):
        """Open one frame and count its pixels without data."""
        mask = open_one(path)[0].frames[0].read_nodata_mask()
        return 0 if mask is None else int(mask.sum())

    alone = receive(tmp_path / "alone", ("frame_001.tif", scene))
    beside = receive(tmp_path / "beside", ("frame_001.tif", scene))
    beside.with_name("frame_001.tif.msk").write_bytes((tmp_path / "mask.tif").read_bytes())
    assert count_masked(alone) == 0
    assert count_masked(beside) == 1600  # GDAL would take it
    names = ("frame_001.tif", "frame_001.tif.msk", "../frame_001.tif.msk", "frame_001.tif.aux.xml", "frame_001.xml")
    uploads = [(name, scene if name == names[0] else tmp_path / "mask.tif") for name in names]
    uploaded = receive(tmp_path / "uploaded", *uploads)
    assert sorted(path.name for path in uploaded.parent.iterdir()) == [name_frame(number) for number in range(1, 6)]
    assert count_masked(uploaded) == 0
