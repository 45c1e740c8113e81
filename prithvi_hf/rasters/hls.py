# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Harmonized Landsat Sentinel-2 (HLS): what file names say, and the bits of the Fmask layer.

A granule is one tile at one time by one sensor. Each of its layers is a file of its own, such as
`HLS.S30.T10SEH.2018190T185921.v2.0.B8A.tif`. The same code means different bands on the two sensors: the narrow near
infrared is B8A on S30 and B05 on L30, the two short-wave infrareds are B11 and B12, and B06 and B07.
"""

import datetime
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prithvi_hf.models.prithvi.bands_prithvi import SENSOR_BANDS, band_key


HLS_SENSORS = {"S30": "Sentinel-2 / HLS S30", "L30": "Landsat 8/9 / HLS L30"}
"""Product to the key of `SENSOR_BANDS` that its codes are read with."""

HLS_NODATA = -9999
"""What stands for no data in reflectance layers."""

HLS_SCALE = 0.0001
"""Reflectance in one digital number."""

FMASK_BITS = {"cirrus": 0, "cloud": 1, "adjacent": 2, "shadow": 3, "snow": 4, "water": 5}
"""Name to bit of the Fmask layer; "adjacent" is near clouds or their shadows, "cirrus" was set before version 2."""

FMASK_FILL = 255
"""Fmask value of pixels that were not observed."""

_NAME = re.compile(
    r"HLS\.(?P<sensor>[LS]30)\.T(?P<tile>\d{2}[A-Z]{3})\.(?P<day>\d{7})(?:T(?P<time>\d{6}))?\.v(?P<version>\d+\.\d+)"
    r"(?:\.(?P<layer>B\d{2}|B8A|Fmask|[SV][AZ]A))?(?=[._-]|$)"
)


@dataclass(frozen=True)
class HLSName:
    """What the name of an HLS file says.

    Attributes:
        sensor: "L30" (Landsat 8 and 9) or "S30" (Sentinel-2).
        tile: MGRS tile without the leading T, such as "10SEH".
        date: acquisition, UTC; midnight where the name gives no time.
        version: such as "2.0".
        layer: "B02", "Fmask", "SZA", ...; None for a file that is no single layer.
    """

    sensor: str
    tile: str
    date: datetime.datetime
    version: str
    layer: str | None = None

    @property
    def granule(self) -> str:
        """The part of the name that the files of one granule share."""
        return f"HLS.{self.sensor}.T{self.tile}.{self.date:%Y%jT%H%M%S}.v{self.version}"

    @property
    def band(self) -> str | None:
        """The layer's name among `bands_prithvi.CANONICAL_BANDS`; None for a layer that is no band."""
        return None if self.layer is None else SENSOR_BANDS[HLS_SENSORS[self.sensor]].get(band_key(self.layer))


def parse_hls_name(path: str | os.PathLike) -> HLSName | None:
    """Reads the name of an HLS file; folders before it do not count.

    Args:
        path: a path, a URL or a name; `subsetted_512x512_HLS.S30.T10SEH.2018190.v1.4_merged.tif` is one as well.

    Returns:
        What it says, None for another name.

    Raises:
        ValueError: an HLS name with a day or time that does not exist.

    Example:
        >>> parse_hls_name("HLS.L30.T10SEH.2021175T183409.v2.0.B05.tif").band
        'NIR_NARROW'
    """
    name = os.path.basename(os.fspath(path).split("?")[0])
    match = _NAME.search(re.sub(r"\.(?:tiff?|vrt)$", "", name, flags=re.IGNORECASE))
    if match is None:
        return None
    date = _date(match["day"], match["time"] or "000000", name)
    return HLSName(match["sensor"], match["tile"], date, match["version"], match["layer"])


def _date(day: str, time: str, name: str) -> datetime.datetime:
    try:
        date = datetime.datetime.strptime(day + time, "%Y%j%H%M%S").replace(tzinfo=datetime.UTC)
    except ValueError:
        date = None
    # Day 366 of a common year reads as the first of the next.
    if date is None or date.year != int(day[:4]):
        raise ValueError(
            f"{name}: expected the year, the day of the year (001 to 366) and the time in an HLS name, found "
            f"{day}T{time}. Restore the name that the file was published under."
        )
    return date


def fmask_bits(names: Sequence[str]) -> int:
    """The sum of the bits that stand for kinds of pixels.

    Args:
        names: keys of `FMASK_BITS`.

    Returns:
        A number of which each bit is one of the kinds.

    Raises:
        ValueError: another name.

    Example:
        >>> fmask_bits(["cloud", "shadow"])
        10
    """
    names = [names] if isinstance(names, str) else list(names)
    unknown = [name for name in names if name not in FMASK_BITS]
    if unknown:
        raise ValueError(f"fmask: expected some of {', '.join(FMASK_BITS)}, found {', '.join(map(repr, unknown))}.")
    return sum(1 << FMASK_BITS[name] for name in dict.fromkeys(names))


def fmask_pixels(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Finds pixels of certain kinds in an Fmask layer.

    Args:
        values: uint8 of any shape.
        names: keys of `FMASK_BITS`.

    Returns:
        bool of the same shape: True where one of the kinds is set, and where nothing was observed.

    Raises:
        ValueError: another name.
    """
    return ((values & np.uint8(fmask_bits(names))) != 0) | (values == FMASK_FILL)


__all__ = [
    "FMASK_BITS",
    "FMASK_FILL",
    "HLS_NODATA",
    "HLS_SCALE",
    "HLS_SENSORS",
    "HLSName",
    "fmask_bits",
    "fmask_pixels",
    "parse_hls_name",
]
