# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/finetune.py as a user runs it: one process and two, killed and resumed, from random weights and models."""

import json
import re
import shutil
import signal
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, pipeline

from prithvi_hf import (
    PrithviConfig,
    PrithviForSemanticSegmentation,
    PrithviImageProcessor,
    PrithviModel,
)
from prithvi_hf.training.checkpoints import find_damage, find_last_checkpoint
from prithvi_hf.training.chip_figures import CHIP_FIGURES
from tests.finetune_factory import SCRIPT, SIZES, command_line, finetune, run, save_model, start
from tests.hub_server import USER
from tests.raster_factory import write_chip, write_mask
from tests.training.test_sample_pictures import png_size


METRICS = (
    *("mean_iou", "mean_accuracy", "overall_accuracy", "mean_f1", "mean_precision", "mean_recall"),
    *("per_category_iou", "per_category_accuracy", "per_category_f1", "per_category_precision"),
    "per_category_recall",
)


def files_under(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def same_metrics(found, expected, prefixes=("eval", "test", "bolivia")):
    for prefix in prefixes:
        for name in METRICS:
            assert found[f"{prefix}_{name}"] == expected[f"{prefix}_{name}"], (prefix, name)
        assert found[f"{prefix}_loss"] == pytest.approx(expected[f"{prefix}_loss"], rel=1e-6)


# ---------------------------------------------------------------- from the files to the results


def test_a_run_leaves_everything(finished):
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        *("config.json", "model.safetensors", "preprocessor_config.json", "README.md", "all_results.json"),
        *("train_results.json", "eval_results.json", "test_results.json", "bolivia_results.json"),
        *("learning_curves.png", "sample_predictions.png", "trainer_state.json", "checkpoint-2", "checkpoint-4"),
        "recipe.yaml",
    }
    width, height = png_size(finished / "learning_curves.png")
    assert width > height > 300
    assert min(png_size(finished / "sample_predictions.png")) > 300


def test_the_results_are_json_with_lists(finished):
    def refuse(text):
        raise AssertionError(f"{text} is no JSON")

    results = json.loads((finished / "all_results.json").read_text(), parse_constant=refuse)
    for prefix in ("eval", "test", "bolivia"):
        for name in METRICS:
            value = results[f"{prefix}_{name}"]
            assert len(value) == 2 if name.startswith("per_category") else 0 <= value <= 1
        assert results[f"{prefix}_loss"] > 0
    assert results["eval_per_category_iou"] != results["test_per_category_iou"]
    assert results["train_loss"] > 0
    assert results["epoch"] == 2.0  # four steps of two of the four chips


def test_the_card_states_the_figures(finished):
    results = json.loads((finished / "all_results.json").read_text())
    text = (finished / "README.md").read_text()
    for prefix, split in {"eval": "validation", "test": "test", "bolivia": "bolivia"}.items():
        figures = [results[f"{prefix}_{name}"] for name in METRICS[:4]]
        assert f"| {split} | " + " | ".join(f"{100 * value:.2f}" for value in figures) + " |" in text
        figures = results[f"{prefix}_per_category_iou"]
        assert f"| {split} | " + " | ".join(f"{100 * value:.2f}" for value in figures) + " |" in text
    assert "0. no water\n1. water\n" in text
    assert "- epochs: 2\n" in text
    assert "| test, published | 88.68 | 94.37 | - | - |" in text
    assert "| test, published | - | 80.46 |" in text
    for split, chips in {"train": 4, "validation": 3, "test": 2, "bolivia": 1}.items():
        assert re.search(rf"\| {split} \| {chips} \| [\d,]+ \| `[0-9a-f]{{64}}` \|", text)
    for package in ("torch", "transformers", "datasets", "rasterio", "prithvi_hf"):
        assert f"- {package}: {version(package)}" in text
    assert "- seed: 0\n" in text
    card = ModelCard.load(finished / "README.md")
    assert {result.dataset_split for result in card.data.eval_results} == {"validation", "test", "bolivia"}


def test_the_history_has_the_schedule_and_the_evaluations(finished):
    state = json.loads((finished / "trainer_state.json").read_text())
    rates = [entry["learning_rate"] for entry in state["log_history"] if "learning_rate" in entry]
    assert rates == pytest.approx([0.001 * 1e-6, 0.00075, 0.0005, 0.00025])
    scores = {entry["step"]: entry["eval_mean_iou"] for entry in state["log_history"] if "eval_mean_iou" in entry}
    assert set(scores) == {2, 4}
    results = json.loads((finished / "all_results.json").read_text())
    assert results["eval_mean_iou"] == max(scores.values()) == state["best_metric"]


def test_what_it_leaves_loads_by_every_door(finished, data):
    pytest.importorskip("PIL")
    folder = str(finished)
    for name in ("config.json", "preprocessor_config.json"):
        assert not {"auto_map", "custom_pipelines"} & set(json.loads((finished / name).read_text()))
    assert not list(finished.glob("*.py"))
    model = PrithviForSemanticSegmentation.from_pretrained(folder)
    assert type(AutoModelForSemanticSegmentation.from_pretrained(folder)) is PrithviForSemanticSegmentation
    processor = AutoImageProcessor.from_pretrained(folder)
    assert type(processor) is PrithviImageProcessor
    assert model.config.id2label == {0: "no water", 1: "water"}
    assert model.config.class_weights == [0.3, 0.7]
    assert (processor.rescale_factor, processor.nodata_value, processor.ignore_values) == (0.0001, -9999, [-1])
    assert processor.image_mean[0] == 0.14245495
    chip = next(data.rglob("Bolivia_10_S2Hand.tif"))
    result = pipeline("geospatial-segmentation", model=folder)(str(chip))
    assert result.mask.shape == (48, 48)
    assert result.crs.to_epsg() == 4326
    assert set(np.unique(result.mask)) <= {0, 1, 255}


@pytest.mark.slow
def test_a_run_can_be_repeated(finished, data, tmp_path):
    again = run(data, tmp_path / "again")
    same_metrics(again, json.loads((finished / "all_results.json").read_text()))
    first, second = (load_file(folder / "model.safetensors") for folder in (finished, tmp_path / "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    by_its_recipe = tmp_path / "by_its_recipe"
    assert finetune.main(["--config", str(finished / "recipe.yaml"), "--output_dir", str(by_its_recipe)]) == 0
    third = load_file(by_its_recipe / "model.safetensors")
    assert all(torch.equal(first[name], third[name]) for name in first)
    other = run(data, tmp_path / "other", seed=1)
    assert other["eval_loss"] != again["eval_loss"]


def test_workers_read_the_chips_too(data, tmp_path):
    found = run(data, tmp_path / "OUT", dataloader_num_workers=1, max_steps=2, test_splits="bolivia")
    assert 0 <= found["bolivia_mean_iou"] <= 1
    assert "test_mean_iou" not in found


@pytest.mark.parametrize(("given", "logged"), [(None, list(range(1, 13))), (5, [5, 10])])
def test_a_short_run_has_a_curve_unless_the_user_chose_otherwise(data, tmp_path, given, logged):
    options = {"max_steps": 12, "num_sample_predictions": 0, "do_eval": "false", "do_predict": "false"}
    options |= {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    run(data, tmp_path / "OUT", logging_steps=given, bf16=True, activation_checkpointing=True, use_cpu=None, **options)
    state = json.loads((tmp_path / "OUT" / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "loss" in entry] == logged


def test_a_run_that_no_longer_improves_ends(data, tmp_path, caplog):
    """At a rate of zero only the first evaluation is the best so far; resuming does not start to count again."""
    options = {"max_steps": 12, "eval_steps": 1, "save_steps": 1, "learning_rate": 0, "early_stopping_patience": 3}
    options |= {"classifier_dropout": 0, "metric_for_best_model": "loss", "num_sample_predictions": 0}
    with pytest.MonkeyPatch.context() as patch:  # batch normalisation alone would change the loss
        patch.setattr(torch.nn.BatchNorm2d, "train", lambda self, mode=True: torch.nn.Module.train(self, False))
        run(data, tmp_path / "OUT", **options)
        assert json.loads((tmp_path / "OUT" / "trainer_state.json").read_text())["global_step"] == 4
        shutil.rmtree(tmp_path / "OUT" / "checkpoint-4")
        caplog.clear()
        run(data, tmp_path / "OUT", **options, resume_from_checkpoint=True)
    assert json.loads((tmp_path / "OUT" / "trainer_state.json").read_text())["global_step"] == 4
    assert "weights are random" not in caplog.text


# ---------------------------------------------------------------- starting from a model


def test_an_absent_class_is_null(data, tmp_path):
    classes = ("dry", "wet", "never")
    model = save_model(tmp_path / "model", classes, unused=[2])
    options = {"do_train": False, "class_names": classes, "class_weights": "none", "class_colors": "none"}
    results = run(data, tmp_path / "OUT", model=model, **options)
    for prefix in ("eval", "test", "bolivia"):
        assert results[f"{prefix}_per_category_iou"][2] is None
        assert results[f"{prefix}_per_category_f1"][2] is None
        first, second, _ = results[f"{prefix}_per_category_iou"]
        assert results[f"{prefix}_mean_iou"] == pytest.approx((first + second) / 2)
    assert "null" in (tmp_path / "OUT" / "all_results.json").read_text()


def test_evaluating_again_changes_nothing_but_the_results(output, finished, data):
    before = files_under(output)
    results = run(data, output, model=output, do_train=False)
    expected = json.loads((finished / "all_results.json").read_text())
    same_metrics(results, expected)
    assert (results["train_loss"], results["epoch"]) == (expected["train_loss"], expected["epoch"])
    after = files_under(output)
    changed = {name for name in before if after[name] != before[name]}
    results = {f"{name}_results.json" for name in ("all", "eval", "test", "bolivia")}
    assert changed <= {CHIP_FIGURES, *results}
    assert set(after) == set(before)  # the checkpoints are where they were


def test_evaluating_one_split_needs_no_other(finished, data, tmp_path):
    root = shutil.copytree(data, tmp_path / "few")
    for name in ("train", "valid", "test"):
        next(root.rglob(f"flood_{name}_data.csv")).unlink()
    options = {"do_train": False, "do_eval": False, "test_splits": "bolivia"}
    results = run(root, tmp_path / "OUT", model=finished, **options)
    expected = json.loads((finished / "all_results.json").read_text())
    same_metrics(results, expected, ["bolivia"])
    assert "eval_mean_iou" not in results


def test_a_backbone_of_three_frames_trains(data, tmp_path):
    torch.manual_seed(1)
    backbone = PrithviModel(PrithviConfig(num_frames=3, **SIZES))
    backbone.save_pretrained(tmp_path / "backbone")
    sizes = dict.fromkeys(SIZES)  # they come from the backbone
    # the first step of a warm-up has a millionth of the rate: the encoder is still the backbone's
    options = {"max_steps": 1, "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    options |= {"do_eval": False, "do_predict": False}
    run(data, tmp_path / "OUT", model=tmp_path / "backbone", **{**sizes, **options, "image_size": 32})
    model = PrithviForSemanticSegmentation.from_pretrained(tmp_path / "OUT")
    assert (model.config.num_frames, model.config.hidden_size, model.config.num_hidden_layers) == (1, 32, 1)
    for name, value in backbone.named_parameters():
        torch.testing.assert_close(model.prithvi.get_parameter(name), value, atol=1e-5, rtol=0, msg=name)
    assert "`" + str(tmp_path / "backbone") + "`" in (tmp_path / "OUT" / "README.md").read_text()


@pytest.mark.slow
def test_the_training_split_can_be_evaluated(data, tmp_path):
    """On whole chips like any other, not on the random crops that it is trained on."""
    trained = run(data, tmp_path / "OUT", eval_split="train", test_splits="test")
    options = {"do_train": False, "eval_split": "train", "test_splits": "test"}
    again = run(data, tmp_path / "again", model=tmp_path / "OUT", **options)
    same_metrics(again, trained, ["eval", "test"])


def test_ones_own_folder(tmp_path):
    root = tmp_path / "data"
    for seed, split in enumerate(("train", "train", "validation", "test")):
        write_chip(root / split / f"{seed}.tif", (40, 36), seed=seed)
        write_mask(root / split / f"{seed}_mask.tif", (40, 36), seed=seed)
    builder = {"mask_suffix": "_mask.tif", "cache_dir": str(tmp_path / "cache")}
    options = {"dataset": "geotiff_folder", "dataset_options": json.dumps(builder), "test_splits": "test"}
    options |= {"band_indices": "none", "augmentation": "d4", "max_steps": 2, "crop_size": 48}
    results = run(root, tmp_path / "OUT", **options)
    assert results["test_mean_iou"] > 0


def test_pushing_the_result(hub, monkeypatch, data, tmp_path):
    hub.redirect_this_process(monkeypatch)
    options = {"push_to_hub": True, "hub_model_id": f"{USER}/floods", "hub_strategy": "end", "test_splits": "bolivia"}
    run(data, tmp_path / "OUT", max_steps=2, **options)
    files = hub.files(f"{USER}/floods")
    local = tmp_path / "OUT"
    for name in ("model.safetensors", "README.md", "all_results.json", "learning_curves.png"):
        assert files[name] == (local / name).read_bytes(), name
    assert {"modeling_prithvi.py", "preprocessor_config.json", "sample_predictions.png"} <= set(files)
    assert not [name for name in files if "checkpoint" in name or name.endswith((".bin", ".pt", ".pth"))]
    assert "auto_map" in hub.json(f"{USER}/floods", "config.json")
    assert "auto_map" not in json.loads((local / "config.json").read_text())


# ---------------------------------------------------------------- interrupted runs


MOMENTS = {
    "before the first checkpoint": ("training_step", 2, None),
    "after a checkpoint": ("training_step", 3, "checkpoint-2"),
    "as the first checkpoint is written": ("_save_optimizer_and_scheduler", 1, None),
    "as the second checkpoint is written": ("_save_rng_state", 2, "checkpoint-2"),
    "before the best model is saved": ("save_model", 3, "checkpoint-4"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_goes_on_from_every_moment(data, finished, tmp_path, capsys, monkeypatch, moment):
    """Interrupted at the n-th call of a method of the trainer; the steps and their rates are those of `finished`."""
    method, number, checkpoint = MOMENTS[moment]
    output, calls = tmp_path / "OUT", []
    complete = getattr(finetune.PrithviTrainer, method)

    def interrupt(*arguments, **options):
        calls.append(method)
        if len(calls) == number:
            raise KeyboardInterrupt
        return complete(*arguments, **options)

    options = {"num_sample_predictions": 0, "do_eval": "false", "do_predict": "false"}
    monkeypatch.setattr(finetune.PrithviTrainer, method, interrupt)
    assert finetune.main(command_line(data, output, **options)) == 130
    printed = capsys.readouterr().err
    assert (f"continues from {output / checkpoint}\n" if checkpoint else "there is no whole checkpoint yet") in printed
    run(data, output, **options, resume_from_checkpoint=True)
    logged = [
        [(entry["step"], entry["learning_rate"]) for entry in state["log_history"] if "loss" in entry]
        for state in (json.loads((folder / "trainer_state.json").read_text()) for folder in (output, finished))
    ]
    assert logged[0] == logged[1]
    assert find_damage(output / "checkpoint-4") is None


def wait_for(path, process, timeout=120):
    end = time.monotonic() + timeout
    while not path.exists():
        assert process.poll() is None, f"ended before {path.name} appeared:\n{process.communicate()[0][-3000:]}"
        assert time.monotonic() < end, f"{path.name} did not appear"
        time.sleep(0.01)


def half_written(checkpoint, step):
    """A newer checkpoint whose writing was cut off: the last file, trainer_state.json, is not there."""
    copy = checkpoint.with_name(f"checkpoint-{step}")
    shutil.copytree(checkpoint, copy)
    (copy / "trainer_state.json").unlink()
    (copy / "scheduler.pt").write_bytes(b"")
    return copy


@pytest.mark.slow
def test_a_killed_run_goes_on(data, tmp_path, caplog):
    output = tmp_path / "OUT"
    steps = {"max_steps": 90, "save_steps": 10, "eval_steps": 10, "num_sample_predictions": 0, "warmup_steps": 5}
    steps |= {"test_splits": "bolivia", "save_total_limit": None}
    process = start(command_line(data, output, **steps))
    wait_for(output / "checkpoint-10" / "trainer_state.json", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (output / "model.safetensors").exists()
    last = find_last_checkpoint(output)
    reached = int(last.rpartition("-")[2])
    assert 10 <= reached < 90
    history = json.loads((Path(last) / "trainer_state.json").read_text())["log_history"]
    half_written(Path(last), 85)

    run(data, output, **steps, resume_from_checkpoint=True)
    assert f"Resuming from {last}." in caplog.text
    state = json.loads((output / "trainer_state.json").read_text())
    assert state["global_step"] == state["max_steps"] == 90
    assert state["log_history"][: len(history)] == history
    logged = [entry["step"] for entry in state["log_history"] if "loss" in entry]
    assert logged == list(range(1, 91))  # each step once
    rates = {entry["step"]: entry["learning_rate"] for entry in state["log_history"] if "loss" in entry}
    # the rate that a step was made with
    assert rates[reached + 1] == pytest.approx(0.001 * (1 - reached / 90), rel=1e-6)
    assert (output / "README.md").exists()
    assert not list(output.glob("earlier-*"))


def test_a_half_written_checkpoint_is_passed_over(data, output, caplog):
    """And what was saved after it in time is what the run goes on from."""
    (output / "model.safetensors").unlink()
    shutil.rmtree(output / "checkpoint-4")
    half_written(output / "checkpoint-2", 4)
    results = run(data, output, resume_from_checkpoint="true")
    assert f"Resuming from {output / 'checkpoint-2'}." in caplog.text
    state = json.loads((output / "trainer_state.json").read_text())
    assert state["global_step"] == 4
    assert (output / "checkpoint-4" / "trainer_state.json").exists()  # written again
    assert (output / "model.safetensors").exists()
    assert results["eval_mean_iou"] == state["best_metric"]


def test_a_resumed_run_ends_as_an_uninterrupted_one(data, output, finished):
    """Chips, crops and dropout are those that the uninterrupted run drew."""
    shutil.rmtree(output / "checkpoint-4")
    (output / "model.safetensors").unlink()
    run(data, output, resume_from_checkpoint=output / "checkpoint-2")
    resumed, whole = (load_file(folder / "checkpoint-4" / "model.safetensors") for folder in (output, finished))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    loss, expected = (json.loads((f / "train_results.json").read_text())["train_loss"] for f in (output, finished))
    assert loss == pytest.approx(expected, rel=1e-6)  # of all steps, not of those since
    states = [json.loads((folder / "trainer_state.json").read_text()) for folder in (output, finished)]
    logged = [
        [(entry["step"], entry["learning_rate"]) for entry in s["log_history"] if "loss" in entry] for s in states
    ]
    assert logged[0] == logged[1]


def test_resuming_a_finished_run_keeps_its_results(data, output, finished):
    results = run(data, output, resume_from_checkpoint=True)
    same_metrics(results, json.loads((finished / "all_results.json").read_text()))
    before, after = (load_file(folder / "model.safetensors") for folder in (finished, output))
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_a_resumed_run_of_a_backbone_is_not_said_to_start_anew(data, output, tmp_path, caplog):
    PrithviModel(PrithviConfig(num_frames=1, **SIZES)).save_pretrained(tmp_path / "backbone")
    options = dict.fromkeys(SIZES) | {"model": tmp_path / "backbone", "num_sample_predictions": 0}
    run(data, output, resume_from_checkpoint=True, **options)
    assert "MISSING" not in caplog.text
    run(data, tmp_path / "OUT", max_steps=1, **options)
    assert "MISSING" in caplog.text


def test_nothing_to_resume_is_a_fresh_start(data, tmp_path, finished, caplog):
    results = run(data, tmp_path / "OUT", resume_from_checkpoint=True)
    assert f"No whole checkpoint in {tmp_path / 'OUT'}: a fresh start." in caplog.text
    same_metrics(results, json.loads((finished / "all_results.json").read_text()))


def test_a_fresh_run_moves_earlier_checkpoints_aside(data, output, caplog):
    before = files_under(output)
    options = {"max_steps": 2, "save_steps": 1, "test_splits": "test", "resume_from_checkpoint": False}
    results = run(data, output, **options)
    [aside] = output.glob("earlier-*")
    assert f"they are in {aside} now" in caplog.text
    kept = files_under(aside)
    old = {name for name in before if name.startswith("checkpoint-")}
    assert old
    assert {name: kept[name] for name in old} == {name: before[name] for name in old}
    assert kept["all_results.json"] == before["all_results.json"]
    # figures of the earlier run would pass for those of this model
    assert "bolivia_mean_iou" not in results
    assert json.loads((output / "trainer_state.json").read_text())["global_step"] == 2
    assert {path.name for path in output.glob("checkpoint-*")} <= {"checkpoint-1", "checkpoint-2"}


def test_a_refused_run_moves_nothing(data, output, capsys):
    before = files_under(output)
    for options in (
        {"model": output, "hidden_size": 64},
        {"model": output / "absent"},
        {"resume_from_checkpoint": output / "checkpoint-99"},
    ):
        assert finetune.main(command_line(data, output, **options)) == 2
        assert "error: " in capsys.readouterr().err
        assert files_under(output) == before


# ---------------------------------------------------------------- two processes


@pytest.mark.slow
def test_two_processes_report_the_metrics_of_the_model_they_save(data, trained_by_two, tmp_path):
    """Batch normalisation sees other chips in each process; what counts is what was saved.

    The splits have three, two and one chips: none is counted twice, and one process may have none.
    """
    output = trained_by_two.output
    found = json.loads((output / "all_results.json").read_text())
    same_metrics(run(data, tmp_path / "one", model=output, do_train=False), found)
    assert found["eval_loss"] != found["test_loss"]
    assert json.loads((output / "trainer_state.json").read_text())["global_step"] == 6
    assert found["epoch"] == 3.0  # a chip in each of two processes, four in an epoch
    assert (output / "sample_predictions.png").exists()


@pytest.mark.slow
def test_two_processes_train_as_one(data, trained_by_two, tmp_path):
    """With the same chips in a step: crops, loss and batch normalisation are those of all processes."""
    run(data, tmp_path / "one", **{**trained_by_two.options, "per_device_train_batch_size": 2})
    one, two = (
        json.loads((folder / "trainer_state.json").read_text())["log_history"]
        for folder in (tmp_path / "one", trained_by_two.output)
    )
    for name in ("loss", "grad_norm", "eval_loss", "eval_mean_iou"):
        values = [[entry[name] for entry in history if name in entry] for history in (one, two)]
        assert values[0] == pytest.approx(values[1], abs=1e-5), name
    first, second = (load_file(folder / "model.safetensors") for folder in (tmp_path / "one", trained_by_two.output))
    for name in first:
        if not name.endswith("k_proj.bias"):  # attention does not depend on it: Adam makes steps of rounding errors
            torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=1e-5, msg=name)


def test_help_and_its_manual(capsys):
    with pytest.raises(SystemExit) as caught:
        finetune.main(["--help"])
    assert caught.value.code == 0
    assert "--resume_from_checkpoint" in capsys.readouterr().out
    manual = SCRIPT.read_text()
    for word in ("accelerate launch", "torchrun", "--resume_from_checkpoint true", "--model", "prithvi-hf finetune"):
        assert word in manual
