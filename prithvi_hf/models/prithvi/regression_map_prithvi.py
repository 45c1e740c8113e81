# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The map of a regression: values of one scene, with their unit and its place on Earth.

This file travels to the Hub beside the pipeline: it reaches for GeoTIFF writing only where prithvi_hf is installed.
"""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .configuration_prithvi import PrithviConfig
from .pixel_values_prithvi import missing_package
from .segmentation_map_prithvi import Affine, warn_without_place


class Quantity(NamedTuple):
    """What the values of a map are."""

    name: str = "value"
    unit: str | None = None

    @property
    def title(self) -> str:
        """Name and unit for a legend: "canopy height (m)"."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @classmethod
    def of(cls, config: PrithviConfig) -> "Quantity":
        """What a regression model predicts."""
        return cls(config.target_name or "value", config.target_unit)


@dataclass(eq=False, repr=False)
class RegressionMap:
    """The values of one scene, with its place on Earth.

    Attributes:
        values: (H, W) float32 in `unit`, NaN = no data.
        name: What they are, such as "aboveground biomass".
        unit: Their unit, such as "Mg/ha"; None where the model does not say it.
        crs: The scene's CRS as rasterio reads it; None for a bare array.
        transform: Affine transform from pixel to CRS coordinates; None for a bare array.
        rgb: (H / s, W / s, 4) uint8 picture of the scene's last date, as in `SegmentationMap`.
        rgb_title: What it shows.
        input_check: How far each band is from the training, as in `SegmentationMap`.
    """

    values: np.ndarray
    name: str = "value"
    unit: str | None = None
    crs: object | None = None
    transform: Affine | None = None
    rgb: np.ndarray | None = None
    rgb_title: str = "scene"
    input_check: Mapping[str, Mapping[str, float]] | None = None

    def __repr__(self) -> str:
        height, width = self.values.shape
        crs = self.crs.to_string() if hasattr(self.crs, "to_string") else self.crs
        return f"RegressionMap({height} x {width} pixels of {Quantity(self.name, self.unit).title}, crs={crs})"

    def statistics(self) -> dict[str, Any]:
        """Measure the values.

        Returns:
            "pixels", the number of those with data, and "mean", "std", "min" and "max" of their values in `unit`, None
            where no pixel has data.
        """
        return measure_values([self.values])

    def to_geotiff(self, path: str | os.PathLike) -> None:
        """Write the values as a Cloud-Optimized GeoTIFF of one float32 band with its name and unit, nodata NaN.

        A map without a CRS, of a bare array, warns: nothing in the file says where it is.

        Args:
            path: The file to write; an existing one is replaced, and only by a complete one.

        Raises:
            ImportError: If prithvi_hf is not installed.
            ValueError: If the folder does not exist.
        """
        try:
            from prithvi_hf.outputs.cog import write_value_map
        except ImportError as error:
            raise missing_package("Writing a GeoTIFF", "take `.values`, `.crs` and `.transform`") from error
        warn_without_place(path, self.crs, self.transform)
        write_value_map(path, self.values, name=self.name, unit=self.unit, crs=self.crs, transform=self.transform)

    def to_xarray(self) -> Any:
        """Give the values as an `xarray.DataArray` (y, x) that rioxarray reads, with name and unit in its attributes.

        Returns:
            The values as float32, NaN where there is no data, with the coordinates of the pixels' centres if known.

        Raises:
            ImportError: If xarray or prithvi_hf is not installed.
        """
        try:
            from prithvi_hf.outputs.objects import make_value_array
        except ImportError as error:
            raise missing_package("Making a DataArray", "take `.values`, `.crs` and `.transform`") from error
        return make_value_array(self.values, Quantity(self.name, self.unit), self.crs, self.transform)

    def to_png(self, path: str | os.PathLike) -> None:
        """Draw the values with a colour bar, beside a picture of the scene.

        Args:
            path: The PNG to write; an existing one is replaced.

        Raises:
            ImportError: If prithvi_hf is not installed.
            ValueError: If the folder does not exist.
        """
        try:
            from prithvi_hf.outputs.quicklook import write_value_quicklook
        except ImportError as error:
            raise missing_package("Drawing a quick look", "draw `.values`") from error
        write_value_quicklook(
            path,
            self.values,
            title=Quantity(self.name, self.unit).title,
            rgb=self.rgb,
            rgb_title=self.rgb_title,
            crs=self.crs,
            transform=self.transform,
        )


def measure_values(parts: Iterable[np.ndarray]) -> dict[str, Any]:
    """Measure the values of arrays together, NaN left out: "pixels", "mean", "std", "min" and "max", None without any.

    The arrays are taken one by one, so that they may be the rows of a map that is larger than memory.
    """
    count, mean, squares, low, high = 0, 0.0, 0.0, math.inf, -math.inf  # squares: of deviations from the mean
    for part in parts:
        values = part[~np.isnan(part)].astype(np.float64)
        if values.size:
            step = float(values.mean()) - mean
            squares += float(((values - values.mean()) ** 2).sum())
            squares += step**2 * count * values.size / (count + values.size)
            count += values.size
            mean += step * values.size / count
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    if not count:
        return {"pixels": 0} | dict.fromkeys(("mean", "std", "min", "max"))
    return {"pixels": count, "mean": mean, "std": math.sqrt(squares / count), "min": low, "max": high}
