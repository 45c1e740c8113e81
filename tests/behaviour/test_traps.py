# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Traps that users of the four data sets fell into elsewhere, and faults of the original: none of them is here.

What a run does to its files is asked of the very data sets that `examples/finetune.py` makes for its trainer.
"""

import json
import warnings

import numpy as np
import pytest
import rasterio
import torch
from transformers.modeling_outputs import SemanticSegmenterOutput

from prithvi_hf import (
    PrithviConfig,
    PrithviForSemanticSegmentation,
    PrithviImageProcessor,
    PrithviModel,
    load_dataset,
)
from prithvi_hf.models.prithvi.pixel_values_prithvi import UnitsWarning
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.scenes.predict_scene import predict_scene
from prithvi_hf.training.evaluation import evaluate_recipe, make_evaluation_recipe
from prithvi_hf.training.recipe import parse_arguments, read_recipe
from tests.finetune_factory import (
    HEADS,
    OFFICIAL,
    QUICK,
    SIZES,
    finetune,
    flags,
    read_pixels,
    replace_pixels,
)
from tests.raster_factory import make_crops, make_irrigation_scenes, reflectance, write_raster
from tests.scene_factory import tiny_model


SIZE = 48
any_units = pytest.mark.filterwarnings("ignore::prithvi_hf.models.prithvi.image_processing_prithvi.UnitsWarning")


def command_line(name, root, output, builder=None, **options):
    """The recipe by its name on a folder, with a tiny model."""
    builder = {"cache_dir": str(root.parent / "cache"), **(builder or {})}
    values = {**SIZES, **HEADS, **QUICK, "config": name, "data_dir": root, "output_dir": output}
    return flags(**{**values, "dataset_options": json.dumps(builder), **options})


def prepared(name, root, **options):
    """A run that is ready to start; nothing has been trained."""
    return finetune.setup(parse_arguments(command_line(name, root, root.parent / "OUT", **options)))


def chips_of(name, root):
    """Paths of the frames, as the months in their names have it, and of the mask of each chip, each chip once."""
    rows = [row for split in load_dataset(name, root, cache_dir=str(root.parent / "paths")).values() for row in split]
    images = {row["id"]: row["image"] if isinstance(row["image"], list) else [row["image"]] for row in rows}
    masks = {row["id"]: row["mask"].path for row in rows}
    return [(sorted(raster.path for raster in images[chip]), masks[chip]) for chip in sorted(images)]


def as_files(name, values):
    """Values (dates, 6, height, width) as the files of a chip hold them."""
    if name == "sen1floods11":
        stack = np.full((13, *values.shape[2:]), 31_000)
        stack[[1, 2, 3, 8, 11, 12]] = values[0]  # B2 B3 B4 B8A B11 B12
        return [stack]
    return list(values) if name == "hls_irrigation_scenes" else [values.reshape(-1, *values.shape[2:])]


def file_values(name, pixel_values):
    """What the files held, back from normalised values (6, dates, height, width)."""
    recipe = read_recipe(name).data
    mean, std = (torch.tensor(values).view(6, 1, 1, 1) for values in (recipe.image_mean, recipe.image_std))
    return ((pixel_values.double() * std + mean) / recipe.rescale_factor).round().long()


# ---------------------------------------------------------------------- bands, dates, crops, flips, labels


def paint_places(name, root):
    """Each value says where it stands: 1000 x (6 x date + band), and row or column; so does the label."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    numbers = 1000 * (1 + np.arange(6 * OFFICIAL[name].frames)).reshape(-1, 6, 1, 1)
    values = numbers + np.stack([rows, columns] * 3)
    mask = place_label(name, rows, columns) + OFFICIAL[name].first_class
    mask[0, :2] = OFFICIAL[name].ignored[0], OFFICIAL[name].ignored[-1]
    for frames, label in chips_of(name, root):
        for path, pixels in zip(frames, as_files(name, values), strict=True):
            replace_pixels(path, pixels)
        replace_pixels(label, mask)


def place_label(name, rows, columns):
    return (rows * 7 + columns * 3) % len(read_recipe(name).data.class_names)


def check_places(name, example):
    """Raises unless all bands, all dates and the labels are of the same pixels; gives their rows and columns."""
    values = file_values(name, example["pixel_values"])
    numbers = 1000 * (1 + torch.arange(values.shape[0] * values.shape[1])).view(-1, 6, 1, 1).transpose(0, 1)
    places = values - numbers
    rows, columns = places[0, 0], places[1, 0]
    assert torch.equal(places, torch.stack([rows, columns] * 3)[:, None].expand_as(places))
    labels = torch.as_tensor(place_label(name, rows, columns))
    labels[(rows == 0) & (columns < 2)] = -100
    assert torch.equal(example["labels"], labels)
    return rows, columns


@any_units
@pytest.mark.parametrize("name", OFFICIAL)
def test_bands_dates_and_labels_stay_together(name, tmp_path, caplog):
    """Also: crops have the pixels of the file, and validation and test are whole chips that nothing flips."""
    root = OFFICIAL[name].make(tmp_path / "data", size=SIZE)
    paint_places(name, root)
    run = prepared(name, root)
    assert "The weights are random: pass --model" in caplog.text
    directions = set()
    for epoch in range(12):
        run.trainer.train_dataset.set_epoch(epoch)
        example = run.trainer.train_dataset[0]
        later = example.pop("file_values")[None]  # the trainer normalises on the device
        example["pixel_values"] = run.trainer.processing_class.normalize_file_values(later)[0]
        rows, columns = check_places(name, example)
        assert rows.shape == (32, 32)
        assert (rows.diff(dim=0) == 1).all()  # never upside down
        directions |= set(columns.diff(dim=1).unique().tolist())
    assert directions == {1, -1}
    for split in (run.trainer.eval_dataset, *(run.splits[split] for split in run.recipe.data.test_splits)):
        for _ in range(4):
            rows, columns = check_places(name, split[0])
            assert torch.equal(rows, torch.arange(SIZE)[:, None].expand(SIZE, SIZE))
            assert torch.equal(columns, torch.arange(SIZE).expand(SIZE, SIZE))


@any_units
def test_only_the_option_mixes_bands_and_dates(tmp_path):
    root = make_crops(tmp_path / "data", size=SIZE)
    for frames, _ in chips_of("multi_temporal_crop", root):
        replace_pixels(frames[0], np.broadcast_to(np.arange(18)[:, None, None], (18, SIZE, SIZE)))
    recipe = read_recipe("multi_temporal_crop").data
    mean, std = (torch.tensor(values * 3, dtype=torch.float64) for values in (recipe.image_mean, recipe.image_std))
    normalized = (torch.arange(18) - mean) / std
    orders = {"time_major": lambda band, date: 6 * date + band, "original_crop": lambda band, date: 3 * band + date}
    for order, place_of in orders.items():
        run = prepared("multi_temporal_crop", root, frame_order=order)
        found = run.trainer.eval_dataset[0]["pixel_values"][:, :, 0, 0]
        expected = [[normalized[place_of(band, date)] for date in range(3)] for band in range(6)]
        torch.testing.assert_close(found.double(), torch.tensor(expected).double(), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------- a perfect prediction is perfect


class Oracle(PrithviForSemanticSegmentation):
    """Predicts the class that the first band of the first date holds in file units, plus 1."""

    recipe_name = ""

    def forward(self, pixel_values, **_):
        classes = torch.stack([file_values(self.recipe_name, image)[0, 0] - 1 for image in pixel_values])
        hits = torch.nn.functional.one_hot(classes.clamp(0), self.config.num_labels)
        return SemanticSegmenterOutput(logits=10.0 * hits.permute(0, 3, 1, 2))


@any_units
@pytest.mark.parametrize("name", OFFICIAL)
def test_a_perfect_prediction_scores_one(name, tmp_path):
    """Labels are shifted once, classes are not swapped, and pixels without label count nowhere."""
    root, official = OFFICIAL[name].make(tmp_path / "data", size=SIZE), OFFICIAL[name]
    for frames, label in chips_of(name, root):
        mask = read_pixels(label)[0].astype(int)
        classes = np.where(np.isin(mask, official.ignored), 0, mask - official.first_class + 1)
        values = np.broadcast_to(classes, (official.frames, 6, SIZE, SIZE))
        for path, pixels in zip(frames, as_files(name, values), strict=True):
            replace_pixels(path, pixels)
    options = {"data_dir": root, "dataset_options": json.dumps({"cache_dir": str(tmp_path / "cache")})}
    recipe = make_evaluation_recipe([name], tmp_path / "unused", **options, eval_window=32, use_cpu="true")
    oracle = Oracle(PrithviConfig(**{**recipe.get_config_values(), **SIZES, **HEADS})).eval()
    oracle.recipe_name = name
    results = evaluate_recipe(oracle, recipe.build_image_processor(), recipe, show_progress=False)
    assert [result.split for result in results] == recipe.data.test_splits
    for result in results:
        assert result.metrics["overall_accuracy"] == 1
        assert result.metrics["per_category_iou"] == [1] * len(recipe.data.class_names)


# ---------------------------------------------------------------------- units and nodata


@pytest.mark.parametrize("name", OFFICIAL)
def test_each_recipe_is_in_the_units_of_its_files(name):
    """Reflectance, digital numbers that become reflectance, digital numbers that stay: three tasks, three scales."""
    recipe = read_recipe(name)
    processor, frames = recipe.build_image_processor(), OFFICIAL[name].frames
    mean, std = (np.array(values)[:, None, None, None] for values in (recipe.data.image_mean, recipe.data.image_std))
    noise = np.random.default_rng(0).standard_normal((6, frames, 40, 40))
    image = (noise * std + mean) / recipe.data.rescale_factor
    assert (image.mean() > 100) == (name in ("sen1floods11", "multi_temporal_crop"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnitsWarning)
        found = processor(image.astype(np.float32), return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(found, noise, atol=1e-3)
    other = image / 10_000 if image.mean() > 100 else image * 10_000
    with pytest.warns(UnitsWarning, match="digital numbers against reflectance"):
        recipe.build_image_processor()(other.astype(np.float32))


@pytest.mark.parametrize("tagged", [True, False])
def test_the_nodata_of_burn_scars_reaches_the_model(tagged, tmp_path):
    """As 0 before normalising, also where a copy of the files has lost the tag."""
    root = OFFICIAL["hls_burn_scars"].make(tmp_path / "data", size=SIZE)
    for frames, _ in [] if tagged else chips_of("hls_burn_scars", root):
        with rasterio.open(frames[0], "r+") as dataset:
            dataset.nodata = None
    run = prepared("hls_burn_scars", root)
    recipe = run.recipe.data
    zero = -torch.tensor(recipe.image_mean) / torch.tensor(recipe.image_std)
    example = run.trainer.eval_dataset[0]
    torch.testing.assert_close(example["pixel_values"][:, 0, -1, -4:], zero[:, None].expand(6, 4))
    assert (example["labels"][-1, -4:] == -100).all()
    assert example["pixel_values"].min() > -1000  # -9999 would be far below


@pytest.mark.parametrize("rule", ["all", "any"])
@pytest.mark.parametrize(
    ("dtype", "tag", "value"),
    [("float32", np.nan, np.nan), ("float32", None, np.nan), ("float32", None, -9999), ("int16", -1, -1)],
)
def test_nodata_of_every_kind_is_no_class_of_the_map(dtype, tag, value, rule, tmp_path):
    """NaN equals nothing, not even itself; a pixel with one band left is a matter of the rule."""
    pixels = reflectance(6, 40).astype(dtype)
    pixels[:, 3, 4:9] = value
    pixels[2, 20, 21] = value
    path = write_raster(tmp_path / "chip.tif", pixels, nodata=tag)
    processor = PrithviImageProcessor(nodata_value=None if tag == value else -9999, nodata_rule=rule)
    found = processor(GeoTiffRaster(path), return_tensors="pt")["pixel_values"]
    assert found.isfinite().all()
    assert found.abs().max() < 7  # -9999 of digital numbers would be about 10 below
    result = predict_scene(tiny_model(), processor, path, tmp_path / "map.tif", show_progress=False)
    expected = np.zeros((40, 40), dtype=bool)
    expected[3, 4:9], expected[20, 21] = True, rule == "any"
    np.testing.assert_array_equal(result.mask == 255, expected)
    np.testing.assert_array_equal(read_pixels(tmp_path / "map.tif")[0] == 255, expected)


def test_no_data_is_not_a_third_class(tmp_path):
    """-1 in the official files; copies have 2, which is named until the recipe says what it is."""
    root = OFFICIAL["sen1floods11"].make(tmp_path / "data", size=SIZE)
    label = next(root.rglob("Spain_2_LabelHand.tif"))
    mask = read_pixels(label)
    replace_pixels(label, np.where(mask == -1, 2, mask))
    with pytest.raises(ValueError, match=r"Spain_2_LabelHand\.tif.*\b2\b"):
        prepared("sen1floods11", root)
    run = prepared("sen1floods11", root, ignore_values=[-1, 2])
    assert run.audits["train"].chips == 4
    labels = {row["labels"].unique().numel() for row in run.splits["test"]}
    assert labels == {3}  # -100 and two classes


# ---------------------------------------------------------------------- missing months, layers


def test_a_chip_that_lacks_a_month_is_named(tmp_path, capsys):
    root = make_irrigation_scenes(tmp_path / "data", size=SIZE)
    (root / "month2" / "scene_m02_T10SFG_chip22.tif").unlink()
    assert finetune.main(command_line("hls_irrigation_scenes", root, tmp_path / "OUT")) == 2
    refused = capsys.readouterr().err
    assert "T10SFG_chip22 (no month 2)" in refused
    assert "missing='skip'" in refused
    assert not (tmp_path / "OUT").exists()
    run = prepared("hls_irrigation_scenes", root, builder={"months": [1, 2, 3], "missing": "skip"})
    assert sum(audit.chips for audit in run.audits.values()) == 4


@pytest.mark.parametrize("as_published", [True, False])
def test_the_six_layers_of_the_crop_recipe_are_a_choice(as_published, tmp_path):
    sizes = {**SIZES, "hidden_size": 96, "num_hidden_layers": 12, "num_attention_heads": 12}
    PrithviModel(PrithviConfig(num_frames=3, **sizes)).save_pretrained(tmp_path / "backbone")
    words = flags(config="multi_temporal_crop", model=tmp_path / "backbone", output_dir=tmp_path / "OUT", **HEADS)
    words += [] if as_published else flags(num_hidden_layers="none", num_attention_heads="none")
    config = parse_arguments(words).build_model().config
    assert (config.num_hidden_layers, config.num_attention_heads) == ((6, 8) if as_published else (12, 12))
