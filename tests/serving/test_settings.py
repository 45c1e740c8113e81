# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Settings and limits of a server."""

from dataclasses import fields
from pathlib import Path

import pytest

from prithvi_hf.serving.jobs import to_datetime
from prithvi_hf.serving.settings import MOST, Limits, Settings


def test_a_tile_of_sentinel_2_is_within_the_default_limits():
    limits = Limits()
    assert limits.pixels >= 10980**2
    assert 10980 < limits.side < 50_000


@pytest.mark.parametrize("name", [one.name for one in fields(Limits)])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "above 0 for --{}, found 0"),
        (-1.5, "above 0 for --{}, found -1.5"),
        (float("nan"), "above 0 for --{}, found nan"),
        (float("inf"), "of at most 10,000,000 for --{}, found inf"),
        (1e8, r"of at most 10,000,000 for --{}, found 1e\+08"),
    ],
)
def test_each_limit_is_a_number_above_0_that_can_be_counted_with(name, value, message):
    with pytest.raises(ValueError, match=f"^Expected a number {message.format(name)}. Correct it.$"):
        Limits(**{name: value})


def test_the_largest_time_for_which_results_are_kept_ends_on_a_date():
    assert to_datetime(4e9 + 3600 * Limits(keep_hours=MOST).keep_hours).year < 4000


def test_limits_are_counted_in_bytes_and_pixels():
    limits = Limits(max_upload=1.5, max_pixels=0.0101)
    assert (limits.upload_bytes, limits.pixels, limits.side) == (1_500_000, 10_100, 400)


def test_the_token_is_not_in_the_text_of_the_settings():
    assert "secret" not in repr(Settings("model", Path("work"), token="secret"))
