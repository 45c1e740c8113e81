# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Rasters made of other rasters: arrays in memory, and one file a band put together to a frame.

All of them have the interface of [`GeoTiffRaster`]: they know a header, narrow by `select` without reading a pixel,
and read on demand. None holds an open file, so they pickle, and are safe in threads and across a fork.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from prithvi_hf.rasters import geotiff_raster as geotiff
from prithvi_hf.rasters.geotiff_raster import GeoTiffError
from prithvi_hf.rasters.selection import RasterSelection, Window


@runtime_checkable
class Raster(Protocol):
    """What the image processor and the scenes take for one frame: a `GeoTiffRaster` or one of the rasters below."""

    name: str
    dtype: str
    nodata: float | None
    descriptions: tuple[str | None, ...]
    count: int
    shape: tuple[int, int, int]

    def select(self, bands: Sequence[int] | None = None, window: Window | None = None) -> "Raster":
        """Narrows the raster to 0-based bands and a window; no pixel is read."""
        ...

    def read(self, bands: Sequence[int] | None = None, window: Window | None = None) -> np.ndarray:
        """Reads (bands, height, width) in the raster's own data type."""
        ...

    def read_nodata_mask(self, window: Window | None = None) -> np.ndarray | None:
        """Reads bool (height, width), True for no data; None where nothing says so but values."""
        ...


class DerivedRaster(RasterSelection, ABC):
    """The common part of rasters that are not files: the header, and bands and window selected from it.

    Args:
        name: what messages call it.
        dtype: numpy name of the pixel type.
        size: (height, width) in pixels.
        descriptions: a name or None for each band.
        nodata: value that means "no data", None where there is none.
        crs: coordinate reference system, or None.
        transform: from (column, row) of the whole raster to coordinates of the CRS.
        path: the one file behind it, where there is one.

    Attributes:
        name, dtype, nodata, crs, path: as given.
        descriptions, and what [`RasterSelection`] has: of the selection.
    """

    has_ground_control_points = False

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
    ) -> None:
        self.name, self.dtype, self.nodata, self.crs, self.path = name, dtype, nodata, crs, path
        self._all_descriptions = tuple(descriptions)
        self._whole_transform = Affine.identity() if transform is None else transform
        self._bands, self._window = tuple(range(len(self._all_descriptions))), (0, 0, *size)

    @property
    def bands(self) -> tuple[int, ...]:
        """0-based indices of the selected bands in the whole raster."""
        return self._bands

    @property
    def whole_transform(self) -> Affine:
        """From (column, row) of the whole raster to the coordinates of the CRS."""
        return self._whole_transform

    @property
    def sources(self) -> tuple[Any, ...]:
        """The rasters that pixels come from; none where they are held in memory."""
        return ()

    @property
    def recipe(self) -> dict[str, Any]:
        """What changes pixels between the sources and `read`, as JSON holds it."""
        return {}

    @abstractmethod
    def _read(self, bands: tuple[int, ...], window: Window) -> np.ndarray:
        """Reads bands and a window of the whole raster."""

    @abstractmethod
    def _read_mask(self, bands: tuple[int, ...], window: Window) -> np.ndarray | None:
        """Reads the no-data mask that belongs to bands and a window of the whole raster."""

    @property
    def descriptions(self) -> tuple[str | None, ...]:
        """Names of the selected bands, None for a band without one."""
        return tuple(self._all_descriptions[band] for band in self.bands)

    @property
    def scales(self) -> tuple[float, ...]:
        """1.0 for each band: what a file's tags say is applied, refused or left out on purpose before."""
        return (1.0,) * self.count

    @property
    def offsets(self) -> tuple[float, ...]:
        """0.0 for each band, see `scales`."""
        return (0.0,) * self.count

    @property
    def block_shape(self) -> tuple[int, int]:
        """(height, width) that reads are cheapest in: the largest of the sources' blocks."""
        shapes = [source.block_shape for source in self.sources if hasattr(source, "block_shape")]
        return (max(height for height, _ in shapes), max(width for _, width in shapes)) if shapes else (1, self.width)

    def read(self, bands: Sequence[int] | None = None, window: Window | None = None) -> np.ndarray:
        """Reads pixels; arguments narrow the selection as in `select`.

        Returns:
            (bands, height, width) of the raster's `dtype`. Rasters in memory give views: do not write into them.

        Raises:
            GeoTiffError: a file behind it cannot be decoded, or more than `MAX_READ_BYTES` were asked for.
        """
        target = self.select(bands, window)
        if self.sources:
            target._check_read_size()
        return target._read(target.bands, target.window)

    def read_nodata_mask(self, window: Window | None = None) -> np.ndarray | None:
        """Reads where there is no data for other reasons than the nodata value or NaN.

        Returns:
            bool (height, width), True for no data; None where nothing can be missing.

        Raises:
            GeoTiffError: a file behind it cannot be decoded.
        """
        target = self.select(window=window)
        return target._read_mask(target.bands, target.window)

    @property
    def excludes(self) -> bool:
        """Whether `read_excluded` may find pixels."""
        return any(getattr(source, "excludes", False) for source in self.sources)

    def read_excluded(self, window: Window | None = None) -> np.ndarray | None:
        """Reads where the map has no data whatever the other dates hold and the image processor's rule says.

        Returns:
            bool (height, width); None where no pixel can be excluded.

        Raises:
            GeoTiffError: a file behind it cannot be decoded.
        """
        return self._read_excluded(self.select(window=window).window) if self.excludes else None

    def _read_excluded(self, window: Window) -> np.ndarray | None:
        """Reads what the sources exclude, which lie on the raster's own grid."""
        found = [source.read_excluded(window) for source in self.sources if getattr(source, "excludes", False)]
        return union([one for one in found if one is not None])

    def _check_read_size(self) -> None:
        needed = math.prod(self.shape) * np.dtype(self.dtype).itemsize
        if needed > geotiff.MAX_READ_BYTES:
            raise GeoTiffError(
                f"{self.name}: reading {self.shape} pixels of {self.dtype} would take {needed:,} bytes, more than the "
                f"{geotiff.MAX_READ_BYTES:,} allowed in one read. Read it window by window (`window=`)."
            )


def header_of(raster: Any) -> dict[str, Any]:
    """What a derived raster takes over from its source, as arguments of `DerivedRaster`.

    Args:
        raster: the source.
    """
    names = ("name", "dtype", "descriptions", "nodata", "crs", "transform", "path")
    return {"size": raster.shape[-2:], **{name: getattr(raster, name) for name in names}}


class ArrayRaster(DerivedRaster):
    """Bands in memory; `select` and `read` give views.

    Args:
        values: (bands, height, width) of any integer or float type.
        name: what messages call it.
        descriptions: a name or None for each band; None for no names.
        nodata: value that means "no data".
        nodata_mask: bool (height, width), True for no data.
        crs: coordinate reference system.
        transform: from (column, row) to coordinates of the CRS.

    Raises:
        TypeError: values that are no real numbers.
        ValueError: another rank, a mask of another size, or another number of descriptions than of bands.
    """

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
    ) -> None:
        values = np.asarray(values)
        _check_array(values, name, descriptions, nodata_mask)
        super().__init__(
            name=name,
            dtype=values.dtype.name,
            size=values.shape[1:],
            descriptions=(None,) * len(values) if descriptions is None else descriptions,
            nodata=nodata,
            crs=crs,
            transform=transform,
        )
        self._values = values
        self._mask = None if nodata_mask is None else np.asarray(nodata_mask, dtype=bool)

    @property
    def recipe(self) -> dict[str, Any]:
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


def _check_array(
    values: np.ndarray, name: str, descriptions: Sequence[str | None] | None, mask: np.ndarray | None
) -> None:
    if values.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected an array of integers or floats, found {values.dtype}. Convert it first.")
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(
            f"{name}: expected an array (bands, height, width), found shape {values.shape}. Put the bands first."
        )
    if descriptions is not None and len(descriptions) != len(values):
        raise ValueError(
            f"{name}: expected a description for each of {len(values)} bands, found {len(descriptions)}. Name every "
            "band, or none."
        )
    if mask is not None and np.shape(mask) != values.shape[1:]:
        raise ValueError(
            f"{name}: expected a nodata mask of {values.shape[1:]} pixels, found {np.shape(mask)}. Make it on the "
            "grid of the bands."
        )


class BandStack(DerivedRaster):
    """One file a band, put together to the bands of one frame; only the files of selected bands are read.

    Args:
        bands: rasters of one band each, on one grid.
        names: a name for each band.
        name: what messages call the frame.
        nodata: value that means "no data" where the files have no tag of their own.

    Raises:
        ValueError: rasters of more than one band, of different grids, or with different nodata tags.
    """

    def __init__(
        self, bands: Sequence[Any], names: Sequence[str | None], *, name: str, nodata: float | None = None
    ) -> None:
        _check_stack(bands, names, name)
        first = bands[0]
        super().__init__(
            name=name,
            dtype=np.result_type(*(band.dtype for band in bands)).name,
            size=first.shape[-2:],
            descriptions=names,
            nodata=nodata if first.nodata is None else first.nodata,
            crs=first.crs,
            transform=first.transform,
        )
        self._sources = tuple(bands)

    @property
    def sources(self) -> tuple[Any, ...]:
        """The raster of each selected band."""
        return tuple(self._sources[band] for band in self.bands)

    def _read(self, bands: tuple[int, ...], window: Window) -> np.ndarray:
        values = np.empty((len(bands), *window[2:]), dtype=self.dtype)
        for target, band in zip(values, bands, strict=True):
            target[...] = self._sources[band].read(window=window)[0]
        return values

    def _read_mask(self, bands: tuple[int, ...], window: Window) -> np.ndarray | None:
        masks = [self._sources[band].read_nodata_mask(window) for band in bands]
        # A pixel that a file says is missing in one band would reach the model with whatever stands there.
        return union([mask for mask in masks if mask is not None])


class MaskedRaster(DerivedRaster):
    """A frame with more pixels taken for no data: those where a second raster has certain bits.

    Args:
        frame: the frame.
        flags: one band of unsigned integers on the grid of the frame.
        bits: pixels with any of these bits (a sum of powers of two) are no data.
        rule: "all": in the map they have no data where the image processor's rule says so, which mostly is where
            every date lacks data; "any": they have none whatever the other dates hold.
        fill: value of the flags of pixels that were not observed; these have no data, but are not excluded by "any".

    Raises:
        ValueError: flags of another size, or that are no unsigned integers.
    """

    def __init__(
        self, frame: Any, flags: Any, bits: int, rule: Literal["any", "all"] = "all", fill: int | None = None
    ) -> None:
        if flags.shape != (1, *frame.shape[-2:]) or np.dtype(flags.dtype).kind != "u":
            raise ValueError(
                f"{flags.name}: expected one band of unsigned integers of {frame.height} x {frame.width} pixels, "
                f"found {flags.shape} of {flags.dtype}. Give the mask that belongs to {frame.name}."
            )
        super().__init__(**header_of(frame))
        self._frame, self._flags, self._bits, self._rule, self._unobserved = frame, flags, bits, rule, fill

    @property
    def sources(self) -> tuple[Any, ...]:
        """The frame and its flags."""
        return (self._frame, self._flags)

    @property
    def recipe(self) -> dict[str, Any]:
        """Bits that are masked, and what becomes of the map there."""
        return {"mask_bits": self._bits, "mask_rule": self._rule, "mask_fill": self._unobserved}

    @property
    def excludes(self) -> bool:
        """Whether the rule is "any", or the frame excludes pixels itself."""
        return self._rule == "any" or super().excludes

    def _read(self, bands: tuple[int, ...], window: Window) -> np.ndarray:
        return self._frame.read(bands, window)

    def _read_mask(self, bands: tuple[int, ...], window: Window) -> np.ndarray | None:
        masked, own = self._read_bits(window)[0], self._frame.select(bands, window).read_nodata_mask()
        return union([masked] if own is None else [masked, own])

    def _read_excluded(self, window: Window) -> np.ndarray | None:
        own = super()._read_excluded(window)
        if self._rule != "any":
            return own
        masked, flags = self._read_bits(window)
        if self._unobserved is not None:
            masked &= flags != self._unobserved
        return masked if own is None else masked | own

    def _read_bits(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Where one of the bits is set, and the flags, both (height, width)."""
        flags = self._flags.read(window=window)[0]
        return (flags & np.asarray(self._bits, dtype=flags.dtype)) != 0, flags


def union(masks: Sequence[np.ndarray]) -> np.ndarray | None:
    """Where one mask or more is True.

    Args:
        masks: bool arrays of one shape.

    Returns:
        bool array of that shape, None without masks.
    """
    return np.logical_or.reduce(masks) if masks else None


def files_of(raster: Any) -> tuple[str, ...]:
    """Every local file that pixels of a raster come from.

    Args:
        raster: a frame, or any raster.

    Returns:
        Absolute paths, in the order of the bands, each once.
    """
    own = getattr(raster, "files", None) or ((raster.path,) if getattr(raster, "path", None) else ())
    inner = (file for source in getattr(raster, "sources", ()) for file in files_of(source))
    return tuple(dict.fromkeys((*own, *inner)))


def describe_raster(raster: Any) -> dict[str, Any]:
    """How pixels come from files, as JSON holds it; two rasters described alike over equal files read alike.

    Args:
        raster: a frame, or any raster.

    Returns:
        Its kind, bands, window and recipe, and the description of each source.
    """
    content = getattr(raster, "content", None)
    description = {
        "kind": type(raster).__name__,
        "path": raster.path or raster.name,
        "bands": list(raster.bands),
        "window": list(raster.window),
        **getattr(raster, "recipe", {}),
        "sources": [describe_raster(source) for source in getattr(raster, "sources", ())],
    }
    return description if content is None else {**description, "sha256": hashlib.sha256(content).hexdigest()}


def _check_stack(bands: Sequence[Any], names: Sequence[str | None], name: str) -> None:
    if not bands or len(bands) != len(names):
        raise ValueError(
            f"{name}: expected one raster for each of {len(names)} band names, found {len(bands)}. Give both alike."
        )
    for band in bands:
        if band.count != 1:
            raise ValueError(
                f"{band.name}: expected one band in a file of one band of {name}, found {band.count}. Give a file "
                "that holds all bands as a frame of its own."
            )
        if band.shape != bands[0].shape:
            raise ValueError(
                f"{band.name}: expected {bands[0].height} x {bands[0].width} pixels as in {bands[0].name}, found "
                f"{band.height} x {band.width}. Bring the bands of one frame to one grid."
            )
        if repr(band.nodata) != repr(bands[0].nodata):
            raise ValueError(
                f"{band.name}: expected the nodata tag {bands[0].nodata} as in {bands[0].name}, found {band.nodata}. "
                "Write one tag into all bands of a frame, e.g. `gdal_edit.py -a_nodata`."
            )
