# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf finetune`: a fine-tuning run by its recipe, on one or many processes."""

import argparse
import traceback
from importlib import import_module

from prithvi_hf.cli.common import Commands, import_quickly


def add_parser(commands: Commands) -> None:
    """Describe `finetune`."""
    add_training_parser(commands, "finetune", "fine-tune a model on labelled chips by a recipe")


def add_training_parser(commands: Commands, name: str, text: str) -> None:
    """Describe a command of a module of `training`, whose options are read where the recipe is."""
    # No word begins with this character, so that argparse hands on every option, --help too.
    parser = commands.add_parser(name, help=text, add_help=False, prefix_chars="\0")
    parser.add_argument("words", nargs="*", help=f"recipes and options, see `prithvi-hf {name} --help`")


def run(options: argparse.Namespace) -> int:
    """Train; on many GPUs by `accelerate launch -m prithvi_hf.cli finetune ...`."""
    with import_quickly():
        main = import_module(f"prithvi_hf.training.{options.command}").main
    try:
        return main(options.words, f"prithvi-hf {options.command}")
    except Exception:  # a fault and not the user's: `main` has explained what a user can fix
        traceback.print_exc()
        return 1
