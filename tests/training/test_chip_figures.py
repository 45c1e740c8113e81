# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Figures of each chip: written by a run, and every metric computed from them again."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from prithvi_hf.cli.__main__ import main
from prithvi_hf.metrics import metrics_from_confusion_matrix
from prithvi_hf.training.chip_figures import (
    CHIP_FIGURES,
    compute_figures,
    digest_weights,
    find_splits,
    group_figures,
    make_chip_table,
    read_chip_figures,
    read_columns,
    read_metadata,
    write_chip_figures,
)
from tests.finetune_factory import SPLITS


@pytest.fixture(scope="module")
def evaluated(finished, data, tmp_path_factory):
    """The finished run's model evaluated on all splits: what was printed as JSON, and the table of chips."""
    folder = tmp_path_factory.mktemp("evaluated")
    words = ["evaluate", "--model", finished, "--splits", "validation", "test", "bolivia", "--group_by", "event"]
    words += [
        "--output",
        folder / "all.json",
        "--chip_figures",
        folder / "chips.parquet",
        "--device",
        "cpu",
        "--quiet",
    ]
    assert main([*map(str, words)]) == 0
    return json.loads((folder / "all.json").read_text())["splits"], read_chip_figures(folder / "chips.parquet")


def test_every_metric_of_a_run_is_computed_again_from_the_table(finished):
    results, table = json.loads((finished / "all_results.json").read_text()), read_chip_figures(finished)
    parts = find_splits(table)
    assert list(parts) == ["eval", "test", "bolivia"]
    for prefix, part in parts.items():
        metrics = compute_figures(part)
        assert metrics["mean_boundary_iou"] is not None
        assert {name: results[f"{prefix}_{name}"] for name in metrics} == metrics
    assert parts["eval"]["chip"].to_pylist() == list(SPLITS["valid"])
    assert set(parts["eval"]["split"].to_pylist()) == {"validation"}
    assert table["group"].null_count == len(table)
    about = read_metadata(table)
    assert (about["task"], about["class_names"]) == ("segmentation", ["no water", "water"])
    assert about["model_digest"] == digest_weights(finished)


def test_an_evaluation_writes_the_table_that_its_figures_come_from(evaluated):
    splits, table = evaluated
    for split, part in find_splits(table).items():
        metrics = compute_figures(part)
        assert {name: splits[split]["metrics"][name] for name in metrics} == metrics


def test_groups_have_figures_of_their_own(evaluated):
    splits, table = evaluated
    part = find_splits(table)["validation"]
    groups = group_figures(part)
    assert splits["validation"]["groups"] == groups
    assert {name: figures["chips"] for name, figures in groups.items()} == {"Ghana": 1, "India": 1, "Spain": 1}
    matrices = read_columns(part)["confusion"].reshape(-1, 2, 2)
    expected = metrics_from_confusion_matrix(matrices[part["chip"].to_pylist().index("India_5")])
    assert groups["India"]["per_category_iou"] == expected["per_category_iou"]
    assert part["pixels"].to_pylist() == matrices.sum(axis=(1, 2)).tolist()


def make_table(**changes):
    columns = {
        "confusion": np.arange(12).reshape(3, 4),
        "loss": np.array([0.5, np.nan, 2.0]),
        "loss_weight": np.array([6, 0, 2]),
        "extra": np.linspace(0, 1, 9).reshape(3, 3),
    }
    options = {"task": "segmentation", "split": "test", "prefix": "test", "chips": ["a", "b", "c"]}
    return make_chip_table(columns, **{**options, **changes})


def test_numbers_are_as_they_were_when_they_are_read(tmp_path):
    write_chip_figures(tmp_path / "chips.parquet", [make_table(), make_table(prefix="eval", groups=["x", "y", "x"])])
    table = read_chip_figures(tmp_path / "chips.parquet")
    part = find_splits(table)["eval"]
    assert part["group"].to_pylist() == ["x", "y", "x"]
    columns = read_columns(part)
    assert columns["confusion"].tolist() == np.arange(12).reshape(3, 4).tolist()
    assert columns["extra"].tolist() == np.linspace(0, 1, 9).reshape(3, 3).tolist()
    assert part["loss"].to_pylist() == [0.5, None, 2.0]
    assert compute_figures(part)["loss"] == pytest.approx((0.5 * 6 + 2.0 * 2) / 8)


def test_what_is_no_table_of_chips_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=CHIP_FIGURES):
        read_chip_figures(tmp_path)
    (tmp_path / CHIP_FIGURES).write_text("text")
    with pytest.raises(ValueError, match="to be a Parquet file"):
        read_chip_figures(tmp_path)
    parquet.write_table(pa.table({"chip": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="and the columns chip"):
        read_chip_figures(tmp_path / "other.parquet")


def replace_column(table, name, values):
    return table.set_column(table.column_names.index(name), name, pa.array(values))


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda table: replace_column(table, "confusion", [[0, 1, 2]] * 3), "3 numbers in confusion of a chip of 2"),
        (lambda table: replace_column(table, "confusion", [[0, 1, 2, 3], [0], [1]]), "confusion of 1 to 4 numbers"),
        (lambda table: replace_column(table, "confusion", [[0, 1, 2, -3]] * 3), "confusion with counts below 0"),
        (lambda table: replace_column(table, "confusion", [[2**62] * 4] * 3), "or above"),
        (lambda table: replace_column(table, "confusion", [[0.5] * 4] * 3), "confusion of type list"),
        (lambda table: replace_column(table, "confusion", ["text"] * 3), "confusion of type string"),
        (lambda table: replace_column(table, "chip", ["a", None, "c"]), "chips without chip"),
        (lambda table: replace_column(table, "extra", [[1], [], [2]]), "extra of 0 to 1 numbers"),
        (lambda table: table.drop_columns(["confusion"]), "confusion missing"),
        (lambda table: table.append_column("bin_count", pa.array([[1] * 30] * 3)), "bin_confidence, bin_correct miss"),
        (lambda table: table.slice(0, 0), "0 chips"),
        (lambda table: table.replace_schema_metadata({"prithvi_hf": "[1]"}), "none of its metadata"),
        (lambda table: table.replace_schema_metadata({"prithvi_hf": b"\xff"}), "codec"),
        (
            lambda table: table.replace_schema_metadata(
                {"prithvi_hf": json.dumps({**read_metadata(table), "task": "x"})}
            ),
            "the task 'x'",
        ),
    ],
)
def test_a_table_that_is_damaged_or_made_by_a_stranger_is_refused_with_what_is_wrong(tmp_path, damage, found):
    parquet.write_table(damage(make_table(class_names=["land", "water"])), tmp_path / CHIP_FIGURES)
    with pytest.raises(ValueError, match=rf"Expected .* to hold figures of chips, found .*{found}.*Write it again"):
        read_chip_figures(tmp_path)


def test_other_types_of_the_same_numbers_are_read_alike(tmp_path):
    table = make_table(class_names=["land", "water"])
    other = table.set_column(2, "chip", table["chip"].dictionary_encode())
    place = other.column_names.index("confusion")
    other = other.set_column(place, "confusion", other["confusion"].cast(pa.list_(pa.int64(), 4)))
    parquet.write_table(other, tmp_path / CHIP_FIGURES)
    read = read_chip_figures(tmp_path)
    assert read["chip"].to_pylist() == ["a", "b", "c"]
    assert compute_figures(read) == compute_figures(table)


def test_a_large_table_is_small_and_sums_up_quickly(tmp_path):
    rng = np.random.default_rng(0)
    matrices = np.where(rng.random((10_000, 169)) < 0.1, rng.integers(0, 50_000, (10_000, 169)), 0)
    columns = {"confusion": matrices, "loss": np.ones(10_000), "loss_weight": np.ones(10_000, np.int64)}
    names = [f"chip_{number}" for number in range(10_000)]
    table = make_chip_table(columns, task="segmentation", split="test", prefix="test", chips=names)
    write_chip_figures(tmp_path / CHIP_FIGURES, [table])
    assert (tmp_path / CHIP_FIGURES).stat().st_size < 2e6
    expected = metrics_from_confusion_matrix(matrices.sum(0).reshape(13, 13))
    assert compute_figures(read_chip_figures(tmp_path))["per_category_iou"] == expected["per_category_iou"]
