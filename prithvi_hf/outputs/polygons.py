# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Polygons of a finished map: each connected region of a class, with its area on the ground and mean probability.

The map is read strip by strip. A region that goes on below a strip waits in pieces and is put together when it ends,
so memory grows with the width of the map and with the outlines that are open, not with the map.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import shapes
from rasterio.io import DatasetReader
from rasterio.session import DummySession
from transformers.utils import logging

from prithvi_hf.models.prithvi.pixel_values_prithvi import GRID_TOLERANCE
from prithvi_hf.outputs.cog import complete_or_absent
from prithvi_hf.outputs.vector_files import check_vector_path, import_vector_package, open_vector_file
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.raster import (
    GDAL_ERRORS,
    GeoTiffError,
    find_degrees,
    measure_shift,
    name_crs_pair,
    shift_transform,
)
from prithvi_hf.rasters.warping import Grid


if TYPE_CHECKING:
    from shapely import Polygon

_LATTICE_METRES = 20_000.0  # the area of a pixel bends by less than 1e-5 of itself between points this far apart
_LARGEST_STEP = 64  # pixels
_STRIP_PIXELS = 2**22
_STRIP_ROWS = (64, 512)
_READ_COLUMNS = 512  # probabilities are read in pieces of this width: all classes of a strip could be too much
_BATCH = 20_000  # polygons
_MESH = 64  # points along each side that are checked before any work
_TAG = "class_"


def write_polygons(
    path: str | os.PathLike,
    class_map: str | os.PathLike,
    *,
    probabilities: str | os.PathLike | None = None,
    class_names: Mapping[int, str] | None = None,
    classes: Sequence[int | str] | None = None,
    min_area: float = 0.0,
    show_progress: bool = False,
) -> int:
    """Write the regions of a class map, a GeoTIFF of uint8, as polygons, and give their number.

    Pixels that share an edge and a class make one region; pixels without data make none. Outlines follow the pixels,
    in the CRS of the map; in degrees, those beyond 180 are given as -180 to 180, and one that crosses 180 goes on.
    Columns: `class_value` (the value in the map), `class_name`, `area_m2` (on the WGS 84 ellipsoid, holes left out)
    and, where probabilities are given, `mean_probability` (that of the polygon's class, over its pixels).

    Args:
        path: GeoPackage (.gpkg), GeoParquet (.parquet) or GeoJSON (.geojson: in degrees of WGS 84, cut at 180),
            replaced only by a complete one.
        class_map: The map.
        probabilities: GeoTIFF on the same grid with one band per class, described by its name or in the order of
            `class_names`; or with one band, the probability of the class in the map. None for none.
        class_names: File value to class name. None reads it from the tags that `predict_scene` leaves in the map.
        classes: Names or file values of the classes to write; None for all.
        min_area: Square metres on the ground; smaller regions are left out.
        show_progress: Whether to show a progress bar over the rows.
    """
    check_vector_path(path)
    raster = GeoTiffRaster(class_map)
    names = read_class_names(class_map) if class_names is None else dict(class_names)
    chosen = check_polygon_options(Grid.of(raster), names, classes, min_area, name=raster.name)
    if raster.dtype != "uint8" or raster.count != 1:
        raise ValueError(f"{raster.name}: expected a map of one uint8 band, found {raster.count} of {raster.dtype}.")
    wanted = np.full(256, chosen is None)
    wanted[chosen or []] = True
    if raster.nodata is not None and raster.nodata in range(256):
        wanted[int(raster.nodata)] = False
    reader = None if probabilities is None else GeoTiffRaster(probabilities)
    bands = np.zeros(256, dtype=np.intp) if reader is None else _find_bands(reader, raster, names)
    regions = find_regions(_read_strips(raster, wanted, reader, bands, show_progress), min_area)
    with complete_or_absent(path) as part, open_vector_file(part, raster.crs) as file:
        while True:
            batch = list(islice(regions, _BATCH))
            if batch or not file.count:  # an empty batch too, so that a map without any gives a file with its columns
                sums = np.array([region.sums for region in batch]).reshape(-1, 3)
                columns = {
                    "class_value": np.array([region.value for region in batch], dtype=np.int32),
                    "class_name": np.array([names.get(one.value, str(one.value)) for one in batch], dtype=object),
                    "area_m2": sums[:, 0],
                }
                if reader is not None:
                    means = np.full(len(sums), np.nan)
                    np.divide(sums[:, 1], sums[:, 2], out=means, where=sums[:, 2] > 0)
                    columns["mean_probability"] = means
                file.write(_make_outlines(batch, raster.transform, raster.crs), columns)
            if len(batch) < _BATCH:
                return file.count


def check_polygon_options(
    grid: Grid,
    class_names: Mapping[int, str],
    classes: Sequence[int | str] | None = None,
    min_area: float = 0.0,
    *,
    name: str = "The scene",
) -> list[int] | None:
    """Refuse polygons that a map cannot have, or give the file values of the classes, None for all."""
    if grid.crs is None:
        raise ValueError(
            f"{name}: expected a CRS, as polygons have an area on the ground, found none. Add it to the scene, "
            "for example `gdal_edit.py -a_srs EPSG:32633 FILE`, or do without polygons."
        )
    # The CRS and a mesh of the pixels; others outside its domain are found as they are measured.
    down, right = (max(1, side // _MESH) for side in grid.size)
    mesh = shift_transform(grid.transform, 0, 0, (down, right))
    measure_pixels(grid.crs, mesh, (0, 0, grid.height // down, grid.width // right), name=name)
    if not (min_area >= 0 and np.isfinite(min_area)):
        raise ValueError(f"min_area is an area in square metres, at least 0, found {min_area}.")
    if classes is None:
        return None
    names = set(class_names.values())  # several classes may have one of them
    by_text = {str(value): [value] for value in class_names} | {
        text: [value for value, name in class_names.items() if name == text] for text in names
    }
    unknown = [choice for choice in classes if str(choice) not in by_text]
    if unknown or not len(classes):
        known = ", ".join(f"{value} ({text})" for value, text in class_names.items())
        raise ValueError(f"Expected classes of the map for the polygons, {known}; found {unknown or 'none'}.")
    return [value for choice in classes for value in by_text[str(choice)]]


def read_class_names(path: str | os.PathLike) -> dict[int, str]:
    """Read what the values of a map that `predict_scene` wrote mean; empty where the file names none."""
    with rasterio.Env(session=DummySession()):
        try:
            with DatasetReader(os.fspath(path), driver="GTiff") as dataset:
                tags = dataset.tags(1)
        except GDAL_ERRORS as error:
            raise GeoTiffError(f"{path}: expected a map, found a file that cannot be opened ({error}).") from error
    named = {key.removeprefix(_TAG): name for key, name in tags.items() if key.startswith(_TAG)}
    return {int(value): named[value] for value in sorted(filter(str.isdecimal, named), key=int)}


@dataclass
class MapRows:
    """Some rows of the map, from `row` on; arrays are (h, W)."""

    row: int
    values: np.ndarray  # uint8 file values
    valid: np.ndarray  # bool, whether the pixel belongs to a class that is asked for
    areas: np.ndarray  # square metres
    probabilities: np.ndarray | None  # of the pixel's own class, NaN where unknown; None where there are none


@dataclass
class Region:
    """A region or, until it is merged with its neighbours above and below, a part of one."""

    value: int  # of the class in the file
    sums: np.ndarray  # square metres, sum of probabilities, pixels with a probability
    pieces: list["Polygon"] = field(default_factory=list)  # in pixel coordinates
    merged_into: "Region | None" = None  # the region that this one turned out to be a part of

    def root(self) -> "Region":
        """Give the region that this one is a part of, or itself."""
        region = self
        while region.merged_into is not None:
            region = region.merged_into
        return region


def find_regions(strips: Iterable[MapRows], min_area: float = 0.0) -> Iterator[Region]:
    """Find the regions of a map, given from top to bottom, in the order in which they end; small ones are left out."""
    polygon = import_vector_package("shapely").Polygon
    open_above: dict[int, Region] = {}  # regions that reach the last row above, by label
    last_labels = last_values = np.empty(0)
    for strip in strips:
        labels, count = label_regions(strip.values, strip.valid)

        # Of each region of the strip: square metres, sum of probabilities, and pixels that have one.
        flat, sums = labels.ravel(), np.zeros((count + 1, 3))
        sums[:, 0] = np.bincount(flat, strip.areas.ravel(), count + 1)
        if strip.probabilities is not None:
            known = np.isfinite(strip.probabilities).ravel()
            sums[:, 1] = np.bincount(flat[known], strip.probabilities.ravel()[known], count + 1)
            sums[:, 2] = np.bincount(flat[known], minlength=count + 1)
        values = np.zeros(count + 1, dtype=np.uint8)
        values[labels] = strip.values

        # Regions at the upper or lower edge may go on; the others are complete, and traced only if they are wanted.
        on_edge = [label for label in np.unique(labels[[0, -1]]).tolist() if label]
        open_regions = {label: Region(int(values[label]), sums[label]) for label in on_edge}
        wanted = sums[:, 0] >= min_area
        wanted[on_edge] = True
        mask, place = wanted[labels] & (labels > 0), Affine.translation(0, strip.row)
        for geometry, traced in shapes(labels, mask=mask, connectivity=4, transform=place):
            label, (outline, *holes) = int(traced), geometry["coordinates"]
            piece = polygon(outline, holes)
            if label in open_regions:
                open_regions[label].pieces.append(piece)
            else:
                yield Region(int(values[label]), sums[label], [piece])

        # Regions of one value that share an edge across the two strips are one.
        if open_above:
            touch = (last_labels > 0) & (labels[0] > 0) & (last_values == strip.values[0])
            for upper, lower in np.unique(np.stack([last_labels[touch], labels[0][touch]]), axis=1).T.tolist():
                region, other = open_above[upper].root(), open_regions[lower].root()
                if region is not other:
                    region.sums = region.sums + other.sums
                    region.pieces += other.pieces
                    other.merged_into, other.pieces = region, []

        going_on = {label: open_regions[label] for label in np.unique(labels[-1]).tolist() if label}
        yield from _end_regions([*open_above.values(), *open_regions.values()], going_on.values(), min_area)
        open_above, last_labels, last_values = going_on, labels[-1], strip.values[-1]
    yield from _end_regions(open_above.values(), (), min_area)


def _end_regions(regions: Iterable[Region], going_on: Iterable[Region], min_area: float) -> Iterator[Region]:
    """Give the regions, once each, that do not go on below and are large enough."""
    keys = {id(region.root()) for region in going_on}
    for region in {id(region.root()): region.root() for region in regions}.values():
        if id(region) not in keys and region.sums[0] >= min_area:
            yield region


def label_regions(values: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the regions of equal value whose pixels share an edge.

    Rows are cut into runs of one value, runs that touch in neighbouring rows are edges of a graph, and its components
    are the regions: the work is that of whole arrays, however many regions there are. Pixels that are not `valid`
    belong to no region. Returns (H, W) int32 with 1 to n in order of the first pixel and 0 for no region, and n.
    """
    keys = np.where(valid, values, -1).astype(np.int16)
    begins = np.ones(keys.shape, dtype=bool)
    np.not_equal(keys[:, 1:], keys[:, :-1], out=begins[:, 1:])
    runs = np.cumsum(begins, dtype=np.int32).reshape(keys.shape) - 1
    # Of the columns in which two runs touch, the first is one in which either begins.
    touch = (keys[1:] == keys[:-1]) & (begins[1:] | begins[:-1]) & valid[1:]
    first, second = runs[:-1][touch], runs[1:][touch]

    # The root of a run is the first run that it is connected with.
    roots = np.arange(int(runs[-1, -1]) + 1, dtype=np.int32)
    while True:
        low, high = np.minimum(roots[first], roots[second]), np.maximum(roots[first], roots[second])
        unequal = low != high
        if not unequal.any():
            break
        first, second = first[unequal], second[unequal]
        np.minimum.at(roots, high[unequal], low[unequal])
        while not np.array_equal(above := roots[roots], roots):
            roots = above

    is_root = (roots == np.arange(len(roots))) & valid[begins]
    numbers = np.cumsum(is_root, dtype=np.int32)
    of_run = np.where(valid[begins], numbers[roots], 0)
    return of_run[runs].astype(np.int32), int(numbers[-1])


def measure_pixels(
    crs: CRS, transform: Affine, window: tuple[int, int, int, int], *, name: str = "The map"
) -> np.ndarray:
    """Measure the pixels of a window on the WGS 84 ellipsoid, (height, width) float64 in square metres.

    The area is that of the ground, not of the map projection: what the middles of a pixel's edges span on the
    ellipsoid, at points up to 20 km apart and linear in between. A CRS without a place on Earth is refused.
    """
    geod = import_vector_package("pyproj").Geod(ellps="WGS84")

    def to_degrees(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        x = transform.a * columns + transform.b * rows + transform.c
        y = transform.d * columns + transform.e * rows + transform.f
        degrees = find_degrees(crs, x, y, name)
        if not np.isfinite(degrees).all():
            raise ValueError(
                f"{name}: expected every pixel to be on Earth, found some outside the domain of {crs}. Polygons have "
                "areas on the ground: write them without those pixels, or from a map in another CRS."
            )
        return degrees.reshape(2, *x.shape)

    def measure(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Measure the pixels around all pairs of these places: across times down times the sine between them."""
        row, column = np.meshgrid(rows, columns, indexing="ij")
        centre = to_degrees(row, column)
        sides = [(0, 0.5), (0, -0.5), (0.5, 0), (-0.5, 0)]
        angles, _, metres = zip(
            *(geod.inv(*centre, *to_degrees(row + down, column + across)) for down, across in sides), strict=True
        )
        turn = np.sin(np.deg2rad(angles[0] - angles[2]))
        return (metres[0] + metres[1]) * (metres[2] + metres[3]) * np.abs(turn)

    row, column, height, width = window
    middle = measure(np.array([row + height / 2]), np.array([column + width / 2]))[0, 0]
    step = int(np.clip(_LATTICE_METRES / max(np.sqrt(middle), 1e-3), 1, _LARGEST_STEP))
    # Centres of pixels about `step` apart, those of both ends among them, and the weights between them.
    places, weights = [], []
    for start, length in ((row, height), (column, width)):
        points = start + 0.5 + np.linspace(0, length - 1, max(2, -(-length // step) + 1))
        away = (start + 0.5 + np.arange(length) - points[0]) / max(points[1] - points[0], 1e-9)
        places.append(points)
        weights.append(np.clip(1 - np.abs(away[:, None] - np.arange(len(points))), 0, None))
    return weights[0] @ measure(*places) @ weights[1].T


def _read_strips(
    raster: GeoTiffRaster, wanted: np.ndarray, probabilities: GeoTiffRaster | None, bands: np.ndarray, show: bool
) -> Iterator[MapRows]:
    """Read the map strip by strip; for each file value, `wanted` says if it makes polygons, `bands` gives its band."""
    rows = int(np.clip(_STRIP_PIXELS // raster.width, *_STRIP_ROWS))
    starts = range(0, raster.height, rows)
    for row in logging.tqdm(starts, desc="polygons", unit="strip") if show else starts:
        height = min(rows, raster.height - row)
        window = (row, 0, height, raster.width)
        values = raster.read(window=window)[0]
        valid, nodata = wanted[values], raster.read_nodata_mask(window=window)
        if nodata is not None:
            valid &= ~nodata
        own = None
        if probabilities is not None:
            own = np.empty(values.shape, dtype=np.float32)
            for left in range(0, raster.width, _READ_COLUMNS):
                part = slice(left, min(left + _READ_COLUMNS, raster.width))
                pixels = probabilities.read(window=(row, left, height, part.stop - left))
                pixels = np.take_along_axis(pixels, bands[values[:, part]][None], axis=0)[0]
                own[:, part] = pixels * probabilities.scales[0] + probabilities.offsets[0]
                if probabilities.nodata is not None:
                    own[:, part][pixels == probabilities.nodata] = np.nan
        yield MapRows(row, values, valid, measure_pixels(raster.crs, raster.transform, window), own)


def _find_bands(raster: GeoTiffRaster, class_map: GeoTiffRaster, names: Mapping[int, str]) -> np.ndarray:
    """Find the band of probabilities, (256,), of each file value: by name where all bands are described, or in order.

    Raises:
        ValueError: If the raster is on another grid than the map, or its bands are not the classes.
    """
    size = class_map.shape[1:]
    place, own = (class_map.crs, class_map.transform), (raster.crs, raster.transform)
    if raster.shape[1:] != size or measure_shift(place, own, size) > GRID_TOLERANCE:
        expected, found = name_crs_pair(class_map.crs, raster.crs)
        raise ValueError(
            f"{raster.name}: expected the grid of {class_map.name} ({size} pixels, {expected}), found another "
            f"({raster.shape[1:]} pixels, {found}). Give the probabilities of the same prediction."
        )
    bands = np.zeros(256, dtype=np.intp)
    if raster.count == 1:
        return bands
    described, wanted = list(raster.descriptions), list(names.values())
    in_order = len(wanted) == len(described) and (not any(described) or described == wanted)
    if not in_order and (sorted(map(str, described)) != sorted(wanted) or len(set(wanted)) < len(wanted)):
        raise ValueError(
            f"{raster.name}: expected one band for each of the classes {wanted}, found {described}. "
            "Give the probabilities of the same prediction, or the names of its classes in the order of the bands."
        )
    bands[list(names)] = range(len(wanted)) if in_order else [described.index(name) for name in wanted]
    return bands


def _make_outlines(regions: Sequence[Region], transform: Affine, crs: CRS | None) -> np.ndarray:
    """Make (N,) polygons in the CRS of the map; those wholly beyond 180 degrees, in a map of 0 to 360, go round."""
    shapely = import_vector_package("shapely")
    polygons = []
    for region in regions:
        whole = region.pieces[0]
        if len(region.pieces) > 1:  # put together; coordinates are whole numbers, so that is exact
            whole = shapely.union_all(region.pieces)
            # Only points at which a ring turns: the cuts between strips leave points on straight lines.
            rings = []
            for ring in (whole.exterior, *whole.interiors):
                points = np.asarray(ring.coords)[:-1]
                before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
                rings.append(points[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]])
            whole = shapely.Polygon(rings[0], rings[1:])
        polygons.append(whole)

    def place(points: np.ndarray) -> np.ndarray:
        column, row = points.T
        x = transform.a * column + transform.b * row + transform.c
        return np.stack([x, transform.d * column + transform.e * row + transform.f], axis=1)

    outlines = shapely.transform(np.array(polygons, dtype=object), place)
    if crs is not None and crs.is_geographic and len(outlines):
        west, _, east, _ = shapely.bounds(outlines).T
        for beyond, turn in ((west >= 180, -360), (east <= -180, 360)):
            outlines[beyond] = shapely.transform(outlines[beyond], partial(np.add, (turn, 0)))
    return outlines
