"""The model against the original code's values, and the contract of a transformers model."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModel, AutoModelForSemanticSegmentation

from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation, PrithviModel
from prithvi_hf.convert_prithvi_to_hf import convert_state_dict, infer_config
from prithvi_hf.modeling_prithvi import pad_by_reflection, sincos_position_table

from .golden import assert_matches, read_golden


SEGMENTORS = {"v1_segmentor_flood": {"class_weights": [0.3, 0.7]}}


def small_config(**overrides) -> PrithviConfig:
    values = {
        "image_size": 32,
        "num_frames": 1,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_hidden_size": 8,
        "neck_hidden_size": 16,
    }
    return PrithviConfig(**{**values, **overrides})


def small_model(**overrides) -> PrithviForSemanticSegmentation:
    torch.manual_seed(0)
    return PrithviForSemanticSegmentation(small_config(**overrides)).eval()


def golden_segmentor(golden, **overrides) -> PrithviForSemanticSegmentation:
    values = {"num_attention_heads": 4, "classifier_dropout": 0.0, **overrides}
    config = infer_config(golden.group("sd"), **values)
    model = PrithviForSemanticSegmentation(config)
    model.load_state_dict(convert_state_dict(golden.group("sd"), config), strict=True)
    return model


@pytest.fixture(autouse=True)
def _highest_precision():
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["v1_encoder_T1", "v1_encoder_T3"])
def test_encoder_matches_the_original(golden_dir, name, attention):
    golden = read_golden(golden_dir, name)
    config = infer_config(golden.group("sd"), num_attention_heads=4, attn_implementation=attention)
    assert config.num_frames == golden.config["kwargs"]["num_frames"]
    model = PrithviModel(config).eval()
    model.load_state_dict(convert_state_dict(golden.group("sd"), config), strict=True)
    assert_matches(model.embeddings.position_embeddings, golden["sd.pos_embed"])
    assert_matches(model(golden["in_.x"]).last_hidden_state, golden["out.tokens"])


@pytest.mark.parametrize("name", SEGMENTORS)
def test_segmentor_logits_match_the_original(golden_dir, name):
    golden = read_golden(golden_dir, name)
    model = golden_segmentor(golden, **SEGMENTORS[name]).eval()
    labels = golden["in_.label"].squeeze(1)
    ignored = golden.metadata["config"]
    labels = labels.masked_fill(labels == (2 if '"ignore_index": 2' in ignored else 255), -100)
    with torch.no_grad():
        outputs = model(golden["in_.x"], labels=labels)
        auxiliary = model.auxiliary_head(model.neck(model.prithvi(golden["in_.x"]).last_hidden_state, (4, 4)))
    assert_matches(outputs.logits, golden["out.logits"])
    assert_matches(auxiliary[..., ::4, ::4], golden["out.aux_logits_probe"])
    assert_matches(outputs.loss, golden["out.eval.decode.loss_ce"])


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", SEGMENTORS)
def test_segmentor_training_matches_the_original(golden_dir, name, checkpointing):
    golden = read_golden(golden_dir, name)
    model = golden_segmentor(golden, **SEGMENTORS[name]).train()
    if checkpointing:
        model.activation_checkpointing_enable()
    labels = golden["in_.label"].squeeze(1)
    loss = model(golden["in_.x"], labels=labels.masked_fill(labels == 2, -100)).loss
    assert_matches(loss, golden["out.train.total"])
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for original, (parameter, rows) in gradient_names(model).items():
        assert_matches(gradients[parameter][rows] if rows else gradients[parameter], golden[f"grad.{original}"])
    query_key_value = [gradients[f"prithvi.layers.0.attention.{part}_proj.weight"] for part in "qkv"]
    assert_matches(torch.cat(query_key_value), golden["grad.backbone.blocks.0.attn.qkv.weight"])
    for original, expected in golden.group("out.train_after").items():
        head, _, index, _, statistic = original.split(".")
        normalization = getattr(model, head).layers[int(index)].normalization
        assert_matches(getattr(normalization, statistic), expected)


def gradient_names(model) -> dict[str, tuple[str, slice | None]]:
    return {
        "auxiliary_head.conv_seg.weight": ("auxiliary_head.classifier.weight", None),
        "auxiliary_head.convs.1.bn.bias": ("auxiliary_head.layers.1.normalization.bias", None),
        "backbone.blocks.1.mlp.fc2.bias": ("prithvi.layers.1.mlp.fc2.bias", None),
        "backbone.cls_token": ("prithvi.embeddings.cls_token", None),
        "backbone.norm.weight": ("prithvi.layernorm.weight", None),
        "backbone.patch_embed.proj.bias": ("prithvi.embeddings.patch_embeddings.bias", None),
        "decode_head.conv_seg.bias": ("decode_head.classifier.bias", None),
        "decode_head.conv_seg.weight": ("decode_head.classifier.weight", None),
        "decode_head.convs.0.bn.weight": ("decode_head.layers.0.normalization.weight", None),
        "decode_head.convs.0.conv.weight": ("decode_head.layers.0.convolution.weight", None),
        "neck.fpn1.0.bias": ("neck.upsample_blocks.0.conv_transpose_1.bias", None),
        "neck.fpn1.1.ln.weight": ("neck.upsample_blocks.0.norm.weight", None),
        "neck.fpn2.3.weight": ("neck.upsample_blocks.1.conv_transpose_2.weight", None),
    }


def test_positions_at_other_sizes_match_the_original(golden_dir):
    golden = read_golden(golden_dir, "v2_interp")
    config = PrithviConfig(
        image_size=64, num_frames=4, num_channels=2, hidden_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    embeddings = PrithviModel(config).embeddings
    for name, pixels in golden.group("in_").items():
        frames, height, width = pixels.shape[2:]
        positions = embeddings.interpolate_positions((frames, height // 16, width // 16))
        assert_matches(positions, golden[f"out.{name}.pos_embed"])


def test_table_of_one_frame_is_the_first_frame_of_three():
    one, three = (sincos_position_table(48, (frames, 3, 5)) for frames in (1, 3))
    assert torch.equal(one, three[:, : one.shape[1]])


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_backbone_of_three_frames_loads_into_any_number(tmp_path, frames):
    backbone = PrithviModel(small_config(num_frames=3)).eval()
    backbone.save_pretrained(tmp_path)
    model = PrithviForSemanticSegmentation.from_pretrained(tmp_path, num_frames=frames).eval()
    for name, value in backbone.state_dict().items():
        assert torch.equal(model.prithvi.state_dict()[name], value)
    assert torch.equal(model.prithvi.embeddings.position_embeddings, sincos_position_table(32, (frames, 2, 2)))
    assert model(torch.randn(1, 6, frames, 32, 32)).logits.shape == (1, 2, 32, 32)


def test_every_buffer_and_weight_survives_saving(tmp_path):
    model = small_model(num_labels=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    loaded = PrithviForSemanticSegmentation.from_pretrained(tmp_path)
    for (name, value), (other_name, other) in zip(
        [*model.named_parameters(), *model.named_buffers()],
        [*loaded.named_parameters(), *loaded.named_buffers()],
        strict=True,
    ):
        assert name == other_name
        assert torch.equal(value, other), name


def test_a_segmentor_on_a_backbone_starts_with_fresh_heads(tmp_path):
    """What the file lacks is made afresh: from_pretrained leaves unset memory where _init_weights passes by."""
    PrithviModel(small_config()).save_pretrained(tmp_path)
    model = PrithviForSemanticSegmentation.from_pretrained(tmp_path)
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight)), name
            assert torch.equal(module.bias, torch.zeros_like(module.bias)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_positions_are_there_however_a_model_is_made(tmp_path, dtype):
    config = small_config(num_frames=2)
    PrithviModel(config).save_pretrained(tmp_path)
    table = sincos_position_table(32, (2, 2, 2)).to(dtype)
    with torch.device("meta"):
        on_meta = PrithviModel(config).to(dtype)
    assert on_meta.embeddings.position_embeddings.device.type == "meta"
    on_meta.to_empty(device="cpu").init_weights()
    for model in (PrithviModel._from_config(config, dtype=dtype), PrithviModel.from_pretrained(tmp_path, dtype=dtype)):
        assert torch.equal(model.embeddings.position_embeddings, table)
    assert torch.equal(on_meta.embeddings.position_embeddings, table)


def test_compiles_whole_at_any_number_of_frames():
    model = PrithviModel(small_config())
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for frames, size in ((1, 32), (3, 48)):
        pixels = torch.randn(1, 6, frames, size, 32)
        assert_matches(compiled(pixels).last_hidden_state, model(pixels).last_hidden_state)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 100}, r"multiple of 16 .*found 100"),
        ({"hidden_size": 64, "num_attention_heads": 5}, r"num_attention_heads, found 64 and 5"),
    ],
)
def test_widths_that_make_no_encoder_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PrithviModel(small_config(**values))


def test_weights_are_as_readable_as_their_folder(tmp_path):
    small_model().save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "config.json").stat().st_mode


def test_auto_classes_load_the_right_models(tmp_path):
    small_model().save_pretrained(tmp_path)
    assert type(AutoModelForSemanticSegmentation.from_pretrained(tmp_path)) is PrithviForSemanticSegmentation
    assert type(AutoModel.from_pretrained(tmp_path)) is PrithviModel


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 50), width=st.integers(1, 50), frames=st.integers(1, 3))
def test_any_size_equals_the_caller_padding_by_reflection(height, width, frames):
    model = small_model(num_frames=frames, num_hidden_layers=1)
    pixels = torch.randn(1, 6, frames, height, width)
    padding = [(0, 0)] * 3 + [(0, -height % 16), (0, -width % 16)]
    padded = torch.from_numpy(np.pad(pixels.numpy(), padding, mode="reflect"))
    assert torch.equal(pad_by_reflection(pixels, (16, 16)), padded)
    with torch.no_grad():
        logits = model(pixels).logits
        assert logits.shape == (1, 2, height, width)
        assert_matches(logits, model(padded).logits[..., :height, :width])


def test_reflection_is_that_of_torch():
    pixels = torch.randn(1, 6, 20, 30)
    expected = nn.functional.pad(pixels, (0, 2, 0, 12), mode="reflect")
    assert torch.equal(pad_by_reflection(pixels, (16, 16)), expected)


def test_encoder_drops_an_indivisible_border():
    model = PrithviModel(small_config()).eval()
    pixels = torch.randn(1, 6, 1, 40, 37)
    assert torch.equal(model(pixels).last_hidden_state, model(pixels[..., :32, :32]).last_hidden_state)


def test_four_dimensions_are_one_frame():
    model = small_model()
    pixels = torch.randn(2, 6, 32, 32)
    assert torch.equal(model(pixels).logits, model(pixels.unsqueeze(2)).logits)


@pytest.mark.parametrize("patch", [8, 14, [1, 16, 8], [2, 8, 8]])
def test_other_patch_sizes_give_logits_at_input_size(patch):
    model = small_model(patch_size=patch, num_frames=2, image_size=[28, 32])
    assert model(torch.randn(1, 6, 2, 28, 32)).logits.shape == (1, 2, 28, 32)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 5, 1, 32, 32), r"6 bands.*found 5"),
        ((1, 6, 2, 32, 32), r"1 frame\(s\).*found 2"),
        ((6, 32, 32), r"found \(6, 32, 32\)"),
    ],
)
def test_wrong_inputs_are_named(shape, message):
    with pytest.raises(ValueError, match=message):
        small_model()(torch.zeros(shape))


def test_labels_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"labels of shape \(1, 32, 32\).*found \(1, 16, 16\)"):
        small_model()(torch.zeros(1, 6, 1, 32, 32), labels=torch.zeros(1, 16, 16, dtype=torch.long))


def test_auxiliary_loss_counts_only_in_training():
    model = small_model(auxiliary_loss_weight=0.5, classifier_dropout=0.0)
    pixels, labels = torch.randn(1, 6, 1, 32, 32), torch.randint(0, 2, (1, 32, 32))
    plain = small_model(use_auxiliary_head=False, classifier_dropout=0.0)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("auxiliary_head")})
    assert torch.equal(model(pixels, labels=labels).loss, plain(pixels, labels=labels).loss)
    model.train()
    plain.train()
    features = model.neck(model.prithvi(pixels).last_hidden_state, (2, 2))
    auxiliary = nn.functional.cross_entropy(model.auxiliary_head(features), labels)
    total = model(pixels, labels=labels).loss
    torch.testing.assert_close(total, plain(pixels, labels=labels).loss + 0.5 * auxiliary, rtol=1e-5, atol=1e-6)


def test_a_step_in_two_parts_counts_pixels_as_one():
    """With the Trainer's count of a whole step, how the step is split does not change its gradient."""
    model = small_model(use_auxiliary_head=False, classifier_dropout=0.0)
    pixels, labels = torch.randn(2, 6, 1, 32, 32), torch.randint(0, 2, (2, 32, 32))
    labels[0, :, 4:] = -100
    count = (labels != -100).sum()
    whole = model(pixels, labels=labels).loss
    parts = sum(model(pixels[i : i + 1], labels=labels[i : i + 1], num_items_in_batch=count).loss for i in range(2))
    torch.testing.assert_close(whole, parts)


def test_gradient_checkpointing_gives_the_same_gradients():
    pixels, labels = torch.randn(1, 6, 1, 32, 32), torch.randint(0, 2, (1, 32, 32))
    gradients = []
    for checkpointing in (False, True):
        model = small_model(classifier_dropout=0.0).train()
        if checkpointing:
            model.activation_checkpointing_enable()
        model(pixels, labels=labels).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_hidden_states_and_attentions_on_request():
    model = small_model(attn_implementation="eager")
    outputs = model(torch.randn(1, 6, 1, 32, 32), output_hidden_states=True, output_attentions=True)
    assert len(outputs.hidden_states) == 3
    assert [attention.shape for attention in outputs.attentions] == [(1, 4, 5, 5)] * 2
    assert isinstance(model(torch.randn(1, 6, 1, 32, 32), return_dict=False), tuple)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(dtype):
    model = small_model()
    pixels = torch.randn(1, 6, 1, 32, 48)
    expected = model(pixels).logits
    logits = model.to(dtype)(pixels.to(dtype)).logits
    assert logits.dtype == dtype
    assert (logits.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_autocast_stays_close():
    model = small_model()
    pixels = torch.randn(1, 6, 1, 32, 48)
    expected = model(pixels).logits
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(pixels).logits
    assert (logits.float() - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("shape", [(1, 6, 1, 32, 48), (2, 6, 3, 40, 37)])
def test_patches_are_those_of_the_convolution(shape):
    embeddings = small_model().prithvi.embeddings.patch_embeddings
    pixels = torch.randn(shape)
    assert_matches(embeddings._matrix_product(pixels), embeddings(pixels))


def test_annotations_are_evaluated():
    """Postponed annotations switch the validation of the configuration off and hide its class from transformers."""
    assert PrithviModel.config_class is PrithviConfig
    with pytest.raises(Exception, match="hidden_size"):
        PrithviConfig(hidden_size="64")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gpu_agrees_with_cpu(dtype):
    model = small_model()
    pixels = torch.randn(2, 6, 1, 40, 56)
    expected = model(pixels).logits
    logits = model.to("cuda", dtype)(pixels.to("cuda", dtype)).logits.float().cpu()
    assert (logits - expected).abs().max() < (1e-4 if dtype == torch.float32 else 0.05) * expected.abs().max()
