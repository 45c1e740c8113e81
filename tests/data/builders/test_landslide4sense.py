"""The builder of Landslide4Sense: HDF5 files become GeoTIFF files, once, and hostile ones are refused."""

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from prithvi_hf.data import load_dataset
from prithvi_hf.data.builders.landslide4sense import LANDSLIDE4SENSE_BANDS, convert_patch
from prithvi_hf.training import finetune
from tests.finetune_factory import flags
from tests.raster_factory import LANDSLIDES, hub_files, make_landslides


h5py = pytest.importorskip("h5py")


@pytest.fixture
def load(tmp_path):
    return partial(load_dataset, "landslide4sense", cache_dir=str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_landslides(tmp_path_factory.mktemp("made") / "Landslide4sense")


@pytest.fixture
def root(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "data" / "Landslide4sense"))


def read_array(path, name):
    with h5py.File(path) as file:
        return file[name][()]


def test_the_layout_of_the_hub(root, load):
    shutil.copy(root / "annotations/train/mask_1.h5", root / "annotations/train/mask_3800.h5")  # the Hub has five such
    dataset = load(data_dir=root)
    assert {split: list(rows["id"]) for split, rows in dataset.items()} == {
        split: [f"{split}_{number}" for number in numbers] for split, numbers in LANDSLIDES.items()
    }
    row = dataset["train"][2]
    assert list(row) == ["image", "mask", "id", "date"]
    assert (row["image"].dtype, row["image"].crs, row["date"]) == ("float32", None, None)
    assert row["image"].descriptions == LANDSLIDE4SENSE_BANDS
    expected = read_array(root / "images/train/image_10.h5", "img").transpose(2, 0, 1).astype(np.float32)
    np.testing.assert_array_equal(row["image"].read(), expected)
    mask = read_array(root / "annotations/train/mask_10.h5", "mask")
    np.testing.assert_array_equal(row["mask"].read()[0], mask)
    assert set(np.unique(mask)) == {0, 1}


def test_the_layout_of_the_competition(root, load, tmp_path, caplog):
    for split, name in (("train", "TrainData"), ("validation", "ValidData")):
        for kind, folder in (("images", "img"), ("annotations", "mask")):
            shutil.copytree(root / kind / split, tmp_path / "own" / name / folder)
    shutil.rmtree(tmp_path / "own" / "ValidData" / "mask")
    assert list(load(data_dir=tmp_path / "own")) == ["train"]
    assert "no masks of validation" in caplog.text


def converted(tmp_path):
    return {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.tif")}


def test_files_are_converted_once_and_what_is_missing_again(root, load, tmp_path):
    load(data_dir=root)
    first = converted(tmp_path)
    assert len(first) == 12
    assert load(data_dir=root)["test"][0]["mask"].shape == (1, 128, 128)
    assert converted(tmp_path) == first
    removed = next(iter(first))
    removed.unlink()  # the table of rows is cached all the same
    load(data_dir=root)
    changed = {path for path, time in converted(tmp_path).items() if time != first[path]}
    assert changed == {removed}


def test_an_interrupted_conversion_continues(root, load, tmp_path):
    damaged = root / "annotations/test/mask_7.h5"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:100])
    with pytest.raises(ValueError, match=r"mask_7.h5: expected an HDF5 file with mask.*Download it again"):
        load(data_dir=root)
    assert not list((tmp_path / "cache").rglob("*.tmp"))
    damaged.write_bytes(content)
    assert load(data_dir=root, split="test")[0]["id"] == "test_7"


@pytest.mark.parametrize("streaming", [False, True])
def test_it_is_downloaded_from_the_hub(made, hub, monkeypatch, load, streaming):
    hub.redirect_this_process(monkeypatch)
    hub.put_files(*hub_files("landslide4sense", made))
    rows = load(split="validation", streaming=streaming)
    assert [row["id"] for row in rows] == ["validation_1", "validation_2"]
    assert load(split="validation")[1]["image"].shape == (14, 128, 128)
    assert hub.downloads("images/validation/image_2.h5") == 1


def test_incomplete_and_doubtful_folders_are_refused(root, load, tmp_path):
    shutil.copytree(root, root / "copy" / "Landslide4sense")
    with pytest.raises(ValueError, match=r"expected one mask 7 of the split test, found .*copy"):
        load(data_dir=root)
    shutil.rmtree(root / "copy")
    (root / "annotations/train/mask_2.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"of each of 3 chips, found 1 without mask \(train_2\)"):
        load(data_dir=root)
    shutil.rmtree(root / "annotations")
    with pytest.raises(FileNotFoundError, match=r"expected images/train/image_1\.h5"):
        load(data_dir=root)


# ---------------------------------------------------------------------- hostile files


def write_links(file, other):
    file["img"] = h5py.ExternalLink(other, "img")


def write_soft_link(file, other):
    file["own"] = np.zeros((128, 128, 14))
    file["img"] = h5py.SoftLink("/own")


def write_virtual(file, other):
    layout = h5py.VirtualLayout(shape=(128, 128, 14), dtype="float64")
    layout[:] = h5py.VirtualSource(other, "img", shape=(128, 128, 14))
    file.create_virtual_dataset("img", layout)


def write_external(file, other):
    file.create_dataset("img", (128, 128, 14), "float64", external=[(other, 0, h5py.h5f.UNLIMITED)])


def write_references(file, other):
    file.create_dataset("img", (128, 128, 14), h5py.ref_dtype)


def write_huge(file, other):
    file.create_dataset("img", (2**20, 2**20, 14), "float64", chunks=(1, 1, 14), compression="gzip")


def write_huge_chunks(file, other):
    sizes = {"maxshape": (None, 128, 14), "chunks": (2**14, 128, 14), "compression": "gzip"}
    file.create_dataset("img", data=np.zeros((128, 128, 14)), **sizes)


def write_nothing(file, other):
    file.create_dataset("img", (128, 128, 14), "float64")  # no value was ever written


def write_plugin(file, other):
    file.create_dataset("img", data=np.zeros((128, 128, 14)), compression="lzf")


def write_integers(file, other):
    file["img"] = np.zeros((128, 128, 14), dtype=np.int64)


def write_group(file, other):
    file.create_group("img")


def write_another_name(file, other):
    file["image"] = np.zeros((128, 128, 14))


HOSTILE = {
    write_links: "a link to",
    write_soft_link: "a link to /own",
    write_virtual: "values are in other files",
    write_external: "values are in other files",
    write_references: "object of shape",
    write_huge: r"float64 of shape \(1048576",
    write_huge_chunks: r"in chunks of \(16384",
    write_nothing: "found: 0 bytes",
    write_plugin: r"filters \[32000\]",
    write_integers: "int64 of shape",
    write_group: "a Group",
    write_another_name: "found: none",
}


@pytest.mark.parametrize("write", HOSTILE, ids=lambda write: write.__name__)
def test_files_that_are_not_what_they_should_be_are_refused(made, tmp_path, write):
    other = tmp_path / "other.h5"
    shutil.copy(made / "images/train/image_1.h5", other)
    with h5py.File(tmp_path / "image_1.h5", "w") as file:
        write(file, str(other))
    with pytest.raises(ValueError, match=rf"image_1.h5: expected an HDF5 file with img, .*{HOSTILE[write]}"):
        convert_patch("image", tmp_path / "image_1.h5", tmp_path / "train_1_image.tif")
    assert not (tmp_path / "train_1_image.tif").exists()


def test_a_file_of_absurd_size_is_not_opened(tmp_path):
    with open(tmp_path / "mask_1.h5", "wb") as file:
        file.truncate(2**30)
    with pytest.raises(ValueError, match="found: 1,073,741,824 bytes"):
        convert_patch("mask", tmp_path / "mask_1.h5", tmp_path / "train_1_mask.tif")


def test_without_h5py_the_message_names_the_extra(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"Expected the package h5py .*pip install 'prithvi_hf\[hdf5\]'"):
        convert_patch("image", made / "images/train/image_1.h5", tmp_path / "train_1_image.tif")
    cache = json.dumps({"cache_dir": str(tmp_path / "cache")})
    words = flags(config="landslide4sense", data_dir=made, output_dir=tmp_path / "OUT", dataset_options=cache)
    sizes = flags(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, use_cpu="true")
    assert finetune.main([*words, *sizes]) == 2
    assert "error: Expected the package h5py" in capsys.readouterr().err
    assert not (tmp_path / "OUT").exists()
