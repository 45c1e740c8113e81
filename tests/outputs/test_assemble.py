# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The last pass: from strips to Cloud-Optimized GeoTIFF, in bounded memory, compared with the strips."""

import os
import shutil
import signal

import numpy as np
import pytest
import rasterio
import torch
from rasterio.errors import RasterioIOError
from rio_cogeo import cog_validate

from prithvi_hf.outputs import assemble, cog
from prithvi_hf.outputs.assemble import (
    CLASSES,
    ENTROPY,
    StagedMap,
    check_space,
    make_layer,
    make_products,
    name_probability,
    publish,
    write_layer,
)
from prithvi_hf.outputs.cog import class_layer
from prithvi_hf.outputs.registry import OUTPUTS, OutputOptions
from prithvi_hf.outputs.staging import DamagedStripError, Staging
from prithvi_hf.rasters.warping import Grid
from prithvi_hf.scenes import write_class_map, write_probabilities
from tests.scene_factory import CRS_UTM, LABELS, TRANSFORM


ALL = ("probabilities", "entropy", "confidence")
RECORDS = {output.name: output for output in OUTPUTS}


def make_logits(height, width, classes=3, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 2, (classes, height, width)).astype(np.float32))


def make_nodata(height, width):
    nodata = np.zeros((height, width), bool)
    nodata[: height // 3, : width // 2] = True
    return nodata


@pytest.fixture
def stage(tmp_path):
    """Stage a map of random logits in strips of uneven heights."""
    opened = []

    def make(height=70, width=90, starts=(0, 16, 32, 38), needs=ALL, dtype="float32", classes=3):
        logits, nodata = make_logits(height, width, classes), make_nodata(height, width)
        staging = Staging(tmp_path / "map.tif", {}, len(starts)).__enter__()
        opened.append(staging)
        for index, (start, stop) in enumerate(zip(starts, (*starts[1:], height), strict=True)):
            staging.commit(index, make_products(logits[:, start:stop], nodata[start:stop], needs, dtype))
        labels = LABELS if classes == 3 else {index: f"class {index}" for index in range(classes)}
        grid = Grid(CRS_UTM, TRANSFORM, height, width)
        options = OutputOptions(probabilities_dtype=dtype)
        return StagedMap(staging, tuple(starts), grid, labels, options=options), logits, nodata

    yield make
    for staging in opened:
        staging.__exit__(None, None, None)


def expected(logits, nodata):
    classes = logits.argmax(0).numpy().astype(np.uint8)
    classes[nodata] = 255
    probabilities = logits.softmax(0).numpy()
    probabilities[:, nodata] = np.nan
    return classes, probabilities


def assert_valid_cog(path):
    valid, errors, remarks = cog_validate(path, strict=True)
    assert valid, (errors, remarks)


@pytest.mark.parametrize(
    ("height", "width", "starts"),
    [
        (70, 90, (0, 16, 32, 38)),
        (1, 1, (0,)),
        (512, 512, (0, 256)),
        (1100, 700, (0, 300, 876)),
        (1300, 40, (0, 1290)),
        (1025, 513, tuple(range(0, 1025, 100))),
    ],
)
def test_files_are_those_of_a_map_in_memory(tmp_path, stage, height, width, starts):
    """To the last byte: names, colours, overviews and pixels have one source."""
    strips, logits, nodata = stage(height, width, starts)
    classes, _ = expected(logits, nodata)
    probabilities = np.stack([np.concatenate(list(strips.load(name_probability(band)))) for band in range(3)])
    place = {"id2label": LABELS, "crs": CRS_UTM, "transform": TRANSFORM}
    write_layer(tmp_path / "a.tif", class_layer(LABELS), strips)
    write_class_map(tmp_path / "b.tif", classes, **place)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert_valid_cog(tmp_path / "a.tif")
    write_layer(tmp_path / "p.tif", make_layer(RECORDS["probabilities"], strips), strips)
    write_probabilities(tmp_path / "q.tif", probabilities, **place)
    assert (tmp_path / "p.tif").read_bytes() == (tmp_path / "q.tif").read_bytes()
    assert_valid_cog(tmp_path / "p.tif")


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
def test_probabilities_as_bytes_are_not_colours(tmp_path, stage, classes):
    """GDAL takes 3 or 4 bands of bytes for colours and opacity unless it is told otherwise."""
    strips, logits, nodata = stage(needs=["probabilities"], dtype="uint8", classes=classes)
    write_layer(tmp_path / "p.tif", make_layer(RECORDS["probabilities"], strips), strips)
    with rasterio.open(tmp_path / "p.tif") as dataset:
        assert [kind.name for kind in dataset.colorinterp] == ["gray", *["undefined"] * (classes - 1)]
        assert [[flag.name for flag in flags] for flags in dataset.mask_flag_enums] == [["nodata"]] * classes
        np.testing.assert_array_equal(dataset.dataset_mask() == 0, nodata)
    probabilities = expected(logits, nodata)[1]
    place = {"crs": CRS_UTM, "transform": TRANSFORM}
    write_probabilities(tmp_path / "q.tif", probabilities, id2label=strips.id2label, dtype="uint8", **place)
    assert (tmp_path / "p.tif").read_bytes() == (tmp_path / "q.tif").read_bytes()


def test_class_values_and_counts(tmp_path, stage):
    strips, logits, nodata = stage(height=700, width=600, starts=(0, 130, 333, 600))
    classes, _ = expected(logits, nodata)
    write_layer(tmp_path / "a.tif", class_layer(LABELS, class_values={0: 10, 2: 0}), strips)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        table = np.full(256, 255)
        table[:3] = (10, 1, 0)
        np.testing.assert_array_equal(dataset.read(1), table[classes])
        assert dataset.tags(1) == {"class_0": "cloud", "class_1": "water", "class_10": "no water"} | {
            key: value for key, value in dataset.tags(1).items() if not key.startswith("class_")
        }
    np.testing.assert_array_equal(strips.counts, np.bincount(classes.ravel(), minlength=256))


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_entropy_and_confidence(tmp_path, stage, dtype):
    strips, logits, nodata = stage(needs=["entropy", "confidence"], dtype=dtype)
    write_layer(tmp_path / "e.tif", make_layer(RECORDS["entropy"], strips), strips)
    write_layer(tmp_path / "c.tif", make_layer(RECORDS["polygons"], strips), strips, optimized=False)
    _, probabilities = expected(logits, nodata)
    entropy = -(probabilities * np.log(probabilities)).sum(0) / np.log(3)
    with rasterio.open(tmp_path / "e.tif") as dataset:
        assert (dataset.descriptions, dataset.dtypes, dataset.count) == (("entropy",), (dtype,), 1)
        assert np.isnan(dataset.nodata) if dtype == "float32" else dataset.nodata == 255
        values = dataset.read(1, masked=True) * dataset.scales[0]
    np.testing.assert_array_equal(np.ma.getmaskarray(values), nodata)
    np.testing.assert_allclose(
        values.filled(0), np.nan_to_num(entropy), atol=1e-6 if dtype == "float32" else 0.5 / 254
    )
    with rasterio.open(tmp_path / "c.tif") as dataset:
        np.testing.assert_allclose(dataset.read(1), probabilities.max(0), rtol=1e-6)
    assert_valid_cog(tmp_path / "e.tif")
    write_layer(tmp_path / "confidence.tif", make_layer(RECORDS["confidence"], strips), strips)
    with rasterio.open(tmp_path / "confidence.tif") as dataset:
        assert (dataset.descriptions, dataset.dtypes, dataset.count) == (("confidence",), (dtype,), 1)
        values = dataset.read(1, masked=True) * dataset.scales[0]
    np.testing.assert_array_equal(np.ma.getmaskarray(values), nodata)
    largest = np.nan_to_num(probabilities.max(0))
    np.testing.assert_allclose(values.filled(0), largest, atol=1e-6 if dtype == "float32" else 0.5 / 254 + 1e-7)
    assert_valid_cog(tmp_path / "confidence.tif")


def test_many_bands_pass_by_one_at_a_time(tmp_path, stage, monkeypatch):
    strips, *_ = stage()
    asked = []
    load = Staging.load
    monkeypatch.setattr(
        Staging, "load", lambda self, index, names: asked.append((names, index)) or load(self, index, names)
    )
    write_layer(tmp_path / "p.tif", make_layer(RECORDS["probabilities"], strips), strips)
    assert asked == [([name_probability(band)], index) for band in range(3) for index in range(4)]


def test_missing_and_damaged_strips_are_errors(tmp_path, stage):
    strips, *_ = stage()
    path = strips.staging.folder / "strip_000002.npz"
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DamagedStripError, match=r"strip 2 of .*run the same command again"):
        write_layer(tmp_path / "a.tif", class_layer(LABELS), strips)
    with pytest.raises(DamagedStripError, match="missing or damaged"):
        write_layer(tmp_path / "a.tif", class_layer(LABELS), strips)


def test_a_copy_with_other_pixels_is_noticed(tmp_path, stage, monkeypatch):
    """GDAL may lose a write without saying so; a changed plain file stands in for it."""
    strips, *_ = stage(height=600, width=600, starts=(0, 300))

    def copy_damaged(source, target, **options):
        with rasterio.open(source, "r+") as dataset:
            block = dataset.read(1, window=((550, 551), (520, 521)))
            dataset.write(block ^ 1, 1, window=((550, 551), (520, 521)))
        real(source, target, **options)

    real = cog.copy_dataset
    monkeypatch.setattr(cog, "copy_dataset", copy_damaged)
    with pytest.raises(OSError, match=r"found others in band 1 at .*col_off=512, row_off=512"):
        write_layer(tmp_path / "a.tif", class_layer(LABELS), strips)


def test_an_error_of_gdal_says_what_to_do(tmp_path, stage, monkeypatch):
    strips, *_ = stage()

    def fail(*_, **__):
        raise RasterioIOError("Read or write failed")

    monkeypatch.setattr(cog, "copy_dataset", fail)
    with pytest.raises(OSError, match=r"Expected to write the map .*Read or write failed.*MB are free"):
        write_layer(tmp_path / "a.tif", class_layer(LABELS), strips)


def test_full_disk_is_an_error_to_the_last_byte(tmp_path, stage):
    """A limit on the size of files stands in for the full disk; no limit below the file's size may go unnoticed."""
    resource = pytest.importorskip("resource")
    strips, *_ = stage(height=1100, width=1200, starts=(0, 600))
    path = tmp_path / "part" / "a.tif"
    path.parent.mkdir()
    write_layer(path, class_layer(LABELS), strips)
    complete = path.read_bytes()
    plain_size = 3 * 3 * 512 * 512
    limits = [len(complete) - missing for missing in (1, 10, 1000, 30_000)] + [1, len(complete) // 2]
    copy = cog.copy_dataset
    before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        assert max(limits) < plain_size
        for limit in (*limits, plain_size - 1, plain_size // 2):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[0][1]))
            with pytest.raises(OSError, match=r"cannot be written|full"):
                write_layer(path, class_layer(LABELS), strips)
        # The plain file is written without the limit, so that the optimized one meets it.
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        for limit in limits:

            def copy_limited(*arguments, limit=limit, **options):
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[0][1]))
                return copy(*arguments, **options)

            cog.copy_dataset = copy_limited
            with pytest.raises(OSError, match=r"cannot be written|full"):
                write_layer(path, class_layer(LABELS), strips)
            resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
    finally:
        cog.copy_dataset = copy
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        signal.signal(signal.SIGXFSZ, before[1])
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    write_layer(path, class_layer(LABELS), strips)
    assert path.read_bytes() == complete
    assert os.listdir(path.parent) == ["a.tif"]


def test_gdal_keeps_a_small_cache(tmp_path, stage, monkeypatch):
    strips, *_ = stage()
    seen = []

    def copy(*arguments, **options):
        seen.append(rasterio.env.getenv()["GDAL_CACHEMAX"])
        return real(*arguments, **options)

    real = cog.copy_dataset
    monkeypatch.setattr(cog, "copy_dataset", copy)
    write_layer(tmp_path / "a.tif", class_layer(LABELS), strips)
    assert seen == [64 * 2**20]


def test_publishing_replaces_and_removes_stale_statistics(tmp_path):
    parts = {}
    for name in ("p", "map"):
        (tmp_path / f"{name}.part").write_text(name)
        parts[tmp_path / f"{name}.part"] = tmp_path / f"{name}.tif"
    (tmp_path / "map.tif").write_text("old")
    (tmp_path / "map.tif.aux.xml").write_text("old")
    publish(parts)
    assert sorted(os.listdir(tmp_path)) == ["map.tif", "p.tif"]
    assert (tmp_path / "map.tif").read_text() == "map"


def test_an_old_map_never_stands_beside_new_companions(tmp_path, monkeypatch):
    """Whatever renaming fails."""
    parts = {tmp_path / f"{name}.part": tmp_path / f"{name}.tif" for name in ("p", "e", "map")}
    rename = os.replace
    for number in range(3):
        for part, path in parts.items():
            part.write_text("new")
            path.write_text("old")
        left = [number]

        def replace(source, target, left=left):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            rename(source, target)

        monkeypatch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            publish(parts)
        assert not (tmp_path / "map.tif").exists()
        monkeypatch.undo()
    for part in parts:
        part.write_text("new")
    publish(parts)
    assert {path.read_text() for path in parts.values()} == {"new"}


def test_free_space_is_asked_for(tmp_path, stage, monkeypatch):
    strips, *_ = stage(height=1000, width=1000, starts=(0, 500))
    outputs = {name: (RECORDS[name], tmp_path / f"{name}.tif") for name in ("map", "probabilities")}
    check_space(strips, outputs)
    usage = type(shutil.disk_usage(tmp_path))
    strips.staging.resumed = 1  # half of the strips, 13 bytes per pixel, are still to come
    needed = 13 * 500_000 + 12_000_000 + 6_500_000
    for free, enough in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage(10**12, 0, free))
        if enough:
            check_space(strips, outputs)
            continue
        with pytest.raises(OSError, match=r"about 25 MB free in .*map.*probabilities.*found 25 MB: free"):
            check_space(strips, outputs)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 0))
    check_space(strips, outputs)  # a file system that counts nothing


def test_each_file_system_is_asked_for_its_own_outputs(tmp_path, stage, monkeypatch):
    strips, *_ = stage()
    elsewhere, usage = tmp_path / "small", shutil.disk_usage
    elsewhere.mkdir()
    small = type(usage(tmp_path))(10**9, 10**9, 10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: small if folder == elsewhere else usage(folder))
    monkeypatch.setattr(assemble, "file_system", lambda folder: int(folder == elsewhere))
    for name in ("probabilities", "entropy", "polygons", "quicklook", "report"):
        outputs = {"map": (RECORDS["map"], tmp_path / "map.tif"), name: (RECORDS[name], elsewhere / "file")}
        with pytest.raises(OSError, match=rf"MB free in {elsewhere} for the {name} .*file, found 0 MB"):
            check_space(strips, outputs)


def test_products_have_their_ranges():
    logits = torch.tensor([[[60.0, 0.0, np.nan]], [[-60.0, 0.0, np.nan]]])
    products = make_products(logits, np.array([[False, False, True]]), ALL)
    np.testing.assert_array_equal(products[CLASSES], [[0, 0, 255]])
    np.testing.assert_allclose(products[ENTROPY][0, :2], [0, 1], atol=1e-6)
    assert np.isnan(products[ENTROPY][0, 2])
    total = sum(products[name_probability(index)] for index in range(2))
    np.testing.assert_allclose(total[0, :2], 1, atol=1e-6)


def test_products_do_not_depend_on_how_many_rows_are_turned_at_once(monkeypatch):
    logits, nodata = make_logits(40, 30), make_nodata(40, 30)
    whole = make_products(logits, nodata, ALL)
    monkeypatch.setattr("prithvi_hf.outputs.assemble._CHUNK_VALUES", 300)
    for name, values in make_products(logits, nodata, ALL).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-5, atol=1e-7)


def test_temperature_divides_logits_and_leaves_classes():
    logits, nodata = make_logits(20, 30), make_nodata(20, 30)
    plain, products = make_products(logits, nodata, ALL), make_products(logits, nodata, ALL, temperature=2.5)
    expected = make_products(logits / 2.5, nodata, ALL)
    np.testing.assert_array_equal(products[CLASSES], plain[CLASSES])
    for name in ("confidence", ENTROPY, name_probability(1)):
        np.testing.assert_allclose(products[name], expected[name], rtol=1e-5)
        assert np.nanmax(np.abs(products[name] - plain[name])) > 0.1


def test_a_single_class_has_no_entropy():
    products = make_products(make_logits(3, 4, classes=1), np.zeros((3, 4), bool), ALL)
    assert not products[ENTROPY].any()


def test_products_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="at most 255"):
        make_products(torch.zeros(256, 1, 1), np.zeros((1, 1), bool))
