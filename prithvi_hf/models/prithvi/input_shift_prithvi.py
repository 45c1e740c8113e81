# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Whether an image is like those of the training: the means of its bands against their spread among training chips.

Two figures tell for each band: how far its mean is from that of the training chips, and how far its mean minus that of
all bands is, both in standard deviations between training chips. Other units show in the first, bands in another order
in the second. Means are of pixels with data and of values as the model gets them, after scaling and normalisation.
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np


FAR = 3.0
"""Standard deviations beyond which a band is far from the training. On eight real Sentinel-2 chips, each held against
the other seven, one is beyond it, which haze covers; times ten or divided by ten, all of them are."""
LEAST_CHIPS = 5
"""Chips that tell a spread."""
_LEAST_SPREAD = 1e-3  # of a band that hardly varies, such as one that is filled with zeros


class InputShiftWarning(UserWarning):
    """An image that is not like those of the training."""


def describe_chips(means: np.ndarray) -> dict[str, Any] | None:
    """Describe the spread of band means (chips, bands) between training chips, NaN where a chip has no data.

    Returns:
        What `PrithviImageProcessor.training_statistics` holds: `chips`, their number, and for each band `mean`, `std`
        and, of its mean minus that of all bands, `contrast_std`; None for fewer than five chips.
    """
    means = means[np.isfinite(means).all(axis=1)]
    if len(means) < LEAST_CHIPS:
        return None
    contrast = means - means.mean(axis=1, keepdims=True)
    spreads = {"mean": means.mean(0), "std": means.std(0, ddof=1), "contrast_std": contrast.std(0, ddof=1)}
    return {"chips": len(means), **{name: [float(f"{value:.6g}") for value in part] for name, part in spreads.items()}}


def check_input(means: np.ndarray, image_processor: Any, name: str) -> dict[str, dict[str, float]]:
    """Hold the band means (bands,) of an image against the training, and warn where one is far from it.

    Args:
        means: Of the values that the model gets.
        image_processor: With `training_statistics`.
        name: What the warning calls the image.

    Returns:
        For each band `mean` and `training_mean`, in the units before normalisation, and `z_score` and
        `contrast_z_score`, in standard deviations between training chips.
    """
    training = image_processor.training_statistics
    center, spread = np.array(training["mean"]), np.array(training["std"])
    # An image is as far from the mean of few chips as it is from their spread and from what they leave unknown.
    factor = math.sqrt(1 + 1 / training["chips"])
    scores = (means - center) / (factor * np.maximum(spread, _LEAST_SPREAD))
    contrasts = (means - means.mean() - (center - center.mean())) / (
        factor * np.maximum(np.array(training["contrast_std"]), _LEAST_SPREAD)
    )
    scale, offset = np.ones(len(means)), np.zeros(len(means))
    if image_processor.do_normalize:
        scale, offset = np.array(image_processor.image_std, float), np.array(image_processor.image_mean, float)
    values, expected = means * scale + offset, center * scale + offset
    rows = zip(image_processor.bands, values, expected, scores, contrasts, strict=True)
    found = {
        str(band): {
            "mean": float(f"{value:.6g}"),
            "training_mean": float(f"{own:.6g}"),
            "z_score": round(float(score), 2),
            "contrast_z_score": round(float(contrast), 2),
        }
        for band, value, own, score, contrast in rows
    }
    if far := find_far_bands(found):
        lines = [
            f"  {band:<16} mean {found[band]['mean']:<10g} in the training {found[band]['training_mean']:<10g} z "
            f"{found[band]['z_score']:+.1f}, beside the other bands {found[band]['contrast_z_score']:+.1f}"
            for band in far
        ]
        warnings.warn(
            f"{name}: expected band means like those of the {training['chips']} training chips (|z| up to {FAR:g}), "
            "found\n" + "\n".join(lines) + "\n"
            "The map may be wrong. Likely causes: other units (rescale_factor, rescale_offset, scale), bands in "
            "another order (band_map), another sensor or product level, clouds or snow, another season or landscape.",
            InputShiftWarning,
            stacklevel=2,
        )
    return found


def find_far_bands(found: dict[str, dict[str, float]]) -> list[str]:
    """List the bands that are far from the training, by what [`check_input`] has found of each."""
    return [band for band, one in found.items() if max(abs(one["z_score"]), abs(one["contrast_z_score"])) > FAR]


def measure_means(pixel_values: np.ndarray, nodata: np.ndarray) -> np.ndarray:
    """Measure the mean of each band of an image (bands, frames, H, W) where it has data, NaN without any."""
    values = pixel_values[:, :, ~nodata]
    return values.mean(axis=(1, 2), dtype=np.float64) if values.size else np.full(len(pixel_values), np.nan)


def check_statistics(value: dict[str, Any], bands: Sequence[str]) -> str | None:
    """Say what is wrong with `training_statistics`; None for nothing."""
    lists = ("mean", "std", "contrast_std")
    if set(value) != {"chips", *lists} or not isinstance(value["chips"], int) or value["chips"] < LEAST_CHIPS:
        return f"the keys chips (at least {LEAST_CHIPS}), {', '.join(lists)}"
    for name in lists:
        numbers = value[name]
        if not isinstance(numbers, list) or len(numbers) != len(bands):
            return f"{len(bands)} numbers in {name}, one for each of {', '.join(bands)}"
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            return f"finite numbers in {name}"
    return None
