"""The builder of Sen1Floods11: layouts, lists, dates, the cache, downloads and what is refused."""

import base64
import hashlib
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from prithvi_hf.data import load_dataset, make_builder
from prithvi_hf.data.builders.download import DownloadError
from prithvi_hf.data.builders.sen1floods11 import SEN1FLOODS11_BANDS, SEN1FLOODS11_CLASS_COLORS, SEN1FLOODS11_CLASSES
from prithvi_hf.data.geotiff import GeoTiff
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from tests.raster_factory import FLOOD_SPLITS, make_sen1floods11


SPLITS = {"train": "train", "validation": "valid", "test": "test", "bolivia": "bolivia"}


@pytest.fixture
def load(tmp_path):
    """`load_dataset` with a cache of its own."""
    return partial(load_dataset, "sen1floods11", cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    return make_sen1floods11(tmp_path / "data")


def ids(dataset):
    return {split: list(rows["id"]) for split, rows in dataset.items()}


EXPECTED = {split: list(FLOOD_SPLITS[name]) for split, name in SPLITS.items()}


def test_constants():
    assert len(SEN1FLOODS11_BANDS) == len(set(SEN1FLOODS11_BANDS)) == 13
    assert [SEN1FLOODS11_BANDS[i] for i in (1, 2, 3, 8, 11, 12)] == [
        "BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2",
    ]  # fmt: skip
    assert len(SEN1FLOODS11_CLASSES) == len(SEN1FLOODS11_CLASS_COLORS) == 2


def test_official_layout(root, load):
    dataset = load(data_dir=root)
    assert ids(dataset) == EXPECTED
    row = dataset["train"][0]
    assert list(row) == ["image", "mask", "id", "date", "country"]
    assert row["country"] == "GHA"
    assert row["image"].shape == (13, 32, 32)
    assert (row["image"].dtype, row["image"].nodata) == ("int16", 0)
    assert row["image"].descriptions[8] == "B8A"
    assert row["mask"].name.endswith("Ghana_103272_LabelHand.tif")
    assert set(np.unique(row["mask"].read())) == {-1, 0, 1}
    features = dataset["train"].features
    assert isinstance(features["image"], GeoTiff)
    assert features["image"].band_names == list(SEN1FLOODS11_BANDS)
    assert features["mask"].class_names == list(SEN1FLOODS11_CLASSES)
    assert features["mask"].class_colors == list(SEN1FLOODS11_CLASS_COLORS)


@pytest.mark.parametrize("lists", ["csv", "txt"])
@pytest.mark.parametrize("flat", [False, True])
def test_other_layouts(tmp_path, load, lists, flat):
    root = make_sen1floods11(tmp_path / "data", lists=lists, flat=flat)
    assert ids(load(data_dir=root)) == EXPECTED


def test_v11_itself_and_relative_paths(root, load, monkeypatch):
    monkeypatch.chdir(root)
    assert ids(load(data_dir="v1.1")) == EXPECTED
    monkeypatch.chdir("/")
    assert load(data_dir=root / "v1.1", split="test")[0]["image"].read().any()


def test_lists_of_file_names_paths_and_blank_lines(root, load):
    path = root / "v1.1" / "splits" / "flood_handlabeled" / "flood_train_data.csv"
    path.write_text("S2Hand/Ghana_103272_S2Hand.tif\r\n\r\nSpain_7370579_LabelHand.tif,x\r\n Mekong_16233 \r\n")
    assert load(data_dir=root, split="train")["id"][:] == list(FLOOD_SPLITS["train"])


def test_dates_come_from_the_event_metadata(root, load):
    dataset = load(data_dir=root)
    dates = {row["id"]: row["date"] for split in dataset.values() for row in split}
    assert dates == {
        "Ghana_103272": "2018-09-19",
        "Spain_7370579": "2019-09-18",
        "Mekong_16233": "2018-08-04",
        "India_80221": None,
        "Ghana_5079": "2018-09-19",
        "Bolivia_23014": "2018-02-15",
    }


def test_no_metadata_is_no_date(tmp_path, load):
    root = make_sen1floods11(tmp_path / "data", metadata=False)
    assert load(data_dir=root, split="train")["date"][:] == [None] * 3


@pytest.mark.parametrize("event", [{}, {"properties": {"location": "Ghana", "s2_date": "in autumn"}}])
def test_unreadable_metadata(root, load, event):
    (root / "v1.1" / "Sen1Floods11_Metadata.geojson").write_text(json.dumps({"features": [event]}))
    with pytest.raises(ValueError, match=r"Metadata\.geojson: expected features.*location"):
        load(data_dir=root)


def test_streaming_gives_the_same_rows(root, load):
    stream = load(data_dir=root, split="train", streaming=True)
    assert stream.num_shards == 3
    rows = list(stream)
    assert [row["id"] for row in rows] == list(FLOOD_SPLITS["train"])
    assert all(isinstance(row["image"], GeoTiffRaster) for row in rows)
    assert set(load(data_dir=root, streaming=True)) == set(SPLITS)


def test_info_tells_where_it_comes_from(root, load):
    info = load(data_dir=root, split="train").info
    assert "Sentinel-2" in info.description
    assert "Bonafilia" in info.citation
    assert info.license
    assert info.homepage.startswith("https://")


def test_absent_lists_are_not_offered(tmp_path, load):
    root = make_sen1floods11(tmp_path / "data", {"train": ("Ghana_1",), "test": ("Ghana_2",)})
    assert list(load(data_dir=root)) == ["train", "test"]
    for streaming in (False, True):
        with pytest.raises(ValueError, match=r"bolivia.*train.*test"):
            load(data_dir=root, split="bolivia", streaming=streaming)


def test_split_expressions(root, load):
    assert load(data_dir=root, split="train[:2]").num_rows == 2
    assert load(data_dir=root, split="train+test").num_rows == 4


def test_side_files_of_macos_are_ignored(root, load):
    folder = root / "v1.1" / "data" / "flood_events" / "HandLabeled" / "S2Hand"
    (folder / "._Ghana_103272_S2Hand.tif").write_bytes(b"\0\5\x16\7")
    assert ids(load(data_dir=root)) == EXPECTED


# ----------------------------------------------------------------- refused


@pytest.mark.parametrize("streaming", [False, True])
def test_missing_pairs_are_counted_and_named(root, load, streaming):
    chips = root / "v1.1" / "data" / "flood_events" / "HandLabeled"
    (chips / "S2Hand" / "Spain_7370579_S2Hand.tif").unlink()
    (chips / "LabelHand" / "Mekong_16233_LabelHand.tif").unlink()
    expected = (
        r"split train.*of each of 3 chips, found 1 without image \(Spain_7370579\) and 1 without mask \(Mekong_16233\)"
    )
    with pytest.raises(FileNotFoundError, match=expected):
        load(data_dir=root, streaming=streaming)


def test_id_without_any_file(root, load):
    with open(root / "v1.1" / "splits" / "flood_handlabeled" / "flood_test_data.csv", "a") as file:
        file.write("Atlantis_1_S1Hand.tif,Atlantis_1_LabelHand.tif\n")
    with pytest.raises(FileNotFoundError, match=r"split test.*of each of 2 chips.*Atlantis_1"):
        load(data_dir=root)


def test_empty_folder_missing_folder_and_empty_list(root, tmp_path, load):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty: expected the official layout"):
        load(data_dir=tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"nowhere.*Check the path"):
        load(data_dir=tmp_path / "nowhere")
    (root / "v1.1" / "splits" / "flood_handlabeled" / "flood_train_data.csv").write_text("\n")
    with pytest.raises(ValueError, match=r"split train.*at least one chip"):
        load(data_dir=root)


def test_chip_listed_twice(root, load):
    (root / "v1.1" / "splits" / "flood_handlabeled" / "flood_test_data.csv").write_text("Ghana_5079\nGhana_5079\n")
    with pytest.raises(ValueError, match=r"split test.*1 listed again: Ghana_5079"):
        load(data_dir=root)


def test_two_copies_in_one_folder(tmp_path, load):
    make_sen1floods11(tmp_path / "data" / "a")
    make_sen1floods11(tmp_path / "data" / "b")
    with pytest.raises(ValueError, match="Point data_dir at"):
        load(data_dir=tmp_path / "data")


# ----------------------------------------------------------------- download


class Bucket(SimpleHTTPRequestHandler):
    """A folder as Google's storage serves it: with digests of the files."""

    fetched: ClassVar[list[str]] = []
    broken: ClassVar[list[str]] = []  # parts of paths that are answered by an error
    digests: ClassVar[dict[str, bytes]] = {}  # content that a wrong digest is made of, by part of a path

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.fetched.append(self.path)
        if any(part in self.path for part in self.broken):
            return self.send_error(404)
        return super().do_GET()

    def end_headers(self):
        path = Path(self.translate_path(self.path))
        if path.is_file():
            content = next((wrong for part, wrong in self.digests.items() if part in self.path), path.read_bytes())
            md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
            self.send_header("x-goog-hash", "crc32c=n03x6A==")
            self.send_header("x-goog-hash", f"md5={md5}")
        super().end_headers()


@pytest.fixture
def server(root, monkeypatch):
    """The folder behind http, on a loopback port."""
    for name, empty in (("fetched", []), ("broken", []), ("digests", {})):
        monkeypatch.setattr(Bucket, name, empty)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Bucket, directory=str(root))) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


def test_an_interrupted_download_goes_on_with_what_is_missing(server, load):
    Bucket.broken.append("Spain_7370579_LabelHand")
    with pytest.raises(FileNotFoundError, match=r"no file at .*Spain_7370579_LabelHand"):
        load(base_url=server)
    before = [path for path in Bucket.fetched if "Hand.tif" in path and "Spain_7370579_LabelHand" not in path]
    assert before
    Bucket.broken.clear()
    Bucket.fetched.clear()
    assert ids(load(base_url=server)) == EXPECTED
    assert not set(before) & set(Bucket.fetched)
    assert sum("Spain_7370579_LabelHand" in path for path in Bucket.fetched) == 1


def test_files_that_differ_from_the_digest_of_the_bucket(server, load):
    Bucket.digests["Ghana_5079_S2Hand"] = b"what it should have been"
    with pytest.raises(DownloadError, match=r"Expected 12 files with the MD5.*1 to differ: .*Ghana_5079_S2Hand"):
        load(base_url=server)
    Bucket.digests.clear()
    Bucket.fetched.clear()
    assert ids(load(base_url=server)) == EXPECTED
    assert [path for path in Bucket.fetched if "Hand.tif" in path] == [
        "/v1.1/data/flood_events/HandLabeled/S2Hand/Ghana_5079_S2Hand.tif"
    ]


def test_downloads_without_data_dir(server, load, root):
    dataset = load(base_url=server + "/")
    assert ids(dataset) == EXPECTED
    row = dataset["train"][1]
    chips = root / "v1.1" / "data" / "flood_events" / "HandLabeled"
    expected = GeoTiffRaster(chips / "S2Hand" / "Spain_7370579_S2Hand.tif").read()
    np.testing.assert_array_equal(row["image"].read(), expected)
    assert row["date"] == "2019-09-18"


@pytest.mark.parametrize("streaming", [False, True])
def test_a_bucket_that_cannot_be_reached(load, streaming):
    message = (
        r"http://127\.0\.0\.1:9/copy: expected the files of Sen1Floods11 .*found: \S+: .*Connect.*"
        r"Check the connection and base_url.*data_dir"
    )
    with pytest.raises(DownloadError, match=message):
        load(base_url="http://127.0.0.1:9/copy", streaming=streaming)


def test_a_builder_explains_it_too(tmp_path):
    builder = make_builder("sen1floods11", base_url="http://127.0.0.1:9", cache_dir=str(tmp_path))
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9: expected the files of Sen1Floods11.*as data_dir"):
        builder.download_and_prepare()


def test_a_bucket_without_the_files(server, load):
    Bucket.broken.append("flood_test_data")
    with pytest.raises(
        FileNotFoundError, match=r"127.*: expected the files.*no file at .*flood_test_data\.csv\. .*base_url"
    ):
        load(base_url=server)


def test_streams_without_data_dir(server, load):
    row = next(iter(load(base_url=server, split="test", streaming=True)))
    assert row["id"] == "Ghana_5079"
    assert row["mask"].read().shape == (1, 32, 32)


# ----------------------------------------------------------------- the real thing


def test_real_chips(flood_chips, load):
    dataset = load(data_dir=flood_chips)
    assert {split: rows.num_rows for split, rows in dataset.items()} == {
        "train": 5, "validation": 1, "test": 1, "bolivia": 1,
    }  # fmt: skip
    row = dataset["train"][0]
    assert (row["id"], row["date"]) == ("Spain_7370579", "2019-09-18")
    assert row["image"].shape == (13, 512, 512)
    assert row["mask"].select(window=(0, 0, 4, 4)).read().shape == (1, 4, 4)
