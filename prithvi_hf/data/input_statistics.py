# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""How the bands of training chips spread, for the check of images that are to be predicted."""

from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset

from prithvi_hf.data.chip_cache import CachedChips
from prithvi_hf.data.chips import run_in_threads, spread_indices
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.input_shift_prithvi import describe_chips, measure_means


MOST_CHIPS = 256


def measure_training_input(
    dataset: Dataset | CachedChips, image_processor: PrithviImageProcessor
) -> dict[str, Any] | None:
    """Measure the band means of 256 chips at most, evenly spread over a split; a transform on it is left aside.

    Returns:
        What `PrithviImageProcessor.training_statistics` holds, see [`describe_chips`]; None for too few chips.
    """
    rows: Any = dataset.with_format(None)
    places = spread_indices(len(rows), MOST_CHIPS)

    def measure(place: int) -> np.ndarray:
        image = rows[place]["image"]
        images: list[Any] = [tuple(image) if isinstance(image, list) else image]
        inputs = image_processor.preprocess(images, return_nodata_mask=True, return_tensors="pt")
        pixel_values = image_processor.restore_frame_order(inputs["pixel_values"][0])
        return measure_means(pixel_values.numpy(), np.asarray(inputs["nodata_mask"][0], dtype=bool))

    return describe_chips(np.stack(list(run_in_threads(partial(measure, place) for place in places))))
