# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Mapping a scene from its file, strip by strip, against the model alone on the same tiles, already in memory."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from affine import Affine

from benchmarks.timing import comparison, median_seconds
from examples.synthetic_floods import generate_scene
from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation, PrithviImageProcessor
from prithvi_hf.rasters.write_geotiff import write_geotiff
from prithvi_hf.scenes.engine import predict_strips
from prithvi_hf.scenes.reading import TileBatch, TileSource
from prithvi_hf.scenes.scene import Scene, open_scene
from prithvi_hf.scenes.tiles import TilePlan


SIDE = 784  # pixels: 6 x 6 windows of 224, each half over the one before
BATCH_SIZE = 6


def write_scene(path: Path, image: np.ndarray) -> Path:
    """A scene as satellites' archives give it: six bands, int16, tiles of 256, deflate.

    Args:
        path (`Path`): The GeoTIFF to write.
        image (`np.ndarray`): (6, H, W) int16.
    """
    options = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    bands = list(PrithviImageProcessor.bands)
    transform = Affine(10.0, 0.0, 400_000.0, 0.0, -10.0, 8_400_000.0)
    write_geotiff(path, image, crs="EPSG:32720", transform=transform, descriptions=bands, **options)
    return path


def _model(hidden_size: int, num_layers: int) -> PrithviForSemanticSegmentation:
    """A random model of one frame; the defaults of `run` are the size of Prithvi 100M."""
    torch.manual_seed(0)
    sizes = {"hidden_size": hidden_size, "num_hidden_layers": num_layers, "num_attention_heads": hidden_size // 64}
    return PrithviForSemanticSegmentation(PrithviConfig(num_frames=1, num_labels=2, **sizes)).eval()


def _batches(processor: PrithviImageProcessor, scene: Scene, plan: TilePlan) -> list[torch.Tensor]:
    """The tiles as `predict_strips` gives them to the model."""
    items = TileSource(scene, processor, plan, range(plan.num_strips), BATCH_SIZE)
    return [item.pixel_values for item in items if isinstance(item, TileBatch)]


@torch.no_grad()
def _run_model(model: PrithviForSemanticSegmentation, batches: list[torch.Tensor]) -> None:
    for batch in batches:
        model(pixel_values=batch)


def _run_scene(model: torch.nn.Module, processor: PrithviImageProcessor, scene: Scene, plan: TilePlan) -> None:
    for _ in predict_strips(model, processor, scene, plan, batch_size=BATCH_SIZE):
        pass


def run(repeats: int, hidden_size: int = 768, num_layers: int = 12) -> dict[str, float | str]:
    """Measure both on a generated scene of 784 px.

    Args:
        repeats (`int`): Timed calls of each.
        hidden_size (`int`, defaults to 768): Width of the model, a multiple of 64.
        num_layers (`int`, defaults to 12): Its depth.

    Returns:
        `dict`: Milliseconds for the scene of both, their ratio, and the overhead: our time over the model's.
    """
    model, processor = _model(hidden_size, num_layers), PrithviImageProcessor()
    with tempfile.TemporaryDirectory() as folder:
        scene = open_scene([write_scene(Path(folder) / "scene.tif", generate_scene(SIDE, SIDE, seed=0).image)])
        plan = TilePlan.for_model(model.config, scene.grid.height, scene.grid.width)
        batches = _batches(processor, scene, plan)
        contenders = {
            "ours": lambda: _run_scene(model, processor, scene, plan),
            "model": lambda: _run_model(model, batches),
        }
        seconds = median_seconds(contenders, max(1, repeats // 5))
    what = f"map a {SIDE} px scene of a file, {plan.count_tiles(range(plan.num_strips))} windows of 224 px"
    alone = "the model alone on the same windows in memory"
    row = comparison(what, seconds["ours"], seconds["model"], alone)
    return {**row, "overhead": seconds["ours"] / seconds["model"]}
