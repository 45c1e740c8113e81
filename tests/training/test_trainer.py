# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""`PrithviTrainer`: the schedule, evaluation by sliding window, what is decayed, checkpoints and logs."""

import gc
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainerCallback, get_scheduler

from prithvi_hf import (
    PrithviConfig,
    PrithviForSemanticSegmentation,
    PrithviTrainer,
    PrithviTrainingArguments,
)
from prithvi_hf.data import collate_chips
from prithvi_hf.metrics.segmentation_metrics.segmentation_metrics import (
    confusion_matrix,
    metrics_from_confusion_matrix,
)
from prithvi_hf.models.prithvi.sliding_window_prithvi import sliding_window_logits
from prithvi_hf.training.checkpoints import find_last_checkpoint
from prithvi_hf.training.schedule import get_poly_schedule_with_warmup
from tests.training.test_schedule import make_optimizer, rates_of


CLASSES = ("land", "water", "cloud")
WINDOW = 32
METRICS = {
    *("mean_iou", "mean_accuracy", "overall_accuracy", "mean_f1", "mean_precision", "mean_recall"),
    *("per_category_iou", "per_category_accuracy", "per_category_f1", "per_category_precision"),
    "per_category_recall",
}


class Chips(Dataset):
    """Chips in memory, of the sizes given; a fifth of the labels is ignored, more in later chips."""

    def __init__(self, sizes: Sequence[tuple[int, int]], seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.rows = []
        for index, (height, width) in enumerate(sizes):
            labels = torch.randint(0, len(CLASSES), (height, width), generator=generator)
            ignored = torch.rand(height, width, generator=generator) < 0.2 + 0.6 * index / len(sizes)
            pixel_values = torch.randn(6, 1, height, width, generator=generator)
            self.rows.append({"pixel_values": pixel_values, "labels": labels.masked_fill(ignored, -100)})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.rows[index]


def tiny_model(**options):
    torch.manual_seed(0)
    values = {
        "num_frames": 1,
        "image_size": WINDOW,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "neck_hidden_size": 16,
        "head_hidden_size": 8,
        "classifier_dropout": 0.0,
        "class_weights": [0.5, 1.0, 2.0],
        "id2label": dict(enumerate(CLASSES)),
        "label2id": {name: index for index, name in enumerate(CLASSES)},
    }
    model = PrithviForSemanticSegmentation(PrithviConfig(**{**values, **options}))
    with torch.no_grad():  # every class is predicted somewhere
        model.decode_head.classifier.weight.mul_(50)
    return model


def make_arguments(folder, **options):
    values = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "max_grad_norm": 0.0}
    return PrithviTrainingArguments(output_dir=str(folder), **{**values, **options})


def make_trainer(folder, model=None, train=None, evaluation=None, **options):
    return PrithviTrainer(
        model=model or tiny_model(),
        args=make_arguments(folder, **options),
        data_collator=collate_chips,
        train_dataset=train,
        eval_dataset=evaluation,
    )


def whole_chip_matrix(model, chips, window, stride):
    """Confusion matrix and averaged loss, chip by chip, without anything of the trainer."""
    matrix = torch.zeros(len(CLASSES), len(CLASSES), dtype=torch.int64)
    loss, pixels = 0.0, 0
    weights = torch.tensor(model.config.class_weights)
    for row in chips.rows:
        logits = sliding_window_logits(model.eval(), row["pixel_values"][None], window, stride, batch_size=1)
        matrix += confusion_matrix(logits.argmax(dim=1), row["labels"][None], len(CLASSES))
        loss += nn.functional.cross_entropy(logits.double(), row["labels"][None], weights.double(), reduction="sum")
        pixels += int((row["labels"] != -100).sum())
    return matrix, float(loss) / pixels


# ---------------------------------------------------------------- the schedule


def test_the_trainer_uses_the_schedule_with_its_options(tmp_path):
    trainer = make_trainer(
        tmp_path, learning_rate=1.0e-3, warmup_steps=4, lr_scheduler_kwargs={"power": 0.9, "warmup_ratio": 0.1}
    )
    trainer.create_optimizer_and_scheduler(num_training_steps=20)
    own = get_poly_schedule_with_warmup(make_optimizer(1.0e-3), 4, 20, power=0.9, warmup_ratio=0.1)
    assert rates_of(trainer.lr_scheduler, 20) == pytest.approx(rates_of(own, 20))


@pytest.mark.parametrize("name", ["linear", "cosine", "constant_with_warmup", "polynomial"])
def test_other_schedules_are_those_of_transformers(tmp_path, name):
    trainer = make_trainer(tmp_path, learning_rate=1.0e-3, warmup_steps=4, lr_scheduler_type=name)
    trainer.create_optimizer_and_scheduler(num_training_steps=20)
    stock = get_scheduler(name, make_optimizer(1.0e-3), num_warmup_steps=4, num_training_steps=20)
    assert rates_of(trainer.lr_scheduler, 20) == pytest.approx(rates_of(stock, 20))


def logged_rates(trainer):
    return {entry["step"]: entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry}


def test_a_resumed_run_keeps_schedule_and_weights(tmp_path):
    options = {"max_steps": 6, "warmup_steps": 2, "learning_rate": 1.0e-3, "logging_steps": 1}
    options |= {"per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 3}
    chips = Chips([(WINDOW, WINDOW)] * 4)
    whole = make_trainer(tmp_path / "whole", train=chips, **options)
    whole.train()
    rates = logged_rates(whole)
    own = rates_of(get_poly_schedule_with_warmup(make_optimizer(1.0e-3), 2, 6), 6)
    assert [rates[step] for step in range(1, 7)] == pytest.approx(own)

    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "cut" / "checkpoint-3")
    cut = make_trainer(tmp_path / "cut", train=chips, **options)
    cut.train(resume_from_checkpoint=find_last_checkpoint(tmp_path / "cut"))
    assert cut.state.global_step == 6
    assert logged_rates(cut) == pytest.approx(rates)
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(cut.model.state_dict()[name], tensor, msg=name)


@pytest.mark.parametrize(
    ("kwargs", "metric", "mode"),
    [({}, "mean_iou", "max"), ({"metric": "eval_loss"}, "loss", "min"), ({"metric": "mean_f1"}, "mean_f1", "max")],
)
def test_a_plateau_of_the_metric_reduces_the_rate_and_survives_resuming(tmp_path, kwargs, metric, mode):
    """Torch's own schedule, fed with the logged metric; its default mode would take any metric for a loss."""
    options = {"max_steps": 6, "learning_rate": 0.5, "logging_steps": 1, "per_device_train_batch_size": 2}
    options |= {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 3}
    options |= {"lr_scheduler_type": "reduce_lr_on_plateau", "optim": "sgd"}
    options["lr_scheduler_kwargs"] = {"factor": 0.5, "patience": 0, **kwargs}
    chips = Chips([(WINDOW, WINDOW)] * 4)
    whole = make_trainer(tmp_path / "whole", train=chips, evaluation=chips, **options)
    whole.train()
    optimizer = make_optimizer(0.5)
    stock = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode=mode, factor=0.5, patience=0)
    expected = {}
    for entry in whole.state.log_history:
        if f"eval_{metric}" in entry:
            expected[entry["step"]] = optimizer.param_groups[0]["lr"]
            stock.step(entry[f"eval_{metric}"])
    rates = logged_rates(whole)
    assert rates == expected
    assert len(set(rates.values())) > 1

    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "cut" / "checkpoint-3")
    cut = make_trainer(tmp_path / "cut", train=chips, evaluation=chips, **options)
    cut.train(resume_from_checkpoint=find_last_checkpoint(tmp_path / "cut"))
    assert logged_rates(cut) == rates


def test_a_resumed_run_keeps_the_step_schedule(tmp_path):
    options = {"max_steps": 6, "learning_rate": 1.0e-3, "logging_steps": 1, "per_device_train_batch_size": 2}
    options |= {"save_strategy": "steps", "save_steps": 3, "lr_scheduler_type": "step_decay"}
    options["lr_scheduler_kwargs"] = {"step_size": 1 / 3, "gamma": 0.9}
    chips = Chips([(WINDOW, WINDOW)] * 4)
    make_trainer(tmp_path, train=chips, **options).train()
    shutil.rmtree(tmp_path / "checkpoint-6")
    cut = make_trainer(tmp_path, train=chips, **options)
    cut.train(resume_from_checkpoint=find_last_checkpoint(tmp_path))
    assert list(logged_rates(cut).values()) == pytest.approx([1e-3, 1e-3, 9e-4, 9e-4, 8.1e-4, 8.1e-4])


# ---------------------------------------------------------------- evaluation


def test_metrics_are_those_of_whole_chips(tmp_path):
    chips = Chips([(40, 56), (33, 70), (20, 64)])  # of different sizes, and one smaller than the window
    trainer = make_trainer(tmp_path, evaluation=chips, eval_window_batch_size=3)
    found = trainer.evaluate()
    matrix, loss = whole_chip_matrix(trainer.model, chips, (WINDOW, WINDOW), (WINDOW // 2, WINDOW // 2))
    expected = metrics_from_confusion_matrix(matrix)
    assert set(expected) == METRICS
    assert {name: found[f"eval_{name}"] for name in expected} == expected
    assert 0 < expected["mean_iou"] < 1
    assert (matrix.sum(dim=0) > 0).all()
    assert found["eval_loss"] == pytest.approx(loss, rel=1e-5)


def test_the_dice_loss_is_a_mean_over_chips(tmp_path):
    """Whatever the batches: chips with few valid pixels count as much as others."""
    chips = Chips([(WINDOW, WINDOW)] * 5)
    model = tiny_model(loss="masked_dice").eval()
    losses = [model(row["pixel_values"][None], labels=row["labels"][None]).loss.item() for row in chips.rows]
    assert max(losses) > 1.05 * min(losses)
    for batch_size in (1, 2):
        found = make_trainer(tmp_path, model, per_device_eval_batch_size=batch_size).evaluate(chips)["eval_loss"]
        assert found == pytest.approx(sum(losses) / 5, rel=1e-5)


def test_window_and_overlap_are_options(tmp_path):
    chips = Chips([(48, 48)])
    trainer = make_trainer(tmp_path, evaluation=chips, eval_window=16, eval_overlap=0.25)
    matrix, loss = whole_chip_matrix(trainer.model, chips, (16, 16), (12, 12))
    found = trainer.evaluate()
    assert found["eval_per_category_iou"] == metrics_from_confusion_matrix(matrix)["per_category_iou"]
    assert found["eval_loss"] == pytest.approx(loss, rel=1e-5)
    _, default_loss = whole_chip_matrix(trainer.model, chips, (WINDOW, WINDOW), (16, 16))
    assert abs(found["eval_loss"] - default_loss) > 1e-4


@pytest.mark.parametrize("batch_size", [2, 5])
def test_the_batch_size_changes_nothing(tmp_path, batch_size):
    chips = Chips([(40, 48)] * 5)
    model = tiny_model()
    one = make_trainer(tmp_path, model, evaluation=chips).evaluate()
    many = make_trainer(tmp_path, model, evaluation=chips, per_device_eval_batch_size=batch_size).evaluate()
    for name in METRICS:
        assert many[f"eval_{name}"] == one[f"eval_{name}"]
    assert many["eval_loss"] == pytest.approx(one["eval_loss"], rel=1e-6)


def test_chips_of_different_sizes_need_batches_of_one(tmp_path):
    trainer = make_trainer(tmp_path, evaluation=Chips([(40, 48), (48, 40)]), per_device_eval_batch_size=2)
    with pytest.raises(ValueError, match=r"one shape.*batch size of 1"):
        trainer.evaluate()


def test_chips_without_labels_count_nothing(tmp_path):
    chips = Chips([(WINDOW, WINDOW)] * 2)
    alone = make_trainer(tmp_path, evaluation=chips)
    expected = alone.evaluate()
    blank = {"pixel_values": torch.randn(6, 1, 40, 40), "labels": torch.full((40, 40), -100)}
    chips.rows.append(blank)
    found = alone.evaluate()
    assert {name: found[f"eval_{name}"] for name in METRICS} == {name: expected[f"eval_{name}"] for name in METRICS}
    assert found["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-6)
    chips.rows[:] = [blank]
    found = alone.evaluate()
    assert found["eval_loss"] is None
    assert found["eval_mean_accuracy"] is None
    json.dumps(found, allow_nan=False)
    alone.log_metrics("eval", found)  # figures that are not defined do not stop a run at its end


class LiveTensors(TrainerCallback):
    """Counts the tensor elements that are alive after each evaluated batch."""

    def __init__(self):
        self.elements = []

    def on_prediction_step(self, args, state, control, **kwargs):
        self.elements.append(sum(item.numel() for item in gc.get_objects() if type(item) is torch.Tensor))


def test_memory_does_not_grow_with_the_chips(tmp_path):
    size = 40
    trainer = make_trainer(tmp_path, evaluation=Chips([(size, size)] * 6))
    watch = LiveTensors()
    trainer.add_callback(watch)
    loop = trainer.evaluation_loop(trainer.get_eval_dataloader(), "Evaluation")
    assert (loop.predictions, loop.label_ids, loop.num_samples) == (None, None, 6)
    assert len(watch.elements) == 6
    # not even one map of class indices is left behind
    assert watch.elements[-1] - watch.elements[1] < size * size


def test_prefixes_predict_and_several_data_sets(tmp_path):
    chips, others = Chips([(40, 40)] * 2), Chips([(40, 40)], seed=1)
    trainer = make_trainer(tmp_path, evaluation={"a": chips, "b": others})
    found = trainer.evaluate()
    assert found["eval_a_per_category_iou"] != found["eval_b_per_category_iou"]
    test = trainer.evaluate(chips, metric_key_prefix="test")
    assert test["test_per_category_iou"] == found["eval_a_per_category_iou"]
    predicted = trainer.predict(chips)
    assert predicted.predictions is None
    assert predicted.metrics["test_per_category_iou"] == found["eval_a_per_category_iou"]
    with pytest.raises(ValueError, match="found none"):
        make_trainer(tmp_path).evaluate()


def test_evaluation_leaves_training_alone(tmp_path):
    """Evaluated or not between the steps, a run ends with the same weights."""
    options = {"max_steps": 3, "learning_rate": 1.0e-3, "per_device_train_batch_size": 2}
    chips = Chips([(WINDOW, WINDOW)] * 4)
    plain = make_trainer(tmp_path, train=chips, **options)
    plain.train()
    options |= {"eval_strategy": "steps", "eval_steps": 1}
    watched = make_trainer(tmp_path, train=chips, evaluation=Chips([(40, 40)]), **options)
    watched.train()
    for name, tensor in plain.model.state_dict().items():
        torch.testing.assert_close(watched.model.state_dict()[name], tensor, msg=name)


# ---------------------------------------------------------------- training


def test_what_is_decayed(tmp_path):
    trainer = make_trainer(tmp_path)
    names = trainer.get_decay_parameter_names(trainer.model)
    parameters = dict(trainer.model.named_parameters())
    assert "prithvi.embeddings.cls_token" in parameters
    left_out = set(parameters) - set(names)
    assert left_out == {name for name, value in parameters.items() if value.ndim == 1 or name.endswith("cls_token")}
    assert any("neck" in name for name in names)
    assert any("norm" in name for name in left_out)
    assert any("decode_head" in name for name in left_out)


@pytest.mark.parametrize("everything", [False, True])
def test_decay_reaches_the_optimizer(tmp_path, everything):
    trainer = make_trainer(tmp_path, weight_decay=0.05, decay_all_parameters=everything)
    trainer.create_optimizer()
    decayed = {
        id(parameter)
        for group in trainer.optimizer.param_groups
        if group["weight_decay"] == 0.05
        for parameter in group["params"]
    }
    plain = [value for value in trainer.model.parameters() if value.ndim == 1]
    assert plain
    assert all((id(value) in decayed) == everything for value in plain)
    if everything:
        assert len(decayed) == len(list(trainer.model.parameters()))


def test_plain_adam_decays_in_the_gradient(tmp_path):
    """One step by hand: Adam's step of gradient + decay x weight, which is not AdamW's."""
    arguments = {"weight_decay": 0.5, "decay_all_parameters": True, "learning_rate": 0.1, "adam_epsilon": 1e-3}
    trainer = make_trainer(tmp_path, optim="adam", **arguments)
    assert trainer.args.optim == "adam"
    assert PrithviTrainingArguments(**{**trainer.args.to_dict(), "output_dir": str(tmp_path)}).optim == "adam"
    optimizer = trainer.create_optimizer()
    assert type(optimizer) is torch.optim.Adam
    weight = trainer.model.decode_head.classifier.weight
    before = weight.detach().clone()
    gradient = torch.randn_like(weight)
    weight.grad = gradient.clone()
    optimizer.step()
    total = gradient + 0.5 * before
    assert torch.allclose(weight, before - 0.1 * total / (total.abs() + 1e-3), atol=1e-6)
    decoupled = make_trainer(tmp_path, optim="adamw_torch", **arguments).create_optimizer()
    assert type(decoupled) is torch.optim.AdamW


def test_plain_adam_without_decay(tmp_path):
    optimizer = make_trainer(tmp_path, optim="adam").create_optimizer()
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0}
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.999)}


def still_batch_norm(model):
    """Batch normalisation by the running statistics in training too, so that chips do not mix."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.train = lambda mode=True, module=module: module
    return model


def one_step(folder, chips, **options):
    """Weights after one step of gradient descent at rate 1: they moved by the gradient."""
    model = still_batch_norm(tiny_model())
    options = {"optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "constant", "logging_steps": 1, **options}
    trainer = make_trainer(folder, model, train=chips, max_steps=1, **options)
    trainer.train()
    loss = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    return {name: value.detach().clone() for name, value in model.named_parameters()}, loss


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path):
    """The chips differ in their valid pixels: a mean of the two batches' means would be another gradient."""
    chips = Chips([(WINDOW, WINDOW)] * 2)
    counts = [int((row["labels"] != -100).sum()) for row in chips.rows]
    assert counts[0] > 1.5 * counts[1]
    before = dict(tiny_model().named_parameters())
    together, loss = one_step(tmp_path, chips, per_device_train_batch_size=2)
    apart, sum_of_losses = one_step(tmp_path, chips, per_device_train_batch_size=1, gradient_accumulation_steps=2)
    for name, value in together.items():
        gradient = before[name] - value
        difference = (apart[name] - value).abs().max()
        assert difference <= 1e-4 * gradient.abs().max() + 1e-7, name
    assert sum_of_losses == pytest.approx(loss, rel=1e-5)
    assert any((before[name] - value).abs().max() > 1e-3 for name, value in together.items())


def test_the_best_checkpoint_is_that_of_the_best_mean_iou(tmp_path):
    """The labels are what the model says before training, and training on others makes it worse at once."""
    model = tiny_model()
    held_out, chips = Chips([(WINDOW, WINDOW)] * 2), Chips([(WINDOW, WINDOW)] * 2)
    with torch.no_grad():
        for row in held_out.rows:
            row["labels"] = model.eval()(row["pixel_values"][None]).logits.argmax(dim=1)[0]
    for row in chips.rows:
        row["labels"] = torch.full_like(row["labels"], 2)
    trainer = make_trainer(
        tmp_path,
        model,
        train=chips,
        evaluation=held_out,
        max_steps=4,
        learning_rate=2.0e-2,
        lr_scheduler_kwargs={"warmup_ratio": 1.0e-3},
        warmup_steps=3,
        per_device_train_batch_size=2,
        **{"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1},
        **{"load_best_model_at_end": True, "save_total_limit": 1},
    )
    assert (trainer.args.metric_for_best_model, trainer.args.greater_is_better) == ("mean_iou", True)
    trainer.train()
    scores = {entry["step"]: entry["eval_mean_iou"] for entry in trainer.state.log_history if "eval_mean_iou" in entry}
    best = max(scores, key=scores.get)
    assert best < 4
    assert min(scores.values()) < 0.8 * scores[best]
    assert trainer.state.best_metric == scores[best]
    assert Path(trainer.state.best_model_checkpoint).name == f"checkpoint-{best}"
    saved = load_file(tmp_path / f"checkpoint-{best}" / "model.safetensors")
    for name, value in trainer.model.named_parameters():
        assert torch.equal(value, saved[name]), name
    assert trainer.evaluate()["eval_mean_iou"] == scores[best]


def test_logs_hold_no_lists_and_results_do(tmp_path, capsys):
    chips = Chips([(WINDOW, WINDOW)] * 2)
    trainer = make_trainer(
        tmp_path, train=chips, evaluation=chips, max_steps=1, eval_strategy="steps", eval_steps=1, logging_steps=1
    )
    trainer.train()
    metrics = trainer.evaluate()
    assert [type(value) for value in metrics["eval_per_category_iou"]] == [float] * len(CLASSES)
    assert metrics["epoch"] == trainer.state.epoch
    entries = trainer.state.log_history
    assert sum("eval_mean_iou" in entry for entry in entries) == 2
    assert all(isinstance(value, int | float) for entry in entries for value in entry.values())
    capsys.readouterr()
    trainer.log_metrics("eval", metrics)
    printed = capsys.readouterr().out
    assert "eval_mean_iou" in printed
    assert "per_category" not in printed
    trainer.save_metrics("eval", metrics)
    saved = json.loads((tmp_path / "all_results.json").read_text())
    assert saved["eval_per_category_iou"] == metrics["eval_per_category_iou"]


# ---------------------------------------------------------------- arguments and checkpoints
