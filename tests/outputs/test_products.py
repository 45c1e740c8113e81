# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What is kept of a strip's logits."""

import numpy as np
import pytest
import torch

from prithvi_hf.outputs.products import CLASSES, CONFIDENCE, ENTROPY, PROBABILITIES, make_products, name_probability


ALL = (PROBABILITIES, ENTROPY, CONFIDENCE)


def make_logits(height, width, classes=3, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 2, (classes, height, width)).astype(np.float32))


def make_nodata(height, width):
    nodata = np.zeros((height, width), bool)
    nodata[: height // 3, : width // 2] = True
    return nodata


def test_products_have_their_ranges():
    logits = torch.tensor([[[60.0, 0.0, np.nan]], [[-60.0, 0.0, np.nan]]])
    products = make_products(logits, np.array([[False, False, True]]), ALL)
    np.testing.assert_array_equal(products[CLASSES], [[0, 0, 255]])
    np.testing.assert_allclose(products[ENTROPY][0, :2], [0, 1], atol=1e-6)
    assert np.isnan(products[ENTROPY][0, 2])
    total = sum(products[name_probability(index)] for index in range(2))
    np.testing.assert_allclose(total[0, :2], 1, atol=1e-6)


def test_products_do_not_depend_on_how_many_rows_are_turned_at_once(monkeypatch):
    logits, nodata = make_logits(40, 30), make_nodata(40, 30)
    whole = make_products(logits, nodata, ALL)
    monkeypatch.setattr("prithvi_hf.outputs.products._CHUNK_VALUES", 300)
    for name, values in make_products(logits, nodata, ALL).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-5, atol=1e-7)


def test_a_single_class_has_no_entropy():
    products = make_products(make_logits(3, 4, classes=1), np.zeros((3, 4), bool), ALL)
    assert not products[ENTROPY].any()


def test_products_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="at most 255"):
        make_products(torch.zeros(256, 1, 1), np.zeros((1, 1), bool))
