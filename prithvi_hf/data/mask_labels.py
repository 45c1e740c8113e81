# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Labels from a mask, or from a map of this package, as a raster of classes on the grid of a scene."""

import os
from typing import Literal

import numpy as np

from prithvi_hf.data.vector_labels import LabelClasses, LabelOptions, choose_classes
from prithvi_hf.models.prithvi.labels_prithvi import IGNORED_LABEL, check_mask_shape
from prithvi_hf.models.prithvi.pixel_values_prithvi import equals_nodata
from prithvi_hf.outputs.cog import NODATA_CLASS
from prithvi_hf.outputs.polygons import read_class_names
from prithvi_hf.rasters.derived import take_header
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.raster import Raster, Window, name_crs_pair, union
from prithvi_hf.rasters.warping import Grid, warp_to


_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_mask(path: str | os.PathLike) -> bool:
    """Tell whether labels are a GeoTIFF, and not a vector file."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(4) in _TIFF


class MaskLabels(Raster):
    """A mask as a raster of one uint8 band on the grid of a scene: class numbers, 255 where there is no label.

    Values mean what `options.classes` say; else what the names in the file say, which masks and maps of this package
    have; else they are class numbers. A mask on another grid is brought there by the nearest pixel.

    Args:
        path: the mask, a GeoTIFF of whole numbers.
        grid: the grid of the scene.
        options: `classes` and `ignore_values`, of mask values.
        grid_mismatch: "warp", or "refuse" to make another grid an error.

    Attributes:
        classes: the classes; None where values are class numbers without names.

    Raises:
        ValueError: it is not a mask, is elsewhere, or reading finds a value that is not a class.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        grid: Grid,
        options: LabelOptions,
        grid_mismatch: Literal["warp", "refuse"] = "warp",
    ) -> None:
        idle = [name for name in ("attribute", "layer", "background") if getattr(options, name) is not None]
        if idle := [*idle, *(["all_touched"] if options.all_touched else [])]:
            raise ValueError(f"{path}: expected a vector file for {', '.join(idle)}, found a mask. Leave it out.")
        raster = GeoTiffRaster(path)
        check_mask_shape(raster, raster.name)
        if not grid.is_same_as(raster) and grid_mismatch == "refuse":
            crs, own = name_crs_pair(grid.crs, raster.crs)
            raise ValueError(
                f"{raster.name}: expected the grid of the scene ({grid.height} x {grid.width} pixels, {crs}), found "
                f"another ({raster.height} x {raster.width} pixels, {own}). grid_mismatch 'warp' brings it there."
            )
        self._source = warp_to(raster.select([0]), grid, "nearest")
        super().__init__(**{**take_header(self._source), "dtype": "uint8", "nodata": NODATA_CLASS})
        named, self.classes = read_class_names(path), None
        if options.classes is not None:
            self.classes = choose_classes({}, options, raster.name)
        elif named:
            names = tuple(dict.fromkeys(named.values()))
            by_value = {str(value): names.index(name) for value, name in named.items()}
            self.classes = LabelClasses(names, by_value)
        self._ignored = np.array([int(value) for value in options.ignore_values], dtype=np.int64)
        values: list[int] = []
        if self.classes is not None:
            try:
                values = [int(value) for value in self.classes.by_value]
            except ValueError as error:
                raise ValueError(
                    f"{raster.name}: expected classes of a mask as VALUE or VALUE=NAME of whole numbers, found "
                    f"{', '.join(self.classes.by_value)}."
                ) from error
        self._values = np.array(values, dtype=np.int64)
        self._classes = np.array(list(self.classes.by_value.values()) if self.classes else [], dtype=np.int64)
        # Writers tag 0 as nodata in masks that count it: as long as it is the value of a class, it is one.
        tag = self._source.nodata
        self._nodata = () if tag is None or tag in (values or [0]) else (tag,)

    @property
    def sources(self) -> tuple[Raster, ...]:
        """The mask on the grid of the scene."""
        return (self._source,)

    def _read(self, bands: tuple[int, ...], window: Window) -> np.ndarray:
        part = self._source.select(window=window)
        pixels = part.read()[0]
        flags = [equals_nodata(pixels, self._nodata), part.read_nodata_mask()]
        missing = union([one for one in flags if one is not None])
        values, places = np.unique(pixels, return_inverse=True)
        with np.errstate(invalid="ignore"):
            numbers = values.astype(np.int64)
        classes = np.full(len(values), -1, dtype=np.int64)
        if self.classes is None:
            is_class = (numbers >= 0) & (numbers < NODATA_CLASS)
            classes[is_class] = numbers[is_class]
            classes[numbers == NODATA_CLASS] = NODATA_CLASS  # what masks without a tag mostly mean by it
        else:
            for value, label in zip(self._values, self._classes, strict=True):
                classes[numbers == value] = label
        classes[np.isin(numbers, [*self._ignored, IGNORED_LABEL])] = NODATA_CLASS
        classes[numbers != values] = -1
        labels = classes[places.reshape(pixels.shape)]
        if missing is not None:
            labels[missing] = NODATA_CLASS
        if (unknown := labels < 0).any():
            found = ", ".join(f"{value:g}" for value in np.unique(pixels[unknown])[:10])
            known = "class numbers from 0 on" if self.classes is None else ", ".join(self.classes.by_value)
            raise ValueError(
                f"{self.name}: expected the mask values {known}, found {found} too. Add them to classes (VALUE=NAME), "
                "or to ignore_values if they are not a class."
            )
        return labels.astype(np.uint8)[None]

    def _read_mask(self, bands: tuple[int, ...], window: Window) -> np.ndarray | None:
        return None
