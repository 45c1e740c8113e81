# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/pretrain.py: one process and two, interrupted and resumed, scenes with gaps, and what a run leaves."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from affine import Affine
from safetensors.torch import load_file

from prithvi_hf import PrithviForPreTraining, PrithviForSemanticSegmentation, PrithviModel
from prithvi_hf.training import pretrain
from prithvi_hf.training.checkpoints import find_damage
from prithvi_hf.training.pretrain_recipe import parse_pretrain_arguments
from tests import finetune_factory
from tests.pretrain_factory import SCRIPT, SIZES, command_line, make_scenes, run, save_autoencoder, write_smooth_scene


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return make_scenes(tmp_path_factory.mktemp("pretraining") / "scenes")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return save_autoencoder(tmp_path_factory.mktemp("start") / "mae")


@pytest.fixture(scope="module")
def finished(scenes, start, tmp_path_factory):
    """A run of four steps from a masked autoencoder, with checkpoints after two and four."""
    output = tmp_path_factory.mktemp("finished") / "OUT"
    run(scenes, output, model=start, num_sample_reconstructions=1, **dict.fromkeys(SIZES))
    return output


def weights_of(folder):
    return load_file(Path(folder) / "model.safetensors")


def losses_of(folder, name="loss"):
    history = json.loads((Path(folder) / "trainer_state.json").read_text())["log_history"]
    return [entry[name] for entry in history if name in entry]


def assert_same_weights(folder, other):
    found, expected = weights_of(folder), weights_of(other)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


# ---------------------------------------------------------------- from the scenes to the results


def test_a_run_leaves_a_model_checkpoints_pictures_and_a_card(finished, start):
    names = {path.name for path in finished.iterdir()}
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "README.md", "recipe.yaml"} <= names
    assert {"learning_curves.png", "sample_reconstructions.png", "all_results.json", "checkpoint-2"} <= names
    assert find_damage(finished / "checkpoint-4") is None
    card = (finished / "README.md").read_text()
    figure = json.loads((finished / "all_results.json").read_text())["eval_loss"]
    assert f"{figure:.4f}" in card
    assert str(start) in card
    assert "weight decay: 0.05" in card
    model, info = PrithviForPreTraining.from_pretrained(finished, output_loading_info=True)
    assert not info["missing_keys"]
    assert model.config.num_frames == 1
    changed = [not torch.equal(tensor, weights_of(start)[name]) for name, tensor in weights_of(finished).items()]
    assert all(changed)


def test_finetune_starts_from_its_result(finished, tmp_path):
    data = finetune_factory.make_chips(tmp_path / "data")
    own = dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads"))
    finetune_factory.run(data, tmp_path / "OUT", model=finished, max_steps=1, learning_rate=0, **own)
    tuned, pretrained = weights_of(tmp_path / "OUT"), weights_of(finished)
    encoder = [name for name in pretrained if name.startswith("prithvi.")]
    assert encoder
    assert all(torch.equal(tuned[name], pretrained[name]) for name in encoder)
    assert isinstance(PrithviForSemanticSegmentation.from_pretrained(tmp_path / "OUT"), PrithviForSemanticSegmentation)


def test_the_recipe_repeats_the_run(finished, tmp_path):
    words = ["--config", finished / "recipe.yaml", "--output_dir", tmp_path / "OUT"]
    assert pretrain.main([*map(str, words), "--use_cpu", "true"]) == 0
    assert_same_weights(tmp_path / "OUT", finished)


# ---------------------------------------------------------------- the same run, however it is run


def test_a_resumed_run_ends_with_the_weights_of_an_undisturbed_one(finished, scenes, start, tmp_path):
    output = shutil.copytree(finished, tmp_path / "OUT")
    shutil.rmtree(output / "checkpoint-4")
    (output / "model.safetensors").unlink()
    words = {"model": start, "resume_from_checkpoint": True, "dataloader_num_workers": 2}
    run(scenes, output, **dict.fromkeys(SIZES), **words)
    assert_same_weights(output, finished)
    assert losses_of(output) == losses_of(finished)
    assert losses_of(output, "eval_loss") == losses_of(finished, "eval_loss")


@pytest.mark.slow
def test_two_processes_share_a_global_batch_whose_loss_is_that_of_one(finished, scenes, start, tmp_path):
    options = {**dict.fromkeys(SIZES), "model": start, "per_device_train_batch_size": 2}
    printed = finetune_factory.run_in_two_processes(
        tmp_path, SCRIPT, *command_line(scenes, tmp_path / "OUT", **options)
    )
    assert printed.count("2 processes: left") == 2
    assert losses_of(tmp_path / "OUT") == pytest.approx(losses_of(finished), rel=1e-5)
    assert losses_of(tmp_path / "OUT", "eval_loss") == pytest.approx(losses_of(finished, "eval_loss"), rel=1e-5)


def test_accumulated_batches_have_the_loss_of_one_large_batch(finished, scenes, start, tmp_path):
    options = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    run(scenes, tmp_path / "OUT", model=start, **dict.fromkeys(SIZES), **options)
    assert losses_of(tmp_path / "OUT") == pytest.approx(losses_of(finished), rel=1e-5)


def test_an_evaluation_alone_gives_the_loss_of_the_same_windows_which_training_lowers(
    finished, scenes, start, tmp_path
):
    options = {**dict.fromkeys((*SIZES, "max_steps", "eval_steps", "save_steps")), "do_train": False}
    options |= {"per_device_eval_batch_size": 2, "eval_strategy": "no", "save_strategy": "no"}
    found = run(scenes, tmp_path / "OUT", model=finished, **options)["eval_loss"]
    assert found == pytest.approx(losses_of(finished, "eval_loss")[-1], rel=1e-6)
    assert run(scenes, tmp_path / "START", model=start, **options)["eval_loss"] > 1.1 * found


# ---------------------------------------------------------------- no data


def test_what_fills_pixels_without_data_changes_nothing(tmp_path, start):
    """A swath of no data covers parts of patches too, and is there under another number in the other scenes."""
    losses = []
    for fill in (-9999, 30_000):
        folder = tmp_path / str(fill)
        for index in range(3):
            gap = (slice(10, 29), slice(5, 40))
            write_smooth_scene(folder / f"{index}.tif", 64, 64, index, nodata=fill, gap=gap)
        options = {"eval_scenes": folder, "min_valid": 0.2, "max_steps": 2, "save_steps": 2}
        run(folder, folder / "OUT", model=start, **dict.fromkeys(SIZES), **options)
        losses.append(losses_of(folder / "OUT"))
    assert losses[0] == losses[1]


# ---------------------------------------------------------------- where it starts, and what is refused


def test_a_backbone_gets_a_new_decoder_and_that_is_said(scenes, start, tmp_path, caplog):
    PrithviModel.from_pretrained(start).save_pretrained(tmp_path / "backbone")
    recipe = parse_pretrain_arguments(
        command_line(scenes, tmp_path / "OUT", model=tmp_path / "backbone", **dict.fromkeys(SIZES))
    )
    model = recipe.build_model()
    assert "pretraining decoder" in caplog.text
    assert torch.equal(model.prithvi.embeddings.cls_token, PrithviModel.from_pretrained(start).embeddings.cls_token)


def test_scenes_with_more_dates_than_the_model_takes_give_all_of_them(tmp_path, caplog):
    for place in range(2):
        for date in range(4):
            write_smooth_scene(tmp_path / f"{place}_{date}.tif", 48, 48, date)
    lines = [" ".join(f"{place}_{date}.tif" for date in range(4)) for place in range(2)]
    (tmp_path / "scenes.txt").write_text("\n".join(lines))
    options = {"num_frames": 3, "coords_encoding": ["time", "location"], "coords_scale_learn": True, "max_steps": 2}
    options |= {"eval_scenes": tmp_path / "scenes.txt", "save_steps": 2}
    run(tmp_path / "scenes.txt", tmp_path / "OUT", **options)
    assert PrithviForPreTraining.from_pretrained(tmp_path / "OUT").config.num_frames == 3
    # Two to train on, the same two to evaluate.
    assert "4 of 4 scenes do not tell the date of every frame (temporal_coords)" in caplog.text
    assert "location_coords" not in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_size": 40}, "whole patches"),
        ({"crop_size": 128}, "at least 128 x 128 pixels"),
        ({"num_frames": 2}, "expected 2 frames"),
        ({"mask_ratio": 0}, "mask_ratio above 0"),
        ({"eval_fraction": 0}, "Expected scenes to evaluate, found none"),
        ({"eval_fraction": 1.5}, "Expected eval_fraction as a fraction"),
        ({"scenes": "nowhere"}, "found nothing there"),
        ({"scenes": None}, "Expected --scenes"),
        ({"bands": ["BLUE", "GREEN", "RED", "RED_EDGE_1"]}, "image_mean and image_std"),
        ({"min_valid": 1.0, "scenes": "{gap}"}, "Lower --min_valid"),
        ({"scenes": "{other}"}, "NIR_NARROW"),
    ],
)
def test_what_cannot_be_is_one_message_and_nothing_written(options, message, scenes, tmp_path, capsys):
    write_smooth_scene(tmp_path / "other" / "a.tif", descriptions=("BLUE", "GREEN", "RED", "B6", "B11", "B12"))
    write_smooth_scene(tmp_path / "gap" / "a.tif", 48, 48, gap=(slice(None), slice(20, 28)))
    given = {name: value.format(gap=tmp_path / "gap", other=tmp_path / "other") if isinstance(value, str) else value
             for name, value in options.items()}  # fmt: skip
    extra = {} if "eval_fraction" in given else {"eval_scenes": scenes}
    words = command_line(given.pop("scenes", scenes), tmp_path / "OUT", **extra, **given)
    assert pretrain.main(words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "OUT").exists()


def test_held_out_scenes_are_whole_places(tmp_path):
    """Dates of one place, each a scene of its own for a model of one date, stay on one side."""
    for place in range(3):
        for date in range(2):
            transform = Affine(30, 0, 500_000 + place * 9_000, 0, -30, 8_000_000)
            write_smooth_scene(tmp_path / f"{place}_{date}.tif", 48, 48, date, transform=transform)
    recipe = parse_pretrain_arguments(command_line(tmp_path, tmp_path / "OUT", eval_fraction=0.3))
    train, held_out = recipe.open_scenes(recipe.build_image_processor())
    assert len(train) == 4
    assert len({scene.grid.bounds for scene in held_out}) == 1
    assert not {scene.grid.bounds for scene in train} & {scene.grid.bounds for scene in held_out}
    again, _ = recipe.open_scenes(recipe.build_image_processor())
    assert [scene.name for scene in again] == [scene.name for scene in train]
