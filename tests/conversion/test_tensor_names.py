"""Names of tensors: each is converted, dropped with a reason, or named as unknown."""

import pytest
import torch

from prithvi_hf import (
    PrithviForSemanticSegmentation,
    PrithviModel,
)
from prithvi_hf.conversion.convert_prithvi_to_hf import convert_checkpoint, convert_state_dict
from prithvi_hf.conversion.infer_config import infer_config
from tests.checkpoint_factory import assert_refused, masked_autoencoder, mmcv_file
from tests.golden import assert_matches, read_golden


def test_conversion_is_pure():
    state_dict = masked_autoencoder()
    before = {name: value.clone() for name, value in state_dict.items()}
    config = infer_config(state_dict)
    PrithviModel(config).load_state_dict(convert_state_dict(state_dict, config), strict=True)
    assert state_dict.keys() == before.keys()
    assert all(torch.equal(state_dict[name], before[name]) for name in before)


def split_autoencoder(prefix):
    """A masked autoencoder that keeps encoder and decoder apart, as later files do."""
    tensors = masked_autoencoder()
    around = prefix.removesuffix("encoder.")
    return {
        f"{around}decoder.{name}" if "decoder" in name or name == "mask_token" else prefix + name: value
        for name, value in tensors.items()
    }


def nest(tensors, *keys):
    for key in keys:
        tensors = {key: tensors, "epoch": 3}
    return tensors


FORMS = {
    "encoder.": lambda: split_autoencoder("encoder."),
    "backbone.": lambda: split_autoencoder("backbone."),
    "model.encoder.": lambda: {"state_dict": split_autoencoder("model.encoder."), "optimizer": {"state": {0: {}}}},
    "model.encoder._timm_module.": lambda: split_autoencoder("model.encoder._timm_module."),
    "_orig_mod.module.": lambda: split_autoencoder("_orig_mod.module."),
    "nested": lambda: nest(masked_autoencoder(), "state_dict", "model", "state_dict"),
    "parts": lambda: {
        "encoder": {name: value for name, value in masked_autoencoder().items() if not name.startswith("decoder")},
        "decoder": {name: value for name, value in masked_autoencoder().items() if name.startswith("decoder")},
        "epoch": 3,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []},
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_prefixed_and_wrapped_encoders_are_converted_as_the_flat_one(tmp_path, form):
    torch.save(masked_autoencoder(), tmp_path / "flat.pt")
    expected = convert_checkpoint(tmp_path / "flat.pt", tmp_path / "flat", num_attention_heads=2)
    content = FORMS[form]()
    torch.save(content, tmp_path / "a.pt")
    report = convert_checkpoint(tmp_path / "a.pt", tmp_path / "out", num_attention_heads=2)
    assert list(report.converted.values()) == list(expected.converted.values())
    assert sorted(report.dropped.values()) == sorted(expected.dropped.values())
    names = {**report.converted, **report.dropped}
    if form not in ("nested", "parts"):  # names in the report are those of the file
        assert names.keys() == content.get("state_dict", content).keys()
    models = [PrithviModel.from_pretrained(tmp_path / name) for name in ("flat", "out")]
    assert all(torch.equal(a, b) for a, b in zip(*(model.state_dict().values() for model in models), strict=True))


@pytest.mark.parametrize("prefix", ["module.", "model.", "net._orig_mod.module."])
def test_a_segmentor_inside_other_modules_is_converted(golden_dir, tmp_path, prefix):
    tensors = read_golden(golden_dir, "v1_segmentor_burn").group("sd")
    plain = convert_checkpoint(mmcv_file(tmp_path / "a.pth", tensors), tmp_path / "plain", num_attention_heads=4)
    source = mmcv_file(tmp_path / "b.pth", tensors, prefix=prefix, averaging=True)
    report = convert_checkpoint(source, tmp_path / "out", num_attention_heads=4)
    assert report.converted == {prefix + name: targets for name, targets in plain.converted.items()}
    copies = [name for name, reason in report.dropped.items() if "EMAHook" in reason]
    assert len(copies) == len(tensors)
    assert report.dropped.keys() - copies == {prefix + name for name in plain.dropped}


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ("cls_token", "encoder.cls_token"),
        ("encoder.norm.bias", "backbone.norm.bias"),
        ("norm.bias", "model.norm.bias"),
    ],
)
def test_two_tensors_of_one_name_are_both_named(own, other):
    tensors = {own if name in own else name: value for name, value in masked_autoencoder().items()}
    config = infer_config(tensors)
    tensors[other] = tensors[own]
    with pytest.raises(ValueError, match=f"each tensor once, found both {own} and {other}"):
        convert_state_dict(tensors, config)


@pytest.mark.parametrize("name", ["decoder.norm.weight", "model.decoder.blocks.0.norm1.weight", "head.weight"])
def test_the_head_of_another_model_is_not_taken_for_the_decoder_of_the_pretraining(name):
    tensors = masked_autoencoder()
    with pytest.raises(ValueError, match=f"1 unknown name.*{name}"):
        convert_state_dict({**tensors, name: torch.zeros(1)}, infer_config(tensors))


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64, torch.uint8])
def test_weights_in_other_than_floating_point_are_named(dtype):
    tensors = masked_autoencoder()
    config = infer_config(tensors)
    tensors["norm.bias"] = tensors["norm.bias"].to(dtype)
    with pytest.raises(ValueError, match=rf"norm.bias \({str(dtype).removeprefix('torch.')}\). Save them as float32"):
        convert_state_dict(tensors, config)


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
            "token grid of 1 frame",
        ),
    ],
)
def test_missing_unexpected_and_misshapen_tensors_are_named(golden_dir, tmp_path, capsys, change, message):
    tensors = read_golden(golden_dir, "v1_segmentor_flood").group("sd")
    change(tensors)
    assert_refused(capsys, tmp_path, message, mmcv_file(tmp_path / "a.pth", tensors), "--recipe", "sen1floods11")


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
