# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Fine-tuning: `transformers.Trainer` with the original's schedule and evaluation by sliding window."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from accelerate.utils import broadcast
from huggingface_hub import CommitInfo, HfApi
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset, Subset
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import EvalLoopOutput, HubStrategy
from transformers.utils import logging
from transformers.utils.hub import PushInProgress

from prithvi_hf.data.streaming import StreamedCrops
from prithvi_hf.data.transforms import CHIP_INDEX
from prithvi_hf.hub import LAST_CHECKPOINT, CheckpointPush, explain_hub_errors, push_folder_to_hub
from prithvi_hf.models.prithvi.adapter_prithvi import has_adapter, load_adapter_weights
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.training.checkpoints import begin_digests, check_output_folder, write_digests
from prithvi_hf.training.loss_guard import LossGuard
from prithvi_hf.training.preemption import StopOnSignal
from prithvi_hf.training.process_group import has_unused_parameters, synchronize_batch_norm
from prithvi_hf.training.recipe_options import CLASS_FIGURES
from prithvi_hf.training.schedule import (
    MMSEG_POLY,
    REDUCE_ON_PLATEAU,
    STEP_DECAY,
    get_poly_schedule_with_warmup,
    get_step_schedule_with_warmup,
)
from prithvi_hf.training.sharding import choose_layers_to_divide, gather_weights, let_cpus_shard
from prithvi_hf.training.strategies import GradualUnfreezing, find_decay_parameters, group_parameters
from prithvi_hf.training.tasks import TASKS
from prithvi_hf.training.throughput import Throughput
from prithvi_hf.training.training_args import LOWER_IS_BETTER, PLAIN_ADAM, PrithviTrainingArguments
from prithvi_hf.training.weight_average import WeightAverage


logger = logging.get_logger(__name__)


class PrithviTrainer(Trainer):
    """A `Trainer` that evaluates whole chips by sliding window and never holds more than one batch of logits.

    Each process evaluates every n-th chip and adds up a confusion matrix; the matrices are summed once at the end, so
    every chip counts exactly once, whatever the number of processes. Metrics are those of `segmentation_metrics`, with
    the prefix (`eval_`, `test_`, ...) in front; `loss` is that of the averaged logits, over all valid pixels or, with
    a Dice loss, over the chips. A model of values per pixel is evaluated in the same way, with `regression_metrics`;
    one of whole images on whole chips, with `classification_metrics`.
    """

    args: PrithviTrainingArguments
    model: Any  # of one of `TASKS`
    processing_class: PrithviImageProcessor

    def __init__(self, model: Any = None, *args: Any, **kwargs: Any) -> None:
        processor = kwargs.get("processing_class")
        if isinstance(processor, PrithviImageProcessor) and isinstance(model, PreTrainedModel):
            processor.check_config(model.config)
        self._detailed, self._chip_columns = False, dict[str, np.ndarray]()
        super().__init__(model, *args, **kwargs)
        # `_get_num_items_in_batch` counts what any loss is divided by, but not for torch's `DataParallel`.
        self.model_accepts_loss_kwargs |= self.args.n_gpu <= 1
        self.throughput = Throughput(self.accelerator)
        self.loss_guard = LossGuard(self.accelerator, getattr(self.train_dataset, "find_id", None))
        self.stop_on_signal = StopOnSignal()
        self.add_callback(self.stop_on_signal)  # before the next, which logs where a checkpoint is saved
        self.add_callback(_FollowRun())
        self.weight_average = None
        if self.args.ema_decay is not None:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise ValueError(
                    "Expected ema_decay with whole weights in each process, found FSDP or DeepSpeed, which divide "
                    "them. Leave ema_decay out, or train with DDP."
                )
            self.weight_average = WeightAverage(self.args.ema_decay, self.model)
            self.add_callback(self.weight_average)
        self.unfreezing = None if self.args.unfreeze_every is None else GradualUnfreezing(self.args.unfreeze_every)
        if self.unfreezing is not None:
            self.add_callback(self.unfreezing)
        if self.args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(self.args.early_stopping_patience))

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; the parameters are those of `Trainer.train`. Signals are given back however it ends."""
        try:
            return super().train(*args, **kwargs)
        finally:
            self.stop_on_signal.stop_listening()

    def create_accelerator_and_postprocess(self) -> None:
        """Make the accelerator, which divides the weights with FSDP on a CPU too."""
        let_cpus_shard(self.args)
        super().create_accelerator_and_postprocess()
        choose_layers_to_divide(self.accelerator, self.model)

    def _build_accelerator_args(self, **kwargs: Any) -> dict[str, Any]:
        """Have `DistributedDataParallel` look for parameters without a gradient where a model has some, not always."""
        if self.args.ddp_find_unused_parameters is None:
            self.args.ddp_find_unused_parameters = has_unused_parameters(self.model)
        return super()._build_accelerator_args(**kwargs)

    def set_initial_training_values(self, args: TrainingArguments, dataloader: DataLoader) -> tuple[Any, ...]:
        """Find the steps of the run, the last of the values, and log a short one more often."""
        values = super().set_initial_training_values(args, dataloader)
        if self.args.adapts_logging_steps:
            args.logging_steps = max(1, min(args.logging_steps, values[-1] // 10))
        return values

    def _init_training_state(
        self, max_steps: int, num_update_steps_per_epoch: int, num_train_epochs: int, *args: Any, **kwargs: Any
    ) -> tuple[int, int]:
        """Have a run that early stopping had ended train no step more, and the patience that is given now count."""
        place = super()._init_training_state(max_steps, num_update_steps_per_epoch, num_train_epochs, *args, **kwargs)
        for callback in self.callback_handler.callbacks:
            if not isinstance(callback, EarlyStoppingCallback):
                continue
            callback.early_stopping_patience = int(self.args.early_stopping_patience or 1)
            # The base class looks for it when it saves, and it is missing where a resumed run is the first to have it.
            cast(dict, self.state.stateful_callbacks).setdefault(type(callback).__name__, callback.state())
            if callback.early_stopping_patience_counter >= callback.early_stopping_patience:
                return num_train_epochs, 0
        return place

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        """Make the poly or step schedule of the recipes, or the named one of transformers."""
        warmup_steps = self.args.get_warmup_steps(num_training_steps)
        if warmup_steps >= num_training_steps > 0:
            logger.warning_once(
                f"The warm-up of {warmup_steps} steps outlasts the run of {num_training_steps}: the learning rate "
                "never comes near its full value. Lower --warmup_steps."
            )
        optimizer = self.optimizer if optimizer is None else optimizer
        kind, options = self.args.lr_scheduler_type, dict(cast(dict, self.args.lr_scheduler_kwargs) or {})
        own: dict[Any, Callable[..., LRScheduler]] = {
            MMSEG_POLY: get_poly_schedule_with_warmup,
            STEP_DECAY: get_step_schedule_with_warmup,
        }
        if self.lr_scheduler is None and optimizer is not None and kind in (*own, REDUCE_ON_PLATEAU):
            schedule: Any
            if kind == REDUCE_ON_PLATEAU:  # torch's own default is that less is better, of any metric
                options.pop("metric", None)
                mode: Literal["min", "max"] = "min" if self.args.watched_metric in LOWER_IS_BETTER else "max"
                schedule = ReduceLROnPlateau(optimizer, mode=mode, **options)
            else:
                schedule = own[kind](optimizer, warmup_steps, num_training_steps, **options)
            self.lr_scheduler = schedule
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _evaluate(self, trial: Any, ignore_keys_for_eval: list[str] | None, skip_scheduler: bool = False) -> Any:
        """Evaluate in a training, and tell a schedule that watches a metric, which the base class may not know."""
        plateau = self.lr_scheduler if isinstance(self.lr_scheduler, ReduceLROnPlateau) else None
        self.loss_guard.check()
        with self.throughput.pause():
            metrics = super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler or plateau is not None)
        if plateau is not None and not skip_scheduler:
            value = metrics[f"eval_{self.args.watched_metric}"]
            if value is not None:  # None where no pixel has a label
                plateau.step(value)
        return metrics

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Name the parameters under weight decay: all, or matrices and kernels without the class token."""
        return find_decay_parameters(model, self.args.decay_all_parameters)

    @staticmethod
    def get_optimizer_cls_and_kwargs(
        args: TrainingArguments, model: PreTrainedModel | None = None
    ) -> tuple[type[Optimizer], dict[str, Any]]:
        """Choose class and arguments of the optimizer: torch's Adam for `optim: adam`, else transformers' choice.

        With `layer_decay` the parameters are among the arguments, in groups.
        """
        if args.optim == PLAIN_ADAM:
            options: dict[str, Any] = {"lr": args.learning_rate, "betas": (args.adam_beta1, args.adam_beta2)}
            kind: Any = torch.optim.Adam
            options["eps"] = args.adam_epsilon
        else:
            kind, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
        own = cast(PrithviTrainingArguments, args)
        if own.layer_decay is not None and model is not None:
            if {"params", "model", "optimizer_dict"} & options.keys():
                raise ValueError(
                    f"Expected an optimizer that takes groups of parameters with layer_decay, found {args.optim}, "
                    "which makes its own. Choose adamw_torch, or leave layer_decay out."
                )
            options["params"] = group_parameters(
                model, args.learning_rate, own.layer_decay, args.weight_decay, own.decay_all_parameters
            )
        return kind, options

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Normalise, on the device, crops that come with the values of their files."""
        if "file_values" in inputs:
            # In place, because the Trainer counts the items of this very dict.
            file_values = self._prepare_input(inputs.pop("file_values"))
            inputs["pixel_values"] = self.processing_class.normalize_file_values(file_values)
            labels = self._prepare_input(inputs["labels"])
            inputs["labels"] = labels if labels.is_floating_point() else labels.long()
        return super()._prepare_inputs(inputs)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Count what the loss of a whole optimisation step is divided by, over its batches and all processes."""
        if self.args.n_gpu > 1 or self.compute_loss_func is not None:
            return super()._get_num_items_in_batch(batch_samples, device)
        labels = [batch["labels"] for batch in batch_samples if "labels" in batch]
        if not labels:
            return None
        count = torch.stack([self.model.count_loss_items(part) for part in labels]).sum(dim=0).to(device)
        return self.accelerator.reduce(count, "sum") if self.args.average_tokens_across_devices else count

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Make one step forward and back; the parameters are those of `Trainer.training_step`."""
        chips = inputs.pop(CHIP_INDEX, None)
        with synchronize_batch_norm(self.model, self.args.sync_batch_norm):
            loss = super().training_step(model, inputs, num_items_in_batch)
        if self.unfreezing is not None:
            self.unfreezing.drop_gradients()
        self.loss_guard.watch(loss, self.state.global_step + 1, self._get_learning_rate(), chips)
        return loss

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """Collect the batches of a step; the parameters are those of `Trainer.get_batch_samples`."""
        return super().get_batch_samples(self.throughput.watch(epoch_iterator), num_batches, device)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save a checkpoint with the digests of its files, into the folder that the run began with."""
        check_output_folder(self.args.output_dir)
        self.loss_guard.check()
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        self._digests: dict[str, str] = {}
        if self.args.should_save:
            begin_digests(folder)
        if self.weight_average is not None and self.args.should_save:
            self.weight_average.save_trained_weights(self.model, folder)
        with self.throughput.pause(), self.lend_average():
            super()._save_checkpoint(model, trial)
        if self.args.should_save and folder.is_dir():
            write_digests(folder, self._digests)  # that of the state too
        if self.args.push_to_hub and self.is_world_process_zero() and self.args.hub_strategy != HubStrategy.END:
            self._begin_push(folder)

    def _save_rng_state(self, output_dir: str) -> None:
        """Save the state of the random numbers, the last file of each process, and then the digests.

        Only the Trainer's state is still to come, a file that shows whether it is whole. What follows it, an upload or
        the removal of older checkpoints, so meets a whole checkpoint.
        """
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self._digests = write_digests(output_dir)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the whole model; in a checkpoint of FSDP it is beside the parts that training goes on from.

        The parameters are those of `Trainer.save_model`.
        """
        if self.is_fsdp_enabled and "FULL_STATE_DICT" not in str(self.accelerator.state.fsdp_plugin.state_dict_type):
            self._save(output_dir, state_dict=self.accelerator.get_state_dict(self.model))
        super().save_model(output_dir, _internal_call)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Upload nothing yet: the base class asks before the digests are written, see `_save_checkpoint`."""

    def _begin_push(self, checkpoint: Path) -> None:
        """Upload a checkpoint in the background, unless the one before it is still on its way."""
        push = self.push_in_progress
        if push is not None and not push.is_done() and not self.args.hub_always_push:
            return
        self._report_push()
        every = self.args.hub_strategy == HubStrategy.ALL_CHECKPOINTS
        best = self.state.best_model_checkpoint
        prepared = CheckpointPush.prepare(
            checkpoint,
            str(self.hub_model_id),
            self.state.global_step,
            checkpoint.name if every else LAST_CHECKPOINT,
            Path(best) if best is not None and Path(best).is_dir() else None,
        )
        job = HfApi().run_as_future(prepared.run, self.args.hub_token, self.args.hub_revision)
        jobs: Any = [job]
        self.push_in_progress: Any = PushInProgress(jobs)

    def _finish_current_push(self) -> None:
        """Wait for the last upload of a checkpoint at the end of a training."""
        super()._finish_current_push()
        self._report_push()

    def _report_push(self) -> None:
        """Say what became of an upload that failed, which the training goes on without."""
        push: Any = getattr(self, "push_in_progress", None)
        for job in push.jobs if push is not None and push.is_done() else ():
            if job.exception() is not None:
                logger.warning(
                    f"Expected a checkpoint to arrive at {self.hub_model_id}, found: {job.exception()} The training "
                    "goes on, and the next checkpoint will be tried again."
                )
            self.push_in_progress = None

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Make the repository; the parameters are those of `Trainer.init_hf_repo`."""
        with explain_hub_errors(self.args.hub_model_id or Path(self.args.output_dir or ".").resolve().name):
            super().init_hf_repo(token, private)

    def lend_average(self) -> AbstractContextManager[None]:
        """Within it the model has the averaged weights, where a training averages them."""
        return nullcontext() if self.weight_average is None else self.weight_average.lend(self.model)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load the model of a checkpoint; what the optimizer goes on with, where that is another one, comes later."""
        if has_adapter(self.model):
            load_adapter_weights(self.model, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.weight_average is not None:
            self.weight_average.checkpoint = Path(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        """Load the best checkpoint, whose weights are averaged already."""
        if has_adapter(self.model):
            load_adapter_weights(self.model, cast(str, self.state.best_model_checkpoint))
        else:
            super()._load_best_model()
        if self.weight_average is not None:
            self.weight_average.average.clear()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate as `Trainer.evaluate` does; in a training with `ema_decay`, the averaged weights."""
        with self.lend_average():
            return super().evaluate(*args, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        """Load training crops; those of streamed chips in the batches that they plan for this process."""
        crops: Any = self.train_dataset
        if not isinstance(crops, StreamedCrops):
            return super().get_train_dataloader()
        args = self.args
        workers, drop_last = args.dataloader_num_workers, args.dataloader_drop_last
        return DataLoader(
            crops,
            batch_sampler=crops.plan(self._train_batch_size, args.process_index, args.world_size, workers, drop_last),
            collate_fn=self.data_collator,
            num_workers=workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
        )

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        """Load this process's whole chips: chip `i` goes to process `i` modulo their number."""
        own: Any = self.eval_dataset  # one, or several by name
        chips: Any = eval_dataset if eval_dataset is not None else own
        if isinstance(chips, str):
            chips = own[chips]
        if chips is None:
            raise ValueError("Expected an evaluation dataset, found none: pass eval_dataset to the trainer.")
        return DataLoader(
            Subset(chips, range(self.args.process_index, len(chips), self.args.world_size)),
            batch_size=self.args.per_device_eval_batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        """Load this process's whole chips, for `predict`."""
        return self.get_eval_dataloader(test_dataset)

    @torch.no_grad()
    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Stream over the chips and return their metrics; the parameters are those of `Trainer.evaluation_loop`."""
        self.model.eval()
        # Batch normalisation's running statistics are each process's own; those of the first are what is saved.
        broadcast(list(self.model.buffers()))
        self.callback_handler.eval_dataloader = dataloader
        figures = self.make_figures()
        with gather_weights(self.model, self.accelerator):  # processes have different numbers of windows
            for batch in dataloader:
                figures.add(batch)
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        metrics, chips = figures.compute()
        self._chip_columns = getattr(figures, "columns", {})
        prefixed: dict[str, Any] = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        no_predictions: Any = None  # what the base class gives too where there are none
        return EvalLoopOutput(no_predictions, label_ids=None, metrics=prefixed, num_samples=chips)

    def make_figures(self) -> Any:
        """Make what adds up the metrics of an evaluation: `add` takes a batch, `compute` gives metrics and chips."""
        return TASKS[self.model.task].figures(self.model, self.args, self.accelerator, self._detailed)

    def evaluate_chips(
        self, chips: Dataset, metric_key_prefix: str = "eval"
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Evaluate and measure all there is to be measured, as after a training.

        Returns:
            The metrics, as `evaluate` gives them, and the numbers of each chip by the name of their column, in the
            order of the chips and the same in every process; see `chip_figures`.
        """
        self._detailed = True
        try:
            return self.evaluate(chips, metric_key_prefix=metric_key_prefix), self._chip_columns
        finally:
            self._detailed = False

    def push_to_hub(  # type: ignore[override]  # the base class gives None in other processes too, and types it not
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> CommitInfo | None:
        """Upload the output folder with the code that loads it, and return the commit in the first process.

        The parameters are those of `Trainer.push_to_hub`. The upload is always waited for, and card and pictures are
        those in the folder: `blocking` and the fields of the Trainer's own card in `kwargs` change nothing.
        """
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        folder = Path(self.args.output_dir or ".").resolve()
        return push_folder_to_hub(
            folder,
            self.args.hub_model_id or folder.name,
            commit_message=commit_message or "End of training",
            token=token or self.args.hub_token,
            revision=revision or self.args.hub_revision,
            private=private if private is not None else self.args.hub_private_repo,
        )

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Log the single figures, and one figure of each class by its name, such as `eval_iou/water`.

        The other lists (one value per class) are for the results: neither lines nor trackers show them. A step's loss
        comes with the figures of [`Throughput`], and ends the run where it is not finite.
        """
        if "loss" in logs or "train_loss" in logs:
            self.loss_guard.check()
        if "loss" in logs:
            logs |= self.throughput.measure()
        first = getattr(self, "_initial_global_step", 0)
        if "train_loss" in logs and first > 0:
            # The base class gives the mean since the run was resumed; each checkpoint's history has the steps before.
            total: float = logs["train_loss"] * (self.state.global_step - first)
            last: float = 0
            for entry in self.state.log_history:
                if "loss" in entry and entry["step"] <= first:
                    total, last = total + entry["loss"] * (entry["step"] - last), entry["step"]
            logs["train_loss"] = total / max(1, self.state.global_step - first + last)
        of_classes, figures = self._name_class_figures(logs), _keep_single_figures(logs)
        logged = {**figures, **of_classes}
        super().log(logged, start_time)
        if self.state.global_step:  # the base class adds the epoch, which belongs to the results of a training
            logs.update({name: value for name, value in logged.items() if name not in of_classes})

    def _name_class_figures(self, metrics: dict[str, Any]) -> dict[str, float]:
        """Name the values of the list that tables show of each class, without those that are not defined."""
        figure = CLASS_FIGURES.get(getattr(self.model, "task", ""))
        ending = f"per_category_{figure}"
        return {
            f"{name.removesuffix(ending)}{figure}/{self.model.config.id2label[label]}": value
            for name, values in metrics.items()
            if name.endswith(ending)
            for label, value in enumerate(values)
            if value is not None
        }

    def log_metrics(self, split: str, metrics: dict[str, Any]) -> None:
        """Print the single figures of a split; the lists are in the saved results."""
        super().log_metrics(split, _keep_single_figures(metrics))


class _FollowRun(TrainerCallback):
    """Tell the dataset which epoch begins, and log whenever a checkpoint is saved, which so has every loss before."""

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called before the first chip of the epoch is fetched; accelerate tells datasets of one process only."""
        dataset: Any = getattr(kwargs.get("train_dataloader"), "dataset", None)
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(int(state.epoch or 0))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called once the state of a resumed run is loaded; its output folder may be another one by now."""
        best = state.best_model_checkpoint
        if best is not None and not Path(best).is_dir():
            moved = Path(args.output_dir or ".") / Path(best).name
            state.best_model_checkpoint = str(moved) if moved.is_dir() else best
        state.trial_name = args.run_name  # checkpoints have it, for a resumed run to go on with

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called after the callback that decides what follows a step."""
        control.should_log |= control.should_save

    on_epoch_end = on_step_end


def _keep_single_figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """Leave out the lists of one value per class, and what is not defined (None)."""
    return {name: value for name, value in metrics.items() if value is not None and not isinstance(value, list)}
