# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The options of a training: transformers' own, with defaults for segmentation chips, and a few more."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SchedulerType
from transformers.training_args import OptimizerNames

from prithvi_hf.training.schedule import MMSEG_POLY, REDUCE_ON_PLATEAU, SCHEDULE_OPTIONS, STEP_DECAY


TASK_METRICS: dict[str, dict[str, str]] = {
    "segmentation": {
        "mean_iou": "Mean IoU",
        "mean_accuracy": "Mean accuracy",
        "overall_accuracy": "Overall accuracy",
        "mean_f1": "Mean F1",
        "mean_boundary_iou": "Mean boundary IoU",
        "calibration_error": "Calibration error",
    },
    "classification": {
        "macro_f1": "Macro F1",
        "accuracy": "Accuracy",
        "micro_f1": "Micro F1",
        "mean_average_precision": "Mean average precision",
        "calibration_error": "Calibration error",
    },
    "regression": {"rmse": "RMSE", "mae": "MAE", "bias": "Bias", "r2": "R²"},
}
"""The single figures that tables show, by task, with their titles; the first chooses the best checkpoint."""
LOWER_IS_BETTER = {"loss", "rmse", "mae"}
_FINAL_METRICS = ("mean_boundary_iou", "calibration_error")  # of the evaluations at the end alone
SELECTABLE_METRICS = [
    *(name for name in TASK_METRICS["segmentation"] if name not in _FINAL_METRICS),
    *("mean_precision", "mean_recall"),
    *(name for name in TASK_METRICS["classification"] if name not in _FINAL_METRICS),
    *("rmse", "mae", "r2", "loss"),
]
"""Metrics of an evaluation that are one figure, by which the best checkpoint can be chosen."""
SCHEDULES = [MMSEG_POLY, STEP_DECAY, *(kind.value for kind in SchedulerType)]
PLAIN_ADAM = "adam"
"""Value of `optim` for Adam with L2 decay; transformers itself offers AdamW alone."""


@dataclass
class PrithviTrainingArguments(TrainingArguments):
    """`TrainingArguments` with defaults for segmentation chips, and what evaluation by sliding window needs."""

    eval_window: int | None = field(
        default=None, metadata={"help": "Side of the evaluation window in pixels; the model's image size by default."}
    )
    eval_overlap: float = field(
        default=0.5, metadata={"help": "Fraction of a window that the next one covers again, 0 to below 1."}
    )
    eval_window_batch_size: int = field(
        default=8, metadata={"help": "Windows in one forward pass of the evaluation, at least 1."}
    )
    decay_all_parameters: bool = field(
        default=False,
        metadata={"help": "Decay every parameter, as the original recipes do: biases, norms, the class token too."},
    )
    sync_batch_norm: bool = field(
        default=True,
        metadata={
            "help": "On several processes, batch normalisation takes its statistics over the chips of all, so that a "
            "step is that of one process; False: over each process's own, as in the original."
        },
    )
    optim: str = field(
        default=str(TrainingArguments.__dataclass_fields__["optim"].default),
        metadata={
            "help": "'adam' is torch's Adam, whose weight decay is part of the gradient (L2), as in the original's "
            "recipes; any other name is that optimizer of transformers, e.g. adamw_torch."
        },
    )
    layer_decay: float | None = field(
        default=None,
        metadata={
            "help": "Each layer of the encoder learns at this times the rate of the layer after it, above 0 to 1; "
            "neck and heads at the full rate. 0.65 to 0.8 is usual for a pretrained encoder."
        },
    )
    unfreeze_every: float | None = field(
        default=None,
        metadata={
            "help": "Begin with neck and heads alone, and let one more layer of the encoder train every so many steps "
            "or, below 1, after each such fraction of the run; the last layer first."
        },
    )
    ema_decay: float | None = field(
        default=None,
        metadata={
            "help": "Average the weights over about the last 1 / (1 - ema_decay) steps, and evaluate, choose and save "
            "the average; above 0 and below 1, such as 0.999. Steadier than single steps, most of all on few chips."
        },
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Keep False: chips are decoded by a transform that needs all columns."}
    )
    lr_scheduler_type: str = field(
        default=MMSEG_POLY,
        metadata={
            "help": f"'{MMSEG_POLY}' is the original's schedule, whose linear warm-up scales the decayed rate "
            f"({', '.join(SCHEDULE_OPTIONS[MMSEG_POLY])} in lr_scheduler_kwargs); '{STEP_DECAY}' multiplies the rate "
            "by gamma every step_size steps or, below 1, that fraction of the run; any other name is that schedule of "
            f"transformers. '{REDUCE_ON_PLATEAU}' watches metric_for_best_model, or the evaluation metric that "
            "lr_scheduler_kwargs names under metric."
        },
    )
    metric_for_best_model: str | None = field(
        default="mean_iou",
        metadata={
            "help": "Evaluation metric that chooses the best checkpoint; "
            f"{', '.join(f'{next(iter(metrics))} of a {task}' for task, metrics in TASK_METRICS.items())} by default."
        },
    )
    greater_is_better: bool | None = field(
        default=None,
        metadata={
            "help": "Whether a larger metric_for_best_model is better; by default by its name: not of loss or errors."
        },
    )
    per_device_eval_batch_size: int = field(
        default=1, metadata={"help": "Whole chips in one evaluation batch; 1 where chips differ in size."}
    )
    logging_steps: float | None = field(  # type: ignore[assignment]  # a number once the run is set up
        default=None,
        metadata={
            "help": "Steps between two lines of the log; 10 by default, fewer in a run of fewer than 100 steps."
        },
    )
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={
            "help": "Leave a loss that is NaN or infinite out of the logged mean, which needs the device at every "
            "step. A run ends at such a loss in either case."
        },
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={"help": "'true' continues from the newest whole checkpoint of output_dir; or a checkpoint folder."},
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after so many evaluations in a row without a better metric_for_best_model."},
    )
    calibrate: bool = field(
        default=True,
        metadata={
            "help": "After the training, fit the temperature of a model of classes on the validation split (256 chips "
            "at most), so that its probabilities are about as high as it is right; classes stay as they are."
        },
    )
    do_train: bool = field(default=True, metadata={"help": "Whether to train."})
    do_eval: bool = field(default=True, metadata={"help": "Whether to evaluate on the validation split at the end."})
    do_predict: bool = field(default=True, metadata={"help": "Whether to evaluate on the test splits at the end."})

    def __post_init__(self) -> None:
        """Resolve what depends on the machine, and refuse what would fail once training has begun."""
        if not self.do_train:
            # They are about checkpoints; the base class would set do_eval by the one and refuse the other alone.
            self.eval_strategy, self.load_best_model_at_end = "no", False
        if self.lr_scheduler_type not in SCHEDULES:
            raise ValueError(
                f"lr_scheduler_type must be one of {', '.join(SCHEDULES)}, found {self.lr_scheduler_type!r}."
            )
        if self.run_name is None:
            # One for the training and the evaluations after it; a resumed run has that of its checkpoint.
            self.run_name = f"{Path(self.output_dir or '.').resolve().name}-{time.strftime('%Y%m%d-%H%M%S')}"
        if self.trackio_static_space_id is None:
            self.trackio_static_space_id = False  # else an upload of the model would publish the figures in a Space
        if str(self.fsdp).lower() in ("true", "yes", "false", "no"):  # as other options are switched on a command line
            self.fsdp = str(self.fsdp).lower() in ("true", "yes") or None  # type: ignore[assignment]
        if self.enable_jit_checkpoint:
            raise ValueError(
                "Expected enable_jit_checkpoint false, found true. Leave it out: after SIGTERM or SIGUSR1 a training "
                "saves a checkpoint at the end of its step and stops, in all processes after the same step."
            )
        self.adapts_logging_steps = self.logging_steps is None
        # The base class takes it for eval_steps where that is left out: 500 as in transformers, and for the log 10.
        self.logging_steps = 500 if self.logging_steps is None else self.logging_steps
        # The base class asks for `use_cpu` where half precision meets a machine without an accelerator.
        self.use_cpu = self.use_cpu or ((self.bf16 or self.bf16_full_eval) and not torch.accelerator.is_available())
        best = (self.metric_for_best_model or "loss").removeprefix("eval_")
        if self.greater_is_better is None and best in LOWER_IS_BETTER:
            self.greater_is_better = False  # the base class knows of loss alone
        # Names that the base class does not know are out of its sight while it resolves the rest, and so is a schedule
        # that needs evaluations where nothing is trained.
        optim, schedule = self.optim, self.lr_scheduler_type
        if optim == PLAIN_ADAM:
            self.optim = OptimizerNames.ADAMW_TORCH
        is_hidden = schedule in (MMSEG_POLY, STEP_DECAY) or not self.do_train
        if is_hidden:
            self.lr_scheduler_type = SchedulerType.LINEAR
        super().__post_init__()
        if optim == PLAIN_ADAM:
            self.optim = optim
        if is_hidden:
            self.lr_scheduler_type = schedule
        self.logging_steps = 10 if self.adapts_logging_steps else self.logging_steps
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.cuda.is_available()
        self.dataloader_persistent_workers = self.dataloader_persistent_workers and self.dataloader_num_workers > 0

        self.check_schedule()
        if not 0 <= self.eval_overlap < 1:
            raise ValueError(f"eval_overlap must be at least 0 and below 1, found {self.eval_overlap}.")
        if self.eval_window_batch_size < 1 or (self.eval_window is not None and self.eval_window < 1):
            raise ValueError(
                "eval_window and eval_window_batch_size must be at least 1, found "
                f"{self.eval_window} and {self.eval_window_batch_size}."
            )
        if not 0 <= self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be a finite number of at least 0, found {self.learning_rate}.")
        if min(self.per_device_train_batch_size, self.per_device_eval_batch_size) < 1:
            raise ValueError(
                "per_device_train_batch_size and per_device_eval_batch_size must be at least 1, found "
                f"{self.per_device_train_batch_size} and {self.per_device_eval_batch_size}."
            )
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be above 0 and at most 1, found {self.layer_decay}. 0.75 is usual.")
        if self.unfreeze_every is not None and not 0 < self.unfreeze_every < math.inf:
            raise ValueError(f"unfreeze_every must be a number above 0, found {self.unfreeze_every}. Leave it out.")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay must be above 0 and below 1, found {self.ema_decay}. 0.999 is usual.")
        if self.dataloader_num_workers < 0:
            raise ValueError(f"dataloader_num_workers must be at least 0, found {self.dataloader_num_workers}.")
        self.check_best_metric(best)

    def check_schedule(self) -> None:
        """Refuse a learning-rate schedule whose options are not its own or would fail once training has begun."""
        schedule = str(getattr(self.lr_scheduler_type, "value", self.lr_scheduler_type))
        given = cast(dict, self.lr_scheduler_kwargs) or {}
        options = set(given)
        if schedule == SchedulerType.POLYNOMIAL and "warmup_ratio" in options:
            raise ValueError(
                "lr_scheduler_type polynomial is transformers' schedule, which has no warmup_ratio; the schedule of "
                f"the original recipes, which had this name before, is {MMSEG_POLY} now. Write lr_scheduler_type: "
                f"{MMSEG_POLY}, or leave warmup_ratio out of lr_scheduler_kwargs."
            )
        known = SCHEDULE_OPTIONS.get(schedule)
        if known is not None and not options <= set(known):
            raise ValueError(
                f"lr_scheduler_kwargs of {schedule} may hold {', '.join(known)}, found "
                f"{', '.join(sorted(options - set(known)))}."
            )
        numbers = [given.get("step_size"), given.get("gamma", 0.1)]
        if schedule == STEP_DECAY and not all(type(n) in (int, float) and 0 < n < math.inf for n in numbers):
            raise ValueError(
                f"Expected lr_scheduler_kwargs of {STEP_DECAY} with step_size (steps, or below 1 a fraction of the "
                f"run) and gamma, positive numbers, found {given}. Set them: {{step_size: 0.1, gamma: 0.9}}."
            )
        if schedule == REDUCE_ON_PLATEAU and (self.watched_metric not in SELECTABLE_METRICS or self.warmup_steps):
            raise ValueError(
                f"Expected {REDUCE_ON_PLATEAU} without warm-up, and to watch one of {', '.join(SELECTABLE_METRICS)}, "
                f"found warmup_steps {self.warmup_steps} and {self.watched_metric!r}. Set warmup_steps: 0, and metric "
                "in lr_scheduler_kwargs."
            )

    def check_best_metric(self, best: str) -> None:
        """Refuse a metric, without prefix, that cannot choose the best checkpoint or stop a run."""
        if self.early_stopping_patience is not None:
            evaluates = self.load_best_model_at_end and self.eval_strategy != "no"
            if self.early_stopping_patience < 1 or (self.do_train and not evaluates):
                raise ValueError(
                    "Expected early_stopping_patience of at least 1 with load_best_model_at_end and an eval_strategy, "
                    f"found {self.early_stopping_patience} with load_best_model_at_end {self.load_best_model_at_end} "
                    f"and eval_strategy {IntervalStrategy(self.eval_strategy).value}. Set them, or leave it out."
                )
            self.restore_callback_states_from_checkpoint = True  # a resumed run goes on counting
        if best not in SELECTABLE_METRICS:
            raise ValueError(f"metric_for_best_model must be one of {', '.join(SELECTABLE_METRICS)}, found {best!r}.")
        # The wrong direction would keep the worst checkpoint, and nothing would show it.
        if self.metric_for_best_model is not None and self.greater_is_better == (best in LOWER_IS_BETTER):
            raise ValueError(
                f"greater_is_better must be {best not in LOWER_IS_BETTER} where metric_for_best_model is {best}, "
                f"found {self.greater_is_better}. Set it, or leave it out."
            )

    @property
    def continues_newest(self) -> bool:
        """Whether `resume_from_checkpoint` means the newest whole checkpoint of the output folder."""
        return str(self.resume_from_checkpoint).lower() in ("true", "yes")

    @property
    def named_checkpoint(self) -> str | None:
        """The checkpoint folder that `resume_from_checkpoint` names; None where it is a switch or left out."""
        wanted = str(self.resume_from_checkpoint or "false")
        return None if wanted.lower() in ("true", "yes", "false", "no") else wanted

    @property
    def watched_metric(self) -> str:
        """Evaluation metric that `reduce_lr_on_plateau` watches, without prefix."""
        options = self.lr_scheduler_kwargs if isinstance(self.lr_scheduler_kwargs, dict) else {}
        return str(options.get("metric") or self.metric_for_best_model or "loss").removeprefix("eval_")
