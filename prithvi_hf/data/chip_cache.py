# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A cache of decoded chips: made once, whole or not at all, and again when a file has changed.

A cache is a folder whose name says which files and bands it holds (the first key) and in which state the files were
(the second): an index in JSON, a line of JSON for each raster, read when the raster is first asked for, and one file
of pixels, which each process maps. It is made in a folder of another name under a lock, so that of several processes
one decodes and the others wait, and gets its name when it is complete. What a killed process left is removed by the
next one that makes a cache.
"""

import errno
import hashlib
import json
import math
import mmap
import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from affine import Affine
from datasets import Dataset, Features, config
from filelock import FileLock, Timeout
from huggingface_hub.utils import WeakFileLock
from rasterio.crs import CRS
from rasterio.errors import CRSError
from tqdm.auto import tqdm

from prithvi_hf.data.chips import Chip, collect_results, read_chips, run_in_threads
from prithvi_hf.data.file_states import read_file_states
from prithvi_hf.data.shared_batches import BatchRows
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.pixel_values_prithvi import LARGEST_VALUE
from prithvi_hf.rasters.geotiff_raster import GeoTiffHeader, GeoTiffRaster
from prithvi_hf.rasters.raster import Window


try:
    import fcntl
except ImportError:  # not on Windows, where a file that is mapped cannot be deleted anyway
    fcntl = None  # type: ignore[assignment]


INDEX, RASTERS, PIXELS = "index.json", "rasters.jsonl", "pixels.bin"
# Part of every key: raise it when caches of the same files come out differently.
_FORMAT = 4
_FOLDER = "prithvi_hf_decoded"
_ALIGNMENT = 64
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)

Transform = Callable[[dict[str, list[Any]]], Mapping[str, Any]]

_read_crs = lru_cache(maxsize=256)(CRS.from_wkt)


class ChipCacheError(OSError):
    """A cache that cannot be written or is damaged; the message says what was expected and found, and the remedy."""


@dataclass(frozen=True)
class StoredRaster:
    """An entry of the index: where the pixels of a raster are in the cache."""

    path: str | None
    name: str
    bands: tuple[int, ...] | None  # of the file, that the raster is narrowed to
    stored: tuple[int, ...]  # bands of the file that the cache holds, in its order
    header: GeoTiffHeader
    pixels: int = 0  # offset in bytes of (len(stored), height, width) in the file's own data type
    nodata_mask: int | None = None  # offset of the file's mask, if it has one: one byte per pixel, 1 for no data
    limits: tuple[float, float] | None = None  # smallest and largest value, None where one is not finite
    checksum: int = 0  # CRC-32 of the pixels and the mask

    def to_json(self, headers: dict[str, int]) -> str:
        """The entry as a line of JSON; `headers` numbers what almost all rasters share and is kept once."""
        header = self.header
        crs = None if header.crs is None else header.crs.to_wkt()
        shared = json.dumps(
            {name: value for name, value in {**vars(header), "crs": crs}.items() if name != "transform"}
        )
        number = headers.setdefault(shared, len(headers))
        return json.dumps({**vars(self), "header": number, "transform": header.transform[:6]})

    @classmethod
    def from_json(cls, line: str | bytes, headers: Sequence[Mapping[str, Any]]) -> "StoredRaster":
        """Read a line of the index, in which tuples are lists."""

        def with_tuples(part: Mapping[str, Any]) -> dict[str, Any]:
            return {name: tuple(value) if isinstance(value, list) else value for name, value in part.items()}

        content = json.loads(line)
        header = with_tuples({**headers[content["header"]], "transform": content.pop("transform")})
        # A CRS is parsed once for all the chips that share it, for it takes longer than all the rest of an entry.
        header["crs"] = None if header["crs"] is None else _read_crs(header["crs"])
        header["transform"] = Affine(*header["transform"])
        return cls(**{**with_tuples(content), "header": GeoTiffHeader(**header)})


class ChipCache:
    """The cache of a split on disk, mapped into this process, which keeps others from removing it.

    `columns` are the rasters of each chip: `image`, a raster or a list of frames, and `mask`, a raster or None.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            self.num_bytes: int = index["bytes"]
            self._headers, images, masks = index["headers"], index["images"], index["masks"]
            checksum = index["checksum"]
        except (ValueError, KeyError, TypeError) as error:
            raise self.damage("an index of its chips", f"{INDEX} damaged") from error
        lines = (folder / RASTERS).read_bytes()
        if zlib.crc32(lines) != checksum:
            raise self.damage("an index of its chips", f"{RASTERS} damaged")
        self._lines = lines.splitlines()
        self._rasters: list[CachedRaster | None] = [None] * len(self._lines)
        self._file = open(folder / PIXELS, "rb")  # noqa: SIM115  # as long as the mapping, whose lock it holds
        if fcntl is not None:
            fcntl.flock(self._file, fcntl.LOCK_SH)
        self.check_size()
        self._pixels = np.frombuffer(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
        # A byte for each raster, in memory that is shared with workers: whether it was compared with its checksum.
        self._verified = np.frombuffer(mmap.mmap(-1, len(self._lines)), dtype=np.uint8)
        self.columns: dict[str, Sequence[Any]] = {"image": _Rasters(self, images), "mask": _Rasters(self, masks)}

    def __reduce__(self) -> tuple[type["ChipCache"], tuple[Path]]:
        return ChipCache, (self.folder,)  # neither handle nor mapping travels: each process makes its own

    def check_size(self) -> None:
        """Raise where the file of pixels is not as long as it was made; beyond its end a read would be a SIGBUS."""
        found = os.fstat(self._file.fileno()).st_size
        if found != self.num_bytes:
            raise self.damage(f"{self.num_bytes:,} bytes of decoded chips", f"{found:,}")

    def verify(self, stored: StoredRaster, number: int) -> None:
        """Compare a raster's pixels with their checksum, where no process of this run did so before."""
        if self._verified[number]:
            return
        self.check_size()
        size = stored.header.height * stored.header.width
        parts = [(stored.pixels, len(stored.stored) * size * np.dtype(stored.header.dtype).itemsize)]
        parts += [] if stored.nodata_mask is None else [(stored.nodata_mask, size)]
        checksum = 0
        for offset, length in parts:
            checksum = zlib.crc32(self._pixels[offset : offset + length].data, checksum)
        if checksum != stored.checksum:
            raise self.damage(f"the decoded pixels of {stored.name} as they were written", "others")
        self._verified[number] = 1

    def open_raster(self, number: int) -> "CachedRaster":
        """Give the raster of a line, the same object each time."""
        raster = self._rasters[number]
        if raster is None:
            try:
                stored = StoredRaster.from_json(self._lines[number], self._headers)
            except (ValueError, KeyError, TypeError, CRSError) as error:
                raise self.damage("an index of its chips", f"{RASTERS} damaged") from error
            raster = self._rasters[number] = CachedRaster(self, stored, number)
        return raster

    def damage(self, expected: str, found: str) -> ChipCacheError:
        """Make the error of a cache that is not as it was written."""
        return ChipCacheError(
            f"{self.folder}: expected {expected}, found {found}: the cache of decoded chips is damaged. Remove this "
            "folder; it is made again."
        )

    def view(self, offset: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Pixels from an offset on: a view of the mapped file, not to be written to."""
        return np.ndarray(shape, dtype, self._pixels, offset)


class _Rasters(Sequence[Any]):
    """A column of a cache: for each chip a raster, a list of frames, or None, made when it is asked for.

    Many chips are thus opened at once whatever their number, and a run of few steps reads the entries of few.
    """

    def __init__(self, cache: ChipCache, places: Sequence[int | list[int] | None]) -> None:
        self._cache, self._places = cache, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Any:  # type: ignore[override]  # rows are taken one by one
        place = self._places[index]
        if place is None:
            return None
        if isinstance(place, list):
            return [self._cache.open_raster(number) for number in place]
        return self._cache.open_raster(place)


class CachedRaster(GeoTiffRaster):
    """A [`GeoTiffRaster`] whose needed bands are read from a cache of decoded pixels; all else from its file."""

    def __init__(self, cache: ChipCache, stored: StoredRaster, number: int) -> None:
        self.content, self.name, self.path = None, stored.name, stored.path
        self._set_header(stored.header)
        if stored.bands is not None:
            self._chosen = stored.bands
            self._set_selection(stored.bands, self.window)
        self._cache, self._stored, self._number = cache, stored, number

    @property
    def limits(self) -> tuple[float, float] | None:
        """Two finite numbers between which all values are; None where that is not known."""
        return self._stored.limits if set(self.bands) <= set(self._stored.stored) else None

    def read(self, bands: Sequence[int] | None = None, window: Window | None = None) -> np.ndarray:
        """Read pixels, as [`GeoTiffRaster.read`] does."""
        pixels = self.read_shared(bands, window)
        return pixels if pixels.flags.writeable else pixels.copy()

    def read_shared(self, bands: Sequence[int] | None = None, window: Window | None = None) -> np.ndarray:
        """Read pixels without a copy where they are together in the cache; the array cannot be written to then."""
        target = self if bands is None and window is None else self.select(bands, window)
        stored, header = self._stored, self._header
        if not set(target.bands) <= set(stored.stored):
            return super().read(bands, window)
        self._cache.verify(stored, self._number)
        row, column, height, width = target.window
        whole = self._cache.view(stored.pixels, (len(stored.stored), header.height, header.width), header.dtype)
        pixels = whole[:, row : row + height, column : column + width]
        if target.bands == stored.stored:
            return pixels
        return pixels[[stored.stored.index(band) for band in target.bands]]

    def read_nodata_mask(self, window: Window | None = None) -> np.ndarray | None:
        """Read the file's own mask, as [`GeoTiffRaster.read_nodata_mask`] does."""
        header, offset = self._header, self._stored.nodata_mask
        if offset is None or (not header.has_mask and header.alpha_band in self._chosen):
            return super().read_nodata_mask(window)  # which knows from the header where there is none
        self._cache.verify(self._stored, self._number)
        row, column, height, width = self.select(window=window).window
        whole = self._cache.view(offset, (header.height, header.width), "bool")
        return whole[row : row + height, column : column + width]


class CachedChips(torch.utils.data.Dataset):
    """Chips of a cache as a dataset, to be used like the `datasets.Dataset` that it was made from.

    Rows have the same columns; the GeoTIFFs among them are rasters that read from the cache. Fetching a row costs
    microseconds, and a batch is transformed at once. A `transform` turns a dict of columns into one of examples, as
    [`SegmentationTransform`] does.
    """

    def __init__(
        self, cache: ChipCache, columns: dict[str, list[Any]], features: Features, transform: Transform | None = None
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
        return len(self.cache.columns["image"])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int | Sequence[int]) -> Any:
        """A row, or of several the columns, as of a `datasets.Dataset`."""
        if isinstance(index, int):
            return self.__getitems__([index])[0]
        for place in index:
            if not -len(self) <= place < len(self):
                raise IndexError(f"Expected a chip of {len(self)}, found {place}.")
        self.cache.check_size()
        source: dict[str, Sequence[Any]] = {**self.columns, **self.cache.columns}
        columns = {name: [source[name][i] for i in index] for name in self.features}
        return columns if self.transform is None else self.transform(columns)

    def __getitems__(self, indices: Sequence[int]) -> Sequence[dict[str, Any]]:
        """Rows of a batch, which torch's DataLoader asks for together."""
        rows = self[indices]
        if all(isinstance(values, torch.Tensor) for values in rows.values()):
            return BatchRows(cast("dict[str, torch.Tensor]", rows), len(indices))
        return [{name: values[i] for name, values in rows.items()} for i in range(len(indices))]

    def __repr__(self) -> str:
        return f"CachedChips({len(self)} chips, {self.cache.num_bytes:,} bytes in {os.fspath(self.cache.folder)!r})"


def cache_chips(
    dataset: Dataset,
    image_processor: PrithviImageProcessor,
    name: str = "chips",
    cache_dir: str | os.PathLike | None = None,
    show_progress: bool = True,
) -> CachedChips:
    """Decode the bands that an image processor needs, once; later calls and other processes find them.

    The cache is made again when a file has another size or time of modification, or other bands are needed.

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
    plain, root = dataset.with_format(None), _locate_caches(cache_dir)
    slug = "".join(letter if letter.isalnum() else "_" for letter in name)
    folder = root / f"{slug}-{'-'.join(_make_keys(plain, image_processor))}"
    try:
        if not folder.is_dir():
            root.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(_lock_of(folder)):
                if not folder.is_dir():  # nobody made it while this process waited
                    _build(plain, image_processor, folder, name, show_progress)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise ChipCacheError(
            f"{root}: expected to write the cache of decoded chips, found: {error.strerror or error}. Free some "
            "space, choose another place with decoded_cache_dir (in Python: cache_dir), or go without "
            "(decoded_cache: false)."
        ) from error
    rest = plain.remove_columns([column for column in ("image", "mask") if column in plain.column_names])
    return CachedChips(ChipCache(folder), rest[:] if rest.column_names else {}, dataset.features)


def _locate_caches(cache_dir: str | os.PathLike | None) -> Path:
    """Give the folder of all caches of decoded chips below a cache folder, by default that of `datasets`."""
    return Path(config.HF_DATASETS_CACHE if cache_dir is None else cache_dir).expanduser().absolute() / _FOLDER


def _make_keys(dataset: Dataset, processor: PrithviImageProcessor) -> tuple[str, str]:
    """Digest what a cache holds, and in which state its files are."""
    columns = [name for name in ("image", "mask") if name in dataset.column_names]
    table = dataset.select_columns(columns).with_format("arrow")[:]
    cells = [frame for column in columns for cell in table[column].to_pylist() for frame in _as_list(cell)]
    if any(cell is not None and cell["bytes"] is not None for cell in cells):
        raise ValueError(
            "Expected chips in files, found some whose bytes are in the table of the dataset. Write them to files, "
            "or leave the cache of decoded chips out (decoded_cache: false)."
        )
    paths = [None if cell is None else cell["path"] for cell in cells]
    narrowed = [getattr(dataset.features[name], "bands", None) for name in columns]
    names = ("bands", "band_indices", "band_map", "band_names", "num_frames")
    options = [_FORMAT, *(getattr(processor, name) for name in names), narrowed]

    states = read_file_states(path for path in paths if path is not None)
    content, state = (hashlib.sha256(json.dumps(part).encode()).hexdigest() for part in ([options, paths], states))
    return content[:16], state[:16]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


# A raster that is to be decoded, and its entry in the index.
_Plan = tuple[GeoTiffRaster, StoredRaster]


def _build(dataset: Dataset, processor: PrithviImageProcessor, folder: Path, name: str, show_progress: bool) -> None:
    """Decode the chips of a split into a folder, which appears when it is complete."""
    _remove_leftovers(folder.parent)
    temporary = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}.tmp")
    for leftover in folder.parent.glob(f".{folder.name}-*.tmp"):
        shutil.rmtree(leftover)  # this process holds the lock, so nobody is making it
    try:
        opened = read_chips(dataset, partial(_plan_chip, processor=processor), f"Opening {name}", show_progress)
        chips = collect_results(opened, name)
        # Every raster gets its place in the file, one chip after the other.
        plans: list[_Plan] = []
        index: dict[str, Any] = {"format": _FORMAT, "bytes": 0, "images": [], "masks": []}
        for image, mask in chips:
            frames, place = _as_list(image), len(plans)
            index["images"].append([place + t for t in range(len(frames))] if isinstance(image, list) else place)
            index["masks"].append(None if mask is None else place + len(frames))
            for raster, entry in [*frames, *([] if mask is None else [mask])]:
                size, start = entry.header.height * entry.header.width, index["bytes"]
                pixel_bytes = len(entry.stored) * size * np.dtype(entry.header.dtype).itemsize
                end = start + math.ceil(pixel_bytes / _ALIGNMENT) * _ALIGNMENT
                nodata_mask = None if entry.nodata_mask is None else end
                index["bytes"] = end if nodata_mask is None else end + math.ceil(size / _ALIGNMENT) * _ALIGNMENT
                plans.append((raster, replace(entry, pixels=start, nodata_mask=nodata_mask)))
        num_bytes = index["bytes"]
        if show_progress:
            tqdm.write(f"Decoding {len(chips)} chips of {name}, {num_bytes / 1e9:.2f} GB, into {folder}")
        temporary.mkdir()
        entries = _write_pixels(temporary, plans, num_bytes, name, show_progress)
        headers: dict[str, int] = {}
        lines = "".join(entry.to_json(headers) + "\n" for entry in entries).encode()
        (temporary / RASTERS).write_bytes(lines)
        index |= {"headers": [json.loads(header) for header in headers], "checksum": zlib.crc32(lines)}
        (temporary / INDEX).write_text(json.dumps(index), encoding="utf-8")
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for other in folder.parent.glob(f"{folder.name.rsplit('-', 1)[0]}-*"):
        if other != folder:  # the same files in an earlier state
            _remove_unused(other)


def _plan_chip(chip: Chip, processor: PrithviImageProcessor) -> tuple[list[_Plan] | _Plan, _Plan | None]:
    """Find what is to be decoded of a chip: the needed bands of its image or frames, and its mask."""

    def plan(raster: GeoTiffRaster, bands: Iterable[int]) -> _Plan:
        header, stored = raster._header, tuple(raster.bands[band] for band in bands)
        has_mask = header.has_mask or (header.alpha_band is not None and header.alpha_band not in stored)
        nodata_mask = 0 if has_mask else None  # the place comes later
        entry = StoredRaster(raster.path, raster.name, raster._chosen or None, stored, header, nodata_mask=nodata_mask)
        return raster, entry

    frames = [plan(frame, processor.find_bands(frame.descriptions, frame.count, frame.name)) for frame in chip.frames]
    mask = None if chip.mask is None else plan(chip.mask, [0])
    return frames if isinstance(chip.image, tuple) else frames[0], mask


def _write_pixels(
    folder: Path, plans: Sequence[_Plan], num_bytes: int, name: str, show_progress: bool
) -> list[StoredRaster]:
    """Decode in threads, each raster to its place in the file."""
    handle = os.open(folder / PIXELS, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        # The space is taken before the work begins, so that a disk too small for it is known at once.
        free = shutil.disk_usage(folder).free
        if num_bytes > free:
            raise OSError(errno.ENOSPC, f"{num_bytes:,} bytes needed, {free:,} free")
        try:
            os.posix_fallocate(handle, 0, num_bytes)
        except (AttributeError, OSError) as error:
            if getattr(error, "errno", errno.EOPNOTSUPP) not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            os.truncate(handle, num_bytes)
        title, results = f"Decoding {name}", run_in_threads(partial(_decode, *plan, handle) for plan in plans)
        bar = tqdm(results, desc=title, total=len(plans), unit="file", disable=not show_progress)
        entries = collect_results(bar, name, "files")
        os.fsync(handle)  # the name of the folder must not outlive its content when the machine stops
    finally:
        os.close(handle)
    return entries


def _decode(raster: GeoTiffRaster, entry: StoredRaster, handle: int) -> StoredRaster | str:
    """Write the pixels of a raster; return the text of the error where its file cannot be read."""
    own = raster.bands
    try:
        narrowed = raster.select([own.index(band) for band in entry.stored])
        pixels = narrowed.read()
        nodata_mask = None if entry.nodata_mask is None else narrowed.read_nodata_mask()
    except (ValueError, IndexError, OSError) as error:
        return str(error)
    arrays, checksum = [(pixels, entry.pixels)], 0
    if entry.nodata_mask is not None:
        arrays.append((np.zeros(pixels.shape[1:], bool) if nodata_mask is None else nodata_mask, entry.nodata_mask))
    for array, offset in arrays:
        content = np.ascontiguousarray(array).data.cast("B")
        checksum = zlib.crc32(content, checksum)
        while content:
            written = os.pwrite(handle, content, offset)
            content, offset = content[written:], offset + written
    # Limits are known unless a value is no data by itself.
    smallest, largest = pixels.min().item(), pixels.max().item()
    is_ordinary = max(-smallest, largest) < LARGEST_VALUE  # not of NaN
    return replace(entry, limits=(smallest, largest) if is_ordinary else None, checksum=checksum)


def clear_decoded_cache(cache_dir: str | os.PathLike | None = None) -> int:
    """Remove all caches of decoded chips but those that a process uses or makes just now.

    Args:
        cache_dir (`str` or `os.PathLike`, *optional*): as in [`cache_chips`].

    Returns:
        `int`: bytes that were freed.
    """
    root = _locate_caches(cache_dir)
    if not root.is_dir():
        return 0
    folders = [folder for folder in root.iterdir() if (folder / INDEX).is_file()]
    return _remove_leftovers(root) + sum(map(_remove_unused, folders))


def _remove_leftovers(root: Path) -> int:
    """Remove what killed processes left: folders in the making whose lock nobody holds."""
    freed = 0
    for leftover in root.glob(".*.tmp"):
        folder = root / leftover.name[1:].rsplit("-", 1)[0]
        with suppress(Timeout), FileLock(_lock_of(folder), timeout=0):
            freed += _remove(leftover)
    return freed


def _remove_unused(folder: Path) -> int:
    """Remove a cache unless a process has it mapped."""
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
