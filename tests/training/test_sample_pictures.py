# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures of chips beside classes, values and labels of whole chips."""

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from prithvi_hf import PrithviConfig, PrithviForImageClassification, PrithviForPixelRegression, PrithviImageProcessor
from prithvi_hf.data import SegmentationTransform, load_dataset
from prithvi_hf.outputs.figures import save_picture
from prithvi_hf.training.sample_pictures import (
    make_label_figure,
    make_prediction_figure,
    make_value_sample_figure,
    pick_samples,
)
from tests.raster_factory import (
    make_biomass,
    make_land_cover,
    make_sen1floods11,
    reflectance,
    write_chip,
    write_mask,
    write_raster,
)
from tests.scene_factory import tiny_model, tiny_processor


COLORS = ["#aa5500", "#0000fe", "#7fff7f"]
PNG = b"\x89PNG\r\n\x1a\n"
SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32}
SIZES |= {"neck_hidden_size": 16, "head_hidden_size": 8, "num_frames": 1}


def png_size(path):
    """Width and height from the header of a PNG."""
    header = path.read_bytes()[:24]
    assert header[:8] == PNG
    return tuple(int.from_bytes(header[start : start + 4], "big") for start in (16, 20))


def colors_in(path):
    """Every colour of a picture as (red, green, blue) of 0 to 255, with its pixels."""
    pixels = (imread(path)[..., :3] * 255).round().astype(np.uint8).reshape(-1, 3)
    values, counts = np.unique(pixels, axis=0, return_counts=True)
    return {tuple(value): int(count) for value, count in zip(values.tolist(), counts, strict=True)}


def rgb(color):
    return tuple(bytes.fromhex(color[1:]))


@pytest.mark.parametrize("nothing", [False, True])
def test_values_are_drawn_beside_their_targets(tmp_path, nothing):
    root = make_biomass(tmp_path / "data", {"train": 3})
    options = {"image_suffix": "_image.tif", "mask_suffix": "_agb.tif", "cache_dir": str(tmp_path / "cache")}
    dataset = load_dataset("geotiff_folder", root, "train", **options)
    torch.manual_seed(0)
    model = PrithviForPixelRegression(PrithviConfig(**SIZES, target_name="biomass $", target_unit="Mg/ha")).eval()
    processor = PrithviImageProcessor(label_type="value", target_range=[1e6, 2e6] if nothing else None)
    save_picture(make_value_sample_figure(model, processor, dataset, samples=2, window=32), tmp_path / "a.png")
    picture = imread(tmp_path / "a.png")
    assert picture.shape[1] > picture.shape[0]  # three pictures of each of two chips, with a bar
    assert [row["id"] for row, *_ in pick_samples(model, processor, dataset, 2)] == ["0", "2"]


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_chips_are_drawn_with_their_classes(tmp_path, problem):
    root = make_land_cover(tmp_path / "data", {"train": 3})
    dataset = load_dataset("geotiff_classification", root, "train", cache_dir=str(tmp_path / "cache"))
    names = {"id2label": {0: "Forest", 1: "$River$", 2: "Town"}}
    model = PrithviForImageClassification(PrithviConfig(**SIZES, **names, problem_type=problem)).eval()
    save_picture(make_label_figure(model, PrithviImageProcessor(), dataset, samples=3), tmp_path / "a.png")
    assert imread(tmp_path / "a.png").shape[0] > 300


@pytest.fixture
def model():
    return tiny_model(class_colors=COLORS)


def folder_of_chips(root, count, options):
    for seed in range(count):
        write_chip(root / f"{seed}.tif", 40, seed=seed)
        write_mask(root / f"{seed}_mask.tif", 40, seed=seed)
    return load_dataset("geotiff_folder", root, "train", cache_dir=str(root / "cache"), **options)


@pytest.mark.parametrize(("wanted", "rows"), [(4, 3), (1, 1)])
def test_sample_predictions(tmp_path, model, wanted, rows):
    dataset = folder_of_chips(tmp_path / "chips", 3, {"mask_suffix": "_mask.tif"})
    processor = tiny_processor(ignore_values=[-1], num_labels=3)
    # the trainer's data set decodes to tensors; the pictures need the rasters
    transformed = dataset.with_transform(SegmentationTransform(processor))
    save_picture(make_prediction_figure(model, processor, transformed, samples=wanted), tmp_path / "samples.png")
    width, height = png_size(tmp_path / "samples.png")
    assert height == pytest.approx(width * rows / 3, rel=0.25)
    found = colors_in(tmp_path / "samples.png")
    # classes 0 and 1 are in the labels, all three in the predictions
    assert found[rgb(COLORS[0])] > 1000 * rows
    assert found[rgb(COLORS[1])] > 1000 * rows
    assert "pixel_values" in transformed[0]


def test_sample_predictions_are_those_of_the_model(tmp_path, model):
    """A model that says one class everywhere paints it, and nothing else, beside the label."""
    with torch.no_grad():
        model.decode_head.classifier.weight.zero_()
        model.decode_head.classifier.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
    root = tmp_path / "chips"
    write_chip(root / "a.tif", 40)
    write_raster(root / "a_mask.tif", np.zeros((40, 40), np.int16))
    dataset = load_dataset("geotiff_folder", root, "train", cache_dir=str(tmp_path / "c"), mask_suffix="_mask.tif")
    save_picture(make_prediction_figure(model, tiny_processor(), dataset), tmp_path / "samples.png")
    found = colors_in(tmp_path / "samples.png")
    assert found[rgb(COLORS[2])] == pytest.approx(found[rgb(COLORS[0])], rel=0.05)  # a scale bar
    assert found[rgb(COLORS[2])] > 50_000
    assert found[rgb(COLORS[1])] < 2_000  # the legend


def test_sample_predictions_of_several_frames(tmp_path):
    root = tmp_path / "chips"
    for month in range(2):
        write_chip(root / f"a_{month}.tif", 40, seed=month)
    write_raster(root / "a_mask.tif", np.ones((40, 40), np.int16))
    dataset = load_dataset(
        "geotiff_folder",
        root,
        "train",
        cache_dir=str(tmp_path / "cache"),
        image_suffix=["_0.tif", "_1.tif"],
        mask_suffix="_mask.tif",
    )
    model = tiny_model(2, class_colors=COLORS)
    save_picture(
        make_prediction_figure(model, tiny_processor(2), dataset, window=24, overlap=0.25), tmp_path / "samples.png"
    )
    assert colors_in(tmp_path / "samples.png")[rgb(COLORS[1])] > 50_000


def test_pixels_without_data_and_ignored_labels_have_no_class(tmp_path, model):
    root = tmp_path / "chips"
    pixels = reflectance(6, 40)
    pixels[:, :, :20] = -9999
    write_raster(root / "a.tif", pixels, nodata=-9999)
    write_raster(root / "a_mask.tif", np.full((40, 40), -1, np.int16))
    dataset = load_dataset("geotiff_folder", root, "train", cache_dir=str(tmp_path / "c"), mask_suffix="_mask.tif")
    processor = tiny_processor(ignore_values=[-1])
    save_picture(make_prediction_figure(model, processor, dataset), tmp_path / "samples.png")
    picture = (imread(tmp_path / "samples.png")[:-150, :, :3] * 255).round()  # above the legend
    scene, label, prediction = np.array_split(picture, 3, axis=1)
    without_data, with_data = np.array_split(prediction, 2, axis=1)

    def colored(panel):
        return sum(int((panel == rgb(color)).all(axis=-1).sum()) for color in COLORS)

    assert colored(label) == 0
    assert colored(without_data[:, :-10]) == 0
    assert colored(with_data) > 20_000
    left, right = np.array_split(scene, 2, axis=1)
    grey = [np.ptp(half, axis=-1).max() == 0 for half in (left[:, :-10], right)]
    assert grey == [True, False]  # hatched, and in natural colours


def test_samples_of_a_builders_data_set(tmp_path, model):
    root = make_sen1floods11(tmp_path / "data", size=40)
    dataset = load_dataset("sen1floods11", root, "validation", cache_dir=str(tmp_path / "cache"))
    processor = tiny_processor(ignore_values=[-1])
    save_picture(make_prediction_figure(model, processor, dataset), tmp_path / "samples.png")
    assert min(png_size(tmp_path / "samples.png")) > 300
