# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Downloads: whole datasets of the Hugging Face Hub, checked and extracted, and checks of the files of a bucket.

`huggingface_hub` lists, logs in and transfers. Its `snapshot_download` throws half a file away when a process ends and
compares no digest, which is dear for archives of gigabytes, so its transfer `http_get` writes into `.part` files here.
"""

import base64
import bz2
import errno
import gzip
import hashlib
import io
import lzma
import os
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self
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
from huggingface_hub.utils.sha import git_hash
from tqdm.utils import CallbackIOWrapper

from prithvi_hf.data.builders.files import DATA_SUFFIXES, show_some
from prithvi_hf.disk import describe_disk_full, is_disk_full


logger = logging.get_logger(__name__)

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar", ".zip")
"""Endings of the archives that [`extract_archive`] knows."""

# An archive may unpack to this much whatever its size, and beyond that to this many times its own size. Imagery packs
# at most tenfold; a bomb of zeros reaches a thousandfold in gzip.
MAX_UNBACKED_BYTES = 256 * 2**20
MAX_EXPANSION = 100
MAX_MEMBERS = 1_000_000

_REFUSED = "Do not extract this archive; download it from its publisher."
_DECOMPRESSORS: dict[bytes, Callable[..., io.BufferedIOBase]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZ": bz2.BZ2File,
    b"\xfd7": lzma.LZMAFile,
}
# What tarfile and zipfile raise for bytes that were changed, and the system for names and places that these make.
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, LookupError, ValueError)
_DAMAGE_NUMBERS = (None, errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ)  # None: bz2 and gzip say it so
_COMMIT = re.compile(r"[0-9a-f]{40}")
_GOOGLE_MD5 = re.compile(r"\bmd5=([A-Za-z0-9+/]{22}==)")
_THREADS = 8
_CHUNK = 2**20


class ArchiveError(ValueError):
    """An archive that is damaged, or that must not be extracted; the message names it and the remedy."""


class DownloadError(OSError):
    """A download that cannot be completed or used; the message names the file, what was found and the remedy."""


def download_dataset(
    repo_id: str,
    root: str | os.PathLike,
    revision: str | None = None,
    token: str | bool | None = None,
) -> str:
    """Download a dataset repository of the Hub and extract its archives.

    Archives, GeoTIFF files and lists are fetched, each into a `.part` file that a later run continues, and compared
    with the Hub's digest (SHA-256 of large files, git's SHA-1 of small ones). The folder appears under its name when
    all is extracted, so what exists is complete; archives are deleted then. Processes that ask for the same at once
    wait for the first one.

    Args:
        repo_id (`str`): the repository, "owner/name".
        root (`str` or `os.PathLike`): folder under which downloads are kept, one folder per commit.
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
    api, revision = HfApi(token=token, library_name="prithvi_hf"), revision or "main"
    store = Path(root).expanduser().absolute() / "hub" / repo_id.replace("/", "--")
    reference = store / ".refs" / quote(revision, safe="")
    remembered = reference.read_text() if reference.is_file() else ""
    url, commit = f"{api.endpoint}/datasets/{repo_id}", revision
    try:
        if not (_COMMIT.fullmatch(revision) and (store / revision).is_dir()):
            commit = str(api.dataset_info(repo_id, revision=revision).sha)
    except GatedRepoError as error:
        raise FileNotFoundError(
            f"{url}: access must be granted. Accept its terms there, and log in with `hf auth login`."
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise FileNotFoundError(
            f"{url}: expected a dataset with revision {revision!r}, found none. Check repository and revision; if it "
            "is private, log in with `hf auth login`. Or pass a folder of your own as data_dir."
        ) from error
    except (HTTPError, ConnectionError) as error:
        if not (remembered and (store / remembered).is_dir()):
            raise DownloadError(
                f"{url}: expected an answer from the Hub, found: {_write_sentence(error)} Check the connection, "
                "HF_ENDPOINT and HF_HUB_OFFLINE, or download the dataset elsewhere and pass its folder as data_dir."
            ) from error
        logger.warning(f"{url} does not answer ({type(error).__name__}): using the copy in {store}.")
        commit = remembered
    if not (store / commit).is_dir():
        store.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(store / f".{commit}.lock"):
            if not (store / commit).is_dir():
                try:
                    _download_commit(api, repo_id, commit, store)
                except OSError as error:
                    if not is_disk_full(error):
                        raise
                    raise DownloadError(
                        f"{describe_disk_full(store, error)} Free some, or choose another disk with cache_dir, and "
                        "run this again: what is downloaded is kept."
                    ) from error
    if remembered != commit:  # a shared folder without write access can be read from
        reference.parent.mkdir(exist_ok=True)
        reference.write_text(commit)
    return str(store / commit)


def _download_commit(api: HfApi, repo_id: str, commit: str, store: Path) -> None:
    """Fetch a commit's files, extract its archives, and give the complete folder its name."""
    url = f"{api.endpoint}/datasets/{repo_id}"
    try:
        entries = list(api.list_repo_tree(repo_id, repo_type="dataset", revision=commit, recursive=True))
    except HTTPError as error:
        raise DownloadError(
            f"{url}: expected its list of files, found: {_write_sentence(error)} Run this again later."
        ) from error
    files: list[RepoFile] = []
    for entry in entries:
        known = entry.path.lower().endswith((*ARCHIVE_SUFFIXES, *DATA_SUFFIXES))
        if isinstance(entry, RepoFile) and known and clean_path(entry.path):
            files.append(entry)
    if not files:
        raise FileNotFoundError(
            f"{url}: expected archives or GeoTIFF files, found none among {len(entries)} entries at commit {commit}. "
            "Check repository and revision."
        )

    workshop = store / f".{commit}.incomplete"
    source, data = workshop / "files", workshop / "data"
    source.mkdir(parents=True, exist_ok=True)
    present = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    needed, free = sum(file.size for file in files) - present, shutil.disk_usage(source).free
    if needed > free:
        raise DownloadError(
            f"{url}: expected {needed:,} bytes of free space below {store}, and as much again to extract, found "
            f"{free:,}. Free some, or choose another disk with cache_dir."
        )
    look = {"total": sum(file.size for file in files), "unit": "B", "unit_scale": True, "disable": None}
    with _SharedBar(desc=f"Downloading {repo_id}", **look) as bar, ThreadPoolExecutor(_THREADS) as pool:
        try:
            transfers = [pool.submit(_fetch, api, repo_id, commit, file, source, bar) for file in files]
            for transfer in as_completed(transfers):
                transfer.result()
        finally:  # also on Ctrl-C: transfers under way end at their next chunk
            bar.stopped = True
            pool.shutdown(cancel_futures=True)

    shutil.rmtree(data, ignore_errors=True)
    try:
        archives = [file for file in files if file.path.lower().endswith(ARCHIVE_SUFFIXES)]
        for file in archives:
            (data / file.path).parent.mkdir(parents=True, exist_ok=True)
            extract_archive(source / file.path, (data / file.path).parent)
        # After the archives: where one holds such a file too, the repository's page shows this one.
        for file in files:
            if file not in archives:
                (data / file.path).parent.mkdir(parents=True, exist_ok=True)
                os.replace(source / file.path, data / file.path)
        os.rename(data, store / commit)
    finally:
        shutil.rmtree(data, ignore_errors=True)
    shutil.rmtree(workshop, ignore_errors=True)


class _Stopped(Exception):
    """Another transfer has failed."""


class _SharedBar(tqdm):
    """The one progress bar of many transfers, which also stops them."""

    stopped = False

    def update(self, n: float | None = 1) -> bool | None:
        """Count bytes of any transfer, or end it."""
        if self.stopped:
            raise _Stopped
        with self.get_lock():
            return super().update(n)


def _fetch(api: HfApi, repo_id: str, commit: str, file: RepoFile, folder: Path, bar: _SharedBar) -> None:
    """Fetch one file, from where an earlier run stopped, and give it its name when its digest is right."""
    target = folder / file.path
    part = target.with_name(f"{target.name}.part")
    if target.exists():
        bar.update(file.size)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if part.exists() and part.stat().st_size > file.size:
        part.unlink()
    url = hf_hub_url(repo_id, file.path, repo_type="dataset", revision=commit, endpoint=api.endpoint)
    headers = build_hf_headers(token=api.token, library_name="prithvi_hf")
    with open(part, "ab") as output:
        start = output.tell()
        bar.update(start)
        try:
            http_get(
                url,
                output,
                resume_size=start,
                headers=headers,
                expected_size=file.size,
                tqdm_class=lambda **_: nullcontext(bar),  # type: ignore[arg-type]
            )
        except (HTTPError, OSError) as error:
            if getattr(error, "errno", None):  # the disk's, not the network's
                raise
            raise DownloadError(
                f"{url}: expected {file.size:,} bytes, but the transfer broke off: {_write_sentence(error)} Run this "
                "again: it continues where it stopped."
            ) from error
    if file.lfs is None:
        kind, expected, found = "SHA-1 of git", file.blob_id, git_hash(part.read_bytes())
    else:
        kind, expected, found = "SHA-256", file.lfs.sha256, _compute_digest(part, "sha256")
    if found != expected:
        part.unlink()
        raise DownloadError(
            f"{api.endpoint}/datasets/{repo_id}: expected {file.path} with {kind} {expected}, found {found}. The "
            "damaged copy is deleted: run this again. If it happens again, a proxy or the mirror in HF_ENDPOINT "
            "alters files."
        )
    os.replace(part, target)


def extract_archive(archive: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Extract the regular files of an archive (.zip; .tar, plain or with gzip, bzip2 or xz) into an existing folder.

    Hidden files, and with them the `._*` copies of macOS, are left out. Damage, an unknown format, a member that is
    not a regular file, leads out of the folder or comes twice, and far more content than an archive of its size can
    hold are an ArchiveError; no file of the archive stays then.
    """
    name, size = os.fspath(archive), os.path.getsize(archive)
    unpacking = _Unpacking(name, Path(folder), max(MAX_UNBACKED_BYTES, MAX_EXPANSION * size))
    look = {"desc": f"Extracting {os.path.basename(name)}", "disable": None}
    try:
        with open(archive, "rb") as file, tqdm.wrapattr(file, "read", total=size, **look) as watched:
            start = file.read(2)
            file.seek(0)
            if start == b"PK":
                with zipfile.ZipFile(watched) as zipped:
                    for entry in zipped.infolist():
                        regular = entry.external_attr >> 16 & 0o170000 in (0, 0o100000) and not entry.flag_bits & 1
                        unpacking.count(entry.file_size)  # more than it states does not come out
                        if path := unpacking.find_path(entry.filename, entry.is_dir(), regular):
                            with zipped.open(entry) as source:
                                unpacking.write(source, path)
                return
            # Bytes are counted as they come out, headers and skipped members too. "r|" reads forward only, block by
            # block: even a header that claims gigabytes meets the limit first.
            decompressed = _DECOMPRESSORS[start](watched) if start in _DECOMPRESSORS else watched
            stream = CallbackIOWrapper(unpacking.count, decompressed)
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:
                for member in tar:
                    regular = member.isreg() and not member.issparse()
                    if path := unpacking.find_path(member.name, member.isdir(), regular):
                        unpacking.write(tar.extractfile(member), path)
            # The checksum stands at the end of a compressed stream, behind the archive's own end.
            while stream.read(_CHUNK):
                pass
    except BaseException as error:
        for target in unpacking.written:
            target.unlink(missing_ok=True)
        if isinstance(error, ArchiveError):
            raise
        if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
            found = f"expected each file once, found {error.filename!r} again. {_REFUSED}"
        elif isinstance(error, NotImplementedError | RuntimeError):  # zipfile's, of methods that it does not know
            found = f"expected a method of compression that Python knows, found another ({error}). Pack it again."
        elif isinstance(error, _DAMAGE) or (isinstance(error, OSError) and error.errno in _DAMAGE_NUMBERS):
            reason = str(error) or type(error).__name__
            found = f"expected a whole archive, found it damaged or cut off ({reason}). Download it again."
        else:
            raise
        raise ArchiveError(f"{name}: {found}") from error


class _Member(tarfile.TarInfo):
    """A member of a tar file, which ends by zeros: tarfile takes any damaged or missing header for its end."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":
                raise
            raise tarfile.ReadError(f"no header or end at byte {tar.offset:,}: {error}") from error


@dataclass
class _Unpacking:
    """An archive on its way into a folder, and how many bytes it may hold."""

    archive: str
    folder: Path
    allowed: int
    spent: int = 0
    members: int = 0
    written: list[Path] = field(default_factory=list)

    def count(self, size: int) -> None:
        """Count bytes of content."""
        self.spent += size
        if self.spent > self.allowed:
            raise ArchiveError(
                f"{self.archive}: expected at most {self.allowed:,} bytes of content for an archive of its size, "
                "found more, which is not credible. Do not use this archive; if you trust it, raise "
                "prithvi_hf.data.builders.download.MAX_EXPANSION."
            )

    def find_path(self, name: str, is_folder: bool, is_regular: bool) -> str | None:
        """Check a member and give its path below the folder; None or "" for what is left out."""
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise ArchiveError(f"{self.archive}: expected at most {MAX_MEMBERS:,} files, found more. Do not use it.")
        if is_folder:
            return None
        path = clean_path(name)
        if path is None or not is_regular:
            expected = "paths inside the archive's own folder" if path is None else "regular files without password"
            raise ArchiveError(f"{self.archive}: expected {expected}, found {name!r}. {_REFUSED}")
        return path

    def write(self, source: IO[bytes] | None, path: str) -> None:
        """Write a member; where there is a file already, it came twice."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as file:
            self.written.append(target)
            if source is not None:  # tarfile's types allow it for folders
                shutil.copyfileobj(source, file, _CHUNK)


def clean_path(name: str) -> str | None:
    """Clean a path that somebody else chose: None where it may lead out of its folder, "" where it is hidden."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if name.startswith(("/", "\\")) or ".." in parts or any(":" in part or "\0" in part for part in parts):
        return None
    hidden = "__MACOSX" in parts or any(part.startswith(".") for part in parts)  # the side files of macOS are so
    return "" if hidden else "/".join(parts)


def check_bucket_digests(files: Mapping[str, str]) -> None:
    """Compare downloaded files, local paths by address, with the MD5 that Google's storage states."""

    def is_right(url: str) -> bool:
        try:
            answer = get_session().head(url)
        except HTTPError as error:
            raise DownloadError(
                f"{url}: expected its digest, found: {_write_sentence(error)} Run this again."
            ) from error
        stated = _GOOGLE_MD5.search(answer.headers.get("x-goog-hash", ""))
        return stated is None or base64.b64decode(stated[1]).hex() == _compute_digest(Path(files[url]), "md5")

    with ThreadPoolExecutor(_THREADS) as pool:
        wrong = [url for url, right in zip(files, pool.map(is_right, files), strict=True) if not right]
    for url in wrong:
        os.unlink(files[url])
    if wrong:
        raise DownloadError(
            f"Expected {len(files)} files with the MD5 that their server states, found {len(wrong)} to differ: "
            f"{show_some(wrong)}. The damaged copies are deleted: run this again. If it happens again, a proxy or the "
            "mirror in base_url alters files."
        )


@contextmanager
def explain_bucket_errors(what: str, base_url: str) -> Iterator[None]:
    """Explain why files of a bucket cannot be had: `datasets` gives the address alone, or nothing but the cause."""
    from aiohttp import ClientError  # slow to import

    try:
        yield
    except (FileNotFoundError, ConnectionError, TimeoutError, ClientError) as error:
        if getattr(error, "filename", None) is not None:
            raise  # of a local file
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        is_missing = isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) == 404
        texts = dict.fromkeys(_write_sentence(part).removesuffix(".") for part in (error, cause))
        kind: type[OSError] = FileNotFoundError if is_missing else DownloadError
        raise kind(
            f"{base_url}: expected {what}, found: {'no file at ' if is_missing else ''}{': '.join(texts)}. Check the "
            "connection and base_url and run this again, which continues with the files that are missing; or download "
            "the dataset elsewhere and pass its folder as data_dir."
        ) from error


def _compute_digest(path: Path, algorithm: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _write_sentence(error: BaseException) -> str:
    """Write an error in one line that ends in a full stop."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith(".") else f"{text}."
