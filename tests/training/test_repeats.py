# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""One recipe trained with several seeds: what each leaves, the summary, and taking it up again."""

import json
import shutil

import numpy as np
import pytest

from tests.finetune_factory import QUICK, command_line, finetune


pytestmark = pytest.mark.slow


FEW = {**QUICK, "max_steps": 2, "num_sample_predictions": 0, "load_best_model_at_end": True}
WITHOUT_CHECKPOINTS = {"save_strategy": "no", "load_best_model_at_end": False}


@pytest.fixture(scope="module")
def repeated(data, tmp_path_factory):
    """Output folder of two seeds; no test may change it."""
    output = tmp_path_factory.mktemp("repeats") / "OUT"
    assert finetune.main(command_line(data, output, **FEW, seeds=[3, 1])) == 0
    return output


def read(path):
    return json.loads(path.read_text())


def test_each_seed_leaves_a_whole_run_and_the_folder_above_a_summary_and_no_model(repeated):
    assert {path.name for path in repeated.iterdir()} - {".lock"} == {
        *("seed-3", "seed-1", "summary.json", "summary.png", "README.md", "recipe.yaml"),
    }
    for seed in (3, 1):
        names = {path.name for path in (repeated / f"seed-{seed}").iterdir()}
        assert names >= {
            "model.safetensors",
            "preprocessor_config.json",
            "all_results.json",
            "README.md",
            "checkpoint-2",
        }
        text = (repeated / f"seed-{seed}" / "recipe.yaml").read_text()
        assert f"seed: {seed}\n" in text
        assert "seeds" not in text
    assert "seeds:\n- 3\n- 1\n" in (repeated / "recipe.yaml").read_text()


def test_the_summary_is_of_the_figures_of_the_runs(repeated, capsys):
    summary = read(repeated / "summary.json")
    assert summary["complete"]
    results = [read(repeated / f"seed-{seed}" / "all_results.json") for seed in (3, 1)]
    for prefix, split in {"eval": "validation", "test": "test", "bolivia": "bolivia"}.items():
        found = summary["splits"][split]
        values = [result[f"{prefix}_mean_iou"] for result in results]
        assert found["mean_iou"]["values"] == values
        assert values[0] != values[1]
        assert found["mean_iou"]["mean"] == pytest.approx(np.mean(values))
        assert found["mean_iou"]["std"] == pytest.approx(np.std(values, ddof=1))
        water = [result[f"{prefix}_per_category_iou"][1] for result in results]
        assert found["per_category_iou"][1]["values"] == water
        assert "runtime" not in found
    mean = 100 * summary["splits"]["test"]["mean_iou"]["mean"]
    assert f"| Mean IoU | {mean:.2f} |" in (repeated / "README.md").read_text()


def test_complete_seeds_are_kept_and_a_cut_one_and_a_new_one_are_trained(repeated, data, tmp_path, capsys):
    output = shutil.copytree(repeated, tmp_path / "OUT")
    # As a kill during the second seed leaves it: a checkpoint and no results.
    summary = read(output / "summary.json")
    del summary["runs"]["seed-1"]
    (output / "summary.json").write_text(json.dumps(summary))
    for path in (output / "seed-1").iterdir():
        if path.name != "checkpoint-1":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in (output / "seed-3").rglob("*")}
    words = command_line(data, output, **FEW, seeds=[3, 1, 2], resume_from_checkpoint=True)
    assert finetune.main(words) == 0
    printed = capsys.readouterr().out
    assert "test: 3 runs" in printed
    assert {path: path.stat().st_mtime_ns for path in (output / "seed-3").rglob("*")} == kept
    weights = [(folder / "seed-1" / "model.safetensors").read_bytes() for folder in (output, repeated)]
    assert weights[0] == weights[1]
    found, before = (read(folder / "summary.json") for folder in (output, repeated))
    assert list(found["runs"]) == ["seed-3", "seed-1", "seed-2"]
    assert found["runs"]["seed-3"] == before["runs"]["seed-3"]
    assert found["splits"]["test"]["mean_iou"]["values"][:2] == before["splits"]["test"]["mean_iou"]["values"]

    # Everything is there: nothing is trained, with other options it is refused.
    assert finetune.main(words) == 0
    assert finetune.main([*words, "--learning_rate", "0.5"]) == 2
    assert "learning_rate 0.5 instead of 0.001" in capsys.readouterr().err


def test_a_fresh_start_puts_the_earlier_seeds_aside(repeated, data, tmp_path, capsys):
    output = shutil.copytree(
        repeated, tmp_path / "OUT", ignore=shutil.ignore_patterns("checkpoint-*", "*.safetensors")
    )
    assert finetune.main(command_line(data, output, **{**FEW, **WITHOUT_CHECKPOINTS}, seeds=[3])) == 0
    [earlier] = output.glob("earlier-*")
    assert {path.name for path in earlier.iterdir()} >= {"seed-3", "seed-1", "summary.json", "README.md"}
    assert list(read(output / "summary.json")["runs"]) == ["seed-3"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": [0, 1, 0]}, "seeds that differ, whole numbers from 0 to 4294967295, found 0 more than once"),
        ({"seeds": [0, -1]}, "found -1"),
        ({"seeds": [0, 2**32]}, "found 4294967296"),
        ({"seeds": [0, 1], "do_train": False}, "--do_train false"),
        ({"seeds": [0, 1], "push_to_hub": True}, "holds a summary and no model"),
        ({"seeds": [0, 1], "resume_from_checkpoint": "OUT/checkpoint-2"}, "one checkpoint. Write true"),
    ],
)
def test_bad_seeds_are_refused_before_anything_is_written(data, tmp_path, capsys, options, message):
    assert finetune.main(command_line(data, tmp_path / "OUT", **{**FEW, **options})) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "OUT").exists()


def test_a_folder_with_a_model_gets_no_summary(finished, data, capsys):
    before = sorted(finished.iterdir())
    assert finetune.main(command_line(data, finished, **FEW, seeds=[0, 1])) == 2
    assert "found config.json of one there" in capsys.readouterr().err
    assert sorted(finished.iterdir()) == before
