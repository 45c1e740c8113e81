# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Segmentation losses, as pure functions of logits and labels."""

import torch
from torch import nn


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
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    weight = (
        None if class_weights is None else torch.as_tensor(class_weights, dtype=logits.dtype, device=logits.device)
    )
    total = nn.functional.cross_entropy(logits, labels, weight=weight, ignore_index=ignore_index, reduction="sum")
    count = num_items_in_batch if num_items_in_batch is not None else (labels != ignore_index).sum()
    count = torch.as_tensor(count, device=logits.device).to(logits.dtype)
    return total / (count + torch.finfo(torch.float32).eps)


__all__ = ["cross_entropy_loss"]
