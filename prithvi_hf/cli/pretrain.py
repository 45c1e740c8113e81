# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf pretrain`: a pretraining run by its recipe, on one or many processes."""

from prithvi_hf.cli.common import Commands
from prithvi_hf.cli.finetune import add_training_parser, run


__all__ = ["add_parser", "run"]


def add_parser(commands: Commands) -> None:
    """Describe `pretrain`."""
    add_training_parser(commands, "pretrain", "continue the pretraining on scenes without labels")
