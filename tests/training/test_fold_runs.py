# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Cross-validation: a run for each fold, the figures over all chips, and taking it up again."""

import json
import shutil

import pyarrow.parquet as parquet
import pytest

from prithvi_hf.data.folds import read_folds
from prithvi_hf.training.chip_figures import compute_figures, read_chip_figures
from prithvi_hf.training.intervals import bootstrap_interval
from tests.finetune_factory import QUICK, command_line, finetune


pytestmark = pytest.mark.slow


FEW = {**QUICK, "max_steps": 2, "num_sample_predictions": 0, "folds": 3, "group_by": "event", "test_splits": "test"}


@pytest.fixture(scope="module")
def divided(data, tmp_path_factory):
    """Output folder of three folds; no test may change it."""
    output = tmp_path_factory.mktemp("folds") / "OUT"
    assert finetune.main(command_line(data, output, **FEW)) == 0
    return output


def read(path):
    return json.loads(path.read_text())


def test_each_chip_is_held_out_once_and_pooled(divided):
    folds = read_folds(divided / "folds.csv", 3)
    assert len(folds) == 7
    pooled = read_chip_figures(divided)
    rows = zip(pooled["chip"].to_pylist(), pooled["fold"].to_pylist(), pooled["group"].to_pylist(), strict=True)
    assert {chip: fold for chip, fold, _ in rows} == folds
    assert sorted(pooled["chip"].to_pylist()) == sorted(folds)
    summary = read(divided / "summary.json")
    figures = compute_figures(pooled)
    assert summary["pooled"]["mean_iou"] == figures["mean_iou"]
    assert summary["pooled"]["chips"] == 7
    assert summary["pooled"]["groups"] == 4
    low, high = summary["pooled"]["mean_iou_interval"]
    assert [low, high] == bootstrap_interval(pooled)["mean_iou"]
    text = f"| Mean IoU | {100 * figures['mean_iou']:.2f} ({100 * low:.2f} to {100 * high:.2f}) |"
    assert text in (divided / "README.md").read_text()
    assert "bootstrap over 4 groups" in (divided / "README.md").read_text()


def test_the_figures_of_a_fold_are_those_of_its_run(divided):
    summary = read(divided / "summary.json")
    assert list(summary["splits"]) == ["held_out", "test"]  # not what chose the checkpoints
    for number, (name, run) in enumerate(summary["runs"].items()):
        assert (name, run["fold"]) == (f"fold-{number}", number)
        results = read(divided / name / "all_results.json")
        assert summary["splits"]["held_out"]["mean_iou"]["values"][number] == results["held_out_mean_iou"]
        table = parquet.read_table(divided / name / "chip_figures.parquet")
        rows = zip(table["split"].to_pylist(), table["chip"].to_pylist(), strict=True)
        held = [chip for split, chip in rows if split == "held_out"]
        assert {chip.split("_")[0] for chip in held} == set(run["groups"])
        recipe = (divided / name / "recipe.yaml").read_text()
        assert f"fold: {number}\n" in recipe
        assert f"fold_file: {divided / 'folds.csv'}\n" in recipe


def test_a_fold_that_was_cut_is_trained_again_on_the_same_chips(divided, data, tmp_path, capsys):
    output = shutil.copytree(divided, tmp_path / "OUT")
    summary = read(output / "summary.json")
    del summary["runs"]["fold-2"], summary["pooled"]
    (output / "summary.json").write_text(json.dumps(summary))
    shutil.rmtree(output / "fold-2")
    assert finetune.main(command_line(data, output, **FEW, resume_from_checkpoint=True)) == 0
    assert "held_out: 3 runs" in capsys.readouterr().out
    assert read(output / "summary.json")["pooled"] == read(divided / "summary.json")["pooled"]
    assert (output / "folds.csv").read_bytes() == (divided / "folds.csv").read_bytes()


def test_seeds_and_folds_together_are_refused(data, tmp_path, capsys):
    assert finetune.main(command_line(data, tmp_path / "OUT", **FEW, seeds=[0, 1])) == 2
    assert "found seeds and folds together. Run one of them in a folder of its own" in capsys.readouterr().err
    assert not (tmp_path / "OUT").exists()
