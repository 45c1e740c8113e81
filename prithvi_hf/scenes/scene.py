# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Scenes: the frames of one place on one grid, opened from files, folders, granules and arrays."""

import datetime
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch

from prithvi_hf.models.prithvi.bands_prithvi import is_undescribed
from prithvi_hf.models.prithvi.coordinates_prithvi import encode_dates, encode_location, parse_date, warn_of_unknown
from prithvi_hf.models.prithvi.embeddings_prithvi import COORDINATE_ARGUMENTS
from prithvi_hf.models.prithvi.pixel_values_prithvi import as_array
from prithvi_hf.models.prithvi.segmentation_map_prithvi import open_frames
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.granules import Granule, group_bands, group_granules, list_geotiffs
from prithvi_hf.rasters.opening import (
    Date,
    FrameOptions,
    ImageProcessor,
    check_frame,
    nodata_values,
    open_file,
    open_granule,
    open_stack,
    open_whole,
    parse_granule_name,
)
from prithvi_hf.rasters.raster import ArrayRaster, Raster, Window, describe_raster, find_center, find_files
from prithvi_hf.rasters.warping import Grid, overlap, warp_to


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor


Frame: TypeAlias = "str | os.PathLike | bytes | np.ndarray | Raster | Sequence[str | os.PathLike]"
"""What `open_scene` takes for one frame."""

# A frame that covers less of the scene than this is likely another place's.
_SMALL_OVERLAP = 0.5


class FrameWarning(UserWarning):
    """Frames that fit together, but hardly as they were meant to."""


@dataclass(frozen=True)
class Scene:
    """The frames of one place, on one grid.

    Attributes:
        name: what messages and outputs call it.
        frames: one raster per date, in time order; a single one may stack all dates.
        grid: the grid of every frame.
        dates: when each frame was acquired (UTC), None where nothing tells.
        files: absolute path of every local file behind the scene.
        location: latitude and longitude of the centre, where it was given for a scene without CRS.
    """

    name: str
    frames: tuple[Raster, ...]
    grid: Grid
    dates: tuple[datetime.datetime | None, ...]
    files: tuple[str, ...]
    location: tuple[float, float] | None = None

    def fingerprint(self) -> dict[str, Any]:
        """Describe what the pixels depend on, for JSON: files, their sizes and times, and all that is done to pixels.

        Raises:
            FileNotFoundError: a file has disappeared.
        """
        stats = [(file, os.stat(file)) for file in self.files]
        return {
            "files": [{"name": file, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns} for file, stat in stats],
            "frames": [describe_raster(frame) for frame in self.frames],
            "grid": self.grid.describe(),
            "dates": [None if date is None else date.isoformat() for date in self.dates],
            **({} if self.location is None else {"location": self.location}),
        }


def open_scene(
    frames: "Frame | Sequence[Frame]",
    image_processor: ImageProcessor = None,
    options: FrameOptions | None = None,
    *,
    name: str | None = None,
    crs: Any = None,
    transform: Sequence[float] | None = None,
    **keywords: Any,
) -> Scene:
    """Open the frames of one scene; no pixel is read.

    Args:
        frames: one frame, or a list or tuple of frames in time order. A frame is
            - a GeoTIFF of all bands: a path, its bytes, or an opened raster;
            - an array (bands, height, width);
            - an open rasterio dataset, or a DataArray or Dataset of xarray, which stands for as many frames as it has
              dates;
            - a folder with the files of one granule of HLS, Sentinel-2 or Landsat, one file per band; with several
              granules of one tile it stands for as many frames, ordered by time. Without granules, files named as
              bands (`B02.tif`, `red.tif`) are one frame;
            - a list or tuple of the files of one granule, or of files of one band each with any name, which then are
              the bands' names.
            Files of one band each of granules may also stand among the frames themselves: they are
            grouped by their names and ordered by time, and have to be of one tile.
        image_processor: the model's image processor. It says which bands are needed, which values are nodata and in
            which units the model takes its numbers.
        options: how the frames are read; None for the defaults.
        name: what to call the scene; None for the name of its first file.
        crs: CRS of frames that are arrays, in any form that rasterio reads, such as "EPSG:32633".
        transform: their affine transform, see [`~rasters.objects.as_raster`].
        keywords: single options by their names, such as `scale="apply"`, see [`FrameOptions`]; they win over
            `options`.

    Returns:
        The scene.

    Raises:
        GeoTiffError: a file cannot be read, or is of a kind that is not allowed.
        ValueError: frames do not fit together or the image processor, or an option is out of its range; the message
            says what was expected, what was found and what to do.
        TypeError: an object that is not a frame, or an option that does not exist.
    """
    options = replace(options or FrameOptions(), **keywords)
    if crs is not None or transform is not None:
        from prithvi_hf.rasters.objects import as_raster

        arrays = frames if isinstance(frames, list | tuple) else [frames]
        frames = [as_raster(array, crs=crs, transform=transform) for array in arrays]
    sources = list(_find_sources(frames, options))
    if not sources:
        raise ValueError("A scene has at least one frame, found none.")
    if image_processor is not None:
        image_processor = options.adapt(image_processor)
    grid, rasters = _open_on_grid(sources, image_processor, options)
    first, counts = rasters[0], {len(rasters)}  # of dates that may be given: one per frame, or per date in a stack
    if len(rasters) == 1 and image_processor is not None:
        used = image_processor.find_bands(first.descriptions, first.count, first.name)
        counts |= {len(used) // len(image_processor.bands)}
    elif len(rasters) == 1 and is_undescribed(first.descriptions):
        counts |= {count for count in range(2, first.count + 1) if first.count % count == 0}
    if image_processor is not None and len(rasters) != image_processor.num_frames:
        expected = image_processor.num_frames
        if expected not in counts:
            titles = [one.name if one.date is None else f"{one.name} of {one.date:%Y-%m-%d}" for one in sources]
            raise ValueError(
                f"{sources[0].name}: expected {expected} frames (num_frames), found {len(rasters)}: "
                f"{', '.join(titles)}. Give as many dates as the model was trained with, in time order; "
                "`prithvi-hf embed --num_frames N` takes another number."
            )
    dates = _resolve_dates(options.dates, [source.date for source in sources], sorted(counts))
    files = tuple(dict.fromkeys([file for raster in rasters for file in find_files(raster)]))
    location = None
    if options.location is not None:
        if grid.crs is not None:
            raise ValueError(
                f"{sources[0].name}: expected location with a scene without CRS only, found it beside {grid.crs}, "
                "which tells the place. Leave it out."
            )
        location = cast("tuple[float, float]", tuple(encode_location(options.location).tolist()))
    return Scene(name or sources[0].name, rasters, grid, dates, files, location)


@dataclass(frozen=True)
class _Source:
    """One frame that is still to be opened on a grid: a raster, an array, a granule, or files of one band each."""

    name: str
    date: datetime.datetime | None
    content: Raster | np.ndarray | Granule | list[str | os.PathLike]

    def open(self, grid: Grid | None, image_processor: ImageProcessor, options: FrameOptions) -> Raster:
        """Open the frame; bands and arrays that have no place of their own get that of the grid."""
        content = self.content
        if isinstance(content, Granule):
            return open_granule(content, image_processor, options, grid)
        if isinstance(content, list):
            return open_stack(content, image_processor, options, grid)
        if isinstance(content, np.ndarray):
            # An array among files is where they are, if it has their size.
            own = grid if grid is not None and grid.crs is not None and grid.size == content.shape[-2:] else None
            place = (None, None) if own is None else (own.crs, own.transform)
            content = ArrayRaster(content, crs=place[0], transform=place[1])
        return open_whole(content, image_processor, options)


def _find_sources(frames: Any, options: FrameOptions) -> Iterator[_Source]:
    """Find the frames in their order; band files among them make their granules where the first of them stands."""
    parts = list(frames) if isinstance(frames, list | tuple) else [frames]
    loose = [part for part in parts if isinstance(part, str | os.PathLike) and _is_layer(part)]
    for part in parts:
        if any(part is other for other in loose):
            yield from _take_granules(loose) if part is loose[0] else ()
        elif isinstance(part, list | tuple):
            yield _take_files(part)
        elif isinstance(part, str | os.PathLike) and os.path.isdir(part):
            files = list_geotiffs(part)
            layers = [file for file in files if _is_layer(file)]
            stacks = list(group_bands(files).values())
            if layers:
                yield from _take_granules(layers)
            elif len(stacks) == 1:
                yield _take_files(stacks[0])
            else:
                found = "none" if not stacks else f"bands in {len(stacks)} folders, which are {len(stacks)} frames"
                if next(Path(part).rglob("*.jp2"), None) is not None:  # products as ESA packs them
                    found = "JPEG 2000 files: convert them first, e.g. `gdal_translate -of COG B02.jp2 B02.tif`"
                raise ValueError(
                    f"{os.fspath(part)}: expected a folder of GeoTIFFs named as layers of HLS, Sentinel-2 or Landsat "
                    f"granules, or as bands, found {found}. Give the files themselves; one file of all bands is a "
                    "frame, a list of files of one band each too."
                )
        elif isinstance(part, str | os.PathLike):
            file = parse_granule_name(part)
            yield _Source(Path(part).stem, None if file is None else file.date, open_file(part, options))
        elif isinstance(part, Raster):
            file = parse_granule_name(part.path) if part.path else None
            name = Path(part.path).stem if part.path else "scene"
            yield _Source(name, None if file is None else file.date, check_frame(part, options))
        elif isinstance(part, np.ndarray | torch.Tensor):
            yield _Source("scene", None, as_array(part, "<array>"))
        else:
            from prithvi_hf.rasters.objects import as_rasters

            for raster in as_rasters(part):
                if raster.path:  # an open dataset of a file
                    yield from _find_sources(raster, options)
                else:
                    yield _Source("scene", raster.date, check_frame(raster, options))


def _take_granules(files: Sequence[str | os.PathLike]) -> Iterator[_Source]:
    """Take granules by time. Those of several tiles are several scenes, or a frame from beside."""
    granules = group_granules(files)
    tiles = sorted({granule.tile for granule in granules})
    if len(tiles) > 1:
        raise ValueError(
            f"Expected granules of one tile, found {', '.join(granule.name for granule in granules)}. Predict one "
            f"scene for each of the tiles {', '.join(tiles)}; to put them together in one scene, give each frame as a "
            "folder or list of its own."
        )
    for granule in granules:
        yield _Source(granule.name, granule.date, granule)


def _take_files(paths: Sequence[Any]) -> _Source:
    """Take one frame of one file per band."""
    if not paths or not all(isinstance(path, str | os.PathLike) for path in paths):
        raise TypeError(
            "A list among the frames is expected to hold the paths of one file per band, found "
            f"{[type(path).__name__ for path in paths]}. Give arrays and rasters as frames of their own."
        )
    if not all(_is_layer(path) for path in paths):
        file = parse_granule_name(paths[0])
        return _Source(Path(paths[0]).parent.name or "scene", None if file is None else file.date, list(paths))
    granules = group_granules(paths)
    if len(granules) > 1:
        raise ValueError(
            "Expected the files of one granule in a list that is one frame, found those of "
            f"{', '.join(granule.name for granule in granules)}. Give one list per granule, or all in one flat list."
        )
    return _Source(granules[0].name, granules[0].date, granules[0])


def _is_layer(path: str | os.PathLike) -> bool:
    """Whether a path is that of a file of one layer of a granule."""
    file = parse_granule_name(path)
    return file is not None and file.layer is not None and not os.path.isdir(path)


def _open_on_grid(
    sources: Sequence[_Source], image_processor: ImageProcessor, options: FrameOptions
) -> tuple[Grid, tuple[Raster, ...]]:
    """Find the grid of the scene, and open every frame on it."""
    first, base = None, options.grid
    if isinstance(base, str) and base == "first":
        first = sources[0].open(None, image_processor, options)
        base = Grid.of(first)
    elif not isinstance(base, Grid):
        base = Grid.of(GeoTiffRaster(base))
    grid, resolution = base, options.resolution
    if resolution is not None and not all(math.isclose(side, resolution, rel_tol=1e-9) for side in base.pixel_size):
        grid, first = base.with_resolution(resolution), None
    rasters = [source.open(grid, image_processor, options) for source in sources[0 if first is None else 1 :]]
    rasters = rasters if first is None else [first, *rasters]
    if options.grid_mismatch == "refuse" and first is not None:
        open_frames(rasters)  # refuses other grids
        return grid, tuple(rasters)
    for position, raster in enumerate(rasters, start=1):
        if (raster.crs is None or grid.crs is None) and raster.shape[-2:] != grid.size:
            raise ValueError(
                f"Frame {position} ({raster.name}) has {raster.height} x {raster.width} pixels, the scene "
                f"{grid.height} x {grid.width}, and without a CRS on both sides nothing tells where they are: bring "
                "all frames to one grid, or give them a CRS."
            )
        if grid.is_same_as(raster):
            continue
        rasters[position - 1] = warp_to(raster, grid, nodata_values=nodata_values(image_processor))
        fraction = overlap(grid, raster)
        if fraction < _SMALL_OVERLAP:
            warnings.warn(
                f"Frame {position} ({raster.name}) covers {fraction:.0%} of the scene; the rest is nodata in that "
                "frame.",
                FrameWarning,
                stacklevel=3,
            )
    if options.grid_mismatch == "refuse":
        open_frames(rasters)
    return grid, tuple(rasters)


def _resolve_dates(
    dates: Sequence[Date] | None, found: Sequence[datetime.datetime | None], counts: Sequence[int]
) -> tuple[datetime.datetime | None, ...]:
    """Give dates in UTC: those of the file names, or those that are given, as many as `counts` allows."""
    resolved = [*found]
    if dates is not None:
        resolved = []
        for date in [dates] if isinstance(dates, str) else dates:
            resolved.append(parse_date(date))
        if len(resolved) not in counts:
            raise ValueError(
                f"dates: expected one for each of {' or '.join(map(str, counts))} frames, found {len(resolved)}. Give "
                "one date per frame."
            )
    known = [date for date in resolved if date is not None]
    if known != sorted(known):
        warnings.warn(
            "Expected frames in time order, found dates " + ", ".join(f"{date:%Y-%m-%d}" for date in known) + ". The "
            "order is kept as given: change it if the model was trained with the oldest frame first.",
            FrameWarning,
            stacklevel=3,
        )
    return tuple(resolved)


def scene_coordinates(
    scene: Scene,
    window: Window | None = None,
    encoded: Sequence[str] = tuple(COORDINATE_ARGUMENTS),
    first_day_of_year: int = 0,
    num_frames: int | None = None,
) -> dict[str, np.ndarray]:
    """Give the date of each frame and the place of a window (None: of the whole scene), those that are wanted.

    Dates are `temporal_coords` float32 (num_frames, 2), year and day of the year, where 1 January counts as
    `first_day_of_year` of the model's image processor. Places are `location_coords` float32 (2,), latitude and
    longitude of the centre in degrees (WGS 84). What is not known is NaN, whose term a model leaves out, and never
    made up. `num_frames` are the dates that the frames hold, where a single one stacks them; as many as frames by
    default.

    Raises:
        ValueError: A name that is not of a coordinate, a year or a place that cannot be.
    """
    unknown = sorted(set(encoded) - set(COORDINATE_ARGUMENTS))
    if unknown:
        raise ValueError(f"encoded: expected some of {', '.join(COORDINATE_ARGUMENTS)}, found {', '.join(unknown)}.")
    if first_day_of_year not in (0, 1):
        raise ValueError(f"first_day_of_year: expected 0 or 1, found {first_day_of_year}.")
    found = {}
    if "time" in encoded:
        count = num_frames or len(scene.dates)
        dates = scene.dates if len(scene.dates) == count else None  # one date in a name does not tell those of a stack
        found[COORDINATE_ARGUMENTS["time"]] = encode_dates(dates, count, first_day_of_year, scene.name)
    if "location" in encoded:
        grid = scene.grid
        place = find_center(grid.crs, grid.transform, window or (0, 0, *grid.size), scene.name)
        found[COORDINATE_ARGUMENTS["location"]] = encode_location(place or scene.location, scene.name)
    return found


def warn_of_unknown_coordinates(
    scene: Scene, image_processor: "PrithviImageProcessor", encoded: Sequence[str]
) -> None:
    """Warn where a date or the place of a scene, which a model takes, is not known."""
    options = image_processor.first_day_of_year, image_processor.num_frames
    warn_of_unknown(scene_coordinates(scene, None, encoded, *options), scene.name)
