# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Bands and a window of a raster, narrowed step by step without reading a pixel: the common part of all rasters."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from affine import Affine
from rasterio.crs import CRS


Window = tuple[int, int, int, int]
"""(row offset, column offset, height, width) in pixels."""


class RasterSelection:
    """What is selected of a raster.

    Attributes:
        name (`str`): what messages call the raster.
        dtype (`str`): numpy name of the pixel type.
        crs (`rasterio.crs.CRS`, *optional*): coordinate reference system.
        descriptions (`tuple[str | None, ...]`): names of the selected bands.
    """

    name: str
    dtype: str
    crs: CRS | None
    descriptions: tuple[str | None, ...]
    # Indices in the whole raster; None where nothing was selected yet and that makes a difference.
    _bands: tuple[int, ...] | None
    _window: Window

    @property
    @abstractmethod
    def bands(self) -> tuple[int, ...]:
        """0-based indices of the selected bands in the whole raster."""

    @property
    @abstractmethod
    def whole_transform(self) -> Affine:
        """From (column, row) of the whole raster to the coordinates of the CRS."""

    @abstractmethod
    def read(self, bands: Sequence[int] | None = None, window: Window | None = None) -> np.ndarray:
        """Reads pixels (bands, height, width); arguments narrow the selection as in `select`."""

    @property
    def window(self) -> Window:
        """The selected window in the whole raster: (row offset, column offset, height, width)."""
        return self._window

    @property
    def transform(self) -> Affine:
        """Affine from (column, row) of the selected window to the coordinates of the CRS."""
        return shift_transform(self.whole_transform, *self._window[:2])

    @property
    def count(self) -> int:
        """Number of selected bands."""
        return len(self.bands)

    @property
    def height(self) -> int:
        """Rows of the selected window."""
        return self._window[2]

    @property
    def width(self) -> int:
        """Columns of the selected window."""
        return self._window[3]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(bands, height, width) of the selection."""
        return (self.count, self.height, self.width)

    def select(self, bands: Sequence[int] | None = None, window: Window | None = None) -> Self:
        """Narrows the raster to bands and a window without reading a pixel.

        Args:
            bands (`Sequence[int]`, *optional*): 0-based indices into the bands selected so far.
            window (`tuple[int, int, int, int]`, *optional*): (row offset, column offset, height, width) in pixels,
                relative to the window selected so far.

        Returns:
            The narrowed raster: shape, transform and descriptions follow the selection.

        Raises:
            IndexError: a band outside the raster.
            ValueError: an empty selection, or a window outside the raster.
        """
        narrowed = object.__new__(type(self))
        narrowed.__dict__.update(self.__dict__)
        if bands is not None:
            narrowed._bands = self._resolve_bands(bands)
        if window is not None:
            narrowed._window = self._resolve_window(window)
        return narrowed

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.read()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __repr__(self) -> str:
        crs = "None" if self.crs is None else self.crs.to_string()
        return f"{type(self).__name__}({self.name!r}, shape={self.shape}, dtype={self.dtype}, crs={crs})"

    def _resolve_bands(self, bands: Sequence[int]) -> tuple[int, ...]:
        if not len(bands):
            raise ValueError(f"{self.name}: expected at least one band to select, found none.")
        outside = [band for band in bands if not 0 <= band < self.count]
        if outside:
            raise IndexError(
                f"{self.name}: expected 0-based bands in 0..{self.count - 1}, found {outside}. "
                f"Its bands are {list(self.descriptions)}."
            )
        return tuple(self.bands[band] for band in bands)

    def _resolve_window(self, window: Window) -> Window:
        row, column, height, width = (int(value) for value in window)
        inside = row >= 0 and column >= 0 and row + height <= self.height and column + width <= self.width
        if not inside or height < 1 or width < 1:
            raise ValueError(
                f"{self.name}: expected a window (row offset, column offset, height, width) inside {self.height} x "
                f"{self.width} pixels, found {tuple(window)}."
            )
        return (self._window[0] + row, self._window[1] + column, height, width)


def shift_transform(transform: Affine, row: int, column: int) -> Affine:
    """The transform of a window.

    Args:
        transform: of the whole raster.
        row: first row of the window.
        column: first column of the window.

    Returns:
        From (column, row) of the window to the same coordinates.
    """
    a, b, c, d, e, f = transform[:6]
    # Written out: releases of affine differ in the operator that composes.
    return Affine(a, b, a * column + b * row + c, d, e, d * column + e * row + f)


__all__ = ["RasterSelection", "Window", "shift_transform"]
