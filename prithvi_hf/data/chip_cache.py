# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Making a cache of decoded chips: once, whole or not at all, and anew when a file has changed.

A cache lies in a folder whose name says which files and bands it holds (the first key) and in which state the files
were (the second). It is made in a folder of another name under a lock, so that of several processes one decodes and
the others wait, and gets its name when it is complete. What a killed process left is removed by the next one that
makes a cache.
"""

import errno
import hashlib
import json
import math
import mmap
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from affine import Affine
from datasets import Dataset, Features, config
from filelock import FileLock, Timeout
from huggingface_hub.utils import WeakFileLock
from rasterio.crs import CRS
from tqdm.auto import tqdm

from prithvi_hf.data.chips import (
    Chip,
    problem_report,
    read_chips,
    run_in_threads,
)
from prithvi_hf.data.geotiff import geotiff_columns
from prithvi_hf.data.shared_batches import BatchRows
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.rasters.geotiff_raster import GeoTiffHeader, GeoTiffRaster


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


def header_to_json(header: GeoTiffHeader) -> dict[str, Any]:
    """A header as JSON can hold it."""
    content = {option.name: getattr(header, option.name) for option in fields(header)}
    return {**content, "crs": None if header.crs is None else header.crs.to_wkt(), "transform": header.transform[:6]}


def _header_from_json(content: Mapping[str, Any]) -> GeoTiffHeader:
    content = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    crs = None if content["crs"] is None else _read_crs(content["crs"])
    return GeoTiffHeader(**{**content, "crs": crs, "transform": Affine(*content["transform"])})


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
        self._set_header(_header_from_json(stored.header))
        if stored.bands is not None:
            self._chosen = stored.bands
            self._set_selection(stored.bands, self.window)
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
        row, column, height, width = target.window
        whole = self._cache.array(stored.pixels, stored.shape, self.dtype)
        pixels = whole[:, row : row + height, column : column + width]
        return pixels if is_whole else pixels[[stored.stored.index(band) for band in target.bands]]

    def read_nodata_mask(self, window: tuple[int, int, int, int] | None = None) -> np.ndarray | None:
        """Reads the file's own mask, as [`GeoTiffRaster.read_nodata_mask`] does."""
        header = self._header
        if not header.has_mask and (header.alpha_band is None or header.alpha_band in self._chosen):
            return None
        if self._stored.nodata_mask is None:
            return super().read_nodata_mask(window)
        row, column, height, width = self.select(window=window).window
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


# Part of every key: raise it when caches of the same files come out differently.
_FORMAT = 2
_FOLDER = "prithvi_hf_decoded"
_ALIGNMENT = 64
# GDAL takes georeference, tags and masks from them.
_SIDE_FILES = (".aux.xml", ".msk")
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


class ChipCacheError(OSError):
    """A cache that cannot be written; the message says what was expected, what was found and the remedy."""


def cache_chips(
    dataset: Dataset,
    image_processor: PrithviImageProcessor,
    name: str = "chips",
    cache_dir: str | os.PathLike | None = None,
    show_progress: bool = True,
) -> CachedChips:
    """Decodes the bands that an image processor needs, once; later calls and other processes find them.

    The cache is made anew when a file has another size or time of modification, or other bands are needed.

    Args:
        dataset (`Dataset`): rows with `image` (a GeoTIFF or a list of them) and `mask`; a transform that is set on it
            is left aside.
        image_processor (`PrithviImageProcessor`): selects the bands.
        name (`str`, *optional*, defaults to `"chips"`): of the split, for people.
        cache_dir (`str` or `os.PathLike`, *optional*): where to put caches; by default the cache of `datasets`
            (`HF_DATASETS_CACHE`).
        show_progress (`bool`, *optional*, defaults to `True`): say how large it will be and draw a progress bar.

    Returns:
        [`~prithvi_hf.data.chip_cache.CachedChips`]: the same rows, whose rasters read from the cache.

    Raises:
        ValueError: chips that cannot be read, each with its file, or that are not files.
        ChipCacheError: the disk is full or cannot be written.

    Example:
    ```python
    >>> chips = cache_chips(dataset["train"], image_processor, "train")
    >>> chips.with_transform(SegmentationTransform(image_processor, 224, "hflip", train=True))[0]["labels"].shape
    torch.Size([224, 224])
    ```
    """
    plain, root = dataset.with_format(None), decoded_cache_dir(cache_dir)
    folder = root / f"{_slug(name)}-{'-'.join(_keys(plain, image_processor))}"
    if not folder.is_dir():
        with _explained_disk_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(_lock_of(folder)):
                if not folder.is_dir():  # nobody made it while this process waited
                    _build(plain, image_processor, folder, name, show_progress)
    rest = plain.remove_columns([column for column in ("image", "mask") if column in plain.column_names])
    return CachedChips(ChipCache(folder).open(), rest[:] if rest.column_names else {}, dataset.features)


def decoded_cache_dir(cache_dir: str | os.PathLike | None = None) -> Path:
    """The folder that holds all caches of decoded chips below a cache folder, by default that of `datasets`."""
    return Path(config.HF_DATASETS_CACHE if cache_dir is None else cache_dir).expanduser().absolute() / _FOLDER


def clear_decoded_cache(cache_dir: str | os.PathLike | None = None) -> int:
    """Removes all caches of decoded chips but those that a process uses or makes just now.

    Args:
        cache_dir (`str` or `os.PathLike`, *optional*): as in [`cache_chips`].

    Returns:
        `int`: bytes that were freed.
    """
    root, freed = decoded_cache_dir(cache_dir), 0
    if root.is_dir():
        freed += _remove_leftovers(root)
        freed += sum(_remove_unused(folder) for folder in root.iterdir() if (folder / INDEX).is_file())
    return freed


# ------------------------------------------------------------------ keys


def _keys(dataset: Dataset, processor: PrithviImageProcessor) -> tuple[str, str]:
    """What a cache holds, and in which state its files are."""
    table = dataset.select_columns(geotiff_columns(dataset.features)).with_format("arrow")[:]
    cells = [cell for column in ("image", "mask") if column in table.column_names for cell in _flat(table[column])]
    if any(cell is not None and cell["bytes"] is not None for cell in cells):
        raise ValueError(
            "Expected chips in files, found some whose bytes lie in the table of the data set. Write them to files, "
            "or leave the cache of decoded chips out (decoded_cache: false)."
        )
    paths = [None if cell is None else cell["path"] for cell in cells]
    bands = [getattr(dataset.features[name], "bands", None) for name in ("image", "mask") if name in dataset.features]
    options = [_FORMAT, processor.bands, processor.band_indices, processor.num_frames, bands]
    states = [[_state(path + ending) for ending in ("", *_SIDE_FILES)] for path in paths if path is not None]
    return _digest([options, paths]), _digest(states)


def _flat(column: Any) -> Iterator[Any]:
    """The cells of a column of GeoTIFFs, or of lists of them."""
    for cell in column.to_pylist():
        yield from cell if isinstance(cell, list) else [cell]


def _state(path: str) -> list[int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


# ------------------------------------------------------------------ building


@dataclass(frozen=True)
class _Plan:
    """A raster that is to be decoded and its place in the cache."""

    raster: GeoTiffRaster
    stored: StoredRaster


def _build(dataset: Dataset, processor: PrithviImageProcessor, folder: Path, name: str, show_progress: bool) -> None:
    _remove_leftovers(folder.parent, but=folder)
    temporary = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}.tmp")
    for leftover in folder.parent.glob(f".{folder.name}-*.tmp"):
        shutil.rmtree(leftover)  # this process holds the lock, so nobody is making it
    try:
        chips = _checked(
            read_chips(dataset, partial(_plan_chip, processor=processor), f"Opening {name}", show_progress), name
        )
        if not chips:
            raise ValueError(f"Split {name}: expected at least one chip, found none.")
        plans, images, masks, num_bytes = _lay_out(chips)
        if show_progress:
            tqdm.write(f"Decoding {len(chips)} chips of {name}, {num_bytes / 1e9:.2f} GB, into {folder}")
        temporary.mkdir()
        entries = _write_pixels(temporary / PIXELS, plans, num_bytes, f"Decoding {name}", show_progress)
        index = {"format": _FORMAT, "bytes": num_bytes, "images": images, "masks": masks}
        rasters = [asdict(entry) for entry in entries]
        (temporary / INDEX).write_text(json.dumps({**index, "rasters": rasters}), encoding="utf-8")
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _remove_older(folder)


def _plan_chip(chip: Chip, processor: PrithviImageProcessor) -> tuple[list[_Plan] | _Plan, _Plan | None]:
    """What is to be decoded of a chip: the needed bands of its image or frames, and its mask."""
    frames = [
        _plan_raster(frame, processor.find_bands(frame.descriptions, frame.count, frame.name)) for frame in chip.frames
    ]
    mask = None if chip.mask is None else _plan_raster(chip.mask, range(chip.mask.count), with_nodata_mask=False)
    return frames if isinstance(chip.image, tuple) else frames[0], mask


def _plan_raster(raster: GeoTiffRaster, bands: Sequence[int], with_nodata_mask: bool = True) -> _Plan:
    header, stored = raster._header, tuple(raster.bands[band] for band in bands)
    has_alpha = header.alpha_band is not None and header.alpha_band not in stored
    has_mask = with_nodata_mask and (header.has_mask or has_alpha)
    entry = StoredRaster(
        path=raster.path,
        name=raster.name,
        bands=raster._chosen or None,
        stored=stored,
        header=header_to_json(header),
        pixels=0,
        nodata_mask=0 if has_mask else None,
    )
    return _Plan(raster, entry)


def _lay_out(chips: Sequence[tuple[Any, _Plan | None]]) -> tuple[list[_Plan], list[Any], list[int | None], int]:
    """Gives every raster its place, one chip after the other; the whole size comes last."""
    plans: list[_Plan] = []
    offset = 0

    def place(plan: _Plan) -> int:
        nonlocal offset
        stored, start = plan.stored, offset
        size = math.prod(stored.shape)
        offset += _aligned(size * np.dtype(stored.header["dtype"]).itemsize)
        nodata_mask = None if stored.nodata_mask is None else offset
        offset += 0 if nodata_mask is None else _aligned(size // len(stored.stored))
        plans.append(replace(plan, stored=replace(stored, pixels=start, nodata_mask=nodata_mask)))
        return len(plans) - 1

    images, masks = [], []
    for image, mask in chips:
        images.append([place(frame) for frame in image] if isinstance(image, list) else place(image))
        masks.append(None if mask is None else place(mask))
    return plans, images, masks, offset


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _write_pixels(
    path: Path, plans: Sequence[_Plan], num_bytes: int, title: str, show_progress: bool
) -> list[StoredRaster]:
    """Decodes in threads, each raster to its place in the file."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        _reserve(handle, num_bytes, path)
        calls = (partial(_decode, plan, handle) for plan in plans)
        results = run_in_threads(calls)
        bar = tqdm(results, desc=title, total=len(plans), unit="file", disable=not show_progress)
        entries = _checked(bar, title, "files")
        os.fsync(handle)  # the name of the folder must not outlive its content when the machine stops
    finally:
        os.close(handle)
    return entries


def _reserve(handle: int, num_bytes: int, path: Path) -> None:
    """Takes the space before the work begins; a disk too small for it is known at once."""
    free = shutil.disk_usage(path.parent).free
    if num_bytes > free:
        raise OSError(errno.ENOSPC, f"{num_bytes:,} bytes needed, {free:,} free")
    try:
        os.posix_fallocate(handle, 0, num_bytes)
    except (AttributeError, OSError) as error:
        if getattr(error, "errno", errno.EOPNOTSUPP) not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        os.truncate(handle, num_bytes)


def _decode(plan: _Plan, handle: int) -> StoredRaster | str:
    """Writes the pixels of a raster; the text of the error where its file cannot be read."""
    stored, raster = plan.stored, plan.raster
    own = raster.bands
    try:
        narrowed = raster.select([own.index(band) for band in stored.stored])
        pixels = narrowed.read()
        nodata_mask = None if stored.nodata_mask is None else narrowed.read_nodata_mask()
    except (ValueError, IndexError, OSError) as error:
        return str(error)
    _write_all(handle, np.ascontiguousarray(pixels), stored.pixels)
    if nodata_mask is not None:
        _write_all(handle, np.ascontiguousarray(nodata_mask), stored.nodata_mask)
    return replace(stored, limits=_limits(pixels))


def _write_all(handle: int, array: np.ndarray, offset: int) -> None:
    content = memoryview(array).cast("B")
    while content:
        written = os.pwrite(handle, content, offset)
        content, offset = content[written:], offset + written


def _limits(pixels: np.ndarray) -> tuple[float, float] | None:
    """The smallest and the largest value; None unless every value is finite, also as the float32 that models take."""
    with np.errstate(over="ignore"):
        smallest, largest = pixels.min().item(), pixels.max().item()
        finite = np.isfinite(np.float32(smallest)) and np.isfinite(np.float32(largest))
    return (smallest, largest) if finite else None


def _checked(results: Any, name: str, kind: str = "chips") -> list[Any]:
    """The results, unless some are texts of errors."""
    found = list(results)
    problems = [result for result in found if isinstance(result, str)]
    if problems:
        raise ValueError(problem_report(problems, len(found), name, kind))
    return found


# ------------------------------------------------------------------ removing


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _remove_leftovers(root: Path, but: Path | None = None) -> int:
    """Removes what killed processes left: a folder in the making whose lock nobody holds."""
    freed = 0
    for leftover in root.glob(".*.tmp"):
        folder = root / leftover.name[1:].rsplit("-", 1)[0]
        if folder == but:
            continue
        with suppress(Timeout), FileLock(_lock_of(folder), timeout=0):
            freed += _remove(leftover)
    return freed


def _remove_older(folder: Path) -> None:
    """Removes caches of the same files in an earlier state."""
    for other in folder.parent.glob(f"{folder.name.rsplit('-', 1)[0]}-*"):
        if other != folder:
            _remove_unused(other)


def _remove_unused(folder: Path) -> int:
    """Removes a cache unless a process has it mapped; bytes freed."""
    if fcntl is None:
        return 0
    try:
        with open(folder / PIXELS, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return _remove(folder)
    except OSError:  # in use, or removed by another process meanwhile
        return 0


def _remove(folder: Path) -> int:
    size = sum(path.stat().st_size for path in folder.iterdir())
    shutil.rmtree(folder)
    return size


@contextmanager
def _explained_disk_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise ChipCacheError(
            f"{root}: expected to write the cache of decoded chips, found: {error.strerror or error}. Free some "
            "space, choose another place with decoded_cache_dir (in Python: cache_dir), or go without "
            "(decoded_cache: false)."
        ) from error


__all__ = [
    "CachedChips",
    "CachedRaster",
    "ChipCache",
    "ChipCacheError",
    "cache_chips",
    "clear_decoded_cache",
    "decoded_cache_dir",
]
