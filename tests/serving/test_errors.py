# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Errors as clients get them."""

import pytest

from prithvi_hf.serving.errors import ApiError, TextError


def test_an_error_is_a_sentence_and_its_parts():
    error = ApiError(429, "fewer jobs", "16", "Try later.", retry_after=7)
    assert str(error) == "Expected fewer jobs, found 16. Try later."
    assert error.headers == {"Retry-After": "7"}
    assert error.content["error"] == {
        "status": 429,
        "message": str(error),
        "expected": "fewer jobs",
        "found": "16",
        "remedy": "Try later.",
    }


@pytest.mark.parametrize(
    ("message", "expected", "found", "remedy"),
    [
        ("Expected a, found b. Do c.", "a", "b", "Do c."),
        ("x.tif: expected a file, found none: restore it, or d.", "a file", "none", "restore it, or d."),
        ("x.tif: expected a, b, found c", "a, b", "c", "Correct the frames or the options."),
        (
            "out of memory",
            "frames and options that this model can map",
            "out of memory",
            "Correct the frames or the options.",
        ),
    ],
)
def test_messages_of_the_package_are_taken_apart(message, expected, found, remedy):
    error = TextError(422, message)
    assert str(error) == error.content["error"]["message"] == message
    assert (error.expected, error.found, error.remedy) == (expected, found, remedy)


def test_an_error_has_a_retry_after_only_where_that_helps():
    assert ApiError(404, "a job", "none", "Ask.").headers == {}
    assert ApiError(503, "a server", "none", "Wait.", retry_after=0).headers == {"Retry-After": "0"}


def test_a_message_of_many_lines_is_taken_apart_in_no_time():
    message = "x.tif: expected " * 200 + "\n" * 2000
    assert TextError(422, message).found == message
    error = TextError(422, "x.tif: expected one\nor two, found 1.5 bands. Give\none.")
    assert (error.expected, error.found, error.remedy) == ("one\nor two", "1.5 bands", "Give\none.")
