# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A picture of a scene of any size, as its model sees it."""

import numpy as np

from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.pixel_values_prithvi import describe_units_problem
from prithvi_hf.models.prithvi.segmentation_map_prithvi import choose_color_bands, stretch_colors
from prithvi_hf.outputs.quicklook import thumbnail_step
from prithvi_hf.scenes.reading import SceneRows
from prithvi_hf.scenes.scene import Scene


_ROWS = 256
_MOST_MISSING = 0.75  # of the pixels of rows that tell the units


def read_scene_picture(scene: Scene, image_processor: PrithviImageProcessor) -> tuple[np.ndarray, str | None]:
    """Read the last date of a scene row by row, thinned to what a screen shows.

    Returns:
        Its colours, (h, w, 4) uint8; and what is wrong where its values are plainly in other units than the model's.
    """
    colors, is_natural = choose_color_bands(image_processor.bands)
    step, parts, problem, is_told = thumbnail_step(*scene.grid.size), [], None, False
    rows = SceneRows(scene.frames, image_processor, _ROWS, "raise")
    for start in range(0, scene.grid.height, _ROWS):
        stop = min(start + _ROWS, scene.grid.height)
        chosen = range(-(-start // step) * step, stop, step)
        if not chosen:
            continue
        rows.read_to(start, stop)
        image, lost = rows.cut(chosen, slice(None, None, step))
        frames, missing, nodata = image_processor.read_frames(image, scene.name)
        if not is_told and nodata.mean() < _MOST_MISSING:
            is_told = True
            problem = describe_units_problem(frames, missing, image_processor.checked_options(), scene.name)
        values = frames[-1].values[colors].astype(np.float32)
        if missing[-1] is not None:
            values[missing[-1][colors]] = np.nan
        values[:, nodata if lost is None else nodata | lost] = np.nan
        parts.append(values)
    values = np.concatenate(parts, axis=1)
    valid = np.isfinite(values).min(axis=0)
    return stretch_colors(values, valid, is_natural), problem
