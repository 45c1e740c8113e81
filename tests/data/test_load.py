# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Datasets by name: public ones are known by their files, and options that do not exist are named."""

import pytest

from prithvi_hf.data.load import detect_dataset, load_dataset, make_builder
from tests.raster_factory import make_burn_scars, make_crops, make_folder


def test_other_folders_are_ones_own(tmp_path):
    make_burn_scars(tmp_path / "two")
    make_crops(tmp_path / "two")
    assert detect_dataset(tmp_path / "two") is None
    assert detect_dataset(make_folder(tmp_path / "own", ["a", "b"])) is None
    with pytest.raises(FileNotFoundError, match="nowhere"):
        detect_dataset(tmp_path / "nowhere")


def test_unknown_names_and_options_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"sen1floods11.*'floods'.*geotiff_folder"):
        load_dataset("floods", tmp_path)
    with pytest.raises(ValueError, match=r"\['mask_sufix'\].*'mask_suffix'"):
        make_builder("geotiff_folder", tmp_path, mask_sufix=".tif")


def test_splits_and_streams(tmp_path):
    make_folder(tmp_path / "own", ["a", "b"])
    options = {"image_suffix": ".tif", "mask_suffix": "_mask.tif", "cache_dir": str(tmp_path / "cache")}
    splits = load_dataset("geotiff_folder", tmp_path / "own", **options)
    assert [row["id"] for row in splits["train"]] == ["a", "b"]
    assert len(load_dataset("geotiff_folder", tmp_path / "own", "train[:1]", **options)) == 1
    stream = load_dataset("geotiff_folder", tmp_path / "own", "train", streaming=True, **options)
    assert next(iter(stream))["image"].shape == splits["train"][0]["image"].shape
