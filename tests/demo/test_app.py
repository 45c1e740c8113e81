# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The page in a real browser, on a real server: what visitors see, get and are refused."""

import io
import json
import time
from importlib.util import find_spec

import httpx
import numpy as np
import pyogrio
import pytest
import rasterio
import torch
from PIL import Image

from prithvi_hf import predict_scene
from prithvi_hf.outputs.palette import class_palette
from prithvi_hf.scenes import open_scene
from prithvi_hf.scenes.scene_picture import read_scene_picture
from tests.catalog_server import CatalogServer, find_bbox
from tests.demo.browser import start_browser, start_server
from tests.process_factory import find_port
from tests.scene_factory import LABELS, read_map, scene_pixels, tiny_model, tiny_processor, write_scene


if find_spec("gradio") is None:  # it is imported by the server alone
    pytest.skip("the extra demo is not installed", allow_module_level=True)

LARGE = 640  # pixels; some seconds of the model
WAIT = 30_000  # milliseconds


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What visitors have: scenes, one with patches that the map follows, and files that are no scene."""
    folder = tmp_path_factory.mktemp("files")
    blocks = np.random.default_rng(1).choice([200, 4000], (6, 9, 12)).repeat(16, axis=1).repeat(16, axis=2)
    write_scene(folder / "river.tif", blocks.astype(np.int16))  # 144 x 192
    write_scene(folder / "second.tif", scene_pixels(100, 120, seed=5))
    write_scene(folder / "large.tif", scene_pixels(LARGE, LARGE))
    write_scene(folder / "one_band.tif", scene_pixels(bands=1))
    (folder / "text.tif").write_text("not a raster")
    (folder / "too_large.tif").write_bytes(bytes(9_000_000))
    return folder


def make_model():
    """A model that gives each of its classes to many pixels."""
    model = tiny_model()
    with torch.no_grad():
        model.decode_head.classifier.bias[0] -= 0.04
    return model


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    server = CatalogServer(tmp_path_factory.mktemp("catalog"))
    server.add_hls((2021, 6, 24))
    yield server
    server.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory, files, catalog):
    folder = tmp_path_factory.mktemp("server")
    (folder / "examples").mkdir()
    write_scene(folder / "examples" / "delta.tif")
    make_model().save_pretrained(folder / "model")
    tiny_processor().save_pretrained(folder / "model")
    words = ["--model", folder / "model", "--examples", folder / "examples", "--port", find_port()]
    words += ["--collection", "hls", "--stac", catalog.stac]
    with start_server(
        folder, *words, "--title", "Floods & <fires>", "--max_megabytes", 8, "--max_megapixels", 1
    ) as one:
        yield one


@pytest.fixture(scope="module")
def browser():
    with start_browser() as one:
        yield one


@pytest.fixture
def visit(browser, server):
    """What opens the page as a visitor of its own; requests to other servers and faults of the page fail the test."""
    contexts, faults = [], []

    def open_page(path="/", **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(WAIT)
        page.on(
            "request",
            lambda one: None if one.url.startswith((server.address, "data:", "blob:")) else faults.append(one.url),
        )
        page.on("pageerror", lambda one: faults.append(str(one)))
        page.goto(server.address + path)
        page.locator("#start").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def choose(page, path):
    """Upload a scene and wait for its picture."""
    page.locator("#scene-files input[type=file]").set_input_files(path)
    page.locator(".pd-facts", has_text=path.stem).wait_for()


def start(page):
    page.locator("#start:enabled").click()


def wait_for_map(page):
    page.locator(".pd-swipe").wait_for()
    page.locator("#downloads a").first.wait_for()


def read_stage(page, shape):
    """The colours (h, w, 3) in the middle of each pixel of the scene, as they are on the screen."""
    shot = Image.open(io.BytesIO(page.locator(".pd-stage").screenshot())).convert("RGB")
    rows = ((np.arange(shape[0]) + 0.5) / shape[0] * shot.height).astype(int)
    columns = ((np.arange(shape[1]) + 0.5) / shape[1] * shot.width).astype(int)
    return np.asarray(shot)[rows][:, columns].astype(int)


def test_upload_look_move_the_slider_and_download(visit, files, tmp_path):
    page = visit(accept_downloads=True)
    choose(page, files / "river.tif")
    start(page)
    wait_for_map(page)
    own = tmp_path / "own.tif"
    predict_scene(make_model(), tiny_processor(), files / "river.tif", own, show_progress=False)
    mask = read_map(own)
    assert np.bincount(mask.ravel()).min() > 0.1 * mask.size
    palette = np.array(class_palette(3, names=list(LABELS.values())))

    page.get_by_label("Degrees").uncheck()
    middle = np.s_[30:110, 8:170]  # what no label, scale bar or handle covers
    slider = page.get_by_label("Border between")
    slider.press("Home")
    shown = read_stage(page, mask.shape)[middle]
    assert (np.abs(shown - palette[mask][middle]).max(axis=2) <= 2).mean() > 0.97
    slider.press("End")
    scene = read_scene_picture(open_scene(files / "river.tif", tiny_processor()), tiny_processor())[0][..., :3]
    shown = read_stage(page, mask.shape)[middle]
    assert np.median(np.abs(shown - scene[middle])) < 8  # it is compressed with losses
    page.get_by_role("radio", name="Confidence").check()
    slider.press("Home")
    assert np.abs(read_stage(page, mask.shape)[middle] - palette[mask][middle]).max(axis=2).mean() > 20

    rows = page.locator("#legend tbody tr").all_inner_texts()
    assert [row.split("\t")[0].strip() for row in rows] == list(LABELS.values())
    assert float(rows[1].split("\t")[1]) == pytest.approx((mask == 1).sum() * 1e-4, abs=6e-3)  # km2 of 10 m pixels
    names = []
    for link in page.locator("#downloads a").all():
        with page.expect_download() as download:
            link.click()
        names.append(download.value.suggested_filename)
        download.value.save_as(tmp_path / names[-1])
    endings = (".tif", ".gpkg", ".png", "_confidence.tif")
    assert names == [f"river_map{ending}" for ending in endings]
    assert np.array_equal(read_map(tmp_path / "river_map.tif"), mask)
    with rasterio.open(tmp_path / "river_map_confidence.tif") as dataset:
        assert dataset.crs.to_epsg() == 32720
    polygons = pyogrio.read_dataframe(tmp_path / "river_map.gpkg")
    assert set(polygons.class_name) == {LABELS[index] for index in np.unique(mask)}
    assert Image.open(tmp_path / "river_map.png").width > 500


def test_two_visitors_at_once_get_their_own_maps_and_nobody_reads_those_of_others(visit, server, files):
    pages = {name: visit() for name in ("river", "second")}
    for name, page in pages.items():
        choose(page, files / f"{name}.tif")
    for page in pages.values():
        start(page)
    links = {}
    for name, page in pages.items():
        wait_for_map(page)
        assert page.locator("#pictures .pd-facts").inner_text().startswith(name)
        links[name] = [link.get_attribute("href") for link in page.locator("#downloads a").all()]
        assert all(f"/{name}_map" in link for link in links[name])
    folders = {link.rpartition("/")[0] for link in [*links["river"], *links["second"]]}
    assert len(folders) == 2
    for folder in folders:  # what is in them is not listed
        assert httpx.get(folder).status_code == 403

    pages["river"].close()  # the files go with the visitor
    deadline = time.monotonic() + 20
    while httpx.get(links["river"][0]).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert httpx.get(links["river"][0]).status_code == 403
    assert httpx.get(links["second"][0]).status_code == 200


def test_what_is_wrong_is_said_and_the_page_goes_on(visit, server, files):
    page = visit()
    for name, message in (
        ("text.tif", "text.tif: expected a GeoTIFF"),
        ("one_band.tif", "BLUE"),
        ("too_large.tif", "maximum allowed size of 8.0 Mb"),
    ):
        page.locator("#scene-files input[type=file]").set_input_files(files / name)
        error = page.locator(".toast-body", has_text=message).first
        error.wait_for()
        text = error.inner_text()
        assert "Traceback" not in text
        assert str(server.temporary) not in text
        page.locator(".toast-close").first.click()
        page.locator("#scene-files").get_by_label("Clear").click() if name != "too_large.tif" else page.reload()
    choose(page, files / "second.tif")
    page.locator("#scene-files").get_by_label("Clear").click()
    page.locator("#start:disabled").wait_for()
    choose(page, files / "second.tif")
    start(page)
    wait_for_map(page)


def test_a_run_can_be_stopped_and_an_example_mapped_instead(visit, files):
    page = visit()
    assert page.locator("#start").is_disabled()
    assert page.get_by_role("heading", name="Floods & <fires>").is_visible()
    choose(page, files / "large.tif")
    start(page)
    page.locator("#stop").click()
    page.locator(".toast-body", has_text="nothing is kept").wait_for()
    assert page.get_by_alt_text("delta").count() == 1
    page.locator("#examples button").first.press("Enter")
    page.locator(".pd-facts", has_text="delta").wait_for()
    start(page)
    wait_for_map(page)


def test_a_place_and_a_month_are_enough(visit):
    page = visit()
    page.get_by_role("button", name="A place and dates").click()
    page.locator("#bbox textarea, #bbox input").fill(" ".join(map(str, find_bbox())))
    page.locator("#dates textarea, #dates input").fill("2020-06")
    page.locator("#find").click()
    page.locator(".toast-body", has_text="found none").wait_for()
    page.locator(".toast-close").first.click()
    page.locator("#dates textarea, #dates input").fill("2021-06")
    page.locator("#find").click()
    page.locator("#pictures .pd-facts", has_text="hls_2021-06-24").wait_for()
    start(page)
    wait_for_map(page)


def test_a_phone_in_the_dark_shows_everything_in_its_width_readably(visit):
    page = visit("/?__theme=dark", viewport={"width": 390, "height": 844}, has_touch=True)
    page.locator("#examples button").first.tap()
    page.locator(".pd-facts", has_text="delta").wait_for()
    start(page)
    wait_for_map(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert 250 < page.locator(".pd-stage").bounding_box()["width"] <= 390
    color = page.locator("#legend tbody td").first.evaluate("(one) => getComputedStyle(one).color")
    assert min(float(number) for number in color.strip("rgba()").split(",")[:3]) > 180
    ground = Image.open(io.BytesIO(page.screenshot())).convert("RGB").getpixel((3, 400))
    assert max(ground) < 60


def test_files_of_the_server_and_of_other_servers_are_out_of_reach(server, files):
    """As a program would ask, without a browser."""
    with httpx.Client(base_url=server.address, timeout=20) as client:
        assert client.get("/gradio_api/file=/etc/passwd").status_code == 403
        assert client.get(f"/gradio_api/file={files / 'river.tif'}").status_code == 403
        assert client.get("/gradio_api/file=http://127.0.0.1:1/").status_code == 404
        assert client.get("/gradio_api/info").json() == {"named_endpoints": {}, "unnamed_endpoints": {}}
        calls = client.get("/config").json()["dependencies"]
        [upload] = [call for call in calls if any(target[1] == "change" for target in call["targets"])]
        for path in ("/etc/passwd", str(files / "river.tif"), "http://127.0.0.1:1/scene.tif"):
            file = {"path": path, "meta": {"_type": "gradio.FileData"}}
            call = {"data": [[file]], "fn_index": upload["id"], "session_hash": "forged"}
            assert client.post("/gradio_api/queue/join", json=call).status_code == 200
            with client.stream("GET", "/gradio_api/queue/data?session_hash=forged") as answer:
                messages = [json.loads(line[5:]) for line in answer.iter_lines() if line.startswith("data:")]
            [done] = [message for message in messages if message["msg"] == "process_completed"]
            assert done["success"] is False
    assert not list(server.temporary.rglob("river.tif"))
