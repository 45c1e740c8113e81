# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Extraction of archives that somebody else packed: regular files inside the target folder, and nothing else."""

import bz2
import gzip
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from datasets.utils import tqdm


ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar", ".zip")
"""Endings of the archives that [`extract_archive`] knows."""

# An archive may unpack to this much whatever its size, and beyond that to this many times its own size. Imagery packs
# at most tenfold; a bomb of zeros reaches a thousandfold in gzip.
MAX_UNBACKED_BYTES = 256 * 2**20
MAX_EXPANSION = 100
MAX_MEMBERS = 1_000_000

_CHUNK = 2**20
_OPENERS = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError)
_MACOS_FOLDER = "__MACOSX"


class ArchiveError(ValueError):
    """An archive that is damaged, or that must not be extracted; the message names it and the remedy."""


def inner_parts(name: str) -> list[str] | None:
    """Splits a path that somebody else chose into its parts; None when it leads, or may lead, out of its folder."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    outside = name.startswith(("/", "\\")) or ".." in parts or any(":" in part or "\0" in part for part in parts)
    return None if outside else parts


def is_hidden(parts: Sequence[str]) -> bool:
    """Whether a path is a hidden file or lies in a hidden folder, as the side files of macOS do."""
    return _MACOS_FOLDER in parts or any(part.startswith(".") for part in parts)


def extract_archive(archive: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Extracts the regular files of an archive into a folder.

    Hidden files, and with them the `._*` copies of macOS, are left out. Sizes are counted as bytes come out, for the
    sizes that an archive states may be lies. What is written before an error stays: extract into a folder that is
    thrown away then.

    Args:
        archive (`str` or `os.PathLike`): a .zip, or a .tar, plain or compressed with gzip, bzip2 or xz.
        folder (`str` or `os.PathLike`): an existing folder.

    Raises:
        ArchiveError: a damaged or truncated archive, an unknown format, a member that is no regular file or leads out
            of the folder, two members of one name, or far more content than an archive of its size can hold.
        OSError: the disk is full, or cannot be written.
    """
    name, size = os.fspath(archive), os.path.getsize(archive)
    budget = _Budget(name, max(MAX_UNBACKED_BYTES, MAX_EXPANSION * size))
    look = {"total": size, "unit": "B", "unit_scale": True, "disable": None}
    try:
        with open(archive, "rb") as file, tqdm(desc=f"Extracting {os.path.basename(name)}", **look) as bar:
            members = _zip_members if file.read(2) == b"PK" else _tar_members
            file.seek(0)
            for member, source in members(_Watched(file, bar), budget):
                _write(member, source, Path(folder), budget)
    except _DAMAGE as error:
        raise ArchiveError(
            f"{name}: expected a whole archive, found it damaged or cut off ({str(error) or type(error).__name__}). "
            "Download it again."
        ) from error


class _Budget:
    """What an archive may still unpack to."""

    def __init__(self, name: str, allowed: int) -> None:
        self.name, self.allowed, self.spent, self.members = name, allowed, 0, 0

    def spend(self, count: int) -> None:
        self.spent += count
        if self.spent > self.allowed:
            raise ArchiveError(
                f"{self.name}: expected at most {self.allowed:,} bytes of content for an archive of its size, found "
                "more, which is not credible. Do not use this archive; if you trust it, raise "
                "prithvi_hf.data.archives.MAX_EXPANSION."
            )

    def count_member(self) -> None:
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise ArchiveError(f"{self.name}: expected at most {MAX_MEMBERS:,} files, found more. Do not use it.")


class _Watched:
    """A file whose reading moves a progress bar."""

    def __init__(self, file: BinaryIO, bar: tqdm) -> None:
        self._file, self._bar = file, bar

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self._bar.update(len(content))
        return content

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


class _Metered:
    """A decompressed stream whose every byte is counted, headers and skipped members included."""

    def __init__(self, stream: BinaryIO, budget: _Budget) -> None:
        self._stream, self._budget = stream, budget

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size)
        self._budget.spend(len(content))
        return content


def _tar_members(file: BinaryIO, budget: _Budget) -> Iterator[tuple[str, BinaryIO]]:
    start = file.read(2)
    file.seek(0)
    stream = _Metered(_OPENERS.get(start, lambda plain: plain)(file), budget)
    # "r|" reads forward only, block by block: even a header that claims gigabytes is met by the budget first.
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            budget.count_member()
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise ArchiveError(
                    f"{budget.name}: expected regular files, found {member.name!r}, a link, device or sparse file. Do "
                    "not extract this archive; download it from its publisher."
                )
            yield member.name, tar.extractfile(member)
    # The checksum stands at the end of a compressed stream, behind the archive's own end.
    while stream.read(_CHUNK):
        pass


def _zip_members(file: BinaryIO, budget: _Budget) -> Iterator[tuple[str, BinaryIO]]:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            budget.count_member()
            if member.is_dir():
                continue
            kind = member.external_attr >> 16 & 0o170000
            if kind not in (0, 0o100000) or member.flag_bits & 1:
                raise ArchiveError(
                    f"{budget.name}: expected regular files without password, found {member.filename!r}. Do not "
                    "extract this archive; download it from its publisher."
                )
            with archive.open(member) as source:
                yield member.filename, _Metered(source, budget)


def _write(member: str, source: BinaryIO, folder: Path, budget: _Budget) -> None:
    parts = inner_parts(member)
    if parts is None:
        raise ArchiveError(
            f"{budget.name}: expected paths inside the archive's own folder, found {member!r}. Do not extract this "
            "archive; download it from its publisher."
        )
    if not parts or is_hidden(parts):
        return
    target = folder.joinpath(*parts)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as file:
            _copy(source.read, file.write)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ArchiveError(
            f"{budget.name}: expected each file once, found {member!r} twice, or as a file and a folder. Do not use "
            "this archive; download it from its publisher."
        ) from error


def _copy(read: Callable[[int], bytes], write: Callable[[bytes], object]) -> None:
    while content := read(_CHUNK):
        write(content)
