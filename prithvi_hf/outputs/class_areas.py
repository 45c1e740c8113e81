# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""How large the classes of a finished map are, in pixels and on the ground."""

import os
from dataclasses import dataclass

import numpy as np
import rasterio
from rasterio.io import DatasetReader
from rasterio.session import DummySession

from prithvi_hf.outputs.palette import format_color
from prithvi_hf.outputs.polygons import measure_pixels, read_class_names


_STRIP_PIXELS = 2**22


@dataclass(frozen=True)
class ClassArea:
    """One class of a map.

    Attributes:
        value: In the file.
        name: Of the class.
        color: `"#rrggbb"`, that of the file's colour table.
        pixels: How many have it.
        square_metres: On the WGS 84 ellipsoid; None where nothing tells the place of the map.
    """

    value: int
    name: str
    color: str
    pixels: int
    square_metres: float | None


def measure_classes(class_map: str | os.PathLike, *, has_place: bool = True) -> list[ClassArea]:
    """Measure each class of a map that `predict_scene` wrote, some rows at a time.

    Args:
        class_map: The map; names and colours of the classes are read from it.
        has_place: Whether areas on the ground are measured, of a map with a CRS. That needs the extra `vector`.

    Returns:
        The classes in the order of their values in the file, those without a pixel among them.

    Raises:
        ValueError: If the file is not a map of classes, or parts of it are not on Earth.
    """
    names, sums = read_class_names(class_map), np.zeros((2, 256))
    options = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
    with (
        rasterio.Env(session=DummySession(), **options),
        DatasetReader(os.fspath(class_map), driver="GTiff") as dataset,
    ):
        if not names or dataset.dtypes != ("uint8",):
            raise ValueError(
                f"{os.fspath(class_map)}: expected a map of classes that `prithvi-hf predict` wrote, found "
                f"{dataset.count} bands of {dataset.dtypes[0]} with {len(names)} names of classes. Give such a map."
            )
        colors, has_place = dataset.colormap(1), has_place and dataset.crs is not None
        rows = max(1, _STRIP_PIXELS // dataset.width)
        for start in range(0, dataset.height, rows):
            window = (start, 0, min(rows, dataset.height - start), dataset.width)
            values = dataset.read(1, window=((start, start + window[2]), (0, dataset.width))).ravel()
            sums[0] += np.bincount(values, minlength=256)
            if has_place:
                areas = measure_pixels(dataset.crs, dataset.transform, window, name=os.fspath(class_map))
                sums[1] += np.bincount(values, areas.ravel(), 256)
    return [
        ClassArea(
            value=value,
            name=name,
            color=format_color(colors[value]),
            pixels=int(sums[0, value]),
            square_metres=float(sums[1, value]) if has_place else None,
        )
        for value, name in names.items()
    ]
