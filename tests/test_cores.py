# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Cores that a process may use."""

import os
import subprocess
import sys

import pytest

from prithvi_hf.cores import count_cores


BOUND = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, BOUND),
        ({"cpu.max": "max 100000\n"}, BOUND),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "150000 100000\n"}, min(2, BOUND)),
        ({"cpu.max": "damaged"}, BOUND),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, BOUND),
        ({"cpu/cpu.cfs_quota_us": "80000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_a_quota_bounds_the_cores(files, expected, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert count_cores(tmp_path) == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no processes to cores")
def test_a_process_that_is_bound_to_one_core_has_one():
    code = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nfrom prithvi_hf.cores import CORES\n"
    words = [sys.executable, "-c", f"import sys\nsys.argv[0] = 'prithvi-hf'\n{code}print(CORES)"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "1\n"
