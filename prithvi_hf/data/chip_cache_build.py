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
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, config
from filelock import FileLock, Timeout
from huggingface_hub.utils import WeakFileLock
from tqdm.auto import tqdm

from ..image_processing_prithvi import PrithviImageProcessor
from .chip_cache import INDEX, PIXELS, CachedChips, ChipCache, StoredRaster, fcntl, header_to_json
from .chips import Chip, problem_report, read_chips, run_in_threads
from .geotiff import geotiff_columns
from .raster import GeoTiffRaster


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
        bands=raster._bands,
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


__all__ = ["ChipCacheError", "cache_chips", "clear_decoded_cache", "decoded_cache_dir"]
