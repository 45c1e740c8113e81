# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The learning rate schedules of the recipes that transformers does not have."""

from collections.abc import Callable
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers.trainer_utils import SchedulerType


MMSEG_POLY, STEP_DECAY = "mmseg_poly", "step_decay"
REDUCE_ON_PLATEAU = str(SchedulerType.REDUCE_ON_PLATEAU.value)
SCHEDULE_OPTIONS = {
    MMSEG_POLY: ("power", "lr_end", "warmup_ratio"),
    STEP_DECAY: ("step_size", "gamma"),
    REDUCE_ON_PLATEAU: ("metric", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps"),
}
"""What `lr_scheduler_kwargs` may set of these values of `lr_scheduler_type`."""


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


def get_step_schedule_with_warmup(
    optimizer: Optimizer, num_warmup_steps: int, num_training_steps: int, step_size: float, gamma: float = 0.1
) -> LambdaLR:
    """Make the schedule of torch's `StepLR`, after a linear warm-up: every `step_size` the rate is multiplied.

    Args:
        optimizer (`torch.optim.Optimizer`): Its groups' learning rates are the base rates.
        num_warmup_steps (`int`): Steps of the warm-up, 0 for none.
        num_training_steps (`int`): Steps in all.
        step_size (`float`): Steps at one rate or, below 1, their fraction of all steps, as `eval_steps` is: 0.08 is 10
            of 125 epochs.
        gamma (`float`, defaults to 0.1): What the rate is multiplied by.
    """
    period = step_size * num_training_steps if step_size < 1 else step_size

    def scale(step: int) -> float:
        warmup = min(1.0, step / num_warmup_steps) if num_warmup_steps else 1.0
        return gamma ** int((step + 1e-6) / period) * warmup  # 0.07 * 100 is 7.000000000000001

    return LambdaLR(optimizer, scale)
