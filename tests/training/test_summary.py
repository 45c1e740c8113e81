# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Statistics over several trainings: interquartile mean, lists of one figure for each class, tables and cards."""

import json

import numpy as np
import pytest
from scipy.stats import trim_mean

from prithvi_hf.training.recipe import parse_arguments
from prithvi_hf.training.summary import (
    collect_metrics,
    describe_values,
    format_summary,
    interquartile_mean,
    plot_summary,
    read_summary,
    summarize_runs,
    write_summary,
    write_summary_card,
)
from tests.training.test_sample_pictures import png_size


def test_the_interquartile_mean_of_four_eight_and_twelve_runs_is_scipys():
    generator = np.random.default_rng(0)
    for number in (4, 8, 12):
        values = generator.normal(size=number)
        assert interquartile_mean(values) == pytest.approx(trim_mean(values, 0.25), abs=1e-15)


def test_the_interquartile_mean_of_few_runs_counts_a_part_of_the_outer_ones():
    assert interquartile_mean([7.0]) == 7
    assert interquartile_mean([1.0, 2.0]) == 1.5
    assert interquartile_mean([30.0, 2.0, 1.0]) == pytest.approx((0.25 * 1 + 2 + 0.25 * 30) / 1.5)
    # Of five runs the second and the fourth count by three quarters.
    assert interquartile_mean([5.0, 1.0, 100.0, 3.0, 4.0]) == pytest.approx((0.75 * 3 + 4 + 0.75 * 5) / 2.5)


def test_a_figure_that_a_run_lacks_is_left_out_of_the_mean_but_not_of_the_list():
    found = describe_values([0.5, None, 0.7])
    assert found["values"] == [0.5, None, 0.7]
    assert (found["mean"], found["std"]) == (pytest.approx(0.6), pytest.approx(np.std([0.5, 0.7], ddof=1)))
    assert describe_values([0.5])["std"] is None
    assert describe_values([None, None])["interquartile_mean"] is None


def test_figures_go_to_the_split_with_the_longest_name_that_fits():
    results = {
        **{"test_mean_iou": 0.5, "test_north_mean_iou": 0.25, "test_north_per_category_iou": [0.1, None]},
        **{"test_runtime": 3.0, "train_loss": 1.0, "epoch": 2.0, "eval_mean_iou": float("nan"), "eval_note": "text"},
    }
    found = collect_metrics(results, {"eval": "validation", "test": "test", "test_north": "test_north"})
    assert found == {
        "validation": {"mean_iou": None},
        "test": {"mean_iou": 0.5},
        "test_north": {"mean_iou": 0.25, "per_category_iou": [0.1, None]},
    }


def make_summary():
    runs = {
        f"seed-{seed}": {"test": {"mean_iou": mean, "mean_f1": mean, "per_category_iou": [mean, None]}}
        for seed, mean in enumerate((0.5, 0.25, 0.75))
    }
    return summarize_runs(runs), list(runs)


def test_table_card_and_file_hold_the_same_figures(tmp_path):
    summary, runs = make_summary()
    text = format_summary(summary, "segmentation", ["dry", "wet"], 3)
    assert "test: 3 runs\n" in text
    row = next(line.split() for line in text.splitlines() if line.startswith("  Mean IoU"))
    assert row == ["Mean", "IoU", "50.00", "25.00", "50.00", "25.00", "75.00"]
    assert next(line.split() for line in text.splitlines() if "wet" in line) == ["IoU", "of", "wet", *"-----"]
    recipe = parse_arguments(["--output_dir", str(tmp_path), "--use_cpu", "--class_names", "dry", "w|et<b>"])
    write_summary_card(tmp_path, recipe, "Three trainings", summary, runs)
    card = (tmp_path / "README.md").read_text()
    assert "| Mean IoU | 50.00 | 25.00 | 50.00 | 25.00 | 75.00 |" in card
    assert "IoU of w\\|et&lt;b&gt;" in card
    assert "`seed-0`, `seed-1`, `seed-2`" in card
    write_summary(tmp_path, {"runs": {}, "splits": summary})
    assert read_summary(tmp_path) == json.loads((tmp_path / "summary.json").read_text())
    (tmp_path / "summary.json").write_text("{")
    assert read_summary(tmp_path) is None


def test_a_picture_is_drawn_of_percentages_and_of_errors(tmp_path):
    summary, runs = make_summary()
    plot_summary(summary, "segmentation", runs, tmp_path / "classes.png")
    values = summarize_runs({"seed-0": {"test": {"rmse": 3.0, "mae": 2.0, "bias": -1.0, "r2": None}}})
    plot_summary(values, "regression", ["seed-0"], tmp_path / "values.png")
    wide, narrow = png_size(tmp_path / "values.png")[0], png_size(tmp_path / "classes.png")[0]
    assert wide == 4 * narrow  # a panel for each error
