# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Running `prithvi-hf` in tests."""

import os

from prithvi_hf.cli import __main__ as cli


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def folder_contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(capsys, folder, message, *arguments):
    """The command ends with 2 and one message on stderr that says `message`, and the folder is as it was."""
    before = folder_contents(folder), sorted(os.listdir(folder))
    capsys.readouterr()
    assert run(*arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    lines = [line for line in output.err.splitlines() if "prithvi-hf" in line]
    assert len(lines) == 1
    assert f"prithvi-hf {arguments[0]}: error: " in lines[0]
    assert message in output.err, output.err
    assert "Traceback" not in output.err
    assert (folder_contents(folder), sorted(os.listdir(folder))) == before
