# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""No program ends as a member of a process group, or leaves it while its wrapped model lives.

With gloo the one aborts now and then, the other hangs.
"""

import subprocess
import sys

import torch.distributed

from prithvi_hf.training.process_group import leave_process_group
from tests.finetune_factory import SCRIPT, command_line, environment, make_chips


WATCHED = """
import atexit, gc, runpy, sys
import torch.distributed as distributed
from accelerate import PartialState
from torch.nn.parallel import DistributedDataParallel

leave, wrapped, made = distributed.destroy_process_group, [], DistributedDataParallel.__init__

def make(self, *arguments, **options):
    wrapped.append(id(self))
    made(self, *arguments, **options)

def leave_and_say(*arguments):
    alive = sum(isinstance(thing, DistributedDataParallel) for thing in gc.get_objects())
    print(f"wrapped {len(wrapped)} models, left with {alive}", flush=True)
    leave(*arguments)

@atexit.register
def say():
    count = PartialState().num_processes  # as the program left it
    print(count, "processes:", "a member" if distributed.is_initialized() else "left", flush=True)

DistributedDataParallel.__init__, distributed.destroy_process_group = make, leave_and_say
module, sys.argv = sys.argv[1], sys.argv[1:]
(runpy.run_path if module.endswith(".py") else runpy.run_module)(module, run_name="__main__")
"""


def launch(folder, *words):
    """Start a program in two processes and return what they print."""
    (folder / "watched.py").write_text(WATCHED)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", folder / "watched.py"]
    command = [sys.executable, *map(str, [*launcher, *words])]
    done = subprocess.run(command, env=environment(), cwd=folder, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_training_and_evaluating_leave_the_group(tmp_path):
    data, output = make_chips(tmp_path / "data"), tmp_path / "OUT"
    printed = launch(tmp_path, SCRIPT, *command_line(data, output, max_steps=1, test_splits="bolivia"))
    assert printed.count("2 processes: left") == 2
    assert printed.count("wrapped 1 models, left with 0") == 2
    options = ["--model", output, "--data_dir", data, "--splits", "bolivia", "--device", "cpu", "--quiet"]
    printed = launch(tmp_path, "prithvi_hf.cli", "evaluate", *options)
    assert printed.count("2 processes: left") == 2
    assert printed.count("wrapped 0 models, left with 0") == 2


def test_leaving(tmp_path):
    leave_process_group()  # a member of none
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    leave_process_group()
    assert not torch.distributed.is_initialized()
