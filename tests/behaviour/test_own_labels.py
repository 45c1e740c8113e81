# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The four commands of the page on labels: from a scene and a GeoPackage to a map that is right where nobody drew."""

import json

import datasets
import numpy as np
import pytest

from prithvi_hf.cli.__main__ import main
from prithvi_hf.outputs.polygons import read_class_names
from prithvi_hf.training import finetune
from tests.docs.pages import ROOT, read_blocks, read_commands
from tests.docs.stand_ins import make_fields, make_labelled_scene
from tests.finetune_factory import QUICK, SIZES, flags, save_backbone
from tests.scene_factory import read_map
from tests.vector_factory import paint


@pytest.mark.slow
def test_four_commands_lead_from_polygons_to_a_map(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    make_labelled_scene(tmp_path / "county.tif", tmp_path / "fields.gpkg")
    save_backbone(tmp_path / "prithvi-300m-tl")
    block = next(block for block in read_blocks(ROOT / "docs" / "own-labels.md") if block.language == "bash")
    commands = read_commands(block.text)
    assert [command.arguments[0] if command.program == "prithvi-hf" else command.program for command in commands] == [
        *("chip", "finetune", "evaluate", "predict"),
    ]
    small = {**SIZES, **QUICK, "neck_hidden_size": 32, "head_hidden_size": 32, "use_auxiliary_head": False}
    small |= {"max_steps": 120, "learning_rate": 0.003, "per_device_train_batch_size": 4, "num_sample_predictions": 0}
    for command in commands:
        if command.program == "finetune":
            assert finetune.main([*command.arguments, *flags(**small)]) == 0
        else:
            assert main(command.arguments) == 0

    results = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert results["test_mean_iou"] > 0.8
    names = {"barley": 0, "grass": 1, "wheat": 2}
    assert read_class_names(tmp_path / "crops.tif") == {number: name for name, number in names.items()}
    grid, fields = make_fields()
    truth = paint(fields, grid, names)
    labelled = truth != 255
    assert (read_map(tmp_path / "crops.tif") == truth)[labelled].mean() > 0.85
    assert np.isin(read_map(tmp_path / "crops.tif"), (0, 1, 2)).all()
