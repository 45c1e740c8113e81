# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Scenes of a place and of dates from a STAC catalog: search, download, manifest; needs the extra `fetch`."""

from prithvi_hf.catalog.fetch import FetchResult, Finding, fetch_scenes, find_scenes


__all__ = ["FetchResult", "Finding", "fetch_scenes", "find_scenes"]
