# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Options of the image processor: what is refused, and the form in which they are kept."""

import json
import math

import numpy as np
import pytest
import torch

from prithvi_hf import PrithviImageProcessor
from prithvi_hf.models.prithvi.processor_options_prithvi import (
    CallOptions,
    ProcessorOptions,
    to_json_number,
    update_options,
)


CHIP = np.full((6, 2, 3), 1500, dtype=np.int16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_mean": [0.1] * 5}, "image_mean: expected 6 values.*found 5"),
        ({"bands": ["BLUE", "RED"]}, "image_mean: expected 2 values.*found 6"),
        ({"image_std": [0.1] * 5 + [0.0]}, "image_std: expected values greater than 0"),
        ({"image_std": [0.1] * 5 + [math.nan]}, "image_std: expected a finite number, or one per band"),
        ({"band_indices": [0, 1]}, "band_indices: expected 6 values.*found 2"),
        ({"band_indices": [0, 1, 2, 3, 4, 4]}, "band_indices: expected different 0-based"),
        ({"band_indices": [0, 1, 2, 3, 4, -1]}, "band_indices: expected different 0-based"),
        (
            {"bands": ["BLUE", "blue", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"]},
            "bands: expected a list of different band names",
        ),
        ({"bands": "BLUE"}, "bands: expected a list of different band names, 4096 at most, found 'BLUE'"),
        ({"bands": []}, "bands: expected a list of different"),
        ({"rescale_factor": "1e-4"}, "rescale_factor: expected a finite number other than 0, not text .YAML"),
        ({"rescale_factor": True}, "rescale_factor: expected a finite number"),
        ({"rescale_factor": 0}, "rescale_factor: expected .* other than 0, found 0"),
        ({"num_frames": 0}, "num_frames: expected an integer from 1 to 4096, found 0"),
        ({"num_frames": 1.0}, "num_frames: expected an integer"),
        ({"num_labels": True}, "num_labels: expected an integer"),
        ({"nodata_value": "none"}, "nodata_value: expected a number"),
        ({"nodata_rule": "most"}, "nodata_rule: expected 'all' or 'any'"),
        ({"do_normalize": 1}, "do_normalize: expected true or false"),
        ({"ignore_values": [0.5]}, "ignore_values: expected an integer or a list of at most 65536 integers"),
        ({"do_resize": True}, "expected no resizing.*do_resize"),
        ({"size": 224}, "expected no resizing.*size"),
    ],
)
def test_options_that_cannot_be_are_refused_by_constructor_and_call(options, message):
    with pytest.raises(ValueError, match=message):
        PrithviImageProcessor(**options)
    with pytest.raises(ValueError, match=message):
        PrithviImageProcessor()(CHIP, **options)


def test_values_are_kept_as_plain_lists_and_numbers():
    values = {
        "image_mean": np.arange(6.0),
        "image_std": torch.ones(6),
        "ignore_values": np.int16(255),
        "nodata_value": ("nan", np.float32(0.5), "-INF"),
        "num_frames": np.int64(3),
        "do_rescale": np.bool_(False),
        "bands": ("BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"),
    }
    options = update_options(ProcessorOptions(), values)
    assert options.image_mean == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert options.image_std == [1.0] * 6
    assert options.ignore_values == [255]
    assert math.isnan(options.nodata_value[0])
    assert options.nodata_value[1:] == [0.5, -math.inf]
    assert to_json_number(options.nodata_value) == ["nan", 0.5, "-inf"]
    assert [type(value) for value in (options.num_frames, options.do_rescale, options.bands)] == [int, bool, list]


def test_new_bands_come_first_and_the_old_options_stay():
    old = ProcessorOptions()
    new = update_options(old, {"image_std": 2, "image_mean": 0.5, "bands": ["RED", "GREEN"], "num_frames": None})
    assert (new.image_mean, new.image_std, new.num_frames) == ([0.5, 0.5], [2, 2], 1)
    assert old == ProcessorOptions()


def test_options_of_a_call_may_have_one_entry_per_image():
    options = update_options(CallOptions(), {"file_nodata": [None, "nan", 3], "names": ("a", "b", None)})
    assert options.file_nodata[::2] == [None, 3]
    assert math.isnan(options.file_nodata[1])
    with pytest.raises(ValueError, match="return_nodata_mask: expected true or false, found 'yes'"):
        update_options(CallOptions(), {"return_nodata_mask": "yes"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nodata_value", list(range(100_000))),
        ("ignore_values", list(range(100_000))),
        ("bands", [f"band {index}" for index in range(100_000)]),
        ("num_frames", 10**9),
        ("num_labels", 10**9),
        ("rescale_factor", "0.0001"),
        ("image_mean", [float("nan")] * 6),
    ],
)
def test_options_of_a_faulty_folder_are_refused_in_one_short_message(tmp_path, name, value):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({name: value}))
    with pytest.raises(ValueError, match=f"^{name}: expected ") as refusal:
        PrithviImageProcessor.from_pretrained(tmp_path)
    assert len(str(refusal.value)) < 600
