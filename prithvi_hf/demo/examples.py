# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The scenes of a folder that visitors of the demo can map without files of their own."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prithvi_hf.rasters import TIFF_SUFFIXES
from prithvi_hf.scenes.scene import open_scene
from prithvi_hf.scenes.scene_picture import read_scene_picture


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor

_MOST = 24
_THUMBNAIL_PIXELS = 320


@dataclass(frozen=True)
class Example:
    """A scene to choose.

    Attributes:
        name: What it is called.
        files: Its frames, in time order.
        picture: (h, w, 4) uint8, small.
    """

    name: str
    files: tuple[Path, ...]
    picture: np.ndarray


def find_examples(
    folder: str | os.PathLike,
    image_processor: "PrithviImageProcessor",
    max_pixels: float,
    warn: Callable[[str], object],
) -> list[Example]:
    """Find the scenes of a folder that a model can map.

    For a model of one date these are the GeoTIFFs in it, for a model of several dates its folders with as many
    GeoTIFFs as the model takes dates, in the order of their names.

    Args:
        folder: The folder.
        image_processor: Of the model.
        max_pixels: Of a scene.
        warn: Called with a text for each scene that is left out, which says why.

    Raises:
        ValueError: If the folder does not exist, or has no scene for the model.
    """
    folder, count = Path(folder), image_processor.num_frames
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder of GeoTIFFs for the examples, found none. Correct --examples.")
    found = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    scenes: list[tuple[str, tuple[Path, ...]]]
    if count == 1:
        scenes = [(path.stem, (path,)) for path in found if path.suffix.lower() in TIFF_SUFFIXES]
    else:
        stacks = {path: _list_geotiffs(path) for path in found if path.is_dir()}
        scenes = [(path.name, files) for path, files in stacks.items() if len(files) == count]
    examples: list[Example] = []
    for name, files in scenes:
        if len(examples) == _MOST:
            warn(f"{folder}: the first {_MOST} scenes are the examples, the others are left out.")
            break
        try:
            scene = open_scene(list(files), image_processor, name=name)
            if (pixels := scene.grid.height * scene.grid.width) > max_pixels:
                raise ValueError(f"{name}: {pixels:,} pixels are more than --max_megapixels allows.")
            picture, problem = read_scene_picture(scene, image_processor)
            if problem is not None:
                raise ValueError(problem)
        except (ValueError, OSError) as error:
            warn(f"{name} is no example: {error}")
            continue
        step = max(1, min(picture.shape[:2]) // _THUMBNAIL_PIXELS)
        examples.append(Example(name, files, picture[::step, ::step]))
    if not examples:
        wanted = "GeoTIFFs" if count == 1 else f"folders of {count} GeoTIFFs each"
        raise ValueError(
            f"{folder}: expected {wanted} that the model can map, found none among {len(found)} files and folders. "
            "Choose another folder with --examples, or leave it out."
        )
    return examples


def _list_geotiffs(folder: Path) -> tuple[Path, ...]:
    """List the GeoTIFFs of a folder by their names."""
    return tuple(path for path in sorted(folder.iterdir()) if path.suffix.lower() in TIFF_SUFFIXES)
