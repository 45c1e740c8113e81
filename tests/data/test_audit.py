"""The audit of a split: what it counts, and that it names everything that is wrong at once."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from datasets import Dataset, Features, List, Value
from rasterio.enums import ColorInterp

from prithvi_hf.data import SegmentationTransform, audit_split
from prithvi_hf.data.chip_cache import cache_chips
from prithvi_hf.data.geotiff import GeoTiff
from prithvi_hf.data.statistics import compute_statistics
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from tests.raster_factory import (
    BANDS,
    PIXEL,
    class_mask,
    cut_off,
    flip_unnoticed,
    labels,
    reflectance,
    transform_at,
    write_chip,
    write_mask,
    write_part,
)
from tests.raster_factory import write_raster as write


FEATURES = Features({"image": GeoTiff(), "mask": GeoTiff(), "id": Value("string")})


@pytest.fixture
def processor():
    return PrithviImageProcessor(bands=list(BANDS), ignore_values=[-1])


def dataset_of(tmp_path, chips):
    """Rows of chips whose files are <id>.tif and <id>_mask.tif."""
    rows = {
        "image": [str(tmp_path / f"{chip}.tif") for chip in chips],
        "mask": [str(tmp_path / f"{chip}_mask.tif") for chip in chips],
        "id": list(chips),
    }
    return Dataset.from_dict(rows, features=FEATURES)


@pytest.fixture
def split(tmp_path):
    for seed, chip in enumerate("abcd"):
        write_chip(tmp_path / f"{chip}.tif", seed=seed)
        write_mask(tmp_path / f"{chip}_mask.tif", seed=seed)
    return dataset_of(tmp_path, "abcd")


def audit(dataset, processor, num_labels=2):
    return audit_split(dataset, processor, num_labels, "train", show_progress=False)


def test_counts(split, processor):
    found = audit(split, processor, num_labels=3)
    masks = np.stack([labels(seed=seed) for seed in range(4)])
    assert found.chips == 4
    assert found.class_pixels == ((masks == 0).sum(), (masks == 1).sum(), 0)
    assert found.class_chips == (4, 4, 0)
    assert found.ignored_pixels == (masks == -1).sum()
    assert found.nodata_pixels == 0
    assert found.sizes == {(32, 32): 4}
    assert found.total_pixels == masks.size
    assert found.labelled_pixels == (masks != -1).sum()


def test_counts_by_the_rules_of_the_processor(split, tmp_path):
    pixels = reflectance(6)
    pixels[:, :4] = 0
    write(tmp_path / "a.tif", pixels, descriptions=BANDS, nodata=0)
    masked = PrithviImageProcessor(ignore_values=[-1], mask_nodata_labels=True)
    plain = PrithviImageProcessor(ignore_values=[-1])
    one = split.select([0])
    assert audit(one, masked).nodata_pixels == audit(one, plain).nodata_pixels == 4 * 32
    assert audit(one, masked).ignored_pixels > audit(one, plain).ignored_pixels
    reduced = audit(split, PrithviImageProcessor(ignore_values=[-1], do_reduce_labels=True), 1)
    assert reduced.class_pixels == (sum((labels(seed=seed) == 1).sum() for seed in range(4)),)


def test_transforms_are_left_aside_and_streams_work(split, processor):
    expected = audit(split, processor)
    crops = split.with_transform(SegmentationTransform(processor, 8, train=True))
    assert audit(crops, processor) == expected
    assert audit(split.to_iterable_dataset(), processor) == expected


def test_progress_bar(split, processor, capsys):
    audit_split(split, processor, 2, "validation", show_progress=True)
    assert "Checking validation" in capsys.readouterr().err


def test_frames(tmp_path, processor):
    frames = [str(write_chip(tmp_path / f"{month}.tif", seed=month)) for month in range(3)]
    features = Features({**FEATURES, "image": List(GeoTiff())})
    rows = {"image": [frames], "mask": [str(write_mask(tmp_path / "m.tif"))], "id": ["x"]}
    dataset = Dataset.from_dict(rows, features=features)
    three = PrithviImageProcessor(ignore_values=[-1], num_frames=3)
    assert audit(dataset, three).chips == 1
    with pytest.raises(ValueError, match="expected 1 frames"):
        audit(dataset, processor)
    write_chip(tmp_path / "1.tif", size=16)
    with pytest.raises(ValueError, match=r"1\.tif 16 x 16"):
        audit(dataset, three)


# ----------------------------------------------------------------- digest


def embedded(dataset):
    """The same rows with the content of the files in place of their paths."""
    content = {name: [Path(row[name].path).read_bytes() for row in dataset] for name in ("image", "mask")}
    return Dataset.from_dict({**content, "id": dataset["id"][:]}, features=FEATURES)


def test_digest_is_of_the_ids_and_the_content(split, processor, tmp_path):
    expected = audit(split, processor).digest
    assert re.fullmatch("[0-9a-f]{64}", expected)
    assert audit(split.select([2, 0, 3, 1]), processor).digest == expected
    assert audit(embedded(split), processor).digest == expected
    shutil.copytree(tmp_path, tmp_path / "elsewhere")
    assert audit(dataset_of(tmp_path / "elsewhere", "abcd"), processor).digest == expected
    assert audit(split.select([0, 1, 2]), processor).digest != expected


def test_digest_is_the_documented_one(split, processor, tmp_path):
    def sha256(name):
        return hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()

    chips = [json.dumps([chip, [sha256(f"{chip}.tif")], sha256(f"{chip}_mask.tif")]) for chip in "abcd"]
    assert audit(split, processor).digest == hashlib.sha256("\n".join(chips).encode()).hexdigest()


@pytest.mark.parametrize("name", ["b.tif", "b_mask.tif"])
def test_digest_changes_with_a_byte_of_a_file(split, processor, tmp_path, name):
    before = audit(split, processor).digest
    with (tmp_path / name).open("ab") as file:
        file.write(b"\0")
    assert audit(split, processor).digest != before


def test_digest_changes_with_ids_and_pairs(split, processor, tmp_path):
    before = audit(split, processor).digest
    renamed = dataset_of(tmp_path, "abcd").remove_columns("id").add_column("id", list("abce"))
    assert audit(renamed, processor).digest != before
    for first, second in (("a.tif", "b.tif"), ("a_mask.tif", "c_mask.tif")):
        for old, new in ((first, "t"), (second, first), ("t", second)):
            (tmp_path / old).rename(tmp_path / new)
        assert audit(split, processor).digest != before


# ----------------------------------------------------------------- what is wrong


def test_several_problems_are_reported_together(split, processor, tmp_path):
    cut_off(tmp_path / "a.tif", 0.6)
    (tmp_path / "c_mask.tif").write_text("no raster")
    write_mask(tmp_path / "d_mask.tif", size=16)
    with pytest.raises(ValueError, match="Split train: 3 of 4 chips cannot be used") as info:
        audit(split, processor)
    message = str(info.value)
    assert "a.tif: expected a GeoTIFF" in message
    assert "truncated" in message
    assert "c_mask.tif: expected a GeoTIFF" in message
    assert "d_mask.tif: expected a mask of the image's size 32 x 32" in message
    assert "b.tif" not in message


def test_long_reports_are_cut(tmp_path, processor):
    dataset = dataset_of(tmp_path, [f"gone{number}" for number in range(13)])
    with pytest.raises(ValueError, match="13 of 13 chips") as info:
        audit(dataset, processor)
    assert "- and 3 more" in str(info.value)
    assert len(str(info.value).splitlines()) == 12


def test_truncated_mask(split, processor, tmp_path):
    cut_off(tmp_path / "b_mask.tif", 0.5)
    with pytest.raises(ValueError, match=r"b_mask\.tif.*truncated"):
        audit(split, processor)


def test_missing_band(split, processor, tmp_path):
    write(tmp_path / "b.tif", reflectance(5), descriptions=BANDS[:5])
    with pytest.raises(ValueError, match=r"b\.tif.*SWIR_2"):
        audit(split, processor)


def test_mask_value_outside_the_classes(split, processor, tmp_path):
    mask = labels()
    mask[5, 5] = 9
    write(tmp_path / "c_mask.tif", mask)
    with pytest.raises(ValueError, match=r"c_mask\.tif.*9 \(1 pixel\)"):
        audit(split, processor)


def test_missing_mask(split, processor):
    rows = {"image": [split[0]["image"].path], "mask": [None], "id": ["a"]}
    with pytest.raises(ValueError, match="a: expected a mask, found none"):
        audit(Dataset.from_dict(rows, features=FEATURES), processor)


def test_every_pixel_ignored(split, processor, tmp_path):
    for chip in "abcd":
        write(tmp_path / f"{chip}_mask.tif", np.full((32, 32), -1, np.int16))
    with pytest.raises(ValueError, match=r"Split train: expected labelled pixels, found all 4,096 pixels of 4 chips"):
        audit(split, processor)


def test_no_pixel_has_image_data(split, processor, tmp_path):
    for chip in "abcd":
        write(tmp_path / f"{chip}.tif", np.zeros((6, 32, 32), np.int16), descriptions=BANDS, nodata=0)
    for ignored in (False, True):
        processor.mask_nodata_labels = ignored
        with pytest.raises(
            ValueError, match=r"Split train: .*found all 4,096 pixels of 4 chips without data.*nodata_v"
        ):
            audit(split, processor)
    write_chip(tmp_path / "a.tif")
    assert audit(split, processor).nodata_pixels == 3 * 1024


def test_links_to_nowhere_and_vanished_files(split, processor, tmp_path):
    (tmp_path / "a.tif").unlink()
    (tmp_path / "a.tif").symlink_to("/elsewhere/a.tif")
    (tmp_path / "c_mask.tif").unlink()
    with pytest.raises(ValueError, match="2 of 4 chips cannot be used") as caught:
        audit(split, processor)
    assert f"- {tmp_path}/a.tif: expected a GeoTIFF file, found a link to /elsewhere/a.tif, which" in str(caught.value)
    assert f"- {tmp_path}/c_mask.tif: expected a GeoTIFF file, found nothing there." in str(caught.value)


def test_a_file_that_vanishes_while_it_is_read(split, processor, tmp_path, monkeypatch):
    def remove_and_read(raster, *arguments, **options):
        (tmp_path / "b.tif").unlink(missing_ok=True)
        return read(raster, *arguments, **options)

    read = GeoTiffRaster.read
    monkeypatch.setattr(GeoTiffRaster, "read", remove_and_read)
    with pytest.raises(ValueError, match=r"b\.tif: expected a GeoTIFF file, found nothing there"):
        audit(split.select([1]), processor)


def test_empty_split(split, processor):
    with pytest.raises(ValueError, match="at least one chip"):
        audit(split.select([]), processor)


@pytest.mark.parametrize(("shift", "fits"), [(6e-18, True), (0.4 * PIXEL, True), (0.6 * PIXEL, False), (1.0, False)])
def test_place_of_image_and_mask(split, processor, tmp_path, shift, fits):
    write_mask(tmp_path / "a_mask.tif", transform=transform_at(longitude=-0.78 + shift))
    if fits:
        assert audit(split, processor).chips == 4
        return
    with pytest.raises(ValueError, match=r"a_mask\.tif: expected the grid of .*a\.tif.*pixels"):
        audit(split, processor)


def test_crs_of_image_and_mask(split, processor, tmp_path):
    write_mask(tmp_path / "a_mask.tif", crs="EPSG:32630")
    with pytest.raises(ValueError, match=r"a_mask\.tif: expected the CRS of .*EPSG:4326.*EPSG:32630"):
        audit(split, processor)


@pytest.mark.parametrize("crs", ["OGC:CRS84", "+proj=longlat +ellps=WGS84", "EPSG:4979", "EPSG:4326+5773"])
def test_crs_of_image_and_mask_may_be_written_in_two_ways(split, processor, tmp_path, crs):
    write_mask(tmp_path / "a_mask.tif", crs=crs)
    assert audit(split, processor).chips == 4
    write_mask(tmp_path / "a_mask.tif", crs=crs, transform=transform_at(latitude=38.12 + 2 * PIXEL))
    with pytest.raises(ValueError, match=r"a_mask\.tif: expected the grid of .* shifted by up to 2 pixels"):
        audit(split, processor)


@pytest.mark.parametrize("name", ["b.tif", "b_mask.tif"])
def test_files_that_a_killed_writer_left_are_named(split, processor, tmp_path, name):
    write_part(tmp_path / name, reflectance(1 if "mask" in name else 6), slice(0, 16), blockysize=8)
    with pytest.raises(ValueError, match=rf"1 of 4 chips cannot be used:\n.*{name}: \d+ of \d+ blocks are absent"):
        audit(split, processor)


@pytest.mark.parametrize("name", ["c.tif", "c_mask.tif"])
def test_damage_that_decodes_is_found_by_its_checksum(split, processor, tmp_path, name):
    flip_unnoticed(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}: 1 of \d blocks do not fit their own checksums"):
        audit(split, processor)


def test_mask_without_georeference_is_fine(split, processor, tmp_path):
    write_mask(tmp_path / "a_mask.tif", crs=None, transform=Affine.identity())
    assert audit(split, processor).chips == 4


def test_real_chips(flood_chips, tmp_path):
    from prithvi_hf.data import load_dataset

    processor = PrithviImageProcessor(rescale_factor=1e-4, do_normalize=False, ignore_values=[-1])
    bolivia = load_dataset("sen1floods11", data_dir=flood_chips, split="train", cache_dir=str(tmp_path))
    found = audit(bolivia.filter(lambda chip: chip == "Bolivia_233925", input_columns="id"), processor)
    assert found.class_pixels[1] == 1
    assert found.sizes == {(512, 512): 1}


# ----------------------------------------------------------------- masks that say where no label is


def write_marked_mask(path, kind):
    """A mask of 0 and 1 whose first eight rows have no label; where a file has to say so, they hold a class or 7."""
    mask = class_mask([0, 1], seed=5)[None]
    labelled = np.ones(mask.shape[1:], dtype=bool)
    labelled[:8] = False
    dtype, options = "uint8", {}
    if kind in ("tag 255", "float tag", "lowest float", "NaN"):
        fill, tag, dtype = {
            "tag 255": (255, 255, "uint8"),
            "float tag": (-9999.9, -9999.9, "float32"),
            "lowest float": (np.finfo("float32").min, -3.4e38, "float32"),
            "NaN": (np.nan, None, "float64"),
        }[kind]
        mask, options = np.where(labelled, mask, np.array(fill, dtype)).astype(dtype), {"nodata": tag}
    elif "alpha" in kind:
        mask = np.concatenate([mask, np.where(labelled, 255, 0)[None]]).astype(kind.split()[0])
        mask[0, :4] = 7
    else:
        mask[:, :8] = 7 if "7" in kind else 0
    size = {"count": len(mask), "height": mask.shape[1], "width": mask.shape[2], "dtype": mask.dtype.name}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK="internal" in kind),
        rasterio.open(path, "w", driver="GTiff", transform=transform_at(), crs="EPSG:4326", **size, **options) as file,
    ):
        if "alpha" in kind:
            file.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
        file.write(mask)
        if "mask" in kind:
            file.write_mask(labelled)
    return class_mask([0, 1], seed=5, dtype="int64"), labelled


@pytest.mark.parametrize(
    "kind",
    [
        *("internal mask", "internal mask over 7", ".msk mask", "uint8 alpha", "int16 alpha"),
        *("tag 255", "float tag", "lowest float", "NaN"),
    ],
)
def test_pixels_without_a_label_are_ignored_wherever_masks_are_read(tmp_path, kind):
    write(tmp_path / "a.tif", reflectance(6), descriptions=BANDS)
    mask, labelled = write_marked_mask(tmp_path / "a_mask.tif", kind)
    split = dataset_of(tmp_path, "a")
    processor = PrithviImageProcessor(bands=list(BANDS), num_labels=2)
    expected = np.where(labelled, mask, -100)
    pixels = tuple((expected == label).sum() for label in (0, 1))

    whole = SegmentationTransform(processor)(split[:])
    np.testing.assert_array_equal(whole["labels"][0], expected)
    found = audit(split, processor)
    assert found.class_pixels == pixels
    assert found.ignored_pixels == (~labelled).sum()
    measured = compute_statistics(split, processor, show_progress=False)
    assert tuple(measured.class_pixels.values()) == pixels
    assert measured.ignored_pixels == (~labelled).sum()
    assert measured.label_problems == ()
    for chips in (split, cache_chips(split, processor, "train", tmp_path / "cache", show_progress=False)):
        for normalize in (True, False):
            crops = SegmentationTransform(processor, 32, train=True, normalize=normalize)
            np.testing.assert_array_equal(chips.with_transform(crops)[0]["labels"], expected)


@pytest.mark.parametrize("bands", [3, 4])
def test_a_picture_in_place_of_a_mask_is_named_as_one(split, tmp_path, processor, bands):
    write(tmp_path / "a_mask.tif", np.zeros((bands, 32, 32), np.uint8))
    with pytest.raises(ValueError, match=r"a_mask\.tif.*looks like a picture of a map"):
        audit(split, processor)
