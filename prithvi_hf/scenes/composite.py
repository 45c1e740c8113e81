# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Many dates, and many tiles, as one GeoTIFF without clouds: streamed, in the units of HLS."""

import datetime
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.io import DatasetWriter
from tqdm import tqdm

from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.segmentation_map_prithvi import choose_color_bands, stretch_colors
from prithvi_hf.outputs.assemble import publish
from prithvi_hf.outputs.cog import BLOCK_SIZE, Layer, check_output_path, write_geotiff
from prithvi_hf.outputs.quicklook import PictureRow, draw_pictures, measure_width
from prithvi_hf.outputs.staging import Staging
from prithvi_hf.rasters import TIFF_SUFFIXES
from prithvi_hf.rasters.composite import METHODS, CompositeRaster, Method, cut_windows, find_common_grid
from prithvi_hf.rasters.derived import ScaledRaster
from prithvi_hf.rasters.geotiff_raster import GeoTiffError, GeoTiffRaster
from prithvi_hf.rasters.opening import FrameOptions, parse_granule_name
from prithvi_hf.rasters.products import HLS_NODATA, REFLECTANCE_SCALE
from prithvi_hf.rasters.raster import Raster, Window
from prithvi_hf.rasters.warping import Grid, warp_to
from prithvi_hf.scenes.scene import Scene


COUNT_BAND = "CLEAR_COUNT"
"""Name of the last band of a composite: on how many dates each pixel was clear."""

DEFAULT_FMASK = ("cirrus", "cloud", "shadow")
"""Kinds of pixels that are left out of a composite, unless others are named."""

_SOFTWARE = "prithvi_hf composite"
_DAY_PIXELS, _DAYS_A_ROW, _DAY_INCHES = 400, 4, 3.0  # of the picture of all days
_DIGEST = "MADE_OF"  # metadata item
_COUNTS = round(1 / REFLECTANCE_SCALE)


@dataclass(frozen=True)
class Composite:
    """A composite that was written.

    Attributes:
        path: of the file.
        size: (height, width).
        crs: its coordinate reference system.
        dates: day and sensor, or name, of each date that it is made of.
        covered: fraction of its pixels with a clear value.
    """

    path: Path
    size: tuple[int, int]
    crs: Any
    dates: tuple[str, ...]
    covered: float


def make_processor(image_processor: PrithviImageProcessor | None) -> PrithviImageProcessor:
    """Make the image processor that scenes of a composite are opened with: the bands of a model, one frame."""
    bands = PrithviImageProcessor().bands if image_processor is None else image_processor.bands
    plain = [1000.0] * len(bands)
    return PrithviImageProcessor(
        bands=list(bands),
        band_map=None if image_processor is None else image_processor.band_map,
        image_mean=plain,
        image_std=plain,
        num_frames=1,
    )


def open_options(options: FrameOptions) -> FrameOptions:
    """Give the options that scenes of a composite are opened with: reflectance, on their own grids."""
    return replace(options, scale="apply", resolution=None, grid="first", fmask_rule="all", dates=None)


def digest_scenes(
    scenes: Sequence[Scene], method: Method, fmask: Sequence[str], resolution: float | None = None
) -> str:
    """Digest all that decides a composite: files, their sizes and times, and what is done to them."""
    content = [[scene.fingerprint() for scene in scenes], method, list(fmask), resolution]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def is_made_of(path: Path, digest: str) -> bool:
    """Whether a file is a composite that was made of the same, see `digest_scenes`."""
    try:
        return path.is_file() and GeoTiffRaster(path).read_tag(_DIGEST) == digest
    except GeoTiffError:
        return False


def write_composite(
    scenes: Sequence[Scene],
    image_processor: PrithviImageProcessor,
    output: str | os.PathLike,
    *,
    method: Method = "median",
    fmask: Sequence[str] = (),
    resolution: float | None = None,
    overwrite: bool = True,
    show_progress: bool = True,
) -> Composite:
    """Compose scenes of one date each into one GeoTIFF, whatever tiles they are.

    What one sensor saw on one day is put together first, so that places where tiles overlap do not count twice. Frames
    on other grids are warped to that of the first scene, which is extended to cover all. The file holds reflectance
    times 10,000 as int16 with the scale 0.0001 and nodata -9999, as HLS does, and `COUNT_BAND` as its last band.
    Memory does not grow with the area. A run that is interrupted, or killed, leaves its finished strips beside the
    output, and the same call continues with them.

    Args:
        scenes: opened with this image processor and with `open_options`.
        image_processor: from `make_processor`; its bands are composed.
        output: the GeoTIFF to write.
        method: "median" or "clearest", see [`~rasters.composite.CompositeRaster`].
        fmask: kinds of pixels that the scenes were opened without, for the tags of the file.
        resolution: side of a pixel in units of the CRS; None for that of the first scene.
        overwrite: whether an existing file is replaced.
        show_progress: whether to show a progress bar.

    Returns:
        What was written.

    Raises:
        ValueError: scenes that do not fit together, or whose units are not known.
        OSError: the file cannot be written.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, found {method!r}.")
    if not scenes:
        raise ValueError("Expected at least one scene to compose, found none.")
    inputs = [file for scene in scenes for file in scene.files]
    path = check_output_path(output, inputs, overwrite, "composite", TIFF_SUFFIXES)
    grid, days = _merge_days(
        scenes, image_processor, lambda grid: grid if resolution is None else grid.with_resolution(resolution)
    )
    composite = CompositeRaster(list(days.values()), method, path.name)
    names = image_processor.bands
    tags = {
        "TIFFTAG_SOFTWARE": _SOFTWARE,
        "COMPOSITE": method,
        "DATES": json.dumps(list(days)),
        "SOURCES": json.dumps([scene.name for scene in scenes]),
        "MASKED": " ".join(fmask),
        _DIGEST: digest_scenes(scenes, method, fmask, resolution),
        "CREATED": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }

    def describe(dataset: DatasetWriter) -> None:
        for band, text in enumerate([*names, COUNT_BAND], start=1):
            dataset.set_band_description(band, text)
        dataset.scales = (*(REFLECTANCE_SCALE,) * len(names), 1.0)
        dataset.update_tags(**tags)

    layer = Layer(
        name="composite",
        bands=(*names, COUNT_BAND),
        dtype="int16",
        nodata=HLS_NODATA,
        options={"predictor": "YES", "overview_resampling": "AVERAGE"},
        describe=describe,
    )
    # Of pictures of a mosaic all frames are read, and each of them is a stack.
    depth = len(scenes) * (len(names) + 1)
    tops, covered = range(0, grid.height, BLOCK_SIZE), 0
    rows = [min(BLOCK_SIZE, grid.height - top) for top in tops]

    def load_strips() -> Iterator[tuple[int, int, np.ndarray]]:
        nonlocal covered
        for index, top in enumerate(tops):
            strip = staging.load(index)["strip"]
            covered += int((strip[-1] > 0).sum())
            for band, pixels in enumerate(strip):
                yield band, top, pixels

    plan = {"composite": tags[_DIGEST], "bands": list(names), "grid": grid.describe()}
    with Staging(path, plan, len(tops)) as staging:
        try:
            done = grid.height - sum(rows[index] for index in staging.missing)
            with tqdm(total=grid.height, initial=done, unit="row", disable=not show_progress, desc=method) as bar:
                for index in staging.missing:
                    window = (tops[index], 0, rows[index], grid.width)
                    staging.commit(index, {"strip": _compose_strip(composite, window, depth)})
                    bar.update(rows[index])
            staging.final_folder.mkdir()
            part = staging.final_folder / path.name
            write_geotiff(part, layer, grid.size, load_strips(), grid.crs, grid.transform)
            publish({part: path})
        except BaseException as error:
            if kept := staging.kept():
                error.add_note(
                    f"{kept} of {staging.count} parts of {path.name} are kept in {staging.folder}: the same command "
                    "continues."
                )
            raise
        finally:
            shutil.rmtree(staging.final_folder, ignore_errors=True)
        staging.remove()
    return Composite(path, grid.size, grid.crs, tuple(days), covered / (grid.height * grid.width))


def draw_days(scenes: Sequence[Scene], image_processor: PrithviImageProcessor, path: str | os.PathLike) -> None:
    """Draw a PNG of what each sensor saw on each day, with one stretch of colours for all, to choose among them.

    Args:
        scenes: as `write_composite` takes them.
        image_processor: from `make_processor`.
        path: the PNG to write.

    Raises:
        ValueError: as `write_composite`.
        OSError: the file cannot be written.
    """

    def make_coarse(grid: Grid) -> Grid:
        step = -(-max(grid.size) // _DAY_PIXELS)
        return grid if step == 1 else grid.with_resolution(grid.pixel_size[0] * step)

    grid, days = _merge_days(scenes, image_processor, make_coarse)
    bands, is_natural = choose_color_bands(image_processor.bands)
    values = np.concatenate([raster.read(bands) for raster in days.values()], axis=2)
    masks = [raster.read_nodata_mask() for raster in days.values()]
    missing = np.concatenate([np.zeros(grid.size, dtype=bool) if mask is None else mask for mask in masks], axis=1)
    picture = stretch_colors(values, np.isfinite(values).all(axis=0) & ~missing, is_natural)
    pictures = dict(zip(days, np.split(picture, len(days), axis=1), strict=True))
    columns = min(_DAYS_A_ROW, len(days))
    places: list[tuple[str, np.ndarray | None]] = list(pictures.items())
    places += [(" " * number, None) for number in range(1, -len(days) % columns + 1)]  # the last row is filled up
    width = measure_width(grid.crs, grid.transform, *grid.size)
    rows = [PictureRow(dict(places[start : start + columns]), width) for start in range(0, len(places), columns)]
    draw_pictures(path, rows, id2label={}, palette=[], present=(), panel_inches=_DAY_INCHES)


def _merge_days(
    scenes: Sequence[Scene], image_processor: PrithviImageProcessor, choose_grid: Callable[[Grid], Grid]
) -> tuple[Grid, dict[str, Raster]]:
    """Bring scenes to one grid, and put together what one sensor saw on one day; the days come in order."""
    frames = [_to_reflectance(scene, image_processor) for scene in scenes]
    grid = choose_grid(find_common_grid(frames))
    days: dict[str, list[Raster]] = {}
    for scene, frame in zip(scenes, frames, strict=True):
        days.setdefault(_name_day(scene), []).append(warp_to(frame, grid))
    return grid, {
        day: group[0] if len(group) == 1 else CompositeRaster(group, "clearest", day)
        for day, group in sorted(days.items())
    }


def _to_reflectance(scene: Scene, image_processor: PrithviImageProcessor) -> Raster:
    """Give the bands of a scene as reflectance; whole numbers of unknown units are reflectance times 10,000."""
    if len(scene.frames) != 1:
        raise ValueError(
            f"{scene.name}: expected a scene of one date, found {len(scene.frames)}. Give each by itself."
        )
    frame = scene.frames[0]
    frame = frame.select(image_processor.find_bands(frame.descriptions, frame.count, frame.name))
    if _is_scaled(frame):
        return frame
    if np.dtype(frame.dtype).kind == "f":
        raise ValueError(
            f"{scene.name}: expected whole numbers, or files that state scale and offset, found {frame.dtype}, of "
            "which nothing tells the units. Convert it to int16 of reflectance times 10,000."
        )
    return ScaledRaster(frame, (REFLECTANCE_SCALE,) * frame.count, (0.0,) * frame.count, (HLS_NODATA,))


def _is_scaled(raster: Raster) -> bool:
    """Whether scale and offset were applied to the numbers of a raster."""
    return isinstance(raster, ScaledRaster) or any(map(_is_scaled, raster.sources))


def _name_day(scene: Scene) -> str:
    """Name what belongs together: what one sensor saw on one day, or a scene without a date."""
    date, file = scene.dates[0], parse_granule_name(scene.files[0]) if scene.files else None
    if date is None:
        return scene.name
    return f"{date:%Y-%m-%d}" + (f" {file.product} {file.sensor}" if file else "")


def _compose_strip(composite: CompositeRaster, window: Window, depth: int) -> np.ndarray:
    """Compose a strip, int16 (bands and `COUNT_BAND`, height, width), in parts that fit into memory."""
    strip = np.empty((composite.count + 1, *window[2:]), dtype=np.int16)
    for part in cut_windows(window, depth):
        values, counts = composite.compose(part)
        numbers = np.clip(np.rint(values * _COUNTS), HLS_NODATA + 1, np.iinfo(np.int16).max)
        place = strip[:, part[0] - window[0] :, part[1] : part[1] + part[3]]
        place[:-1, : part[2]] = np.where(np.isnan(numbers), HLS_NODATA, numbers).astype(np.int16)
        place[-1, : part[2]] = counts
    return strip
