# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The result of a prediction: files, and what is known of them."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.session import DummySession
from rasterio.windows import Window

from prithvi_hf.models.prithvi.configuration_prithvi import name_counts
from prithvi_hf.models.prithvi.regression_map_prithvi import Quantity, measure_values
from prithvi_hf.outputs.cog import NODATA_CLASS, complete_or_absent, file_value_table, file_values


if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from xarray import DataArray


@dataclass(eq=False, repr=False, kw_only=True)
class PredictedMap:
    """A map that was written, which may be larger than memory: pixels are read when they are asked for.

    Attributes:
        path: The map.
        outputs: All files that were written, by the names of `OUTPUTS`: "map", "probabilities", "confidence",
            "entropy", "polygons", "quicklook", "report".
        shape: (height, width) in pixels.
        crs: CRS as rasterio reads it, or None.
        transform: Affine transform from pixel to CRS coordinates, or None.
        report: What happened, for JSON: see [`predict_scene`].
    """

    path: Path
    outputs: dict[str, Path]
    shape: tuple[int, int]
    crs: CRS | None
    transform: Affine | None
    report: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        height, width = self.shape
        crs = self.crs.to_string() if isinstance(self.crs, CRS) else self.crs
        return f"{type(self).__name__}({str(self.path)!r}, {height} x {width} pixels, crs={crs})"

    def to_json(self, path: str | os.PathLike) -> None:
        """Write the report; an existing file is replaced, and only by a complete one."""
        with complete_or_absent(path) as part:
            part.write_text(json.dumps(self.report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@dataclass(eq=False, repr=False, kw_only=True)
class PredictedValues(PredictedMap):
    """A map of values that was written, of a regression model.

    Attributes:
        name: What the values are.
        unit: Their unit, or None.
    """

    name: str = "value"
    unit: str | None = None

    @property
    def values(self) -> np.ndarray:
        """(H, W) float32 in `unit`, NaN = nodata; the whole map is read into memory."""
        with rasterio.Env(session=DummySession()), DatasetReader(os.fspath(self.path), driver="GTiff") as dataset:
            return dataset.read(1)

    def statistics(self) -> dict[str, Any]:
        """Measure the values; the report holds the figures of a map that was just written.

        Returns:
            As `RegressionMap.statistics`.
        """
        found = self.report.get("values") or measure_values([self.values])
        return {name: found[name] for name in ("pixels", "mean", "std", "min", "max")}

    def to_xarray(self) -> "DataArray":
        """Give the values as an `xarray.DataArray`, read into memory, see `RegressionMap.to_xarray`."""
        from prithvi_hf.outputs.objects import make_value_array

        return make_value_array(self.values, Quantity(self.name, self.unit), self.crs, self.transform)


@dataclass(eq=False, repr=False, kw_only=True)
class PredictedScene(PredictedMap):
    """A map of classes that was written, which may be larger than memory.

    Attributes:
        id2label: Class index to name.
        class_colors: `"#rrggbb"` per class, or None for default colours.
        class_values: Class index to file value where the two differ.
    """

    id2label: Mapping[int, str]
    class_colors: Sequence[str] | None = None
    class_values: Mapping[int, int] | None = None

    @property
    def mask(self) -> np.ndarray:
        """(H, W) uint8 class indices, 255 = nodata; the whole map is read into memory."""
        return self._read_classes(None)

    @property
    def probabilities(self) -> np.ndarray | None:
        """(num_labels, H, W) float32, NaN = nodata, read into memory as a whole; None where none were written."""
        if "probabilities" not in self.outputs:
            return None
        with (
            rasterio.Env(session=DummySession()),
            DatasetReader(os.fspath(self.outputs["probabilities"]), driver="GTiff") as dataset,
        ):
            values, scale = dataset.read(), np.float32(dataset.scales[0])
        return values if values.dtype == np.float32 else np.where(values == NODATA_CLASS, np.nan, values * scale)

    def class_counts(self) -> dict[str, int]:
        """Count pixels; the map is read block by block where the report does not hold the counts.

        Returns:
            Class name to number of pixels, in class order, and last "no data". Names that several classes share, or
            that are "no data", are followed by the index of the class, as in "crop (3)".
        """
        counts = self.report.get("class_pixels")
        if counts is None:
            with rasterio.Env(session=DummySession()), DatasetReader(os.fspath(self.path), driver="GTiff") as dataset:
                windows = [window for _, window in dataset.block_windows(1)]
            blocks = (np.bincount(self._read_classes(window).ravel(), minlength=256) for window in windows)
            counts = name_counts(sum(blocks, np.zeros(256, dtype=np.int64)), self.id2label)
        return dict(counts)

    def to_xarray(self, *, probabilities: bool = False) -> "DataArray":
        """Give the map, or the probabilities that were written, as an `xarray.DataArray`, read into memory.

        Arguments and errors are those of `SegmentationMap.to_xarray`.
        """
        from prithvi_hf.outputs.objects import make_data_array

        pixels = self.probabilities if probabilities else self.mask
        if pixels is None:
            raise ValueError("This map was written without probabilities: ask for them with `probabilities=True`.")
        return make_data_array(pixels, self.id2label, self.crs, self.transform)

    def to_polygons(
        self, *, polygon_classes: Sequence[int | str] | None = None, min_area: float = 0.0
    ) -> "GeoDataFrame":
        """Give the regions of each class as a `geopandas.GeoDataFrame`, made of the files.

        Columns, arguments and errors are those of `SegmentationMap.to_polygons`; `polygon_classes` may be file values.
        """
        from prithvi_hf.outputs.objects import make_geodataframe

        names = {value: self.id2label[index] for index, value in file_values(self.id2label, self.class_values).items()}
        probabilities = self.outputs.get("probabilities")
        return make_geodataframe(
            self.path, names, self.crs, probabilities=probabilities, classes=polygon_classes, min_area=min_area
        )

    def _read_classes(self, window: Window | None) -> np.ndarray:
        """Read class indices, the whole map or a window of it."""
        index_of = {value: index for index, value in file_values(self.id2label, self.class_values).items()}
        with rasterio.Env(session=DummySession()), DatasetReader(os.fspath(self.path), driver="GTiff") as dataset:
            return file_value_table(index_of)[dataset.read(1, window=window)]
