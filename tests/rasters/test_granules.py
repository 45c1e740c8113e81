# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Names of HLS and Sentinel-2 files, and granules made of files."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prithvi_hf.models.prithvi.configuration_prithvi import PRITHVI_BANDS
from prithvi_hf.rasters.granules import group_granules, list_geotiffs, parse_layer, parse_name
from tests.granule_factory import HLS_CODES, PRODUCT, write_hls_granule


TILES = st.from_regex(r"\A[0-6][0-9][C-X][A-Z]{2}\Z")


TIMES = st.datetimes(datetime.datetime(2013, 4, 1), datetime.datetime(2030, 12, 31)).map(
    lambda time: time.replace(microsecond=0, tzinfo=datetime.UTC)
)


@given(st.sampled_from(["L30", "S30"]), TILES, TIMES, st.sampled_from(["B01", "B8A", "B12", "Fmask", "SZA", "VAA"]))
def test_published_names_say_sensor_tile_time_and_layer(sensor, tile, time, layer):
    granule = f"HLS.{sensor}.T{tile}.{time:%Y%jT%H%M%S}.v2.0"
    for suffix in ("", ".tif", ".TIF", ".tiff", ".subset.tif"):
        name = parse_name(f"/data/HLS.S30.T01AAA.2020001T000000.v2.0/{granule}.{layer}{suffix}")
        assert (name.sensor, name.tile, name.date) == (sensor, tile, time)
        assert (name.layer, name.granule) == (layer, granule)


@pytest.mark.parametrize("sensor", ["S30", "L30"])
def test_codes_mean_the_bands_of_their_sensor(sensor):
    found = {code: parse_name(f"HLS.{sensor}.T10SEH.2021175T184921.v2.0.{code}.tif").band for code in _CODES}
    assert {band: code for code, band in found.items() if band in PRITHVI_BANDS} == HLS_CODES[sensor]
    assert found["B05"] == {"S30": "RED_EDGE_1", "L30": "NIR_NARROW"}[sensor]
    assert found["B09"] == {"S30": "WATER_VAPOR", "L30": "CIRRUS"}[sensor]
    assert found["Fmask"] is None


_CODES = [*(f"B{number:02}" for number in range(1, 13)), "B8A", "Fmask"]


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("subsetted_512x512_HLS.S30.T10SEH.2018190.v1.4_merged.tif", (2018, 7, 9)),
        ("HLS.L30.T10SEH.2020366T000000.v2.0.tif", (2020, 12, 31)),
        ("HLS.L30.T10SEH.2020060.v2.0.stack.tif", (2020, 2, 29)),
    ],
)
def test_names_of_stacks_say_the_date_and_no_layer(name, day):
    assert parse_name(name).layer is None
    assert parse_layer(name) is None
    assert parse_name(name).date.date() == datetime.date(*day)


@pytest.mark.parametrize(
    "name", ["scene.tif", "HLS.S2.T10SEH.2018190.v2.0.B02.tif", "HLS.tif", "HLS.S30.T10SEH.B02.tif", "B02.tif"]
)
def test_other_names_say_nothing(name):
    assert parse_name(name) is None


@pytest.mark.parametrize("day", ["2021366T000000", "2021000T000000", "2021100T250000"])
def test_days_that_do_not_exist_are_refused(day):
    with pytest.raises(ValueError, match="the day of the year"):
        parse_name(f"HLS.S30.T10SEH.{day}.v2.0.B02.tif")


def test_files_are_grouped_by_granule_and_ordered_by_time(tmp_path):
    for sensor, day in (("S30", (2021, 8, 23)), ("L30", (2021, 7, 18)), ("S30", (2021, 6, 24))):
        write_hls_granule(tmp_path, sensor, day, folder=False)
    (tmp_path / "._HLS.S30.T10SGJ.2021175T184921.v2.0.B02.tif").write_bytes(b"x")
    (tmp_path / "notes.tif").write_bytes(b"x")
    files = list_geotiffs(tmp_path)
    assert len(files) == 31
    granules = group_granules(filter(parse_layer, files))
    assert [(granule.date.month, len(granule.files)) for granule in granules] == [(6, 11), (7, 8), (8, 11)]
    assert granules[0].files[-1].path.endswith("Fmask.tif")
    assert {granule.tile for granule in granules} == {"10SGJ"}


def test_two_files_of_one_layer_and_other_names_are_refused(tmp_path):
    name = "HLS.S30.T10SGJ.2021175T184921.v2.0.B02.tif"
    with pytest.raises(ValueError, match=r"expected one file of each layer, found a/.* and b/"):
        group_granules([f"a/{name}", f"b/{name}"])
    with pytest.raises(
        ValueError, match=r"scene.tif: expected the name of a file of one HLS, Sentinel-2 or Landsat layer"
    ):
        group_granules([f"a/{name}", "scene.tif"])


@pytest.mark.parametrize(
    ("path", "tile", "layer", "resolution"),
    [
        ("T31TFJ_20220315T105751_B8A_20m.tif", "31TFJ", "B8A", 20),
        ("T31TFJ_20220315T105751_B02.tif", "31TFJ", "B02", None),
        ("L2A_T31TFJ_20220315T105751_SCL_20m.tiff", "31TFJ", "SCL", 20),
        (f"{PRODUCT.format(baseline='0400')}.SAFE/a/T10SGJ_20220315T184921_B11_20m.tif", "10SGJ", "B11", 20),
        (f"x/{PRODUCT.format(baseline='0301')}_B04_10m.tif", "10SGJ", "B04", 10),
        ("S2B_1CDE_20220315_0_L2A/B12.tif", "01CDE", "B12", None),
        ("https://example.org/S2B_31TFJ_20220315_0_L1C/B12.tif?key=1", "31TFJ", "B12", None),
    ],
)
def test_sentinel2_names_say_tile_layer_and_resolution(path, tile, layer, resolution):
    name = parse_name(path)
    assert (name.product, name.tile, name.layer, name.resolution) == ("Sentinel-2", tile, layer, resolution)
    assert name.date.date() == datetime.date(2022, 3, 15)


@pytest.mark.parametrize("path", ["B02.tif", "scene_B02.tif", "T31TFJ_20220315T105751_B02_15m.tif", "T31TFJ_B02.tif"])
def test_names_of_other_files_are_not_those_of_a_band(path):
    assert parse_name(path) is None
