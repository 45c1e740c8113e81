# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""GeoTIFFs read over HTTP by range requests.

GDAL sees a Python file and the GTiff driver alone; requests are made here. So connections are closed with each read
and never shared by a fork, addresses other than http and https are never followed, and a file that changes while it
is read is noticed.
"""

import http.client
import io
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.session import DummySession

from prithvi_hf.rasters.geotiff_raster import GeoTiffDecodeError, GeoTiffError, GeoTiffRaster
from prithvi_hf.rasters.tiff_layout import find_tiff_fault


# GDAL reads a block at a time, of some hundred kilobytes; directories lie together at the start of a COG.
_PIECE_BYTES = 2**18
_PIECES = 16
# What GDAL calls any file here: nothing of an address reaches it.
_NAME = "remote.tif"
_ATTEMPTS = 3
_SECONDS_BETWEEN = 0.5
_TIMEOUT_SECONDS = 60
_RETRIED = (408, 429, 500, 502, 503, 504)


class RemoteRaster(GeoTiffRaster):
    """A GeoTIFF at an http or https address, read by range requests; see `GeoTiffRaster`.

    Args:
        address: where it lies.

    Raises:
        GeoTiffError: it cannot be reached, the server does not give parts of files, or it is no GeoTIFF.
    """

    def __init__(self, address: str) -> None:
        if not address.startswith(("http://", "https://")):
            raise GeoTiffError(f"{address}: expected an http or https address. Give a local file as a path.")
        self._address = address
        self._size, self._version = _probe(address)
        super().__init__(address, content=b"")
        self.content = None

    @property
    def recipe(self) -> dict[str, Any]:
        """Size and version that the server states: they stand for size and time of a local file."""
        return {"size": self._size, "version": self._version}

    def _check(self) -> None:
        file = _RangeFile(self._address, self._size, self._version)
        fault = find_tiff_fault(file, self._size)
        if file.error or fault is not None:
            raise file.error or GeoTiffError(f"{self.name}: expected a GeoTIFF, found {fault}. Check the address.")

    def _file_bytes(self) -> int:
        return self._size

    @contextmanager
    def _open(self) -> Iterator[DatasetReader]:
        file = _RangeFile(self._address, self._size, self._version)
        with rasterio.Env(session=DummySession(), GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            try:
                dataset = rasterio.open(_NAME, driver="GTiff", opener=file.reopen)
            except RasterioError as error:
                raise file.error or GeoTiffError(
                    f"{self.name}: expected a GeoTIFF, found a file that cannot be opened ({error}). Check the "
                    "address."
                ) from error
            with dataset:
                try:
                    yield dataset
                except GeoTiffDecodeError as error:
                    # GDAL takes a connection that fails for a damaged file.
                    raise file.error or error from error
                if file.error:
                    raise file.error


class _RangeFile(io.RawIOBase):
    """A file at an address, as GDAL reads it: pieces are fetched when needed, and the last few kept."""

    def __init__(self, address: str, size: int, version: str | None) -> None:
        self.error: GeoTiffError | None = None
        self._address, self._size, self._version = address, size, version
        self._position = 0
        self._pieces: OrderedDict[int, bytes] = OrderedDict()

    def reopen(self, path: str, mode: str = "rb") -> "_RangeFile":
        """The file from its beginning, as GDAL opens it; there is no other file beside it."""
        if path != _NAME or mode not in ("r", "rb"):
            raise FileNotFoundError(path)
        self._position = 0
        return self

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Gives nothing after a failure, which `error` then holds: exceptions do not pass through GDAL."""
        try:
            return b"" if self.error else self._read(size)
        except GeoTiffError as error:
            self.error = error
            return b""

    def _read(self, size: int) -> bytes:
        end = self._size if size < 0 else min(self._position + size, self._size)
        parts = []
        while self._position < end:
            index, offset = divmod(self._position, _PIECE_BYTES)
            piece = self._piece(index, end)
            parts.append(piece[offset : offset + end - self._position])
            self._position += len(parts[-1])
        return b"".join(parts)

    def _piece(self, index: int, end: int) -> bytes:
        if index not in self._pieces:
            # One request for all of what is wanted: a block of a file may be longer than a piece.
            count = max(1, min(-(-end // _PIECE_BYTES) - index, _PIECES))
            self._fetch(index, count)
        self._pieces.move_to_end(index)
        return self._pieces[index]

    def _fetch(self, index: int, count: int) -> None:
        start, stop = index * _PIECE_BYTES, min((index + count) * _PIECE_BYTES, self._size)
        content, _, version = _request(self._address, start, stop)
        _check_part(self._address, content, stop - start, version, self._version)
        for number in range(count):
            self._pieces[index + number] = content[number * _PIECE_BYTES : (number + 1) * _PIECE_BYTES]
        while len(self._pieces) > max(_PIECES, count):
            self._pieces.popitem(last=False)


def _probe(address: str) -> tuple[int, str | None]:
    """Size and version of a file, by a request for its first byte."""
    _, size, version = _request(address, 0, 1)
    return size, version


def _check_part(address: str, content: bytes, expected: int, version: str | None, first: str | None) -> None:
    if version != first:
        raise GeoTiffError(f"{address}: the file has changed since it was opened. Start again.")
    if len(content) != expected:
        raise GeoTiffError(f"{address}: expected {expected:,} bytes, found {len(content):,}. Start again later.")


def _request(address: str, start: int, stop: int) -> tuple[bytes, int, str | None]:
    """Fetches bytes; attempts that fail for a reason that may pass are repeated.

    Returns:
        The bytes, the size of the whole file, and what the server calls its version.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _request_once(address, start, stop)
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


def _request_once(address: str, start: int, stop: int) -> tuple[bytes, int, str | None]:
    headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 - `RemoteRaster` checks the scheme
    with _OPENER.open(request, timeout=_TIMEOUT_SECONDS) as answer:
        place = answer.headers.get("Content-Range", "")
        size = place.rpartition("/")[2]
        if answer.status != 206 or not size.isdigit() or not place.startswith(f"bytes {start}-"):
            raise GeoTiffError(
                f"{address}: expected a server that gives parts of a file (status 206), found status {answer.status}. "
                "Download the file."
            )
        return answer.read(stop - start), int(size), answer.headers.get("ETag") or answer.headers.get("Last-Modified")


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Follows an address to another one on the web, and nowhere else."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.startswith(("http://", "https://")):
            raise GeoTiffError(f"{req.full_url}: leads to {newurl}, which is no http or https address.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_WebOnly)


__all__ = ["RemoteRaster"]
