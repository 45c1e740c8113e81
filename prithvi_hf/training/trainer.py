# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Fine-tuning: `transformers.Trainer` with the original's schedule and evaluation by sliding window."""

import json
import math
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast
from huggingface_hub import CommitInfo
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.utils.data import DataLoader, Dataset, Subset
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput, SchedulerType
from transformers.training_args import OptimizerNames
from transformers.utils import logging

from prithvi_hf.hub import push_folder_to_hub
from prithvi_hf.metrics.segmentation_metrics.segmentation_metrics import (
    confusion_matrix,
    metrics_from_confusion_matrix,
)
from prithvi_hf.models.prithvi.sliding_window_prithvi import sliding_window_logits, window_and_stride


logger = logging.get_logger(__name__)

SELECTABLE_METRICS = [
    "mean_iou",
    "mean_accuracy",
    "overall_accuracy",
    "mean_f1",
    "mean_precision",
    "mean_recall",
    "loss",
]
"""Metrics of an evaluation that are one figure, by which the best checkpoint can be chosen."""
PLAIN_ADAM = "adam"
"""Value of `optim` for Adam with L2 decay; transformers itself offers AdamW alone."""


@dataclass
class PrithviTrainingArguments(TrainingArguments):
    """`TrainingArguments` with defaults for segmentation chips, and what evaluation by sliding window needs."""

    eval_window: int | None = field(
        default=None, metadata={"help": "Side of the evaluation window in pixels; the model's image size by default."}
    )
    eval_overlap: float = field(
        default=0.5, metadata={"help": "Share of a window that the next one covers again, 0 to below 1."}
    )
    eval_window_batch_size: int = field(
        default=8, metadata={"help": "Windows in one forward pass of the evaluation, at least 1."}
    )
    decay_all_parameters: bool = field(
        default=False,
        metadata={
            "help": "Decay every parameter, as the original recipes do: also biases, norms and the class token."
        },
    )
    optim: str = field(
        default=TrainingArguments.__dataclass_fields__["optim"].default,
        metadata={
            "help": "'adam' is torch's Adam, whose weight decay is part of the gradient (L2), as in the original's "
            "recipes; any other name is that optimizer of transformers, e.g. adamw_torch."
        },
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Keep False: chips are decoded by a transform that needs all columns."}
    )
    lr_scheduler_type: SchedulerType | str = field(
        default="polynomial",
        metadata={
            "help": "'polynomial' is the original's poly schedule, whose linear warm-up scales the decayed rate "
            "(power, lr_end and warmup_ratio in lr_scheduler_kwargs); any other name is that schedule of transformers."
        },
    )
    metric_for_best_model: str | None = field(
        default="mean_iou", metadata={"help": "Evaluation metric that chooses the best checkpoint."}
    )
    greater_is_better: bool | None = field(
        default=None,
        metadata={"help": "Whether a larger metric_for_best_model is better; by default by its name: not for loss."},
    )
    per_device_eval_batch_size: int = field(
        default=1, metadata={"help": "Whole chips in one evaluation batch; 1 where chips differ in size."}
    )
    do_train: bool = field(default=True, metadata={"help": "Whether to train."})
    do_eval: bool = field(default=True, metadata={"help": "Whether to evaluate on the validation split at the end."})
    do_predict: bool = field(default=True, metadata={"help": "Whether to evaluate on the test splits at the end."})

    def __post_init__(self) -> None:
        """Check the window options and settle what depends on the machine; the base class resolves the rest."""
        if not self.do_train:
            # They are about checkpoints; the base class would set do_eval by the one and refuse the other alone.
            self.eval_strategy, self.load_best_model_at_end = "no", False
        plain_adam = self.optim == PLAIN_ADAM
        if plain_adam:  # a name that the base class does not know
            self.optim = OptimizerNames.ADAMW_TORCH
        super().__post_init__()
        if plain_adam:
            self.optim = PLAIN_ADAM
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.cuda.is_available()
        self.dataloader_persistent_workers = self.dataloader_persistent_workers and self.dataloader_num_workers > 0
        if not 0 <= self.eval_overlap < 1:
            raise ValueError(f"eval_overlap must be at least 0 and below 1, found {self.eval_overlap}.")
        if self.eval_window_batch_size < 1 or (self.eval_window is not None and self.eval_window < 1):
            raise ValueError(
                "eval_window and eval_window_batch_size must be at least 1, found "
                f"{self.eval_window} and {self.eval_window_batch_size}."
            )
        self._check_training_options()

    def _check_training_options(self) -> None:
        """Refuse here, before anything is written, what torch refuses once training has begun."""
        if not 0 <= self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be a finite number of at least 0, found {self.learning_rate}.")
        if min(self.per_device_train_batch_size, self.per_device_eval_batch_size) < 1:
            raise ValueError(
                "per_device_train_batch_size and per_device_eval_batch_size must be at least 1, found "
                f"{self.per_device_train_batch_size} and {self.per_device_eval_batch_size}."
            )
        if self.dataloader_num_workers < 0:
            raise ValueError(f"dataloader_num_workers must be at least 0, found {self.dataloader_num_workers}.")
        best = (self.metric_for_best_model or "loss").removeprefix("eval_")
        if best not in SELECTABLE_METRICS:
            raise ValueError(f"metric_for_best_model must be one of {', '.join(SELECTABLE_METRICS)}, found {best!r}.")
        larger = best != "loss"
        # The wrong direction would keep the worst checkpoint, and nothing would show it.
        if self.metric_for_best_model is not None and self.greater_is_better != larger:
            raise ValueError(
                f"greater_is_better must be {larger} where metric_for_best_model is {best}, found "
                f"{self.greater_is_better}. Set it, or leave it out."
            )


def _poly_factor(
    step: int, base_lr: float, warmup_steps: int, total_steps: int, power: float, lr_end: float, warmup_ratio: float
) -> float:
    """Learning rate of a step over the base rate."""
    decay = max(0.0, 1 - step / max(1, total_steps)) ** power
    factor = decay * (1 - lr_end / base_lr) + lr_end / base_lr if base_lr else decay
    if step < warmup_steps:
        factor *= 1 - (1 - step / warmup_steps) * (1 - warmup_ratio)
    return factor


def get_poly_schedule_with_warmup(
    optimizer: Optimizer,
    num_warmup_steps: int,
    num_training_steps: int,
    power: float = 1.0,
    lr_end: float = 0.0,
    warmup_ratio: float = 1e-6,
) -> LambdaLR:
    """The schedule of the original recipes: mmcv 1.7's `poly` policy with linear warm-up, step by step.

    The warm-up multiplies the already decayed rate; transformers' polynomial schedule warms up to the full rate and
    decays from there, 10 % off at the end of a warm-up of a tenth of the steps.

    Args:
        optimizer (`torch.optim.Optimizer`): Its groups' learning rates are the base rates.
        num_warmup_steps (`int`): Steps of the warm-up, 0 for none.
        num_training_steps (`int`): Steps in all.
        power (`float`, defaults to 1.0): Exponent of the decay.
        lr_end (`float`, defaults to 0.0): Rate that the decay ends at.
        warmup_ratio (`float`, defaults to 1e-6): Share of the rate that the first step has.
    """
    factors = [
        partial(
            _poly_factor,
            base_lr=group.get("initial_lr", group["lr"]),
            warmup_steps=num_warmup_steps,
            total_steps=num_training_steps,
            power=power,
            lr_end=lr_end,
            warmup_ratio=warmup_ratio,
        )
        for group in optimizer.param_groups
    ]
    return LambdaLR(optimizer, factors)


def find_last_checkpoint(output_dir: str | Path, log: bool = True) -> str | None:
    """The newest whole checkpoint of a run, or None.

    One that was cut off while being written, by a kill or a full disk, or that was damaged later is passed over.

    Args:
        output_dir (`str` or `Path`): Output folder of the run; it need not exist.
        log (`bool`, defaults to `True`): Name each checkpoint that is passed over, with what it lacks.
    """
    steps = {path: path.name.removeprefix("checkpoint-") for path in Path(output_dir).glob("checkpoint-*")}
    numbered = [path for path, step in steps.items() if step.isdecimal() and path.is_dir()]
    for checkpoint in sorted(numbered, key=lambda path: int(steps[path]), reverse=True):
        damage = find_damage(checkpoint)
        if damage is None:
            return str(checkpoint)
        if log:
            logger.warning(f"Passing over {checkpoint}, which is not whole: {damage}.")
    return None


def find_damage(checkpoint: str | Path) -> str | None:
    """What a checkpoint lacks that a run needs to go on from it; None where it is whole.

    Cheap for weights of any size: headers, tables of contents and lengths are read, the numbers are not.

    Args:
        checkpoint (`str` or `Path`): The folder.
    """
    folder = Path(checkpoint)
    names = ["config.json"]
    if not _is_sharded(folder):
        random_states = sorted(path.name for path in folder.glob("rng_state*.pth"))  # one a process
        names += [*_weight_files(folder), "optimizer.pt", "scheduler.pt", *(random_states or ["rng_state.pth"])]
    for name in [*names, "trainer_state.json"]:  # the order in which they are written
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if not _READERS[path.suffix](path):
            return f"{name} is damaged"
    return None


def _is_sharded(checkpoint: Path) -> bool:
    """Whether FSDP or DeepSpeed wrote it, whose folders they check themselves."""
    folders = [*checkpoint.glob("pytorch_model_fsdp*"), *checkpoint.glob("global_step*")]
    return any(path.is_dir() for path in folders)


def _weight_files(checkpoint: Path) -> list[str]:
    """The file of the weights, or the index of a large model's and the files in it."""
    index = checkpoint / "model.safetensors.index.json"
    if not index.is_file() or not _is_json(index):
        return [index.name if index.is_file() else "model.safetensors"]
    return [index.name, *sorted(set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()))]


def _is_json(path: Path) -> bool:
    """Whether a file holds a JSON object to its end."""
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False


def _is_safetensors(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            header = json.loads(file.read(length)) if 8 + length <= size else None
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, AttributeError, KeyError, TypeError):  # whatever another file holds there
        return False
    return size == 8 + length + max(ends, default=0)


def _is_archive(path: Path) -> bool:
    """Whether a file of torch.save, a zip archive, has its table of contents, which is written last."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


_READERS = {".json": _is_json, ".safetensors": _is_safetensors, ".pt": _is_archive, ".pth": _is_archive}


class PrithviTrainer(Trainer):
    """A `Trainer` that evaluates whole chips by sliding window and never holds more than one batch of logits.

    Each process evaluates its own share of the chips and adds up a confusion matrix; the matrices are summed once at
    the end, so every chip counts exactly once, whatever the number of processes. Metrics are those of
    `segmentation_metrics`, with the prefix (`eval_`, `test_`, ...) in front; `loss` is that of the averaged logits,
    over all valid pixels or, with a Dice loss, over the chips.
    """

    args: PrithviTrainingArguments

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        """Make the original's poly schedule, or the named one of transformers.

        Args:
            num_training_steps (`int`): Optimisation steps in all.
            optimizer (`torch.optim.Optimizer`, *optional*): The optimizer; the Trainer's own by default.
        """
        warmup_steps = self.args.get_warmup_steps(num_training_steps)
        if warmup_steps >= num_training_steps > 0:
            logger.warning_once(
                f"The warm-up of {warmup_steps} steps outlasts the run of {num_training_steps}: the learning rate "
                "never comes near its full value. Lower --warmup_steps."
            )
        if self.lr_scheduler is None and self.args.lr_scheduler_type == SchedulerType.POLYNOMIAL:
            self.lr_scheduler = get_poly_schedule_with_warmup(
                optimizer or self.optimizer,
                warmup_steps,
                num_training_steps,
                **(self.args.lr_scheduler_kwargs or {}),
            )
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters under weight decay: all, or matrices and kernels without the class token.

        Args:
            model (`nn.Module`): The model to be optimised.
        """
        return [
            name
            for name, parameter in model.named_parameters()
            if self.args.decay_all_parameters or (parameter.ndim > 1 and not name.endswith("cls_token"))
        ]

    @staticmethod
    def get_optimizer_cls_and_kwargs(
        args: TrainingArguments, model: PreTrainedModel | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Class and arguments of the optimizer: torch's Adam for `optim: adam`, else transformers' choice.

        Args:
            args (`TrainingArguments`): The options.
            model (`PreTrainedModel`, *optional*): The model, which some optimizers of transformers need.
        """
        if args.optim != PLAIN_ADAM:
            return Trainer.get_optimizer_cls_and_kwargs(args, model)
        betas = (args.adam_beta1, args.adam_beta2)
        return torch.optim.Adam, {"lr": args.learning_rate, "betas": betas, "eps": args.adam_epsilon}

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Normalise, on the device, crops that come as they are in their files.

        In place, so that what the Trainer counts of a batch it still finds there.
        """
        if "file_values" in inputs:
            file_values = self._prepare_input(inputs.pop("file_values"))
            inputs["pixel_values"] = self.processing_class.normalize_file_values(file_values)
            inputs["labels"] = self._prepare_input(inputs["labels"]).long()
        return super()._prepare_inputs(inputs)

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        """Batches of whole chips of this process's share: chip `i` goes to process `i` modulo their number.

        Args:
            eval_dataset (`Dataset` or `str`, *optional*): A data set, or the key of one of `self.eval_dataset`.

        Raises:
            ValueError: There is no evaluation data set.
        """
        if eval_dataset is None or isinstance(eval_dataset, str):
            eval_dataset = self.eval_dataset if eval_dataset is None else self.eval_dataset[eval_dataset]
        if eval_dataset is None:
            raise ValueError("Expected an evaluation data set, found none: pass eval_dataset to the trainer.")
        share = range(self.args.process_index, len(eval_dataset), self.args.world_size)
        return DataLoader(
            Subset(eval_dataset, share),
            batch_size=self.args.per_device_eval_batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        """Batches of whole chips of this process's share, for `predict`.

        Args:
            test_dataset (`Dataset`): The data set.
        """
        return self.get_eval_dataloader(test_dataset)

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
        num_labels = self.model.config.num_labels
        matrix = torch.zeros(num_labels, num_labels, dtype=torch.int64, device=self.args.device)
        # Loss x weight, weight, chips; Apple's GPUs have no float64.
        dtype = torch.float32 if self.args.device.type == "mps" else torch.float64
        totals = torch.zeros(3, dtype=dtype, device=self.args.device)
        for logits, labels in self._predicted_chips(dataloader):
            matrix += confusion_matrix(logits.argmax(dim=1), labels, num_labels)
            loss = self.model.segmentation_loss(logits, labels)
            # Dice is a mean over images, the other losses are one over valid pixels.
            by_chip = "dice" in self.model.config.loss
            weight = totals.new_tensor(len(labels)) if by_chip else (labels != -100).sum().to(dtype)
            totals += torch.stack([loss.to(dtype) * weight, weight, totals.new_tensor(len(labels))])
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        matrix, totals = (self.accelerator.reduce(tensor, reduction="sum") for tensor in (matrix, totals))
        weighted_loss, weight, chips = totals.tolist()
        metrics = metrics_from_confusion_matrix(matrix)
        metrics["loss"] = weighted_loss / weight if weight else None
        prefixed = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=prefixed, num_samples=int(chips))

    @torch.no_grad()
    def _predicted_chips(self, dataloader: DataLoader) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        """Averaged logits `(B, num_labels, H, W)` and labels `(B, H, W)` of every batch, on the device."""
        window, stride = window_and_stride(self.model.config, self.args.eval_window, self.args.eval_overlap)
        for batch in dataloader:
            with self.accelerator.autocast():
                logits = sliding_window_logits(
                    self.model, batch["pixel_values"], window, stride, self.args.eval_window_batch_size
                )
            yield logits, batch["labels"].to(logits.device)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> CommitInfo | None:
        """Upload the output folder with the code that loads it; card and pictures are those that lie there.

        Args:
            commit_message (`str`, *optional*): Message of the commit.
            blocking (`bool`, defaults to `True`): Kept for the Trainer's signature; the upload is always waited for.
            token (`str`, *optional*): Access token; `hub_token` or the stored one by default.
            revision (`str`, *optional*): Branch to commit to.
            private (`bool`, *optional*): Whether a new repository is private.
            kwargs: Kept for the Trainer's signature (fields of its own model card).

        Returns:
            The commit in the first process, None in the others.
        """
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        return push_folder_to_hub(
            self.args.output_dir,
            self.args.hub_model_id or Path(self.args.output_dir).resolve().name,
            commit_message=commit_message or "End of training",
            token=token or self.args.hub_token,
            revision=revision or self.args.hub_revision,
            private=private if private is not None else self.args.hub_private_repo,
        )

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Log the single figures; lists (one value a class) are for the results, trackers cannot draw them.

        Args:
            logs (`dict[str, Any]`): Figures by name.
            start_time (`float`, *optional*): Start of training.
        """
        figures = _single_figures(logs)
        super().log(figures, start_time)
        if self.state.global_step:  # the base class adds the epoch, which belongs to the results of a training
            logs.update(figures)

    def log_metrics(self, split: str, metrics: dict[str, Any]) -> None:
        """Print the single figures of a split; the lists are in the saved results.

        Args:
            split (`str`): Name to print.
            metrics (`dict[str, Any]`): Figures by name.
        """
        super().log_metrics(split, _single_figures(metrics))


def _single_figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics without the lists of one value a class, and without what is not defined (None)."""
    return {name: value for name, value in metrics.items() if value is not None and not isinstance(value, list)}


__all__ = [
    "PrithviTrainer",
    "PrithviTrainingArguments",
    "find_damage",
    "find_last_checkpoint",
    "get_poly_schedule_with_warmup",
]
