# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Passes over the chips of a split: each row is fetched and read once, in threads, with few chips in memory."""

import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from datasets import Dataset, IterableDataset
from tqdm.auto import tqdm

from prithvi_hf.models.prithvi.pixel_values_prithvi import GRID_TOLERANCE, largest_shift
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster


_MAX_THREADS = 8
# Chips submitted a thread: enough to keep each one busy, few enough that rows and results do not pile up.
_SUBMITTED_A_THREAD = 4
_MAX_PROBLEMS_SHOWN = 10

Result = TypeVar("Result")


@dataclass(frozen=True)
class Chip:
    """The files of a row.

    Attributes:
        id (`str`): the chip's id.
        image (`GeoTiffRaster` or `tuple[GeoTiffRaster, ...]`): as the image processor takes it.
        mask (`GeoTiffRaster`, *optional*): the labels.
    """

    id: str
    image: GeoTiffRaster | tuple[GeoTiffRaster, ...]
    mask: GeoTiffRaster | None

    @property
    def frames(self) -> tuple[GeoTiffRaster, ...]:
        """The image as a tuple of its files."""
        return self.image if isinstance(self.image, tuple) else (self.image,)

    def digests(self) -> list[Any]:
        """The id, and the sha256 of the content of each image file and of the mask (None without one)."""
        frames = [_sha256(frame) for frame in self.frames]
        return [self.id, frames, None if self.mask is None else _sha256(self.mask)]


def read_chips(
    dataset: Dataset | IterableDataset,
    read: Callable[[Chip], Result],
    title: str,
    show_progress: bool = True,
    num_threads: int | None = None,
) -> Iterator[Result | str]:
    """Calls a function with every chip of a split, in threads.

    Args:
        dataset (`Dataset` or `IterableDataset`): rows with `image` (a raster or a list of frames), `mask` and `id`; a
            transform that is set on it is left aside.
        read (`Callable[[Chip], Result]`): reads a chip; called in several threads at once.
        title (`str`): of the progress bar.
        show_progress (`bool`, *optional*, defaults to `True`): draw a progress bar.
        num_threads (`int`, *optional*): number of threads; by default one a core, at most eight.

    Yields:
        The results in the order of the rows, whatever the number of threads; for a chip whose files cannot be opened
        or for which `read` raises a `ValueError`, an `IndexError` or an `OSError`, the text of the error.
    """
    calls = (partial(_attempt, fetch, read) for fetch in _rows(dataset))
    total = None if isinstance(dataset, IterableDataset) else len(dataset)
    results = run_in_threads(calls, num_threads)
    yield from tqdm(results, desc=title, total=total, unit="chip", disable=not show_progress)


def check_grid(rasters: Iterable[GeoTiffRaster]) -> None:
    """Checks that rasters, as far as they are georeferenced, lie on one grid.

    Raises:
        ValueError: two differ in CRS, or in place by more than `GRID_TOLERANCE` pixels. Different sizes pass: they are
            the image processor's to report, with the sizes.
    """
    first, *others = rasters
    for other in others:
        problem = grid_problem(first, other)
        if problem is not None:
            raise ValueError(f"{other.name}: {problem}")


def grid_problem(first: GeoTiffRaster, other: GeoTiffRaster) -> str | None:
    """Why two rasters do not lie on one grid, without the name of the second; None where they do.

    Args:
        first (`GeoTiffRaster`): the raster whose grid is expected.
        other (`GeoTiffRaster`): the raster to compare, see [`check_grid`].
    """
    if first.crs is None or other.crs is None or first.shape[-2:] != other.shape[-2:]:
        return None
    if first.crs != other.crs:
        return (
            f"expected the CRS of {first.name} ({first.crs.to_string()}), found {other.crs.to_string()}. Check that "
            "the files belong together, or reproject one (`gdalwarp`)."
        )
    shift = largest_shift(first.transform, other.transform, first.shape[-2:])
    if shift > GRID_TOLERANCE:
        return (
            f"expected the grid of {first.name}, found one shifted by up to {shift:.3g} pixels. Check that the files "
            "belong together, or bring them to one grid (`gdalwarp`)."
        )
    return None


def split_digest(chips: Iterable[list[Any]]) -> str:
    """One sha256 for the content of a split, the same wherever its files lie and in whatever order its chips come.

    Args:
        chips (`Iterable[list]`): [`Chip.digests`] of each chip.

    Returns:
        `str`: 64 hexadecimal digits.
    """
    # JSON keeps ids apart from digests whatever characters they hold; dumped first, any two entries can be sorted.
    return hashlib.sha256("\n".join(sorted(map(json.dumps, chips))).encode()).hexdigest()


def _rows(dataset: Dataset | IterableDataset) -> Iterator[Callable[[], dict[str, Any]]]:
    """Gives calls that fetch a row each, so that opening files, which may fail, is left to the threads."""
    if not isinstance(dataset, IterableDataset):
        plain = dataset.with_format(None)
        return (partial(plain.__getitem__, index) for index in range(len(plain)))
    return (partial(dict, row) for row in dataset)


def _attempt(fetch: Callable[[], dict[str, Any]], read: Callable[[Chip], Result]) -> Result | str:
    try:
        row = fetch()
        image = tuple(row["image"]) if isinstance(row["image"], list | tuple) else row["image"]
        return read(Chip(str(row.get("id")), image, row.get("mask")))
    except (ValueError, IndexError) as error:
        return str(error)
    except OSError as error:
        return _system_error_text(error)


def _system_error_text(error: OSError) -> str:
    """What the system says of a file, such as one without read permission or that vanished while it was read."""
    if error.filename is None:
        return str(error)
    return (
        f"{error.filename}: expected a file that can be read, found: {error.strerror}. Restore the file or your "
        "access to it, or remove the chip from the data set."
    )


def run_in_threads(calls: Iterable[Callable[[], Result]], num_threads: int | None = None) -> Iterator[Result]:
    """Makes calls in threads and gives their results in order. `Executor.map` would submit all of them at once.

    Args:
        calls (`Iterable[Callable[[], Result]]`): the calls.
        num_threads (`int`, *optional*): number of threads; by default one a core, at most eight.

    Yields:
        What each call returns.
    """
    num_threads = num_threads or min(_MAX_THREADS, os.cpu_count() or 1)
    waiting: deque[Future] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for call in calls:
                waiting.append(pool.submit(call))
                if len(waiting) >= _SUBMITTED_A_THREAD * num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _sha256(raster: GeoTiffRaster) -> str:
    """Digest of a raster's file, or of the bytes that stand for it."""
    with open(raster.path, "rb") if raster.content is None else io.BytesIO(raster.content) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def problem_report(problems: list[str], total: int, name: str, kind: str = "chips") -> str:
    """The message about files that cannot be used, the first of them by name.

    Args:
        problems (`list[str]`): what is wrong, one text a chip or file.
        total (`int`): how many there are.
        name (`str`): the split.
        kind (`str`, *optional*, defaults to `"chips"`): what is counted.
    """
    shown = "\n".join(f"- {problem}" for problem in problems[:_MAX_PROBLEMS_SHOWN])
    more = len(problems) - _MAX_PROBLEMS_SHOWN
    rest = f"\n- and {more} more" if more > 0 else ""
    return f"Split {name}: {len(problems)} of {total} {kind} cannot be used:\n{shown}{rest}"
