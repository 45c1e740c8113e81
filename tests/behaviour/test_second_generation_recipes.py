"""The recipes of Prithvi-EO-2.0: their published settings, and two steps of each from a converted backbone."""

import json

import pytest
import torch
import yaml

from prithvi_hf import PrithviConfig, PrithviForPreTraining, PrithviForSemanticSegmentation, PrithviImageProcessor
from prithvi_hf.data.load import make_builder
from prithvi_hf.training import finetune
from prithvi_hf.training.evaluation import evaluate_recipe
from prithvi_hf.training.recipe import parse_arguments
from tests.finetune_factory import QUICK, flags, make_chips
from tests.raster_factory import make_burn_scars, make_crops, make_landslides


# Head, loss, optimisation and schedule, crop and evaluated window, as published; then the published figures.
FACTS = {
    "sen1floods11_v2": (
        {"decode_head": "upernet", "head_hidden_size": 256, "loss": "cross_entropy"},
        {"learning_rate": 5e-5, "weight_decay": 0.05, "per_device_train_batch_size": 16, "num_train_epochs": 50},
        ("cosine", {}),
        (224, 512),
        {"test": {"chips": 90, "mean_iou": 90.0, "iou": {"water": 82.6}}},
    ),
    "hls_burn_scars_v2": (
        {"decode_head": "unet", "unet_channels": [512, 256, 128, 64], "loss": "cross_entropy"},
        {"learning_rate": 1e-4, "weight_decay": 0.1, "per_device_train_batch_size": 4},
        ("reduce_lr_on_plateau", {"metric": "loss", "factor": 0.5, "patience": 4}),
        (512, 512),
        {"test": {"chips": 264, "iou": {"burn scar": 87.5}}},
    ),
    "hls_burn_scars_v2_geobench": (
        {"decode_head": "unet", "unet_channels": [512, 256, 128, 64], "loss": "cross_entropy"},
        {"learning_rate": 7e-6, "weight_decay": 0.1, "per_device_train_batch_size": 4},
        ("reduce_lr_on_plateau", {"metric": "loss", "factor": 0.5, "patience": 4}),
        (512, 512),
        {"test": {"mean_iou": 88.6}},
    ),
    "multi_temporal_crop_v2": (
        {"decode_head": "upernet", "head_hidden_size": 256, "loss": "cross_entropy"},
        {"learning_rate": 3e-4, "weight_decay": 0.35, "per_device_train_batch_size": 8, "num_train_epochs": 125},
        ("step_decay", {"step_size": 10 / 125, "gamma": 0.9}),
        (224, 224),
        {"test": {"chips": 771, "mean_iou": 48.6}},
    ),
    "landslide4sense": (
        {"decode_head": "upernet", "head_hidden_size": 256, "loss": "focal", "input_upsampling": 224 / 128},
        {"learning_rate": 5e-5, "weight_decay": 0.1, "per_device_train_batch_size": 8, "num_train_epochs": 50},
        ("cosine", {}),
        (128, 128),
        None,
    ),
}
MAKERS = {
    "sen1floods11": make_chips,
    "hls_burn_scars": make_burn_scars,
    "multi_temporal_crop": make_crops,
    "landslide4sense": make_landslides,
}


def read(name, *words):
    return parse_arguments(["--config", name, "--output_dir", "unused", "--use_cpu", *words])


def find_neck(name):
    return "token_map" if name in ("multi_temporal_crop_v2", "landslide4sense") else "pyramid"


@pytest.mark.parametrize("name", FACTS)
def test_the_settings_are_the_published_ones(name):
    recipe, (model, training, (kind, options), (crop, window), figures) = read(name), FACTS[name]
    config = PrithviConfig(num_hidden_layers=24, hidden_size=1024, **recipe.get_config_values())
    assert {field: getattr(config, field) for field in model} == model
    assert (config.neck, config.feature_layers) == (find_neck(name), [5, 11, 17, 23])
    assert (config.classifier_dropout, config.use_auxiliary_head) == (0.1, False)
    assert {field: getattr(recipe.training, field) for field in training} == training
    assert recipe.training.optim == "adamw_torch"
    assert (recipe.training.lr_scheduler_type, recipe.training.lr_scheduler_kwargs or {}) == (kind, options)
    assert (recipe.data.crop_size, recipe.training.eval_window) == (crop, window)
    assert recipe.data.published == figures


@pytest.mark.parametrize("layers", [(12, [2, 5, 8, 11]), (32, [7, 15, 23, 31])])
def test_the_layers_are_those_of_every_published_size(layers):
    config = PrithviConfig(num_hidden_layers=layers[0], **read("sen1floods11_v2").get_config_values())
    assert config.feature_layers == layers[1]


@pytest.mark.parametrize("name", FACTS)
def test_recipe_and_dataset_agree(name):
    recipe = read(name)
    features = make_builder(recipe.data.dataset).info.features
    named = [(recipe.data.band_map or {}).get(band, band) for band in recipe.data.bands]
    assert named == [band for band in dict.fromkeys(features["image"].band_names) if band in named]
    assert features["mask"].class_names[-len(recipe.data.class_names) :] == recipe.data.class_names
    assert features["mask"].class_colors[-len(recipe.data.class_names) :] == recipe.data.class_colors


def test_the_two_burn_scar_recipes_differ_in_rate_and_figures():
    first, other = (read(name).given for name in ("hls_burn_scars_v2", "hls_burn_scars_v2_geobench"))
    assert {name for name in {*first, *other} if first.get(name) != other.get(name)} == {
        *("config", "learning_rate", "published")
    }


# ---------------------------------------------------------------------- two steps from a converted backbone


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A random backbone of 24 narrow layers in the layout of Prithvi_EO_V2_300M_TL.pt, converted."""
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 24, "num_attention_heads": 2, "num_frames": 4, "image_size": 32}
    sizes |= {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 1}
    coords = {"coords_encoding": ["time", "location"], "coords_scale_learn": True}
    model = PrithviForPreTraining(PrithviConfig(**sizes, **coords))
    model.save_pretrained(folder / "prithvi")
    return folder / "prithvi"


@pytest.fixture(scope="module", params=[name for name in FACTS if name != "hls_burn_scars_v2_geobench"])
def trained(request, backbone, tmp_path_factory):
    """Recipe, chips and output of two steps of each recipe."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    dataset = read(name).data.dataset
    if dataset == "landslide4sense":
        pytest.importorskip("h5py")
    MAKERS[dataset](folder / "data", **({} if dataset == "landslide4sense" else {"size": 64}))
    options = {**QUICK, "max_steps": 2, "warmup_steps": 0, "eval_strategy": "steps", "save_strategy": "steps"}
    options |= {"head_hidden_size": 8, "crop_size": 64, "eval_window": 64, "model": backbone}
    if dataset == "landslide4sense":
        options |= {"crop_size": 128, "eval_window": 128}
    if dataset == "hls_burn_scars":
        options["unet_channels"] = [16, 8, 8, 8]
    builder = json.dumps({"cache_dir": str(folder / "cache")})
    words = flags(config=name, data_dir=folder / "data", output_dir=folder / "OUT", dataset_options=builder, **options)
    assert finetune.main(words) == 0
    return name, folder


def test_two_steps_from_the_converted_backbone(trained):
    name, folder = trained
    model = PrithviForSemanticSegmentation.from_pretrained(folder / "OUT")
    config, wanted = model.config, FACTS[name][0]
    assert (config.decode_head, config.neck, config.loss) == (wanted["decode_head"], find_neck(name), wanted["loss"])
    assert config.input_upsampling == wanted.get("input_upsampling", 1)
    assert config.feature_layers == [5, 11, 17, 23]
    results = json.loads((folder / "OUT" / "all_results.json").read_text())
    assert 0 < results["test_mean_iou"] < 1
    figures = read(name).data.published
    assert yaml.safe_load((folder / "OUT" / "recipe.yaml").read_text()).get("published") == figures
    assert ("published" in (folder / "OUT" / "README.md").read_text()) == bool(figures)


def test_the_saved_model_gives_the_figures_of_the_run(trained):
    """Also where images are upsampled inside, and dates and places may be asked for."""
    folder = trained[1]
    words = ["--config", str(folder / "OUT" / "recipe.yaml"), "--output_dir", str(folder / "EVAL"), "--use_cpu"]
    recipe = parse_arguments([*words, "--do_train", "false"])
    model = PrithviForSemanticSegmentation.from_pretrained(folder / "OUT")
    [result, *_] = evaluate_recipe(model, PrithviImageProcessor.from_pretrained(folder / "OUT"), recipe)
    results = json.loads((folder / "OUT" / "all_results.json").read_text())
    assert result.metrics["mean_iou"] == results["test_mean_iou"]
