# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf`: its table of commands, usage errors, and what it costs to load."""

import subprocess
import sys
from pathlib import Path

import pytest

from prithvi_hf.cli import __main__ as cli
from tests.command_line import run


@pytest.mark.parametrize("arguments", [[], ["map"], ["predict"], ["predict", "--overlap", "half"], ["info"]])
def test_usage_errors_end_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    assert "usage: prithvi-hf" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["convert", "predict", "evaluate", "stats", "info"])
def test_help_all_is_a_word_of_every_command(command, capsys):
    pages = []
    for word in ("--help", "--help_all"):
        with pytest.raises(SystemExit) as stop:
            run(command, word)
        assert stop.value.code == 0
        pages.append(capsys.readouterr().out)
    assert pages[0] == pages[1]


def test_every_option_is_explained(capsys):
    parser = cli.build_parser()
    (commands,) = [action for action in parser._actions if action.dest == "command"]
    assert set(commands.choices) >= {"convert", "predict", "evaluate", "stats", "info"}
    for name, command in commands.choices.items():
        for action in command._actions:
            assert action.help, f"{name} {action.dest}"


def test_the_module_is_quick_to_load():
    """Help and usage errors need no torch; an empty package stands in, as the real one's own import brings torch."""
    folder = str(Path(cli.__file__).parents[1])
    code = (
        "import sys, types\n"
        "package = types.ModuleType('prithvi_hf')\n"
        f"package.__path__ = [{folder!r}]\n"
        "sys.modules['prithvi_hf'] = package\n"
        "from prithvi_hf.cli.__main__ import main\n"
        "for words in (['--help'], ['predict', '--help']):\n"
        "    try:\n        main(words)\n"
        "    except SystemExit:\n        pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'rasterio', 'datasets', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--overlap" in done.stdout


def test_run_as_a_module(tmp_path):
    command = [sys.executable, "-m", "prithvi_hf.cli", "info", str(tmp_path / "none.tif")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("prithvi-hf info: error: There is no model folder")


def test_a_command_that_is_named_is_the_only_one_that_is_described(monkeypatch, capsys):
    described = []
    monkeypatch.setattr(cli, "build_parser", lambda names: described.append(list(names)) or 1 / 0)
    for words in (["info", "none.tif"], ["maps"], []):
        with pytest.raises(ZeroDivisionError):
            run(*words)
    assert described == [["info"], list(cli._COMMANDS), list(cli._COMMANDS)]
