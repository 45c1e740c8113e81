# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The last pass of a map: staged strips become files, which then get their names together.

Nothing of this is kept between runs: a pass that was interrupted begins again from the strips.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prithvi_hf.disk import explain_disk_full
from prithvi_hf.outputs.cog import (
    BLOCK_SIZE,
    NODATA_CLASS,
    Layer,
    class_layer,
    fraction_layer,
    name_counts,
    sync_to_disk,
    write_geotiff,
)
from prithvi_hf.outputs.products import (
    CLASSES,
    CONFIDENCE,
    DETAILS,
    ENTROPY,
    PROBABILITIES,
    name_probability,
)
from prithvi_hf.outputs.registry import Output, OutputOptions
from prithvi_hf.outputs.staging import REMEDY, Staging
from prithvi_hf.rasters.warping import Grid


_SMALL_OUTPUT = 2**20  # bytes that are asked for where the size of an output cannot be known beforehand


@dataclass
class StagedMap:
    """A map in the making, which writing functions get: where its strips are, and what is known of it."""

    staging: Staging  # all strips are there when outputs are written
    starts: tuple[int, ...]  # first row of each strip, in order; a strip ends where the next one starts
    grid: Grid
    id2label: Mapping[int, str]
    class_colors: Sequence[str] | None = None  # `"#rrggbb"` per class, or None for default colours
    options: OutputOptions = field(default_factory=OutputOptions)
    parts: dict[str, Path] = field(default_factory=dict)  # by name, what is being made; the map is made first
    report: dict[str, Any] = field(default_factory=dict)  # for JSON; complete when the report is written
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
    if not output.needs:
        return class_layer(strips.id2label, strips.class_colors, strips.options.class_values)
    bands, descriptions, dtype = list(output.needs), list(output.needs), strips.options.probabilities_dtype
    if PROBABILITIES in output.needs:
        bands = [name_probability(index) for index in range(len(strips.id2label))]
        descriptions = [strips.id2label[index] for index in range(len(bands))]
    return fraction_layer(output.name, bands, descriptions, "float32" if CONFIDENCE in output.needs else dtype)


def write_layer(path: Path, layer: Layer, strips: StagedMap, *, optimized: bool = True) -> None:
    """Make one complete GeoTIFF of the staged strips; for arguments see `write_geotiff`.

    Raises:
        DamagedStripError: If a strip is missing or damaged.
        OSError: If the file could not be written completely.
    """
    if layer.name == "map":
        strips.counts[:] = 0

    def cut_blocks() -> Iterator[tuple[int, int, np.ndarray]]:
        """Cut the strips again, into rows of blocks; every strip is read once per band."""
        for band, name in enumerate(layer.bands):
            first, rows = 0, None
            for strip in strips.load(name):
                if layer.name == "map" and name == CLASSES:
                    strips.counts += np.bincount(strip.ravel(), minlength=256)
                rows = strip if rows is None else np.concatenate([rows, strip])
                while len(rows) >= BLOCK_SIZE:
                    yield band, first, rows[:BLOCK_SIZE]
                    first, rows = first + BLOCK_SIZE, rows[BLOCK_SIZE:]
            if rows is not None and len(rows):
                yield band, first, rows

    grid = strips.grid
    with explain_disk_full(path.parent, REMEDY):
        write_geotiff(path, layer, grid.size, cut_blocks(), grid.crs, grid.transform, optimized=optimized)
    if layer.name == "map":
        strips.report["class_pixels"] = name_counts(strips.counts, strips.id2label)
        strips.report["nodata_fraction"] = float(strips.counts[NODATA_CLASS] / strips.counts.sum())


def publish(parts: Mapping[Path, Path]) -> None:
    """Give finished files their names, in the order in which they are given; the last one vouches for the others.

    An older file of the last name goes before any other is replaced: if this stops midway, no file has that name,
    rather than one beside others that do not belong to it.

    Args:
        parts: Finished file to output, both on one file system.
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

    Raises:
        OSError: If there is too little.
    """
    staging, pixels = strips.staging, strips.grid.height * strips.grid.width
    if staging.index > 0:  # the first process asks for all
        return
    needs = {need for output, _ in outputs.values() for need in output.needs}
    kept = len(strips.id2label) * (PROBABILITIES in needs) + (ENTROPY in needs)
    per_pixel = 1 + kept * np.dtype(strips.options.probabilities_dtype).itemsize + 4 * (CONFIDENCE in needs)
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
