# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""From logits to files: what strips keep of the logits, and the last pass, which makes files of all strips.

The files get their names together. Nothing of the last pass is kept between runs: a pass that was interrupted begins
again from the strips.
"""

import json
import math
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from prithvi_hf.disk import explain_disk_full
from prithvi_hf.models.prithvi.configuration_prithvi import name_counts
from prithvi_hf.models.prithvi.regression_map_prithvi import Quantity, measure_values
from prithvi_hf.outputs.cog import (
    BLOCK_SIZE,
    NODATA_CLASS,
    Layer,
    class_layer,
    fraction_layer,
    quantize,
    sync_to_disk,
    value_layer,
    write_geotiff,
)
from prithvi_hf.outputs.registry import Output, OutputOptions
from prithvi_hf.outputs.staging import REMEDY, Staging
from prithvi_hf.rasters.warping import Grid


CLASSES, PROBABILITIES, ENTROPY, CONFIDENCE = "classes", "probabilities", "entropy", "confidence"
VALUES = "values"  # of a regression, in place of all of them
THUMBNAIL, DETAILS = "thumbnail", "details"  # kept besides by who makes the strips: a small picture, JSON as bytes
_CHUNK_VALUES = 2**20  # logits turned at once: temporary arrays stay small whatever the strip's size
_SMALL_OUTPUT = 2**20  # bytes that are asked for where the size of an output cannot be known beforehand


def name_probability(index: int) -> str:
    """Name the array that holds the probability of one class."""
    return f"probability_{index:03d}"


def make_products(
    logits: torch.Tensor,
    nodata: np.ndarray,
    needs: Collection[str] = (),
    dtype: str = "float32",
    temperature: float = 1.0,
) -> dict[str, np.ndarray]:
    """Turn logits (num_labels, h, W) on the CPU, finite where there is data, into what is kept of them.

    This runs beside the model, so it computes with numpy: a thread that uses torch gets a pool of threads of its own,
    which would take the cores from the model.

    Args:
        logits: float32 or wider.
        nodata: (h, W) bool, True = nodata.
        needs: `VALUES`, of a regression, or some of `PROBABILITIES` (softmax of the logits), `ENTROPY` (of the
            probabilities, as a fraction of the largest possible one, ln(num_labels)) and `CONFIDENCE` (the probability
            of the chosen class, float32).
        dtype: "float32" or "uint8" (0..254 for 0..1), for probabilities and entropy.
        temperature: What logits are divided by before the softmax, that of the configuration.

    Returns:
        By name, each (h, W): `VALUES` float32 with NaN for nodata; or `CLASSES` uint8 with 255 for nodata, and as
        asked for one `name_probability(i)` per class, `ENTROPY` and `CONFIDENCE`, with NaN (float32) or 255 (uint8)
        for nodata.
    """
    if VALUES in needs:
        return {VALUES: np.where(nodata, np.float32(np.nan), logits[0].numpy().astype(np.float32))}
    if len(logits) > NODATA_CLASS:
        raise ValueError(f"A map of uint8 classes holds at most {NODATA_CLASS} of them, the model has {len(logits)}.")
    all_values = logits.numpy()
    chunk = max(1, _CHUNK_VALUES // max(1, all_values[:, 0].size))
    products: dict[str, np.ndarray] = {}

    for first in range(0, len(nodata), chunk):
        rows = slice(first, first + chunk)
        values, missing = all_values[:, rows].astype(np.float32), nodata[rows]

        # The class of the largest logit, the first of equal ones.
        classes, largest = np.zeros(missing.shape, dtype=np.uint8), values[0].copy()
        for index, plane in enumerate(values[1:], start=1):
            classes[plane > largest] = index
            np.maximum(largest, plane, out=largest)
        classes[missing] = NODATA_CLASS
        found = {CLASSES: classes}

        if {PROBABILITIES, ENTROPY, CONFIDENCE} & set(needs):
            values -= largest
            values /= temperature
            powers = np.exp(values)
            total = powers.sum(axis=0)
        if PROBABILITIES in needs:
            found |= {name_probability(index): plane / total for index, plane in enumerate(powers)}
        if ENTROPY in needs:
            # With x the logits below their largest, probabilities are e^x / total, so the sum over -p ln p is
            # ln total - the sum over p x. That takes no logarithm of a probability, which may be 0.
            entropy = np.log(total) - (powers * values).sum(axis=0) / total
            found[ENTROPY] = np.clip(entropy / math.log(max(2, len(values))), 0, 1, dtype=np.float32)
        if CONFIDENCE in needs:
            found[CONFIDENCE] = 1 / total

        for name, part in found.items():
            if name != CLASSES:
                part[missing] = np.nan
                part = part if dtype == "float32" or name == CONFIDENCE else quantize(part)
            products.setdefault(name, np.empty(nodata.shape, part.dtype))[rows] = part
    return products


@dataclass
class StagedMap:
    """A map in the making, which writing functions get: where its strips are, and what is known of it."""

    staging: Staging  # all strips are there when outputs are written
    starts: tuple[int, ...]  # first row of each strip, in order; a strip ends where the next one starts
    grid: Grid
    id2label: Mapping[int, str]
    class_colors: Sequence[str] | None = None  # `"#rrggbb"` per class, or None for default colours
    options: OutputOptions = field(default_factory=OutputOptions)
    show_progress: bool = False
    bands: tuple[str, ...] = ()  # of the model, and what the picture of the scene is called
    rgb_title: str = "scene"
    parts: dict[str, Path] = field(default_factory=dict)  # by name, what is being made; the map is made first
    report: dict[str, Any] = field(default_factory=dict)  # for JSON; complete when the report is written
    quantity: Quantity | None = None  # what the values of a regression are; None for a map of classes
    counts: np.ndarray = field(default_factory=partial(np.zeros, 256, np.int64))  # of class indices in the map

    def load(self, name: str) -> Iterator[np.ndarray]:
        """Read one array of each strip, (h, W), from the first strip to the last."""
        for index in range(len(self.starts)):
            yield self.staging.load(index, [name])[name]

    def load_details(self) -> list[dict[str, Any]]:
        """Read what each strip says of itself besides pixels."""
        return [json.loads(text.tobytes()) for text in self.load(DETAILS)]


def make_layer(output: Output, strips: StagedMap) -> Layer:
    """Describe the GeoTIFF of what strips keep for an output: of the classes where it needs nothing more."""
    if not output.needs and strips.quantity is not None:
        return value_layer(strips.quantity)
    if not output.needs:
        return class_layer(strips.id2label, strips.class_colors, strips.options.class_values)
    bands, descriptions, dtype = list(output.needs), list(output.needs), strips.options.probabilities_dtype
    if PROBABILITIES in output.needs:
        bands = [name_probability(index) for index in range(len(strips.id2label))]
        descriptions = [strips.id2label[index] for index in range(len(bands))]
    # Polygons average the confidence as it is.
    return fraction_layer(output.name, bands, descriptions, dtype if output.write is None else "float32")


def write_layer(path: Path, layer: Layer, strips: StagedMap, *, optimized: bool = True) -> None:
    """Make one complete GeoTIFF of the staged strips; for arguments see `write_geotiff`."""
    if layer.name == "map":
        strips.counts[:] = 0

    def cut_blocks() -> Iterator[tuple[int, int, np.ndarray]]:
        """Cut the strips again, into rows of blocks; every strip is read once per band."""
        for band, name in enumerate(layer.bands):
            first, rows = 0, None
            for strip in strips.load(name):
                if layer.name == "map" and name == CLASSES:
                    strips.counts += np.bincount(strip.ravel(), minlength=256)
                if strip.dtype == np.float32 and layer.dtype == "uint8":  # the confidence, which is kept as it is
                    strip = quantize(strip)
                rows = strip if rows is None else np.concatenate([rows, strip])
                while len(rows) >= BLOCK_SIZE:
                    yield band, first, rows[:BLOCK_SIZE]
                    first, rows = first + BLOCK_SIZE, rows[BLOCK_SIZE:]
            if rows is not None and len(rows):
                yield band, first, rows

    grid = strips.grid
    with explain_disk_full(path.parent, REMEDY):
        write_geotiff(path, layer, grid.size, cut_blocks(), grid.crs, grid.transform, optimized=optimized)
    if layer.bands == (VALUES,):
        found = measure_values(strips.load(VALUES))
        strips.report["values"] = {**cast(Quantity, strips.quantity)._asdict(), **found}
        strips.report["nodata_fraction"] = 1 - found["pixels"] / (grid.height * grid.width)
    elif layer.name == "map":
        strips.report["class_pixels"] = name_counts(strips.counts, strips.id2label)
        strips.report["nodata_fraction"] = float(strips.counts[NODATA_CLASS] / strips.counts.sum())


def publish(parts: Mapping[Path, Path]) -> None:
    """Give finished files their names, part to output, in order; the last one vouches for the others.

    An older file of the last name goes before any other is replaced: if this stops midway, no file has that name,
    rather than one beside others that do not belong to it. Part and output are on one file system.
    """
    for part in parts:
        sync_to_disk(part)
    last = list(parts.values())[-1]
    if len(parts) > 1 and last.exists():
        last.unlink()
        sync_to_disk(last.parent)
    for part, path in parts.items():
        os.replace(part, path)
        # Statistics that a viewer kept for the file of that name before are not true of this one.
        Path(f"{path}.aux.xml").unlink(missing_ok=True)
    for folder in {path.parent for path in parts.values()}:
        sync_to_disk(folder)


def check_space(strips: StagedMap, outputs: Mapping[str, tuple[Output, Path]]) -> None:
    """Refuse to begin what finds no room, on each of the file systems that get something.

    At its height a run needs room for the strips, the largest plain file beside them, and the finished files at half
    their size, which classes stay well below and probabilities come near to.
    """
    staging, pixels = strips.staging, strips.grid.height * strips.grid.width
    if staging.index > 0:  # the first process asks for all
        return
    needs = {need for output, _ in outputs.values() for need in output.needs}
    kept = len(strips.id2label) * (PROBABILITIES in needs) + (ENTROPY in needs)
    per_pixel = (
        (1 if strips.quantity is None else 4)
        + kept * np.dtype(strips.options.probabilities_dtype).itemsize
        + 4 * (CONFIDENCE in needs)
    )
    staged = pixels * per_pixel * (staging.count - staging.resumed) // staging.count

    places: dict[int, list[str]] = {file_system(staging.folder): ["map"]}
    for name, (_, path) in outputs.items():
        if name != "map":
            places.setdefault(file_system(path.parent), []).append(name)
    for names in places.values():
        sizes = []
        for name in names:
            layer = make_layer(outputs[name][0], strips) if outputs[name][0].raster else None
            sizes.append(0 if layer is None else pixels * len(layer.bands) * np.dtype(layer.dtype).itemsize)
        needed = max(sizes) + sum(sizes) // 2 + _SMALL_OUTPUT * sizes.count(0) + (staged if "map" in names else 0)
        folder = staging.folder if "map" in names else outputs[names[0]][1].parent
        usage = shutil.disk_usage(folder)
        if usage.total and usage.free < needed:  # some network file systems say 0 for everything
            files = ", ".join(f"the {name} {outputs[name][1]}" for name in names)
            raise OSError(
                f"Expected about {needed / 1e6:,.0f} MB free in {folder} for {files}"
                f"{' and unfinished parts' if 'map' in names else ''}, found {usage.free / 1e6:,.0f} MB: free some "
                "space, choose another folder, or ask for fewer outputs (probabilities as uint8 take a quarter)."
            )


def file_system(folder: Path) -> int:
    """Tell file systems apart: a number, the same for folders that share their free space."""
    return folder.stat().st_dev
