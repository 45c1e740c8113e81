"""Conversion of original checkpoints: every key, every refusal, and the command."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModel

from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation, PrithviImageProcessor, PrithviModel
from prithvi_hf.convert_prithvi_to_hf import (
    convert_checkpoint,
    convert_state_dict,
    infer_config,
    load_original_state_dict,
)

from .checkpoint_factory import masked_autoencoder
from .golden import assert_matches, read_golden


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
        assert "can still be loaded" not in str(refusal.value)
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
            load_original_state_dict(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt"):
        load_original_state_dict(tmp_path / "nothing.pt")


def test_an_output_folder_with_files_is_refused(tmp_path):
    torch.save(masked_autoencoder(), tmp_path / "a.pt")
    with pytest.raises(ValueError, match="new or empty folder"):
        convert_checkpoint(tmp_path / "a.pt", tmp_path)
