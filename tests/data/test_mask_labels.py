# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Labels of masks: what their values mean, on the grid of the scene."""

import numpy as np
import pytest
from affine import Affine

from prithvi_hf.data.mask_labels import MaskLabels, is_mask
from prithvi_hf.data.vector_labels import LabelOptions
from prithvi_hf.outputs.cog import write_class_map
from prithvi_hf.rasters.write_geotiff import write_geotiff
from tests.vector_factory import utm_grid


GRID = utm_grid(30, 40)
PLACE = {"crs": GRID.crs, "transform": GRID.transform}


def write(path, values, dtype="uint8", **options):
    write_geotiff(path, np.resize(np.array(values, dtype=dtype), GRID.size), **{**PLACE, **options})
    return path


@pytest.mark.parametrize(
    ("values", "written", "options", "expected", "names"),
    [
        ([0, 1, 2, 255], {}, {}, [0, 1, 2, 255], None),
        ([0, 1, -1], {"dtype": "int16"}, {"ignore_values": ["-1"]}, [0, 1, 255], None),
        ([0, 1, 9], {"nodata": 9}, {}, [0, 1, 255], None),
        ([0, 1, np.nan], {"dtype": "float32"}, {}, [0, 1, 255], None),
        ([0, 255], {}, {"classes": ["0=dry", "255=wet"]}, [0, 1], ("dry", "wet")),
        ([0, 1], {"nodata": 0}, {"classes": ["0=dry", "1=wet"]}, [0, 1], ("dry", "wet")),
        ([10, 20, 30, 0], {"nodata": 0}, {"classes": ["20=b", "10=a", "30=a"]}, [1, 0, 1, 255], ("b", "a")),
    ],
)
def test_values_become_classes(tmp_path, values, written, options, expected, names):
    labels = MaskLabels(write(tmp_path / "m.tif", values, **written), GRID, LabelOptions(**options))
    np.testing.assert_array_equal(labels.read()[0], np.resize(np.array(expected, dtype=np.uint8), GRID.size))
    assert (labels.classes and labels.classes.names) == names


def test_masks_and_maps_of_this_package_say_themselves_what_they_hold(tmp_path):
    values = np.resize(np.array([0, 1, 255], dtype=np.uint8), GRID.size)
    write_class_map(tmp_path / "m.tif", values, id2label={0: "dry", 1: "wet"}, class_values={0: 5, 1: 3}, **PLACE)
    labels = MaskLabels(tmp_path / "m.tif", GRID, LabelOptions())
    assert labels.classes.names == ("wet", "dry")
    np.testing.assert_array_equal(labels.read()[0], np.array([1, 0, 255], dtype=np.uint8)[values.clip(0, 2)])


def test_a_mask_on_another_grid_is_brought_by_the_nearest_pixel_or_refused(tmp_path):
    coarse = np.arange(150, dtype=np.uint8).reshape(10, 15)
    write_geotiff(tmp_path / "m.tif", coarse, crs=GRID.crs, transform=Affine(20, 0, 500_000, 0, -20, 5_000_000))
    labels = MaskLabels(tmp_path / "m.tif", GRID, LabelOptions())
    expected = np.full(GRID.size, 255, dtype=np.uint8)
    expected[:20, :30] = coarse.repeat(2, 0).repeat(2, 1)
    # Where the mask ends its pixels read as 0 and its nodata mask says so.
    np.testing.assert_array_equal(labels.read()[0], expected)
    with pytest.raises(ValueError, match="expected the grid of the scene"):
        MaskLabels(tmp_path / "m.tif", GRID, LabelOptions(), "refuse")


@pytest.mark.parametrize(
    ("values", "dtype", "options", "message"),
    [
        ([0, 300], "int16", {}, "expected the mask values class numbers from 0 on, found 300 too"),
        ([0, -1], "int16", {}, "found -1 too. Add them to classes"),
        ([0, 0.5], "float32", {}, "found 0.5 too"),
        ([0, 1, 7], "uint8", {"classes": ["0=dry", "1=wet"]}, "expected the mask values 0, 1, found 7 too"),
        ([0], "uint8", {"classes": ["dry", "wet"]}, "of whole numbers, found dry, wet"),
        ([0], "uint8", {"attribute": "crop", "all_touched": True}, "a vector file for attribute, all_touched"),
    ],
)
def test_values_and_options_that_mean_nothing_are_refused(tmp_path, values, dtype, options, message):
    path = write(tmp_path / "m.tif", values, dtype)
    with pytest.raises(ValueError, match=message):
        MaskLabels(path, GRID, LabelOptions(**options)).read()


def test_masks_are_known_by_their_content(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"SQLite format 3\0")
    assert is_mask(write(tmp_path / "m.gpkg", [0]))
    assert not is_mask(tmp_path / "a.tif")
    assert not is_mask(tmp_path / "none.tif")
