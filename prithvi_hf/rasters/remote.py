# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""GeoTIFFs read over HTTP by range requests, and whole files downloaded.

GDAL sees a Python file and the GTiff driver alone; requests are made here. So connections are closed with each
request and never shared by a fork, addresses other than http and https are never followed, a file that changes while
it is read is noticed, and a server that keeps a connection alive by a byte now and then is left.
"""

import hashlib
import http.client
import io
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeAlias, TypeVar
from urllib.parse import quote, urlsplit

import rasterio
from rasterio.io import DatasetReader, FilePath
from rasterio.session import DummySession

from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.raster import GDAL_ERRORS, GeoTiffError


# GDAL reads a block at a time, of some hundred kilobytes; directories are together at the start of a COG.
_READ_AHEAD_BYTES = 2**18
_ATTEMPTS = 3
_SECONDS_BETWEEN = 0.5
_TIMEOUT_SECONDS = 60  # without a byte
# A request, its attempts and redirections together, has this long and the time of its bytes at the slowest rate.
_DEADLINE_SECONDS = 60
_SLOWEST_BYTES_PER_SECOND = 2**15
_PLAIN = "/%:=&?+!$,;'@()*[]~"  # characters of an address that are sent as they are
_RETRIED = (408, 429, 500, 502, 503, 504)
_LONGEST_WAIT_SECONDS = 30  # that a server may ask for before the next attempt
_PIECE_BYTES = 2**23  # of a whole file, one request each

Access: TypeAlias = Callable[[str], tuple[str, Mapping[str, str]]]
"""Makes of an address what is sent: the address, signed where need be, and headers, which no redirection takes along.

It is asked before every request. What it gives may be secret and is in no message.
"""

Result = TypeVar("Result")


class _OffTheWebError(ValueError):
    """A redirection to another kind of address."""


class NoRangesError(GeoTiffError):
    """A server that gives whole files, and no parts of them."""


class RemoteRaster(GeoTiffRaster):
    """A GeoTIFF at an http or https address, read by range requests; see `GeoTiffRaster`."""

    def __init__(self, address: str, access: Access | None = None) -> None:
        if not address.startswith(("http://", "https://")):
            raise GeoTiffError(f"{address}: expected an http or https address. Give a local file as a path.")
        self.name, self._access = address, access
        _, self._size, self._version = _request(address, 0, 1, access)
        self._load_header(self._size)

    @property
    def provenance(self) -> dict[str, Any]:
        """Size and version that the server states: they stand for size and time of a local file."""
        return {"size": self._size, "version": self._version}

    @contextmanager
    def _open(self) -> Iterator[DatasetReader]:
        failures: list[GeoTiffError] = []
        remote = _RemoteFile(self.name, self._size, self._version, failures, self._access)
        env = rasterio.Env(session=DummySession(), GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR")
        with _PythonFile(remote) as file, env:
            try:
                dataset = file.open(driver="GTiff")
            except GDAL_ERRORS as error:
                # Not the name that GDAL has for the file.
                cause = str(error).replace(file.name, self.name).replace(f"{Path(file.name).name}: ", "")
                raise next(iter(failures), None) or GeoTiffError(
                    f"{self.name}: expected a GeoTIFF, found a file that cannot be opened as one ({cause}): another "
                    "one, or one that is damaged. Check the address, and whether the file is sound there."
                ) from error
            with dataset:
                try:
                    yield dataset
                except (GeoTiffError, *GDAL_ERRORS) as error:
                    # GDAL takes a connection that fails for a damaged file, in its header or in its pixels.
                    if failures:
                        raise failures[0] from error
                    raise  # an error that was its own cause would have no end
                if failures:
                    raise failures[0]


class _PythonFile(FilePath):
    """A Python file under a name of rasterio's: nothing of an address reaches GDAL, and there is no file beside it.

    Not by the `opener` of `rasterio.open`: that enters each file into GDAL's table of file systems and removes it
    again, while other threads look up their files in that table, and the process ends with a segmentation fault.
    """

    def __init__(self, file: "_RemoteFile") -> None:
        super(FilePath, self).__init__(file)  # all that FilePath does itself is to recommend `opener`


class _RemoteFile(io.RawIOBase):
    """A file at an address. After a failure it is empty: exceptions do not pass through GDAL.

    Each time that GDAL opens it, rasterio asks the file's `fs` for another one, as files of fsspec have it.
    """

    path, mode = "remote.tif", "rb"

    def __init__(
        self, address: str, size: int, version: str | None, failures: list[GeoTiffError], access: Access | None
    ) -> None:
        self._address, self._size, self._version, self._failures = address, size, version, failures
        self._access, self._position = access, 0

    @property
    def fs(self) -> "_RemoteFile":
        """What opens the file."""
        return self

    def open(self, _path: str, _mode: str) -> io.BufferedReader:
        """Give the file from its beginning."""
        again = _RemoteFile(self._address, self._size, self._version, self._failures, self._access)
        return io.BufferedReader(again, _READ_AHEAD_BYTES)

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
            content, _, version = _request(self._address, start, stop, self._access)
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


def download(
    address: str, folder: Path, access: Access | None = None, on_bytes: Callable[[int], object] = bool
) -> tuple[Path, str | None]:
    """Download a whole file; of a download that was interrupted the rest, where the server gives parts.

    Args:
        address: http or https address.
        folder: where the file is written to, under a name of its own.
        access: what is sent for the address; None for the address alone.
        on_bytes: is told how many bytes have come, piece by piece.

    Returns:
        The file, and the version that the server states.

    Raises:
        GeoTiffError: the server refuses, cannot be reached, or ends before the file does.
    """
    name = hashlib.sha256(address.encode()).hexdigest()[:16]
    try:
        _, size, version = _request(address, 0, 1, access)
    except NoRangesError:
        path = folder / f"{name}.part"
        return path, _request_whole(address, path, access, on_bytes)
    path = folder / f"{name}-{hashlib.sha256(f'{size} {version}'.encode()).hexdigest()[:16]}.part"
    with path.open("ab") as file:
        start = file.tell()
        while start < size:
            content, _, found = _request(address, start, min(start + _PIECE_BYTES, size), access)
            if found != version or not content:
                raise GeoTiffError(f"{address}: the file has changed since its download began. Start again.")
            file.write(content)
            start += len(content)
            on_bytes(len(content))
    return path, version


def _request(address: str, start: int, stop: int, access: Access | None = None) -> tuple[bytes, int, str | None]:
    """Fetch bytes, the size of the whole file, and its version; attempts are repeated where a failure may pass."""

    def ask(deadline: float) -> tuple[bytes, int, str | None]:
        with _open(address, {"Range": f"bytes={start}-{stop - 1}"}, access, deadline) as answer:
            place = answer.headers.get("Content-Range", "")
            size = place.rpartition("/")[2]
            if answer.status != 206 or not size.isdigit() or not place.startswith(f"bytes {start}-"):
                kind = NoRangesError if answer.status == 200 else GeoTiffError
                raise kind(
                    f"{address}: expected a server that gives parts of a file (status 206), found status "
                    f"{answer.status}. Download the file."
                )
            content = answer.read(stop - start)
            if len(content) != min(stop, int(size)) - start:  # the connection was dropped
                raise ConnectionError(f"found {len(content):,} of {min(stop, int(size)) - start:,} bytes")
            version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
            return content, int(size), version

    return _try_again(address, ask, stop - start, access)


def _request_whole(address: str, path: Path, access: Access | None, on_bytes: Callable[[int], object]) -> str | None:
    """Write a whole file from a server that gives no parts; returns its version."""

    def ask(deadline: float) -> str | None:
        with _open(address, {}, access, deadline) as answer, path.open("wb") as file:
            size = int(answer.headers.get("Content-Length") or -1)
            answer.extend_deadline(max(0, size) / _SLOWEST_BYTES_PER_SECOND)
            while content := answer.read(2**18):
                file.write(content)
                on_bytes(len(content))
            if size >= 0 and file.tell() != size:
                raise ConnectionError(f"found {file.tell():,} of {size:,} bytes")
            return answer.headers.get("ETag") or answer.headers.get("Last-Modified")

    return _try_again(address, ask, 0, access)


def _open(address: str, headers: Mapping[str, str], access: Access | None, deadline: float) -> Any:
    """Send one request and give its answer, whose body is still to be read."""
    target, secrets = (address, {}) if access is None else access(address)
    parts = urlsplit(target)  # blanks and letters beyond ASCII are as browsers send them
    path, query = quote(parts.path, _PLAIN), quote(parts.query, _PLAIN)
    request = _Request(
        parts._replace(path=path, query=query, fragment="").geturl(),
        headers={"Accept-Encoding": "identity", **headers},
    )
    for name, value in secrets.items():
        request.add_unredirected_header(name, value)
    request.deadline = deadline
    return _OPENER.open(request, timeout=_TIMEOUT_SECONDS)


def _try_again(address: str, ask: Callable[[float], Result], size: int, access: Access | None) -> Result:
    """Ask for something of `size` bytes until it comes, up to three times where a failure may pass."""
    deadline = time.monotonic() + _DEADLINE_SECONDS + size / _SLOWEST_BYTES_PER_SECOND
    for attempt in range(1, _ATTEMPTS + 1):
        wait = _SECONDS_BETWEEN * attempt
        try:
            return ask(deadline)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in _RETRIED or attempt == _ATTEMPTS:
                raise GeoTiffError(
                    f"{address}: the server answers {error.code} {error.reason}. Check the address and whether it "
                    "needs a signature or a login, or download the file."
                ) from error
            asked = error.headers.get("Retry-After") or ""
            wait = min(max(wait, int(asked) if asked.isdecimal() else 0), _LONGEST_WAIT_SECONDS)
        except (OSError, http.client.HTTPException) as error:
            if attempt == _ATTEMPTS or time.monotonic() > deadline:
                # What the library says of an address that was made by `access` may hold a signature.
                said = error if access is None else getattr(error, "reason", None) or type(error).__name__
                raise GeoTiffError(f"{address}: cannot be reached ({said}). Try again, or download it.") from error
        except (ValueError, OverflowError) as error:  # of a host, a port or a size that cannot be
            if isinstance(error, GeoTiffError):
                raise
            if isinstance(error, _OffTheWebError):
                raise GeoTiffError(f"{address}: {error}") from error
            said = error if access is None else type(error).__name__
            raise GeoTiffError(f"{address}: cannot be an address or its answer ({said}). Check it.") from error
        time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


class _Request(urllib.request.Request):
    """A request and the clock until which its answer has to be complete."""

    deadline = 0.0


class _InTime(io.RawIOBase):
    """What a server sends until a deadline: the timeout of a socket begins again with every byte."""

    def __init__(self, stream: io.RawIOBase, deadline: float) -> None:
        self._stream, self.deadline = stream, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
        if time.monotonic() > self.deadline:
            raise TimeoutError("the server sends too slowly")
        return self._stream.readinto(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer, its headers included, that comes in time."""

    def __init__(self, sock: socket.socket, *arguments: Any, deadline: float, **keywords: Any) -> None:
        super().__init__(sock, *arguments, **keywords)
        self._in_time = _InTime(self.fp.detach(), deadline)
        self.fp = io.BufferedReader(self._in_time)

    def extend_deadline(self, seconds: float) -> None:
        """Allow more time, for a body whose size is known now."""
        self._in_time.deadline += seconds


class _Handler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Open connections whose answers come in time."""

    def do_open(self, http_class: Any, req: urllib.request.Request, **http_conn_args: Any) -> http.client.HTTPResponse:
        answer = partial(_Answer, deadline=req.deadline)  # type: ignore[attr-defined]
        kind: Any = type("_Connection", (http_class,), {"response_class": answer})
        return super().do_open(kind, req, **http_conn_args)


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
            # What follows a question mark may be a signature.
            raise _OffTheWebError(f"leads to {newurl.split('?')[0]}, which is not an http or https address.")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None:
            request.deadline = req.deadline  # type: ignore[attr-defined]
        return request


_OPENER = urllib.request.build_opener(_WebOnly, _Handler)
