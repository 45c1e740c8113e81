# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Labels by their rule, by a table and by the limits of a mask are the same labels."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from prithvi_hf.models.prithvi.labels_prithvi import MaskValuesError, advise_label_options, make_labels, read_labels
from prithvi_hf.models.prithvi.pixel_values_prithvi import Frame
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
    label_map=st.none() | st.dictionaries(st.integers(-3, 9), st.integers(0, 9), min_size=1, max_size=4),
    tag=st.none() | st.integers(-3, 9).map(float) | st.sampled_from([-9999.9, np.nan, -3.4e38]),
    file_mask=st.none() | arrays.arrays("bool", SIZE),
    reduce_labels=st.booleans(),
    num_labels=st.none() | st.integers(1, 10),
    wider=st.tuples(st.integers(0, 4), st.integers(0, 250)),
)
def test_all_ways_to_labels_agree(values, ignored, label_map, tag, file_mask, reduce_labels, num_labels, wider):
    """The rule reads masks of four bytes; a mask that holds what is no class is refused by all, or by none."""
    if label_map is not None:
        ignored, reduce_labels, num_labels = [value for value in ignored or () if value not in label_map], False, None
        num_labels = max(label_map.values()) + 1 if wider[0] else None
    options = as_options(
        ignore_values=ignored, label_map=label_map, do_reduce_labels=reduce_labels, num_labels=num_labels
    )
    limits = (int(values.min()) - wider[0], int(values.max()) + wider[1])
    ways = [
        (values.astype(np.int32), None, {}),
        (values.astype(np.float32), None, {}),
        (values, None, {}),
        (values, np.empty(SIZE, dtype=np.int64), {}),
        (values, np.empty(SIZE, dtype=np.int64), {"limits": limits}),
    ]
    if num_labels is not None:
        ways += [(values, np.empty(SIZE, np.int16), own) for own in ({}, {"limits": limits})]
    found = []
    for own, out, more in ways:
        try:
            frame = replace(Frame(own, "mask", tag, file_mask), **more)
            labels = make_labels(frame, NO_PIXEL.shape, NO_PIXEL, options, out)
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
        frame = Frame(values, "mask", limits=known)
        assert (make_labels(frame, NO_PIXEL.shape, NO_PIXEL, options, out) == -100).all()


def test_codes_stand_for_classes_and_others_stay():
    options = as_options(label_map={10: 0, 20: 1, 95: 1}, ignore_values=[0], num_labels=3)
    values = np.array([[10, 20, 95], [0, 2, -100]])
    for dtype in ("int16", "int64", "float64"):
        assert read_labels(values.astype(dtype), NO_PIXEL[:2, :3], options).tolist() == [[0, 1, 1], [-100, 2, -100]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_map": {1: 0}, "do_reduce_labels": True}, "without do_reduce_labels"),
        ({"label_map": {255: 1}, "ignore_values": [255]}, r"found \[255\] in both"),
        ({"label_map": {-100: 1}}, "those that are ignored"),
        ({"label_map": {255: 2}, "num_labels": 2}, "class numbers 0 to 1"),
        ({"label_map": {255: -1}}, "class numbers from 0 on"),
        ({"label_map": {}}, "a mapping from mask values"),
        ({"label_map": {"forest": 1}}, "a mapping from mask values"),
        ({"label_map": {1.5: 1}}, "a mapping from mask values"),
        ({"label_map": [255, 1]}, "a mapping from mask values"),
    ],
)
def test_contradicting_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        as_options(**options)


@pytest.mark.parametrize(
    ("values", "num_labels", "advice"),
    [
        ([0, 1, 2, 3], 3, "do_reduce_labels=True"),
        ([1, 2, 3, 4], 4, "do_reduce_labels=True"),
        ([0, 255], 2, "label_map={255: 1}"),
        ([255], 2, "label_map={255: 1}"),
        ([0, 100], 2, "label_map={100: 1}"),
        ([0, 1, 255], 2, "add 255 to ignore_values"),
        ([-1, 0, 1], 2, "add -1 to ignore_values"),
        ([-1, 0, 1], 3, "label_map={-1: 0, 0: 1, 1: 2}"),
        ([10, 20, 30], 3, "label_map={10: 0, 20: 1, 30: 2}."),
        ([0, 10, 20, 30], 3, "label_map={10: 0, 20: 1, 30: 2} and ignore_values=[0]"),
        ([10, 20], 11, "name the value of each class in label_map"),
        ([0, 255], None, "label_map={255: 1}"),
        ([0, 1, 2, 255], None, "add 255 to ignore_values"),
    ],
)
def test_the_remedy_fits_the_values(values, num_labels, advice):
    assert advice in advise_label_options(values, as_options(num_labels=num_labels))


def test_the_error_of_a_value_that_is_not_a_class_says_what_fits():
    mask = np.full((4, 4), 255, dtype=np.uint8)
    mask[0] = 0
    with pytest.raises(MaskValuesError, match=r"0 to 1 \(2 classes\), found 255 \(12 pixels\).*label_map=\{255: 1\}"):
        read_labels(mask, NO_PIXEL[:4, :4], as_options(num_labels=2))


@pytest.mark.parametrize(
    ("tag", "options", "expected"),
    [
        (2.0, {"num_labels": 2}, -100),
        (2.0, {"num_labels": 3}, 2),  # the value of a class, whatever the tag says
        (2.0, {"num_labels": 2, "do_reduce_labels": True}, 1),
        (2.0, {"num_labels": 1, "label_map": {2: 0}}, 0),
        (0.0, {"num_labels": 2}, 0),
        (2.0, {}, -100),
    ],
)
def test_the_nodata_tag_of_a_mask_is_ignored_unless_it_is_a_class(tag, options, expected):
    for dtype in ("uint8", "int32", "float32"):
        frame = Frame(np.full(SIZE, tag, dtype=dtype), "mask", tag)
        assert (make_labels(frame, SIZE, None, as_options(**options)) == expected).all()


# ---------------------------------------------------------------------- values


def test_targets_are_the_scaled_values_and_nan_where_there_is_none():
    values = np.array([[10, 20, 255], [30, 40, 250]], dtype=np.uint8)
    options = as_options(
        label_type="value", target_rescale_factor=0.5, target_rescale_offset=-1, target_nodata_value=250
    )
    file_mask = np.array([[False, True, False], [False, False, False]])
    targets = make_labels(Frame(values, "a", 255.0, file_mask), values.shape, None, options)
    np.testing.assert_array_equal(targets, np.float32([[4, np.nan, np.nan], [14, 19, np.nan]]))
    assert targets.dtype == np.float32


def test_values_that_no_quantity_has_and_those_out_of_range_are_not_targets():
    values = np.array([[np.nan, np.inf, -3.4e38, 1e35, -5, 600, 0, 500]])
    targets = make_labels(
        Frame(values, "a", -9999.0), values.shape, None, as_options(label_type="value", target_range=[0, 500])
    )
    np.testing.assert_array_equal(targets, np.float32([[np.nan] * 6 + [0, 500]]))


def test_targets_of_pixels_without_image_data_stay_unless_told():
    values, nodata = np.full((2, 2), 7.5), np.eye(2, dtype=bool)
    for hide in (False, True):
        options = as_options(label_type="value", mask_nodata_labels=hide)
        targets = make_labels(Frame(values, "a"), values.shape, nodata, options)
        np.testing.assert_array_equal(np.isnan(targets), nodata & hide)


@pytest.mark.parametrize("option", [{"num_labels": 2}, {"ignore_values": [255]}, {"label_map": {1: 0}}])
def test_options_of_classes_are_refused_for_values(option):
    with pytest.raises(ValueError, match=f"without options of classes, found {next(iter(option))}"):
        as_options(label_type="value", **option)
