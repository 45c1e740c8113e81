# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Prithvi-EO-2.0 through the commands: convert, finetune with a new head, evaluate, predict, push, load."""

import io
import json

import numpy as np
import pytest
import rasterio
import torch
from transformers import AutoModelForSemanticSegmentation

from prithvi_hf import PrithviForSemanticSegmentation, PrithviImageProcessor, PrithviModel
from prithvi_hf.cli.__main__ import main
from tests.checkpoint_factory import hub_config, second_generation
from tests.finetune_factory import QUICK, flags
from tests.hub_server import USER
from tests.raster_factory import make_burn_scars


SHAPES = {
    # size: width, layers, attention heads, patch, coordinates; head; side of the chips
    "600M": ((160, 4, 4, 14, False), {"decode_head": "unet", "unet_channels": [16, 8, 8, 4]}, 56),
    "300M-TL": ((128, 4, 4, 16, True), {"decode_head": "upernet", "head_hidden_size": 8}, 64),
}


@pytest.fixture
def published(hub, monkeypatch):
    """A backbone of the published shape at small width and depth, in a repository like the published one."""
    hub.redirect_this_process(monkeypatch)

    def publish(size):
        hidden, layers, heads, patch, coords = SHAPES[size][0]
        buffer = io.BytesIO()
        torch.save(second_generation(hidden, layers, patch, coords, decoder=(32, 1)), buffer)
        config = hub_config(hidden, layers, heads, patch, coords, decoder=(32, 1))
        files = {f"Prithvi_EO_V2_{size.replace('-', '_')}.pt": buffer.getvalue()}
        repository = f"ibm-nasa-geospatial/Prithvi-EO-2.0-{size}"
        hub.create_repository("models", repository).add(
            "main", "weights", {**files, "config.json": json.dumps(config).encode()}
        )
        return f"hf://{repository}"

    return publish


@pytest.mark.parametrize("size", SHAPES)
def test_a_published_backbone_becomes_a_map(published, hub, tmp_path, capsys, size):
    (_, _, _, patch, _), head, side = SHAPES[size]
    assert main(["convert", published(size), str(tmp_path / "backbone")]) == 0
    encoder = PrithviModel.from_pretrained(tmp_path / "backbone")
    assert encoder.config.tubelet_size == (1, patch, patch)

    data = make_burn_scars(tmp_path / "data", size=side)
    run = {**QUICK, "crop_size": side, "eval_window": side, "max_steps": 2, "eval_steps": 2, "save_steps": 2}
    run |= {"dataset_options": json.dumps({"cache_dir": str(tmp_path / "cache")}), "learning_rate": 1e-6, **head}
    output, repository = tmp_path / "burns", f"{USER}/burns-{patch}"
    pushed = {"push_to_hub": True, "hub_model_id": repository, "hub_strategy": "end"}
    start = {"config": "hls_burn_scars", "model": tmp_path / "backbone", "data_dir": data, "output_dir": output}
    assert main(["finetune", *flags(**start, **run, **pushed)]) == 0, capsys.readouterr().err
    model = PrithviForSemanticSegmentation.from_pretrained(output).eval()
    assert (model.config.decode_head, model.config.neck, model.config.num_frames) == (
        head["decode_head"],
        "pyramid",
        1,
    )
    weight = "layers.0.mlp.fc1.weight"
    torch.testing.assert_close(model.prithvi.get_parameter(weight), encoder.get_parameter(weight), rtol=0, atol=1e-4)

    figures = tmp_path / "figures.json"
    assert main(["evaluate", "--model", str(output), "--output", str(figures), "--device", "cpu", "--quiet"]) == 0
    found = json.loads(figures.read_text())["splits"]["test"]["metrics"]["mean_iou"]
    assert found == json.loads((output / "all_results.json").read_text())["test_mean_iou"]

    chip = sorted((data / "validation").glob("subsetted*_merged.tif"))[0]
    map_file = tmp_path / "map.tif"
    assert main(["predict", "--model", repository, "--frames", str(chip), "--output", str(map_file), "--quiet"]) == 0
    with rasterio.open(map_file) as written, rasterio.open(chip) as image:
        assert (written.crs, written.transform, written.shape) == (image.crs, image.transform, image.shape)
        assert set(np.unique(written.read(1))) <= {0, 1, 255}

    loaded = AutoModelForSemanticSegmentation.from_pretrained(repository).eval()
    pixels = PrithviImageProcessor.from_pretrained(repository)(chip, return_tensors="pt")
    assert torch.equal(loaded(**pixels).logits, model(**pixels).logits)
    assert loaded.config.coords_encoding == model.config.coords_encoding
