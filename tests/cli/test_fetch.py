# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The commands `fetch` and `predict --bbox`."""

import numpy as np
import pytest
import rasterio
from affine import Affine

from prithvi_hf.cli import composite, fetch
from prithvi_hf.rasters.composite import METHODS
from prithvi_hf.rasters.products import PIXEL_KINDS
from tests.catalog_server import find_bbox
from tests.command_line import assert_refused, run
from tests.granule_factory import CLOUD, HLS_TRANSFORM, SIZE
from tests.scene_factory import save_model


BBOX = ["--bbox", *find_bbox()]


@pytest.fixture(scope="module")
def three_frames(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), 3)


def fetch_hls(catalog, folder, *options):
    return run("fetch", *BBOX, "--collection", "hls", "--stac", catalog.stac, "--output", folder, *options)


def predict(catalog, model, output, *options):
    words = [*BBOX, "--collection", "hls", "--stac", catalog.stac, "--output", output, "--device", "cpu", "--quiet"]
    return run("predict", "--model", model, *words, *options)


def test_choices_are_those_of_the_package():
    assert composite.METHODS == METHODS
    assert composite.FMASK_OPTION["choices"] == PIXEL_KINDS
    assert fetch.SEARCH_OPTIONS["--bbox"]["nargs"] == 4


def test_fetch_tells_what_is_found_and_what_has_come(catalog, tmp_path, capsys):
    catalog.add_hls((2021, 6, 24), clouds=10)
    catalog.add_hls((2021, 7, 18), "L30", clouds=70)
    dates = ["--dates", "2021-06/2021-08"]
    assert fetch_hls(catalog, tmp_path / "out", *dates, "--dry_run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "2021-06-24",
        "HLS",
        "S30",
        "1",
        "granules,",
        "90",
        "%",
        "of",
        "the",
        "box",
        "clear,",
        "10",
        "%",
        "clouds",
    ]
    assert not (tmp_path / "out").exists()
    assert fetch_hls(catalog, tmp_path / "out", *dates, "--max_cloud", 50) == 0
    output = capsys.readouterr()
    assert "1 items are left out" in output.out
    assert f"7 files of 1 granules in {tmp_path / 'out'}, 0.0 MB, 7 of them new" in output.out
    assert "7/7" in output.err
    assert fetch_hls(catalog, tmp_path / "out", *dates, "--best", 1, "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_fetch_ends_with_1_where_a_file_is_missing_and_the_same_command_completes_it(catalog, tmp_path, capsys):
    granule = catalog.add_hls((2021, 6, 24))["id"]
    catalog.faults[f"{granule}/{granule}.B04.tif"] = [403]
    options = ["--dates", "2021-06", "--mosaic"]
    assert fetch_hls(catalog, tmp_path / "out", *options) == 1
    error = capsys.readouterr().err
    assert f"missing granules/{granule}/{granule}.B04.tif: http://127.0.0.1" in error
    assert "the server answers 403" in error
    assert "prithvi-hf fetch: error: 1 files are missing" in error
    assert not (tmp_path / "out" / "mosaics").exists()
    assert fetch_hls(catalog, tmp_path / "out", *options) == 0
    assert [path.name for path in (tmp_path / "out" / "mosaics").iterdir()] == ["HLS_S30_2021-06-24.tif"]


def test_mosaics_put_tiles_together_and_a_composite_all_days(catalog, tmp_path, capsys):
    clouds = np.zeros(SIZE, dtype=np.uint8)
    clouds[10:40] = CLOUD
    beside = Affine(30, 0, HLS_TRANSFORM.c + 30 * 40, 0, -30, HLS_TRANSFORM.f)
    for day, number, mask in (((2021, 6, 1), 1000, None), ((2021, 6, 9), 2000, None), ((2021, 6, 17), 9000, clouds)):
        pixels = np.full((6, *SIZE), number, dtype=np.int16)
        catalog.add_hls(day, pixels=pixels, fmask=mask)
    catalog.add_hls((2021, 6, 1), pixels=np.full((6, *SIZE), 1000, np.int16), tile="10SHJ", transform=beside)
    options = ["--dates", "2021-06", "--mosaic", "--composite", "median", "--quicklook"]
    assert fetch_hls(catalog, tmp_path / "out", *options) == 0
    assert len(list((tmp_path / "out" / "mosaics").iterdir())) == 3
    assert (tmp_path / "out" / "quicklook.png").read_bytes().startswith(b"\x89PNG")
    with rasterio.open(tmp_path / "out" / "composite.tif") as dataset:
        pixels = dataset.read()
    assert pixels.shape == (7, 34, 44)
    assert set(np.unique(pixels[0])) == {1500, 2000}  # where the third day is clear its 9000 counts
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.tif")}
    assert fetch_hls(catalog, tmp_path / "out", *options, "--quiet") == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.tif")} == before


def test_predict_maps_a_place(catalog, model_folder, tmp_path):
    catalog.add_hls((2021, 6, 24), clouds=60)
    best = catalog.add_hls((2021, 6, 29), "L30", clouds=10)["id"]
    assert predict(catalog, model_folder, tmp_path / "map.tif", "--dates", "2021-06") == 0
    [granule] = (tmp_path / "map_scenes" / "granules").iterdir()
    assert granule.name == best
    frames = ["--frames", granule, "--output", tmp_path / "again.tif", "--device", "cpu", "--quiet"]
    assert run("predict", "--model", model_folder, *frames) == 0
    with rasterio.open(tmp_path / "map.tif") as dataset, rasterio.open(tmp_path / "again.tif") as again:
        np.testing.assert_array_equal(dataset.read(), again.read())
        assert dataset.shape == (34, 44)


def test_predict_takes_the_clearest_day_of_each_period(catalog, three_frames, tmp_path):
    clouds = np.full(SIZE, CLOUD, dtype=np.uint8)
    clouds[20:] = 0
    for day, mask in (((2021, 6, 24), None), ((2021, 7, 18), clouds), ((2021, 8, 20), None)):
        catalog.add_hls(day, fmask=mask)
    periods = ["--dates", "2021-06", "2021-07-01/2021-07-31", "2021-08-20"]
    assert predict(catalog, three_frames, tmp_path / "map.tif", *periods, "--fmask", "cloud") == 0
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert (dataset.read(1) == 255).mean() == 12 / 34  # rows 8 to 19


def test_a_place_in_several_tiles_is_mapped_as_one(catalog, model_folder, three_frames, tmp_path, capsys):
    beside = Affine(30, 0, HLS_TRANSFORM.c + 30 * 40, 0, -30, HLS_TRANSFORM.f)
    for month in (6, 7, 8):
        catalog.add_hls((2021, month, 24))
        catalog.add_hls((2021, month, 24), tile="10SHJ", transform=beside)
    assert predict(catalog, model_folder, tmp_path / "map.tif", "--dates", "2021-06", "--fmask", "cloud") == 0
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert dataset.shape == (34, 44)
    periods = ["--dates", "2021-06", "2021-07", "2021-08"]
    assert predict(catalog, three_frames, tmp_path / "b.tif", *periods, "--fmask", "cloud", "--fmask_rule", "all") == 0
    assert len(list((tmp_path / "b_scenes" / "mosaics").iterdir())) == 3
    capsys.readouterr()
    assert predict(catalog, three_frames, tmp_path / "c.tif", *periods, "--fmask", "cloud") == 2
    assert "Expected --fmask_rule all for a place in several tiles" in capsys.readouterr().err


def test_predict_ends_with_1_where_a_file_is_missing(catalog, model_folder, tmp_path, capsys):
    granule = catalog.add_hls((2021, 6, 24))["id"]
    catalog.faults[f"{granule}/{granule}.B04.tif"] = [403]
    assert predict(catalog, model_folder, tmp_path / "map.tif", "--dates", "2021-06") == 1
    assert "prithvi-hf predict: error: 1 files are missing" in capsys.readouterr().err
    assert not (tmp_path / "map.tif").exists()
    assert predict(catalog, model_folder, tmp_path / "map.tif", "--dates", "2021-06") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dates", "2021-06-31"], "dates: expected FROM/TO or one date"),
        (["--dates", "2021-06", "--max_cloud", 120], "max_cloud: expected percent"),
        (["--dates", "2021-06", "--best", 0], "best: expected at least 1"),
        (["--dates", "2021-06", "--fmask", "cloud"], "add --mosaic or --composite"),
        (["--dates", "2021-06", "--model", "no/such/model"], "no/such/model"),
        (["--dates", "2019-06"], "found none. Give more dates"),
        (["--dates", "2021-06", "--bbox", 1, 4, 3, 2], "Give the southern edge first"),
        (["--dates", "2021-06", "--output", "/proc/none"], "--output /proc/none to be a folder"),
        (["--dates", "2021-06", "--stac", "ftp://a"], "address of an API as --stac"),
    ],
)
def test_wrong_options_are_refused_and_nothing_is_made(catalog, tmp_path, capsys, options, message):
    catalog.add_hls((2021, 6, 24))
    words = [*BBOX, "--collection", "hls", "--stac", catalog.stac, "--output", tmp_path / "out"]
    assert_refused(capsys, tmp_path, message, "fetch", *words, *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([*BBOX, "--output", "m.tif"], "--bbox goes with --dates and --collection: add --dates and --collection"),
        ([*BBOX, "--frames", "a.tif", "--output", "m.tif"], "found --bbox and --frames"),
        ([*BBOX, "--output_dir", "m"], "--bbox goes with --output"),
        (["--frames", "a.tif", "--output", "m.tif", "--max_cloud", 3], "--max_cloud say what is searched"),
        ([*BBOX, "--dates", "2021", "--collection", "hls", "--location", 1, 2, "--output", "m.tif"], "leave it out"),
        (
            [*BBOX, "--dates", "2021-06", "2021-07", "--collection", "hls", "--output", "m.tif"],
            "Expected --dates with 1 dates or periods FROM/TO with --bbox, one for each frame of the model, found 2",
        ),
    ],
)
def test_wrong_options_of_a_place_are_refused(model_folder, tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    assert_refused(capsys, tmp_path, message, "predict", "--model", model_folder, *options)


def test_periods_that_overlap_are_refused(catalog, three_frames, tmp_path, capsys):
    for month in (6, 7):
        catalog.add_hls((2021, month, 24))
    assert predict(catalog, three_frames, tmp_path / "m.tif", "--dates", "2021-06", "2021-06/2021-07", "2021-07") == 2
    assert (
        "Expected a day of its own in each period of --dates, in time order, found 2021-06-24"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "m_scenes").exists()
