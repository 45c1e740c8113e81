# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Which chips are the best and the worst, and their pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from prithvi_hf import PrithviConfig, PrithviForPixelRegression, PrithviImageProcessor
from prithvi_hf.data import load_dataset
from prithvi_hf.training.chip_figures import make_chip_table
from prithvi_hf.training.chip_pictures import paint_chip, rank_chips, score_chips, write_chip_pictures
from tests.raster_factory import make_biomass, write_chip, write_mask
from tests.scene_factory import tiny_model, tiny_processor
from tests.training.test_sample_pictures import SIZES, folder_of_chips


def table_of(matrices, task="segmentation", **columns):
    count = len(matrices)
    beside = {"loss": np.arange(count, dtype=float), "loss_weight": np.ones(count, np.int64)}
    own = {"confusion": np.array(matrices)} if task == "segmentation" else {}
    chips = [f"chip_{place}" for place in range(count)]
    return make_chip_table({**beside, **own, **columns}, task=task, split="validation", prefix="eval", chips=chips)


def test_chips_are_ranked_by_the_mean_iou_of_their_classes():
    """A class that is neither in labels nor predictions does not count, and a chip without labels has no rank."""
    table = table_of([[8, 2, 0, 10], [9, 0, 0, 0], [0, 0, 0, 0], [0, 5, 5, 0], [5, 0, 1, 4]])
    scores = score_chips(table)
    assert scores[0] == pytest.approx((8 / 10 + 10 / 12) / 2)
    assert scores[[1, 3]].tolist() == [1, 0]
    assert np.isnan(scores[2])
    assert rank_chips(table, 2) == ([1, 4], [3, 0]) or rank_chips(table, 2) == ([1, 0], [3, 4])
    assert rank_chips(table_of([[1, 0, 0, 1]]), 3) == ([], [0])  # each is drawn once


def test_other_tasks_are_ranked_by_loss():
    table = table_of([0, 0, 0, 0], task="regression", error_sums=np.zeros((4, 6)))
    assert rank_chips(table, 1) == ([0], [3])


def test_pictures_show_scene_label_prediction_and_error(tmp_path):
    dataset = folder_of_chips(tmp_path / "chips", 3, {"mask_suffix": "_mask.tif"})
    model, processor = tiny_model(), tiny_processor(ignore_values=[-1], num_labels=3)
    (tmp_path / "chip_pictures").mkdir()
    (tmp_path / "chip_pictures" / "best-9.webp").write_bytes(b"of an earlier run")
    table = table_of([[9, 0, 0, 0, 0, 0, 0, 0, 0], [0, 9, 0, 0, 0, 0, 0, 0, 0], [5, 4, 0, 0, 0, 0, 0, 0, 0]])
    pictures = write_chip_pictures(tmp_path, model, processor, dataset, table, 1, window=24)
    assert [(one.file, one.chip, one.is_best) for one in pictures] == [
        ("best-1.webp", "chip_0", True),
        ("worst-1.webp", "chip_1", False),
    ]
    assert sorted(path.name for path in (tmp_path / "chip_pictures").iterdir()) == ["best-1.webp", "worst-1.webp"]
    for one in pictures:
        assert one.panels == ["scene", "label", "prediction", "error"]
        with Image.open(tmp_path / "chip_pictures" / one.file) as picture:
            assert picture.size == (4 * 40 + 3 * 6, 40)
    panels = paint_chip(model, processor, dataset, 0, 24)
    same = (panels["label"] == panels["prediction"]).all(axis=-1)
    counted = panels["error"][..., 3] > 0
    assert counted.any()
    assert ((panels["error"][..., 0] == 205) == ~same)[counted].all()


def test_large_chips_are_thinned_and_values_have_a_scale(tmp_path):
    root = make_biomass(tmp_path / "data", {"train": 2})
    options = {"image_suffix": "_image.tif", "mask_suffix": "_agb.tif", "cache_dir": str(tmp_path / "cache")}
    dataset = load_dataset("geotiff_folder", root, "train", **options)
    torch.manual_seed(0)
    model = PrithviForPixelRegression(PrithviConfig(**SIZES)).eval()
    panels = paint_chip(model, PrithviImageProcessor(label_type="value"), dataset, 1, 32)
    assert list(panels) == ["scene", "target", "prediction", "error"]
    assert len({panel.shape for panel in panels.values()}) == 1

    (tmp_path / "large").mkdir()
    write_chip(tmp_path / "large" / "a.tif", 400)
    write_mask(tmp_path / "large" / "a_mask.tif", 400)
    dataset = load_dataset(
        "geotiff_folder", tmp_path / "large", "train", mask_suffix="_mask.tif", cache_dir=str(tmp_path)
    )
    model, processor = tiny_model(), tiny_processor(ignore_values=[-1], num_labels=3)
    [picture] = write_chip_pictures(tmp_path, model, processor, dataset, table_of([[1, 0, 0, 0, 0, 0, 0, 0, 0]]))
    with Image.open(tmp_path / "chip_pictures" / picture.file) as image:
        assert image.size == (4 * 200 + 3 * 6, 200)
