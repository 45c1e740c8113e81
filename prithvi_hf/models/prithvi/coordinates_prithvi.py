# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Dates and places as the model takes them: `temporal_coords` and `location_coords`, NaN where nothing tells."""

import calendar
import datetime
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .pixel_values_prithvi import as_frames


_YEARS = (1900, 2099)
_NEAR = 2.0  # degrees between a place that is given and the centre that a CRS gives
_NAMES = {"temporal_coords": "date", "location_coords": "place"}


class CoordinatesWarning(UserWarning):
    """Dates or places that a model takes and nothing tells, or dates in another order than that of time."""


def parse_date(value: Any) -> datetime.datetime | None:
    """Read a date, datetime, `numpy.datetime64` or ISO text as a datetime in UTC; None where it says that none is.

    A time without a zone is taken for UTC.

    Raises:
        ValueError: anything else.
    """
    found = value
    if isinstance(value, np.datetime64):
        value = None if np.isnat(value) else value.astype("datetime64[s]").item()
    if isinstance(value, str) and value.strip().lower() in ("", "none", "nan", "nat"):
        value = None
    if value is None or value != value:  # pandas' NaT and NaN
        return None
    try:
        value = datetime.datetime.fromisoformat(value) if isinstance(value, str) else value
        if not isinstance(value, datetime.datetime):
            value = datetime.datetime.combine(value, datetime.time())
    except (TypeError, ValueError) as error:
        raise ValueError(f"dates: expected a date such as 2021-06-24, found {found!r}.") from error
    return value.replace(tzinfo=datetime.UTC) if value.tzinfo is None else value.astimezone(datetime.UTC)


def encode_dates(dates: Any, num_frames: int = 1, first_day_of_year: int = 0, name: str = "dates") -> np.ndarray:
    """Give the `temporal_coords` of one image: year and day of the year of each frame.

    Args:
        dates: one date for each frame in a list, or a single one: what [`parse_date`] reads, or (year, day of the
            year) as numbers. None, alone or for a frame, is an unknown date.
        num_frames: frames of the image.
        first_day_of_year: what 1 January counts as, 0 or 1.
        name: what messages call the image.

    Returns:
        float32 (num_frames, 2); both numbers are NaN for an unknown date.

    Raises:
        ValueError: another number of dates, or a date that cannot be.
    """
    if dates is None:
        return np.full((num_frames, 2), np.nan, dtype=np.float32)
    if isinstance(dates, torch.Tensor):
        dates = dates.double().numpy()
    if isinstance(dates, np.ndarray):
        dates = list(dates) if dates.ndim else [dates[()]]
    days = list(dates) if isinstance(dates, list | tuple) else [dates]
    if len(days) == 2 and all(isinstance(number, int | float | np.number) for number in days):
        days = [days]  # year and day of the year of one frame
    if len(days) != num_frames:
        raise ValueError(
            f"{name}: expected a date for each of {num_frames} frame(s), found {len(days)}. Give one date per frame, "
            "in their order, and None where it is not known."
        )
    pairs = np.full((num_frames, 2), np.nan, dtype=np.float32)
    for pair, day in zip(pairs, days, strict=True):
        if isinstance(day, list | tuple | np.ndarray | torch.Tensor) and len(day) == 2:  # year and day of the year
            pair[:] = [np.nan if number is None else float(number) for number in day]
        elif (date := parse_date(day)) is not None:
            pair[:] = date.year, date.timetuple().tm_yday - 1 + first_day_of_year
    check_coordinates({"temporal_coords": pairs}, first_day_of_year, name)
    return pairs


def encode_location(location: Sequence[float | None] | None, name: str = "location") -> np.ndarray:
    """Give the `location_coords` of one image, float32 (2,), of latitude and longitude in degrees (WGS 84).

    None, alone or for one of them, and NaN are an unknown place, both NaN.

    Raises:
        ValueError: it is not a latitude and a longitude.
    """
    if location is None:
        return np.full(2, np.nan, dtype=np.float32)
    pair = np.array([np.nan if number is None else float(number) for number in location], dtype=np.float32)
    if pair.shape != (2,):
        raise ValueError(f"{name}: expected latitude and longitude, found {len(pair)} numbers.")
    pair = pair if np.isfinite(pair).all() else np.full_like(pair, np.nan)
    check_coordinates({"location_coords": pair}, name=name)
    return pair


def check_coordinates(
    coordinates: Mapping[str, Any], first_day_of_year: int | None = None, name: str = "coordinates"
) -> None:
    """Refuse years, days, latitudes and longitudes that cannot be; NaN passes.

    Args:
        coordinates: some of `temporal_coords` (..., 2) and `location_coords` (..., 2), on the CPU.
        first_day_of_year: what 1 January counts as; None where both 0 and 1 may be meant.
        name: what messages call them.

    Raises:
        ValueError: a year before 1900 or after 2099, a day that this year does not have, or a place that is not on
            Earth; latitude and longitude that look swapped are told so.
    """
    for year, day in _list_known(coordinates.get("temporal_coords")):
        if not (_YEARS[0] <= year <= _YEARS[1] and year == int(year)):
            raise ValueError(
                f"{name}: expected a year from {_YEARS[0]} to {_YEARS[1]}, found {year:g}. Give year and day of the "
                "year, in this order, or NaN where they are not known."
            )
        first, last = first_day_of_year or 0, 365 + calendar.isleap(int(year)) - 1
        last += 1 if first_day_of_year is None else first_day_of_year
        if not first <= day <= last:
            raise ValueError(
                f"{name}: expected a day of the year {year:g} from {first} to {last}, found {day:g}. 1 January counts "
                "as the image processor's first_day_of_year says; give NaN where a date is not known."
            )
    for latitude, longitude in _list_known(coordinates.get("location_coords")):
        if abs(latitude) > 90 or abs(longitude) > 180:
            swapped = abs(latitude) <= 180 and abs(longitude) <= 90
            raise ValueError(
                f"{name}: expected a latitude from -90 to 90 and a longitude from -180 to 180 degrees, found "
                f"{latitude:g} and {longitude:g}. "
                + ("They look swapped: give the latitude first." if swapped else "Check the place, or its CRS.")
            )


def check_location(image: Any, location: np.ndarray, name: str) -> None:
    """Refuse a latitude and longitude that is not where the CRS of an image, if it has one, puts its centre."""
    first: Any = as_frames(image[0] if isinstance(image, list | tuple) else image)[0]
    if getattr(first, "crs", None) is None or not np.isfinite(location).all():
        return
    try:
        from prithvi_hf.rasters.raster import find_center
    except ImportError:  # then the raster, of another package, is all that knows its CRS
        return
    center = np.array(find_center(first.crs, first.transform, (0, 0, *first.shape[-2:]), name))
    apart = np.abs(location - center) % 360
    if np.minimum(apart, 360 - apart).max() > _NEAR:
        raise ValueError(
            f"{name}: expected its latitude and longitude near those that its CRS gives, {center.round(3).tolist()}, "
            f"found {location.tolist()} (locations). Give the latitude first, or correct the CRS."
        )


def _list_known(pairs: Any) -> list[list[float]]:
    """List the pairs (..., 2) that are known, each once."""
    if pairs is None:
        return []
    values = torch.as_tensor(pairs, dtype=torch.float64).reshape(-1, 2)
    return values[values.isfinite().all(dim=1)].unique(dim=0).tolist()


def find_unknown(coordinates: Mapping[str, Any]) -> list[str]:
    """Say what is unknown of one image's coordinates, or in part: "date", "place"."""
    return [_NAMES[key] for key, values in coordinates.items() if bool(np.isnan(np.asarray(values)).any())]


def is_in_time_order(temporal_coords: Any) -> bool:
    """Whether the known dates (num_frames, 2) of one image follow each other in time."""
    known = [year * 1000 + day for year, day in np.asarray(temporal_coords, dtype=np.float64) if day == day]
    return known == sorted(known)


def warn_of_unknown(coordinates: Mapping[str, Any], name: str) -> None:
    """Warn of a scene whose date or place, which the model takes, is unknown."""
    for kind in find_unknown(coordinates):
        option, source = ("dates", "its name") if kind == "date" else ("location", "a CRS")
        warnings.warn(
            f"{name}: the model takes the {kind}, which is not known of every frame: this term is left out, as in "
            f"pretraining. Give the option {option}, or a file that tells it by {source}.",
            CoordinatesWarning,
            stacklevel=3,
        )


__all__ = ["CoordinatesWarning"]
