# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Labels by their rule, by a table and by the limits of a mask are the same labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from prithvi_hf.models.prithvi.labels_prithvi import make_labels
from prithvi_hf.models.prithvi.processor_options_prithvi import ProcessorOptions, update_options


SIZE = (5, 7)
NO_PIXEL = np.zeros(SIZE, dtype=bool)


def as_options(**options):
    return update_options(ProcessorOptions(), options)


@settings(max_examples=300, deadline=None)
@given(
    values=st.sampled_from(["uint8", "int8", "int16", "uint16"]).flatmap(
        lambda dtype: arrays.arrays(dtype, SIZE, elements=st.integers(0 if dtype[0] == "u" else -3, 9))
    ),
    ignored=st.none() | st.lists(st.integers(-120, 260), max_size=7),
    reduce_labels=st.booleans(),
    num_labels=st.none() | st.integers(1, 10),
    wider=st.tuples(st.integers(0, 4), st.integers(0, 250)),
)
def test_all_ways_to_labels_agree(values, ignored, reduce_labels, num_labels, wider):
    """The rule reads masks of four bytes; a mask that holds what is no class is refused by all, or by none."""
    options = as_options(ignore_values=ignored, do_reduce_labels=reduce_labels, num_labels=num_labels)
    limits = (int(values.min()) - wider[0], int(values.max()) + wider[1])
    ways = [
        (values.astype(np.int32), None, {}),
        (values, None, {}),
        (values, np.empty(SIZE, dtype=np.int64), {}),
        (values, np.empty(SIZE, dtype=np.int64), {"limits": limits}),
    ]
    if num_labels is not None:
        ways += [(values, np.empty(SIZE, np.int16), own) for own in ({}, {"limits": limits})]
    found = []
    for own, out, more in ways:
        try:
            labels = make_labels(own, "mask", NO_PIXEL.shape, NO_PIXEL, options, out, **more)
        except ValueError as error:
            found.append(str(error))
            continue
        assert out is None or labels is out
        found.append(labels.astype(np.int64).tolist())
    assert all(other == found[0] for other in found[1:])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_largest_and_smallest_values_do_not_wrap_around(dtype):
    limits = np.iinfo(dtype)
    values = np.full(SIZE, limits.max, dtype=dtype)
    values[0] = limits.min
    options = as_options(ignore_values=[int(limits.max), int(limits.min)], do_reduce_labels=True, num_labels=3)
    for known in (None, (float(limits.min), float(limits.max))):
        out = np.empty(SIZE, dtype=np.int16)
        assert (make_labels(values, "mask", NO_PIXEL.shape, NO_PIXEL, options, out, known) == -100).all()
