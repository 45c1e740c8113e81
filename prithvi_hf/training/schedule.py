# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The learning rate schedule of the original recipes, which transformers does not have."""

from collections.abc import Callable
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


MMSEG_POLY = "mmseg_poly"
"""Value of `lr_scheduler_type` for this schedule; transformers' own names keep their meaning."""
POLY_OPTIONS = ("power", "lr_end", "warmup_ratio")
"""What `lr_scheduler_kwargs` may set of it."""


def get_poly_schedule_with_warmup(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    power: float = 1.0,
    lr_end: float = 0.0,
    warmup_ratio: float = 1e-6,
) -> LambdaLR:
    """Make the `poly` schedule of mmsegmentation (mmcv 1.7) with its linear warm-up, step by step the original's.

    The warm-up multiplies the already decayed rate. transformers' `polynomial` schedule warms up to the full rate and
    decays from there: after a warm-up of a tenth of the steps it is 11 % higher.

    Args:
        optimizer (`torch.optim.Optimizer`): Its groups' learning rates are the base rates.
        num_warmup_steps (`int`): Steps of the warm-up, 0 for none.
        num_training_steps (`int`): Steps in all.
        power (`float`, defaults to 1.0): Exponent of the decay.
        lr_end (`float`, defaults to 0.0): Rate that the decay ends at.
        warmup_ratio (`float`, defaults to 1e-6): Fraction of the decayed rate that the first step has.
    """

    def scale(step: int, floor: float) -> float:
        # 1) Polynomial decay from 1 to the floor over the whole run; beyond its end the rate stays there.
        factor = max(0.0, 1 - step / max(1, num_training_steps)) ** power * (1 - floor) + floor
        # 2) Linear warm-up, a factor on top of the decay.
        if step < num_warmup_steps:
            factor *= 1 - (1 - step / num_warmup_steps) * (1 - warmup_ratio)
        return factor

    # 3) torch wants factors of each group's base rate, so the end rate becomes a fraction of it.
    rates = [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]
    factors: list[Callable[[int], float]] = [partial(scale, floor=lr_end / rate if rate else 0.0) for rate in rates]
    return LambdaLR(optimizer, factors)
