# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The process of the model; whole servers that stop and die are in tests/cli/test_serve.py."""

import os
import signal

import pytest

from prithvi_hf.serving import worker as worker_module
from prithvi_hf.serving.settings import Settings
from prithvi_hf.serving.worker import Task, Worker, WorkerError
from tests.scene_factory import save_model, scene_pixels, write_scene


@pytest.mark.slow
def test_a_model_is_loaded_once_and_maps_scenes(tmp_path):
    worker = Worker(Settings(str(save_model(tmp_path / "model")), tmp_path / "work"))
    worker.start()
    assert worker.info == {"task": "segmentation", "device": "cpu"}
    process, heard = worker.process_id, []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_scene(tmp_path / name / "frame_001.tif", scene_pixels(40, 40))
        task = Task(str(tmp_path / name), ["frame_001.tif"], ["x.tif"], {"overlap": 0, "outputs": []})
        outcome = worker.run(task, lambda *progress: heard.append(progress), lambda: None)
        assert outcome.status == "done"
        assert outcome.content["height"] == 40
    assert worker.process_id == process
    assert heard[-1] == (4, 4)
    (tmp_path / "a" / "frame_001.tif").unlink()
    outcome = worker.run(task._replace(folder=str(tmp_path / "a")), lambda *_: None, lambda: None)
    assert outcome.status == "failed"
    assert str(tmp_path) not in outcome.content[1]
    worker.close(20)
    assert not worker.is_alive


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_an_error_that_says_why(tmp_path):
    model = save_model(tmp_path / "model")
    (model / "model.safetensors").write_bytes(b"x")
    worker = Worker(Settings(str(model), tmp_path / "work"))
    with pytest.raises(WorkerError, match="cannot be loaded"):
        worker.start()
    assert not worker.is_alive


@pytest.mark.slow
def test_a_task_that_is_stopped_or_whose_process_dies_leaves_a_worker_for_the_next(tmp_path, monkeypatch):
    worker = Worker(Settings(str(save_model(tmp_path / "model")), tmp_path / "work"))
    worker.start()
    write_scene(tmp_path / "frame_001.tif", scene_pixels(180, 180))
    long = Task(str(tmp_path), ["frame_001.tif"], ["x.tif"], {"tta": "d4", "overlap": 0.75, "outputs": []})
    heard = []

    def run(number=None, reason=None, task=long):
        """Run a task whose process gets a signal, or which is to stop, as soon as it has begun."""
        heard.clear()

        def hear(*progress):
            if not heard and number is not None:
                os.kill(worker.process_id, number)
            heard.append(progress)

        return worker.run(task, hear, lambda: reason if heard else None)

    quick = Task(str(tmp_path), ["frame_001.tif"], ["x.tif"], {"overlap": 0, "outputs": []})
    process = worker.process_id
    assert run(reason="cancelled") == ("stopped", "cancelled")
    assert heard[-1][0] < heard[-1][1]
    assert run(task=quick).status == "done"  # what stopped the first one is forgotten
    assert (worker.process_id, worker.restarts) == (process, 0)

    outcome = run(signal.SIGKILL)
    assert (outcome.status, outcome.content[0]) == ("failed", 500)
    assert "SIGKILL, as where memory ran out" in outcome.content[1]
    assert not worker.is_alive
    assert run(task=quick).status == "done"
    assert worker.restarts == 1
    assert worker.process_id not in (None, process)

    process = worker.process_id
    monkeypatch.setattr(worker_module, "STOP_SECONDS", 0.5)
    assert run(signal.SIGSTOP, "too long") == ("stopped", "too long")  # it hears nothing any more
    assert not worker.is_alive
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    worker.close()
