# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Bins of confidence in the table of a run, and the diagram that is drawn of them."""

import json

import numpy as np
import pytest
from PIL import Image

from prithvi_hf.metrics.calibration import calibration_metrics
from prithvi_hf.outputs.figures import save_chart
from prithvi_hf.training.chip_figures import find_splits, read_chip_figures, read_columns, sum_bins
from prithvi_hf.training.reliability import make_reliability_figure


def test_the_calibration_error_of_a_run_is_that_of_the_bins_in_its_table(finished):
    results = json.loads((finished / "all_results.json").read_text())
    for prefix, table in find_splits(read_chip_figures(finished)).items():
        columns = read_columns(table)
        count, correct, confidence = sum_bins(columns)
        assert count.sum() == columns["pixels"].sum()
        confusion = columns["confusion"].sum(0).reshape(2, 2)
        np.testing.assert_array_equal(count.sum(1), confusion.sum(0))
        np.testing.assert_array_equal(correct.sum(1), confusion.diagonal())
        found = calibration_metrics(count, correct, confidence)
        assert results[f"{prefix}_calibration_error"] == pytest.approx(found["calibration_error"], rel=1e-12)
        assert results[f"{prefix}_per_category_calibration_error"] == found["per_category_calibration_error"]


def test_the_card_and_the_page_of_a_run_show_that_calibration_error(finished):
    results = json.loads((finished / "all_results.json").read_text())
    card, page = (finished / "README.md").read_text(), (finished / "report.html").read_text()
    for prefix, split in (("eval", "validation"), ("test", "test"), ("bolivia", "bolivia")):
        error = results[f"{prefix}_calibration_error"]
        [row] = [line for line in card.splitlines() if line.startswith(f"| {split} |") and line.count("|") == 8]
        assert row.endswith(f"| {100 * error:.2f} |")
        assert f'data-figure="{prefix}/calibration_error" value="{error!r}"' in page


def test_a_run_draws_its_reliability(finished):
    with Image.open(finished / "reliability.png") as picture:
        assert min(picture.size) > 300


@pytest.mark.parametrize("num_labels", [1, 5, 20])
def test_a_diagram_has_a_panel_for_each_class_that_was_predicted_up_to_eleven(tmp_path, num_labels):
    generator = np.random.default_rng(0)
    count = generator.integers(0, 100, (3, num_labels * 15))
    columns = {"bin_count": count, "bin_correct": count // 2, "bin_confidence": count * 0.7}
    names = [f"${name}_" for name in range(num_labels)]
    save_chart(make_reliability_figure(columns, names, "chips of $test"), tmp_path / "r.png")
    with Image.open(tmp_path / "r.png") as picture:
        width, height = picture.size
    panels = min(num_labels, 11) + 1
    assert round(width / height * 10) == round(3.2 * min(4, panels) / (3.4 * -(-panels // 4) + 0.4) * 10)
