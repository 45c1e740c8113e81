# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf report`: the page of a run, made again from its files."""

import argparse

from prithvi_hf.cli.common import Commands, add_command, import_quickly


def add_parser(commands: Commands) -> None:
    """Describe `report`."""
    text = "write report.html of a fine-tuning run again, from the files in its folder alone"
    parser = add_command(commands, "report", text)
    parser.add_argument("folder", help="output folder of the run")


def run(options: argparse.Namespace) -> None:
    """Write the page; the options are those of `report`."""
    with import_quickly():
        from prithvi_hf.training.report import write_report

    print(f"written to {write_report(options.folder)}")
