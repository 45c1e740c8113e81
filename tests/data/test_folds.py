# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Dividing chips into folds: no group on two sides, the same division every time, and the table of it."""

import sys
import warnings
from collections import Counter

import pytest

from prithvi_hf.data.folds import check_scikit_learn, divide_into_folds, read_folds, write_folds


GROUPS = {f"{event}_{number}": event for event in ("A", "B", "C", "D", "E", "F") for number in range(4)}


def test_no_group_is_in_two_folds_and_folds_are_of_equal_size():
    folds = divide_into_folds(GROUPS, 3, {})
    assert list(folds) == list(GROUPS)
    assert Counter(folds.values()) == {0: 8, 1: 8, 2: 8}
    for event in "ABCDEF":
        assert len({fold for chip, fold in folds.items() if GROUPS[chip] == event}) == 1


def test_the_order_of_the_chips_changes_nothing():
    folds = divide_into_folds(GROUPS, 3, {chip: [0, GROUPS[chip] in "AB"] for chip in GROUPS})
    turned = dict(reversed(GROUPS.items()))
    assert divide_into_folds(turned, 3, {chip: [0, GROUPS[chip] in "AB"] for chip in GROUPS}) == folds


def test_a_rare_class_is_spread_over_the_folds():
    # Classes 0 and 1 are everywhere; of the six events A, B and C have class 2.
    classes = {chip: [0, 1, 2] if group in "ABC" else [0, 1] for chip, group in GROUPS.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folds = divide_into_folds(GROUPS, 3, classes)
    assert {folds[f"{event}_0"] for event in "ABC"} == {0, 1, 2}


def test_a_class_of_fewer_chips_than_folds_gives_no_warning():
    classes = {chip: [0, 1] if number % 2 else [0] for number, chip in enumerate(GROUPS)} | {"A_0": [0, 1, 2]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(divide_into_folds(GROUPS, 3, classes).values()) == {0, 1, 2}


def test_fewer_groups_than_folds_are_refused():
    with pytest.raises(ValueError, match=r"at least as many groups as folds \(7\), found 6 among 24 chips: A, B"):
        divide_into_folds(GROUPS, 7, {})


def test_without_scikit_learn_the_message_says_how_to_install_it(monkeypatch):
    check_scikit_learn()
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "sklearn")
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [])
    with pytest.raises(ImportError, match=r"pip install prithvi_hf\[folds\]"):
        check_scikit_learn()


def test_the_table_of_folds_is_read_as_it_was_written(tmp_path):
    folds = divide_into_folds(GROUPS, 3, {})
    write_folds(tmp_path / "folds.csv", folds, GROUPS)
    assert (tmp_path / "folds.csv").read_text().splitlines()[:2] == ["chip,group,fold", f"A_0,A,{folds['A_0']}"]
    assert read_folds(tmp_path / "folds.csv", 3) == folds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,fold\na,0\n", "expected the columns chip and fold in the first line"),
        ("chip,fold\na,0\nb,3\n", "expected a fold from 0 to 2 for b, found '3'"),
        ("chip,fold\na,0\nb,-1\n", "found '-1'"),
        ("chip,fold\na,0\na,1\n", "expected one fold for a, found 0 and 1"),
        ("chip,fold\na,0\nb,1\n", "expected chips in each of 3 folds, found none in 2"),
    ],
)
def test_a_table_that_is_no_division_is_refused(tmp_path, text, message):
    (tmp_path / "folds.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_folds(tmp_path / "folds.csv", 3)
