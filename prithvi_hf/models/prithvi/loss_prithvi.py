# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Losses, as pure functions of predictions and labels, and their registries `LOSSES` and `REGRESSION_LOSSES`.

Those of segmentation take logits `(batch_size, num_labels, height, width)` and labels `(batch_size, height, width)`.
All compute in float32 where the predictions are of half precision, and return one number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn


_SMOOTH = 1.0
"""Added to numerator and denominator of every Dice ratio: a class that is nowhere then costs 0, not 0/0."""

ClassWeights = Sequence[float] | torch.Tensor | None


def cross_entropy_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: ClassWeights = None,
    ignore_index: int = -100,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Compute the cross entropy, class-weighted, averaged over the *count* of valid pixels.

    The original (mmsegmentation 0.30 with `avg_non_ignore`) divides the weighted sum by the number of valid pixels
    plus the float32 epsilon. torch's own weighted mean divides by the sum of the weights instead, which gives another
    value and another gradient. A batch without a valid pixel gives 0, not NaN.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels, height, width)`): Unnormalised scores.
        labels (`torch.LongTensor` of shape `(batch_size, height, width)`): Class indices or `ignore_index`.
        class_weights (`list[float]` or `torch.Tensor` of shape `(num_labels,)`, *optional*): Weight of each class.
        ignore_index (`int`, defaults to -100): The label that does not count.
        num_items_in_batch (`torch.Tensor` or `int`, *optional*): What to divide by instead of the count in `labels`,
            valid pixels here and what `count_items` of `LOSSES` counts in general; the Trainer hands over the count of
            a whole optimisation step, over all accumulated batches and processes, so that how a step is split does
            not change it.

    Returns:
        `torch.Tensor` of shape `()`, in float32 or wider.
    """
    logits = _at_least_float32(logits)
    weight = _as_weight(class_weights, logits)
    total = nn.functional.cross_entropy(logits, labels, weight=weight, ignore_index=ignore_index, reduction="sum")
    count = count_valid_pixels(labels, ignore_index) if num_items_in_batch is None else num_items_in_batch
    return _divide_by_count(total, count)


def focal_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: ClassWeights = None,
    ignore_index: int = -100,
    num_items_in_batch: torch.Tensor | int | None = None,
    gamma: float = 2.0,
) -> torch.Tensor:
    """Compute the multi-class focal loss: cross entropy in which a pixel counts `(1 - p)^gamma`.

    p is the probability of the pixel's class, so pixels that are already right count little (Lin et al., 2017, with a
    softmax over the classes). It is averaged over the count of valid pixels as [`cross_entropy_loss`] is, and equals
    it where gamma is 0.

    The arguments are those of [`cross_entropy_loss`], and `gamma`, at least 0: how much less well-classified pixels
    count.
    """
    log_probabilities = nn.functional.log_softmax(_at_least_float32(logits), dim=1)
    plain, weighted = (  # (B, H, W), 0 where ignored
        nn.functional.nll_loss(log_probabilities, labels, weight, ignore_index=ignore_index, reduction="none")
        for weight in (None, _as_weight(class_weights, log_probabilities))
    )
    # 1 - p without cancellation; kept off 0, where a power below one has no derivative.
    missing = (-torch.expm1(-plain)).clamp(min=torch.finfo(plain.dtype).tiny)
    count = count_valid_pixels(labels, ignore_index) if num_items_in_batch is None else num_items_in_batch
    return _divide_by_count((missing**gamma * weighted).sum(), count)


def dice_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: ClassWeights = None,
    ignore_index: int = -100,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    r"""Compute the original's Dice loss (`DiceLoss` of mmsegmentation 0.30), with its treatment of ignored pixels.

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
    The arguments are those of [`cross_entropy_loss`]; `num_items_in_batch` counts images.
    """
    logits = _at_least_float32(logits)
    num_labels = logits.shape[1]
    targets = _one_hot(labels.clamp(0, num_labels - 1), logits)
    valid = (labels != ignore_index).unsqueeze(1)  # (B, 1, H, W)
    terms = _dice_terms(logits.softmax(dim=1), targets * valid, targets)  # (B, num_labels)
    per_class = terms.sum(dim=0) / (len(labels) if num_items_in_batch is None else num_items_in_batch)
    weight = _as_weight(class_weights, logits)
    per_class = per_class if weight is None else per_class * weight
    if 0 <= ignore_index < num_labels:
        per_class = per_class[torch.arange(num_labels, device=logits.device) != ignore_index]
    return per_class.sum() / num_labels


def masked_dice_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: ClassWeights = None,
    ignore_index: int = -100,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Compute a Dice loss in which ignored pixels are in no sum: [`dice_loss`] of the valid pixels alone.

    It is averaged over the images that have a valid pixel; the others contribute nothing. The gradient at an ignored
    pixel is exactly 0, whatever the logits are there. A class that an image does not hold costs what probability it
    is given, and 0 where it is given none.

    The arguments are those of [`cross_entropy_loss`]; `num_items_in_batch` counts images with a valid pixel.
    """
    logits = _at_least_float32(logits)
    valid = (labels != ignore_index).unsqueeze(1)  # (B, 1, H, W)
    probabilities = logits.masked_fill(~valid, 0).softmax(dim=1) * valid  # filled first: 0 times NaN is NaN
    targets = _one_hot(labels.masked_fill(labels == ignore_index, 0), logits) * valid
    per_class = _dice_terms(probabilities, targets, targets)  # (B, num_labels)
    weight = _as_weight(class_weights, logits)
    per_class = per_class if weight is None else per_class * weight
    counts = valid.flatten(1).any(dim=1)  # (B,): images with a valid pixel
    count = counts.sum() if num_items_in_batch is None else torch.as_tensor(num_items_in_batch, device=logits.device)
    return (per_class.mean(dim=1) * counts).sum() / count.clamp(min=1)


def cross_entropy_and_masked_dice_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: ClassWeights = None,
    ignore_index: int = -100,
    num_items_in_batch: torch.Tensor | None = None,
) -> torch.Tensor:
    """Add [`cross_entropy_loss`] and [`masked_dice_loss`], which take the same arguments.

    `num_items_in_batch` holds the counts of both.
    """
    arguments = (logits, labels, class_weights, ignore_index)
    pixels, images = (None, None) if num_items_in_batch is None else num_items_in_batch
    return cross_entropy_loss(*arguments, pixels) + masked_dice_loss(*arguments, images)


def binary_cross_entropy_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    class_weights: ClassWeights = None,
    num_items_in_batch: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Compute the binary cross entropy of each class, averaged over the count of labels that are known.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`): Unnormalised scores.
        labels (`torch.Tensor` of shape `(batch_size, num_labels)`): 1 where an image holds the class, 0 where it does
            not, or a probability; NaN or a negative number where that is unknown, which does not count.
        class_weights (`list[float]` or `torch.Tensor` of shape `(num_labels,)`, *optional*): Weight of each class.
        num_items_in_batch (`torch.Tensor` or `int`, *optional*): What to divide by instead of the count of known
            labels.

    Returns:
        `torch.Tensor` of shape `()`, in float32 or wider. A batch without a known label gives 0.
    """
    logits, known = _at_least_float32(logits), labels >= 0  # NaN is not
    targets = labels.to(logits.dtype).masked_fill(~known, 0)
    weight = _as_weight(class_weights, logits)
    losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, weight, reduction="none")
    total = losses.masked_fill(~known, 0).sum()
    return _divide_by_count(total, known.sum() if num_items_in_batch is None else num_items_in_batch)


def regression_loss(
    values: torch.Tensor,
    labels: torch.Tensor,
    loss: str = "mse",
    num_items_in_batch: torch.Tensor | int | None = None,
    huber_delta: float = 1.0,
) -> torch.Tensor:
    """Compute a loss of values, averaged over the count of labels that are not NaN.

    Args:
        values (`torch.Tensor`): Predictions, of any shape.
        labels (`torch.Tensor` of the same shape): True values in the same unit; NaN where there is none. The gradient
            is exactly 0 there, whatever was predicted.
        loss (`str`, defaults to `"mse"`): A name in `REGRESSION_LOSSES`: `"mse"`, `"mae"`, or `"huber"`, half the
            square of an error up to `huber_delta` and linear from there (Huber, 1964).
        num_items_in_batch (`torch.Tensor` or `int`, *optional*): What to divide by instead of the count of labels.
        huber_delta (`float`, defaults to 1.0): See above.

    Returns:
        `torch.Tensor` of shape `()`, in float32 or wider. A batch without a label gives 0.
    """
    values, missing = _at_least_float32(values), labels.isnan()
    labels = labels.to(values.dtype).masked_fill(missing, 0)
    options = {"delta": huber_delta} if loss == "huber" else {}
    # Filled first: 0 times NaN is NaN.
    total = REGRESSION_LOSSES[loss](values.masked_fill(missing, 0), labels, reduction="sum", **options)
    return _divide_by_count(total, (~missing).sum() if num_items_in_batch is None else num_items_in_batch)


def count_valid_pixels(labels: torch.Tensor, ignore_index: int = -100) -> torch.Tensor:
    """Count the pixels of labels `(batch_size, height, width)` that are not ignored."""
    return (labels != ignore_index).sum()


def count_images(labels: torch.Tensor, ignore_index: int = -100) -> torch.Tensor:
    """Count the images of a batch, whatever their labels."""
    return torch.tensor(len(labels), device=labels.device)


def count_labelled_images(labels: torch.Tensor, ignore_index: int = -100) -> torch.Tensor:
    """Count the images of a batch that have a valid pixel."""
    return (labels != ignore_index).flatten(1).any(dim=1).sum()


def count_pixels_and_images(labels: torch.Tensor, ignore_index: int = -100) -> torch.Tensor:
    """Count valid pixels and images that have one: two numbers."""
    return torch.stack([count_valid_pixels(labels, ignore_index), count_labelled_images(labels, ignore_index)])


@dataclass(frozen=True)
class SegmentationLoss:
    """One entry of `LOSSES`.

    Attributes:
        function: Takes logits, labels, `class_weights`, `ignore_index` and `num_items_in_batch`, and the options. It
            is a sum over a batch divided by a count, so that the parts of a batch can be divided by the whole's.
        count_items: Gives that count of labels and `ignore_index`.
        options: Further parameters of the function by the field of `PrithviConfig` that holds each.
    """

    function: Callable[..., torch.Tensor]
    count_items: Callable[[torch.Tensor, int], torch.Tensor] = count_valid_pixels
    options: dict[str, str] = field(default_factory=dict)

    @property
    def is_sum_over_pixels(self) -> bool:
        """Whether the count is that of valid pixels, which transformers' own Trainer hands over."""
        return self.count_items is count_valid_pixels


LOSSES: dict[str, SegmentationLoss] = {
    "cross_entropy": SegmentationLoss(cross_entropy_loss),
    "dice": SegmentationLoss(dice_loss, count_images),
    "masked_dice": SegmentationLoss(masked_dice_loss, count_labelled_images),
    "focal": SegmentationLoss(focal_loss, options={"gamma": "focal_gamma"}),
    "cross_entropy+masked_dice": SegmentationLoss(cross_entropy_and_masked_dice_loss, count_pixels_and_images),
}
"""The loss of each value of `PrithviConfig.loss`. Another loss is a function and a line here."""

REGRESSION_LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "mse": nn.functional.mse_loss,
    "mae": nn.functional.l1_loss,
    "huber": nn.functional.huber_loss,
}
"""torch's function of each value of `PrithviConfig.regression_loss`, see [`regression_loss`].

All are sums divided by a count: a root of the mean would depend on how a batch is split."""


def _dice_terms(probabilities: torch.Tensor, matched: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Compute one minus the Dice ratio of each image and class, `(batch_size, num_labels)`.

    All are `(batch_size, num_labels, height, width)`: probabilities, and one-hot labels as they count in the numerator
    and in the denominator.
    """
    numerator = 2 * (probabilities * matched).sum(dim=(2, 3)) + _SMOOTH
    denominator = (probabilities**2 + targets).sum(dim=(2, 3)) + _SMOOTH
    return 1 - numerator / denominator


def _one_hot(labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Write classes `(batch_size, height, width)` as zeros and ones in the shape and dtype of the logits."""
    return torch.zeros_like(logits).scatter_(1, labels.unsqueeze(1), 1.0)


def _at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    """Bring half precision to float32: a sum over the pixels of an image needs it."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _as_weight(class_weights: ClassWeights, logits: torch.Tensor) -> torch.Tensor | None:
    """Bring the class weights to the logits' device and dtype."""
    return None if class_weights is None else torch.as_tensor(class_weights, dtype=logits.dtype, device=logits.device)


def _divide_by_count(total: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
    """Divide a sum by a number of pixels; the epsilon makes an empty sum 0."""
    count = torch.as_tensor(count, device=total.device).to(total.dtype)
    return total / (count + torch.finfo(torch.float32).eps)
