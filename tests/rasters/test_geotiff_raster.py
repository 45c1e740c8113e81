# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""GeoTiffRaster: what it reads, that it holds nothing open, and what it refuses."""

import contextlib
import logging
import os
import pickle
import shutil
import sqlite3
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.enums import ColorInterp

from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.pixel_values_prithvi import equals_nodata
from prithvi_hf.models.prithvi.segmentation_map_prithvi import open_frames
from prithvi_hf.rasters import raster as raster_module
from prithvi_hf.rasters.geotiff_raster import (
    GeoTiffDecodeError,
    GeoTiffError,
    GeoTiffNotFoundError,
    GeoTiffRaster,
    OpenFiles,
)
from prithvi_hf.rasters.write_geotiff import write_geotiff
from prithvi_hf.scenes.scene import open_scene
from tests.raster_factory import (
    BANDS,
    cut_off,
    flip_unnoticed,
    reflectance,
    transform_at,
    write_chip,
    write_part,
    write_raster,
)


TILES = {"tiled": True, "blockxsize": 16, "blockysize": 16}


@pytest.fixture
def chip(tmp_path):
    return write_chip(tmp_path / "chip.tif", size=(24, 40))


def test_header_without_reading_pixels(chip):
    raster = GeoTiffRaster(chip)
    assert raster.shape == (6, 24, 40)
    assert (raster.count, raster.height, raster.width) == (6, 24, 40)
    assert raster.descriptions == BANDS
    assert raster.dtype == "int16"
    assert raster.nodata == 0
    assert raster.crs.to_epsg() == 4326
    assert raster.transform == transform_at()
    assert raster.scales == (1.0,) * 6
    assert raster.offsets == (0.0,) * 6
    assert raster.path == raster.name == str(chip)
    assert "chip.tif" in repr(raster)
    assert "(6, 24, 40)" in repr(raster)


def test_reads_bands_in_the_order_asked_for_and_only_the_window(chip):
    expected = reflectance(6, (24, 40))
    raster = GeoTiffRaster(chip)
    np.testing.assert_array_equal(raster.read(), expected)
    np.testing.assert_array_equal(raster.read(bands=[4, 0], window=(3, 5, 7, 9)), expected[[4, 0], 3:10, 5:14])
    np.testing.assert_array_equal(np.asarray(raster), expected)
    assert np.asarray(raster, dtype=np.float32).dtype == np.float32


def test_selections_compose_and_transform_follows(chip):
    raster = GeoTiffRaster(chip).select(bands=[5, 3, 1], window=(2, 4, 20, 30)).select([2, 0], (1, 3, 5, 6))
    np.testing.assert_array_equal(raster.read(), reflectance(6, (24, 40))[[1, 5], 3:8, 7:13])
    assert raster.descriptions == ("GREEN", "SWIR_2")
    assert raster.shape == (2, 5, 6)
    with rasterio.open(chip) as dataset:
        expected = dataset.window_transform(rasterio.windows.Window(7, 3, 6, 5))
    np.testing.assert_allclose(raster.transform[:6], expected[:6], rtol=0, atol=1e-15)


def test_selection_leaves_the_original_alone(chip):
    raster = GeoTiffRaster(chip)
    raster.select([0], (0, 0, 2, 2))
    assert raster.shape == (6, 24, 40)


@pytest.mark.parametrize("bands", [[6], [-1], [0, 99]])
def test_band_outside_the_file(chip, bands):
    with pytest.raises(IndexError, match=r"0\.\.5.*SWIR_2"):
        GeoTiffRaster(chip).select(bands)


def test_empty_band_selection(chip):
    with pytest.raises(ValueError, match="at least one band"):
        GeoTiffRaster(chip).read(bands=[])


@pytest.mark.parametrize("window", [(0, 0, 25, 40), (-1, 0, 5, 5), (0, 36, 5, 5), (0, 0, 0, 5)])
def test_window_outside_the_file(chip, window):
    with pytest.raises(ValueError, match="inside 24 x 40"):
        GeoTiffRaster(chip).read(window=window)


def test_bytes_read_like_the_file(chip):
    raster = GeoTiffRaster(content=chip.read_bytes())
    np.testing.assert_array_equal(raster.read(), reflectance(6, (24, 40)))
    assert (raster.path, raster.name) == (None, "<bytes>")


@pytest.mark.parametrize("from_bytes", [False, True])
def test_pickles_with_its_selection(chip, from_bytes):
    raster = GeoTiffRaster(content=chip.read_bytes()) if from_bytes else GeoTiffRaster(chip)
    copy = pickle.loads(pickle.dumps(raster.select([2], (1, 1, 3, 3))))
    np.testing.assert_array_equal(copy.read(), reflectance(6, (24, 40))[2:3, 1:4, 1:4])


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="lists open files through /proc")
def test_holds_no_file_open(chip):
    raster = GeoTiffRaster(chip)
    raster.read()
    targets = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    assert str(chip) not in targets


def test_reads_in_threads(chip):
    raster = GeoTiffRaster(chip)
    expected = reflectance(6, (24, 40))
    with ThreadPoolExecutor(4) as pool:
        arrays = list(pool.map(lambda row: raster.read(window=(row, 0, 1, 40)), list(range(24)) * 4))
    for row, array in enumerate(arrays):
        np.testing.assert_array_equal(array, expected[:, row % 24 : row % 24 + 1])


def test_internal_mask_is_nodata_and_the_tag_is_not(tmp_path):
    path = tmp_path / "masked.tif"
    valid = np.ones((8, 8), dtype=bool)
    valid[2:4, :5] = False
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", count=2, height=8, width=8, dtype="int16", transform=transform_at()
        ) as dataset,
    ):
        dataset.write(np.zeros((2, 8, 8), np.int16))
        dataset.write_mask(valid)
    np.testing.assert_array_equal(GeoTiffRaster(path).read_nodata_mask(), ~valid)
    np.testing.assert_array_equal(GeoTiffRaster(path).select([1], (1, 2, 4, 4)).read_nodata_mask(), ~valid[1:5, 2:6])
    np.testing.assert_array_equal(GeoTiffRaster(path).read_nodata_mask((2, 0, 1, 8)), ~valid[2:3])


def test_nodata_tag_alone_gives_no_mask(chip):
    assert GeoTiffRaster(chip).read_nodata_mask() is None


def _write_alpha(path, names=None):
    pixels = np.full((4, 6, 6), 9, np.uint8)
    pixels[3, :2] = 0
    write_raster(path, pixels, descriptions=names)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    return GeoTiffRaster(path)


def test_alpha_band_is_nodata_unless_it_is_data(tmp_path):
    raster = _write_alpha(tmp_path / "alpha.tif")
    assert raster.read_nodata_mask()[:2].all()
    assert not raster.read_nodata_mask()[2:].any()
    assert raster.select([0, 1, 2]).read_nodata_mask().sum() == 12
    assert raster.select([0, 3]).read_nodata_mask() is None
    described = _write_alpha(tmp_path / "nir.tif", ("RED", "GREEN", "BLUE", "NIR"))
    assert described.read_nodata_mask() is None


def test_scale_and_offset_tags_are_told_and_not_applied(tmp_path):
    path = write_chip(tmp_path / "chip.tif")
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.0001,) * 6, (-0.1,) * 6
    raster = GeoTiffRaster(path).select([1, 2])
    assert raster.scales == (0.0001, 0.0001)
    assert raster.offsets == (-0.1, -0.1)
    assert raster.read().dtype == np.int16


@pytest.mark.parametrize("compress", ["deflate", "lzw", None])
@pytest.mark.parametrize("interleave", ["band", "pixel"])
@pytest.mark.parametrize("bigtiff", ["NO", "YES"])
def test_layouts(tmp_path, compress, interleave, bigtiff):
    pixels = reflectance(3, (20, 33)).astype(np.float32)
    options = {"compress": compress, "interleave": interleave, "BIGTIFF": bigtiff}
    path = write_raster(tmp_path / "a.tif", pixels, **options)
    np.testing.assert_array_equal(GeoTiffRaster(path).read(), pixels)


def test_big_endian_and_tiled(tmp_path):
    pixels = reflectance(3, 64)
    path = tmp_path / "a.tif"
    blocks = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    write_geotiff(path, pixels, crs=None, transform=transform_at(), ENDIANNESS="BIG", **blocks)
    np.testing.assert_array_equal(GeoTiffRaster(path).read(window=(10, 20, 30, 40)), pixels[:, 10:40, 20:60])


def test_sparse_file(tmp_path):
    path = tmp_path / "sparse.tif"
    options = {"tiled": True, "blockxsize": 256, "blockysize": 256, "SPARSE_OK": True}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=1,
        height=4096,
        width=4096,
        dtype="uint8",
        nodata=7,
        transform=transform_at(),
        **options,
    ):
        pass
    assert (GeoTiffRaster(path).read() == 7).all()


def test_text_file_named_tif(tmp_path):
    path = tmp_path / "notes.tif"
    path.write_text("hello, this is no raster")
    with pytest.raises(GeoTiffError, match=r"notes\.tif: expected a GeoTIFF, found a file that starts with b'hello"):
        GeoTiffRaster(path)


def test_empty_file(tmp_path):
    path = tmp_path / "empty.tif"
    path.touch()
    with pytest.raises(GeoTiffError, match="an empty file"):
        GeoTiffRaster(path)


@pytest.mark.parametrize("bigtiff", ["NO", "YES"])
@pytest.mark.parametrize("compress", ["deflate", None])
def test_every_truncation_is_found_on_opening(tmp_path, compress, bigtiff):
    path = write_chip(tmp_path / "chip.tif", compress=compress, BIGTIFF=bigtiff)
    content = path.read_bytes()
    for keep in [*range(1, 40), *np.linspace(40, len(content) - 1, 40).astype(int)]:
        path.write_bytes(content[:keep])
        with pytest.raises(GeoTiffError, match=r"chip\.tif"):
            GeoTiffRaster(path)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"compress": "lzw", **TILES}, {"driver": "COG", "mask": True}])
def test_no_cut_of_the_end_is_read_as_if_nothing_were_lost(tmp_path, options):
    """Whatever is logged and whatever a program silences: tags, masks and pixels are there, or there is an error."""
    path, copy = write_chip(tmp_path / "a.tif"), tmp_path / "b.tif"
    options = dict(options)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        if options.pop("mask", False):
            with rasterio.open(path, "r+") as dataset:
                dataset.write_mask(np.arange(32 * 32).reshape(32, 32) % 3 > 0)
        rasterio.shutil.copy(path, copy, **{"driver": "GTiff", **options})
    content = copy.read_bytes()
    whole = GeoTiffRaster(content=content)
    expected, mask, opened = whole.read(), whole.read_nodata_mask(), 0
    logging.disable(logging.CRITICAL)
    try:
        for size in [
            *range(0, 3000, 7),
            *range(3000, len(content) - 1500, 83),
            *range(len(content) - 1500, len(content)),
        ]:
            with contextlib.suppress(GeoTiffError):
                raster = GeoTiffRaster(content=content[: min(size, len(content) - 1)], allow_missing_blocks=True)
                opened += 1
                assert raster._header == whole._header
                with contextlib.suppress(GeoTiffDecodeError):
                    np.testing.assert_array_equal(raster.read_nodata_mask(), mask)
                with contextlib.suppress(GeoTiffDecodeError):
                    np.testing.assert_array_equal(raster.read(), expected)
    finally:
        logging.disable(logging.NOTSET)
    assert opened > 100 or "driver" not in options


def test_damaged_pixels_are_found_on_reading(tmp_path):
    path = write_chip(tmp_path / "chip.tif")
    content = bytearray(path.read_bytes())
    with rasterio.open(path) as dataset:
        offset = int(dataset.tags(1, ns="TIFF")["BLOCK_OFFSET_0_0"]) if dataset.tags(1, ns="TIFF") else 200
    content[offset : offset + 300] = bytes(300)
    path.write_bytes(content)
    with pytest.raises(GeoTiffError, match=r"chip\.tif: its header promises 6 bands.*damaged"):
        GeoTiffRaster(path).read()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # rasterio logging text of no encoding
@pytest.mark.parametrize("options", [{}, {"BIGTIFF": "YES"}, {"tiled": True, "blockxsize": 16, "blockysize": 16}])
def test_damaged_bytes_are_read_or_refused_and_nothing_else(tmp_path, options):
    content = write_chip(tmp_path / "chip.tif", **options).read_bytes()
    rng = np.random.default_rng(0)
    refused = []
    for _ in range(100):
        damaged = bytearray(content)
        for _ in range(8):
            # The directory lies at the end, and a hit there tells more than one among the pixels.
            place = rng.choice([rng.integers(8, len(content)), len(content) - rng.integers(1, 1200)])
            damaged[place] = rng.choice([0, 255, rng.integers(256)])
        try:
            GeoTiffRaster(content=bytes(damaged)).read()
        except GeoTiffError as error:
            refused.append(str(error))
    assert len(refused) > 10
    assert all("<bytes>" in message for message in refused)


def test_missing_file_is_both_kinds_of_error(tmp_path):
    with pytest.raises(GeoTiffNotFoundError, match="found nothing there") as info:
        GeoTiffRaster(tmp_path / "none.tif")
    assert isinstance(info.value, FileNotFoundError)
    assert isinstance(info.value, GeoTiffError)


def test_directory(tmp_path):
    with pytest.raises(GeoTiffError, match="regular GeoTIFF file, found a directory"):
        GeoTiffRaster(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "/vsicurl/http://localhost/a.tif",
        "/vsimem/a.tif",
        "https://localhost/a.tif",
        "zip://a.zip!a.tif",
        "s3://b/a.tif",
    ],
)
def test_remote_and_virtual_paths(name):
    with pytest.raises(GeoTiffError, match="remote or virtual path"):
        GeoTiffRaster(name)


def test_other_drivers_are_never_used(tmp_path):
    """A VRT can name any file or URL; it must not be opened whatever its extension."""
    chip = write_chip(tmp_path / "chip.tif")
    vrt = tmp_path / "trojan.tif"
    vrt.write_text(
        '<VRTDataset rasterXSize="32" rasterYSize="32"><VRTRasterBand dataType="Int16" band="1"><SimpleSource>'
        f"<SourceFilename>{chip}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(GeoTiffError):
        GeoTiffRaster(vrt)


def test_neither_path_nor_bytes():
    with pytest.raises(GeoTiffError, match="found neither"):
        GeoTiffRaster()


def test_complex_pixels(tmp_path):
    path = write_raster(tmp_path / "slc.tif", np.ones((1, 4, 4), np.complex64))
    with pytest.raises(GeoTiffError, match="found complex64"):
        GeoTiffRaster(path)


def _forge_tile_size(path, tile):
    """A 1 x 1 tiled TIFF whose header asks for a huge tile: 8 entries and no pixels."""
    entries = [(256, 1), (257, 1), (258, 8), (259, 8), (262, 1), (322, tile), (323, tile), (324, 0), (325, 0)]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + struct.pack("<I", 0))
    return path


def test_absurd_tile_is_refused_before_it_is_allocated(tmp_path):
    path = _forge_tile_size(tmp_path / "bomb.tif", 2**15)
    with pytest.raises(GeoTiffError, match=r"bomb\.tif.*not credible"):
        GeoTiffRaster(path)


def test_absurd_number_of_bands_is_refused(tmp_path):
    path = tmp_path / "bands.tif"
    write_geotiff(path, np.zeros((4097, 1, 1), np.uint8), crs=None, transform=Affine.translation(1, 1))
    with pytest.raises(GeoTiffError, match=r"bands\.tif.*at most 4,096 bands, found 4,097"):
        GeoTiffRaster(path)


def test_read_limit_has_a_remedy(chip, monkeypatch):
    monkeypatch.setattr(raster_module, "MAX_READ_BYTES", 6 * 24 * 40 * 2 - 1)
    raster = GeoTiffRaster(chip)
    with pytest.raises(GeoTiffError, match=r"chip\.tif.*window by window.*MAX_READ_BYTES"):
        raster.read()
    assert raster.read(window=(0, 0, 12, 40)).shape == (6, 12, 40)


def test_missing_georeference_does_not_spam(tmp_path):
    """In a process of its own, since pytest has its own ideas about warning filters."""
    path = tmp_path / "plain.tif"
    program = (
        "import sys, numpy as np, affine\n"
        "from prithvi_hf.data import GeoTiffRaster, write_geotiff\n"
        "write_geotiff(sys.argv[1], np.ones((2, 4, 4), 'uint8'), crs=None, transform=affine.Affine.identity())\n"
        "raster = GeoTiffRaster(sys.argv[1])\n"
        "raster.read()\n"
        "GeoTiffRaster(content=open(sys.argv[1], 'rb').read()).read()\n"
        "print(raster.crs, raster.transform.is_identity)\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "True"]
    assert "NotGeoreferencedWarning" not in done.stderr


def test_truncated_files_print_nothing(tmp_path, capfd):
    path = cut_off(write_chip(tmp_path / "chip.tif"), 0.7)
    with pytest.raises(GeoTiffError):
        GeoTiffRaster(path)
    assert capfd.readouterr().err == ""


KILLED = """
import os, signal, sys, numpy as np, rasterio
from rasterio.windows import Window
with rasterio.Env(GDAL_CACHEMAX=1):
    size = {"height": 512, "width": 256, "count": 1, "dtype": "uint8"}
    dataset = rasterio.open(sys.argv[1], "w", driver="GTiff", **size, **eval(sys.argv[2]))
    for row in range(0, 384, 16):
        pixels = np.random.default_rng(row).integers(1, 3, (1, 16, 256)).astype("u1")
        dataset.write(pixels, window=Window(0, row, 256, 16))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    "options",
    [{"compress": "deflate", "blockysize": 16}, {"tiled": True, "blockxsize": 64, "blockysize": 64, "BIGTIFF": "YES"}],
)
def test_a_file_whose_writer_was_killed_is_not_read_as_zeros(tmp_path, options):
    path = tmp_path / "mask.tif"
    subprocess.run([sys.executable, "-W", "ignore", "-c", KILLED, path, repr(options)], check=False)
    with pytest.raises(GeoTiffError, match=r"mask\.tif.* (blocks are absent|damaged|truncated)"):
        GeoTiffRaster(path).read()


@pytest.mark.parametrize(
    "layout",
    [
        {"interleave": "band", "blockysize": 8},
        {"interleave": "pixel", "blockysize": 8, "BIGTIFF": "YES", "compress": "lzw"},
        {"interleave": "pixel", "compress": "deflate", **TILES},
    ],
)
def test_absent_blocks_are_errors_only_where_they_are_read(tmp_path, layout):
    pixels = reflectance(2, (40, 48))
    path = write_part(tmp_path / "a.tif", pixels, slice(0, 16), **layout)
    raster = GeoTiffRaster(path)
    np.testing.assert_array_equal(raster.read(window=(0, 5, 16, 40)), pixels[:, :16, 5:45])
    with pytest.raises(GeoTiffDecodeError, match=r"a\.tif: \d+ of \d+ blocks are absent.*nodata") as info:
        raster.read(window=(15, 0, 2, 2))
    assert info.value.file == str(path)
    with pytest.raises(GeoTiffDecodeError, match="absent"):
        GeoTiffRaster(content=path.read_bytes()).select([1]).read()


def test_absent_blocks_of_one_band_leave_the_others_alone(tmp_path):
    path = write_part(tmp_path / "a.tif", reflectance(1, 32), slice(0, 32), interleave="band")
    with rasterio.open(path) as dataset:
        profile = {**dataset.profile, "count": 2, "SPARSE_OK": True}
    with rasterio.open(tmp_path / "b.tif", "w", **profile) as dataset:
        dataset.write(reflectance(1, 32)[0], 1)
    raster = GeoTiffRaster(tmp_path / "b.tif")
    np.testing.assert_array_equal(raster.read([0]), reflectance(1, 32))
    with pytest.raises(GeoTiffDecodeError, match="absent"):
        raster.read([1])


def test_sparse_files_that_say_where_data_is_are_sound(tmp_path):
    pixels = reflectance(1, 64)
    tagged = write_part(tmp_path / "tag.tif", pixels, slice(0, 16), nodata=-9999, **TILES)
    assert (GeoTiffRaster(tagged).read()[:, 16:] == -9999).all()
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        masked = write_part(tmp_path / "mask.tif", pixels, slice(0, 16), **TILES)
        with rasterio.open(masked, "r+") as dataset:
            dataset.write_mask(np.arange(64)[:, None] + np.zeros(64) < 16)
    raster = GeoTiffRaster(masked)
    raster.read()
    assert raster.read_nodata_mask()[16:].all()


def test_verification_finds_damage_that_decodes(tmp_path):
    path = flip_unnoticed(write_chip(tmp_path / "a.tif"))
    raster = GeoTiffRaster(path)
    raster.read()
    raster.verify()
    raster.read([1, 2])
    with pytest.raises(GeoTiffDecodeError, match=r"a\.tif: 1 of 6 blocks do not fit their own checksums"):
        raster.select([2, 0]).read()
    assert raster.provenance != GeoTiffRaster(path).provenance


def _set_tag(path, tag, value):
    """Writes the number of a tag of a little-endian TIFF, or its text, which goes to the end of the file."""
    content = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", content, 4)[0]
    for entry in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", content, start)[0], 12):
        if struct.unpack_from("<H", content, entry)[0] == tag:
            if isinstance(value, int):
                struct.pack_into("<H", content, entry + 8, value)
            else:
                struct.pack_into("<II", content, entry + 4, len(value), len(content))
                content += value
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("number", "name"),
    [(50002, "JPEG XL"), (52546, "JPEG XL"), (34712, "JPEG 2000"), (33003, "JPEG 2000"), (34661, "JBIG"), (6, "JPEG")],
)
def test_a_compression_that_gdal_lacks_is_not_damage(tmp_path, number, name):
    path = _set_tag(write_chip(tmp_path / "a.tif", interleave="pixel"), 259, number)
    with pytest.raises(
        GeoTiffError, match=rf"a\.tif.*found .*{name}.*\(TIFF's number {number}\).*COMPRESS=DEFLATE"
    ) as info:
        GeoTiffRaster(path)
    assert "damaged" not in str(info.value)


def test_pages_are_mentioned_where_the_bands_do_not_fit(tmp_path):
    path = tmp_path / "pages.tif"
    for _ in range(6):
        more = {"APPEND_SUBDATASET": "YES"} if path.exists() else {}
        with rasterio.open(path, "w", driver="GTiff", count=1, height=8, width=8, dtype="int16", **more) as dataset:
            dataset.write(reflectance(1, 8))
    with pytest.raises(ValueError, match=r"pages\.tif \(the first of 6 pages\)"):
        PrithviImageProcessor()(GeoTiffRaster(path))


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("int64", -(2**63)), ("int64", 2**53 + 1), ("uint64", 2**53 + 1), ("int64", -9999), ("uint64", 2**64 - 1)],
)
def test_nodata_of_64_bits_is_exact(tmp_path, dtype, nodata):
    path = write_raster(tmp_path / "a.tif", np.zeros((1, 4, 4), dtype), nodata=100)
    _set_tag(path, 42113, f"{nodata}\0".encode())
    found = GeoTiffRaster(path).nodata
    assert int(found) == nodata
    values = np.array([nodata, nodata - 1 if nodata > 0 else nodata + 1], dtype)
    assert equals_nodata(values, [found]).tolist() == [True, False]
    processor = PrithviImageProcessor(bands=["A"], image_mean=[0], image_std=[1])
    raster = GeoTiffRaster(write_raster(tmp_path / "b.tif", np.resize(values, (1, 4, 4)), nodata=100))
    raster.nodata = found
    *_, missing = processor.read_frames(raster)
    assert missing.mean() == 0.5


@pytest.mark.parametrize("numbers", [(10, 0, np.nan, 0, -10, 4e6), (10, 0, 5e5, 0, -np.inf, 4e6), (0, 0, 5, 0, 0, 4)])
def test_a_transform_that_places_no_pixels_is_refused(tmp_path, numbers):
    path, place = tmp_path / "a.tif", {"crs": "EPSG:32633", "transform": Affine(*numbers)}
    with rasterio.open(path, "w", driver="GTiff", count=1, height=8, width=8, dtype="int16", **place) as dataset:
        dataset.write(reflectance(1, 8))
    for take in (open_scene, open_frames):
        with pytest.raises(ValueError, match=r"regular grid, found the transform .*gdal_edit"):
            take(path)


RPC_TEXT = {
    **dict.fromkeys(("HEIGHT_OFF", "HEIGHT_SCALE", "LAT_OFF", "LAT_SCALE", "LINE_OFF", "LINE_SCALE"), 1),
    **dict.fromkeys(("LONG_OFF", "LONG_SCALE", "SAMP_OFF", "SAMP_SCALE", "ERR_BIAS", "ERR_RAND"), 1),
    **{f"{name}_COEFF": " ".join(["1"] * 20) for name in ("LINE_NUM", "LINE_DEN", "SAMP_NUM", "SAMP_DEN")},
}


@pytest.mark.parametrize(
    ("options", "domain", "remedy"),
    [
        ({}, "RPC", "gdalwarp -rpc"),
        ({"PROFILE": "GeoTIFF", "RPCTXT": "YES"}, "RPC", "gdalwarp -rpc"),  # a text beside the file
        ({"PROFILE": "BASELINE", "RPB": "YES"}, "RPC", "gdalwarp -rpc"),
        ({"crs": "EPSG:4326"}, "RPC", "gdalwarp -rpc"),
        ({}, "GEOLOCATION", "gdalwarp -geoloc"),
    ],
)
def test_places_that_no_transform_gives_are_told(tmp_path, options, domain, remedy):
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", count=1, height=8, width=8, dtype="int16", **options) as dataset:
        dataset.write(reflectance(1, 8))
        arrays = {"X_DATASET": "lon.tif", "X_BAND": "1", "Y_DATASET": "lat.tif", "Y_BAND": "1"}
        dataset.update_tags(ns=domain, **(RPC_TEXT if domain == "RPC" else arrays))
    assert remedy in GeoTiffRaster(path).irregular
    for frame in (path, GeoTiffRaster(path), path.read_bytes()):
        if "PROFILE" not in options or not isinstance(frame, bytes):
            with pytest.raises(ValueError, match=f"regular grid.*{remedy}"):
                open_scene(frame)


def test_orthorectified_products_may_keep_their_rpcs(tmp_path):
    path = write_chip(tmp_path / "a.tif")
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(ns="RPC", **RPC_TEXT)
    assert GeoTiffRaster(path).irregular is None


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["PROJ_LIB", "PROJ_DATA"])
def test_the_database_of_another_proj_is_named(tmp_path, variable):
    path = write_chip(tmp_path / "a.tif")
    program = "import sys; from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster; GeoTiffRaster(sys.argv[1])"
    if variable == "PROJ_DATA":  # of an older release, as QGIS or conda may have
        database = next(Path(rasterio.__file__).parent.rglob("proj.db"))
        shutil.copy(database, tmp_path)
        with sqlite3.connect(tmp_path / "proj.db") as old:
            old.execute("update metadata set value = 2 where key = 'DATABASE.LAYOUT.VERSION.MINOR'")
    environment = {**os.environ, variable: str(tmp_path), "GDAL_DATA": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program, path], env=environment, capture_output=True, text=True)
    assert "a.tif: expected PROJ to find" in done.stderr
    assert f"{variable}={tmp_path}" in done.stderr
    assert f"Unset {variable} (and GDAL_DATA" in done.stderr


def test_failures_that_rasterio_does_not_translate_name_the_file(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.zeros((1, 64, 64), np.uint8))
    content = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", content, 4)[0]
    entries = struct.unpack_from("<H", content, start)[0]
    struct.pack_into("<I", content, start + 2 + 12 * entries, len(content) - 3)  # the next directory
    path.write_bytes(content)
    with pytest.raises(GeoTiffError, match=r"a\.tif"):
        GeoTiffRaster(path)
    with pytest.raises(GeoTiffError, match=r"b\.tif: expected an array, CRS and options that GDAL can write"):
        write_geotiff(tmp_path / "b.tif", np.zeros((2, 2), np.uint8), crs="EPSG:1", transform=Affine.identity())


def test_files_can_stay_open_from_one_read_to_the_next(tmp_path):
    rasters = [GeoTiffRaster(write_chip(tmp_path / f"{seed}.tif", seed=seed)) for seed in range(3)]
    expected = [raster.read() for raster in rasters]
    kept = OpenFiles(most=2)
    with kept:
        for _ in range(2):
            for raster, pixels in zip(rasters, expected, strict=True):
                assert np.array_equal(raster.select(window=(3, 4, 5, 6)).read(), pixels[:, 3:8, 4:10])
    assert list(kept.datasets) == [raster.path for raster in rasters[1:]]
    assert not any(dataset.closed for dataset in kept.datasets.values())
    write_chip(tmp_path / "2.tif", seed=9)
    assert not np.array_equal(rasters[2].read(), expected[2])  # out of the context a file is opened again
    assert pickle.loads(pickle.dumps(kept)).datasets == {}
