# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Tokens and signatures: who gets them, and that nobody else does.

Tokens come from the environment or from `~/.netrc`, never from the command line, which other users of a machine can
read. They are sent to the hosts that they are for and to nobody that these redirect to, over https alone (or to this
machine itself), and are neither logged nor written. Addresses are signed when they are sent; what is kept is the
address without its signature.
"""

import datetime
import ipaddress
import netrc
import os
import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from prithvi_hf.catalog.providers import Source
from prithvi_hf.rasters.remote import Access


EARTHDATA_TOKEN, STAC_TOKEN = "EARTHDATA_TOKEN", "STAC_TOKEN"
"""Variables of the environment with a bearer token: for Earthdata, and for the host of the STAC API that is given."""

EARTHDATA_LOGIN = "https://urs.earthdata.nasa.gov/api/users/find_or_create_token"
"""Where user name and password of `~/.netrc` become a token."""

_EARTHDATA_HOSTS = (".earthdata.nasa.gov", ".earthdatacloud.nasa.gov")
_BLOB_HOSTS = ".blob.core.windows.net"
_RENEW_BEFORE = datetime.timedelta(minutes=5)
_TIMEOUT_SECONDS = 60
_ATTEMPTS = 5
_LONGEST_WAIT_SECONDS = 60  # that a server may ask for
_RETRIED = (408, 429, 500, 502, 503, 504)
# Names in the query of an address by which it is signed, by Azure, AWS, Google and others.
_SECRET = re.compile(
    r"sig|signature|.*token.*|.*key.*|.*secret.*|.*credential.*|password|policy|x-(?:amz|goog)-.*", re.I
)


def hide_secrets(address: str) -> str:
    """Give an address without user name and password, and without its query where that may sign it."""
    try:
        parts = urlsplit(address)
        is_signed = any(_SECRET.fullmatch(name) for name, _ in parse_qsl(parts.query, keep_blank_values=True))
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return address.split("?")[0]
    return parts._replace(netloc=host, query="" if is_signed else parts.query, fragment="").geturl()


def _is_private(address: str) -> bool:
    """Whether nobody on the way can read what is sent to an address: https, or this machine itself."""
    parts = urlsplit(address)
    try:
        is_here = parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        is_here = False
    return parts.scheme == "https" or is_here


class Credentials:
    """The tokens of one source; they are asked for when they are first needed, and renewed before they expire.

    Args:
        source: the catalog.
        environment: variables; None for those of the process.
    """

    def __init__(self, source: Source, environment: Mapping[str, str] | None = None) -> None:
        self._source, self._environment = source, os.environ if environment is None else environment
        self._lock = threading.RLock()
        self._earthdata = ""
        self._signatures: dict[str, tuple[str, datetime.datetime]] = {}  # by collection, and until when
        self._refusals: dict[str, OSError] = {}  # by collection: not every file has to find out by itself

    def check(self) -> None:
        """Ask for what a search and its downloads will surely need.

        Raises:
            ValueError: Earthdata is asked, and there is neither a token nor a login.
            OSError: a login is refused, or the server cannot be reached.
        """
        if self._is_earthdata(self._source.stac):
            self._find_earthdata_token()

    def make_session(self) -> Any:
        """Make a session of `requests` that tries again where a failure may pass, and sends the API its token."""
        from requests import Session
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry

        credentials = self

        class Adapter(HTTPAdapter):
            """The token is added after the request was logged."""

            def add_headers(self, request: Any, **_: Any) -> None:
                request.headers.update(credentials.find_headers(request.url))

        retries = Retry(
            _ATTEMPTS,
            connect=2,  # a host that is not there is told soon
            backoff_factor=0.5,
            status_forcelist=_RETRIED,
            allowed_methods=None,
            raise_on_status=False,
            retry_after_max=_LONGEST_WAIT_SECONDS,
        )
        session = Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, Adapter(max_retries=retries))
        return session

    def find_headers(self, address: str) -> dict[str, str]:
        """Give the headers with a token for an address; none where no token is for it."""
        if not _is_private(address):
            return {}
        host = urlsplit(address).hostname
        token = self._environment.get(STAC_TOKEN, "").strip()
        if token and host == urlsplit(self._source.stac).hostname:
            return {"Authorization": f"Bearer {token}"}
        # Its catalog is open to all, its files are not.
        if self._is_earthdata(address) and host != urlsplit(self._source.stac).hostname:
            return {"Authorization": f"Bearer {self._find_earthdata_token()}"}
        return {}

    def give_access(self, collection: str) -> Access:
        """Make what `rasters.remote` asks before each request for an asset of a collection."""

        def access(address: str) -> tuple[str, Mapping[str, str]]:
            return self._sign(address, collection), self.find_headers(address)

        return access

    def _is_earthdata(self, address: str) -> bool:
        """Whether an address is one of NASA's Earthdata, whose files need a login."""
        return (urlsplit(address).hostname or "").endswith(_EARTHDATA_HOSTS)

    def _find_earthdata_token(self) -> str:
        """Take the token of the environment, or ask for one with the login of `~/.netrc`."""
        import requests

        with self._lock:
            token = self._environment.get(EARTHDATA_TOKEN, "").strip() or self._earthdata
            if token:
                return token
            login = None
            try:
                login = netrc.netrc(self._environment.get("NETRC")).authenticators(
                    urlsplit(EARTHDATA_LOGIN).hostname or ""
                )
            except FileNotFoundError:
                pass
            except (netrc.NetrcParseError, OSError, UnicodeDecodeError):
                raise ValueError(  # whose own message may hold a piece of a password
                    "Expected a ~/.netrc that can be read, found one that cannot: its form is wrong, or others may "
                    f"read it (chmod 600). Correct it, or put a token into {EARTHDATA_TOKEN}."
                ) from None
            if login is None:
                raise ValueError(
                    "Expected a login for NASA's Earthdata, found none. Put a token of https://urs.earthdata.nasa.gov "
                    f"into the environment as {EARTHDATA_TOKEN}, or the line `machine urs.earthdata.nasa.gov login "
                    "NAME password PASSWORD` into ~/.netrc."
                )
            try:
                answer = requests.post(EARTHDATA_LOGIN, auth=(login[0], login[2] or ""), timeout=_TIMEOUT_SECONDS)
                status, members = answer.status_code, answer.json() if answer.ok else {}
            except (requests.RequestException, ValueError) as error:
                raise OSError(
                    f"Expected Earthdata's login to answer, found {type(error).__name__}. Try again later."
                ) from None
            given = members.get("access_token") if isinstance(members, dict) else None
            if not isinstance(given, str) or not given:
                raise PermissionError(
                    f"Expected Earthdata to accept the login of ~/.netrc, found status {status}. Check user name and "
                    f"password, or put a token into {EARTHDATA_TOKEN}."
                )
            self._earthdata = given
            return given

    def _sign(self, address: str, collection: str) -> str:
        """Sign an address of the storage that the endpoint signs for; another one, or a signed one, stays as it is."""
        sign = self._source.sign
        parts = urlsplit(address)
        is_ours = bool(sign) and (
            (parts.hostname or "").endswith(_BLOB_HOSTS) or parts.hostname == urlsplit(sign).hostname
        )
        if not is_ours or not _is_private(address) or hide_secrets(address) != address:
            return address
        return f"{address}{'&' if parts.query else '?'}{self._find_signature(collection)}"

    def _find_signature(self, collection: str) -> str:
        """Take the signature of a collection, or ask for one where it expires soon."""
        import requests

        now = datetime.datetime.now(datetime.UTC)
        with self._lock:
            signature, until = self._signatures.get(collection, ("", now))
            if signature and until - now > _RENEW_BEFORE:
                return signature
            if collection in self._refusals:
                raise self._refusals[collection]
            endpoint = f"{self._source.sign.rstrip('/')}/{quote(collection, safe='')}"
            try:
                answer = self.make_session().get(endpoint, timeout=_TIMEOUT_SECONDS)
                status, members = answer.status_code, answer.json() if answer.ok else {}
            except (requests.RequestException, ValueError) as error:
                self._refusals[collection] = OSError(
                    f"{endpoint}: expected a token that signs addresses, found {type(error).__name__}. Try again "
                    "later."
                )
                raise self._refusals[collection] from None
            members = members if isinstance(members, dict) else {}
            given, expiry = members.get("token"), members.get("msft:expiry")
            if not isinstance(given, str) or not re.fullmatch(r"[\x21-\x7e]+", given):
                self._refusals[collection] = OSError(
                    f"{endpoint}: expected a token that signs addresses, found none (status {status}). Check --sign "
                    "and the collection."
                )
                raise self._refusals[collection]
            try:
                until = datetime.datetime.fromisoformat(str(expiry))
                until = until if until.tzinfo else until.replace(tzinfo=datetime.UTC)
            except ValueError:  # one that does not say is asked for again each time
                until = now
            self._signatures[collection] = given.lstrip("?"), until
            return self._signatures[collection][0]
