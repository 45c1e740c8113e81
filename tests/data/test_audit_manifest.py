"""What a check of chips found is known to the next one, which reads changed chips alone and says the same."""

import multiprocessing
from dataclasses import asdict

import pytest
from datasets import Dataset, Features, Value

from prithvi_hf.data import audit as checking
from prithvi_hf.data.audit import audit_split
from prithvi_hf.data.audit_manifest import AuditManifest
from prithvi_hf.data.geotiff import GeoTiff
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from tests.raster_factory import BANDS, cut_off, write_chip, write_mask


FEATURES = Features({"image": GeoTiff(), "mask": GeoTiff(), "id": Value("string"), "date": Value("string")})
PROCESSOR = PrithviImageProcessor(bands=list(BANDS), ignore_values=[-1])
COUNT = 10


@pytest.fixture
def split(tmp_path):
    rows = {"image": [], "mask": [], "id": [], "date": []}
    for seed in range(COUNT):
        write_chip(tmp_path / f"{seed}.tif", seed=seed)
        rows["image"].append(str(tmp_path / f"{seed}.tif"))
        write_mask(tmp_path / f"{seed}_mask.tif", seed=seed)
        rows["mask"].append(str(tmp_path / f"{seed}_mask.tif"))
        rows["id"].append(str(seed))
        rows["date"].append("2020-01-01")
    return Dataset.from_dict(rows, features=FEATURES)


@pytest.fixture
def read(monkeypatch):
    """Ids of the chips that are read, as they come."""
    chips, count = [], checking._ChipCounter.count

    def count_and_note(self, chip):
        chips.append(chip.id)
        return count(self, chip)

    monkeypatch.setattr(checking._ChipCounter, "count", count_and_note)
    monkeypatch.setattr(checking, "_ALWAYS_READ", 0)
    return chips


def check(split, folder, options=None, **more):
    manifest = AuditManifest(folder, "train", options or {"classes": 2}, split)
    return audit_split(split, PROCESSOR, 2, "train", False, coords_encoding=["time"], manifest=manifest, **more)


def test_a_second_check_reads_nothing_and_says_the_same_to_the_bit(split, tmp_path, read):
    plain = audit_split(split, PROCESSOR, 2, "train", False, coords_encoding=["time"])
    first = check(split, tmp_path / "cache")
    read.clear()
    assert asdict(check(split, tmp_path / "cache")) == asdict(first) == asdict(plain)
    assert read == []


def test_a_changed_and_a_new_chip_alone_are_read_again(split, tmp_path, read):
    short = split.select(range(COUNT - 1))
    check(short, tmp_path / "cache")
    read.clear()
    write_mask(tmp_path / "3_mask.tif", seed=99)
    found = check(split, tmp_path / "cache")
    assert sorted(read) == ["3", "9"]
    assert asdict(found) == asdict(audit_split(split, PROCESSOR, 2, "train", False, coords_encoding=["time"]))


def test_another_date_in_the_table_is_checked_again(split, tmp_path, read):
    check(split, tmp_path / "cache")
    read.clear()
    dates = ["2020-01-01"] * (COUNT - 1) + [None]
    features = split.features
    other = split.remove_columns("date").add_column("date", dates).cast(features)
    assert check(other, tmp_path / "cache").coordinate_problems
    assert read == ["9"]


def test_other_options_have_a_manifest_of_their_own(split, tmp_path, read):
    check(split, tmp_path / "cache")
    read.clear()
    check(split, tmp_path / "cache", {"classes": 3})
    assert len(read) == COUNT


def test_a_bad_chip_is_named_at_each_start_and_the_good_ones_are_not_read_again(split, tmp_path, read):
    cut_off(tmp_path / "5.tif", 0.5)
    for _ in range(2):
        read.clear()
        with pytest.raises(ValueError, match=r"1 of 10 chips cannot be used"):
            check(split, tmp_path / "cache")
    assert read == []  # and the bad one fails as it is opened


def test_a_damaged_manifest_is_a_warning_and_made_again(split, tmp_path, read, caplog):
    first = check(split, tmp_path / "cache")
    [path] = (tmp_path / "cache").rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:200])
    read.clear()
    assert check(split, tmp_path / "cache") == first
    assert len(read) == COUNT
    assert "found a damaged file" in caplog.text
    read.clear()
    check(split, tmp_path / "cache")
    assert read == []


def test_a_cache_that_cannot_be_written_is_a_warning(split, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file, not a folder")
    assert check(split, tmp_path / "cache").chips == COUNT
    assert "The next start reads every chip again" in caplog.text


def test_a_sample_is_the_same_each_time_and_says_what_was_not_looked_at(split, tmp_path, read, monkeypatch):
    monkeypatch.setattr(checking, "_SAMPLE", 5)
    found = check(split, tmp_path / "cache", sample=True)
    assert sorted(read, key=int) == ["0", "2", "4", "6", "8"]
    assert (found.chips, found.unchecked_chips) == (5, 5)
    assert "5 of 10 chips, the others were not looked at" in found.summary(["land", "water"])
    assert check(split, tmp_path / "cache").chips == COUNT


def check_and_tell(split, folder, queue):
    queue.put(check(split, folder).digest)


@pytest.mark.slow
def test_processes_that_check_at_once_leave_one_whole_manifest(split, tmp_path, read):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=check_and_tell, args=(split, tmp_path / "cache", queue)) for _ in range(2)]
    for process in processes:
        process.start()
    digests = {queue.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(timeout=60)
    assert len(digests) == 1
    assert [path.suffix for path in (tmp_path / "cache" / "prithvi_hf_checked").iterdir()] == [".parquet"]
    check(split, tmp_path / "cache")
    assert read == []


def test_a_few_chips_are_always_read(split, tmp_path, read, monkeypatch):
    monkeypatch.setattr(checking, "_ALWAYS_READ", 4)
    check(split, tmp_path / "cache")
    read.clear()
    check(split, tmp_path / "cache")
    assert sorted(read, key=int) == ["0", "2", "5", "7"]


def test_chips_without_files_are_read_each_time(split, tmp_path, read):
    embedded = {
        name: [(tmp_path / f"{seed}{end}.tif").read_bytes() for seed in range(COUNT)]
        for name, end in (("image", ""), ("mask", "_mask"))
    }
    table = Dataset.from_dict({**embedded, "id": split["id"], "date": split["date"]}, features=FEATURES)
    for _ in range(2):
        read.clear()
        assert check(table, tmp_path / "cache").chips == COUNT
        assert len(read) == COUNT
    assert not list(tmp_path.rglob("*.parquet"))
