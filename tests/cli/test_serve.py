# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The server as a process: how it starts, stops, dies, and goes on, alone and with many clients at once."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from tests.command_line import assert_refused, run
from tests.scene_factory import save_model, scene_pixels, write_scene
from tests.serve_factory import ROOT, map_scene, send, start_server, wait_for


SLOW = json.dumps({"tta": "d4", "overlap": 0.75, "outputs": []})
QUICK = json.dumps({"overlap": 0, "outputs": []})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max_queue", 0], "Expected a number above 0 for --max_queue, found 0"),
        (["--job_timeout", "nan"], "above 0 for --job_timeout, found nan"),
        (["--port", 70000], "--port 0 to 65535, found 70000"),
        (["--token", ""], "Expected a token of ASCII letters after --token"),
        (["--grace", -1], "--grace in seconds"),
        (["--batch_size", 0], "--batch_size of at least 1"),
        (["--root_path", "floods"], "--root_path to begin with /"),
        (["--allow_host", "https://maps.example.org"], "--allow_host to be names such as"),
        (["--allow_url", "data.example.org"], "--allow_url to be the beginning"),
        (["--host", "256.1.1.1"], "Expected to listen at 256.1.1.1"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path, capsys, model_folder, words, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused(capsys, tmp_path, message, "serve", "--model", model_folder, "--port", 0, *words)


def test_a_model_that_is_not_there_is_refused(tmp_path, capsys):
    words = ["--model", tmp_path / "none", "--port", 0, "--work_dir", tmp_path / "work"]
    assert_refused(capsys, tmp_path, "none", "serve", *words)


def test_a_port_and_a_folder_belong_to_one_server(tmp_path, capsys, model_folder):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        words = ["--model", model_folder, "--work_dir", tmp_path / "work"]
        assert_refused(capsys, tmp_path, "Choose another --port", "serve", *words, "--port", port)
    (tmp_path / "file").write_text("")
    words = ["--model", model_folder, "--work_dir", tmp_path / "file", "--port", 0]
    assert_refused(capsys, tmp_path, "is not a folder", "serve", *words)


@pytest.mark.slow
def test_a_server_that_is_still_loading_can_be_stopped(tmp_path, model_folder):
    words = ["--model", model_folder, "--port", "0", "--work_dir", tmp_path / "work"]
    process = subprocess.Popen(
        [sys.executable, "-m", "prithvi_hf.cli", "serve", *words], stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    while process.poll() is None and not (tmp_path / "work" / "jobs").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=90)[1]
    assert "prithvi-hf serve: interrupted\n" in printed
    assert "Traceback" not in printed
    assert process.returncode == 130


@pytest.mark.slow
def test_a_device_that_is_not_there_is_refused(tmp_path, capsys, model_folder):
    words = ["--model", model_folder, "--port", 0, "--work_dir", tmp_path, "--device", "cuda:77"]
    assert run("serve", *words) == 2
    assert "--device cuda:77 cannot be used here" in capsys.readouterr().err


def last_record(server, job):
    return json.loads((server.work_dir / "jobs" / job["id"] / "job.json").read_text())


@pytest.mark.slow
def test_jobs_outlive_the_server_that_took_them(tmp_path, model_folder, capsys):
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(180, 180), compress="deflate")
    small = write_scene(tmp_path / "small.tif", scene_pixels(40, 40))
    first = start_server(tmp_path / "first", model_folder, "--grace", 0)
    words = ["--model", model_folder, "--port", 0, "--work_dir", first.work_dir]
    assert run("serve", *words) == 2
    assert "another one has it" in capsys.readouterr().err
    with first.client() as client:
        done = map_scene(client, small, options=QUICK)
        expected = client.get(done["links"]["map"]).content
        running = send(client, scene, options=SLOW).raise_for_status().json()
        waiting = send(client, small, options=QUICK).raise_for_status().json()
        while client.get(running["links"]["self"]).json()["progress"] < 0.3:
            time.sleep(0.05)
    # Stopped: the job that runs is handed back with what it has.
    assert first.stop() == 0
    assert last_record(first, running) | {"status": "queued", "attempts": 0} == last_record(first, running)
    partial = first.work_dir / "jobs" / running["id"] / "results" / ".map.tif.partial"
    kept = {path.name: path.stat().st_mtime_ns for path in partial.glob("strip_*.npz")}
    assert kept

    # Killed: the next server goes on all the same.
    second = start_server(tmp_path / "second", model_folder, work_dir=first.work_dir)
    with second.client() as client:
        assert client.get(done["links"]["map"]).content == expected
        wait_for(client, running, "running")
        time.sleep(1)
    assert {path.name: path.stat().st_mtime_ns for path in partial.glob("strip_*.npz")}.items() >= kept.items()
    second.process.kill()
    second.process.wait()

    third = start_server(tmp_path / "third", model_folder, work_dir=first.work_dir)
    with third.client() as client:
        ended = wait_for(client, running)
        assert (ended["status"], wait_for(client, waiting)["status"]) == ("succeeded", "succeeded")
        assert client.get(waiting["links"]["self"] + "/map.tif").content == expected
        again = map_scene(client, scene, options=SLOW)
        maps = [client.get(job["links"]["map"]).content for job in (ended, again)]
        assert maps[0] == maps[1]

        # The process of the model is killed: one job fails, the next one is mapped.
        lost = send(client, scene, options=SLOW).raise_for_status().json()
        wait_for(client, lost, "running")
        worker = next(
            one for one in psutil.Process(third.process.pid).children() if "spawn_main" in " ".join(one.cmdline())
        )
        worker.kill()
        lost = wait_for(client, lost)
        assert (lost["status"], lost["error"]["status"]) == ("failed", 500)
        assert "SIGKILL" in lost["error"]["message"]
        deadline = time.monotonic() + 60
        while client.get("/health/ready").status_code != 200:  # before another job comes
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert client.get(map_scene(client, small, options=QUICK)["links"]["map"]).content == expected
        assert "prithvi_worker_restarts 1.0" in client.get("/metrics").text
    # Idle, by Ctrl-C: at once.
    begin = time.monotonic()
    assert third.stop(signal.SIGINT) == 0
    assert time.monotonic() - begin < 20
    assert "Traceback" not in third.log.read_text() + first.log.read_text()


class Clients:
    """Clients that send scenes until each has its maps, whatever happens to the server meanwhile."""

    def __init__(self, server, scenes, expected):
        self.server, self.scenes, self.expected = server, scenes, expected
        self.refused = self.finished = 0
        self.lock = threading.Lock()

    def work(self, number, count):
        """Have `count` scenes mapped, one after the other."""
        dice = random.Random(number)
        for _ in range(count):
            name = dice.choice(sorted(self.scenes))
            job = self.insist(lambda client, name=name: self.post(client, name))
            job = self.insist(lambda client, job=job: self.look(client, job))
            assert job["status"] == "succeeded", job
            found = self.insist(lambda client, job=job: client.get(job["links"]["map"]).raise_for_status().content)
            assert found == self.expected[name]
            with self.lock:
                self.finished += 1

    def post(self, client, name):
        answer = send(client, self.scenes[name], options=QUICK)
        if answer.status_code in (429, 503):
            assert int(answer.headers["retry-after"]) > 0
            with self.lock:
                self.refused += 1
            time.sleep(0.3)
            return None
        return answer.raise_for_status().json()

    def look(self, client, job):
        job = client.get(job["links"]["self"]).raise_for_status().json()
        time.sleep(0.2)
        return job if job["status"] in ("succeeded", "failed", "cancelled") else None

    def insist(self, ask):
        """Ask until there is an answer; a server that is not there comes back."""
        deadline = time.monotonic() + 500
        while time.monotonic() < deadline:
            try:
                with self.server.client() as client:
                    if (found := ask(client)) is not None:
                        return found
            except httpx.TransportError:
                time.sleep(0.2)
        raise AssertionError("no answer")


def make_clients(tmp_path, model, words):
    server = start_server(tmp_path / "server", model, *words)
    scenes, expected = {}, {}
    for number in range(3):
        name = f"scene{number}.tif"
        scenes[name] = write_scene(tmp_path / name, scene_pixels(60 + 20 * number, 90, seed=number))
        assert (
            run(
                *(
                    "predict",
                    "--model",
                    model,
                    "--frames",
                    scenes[name],
                    "--output",
                    tmp_path / "map.tif",
                    "--overlap",
                    0,
                ),
                *("--quiet", "--device", "cpu"),
            )
            == 0
        )
        expected[name] = (tmp_path / "map.tif").read_bytes()
    return Clients(server, scenes, expected)


@pytest.mark.slow
def test_twenty_clients_at_once_lose_nothing_and_memory_stays(tmp_path, model_folder):
    clients = make_clients(tmp_path, model_folder, ("--max_queue", 8, "--quiet"))
    for number in range(2):  # what is imported and compiled once
        clients.work(number, 3)
    before = clients.server.resident_bytes()
    with ThreadPoolExecutor(20) as threads:
        list(threads.map(lambda number: clients.work(number, 2), range(20)))
    after = clients.server.resident_bytes()
    assert clients.finished == 46
    assert clients.refused > 0
    assert after - before < 60e6
    assert sorted(path.name for path in clients.server.work_dir.iterdir()) == ["incoming", "jobs", "server.lock"]
    assert list((clients.server.work_dir / "incoming").iterdir()) == []
    assert clients.server.stop() == 0


@pytest.mark.slow
def test_twenty_clients_lose_nothing_while_servers_are_stopped_and_killed(tmp_path, model_folder):
    options = ("--max_queue", 8, "--keep_results", 1000, "--grace", 1, "--quiet")
    clients = make_clients(tmp_path, model_folder, options)
    memory = []
    with ThreadPoolExecutor(21) as threads:
        found = [threads.submit(clients.work, number, 5) for number in range(20)]
        for trial in range(4):
            time.sleep(8)
            memory.append(clients.server.resident_bytes())
            if trial % 2:
                clients.server.process.kill()
                clients.server.process.wait()
            else:
                assert clients.server.stop() == 0
            clients.server = start_server(
                tmp_path / f"server{trial}", model_folder, *options, work_dir=clients.server.work_dir
            )
        for one in found:
            one.result()
    memory.append(clients.server.resident_bytes())
    assert clients.finished == 100
    assert max(memory) < 1.25 * min(memory), memory
    assert clients.server.stop() == 0


@pytest.mark.slow
def test_time_age_addresses_and_pages_are_limited(tmp_path):
    """Without a token, behind a proxy, of a model of three dates."""
    words = ("--root_path", "/maps", "--job_timeout", 2, "--keep_results", 2, "--quiet")
    words += ("--allow_host", "maps.example.org")
    server = start_server(tmp_path / "server", save_model(tmp_path / "model", 3), *words, token=None)
    places = {one.laddr.ip for one in psutil.Process(server.process.pid).net_connections() if one.status == "LISTEN"}
    assert places == {"127.0.0.1"}
    assert os.stat(server.work_dir).st_mode & 0o777 == 0o700
    scenes = [write_scene(tmp_path / f"date{one}.tif", scene_pixels(40, 40, seed=one)) for one in range(3)]
    large = [write_scene(tmp_path / f"large{one}.tif", scene_pixels(300, 300, seed=one)) for one in range(3)]
    options = json.dumps({"dates": ["2024-06-01", "2024-07-01", "2024-08-01"], "outputs": ["quicklook"]})
    with server.client() as client:

        def ask(*paths, options):
            """Send a scene and wait, at the addresses that a proxy passes on."""
            answer = send(client, *paths, options=options).raise_for_status()
            assert answer.headers["location"].startswith("/maps/v1/jobs/")
            job = answer.json()
            return wait_for(client, {"links": {"self": f"/v1/jobs/{job['id']}"}})

        assert send(client, *scenes[:2]).status_code == 422
        late = ask(*large, options=json.dumps({"tta": "d4", "overlap": 0.9, "outputs": []}))
        assert (late["status"], late["error"]["status"]) == ("failed", 408)
        assert "a map within 2 seconds" in late["error"]["message"]
        jobs = [ask(*scenes, options=options) for _ in range(3)]
        assert {job["status"] for job in jobs} == {"succeeded"}
        assert len(jobs[0]["frames"]) == 3
        assert [client.get(f"/v1/jobs/{one['id']}").status_code for one in (late, *jobs)] == [404, 404, 200, 200]
        assert len(list((server.work_dir / "jobs").iterdir())) == 2
        # Any page that a browser shows could send a form to a server without a token on the same machine.
        for origin, status in (("http://evil.example", 403), (server.url, 415)):
            headers = {"Origin": origin, "Content-Type": "text/plain"}
            assert client.post("/v1/segment", content=b"x", headers=headers).status_code == status
        # And could make its own name lead to this machine.
        for host, status in (("evil.example", 400), ("maps.example.org", 200)):
            assert client.get("/health", headers={"Host": host}).status_code == status
    assert server.stop() == 0
    assert "GET" not in server.log.read_text()
