# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The application as its clients see it: a real server in a process of its own, and httpx."""

import json
import re

import httpx
import numpy as np
import rasterio

from tests.command_line import run
from tests.scene_factory import LABELS, scene_pixels, write_scene
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
