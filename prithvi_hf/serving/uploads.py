# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Frames and options in the body of a request, written to their folder as they come.

Bytes, parts and time are limited while they come, so nothing large is ever in memory or in a temporary folder. What a
client calls a file is a label; the file gets a name of this server's.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from anyio import to_thread
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from prithvi_hf.serving.errors import ApiError
from prithvi_hf.serving.schemas import JobOptions
from prithvi_hf.serving.settings import IDLE_SECONDS, SMALL_BODY_BYTES, Limits


if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_WRITE_BYTES = 2**20
_DRAINED_BYTES, _DRAINED_SECONDS = 2**26, 10.0
_LABEL_LENGTH = 100
_Schema = TypeVar("_Schema", bound=BaseModel)


class Body:
    """The body of a request, in pieces, within a number of bytes and a time.

    Args:
        request: The request.
        most_bytes: Of the body.
        seconds: Until it has to be there.
    """

    def __init__(self, request: Request, most_bytes: int, seconds: float) -> None:
        self._stream, self._most, self._seconds = request.stream(), most_bytes, seconds
        self._length = request.headers.get("content-length", "")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise ApiError(415, "a body as it is", "a compressed one", "Send it without Content-Encoding.")
        self.is_read = False

    def _refuse_size(self) -> ApiError:
        return ApiError(
            413,
            f"a body of at most {self._most / 1e6:,.6g} MB",
            "a larger one",
            "Cut out a smaller scene or leave bands out, or map it with `prithvi-hf predict`.",
        )

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Give the pieces.

        Raises:
            ApiError: If there are too many bytes, or they come too slowly.
        """
        if self._length.isdecimal() and (len(self._length) > 18 or int(self._length) > self._most):
            raise self._refuse_size()
        loop, count = asyncio.get_running_loop(), 0
        deadline = loop.time() + self._seconds
        while True:
            left = min(IDLE_SECONDS, deadline - loop.time())
            try:
                async with asyncio.timeout(max(left, 0)):
                    chunk = await anext(self._stream)
            except StopAsyncIteration:
                self.is_read = True
                return
            except TimeoutError as error:
                raise ApiError(
                    408,
                    f"the whole body within {self._seconds:g} seconds, and no pause of {IDLE_SECONDS:g}",
                    f"{count:,} bytes by then",
                    "Try again over a faster connection, or send less.",
                ) from error
            count += len(chunk)
            if count > self._most:
                raise self._refuse_size()
            if chunk:
                yield chunk

    async def drain(self) -> None:
        """Read what is left, up to a limit: some clients look for an answer only after they have sent everything."""
        count = 0
        try:
            async with asyncio.timeout(_DRAINED_SECONDS):
                while not self.is_read and count < _DRAINED_BYTES:
                    count += len(await anext(self._stream))
        except (StopAsyncIteration, ClientDisconnect, TimeoutError, RuntimeError, OSError):
            return


@dataclass
class Upload:
    """What a form held.

    Attributes:
        names: What the client calls the files.
        files: Where they are.
        options: Those of the job.
    """

    names: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    options: JobOptions = field(default_factory=JobOptions)


@dataclass
class _Part:
    """A part of a form that is being received."""

    headers: dict[str, bytes] = field(default_factory=dict)
    header_name: bytes = b""
    header_value: bytes = b""
    name: str = ""
    is_file: bool = False


async def read_form(body: Body, content_type: str, folder: Path, most_files: int) -> Upload:
    """Receive a form (multipart/form-data): files, in time order, and the field `options`, which is JSON.

    Args:
        body: Of the request.
        content_type: Its header.
        folder: Where the files go.
        most_files: That a job may have.

    Raises:
        ApiError: If the form is broken, or holds something else.
    """
    receiver = _Receiver(folder, most_files)
    try:
        boundary = parse_options_header(content_type)[1][b"boundary"]
        parser = MultipartParser(boundary, receiver.callbacks)
        async for chunk in body:
            parser.write(chunk)
            if receiver.waiting >= _WRITE_BYTES:
                await to_thread.run_sync(receiver.flush)
        parser.finalize()
        if not receiver.is_complete:
            raise FormParserError("its end is missing")
        await to_thread.run_sync(receiver.flush)
    except (FormParserError, KeyError) as error:
        raise ApiError(
            400,
            "a complete form (multipart/form-data)",
            "one without a boundary" if isinstance(error, KeyError) else f"a broken one ({error})",
            "Let a library make it, for example curl -F files=@scene.tif.",
        ) from error
    finally:
        receiver.close()
    if not receiver.upload.files:
        raise ApiError(
            422, "at least one file", "a form without files", "Add it, for example curl -F files=@scene.tif."
        )
    receiver.upload.options = read_json(receiver.options or b"{}", JobOptions)
    return receiver.upload


class _Receiver:
    """What becomes of the parts of a form, as the parser finds them."""

    def __init__(self, folder: Path, most_files: int) -> None:
        self._folder, self._most_files = folder, most_files
        self.upload, self.options = Upload(), b""
        self.waiting, self.is_complete = 0, False
        self._part = _Part()
        self._content: list[tuple[IO[bytes], bytearray]] = []  # of files, that is still to be written
        self._opened: list[IO[bytes]] = []
        self.callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_field": self._take_name,
            "on_header_value": self._take_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": self._take_data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._part = _Part()

    def _take_name(self, data: bytes, start: int, end: int) -> None:
        self._part.header_name += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header_value += data[start:end]

    def _end_header(self) -> None:
        part = self._part
        part.headers[part.header_name.decode("latin-1").lower()] = part.header_value
        part.header_name = part.header_value = b""

    def _open(self) -> None:
        """Begin with the content of a part: a file, or the options."""
        part = self._part
        disposition = parse_options_header(part.headers.get("content-disposition", b""))[1]
        part.name = disposition.get(b"name", b"").decode("utf-8", "replace")
        part.is_file = b"filename" in disposition
        if part.is_file:
            if len(self.upload.files) == self._most_files:
                raise ApiError(
                    422,
                    f"at most {self._most_files} files, one per date of the model",
                    "more",
                    "Send the frames of one scene; each is a GeoTIFF of all bands.",
                )
            number = len(self.upload.files) + 1
            path = self._folder / name_frame(number)
            self.upload.files.append(path)
            self.upload.names.append(clean_label(disposition[b"filename"].decode("utf-8", "replace"), number))
            self._opened.append(path.open("wb"))
            self._content.append((self._opened[-1], bytearray()))
        elif part.name != "options":
            raise ApiError(
                422,
                "files and the field options",
                f"the field {clean_label(part.name, 0)}",
                "Options go into one field, options, as JSON; files need a file name.",
            )

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.is_file:
            self._content[-1][1].extend(data[start:end])  # pieces may be of one byte: a list of them would be large
            self.waiting += end - start
        else:
            self.options += data[start:end]
            if len(self.options) > SMALL_BODY_BYTES:
                raise ApiError(
                    413, f"options of at most {SMALL_BODY_BYTES:,} bytes", "more", "Send files as files, with a name."
                )

    def _end(self) -> None:
        self.is_complete = True

    def flush(self) -> None:
        """Write what has come, in a thread that may wait for the disk."""
        for file, data in self._content:
            file.write(data)
        self._content, self.waiting = [(file, bytearray()) for file, _ in self._content[-1:]], 0
        if self.is_complete:
            self.close()

    def close(self) -> None:
        """Close the files."""
        while self._opened:
            self._opened.pop().close()


def read_json(content: bytes, schema: type[_Schema]) -> _Schema:
    """Read JSON of a schema.

    Raises:
        ApiError: If it is not JSON (400), or of another form (422).
    """
    try:
        return schema.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if first["type"] == "json_invalid":
            raise ApiError(400, "JSON", first["msg"][0].lower() + first["msg"][1:], "Correct it.") from error
        place = ".".join(map(str, first["loc"]))[:_LABEL_LENGTH]
        known = ", ".join(schema.model_fields)
        raise ApiError(
            422,
            f"the fields {known}, with values as /docs describes them",
            f"for {place}: {first['msg']}" if place else first["msg"],
            "Correct it.",
        ) from error


def clean_label(text: str, number: int) -> str:
    """Make a label of what a client calls a file: the end of a path, without what cannot be shown."""
    label = re.split(r"[/\\]", text)[-1]
    label = "".join(letter for letter in label if letter.isprintable())[-_LABEL_LENGTH:].strip()
    return label or f"frame {number}"


def name_frame(number: int) -> str:
    """Name the file of a frame on this server; nothing of it comes from a client."""
    return f"frame_{number:03d}.tif"


def check_content_type(content_type: str, limits: Limits) -> tuple[str, int]:
    """Tell a form from JSON, and how many bytes it may have.

    Raises:
        ApiError: If it is something else.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return kind, limits.upload_bytes + SMALL_BODY_BYTES
    if kind == "application/json":
        return kind, SMALL_BODY_BYTES
    raise ApiError(
        415,
        "multipart/form-data with files, or application/json with addresses",
        kind or "no Content-Type",
        "Send a form, for example curl -F files=@scene.tif.",
    )
