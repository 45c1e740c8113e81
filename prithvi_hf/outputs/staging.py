# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Finished strips of a map in the making, kept beside the output until the map is complete.

A strip is committed by one rename, so a run that is killed at any moment leaves whole strips and at most one temporary
file. The folder also holds the plan, which says of what the strips are made: strips of another plan are never used.
"""

import json
import os
import re
import shutil
import socket
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from transformers.utils import logging

from prithvi_hf.disk import explain_disk_full


try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

logger = logging.get_logger(__name__)

_PLAN, _LOCK, _GROUP, _PUBLISHED, _FINAL = "plan.json", "lock", "group.json", "published.json", "final"
_STRIP_NAME = re.compile(r"strip_\d+\.npz")
_OWN_FILES = re.compile(r"(strip_\d+\.npz|plan\.json|group\.json|published\.json)(\.tmp)?")
_NAMES = "_names"  # lists a strip's arrays, so that a damaged table of contents does not make it seem to have fewer
_REMEDY = "Free some space and run the same command again: finished strips are kept and not computed again."
# What zipfile and numpy raise on bytes that were changed, whichever they are.
_DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    RuntimeError,
    MemoryError,
    OverflowError,
    SyntaxError,
    TypeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


class BusyOutputError(OSError):
    """Another run writes the same output at this moment."""


class DamagedStripError(OSError):
    """A staged strip is gone or is not what was committed."""


def staging_folder(output: str | os.PathLike) -> Path:
    """Name the staging folder of an output.

    Args:
        output: The map to be written.

    Returns:
        A hidden folder beside it: on the same file system, so that the finished map gets its name by one rename.
    """
    output = Path(output)
    return output.with_name(f".{output.name}.partial")


def as_text(plan: Any) -> str:
    """Write a plan as text, for comparison: a nodata value that is not a number does not equal itself."""
    return json.dumps(plan, sort_keys=True)


def published_outputs(output: str | os.PathLike) -> list[str]:
    """List outputs that an interrupted run was giving their names when it was stopped.

    Args:
        output: The map.

    Returns:
        Their paths as text. They come from the run that is to be continued, so that continuing it replaces no file
        of anyone else's.
    """
    names = _read_json(staging_folder(output) / _PUBLISHED)
    return names if isinstance(names, list) else []


class Staging:
    """The staging folder of one map, held by one run, which may be of several processes.

    Use it in a `with` statement: entering makes or takes over the folder, leaving gives up the lock and removes a
    folder without a finished strip. Strips that were finished before stay. In a run of several processes call
    `prepare` in place of entering, `join` when all have done so, and `close` at the end.

    Args:
        output: The map to be written.
        plan: JSON-like description of everything that decides the strips' content.
        count: Number of strips.
        resume: Whether strips of the same plan are used; False removes them.
        process_index: Number of this process in the run, from 0.
        num_processes: Processes of the run; they share a file system.

    Attributes:
        folder: The staging folder.
        resumed: Strips that were there when the run began, known to the first process.
    """

    def __init__(
        self,
        output: str | os.PathLike,
        plan: Mapping[str, Any],
        count: int,
        *,
        resume: bool = True,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.output = Path(output)
        self.folder = staging_folder(output)
        self.plan = json.loads(json.dumps(plan))  # as it is when it is read back: tuples become lists
        self.count = count
        self.resumed = 0
        self._resume, self._index, self._processes = resume, process_index, num_processes
        self._verified: set[int] = set()
        self._lock: IO[str] | None = None

    def __enter__(self) -> "Staging":
        self.prepare()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def prepare(self) -> None:
        """Make the folder or take it over, as the first process of a run; the others do nothing.

        Raises:
            BusyOutputError: If another run holds it.
            OSError: If it cannot be made or written, or it is something else than a staging folder.
        """
        if self._index > 0:
            return
        try:
            with explain_disk_full(self.folder, "Free some space."):
                self._lock = _locked(self.folder, _LOCK, self.output)
                self._take_over()
        except BaseException:
            self._release()
            raise

    def join(self) -> None:
        """Enter the folder that the first process has prepared; that one does nothing.

        Raises:
            OSError: If it is not prepared for this run.
        """
        if self._index == 0:
            return
        same = as_text(_read_json(self.folder / _PLAN)) == as_text(self.plan)
        if not same or not isinstance(_read_json(self.folder / _GROUP), list):
            raise OSError(
                f"Expected the plan of this run in {self.folder}, found another or none: the first process could not "
                "prepare the folder (see its message), or the processes do not share a file system or differ in "
                "their options."
            )
        self._lock = _locked(self.folder, f"{_LOCK}.{self._index}", self.output)

    def close(self) -> None:
        """Give up the lock; a folder that holds no strip goes, unless other processes may be at work in it."""
        if self._lock is None:
            return
        if self._processes == 1 and self.folder.is_dir() and not self._strips():
            self.remove()
        self._release()

    def kept(self) -> int:
        """Count the strips that the next run finds, as far as this run holds the folder; else 0."""
        return len(self._strips()) if self._lock is not None and self.folder.is_dir() else 0

    def commit(self, index: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep a finished strip; it is there whole or not at all, whatever happens.

        Args:
            index: Number of the strip, from 0.
            arrays: What it is made of, by name.

        Raises:
            OSError: If it cannot be written, for example because the disk is full.
        """
        with explain_disk_full(self.folder, _REMEDY):
            _write_atomically(self._path(index), lambda file: np.savez(file, **arrays, **{_NAMES: list(arrays)}))
        self._verified.add(index)

    def load(self, index: int, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Read a strip back; the checksums of what is read are verified.

        Args:
            index: Number of the strip.
            names: Which arrays; None for all.

        Returns:
            The arrays by name.

        Raises:
            DamagedStripError: If the strip is missing or damaged. A damaged one is removed, so that the next run
                computes it again.
        """
        path = self._path(index)
        try:
            with np.load(path, allow_pickle=False) as archive:
                wanted = archive[_NAMES].tolist() if names is None else names
                return {name: archive[name] for name in wanted}
        except _DAMAGE as error:
            self._verified.discard(index)
            _unlink(path)
            raise DamagedStripError(
                f"Expected strip {index} of {self.output} in {path}, found it missing or damaged ({error}): run the "
                "same command again, which computes this strip anew."
            ) from error

    def is_done(self, index: int) -> bool:
        """Whether a strip is there and undamaged; a damaged one counts as not done and is removed.

        Args:
            index: Number of the strip.
        """
        if index in self._verified:
            return True
        if not self._path(index).exists():
            return False
        try:
            for name in self.load(index, [_NAMES])[_NAMES].tolist():
                self.load(index, [name])  # one at a time, to spare memory
        except DamagedStripError as error:
            logger.warning("%s It is computed again now.", error)
            return False
        self._verified.add(index)
        return True

    def remaining(self) -> list[int]:
        """List the strips that are not done, in order; strips found on disk are read once to make sure of them."""
        return [index for index in range(self.count) if not self.is_done(index)]

    def missing(self) -> list[int]:
        """List the strips that are not there, in order, without reading those that are."""
        found = {path.name for path in self._strips()}
        return [index for index in range(self.count) if self._path(index).name not in found]

    def share(self) -> list[int]:
        """List the strips that this process has to compute: a contiguous part of what was missing at the beginning.

        Returns:
            Numbers of strips in order; no two processes of the run get the same.
        """
        if self._processes == 1:
            return self.remaining()
        missing = _read_json(self.folder / _GROUP)
        first, last = (len(missing) * rank // self._processes for rank in (self._index, self._index + 1))
        return missing[first:last]

    @property
    def final_folder(self) -> Path:
        """Folder for the files of the last pass. What is there was left by a pass that was interrupted."""
        return self.folder / _FINAL

    def note_outputs(self, paths: Iterable[str | os.PathLike]) -> None:
        """Note that the outputs are about to get their names, see [`published_outputs`].

        Args:
            paths: All outputs.
        """
        _write_json(self.folder / _PUBLISHED, [os.path.realpath(path) for path in paths])

    def remove(self) -> None:
        """Remove the folder: the map is complete, or nothing was begun. Files of others in it stay."""
        self._clear()
        for path in self.folder.glob(f"{_LOCK}*"):
            _unlink(path)
        try:
            self.folder.rmdir()
        except OSError as error:
            logger.warning("The folder %s is no longer needed but could not be removed (%s).", self.folder, error)

    def _path(self, index: int) -> Path:
        """Name the file of a strip."""
        return self.folder / f"strip_{index:06d}.npz"

    def _strips(self) -> list[Path]:
        """List the files of strips."""
        return [path for path in self.folder.iterdir() if _STRIP_NAME.fullmatch(path.name)]

    def _take_over(self) -> None:
        """Clean up after the run before, keep its strips if they are of this plan, and say what is missing."""
        for path in sorted(self.folder.glob(f"{_LOCK}.*")):  # of the other processes of a run whose first one died
            _locked(self.folder, path.name, self.output).close()
        _unlink(self.folder / _GROUP)  # the others take its presence for this process's word
        self._keep_own_strips()
        for path in self.folder.glob("*.tmp"):
            if _OWN_FILES.fullmatch(path.name):
                path.unlink()
        missing = self.remaining()
        self.resumed = self.count - len(missing)
        if self.resumed:
            logger.info("%s goes on with %d of %d strips done.", self.output, self.resumed, self.count)
        if self._processes > 1:
            _write_json(self.folder / _GROUP, missing)

    def _keep_own_strips(self) -> None:
        """Remove strips of another plan and write this one."""
        found = _read_json(self.folder / _PLAN)
        if self._resume and as_text(found) == as_text(self.plan):
            return
        if self._resume and self._strips():
            warnings.warn(
                f"The strips in {self.folder} belong to another run ({_difference(found, self.plan)}): they are "
                "removed, and the map is computed from the beginning.",
                stacklevel=5,
            )
        self._clear()
        _write_json(self.folder / _PLAN, self.plan)

    def _clear(self) -> None:
        """Remove what runs leave in the folder, and nothing else; strips go before the plan that describes them."""
        shutil.rmtree(self.final_folder, ignore_errors=True)
        own = [path for path in self.folder.iterdir() if _OWN_FILES.fullmatch(path.name)]
        for path in sorted(own, key=lambda path: path.name == _PLAN):
            _unlink(path)
        self._verified.clear()

    def _release(self) -> None:
        """Give up the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _locked(folder: Path, name: str, output: Path) -> IO[str]:
    """Open and lock a file of the folder, which is made where it is missing; the lock ends with the process."""
    while True:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise OSError(f"Expected {folder} to be a folder for unfinished strips, found a file or link: remove it.")
        folder.mkdir(exist_ok=True)
        try:
            file = (folder / name).open("a+", encoding="utf-8")
        except FileNotFoundError:
            continue  # a run that ended just now has removed the folder
        try:
            _lock(file, output)
            if _is_same(file, folder / name):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}")
                file.flush()
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: IO[str], output: Path) -> None:
    """Lock an open file, or say who has it."""
    if fcntl is None:
        logger.warning_once("This system has no file locks: do not write the same output by two runs at once.")
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        raise BusyOutputError(
            f"Expected to be the only run that writes {output}, found another one at work ({file.read() or 'unknown'})"
            ": wait for it to end, or choose another output."
        ) from error
    except OSError as error:
        logger.warning_once(
            f"The file system of {output.parent} has no locks ({error.strerror}): do not write the same output by two "
            "runs at once."
        )


def _is_same(file: IO[str], path: Path) -> bool:
    """Whether an open file still has its name: its folder may have been removed before it was locked."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file under a temporary name, bring it to the disk and rename it; a failure leaves nothing."""
    part = path.with_name(f"{path.name}.tmp")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        _unlink(part)
        raise


def _write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    _write_atomically(path, lambda file: file.write(json.dumps(value, indent=1, sort_keys=True).encode()))


def _read_json(path: Path) -> Any:
    """Read JSON; None where there is none or it is damaged, which means the same here: nothing to go by."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _difference(found: Any, expected: Mapping[str, Any]) -> str:
    """Name the parts of two plans that differ."""
    if not isinstance(found, dict):
        return "its plan is missing or damaged"
    names = []
    for key in sorted(set(found) | set(expected)):
        old, new = found.get(key), expected.get(key)
        if as_text(old) == as_text(new):
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            both = sorted(set(old) | set(new))
            names += [f"{key}.{name}" for name in both if as_text(old.get(name)) != as_text(new.get(name))]
        else:
            names.append(key)
    return f"other {', '.join(names)}"


def _unlink(path: Path) -> None:
    """Remove a file if it is there."""
    path.unlink(missing_ok=True)


__all__ = ["BusyOutputError", "DamagedStripError", "Staging", "as_text", "published_outputs", "staging_folder"]
