# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Chips per second, waiting for data and memory in the lines of a training's log."""

import json
import time

import psutil
import pytest
import torch
from accelerate import Accelerator

from prithvi_hf.training.throughput import Throughput, find_peak_memory
from tests.training.test_trainer import WINDOW, Chips, make_trainer


def batches(count, size, seconds=0.0):
    for _ in range(count):
        time.sleep(seconds)
        yield {"pixel_values": torch.zeros(size, 6), "labels": torch.zeros(size)}


def test_waiting_is_a_share_of_the_time_without_pauses():
    meter = Throughput(Accelerator(cpu=True))
    assert meter.measure() == {}
    for _ in meter.watch(batches(3, 2, seconds=0.02)):  # waited for 0.06 s, worked for 0.06 s, evaluated for 0.3 s
        time.sleep(0.02)
        with meter.pause():
            time.sleep(0.1)
    found = meter.measure()
    assert 0.2 < found["data_wait"] < 0.8  # 0.14 with the pauses
    assert 20 < found["chips_per_second"] < 51  # 6 chips in 0.12 s or, on a busy machine, a little more
    assert meter.measure() == {}  # it began again


def test_memory_is_the_peak_of_the_process():
    before = find_peak_memory(torch.device("cpu"))
    block = bytearray(300_000_000)
    peak = find_peak_memory(torch.device("cpu"))
    assert before <= psutil.Process().memory_info().rss <= peak + 10_000_000
    del block
    assert find_peak_memory(torch.device("cpu")) >= peak


def test_every_line_of_a_training_has_the_figures_of_all_its_batches(tmp_path):
    """With accumulation: two batches of two chips are one step, and every second step is logged."""
    options = {"max_steps": 4, "logging_steps": 2, "per_device_train_batch_size": 2}
    trainer = make_trainer(
        tmp_path, train=Chips([(WINDOW, WINDOW)] * 8), gradient_accumulation_steps=2, eval_strategy="no", **options
    )
    counted, measure = [], trainer.throughput.measure

    def count():
        counted.append(trainer.throughput._chips)
        return measure()

    trainer.throughput.measure = count
    trainer.train()
    lines = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [line["step"] for line in lines] == [2, 4]
    assert counted == [8, 8]
    for line in lines:
        assert line["chips_per_second"] > 0
        assert 0 <= line["data_wait"] <= 1
        assert line["memory_gb"] > 0.05


@pytest.mark.slow
def test_two_processes_count_the_chips_of_both(trained_by_two):
    """Which the first process alone writes down: what it logs is of both."""
    history = json.loads((trained_by_two.output / "trainer_state.json").read_text())["log_history"]
    lines = [entry for entry in history if "chips_per_second" in entry]
    assert len(lines) == 6
    assert all(0 <= line["data_wait"] <= 1 for line in lines)
