# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The schedules of the recipes, step by step."""

import json
import math

import pytest
import torch
from torch import nn
from transformers import get_polynomial_decay_schedule_with_warmup

from prithvi_hf.training.schedule import get_poly_schedule_with_warmup, get_step_schedule_with_warmup
from tests.golden import read_golden


def make_optimizer(rate=1.3e-5):
    return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))]}], lr=rate)


def rates_of(schedule, steps):
    """The learning rate at each step."""
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return rates


def test_the_schedule_is_the_originals(golden_dir):
    expected = json.loads((golden_dir / "lr_schedule.json").read_text())
    optimizer = make_optimizer(expected["base_lr"])
    schedule = get_poly_schedule_with_warmup(
        optimizer,
        expected["warmup_iters"],
        expected["max_iters"],
        power=expected["power"],
        lr_end=expected["min_lr"],
        warmup_ratio=expected["warmup_ratio"],
    )
    rates = rates_of(schedule, expected["max_iters"])
    assert rates == pytest.approx(expected["lr"], rel=1e-9, abs=0)
    shares = read_golden(golden_dir, "lr_schedule")["out.lr_over_base"]
    assert [rate / expected["base_lr"] for rate in rates] == pytest.approx(shares.tolist(), rel=1e-6)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-20)


def test_the_defaults_are_those_of_the_recipes(golden_dir):
    expected = json.loads((golden_dir / "lr_schedule.json").read_text())["lr"]
    assert rates_of(get_poly_schedule_with_warmup(make_optimizer(), 10, 100), 100) == pytest.approx(expected, rel=1e-9)


def test_the_schedule_differs_from_the_stock_polynomial():
    stock = rates_of(get_polynomial_decay_schedule_with_warmup(make_optimizer(), 10, 100, lr_end=0.0), 100)
    own = rates_of(get_poly_schedule_with_warmup(make_optimizer(), 10, 100), 100)
    assert own[10] == pytest.approx(0.9 * stock[10])
    assert max(own) < 0.91 * max(stock)


def test_powers_ends_and_groups():
    optimizer = torch.optim.SGD(
        [{"params": [nn.Parameter(torch.zeros(1))], "lr": 1.0}, {"params": [nn.Parameter(torch.zeros(1))], "lr": 0.1}]
    )
    schedule = get_poly_schedule_with_warmup(optimizer, 0, 10, power=2.0, lr_end=0.01)
    for _ in range(5):
        optimizer.step()
        schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.99 * 0.25 + 0.01, 0.09 * 0.25 + 0.01])
    for _ in range(10):  # beyond the end it stays there
        optimizer.step()
        schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.01, 0.01])


def test_a_learning_rate_of_zero_is_no_error():
    schedule = get_poly_schedule_with_warmup(make_optimizer(0.0), 2, 4, lr_end=0.0)
    assert all(math.isclose(rate, 0.0) for rate in rates_of(schedule, 4))


@pytest.mark.parametrize("step_size", [10, 0.1])
def test_the_step_schedule_is_that_of_torch(step_size):
    stock = rates_of(torch.optim.lr_scheduler.StepLR(make_optimizer(), 10, gamma=0.9), 100)
    own = rates_of(get_step_schedule_with_warmup(make_optimizer(), 0, 100, step_size, gamma=0.9), 100)
    assert own == pytest.approx(stock, rel=1e-12)


def test_the_step_schedule_warms_up():
    rates = rates_of(get_step_schedule_with_warmup(make_optimizer(1.0), 4, 100, 0.07, gamma=0.5), 15)
    assert rates == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1, *[0.5] * 7, 0.25])
