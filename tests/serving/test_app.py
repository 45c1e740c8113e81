# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The application as its clients see it: a real server in a process of its own, and httpx."""

import io
import json
import re
import socket
import time

import geopandas
import httpx
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.warp import transform as transform_points
from rio_cogeo import cog_validate

from tests.command_line import run
from tests.scene_factory import LABELS, read_map, scene_pixels, write_scene
from tests.serve_factory import TOKEN, map_scene, send, wait_for


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene") / "a scene.tif", scene_pixels(70, 90))


@pytest.fixture(scope="module")
def job(server, scene):
    """A job that has succeeded, with every output."""
    outputs = ["polygons", "quicklook", "confidence", "entropy", "probabilities"]
    with server.client() as client:
        return map_scene(client, scene, options=json.dumps({"outputs": outputs, "overlap": 0.25}))


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


def test_results_are_what_they_are_called(client, job, tmp_path):
    answer = client.get(job["links"]["map"])
    assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''a%20scene_map.tif"
    (tmp_path / "map.tif").write_bytes(answer.content)
    assert cog_validate(tmp_path / "map.tif")[0]
    part = client.get(job["links"]["map"], headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, answer.content[:4])
    polygons = geopandas.read_file(io.BytesIO(client.get(job["links"]["polygons"]).content))
    assert set(polygons.class_name) <= set(LABELS.values())
    assert polygons.crs.to_epsg() == 4326
    assert Image.open(io.BytesIO(client.get(job["links"]["quicklook"]).content)).format == "PNG"
    summary = client.get(job["links"]["summary"]).json()
    counts = np.bincount(read_map(tmp_path / "map.tif").ravel(), minlength=3)
    assert [one["pixels"] for one in summary["classes"]] == counts[:3].tolist()
    assert [one["name"] for one in summary["classes"]] == list(LABELS.values())
    for one in summary["classes"]:
        assert one["area_km2"] == pytest.approx(one["pixels"] * 1e-4, rel=2e-3)
    found = polygons.groupby("class_name").area_m2.sum() / 1e6
    for one in summary["classes"]:
        assert one["area_km2"] == pytest.approx(found.get(one["name"], 0), rel=1e-6)
    west, south, east, north = summary["bounds"]
    assert (polygons.total_bounds >= [west - 1e-6, south - 1e-6, -180, -90]).all()
    assert (polygons.total_bounds[2:] <= [east + 1e-6, north + 1e-6]).all()


def test_a_map_is_read_where_it_is(server, job):
    address = f"{server.url}{job['links']['map']}"
    with (
        rasterio.Env(GDAL_HTTP_HEADERS=f"Authorization: Bearer {TOKEN}", GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
        rasterio.open(f"/vsicurl/{address}") as dataset,
        server.client() as client,
        rasterio.io.MemoryFile(client.get(address).content) as content,
        content.open() as whole,
    ):
        np.testing.assert_array_equal(dataset.read(1), whole.read(1))
        assert dataset.colormap(1) == whole.colormap(1)


def test_tiles_are_in_the_colours_of_the_map(client, job, tmp_path):
    description = client.get(job["links"]["tilejson"]).json()
    west, south, east, north = description["bounds"]
    z = description["maxzoom"]
    assert description["minzoom"] <= z <= 20
    n, longitude, latitude = 2**z, (west + east) / 2, np.radians((south + north) / 2)
    x, y = int((longitude + 180) / 360 * n), int((1 - np.arcsinh(np.tan(latitude)) / np.pi) / 2 * n)
    answer = client.get(description["tiles"][0].format(z=z, x=x, y=y))
    assert answer.headers["content-type"] == "image/png"
    tile = np.array(Image.open(io.BytesIO(answer.content)).convert("RGBA"))
    assert tile.shape == (256, 256, 4)
    (tmp_path / "map.tif").write_bytes(client.get(job["links"]["map"]).content)
    with rasterio.open(tmp_path / "map.tif") as dataset:
        colors, classes, crs, place = dataset.colormap(1), dataset.read(1), dataset.crs, ~dataset.transform
    rows, columns = np.mgrid[8:256:16, 8:256:16] + 0.5
    metres = 2 * 20037508.342789244
    xs, ys = ((x + columns / 256) / n - 0.5) * metres, (0.5 - (y + rows / 256) / n) * metres
    xs, ys = transform_points("EPSG:3857", crs, xs.ravel(), ys.ravel())
    seen = 0
    for row, column, px, py in zip(rows.ravel(), columns.ravel(), xs, ys, strict=True):
        left, top = place @ (px, py)
        inside = 1 < left < classes.shape[1] - 1 and 1 < top < classes.shape[0] - 1
        around = classes[int(top - 0.5) : int(top + 1.5), int(left - 0.5) : int(left + 1.5)] if inside else []
        if len(np.unique(around)) == 1:
            seen += 1
            assert tuple(tile[int(row), int(column)]) == tuple(colors[int(around[0, 0])])
    assert seen > 10
    assert_refused(client.get(description["tiles"][0].format(z=z, x=0, y=0)), 404, "does not touch")
    assert_refused(client.get(description["tiles"][0].format(z=3, x=8, y=0)), 404, "no tile")
    assert_refused(client.get(description["tiles"][0].format(z=99, x=8, y=0)), 404, "no tile")
    assert_refused(client.get(description["tiles"][0].format(z="a", x=8, y=0)), 422)


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


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/jobs/..%2f..%2fserver.lock", 404),
        ("/v1/jobs/../../../etc/passwd", 404),
        ("/v1/jobs/{id}/job.json", 404),
        ("/v1/jobs/{id}/results/map.tif", 404),
        ("/v1/jobs/{id}/..%2fjob.json", 404),
        ("/v1/jobs/{id}/frame_001.tif", 404),
        ("/v1/jobs/", 404),
        ("/nothing", 404),
    ],
)
def test_no_other_file_can_be_asked_for(server, job, path, status):
    with socket.create_connection(httpx.URL(server.url).netloc.decode().split(":")) as connection:
        address = path.format(id=job["id"])  # as it is: httpx would resolve the dots
        connection.sendall(
            f"GET {address} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert int(answer.split()[1]) == status
    assert b"frames" not in answer


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


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_scene_without_a_place_has_a_map_without_areas_and_tiles(client, tmp_path):
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(40, 40), crs=None, transform=None)
    job = map_scene(client, scene)
    assert job["links"].keys() == {"self", "map", "quicklook", "summary"}
    summary = client.get(job["links"]["summary"]).json()
    assert (summary["crs"], summary["bounds"]) == (None, None)
    assert [one["area_km2"] for one in summary["classes"]] == [None] * 3
    assert_refused(client.get(f"{job['links']['self']}/tilejson.json"), 404, "without a CRS")
    assert_refused(client.get(f"{job['links']['self']}/tiles/0/0/0.png"), 404, "without a CRS")
    assert_refused(send(client, scene, options='{"outputs": ["polygons"]}'), 422, "CRS")


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
