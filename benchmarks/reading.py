# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Reading a training crop: the six bands and the window, against the whole 13-band file as the original reads it."""

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from affine import Affine

from benchmarks.timing import comparison, median_seconds
from examples.synthetic_floods import generate_scene
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.write_geotiff import write_geotiff


BANDS = [1, 2, 3, 8, 11, 12]
CROP = 224


def _write_chip(path: Path) -> None:
    """A chip as Sen1Floods11's: 13 bands, int16, 512 x 512, deflate, one strip per band."""
    image = generate_scene(512, 512, seed=0).image
    bands = image[np.arange(13) % len(image)] + np.arange(13, dtype=np.int16)[:, None, None]
    transform = Affine.translation(-60, -14) @ Affine.scale(9e-5, -9e-5)
    write_geotiff(path, bands, crs="EPSG:4326", transform=transform, nodata=0, interleave="band", blockysize=512)


def _whole_file(path: Path) -> Callable[[], np.ndarray]:
    """The original's way: rioxarray reads everything, bands and crop are taken from the array."""
    if find_spec("rioxarray") is None:
        return lambda: GeoTiffRaster(path).read()[BANDS, :CROP, :CROP]
    import rioxarray

    def read() -> np.ndarray:
        with rioxarray.open_rasterio(path) as array:
            return array.values[BANDS, :CROP, :CROP]

    return read


def run(repeats: int) -> dict[str, float | str]:
    """Measure both ways on a generated chip.

    Args:
        repeats (`int`): Timed calls of each.

    Returns:
        `dict`: Milliseconds a crop of both, and their ratio.
    """
    reader = "rioxarray" if find_spec("rioxarray") else "rasterio (rioxarray is not installed)"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chip.tif"
        _write_chip(path)
        crop = {"ours": lambda: GeoTiffRaster(path).read(BANDS, (144, 144, CROP, CROP)), "whole": _whole_file(path)}
        seconds = median_seconds(crop, repeats)
    what = "read a 224 px crop of six bands out of a 13-band 512 px chip"
    return comparison(what, seconds["ours"], seconds["whole"], f"whole file with {reader}")
