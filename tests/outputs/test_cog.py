# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The files that maps are written to: pixels, georeference, names, colours, and nothing left after a failure."""

import multiprocessing
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.crs import CRS
from rio_cogeo import cog_validate

from prithvi_hf.outputs.cog import (
    check_output_path,
    complete_or_absent,
    is_own_map,
    write_class_map,
    write_probabilities,
)
from prithvi_hf.outputs.palette import class_palette
from prithvi_hf.rasters.write_geotiff import write_geotiff
from prithvi_hf.scenes import SegmentationMap
from tests.scene_factory import CRS_UTM, LABELS, TRANSFORM


pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def random_mask(height=40, width=52, classes=3, seed=0):
    mask = np.random.default_rng(seed).integers(0, classes, (height, width)).astype(np.uint8)
    mask[:7] = 255
    return mask


def random_probabilities(mask, seed=1):
    logits = np.random.default_rng(seed).normal(size=(3, *mask.shape)).astype(np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=0)
    probabilities[:, mask == 255] = np.nan
    return probabilities


def assert_valid_cog(path):
    valid, errors, remarks = cog_validate(path, strict=True)
    assert valid, (errors, remarks)


@pytest.mark.parametrize("size", [(40, 52), (1, 1), (512, 512), (700, 1100)])
def test_class_map_is_a_valid_cog_with_the_same_pixels(tmp_path, size):
    mask = random_mask(*size)
    write_class_map(tmp_path / "map.tif", mask, id2label=LABELS, crs=CRS_UTM, transform=TRANSFORM)
    assert_valid_cog(tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), mask)
        assert (dataset.count, dataset.dtypes, dataset.nodata) == (1, ("uint8",), 255)
        assert dataset.profile["compress"] == "deflate"
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert bool(dataset.overviews(1)) == (max(size) > 512)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (CRS_UTM, TRANSFORM),
        (CRS.from_epsg(4326), Affine(8.983152841195215e-05, 0, -65.26512067407877, 0, -8.983152841195215e-05, -14.2)),
        (CRS_UTM, Affine(9.7, -2.31, 399960.1, -2.3, -9.71, 8400040.9)),
        (CRS.from_proj4("+proj=aea +lat_0=23 +lon_0=-96 +lat_1=29.5 +lat_2=45.5 +datum=NAD83 +units=m"), TRANSFORM),
    ],
)
def test_georeference_is_kept_to_the_last_bit(tmp_path, crs, transform):
    write_class_map(tmp_path / "map.tif", random_mask(), id2label=LABELS, crs=crs, transform=transform)
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert dataset.crs == crs
        assert tuple(dataset.transform) == tuple(transform)


FRESH = """
import sys
import numpy as np
from prithvi_hf.outputs.cog import write_class_map
write_class_map(sys.argv[1], np.zeros((4, 5), dtype=np.uint8), id2label={0: "a"})
"""


def test_bare_array_is_written_in_a_fresh_process_without_a_warning(tmp_path):
    """Nothing has set up GDAL there, and no test runner has touched the warning filters."""
    command = [sys.executable, "-c", FRESH, tmp_path / "map.tif"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert dataset.crs is None


def test_names_and_colors_are_in_the_file(tmp_path):
    colors = ["#112233", "#0000ff", "#fefefe"]
    write_class_map(tmp_path / "map.tif", random_mask(), id2label=LABELS, class_colors=colors)
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert dataset.descriptions == ("class",)
        tags = dataset.tags(1)
        assert [tags[f"class_{index}"] for index in range(3)] == list(LABELS.values())
        table = dataset.colormap(1)
        assert [table[index][:3] for index in range(3)] == class_palette(3, colors)
        assert table[0][3] == 255
        assert table[255][3] == 0


def test_default_colors_serve_where_the_model_has_none(tmp_path):
    write_class_map(tmp_path / "map.tif", random_mask(), id2label=LABELS)
    with rasterio.open(tmp_path / "map.tif") as dataset:
        assert [dataset.colormap(1)[index][:3] for index in range(3)] == class_palette(3, None, list(LABELS.values()))


def test_overviews_hold_the_most_frequent_class_and_never_count_no_data(tmp_path):
    mask = np.full((1024, 1024), 255, dtype=np.uint8)
    mask[::2, ::2] = 1  # one valid pixel in each block of four
    mask[512:] = 0
    mask[512::2, ::2] = 2  # a minority
    write_class_map(tmp_path / "map.tif", mask, id2label=LABELS, crs=CRS_UTM, transform=TRANSFORM)
    with rasterio.open(tmp_path / "map.tif", overview_level=0) as dataset:
        overview = dataset.read(1)
    assert overview.shape == (512, 512)
    assert (overview[:256] == 1).all()
    assert (overview[256:] == 0).all()


def test_file_values_by_option(tmp_path):
    mask = random_mask()
    write_class_map(tmp_path / "map.tif", mask, id2label=LABELS, class_values={0: 1, 1: 2, 2: 200}, nodata=0)
    with rasterio.open(tmp_path / "map.tif") as dataset:
        expected = np.select([mask == 0, mask == 1, mask == 2], [1, 2, 200], 0)
        np.testing.assert_array_equal(dataset.read(1), expected)
        assert dataset.nodata == 0
        assert dataset.tags(1)["class_200"] == "cloud"
        assert dataset.colormap(1)[200][:3] == class_palette(3, None, list(LABELS.values()))[2]
        assert "class_0" not in dataset.tags(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_values": {0: 1}}, "of their own"),
        ({"class_values": {2: 255}}, "of their own"),
        ({"class_values": {2: 256}}, "integers 0 to 255"),
        ({"class_values": {2: -1}}, "integers 0 to 255"),
        ({"class_values": {2: 1.5}}, "integers 0 to 255"),
        ({"class_values": {3: 7}}, r"names the classes \[3\]"),
        ({"nodata": 1}, "of their own"),
        ({"nodata": 300}, "integers 0 to 255"),
        ({"class_colors": ["#000000"]}, "each of 3 classes, found 1"),
    ],
)
def test_bad_options_write_nothing(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write_class_map(tmp_path / "map.tif", random_mask(), id2label=LABELS, **options)
    assert not os.listdir(tmp_path)


def test_at_most_255_classes(tmp_path):
    mask = np.arange(255, dtype=np.uint8).reshape(15, 17)
    write_class_map(tmp_path / "map.tif", mask, id2label={index: f"class {index}" for index in range(255)})
    with rasterio.open(tmp_path / "map.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), mask)
        assert dataset.tags(1)["class_254"] == "class 254"
    with pytest.raises(ValueError, match="1 to 255 classes numbered from 0, found 256"):
        write_class_map(tmp_path / "no.tif", mask, id2label={index: str(index) for index in range(256)})
    assert os.listdir(tmp_path) == ["map.tif"]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((4, 4), 3, np.uint8), r"found \[3\]"),
        (np.full((4, 4), -100, np.int64), r"found \[-100\]"),
        (np.zeros((4, 4), np.float32), "float32"),
        (np.zeros((1, 4, 4), np.uint8), r"\(1, 4, 4\)"),
        (np.zeros((0, 4), np.uint8), r"\(0, 4\)"),
    ],
)
def test_mask_that_is_no_map_is_refused(tmp_path, mask, message):
    with pytest.raises(ValueError, match=message):
        write_class_map(tmp_path / "map.tif", mask, id2label=LABELS)
    assert not os.listdir(tmp_path)


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "map.tif"
    path.write_bytes(b"old")

    def fail():
        with complete_or_absent(path) as part:
            part.write_bytes(b"half a file")
            part.with_suffix(".ovr").write_bytes(b"side file")
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert os.listdir(tmp_path) == ["map.tif"]
    assert path.read_bytes() == b"old"


def test_full_disk_is_an_error_to_the_last_byte(tmp_path):
    """A limit on the size of files stands in for the full disk; the last bytes are those that libraries lose."""
    resource = pytest.importorskip("resource")
    mask, path = random_mask(600, 700), tmp_path / "map.tif"
    write_class_map(path, mask, id2label=LABELS)
    complete = path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for missing in (1, 100, 2_000, len(complete) // 2):
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(complete) - missing, before[0][1]))
            with pytest.raises(OSError, match=r"File too large|map\.tif.*cannot be written"):
                write_class_map(path, mask[::-1], id2label=LABELS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        signal.signal(signal.SIGXFSZ, before[1])
    assert os.listdir(tmp_path) == ["map.tif"]
    assert path.read_bytes() == complete


def test_stale_statistics_of_a_replaced_map_are_removed(tmp_path):
    (tmp_path / "map.tif.aux.xml").write_text("<PAMDataset/>")
    write_class_map(tmp_path / "map.tif", random_mask(), id2label=LABELS)
    assert os.listdir(tmp_path) == ["map.tif"]


def test_own_maps_are_known_again_also_as_copies(tmp_path):
    class_map, mask = tmp_path / "map.tif", np.zeros((20, 30), np.uint8)
    write_class_map(class_map, mask, id2label=LABELS)
    write_probabilities(tmp_path / "p.tif", np.zeros((3, 20, 30), np.float32), id2label=LABELS, dtype="uint8")
    (tmp_path / "cut.tif").write_bytes(class_map.read_bytes()[:-10])
    for driver, options in (("GTiff", {"compress": "lzw"}), ("COG", {})):
        rasterio.shutil.copy(class_map, tmp_path / f"{driver}.tif", driver=driver, **options)
    for name in ("map.tif", "p.tif", "cut.tif", "GTiff.tif", "COG.tif"):
        assert is_own_map(tmp_path / name), name
    write_geotiff(tmp_path / "scene.tif", mask, crs=CRS_UTM, transform=TRANSFORM)
    (tmp_path / "text.tif").write_text("prithvi_hf")
    (tmp_path / "empty.tif").touch()
    for name in ("scene.tif", "text.tif", "empty.tif", "missing.tif", ".", "a\0b.tif"):
        assert not is_own_map(f"{tmp_path}/{name}"), name


def test_same_map_gives_the_same_bytes(tmp_path):
    for name in ("a.tif", "b.tif"):
        write_class_map(tmp_path / name, random_mask(), id2label=LABELS, crs=CRS_UTM, transform=TRANSFORM)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes are not forked here")
def test_a_forked_process_writes_maps_as_its_parent_did(tmp_path):
    mask = random_mask(600, 1100)
    options = {"id2label": LABELS, "crs": CRS_UTM, "transform": TRANSFORM}
    write_class_map(tmp_path / "parent.tif", mask, **options)
    child = multiprocessing.get_context("fork").Process(
        target=write_class_map, args=(tmp_path / "child.tif", mask), kwargs=options
    )
    child.start()
    child.join(20)
    child.kill()  # one that waits for threads that its parent has
    assert (tmp_path / "child.tif").read_bytes() == (tmp_path / "parent.tif").read_bytes()


def test_complete_or_absent_gives_ordinary_permissions(tmp_path):
    with complete_or_absent(tmp_path / "file") as part:
        part.write_bytes(b"x")
    (tmp_path / "plain").write_bytes(b"x")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_output_path_checks(tmp_path):
    scene = tmp_path / "scene.tif"
    scene.write_bytes(b"pixels")
    (tmp_path / "link.tif").symlink_to(scene)
    with pytest.raises(ValueError, match="does not exist: create it first"):
        check_output_path(tmp_path / "none" / "map.tif")
    with pytest.raises(ValueError, match="is a folder"):
        check_output_path(tmp_path)
    for name in ("scene.tif", "link.tif", "./scene.tif"):
        with pytest.raises(ValueError, match="also an input"):
            check_output_path(tmp_path / name, inputs=[scene])
    with pytest.raises(ValueError, match="exists already"):
        check_output_path(scene, overwrite=False)
    with pytest.raises(ValueError, match=r"ends in \.tif or \.tiff for the map, found new\.png: no other format"):
        check_output_path(tmp_path / "new.png", suffixes=(".tif", ".tiff"))
    assert check_output_path(tmp_path / "new.TIF", suffixes=(".tif", ".tiff")).name == "new.TIF"
    assert check_output_path(scene) == scene
    assert check_output_path(tmp_path / "new.tif", inputs=[scene, b"bytes"], overwrite=False).name == "new.tif"


@pytest.mark.parametrize("size", [(40, 52), (600, 700)])
def test_float_probabilities(tmp_path, size):
    mask = random_mask(*size)
    probabilities = random_probabilities(mask)
    write_probabilities(tmp_path / "p.tif", probabilities, id2label=LABELS, crs=CRS_UTM, transform=TRANSFORM)
    assert_valid_cog(tmp_path / "p.tif")
    with rasterio.open(tmp_path / "p.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(), probabilities)
        assert dataset.descriptions == tuple(LABELS.values())
        assert np.isnan(dataset.nodata)
        assert (dataset.crs, tuple(dataset.transform)) == (CRS_UTM, tuple(TRANSFORM))
        np.testing.assert_array_equal(dataset.read_masks(1) == 0, mask == 255)


def test_byte_probabilities_carry_their_scale(tmp_path):
    mask = random_mask()
    probabilities = random_probabilities(mask)
    write_probabilities(tmp_path / "p.tif", probabilities, id2label=LABELS, dtype="uint8")
    assert_valid_cog(tmp_path / "p.tif")
    with rasterio.open(tmp_path / "p.tif") as dataset:
        values = dataset.read()
        assert dataset.nodata == 255
        np.testing.assert_array_equal(values == 255, np.isnan(probabilities))
        decoded = values * np.reshape(dataset.scales, (3, 1, 1))
    valid = mask != 255
    assert np.abs(decoded - probabilities)[:, valid].max() <= 0.5 / 254 + 1e-6


@pytest.mark.parametrize(("shape", "dtype"), [((2, 4, 4), "float32"), ((4, 4), "float32"), ((3, 4, 4), "int16")])
def test_bad_probabilities_write_nothing(tmp_path, shape, dtype):
    with pytest.raises(ValueError, match=r"Expected probabilities|written as one of"):
        write_probabilities(tmp_path / "p.tif", np.zeros(shape, np.float32), id2label=LABELS, dtype=dtype)
    assert not os.listdir(tmp_path)


def test_map_counts_its_classes():
    mask = np.array([[0, 1, 1, 255]], dtype=np.uint8)
    assert SegmentationMap(mask, id2label=LABELS).class_counts() == {
        "no water": 1,
        "water": 2,
        "cloud": 0,
        "no data": 1,
    }


def test_map_without_names_numbers_its_classes(tmp_path):
    result = SegmentationMap(np.array([[0, 2, 255]], dtype=np.uint8))
    assert repr(result) == "SegmentationMap(1 x 3 pixels, crs=None, classes=['LABEL_0', 'LABEL_1', 'LABEL_2'])"
    assert result.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    with pytest.raises(ValueError, match="holds no probabilities"):
        result.probabilities_to_geotiff(tmp_path / "p.tif")
