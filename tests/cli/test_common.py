# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Devices, models and messages that the commands share."""

import gc

import pytest
import torch
from transformers.utils import logging

from prithvi_hf.cli.common import (
    import_quickly,
    load_image_processor,
    load_model,
    remote_message,
    resolve_device,
    user_message,
)
from prithvi_hf.models.prithvi.modeling_prithvi import PrithviForSemanticSegmentation
from tests.scene_factory import save_model


def test_devices():
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="--device cpu"):
        resolve_device("abacus")


def test_a_model_is_loaded_and_an_unfinished_or_damaged_one_is_explained(tmp_path):
    folder = save_model(tmp_path / "model")
    model, processor = load_model(str(folder))
    assert type(processor) is type(load_image_processor(str(folder)))
    verbosity = logging.get_verbosity()
    model.prithvi.save_pretrained(tmp_path / "backbone")
    processor.save_pretrained(tmp_path / "backbone")
    with pytest.raises(ValueError, match="fine-tuned"):
        load_model(str(tmp_path / "backbone"))
    (folder / "model.safetensors").write_bytes(b"none")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_model(str(folder))
    torch.save({"weight": PrithviForSemanticSegmentation}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="pickle"):
        load_model(str(folder))
    assert logging.get_verbosity() == verbosity


def test_garbage_collection_stays_as_it_was_for_who_calls_a_command_from_python():
    gc.disable()
    try:
        with import_quickly():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    with import_quickly():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_errors_of_users_are_explained_with_their_notes_and_faults_are_not():
    error = ValueError("  wrong ")
    error.add_note("3 parts are kept.")
    assert user_message(error) == "wrong 3 parts are kept."
    assert user_message(FileNotFoundError("gone")) == "gone"
    assert "--batch_size" in user_message(torch.OutOfMemoryError("full"))
    assert "--batch_size" in user_message(MemoryError())
    assert user_message(AssertionError("fault")) is None
    assert user_message(ValueError(f"found {[1] * 10_000}. Remedy: less")).endswith("1]. Remedy: less")
    assert len(user_message(ValueError("x" * 1_000_000))) < 4000


def test_messages_for_other_machines_name_no_folder_of_this_one():
    text = "/srv/demo/uploads/ab/scene.tif: expected 1/2, found '/srv/x/b.tif'. See https://a.b/c/d."
    error = ValueError(text)
    error.add_note("The work is kept in /srv/demo/kept.")
    assert remote_message(error) == "scene.tif: expected 1/2, found 'b.tif'. See https://a.b/c/d."
    names = {"/srv/demo/uploads/ab": "the folder", "/srv/demo/uploads/ab/scene.tif": "x.tif", "/srv/x/": ""}
    text += " In /srv/demo/uploads/ab and /tmp/GDAL-1/c."
    expected = "x.tif: expected 1/2, found 'b.tif'. See https://a.b/c/d. In the folder and c."
    assert remote_message(ValueError(text), names) == expected
    assert remote_message(KeyError("/srv/fault")) is None
