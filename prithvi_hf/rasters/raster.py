# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Rasters: bands and a window that are narrowed step by step and read on demand. The common part, and arrays."""

import copy
import datetime
import functools
import hashlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform as transform_points


Window = tuple[int, int, int, int]
"""(row offset, column offset, height, width) in pixels."""

TAGS = "the scale and offset tags"
"""Where scales and offsets of a raster are from, unless a catalogue says more than its file."""

# The pixels that one read may put into memory, in bytes of the raster's own data type.
MAX_READ_BYTES = 4 * 2**30
# All that GDAL and PROJ raise: rasterio gives many of their failures no public class.
GDAL_ERRORS = (RasterioError, CRSError, CPLE_BaseError)
# Two texts of one CRS put a place to within rounding, other datums mostly metres apart.
_SAME_CRS_TOLERANCE = 0.01  # pixels
_SHOWN_CRS = 90  # characters


class GeoTiffError(ValueError):
    """A file that cannot be read as a GeoTIFF; the message names the file, what was expected and the remedy."""


class GeoTiffNotFoundError(GeoTiffError, FileNotFoundError):
    """A GeoTIFF that does not exist."""


class GeoTiffDecodeError(GeoTiffError):
    """Blocks of pixels that cannot be decoded, in a `file` whose header is sound."""

    file: str | None = None


class Raster(ABC):
    """One frame, as the image processor and the scenes take it: a header, and pixels that are read on demand.

    A raster holds no open file, so it pickles, and is safe in threads and across a fork. Subclasses implement `_read`
    and `_read_mask`, and may have `_read_excluded`, `sources` and `provenance`.

    Attributes:
        name (`str`): what messages call it.
        path, content (`str`, `bytes`, *optional*): absolute path, or bytes, of the one file behind it.
        files (`tuple[str, ...]`): absolute paths of the files that it reads itself, where they are several.
        date (`datetime.datetime`, *optional*): when it was acquired (UTC), where it says so itself.
        dtype, nodata, crs: pixel type (numpy's name), value that means "no data", coordinate reference system.
        block_shape (`tuple[int, int]`): (height, width) that reads are cheapest in.
        bands, window: what is selected of the whole raster: 0-based indices, and rows and columns as a `Window`.
        transform (`affine.Affine`): from (column, row) of the selected window to coordinates of the CRS.
        descriptions, scales, offsets: names and tags of the selected bands, one each; tags are not applied.
        shape (`tuple[int, int, int]`): (bands, height, width) of the selection; also `count`, `height`, `width`.
        irregular (`str`, *optional*): what places the pixels instead of the transform, and how to warp the file first.
        excludes (`bool`): whether `read_excluded` may find pixels.
    """

    name: str
    dtype: str
    nodata: float | None
    crs: CRS | None
    path: str | None = None
    content: bytes | None = None
    files: tuple[str, ...] = ()
    block_shape: tuple[int, int]
    irregular: str | None = None
    date: datetime.datetime | None = None
    tags_origin = TAGS
    excludes = False
    _chosen: tuple[int, ...] = ()  # the bands, once some were selected by their indices

    def __init__(
        self,
        *,
        name: str,
        dtype: str,
        size: tuple[int, int],
        descriptions: Sequence[str | None],
        nodata: float | None = None,
        crs: CRS | None = None,
        transform: Affine | None = None,
        path: str | None = None,
        block_shape: tuple[int, int] | None = None,
        tags: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        count = len(descriptions)
        self.name, self.dtype, self.nodata, self.crs, self.path = name, dtype, nodata, crs, path
        self.block_shape = (1, size[1]) if block_shape is None else block_shape
        self._whole_transform = Affine.identity() if transform is None else transform
        # What a derived raster's source says of scale and offset is applied, refused or ignored before.
        scales, offsets = ((1.0,) * count, (0.0,) * count) if tags is None else tags
        self._all_bands = tuple(descriptions), tuple(scales), tuple(offsets)
        self._set_selection(tuple(range(count)), (0, 0, *size))

    def _set_selection(self, bands: tuple[int, ...], window: Window) -> None:
        """Make the attributes follow bands and a window of the whole raster."""
        self.bands, self.window = bands, window
        self.count, self.height, self.width = len(bands), window[2], window[3]
        self.shape = (self.count, self.height, self.width)
        descriptions, scales, offsets = self._all_bands
        self.descriptions: tuple[str | None, ...] = tuple(map(descriptions.__getitem__, bands))
        self.scales: tuple[float, ...] = tuple(map(scales.__getitem__, bands))
        self.offsets: tuple[float, ...] = tuple(map(offsets.__getitem__, bands))
        self.transform = shift_transform(self._whole_transform, window[0], window[1])

    def set_tags(self, scales: Sequence[float], offsets: Sequence[float], origin: str) -> None:
        """Take scale and offset of each band from elsewhere than the file; `origin` says where, for messages."""
        self._all_bands, self.tags_origin = (self._all_bands[0], tuple(scales), tuple(offsets)), origin
        self._set_selection(self.bands, self.window)

    def set_descriptions(self, descriptions: Sequence[str | None]) -> None:
        """Call each band of the file by another name."""
        self._all_bands = (tuple(descriptions), *self._all_bands[1:])
        self._set_selection(self.bands, self.window)

    @property
    def sources(self) -> "tuple[Raster, ...]":
        """The rasters that the selected pixels come from; none where they are in a file or in memory."""
        return ()

    @property
    def provenance(self) -> dict[str, Any]:
        """What changes pixels between the sources and `read`, as JSON holds it."""
        return {}

    @abstractmethod
    def _read(self, bands: tuple[int, ...], window: Window) -> np.ndarray:
        """Read bands and a window of the whole raster."""

    @abstractmethod
    def _read_mask(self, bands: tuple[int, ...], window: Window) -> np.ndarray | None:
        """Read the nodata mask that belongs to bands and a window of the whole raster."""

    def _read_excluded(self, window: Window) -> np.ndarray | None:
        """Read what the sources exclude, which are on the raster's own grid."""
        found = [source.read_excluded(window) for source in self.sources if source.excludes]
        return union([one for one in found if one is not None])

    def select(self, bands: Sequence[int] | None = None, window: Window | None = None) -> Self:
        """Narrow the raster to bands and a window without reading a pixel.

        Bands are 0-based indices into those selected so far; the window is (row offset, column offset, height, width)
        in pixels, relative to the one selected so far. Neither may be empty or leave the raster.
        """
        chosen, place = self.bands, self.window
        if bands is not None:
            if not len(bands):
                raise ValueError(f"{self.name}: expected at least one band to select, found none.")
            if min(bands) < 0 or max(bands) >= self.count:
                raise IndexError(
                    f"{self.name}: expected 0-based bands in 0..{self.count - 1}, found {list(bands)}. Its bands are "
                    f"{list(self.descriptions)}."
                )
            chosen = tuple(map(self.bands.__getitem__, bands))
        if window is not None:
            row, column, height, width = map(int, window)
            fits = row >= 0 and column >= 0 and row + height <= self.height and column + width <= self.width
            if not fits or height < 1 or width < 1:
                raise ValueError(
                    f"{self.name}: expected a window (row offset, column offset, height, width) inside {self.height} "
                    f"x {self.width} pixels, found {tuple(window)}."
                )
            place = (place[0] + row, place[1] + column, height, width)
        narrowed = copy.copy(self)
        narrowed._chosen = self._chosen if bands is None else chosen
        narrowed._set_selection(chosen, place)
        return narrowed

    def read(self, bands: Sequence[int] | None = None, window: Window | None = None) -> np.ndarray:
        """Read pixels (bands, height, width), as they are in the file; arguments narrow the selection as in `select`.

        Rasters in memory give views: do not write into them. Pixels that cannot be decoded, or would take more than
        `MAX_READ_BYTES`, are a GeoTiffError.
        """
        target = self.select(bands, window)
        needed = math.prod(target.shape) * np.dtype(self.dtype).itemsize
        if needed > MAX_READ_BYTES and not isinstance(self, ArrayRaster):
            raise GeoTiffError(
                f"{self.name}: reading {target.shape} pixels of {self.dtype} would take {needed:,} bytes, more than "
                f"the {MAX_READ_BYTES:,} allowed in one read. Read it window by window (`window=`), or raise "
                "`prithvi_hf.rasters.raster.MAX_READ_BYTES`."
            )
        return target._read(target.bands, target.window)

    def read_nodata_mask(self, window: Window | None = None) -> np.ndarray | None:
        """Read where there is no data for other reasons than the nodata value or NaN, such as a file's mask band.

        Returns:
            `np.ndarray` of shape `(height, width)`, bool, True for nodata; None where nothing can be missing.
        """
        target = self.select(window=window)
        return target._read_mask(target.bands, target.window)

    def read_excluded(self, window: Window | None = None) -> np.ndarray | None:
        """Read where the map is nodata whatever the other dates hold, bool (height, width); None for nowhere."""
        return self._read_excluded(self.select(window=window).window) if self.excludes else None

    def verify(self) -> None:
        """Check blocks of the files behind the raster by their checksums, see `GeoTiffRaster`; arrays have none."""
        for source in self.sources:
            source.verify()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.read()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __repr__(self) -> str:
        crs = "None" if self.crs is None else self.crs.to_string()
        return f"{type(self).__name__}({self.name!r}, shape={self.shape}, dtype={self.dtype}, crs={crs})"


class ArrayRaster(Raster):
    """Bands (bands, height, width) in memory, with a bool `nodata_mask` (height, width); reading gives views."""

    def __init__(
        self,
        values: np.ndarray,
        *,
        name: str = "<array>",
        descriptions: Sequence[str | None] | None = None,
        nodata: float | None = None,
        nodata_mask: np.ndarray | None = None,
        crs: CRS | None = None,
        transform: Affine | None = None,
        tags: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        values = np.asarray(values)
        if values.dtype.kind not in "iuf":
            raise TypeError(
                f"{name}: expected an array of integers or floats, found {values.dtype}. Convert it first."
            )
        if values.ndim != 3 or 0 in values.shape:
            raise ValueError(
                f"{name}: expected an array (bands, height, width), found shape {values.shape}. Put the bands first."
            )
        if descriptions is not None and len(descriptions) != len(values):
            raise ValueError(
                f"{name}: expected a description for each of {len(values)} bands, found {len(descriptions)}. Name "
                "every band, or none."
            )
        if nodata_mask is not None and np.shape(nodata_mask) != values.shape[1:]:
            raise ValueError(
                f"{name}: expected a nodata mask of {values.shape[1:]} pixels, found {np.shape(nodata_mask)}. Make it "
                "on the grid of the bands."
            )
        names = (None,) * len(values) if descriptions is None else descriptions
        super().__init__(
            name=name,
            dtype=values.dtype.name,
            size=values.shape[1:],
            descriptions=names,
            nodata=nodata,
            crs=crs,
            transform=transform,
            tags=tags,
        )
        self._values = values
        self._mask = None if nodata_mask is None else np.asarray(nodata_mask, dtype=bool)

    @property
    def provenance(self) -> dict[str, Any]:
        """Digest of the values and the mask, which stand for a file here."""
        digest = hashlib.sha256(repr((self._values.shape, self.dtype)).encode())
        for array in (self._values, self._mask):
            digest.update(b"" if array is None else np.ascontiguousarray(array).data)
        return {"sha256": digest.hexdigest(), "nodata": None if self.nodata is None else repr(float(self.nodata))}

    def _read(self, bands: tuple[int, ...], window: Window) -> np.ndarray:
        row, column, height, width = window
        view = self._values[:, row : row + height, column : column + width]
        # A run of neighbouring bands is a slice, hence a view; any other choice has to be a copy.
        if bands == tuple(range(bands[0], bands[0] + len(bands))):
            return view[bands[0] : bands[0] + len(bands)]
        return view[list(bands)]

    def _read_mask(self, bands: tuple[int, ...], window: Window) -> np.ndarray | None:
        row, column, height, width = window
        return None if self._mask is None else self._mask[row : row + height, column : column + width]


def shift_transform(transform: Affine, row: float, column: float, scale: tuple[float, float] = (1.0, 1.0)) -> Affine:
    """Give the transform of a window that starts at (row, column), in pixels of `scale` (down, right) of the old."""
    a, b, c, d, e, f = transform[:6]
    down, right = scale
    # Written out: releases of affine differ in the operator that composes.
    return Affine(a * right, b * down, a * column + b * row + c, d * right, e * down, d * column + e * row + f)


def is_same_crs(crs: CRS | None, other: CRS | None, transform: Affine, size: tuple[int, int]) -> bool:
    """Whether coordinates in two CRSs are the same for a grid of (height, width) pixels, to a hundredth of a pixel.

    Names and texts do not matter: HLS states UTM without a code, others EPSG:32610. What counts is where the corners,
    the middles of the edges and the centre are. CRSs that cannot be converted into each other are equal to none.
    """
    if crs is None or other is None or crs == other:
        return (crs is None) == (other is None)
    places = _find_places(transform, size)
    return _measure_in_pixels(places, _convert(crs, other, places), transform, other) <= _SAME_CRS_TOLERANCE


def measure_shift(first: tuple[CRS | None, Affine], other: tuple[CRS | None, Affine], size: tuple[int, int]) -> float:
    """Give the largest distance between the same points of two grids of (height, width) pixels, in pixels.

    Grids are given as CRS and transform. With CRSs that are not the same, see `is_same_crs`, they are infinitely far
    apart, unless other numbers mean the very places: south of the equator, UTM is counted from there in Landsat and
    HLS files, and from 10,000 km below in others. Longitudes 360 degrees apart are the same place.
    """
    (crs, transform), (other_crs, other_transform) = first, other
    places, others = _find_places(transform, size), _find_places(other_transform, size)
    if is_same_crs(crs, other_crs, transform, size):
        return _measure_in_pixels(places, others, transform, crs)
    if crs is None or other_crs is None:
        return math.inf
    shift = _measure_in_pixels(places, _convert(other_crs, crs, others), transform, crs)
    return shift if shift <= _SAME_CRS_TOLERANCE else math.inf


def _convert(crs: CRS, other: CRS, places: np.ndarray) -> np.ndarray:
    """Convert points (2, n) to another CRS; infinite where that cannot be."""
    try:
        return np.array(transform_points(crs, other, *places)[:2])
    except GDAL_ERRORS:
        return np.full_like(places, math.inf)


def _find_places(transform: Affine, size: tuple[int, int]) -> np.ndarray:
    """Give x and y of the corners, the middles of the edges, and the centre of a grid, (2, 9)."""
    rows, columns = np.meshgrid(np.linspace(0, size[0], 3), np.linspace(0, size[1], 3))
    # By their six numbers: releases of affine differ in the operator that places a pixel.
    return np.reshape(tuple(transform)[:6], (2, 3)) @ [columns.ravel(), rows.ravel(), np.ones(rows.size)]


def _measure_in_pixels(places: np.ndarray, others: np.ndarray, transform: Affine, crs: CRS | None) -> float:
    """Give the largest distance between points (2, n) in pixels of a transform."""
    away = others - places
    if crs is not None and crs.is_geographic and np.isfinite(away).all():
        away[0] -= 360 * np.round(away[0] / 360)
    a, b, _, d, e, _ = tuple(transform)[:6]
    return float(np.linalg.norm(away, axis=0).max()) / max(abs(a * e - b * d) ** 0.5, 1e-300)


def name_crs_pair(first: CRS | None, other: CRS | None) -> tuple[str, str]:
    """Name two CRSs so that a message shows in what they differ: by code, or by that part of their WKT."""
    names = ["no CRS" if crs is None else crs.to_string() for crs in (first, other)]
    if names[0] == names[1]:  # one code, and other parameters than it stands for
        names = ["no CRS" if crs is None else crs.to_wkt() for crs in (first, other)]
    common = next((at for at, pair in enumerate(zip(*names, strict=False)) if len({*pair}) > 1), 0)
    start = max(0, common - _SHOWN_CRS // 3) if max(map(len, names)) > _SHOWN_CRS else 0
    shown = [
        f"{'...' * (start > 0)}{name[start:][:_SHOWN_CRS]}{'...' * (len(name) > start + _SHOWN_CRS)}" for name in names
    ]
    return shown[0], shown[1]


def find_degrees(crs: CRS | str, xs: Any, ys: Any, name: str) -> np.ndarray:
    """Convert places to longitude and latitude (WGS 84) in degrees, (2, n); longitudes are -180 to 180.

    Places outside the domain of the CRS are not finite, or a ValueError, as is a CRS without places on Earth: a local
    or engineering one.
    """
    try:
        degrees = np.array(transform_points(crs, "EPSG:4326", np.ravel(xs), np.ravel(ys))[:2])
    except GDAL_ERRORS as error:
        raise ValueError(
            f"{name}: expected places on Earth, found a CRS from which they cannot be told in degrees, "
            f"{str(crs)[:_SHOWN_CRS]} ({str(error)[:_SHOWN_CRS]}). Warp the file to another CRS with gdalwarp, or, if "
            "its own is wrong, correct it with `gdal_edit.py -a_srs`."
        ) from error
    with np.errstate(invalid="ignore"):
        degrees[0] = np.where(np.abs(degrees[0]) > 180, np.remainder(degrees[0] + 180, 360) - 180, degrees[0])
    return degrees


def find_center(crs: CRS | None, transform: Affine, window: Window, name: str) -> tuple[float, float] | None:
    """Find latitude and longitude (WGS 84) in degrees of the centre of a window of pixels; None without a CRS.

    `transform` is that of the whole, from (column, row) to coordinates of the CRS. A centre that is not on Earth is a
    ValueError that begins with the name.
    """
    if crs is None:
        return None
    row, column, height, width = window
    x, y = transform @ (column + width / 2, row + height / 2)
    degrees = find_degrees(crs, x, y, name)
    longitude, latitude = degrees[:, 0].tolist()
    if not (math.isfinite(longitude) and abs(latitude) <= 90):
        swapped = " Its axes look swapped: write longitudes as x." if crs.is_geographic and abs(x) <= 90 else ""
        raise ValueError(
            f"{name}: expected a place on Earth, found its centre at x = {x:g}, y = {y:g}, outside of "
            f"{str(crs)[:_SHOWN_CRS]}.{swapped or ' Correct CRS or transform, e.g. with `gdal_edit.py`.'}"
        )
    return latitude, longitude


@functools.cache
def find_proj_problem() -> str | None:
    """Say which variable of the environment leads PROJ to the database of another program; None where all is well."""
    variables = [name for name in ("PROJ_DATA", "PROJ_LIB") if name in os.environ]
    try:
        if variables:
            CRS.from_epsg(4326)
    except CRSError as error:
        found = " and ".join(f"{name}={os.environ[name]}" for name in variables)
        also = " (and GDAL_DATA, which the same program has mostly set)" if "GDAL_DATA" in os.environ else ""
        return (
            f"expected PROJ to find the coordinate systems that come with rasterio, found {found} in the environment, "
            f"which leads to those of another program ({error}). Unset {' and '.join(variables)}{also}."
        )
    return None


def union(masks: Sequence[np.ndarray]) -> np.ndarray | None:
    """Find where one mask or more is True, bool of their shape; None without masks."""
    return np.logical_or.reduce(masks) if masks else None


def find_files(raster: Raster) -> tuple[str, ...]:
    """List every local file that pixels of a raster come from: absolute paths in the order of the bands, each once."""
    own = raster.files or ((raster.path,) if raster.path else ())
    return tuple(dict.fromkeys([*own, *(file for source in raster.sources for file in find_files(source))]))


def describe_raster(raster: Raster) -> dict[str, Any]:
    """Describe how pixels come from files, as JSON holds it; rasters described alike over equal files read alike."""
    description = {
        "kind": type(raster).__name__,
        "path": raster.path or raster.name,
        "bands": list(raster.bands),
        "window": list(raster.window),
        **raster.provenance,
        "sources": [describe_raster(source) for source in raster.sources],
    }
    if raster.content is not None:
        description["sha256"] = hashlib.sha256(raster.content).hexdigest()
    return description
