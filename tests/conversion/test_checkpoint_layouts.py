"""What original checkpoint files hold beside the published models: meta, copies, damage, other heads and necks."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation
from prithvi_hf.conversion.convert_prithvi_to_hf import convert_checkpoint, convert_state_dict
from prithvi_hf.conversion.infer_config import infer_config
from prithvi_hf.conversion.read_checkpoint import load_checkpoint
from prithvi_hf.models.prithvi.modeling_prithvi import sincos_position_table
from tests.checkpoint_factory import assert_refused, convert, mmcv_file
from tests.golden import assert_matches, read_golden


# ---------------------------------------------------------------------- what mmcv stores


def test_class_names_and_colours_stored_with_the_weights_stand_in_for_a_recipe(golden_dir, tmp_path):
    tensors = read_golden(golden_dir, "v1_segmentor_flood").group("sd")
    source = mmcv_file(tmp_path / "a.pth", tensors, CLASSES=("land", "flood"), PALETTE=[[0, 128, 0], [0, 0, 255]])
    report = convert_checkpoint(source, tmp_path / "out")
    config = PrithviConfig.from_pretrained(tmp_path / "out")
    assert (config.id2label, config.label2id) == ({0: "land", 1: "flood"}, {"land": 0, "flood": 1})
    assert config.class_colors == ["#008000", "#0000ff"]
    assert "stored with the weights" in str(report)
    again = convert_checkpoint(source, tmp_path / "set", id2label={"0": "a", "1": "b"})
    assert PrithviConfig.from_pretrained(tmp_path / "set").label2id == {"a": 0, "b": 1}
    assert "were not taken: ['land', 'flood']" in str(again)


@pytest.mark.parametrize(
    ("classes", "note"),
    [
        ((0, 1), None),
        (("same", "same"), None),
        (None, None),
        (
            ("land", "flood", "cloud"),
            "the 3 class names stored with the weights were not taken: the head has 2 classes",
        ),
    ],
)
def test_what_is_no_list_of_class_names_is_not_taken(golden_dir, tmp_path, classes, note):
    tensors = read_golden(golden_dir, "v1_segmentor_flood").group("sd")
    report = convert_checkpoint(mmcv_file(tmp_path / "a.pth", tensors, CLASSES=classes), tmp_path / "out")
    assert PrithviConfig.from_pretrained(tmp_path / "out").id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert [note] * bool(note) == report.notes


def test_copies_of_the_averaging_hook_are_dropped_and_named(golden_dir, tmp_path):
    tensors = read_golden(golden_dir, "v1_segmentor_flood").group("sd")
    source = mmcv_file(tmp_path / "a.pth", tensors, averaging=True)
    report = convert_checkpoint(source, tmp_path / "out", num_attention_heads=4)
    copies = {name: why for name, why in report.dropped.items() if name.startswith("ema_")}
    assert len(copies) == len(tensors)
    assert "EMAHook" in copies["ema_backbone_cls_token"]
    model = PrithviForSemanticSegmentation.from_pretrained(tmp_path / "out")
    assert torch.equal(model.prithvi.embeddings.cls_token, tensors["backbone.cls_token"])


def test_a_tensor_with_and_without_module_is_not_chosen_for_the_user(tmp_path):
    torch.save({"state_dict": {"cls_token": torch.zeros(1), "module.cls_token": torch.ones(1)}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="each tensor once"):
        load_checkpoint(tmp_path / "a.pth")


def with_names_of_numpy_1(path):
    """The same file as numpy 1 would have written it."""
    with zipfile.ZipFile(path) as archive:
        contents = {item.filename: archive.read(item) for item in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            assert not name.endswith("data.pkl") or b"numpy._core.multiarray" in content
            archive.writestr(name, content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    return path


@pytest.mark.parametrize("variant", ["numpy 2", "numpy 1", "old format"])
def test_numbers_of_numpy_are_read(tmp_path, variant):
    types = [np.bool_, np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64]
    types += [np.uint8, np.uint16, np.uint32, np.uint64]
    meta = {kind.__name__: kind(1) for kind in types}
    content = {"meta": meta, "state_dict": {"cls_token": torch.ones(1)}}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=variant != "old format")
    if variant == "numpy 1":
        with_names_of_numpy_1(tmp_path / "a.pth")
    with pytest.raises(Exception, match="Unsupported global"):
        torch.load(tmp_path / "a.pth", weights_only=True)
    assert torch.equal(load_checkpoint(tmp_path / "a.pth").state_dict["cls_token"], torch.ones(1))


class Executed:
    """Runs when a pickle is trusted."""

    marker = "executed"

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


SCALAR = np.float64(0).__reduce__()[0]
REFUSED = {
    "a command": lambda folder: Executed(os.system, f"touch {folder}/executed"),
    "a command in a number": lambda folder: Executed(SCALAR, Executed(os.mkdir, f"{folder}/executed"), b"x" * 8),
    "an object in a number": lambda folder: Executed(SCALAR, np.dtype("O"), Executed(os.mkdir, f"{folder}/executed")),
    "an array": lambda folder: np.zeros(3),
    "a text of numpy": lambda folder: np.str_("text"),
    "a structure": lambda folder: np.zeros(1, dtype=[("a", "f4")])[0],
    "a date": lambda folder: np.datetime64("2023-01-01"),
    "a path": lambda folder: Path("a"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("new_format", [True, False])
def test_anything_but_numbers_is_still_refused_and_nothing_runs(tmp_path, capsys, what, new_format):
    content = {"meta": {"hook_msgs": REFUSED[what](tmp_path)}, "state_dict": {"cls_token": torch.ones(1)}}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=new_format)
    message = assert_refused(capsys, tmp_path, "cannot be loaded safely", tmp_path / "a.pth")
    assert "can still be loaded" not in message
    assert "no reason given" not in message
    assert not (tmp_path / "executed").exists()


def test_reading_leaves_the_rules_of_torch_as_they_were(tmp_path):
    torch.save({"meta": {"best": np.float64(1)}, "state_dict": {"cls_token": torch.ones(1)}}, tmp_path / "a.pth")
    before = set(torch.serialization.get_safe_globals())
    load_checkpoint(tmp_path / "a.pth")
    assert set(torch.serialization.get_safe_globals()) == before


# ---------------------------------------------------------------------- damaged files


def cut(content):
    return content[: len(content) // 2]


def flip(content):
    """A few bytes of one tensor that are others, as a bad disk or line leaves them."""
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 255 for byte in content[middle : middle + 64]) + content[middle + 64 :]


@pytest.mark.parametrize(
    "damage", [cut, flip, lambda content: content[:-40], lambda content: b"", lambda content: b"<html>"]
)
def test_damaged_files_are_refused(golden_dir, tmp_path, capsys, damage):
    source = mmcv_file(tmp_path / "a.pth", read_golden(golden_dir, "v1_segmentor_flood").group("sd"))
    source.write_bytes(damage(source.read_bytes()))
    assert_refused(capsys, tmp_path, "a.pth", source, "--recipe", "sen1floods11")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("neck.fpn2.3.bias"), "neck.upsample_blocks.1.conv_transpose_2.bias: missing"),
        (lambda tensors: tensors.pop("neck.fpn1.0.weight"), "neck.fpn1.0.weight"),
        (lambda tensors: tensors.pop("decode_head.conv_seg.weight"), "decode_head.conv_seg.weight"),
        (lambda tensors: tensors.pop("auxiliary_head.conv_seg.weight"), "auxiliary_head.classifier.weight: missing"),
        (lambda tensors: tensors.update({"decode_head.extra": torch.zeros(1)}), "decode_head.extra"),
        (lambda tensors: tensors.update({"norm.weight": torch.zeros(64)}), "norm.weight"),
        (lambda tensors: tensors.update({"decode_head.conv_seg.bias": torch.zeros(3)}), "expected (2,), found (3,)"),
        (
            lambda tensors: tensors.update({"backbone.pos_embed": torch.zeros(1, 8, 64)}),
            "square token grid of 1 frame",
        ),
    ],
)
def test_missing_unexpected_and_misshapen_tensors_are_named(golden_dir, tmp_path, capsys, change, message):
    tensors = read_golden(golden_dir, "v1_segmentor_flood").group("sd")
    change(tensors)
    assert_refused(capsys, tmp_path, message, mmcv_file(tmp_path / "a.pth", tensors), "--recipe", "sen1floods11")


# ---------------------------------------------------------------------- heads and necks


def test_a_checkpoint_without_auxiliary_head_is_complete(golden_dir, tmp_path):
    golden = read_golden(golden_dir, "v1_segmentor_flood")
    tensors = {name: value for name, value in golden.group("sd").items() if not name.startswith("auxiliary_head")}
    (tmp_path / "recipe.yaml").write_text("use_auxiliary_head: true\nnum_attention_heads: 4\n")
    source = mmcv_file(tmp_path / "a.pth", tensors)
    report = convert_checkpoint(source, tmp_path / "out", recipe=tmp_path / "recipe.yaml")
    assert (report.dropped, report.newly_initialized) == (
        {"backbone.pos_embed": "fixed sine-cosine positions are computed, not stored"},
        [],
    )
    model = PrithviForSemanticSegmentation.from_pretrained(tmp_path / "out").eval()
    assert model.config.use_auxiliary_head is False
    assert_matches(model(golden["in_.x"]).logits, golden["out.logits"])


def test_the_auxiliary_head_can_be_left_out(golden_dir, tmp_path):
    golden = read_golden(golden_dir, "v1_segmentor_flood")
    source = mmcv_file(tmp_path / "a.pth", golden.group("sd"))
    report = convert_checkpoint(source, tmp_path / "out", use_auxiliary_head=False, num_heads=4)
    auxiliary = {name for name in golden.group("sd") if name.startswith("auxiliary_head")}
    assert {name for name, why in report.dropped.items() if "use_auxiliary_head" in why} == auxiliary
    model = PrithviForSemanticSegmentation.from_pretrained(tmp_path / "out").eval()
    assert_matches(model(golden["in_.x"]).logits, golden["out.logits"])


def test_positions_of_a_mmsegmentation_file_may_be_missing(golden_dir, tmp_path):
    golden = read_golden(golden_dir, "v1_segmentor_crop")
    tensors = {name: value for name, value in golden.group("sd").items() if name != "backbone.pos_embed"}
    source = mmcv_file(tmp_path / "a.pth", tensors)
    report = convert_checkpoint(source, tmp_path / "out", num_attention_heads=4, image_size=64)
    model = PrithviForSemanticSegmentation.from_pretrained(tmp_path / "out").eval()
    assert model.config.num_frames == 3, "the neck shows it"
    assert list(report.assumed) == ["layer_norm_eps"]
    assert_matches(model(golden["in_.x"]).logits, golden["out.logits"])


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


@pytest.mark.parametrize(("first", "factor", "convs", "frames"), [(32, 3, 1, 1), (16, 1, 2, 3), (9, 2, 3, 1)])
def test_the_geospatial_neck_is_read_from_its_shapes(first, factor, convs, frames):
    config = PrithviConfig(
        image_size=32,
        num_frames=frames,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        neck="geospatial",
        first_conv_channels=first,
        channel_reduction_factor=factor,
        num_convs_per_upscale=convs,
        head_hidden_size=8,
        num_labels=3,
    )
    model = PrithviForSemanticSegmentation(config)
    tensors = original_names(model)
    inferred = infer_config(tensors, num_attention_heads=2)
    for name in ("neck", "first_conv_channels", "num_convs_per_upscale", "num_frames", "image_size"):
        assert getattr(inferred, name) == getattr(config, name)
    assert inferred.geospatial_neck_channels == config.geospatial_neck_channels
    converted, expected = convert_state_dict(tensors, inferred), model.state_dict()
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[name], expected[name]) for name in expected)


def original_names(model):
    """The tensors of a model with the geospatial neck under the names of the original: conversion backwards."""
    tensors = {}
    for name, value in model.state_dict().items():
        parts = name.split(".")
        if name.startswith("neck."):
            block, rest = parts[2], parts[3:]
            if rest[0] == "conv_transpose":
                original = f"neck.layers.{block}.0.{rest[1]}"
            else:
                kind = {"convolution": 0, "normalization": 1}[rest[2]]
                original = f"neck.layers.{block}.{int(rest[1]) + 1}.{kind}.{rest[3]}"
        elif parts[0] in ("decode_head", "auxiliary_head"):
            original = name.replace("layers", "convs").replace("convolution", "conv").replace("normalization", "bn")
            original = original.replace("classifier", "conv_seg")
        elif "attention" in name and parts[4] != "o_proj":
            if parts[4] != "q_proj":
                continue
            projections = [
                model.get_parameter(name.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")
            ]
            original, value = f"backbone.blocks.{parts[2]}.attn.qkv.{parts[5]}", torch.cat(projections)
        else:
            original = name.replace("prithvi.embeddings.patch_embeddings", "backbone.patch_embed.proj")
            for new, old in {
                "prithvi.embeddings.": "backbone.",
                "prithvi.layernorm": "backbone.norm",
                "prithvi.layers": "backbone.blocks",
                "attention.o_proj": "attn.proj",
                "layernorm_before": "norm1",
                "layernorm_after": "norm2",
            }.items():
                original = original.replace(new, old)
        tensors[original] = value
    config = model.config
    tensors["backbone.pos_embed"] = sincos_position_table(config.hidden_size, config.grid_size)
    return tensors
