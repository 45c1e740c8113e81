# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""How frames are read, and one frame from one file, or from the files of one granule; no pixel is read."""

import datetime
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from prithvi_hf.models.prithvi.bands_prithvi import (
    SENSOR_BANDS,
    SelectedBand,
    band_key,
    explain_other_nir,
    find_band_names,
    is_undescribed,
    parse_band_description,
)
from prithvi_hf.models.prithvi.pixel_values_prithvi import list_nodata
from prithvi_hf.rasters.derived import BandStack, MaskedRaster
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.granules import COPERNICUS_BROWSER, SENSORS, Granule, LayerFile, StatedFile, parse_name
from prithvi_hf.rasters.products import (
    BASELINE_ITEM,
    BASELINE_OFFSET,
    OFFSET_ITEM,
    QUALITY_LAYERS,
    REFLECTANCE_SCALE,
    UnknownUnitsError,
    check_pixel_kinds,
    find_formula,
    find_nodata,
    find_offset,
)
from prithvi_hf.rasters.radiometry import SCALE_OPTIONS, Radiometry, ScaleOption, apply_radiometry
from prithvi_hf.rasters.raster import GeoTiffError, Raster
from prithvi_hf.rasters.warping import Grid, warp_to


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor

ImageProcessor: TypeAlias = "PrithviImageProcessor | None"
Date = datetime.datetime | datetime.date | str | None

# Paths of products have one of these in them; others need not be looked at closer.
_GRANULE_FORM = re.compile(r"HLS|S2[A-D]_|T\d\d[A-Z]{3}|L[COTE]0\d_|Sentinel-2")


@dataclass(frozen=True)
class FrameOptions:
    """How the frames of a scene are read; command lines and recipes use the same names.

    Attributes:
        grid: grid of the scene: "first" is that of the first frame, else a grid, or a GeoTIFF that is on it.
        resolution: side of a pixel in units of the CRS; the grid then covers the same area in such pixels.
        grid_mismatch: "warp" brings frames on other grids to that of the scene, imagery bilinearly and masks by the
            nearest pixel; "refuse" makes them an error.
        scale: what happens to scale and offset, of GeoTIFF tags, STAC items and products (HLS, Sentinel-2, Landsat).
            "auto": numbers are brought to the units that the image processor takes, which mostly means that they stay
            as they are, and what cannot be told is refused; "apply": reflectance, whatever the processor takes;
            "ignore": numbers as in the files; "refuse": numbers that would have to be changed are an error.
        boa_add_offset: what has to be added to Sentinel-2 numbers before they are reflectance times 10,000; None
            for what the product's processing baseline says (-1000 since 04.00). Where nothing tells, it has to be
            given: 0 for products before 04.00 and for numbers that were corrected.
        rescale_factor: what the image processor multiplies numbers by, in place of its own factor. It is meant for
            numbers as in the files, so "auto" becomes "ignore" then.
        rescale_offset: what the image processor adds after that, in place of its own offset.
        fmask: kinds of pixels that are masked by the quality layer of a granule, which is Fmask of HLS, SCL of
            Sentinel-2 and QA_PIXEL of Landsat: some of `products.PIXEL_KINDS`.
        fmask_rule: "any": a pixel that is masked so in any date is nodata in the map; "all": masked dates are filled
            like other missing values, and the map is nodata where the image processor's `nodata_rule` says so, by
            default where every date is missing. Pixels that were not observed are filled by both.
        band_indices: 0-based positions of the model's bands in a file; this and the next two override what files say
            and the image processor's own options of the same names.
        band_map: which band of a file to use for some bands of the model, `{"NIR_NARROW": "B08"}`: a description, a
            code or a 0-based position.
        band_names: names of all bands of a file, in its order.
        dates: when each frame was acquired, where file names do not say it: datetimes (UTC), dates or ISO texts; one
            per frame, or one for each date that a single file stacks.
        location: latitude and longitude of the centre in degrees (WGS 84), for a model that takes places and a scene
            without a CRS.
        allow_remote: whether Cloud-Optimized GeoTIFFs are read from http and https addresses.
        allow_vrt: whether VRT files are read. They read other files: allow it only for those that you trust.
        on_read_error: "raise", or "nodata" to take blocks that cannot be decoded for nodata; local files whose end is
            missing are then opened as long as their directories are sound.
        verify: whether the checksums of deflate blocks are tested first: it finds damage that GDAL does not notice.
            Files are read twice; blocks that fail count as unreadable.

    Raises:
        ValueError: an option is out of its range.
    """

    grid: Grid | str | os.PathLike = "first"
    resolution: float | None = None
    grid_mismatch: Literal["warp", "refuse"] = "warp"
    scale: ScaleOption = "auto"
    boa_add_offset: float | None = None
    rescale_factor: float | None = None
    rescale_offset: float | None = None
    fmask: Sequence[str] = ()
    fmask_rule: Literal["any", "all"] = "any"
    band_indices: Sequence[int] | None = None
    band_map: Mapping[str, str | int] | Sequence[str] | None = None
    band_names: Sequence[str] | None = None
    dates: Sequence[Date] | None = None
    location: Sequence[float] | None = None
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
            check_pixel_kinds(self.fmask)
        if self.boa_add_offset is not None and not math.isfinite(self.boa_add_offset):
            raise ValueError(
                f"boa_add_offset: expected a finite number, such as {BASELINE_OFFSET} or 0, found "
                f"{self.boa_add_offset}."
            )
        if self.rescale_factor is not None or self.rescale_offset is not None:
            if self.boa_add_offset is not None:
                raise ValueError(
                    "boa_add_offset: expected no rescale_factor and rescale_offset beside it, which are for numbers "
                    "as in the files. Leave one out."
                )
            object.__setattr__(self, "scale", "ignore" if self.scale == "auto" else self.scale)

    def adapt(self, image_processor: "PrithviImageProcessor") -> "PrithviImageProcessor":
        """Give an image processor with those of its options that are given here."""
        names = ("band_indices", "band_map", "band_names", "rescale_factor", "rescale_offset")
        return image_processor.with_options(**{name: getattr(self, name) for name in names})


def nodata_values(image_processor: ImageProcessor) -> tuple[float, ...]:
    """Give an image processor's own values for nodata, none without a processor."""
    return list_nodata(None, None if image_processor is None else image_processor.nodata_value)


def parse_granule_name(path: str | os.PathLike) -> LayerFile | None:
    """Read the name of a file of HLS, Sentinel-2 or Landsat, see `parse_name`; None for another name."""
    return parse_name(path) if _GRANULE_FORM.search(os.fspath(path)) else None


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
    if isinstance(path, StatedFile):
        _take_statement(raster, path)
    return raster


def check_frame(raster: Raster, options: FrameOptions) -> Raster:
    """Refuse a raster that is not on a regular grid, and check its blocks where the options ask for that."""
    if raster.irregular:
        raise ValueError(f"Expected {raster.name} to be on a regular grid, found {raster.irregular}")
    if options.verify:
        raster.verify()
    return raster


def _take_statement(raster: Raster, file: StatedFile) -> None:
    """Add what a catalogue states of a file to its tags, which have to agree."""
    count = len(file.scales)
    if count not in (0, raster.count):
        raise ValueError(
            f"{file}: expected {count} bands, as {file.origin} states, found {raster.count}. Correct the item."
        )
    tagged, stated = Radiometry.from_tags(raster), Radiometry(file.scales, file.offsets, file.origin, is_tagged=True)
    if count and not stated.is_identity:
        if not tagged.is_identity:
            tagged.check_agreement(stated, file.path)
        raster.set_tags(stated.scales, stated.offsets, file.origin)
    if len(file.names) == raster.count and is_undescribed(raster.descriptions):
        raster.set_descriptions(file.names)
    raster.nodata = file.nodata if raster.nodata is None else raster.nodata


def open_whole(raster: Raster, image_processor: ImageProcessor, options: FrameOptions) -> Raster:
    """Take a raster of all bands of one date, or of several, as a frame in the units of the image processor.

    Raises:
        ValueError: the image processor's bands are not in it, its units cannot be told, or `fmask` is set.
    """
    sources, files = raster.files[1:], [parse_granule_name(raster.path) if raster.path else None] * raster.count
    if len(sources) == raster.count > 1 and not getattr(raster, "changes_numbers", True):
        files = [parse_granule_name(path) for path in sources]  # a VRT of one file per band
    elif not any(files) and isinstance(raster, GeoTiffRaster) and raster.path and options.scale != "ignore":
        item = raster.read_tag(BASELINE_ITEM)
        if item or (raster.dtype == "uint16" and find_offset(raster.path) is not None):
            files = [LayerFile(raster.path, "Sentinel-2", "MSI")] * raster.count
    files = [_name_landsat_layer(file, text, raster) for file, text in zip(files, raster.descriptions, strict=True)]
    return _bring_to_units(raster, [raster] * raster.count, files, image_processor, options)


def _name_landsat_layer(file: LayerFile | None, text: str | None, raster: Raster) -> LayerFile | None:
    """Take a band called `SR_B4` or the like in uint16 for one of Landsat Collection 2, whatever else its name says.

    Only Landsat's Level 2 is called so, in Earth Engine and AppEEARS too; floats of that name may be anything.
    """
    found = re.search(r"(?<![a-z0-9])s[rt]_b\d{1,2}(?!\d)", text or "", re.IGNORECASE)
    if found is None or raster.dtype != "uint16" or (file and file.product != "Landsat"):
        return file
    return replace(file or LayerFile("", "Landsat", "LC08"), layer=found[0].upper())


def open_stack(
    paths: Sequence[str | os.PathLike],
    image_processor: ImageProcessor,
    options: FrameOptions,
    grid: Grid | None = None,
) -> Raster:
    """Put files of one band each, which no product name explains, together to a frame; see `open_granule`.

    Bands are called what the files describe them as, or else by the files' names. Codes that only Sentinel-2 has, in
    the type of its numbers or beside its metadata, are taken for such a product.
    """
    rasters = [open_file(path, options) for path in paths]
    names = [raster.descriptions[0] or Path(raster.name).stem for raster in rasters]
    name = Path(rasters[0].name).parent.name or rasters[0].name
    labels = [parse_band_description(text) for text in names]
    is_sentinel2 = all(label.code for label in labels) and (
        any(find_offset(path) is not None for path in paths)
        or ({"b8a", "b12"} & {label.code for label in labels} and {raster.dtype for raster in rasters} == {"uint16"})
    )
    files = [
        parse_granule_name(path) or (LayerFile(path, "Sentinel-2", "MSI", layer=label.code) if is_sentinel2 else None)
        for path, label in zip(paths, labels, strict=True)
    ]
    files = [_name_landsat_layer(*band) for band in zip(files, names, rasters, strict=True)]
    stack = _stack(rasters, names, name, find_nodata(files), image_processor, options, grid)
    return _bring_to_units(stack, rasters, files, image_processor, options)


def open_granule(
    granule: Granule, image_processor: ImageProcessor, options: FrameOptions, grid: Grid | None = None
) -> Raster:
    """Put the files of one granule together to a frame.

    Its bands are named by `bands_prithvi.CANONICAL_BANDS`, in the units of the image processor, on `grid`, or the
    finest of the files' own.
    """
    files = choose_files(granule, image_processor, options)
    rasters = [open_file(file.path, options) for file in files]
    kind = str if image_processor is None else SelectedBand
    names = [kind(file.band) for file in files]
    stack = _stack(rasters, names, granule.name, find_nodata(files), image_processor, options, grid)
    radiometry = _find_radiometry(stack, rasters, files, options)
    frame = apply_radiometry(stack, radiometry, options.scale, image_processor, nodata_values(image_processor))
    if not options.fmask:
        return frame
    quality = QUALITY_LAYERS[granule.product]
    files = [file for file in granule.files if file.layer == quality.layer]
    # Of Sentinel-2 there may be one in each resolution.
    found = min(files, key=lambda file: file.resolution or 0, default=None)
    if found is None:
        raise ValueError(
            f"{granule.name}: expected a file of the layer {quality.layer} for the option fmask "
            f"({', '.join(options.fmask)}), found none. Restore that file of the granule, or leave fmask out."
        )
    flags = warp_to(open_file(found.path, options), Grid.of(frame), "nearest", fill=quality.fill)
    return MaskedRaster(frame, flags, quality.find_flags(options.fmask), options.fmask_rule, quality.fill)


def _bring_to_units(
    frame: Raster,
    rasters: Sequence[Raster],
    files: Sequence[LayerFile | None],
    image_processor: ImageProcessor,
    options: FrameOptions,
) -> Raster:
    """Bring a frame that is not a granule to the units of the image processor, whose bands it has to have."""
    if options.fmask:
        raise ValueError(
            f"{frame.name}: expected a granule of HLS, Sentinel-2 or Landsat with its quality layer "
            f"({', '.join(one.layer for one in QUALITY_LAYERS.values())}), for the option fmask, found other files. "
            "Give the files of the granule as they were published, or leave fmask out."
        )
    needed = None
    if image_processor is not None:
        needed = image_processor.find_bands(frame.descriptions, frame.count, frame.name)
    is_plain = all(set(raster.scales) <= {1.0} and not any(raster.offsets) for raster in rasters)
    if is_plain and not any(files) and options.boa_add_offset is None:
        return frame  # nothing tells of other units
    radiometry = _find_radiometry(frame, rasters, files, options, needed)
    return apply_radiometry(frame, radiometry, options.scale, image_processor, nodata_values(image_processor), needed)


def _find_radiometry(
    frame: Raster,
    rasters: Sequence[Raster],
    files: Sequence[LayerFile | None],
    options: FrameOptions,
    needed: Sequence[int] | None = None,
) -> Radiometry:
    """Find how numbers become reflectance: by the offset given, or by products and tags, which have to agree.

    `rasters` and `files` are the file of each band of the frame, and what its name says; `needed` are the bands that
    are used, None for all.
    """
    tagged = Radiometry.from_tags(*dict.fromkeys(rasters))
    products = sorted({file.product for file in files if file is not None})
    product = products[0] if products else ""
    if options.boa_add_offset is not None and product not in ("", "Sentinel-2"):
        raise ValueError(
            f"{frame.name}: expected Sentinel-2 products, for the option boa_add_offset, found {product} files, whose "
            "numbers have no such offset. Leave the option out."
        )
    if options.scale == "ignore":
        return tagged
    if options.boa_add_offset is not None:
        origin = f"the option boa_add_offset and the {REFLECTANCE_SCALE:g} of Sentinel-2 numbers"
        return Radiometry.same_for_all(frame.count, REFLECTANCE_SCALE, options.boa_add_offset, origin)
    remedy = "Give rescale_factor and rescale_offset, which bring numbers to the units of image_mean"
    if product == "Sentinel-2" and not any(file and file.level == COPERNICUS_BROWSER for file in files):
        remedy = (
            f"Give boa_add_offset: {BASELINE_OFFSET} for digital numbers since baseline 04.00 (January 2022), 0 for "
            "older ones and for those that were corrected"
        )
    remedy += "; or choose scale 'ignore' for a model of such numbers as they are."
    used = range(frame.count) if needed is None else needed
    try:
        known = _take_formulas(rasters, files, used)
    except UnknownUnitsError as error:
        if any(tagged.offsets) or tagged.is_stated:
            return tagged
        raise ValueError(
            f"{frame.name}: expected to know how the numbers of a {product} product become reflectance, found "
            f"{error}. {remedy}"
        ) from error
    if known is None or tagged.is_identity:
        return known or tagged
    tagged.check_agreement(known, frame.name, used, remedy)
    return replace(tagged, nodata=known.nodata)


def _take_formulas(
    rasters: Sequence[Raster], files: Sequence[LayerFile | None], used: Sequence[int]
) -> Radiometry | None:
    """Take the formula of each used band from its product; None where one has none, an error where it is not told."""
    formulas: dict[int, tuple[float, float]] = {}
    for band in used:
        file, raster, items = files[band], rasters[band], list[str | None]()
        if file is not None and file.product == "Sentinel-2" and isinstance(raster, GeoTiffRaster):
            items = [raster.read_tag(BASELINE_ITEM), raster.read_tag(OFFSET_ITEM)]
        formula = None if file is None else find_formula(file, raster.dtype, *items)
        if file is None or formula is None:
            return None
        formulas[band] = formula
        if file.product == "Sentinel-2" and len(set(formulas.values())) > 1:
            raise UnknownUnitsError("files with and without the radiometric offset, of several products")
    scales, offsets = zip(*(formulas.get(band, (1.0, 0.0)) for band in range(len(files))), strict=True)
    origin = f"the definition of {file.product} products" if file else ""
    if file and not file.path:
        origin = "band names SR_B... in uint16, those of Landsat Collection 2 Level 2,"
    return Radiometry(scales, offsets, origin, is_tagged=False, nodata=find_nodata(files))


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
        values = list_nodata(nodata, nodata_values(image_processor))
        rasters = [warp_to(raster, grid, nodata_values=values) for raster in rasters]
    return BandStack(rasters, names, name=name, nodata=nodata)


def choose_files(granule: Granule, image_processor: ImageProcessor, options: FrameOptions) -> list[LayerFile]:
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
    given = {band_key(band): place for band, place in (image_processor.band_map or {}).items()}
    # What stands for a band may be named by the layer, `B08`.
    layers = {band_key(file.layer or ""): band for band, file in available.items()}
    wanted = [str(given.get(band_key(band), band)) for band in bands]
    positions = find_band_names([layers.get(band_key(band), band) for band in wanted], list(available))
    missing = [band for band, position in zip(bands, positions, strict=True) if position is None]
    if missing:
        codes = {band: code.upper() for code, band in SENSOR_BANDS[SENSORS[granule.files[0].sensor]].items()}
        named = []  # such as SWIR_2 (B12), by the codes that file names carry
        for band in missing:
            code = codes.get(band, "")[1:]
            named.append(f"{band} (B{code if code == '8A' else code.zfill(2)})" if code else band)
        raise ValueError(
            f"{granule.name}: expected a file of each of the bands {', '.join(bands)}, found files of "
            f"{', '.join(available) or 'no band'}: none for {', '.join(named)}."
            f"{explain_other_nir(missing, list(available), SENSORS[granule.files[0].sensor])} Restore the missing "
            "files, or leave the granule out."
        )
    return [files[position] for position in positions if position is not None]
