# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""No program ends as a member of a process group, or leaves it while its wrapped model lives.

With gloo the one aborts now and then, the other hangs. `prithvi-hf evaluate` is watched in tests/cli/test_evaluate.py.
"""

import pytest
import torch.distributed

from prithvi_hf.training.process_group import leave_process_group


@pytest.mark.slow
def test_training_leaves_the_group(trained_by_two):
    assert trained_by_two.printed.count("2 processes: left") == 2
    assert trained_by_two.printed.count("wrapped 1 models, left with 0") == 2


def test_leaving(tmp_path):
    leave_process_group()  # a member of none
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    leave_process_group()
    assert not torch.distributed.is_initialized()
