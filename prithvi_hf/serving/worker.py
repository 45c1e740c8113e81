# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The process that holds the model and makes the maps, one job at a time, and the server's end of it.

Files of clients are decoded there: what goes wrong in it, a crash or a lack of memory, ends one job and not the
server, and a job that does not stop in time can be killed. The two talk over a pipe.
"""

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from prithvi_hf.serving.settings import Settings


STOP_SECONDS = 20.0
"""How long a job may take to stop: its batch of windows, or what is left of the last pass."""
_POLL_SECONDS = 0.2
_TELL_SECONDS = 0.25  # between two reports of progress


class Task(NamedTuple):
    """What is to be mapped."""

    folder: str  # of the job
    files: list[str]  # in the folder
    names: list[str]  # what the client calls them
    options: dict[str, Any]


class Outcome(NamedTuple):
    """What became of a task."""

    status: str  # "done", "failed", "stopped"
    content: Any  # the summary; status and message of the failure; why it was stopped


class WorkerError(Exception):
    """The process could not be started, or the model not be loaded."""


class _StopTaskError(Exception):
    """The server wants the task to stop."""


class Worker:
    """The server's end: it starts the process, gives it tasks, and starts another one when it has died.

    One thread at a time may use it.

    Args:
        settings: The model and how it runs.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self.info: dict[str, Any] = {}
        self.restarts = -1

    @property
    def process_id(self) -> int | None:
        """Of the process, None where there is none."""
        return self._process.pid if self.is_alive and self._process is not None else None

    @property
    def is_alive(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.is_alive()

    def start(self) -> None:
        """Start the process and wait until the model is loaded.

        Raises:
            WorkerError: If the model cannot be loaded; the message says why.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve_tasks, args=(theirs, self._settings), name="prithvi-hf worker")
        self._process.start()
        theirs.close()
        self.restarts += 1
        try:
            kind, content = self._pipe.recv()
        except (EOFError, OSError):
            kind, content = "failed", self._describe_end()
        if kind != "ready":
            self.close()
            raise WorkerError(content)
        self.info = content

    def run(
        self, task: Task, on_progress: Callable[[int, int], object], should_stop: Callable[[], str | None]
    ) -> Outcome:
        """Map a scene and wait for it.

        Args:
            task: The scene.
            on_progress: Called with the windows that are done and those in all.
            should_stop: Asked all the time; a text is why the task has to stop.
        """
        if not self.is_alive or self._pipe is None:
            self.start()
        pipe, reason, deadline = self._pipe, None, 0.0
        assert pipe is not None  # noqa: S101 - `start` made it
        try:
            pipe.send(("task", task))
            while True:
                if pipe.poll(_POLL_SECONDS):
                    kind, content = pipe.recv()
                    if kind == "progress":
                        on_progress(*content)
                    elif kind == "stopped":
                        return Outcome("stopped", reason or "")
                    else:
                        return Outcome(kind, content)
                if reason is None and (reason := should_stop()) is not None:
                    pipe.send(("stop", None))
                    deadline = time.monotonic() + STOP_SECONDS
                if reason is not None and time.monotonic() > deadline:
                    self.close()
                    return Outcome("stopped", reason)
        except (EOFError, OSError):
            message = self._describe_end()
            self.close()
            return Outcome("stopped", reason) if reason else Outcome("failed", (500, message))

    def close(self, seconds: float = 0.0) -> None:
        """End the process, within some seconds if it does nothing; what it has finished of a map is kept."""
        if self._pipe is not None:
            with suppress(OSError):  # it has ended
                self._pipe.send(("end", None))
        if self._process is not None:
            self._process.join(seconds)
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._pipe = self._process = None

    def _describe_end(self) -> str:
        """Say how the process ended."""
        if self._process is None:
            return "the process that makes maps is not there"
        self._process.join(STOP_SECONDS)
        code = self._process.exitcode
        how = f"status {code}"
        if code is not None and code < 0:
            how = f"signal {signal.Signals(-code).name}, as where memory ran out" if code == -9 else f"signal {-code}"
        return f"Expected the process that makes maps to go on, found that it ended ({how}). Try a smaller scene."


def serve_tasks(pipe: Connection, settings: Settings) -> None:
    """Load the model, then map scenes until the server closes the pipe: what the process runs."""
    for number in (signal.SIGINT, signal.SIGTERM):  # which a terminal or a manager of services gives to all processes
        signal.signal(number, signal.SIG_IGN)
    from prithvi_hf.cli.common import import_quickly, load_model, resolve_device, user_message

    try:
        with import_quickly():
            import torch

            from prithvi_hf.scenes import predict_scene  # noqa: F401 - before the first job
            from prithvi_hf.serving.results import write_map

            device = resolve_device(settings.device, settings.model)
            model, image_processor = load_model(settings.model, trust_remote_code=settings.trust_remote_code)
            if settings.dtype != "auto":
                model.to(getattr(torch, settings.dtype))
            model.to(device)
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        pipe.send(("failed", message))
        return
    tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
    stop = threading.Event()

    def listen() -> None:
        """Take what the server sends; when it is gone, so is this process, and finished strips are kept."""
        try:
            while True:
                kind, content = pipe.recv()
                if kind == "stop":
                    stop.set()
                    continue
                stop.clear()
                tasks.put(content)
                if kind == "end":
                    return
        except (EOFError, OSError):
            os._exit(0)

    threading.Thread(target=listen, daemon=True, name="server listener").start()
    pipe.send(("ready", {"task": model.task, "device": device}))
    while (task := tasks.get()) is not None:
        told = -1.0

        def tell(done: int, total: int) -> None:
            """Tell the server now and then, and stop where it wants that."""
            nonlocal told
            if stop.is_set():
                raise _StopTaskError
            now = time.monotonic()
            if now - told > _TELL_SECONDS or done == total:
                told = now
                pipe.send(("progress", (done, total)))

        try:
            summary = write_map(model, image_processor, task, settings, device, tell)
            pipe.send(("done", summary))
        except _StopTaskError:
            pipe.send(("stopped", None))
        except Exception as error:
            pipe.send(("failed", _explain(error, task)))


def _explain(error: Exception, task: Task) -> tuple[int, Mapping[str, Any] | str]:
    """Explain why a task failed, as a status and a message without paths of the server."""
    from prithvi_hf.serving.errors import ApiError
    from prithvi_hf.serving.frames import explain_frame_error

    if isinstance(error, ApiError):
        return error.status, str(error)
    folder = Path(task.folder)
    message = explain_frame_error(error, [folder / file for file in task.files], task.names)
    if message is not None:
        return 422 if isinstance(error, ValueError) else 500, message
    import logging

    logging.getLogger("uvicorn.error").exception("A map could not be made because of a fault of the program.")
    return 500, "Expected a map, found a fault of the program. Tell the operator of this server, whose log has more."
