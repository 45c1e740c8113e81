# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""From a place and dates to a map, by real processes that are interrupted, from a server with every fault."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio

from tests.catalog_server import CORRUPT, DROP, HELD, SIGNATURE, SLOW, TOKEN, find_bbox, read_all_text
from tests.command_line import run


def start(catalog, *arguments, **environment):
    """Start a command as a process."""
    words = [*arguments, "--bbox", *find_bbox(), "--stac", catalog.stac]
    return subprocess.Popen(
        [sys.executable, "-m", "prithvi_hf.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def finish(process):
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def wait_for_files(folder, count, process):
    """Wait until so many files have come."""
    deadline = time.monotonic() + 60
    while sum(name.endswith("tif") for *_, names in os.walk(folder) for name in names) < count:
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_a_map_of_a_place_survives_interruptions_and_faults(catalog, model_folder, tmp_path):
    """Killed, interrupted, then a run with faults, then one that completes: nothing is fetched twice or lost."""
    catalog.add_hls((2021, 6, 24), clouds=50)
    catalog.add_hls((2021, 6, 29), "L30", clouds=10)
    catalog.add_landsat("2021-06-20")
    catalog.add_sentinel2("2021-06-22")
    files = [str(path.relative_to(catalog.folder)) for path in catalog.folder.rglob("*") if path.is_file()]
    fetch = ["fetch", "--collection", "hls", "landsat-c2-l2", "sentinel-2-l2a", "--dates", "2021-06"]
    fetch += ["--output", tmp_path / "out"]
    # However fast the machine is, neither of the first two runs can fetch everything.
    held = [name for name in files if name.startswith("tiles/")][:4]
    catalog.always = {**dict.fromkeys(files, SLOW), **dict.fromkeys(held, HELD)}

    killed = start(catalog, *fetch)
    wait_for_files(tmp_path / "out", 4, killed)
    killed.send_signal(signal.SIGKILL)
    assert finish(killed)[0] == -signal.SIGKILL
    assert not (tmp_path / "out" / "manifest.json").exists()

    interrupted = start(catalog, *fetch)
    wait_for_files(tmp_path / "out", 14, interrupted)
    interrupted.send_signal(signal.SIGINT)
    status, output = finish(interrupted)
    assert status == 130
    assert "prithvi-hf fetch: interrupted" in output
    assert "the same command continues" in output
    assert "Traceback" not in output
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert 14 <= sum(len(item["files"]) for item in manifest["items"]) < 28
    assert set(manifest["missing"].values()) == {"not fetched yet"}

    catalog.always.clear()
    catalog.release.set()
    left = list(manifest["missing"])
    faults = ([403], [CORRUPT] * 9, [DROP], [SLOW, None])
    for path, fault in zip(left, faults, strict=False):
        [name] = [file for file in files if file.endswith(path.split("/")[-1]) and path.split("/")[1][:12] in file]
        catalog.faults[name] = fault
    catalog.requests.clear()
    status, output = finish(start(catalog, *fetch))
    assert status == 1
    assert f"missing {left[0]}" in output
    assert f"missing {left[1]}" in output
    assert "error: 2 files are missing" in output
    fetched = {path.split("?")[0] for path in catalog.asked("/files/")}
    assert len(fetched) == len(left)

    catalog.faults.clear()
    status, output = finish(start(catalog, *fetch))
    assert status == 0, output
    assert "28 files of 4 granules" in output
    assert not list((tmp_path / "out").rglob("*.partial"))
    for path in (tmp_path / "out").rglob("*.tif"):
        with rasterio.open(path) as dataset:
            dataset.read()

    predict = ["predict", "--model", model_folder, "--collection", "hls", "--dates", "2021-06", "--device", "cpu"]
    status, output = finish(start(catalog, *predict, "--output", tmp_path / "map.tif"))
    assert status == 0, output
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert set(np.unique(dataset.read(1))) <= {0, 1, 2}


def test_no_token_is_logged_written_or_told(catalog, tmp_path, monkeypatch, caplog, capfd):
    """Neither the bearer token nor the signature is in a log of everything, an error, the manifest or any file."""
    granule = catalog.add_hls((2021, 6, 24))["id"]
    catalog.add_landsat("2021-06-20")
    catalog.token, catalog.is_signing = TOKEN, True
    catalog.faults[f"{granule}/{granule}.B04.tif"] = [403]
    catalog.faults[f"{granule}/{granule}.B03.tif"] = [CORRUPT] * 9
    words = ["fetch", "--collection", "hls", "landsat-c2-l2", "--dates", "2021-06", "--output", tmp_path / "out"]
    words += ["--sign", f"{catalog.address}/sign", "--stac", catalog.stac, "--bbox", *find_bbox()]
    caplog.set_level(1)
    monkeypatch.setenv("STAC_TOKEN", TOKEN)
    assert run(*words) == 1
    monkeypatch.setenv("STAC_TOKEN", "wrong")
    assert run(*words) == 1
    output = capfd.readouterr()
    assert "error: 2 files are missing" in output.err
    assert "the server answers 401" in output.err
    assert len(catalog.asked("/sign/")) == 3
    assert "GET /sign/landsat-c2-l2 HTTP/1.1" in caplog.text
    kept = read_all_text(tmp_path / "out") + (output.out + output.err + caplog.text).encode()
    for secret in (TOKEN, SIGNATURE, "sig="):
        assert secret.encode() not in kept
