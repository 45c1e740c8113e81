"""The model against the original code's values, and the contract of a transformers model."""

from functools import partial

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForSemanticSegmentation

from prithvi_hf import (
    PrithviBackbone,
    PrithviConfig,
    PrithviForSemanticSegmentation,
    PrithviModel,
    PrithviTrainer,
    PrithviTrainingArguments,
)
from prithvi_hf.conversion.convert_prithvi_to_hf import convert_state_dict
from prithvi_hf.conversion.infer_config import infer_config
from prithvi_hf.models.prithvi.embeddings_prithvi import pad_by_reflection, sincos_position_table
from prithvi_hf.models.prithvi.loss_prithvi import LOSSES as REGISTERED_LOSSES
from prithvi_hf.models.prithvi.loss_prithvi import (
    cross_entropy_loss,
    dice_loss,
    focal_loss,
    masked_dice_loss,
)
from prithvi_hf.models.prithvi.modeling_prithvi import LONGEST_PLAIN_ATTENTION
from tests.golden import assert_matches, read_golden


SEGMENTORS = ["v1_segmentor_flood", "v1_segmentor_burn", "v1_segmentor_crop"]
LOSS_NAMES = {"CrossEntropyLoss": "cross_entropy", "DiceLoss": "dice"}


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


def golden_config(golden) -> PrithviConfig:
    """The configuration that the original's own model dictionary describes."""
    model = golden.config["model_cfg"]
    backbone, head, auxiliary = model["backbone"], model["decode_head"], model["auxiliary_head"]
    names = ("img_size", "num_frames", "in_chans", "embed_dim", "depth", "num_heads", "mlp_ratio", "patch_size")
    return PrithviConfig(
        **{name: backbone[name] for name in names},
        neck_hidden_size=model["neck"]["output_embed_dim"],
        num_labels=head["num_classes"],
        head_hidden_size=head["channels"],
        head_num_convs=head["num_convs"],
        auxiliary_head_num_convs=auxiliary["num_convs"],
        classifier_dropout=head["dropout_ratio"],
        loss=LOSS_NAMES[head["loss_decode"]["type"]],
        class_weights=head["loss_decode"].get("class_weight"),
    )


def golden_segmentor(golden, config: PrithviConfig | None = None) -> PrithviForSemanticSegmentation:
    config = golden_config(golden) if config is None else config
    model = PrithviForSemanticSegmentation(config)
    model.load_state_dict(convert_state_dict(golden.group("sd"), config), strict=True)
    return model


def golden_labels(golden) -> torch.Tensor:
    """Labels with -100 in place of what the original's loss ignores."""
    head, labels = golden.config["model_cfg"]["decode_head"], golden["in_.label"].squeeze(1)
    ignored = head["loss_decode"].get("ignore_index", head.get("ignore_index", 255))
    assert (labels == ignored).any()
    return labels.masked_fill(labels == ignored, -100)


def pixel_accuracy(golden, logits: torch.Tensor) -> torch.Tensor:
    """The original's `acc_seg` in percent, by the *head's* ignore index, which the burn-scar recipe left at 255."""
    labels = golden["in_.label"].squeeze(1)
    counted = labels != golden.config["model_cfg"]["decode_head"].get("ignore_index", 255)
    return 100 * ((logits.argmax(dim=1) == labels) & counted).sum() / counted.sum()


def run_with_heads(model, pixels: torch.Tensor, labels: torch.Tensor):
    """Outputs of one forward pass, and what encoder, neck and heads gave in it, by their names in the golden files."""
    found = {}
    modules = {"tokens": model.prithvi.layernorm, "neck": model.neck}
    modules |= {"decode": model.decode_head, "aux": model.auxiliary_head}
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: found.update({name: output}))
        for name, module in modules.items()
    ]
    outputs = model(pixels, labels=labels)
    for hook in hooks:
        hook.remove()
    return outputs, found


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
def test_segmentor_matches_the_original(golden_dir, name):
    golden = read_golden(golden_dir, name)
    model, labels = golden_segmentor(golden).eval(), golden_labels(golden)
    with torch.no_grad():
        outputs, found = run_with_heads(model, golden["in_.x"], labels)
        found["aux"] = model.auxiliary_head(found["neck"])
    assert_matches(found["tokens"], golden["out.tokens"])
    assert_matches(found["neck"][..., ::8, ::8], golden["out.neck_probe"])
    assert_matches(outputs.logits, golden["out.logits"])
    assert_matches(found["aux"][..., ::4, ::4], golden["out.aux_logits_probe"])
    assert_matches(outputs.loss, model.segmentation_loss(found["decode"], labels))
    assert_head_matches(golden, "eval", model, found, labels)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", SEGMENTORS)
def test_segmentor_training_matches_the_original(golden_dir, name, checkpointing):
    golden = read_golden(golden_dir, name)
    model, labels = golden_segmentor(golden).train(), golden_labels(golden)
    # The flood model has a ReLU input that is -2.5e-7 in exact arithmetic and was positive in the original's: which
    # side of zero it is on here depends on the CPU, and the gradients show it by 0.3 %. So it is put on that side.
    if name == "v1_segmentor_flood":
        model.auxiliary_head.layers[-1].normalization.register_forward_hook(
            lambda module, inputs, output: output + 2e-6 * (output.abs() < 1e-6)
        )
    if checkpointing:
        model.activation_checkpointing_enable()
    outputs, found = run_with_heads(model, golden["in_.x"], labels)
    assert_head_matches(golden, "train", model, found, labels)
    assert_matches(outputs.loss, golden["out.train.total"])
    outputs.loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for original, parameter in GRADIENT_NAMES.items():
        assert_matches(gradients[parameter], golden[f"grad.{original}"])
    query_key_value = [gradients[f"prithvi.layers.0.attention.{part}_proj.weight"] for part in "qkv"]
    assert_matches(torch.cat(query_key_value), golden["grad.backbone.blocks.0.attn.qkv.weight"])
    assert len(golden.group("grad")) == len(GRADIENT_NAMES) + 1
    for original, expected in golden.group("out.train_after").items():
        head, _, index, _, statistic = original.split(".")
        normalization = getattr(model, head).layers[int(index)].normalization
        assert_matches(getattr(normalization, statistic), expected)


def assert_head_matches(golden, mode, model, found, labels):
    """Loss and pixel accuracy of both heads."""
    loss = {"cross_entropy": "loss_ce", "dice": "loss_dice"}[model.config.loss]
    for head in ("decode", "aux"):
        assert_matches(model.segmentation_loss(found[head], labels), golden[f"out.{mode}.{head}.{loss}"])
        assert_matches(pixel_accuracy(golden, found[head]), golden[f"out.{mode}.{head}.acc_seg"])


GRADIENT_NAMES = {
    "auxiliary_head.conv_seg.weight": "auxiliary_head.classifier.weight",
    "auxiliary_head.convs.1.bn.bias": "auxiliary_head.layers.1.normalization.bias",
    "backbone.blocks.1.mlp.fc2.bias": "prithvi.layers.1.mlp.fc2.bias",
    "backbone.cls_token": "prithvi.embeddings.cls_token",
    "backbone.norm.weight": "prithvi.layernorm.weight",
    "backbone.patch_embed.proj.bias": "prithvi.embeddings.patch_embeddings.bias",
    "decode_head.conv_seg.bias": "decode_head.classifier.bias",
    "decode_head.conv_seg.weight": "decode_head.classifier.weight",
    "decode_head.convs.0.bn.weight": "decode_head.layers.0.normalization.weight",
    "decode_head.convs.0.conv.weight": "decode_head.layers.0.convolution.weight",
    "neck.fpn1.0.bias": "neck.upsample_blocks.0.conv_transpose_1.bias",
    "neck.fpn1.1.ln.weight": "neck.upsample_blocks.0.norm.weight",
    "neck.fpn2.3.weight": "neck.upsample_blocks.1.conv_transpose_2.weight",
}
"""The gradients of the golden files, the fused query-key-value projection aside, and what they are here."""


def test_a_model_made_in_inference_mode_runs():
    with torch.inference_mode():
        model = small_model()
        assert model(torch.randn(1, 6, 1, 48, 32)).logits.shape == (1, 2, 48, 32)


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


def test_reflection_is_that_of_torch():
    pixels = torch.randn(1, 6, 20, 30)
    expected = nn.functional.pad(pixels, (0, 2, 0, 12), mode="reflect")
    padded, start = pad_by_reflection(pixels, (16, 16))
    assert torch.equal(padded, expected)
    assert start == (0, 0)
    padded, start = pad_by_reflection(pixels, (16, 16), both_sides=True)
    assert torch.equal(padded, nn.functional.pad(pixels, (1, 1, 6, 6), mode="reflect"))
    assert start == (6, 1)


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


@pytest.mark.parametrize("head", [{}, {"decode_head": "unet", "unet_channels": [16, 8, 8, 8], "num_hidden_layers": 4}])
@pytest.mark.parametrize("frames", [1, 2])
def test_images_are_upsampled_inside_and_maps_come_back(head, frames):
    """As resizing the image first, bilinearly, and the map afterwards; labels stay those of the image's pixels."""
    model = small_model(input_upsampling=1.75, num_frames=frames, **head)
    plain = small_model(num_frames=frames, **head)
    pixels, labels = torch.randn(1, 6, frames, 26, 38), torch.randint(0, 2, (1, 26, 38))
    resized = torch.stack(
        [nn.functional.interpolate(frame, (46, 66), mode="bilinear") for frame in pixels.unbind(2)], dim=2
    )
    outputs = model(pixels, labels=labels)
    expected = nn.functional.interpolate(plain(resized).logits, (26, 38), mode="bilinear")
    assert_matches(outputs.logits, expected)
    assert_matches(outputs.loss, plain.segmentation_loss(expected, labels))
    outputs.loss.backward()
    assert model.prithvi.embeddings.patch_embeddings.weight.grad.abs().sum() > 0


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


LOSSES = {
    "cross_entropy": cross_entropy_loss,
    "dice": dice_loss,
    "masked_dice": masked_dice_loss,
    "focal": partial(focal_loss, gamma=1.5),
    "cross_entropy+masked_dice": lambda *args, **options: (
        cross_entropy_loss(*args, **options) + masked_dice_loss(*args, **options)
    ),
}
COUNTED_LOSSES = ("cross_entropy", "focal")


def partly_ignored_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Two images, one of which has many more valid labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (2, 32, 32), generator=generator)
    labels[0, :, 4:] = -100
    return torch.randn(2, 6, 1, 32, 32, generator=generator), labels


def normless_model(**overrides) -> PrithviForSemanticSegmentation:
    """A model that computes every image on its own in training too."""
    model = small_model(classifier_dropout=0.0, **overrides)
    for head in (model.decode_head, model.auxiliary_head):
        for layer in head.layers:
            layer.normalization = nn.Identity()
    return model


@pytest.mark.parametrize("name", LOSSES)
def test_the_configured_loss_is_used(name):
    model = small_model(loss=name, focal_gamma=1.5, class_weights=[0.5, 2.0])
    pixels, labels = partly_ignored_batch()
    outputs = model(pixels, labels=labels)
    assert torch.equal(outputs.loss, LOSSES[name](outputs.logits, labels, class_weights=[0.5, 2.0]))


@pytest.mark.parametrize("name", LOSSES)
def test_another_ignore_index_is_used(name):
    pixels, labels = partly_ignored_batch()
    expected = small_model(loss=name)(pixels, labels=labels).loss
    model = small_model(loss=name, semantic_loss_ignore_index=255)
    loss = model(pixels, labels=labels.masked_fill(labels == -100, 255)).loss
    if name == "dice":  # in its denominator, ignored labels beyond the last class count as the last
        assert loss != expected
    else:
        assert torch.equal(loss, expected)


@pytest.mark.parametrize("name", LOSSES)
def test_only_means_over_pixels_take_the_count_of_transformers(name):
    assert small_model(loss=name).accepts_loss_kwargs == (name in COUNTED_LOSSES)
    assert not small_model(loss=name, semantic_loss_ignore_index=255).accepts_loss_kwargs


@pytest.mark.parametrize("name", LOSSES)
def test_the_parts_of_a_batch_add_up_by_its_count(name):
    pixels, labels = partly_ignored_batch()
    model = small_model(loss=name)
    count = REGISTERED_LOSSES[name].count_items(labels, -100)
    parts = [
        model(pixels[i : i + 1], labels=labels[i : i + 1], num_items_in_batch=count).loss for i in range(len(pixels))
    ]
    torch.testing.assert_close(sum(parts), model(pixels, labels=labels).loss)


@pytest.mark.parametrize("name", LOSSES)
def test_accumulated_batches_are_one_batch(tmp_path, name):
    """Two batches of one image make the step of one batch of two, however valid pixels are divided among them."""
    pixels, labels = partly_ignored_batch()
    rows = [{"pixel_values": image, "labels": mask} for image, mask in zip(pixels.double(), labels, strict=True)]
    accumulated, whole = (one_step(tmp_path, normless_model(loss=name).double(), rows, size) for size in (1, 2))
    assert max(step.abs().max() for step in whole.values()) > 1e-3
    for key, step in whole.items():
        torch.testing.assert_close(accumulated[key], step, rtol=1e-6, atol=1e-9, msg=key)


def one_step(folder, model, rows, batch_size: int) -> dict[str, torch.Tensor]:
    """What one optimisation step on the rows, accumulated over batches, changes in each weight."""
    start = {key: value.clone() for key, value in model.state_dict().items()}
    options = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": len(rows) // batch_size}
    options |= {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "constant"}
    options |= {"max_grad_norm": 0.0, "use_cpu": True, "report_to": "none", "disable_tqdm": True}
    arguments = PrithviTrainingArguments(output_dir=str(folder), save_strategy="no", **options)
    PrithviTrainer(model, arguments, train_dataset=rows).train()
    return {key: value - start[key] for key, value in model.state_dict().items()}


def test_a_frozen_backbone_stays_while_the_rest_trains():
    model = small_model(classifier_dropout=0.0).train()
    model.activation_checkpointing_enable()
    model.freeze_backbone()
    pixels, labels = partly_ignored_batch()
    model(pixels, labels=labels).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith("prithvi."), name
        assert (parameter.grad is None) == name.startswith("prithvi."), name
    model.prithvi.requires_grad_(True)
    assert all(parameter.requires_grad for parameter in model.parameters())


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


@pytest.mark.parametrize("head", ["fcn", "unet"])
def test_some_hidden_states_on_request(head):
    """Also of a model whose neck needs others; what the call says wins over the configuration."""
    model = small_model(
        decode_head=head, unet_channels=[8, 8, 8, 8], out_indices=[0, 0, 1, 1], output_hidden_states=True
    )
    pixels = torch.randn(1, 6, 1, 32, 32)
    every, some = model(pixels), model(pixels, output_hidden_states=[0, -1])
    torch.testing.assert_close(some.logits, every.logits, rtol=0, atol=0)
    assert some.hidden_states[1] is None
    for number in (0, 2):
        torch.testing.assert_close(some.hidden_states[number], every.hidden_states[number], rtol=0, atol=0)
    assert model(pixels, output_hidden_states=False).hidden_states is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(dtype):
    model = small_model()
    pixels = torch.randn(1, 6, 1, 32, 48)
    expected = model(pixels).logits
    logits = model.to(dtype)(pixels.to(dtype)).logits
    assert logits.dtype == dtype
    assert (logits.float() - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("length", [5, LONGEST_PLAIN_ATTENTION + 1])
def test_attention_in_bfloat16_stays_close(length):
    """As two products where it is short, as torch's own where it is long, with gradients either way."""
    attention = small_model().prithvi.layers[0].attention
    tokens = torch.randn(2, length, attention.config.hidden_size).bfloat16()
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        inputs = tokens.to(dtype, copy=True).requires_grad_()
        output, _ = attention.to(dtype)(inputs)
        output.square().sum().backward()
        results.append((output, inputs.grad))
    for found, expected in zip(results[1], results[0], strict=True):
        assert_matches(found.float(), expected, 0.03)


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
    expected = embeddings(pixels)
    found = embeddings.bfloat16()(pixels.bfloat16())  # in half precision, a matrix product
    assert_matches(found.float(), expected, 0.02)


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


@pytest.mark.parametrize(("neck", "example"), [("conv_transpose", 1), ("geospatial", 2)])
def test_an_export_leaves_batch_height_and_width_open(neck, example):
    """Torch fixes every size of the example that is 1, whatever the model, unless `backed_size_oblivious` is set."""
    options = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 64, "num_frames": 2}
    model = PrithviForSemanticSegmentation(PrithviConfig(neck=neck, **options)).eval()
    batch, rows, columns = (
        torch.export.Dim(name, min=least, max=64) for name, least in zip("brc", (1, 2, 2), strict=True)
    )
    sizes = {"pixel_values": {0: batch, 3: 16 * rows, 4: 16 * columns}}
    pixels = {"pixel_values": torch.randn(example, 6, 2, 64, 64)}
    with torch.no_grad(), torch.fx.experimental._config.patch(backed_size_oblivious=example == 1):
        program = torch.export.export(model, (), pixels, dynamic_shapes=sizes)
        for shape in ((3, 6, 2, 96, 32), (1, 6, 2, 64, 64)):
            pixels = torch.randn(shape)
            assert_matches(program.module()(pixel_values=pixels).logits, model(pixels).logits)


@pytest.mark.parametrize("model_class", [PrithviForSemanticSegmentation, PrithviBackbone])
def test_an_export_of_a_pyramid_and_of_a_backbone_does_so_too(model_class):
    """Of at least three rows and columns of patches: the pyramid halves them, and torch fixes every size that is 1."""
    config = small_config(decode_head="unet", unet_channels=[8, 8, 8, 8], out_indices=[0, 1, 1, 1], num_frames=2)
    if model_class is PrithviBackbone:
        config.out_indices = [0, 1]
    model = model_class(config).eval()
    sides = (torch.export.Dim(name, min=3, max=64) for name in "rc")
    shape = dict(zip((3, 4), (16 * side for side in sides), strict=True))
    sizes = {"pixel_values": {0: torch.export.Dim("b", min=1, max=64), **shape}}
    with torch.no_grad():
        program = torch.export.export(model, (torch.randn(2, 6, 2, 64, 96),), dynamic_shapes=sizes)
        pixels = torch.randn(3, 6, 2, 96, 48)
        found, expected = program.module()(pixels), model(pixels)
    key = "logits" if "logits" in expected else "feature_maps"
    torch.testing.assert_close(found[key], expected[key])
