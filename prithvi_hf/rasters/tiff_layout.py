# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Checks that a TIFF file holds all that its first directory points at.

GDAL opens a file whose end is missing as long as the pixels it touches are there. What stood behind may be the nodata
tag, the band names or the georeference, and their loss would go unnoticed.
"""

import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np


# Bytes of one value by TIFF field type.
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_UNSIGNED = {3: "u2", 4: "u4", 16: "u8"}
# (offsets, byte counts) of strips and of tiles.
_BLOCK_TAGS = ((273, 279), (324, 325))
_MOST_DIRECTORIES = 256  # image, mask, and the overviews of both are some dozens at most
_NO_DIRECTORY = "a TIFF whose directory lies beyond its end"


@dataclass(frozen=True)
class _Flavour:
    """How classic TIFF and BigTIFF differ."""

    order: str
    big: bool

    @property
    def entry(self) -> struct.Struct:
        return struct.Struct(self.order + ("HHQ8s" if self.big else "HHI4s"))

    @property
    def offset(self) -> struct.Struct:
        return struct.Struct(self.order + ("Q" if self.big else "I"))

    @property
    def count(self) -> struct.Struct:
        return struct.Struct(self.order + ("Q" if self.big else "H"))


def find_tiff_fault(file: BinaryIO, file_bytes: int, *, only_directories: bool = False) -> str | None:
    """Looks for the first thing that keeps a file from being a complete TIFF.

    Args:
        file (`BinaryIO`): the file, open for reading at its start.
        file_bytes (`int`): its size.
        only_directories (`bool`, defaults to `False`): whether blocks of pixels may be missing. All directories, of
            which a later one may be the mask, then have to lie inside the file.

    Returns:
        `str`: what was found, for a message; None when the directory and all its blocks lie inside the file.
    """
    start = file.read(16)
    if not start:
        return "an empty file"
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    version = struct.unpack(order + "H", start[2:4])[0] if order and len(start) >= 8 else None
    if version not in (42, 43):
        return f"a file that starts with {start[:8]!r}"
    flavour = _Flavour(order, big=version == 43)
    place = start[8:16] if flavour.big else start[4:8]
    if only_directories:
        return _find_missing_directory(file, flavour, place, file_bytes)
    entries = _read_directory(file, flavour, place, file_bytes)
    if entries is None:
        return _NO_DIRECTORY
    return _find_missing_tag(flavour, entries, file_bytes) or _find_missing_block(file, flavour, entries, file_bytes)


def _find_missing_directory(file: BinaryIO, flavour: _Flavour, place: bytes, file_bytes: int) -> str | None:
    """Follows the directories of image, overviews and masks to the last one."""
    seen: set[bytes] = set()
    while any(place) or not seen:
        entries = None if place in seen else _read_directory(file, flavour, place, file_bytes)
        seen.add(place)
        if entries is None:
            return _NO_DIRECTORY
        following = file.tell()  # behind the entries lies the place of the next directory
        fault = _find_missing_tag(flavour, entries, file_bytes)
        if fault is not None or len(seen) > _MOST_DIRECTORIES:
            return fault or f"a TIFF of more than {_MOST_DIRECTORIES} directories"
        file.seek(following)
        place = file.read(flavour.offset.size)
    return None


def _read_directory(
    file: BinaryIO, flavour: _Flavour, place: bytes, file_bytes: int
) -> dict[int, tuple[int, int, bytes]] | None:
    """Reads a directory as {tag: (type, count, value or offset)}; None when it is cut off."""
    if len(place) < flavour.offset.size:
        return None
    (offset,) = flavour.offset.unpack(place)
    if offset + flavour.count.size > file_bytes:
        return None
    file.seek(offset)
    (count,) = flavour.count.unpack(file.read(flavour.count.size))
    size = count * flavour.entry.size
    if offset + flavour.count.size + size > file_bytes:
        return None
    return {tag: tuple(rest) for tag, *rest in flavour.entry.iter_unpack(file.read(size))}


def _find_missing_tag(flavour: _Flavour, entries: dict, file_bytes: int) -> str | None:
    for tag, (kind, count, value) in entries.items():
        size = count * _TYPE_BYTES.get(kind, 0)
        if size > len(value) and flavour.offset.unpack(value)[0] + size > file_bytes:
            return f"a TIFF whose tag {tag} lies beyond its end"
    return None


def _find_missing_block(file: BinaryIO, flavour: _Flavour, entries: dict, file_bytes: int) -> str | None:
    for offset_tag, count_tag in _BLOCK_TAGS:
        offsets = _read_integers(file, flavour, entries.get(offset_tag))
        counts = _read_integers(file, flavour, entries.get(count_tag))
        missing = int((offsets + counts > file_bytes).sum()) if len(offsets) == len(counts) else 0
        if missing:
            return f"a TIFF with {missing} of {len(offsets)} blocks of pixels beyond its end"
    return None


def _read_integers(file: BinaryIO, flavour: _Flavour, entry: tuple[int, int, bytes] | None) -> np.ndarray:
    """Reads the integers of a tag, known to lie inside the file, as floats, which cannot overflow when added."""
    if entry is None or entry[0] not in _UNSIGNED:
        return np.empty(0)
    kind, count, value = entry
    dtype = np.dtype(flavour.order + _UNSIGNED[kind])
    size = count * dtype.itemsize
    if size <= len(value):
        return np.frombuffer(value[:size], dtype).astype(np.float64)
    file.seek(flavour.offset.unpack(value)[0])
    return np.frombuffer(file.read(size), dtype).astype(np.float64)
