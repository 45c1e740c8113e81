# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""GeoTIFFs read over HTTP by range requests.

GDAL sees a Python file and the GTiff driver alone; requests are made here. So connections are closed with each
request and never shared by a fork, addresses other than http and https are never followed, and a file that changes
while it is read is noticed.
"""

import http.client
import io
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import rasterio
from rasterio.io import DatasetReader
from rasterio.session import DummySession

from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.raster import GDAL_ERRORS, GeoTiffDecodeError, GeoTiffError


# GDAL reads a block at a time, of some hundred kilobytes; directories are together at the start of a COG.
_READ_AHEAD_BYTES = 2**18
# What GDAL calls any file here: nothing of an address reaches it.
_NAME = "remote.tif"
_ATTEMPTS = 3
_SECONDS_BETWEEN = 0.5
_TIMEOUT_SECONDS = 60
_RETRIED = (408, 429, 500, 502, 503, 504)


class RemoteRaster(GeoTiffRaster):
    """A GeoTIFF at an http or https address, read by range requests; see `GeoTiffRaster`."""

    def __init__(self, address: str) -> None:
        if not address.startswith(("http://", "https://")):
            raise GeoTiffError(f"{address}: expected an http or https address. Give a local file as a path.")
        self.name = address
        _, self._size, self._version = _request(address, 0, 1)
        self._load_header(self._size)

    @property
    def provenance(self) -> dict[str, Any]:
        """Size and version that the server states: they stand for size and time of a local file."""
        return {"size": self._size, "version": self._version}

    @contextmanager
    def _open(self) -> Iterator[DatasetReader]:
        failures: list[GeoTiffError] = []

        def open_part(path: str, mode: str = "rb") -> io.BufferedReader:
            """Give the file from its beginning, as GDAL opens it; there is no other file beside it."""
            if path != _NAME or mode not in ("r", "rb"):
                raise FileNotFoundError(path)
            return io.BufferedReader(_RemoteFile(self.name, self._size, self._version, failures), _READ_AHEAD_BYTES)

        with rasterio.Env(session=DummySession(), GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            try:
                dataset = rasterio.open(_NAME, driver="GTiff", opener=open_part)
            except GDAL_ERRORS as error:
                raise next(iter(failures), None) or GeoTiffError(
                    f"{self.name}: expected a GeoTIFF, found a file that cannot be opened as one ({error}). Check the "
                    "address."
                ) from error
            with dataset:
                try:
                    yield dataset
                except GeoTiffDecodeError as error:
                    # GDAL takes a connection that fails for a damaged file.
                    raise next(iter(failures), error) from error
                if failures:
                    raise failures[0]


class _RemoteFile(io.RawIOBase):
    """A file at an address. After a failure it is empty: exceptions do not pass through GDAL."""

    def __init__(self, address: str, size: int, version: str | None, failures: list[GeoTiffError]) -> None:
        self._address, self._size, self._version, self._failures = address, size, version, failures
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        start, stop = self._position, min(self._position + len(buffer), self._size)
        if start >= stop or self._failures:
            return 0
        try:
            content, _, version = _request(self._address, start, stop)
            if version != self._version:
                raise GeoTiffError(f"{self._address}: the file has changed since it was opened. Start again.")
            if len(content) != stop - start:
                raise GeoTiffError(
                    f"{self._address}: expected {stop - start:,} bytes, found {len(content):,}. Try again later."
                )
        except GeoTiffError as error:
            self._failures.append(error)
            return 0
        buffer[: len(content)] = content
        self._position = stop
        return len(content)


def _request(address: str, start: int, stop: int) -> tuple[bytes, int, str | None]:
    """Fetch bytes, the size of the whole file, and its version; attempts are repeated where a failure may pass."""
    headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 - `RemoteRaster` checks the scheme
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with _OPENER.open(request, timeout=_TIMEOUT_SECONDS) as answer:
                place = answer.headers.get("Content-Range", "")
                size = place.rpartition("/")[2]
                if answer.status != 206 or not size.isdigit() or not place.startswith(f"bytes {start}-"):
                    raise GeoTiffError(
                        f"{address}: expected a server that gives parts of a file (status 206), found status "
                        f"{answer.status}. Download the file."
                    )
                version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
                return answer.read(stop - start), int(size), version
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in _RETRIED or attempt == _ATTEMPTS:
                raise GeoTiffError(
                    f"{address}: the server answers {error.code} {error.reason}. Check the address and whether it "
                    "needs a signature or a login, or download the file."
                ) from error
        except (OSError, http.client.HTTPException) as error:
            if attempt == _ATTEMPTS:
                raise GeoTiffError(f"{address}: cannot be reached ({error}). Try again, or download it.") from error
        time.sleep(_SECONDS_BETWEEN * attempt)
    raise AssertionError("the last attempt returns or raises")


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Follow an address to another one on the web, and nowhere else."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not newurl.startswith(("http://", "https://")):
            raise GeoTiffError(f"{req.full_url}: leads to {newurl}, which is not an http or https address.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_WebOnly)
