# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Labels of whole chips: names and numbers, one or several."""

import pytest
import torch

from prithvi_hf.data.chip_labels import find_chip_classes, make_chip_labels


NAMES = ["Forest", "River", "Sea, coast"]


@pytest.mark.parametrize(
    ("label", "several", "expected"),
    [
        ("River", False, [1]),
        ("Sea, coast", False, [2]),
        ("2", False, [2]),
        ("Forest; River", True, [0, 1]),
        ("River;River;", True, [1]),
        ("", True, []),
    ],
)
def test_a_label_is_the_name_or_the_number_of_a_class(label, several, expected):
    assert find_chip_classes(label, NAMES, several, "a") == expected


def test_a_name_that_is_a_number_is_a_name():
    assert find_chip_classes("1", ["1", "0"], False, "a") == [0]


@pytest.mark.parametrize(
    ("label", "several"), [("Rivr", False), ("", False), (None, False), ("3", True), (None, True)]
)
def test_what_is_not_a_class_is_refused_with_the_chip_and_the_classes(label, several):
    with pytest.raises(
        ValueError, match=r"chip_7: expected .* among class_names \(Forest, River, Sea, coast\), found"
    ):
        find_chip_classes(label, NAMES, several, "chip_7")


def test_a_batch_is_class_numbers_or_rows_of_zeros_and_ones():
    assert make_chip_labels(["River", "Forest"], NAMES, False, "ab").tolist() == [1, 0]
    batch = make_chip_labels(["River;Forest", ""], NAMES, True, "ab")
    assert batch.dtype == torch.float32
    assert batch.tolist() == [[1, 1, 0], [0, 0, 0]]
