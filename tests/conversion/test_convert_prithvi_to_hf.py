"""Conversion of original checkpoints: every key, every refusal, and the command."""

import errno
import os
import pickle
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModel

from prithvi_hf import (
    PrithviConfig,
    PrithviForSemanticSegmentation,
    PrithviImageProcessor,
    PrithviModel,
)
from prithvi_hf.conversion.convert_prithvi_to_hf import convert_checkpoint, convert_state_dict
from prithvi_hf.conversion.infer_config import infer_config
from prithvi_hf.conversion.read_checkpoint import load_checkpoint
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


@pytest.mark.parametrize(("frames", "side"), [(1, 2), (3, 2), (12, 1), (3, 4), (4, 14), (1, 14)])
def test_the_position_table_tells_the_grid(frames, side):
    config = infer_config(masked_autoencoder(frames=frames, side=side))
    assert config.grid_size == (frames, side, side)


def test_learned_positions_are_reported(tmp_path):
    state_dict = masked_autoencoder()
    state_dict["pos_embed"] = torch.randn_like(state_dict["pos_embed"])
    torch.save(state_dict, tmp_path / "a.pt")
    report = convert_checkpoint(tmp_path / "a.pt", tmp_path / "out")
    assert "pos_embed differs from the fixed table" in str(report)


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


def test_safetensors_are_read(tmp_path):
    save_file(masked_autoencoder(), tmp_path / "a.safetensors")
    convert_checkpoint(tmp_path / "a.safetensors", tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_conversion_is_pure():
    state_dict = masked_autoencoder()
    before = {name: value.clone() for name, value in state_dict.items()}
    config = infer_config(state_dict)
    PrithviModel(config).load_state_dict(convert_state_dict(state_dict, config), strict=True)
    assert state_dict.keys() == before.keys()
    assert all(torch.equal(state_dict[name], before[name]) for name in before)


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


class Evil:
    def __reduce__(self):
        return (print, ("this code must not run",))


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path, capsys):
    source = tmp_path / "evil.pt"
    source.write_bytes(pickle.dumps({"state_dict": Evil()}))
    torch.save({"cls_token": Evil()}, tmp_path / "evil_zip.pt")
    for path in (source, tmp_path / "evil_zip.pt"):
        with pytest.raises(ValueError, match="cannot be loaded safely") as refusal:
            convert_checkpoint(path, tmp_path / "out")
        # torch's own message begins with how to load such a file all the same.
        for advice in ("can still be loaded", "weights_only", "safe_globals", "issue"):
            assert advice not in str(refusal.value)
        assert "print" in str(refusal.value)
    assert "must not run" not in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("norm.weight"), "layernorm.weight: missing"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "unknown name"),
        (lambda tensors: tensors.update({"norm.weight": torch.zeros(7)}), r"expected \(32,\), found \(7,\)"),
        (lambda tensors: tensors.pop("patch_embed.proj.weight"), "patch_embed.proj.weight"),
        (lambda tensors: tensors.clear(), "state dict"),
    ],
)
def test_another_file_is_refused_and_nothing_is_written(tmp_path, change, message):
    state_dict = masked_autoencoder()
    change(state_dict)
    torch.save(state_dict, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(tmp_path / "a.pt", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_files_that_are_no_checkpoints(tmp_path):
    text = tmp_path / "a.pt"
    text.write_text("hello")
    for name in ("a.pt", "a.safetensors"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(ValueError, match="cannot be loaded safely"):
            load_checkpoint(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt"):
        load_checkpoint(tmp_path / "nothing.pt")


def test_an_output_folder_with_files_is_refused(tmp_path):
    torch.save(masked_autoencoder(), tmp_path / "a.pt")
    with pytest.raises(ValueError, match="new or empty folder"):
        convert_checkpoint(tmp_path / "a.pt", tmp_path)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_the_object_that_a_pickle_asks_for_is_named(tmp_path, protocol, recwarn):
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"state_dict": Evil()}, protocol=protocol))
    with pytest.raises(ValueError, match=r"asks for (\w+\.)?print\)"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not [warning for warning in recwarn if "issue" in str(warning.message)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, capsys, value):
    state_dict = masked_autoencoder()
    state_dict["decoder_norm.weight"][0] = value  # of the decoder, which is dropped
    torch.save(state_dict, tmp_path / "a.pt")
    convert_checkpoint(tmp_path / "a.pt", tmp_path / "whole")
    for name in ("blocks.1.attn.qkv.weight", "norm.bias"):
        state_dict[name].view(-1)[-1] = value
    torch.save(state_dict, tmp_path / "a.pt")
    message = assert_refused(capsys, tmp_path, "NaN or infinite values in 2 tensor(s)", tmp_path / "a.pt")
    assert "norm.bias, blocks.1.attn.qkv.weight. Export" in message


@pytest.mark.parametrize("source", ["https://example.com/a.pt", "HTTP://example.com/a.pt", "s3://bucket/a.pt"])
def test_an_address_as_source(tmp_path, capsys, source):
    assert "hf://" in assert_refused(capsys, tmp_path, f"the address {source}. Download", source)


def test_a_folder_as_source(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    assert_refused(capsys, tmp_path, f"found the folder {folder}. Name a file in it, which holds no .pt", folder)
    (folder / "a.pt").touch()
    assert_refused(capsys, tmp_path, f"found the folder {folder}. Name a file in it: a.pt", folder)


# ---------------------------------------------------------------- where it writes


@pytest.fixture
def source(tmp_path):
    torch.save(masked_autoencoder(), tmp_path / "a.pt")
    return tmp_path / "a.pt"


def test_an_output_folder_below_a_file_is_refused_before_anything_is_read(tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert_refused(capsys, tmp_path, "new or empty folder", "absent.pt")
    (tmp_path / "file").write_text("")
    assert convert("absent.pt", tmp_path / "file" / "deep" / "out") == 2
    assert f"{tmp_path / 'file'} is no folder" in capsys.readouterr().err


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


# ---------------------------------------------------------------- the recipe beside the model


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
