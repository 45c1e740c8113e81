# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Servers of `prithvi-hf serve` in processes of their own, and clients of them."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil


ROOT = Path(__file__).resolve().parents[1]
TOKEN = "a-token-of-the-tests-5f1c"


@dataclass
class Server:
    """A server that was started.

    Attributes:
        process: Its process.
        url: The beginning of its addresses.
        work_dir: Its folder.
        log: What it prints.
    """

    process: subprocess.Popen
    url: str
    work_dir: Path
    log: Path
    headers: dict[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {TOKEN}"})

    def client(self, **options) -> httpx.Client:
        # Without the certificates of the system, whose reading takes longer than all else here.
        return httpx.Client(base_url=self.url, timeout=60, headers=self.headers, verify=False, **options)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 90) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def resident_bytes(self) -> int:
        """Memory of the server and the process of its model."""
        parent = psutil.Process(self.process.pid)
        return sum(one.memory_info().rss for one in (parent, *parent.children(recursive=True)))


def start_server(folder: Path, model: Path, *words: object, token: str | None = TOKEN, work_dir=None) -> Server:
    """Start a server at any free port of the loopback interface, and wait until it takes jobs."""
    folder.mkdir(parents=True, exist_ok=True)
    work_dir, log = work_dir or folder / "work", folder / "log"
    command = [sys.executable, "-m", "prithvi_hf.cli", "serve", "--model", model, "--port", 0, "--work_dir", work_dir]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PRITHVI_HF_TOKEN", None)
    if token is not None:
        environment["PRITHVI_HF_TOKEN"] = token
    with log.open("w") as file:
        process = subprocess.Popen(
            [str(word) for word in (*command, *words)], stdout=file, stderr=file, env=environment, cwd=folder
        )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if found := re.search(r" at (http://[\d.:]+)\n", log.read_text()):
            server = Server(process, found[1], work_dir, log)
            with server.client() as client:
                while time.monotonic() < deadline:
                    try:
                        client.get("/health/ready").raise_for_status()
                        return server
                    except httpx.HTTPError:
                        time.sleep(0.1)
        if process.poll() is not None:
            break
        time.sleep(0.1)
    process.kill()
    raise AssertionError(f"the server did not start:\n{log.read_text()}")


def send(client: httpx.Client, *paths: Path, options: str | None = None) -> httpx.Response:
    """Send a scene."""
    files = [("files", (path.name, path.read_bytes(), "image/tiff")) for path in paths]
    return client.post("/v1/segment", files=files, data={} if options is None else {"options": options})


def wait_for(client: httpx.Client, job: dict, *statuses: str, timeout: float = 120) -> dict:
    """Ask for a job until it has one of the statuses, or any that is an end."""
    statuses = statuses or ("succeeded", "failed", "cancelled")
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        job = client.get(job["links"]["self"]).raise_for_status().json()
        if job["status"] in statuses:
            return job
        time.sleep(0.05)
    raise AssertionError(f"no end of {job}")


def map_scene(client: httpx.Client, *paths: Path, options: str | None = None) -> dict:
    """Send a scene and wait until it is mapped."""
    job = wait_for(client, send(client, *paths, options=options).raise_for_status().json())
    assert job["status"] == "succeeded", job
    return job


def assert_refused(response, status, *words):
    """An answer is an error of a status, as JSON, that says some words."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error.keys() == {"status", "message", "expected", "found", "remedy"}
    assert error["status"] == status
    assert all(error.values())
    for word in words:
        assert word in error["message"], error["message"]
    return error
