# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Tests of `prithvi-hf push` over HTTP: what arrives, what is said of failures, what a second try sends."""

import pytest

from prithvi_hf.cli.__main__ import main
from prithvi_hf.models.prithvi.remote_code_prithvi import source_files
from tests.hub_server import USER
from tests.scene_factory import tiny_model, tiny_processor


REPO = f"{USER}/floods"


@pytest.fixture
def folder(tmp_path):
    """A model as a training run leaves it, with results for the Hub."""
    folder = tmp_path / "floods"
    tiny_model().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    (folder / ".eval_results").mkdir()
    (folder / ".eval_results" / "floods.yaml").write_text("[]\n")
    (folder / ".lock").write_text("")
    (folder / "curves.png").write_bytes(b"a picture")
    return folder


@pytest.fixture
def here(hub, monkeypatch):
    hub.redirect_this_process(monkeypatch)
    return hub


def test_a_folder_arrives_with_code_and_results(here, folder, capsys):
    assert main(["push", str(folder)]) == 0
    files = here.files(REPO)
    own = {"config.json", "model.safetensors", "preprocessor_config.json", "curves.png", ".eval_results/floods.yaml"}
    assert set(files) == own | {path.name for path in source_files()}
    assert f"uploaded: {here.endpoint}/{REPO}/commit/" in capsys.readouterr().out


def test_repository_branch_and_message_are_options(here, folder):
    words = ["--repo_id", "team/other", "--revision", "trial", "--commit_message", "Try it"]
    assert main(["push", str(folder), *words]) == 0
    assert here.files("team/other") == {}
    assert "model.safetensors" in here.files("team/other", revision="trial")
    assert here.commits("team/other")[-1].message == "Try it"


@pytest.mark.parametrize(
    ("route", "status", "remedy"),
    [
        ("create", 401, "log in by `hf auth login`"),
        ("commit", 403, "may not write there"),
        ("store", 413, "larger than the Hub takes"),
        ("commit", 413, "larger than the Hub takes"),
    ],
)
def test_a_refusal_is_said_with_its_remedy_and_the_next_try_succeeds(here, folder, capsys, route, status, remedy):
    here.refusals[route] = [status]
    assert main(["push", str(folder)]) == 2
    printed = capsys.readouterr().err
    assert str(status) in printed
    assert remedy in printed
    assert "Traceback" not in printed
    assert main(["push", str(folder)]) == 0
    assert "model.safetensors" in here.files(REPO)


def test_after_a_broken_connection_only_what_is_missing_is_sent(here, folder, capsys, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # of the library, between its own tries
    here.refusals["commit"] = [None] * 20
    assert main(["push", str(folder)]) == 2
    assert "Expected a connection to the Hub" in capsys.readouterr().err
    sent = sum(method == "PUT" for method, _ in here.requests)
    assert sent == 2  # weights and picture
    here.refusals.clear()
    assert main(["push", str(folder)]) == 0
    assert sum(method == "PUT" for method, _ in here.requests) == sent
    assert here.files(REPO)["curves.png"] == b"a picture"


def test_a_large_file_whose_connection_breaks_once_is_sent_again(here, folder, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    here.refusals["store"] = [None]
    assert main(["push", str(folder)]) == 0
    assert here.files(REPO)["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_what_is_no_model_is_refused_before_anything_is_sent(here, tmp_path, capsys):
    assert main(["push", str(tmp_path)]) == 2
    assert "lacks config.json" in capsys.readouterr().err
    assert main(["push", str(tmp_path / "nowhere")]) == 2
    assert here.requests == []
