# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""How frames are read, and one frame from one file, or from the files of one granule; no pixel is read."""

import datetime
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from prithvi_hf.models.prithvi.bands_prithvi import SENSOR_BANDS, find_band_names
from prithvi_hf.rasters.derived import BandStack, MaskedRaster
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.granules import PRODUCT_NAME, SENSORS, Granule, LayerFile
from prithvi_hf.rasters.hls import FMASK_BITS, FMASK_FILL, HLS_NODATA, HLS_SCALE, fmask_bits
from prithvi_hf.rasters.radiometry import SCALE_OPTIONS, Radiometry, ScaleOption, apply_radiometry
from prithvi_hf.rasters.raster import GeoTiffError, Raster
from prithvi_hf.rasters.sentinel2 import (
    BASELINE_ITEM,
    BASELINE_OFFSET,
    SENTINEL_2_NODATA,
    SENTINEL_2_SCALE,
    find_offset,
)
from prithvi_hf.rasters.warping import Grid, warp_to


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor

ImageProcessor: TypeAlias = "PrithviImageProcessor | None"
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
        verify: whether each block is checked against its own checksum first, which deflate alone has: it finds damage
            that GDAL decodes unnoticed. Files are read twice; blocks that do not fit count as unreadable.

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
    verify: bool = False

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
        if self.fmask:
            fmask_bits(self.fmask)
        if self.boa_add_offset is not None and not math.isfinite(self.boa_add_offset):
            raise ValueError(
                f"boa_add_offset: expected a finite number, such as {BASELINE_OFFSET} or 0, found "
                f"{self.boa_add_offset}."
            )


def nodata_values(image_processor: ImageProcessor) -> tuple[float, ...]:
    """Give an image processor's own values for nodata, none without a processor."""
    values = None if image_processor is None else image_processor.nodata_value
    if values is None:
        return ()
    return tuple(map(float, values)) if isinstance(values, list | tuple) else (float(values),)


def open_file(path: str | os.PathLike, options: FrameOptions) -> GeoTiffRaster:
    """Open a GeoTIFF, and what else the options allow: an address, a VRT."""
    name = os.fspath(path)
    is_vrt = name.lower().endswith(".vrt")
    raster: GeoTiffRaster
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
    check_frame(raster, options)
    return raster


def check_frame(raster: Raster, options: FrameOptions) -> Raster:
    """Refuse a raster that is not on a regular grid, and check its blocks where the options ask for that."""
    if raster.irregular:
        raise ValueError(f"Expected {raster.name} to be on a regular grid, found {raster.irregular}")
    if options.verify:
        raster.verify()
    return raster


def open_whole(raster: Raster, image_processor: ImageProcessor, options: FrameOptions) -> Raster:
    """Take a raster of all bands of one date, or of several, as a frame in the units of the image processor.

    Raises:
        ValueError: the image processor's bands are not in it, its units cannot be told, or `fmask` is set.
    """
    radiometry = None
    if options.boa_add_offset is not None:
        radiometry = _use_given_offset(raster.count, options.boa_add_offset)
    elif any(raster.offsets) or {*raster.scales} != {1.0}:
        radiometry = Radiometry.from_tags(raster)
    elif options.scale != "ignore" and isinstance(raster, GeoTiffRaster) and raster.path:
        # Of a Sentinel-2 product without tags nothing tells what was done to its numbers.
        item = raster.read_tag(BASELINE_ITEM)
        is_product = item or re.search(PRODUCT_NAME, os.path.basename(raster.path))
        if is_product and find_offset(raster.path, item) != 0:
            raise ValueError(
                f"{raster.name}: expected to know whether the radiometric offset of this Sentinel-2 product has been "
                f"applied to its bands, found no scale and offset tags that tell. Give boa_add_offset: "
                f"{BASELINE_OFFSET} for digital numbers since baseline 04.00, 0 where they were corrected; or choose "
                "scale 'ignore' for a model of such numbers as they are."
            )
    return _bring_to_units(raster, radiometry, image_processor, options)


def open_stack(
    paths: Sequence[str | os.PathLike],
    image_processor: ImageProcessor,
    options: FrameOptions,
    grid: Grid | None = None,
) -> Raster:
    """Put files of one band each, which no product name explains, together to a frame; see `open_granule`.

    Bands are called what the files describe them as, or else by the files' names.
    """
    rasters = [open_file(path, options) for path in paths]
    names = [raster.descriptions[0] or Path(raster.name).stem for raster in rasters]
    name = Path(rasters[0].name).parent.name or rasters[0].name
    stack = _stack(rasters, names, name, None, image_processor, options, grid)
    radiometry = Radiometry.from_tags(*rasters)
    if options.boa_add_offset is not None:
        radiometry = _use_given_offset(len(rasters), options.boa_add_offset)
    return _bring_to_units(stack, radiometry, image_processor, options)


def open_granule(
    granule: Granule, image_processor: ImageProcessor, options: FrameOptions, grid: Grid | None = None
) -> Raster:
    """Put the files of one granule together to a frame.

    Its bands are named by `bands_prithvi.CANONICAL_BANDS`, in the units of the image processor, on `grid`, or the
    finest of the files' own.
    """
    files = _choose_files(granule, image_processor, options)
    rasters = [open_file(file.path, options) for file in files]
    names = [str(file.band) for file in files]
    if granule.product == "Sentinel-2":
        nodata, radiometry = SENTINEL_2_NODATA, _find_sentinel2_radiometry(granule, files, rasters, options)
    else:
        nodata, radiometry = HLS_NODATA, Radiometry.from_tags(*rasters)
        if options.boa_add_offset is not None:
            raise ValueError(
                f"{granule.name}: expected Sentinel-2 products, for the option boa_add_offset, found an HLS granule, "
                "whose numbers have no offset. Leave the option out."
            )
        if radiometry.is_identity and not _has_floats(rasters):
            radiometry = Radiometry.same_for_all(len(rasters), HLS_SCALE, 0.0, "the definition of HLS products")
    stack = _stack(rasters, names, granule.name, nodata, image_processor, options, grid)
    values = (*nodata_values(image_processor), *(() if stack.nodata is not None else (nodata,)))
    frame = apply_radiometry(stack, radiometry, options.scale, image_processor, values)
    if not options.fmask:
        return frame
    fmask = next((file for file in granule.files if file.layer == "Fmask"), None)
    if fmask is None:
        raise ValueError(
            f"{granule.name}: expected an Fmask file for the option fmask ({', '.join(options.fmask)} of "
            f"{', '.join(FMASK_BITS)}), found none. Restore the granule's Fmask file, or leave fmask out."
        )
    flags = warp_to(open_file(fmask.path, options), Grid.of(frame), "nearest", fill=FMASK_FILL)
    # Pixels that were not observed hold 255, hence every bit.
    return MaskedRaster(frame, flags, fmask_bits(options.fmask), options.fmask_rule, FMASK_FILL)


def _use_given_offset(count: int, offset: float) -> Radiometry:
    """Make reflectance by the offset that the user gives, of files that nothing shows to be those of a product."""
    origin = f"the option boa_add_offset and the {SENTINEL_2_SCALE:g} of Sentinel-2 numbers, which it stands for,"
    return Radiometry.same_for_all(count, SENTINEL_2_SCALE, offset, origin)


def _has_floats(rasters: Sequence[Raster]) -> bool:
    return any(np.dtype(raster.dtype).kind == "f" for raster in rasters)


def _bring_to_units(
    raster: Raster, radiometry: Radiometry | None, image_processor: ImageProcessor, options: FrameOptions
) -> Raster:
    """Bring a frame that is not a granule to the units of the image processor, whose bands it has to have."""
    if options.fmask:
        raise ValueError(
            f"{raster.name}: expected an HLS granule with its Fmask file, for the option fmask, found other files. "
            "Give the files of the granule as they were published, or leave fmask out."
        )
    needed = None
    if image_processor is not None:
        needed = image_processor.find_bands(raster.descriptions, raster.count, raster.name)
    if radiometry is None:
        return raster
    values = nodata_values(image_processor)
    return apply_radiometry(raster, radiometry, options.scale, image_processor, values, needed)


def _stack(
    rasters: Sequence[Raster],
    names: Sequence[str],
    name: str,
    nodata: float | None,
    image_processor: ImageProcessor,
    options: FrameOptions,
    grid: Grid | None,
) -> BandStack:
    """Put bands on one grid: their own where they share one, else the one asked for, or the finest."""
    grids = [Grid.of(raster) for raster in rasters]
    if not all(grids[0].is_same_as(other) for other in grids):
        finest = min(grids, key=lambda one: max(one.pixel_size))
        if grid is None:
            grid = finest if options.resolution is None else finest.with_resolution(options.resolution)
            # One of the bands may be on the very grid: then it is not resampled.
            grid = next((one for one in grids if one.is_same_as(grid)), grid)
        values = (*(() if nodata is None else (nodata,)), *nodata_values(image_processor))
        rasters = [warp_to(raster, grid, nodata_values=values) for raster in rasters]
    return BandStack(rasters, names, name=name, nodata=nodata)


def _choose_files(granule: Granule, image_processor: ImageProcessor, options: FrameOptions) -> list[LayerFile]:
    """Choose the file of each needed band; of all bands where no image processor says which."""
    # One file per band: in the resolution asked for where there is one, else in the finest.
    available: dict[str, LayerFile] = {}
    for file in sorted(granule.files, key=lambda file: (file.resolution != options.resolution, file.resolution or 0)):
        if file.band is not None:
            available.setdefault(file.band, file)
    files = list(available.values())
    if image_processor is None:
        if not files:
            raise ValueError(f"{granule.name}: expected files of bands, found none. Give the files of the granule.")
        return files
    bands = image_processor.bands
    positions = find_band_names(bands, list(available))
    missing = [band for band, position in zip(bands, positions, strict=True) if position is None]
    if missing:
        codes = {band: code.upper() for code, band in SENSOR_BANDS[SENSORS[granule.files[0].sensor]].items()}
        named = []  # such as SWIR_2 (B12), by the codes that file names carry
        for band in missing:
            code = codes.get(band, "")[1:]
            named.append(f"{band} (B{code if code == '8A' else code.zfill(2)})" if code else band)
        raise ValueError(
            f"{granule.name}: expected a file of each of the bands {', '.join(bands)}, found files of "
            f"{', '.join(available) or 'no band'}: none for {', '.join(named)}. Restore the missing files, or leave "
            "the granule out."
        )
    return [files[position] for position in positions if position is not None]


def _find_sentinel2_radiometry(
    granule: Granule, files: Sequence[LayerFile], rasters: Sequence[GeoTiffRaster], options: FrameOptions
) -> Radiometry:
    """Find how the numbers of a product become reflectance: by its tags, its baseline, or the offset given."""
    tagged, count, given = Radiometry.from_tags(*rasters), len(rasters), options.boa_add_offset
    if options.scale == "ignore":
        return tagged
    if given is not None:
        return Radiometry.same_for_all(count, SENTINEL_2_SCALE, given, "Sentinel-2 and boa_add_offset")
    pairs = zip(files, rasters, strict=True)
    offsets = {find_offset(file.path, raster.read_tag(BASELINE_ITEM)) for file, raster in pairs}
    if len(offsets) > 1:
        raise ValueError(
            f"{granule.name}: expected one processing baseline for all bands, found files with and without the "
            "radiometric offset. Give the files of one product, or boa_add_offset."
        )
    offset = offsets.pop()
    if not tagged.is_identity and (any(tagged.offsets) or offset == 0):
        return tagged
    if _has_floats(rasters):
        found = f"pixels of {rasters[0].dtype}, which are not digital numbers"
    elif offset is None:
        found = "none in the names of files and folders, in a metadata file, or in the files' tags"
    elif not tagged.is_identity:
        found = (
            f"scale and offset tags {tagged.scales[0]:g} and 0 in files of a baseline with an offset: it may or may "
            "not have been applied"
        )
    else:
        origin = "Sentinel-2 products of this processing baseline"
        return Radiometry.same_for_all(count, SENTINEL_2_SCALE, offset, origin)
    raise ValueError(
        f"{granule.name}: expected to find the processing baseline of a Sentinel-2 product, found {found}. Give "
        f"boa_add_offset: {BASELINE_OFFSET} for digital numbers since baseline 04.00 (January 2022), 0 for older ones "
        "and for those that were corrected; or choose scale 'ignore' for a model of such numbers as they are."
    )
