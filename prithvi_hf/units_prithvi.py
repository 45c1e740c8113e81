# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Are the pixel values in the units of the statistics? Digital numbers taken for reflectance ruin results silently."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .raster_values_prithvi import Frame


# Digital numbers and reflectance differ by a factor of 10,000. The brightest cloud and the darkest water stay well
# within a factor of 100 of usual means, in the bands that `units_factor` goes by.
UNITS_FACTOR = 100.0
_SAMPLED_PIXELS = 4096


class UnitsWarning(UserWarning):
    """The pixel values are plainly in other units than the statistics that normalise them."""


def units_problem(
    frames: Sequence[Frame], missing: Sequence[np.ndarray | None], options: Mapping[str, Any], name: str
) -> str | None:
    """Compares the valid values of an image, after scaling, with the statistics.

    Args:
        frames: the frames as read.
        missing: for each frame the values that do not count, as from `find_nodata`.
        options: the image processor's scaling and statistics.
        name: what the message calls the image.

    Returns:
        The text of a warning with the measured and the expected figures, or None when nothing is plainly wrong.
    """
    height, width = frames[0].values.shape[-2:]
    step = max(1, math.isqrt(height * width // _SAMPLED_PIXELS))
    _, magnitudes = _measure(frames, missing, options, step)
    factor = units_factor(magnitudes, options["image_mean"], options["image_std"])
    if factor is None:
        return None
    means, _ = _measure(frames, missing, options, step=1)
    return _message(factor, means, options, name)


def units_factor(magnitudes: Sequence[float], image_mean: Sequence[float], image_std: Sequence[float]) -> float | None:
    """How many times too large values are.

    Too large needs most bands, so that clouds and snow are let through; too small needs every band, so that water,
    black in the infrared but not in blue, is let through.

    Args:
        magnitudes: mean absolute value of each band; NaN where a band has no valid value.
        image_mean: expected mean of each band.
        image_std: expected standard deviation of each band.

    Returns:
        The median ratio of found to expected, or None when the values may well be in the units of the statistics.
    """
    expected = np.maximum(np.abs(np.asarray(image_mean)), np.asarray(image_std))
    ratios = np.asarray(magnitudes) / expected
    ratios = ratios[np.isfinite(ratios)]
    if ratios.size == 0:
        return None
    middle = float(np.median(ratios))
    return middle if middle > UNITS_FACTOR or ratios.max() < 1 / UNITS_FACTOR else None


def _measure(
    frames: Sequence[Frame], missing: Sequence[np.ndarray | None], options: Mapping[str, Any], step: int
) -> tuple[list[float], list[float]]:
    """Mean and mean magnitude of each band's valid values after scaling; NaN for a band without any."""
    means, magnitudes = [], []
    for channel in range(frames[0].values.shape[0]):
        parts = [_valid_values(frame, where, channel, step) for frame, where in zip(frames, missing, strict=True)]
        values = np.concatenate(parts)
        if options["do_rescale"]:
            values = values * options["rescale_factor"] + options["rescale_offset"]
        means.append(float(values.mean()) if values.size else math.nan)
        magnitudes.append(float(np.abs(values).mean()) if values.size else math.nan)
    return means, magnitudes


def _valid_values(frame: Frame, where: np.ndarray | None, channel: int, step: int) -> np.ndarray:
    values = frame.values[channel, ::step, ::step]
    # Zero is what files without a nodata tag are filled with, and says nothing about units.
    keep = values != 0
    if where is not None:
        keep &= ~where[channel, ::step, ::step]
    return values[keep].astype(np.float64)


def _message(factor: float, means: Sequence[float], options: Mapping[str, Any], name: str) -> str:
    rows = [
        f"  {band:<16} measured mean {measured:<12.6g} expected mean {mean:.6g}, std {std:.6g}"
        for band, measured, mean, std in zip(
            options["bands"], means, options["image_mean"], options["image_std"], strict=True
        )
    ]
    current = options["rescale_factor"] if options["do_rescale"] else 1.0
    suggestion = current * 10.0 ** -round(math.log10(factor))
    offset = options["rescale_offset"] if options["do_rescale"] else 0.0
    direction = f"{factor:,.0f} times larger" if factor > 1 else f"{1 / factor:,.0f} times smaller"
    return "\n".join(
        [
            f"{name}: expected values in the units of image_mean, found values about {direction} after scaling "
            "(digital numbers against reflectance?). Figures after scaling, of the valid pixels:",
            *rows,
            f"Remedy: set do_rescale=True, rescale_factor={suggestion:.6g} (the factor is {current:.6g} now, the "
            f"offset {offset:.6g}), or give image_mean and image_std in the units of the files.",
        ]
    )


__all__ = ["UNITS_FACTOR", "UnitsWarning", "units_factor", "units_problem"]
