# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Passes over the chips of a split: each row is fetched and read once, in threads, with few chips in memory."""

import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, TypeVar

import numpy as np
from datasets import Dataset, IterableDataset
from tqdm.auto import tqdm

from prithvi_hf.cores import CORES
from prithvi_hf.models.prithvi.coordinates_prithvi import encode_dates, encode_location
from prithvi_hf.models.prithvi.embeddings_prithvi import COORDINATE_ARGUMENTS
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.labels_prithvi import advise_label_options, describe_expected_values, list_counts
from prithvi_hf.models.prithvi.pixel_values_prithvi import GRID_TOLERANCE, has_alpha
from prithvi_hf.models.prithvi.processor_options_prithvi import ProcessorOptions
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.raster import find_center, measure_shift, name_crs_pair


# Enough submitted chips to keep each thread busy, few enough that rows and results do not pile up.
_SUBMITTED_PER_THREAD = 4
_MAX_PROBLEMS_SHOWN = 10
_MAX_NAMES_SHOWN = 3

Result = TypeVar("Result")
Image = GeoTiffRaster | tuple[GeoTiffRaster, ...]
# The id, the sha256 of each image file, and that of the mask (None without one).
ChipDigest = tuple[str, list[str], str | None]


@dataclass(frozen=True)
class Chip:
    """The files of a row: its image, one raster or a tuple of frames as the image processor takes it, and its mask.

    `label` is what the row says of the image as a whole, for classification; `dates` are its `date`, or `dates` of its
    frames.
    """

    id: str
    image: Image
    mask: GeoTiffRaster | None
    label: str | None = None
    dates: Any = None

    @property
    def frames(self) -> tuple[GeoTiffRaster, ...]:
        """The image as a tuple of its files."""
        return self.image if isinstance(self.image, tuple) else (self.image,)

    def verify(self) -> None:
        """Check the files by the checksums of their blocks; damaged ones are errors when they are read."""
        for raster in (*self.frames, *([] if self.mask is None else [self.mask])):
            raster.verify()

    def digest(self) -> ChipDigest:
        """Hash the content of the files, or of the bytes that stand for them."""
        return self.id, [_sha256(frame) for frame in self.frames], None if self.mask is None else _sha256(self.mask)


def _sha256(raster: GeoTiffRaster) -> str:
    if raster.path is None:
        return hashlib.sha256(raster.content or b"").hexdigest()
    return hash_file(raster.path)


def hash_file(path: str | os.PathLike) -> str:
    """Give the sha256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_split(chips: Iterable[ChipDigest]) -> str:
    """Make one sha256 for a split, the same wherever its files are and in whatever order its chips come."""
    # JSON keeps ids apart from digests whatever characters they hold; dumped first, any two entries can be sorted.
    return hashlib.sha256("\n".join(sorted(map(json.dumps, chips))).encode()).hexdigest()


def read_chips(
    dataset: Dataset | IterableDataset,
    read: Callable[[Chip], Result],
    title: str,
    show_progress: bool = True,
    num_threads: int | None = None,
    indices: Sequence[int] | None = None,
) -> Iterator[Result | str]:
    """Call a function with every chip of a split, or those of some indices, in threads (by default one per core).

    A transform that is set on the dataset is left aside. Yields the results in the order of the rows; for a chip
    whose files cannot be opened or for which `read` raises a `ValueError`, an `IndexError` or an `OSError`, its text.
    """

    def read_row(fetch_row: Callable[[], dict[str, Any]]) -> Result | str:
        try:
            row = fetch_row()
            image = tuple(row["image"]) if isinstance(row["image"], list | tuple) else row["image"]
            dates = row.get("dates") or row.get("date")
            chip = Chip(str(row.get("id")), image, row.get("mask"), row.get("label"), dates)
            bands = 1 if chip.mask is None else chip.mask.count - has_alpha(chip.mask.descriptions)
            if bands > 1 and all(frame.count == 1 for frame in chip.frames):
                raise ValueError(
                    f"{chip.frames[0].name}: expected an image of several bands and a mask of one, found 1 band in "
                    f"the image and {bands} in its mask: they look swapped. Exchange image_dir and mask_dir, or "
                    "image_suffix and mask_suffix."
                )
            return read(chip)
        except (ValueError, IndexError, OSError) as error:
            if not isinstance(error, OSError) or error.filename is None:
                return str(error)
            # What the system says of a file without read permission, or one that vanished while it was read.
            return (
                f"{error.filename}: expected a file that can be read, found: {error.strerror}. Restore the file or "
                "your access to it, or remove the chip from the dataset."
            )

    # Opening files, which may fail, is left to the threads.
    total = None
    fetches: Iterable[Callable[[], dict[str, Any]]]
    if isinstance(dataset, IterableDataset):
        fetches = (partial(dict, row) for row in dataset)
    else:
        wanted = range(len(dataset)) if indices is None else indices
        plain, total = dataset.with_format(None), len(wanted)
        fetches = (partial(plain.__getitem__, index) for index in wanted)
    results = run_in_threads((partial(read_row, fetch) for fetch in fetches), num_threads)
    yield from tqdm(results, desc=title, total=total, unit="chip", disable=not show_progress)


def spread_indices(total: int, most: int) -> list[int]:
    """Choose at most so many of the indices below `total`, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(int)).tolist()


def run_in_threads(calls: Iterable[Callable[[], Result]], num_threads: int | None = None) -> Iterator[Result]:
    """Make calls in threads and give their results in order. `Executor.map` would submit all of them at once."""
    num_threads = num_threads or CORES
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for call in calls:
                waiting.append(pool.submit(call))
                if len(waiting) >= _SUBMITTED_PER_THREAD * num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def collect_results(
    results: Iterable[Result | str], split_name: str, kind: str = "chips", wrong_masks: str | None = None
) -> list[Result]:
    """Collect the results of a pass; raise the first of its errors, which are texts, together.

    `wrong_masks` is said of masks beside them, as in [`describe_wrong_masks`].
    """
    found, problems = [], []
    for result in results:
        if isinstance(result, str):
            problems.append(result)
        else:
            found.append(result)
    if problems:
        shown = "".join(f"\n- {problem}" for problem in problems[:_MAX_PROBLEMS_SHOWN])
        more = len(problems) - _MAX_PROBLEMS_SHOWN
        raise ValueError(
            f"Split {split_name}: {len(problems)} of {len(found) + len(problems)} {kind} cannot be used:{shown}"
            + (f"\n- and {more} more" if more > 0 else "")
            + (f"\n{wrong_masks}" if wrong_masks else "")
        )
    if wrong_masks:
        raise ValueError(f"Split {split_name}: {wrong_masks}")
    if not found:
        raise ValueError(f"Split {split_name}: expected at least one chip, found none.")
    return found


def find_coordinates(
    image: Image, dates: Any, processor: PrithviImageProcessor, coords_encoding: Sequence[str]
) -> dict[str, np.ndarray]:
    """Give `temporal_coords` (num_frames, 2) and `location_coords` (2,) of a chip, those that a model encodes.

    The place is the centre of the whole chip; NaN stands for what neither row nor file tells. A single date does not
    tell those of a stack of several. A day that cannot be, another number of dates than of frames, and a centre that
    is not on Earth are a ValueError.
    """
    first, found = image[0] if isinstance(image, tuple) else image, {}
    if "time" in coords_encoding:
        is_single = isinstance(dates, str) or (isinstance(dates, list) and len(dates) == 1)
        dates = None if is_single and processor.num_frames > 1 else dates
        days = encode_dates(dates, processor.num_frames, processor.first_day_of_year, first.name)
        found[COORDINATE_ARGUMENTS["time"]] = days
    if "location" in coords_encoding:
        center = find_center(first.crs, first.transform, (0, 0, *first.shape[-2:]), first.name)
        found[COORDINATE_ARGUMENTS["location"]] = encode_location(center, first.name)
    return found


def find_given_coordinates(dataset: Dataset, coords_encoding: Sequence[str]) -> list[str]:
    """Find which of a model's encodings the chips of a split give, as far as a single one has a date or a CRS."""
    plain, given = dataset.with_format(None), []
    columns = [name for name in ("date", "dates") if name in plain.column_names]
    days = [day for name in columns for cell in plain[name] for day in (cell if isinstance(cell, list) else [cell])]
    if "time" in coords_encoding and any(day is not None for day in days):
        given.append("time")
    if "location" in coords_encoding:
        images = (row["image"] for row in plain)
        frames = (image[0] if isinstance(image, list | tuple) else image for image in images)
        given += ["location"] if any(frame.crs is not None for frame in frames) else []
    return [name for name in coords_encoding if name in given]


def abbreviate_names(names: Sequence[str]) -> str:
    """List the first names, and say how many more there are."""
    more = len(names) - _MAX_NAMES_SHOWN
    return ", ".join(names[:_MAX_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def describe_wrong_masks(
    names: Sequence[str], total: int, wrong: Mapping[float, int], values: Collection[int], options: ProcessorOptions
) -> str:
    """Say in one message how many masks of `total` hold values that are not a class, and which options fit them.

    `names` are these masks, `wrong` the pixels of each such value, `values` those of all masks that are not ignored.
    """
    return (
        f"{len(names)} of {total} masks hold values that are not a class ({abbreviate_names(names)}): "
        f"{describe_expected_values(options)}, found {list_counts(dict(sorted(wrong.items())))}. Remedy: "
        f"{advise_label_options(values, options)}"
    )


def find_shared_images(splits: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Say which images are in two splits, by the id of a chip by the digest of its pixels; empty where none is."""
    texts = []
    for first, other in combinations(splits, 2):
        shared = [(splits[first][one], splits[other][one]) for one in splits[first] if one in splits[other]]
        if shared:
            pairs = [own if own == its else f"{own} as {its}" for own, its in shared]
            texts.append(
                f"Splits {first} and {other} share {len(pairs)} image{'s' if len(pairs) > 1 else ''} with equal "
                f"pixels: {abbreviate_names(pairs)}. Figures of {other} are too good where the "
                "model has learned its chips: leave them out of one split."
            )
    return texts


def digest_pixels(frames: Iterable[np.ndarray]) -> str | None:
    """Hash the pixels of the frames of an image; None where all bands are constant, as in images without data."""
    digest, is_constant = hashlib.sha256(), True
    for values in frames:
        digest.update(repr(values.shape).encode())
        digest.update(np.ascontiguousarray(values).data)
        first = values[..., :1, :1]
        is_constant = is_constant and bool(((values == first) | ((values != values) & (first != first))).all())
    return None if is_constant else digest.hexdigest()


def check_grid(rasters: Iterable[GeoTiffRaster]) -> None:
    """Check that rasters, as far as they are georeferenced, are on one grid; see `find_grid_problem`."""
    first, *others = rasters
    for other in others:
        problem = find_grid_problem(first, other)
        if problem is not None:
            raise ValueError(f"{other.name}: {problem}")


def find_grid_problem(first: GeoTiffRaster, other: GeoTiffRaster) -> str | None:
    """Say why two rasters are not on one grid, without the name of the second; None where they are.

    They differ in CRS, or in place by more than `GRID_TOLERANCE` pixels. Different sizes pass: they are the image
    processor's to report, with the sizes.
    """
    if first.crs is None or other.crs is None or first.shape[-2:] != other.shape[-2:]:
        return None
    shift = measure_shift((first.crs, first.transform), (other.crs, other.transform), first.shape[-2:])
    if math.isinf(shift):
        expected, found = name_crs_pair(first.crs, other.crs)
        return (
            f"expected the CRS of {first.name} ({expected}), found {found}. Check that the files belong together, or "
            "reproject one (`gdalwarp`)."
        )
    if shift > GRID_TOLERANCE:
        return (
            f"expected the grid of {first.name}, found one shifted by up to {shift:.3g} pixels. Check that the files "
            "belong together, or bring them to one grid (`gdalwarp`)."
        )
    return None
