# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Mapping a scene from its file, strip by strip: against the model alone, and against GDAL alone without a model.

`python -m benchmarks.scenes SCENE MAP` maps a scene with the model that answers at once, and prints the bytes it took.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import rasterio
import torch
from affine import Affine
from transformers.modeling_outputs import SemanticSegmenterOutput

from benchmarks.memory import in_fresh_process, peak_of
from benchmarks.timing import comparison, median_seconds
from examples.synthetic_floods import generate_scene
from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation, PrithviImageProcessor
from prithvi_hf.rasters.write_geotiff import write_geotiff
from prithvi_hf.scenes import predict_scene
from prithvi_hf.scenes.engine import predict_strips
from prithvi_hf.scenes.reading import TileBatch, TileSource
from prithvi_hf.scenes.scene import Scene, open_scene
from prithvi_hf.scenes.tiles import TilePlan


SIDE = 784  # pixels: 6 x 6 windows of 224, each half over the one before
BATCH_SIZE = 6
TILE_SIDE, QUICK_SIDE = 10_980, 2_196  # pixels of a tile of Sentinel-2, and of a fifth of its side


def write_scene(path: Path, side: int = SIDE) -> Path:
    """A scene as satellites' archives give it: six bands, int16, tiles of 256, deflate; it repeats after 784 px.

    Args:
        path (`Path`): The GeoTIFF to write.
        side (`int`): Rows and columns.
    """
    places = np.arange(side) % SIDE
    image = generate_scene(SIDE, SIDE, seed=0).image[:, places][:, :, places]
    options = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "num_threads": "all_cpus"}
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
        scene = open_scene([write_scene(Path(folder) / "scene.tif")])
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


class InstantModel(PrithviForSemanticSegmentation):
    """A model that answers at once, so that nothing but the way of the pixels takes time."""

    def forward(self, pixel_values: torch.Tensor, **_: torch.Tensor) -> SemanticSegmenterOutput:
        """Take two bands for the logits of two classes."""
        return SemanticSegmenterOutput(logits=pixel_values[:, :2, 0])


def make_tiny(kind: type[PrithviForSemanticSegmentation]) -> PrithviForSemanticSegmentation:
    """A random model of two classes and one layer, whose time beside that of the pixels is small."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "neck_hidden_size": 16}
    return kind(
        PrithviConfig(num_frames=1, num_labels=2, head_hidden_size=8, use_auxiliary_head=False, **sizes)
    ).eval()


def map_scene(scene: Path, output: Path, kind: type[PrithviForSemanticSegmentation]) -> dict[str, float]:
    """Map a scene from its file, and give the seconds of the report, and of all without the model's own."""
    model, start = make_tiny(kind), time.perf_counter()
    result = predict_scene(model, PrithviImageProcessor(), scene, output, show_progress=False)
    seconds = result.report["seconds"]
    return {**seconds, "without_model": time.perf_counter() - start - seconds["model"]}


def read_blocks(path: Path) -> None:
    """Read all bands block by block with GDAL in one thread."""
    with rasterio.open(path) as dataset:
        for _, window in dataset.block_windows(1):
            dataset.read(window=window)


def write_cog(path: Path, pixels: np.ndarray, profile: dict[str, object]) -> None:
    """Write a map with GDAL's driver of Cloud-Optimized GeoTIFFs in one thread, at its default level."""
    options = {"compress": "deflate", "blocksize": 512, "overview_resampling": "mode", "num_threads": 1}
    size = {"height": pixels.shape[0], "width": pixels.shape[1], "count": 1, "dtype": "uint8", "nodata": 255}
    place = {"crs": profile["crs"], "transform": profile["transform"]}
    with rasterio.open(path, "w", driver="COG", **size, **place, **options) as dataset:
        dataset.write(pixels, 1)


def run_against_gdal(repeats: int, quick: bool, side: int | None = None) -> list[dict[str, float | str]]:
    """Measure the way of the pixels, from the bands of a tile to its map, against GDAL alone in one thread.

    Args:
        repeats (`int`): As in `run`; the whole tile is mapped a fifth as often.
        quick (`bool`): 2,196 px in place of 10,980.
        side (`int`, *optional*): Pixels, in place of either.

    Returns:
        `list[dict]`: Reading, writing, the whole way with a model that answers at once and with a tiny model, without
        its own time, and peak memory.
    """
    side = side or (QUICK_SIDE if quick else TILE_SIDE)
    repeats, seconds = max(1, repeats // 5), {}
    with tempfile.TemporaryDirectory() as folder:
        path, output = write_scene(Path(folder) / "scene.tif", side), Path(folder) / "map.tif"
        scene, processor = open_scene([path]), PrithviImageProcessor()
        plan = TilePlan.for_model(PrithviConfig(), side, side)
        tiny = map_scene(path, output, PrithviForSemanticSegmentation)
        with rasterio.open(output) as dataset:  # of the tiny model, so that both write the same map
            pixels, profile = dataset.read(1), dataset.profile
        contenders: dict[str, Callable[[], object]] = {
            "reading": lambda: list(map(type, TileSource(scene, processor, plan, range(plan.num_strips), 8))),
            "gdal reads": lambda: read_blocks(path),
            "gdal writes": lambda: write_cog(Path(folder) / "gdal.tif", pixels, profile),
        }
        seconds = median_seconds(contenders, repeats)
        runs = [map_scene(path, output, InstantModel) for _ in range(repeats)]
        peak = in_fresh_process("benchmarks.scenes", str(path), str(output)) / 1e6
    gdal = seconds["gdal reads"] + seconds["gdal writes"]
    whole, bands = f"map a {side:,} px tile of a file", "GDAL reads all bands by blocks"
    both = "GDAL reads all bands and writes the map, one thread each"
    memory = {"ours_mb": peak, "alternative_mb": 12 * side**2 / 1e6, "ratio": 12 * side**2 / 1e6 / peak}
    return [
        comparison(
            f"read a {side:,} px tile into batches of windows", seconds["reading"], seconds["gdal reads"], bands
        ),
        comparison(
            "make its map of finished strips", tiny["finishing"], seconds["gdal writes"], "GDAL writes the COG"
        ),
        comparison(f"{whole}, a model that answers at once", median(one["total"] for one in runs), gdal, both),
        comparison(f"{whole}, a tiny model, without its own time", tiny["without_model"], gdal, both),
        {"what": f"{whole}, peak memory", **memory, "alternative": "its six bands in memory"},
    ]


if __name__ == "__main__":
    print(peak_of(lambda: map_scene(Path(sys.argv[1]), Path(sys.argv[2]), InstantModel)))
