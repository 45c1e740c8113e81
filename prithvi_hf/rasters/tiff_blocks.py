# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What GDAL does not tell of a TIFF: how its blocks are compressed, which are absent, and which fail their checksum.

Only the first directory is read, that of the pixels; masks and overviews have their own. What does not follow TIFF 6.0
or BigTIFF is left to GDAL, which refuses or repairs it.
"""

import os
import struct
import zlib
from collections.abc import Container
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np


WIDTH, HEIGHT, COMPRESSION, STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP = 256, 257, 259, 273, 277, 278
STRIP_BYTES, PLANAR, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 279, 284, 322, 323, 324, 325
GDAL_NODATA = 42113  # text, as GDAL writes it
_TYPES = {1: "u1", 2: "S1", 3: "u2", 4: "u4", 16: "u8"}
_DEFLATE = (8, 32946)
COMPRESSION_NAMES = {
    **{1: "none", 5: "LZW", 6: "old-style JPEG", 7: "JPEG", 8: "deflate", 32773: "PackBits", 32946: "deflate"},
    **{9: "JBIG", 10: "JBIG", 34661: "JBIG", 32908: "Pixar", 32909: "Pixar", 34676: "SGILog", 34677: "SGILog"},
    **{33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC"},
    **{34892: "lossy JPEG (DNG)", 34925: "LZMA", 34926: "ZSTD", 34927: "WebP", 50000: "ZSTD", 50001: "WebP"},
    **{50002: "JPEG XL", 52546: "JPEG XL (DNG)"},
}


@dataclass(frozen=True)
class TiffBlocks:
    """Where the blocks of the pixels are in a file.

    Attributes:
        compression (`int`): TIFF's number of it.
        shape (`tuple[int, int]`): (height, width) of a block in pixels.
        offsets, counts (`np.ndarray`): first byte and number of bytes of each block, (planes, rows, columns) of
            blocks; planes are the bands where each has blocks of its own, else there is one.
    """

    compression: int
    shape: tuple[int, int]
    offsets: np.ndarray
    counts: np.ndarray

    def find_absent(self) -> np.ndarray:
        """Find the blocks that were never written, bool (planes, rows, columns)."""
        return (self.offsets == 0) | (self.counts == 0)

    def find_corrupt(self, file: BinaryIO, block_bytes: int) -> np.ndarray:
        """Find the blocks that do not fit the Adler-32 checksum that they end with, bool (planes, rows, columns).

        Only deflate has one; no block of another compression is found. A block holds at most `block_bytes` bytes.
        """
        corrupt, file_bytes = np.zeros(self.offsets.shape, dtype=bool), file.seek(0, os.SEEK_END)
        if self.compression in _DEFLATE:
            for place in np.ndindex(*corrupt.shape):
                if not self.counts[place]:
                    continue
                file.seek(min(int(self.offsets[place]), file_bytes))
                stream = zlib.decompressobj()
                try:
                    stream.decompress(file.read(min(int(self.counts[place]), file_bytes)), block_bytes + 1)
                except zlib.error:
                    corrupt[place] = True
                corrupt[place] |= not stream.eof
        return corrupt


def read_tags(file: BinaryIO, wanted: Container[int]) -> dict[int, np.ndarray]:
    """Read tags of the first directory of a TIFF or BigTIFF; those that are not there or not sound are left out."""
    file_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 16:
        return {}
    is_big = struct.unpack_from(order + "H", head, 2)[0] == 43
    size, word, number = (8, "Q", "Q") if is_big else (4, "I", "H")
    file.seek(min(struct.unpack_from(order + word, head, size)[0], file_bytes))
    length = struct.calcsize(order + number)
    entries = struct.unpack(order + number, file.read(length).ljust(length, b"\0"))[0]
    layout = struct.Struct(f"{order}HH{word}{size}s")  # tag, type, number of values, and the values or their place
    content = file.read(min(entries, 2**16) * layout.size)
    found: dict[int, np.ndarray] = {}
    for tag, code, count, value in layout.iter_unpack(content[: len(content) // layout.size * layout.size]):
        if tag not in wanted or code not in _TYPES or (_TYPES[code] == "S1") != (tag == GDAL_NODATA):
            continue
        kind = np.dtype(order + _TYPES[code])
        if count * kind.itemsize > size:
            if count * kind.itemsize > file_bytes:
                continue
            file.seek(min(struct.unpack(order + word, value)[0], file_bytes))
            value = file.read(count * kind.itemsize)
        if len(value) >= count * kind.itemsize:
            found[tag] = np.frombuffer(value, kind, count)
    return found


def read_blocks(file: BinaryIO) -> TiffBlocks | None:
    """Read where the blocks of a TIFF are; None where its directory does not say so for each of them."""
    single = {WIDTH, HEIGHT, COMPRESSION, SAMPLES, ROWS_PER_STRIP, PLANAR, TILE_WIDTH, TILE_HEIGHT}
    tags = read_tags(file, single | {STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES})
    values = {tag: int(tags[tag][0]) for tag in single if tag in tags and len(tags[tag])}
    width, height = values.get(WIDTH, 0), values.get(HEIGHT, 0)
    is_tiled = TILE_OFFSETS in tags
    down = values.get(TILE_HEIGHT, 0) if is_tiled else min(values.get(ROWS_PER_STRIP, height), height)
    right = values.get(TILE_WIDTH, 0) if is_tiled else width
    offsets = tags.get(TILE_OFFSETS if is_tiled else STRIP_OFFSETS)
    counts = tags.get(TILE_BYTES if is_tiled else STRIP_BYTES)
    if not (down and right) or offsets is None or counts is None:
        return None
    planes = values.get(SAMPLES, 1) if values.get(PLANAR, 1) == 2 else 1
    shape = (planes, -(-height // down), -(-width // right))
    if not len(offsets) == len(counts) == shape[0] * shape[1] * shape[2]:
        return None
    compression = values.get(COMPRESSION, 1)
    return TiffBlocks(compression, (down, right), offsets.reshape(shape), counts.reshape(shape))
