# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Data: GeoTIFF reading, datasets of chips, and what turns their rows into training examples.

Names are imported from their modules when they are first used, so that importing the package loads no rasterio.
"""

from importlib import import_module
from typing import Any


_MODULES = {
    "CachedChips": "prithvi_hf.data.chip_cache",
    "ChipCacheError": "prithvi_hf.data.chip_cache",
    "ChipOptions": "prithvi_hf.data.chip_layout",
    "ClassificationTransform": "prithvi_hf.data.transforms",
    "DatasetStatistics": "prithvi_hf.data.statistics",
    "GeoTiff": "prithvi_hf.data.geotiff",
    "GeoTiffError": "prithvi_hf.rasters.raster",
    "GeoTiffRaster": "prithvi_hf.rasters.geotiff_raster",
    "LabelOptions": "prithvi_hf.data.vector_labels",
    "RadiometricJitter": "prithvi_hf.data.augmentations",
    "SegmentationTransform": "prithvi_hf.data.transforms",
    "SplitAudit": "prithvi_hf.data.audit",
    "TrainingCrops": "prithvi_hf.data.transforms",
    "audit_split": "prithvi_hf.data.audit",
    "cache_chips": "prithvi_hf.data.chip_cache",
    "clear_decoded_cache": "prithvi_hf.data.chip_cache",
    "collate_chips": "prithvi_hf.data.transforms",
    "count_class_pixels": "prithvi_hf.data.augmentations",
    "download_dataset": "prithvi_hf.data.builders.download",
    "compute_statistics": "prithvi_hf.data.statistics",
    "load_dataset": "prithvi_hf.data.load",
    "make_builder": "prithvi_hf.data.load",
    "rasterize_labels": "prithvi_hf.data.vector_labels",
    "write_geotiff": "prithvi_hf.rasters.write_geotiff",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
