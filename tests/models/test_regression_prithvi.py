"""One value per pixel: units, missing labels, losses, every neck and head, loading."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from prithvi_hf import PrithviConfig, PrithviForPixelRegression, PrithviForSemanticSegmentation, PrithviModel
from prithvi_hf.models.prithvi.loss_prithvi import REGRESSION_LOSSES, regression_loss
from prithvi_hf.models.prithvi.regression_prithvi import PixelRegressionOutput
from tests.models.test_modeling_prithvi import small_config


NAN = float("nan")
UNITS = {"target_mean": 120.0, "target_std": 40.0}
DECODERS = [
    {"neck": "conv_transpose"},
    {"neck": "geospatial", "neck_hidden_size": None},
    {"decode_head": "unet", "unet_channels": [16, 8, 8, 8], "num_hidden_layers": 4},
    {"decode_head": "upernet", "num_hidden_layers": 4, "padding": "both_sides"},
    {"decode_head": "transpose_fcn"},
]


def small_regressor(**overrides) -> PrithviForPixelRegression:
    torch.manual_seed(0)
    return PrithviForPixelRegression(small_config(**overrides)).eval()


@pytest.mark.parametrize("options", DECODERS, ids=lambda options: "-".join(map(str, options.values())))
def test_every_neck_and_head_gives_a_value_per_pixel_of_an_image_of_any_size(options):
    model = small_regressor(num_frames=2, **options)
    outputs = model(torch.randn(2, 6, 2, 40, 23))
    assert isinstance(outputs, PixelRegressionOutput)
    assert outputs.predicted_values.shape == (2, 40, 23)
    assert outputs.predicted_values.isfinite().all()
    assert outputs.loss is None


def test_the_baseline_gives_values_too():
    model = PrithviForPixelRegression(PrithviConfig(architecture="unet", num_frames=1, image_size=32, **UNITS)).eval()
    pixels, labels = torch.randn(2, 6, 1, 40, 23), torch.full((2, 40, 23), 120.0)
    outputs = model(pixels, labels=labels)
    assert torch.allclose(outputs.loss, ((outputs.predicted_values - labels) ** 2).mean() / 40**2)
    assert 100 < outputs.predicted_values.mean() < 140


@pytest.mark.parametrize("labels", [1, 2, 5])
def test_the_number_of_labels_becomes_one_and_the_given_configuration_stays(labels):
    config = small_config(num_labels=labels, class_weights=[1.0] * labels)
    model = PrithviForPixelRegression(config)
    assert model.config.num_labels == 1
    assert config.num_labels == labels
    assert len(config.class_weights) == labels


def test_values_are_in_the_unit_of_the_labels_and_the_loss_is_without_one():
    plain = small_regressor()
    model = small_regressor(**UNITS)
    pixels, standard = torch.randn(2, 6, 1, 32, 32), torch.randn(2, 32, 32)
    outputs = model(pixels, labels=standard * 40 + 120)
    expected = plain(pixels, labels=standard)
    assert torch.allclose(outputs.predicted_values, expected.predicted_values * 40 + 120, atol=1e-4)
    assert torch.allclose(outputs.loss, expected.loss, rtol=1e-5)


def test_the_fused_upsampling_gives_the_values_and_gradients_of_the_modules():
    model = small_regressor(target_mean=7.0, target_std=3.0)
    pixels, labels = torch.randn(1, 6, 1, 64, 64), torch.randn(1, 64, 64)
    results = []
    for fused in (True, False):
        model.set_fused_upsampling(fused)
        model.zero_grad()
        outputs = model(pixels, labels=labels)
        outputs.loss.backward()
        results.append((outputs.predicted_values.detach(), model.decode_head.layers[0].convolution.weight.grad))
    for fused, plain in zip(*results, strict=True):
        assert torch.allclose(fused, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("mse", lambda difference: difference**2),
        ("mae", lambda difference: difference.abs()),
        ("huber", lambda difference: torch.where(difference < 0.5, difference**2 / 2, 0.5 * (difference - 0.25))),
    ],
)
def test_a_loss_is_the_mean_over_the_pixels_that_have_a_label(name, error):
    model = small_regressor(regression_loss=name, huber_delta=0.5)
    pixels, labels = torch.randn(2, 6, 1, 32, 32), torch.randn(2, 32, 32)
    labels[:, :10] = NAN
    outputs = model(pixels, labels=labels)
    difference = (outputs.predicted_values - labels)[:, 10:].abs()
    assert torch.allclose(outputs.loss, error(difference).mean())
    assert model.count_loss_items(labels) == 2 * 22 * 32


@pytest.mark.parametrize("name", REGRESSION_LOSSES)
def test_pixels_without_a_label_have_no_gradient_whatever_was_predicted_there(name):
    values = torch.tensor([[1.0, float("inf"), NAN, 2.0]], requires_grad=True)
    loss = regression_loss(values, torch.tensor([[0.0, NAN, NAN, 2.5]]), name)
    loss.backward()
    assert loss.isfinite()
    assert values.grad[0, 1:3].tolist() == [0, 0]
    assert values.grad[0, 0] > 0 > values.grad[0, 3]
    assert regression_loss(values, torch.full((1, 4), NAN), name) == 0
    assert regression_loss(values.detach().bfloat16(), torch.zeros(1, 4), name).dtype == torch.float32


@pytest.mark.parametrize("name", REGRESSION_LOSSES)
def test_batches_of_one_optimisation_step_divided_by_the_whole_count_make_the_loss_of_the_whole(name):
    model = small_regressor(regression_loss=name)
    pixels, labels = torch.randn(3, 6, 1, 32, 32), torch.randn(3, 32, 32)
    labels[0, :, :25] = NAN
    count = model.count_loss_items(labels)
    parts = [model(pixels[[i]], labels=labels[[i]], num_items_in_batch=count).loss for i in range(3)]
    assert torch.allclose(sum(parts), model(pixels, labels=labels).loss)


def test_in_training_the_auxiliary_head_adds_its_loss():
    model = small_regressor(classifier_dropout=0.0, auxiliary_loss_weight=0.5)
    model.train().prithvi.eval()
    pixels, labels = torch.randn(2, 6, 1, 32, 32), torch.randn(2, 32, 32)
    both = model(pixels, labels=labels).loss
    model.config.auxiliary_loss_weight = 0
    assert both > model(pixels, labels=labels).loss


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regression_loss": "rmse"}, "regression_loss must be one of mse, mae, huber"),
        ({"target_std": 0.0}, "target_std must be a finite number of at least 1e-30"),
        ({"target_mean": NAN}, "target_mean must be a finite number"),
        ({"huber_delta": -1}, "huber_delta must be a finite number of at least 1e-30"),
        ({"target_unit": "Mg\n/ha"}, "target_unit must hold text without control characters"),
    ],
)
def test_a_configuration_that_describes_no_regression_is_refused(options, message):
    with pytest.raises(StrictDataclassError, match=message):
        small_config(**options)


def test_a_backbone_gives_its_encoder_and_a_trained_model_is_read_back(tmp_path):
    PrithviModel(small_config()).save_pretrained(tmp_path)
    options = {"target_mean": 80, "target_std": 25.5, "target_name": "canopy height", "target_unit": "m"}
    model, info = PrithviForPixelRegression.from_pretrained(tmp_path, **options, output_loading_info=True)
    assert {name.split(".")[0] for name in info["missing_keys"]} == {"neck", "decode_head", "auxiliary_head"}
    with pytest.raises(ValueError, match="found the backbone"):
        model.check_trained()
    model.save_pretrained(tmp_path / "trained")
    again = PrithviForPixelRegression.from_pretrained(tmp_path / "trained")
    again.check_trained()
    assert {name: getattr(again.config, name) for name in options} == options
    pixels = torch.randn(1, 6, 1, 32, 32)
    assert torch.equal(again.eval()(pixels).predicted_values, model.eval()(pixels).predicted_values)


def test_a_segmentation_model_gives_its_neck_where_the_classifier_may_differ(tmp_path):
    torch.manual_seed(1)
    trained = PrithviForSemanticSegmentation(small_config(num_labels=3))
    trained.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="model of another task or other classes"):
        PrithviForPixelRegression.from_pretrained(tmp_path)
    model = PrithviForPixelRegression.from_pretrained(tmp_path, ignore_mismatched_sizes=True)
    assert torch.equal(next(model.neck.parameters()), next(trained.neck.parameters()))
    with pytest.raises(ValueError, match=r"found the PrithviForSemanticSegmentation .*: 2 tensors of neck and head"):
        model.check_trained()  # its classifier is random
    assert model.decode_head.classifier.weight.shape[0] == 1


def test_training_with_gradient_checkpointing_and_bfloat16_approaches_the_labels():
    model = small_regressor(target_mean=100.0, target_std=20.0).train()
    model.activation_checkpointing_enable()
    pixels = torch.randn(2, 6, 1, 32, 32)
    labels = 100 + 20 * pixels[:, 0, 0]
    labels[0, :5] = NAN
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = model(pixels, labels=labels)
        assert outputs.predicted_values.dtype == outputs.loss.dtype == torch.float32
        outputs.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(outputs.loss.item())
    assert losses[-1] < 0.8 * losses[0]
