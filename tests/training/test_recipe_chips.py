"""Training from the cache of decoded chips is training from the files, bit for bit."""

import gc
import json
import logging
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from prithvi_hf.cli.__main__ import main
from prithvi_hf.data import clear_decoded_cache
from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.training.recipe import parse_arguments
from prithvi_hf.training.recipe_chips import check_batches, check_splits, load_splits
from tests.finetune_factory import (
    HEADS,
    QUICK,
    SCRIPT,
    SIZES,
    command_line,
    finetune,
    flags,
    run,
    run_in_two_processes,
)
from tests.raster_factory import class_mask, write_chip, write_raster


SHORT = {"do_eval": "false", "do_predict": "false", "num_sample_predictions": 0, "augmentation": "d4"}


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_equal(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def caches(folder):
    return sorted(path.name.split("-")[0] for path in (folder / "prithvi_hf_decoded").iterdir() if path.is_dir())


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "others"), [(0, ["worker", "files"]), (2, ["files"])])
def test_the_weights_are_those_of_training_from_files(data, tmp_path, workers, others):
    options = {**SHORT, "dataloader_num_workers": workers, "gradient_accumulation_steps": 2}
    run(data, tmp_path / "cached", **options, decoded_cache_dir=tmp_path / "cache")
    if "worker" in others:
        run(data, tmp_path / "worker", **options, decoded_cache_dir=tmp_path / "cache", normalize_on_device="false")
    run(data, tmp_path / "files", **options, decoded_cache="false", normalize_on_device="false")
    assert caches(tmp_path / "cache") == ["train", "validation"]
    for other in others:
        assert_equal(weights(tmp_path / "cached"), weights(tmp_path / other))
    histories = [json.loads((tmp_path / name / "trainer_state.json").read_text()) for name in ("cached", "files")]
    assert histories[0]["total_flos"] == histories[1]["total_flos"] > 0
    gc.collect()
    assert clear_decoded_cache(tmp_path / "cache") > 0


def test_a_full_disk_ends_the_run_before_it_begins(data, tmp_path, monkeypatch, capsys):
    free = type("Usage", (), {"free": 10})
    monkeypatch.setattr("prithvi_hf.data.chip_cache.shutil.disk_usage", lambda _: free)
    words = command_line(data, tmp_path / "OUT", decoded_cache_dir=tmp_path / "cache")
    assert finetune.main(words) == 2
    printed = capsys.readouterr().err
    assert "expected to write the cache of decoded chips" in printed
    assert "decoded_cache: false" in printed
    assert not (tmp_path / "OUT").exists()


@pytest.mark.slow
def test_two_processes_share_one_cache(data, trained_by_two, tmp_path):
    options = {**trained_by_two.options, "decoded_cache": "false"}
    printed = run_in_two_processes(tmp_path, SCRIPT, *command_line(data, tmp_path / "OUT", **options))
    assert trained_by_two.printed.count("Decoding 4 chips of train") == 1
    assert "Decoding" not in printed
    assert_equal(weights(trained_by_two.output), weights(tmp_path / "OUT"))
    assert caches(trained_by_two.options["decoded_cache_dir"]) == ["train", "validation"]


@pytest.fixture
def folder(tmp_path):
    """Chips of 32 pixels in two splits, with masks of 0 and 255."""
    for split, seeds in (("train", range(3)), ("validation", range(3, 5))):
        for seed in seeds:
            write_chip(tmp_path / "chips" / split / f"{seed}.tif", seed=seed)
            mask = class_mask([0, 255], seed=seed)
            write_raster(tmp_path / "chips" / split / f"{seed}_mask.tif", mask)
    return tmp_path / "chips"


def words(folder, **options):
    options = {
        **SIZES,
        **HEADS,
        **QUICK,
        **SHORT,
        "dataset_options": json.dumps({"mask_suffix": "_mask.tif", "cache_dir": str(folder.parent / "cache")}),
        "data_dir": folder,
        "output_dir": folder.parent / "OUT",
        "class_names": ["land", "burnt"],
        "label_map": '{"255": 1}',
        **options,
    }
    flags = []
    for name, value in options.items():
        flags += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return flags


def check(folder, **options):
    recipe = parse_arguments(words(folder, **options))
    splits = load_splits(recipe, ["train", "validation"], "")
    return check_splits(splits, recipe.build_image_processor(), recipe, False, crop_size=(32, 32))


def test_a_map_of_labels_travels_with_the_model(folder, capsys):
    assert finetune.main(words(folder)) == 0
    out = folder.parent / "OUT"
    assert PrithviImageProcessor.from_pretrained(out).label_map == {255: 1}
    assert main(["evaluate", "--model", str(out), "--splits", "validation", "--device", "cpu"]) == 0
    figures = capsys.readouterr().out
    for path in folder.rglob("*_mask.tif"):  # the same labels in other numbers
        write_raster(path, np.where(GeoTiffRaster(path).read()[0] == 255, 20, 10).astype(np.uint8))
    again = ["evaluate", "--model", str(out), "--splits", "validation", "--device", "cpu"]
    assert main(again) == 2
    assert "2 of 2 masks hold values that are not a class" in capsys.readouterr().err
    assert main([*again, "--label_map", '{"10": 0, "20": 1}']) == 0
    assert capsys.readouterr().out.splitlines()[-6:] == figures.splitlines()[-6:]


def test_masks_of_0_and_255_are_one_message_with_the_map_and_nothing_is_written(folder, capsys):
    assert finetune.main(words(folder, label_map="none")) == 2
    error = capsys.readouterr().err
    assert "Split train: 3 of 3 masks hold values that are not a class" in error
    assert "set label_map={255: 1}" in error
    assert not (folder.parent / "OUT").exists()


def test_chips_of_mixed_sizes_are_seen_before_training(folder):
    write_chip(folder / "validation" / "4.tif", size=48)
    write_raster(folder / "validation" / "4_mask.tif", class_mask([0, 255], size=48))
    with pytest.raises(
        ValueError, match=r"Split validation: .* 2 in a batch, found 32 x 32, 48 x 48\. .*batch_size: 1"
    ):
        check(folder, per_device_eval_batch_size=2)
    assert check(folder)["validation"].sizes == {(32, 32): 1, (48, 48): 1}
    write_chip(folder / "train" / "0.tif", size=48)  # training takes crops of one size
    write_raster(folder / "train" / "0_mask.tif", class_mask([0, 255], size=48))
    check(folder, per_device_eval_batch_size=1)


def test_small_chips_and_equal_images_are_a_warning(folder, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("prithvi_hf.training.recipe_chips"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("prithvi_hf"), "propagate", True)
    write_chip(folder / "train" / "0.tif", size=(24, 40))
    write_raster(folder / "train" / "0_mask.tif", class_mask([0, 255], size=40)[:24])
    shutil.copy(folder / "train" / "2.tif", folder / "validation" / "4.tif")
    check(folder)
    small, equal = caplog.messages[-2:]
    assert "train: 1 of 3 chips are smaller than the crop of 32 x 32 pixels, the smallest 24 x 40" in small
    assert "--crop_size 24" in small
    assert "Splits train and validation share 1 image with equal pixels: 2 as 4." in equal


@pytest.mark.parametrize(
    ("chips", "options", "left_out", "message"),
    [
        (5, {}, True, None),
        (4, {}, False, None),
        (5, {"per_device_train_batch_size": 1}, None, "batches of at least two chips .*found .* 1 and 5"),
        (1, {}, None, "batches of at least two chips .*found .* 4 and 1"),
        (3, {"dataloader_drop_last": "true"}, None, "at least 4 training chips .*found 3"),
        (5, {"decode_head": "unet", "per_device_train_batch_size": 1}, False, None),
    ],
)
def test_upernet_is_not_given_a_batch_of_one(chips, options, left_out, message, caplog):
    words = {"decode_head": "upernet", "per_device_train_batch_size": 4, "use_cpu": "true", "output_dir": "unused"}
    recipe = parse_arguments(flags(**{**words, **options}))
    config = PrithviConfig(num_hidden_layers=4, **recipe.get_config_values())
    if message:
        with pytest.raises(ValueError, match=message):
            check_batches(recipe, config, chips)
        return
    check_batches(recipe, config, chips)
    assert recipe.training.dataloader_drop_last == left_out
    assert ("is left out of each epoch" in caplog.text) == left_out


@pytest.mark.parametrize(("chips", "drop_last", "is_told"), [(5, False, True), (5, True, False), (7, False, False)])
def test_a_small_last_batch_of_short_epochs_is_told(chips, drop_last, is_told, caplog):
    words = {"per_device_train_batch_size": 4, "dataloader_drop_last": drop_last, "use_cpu": True}
    recipe = parse_arguments(flags(**words, output_dir="unused"))
    check_batches(recipe, PrithviConfig(**recipe.get_config_values()), chips)
    assert ("One batch in 2 has 1 of 4 chips" in caplog.text) == is_told
