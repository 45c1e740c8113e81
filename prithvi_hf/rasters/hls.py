# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Harmonized Landsat Sentinel-2 (HLS): the numbers of its layers, and the bits of Fmask."""

from collections.abc import Sequence


HLS_NODATA = -9999
"""What stands for nodata in reflectance layers."""

HLS_SCALE = 0.0001
"""Reflectance in one digital number."""

FMASK_BITS = {"cirrus": 0, "cloud": 1, "adjacent": 2, "shadow": 3, "snow": 4, "water": 5}
"""Name to bit of the Fmask layer; "adjacent" is near clouds or their shadows, "cirrus" was set before version 2."""

FMASK_FILL = 255
"""Fmask value of pixels that were not observed."""


def fmask_bits(names: Sequence[str]) -> int:
    """Add up the bits of kinds of pixels, keys of `FMASK_BITS`: those of cloud and shadow are 10."""
    names = [names] if isinstance(names, str) else list(names)
    unknown = [name for name in names if name not in FMASK_BITS]
    if unknown:
        raise ValueError(f"fmask: expected some of {', '.join(FMASK_BITS)}, found {', '.join(map(repr, unknown))}.")
    return sum(1 << FMASK_BITS[name] for name in dict.fromkeys(names))
