# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Band descriptions to band positions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prithvi_hf.models.prithvi.bands_prithvi import (
    CANONICAL_BANDS,
    SENSOR_BANDS,
    band_key,
    find_band_names,
    is_undescribed,
    parse_band_description,
    resolve_bands,
)


PRITHVI = ["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"]
SEN1FLOODS11 = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
S30 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
L30 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B09", "B10")
LANDSAT_SR = ("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "SR_B7", "ST_B10")


def resolve(descriptions, bands=PRITHVI, band_indices=None, count=None, name="scene.tif"):
    return resolve_bands(descriptions, len(descriptions) if count is None else count, bands, band_indices, name)


@pytest.mark.parametrize(
    ("descriptions", "expected"),
    [
        (SEN1FLOODS11, [1, 2, 3, 8, 11, 12]),
        (S30, [1, 2, 3, 8, 11, 12]),
        (tuple(reversed(S30)), [11, 10, 9, 4, 1, 0]),
        (("B02", "B03", "B04", "B8A", "B11", "B12"), [0, 1, 2, 3, 4, 5]),
        (L30, [1, 2, 3, 4, 5, 6]),
        (("B2", "B3", "B4", "B5", "B6", "B7"), [0, 1, 2, 3, 4, 5]),
        (LANDSAT_SR, [1, 2, 3, 4, 5, 6]),
        (("swir22", "nir08", "swir16", "red", "green", "blue"), [5, 4, 3, 1, 2, 0]),
        (("blue", "green", "red", "NIR", "swir16", "swir22"), [0, 1, 2, 3, 4, 5]),
        (("Blue", "Green", "Red", "nir", "nir08", "SWIR 1", "swir-2"), [0, 1, 2, 4, 5, 6]),
        (("B02 - Blue", "Green (B03)", "Band 4: Red", "B8A 865 nm", "B11_20m", "B12"), [0, 1, 2, 3, 4, 5]),
        (tuple(f"HLS.S30.T10SEH.2018190T184921.v2.0.{code}" for code in S30), [1, 2, 3, 8, 11, 12]),
        (tuple(f"HLS.L30.T10SEH.2018190T184921.v2.0.{code}" for code in L30), [1, 2, 3, 4, 5, 6]),
        (tuple(f"LC08_L2SP_044033_20180709_02_T1_SR_B{i}" for i in range(1, 8)), [1, 2, 3, 4, 5, 6]),
        (("B2 Blue", "B3", "B4", "B8 (NIR)", "B8A (NIR)", "B11", "B12"), [0, 1, 2, 4, 5, 6]),
        ((*PRITHVI, None, "Fmask"), [0, 1, 2, 3, 4, 5]),
    ],
)
def test_bands_are_found_by_name(descriptions, expected):
    assert resolve(descriptions) == expected


def test_b05_is_red_edge_on_sentinel_2_and_near_infrared_on_landsat():
    assert resolve(S30, ["RED_EDGE_1"]) == [4]
    assert resolve(L30, ["GREEN", "NIR_NARROW"]) == [2, 4]


def test_b05_alone_is_read_by_what_is_asked_for_unless_both_readings_hold_it():
    assert resolve(("B2", "B5"), ["BLUE", "NIR_NARROW"]) == [0, 1]
    with pytest.raises(ValueError, match=r"tell the sensor.*B2, B6, B11"):
        resolve(("B2", "B6", "B11"), ["BLUE", "SWIR_1"])


@pytest.mark.parametrize("extra", [("B8",), ("B11",)])
def test_an_incomplete_sentinel_2_stack_is_not_taken_for_landsat(extra):
    with pytest.raises(ValueError, match=r"scene\.tif.*tell the sensor.*band_names"):
        resolve(("B2", "B3", "B4", "B5", "B6", "B7", *extra))


def test_a_landsat_stack_with_thermal_bands_is_read_when_its_descriptions_name_landsat():
    assert resolve((*LANDSAT_SR[:7], "ST_B10", "ST_B11")) == [1, 2, 3, 4, 5, 6]


def test_missing_bands_list_expected_and_found():
    with pytest.raises(ValueError, match=r"scene\.tif: expected the 6 bands BLUE.*found 4 bands.*B02, B03, B04, B08"):
        resolve(("B02", "B03", "B04", "B08"))
    with pytest.raises(ValueError, match=r"no band for NIR_NARROW \("):
        resolve(("B02", "B03", "B04", "B08", "B11", "B12"))


def test_a_band_that_matches_twice_is_an_error():
    with pytest.raises(ValueError, match=r"BLUE: \[blue, B02\]"):
        resolve(("blue", *S30))
    with pytest.raises(ValueError, match="clash"):
        resolve(("green", "nir"), ["NIR_BROAD", "NIR_NARROW"])


def test_custom_bands_are_compared_literally():
    assert resolve(("VH", "vv", "DEM 10 m"), ["VV", "dem_10m"]) == [1, 2]
    assert resolve(S30, ["B05", "B8A"]) == [4, 8]


@pytest.mark.parametrize(
    "descriptions",
    [None, (), (None,) * 6, ("",) * 6, ("Band 1", "band_2", "BAND-3", "band4", "Layer 5", "6"), (None, "Band 2") * 3],
)
def test_a_file_without_descriptions_is_taken_in_order_when_the_count_matches(descriptions):
    assert is_undescribed(descriptions)
    assert resolve(descriptions, count=6) == [0, 1, 2, 3, 4, 5]
    assert resolve(descriptions, count=6, band_indices=[1, 2, 3, 8, 11, 12]) == [0, 1, 2, 3, 4, 5]


def test_a_file_without_descriptions_is_taken_by_band_indices_when_it_has_more_bands():
    assert resolve((None,) * 13, band_indices=[1, 2, 3, 8, 11, 12]) == [1, 2, 3, 8, 11, 12]


def test_generic_names_that_a_narrowed_file_keeps_stay_generic():
    assert resolve(("Band 2", "Band 3", "Band 4", "Band 9", "Band 12", "Band 13")) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("band_indices", [None, [1, 2, 3, 8, 11, 12]])
def test_a_file_without_descriptions_of_another_count_is_an_error(band_indices):
    with pytest.raises(ValueError, match=r"scene\.tif: expected 6 bands \(BLUE, .*\), found 5 bands.*Remedy"):
        resolve((None,) * 5, band_indices=band_indices)


def test_a_stack_of_dates_is_pointed_out():
    with pytest.raises(ValueError, match="num_frames=3"):
        resolve((None,) * 18)


def test_descriptions_must_cover_every_band():
    with pytest.raises(ValueError, match="one description for each of 7 bands, found 6"):
        resolve(PRITHVI, count=7)


@pytest.mark.parametrize("text", ["B02_std", "index 5", "cloud mask", "B2 B3", "reflectance_1"])
def test_doubtful_descriptions_mean_nothing(text):
    label = parse_band_description(text)
    assert label.code is None
    assert label.plain is None


SPELLINGS = [
    lambda number: f"B{number}",
    lambda number: f"b0{number}",
    lambda number: f"Band {number}",
    lambda number: f" b-{number} ",
]


PREFIXES = {
    "Sentinel-2 / HLS S30": "",
    "Landsat 8/9 / HLS L30": "LC09_",
    "Landsat 4/5 TM / Landsat 7 ETM+": "LE07_L2SP_",
}


@settings(max_examples=60, deadline=None)
@given(sensor=st.sampled_from(sorted(PREFIXES)), data=st.data(), spell=st.sampled_from(SPELLINGS))
def test_any_order_and_spelling_of_a_full_sensor_stack_gives_the_same_bands(sensor, data, spell):
    codes = data.draw(st.permutations(list(SENSOR_BANDS[sensor])))
    found = resolve([PREFIXES[sensor] + spell(code[1:].upper()) for code in codes])
    names = [SENSOR_BANDS[sensor][codes[i]] for i in found]
    assert [{"NIR": "NIR_NARROW"}.get(name, name) for name in names] == PRITHVI


def test_keys_ignore_case_padding_and_separators():
    assert {band_key(text) for text in ("B02", "b2", "B 2", "b_002")} == {"b2"}
    assert band_key("SWIR_1") == band_key("swir-1") == "swir1"
    assert band_key("B10") == "b10"


def test_every_table_names_canonical_bands():
    assert {band for table in SENSOR_BANDS.values() for band in table.values()} <= {*CANONICAL_BANDS, "NIR"}


@pytest.mark.parametrize(
    ("wanted", "known", "expected"),
    [
        (["RED", "BLUE"], ["BLUE", "GREEN", "RED"], [2, 0]),
        (["B8A", "B04", "swir 1"], ["NIR_NARROW", "SWIR_1", "RED"], [0, 2, 1]),
        (["NIR_BROAD"], ["NIR_NARROW"], [None]),  # two bands of Sentinel-2
        (["NIR"], ["RED", "NIR_NARROW"], [1]),
        (["NIR_NARROW"], ["NIR", "RED"], [0]),
        (["NIR"], ["NIR_BROAD", "NIR_NARROW"], [None]),
        (["B11"], ["SWIR_1"], [None]),  # thermal on Landsat
        (["B11", "B8A"], ["SWIR_1", "NIR_NARROW"], [0, 1]),
        (["VV", "RED"], ["RED", "vv"], [1, 0]),
        (["ELEVATION"], ["RED"], [None]),
    ],
)
def test_names_of_bands_are_found_by_meaning(wanted, known, expected):
    assert find_band_names(wanted, known) == expected
