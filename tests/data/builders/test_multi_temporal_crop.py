"""The builder of the multi-temporal crops: lists, dates, blocks of neighbours and what is refused."""

import shutil
from functools import partial

import numpy as np
import pytest

from prithvi_hf.data import load_dataset
from prithvi_hf.data.builders.multi_temporal_crop import (
    MULTI_TEMPORAL_CROP_BANDS,
    MULTI_TEMPORAL_CROP_CLASS_COLORS,
    MULTI_TEMPORAL_CROP_CLASSES,
)
from tests.raster_factory import CROP_CHIPS, make_crops, pack


TRAIN, VALIDATION = (list(CROP_CHIPS[name]) for name in ("training", "validation"))


@pytest.fixture
def load(tmp_path):
    return partial(load_dataset, "multi_temporal_crop", cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    return make_crops(tmp_path / "data")


def ids(dataset):
    return {split: list(rows["id"]) for split, rows in dataset.items()}


def test_constants():
    assert len(set(MULTI_TEMPORAL_CROP_CLASS_COLORS)) == len(MULTI_TEMPORAL_CROP_CLASSES) == 13
    assert MULTI_TEMPORAL_CROP_CLASSES[2] == "Corn"


def test_official_layout(root, load, caplog):
    dataset = load(data_dir=root)
    assert ids(dataset) == {"train": TRAIN, "validation": VALIDATION, "test": VALIDATION}
    assert "test holds the validation chips" in caplog.text
    row = dataset["train"][0]
    assert list(row) == ["image", "mask", "id", "dates"]
    assert (row["image"].shape, row["image"].dtype) == ((18, 32, 32), "int16")
    assert row["image"].name.endswith("training_chips/chip_328_501_merged.tif")
    assert set(np.unique(row["mask"].read())) == set(range(14))
    assert row["dates"] == ["2022-03-24", "2022-06-01", "2022-09-15"]
    features = dataset["train"].features
    assert features["image"].band_names == list(MULTI_TEMPORAL_CROP_BANDS) * 3
    assert features["mask"].class_names == list(MULTI_TEMPORAL_CROP_CLASSES)
    assert dataset["train"].info.license == "cc-by-4.0"


def test_lists_choose_chips_and_their_order(root, load, caplog):
    (root / "training_data.txt").write_text("chip_007_042_merged.tif\r\n\r\ntraining_chips/chip_328_501.mask.tif\n")
    assert load(data_dir=root, split="train")["id"][:] == ["chip_007_042", "chip_328_501"]
    assert "1 chips of the folder are not in the list" in caplog.text


def test_the_other_name_of_the_list(root, load):
    (root / "training_data.txt").rename(root / "train_data.txt")
    (root / "train_data.txt").write_text("chip_100_200\n")
    assert load(data_dir=root, split="train")["id"][:] == ["chip_100_200"]


def test_without_lists_and_dates_all_chips_are_used(tmp_path, load, caplog):
    root = make_crops(tmp_path / "data", lists=False, dates=False)
    dataset = load(data_dir=root)
    assert ids(dataset) == {"train": sorted(TRAIN), "validation": sorted(VALIDATION), "test": sorted(VALIDATION)}
    assert dataset["train"]["dates"][:] == [[None] * 3] * 3
    assert "no training_data.txt found, so all of its 3 chips are used" in caplog.text
    assert "no chips_df.csv found" in caplog.text


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2022-06-21", "2022-06-21"),
        ("20220621", "2022-06-21"),
        ("2022/06/21", "2022-06-21"),
        ("2022-06-21 17:03:11", "2022-06-21"),
        ("2022-06-21T17:03:11Z", "2022-06-21"),
        ("", None),
        ("NaT", None),
    ],
)
def test_forms_of_dates(root, load, text, day):
    header = "x,chip_id,first_img_date,middle_img_date,last_img_date"
    (root / "chips_df.csv").write_text(f"{header}\n0,328_501,{text},2022-07-01,\n1,chip_100_200,,,2022-07-02\n")
    dates = dict(zip(*(load(data_dir=root, split="train")[name][:] for name in ("id", "dates")), strict=True))
    assert dates["chip_328_501"] == [day, "2022-07-01", None]
    assert dates["chip_100_200"] == [None, None, "2022-07-02"]
    assert dates["chip_007_042"] == [None] * 3


def test_three_way_keeps_neighbours_on_one_side(root, load, caplog):
    tests = set()
    for seed in range(6):
        caplog.clear()
        splits = ids(load(data_dir=root, split_scheme="three_way", split_seed=seed))
        assert sorted(splits["validation"] + splits["test"]) == sorted(VALIDATION)
        together = {"chip_150_250", "chip_150_251"}
        assert together <= set(splits["test"]) or together <= set(splits["validation"])
        # chip_328_501 of the training chips touches chip_329_502
        assert ("chip_328_501" in splits["train"]) == ("chip_329_502" not in splits["test"])
        assert ("1 of 3 training chips are left out" in caplog.text) == ("chip_329_502" in splits["test"])
        tests.add(tuple(splits["test"]))
    assert len(tests) > 1


def test_streaming_gives_the_same_rows(root, load):
    stream = load(data_dir=root, split="train", streaming=True)
    assert [row["id"] for row in stream] == TRAIN
    assert next(iter(stream))["dates"][0] == "2022-03-24"


# ----------------------------------------------------------------- refused


@pytest.mark.parametrize("streaming", [False, True])
def test_a_list_that_names_absent_chips(root, load, streaming):
    (root / "training_data.txt").write_text("chip_328_501\nchip_9_9\n")
    with pytest.raises(FileNotFoundError, match=r"training_data\.txt.*1 without image \(chip_9_9\) and 1"):
        load(data_dir=root, streaming=streaming)


def test_image_without_mask(root, load):
    (root / "validation_chips" / "chip_400_100.mask.tif").unlink()
    with pytest.raises(FileNotFoundError, match=r"folder validation_chips.*1 without mask \(chip_400_100\)"):
        load(data_dir=root)


def test_missing_folder(root, load):
    shutil.rmtree(root / "training_chips")
    assert list(load(data_dir=root)) == ["validation", "test"]
    shutil.rmtree(root / "validation_chips")
    with pytest.raises(FileNotFoundError, match=r"training_chips and validation_chips.*found none named train"):
        load(data_dir=root)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("training_data.txt", "chip_328_501\nchip_328_501\n", "1 listed again: chip_328_501"),
        ("training_data.txt", "\n", "at least one chip"),
        ("copy/training_data.txt", "chip_328_501\n", "one file named training_data.txt, found"),
        ("copy/train_data.txt", "chip_328_501\n", "one file named training_data.txt or train_data.txt, found"),
        ("copy/chips_df.csv", "chip_id\n", r"one file named chips_df\.csv, found"),
        ("chips_df.csv", "chip_id,first_img_date\n", r"chips_df\.csv: expected columns.*last_img_date missing"),
        ("chips_df.csv", "", r"found None"),
        (
            "chips_df.csv",
            "chip_id,first_img_date,middle_img_date,last_img_date\nchip_1_1,in spring,,\n",
            "found 'in spring'",
        ),
    ],
)  # fmt: skip
def test_lists_and_tables_that_cannot_be_used(root, load, name, text, message):
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load(data_dir=root)


def test_a_chip_in_both_lists(root, load):
    for path in (root / "validation_chips").glob("chip_400_100*"):
        shutil.copy(path, root / "training_chips")
    with open(root / "training_data.txt", "a") as file:
        file.write("chip_400_100\n")
    with pytest.raises(ValueError, match="found 1 in both: chip_400_100"):
        load(data_dir=root)


def test_downloads_two_archives_lists_and_dates(root, load, hub, monkeypatch):
    hub.redirect_this_process(monkeypatch)
    archives = {f"{name}.tgz": pack(root, name) for name in ("training_chips", "validation_chips")}
    plain = {path.name: path.read_bytes() for path in root.glob("*.[tc][xs][tv]")}
    assert len(plain) == 3
    hub.put_files("ibm-nasa-geospatial/multi-temporal-crop-classification", {**archives, **plain})
    dataset = load()
    assert ids(dataset) == ids(load(data_dir=root))
    assert dataset["train"][0]["dates"] == ["2022-03-24", "2022-06-01", "2022-09-15"]
