# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Single files of a catalog: windows and whole files, checked."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from prithvi_hf.catalog.download import Job, OutsideError, fetch_file, find_window
from prithvi_hf.catalog.search import parse_bbox, read_item
from prithvi_hf.rasters import remote
from prithvi_hf.rasters.granules import StatedFile
from prithvi_hf.rasters.raster import GeoTiffError
from prithvi_hf.rasters.warping import Grid
from tests.catalog_server import CORRUPT, DROP, find_bbox
from tests.granule_factory import HLS_TRANSFORM, SIZE, ZONE_10


BOXES = parse_bbox(find_bbox())
WINDOW = (8, 18, 34, 44)  # rows 10 to 40 and columns 20 to 60, and more, because north is not up there
ROWS, COLUMNS = slice(8, 42), slice(18, 62)


@pytest.fixture(autouse=True)
def be_quick(monkeypatch):
    monkeypatch.setattr(remote, "_SECONDS_BETWEEN", 0.01)


def make_job(item, layer="B04", **members):
    [file] = [file for file in item.files if file.layer.layer == layer]
    file = replace(file, members={**file.members, **members})
    return Job(item, file, f"granules/{item.folder}/{file.name}", lambda address: (address, {}))


def fetch(catalog, job, whole=False, boxes=BOXES):
    return fetch_file(job, catalog.folder.parent / "out", boxes, whole, "tool 1", lambda _: None)


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(), dataset.profile, dataset.tags()


def test_the_window_of_a_box_has_edges_at_multiples_of_60_m():
    grid = Grid(ZONE_10, HLS_TRANSFORM, *SIZE)
    assert find_window(grid, BOXES, "a") == WINDOW
    west, south, east, north = find_bbox()
    assert find_window(grid, [(west - 1, south - 1, east + 1, north + 1)], "a") == (0, 0, *SIZE)
    assert find_window(grid, [(west - 1, south, east - 1, north)], "a") is None
    finer = Grid(ZONE_10, Affine(10, 0, HLS_TRANSFORM.c, 0, -10, HLS_TRANSFORM.f), 216, 270)
    assert find_window(finer, BOXES, "a") == tuple(3 * number for number in WINDOW)


def test_a_box_across_the_antimeridian_is_one_window_on_each_tile():
    boxes = parse_bbox([179.9, -16.3, -179.9, -16.2])
    grid = Grid(CRS.from_epsg(32760), Affine(30, 0, 800_000, 0, -30, 8_210_000), 1000, 2000)
    row, column, height, width = find_window(grid, boxes, "a")
    bounds = [transform_bounds("EPSG:4326", grid.crs, *box) for box in boxes]
    left, right = grid.transform @ (column, row), grid.transform @ (column + width, row + height)
    assert 0 <= min(one[0] for one in bounds) - left[0] < 60
    assert 0 <= right[0] - max(one[2] for one in bounds) < 60
    assert width > 600  # 0.2 degrees


def test_places_that_cannot_be_told_are_refused():
    with pytest.raises(GeoTiffError, match="expected a file with a CRS, found none"):
        find_window(Grid(None, HLS_TRANSFORM, *SIZE), BOXES, "a")


def test_a_window_is_written_with_all_that_the_file_says(catalog):
    item = read_item(catalog.add_hls((2021, 6, 24), tags=True))
    noted = fetch(catalog, make_job(item))
    path = catalog.folder.parent / "out" / noted["path"]
    pixels, profile, tags = read(path)
    source, _, _ = read(catalog.folder / item.id / path.name)
    np.testing.assert_array_equal(pixels, source[:, ROWS, COLUMNS])
    assert (profile["nodata"], profile["crs"], profile["dtype"]) == (-9999, ZONE_10, "int16")
    assert tuple(profile["transform"])[:6] == (30, 0, HLS_TRANSFORM.c + 540, 0, -30, HLS_TRANSFORM.f - 240)
    with rasterio.open(path) as dataset:
        assert (dataset.scales, dataset.descriptions) == ((0.0001,), ("RED",))
    assert (tags["ITEM"], tags["TIFFTAG_SOFTWARE"]) == (item.id, "tool 1")
    assert noted["window"] == list(WINDOW)
    assert noted["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert noted["source_bytes"] == (catalog.folder / item.id / path.name).stat().st_size
    assert sorted(path.parent.iterdir()) == [path]


def test_only_the_window_is_asked_for(catalog):
    pixels = np.random.default_rng(0).integers(0, 3000, (6, 2048, 2048)).astype(np.int16)
    item = read_item(catalog.add_hls((2021, 6, 24), pixels=pixels, fmask=np.zeros((2048, 2048), np.uint8)))
    [path] = catalog.folder.rglob("*.B04.tif")
    with rasterio.open(path) as dataset:
        values, profile = dataset.read(), dataset.profile
    with rasterio.open(path, "w", **{**profile, "tiled": True, "blockxsize": 256, "blockysize": 256}) as dataset:
        dataset.write(values)
    fetch(catalog, make_job(item))
    ranges = [headers["Range"].removeprefix("bytes=").split("-") for _, _, headers in catalog.requests]
    assert sum(int(last) - int(first) + 1 for first, last in ranges) < path.stat().st_size / 4


def test_a_server_without_ranges_gives_whole_files_of_which_the_window_is_kept(catalog):
    item = read_item(catalog.add_hls((2021, 6, 24)))
    catalog.with_ranges = False
    catalog.faults[f"{item.id}/{item.id}.B04.tif"] = [None, None, 503, DROP]
    digest = hashlib.sha256((catalog.folder / item.id / f"{item.id}.B04.tif").read_bytes()).hexdigest()
    noted = fetch(catalog, make_job(item, **{"file:checksum": f"1220{digest}"}))
    assert (noted["window"], noted["checksum"]) == (list(WINDOW), "sha256")
    assert read(catalog.folder.parent / "out" / noted["path"])[0].shape == (1, 34, 44)
    assert list((catalog.folder.parent / "out" / ".parts").iterdir()) == []


def test_a_whole_file_is_the_published_one_and_continues_where_it_was(catalog, monkeypatch):
    item = read_item(catalog.add_hls((2021, 6, 24)))
    published = catalog.folder / item.id / f"{item.id}.B04.tif"
    digest = hashlib.sha512(published.read_bytes()).hexdigest()
    job = make_job(item, **{"file:checksum": f"1340{digest}", "file:size": published.stat().st_size})
    monkeypatch.setattr(remote, "_PIECE_BYTES", 4000)
    catalog.faults[f"{item.id}/{published.name}"] = [None, None, 404]
    with pytest.raises(GeoTiffError, match="the server answers 404"):
        fetch(catalog, job, whole=True)
    noted = fetch(catalog, job, whole=True)
    assert (catalog.folder.parent / "out" / noted["path"]).read_bytes() == published.read_bytes()
    assert noted["checksum"] == "sha512"
    assert "window" not in noted
    starts = [headers["Range"] for _, _, headers in catalog.requests if headers["Range"] != "bytes=0-0"]
    assert starts[:3] == ["bytes=0-3999", "bytes=4000-7999", "bytes=4000-7999"]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"file:size": 12}, "expected 12 bytes, as the catalog states, found"),
        ({"proj:shape": [10, 20]}, "expected 10 x 20 pixels, as the catalog states, found 72 x 90"),
    ],
)
def test_a_file_that_is_not_what_the_catalog_says_is_refused(catalog, members, message, whole):
    item = read_item(catalog.add_hls((2021, 6, 24)))
    with pytest.raises(GeoTiffError, match=message):
        fetch(catalog, make_job(item, **members), whole)
    assert [path for path in (catalog.folder.parent / "out").rglob("*") if path.is_file()] == []


def test_damaged_files_are_refused_and_leave_nothing(catalog):
    item = read_item(catalog.add_hls((2021, 6, 24)))
    name = f"{item.id}/{item.id}.B04.tif"
    catalog.always[name] = CORRUPT
    with pytest.raises(GeoTiffError, match=r"B04\.tif"):
        fetch(catalog, make_job(item))
    with pytest.raises(GeoTiffError, match=r"http://.*B04\.tif: .*(damaged|decode|checksums)"):
        fetch(catalog, make_job(item), whole=True)
    with pytest.raises(GeoTiffError, match="expected the sha256 checksum 0000"):
        fetch(catalog, make_job(item, **{"file:checksum": "1220" + "00" * 32}), whole=True)
    (catalog.folder / name).write_text("<html>please log in</html>")
    del catalog.always[name]
    for whole in (False, True):
        with pytest.raises(GeoTiffError, match="expected a GeoTIFF"):
            fetch(catalog, make_job(item), whole)
    assert [path for path in (catalog.folder.parent / "out").rglob("*") if path.is_file()] == []


def test_a_box_that_only_the_footprint_meets_is_outside(catalog):
    job = make_job(read_item(catalog.add_hls((2021, 6, 24))))
    for whole in (False, True):
        with pytest.raises(OutsideError):
            fetch(catalog, job, whole, parse_bbox([1, 2, 3, 4]))


@pytest.mark.parametrize(("applied", "offset"), [(False, "-1000"), (True, "0")])
@pytest.mark.parametrize("whole", [False, True])
def test_the_offset_of_sentinel_2_goes_with_the_file(catalog, applied, offset, whole):
    item = read_item(catalog.add_sentinel2("2021-06-22", **{"earthsearch:boa_offset_applied": applied}))
    noted = fetch(catalog, make_job(item), whole)
    path = catalog.folder.parent / "out" / noted["path"]
    assert read(path)[2]["BOA_ADD_OFFSET"] == offset
    if whole:
        assert path.read_bytes() == next(catalog.folder.rglob("B04.tif")).read_bytes()
    assert (
        "BOA_ADD_OFFSET" not in read(catalog.folder.parent / "out" / fetch(catalog, make_job(item, "SCL"))["path"])[2]
    )


def test_without_a_statement_the_name_of_the_product_tells_the_offset(catalog):
    item = read_item(catalog.add_sentinel2("2021-06-22"))
    job = make_job(item)
    product = "S2A_MSIL2A_20210622T184921_N0300_R113_T10SGJ_20210622T221013.SAFE"
    path = catalog.folder / product / "B04.tif"
    path.parent.mkdir()
    path.write_bytes(next(catalog.folder.rglob("B04.tif")).read_bytes())
    file = replace(job.file, href=StatedFile(f"{catalog.address}/files/{product}/B04.tif"))
    noted = fetch(catalog, replace(job, file=file))
    assert read(catalog.folder.parent / "out" / noted["path"])[2]["BOA_ADD_OFFSET"] == "0"
