# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The process of the model; jobs that stop and die are in tests/cli/test_serve.py."""

import pytest

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
