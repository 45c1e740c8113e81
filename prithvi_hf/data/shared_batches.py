# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Batches from the workers of a DataLoader through shared memory that is used again.

torch makes a new shared memory file for every tensor that leaves a worker. Its pages are zeroed and mapped one by one
as they are written, which takes several times as long as cutting and normalising the crops themselves. Here each
worker keeps one file of a few slots: it writes a batch into a free slot and sends its number; the receiving process
uses the slot's memory as it is and frees it when the last tensor on it is gone. Where no slot is free, and outside
workers, batches are ordinary tensors, so a program that keeps all its batches loses nothing but the gain.
"""

import itertools
import math
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info


# A worker has two batches on their way by default and one in the making; the trainer holds two, and one for each step
# of gradient accumulation. Memory is taken only by slots that were ever used, and the first free one is used first.
_SLOTS = 8
_PAGE = 4096
_FREE, _TAKEN, _SENT = 0, 1, 2

# Name, shape and numpy data type of each tensor.
Layout = tuple[tuple[str, tuple[int, ...], str], ...]


class _Slots:
    """The shared memory of one worker: a page of one state a slot, then the slots."""

    _counter = itertools.count()

    def __init__(self, slot_bytes: int) -> None:
        self.slot_bytes = -(-slot_bytes // _PAGE) * _PAGE
        self.key = (os.getpid(), next(self._counter))
        storage = torch.UntypedStorage._new_shared(_PAGE + _SLOTS * self.slot_bytes)
        self.memory = torch.empty(0, dtype=torch.uint8).set_(storage)
        self.bytes = self.memory.numpy()
        self.states = self.bytes[:_SLOTS]
        self.address = self.memory.data_ptr()
        self.announced = False

    def take(self) -> int | None:
        """A free slot, taken now, if there is one."""
        slot = self.states.tobytes().find(_FREE)
        if slot < 0:
            return None
        self.states[slot] = _TAKEN
        return slot

    def address_of(self, slot: int) -> int:
        """Address of a slot's first tensor."""
        return self.address + _PAGE + slot * self.slot_bytes


class SharedBatch(dict):
    """Tensors of a batch that lie in a slot; another process gets a plain dict of tensors on the same memory."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], slots: _Slots, slot: int) -> None:
        super().__init__(tensors)
        self.slots, self.slot = slots, slot


class BatchRows(Sequence[dict[str, torch.Tensor]]):
    """The rows of a batch that is whole: a collation takes it as it is, anyone else row by row, without a copy.

    Args:
        batch (`dict[str, torch.Tensor]`): tensors with the rows along their first axis.
    """

    def __init__(self, batch: dict[str, torch.Tensor]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(next(iter(self.batch.values())))

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)  # which ends a loop over the rows
        return {name: tensor[index] for name, tensor in self.batch.items()}


# Of a worker: its slots, and which of them a tensor that is alive lies in, by the address of its memory.
_own: _Slots | None = None
_taken: dict[int, tuple[_Slots, int, tuple[int, ...]]] = {}
# Of a receiving process: memory of its workers.
_received: dict[tuple[int, int], np.ndarray] = {}


def empty_batch(shapes: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> dict[str, torch.Tensor]:
    """Uninitialised tensors for a batch; in a worker of a DataLoader in a slot of its shared memory, if one is free.

    Args:
        shapes (`Mapping[str, tuple]`): shape and data type of each tensor.

    Returns:
        `dict[str, torch.Tensor]`: the tensors, contiguous.
    """
    if get_worker_info() is not None:
        layout = tuple([(name, shape, _numpy_name(dtype)) for name, (shape, dtype) in shapes.items()])
        slots = _slots_of(_places(layout)[1])
        slot = slots.take()
        if slot is not None:
            address = slots.address_of(slot)
            tensors = _tensors_in(slots.bytes, slots.slot_bytes, slot, layout, _release_unsent, address)
            _taken[address] = (slots, slot, _addresses(tensors))
            return tensors
    return {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in shapes.items()}


def pack_batch(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Makes a batch of `empty_batch` ready to leave its worker; any other dict is returned as it is.

    Args:
        tensors (`dict[str, torch.Tensor]`): a batch, whole.
    """
    addresses = _addresses(tensors)
    slots, slot, own = _taken.get(addresses[0], (None, 0, ()))
    return SharedBatch(tensors, slots, slot) if slots and own == addresses else tensors


def _slots_of(slot_bytes: int) -> _Slots:
    """The slots of this worker; new ones when they are too small. The old ones live as long as tensors on them."""
    global _own
    if _own is None or _own.key[0] != os.getpid() or _own.slot_bytes < slot_bytes:
        _own = _Slots(slot_bytes)
    return _own


@lru_cache(maxsize=16)
def _numpy_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@lru_cache(maxsize=64)
def _places(layout: Layout) -> tuple[list[int], int]:
    """Offset of each tensor in a slot, and the bytes of all."""
    sizes = [-(-math.prod(shape) * np.dtype(dtype).itemsize // 64) * 64 for _, shape, dtype in layout]
    return [0, *itertools.accumulate(sizes)][:-1], sum(sizes)


def _addresses(tensors: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
    return tuple([tensor.data_ptr() for tensor in tensors.values()])


def _tensors_in(
    memory: np.ndarray, slot_bytes: int, slot: int, layout: Layout, release: Callable[..., None], *arguments: Any
) -> dict[str, torch.Tensor]:
    """Tensors on a slot's memory; `release` is called when the last of them is gone."""
    offsets, size = _places(layout)
    # Every tensor holds on to this one array, and it to the memory.
    whole = np.frombuffer(memory.data, dtype=np.uint8, count=size, offset=_PAGE + slot * slot_bytes)
    weakref.finalize(whole, release, memory, slot, *arguments).atexit = False
    return {
        name: torch.from_numpy(np.ndarray(shape, dtype, whole, offset))
        for (name, shape, dtype), offset in zip(layout, offsets, strict=True)
    }


def _release_unsent(memory: np.ndarray, slot: int, address: int) -> None:
    """In the worker: a batch that was never sent frees its slot; a sent one is the receiver's."""
    _taken.pop(address, None)
    if memory[slot] == _TAKEN:
        memory[slot] = _FREE


def _release_received(memory: np.ndarray, slot: int) -> None:
    memory[slot] = _FREE


def _reduce(batch: SharedBatch) -> tuple[Any, ...]:
    """What a queue sends: the memory with the first batch, later only the number of the slot."""
    slots = batch.slots
    memory = None if slots.announced else slots.memory
    slots.announced = True
    slots.states[batch.slot] = _SENT
    layout = tuple([(name, tuple(tensor.shape), _numpy_name(tensor.dtype)) for name, tensor in batch.items()])
    return _receive, (slots.key, memory, slots.slot_bytes, batch.slot, layout)


def _receive(
    key: tuple[int, int], memory: torch.Tensor | None, slot_bytes: int, slot: int, layout: Layout
) -> dict[str, torch.Tensor]:
    if memory is not None:
        for other in [other for other in _received if not _is_alive(other[0])]:
            del _received[other]
        _received[key] = memory.numpy()
    return _tensors_in(_received[key], slot_bytes, slot, layout, _release_received)


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


# Only for queues between processes: `copy` and `pickle` treat the batch as the dict that it is.
ForkingPickler.register(SharedBatch, _reduce)


__all__ = ["BatchRows", "SharedBatch", "empty_batch", "pack_batch"]
