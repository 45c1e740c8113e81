# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Windows of scenes with dates and places, drawn at random as training examples that need no labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import rasterio
import torch
from rasterio.session import DummySession

from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.pixel_values_prithvi import scale_and_normalize, turn_array
from prithvi_hf.rasters.geotiff_raster import OpenFiles
from prithvi_hf.rasters.raster import Window
from prithvi_hf.scenes.scene import Scene, scene_coordinates


_DRAWS_OF_A_SCENE, _SCENES_OF_A_WINDOW = 16, 16
_GDAL_CACHE_BYTES = 64 * 2**20  # of each process


@dataclass
class WindowPixels:
    """One window of a scene, ready for the model.

    Attributes:
        pixel_values: float32 (num_channels, num_frames, height, width), normalised.
        nodata_mask: bool (num_frames, height, width), True where a date lacks a value in any band.
        coordinates: `temporal_coords` float32 (num_frames, 2), year and day of the year, and `location_coords`
            float32 (2,), latitude and longitude of the window's centre, where the model takes them; NaN is unknown.
    """

    pixel_values: np.ndarray
    nodata_mask: np.ndarray
    coordinates: dict[str, np.ndarray]


def count_dates(scene: Scene, image_processor: PrithviImageProcessor) -> int:
    """Count the dates of a scene; one raster alone stacks as many as the image processor takes."""
    return image_processor.num_frames if len(scene.frames) == 1 else len(scene.frames)


def read_window(
    scene: Scene,
    image_processor: PrithviImageProcessor,
    window: Window,
    encoded: Sequence[str] = (),
    *,
    check_units: bool = True,
) -> WindowPixels:
    """Read a window of a scene through the image processor.

    Args:
        scene: of as many dates as the image processor takes.
        image_processor: says which bands are read, what is nodata, and how values are normalised.
        window: row, column, height and width in pixels of the scene.
        encoded: what the model takes beside pixels, of "time" and "location" (`config.coords_encoding`).
        check_units: whether values that are plainly in other units raise a `UnitsWarning`.
    """
    rasters = tuple(frame.select(window=window) for frame in scene.frames)
    name = f"{scene.name}, rows {window[0]} to {window[0] + window[2] - 1}, columns {window[1]} to "
    name += f"{window[1] + window[3] - 1}"
    frames, missing, _ = image_processor.read_frames(rasters[0] if len(rasters) == 1 else rasters, name)
    if check_units:
        image_processor.check_units(frames, missing, name)
    nodata_mask = np.zeros((len(frames), *window[2:]), dtype=bool)
    for flags, where in zip(nodata_mask, missing, strict=True):
        if where is not None:
            where.any(axis=0, out=flags)
    for position, raster in enumerate(rasters):
        excluded = raster.read_excluded()
        if excluded is not None:
            nodata_mask[position if len(rasters) > 1 else slice(None)] |= excluded
    options = image_processor.checked_options()
    if options.frame_order != "time_major":  # its channels mix dates
        nodata_mask |= nodata_mask.any(axis=0)
    coordinates = scene_coordinates(scene, window, encoded, options.first_day_of_year, len(frames))
    return WindowPixels(scale_and_normalize(frames, missing, options), nodata_mask, coordinates)


class SceneWindows(torch.utils.data.Dataset):
    """Windows of scenes that follow from a seed, the epoch and an index alone, as examples of `PrithviForPreTraining`.

    So a window, its turn and the patches that are hidden of it are the same whichever process or worker of a
    DataLoader draws it, in whatever batch, and again in a run that is resumed. A scene is drawn with a probability
    that is proportional to its area, then, where it has more dates than the model takes, some of them in their order,
    then the place. A window with less data than `min_valid` is drawn again.

    Args:
        scenes: opened scenes; each is at least as large as a window.
        image_processor: of the model.
        config: of the model: patches, frames and coordinates.
        size: height and width of a window in pixels, whole patches.
        count: windows of an epoch.
        seed: at least 0.
        min_valid: fraction of a window's pixels, over all its dates, that have data in every band.
        augmentation: "none", "hflip" (half of the windows are mirrored) or "d4" (one of eight turns and mirrors).
        coords_dropout: fraction of the windows without their dates, and of those without their place, so that a model
            that takes them can do without.

    Raises:
        ValueError: a window is not of whole patches, a scene is smaller than it or has too few dates.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        image_processor: PrithviImageProcessor,
        config: PrithviConfig,
        size: tuple[int, int],
        count: int,
        seed: int,
        *,
        min_valid: float = 0.5,
        augmentation: str = "none",
        coords_dropout: float = 0.0,
    ) -> None:
        patch = config.tubelet_size
        if size[0] % patch[1] or size[1] % patch[2]:
            raise ValueError(
                f"Expected windows of whole patches of {patch[1]} x {patch[2]} pixels, found crop_size {size[0]} x "
                f"{size[1]}. Choose a multiple."
            )
        for scene in scenes:
            if min(scene.grid.height - size[0], scene.grid.width - size[1]) < 0:
                raise ValueError(
                    f"{scene.name}: expected at least {size[0]} x {size[1]} pixels, the size of a window, found "
                    f"{scene.grid.height} x {scene.grid.width}. Lower --crop_size, or leave the scene out."
                )
            if count_dates(scene, image_processor) < config.num_frames:
                raise ValueError(
                    f"{scene.name}: expected at least {config.num_frames} dates (num_frames), found "
                    f"{len(scene.frames)}. Lower --num_frames, or leave the scene out."
                )
        self.scenes, self.image_processor, self.config = list(scenes), image_processor, config
        self.size, self.count, self.seed, self.min_valid = size, count, seed, min_valid
        self.augmentation, self.coords_dropout = augmentation, coords_dropout
        areas = np.array([scene.grid.height * scene.grid.width for scene in scenes], dtype=np.float64)
        self._chances = np.cumsum(areas) / areas.sum()
        self._open_files = OpenFiles()
        # Shared, so that workers which outlive an epoch learn of the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Draw other windows from now on, in the worker processes of a DataLoader too.

        Args:
            epoch: number of the epoch, from 0.
        """
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Draw a window.

        Args:
            index: of the window, 0 to below `count`.

        Returns:
            `pixel_values` (num_channels, num_frames, height, width), `nodata_mask` (num_frames, height, width),
            `noise` (patches,) that decides what is hidden, and `temporal_coords` and `location_coords` where the model
            takes them.

        Raises:
            IndexError: the index is out of its range.
            ValueError: none of the windows that were drawn has enough data, or a file cannot be read.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"Expected an index from 0 to {self.count - 1}, found {index}.")
        numbers = np.random.default_rng((self.seed, int(self._epoch), index))
        for _ in range(_SCENES_OF_A_WINDOW):
            scene = self.scenes[int(np.searchsorted(self._chances, numbers.random(), side="right"))]
            with self._open_files:
                window = self.draw_window(scene, numbers)
            if window is not None:
                break
        else:
            raise ValueError(
                f"Expected windows of which {self.min_valid:.0%} has data (min_valid), found none in "
                f"{_DRAWS_OF_A_SCENE * _SCENES_OF_A_WINDOW} drawn from {_SCENES_OF_A_WINDOW} scenes. Lower "
                "--min_valid, or leave out scenes that are nearly empty."
            )
        flip = self.augmentation != "none" and bool(numbers.integers(2))
        quarters = 0
        if self.augmentation == "d4":
            quarters = int(numbers.integers(4)) if self.size[0] == self.size[1] else 2 * int(numbers.integers(2))
        turn = partial(turn_array, flip=flip, quarters=quarters)
        arrays = {"pixel_values": turn(window.pixel_values), "nodata_mask": turn(window.nodata_mask)}
        for name, values in window.coordinates.items():
            arrays[name] = np.full_like(values, np.nan) if numbers.random() < self.coords_dropout else values
        sides = zip((self.config.num_frames, *self.size), self.config.tubelet_size, strict=True)
        patches = int(np.prod([side // patch for side, patch in sides]))
        arrays["noise"] = numbers.random(patches, dtype=np.float32)
        return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}

    def draw_window(
        self, scene: Scene, numbers: np.random.Generator, check_units: bool = False
    ) -> WindowPixels | None:
        """Draw a window of a scene that has enough data.

        Args:
            scene: one of `scenes`.
            numbers: what draws dates and place.
            check_units: warn where the values are plainly in other units than the image processor's statistics.

        Returns:
            The normalised pixels, their nodata mask and coordinates, or None where some tries find no such window.
        """
        count, grid = count_dates(scene, self.image_processor), scene.grid
        for _ in range(_DRAWS_OF_A_SCENE):
            chosen = scene
            if count > self.config.num_frames:
                places = sorted(numbers.choice(count, self.config.num_frames, replace=False).tolist())
                frames, dates = ([values[place] for place in places] for values in (scene.frames, scene.dates))
                chosen = replace(scene, frames=tuple(frames), dates=tuple(dates))
            row, column = (
                int(numbers.integers(whole - side + 1)) for whole, side in zip(grid.size, self.size, strict=True)
            )
            with rasterio.Env(session=DummySession(), GDAL_CACHEMAX=_GDAL_CACHE_BYTES):
                window = read_window(
                    chosen,
                    self.image_processor,
                    (row, column, *self.size),
                    self.config.coords_encoding,
                    check_units=check_units,
                )
            if 1 - window.nodata_mask.mean() >= self.min_valid:
                return window
        return None
