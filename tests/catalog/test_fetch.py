# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Whole fetches, in this process."""

import json
import threading

import numpy as np
import pytest
import rasterio
from filelock import FileLock
from rasterio.crs import CRS

from prithvi_hf.catalog import fetch_scenes, find_scenes
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.rasters import remote
from prithvi_hf.scenes.scene import open_scene
from tests.catalog_server import CORRUPT, DROP, SIGNATURE, SLOW, find_bbox, read_all_text
from tests.scene_factory import tiny_processor


@pytest.fixture(autouse=True)
def be_quick(monkeypatch):
    monkeypatch.setattr(remote, "_SECONDS_BETWEEN", 0.01)


def fetch(catalog, folder, dates="2021-06/2021-08", collection=("hls", "landsat-c2-l2", "sentinel-2-l2a"), **options):
    search = {name: options.pop(name) for name in ("max_cloud", "best", "sign") if name in options}
    finding = find_scenes(find_bbox(), dates, collection, stac=catalog.stac, **search)
    return fetch_scenes(finding, folder, show_progress=False, **options)


def test_granules_of_all_products_are_fetched_and_predict_takes_their_folders(catalog, tmp_path):
    catalog.add_hls((2021, 6, 24), tags=True)
    catalog.add_hls((2021, 7, 18), "L30")
    catalog.add_landsat("2021-06-20", reflectance=0.1)
    catalog.add_sentinel2("2021-06-22", number=2000)
    result = fetch(catalog, tmp_path / "out")
    assert (result.files, result.downloaded, result.missing) == (28, 28, {})
    assert [one.sensor for one in result.acquisitions] == ["Landsat LC08", "Sentinel-2 MSI", "HLS S30", "HLS L30"]
    for folder in result.granules.values():
        scene = open_scene(folder, tiny_processor(), scale="apply", fmask=["cloud", "shadow"])
        values = scene.frames[0].read()
        if "HLS" not in folder.name:
            np.testing.assert_allclose(values, 0.1, atol=2e-5)
        assert scene.dates[0].year == 2021
    layers = {path.name.split(".")[-2].split("_")[-1] for path in (tmp_path / "out").rglob("HLS.S30*.tif")}
    assert layers == {"B02", "B03", "B04", "B8A", "B11", "B12", "Fmask"}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert {len(item["files"]) for item in manifest["items"]} == {7}
    [item] = [item for item in manifest["items"] if item["sensor"] == "Landsat LC08"]
    assert (item["platform"], item["cloud_cover"], item["collection"]) == ("landsat-8", 5, "landsat-c2-l2")
    assert all(file["href"].startswith(catalog.address) for item in manifest["items"] for file in item["files"])


def test_a_second_fetch_asks_for_nothing_that_is_there(catalog, tmp_path):
    catalog.add_hls((2021, 6, 24))
    fetch(catalog, tmp_path / "out")
    catalog.requests.clear()
    catalog.add_hls((2021, 7, 2))
    [damaged] = (tmp_path / "out").rglob("*B04.tif")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    result = fetch(catalog, tmp_path / "out")
    assert (result.files, result.downloaded) == (14, 8)
    assert {path.split("/")[-1].split(".")[3][:7] for path in catalog.asked("/files/")} == {"2021175", "2021183"}
    assert {path.split(".")[-2] for path in catalog.asked("2021175")} == {"B04"}


def test_faults_keep_nothing_else_from_coming_and_the_next_fetch_brings_the_rest(catalog, tmp_path):
    granule = catalog.add_hls((2021, 6, 24))["id"]
    faults = {"B02": [403], "B03": [CORRUPT] * 9, "B04": [SLOW], "B8A": [None, DROP], "B11": [429, 500]}
    catalog.faults = {f"{granule}/{granule}.{layer}.tif": list(one) for layer, one in faults.items()}
    result = fetch(catalog, tmp_path / "out")
    assert (result.files, result.granules) == (5, {})
    reasons = {path.split(".")[-2]: reason for path, reason in result.missing.items()}
    assert set(reasons) == {"B02", "B03"}
    assert "403" in reasons["B02"]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["missing"] == result.missing
    catalog.faults.clear()
    result = fetch(catalog, tmp_path / "out")
    assert (result.files, result.downloaded, result.missing) == (7, 2, {})
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["missing"] == {}
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {".lock", "granules", "manifest.json"}


def test_the_bands_of_a_model_are_fetched(catalog, tmp_path):
    catalog.add_hls((2021, 6, 24))
    processor = PrithviImageProcessor(bands=["RED", "NIR_NARROW"], image_mean=[1000.0] * 2, image_std=[1000.0] * 2)
    assert fetch(catalog, tmp_path / "out", image_processor=processor).files == 3
    names = sorted(path.name.split(".")[-2] for path in (tmp_path / "out").rglob("*.tif"))
    assert names == ["B04", "B8A", "Fmask"]


def test_items_that_cannot_be_used_are_missing_and_those_outside_are_left_out(catalog, tmp_path):
    catalog.add_hls((2021, 6, 24))
    del catalog.add_hls((2021, 7, 2))["assets"]["B04"]
    del catalog.add_hls((2021, 7, 3))["assets"]["Fmask"]
    catalog.add_hls((2021, 7, 4))["assets"] = {}
    far = catalog.add_hls((2021, 7, 5))
    for path in (catalog.folder / far["id"]).iterdir():
        with rasterio.open(path, "r+") as dataset:
            dataset.transform = rasterio.Affine(30, 0, 300_000, 0, -30, 4_400_000)
    result = fetch(catalog, tmp_path / "out")
    assert result.files == 7 + 6
    reasons = {name[19:22]: reason for name, reason in result.missing.items()}
    assert "none for RED (B04)" in reasons["183"]
    assert "no assets" in reasons["185"]
    assert set(reasons) == {"183", "185"}
    left_out = json.loads((tmp_path / "out" / "manifest.json").read_text())["left_out"]
    assert left_out[far["id"]] == "no pixel in the box"
    assert [reason for name, reason in left_out.items() if name.endswith("Fmask")] == ["not in the catalog"]


def test_signed_addresses_are_not_kept(catalog, tmp_path):
    catalog.add_landsat("2021-06-20")
    catalog.is_signing = True
    result = fetch(catalog, tmp_path / "out", collection="landsat-c2-l2", sign=f"{catalog.address}/sign")
    assert result.missing == {}
    assert len(catalog.asked("/sign/")) == 1
    assert all("sig=" in path for path in catalog.asked("/files/"))
    assert b"sig=" not in (tmp_path / "out" / "manifest.json").read_bytes()


def test_addresses_that_a_catalog_has_signed_are_used_and_not_kept(catalog, tmp_path):
    item = catalog.add_hls((2021, 6, 24))
    for asset in item["assets"].values():
        asset["href"] += f"?se=2099&sig={SIGNATURE}"
    catalog.is_signing = True
    catalog.faults[f"{item['id']}/{item['id']}.B04.tif"] = [404]
    result = fetch(catalog, tmp_path / "out")
    assert (result.files, len(result.missing)) == (6, 1)
    assert SIGNATURE not in str(result)
    assert SIGNATURE.encode() not in read_all_text(tmp_path / "out")
    assert fetch(catalog, tmp_path / "out").files == 7


def test_an_empty_search_says_what_was_looked_for(catalog, tmp_path):
    catalog.add_hls((2021, 6, 24), clouds=90)
    with pytest.raises(ValueError, match=r"in 2020-06-01/2020-06-30 in HLSL30_2.0, .*found none. Give more"):
        fetch(catalog, tmp_path / "out", "2020-06", "hls")
    with pytest.raises(ValueError, match=r"found none of 1 fit to use \(cloud cover 90 %\). Raise --max_cloud"):
        fetch(catalog, tmp_path / "out", "2021-06", "hls", max_cloud=20)
    assert not (tmp_path / "out").exists()


def test_a_box_across_the_antimeridian_is_asked_for_on_both_sides(catalog):
    with pytest.raises(ValueError, match="found none"):
        find_scenes([179, -17, -179, -16], "2021-06", "hls", stac=catalog.stac)
    assert [search["bbox"] for search in catalog.searches] == [[179, -17, 180, -16], [-180, -17, -179, -16]]


def test_a_tile_that_the_antimeridian_crosses_is_fetched_in_one_window(catalog, tmp_path):
    """In Fiji's zone 60 south, where the antimeridian is in the middle of the tile."""
    corner = rasterio.Affine(30, 0, 819_000, 0, -30, 8_208_000)
    pixels = np.arange(6 * 60 * 80, dtype=np.int16).reshape(6, 60, 80)
    options = {"pixels": pixels, "tile": "60KXF", "crs": CRS.from_epsg(32760), "transform": corner}
    catalog.add_hls((2021, 6, 24), **options)
    west, south, east, north = catalog.items[0]["bbox"]
    assert (west > 179, east < -179) == (True, True)
    bbox = [west + 0.005, south + 0.005, east - 0.005, north - 0.005]
    finding = find_scenes(bbox, "2021-06", "hls", stac=catalog.stac)
    result = fetch_scenes(finding, tmp_path / "out", show_progress=False)
    assert len(catalog.searches) == 2
    [blue] = (tmp_path / "out").rglob("*.B02.tif")
    with rasterio.open(blue) as dataset:
        column, row = round((dataset.transform.c - corner.c) / 30), round((corner.f - dataset.transform.f) / 30)
        assert dataset.width > 30
        np.testing.assert_array_equal(dataset.read(1), pixels[0][row:, column:][: dataset.height, : dataset.width])
    assert (result.files, result.missing) == (7, {})


def test_two_fetches_do_not_write_to_one_folder(catalog, tmp_path):
    catalog.add_hls((2021, 6, 24))
    (tmp_path / "out").mkdir()
    with (
        FileLock(tmp_path / "out" / ".lock"),
        pytest.raises(ValueError, match="expected no other fetch to write there"),
    ):
        fetch(catalog, tmp_path / "out")
    fetch(catalog, tmp_path / "out")
    with pytest.raises(ValueError, match="expected files that were fetched with whole True, found those of False"):
        fetch(catalog, tmp_path / "out", whole=True)


def test_threads_end_with_the_fetch(catalog, tmp_path):
    catalog.add_hls((2021, 6, 24))
    before = threading.active_count()
    fetch(catalog, tmp_path / "out")
    ours = [thread for thread in threading.enumerate() if thread.name.startswith("Thread-") and "work" in thread.name]
    assert ours == []
    assert threading.active_count() <= before + 1  # of the server
