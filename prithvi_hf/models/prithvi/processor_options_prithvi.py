# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Options of the image processor: their types, limits and defaults, each refusal with what was expected and found.

This file must not postpone the evaluation of its annotations: `@strict` skips string annotations.
"""
# ruff: noqa: RUF009 - `_option` declares a field

import math
import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
from huggingface_hub.dataclasses import strict, validated_field
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError

from .bands_prithvi import band_key, parse_band_map
from .input_shift_prithvi import check_statistics


IGNORED_LABEL = -100
Number = float | int
_INTEGER = re.compile(r"\s*-?\d+\s*")
_MAX_BANDS, _MAX_VALUES = 4096, 256  # far above what files have, and little enough to be looked through for each image
Options = TypeVar("Options", "ProcessorOptions", "CallOptions")


def _option(default: object, expected: str, is_valid: Callable[[Any], bool] | None = None) -> Any:
    """Declare an option: its default, what a refusal says that it may be, and a test of its value beside the type."""

    def check(value: object) -> None:
        if value is not None and is_valid is not None and not is_valid(value):
            raise ValueError

    factory = {"default_factory": lambda: list(default)} if isinstance(default, list) else {"default": default}
    return validated_field(check, metadata={"expected": expected}, **factory)


def _is_finite(value: Number | list[Number]) -> bool:
    return bool(np.isfinite(value).all())


@strict
@dataclass
class ProcessorOptions:
    """The options that [`PrithviImageProcessor`] documents and saves; numbers may be integers, sequences are lists."""

    bands: list[str] = _option(
        ["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"],
        f"a list of different band names, {_MAX_BANDS} at most",
        lambda names: (
            0 < len(names) <= _MAX_BANDS
            and all(map(str.strip, names))
            and len(set(map(band_key, names))) == len(names)
        ),
    )
    band_indices: list[int] | None = _option(
        None, "different 0-based positions", lambda value: min(value) >= 0 and len(set(value)) == len(value)
    )
    band_map: dict[str, str | int] | None = _option(
        None,
        "a description, code or 0-based position for each band",
        lambda value: all(
            place.strip() if isinstance(place, str) else place >= 0 and not isinstance(place, bool)
            for place in value.values()
        ),
    )
    band_names: list[str | None] | None = _option(
        None, f"a list of at most {_MAX_BANDS} band names", lambda names: len(names) <= _MAX_BANDS
    )
    num_frames: int = _option(1, "an integer from 1 to 4096", lambda value: 1 <= value <= 4096)
    frame_order: Literal["time_major", "original_crop"] = _option("time_major", "'time_major' or 'original_crop'")
    do_rescale: bool = _option(True, "true or false")
    rescale_factor: Number = _option(
        1.0, "a finite number other than 0", lambda value: _is_finite(value) and value != 0
    )
    rescale_offset: Number = _option(0.0, "a finite number", _is_finite)
    do_normalize: bool = _option(True, "true or false")
    image_mean: list[Number] = _option(
        [775.0, 1081.0, 1229.0, 2497.0, 2204.0, 1611.0], "a finite number, or one per band", _is_finite
    )
    image_std: list[Number] = _option(
        [1282.0, 1270.0, 1399.0, 1368.0, 1292.0, 1155.0], "a finite number, or one per band", _is_finite
    )
    nodata_value: Number | list[Number] | None = _option(
        None, f"a number or a list of at most {_MAX_VALUES} numbers", lambda value: np.size(value) <= _MAX_VALUES
    )
    nodata_replacement: Number = _option(0.0, "a finite number", _is_finite)
    nodata_rule: Literal["all", "any"] = _option("all", "'all' or 'any'")
    ignore_values: list[int] | None = _option(
        None, "an integer or a list of at most 65536 integers", lambda values: len(values) <= 2**16
    )
    label_map: dict[int, int] | None = _option(
        None,
        "a mapping from mask values to class numbers from 0 on, such as {255: 1}",
        lambda value: 0 < len(value) <= 2**16 and min(value.values()) >= 0,
    )
    do_reduce_labels: bool = _option(False, "true or false")
    num_labels: int | None = _option(None, "an integer from 1 to 65536", lambda value: 1 <= value <= 2**16)
    mask_nodata_labels: bool = _option(False, "true or false")
    first_day_of_year: Literal[0, 1] = _option(0, "0 or 1")
    label_type: Literal["class", "value"] = _option("class", "'class' or 'value'")
    target_rescale_factor: Number = _option(
        1.0, "a finite number other than 0", lambda value: _is_finite(value) and value != 0
    )
    target_rescale_offset: Number = _option(0.0, "a finite number", _is_finite)
    target_nodata_value: Number | list[Number] | None = _option(
        None,
        f"a finite number or a list of at most {_MAX_VALUES}",
        lambda v: np.size(v) <= _MAX_VALUES and _is_finite(v),
    )
    target_range: list[Number] | None = _option(
        None, "the smallest and the largest value", lambda value: len(value) == 2 and value[0] < value[1]
    )
    training_statistics: dict[str, int | list[Number]] | None = _option(None, "what a training measured")

    def validate_lists(self) -> None:
        """Check that there is one entry per band, and that the statistics can serve where they are used."""
        per_band: dict[str, Sequence[Number] | None] = {"band_indices": self.band_indices}
        known = [band_key(band) for band in self.bands]
        if unknown := [band for band in self.band_map or () if band_key(band) not in known]:
            raise ValueError(
                f"band_map: expected some of the bands {', '.join(self.bands)}, found {', '.join(unknown)}. Remedy: "
                "write BAND=DESCRIPTION with the model's name of the band first."
            )
        if self.do_normalize:
            per_band |= {"image_mean": self.image_mean, "image_std": self.image_std}
        for name, values in per_band.items():
            if values is not None and len(values) != len(self.bands):
                remedy = f"give {name} and bands the same length."
                if name != "band_indices":
                    remedy = "measure the bands by `prithvi-hf stats`, whose image_mean and image_std a recipe takes."
                raise ValueError(
                    f"{name}: expected {len(self.bands)} values, one for each of {', '.join(self.bands)}, found "
                    f"{len(values)}. Remedy: {remedy}"
                )
        label_map = self.label_map or {}
        if label_map and self.do_reduce_labels:
            raise ValueError(
                "label_map: expected without do_reduce_labels, found both, which number the classes in two ways. "
                "Remedy: for masks that hold 1 to n give do_reduce_labels alone, for other values label_map alone."
            )
        if both := sorted(label_map.keys() & {IGNORED_LABEL, *(self.ignore_values or ())}):
            raise ValueError(
                f"label_map: expected other values than those that are ignored, found {both} in both. Remedy: take "
                "them out of ignore_values or out of label_map."
            )
        if self.num_labels is not None and max(label_map.values(), default=0) >= self.num_labels:
            raise ValueError(
                f"label_map: expected class numbers 0 to {self.num_labels - 1} ({self.num_labels} classes), found "
                f"{max(label_map.values())}. Remedy: correct it, or name all classes."
            )
        of_classes = ("ignore_values", "label_map", "do_reduce_labels", "num_labels")
        if self.label_type == "value" and (found := [name for name in of_classes if getattr(self, name)]):
            raise ValueError(
                f"label_type: expected 'value' without options of classes, found {', '.join(found)}. Remedy: leave "
                "them out; target_nodata_value and target_range say which values do not count."
            )
        if self.training_statistics and (expected := check_statistics(self.training_statistics, self.bands)):
            raise ValueError(
                f"training_statistics: expected {expected}, found {str(self.training_statistics)[:300]}. Remedy: "
                "leave it out; a training measures it."
            )
        if self.do_normalize and min(self.image_std) <= 0:
            raise ValueError(f"image_std: expected values greater than 0, found {self.image_std}")


@strict
@dataclass
class CallOptions:
    """The options of a single call, which [`PrithviImageProcessor.preprocess`] documents."""

    band_names: list | None = _option(None, "a list of band names, or one such list per image")
    file_nodata: Number | list[Number | None] | None = _option(None, "a number, or a list with one entry per image")
    return_nodata_mask: bool | None = _option(None, "true or false")
    names: str | list[str | None] | None = _option(None, "a text, or a list with one text per image")
    return_tensors: Literal["pt", "np"] | None = _option(None, "'pt', 'np' or None")


OPTION_NAMES = tuple(ProcessorOptions.__dataclass_fields__)
CALL_OPTION_NAMES = tuple(CallOptions.__dataclass_fields__)


def update_options(options: Options, values: Mapping[str, object]) -> Options:
    """Give a copy of options with new values, checked, in the form in which they are saved.

    Arrays, tensors and tuples become lists, numpy's numbers plain ones, single numbers lists where a list is meant,
    the texts "nan", "inf" and "-inf" of JSON numbers. None leaves an option as it is where it may not be None.
    """
    options = copy(options)
    if isinstance(options, ProcessorOptions):
        values = {"bands": options.bands, **values}  # first: the others are as many as they
    for name, given in values.items():
        field = options.__dataclass_fields__[name]
        if given is None and field.default is not None:
            continue
        value = _to_plain(given, is_nodata=name in ("nodata_value", "file_nodata"))
        if name == "label_map" and isinstance(value, Mapping):
            # JSON has no keys but texts.
            value = {int(k) if isinstance(k, str) and _INTEGER.fullmatch(k) else k: v for k, v in value.items()}
        if name in ("band_indices", "ignore_values") and isinstance(value, int):
            value = [value]
        elif name == "band_map":
            value = parse_band_map(value)
        elif (
            isinstance(options, ProcessorOptions) and name in ("image_mean", "image_std") and isinstance(value, Number)
        ):
            value = [value] * len(options.bands)
        try:
            setattr(options, name, value)
        except StrictDataclassFieldValidationError as error:
            expected, hint = field.metadata["expected"], ""
            if isinstance(value, str) and "number" in expected:
                hint = ", not text (YAML reads 1e-4 as text: write 1.0e-4)"
            found = repr(value)[:300]
            raise ValueError(f"{name}: expected {expected}{hint}, found {found} ({type(value).__name__})") from error
    try:
        cast(Any, options).validate()  # `strict` adds it
    except StrictDataclassClassValidationError as error:
        raise ValueError(str(error.__cause__)) from error
    return options


def _to_plain(value: Any, is_nodata: bool) -> Any:
    """Bring a value to plain Python lists, numbers and texts."""
    if isinstance(value, np.ndarray | np.generic | torch.Tensor):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_to_plain(item, is_nodata) for item in value]
    if is_nodata and isinstance(value, str) and value.lower() in ("nan", "inf", "-inf"):
        return float(value)
    return {key: _to_plain(item, is_nodata) for key, item in value.items()} if isinstance(value, dict) else value


def to_json_number(value: Any) -> Any:
    """Write a number, or numbers in a list, as JSON can hold it: NaN and infinity as "nan", "inf" and "-inf"."""
    if isinstance(value, list):
        return [to_json_number(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
