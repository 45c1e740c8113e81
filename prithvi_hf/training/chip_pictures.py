# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures of the best and the worst chips of an evaluation, as small files beside the model for its report."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from prithvi_hf.data.chip_cache import CachedChips
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.segmentation_map_prithvi import NODATA_CLASS
from prithvi_hf.outputs.palette import class_palette
from prithvi_hf.outputs.quicklook import make_color_scale, paint_classes, paint_values
from prithvi_hf.training.chip_figures import read_columns, read_metadata
from prithvi_hf.training.sample_pictures import paint_differences, paint_errors, pick_samples, predict_map


CHIP_PICTURES = "chip_pictures"
"""Folder of the pictures in that of a run."""
_LARGEST_SIDE = 320  # pixels of one panel
_GAP = 6  # pixels between panels


@dataclass(frozen=True)
class ChipPicture:
    """A picture of a chip: panels side by side, all of one width.

    Attributes:
        file: its name in the folder of pictures.
        prefix: of the evaluation.
        chip: id of the chip.
        is_best: one of the best, or one of the worst.
        panels: what its panels show, from left to right.
    """

    file: str
    prefix: str
    chip: str
    is_best: bool
    panels: list[str]


def score_chips(table: pa.Table) -> np.ndarray:
    """Give the score of each chip, larger is better, NaN without a label.

    It is the mean IoU over the classes in the chip's labels or predictions or, of other tasks, minus its loss.
    """
    columns = read_columns(table)
    if read_metadata(table)["task"] != "segmentation":
        return -columns["loss"]
    flat = columns["confusion"].astype(np.float64)
    side = round(flat.shape[1] ** 0.5)
    matrices = flat.reshape(len(flat), side, side)
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    union = matrices.sum(axis=1) + matrices.sum(axis=2) - hits
    present = union > 0
    iou = np.divide(hits, union, out=np.zeros_like(hits), where=present)
    counted = present.sum(axis=1)
    return np.divide(iou.sum(axis=1), counted, out=np.full(len(flat), np.nan), where=counted > 0)


def rank_chips(table: pa.Table, count: int) -> tuple[list[int], list[int]]:
    """Give the places of the best and of the worst chips of a table, each beginning with the most extreme."""
    scores = score_chips(table)
    order = [place for place in np.argsort(scores, kind="stable").tolist() if scores[place] == scores[place]]
    worst = order[: min(count, len(order) - len(order) // 2)]
    best = order[::-1][: min(count, len(order) // 2)]
    return best, worst


def write_chip_pictures(
    folder: Path,
    model: Any,
    processor: PrithviImageProcessor,
    dataset: Dataset | CachedChips,
    table: pa.Table,
    count: int = 3,
    window: int | None = None,
    overlap: float = 0.5,
) -> list[ChipPicture]:
    """Predict and draw the best and worst chips of an evaluation into the folder of a run.

    Args:
        folder: that of the run; pictures of an earlier one are replaced.
        model: the model, of one of `TASKS`.
        processor: its image processor.
        dataset: the evaluated chips, in the order of the table.
        table: figures of these chips, of one evaluation.
        count: of each kind; with fewer than twice as many chips, each is drawn once.
        window: side of the windows in pixels.
        overlap: their overlap, as a fraction.
    """
    from PIL import Image

    best, worst = rank_chips(table, count)
    chips, prefix = table["chip"].to_pylist(), table["prefix"][0].as_py()
    shutil.rmtree(folder / CHIP_PICTURES, ignore_errors=True)
    (folder / CHIP_PICTURES).mkdir()
    pictures = []
    for kind, places in (("best", best), ("worst", worst)):
        for number, place in enumerate(places, start=1):
            panels = paint_chip(model, processor, dataset, place, window, overlap)
            if not panels:  # of bands without colours
                continue
            file = f"{kind}-{number}.webp"
            Image.fromarray(_join(list(panels.values()))).save(folder / CHIP_PICTURES / file, quality=90)
            pictures.append(ChipPicture(file, prefix, chips[place], kind == "best", list(panels)))
    return pictures


def paint_chip(
    model: Any,
    processor: PrithviImageProcessor,
    dataset: Dataset | CachedChips,
    index: int,
    window: int | None = None,
    overlap: float = 0.5,
) -> dict[str, np.ndarray]:
    """Paint a chip, its label, its prediction and the errors, by title, each (height, width, 4) uint8.

    Of a model of whole images the chip alone.
    """
    [(_, scene, targets)] = pick_samples(model, processor, dataset, [index])
    panels = {} if scene.rgb is None else {"scene": scene.rgb}
    if model.task == "classification":
        return panels
    prediction = predict_map(model, scene, window, overlap)
    if model.task == "regression":
        scale = make_color_scale(targets)
        values = {"target": paint_values(targets, scale), "prediction": paint_values(prediction, scale)}
        return {**panels, **values, "error": paint_differences(prediction - targets, scale)}
    id2label = dict(sorted(model.config.id2label.items()))
    palette = class_palette(len(id2label), model.config.class_colors, [*id2label.values()])
    labels = np.where(targets < 0, NODATA_CLASS, targets).astype(np.uint8)
    painted = {"label": paint_classes(labels, palette), "prediction": paint_classes(prediction, palette)}
    return {**panels, **painted, "error": paint_errors(labels, prediction)}


def _join(panels: Sequence[np.ndarray]) -> np.ndarray:
    """Put panels side by side, thinned to a size that is shown, with transparent gaps."""
    step = -(-max(panels[0].shape[:2]) // _LARGEST_SIDE)
    thin = [panel[::step, ::step] for panel in panels]
    height, width = thin[0].shape[:2]
    joined = np.zeros((height, len(thin) * (width + _GAP) - _GAP, 4), np.uint8)
    for number, panel in enumerate(thin):
        start = number * (width + _GAP)
        joined[: panel.shape[0], start : start + panel.shape[1]] = panel[:height, :width]
    return joined
