# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Boundary IoU: against distances measured pair by pair, and against the erosion of the paper's own code."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from prithvi_hf.metrics.boundary_iou import boundary_metrics, count_boundaries, find_boundary_width


def blobs(seed, num_labels, shape=(24, 31), ignored=0.0):
    """Class maps with areas of several pixels; some pixels without a label."""
    rng = np.random.default_rng(seed)
    maps = [ndimage.gaussian_filter(rng.normal(size=(num_labels, *shape)), (0, 3, 3)).argmax(0) for _ in range(2)]
    labels = maps[1].copy()
    if ignored:
        hidden = ndimage.gaussian_filter(rng.normal(size=shape), 2)
        labels[hidden < np.quantile(hidden, ignored)] = -100
    return torch.from_numpy(maps[0]), torch.from_numpy(labels)


def measure_pair_by_pair(predictions, labels, num_labels, width):
    """Both counts by the distance of every two labelled pixels along rows and columns."""
    rows, columns = np.nonzero(labels.numpy() != -100)
    near = np.maximum(abs(rows[:, None] - rows), abs(columns[:, None] - columns)) <= width
    counts = []
    for label in range(num_labels):
        bands = []
        for one in (predictions, labels):
            inside = one.numpy()[rows, columns] == label
            bands.append(inside & (near & ~inside[None]).any(axis=1))
        counts.append(((bands[0] & bands[1]).sum(), (bands[0] | bands[1]).sum()))
    return np.array(counts).T.tolist()


@pytest.mark.parametrize("ignored", [0.0, 0.3])
@pytest.mark.parametrize("width", [1, 3, 40])
def test_bands_are_the_pixels_near_another_class(ignored, width):
    for seed in range(4):
        predictions, labels = blobs(seed, 3, ignored=ignored)
        found = count_boundaries(predictions, labels, 3, width=width)
        assert [counts.tolist() for counts in found] == measure_pair_by_pair(predictions, labels, 3, width)


def erode_as_the_paper(mask, width):
    """`mask_to_boundary` of github.com/bowenc0221/boundary-iou-api, with scipy's erosion for OpenCV's."""
    padded = np.pad(mask, 1)
    eroded = ndimage.binary_erosion(padded, np.ones((3, 3)), iterations=width, border_value=1)
    return mask & ~eroded[1:-1, 1:-1]


def test_with_the_edge_they_are_those_of_the_paper():
    for seed in range(4):
        predictions, labels = blobs(seed, 3, shape=(40, 60))
        found = count_boundaries(predictions, labels, 3, edge_is_contour=True)
        for label in range(3):
            bands = [erode_as_the_paper((one == label).numpy(), 1) for one in (predictions, labels)]
            assert found[0][label] == (bands[0] & bands[1]).sum()
            assert found[1][label] == (bands[0] | bands[1]).sum()


def test_the_width_is_two_percent_of_the_diagonal():
    assert [find_boundary_width(side, side) for side in (16, 224, 512)] == [1, 6, 14]


def test_a_shifted_square_has_the_value_by_hand():
    """Frames one pixel wide of two 4 x 4 squares, one column apart."""
    labels, predictions = torch.zeros(12, 12, dtype=torch.long), torch.zeros(12, 12, dtype=torch.long)
    labels[4:8, 4:8] = 1
    predictions[4:8, 5:9] = 1
    shared, either = count_boundaries(predictions, labels, 2, width=1)
    assert (int(shared[1]), int(either[1])) == (6, 18)  # three columns of the upper and of the lower edge
    assert boundary_metrics(shared, either)["per_category_boundary_iou"][1] == 6 / 18


def test_what_is_predicted_without_a_label_changes_nothing():
    predictions, labels = blobs(5, 3, ignored=0.4)
    other = torch.where(labels == -100, (predictions + 1) % 3, predictions)
    for one, two in zip(count_boundaries(predictions, labels, 3), count_boundaries(other, labels, 3), strict=True):
        assert torch.equal(one, two)


def test_a_class_without_a_contour_has_none():
    labels = torch.zeros(8, 8, dtype=torch.long)
    found = boundary_metrics(*count_boundaries(labels, labels, 2))
    assert found == {"mean_boundary_iou": None, "per_category_boundary_iou": [None, None]}


def test_maps_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(8, 8\) and \(8, 9\)"):
        count_boundaries(torch.zeros(8, 8), torch.zeros(8, 9), 2)
