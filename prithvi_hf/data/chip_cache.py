# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Decoded chips in one memory-mapped file: rasters that read from it, and the data set of them.

Decoding a crop out of a compressed file takes milliseconds, and in training each chip is cropped anew in every epoch.
A cache holds the needed bands of all chips of a split as they are in the files. It is made by
[`~prithvi_hf.data.chip_cache_build.cache_chips`]; processes map the same file, so that its pages are in memory once.
"""

import json
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from affine import Affine
from datasets import Features
from rasterio.crs import CRS

from .raster import GeoTiffRaster, _Header
from .shared_batches import BatchRows


try:
    import fcntl
except ImportError:  # not on Windows, where a file that is mapped cannot be deleted anyway
    fcntl = None


INDEX, PIXELS = "index.json", "pixels.bin"

Transform = Callable[[dict[str, list[Any]]], Mapping[str, Sequence[Any]]]


@dataclass(frozen=True)
class StoredRaster:
    """Where the pixels of a raster lie in the cache.

    Attributes:
        path (`str`): the file.
        name (`str`): what messages call it.
        bands (`tuple[int, ...]`, *optional*): bands of the file that the raster is narrowed to, None for all.
        stored (`tuple[int, ...]`): bands of the file that the cache holds, in its order.
        header (`dict`): what the file says of itself.
        pixels (`int`): offset of the pixels in bytes, `(len(stored), height, width)` in the file's own data type.
        nodata_mask (`int`, *optional*): offset of the file's mask, one byte a pixel, 1 for no data; None where there
            is none.
        limits (`tuple[float, float]`, *optional*): smallest and largest value, None where one is not finite.
    """

    path: str
    name: str
    bands: tuple[int, ...] | None
    stored: tuple[int, ...]
    header: dict[str, Any]
    pixels: int
    nodata_mask: int | None = None
    limits: tuple[float, float] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(bands, height, width) of the stored pixels."""
        return (len(self.stored), self.header["height"], self.header["width"])

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "StoredRaster":
        """Reads an entry of the index, in which tuples are lists."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in content.items()})


def header_to_json(header: _Header) -> dict[str, Any]:
    """A header as JSON can hold it."""
    content = {option.name: getattr(header, option.name) for option in fields(header)}
    return {**content, "crs": None if header.crs is None else header.crs.to_wkt(), "transform": header.transform[:6]}


def _header_from_json(content: Mapping[str, Any]) -> _Header:
    content = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    crs = None if content["crs"] is None else _read_crs(content["crs"])
    return _Header(**{**content, "crs": crs, "transform": Affine(*content["transform"])})


@lru_cache(maxsize=256)
def _read_crs(wkt: str) -> CRS:
    return CRS.from_wkt(wkt)


class ChipCache:
    """The cache of a split, as it lies on disk. It is mapped by each process that reads, when it first does.

    Args:
        folder (`Path`): folder of the cache.

    Attributes:
        folder (`Path`): the folder.
        num_bytes (`int`): size of the pixels.
        rasters (`list[CachedRaster]`): every raster.
        images (`list`): for each chip the place of its image in `rasters`, or those of its frames.
        masks (`list[int | None]`): for each chip the place of its mask.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}  # neither handle nor mapping: each process makes its own

    @cached_property
    def _index(self) -> dict[str, Any]:
        return json.loads((self.folder / INDEX).read_text(encoding="utf-8"))

    @cached_property
    def _pixels(self) -> np.ndarray:
        """All bytes, not to be written to."""
        with open(self.folder / PIXELS, "rb") as file:
            if fcntl is not None:  # lives as long as the mapping, and keeps others from removing the cache
                fcntl.flock(file, fcntl.LOCK_SH)
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)

    def open(self) -> "ChipCache":
        """Maps the file in this process, which keeps others from removing it.

        Raises:
            ValueError: it is not as it was made.
        """
        if self._index["bytes"] != self._pixels.size:
            raise ValueError(
                f"{self.folder}: expected {self.num_bytes:,} bytes of decoded chips, found {self._pixels.size:,}. "
                "Remove the folder; it is made anew."
            )
        return self

    @property
    def num_bytes(self) -> int:
        """Size of the pixels in bytes."""
        return self._index["bytes"]

    @cached_property
    def rasters(self) -> list["CachedRaster"]:
        """Every raster of the cache."""
        return [CachedRaster(self, StoredRaster.from_json(content)) for content in self._index["rasters"]]

    @property
    def images(self) -> list[int | list[int]]:
        """For each chip the place of its image in `rasters`, or the places of its frames."""
        return self._index["images"]

    @property
    def masks(self) -> list[int | None]:
        """For each chip the place of its mask in `rasters`, None where there is none."""
        return self._index["masks"]

    def array(self, offset: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Pixels from an offset on: a view of the mapped file."""
        return np.ndarray(shape, dtype, self._pixels, offset)


class CachedRaster(GeoTiffRaster):
    """A [`GeoTiffRaster`] whose needed bands are read from a cache of decoded pixels; all else from its file.

    Args:
        cache ([`ChipCache`]): the cache.
        stored ([`StoredRaster`]): its entry.
    """

    def __init__(self, cache: ChipCache, stored: StoredRaster) -> None:
        self.content, self.name, self.path = None, stored.name, stored.path
        self._header = _header_from_json(stored.header)
        self._bands = stored.bands
        self._window = (0, 0, self._header.height, self._header.width)
        self._cache, self._stored = cache, stored

    @property
    def limits(self) -> tuple[float, float] | None:
        """Two finite numbers between which all values lie; None where that is not known."""
        bands, stored = self.bands, self._stored
        return stored.limits if bands == stored.stored or set(bands) <= set(stored.stored) else None

    def read(self, bands: Sequence[int] | None = None, window: tuple[int, int, int, int] | None = None) -> np.ndarray:
        """Reads pixels, as [`GeoTiffRaster.read`] does."""
        pixels = self.read_shared(bands, window)
        return pixels if pixels.flags.writeable else pixels.copy()

    def read_shared(
        self, bands: Sequence[int] | None = None, window: tuple[int, int, int, int] | None = None
    ) -> np.ndarray:
        """Reads pixels without a copy where they lie together in the cache; the array cannot be written to then."""
        target = self if bands is None and window is None else self.select(bands, window)
        stored = self._stored
        is_whole = target.bands == stored.stored
        if not is_whole and not set(target.bands) <= set(stored.stored):
            return super().read(bands, window)
        row, column, height, width = target._window
        whole = self._cache.array(stored.pixels, stored.shape, self.dtype)
        pixels = whole[:, row : row + height, column : column + width]
        return pixels if is_whole else pixels[[stored.stored.index(band) for band in target.bands]]

    def read_nodata_mask(self, window: tuple[int, int, int, int] | None = None) -> np.ndarray | None:
        """Reads the file's own mask, as [`GeoTiffRaster.read_nodata_mask`] does."""
        header = self._header
        if not header.has_mask and (header.alpha_band is None or header.alpha_band in (self._bands or ())):
            return None
        if self._stored.nodata_mask is None:
            return super().read_nodata_mask(window)
        row, column, height, width = self.select(window=window)._window
        whole = self._cache.array(self._stored.nodata_mask, (header.height, header.width), "bool")
        return whole[row : row + height, column : column + width]


class CachedChips(torch.utils.data.Dataset):
    """Chips of a cache as a data set, to be used like the `datasets.Dataset` that it was made from.

    Rows have the same columns; the GeoTIFFs among them are rasters that read from the cache. Fetching a row costs
    microseconds, and a batch is transformed at once.

    Args:
        cache ([`ChipCache`]): the cache.
        columns (`dict[str, list]`): the other columns.
        features (`datasets.Features`): of all columns.
        transform (`Callable`, *optional*): from a dict of columns to one of examples, as [`SegmentationTransform`].
    """

    def __init__(
        self,
        cache: ChipCache,
        columns: dict[str, list[Any]],
        features: Features,
        transform: Transform | None = None,
    ) -> None:
        self.cache, self.columns, self.features, self.transform = cache, columns, features, transform

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, in order."""
        return list(self.features)

    def with_transform(self, transform: Transform) -> "CachedChips":
        """The same chips with another transform, as `datasets.Dataset.with_transform`."""
        return CachedChips(self.cache, self.columns, self.features, transform)

    def with_format(self, type: None = None) -> "CachedChips":
        """The same chips without a transform, as `datasets.Dataset.with_format(None)`.

        Raises:
            ValueError: another format than None.
        """
        if type is not None:
            raise ValueError(f"Expected the format None for cached chips, found {type!r}. Use with_transform.")
        return CachedChips(self.cache, self.columns, self.features)

    def __len__(self) -> int:
        return len(self.cache.images)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> Sequence[dict[str, Any]]:
        """Rows of a batch, which torch's DataLoader asks for together."""
        for index in indices:
            if not -len(self) <= index < len(self):
                raise IndexError(f"Expected a chip of {len(self)}, found {index}.")
        columns = {name: [self._value(name, int(index)) for index in indices] for name in self.features}
        columns = columns if self.transform is None else self.transform(columns)
        if all(isinstance(values, torch.Tensor) for values in columns.values()):
            return BatchRows(columns)
        return [{name: values[i] for name, values in columns.items()} for i in range(len(indices))]

    def _value(self, column: str, index: int) -> Any:
        if column not in ("image", "mask"):
            return self.columns[column][index]
        places = (self.cache.images if column == "image" else self.cache.masks)[index]
        rasters = self.cache.rasters
        if isinstance(places, list):
            return [rasters[place] for place in places]
        return None if places is None else rasters[places]

    def __repr__(self) -> str:
        return f"CachedChips({len(self)} chips, {self.cache.num_bytes:,} bytes in {os.fspath(self.cache.folder)!r})"


__all__ = ["CachedChips", "CachedRaster", "ChipCache"]
