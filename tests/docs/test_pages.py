# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What pages say of options and of each other."""

import argparse
import re
import subprocess
import sys
from dataclasses import fields

import pytest

from prithvi_hf.cli.__main__ import build_parser
from prithvi_hf.training.recipe import OPTION_GROUPS
from prithvi_hf.training.recipe_options import PretrainDataArguments, PretrainModelArguments
from tests.docs.pages import PAGES, ROOT, name_of


DOCS = ROOT / "docs"
SOURCES = ("prithvi_hf", "tests", "examples", "benchmarks", "docs")
RECIPE_OPTIONS = (*OPTION_GROUPS, PretrainModelArguments, PretrainDataArguments)
# Of launchers, and of tools in what CONTRIBUTING.md says.
OTHER_OPTIONS = {
    "--check",
    "--config",
    "--help",
    "--help_all",
    "--cpu",
    "--num_processes",
    "--num_cpu_threads_per_process",
    "--machine_rank",
    "--main_process_ip",
}
# Command of `prithvi-hf` -> the page whose tables list its options.
PAGE_OF = {
    "reconstruct": "pretrain.md",
    "predict": "predict.md",
    "fetch": "fetch.md",
    "composite": "fetch.md",
    "evaluate": "fine-tune.md",
    "compare": "trust.md",
    "stats": "your-own-data.md",
    "rasterize": "own-labels.md",
    "chip": "own-labels.md",
    "compare-maps": "own-labels.md",
    "convert": "convert.md",
    "export": "export.md",
    "embed": "embed.md",
    "demo": "demo.md",
    "serve": "serving.md",
    "push": "hub.md",
    "calibrate": "trust.md",
}


def options_of(command):
    """The long options of a command of `prithvi-hf`."""
    [commands] = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    actions = commands.choices[command]._actions
    options = {text for action in actions for text in action.option_strings if text.startswith("--")}
    return options - {"--help", "--help_all"}


@pytest.mark.parametrize("command", PAGE_OF)
def test_every_option_of_a_command_is_on_its_page(command):
    assert options_of(command) - set(re.findall(r"--\w+", (DOCS / PAGE_OF[command]).read_text())) == set()


def test_every_option_of_a_pretraining_is_on_its_page():
    groups = (PretrainModelArguments, PretrainDataArguments)
    names = {f"--{name}" for group in groups for name in vars(group).get("__annotations__", {})}
    assert names - set(re.findall(r"--\w+", (DOCS / "pretrain.md").read_text())) == set()


def test_the_page_of_predict_lists_no_other_options():
    rows = re.findall(r"^\| `(--\w+)", (DOCS / "predict.md").read_text(), flags=re.MULTILINE)
    assert set(rows) - options_of("predict") == set()


def test_the_readme_is_one_screen():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_names_no_path_of_a_machine(page):
    assert not re.search(r"(?<![\w.])/(?:home|work|root|Users|mnt)/", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_files_and_headings_lead_somewhere(page):
    """Those within the site are checked by mkdocs too; README and its neighbours are not in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{name_of(page)}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", found.read_text(), flags=re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, f"{name_of(page)}: {target}"


def slug(heading):
    """The anchor that GitHub and mkdocs make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def test_files_named_in_a_text_exist():
    files = [path.relative_to(ROOT) for folder in SOURCES for path in (ROOT / folder).rglob("*")]
    names = {f"/{path.as_posix()}" for path in files} | {f"/{folder}" for folder in SOURCES}
    for page in PAGES:
        for text in re.findall(r"`((?:[\w-]+/)+[\w.-]*|[\w/]+\.py)`", page.read_text()):
            if text.endswith(".py") or text.startswith(tuple(f"{folder}/" for folder in SOURCES)):
                wanted = "/" + text.rstrip("/")
                assert any(name.endswith(wanted) for name in names), f"{name_of(page)}: {text}"


def test_targets_and_options_named_in_a_text_exist():
    makefile = (ROOT / "Makefile").read_text()
    options = {f"--{field.name}" for group in RECIPE_OPTIONS for field in fields(group)} | OTHER_OPTIONS
    options = options.union(*(options_of(command) for command in (*PAGE_OF, "info")))
    for page in PAGES:
        for text in re.findall(r"`([^`\n]+)`", page.read_text()):
            for target in re.findall(r"^make ([a-z-]+)$", text):
                assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"{name_of(page)}: {text}"
            if page.name != "CHANGELOG.md":  # which also names what is gone
                for option in re.findall(r"(?<![\w-])--\w+", text):
                    assert option in options, f"{name_of(page)}: {text}"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "site" / "predict" / "index.html").is_file()
