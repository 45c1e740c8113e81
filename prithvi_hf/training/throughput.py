# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""How fast a training goes: chips per second, the share of time that it waits for data, and its memory."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from accelerate import Accelerator


try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

Batch = Mapping[str, torch.Tensor]


class Throughput:
    """What the steps since the last measurement took, in each process until [`measure`].

    Evaluations and saving do not count as time of the training. Nothing here waits for the device.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._start: float | None = None  # when the first batch since the last measurement was asked for
        self._chips, self._waited, self._paused = 0, 0.0, 0.0

    def watch(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Give batches as they come, and note how long each was waited for, its way to the device included."""
        while True:
            asked = time.perf_counter()
            self._start = asked if self._start is None else self._start
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waited += time.perf_counter() - asked
            self._chips += len(next(iter(batch.values())))
            yield batch

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Leave out what is done within it: evaluating, or saving a checkpoint."""
        began = time.perf_counter()
        try:
            yield
        finally:
            if self._start is not None:
                self._paused += time.perf_counter() - max(began, self._start)

    def measure(self) -> dict[str, float]:
        """Give the figures of all processes together since the last call, and begin again; all have to call it.

        Returns:
            `dict`: `chips_per_second` of all processes together; `data_wait`, from 0 to 1, the share of the time in
            which a process waited for its batches, on average; and `memory_gb`, the largest of any process so far
            (see [`find_peak_memory`]). Empty where there was no step.
        """
        if self._start is None:
            return {}
        elapsed = time.perf_counter() - self._start - self._paused
        own = torch.tensor([self._chips, self._waited, elapsed, find_peak_memory(self.accelerator.device) / 1e9])
        figures = self.accelerator.gather(own.to(self.accelerator.device)[None]).cpu()  # (processes, 4)
        self._start, self._chips, self._waited, self._paused = None, 0, 0.0, 0.0
        chips, waited, seconds, memory = figures.T
        return {
            "chips_per_second": round(float(chips.sum() / seconds.max()), 2),
            "data_wait": round(float((waited / seconds).mean()), 3),
            "memory_gb": round(float(memory.max()), 3),
        }


def find_peak_memory(device: torch.device) -> int:
    """Give the most bytes that this process has held so far: on a CUDA device torch's tensors, else its own memory.

    Its own memory includes mapped files such as decoded chips, as far as they were read, but not loading processes.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if resource is None:
        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if psutil.MACOS else peak * 1024
