# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Scenes of a place and dates, from a catalog on the loopback interface."""

import pytest

from prithvi_hf.demo.jobs import Limits, Mapper
from prithvi_hf.demo.places import Catalog, read_bbox
from prithvi_hf.demo.sessions import Sessions
from prithvi_hf.rasters.opening import FrameOptions
from tests.catalog_server import catalog, find_bbox  # noqa: F401 - the first one is a fixture
from tests.scene_factory import tiny_model, tiny_processor


BBOX = " ".join(map(str, find_bbox()))


def test_a_place_and_a_month_become_a_map_of_the_clearest_day(catalog, tmp_path):  # noqa: F811
    catalog.add_hls((2021, 6, 24), clouds=60)
    catalog.add_hls((2021, 6, 29), "L30", clouds=10)
    session = Sessions(tmp_path).open("a")
    source = Catalog(("hls",), catalog.stac)
    frames, dates = source.fetch(BBOX, "2021-06", tiny_processor(), session.make_folder("scene"), 1)
    session.choose(frames, "place", dates)
    view = Mapper(tiny_model(), tiny_processor(), Limits()).map(session, FrameOptions())
    assert view.view.scene.grid.size == (34, 44)
    assert view.view.title == "scene, 2021-06-29"


def test_three_periods_are_three_dates(catalog, tmp_path):  # noqa: F811
    for month in (6, 7, 8):
        catalog.add_hls((2021, month, 24))
    source = Catalog(("hls",), catalog.stac)
    frames, dates = source.fetch(BBOX, "2021-06, 2021-07 2021-08-01/2021-08-31", tiny_processor(3), tmp_path / "x", 1)
    assert len(frames) == 3
    assert [date[:10] for date in dates] == ["2021-06-24", "2021-07-24", "2021-08-24"]
    with pytest.raises(ValueError, match="Expected 3 months or spans of days"):
        source.fetch(BBOX, "2021-06", tiny_processor(3), tmp_path / "y", 1)


def test_a_place_that_is_too_large_is_refused_before_anybody_is_asked(tmp_path):
    nobody = "http://127.0.0.1:1"
    with pytest.raises(ValueError, match="at most 16 million pixels, found one of about 3,711 x 7,309"):
        Catalog(("hls",), nobody).fetch("10 9.5 12 10.5", "2021-06", tiny_processor(), tmp_path / "x", 16)
    with pytest.raises(ValueError, match=r"about 11,132 x"):  # pixels of 10 m, across the antimeridian
        Catalog(("sentinel-2-l2a",), nobody).fetch("179 0 -179 1", "2021-06", tiny_processor(), tmp_path / "x", 16)
    with pytest.raises(ValueError, match="million pixels"):
        Catalog(("hls",), nobody).fetch("-180 0 180 1", "2021-06", tiny_processor(), tmp_path / "x", 16)
    assert not (tmp_path / "x").exists()


def test_a_file_that_does_not_come_is_an_error(catalog, tmp_path):  # noqa: F811
    granule = catalog.add_hls((2021, 6, 24))["id"]
    catalog.always[f"{granule}/{granule}.B04.tif"] = 403
    with pytest.raises(OSError, match="found some that the catalog does not give"):
        Catalog(("hls",), catalog.stac).fetch(BBOX, "2021-06", tiny_processor(), tmp_path / "x", 1)


@pytest.mark.parametrize("text", ["", "1 2 3", "a b c d", "1 2 3 4 5"])
def test_four_numbers_are_a_place(text):
    with pytest.raises(ValueError, match="Give four numbers"):
        read_bbox(text)
    assert read_bbox("12.2, 45.3; 12.5 45.5") == [12.2, 45.3, 12.5, 45.5]
