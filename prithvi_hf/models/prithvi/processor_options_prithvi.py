# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Types and limits of the image processor's options, each refusal with what was expected and what was found."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .bands_prithvi import band_key


def reject(option: str, expected: str, found: Any) -> ValueError:
    """The error for an option that cannot be.

    Args:
        option: its name.
        expected: what it may be.
        found: what it is.

    Returns:
        The error, for the caller to raise.
    """
    return ValueError(f"{option}: expected {expected}, found {found!r} ({type(found).__name__})")


def _clean_bool(option: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise reject(option, "true or false", value)
    return bool(value)


def _clean_int(option: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise reject(option, "an integer", value)
    return int(value)


def _clean_positive_int(option: str, value: Any) -> int:
    if _clean_int(option, value) < 1:
        raise reject(option, "at least 1", value)
    return int(value)


def _clean_float(option: str, value: Any) -> float:
    if isinstance(value, str):
        raise reject(option, "a number, not text (YAML reads 1e-4 as text: write 1.0e-4)", value)
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise reject(option, "a number", value)
    if not math.isfinite(value):
        raise reject(option, "a finite number", value)
    return float(value)


def _clean_factor(option: str, value: Any) -> float:
    if _clean_float(option, value) == 0:
        raise reject(option, "a number other than 0", value)
    return float(value)


def _clean_list(option: str, value: Any) -> list:
    if isinstance(value, np.ndarray | torch.Tensor):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise reject(option, "a list", value)
    return list(value)


def _clean_floats(option: str, value: Any) -> list[float] | float:
    if isinstance(value, int | float | np.number):
        return _clean_float(option, value)
    return [_clean_float(option, item) for item in _clean_list(option, value)]


def _clean_ints(option: str, value: Any) -> list[int]:
    values = [value] if isinstance(value, int | np.integer) else _clean_list(option, value)
    return [_clean_int(option, item) for item in values]


def _clean_names(option: str, value: Any) -> list[str]:
    values = _clean_list(option, value)
    if not values or not all(isinstance(item, str) and item.strip() for item in values):
        raise reject(option, "a list of band names", value)
    return values


def _clean_nodata(option: str, value: Any) -> float | list[float]:
    """A number or a list of numbers; NaN and infinity are numbers here, also as the text that JSON holds."""
    if isinstance(value, list | tuple | np.ndarray):
        return [_clean_nodata(option, item) for item in value]
    if isinstance(value, str) and value.lower() in ("nan", "inf", "-inf"):
        return float(value)
    if isinstance(value, float | np.floating) and not math.isfinite(value):
        return float(value)
    return _clean_float(option, value)


def _clean_file_nodata(option: str, value: Any) -> float | list[float | None]:
    if isinstance(value, list | tuple | np.ndarray):
        return [None if item is None else _clean_nodata(option, item) for item in value]
    return _clean_nodata(option, value)


def _one_of(*choices: str) -> Callable[[str, Any], str]:
    """A cleaner of an option that is one of a few texts."""

    def clean(option: str, value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise reject(option, " or ".join(map(repr, choices)), value)
        return value

    return clean


OPTION_CLEANERS: dict[str, Callable[[str, Any], Any]] = {
    "bands": _clean_names,
    "band_indices": _clean_ints,
    "num_frames": _clean_positive_int,
    "frame_order": _one_of("time_major", "original_crop"),
    "do_rescale": _clean_bool,
    "rescale_factor": _clean_factor,
    "rescale_offset": _clean_float,
    "do_normalize": _clean_bool,
    "image_mean": _clean_floats,
    "image_std": _clean_floats,
    "nodata_value": _clean_nodata,
    "nodata_replacement": _clean_float,
    "nodata_rule": _one_of("all", "any"),
    "ignore_values": _clean_ints,
    "do_reduce_labels": _clean_bool,
    "num_labels": _clean_positive_int,
    "mask_nodata_labels": _clean_bool,
    "return_nodata_mask": _clean_bool,
    "file_nodata": _clean_file_nodata,
}


def clean_option(option: str, value: Any) -> Any:
    """Brings an option to the form in which it is saved: plain Python lists, numbers and truth values.

    Args:
        option: its name; options without rules of their own pass as they are.
        value: what was given; None passes.

    Returns:
        The value in its saved form.

    Raises:
        ValueError: the value is of another type, or outside the option's limits.
    """
    return value if value is None or option not in OPTION_CLEANERS else OPTION_CLEANERS[option](option, value)


def to_json_number(value: Any) -> Any:
    """Numbers as JSON can hold them: NaN and infinity become `"nan"`, `"inf"` and `"-inf"`.

    Args:
        value: a number, a list of numbers, or None.

    Returns:
        The same with text for what JSON has no number for.
    """
    if isinstance(value, list):
        return [to_json_number(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def check_consistency(options: Mapping[str, Any]) -> None:
    """Checks that cleaned options fit each other.

    Args:
        options: every option of the processor; one number for `image_mean` or `image_std` stands for all bands.

    Raises:
        ValueError: lists of other length than `bands`, names or positions given twice, a standard deviation that is
            not positive.
    """
    bands = options["bands"]
    if len({band_key(band) for band in bands}) != len(bands):
        raise reject("bands", "different names", bands)
    if options["do_normalize"]:
        _check_length("image_mean", options["image_mean"], bands)
        _check_length("image_std", options["image_std"], bands)
        if np.min(options["image_std"]) <= 0:
            raise reject("image_std", "values greater than 0", options["image_std"])
    indices = options["band_indices"]
    if indices is not None:
        _check_length("band_indices", indices, bands)
        if min(indices) < 0 or len(set(indices)) != len(indices):
            raise reject("band_indices", "different 0-based positions", indices)


def _check_length(option: str, values: Any, bands: Sequence[str]) -> None:
    if isinstance(values, list) and len(values) != len(bands):
        raise ValueError(
            f"{option}: expected {len(bands)} values, one for each of {', '.join(bands)}, found {len(values)}. "
            f"Remedy: give {option} and bands the same length."
        )


def one_an_image(option: str, value: Any, batch_size: int, scalar: type) -> list[Any]:
    """One value an image, from one value for all or a list.

    Args:
        option: its name, for the message.
        value: what was given to the call.
        batch_size: number of images.
        scalar: type of one value.

    Returns:
        `batch_size` values.

    Raises:
        ValueError: a list of another length.
    """
    if value is None or isinstance(value, scalar):
        return [value] * batch_size
    if len(value) != batch_size:
        raise ValueError(f"{option}: expected one entry for each of {batch_size} images, found {len(value)}")
    return list(value)


def band_names_an_image(value: Sequence[Any] | None, batch_size: int) -> list[Any]:
    """The band descriptions of each image, from one list for all or a list of lists.

    Args:
        value: what was given to the call.
        batch_size: number of images.

    Returns:
        `batch_size` lists, or None in their place.
    """
    if value is None or not any(isinstance(item, list | tuple) for item in value):
        return [value] * batch_size
    return one_an_image("band_names", value, batch_size, str)


__all__ = [
    "OPTION_CLEANERS",
    "band_names_an_image",
    "check_consistency",
    "clean_option",
    "one_an_image",
    "reject",
    "to_json_number",
]
