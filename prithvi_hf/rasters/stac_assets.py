# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What a STAC item states of its assets: which of them are imagery, and names, scale, offset and nodata of bands."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prithvi_hf.models.prithvi.bands_prithvi import parse_band_description
from prithvi_hf.rasters import TIFF_SUFFIXES
from prithvi_hf.rasters.granules import StatedFile
from prithvi_hf.rasters.products import BASELINE_OFFSET, REFLECTANCE_SCALE, offset_of_baseline


_NO_DATA_ROLES = {"thumbnail", "overview", "visual", "metadata", "date"}
_UNSPECIFIC_MEDIA = ("", "application/octet-stream", "binary/octet-stream")
# Of bands, by STAC 1.0 and 1.1.
_BAND_MEMBERS = ("scale", "offset", "nodata", "name", "common_name", "raster:scale", "raster:offset", "eo:common_name")


def escape(text: str) -> str:
    """Make a text printable, and fit for JSON, whatever bytes it was read from."""
    return text.encode("utf-8", "backslashreplace").decode()


def is_band(text: str | None) -> bool:
    """Whether a text is understood as a band's name."""
    label = parse_band_description(text)
    return bool(label.code or label.plain)


def is_imagery(asset: Any) -> bool:
    """Whether an asset of an item is a GeoTIFF of data, by its media type and roles."""
    if not isinstance(asset, dict) or not isinstance(asset.get("href"), str):
        return False
    roles, media = asset.get("roles"), asset.get("type")
    if isinstance(roles, list) and any(role in _NO_DATA_ROLES for role in map(str, roles)):
        return False
    if isinstance(media, str) and media.split(";")[0].strip().lower() not in _UNSPECIFIC_MEDIA:
        return re.match(r"image/(?:[\w.+-]*geo)?tiff?\b", media.strip().lower()) is not None
    return re.split("[?#]", asset["href"])[0].lower().endswith(TIFF_SUFFIXES)


def _list_bands(asset: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """List what an asset says of each of its bands, by STAC 1.0 or 1.1; scale, offset and nodata are numbers."""
    lists = [asset[name] for name in ("eo:bands", "raster:bands", "bands") if isinstance(asset.get(name), list)]
    bands: list[dict[str, Any]] = [{} for _ in range(max(map(len, lists), default=1))]
    for index, band in enumerate(bands):
        parts = (members[index] for members in lists if index < len(members) and isinstance(members[index], dict))
        for part in (asset, *parts):
            band |= {name.rpartition(":")[2]: part[name] for name in _BAND_MEMBERS if part.get(name) is not None}
        try:
            band |= {name: float(band[name]) for name in ("scale", "offset", "nodata") if name in band}
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: expected numbers for scale, offset and nodata ({error}).") from error
        if not math.isfinite(band.get("scale", 1) + band.get("offset", 0)) or band.get("scale") == 0:
            raise ValueError(f"{where}: expected a finite scale and offset, found others. Correct the item.")
    return bands


def state_asset(
    key: str, asset: Mapping[str, Any], properties: Mapping[str, Any], path: str, origin: str
) -> str | StatedFile:
    """Take from an asset what it states of its bands: names, scale and offset, nodata.

    Args:
        key: its name in the item.
        asset: its members.
        properties: of the item; those of Sentinel-2 tell the radiometric offset, and whether it was applied.
        path: where its file is.
        origin: what messages call the item.

    Returns:
        The path itself where nothing is stated.

    Raises:
        ValueError: numbers that are none, or a scale or offset that contradicts the processing baseline.
    """
    bands, names = _list_bands(asset, f"{origin}, asset {key}"), list[str | None]()
    platform = f"{properties.get('platform')} {properties.get('constellation')}".lower()
    # The second names are those of Earth Search's first version.
    baseline = properties.get("s2:processing_baseline") or properties.get("sentinel:processing_baseline")
    applied = properties.get("earthsearch:boa_offset_applied", properties.get("sentinel:boa_offset_applied"))
    if "sentinel-2" in platform:
        baseline = baseline or properties.get("processing:version")
    offset = 0 if applied is True else offset_of_baseline(baseline if isinstance(baseline, str) else None)
    for band in bands:
        texts = (key if len(bands) == 1 else None, band.get("name"), band.get("common_name"))
        known = [text for text in texts if isinstance(text, str) and text != "rededge" and is_band(text)]
        # A word such as red says more than a code, which means other bands on other sensors.
        names.append(min(known, key=lambda text: parse_band_description(text).plain is None, default=None))
        if offset is None or band.get("scale", REFLECTANCE_SCALE) != REFLECTANCE_SCALE:
            continue  # other layers have other scales
        # The offset stands in items of Earth Search although it was applied to the pixels.
        expected = offset * REFLECTANCE_SCALE
        if applied is not True and not math.isclose(band.get("offset", expected), expected, abs_tol=1e-9):
            raise ValueError(
                f"{origin}: expected the offset {expected:g} of its processing baseline, found {band['offset']:g} in "
                f"{key}, which may have been applied to the pixels. Correct the item, or give its files with "
                f"boa_add_offset: {BASELINE_OFFSET} if not."
            )
        band |= {"scale": REFLECTANCE_SCALE, "offset": expected}
    nodata, is_stated = bands[0].get("nodata"), any("scale" in band or "offset" in band for band in bands)
    if not is_stated and nodata is None and (not any(names) or is_band(Path(path).stem)):
        return path
    scales = tuple(band.get("scale", 1.0) for band in bands) if is_stated else ()
    offsets = tuple(band.get("offset", 0.0) for band in bands) if is_stated else ()
    return StatedFile(path, tuple(name and escape(name) for name in names), scales, offsets, nodata, escape(origin))
