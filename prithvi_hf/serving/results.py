# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The results of a job: the map and what is beside it, its summary, and its tiles."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.session import DummySession
from rasterio.vrt import WarpedVRT
from rasterio.warp import calculate_default_transform, transform, transform_bounds

from prithvi_hf.outputs.class_areas import measure_classes
from prithvi_hf.outputs.cog import complete_or_absent
from prithvi_hf.outputs.polygons import check_polygon_options
from prithvi_hf.scenes.predict_scene import predict_scene
from prithvi_hf.scenes.predicted import PredictedScene
from prithvi_hf.serving.frames import open_frames
from prithvi_hf.serving.settings import Settings


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
    from prithvi_hf.models.prithvi.modeling_prithvi import PrithviMapModel
    from prithvi_hf.serving.worker import Task

RESULTS = "results"
"""Folder of the results within that of a job."""
SUMMARY = "summary.json"
TILE_SIZE = 256
MAX_ZOOM = 24
_COPIED = ("height", "width", "nodata_fraction", "frame_nodata_fractions", "dtype", "seconds", "versions")
_OPEN = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_CACHEMAX": 64 * 2**20}
_COLORS = "viridis"  # of values, as on quicklooks


class ResultFile(NamedTuple):
    """A file that clients may fetch."""

    name: str  # in the folder of the results and in the address
    media_type: str
    ending: str  # of the name that a browser saves it under


RESULT_FILES = {
    "map": ResultFile("map.tif", "image/tiff; application=geotiff; profile=cloud-optimized", "_map.tif"),
    "polygons": ResultFile("polygons.geojson", "application/geo+json", ".geojson"),
    "quicklook": ResultFile("quicklook.png", "image/png", ".png"),
    "confidence": ResultFile("confidence.tif", "image/tiff; application=geotiff", "_confidence.tif"),
    "entropy": ResultFile("entropy.tif", "image/tiff; application=geotiff", "_entropy.tif"),
    "probabilities": ResultFile("probabilities.tif", "image/tiff; application=geotiff", "_probabilities.tif"),
    "summary": ResultFile(SUMMARY, "application/json", ".json"),
}
"""By name; nothing else of a job can be fetched."""


class NoTileError(ValueError):
    """There is no such tile."""


def write_map(
    model: "PrithviMapModel",
    image_processor: "PrithviImageProcessor",
    task: "Task",
    settings: Settings,
    device: str,
    on_progress: Callable[[int, int], object],
) -> dict[str, Any]:
    """Map the scene of a task into the folder of its job, as `prithvi-hf predict` would, and summarise it.

    What an interrupted run has left is used.

    Returns:
        The summary, which is in a file too.
    """
    folder = Path(task.folder)
    paths = [folder / file for file in task.files]
    scene, image_processor, keywords = open_frames(
        paths, task.names, task.options, image_processor, model.config, model.task, settings.limits
    )
    results = folder / RESULTS
    results.mkdir(exist_ok=True)
    keywords = {
        name: results / RESULT_FILES[name].name if value is True else value for name, value in keywords.items()
    }
    result = predict_scene(
        model,
        image_processor,
        scene,
        results / RESULT_FILES["map"].name,
        **{**keywords, "batch_size": settings.batch_size},
        on_read_error=task.options.get("on_read_error", "raise"),
        dtype=settings.dtype,
        device=device,
        show_progress=False,
        on_progress=on_progress,
    )
    report, grid = result.report, scene.grid
    try:
        check_polygon_options(grid, {})
        has_place = True
    except ValueError:
        has_place = False
    summary = {name: report[name] for name in _COPIED if name in report}
    summary |= {
        "crs": report["crs"],
        "bounds": find_bounds(result.path) if has_place else None,
        "classes": None,
        "values": report.get("values"),
        "unreadable": [{**one, "file": task.names[_find_file(one["file"], paths)]} for one in report["bad_windows"]],
        "input_check": report.get("input_check"),
    }
    if isinstance(result, PredictedScene):
        classes = measure_classes(result.path, has_place=has_place)
        valid = max(1, sum(one.pixels for one in classes))
        summary["classes"] = [
            {
                **{name: value for name, value in vars(one).items() if name != "square_metres"},
                "fraction": one.pixels / valid,
                "area_km2": None if one.square_metres is None else one.square_metres / 1e6,
            }
            for one in classes
        ]
    with complete_or_absent(results / SUMMARY) as part:
        part.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return summary


def _find_file(name: str, paths: list[Path]) -> int:
    """Find the position of the frame that a report names."""
    return next((number for number, path in enumerate(paths) if name.startswith(str(path))), 0)


def find_bounds(path: Path) -> list[float] | None:
    """Find west, south, east and north of a map in degrees; None without a CRS. West is above east across 180."""
    with rasterio.Env(session=DummySession(), **_OPEN), DatasetReader(str(path), driver="GTiff") as dataset:
        if dataset.crs is None:
            return None
        bounds = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds, densify_pts=21)
    return [round(value, 7) for value in bounds] if all(map(math.isfinite, bounds)) else None


def render_tile(path: Path, z: int, x: int, y: int, values: dict[str, Any] | None = None) -> bytes:
    """Draw one tile of the web Mercator grid as PNG of 256 x 256 pixels, in the colours of the map's own table.

    Args:
        path: The map.
        z: Zoom.
        x: Column.
        y: Row, from the north.
        values: Of a map of values, its statistics, which the colours span.

    Raises:
        NoTileError: If the map is not there, or has no place.
    """
    from rio_tiler.colormap import cmap
    from rio_tiler.errors import RioTilerError
    from rio_tiler.io import Reader
    from rio_tiler.models import ImageData
    from rio_tiler.mosaic import mosaic_reader

    if not (0 <= z <= MAX_ZOOM and 0 <= x < 2**z and 0 <= y < 2**z):
        raise NoTileError(f"no tile {z}/{x}/{y} in the grid")
    with rasterio.Env(session=DummySession(), **_OPEN), DatasetReader(str(path), driver="GTiff") as dataset:
        if dataset.crs is None:
            raise NoTileError("a map without a CRS")
        # Degrees may go beyond 180, while the grid of the tiles ends there: the map is there again, a turn further.
        turn = math.tau / dataset.crs.units_factor[1] if dataset.crs.is_geographic else math.inf
        west, _, east, _ = dataset.bounds
        turns = [0.0, *(way for way in (-turn, turn) if west + way < turn / 2 and east + way > -turn / 2)]

        def read(turn: float) -> ImageData:
            """Read the tile from the map where it is, or a turn further."""
            if not turn:
                with Reader(None, dataset=dataset) as reader:
                    return reader.tile(x, y, z, **how)
            grid: dict[str, Any] = {"width": dataset.width, "height": dataset.height}
            grid["src_transform"] = grid["transform"] = Affine.translation(turn, 0) @ dataset.transform
            with WarpedVRT(dataset, **grid) as turned, Reader(None, dataset=turned) as reader:
                return reader.tile(x, y, z, **how)

        how: dict[str, Any] = {
            "tilesize": TILE_SIZE,
            "resampling_method": "nearest",
            "reproject_method": "nearest",
        }
        try:
            image, _ = mosaic_reader(turns, read, threads=0)
            if values is None:
                return image.render(img_format="PNG", colormap=dict(dataset.colormap(1)))
            low, high = values["min"], values["max"]
            if low is None or not high > low:
                low, high = low or 0.0, (low or 0.0) + 1.0
            image.rescale(in_range=((low, high),))
            return image.render(img_format="PNG", colormap=cmap.get(_COLORS))
        except RioTilerError as error:
            raise NoTileError(f"a map that tile {z}/{x}/{y} does not touch") from error


def find_zooms(path: Path) -> tuple[int, int]:
    """Find the zooms at which a tile shows the whole map, and its pixels."""
    from rasterio.rio.overview import get_maximum_overview_level
    from rio_tiler.constants import WEB_MERCATOR_TMS

    with rasterio.Env(session=DummySession(), **_OPEN), DatasetReader(str(path), driver="GTiff") as dataset:
        if dataset.crs is None:
            raise NoTileError("a map without a CRS")
        centre = dataset.xy(dataset.height / 2, dataset.width / 2, offset="ul")
        # Around the meridian of the map's centre: in the grid of the tiles, a map across 180 degrees is world-wide.
        (longitude,), _ = transform(dataset.crs, "EPSG:4326", *([value] for value in centre))
        mercator = CRS.from_proj4(f"+proj=merc +a=6378137 +b=6378137 +lon_0={longitude} +units=m +no_defs")
        grid, width, height = calculate_default_transform(
            dataset.crs, mercator, dataset.width, dataset.height, *dataset.bounds
        )
    resolution = max(abs(grid.a), abs(grid.e))
    halvings = get_maximum_overview_level(width, height, minsize=TILE_SIZE)
    least, most = (WEB_MERCATOR_TMS.zoom_for_res(resolution * factor) for factor in (2**halvings, 1))
    return least, most
