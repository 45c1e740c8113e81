# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Data: GeoTIFF reading, data sets of chips, and what turns their rows into training examples.

Names are imported from their modules when they are first used, so that importing the package loads no rasterio.
"""

from importlib import import_module
from typing import Any


_MODULES = {
    "CachedChips": "chip_cache",
    "ChipCacheError": "chip_cache_build",
    "DatasetStatistics": "statistics",
    "GeoTiff": "geotiff",
    "GeoTiffError": "geotiff",
    "GeoTiffRaster": "geotiff",
    "SegmentationTransform": "transforms",
    "SplitAudit": "audit",
    "audit_split": "audit",
    "cache_chips": "chip_cache_build",
    "clear_decoded_cache": "chip_cache_build",
    "collate_chips": "transforms",
    "download_dataset": "download",
    "compute_statistics": "statistics",
    "load_dataset": "load",
    "make_builder": "load",
    "write_geotiff": "geotiff",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
