# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""TensorBoard and trackio, the real ones, on this machine: figures, one of each class, and pictures of samples."""

import io
import json
import shutil
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from tests.finetune_factory import command_line, finetune, finish, flags, run, start


@pytest.fixture(scope="module")
def tracked(data, tmp_path_factory):
    """A run whose trackers write into its folder; trackio takes its folder from the environment, once."""
    pytest.importorskip("tensorboard")
    pytest.importorskip("trackio")
    folder = tmp_path_factory.mktemp("tracked")
    options = {"report_to": ["tensorboard", "trackio"], "num_sample_predictions": 2, "test_splits": "bolivia"}
    process = start(command_line(data, folder / "OUT", **options), TRACKIO_DIR=str(folder / "trackio"))
    printed, status = finish(process)
    assert status == 0, printed
    return folder, printed


@pytest.mark.slow
def test_tensorboard_has_curves_of_classes_and_pictures(tracked):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _ = tracked
    [events] = (folder / "OUT" / "runs").iterdir()
    board = EventAccumulator(str(events)).Reload()
    scalars = set(board.Tags()["scalars"])
    assert {"train/loss", "train/chips_per_second", "train/data_wait", "train/memory_gb", "eval/mean_iou"} <= scalars
    history = json.loads((folder / "OUT" / "trainer_state.json").read_text())["log_history"]
    for label in ("no water", "water"):
        points = [(event.step, event.value) for event in board.Scalars(f"eval/iou/{label}")]
        logged = {entry["step"]: entry[f"eval_iou/{label}"] for entry in history if "eval_loss" in entry}
        assert [step for step, _ in points] == [2, 4, 4]  # the last one of the best model, after the training
        assert dict(points[:2]) == pytest.approx(logged)
    pictures = board.Images("eval/samples")
    assert [picture.step for picture in pictures] == [2, 4]  # one for each evaluation of the training
    pixels = imread(io.BytesIO(pictures[0].encoded_image_string), format="png")
    assert pixels.shape[1] > 1.5 * pixels.shape[0]  # two chips, each as scene, label, prediction and errors
    assert (np.abs(pixels[..., :3] * 255 - (205, 38, 38)).max(axis=-1) < 1).sum() > 10_000


@pytest.mark.slow
def test_trackio_keeps_one_run_with_pictures_in_its_folder(tracked):
    folder, printed = tracked
    assert "huggingface.co" not in printed
    with sqlite3.connect(folder / "trackio" / "huggingface.db") as database:
        rows = database.execute("SELECT run_name, metrics FROM metrics").fetchall()
    assert len({name for name, _ in rows}) == 1  # the evaluations after the training too
    figures = [json.loads(text) for _, text in rows]
    assert {entry["train/global_step"] for entry in figures if "eval/samples" in entry} == {2, 4}
    assert any("eval/iou/water" in entry for entry in figures)
    assert any("train/bolivia_mean_iou" in entry for entry in figures)
    assert any("train/chips_per_second" in entry for entry in figures)
    assert len(list((folder / "trackio" / "media").rglob("*.png"))) == 2


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_its_curve(tracked, data, tmp_path):
    folder, _ = tracked
    trackio = shutil.copytree(folder / "trackio", tmp_path / "trackio")
    options = {"report_to": ["tensorboard", "trackio"], "test_splits": "bolivia"}
    options["resume_from_checkpoint"] = folder / "OUT" / "checkpoint-2"
    words = command_line(data, tmp_path / "RESUMED", **options)
    printed, status = finish(start(words, TRACKIO_DIR=str(trackio)))
    assert status == 0, printed
    with sqlite3.connect(trackio / "huggingface.db") as database:
        rows = database.execute("SELECT run_id, run_name, metrics FROM metrics ORDER BY step").fetchall()
    [(_, name)] = {row[:2] for row in rows}
    assert name.startswith("OUT-")
    steps = [json.loads(text)["train/global_step"] for *_, text in rows if "train/loss" in json.loads(text)]
    assert steps == [1, 2, 3, 4, 3, 4]


def test_a_resumed_run_has_the_name_of_its_checkpoint_or_the_one_that_is_given(data, output):
    state = json.loads((output / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["trial_name"].startswith("OUT-2")
    for options, expected in (({}, state["trial_name"]), ({"run_name": "floods"}, "floods")):
        run(data, output, resume_from_checkpoint=output / "checkpoint-2", **options)
        assert json.loads((output / "trainer_state.json").read_text())["trial_name"] == expected


def test_results_hold_the_lists_and_no_names_of_classes(finished):
    results = json.loads((finished / "all_results.json").read_text())
    assert len(results["eval_per_category_iou"]) == 2
    assert not [name for name in results if "/" in name]


@pytest.mark.parametrize(
    ("tracker", "expected"),
    [("tensorboard", "pip install 'prithvi_hf[tensorboard]'"), ("nothing", "nothing is not supported")],
)
def test_a_tracker_that_is_not_there_is_refused(data, tmp_path, capsys, monkeypatch, tracker, expected):
    monkeypatch.setattr("prithvi_hf.training.trackers.find_spec", lambda name: None)
    assert finetune.main([*command_line(data, tmp_path / "OUT"), *flags(report_to=tracker)]) == 2
    printed = capsys.readouterr()
    assert expected in printed.err
    assert "Checking" not in printed.err  # before the chips are read
    assert not (tmp_path / "OUT").exists()


def test_no_picture_is_drawn_for_no_tracker(data, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setitem(
        sys.modules["prithvi_hf.training.trackers"].PLOTS, "segmentation", lambda *a, **b: drawn.append(a)
    )
    run(data, tmp_path / "OUT", num_sample_predictions=0, max_steps=2)
    assert not drawn
    assert not Path(tmp_path / "OUT" / "runs").exists()
