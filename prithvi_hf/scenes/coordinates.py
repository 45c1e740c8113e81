# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""When and where a scene was taken, for models that take dates and places beside pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rasterio.errors import RasterioError
from rasterio.warp import transform as transform_points

from prithvi_hf.scenes.rasters import Window


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
            f"{', '.join(missing)}. Give dates=[...], or files with their published HLS or Sentinel-2 names."
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


__all__ = ["COORDINATES", "scene_coordinates"]
