# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Settings and limits of a server."""

from pathlib import Path

import pytest

from prithvi_hf.serving.settings import Limits, Settings


def test_a_tile_of_sentinel_2_is_within_the_default_limits():
    limits = Limits()
    assert limits.pixels >= 10980**2
    assert 10980 < limits.side < 50_000


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_limits_are_numbers_above_0(value):
    with pytest.raises(ValueError, match="--keep_hours"):
        Limits(keep_hours=value)


def test_the_token_is_not_in_the_text_of_the_settings():
    assert "secret" not in repr(Settings("model", Path("work"), token="secret"))
