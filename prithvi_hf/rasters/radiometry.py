# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Scale and offset of digital numbers, applied once or refused.

Files hold numbers from which reflectance is `number * scale + offset`; what scale and offset are is said by GeoTIFF
tags or by the product. A model takes numbers too: its image processor turns them into those of the statistics it was
trained with, by a factor and an offset of its own. Three cases follow. The file's numbers are what the processor
takes, as HLS files are for a model of reflectance times 10,000: they stay as they are. They are in other units, as the
same files are for a model of reflectance: they are converted. Or nothing tells: that is refused.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from transformers.utils import logging

from prithvi_hf.models.prithvi.pixel_values_prithvi import equals_nodata
from prithvi_hf.rasters.derived import (
    DerivedRaster,
    Window,
    header_of,
    union,
)


logger = logging.get_logger(__name__)

ScaleOption = Literal["auto", "apply", "refuse", "ignore"]
SCALE_OPTIONS = ("auto", "apply", "refuse", "ignore")

# Statistics of reflectance lie about 0.1, those of reflectance times 10,000 about 1,000.
_LARGEST_REFLECTANCE = 3.0
_SMALLEST_COUNTS = 100.0
_COUNTS = 10_000.0
# A scale above this belongs to another quantity (a temperature, an angle) or to no physical one.
_LARGEST_REFLECTANCE_SCALE = 0.01
_EQUAL = 1e-9


class RadiometryWarning(UserWarning):
    """Digital numbers are changed, by more than a power of ten, before the model sees them."""


@dataclass(frozen=True)
class Radiometry:
    """How numbers in a file become reflectance: number * scale + offset.

    Attributes:
        scales: one a band.
        offsets: one a band.
        origin: what says so, for messages.
        is_tagged: whether the file itself says so; else the product does.
    """

    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    origin: str
    is_tagged: bool

    @property
    def is_identity(self) -> bool:
        """Whether the numbers are the values."""
        return all(scale == 1 for scale in self.scales) and not any(self.offsets)


class ScaledRaster(DerivedRaster):
    """A raster whose values are `number * factor + offset`, float32; what is no data there becomes NaN.

    Args:
        raster: the numbers.
        factors: one a band.
        offsets: one a band, added after the multiplication.
        nodata_values: numbers that mean "no data" beside the raster's `nodata`; they are looked for before scaling.

    Raises:
        ValueError: another number of factors or offsets than of bands.
    """

    def __init__(
        self, raster: Any, factors: Sequence[float], offsets: Sequence[float], nodata_values: Sequence[float] = ()
    ) -> None:
        if not len(factors) == len(offsets) == raster.count:
            raise ValueError(
                f"{raster.name}: expected a factor and an offset for each of {raster.count} bands, found "
                f"{len(factors)} and {len(offsets)}."
            )
        super().__init__(**{**header_of(raster), "dtype": "float32", "nodata": math.nan})
        self._source, self._factors, self._added = raster, tuple(map(float, factors)), tuple(map(float, offsets))
        self._missing = tuple(float(value) for value in (raster.nodata, *nodata_values) if value is not None)

    @property
    def sources(self) -> tuple[Any, ...]:
        """The raster of the numbers."""
        return (self._source,)

    @property
    def recipe(self) -> dict[str, Any]:
        """Factors, offsets and numbers that are no data."""
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
        own = self._source.select(bands, window).read_nodata_mask()
        return union([] if own is None else [own])


def tagged_radiometry(raster: Any) -> Radiometry:
    """What a raster's scale and offset tags say.

    Args:
        raster: a GeoTIFF, or any raster.

    Returns:
        The identity where there are no tags.
    """
    count = raster.count
    scales, offsets = getattr(raster, "scales", (1.0,) * count), getattr(raster, "offsets", (0.0,) * count)
    return Radiometry(tuple(scales), tuple(offsets), "its scale and offset tags", is_tagged=True)


def apply_radiometry(
    raster: Any,
    radiometry: Radiometry,
    scale: ScaleOption,
    image_processor: Any = None,
    nodata_values: Sequence[float] = (),
    needed: Sequence[int] | None = None,
) -> Any:
    """Brings the numbers of a frame into the units that the image processor takes.

    Args:
        raster: the frame.
        radiometry: how its numbers become reflectance.
        scale: "auto": into the units of the image processor, refused where those or the file's cannot be told;
            "apply": into reflectance, or whatever the tags lead to; "ignore": as in the file; "refuse": any change is
            an error.
        image_processor: the model's image processor.
        nodata_values: numbers that mean "no data" beside the frame's own.
        needed: 0-based bands that are used; None for all.

    Returns:
        The frame itself where nothing changes, else a `ScaledRaster`.

    Raises:
        ValueError: the units cannot be told, a change is refused, or `scale` is none of the four.
    """
    if scale not in SCALE_OPTIONS:
        raise ValueError(f"scale: expected one of {', '.join(SCALE_OPTIONS)}, found {scale!r}.")
    if scale == "ignore" or radiometry.is_identity:
        return raster
    if scale == "apply":
        return ScaledRaster(raster, radiometry.scales, radiometry.offsets, nodata_values)
    needed = range(raster.count) if needed is None else needed
    units = input_units(image_processor)
    if units is None or not _are_reflectance_scales([radiometry.scales[band] for band in needed]):
        return _without_units(raster, radiometry, units)
    factors, offsets = _conversion(radiometry, units)
    if all(factors[band] == 1 and offsets[band] == 0 for band in needed):
        return raster
    message = _message(raster, radiometry, factors[needed[0]], offsets[needed[0]])
    if scale == "refuse":
        raise ValueError(f"{message} scale 'refuse' does not allow it: choose 'auto', 'apply' or 'ignore'.")
    _report(message, factors, offsets, needed)
    return ScaledRaster(raster, factors, offsets, nodata_values)


def input_units(image_processor: Any) -> tuple[float, float] | None:
    """The numbers that an image processor takes for reflectance.

    Args:
        image_processor: a `PrithviImageProcessor`, or None.

    Returns:
        (counts, shift): it takes reflectance * counts + shift. None where its statistics do not tell.
    """
    if image_processor is None or not image_processor.do_normalize:
        return None
    pairs = zip(image_processor.image_mean, image_processor.image_std, strict=True)
    size = float(np.median([max(abs(mean), std) for mean, std in pairs]))
    if _LARGEST_REFLECTANCE < size < _SMALLEST_COUNTS:
        return None
    counts = 1.0 if size <= _LARGEST_REFLECTANCE else _COUNTS
    if not image_processor.do_rescale:
        return counts, 0.0
    return counts / image_processor.rescale_factor, -image_processor.rescale_offset / image_processor.rescale_factor


def _are_reflectance_scales(scales: Sequence[float]) -> bool:
    return all(0 < scale < _LARGEST_REFLECTANCE_SCALE for scale in scales)


def _without_units(raster: Any, radiometry: Radiometry, units: tuple[float, float] | None) -> Any:
    """What a product says without an offset is common knowledge of its users; all else must not be left out."""
    if not radiometry.is_tagged and not any(radiometry.offsets):
        return raster
    unknown = "the units that the model takes" if units is None else "the quantity that these scales lead to"
    raise ValueError(
        f"{raster.name}: expected numbers in known units; {radiometry.origin} say value = number * "
        f"{radiometry.scales[0]:g} + {radiometry.offsets[0]:g}, and nothing tells {unknown}. Give the image processor "
        "of the model, or choose scale 'apply' (values by this formula) or scale 'ignore' (numbers as in the file)."
    )


def _conversion(radiometry: Radiometry, units: tuple[float, float]) -> tuple[list[float], list[float]]:
    """Factor and offset of each band from the file's numbers to the processor's."""
    counts, shift = units
    factors = [_clean(scale * counts, 1.0) for scale in radiometry.scales]
    offsets = [_clean(offset * counts + shift, 0.0, max(1.0, abs(shift))) for offset in radiometry.offsets]
    return factors, offsets


def _clean(value: float, expected: float, size: float = 1.0) -> float:
    """The number that was meant, where rounding of factors such as 0.0001 missed it."""
    if abs(value - expected) <= _EQUAL * size:
        return expected
    near = round(value)
    return float(near) if near and abs(value - near) <= _EQUAL * abs(near) else value


def _message(raster: Any, radiometry: Radiometry, factor: float, offset: float) -> str:
    return (
        f"{raster.name}: {radiometry.origin} say reflectance = number * {radiometry.scales[0]:g} + "
        f"{radiometry.offsets[0]:g}. In the units of the model that is number * {factor:g} + {offset:g}."
    )


def _report(message: str, factors: Sequence[float], offsets: Sequence[float], needed: Sequence[int]) -> None:
    """Warns where a model trained on the plain numbers would be misled; units alone cannot be mistaken."""
    powers = [math.log10(factors[band]) for band in needed]
    if all(offsets[band] == 0 for band in needed) and all(abs(power - round(power)) < _EQUAL for power in powers):
        logger.info(message)
        return
    warnings.warn(
        f"{message} This is applied. If the model was trained on the numbers as they are in such files, choose "
        "scale 'ignore'.",
        RadiometryWarning,
        stacklevel=2,
    )


__all__ = [
    "SCALE_OPTIONS",
    "Radiometry",
    "RadiometryWarning",
    "ScaleOption",
    "ScaledRaster",
    "apply_radiometry",
    "input_units",
    "tagged_radiometry",
]
