# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Scale and offset of digital numbers, applied once or refused.

Files hold numbers from which reflectance is `number * scale + offset`; what scale and offset are is said by GeoTIFF
tags, by a catalogue or by the product. A model takes numbers too: its image processor turns them into those of the
statistics it was trained with, by a factor and an offset of its own. Three cases follow. The file's numbers are what
the processor takes, as HLS files are for a model of reflectance times 10,000: they stay as they are. They are in other
units, as the same files are for a model of reflectance: they are converted. Or nothing tells: that is refused.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from transformers.utils import logging

from prithvi_hf.models.prithvi.pixel_values_prithvi import list_nodata
from prithvi_hf.rasters.derived import ScaledRaster
from prithvi_hf.rasters.raster import TAGS, Raster


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor

logger = logging.get_logger(__name__)

ScaleOption = Literal["auto", "apply", "refuse", "ignore"]
SCALE_OPTIONS = ("auto", "apply", "refuse", "ignore")

# Statistics of reflectance are about 0.1, those of reflectance times 10,000 about 1,000.
_LARGEST_REFLECTANCE = 3.0
_SMALLEST_COUNTS = 100.0
_COUNTS = 10_000.0
# A scale above this belongs to another quantity (a temperature, an angle) or to no physical one.
_LARGEST_REFLECTANCE_SCALE = 0.01
_LARGEST_REFLECTANCE_OFFSET = 1.0
_LARGEST_MEAN_REFLECTANCE = 0.6  # of all bands of a dataset
_EQUAL = 1e-9
_ALIKE = 1e-4  # of the scales and offsets that two sources state, one of them in single precision


class RadiometryWarning(UserWarning):
    """Digital numbers are changed, by more than a power of ten, before the model sees them."""


@dataclass(frozen=True)
class Radiometry:
    """How numbers in a file become reflectance: number * scale + offset, one of each per band.

    `origin` says where that is from, for messages, and `is_tagged` whether that is the file itself or a catalogue;
    else the product. `nodata` stands for no data beside the file's tag.
    """

    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    origin: str
    is_tagged: bool
    nodata: float | None = None

    @classmethod
    def from_tags(cls, *rasters: Raster) -> Self:
        """Read the scale and offset tags of the bands of rasters, one after the other."""
        scales = tuple(scale for raster in rasters for scale in raster.scales)
        offsets = tuple(offset for raster in rasters for offset in raster.offsets)
        origins = [raster.tags_origin for raster in rasters if raster.tags_origin != TAGS]
        return cls(scales, offsets, origins[0] if origins else TAGS, is_tagged=True)

    @classmethod
    def same_for_all(cls, count: int, scale: float, offset: float, origin: str) -> Self:
        """Take one scale and offset for all bands, which a product or the user states."""
        return cls((scale,) * count, (offset * scale,) * count, origin, is_tagged=False)

    @property
    def is_identity(self) -> bool:
        """Whether the numbers are the values."""
        return set(self.scales) <= {1.0} and not any(self.offsets)

    @property
    def is_stated(self) -> bool:
        """Whether a catalogue says so; an offset of 0 means something there, and may be missing in tags."""
        return self.is_tagged and self.origin != TAGS and not self.is_identity

    def check_agreement(
        self, other: "Radiometry", name: str, bands: Sequence[int] | None = None, remedy: str = ""
    ) -> None:
        """Refuse two sources that tell different scales or offsets of some bands (None for all) of `name`."""
        for band in range(len(self.scales)) if bands is None else bands:
            own, others = (self.scales[band], self.offsets[band]), (other.scales[band], other.offsets[band])
            if not np.allclose(own, others, rtol=_ALIKE, atol=_EQUAL):
                raise ValueError(
                    f"{name}: expected one scale and offset, found {own[0]:g} and {own[1]:g} by {self.origin}, "
                    f"{others[0]:g} and {others[1]:g} by {other.origin}: one of them may have been applied to the "
                    f"numbers before. {remedy or 'Correct one of the two.'}"
                )


def apply_radiometry(
    raster: Raster,
    radiometry: Radiometry,
    scale: ScaleOption,
    image_processor: "PrithviImageProcessor | None" = None,
    nodata_values: Sequence[float] = (),
    needed: Sequence[int] | None = None,
) -> Raster:
    """Bring the numbers of a frame into the units that the image processor takes, see `FrameOptions.scale`.

    Numbers of `nodata_values` mean "no data" beside the frame's own; `needed` are the bands that are used, None for
    all. A frame where nothing changes is returned itself.

    Raises:
        ValueError: the units cannot be told, or a change is refused.
    """
    scales, offsets = radiometry.scales, radiometry.offsets
    nodata_values = list_nodata(radiometry.nodata, nodata_values)
    if scale == "ignore" or radiometry.is_identity:
        return raster
    if scale == "apply":
        return ScaledRaster(raster, scales, offsets, nodata_values)
    needed = range(raster.count) if needed is None else needed
    units = input_units(image_processor)
    if (
        image_processor is None
        or units is None
        or not all(
            0 < scales[band] < _LARGEST_REFLECTANCE_SCALE and abs(offsets[band]) < _LARGEST_REFLECTANCE_OFFSET
            for band in needed
        )
    ):
        if not radiometry.is_tagged and not any(offsets):
            return raster  # what a product says without an offset is common knowledge of its users; all else is not
        unknown = "the units that the model takes" if units is None else "the quantity that these scales lead to"
        raise ValueError(
            f"{raster.name}: expected numbers in known units; by {radiometry.origin} a value is number * "
            f"{scales[0]:g} + {offsets[0]:g}, and nothing tells {unknown}. Give the image processor of the model, or "
            "choose scale 'apply' (values by this formula) or scale 'ignore' (numbers as in the file)."
        )
    counts, shift = units
    factors = [_clean(scale * counts, 1.0) for scale in scales]
    added = [_clean(offset * counts + shift, 0.0, max(1.0, abs(shift))) for offset in offsets]
    if all(factors[band] == 1 and added[band] == 0 for band in needed):
        return raster
    # What the model's statistics are as reflectance, if it takes other numbers than these, and if it takes these.
    factor, term = 1.0, 0.0
    if image_processor.do_rescale:
        factor, term = image_processor.rescale_factor, image_processor.rescale_offset
    numbers = (np.asarray(image_processor.image_mean) - term) / factor
    expected = (numbers - shift) / counts
    by_formula = numbers * np.take(scales, needed)[: len(numbers)] + np.take(offsets, needed)[: len(numbers)]
    if expected.min() > _LARGEST_MEAN_REFLECTANCE and 0 < by_formula.min() <= by_formula.max() < expected.min():
        logger.info(f"{raster.name}: the statistics of the model are those of such numbers, which stay as they are.")
        return raster
    message = (
        f"{raster.name}: by {radiometry.origin} reflectance is number * {scales[0]:g} + {offsets[0]:g}. In the units "
        f"of the model that is number * {factors[needed[0]]:g} + {added[needed[0]]:g}."
    )
    if scale == "refuse":
        raise ValueError(f"{message} scale 'refuse' does not allow it: choose 'auto', 'apply' or 'ignore'.")
    powers = [math.log10(factors[band]) for band in needed]
    hint = "This is applied. If the model was trained on the numbers as they are in such files, choose scale 'ignore'."
    if radiometry.is_stated or by_formula.max() < 0:
        logger.warning(f"{message} {hint}")  # hardly anything else can be meant
    elif any(added[band] for band in needed) or any(abs(power - round(power)) >= _EQUAL for power in powers):
        # A model trained on the plain numbers would be misled; units alone cannot be mistaken.
        warnings.warn(f"{message} {hint}", RadiometryWarning, stacklevel=2)
    else:
        logger.info(message)
    return ScaledRaster(raster, factors, added, nodata_values)


def input_units(image_processor: "PrithviImageProcessor | None") -> tuple[float, float] | None:
    """Find (counts, shift): an image processor takes reflectance * counts + shift; None where nothing tells."""
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


def _clean(value: float, expected: float, size: float = 1.0) -> float:
    """Give the number that was meant, where rounding of factors such as 0.0001 missed it."""
    if abs(value - expected) <= _EQUAL * size:
        return expected
    near = round(value)
    return float(near) if near and abs(value - near) <= _EQUAL * abs(near) else value
