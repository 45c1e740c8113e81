# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Rasters made of other rasters: one file per band put together to a frame, masks by flags, scaled numbers."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from prithvi_hf.models.prithvi.pixel_values_prithvi import equals_nodata, list_nodata
from prithvi_hf.rasters.raster import Raster, Window, union


def take_header(raster: Raster) -> dict[str, Any]:
    """Give what a derived raster takes over from its source, as arguments of `Raster`."""
    names = ("name", "dtype", "descriptions", "nodata", "crs", "transform", "path", "block_shape")
    return {"size": raster.shape[-2:], **{name: getattr(raster, name) for name in names}}


class BandStack(Raster):
    """One file per band, put together to the bands of one frame; only the files of selected bands are read.

    Args:
        bands: rasters of one band each, on one grid, with one nodata tag.
        names: a name for each band.
        name: what messages call the frame.
        nodata: value that means "no data" where the files have no tag of their own.
    """

    def __init__(
        self, bands: Sequence[Raster], names: Sequence[str | None], *, name: str, nodata: float | None = None
    ) -> None:
        if not bands or len(bands) != len(names):
            raise ValueError(f"{name}: expected one raster for each of {len(names)} band names, found {len(bands)}.")
        first = bands[0]
        for band in bands:
            if band.count != 1:
                raise ValueError(
                    f"{band.name}: expected one band in a file of one band of {name}, found {band.count}. Give a file "
                    "that holds all bands as a frame of its own."
                )
            if band.shape != first.shape:
                raise ValueError(
                    f"{band.name}: expected {first.height} x {first.width} pixels as in {first.name}, found "
                    f"{band.height} x {band.width}. Bring the bands of one frame to one grid."
                )
            if repr(band.nodata) != repr(first.nodata):
                raise ValueError(
                    f"{band.name}: expected the nodata tag {first.nodata} as in {first.name}, found {band.nodata}. "
                    "Write one tag into all bands of a frame, e.g. `gdal_edit.py -a_nodata`."
                )
        heights, widths = zip(*(band.block_shape for band in bands), strict=True)
        super().__init__(
            name=name,
            dtype=np.result_type(*(band.dtype for band in bands)).name,
            size=first.shape[-2:],
            descriptions=names,
            nodata=nodata if first.nodata is None else first.nodata,
            crs=first.crs,
            transform=first.transform,
            block_shape=(max(heights), max(widths)),
        )
        self._sources = tuple(bands)
        self.excludes = any(band.excludes for band in bands)

    @property
    def sources(self) -> tuple[Raster, ...]:
        """The raster of each selected band."""
        return tuple(self._sources[band] for band in self.bands)

    def _read(self, bands: tuple[int, ...], window: Window) -> np.ndarray:
        values = np.empty((len(bands), *window[2:]), dtype=self.dtype)
        for target, band in zip(values, bands, strict=True):
            target[...] = self._sources[band].read(window=window)[0]
        return values

    def _read_mask(self, bands: tuple[int, ...], window: Window) -> np.ndarray | None:
        masks = [self._sources[band].read_nodata_mask(window) for band in bands]
        # A pixel that a file says is missing in one band would reach the model with whatever is there.
        return union([mask for mask in masks if mask is not None])


class MaskedRaster(Raster):
    """A frame with more pixels taken for nodata: those where a second raster has certain bits, or certain values.

    Args:
        frame: the frame.
        flags: one band of unsigned integers on the grid of the frame.
        bits: pixels with any of these bits (a sum of powers of two) are nodata; a tuple: pixels of these values.
        rule: "all": in the map they are nodata where the image processor's rule says so, which mostly is where
            every date lacks data; "any": they are whatever the other dates hold.
        fill: value of the flags of pixels that were not observed; these are nodata, but are not excluded by "any".
    """

    def __init__(
        self,
        frame: Raster,
        flags: Raster,
        bits: int | tuple[int, ...],
        rule: Literal["any", "all"] = "all",
        fill: int | None = None,
    ) -> None:
        if flags.shape != (1, *frame.shape[-2:]) or np.dtype(flags.dtype).kind != "u":
            raise ValueError(
                f"{flags.name}: expected one band of unsigned integers of {frame.height} x {frame.width} pixels, "
                f"found {flags.shape} of {flags.dtype}. Give the mask that belongs to {frame.name}."
            )
        heights, widths = zip(frame.block_shape, flags.block_shape, strict=True)
        super().__init__(**{**take_header(frame), "block_shape": (max(heights), max(widths))})
        self._frame, self._flags, self._bits, self._rule, self._unobserved = frame, flags, bits, rule, fill
        self.excludes = rule == "any" or frame.excludes

    @property
    def sources(self) -> tuple[Raster, ...]:
        """The frame and its flags."""
        return (self._frame, self._flags)

    @property
    def provenance(self) -> dict[str, Any]:
        """Bits that are masked, and what happens to the map there."""
        kind, bits = ("mask_bits", self._bits) if isinstance(self._bits, int) else ("mask_values", list(self._bits))
        return {kind: bits, "mask_rule": self._rule, "mask_fill": self._unobserved}

    def _read(self, bands: tuple[int, ...], window: Window) -> np.ndarray:
        return self._frame.read(bands, window)

    def _read_mask(self, bands: tuple[int, ...], window: Window) -> np.ndarray | None:
        masked, own = self._read_bits(window)[0], self._frame.select(bands, window).read_nodata_mask()
        return masked if own is None else masked | own

    def _read_excluded(self, window: Window) -> np.ndarray | None:
        own = super()._read_excluded(window)
        if self._rule != "any":
            return own
        masked, flags = self._read_bits(window)
        if self._unobserved is not None:
            masked &= flags != self._unobserved
        return masked if own is None else masked | own

    def _read_bits(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Read where one of the bits is set or nothing was observed, and the flags, both (height, width)."""
        flags = self._flags.read(window=window)[0]
        if isinstance(self._bits, int):
            masked = (flags & np.asarray(self._bits, dtype=flags.dtype)) != 0
        else:
            masked = np.isin(flags, self._bits)
        return (masked if self._unobserved is None else masked | (flags == self._unobserved)), flags


class ScaledRaster(Raster):
    """A raster whose values are `number * factor + offset`, float32; what is nodata there becomes NaN.

    Numbers of `nodata_values` mean "no data" beside the raster's `nodata`; they are looked for before scaling.
    """

    def __init__(
        self, raster: Raster, factors: Sequence[float], offsets: Sequence[float], nodata_values: Sequence[float] = ()
    ) -> None:
        if not len(factors) == len(offsets) == raster.count:
            raise ValueError(
                f"{raster.name}: expected a factor and an offset for each of {raster.count} bands, found "
                f"{len(factors)} and {len(offsets)}."
            )
        super().__init__(**{**take_header(raster), "dtype": "float32", "nodata": math.nan})
        self._source, self._factors, self._added = raster, tuple(map(float, factors)), tuple(map(float, offsets))
        self._missing = list_nodata(raster.nodata, nodata_values)
        self.excludes = raster.excludes

    @property
    def sources(self) -> tuple[Raster, ...]:
        """The raster of the numbers."""
        return (self._source,)

    @property
    def provenance(self) -> dict[str, Any]:
        """Factors, offsets and numbers that are nodata."""
        missing = [repr(value) for value in self._missing]
        return {"factors": list(self._factors), "offsets": list(self._added), "nodata_values": missing}

    def _read(self, bands: tuple[int, ...], window: Window) -> np.ndarray:
        numbers = self._source.read(bands, window)
        values = np.empty(numbers.shape, dtype=np.float32)
        for target, source, band in zip(values, numbers, bands, strict=True):
            # In double precision, so that 1234 becomes the same 0.1234 as in files of reflectance.
            target[...] = source * np.float64(self._factors[band]) + self._added[band]
        missing = equals_nodata(numbers, self._missing)
        if missing is not None:
            values[missing] = np.nan
        return values

    def _read_mask(self, bands: tuple[int, ...], window: Window) -> np.ndarray | None:
        return self._source.select(bands, window).read_nodata_mask()
