# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Frames fetched from addresses of clients: from allowed places only, and never from a private network.

An address has to begin with a prefix that the server was started with, and so has every address that it redirects to.
A name is looked up once for each connection, every address that it has must be a public one, and the connection goes
to the very address that was checked: a name that means another host a moment later changes nothing.
"""

import ipaddress
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import httpcore

from prithvi_hf.serving.errors import ApiError
from prithvi_hf.serving.settings import IDLE_SECONDS


_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_ASK_SECONDS = 1.0
# Blanks, control characters and backslashes, which programs read in different ways.
_STRANGE = re.compile(r"[^\x21-\x7e]|\\")


@dataclass(frozen=True)
class Address:
    """An http or https address in parts.

    Attributes:
        scheme: "http" or "https".
        host: In lower case.
        port: Also where the address does not say it.
        path: With its query, as it is sent.
        places: The path alone, decoded.
    """

    scheme: str
    host: str
    port: int
    path: str
    places: str

    @property
    def label(self) -> str:
        """The end of the path, without the query, which may hold a signature."""
        return self.places.rstrip("/").rpartition("/")[2] or self.host


def parse_address(text: str) -> Address:
    """Read an address.

    Raises:
        ValueError: If it is not an http or https address, or one that programs may read in different ways; the message
            is what was found.
    """
    if _STRANGE.search(text):
        raise ValueError("one with blanks, backslashes or characters beyond ASCII")
    parts = urlsplit(text)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("another kind of address")
    if "@" in parts.netloc:
        raise ValueError("one with a user name or a password")
    places = unquote(parts.path) or "/"
    if {".", ".."} & {*places.split("/")} or re.search(r"[\\\x00-\x1f]|%2e|%2f|%5c", places, re.I):
        raise ValueError("one with dots or other steps in its path")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Address(parts.scheme, parts.hostname.lower(), parts.port or _PORTS[parts.scheme], path, places)


def is_public(address: str) -> bool:
    """Tell whether an IP address is one of the public internet, and so is every address that it stands for."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    found: list[Any] = [ip]
    if isinstance(ip, ipaddress.IPv6Address):
        found += [one for one in (ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())) if one is not None]
        if ip in _NAT64:
            found = [ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)]
    return all(one.is_global and not (one.is_multicast or one.is_reserved) for one in found)


class Fetcher:
    """Fetches frames from allowed addresses.

    Args:
        prefixes: Of allowed addresses, such as "https://data.example.org/hls/".
        private_hosts: Names of hosts whose addresses may be private ones.

    Raises:
        ValueError: If a prefix is not an address.
    """

    def __init__(self, prefixes: Iterable[str] = (), private_hosts: Iterable[str] = ()) -> None:
        self.prefixes: list[Address] = []
        for prefix in prefixes:
            try:
                if "?" in prefix or "#" in prefix:
                    raise ValueError("one with a query")
                self.prefixes.append(parse_address(prefix))
            except ValueError as error:
                raise ValueError(
                    "Expected --allow_url to be the beginning of http or https addresses, such as "
                    f"https://data.example.org/hls/, found {error}: {prefix!r}. Correct it."
                ) from error
        self.private_hosts = {host.lower().strip("[]") for host in private_hosts}

    def check(self, url: str) -> Address:
        """Read an address that begins with an allowed prefix.

        Raises:
            ApiError: If it is not one.
        """
        if not self.prefixes:
            raise ApiError(
                403,
                "files in the request, as this server fetches nothing",
                "addresses",
                "Send the files themselves as multipart/form-data.",
            )
        try:
            address = parse_address(url)
        except ValueError as error:
            raise ApiError(
                422, "a plain http or https address", str(error), "Correct the address, or send the file."
            ) from error
        for prefix in self.prefixes:
            folder = prefix.places.rstrip("/") + "/"
            same = (address.scheme, address.host, address.port) == (prefix.scheme, prefix.host, prefix.port)
            if same and (address.places.startswith(folder) or address.places == prefix.places):
                return address
        allowed = ", ".join(f"{one.scheme}://{one.host}:{one.port}{one.places}" for one in self.prefixes)
        raise ApiError(403, f"an address that begins with {allowed}", "another one", "Send the file itself instead.")

    def fetch(self, url: str, path: Path, most_bytes: int, seconds: float, should_stop: Callable[[], object]) -> int:
        """Fetch a file.

        Args:
            url: Its address.
            path: Where to write it.
            most_bytes: Of the file.
            seconds: Until it has to be there, redirections included.
            should_stop: Asked between parts; true ends the fetching.

        Returns:
            Its size in bytes.

        Raises:
            ApiError: If the address is not allowed, or cannot be fetched; the message does not hold its query.
            InterruptedError: If it was to stop.
        """
        deadline = time.monotonic() + seconds
        backend = _CheckedBackend(self.private_hosts, deadline, should_stop)
        address = self.check(url)
        with (
            _explain(address, seconds),
            httpcore.ConnectionPool(network_backend=backend, max_keepalive_connections=0) as pool,
        ):
            for _ in range(_MOST_REDIRECTS + 1):
                address = self.check(url)
                host = f"[{address.host}]" if ":" in address.host else address.host
                target = f"{address.scheme}://{host}:{address.port}"
                named = host if address.port == _PORTS[address.scheme] else f"{host}:{address.port}"
                with pool.stream(
                    "GET",
                    httpcore.URL(
                        scheme=address.scheme.encode(),
                        host=address.host.encode(),
                        port=address.port,
                        target=address.path.encode(),
                    ),
                    headers={"Host": named, "Accept-Encoding": "identity", "User-Agent": "prithvi_hf"},
                    extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), IDLE_SECONDS)},
                ) as answer:
                    headers = {name.lower(): value for name, value in answer.headers}
                    if answer.status in _REDIRECTS and b"location" in headers:
                        url = urljoin(target + address.path, headers[b"location"].decode("latin-1"))
                        continue
                    if answer.status != 200:
                        raise _refuse(address, f"status {answer.status}")
                    if headers.get(b"content-encoding", b"identity") != b"identity":
                        raise _refuse(address, "a compressed answer")
                    return _write(answer.iter_stream(), headers, path, most_bytes, address, should_stop)
            raise _refuse(address, f"more than {_MOST_REDIRECTS} redirections")


def _write(
    chunks: Iterable[bytes],
    headers: dict[bytes, bytes],
    path: Path,
    most_bytes: int,
    address: Address,
    should_stop: Callable[[], object],
) -> int:
    """Write a file as it comes, and count it."""
    length = headers.get(b"content-length", b"")
    expected = int(length) if length.isdigit() and len(length) < 20 else None
    count = 0
    with path.open("wb") as file:
        if (expected or 0) <= most_bytes:
            for chunk in chunks:
                if should_stop():
                    raise InterruptedError
                count += len(chunk)
                if count > most_bytes:
                    break
                file.write(chunk)
    if count > most_bytes or (expected or 0) > most_bytes:
        raise ApiError(
            413,
            f"at most {most_bytes / 1e6:,.0f} MB for the frames of a job",
            f"more at {address.label}",
            "Cut out a smaller scene, or fewer bands.",
        )
    if expected is not None and count != expected:
        raise _refuse(address, f"{count:,} of {expected:,} bytes")
    return count


def _refuse(address: Address, found: str) -> ApiError:
    """Make the error of a file that cannot be fetched."""
    return ApiError(
        422,
        f"a file at the address of {address.label}",
        found,
        "Check the address and whether it needs a signature, or send the file itself.",
    )


@contextmanager
def _explain(address: Address, seconds: float) -> Iterator[None]:
    """Turn errors of connections into those of clients."""
    try:
        yield
    except (httpcore.TimeoutException, TimeoutError) as error:
        raise _refuse(address, f"a server that does not send it in time ({seconds:g} seconds)") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        raise _refuse(address, f"that it cannot be reached ({type(error).__name__})") from error


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects to addresses that were looked up and checked here, until a deadline."""

    def __init__(self, private_hosts: set[str], deadline: float, should_stop: Callable[[], object]) -> None:
        self._private_hosts, self._deadline, self._should_stop = private_hosts, deadline, should_stop
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Look a name up, refuse private addresses, and connect to one of those that were checked."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError("no such host") from error
        addresses = list(dict.fromkeys(str(place[0]) for *_, place in found))
        if host.lower() not in self._private_hosts and not all(map(is_public, addresses)):
            raise ApiError(
                403,
                "a host of the public internet",
                f"that {host} has an address of a private network",
                "Send the file itself instead, or ask the operator of this server to allow the host "
                "(--allow_private_host).",
            )
        for number, address in enumerate(addresses, start=1):
            try:
                stream = self._backend.connect_tcp(
                    address, port, _limit(timeout, self._deadline), local_address, socket_options
                )
                return _TimedStream(stream, self._deadline, self._should_stop)
            except httpcore.ConnectError:
                if number == len(addresses):
                    raise
        raise httpcore.ConnectError("no address")


class _TimedStream(httpcore.NetworkStream):
    """A connection that ends at a deadline, and soon after it is to stop.

    A timeout alone begins again with every byte.
    """

    def __init__(self, stream: httpcore.NetworkStream, deadline: float, should_stop: Callable[[], object]) -> None:
        self._stream, self._deadline, self._should_stop = stream, deadline, should_stop

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read some bytes; asks every second whether to stop."""
        end = time.monotonic() + _limit(timeout, self._deadline)
        while True:
            try:
                return self._stream.read(max_bytes, _limit(_ASK_SECONDS, end))
            except httpcore.ReadTimeout:
                if self._should_stop():
                    raise InterruptedError from None
                if time.monotonic() >= end:
                    raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write bytes."""
        self._stream.write(buffer, _limit(timeout, self._deadline))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Go on encrypted; the certificate has to be that of the name."""
        stream = self._stream.start_tls(ssl_context, server_hostname, _limit(timeout, self._deadline))
        return _TimedStream(stream, self._deadline, self._should_stop)

    def get_extra_info(self, info: str) -> Any:
        """Tell what the connection knows."""
        return self._stream.get_extra_info(info)


def _limit(timeout: float | None, deadline: float) -> float:
    """Give the seconds that are left, at most a timeout."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("deadline")
    return left if timeout is None else min(timeout, left)
