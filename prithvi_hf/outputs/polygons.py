# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Polygons of a finished map: each connected region of a class, with its area on the ground and mean probability.

The map is read strip by strip. A region that goes on below a strip waits in pieces and is put together when it ends,
so memory grows with the width of the map and with the outlines that are open, not with the map.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.features import shapes
from rasterio.session import DummySession
from rasterio.warp import transform as transform_points
from transformers.utils import logging

from prithvi_hf.models.prithvi.pixel_values_prithvi import GRID_TOLERANCE, largest_shift
from prithvi_hf.outputs.cog import complete_or_absent
from prithvi_hf.outputs.vector_files import (
    VectorFile,
    check_vector_path,
    import_vector_package,
    open_vector_file,
)
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster


_SEMI_MAJOR_AXIS = 6_378_137.0  # metres, WGS 84
_FLATTENING = 1 / 298.257223563
_SQUARED_ECCENTRICITY = _FLATTENING * (2 - _FLATTENING)
_GEOGRAPHIC = "EPSG:4326"
_LATTICE_METRES = 20_000.0  # the area of a pixel bends by less than 1e-5 of itself between points this far apart
_LARGEST_STEP = 64  # pixels


def label_regions(values: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the regions of equal value whose pixels share an edge.

    Rows are cut into runs of one value, runs that touch in neighbouring rows are edges of a graph, and its components
    are the regions: the work is that of whole arrays, however many regions there are.

    Args:
        values: (H, W) uint8.
        valid: (H, W) bool; other pixels belong to no region.

    Returns:
        (H, W) int32 with 1 to n in order of the first pixel and 0 for no region, and n.
    """
    keys = np.where(valid, values, -1).astype(np.int16)
    begins = np.ones(keys.shape, dtype=bool)
    np.not_equal(keys[:, 1:], keys[:, :-1], out=begins[:, 1:])
    runs = np.cumsum(begins, dtype=np.int32).reshape(keys.shape) - 1
    # Of the columns in which two runs touch, the first is one in which either begins.
    touch = (keys[1:] == keys[:-1]) & (begins[1:] | begins[:-1]) & valid[1:]
    roots = _components(runs[:-1][touch], runs[1:][touch], int(runs[-1, -1]) + 1)
    is_root = (roots == np.arange(len(roots))) & valid[begins]
    numbers = np.cumsum(is_root, dtype=np.int32)
    of_run = np.where(valid[begins], numbers[roots], 0)
    return of_run[runs].astype(np.int32), int(numbers[-1])


def _components(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """Give each of `count` nodes the smallest node that the edges (first, second) connect it with."""
    parents = np.arange(count, dtype=np.int32)
    while True:
        low, high = np.minimum(parents[first], parents[second]), np.maximum(parents[first], parents[second])
        open_edges = low != high
        if not open_edges.any():
            return parents
        first, second = first[open_edges], second[open_edges]
        np.minimum.at(parents, high[open_edges], low[open_edges])
        while not np.array_equal(above := parents[parents], parents):
            parents = above


def pixel_areas(crs: Any, transform: Affine, window: tuple[int, int, int, int]) -> np.ndarray:
    """Measure the pixels of a window on the WGS 84 ellipsoid.

    The area is that of the ground, not of the map projection: what the middles of a pixel's edges span on the
    ellipsoid, at points up to 20 km apart and linear in between.

    Args:
        crs: CRS of the map as rasterio reads it.
        transform: Affine transform from pixel to CRS coordinates.
        window: (row, column, height, width) in pixels.

    Returns:
        (height, width) float64 in square metres.

    Raises:
        ValueError: If the CRS has no place on Earth for pixels of the window.
    """
    row, column, height, width = window
    middle = _areas_at(crs, transform, np.array([row + height / 2]), np.array([column + width / 2]))[0, 0]
    step = int(np.clip(_LATTICE_METRES / max(np.sqrt(middle), 1e-3), 1, _LARGEST_STEP))
    rows, columns = _lattice(row, height, step), _lattice(column, width, step)
    areas = _areas_at(crs, transform, rows, columns)
    return _weights(rows, row, height) @ areas @ _weights(columns, column, width).T


def _lattice(start: int, length: int, step: int) -> np.ndarray:
    """Centres of pixels about `step` apart, those of both ends among them."""
    return start + 0.5 + np.linspace(0, length - 1, max(2, -(-length // step) + 1))


def _weights(points: np.ndarray, start: int, length: int) -> np.ndarray:
    """(length, points) weights that interpolate linearly between the points."""
    spacing = max(points[1] - points[0], 1e-9)
    place = (start + 0.5 + np.arange(length) - points[0]) / spacing
    return np.clip(1 - np.abs(place[:, None] - np.arange(len(points))[None]), 0, None)


def _areas_at(crs: Any, transform: Affine, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(rows, columns) square metres of the pixels around these points, which are in pixel coordinates."""
    row, column = np.meshgrid(rows, columns, indexing="ij")
    left, right = (_ground(crs, transform, row, column + side) for side in (-0.5, 0.5))
    upper, lower = (_ground(crs, transform, row + side, column) for side in (-0.5, 0.5))
    return np.linalg.norm(np.cross(right - left, lower - upper), axis=-1)


def _ground(crs: Any, transform: Affine, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(..., 3) points on the ellipsoid, in metres from the Earth's centre: no pole or meridian is special there."""
    x = transform.a * columns + transform.b * rows + transform.c
    y = transform.d * columns + transform.e * rows + transform.f
    degrees = np.array(transform_points(crs, _GEOGRAPHIC, x.ravel(), y.ravel())[:2]).reshape(2, *x.shape)
    if not np.isfinite(degrees).all():
        raise ValueError(
            f"Expected every pixel of the map to lie on Earth, found some outside the domain of {crs}: polygons have "
            "areas on the ground, so write them without those pixels, or from a map in another CRS."
        )
    longitude, latitude = np.deg2rad(degrees)
    radius = _SEMI_MAJOR_AXIS / np.sqrt(1 - _SQUARED_ECCENTRICITY * np.sin(latitude) ** 2)
    across = radius * np.cos(latitude)
    height = radius * (1 - _SQUARED_ECCENTRICITY) * np.sin(latitude)
    return np.stack([across * np.cos(longitude), across * np.sin(longitude), height], axis=-1)


_STRIP_PIXELS = 2**22
_STRIP_ROWS = (64, 512)
_READ_COLUMNS = 512  # probabilities are read in pieces of this width: all classes of a strip could be too much
_BATCH = 20_000  # polygons
_TAG = "class_"


@dataclass
class Strip:
    """Some rows of the map.

    Attributes:
        row: First row.
        values: (h, W) uint8 file values.
        valid: (h, W) bool, whether the pixel belongs to a class that is asked for.
        areas: (h, W) square metres.
        probabilities: (h, W) probability of the pixel's own class, NaN where unknown; None where there are none.
    """

    row: int
    values: np.ndarray
    valid: np.ndarray
    areas: np.ndarray
    probabilities: np.ndarray | None


@dataclass
class Region:
    """A region or, until it is merged with its neighbours above and below, a part of one.

    Attributes:
        value: Class value in the file.
        sums: Square metres, sum of probabilities, pixels with a probability.
        pieces: Polygons in pixel coordinates.
        merged_into: The region that this one turned out to be a part of.
    """

    value: int
    sums: np.ndarray
    pieces: list[Any] = field(default_factory=list)
    merged_into: "Region | None" = None

    def root(self) -> "Region":
        """The region that this one is a part of, or itself."""
        region = self
        while region.merged_into is not None:
            region = region.merged_into
        return region

    def absorb(self, other: "Region") -> None:
        """Take another region over."""
        self.sums = self.sums + other.sums
        self.pieces += other.pieces
        other.merged_into, other.pieces = self, []


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
    """Write the regions of a class map as polygons.

    Pixels that share an edge and a class make one region; pixels without data make none. Outlines follow the pixels.
    Columns: `class_value` (the value in the map), `class_name`, `area_m2` (on the WGS 84 ellipsoid, holes left out)
    and, where probabilities are given, `mean_probability` (that of the polygon's class, over its pixels).

    Args:
        path: GeoPackage (.gpkg) or GeoParquet (.parquet) to write; an existing one is replaced, and only by a complete
            one.
        class_map: GeoTIFF of uint8 classes.
        probabilities: GeoTIFF on the same grid with one band a class, described by its name or in the order of
            `class_names`; or with one band, the probability of the class in the map. None for none.
        class_names: File value to class name. None reads it from the tags that `predict_scene` leaves in the map.
        classes: Names or file values of the classes to write; None for all.
        min_area: Square metres on the ground; smaller regions are left out.
        show_progress: Whether to show a progress bar over the rows.

    Returns:
        The number of polygons.

    Raises:
        ImportError: If the packages of the extra `vector` are not installed.
        ValueError: If the suffix is another, the map has no CRS or is no GeoTIFF of uint8, the probabilities do not
            belong to it, or a class is unknown.
        OSError: If reading or writing fails; no incomplete file is left.
    """
    check_vector_path(path)
    raster = check_polygon_crs(GeoTiffRaster(class_map))
    names = read_class_names(class_map) if class_names is None else dict(class_names)
    wanted = _wanted_values(raster, names, classes, min_area)
    reader = None if probabilities is None else _ProbabilityReader(GeoTiffRaster(probabilities), raster, names)
    strips = _read_strips(raster, wanted, reader, show_progress)
    with complete_or_absent(path) as part, open_vector_file(part, raster.crs) as file:
        _write_batches(file, find_regions(strips, min_area), names, raster.transform, reader is not None)
    return file.count


def check_polygon_crs(raster: Any) -> Any:
    """Refuse a map whose polygons would have no place on Earth, hence no area.

    Args:
        raster: Anything with `name` and `crs`.

    Returns:
        The same.

    Raises:
        ValueError: If it has no CRS.
    """
    if raster.crs is None:
        raise ValueError(
            f"{raster.name}: expected a CRS, as polygons have an area on the ground, found none. Add it to the scene, "
            "for example `gdal_edit.py -a_srs EPSG:32633 FILE`, or do without polygons."
        )
    return raster


def check_polygon_options(
    class_names: Mapping[int, str], classes: Sequence[int | str] | None = None, min_area: float = 0.0
) -> None:
    """Refuse options of `write_polygons` that no map can fulfil.

    Args:
        class_names: File value to class name.
        classes: Names or file values of the classes to write; None for all.
        min_area: Square metres.

    Raises:
        ValueError: If a class is unknown, or the area is none.
    """
    if not (min_area >= 0 and np.isfinite(min_area)):
        raise ValueError(f"min_area is an area in square metres, at least 0, found {min_area}.")
    if classes is not None:
        class_file_values(class_names, classes)


def read_class_names(path: str | os.PathLike) -> dict[int, str]:
    """Read what the values of a map mean.

    Args:
        path: A map that `predict_scene` wrote.

    Returns:
        File value to class name, by value; empty where the file names none.
    """
    with rasterio.Env(session=DummySession()), rasterio.open(path, driver="GTiff") as dataset:
        tags = dataset.tags(1)
    named = {key.removeprefix(_TAG): name for key, name in tags.items() if key.startswith(_TAG)}
    return {int(value): named[value] for value in sorted(filter(str.isdecimal, named), key=int)}


def find_regions(strips: Iterable[Strip], min_area: float = 0.0) -> Iterator[Region]:
    """Find the regions of a map, in the order in which they end.

    Args:
        strips: The rows of the map from top to bottom.
        min_area: Square metres; smaller regions are left out.

    Yields:
        Regions whose pieces, in pixel coordinates, make one polygon.
    """
    above = _LowerEdge({}, np.empty(0, dtype=np.int32), np.empty(0, dtype=np.uint8))
    for strip in strips:
        labels, count = label_regions(strip.values, strip.valid)
        sums = _sum_by_label(labels, count, strip)
        values = np.zeros(count + 1, dtype=np.uint8)
        values[labels] = strip.values
        on_edge = _positive(labels[[0, -1]])
        open_regions = {label: Region(int(values[label]), sums[label]) for label in on_edge}
        wanted = sums[:, 0] >= min_area
        wanted[on_edge] = True
        for label, polygon in _trace(labels, strip.row, wanted):
            if label in open_regions:
                open_regions[label].pieces.append(polygon)
            else:
                yield Region(int(values[label]), sums[label], [polygon])
        going_on = {label: open_regions[label] for label in _positive(labels[-1])}
        below = _LowerEdge(going_on, labels[-1], strip.values[-1])
        _join(above, open_regions, labels[0], strip.values[0])
        yield from _ended([*above.regions.values(), *open_regions.values()], below, min_area)
        above = below
    yield from _ended(above.regions.values(), None, min_area)


@dataclass
class _LowerEdge:
    """The last row of a strip: its regions by label, the label of each column, and its value."""

    regions: dict[int, Region]
    labels: np.ndarray
    values: np.ndarray


def _positive(labels: np.ndarray) -> list[int]:
    """The regions among labels."""
    return [label for label in np.unique(labels).tolist() if label]


def _sum_by_label(labels: np.ndarray, count: int, strip: Strip) -> np.ndarray:
    """(count + 1, 3): square metres, sum of probabilities and pixels that have one, of each region."""
    flat = labels.ravel()
    sums = np.zeros((count + 1, 3))
    sums[:, 0] = np.bincount(flat, strip.areas.ravel(), count + 1)
    if strip.probabilities is not None:
        known = np.isfinite(strip.probabilities).ravel()
        sums[:, 1] = np.bincount(flat[known], strip.probabilities.ravel()[known], count + 1)
        sums[:, 2] = np.bincount(flat[known], minlength=count + 1)
    return sums


def _trace(labels: np.ndarray, row: int, wanted: np.ndarray) -> Iterator[tuple[int, Any]]:
    """Give the outlines of the wanted regions of a strip as polygons in pixel coordinates of the map."""
    polygon = import_vector_package("shapely").Polygon
    mask = wanted[labels] & (labels > 0)
    for geometry, label in shapes(labels, mask=mask, connectivity=4, transform=Affine.translation(0, row)):
        outline, *holes = geometry["coordinates"]
        yield int(label), polygon(outline, holes)


def _join(above: _LowerEdge, regions: Mapping[int, Region], labels: np.ndarray, values: np.ndarray) -> None:
    """Make regions one that share an edge across two strips."""
    if not above.regions:
        return
    touch = (above.labels > 0) & (labels > 0) & (above.values == values)
    pairs = np.unique(np.stack([above.labels[touch], labels[touch]]), axis=1).T
    for upper, lower in pairs.tolist():
        region, other = above.regions[upper].root(), regions[lower].root()
        if region is not other:
            region.absorb(other)


def _ended(regions: Iterable[Region], below: _LowerEdge | None, min_area: float) -> Iterator[Region]:
    """Give the regions, once each, that do not go on below and are large enough."""
    going_on = set() if below is None else {id(region.root()) for region in below.regions.values()}
    roots = {id(region.root()): region.root() for region in regions}
    for key, region in roots.items():
        if key not in going_on and region.sums[0] >= min_area:
            yield region


def _read_strips(
    raster: GeoTiffRaster, wanted: np.ndarray, reader: "_ProbabilityReader | None", show_progress: bool
) -> Iterator[Strip]:
    """Read the map strip by strip."""
    rows = int(np.clip(_STRIP_PIXELS // raster.width, *_STRIP_ROWS))
    starts = range(0, raster.height, rows)
    for row in logging.tqdm(starts, desc="polygons", unit="strip") if show_progress else starts:
        window = (row, 0, min(rows, raster.height - row), raster.width)
        values = raster.read(window=window)[0]
        valid, nodata = wanted[values], raster.read_nodata_mask(window=window)
        if nodata is not None:
            valid &= ~nodata
        areas = pixel_areas(raster.crs, raster.transform, window)
        yield Strip(row, values, valid, areas, None if reader is None else reader.read(values, window))


class _ProbabilityReader:
    """Reads the probability of each pixel's own class.

    Args:
        raster: One band a class, or one band.
        class_map: The map that the probabilities belong to.
        names: File value to class name.

    Raises:
        ValueError: If the raster lies on another grid, or its bands are not the classes.
    """

    def __init__(self, raster: GeoTiffRaster, class_map: GeoTiffRaster, names: Mapping[int, str]) -> None:
        _check_same_grid(raster, class_map)
        self._raster = raster
        self._bands = np.zeros(256, dtype=np.intp)
        if raster.count > 1:
            self._bands[list(names)] = _bands_of(raster, list(names.values()))

    def read(self, values: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
        """Give the (h, W) probabilities of the classes `values` (h, W) in a window, NaN where unknown."""
        row, left, height, width = window
        probabilities = np.empty(values.shape, dtype=np.float32)
        for column in range(0, width, _READ_COLUMNS):
            part = slice(column, min(column + _READ_COLUMNS, width))
            pixels = self._raster.read(window=(row, left + column, height, part.stop - part.start))
            own = np.take_along_axis(pixels, self._bands[values[:, part]][None], axis=0)[0]
            probabilities[:, part] = self._unpacked(own)
        return probabilities

    def _unpacked(self, pixels: np.ndarray) -> np.ndarray:
        """Undo the packing of a file: its scale, and its value for no data."""
        raster = self._raster
        values = pixels.astype(np.float32) * raster.scales[0] + raster.offsets[0]
        return values if raster.nodata is None else np.where(pixels == raster.nodata, np.nan, values)


def _check_same_grid(raster: GeoTiffRaster, class_map: GeoTiffRaster) -> None:
    """Refuse probabilities that lie elsewhere than the map."""
    same = raster.shape[1:] == class_map.shape[1:] and raster.crs == class_map.crs
    if not same or largest_shift(class_map.transform, raster.transform, class_map.shape[1:]) > GRID_TOLERANCE:
        raise ValueError(
            f"{raster.name}: expected the grid of {class_map.name} ({class_map.shape[1:]} pixels, {class_map.crs}), "
            f"found another ({raster.shape[1:]} pixels, {raster.crs}). Give the probabilities of the same prediction."
        )


def _bands_of(raster: GeoTiffRaster, names: Sequence[str]) -> list[int]:
    """Find the band of each class: by name where all bands are described, else in order."""
    described = list(raster.descriptions)
    if len(names) == len(described) and (not any(described) or described == list(names)):
        return list(range(len(names)))
    if sorted(map(str, described)) != sorted(names) or len(set(names)) < len(names):
        raise ValueError(
            f"{raster.name}: expected one band for each of the classes {list(names)}, found {described}. "
            "Give the probabilities of the same prediction, or the names of its classes in the order of the bands."
        )
    return [described.index(name) for name in names]


def _wanted_values(
    raster: GeoTiffRaster, names: Mapping[int, str], classes: Sequence[int | str] | None, min_area: float
) -> np.ndarray:
    """(256,) bool: the file values that make polygons."""
    if raster.dtype != "uint8" or raster.count != 1:
        raise ValueError(f"{raster.name}: expected a map of one uint8 band, found {raster.count} of {raster.dtype}.")
    check_polygon_options(names, classes, min_area)
    wanted = np.ones(256, dtype=bool)
    if classes is not None:
        wanted[:] = False
        wanted[class_file_values(names, classes)] = True
    if raster.nodata is not None and raster.nodata in range(256):
        wanted[int(raster.nodata)] = False
    return wanted


def class_file_values(names: Mapping[int, str], classes: Sequence[int | str]) -> list[int]:
    """Find the file values of chosen classes.

    Args:
        names: File value to class name.
        classes: Names, or file values (as numbers or digits).

    Returns:
        The file values.

    Raises:
        ValueError: If there is no class, or one is unknown.
    """
    by_text = {str(value): value for value in names} | {name: value for value, name in names.items()}
    unknown = [choice for choice in classes if str(choice) not in by_text]
    if unknown or not len(classes):
        known = ", ".join(f"{value} ({name})" for value, name in names.items())
        raise ValueError(f"Expected classes of the map for the polygons, {known}; found {unknown or 'none'}.")
    return [by_text[str(choice)] for choice in classes]


def _write_batches(
    file: VectorFile, regions: Iterator[Region], names: Mapping[int, str], transform: Affine, with_probability: bool
) -> None:
    """Write all regions; an empty batch too, so that a map without any still gives a file with its columns."""
    while True:
        batch = list(islice(regions, _BATCH))
        if batch or not file.count:
            file.write(_outlines(batch, transform), _columns(batch, names, with_probability))
        if len(batch) < _BATCH:
            return


def _columns(regions: Sequence[Region], names: Mapping[int, str], with_probability: bool) -> dict[str, np.ndarray]:
    """What is said of each polygon."""
    sums = np.array([region.sums for region in regions]).reshape(-1, 3)
    columns = {
        "class_value": np.array([region.value for region in regions], dtype=np.int32),
        "class_name": np.array([names.get(region.value, str(region.value)) for region in regions], dtype=object),
        "area_m2": sums[:, 0],
    }
    if with_probability:
        columns["mean_probability"] = np.divide(
            sums[:, 1], sums[:, 2], out=np.full(len(sums), np.nan), where=sums[:, 2] > 0
        )
    return columns


def _outlines(regions: Sequence[Region], transform: Affine) -> np.ndarray:
    """(N,) polygons in the CRS of the map."""
    shapely = import_vector_package("shapely")
    polygons = np.array([_merged(region.pieces) for region in regions], dtype=object)

    def place(points: np.ndarray) -> np.ndarray:
        column, row = points.T
        x = transform.a * column + transform.b * row + transform.c
        return np.stack([x, transform.d * column + transform.e * row + transform.f], axis=1)

    return shapely.transform(polygons, place)


def _merged(pieces: Sequence[Any]) -> Any:
    """Put the pieces of a region together; coordinates are whole numbers, so that is exact."""
    if len(pieces) == 1:
        return pieces[0]
    shapely = import_vector_package("shapely")
    whole = shapely.union_all(list(pieces))
    return shapely.Polygon(_corners(whole.exterior), [_corners(hole) for hole in whole.interiors])


def _corners(ring: Any) -> np.ndarray:
    """Points at which a ring turns: the cuts between strips leave points on straight lines."""
    points = np.asarray(ring.coords)[:-1]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    return points[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


__all__ = [
    "Region",
    "Strip",
    "check_polygon_crs",
    "check_polygon_options",
    "class_file_values",
    "find_regions",
    "label_regions",
    "pixel_areas",
    "read_class_names",
    "write_polygons",
]
