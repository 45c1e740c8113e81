# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Options that messages name are options of every command that can say so."""

import argparse
import ast
import re
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from prithvi_hf.cli.__main__ import _COMMANDS, build_parser
from prithvi_hf.training.pretrain_recipe import PrithviPretrainingArguments
from prithvi_hf.training.recipe import OPTION_GROUPS
from prithvi_hf.training.recipe_options import PretrainDataArguments, PretrainModelArguments


ROOT = Path(__file__).resolve().parents[2]
COMMANDS = _COMMANDS
RECIPES = {
    "finetune": OPTION_GROUPS,
    "pretrain": (PretrainModelArguments, PretrainDataArguments, PrithviPretrainingArguments),
}
# Options that say how files are read: messages call them as Python and recipes do, without dashes.
READING = ("band_indices", "band_map", "band_names", "rescale_factor", "rescale_offset", "boa_add_offset")
READERS = {"finetune", "predict", "evaluate", "stats"}
# Messages of modules that more commands import than can say them: which do. Scenes are opened by `predict` alone,
# models to train are built by `finetune`, files are read by all but `convert`.
SPEAKERS = {
    **{f"cli/{name.replace('-', '_')}.py": {name} for name in COMMANDS},
    "cli/common.py": {"predict", "evaluate"},
    "cli/predict_options.py": {"predict"},
    "catalog/": {"fetch"},
    "conversion/export_prithvi.py": {"export"},
    "conversion/quantize_prithvi.py": {"export"},
    "conversion/": {"convert"},
    "demo/": {"demo"},
    "serving/": {"serve"},
    "data/augmentations.py": {"finetune"},
    "data/builders/": {"finetune", "stats"},
    "data/folds.py": {"finetune"},
    "data/statistics_report.py": {"stats"},
    "data/streaming.py": {"finetune"},
    "models/prithvi/bands_prithvi.py": {*READERS, "info"},
    "models/prithvi/configuration_prithvi.py": {"finetune"},
    "models/prithvi/exported_prithvi.py": {"predict", "evaluate"},
    "models/prithvi/pixel_values_prithvi.py": READERS,
    "models/prithvi/processor_options_prithvi.py": READERS,
    "outputs/registry.py": {"predict"},
    "plotting.py": {"finetune"},
    "rasters/": {"predict"},
    "scenes/windows.py": {"pretrain"},
    "scenes/": {"predict"},
    "training/calibration.py": {"calibrate"},
    "training/comparison.py": {"compare"},
    "training/evaluation.py": {"evaluate"},
    "training/pretrain": {"pretrain"},
    "training/recipe_options.py": {"finetune", "pretrain"},
    "training/": {"finetune"},
}
# Words that a module gives to another program or parser, not to a person.
NOT_SAID = {
    ("training/evaluation.py", option)
    for option in ("--config", "--output_dir", "--do_train", "--report_to", "--push_to_hub")
} | {("cli/predict_options.py", "--nproc_per_node"), ("cli/finetune.py", "--help")}
NOT_SAID.add(("training/recipe_options.py", "--boa_add_offset"))  # one of the options in a list
# Options of `predict` that `embed` leaves out, and those by which `predict` takes an exported folder.
NOT_SAID |= {("cli/embed.py", f"--{name}") for name in ("tta", "compile", "split_scene", "trust_remote_code")}
NOT_SAID |= {("cli/export.py", f"--{name}") for name in ("model", "frames", "output", "dtype")}
# Options of other commands, which messages name with their command, and of a run that is not a pretraining.
NOT_SAID |= {("training/finetune.py", option) for option in ("--repo_id", "--frames", "--output")}
NOT_SAID |= {("cli/chip.py", f"--{name}") for name in ("config", "data_dir", "output_dir", "model")}
NOT_SAID |= {("cli/chip.py", f"--{name}") for name in ("location", "on_read_error")}
NOT_SAID |= {("cli/calibrate.py", "--local"), ("cli/merge.py", "--adapter")}
NOT_SAID |= {("training/recipe_options.py", option) for option in ("--check", "--folds", "--group_by", "--hp_search")}
NOT_SAID.add(("training/recipe_options.py", "--seeds"))
NOT_SAID.add(("demo/page.py", "--pd"))  # a name of CSS
NOT_SAID.add(("conversion/export_prithvi.py", "--trust_remote_code"))
NOT_SAID.add(("cli/fetch.py", "--fmask_rule"))  # said by `predict`, of a place in several tiles


@cache
def options_of(command):
    """The long options of a command; those of trainings are fields of recipes."""
    if command in RECIPES:
        options = [option for group in RECIPES[command] for option in fields(group)]
        aliases = {alias for option in options for alias in option.metadata.get("aliases", ())}
        return {f"--{option.name}" for option in options} | aliases | {"--config", "--help", "--help_all"}
    [commands] = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return {text for action in commands.choices[command]._actions for text in action.option_strings}


@cache
def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path):
    """The modules of the package that a module imports, at its head or in a function."""
    for node in ast.walk(parse(path)):
        if not isinstance(node, ast.ImportFrom):
            continue
        parts = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
        base = ROOT.joinpath(*parts, *(node.module or "").split("."))
        for place in [base, *(base / alias.name for alias in node.names)]:
            for file in (place.with_suffix(".py"), place / "__init__.py"):
                if file.is_file() and ROOT / "prithvi_hf" in file.parents:
                    yield file


@cache
def modules_of(command):
    """The modules that a command reaches."""
    found, pending = set(), [ROOT / "prithvi_hf" / "cli" / f"{command.replace('-', '_')}.py"]
    while pending:
        path = pending.pop()
        if path not in found:
            found.add(path)
            pending += imports_of(path)
    return found


def texts_of(path):
    """The texts in a module but for its docstrings; what an f-string fills in is `{}`."""
    tree = parse(path)
    inside = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):  # docstrings and what is written like them
            inside.update(map(id, ast.walk(node))) if isinstance(node.value, ast.Constant) else None
        elif isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            inside.update(id(part) for part in node.values)
            yield "".join(parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value


def named_options(path):
    """The options that a module's texts name, each with the command that the text runs, or None."""
    for text in texts_of(path):
        for command, words in re.findall(r"`prithvi-hf ([\w-]+)([^`]*)`", text):
            yield from ((option, command) for option in re.findall(r"--[a-z]\w*", words))
        rest = re.sub(r"`[^`]*`", "", text)
        yield from ((option, None) for option in re.findall(r"(?<![\w-])--[a-z]\w*", rest))
        if re.search(r"Remedy|[Gg]ive|pass|set ", text):
            yield from ((f"--{word}", None) for word in READING if re.search(rf"\b{word}\b", text))


MODULES = sorted((ROOT / "prithvi_hf").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / "prithvi_hf")))
def test_commands_have_the_options_that_their_messages_name(path):
    name = str(path.relative_to(ROOT / "prithvi_hf"))
    allowed = next((commands for start, commands in SPEAKERS.items() if name.startswith(start)), set(COMMANDS))
    speakers = {command for command in allowed if path in modules_of(command)} or allowed
    for option, command in named_options(path):
        if (name, option) not in NOT_SAID:
            for speaker in [command] if command else sorted(speakers):
                assert option in options_of(speaker), f"{name} names {option}, which `{speaker}` has not"


def test_the_walk_sees_messages():
    seen = {option for path in MODULES for option, _ in named_options(path)}
    assert {"--band_map", "--band_names", "--band_indices", "--scenes", "--bands", "--skip_unreadable"} <= seen
    assert ROOT / "prithvi_hf/models/prithvi/bands_prithvi.py" in modules_of("stats")
