# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Bodies of requests, piece by piece."""

import asyncio
import tracemalloc

import pytest
from starlette.requests import ClientDisconnect, Request

from prithvi_hf.serving.errors import ApiError
from prithvi_hf.serving.schemas import JobOptions
from prithvi_hf.serving.settings import SMALL_BODY_BYTES, Limits
from prithvi_hf.serving.uploads import Body, check_content_type, clean_label, name_frame, read_form, read_json


FORM = "multipart/form-data; boundary=bound"


def make_request(pieces, **headers):
    """A request whose body comes in pieces; None is a pause without end."""
    waiting = list(pieces)

    async def receive():
        if not waiting:
            return {"type": "http.request", "body": b"", "more_body": False}
        piece = waiting.pop(0)
        await asyncio.sleep(60 if piece is None else 0)
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


def test_after_an_error_in_the_middle_the_rest_of_the_body_is_read(tmp_path):
    form = b"".join(make_part("f", b"x" * 5000, "x.tif") for _ in range(4)) + b"--bound--\r\n"
    pieces = [form[start : start + 1000] for start in range(0, len(form), 1000)]

    async def give():
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    body = Body(Request({"type": "http", "method": "POST", "headers": []}, give), 10**7, 5)

    async def read_and_drain():
        with pytest.raises(ApiError, match="at most 3 files"):
            await read_form(body, FORM, tmp_path, 3)
        left = len(pieces)
        await body.drain()
        return left

    assert 3 <= asyncio.run(read_and_drain()) <= 6  # of 21: a fourth file has begun
    assert not pieces


@pytest.mark.parametrize("is_draining", [False, True])
def test_a_client_that_leaves_is_noticed_while_it_is_read_and_no_matter_afterwards(tmp_path, is_draining):
    async def leave():
        return {"type": "http.disconnect"}

    body = Body(Request({"type": "http", "method": "POST", "headers": []}, leave), 10**6, 5)
    if is_draining:
        asyncio.run(body.drain())
    else:
        with pytest.raises(ClientDisconnect):
            asyncio.run(read_form(body, FORM, tmp_path, 3))


def test_files_are_written_as_they_come(tmp_path):
    seen = []
    pieces = [make_part("f", b"", "x.tif")[:-2], *[b"x" * 2**19] * 6, b"\r\n--bound--\r\n"]

    async def receive_and_look():
        if (tmp_path / name_frame(1)).exists():
            seen.append((tmp_path / name_frame(1)).stat().st_size)
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive_and_look)
    upload = asyncio.run(read_form(Body(request, 10**7, 5), FORM, tmp_path, 1))
    assert upload.files[0].read_bytes() == b"x" * (6 * 2**19)
    assert all(2**19 * count - size <= 2**20 for count, size in enumerate(seen))


def test_pieces_of_two_bytes_take_no_more_memory_than_their_content(tmp_path):
    pieces = [make_part("f", b"", "x.tif")[:-2], *[b"xy"] * 20_000, b"\r\n--bound--\r\n"]
    tracemalloc.start()
    upload = receive(tmp_path, pieces)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert upload.files[0].stat().st_size == 40_000
    assert most < 500_000  # a list of them would take 2.5 MB


@pytest.mark.parametrize("count", [999_999, 1_000_000, 1_000_001])
def test_a_body_may_have_just_as_many_bytes_as_its_limit(count):
    async def read():
        return sum(
            [
                len(chunk)
                async for chunk in Body(make_request([b"x" * 333_333] * 3 + [b"x" * (count - 999_999)]), 10**6, 5)
            ]
        )

    if count <= 10**6:
        assert asyncio.run(read()) == count
    else:
        with pytest.raises(ApiError, match="at most 1 MB"):
            asyncio.run(read())


def test_a_compressed_body_is_refused():
    with pytest.raises(ApiError, match="found a compressed one") as error:
        Body(make_request([], content_encoding="gzip"), 10, 5)
    assert error.value.status == 415


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'b' * 5000}"],
)
def test_a_form_needs_a_boundary(tmp_path, content_type):
    body = Body(make_request([make_part("f", b"x", "x.tif") + b"--bound--\r\n"]), 10**6, 5)
    with pytest.raises(ApiError, match=r"without a boundary|broken") as error:
        asyncio.run(read_form(body, content_type, tmp_path, 3))
    assert error.value.status == 400
    assert not list(tmp_path.iterdir())


def test_a_boundary_may_be_quoted_and_text_may_follow_the_end(tmp_path):
    body = Body(make_request([make_part("f", b"x", "ä.tif") + b"--bound--\r\n", b"epilogue"]), 10**6, 5)
    upload = asyncio.run(read_form(body, 'multipart/form-data; charset=utf-8; Boundary="bound"', tmp_path, 3))
    assert (upload.names, upload.files[0].read_bytes()) == (["ä.tif"], b"x")


def test_the_kind_of_a_body_says_how_large_it_may_be():
    limits = Limits(max_upload=3)
    assert check_content_type("Multipart/Form-Data; boundary=x", limits) == (
        "multipart/form-data",
        3_000_000 + SMALL_BODY_BYTES,
    )
    assert check_content_type("application/json;charset=utf-8", limits) == ("application/json", SMALL_BODY_BYTES)
    for content_type, found in (("", "no Content-Type"), ("image/tiff", "image/tiff"), ("multipart/mixed", "mixed")):
        with pytest.raises(ApiError, match=f"found .*{found}") as error:
            check_content_type(content_type, limits)
        assert error.value.status == 415


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


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 400, "EOF"),
        (b"\xff", 400, "expected value"),
        (b"[" * 50_000, 400, "recursion limit"),
        (b"{} {}", 400, "trailing"),
        (b"[]", 422, "should be an object"),
        (b'{"min_area": 1e999}', 422, "for min_area: Input should be a finite number"),
        (b'{"location": [NaN, 0]}', 422, "for location.0: Input should be a finite number"),
        (b'{"' + b"x" * 60_000 + b'": 1}', 422, "for x{100}: "),
    ],
)
def test_json_that_is_none_is_told_from_other_json(content, status, message):
    with pytest.raises(ApiError, match=message) as error:
        read_json(content, JobOptions)
    assert error.value.status == status
    assert len(str(error.value)) < 1000
