"""The losses against mmsegmentation's, and what holds for each of them."""

import pytest
import torch
from torch import nn

from prithvi_hf.models.prithvi.loss_prithvi import (
    cross_entropy_loss,
    dice_loss,
    focal_loss,
    masked_dice_loss,
)
from tests.golden import assert_matches, read_golden


LOSSES = [cross_entropy_loss, focal_loss, dice_loss, masked_dice_loss]
# The original's Dice counts ignored pixels in its denominator; what follows holds for the others.
MASKING_LOSSES = [cross_entropy_loss, focal_loss, masked_dice_loss]


def random_batch(ignored=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 9, 7, generator=generator, requires_grad=True)
    labels = torch.randint(0, 3, (2, 9, 7), generator=generator)
    return logits, labels.masked_fill(torch.rand(2, 9, 7, generator=generator) < ignored, -100)


def gradient(loss, logits):
    return torch.autograd.grad(loss, logits)[0]


def test_cross_entropy_is_that_of_the_original(golden_dir):
    golden = read_golden(golden_dir, "losses_mmseg")
    weights = golden.config["cfg"]["ce_w_avg"]["class_weight"]
    logits = golden["in_.logits"].clone().requires_grad_()
    loss = cross_entropy_loss(logits, golden["in_.label"], weights, ignore_index=-1)
    assert_matches(loss, golden["out.ce_w_avg"])
    assert_matches(gradient(loss, logits), golden["out.ce_w_avg.grad"])


def test_dividing_by_all_pixels_is_the_original_without_avg_non_ignore(golden_dir):
    golden = read_golden(golden_dir, "losses_mmseg")
    weights = golden.config["cfg"]["ce_w_noavg"]["class_weight"]
    logits, labels = golden["in_.logits"].clone().requires_grad_(), golden["in_.label"]
    loss = cross_entropy_loss(logits, labels, weights, -1, num_items_in_batch=labels.numel())
    assert_matches(loss, golden["out.ce_w_noavg"])
    assert_matches(gradient(loss, logits), golden["out.ce_w_noavg.grad"])


@pytest.mark.parametrize("name", ["dice_ign_m1", "dice_ign_1", "dice_ign_255", "dice_weighted"])
def test_dice_is_that_of_the_original(golden_dir, name):
    golden = read_golden(golden_dir, "losses_mmseg")
    options = golden.config["cfg"][name]
    logits = golden["in_.logits"].clone().requires_grad_()
    loss = dice_loss(logits, golden["in_.label"], options.get("class_weight"), options["ignore_index"])
    loss = options["loss_weight"] * loss
    assert_matches(loss, golden[f"out.{name}"])
    assert_matches(gradient(loss, logits), golden[f"out.{name}.grad"])


def test_dice_takes_our_ignore_index_as_the_original_takes_its_own(golden_dir):
    golden = read_golden(golden_dir, "losses_mmseg")
    labels = golden["in_.label"]
    loss = dice_loss(golden["in_.logits"], labels.masked_fill(labels == -1, -100))
    assert_matches(loss, golden["out.dice_ign_m1"])


@pytest.mark.parametrize("loss_function", LOSSES)
def test_half_precision_logits_are_summed_in_float32(loss_function):
    logits = torch.randn(1, 2, 300, 300, dtype=torch.float16)
    labels = torch.randint(0, 2, (1, 300, 300))
    loss = loss_function(logits, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, loss_function(logits.float(), labels))


@pytest.mark.parametrize("loss_function", MASKING_LOSSES)
def test_a_batch_without_a_valid_pixel_is_zero(loss_function):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = loss_function(logits, torch.full((2, 4, 4), -100))
    assert loss.item() == 0
    assert torch.equal(gradient(loss, logits), torch.zeros_like(logits))


def test_a_batch_without_a_valid_pixel_still_moves_the_original_dice():
    """A quirk that is kept: probabilities of ignored pixels stay in the denominator."""
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = dice_loss(logits, torch.full((2, 4, 4), -100))
    assert loss.isfinite()
    assert gradient(loss, logits).abs().max() > 0


@pytest.mark.parametrize("loss_function", MASKING_LOSSES)
def test_ignored_pixels_have_no_gradient_and_no_say(loss_function):
    logits, labels = random_batch()
    ignored = (labels == -100).unsqueeze(1)
    found = gradient(loss_function(logits, labels), logits)
    assert torch.all(found.masked_select(ignored) == 0)
    assert found.masked_select(~ignored).abs().min() > 0
    other = torch.where(ignored, torch.full_like(logits, 7.0) * torch.arange(3).view(1, 3, 1, 1), logits)
    assert torch.equal(loss_function(other, labels), loss_function(logits, labels))


def test_masked_dice_survives_logits_that_are_no_numbers_at_ignored_pixels():
    logits, labels = random_batch()
    expected = masked_dice_loss(logits, labels)
    broken = logits.detach().masked_fill((labels == -100).unsqueeze(1), float("nan")).requires_grad_()
    loss = masked_dice_loss(broken, labels)
    assert torch.equal(loss, expected)
    assert gradient(loss, broken).isfinite().all()


def test_both_dice_losses_agree_where_nothing_is_ignored():
    logits, labels = random_batch(ignored=0.0)
    for weights in (None, [0.5, 1.0, 3.0]):
        torch.testing.assert_close(masked_dice_loss(logits, labels, weights), dice_loss(logits, labels, weights))


def test_masked_dice_is_the_dice_of_the_valid_pixels():
    """Cutting ignored rows off leaves the loss as it is."""
    logits, labels = random_batch(ignored=0.0)
    labels[:, 5:] = -100
    torch.testing.assert_close(masked_dice_loss(logits, labels), dice_loss(logits[:, :, :5], labels[:, :5]))


def test_masked_dice_skips_images_without_a_valid_pixel():
    logits, labels = random_batch(ignored=0.0)
    labels[0] = -100
    loss = masked_dice_loss(logits, labels)
    torch.testing.assert_close(loss, masked_dice_loss(logits[1:], labels[1:]))
    assert torch.all(gradient(loss, logits)[0] == 0)


def test_an_absent_class_costs_the_probability_it_is_given():
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    certain = torch.tensor([40.0, -40.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert masked_dice_loss(certain, labels).item() == 0
    torch.testing.assert_close(
        masked_dice_loss(torch.zeros(1, 2, 4, 4), labels),
        torch.tensor(((1 - 17 / 21) + (1 - 1 / 5)) / 2),  # p = 1/2 on 16 pixels
    )


@pytest.mark.parametrize("weights", [None, [0.3, 0.7, 1.5]])
def test_focal_without_gamma_is_the_cross_entropy(weights):
    logits, labels = random_batch()
    focal, plain = focal_loss(logits, labels, weights, gamma=0.0), cross_entropy_loss(logits, labels, weights)
    torch.testing.assert_close(focal, plain)
    torch.testing.assert_close(gradient(focal, logits), gradient(plain, logits))


def test_focal_is_its_formula():
    logits, labels = random_batch()
    weights = torch.tensor([0.3, 0.7, 1.5])
    total = 0.0
    for scores, label in zip(logits.movedim(1, -1).reshape(-1, 3).tolist(), labels.flatten().tolist(), strict=True):
        if label != -100:
            p = torch.tensor(scores, dtype=torch.float64).softmax(0)[label]
            total -= weights[label].double() * (1 - p) ** 2.5 * p.log()
    expected = (total / (labels != -100).sum()).float()
    torch.testing.assert_close(focal_loss(logits, labels, weights, gamma=2.5), expected)
    torch.testing.assert_close(
        focal_loss(logits, labels, weights, num_items_in_batch=10, gamma=2.5), (total / 10).float()
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_of_certain_pixels_has_a_finite_gradient(gamma):
    logits = torch.tensor([200.0, -200.0]).view(1, 2, 1, 1).repeat(1, 1, 2, 2).requires_grad_()
    for label in (0, 1):
        loss = focal_loss(logits, torch.full((1, 2, 2), label), gamma=gamma)
        assert loss.item() == (0 if label == 0 else 400)
        assert gradient(loss, logits).isfinite().all()


@pytest.mark.parametrize("loss_function", LOSSES)
def test_gradients_are_those_of_the_function(loss_function):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 2, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.randint(0, 3, (2, 2, 3), generator=generator)
    labels[0, 0] = -100
    assert torch.autograd.gradcheck(lambda x: loss_function(x, labels, class_weights=[0.5, 1.0, 2.0]), logits)


@pytest.mark.parametrize("loss_function", MASKING_LOSSES)
def test_a_label_that_is_no_class_is_refused(loss_function):
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        loss_function(torch.randn(1, 3, 4, 4), torch.full((1, 4, 4), 3))


def test_torch_mean_weighs_otherwise(golden_dir):
    golden = read_golden(golden_dir, "losses_mmseg")
    weights = torch.tensor(golden.config["cfg"]["ce_w_avg"]["class_weight"])
    loss = nn.functional.cross_entropy(golden["in_.logits"], golden["in_.label"], weights, ignore_index=-1)
    assert_matches(loss, golden["out.torch_ce_for_contrast"])
    assert abs(loss - golden["out.ce_w_avg"]) > 0.1
