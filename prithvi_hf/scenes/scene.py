# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Scenes: the frames of one place on one grid, opened from files, folders, granules and arrays."""

import datetime
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.errors import RasterioError
from rasterio.warp import transform as transform_points

from prithvi_hf.models.prithvi.bands_prithvi import is_undescribed
from prithvi_hf.models.prithvi.pixel_values_prithvi import as_array
from prithvi_hf.models.prithvi.segmentation_map_prithvi import open_frames
from prithvi_hf.rasters.derived import ArrayRaster, Window, describe_raster, files_of
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.granules import (
    Granule,
    find_date,
    group_granules,
    list_band_files,
    parse_band_file,
)
from prithvi_hf.rasters.opening import (
    Date,
    FrameOptions,
    nodata_values,
    open_file,
    open_granule,
    open_stack,
    open_whole,
)
from prithvi_hf.rasters.warping import Grid, overlap, warp_to


COORDINATES = {"time": "temporal_coords", "location": "location_coords"}
"""Name in a model's `coords_encoding` to the argument that it takes."""

_WGS84 = "EPSG:4326"


def scene_coordinates(
    scene: Any,
    window: Window | None = None,
    encoded: Sequence[str] = tuple(COORDINATES),
    first_day_of_year: int = 0,
) -> dict[str, np.ndarray]:
    """Gives the date of each frame and the place of a window.

    Args:
        scene: the scene.
        window: (row offset, column offset, height, width) in pixels; None for the whole scene.
        encoded: what is wanted: "time", "location", or both.
        first_day_of_year: what 1 January is counted as. The data sets that the published models were tuned on with
            dates mostly count from 0, others from 1.

    Returns:
        Of those that are wanted: `temporal_coords` float32 (num_frames, 2), year and day of the year; and
        `location_coords` float32 (2,), latitude and longitude of the window's centre in degrees (WGS 84).

    Raises:
        ValueError: a frame has no date, the scene has no CRS, or another coordinate is wanted. A made-up date or place
            would mislead the model, so none is.
    """
    unknown = sorted(set(encoded) - set(COORDINATES))
    if unknown:
        raise ValueError(f"encoded: expected some of {', '.join(COORDINATES)}, found {', '.join(unknown)}.")
    found = {}
    if "time" in encoded:
        found[COORDINATES["time"]] = _temporal_coords(scene, first_day_of_year)
    if "location" in encoded:
        found[COORDINATES["location"]] = _location_coords(scene, window)
    return found


def _temporal_coords(scene: Any, first_day_of_year: int) -> np.ndarray:
    if first_day_of_year not in (0, 1):
        raise ValueError(f"first_day_of_year: expected 0 or 1, found {first_day_of_year}.")
    missing = [frame.name for frame, date in zip(scene.frames, scene.dates, strict=False) if date is None]
    if missing or not scene.dates:
        raise ValueError(
            f"{scene.name}: expected a date for each frame, as the model takes dates, found none for "
            f"{', '.join(missing)}. Give the option dates, or files with their published HLS or Sentinel-2 names."
        )
    days = [(date.year, date.timetuple().tm_yday - 1 + first_day_of_year) for date in scene.dates]
    return np.asarray(days, dtype=np.float32)


def _location_coords(scene: Any, window: Window | None) -> np.ndarray:
    grid = scene.grid
    if grid.crs is None:
        raise ValueError(
            f"{scene.name}: expected a CRS, as the model takes latitude and longitude, found none. Write the CRS into "
            "the files, e.g. `gdal_edit.py -a_srs`."
        )
    row, column, height, width = window or (0, 0, grid.height, grid.width)
    y, x = row + height / 2, column + width / 2
    a, b, c, d, e, f = grid.transform[:6]
    try:
        longitudes, latitudes = transform_points(grid.crs, _WGS84, [a * x + b * y + c], [d * x + e * y + f])[:2]
    except RasterioError as error:
        raise ValueError(f"{scene.name}: its place cannot be told in degrees ({error}). Check its CRS.") from error
    return np.asarray([latitudes[0], longitudes[0]], dtype=np.float32)


class FrameWarning(UserWarning):
    """Frames that fit together, but hardly as they were meant to."""


# A frame that covers less of the scene than this is likely another place's.
_SMALL_OVERLAP = 0.5


@dataclass(frozen=True)
class Scene:
    """The frames of one place, on one grid.

    Attributes:
        name: what messages and outputs call it.
        frames: one raster a date, in time order; a single one may stack all dates.
        grid: the grid of every frame.
        dates: when each frame was acquired (UTC), None where nothing tells.
        files: absolute path of every local file behind the scene.
    """

    name: str
    frames: tuple[Any, ...]
    grid: Grid
    dates: tuple[datetime.datetime | None, ...]
    files: tuple[str, ...]

    def fingerprint(self) -> dict[str, Any]:
        """What the pixels depend on.

        Returns:
            For JSON: path, size and time of each file, and all that is done to their pixels. Two scenes of one
            fingerprint have the same pixels.

        Raises:
            FileNotFoundError: a file has disappeared.
        """
        stats = [(file, os.stat(file)) for file in self.files]
        return {
            "files": [{"name": file, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns} for file, stat in stats],
            "frames": [describe_raster(frame) for frame in self.frames],
            "grid": self.grid.describe(),
            "dates": [None if date is None else date.isoformat() for date in self.dates],
        }


def open_scene(
    frames: Any,
    image_processor: Any = None,
    options: FrameOptions | None = None,
    *,
    name: str | None = None,
    **keywords: Any,
) -> Scene:
    """Opens the frames of one scene; no pixel is read.

    Args:
        frames: one frame, or a list or tuple of frames in time order. A frame is
            - a GeoTIFF of all bands: a path, its bytes, or an opened raster;
            - an array (bands, height, width);
            - a folder with the files of one granule of HLS or Sentinel-2, one file a band; with several granules of
              one tile it stands for as many frames, ordered by time;
            - a list or tuple of the files of one granule, or of files of one band each with any name, which then are
              the bands' names.
            Files of one band each of HLS and Sentinel-2 granules may also stand among the frames themselves: they are
            grouped by their names and ordered by time, and have to be of one tile.
        image_processor: the model's image processor. It says which bands are needed, which values are no data and in
            which units the model takes its numbers.
        options: how the frames are read; None for the defaults.
        name: what to call the scene; None for the name of its first file.
        keywords: single options by their names, see [`~rasters.opening.FrameOptions`]; they win over `options`.

    Returns:
        The scene.

    Raises:
        GeoTiffError: a file cannot be read, or is of a kind that is not allowed.
        ValueError: frames do not fit together or the image processor, or an option leaves its range; the message says
            what was expected, what was found and what to do.
        TypeError: an object that is no frame.
    """
    options = replace(options or FrameOptions(), **keywords)
    sources = list(_find_sources(frames, image_processor, options))
    if not sources:
        raise ValueError("A scene has at least one frame, found none.")
    target, rasters = _open_on_grid(sources, image_processor, options)
    _check_count(sources, rasters, image_processor)
    all_dates = _resolve_dates(
        options.dates, [source.date for source in sources], _date_counts(rasters, image_processor)
    )
    files = tuple(dict.fromkeys(file for raster in rasters for file in files_of(raster)))
    return Scene(name or sources[0].name, rasters, target, all_dates, files)


@dataclass(frozen=True)
class _Source:
    """One frame that is still to be opened on a grid, or on its own where none is given."""

    name: str
    date: datetime.datetime | None
    open: Callable[[Grid | None], Any]


def _find_sources(frames: Any, image_processor: Any, options: FrameOptions) -> Iterator[_Source]:
    """The frames in their order; band files among them make their granules where the first of them stands."""
    parts = list(frames) if isinstance(frames, list | tuple) else [frames]
    loose = [part for part in parts if _is_path(part) and not _is_folder(part) and parse_band_file(part) is not None]
    granules = _granules_of_one_tile(loose) if loose else []
    for part in parts:
        if any(part is other for other in loose):
            yield from (_granule_source(granule, image_processor, options) for granule in granules)
            granules = []
        else:
            yield from _sources_of(part, image_processor, options)


def _sources_of(part: Any, image_processor: Any, options: FrameOptions) -> Iterator[_Source]:
    if isinstance(part, list | tuple):
        yield _source_of_files(part, image_processor, options)
    elif _is_folder(part):
        yield from (_granule_source(granule, image_processor, options) for granule in _granules_in(part))
    elif _is_path(part):
        raster = open_file(part, options)
        yield _Source(Path(part).stem, find_date(part), lambda grid: open_whole(raster, image_processor, options))
    elif isinstance(part, bytes):
        raster = GeoTiffRaster(content=part)
        yield _Source("scene", None, lambda grid: open_whole(raster, image_processor, options))
    else:
        yield _source_of_object(part, image_processor, options)


def _source_of_object(part: Any, image_processor: Any, options: FrameOptions) -> _Source:
    """A raster that somebody opened, or an array."""
    if hasattr(part, "read_nodata_mask"):
        own = getattr(part, "path", None)
        name = Path(own).stem if own else "scene"
        return _Source(name, find_date(own) if own else None, lambda grid: open_whole(part, image_processor, options))
    if not hasattr(part, "shape"):
        raise TypeError(
            "A frame is the path or the bytes of a GeoTIFF, a folder or list of files of one band each, an opened "
            f"raster, or an array (bands, height, width), found {type(part).__name__}."
        )
    raster = ArrayRaster(as_array(part, "<array>"))
    return _Source(
        "scene", None, lambda grid: open_whole(_on_grid_of_its_size(raster, grid), image_processor, options)
    )


def _on_grid_of_its_size(raster: ArrayRaster, grid: Grid | None) -> ArrayRaster:
    """An array among files lies where they lie, if it has their size."""
    if grid is None or grid.crs is None or grid.size != raster.shape[-2:]:
        return raster
    return ArrayRaster(raster.read(), crs=grid.crs, transform=grid.transform)


def _source_of_files(paths: Sequence[Any], image_processor: Any, options: FrameOptions) -> _Source:
    """One frame of one file a band."""
    if not paths or not all(_is_path(path) for path in paths):
        raise TypeError(
            "A list among the frames is expected to hold the paths of one file per band, found "
            f"{[type(path).__name__ for path in paths]}. Give arrays and rasters as frames of their own."
        )
    if not all(parse_band_file(path) for path in paths):
        name = Path(paths[0]).parent.name or "scene"
        return _Source(name, find_date(paths[0]), lambda grid: open_stack(paths, image_processor, options, grid))
    granules = group_granules(paths)
    if len(granules) > 1:
        raise ValueError(
            f"Expected the files of one granule in a list that is one frame, found those of {_listing(granules)}. "
            "Give one list per granule, or all files in one flat list."
        )
    return _granule_source(granules[0], image_processor, options)


def _granule_source(granule: Granule, image_processor: Any, options: FrameOptions) -> _Source:
    return _Source(granule.name, granule.date, lambda grid: open_granule(granule, image_processor, options, grid))


def _granules_in(folder: Any) -> list[Granule]:
    files = list_band_files(folder)
    if not files:
        raise ValueError(
            f"{os.fspath(folder)}: expected a folder of GeoTIFFs named as layers of HLS or Sentinel-2 granules, found "
            f"{_content_of(folder)}. Give the files themselves; one file of all bands is a frame, a list of files of "
            "one band each too."
        )
    return _granules_of_one_tile(files)


def _content_of(folder: Any) -> str:
    """What a folder without granules holds; products as ESA packs them are the likely case."""
    if next(Path(folder).rglob("*.jp2"), None) is not None:
        return "JPEG 2000 files, which are to be converted first, e.g. `gdal_translate -of COG B02.jp2 B02.tif`"
    return "none"


def _granules_of_one_tile(files: Sequence[Any]) -> list[Granule]:
    """Granules by time. Those of several tiles are several scenes, or a frame from beside, which must be meant."""
    granules = group_granules(files)
    tiles = sorted({granule.tile for granule in granules})
    if len(tiles) > 1:
        raise ValueError(
            f"Expected granules of one tile, found {_listing(granules)}. Predict one scene for each of the tiles "
            f"{', '.join(tiles)}; to put them together in one scene, give each frame as a folder or list of its own."
        )
    return granules


def _open_on_grid(
    sources: Sequence[_Source], image_processor: Any, options: FrameOptions
) -> tuple[Grid, tuple[Any, ...]]:
    """The grid of the scene, and every frame on it."""
    resolution = options.resolution
    base = _requested_grid(options.grid)
    first = None if base is not None else sources[0].open(None)
    base = Grid.of(first) if base is None else base
    target = base if resolution is None or _has_resolution(base, resolution) else base.with_resolution(resolution)
    opened = [
        first if first is not None and position == 0 and target is base else source.open(target)
        for position, source in enumerate(sources)
    ]
    if options.grid_mismatch == "refuse" and base is target and first is not None:
        return target, open_frames(opened)
    _check_unplaced(opened, target)
    fitted = tuple(_fit(raster, target, position, image_processor) for position, raster in enumerate(opened, start=1))
    return target, fitted if options.grid_mismatch == "warp" else open_frames(opened)


def _requested_grid(grid: Grid | str | os.PathLike) -> Grid | None:
    if isinstance(grid, Grid):
        return grid
    return None if grid == "first" else Grid.of(GeoTiffRaster(grid))


def _has_resolution(grid: Grid, resolution: float) -> bool:
    return all(math.isclose(side, resolution, rel_tol=1e-9) for side in grid.pixel_size)


def _check_unplaced(rasters: Sequence[Any], grid: Grid) -> None:
    """Refuses rasters without a CRS that would have to be warped."""
    for position, raster in enumerate(rasters, start=1):
        if (raster.crs is None or grid.crs is None) and raster.shape[-2:] != grid.size:
            height, width = raster.shape[-2:]
            raise ValueError(
                f"Frame {position} ({raster.name}) has {height} x {width} pixels, the scene {grid.height} x "
                f"{grid.width}, and without a CRS on both sides nothing tells where they are: bring all frames to one "
                "grid, or give them a CRS."
            )


def _fit(raster: Any, grid: Grid, position: int, image_processor: Any) -> Any:
    fitted = warp_to(raster, grid, nodata_values=nodata_values(image_processor))
    share = 1.0 if fitted is raster else overlap(grid, raster)
    if share < _SMALL_OVERLAP:
        warnings.warn(
            f"Frame {position} ({raster.name}) covers {share:.0%} of the scene; the rest has no data in that frame.",
            FrameWarning,
            stacklevel=2,
        )
    return fitted


def _resolve_dates(
    dates: Sequence[Date] | None, found: Sequence[datetime.datetime | None], counts: Sequence[int]
) -> tuple[datetime.datetime | None, ...]:
    if dates is None:
        resolved = tuple(found)
    else:
        resolved = tuple(_to_datetime(date) for date in ([dates] if isinstance(dates, str) else dates))
        if len(resolved) not in counts:
            expected = " or ".join(map(str, counts))
            raise ValueError(
                f"dates: expected one for each of {expected} frames, found {len(resolved)}. Give one date per frame."
            )
    known = [date for date in resolved if date is not None]
    if known != sorted(known):
        warnings.warn(
            "Expected frames in time order, found dates " + ", ".join(f"{date:%Y-%m-%d}" for date in known) + ". The "
            "order is kept as given: change it if the model was trained with the oldest frame first.",
            FrameWarning,
            stacklevel=3,
        )
    return resolved


def _date_counts(rasters: Sequence[Any], image_processor: Any) -> list[int]:
    """How many dates may be given: one a frame, or, for one file without band names, one for each date it stacks."""
    first, counts = rasters[0], [len(rasters)]
    if len(rasters) > 1 or not is_undescribed(first.descriptions):
        return counts
    if image_processor is None:
        stacked = [count for count in range(2, first.count + 1) if first.count % count == 0]
    else:
        stacked = [first.count // len(image_processor.bands)]
    return sorted({*counts, *stacked})


def _to_datetime(date: Date) -> datetime.datetime | None:
    """UTC; a text or time without zone is taken for UTC."""
    if isinstance(date, str):
        try:
            date = datetime.datetime.fromisoformat(date)
        except ValueError as error:
            raise ValueError(f"dates: expected a date such as 2021-06-24, found {date!r}.") from error
    if isinstance(date, datetime.date) and not isinstance(date, datetime.datetime):
        date = datetime.datetime.combine(date, datetime.time())
    if date is None or date.tzinfo is None:
        return date if date is None else date.replace(tzinfo=datetime.UTC)
    return date.astimezone(datetime.UTC)


def _check_count(sources: Sequence[_Source], rasters: Sequence[Any], image_processor: Any) -> None:
    """Refuses another number of frames than the model takes, before a pixel is read."""
    if image_processor is None or len(rasters) == image_processor.num_frames:
        return
    expected, first = image_processor.num_frames, rasters[0]
    stacked = len(rasters) == 1 and is_undescribed(first.descriptions)
    if stacked and first.count == expected * len(image_processor.bands):
        return
    raise ValueError(
        f"{sources[0].name}: expected {expected} frames (num_frames), found {len(rasters)}: "
        + ", ".join(_title(source) for source in sources)
        + ". Give as many dates as the model was trained with, in time order."
    )


def _title(source: _Source) -> str:
    return source.name if source.date is None else f"{source.name} of {source.date:%Y-%m-%d}"


def _listing(granules: Sequence[Granule]) -> str:
    return ", ".join(granule.name for granule in granules)


def _is_path(part: Any) -> bool:
    return isinstance(part, str | os.PathLike)


def _is_folder(part: Any) -> bool:
    return _is_path(part) and "://" not in os.fspath(part) and os.path.isdir(part)


__all__ = ["COORDINATES", "FrameWarning", "Scene", "open_scene", "scene_coordinates"]
