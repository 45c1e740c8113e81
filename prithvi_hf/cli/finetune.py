# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf finetune`: a fine-tuning run by its recipe, on one or many processes."""

import argparse
import traceback

from prithvi_hf.cli.common import Commands


def add_parser(commands: Commands) -> None:
    """Describe `finetune`, whose options are read where the recipe is."""
    # No word begins with this character, so that argparse hands on every option, --help too.
    parser = commands.add_parser(
        "finetune", help="fine-tune a model on labelled chips by a recipe", add_help=False, prefix_chars="\0"
    )
    parser.add_argument("words", nargs="*", help="recipes and options, see `prithvi-hf finetune --help`")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Fine-tune; on many GPUs by `accelerate launch -m prithvi_hf.cli finetune ...`."""
    from prithvi_hf.training.finetune import main

    try:
        return main(options.words, "prithvi-hf finetune")
    except Exception:  # a fault and not the user's: `main` has explained what a user can fix
        traceback.print_exc()
        return 1
