# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Scenes that are made while they are read, and models that answer at once, for the tests of the engine."""

import threading
from types import SimpleNamespace

import numpy as np
import torch

from prithvi_hf.models.prithvi.configuration_prithvi import PRITHVI_BANDS
from prithvi_hf.rasters.raster import ArrayRaster, GeoTiffError, Raster
from prithvi_hf.rasters.warping import Grid
from prithvi_hf.scenes.engine import predict_strips
from prithvi_hf.scenes.scene import Scene
from prithvi_hf.scenes.tiles import TilePlan


NODATA = -9999


class PixelModel(torch.nn.Module):
    """Three classes from the bands of each pixel alone, so that the map does not depend on the tiles."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1.0))
        self.config = SimpleNamespace(num_labels=3, image_size=32, coords_encoding=[], **options)
        self.calls: list[torch.Size] = []

    @property
    def device(self) -> torch.device:
        return self.scale.device

    def forward(self, pixel_values, **coordinates):
        self.calls.append(pixel_values.shape)
        last = pixel_values[:, :, -1] * self.scale
        return SimpleNamespace(logits=torch.stack([last[:, 0], last[:, 1] - last[:, 2], last[:, 3:].mean(1)], dim=1))


class WatchedRaster(Raster):
    """Pixels by a formula, in blocks; remembers what was read, and fails where it is told to."""

    def __init__(self, height, width, block=(16, 16), fail_at_row=None, name="watched.tif"):
        super().__init__(
            name=name,
            dtype="int16",
            size=(height, width),
            descriptions=PRITHVI_BANDS,
            nodata=float(NODATA),
            block_shape=block,
        )
        self._fail_at_row = fail_at_row
        self.reads: list[tuple[int, int, int, int]] = []
        self.threads: set[str] = set()

    def _read(self, bands, window):
        row, column, height, width = window
        self.reads.append(window)
        self.threads.add(threading.current_thread().name)
        if self._fail_at_row is not None and row + height > self._fail_at_row:
            raise GeoTiffError(f"{self.name}: damaged.")
        rows = np.arange(row, row + height).reshape(-1, 1)
        columns = np.arange(column, column + width)
        planes = [(rows * 31 + columns * 17 + band * 7919) % 3001 + 300 for band in bands]
        return np.stack(planes).astype(np.int16)

    def _read_mask(self, bands, window):
        return None


def make_scene(*frames, name="scene"):
    """A scene of arrays (bands, height, width) or rasters."""
    rasters = tuple(
        ArrayRaster(frame, name=f"{name} {date}", descriptions=PRITHVI_BANDS, nodata=NODATA)
        if isinstance(frame, np.ndarray)
        else frame
        for date, frame in enumerate(frames)
    )
    return Scene(name, rasters, Grid.of(rasters[0]), (None,) * len(rasters), ())


def plan_for(scene, window=(32, 32), stride=(16, 16)) -> TilePlan:
    return TilePlan(scene.grid.height, scene.grid.width, window, stride)


def whole_map(*args, **options) -> tuple[torch.Tensor, np.ndarray]:
    """Logits (num_labels, H, W) and nodata (H, W) of all strips."""
    strips = list(predict_strips(*args, **options))
    return torch.cat([strip.logits for strip in strips], dim=1), np.concatenate([strip.nodata for strip in strips])


def reader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("scene reader")]
