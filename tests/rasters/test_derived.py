# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Rasters in memory, one file a band, masks by flags, files at addresses and VRTs."""

import http.server
import multiprocessing
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS

from prithvi_hf.models.prithvi.pixel_values_prithvi import is_raster
from prithvi_hf.rasters import remote
from prithvi_hf.rasters.derived import (
    ArrayRaster,
    BandStack,
    MaskedRaster,
    Raster,
    describe_raster,
    files_of,
)
from prithvi_hf.rasters.geotiff_raster import GeoTiffError, GeoTiffRaster
from prithvi_hf.rasters.radiometry import ScaledRaster
from prithvi_hf.rasters.remote import RemoteRaster
from prithvi_hf.rasters.vrt import VirtualRaster
from prithvi_hf.rasters.warping import Grid, WarpedRaster, overlap
from prithvi_hf.scenes.scene import open_scene
from tests.scene_factory import CRS_UTM, TRANSFORM, scene_pixels, tiny_processor, write_scene


NAMES = ("blue", "green", "red", "nir", "swir16", "swir22")


def array_raster(**options) -> ArrayRaster:
    return ArrayRaster(scene_pixels(), **{"crs": CRS_UTM, "transform": TRANSFORM, "nodata": -9999, **options})


def band_files(folder, pixels=None, **options) -> list[GeoTiffRaster]:
    pixels = scene_pixels() if pixels is None else pixels
    return [
        GeoTiffRaster(write_scene(folder / f"{name}.tif", pixels[band : band + 1], **options))
        for band, name in enumerate(NAMES)
    ]


def stack(folder, **options) -> BandStack:
    return BandStack(band_files(folder, **options), NAMES, name="granule")


def every_kind(folder) -> dict[str, object]:
    mask = np.random.default_rng(0).random((72, 90)) < 0.3
    flags = ArrayRaster(mask[None].astype(np.uint8) * 2)
    return {
        "file": GeoTiffRaster(write_scene(folder / "a.tif")),
        "array": array_raster(nodata_mask=mask),
        "stack": stack(folder),
        "masked": MaskedRaster(array_raster(), flags, 2),
        "scaled": ScaledRaster(array_raster(), [0.5] * 6, range(6)),
        "warped": _warped(folder),
    }


def _warped(folder) -> WarpedRaster:
    """A file of the zone beside on the grid of the others."""
    place = Affine(10.0, 0.0, 1_047_400.0, 0.0, -10.0, 8_394_100.0)
    source = GeoTiffRaster(write_scene(folder / "beside.tif", crs=CRS.from_epsg(32719), transform=place))
    grid = Grid(CRS_UTM, TRANSFORM, 72, 90)
    assert 0.5 < overlap(grid, source) < 1
    return WarpedRaster(source, grid)


def test_all_kinds_have_the_interface_of_a_geotiff(tmp_path):
    for raster in every_kind(tmp_path).values():
        assert is_raster(raster)
        assert isinstance(raster, Raster)
        assert raster.shape == (6, 72, 90)
        assert raster.crs == CRS_UTM
        assert raster.transform == TRANSFORM
        assert len(raster.scales) == len(raster.offsets) == len(raster.descriptions) == raster.count == 6
        assert raster.read().dtype == raster.dtype
        assert "72, 90" in repr(raster)
        assert np.asarray(raster).shape == raster.shape


def test_windows_and_bands_are_parts_of_the_whole(tmp_path):
    for raster in every_kind(tmp_path).values():
        whole, mask = raster.read(), raster.read_nodata_mask()
        part = raster.select([4, 0, 2], (10, 20, 30, 40)).select([2, 0], (5, 6, 7, 8))
        assert part.shape == (2, 7, 8)
        np.testing.assert_array_equal(part.read(), whole[[2, 4], 15:22, 26:34])
        np.testing.assert_array_equal(raster.read([5], (1, 2, 3, 4)), whole[[5], 1:4, 2:6])
        assert part.transform.c == pytest.approx(TRANSFORM.c + 26 * TRANSFORM.a, abs=1e-6)
        own = part.read_nodata_mask()
        assert (own is None) == (mask is None)
        if own is not None:
            np.testing.assert_array_equal(own, mask[15:22, 26:34])


def test_selections_outside_are_refused(tmp_path):
    for raster in every_kind(tmp_path).values():
        with pytest.raises(IndexError, match=r"0-based bands in 0..5"):
            raster.select([6])
        with pytest.raises(ValueError, match="at least one band"):
            raster.select([])
        for window in ((0, 0, 73, 90), (-1, 0, 5, 5), (0, 0, 0, 5)):
            with pytest.raises(ValueError, match="expected a window"):
                raster.select(window=window)


def test_arrays_are_not_copied():
    values = scene_pixels()
    raster = ArrayRaster(values)
    for part in (raster.read(), raster.select([1, 2, 3], (0, 5, 10, 10)).read()):
        assert np.shares_memory(part, values)
    assert not np.shares_memory(raster.read([3, 1]), values)


@pytest.mark.parametrize(
    ("values", "options", "error", "message"),
    [
        (np.zeros((3, 4)), {}, ValueError, "Put the bands first"),
        (np.zeros((0, 3, 4)), {}, ValueError, "Put the bands first"),
        (np.zeros((1, 3, 4), dtype=complex), {}, TypeError, "integers or floats, found complex128"),
        (np.zeros((2, 3, 4)), {"descriptions": ["a"]}, ValueError, "a description for each of 2 bands, found 1"),
        (np.zeros((2, 3, 4)), {"nodata_mask": np.zeros((4, 3))}, ValueError, "expected a nodata mask of"),
    ],
)
def test_arrays_of_other_shapes_are_refused(values, options, error, message):
    with pytest.raises(error, match=message):
        ArrayRaster(values, **options)


def test_a_stack_reads_the_files_of_selected_bands_alone(tmp_path):
    raster = stack(tmp_path)
    os.remove(tmp_path / "nir.tif")
    np.testing.assert_array_equal(raster.read([2, 0]), scene_pixels()[[2, 0]])
    assert files_of(raster.select([2, 0])) == (str(tmp_path / "red.tif"), str(tmp_path / "blue.tif"))
    with pytest.raises(GeoTiffError, match=r"nir.tif"):
        raster.read()


def test_bands_that_do_not_fit_together_are_refused(tmp_path):
    files = band_files(tmp_path)
    other = GeoTiffRaster(write_scene(tmp_path / "other.tif", scene_pixels(72, 91, 1)))
    tagged = GeoTiffRaster(write_scene(tmp_path / "tagged.tif", scene_pixels(72, 90, 1), nodata=0))
    two = GeoTiffRaster(write_scene(tmp_path / "two.tif", scene_pixels(72, 90, 2)))
    for wrong, message in (
        (other, "90 pixels as in .*blue.tif, found 72 x 91"),
        (tagged, "tag -9999.0 as in"),
        (two, "found 2"),
    ):
        with pytest.raises(ValueError, match=message):
            BandStack([*files[:5], wrong], NAMES, name="granule")
    with pytest.raises(ValueError, match="for each of 6 band names, found 5"):
        BandStack(files[:5], NAMES, name="granule")


def test_a_stack_of_several_types_holds_all_values(tmp_path):
    first = ArrayRaster(np.full((1, 2, 2), -5, dtype=np.int16))
    second = ArrayRaster(np.full((1, 2, 2), 60_000, dtype=np.uint16))
    values = BandStack([first, second], ["a", "b"], name="granule").read()
    assert values[:, 0, 0].tolist() == [-5, 60_000]


def test_masks_of_band_files_come_together(tmp_path):
    masks = [np.zeros((2, 2), dtype=bool) for _ in range(2)]
    masks[0][0, 0] = masks[1][1, 1] = True
    bands = [ArrayRaster(np.ones((1, 2, 2), dtype=np.uint8), nodata_mask=mask) for mask in masks]
    raster = BandStack(bands, ["a", "b"], name="granule")
    assert raster.read_nodata_mask().tolist() == [[True, False], [False, True]]
    assert raster.select([1]).read_nodata_mask().tolist() == [[False, False], [False, True]]


def test_scaled_values_are_exact_and_no_data_is_found_before():
    numbers = np.arange(-9999, 30_000, dtype=np.int16).reshape(1, 1, -1)
    raster = ScaledRaster(ArrayRaster(numbers, nodata=-9999), [0.0001], [0], nodata_values=[7])
    values = raster.read()[0, 0]
    assert values.dtype == np.float32
    expected = (numbers[0, 0] / 10_000).astype(np.float32)
    missing = (numbers[0, 0] == -9999) | (numbers[0, 0] == 7)
    np.testing.assert_array_equal(np.isnan(values), missing)
    assert (values == expected)[~missing].mean() > 0.99
    np.testing.assert_allclose(values[~missing], expected[~missing], rtol=1.2e-7)
    with pytest.raises(ValueError, match="expected a factor and an offset for each of 1 bands"):
        ScaledRaster(ArrayRaster(numbers), [1, 2], [0])


def test_flags_of_another_size_or_type_are_refused():
    frame = array_raster()
    for flags in (np.zeros((1, 72, 91), dtype=np.uint8), np.zeros((1, 72, 90), dtype=np.int16)):
        with pytest.raises(ValueError, match="expected one band of unsigned integers of 72 x 90 pixels"):
            MaskedRaster(frame, ArrayRaster(flags), 2)


def test_reads_are_the_same_in_threads_forks_and_other_processes(tmp_path):
    rasters = list(every_kind(tmp_path).values())
    expected = [raster.read() for raster in rasters]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: rasters[number % 6].read(), range(42)))
    assert all((values == expected[number % 6]).all() for number, values in enumerate(found))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert all((values == expected[number]).all() for number, values in enumerate(pool.map(_read, rasters)))
    assert all((pickle.loads(pickle.dumps(raster)).read() == expected[i]).all() for i, raster in enumerate(rasters))


def _read(raster) -> np.ndarray:
    return raster.read()


def test_descriptions_for_fingerprints_follow_what_changes_pixels(tmp_path):
    frame = array_raster()
    flags = ArrayRaster(np.zeros((1, 72, 90), dtype=np.uint8))
    rasters = [
        frame,
        frame.select([0]),
        array_raster(nodata=None),
        array_raster(nodata_mask=np.zeros((72, 90), dtype=bool)),
        MaskedRaster(frame, flags, 2),
        MaskedRaster(frame, flags, 10),
        ScaledRaster(frame, [1] * 6, [1] * 6),
        ScaledRaster(frame, [1] * 6, [1] * 6, nodata_values=[3]),
        GeoTiffRaster(content=write_scene(tmp_path / "a.tif").read_bytes()),
        GeoTiffRaster(content=write_scene(tmp_path / "b.tif", scene_pixels(seed=1)).read_bytes()),
    ]
    assert len({str(describe_raster(raster)) for raster in rasters}) == len(rasters)


# ---------------------------------------------------------------------- addresses


class _Handler(http.server.BaseHTTPRequestHandler):
    """Gives parts of files, as object stores do, and faults that tests ask for."""

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(self.headers.get("Range"))
        if server.faults:
            self.send_error(server.faults.pop(0))
            return
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", server.moved_to)
            self.end_headers()
            return
        content = server.files.get(self.path.split("?")[0].lstrip("/"))
        if content is None:
            self.send_error(404)
        elif server.with_ranges:
            self._send_part(content)
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

    def _send_part(self, content: bytes) -> None:
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        part = content[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", self.server.version)
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(remote, "_SECONDS_BETWEEN", 0.01)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        running.requests, running.files, running.faults = [], {}, []
        running.with_ranges, running.version, running.moved_to = True, "1", ""
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        running.address = f"http://127.0.0.1:{running.server_port}"
        yield running
        running.shutdown()
        thread.join()


def serve(server, folder, **options) -> str:
    path = write_scene(folder / "scene.tif", scene_pixels(600, 700), tiled=True, **options)
    server.files["scene.tif"] = path.read_bytes()
    return f"{server.address}/scene.tif?key=1"


def test_a_remote_file_is_read_in_parts(server, tmp_path):
    address = serve(server, tmp_path, blockxsize=128, blockysize=128, interleave="band")
    raster = RemoteRaster(address)
    np.testing.assert_array_equal(raster.read(window=(130, 140, 60, 50)), scene_pixels(600, 700)[:, 130:190, 140:190])
    ranges = [request.removeprefix("bytes=").split("-") for request in server.requests]
    assert sum(int(last) - int(first) + 1 for first, last in ranges[1:]) < 2.5 * len(server.files["scene.tif"])
    np.testing.assert_array_equal(raster.read(), scene_pixels(600, 700))
    assert raster.path is None
    assert files_of(raster) == ()
    assert raster.recipe["version"] == "1"
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(raster)).read([1]), scene_pixels(600, 700)[[1]])


def test_remote_files_are_a_matter_of_an_option(server, tmp_path):
    address = serve(server, tmp_path)
    with pytest.raises(GeoTiffError, match="option allow_remote"):
        open_scene(address)
    assert server.requests == []
    scene = open_scene(address, image_processor=tiny_processor(), allow_remote=True)
    assert scene.files == ()
    assert scene.fingerprint()["frames"][0]["size"] == len(server.files["scene.tif"])
    with pytest.raises(GeoTiffError, match="remote or virtual path"):
        open_scene("/vsicurl/" + address, allow_remote=True)
    with pytest.raises(GeoTiffError, match="remote or virtual path"):
        open_scene("ftp://127.0.0.1/scene.tif", allow_remote=True)


def test_a_remote_file_that_changes_or_fails_is_noticed(server, tmp_path):
    raster = RemoteRaster(serve(server, tmp_path))
    server.faults += [503, 500]
    assert raster.read([0]).shape == (1, 600, 700)
    server.faults += [503] * 3
    with pytest.raises(GeoTiffError, match="the server answers 503"):
        raster.read()
    server.faults.clear()
    server.version = "2"
    with pytest.raises(GeoTiffError, match="the file has changed since it was opened"):
        raster.read()
    with pytest.raises(GeoTiffError, match="the server answers 404"):
        RemoteRaster(f"{server.address}/gone.tif")


def test_servers_without_parts_and_ways_off_the_web_are_refused(server, tmp_path):
    address = serve(server, tmp_path)
    server.with_ranges = False
    with pytest.raises(GeoTiffError, match="gives parts of a file"):
        RemoteRaster(address)
    server.moved_to = f"file://{tmp_path}/scene.tif"
    with pytest.raises(GeoTiffError, match=r"no http or https address|the server answers 302"):
        RemoteRaster(f"{server.address}/moved.tif")
    with pytest.raises(GeoTiffError, match="expected an http or https address"):
        RemoteRaster("file:///etc/passwd")
    server.with_ranges = True
    server.files["page.tif"] = b"<html>not here</html>"
    with pytest.raises(GeoTiffError, match="found a file that starts with"):
        RemoteRaster(f"{server.address}/page.tif")


# ---------------------------------------------------------------------- VRT


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
    with pytest.raises(GeoTiffError, match=r"found 'red.tif'. Restore or replace it"):
        scene.frames[0].read()


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
        ("red.tif", "<unclosed>", "", "found a file that is no XML"),
        ("red.tif", "", '<!DOCTYPE a [<!ENTITY b "c">]>', "found a document type, entities or zeros"),
    ],
)
def test_a_vrt_that_is_more_than_a_mosaic_is_refused(tmp_path, source, inner, before, message):
    band_files(tmp_path)
    (tmp_path / "secret.txt").write_text("password of the machine, not an image at all")
    with pytest.raises(GeoTiffError, match=message):
        VirtualRaster(write_vrt(tmp_path, [source], inner, before=before))
