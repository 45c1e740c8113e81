# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The check of images against the training: eight real chips, each against the other seven."""

import warnings

import numpy as np
import pytest

from prithvi_hf import PrithviImageProcessor
from prithvi_hf.models.prithvi.input_shift_prithvi import FAR, InputShiftWarning, check_input, describe_chips


BANDS = PrithviImageProcessor().bands
# Mean reflectance x 10,000 of eight chips of Sen1Floods11; haze covers the fifth.
REAL = np.array(
    [
        [966, 774, 498, 1759, 837, 366],
        [943, 700, 477, 1017, 542, 270],
        [892, 831, 493, 3261, 1547, 595],
        [954, 936, 615, 3356, 1741, 720],
        [1909, 1798, 1649, 3317, 2466, 1423],
        [920, 897, 572, 3112, 1631, 668],
        [860, 791, 432, 2345, 1014, 401],
        [1270, 1270, 1260, 2130, 1468, 903],
    ],
    dtype=float,
)
HAZY = 4


def hold_against_others(index, change=lambda values: values):
    """Whether the check of a chip, changed, by the other seven warns, and what it gives."""
    processor = PrithviImageProcessor()
    mean, std = np.array(processor.image_mean), np.array(processor.image_std)
    processor.training_statistics = describe_chips((np.delete(REAL, index, axis=0) - mean) / std)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = check_input((change(REAL[index]) - mean) / std, processor, "chip")
    return [str(one.message) for one in caught if one.category is InputShiftWarning], found


def test_of_real_chips_the_hazy_one_alone_is_far_from_the_others():
    assert [index for index in range(8) if hold_against_others(index)[0]] == [HAZY]


@pytest.mark.parametrize("factor", [10, 0.1])
def test_other_units_are_seen_in_every_chip(factor):
    assert all(hold_against_others(index, lambda values: values * factor)[0] for index in range(8))


@pytest.mark.parametrize("order", [[5, 4, 3, 2, 1, 0], [0, 3, 2, 1, 4, 5], [0, 1, 3, 2, 4, 5]])
def test_bands_in_another_order_are_seen_in_every_chip(order):
    assert all(hold_against_others(index, lambda values: values[order])[0] for index in range(8))


def test_the_warning_names_the_bands_their_values_and_what_may_be_wrong():
    ([message], found) = hold_against_others(0, lambda values: values * [1, 1, 1, 4, 1, 1])
    assert message.startswith("chip: expected band means like those of the 7 training chips (|z| up to 3)")
    assert "NIR_NARROW" in message
    assert "mean 7036" in message
    assert "another order (band_map)" in message
    assert list(found) == BANDS
    assert found["NIR_NARROW"]["mean"] == pytest.approx(7036)
    assert found["NIR_NARROW"]["training_mean"] == pytest.approx(REAL[1:, 3].mean(), rel=1e-3)
    assert found["NIR_NARROW"]["z_score"] > FAR


def test_too_few_chips_and_chips_without_data_tell_nothing():
    assert describe_chips(REAL[:4]) is None
    gaps = np.vstack([REAL, np.full((3, 6), np.nan)])
    assert describe_chips(gaps) == describe_chips(REAL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chips": 2}, "the keys chips .at least 5."),
        ({"mean": [1.0]}, "6 numbers in mean, one for each of BLUE"),
        ({"std": [float("nan")] * 6}, "finite numbers in std"),
        ({"other": 1}, "the keys chips"),
    ],
)
def test_statistics_that_a_training_did_not_write_are_refused(tmp_path, change, message):
    good = describe_chips(REAL)
    processor = PrithviImageProcessor(training_statistics=good)
    processor.save_pretrained(tmp_path)
    assert PrithviImageProcessor.from_pretrained(tmp_path).training_statistics == good
    with pytest.raises(ValueError, match=f"training_statistics: expected {message}"):
        PrithviImageProcessor(training_statistics={**good, **change})
