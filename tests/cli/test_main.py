# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf`: its table of commands, usage errors, and what it costs to load."""

import subprocess
import sys

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


def imported_by(*command):
    """Status and output of a command, and which heavy packages it imported."""
    done = subprocess.run([sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=False)
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    return done, HEAVY & modules


HEAVY = {"torch", "transformers", "numpy", "rasterio", "datasets", "matplotlib", "evaluate"}
SCRIPT = "import sys\nfrom prithvi_hf.cli.__main__ import main\nsys.exit(main())\n"


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["--help"], 0, "COMMAND"),
        (["predict", "--help"], 0, "--overlap"),
        (["map"], 2, "invalid choice"),
        (["predict", "--overlap", "half"], 2, "invalid float"),
        (["predict", "--model", "m", "--output", "o.tif"], 2, "found none of them"),
    ],
)
def test_help_and_usage_errors_import_nothing_heavy(words, status, text):
    done, heavy = imported_by("-m", "prithvi_hf.cli", *words)
    assert done.returncode == status
    assert text in done.stdout + done.stderr
    assert heavy == set()


def test_the_installed_command_imports_nothing_heavy_for_its_help(tmp_path):
    script = tmp_path / "prithvi-hf"
    script.write_text(SCRIPT)
    done, heavy = imported_by(script, "--help")
    assert done.returncode == 0
    assert "COMMAND" in done.stdout
    assert heavy == set()


@pytest.mark.slow
def test_a_command_that_runs_a_model_imports_no_datasets_or_plots(tmp_path):
    _, heavy = imported_by(
        "-m", "prithvi_hf.cli", "predict", "--model", tmp_path, "--frames", "a", "--output", "b.tif"
    )
    assert "torch" in heavy
    assert heavy.isdisjoint({"datasets", "matplotlib", "evaluate"})


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
