# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The synthetic fields: repeatable, read as three frames, and told apart by the three months alone."""

import importlib

import numpy as np
import pytest

from prithvi_hf.data import load_dataset
from tests.docs.pages import ROOT


@pytest.fixture(scope="module")
def fields():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples")  # as Python does for a script
        yield importlib.import_module("synthetic_fields")


def measure_ndvi(scene):
    """Where every month has data: NDVI (months, pixels), and the labels."""
    seen = (scene.mask != 255) & (scene.images[:, 0] > 0).all(axis=0)
    red, nir = (scene.images[:, band][:, seen].astype(float) for band in (2, 3))
    return (nir - red) / (nir + red), scene.mask[seen]


def find_best_threshold(values, labels):
    """Mean IoU of the best threshold, with the irrigated fields above it."""
    scores = []
    for threshold in np.quantile(values, np.linspace(0.02, 0.98, 49)):
        found = values > threshold
        ious = [(found & labels).sum() / (found | labels).sum(), (~found & ~labels).sum() / (~found | ~labels).sum()]
        scores.append(np.mean(ious))
    return max(scores)


def test_the_same_seed_gives_the_same_place(fields):
    one, again, other = (fields.generate_fields(48, 64, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.images, again.images)
    assert np.array_equal(one.mask, again.mask)
    assert not np.array_equal(one.mask, other.mask)
    assert one.images.shape == (3, 6, 48, 64)
    assert set(np.unique(one.mask)) == {0, 1, 255}


def test_no_single_month_separates_the_classes_and_the_course_of_the_year_does(fields):
    parts = [measure_ndvi(fields.generate_fields(96, 96, seed)) for seed in range(6)]
    ndvi = np.concatenate([part for part, _ in parts], axis=1)
    labels = np.concatenate([part for _, part in parts]) == 1
    months = [max(find_best_threshold(sign * month, labels) for sign in (-1, 1)) for month in ndvi]
    assert max(months) < 0.8
    assert find_best_threshold(ndvi[2] - ndvi[0], labels) > 0.9  # greener in August than in June


def test_chips_are_read_as_three_frames(fields, tmp_path):
    root = fields.generate_dataset(tmp_path / "fields", 2, 1, 1, size=32, seed=3)
    options = {"image_suffix": [f"_{month}.tif" for month in fields.MONTHS], "mask_suffix": "_mask.tif"}
    chips = load_dataset("geotiff_folder", root, cache_dir=str(tmp_path / "cache"), **options)
    assert {split: len(rows) for split, rows in chips.items()} == {"train": 2, "validation": 1, "test": 1}
    row = chips["train"][0]
    assert [frame.descriptions[3] for frame in row["image"]] == ["NIR_NARROW"] * 3
    assert row["mask"].nodata == 255
    assert row["image"][0].crs.is_projected
    assert (root / "scene_august.tif").is_file()


def test_sizes_and_seeds_out_of_range_are_refused(fields):
    for arguments in ((16, 64, 0), (64, 64, -1)):
        with pytest.raises(ValueError, match="height and width of 32 or more and seed >= 0"):
            fields.generate_fields(*arguments)
