"""Fine-tuning runs in processes of their own that share one import of everything, and that can be killed anywhere.

A run of several processes has no launcher: each is told its rank as `torchrun` would tell it.
"""

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.finetune_factory import environment


PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["prithvi_hf.training.finetune", "tests.finetune_factory"])


@dataclass(frozen=True)
class Kill:
    """When a process is killed.

    Attributes:
        event: number of what it does in the output folder, a chip that it evaluates or a step that it trains.
        delay: seconds after it.
        rank: of the process that is killed.
        number: signal.
    """

    event: int
    delay: float = 0
    rank: int = 0
    number: int = signal.SIGKILL


@dataclass
class Run:
    """A run that was started."""

    folder: Path
    processes: list = field(default_factory=list)

    def finish(self, timeout=120, ends_with=None):
        """Exit statuses of ended processes; the end of rank `ends_with` is that of the others, as under a launcher."""
        deadline = time.monotonic() + timeout
        if ends_with is not None:
            self.processes[ends_with].join(timeout)
            for process in self.processes:
                process.join(5)
                process.kill()
        for process in self.processes:
            process.join(max(0, deadline - time.monotonic()))
        hanging = [rank for rank, process in enumerate(self.processes) if process.exitcode is None]
        for process in self.processes:
            process.kill()
            process.join()
        assert not hanging, f"no end of rank {hanging} after {timeout} s:\n{self.printed()[-3000:]}"
        return [process.exitcode for process in self.processes]

    def printed(self):
        """What all processes printed."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("printed-*")))

    def events(self):
        """How many events the first process counted."""
        return int((self.folder / "events").read_text())


def find_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_run(folder, words, processes=1, kill=None):
    """Start a fine-tuning run; what it prints and counts goes into the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    port, run = find_port(), Run(folder)
    for rank in range(processes):
        arguments = (folder, [str(word) for word in words], rank, processes, port, kill)
        run.processes.append(PROCESSES.Process(target=work, args=arguments))
        run.processes[-1].start()
    return run


def work(folder, words, rank, processes, port, kill):
    """Run `finetune.main` in this process."""
    with (folder / f"printed-{rank}").open("w") as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update(environment(**{name: str(value) for name, value in variables.items() if processes > 1}))

    import torch

    from prithvi_hf.training import finetune

    torch.set_num_threads(1)
    count = count_events(words[words.index("--output_dir") + 1], kill if kill and kill.rank == rank else None)
    status = finetune.main(words)
    if rank == 0:
        (folder / "events").write_text(str(count()))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def count_events(output, kill):
    """Count what touches files of the output folder, steps and evaluated chips; kill this process at one of them."""
    from prithvi_hf.training.tasks import SegmentationFigures
    from prithvi_hf.training.trainer import PrithviTrainer

    events = 0

    def die():
        time.sleep(kill.delay)
        os.kill(os.getpid(), kill.number)

    def count():
        nonlocal events
        events += 1
        if kill is not None and events == kill.event:
            if kill.delay:
                threading.Thread(target=die, daemon=True).start()
            else:
                die()

    def watch(name, arguments):
        if name.startswith(("open", "os.", "shutil.")) and arguments and str(arguments[0]).startswith(output):
            count()

    def counted(function):
        def call(*arguments, **options):
            count()
            return function(*arguments, **options)

        return call

    sys.addaudithook(watch)
    PrithviTrainer.training_step = counted(PrithviTrainer.training_step)
    SegmentationFigures.add = counted(SegmentationFigures.add)
    return lambda: events
