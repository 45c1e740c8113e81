# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A picture of the chips of a scene: its colours, the labels, and which chips train, validate and test."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from prithvi_hf.data.chip_layout import SPLITS
from prithvi_hf.data.chips import run_in_threads
from prithvi_hf.models.prithvi.pixel_values_prithvi import find_nodata, read_frames
from prithvi_hf.models.prithvi.segmentation_map_prithvi import choose_color_bands, stretch_colors, title_picture
from prithvi_hf.outputs.cog import NODATA_CLASS, file_value_table
from prithvi_hf.outputs.palette import class_palette, parse_color
from prithvi_hf.outputs.quicklook import PictureRow, draw_pictures, measure_width, thumbnail_step
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
    from prithvi_hf.scenes.scene import Scene

_SPLIT_COLORS = ("#4477aa", "#ccbb44", "#ee6677")
_TINT = 0.6  # how much of the colour of its split a chip has


@dataclass(frozen=True)
class ChipPicture:
    """A chip that is to be drawn: its window in the scene, its last frame, its mask and its split."""

    window: Sequence[int]
    image: Path
    mask: Path
    split: str


def draw_chips(
    path: str | os.PathLike,
    scene: "Scene",
    image_processor: "PrithviImageProcessor",
    classes: tuple[Sequence[str], Mapping[int, int]],
    chips: Sequence[ChipPicture],
    show_progress: bool = False,
) -> None:
    """Draw the chips of a scene as PNG.

    Args:
        path: the PNG to write.
        scene: the scene.
        image_processor: finds the bands in the chips.
        classes: names of the classes, and the value of a class in the masks where it is not its number.
        chips: the chips.
        show_progress: whether to show a progress bar.
    """
    names, class_values = classes
    grid, step = scene.grid, thumbnail_step(*scene.grid.size)
    shape = tuple(-(-side // step) for side in grid.size)
    values, valid = np.zeros((3, *shape), dtype=np.float32), np.zeros(shape, dtype=bool)
    labels, splits = (np.full(shape, NODATA_CLASS, dtype=np.uint8) for _ in range(2))
    colors, is_natural = choose_color_bands(image_processor.bands)
    numbers = np.full(256, NODATA_CLASS, dtype=np.uint8)
    numbers[file_value_table({n: class_values.get(n, n) for n in range(len(names))})[: len(names)]] = range(len(names))
    stack_options = image_processor.checked_options()
    date_options = image_processor.with_options(num_frames=1).checked_options()

    def thin(chip: ChipPicture) -> None:
        row, column, height, width = chip.window
        own = (..., slice(-row % step, height, step), slice(-column % step, width, step))
        place = (
            ...,
            slice(-(-row // step), -(-(row + height) // step)),
            slice(-(-column // step), -(-(column + width) // step)),
        )
        raster = GeoTiffRaster(chip.image)
        used = image_processor.find_bands(raster.descriptions, raster.count, raster.name)
        is_stack = len(used) > len(image_processor.bands)
        frame = read_frames(raster, stack_options if is_stack else date_options, raster.name)[-1]
        _, nodata = find_nodata([frame], date_options)
        values[place], valid[place] = frame.values[colors][own], ~nodata[own]
        labels[place] = numbers[GeoTiffRaster(chip.mask).read()[0][own]]
        splits[place] = SPLITS.index(chip.split)

    done = run_in_threads(partial(thin, chip) for chip in chips)
    for _ in tqdm(done, desc="picture", total=len(chips), unit="chip", disable=not show_progress):
        pass
    picture = stretch_colors(values, valid, is_natural)
    palette = [*map(parse_color, _SPLIT_COLORS), *class_palette(len(names), None, names)]
    tinted = picture.copy()
    for number, color in enumerate(_SPLIT_COLORS):
        where = splits == number
        tinted[where, :3] = (1 - _TINT) * picture[where, :3] + _TINT * np.array(parse_color(color))
        tinted[where, 3] = 255
    table = np.zeros((256, 4), dtype=np.uint8)
    table[: len(names)] = [(*color, 255) for color in palette[len(SPLITS) :]]
    pictures = {
        title_picture(image_processor.bands, image_processor.num_frames, scene.dates[-1]): picture,
        "labels": table[labels],
        "splits": tinted,
    }
    width_metres = measure_width(grid.crs, grid.transform, *grid.size)
    here = sorted({SPLITS.index(chip.split) for chip in chips})
    legend = {n: SPLITS[n] for n in here} | {len(SPLITS) + n: name for n, name in enumerate(names)}
    draw_pictures(
        path,
        [PictureRow(pictures, width_metres)],
        id2label=legend,
        palette=palette,
        present={*here, *(len(SPLITS) + n for n in np.unique(labels).tolist() if n != NODATA_CLASS)},
        nodata_label="no chip, no data or no label",
    )
