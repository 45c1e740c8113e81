# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Chips with labels as a whole: folders of classes, tables, splits, and what is wrong with them."""

import pytest

from prithvi_hf.data import load_dataset
from tests.raster_factory import write_chip


CLASSES = {"Forest": ("a", "b"), "River": ("a", "c")}


def make_folders(root, splits=("",)):
    for split in splits:
        for name, chips in CLASSES.items():
            for seed, chip in enumerate(chips):
                write_chip(root / split / name / f"{chip}.tif", 8, seed)
    return root


def load(root, **options):
    return load_dataset("geotiff_classification", root, cache_dir=str(root.parent / "cache"), **options)


def labels_of(dataset):
    return dict(zip(dataset["id"], dataset["label"], strict=True))


FOLDERS = {"Forest/a": "Forest", "Forest/b": "Forest", "River/a": "River", "River/c": "River"}


def test_a_folder_per_class_in_folders_of_splits(tmp_path):
    splits = load(make_folders(tmp_path / "chips", ("train", "val")))
    assert {name: labels_of(split) for name, split in splits.items()} == {"train": FOLDERS, "validation": FOLDERS}
    assert splits["train"][0]["image"].shape == (6, 8, 8)
    assert set(splits["train"].features) == {"image", "label", "id", "date"}


def test_lists_name_chips_with_or_without_their_folder(tmp_path):
    root = make_folders(tmp_path / "chips")
    (root / "train.txt").write_text("Forest/a.tif\nRiver/a.tif\n")
    splits = load(root, splits={"train": "train.txt", "test": ["b", "c.jpg"]})
    assert splits["train"]["id"] == ["Forest/a", "River/a"]
    assert labels_of(splits["test"]) == {"Forest/b": "Forest", "River/c": "River"}
    with pytest.raises(ValueError, match="expected one image a, found Forest/a, River/a"):
        load(root, splits={"train": ["a"]})


def test_a_table_beside_the_images(tmp_path):
    root = tmp_path / "chips"
    for chip in "abc":
        write_chip(root / f"{chip}_S2.tif", 8)
    (root / "metadata.csv").write_text("\ufefffile_name,label\na_S2.tif,Forest;River\nb,\nc_S2.tif,Sea\n")
    dataset = load(root, split="train", image_suffix="_S2.tif")
    assert labels_of(dataset) == {"a": "Forest;River", "b": "", "c": "Sea"}


def test_columns_of_zeros_and_ones_and_a_column_of_splits(tmp_path):
    root = tmp_path / "chips"
    for chip in "abc":
        write_chip(root / "images" / f"{chip}.tif", 8)
    rows = "chip,split,Forest,River\nimages/a.tif,Training,1,1\nb,train,0,0\nc.tif,test,0,true\n"
    (root / "labels.csv").write_text(rows)
    options = {"table": "labels.csv", "file_column": "chip", "label_columns": ["Forest", "River"]}
    splits = load(root, image_dir="images", **options)
    assert labels_of(splits["train"]) == {"a": "Forest;River", "b": ""}
    assert labels_of(splits["test"]) == {"c": "River"}


def test_one_table_tells_the_chips_of_several_splits_apart(tmp_path):
    root = tmp_path / "chips"
    for split in ("train", "test"):
        write_chip(root / split / "1.tif", 8)
    (root / "metadata.csv").write_text("file_name,label\ntrain/1.tif,Forest\ntest/1.tif,River\n")
    splits = load(root)
    assert [labels_of(splits[name]) for name in ("train", "test")] == [{"1": "Forest"}, {"1": "River"}]


def test_frames_are_files(tmp_path):
    root = tmp_path / "chips"
    for month in ("june", "july"):
        write_chip(root / "Forest" / f"a_{month}.tif", 8)
    row = load(root, split="train", image_suffix=["_june.tif", "_july.tif"])[0]
    assert [frame.name.rpartition("/")[2] for frame in row["image"]] == ["a_june.tif", "a_july.tif"]
    assert (row["label"], row["dates"]) == ("Forest", [None, None])


def test_a_changed_table_changes_the_rows(tmp_path):
    root = tmp_path / "chips"
    write_chip(root / "a.tif", 8)
    for label in ("Forest", "River!"):
        (root / "metadata.csv").write_text(f"file_name,label\na,{label}\n")
        assert load(root, split="train")["label"] == [label]


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ("file_name,class\na,Forest\n", {}, "expected columns file_name and label, found file_name, class"),
        ("file_name,label\na,Forest\na.tif,River\n", {}, "expected each file once"),
        ("file_name,Forest\na,2\n", {"label_columns": ["Forest"]}, "expected 0 or 1 for each class, found '2'"),
        ("file_name,label\nb,Forest\n", {}, r"1 without image \(b\) and 1 without label \(a\)"),
        (None, {}, r"1 without label \(a\).*"),
        (None, {"table": "labels.csv"}, "Expected a table of labels"),
        (None, {"mask_suffix": "_mask.tif"}, "expected no mask_suffix"),
        (None, {"mask_sufix": "_mask.tif"}, "unknown options"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(tmp_path, table, options, message):
    root = tmp_path / "chips"
    write_chip(root / "a.tif", 8)
    if table is not None:
        (root / "metadata.csv").write_text(table)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(root, **options)
