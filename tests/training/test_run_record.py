# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The record of a run: what data, versions and machine it had, without places of this machine."""

import json
from importlib.metadata import version

import torch

from prithvi_hf.training.run_record import make_run_record, read_run_record, write_run_record


def test_a_run_notes_its_data_and_versions(finished, data):
    record = read_run_record(finished)
    assert {split: values["chips"] for split, values in record.data.items()} == {
        "train": 4,
        "validation": 3,
        "test": 2,
        "bolivia": 1,
    }
    for values in record.data.values():
        assert values["labelled_pixels"] == sum(values["class_pixels"])
        assert values["labelled_pixels"] + values["ignored_pixels"] == values["total_pixels"]
        assert values["sizes"] == {"48 x 48": values["chips"]}
        assert f"`{values['digest']}`" in (finished / "README.md").read_text()
    assert record.versions["torch"] == version("torch")
    assert record.machine["processes"] == 1
    assert len(record.pictures) == 3
    assert str(data) not in (finished / "run.json").read_text()


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = make_run_record({}, [], 2, torch.device("cpu"))
    write_run_record(tmp_path, record)
    assert read_run_record(tmp_path) == record
    assert json.loads((tmp_path / "run.json").read_text())["machine"]["processes"] == 2
    assert not read_run_record(tmp_path / "absent").data
