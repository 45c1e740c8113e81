# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Bits of the Fmask layer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prithvi_hf.rasters.derived import MaskedRaster
from prithvi_hf.rasters.hls import FMASK_BITS, fmask_bits
from prithvi_hf.rasters.raster import ArrayRaster


@given(st.lists(st.sampled_from(sorted(FMASK_BITS)), unique=True, min_size=1))
def test_fmask_masks_exactly_the_values_with_a_bit_that_was_asked_for(names):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = [any(value >> FMASK_BITS[name] & 1 for name in names) or value == 255 for value in range(256)]
    frame = ArrayRaster(np.zeros((1, 16, 16), dtype=np.int16))
    masked = MaskedRaster(frame, ArrayRaster(values[None]), fmask_bits(names))
    np.testing.assert_array_equal(masked.read_nodata_mask().ravel(), expected)
    assert fmask_bits(names) == sum(2 ** FMASK_BITS[name] for name in names)


def test_fmask_names_are_checked_and_one_may_stand_alone():
    assert fmask_bits("cloud") == 2
    assert fmask_bits(["cloud", "cloud", "shadow"]) == 10
    with pytest.raises(ValueError, match="found 'haze'"):
        fmask_bits(["cloud", "haze"])
