"""The builder of the HLS burn scars: layout, dates, splits and what is refused."""

import shutil
from functools import partial

import numpy as np
import pytest

from prithvi_hf.data import load_dataset, make_builder
from prithvi_hf.data.builders.hls_burn_scars import (
    HLS_BURN_SCARS_BANDS,
    HLS_BURN_SCARS_CLASS_COLORS,
    HLS_BURN_SCARS_CLASSES,
)
from prithvi_hf.data.builders.splits import find_tiles
from tests.raster_factory import BURN_SCARS, make_burn_scars, pack


@pytest.fixture
def load(tmp_path):
    return partial(load_dataset, "hls_burn_scars", cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    return make_burn_scars(tmp_path / "data" / "hls_burn_scars")


def stem(chip):
    return f"subsetted_512x512_HLS.S30.{chip}.v1.4"


def ids(dataset):
    return {split: list(rows["id"]) for split, rows in dataset.items()}


def test_official_layout(root, load):
    dataset = load(data_dir=root)
    validation = [stem(chip) for chip in BURN_SCARS["validation"]]
    assert ids(dataset) == {
        "train": [stem(chip) for chip in BURN_SCARS["training"]],
        "validation": sorted(validation),
        "test": sorted(validation),
    }
    row = dataset["train"][0]
    assert list(row) == ["image", "mask", "id", "date"]
    assert (row["image"].shape, row["image"].dtype, row["image"].nodata) == ((6, 32, 32), "float32", -9999)
    assert row["image"].name.endswith("training/subsetted_512x512_HLS.S30.T10SEH.2018190.v1.4_merged.tif")
    assert row["mask"].name.endswith("training/subsetted_512x512_HLS.S30.T10SEH.2018190.v1.4.mask.tif")
    assert set(np.unique(row["mask"].read())) == {-1, 0, 1}
    assert row["date"] == "2018-07-09"


@pytest.mark.parametrize("above", [0, 1, 2])
def test_any_folder_above_will_do(root, load, above):
    data_dir = [root, *root.parents][above]
    assert load(data_dir=data_dir, split="train", cache_dir=str(root.parents[1] / "elsewhere")).num_rows == 4


@pytest.mark.parametrize("streaming", [False, True])
def test_info_describes_the_columns(root, load, streaming):
    load(data_dir=root, split="train")
    info = load(data_dir=root, split="train", streaming=streaming).info  # from the cache, or never stored
    assert info.features["image"].band_names == list(HLS_BURN_SCARS_BANDS)
    assert info.features["mask"].class_names == list(HLS_BURN_SCARS_CLASSES)
    assert info.features["mask"].class_colors == list(HLS_BURN_SCARS_CLASS_COLORS)
    assert (info.license, info.homepage) == (
        "cc-by-4.0",
        "https://huggingface.co/datasets/ibm-nasa-geospatial/hls_burn_scars",
    )
    assert "10.57967/hf/0956" in info.citation
    assert "804 chips" in info.description


def test_test_split_that_is_no_test_is_announced_each_time(root, load, caplog):
    for _ in range(2):  # the second time rows come from the cache
        caplog.clear()
        load(data_dir=root)
        assert "test holds the validation chips" in caplog.text
    caplog.clear()
    load(data_dir=root, split="train")
    assert not caplog.text
    load(data_dir=root, split="test", streaming=True)
    assert "split_scheme='three_way'" in caplog.text


@pytest.mark.parametrize("seed", range(4))
def test_three_way_shares_no_tile_with_test(root, load, seed, caplog):
    dataset = load(data_dir=root, split_scheme="three_way", split_seed=seed)
    tiles = {split: set(find_tiles(chips, "x").values()) for split, chips in ids(dataset).items()}
    assert tiles["test"]
    assert not tiles["test"] & (tiles["validation"] | tiles["train"])
    held_out = ids(dataset)["validation"] + ids(dataset)["test"]
    assert sorted(held_out) == sorted(stem(chip) for chip in BURN_SCARS["validation"])
    left_out = 4 - len(ids(dataset)["train"])
    assert left_out == (2 if "10SEH" in tiles["test"] else 0)
    assert (f"{left_out} of 4 training chips are left out" in caplog.text) == bool(left_out)
    assert "test holds the validation chips" not in caplog.text


def test_options_have_caches_of_their_own(root, load):
    found = {tuple(ids(load(data_dir=root, split_scheme="three_way", split_seed=seed))["test"]) for seed in range(6)}
    assert len(found) > 1
    assert len(ids(load(data_dir=root))["test"]) == 4


def test_streaming_and_processes_give_the_same_rows(root, load):
    stream = load(data_dir=root, split="train", streaming=True)
    assert stream.num_shards == 4
    assert [row["id"] for row in stream] == [stem(chip) for chip in BURN_SCARS["training"]]
    builder = make_builder("hls_burn_scars", root, cache_dir=str(root.parents[1] / "processes"))
    builder.download_and_prepare(num_proc=2)
    assert builder.as_dataset("train")["id"][:] == [stem(chip) for chip in BURN_SCARS["training"]]


def test_names_without_a_day_have_no_date_and_no_three_way(root, load):
    for path in (root / "training").glob("subsetted*T10SEH.2018190*"):
        path.rename(path.with_name(path.name.replace("HLS.S30.T10SEH.2018190", "mine")))
    rows = load(data_dir=root, split="train")
    assert dict(zip(rows["id"][:], rows["date"][:], strict=True))["subsetted_512x512_mine.v1.4"] is None
    with pytest.raises(ValueError, match="expected an MGRS tile"):
        load(data_dir=root, split_scheme="three_way")


# ----------------------------------------------------------------- refused


@pytest.mark.parametrize("streaming", [False, True])
def test_missing_halves_of_pairs(root, load, streaming):
    (root / "training" / f"{stem('T10SEH.2018190')}_merged.tif").unlink()
    (root / "training" / f"{stem('T12STJ.2021120')}.mask.tif").unlink()
    expected = r"folder training.*of 4 chips, found 1 without image \(.*2018190.*\) and 1 without mask \(.*2021120"
    with pytest.raises(FileNotFoundError, match=expected):
        load(data_dir=root, streaming=streaming)


def test_missing_folders(root, load, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"found none named training or validation\. Point data_dir"):
        load(data_dir=root / "training")
    with pytest.raises(FileNotFoundError, match=r"nowhere.*Check the path"):
        load(data_dir=tmp_path / "nowhere")


def test_the_validation_chips_alone_can_be_evaluated(root, load, caplog):
    both = ids(load(data_dir=root))
    shutil.rmtree(root / "training")
    assert ids(load(data_dir=root)) == {name: both[name] for name in ("validation", "test")}
    assert "no folder training with .tif files, so its split is not offered" in caplog.text
    with pytest.raises(ValueError, match="three_way' expects training and validation chips, found 0 and"):
        load(data_dir=root, split_scheme="three_way")


def test_two_copies(root, load):
    make_burn_scars(root.parent / "copy")
    with pytest.raises(ValueError, match="one folder named training, found copy/training and hls_burn_scars/training"):
        load(data_dir=root.parent)


def test_a_chip_in_both_folders(root, load):
    for path in (root / "validation").glob("subsetted*T14RQV*"):
        shutil.copy(path, root / "training")
    with pytest.raises(ValueError, match=r"found 1 in both: subsetted.*T14RQV"):
        load(data_dir=root)


def test_a_day_that_does_not_exist(root, load):
    for path in (root / "training").glob("subsetted*2018190*"):
        path.rename(path.with_name(path.name.replace("2018190", "2018390")))
    with pytest.raises(ValueError, match="2018390"):
        load(data_dir=root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split_scheme": "random"}, r"split_scheme among \['published', 'three_way'\], found 'random'"),
        ({"split_seed": "0"}, "split_seed as an integer, found '0'"),
        ({"revision": "main"}, "expected repository and revision without data_dir"),
        ({"seed": 0}, r"unknown options \['seed'\]"),
    ],
)
def test_wrong_options(root, load, options, message):
    with pytest.raises(ValueError, match=message):
        load(data_dir=root, **options)


# ----------------------------------------------------------------- from the Hub


def test_downloads_the_archive_without_data_dir(root, load, hub, monkeypatch, caplog):
    hub.redirect_this_process(monkeypatch)
    archive = {"hls_burn_scars.tar.gz": pack(root, "training", "validation")}
    hub.put_files("ibm-nasa-geospatial/hls_burn_scars", {**archive, "README.md": b"---\nlicense: cc-by-4.0\n---\n"})
    dataset = load()
    assert ids(dataset) == ids(load(data_dir=root))
    np.testing.assert_array_equal(dataset["train"][1]["image"].read(), load(data_dir=root)["train"][1]["image"].read())
    assert load(split="validation").cache_files == dataset["validation"].cache_files
    caplog.clear()
    assert next(iter(load(split="train", streaming=True)))["id"] == stem(BURN_SCARS["training"][0])
    assert "streaming without data_dir" in caplog.text
    assert hub.downloads("hls_burn_scars.tar.gz") == 1
    assert hub.downloads("README.md") == 0


def test_a_builder_by_itself_downloads_too(root, tmp_path, hub, monkeypatch):
    hub.redirect_this_process(monkeypatch)
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.tif")}
    hub.put_files("me/scars", files)
    builder = make_builder("hls_burn_scars", repository="me/scars", cache_dir=str(tmp_path / "cache"))
    assert not hub.requests
    builder.download_and_prepare()
    assert builder.as_dataset("train").num_rows == 4
    assert not any("._" in path for _, path in hub.requests)
