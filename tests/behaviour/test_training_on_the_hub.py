# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Tests of runs that keep themselves on the Hub, over HTTP: checkpoints, resuming elsewhere, results, failures."""

import json
import shutil
import time

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries
from safetensors.torch import load_file
from transformers import pipeline

from prithvi_hf import PrithviForSemanticSegmentation, PrithviImageProcessor
from prithvi_hf.cli.__main__ import main as command
from prithvi_hf.training import finetune
from tests.finetune_factory import command_line, make_chips, read_pixels, run, save_backbone
from tests.hub_server import USER
from tests.raster_factory import make_burn_scars


REPO = f"{USER}/floods"
QUIET = {"num_sample_predictions": 0, "do_predict": "false", "eval_steps": 2, "save_steps": 2, "save_total_limit": 1}
PUSHED = {**QUIET, "max_steps": 6, "push_to_hub": True, "hub_model_id": REPO, "hub_always_push": True}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_chips(tmp_path_factory.mktemp("floods") / "data")


@pytest.fixture
def here(hub, monkeypatch):
    hub.redirect_this_process(monkeypatch)
    return hub


def read_weights(folder):
    return {name: value.numpy().tobytes() for name, value in load_file(folder / "model.safetensors").items()}


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "OUT"
    run(data, folder, **QUIET, max_steps=6)
    return folder


def test_a_run_resumes_from_the_hub_on_a_machine_that_has_nothing(here, data, undisturbed, tmp_path, monkeypatch):
    """Interrupted at step 5; the output folder is lost with the machine, and the other one has another name for it."""
    lost, complete, steps = tmp_path / "lost", finetune.PrithviTrainer.training_step, []

    def interrupt(*arguments, **options):
        steps.append(1)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return complete(*arguments, **options)

    monkeypatch.setattr(finetune.PrithviTrainer, "training_step", interrupt)
    assert finetune.main(command_line(data, lost, **PUSHED)) == 130
    monkeypatch.setattr(finetune.PrithviTrainer, "training_step", complete)
    # What is on its way in the background arrives or not; a run that is killed loses no more than that.
    steps = {f"Training in progress, step {step}" for step in (2, 4)}
    for _ in range(200):
        if steps <= {commit.message for commit in here.commits(REPO)}:
            break
        time.sleep(0.05)
    files = here.files(REPO)
    assert {"model.safetensors", "config.json", "modeling_prithvi.py", "last-checkpoint/optimizer.pt"} <= set(files)
    assert files["last-checkpoint/model.safetensors"] == files["model.safetensors"]
    assert json.loads(files["last-checkpoint/trainer_state.json"])["global_step"] == 4
    assert "best-checkpoint/model.safetensors" in files
    assert PrithviForSemanticSegmentation.from_pretrained(REPO).config.num_labels == 2  # as it is by now
    assert not list(lost.glob(".push-*"))
    shutil.rmtree(lost)

    found = tmp_path / "elsewhere"
    run(data, found, **PUSHED, resume_from_checkpoint=True)
    assert read_weights(found) == read_weights(undisturbed)
    states = [json.loads((folder / "trainer_state.json").read_text()) for folder in (found, undisturbed)]
    assert states[0]["best_metric"] == states[1]["best_metric"]
    assert states[0]["best_global_step"] == states[1]["best_global_step"]
    assert here.files(REPO)["model.safetensors"] == (found / "model.safetensors").read_bytes()


def test_without_a_checkpoint_there_the_run_starts(here, data, tmp_path, caplog):
    run(data, tmp_path / "OUT", **{**PUSHED, "max_steps": 2, "hub_strategy": "end"}, resume_from_checkpoint=True)
    assert "No whole checkpoint" in caplog.text
    assert not [name for name in here.files(REPO) if "checkpoint" in name]


def test_a_damaged_checkpoint_is_refused(here, data, tmp_path, capsys):
    options = {**PUSHED, "max_steps": 2}
    run(data, tmp_path / "OUT", **options)
    here.put_files(REPO, {"last-checkpoint/optimizer.pt": b"cut"}, "model")
    assert finetune.main(command_line(data, tmp_path / "NEW", **options, resume_from_checkpoint=True)) == 2
    assert "optimizer.pt is damaged" in capsys.readouterr().err
    assert not (tmp_path / "NEW").exists()


def test_an_upload_that_fails_on_the_way_is_said_and_the_run_goes_on(here, data, tmp_path, caplog):
    here.refusals["commit"] = [413]
    run(data, tmp_path / "OUT", **{**PUSHED, "max_steps": 2})
    assert "Expected a checkpoint to arrive" in caplog.text
    assert "larger than the Hub takes" in caplog.text
    assert "model.safetensors" in here.files(REPO)  # the last commit, of the finished run


def test_a_token_that_is_not_valid_ends_the_run_before_the_training(here, data, tmp_path, capsys):
    here.refusals["create"] = [401]
    assert finetune.main(command_line(data, tmp_path / "OUT", **PUSHED)) == 2
    assert "log in by `hf auth login`" in capsys.readouterr().err
    assert not (tmp_path / "OUT" / "checkpoint-2").exists()


def test_a_last_upload_that_fails_leaves_a_whole_folder_and_says_how_to_send_it(here, data, tmp_path, capsys):
    here.refusals["commit"] = [403]
    folder = tmp_path / "OUT"
    options = {**PUSHED, "max_steps": 2, "hub_strategy": "end"}
    assert finetune.main(command_line(data, folder, **options)) == 2
    printed = capsys.readouterr().err
    assert "The run is complete" in printed
    words = printed.partition("`prithvi-hf ")[2].partition("`")[0].split()
    assert command(words) == 0
    assert here.files(REPO)["README.md"] == (folder / "README.md").read_bytes()


def test_results_and_licence_go_to_the_hub_in_the_form_that_it_reads(here, tmp_path):
    data = make_burn_scars(tmp_path / "burns", size=48)
    recipe = {"config": "hls_burn_scars", "push_to_hub": True, "hub_model_id": REPO, "hub_strategy": "end"}
    results = run(data, tmp_path / "OUT", **recipe, max_steps=2, num_sample_predictions=0)
    files = here.files(REPO)
    content = yaml.safe_load(files[".eval_results/hls_burn_scars.yaml"])
    entries = {entry.task_id: entry for entry in parse_eval_result_entries(content)}
    assert {entry.dataset_id for entry in entries.values()} == {"ibm-nasa-geospatial/hls_burn_scars"}
    assert entries["test_mean_iou"].value == round(results["test_mean_iou"], 4)
    header = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert header["datasets"] == ["ibm-nasa-geospatial/hls_burn_scars"]
    shown = {row["dataset"]["split"]: row["metrics"][0]["value"] for row in header["model-index"][0]["results"]}
    assert shown["test"] == entries["test_mean_iou"].value
    assert "Licence of the data: cc-by-4.0" in files["README.md"].decode()


def test_an_adapter_of_a_base_on_the_hub_is_pushed_alone_and_maps_by_its_id(here, data, tmp_path, monkeypatch):
    """Its small file is all the weights that go there; commands and the pipeline find the base by its id."""
    pytest.importorskip("peft")
    base = save_backbone(tmp_path / "base")
    here.put_files(f"{USER}/base", {path.name: path.read_bytes() for path in base.iterdir()}, "model")
    options = {"model": f"{USER}/base", "adapter": "lora", "adapter_rank": 2}
    run(data, tmp_path / "OUT", **options, **{**PUSHED, "max_steps": 2, "hub_strategy": "end"})
    weights = {path for path in here.files(REPO) if path.endswith(".safetensors")}
    assert weights == {"adapter_model.safetensors"}
    scene = next(data.rglob("*_S2Hand.tif"))
    for model, name in ((REPO, "hub"), (str(tmp_path / "OUT"), "folder")):
        words = ["predict", "--model", model, "--frames", str(scene), "--device", "cpu", "--quiet"]
        assert command([*words, "--output", str(tmp_path / f"{name}.tif")]) == 0
    expected = read_pixels(tmp_path / "folder.tif")
    assert (read_pixels(tmp_path / "hub.tif") == expected).all()
    # `pipeline(model=REPO)` looks for the adapter at the commit of its base, see docs/strategies.md.
    model, processor = (
        PrithviForSemanticSegmentation.from_pretrained(REPO),
        PrithviImageProcessor.from_pretrained(REPO),
    )
    pipe = pipeline("geospatial-segmentation", model=model, image_processor=processor, device="cpu")
    assert (pipe(str(scene)).mask == expected[0]).all()
