"""Conversion of original checkpoints: models, recipes, reports, and where they are written."""

import errno
import json
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from prithvi_hf import (
    PrithviConfig,
    PrithviForSemanticSegmentation,
    PrithviImageProcessor,
    PrithviModel,
)
from prithvi_hf.conversion.convert_prithvi_to_hf import convert_checkpoint
from prithvi_hf.training.evaluation import find_model_recipe
from prithvi_hf.training.recipe import read_recipe
from tests.checkpoint_factory import assert_refused, convert, masked_autoencoder, mmcv_file
from tests.golden import assert_matches, read_golden


def test_flat_layout_becomes_a_backbone(tmp_path):
    source = tmp_path / "Prithvi_100M.pt"
    state_dict = masked_autoencoder()
    torch.save(state_dict, source)
    report = convert_checkpoint(source, tmp_path / "out", num_attention_heads=4)
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert type(model) is PrithviModel
    assert (model.config.num_frames, model.config.image_size, model.config.num_attention_heads) == (3, 32, 4)
    layer = model.layers[1].attention
    qkv = torch.cat([layer.q_proj.weight, layer.k_proj.weight, layer.v_proj.weight])
    assert torch.equal(qkv, state_dict["blocks.1.attn.qkv.weight"])
    assert set(report.converted) | set(report.dropped) == set(state_dict), "every key is accounted for"
    assert {name for name in report.dropped if "decoder" not in name} == {"pos_embed", "mask_token"}
    assert "layer_norm_eps" in report.assumed
    assert "num_attention_heads" not in report.assumed
    processor = PrithviImageProcessor.from_pretrained(tmp_path / "out")
    assert processor.image_mean == [775, 1081, 1229, 2497, 2204, 1611]
    assert processor.num_frames == 3


def test_unknown_bands_get_no_made_up_statistics(tmp_path):
    torch.save(masked_autoencoder(bands=4), tmp_path / "a.pt")
    report = convert_checkpoint(tmp_path / "a.pt", tmp_path / "out")
    assert "statistics of 4 bands are not known" in str(report)
    assert not (tmp_path / "out" / "preprocessor_config.json").exists()
    assert AutoModel.from_pretrained(tmp_path / "out").config.num_channels == 4


@pytest.mark.parametrize(
    "wrap", [lambda tensors: {"state_dict": tensors, "meta": {"epoch": 3}}, lambda tensors: tensors]
)
def test_segmentation_layout_becomes_a_segmentor(golden_dir, tmp_path, wrap):
    golden = read_golden(golden_dir, "v1_segmentor_flood")
    source = tmp_path / "flood.pth"
    torch.save(wrap(golden.group("sd")), source)
    convert_checkpoint(source, tmp_path / "out", num_attention_heads=4)
    model = PrithviForSemanticSegmentation.from_pretrained(tmp_path / "out").eval()
    assert_matches(model(golden["in_.x"]).logits, golden["out.logits"])


def test_recipe_gives_classes_and_statistics(golden_dir, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "class_names: [dry, wet]\nrescale_factor: 0.0001\nimage_mean: [0.1, 0.1, 0.1, 0.3, 0.2, 0.1]\n"
        "image_std: [0.04, 0.04, 0.05, 0.08, 0.07, 0.05]\nclass_weights: [0.3, 0.7]\nnum_attention_heads: 4\n"
    )
    torch.save(read_golden(golden_dir, "v1_segmentor_flood").group("sd"), tmp_path / "a.pth")
    convert_checkpoint(tmp_path / "a.pth", tmp_path / "out", recipe=recipe)
    config = PrithviConfig.from_pretrained(tmp_path / "out")
    assert config.id2label == {0: "dry", 1: "wet"}
    assert list(config.class_weights) == [0.3, 0.7]
    processor = PrithviImageProcessor.from_pretrained(tmp_path / "out")
    assert processor.rescale_factor == 0.0001
    assert processor.num_labels == 2


def test_recipe_that_leaves_frames_open_keeps_those_of_the_checkpoint(tmp_path):
    (tmp_path / "recipe.yaml").write_text("class_names: [dry, wet]\nrescale_factor: 0.0001\n")
    torch.save(masked_autoencoder(frames=3), tmp_path / "a.pt")
    convert_checkpoint(tmp_path / "a.pt", tmp_path / "out", recipe=tmp_path / "recipe.yaml")
    assert PrithviConfig.from_pretrained(tmp_path / "out").num_frames == 3
    assert PrithviImageProcessor.from_pretrained(tmp_path / "out").num_frames == 3


def test_a_recipe_may_give_a_backbone_other_frames_and_no_other_encoder(tmp_path):
    """Positions are computed for any number of dates; layers and widths are what they are."""
    torch.save(masked_autoencoder(frames=3), tmp_path / "a.pt")
    (tmp_path / "flood.yaml").write_text("num_frames: 1\nnum_attention_heads: 4\nimage_size: 64\n")
    report = convert_checkpoint(tmp_path / "a.pt", tmp_path / "out", recipe=tmp_path / "flood.yaml")
    config = PrithviConfig.from_pretrained(tmp_path / "out")
    assert (config.num_frames, config.image_size, config.num_attention_heads) == (1, 64, 4)
    assert PrithviImageProcessor.from_pretrained(tmp_path / "out").num_frames == 1
    assert report.recipe["num_attention_heads"] == 4
    (tmp_path / "deep.yaml").write_text("num_hidden_layers: 6\n")
    with pytest.raises(ValueError, match="num_hidden_layers: the checkpoint has 2, the recipe 6"):
        convert_checkpoint(tmp_path / "a.pt", tmp_path / "deep", recipe=tmp_path / "deep.yaml")


def test_the_crop_recipe_does_not_mix_the_input_of_a_backbone(tmp_path):
    """Only the fine-tuned checkpoint learned from mixed bands; pretraining did not."""
    torch.save(masked_autoencoder(), tmp_path / "a.pt")
    convert_checkpoint(
        tmp_path / "a.pt", tmp_path / "out", recipe="multi_temporal_crop", num_hidden_layers=2, num_attention_heads=4
    )
    assert PrithviImageProcessor.from_pretrained(tmp_path / "out").frame_order == "time_major"


def test_bands_can_be_named_with_their_statistics(tmp_path):
    torch.save(masked_autoencoder(bands=2), tmp_path / "a.pt")
    bands = {"bands": ["RED", "GREEN"], "image_mean": [1, 2], "image_std": [3, 4]}
    convert_checkpoint(tmp_path / "a.pt", tmp_path / "out", **bands)
    processor = PrithviImageProcessor.from_pretrained(tmp_path / "out")
    assert (processor.bands, processor.image_std) == (["RED", "GREEN"], [3, 4])
    assert PrithviConfig.from_pretrained(tmp_path / "out").bands == ["RED", "GREEN"]
    torch.save(masked_autoencoder(), tmp_path / "b.pt")
    swapped = ["SWIR_2", "SWIR_1", "NIR_NARROW", "RED", "GREEN", "BLUE"]
    report = convert_checkpoint(tmp_path / "b.pt", tmp_path / "swapped", bands=swapped)
    assert "statistics of 6 bands are not known" in str(report), "the default ones belong to another order"
    assert not (tmp_path / "swapped" / "preprocessor_config.json").exists()


def test_an_output_folder_with_files_is_refused(tmp_path):
    torch.save(masked_autoencoder(), tmp_path / "a.pt")
    with pytest.raises(ValueError, match="new or empty folder"):
        convert_checkpoint(tmp_path / "a.pt", tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_numbers_are_refused(tmp_path, capsys, value):
    state_dict = masked_autoencoder()
    state_dict["decoder_norm.weight"][0] = value  # of the decoder, which is dropped
    torch.save(state_dict, tmp_path / "a.pt")
    convert_checkpoint(tmp_path / "a.pt", tmp_path / "whole")
    for name in ("blocks.1.attn.qkv.weight", "norm.bias"):
        state_dict[name].view(-1)[-1] = value
    torch.save(state_dict, tmp_path / "a.pt")
    message = assert_refused(capsys, tmp_path, "NaN or infinite values in 2 tensor(s)", tmp_path / "a.pt")
    assert "norm.bias, blocks.1.attn.qkv.weight. Export" in message


def geospatial_segmentor(golden_dir):
    """The reference neck of the original between an encoder and heads of random weights."""
    neck, flood = (read_golden(golden_dir, name) for name in ("v1_geospatial_neck", "v1_segmentor_flood"))
    tensors = {name: value for name, value in flood.group("sd").items() if not name.startswith("neck.")}
    for head in ("decode_head", "auxiliary_head"):
        weight = tensors[f"{head}.convs.0.conv.weight"]
        tensors[f"{head}.convs.0.conv.weight"] = weight[:, :4].contiguous()  # the neck's last width
    return neck, {**tensors, **{f"neck.{name}": value for name, value in neck.group("sd").items()}}


def test_the_geospatial_neck_is_converted(golden_dir, tmp_path):
    neck, tensors = geospatial_segmentor(golden_dir)
    source = mmcv_file(tmp_path / "a.pth", tensors)
    (tmp_path / "recipe.yaml").write_text(
        "neck: geospatial\nfirst_conv_channels: 32\nchannel_reduction_factor: 2\nnum_convs_per_upscale: 1\n"
        "num_attention_heads: 4\nnum_frames: 1\n"
    )
    assert (
        convert(source, tmp_path / "out", "--recipe", tmp_path / "recipe.yaml", "--report", tmp_path / "r.json") == 0
    )
    model = PrithviForSemanticSegmentation.from_pretrained(tmp_path / "out").eval()
    assert (model.config.neck, model.config.neck_output_size) == ("geospatial", 4)
    with torch.inference_mode():
        features = model.neck(neck["in_.tokens"], (4, 4))
    assert_matches(features[:, :, ::4, ::4], neck["out.map"])
    converted = json.loads((tmp_path / "r.json").read_text())["converted"]
    assert {name for name in tensors if name.startswith("neck.")} <= set(converted)


def test_a_recipe_of_another_geospatial_neck_is_refused(golden_dir, tmp_path, capsys):
    source, recipe = mmcv_file(tmp_path / "a.pth", geospatial_segmentor(golden_dir)[1]), tmp_path / "recipe.yaml"
    recipe.write_text("neck: geospatial\nfirst_conv_channels: 64\n")
    message = "first_conv_channels: the checkpoint has 32, the recipe 64"
    assert_refused(capsys, tmp_path, message, source, "--recipe", recipe)


# ----------------------------------------------------------------- where it writes


@pytest.fixture
def source(tmp_path):
    torch.save(masked_autoencoder(), tmp_path / "a.pt")
    return tmp_path / "a.pt"


def test_an_output_folder_below_a_file_is_refused_before_anything_is_read(tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert_refused(capsys, tmp_path, "new or empty folder", "absent.pt")
    (tmp_path / "file").write_text("")
    assert convert("absent.pt", tmp_path / "file" / "deep" / "out") == 2
    assert f"{tmp_path / 'file'} is not a folder" in capsys.readouterr().err


@pytest.fixture
def little_room():
    """No file may become larger than 20 kB; Python ignores the signal that goes with it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("existing", [True, False])
def test_a_full_disk_ends_with_one_line_and_nothing_half_written(source, tmp_path, capsys, little_room, existing):
    if existing:
        (tmp_path / "out").mkdir()
    message = assert_refused(capsys, tmp_path, f"the files in {tmp_path / 'out'}, found the disk full", source)
    assert message[message.index("prithvi-hf convert: error") :].count("\n") == 1
    assert "File too large" in message
    assert not existing or not any((tmp_path / "out").iterdir())


def test_a_report_without_room_leaves_the_model(source, tmp_path, monkeypatch):
    def fail(report, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("prithvi_hf.conversion.convert_prithvi_to_hf.ConversionReport.save", fail)
    with pytest.raises(OSError, match=f"the files in {tmp_path}, found the disk full.* its report is missing"):
        convert_checkpoint(source, tmp_path / "out", report=tmp_path / "report.json")
    AutoModel.from_pretrained(tmp_path / "out")


def busy(path, target):
    raise OSError(errno.EBUSY, "Device or resource busy")


def test_a_mount_point_gets_the_files_one_by_one(source, tmp_path, monkeypatch):
    """As a bind mount, which looks like any folder until something is renamed onto it."""
    out, moved, move = tmp_path / "out", [], shutil.move
    out.mkdir()
    inode = out.stat().st_ino
    monkeypatch.setattr(Path, "rmdir", lambda path: busy(path, None))
    monkeypatch.setattr(shutil, "move", lambda path, target: (moved.append(Path(path).name), move(path, target)))
    convert_checkpoint(source, out)
    assert moved[-1] == "config.json"
    assert out.stat().st_ino == inode
    AutoModel.from_pretrained(out)
    assert sorted(os.listdir(tmp_path)) == ["a.pt", "out"]


def test_a_move_that_fails_leaves_a_mount_point_empty(source, tmp_path, monkeypatch):
    def fail_at_weights(path, target):
        shutil.copy(path, target)
        if Path(path).name == "model.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(Path, "rmdir", lambda path: busy(path, None))
    monkeypatch.setattr(shutil, "move", fail_at_weights)
    with pytest.raises(OSError, match="disk full"):
        convert_checkpoint(source, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []
    assert sorted(os.listdir(tmp_path)) == ["a.pt", "out"]


@pytest.mark.parametrize("place", ["mount", "here"])
def test_a_folder_that_cannot_be_replaced_is_filled(source, tmp_path, monkeypatch, place):
    """A mount point is another disk, so nothing is staged beside it; a shell stays where it stands."""
    out = tmp_path / "out"
    out.mkdir()
    inode = out.stat().st_ino
    if place == "mount":
        monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == out)
    else:
        monkeypatch.chdir(out)
    convert_checkpoint(source, out if place == "mount" else ".")
    assert out.stat().st_ino == inode
    assert sorted(os.listdir(out)) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert sorted(os.listdir(tmp_path)) == ["a.pt", "out"]


def test_a_real_mount_point(source, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    if not shutil.which("mount") or subprocess.run(["mount", "-t", "tmpfs", "tmpfs", out], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        convert_checkpoint(source, out)
        AutoModel.from_pretrained(out)
        assert sorted(os.listdir(out)) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    finally:
        subprocess.run(["umount", out], check=True)


@pytest.mark.parametrize("existing", [True, False])
def test_a_lost_race_is_named(source, tmp_path, monkeypatch, existing):
    out = tmp_path / "out"
    if existing:
        out.mkdir()
    save = PrithviModel.save_pretrained

    def save_late(model, folder):
        save(model, folder)
        out.mkdir(exist_ok=True)
        (out / "config.json").write_text("another's")

    monkeypatch.setattr(PrithviModel, "save_pretrained", save_late)
    with pytest.raises(FileExistsError, match="another process wrote"):
        convert_checkpoint(source, out)
    assert {path.name: path.read_text() for path in out.iterdir()} == {"config.json": "another's"}
    assert sorted(os.listdir(tmp_path)) == ["a.pt", "out"]


def test_the_recipe_is_saved_with_the_model(golden_dir, tmp_path):
    source = mmcv_file(tmp_path / "flood.pth", read_golden(golden_dir, "v1_segmentor_flood").group("sd"))
    settings = {"num_attention_heads": 4}
    convert_checkpoint(source, tmp_path / "out", recipe="sen1floods11", **settings)
    saved, packaged = read_recipe(find_model_recipe(tmp_path / "out")), read_recipe("sen1floods11")
    assert saved.given == packaged.given
    assert saved.data == packaged.data
    names = {"id2label": {"0": "dry", "1": "wet"}}
    convert_checkpoint(source, tmp_path / "named", recipe="sen1floods11", **settings, **names)
    saved = read_recipe(tmp_path / "named" / "recipe.yaml")
    assert saved.data.class_names == ["dry", "wet"]
    assert saved.data.published is None, "figures of other classes"
    convert_checkpoint(source, tmp_path / "plain", **settings)
    assert not (tmp_path / "plain" / "recipe.yaml").exists()


def test_the_saved_recipe_names_no_starting_model(tmp_path, source):
    (tmp_path / "mine.yaml").write_text("model: /mine/backbone\nattn_implementation: eager\nnum_frames: 3\n")
    convert_checkpoint(source, tmp_path / "out", recipe=tmp_path / "mine.yaml")
    saved = read_recipe(tmp_path / "out" / "recipe.yaml")
    assert saved.given == {"dataset": "geotiff_folder", "num_frames": 3}
