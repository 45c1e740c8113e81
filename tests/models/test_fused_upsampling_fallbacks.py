# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The fused operator when weights change, and where modules are not what this package built."""

import copy
import pickle
import threading
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation
from prithvi_hf.models.prithvi import fused_upsampling_prithvi
from prithvi_hf.models.prithvi.decode_heads_prithvi import PrithviFCNHead, PrithviNeck
from tests.golden import assert_matches
from tests.upsampling_factory import assert_same_step, batch, count_neck_calls, make_model, plain, step


@pytest.fixture(autouse=True)
def however_small(monkeypatch):
    """Fuse the small steps of these tests too."""
    monkeypatch.setattr(fused_upsampling_prithvi, "SMALLEST_STEP", 0)


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


def count_fusions(monkeypatch) -> list[int]:
    """A list that grows by one entry each time that kernels are fused for inference."""
    counts, fold = [], fused_upsampling_prithvi._fold

    def counting(*args):
        counts.append(1)
        return fold(*args)

    monkeypatch.setattr(fused_upsampling_prithvi, "_fold", counting)
    return counts


def test_inference_fuses_once(monkeypatch):
    counts, model = count_fusions(monkeypatch), make_model()
    for size in ((32, 32), (48, 16)):
        with torch.inference_mode():
            model(batch(size)[0])
        with torch.no_grad():
            model(batch(size)[0])
    assert len(counts) == 1
    assert model.train()._upsampling._kernels is None


def test_copies_and_files_hold_no_fused_kernels(tmp_path):
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
    assert loaded.config.fused_upsampling is False
    assert PrithviConfig().fused_upsampling is True


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
    model.set_fused_upsampling(False)


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


PROCESSORS = {"none": {}, "vectors": {"avx512_bf16": True}, "matrix units": {"amx_bf16": True, "amx_fp16": True}}


@pytest.fixture(params=PROCESSORS)
def processor(request, monkeypatch):
    """The way of each kind of processor, whatever this one is."""
    plan = partial(fused_upsampling_prithvi.plan_products, capabilities=PROCESSORS[request.param])
    monkeypatch.setattr(fused_upsampling_prithvi, "plan_products", plan)


@pytest.mark.parametrize("options", [{}, {"head_num_convs": 2}, {"num_frames": 3}], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.usefixtures("processor")
def test_half_precision(dtype, options):
    """As close to float32 as the modules come, weights converted or autocast, by tiles or by convolution."""
    model = make_model(**options)
    pixels, _ = batch((37, 48), options.get("num_frames", 1))
    with torch.no_grad():
        expected = model(pixels).logits
        with torch.autocast("cpu", dtype):
            found = [model(pixels).logits]
        assert torch.equal(model(pixels).logits, expected)  # the kernels of half precision were not kept for it
        found.append(model.to(dtype)(pixels.to(dtype)).logits)
        modules = plain(model)(pixels.to(dtype)).logits
    assert all(logits.dtype == dtype for logits in found)
    errors = [(logits.float() - expected).square().mean().sqrt() for logits in (*found, modules)]
    assert max(errors[:2]) < 1.5 * errors[2]


@pytest.mark.parametrize("as_weights", [False, True], ids=["autocast", "weights"])
@pytest.mark.usefixtures("processor")
def test_training_in_bfloat16(as_weights):
    """Gradients as close to those without rounding as the modules come; those of weights in float32 by autocast."""
    model = make_model(head_num_convs=2)
    pixels, labels = batch((37, 48))
    _, expected = step(copy.deepcopy(model).double().train(), pixels.double(), labels)
    dtype = torch.bfloat16 if as_weights else torch.float32
    errors = []
    for candidate in (model.to(dtype), plain(model)):
        with torch.autocast("cpu", torch.bfloat16, enabled=not as_weights):
            _, gradients = step(candidate.train(), pixels.to(dtype), labels)
        assert all(gradient.dtype == dtype for gradient in gradients.values())
        # That of a bias before a batch normalisation is zero but for rounding.
        wanted = {name: gradient for name, gradient in expected.items() if gradient.norm() > 1e-9}
        apart = [(gradients[name] - gradient).norm() / gradient.norm() for name, gradient in wanted.items()]
        errors.append(torch.stack(apart).square().mean().sqrt())
    assert errors[0] < 1.3 * errors[1]
    assert errors[0] < 0.2


def test_200_steps_in_bfloat16_lose_what_those_in_float32_lose():
    curves = []
    for enabled in (False, True):
        model = make_model().train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        generator, losses = torch.Generator().manual_seed(2), []
        for _ in range(200):
            pixels = torch.randn(2, 6, 1, 16, 16, generator=generator)
            labels = (pixels[:, 0, 0] > 0).long() + (pixels[:, 1, 0] > 0).long()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss = model(pixels, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        curves.append(torch.stack(losses))
    expected, found = curves
    assert expected[-20:].mean() < 0.9 * expected[:20].mean()
    assert ((found - expected).abs() < 0.02 * expected).all()


@pytest.mark.parametrize("convs", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_convolution_in_place_of_tiles(monkeypatch, convs, dtype):
    """The way of a GPU, on the CPU: the same values."""
    monkeypatch.setattr("prithvi_hf.models.prithvi.fused_upsampling_prithvi._takes_strips", lambda _: False)
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


@pytest.mark.parametrize(("smallest", "calls"), [(0, 0), (10**15, 1)])
def test_a_small_training_step_calls_the_modules(monkeypatch, smallest, calls):
    monkeypatch.setattr(fused_upsampling_prithvi, "SMALLEST_STEP", smallest)
    counted = count_neck_calls(monkeypatch)
    model = make_model().train()
    pixels, labels = batch()
    model(pixels, labels=labels).loss.backward()
    assert len(counted) == calls
    with torch.no_grad():
        model.eval()(pixels)
    assert len(counted) == calls  # inference is fused however small it is
