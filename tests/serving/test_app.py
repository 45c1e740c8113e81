# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The application as its clients see it: a real server in a process of its own, and httpx."""

import http.client
import json
import re
import socket
import threading
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
import rasterio
import uvicorn

from prithvi_hf.serving.app import create_app
from prithvi_hf.serving.jobs import JobManager
from prithvi_hf.serving.settings import Settings
from tests.command_line import run
from tests.scene_factory import LABELS, scene_pixels, tiny_model, tiny_processor, write_scene
from tests.serve_factory import TOKEN, assert_refused, map_scene


def test_the_map_and_its_polygons_are_those_of_predict_to_the_byte(client, job, scene, tmp_path, served_model):
    words = ["--overlap", 0.25, "--polygons", tmp_path / "map.geojson", "--confidence", "--entropy", "--probabilities"]
    words += ["--quicklook", "--quiet", "--device", "cpu"]
    assert run("predict", "--model", served_model, "--frames", scene, "--output", tmp_path / "map.tif", *words) == 0
    names = {
        "map": "map.tif",
        "polygons": "map.geojson",
        "quicklook": "map.png",
        **{name: f"map_{name}.tif" for name in ("confidence", "entropy", "probabilities")},
    }
    for name, file in names.items():
        assert client.get(job["links"][name]).content == (tmp_path / file).read_bytes(), name


def test_only_who_shows_the_token_may_ask(server, job, scene):
    paths = ["/v1/model", "/metrics", job["links"]["self"], job["links"]["map"], "/v1/jobs/unknown"]
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "é"},
    ):
        with httpx.Client(base_url=server.url, timeout=60) as stranger:
            encoded = {name: value.encode() for name, value in headers.items()}
            for path in paths:
                answer = stranger.get(path, headers=encoded)
                assert_refused(answer, 401, "token")
                assert answer.headers["www-authenticate"] == "Bearer"
            files = {"files": scene.read_bytes()}
            assert_refused(stranger.post("/v1/segment", files=files, headers=encoded), 401)
            assert_refused(stranger.delete(job["links"]["self"], headers=encoded), 401)
            for path in ("/health", "/health/live", "/health/ready", "/docs", "/openapi.json"):
                assert stranger.get(path, headers=encoded).status_code == 200
    kept = "".join(path.read_text(errors="replace") for path in server.work_dir.rglob("*.json"))
    assert TOKEN not in server.log.read_text() + kept


def test_a_file_cannot_make_the_server_read_another_one(client, server, file_server, tmp_path):
    secret = write_scene(tmp_path / "secret.tif", np.full((6, 128, 128), 3999, np.int16))
    scenes = []
    for number, place in enumerate((secret, f"/vsicurl/{file_server.url}/secret/scene.tif")):
        scene = write_scene(tmp_path / f"scene{number}.tif", scene_pixels(256, 256), compress="deflate")
        with rasterio.open(scene, "r+") as dataset:
            dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(place))
        assert not (tmp_path / f"scene{number}.tif.aux.xml").exists()
        scenes.append(scene)
    with rasterio.open(scenes[0]) as dataset:
        assert dataset.read(1, out_shape=(64, 64)).max() == 3999  # GDAL would follow the name
    before = len(file_server.requests)
    plain = write_scene(tmp_path / "plain.tif", scene_pixels(256, 256), compress="deflate")
    options = '{"resolution": 23, "outputs": ["quicklook"]}'
    maps = [client.get(map_scene(client, one, options=options)["links"]["map"]).content for one in (plain, *scenes)]
    assert maps[1:] == [maps[0]] * 2
    assert len(file_server.requests) == before


def test_the_interface_is_described_for_people_and_machines(client):
    page = client.get("/", follow_redirects=True)
    assert page.url.path == "/docs"
    assert "curl" in page.text
    assert not re.search(r"<script|(?:src|href)=.?(?:https?:)?//", page.text)  # nothing from elsewhere
    assert "default-src 'none'" in page.headers["content-security-policy"]
    described = client.get("/openapi.json").json()
    text = json.dumps(described)
    names = described["components"]["schemas"]
    assert set(re.findall(r"#/components/schemas/(\w+)", text)) <= names.keys()
    assert {"files", "options"} == set(
        described["paths"]["/v1/segment"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"][
            "properties"
        ]
    )
    model = client.get("/v1/model").json()
    assert model["task"] == "segmentation"
    assert [one["name"] for one in model["classes"]] == list(LABELS.values())
    assert model["limits"]["max_queue"] == 6
    assert client.get("/health/ready").json()["ready"] is True
    figures = client.get("/metrics").text
    assert re.search(r'prithvi_jobs_total{status="succeeded"} [1-9]', figures)
    assert 'path="/v1/jobs/{job_id}",status="200"' in figures


@contextmanager
def listen(work_dir, address, token=None, **options):
    """Serve without the process of the model at an address of this machine; gives the port."""
    manager = JobManager(Settings("model", work_dir, token=token), lambda *_: None)
    app = create_app(manager, tiny_processor(), tiny_model().config, version="1", **options)
    server = uvicorn.Server(uvicorn.Config(app, http="h11", lifespan="off", log_level="error"))
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
            manager.close(0)


def ask(address, port, host, path="/health", method="GET"):
    """Ask as a browser does whose page's name leads to an address; gives status and body."""
    connection = http.client.HTTPConnection(address, port, timeout=30)
    connection.putrequest(method, path, skip_host=True)
    for value in [host] if isinstance(host, str) else host:
        connection.putheader("Host", value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1"])
def test_without_a_token_only_names_of_the_server_are_answered(tmp_path, address):
    with listen(tmp_path, address, allow_host=("Maps.example.org",)) as port:
        reached = "::1" if ":" in address else "127.0.0.1"
        known = ["localhost", "LOCALHOST", "127.0.0.1", "[::1]", "192.168.1.7", "[fd00::7]", "maps.example.org"]
        for host in (*known, *(f"{name}:{port}" for name in known)):
            assert ask(reached, port, host)[0] == 200, host
        strange = ["evil.example", f"evil.example:{port}", "evil_name.example", "localhost.evil.example"]
        strange += ["127.0.0.1.evil.example", "127.0.0.1@evil.example", "x.maps.example.org", "[::1].evil.example", ""]
        for host in strange:
            for path, method in (
                ("/health", "GET"),
                ("/openapi.json", "GET"),
                ("/none", "GET"),
                ("/v1/segment", "POST"),
            ):
                status, body = ask(reached, port, host, path, method)
                assert status == 400, host
                assert "--allow_host" in json.loads(body)["error"]["remedy"]
        assert "found the host evil.example." in ask(reached, port, "evil.example")[1]
        assert ask(reached, port, ["127.0.0.1", "evil.example"])[0] == 400
        assert 'path="other",status="400"' in ask(reached, port, "localhost", "/metrics")[1]


def test_with_a_token_a_server_answers_to_every_name(tmp_path):
    """A page does not have the token, whatever its name."""
    with listen(tmp_path, "127.0.0.1", token="a-token") as port:
        assert ask("127.0.0.1", port, "maps.example.org")[0] == 200
        assert ask("127.0.0.1", port, "maps.example.org", "/v1/model")[0] == 401
