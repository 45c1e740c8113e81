# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The picture of chips: every chip is where it is in the scene, in the colour of its split and of its labels."""

import numpy as np
from PIL import Image

from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.outputs.cog import write_class_map
from prithvi_hf.outputs.palette import class_palette, parse_color
from prithvi_hf.scenes.chip_picture import ChipPicture, draw_chips
from prithvi_hf.scenes.scene import open_scene
from tests.scene_factory import scene_pixels, write_scene
from tests.vector_factory import utm_grid


def test_chips_are_drawn_where_they_are(tmp_path):
    grid = utm_grid(2000, 3200)  # thinned to every third pixel
    layout = {"crs": grid.crs, "transform": grid.transform}
    write_scene(tmp_path / "scene.tif", np.full((6, *grid.size), 500, np.int16), **layout)
    chips = []
    for number, (row, column, split) in enumerate(((0, 0, "train"), (0, 1600, "test"), (1000, 0, "validation"))):
        write_scene(tmp_path / f"{number}.tif", scene_pixels(1000, 1600, seed=number), **layout)
        classes = np.full((1000, 1600), number, dtype=np.uint8)
        write_class_map(tmp_path / f"m{number}.tif", classes, id2label={0: "a", 1: "b", 2: "c"}, **layout)
        window = (row, column, 1000, 1600)
        chips.append(ChipPicture(window, tmp_path / f"{number}.tif", tmp_path / f"m{number}.tif", split))
    scene, processor = open_scene(tmp_path / "scene.tif"), PrithviImageProcessor()
    draw_chips(tmp_path / "chips.png", scene, processor, (("a", "b", "c"), {}), chips)

    picture = np.asarray(Image.open(tmp_path / "chips.png").convert("RGB")).astype(int)
    colors = [*class_palette(3, None, ["a", "b", "c"])]
    places = []
    for color in colors:  # of the labels, which are painted without a tint; the legend is below
        rows, columns = np.nonzero((picture[: int(0.8 * len(picture))] == color).all(axis=-1))
        places.append((np.median(rows), np.median(columns)))
    (top, left), (beside, right), (bottom, below) = places
    assert abs(top - beside) < 5 < bottom - top
    assert abs(left - below) < 5 < right - left
    tints = [np.abs(picture - parse_color(color)).sum(axis=-1).min() for color in ("#4477aa", "#ccbb44", "#ee6677")]
    assert max(tints) < 90
