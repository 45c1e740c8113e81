# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Pixels from files: GeoTIFFs, granules, warped and derived rasters."""

TIFF_SUFFIXES = (".tif", ".tiff")
"""Endings of the names of GeoTIFFs, in small letters or capitals."""
