"""The geospatial neck against the original's values, its sizes, and models that have one."""

import copy
import math
import re

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from torch.utils._pytree import tree_map

from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation
from prithvi_hf.models.prithvi.decode_heads_prithvi import (
    HEADS,
    NECKS,
    PrithviGeospatialNeck,
    PrithviNeck,
    PrithviPyramidConvolution,
    find_necks,
    lay_out_tokens,
    resize,
)
from tests.golden import assert_matches, read_golden
from tests.upsampling_factory import count_neck_calls


def geospatial_config(**overrides) -> PrithviConfig:
    values = {
        "neck": "geospatial",
        "image_size": 32,
        "num_frames": 1,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "head_hidden_size": 8,
    }
    return PrithviConfig(**{**values, **overrides})


def our_name(name: str) -> str:
    """The name here of a tensor of the original neck, as the class documents it."""
    block, part, rest = re.fullmatch(r"layers\.(\d+)\.(\d+)\.(.+)", name).groups()
    if part == "0":
        return f"upsample_blocks.{block}.conv_transpose.{rest}"
    index, tensor = rest.split(".")
    module = ("convolution", "normalization")[int(index)]
    return f"upsample_blocks.{block}.layers.{int(part) - 1}.{module}.{tensor}"


@pytest.fixture
def golden(golden_dir):
    torch.set_float32_matmul_precision("highest")
    return read_golden(golden_dir, "v1_geospatial_neck")


@pytest.fixture
def golden_neck(golden) -> PrithviGeospatialNeck:
    kwargs = golden.config["kwargs"]
    names = ("first_conv_channels", "channel_reduction_factor", "num_convs_per_upscale")
    config = geospatial_config(hidden_size=kwargs["embed_dim"], **{name: kwargs[name] for name in names})
    neck = PrithviGeospatialNeck(config)
    neck.load_state_dict({our_name(name): tensor for name, tensor in golden.group("sd").items()}, strict=True)
    return neck


def test_geospatial_neck_matches_the_original(golden, golden_neck):
    with torch.no_grad():
        features = golden_neck.eval()(golden["in_.tokens"], (4, 4))
    assert features.shape == (2, 4, 64, 64)
    assert_matches(features[..., ::4, ::4], golden["out.map"])


def test_geospatial_neck_training_matches_the_original(golden, golden_neck):
    features = golden_neck.train()(golden["in_.tokens"], (4, 4))
    assert_matches(features[..., ::8, ::8], golden["out.train.map_probe"])
    features.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in golden_neck.named_parameters()}
    assert len(golden.group("grad")) == 3
    for name, expected in golden.group("grad").items():
        assert_matches(gradients[our_name(name)], expected)


def test_the_whole_segmentor_takes_the_neck_of_the_original(golden, golden_neck):
    config = geospatial_config(hidden_size=64, first_conv_channels=32)
    model = PrithviForSemanticSegmentation(config).eval()
    state = {f"neck.{our_name(name)}": tensor for name, tensor in golden.group("sd").items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert not any(name.startswith("neck.") for name in missing)
    with torch.no_grad():
        assert_matches(model.neck(golden["in_.tokens"], (4, 4))[..., ::4, ::4], golden["out.map"])


@pytest.mark.parametrize("neck", ["conv_transpose", "geospatial"])
def test_frames_are_channels_in_the_original_order(neck):
    """Channel `c * T + t` of the map that enters the first transposed convolution is feature c of frame t."""
    frames, rows, columns, width = 3, 2, 4, 32
    module = NECKS[neck](geospatial_config(neck=neck, num_frames=frames, neck_hidden_size=8))
    grid = torch.randn(2, frames, rows, columns, width)
    tokens = torch.cat([torch.full((2, 1, width), torch.nan), grid.reshape(2, -1, width)], dim=1)
    entered = []
    module.upsample_blocks[0].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    assert module(tokens, (rows, columns)).shape[-2:] == (16 * rows, 16 * columns)
    for channel, frame in ((0, 0), (0, 2), (5, 1), (31, 2)):
        assert torch.equal(entered[0][:, channel * frames + frame], grid[:, frame, :, :, channel])


@pytest.mark.parametrize(
    ("values", "channels"),
    [
        ({}, [16, 8, 4, 2]),
        ({"num_frames": 3}, [48, 24, 12, 6]),
        ({"first_conv_channels": 30, "channel_reduction_factor": 3}, [30, 10, 3, 1]),
        ({"first_conv_channels": 5, "channel_reduction_factor": 1}, [5, 5, 5, 5]),
        ({"patch_size": [2, 16, 16], "num_frames": 4}, [32, 16, 8, 4]),
    ],
)
def test_channels_of_each_block(values, channels):
    config = geospatial_config(**values)
    neck = PrithviForSemanticSegmentation(config).neck
    assert [block.conv_transpose.out_channels for block in neck.upsample_blocks] == channels
    assert config.neck_output_size == channels[-1]


@pytest.mark.parametrize("convs", [1, 3])
def test_convolutions_after_each_enlargement(convs):
    neck = PrithviGeospatialNeck(geospatial_config(num_convs_per_upscale=convs))
    assert [len(block.layers) for block in neck.upsample_blocks] == [convs] * 4
    kinds = [type(module) for module in neck.upsample_blocks[0].modules() if not list(module.children())]
    assert kinds == [nn.ConvTranspose2d, *[nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * convs]


def test_the_default_neck_is_the_other_one():
    model = PrithviForSemanticSegmentation(geospatial_config(neck="conv_transpose", first_conv_channels=4))
    assert type(model.neck) is PrithviNeck
    assert model.config.neck_output_size == 32


def test_fresh_weights_are_spread():
    torch.manual_seed(0)
    model = PrithviForSemanticSegmentation(geospatial_config(hidden_size=64, num_convs_per_upscale=2))
    block = model.neck.upsample_blocks[0]
    convolution, transposed = block.layers[1].convolution, block.conv_transpose
    assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 32)), rel=0.1)
    assert transposed.weight.abs().max() <= 1 / math.sqrt(transposed.weight[0].numel()) + 1e-7
    assert torch.equal(convolution.bias, torch.zeros(32))
    assert torch.equal(block.layers[0].normalization.weight, torch.ones(32))
    pixels = torch.randn(2, 6, 1, 32, 32)
    features = model.eval().neck(model.prithvi(pixels).last_hidden_state, (2, 2))
    assert 0.01 < features.std() < 10


def test_a_saved_model_loads_as_it_was(tmp_path):
    model = PrithviForSemanticSegmentation(geospatial_config(num_convs_per_upscale=2)).train()
    pixels, labels = torch.randn(2, 6, 1, 32, 32), torch.randint(0, 2, (2, 32, 32))
    model(pixels, labels=labels).loss.backward()  # moves the running statistics
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval().save_pretrained(tmp_path)
    loaded = PrithviForSemanticSegmentation.from_pretrained(tmp_path).eval()
    assert type(loaded.neck) is PrithviGeospatialNeck
    assert torch.equal(loaded(pixels).logits, model(pixels).logits)


def test_a_model_with_the_other_neck_gives_its_encoder(tmp_path):
    start = PrithviForSemanticSegmentation(geospatial_config(neck="conv_transpose"))
    start.save_pretrained(tmp_path)
    model = PrithviForSemanticSegmentation.from_pretrained(
        tmp_path, neck="geospatial", first_conv_channels=16, ignore_mismatched_sizes=True
    )
    for name, tensor in start.prithvi.state_dict().items():
        assert torch.equal(model.prithvi.state_dict()[name], tensor)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert model(torch.randn(1, 6, 1, 32, 32)).logits.isfinite().all()


class ToyHead(nn.Module):
    """The least that a decode head is: made from a configuration, a map in, logits out."""

    def __init__(self, config: PrithviConfig) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(config.neck_output_size, config.num_labels, kernel_size=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.classifier(features)


@pytest.mark.parametrize("neck", ["conv_transpose", "geospatial"])
def test_another_head_is_a_class_and_a_line_in_the_registry(tmp_path, monkeypatch, neck):
    """It trains, saves and loads, and the fused operator, which is of the "fcn" head, gives way."""
    with pytest.raises(StrictDataclassError, match=r"decode_head must be one of fcn, .*got 'toy'"):
        geospatial_config(decode_head="toy")
    monkeypatch.setitem(HEADS, "toy", ToyHead)
    monkeypatch.setattr("prithvi_hf.models.prithvi.fused_upsampling_prithvi.SMALLEST_STEP", 0)
    calls = count_neck_calls(monkeypatch)
    torch.manual_seed(0)
    config = geospatial_config(neck=neck, neck_hidden_size=8, decode_head="toy", num_labels=3)
    model = PrithviForSemanticSegmentation(config).train()
    assert type(model.decode_head) is ToyHead
    pixels, labels = torch.randn(2, 6, 1, 32, 32), torch.randint(0, 3, (2, 32, 32))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model.decode_head.classifier.weight.detach().clone()
    model(pixels, labels=labels).loss.backward()
    optimizer.step()
    assert not torch.equal(model.decode_head.classifier.weight, before)
    model.eval().save_pretrained(tmp_path)
    loaded = PrithviForSemanticSegmentation.from_pretrained(tmp_path).eval()
    assert type(loaded.decode_head) is ToyHead
    with torch.no_grad():
        assert torch.equal(loaded(pixels).logits, model(pixels).logits)
    assert len(calls) == (3 if neck == "conv_transpose" else 0)


@pytest.mark.parametrize(("head", "neck"), [(head, neck) for head in HEADS for neck in find_necks(HEADS[head])])
def test_every_weight_that_is_trained_gets_a_gradient(head, neck):
    """Checkpointing on several processes waits for each of them."""
    options = {"decode_head": head, "neck": neck, "unet_channels": [8, 8, 8, 8], "num_hidden_layers": 4}
    model = PrithviForSemanticSegmentation(geospatial_config(**options)).train()
    model(torch.randn(2, 6, 1, 64, 64), labels=torch.zeros(2, 64, 64, dtype=torch.long)).loss.backward()
    weights = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert weights == {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert {name for name in weights if name.startswith("prithvi.")}


@pytest.mark.parametrize("sizes", [((8, 8), (4, 4), (2, 2), (1, 1)), ((12, 9), (6, 5), (3, 3), (2, 1)), ((3, 3),)])
def test_convolving_before_resizing_gives_the_same_map_and_gradients(sizes):
    torch.manual_seed(0)
    layer = PrithviPyramidConvolution(len(sizes) * 3, 5, 3, padding=1).double()
    maps = [torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True) for size in sizes]
    features = torch.cat([resize(feature, maps[0]) for feature in maps], dim=1)
    wanted = nn.functional.conv2d(features, layer.weight, layer.bias, padding=1)
    found, weights = layer(maps), torch.randn_like(wanted)
    torch.testing.assert_close(found, wanted)
    inputs = [*maps, layer.weight, layer.bias]
    for ours, theirs in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((wanted * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_under_autocast_the_maps_are_resized_first():
    torch.manual_seed(0)
    layer = PrithviPyramidConvolution(6, 5, 3, padding=1)
    maps = [torch.randn(1, 3, 8, 8), torch.randn(1, 3, 2, 2)]
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(maps).dtype == torch.bfloat16


def test_an_adapter_may_wrap_the_convolution_of_the_pyramid():
    peft = pytest.importorskip("peft")
    options = {"decode_head": "upernet", "num_hidden_layers": 4}
    model = PrithviForSemanticSegmentation(geospatial_config(neck=None, **options)).eval()
    pixels = torch.randn(2, 6, 1, 64, 64)
    expected = model(pixels).logits
    config = peft.LoraConfig(r=2, target_modules=["pyramid_bottleneck.convolution"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    found = adapted(pixels).logits
    assert (found - expected).abs().max() > 1e-3
    torch.testing.assert_close(adapted.merge_and_unload()(pixels).logits, found)


def test_tokens_become_maps_as_the_original_lays_them_in_memory():
    """One frame is a view of the tokens; the frames of several follow each other, channels first."""
    tokens = torch.arange(1.0, 1 + 2 * 13 * 16).view(2, 13, 16)
    one, two = lay_out_tokens(tokens, (3, 4)), lay_out_tokens(tokens, (3, 2))
    assert one.data_ptr() == tokens[:, 1:].data_ptr()
    assert torch.equal(one[:, :, 1, 2], tokens[:, 1 + 6])
    assert two.is_contiguous()
    assert torch.equal(two[:, :, 1, 1], torch.cat([tokens[:, 1 + 3], tokens[:, 1 + 6 + 3]], dim=1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("head", "neck"), [(head, neck) for head in HEADS for neck in find_necks(HEADS[head])])
def test_every_module_is_right_in_half_precision(head, neck, dtype):
    """Each one by itself: kernels of half precision were wrong on CPUs for whole classes of convolutions."""
    torch.manual_seed(0)
    layers = {"num_hidden_layers": 4, "head_hidden_size": 32, "classifier_dropout": 0.0}
    model = PrithviForSemanticSegmentation(geospatial_config(decode_head=head, neck=neck, **layers)).eval()
    calls = {}

    def keep(module, given, output):
        calls[module] = given, output

    for module in model.modules():
        if module._parameters and not list(module.children()):
            module.register_forward_hook(keep)
    with torch.no_grad():
        model(torch.randn(2, 6, 1, 64, 96))
        assert {model.prithvi.embeddings.patch_embeddings, model.decode_head.classifier} & set(calls)
        for module, (given, expected) in list(calls.items()):  # a copy has the hook too
            halved = tree_map(lambda one: one.to(dtype) if isinstance(one, torch.Tensor) else one, given)
            found = copy.deepcopy(module).to(dtype)(*halved)
            assert found.dtype == dtype
            assert (found - expected).norm() < 0.01 * expected.norm(), module
