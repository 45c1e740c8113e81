# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What STAC items state of their assets; whole items are read in `tests/scenes/test_scene_list.py`."""

import pytest

from prithvi_hf.rasters.stac_assets import escape, is_band, is_imagery, state_asset


SENTINEL_2 = {"constellation": "sentinel-2", "s2:processing_baseline": "05.09"}


@pytest.mark.parametrize(
    ("asset", "expected"),
    [
        ({"href": "a/B04.tif"}, True),
        ({"href": "a/B04.tif?sig=1", "type": "application/octet-stream"}, True),
        ({"href": "a/B04", "type": "image/vnd.stac.geotiff; cloud-optimized=true"}, True),
        ({"href": "a/B04.jp2", "type": "image/jp2"}, False),
        ({"href": "a/B04.tif", "roles": ["thumbnail"]}, False),
        ({"href": "a/B04.xml"}, False),
        ({"href": 3}, False),
        ("a/B04.tif", False),
    ],
)
def test_imagery_is_told_by_media_type_and_role_and_else_by_name(asset, expected):
    assert is_imagery(asset) is expected


def test_the_offset_of_sentinel_2_is_stated_once_whoever_applied_it():
    asset = {"href": "B04.tif", "raster:bands": [{"scale": 0.0001, "offset": -0.1, "nodata": 0}]}
    stated = state_asset("red", asset, SENTINEL_2, "B04.tif", "item")
    assert (stated.scales, stated.offsets, stated.nodata) == ((0.0001,), (-0.1,), 0.0)
    applied = {**SENTINEL_2, "earthsearch:boa_offset_applied": True}
    assert state_asset("red", asset, applied, "B04.tif", "item").offsets == (0.0,)
    before = {**SENTINEL_2, "s2:processing_baseline": "03.01"}
    with pytest.raises(ValueError, match=r"item: expected the offset 0 of its processing baseline, found -0.1 in red"):
        state_asset("red", asset, before, "B04.tif", "item")


def test_names_of_bands_and_texts_of_any_bytes():
    names = ["nir08", "B8A", "scl", None]
    assert [is_band(name) for name in names] == [True, True, False, False]
    assert escape("B04\udcff") == "B04\\udcff"
