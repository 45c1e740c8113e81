# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The launch settings are read by accelerate, and the Slurm script asks for a checkpoint before the time is up."""

import os
import signal
import subprocess
import time

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from tests.finetune_factory import ROOT


SETTINGS = sorted((ROOT / "examples" / "accelerate").glob("*.yaml"))
# Stand-ins for the commands of a cluster: each writes down how it was called.
COMMANDS = {
    "scontrol": 'if [ "$1" = show ]; then echo node1; echo node2; else echo "scontrol $*" >> calls; fi',
    "srun": 'shift; export SLURM_NODEID=1; exec "$@"',
    "accelerate": 'trap "echo saved >> calls; exit 143" TERM\n'
    'echo "accelerate $*" >> calls\nfor i in $(seq 300); do sleep 0.1; done',
}


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: path.stem)
def test_accelerate_reads_the_settings(path):
    settings = load_config_from_file(str(path))  # refuses keys that it does not know
    kinds = {"fsdp2": "FSDP", "deepspeed_zero2": "DEEPSPEED", "multi_gpu": "MULTI_GPU", "multi_node": "MULTI_GPU"}
    assert settings.distributed_type == kinds.get(path.stem, "NO")
    assert settings.num_processes % settings.num_machines == 0


def test_the_slurm_script_stops_the_training_and_queues_again(tmp_path):
    for name, text in COMMANDS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "7"}
    variables = {**os.environ, **job, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = ROOT / "examples" / "accelerate" / "slurm.sbatch"
    command = ["bash", str(script), "--config", "sen1floods11", "--output_dir", "my OUT"]
    process = subprocess.Popen(command, cwd=tmp_path, env=variables)
    while not (tmp_path / "calls").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=60) == 0
    launched, saved, queued = (tmp_path / "calls").read_text().splitlines()
    assert "--num_machines 2 --num_processes 16 --machine_rank 1 --main_process_ip node1" in launched
    assert launched.endswith("--config sen1floods11 --output_dir my OUT --resume_from_checkpoint true")
    assert (saved, queued) == ("saved", "scontrol requeue 7")
