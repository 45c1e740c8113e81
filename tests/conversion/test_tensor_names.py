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
            "square token grid of 1 frame",
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
