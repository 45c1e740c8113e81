# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Finding the newest whole checkpoint, past those that were cut off or damaged."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prithvi_hf.training import checkpoints
from prithvi_hf.training.checkpoints import begin_digests, find_damage, find_last_checkpoint, write_digests


def make_checkpoint(folder: Path, step: int | str, state: str | None = '{"global_step": 1}') -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    save_file({"weight": torch.zeros(2)}, checkpoint / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({}, checkpoint / name)
    (checkpoint / "config.json").write_text("{}")
    if state is not None:
        (checkpoint / "trainer_state.json").write_text(state)
    return checkpoint


def test_the_last_whole_checkpoint(tmp_path):
    assert find_last_checkpoint(tmp_path / "absent") is None
    assert find_last_checkpoint(tmp_path) is None
    make_checkpoint(tmp_path, 100, state=None)
    assert find_last_checkpoint(tmp_path) is None
    make_checkpoint(tmp_path, 9)
    tenth = make_checkpoint(tmp_path, 10)
    make_checkpoint(tmp_path, "best")  # the user's own
    make_checkpoint(tmp_path, 20, state="")
    make_checkpoint(tmp_path, 30, state='{"global_st')
    make_checkpoint(tmp_path / "earlier-1", 40)
    (tmp_path / "checkpoint-50").write_text("not a folder")
    assert find_last_checkpoint(tmp_path) == str(tenth)
    assert find_last_checkpoint(str(tmp_path)) == str(tenth)


def cut_to(share):
    def cut(path):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return cut


DAMAGES = {
    "missing": Path.unlink,
    "empty": cut_to(0),
    "cut in the header": cut_to(0.02),
    "cut at the end": cut_to(0.99),
    "another file": lambda path: path.write_bytes(b"\x00" * path.stat().st_size),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "config.json"]
)
def test_a_damaged_checkpoint_is_passed_over(output, caplog, name, damage):
    assert find_last_checkpoint(output) == str(output / "checkpoint-4")
    assert caplog.text == ""
    DAMAGES[damage](output / "checkpoint-4" / name)
    assert find_last_checkpoint(output) == str(output / "checkpoint-2")
    state = "missing" if damage == "missing" else "damaged"
    assert f"{output / 'checkpoint-4'}, which is not whole: {name} is {state}" in caplog.text


@pytest.mark.parametrize("name", ["optimizer.pt", "model.safetensors", "scheduler.pt", "trainer_state.json"])
def test_damage_inside_a_file_that_looks_whole_is_found(output, caplog, name):
    path = output / "checkpoint-4" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # a weight, a number, or a digit of a number
    path.write_bytes(content)
    assert find_last_checkpoint(output) == str(output / "checkpoint-2")
    assert f"{output / 'checkpoint-4'}, which is not whole: {name} is damaged" in caplog.text


def test_a_checkpoint_of_an_earlier_version_has_no_digests(output):
    (output / "checkpoint-4" / "sha256.json").unlink()
    assert find_last_checkpoint(output) == str(output / "checkpoint-4")


def test_the_state_of_every_process_is_looked_at(output):
    checkpoint = output / "checkpoint-2"
    (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    shutil.copy(checkpoint / "rng_state_0.pth", checkpoint / "rng_state_1.pth")
    write_digests(checkpoint)
    assert find_damage(checkpoint) is None
    cut_to(0.5)(checkpoint / "rng_state_1.pth")
    assert find_damage(checkpoint) == "rng_state_1.pth is damaged"


def test_runs_put_aside_in_the_same_second_are_all_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints.time, "strftime", lambda pattern: "20261122-200821")
    for run_number in range(3):
        (tmp_path / "checkpoint-1").mkdir()
        (tmp_path / "checkpoint-1" / "number").write_text(str(run_number))
        checkpoints.put_aside(tmp_path, ["checkpoint-*"])
    names = ("earlier-20261122-200821", "earlier-20261122-200821-2", "earlier-20261122-200821-3")
    assert [(tmp_path / name / "checkpoint-1" / "number").read_text() for name in names] == ["0", "1", "2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == list(names)


def test_a_checkpoint_is_not_whole_before_its_digests_are_written(output):
    begin_digests(output / "checkpoint-4")
    assert find_damage(output / "checkpoint-4") == "sha256.json is damaged"
    assert find_last_checkpoint(output) == str(output / "checkpoint-2")
    known = {"model.safetensors": "given"}
    assert write_digests(output / "checkpoint-4", known)["model.safetensors"] == "given"


@pytest.mark.parametrize("part", ["pytorch_model_fsdp_0/__0_0.distcp", "pytorch_model_fsdp.bin", "global_step2/x.pt"])
def test_parts_of_several_processes_need_digests(tmp_path, part):
    checkpoint = make_checkpoint(tmp_path, 2)
    (checkpoint / part).parent.mkdir(exist_ok=True)
    (checkpoint / part).write_bytes(b"weights")
    assert find_damage(checkpoint) == "sha256.json is missing"
    write_digests(checkpoint)
    assert find_damage(checkpoint) is None
    cut_to(0.5)(checkpoint / part)
    assert find_damage(checkpoint) == f"{part} is damaged"
