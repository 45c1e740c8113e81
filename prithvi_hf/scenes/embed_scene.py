# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Embeddings of scenes: what a layer of the encoder says of each patch, as a GeoTIFF with one pixel per patch.

The model sees tiles as in a prediction. Where a tile begins inside of a patch of the scene, as the last of a row does,
its patches count for those of the scene by the area that they share, so that no pixel of the scene is left out.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from affine import Affine
from rasterio.crs import CRS
from rasterio.io import DatasetWriter
from torch import nn
from transformers.utils import logging

from prithvi_hf.models.prithvi.embeddings_prithvi import pad_by_reflection, upsample_images
from prithvi_hf.models.prithvi.modeling_prithvi import PrithviModel
from prithvi_hf.models.prithvi.sliding_window_prithvi import evaluation_mode
from prithvi_hf.outputs.cog import Layer, check_output_path, complete_or_absent, write_geotiff
from prithvi_hf.rasters import TIFF_SUFFIXES
from prithvi_hf.rasters.opening import FrameOptions
from prithvi_hf.scenes.engine import iterate_in_background, weight_profile
from prithvi_hf.scenes.reading import TileBatch, TileSource
from prithvi_hf.scenes.scene import Scene, open_scene, warn_of_unknown_coordinates
from prithvi_hf.scenes.tiles import TilePlan, WindowOptions


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
    from prithvi_hf.models.prithvi.modeling_prithvi import PrithviPreTrainedModel

FRAMES_AS = ("mean", "separate")
EMBEDDING_DTYPES = ("float32", "float16")
_BLOCK_SIZE = 64  # patches; a block of all channels has some MB
_BATCHES_AHEAD = 2
_ROUNDING = 1e-9  # of a number of patches
_WINDOW_NAMES = {one.name for one in fields(WindowOptions)} - {"tta"}


def embed_scene(
    model: "PrithviPreTrainedModel",
    image_processor: "PrithviImageProcessor",
    frames: Any,
    output: str | os.PathLike,
    *,
    layer: int = -1,
    frames_as: str = "mean",
    embedding_dtype: str = "float32",
    name: str | None = None,
    device: str | torch.device | None = None,
    overwrite: bool = True,
    show_progress: bool = True,
    tags: Mapping[str, str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write the embeddings of a scene, in memory that grows with the scene's width only.

    Args:
        model: A model with an encoder: a backbone, a pretraining model, or a fine-tuned one, whose neck and head are
            not used. In evaluation mode meanwhile.
        image_processor: Its image processor.
        frames: What `open_scene` takes: one GeoTIFF, or those of all dates in time order, and more; or a `Scene`.
        output: The Cloud-Optimized GeoTIFF to write, float32, with one band per channel. A pixel is a patch, 16 x 16
            pixels of the scene for most models; those without any data are NaN. It is there once it is complete.
        layer: The layer of the encoder, from 0; negative ones count from the last, which comes with its layer
            normalisation.
        frames_as: What becomes of several dates: their "mean", `hidden_size` bands, or "separate", so many of the
            first date, then those of the next.
        embedding_dtype: "float32", or "float16" for values rounded to half precision, in half the room; readers get
            float32 from either.
        name: What to call the scene; None for the name of its first file.
        device: Where to run, for example "cuda"; the model is moved there and stays. None is where it is.
        overwrite: Whether an existing output may be replaced.
        show_progress: Whether to show a progress bar over the windows.
        tags: More metadata items for the file.
        options: By name: how the model slides over the scene (`window`, `overlap`, `batch_size`, `blending`, see
            [`~scenes.tiles.WindowOptions`]), and how frames are read (`scale`, `fmask`, `dates` and others, see
            [`~rasters.opening.FrameOptions`]).

    Returns:
        What was written: "output", "height", "width", "bands", "layer", "nodata_fraction" (of the patches).

    Raises:
        TypeError: There is no such option.
        ValueError: An option leaves its range, the model has no such layer, the output cannot be written or is an
            input, or the frames do not fit the image processor. Nothing is written then.
        OSError: Reading or writing fails, or the disk is full; no incomplete file gets the name of the output.
    """
    config, encoder = model.config, get_encoder(model)
    layer = check_layer(config, layer)
    check_choice("frames_as", frames_as, FRAMES_AS)
    check_choice("embedding_dtype", embedding_dtype, EMBEDDING_DTYPES)
    windows = WindowOptions(**{key: value for key, value in options.items() if key in _WINDOW_NAMES})
    opening = FrameOptions(**{key: value for key, value in options.items() if key not in _WINDOW_NAMES})
    inputs = frames if isinstance(frames, list | tuple) else [frames]
    check_output_path(output, inputs, overwrite, "GeoTIFF", TIFF_SUFFIXES)
    image_processor = opening.adapt(image_processor)
    image_processor.check_config(config)
    if not isinstance(frames, Scene):
        scene = open_scene(frames, image_processor, opening, name=name)
    elif closed := sorted({*options} - _WINDOW_NAMES - {"on_read_error"}):
        raise TypeError(f"A scene that is open takes no options, found {closed}: pass them to `open_scene`.")
    else:
        scene = frames
    check_output_path(output, scene.files, overwrite, "GeoTIFF", TIFF_SUFFIXES)
    if device is not None:
        encoder.to(device)  # type: ignore[arg-type]  # transformers wraps the method
    plan = TilePlan.for_model(config, *scene.grid.size, windows.window, windows.overlap)
    warn_of_unknown_coordinates(scene, image_processor, config.coords_encoding)
    tiles = TileSource(
        scene,
        image_processor,
        plan,
        range(plan.num_strips),
        windows.batch_size,
        encoded=tuple(config.coords_encoding),
        on_read_error=opening.on_read_error,
        pin_memory=encoder.device.type == "cuda",
    )
    sums = PatchSums(config, plan, windows.blending, config.grid_size[0] if frames_as == "separate" else 1)
    bands = [f"channel_{channel}" for channel in range(config.hidden_size)]
    if frames_as == "separate":
        bands = [f"frame_{frame}_{band}" for frame in range(1, config.grid_size[0] + 1) for band in bands]
    strips = embed_strips(encoder, tiles, layer, sums, show_progress)
    transform = scene.grid.transform @ Affine.scale(sums.cell[1], sums.cell[0])
    place, tags = (scene.grid.crs, transform), {"layer": str(layer), **(tags or {})}
    fraction = write_embeddings(output, strips, sums.size, bands, embedding_dtype, place, tags)
    size = {"height": sums.size[0], "width": sums.size[1], "bands": len(bands)}
    return {"output": os.fspath(output), **size, "layer": layer, "nodata_fraction": fraction}


def write_embeddings(
    path: str | os.PathLike,
    strips: Iterable[np.ndarray],
    size: tuple[int, int],
    bands: Sequence[str],
    embedding_dtype: str,
    place: tuple[CRS | None, Affine],
    tags: Mapping[str, str],
) -> float:
    """Write rows of patches (bands, rows, columns), which come from top to bottom, as a file of a CRS and a transform.

    Returns the fraction of the patches without data.
    """
    nodata = 0

    def describe(dataset: DatasetWriter) -> None:
        dataset.update_tags(**tags)
        for number, band in enumerate(bands, start=1):
            dataset.set_band_description(number, band)

    def make_blocks() -> Iterator[tuple[int, int, np.ndarray]]:
        nonlocal nodata
        first, rows = 0, np.empty((len(bands), 0, size[1]), dtype=np.float32)
        for strip in strips:
            nodata += int(np.isnan(strip[0]).sum())
            strip = strip if embedding_dtype == "float32" else strip.astype(np.float16).astype(np.float32)
            rows = np.concatenate([rows, strip], axis=1)
            while rows.shape[1] >= _BLOCK_SIZE or (rows.shape[1] and first + rows.shape[1] == size[0]):
                yield from ((band, first, values) for band, values in enumerate(rows[:, :_BLOCK_SIZE]))
                first, rows = first + len(rows[0, :_BLOCK_SIZE]), rows[:, _BLOCK_SIZE:]

    # NBITS stores half precision, which readers widen again; GDAL before 3.11 has no type of that name.
    half: dict[str, str | int] = {"nbits": 16} if embedding_dtype == "float16" else {}
    options = {"predictor": "YES", "overview_resampling": "AVERAGE", **half}
    geotiff = Layer("embeddings", tuple(bands), "float32", math.nan, options, describe, block_size=_BLOCK_SIZE)
    with complete_or_absent(path) as part:
        write_geotiff(part, geotiff, size, make_blocks(), *place)
    return nodata / (size[0] * size[1])


def get_encoder(model: nn.Module) -> PrithviModel:
    """Take the encoder out of any Prithvi model, or refuse a model that has none."""
    encoder = getattr(model, "base_model", model)
    if not isinstance(encoder, PrithviModel):
        raise ValueError(
            f"Expected a model with Prithvi's encoder, found {type(model).__name__} without one. Give a backbone, or "
            "a model that was fine-tuned from one."
        )
    return encoder


def check_choice(option: str, value: str, known: Sequence[str]) -> None:
    """Refuse a value that an option does not know."""
    if value not in known:
        raise ValueError(f"{option}: expected one of {', '.join(known)}, found {value!r}. Choose one of these.")


def check_layer(config: "PrithviConfig", layer: int) -> int:
    """Give the number of a layer from 0, which may be counted from the last one; refuse one that there is not."""
    depth = config.num_hidden_layers
    if not -depth <= layer < depth:
        raise ValueError(
            f"layer: expected one of the model's {depth} layers, 0 to {depth - 1} or -{depth} to -1, found {layer}."
        )
    return layer % depth


@torch.no_grad()
def encode_patches(
    encoder: PrithviModel, pixel_values: torch.Tensor, coordinates: dict[str, torch.Tensor], layer: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the class tokens (B, E) and the patches (B, T, E, rows, columns) of a layer, from 0; images have any size.

    Images (B, C, T, H, W) are upsampled by `config.input_upsampling` and padded by reflection, as for a segmentation.
    """
    config = encoder.config
    images = pixel_values.to(encoder.device, non_blocking=True)
    if config.input_upsampling != 1:
        images = upsample_images(images, config.input_upsampling)
    patch_height, patch_width = config.tubelet_size[1:]
    images, _ = pad_by_reflection(images, (patch_height, patch_width))
    is_last = layer == config.num_hidden_layers - 1
    coordinates = {name: values.to(encoder.device) for name, values in coordinates.items()}
    outputs = encoder(images, **coordinates, output_hidden_states=False if is_last else [layer + 1])
    tokens = outputs.last_hidden_state if is_last else outputs.hidden_states[layer + 1]  # (B, 1 + T h w, E)
    grid_size = (images.shape[-2] // patch_height, images.shape[-1] // patch_width)
    return tokens[:, 0], tokens[:, 1:].unflatten(1, (-1, *grid_size)).permute(0, 1, 4, 2, 3)


def find_patch_size(config: "PrithviConfig", size: tuple[int, int]) -> tuple[float, float]:
    """Give height and width of a patch in pixels of an image (height, width) before the model upsamples it."""
    sides = [(side, max(1, round(side * config.input_upsampling))) for side in size]
    height, width = (patch * side / new for patch, (side, new) in zip(config.tubelet_size[1:], sides, strict=True))
    return height, width


def count_patches(size: tuple[int, int], patch: tuple[float, float]) -> tuple[int, int]:
    """Count the rows and columns of patches in an image, those at the border included of which it has a part."""
    rows, columns = (math.ceil(side / step - _ROUNDING) for side, step in zip(size, patch, strict=True))
    return rows, columns


def mark_patches(marks: np.ndarray, pixels: np.ndarray, patch: tuple[float, float], first: float = 0) -> None:
    """Mark, bool (rows, columns), the patches with any of some pixels (h, W), whose first row is the row `first`."""
    rows = ((first + np.arange(pixels.shape[0])) / patch[0] + _ROUNDING).astype(int)
    columns = (np.arange(pixels.shape[1]) / patch[1] + _ROUNDING).astype(int)
    np.logical_or.at(marks, (rows[:, None], columns[None, :]), pixels)


class PatchSums:
    """Weighted sums of the embeddings of the scene's patches that are not final yet: as many rows as a tile has.

    Attributes:
        cell: Height and width of a patch in pixels of the scene.
        size: Rows and columns of patches of the scene, those at the border included of which it has a part.
        channels: Number of values of a patch, of all frames that are kept.
    """

    def __init__(self, config: "PrithviConfig", plan: TilePlan, blending: str, frames: int) -> None:
        self.cell = find_patch_size(config, plan.window)
        self.size = count_patches((plan.height, plan.width), self.cell)
        self.channels, self._plan, self._blending = config.hidden_size * frames, plan, blending
        rows = min(self.size[0], math.ceil(plan.window[0] / self.cell[0]) + 2)
        self._first = 0  # row of the scene's patches that the sums begin with
        self._sums = torch.zeros(self.channels, rows, self.size[1])
        self._weights = torch.zeros(rows, self.size[1])
        self._has_data = np.zeros((rows, self.size[1]), dtype=bool)

    def add(self, row: int, left: int, patches: torch.Tensor) -> None:
        """Add the patches (channels, h, w) of a tile of a row of tiles."""
        top, rows = self._share(0, self._plan.tops[row], patches.shape[1])
        start, columns = self._share(1, left, patches.shape[2])
        place = (slice(top - self._first, top - self._first + len(rows)), slice(start, start + len(columns)))
        self._sums[(slice(None), *place)] += rows @ patches.float().cpu() @ columns.T
        self._weights[place] += torch.outer(rows.sum(dim=1), columns.sum(dim=1))

    def _share(self, axis: int, start: int, count: int) -> tuple[int, torch.Tensor]:
        """Give the scene's first patch that a tile reaches into, and what each of them gets of each of the tile's."""
        cell, stop = self.cell[axis], start + self._plan.window[axis]
        first = math.floor(start / cell + _ROUNDING)
        own = start + cell * torch.arange(count, dtype=torch.float64)
        cells = cell * torch.arange(first, min(self.size[axis], math.ceil(stop / cell - _ROUNDING)))
        ends = torch.minimum((own + cell).clamp(max=stop), (cells.double() + cell).unsqueeze(1))
        shared = (ends - torch.maximum(own, cells.double().unsqueeze(1))).clamp(min=0) / cell
        return first, shared.float() * weight_profile(self._blending, count)

    def take(self, row: int, nodata: np.ndarray) -> np.ndarray:
        """Take the means (channels, rows, columns) of the patches that are final after a row of tiles, NaN = no data.

        `nodata` (h, W) are the pixels of the row's strip that have none.
        """
        start, stop = self._plan.strip(row)
        mark_patches(self._has_data, ~nodata, self.cell, start - self._first * self.cell[0])
        # A row of patches is final once no tile below begins above its end.
        end = math.floor(stop / self.cell[0] + _ROUNDING) if stop < self._plan.height else self.size[0]
        count = end - self._first
        means = (self._sums[:, :count] / self._weights[:count]).numpy()
        means[:, ~self._has_data[:count]] = np.nan
        broken = self._has_data[:count] & ~np.isfinite(means).all(axis=0)
        if broken.any():
            raise ValueError(
                f"The model gives values that are not finite in {int(broken.sum())} patches with data, in rows "
                f"{self._first} to {end - 1} of patches: check its weights, and the dtype that it runs in (float32 or "
                "bfloat16 instead of float16)."
            )
        for array in (*self._sums, self._weights, torch.from_numpy(self._has_data)):
            array[: len(array) - count] = array[count:].clone()
            array[len(array) - count :] = 0
        self._first = end
        return means


def embed_strips(
    encoder: PrithviModel, tiles: TileSource, layer: int, sums: PatchSums, show_progress: bool
) -> Iterator[np.ndarray]:
    """Encode the tiles, and give the rows of patches (channels, rows, columns) that are final, from top to bottom."""
    frames = sums.channels // encoder.config.hidden_size
    total = tiles.plan.count_tiles(tiles.strips)
    items = iterate_in_background(partial(iter, tiles), _BATCHES_AHEAD, "scene reader")
    with (
        evaluation_mode(encoder),
        closing(items),
        logging.tqdm(desc="windows", unit="window", total=total, disable=not show_progress) as bar,
    ):
        for item in items:
            if isinstance(item, TileBatch):
                _, patches = encode_patches(encoder, item.pixel_values, item.coordinates, layer)  # (B, T, E, h, w)
                patches = patches.float().mean(dim=1) if frames == 1 else patches.flatten(1, 2)
                for left, tile in zip(item.lefts, patches, strict=True):
                    sums.add(item.row, left, tile)
                bar.update(len(item.lefts))
            else:
                bar.update(item.skipped)
                yield sums.take(item.row, item.nodata)
