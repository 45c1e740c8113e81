# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The change between two maps of classes: which class became which, on how much ground, as figures, map and picture.

Both maps are read strip by strip, twice where a map of the change is written: its values depend on the changes that
there are.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm

from prithvi_hf.outputs.cog import (
    BLOCK_SIZE,
    NODATA_CLASS,
    check_output_path,
    class_layer,
    complete_or_absent,
    write_geotiff,
)
from prithvi_hf.outputs.palette import Rgb, class_palette, format_color
from prithvi_hf.outputs.polygons import measure_pixels, read_class_names
from prithvi_hf.outputs.quicklook import PictureRow, draw_pictures, measure_width, paint_classes, thumbnail_step
from prithvi_hf.rasters import TIFF_SUFFIXES
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.raster import Raster, Window, name_crs_pair
from prithvi_hf.rasters.warping import Grid, warp_to


_COLUMNS = 2048  # of a part of the maps that is in memory
_PALE = 0.7  # how far the colours of classes that stay are brought to white
_KM2 = 1e6
_SMALL_KM2 = 10.0  # less than this is told in hectares


@dataclass(frozen=True)
class MapChange:
    """The change from one map to another.

    Attributes:
        names: the classes of both maps, those of the first one first.
        pixels: (n, n) int64, pixels on the grid of the first map by their class there (row) and in the second
            (column).
        areas: (n, n) float64, the same in square kilometres on the WGS 84 ellipsoid; None for maps without a CRS.
        only_first: pixels that have a class in the first map alone.
        only_second: pixels that have a class in the second map alone.
        neither: pixels that have none.
        values: value of each pair (from, to) in the map of the change.
    """

    names: tuple[str, ...]
    pixels: np.ndarray
    areas: np.ndarray | None
    only_first: int
    only_second: int
    neither: int
    values: Mapping[tuple[int, int], int]

    @property
    def agreement(self) -> float:
        """Fraction of the pixels with a class in both maps whose class is the same; NaN without any."""
        total = self.pixels.sum()
        return float(np.trace(self.pixels) / total) if total else float("nan")

    def name_value(self, pair: tuple[int, int]) -> str:
        """Name a change `land -> water`, or what stays `water`."""
        first, second = pair
        return self.names[first] if first == second else f"{self.names[first]} -> {self.names[second]}"

    def to_dict(self) -> dict[str, Any]:
        """Give all figures as JSON holds them: areas in square kilometres (1 km2 is 100 ha)."""
        total = int(self.pixels.sum())
        changes = [
            {"from": self.names[first], "to": self.names[second], "pixels": int(self.pixels[first, second])}
            | ({} if self.areas is None else {"area_km2": float(self.areas[first, second])})
            | {"value": self.values[first, second]}
            for first, second in self.values
            if self.pixels[first, second]
        ]
        classes = []
        for index, name in enumerate(self.names):
            figures: dict[str, Any] = {"name": name}
            for unit, matrix in (("pixels", self.pixels), ("area_km2", self.areas)):
                if matrix is not None:
                    before, after, same = matrix[index].sum(), matrix[:, index].sum(), matrix[index, index]
                    found = {"before": before, "after": after, "gain": after - same, "loss": before - same}
                    number = int if unit == "pixels" else float
                    figures |= {f"{key}_{unit}": number(value) for key, value in found.items()}
            classes.append(figures)
        return {
            "classes": classes,
            "changes": changes,
            "matrix_pixels": self.pixels.tolist(),
            "matrix_area_km2": None if self.areas is None else self.areas.tolist(),
            "compared_pixels": total,
            "agreement": self.agreement if total else None,
            "only_in_first_pixels": self.only_first,
            "only_in_second_pixels": self.only_second,
            "in_neither_pixels": self.neither,
        }

    def table(self) -> str:
        """Write the transition matrix, and the gain and loss of each class, in km2, hectares or pixels."""
        matrix, unit, form = self.pixels.astype(float), "pixels", "{:,.0f}"
        if self.areas is not None:
            matrix, unit, form = self.areas, "km2", "{:,.3f}"
            if matrix.sum() < _SMALL_KM2:
                matrix, unit = matrix * 100, "ha"
        shown = [index for index in range(len(self.names)) if self.pixels[index].any() or self.pixels[:, index].any()]
        rows = [[f"from \\ to ({unit})", *(self.names[index] for index in shown), "before", "loss"]]
        for index in shown:
            before = matrix[index].sum()
            cells = [*matrix[index, shown], before, before - matrix[index, index]]
            rows.append([self.names[index], *map(form.format, cells)])
        for title, cells in (
            ("after", matrix[:, shown].sum(axis=0)),
            ("gain", matrix[:, shown].sum(axis=0) - np.diag(matrix)[shown]),
            ("net", matrix[:, shown].sum(axis=0) - matrix[shown].sum(axis=1)),
        ):
            rows.append([title, *map(form.format, cells), "", ""])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = []
        for row in rows:
            numbers = [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  ".join([row[0].ljust(widths[0]), *numbers]))
        return "\n".join(line.rstrip() for line in lines)


def compare_maps(
    first: str | os.PathLike,
    second: str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    report: str | os.PathLike | None = None,
    picture: str | os.PathLike | None = None,
    grid_mismatch: Literal["warp", "refuse"] = "warp",
    class_names: Sequence[str] | None = None,
    overwrite: bool = True,
    show_progress: bool = False,
) -> MapChange:
    """Compare two maps of classes, in memory that grows with their width only.

    Classes are matched by the names that maps of this package have in them, whatever their numbers are. Pixels count
    where both maps have a class. Areas are those of the ground, on the WGS 84 ellipsoid, in any CRS.

    Args:
        first: the earlier map, a GeoTIFF of one uint8 band, on whose grid everything is told.
        second: the later one.
        output: Cloud-Optimized GeoTIFF of the change to write: a class that stays has its number, and each change a
            number above those, with names and colours in the file; 255, its nodata tag, where a map has no class.
            The numbers of changes depend on the classes alone, of at most 15 classes; of more, on those that occur.
        report: JSON to write, of the figures of `MapChange.to_dict`.
        picture: PNG to write: both maps and their change.
        grid_mismatch: "warp" brings a second map on another grid to that of the first, by the nearest pixel; "refuse"
            makes it an error.
        class_names: names of the classes 0, 1, ... of maps that carry none.
        overwrite: whether outputs may be replaced.
        show_progress: whether to show a progress bar.

    Returns:
        The figures.

    Raises:
        ValueError: the maps have no class in common, are elsewhere, or hold values without a name. Nothing is written
            then.
        ImportError: the extra `vector`, which areas need, is not installed.
        OSError: reading or writing fails.
    """
    if grid_mismatch not in ("warp", "refuse"):
        raise ValueError(f"grid_mismatch: expected warp or refuse, found {grid_mismatch!r}.")
    kinds = {"map of the change": TIFF_SUFFIXES, "report": (".json",), "picture": (".png",)}
    for path, (purpose, suffixes) in zip((output, report, picture), kinds.items(), strict=True):
        if path is not None:
            check_output_path(path, (first, second), overwrite, purpose, suffixes)
    maps = _ClassMaps(first, second, grid_mismatch, class_names)
    change, thumbnails = _measure(maps, show_progress)
    if output is not None:
        _write_change(output, maps, change, show_progress)
    if picture is not None:
        _draw_change(picture, maps, change, thumbnails)
    if report is not None:
        paths = {"first": os.path.abspath(first), "second": os.path.abspath(second)}
        with complete_or_absent(report) as part:
            text = json.dumps({**paths, **change.to_dict()}, indent=2, ensure_ascii=False, allow_nan=False)
            part.write_text(f"{text}\n", encoding="utf-8")
    return change


class _ClassMaps:
    """Two maps on the grid of the first, read as numbers of their common list of classes, 255 where there is none."""

    def __init__(
        self,
        first: str | os.PathLike,
        second: str | os.PathLike,
        grid_mismatch: str,
        class_names: Sequence[str] | None,
    ) -> None:
        rasters = [GeoTiffRaster(first), GeoTiffRaster(second)]
        for raster in rasters:
            if raster.dtype != "uint8" or raster.count != 1:
                raise ValueError(
                    f"{raster.name}: expected a map of one uint8 band, found {raster.count} of {raster.dtype}. Give a "
                    "map of classes."
                )
            if raster.irregular:
                raise ValueError(f"Expected {raster.name} to be on a regular grid, found {raster.irregular}")
        named = [read_class_names(path) or dict(enumerate(class_names or ())) for path in (first, second)]
        if bool(named[0]) != bool(named[1]):
            without = rasters[1 if named[0] else 0].name
            raise ValueError(
                f"{without}: expected the names of its classes in the file, as in the other map, found none. Give "
                "them in the order of the values 0, 1, ...: the option class_names."
            )
        self.is_named = bool(named[0])
        if not self.is_named:  # a value is a class
            named = [{value: str(value) for value in range(NODATA_CLASS)} for _ in named]
        self.names = list(dict.fromkeys([*named[0].values(), *named[1].values()]))
        if len(self.names) > NODATA_CLASS:
            raise ValueError(
                f"{rasters[1].name}: expected at most 255 classes in both maps together, found {len(self.names)}."
            )
        if not set(named[0].values()) & set(named[1].values()):
            shown = [", ".join(list(names.values())[:8]) for names in named]
            raise ValueError(
                f"{rasters[1].name}: expected a class that is in both maps, found {shown[1]} beside {shown[0]} of "
                f"{rasters[0].name}. Give maps of one task, or write the same names into both."
            )
        self.grid, self.paths = Grid.of(rasters[0]), [os.fspath(first), os.fspath(second)]
        self._rasters: list[Raster] = [rasters[0], self._bring(rasters[1], rasters[0].name, grid_mismatch)]
        self._tables = []
        for raster, names in zip(rasters, named, strict=True):
            table = np.full(256, -1, dtype=np.int16)  # a value without a name
            table[list(names)] = [self.names.index(name) for name in names.values()]
            if raster.nodata is not None and raster.nodata in range(256):
                table[int(raster.nodata)] = NODATA_CLASS
            elif 255 not in names:
                table[255] = NODATA_CLASS
            self._tables.append(table)

    def _bring(self, raster: GeoTiffRaster, first: str, grid_mismatch: str) -> Raster:
        """Bring the second map to the grid of the first."""
        if self.grid.is_same_as(raster):
            return raster
        own, other = name_crs_pair(self.grid.crs, raster.crs)
        if grid_mismatch == "refuse":
            raise ValueError(
                f"{raster.name}: expected the grid of {first} ({self.grid.height} x {self.grid.width} pixels, {own}), "
                f"found another ({raster.height} x {raster.width} pixels, {other}). grid_mismatch 'warp' brings it "
                "there."
            )
        return warp_to(raster, self.grid, "nearest")

    def keep(self, classes: Sequence[int]) -> np.ndarray:
        """Number some classes again from 0, as the others do not occur, and give the new number of each, (256,)."""
        numbers = np.full(NODATA_CLASS + 1, NODATA_CLASS, dtype=np.int16)
        numbers[list(classes)] = range(len(classes))
        self.names = [self.names[index] for index in classes]
        self._tables = [np.where(table < 0, table, numbers[table]) for table in self._tables]
        return numbers

    def read(self, position: int, window: Window) -> np.ndarray:
        """Read the class numbers of the first map (0) or the second (1), (height, width) uint8, 255 for none."""
        raster, table = self._rasters[position], self._tables[position]
        values = raster.read(window=window)[0]
        classes, nodata = table[values], raster.read_nodata_mask(window)
        if nodata is not None:
            classes[nodata] = NODATA_CLASS
        if (unknown := classes < 0).any():
            found = ", ".join(map(str, np.unique(values[unknown]).tolist()[:8]))
            raise ValueError(
                f"{raster.name}: expected values that the names in the file explain, found {found} too. Correct the "
                "names or the values, or declare them nodata."
            )
        return classes.astype(np.uint8)

    def read_pairs(self, window: Window) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read the classes of both maps, and where both have one."""
        before, after = self.read(0, window), self.read(1, window)
        return before, after, (before != NODATA_CLASS) & (after != NODATA_CLASS)


def _measure(maps: _ClassMaps, show_progress: bool) -> tuple[MapChange, list[np.ndarray]]:
    """Count pixels and add up areas by their classes in both maps; also thin both maps to what a picture shows."""
    grid, count = maps.grid, len(maps.names)
    pixels = np.zeros(count * count, dtype=np.int64)
    areas = None if grid.crs is None else np.zeros(count * count)
    only_first = only_second = neither = 0
    step = thumbnail_step(*grid.size)
    thin = np.full((2, *(-(-side // step) for side in grid.size)), NODATA_CLASS, dtype=np.uint8)
    starts = [(row, left) for row in range(0, grid.height, BLOCK_SIZE) for left in range(0, grid.width, _COLUMNS)]
    for row, left in tqdm(starts, desc="maps", unit="part", disable=not show_progress):
        window = (row, left, min(BLOCK_SIZE, grid.height - row), min(_COLUMNS, grid.width - left))
        before, after, both = maps.read_pairs(window)
        for shown, classes in zip(thin, (before, after), strict=True):
            small = classes[-row % step :: step, -left % step :: step]
            top, start = -(-row // step), -(-left // step)
            shown[top : top + small.shape[0], start : start + small.shape[1]] = small
        codes = before[both].astype(np.intp) * count + after[both]
        pixels += np.bincount(codes, minlength=count * count)
        if areas is not None:
            ground = measure_pixels(grid.crs, grid.transform, window, name=maps.paths[0])
            areas += np.bincount(codes, ground[both], count * count) / _KM2
        has_before, has_after = before != NODATA_CLASS, after != NODATA_CLASS
        only_first += int((has_before & ~has_after).sum())
        only_second += int((has_after & ~has_before).sum())
        neither += int((~has_before & ~has_after).sum())
    matrix = pixels.reshape(count, count)
    if not matrix.any():
        raise ValueError(
            f"{maps.paths[1]}: expected pixels that have a class in both maps, found none: {only_first:,} have one in "
            f"the first map alone, {only_second:,} in the second. Give maps of one place."
        )
    used = [index for index in range(count) if matrix[index].any() or matrix[:, index].any()]
    if maps.is_named:
        used = list(range(count))
    numbers = maps.keep(used)
    if areas is not None:
        areas = areas.reshape(count, count)[np.ix_(used, used)]
    matrix, count = matrix[np.ix_(used, used)], len(used)
    # Numbers of changes are the same for every two maps of these classes, as long as a byte can hold them all.
    is_small = count * count <= NODATA_CLASS
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j and (is_small or matrix[i, j])]
    values = {(i, i): i for i in range(count)} | {pair: count + number for number, pair in enumerate(pairs)}
    change = MapChange(tuple(maps.names), matrix, areas, only_first, only_second, neither, values)
    return change, [numbers[shown].astype(np.uint8) for shown in thin]


def _color_changes(change: MapChange) -> tuple[list[Rgb], list[Rgb]]:
    """Choose the colours of the classes, and of the values of the map of the change: pale ones for what stays."""
    palette = class_palette(len(change.names), None, change.names)
    pale: list[Rgb] = [
        (round(red + _PALE * (255 - red)), round(green + _PALE * (255 - green)), round(blue + _PALE * (255 - blue)))
        for red, green, blue in palette
    ]
    vivid = class_palette(1 + len(change.values) - len(palette))[1:]  # the first of the default colours is neutral
    return palette, [*pale, *vivid]


def _make_code_table(change: MapChange) -> np.ndarray:
    """Tabulate the value of the map of the change, (256, 256) uint8, by the class before and after, 255 for none."""
    table = np.full((256, 256), NODATA_CLASS, dtype=np.uint8)
    for pair, value in change.values.items():
        table[pair] = value
    return table


def _write_change(path: str | os.PathLike, maps: _ClassMaps, change: MapChange, show_progress: bool) -> None:
    """Write the map of the change."""
    if len(change.values) > NODATA_CLASS:
        raise ValueError(
            f"{maps.paths[1]}: expected at most {NODATA_CLASS - len(change.names)} different changes of "
            f"{len(change.names)} classes, found {len(change.values) - len(change.names)}: a map of one byte cannot "
            "number them. Leave the map of the change out, or join classes of both maps first."
        )
    names = {value: change.name_value(pair) for pair, value in change.values.items()}
    colors = [format_color(color) for color in _color_changes(change)[1]]
    layer = class_layer(dict(sorted(names.items())), colors)
    table, grid = _make_code_table(change), maps.grid

    def read_rows() -> Iterator[tuple[int, int, np.ndarray]]:
        for row in tqdm(range(0, grid.height, BLOCK_SIZE), desc="change", unit="strip", disable=not show_progress):
            codes = np.empty((min(BLOCK_SIZE, grid.height - row), grid.width), dtype=np.uint8)
            for left in range(0, grid.width, _COLUMNS):
                part = slice(left, min(left + _COLUMNS, grid.width))
                before, after, _ = maps.read_pairs((row, left, len(codes), part.stop - left))
                codes[:, part] = table[before, after]
            yield 0, row, codes

    with complete_or_absent(path) as part:
        write_geotiff(part, layer, grid.size, read_rows(), grid.crs, grid.transform)


def _draw_change(
    path: str | os.PathLike, maps: _ClassMaps, change: MapChange, thumbnails: Sequence[np.ndarray]
) -> None:
    """Draw both maps and their change, in which classes that stay are pale."""
    grid = maps.grid
    palette, colors = _color_changes(change)
    classes = len(change.names)
    panels = [paint_classes(one, palette) for one in thumbnails]
    panels.append(paint_classes(_make_code_table(change)[thumbnails[0], thumbnails[1]], colors))
    titles = [Path(name).stem for name in maps.paths]
    if titles[0] == titles[1]:
        titles = ["first map", "second map"]
    occurring = {value: change.name_value(pair) for pair, value in change.values.items() if change.pixels[pair]}
    legend = dict(enumerate(change.names)) | occurring
    pictures = dict(zip([*titles, "change"], panels, strict=True))
    draw_pictures(
        path,
        [PictureRow(pictures, measure_width(grid.crs, grid.transform, *grid.size))],
        id2label=legend,
        palette=[*palette, *colors[classes:]],
        present={*occurring, *np.unique(thumbnails).tolist()},
    )
