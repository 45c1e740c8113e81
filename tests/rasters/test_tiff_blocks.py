# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Where blocks are, against what GDAL says; checksums; and directories that are not sound."""

import io
import struct
from contextlib import suppress

import numpy as np
import pytest
import rasterio

from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.raster import GeoTiffError
from prithvi_hf.rasters.tiff_blocks import COMPRESSION, GDAL_NODATA, read_blocks, read_tags
from tests.raster_factory import flip_unnoticed, reflectance, write_part, write_raster


TILES = {"tiled": True, "blockxsize": 16, "blockysize": 16}
LAYOUTS = [
    {"interleave": "band", "blockysize": 5},
    {"interleave": "pixel", "blockysize": 5, "BIGTIFF": "YES"},
    {"interleave": "band", **TILES, "ENDIANNESS": "BIG"},
    {"interleave": "pixel", **TILES, "BIGTIFF": "YES", "ENDIANNESS": "BIG"},
    {"interleave": "band", "blockysize": 40, "compress": "lzw"},
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_blocks_are_where_gdal_says(tmp_path, layout):
    path = write_raster(tmp_path / "a.tif", reflectance(3, (40, 33)), nodata=-9999, **layout)
    with open(path, "rb") as file:
        blocks = read_blocks(file)
        assert read_tags(file, [GDAL_NODATA])[GDAL_NODATA].tobytes() == b"-9999\0"
        assert not blocks.find_corrupt(file, 2**20).any()
    assert blocks.compression == (5 if layout.get("compress") == "lzw" else 8)
    with rasterio.open(path) as dataset:
        assert blocks.shape == dataset.block_shapes[0]
        for (plane, row, column), offset in np.ndenumerate(blocks.offsets):
            found = [
                dataset.get_tag_item(f"BLOCK_{kind}_{column}_{row}", "TIFF", bidx=plane + 1)
                for kind in ("OFFSET", "SIZE")
            ]
            assert [offset, blocks.counts[plane, row, column]] == [*map(int, found)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_absent_blocks_are_those_that_were_not_written(tmp_path, layout):
    options = {"compress": "deflate", **layout}
    path = write_part(tmp_path / "a.tif", reflectance(3, (40, 33)), slice(0, 20), **options)
    with open(path, "rb") as file:
        absent = read_blocks(file).find_absent()
    rows = {5: slice(4, None), 16: slice(2, None), 40: slice(1, None)}[layout["blockysize"]]
    assert absent[:, rows].all()
    assert not absent[:, : rows.start].any()


@pytest.mark.parametrize("level", [1, 6, 9])
def test_a_flip_that_decodes_does_not_fit_the_checksum(tmp_path, level):
    path = flip_unnoticed(write_raster(tmp_path / "a.tif", reflectance(2, 24), zlevel=level))
    with open(path, "rb") as file:
        assert read_blocks(file).find_corrupt(file, 2**20).tolist() == [[[True]], [[False]]]


def test_a_block_that_expands_beyond_its_size_is_not_kept_in_memory(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.zeros((1, 64, 64), np.uint8))
    with open(path, "rb") as file:
        assert not read_blocks(file).find_corrupt(file, 64 * 64).any()
        assert read_blocks(file).find_corrupt(file, 1000).all()


@pytest.mark.parametrize(
    "content",
    [b"", b"II*\0", b"II*\0" + b"\xff" * 40, b"MM\0+\0\x08\0\0" + b"\xff" * 40, b"II*\0\x08\0\0\0" + bytes(8)],
)
def test_directories_that_are_not_sound_say_nothing(content):
    assert read_blocks(io.BytesIO(content)) is None
    assert COMPRESSION not in read_tags(io.BytesIO(content), [COMPRESSION])


@pytest.mark.parametrize("tag", [256, 257, 259, 277, 284, 322, 324, 325])
@pytest.mark.parametrize("code", [1, 2, 3, 4, 16, 12])
def test_a_tag_of_another_type_says_nothing(tmp_path, tag, code):
    """A width that is written as text, say: GDAL has the word, with the file's name."""
    path = write_raster(tmp_path / "a.tif", np.ones((1, 32, 32), np.int16), **TILES)
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    places = [start + 2 + 12 * entry for entry in range(count)]
    place = next(place for place in places if struct.unpack_from("<H", content, place) == (tag,))
    struct.pack_into("<H", content, place + 2, code)
    path.write_bytes(content)
    with suppress(GeoTiffError):
        raster = GeoTiffRaster(path)
        raster.verify()
        raster.read()
