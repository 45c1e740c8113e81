# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Division of scenes between processes. Threads stand in for processes; test_cli_predict.py launches real ones."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from prithvi_hf.scenes.predict_scenes import (
    DONE,
    FAILED,
    SKIPPED,
    OtherProcessError,
    Outcome,
    ProcessGroup,
    Work,
    adopt_slurm,
    format_outcomes,
    process_group,
    run_scenes,
)
from prithvi_hf.scenes.scene_list import SceneEntry


SCENES = [SceneEntry(f"scene-{number}", (f"{number}.tif",), "list, line 1") for number in range(7)]


class ThreadGroup(ProcessGroup):
    """A group whose processes are threads."""

    @classmethod
    def of(cls, count):
        barrier, board = threading.Barrier(count), [None] * count
        groups = [cls(index, count, index) for index in range(count)]
        for group in groups:
            object.__setattr__(group, "_group", (barrier, board))
        return groups

    def gather(self, value):
        barrier, board = self._group
        board[self.index] = value
        barrier.wait(timeout=60)
        values = list(board)
        barrier.wait(timeout=60)
        return values


def launch(count, run):
    """Run a function in each process of a group and give all results."""
    with ThreadPoolExecutor(count) as pool:
        return [future.result(timeout=120) for future in [pool.submit(run, group) for group in ThreadGroup.of(count)]]


def work_of(predict, finished=()):
    def explain(error):
        return str(error) if isinstance(error, ValueError) else None

    return Work(
        predict,
        lambda scene: {"map": f"{scene.name}.tif"},
        lambda scene: scene.name in finished,
        explain,
    )


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_scene_belongs_to_one_process(count):
    shares = [ProcessGroup(index, count).select(SCENES) for index in range(count)]
    assert sorted(scene.name for share in shares for scene in share) == [scene.name for scene in SCENES]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("count", [1, 3])
def test_a_failed_scene_does_not_stop_the_others(tmp_path, count, capsys):
    done = []

    def predict(scene):
        if scene.name == "scene-2":
            raise ValueError("its file is damaged\n")
        if scene.name == "scene-3":
            raise RuntimeError("a fault of the program")
        done.append(scene.name)
        return {"strips": 4}

    scenes = [*SCENES, SceneEntry("last", ("a.tif",), "list", problem="one date is missing")]
    work = work_of(predict, finished=("scene-5",))
    results = launch(count, lambda group: run_scenes(scenes, work, group, tmp_path / "summary.json"))
    assert all(result == results[0] for result in results)
    assert sorted(done) == ["scene-0", "scene-1", "scene-4", "scene-6"]
    expected = [DONE, DONE, FAILED, FAILED, DONE, SKIPPED, DONE, FAILED]
    assert [outcome.status for outcome in results[0]] == expected
    assert [outcome.reason for outcome in results[0] if outcome.reason] == [
        "its file is damaged",
        "RuntimeError: a fault of the program",
        "one date is missing",
    ]
    assert "Traceback" in capsys.readouterr().err
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["counts"] == {"done": 4, "skipped": 1, "failed": 3}
    assert summary["processes"] == count
    assert [scene["status"] for scene in summary["scenes"]] == expected
    assert summary["scenes"][0]["outputs"] == {"map": "scene-0.tif"}
    assert summary["scenes"][0]["details"] == {"strips": 4}
    assert [scene["process"] for scene in summary["scenes"]] == [number % count for number in range(8)]
    assert summary["scenes"][2]["outputs"] == {}
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("failing", ["before", "after", "main at the end", "all"])
def test_processes_that_share_a_scene_fail_together_and_go_on(tmp_path, failing):
    """Whenever one fails the others learn of it at their next meeting, and all go on with the next scene."""

    def run(group):
        def predict(scene):
            fails = scene.name == "scene-1" and (group.index == 1 or failing == "all")
            if fails and failing in ("before", "all"):
                raise ValueError("out of luck")
            group.barrier()
            if fails and failing == "after":
                raise ValueError("out of luck")
            group.barrier()
            if scene.name == "scene-1" and group.is_main and failing == "main at the end":
                raise ValueError("out of luck")
            return {}

        return run_scenes(SCENES[:3], work_of(predict), group, tmp_path / "summary.json", split=True)

    results = launch(3, run)
    assert all([outcome.status for outcome in result] == [DONE, FAILED, DONE] for result in results)
    assert "out of luck" in results[0][1].reason
    if failing in ("before", "after"):
        assert results[0][1].reason == "process 1: out of luck"
    assert json.loads((tmp_path / "summary.json").read_text())["counts"]["failed"] == 1


def test_processes_agree_on_what_is_finished(tmp_path):
    def run(group):
        def finished(scene):  # on a shared disk one process may see a file that another does not see yet
            if group.index == 1:
                raise OSError("stale file handle")
            return scene.name == "scene-0"

        work = Work(lambda scene: group.barrier() or {}, lambda scene: {}, finished)
        return run_scenes(SCENES[:2], work, group, tmp_path / "summary.json", split=True)

    assert all([outcome.status for outcome in result] == [SKIPPED, DONE] for result in launch(2, run))


def test_barrier_tells_of_the_failure_of_another():
    def run(group):
        if group.index == 0:
            return group.gather("no space left")
        with pytest.raises(OtherProcessError, match="process 0: no space left"):
            group.barrier()
        return None

    launch(2, run)


def test_interruption_is_not_caught(tmp_path):
    def predict(scene):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_scenes(SCENES, work_of(predict), ProcessGroup(), tmp_path / "summary.json")
    assert not list(tmp_path.iterdir())


def test_outcomes_are_told_as_they_come(tmp_path):
    told = []
    run_scenes(
        SCENES[:2],
        work_of(lambda scene: {}),
        ProcessGroup(),
        tmp_path / "summary.json",
        on_outcome=lambda number, outcome: told.append((number, outcome.name)),
    )
    assert told == [(0, "scene-0"), (1, "scene-1")]


def test_table():
    outcomes = [Outcome("a", DONE, 1.25), Outcome("long-name", FAILED, 0.5, "no such file"), Outcome("c", SKIPPED)]
    lines = format_outcomes(outcomes).splitlines()
    assert lines[1].split() == ["long-name", "failed", "0.5", "s", "no", "such", "file"]
    assert lines[-1] == "1 done, 1 skipped, 1 failed"
    lines = format_outcomes(outcomes, most=1).splitlines()
    assert lines[0].startswith("long-name")
    assert lines[1] == "... and 2 more"


def test_one_process_needs_no_group(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "SLURM_STEP_NUM_TASKS", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with process_group() as group:
        assert (group.index, group.count, group.is_main) == (0, 1, True)
        group.barrier()
        assert group.gather("a") == ["a"]
    monkeypatch.setenv("WORLD_SIZE", "1")
    with process_group() as group:
        assert group.count == 1
    assert not torch.distributed.is_initialized()


def test_each_process_of_a_machine_takes_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [ProcessGroup(index, 4, index % 4).choose_device("auto") for index in range(4)] == ["cuda:0", "cuda:1"] * 2
    assert ProcessGroup(0, 4).choose_device("cuda:1") == "cuda:1"
    assert ProcessGroup(3, 4, 3).choose_device("cpu") == "cpu"
    assert ProcessGroup().choose_device("auto") == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert ProcessGroup(1, 2, 1).choose_device("auto") == "cpu"


def test_srun_is_understood():
    environ = {
        "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NODELIST": "gpu[03-05,9],other",
        "SLURM_JOB_ID": "123456",
        "SLURM_STEP_ID": "0",
    }
    adopted = dict(environ)
    adopt_slurm(adopted)
    assert adopted["RANK"] == "5"
    assert (adopted["WORLD_SIZE"], adopted["LOCAL_RANK"], adopted["MASTER_ADDR"]) == ("8", "1", "gpu03")
    assert 20_000 <= int(adopted["MASTER_PORT"]) < 40_000
    for nodes, first in (("a1", "a1"), ("a1,b2", "a1"), ("n[7]", "n7"), ("gpu-[001-128]", "gpu-001")):
        other = {**environ, "SLURM_STEP_NODELIST": nodes}
        adopt_slurm(other)
        assert other["MASTER_ADDR"] == first
    inside_torchrun = {**environ, "RANK": "0"}
    adopt_slurm(inside_torchrun)
    assert "MASTER_ADDR" not in inside_torchrun
    batch_script = {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}  # no srun: one process
    adopt_slurm(batch_script)
    assert "RANK" not in batch_script
    with pytest.raises(ValueError, match="MASTER_ADDR cannot be told"):
        adopt_slurm({**environ, "SLURM_STEP_NODELIST": ""})
