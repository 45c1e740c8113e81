# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Dates and places as a model takes them: what is read, what is unknown, and what cannot be."""

import datetime
import warnings

import numpy as np
import pytest
import torch

from prithvi_hf.models.prithvi.coordinates_prithvi import (
    CoordinatesWarning,
    check_coordinates,
    encode_dates,
    encode_location,
)
from tests.scene_factory import scene_pixels, tiny_processor, write_scene


NAN = float("nan")
EAST = datetime.timezone(datetime.timedelta(hours=10))


@pytest.mark.parametrize(
    "day",
    [
        "2021-06-24",
        "2021-06-24T23:59:00Z",
        datetime.date(2021, 6, 24),
        datetime.datetime(2021, 6, 25, 9, tzinfo=EAST),  # the day before in UTC
        np.datetime64("2021-06-24T10:00:00.000000000"),
        (2021, 175),
        np.array([2021, 175]),
        torch.tensor([2021.0, 175.0]),
    ],
    ids=str,
)
def test_every_form_of_a_date_is_one_day(day):
    assert encode_dates([day], first_day_of_year=1).tolist() == [[2021, 175]]
    assert encode_dates(day, first_day_of_year=1).dtype == np.float32


def test_the_first_day_of_the_year_is_an_option_and_leap_years_are_longer():
    assert encode_dates(["2020-01-01", "2020-12-31"], 2).tolist() == [[2020, 0], [2020, 365]]
    assert encode_dates(["2020-01-01", "2021-12-31"], 2, first_day_of_year=1).tolist() == [[2020, 1], [2021, 365]]


@pytest.mark.parametrize("unknown", [None, "none", "", NAN, np.datetime64("NaT"), (NAN, NAN), (2021, None)], ids=str)
def test_an_unknown_date_is_not_a_number(unknown):
    pairs = encode_dates([unknown, "2021-02-01"], 2)
    assert np.isnan(pairs[0]).any()
    assert pairs[1].tolist() == [2021, 31]
    assert np.isnan(encode_dates(None, 3)).all()


@pytest.mark.parametrize(
    ("days", "first", "message"),
    [
        ((2021, 0), 1, "from 1 to 365, found 0"),
        ((2021, 366), 1, "day of the year 2021 from 1 to 365, found 366"),
        ((2020, 367), 1, "from 1 to 366, found 367"),
        ((2020, 366), 0, "from 0 to 365, found 366"),
        ((0, 10), 0, "a year from 1900 to 2099, found 0"),
        ((20, 10), 0, "found 20"),
        ((20210, 10), 0, "found 20210"),
        ((175, 2021), 0, "found 175. Give year and day of the year, in this order"),
        ("0020-06-24", 0, "found 20"),
        ("24.06.2021", 0, "expected a date such as 2021-06-24, found '24.06.2021'"),
        ("2021-02-29", 0, "expected a date such as"),
        (20210624, 0, "expected a date such as"),
        (["2021-06-24", "2021-07-24"], 0, "a date for each of 1 frame.*, found 2"),
    ],
)
def test_dates_that_cannot_be_are_refused(days, first, message):
    with pytest.raises(ValueError, match=message):
        encode_dates(days, first_day_of_year=first)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ((-120.6, 39.7), "found -120.6 and 39.7. They look swapped: give the latitude first"),
        ((91, 200), "found 91 and 200. Check the place, or its CRS"),
        ((39.7, 239.4), "found 39.7 and 239.4"),
        ((39.7,), "expected latitude and longitude, found 1 numbers"),
    ],
)
def test_places_that_cannot_be_are_refused(place, message):
    with pytest.raises(ValueError, match=message):
        encode_location(place)


def test_places_at_the_borders_and_unknown_ones():
    assert encode_location((-90, 180)).tolist() == [-90, 180]
    for unknown in (None, (None, None), (39.7, NAN), (NAN, 400)):
        assert np.isnan(encode_location(unknown)).all()


def test_a_batch_of_either_base_passes_and_what_cannot_be_does_not():
    check_coordinates({"temporal_coords": torch.tensor([[[2021.0, 0], [2021, 365]], [[NAN, NAN], [2020, 366]]])})
    with pytest.raises(ValueError, match="from 0 to 365, found 366"):
        check_coordinates({"temporal_coords": torch.tensor([[2021.0, 366]])})
    with pytest.raises(ValueError, match="look swapped"):
        check_coordinates({"location_coords": torch.tensor([[10.0, 10], [170, 10]])})


def test_the_image_processor_gives_the_arguments_of_a_model():
    batch = [scene_pixels(32, 32), scene_pixels(32, 32)]
    processor = tiny_processor(first_day_of_year=1)
    inputs = processor(batch, dates=["2021-06-24", None], locations=[(39.7, -120.6), None], return_tensors="pt")
    assert torch.equal(inputs["temporal_coords"][0], torch.tensor([[2021.0, 175]]))
    assert inputs["temporal_coords"].shape == (2, 1, 2)
    assert inputs["location_coords"][0].tolist() == pytest.approx([39.7, -120.6])
    assert inputs["temporal_coords"][1].isnan().all()
    assert inputs["location_coords"][1].isnan().all()
    alone = processor(batch[0], dates="2021-06-24", first_day_of_year=0, return_tensors="np")
    assert alone["temporal_coords"].tolist() == [[[2021, 174]]]
    assert "location_coords" not in alone
    assert set(processor(batch[0])) == {"pixel_values"}
    frames = tiny_processor(num_frames=2)
    with pytest.warns(CoordinatesWarning, match="frames in time order"):
        frames((batch[0], batch[1]), dates=["2021-06-24", "2021-06-01"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frames((batch[0], batch[1]), dates=["2020-12-31", "2021-01-01"])
    with pytest.raises(ValueError, match="dates: expected one entry for each of 2 images, found 1"):
        processor(batch, dates=["2021-06-24"])
    with pytest.raises(ValueError, match="first_day_of_year"):
        tiny_processor(first_day_of_year=2)


def test_a_place_that_the_crs_contradicts_is_refused(tmp_path):
    path = write_scene(tmp_path / "scene.tif")  # at 14.5 south, 63.9 west
    found = tiny_processor()(path, locations=(-14.6, -63.6), return_tensors="pt")["location_coords"]
    assert found.tolist() == [pytest.approx([-14.6, -63.6])]
    for wrong in ((-63.9, -14.5), (14.5, -63.9)):
        with pytest.raises(ValueError, match=r"near those that its CRS gives, \[-14.*Give the latitude first"):
            tiny_processor()(path, locations=wrong)
