# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Band means of training chips, against numpy on the files."""

import numpy as np
import pytest
from datasets import Dataset

from prithvi_hf import PrithviImageProcessor
from prithvi_hf.data import GeoTiff
from prithvi_hf.data.input_statistics import measure_training_input
from tests.scene_factory import scene_pixels, write_scene


def make_chips(folder, count):
    paths, means = [], []
    for seed in range(count):
        pixels = (scene_pixels(20, 24, seed=seed) * (0.5 + 0.1 * seed)).astype(np.int16)
        pixels[:, :5] = -9999
        means.append(pixels[:, 5:].mean((1, 2)))
        paths.append(str(write_scene(folder / f"{seed}.tif", pixels)))
    return Dataset.from_dict({"image": paths}).cast_column("image", GeoTiff()), np.array(means)


def test_means_are_of_pixels_with_data_and_their_spread_is_between_chips(tmp_path):
    dataset, means = make_chips(tmp_path, 6)
    processor = PrithviImageProcessor()
    found = measure_training_input(dataset, processor)
    normalized = (means - processor.image_mean) / processor.image_std
    assert found["chips"] == 6
    assert found["mean"] == pytest.approx(normalized.mean(0), rel=1e-4)
    assert found["std"] == pytest.approx(normalized.std(0, ddof=1), rel=1e-4)
    contrast = normalized - normalized.mean(1, keepdims=True)
    assert found["contrast_std"] == pytest.approx(contrast.std(0, ddof=1), rel=1e-3)
    assert measure_training_input(dataset.select(range(4)), processor) is None
