# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Torch's process group: work that the others wait for, batch normalisation over all processes, and leaving it."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

import torch.distributed
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import Trainer

from prithvi_hf.training.training_args import PrithviTrainingArguments


_LONGEST_WAIT = timedelta(days=7)

Result = TypeVar("Result")


class _AllReduce(torch.autograd.Function):
    """The sum over all processes; so is the gradient, because each process's loss depends on it."""

    @staticmethod
    def forward(context: Any, values: torch.Tensor) -> torch.Tensor:
        """Add up the values of all processes."""
        total = values.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> torch.Tensor:
        """Add up the gradients of all processes."""
        return _AllReduce.forward(context, gradients[0])


class SynchronizedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the batches of all processes on any device; `nn.SyncBatchNorm` is for GPUs alone."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Normalise `(B, C, H, W)`, B may differ between processes."""
        if not self.training:
            return super().forward(features)
        wide, axes = features.float(), (0, 2, 3)
        count = features.new_tensor([features.numel() / features.shape[1]], dtype=torch.float32)
        total: Any = _AllReduce.apply(torch.cat([wide.sum(axes), count]))
        mean, number = total[:-1] / total[-1], total[-1].detach()
        centred = wide - mean[:, None, None]
        variance: Any = _AllReduce.apply(centred.square().sum(axes)) / number  # a second round: no cancellation
        running: Any = self
        with torch.no_grad():
            running.num_batches_tracked.add_(1)
            momentum = 1 / float(running.num_batches_tracked) if self.momentum is None else self.momentum
            running.running_mean.lerp_(mean, momentum)
            running.running_var.lerp_(variance * number / (number - 1), momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(features.dtype)


@contextmanager
def synchronize_batch_norm(model: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Within it, batch normalisation in training takes its statistics over the batches of all processes.

    Outside, the modules are the plain ones that inference can fold into its kernels.
    """
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    modules = model.modules() if enabled and several and torch.distributed.get_world_size() > 1 else ()
    plain: list[Any] = [module for module in modules if type(module) is nn.BatchNorm2d and module.track_running_stats]
    for module in plain:
        on_gpu = module.weight.device.type == "cuda"
        module.__class__ = nn.SyncBatchNorm if on_gpu else SynchronizedBatchNorm2d
        module.process_group = None  # all processes
    try:
        yield
    finally:
        for module in plain:
            module.__class__ = nn.BatchNorm2d
            del module.process_group


def run_in_first_process(training: PrithviTrainingArguments, work: Callable[[], None]) -> None:
    """Do work in the first process while the others wait, for days if need be; what is wrong is raised in all of them.

    The time-out of the training's own communication (`ddp_timeout`) is meant for steps, which take seconds. A first
    process that dies closes its connections, which ends the wait of the others at once.
    """
    outcome: list[str | None] = [None]
    group = _join_patient_group(torch.distributed.group.WORLD) if training.world_size > 1 else None
    if training.process_index == 0:
        try:
            work()
        except (ValueError, OSError) as error:
            outcome = [str(error)]
    # The others learn of the error too, instead of waiting for a process that has ended.
    if group is not None:
        torch.distributed.broadcast_object_list(outcome, group=group, device=torch.device("cpu"))
    if outcome[0] is not None:
        raise ValueError(outcome[0])


def compute_in_first_process(training: PrithviTrainingArguments, compute: Callable[[], Result]) -> Result:
    """Compute something in the first process, as [`run_in_first_process`] works there, and give it to all."""
    found: list[Any] = [None]

    def work() -> None:
        found[0] = compute()

    run_in_first_process(training, work)
    if training.world_size > 1:
        broadcast_object_list(found)
    return found[0]


def find_largest(value: int, world_size: int) -> int:
    """Find the largest of the values of all processes, on the CPU, so that no GPU is waited for."""
    if world_size == 1:
        return value
    largest = torch.tensor(value)
    group = _join_patient_group(torch.distributed.group.WORLD)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX, group)
    return int(largest)


@lru_cache(maxsize=1)
def _join_patient_group(world: Any) -> Any:
    """Make a group of all processes of the world for waits without an end; gloo communicates between CPUs."""
    return torch.distributed.new_group(backend="gloo", timeout=_LONGEST_WAIT)


def has_unused_parameters(model: nn.Module) -> bool:
    """Whether parameters get no gradient in a training step: those of encoder layers past the last that is asked for.

    `DistributedDataParallel` waits for all gradients unless it is told to look for those that never come.
    """
    config: Any = getattr(model, "config", None)
    depth = getattr(config, "num_hidden_layers", None)
    return depth is not None and max(getattr(config, "feature_layers", [depth - 1])) < depth - 1


def leave_process_group(trainer: Trainer | None = None) -> None:
    """Leave the process group that was joined under `torchrun` or `accelerate launch`, if there is one.

    The threads of a gloo group give back the tensors of the last communication a moment after it, for which they need
    the interpreter. A process that ends as a member may therefore abort ("terminate called without an active
    exception", pytorch/pytorch 190489), and the launcher reports a run as failed that was complete. And one that
    leaves before its `DistributedDataParallel` is gone may wait for ever: that is then the last to hold the group, and
    its end waits for those threads without letting go of the interpreter. So the trainer's wrapped model goes first.

    Call it once all communication is done, and not after an error: leaving waits for the other processes with NCCL,
    and they may wait for what the failed one never sent.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    if trainer is not None:
        release_trainer(trainer)
    _join_patient_group.cache_clear()
    gc.collect()
    torch.distributed.destroy_process_group()


def release_trainer(trainer: Trainer) -> None:
    """Let go of the wrapped model, the optimizer and the loaders of a trainer that has done its work."""
    model: Any = trainer.model
    trainer.model_wrapped = model
    trainer.accelerator.free_memory()
