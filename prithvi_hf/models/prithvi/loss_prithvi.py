# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Segmentation losses, as pure functions of logits and labels.

All of them take logits `(batch_size, num_labels, height, width)` and labels `(batch_size, height, width)`, compute in
float32 where the logits are of half precision, and return one number.
"""

import torch
from torch import nn


_SMOOTH = 1.0
"""Added to numerator and denominator of every Dice ratio: a class that is nowhere then costs 0, not 0/0."""


def cross_entropy_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: list[float] | torch.Tensor | None = None,
    ignore_index: int = -100,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Cross entropy, class-weighted, averaged over the *count* of valid pixels.

    The original (mmsegmentation 0.30 with `avg_non_ignore`) divides the weighted sum by the number of valid pixels
    plus the float32 epsilon. torch's own weighted mean divides by the sum of the weights instead, which gives another
    value and another gradient. A batch without a valid pixel gives 0, not NaN.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels, height, width)`): Unnormalised scores.
        labels (`torch.LongTensor` of shape `(batch_size, height, width)`): Class indices or `ignore_index`.
        class_weights (`list[float]` or `torch.Tensor` of shape `(num_labels,)`, *optional*): Weight of each class.
        ignore_index (`int`, defaults to -100): The label that does not count.
        num_items_in_batch (`torch.Tensor` or `int`, *optional*): Valid pixels to divide by instead of those in
            `labels`; the Trainer hands over the count of a whole optimisation step, over all accumulated batches and
            processes, so that how a step is split does not change it.

    Returns:
        `torch.Tensor` of shape `()`, in float32 or wider.
    """
    logits = _at_least_float32(logits)
    weight = _as_weight(class_weights, logits)
    total = nn.functional.cross_entropy(logits, labels, weight=weight, ignore_index=ignore_index, reduction="sum")
    return _over_count(total, labels, ignore_index, num_items_in_batch)


def focal_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    gamma: float = 2.0,
    class_weights: list[float] | torch.Tensor | None = None,
    ignore_index: int = -100,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Multi-class focal loss: cross entropy in which a pixel counts `(1 - p)^gamma`, p being its class's probability.

    Pixels that are already right lose their say (Lin et al., 2017, with a softmax over the classes). It is averaged
    over the count of valid pixels as [`cross_entropy_loss`] is, and equals it where gamma is 0.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels, height, width)`): Unnormalised scores.
        labels (`torch.LongTensor` of shape `(batch_size, height, width)`): Class indices or `ignore_index`.
        gamma (`float`, defaults to 2.0): How much less well-classified pixels count, at least 0.
        class_weights (`list[float]` or `torch.Tensor` of shape `(num_labels,)`, *optional*): Weight of each class.
        ignore_index (`int`, defaults to -100): The label that does not count.
        num_items_in_batch (`torch.Tensor` or `int`, *optional*): As in [`cross_entropy_loss`].

    Returns:
        `torch.Tensor` of shape `()`, in float32 or wider; 0 where no pixel is valid.
    """
    log_probabilities = nn.functional.log_softmax(_at_least_float32(logits), dim=1)
    weight = _as_weight(class_weights, log_probabilities)
    options = {"ignore_index": ignore_index, "reduction": "none"}
    plain = nn.functional.nll_loss(log_probabilities, labels, **options)  # (B, H, W), 0 where ignored
    weighted = nn.functional.nll_loss(log_probabilities, labels, weight, **options)
    # 1 - p without cancellation; kept off 0, where a power below one has no derivative.
    missing = (-torch.expm1(-plain)).clamp(min=torch.finfo(plain.dtype).tiny)
    return _over_count((missing**gamma * weighted).sum(), labels, ignore_index, num_items_in_batch)


def dice_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: list[float] | torch.Tensor | None = None,
    ignore_index: int = -100,
) -> torch.Tensor:
    r"""The original's Dice loss (`DiceLoss` of mmsegmentation 0.30), with its treatment of ignored pixels.

    For an image and a class c with probabilities p and one-hot labels t it is

        1 - (2 sum(p t valid) + 1) / (sum(p^2) + sum(t^2) + 1)

    averaged over images, times the class's weight, summed over the classes and divided by their number. What may
    surprise, and is kept because the burn-scar recipe was trained with it:

    - Ignored pixels leave the numerator alone. In the denominator their probabilities count, and so do their labels,
      as those of the nearest class: below 0 (-100 as well as the original's -1) class 0, above the last class the last
      one. So they pull the probabilities apart from any label, and an image without a valid pixel has a loss and a
      gradient.
    - An `ignore_index` that is a class, 0 to `num_labels - 1`, drops that class's term too; the sum is still divided
      by the number of all classes.

    [`masked_dice_loss`] has neither and is the one to choose for a new model.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels, height, width)`): Unnormalised scores.
        labels (`torch.LongTensor` of shape `(batch_size, height, width)`): Class indices or `ignore_index`.
        class_weights (`list[float]` or `torch.Tensor` of shape `(num_labels,)`, *optional*): Weight of each class.
        ignore_index (`int`, defaults to -100): The label of ignored pixels.

    Returns:
        `torch.Tensor` of shape `()`, in float32 or wider.
    """
    logits = _at_least_float32(logits)
    num_labels = logits.shape[1]
    targets = _one_hot(labels.clamp(0, num_labels - 1), logits)
    valid = (labels != ignore_index).unsqueeze(1)  # (B, 1, H, W)
    per_class = _dice_terms(logits.softmax(dim=1), targets * valid, targets).mean(dim=0)  # (num_labels,)
    if class_weights is not None:
        per_class = per_class * _as_weight(class_weights, logits)
    if 0 <= ignore_index < num_labels:
        per_class = per_class[torch.arange(num_labels, device=logits.device) != ignore_index]
    return per_class.sum() / num_labels


def masked_dice_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: list[float] | torch.Tensor | None = None,
    ignore_index: int = -100,
) -> torch.Tensor:
    """Dice loss in which ignored pixels are in no sum: [`dice_loss`] of the valid pixels alone.

    It is averaged over the images that have a valid pixel; the others contribute nothing. The gradient at an ignored
    pixel is exactly 0, whatever the logits are there. A class that an image does not hold costs what probability it
    is given, and 0 where it is given none.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels, height, width)`): Unnormalised scores.
        labels (`torch.LongTensor` of shape `(batch_size, height, width)`): Class indices or `ignore_index`.
        class_weights (`list[float]` or `torch.Tensor` of shape `(num_labels,)`, *optional*): Weight of each class.
        ignore_index (`int`, defaults to -100): The label of ignored pixels.

    Returns:
        `torch.Tensor` of shape `()`, in float32 or wider; 0 where no pixel is valid.
    """
    logits = _at_least_float32(logits)
    valid = (labels != ignore_index).unsqueeze(1)  # (B, 1, H, W)
    probabilities = logits.masked_fill(~valid, 0).softmax(dim=1) * valid  # filled first: 0 times NaN is NaN
    targets = _one_hot(labels.masked_fill(labels == ignore_index, 0), logits) * valid
    per_class = _dice_terms(probabilities, targets, targets)  # (B, num_labels)
    if class_weights is not None:
        per_class = per_class * _as_weight(class_weights, logits)
    counts = valid.flatten(1).any(dim=1)  # (B,): images with a valid pixel
    return (per_class.mean(dim=1) * counts).sum() / counts.sum().clamp(min=1)


def _dice_terms(probabilities: torch.Tensor, matched: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """One minus the Dice ratio of each image and class, `(batch_size, num_labels)`.

    Args:
        probabilities (`torch.Tensor` of shape `(batch_size, num_labels, height, width)`): Probability of each class.
        matched (`torch.Tensor` of the same shape): One-hot labels as they count in the numerator.
        targets (`torch.Tensor` of the same shape): One-hot labels as they count in the denominator.
    """
    numerator = 2 * (probabilities * matched).sum(dim=(2, 3)) + _SMOOTH
    denominator = (probabilities**2 + targets).sum(dim=(2, 3)) + _SMOOTH
    return 1 - numerator / denominator


def _one_hot(labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Classes `(batch_size, height, width)` as zeros and ones in the shape and dtype of the logits."""
    return torch.zeros_like(logits).scatter_(1, labels.unsqueeze(1), 1.0)


def _at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    """Half precision as float32: a sum over the pixels of an image needs it."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _as_weight(class_weights: list[float] | torch.Tensor | None, logits: torch.Tensor) -> torch.Tensor | None:
    """The class weights on the logits' device, in their dtype."""
    return None if class_weights is None else torch.as_tensor(class_weights, dtype=logits.dtype, device=logits.device)


def _over_count(
    total: torch.Tensor, labels: torch.Tensor, ignore_index: int, count: torch.Tensor | int | None
) -> torch.Tensor:
    """A sum over the number of valid pixels, or over a given number; the epsilon makes an empty sum 0."""
    count = (labels != ignore_index).sum() if count is None else count
    count = torch.as_tensor(count, device=total.device).to(total.dtype)
    return total / (count + torch.finfo(torch.float32).eps)


__all__ = ["cross_entropy_loss", "dice_loss", "focal_loss", "masked_dice_loss"]
