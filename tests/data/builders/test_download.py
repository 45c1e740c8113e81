"""Downloads from a Hub on the loopback interface: resumed, compared with digests, extracted whole or not at all.

And the extraction of archives: what comes out, and everything hostile or damaged that must not.
"""

import bz2
import errno
import gzip
import io
import lzma
import multiprocessing
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from contextlib import suppress

import huggingface_hub
import numpy as np
import pytest

from prithvi_hf.data.builders import download
from prithvi_hf.data.builders.download import ArchiveError, DownloadError, download_dataset, extract_archive
from tests.archive_factory import tar_of, zip_of
from tests.hub_server import UNAVAILABLE
from tests.raster_factory import make_crops, pack


REPO = "owner/chips"
NOISE = os.urandom(300_000)
ARCHIVE = tar_of([("training/a.tif", NOISE), ("training/._a.tif", b"Mac"), ("validation/b.tif", b"b")])
EXTRACTED = {"training/a.tif": NOISE, "validation/b.tif": b"b"}


@pytest.fixture
def fetch(hub, monkeypatch, tmp_path):
    hub.redirect_this_process(monkeypatch)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between retries
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 10_000)

    def run(**options):
        folder = download_dataset(REPO, tmp_path / "root", **options)
        return {
            os.path.relpath(os.path.join(parent, name), folder): read(os.path.join(parent, name))
            for parent, _, names in os.walk(folder)
            for name in names
        }

    return run


def read(path):
    with open(path, "rb") as file:
        return file.read()


def leftovers(tmp_path):
    """Everything below the root but finished folders and bookkeeping."""
    store = tmp_path / "root" / "hub" / "owner--chips"
    return sorted(
        str(path.relative_to(store))
        for path in store.rglob("*")
        if path.is_file() and ".refs" not in path.parts and ".incomplete" in str(path)
    )


def test_archives_and_plain_files(hub, fetch, tmp_path):
    files = {
        "data/chips.tar.gz": ARCHIVE,
        "masks.zip": zip_of([("masks/m.tif", b"m")]),
        "chips_df.csv": b"chip_id\n",
        "plain/p.tif": b"p",
        "plain/._p.tif": b"Mac",
        ".gitattributes": b"x",
        "README.md": b"read",
        "figure.png": b"png",
    }
    hub.put_files(REPO, files)
    expected = {f"data/{name}": content for name, content in EXTRACTED.items()}
    assert fetch() == {**expected, "masks/m.tif": b"m", "chips_df.csv": b"chip_id\n", "plain/p.tif": b"p"}
    assert not leftovers(tmp_path)
    assert not any(hub.downloads(name) for name in ("README.md", "figure.png", "plain/._p.tif"))


def test_what_is_there_is_not_downloaded_again(hub, fetch):
    hub.put_files(REPO, {"chips.tgz": ARCHIVE})
    assert fetch() == fetch() == EXTRACTED
    assert hub.downloads("chips.tgz") == 1


def test_plain_file_beside_an_archive_that_holds_it(hub, fetch):
    hub.put_files(REPO, {"chips.tgz": ARCHIVE, "validation/b.tif": b"newer"})
    assert fetch()["validation/b.tif"] == b"newer"


def test_a_new_commit_and_an_old_one(hub, fetch):
    first = hub.put_files(REPO, {"chips.tgz": ARCHIVE})
    assert fetch() == EXTRACTED
    hub.put_files(REPO, {"chips.tgz": tar_of([("c.tif", b"c")])})
    assert fetch() == {"c.tif": b"c"}
    before = len(hub.requests)
    assert fetch(revision=first.oid) == EXTRACTED
    assert len(hub.requests) == before


# ----------------------------------------------------------------- resumed


def test_a_broken_connection_is_continued(hub, fetch):
    hub.put_files(REPO, {"chips.tgz": ARCHIVE})
    hub.faults["chips.tgz"] = [100_000, 50_000]
    assert fetch() == EXTRACTED
    assert [span for _, span in hub.ranges] == ["bytes=100000-", "bytes=150000-"]


def test_a_later_run_continues_a_failed_one(hub, fetch, tmp_path):
    commit = hub.put_files(REPO, {"chips.tgz": ARCHIVE, "list.txt": b"a\n"})
    hub.faults["chips.tgz"] = [120_000, UNAVAILABLE]
    with pytest.raises(DownloadError, match=r"chips\.tgz: expected [\d,]+ bytes, but .* broke off.*Run this again"):
        fetch()
    assert f".{commit.oid}.incomplete/files/chips.tgz.part" in leftovers(tmp_path)
    hub.ranges.clear()
    assert fetch() == {**EXTRACTED, "list.txt": b"a\n"}
    assert (f"/datasets/{REPO}/resolve/{commit.oid}/chips.tgz", "bytes=120000-") in hub.ranges
    assert hub.downloads("list.txt") <= 2  # the failure may have stopped it too


def killed_while_fetching(root):
    """Dies as a process does that is killed: nothing is cleaned up."""
    chunks = iter(range(6))
    download._SharedBar.update = lambda self, n: n and next(chunks, None) is None and os._exit(9)
    download_dataset(REPO, root)


def test_a_killed_process_is_continued(hub, fetch, tmp_path):
    hub.put_files(REPO, {"chips.tgz": ARCHIVE})
    process = multiprocessing.get_context("fork").Process(target=killed_while_fetching, args=(tmp_path / "root",))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    (part,) = leftovers(tmp_path)
    assert part.endswith("chips.tgz.part")
    assert fetch() == EXTRACTED
    ((_, span),) = hub.ranges
    assert 40_000 <= int(span.removeprefix("bytes=").rstrip("-")) <= 60_000


def test_an_interruption_while_extracting(hub, fetch, tmp_path, monkeypatch):
    hub.put_files(REPO, {"chips.tgz": ARCHIVE})

    def interrupted(archive, folder):
        (folder / "half.tif").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "extract_archive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch()
    assert [name.rpartition("/")[2] for name in leftovers(tmp_path)] == ["chips.tgz"]
    monkeypatch.undo()
    hub.redirect_this_process(monkeypatch)
    assert fetch() == EXTRACTED
    assert hub.downloads("chips.tgz") == 1


def test_what_a_kill_left_half_extracted_is_thrown_away(hub, fetch, tmp_path):
    commit = hub.put_files(REPO, {"chips.tgz": ARCHIVE})
    half = tmp_path / "root" / "hub" / "owner--chips" / f".{commit.oid}.incomplete" / "data" / "training"
    half.mkdir(parents=True)
    (half / "half.tif").write_bytes(b"half")
    assert fetch() == EXTRACTED


def test_a_part_that_is_too_long_starts_again(hub, fetch, tmp_path):
    commit = hub.put_files(REPO, {"chips.tgz": ARCHIVE})
    part = tmp_path / "root" / "hub" / "owner--chips" / f".{commit.oid}.incomplete" / "files" / "chips.tgz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(ARCHIVE + b"x")
    assert fetch() == EXTRACTED


FETCH = """
import sys

from prithvi_hf.data.builders.download import download_dataset

print(download_dataset(*sys.argv[1:]))
"""


@pytest.mark.slow
def test_two_processes_at_once_download_once(hub, fetch, tmp_path):
    hub.put_files(REPO, {"chips.tgz": ARCHIVE, "list.txt": b"a\n"})
    command = [sys.executable, "-c", FETCH, REPO, str(tmp_path / "root")]
    pair = [subprocess.Popen(command, env=hub.env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (process.communicate(timeout=120)[0] for process in pair)
    assert first == second != ""
    assert (hub.downloads("chips.tgz"), hub.downloads("list.txt")) == (1, 1)
    assert fetch() == {**EXTRACTED, "list.txt": b"a\n"}


IN_A_FRESH_PROCESS = """
from prithvi_hf import load_dataset

dataset = load_dataset("multi_temporal_crop", split="train")
print(dataset[0]["image"].path)
print(dataset[0]["image"].read().shape)
"""


@pytest.mark.slow
def test_the_environment_decides_in_a_fresh_process(hub, tmp_path):
    root = make_crops(tmp_path / "data", {"training": ("chip_1_1",), "validation": ("chip_9_9",)})
    archives = {f"{name}.tgz": pack(root, name) for name in ("training_chips", "validation_chips")}
    hub.put_files("ibm-nasa-geospatial/multi-temporal-crop-classification", archives)
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS], env=hub.env, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    path, shape = done.stdout.splitlines()
    assert path.startswith(str(hub.home / "datasets" / "downloads" / "hub"))
    assert shape == "(18, 32, 32)"


# ----------------------------------------------------------------- digests


@pytest.mark.parametrize(("name", "kind"), [("chips.tgz", "SHA-256"), ("list.txt", "SHA-1 of git")])
def test_altered_content_is_found_and_the_next_try_is_clean(hub, fetch, tmp_path, name, kind):
    files = {"chips.tgz": ARCHIVE, "list.txt": b"chip_1\nchip_2\n"}
    hub.put_files(REPO, files)
    altered = bytearray(files[name])
    altered[len(altered) // 2] ^= 1
    hub.faults[name] = [bytes(altered)]
    with pytest.raises(DownloadError, match=rf"expected {name} with {kind} \w+, found \w+.*deleted: run this again"):
        fetch()
    assert not any(f"{name}" in path for path in leftovers(tmp_path))
    assert fetch() == {**EXTRACTED, "list.txt": files["list.txt"]}


# ----------------------------------------------------------------- refused


def test_an_archive_that_must_not_be_extracted_leaves_nothing(hub, fetch, tmp_path):
    hub.put_files(REPO, {"chips.tgz": tar_of([("training/a.tif", b"a"), ("../evil", b"evil")])})
    with pytest.raises(ArchiveError, match=r"chips\.tgz: expected paths inside"):
        fetch()
    assert not list(tmp_path.rglob("a.tif"))
    assert not list(tmp_path.rglob("evil"))


def test_a_truncated_archive_leaves_nothing(hub, fetch, tmp_path):
    hub.put_files(REPO, {"a.tgz": tar_of([("a.tif", b"a")]), "chips.tgz": ARCHIVE[:-5000]})
    with pytest.raises(ArchiveError, match=r"chips\.tgz: expected a whole archive"):
        fetch()
    assert not list(tmp_path.rglob("*.tif"))


@pytest.mark.parametrize("path", ["../evil.tif", "a/../../evil.tif", "C:/evil.tif"])
def test_paths_of_a_hostile_repository(hub, fetch, tmp_path, path):
    hub.put_files(REPO, {path: b"evil", "ok.tif": b"ok"})
    assert fetch() == {"ok.tif": b"ok"}
    assert not list(tmp_path.rglob("evil.tif"))


def test_no_such_repository_revision_or_data(hub, fetch):
    with pytest.raises(FileNotFoundError, match=r"datasets/owner/chips: expected a dataset with revision 'main'"):
        fetch()
    hub.put_files(REPO, {"README.md": b"x"})
    with pytest.raises(FileNotFoundError, match=r"archives or GeoTIFF files, found none among 1 entries"):
        fetch()
    with pytest.raises(FileNotFoundError, match=r"revision 'old', found none\. Check repository and revision"):
        fetch(revision="old")


def test_offline(hub, fetch, monkeypatch, caplog):
    hub.put_files(REPO, {"chips.tgz": ARCHIVE})
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match=r"expected an answer from the Hub.*HF_HUB_OFFLINE.*pass its folder"):
        fetch()
    assert not hub.requests
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    fetch()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert fetch() == EXTRACTED
    assert "using the copy in" in caplog.text


def test_no_server(hub, fetch, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match="Check the connection, HF_ENDPOINT"):
        fetch()


def test_the_token_is_sent(hub, fetch, monkeypatch):
    hub.put_files(REPO, {"chips.tgz": ARCHIVE})
    monkeypatch.delenv("HF_TOKEN")
    seen = []
    monkeypatch.setattr(download, "http_get", lambda *args, headers, **kwargs: seen.append(headers["authorization"]))
    with pytest.raises(DownloadError):
        fetch(token="hf_mine")
    assert seen == ["Bearer hf_mine"]


# ----------------------------------------------------------------- the disk


def test_too_little_space_is_said_before_anything_is_fetched(hub, fetch, monkeypatch):
    hub.put_files(REPO, {"chips.tgz": ARCHIVE})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    with pytest.raises(DownloadError, match=r"expected [\d,]+ bytes of free space.*found 1,000.*cache_dir"):
        fetch()
    assert hub.downloads("chips.tgz") == 0


def test_a_disk_that_fills_up_while_extracting(hub, fetch, tmp_path, monkeypatch):
    hub.put_files(REPO, {"chips.tgz": ARCHIVE})

    def full(archive, folder):
        (folder / "half.tif").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "extract_archive", full)
    with pytest.raises(DownloadError, match=r"disk full.*what is downloaded is kept"):
        fetch()
    assert not list(tmp_path.rglob("*.tif"))
    monkeypatch.undo()
    hub.redirect_this_process(monkeypatch)
    assert fetch() == EXTRACTED
    assert hub.downloads("chips.tgz") == 1


# ----------------------------------------------------------------- archives


CONTENT = bytes(range(256)) * 300


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return name, info


@pytest.fixture
def extract(tmp_path):
    """Extracts bytes into a folder; gives what is in it afterwards."""

    def run(content):
        path, folder = tmp_path / "archive", tmp_path / "out"
        path.write_bytes(content)
        folder.mkdir()
        extract_archive(path, folder)
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    return run


MEMBERS = [
    ("./training/chip_1_merged.tif", CONTENT),
    ("./training/._chip_1_merged.tif", b"Mac OS X"),
    ("__MACOSX/training/chip_1_merged.tif", b"Mac OS X"),
    (".DS_Store", b"x"),
    ("training//sub/chip_1.mask.tif", b"mask"),
]
UNPACKED = {"training/chip_1_merged.tif": CONTENT, "training/sub/chip_1.mask.tif": b"mask"}


@pytest.mark.parametrize(
    "content",
    [
        tar_of(MEMBERS),
        tar_of(MEMBERS, "bz2"),
        tar_of(MEMBERS, "xz"),
        tar_of(MEMBERS, ""),
        zip_of(MEMBERS),
        zip_of(MEMBERS, zipfile.ZIP_STORED),
    ],
    ids=["gz", "bz2", "xz", "tar", "zip", "stored"],
)
def test_files_come_out_and_side_files_do_not(extract, content):
    assert extract(content) == UNPACKED


@pytest.mark.parametrize(
    "name", ["../evil", "training/../../evil", "/tmp/evil", "C:/evil", "..\\evil", "\\evil", "a/..", "x/C:evil"]
)
@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_paths_out_of_the_folder(extract, tmp_path, pack, name):
    with pytest.raises(ArchiveError, match=r"expected paths inside the archive's own folder, found .*Do not"):
        extract(pack([(name, b"evil")]))
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "chip"),
        (tarfile.LNKTYPE, "training/chip_1_merged.tif"),
        (tarfile.CHRTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_links_and_devices(extract, tmp_path, kind, target):
    with pytest.raises(ArchiveError, match="found 'trap'"):
        extract(tar_of([*MEMBERS, special("trap", kind, target)]))
    assert not (tmp_path / "out" / "trap").is_symlink()


def test_links_in_a_zip(extract):
    link = zipfile.ZipInfo("trap")
    link.external_attr = 0o120777 << 16
    with pytest.raises(ArchiveError, match=r"regular files.*found 'trap'"):
        extract(zip_of([(link, "/etc/passwd")]))


@pytest.mark.parametrize("pack", [tar_of, zip_of])
@pytest.mark.parametrize("second", ["chip", "./chip", "chip/below"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_twice(extract, pack, second):
    with pytest.raises(ArchiveError, match="expected each file once, found"):
        extract(pack([("chip", b"1"), (second, b"2")]))


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_a_bomb(extract, monkeypatch, tmp_path, pack):
    monkeypatch.setattr(download, "MAX_UNBACKED_BYTES", 2**20)
    bomb = pack([("zeros", bytes(3 * 2**20))])
    assert len(bomb) < 20_000
    with pytest.raises(ArchiveError, match=r"at most [\d,]+ bytes of content.*not credible"):
        extract(bomb)
    assert sum(file.stat().st_size for file in (tmp_path / "out").rglob("*")) <= 3 * 2**20


def test_a_bomb_in_what_is_left_out_or_in_a_header(extract, monkeypatch):
    monkeypatch.setattr(download, "MAX_UNBACKED_BYTES", 2**20)
    with pytest.raises(ArchiveError, match="not credible"):
        extract(tar_of([("._zeros", bytes(3 * 2**20)), ("chip", b"x")]))


def test_a_long_name_of_megabytes(extract, monkeypatch):
    monkeypatch.setattr(download, "MAX_UNBACKED_BYTES", 2**20)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("a" * (3 * 2**20)))
    with pytest.raises(ArchiveError, match="not credible"):
        extract(buffer.getvalue())


def test_too_many_members(extract, monkeypatch):
    monkeypatch.setattr(download, "MAX_MEMBERS", 4)
    with pytest.raises(ArchiveError, match="at most 4 files"):
        extract(tar_of(MEMBERS))


def test_a_sparse_file(extract):
    info = tarfile.TarInfo("sparse")
    info.type = tarfile.GNUTYPE_SPARSE
    with pytest.raises(ArchiveError, match="found"):
        extract(tar_of([("sparse", info)]))


DAMAGED = {
    "gz cut": tar_of(MEMBERS)[:-200],
    "gz without its end": tar_of(MEMBERS)[:-6],
    "bz2 cut": bz2.compress(tar_of(MEMBERS, ""))[:-50],
    "xz cut": lzma.compress(tar_of(MEMBERS, ""))[:-50],
    "tar cut": tar_of(MEMBERS, "")[:2000],
    "zip cut": zip_of(MEMBERS)[:-60],
    "page": b"<html>come back later</html>" * 50,
    "gz of a page": gzip.compress(b"<html>" * 200),
    "empty": b"",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damage(extract, content):
    with pytest.raises(ArchiveError, match=r"archive: expected a whole archive, found it damaged.*Download it again"):
        extract(content)


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_flipped_bytes(extract, pack):
    content = bytearray(pack([("noise", bytes((i * i * 7 + i // 3) % 251 for i in range(50_000)))]))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(ArchiveError, match="damaged or cut off"):
        extract(bytes(content))


def test_an_encrypted_zip(extract):
    content = bytearray(zip_of([("chip", b"x" * 50)]))
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + offset] |= 1
    with pytest.raises(ArchiveError, match=r"without password.*found 'chip'"):
        extract(bytes(content))


def with_method(content: bytes, method: int) -> bytes:
    """A zip whose members claim to be compressed by another method."""
    changed = bytearray(content)
    for signature, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        start = -1
        while (start := content.find(signature, start + 1)) >= 0:
            changed[start + place : start + place + 2] = method.to_bytes(2, "little")
    return bytes(changed)


TAR = tar_of([("a.tif", CONTENT), ("b.tif", CONTENT)], "")
SECOND = TAR.index(b"b.tif")
LATER_DAMAGE = {
    "tar cut before a later header": TAR[:SECOND],
    "tar cut in a later header": TAR[: SECOND + 200],
    "tar with a damaged later header": TAR[: SECOND + 100] + b"\xff" * 30 + TAR[SECOND + 130 :],
    "tar without its end": TAR[: len(TAR) // 512 * 512].rstrip(b"\0"),
    "gz of a tar cut": gzip.compress(TAR[: SECOND + 200]),
    "bz2 cut": bz2.compress(TAR)[:-20],
    "bz2 damaged": bz2.compress(TAR)[:100] + b"\xff" * 30 + bz2.compress(TAR)[130:],
    "bz2 of nothing": b"BZh9" + b"\0" * 100,
    "xz damaged": lzma.compress(TAR)[:200] + b"\xff" * 30 + lzma.compress(TAR)[230:],
    "gz damaged": gzip.compress(TAR)[:200] + b"\xff" * 30 + gzip.compress(TAR)[230:],
    "zip by Deflate64": with_method(zip_of(MEMBERS), 9),
    "zip by PPMd": with_method(zip_of(MEMBERS), 98),
    "zip damaged": zip_of(MEMBERS)[:80] + b"\xff" * 10 + zip_of(MEMBERS)[90:],
    "zip of a later version": zip_of(MEMBERS).replace(b"PK\x01\x02\x14\x03\x14\0", b"PK\x01\x02\x14\x03\xff\0"),
}


@pytest.mark.parametrize("content", LATER_DAMAGE.values(), ids=LATER_DAMAGE)
def test_damage_that_shows_late_leaves_nothing(extract, tmp_path, content):
    with pytest.raises(ArchiveError, match=r"archive: expected (a whole archive|a method of compression)"):
        extract(content)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_damage_anywhere_is_an_error_of_the_archive(tmp_path):
    """Single bytes of archives of every kind: extracted as it is, or an ArchiveError."""
    random, path = np.random.default_rng(0), tmp_path / "archive"
    seeds = [tar_of(MEMBERS, kind) for kind in ("", "gz", "bz2", "xz")] + [zip_of(MEMBERS)]
    for number in range(250):
        content = bytearray(seeds[number % len(seeds)])
        content[random.integers(len(content)) // (1 if number % 2 else 20)] = random.integers(256)
        path.write_bytes(content)
        folder = tmp_path / str(number)
        folder.mkdir()
        with suppress(ArchiveError):
            extract_archive(path, folder)
            continue
        assert not [file for file in folder.rglob("*") if file.is_file()]
