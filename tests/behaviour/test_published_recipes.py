# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The four recipes against the table of the original's: every number is read from the table itself."""

import re

import pytest

from prithvi_hf import PrithviConfig
from prithvi_hf.data.load import make_builder
from prithvi_hf.training.recipe import find_recipe, parse_arguments


NAMES = ("sen1floods11", "hls_burn_scars", "hls_irrigation_scenes", "multi_temporal_crop")


@pytest.fixture(scope="module")
def table(shared_dir):
    """Row title -> the four cells, in the order of `NAMES`."""
    lines = (shared_dir / "reference" / "RECIPES.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: dict(zip(NAMES, row[1:], strict=True)) for row in cells if len(row) == 5}


@pytest.fixture(params=NAMES)
def recipe(request, tmp_path):
    recipe = parse_arguments(["--config", request.param, "--output_dir", str(tmp_path), "--use_cpu"])
    assert recipe.data.dataset == request.param
    return recipe


def numbers(text):
    return [float(number) for number in re.findall(r"(?<![\w.])-?\d*\.?\d+(?:e-?\d+)?", text)]


def test_statistics(recipe, table):
    name, processor = recipe.data.dataset, recipe.build_image_processor()
    for row, found in (("mean", processor.image_mean), ("std", processor.image_std)):
        expected = numbers(table[row][name])
        assert found == expected * (6 // len(expected))  # irrigation: "for each"


def test_scale_and_nodata(recipe, table):
    name, processor = recipe.data.dataset, recipe.build_image_processor()
    scale = table["value scale"][name]
    assert processor.rescale_factor == (1.0 if scale == "none" else numbers(scale)[0])
    nodata = numbers(table["image nodata"][name])
    assert processor.nodata_value == (nodata[0] if nodata else None)
    assert (processor.nodata_replacement, processor.nodata_rule, processor.mask_nodata_labels) == (0, "all", False)


def test_frames_bands_and_classes(recipe, table):
    name, config = recipe.data.dataset, PrithviConfig(**recipe.get_config_values())
    frames, bands = re.match(r"(\d) x (\d)", table["frames x bands"][name]).groups()
    assert (config.num_frames, config.num_channels) == (int(frames), int(bands))
    classes = table["classes"][name]
    if classes[:2] == "0 ":
        expected = dict(re.findall(r"(\d) ([\w ]+)", classes))
        assert {str(index): label for index, label in config.id2label.items()} == expected
    else:
        assert config.num_labels == int(classes.split(",")[0])
        if ":" in classes:
            assert list(config.id2label.values()) == [label.strip() for label in classes.split(":")[1].split(",")]


def test_labels(recipe, table):
    name, processor = recipe.data.dataset, recipe.build_image_processor()
    ignored = {int(value) for value in numbers(table["ignored label"][name])}
    assert set(processor.ignore_values or ()) | ({0} if processor.do_reduce_labels else set()) == ignored


def test_loss_and_weights(recipe, table):
    name, config = recipe.data.dataset, PrithviConfig(**recipe.get_config_values())
    loss, _, weights = table["loss (every cross entropy: mean over the count of non-ignored pixels)"][name].partition(
        "weights"
    )
    assert config.loss == ("dice" if loss.startswith("Dice") else "cross_entropy")
    assert config.class_weights == (numbers(weights) or None)


def test_architecture(recipe, table):
    name, config = recipe.data.dataset, PrithviConfig(**recipe.get_config_values())
    layers, heads = (int(number) for number in re.findall(r"(\d+) (?:layers|heads)", table["backbone built"][name]))
    assert (config.num_hidden_layers, config.num_attention_heads) == (layers, heads)
    assert config.neck_output_size == 768 * (1 if name == "sen1floods11" else config.num_frames)
    assert (config.neck, config.decode_head, config.head_hidden_size) == ("conv_transpose", "fcn", 256)
    assert (config.head_num_convs, config.auxiliary_head_num_convs, config.auxiliary_loss_weight) == (1, 2, 1.0)
    assert (config.use_auxiliary_head, config.classifier_dropout) == (True, 0.1)


def test_training(recipe, table):
    name, training = recipe.data.dataset, recipe.training
    optimizer = table["optimizer"][name]
    rate, *decay = numbers(optimizer.split("lr")[1])
    assert training.learning_rate == rate
    assert training.weight_decay == (decay[0] if decay else 0)
    assert getattr(training.optim, "value", training.optim) == (
        "adamw_torch" if optimizer.startswith("AdamW") else "adam"
    )
    assert training.decay_all_parameters == bool(decay)
    length, batch = table["length, batch per GPU"][name].replace("10,000", "10000").split(", ")
    assert training.per_device_train_batch_size == int(batch)
    epochs = f"{training.num_train_epochs:g} epochs"
    assert (f"{training.max_steps} iterations" if training.max_steps > 0 else epochs) == length
    assert (training.adam_beta1, training.adam_beta2, training.max_grad_norm) == (0.9, 0.999, 0)
    assert (training.lr_scheduler_type, training.warmup_steps) == ("mmseg_poly", 1500)
    assert (recipe.data.crop_size, recipe.data.augmentation) == (224, "hflip")


def test_evaluation(recipe, table):
    training, text = recipe.training, table["evaluation"][recipe.data.dataset].replace(",", "")
    interval = int(numbers(text)[0])
    if "epochs" in text:
        assert training.eval_steps == interval / training.num_train_epochs
    else:
        assert training.eval_steps == interval
    assert training.save_steps == training.eval_steps
    assert (training.eval_window, training.eval_overlap) == (224, 0.5)
    assert (training.metric_for_best_model, training.greater_is_better) == ("mean_iou", True)


def test_published_figures(shared_dir, table):
    text = (shared_dir / "reference" / "RECIPES.md").read_text()
    floods, crops = (_published(name) for name in ("sen1floods11", "multi_temporal_crop"))
    stated = re.search(r"test, water IoU ([\d.]+), mIoU ([\d.]+), mAcc ([\d.]+)", text).groups()
    assert [floods["test"]["iou"]["water"], *_means(floods["test"])] == [float(number) for number in stated]
    stated = re.search(r"Bolivia ([\d.]+) / ([\d.]+) / ([\d.]+)", text).groups()
    assert [floods["bolivia"]["iou"]["water"], *_means(floods["bolivia"])] == [float(number) for number in stated]
    stated = re.search(r"Crops: mIoU ([\d.]+), mAcc ([\d.]+)", text).groups()
    assert _means(crops["test"]) == [float(number) for number in stated]
    counts = [table["chips"][name] for name in ("sen1floods11", "multi_temporal_crop")]
    assert f"{floods['test']['chips']} test, {floods['bolivia']['chips']} Bolivia" in counts[0]
    assert f"{crops['test']['chips']} validation" in counts[1]
    assert set(crops["test"]["iou"]) == set(_recipe("multi_temporal_crop").data.class_names)
    mean = sum(crops["test"]["iou"].values()) / 13
    assert mean == pytest.approx(crops["test"]["mean_iou"], abs=0.01)


def _recipe(name):
    return parse_arguments(["--config", name, "--output_dir", "unused", "--use_cpu"])


def _published(name):
    return _recipe(name).data.published


def _means(figures):
    return [figures["mean_iou"], figures["mean_accuracy"]]


@pytest.mark.parametrize("name", NAMES)
def test_recipe_and_data_set_agree(name):
    recipe = _recipe(name)
    features = make_builder(name).info.features
    mask, image = features["mask"], features["image"]
    image = getattr(image, "feature", image)
    assert [band.upper() for band in recipe.data.bands] == [
        band for band in dict.fromkeys(image.band_names) if band in recipe.data.bands
    ]
    assert list(mask.class_names)[-len(recipe.data.class_names) :] == recipe.data.class_names
    assert list(mask.class_colors)[-len(recipe.data.class_names) :] == recipe.data.class_colors


def test_new_trainings_do_not_mix_bands_and_dates():
    for name in NAMES:
        assert _recipe(name).build_image_processor().frame_order == "time_major"


def test_a_recipe_is_found_by_name_and_by_path(tmp_path, monkeypatch):
    for name in NAMES:
        assert find_recipe(name).read_text() == find_recipe(find_recipe(name)).read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sen1floods11").mkdir()  # a folder of data of the same name
    assert find_recipe("sen1floods11").suffix == ".yaml"
    with pytest.raises(FileNotFoundError, match=r"one of the recipes .*sen1floods11.*found neither under absent"):
        find_recipe("absent")
