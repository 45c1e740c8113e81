# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Folders that are written to: whether they can be, all at once, and whether the disk was full; names of files."""

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


LONGEST_NAME = 120  # bytes, of `plain_name`: outputs add a suffix, and file systems end at 255
_DISK_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)  # the disk, a limit on files, a quota
_TORCH_SAVE = ("basic_ios::clear", "PytorchStreamWriter failed writing", "] . unexpected pos ")


def check_writable_folder(folder: str | Path, purpose: str) -> None:
    """Raise unless a folder can be written to, or can be made and written to; nothing is made.

    Args:
        folder: The folder; it need not exist.
        purpose: What it is for, as the message is to name it.

    Raises:
        NotADirectoryError: If it is a file or below one.
        PermissionError: If it, or the folder that it would be made in, takes no files.
    """
    existing = Path(folder).absolute()
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        raise NotADirectoryError(
            f"Expected {purpose} {folder} to be a folder that can be written, found that {existing} is not a folder. "
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


def check_new_folder(folder: str | Path) -> None:
    """Raise unless a folder is new or empty, and can be written to; nothing is made.

    Raises:
        ValueError: If there are files in it, or it is a file.
        OSError: As `check_writable_folder` does.
    """
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"Expected {path} to be a new or empty folder, found files there. Choose another name.")
    check_writable_folder(path, "the output folder")


def is_disk_full(error: BaseException) -> bool:
    """Tell whether an error is, or was caused by, a write for which the disk, a quota or a limit on files had no room.

    Besides the system's own errors these are those of safetensors, which holds the system's text, and of torch.save,
    whose writer says no more than that less was written than it gave.
    """
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return True
    text = str(error)
    if type(error).__name__ == "SafetensorError" and any(f"(os error {number})" in text for number in _DISK_FULL):
        return True
    # What torch's reader finds in a damaged file is "failed reading" or "failed finding".
    if type(error) is RuntimeError and any(part in text for part in _TORCH_SAVE):
        return True
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return cause is not None and is_disk_full(cause)


def describe_disk_full(folder: str | Path, error: BaseException) -> str:
    """Say in one line, without a remedy, that a write to a folder found no room."""
    reason = " ".join(str(error).split())
    return f"Expected room for the files in {folder}, found the disk full or a limit on files reached ({reason})."


@contextmanager
def explain_disk_full(folder: str | Path, remedy: str) -> Iterator[None]:
    """Turn an error of the block that says that the disk is full into an OSError that names folder and remedy."""
    try:
        yield
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise OSError(f"{describe_disk_full(folder, error)} {remedy}") from error


@contextmanager
def write_folder(output_dir: str | Path) -> Iterator[Path]:
    """Give a hidden folder to write a model to, then bring it to its place: the model is whole or not there.

    Args:
        output_dir: A new or empty folder.

    Raises:
        OSError: The disk is full, or another process wrote there meanwhile. Nothing is left behind.
    """
    output_dir = Path(output_dir).resolve()
    # Beside the wanted folder or, where that is another disk or takes no files, inside it.
    inside = output_dir.is_dir() and (os.path.ismount(output_dir) or not os.access(output_dir.parent, os.W_OK))
    lost_race = FileExistsError(
        f"Expected {output_dir} to be empty still, found that another process wrote there meanwhile. Look "
        "at what it holds, or choose another folder."
    )
    with explain_disk_full(output_dir, "Free space or choose another disk; nothing was written."):
        output_dir.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{output_dir.name}-",
            dir=output_dir if inside else output_dir.parent,
            ignore_cleanup_errors=True,
        ) as folder:
            staging = Path(folder) / output_dir.name
            staging.mkdir(mode=0o755)
            yield staging
            # What this process or its shell stands in stays.
            if not inside and not (output_dir.is_dir() and output_dir.samefile(os.curdir)):
                try:
                    if output_dir.is_dir():
                        output_dir.rmdir()
                    staging.replace(output_dir)
                    return
                except OSError as error:
                    if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                        raise lost_race from error
                    if error.errno != errno.EBUSY:  # a mount point, which can be neither removed nor replaced
                        raise
            # Move the files one by one; the last is config.json, without which the folder is not a model.
            if any(path != staging.parent for path in output_dir.iterdir()):
                raise lost_race
            moved: list[Path] = []
            try:
                for path in sorted(staging.iterdir(), key=lambda path: (path.name == "config.json", path.name)):
                    moved.append(output_dir / path.name)
                    shutil.move(path, moved[-1])
            except BaseException:
                for target in moved:
                    target.unlink(missing_ok=True)
                raise


def plain_name(text: str) -> str:
    """Make a file name of any text: letters, digits, `_`, `-` and `.`, not hidden, at most 120 bytes."""
    name = re.sub(r"[^\w.-]+", "_", text).lstrip(".-") or "scene"
    if len(name.encode()) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name.encode()[: LONGEST_NAME - 9].decode(errors='ignore')}-{digest}"
