# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Where collections are looked for."""

import pytest

from prithvi_hf.catalog.providers import PLANETARY_COMPUTER_SIGN, PLANETARY_COMPUTER_STAC, choose_source


def test_collections_have_a_catalog_of_their_own():
    hls = choose_source(["hls"])
    assert hls.stac.startswith("https://cmr.earthdata.nasa.gov/")
    assert (hls.collections, hls.sign) == (("HLSL30_2.0", "HLSS30_2.0"), "")
    both = choose_source(["landsat-c2-l2", "sentinel-2-l2a"])
    assert (both.stac, both.sign) == (PLANETARY_COMPUTER_STAC, PLANETARY_COMPUTER_SIGN)
    assert both.collections == ("landsat-c2-l2", "sentinel-2-l2a")


def test_another_catalog_takes_its_own_ids_and_names_stand_for_theirs():
    other = choose_source(["hls", "sentinel-2-c1-l2a"], "https://stac.example.org/v1/")
    assert other.stac == "https://stac.example.org/v1"
    assert other.collections == ("HLSL30_2.0", "HLSS30_2.0", "sentinel-2-c1-l2a")
    assert choose_source(["hls2-s30"], PLANETARY_COMPUTER_STAC).sign == PLANETARY_COMPUTER_SIGN
    assert choose_source(["a"], "http://127.0.0.1:1", "http://127.0.0.1:1/sign").sign == "http://127.0.0.1:1/sign"


@pytest.mark.parametrize(
    ("collections", "options", "message"),
    [
        ([], {}, "Expected at least one collection"),
        (["modis"], {}, "found modis. Name the catalog that has it by --stac"),
        (["hls", "landsat-c2-l2"], {}, "which are in several. Fetch them one after the other"),
        (["hls"], {"stac": "stac.example.org"}, "address of an API as --stac, found 'stac.example.org'"),
        (["hls"], {"stac": "https://[::1"}, "address of an API as --stac"),
        (["hls"], {"stac": "https://me:secret@stac.example.org"}, "without user name and password"),
        (["landsat-c2-l2"], {"sign": "file:///etc/passwd"}, "address of an API as --sign"),
    ],
)
def test_sources_that_cannot_be_are_refused(collections, options, message):
    with pytest.raises(ValueError, match=message) as refused:
        choose_source(collections, **options)
    assert "secret" not in str(refused.value)
