"""The builder of the user's own folder: pairing, splits, frames and what is refused."""

import os
import unicodedata
from functools import partial

import numpy as np
import pytest

from prithvi_hf.data import audit_split, load_dataset
from prithvi_hf.data.geotiff import GeoTiff
from prithvi_hf.data.statistics import compute_statistics
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from tests.raster_factory import (
    make_burn_scars,
    make_folder,
    make_sen1floods11,
    reflectance,
    write_chip,
    write_mask,
)


CHIPS = ("a", "b", "c")


@pytest.fixture
def load(tmp_path):
    return partial(load_dataset, "geotiff_folder", cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


def names(rows):
    """[(id, image file, mask file)], the files relative to the data."""
    found = []
    for row in rows:
        parts = [raster and raster.name.split("/data/")[1] for raster in (row["image"], row["mask"])]
        found.append((row["id"], *parts))
    return found


def test_one_folder_told_apart_by_suffix(root, load):
    make_folder(root, CHIPS)
    dataset = load(data_dir=root, mask_suffix="_mask.tif")
    assert list(dataset) == ["train"]
    assert names(dataset["train"]) == [(chip, f"{chip}.tif", f"{chip}_mask.tif") for chip in CHIPS]
    assert dataset["train"][0]["date"] is None
    np.testing.assert_array_equal(dataset["train"][1]["image"].read(), reflectance(6, seed=1))


def test_the_longer_suffix_decides_either_way(root, load):
    make_folder(root, CHIPS, image="{}_merged.tif", mask="{}.tif")
    rows = load(data_dir=root, image_suffix="_merged.tif", mask_suffix=".tif", split="train")
    assert names(rows)[0] == ("a", "a_merged.tif", "a.tif")


def test_burn_scar_names(root, load):
    for folder in ("training", "validation"):
        make_folder(root / folder, ("HLS.T10SEH.2018190.v1.4",), image="sub_{}_merged.tif", mask="sub_{}.mask.tif")
    dataset = load(data_dir=root, image_suffix="_merged.tif", mask_suffix=".mask.tif")
    assert list(dataset) == ["train", "validation"]
    assert dataset["train"]["id"][:] == ["sub_HLS.T10SEH.2018190.v1.4"]


def test_folders_of_images_and_masks_with_any_extension(root, load):
    write_chip(root / "images" / "a.tif")
    write_chip(root / "images" / "b.TIFF")
    write_mask(root / "labels" / "a.tiff")
    write_mask(root / "labels" / "b.TIF")
    rows = load(data_dir=root, image_dir="images", mask_dir="labels", split="train")
    assert names(rows) == [("a", "images/a.tif", "labels/a.tiff"), ("b", "images/b.TIFF", "labels/b.TIF")]


@pytest.mark.parametrize("validation", ["validation", "valid", "val"])
@pytest.mark.parametrize("inside", [False, True])
def test_split_folders_are_found(root, load, validation, inside):
    place = "{0}/{1}" if inside else "{1}/{0}"
    for split, chip in (("train", "a"), (validation, "b"), ("test", "c")):
        patterns = [place.format(kind, split) + "/{}.tif" for kind in ("images", "masks")]
        make_folder(root, (chip,), image=patterns[0], mask=patterns[1])
    dataset = load(data_dir=root, image_dir="images", mask_dir="masks")
    assert {split: rows["id"][:] for split, rows in dataset.items()} == {
        "train": ["a"],
        "validation": ["b"],
        "test": ["c"],
    }


def test_named_split_folders_and_lists(root, load):
    make_folder(root, CHIPS)
    make_folder(root / "far", ("z",))
    (root / "fit.csv").write_text("id,score\nb,1\na_mask.tif,2\n".replace("id,score\n", ""))
    dataset = load(data_dir=root, mask_suffix="_mask.tif", splits={"train": "fit.csv", "held_out": "far"})
    assert {split: rows["id"][:] for split, rows in dataset.items()} == {"train": ["b", "a"], "held_out": ["z"]}


@pytest.mark.parametrize("kind", [list, tuple])
def test_lists_of_ids_in_place(root, load, kind):
    make_folder(root / "images", CHIPS)
    (root / "val.txt").write_text("c\n")
    splits = {"train": kind(["b", "images/a.tif"]), "validation": "val.txt"}
    dataset = load(data_dir=root, image_dir="images", mask_suffix="_mask.tif", splits=splits)
    assert {split: rows["id"][:] for split, rows in dataset.items()} == {"train": ["b", "a"], "validation": ["c"]}
    other = load(data_dir=root, image_dir="images", mask_suffix="_mask.tif", splits={"train": kind(["a"])})
    assert other["train"]["id"][:] == ["a"]  # not those from the cache


def test_a_table_of_dates_that_is_not_there_is_named(root, load):
    make_folder(root, CHIPS)
    with pytest.raises(FileNotFoundError, match=r"Expected a text file at .*days\.csv, found none"):
        load(data_dir=root, mask_suffix="_mask.tif", dates="days.csv")


def test_frames(root, load):
    for month in ("06", "07", "08"):
        make_folder(root, CHIPS, image="{}_" + month + ".tif")
    options = {"image_suffix": ["_06.tif", "_07.tif", "_08.tif"], "mask_suffix": "_mask.tif"}
    rows = load(data_dir=root, split="train", **options)
    assert rows.features["image"].feature == GeoTiff()
    assert rows[2]["dates"] == [None] * 3
    assert "date" not in rows.column_names
    assert [raster.name[-8:] for raster in rows[2]["image"]] == ["c_06.tif", "c_07.tif", "c_08.tif"]
    stream = load(data_dir=root, split="train", streaming=True, **options)
    assert [len(row["image"]) for row in stream] == [3, 3, 3]


def test_chips_without_masks(root, load):
    make_folder(root, CHIPS, mask=None)
    for streaming in (False, True):
        rows = list(load(data_dir=root, split="train", require_masks=False, streaming=streaming))
        assert [row["id"] for row in rows] == list(CHIPS)
        assert all(row["mask"] is None for row in rows)
        assert isinstance(rows[0]["image"], GeoTiffRaster)


def test_masks_are_taken_where_there_are_some(root, load):
    make_folder(root, CHIPS, mask=None)
    write_mask(root / "b_mask.tif")
    rows = load(data_dir=root, split="train", mask_suffix="_mask.tif", require_masks=False)
    assert [row["mask"] is not None for row in rows] == [False, True, False]


def test_streaming_gives_the_same_rows(root, load):
    make_folder(root, CHIPS)
    stream = load(data_dir=root, mask_suffix="_mask.tif", split="train", streaming=True)
    assert stream.num_shards == 3
    assert names(stream) == names(load(data_dir=root, mask_suffix="_mask.tif", split="train"))


def test_side_files_are_ignored(root, load):
    make_folder(root, CHIPS)
    (root / "._a.tif").write_bytes(b"junk")
    (root / "a.tif.aux.xml").write_text("<PAMDataset/>")
    assert load(data_dir=root, mask_suffix="_mask.tif", split="train").num_rows == 3


def test_options_and_changes_have_caches_of_their_own(root, load):
    make_folder(root, CHIPS)
    both = load(data_dir=root, mask_suffix="_mask.tif", split="train")
    assert load(data_dir=root, require_masks=False, split="train").num_rows == 6
    write_chip(root / "d.tif")
    write_mask(root / "d_mask.tif")
    assert load(data_dir=root, mask_suffix="_mask.tif", split="train").num_rows == both.num_rows + 1
    before = load(data_dir=root, mask_suffix="_mask.tif", split="train").cache_files
    os.utime(root / "d.tif", (1, 1))
    assert load(data_dir=root, mask_suffix="_mask.tif", split="train").cache_files != before


def test_folders_elsewhere_count_for_the_cache_too(root, tmp_path, load):
    make_folder(tmp_path, CHIPS, image="data/{}.tif", mask="far/{}.tif")
    options = {"data_dir": root, "mask_dir": str(tmp_path / "far"), "split": "train"}
    before = load(**options)
    assert before[0]["mask"].path == str(tmp_path / "far" / "a.tif")
    (tmp_path / "far" / "b.tif").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 without mask \(b\)"):
        load(**options)


# ----------------------------------------------------------------- refused


@pytest.mark.parametrize("streaming", [False, True])
def test_missing_pairs_either_way(root, load, streaming):
    make_folder(root, ("a", "b", "c", "d"))
    (root / "b_mask.tif").unlink()
    (root / "d.tif").unlink()
    expected = r"of each of 4 chips, found 1 without image \(d\) and 1 without mask \(b\)"
    with pytest.raises(FileNotFoundError, match=expected):
        load(data_dir=root, mask_suffix="_mask.tif", streaming=streaming)


def test_many_missing_pairs_are_counted_and_some_named(root, load):
    make_folder(root, [f"chip{i:02}" for i in range(12)], mask=None)
    write_mask(root / "chip00_mask.tif")
    with pytest.raises(FileNotFoundError, match=r"11 without mask \(chip01, .*chip05, \.\.\.\)"):
        load(data_dir=root, mask_suffix="_mask.tif")


def test_missing_frame(root, load):
    for month in ("06", "07"):
        make_folder(root, CHIPS, image="{}_" + month + ".tif")
    (root / "b_07.tif").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 without frame 2 \(b\)"):
        load(data_dir=root, image_suffix=["_06.tif", "_07.tif"], mask_suffix="_mask.tif")


@pytest.mark.parametrize("options", [{}, {"mask_suffix": "_mask.tif"}])
def test_no_geotiff_at_all(root, load, options):
    (root / "below").mkdir(parents=True)
    with pytest.raises(
        FileNotFoundError, match=r"data: expected GeoTIFF files \(.*found no file at all\. Check the path"
    ):
        load(data_dir=root, **options)
    (root / "below" / "chips.tar.gz").write_bytes(b"packed")
    with pytest.raises(FileNotFoundError, match=r"1 other files \(below/chips\.tar\.gz\)\. Extract the archives"):
        load(data_dir=root, **options)


def test_an_empty_split_folder_beside_others(root, load):
    make_folder(root / "val", CHIPS)
    (root / "train").mkdir()
    with pytest.raises(FileNotFoundError, match=r"train: expected images ending in \.tif.*found nothing"):
        load(data_dir=root, mask_suffix="_mask.tif")


@pytest.mark.parametrize("options", [{}, {"image_suffix": "_x.tif", "mask_suffix": "_mask.tif"}])
def test_public_data_sets_are_named(root, load, options):
    make_burn_scars(root / "scars")
    with pytest.raises((ValueError, FileNotFoundError), match=r"those of hls_burn_scars, .*--dataset hls_burn_scars"):
        load(data_dir=root, **options)
    make_sen1floods11(root / "floods")
    with pytest.raises(
        (ValueError, FileNotFoundError), match=r"those of hls_burn_scars and sen1floods11.*folder of one"
    ):
        load(data_dir=root, **options)


def test_wrong_suffix_tells_what_is_there(root, load):
    make_folder(root, CHIPS)
    with pytest.raises(FileNotFoundError, match=r"ending in _merged\.tif.*6 others \(a\.tif, a_mask\.tif"):
        load(data_dir=root, image_suffix="_merged.tif", mask_suffix="_mask.tif")


@pytest.mark.parametrize("options", [{}, {"mask_suffix": ".tif"}, {"image_suffix": "_x.tif", "mask_suffix": "_x.tif"}])
def test_images_and_masks_that_cannot_be_told_apart(root, load, options):
    make_folder(root, CHIPS)
    with pytest.raises(ValueError, match="Give mask_suffix or mask_dir"):
        load(data_dir=root, **options)


def test_ids_of_a_list_without_files(root, load):
    make_folder(root, CHIPS)
    (root / "val.txt").write_text("a\nq\n")
    with pytest.raises(FileNotFoundError, match=r"val\.txt.*1 without image \(q\)"):
        load(data_dir=root, mask_suffix="_mask.tif", splits={"validation": "val.txt"})


def test_split_source_that_is_not_there(root, load):
    make_folder(root, CHIPS)
    with pytest.raises(FileNotFoundError, match=r"Split validation.*nothing at .*nope"):
        load(data_dir=root, mask_suffix="_mask.tif", splits={"validation": "nope"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": "train"}, "expected splits as a mapping.*found 'train'"),
        ({"splits": {}}, "expected splits as a mapping"),
        ({"splits": {"train": [1, 2]}}, r"expected splits as .*found \{'train': \[1, 2\]\}.*numbers in quotes"),
        ({"splits": {"train": {"a": "b"}}}, "expected splits as a mapping"),
        ({"image_suffix": 3}, "expected image_suffix as a text.*found 3.*quotes"),
        ({"image_suffix": ["_a.tif", None]}, "expected image_suffix as a text"),
        ({"image_suffix": ""}, "expected image_suffix as a text"),
        ({"mask_suffix": 5}, "expected mask_suffix as a text.*found 5"),
        ({"mask_dir": ["masks"]}, r"expected mask_dir as the path of a folder, found \['masks'\]"),
        ({"image_dir": 2020}, "expected image_dir as the path of a folder, found 2020"),
        ({"require_masks": "no"}, "expected require_masks as true or false, found 'no'. Write it without quotes"),
        ({"require_masks": None}, "expected require_masks as true or false"),
    ],
)
def test_options_of_a_wrong_type(root, load, options, message):
    make_folder(root, CHIPS)
    with pytest.raises(ValueError, match=message):
        load(data_dir=root, **{"mask_suffix": "_mask.tif", **options})


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (["a", "q"], FileNotFoundError, r"split train \(list in splits\).*1 without image \(q\) and 1 without mask"),
        (["a", "a_mask.tif"], ValueError, r"split train .*1 listed again: a"),
        ([], ValueError, "split train .*at least one chip, found none"),
    ],
)
def test_lists_in_place_are_checked_like_files(root, load, ids, error, message):
    make_folder(root, CHIPS)
    with pytest.raises(error, match=message):
        load(data_dir=root, mask_suffix="_mask.tif", splits={"train": ids})


def test_two_folders_for_one_split(root, load):
    make_folder(root / "val", ("a",))
    make_folder(root / "valid", ("b",))
    with pytest.raises(ValueError, match=r"one folder for split validation, found \['valid', 'val'\]"):
        load(data_dir=root, mask_suffix="_mask.tif")


def test_unknown_split_names_those_available(root, load):
    make_folder(root, CHIPS)
    for streaming in (False, True):
        with pytest.raises(ValueError, match=r"test.*train"):
            load(data_dir=root, mask_suffix="_mask.tif", split="test", streaming=streaming)


def test_same_chip_with_two_extensions(root, load):
    write_chip(root / "a.tif")
    write_chip(root / "a.tiff")
    with pytest.raises(ValueError, match=r"one file for a, found a\.tif and a\.tiff"):
        load(data_dir=root, require_masks=False)


def test_no_data_dir_unknown_name_and_unknown_option(root, load):
    with pytest.raises(ValueError, match="Pass data_dir"):
        load()
    with pytest.raises(ValueError, match=r"geotiff_folder.*sen1floods11"):
        load_dataset("imagenet")
    with pytest.raises(ValueError, match=r"unknown options \['mask_sufix'\].*mask_suffix"):
        load(data_dir=root, mask_sufix="_mask.tif")


# ----------------------------------------------------------------- names and files as people have them


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accented_names_pair_whichever_way_they_are_written(root, load, forms):
    """A copy from macOS writes é as two code points."""
    chips = ("forêt_é", "año", "Ångström")
    for seed, chip in enumerate(chips):
        write_chip(root / "images" / f"{unicodedata.normalize(forms[0], chip)}.tif", seed=seed)
        write_mask(root / "masks" / f"{unicodedata.normalize(forms[1], chip)}.tif", seed=seed)
    (root / "masks" / f"._{chips[0]}.tif").write_bytes(b"macOS")
    (root / "train.txt").write_text("\n".join(unicodedata.normalize(forms[1], chip) for chip in chips))
    for splits in (None, {"train": "train.txt"}, {"train": [unicodedata.normalize(forms[1], chip) for chip in chips]}):
        rows = load(data_dir=root, image_dir="images", mask_dir="masks", splits=splits, split="train")
        assert sorted(rows.with_format(None)["id"]) == sorted(unicodedata.normalize("NFC", chip) for chip in chips)
        assert rows[0]["image"].read().shape == (6, 32, 32)


@pytest.mark.parametrize(
    ("image", "mask", "options"),
    [
        ("{}.TIF", "{}_mask.tif", {"image_suffix": ".tif", "mask_suffix": "_mask.tif"}),
        ("{}_img.Tif", "{}_mask.TIF", {"image_suffix": "_img.tif", "mask_suffix": "_mask.tif"}),
        ("{}_img.tif", "{}_mask.tiff", {"image_suffix": "_img.TIF", "mask_suffix": "_mask.TIFF"}),
    ],
)
def test_extensions_in_capitals(root, load, image, mask, options):
    make_folder(root, CHIPS, image=image, mask=mask)
    expected = [(chip, image.format(chip), mask.format(chip)) for chip in CHIPS]
    assert names(load(data_dir=root, split="train", **options)) == expected


def test_capitals_within_a_suffix_still_tell_files_apart(root, load):
    make_folder(root, CHIPS, image="{}_A.tif", mask="{}_a.tif")
    rows = load(data_dir=root, image_suffix="_A.tif", mask_suffix="_a.tif", split="train")
    assert names(rows)[0] == ("a", "a_A.tif", "a_a.tif")


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".GeoJSON", ".fgb"])
def test_polygons_in_place_of_masks_are_sent_to_rasterizing(root, load, suffix):
    make_folder(root, CHIPS, image="images/{}.tif", mask=None)
    (root / "masks").mkdir()
    for chip in CHIPS:
        (root / "masks" / f"{chip}{suffix}").write_bytes(b"SQLite format 3\0")
    with pytest.raises(
        ValueError, match=rf"masks: expected masks that are GeoTIFF files, found a{suffix}.*prithvi-hf rasterize"
    ):
        load(data_dir=root, image_dir="images", mask_dir="masks")
    if suffix != ".GeoJSON":
        with pytest.raises(ValueError, match="prithvi-hf rasterize"):
            load(data_dir=root, image_dir="images", mask_dir="masks", mask_suffix=suffix)


def test_one_mask_for_many_dates_is_told_both_ways_out(root, load):
    for seed, date in enumerate(("20200101", "20200201", "20200301")):
        write_chip(root / "images" / f"field_7_{date}.tif", seed=seed)
    write_mask(root / "masks" / "field_7.tif")
    with pytest.raises(ValueError, match=r"one mask field_7 for field_7_20200101, .*image_suffix=\[_20200101\.tif, "):
        load(data_dir=root, image_dir="images", mask_dir="masks")
    suffixes = ["_20200101.tif", "_20200201.tif", "_20200301.tif"]
    rows = load(data_dir=root, image_dir="images", mask_dir="masks", image_suffix=suffixes, split="train")
    assert (len(rows), len(rows[0]["image"])) == (1, 3)


def test_a_missing_mask_is_not_taken_for_a_date(root, load):
    make_folder(root, ("a", "ab", "c"))
    (root / "ab_mask.tif").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 without mask \(ab\)"):
        load(data_dir=root, mask_suffix="_mask.tif")


def test_swapped_images_and_masks_are_named_as_such(root, load):
    make_folder(root, CHIPS, image="images/{}.tif", mask="masks/{}.tif")
    chips = load(data_dir=root, image_dir="masks", mask_dir="images", split="train")
    processor = PrithviImageProcessor(ignore_values=[-1])
    with pytest.raises(ValueError, match=r"masks/a\.tif: .*they look swapped\. Exchange image_dir and mask_dir"):
        audit_split(chips, processor, 2, "train", show_progress=False)
    with pytest.raises(ValueError, match="they look swapped"):
        compute_statistics(chips, processor, show_progress=False)
