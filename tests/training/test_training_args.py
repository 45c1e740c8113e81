# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The options of a training: defaults, and what is refused before anything is written."""

import pytest
import torch

from prithvi_hf import PrithviTrainingArguments


STOPPING = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}

PLATEAU = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"}


def make_arguments(folder, **options):
    values = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "max_grad_norm": 0.0}
    return PrithviTrainingArguments(output_dir=str(folder), **{**values, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eval_overlap": 1.0}, "eval_overlap must be at least 0 and below 1, found 1.0"),
        ({"eval_overlap": -0.1}, "eval_overlap must be"),
        ({"eval_window": 0}, "must be at least 1, found 0 and 8"),
        ({"eval_window_batch_size": 0}, "must be at least 1, found None and 0"),
        ({"greater_is_better": False}, "greater_is_better must be True where metric_for_best_model is mean_iou"),
        ({"metric_for_best_model": "loss", "greater_is_better": True}, "must be False where .* is loss, found True"),
        ({"lr_scheduler_type": "poly"}, "one of mmseg_poly, step_decay, linear, .*found 'poly'"),
        ({"lr_scheduler_type": "step_decay"}, "step_size .* positive numbers, found {}"),
        ({"lr_scheduler_type": "step_decay", "lr_scheduler_kwargs": {"step_size": 0}}, "positive numbers, found"),
        ({"lr_scheduler_type": "step_decay", "lr_scheduler_kwargs": {"epochs": 1}}, "step_size, gamma, found epochs"),
        ({**PLATEAU, "warmup_steps": 5}, "without warm-up.*found warmup_steps 5"),
        ({**PLATEAU, "lr_scheduler_kwargs": {"metric": "miou"}}, "to watch one of mean_iou.*'miou'"),
        ({**PLATEAU, "lr_scheduler_kwargs": {"mode": "max"}}, "metric, factor, patience.*found mode"),
        ({"early_stopping_patience": 0, **STOPPING}, "early_stopping_patience of at least 1 .*, found 0 with"),
        ({"early_stopping_patience": 2}, "2 with load_best_model_at_end False and eval_strategy no"),
        ({"lr_scheduler_kwargs": {"pwer": 0.9}}, "power, lr_end, warmup_ratio, found pwer"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_arguments(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_defaults_suit_chips(tmp_path):
    arguments = PrithviTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert (arguments.do_train, arguments.do_eval, arguments.do_predict) == (True, True, True)
    assert not arguments.remove_unused_columns
    assert arguments.per_device_eval_batch_size == 1
    assert not arguments.dataloader_pin_memory or torch.cuda.is_available()
    persistent = {"dataloader_persistent_workers": True}
    assert not make_arguments(tmp_path, **persistent).dataloader_persistent_workers
    assert make_arguments(tmp_path, dataloader_num_workers=1, **persistent).dataloader_persistent_workers


def test_without_training_its_strategies_do_not_count(tmp_path):
    """A recipe evaluates during training; the same recipe without training evaluates just what is asked for."""
    recipe = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "load_best_model_at_end": True}
    arguments = make_arguments(tmp_path, do_train=False, do_eval=False, **recipe)
    assert (arguments.do_eval, arguments.eval_strategy, arguments.load_best_model_at_end) == (False, "no", False)
    assert make_arguments(tmp_path, **recipe).eval_strategy == "steps"
    assert make_arguments(tmp_path, do_train=False, **PLATEAU).eval_strategy == "no"


def test_the_schedule_of_an_older_recipe_is_not_another_formula(tmp_path):
    """`polynomial` was the original's schedule, with a warmup_ratio; now it is transformers' own."""
    older = {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 0.9, "warmup_ratio": 0.1}}
    with pytest.raises(ValueError, match="lr_scheduler_type: mmseg_poly"):
        make_arguments(tmp_path, **older)
    assert make_arguments(tmp_path, **older | {"lr_scheduler_type": "mmseg_poly"}).lr_scheduler_type == "mmseg_poly"
    stock = {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 0.9, "lr_end": 1e-6}}
    assert make_arguments(tmp_path, **stock).lr_scheduler_type == "polynomial"
    assert make_arguments(tmp_path).lr_scheduler_type == "mmseg_poly"


def test_half_precision_on_a_machine_without_a_gpu_needs_no_other_option(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    for option in ("bf16", "bf16_full_eval"):
        assert PrithviTrainingArguments(output_dir=str(tmp_path), **{option: True}).use_cpu


def test_the_log_has_its_own_default(tmp_path):
    """What is evaluated how often does not follow from it."""
    arguments = make_arguments(tmp_path, eval_strategy="steps")
    assert (arguments.logging_steps, arguments.eval_steps) == (10, 500)
    assert make_arguments(tmp_path, eval_strategy="steps", logging_steps=7).eval_steps == 7
