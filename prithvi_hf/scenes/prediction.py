# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Prediction of whole scenes: GeoTIFF frames in, a georeferenced map out."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers.utils import logging

from prithvi_hf.scene_prithvi import (
    SegmentationMap,
    assemble_map,
    check_window_options,
    open_frames,
    predict_scene_logits,
    prepare_scene,
)
from prithvi_hf.scenes.writer import check_output_path, check_probability_dtype, file_values


def predict_scene(
    model: torch.nn.Module,
    image_processor: Any,
    frames: str | os.PathLike | Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    batch_size: int = 8,
    overlap: float = 0.5,
    window: int | Sequence[int] | None = None,
    probabilities: str | os.PathLike | bool | None = None,
    probabilities_dtype: str = "float32",
    quicklook: str | os.PathLike | None = None,
    class_values: Mapping[int, int] | None = None,
    device: str | torch.device | None = None,
    overwrite: bool = True,
    show_progress: bool = True,
) -> SegmentationMap:
    """Map a scene that fits in memory and write the map.

    Args:
        model: A `PrithviForSemanticSegmentation`; in evaluation mode meanwhile, and as it was afterwards.
        image_processor: Its `PrithviImageProcessor`.
        frames: One GeoTIFF, or those of all dates in time order, on one grid.
        output: The Cloud-Optimized GeoTIFF of classes to write.
        batch_size: Windows in one forward pass, at least 1; memory of the device grows with it.
        overlap: Share of a window that the next one covers again, 0 <= overlap < 1.
        window: Side of the windows in pixels, or (height, width); None is the model's `image_size`.
        probabilities: A GeoTIFF of class probabilities to write as well; None or False for none.
        probabilities_dtype: "float32", or "uint8" for a quarter of the size.
        quicklook: A PNG of scene and map to write as well, or None.
        class_values: Class index to file value, 0 to 254, where the two differ.
        device: Where to run, for example "cuda" or "cpu"; the model is moved there and stays. None is where it is.
        overwrite: Whether existing outputs may be replaced.
        show_progress: Whether to show a progress bar over the windows.

    Returns:
        The map that was written, with its probabilities if they were asked for.

    Raises:
        ValueError: If an argument leaves its range, an output cannot be written or is an input, a frame is no GeoTIFF,
            frames lie on different grids, or the processor refuses them. Nothing is written then.
        OSError: If reading or writing fails; no incomplete file is left.
    """
    paths = [frames] if isinstance(frames, str | os.PathLike) else list(frames)
    check_window_options(window, overlap, batch_size)
    check_outputs({"map": output, "probabilities": probabilities, "quick look": quicklook}, paths, overwrite)
    check_probability_dtype(probabilities_dtype)
    file_values(model.config.id2label, class_values)
    scene = prepare_scene(image_processor, open_frames(paths))
    if device is not None:
        model.to(device)
    with _progress_bar(show_progress) as on_windows:
        logits = predict_scene_logits(
            model, scene, window=window, overlap=overlap, batch_size=batch_size, on_windows=on_windows
        )
    result = assemble_map(model.config, logits, scene, return_probabilities=bool(probabilities))
    result.to_geotiff(output, class_values=class_values)
    if probabilities:
        result.probabilities_to_geotiff(probabilities, dtype=probabilities_dtype)
    if quicklook:
        result.to_png(quicklook)
    return result


def check_outputs(outputs: Mapping[str, Any], inputs: Sequence[Any], overwrite: bool) -> None:
    """Refuse outputs that cannot or must not be written, or that would replace each other.

    Args:
        outputs: What a file is, to its path; None and False are passed over.
        inputs: Paths of the frames.
        overwrite: Whether existing files may be replaced.

    Raises:
        ValueError: If one is refused; the message names it.
    """
    seen: dict[str, str] = {}
    for purpose, path in outputs.items():
        if not path:
            continue
        if path is True:
            raise ValueError(f"Expected a path for the {purpose}, found True: name the file to write.")
        resolved = os.path.realpath(check_output_path(path, inputs, overwrite, purpose))
        if resolved in seen:
            raise ValueError(f"The {purpose} and the {seen[resolved]} are the same file {path}: name two files.")
        seen[resolved] = purpose


@contextmanager
def _progress_bar(show: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Lend a function that moves a bar over the windows, or None where none shall show."""
    if not show:
        yield None
        return
    with logging.tqdm(desc="windows", unit="window") as bar:

        def move(done: int, total: int) -> None:
            bar.total = total
            bar.update(done)

        yield move


__all__ = ["check_outputs", "predict_scene"]
