"""The published fine-tuned checkpoints, with their recipes, through `prithvi-hf convert` and back."""

import io
import json
import os

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml

from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation, PrithviImageProcessor
from prithvi_hf.cli.__main__ import main
from prithvi_hf.conversion.convert_prithvi_to_hf import convert_state_dict
from prithvi_hf.conversion.infer_config import infer_config
from prithvi_hf.models.prithvi.embeddings_prithvi import sincos_position_table
from prithvi_hf.training.recipe import find_recipe, read_recipe
from tests.checkpoint_factory import (
    CROP_CLASSES,
    RECIPES,
    REDUCED,
    REPOSITORY,
    assert_refused,
    convert,
    convert_golden,
    mmcv_file,
)
from tests.golden import TOLERANCE, assert_matches, read_golden


# ---------------------------------------------------------------------- the three checkpoints


@pytest.mark.parametrize(
    ("which", "variant"),
    [
        ("flood", {"CLASSES": (0, 1), "PALETTE": None}),
        ("burn", {"prefix": "module."}),
        ("crop", {"CLASSES": CROP_CLASSES}),
        ("crop", {"averaging": True}),
    ],
)
def test_the_logits_are_those_of_the_original(golden_dir, tmp_path, which, variant):
    golden, model = convert_golden(golden_dir, tmp_path, which, **variant)
    assert model.config.num_attention_heads == 4
    assert_matches(model(golden["in_.x"]).logits, golden["out.logits"])


def test_a_flood_folder_says_what_its_recipe_says(golden_dir, tmp_path):
    _, model = convert_golden(golden_dir, tmp_path, "flood")
    assert (model.config.loss, list(model.config.class_weights)) == ("cross_entropy", [0.3, 0.7])
    assert model.config.id2label == {0: "no water", 1: "water"}
    written = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert (written["num_frames"], written["frame_order"], written["num_labels"]) == (1, "time_major", 2)
    assert (written["rescale_factor"], written["nodata_value"], written["ignore_values"]) == (0.0001, -9999, [-1])
    assert written["image_std"][0] == 0.04036231


def test_a_burn_scar_folder_says_what_its_recipe_says(golden_dir, tmp_path):
    _, model = convert_golden(golden_dir, tmp_path, "burn")
    assert (model.config.loss, model.config.class_weights) == ("dice", None)
    assert model.config.label2id == {"unburnt land": 0, "burn scar": 1}
    processor = PrithviImageProcessor.from_pretrained(tmp_path / "out")
    assert processor.image_mean[0] == 0.033349706741586264
    assert processor.frame_order == "time_major"


def test_a_crop_folder_says_what_its_recipe_says_and_how_the_original_mixed_bands(golden_dir, tmp_path, capsys):
    _, model = convert_golden(golden_dir, tmp_path, "crop")
    report = capsys.readouterr().out
    assert "frame_order = original_crop: the original's crop pipeline mixes bands and dates" in report
    assert "from the recipe: do_reduce_labels = True" in report
    assert "from the recipe: frame_order" not in report
    assert list(model.config.id2label.values()) == CROP_CLASSES
    assert model.config.class_weights[:2] == [0.386375, 0.661126]
    written = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert (written["num_frames"], written["frame_order"], written["num_labels"]) == (3, "original_crop", 13)
    assert (written["do_reduce_labels"], written["nodata_value"]) == (True, None)
    assert written["image_mean"] == [494.905781, 815.239594, 924.335066, 2968.881459, 2634.621962, 1739.579917]
    assert main(["info", str(tmp_path / "out")]) == 0
    assert "frame order  original_crop" in capsys.readouterr().out
    assert written["image_std"] == [284.925432, 357.84876, 575.566823, 896.601013, 951.900334, 921.407808]


def test_original_image_to_original_logits(golden_dir, tmp_path):
    """Files of 18 bands through the converted processor are what the original model saw."""
    golden, model = convert_golden(golden_dir, tmp_path, "crop")
    processor = PrithviImageProcessor.from_pretrained(tmp_path / "out")
    mean, std = (np.array(values * 3)[:, None, None] for values in (processor.image_mean, processor.image_std))
    files = [image.reshape(18, 64, 64).numpy().astype(np.float64) * std + mean for image in golden["in_.x"]]
    logits = model(**processor([file.astype(np.float32) for file in files], return_tensors="pt")).logits
    assert_matches(logits, golden["out.logits"], tolerance=2 * TOLERANCE)  # the files were rounded to float32


def test_the_number_of_heads_shows_nowhere_and_matters(golden_dir, tmp_path):
    golden, model = convert_golden(golden_dir, tmp_path, "crop", "num_attention_heads=8")
    assert model.config.num_attention_heads == 8
    difference = (model(golden["in_.x"]).logits - golden["out.logits"]).abs().max()
    assert difference > 100 * TOLERANCE * golden["out.logits"].abs().max()


@pytest.mark.parametrize("which", ["copy", "name"])
def test_settings_win_over_recipe_and_original_processing(golden_dir, tmp_path, capsys, which):
    recipe = tmp_path / "my crops.yaml"
    recipe.write_text(find_recipe("multi_temporal_crop").read_text())
    source = mmcv_file(tmp_path / "a.pth", read_golden(golden_dir, "v1_segmentor_crop").group("sd"))
    chosen = recipe if which == "copy" else "multi_temporal_crop"
    assert convert(source, tmp_path / "mixed", "--recipe", chosen, "--set", *REDUCED["crop"]) == 0
    assert PrithviImageProcessor.from_pretrained(tmp_path / "mixed").frame_order == "original_crop"
    settings = ["frame_order=time_major", "image_mean=[1, 2, 3, 4, 5, 6]", "nodata_value=-1", "classifier_dropout=0.5"]
    capsys.readouterr()
    assert convert(source, tmp_path / "plain", "--recipe", chosen, "--set", *REDUCED["crop"], *settings) == 0
    assert "overridden: frame_order" in capsys.readouterr().out
    processor = PrithviImageProcessor.from_pretrained(tmp_path / "plain")
    assert (processor.frame_order, processor.image_mean[5], processor.nodata_value) == ("time_major", 6, -1)
    assert PrithviConfig.from_pretrained(tmp_path / "plain").classifier_dropout == 0.5


def test_other_data_sets_are_not_mixed(golden_dir, tmp_path):
    """A user's own crops with a model of the original's layout: nothing is known of how it was trained."""
    recipe = yaml.safe_load(find_recipe("multi_temporal_crop").read_text())
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**recipe, "dataset": "geotiff_folder"}))
    source = mmcv_file(tmp_path / "a.pth", read_golden(golden_dir, "v1_segmentor_crop").group("sd"))
    assert convert(source, tmp_path / "out", "--recipe", tmp_path / "own.yaml", "--set", *REDUCED["crop"]) == 0
    assert PrithviImageProcessor.from_pretrained(tmp_path / "out").frame_order == "time_major"


def published_shapes(which):
    """Every tensor of a published checkpoint at its true size, without memory but for the positions."""
    recipe = read_recipe(RECIPES[which])
    values = {"num_frames": recipe.find_num_frames(), "num_hidden_layers": recipe.model.num_hidden_layers or 12}
    frames, layers = values["num_frames"], values["num_hidden_layers"]
    wide = 768 if which == "flood" else 768 * frames
    shapes = {"backbone.cls_token": (1, 1, 768), "backbone.patch_embed.proj.weight": (768, 6, 1, 16, 16)}
    shapes |= {f"backbone.{name}": (768,) for name in ("patch_embed.proj.bias", "norm.weight", "norm.bias")}
    for layer in range(layers):
        block = {"norm1": None, "norm2": None, "attn.qkv": (2304, 768), "attn.proj": (768, 768)}
        for name, shape in {**block, "mlp.fc1": (3072, 768), "mlp.fc2": (768, 3072)}.items():
            shapes[f"backbone.blocks.{layer}.{name}.weight"] = shape or (768,)
            shapes[f"backbone.blocks.{layer}.{name}.bias"] = (shape or (768,))[:1]
    for part, channels in (("fpn1", 768 * frames), ("fpn2", wide)):
        shapes |= {f"neck.{part}.0.weight": (channels, wide, 2, 2), f"neck.{part}.3.weight": (wide, wide, 2, 2)}
        names = ("0.bias", "1.ln.weight", "1.ln.bias", "3.bias")
        shapes |= {f"neck.{part}.{name}": (wide,) for name in names}
    classes = len(recipe.data.class_names)
    for head, convs in (("decode_head", 1), ("auxiliary_head", 2)):
        shapes |= {f"{head}.conv_seg.weight": (classes, 256, 1, 1), f"{head}.conv_seg.bias": (classes,)}
        for index in range(convs):
            shapes[f"{head}.convs.{index}.conv.weight"] = (256, wide if index == 0 else 256, 3, 3)
            names = ("weight", "bias", "running_mean", "running_var")
            shapes |= {f"{head}.convs.{index}.bn.{name}": (256,) for name in names}
            shapes[f"{head}.convs.{index}.bn.num_batches_tracked"] = ()
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return {**tensors, "backbone.pos_embed": sincos_position_table(768, (frames, 14, 14))}


@pytest.mark.parametrize("which", RECIPES)
def test_the_recipes_fit_the_published_sizes_without_any_setting(which):
    tensors, recipe = published_shapes(which), read_recipe(RECIPES[which])
    config = infer_config(tensors, **recipe.get_config_values())
    assert (config.num_hidden_layers, config.num_attention_heads) == ((6, 8) if which == "crop" else (12, 12))
    assert (config.num_frames, config.image_size) == (3 if which == "crop" else 1, 224)
    assert len(convert_state_dict(tensors, config)) == len(tensors) - 1 + 4 * config.num_hidden_layers


# ---------------------------------------------------------------------- recipes that do not fit


def test_a_wrong_recipe_is_refused_with_both_values(golden_dir, tmp_path, capsys):
    crop, flood = (read_golden(golden_dir, f"v1_segmentor_{which}").group("sd") for which in ("crop", "flood"))
    source = mmcv_file(tmp_path / "crop.pth", crop)
    refused = assert_refused(capsys, tmp_path, "the recipe sen1floods11", source, "--recipe", "sen1floods11")
    assert "number of classes (class_names): the checkpoint has 13, the recipe 2" in refused
    assert "num_frames: the checkpoint has 3, the recipe 1" in refused
    refused = assert_refused(capsys, tmp_path, "to fit the checkpoint", source, "--recipe", "multi_temporal_crop")
    assert "num_hidden_layers: the checkpoint has 2, the recipe 6" in refused
    source = mmcv_file(tmp_path / "flood.pth", flood)
    refused = assert_refused(capsys, tmp_path, "checkpoint has 2, the recipe 13", source, "--recipe", RECIPES["crop"])
    assert "num_frames: the checkpoint has 1, the recipe 3" in refused
    assert_refused(capsys, tmp_path, "sen1floods11", source, "--recipe", "sen1flood11")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("bands: [RED, GREEN]", "num_channels: the checkpoint has 6, the recipe 2"),
        ("head_hidden_size: 256", "head_hidden_size: the checkpoint has 32, the recipe 256"),
        ("neck_hidden_size: 192", "neck_hidden_size: the checkpoint has 64, the recipe 192"),
        ("neck: geospatial", "neck: the checkpoint has conv_transpose, the recipe geospatial"),
        ("head_num_convs: 3", "head_num_convs: the checkpoint has 1, the recipe 3"),
        ("auxiliary_head_num_convs: 1", "auxiliary_head_num_convs: the checkpoint has 2, the recipe 1"),
        ("image_size: 224", "image_size: the checkpoint has 64, the recipe 224"),
        ("hidden_size: 32", "hidden_size: the checkpoint has 64, the recipe 32"),
        ("num_attention_heads: 5", "num_attention_heads"),
        ("num_atention_heads: 4", "did you mean num_attention_heads"),
        ("class_weights: [1, 2, 3]", "class_weights"),
        ("loss: hinge", "loss"),
    ],
)
def test_every_value_of_a_recipe_is_checked(golden_dir, tmp_path, capsys, line, message):
    source = mmcv_file(tmp_path / "a.pth", read_golden(golden_dir, "v1_segmentor_flood").group("sd"))
    (tmp_path / "recipe.yaml").write_text(f"{line}\n")
    assert_refused(capsys, tmp_path, message, source, "--recipe", tmp_path / "recipe.yaml")


def test_a_recipe_with_another_starting_model_is_about_this_checkpoint(golden_dir, tmp_path):
    source = mmcv_file(tmp_path / "a.pth", read_golden(golden_dir, "v1_segmentor_flood").group("sd"))
    (tmp_path / "recipe.yaml").write_text(f"model: {tmp_path}/nowhere\nnum_attention_heads: 4\n")
    assert convert(source, tmp_path / "out", "--recipe", tmp_path / "recipe.yaml") == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("frame_order=mixed", "frame_order: expected 'time_major' or 'original_crop'"),
        ("frame_ordr=time_major", "frame_order"),
        ("image_mean=[1]", "image_mean: expected 6 values"),
        ("num_labels=4", "expected (4, 32, 1, 1), found (2, 32, 1, 1)"),
        ("num_hidden_layers=1", "the model has no such tensor"),
        ("num_hidden_layers=3", "prithvi.layers.2"),
    ],
)
def test_settings_that_cannot_be_are_refused(golden_dir, tmp_path, capsys, setting, message):
    source = mmcv_file(tmp_path / "a.pth", read_golden(golden_dir, "v1_segmentor_flood").group("sd"))
    assert_refused(capsys, tmp_path, message, source, "--set", setting)


# ---------------------------------------------------------------------- the report


def test_the_report_names_every_tensor(golden_dir, tmp_path, capsys):
    golden, _ = convert_golden(golden_dir, tmp_path, "crop", "--report", tmp_path / "report.json", averaging=True)
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "report.json").read_text())
    tensors = golden.group("sd")
    copies = {f"ema_{name.replace('.', '_')}" for name in tensors}
    assert set(written["converted"]) | set(written["dropped"]) == set(tensors) | copies
    assert not set(written["converted"]) & set(written["dropped"])
    assert len(written["converted"]["backbone.blocks.0.attn.qkv.weight"]) == 3
    assert all(name in printed and why in printed for name, why in written["dropped"].items())
    assert (written["newly_initialized"], written["assumed"]) == ([], {"layer_norm_eps": 1e-05})
    assert written["model_class"] == "PrithviForSemanticSegmentation"
    assert written["source"].endswith("crop.pth")
    assert written["recipe"]["loss"] == "cross_entropy"
    assert written["recipe"]["image_mean"][0] == 494.905781
    assert not {"num_attention_heads", "num_hidden_layers", "frame_order"} & set(written["recipe"]), "they were set"
    assert any("original_crop" in note for note in written["notes"])
    assert sorted(os.listdir(tmp_path)) == ["crop.pth", "out", "report.json"]


def test_a_report_can_lie_in_the_new_folder_and_replaces_an_old_one(golden_dir, tmp_path):
    source = mmcv_file(tmp_path / "a.pth", read_golden(golden_dir, "v1_segmentor_flood").group("sd"))
    assert convert(source, tmp_path / "out", "--report", tmp_path / "out" / "report.json") == 0
    assert (tmp_path / "out" / "report.json").is_file()
    assert (tmp_path / "out" / "model.safetensors").is_file()
    (tmp_path / "old.json").write_text("old")
    assert convert(source, tmp_path / "out2", "--report", tmp_path / "old.json") == 0
    assert json.loads((tmp_path / "old.json").read_text())["model_class"]


def test_a_report_is_valid_json_whatever_the_recipe_says(golden_dir, tmp_path):
    source = mmcv_file(tmp_path / "a.pth", read_golden(golden_dir, "v1_segmentor_flood").group("sd"))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("nodata_value: .nan\nclass_names: [Fläche, Wasser]\nattn_implementation: eager\n")
    assert convert(source, tmp_path / "out", "--recipe", recipe, "--report", tmp_path / "report.json") == 0
    written = json.loads((tmp_path / "report.json").read_text("utf-8"), parse_constant=pytest.fail)
    assert written["recipe"]["nodata_value"] == "nan"
    assert written["recipe"]["id2label"]["0"] == "Fläche"


def test_a_report_without_a_folder_is_refused_before_anything_is_read(tmp_path, capsys):
    assert_refused(capsys, tmp_path, "existing folder", tmp_path / "none.pth", "--report", tmp_path / "no" / "r.json")
    assert_refused(capsys, tmp_path, "existing folder", tmp_path / "none.pth", "--report", tmp_path)


# ---------------------------------------------------------------------- from the Hub


@pytest.fixture
def published(hub, monkeypatch, golden_dir):
    """The crop checkpoint in a repository like the published one: beside it a configuration in Python and a card."""
    hub.redirect_this_process(monkeypatch)
    buffer = io.BytesIO()
    mmcv_file(buffer, read_golden(golden_dir, "v1_segmentor_crop").group("sd"))
    repository = hub.create_repository("models", REPOSITORY)
    files = {"README.md": b"# crops", "crops.py": b"num_frames = 3", "crops.pth": buffer.getvalue()}
    repository.add("main", "weights", files)
    return repository


@pytest.mark.parametrize("suffix", ["", "/", "/crops.pth", "@main/crops.pth", "@main"])
def test_one_command_converts_a_repository(published, golden_dir, tmp_path, capsys, suffix):
    source = f"hf://{REPOSITORY}{suffix}"
    assert convert(source, tmp_path / "out", "--recipe", RECIPES["crop"], "--set", *REDUCED["crop"]) == 0
    golden = read_golden(golden_dir, "v1_segmentor_crop")
    model = PrithviForSemanticSegmentation.from_pretrained(tmp_path / "out").eval()
    assert_matches(model(golden["in_.x"]).logits, golden["out.logits"])
    assert PrithviImageProcessor.from_pretrained(tmp_path / "out").frame_order == "original_crop"


def test_other_revisions_can_be_named(published, tmp_path, capsys):
    first = published.find("main")
    published.add("main", "no weights any more", {"README.md": b""})
    refused = assert_refused(capsys, tmp_path, "exactly one .pt, .pth or .ckpt file, found 0", f"hf://{REPOSITORY}")
    assert "among: README.md" in refused
    published.add("two", "two weights", {**first.files, "old/best.PT": first.files["crops.pth"]})
    refused = assert_refused(capsys, tmp_path, "found 2: crops.pth, old/best.PT", f"hf://{REPOSITORY}@two")
    assert f"hf://{REPOSITORY}@two/FILE" in refused
    assert convert(f"hf://{REPOSITORY}@{first.oid}", tmp_path / "out", "--set", *REDUCED["crop"]) == 0
    assert (tmp_path / "out" / "recipe.yaml").is_file(), "the recipe of a published model need not be named"


@pytest.mark.parametrize(
    "source",
    [
        f"hf://{REPOSITORY}/other.pth",
        f"hf://{REPOSITORY}@none/crops.pth",
        "hf://nobody/nothing",
        "hf://nobody/no/a.pth",
    ],
)
def test_what_is_not_on_the_hub_is_refused(published, tmp_path, capsys, source):
    assert_refused(capsys, tmp_path, "", source)


def test_without_a_connection_the_message_says_so(published, tmp_path, capsys, monkeypatch):
    class LostConnectionError(Exception):
        """What HTTP libraries raise is neither an OSError nor a ValueError."""

    def lose(*_, **__):
        raise LostConnectionError("name or service not known")

    monkeypatch.setattr(huggingface_hub, "list_repo_files", lose)
    assert_refused(capsys, tmp_path, "no connection to the Hub", f"hf://{REPOSITORY}")


@pytest.mark.parametrize("source", ["hf://", "hf://owner", "hf:///name/file", "hf://owner/name@/file"])
def test_other_forms_of_a_source_are_refused(tmp_path, capsys, source):
    assert_refused(capsys, tmp_path, "hf://owner/name/file", source)


# ---------------------------------------------------------------------- purity


@pytest.mark.parametrize("which", RECIPES)
def test_the_conversion_of_a_state_dict_is_pure(golden_dir, which):
    tensors = read_golden(golden_dir, f"v1_segmentor_{which}").group("sd")
    before, names = {name: value.clone() for name, value in tensors.items()}, list(tensors)
    config = infer_config(tensors, num_attention_heads=4)
    described = config.to_dict()
    first, second = convert_state_dict(tensors, config), convert_state_dict(tensors, config)
    assert list(tensors) == names
    assert all(torch.equal(tensors[name], before[name]) for name in names)
    assert config.to_dict() == described
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    PrithviForSemanticSegmentation(config).load_state_dict(first, strict=True)
