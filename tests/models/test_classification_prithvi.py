"""Classification of images: logits of any size and date, the losses of one class and of several, loading."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForImageClassification

from prithvi_hf import PrithviForImageClassification, PrithviModel
from tests.models.test_modeling_prithvi import small_config


NAN = float("nan")


def small_classifier(**overrides) -> PrithviForImageClassification:
    torch.manual_seed(0)
    return PrithviForImageClassification(small_config(**{"num_labels": 3, **overrides})).eval()


@pytest.mark.parametrize("shape", [(32, 32), (48, 16), (40, 23), (8, 8)])
@pytest.mark.parametrize("frames", [1, 2])
def test_the_logits_are_a_linear_layer_on_the_mean_of_all_patches_of_an_image_of_any_size(shape, frames):
    model, pixels = small_classifier(), torch.randn(2, 6, frames, *shape)
    logits = model(pixels).logits
    padding = (0, -shape[1] % 16, 0, -shape[0] % 16)
    if min(shape) >= 16:  # torch reflects no further than once
        padded = nn.functional.pad(pixels.flatten(1, 2), padding, mode="reflect").unflatten(1, (6, frames))
        tokens = model.prithvi(padded).last_hidden_state[:, 1:]
        assert torch.allclose(logits, tokens.mean(dim=1) @ model.classifier.weight.T, atol=1e-6)
    assert logits.shape == (2, 3)
    assert logits.isfinite().all()


@pytest.mark.parametrize(("loss", "gamma"), [("cross_entropy", 0.0), ("focal", 2.0)])
def test_the_loss_of_one_class_per_image_leaves_ignored_images_out(loss, gamma):
    model = small_classifier(loss=loss, class_weights=[1.0, 2.0, 0.5])
    labels = torch.tensor([0, 1, -100, 2])
    outputs = model(torch.randn(4, 6, 1, 32, 32), labels=labels)
    chosen = outputs.logits.log_softmax(dim=1)[[0, 1, 3], [0, 1, 2]]
    expected = (torch.tensor([1.0, 2.0, 0.5]) * (1 - chosen.exp()) ** gamma * -chosen).sum() / 3
    assert torch.allclose(outputs.loss, expected)
    assert model.config.problem_type == "single_label_classification"
    assert model.count_loss_items(labels) == 3


@pytest.mark.parametrize("unknown", [NAN, -1.0])
def test_the_loss_of_several_classes_per_image_leaves_unknown_ones_out(unknown):
    model = small_classifier(class_weights=[1.0, 3.0, 1.0])
    labels = torch.tensor([[1.0, 0.0, unknown], [0.0, unknown, 1.0]])
    outputs = model(torch.randn(2, 6, 1, 32, 32), labels=labels)
    probabilities = outputs.logits.sigmoid()
    terms = [probabilities[0, 0], 1 - probabilities[0, 1], 1 - probabilities[1, 0], probabilities[1, 2]]
    expected = -(terms[0].log() + 3 * terms[1].log() + terms[2].log() + terms[3].log()) / 4
    assert torch.allclose(outputs.loss, expected)
    outputs.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.classifier.parameters())
    assert model.config.problem_type == "multi_label_classification"
    assert model.count_loss_items(labels) == 4


@pytest.mark.parametrize("labels", [torch.full((4,), -100), torch.full((4, 3), NAN)])
def test_a_batch_without_a_label_costs_nothing(labels):
    outputs = small_classifier()(torch.randn(4, 6, 1, 32, 32), labels=labels)
    assert outputs.loss == 0


@pytest.mark.parametrize("labels", [torch.tensor([0, 1, 2, 1]), torch.tensor([[1.0, 0.0, NAN]]).repeat(4, 1)])
def test_batches_of_one_optimisation_step_divided_by_the_whole_count_make_the_loss_of_the_whole(labels):
    model, pixels = small_classifier(), torch.randn(4, 6, 1, 32, 32)
    count = model.count_loss_items(labels)
    parts = [
        model(pixels[part], labels=labels[part], num_items_in_batch=count).loss for part in (slice(0, 1), slice(1, 4))
    ]
    assert torch.allclose(sum(parts), model(pixels, labels=labels).loss)


@pytest.mark.parametrize(
    ("options", "labels", "message"),
    [
        ({"problem_type": "regression"}, torch.rand(2, 2), r"Expected labels of shape \(2, 3\)"),
        ({"loss": "dice"}, None, "cross_entropy or focal"),
        ({"problem_type": "multi_label_classification"}, torch.tensor([1, 2]), r"Expected labels of shape \(2, 3\)"),
        ({"problem_type": "single_label_classification"}, torch.rand(2, 3), r"Expected labels of shape \(2,\)"),
    ],
)
def test_what_does_not_fit_is_refused(options, labels, message):
    with pytest.raises(ValueError, match=message):
        small_classifier(**options)(torch.randn(2, 6, 1, 32, 32), labels=labels)


def test_a_regression_gives_values_of_whole_images_in_the_unit_of_the_labels():
    model = small_classifier(problem_type="regression", num_labels=1, target_mean=50.0, target_std=10.0)
    labels = torch.tensor([40.0, NAN, 65.0])
    outputs = model(torch.randn(3, 6, 1, 32, 32), labels=labels)
    errors = (outputs.logits[:, 0] - labels) / 10
    assert torch.allclose(outputs.loss, (errors[0] ** 2 + errors[2] ** 2) / 2)
    assert (outputs.logits - 50).abs().max() < 50
    assert model.count_loss_items(labels) == 2


def test_a_backbone_gives_its_encoder_and_the_head_is_reported_as_new(tmp_path):
    torch.manual_seed(1)
    backbone = PrithviModel(small_config()).eval()
    backbone.save_pretrained(tmp_path)
    model, info = AutoModelForImageClassification.from_pretrained(
        tmp_path, id2label={0: "forest", 1: "water", 2: "town"}, output_loading_info=True
    )
    assert isinstance(model, PrithviForImageClassification)
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    assert torch.equal(model.prithvi.layers[0].mlp.fc1.weight, backbone.layers[0].mlp.fc1.weight)
    with pytest.raises(ValueError, match="found the backbone"):
        model.check_trained()
    model.freeze_backbone()
    assert {name for name, weight in model.named_parameters() if weight.requires_grad} == set(info["missing_keys"])
    model.save_pretrained(tmp_path / "trained")
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "trained")
    again.check_trained()
    pixels = torch.randn(1, 6, 1, 32, 32)
    assert torch.equal(again.eval()(pixels).logits, model.eval()(pixels).logits)


def test_dates_and_places_reach_the_encoder():
    model = small_classifier(coords_encoding=["time", "location"], num_frames=2)
    pixels = torch.randn(1, 6, 2, 32, 32)
    coords = {
        "temporal_coords": torch.tensor([[[2021.0, 100.0], [2021.0, 200.0]]]),
        "location_coords": torch.tensor([[45.0, 9.0]]),
    }
    plain = model(pixels).logits
    for name, values in coords.items():
        assert not torch.allclose(model(pixels, **{name: values}).logits, plain), name


def test_training_with_gradient_checkpointing_and_bfloat16_learns_a_class():
    model = small_classifier().train()
    model.activation_checkpointing_enable()
    pixels, labels = torch.randn(6, 6, 1, 32, 32), torch.arange(6) % 3
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(pixels, labels=labels).loss
        assert loss.dtype == torch.float32
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
