"""The builder of the HLS irrigation scenes: months as frames, incomplete chips, splits by tile."""

from functools import partial

import numpy as np
import pytest

from prithvi_hf.data import load_dataset
from prithvi_hf.data.builders.hls_irrigation_scenes import (
    HLS_IRRIGATION_SCENES_CLASS_COLORS,
    HLS_IRRIGATION_SCENES_CLASSES,
)
from prithvi_hf.data.builders.splits import find_tiles
from prithvi_hf.data.geotiff import GeoTiff
from tests.raster_factory import IRRIGATION_CHIPS, make_irrigation_scenes, pack


@pytest.fixture
def load(tmp_path):
    return partial(load_dataset, "hls_irrigation_scenes", cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    return make_irrigation_scenes(tmp_path / "data")


def row_of(dataset, chip):
    return next(row for rows in dataset.values() for row in rows if row["id"] == chip)


def ids(dataset):
    return {split: list(rows["id"]) for split, rows in dataset.items()}


def test_constants():
    assert HLS_IRRIGATION_SCENES_CLASSES[0] == "class_1"
    assert HLS_IRRIGATION_SCENES_CLASSES[-1] == "class_16"
    assert len(set(HLS_IRRIGATION_SCENES_CLASS_COLORS)) == len(HLS_IRRIGATION_SCENES_CLASSES) == 16


def test_colours_can_be_told_apart():
    colors = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in HLS_IRRIGATION_SCENES_CLASS_COLORS])
    distances = np.abs(colors[:, None] - colors).sum(-1) + 1000 * np.eye(16, dtype=int)
    assert distances.min() > 50


def test_months_are_frames(root, load):
    dataset = load(data_dir=root)
    row = row_of(dataset, "T10SFG_chip22")
    assert list(row) == ["image", "mask", "id", "dates"]
    assert [raster.name[-34:] for raster in row["image"]] == [
        f"month{month}/scene_m0{month}_T10SFG_chip22.tif" for month in (1, 2, 3)
    ]
    assert [raster.shape for raster in row["image"]] == [(6, 32, 32)] * 3
    assert row["mask"].name.endswith("masks/mask_T10SFG_chip22.tif")
    assert set(np.unique(row["mask"].read())) == {*range(17), 255}
    assert row["dates"] == [None] * 3
    features = dataset["train"].features
    assert isinstance(features["image"].feature, GeoTiff)
    assert features["image"].feature.band_names[3] == "NIR_NARROW"
    assert features["mask"].class_names == list(HLS_IRRIGATION_SCENES_CLASSES)


@pytest.mark.parametrize("months", [[1, 2, 3, 4], [4, 2], (3,)])
def test_other_months_in_the_order_asked_for(root, load, months):
    row = row_of(load(data_dir=root, months=months), "T11SKA_chip7")
    assert [int(raster.name.split("scene_m")[1][:2]) for raster in row["image"]] == list(months)
    assert row["dates"] == [None] * len(months)


@pytest.mark.parametrize("seed", range(3))
def test_tiles_are_on_one_side(root, load, seed):
    splits = ids(load(data_dir=root, split_seed=seed))
    assert sorted(chip for chips in splits.values() for chip in chips) == sorted(IRRIGATION_CHIPS)
    tiles = [tile for chips in splits.values() for tile in set(find_tiles(chips, "x").values())]
    assert len(tiles) == len(set(tiles)) == 4
    assert all(splits[split] for split in ("train", "validation", "test"))


def test_the_seed_is_part_of_the_cache(root, load):
    assert len({tuple(ids(load(data_dir=root, split_seed=seed))["test"]) for seed in range(5)}) > 1


def test_streaming_gives_the_same_rows(root, load):
    stream = load(data_dir=root, streaming=True)
    assert {split: [row["id"] for row in rows] for split, rows in stream.items()} == ids(load(data_dir=root))
    assert next(iter(stream["train"]))["image"][2].read().shape == (6, 32, 32)


@pytest.fixture
def incomplete(root):
    (root / "month2" / "scene_m02_T10SFG_chip22.tif").unlink()
    (root / "month3" / "scene_m03_T10SFG_chip22.tif").unlink()
    (root / "masks" / "mask_T14TNM_chip105.tif").unlink()
    make_irrigation_scenes(root, ("T15TUG_chip9",), months=(4,))
    return root


@pytest.mark.parametrize("streaming", [False, True])
def test_incomplete_chips_are_named(incomplete, load, streaming):
    expected = (
        r"expected month 1, month 2, month 3, mask of each of 6 chips, found 3 incomplete: "
        r"T10SFG_chip22 \(no month 2, no month 3\), T14TNM_chip105 \(no mask\), "
        r"T15TUG_chip9 \(no month 1, no month 2, no month 3\)\. Add the files, or .*missing='skip'"
    )
    with pytest.raises(FileNotFoundError, match=expected):
        load(data_dir=incomplete, streaming=streaming)


def test_incomplete_chips_are_skipped_and_counted(incomplete, load, caplog):
    splits = ids(load(data_dir=incomplete, missing="skip"))
    assert sorted(chip for chips in splits.values() for chip in chips) == [
        "T10SFG_chip3", "T10TGK_chip1", "T11SKA_chip7",
    ]  # fmt: skip
    (record,) = (record for record in caplog.records if "left out" in record.getMessage())
    assert "3 chips are left out" in record.getMessage()
    assert "T10SFG_chip22 (no month 2, no month 3)" in record.getMessage()


def test_many_incomplete_chips_are_counted(root, load):
    make_irrigation_scenes(root, [f"T10SFG_chip{i}" for i in range(100, 125)], months=(), size=4)
    with pytest.raises(FileNotFoundError, match=r"found 25 incomplete: .* and 5 more\. Add"):
        load(data_dir=root)


def test_nothing_complete(root, load):
    for path in (root / "masks").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="no chip is complete"):
        load(data_dir=root, missing="skip")


def test_no_scene_of_the_months(tmp_path, load):
    root = make_irrigation_scenes(tmp_path / "data", months=(4,))
    with pytest.raises(FileNotFoundError, match=r"expected scenes such as month1/.*found none of months \[1, 2, 3\]"):
        load(data_dir=root)


def test_a_file_in_two_places(root, load):
    make_irrigation_scenes(root / "copy", ("T10SFG_chip22",), months=(1,))
    with pytest.raises(ValueError, match=r"one file named mask_T10SFG_chip22\.tif, found .* and .*Point data_dir at"):
        load(data_dir=root)


def test_two_tiles_are_divided_by_chip_with_a_warning(tmp_path, load, caplog):
    chips = ["T10SFG_chip1", "T10SFG_chip2", "T11SKA_chip1"]
    splits = ids(load(data_dir=make_irrigation_scenes(tmp_path / "data", chips)))
    assert sorted(chip for (chip,) in splits.values()) == chips
    assert "2 MGRS tile(s) cannot be divided among train, validation, test" in caplog.text
    assert "not independent" in caplog.text


def test_two_chips_are_too_few(tmp_path, load):
    root = make_irrigation_scenes(tmp_path / "data", ("T10SFG_chip1", "T10SFG_chip2"))
    with pytest.raises(ValueError, match=r"at least 3 chips.*train, validation, test.*found 2: T10SFG_chip1"):
        load(data_dir=root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"months": []}, "months as a list of different numbers"),
        ({"months": [1, 1]}, r"found \[1, 1\]"),
        ({"months": [0, 1]}, r"among \[1, 2, 3, 4\]"),
        ({"months": [True, 2]}, r"found \[True, 2\]"),
        ({"months": "123"}, "found '123'"),
        ({"missing": "ignore"}, r"missing among \['error', 'skip'\]"),
        ({"split_seed": 1.5}, "split_seed as an integer"),
        ({"split_scheme": "three_way"}, "unknown options"),
    ],
)
def test_wrong_options(root, load, options, message):
    with pytest.raises(ValueError, match=message):
        load(data_dir=root, **options)


def test_downloads_archives_and_plain_files(root, load, hub, monkeypatch):
    hub.redirect_this_process(monkeypatch)
    plain = {f"masks/{path.name}": path.read_bytes() for path in (root / "masks").glob("mask_*")}
    archives = {f"month{month}.tar.gz": pack(root, f"month{month}") for month in (1, 2, 3, 4)}
    hub.put_files("ibm-nasa-geospatial/hls_irrigation_scenes", {**plain, **archives})
    assert ids(load()) == ids(load(data_dir=root))
