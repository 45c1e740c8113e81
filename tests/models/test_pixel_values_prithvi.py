# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Scaling and normalisation in two operations against the formula in double precision."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prithvi_hf.models.prithvi.bands_prithvi import CANONICAL_BANDS
from prithvi_hf.models.prithvi.pixel_values_prithvi import Frame, normalize_file_values, scale_and_normalize
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
