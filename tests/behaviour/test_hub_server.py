# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Tests of the loopback Hub with models and datasets that are not ours, so that ours are tested on proven ground."""

import subprocess
import sys
import urllib.request

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub_server import TOKEN, USER


@pytest.fixture
def api(hub, monkeypatch):
    hub.redirect_this_process(monkeypatch)
    return HfApi(endpoint=hub.endpoint, token=TOKEN)


def add(path, content):
    return CommitOperationAdd(path_in_repo=path, path_or_fileobj=content)


def run_in_fresh_process(script, hub, folder):
    command = [sys.executable, "-I", "-c", script]
    run = subprocess.run(command, cwd=folder, env=hub.env, capture_output=True, text=True, timeout=180)
    assert run.returncode == 0, run.stderr
    return run.stdout


PUSH_AND_LOAD = """
import torch
from transformers import ViTConfig, ViTModel

config = ViTConfig(hidden_size=192, num_hidden_layers=2, num_attention_heads=2, intermediate_size=768, image_size=32)
torch.manual_seed(0)
model = ViTModel(config).eval()
print(model.num_parameters())
model.push_to_hub("round-trip", commit_message="first")
model.push_to_hub("round-trip", commit_message="second")
with torch.no_grad():
    model.pooler.dense.bias.add_(1)
model.push_to_hub("round-trip", commit_message="third")
loaded = ViTModel.from_pretrained("tester/round-trip").eval()
pixel_values = torch.rand(1, 3, 32, 32)
assert torch.allclose(model(pixel_values).pooler_output, loaded(pixel_values).pooler_output, atol=1e-6)
"""


def test_a_transformers_model_makes_the_round_trip_in_a_fresh_process(hub, tmp_path):
    printed = run_in_fresh_process(PUSH_AND_LOAD, hub, tmp_path)
    files = hub.files(f"{USER}/round-trip")
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    assert len(files["model.safetensors"]) > 4 * int(printed.split()[0]) > 3_000_000
    # the second push changed nothing and makes no commit
    assert [commit.message for commit in hub.commits(f"{USER}/round-trip")] == ["first", "third"]
    assert hub.json(f"{USER}/round-trip", "config.json")["hidden_size"] == 192


PUSH_AND_LOAD_ROWS = """
from datasets import Dataset, load_dataset

Dataset.from_dict({"a": [1, 2, 3]}).push_to_hub("table")
assert load_dataset("tester/table", split="train").to_dict() == {"a": [1, 2, 3]}
"""


def test_a_dataset_makes_the_round_trip_in_a_fresh_process(hub, tmp_path):
    run_in_fresh_process(PUSH_AND_LOAD_ROWS, hub, tmp_path)
    files = hub.files(f"{USER}/table", repo_type="dataset")
    assert set(files) == {"README.md", "data/train-00000-of-00001.parquet"}


def test_revisions_by_branch_and_commit(api, hub):
    repo_id = api.create_repo("revisions").repo_id
    assert repo_id == f"{USER}/revisions"
    first = api.create_commit(repo_id, operations=[add("a.txt", b"one"), add("sub/b.txt", b"b")], commit_message="1")
    second = api.create_commit(repo_id, operations=[add("a.txt", b"two")], commit_message="2")
    api.create_branch(repo_id, branch="old", revision=first.oid)
    api.create_branch(repo_id, branch="old", exist_ok=True)

    def read(**kwargs):
        with open(hf_hub_download(repo_id, "a.txt", **kwargs), "rb") as file:
            return file.read()

    assert read() == b"two"
    assert read(revision=first.oid) == read(revision="old") == b"one"
    assert api.model_info(repo_id).sha == second.oid
    assert api.model_info(repo_id, revision="old").sha == first.oid
    assert hub.files(repo_id, revision=first.oid) == {"a.txt": b"one", "sub/b.txt": b"b"}


def test_listing_a_repository(api):
    repo_id = api.create_repo("listing").repo_id
    operations = [add("README.md", b"---\nlicense: mit\npipeline_tag: x\n---\n"), add("d/e/f.bin", b"\0" * 7)]
    api.create_commit(repo_id, operations=operations, commit_message="files")
    assert api.list_repo_files(repo_id) == ["README.md", "d/e/f.bin"]
    assert [entry.path for entry in api.list_repo_tree(repo_id)] == ["d", "README.md"]
    assert [entry.path for entry in api.list_repo_tree(repo_id, "d")] == ["d/e"]
    assert [entry.path for entry in api.list_repo_tree(repo_id, recursive=True)] == [
        "d",
        "d/e",
        "README.md",
        "d/e/f.bin",
    ]
    (info,) = api.get_paths_info(repo_id, ["d/e/f.bin", "absent"])
    assert (info.path, info.size) == ("d/e/f.bin", 7)
    assert api.model_info(repo_id).pipeline_tag == "x"
    assert api.file_exists(repo_id, "d/e/f.bin")
    assert not api.file_exists(repo_id, "d/e/g.bin")
    operations = [CommitOperationDelete("d/", is_folder=True)]
    api.create_commit(repo_id, operations=operations, commit_message="delete")
    assert api.list_repo_files(repo_id) == ["README.md"]


def test_kinds_of_repositories_do_not_mix(api, hub):
    for repo_type in ("model", "dataset"):
        repo_id = api.create_repo("same", repo_type=repo_type).repo_id
        api.upload_file(path_or_fileobj=repo_type.encode(), path_in_repo="kind", repo_id=repo_id, repo_type=repo_type)
    assert hub.files(repo_id) == {"kind": b"model"}
    assert hub.files(repo_id, repo_type="dataset") == {"kind": b"dataset"}
    with open(hf_hub_download(repo_id, "kind", repo_type="dataset"), "rb") as file:
        assert file.read() == b"dataset"


def test_refusals(api, hub):
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(f"{USER}/absent")
    repo_id = api.create_repo("refusals").repo_id
    assert api.create_repo("refusals", exist_ok=True).repo_id == repo_id
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("refusals")
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(repo_id, "absent.txt")
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download(repo_id, "absent.txt", revision="absent")
    with pytest.raises(ValueError, match="Invalid metadata"):
        api.create_commit(repo_id, operations=[add("README.md", b"---\na: [\n---\n")], commit_message="card")
    with pytest.raises(HfHubHTTPError, match="401"):
        HfApi(endpoint=hub.endpoint, token="hf_other").create_repo("other")
    hub.read_only = True
    with pytest.raises(HfHubHTTPError, match="403"):
        api.create_commit(repo_id, operations=[add("a", b"a")], commit_message="a")
    assert hub.files(repo_id) == {}


def test_partial_downloads(api, hub):
    repo_id = api.create_repo("ranges").repo_id
    api.upload_file(path_or_fileobj=b"0123456789", path_in_repo="digits", repo_id=repo_id)
    request = urllib.request.Request(f"{hub.endpoint}/{repo_id}/resolve/main/digits", headers={"Range": "bytes=2-4"})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 206
        assert answer.headers["Content-Range"] == "bytes 2-4/10"
        assert answer.read() == b"234"


def test_the_environment_names_nothing_outside(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", "/elsewhere")
    assert hub.env["HF_ENDPOINT"] == hub.endpoint
    assert not {"HF_HUB_OFFLINE", "HF_HUB_CACHE"} & set(hub.env)
