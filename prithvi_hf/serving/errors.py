# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Errors as clients get them: a status, what was expected, what was found, and what to do."""

import re


_SENTENCE = re.compile(
    r"(?:.*?: )?expected (?P<expected>.+?),? found (?P<found>.+?)(?:[.:] |$)(?P<remedy>.*)", re.I | re.S
)


class ApiError(Exception):
    """An error that a client can do something about.

    Args:
        status: Of the answer.
        expected: What was expected.
        found: What was found.
        remedy: What to do, a sentence.
        retry_after: Seconds after which to try again, where that may help.
    """

    def __init__(self, status: int, expected: str, found: str, remedy: str, *, retry_after: int | None = None) -> None:
        super().__init__(f"Expected {expected}, found {found}. {remedy}")
        self.status, self.expected, self.found, self.remedy = status, expected, found, remedy
        self.retry_after = retry_after

    @property
    def content(self) -> dict[str, object]:
        """The body of the answer, for JSON."""
        return {
            "error": {
                "status": self.status,
                "message": str(self),
                "expected": self.expected,
                "found": self.found,
                "remedy": self.remedy,
            }
        }

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class TextError(ApiError):
    """An error whose message comes from reading or mapping a scene, as it is; its parts as far as it shows them."""

    def __init__(self, status: int, message: str) -> None:
        parts = _SENTENCE.match(message)
        super().__init__(
            status,
            parts["expected"] if parts else "frames and options that this model can map",
            parts["found"] if parts else message,
            (parts["remedy"] if parts else "") or "Correct the frames or the options.",
        )
        self.message = message

    def __str__(self) -> str:
        return self.message
