# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Scaling and normalisation in two operations against the formula in double precision."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prithvi_hf.models.prithvi.bands_prithvi import CANONICAL_BANDS
from prithvi_hf.models.prithvi.pixel_values_prithvi import (
    Frame,
    equals_nodata,
    normalize_file_values,
    scale_and_normalize,
)
from prithvi_hf.models.prithvi.processor_options_prithvi import ProcessorOptions, update_options


ROUNDING = 2.0**-24  # of one operation in float32, relative


def numbers(smallest, largest):
    return st.integers(smallest * 1000, largest * 1000).map(lambda number: number / 1000)


@st.composite
def options(draw):
    count = draw(st.integers(1, 3))
    values = {
        "bands": CANONICAL_BANDS[:count],
        "do_rescale": draw(st.booleans()),
        "rescale_factor": draw(st.sampled_from([1.0, 1e-4, 2.75e-5, 0.1, -0.5])),
        "rescale_offset": draw(st.sampled_from([0.0, -0.1, -0.2, 273.15])),
        "do_normalize": draw(st.booleans()),
        "image_mean": draw(st.lists(numbers(-3000, 3000), min_size=count, max_size=count)),
        "image_std": draw(st.lists(numbers(1, 3000).map(lambda number: number / 100), min_size=count, max_size=count)),
    }
    return update_options(ProcessorOptions(), values)


@given(options(), st.sampled_from(["uint8", "int16", "uint16", "float32"]), st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_no_further_from_the_formula_than_float32_allows(options, dtype, seed):
    channels = len(options.image_mean)
    values = np.random.default_rng(seed).integers(0, 250, (channels, 1, 3, 5)).astype(dtype)
    by_values = normalize_file_values(torch.from_numpy(values)[None], options)[0].numpy()
    result = scale_and_normalize([Frame(values[:, 0], "a")], [None], options)
    np.testing.assert_array_equal(result, by_values)  # in one process or two, the same bits

    factor, offset = (options.rescale_factor, options.rescale_offset) if options.do_rescale else (1, 0)
    mean, std = (
        np.array(getattr(options, name) if options.do_normalize else [neutral] * channels).reshape(-1, 1, 1, 1)
        for name, neutral in (("image_mean", 0.0), ("image_std", 1.0))
    )
    scaled = values.astype(np.float64) * factor
    terms = (np.abs(scaled) + abs(offset) + np.abs(mean)) / std
    assert (np.abs(result - (scaled + offset - mean) / std) <= 4 * ROUNDING * terms).all()


def test_nothing_to_do_changes_no_value():
    values = {"do_rescale": False, "do_normalize": False, "bands": ["RED"]}
    values |= {"rescale_factor": 1e-4, "rescale_offset": 3.0, "image_mean": [5.0], "image_std": [2.0]}
    options = update_options(ProcessorOptions(), values)
    values = np.random.default_rng(0).normal(size=(1, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(scale_and_normalize([Frame(values, "a")], [None], options)[:, 0], values)


@pytest.mark.parametrize(
    ("dtype", "pixel", "tag", "is_nodata"),
    [
        ("float32", -3.4028235e38, -3.4e38, True),  # the lowest float32, a tag of fewer digits
        ("float32", 9.96921e36, None, True),  # the fill of netCDF, no tag
        ("float64", 1e30, None, True),
        ("float64", -1e308, 0.0, True),  # infinite as float32
        ("float32", np.inf, None, True),
        ("float16", np.inf, -9999.0, True),
        ("float64", np.nan, 5.0, True),
        ("float32", -9999.9, -9999.9, True),
        ("float64", float(np.float32(-9999.9)), -9999.9, True),  # float32 on its way
        ("float32", 1e20, 1.0000001e20, True),
        ("float32", 0.1, 0.1, True),
        ("float32", 9.9e29, None, False),
        ("float32", -9999.9, -9999.0, False),
        ("float32", 1e-7, 0.0, False),
        ("float64", 0.10001, 0.1, False),
        ("int32", -9999, -9999.0, True),
        ("int32", 1_000_000, 1_000_001.0, False),  # integers exactly
        ("int32", -9999, -9999.9, False),
        ("uint8", 255, -9999.0, False),
        ("uint16", 65535, 65535.0, True),
    ],
)
@pytest.mark.parametrize("everywhere", [False, True])
def test_what_is_nodata(dtype, pixel, tag, is_nodata, everywhere):
    values = np.full((2, 3, 4), 7, dtype=dtype)
    values[0, 1, 2] = pixel
    if everywhere:
        values[...] = pixel
    found = equals_nodata(values, [] if tag is None else [tag])
    expected = values != 7 if is_nodata else np.zeros(values.shape, bool)
    np.testing.assert_array_equal(np.zeros(values.shape, bool) if found is None else found, expected)
    if np.isfinite(pixel) and abs(pixel) < 1e30:  # known limits change nothing
        limits = (float(values.min()), float(values.max()))
        known = equals_nodata(values, [] if tag is None else [tag], limits)
        np.testing.assert_array_equal(np.zeros(values.shape, bool) if known is None else known, expected)
