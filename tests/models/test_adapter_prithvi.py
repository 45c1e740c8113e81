# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""LoRA and DoRA of the encoder: what trains, what is saved, and that it is the same model when it is loaded."""

import json
import shutil
import warnings

import pytest
import torch
from transformers import AutoModelForSemanticSegmentation

from prithvi_hf import PrithviConfig, PrithviForImageClassification, PrithviForSemanticSegmentation, PrithviModel
from prithvi_hf.models.prithvi.adapter_prithvi import ADAPTER_CONFIG_FILE, add_adapter, has_adapter
from tests.finetune_factory import HEADS, SIZES, save_backbone


peft = pytest.importorskip("peft")

KINDS = {
    "lora": {"kind": "lora"},
    "dora": {"kind": "dora", "rank": 2, "alpha": 1.0},
    "attention": {"targets": ["attention"]},
    "upernet": {"head": {"decode_head": "upernet", "neck": "pyramid", "use_auxiliary_head": False}},
}
PIXELS = torch.randn(2, 6, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A backbone whose weights are random, and large enough to tell one model from another."""
    return save_backbone(tmp_path_factory.mktemp("base"))


def adapt(base, kind="lora", **options):
    """A model for three classes whose adapter is trained: no part of it is what it was when it was made."""
    given = {**KINDS[kind], **options}
    torch.manual_seed(1)
    head = {"use_auxiliary_head": True, **HEADS, **given.pop("head", {})}
    model = PrithviForSemanticSegmentation.from_pretrained(base, num_labels=3, **head)
    add_adapter(model, str(base), **given)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(0.3)
    return model.eval()


@pytest.fixture(scope="module", params=KINDS)
def saved(request, base, tmp_path_factory):
    """An adapter, its folder and what it gives."""
    model, folder = adapt(base, request.param), tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    with torch.no_grad():
        return model, folder, model(PIXELS).logits


def relative(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


def test_a_fresh_adapter_changes_nothing_and_leaves_the_encoder_frozen(base):
    torch.manual_seed(1)
    model = PrithviForSemanticSegmentation.from_pretrained(base, **HEADS).eval()
    with torch.no_grad():
        before = model(PIXELS).logits
        add_adapter(model, str(base))
        assert torch.equal(model(PIXELS).logits, before)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.partition(".")[0] for name in trained} == {"prithvi", "neck", "decode_head", "auxiliary_head"}
    assert all("lora_" in name for name in trained if name.startswith("prithvi."))
    frozen = {name for name, _ in model.named_parameters()} - trained
    assert all(name.startswith("prithvi.") and "lora_" not in name for name in frozen)


def test_an_adapter_is_saved_alone_and_gives_the_same_model_merged(saved, base):
    model, folder, expected = saved
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        ADAPTER_CONFIG_FILE,
        "adapter_model.safetensors",
    }
    assert json.loads((folder / ADAPTER_CONFIG_FILE).read_text())["base_model_name_or_path"] == str(base)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = PrithviForSemanticSegmentation.from_pretrained(folder)
    assert not has_adapter(loaded)
    loaded.check_trained()
    assert loaded.config._name_or_path == str(folder)
    assert {name for name, _ in loaded.named_parameters() if "lora_" in name} == set()
    with torch.no_grad():
        assert relative(loaded(PIXELS).logits, expected) < 1e-6
        tokens = PrithviModel.from_pretrained(folder)(PIXELS).last_hidden_state
        assert relative(tokens, model.prithvi(PIXELS).last_hidden_state) < 1e-6
        assert relative(AutoModelForSemanticSegmentation.from_pretrained(folder)(PIXELS).logits, expected) < 1e-6


def test_peft_itself_loads_what_was_saved(saved, base):
    _, folder, expected = saved
    model = PrithviForSemanticSegmentation.from_pretrained(base, config=PrithviConfig.from_pretrained(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, about what PEFT asks it
        adapted = peft.PeftModel.from_pretrained(model, folder).eval()
    with torch.no_grad():
        assert relative(adapted(pixel_values=PIXELS).logits, expected) < 1e-6


def test_a_merged_model_is_a_plain_folder(base, tmp_path):
    model = adapt(base)
    model.save_pretrained(tmp_path / "adapter")
    PrithviForSemanticSegmentation.from_pretrained(tmp_path / "adapter").save_pretrained(tmp_path / "merged")
    assert {path.name for path in (tmp_path / "merged").iterdir()} == {"config.json", "model.safetensors"}
    with torch.no_grad():
        merged = PrithviForSemanticSegmentation.from_pretrained(tmp_path / "merged")
        assert relative(merged(PIXELS).logits, model(PIXELS).logits) < 1e-6


def test_bands_and_frames_that_the_base_has_not_come_with_the_adapter(base, tmp_path):
    torch.manual_seed(1)
    model = PrithviForSemanticSegmentation.from_pretrained(base, num_frames=2, **HEADS)
    model.set_bands(["RED", "BLUE", "ULTRA_BLUE"])
    add_adapter(model, str(base))
    model.eval().save_pretrained(tmp_path)
    pixels = torch.randn(1, 3, 2, 32, 32)
    loaded = PrithviForSemanticSegmentation.from_pretrained(tmp_path)
    assert loaded.config.bands == ["RED", "BLUE", "ULTRA_BLUE"]
    with torch.no_grad():
        assert relative(loaded(pixels).logits, model(pixels).logits) < 1e-6


def test_an_adapter_is_a_start_for_other_classes_and_another_task(base, tmp_path):
    adapt(base).save_pretrained(tmp_path)
    other, info = PrithviForSemanticSegmentation.from_pretrained(
        tmp_path, num_labels=5, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert {name for name, *_ in info["mismatched_keys"]} == {
        f"{head}.classifier.{part}" for head in ("decode_head", "auxiliary_head") for part in ("weight", "bias")
    }
    scenes = PrithviForImageClassification.from_pretrained(tmp_path, num_labels=2)
    with torch.no_grad():
        tokens = [model.prithvi(PIXELS).last_hidden_state for model in (other.eval(), scenes.eval())]
    assert torch.equal(*tokens)


def test_a_base_that_is_gone_or_another_one_is_named(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "base")
    model = adapt(folder)
    model.save_pretrained(tmp_path / "adapter")
    torch.manual_seed(0)
    PrithviModel(PrithviConfig(num_frames=1, **{**SIZES, "hidden_size": 64})).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"Expected the adapter .* to fit its base model .*, found"):
        PrithviForSemanticSegmentation.from_pretrained(tmp_path / "adapter")
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match=r"Expected the base model of the adapter .* at .*base, .* found none"):
        PrithviForSemanticSegmentation.from_pretrained(tmp_path / "adapter")


@pytest.mark.parametrize(
    "options",
    [
        *({"kind": "prefix"}, {"rank": 0}, {"rank": 5000}, {"alpha": 0}, {"alpha": float("nan")}, {"dropout": 1}),
        *({"targets": ["head"]}, {"targets": []}),
    ],
)
def test_options_that_are_not_of_an_adapter_are_refused(base, options):
    model = PrithviForSemanticSegmentation.from_pretrained(base, **HEADS)
    with pytest.raises(ValueError, match="Expected an adapter of kind lora or dora, a rank from 1 to 32"):
        add_adapter(model, str(base), **options)


def test_a_second_adapter_is_refused(base):
    model = adapt(base)
    with pytest.raises(ValueError, match="Expected an encoder without an adapter"):
        add_adapter(model, str(base))
