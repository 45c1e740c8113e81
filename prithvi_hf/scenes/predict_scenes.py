# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Many scenes, or one large scene, on the processes of one launch.

`accelerate launch`, `torchrun`, `srun` and `mpirun` start the same command several times. Processes talk over gloo, on
the CPU: what they exchange is a few words per scene, and gloo waits as long as the slowest scene takes, where NCCL
would give up after minutes.
"""

import datetime
import json
import os
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import torch

from prithvi_hf.outputs.cog import complete_or_absent
from prithvi_hf.scenes.scene_list import SceneEntry


DONE, SKIPPED, FAILED = "done", "skipped", "failed"
_PATIENCE = datetime.timedelta(days=30)  # of a process that is ready, with the others
_SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
LAUNCH_VARIABLES = (*_SIZES, "SLURM_STEP_NUM_TASKS")
"""Variables of the environment in which launchers say how many processes they started."""
_FIRST_PORT, _PORTS = 20_000, 20_000  # below the ports that systems hand out by themselves

T = TypeVar("T")


class OtherProcessError(OSError):
    """Another process of the run failed, so that this one cannot go on with their common scene."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of one launch."""

    index: int = 0  # number of this process
    count: int = 1
    local_index: int = 0  # number of this process on its machine
    _group: Any = field(default=None, repr=False, compare=False)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that reports and finishes."""
        return self.index == 0

    def gather(self, value: T) -> list[T]:
        """Give a small value to all processes, and get those of all in their order; waits until all have called it."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(values, value, group=self._group)
        return values

    def share(self, value: Any) -> Any:
        """Give all processes a value of the first one, which is not a text; waits until all have called it.

        Raises:
            OtherProcessError: If one of them failed in between, see `together`.
        """
        values = self.gather(value)
        problems = [f"process {index}: {text}" for index, text in enumerate(values) if text and isinstance(text, str)]
        if problems:
            raise OtherProcessError("; ".join(problems))
        return values[0]

    def barrier(self) -> None:
        """Wait until all processes have come this far.

        Raises:
            OtherProcessError: If one of them failed in between.
        """
        self.share(None)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Do something with all processes: none goes on before all are through, and when one fails all do.

        Raises:
            OtherProcessError: If another process failed; one that fails itself raises its own error.
        """
        try:
            yield
        except OtherProcessError:
            raise
        except Exception as error:
            self.gather(f"{type(error).__name__}: {error}")  # in place of the others' next barrier
            raise
        self.barrier()

    def select(self, items: Sequence[T]) -> list[T]:
        """Give the items of this process: every `count`-th, so that all finish about together."""
        return list(items[self.index :: self.count])

    def choose_device(self, name: str) -> str:
        """Choose the device of this process; several processes of a machine take its GPUs in turn.

        Args:
            name: "auto" (a GPU where there is one), "cuda" (this process's GPU), "cuda:1", "cpu".
        """
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cuda" and self.count > 1 and torch.cuda.device_count():
            return f"cuda:{self.local_index % torch.cuda.device_count()}"
        return name


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """Join the processes that were launched together until the block ends; a group of one without such a launch.

    Raises:
        ValueError: If the launcher's variables do not say where the first process is.
    """
    adopt_slurm(os.environ)
    sizes = [int(os.environ[name]) for name in _SIZES if os.environ.get(name, "").isdecimal()]
    if not sizes or sizes[0] < 2:
        yield ProcessGroup()
        return
    from accelerate import PartialState

    state = PartialState(cpu=True, backend="gloo")  # of the processes alone; each chooses its own device
    group = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
    try:
        yield ProcessGroup(state.process_index, state.num_processes, max(state.local_process_index, 0), group)
    finally:
        state.destroy_process_group()


def adopt_slurm(environ: MutableMapping[str, str]) -> None:
    """Say what `srun` says in the words of torch's launchers, where only `srun` started the processes.

    Raises:
        ValueError: If the nodes cannot be told.
    """
    tasks = environ.get("SLURM_STEP_NUM_TASKS", "")
    if "RANK" in environ or not tasks.isdecimal() or int(tasks) < 2:
        return
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_NODELIST", "")
    first = re.match(r"([^,\[\s]+)(?:\[(\w+))?", nodes)  # of a list such as gpu[03-06,9],login
    job = f"{environ.get('SLURM_JOB_ID', '0')}{environ.get('SLURM_STEP_ID', '0')}"
    found = {
        "RANK": environ.get("SLURM_PROCID", ""),
        "WORLD_SIZE": tasks,
        "LOCAL_RANK": environ.get("SLURM_LOCALID", ""),
        "MASTER_ADDR": environ.get("MASTER_ADDR") or ("" if first is None else first[1] + (first[2] or "")),
        "MASTER_PORT": environ.get("MASTER_PORT") or str(_FIRST_PORT + int(re.sub(r"\D", "", job) or 0) % _PORTS),
    }
    missing = [name for name, value in found.items() if not value]
    if missing:
        raise ValueError(
            f"srun started {tasks} processes, but {', '.join(missing)} cannot be told from its variables: set them, "
            "or start the processes by torchrun."
        )
    environ.update(found)


@dataclass
class Outcome:
    """What became of a scene."""

    name: str
    status: str  # `DONE`, `SKIPPED` (it was finished before) or `FAILED`
    seconds: float = 0.0  # that this run worked at it
    reason: str | None = None  # why it failed
    outputs: dict[str, str] = field(default_factory=dict)  # by name
    details: dict[str, Any] = field(default_factory=dict)  # what else the prediction reports
    process: int | None = None  # that worked at it, None for all


@dataclass(frozen=True)
class Work:
    """What is done with each scene."""

    predict: Callable[[SceneEntry], Mapping[str, Any]]  # does it and returns what it reports (JSON-like)
    outputs: Callable[[SceneEntry], Mapping[str, str | os.PathLike]]  # names its outputs
    is_finished: Callable[[SceneEntry], bool]  # whether exactly this work was done before
    explain: Callable[[Exception], str | None] = str  # message of an error; None for a fault of the program


def run_scenes(
    scenes: Sequence[SceneEntry],
    work: Work,
    group: ProcessGroup,
    summary: str | os.PathLike,
    *,
    split: bool = False,
    on_outcome: Callable[[int, Outcome], None] | None = None,
) -> list[Outcome]:
    """Work at scenes, the same list in every process; one that fails does not stop the others.

    With `split` all processes work at each scene together, in place of each at its own ones. `on_outcome` is called
    after each scene of this process with its number among all and what became of it. `summary` is a JSON to write.
    """
    begin = time.time()
    numbered = list(enumerate(scenes))
    own: dict[int, Outcome] = {}
    for number, scene in numbered if split else group.select(numbered):
        own[number] = _run_scene(scene, work, group if split else None)
        own[number].process = None if split else group.index
        if on_outcome is not None:
            on_outcome(number, own[number])
    everything = {number: outcome for part in group.gather(own) for number, outcome in part.items()}
    outcomes = [everything[number] for number, _ in numbered]
    if group.is_main:
        counts = Counter(outcome.status for outcome in outcomes)
        content = {
            "started": datetime.datetime.fromtimestamp(begin, datetime.UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - begin, 3),
            "processes": group.count,
            "counts": {status: counts[status] for status in (DONE, SKIPPED, FAILED)},
            "scenes": [asdict(outcome) for outcome in outcomes],
        }
        with complete_or_absent(summary) as part:
            part.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
    group.gather(None)  # launchers end all processes when the first one ends with an error
    return outcomes


def _run_scene(scene: SceneEntry, work: Work, together: ProcessGroup | None) -> Outcome:
    """Map one scene and catch what goes wrong; `together` are the processes that work at it, None for this one."""
    begin = time.monotonic()
    outputs = {name: str(path) for name, path in work.outputs(scene).items()}
    details, problem, is_known = {}, scene.problem, False
    if problem is None:
        try:
            finished = work.is_finished(scene)
        except Exception:  # its files cannot be looked at: predicting will say why
            finished = False
        if finished if together is None else together.gather(finished)[0]:  # the first process's answer holds for all
            return Outcome(scene.name, SKIPPED, outputs=outputs)
        try:
            details = dict(work.predict(scene))
        except OtherProcessError as error:
            problem, is_known = str(error), True  # the others know it already, and do not wait for this one's word
        except Exception as error:  # whatever it is, the next scene may do better; it is reported, with exit status 1
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()  # for the next scene
            message = work.explain(error)
            if message is None:  # a fault of the program, which is told in full
                traceback.print_exception(error)
                message = f"{type(error).__name__}: {error}"
            problem = message.strip()
    if together is not None and not is_known:
        problems = [f"process {index}: {text}" for index, text in enumerate(together.gather(problem)) if text]
        problem = "; ".join(problems) or None
    seconds = round(time.monotonic() - begin, 3)
    if problem is not None:
        return Outcome(scene.name, FAILED, seconds, problem)
    return Outcome(scene.name, DONE, seconds, outputs=outputs, details=details)


def format_outcomes(outcomes: Sequence[Outcome], most: int = 50) -> str:
    """Make a table of what became of the scenes, and a line of counts; of more than `most` the failed come first."""
    counts = Counter(outcome.status for outcome in outcomes)
    shown = list(outcomes)
    if len(shown) > most:
        shown = sorted(shown, key=lambda outcome: outcome.status != FAILED)[:most]
    width = max((len(outcome.name) for outcome in shown), default=0)
    lines = [
        f"{outcome.name:<{width}}  {outcome.status:<7}  {outcome.seconds:>9.1f} s  {outcome.reason or ''}".rstrip()
        for outcome in shown
    ]
    if len(shown) < len(outcomes):
        lines.append(f"... and {len(outcomes) - len(shown)} more")
    lines.append(", ".join(f"{counts[status]} {status}" for status in (DONE, SKIPPED, FAILED)))
    return "\n".join(lines)
