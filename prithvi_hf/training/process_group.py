# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Leaving torch's process group at the end of a program."""

import gc
from typing import Any

import torch.distributed
from transformers import Trainer


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
        model: Any = trainer.model
        trainer.model_wrapped = model
        trainer.accelerator.free_memory()
    gc.collect()
    torch.distributed.destroy_process_group()
