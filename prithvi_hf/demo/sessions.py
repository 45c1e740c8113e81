# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The visitors of the demo: a folder of files for each, which nobody else can name and which goes when they leave."""

import os
import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path


_NAME_BYTES = 80  # of a scene, as file systems count them


@dataclass
class Session:
    """One open page.

    Attributes:
        folder: Where its files are; the name cannot be guessed.
        frames: The files of the scene that was chosen.
        name: What the scene is called.
        dates: When the frames were acquired, where it is not in the names of the files.
        uploads: Where the server received files, which go with the session.
        stopped: Set when the visitor has stopped the run or left.
        used: The clock when something was last done for it.
        running: How many of its runs have not ended.
        closed: Whether the visitor has left.
    """

    folder: Path
    frames: tuple[Path, ...] = ()
    name: str = ""
    dates: tuple[str, ...] | None = None
    uploads: set[Path] = field(default_factory=set)
    stopped: threading.Event = field(default_factory=threading.Event)
    used: float = field(default_factory=time.monotonic)
    running: int = 0
    closed: bool = False

    def choose(self, frames: Sequence[Path], name: str, dates: Sequence[str] | None = None) -> None:
        """Take a scene, and make its name one that files can have; without frames take none."""
        self.name = name.encode()[:_NAME_BYTES].decode(errors="ignore").strip(" .-") or "scene"
        self.frames, self.dates = tuple(frames), None if dates is None else tuple(dates)

    def make_folder(self, kind: str) -> Path:
        """Make an empty folder for files of a kind, in place of the earlier ones of that kind."""
        for old in self.folder.glob(f"{kind}-*"):
            shutil.rmtree(old, ignore_errors=True)
        folder = self.folder / f"{kind}-{secrets.token_hex(4)}"
        folder.mkdir(parents=True)
        return folder


class Sessions:
    """All sessions, by the key of their page.

    Args:
        root: A folder of this server alone.
    """

    def __init__(self, root: str | os.PathLike) -> None:
        self.root = Path(root).resolve()
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def open(self, key: str) -> Session:
        """Give the session of a page, a new one where there is none."""
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                session = self._sessions[key] = Session(self.root / f"session-{secrets.token_hex(16)}")
                session.folder.mkdir(mode=0o700)
            session.used = time.monotonic()
            return session

    def find(self, key: str) -> Session | None:
        """Give the session of a page, None where there is none."""
        with self._lock:
            return self._sessions.get(key)

    def take(self, session: Session, uploads: Sequence[Path]) -> list[Path]:
        """Link uploads into a folder of the session, each in one of its own, so that no other file is beside it.

        The server names uploads by their content, so two visitors may have the same one: it stays for the other.

        Raises:
            FileNotFoundError: If an upload is gone.
        """
        with self._lock:
            session.uploads |= set(uploads)
        folder, frames = session.make_folder("scene"), []
        for number, upload in enumerate(uploads, start=1):
            frame = folder / str(number) / upload.name
            frame.parent.mkdir()
            try:
                os.link(upload, frame)
            except FileNotFoundError:
                raise
            except OSError:  # a file system without links
                shutil.copyfile(upload, frame)
            frames.append(frame)
        return frames

    def close(self, key: str) -> None:
        """End a session: its run stops and its files go."""
        with self._lock:
            session = self._sessions.pop(key, None)
            if session is None:
                return
            others = set[Path]().union(*(other.uploads for other in self._sessions.values()))
        session.closed = True
        session.stopped.set()
        shutil.rmtree(session.folder, ignore_errors=True)
        for upload in session.uploads - others:
            upload.unlink(missing_ok=True)
            with suppress(OSError):  # another upload is there
                upload.parent.rmdir()

    def sweep(self, seconds: float) -> None:
        """Close sessions that nothing was done for in that time, and delete uploads that have not come to their end.

        Programs, other than browsers, do not say that they leave.
        """
        with self._lock:
            now = time.monotonic()
            old = [key for key, one in self._sessions.items() if not one.running and now - one.used > seconds]
        for key in old:
            self.close(key)
        for path in self.root.iterdir():
            if path.is_file() and time.time() - path.stat().st_mtime > seconds:
                path.unlink(missing_ok=True)

    def close_all(self) -> None:
        """Close every session."""
        with self._lock:
            keys = list(self._sessions)
        for key in keys:
            self.close(key)
