# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Scenes that clients send, and what they are told of their jobs, by a real server."""

import json
import socket
import time

import httpx

from tests.scene_factory import scene_pixels, write_scene
from tests.serve_factory import TOKEN, assert_refused, map_scene, send, wait_for


def test_files_that_are_not_scenes_are_refused_with_the_reason(client, scene, tmp_path):
    def refuse(content, status, *words, name="x.tif", **options):
        files = {"files": (name, content)}
        data = {name: json.dumps(value) for name, value in options.items()}
        error = assert_refused(client.post("/v1/segment", files=files, data=data), status, *words)
        assert str(tmp_path) not in str(error)
        assert "frame_001" not in str(error)
        assert "incoming" not in str(error)

    whole = scene.read_bytes()
    refuse(b"", 415, "x.tif", "empty")
    refuse(b"<VRTDataset/>", 415, "x.vrt", name="../../x.vrt")
    refuse(b"\x89PNG\r\n\x1a\n" + b"\0" * 99, 415, "GeoTIFF")
    refuse(whole[: len(whole) // 2], 422, "x.tif", "truncated")
    refuse(b"II*\0" + b"\xff" * 100, 422, "x.tif")
    three = write_scene(tmp_path / "three.tif", scene_pixels(40, 40, bands=3))
    refuse(three.read_bytes(), 422, "bands")
    large = write_scene(tmp_path / "large.tif", scene_pixels(400, 400, 1), compress="deflate")
    refuse(large.read_bytes(), 413, "0.15 million pixels", "400 x 400")
    long = write_scene(tmp_path / "long.tif", scene_pixels(2, 2000, 1))
    refuse(long.read_bytes(), 413, "no side longer than")
    refuse(b"II*\0" + bytes(3_000_000), 413, "2.06554 MB")
    refuse(whole, 413, "0.15 million pixels", options={"resolution": 1})
    refuse(whole, 422, "overlap", options={"overlap": 2})
    refuse(whole, 422, "grid", options={"grid": "/etc/passwd"})
    refuse(whole, 422, "allow_vrt", options={"allow_vrt": True})
    refuse(whole, 422, "classes of the map", options={"polygon_classes": ["lava"]})
    refuse(whole, 422, "polygons among the outputs", options={"outputs": ["quicklook"], "min_area": 5})
    refuse(whole, 422, "the field frames", frames="x")
    assert_refused(send(client, scene, options="{"), 400, "JSON")
    assert_refused(send(client, scene, options="[]"), 422)
    assert_refused(send(client, scene, scene), 422, "at most 1 files")


def test_bodies_that_are_not_forms_are_refused(client, scene):
    def refuse(status, *words, **request):
        assert_refused(client.post("/v1/segment", **request), status, *words)

    form = {"Content-Type": "multipart/form-data; boundary=b"}
    refuse(415, "multipart/form-data", content=b"x")
    refuse(415, "image/tiff", content=scene.read_bytes(), headers={"Content-Type": "image/tiff"})
    refuse(415, "compressed", content=b"x", headers={**form, "Content-Encoding": "gzip"})
    refuse(400, "boundary", content=b"x", headers={"Content-Type": "multipart/form-data"})
    refuse(400, "form", content=b"nothing", headers=form)
    refuse(
        400,
        "end is missing",
        content=b"--b\r\nContent-Disposition: form-data; name=f; filename=x\r\n\r\n",
        headers=form,
    )
    refuse(422, "without files", content=b"--b--\r\n", headers=form)
    refuse(400, "JSON", content=b"{", headers={"Content-Type": "application/json"})
    refuse(422, "urls", json={"urls": []})
    refuse(413, "0.065536 MB", content=b'"' + b"x" * 70_000 + b'"', headers={"Content-Type": "application/json"})
    assert_refused(client.put("/v1/segment"), 405, "PUT")


def test_a_client_that_sends_nothing_more_is_told_so(server):
    started = time.monotonic()
    with socket.create_connection(httpx.URL(server.url).netloc.decode().split(":")) as connection:
        lines = ["POST /v1/segment HTTP/1.1", "Host: a", "Content-Length: 1000", f"Authorization: Bearer {TOKEN}"]
        lines += ["Content-Type: multipart/form-data; boundary=b", "", "--b\r\n"]
        connection.sendall("\r\n".join(lines).encode())
        connection.settimeout(60)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - started < 40
    assert not any((server.work_dir / "incoming").iterdir())


def test_a_job_can_be_cancelled_and_a_finished_one_deleted(server, client, tmp_path):
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(200, 200), compress="deflate")
    slow = json.dumps({"tta": "d4", "overlap": 0.9, "outputs": []})
    running, waiting = (send(client, scene, options=slow).raise_for_status().json() for _ in range(2))
    running = wait_for(client, running, "running")
    assert client.get(waiting["links"]["self"]).json()["position"] == 0
    assert_refused(client.get(f"{running['links']['self']}/map.tif"), 409, "running")
    assert client.delete(waiting["links"]["self"]).json()["status"] == "cancelled"
    client.delete(running["links"]["self"]).raise_for_status()
    ended = wait_for(client, running)
    assert ended["status"] == "cancelled"
    assert ended["progress"] < 1
    for job in (running, waiting):
        assert [path.name for path in (server.work_dir / "jobs" / job["id"]).iterdir()] == ["job.json"]
    done = map_scene(client, scene, options='{"outputs": []}')
    assert done["links"].keys() == {"self", "map", "summary", "tilejson"}
    assert_refused(client.get(f"{done['links']['self']}/polygons.geojson"), 404, "output polygons")
    client.delete(done["links"]["self"]).raise_for_status()
    assert_refused(client.get(done["links"]["self"]), 404, "deleted")
    assert not (server.work_dir / "jobs" / done["id"]).exists()


def test_a_job_that_fails_while_it_runs_says_why(client, tmp_path):
    scene = write_scene(
        tmp_path / "scene.tif", scene_pixels(64, 64), compress="deflate", tiled=True, blockxsize=16, blockysize=16
    )
    content = bytearray(scene.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    answer = client.post("/v1/segment", files={"files": ("bad.tif", bytes(content))})
    job = wait_for(client, answer.raise_for_status().json())
    assert job["status"] == "failed"
    assert "bad.tif" in job["error"]["message"]
    assert "frame_001" not in str(job["error"])
    assert "/" not in job["error"]["message"]
    kept = client.post(
        "/v1/segment", files={"files": ("bad.tif", bytes(content))}, data={"options": '{"on_read_error": "nodata"}'}
    )
    job = wait_for(client, kept.raise_for_status().json())
    assert job["status"] == "succeeded"
    assert {one["file"] for one in client.get(job["links"]["summary"]).json()["unreadable"]} == {"bad.tif"}
