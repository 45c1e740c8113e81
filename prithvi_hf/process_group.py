# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Leaving torch's process group at the end of a program."""

import torch.distributed


def leave_process_group() -> None:
    """Leave the process group that training joined under `torchrun` or `accelerate launch`, if there is one.

    A process that exits as a member of a gloo group may abort (exit status -6, "terminate called without an active
    exception"): the group's threads still hold tensors, and give them back to an interpreter that is gone
    (pytorch/pytorch 190489). The launcher then reports a run as failed that was complete.

    Call it once all communication is done, and not after an error: leaving waits for the other processes with NCCL,
    and they may wait for what the failed one never sent.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
