"""The cross entropy against mmsegmentation's."""

import torch

from prithvi_hf.loss_prithvi import cross_entropy_loss

from .golden import assert_matches, read_golden


def test_cross_entropy_is_that_of_the_original(golden_dir):
    golden = read_golden(golden_dir, "losses_mmseg")
    weights = golden.config["cfg"]["ce_w_avg"]["class_weight"]
    logits = golden["in_.logits"].clone().requires_grad_()
    loss = cross_entropy_loss(logits, golden["in_.label"], weights, ignore_index=-1)
    assert_matches(loss, golden["out.ce_w_avg"])
    loss.backward()
    assert_matches(logits.grad, golden["out.ce_w_avg.grad"])


def test_dividing_by_all_pixels_is_the_original_without_avg_non_ignore(golden_dir):
    golden = read_golden(golden_dir, "losses_mmseg")
    weights = golden.config["cfg"]["ce_w_noavg"]["class_weight"]
    labels = golden["in_.label"]
    loss = cross_entropy_loss(golden["in_.logits"], labels, weights, -1, num_items_in_batch=labels.numel())
    assert_matches(loss, golden["out.ce_w_noavg"])


def test_a_batch_without_a_valid_pixel_is_zero():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = cross_entropy_loss(logits, torch.full((2, 4, 4), -100))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() == 0


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.randn(1, 2, 300, 300, dtype=torch.float16)
    loss = cross_entropy_loss(logits, torch.zeros(1, 300, 300, dtype=torch.long))
    assert loss.dtype == torch.float32
    assert loss.isfinite()
