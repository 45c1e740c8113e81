# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Errors as clients get them."""

import pytest

from prithvi_hf.serving.errors import ApiError, TextError, hide_paths


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


def test_longer_paths_are_hidden_first():
    names = {"/work/a": "the folder", "/work/a/frame_001.tif": "x.tif"}
    assert hide_paths("/work/a/frame_001.tif in /work/a", names) == "x.tif in the folder"
