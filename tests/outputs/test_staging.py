# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Strips of a map in the making: whole or absent, of one plan, held by one run."""

import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from contextlib import closing

import numpy as np
import pytest

from prithvi_hf.outputs.staging import (
    BusyOutputError,
    DamagedStripError,
    Staging,
    published_outputs,
    staging_folder,
)


PLAN = {"scene": {"files": ["a.tif"], "size": (3, 4)}, "options": {"overlap": 0.5}, "model": "abc"}


def arrays(seed=0, shape=(5, 7)):
    rng = np.random.default_rng(seed)
    return {"classes": rng.integers(0, 3, shape).astype(np.uint8), "entropy": rng.random(shape, dtype=np.float32)}


def staged(folder, plan=PLAN, count=3, **options):
    return Staging(folder / "map.tif", plan, count, **options)


def filled(folder, done=(0, 2), plan=PLAN):
    """Leave a folder as a run does that was stopped after some strips."""
    with staged(folder, plan) as staging:
        for index in done:
            staging.commit(index, arrays(index))
    return staging.folder


def test_strips_come_back_as_they_were(tmp_path):
    with staged(tmp_path) as staging:
        assert staging.remaining() == [0, 1, 2]
        staging.commit(1, arrays(1))
        assert staging.remaining() == [0, 2]
        for name, values in staging.load(1).items():
            assert values.dtype == arrays(1)[name].dtype
            np.testing.assert_array_equal(values, arrays(1)[name])
        assert list(staging.load(1, ["entropy"])) == ["entropy"]


def test_the_same_plan_continues(tmp_path):
    filled(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with staged(tmp_path) as staging:
            assert (staging.remaining(), staging.resumed) == ([1], 2)


def test_a_plan_with_a_value_that_is_not_a_number_is_the_same_plan(tmp_path):
    plan = {**PLAN, "nodata": float("nan")}
    filled(tmp_path, plan=plan)
    with staged(tmp_path, {**PLAN, "nodata": float("nan")}) as staging:
        assert staging.resumed == 2


@pytest.mark.parametrize(
    ("plan", "named"),
    [
        ({**PLAN, "model": "other"}, "other model"),
        ({**PLAN, "options": {"overlap": 0.25}}, r"other options\.overlap\)"),
        ({**PLAN, "new": 1}, "other new"),
    ],
)
def test_strips_of_another_plan_are_removed_with_a_warning(tmp_path, plan, named):
    filled(tmp_path)
    with (
        pytest.warns(UserWarning, match=f"belong to another run.*{named}.*from the beginning"),
        staged(tmp_path, plan) as staging,
    ):
        assert (staging.remaining(), staging.resumed) == ([0, 1, 2], 0)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", [None, "", "{", "[1]"])
def test_a_damaged_plan_is_another_plan(tmp_path, content):
    plan = filled(tmp_path) / "plan.json"
    plan.unlink() if content is None else plan.write_text(content)
    with pytest.warns(UserWarning, match="plan is missing or damaged|other"), staged(tmp_path) as staging:
        assert staging.remaining() == [0, 1, 2]


def test_resuming_can_be_turned_off(tmp_path):
    filled(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with staged(tmp_path, resume=False) as staging:
            assert staging.remaining() == [0, 1, 2]


def test_a_change_of_any_byte_that_matters_is_noticed(tmp_path):
    path = filled(tmp_path, [0]) / "strip_000000.npz"
    content = path.read_bytes()
    noticed = 0
    with staged(tmp_path) as staging:
        for position in range(0, len(content), 3):
            damaged = bytearray(content)
            damaged[position] ^= 0x5A
            path.write_bytes(bytes(damaged))
            try:
                loaded = staging.load(0)
            except DamagedStripError:
                noticed += 1
                assert not path.exists()
                continue
            for name, values in arrays(0).items():  # bytes such as the time of writing, which nobody reads
                np.testing.assert_array_equal(loaded[name], values)
    assert noticed > len(content) / 3 * 0.7


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content[:50], lambda content: b""])
def test_a_damaged_strip_counts_as_not_done(tmp_path, damage):
    path = filled(tmp_path) / "strip_000002.npz"
    path.write_bytes(damage(path.read_bytes()))
    with staged(tmp_path) as staging:
        assert staging.remaining() == [1, 2]
        staging.commit(2, arrays(2))
        assert staging.remaining() == [1]


def test_a_pickle_is_not_a_strip(tmp_path):
    path = filled(tmp_path, [0]) / "strip_000000.npz"
    np.savez(path, classes=np.array([{"a": 1}], dtype=object))
    with staged(tmp_path) as staging:
        assert 0 in staging.remaining()


def test_leftovers_of_a_killed_run_are_removed_and_other_files_kept(tmp_path):
    folder = filled(tmp_path)
    (folder / "strip_000001.npz.tmp").write_bytes(b"half")
    (folder / "final").mkdir()
    (folder / "final" / "plain.tif").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    with staged(tmp_path) as staging:
        assert staging.remaining() == [1]
        assert not (folder / "strip_000001.npz.tmp").exists()
        assert staging.final_folder == folder / "final"
        staging.remove()
    assert os.listdir(folder) == ["notes.txt"]


def test_a_run_that_finished_no_strip_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), staged(tmp_path):
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_something_else_of_that_name_is_refused(tmp_path):
    staging_folder(tmp_path / "map.tif").write_text("mine")
    with pytest.raises(OSError, match="to be a folder for unfinished strips"), staged(tmp_path):
        pass
    assert staging_folder(tmp_path / "map.tif").read_text() == "mine"


def test_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    staging_folder(tmp_path / "map.tif").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="found a file or link"), staged(tmp_path):
        pass
    assert os.listdir(tmp_path / "elsewhere") == []


def test_two_runs_of_one_output_are_kept_apart(tmp_path):
    with staged(tmp_path) as first:
        first.commit(0, arrays())
        with (
            pytest.raises(BusyOutputError, match=rf"another one at work \(process {os.getpid()} on "),
            staged(tmp_path, {"other": 1}),
        ):
            pass
        assert first.remaining() == [1, 2]
        with Staging(tmp_path / "other.tif", PLAN, 3) as other:
            assert other.remaining() == [0, 1, 2]
    with staged(tmp_path) as again:
        assert again.remaining() == [1, 2]


HOLD = """
import sys, time
from prithvi_hf.outputs.staging import Staging
with Staging(sys.argv[1], {"a": 1}, 2):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    command = [sys.executable, "-c", HOLD, tmp_path / "map.tif"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BusyOutputError, match=f"process {process.pid}"), staged(tmp_path, {"a": 1}):
            pass
        process.send_signal(signal.SIGKILL)
    with staged(tmp_path, {"a": 1}) as staging:
        assert staging.remaining() == [0, 1, 2]


def test_a_folder_that_its_run_removes_is_made_again(tmp_path):
    """Runs that follow each other closely: one may lock the file of a folder that is already gone."""
    for _ in range(3):
        with staged(tmp_path) as staging:
            staging.commit(0, arrays())
            staging.remove()
            with staged(tmp_path) as next_run:
                next_run.commit(1, arrays())
                assert next_run.remaining() == [0, 2]
            assert staging_folder(tmp_path / "map.tif").exists()
        with staged(tmp_path) as last:
            last.remove()


def test_full_disk_is_one_clear_error_and_the_strips_stay(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with staged(tmp_path) as staging:
            staging.commit(0, arrays())
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[0][1]))
            with pytest.raises(
                OSError, match=r"Expected room for the files in .*map\.tif\.partial.*run the same comm"
            ):
                staging.commit(1, arrays())
            resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
            assert staging.remaining() == [1, 2]
            assert not list(staging.folder.glob("*.tmp"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        signal.signal(signal.SIGXFSZ, before[1])


def test_outputs_that_were_being_named_are_noted(tmp_path):
    assert published_outputs(tmp_path / "map.tif") == []
    with staged(tmp_path) as staging:
        staging.commit(0, arrays())
        staging.note_outputs([tmp_path / "p.tif", tmp_path / "map.tif"])
    assert published_outputs(tmp_path / "map.tif") == [str(tmp_path / "p.tif"), str(tmp_path / "map.tif")]


def run_group(folder, size, work, plans=None):
    """Run `work(staging, rank)` in threads that stand for the processes of a run; results or errors by rank."""
    barrier = threading.Barrier(size)
    results = [None] * size

    def one(rank):
        plan = PLAN if plans is None else plans[rank]
        staging = Staging(folder / "map.tif", plan, 7, index=rank, processes=size)
        with closing(staging):
            for step in (staging.prepare, staging.join, lambda: work(staging, rank)):
                try:
                    if not isinstance(results[rank], OSError):
                        results[rank] = step()
                except OSError as error:
                    results[rank] = error
                barrier.wait(10)

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("done", [(), (0, 3, 4), (0, 1, 2, 3, 4, 5, 6)])
@pytest.mark.parametrize("size", [2, 3, 9])
def test_processes_share_what_is_missing(tmp_path, size, done):
    with Staging(tmp_path / "map.tif", PLAN, 7) as staging:
        for index in done:
            staging.commit(index, arrays())
    shares = run_group(tmp_path, size, lambda staging, _: staging.assigned())
    assert [index for share in shares for index in share] == [index for index in range(7) if index not in done]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_every_process_of_a_run_keeps_others_out(tmp_path):
    """The first process may be killed alone; the others are still at work then."""
    together = threading.Barrier(2)

    def work(staging, rank):
        staging.commit(rank, arrays())
        together.wait(10)
        if rank == 0:
            staging._lock.release()
            with pytest.raises(BusyOutputError), Staging(tmp_path / "map.tif", PLAN, 7):
                pass
        together.wait(10)
        return "done"

    assert run_group(tmp_path, 2, work) == ["done", "done"]


def test_processes_of_different_options_are_refused(tmp_path):
    results = run_group(tmp_path, 2, lambda *_: "done", plans=[PLAN, {"other": 1}])
    assert "Expected the plan of this run" in str(results[1])


def test_the_others_learn_that_the_first_process_was_refused(tmp_path):
    with Staging(tmp_path / "map.tif", PLAN, 7):
        results = run_group(tmp_path, 2, lambda *_: "done")
    assert isinstance(results[0], BusyOutputError)
    assert "first process could not prepare" in str(results[1])


def test_plan_is_readable(tmp_path):
    folder = filled(tmp_path)
    assert json.loads((folder / "plan.json").read_text())["scene"]["size"] == [3, 4]
