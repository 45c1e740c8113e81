# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The last pass of a map: staged strips become files, which then get their names together.

Nothing of this is kept between runs: a pass that was interrupted begins again from the strips.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prithvi_hf.disk import explain_disk_full
from prithvi_hf.outputs.cog import BLOCK_SIZE, Layer, sync_to_disk, write_geotiff
from prithvi_hf.outputs.products import CLASSES, DETAILS, count_bytes_per_pixel
from prithvi_hf.outputs.registry import Output, OutputOptions
from prithvi_hf.outputs.staging import REMEDY, Staging
from prithvi_hf.rasters.warping import Grid


_SMALL_OUTPUT = 2**20  # bytes that are asked for where the size of an output cannot be known beforehand


@dataclass
class StagedMap:
    """A map in the making, which writing functions get: where its strips are, and what is known of it.

    Attributes:
        staging: Where the strips are; all are there when outputs are written.
        starts: First row of each strip, in order; a strip ends where the next one starts.
        grid: Size, CRS and transform.
        id2label: Class index to name.
        class_colors: `"#rrggbb"` per class, or None for default colours.
        options: Options of the outputs.
        parts: Outputs that are being made, by name, under names that are not theirs yet; the map is made first.
        report: What happened, for JSON; complete, but for the size of the report, when the report is written.
        counts: (256,) pixels of each class index, 255 is nodata; known once the map is made.
    """

    staging: Staging
    starts: tuple[int, ...]
    grid: Grid
    id2label: Mapping[int, str]
    class_colors: Sequence[str] | None = None
    options: OutputOptions = field(default_factory=OutputOptions)
    parts: dict[str, Path] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    counts: np.ndarray = field(default_factory=lambda: np.zeros(256, dtype=np.int64))

    def load(self, name: str) -> Iterator[np.ndarray]:
        """Read one array of each strip, (h, W), from the first strip to the last."""
        for index in range(len(self.starts)):
            yield self.staging.load(index, [name])[name]

    def load_details(self) -> list[dict[str, Any]]:
        """Read what each strip says of itself besides pixels."""
        return [json.loads(text.tobytes()) for text in self.load(DETAILS)]


def write_layer(path: Path, layer: Layer, strips: StagedMap, *, optimized: bool = True) -> None:
    """Make one complete GeoTIFF of the staged strips.

    Args:
        path: The file to make, in a folder of its own for the side files.
        layer: What it holds.
        strips: The map; all strips must be done.
        optimized: False for a file without compression and overviews, for use within the run.

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


def publish(parts: Mapping[Path, Path]) -> None:
    """Give finished files their names, in the order in which they are given; the last one vouches for the others.

    An older file of the last name goes before any other is replaced: if this stops midway, no file has that name,
    rather than one beside others that do not belong to it.

    Args:
        parts: Finished file to output, both on one file system.

    Raises:
        OSError: If a file cannot be brought to the disk or renamed.
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

    Args:
        strips: The map in the making.
        outputs: What is asked for, by name.

    Raises:
        OSError: If there is too little.
    """
    staging, pixels = strips.staging, strips.grid.height * strips.grid.width
    needs = {need for output, _ in outputs.values() for need in output.needs}
    per_pixel = count_bytes_per_pixel(needs, strips.options.probabilities_dtype, len(strips.id2label))
    staged = pixels * per_pixel * (staging.count - staging.resumed) // staging.count

    places: dict[int, list[str]] = {file_system(staging.folder): ["map"]}
    for name, (_, path) in outputs.items():
        if name != "map":
            places.setdefault(file_system(path.parent), []).append(name)
    for names in places.values():
        sizes = []
        for name in names:
            layer = outputs[name][0].layer
            made = None if layer is None else layer(strips)
            sizes.append(0 if made is None else pixels * len(made.bands) * np.dtype(made.dtype).itemsize)
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
