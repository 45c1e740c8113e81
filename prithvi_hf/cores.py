# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""How many processor cores this process may use, which in a container are fewer than the machine has."""

import math
import os
from contextlib import suppress
from pathlib import Path


def count_cores(cgroups: str | Path = "/sys/fs/cgroup") -> int:
    """Count the cores that this process may use: those it is bound to, and no more than its container's quota.

    Threads beyond that do not run at the same time, but wait for each other, which takes many times as long.

    Args:
        cgroups: Where Linux shows the limits of control groups, version 1 or 2.

    Returns:
        A whole number of at least 1; a quota of 1.5 cores counts as 2.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with suppress(OSError, ValueError):  # no such files, or "max": there is no quota
            quota, period = " ".join((Path(cgroups) / name).read_text() for name in names).split()
            if int(quota) > 0:  # -1 is no quota in version 1
                cores = min(cores, math.ceil(int(quota) / int(period)))
    return cores


CORES = count_cores()
"""The cores of this process when the module was imported."""
