# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""VRTs: mosaics and stacks of local files, and nothing that is more."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
from affine import Affine

from prithvi_hf.rasters.geotiff_raster import GeoTiffError
from prithvi_hf.rasters.vrt import VirtualRaster
from prithvi_hf.scenes.scene import open_scene
from tests.raster_factory import flip_unnoticed, write_part
from tests.rasters.test_raster import NAMES, band_files
from tests.scene_factory import TRANSFORM, scene_pixels, tiny_processor


def write_vrt(folder, sources, inner="", *, before="", relative=1) -> str:
    bands = "".join(
        f'<VRTRasterBand dataType="Int16" band="{i}"><NoDataValue>-9999</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="{relative}">{source}</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
        for i, source in enumerate(sources, start=1)
    )
    transform = ", ".join(map(repr, TRANSFORM.to_gdal()))
    path = folder / "stack.vrt"
    path.write_text(
        f'{before}<VRTDataset rasterXSize="90" rasterYSize="72"><SRS>EPSG:32720</SRS>'
        f"<GeoTransform>{transform}</GeoTransform>{bands}{inner}</VRTDataset>"
    )
    return str(path)


def test_a_vrt_of_files_is_read_by_option(tmp_path):
    band_files(tmp_path)
    path = write_vrt(tmp_path, [f"{name}.tif" for name in NAMES])
    with pytest.raises(GeoTiffError, match="option allow_vrt"):
        open_scene(path)
    scene = open_scene(path, image_processor=tiny_processor(), allow_vrt=True)
    np.testing.assert_array_equal(scene.frames[0].read(), scene_pixels())
    assert scene.frames[0].transform == Affine(*TRANSFORM[:6])
    assert scene.frames[0].nodata == -9999
    assert list(scene.files) == [path, *(str(tmp_path / f"{name}.tif") for name in NAMES)]
    part = pickle.loads(pickle.dumps(scene.frames[0])).select([3], (5, 6, 7, 8))
    np.testing.assert_array_equal(part.read(), scene_pixels()[[3], 5:12, 6:14])
    assert not [name for name in _open_names() if name.endswith((".vrt", ".tif"))]
    os.remove(tmp_path / "red.tif")
    with pytest.raises(GeoTiffError, match="red"):
        scene.frames[0].read()


def test_absent_and_corrupt_blocks_of_its_files_are_errors(tmp_path):
    band_files(tmp_path)
    path = write_vrt(tmp_path, [f"{name}.tif" for name in NAMES])
    flip_unnoticed(tmp_path / "green.tif")
    VirtualRaster(path).read()
    with pytest.raises(GeoTiffError, match=r"green\.tif: 1 of \d+ blocks do not fit their own checksums"):
        open_scene(path, allow_vrt=True, verify=True)
    place = {"crs": "EPSG:32720", "transform": TRANSFORM, "blockysize": 8}
    write_part(tmp_path / "red.tif", scene_pixels()[:1], slice(0, 8), **place)
    with pytest.raises(GeoTiffError, match=r"red\.tif: 8 of 9 blocks are absent"):
        VirtualRaster(path)


# Run apart: threads that wait for each other in GDAL would never end.
_READ_IN_THREADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from prithvi_hf.rasters.vrt import VirtualRaster

paths, expected = sys.argv[1:], VirtualRaster(sys.argv[1]).read()
with ThreadPoolExecutor(8) as threads:
    for pixels in threads.map(lambda number: VirtualRaster(paths[number % len(paths)]).read(), range(200)):
        assert (pixels == expected).all()
"""


def test_many_threads_read_vrts_at_once(tmp_path):
    folders = [tmp_path / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir()
        band_files(folder)
    paths = [write_vrt(folder, [f"{name}.tif" for name in NAMES]) for folder in folders]
    subprocess.run([sys.executable, "-c", _READ_IN_THREADS, *paths], check=True, timeout=120)


def test_a_process_may_be_forked_while_a_thread_reads_a_vrt(tmp_path):
    band_files(tmp_path)
    raster = VirtualRaster(write_vrt(tmp_path, [f"{name}.tif" for name in NAMES]))
    stop = threading.Event()
    thread = threading.Thread(target=lambda: [raster.read() for _ in iter(stop.is_set, True)])
    thread.start()
    try:
        for _ in range(5):
            child = multiprocessing.get_context("fork").Process(target=raster.read)
            child.start()
            child.join(60)
            code = child.exitcode
            child.kill()
            assert code == 0
    finally:
        stop.set()
        thread.join()


def _open_names() -> list[str]:
    names = []
    for number in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:  # of the listing itself
            continue
    return names


@pytest.mark.parametrize(
    ("source", "inner", "before", "message"),
    [
        ("/vsicurl/http://127.0.0.1/a.tif", "", "", "expected local GeoTIFF files in a VRT"),
        ("http://127.0.0.1/a.tif", "", "", "expected local GeoTIFF files in a VRT"),
        ("secret.txt", "", "", "found a file that starts with"),
        ("red.tif", '<VRTRasterBand subClass="VRTDerivedRasterBand"/>', "", "found VRTDerivedRasterBand in it"),
        ("red.tif", '<VRTRasterBand subClass="VRTRawRasterBand"/>', "", "found VRTRawRasterBand in it"),
        ("red.tif", "<GDALWarpOptions/>", "", "found GDALWarpOptions in it"),
        ("red.tif", "<PixelFunctionCode/>", "", "found PixelFunctionCode in it"),
        ("red.tif", "<OverviewFile/>", "", "found OverviewFile in it"),
        ("red.tif", "<unclosed>", "", "not XML"),
        ("red.tif", "", '<!DOCTYPE a [<!ENTITY b "c">]>', "found a document type, entities or zeros"),
    ],
)
def test_a_vrt_that_is_more_than_a_mosaic_is_refused(tmp_path, source, inner, before, message):
    band_files(tmp_path)
    (tmp_path / "secret.txt").write_text("password of the machine, not an image at all")
    with pytest.raises(GeoTiffError, match=message):
        VirtualRaster(write_vrt(tmp_path, [source], inner, before=before))
