# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What the notebooks share: a folder to write to, and the commands of `prithvi-hf` run in the notebook's own process.

Importing it also makes the modules in `examples/` importable, such as `synthetic_floods`.
"""

import contextlib
import io
import os
import shlex
import shutil
import sys
import warnings
from pathlib import Path


warnings.filterwarnings("ignore", message="IProgress not found")  # before tqdm is imported

import datasets  # noqa: E402
import transformers  # noqa: E402

from prithvi_hf.cli.__main__ import main  # noqa: E402


_SHOWN = 30  # lines of a command that failed
datasets.disable_progress_bars()
transformers.utils.logging.disable_progress_bar()
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def make_folder(name: str) -> Path:
    """Make an empty folder for the files of a notebook, in `notebook_runs` or where PRITHVI_HF_NOTEBOOKS points.

    Args:
        name: Name of the folder. What an earlier run left in it is removed.

    Returns:
        The folder.
    """
    folder = Path(os.environ.get("PRITHVI_HF_NOTEBOOKS", "notebook_runs")) / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def run(command: str, show: bool = False) -> str:
    """Run a command of `prithvi-hf`: in a terminal it is the same line without `run` and quotes.

    Args:
        command: Such as `"prithvi-hf finetune --config quickstart --output_dir OUT"`.
        show: Whether to print what the command prints.

    Returns:
        What it prints.

    Raises:
        ValueError: It is not a command of `prithvi-hf`.
        RuntimeError: The command fails; the message has the end of what it printed.
    """
    program, *words = shlex.split(command)
    if program != "prithvi-hf":
        raise ValueError(f"Expected a command that begins with prithvi-hf, found {program}.")
    print(f"$ {command}")
    printed, told = io.StringIO(), io.StringIO()  # progress bars, warnings and errors are told
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(told):
        try:
            status = main(words)
        except SystemExit as error:  # as argparse ends
            status = error.code
    text = printed.getvalue()
    if status:
        end = "\n".join((text + told.getvalue()).splitlines()[-_SHOWN:])
        raise RuntimeError(f"{command} ended with status {status}:\n{end}")
    if show:
        print(text)
    return text
