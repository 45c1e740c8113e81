# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf pretrain`: a pretraining run by its recipe, on one or many processes."""

import argparse
import traceback

from prithvi_hf.cli.common import Commands


def add_parser(commands: Commands) -> None:
    """Describe `pretrain`, whose options are read where the recipe is."""
    # No word begins with this character, so that argparse hands on every option, --help too.
    parser = commands.add_parser(
        "pretrain", help="continue the pretraining on scenes without labels", add_help=False, prefix_chars="\0"
    )
    parser.add_argument("words", nargs="*", help="recipes and options, see `prithvi-hf pretrain --help`")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Pretrain; on many GPUs by `accelerate launch -m prithvi_hf.cli pretrain ...`."""
    from prithvi_hf.training.pretrain import main

    try:
        return main(options.words, "prithvi-hf pretrain")
    except Exception:  # a fault and not the user's: `main` has explained what a user can fix
        traceback.print_exc()
        return 1
