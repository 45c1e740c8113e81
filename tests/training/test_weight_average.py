# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The running average of the weights: what it is, where it is used, and that a resumed run has the same one."""

import copy
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from prithvi_hf import PrithviForSemanticSegmentation
from prithvi_hf.training.checkpoints import find_damage
from prithvi_hf.training.finetune import find_checkpoint_to_resume
from prithvi_hf.training.weight_average import TRAINED_WEIGHTS
from tests.training.test_trainer import WINDOW, Chips, make_arguments, make_trainer, tiny_model


OPTIONS = {
    **{"max_steps": 6, "warmup_steps": 2, "learning_rate": 0.01, "logging_steps": 1, "ema_decay": 0.6},
    **{"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "metric_for_best_model": "loss"},
    **{"save_strategy": "steps", "save_steps": 3, "eval_strategy": "steps", "eval_steps": 3},
    **{"load_best_model_at_end": True, "save_total_limit": None},
}
CHIPS, VALIDATION = Chips([(WINDOW, WINDOW)] * 4), Chips([(WINDOW, WINDOW)] * 2, seed=1)


class Weights(TrainerCallback):
    """The weights at the start and after every step, as the optimizer left them."""

    def __init__(self):
        self.steps = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.steps.append(copy.deepcopy(model.state_dict()))

    on_step_end = on_train_begin


def train(folder, resume=None, callback=None, **options):
    trainer = make_trainer(folder, tiny_model(), CHIPS, VALIDATION, **{**OPTIONS, **options})
    if callback is not None:
        trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of six steps with checkpoints after three and six, and the weights of its steps."""
    weights = Weights()
    return train(tmp_path_factory.mktemp("whole"), callback=weights, load_best_model_at_end=False), weights.steps


def same(one, other):
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]


def test_the_model_at_the_end_is_the_average_of_the_weights_of_all_steps(whole):
    trainer, steps = whole
    average = copy.deepcopy(steps[0])
    for number, weights in enumerate(steps[1:], start=1):
        decay = min(0.6, (1 + number) / (10 + number))
        for name, value in weights.items():
            average[name] = decay * average[name] + (1 - decay) * value if value.is_floating_point() else value
    found = trainer.model.state_dict()
    torch.testing.assert_close(found, average, rtol=1e-5, atol=1e-6)
    changed = [name for name in found if not torch.allclose(found[name], steps[-1][name])]
    assert "auxiliary_head.layers.0.normalization.running_var" in changed
    assert "decode_head.classifier.weight" in changed


def test_a_checkpoint_holds_the_average_that_was_evaluated_and_what_the_optimizer_goes_on_with(whole, tmp_path):
    trainer, steps = whole
    checkpoint = f"{trainer.args.output_dir}/checkpoint-3"
    same(load_file(f"{checkpoint}/{TRAINED_WEIGHTS}"), steps[3])
    assert find_damage(checkpoint) is None
    loaded = make_trainer(tmp_path, PrithviForSemanticSegmentation.from_pretrained(checkpoint), None, VALIDATION)
    found = loaded.evaluate()
    logged = next(entry for entry in trainer.state.log_history if "eval_loss" in entry and entry["step"] == 3)
    assert found["eval_loss"] == pytest.approx(logged["eval_loss"], rel=1e-6)
    assert found["eval_mean_iou"] == logged["eval_mean_iou"]


def test_a_resumed_run_ends_with_the_same_bits(whole, tmp_path):
    trainer, _ = whole
    checkpoint = shutil.copytree(f"{trainer.args.output_dir}/checkpoint-3", tmp_path / "checkpoint-3")
    resumed = train(tmp_path, resume=str(checkpoint), load_best_model_at_end=False)
    same(resumed.model.state_dict(), trainer.model.state_dict())
    for name in ("model.safetensors", TRAINED_WEIGHTS):
        last = [load_file(f"{run.args.output_dir}/checkpoint-6/{name}") for run in (trainer, resumed)]
        same(*last)


def test_the_best_checkpoint_is_an_average(tmp_path):
    trainer = train(tmp_path)
    same(trainer.model.state_dict(), load_file(f"{trainer.state.best_model_checkpoint}/model.safetensors"))


def test_a_checkpoint_of_a_run_without_an_average_cannot_continue_with_one(whole, tmp_path):
    checkpoint = f"{whole[0].args.output_dir}/checkpoint-6"
    arguments = make_arguments(tmp_path, resume_from_checkpoint=checkpoint)
    with pytest.raises(ValueError, match=r"with ema_decay None, found an average of weights in it\. Give"):
        find_checkpoint_to_resume(arguments)
    plain = shutil.copytree(checkpoint, tmp_path / "plain")
    (plain / TRAINED_WEIGHTS).unlink()
    (plain / "sha256.json").unlink()
    with pytest.raises(ValueError, match=r"with ema_decay 0\.9, found no average of weights in it"):
        find_checkpoint_to_resume(make_arguments(tmp_path, resume_from_checkpoint=str(plain), ema_decay=0.9))


@pytest.mark.parametrize("decay", [0, 1, float("nan")])
def test_a_decay_that_averages_nothing_is_refused(tmp_path, decay):
    with pytest.raises(ValueError, match="ema_decay must be above 0 and below 1"):
        make_arguments(tmp_path, ema_decay=decay)


def test_weights_of_half_precision_are_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ValueError, match=r"float32 with ema_decay, found \d+ tensors of half precision"):
        make_trainer(tmp_path, tiny_model().to(torch.bfloat16), ema_decay=0.9)
