# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Files at addresses: parts, faults, changes, and ways off the web."""

import gc
import http.server
import pickle
import re
import threading
import time

import numpy as np
import pytest

from prithvi_hf.rasters import remote
from prithvi_hf.rasters.geotiff_raster import GeoTiffError
from prithvi_hf.rasters.raster import find_files
from prithvi_hf.rasters.remote import RemoteRaster
from prithvi_hf.rasters.write_geotiff import write_geotiff
from prithvi_hf.scenes.scene import open_scene
from tests.scene_factory import scene_pixels, tiny_processor, write_scene


class _Handler(http.server.BaseHTTPRequestHandler):
    """Gives parts of files, as object stores do, and faults that tests ask for."""

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(self.headers.get("Range"))
        server.paths.append(self.path)
        server.tokens.append(self.headers.get("Authorization"))
        if server.drip:
            self._drip(server.drip)
            return
        fault = server.faults.pop(0) if server.faults else None
        if fault:
            self.send_error(fault)
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

    def _drip(self, where: str) -> None:
        """Send a byte now and then, for ever: of the status line, of a header, or of the content."""
        start = "" if where == "status" else "HTTP/1.1 206 Partial Content\r\nX: "
        body = "\r\nContent-Range: bytes 0-9998/9999\r\nContent-Length: 9999\r\n\r\n" if where == "body" else ""
        self.wfile.write((start + body).encode())
        try:
            while self.server.drip:
                self.wfile.write(b"x")
                time.sleep(0.02)
        except OSError:
            pass

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
        running.requests, running.files, running.faults, running.paths = [], {}, [], []
        running.tokens = []
        running.with_ranges, running.version, running.moved_to, running.drip = True, "1", "", ""
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        running.address = f"http://127.0.0.1:{running.server_port}"
        yield running
        running.drip = ""
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
    assert find_files(raster) == ()
    assert raster.provenance["version"] == "1"
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(raster)).read([1]), scene_pixels(600, 700)[[1]])


def test_open_files_share_one_file_system_of_gdal_and_leave_nothing_behind(server, tmp_path):
    # A file system for each, which comes and goes, ends the process by a segmentation fault while other threads open
    # files of any kind: once in two minutes of four threads, too seldom to be a test.
    raster, other = RemoteRaster(serve(server, tmp_path)), RemoteRaster(f"{server.address}/scene.tif")
    with raster._open() as first, other._open() as second:
        assert first.name != second.name
        assert first.name.split("/")[1] == second.name.split("/")[1] == "vsipythonfilelike"
        assert server.address not in first.name
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) in (remote._PythonFile, remote._RemoteFile)]


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


def test_a_server_that_fails_at_any_request_is_told_as_such_and_never_as_a_damaged_file(server, tmp_path):
    pixels = np.random.default_rng(0).integers(1, 9999, (6, 300, 300)).astype(np.int16)
    write_geotiff(tmp_path / "scene.tif", pixels, crs=None, transform=None, nodata_mask=pixels[0] < 500)
    server.files["scene.tif"] = (tmp_path / "scene.tif").read_bytes()
    address = f"{server.address}/scene.tif"
    raster = RemoteRaster(address)
    raster.read_nodata_mask()
    for failing in range(len(server.requests)):
        server.faults = [None] * failing + [404]
        with pytest.raises(GeoTiffError, match="the server answers 404"):
            RemoteRaster(address).read_nodata_mask()


def test_a_file_that_is_damaged_is_told_by_its_address(server, tmp_path):
    address = serve(server, tmp_path)
    for damaged in (server.files["scene.tif"][:8] + b"\xff" * 500, b"<html>no</html>"):
        server.files["scene.tif"] = damaged
        with pytest.raises(GeoTiffError, match="cannot be opened as one") as caught:
            RemoteRaster(address)
        assert re.search(r"[0-9a-f]{8}-[0-9a-f]{4}|vsi", str(caught.value)) is None
        assert str(caught.value).startswith(address)


def test_servers_without_parts_and_ways_off_the_web_are_refused(server, tmp_path):
    address = serve(server, tmp_path)
    server.with_ranges = False
    with pytest.raises(GeoTiffError, match="gives parts of a file"):
        RemoteRaster(address)
    server.moved_to = f"file://{tmp_path}/scene.tif"
    with pytest.raises(GeoTiffError, match=r"not an http or https address|the server answers 302"):
        RemoteRaster(f"{server.address}/moved.tif")
    with pytest.raises(GeoTiffError, match="expected an http or https address"):
        RemoteRaster("file:///etc/passwd")
    server.with_ranges = True
    server.files["page.tif"] = b"<html>not here</html>"
    with pytest.raises(GeoTiffError, match="cannot be opened"):
        RemoteRaster(f"{server.address}/page.tif")


@pytest.mark.parametrize("where", ["status", "header", "body"])
def test_a_server_that_drips_ends_its_scene(server, tmp_path, monkeypatch, where):
    monkeypatch.setattr(remote, "_DEADLINE_SECONDS", 0.6)
    monkeypatch.setattr(remote, "_SLOWEST_BYTES_PER_SECOND", 2**30)
    server.drip, begin = where, time.monotonic()
    with pytest.raises(GeoTiffError, match=r"/scene\.tif: cannot be reached \(the server sends too slowly\)"):
        RemoteRaster(f"{server.address}/scene.tif").read()
    assert time.monotonic() - begin < 5
    server.drip = ""
    raster = RemoteRaster(serve(server, tmp_path))
    server.drip = where
    with pytest.raises(GeoTiffError, match=r"too slowly"):
        raster.read()


def test_redirections_are_bounded(server, tmp_path):
    server.moved_to = f"{server.address}/moved.tif"
    with pytest.raises(GeoTiffError, match=r"moved\.tif: the server answers 302"):
        RemoteRaster(f"{server.address}/moved.tif")
    assert len(server.requests) < 15
    server.moved_to = serve(server, tmp_path)
    assert RemoteRaster(f"{server.address}/moved.tif").count == 6


def test_a_token_and_a_signature_are_sent_and_neither_redirected_nor_told(server, tmp_path):
    address = serve(server, tmp_path)

    def access(asked):
        return f"{asked}{'&' if '?' in asked else '?'}sig=secret", {"Authorization": "Bearer secret"}

    raster = RemoteRaster(address, access)
    assert raster.read([0]).shape == (1, 600, 700)
    assert set(server.tokens) == {"Bearer secret"}
    assert {path.rpartition("&")[2] for path in server.paths} == {"sig=secret"}
    assert "secret" not in repr((raster, raster.provenance))
    server.tokens.clear()
    server.moved_to = address
    RemoteRaster(f"{server.address}/moved.tif", access)
    assert set(server.tokens[::2]) == {"Bearer secret"}
    assert set(server.tokens[1::2]) == {None}  # where the first one leads
    for fault in (403, 404):
        server.faults.append(fault)
        with pytest.raises(GeoTiffError, match=f"the server answers {fault}") as refused:
            raster.read()
        assert "secret" not in str(refused.value)
    server.moved_to = "ftp://127.0.0.1/scene.tif?sig=secret"
    for asked in (f"{server.address}/moved.tif", "http://h:x/a.tif", "http://127.0.0.1:9/a.tif"):
        with pytest.raises(GeoTiffError) as refused:
            RemoteRaster(asked, access)
        assert "secret" not in str(refused.value)


def test_a_whole_file_is_downloaded_in_pieces_and_continued(server, tmp_path, monkeypatch):
    address, pieces = serve(server, tmp_path), []
    content = server.files["scene.tif"]
    monkeypatch.setattr(remote, "_PIECE_BYTES", len(content) // 3)
    path, version = remote.download(address, tmp_path, on_bytes=pieces.append)
    assert (path.read_bytes(), version) == (content, "1")
    assert len(pieces) == 4
    path.write_bytes(content[:1000])
    pieces.clear()
    assert remote.download(address, tmp_path, on_bytes=pieces.append)[0].read_bytes() == content
    assert sum(pieces) == len(content) - 1000
    path.write_bytes(b"of another version")
    server.version = "2"
    assert remote.download(address, tmp_path)[0].read_bytes() == content
    server.with_ranges = False
    whole, _ = remote.download(address, tmp_path)
    assert whole.read_bytes() == content


def test_a_server_says_how_long_to_wait(server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    raster = RemoteRaster(serve(server, tmp_path))
    monkeypatch.setattr(_Handler, "send_error", _send_later)
    server.faults += [429, 503]
    raster.read([0])
    assert waits == [7, 7]


def _send_later(handler, status):
    handler.send_response(status)
    handler.send_header("Retry-After", "7")
    handler.end_headers()


@pytest.mark.parametrize("host", ["h:x", "h:99999", "[::1", "a" * 70, "a\u2100b", "", "h h", ".", "x" * 300, "%00"])
def test_addresses_that_are_none_are_named(host, monkeypatch):
    monkeypatch.setattr(remote, "_SECONDS_BETWEEN", 0.01)
    with pytest.raises(GeoTiffError, match="a\\.tif: cannot be"):
        RemoteRaster(f"http://{host}/a.tif")


def test_blanks_and_letters_beyond_ascii_are_sent_as_browsers_do(server, tmp_path):
    address = serve(server, tmp_path)
    server.files["caf%C3%A9%20b%2F.tif"] = server.files["scene.tif"]
    RemoteRaster(address.replace("scene", "caf\u00e9 b%2F"))
    assert server.paths[-1] == "/caf%C3%A9%20b%2F.tif?key=1"
