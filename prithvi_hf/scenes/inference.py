# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""How a model runs over a scene: its dtype, checked on some tiles, and graphs compiled for tiles of one size."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from affine import Affine
from torch import nn

from prithvi_hf.models.prithvi.embeddings_prithvi import COORDINATE_ARGUMENTS
from prithvi_hf.models.prithvi.inference_dtype_prithvi import (
    DtypeChoice,
    Sample,
    convert_model,
    count_tiles_to_compare,
    resolve_dtype,
    spread_places,
)
from prithvi_hf.models.prithvi.sliding_window_prithvi import evaluation_mode
from prithvi_hf.rasters.raster import GeoTiffError
from prithvi_hf.scenes.engine import predict_tiles
from prithvi_hf.scenes.reading import RowEnd, TileBatch, TileSource
from prithvi_hf.scenes.scene import Scene
from prithvi_hf.scenes.tiles import TilePlan


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
    from prithvi_hf.scenes.predict_scenes import ProcessGroup


def sample_tiles(
    scene: Scene, image_processor: "PrithviImageProcessor", plan: TilePlan, config: Any, on_read_error: str = "raise"
) -> Iterator[Sample]:
    """Read tiles with data from all over a scene, each by itself, as the model of a configuration takes them."""
    (height, width), encoded = plan.window, tuple(getattr(config, "coords_encoding", None) or ())
    own = TilePlan(height, width, plan.window, plan.window)
    for top, left in spread_places(plan.tops, plan.lefts):
        frames = tuple(frame.select(window=(top, left, height, width)) for frame in scene.frames)
        transform = scene.grid.transform @ Affine.translation(left, top)
        part = replace(scene, frames=frames, grid=replace(scene.grid, transform=transform, height=height, width=width))
        source = TileSource(part, image_processor, own, range(1), 1, encoded, on_read_error)
        source.units_checked = True
        try:
            items = list(source)
        except GeoTiffError:
            continue  # the run itself comes here and says where the file is damaged, as it does of other units
        if isinstance(items[0], TileBatch) and isinstance(items[-1], RowEnd):
            inputs = {"pixel_values": items[0].pixel_values, **items[0].coordinates}
            yield inputs, torch.from_numpy(~items[-1].nodata)[None]


class CompiledModel(nn.Module):
    """A model compiled for one size of tiles and of batches; a smaller batch is filled up and its answer cut off.

    On a GPU the kernels of a batch are recorded once, as a CUDA graph, and started together.

    Args:
        model: The model, on its device.
        batch_size: Tiles in every batch.
    """

    def __init__(self, model: Any, batch_size: int) -> None:
        super().__init__()
        self.config, self.task, self.device = model.config, getattr(model, "task", None), model.device
        self._batch_size = batch_size
        mode = "reduce-overhead" if model.device.type == "cuda" else None
        self.compiled = torch.compile(
            model, fullgraph=getattr(model, "_can_compile_fullgraph", False), dynamic=False, mode=mode
        )

    def forward(self, **inputs: torch.Tensor) -> SimpleNamespace:
        """Give the logits of at most `batch_size` tiles; the arguments are those of the model."""
        count = len(inputs["pixel_values"])
        if count < self._batch_size:
            inputs = {
                name: torch.cat([values, values[-1:].expand(self._batch_size - count, *values.shape[1:])])
                for name, values in inputs.items()
            }
        if self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        logits = self.compiled(**inputs).logits[:count]
        # The next run of a CUDA graph writes to the same memory.
        return SimpleNamespace(logits=logits.clone() if self.device.type == "cuda" else logits)


@lru_cache(maxsize=2)  # of the scenes of a list; two, as they may differ in dtype
def _compile_in_dtype(model: Any, dtype: str, device: torch.device, batch_size: int) -> tuple[Any, CompiledModel]:
    """Give the model in a dtype, and compiled."""
    converted = convert_model(model, dtype)
    return converted, CompiledModel(converted, batch_size)


def compile_model(
    model: Any, dtype: str, batch_size: int, window: tuple[int, int], num_frames: int
) -> tuple[Any, CompiledModel]:
    """Compile a model for tiles of one size, and run it once, so that what fails does so before anything is written.

    Args:
        model: The model, on its device.
        dtype: The dtype to convert it to.
        batch_size: Tiles in every batch.
        window: Height and width of a tile.
        num_frames: Dates of a tile.

    Returns:
        The model in the dtype, and compiled.

    Raises:
        ValueError: If it cannot be compiled here.
    """
    if hasattr(model, "export_format"):
        raise ValueError(
            f"Expected a model of PyTorch to compile, found a {type(model).__name__}, whose graph is compiled: "
            "leave --compile out."
        )
    converted, compiled = _compile_in_dtype(model, dtype, model.device, batch_size)
    if converted is not model:  # which may have been trained since
        converted.load_state_dict(model.state_dict())
    shapes = {"time": (batch_size, num_frames, 2), "location": (batch_size, 2)}
    encoded = getattr(model.config, "coords_encoding", None) or ()
    coordinates = {COORDINATE_ARGUMENTS[name]: torch.zeros(shapes[name]) for name in encoded}
    tiles = torch.zeros(batch_size, model.config.num_channels, num_frames, *window)
    try:
        # Every size of tiles is a graph of its own, and a list of small scenes may have many.
        with evaluation_mode(compiled), torch._dynamo.config.patch(recompile_limit=1000):
            predict_tiles(compiled, tiles, coordinates)  # type: ignore[arg-type]  # which is called like a model
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"The model cannot be compiled here ({reason}). torch.compile needs a C++ compiler (g++, or the one that "
            "CXX names) on a CPU, and triton on a GPU: install it, or leave --compile out."
        ) from error
    return converted, compiled


def set_up_model(
    model: Any,
    image_processor: "PrithviImageProcessor",
    scene: Scene,
    plan: TilePlan,
    *,
    batch_size: int,
    on_read_error: str,
    device: str | torch.device | None,
    dtype: str | None,
    compile: bool,
    group: "ProcessGroup | None",
    choice: DtypeChoice,
) -> tuple[Any, Any, DtypeChoice]:
    """Bring a model to its device, dtype and form for a scene; the arguments are those of `predict_scene`.

    `choice` is the dtype that the model has, where no other is asked for. All processes of a group predict in the
    dtype that the first one chooses.

    Returns:
        The model in the dtype; the same or, with `compile`, what runs in its place; and the dtype that was chosen.
    """
    if device is not None:
        model.to(device)
    if dtype is not None and (group is None or group.is_main or dtype != "auto"):
        samples = sample_tiles(scene, image_processor, plan, model.config, on_read_error)
        count = count_tiles_to_compare(plan.count_tiles(range(plan.num_strips)))
        choice = resolve_dtype(model, dtype, samples, count)
    if dtype == "auto" and group is not None:
        choice = DtypeChoice(*group.share(tuple(choice)))
    if not compile:
        model = runner = convert_model(model, choice.chosen)
    else:
        model, runner = compile_model(model, choice.chosen, batch_size, plan.window, image_processor.num_frames)
    return model, runner, choice
