# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Tokens and signatures: who gets them, and who does not."""

import logging

import pytest

from prithvi_hf.catalog import access
from prithvi_hf.catalog.access import Credentials, hide_secrets
from prithvi_hf.catalog.providers import SOURCES, Source
from tests.catalog_server import SIGNATURE, TOKEN


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("https://a.org/b.tif", "https://a.org/b.tif"),
        ("https://a.org/b.tif?file=3", "https://a.org/b.tif?file=3"),
        ("https://a.blob.core.windows.net/c/b.tif?st=1&se=2&sig=abc%3D", "https://a.blob.core.windows.net/c/b.tif"),
        ("https://a.org/b.tif?X-Amz-Signature=1&x=2", "https://a.org/b.tif"),
        ("https://a.org/b.tif?X-Goog-Credential=1", "https://a.org/b.tif"),
        ("https://a.org/b.tif?access_token=1", "https://a.org/b.tif"),
        ("https://me:word@a.org/b.tif#part", "https://a.org/b.tif"),
        ("https://[::1/b.tif?sig=1", "https://[::1/b.tif"),
    ],
)
def test_what_signs_an_address_is_not_kept(address, kept):
    assert hide_secrets(address) == kept


def test_the_token_of_a_stac_api_is_for_its_own_host_and_never_in_the_clear():
    credentials = Credentials(Source("https://stac.example.org/v1", ("a",)), {"STAC_TOKEN": f" {TOKEN}\n"})
    assert credentials.find_headers("https://stac.example.org/b.tif") == {"Authorization": f"Bearer {TOKEN}"}
    for other in ("http://stac.example.org/b.tif", "https://example.org/b.tif", "https://evil-stac.example.org/b.tif"):
        assert credentials.find_headers(other) == {}
    here = Credentials(Source("http://127.0.0.1:8000/v1", ("a",)), {"STAC_TOKEN": TOKEN})
    assert here.find_headers("http://127.0.0.1:9000/b.tif")


def test_the_token_of_earthdata_is_for_its_files():
    credentials = Credentials(SOURCES["hls"], {"EARTHDATA_TOKEN": TOKEN})
    credentials.check()
    file = "https://data.lpdaac.earthdatacloud.nasa.gov/lp-prod-protected/HLSS30.020/a.tif"
    assert credentials.find_headers(file) == {"Authorization": f"Bearer {TOKEN}"}
    for other in (
        SOURCES["hls"].stac,
        file.replace("https", "http"),
        "https://earthdatacloud.nasa.gov.evil.org/a.tif",
    ):
        assert credentials.find_headers(other) == {}


def test_a_login_of_netrc_becomes_a_token_once(catalog, tmp_path, monkeypatch):
    """The loopback server stands for Earthdata's login, whose answer has this form."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password word\n")
    netrc.chmod(0o600)
    (catalog.folder / "login").write_text('{"access_token": "' + TOKEN + '"}')
    monkeypatch.setattr(access, "EARTHDATA_LOGIN", f"{catalog.address}/files/login")
    credentials = Credentials(SOURCES["hls"], {"NETRC": str(netrc)})
    file = "https://data.lpdaac.earthdatacloud.nasa.gov/a.tif"
    for _ in range(2):
        assert credentials.find_headers(file) == {"Authorization": f"Bearer {TOKEN}"}
    [(method, _, headers)] = catalog.requests
    assert (method, headers["Authorization"]) == ("POST", "Basic bWU6d29yZA==")
    catalog.always["login"] = 401
    with pytest.raises(PermissionError, match=r"accept the login of .*, found status 401"):
        Credentials(SOURCES["hls"], {"NETRC": str(netrc)}).check()


@pytest.mark.parametrize("content", [None, "machine other login a password b\n", "machine 127 word-of-honour\n"])
def test_a_missing_login_is_told_without_what_the_file_holds(tmp_path, content):
    if content is not None:
        (tmp_path / "netrc").write_text(content)
    with pytest.raises(ValueError, match="EARTHDATA_TOKEN") as e:
        Credentials(SOURCES["hls"], {"NETRC": str(tmp_path / "netrc")}).check()
    assert "honour" not in str(e.value)
    assert e.value.__cause__ is None


def test_addresses_of_the_storage_are_signed_with_one_token(catalog):
    credentials = Credentials(Source("https://stac.example.org", ("c 1",), f"{catalog.address}/sign"), {})
    sign = credentials.give_access("c 1")
    blob = "https://a.blob.core.windows.net/c/b.tif"
    assert sign(blob) == (f"{blob}?se=2099&sig={SIGNATURE}", {})
    assert sign(f"{blob}?snapshot=1")[0] == f"{blob}?snapshot=1&se=2099&sig={SIGNATURE}"
    for other in ("https://example.org/b.tif", blob.replace("https", "http"), f"{blob}?sig=own"):
        assert sign(other)[0] == other
    assert [path for _, path, _ in catalog.requests] == ["/sign/c%201"]


def test_a_token_that_expires_is_asked_for_again_and_failures_are_tried_again(catalog, monkeypatch):
    monkeypatch.setattr(access, "_RENEW_BEFORE", access.datetime.timedelta(days=100_000))
    sign = Credentials(Source("https://stac.example.org", ("c",), f"{catalog.address}/sign"), {}).give_access("c")
    catalog.faults["sign"] = [503, 429]
    for _ in range(2):
        sign("https://a.blob.core.windows.net/c/b.tif")
    assert len(catalog.requests) == 4
    catalog.always["sign"] = 403
    with pytest.raises(OSError, match=r"/sign/c: expected a token that signs addresses, found none \(status 403\)"):
        sign("https://a.blob.core.windows.net/c/b.tif")


def test_a_session_logs_no_token(catalog, caplog):
    caplog.set_level(logging.DEBUG)
    session = Credentials(Source(catalog.stac, ("a",)), {"STAC_TOKEN": TOKEN}).make_session()
    assert session.get(catalog.stac).json()["id"] == "test"
    assert catalog.requests[0][2]["Authorization"] == f"Bearer {TOKEN}"
    assert caplog.text
    assert TOKEN not in caplog.text
