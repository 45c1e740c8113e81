# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Finished strips of a map in the making, kept beside the output until the map is complete.

A strip is a file of its own, which gets its name by one rename: a run that is killed at any moment leaves whole strips
and at most one temporary file. The folder also holds the plan, which says of what the strips are made: strips of
another plan are never used.

One tiled GeoTIFF for all strips would save the last pass a copy, but tiles do not end where strips do. Measured with
GDAL 3.10 and strips of 112 rows: of two processes that write alternate strips, 4 to 8 of 19 strips are lost, each
process writing the other's rows back as they were before; with compression rewritten tiles make the file 3.4 times as
large. Files of their own need neither locks nor a journal, and each array has its checksum.
"""

import errno
import json
import os
import shutil
import socket
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from filelock import BaseFileLock, FileLock, Timeout
from transformers.utils import logging

from prithvi_hf.disk import explain_disk_full


logger = logging.get_logger(__name__)

_PLAN, _LOCK, _GROUP, _PUBLISHED, _FINAL = "plan.json", "lock", "group.json", "published.json", "final"
_STRIPS = "strip_[0-9]*.npz"
_OWN_FILES = (_STRIPS, _GROUP, _PUBLISHED, _PLAN)  # in the order in which they go: strips before what describes them
_NAMES = "_names"  # lists a strip's arrays, so that a damaged table of contents does not make it seem to have fewer
REMEDY = "Free some space and run the same command again: finished strips are kept and not computed again."


class BusyOutputError(OSError):
    """Another run writes the same output at this moment."""


class DamagedStripError(OSError):
    """A staged strip is gone or is not what was committed."""


def staging_folder(output: str | os.PathLike) -> Path:
    """Name the staging folder of an output: beside it, so that the finished map gets its name by one rename."""
    output = Path(output)
    return output.with_name(f".{output.name}.partial")


def as_text(plan: object) -> str:
    """Write a plan as text, for comparison: a nodata value that is not a number does not equal itself."""
    return json.dumps(plan, sort_keys=True)


def published_outputs(output: str | os.PathLike) -> list[str]:
    """List the outputs that an interrupted run of this map was giving their names when it was stopped.

    They come from the run that is to be continued, so continuing it replaces no file of anyone else's.
    """
    names = _read_json(staging_folder(output) / _PUBLISHED)
    return names if isinstance(names, list) else []


class Staging:
    """The staging folder of one map, held by one run, which may be of several processes that share a file system.

    Use it in a `with` statement: entering makes or takes over the folder, leaving gives up the lock and removes a
    folder without a finished strip. Strips that were finished before under an equal `plan`, which describes everything
    that decides their content, stay, unless `resume` is False. In a run of several processes call `prepare` in place
    of entering, `join` when all have done so, and `close` at the end.
    """

    def __init__(
        self,
        output: str | os.PathLike,
        plan: Mapping[str, Any],
        count: int,
        *,
        resume: bool = True,
        index: int = 0,
        processes: int = 1,
    ) -> None:
        self.output = Path(output)
        self.folder = staging_folder(output)
        self.final_folder = self.folder / _FINAL  # for the last pass; what is there was left by one that was killed
        self.plan = json.loads(json.dumps(plan))  # as it is when it is read back: tuples become lists
        self.count = count
        self.resumed = 0  # strips that were there when the run began, known to the first process
        self.missing: list[int] = []  # strips that were not, known once the folder is prepared and joined
        self.index, self._resume, self._processes = index, resume, processes
        self._verified: set[int] = set()
        self._lock: BaseFileLock | None = None

    def __enter__(self) -> Self:
        self.prepare()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(self) -> None:
        """Make the folder or take it over, as the first process of a run; the others do nothing."""
        if self.index > 0:
            return
        with explain_disk_full(self.folder, "Free some space."):
            self._lock = _acquire(self.folder, _LOCK, self.output)
            try:
                for path in sorted(self.folder.glob(f"{_LOCK}.*")):  # of a run whose first process alone was killed
                    _acquire(self.folder, path.name, self.output).release()
                shutil.rmtree(self.final_folder, ignore_errors=True)
                (self.folder / _GROUP).unlink(missing_ok=True)  # the others take its presence for this one's word
                found = _read_json(self.folder / _PLAN)
                if self._resume and as_text(found) == as_text(self.plan):
                    self._clear(".tmp")  # of a run that was killed
                else:
                    if self._resume and self._strips():
                        names = _find_differences(found, self.plan) if isinstance(found, dict) else []
                        difference = f"other {', '.join(names)}" if names else "its plan is missing or damaged"
                        warnings.warn(
                            f"The strips in {self.folder} belong to another run ({difference}): they are removed, and "
                            "the map is computed from the beginning.",
                            stacklevel=3,
                        )
                    self._clear()
                    _write_json(self.folder / _PLAN, self.plan)
                self.missing = self.remaining()
                self.resumed = self.count - len(self.missing)
                if self.resumed:
                    logger.info("%s continues with %d of %d strips done.", self.output, self.resumed, self.count)
                if self._processes > 1:
                    _write_json(self.folder / _GROUP, self.missing)
            except BaseException:
                self._lock.release()
                self._lock = None
                raise

    def join(self) -> None:
        """Enter the folder that the first process has prepared; that one does nothing."""
        if self.index == 0:
            return
        same = as_text(_read_json(self.folder / _PLAN)) == as_text(self.plan)
        missing = _read_json(self.folder / _GROUP)
        if not same or not isinstance(missing, list):
            raise OSError(
                f"Expected the plan of this run in {self.folder}, found another or none: the first process could not "
                "prepare the folder (see its message), or the processes do not share a file system or differ in "
                "their options."
            )
        self._lock = _acquire(self.folder, f"{_LOCK}.{self.index}", self.output)
        self.missing = missing

    def close(self) -> None:
        """Give up the lock; a folder that holds no strip goes, unless other processes may be at work in it."""
        if self._lock is None:
            return
        if self._processes == 1 and self.folder.is_dir() and not self._strips():
            self.remove()
        self._lock.release()
        self._lock = None

    def commit(self, index: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep a finished strip; it is there whole or not at all, whatever happens."""
        with explain_disk_full(self.folder, REMEDY), _write_atomically(self._path(index)) as file:
            np.savez(file, allow_pickle=False, **arrays, **{_NAMES: np.array(list(arrays))})
        self._verified.add(index)

    def load(self, index: int, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Read arrays of a strip back, all where `names` is None; their checksums are verified.

        A damaged strip is removed, so that the next run computes it again, and is a DamagedStripError.
        """
        path = self._path(index)
        try:
            with np.load(path, allow_pickle=False) as archive:
                wanted = archive[_NAMES].tolist() if names is None else names
                return {name: archive[name] for name in wanted}
        except Exception as error:  # for bytes that were changed, zipfile and numpy raise a dozen kinds of errors
            self._verified.discard(index)
            path.unlink(missing_ok=True)
            raise DamagedStripError(
                f"Expected strip {index} of {self.output} in {path}, found it missing or damaged ({error}): run the "
                "same command again, which computes this strip again."
            ) from error

    def remaining(self) -> list[int]:
        """List the strips that are not done, in order; those found on disk are read once, and damaged ones removed."""
        for index in range(self.count):
            if index in self._verified or not self._path(index).exists():
                continue
            try:
                for name in self.load(index, [_NAMES])[_NAMES].tolist():
                    self.load(index, [name])  # one at a time, to spare memory
            except DamagedStripError as error:
                logger.warning("%s It is computed again now.", error)
            else:
                self._verified.add(index)
        return [index for index in range(self.count) if index not in self._verified]

    def kept(self) -> int:
        """Count the strips that the next run finds, as far as this run holds the folder; else 0."""
        return len(self._strips()) if self._lock is not None and self.folder.is_dir() else 0

    def assigned(self) -> list[int]:
        """List the strips that this process has to compute: a contiguous part of what was missing at the beginning."""
        first, last = (len(self.missing) * rank // self._processes for rank in (self.index, self.index + 1))
        return self.missing[first:last]

    def note_outputs(self, paths: Iterable[str | os.PathLike]) -> None:
        """Note that the outputs are about to get their names, see [`published_outputs`]."""
        _write_json(self.folder / _PUBLISHED, [os.path.realpath(path) for path in paths])

    def remove(self) -> None:
        """Remove the folder: the map is complete, or nothing was begun. Files of others in it stay."""
        shutil.rmtree(self.final_folder, ignore_errors=True)
        self._clear()
        self._verified.clear()
        for path in self.folder.glob(f"{_LOCK}*"):
            path.unlink(missing_ok=True)
        try:
            self.folder.rmdir()
        except OSError as error:
            logger.warning("The folder %s is no longer needed but could not be removed (%s).", self.folder, error)

    def _path(self, index: int) -> Path:
        return self.folder / f"strip_{index:06d}.npz"

    def _strips(self) -> list[Path]:
        """List the files of strips."""
        return list(self.folder.glob(_STRIPS))

    def _clear(self, *endings: str) -> None:
        """Remove what runs leave in the folder, and nothing else; with an ending, only files that have it as well."""
        for name in _OWN_FILES:
            for ending in endings or ("", ".tmp"):
                for path in self.folder.glob(name + ending):
                    path.unlink(missing_ok=True)


def _acquire(folder: Path, name: str, output: Path) -> BaseFileLock:
    """Lock a file of the folder, which is made where it is missing, or say who has it; it ends with the process."""
    path, lock = folder / name, FileLock(folder / name, timeout=0, thread_local=False)
    while not lock.is_locked:
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise OSError(f"Expected {folder} to be a folder for unfinished strips, found a file or link: remove it.")
        folder.mkdir(exist_ok=True)
        try:
            lock.acquire()
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        except FileNotFoundError:
            lock.release()  # a run that ended just now has removed the folder
        except Timeout as error:
            if not path.exists():
                continue  # likewise
            owner = path.read_text(encoding="utf-8") if path.exists() else ""
            raise BusyOutputError(
                f"Expected to be the only run that writes {output}, found another one at work ({owner or 'unknown'})"
                ": wait for it to end, or choose another output."
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
                raise
            logger.warning_once(
                f"The file system of {folder.parent} has no locks ({error.strerror}): do not write the same output by "
                "two runs at once."
            )
            break
    return lock


def _find_differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Name the entries, of two levels, in which two plans differ."""
    names = []
    for key in sorted({*found, *expected}):
        old, new = found.get(key), expected.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            names += [f"{key}.{name}" for name in _find_differences(old, new)]
        elif as_text(old) != as_text(new):
            names.append(key)
    return names


@contextmanager
def _write_atomically(path: Path) -> Iterator[IO[bytes]]:
    """Lend a file that is brought to the disk and renamed to `path` at the end; a failure leaves nothing."""
    part = path.with_name(f"{path.name}.tmp")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _write_json(path: Path, value: object) -> None:
    """Write JSON atomically."""
    with _write_atomically(path) as file:
        file.write(json.dumps(value, indent=1, sort_keys=True).encode())


def _read_json(path: Path) -> Any:
    """Read JSON; None where there is none or it is damaged, which means the same here: nothing to go by."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
