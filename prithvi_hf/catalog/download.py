# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""One file of a catalog: the window of a place, or the whole file, checked and written as a local GeoTIFF."""

import datetime
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.transform
from rasterio.io import DatasetWriter
from rasterio.warp import transform_bounds

from prithvi_hf.catalog.access import hide_secrets
from prithvi_hf.catalog.manifest import find_multihash, hash_file
from prithvi_hf.catalog.search import AssetFile, Box, CatalogItem
from prithvi_hf.outputs.cog import BLOCK_SIZE, Layer, complete_or_absent, write_geotiff
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.products import OFFSET_ITEM, REFLECTANCE_SCALE, find_offset
from prithvi_hf.rasters.raster import GDAL_ERRORS, GeoTiffError, Window
from prithvi_hf.rasters.remote import Access, NoRangesError, RemoteRaster, download
from prithvi_hf.rasters.warping import Grid


_SNAP_METRES = 60  # windows of bands with pixels of 10, 20, 30 and 60 m then have the same edges
_READ_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Job:
    """A file that is to be fetched.

    Attributes:
        item, file: what it is.
        path: where it goes, in the folder of the fetch.
        access: what is sent for its address.
    """

    item: CatalogItem
    file: AssetFile
    path: str
    access: Access


class OutsideError(Exception):
    """The file has no pixel in the box, although the item's footprint meets it."""


def find_window(grid: Grid, boxes: Sequence[Box], name: str) -> Window | None:
    """Find the pixels of a grid that are in a box, with edges at multiples of 60 m from the grid's own.

    Args:
        grid: of a file.
        boxes: one box, or two on both sides of the antimeridian.
        name: what messages call the file.

    Returns:
        The window; None where the box is elsewhere.

    Raises:
        GeoTiffError: a file without CRS, or with one that has no places on Earth.
    """
    if grid.crs is None:
        raise GeoTiffError(f"{name}: expected a file with a CRS, found none. Choose another collection.")
    rows: list[float] = []
    columns: list[float] = []
    for box in boxes:
        try:
            left, bottom, right, top = transform_bounds("EPSG:4326", grid.crs, *box)
        except GDAL_ERRORS as error:
            raise GeoTiffError(f"{name}: expected a CRS with places on Earth, found {grid.crs} ({error}).") from error
        if not all(map(math.isfinite, (left, bottom, right, top))):
            return (0, 0, *grid.size)  # a box far larger than the CRS is made for
        found = rasterio.transform.rowcol(
            grid.transform, [left, left, right, right], [bottom, top, bottom, top], op=np.asarray
        )
        # A little of a pixel is rounding.
        low, high = [math.floor(min(one) + 1e-6) for one in found], [math.ceil(max(one) - 1e-6) for one in found]
        if low[0] < grid.height and low[1] < grid.width and high[0] > 0 and high[1] > 0:
            rows += [low[0], high[0]]
            columns += [low[1], high[1]]
    if not rows:
        return None
    edges = []
    for numbers, size, side in ((rows, grid.height, grid.pixel_size[0]), (columns, grid.width, grid.pixel_size[1])):
        step = 1 if grid.crs.is_geographic else max(1, round(_SNAP_METRES / side))
        first, end = math.floor(min(numbers) / step) * step, math.ceil(max(numbers) / step) * step
        edges += [max(0, first), min(size, end)]
    return edges[0], edges[2], edges[1] - edges[0], edges[3] - edges[2]


def fetch_file(
    job: Job, folder: Path, boxes: Sequence[Box], whole: bool, tool: str, on_bytes: Callable[[int], object]
) -> dict[str, Any]:
    """Fetch one file: its pixels in a box, or all its bytes.

    A server that gives no parts of files is asked for the whole file, of which the pixels in the box are kept.

    Args:
        job: the file.
        folder: of the fetch.
        boxes: the place.
        whole: whether the file is kept as it is, and not the pixels in the box.
        tool: name and version of this program, for the file.
        on_bytes: is told how many bytes were written.

    Returns:
        What the manifest notes of the file.

    Raises:
        GeoTiffError: the file cannot be read, or is not what the catalog says it is.
        OutsideError: it has no pixel in the box.
        OSError: it cannot be written.
    """
    address, target = job.file.href.path, folder / job.path
    target.parent.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {}
    raster: GeoTiffRaster | None = None
    if not whole:
        try:
            raster = RemoteRaster(address, job.access)
        except NoRangesError:
            raster = None
    if raster is not None:
        facts = {"source_bytes": raster.provenance["size"], "source_version": raster.provenance["version"]}
        _check_size(job, facts["source_bytes"])
        facts["window"] = list(_write_window(job, raster, target, boxes, tool))
    else:
        parts = folder / ".parts"
        parts.mkdir(exist_ok=True)
        part, version = download(address, parts, job.access, on_bytes if whole else lambda _: None)
        facts = {"source_bytes": part.stat().st_size, "source_version": version}
        try:
            _check_size(job, facts["source_bytes"])
            facts["checksum"] = _check_digest(job, part)
            try:
                local = GeoTiffRaster(part)
                if whole:
                    if find_window(Grid.of(local), boxes, job.file.name) is None:
                        raise OutsideError
                    _check_grid(job, local)
                    local.verify()
                    for _, _, _ in _read_strips(local, (0, 0, *local.shape[-2:])):
                        pass  # every block decodes
                else:
                    facts["window"] = list(_write_window(job, local, target, boxes, tool))
            except GeoTiffError as error:
                raise GeoTiffError(str(error).replace(str(part), hide_secrets(address))) from error
            if whole:
                part.replace(target)
                _write_offset_beside(job, target)
        finally:
            part.unlink(missing_ok=True)  # what is wrong is not continued
    size = target.stat().st_size
    if not whole:
        on_bytes(size)
    return {
        "path": job.path,
        "item": job.item.id,
        "layer": job.file.layer.layer,
        "href": hide_secrets(address),
        "bytes": size,
        "sha256": hash_file(target),
        **facts,
        "downloaded": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "tool": tool,
    }


def _write_window(job: Job, raster: GeoTiffRaster, target: Path, boxes: Sequence[Box], tool: str) -> Window:
    """Write the pixels of a file that are in a box, with all that the file says of them."""
    _check_grid(job, raster)
    window = find_window(Grid.of(raster), boxes, job.file.name)
    if window is None:
        raise OutsideError
    part, is_mask = raster.select(window=window), job.file.layer.band is None
    offset = _find_offset(job)

    def describe(dataset: DatasetWriter) -> None:
        for band, text in enumerate(raster.descriptions, start=1):
            dataset.set_band_description(band, text or job.file.layer.band or job.file.layer.layer or "")
        dataset.scales, dataset.offsets = raster.scales, raster.offsets
        tags = {"ITEM": job.item.id, "HREF": hide_secrets(job.file.href.path), "TIFFTAG_SOFTWARE": tool}
        dataset.update_tags(**tags, **({} if offset is None else {OFFSET_ITEM: str(offset)}))

    nodata = job.file.href.nodata if raster.nodata is None else raster.nodata
    if nodata is not None and np.dtype(raster.dtype).kind in "iu":
        limits = np.iinfo(raster.dtype)
        nodata = nodata if limits.min <= nodata <= limits.max else None  # a catalog's, of another type
    layer = Layer(
        name="file",
        bands=tuple(str(band) for band in range(raster.count)),
        dtype=raster.dtype,
        nodata=nodata,
        options={"predictor": "NO" if is_mask else "YES", "overview_resampling": "NEAREST" if is_mask else "AVERAGE"},
        describe=describe,
    )
    with complete_or_absent(target) as path:
        strips = ((band, row, pixels) for band, row, pixels in _read_strips(raster, window))
        write_geotiff(path, layer, part.shape[-2:], strips, raster.crs, part.transform)
    return window


def _read_strips(raster: GeoTiffRaster, window: Window) -> Iterator[tuple[int, int, np.ndarray]]:
    """Read a window in large parts, each once, and give them band by band in strips of `BLOCK_SIZE` rows."""
    top, left, height, width = window
    row_bytes = width * raster.count * np.dtype(raster.dtype).itemsize
    step = max(1, _READ_BYTES // (row_bytes * BLOCK_SIZE)) * BLOCK_SIZE
    for start in range(0, height, step):
        pixels = raster.read(window=(top + start, left, min(step, height - start), width))
        for row in range(0, pixels.shape[1], BLOCK_SIZE):
            for band in range(raster.count):
                yield band, start + row, pixels[band, row : row + BLOCK_SIZE]


def _check_size(job: Job, found: int) -> None:
    """Refuse a file of another size than the catalog states."""
    expected = job.file.members.get("file:size")
    if isinstance(expected, int) and not isinstance(expected, bool) and expected != found:
        raise GeoTiffError(
            f"{hide_secrets(job.file.href.path)}: expected {expected:,} bytes, as the catalog states, found "
            f"{found:,}. The file is not complete, or another one: try again later."
        )


def _check_grid(job: Job, raster: GeoTiffRaster) -> None:
    """Refuse a file that is not on a regular grid, or has another number of pixels than the catalog states."""
    address, shape = hide_secrets(job.file.href.path), job.file.members.get("proj:shape")
    if raster.irregular:
        raise GeoTiffError(f"{address}: expected a file on a regular grid, found {raster.irregular}")
    if isinstance(shape, list) and len(shape) == 2 and tuple(shape) != raster.shape[-2:]:
        raise GeoTiffError(
            f"{address}: expected {shape[0]} x {shape[1]} pixels, as the catalog states, found "
            f"{raster.height} x {raster.width}. The file is another one: try again later."
        )


def _check_digest(job: Job, path: Path) -> str | None:
    """Compare a whole file with the checksum that the catalog states; returns the name of the algorithm."""
    stated = job.file.members.get("file:checksum")
    multihash = find_multihash(stated) if isinstance(stated, str) else None
    if multihash is None:
        return None
    name, expected = multihash
    if name == "sha256":
        found = hash_file(path)
    else:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, name).hexdigest()
    if found != expected:
        raise GeoTiffError(
            f"{hide_secrets(job.file.href.path)}: expected the {name} checksum {expected[:16]}..., as the catalog "
            f"states, found {found[:16]}...: the file is damaged. Try again."
        )
    return name


def _find_offset(job: Job) -> int | None:
    """Find what has to be added to Sentinel-2 numbers, by the catalog or the product's name; None where none tells."""
    if job.file.layer.product != "Sentinel-2" or job.file.layer.band is None:
        return None
    stated = job.file.href
    if stated.scales and math.isclose(stated.scales[0], REFLECTANCE_SCALE):
        return round(stated.offsets[0] / stated.scales[0])
    return find_offset(stated.path.split("?")[0])


def _write_offset_beside(job: Job, target: Path) -> None:
    """Write the offset of a whole Sentinel-2 file into a side file of GDAL's: the file itself stays as it is."""
    offset = _find_offset(job)
    if offset is not None:
        item = f'<MDI key="{OFFSET_ITEM}">{offset}</MDI>'
        with complete_or_absent(Path(f"{target}.aux.xml")) as part:
            part.write_text(f"<PAMDataset><Metadata>{item}</Metadata></PAMDataset>\n", encoding="utf-8")
