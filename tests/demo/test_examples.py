# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The scenes of a folder that visitors can choose."""

import pytest

from prithvi_hf.demo.examples import find_examples
from tests.scene_factory import scene_pixels, tiny_processor, write_scene


def test_geotiffs_of_a_folder_are_examples_of_a_model_of_one_date(tmp_path):
    for name in ("b", "a"):
        write_scene(tmp_path / f"{name}.tif")
    (tmp_path / "notes.txt").write_text("not a scene")
    (tmp_path / "folder").mkdir()
    examples = find_examples(tmp_path, tiny_processor(), 1e6, pytest.fail)
    assert [example.name for example in examples] == ["a", "b"]
    assert examples[0].picture.shape == (72, 90, 4)


def test_folders_with_as_many_geotiffs_as_dates_are_examples_of_a_model_of_several(tmp_path):
    for place, dates in (("field", ("1", "2", "3")), ("pair", ("1", "2"))):
        (tmp_path / place).mkdir()
        for date in dates:
            write_scene(tmp_path / place / f"{date}.tif")
    [example] = find_examples(tmp_path, tiny_processor(3), 1e6, pytest.fail)
    assert example.name == "field"
    assert [file.name for file in example.files] == ["1.tif", "2.tif", "3.tif"]


def test_what_is_left_out_is_said(tmp_path):
    write_scene(tmp_path / "good.tif")
    write_scene(tmp_path / "mask.tif", scene_pixels(bands=1))
    write_scene(tmp_path / "large.tif", scene_pixels(200, 200))
    (tmp_path / "broken.tif").write_bytes(b"II*\0")
    warnings = []
    examples = find_examples(tmp_path, tiny_processor(), 30_000, warnings.append)
    assert [example.name for example in examples] == ["good"]
    assert [text.split(" ")[0] for text in warnings] == ["broken", "large", "mask"]
    assert "--max_megapixels" in warnings[1]


def test_a_folder_without_scenes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a folder of GeoTIFFs"):
        find_examples(tmp_path / "none", tiny_processor(), 1e6, pytest.fail)
    with pytest.raises(ValueError, match="folders of 3 GeoTIFFs each"):
        find_examples(tmp_path, tiny_processor(3), 1e6, pytest.fail)
