# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The queue and its folders, without a model: the process of the model is never started here."""

import errno
import json
import time

import pytest

from prithvi_hf.serving.errors import ApiError
from prithvi_hf.serving.jobs import JobManager, explain_os_error, to_datetime
from prithvi_hf.serving.settings import Limits, Settings
from prithvi_hf.serving.uploads import name_frame


@pytest.fixture
def make_manager(tmp_path):
    made = []

    def make(check=lambda *_: None, **limits):
        made.append(JobManager(Settings("model", tmp_path / "work", limits=Limits(**limits)), check))
        return made[-1]

    yield make
    for manager in made:
        manager.close(0)


def add_job(manager, name="x.tif"):
    with manager.receive() as folder:
        (folder / name_frame(1)).write_bytes(b"x")
        return manager.submit(folder, [name], {})


def test_the_queue_is_bounded_and_places_are_given_back(make_manager):
    manager = make_manager(max_queue=2)
    with manager.receive(), manager.receive():
        assert manager.count() == (2, 0)
        with pytest.raises(ApiError, match="fewer than 2 jobs") as error, manager.receive():
            pass
        assert error.value.status == 429
        assert 5 <= error.value.retry_after <= 60
    first, second = add_job(manager), add_job(manager)
    assert (manager.position(first), manager.position(second)) == (0, 1)
    with pytest.raises(ApiError), manager.receive():
        pass
    manager.remove(first)
    assert (first.status, manager.position(second)) == ("cancelled", 0)
    with pytest.raises(OSError, match="disk"), manager.receive():
        raise OSError("disk")
    assert manager.count() == (1, 0)


def test_frames_that_are_refused_leave_nothing(make_manager, tmp_path):
    def refuse(*_):
        raise ApiError(422, "a", "b", "c")

    with pytest.raises(ApiError):
        add_job(make_manager(refuse))
    assert [path.name for path in (tmp_path / "work").rglob("*") if path.is_file()] == ["server.lock"]


def test_old_jobs_and_those_that_are_too_many_are_deleted(make_manager, tmp_path):
    manager = make_manager(keep_results=2, keep_hours=1)
    jobs = [add_job(manager) for _ in range(4)]
    for job in jobs[:3]:
        manager.remove(job)
        time.sleep(0.01)
    folders = {path.name for path in (tmp_path / "work" / "jobs").iterdir()}
    assert folders == {job.id for job in jobs[1:]}
    jobs[1].finished -= 3601
    manager.sweep()
    with pytest.raises(ApiError, match="deleted"):
        manager.get(jobs[1].id)
    manager.remove(jobs[2])  # finished: it goes with its record
    assert [path.name for path in (tmp_path / "work" / "jobs").iterdir()] == [jobs[3].id]
    assert (tmp_path / "work" / "jobs" / jobs[3].id / name_frame(1)).exists()


def test_one_server_has_a_folder(make_manager):
    first = make_manager()
    with pytest.raises(OSError, match="another one has it"):
        make_manager()
    first.close(0)
    make_manager()


def test_a_server_that_stops_takes_no_jobs(make_manager):
    manager = make_manager()
    manager.close(0)
    with pytest.raises(ApiError) as error, manager.receive():
        pass
    assert (error.value.status, error.value.retry_after) == (503, 30)


def test_addresses_are_checked_by_the_limits_of_the_server(make_manager, tmp_path):
    manager = make_manager()
    with manager.receive() as folder:
        job = manager.submit(folder, ["a.tif"], {}, ["https://data.example.org/a.tif"])
    for _ in range(100):
        if job.status == "failed":
            break
        time.sleep(0.05)
    assert (job.status, job.error["status"], job.urls) == ("failed", 403, [])
    assert "data.example.org" not in (tmp_path / "work" / "jobs" / job.id / "job.json").read_text()
    assert json.loads((tmp_path / "work" / "jobs" / job.id / "job.json").read_text())["status"] == "failed"


def test_errors_of_the_disk_are_not_those_of_the_client():
    assert explain_os_error(OSError(errno.ENOSPC, "full")).status == 507
    other = explain_os_error(OSError(errno.EIO, "broken", "/secret/place"))
    assert (other.status, "secret" in str(other)) == (500, False)


def test_times_are_utc():
    assert to_datetime(0.0).isoformat() == "1970-01-01T00:00:00+00:00"
    assert to_datetime(None) is None
