# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""One frame from one file, or from the files of one granule; no pixel is read."""

import datetime
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from prithvi_hf.models.prithvi.bands_prithvi import SENSOR_BANDS, find_band_names
from prithvi_hf.rasters.derived import BandStack, MaskedRaster
from prithvi_hf.rasters.geotiff_raster import GeoTiffError, GeoTiffRaster
from prithvi_hf.rasters.granules import BandFile, Granule
from prithvi_hf.rasters.hls import (
    FMASK_BITS,
    FMASK_FILL,
    HLS_NODATA,
    HLS_SCALE,
    HLS_SENSORS,
    HLSName,
    fmask_bits,
)
from prithvi_hf.rasters.radiometry import (
    SCALE_OPTIONS,
    Radiometry,
    ScaleOption,
    apply_radiometry,
    tagged_radiometry,
)
from prithvi_hf.rasters.sentinel2 import (
    BASELINE_ITEM,
    BASELINE_OFFSET,
    SENTINEL_2_NODATA,
    SENTINEL_2_SCALE,
    find_offset,
    is_product_name,
)
from prithvi_hf.rasters.warping import Grid, warp_to


_NODATA = {"HLS": HLS_NODATA, "Sentinel-2": SENTINEL_2_NODATA}


Date = datetime.datetime | datetime.date | str | None


@dataclass(frozen=True)
class FrameOptions:
    """How the frames of a scene are read; command lines and recipes use the same names.

    Attributes:
        grid: grid of the scene: "first" is that of the first frame, else a grid, or a GeoTIFF that is on it.
        resolution: side of a pixel in units of the CRS; the grid then covers the same area in such pixels.
        grid_mismatch: "warp" brings frames on other grids to that of the scene, imagery bilinearly and masks by the
            nearest pixel; "refuse" makes them an error.
        scale: what happens to scale and offset, of GeoTIFF tags and of Sentinel-2 products. "auto": numbers are
            brought to the units that the image processor takes, which mostly means that they stay as they are, and
            what cannot be told is refused; "apply": reflectance, whatever the processor takes; "ignore": numbers as in
            the files; "refuse": numbers that would have to be changed are an error.
        boa_add_offset: what has to be added to Sentinel-2 numbers before they are reflectance times 10,000; None
            for what the product's processing baseline says (-1000 since 04.00). Where nothing tells, it has to be
            given: 0 for products before 04.00 and for numbers that were corrected.
        fmask: kinds of pixels that are masked by HLS's Fmask layer: some of `hls.FMASK_BITS`.
        fmask_rule: "any": a pixel that Fmask masks in any date is nodata in the map; "all": masked dates are filled
            like other missing values, and the map is nodata where the image processor's `nodata_rule` says so, by
            default where every date is missing. Pixels that were not observed are filled by both.
        dates: when each frame was acquired, where file names do not say it: datetimes (UTC), dates or ISO texts; one
            per frame, or one for each date that a single file stacks.
        allow_remote: whether Cloud-Optimized GeoTIFFs are read from http and https addresses.
        allow_vrt: whether VRT files are read. They read other files: allow it only for those that you trust.
        on_read_error: "raise", or "nodata" to take blocks that cannot be decoded for nodata; local files whose end is
            missing are then opened as long as their directories are sound.

    Raises:
        ValueError: an option is out of its range.
    """

    grid: Grid | str | os.PathLike = "first"
    resolution: float | None = None
    grid_mismatch: Literal["warp", "refuse"] = "warp"
    scale: ScaleOption = "auto"
    boa_add_offset: float | None = None
    fmask: Sequence[str] = ()
    fmask_rule: Literal["any", "all"] = "any"
    dates: Sequence[Date] | None = None
    allow_remote: bool = False
    allow_vrt: bool = False
    on_read_error: Literal["raise", "nodata"] = "raise"

    def __post_init__(self) -> None:
        for name, choices in (
            ("grid_mismatch", ("warp", "refuse")),
            ("scale", SCALE_OPTIONS),
            ("fmask_rule", ("any", "all")),
            ("on_read_error", ("raise", "nodata")),
        ):
            if getattr(self, name) not in choices:
                found = getattr(self, name)
                raise ValueError(f"{name}: expected one of {', '.join(choices)}, found {found!r}.")
        object.__setattr__(self, "fmask", (self.fmask,) if isinstance(self.fmask, str) else tuple(self.fmask))
        fmask_bits(self.fmask)
        if self.boa_add_offset is not None and not math.isfinite(self.boa_add_offset):
            raise ValueError(
                f"boa_add_offset: expected a finite number, such as {BASELINE_OFFSET} or 0, found "
                f"{self.boa_add_offset}."
            )


def nodata_values(image_processor: Any) -> tuple[float, ...]:
    """Give an image processor's own values for nodata, none without a processor."""
    values = getattr(image_processor, "nodata_value", None)
    values = values if isinstance(values, list | tuple) else [values]
    return tuple(float(value) for value in values if value is not None)


def open_file(path: str | os.PathLike, options: FrameOptions) -> Any:
    """Opens a GeoTIFF, and what else the options allow.

    Args:
        path: a path, or an address where `allow_remote` is set.
        options: how frames are opened.

    Returns:
        The raster.

    Raises:
        GeoTiffError: the file cannot be read, or is of a kind that the options do not allow.
    """
    name = os.fspath(path)
    is_vrt = name.lower().endswith(".vrt")
    if name.startswith(("http://", "https://")) and not is_vrt:
        if not options.allow_remote:
            raise GeoTiffError(
                f"{name}: expected a local GeoTIFF file, found an address. Download the file first, or set the "
                "option allow_remote to read it where it is."
            )
        from prithvi_hf.rasters.remote import RemoteRaster

        raster = RemoteRaster(name)
    elif is_vrt:
        if not options.allow_vrt:
            raise GeoTiffError(
                f"{name}: expected a GeoTIFF file, found a VRT, which reads other files. Convert it with "
                "`gdal_translate`, or set the option allow_vrt if you trust it."
            )
        from prithvi_hf.rasters.vrt import VirtualRaster

        raster = VirtualRaster(name)
    else:
        raster = GeoTiffRaster(name, allow_missing_blocks=options.on_read_error == "nodata")
    _check_georeference(raster)
    return raster


def open_whole(raster: Any, image_processor: Any, options: FrameOptions) -> Any:
    """Takes a raster of all bands of one date, or of several, as a frame.

    Args:
        raster: an opened raster.
        image_processor: the model's image processor, or None.
        options: how frames are opened.

    Returns:
        The frame in the units of the image processor.

    Raises:
        ValueError: the image processor's bands are not in it, its units cannot be told, or `fmask` is set.
    """
    return _to_input_units(raster, _whole_radiometry(raster, options), image_processor, options)


def open_stack(
    paths: Sequence[str | os.PathLike], image_processor: Any, options: FrameOptions, grid: Grid | None = None
) -> Any:
    """Puts files of one band each, which no product name explains, together to a frame.

    Bands are called what the files describe them as, or else by the files' names.

    Args:
        paths: one file a band.
        image_processor: the model's image processor, or None.
        options: how frames are opened.
        grid: the grid of the frame; None for the finest of the files' own.

    Returns:
        The frame.

    Raises:
        ValueError: as `open_granule`.
    """
    rasters = [open_file(path, options) for path in paths]
    names = [raster.descriptions[0] or Path(raster.name).stem for raster in rasters]
    stack = _stack(
        rasters, names, Path(rasters[0].name).parent.name or rasters[0].name, None, image_processor, options, grid
    )
    radiometry = _tagged(rasters) if options.boa_add_offset is None else _by_offset(len(rasters), options)
    return _to_input_units(stack, radiometry, image_processor, options)


def open_granule(granule: Granule, image_processor: Any, options: FrameOptions, grid: Grid | None = None) -> Any:
    """Puts the files of one granule together to a frame.

    Args:
        granule: the files.
        image_processor: the model's image processor, or None.
        options: how frames are opened.
        grid: the grid of the frame; None for the finest of the files' own.

    Returns:
        The frame, its bands named by `bands_prithvi.CANONICAL_BANDS`, in the units of the image processor.

    Raises:
        ValueError: a band of the image processor has no file, the units cannot be told, `fmask` is set and there is no
            Fmask file, or the bands' grids are refused.
        GeoTiffError: a file cannot be read.
    """
    files = _choose_files(granule, image_processor, options)
    rasters = [open_file(file.path, options) for file in files]
    names = [file.name.band for file in files]
    nodata = _NODATA[granule.product]
    radiometry = _granule_radiometry(granule, files, rasters, options)
    stack = _stack(rasters, names, granule.name, nodata, image_processor, options, grid)
    values = (*nodata_values(image_processor), *(() if stack.nodata is not None else (nodata,)))
    frame = apply_radiometry(stack, radiometry, options.scale, image_processor, values)
    return _mask_by_fmask(frame, granule, options) if options.fmask else frame


def _whole_radiometry(raster: Any, options: FrameOptions) -> Radiometry:
    """What tags say of a raster of all bands; of a Sentinel-2 product without any, nothing tells what was done."""
    if options.boa_add_offset is not None:
        return _by_offset(raster.count, options)
    tagged = tagged_radiometry(raster)
    if not tagged.is_identity or options.scale == "ignore" or not getattr(raster, "path", None):
        return tagged
    item = raster.read_tag(BASELINE_ITEM) if hasattr(raster, "read_tag") else None
    if (item or is_product_name(raster.path)) and find_offset(raster.path, item) != 0:
        raise ValueError(
            f"{raster.name}: expected to know whether the radiometric offset of this Sentinel-2 product has been "
            f"applied to its bands, found no scale and offset tags that tell. Give boa_add_offset: "
            f"{BASELINE_OFFSET} for digital numbers since baseline 04.00, 0 where they were corrected; or choose "
            "scale 'ignore' for a model of such numbers as they are."
        )
    return tagged


def _by_offset(count: int, options: FrameOptions) -> Radiometry:
    """Reflectance by the offset that the user gives, of files that nothing shows to be those of a product."""
    offset = options.boa_add_offset * SENTINEL_2_SCALE
    origin = f"the option boa_add_offset and the {SENTINEL_2_SCALE:g} of Sentinel-2 numbers, which it stands for,"
    return Radiometry((SENTINEL_2_SCALE,) * count, (offset,) * count, origin, False)


def _to_input_units(raster: Any, radiometry: Radiometry, image_processor: Any, options: FrameOptions) -> Any:
    if options.fmask:
        raise ValueError(
            f"{raster.name}: expected an HLS granule with its Fmask file, for the option fmask, found other files. "
            "Give the files of the granule as they were published, or leave fmask out."
        )
    needed = None
    if image_processor is not None:
        needed = image_processor.find_bands(raster.descriptions, raster.count, raster.name)
    return apply_radiometry(raster, radiometry, options.scale, image_processor, nodata_values(image_processor), needed)


def _stack(
    rasters: Sequence[Any],
    names: Sequence[str],
    name: str,
    nodata: float | None,
    image_processor: Any,
    options: FrameOptions,
    grid: Grid | None,
) -> BandStack:
    """Bands on one grid: their own where they share one, else the one asked for, or the finest."""
    grids = [Grid.of(raster) for raster in rasters]
    if not all(grids[0].is_same_as(other) for other in grids):
        target = grid or _finest(grids, options.resolution)
        values = (*(() if nodata is None else (nodata,)), *nodata_values(image_processor))
        rasters = [warp_to(raster, target, nodata_values=values) for raster in rasters]
    return BandStack(rasters, names, name=name, nodata=nodata)


def _finest(grids: Sequence[Grid], resolution: float | None) -> Grid:
    finest = min(grids, key=lambda grid: max(grid.pixel_size))
    if resolution is None:
        return finest
    # One of the bands may be on the very grid: then it is not resampled.
    wanted = finest.with_resolution(resolution)
    return next((grid for grid in grids if grid.is_same_as(wanted)), wanted)


def _choose_files(granule: Granule, image_processor: Any, options: FrameOptions) -> list[BandFile]:
    """The file of each needed band; of all bands where no image processor says which."""
    available = _files_by_band(granule, options.resolution)
    if image_processor is None:
        if not available:
            raise ValueError(f"{granule.name}: expected files of bands, found none. Give the files of the granule.")
        return list(available.values())
    bands = image_processor.bands
    positions = find_band_names(bands, list(available))
    missing = [band for band, position in zip(bands, positions, strict=True) if position is None]
    if missing:
        raise ValueError(
            f"{granule.name}: expected a file of each of the bands {', '.join(bands)}, found files of "
            f"{', '.join(available) or 'no band'}: none for {_with_codes(missing, granule)}. Restore the missing "
            "files, or leave the granule out."
        )
    files = list(available.values())
    return [files[position] for position in positions]


def _files_by_band(granule: Granule, resolution: float | None) -> dict[str, BandFile]:
    """One file a band: in the resolution asked for where there is one, else in the finest."""

    def preference(file: BandFile) -> tuple[bool, float]:
        side = getattr(file.name, "resolution", None) or 0
        return (side != resolution, side)

    chosen: dict[str, BandFile] = {}
    for file in sorted(granule.files, key=preference):
        if file.name.band is not None:
            chosen.setdefault(file.name.band, file)
    return chosen


def _with_codes(bands: Sequence[str], granule: Granule) -> str:
    """Names of bands with the codes that their files carry, such as SWIR_2 (B12)."""
    name = granule.files[0].name
    sensor = HLS_SENSORS[name.sensor] if isinstance(name, HLSName) else "Sentinel-2 / HLS S30"
    table = {band: code.upper() for code, band in SENSOR_BANDS[sensor].items()}
    codes = {band: table.get(band) for band in bands}
    padded = {band: code and f"B{code[1:].zfill(3 if code.endswith('A') else 2)}" for band, code in codes.items()}
    return ", ".join(
        band if code is None else f"{band} ({code.replace('B08A', 'B8A')})" for band, code in padded.items()
    )


def _tagged(rasters: Sequence[Any]) -> Radiometry:
    """What the tags of one file a band say together."""
    tags = [tagged_radiometry(raster) for raster in rasters]
    scales, offsets = tuple(tag.scales[0] for tag in tags), tuple(tag.offsets[0] for tag in tags)
    return Radiometry(scales, offsets, "the scale and offset tags of its files", is_tagged=True)


def _granule_radiometry(
    granule: Granule, files: Sequence[BandFile], rasters: Sequence[Any], options: FrameOptions
) -> Radiometry:
    """How the numbers of a granule become reflectance: its tags, or else what is known of the product."""
    tagged = _tagged(rasters)
    if granule.product != "Sentinel-2" and options.boa_add_offset is not None:
        raise ValueError(
            f"{granule.name}: expected Sentinel-2 products, for the option boa_add_offset, found an HLS granule, "
            "whose numbers have no offset. Leave the option out."
        )
    if granule.product == "Sentinel-2":
        return _sentinel2_radiometry(granule, files, rasters, tagged, options)
    if not tagged.is_identity or any(np.dtype(raster.dtype).kind == "f" for raster in rasters):
        return tagged
    count = len(rasters)
    return Radiometry((HLS_SCALE,) * count, (0.0,) * count, "the definition of HLS products", False)


def _sentinel2_radiometry(
    granule: Granule,
    files: Sequence[BandFile],
    rasters: Sequence[Any],
    tagged: Radiometry,
    options: FrameOptions,
) -> Radiometry:
    if options.scale == "ignore":
        return tagged
    given = options.boa_add_offset
    found = _offset_of_granule(granule, files, rasters) if given is None else given
    if not tagged.is_identity and given is None and (any(tagged.offsets) or found == 0):
        return tagged
    if any(np.dtype(raster.dtype).kind == "f" for raster in rasters) and given is None:
        found = None
    if found is None or (not tagged.is_identity and given is None):
        raise ValueError(
            f"{granule.name}: expected to find the processing baseline of a Sentinel-2 product, found "
            f"{_unclear(tagged, found, rasters)}. Give boa_add_offset: {BASELINE_OFFSET} for digital numbers "
            "since baseline 04.00 (January 2022), 0 for older ones and for those that were corrected; or choose "
            "scale 'ignore' for a model of such numbers as they are."
        )
    count = len(rasters)
    origin = "Sentinel-2 products of this processing baseline" if given is None else "Sentinel-2 and boa_add_offset"
    return Radiometry((SENTINEL_2_SCALE,) * count, (found * SENTINEL_2_SCALE,) * count, origin, False)


def _offset_of_granule(granule: Granule, files: Sequence[BandFile], rasters: Sequence[Any]) -> int | None:
    pairs = zip(files, rasters, strict=True)
    offsets = {find_offset(file.path, raster.read_tag(BASELINE_ITEM)) for file, raster in pairs}
    if len(offsets) > 1:
        raise ValueError(
            f"{granule.name}: expected one processing baseline for all bands, found files with and without the "
            "radiometric offset. Give the files of one product, or boa_add_offset."
        )
    return offsets.pop()


def _unclear(tagged: Radiometry, found: float | None, rasters: Sequence[Any]) -> str:
    if any(np.dtype(raster.dtype).kind == "f" for raster in rasters):
        return f"pixels of {rasters[0].dtype}, which are no digital numbers"
    if found is None:
        return "none in the names of files and folders, in a metadata file, or in the files' tags"
    return (
        f"scale and offset tags {tagged.scales[0]:g} and 0 in files of a baseline with an offset: it may or may not "
        "have been applied"
    )


def _mask_by_fmask(frame: Any, granule: Granule, options: FrameOptions) -> MaskedRaster:
    file = granule.find_layer("Fmask")
    if granule.product != "HLS" or file is None:
        raise ValueError(
            f"{granule.name}: expected an Fmask file for the option fmask ({', '.join(options.fmask)} of "
            f"{', '.join(FMASK_BITS)}), found none. Restore the granule's Fmask file, or leave fmask out."
        )
    flags = warp_to(open_file(file.path, options), Grid.of(frame), "nearest", fill=FMASK_FILL)
    # Pixels that were not observed hold 255, hence every bit.
    return MaskedRaster(frame, flags, fmask_bits(options.fmask), options.fmask_rule, FMASK_FILL)


def _check_georeference(raster: Any) -> None:
    if raster.has_ground_control_points:
        raise ValueError(
            f"Expected {raster.name} to lie on a regular grid, found ground control points instead of a transform. "
            "Warp it first, for example `gdalwarp -tps IN OUT`."
        )


__all__ = ["FrameOptions", "open_file", "open_granule", "open_stack", "open_whole"]
