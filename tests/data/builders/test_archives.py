"""Extraction of archives: what comes out, and everything hostile or damaged that must not."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pytest

from prithvi_hf.data.builders import download as archives
from prithvi_hf.data.builders.download import ArchiveError, extract_archive
from tests.archive_factory import tar_of, zip_of


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
EXTRACTED = {"training/chip_1_merged.tif": CONTENT, "training/sub/chip_1.mask.tif": b"mask"}


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
    assert extract(content) == EXTRACTED


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
    monkeypatch.setattr(archives, "MAX_UNBACKED_BYTES", 2**20)
    bomb = pack([("zeros", bytes(3 * 2**20))])
    assert len(bomb) < 20_000
    with pytest.raises(ArchiveError, match=r"at most [\d,]+ bytes of content.*not credible"):
        extract(bomb)
    assert sum(file.stat().st_size for file in (tmp_path / "out").rglob("*")) <= 3 * 2**20


def test_a_bomb_in_what_is_left_out_or_in_a_header(extract, monkeypatch):
    monkeypatch.setattr(archives, "MAX_UNBACKED_BYTES", 2**20)
    with pytest.raises(ArchiveError, match="not credible"):
        extract(tar_of([("._zeros", bytes(3 * 2**20)), ("chip", b"x")]))


def test_a_long_name_of_megabytes(extract, monkeypatch):
    monkeypatch.setattr(archives, "MAX_UNBACKED_BYTES", 2**20)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("a" * (3 * 2**20)))
    with pytest.raises(ArchiveError, match="not credible"):
        extract(buffer.getvalue())


def test_too_many_members(extract, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 4)
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
