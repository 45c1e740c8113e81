# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The recipe of a pretraining: its options, the model that they make, and the scenes that they name."""

import pytest
import torch

from prithvi_hf import PrithviForPreTraining, PrithviImageProcessor
from prithvi_hf.training.pretrain_recipe import parse_pretrain_arguments
from prithvi_hf.training.recipe import find_packaged_recipes, read_options
from tests.granule_factory import write_hls_granule
from tests.pretrain_factory import SIZES, command_line, make_scenes, save_autoencoder


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return save_autoencoder(tmp_path_factory.mktemp("start") / "mae")


def parse(tmp_path, **options):
    return parse_pretrain_arguments(command_line("scenes", tmp_path / "OUT", **options))


def test_the_packaged_recipe_gives_what_it_says(tmp_path):
    words = ["--config", "pretrain", "--output_dir", str(tmp_path), "--use_cpu", "true"]
    recipe = parse_pretrain_arguments(words)
    assert "pretrain" in find_packaged_recipes()
    assert recipe.model.mask_ratio == 0.75
    assert recipe.training.learning_rate == 1e-4
    assert recipe.training.adam_beta2 == 0.95
    assert recipe.training.metric_for_best_model == "loss"
    with pytest.raises(ValueError, match="unknown option"):
        read_options("pretrain")  # as a recipe of finetune


def test_a_starting_model_keeps_its_weights_with_other_bands_frames_and_ratio(tmp_path, start):
    bands = ["NIR_NARROW", "RED", "RED_EDGE_1", "BLUE"]
    options = {"bands": bands, "num_frames": 2, "mask_ratio": 0.5, "image_mean": [1] * 4, "image_std": [1] * 4}
    recipe = parse(tmp_path, model=start, **dict.fromkeys(SIZES), **options)
    model, first = recipe.build_model(), PrithviForPreTraining.from_pretrained(start)
    config = model.config
    assert (config.bands, config.num_channels, config.num_frames, config.mask_ratio) == (bands, 4, 2, 0.5)
    assert torch.equal(model.decoder.layers[0].mlp.fc1.weight, first.decoder.layers[0].mlp.fc1.weight)
    recipe.build_image_processor().check_config(config)
    loss = model(torch.randn(1, 4, 2, 32, 32)).loss
    assert loss.isfinite()


def test_options_that_would_replace_pretrained_weights_are_refused(tmp_path, start):
    options = {**dict.fromkeys(SIZES), "hidden_size": 64, "num_hidden_layers": 3}
    with pytest.raises(ValueError, match=r"hidden_size: .* has 32, not 64; num_hidden_layers: .* has 1, not 3"):
        parse(tmp_path, model=start, **options).build_model()


def test_a_folder_of_granules_is_scenes_of_all_dates_with_their_masks(tmp_path):
    for tile in ("10SEH", "10SFH"):
        for day in (7, 10, 20):
            write_hls_granule(tmp_path / "granules", "S30", (2022, 6, day), tile=tile)
    options = {"num_frames": 2, "fmask": ["cloud"], "eval_fraction": 0, "eval_strategy": "no"}
    recipe = parse_pretrain_arguments(command_line(tmp_path / "granules", tmp_path / "OUT", **options))
    train, held_out = recipe.open_scenes(PrithviImageProcessor(num_frames=2))
    assert [len(scene.frames) for scene in train] == [3, 3]
    assert not held_out
    assert [date.day for date in train[0].dates] == [7, 10, 20]
    assert all(frame.excludes for scene in train for frame in scene.frames)


def test_single_files_are_scenes_too(tmp_path):
    paths = [str(path) for path in sorted(make_scenes(tmp_path / "scenes").glob("*.tif"))]
    recipe = parse_pretrain_arguments(command_line(paths, tmp_path / "OUT", eval_fraction=0, eval_strategy="no"))
    train, held_out = recipe.open_scenes(PrithviImageProcessor(num_frames=1))
    assert ([scene.name for scene in train], held_out) == (["a", "b", "c", "d"], [])


def test_a_list_with_a_faulty_scene_is_refused(tmp_path):
    (tmp_path / "scenes.txt").write_text("a.tif\nhttps://example.org/b.tif\n")
    recipe = parse_pretrain_arguments(command_line(tmp_path / "scenes.txt", tmp_path / "OUT"))
    with pytest.raises(ValueError, match="1 of 2 scenes cannot be used"):
        recipe.open_scenes(PrithviImageProcessor(num_frames=1))


@pytest.mark.parametrize(("name", "value"), [("crop_size", 0), ("crop_size", -16), ("num_frames", 0)])
def test_no_pixels_and_no_frames_are_refused(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"Expected {name} of at least 1, found {value}"):
        parse(tmp_path, **{name: value})
