# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The pages of the documentation, their fenced blocks, and the commands in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md")),
        ROOT / "prithvi_hf" / "metrics" / "segmentation_metrics" / "README.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
)
_FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
_PROGRAMS = (
    ("pretrain", ["examples/pretrain.py"]),
    ("pretrain", ["prithvi-hf", "pretrain"]),
    ("pretrain", ["-m", "prithvi_hf.cli", "pretrain"]),
    ("finetune", ["examples/finetune.py"]),
    ("finetune", ["prithvi-hf", "finetune"]),
    ("finetune", ["-m", "prithvi_hf.cli", "finetune"]),
    ("prithvi-hf", ["prithvi-hf"]),
    ("prithvi-hf", ["-m", "prithvi_hf.cli"]),
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: the page, relative to the repository.
        line: of its first line of code, counted from 1.
        language: after the fence.
        title: the file that the block is, where it says so.
        text: what is inside.
    """

    page: str
    line: int
    language: str
    title: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command line.

    Attributes:
        text: as it is on the page, on one line.
        launcher: the words before the program: `torchrun --nproc_per_node 8`.
        program: "prithvi-hf", "finetune", "pretrain", or the first word of anything else.
        arguments: the words after the program.
        stdout: the file that the output goes to.
    """

    text: str
    launcher: tuple[str, ...]
    program: str
    arguments: tuple[str, ...]
    stdout: str | None = None


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def read_blocks(page: Path) -> list[Block]:
    """The blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    blocks = []
    for match in _FENCE.finditer(text):
        title = re.search(r'title="([^"]+)"', match[2])
        line = text.count("\n", 0, match.start(3)) + 1
        blocks.append(Block(name_of(page), line, match[1], title and title[1], match[3]))
    return blocks


def read_commands(text: str) -> list[Command]:
    """The command lines of a block of shell code: continued lines are one, comments are none."""
    lines = text.replace("\\\n", " ").splitlines()
    return [_parse(line) for line in lines if shlex.split(line, comments=True)]


def _parse(line: str) -> Command:
    words, stdout = shlex.split(line, comments=True), None
    if ">" in words:
        place = words.index(">")
        stdout, words = words[place + 1], words[:place]
    while re.fullmatch(r"\w+=\S*", words[0]):  # a variable of the environment
        words = words[1:]
    for program, names in _PROGRAMS:
        start = _find(words, names)
        if start is not None:
            return Command(line.strip(), tuple(words[:start]), program, tuple(words[start + len(names) :]), stdout)
    return Command(line.strip(), (), words[0], tuple(words[1:]), stdout)


def _find(words: list[str], wanted: list[str]) -> int | None:
    """Where the wanted words are."""
    places = range(len(words) - len(wanted) + 1)
    return next((place for place in places if words[place : place + len(wanted)] == wanted), None)
