# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Stopping a training that is asked to end: a checkpoint after the step at hand, in all processes alike."""

import signal
import threading
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prithvi_hf.training.process_group import find_largest


SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What schedulers and clouds send some time before they kill."""


class RunPreemptedError(Exception):
    """The training stopped because a signal asked for it; its last checkpoint is of the step that it names."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}")
        self.number = number


class StopOnSignal(TrainerCallback):
    """Save a checkpoint after the step in which a signal came to any process, and end the training in all.

    transformers' own `enable_jit_checkpoint` stops each process after a step of its own, and the training then ends as
    one that is complete. A second signal of the kind acts as it did before the training.
    """

    def __init__(self) -> None:
        self.received, self.agreed = 0, 0  # by this process, and what all processes stop for
        self.previous: dict[int, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Listen to the signals, which Python allows in the main thread alone."""
        if threading.current_thread() is threading.main_thread():
            self.previous = {number: signal.signal(number, self.receive) for number in SIGNALS}

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Remember a signal until the step ends."""
        self.received = number
        self.stop_listening()

    def stop_listening(self) -> None:
        """Give the signals back."""
        for number, handler in self.previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self.previous = {}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask all processes, which must save and stop after the same step."""
        self.agreed = find_largest(self.received, args.world_size)
        control.should_save |= self.agreed > 0

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """End the training once the checkpoint is whole."""
        if self.agreed:  # a signal that came since the step ended waits for the next one: others do not know of it
            self.stop_listening()
            raise RunPreemptedError(self.agreed, state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let signals end what follows the training, which can be run again."""
        self.stop_listening()
