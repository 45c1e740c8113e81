# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Folders that are written to: whether they can be, and whether a write failed because the disk is full."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_TORCH_SAVE = ("basic_ios::clear", "PytorchStreamWriter failed writing", "] . unexpected pos ")


def check_writable_folder(folder: str | Path, purpose: str) -> None:
    """Raise unless a folder can be written to, or can be made and written to; nothing is made.

    Args:
        folder (`str` or `Path`): The folder; it need not exist.
        purpose (`str`): What it is for, as the message shall name it.

    Raises:
        NotADirectoryError: It is a file or lies below one.
        PermissionError: It, or the folder that it would be made in, takes no files.
    """
    path = Path(folder).absolute()
    existing = next(part for part in (path, *path.parents) if os.path.lexists(part))
    if not existing.is_dir():
        raise NotADirectoryError(
            f"Expected {purpose} {folder} to be a folder that can be written, found that {existing} is no folder. "
            "Choose another name."
        )
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise PermissionError(
            f"Expected {purpose} {folder} to be a folder that can be written, found that {existing} takes no file "
            f"({error.strerror}). Choose another folder, or have its permissions or its mount changed."
        ) from error


def no_room_left(error: BaseException) -> bool:
    """Whether an error is, or was caused by, a write for which the disk, a quota or a limit on files left no room.

    Besides the system's own errors these are those of safetensors, which holds the system's text, and of torch.save,
    whose writer says no more than that less was written than it gave.

    Args:
        error (`BaseException`): The error.
    """
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return True
    kind, text = type(error).__name__, str(error)
    if kind == "SafetensorError" and any(f"(os error {number})" in text for number in _NO_ROOM):
        return True
    # What torch's reader finds in a damaged file is "failed reading" or "failed finding".
    if type(error) is RuntimeError and any(part in text for part in _TORCH_SAVE):
        return True
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return cause is not None and no_room_left(cause)


@contextmanager
def naming_a_full_disk(folder: str | Path, remedy: str) -> Iterator[None]:
    """Turn an error of the block that says no room was left into one that names the folder and a remedy.

    Args:
        folder (`str` or `Path`): The folder that is written to.
        remedy (`str`): What to do then.

    Raises:
        OSError: No room was left; other errors pass as they are.
    """
    try:
        yield
    except Exception as error:
        if not no_room_left(error):
            raise
        raise OSError(f"{no_room_message(folder, error)} {remedy}") from error


def no_room_message(folder: str | Path, error: BaseException) -> str:
    """One line about a write that found no room, without a remedy.

    Args:
        folder (`str` or `Path`): The folder that was written to.
        error (`BaseException`): The error.
    """
    reason = " ".join(str(error).split())
    return f"Expected room for the files in {folder}, found the disk full or a limit on files reached ({reason})."


__all__ = ["check_writable_folder", "naming_a_full_disk", "no_room_left", "no_room_message"]
