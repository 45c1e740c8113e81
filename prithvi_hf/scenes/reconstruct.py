# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What a masked autoencoder sees of a window of a scene, and what it makes of the rest: pictures and a GeoTIFF."""

import datetime
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from affine import Affine
from rasterio.crs import CRS

from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.pretraining_prithvi import PrithviForPreTraining
from prithvi_hf.models.prithvi.segmentation_map_prithvi import choose_color_bands, stretch_colors
from prithvi_hf.models.prithvi.sliding_window_prithvi import evaluation_mode
from prithvi_hf.outputs.quicklook import PictureRow, draw_pictures, measure_width
from prithvi_hf.rasters.raster import Window, shift_transform
from prithvi_hf.rasters.write_geotiff import write_geotiff
from prithvi_hf.scenes.scene import Scene
from prithvi_hf.scenes.windows import read_window


_HIDDEN_COLOR = (128, 128, 128, 255)


@dataclass
class Reconstruction:
    """A window of a scene as it is, and as a masked autoencoder completes it.

    Attributes:
        values: float32 (num_channels, num_frames, height, width), in the units that the image processor takes.
        reconstruction: the same, with the model's prediction in the place of the hidden patches.
        hidden: bool (num_frames, height, width), True where the model saw nothing.
        nodata_mask: bool (num_frames, height, width), True where there is no data.
        loss: mean square error of the hidden patches, of normalised values.
        bands: names of the channels.
        dates: of each frame, None where unknown.
        crs, transform: place of the window, None where unknown.
    """

    values: np.ndarray
    reconstruction: np.ndarray
    hidden: np.ndarray
    nodata_mask: np.ndarray
    loss: float
    bands: Sequence[str]
    dates: Sequence[datetime.datetime | None] = ()
    crs: CRS | None = None
    transform: Affine | None = None

    @classmethod
    @torch.no_grad()
    def of_example(
        cls,
        model: PrithviForPreTraining,
        image_processor: PrithviImageProcessor,
        example: Mapping[str, torch.Tensor],
        mask_ratio: float | None = None,
    ) -> "Reconstruction":
        """Hide a part of an example of [`~scenes.windows.SceneWindows`] and have the model predict it."""
        batch = {name: tensor[None].to(model.device) for name, tensor in example.items()}
        with evaluation_mode(model):
            outputs = model(**batch, mask_ratio=mask_ratio)
        images = batch["pixel_values"]
        completed = model.reconstruct(outputs, images, batch["nodata_mask"])[0]
        frames, height, width = completed.shape[1:]
        hidden = model.unpatchify(outputs.mask.unsqueeze(-1), (frames, height, width))[0, 0].bool().cpu().numpy()
        options = image_processor.checked_options()
        std, mean = (
            np.array(values, dtype=np.float64)[:, None, None, None]
            for values in (options.image_std, options.image_mean)
        )
        factor, offset = (options.rescale_factor, options.rescale_offset) if options.do_rescale else (1, 0)

        def undo(normalized: torch.Tensor) -> np.ndarray:
            values = image_processor.restore_frame_order(normalized)[..., :height, :width].double().cpu().numpy()
            values = values * std + mean if options.do_normalize else values
            return ((values - offset) / factor).astype(np.float32)

        nodata_mask = example["nodata_mask"][:, :height, :width].numpy()
        bands = image_processor.bands
        return cls(undo(images[0]), undo(completed), hidden, nodata_mask, float(outputs.loss), bands, (None,) * frames)

    def to_geotiff(self, path: str | os.PathLike) -> None:
        """Write the reconstruction: float32, all bands of the first date, then of the next; nodata is NaN.

        Args:
            path: the file to write; an existing one is replaced.
        """
        pixels = np.where(self.nodata_mask, np.float32("nan"), self.reconstruction)  # (C, T, H, W)
        bands, dates = [*self.bands], [f" {date:%Y-%m-%d}" if date else "" for date in self.dates]
        if len(dates) > 1:
            dates = [text or f" date {number}" for number, text in enumerate(dates, start=1)]
        write_geotiff(
            path,
            pixels.swapaxes(0, 1).reshape(-1, *pixels.shape[-2:]),
            crs=self.crs,
            transform=Affine.identity() if self.transform is None else self.transform,
            nodata=float("nan"),
            descriptions=[f"{band}{date}" for date in dates for band in bands],
        )

    def to_png(self, path: str | os.PathLike) -> None:
        """Draw the window, what the model saw of it and the reconstruction side by side, a date in each row.

        Args:
            path: the PNG to write; an existing one is replaced.
        """
        draw_reconstructions(path, [self])


def reconstruct_window(
    model: PrithviForPreTraining,
    image_processor: PrithviImageProcessor,
    scene: Scene,
    window: Window | None = None,
    *,
    mask_ratio: float | None = None,
    seed: int = 0,
) -> Reconstruction:
    """Hide a part of a window of a scene and have a masked autoencoder complete it.

    Args:
        model: the masked autoencoder.
        image_processor: its image processor.
        scene: of as many dates as the model takes, see [`open_scene`].
        window: row, column, height and width in pixels; None for one of the model's image size in the middle.
        mask_ratio: fraction of the patches to hide, 0 to below 1; None for the model's own.
        seed: what the choice of the hidden patches follows from.

    Returns:
        The window with its reconstruction.

    Raises:
        ValueError: the window is not inside the scene, smaller than a patch or without data, or the model takes other
            bands or dates.
    """
    image_processor.check_config(model.config)
    grid, patch = scene.grid, model.config.tubelet_size
    if window is None:
        height, width = (min(side, whole) for side, whole in zip(model.config.frame_size, grid.size, strict=True))
        window = ((grid.height - height) // 2, (grid.width - width) // 2, height, width)
    if window[2] < patch[1] or window[3] < patch[2]:
        raise ValueError(
            f"{scene.name}: expected a window of at least one patch, {patch[1]} x {patch[2]} pixels, found "
            f"{window[2]} x {window[3]}. Choose a larger one."
        )
    pixels = read_window(scene, image_processor, window, model.config.coords_encoding)
    if pixels.nodata_mask.all():
        raise ValueError(f"{scene.name}: expected data in the window {window}, found none. Choose another one.")
    sides = zip(pixels.pixel_values.shape[1:], patch, strict=True)
    noise = np.random.default_rng(seed).random(int(np.prod([side // step for side, step in sides])), dtype=np.float32)
    arrays = {"pixel_values": pixels.pixel_values, "nodata_mask": pixels.nodata_mask, "noise": noise}
    example = {name: torch.from_numpy(values) for name, values in {**arrays, **pixels.coordinates}.items()}
    found = Reconstruction.of_example(model, image_processor, example, mask_ratio)
    found.crs, found.transform = grid.crs, shift_transform(grid.transform, window[0], window[1])
    if len(scene.dates) == len(found.dates):
        found.dates = scene.dates
    return found


def draw_reconstructions(path: str | os.PathLike, reconstructions: Sequence[Reconstruction]) -> None:
    """Draw windows, what the model saw of them and their reconstructions as PNG, a row for each date of each."""
    rows = []
    for one in reconstructions:
        colors, is_natural = choose_color_bands(one.bands)
        kind = "" if is_natural else f"\n{', '.join(one.bands[color] for color in dict.fromkeys(colors))}"
        width_metres = measure_width(one.crs, one.transform, *one.hidden.shape[1:])
        for frame, (hidden, nodata) in enumerate(zip(one.hidden, one.nodata_mask, strict=True)):
            original, completed = one.values[colors, frame], one.reconstruction[colors, frame]
            # Side by side they get one stretch, which a prediction far off does not change.
            valid = ~nodata
            if valid.any():
                limits = (original[:, valid].min(axis=1), original[:, valid].max(axis=1))
                completed = np.clip(completed, *(limit[:, None, None] for limit in limits))
            both = stretch_colors(
                np.concatenate([original, completed], axis=2), np.concatenate([valid, valid], axis=1), is_natural
            )
            picture, painted = np.split(both, 2, axis=1)
            seen = picture.copy()
            seen[hidden & valid] = _HIDDEN_COLOR
            date = one.dates[frame] if frame < len(one.dates) else None
            title = f"input, {date:%Y-%m-%d}" if date else "input"
            pictures = {f"{title}{kind}": picture, "seen by the model": seen, "reconstruction": painted}
            rows.append(PictureRow(pictures, width_metres))
    draw_pictures(path, rows, id2label={}, palette=[], present=(), panel_inches=3.0)
