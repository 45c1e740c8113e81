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
    parse_band_map,
    resolve_bands,
)


PRITHVI = ["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"]
SEN1FLOODS11 = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
S30 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
L30 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B09", "B10")
LANDSAT_SR = ("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "SR_B7", "ST_B10")


def resolve(descriptions, bands=PRITHVI, band_indices=None, count=None, name="scene.tif", **options):
    count = len(descriptions) if count is None else count
    return resolve_bands(descriptions, count, bands, band_indices, name, **options)


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


TM_CODES = ("B1", "B2", "B3", "B4", "B5", "B7")
S2_CODES = ("B02", "B03", "B04", "B8A", "B11", "B12")


@pytest.mark.parametrize(
    ("descriptions", "expected"),
    [
        # Landsat 4 to 7, whose B1 is blue and whose B6 is thermal
        (TM_CODES, [0, 1, 2, 3, 4, 5]),
        (("ST_B6", "SR_B7", "SR_B5", "SR_B4", "SR_B3", "SR_B2", "SR_B1"), [6, 5, 4, 3, 2, 1]),
        (tuple(f"LT04_L1TP_170052_19890122_20200916_02_T1_B{i}" for i in range(1, 8)), [0, 1, 2, 3, 4, 6]),
        (tuple(f"Landsat-5 TM band {i}" for i in range(1, 8)), [0, 1, 2, 3, 4, 6]),
        (("B1", "B2", "B3", "B4", "B5", "B6_VCID_1", "B6_VCID_2", "B7", "B8"), [0, 1, 2, 3, 4, 7]),
        (("sr_band1", "sr_band2", "sr_band3", "sr_band4", "sr_band5", "bt_band6", "sr_band7"), [0, 1, 2, 3, 4, 6]),
        (("B1 (Blue)", "B2", "B3", "B4", "B5", "B6", "B7"), [0, 1, 2, 3, 4, 6]),
        (tuple(f"etm_{code}" for code in TM_CODES), [0, 1, 2, 3, 4, 5]),
        # Landsat 8 and 9
        (tuple(f"LO08_L1TP_B{i}" for i in range(1, 10)), [1, 2, 3, 4, 5, 6]),
        (tuple(f"B{i}" for i in range(1, 12)), [1, 2, 3, 4, 5, 6]),
        (("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B9", "B10", "B11", "Fmask"), [1, 2, 3, 4, 5, 6]),
        (tuple(f"SR_B{i}_p25" for i in range(1, 8)), [1, 2, 3, 4, 5, 6]),
        (tuple(f"HLSL30.020_B0{i}_doy2023007_aid0001_32N" for i in range(2, 8)), [0, 1, 2, 3, 4, 5]),
        # Sentinel-2
        (tuple(f"T33UUP_20230416T100559_{code}_20m" for code in S2_CODES), [0, 1, 2, 3, 4, 5]),
        (
            tuple(f"S2B_MSIL1C_20230416T100559_N0509_R022_T33UUP_20230416T121133_{code}" for code in S30),
            [1, 2, 3, 8, 11, 12],
        ),
        (tuple(f"20230416T100559_20230416T100556_T33UUP_{code}" for code in S2_CODES), [0, 1, 2, 3, 4, 5]),
        (tuple(f"{code}_mean" for code in S2_CODES), [0, 1, 2, 3, 4, 5]),
        ((*(f"{code}_stdDev" for code in S2_CODES), *(f"{code}_median" for code in S2_CODES)), [6, 7, 8, 9, 10, 11]),
        (("TCI_R", "TCI_G", "TCI_B", "QA60", *S2_CODES), [4, 5, 6, 7, 8, 9]),
        # plain names, letters and wavelengths
        (("R", "G", "B", "N", "SWIR1", "SWIR2"), [2, 1, 0, 3, 4, 5]),
        (
            ("Band 1 (B)", "Band 2 (G)", "Band 3 (R)", "Band 4 (NIR)", "Band 5 SWIR 1", "Band 6 SWIR 2"),
            [0, 1, 2, 3, 4, 5],
        ),
        (
            ("blue", "green", "red", "Near-Infrared (NIR)", "Short Wave Infrared 1", "Shortwave Infrared 2"),
            [0, 1, 2, 3, 4, 5],
        ),
        (
            ("band 12 (swir 2)", "band 11 (swir 1)", "band 8A (nir)", "red edge", "red", "green", "blue"),
            [6, 5, 4, 2, 1, 0],
        ),
        (
            ("0.483 um", "0.56 \u00b5m", "655 nm", "865.0 Nanometers", "1609nm", "2.201 micrometers"),
            [0, 1, 2, 3, 4, 5],
        ),
        (
            (
                "Band 1 (482 nm)",
                "Band 2 (0.56 um)",
                "655nm",
                "Blue-free 865 nm",
                "0.85-0.88 um",
                "1.57-1.65 um",
                "2.11-2.29 um",
            ),
            [0, 1, 2, 4, 5, 6],
        ),
        (("coastal", "blue", "green", "red", "nir08", "swir16", "swir22", "lwir11", "pan"), [1, 2, 3, 4, 5, 6]),
        (("blue_2021", "green_2021", "red_2021", "nir_2021", "swir1_2021", "swir2_2021"), [0, 1, 2, 3, 4, 5]),
    ],
)
def test_names_of_products_and_tools_are_understood(descriptions, expected):
    assert resolve(descriptions) == expected


@pytest.mark.parametrize(
    ("descriptions", "bands", "message"),
    [
        (tuple(f"B{i}" for i in range(1, 8)), PRITHVI, "tell the sensor.*band_map"),
        (("B01", "B02", "B03", "B04"), ["BLUE", "GREEN", "RED"], "tell the sensor"),
        (("SR_B1", "SR_B2", "SR_B3", "SR_B4"), ["BLUE", "GREEN", "RED"], "tell the sensor"),
        (("SR_B3", "SR_B4"), ["RED", "NIR"], "tell the sensor"),  # the older ones without a word that says so
        (tuple(f"LM05_L1TP_B{i}" for i in range(1, 5)), PRITHVI, "no band for BLUE.*SWIR_1.*MSS"),
        (tuple(f"MOD09A1_sur_refl_b0{i}" for i in range(1, 8)), PRITHVI, "no band for BLUE.*another sensor"),
        (tuple(f"sur_refl_b0{i}" for i in range(1, 8)), PRITHVI, "no band for"),
        (tuple(f"Nadir_Reflectance_Band{i}" for i in range(1, 8)), PRITHVI, "no band for"),
        (tuple(f"B{i}_stdDev" for i in range(1, 8)), PRITHVI, "no band for"),
        (("X", "Y", "R", "G", "B", "N"), ["RED"], "no band for RED"),
        (tuple(f"{500 + i} nm" for i in range(0, 400, 5)), ["RED", "NIR_NARROW"], "clash"),  # hyperspectral
    ],
)
def test_names_that_may_be_other_bands_are_refused(descriptions, bands, message):
    with pytest.raises(ValueError, match=message):
        resolve(descriptions, bands)


def test_an_older_landsat_serves_either_near_infrared():
    assert resolve([f"LE07_{code}" for code in TM_CODES], ["NIR_BROAD", "RED"]) == [3, 2]
    assert resolve([f"LM02_B{i}" for i in range(4, 8)], ["GREEN", "RED", "NIR"]) == [0, 1, 3]


def test_the_other_near_infrared_is_offered_and_not_taken():
    stack = ("B02", "B03", "B04", "B08", "B11", "B12")
    with pytest.raises(ValueError, match=r"B08 is the broad near infrared.*--band_map NIR_NARROW=B08"):
        resolve(stack)
    with pytest.raises(ValueError, match=r"B8A is the narrow near infrared.*--band_map NIR_BROAD=B8A"):
        resolve(S2_CODES, ["RED", "NIR_BROAD"])
    assert resolve(stack, band_map={"NIR_NARROW": "B08"}) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("descriptions", "band_map", "expected"),
    [
        (("a", "b", "c", "d", "e", "f"), dict(zip(PRITHVI, "fedcba", strict=True)), [5, 4, 3, 2, 1, 0]),
        (S30, {"NIR_NARROW": "b8", "swir_1": 10}, [1, 2, 3, 7, 10, 12]),
        (("blue", *S30), {"BLUE": "B2"}, [2, 3, 4, 9, 12, 13]),
        (("blue", "green", "red", "nir", "x", "swir2"), {"SWIR_1": "X"}, [0, 1, 2, 3, 4, 5]),
        ((None,) * 7, dict(zip(PRITHVI, range(6, 0, -1), strict=True)), [6, 5, 4, 3, 2, 1]),
        (tuple(f"B{i}" for i in range(1, 8)), dict(zip(PRITHVI, (0, 1, 2, 3, 4, 6), strict=True)), [0, 1, 2, 3, 4, 6]),
        ((None,) * 6, {"BLUE": 2, "RED": 0}, [2, 1, 0, 3, 4, 5]),
    ],
)
@pytest.mark.filterwarnings("ignore:the bands")
def test_a_band_map_wins_and_the_rest_is_found_as_always(descriptions, band_map, expected):
    assert resolve(descriptions, band_map=band_map) == expected


@pytest.mark.parametrize(
    ("band_map", "message"),
    [
        ({"RED": 13}, "positions below 13 in band_map, found 13"),
        ({"RED": "B99"}, "no band for RED"),
        ({"RED": "B03", "GREEN": "B3"}, "clash"),
    ],
)
def test_a_band_map_that_cannot_be_is_refused(band_map, message):
    with pytest.raises(ValueError, match=message):
        resolve(S30, band_map=band_map)


@pytest.mark.filterwarnings("ignore:the bands")
def test_a_band_map_wins_over_band_indices():
    assert resolve(S30, band_indices=[1, 2, 3, 8, 11, 12], band_map={"NIR_NARROW": "B08"}) == [1, 2, 3, 7, 11, 12]
    assert resolve((None,) * 13, band_indices=[1, 2, 3, 8, 11, 12], band_map={"RED": 9}) == [1, 2, 9, 8, 11, 12]


def test_a_band_map_of_the_command_line_is_read():
    assert parse_band_map(["NIR_NARROW=B08", "SWIR_1=4"]) == {"NIR_NARROW": "B08", "SWIR_1": 4}
    for wrong in (["NIR_NARROW"], ["=B08"], ["RED="], ["RED=B1", "RED=B2"]):
        with pytest.raises(ValueError, match="band_map: expected BAND=DESCRIPTION"):
            parse_band_map(wrong)


@pytest.mark.parametrize(
    "dates",
    [
        ("20210601", "20210701", "20210801"),
        ("2021-11-30", "2022-01-05", "2022-02-01"),
        ("doy2021175", "doy2021191", "doy2022001"),
        ("t1", "t2", "t10"),
        ("0", "1", "2"),
        ("2019", "2020", "2021"),
        ("may", "june", "july"),
        ("20210601T100559", "20210616T100559", "20210701T100559"),
        ("date_1", "date_2", "date_3"),
    ],
)
@pytest.mark.parametrize("form", ["{band}_{date}", "{date}_{band}"])
@pytest.mark.parametrize("names", [S2_CODES, PRITHVI])
def test_dates_of_a_described_stack_are_put_in_order(dates, form, names):
    by_date = [form.format(band=band, date=date) for date in dates for band in names]
    by_band = [form.format(band=band, date=date) for band in names for date in dates]
    assert resolve(by_date, num_frames=3) == list(range(18))
    assert resolve(by_band, num_frames=3) == [band * 3 + date for date in range(3) for band in range(6)]
    if dates != ("may", "june", "july"):  # without a year December may be before January
        assert resolve(by_date[::-1], num_frames=3) == list(range(17, -1, -1))


def test_dates_described_alike_are_in_the_order_of_the_file():
    assert resolve(S2_CODES * 2, num_frames=2) == resolve(PRITHVI * 2, num_frames=2) == list(range(12))
    short = ("BLUE", "GREEN", "RED", "NIR", "SWIR1", "SWIR2")
    assert resolve([f"{name}_{date}" for date in (2, 1) for name in short], num_frames=2) == [*range(6, 12), *range(6)]
    assert resolve([code for code in S2_CODES for _ in range(2)], num_frames=2) == [*range(0, 12, 2), *range(1, 12, 2)]
    assert resolve([f"{i} {code}" for i, code in enumerate(S2_CODES * 2)], num_frames=2) == list(range(12))
    assert resolve(S30 * 2, num_frames=2) == [1, 2, 3, 8, 11, 12, 14, 15, 16, 21, 24, 25]
    assert resolve(S2_CODES, num_frames=3) == [0, 1, 2, 3, 4, 5]  # one of several files


def test_dates_of_two_sensors_are_read_each_by_its_own_codes():
    first = [f"HLS.L30.T10SEH.2021195T184921.v2.0.B0{number}" for number in range(2, 8)]
    second = [f"HLS.S30.T10SEH.2021190T184921.v2.0.{code}" for code in S2_CODES]
    assert resolve([*first, *second], num_frames=2) == [*range(6, 12), *range(6)]
    with pytest.raises(ValueError, match=r"clash.*num_frames=2"):
        resolve([*first, *second])


@pytest.mark.parametrize(
    "dates",
    [
        ("01062021", "15062021", "02072021"),
        ("01-06-2021", "15-06-2021", "02-07-2021"),
        ("november", "december", "january"),
        ("20210601", "20210601", "20210701"),
        ("1_1", "1_2", "2_1"),
        ("s1", "s2", "s3"),  # seasons, or Sentinel-2
    ],
)
def test_dates_whose_order_cannot_be_told_are_refused(dates):
    with pytest.raises(ValueError, match=r"tell their order.*YYYYMMDD"):
        resolve([f"{band}_{date}" for date in dates for band in S2_CODES], num_frames=3)


def test_a_described_stack_of_another_number_of_dates_is_refused():
    with pytest.raises(ValueError, match=r"expected 3 dates of each band \(num_frames\), found 2"):
        resolve(S2_CODES * 2, num_frames=3)
    with pytest.raises(ValueError, match=r"clash.*num_frames=2"):
        resolve(S2_CODES * 2)


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


def test_band_indices_win_over_descriptions_and_say_so():
    with pytest.warns(UserWarning, match=r"positions \[2, 1, 0, 3, 4, 5\].*they would be \[0, 1, 2, 3, 4, 5\]"):
        assert resolve(PRITHVI, band_indices=[2, 1, 0, 3, 4, 5]) == [2, 1, 0, 3, 4, 5]
    assert resolve((None,) * 6, band_indices=[2, 1, 0, 3, 4, 5]) == [2, 1, 0, 3, 4, 5]
    assert resolve((None,) * 12, band_indices=[2, 1, 0, 3, 4, 5], num_frames=2)[6:] == [8, 7, 6, 9, 10, 11]
    assert resolve((None,) * 18, band_indices=[1, 2, 3, 8, 11, 12], num_frames=3) == list(range(18))
    assert resolve(PRITHVI, band_indices=[1, 2, 3, 8, 11, 12]) == [0, 1, 2, 3, 4, 5]  # those of larger files


def test_generic_names_that_a_narrowed_file_keeps_stay_generic():
    assert resolve(("Band 2", "Band 3", "Band 4", "Band 9", "Band 12", "Band 13")) == [0, 1, 2, 3, 4, 5]


def test_generic_names_that_do_not_increase_say_which_bands_they_are():
    assert resolve(("Band 4", "Band 3", "Band 2", "Band 5", "Band 6", "Band 7")) == [2, 1, 0, 3, 4, 5]
    assert resolve([f"Band {i}" for i in range(1, 7)] * 2, num_frames=2) == list(range(12))
    with pytest.raises(ValueError, match="--band_map NIR_NARROW="):
        resolve(("band_4", "band_3", "band_2", "band_8", "band_11", "band_12"))
    with pytest.raises(ValueError, match="no band for BLUE"):
        resolve(("4", "3", "2", "8", "11", "12"))


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


TM, OLI = ("B1", "B2", "B3", "B4", "B5", "B7"), ("B2", "B3", "B4", "B5", "B6", "B7")


@pytest.mark.parametrize(
    ("descriptions", "expected"),
    [
        (
            [f"LE07_044034_20210601_SR_{code}" for code in TM] + [f"LC08_044034_20210508_SR_{code}" for code in OLI],
            [*range(6, 12), *range(6)],
        ),
        (
            [f"LT05_044034_20010601_SR_{code}" for code in TM] + [f"HLS.L30.T10SEH.2018190.{code}" for code in OLI],
            list(range(12)),
        ),
        ([f"{code}{suffix}" for suffix in ("", "_1") for code in (*TM[1:4], "B8A", "B11", "B12")], list(range(12))),
        (
            [f"{code}{suffix}" for code in (*TM[1:4], "B8A", "B11", "B12") for suffix in ("_1", "")],
            [1, 3, 5, 7, 9, 11, 0, 2, 4, 6, 8, 10],
        ),
    ],
)
def test_dates_of_older_and_newer_landsats_and_joined_images_are_told_apart(descriptions, expected):
    assert resolve(descriptions, num_frames=2) == expected


@pytest.mark.parametrize(("scene", "codes"), [("LT50440341999128XXX01", TM), ("LC80440342014128LGN00", OLI)])
def test_scene_names_from_before_the_collections_name_the_sensor(scene, codes):
    assert resolve([f"{scene}_{code}.TIF" for code in codes]) == list(range(6))
