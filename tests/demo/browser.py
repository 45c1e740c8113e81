# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A server of the demo as people start it, and Chromium to visit it."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
INSTALL = "`make test-browser` installs it"


@dataclass(frozen=True)
class Server:
    """A demo that runs in a process of its own.

    Attributes:
        address: Of the page.
        temporary: The folder that its temporary files go to.
        log: What it wrote to stderr.
    """

    address: str
    temporary: Path
    log: Path


@contextmanager
def start_server(folder, *words):
    """Start `prithvi-hf demo`, and end it as a container does; its temporary files are gone then."""
    temporary, log = folder / "temporary", folder / "log.txt"
    temporary.mkdir()
    words = [sys.executable, "-m", "prithvi_hf.cli", "demo", "--device", "cpu", *map(str, words)]
    variables = {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
    with log.open("w") as errors:
        process = subprocess.Popen(
            words, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, f"no address in {line!r}:\n{log.read_text()[-3000:]}"
        yield Server(found[0].rstrip("/"), temporary, log)
    finally:
        process.terminate()
        status = process.wait(30)
        process.stdout.close()
    assert status == 0, log.read_text()[-3000:]
    assert list(temporary.iterdir()) == []


@contextmanager
def start_browser():
    """Start Chromium without a window; the test is skipped where it cannot be."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no Chromium on the path: {INSTALL}")
    with driver.sync_playwright() as playwright:
        # Containers run as root and have little shared memory.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()
