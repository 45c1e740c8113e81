# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Addresses that clients give: what is allowed, and what is never asked."""

import socket
import time

import pytest

from prithvi_hf.serving.errors import ApiError
from prithvi_hf.serving.fetch import Fetcher, is_public, parse_address
from tests.serve_factory import wait_for


PREFIX = "https://data.example.org/hls/"


@pytest.mark.parametrize(
    "url",
    [
        "https://data.example.org/hls/a.tif",
        "https://DATA.example.org:443/hls/x/a.tif?sig=a%2Fb",
        "https://data.example.org/hls/a%20b.tif",
    ],
)
def test_addresses_below_the_prefix_are_allowed(url):
    assert Fetcher([PREFIX]).check(url).host == "data.example.org"


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("https://data.example.org/other/a.tif", 403),
        ("https://data.example.org/hls-secret/a.tif", 403),
        ("http://data.example.org/hls/a.tif", 403),
        ("https://data.example.org:8443/hls/a.tif", 403),
        ("https://data.example.org.evil.net/hls/a.tif", 403),
        ("https://evil.net/https://data.example.org/hls/a.tif", 403),
        ("https://data.example.org@evil.net/hls/a.tif", 422),
        ("https://user:word@data.example.org/hls/a.tif", 422),
        ("https://data.example.org/hls/../secret/a.tif", 422),
        ("https://data.example.org/hls/%2e%2e/secret/a.tif", 422),
        ("https://data.example.org/hls/%252e%252e/secret/a.tif", 422),
        ("https://data.example.org/hls/..%2fsecret/a.tif", 422),
        ("https://data.example.org\\@evil.net/hls/a.tif", 422),
        ("https://data.example.org/hls/a.tif\r\nHost: evil.net", 422),
        ("https://data.example.org:99999/hls/a.tif", 422),
        ("https://[::1/hls/", 422),
        ("file:///etc/passwd", 422),
        ("/vsicurl/https://data.example.org/hls/a.tif", 422),
        ("ftp://data.example.org/hls/a.tif", 422),
        ("https://data.exämple.org/hls/a.tif", 422),
        ("", 422),
    ],
)
def test_all_others_are_refused(url, status):
    with pytest.raises(ApiError) as error:
        Fetcher([PREFIX]).check(url)
    assert error.value.status == status


def test_without_a_prefix_nothing_is_fetched():
    with pytest.raises(ApiError, match="fetches nothing"):
        Fetcher().check("https://data.example.org/hls/a.tif")


@pytest.mark.parametrize(
    "prefix", ["data.example.org", "https://u@data.example.org/", "https://a/?b", "file:///data", ""]
)
def test_a_prefix_is_an_address(prefix):
    with pytest.raises(ValueError, match="--allow_url"):
        Fetcher([prefix])


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("64:ff9b::808:808", True),
        *((address, False) for address in ("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254")),
        *((address, False) for address in ("0.0.0.0", "100.64.0.1", "224.0.0.1", "255.255.255.255", "198.18.0.1")),
        *((address, False) for address in ("::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1")),
        *((address, False) for address in ("::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a00:1::1")),
    ],
)
def test_private_addresses_are_known_in_every_disguise(address, public):
    assert is_public(address) is public


def fetch(fetcher, url, path, most_bytes=10**7, seconds=10.0):
    return fetcher.fetch(url, path, most_bytes, seconds, lambda: False)


def test_a_file_is_fetched_from_a_private_host_that_is_named(file_server, tmp_path):
    url = f"{file_server.url}/data/scene.tif"
    allowed = Fetcher([f"{file_server.url}/data/"], ["127.0.0.1"])
    size = fetch(allowed, url, tmp_path / "a.tif")
    assert (tmp_path / "a.tif").read_bytes() == (file_server.folder / "data" / "scene.tif").read_bytes()
    assert size == (tmp_path / "a.tif").stat().st_size
    file_server.requests.clear()
    with pytest.raises(ApiError, match="private network") as error:
        fetch(Fetcher([f"{file_server.url}/data/"]), url, tmp_path / "b.tif")
    assert error.value.status == 403
    assert file_server.requests == []


def test_a_name_is_looked_up_once_and_every_address_of_it_is_checked(file_server, tmp_path, monkeypatch):
    port, answers, addresses = file_server.server_port, [], []

    def resolve(host, *_, **__):
        answers.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr("prithvi_hf.serving.fetch.socket.getaddrinfo", resolve)
    prefix, file_server.requests[:] = f"http://data.example.org:{port}/data/", []
    for found in (["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["169.254.169.254"]):
        addresses[:] = found
        with pytest.raises(ApiError, match="private network"):
            fetch(Fetcher([prefix]), f"{prefix}scene.tif", tmp_path / "a.tif")
    assert file_server.requests == []
    addresses[:] = ["127.0.0.1"]
    answers.clear()
    fetch(Fetcher([prefix], ["data.example.org"]), f"{prefix}scene.tif", tmp_path / "a.tif")
    assert answers.count("data.example.org") == 1  # no second answer can be another one


@pytest.mark.parametrize(
    ("target", "status", "words"),
    [
        ("scene.tif", None, ""),
        ("/secret/scene.tif", 403, "begins with"),
        ("http:__localhost:1/data/scene.tif", 403, "begins with"),
        ("file:/__etc/passwd", 422, "kind of address"),
        ("/data/to//data/to//data/to//data/to//data/to//data/to//data/scene.tif", 422, "redirections"),
        ("missing.tif", 422, "status 404"),
    ],
)
def test_redirections_are_checked_like_addresses(file_server, tmp_path, target, status, words):
    url, fetcher = f"{file_server.url}/data/to/{target}", Fetcher([f"{file_server.url}/data/"], ["127.0.0.1"])
    if target in ("scene.tif", "missing.tif"):
        url = f"{file_server.url}/data/to//data/{target}"
    file_server.requests.clear()
    if status is None:
        assert fetch(fetcher, url, tmp_path / "a.tif") > 0
        return
    with pytest.raises(ApiError, match=words) as error:
        fetch(fetcher, url, tmp_path / "a.tif")
    assert error.value.status == status
    assert not any("secret" in path and "/to/" not in path for path in file_server.requests)


def test_size_and_time_are_limited(file_server, tmp_path):
    fetcher = Fetcher([f"{file_server.url}/data/"], ["127.0.0.1"])
    with pytest.raises(ApiError, match="at most") as error:
        fetch(fetcher, f"{file_server.url}/data/scene.tif", tmp_path / "a.tif", most_bytes=1000)
    assert error.value.status == 413
    with pytest.raises(ApiError, match=r"in time \(0.5 seconds\)"):
        fetch(fetcher, f"{file_server.url}/data/slow/scene.tif?sig=secret", tmp_path / "a.tif", seconds=0.5)
    with pytest.raises(ApiError, match="cannot be reached") as error:
        fetch(Fetcher(["http://127.0.0.1:1/"], ["127.0.0.1"]), "http://127.0.0.1:1/a?sig=secret", tmp_path / "a.tif")
    assert "secret" not in str(error.value)


def test_fetching_stops_soon_after_it_is_told_to(file_server, tmp_path):
    fetcher, begin = Fetcher([f"{file_server.url}/data/"], ["127.0.0.1"]), time.monotonic()
    with pytest.raises(InterruptedError):
        fetcher.fetch(
            f"{file_server.url}/data/slow/a", tmp_path / "a", 10**7, 60, lambda: time.monotonic() > begin + 0.3
        )
    assert time.monotonic() - begin < 5


def test_a_label_is_the_end_of_the_path():
    assert parse_address("https://a/b/c%20d.tif?sig=x").label == "c d.tif"
    assert parse_address("https://a").label == "a"


def test_a_job_of_addresses_is_fetched_and_mapped(client, server, file_server):
    answer = client.post("/v1/segment", json={"urls": [f"{file_server.url}/data/scene.tif?sig=secret-signature"]})
    job = wait_for(client, answer.raise_for_status().json())
    assert job["status"] == "succeeded"
    assert [one["name"] for one in job["frames"]] == ["scene.tif"]
    assert "secret-signature" not in (server.work_dir / "jobs" / job["id"] / "job.json").read_text()
    for target, status in (("/secret/scene.tif", 403), ("missing.tif", 422)):
        url = f"{file_server.url}/data/to/{target}" if "/" in target else f"{file_server.url}/data/{target}"
        job = wait_for(client, client.post("/v1/segment", json={"urls": [url]}).raise_for_status().json())
        assert (job["status"], job["error"]["status"]) == ("failed", status)
    for url, status in (("http://169.254.169.254/latest", 403), (f"{file_server.url}/secret/scene.tif", 403)):
        assert client.post("/v1/segment", json={"urls": [url]}).status_code == status
    job = client.post("/v1/segment", json={"urls": ["http://localhost:1/data/a.tif"]}).raise_for_status().json()
    assert "private network" in wait_for(client, job)["error"]["message"]
