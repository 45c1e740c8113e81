# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Peak memory of one call in a fresh process: what the operating system had to find for it, whoever asked for it."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def peak_of(call: Callable[[], object]) -> int:
    """Bytes of resident memory that a call needed at its peak, above what the process held before it.

    Linux lets a process set its high-water mark back; elsewhere the mark of the whole process so far is the least
    that is known, which is the right one for the first large call of a process.

    Args:
        call (`Callable`): What to measure.
    """
    marker = Path("/proc/self/clear_refs")
    if marker.exists():
        marker.write_text("5", encoding="ascii")
        before = _status("VmRSS")
        call()
        return _status("VmHWM") - before
    before = _high_water_mark()
    call()
    return _high_water_mark() - before


def _status(field: str) -> int:
    """A field of the kernel's account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def _high_water_mark() -> int:
    """Largest resident size so far, in bytes; macOS counts bytes, others kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_fresh_process(module: str, *arguments: str) -> int:
    """Run `python -m module arguments` and return the one number that it prints last.

    Args:
        module (`str`): Name of a module that prints the bytes it measured.
        arguments (`str`): Its arguments.
    """
    command = [sys.executable, "-m", module, *arguments]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 - our own module
    return int(json.loads(output.splitlines()[-1]))
