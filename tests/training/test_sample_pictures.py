# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures of values and of labelled chips."""

import matplotlib.image
import pytest
import torch

from prithvi_hf import PrithviConfig, PrithviForImageClassification, PrithviForPixelRegression, PrithviImageProcessor
from prithvi_hf.data import load_dataset
from prithvi_hf.training.sample_pictures import pick_samples, plot_sample_labels, plot_sample_values
from tests.raster_factory import make_biomass, make_land_cover


SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32}
SIZES |= {"neck_hidden_size": 16, "head_hidden_size": 8, "num_frames": 1}


@pytest.mark.parametrize("nothing", [False, True])
def test_values_are_drawn_beside_their_targets(tmp_path, nothing):
    root = make_biomass(tmp_path / "data", {"train": 3})
    options = {"image_suffix": "_image.tif", "mask_suffix": "_agb.tif", "cache_dir": str(tmp_path / "cache")}
    dataset = load_dataset("geotiff_folder", root, "train", **options)
    torch.manual_seed(0)
    model = PrithviForPixelRegression(PrithviConfig(**SIZES, target_name="biomass $", target_unit="Mg/ha")).eval()
    processor = PrithviImageProcessor(label_type="value", target_range=[1e6, 2e6] if nothing else None)
    plot_sample_values(model, processor, dataset, tmp_path / "a.png", num_samples=2, window=32)
    picture = matplotlib.image.imread(tmp_path / "a.png")
    assert picture.shape[1] > picture.shape[0]  # three pictures of each of two chips, with a bar
    assert [row["id"] for row, _ in pick_samples(dataset, 2)] == ["0", "2"]


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_chips_are_drawn_with_their_classes(tmp_path, problem):
    root = make_land_cover(tmp_path / "data", {"train": 3})
    dataset = load_dataset("geotiff_classification", root, "train", cache_dir=str(tmp_path / "cache"))
    names = {"id2label": {0: "Forest", 1: "$River$", 2: "Town"}}
    model = PrithviForImageClassification(PrithviConfig(**SIZES, **names, problem_type=problem)).eval()
    plot_sample_labels(model, PrithviImageProcessor(), dataset, tmp_path / "a.png", num_samples=3)
    assert matplotlib.image.imread(tmp_path / "a.png").shape[0] > 300
