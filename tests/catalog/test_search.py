# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Searches in a STAC API on the loopback interface, by pystac-client."""

import datetime
import warnings
from dataclasses import replace

import pytest

from prithvi_hf.catalog import search
from prithvi_hf.catalog.access import Credentials
from prithvi_hf.catalog.providers import Source
from prithvi_hf.catalog.search import choose_items, parse_bbox, parse_dates, read_item, search_items
from tests.catalog_server import TOKEN, find_bbox


JUNE = (datetime.date(2021, 6, 1), datetime.date(2021, 6, 30))
HLS = ("HLSL30_2.0", "HLSS30_2.0")


def search_in(catalog, boxes=None, dates=JUNE, collections=HLS, **environment):
    source = Source(catalog.stac, collections)
    return search_items(source, Credentials(source, environment), boxes or parse_bbox(find_bbox()), dates)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2022-06-01/2022-06-30", (2022, 6, 1), (2022, 6, 30)),
        ("2022-06-14", (2022, 6, 14), (2022, 6, 14)),
        ("2024-02", (2024, 2, 1), (2024, 2, 29)),
        (" 2021-12/2022-02 ", (2021, 12, 1), (2022, 2, 28)),
    ],
)
def test_dates_are_days_or_months(text, first, last):
    assert parse_dates(text) == (datetime.date(*first), datetime.date(*last))


@pytest.mark.parametrize(
    "text", ["", "2022", "2022-06-31", "2022-13", "06/2022", "2022-06-01/..", "a/b", "2022-1-1/2/3"]
)
def test_dates_of_other_forms_are_refused(text):
    with pytest.raises(ValueError, match="dates: expected FROM/TO or one date, such as 2022-06-01/2022-06-30"):
        parse_dates(text)


def test_dates_come_in_their_order():
    with pytest.raises(ValueError, match=r"the earlier date first, found '2022-07/2022-06'. Exchange the two"):
        parse_dates("2022-07/2022-06")


def test_a_box_across_the_antimeridian_becomes_two():
    assert parse_bbox([1, 2, 3, 4]) == ((1, 2, 3, 4),)
    assert parse_bbox([179.5, -17, -179.5, -16]) == ((179.5, -17, 180, -16), (-180, -17, -179.5, -16))
    assert parse_bbox([179.5, -17, -180, -16]) == ((179.5, -17, 180, -16),)


@pytest.mark.parametrize(
    ("bbox", "message"),
    [
        ([1, 2, 3], "Give four numbers"),
        ([1, float("nan"), 3, 4], "Give four numbers"),
        ([1, 4, 3, 2], "Give the southern edge first"),
        ([1, 2, 1, 4], "Give a box with an area"),
        ([1, 2, 181, 4], "Correct them"),
        ([500_000, 4_000_000, 600_000, 4_100_000], "Are these metres of a projection"),
    ],
)
def test_boxes_that_cannot_be_are_refused(bbox, message):
    with pytest.raises(ValueError, match=rf"bbox: expected west, south, east and north .*{message}"):
        parse_bbox(bbox)


def test_every_page_is_read_and_every_item_comes_once(catalog):
    for day in range(1, 8):
        catalog.add_hls((2021, 6, day))
    catalog.add_hls((2021, 7, 1))
    catalog.page = 3
    found = search_in(catalog)
    assert [item["id"][19:22] for item in found] == ["152", "153", "154", "155", "156", "157", "158"]
    assert len(catalog.searches) == 3
    twice = parse_bbox(find_bbox()) * 2
    assert len(search_in(catalog, twice)) == 7


def test_a_search_is_tried_again_and_then_told(catalog):
    catalog.add_hls((2021, 6, 24))
    catalog.faults["search"] = [429, 503]
    assert len(search_in(catalog)) == 1
    catalog.always["search"] = 403
    with pytest.raises(OSError, match=r"found status 403 .* put one into the environment as STAC_TOKEN"):
        search_in(catalog)


def test_a_server_that_is_no_stac_api_or_not_there_is_named(catalog):
    (catalog.folder / "page").write_text("<html></html>")
    (catalog.folder / "json").write_text('{"type": "FeatureCollection"}')
    for name in ("page", "json"):
        source = Source(f"{catalog.address}/files/{name}", HLS)
        with pytest.raises(ValueError, match=rf"/files/{name}: expected a STAC API that can be searched"):
            search_items(source, Credentials(source, {}), parse_bbox(find_bbox()), JUNE)
    source = Source(f"{catalog.address}/files/none", HLS)
    with pytest.raises(OSError, match="expected the answer of a STAC API, found status 404"):
        search_items(source, Credentials(source, {}), parse_bbox(find_bbox()), JUNE)


def test_pages_without_end_are_left(catalog, monkeypatch):
    monkeypatch.setattr(search, "MAX_ITEMS", 4)
    for day in range(1, 8):
        catalog.add_hls((2021, 6, day))
    catalog.page = 1
    with pytest.raises(ValueError, match="expected at most 4 items, found more"):
        search_in(catalog)
    assert len(catalog.searches) <= 6


def test_the_token_goes_to_the_api(catalog):
    search_in(catalog, STAC_TOKEN=TOKEN)
    assert {headers["Authorization"] for _, _, headers in catalog.requests} == {f"Bearer {TOKEN}"}


def test_items_of_the_three_products_are_read(catalog):
    hls = read_item(catalog.add_hls((2021, 6, 24), clouds=12))
    assert (hls.folder, hls.sensor, hls.cloud_cover) == (hls.id, "HLS S30", 12)
    assert {file.layer.layer for file in hls.files} >= {"B02", "B8A", "Fmask"}
    assert hls.address.endswith(hls.id)
    landsat = read_item(catalog.add_landsat("2021-06-20"))
    assert (landsat.sensor, landsat.platform) == ("Landsat LC08", "landsat-8")
    sentinel2 = read_item(catalog.add_sentinel2("2021-06-22"))
    assert (sentinel2.sensor, sentinel2.processing_version) == ("Sentinel-2 MSI", "05.09")
    [blue] = [file for file in sentinel2.files if file.layer.layer == "B02"]
    assert blue.href.offsets == (-0.1,)
    assert blue.name == "B02.tif"


def test_addresses_may_be_relative_to_that_of_the_item(catalog):
    item = catalog.add_hls((2021, 6, 24))
    absolute = [file.href.path for file in read_item(item).files]
    for asset in item["assets"].values():
        asset["href"] = asset["href"].replace(catalog.address, "../../../..")
    assert [file.href.path for file in read_item(item).files] == absolute
    with pytest.raises(ValueError, match="expected GeoTIFFs at http addresses"):
        read_item({**item, "links": []})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": None}, "expected a STAC item with id"),
        ({"assets": []}, "expected a STAC item with id"),
        ({"properties": {}}, "expected a date in the item"),
        ({"properties": {"datetime": "yesterday"}}, "dates: expected a date"),
        ({"assets": {"x": {"href": "https://a.org/x.tif"}}}, "named as layers of HLS, Sentinel-2 or Landsat, found x"),
        ({"assets": {}}, "found no assets"),
    ],
)
def test_items_that_cannot_be_used_say_why(catalog, change, message):
    item = {**catalog.add_hls((2021, 6, 24)), **change}
    with pytest.raises(ValueError, match=message):
        read_item(item)


def test_names_of_a_catalog_become_plain_ones(catalog):
    item = catalog.add_sentinel2("2021-06-22")
    for asset in item["assets"].values():
        asset["href"] += "?../../x"
    found = read_item({**item, "id": "../../etc/S2A_10SGJ_20210622_0_L2A"})
    assert "/" not in found.folder
    assert not found.folder.startswith(".")
    assert all("/" not in file.name for file in found.files)


def test_the_clearest_days_are_chosen_with_all_their_tiles(catalog):
    boxes = parse_bbox(find_bbox())
    items = [read_item(catalog.add_hls((2021, 6, day), clouds=clouds)) for day, clouds in ((1, 50), (2, 5), (3, 80))]
    items.append(
        replace(
            items[1],
            id="other tile",
            files=(replace(items[1].files[0], layer=replace(items[1].files[0].layer, granule="other")),),
        )
    )
    every, _ = choose_items(items, boxes)
    assert [(one.day.day, len(one.items)) for one in every] == [(1, 1), (2, 2), (3, 1)]
    best, left_out = choose_items(items, boxes, best=1)
    assert [one.day.day for one in best] == [2]
    assert set(left_out.values()) == {"not among the best"}
    clear, left_out = choose_items([*items, replace(items[0], id="none", cloud_cover=None)], boxes, max_cloud=50)
    assert [one.day.day for one in clear] == [1, 2]
    assert left_out == {items[2].id: "cloud cover 80 %", "none": "cloud cover unknown"}
    for options, message in (({"max_cloud": 101}, "expected percent"), ({"best": 0}, "expected at least 1")):
        with pytest.raises(ValueError, match=message):
            choose_items(items, boxes, **options)


def test_a_day_that_covers_little_of_the_box_is_not_the_best(catalog):
    whole = read_item(catalog.add_hls((2021, 6, 1), clouds=40))
    west, south, east, north = find_bbox()
    ring = [[west, south], [west + (east - west) / 4, south], [west + (east - west) / 4, north], [west, north]]
    edge = read_item(catalog.add_hls((2021, 6, 2), clouds=0))
    edge = replace(edge, geometry={"type": "Polygon", "coordinates": [[*ring, ring[0]]]})
    found, _ = choose_items([whole, edge], parse_bbox(find_bbox()))
    assert [one.clear for one in found] == pytest.approx([0.6, 0.25], abs=0.03)


def test_the_newest_version_of_a_granule_is_taken(catalog):
    old = read_item(catalog.add_sentinel2("2021-06-22"))
    new = replace(old, id="new", processing_version="05.11")
    [found], left_out = choose_items([new, old], parse_bbox(find_bbox()))
    assert found.items == (new,)
    assert left_out == {old.id: "another version of new"}


@pytest.mark.parametrize("geometry", [None, {}, "POLYGON", {"type": "Polygon", "coordinates": []}])
def test_an_item_without_a_geometry_counts_as_one_that_covers_the_box(catalog, geometry):
    item = read_item({**catalog.add_hls((2021, 6, 1), clouds=40), "geometry": geometry})
    with warnings.catch_warnings(action="error"):  # not as a mark: what other tests left may be collected meanwhile
        [found], _ = choose_items([item], parse_bbox(find_bbox()), best=1)
    assert found.clear == pytest.approx(0.6)
