# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What the guard lets through to the server of the page."""

import asyncio

import pytest

from prithvi_hf.demo.guard import Guard


def ask(folder, path, method="GET", headers=(), limit=10**6, root_path=""):
    """Status and text of the answer; what is let through is answered by 200."""
    sent = []

    async def page(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"the page"})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers), "root_path": root_path}
    asyncio.run(Guard(page, folder, limit)(scope, None, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent).decode()


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/assets/index.js", "/gradio_api/queue/join", "/gradio_api/file=/tmp/x/map.tif", "/theme.css"],
)
def test_what_the_page_needs_is_let_through(tmp_path, path):
    assert ask(tmp_path, path)[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=http://169.254.169.254/latest/meta-data",
        "/gradio_api/proxy=https://example.org/",
        "/gradio_api/run/predict",
        "/gradio_api/process_recording",
        "/gradio_api/deep_link",
        "/monitoring",
        "/gradio_api/vibe-edit",
        "/../etc/passwd",
    ],
)
def test_what_gradio_offers_besides_is_refused(tmp_path, path):
    assert ask(tmp_path, path)[0] == 404


def test_the_page_may_have_a_path_of_its_own(tmp_path):
    assert ask(tmp_path, "/floods/config", root_path="/floods")[0] == 200
    assert ask(tmp_path, "/floods/monitoring", root_path="/floods")[0] == 404


def test_uploads_state_their_size_and_are_within_the_limit(tmp_path):
    def upload(length):
        headers = [(b"content-length", length)] if length is not None else []
        return ask(tmp_path, "/gradio_api/upload", "POST", headers)

    assert upload(b"1000000")[0] == 200
    status, text = upload(b"5000000")
    assert status == 413
    assert text == "Expected an upload of at most 1 MB, found 5 MB."
    assert upload(None)[0] == 411
    assert upload(b"-5")[0] == 411


def test_other_requests_are_small(tmp_path):
    for length, status in ((b"500", 200), (b"2000000", 413), (None, 413), (b"9" * 50, 413)):
        headers = [(b"content-length", length)] if length is not None else []
        assert ask(tmp_path, "/gradio_api/queue/join", "POST", headers)[0] == status


def test_uploads_that_the_disk_has_no_room_for_are_refused(tmp_path):
    status, text = ask(tmp_path, "/gradio_api/upload", "POST", [(b"content-length", b"9" * 17)], limit=10**18)
    assert status == 507
    assert "no room" in text
