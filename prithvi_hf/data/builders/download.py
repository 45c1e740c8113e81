# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Downloads of whole data sets from the Hugging Face Hub: resumable within a file, checksummed, extracted, atomic.

`huggingface_hub` downloads into its cache anew when a process dies half-way, which is dear for archives of gigabytes,
compares no digest, and keeps the archive beside what is extracted. So its parts are put together here: its listing,
its headers (token, `HF_ENDPOINT`, `HF_HUB_OFFLINE`) and its transfer, into files that a later run continues.
"""

import base64
import bz2
import errno
import gzip
import hashlib
import lzma
import os
import re
import shutil
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from datasets.utils import logging, tqdm
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HTTPError,  # of the HTTP library that huggingface_hub is built on: also broken connections
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import WeakFileLock, build_hf_headers, get_session

from prithvi_hf.data.builders.files import examples


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
                "prithvi_hf.data.builders.download.MAX_EXPANSION."
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


logger = logging.get_logger(__name__)

_DATA_SUFFIXES = (".tif", ".tiff", ".txt", ".csv", ".json", ".geojson")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_GOOGLE_MD5 = re.compile(r"\bmd5=([A-Za-z0-9+/]{22}==)")
_THREADS = 8
_CHUNK = 2**20
_HTTP_NOT_FOUND = 404


class DownloadError(OSError):
    """A download that cannot be completed or used; the message names the file, what was found and the remedy."""


def download_dataset(
    repo_id: str,
    root: str | os.PathLike,
    revision: str | None = None,
    token: str | bool | None = None,
) -> str:
    """Downloads a data set repository of the Hub and extracts its archives.

    Archives, GeoTIFF files and lists are fetched, each into a `.part` file that a later run continues, and compared
    with the Hub's digest (SHA-256 of large files, git's SHA-1 of small ones). The folder appears under its name when
    all is extracted, so what exists is complete; archives are deleted then. Processes that ask for the same at once
    wait for the first one.

    Args:
        repo_id (`str`): the repository, "owner/name".
        root (`str` or `os.PathLike`): folder under which downloads are kept, a folder a commit.
        revision (`str`, *optional*): branch, tag or commit; None is "main".
        token (`str` or `bool`, *optional*): Hub token; None is the one that you are logged in with.

    Returns:
        `str`: the folder. Offline, or when the Hub does not answer, the last complete download of this revision.

    Raises:
        FileNotFoundError: no such repository or revision, or no data in it.
        DownloadError: the Hub cannot be reached, the connection broke, a file differs from its digest, or the disk is
            full.
        ArchiveError: an archive that cannot or must not be extracted.
    """
    store = Path(root).expanduser().absolute() / "hub" / repo_id.replace("/", "--")
    download = _Download(repo_id, store, HfApi(token=token, library_name="prithvi_hf"))
    commit = download.find_commit(revision or "main")
    folder = store / commit
    if not folder.is_dir():
        store.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(store / f".{commit}.lock"):
            if not folder.is_dir():
                download.run(commit)
    _remember(_reference(store, revision or "main"), commit)
    return str(folder)


def verify_bucket_digests(files: Mapping[str, str]) -> None:
    """Compares downloaded files with the MD5 digests that Google's storage states for them (`x-goog-hash`).

    Files for which a server states none are left as they are.

    Args:
        files (`Mapping[str, str]`): local paths by the address they were downloaded from.

    Raises:
        DownloadError: files differ from their digest, and are deleted so that the next run fetches them again; or the
            server does not answer.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        matches = list(pool.map(lambda item: _matches_bucket(*item), files.items()))
    wrong = [url for url, matched in zip(files, matches, strict=True) if not matched]
    for url in wrong:
        os.unlink(files[url])
    if wrong:
        raise DownloadError(
            f"Expected {len(files)} files with the MD5 that their server states, found {len(wrong)} to differ: "
            f"{examples(wrong)}. The damaged copies are deleted: run this again. If it happens again, a proxy or the "
            "mirror in base_url alters files."
        )


@contextmanager
def explained_bucket_errors(what: str, base_url: str) -> Iterator[None]:
    """Explains why the files of a bucket cannot be had: `datasets` gives the address alone, or nothing but the cause.

    Args:
        what (`str`): what is looked for, for the message.
        base_url (`str`): where it is looked for.

    Raises:
        FileNotFoundError: the server has no such file.
        DownloadError: the server cannot be reached, or the connection broke.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, DownloadError) or not _is_of_network(error):
            raise
        cause = _innermost(error)
        if isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) == _HTTP_NOT_FOUND:
            kind, found = FileNotFoundError, f"no file at {_one_line(error)}"
        else:
            texts = dict.fromkeys(_one_line(part).removesuffix(".") for part in (error, cause))
            kind, found = DownloadError, f"{': '.join(texts)}."
        raise kind(
            f"{base_url}: expected {what}, found: {found} Check the connection and base_url and run this again, which "
            "continues with the files that are missing; or download the data set elsewhere and pass its folder as "
            "data_dir."
        ) from error


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _is_of_network(error: Exception) -> bool:
    """Whether an error comes from a server or the way to it, and not from a local file or from the program."""
    from aiohttp import ClientError  # slow to import, and loaded already where it was raised

    is_local = getattr(error, "filename", None) is not None
    return isinstance(error, FileNotFoundError | ConnectionError | TimeoutError | ClientError) and not is_local


def _matches_bucket(url: str, path: str) -> bool:
    try:
        answer = get_session().head(url)
    except HTTPError as error:
        raise DownloadError(f"{url}: expected its digest, found: {_one_line(error)} Run this again.") from error
    stated = _GOOGLE_MD5.search(answer.headers.get("x-goog-hash", ""))
    if stated is None:
        return True
    found = _digest(Path(path), hashlib.md5(usedforsecurity=False))
    return base64.b64encode(bytes.fromhex(found)).decode() == stated[1]


@dataclass(frozen=True)
class _Download:
    """One repository on its way into a folder."""

    repo_id: str
    store: Path
    api: HfApi

    def find_commit(self, revision: str) -> str:
        """The commit that a revision names: by the Hub, or if that does not answer by the last complete download."""
        if _COMMIT.fullmatch(revision) and (self.store / revision).is_dir():
            return revision
        try:
            return self.api.dataset_info(self.repo_id, revision=revision).sha
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise FileNotFoundError(self._not_found_message(revision, error)) from error
        except (HTTPError, ConnectionError) as error:
            return self._find_offline(revision, error)

    def _find_offline(self, revision: str, error: Exception) -> str:
        reference = _reference(self.store, revision)
        commit = reference.read_text() if reference.is_file() else ""
        if not (commit and (self.store / commit).is_dir()):
            raise DownloadError(
                f"{self._url}: expected an answer of the Hub, found: {_one_line(error)} Check the connection, "
                "HF_ENDPOINT and HF_HUB_OFFLINE, or download the data set elsewhere and pass its folder as data_dir."
            ) from error
        logger.warning(f"{self._url} does not answer ({type(error).__name__}): using the copy in {self.store}.")
        return commit

    @property
    def _url(self) -> str:
        return f"{self.api.endpoint}/datasets/{self.repo_id}"

    def _not_found_message(self, revision: str, error: Exception) -> str:
        if isinstance(error, GatedRepoError):
            return f"{self._url}: access must be granted. Accept its terms there, and log in with `hf auth login`."
        return (
            f"{self._url}: expected a data set with revision {revision!r}, found none. Check repository and revision; "
            "if it is private, log in with `hf auth login`. Or pass a folder of yours as data_dir."
        )

    def run(self, commit: str) -> None:
        """Fetches and extracts a commit, and gives the folder its name."""
        workshop = self.store / f".{commit}.incomplete"
        files = self._list_files(commit)
        with _explained_disk_errors(self.store):
            self._fetch_all(files, commit, workshop / "files")
            data = workshop / "data"
            shutil.rmtree(data, ignore_errors=True)
            try:
                self._assemble(files, workshop / "files", data)
                os.rename(data, self.store / commit)
            finally:
                shutil.rmtree(data, ignore_errors=True)
        shutil.rmtree(workshop, ignore_errors=True)

    def _list_files(self, commit: str) -> list[RepoFile]:
        try:
            entries = list(self.api.list_repo_tree(self.repo_id, repo_type="dataset", revision=commit, recursive=True))
        except HTTPError as error:
            raise DownloadError(
                f"{self._url}: expected its list of files, found: {_one_line(error)} Run this again later."
            ) from error
        files = [entry for entry in entries if isinstance(entry, RepoFile) and _is_wanted(entry.path)]
        if not files:
            raise FileNotFoundError(
                f"{self._url}: expected archives or GeoTIFF files, found none among {len(entries)} entries at commit "
                f"{commit}. Check repository and revision."
            )
        return files

    def _fetch_all(self, files: list[RepoFile], commit: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._check_space(files, folder)
        stop = threading.Event()
        look = {"total": sum(file.size for file in files), "unit": "B", "unit_scale": True}
        with tqdm(desc=f"Downloading {self.repo_id}", disable=None, **look) as bar:
            pool = ThreadPoolExecutor(_THREADS)
            try:
                progress = _SharedBar(bar, stop)
                transfers = [pool.submit(self._fetch, file, commit, folder, progress) for file in files]
                for transfer in as_completed(transfers):
                    transfer.result()
            finally:
                # Also on Ctrl-C: transfers under way end at their next chunk.
                stop.set()
                pool.shutdown(cancel_futures=True)

    def _check_space(self, files: list[RepoFile], folder: Path) -> None:
        present = sum(_size(path) for file in files for path in (folder / file.path, _part(folder / file.path)))
        needed, free = sum(file.size for file in files) - present, shutil.disk_usage(folder).free
        if needed > free:
            raise DownloadError(
                f"{self._url}: expected {needed:,} bytes of free space below {self.store}, and as much again to "
                f"extract, found {free:,}. Free some, or choose another disk with cache_dir."
            )

    def _fetch(self, file: RepoFile, commit: str, folder: Path, progress: "_SharedBar") -> None:
        """Fetches one file, from where an earlier run stopped, and names it when it is found to be right."""
        target = folder / file.path
        if target.exists():
            return progress.update(file.size)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = _part(target)
        if _size(part) > file.size:
            part.unlink()
        start = _size(part)
        progress.update(start)
        with open(part, "ab") as output:
            self._transfer(file, commit, output, start, progress)
        self._verify(file, part)
        os.replace(part, target)

    def _transfer(self, file: RepoFile, commit: str, output: BinaryIO, start: int, progress: "_SharedBar") -> None:
        url = hf_hub_url(self.repo_id, file.path, repo_type="dataset", revision=commit, endpoint=self.api.endpoint)
        headers = build_hf_headers(token=self.api.token, library_name="prithvi_hf")
        try:
            http_get(
                url, output, resume_size=start, headers=headers, expected_size=file.size, tqdm_class=progress.join
            )
        except (HTTPError, OSError) as error:
            if getattr(error, "errno", None):  # the disk's, not the network's
                raise
            raise DownloadError(
                f"{url}: expected {file.size:,} bytes, but the transfer broke off: {_one_line(error)} Run this "
                "again: it continues where it stopped."
            ) from error

    def _verify(self, file: RepoFile, path: Path) -> None:
        kind, expected = ("SHA-1 of git", file.blob_id) if file.lfs is None else ("SHA-256", file.lfs.sha256)
        found = _git_blob_id(path) if file.lfs is None else _digest(path, hashlib.sha256())
        if found != expected:
            path.unlink()
            raise DownloadError(
                f"{self._url}: expected {file.path} with {kind} {expected}, found {found}. The damaged copy is "
                "deleted: run this again. If it happens again, a proxy or the mirror in HF_ENDPOINT alters files."
            )

    def _assemble(self, files: list[RepoFile], source: Path, data: Path) -> None:
        """Extracts archives, each into the folder it lies in, and puts plain files at their paths."""
        for file in sorted(files, key=lambda file: (not _is_archive(file.path), file.path)):
            target = data / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            if _is_archive(file.path):
                extract_archive(source / file.path, target.parent)
            else:
                # A file that also lies in an archive: the repository's page shows this one.
                target.unlink(missing_ok=True)
                _link(source / file.path, target)


class _Stopped(Exception):
    """Another transfer has failed."""


class _SharedBar:
    """The one progress bar of many transfers, in the shape that huggingface_hub's `http_get` asks for."""

    def __init__(self, bar: tqdm, stop: threading.Event) -> None:
        self._bar, self._stop, self._lock = bar, stop, threading.Lock()

    def join(self, **_: object) -> "_SharedBar":
        return self

    def __enter__(self) -> "_SharedBar":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, count: int) -> None:
        if self._stop.is_set():
            raise _Stopped
        with self._lock:
            self._bar.update(count)


@contextmanager
def _explained_disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DownloadError(
            f"{folder}: expected room for the data set, found the disk full. Free some, or choose another disk with "
            "cache_dir, and run this again: what is downloaded is kept."
        ) from error


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith(".") else f"{text}."


def _reference(store: Path, revision: str) -> Path:
    return store / ".refs" / quote(revision, safe="")


def _remember(reference: Path, commit: str) -> None:
    # Looked at first, so that a shared folder without write access can be read from.
    if not reference.is_file() or reference.read_text() != commit:
        reference.parent.mkdir(exist_ok=True)
        reference.write_text(commit)


def _is_archive(path: str) -> bool:
    return path.lower().endswith(ARCHIVE_SUFFIXES)


def _is_wanted(path: str) -> bool:
    parts = inner_parts(path)
    return bool(parts) and not is_hidden(parts) and path.lower().endswith((*ARCHIVE_SUFFIXES, *_DATA_SUFFIXES))


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _chunks(path: Path) -> Iterable[bytes]:
    with open(path, "rb") as file:
        yield from iter(lambda: file.read(_CHUNK), b"")


def _digest(path: Path, digest: "hashlib._Hash") -> str:
    for chunk in _chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def _git_blob_id(path: Path) -> str:
    """The name that git gives to a file's content."""
    start = b"blob %d\0" % path.stat().st_size
    return _digest(path, hashlib.sha1(start, usedforsecurity=False))
