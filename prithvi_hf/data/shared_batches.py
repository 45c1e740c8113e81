# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Batches from the workers of a DataLoader through shared memory that is used again.

torch makes a new shared memory file for every tensor that leaves a worker. Its pages are zeroed and mapped one by one
as they are written, which takes several times as long as cutting the crops themselves. Here each worker keeps one file
of a few slots: it makes a batch in a free slot and sends the slot's number; the receiving process uses the memory as
it is and frees the slot when the last tensor on it is gone. Where no slot is free, and outside workers, batches are
ordinary tensors, so a program that keeps all its batches loses nothing but the gain.
"""

import itertools
import math
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.reduction import ForkingPickler

import numpy as np
import psutil
import torch
from torch.utils.data import get_worker_info


# A worker has two batches on their way by default and one in the making; the trainer holds two, and one for each step
# of gradient accumulation. Memory is taken only by slots that were ever used, and the first free one is used first.
_SLOTS = 8
_PAGE = 4096
_FREE, _TAKEN, _SENT = 0, 1, 2

Batch = dict[str, torch.Tensor]
Key = tuple[int, int]  # process and count of a memory
Layout = list[tuple[str, tuple[int, ...], str]]  # name, shape and numpy type of each tensor

_counter = itertools.count()
_own: "_Memory | None" = None  # of this worker
_received: dict[Key, np.ndarray] = {}  # of the workers whose batches this process takes


class _Memory:
    """The shared memory of one worker: a page with one state per slot, then the slots."""

    def __init__(self, slot_bytes: int) -> None:
        self.slot_bytes = -(-slot_bytes // _PAGE) * _PAGE
        self.key = (os.getpid(), next(_counter))
        storage = torch.UntypedStorage._new_shared(_PAGE + _SLOTS * self.slot_bytes)
        self.tensor = torch.empty(0, dtype=torch.uint8).set_(storage)
        self.is_announced = False  # whether the receiver has it


class _SlotBatch(dict[str, torch.Tensor]):
    """Tensors in a slot; another process gets a plain dict of tensors on the same memory."""

    def __init__(self, tensors: Batch, memory: _Memory, slot: int, layout: Layout) -> None:
        super().__init__(tensors)
        self.memory, self.slot, self.layout, self.own = memory, slot, layout, list(tensors.items())


class BatchRows(Sequence[Batch]):
    """The rows of a batch that is whole: collation takes it as it is, anyone else takes the rows, without a copy."""

    def __init__(self, batch: Batch, count: int) -> None:
        self.batch, self._rows = batch, range(count)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Batch:  # type: ignore[override]  # rows are taken one by one
        row = self._rows[index]  # an index beyond them ends a loop
        return {name: values[row] for name, values in self.batch.items()}


def make_batch(shapes: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> Batch:
    """Make tensors for a batch, whose values are not set; in a worker in a slot of its memory, if one is free."""
    global _own
    if get_worker_info() is not None:
        layout = [(name, shape, str(dtype).removeprefix("torch.")) for name, (shape, dtype) in shapes.items()]
        if _own is None or _own.key[0] != os.getpid() or _own.slot_bytes < _locate(layout)[-1]:
            _own = _Memory(_locate(layout)[-1])  # an earlier one lives as long as tensors on it
        states = _own.tensor.numpy()[:_SLOTS]
        slot = states.tobytes().find(_FREE)
        if slot >= 0:
            states[slot] = _TAKEN
            batch = _open_slot(_own.tensor.numpy(), _own.slot_bytes, slot, layout, _TAKEN)
            return _SlotBatch(batch, _own, slot, layout)
    return {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in shapes.items()}


def _locate(layout: Layout) -> list[int]:
    """Give where each tensor begins in a slot, in bytes, and last where all end."""
    sizes = [-(-math.prod(shape) * np.dtype(dtype).itemsize // 64) * 64 for _, shape, dtype in layout]
    return [0, *itertools.accumulate(sizes)]


def _open_slot(memory: np.ndarray, slot_bytes: int, slot: int, layout: Layout, state: int) -> Batch:
    """Give tensors on a slot, which is free again when the last one is gone while it is in `state`."""
    *offsets, size = _locate(layout)
    # Every tensor holds on to this one array, and it to the memory.
    whole = np.frombuffer(memory.data, dtype=np.uint8, count=size, offset=_PAGE + slot * slot_bytes)
    weakref.finalize(whole, _release, memory, slot, state).atexit = False
    return {
        name: torch.from_numpy(np.ndarray(shape, dtype, whole, offset))
        for (name, shape, dtype), offset in zip(layout, offsets, strict=True)
    }


def _release(memory: np.ndarray, slot: int, state: int) -> None:
    """Free a slot: in its worker one that was never sent, in the receiver one that was."""
    if memory[slot] == state:
        memory[slot] = _FREE


def _reduce(batch: _SlotBatch) -> tuple[Callable[..., object], tuple[object, ...]]:
    """Send the memory with the first batch, later only the number of the slot."""
    if [(name, id(tensor)) for name, tensor in batch.items()] != [(name, id(tensor)) for name, tensor in batch.own]:
        return dict, (list(batch.items()),)  # something else was put in
    memory = batch.memory
    tensor, memory.is_announced = None if memory.is_announced else memory.tensor, True
    memory.tensor[batch.slot] = _SENT
    return _receive, (memory.key, tensor, memory.slot_bytes, batch.slot, batch.layout)


def _receive(key: Key, tensor: torch.Tensor | None, slot_bytes: int, slot: int, layout: Layout) -> Batch:
    """Take a batch in the receiving process."""
    if tensor is not None:
        for gone in [other for other in _received if not psutil.pid_exists(other[0])]:
            del _received[gone]
        _received[key] = tensor.numpy()
    return _open_slot(_received[key], slot_bytes, slot, layout, _SENT)


# Only for queues between processes: `copy` and `pickle` treat the batch as the dict that it is.
ForkingPickler.register(_SlotBatch, _reduce)
