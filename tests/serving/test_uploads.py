# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Bodies of requests, piece by piece."""

import asyncio

import pytest
from starlette.requests import Request

from prithvi_hf.serving.errors import ApiError
from prithvi_hf.serving.schemas import JobOptions
from prithvi_hf.serving.uploads import Body, clean_label, name_frame, read_form, read_json


FORM = "multipart/form-data; boundary=bound"


def make_request(pieces, **headers):
    """A request whose body comes in pieces; None is a pause without end."""
    waiting = list(pieces)

    async def receive():
        if not waiting:
            return {"type": "http.request", "body": b"", "more_body": False}
        piece = waiting.pop(0)
        if piece is None:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": piece, "more_body": True}

    encoded = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": encoded}, receive)


def make_part(name, content, filename=None):
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--bound\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def receive(folder, pieces, most_bytes=10**7, seconds=30, most_files=3):
    return asyncio.run(read_form(Body(make_request(pieces), most_bytes, seconds), FORM, folder, most_files))


@pytest.mark.parametrize("size", [1, 7, 1000, 10**7])
def test_files_are_the_same_however_the_body_is_cut(tmp_path, size):
    contents = [bytes(range(256)) * 9 + b"\r\n--boun\r\n--bound\n", b"\r\n" * 40, b""]
    body = make_part("files", contents[0], "a/b/../one.tif") + make_part("options", b'{"overlap": 0.1}')
    body += make_part("other", contents[1], "C:\\\\x\\\\two.tif") + make_part("f", contents[2], "") + b"--bound--\r\n"
    upload = receive(tmp_path, [body[start : start + size] for start in range(0, len(body), size)])
    assert [path.read_bytes() for path in upload.files] == contents
    assert [path.name for path in upload.files] == [name_frame(number) for number in (1, 2, 3)]
    assert {path.parent for path in upload.files} == {tmp_path}
    assert upload.names == ["one.tif", "two.tif", "frame 3"]
    assert upload.options == JobOptions(overlap=0.1)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "end is missing"),
        (make_part("f", b"x", "x.tif"), 400, "end is missing"),
        (b"--other\r\n\r\n", 400, "broken"),
        (b"--bound--\r\n", 422, "without files"),
        (make_part("note", b"x") + b"--bound--\r\n", 422, "the field note"),
        (b"".join(make_part("f", b"x", "x.tif") for _ in range(4)) + b"--bound--\r\n", 422, "at most 3 files"),
        (make_part("options", b"x" * 70_000) + b"--bound--\r\n", 413, "options of at most"),
        (make_part("f", b"x", "x.tif") + make_part("options", b"{]") + b"--bound--\r\n", 400, "JSON"),
        (b"--bound\r\n" + b"X-Header: " + b"x" * 100_000, 400, "broken"),
        (b"--bound\r\n" + b"X: y\r\n" * 10_000, 400, "broken"),
        (make_part("f", b"x" * 2_000_000, "x.tif") + b"--bound--\r\n", 413, "at most 1 MB"),
    ],
)
def test_broken_and_large_forms_are_refused(tmp_path, body, status, message):
    pieces = [body[start : start + 4096] for start in range(0, len(body), 4096)]
    with pytest.raises(ApiError, match=message) as error:
        receive(tmp_path, pieces, most_bytes=10**6)
    assert error.value.status == status


def test_a_body_that_does_not_come_is_given_up(tmp_path):
    with pytest.raises(ApiError, match="2 bytes by then") as error:
        receive(tmp_path, [b"--", None], seconds=0.2)
    assert error.value.status == 408


@pytest.mark.parametrize("length", ["1000001", "9" * 30])
def test_a_length_that_is_too_large_is_refused_before_a_byte_is_read(length):
    body = Body(make_request([None], content_length=length), 10**6, 5)

    async def read():
        async for _ in body:
            pass

    with pytest.raises(ApiError, match="larger one"):
        asyncio.run(read())


def test_what_is_left_of_a_body_is_read_up_to_a_limit():
    request = make_request([b"x" * 2**20] * 100)
    body = Body(request, 10**9, 5)
    asyncio.run(body.drain())
    asyncio.run(body.drain())
    assert not body.is_read


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("../../etc/passwd", "passwd"),
        ("a\r\nb.tif", "ab.tif"),
        ("", "frame 1"),
        ("x" * 300, "x" * 100),
        ("ä.tif", "ä.tif"),
    ],
)
def test_a_name_is_a_label(text, label):
    assert clean_label(text, 1) == label


def test_json_is_read_strictly():
    with pytest.raises(ApiError, match="for overlap") as error:
        read_json(b'{"overlap": 3}', JobOptions)
    assert error.value.status == 422
    with pytest.raises(ApiError, match="for secret") as error:
        read_json(b'{"secret": "word"}', JobOptions)
    assert "word" not in str(error.value)
