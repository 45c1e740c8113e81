# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf`: a table of commands, and one message for every error that a user can fix.

Such an error ends with its message on stderr and exit status 2, and nothing is written. The modules of the commands
import what is heavy inside their functions, so that help and usage errors cost nothing.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from prithvi_hf.cli.common import user_message


_COMMANDS = (
    *("convert", "pretrain", "reconstruct", "finetune", "calibrate", "merge", "export", "fetch", "composite"),
    *("predict", "embed", "demo", "serve", "evaluate", "compare", "report", "stats", "rasterize", "chip"),
    *("compare-maps", "info", "push"),
)
"""Modules with `add_parser(commands)` and `run(options)`, in the order of the help."""
_INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended


def build_parser(names: Sequence[str] = _COMMANDS) -> argparse.ArgumentParser:
    """Describe the command line, or some commands of it; the parsed `run` is the function of the chosen command."""
    description = "Prithvi geospatial foundation models: convert weights, measure models, map satellite scenes."
    parser = argparse.ArgumentParser(prog="prithvi-hf", description=description)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in names:
        module = import_module(f"prithvi_hf.cli.{name.replace('-', '_')}")
        module.add_parser(commands)
        commands.choices[name].set_defaults(run=module.run)
        if commands.choices[name].add_help:  # others show all options anyway; finetune has both helps itself
            commands.choices[name].add_argument("--help_all", action="help", help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: the words after `prithvi-hf`, None for those of the process.

    The exit status is 0 for success, 1 where some of many scenes failed or masks need correction, 2 for an error of a
    user's, 130 for Ctrl-C.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    # A command that is named needs no other one; help and errors list all of them.
    options = build_parser(words[:1] if words and words[0] in _COMMANDS else _COMMANDS).parse_args(words)
    with warnings.catch_warnings():
        # Without the source line that raised it, as a user of a command expects a warning.
        warnings.showwarning = lambda message, *_, **__: print(f"prithvi-hf: warning: {message}", file=sys.stderr)
        try:
            return options.run(options) or 0
        except KeyboardInterrupt as interruption:
            notes = getattr(interruption, "__notes__", ())  # such as what is kept of the work
            print(": ".join([f"prithvi-hf {options.command}: interrupted", *notes]), file=sys.stderr)
            return _INTERRUPTED
        except Exception as error:
            message = user_message(error)
            if message is None:
                raise
            print(f"prithvi-hf {options.command}: error: {message.strip()}", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())
