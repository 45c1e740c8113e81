"""The composed operator of neck and heads: the same values as the modules, and the modules where it must not serve."""

import copy
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation
from prithvi_hf.decode_heads_prithvi import PrithviFCNHead, PrithviNeck
from prithvi_hf.minimal_filtering_prithvi import (
    TiledUpsampling,
    border_sums,
    compose_products,
    phase_kernels,
)

from .golden import assert_matches, read_golden
from .test_modeling_prithvi import (
    GRADIENT_NAMES,
    SEGMENTORS,
    golden_labels,
    golden_segmentor,
)


def make_model(dtype=torch.float32, **overrides) -> PrithviForSemanticSegmentation:
    """A small model in which no weight and no statistic is trivial."""
    torch.manual_seed(0)
    values = {
        "image_size": 32,
        "num_frames": 1,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "neck_hidden_size": 12,
        "head_hidden_size": 8,
        "num_labels": 3,
        "classifier_dropout": 0.0,
    }
    model = PrithviForSemanticSegmentation(PrithviConfig(**{**values, **overrides}))
    with torch.no_grad():
        for module in [*model.neck.modules(), *model.decode_head.modules(), *model.auxiliary_head.modules()]:
            if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
                module.weight.normal_(1, 0.3)
            if getattr(module, "bias", None) is not None:
                module.bias.normal_(0, 0.5)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return model.to(dtype).eval()


def plain(model: PrithviForSemanticSegmentation) -> PrithviForSemanticSegmentation:
    """The same model, whose modules are called one by one."""
    model = copy.deepcopy(model)
    model.set_composed_upsampling(False)
    return model


def batch(size=(32, 48), frames: int = 1, images: int = 2, dtype=torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(images, 6, frames, *size, generator=generator).to(dtype)
    return pixels, torch.randint(0, 3, (images, *size), generator=generator)


def count_neck_calls(monkeypatch) -> list[int]:
    """A list that grows by one entry at each call of the neck itself: the sign of the plain path."""
    calls, forward = [], PrithviNeck.forward

    def counting(self, *args):
        calls.append(1)
        return forward(self, *args)

    monkeypatch.setattr(PrithviNeck, "forward", counting)
    return calls


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("size", [(16, 16), (32, 48), (37, 21), (80, 16)])
def test_inference_is_that_of_the_modules(monkeypatch, size, frames, dtype, tolerance):
    """Borders included: no pixel is left out of the comparison."""
    model = make_model(dtype, num_frames=frames)
    pixels, _ = batch(size, frames, dtype=dtype)
    with torch.no_grad():
        expected = plain(model)(pixels).logits
        calls = count_neck_calls(monkeypatch)
        logits = model(pixels).logits
    assert not calls
    assert_matches(logits, expected, tolerance)


@pytest.mark.parametrize("convs", [1, 2, 3])
def test_heads_of_several_layers(convs):
    model = make_model(head_num_convs=convs, auxiliary_head_num_convs=convs)
    pixels, labels = batch()
    with torch.no_grad():
        assert_matches(model(pixels).logits, plain(model)(pixels).logits)
    assert_same_step(model.double(), pixels.double(), labels, 1e-10)


def step(model, pixels, labels):
    """Outputs and gradients by name of one training step."""
    model.zero_grad()
    outputs = model(pixels, labels=labels)
    outputs.loss.backward()
    return outputs, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def assert_same_step(model, pixels, labels, tolerance):
    """Logits, loss, every gradient and every running statistic agree with those of the modules.

    Where a gradient is zero but for rounding, as that of a bias before a batch normalisation, it is measured against
    the largest of all.
    """
    reference = plain(model).train()
    model.train()
    outputs, gradients = step(model, pixels, labels)
    expected_outputs, expected = step(reference, pixels, labels)
    assert_matches(outputs.loss, expected_outputs.loss, tolerance)
    assert_matches(outputs.logits, expected_outputs.logits, tolerance)
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in gradients.items():
        bound = tolerance * max(expected[name].abs().max(), 1e-3 * largest)
        assert (gradient - expected[name]).abs().max() <= bound, name
    for (name, buffer), other in zip(model.named_buffers(), reference.buffers(), strict=True):
        assert_matches(buffer, other, tolerance), name


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("size", [(16, 16), (32, 48), (37, 21)])
def test_training_is_that_of_the_modules(monkeypatch, size, frames):
    model = make_model(torch.float64, num_frames=frames)
    pixels, labels = batch(size, frames, dtype=torch.float64)
    assert_same_step(model, pixels, labels, 1e-10)
    calls = count_neck_calls(monkeypatch)
    step(model, pixels, labels)
    assert not calls


def test_gradients_in_evaluation_mode():
    """As for a saliency map: running statistics, gradients to the pixels."""
    model = make_model(torch.float64)
    pixels, _ = batch(dtype=torch.float64)
    gradients = []
    for candidate in (model, plain(model)):
        inputs = pixels.clone().requires_grad_()
        candidate(inputs).logits.square().sum().backward()
        gradients.append(inputs.grad)
    assert_matches(*gradients, 1e-10)


def test_a_frozen_backbone_trains_the_rest():
    model = make_model(torch.float64)
    model.freeze_backbone()
    pixels, labels = batch(dtype=torch.float64)
    expected = plain(model).train()
    for candidate in (model.train(), expected):
        candidate(pixels, labels=labels).loss.backward()
    for (name, parameter), other in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert (parameter.grad is None) == name.startswith("prithvi."), name
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-8, atol=1e-12, msg=name)


def test_dropout_draws_what_the_modules_draw():
    model = make_model(torch.float64, classifier_dropout=0.5).train()
    pixels, labels = batch(dtype=torch.float64)
    losses = []
    for candidate in (model, plain(model)):
        torch.manual_seed(3)
        losses.append(candidate(pixels, labels=labels).loss)
    assert_matches(*losses, 1e-12)


@pytest.mark.parametrize("widths", [(3,), (3, 4)])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 3), (5, 3)])
def test_the_operator_by_itself(size, widths):
    """Tiles and phases against the two convolutions, at sizes that no tile fits."""
    torch.manual_seed(0)
    pixels = torch.randn(2, *size, 4, 5, dtype=torch.float64, requires_grad=True)
    transposed = nn.ConvTranspose2d(5, 6, 2, 2).double()
    convolution = nn.Conv2d(6, sum(widths), 3, padding=1, bias=False).double()
    norm = nn.LayerNorm(5, dtype=torch.float64)
    activated = (
        nn.functional.gelu(norm(pixels)).unflatten(3, (2, 2)).permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
    )
    expected = convolution(transposed(activated)).split(widths, dim=1)
    products = compose_products(transposed.weight, convolution.weight)
    borders = border_sums(convolution.weight, transposed.bias)
    maps = TiledUpsampling.apply(pixels, norm.weight, norm.bias, norm.eps, products, borders, widths)
    parameters = [pixels, *transposed.parameters(), *convolution.parameters(), *norm.parameters()]
    weights = [torch.randn_like(part) for part in expected]
    wanted = torch.autograd.grad(expected, parameters, weights, retain_graph=True)
    found = torch.autograd.grad(maps, parameters, [weight.permute(0, 2, 3, 1) for weight in weights])
    for ours, theirs in zip([m.permute(0, 3, 1, 2) for m in maps], expected, strict=True):
        assert_matches(ours, theirs, 1e-13)
    for ours, theirs in zip(found, wanted, strict=True):
        assert_matches(ours, theirs, 1e-12)
    kernels, padded = phase_kernels(products), nn.functional.pad(activated, (1, 1, 1, 1))
    corner = nn.functional.conv2d(padded, kernels).unflatten(1, (2, 2, -1))[:, 1, 1, :, 1:, 1:]
    without_bias = nn.functional.conv_transpose2d(activated, transposed.weight, stride=2)
    assert_matches(corner, convolution(without_bias)[..., 1::2, 1::2], 1e-12)


@pytest.mark.parametrize("name", SEGMENTORS)
def test_golden_logits(golden_dir, name):
    golden = read_golden(golden_dir, name)
    model, labels = golden_segmentor(golden).eval(), golden_labels(golden)
    with torch.no_grad():
        outputs = model(golden["in_.x"], labels=labels)
    assert_matches(outputs.logits, golden["out.logits"])
    assert_matches(outputs.loss, model.segmentation_loss(golden["out.logits"], labels))


def golden_step(golden, composed: bool, dtype: torch.dtype, nudge=None):
    """A training step of a golden segmentor: the model, the loss, and gradients by the original's names."""
    model = golden_segmentor(golden).to(dtype).train()
    if nudge is not None:
        head, layer, channel, amount = nudge
        getattr(model, head).layers[layer].normalization.bias.data[channel] += amount
    model.set_composed_upsampling(composed)
    loss = model(golden["in_.x"].to(dtype), labels=golden_labels(golden)).loss
    loss.backward()
    parameters = dict(model.named_parameters())
    gradients = {original: parameters[name].grad for original, name in GRADIENT_NAMES.items()}
    parts = [parameters[f"prithvi.layers.0.attention.{part}_proj.weight"].grad for part in "qkv"]
    return model, loss, {**gradients, "backbone.blocks.0.attn.qkv.weight": torch.cat(parts)}


def smallest_activation(golden) -> tuple[str, int, int, float]:
    """Head, layer, channel and value of the ReLU input that is nearest to zero, as float64 has it."""
    model = golden_segmentor(golden).double().train()
    found = []

    def note(values, head, index):
        position = values.abs().flatten().argmin().item()
        channel = position // values[0, 0].numel() % values.shape[1]
        found.append((head, index, channel, values.flatten()[position].item()))

    for head in ("decode_head", "auxiliary_head"):
        for index, layer in enumerate(getattr(model, head).layers):
            layer.normalization.register_forward_hook(
                lambda _, __, output, head=head, index=index: note(output.detach(), head, index)
            )
    model(golden["in_.x"].double(), labels=golden_labels(golden))
    return min(found, key=lambda entry: abs(entry[3]))


@pytest.mark.parametrize("name", SEGMENTORS)
def test_golden_training(golden_dir, name):
    """One ReLU of the flood model, of 800 thousand, gets -2.5e-7, which the original's float32 rounded to above zero.

    What it then passes on shows in the gradients by up to 4e-3 of their maximum. So that channel's bias is moved by
    3e-6 across zero here, and all gradients are those of the original; the next test needs no such help.
    """
    torch.set_float32_matmul_precision("highest")
    golden = read_golden(golden_dir, name)
    nudge = None
    if name == "v1_segmentor_flood":
        head, layer, channel, value = smallest_activation(golden)
        assert -1e-6 < value < 0
        nudge = (head, layer, channel, 3e-6)
    model, loss, gradients = golden_step(golden, True, torch.float32, nudge)
    assert_matches(loss, golden["out.train.total"])
    for original, gradient in gradients.items():
        assert_matches(gradient, golden[f"grad.{original}"])
    for original, expected in golden.group("out.train_after").items():
        head, _, index, _, statistic = original.split(".")
        assert_matches(getattr(getattr(model, head).layers[int(index)].normalization, statistic), expected)


@pytest.mark.parametrize("name", SEGMENTORS)
def test_golden_models_agree_without_rounding(golden_dir, name):
    golden = read_golden(golden_dir, name)
    _, loss, gradients = golden_step(golden, composed=True, dtype=torch.float64)
    _, expected_loss, expected = golden_step(golden, composed=False, dtype=torch.float64)
    assert_matches(loss, expected_loss, 1e-10)
    for original, gradient in gradients.items():
        assert_matches(gradient, expected[original], 1e-10)


def scale_in_place(model):
    with torch.no_grad():
        model.decode_head.layers[0].convolution.weight.mul_(1.5)


def edit_through_data(model):
    model.neck.upsample_blocks[1].conv_transpose_2.weight.data[0] = 0.25


def swap_through_data(model):
    """Sums stay as they were, nothing but the order changes."""
    weight = model.neck.upsample_blocks[1].conv_transpose_2.weight.data
    weight.copy_(weight.flip(0))


def change_bias(model):
    with torch.no_grad():
        model.neck.upsample_blocks[1].conv_transpose_2.bias[3] += 1


def change_statistics(model):
    model.decode_head.layers[0].normalization.running_var.mul_(2)


def change_epsilon(model):
    model.decode_head.layers[0].normalization.eps = 0.5


def change_classifier(model):
    model.decode_head.classifier.weight.data.neg_()


def change_earlier_layer(model):
    model.neck.upsample_blocks[1].conv_transpose_1.weight.data.mul_(1.1)


def load_other_weights(model):
    model.load_state_dict({name: value * 1.1 for name, value in model.state_dict().items()})


def replace_head(model):
    torch.manual_seed(9)
    model.decode_head = PrithviFCNHead(model.config, 1).eval()


def replace_convolution(model):
    torch.manual_seed(9)
    model.decode_head.layers[0].convolution = nn.Conv2d(12, 8, 3, padding=1, bias=False)


def replace_parameter(model):
    model.decode_head.layers[0].convolution.weight = nn.Parameter(torch.randn(8, 12, 3, 3))


def train_a_step(model):
    pixels, labels = batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()(pixels, labels=labels).loss.backward()
    optimizer.step()
    model.eval()


CHANGES = [
    *(scale_in_place, edit_through_data, swap_through_data, change_bias, change_statistics, change_epsilon),
    *(change_classifier, change_earlier_layer, load_other_weights, replace_head, replace_convolution),
    *(replace_parameter, train_a_step),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_changed_weight_is_seen(change):
    model = make_model()
    pixels, _ = batch()
    with torch.no_grad():
        before = model(pixels).logits
        assert torch.equal(model(pixels).logits, before)
    change(model)
    with torch.no_grad():
        after = model(pixels).logits
        assert (after - before).abs().max() > 1e-3 * before.abs().max()
        assert_matches(after, plain(model)(pixels).logits)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_dtype_is_seen(dtype):
    model = make_model()
    pixels, _ = batch()
    with torch.no_grad():
        model(pixels)
        logits = model.to(dtype)(pixels.to(dtype)).logits
        expected = plain(model)(pixels.to(dtype)).logits
    assert logits.dtype == dtype
    assert_matches(logits, expected, 1e-10 if dtype == torch.float64 else 0.05)


def count_compositions(monkeypatch) -> list[int]:
    """A list that grows by one entry at each composition for inference."""
    from prithvi_hf import composed_upsampling_prithvi

    counts, fold = [], composed_upsampling_prithvi._fold

    def counting(*args):
        counts.append(1)
        return fold(*args)

    monkeypatch.setattr(composed_upsampling_prithvi, "_fold", counting)
    return counts


def test_inference_composes_once(monkeypatch):
    counts, model = count_compositions(monkeypatch), make_model()
    for size in ((32, 32), (48, 16)):
        with torch.inference_mode():
            model(batch(size)[0])
        with torch.no_grad():
            model(batch(size)[0])
    assert len(counts) == 1
    assert model.train()._upsampling._kernels is None


def test_copies_and_files_hold_no_composed_kernels(tmp_path):
    model = make_model()
    names, pixels = list(model.state_dict()), batch()[0]
    with torch.no_grad():
        expected = model(pixels).logits
        assert model._upsampling._kernels is not None
        assert list(model.state_dict()) == names == list(plain(model).state_dict())
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert other._upsampling._kernels is None
            assert torch.equal(other(pixels).logits, expected)
        model.save_pretrained(tmp_path)
        loaded = PrithviForSemanticSegmentation.from_pretrained(tmp_path)
        assert torch.equal(loaded(pixels).logits, expected)


def test_the_switch_is_saved(tmp_path):
    plain(make_model()).save_pretrained(tmp_path)
    loaded = PrithviForSemanticSegmentation.from_pretrained(tmp_path)
    assert loaded.config.composed_upsampling is False
    assert PrithviConfig().composed_upsampling is True


def test_threads_share_a_model():
    """Two threads that read while a third edits get logits of one state or the other, and then of the last."""
    model, (pixels, _) = make_model(), batch()
    errors = []

    def run():
        try:
            with torch.no_grad():
                for _ in range(5):
                    assert model(pixels).logits.isfinite().all()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        scale_in_place(model)
    for thread in threads:
        thread.join()
    assert not errors
    with torch.no_grad():
        assert_matches(model(pixels).logits, plain(model)(pixels).logits)


def hook_forward(model):
    model.neck.register_forward_hook(lambda *_: None)


def hook_inner_forward(model):
    model.neck.upsample_blocks[1].conv_transpose_2.register_forward_pre_hook(lambda *_: None)


def hook_head(model):
    model.decode_head.register_forward_hook(lambda *_: None)


def hook_convolution(model):
    model.decode_head.layers[0].convolution.register_full_backward_hook(lambda *_: None)


def hook_backward_pre(model):
    model.neck.upsample_blocks[0].norm.register_full_backward_pre_hook(lambda *_: None)


class LowRank(nn.Module):
    """What parameter-efficient tuning puts around a convolution."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base_layer, self.extra = base, nn.Parameter(torch.ones(()))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.base_layer(features) * self.extra


def wrap_convolution(model):
    model.decode_head.layers[0].convolution = LowRank(model.decode_head.layers[0].convolution)


def wrap_upsampling(model):
    block = model.neck.upsample_blocks[1]
    block.conv_transpose_2 = LowRank(block.conv_transpose_2)


def parametrize_convolution(model):
    parametrizations.weight_norm(model.decode_head.layers[0].convolution)


def override_on_the_instance(model):
    """As accelerate does to fetch offloaded weights."""
    module = model.neck.upsample_blocks[1].conv_transpose_1
    forward = module.forward
    module.forward = lambda *args: forward(*args)


class OwnNeck(PrithviNeck):
    def forward(self, tokens, grid_size):
        return 2 * super().forward(tokens, grid_size)


def subclass_neck(model):
    neck = OwnNeck(model.config)
    neck.load_state_dict(model.neck.state_dict())
    model.neck = neck.eval()


def replace_activation(model):
    model.neck.upsample_blocks[1].activation = nn.SiLU()


def widen_convolution(model):
    """Of the right class, but another operation."""
    convolution = model.decode_head.layers[0].convolution
    convolution.dilation, convolution.padding = (2, 2), (2, 2)


def switch_off(model):
    model.set_composed_upsampling(False)


class Tagged(torch.Tensor):
    """A tensor subclass, as quantised and sharded weights are."""


def subclass_weight(model):
    convolution = model.decode_head.layers[0].convolution
    convolution.weight = nn.Parameter(convolution.weight.detach().as_subclass(Tagged), requires_grad=False)


OBSTACLES = [
    *(hook_forward, hook_inner_forward, hook_head, hook_convolution, hook_backward_pre, wrap_convolution),
    *(wrap_upsampling, parametrize_convolution, override_on_the_instance, subclass_neck, replace_activation),
    *(widen_convolution, switch_off, subclass_weight),
]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("change", OBSTACLES, ids=lambda change: change.__name__)
def test_what_is_not_as_built_takes_the_plain_path(monkeypatch, change, training):
    model = make_model()
    pixels, labels = batch()
    with torch.no_grad():
        model(pixels)
    change(model)
    calls = count_neck_calls(monkeypatch)
    with torch.set_grad_enabled(training):
        outputs = model.train(training)(pixels, labels=labels)
    assert len(calls) == 1
    if training:
        outputs.loss.backward()


@pytest.mark.parametrize("part", ["normalization", "activation", "dropout", "classifier"])
def test_hooks_on_the_rest_of_a_head_are_called(part):
    """What inference folds as well as what training calls."""
    model, (pixels, labels) = make_model(), batch()
    module = {**dict(model.decode_head.layers[0].named_children()), **dict(model.decode_head.named_children())}[part]
    seen = []
    module.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        assert_matches(model(pixels).logits, plain(model)(pixels).logits)
    assert seen
    seen.clear()
    model.train()(pixels, labels=labels).loss.backward()
    assert seen


def test_hooks_on_every_module_of_the_process_are_called():
    model, seen = make_model(), set()
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.add(module))
    try:
        with torch.no_grad():
            model(batch()[0])
    finally:
        handle.remove()
    assert model.neck.upsample_blocks[1].conv_transpose_2 in seen


def test_without_running_statistics_those_of_the_batch_count():
    model = make_model(torch.float64)
    for head in (model.decode_head, model.auxiliary_head):
        norm = head.layers[0].normalization
        norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    pixels, _ = batch(dtype=torch.float64)
    with torch.no_grad():
        assert_matches(model(pixels).logits, plain(model)(pixels).logits, 1e-10)


def test_the_geospatial_neck_is_called():
    model = make_model(neck="geospatial", first_conv_channels=16)
    pixels, labels = batch()
    with torch.no_grad():
        assert torch.equal(model(pixels).logits, plain(model)(pixels).logits)
    assert model(pixels, labels=labels).loss.isfinite()


def test_gradient_checkpointing():
    model = make_model(torch.float64)
    model.activation_checkpointing_enable()
    pixels, labels = batch(dtype=torch.float64)
    assert_same_step(model, pixels, labels, 1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    """One convolution in place of tiles; as close to float32 as the modules come."""
    model = make_model()
    pixels, _ = batch((37, 48))
    with torch.no_grad():
        expected = model(pixels).logits
        logits = model.to(dtype)(pixels.to(dtype)).logits
        modules = plain(model)(pixels.to(dtype)).logits
    assert logits.dtype == dtype
    errors = [(found.float() - expected).abs().max() / expected.abs().max() for found in (logits, modules)]
    assert errors[0] < max(2 * errors[1], 0.02)


def test_autocast():
    model = make_model()
    pixels, labels = batch((37, 48))
    with torch.no_grad():
        expected = model(pixels).logits
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(pixels).logits
        assert_matches(model(pixels).logits, expected)  # the kernels of half precision were not kept for it
    assert logits.dtype == torch.bfloat16
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.train()(pixels, labels=labels).loss
    loss.backward()
    expected_loss = plain(model)(pixels, labels=labels).loss
    assert (loss - expected_loss).abs() < 0.05 * expected_loss
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("convs", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_convolution_in_place_of_tiles(monkeypatch, convs, dtype):
    """The way of a GPU, on the CPU: the same values."""
    monkeypatch.setattr("prithvi_hf.composed_upsampling_prithvi._takes_tiles", lambda _: False)
    model = make_model(torch.float64, head_num_convs=convs)
    pixels, labels = batch((37, 48), dtype=torch.float64)
    with torch.no_grad():
        assert_matches(model(pixels).logits, plain(model)(pixels).logits, 1e-10)
    assert_same_step(model, pixels, labels, 1e-10)


@pytest.mark.parametrize("training", [False, True])
def test_compiles_whole(training):
    model = make_model(torch.float64).train(training)
    pixels, labels = batch((32, 32), dtype=torch.float64)
    reference = plain(model)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.set_grad_enabled(training):
        assert_matches(compiled(pixels, labels=labels).loss, reference(pixels, labels=labels).loss, 1e-10)


def test_exports():
    model = make_model()
    pixels, _ = batch((32, 32))
    with torch.no_grad():
        program = torch.export.export(model, (pixels,), strict=False)
        assert_matches(program.module()(pixels).logits, plain(model)(pixels).logits)


@pytest.mark.gpu
@pytest.mark.parametrize("training", [False, True])
def test_gpu_agrees_with_cpu(training):
    model = make_model(torch.float64).to("cuda")
    pixels, labels = batch((37, 48), dtype=torch.float64)
    pixels, labels = pixels.to("cuda"), labels.to("cuda")
    with torch.no_grad():
        assert_matches(model(pixels).logits, plain(model)(pixels).logits, 1e-10)
        scale_in_place(model)
        assert_matches(model(pixels).logits, plain(model)(pixels).logits, 1e-10)
    if training:
        assert_same_step(model, pixels, labels, 1e-10)
