# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Files and tiles that clients fetch from a real server."""

import io
import socket

import geopandas
import httpx
import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.warp import transform as transform_points
from rio_cogeo import cog_validate

from tests.scene_factory import LABELS, read_map, scene_pixels, write_scene
from tests.serve_factory import TOKEN, assert_refused, map_scene, send


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


def test_tiles_of_a_map_across_180_degrees_are_on_both_sides(client, tmp_path):
    scene = write_scene(
        tmp_path / "scene.tif", scene_pixels(60, 80), crs="EPSG:4326", transform=Affine(0.1, 0, 176, 0, -0.1, 60)
    )
    description = client.get(map_scene(client, scene)["links"]["tilejson"]).json()
    assert description["bounds"] == [-180, pytest.approx(54), 180, pytest.approx(60)]
    for x in (31, 0):
        tile = Image.open(io.BytesIO(client.get(description["tiles"][0].format(z=5, x=x, y=9)).content)).convert(
            "RGBA"
        )
        assert (np.array(tile)[..., 3] > 0).any()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_scene_without_a_place_has_a_map_without_areas_and_tiles(client, tmp_path):
    scene = write_scene(tmp_path / "scene.tif", scene_pixels(40, 40), crs=None, transform=None)
    job = map_scene(client, scene)
    assert job["links"].keys() == {"self", "map", "quicklook", "summary"}
    summary = client.get(job["links"]["summary"]).json()
    assert (summary["crs"], summary["bounds"]) == (None, None)
    assert [one["area_km2"] for one in summary["classes"]] == [None] * 3
    assert_refused(client.get(f"{job['links']['self']}/tilejson.json"), 404, "without a place")
    assert_refused(client.get(f"{job['links']['self']}/tiles/0/0/0.png"), 404, "without a place")
    assert_refused(send(client, scene, options='{"outputs": ["polygons"]}'), 422, "CRS")
