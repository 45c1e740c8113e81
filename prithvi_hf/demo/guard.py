# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What a visitor may ask the server for: the page and its uploads, and nothing else that gradio offers."""

import os
import shutil
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any


# Gradio also forwards requests to other servers, converts videos and writes links: the page needs none of that.
_PAGES = ("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt", "/gradio_api/startup-events")
_FOLDERS = ("/assets/", "/static/", "/svelte/", "/gradio_api/heartbeat/", "/gradio_api/file=/")
_CALLS = ("info", "app_id", "upload", "upload_progress", "queue/join", "queue/data", "cancel", "reset")
_ALLOWED = {*_PAGES, *(f"/gradio_api/{call}" for call in _CALLS)}
_UPLOAD = "/gradio_api/upload"
_SPARE_BYTES = 2**30
_FORM_BYTES = 2**20  # what a request holds besides its files

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application before that of gradio: refuses what the page does not need, and uploads without room.

    Args:
        app: What answers the requests that are let through.
        folder: Where uploads go.
        max_upload_bytes: Of one request, all its files together.
    """

    def __init__(self, app: App, folder: str | os.PathLike, max_upload_bytes: int) -> None:
        self.app, self.folder, self.max_upload_bytes = app, folder, max_upload_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path not in _ALLOWED and not path.startswith(_FOLDERS):
            await _refuse(send, 404, "There is no such page here.")
        elif path == _UPLOAD:
            await self._upload(scope, receive, send)
        elif scope["method"] == "POST" and not 0 <= _read_length(scope) <= _FORM_BYTES:
            await _refuse(send, 413, f"Expected a request that states a length of at most {_FORM_BYTES} bytes.")
        else:
            await self.app(scope, receive, send)

    async def _upload(self, scope: Message, receive: Receive, send: Send) -> None:
        """Take an upload whose size is told and within the limit, and for which the disk has room."""
        size = _read_length(scope)
        if size < 0:
            await _refuse(send, 411, "Expected an upload that states its length.")
        elif size > self.max_upload_bytes + _FORM_BYTES:
            limit = f"{self.max_upload_bytes / 1e6:,.0f} MB"
            await _refuse(send, 413, f"Expected an upload of at most {limit}, found {size / 1e6:,.0f} MB.")
        elif shutil.disk_usage(self.folder).free < size + _SPARE_BYTES:
            await _refuse(send, 507, "The server has no room for more files at the moment: try again later.")
        else:
            await self.app(scope, receive, send)


def _read_length(scope: Message) -> int:
    """Read how many bytes a request states to have, -1 where it states none."""
    stated = dict(scope["headers"]).get(b"content-length", b"").decode("latin-1")
    return int(stated) if stated.isdecimal() and len(stated) < 20 else -1


async def _refuse(send: Send, status: int, text: str) -> None:
    """Answer with a text."""
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
