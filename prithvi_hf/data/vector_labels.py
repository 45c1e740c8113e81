# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Labels from a vector file: polygons and points as a raster of classes on the grid of a scene.

The features are brought to pixel coordinates once, checked and repaired, and kept in a temporary GeoPackage with a
spatial index. A window is painted from the features that it touches, so memory grows neither with the scene nor with
the file, and a window reads as the same part of the whole does.
"""

import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize
from rasterio.warp import transform_bounds
from tqdm.auto import tqdm

from prithvi_hf.models.prithvi.configuration_prithvi import NODATA_NAME
from prithvi_hf.outputs.cog import (
    BLOCK_SIZE,
    NODATA_CLASS,
    check_output_path,
    class_layer,
    complete_or_absent,
    file_values,
    write_geotiff,
)
from prithvi_hf.outputs.vector_files import import_vector_package
from prithvi_hf.rasters import TIFF_SUFFIXES
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster
from prithvi_hf.rasters.raster import GDAL_ERRORS, Raster, Window, is_same_crs, name_crs_pair
from prithvi_hf.rasters.warping import Grid


# How files start, and what GDAL calls their format. No other of its formats is read: some name further files.
_FORMATS = {
    b"SQLite format 3\0": "GPKG",
    b"fgb\x03": "FlatGeobuf",
    b"\x00\x00\x27\x0a": "ESRI Shapefile",
    b"{": "GeoJSON",
}
_POINT, _POLYGON = 0, 3  # GEOS numbers of what is painted
_BATCH = 50_000  # features
_COLUMNS = 4096  # of a block that is painted at once
_LONGEST_EDGE = (
    64  # pixels: an edge that is straight in another CRS bends by less than a tenth of a pixel over so many
)
_MARGIN = 0.02  # of the scene, that features are cut beyond
_SHOWN = 12  # values that a message lists
_SHOWN_CRS = 90  # characters
_FEATURES = "features"

# Features are painted by pixels: the transform of a window at the origin is the identity, and that is meant.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"rasterio\.features$")


@dataclass(frozen=True)
class LabelOptions:
    """What of a vector file is a label, and of which class.

    Attributes:
        attribute: attribute that tells the class of a feature, a whole number or a name; None where all features are
            of one class, the only one of `classes`.
        layer: layer of a file that has several.
        classes: values of the attribute in the order of the classes, each `VALUE` or `VALUE=NAME`; values of one name
            are one class. None takes the values that are there: numbers stay as they are, names are sorted.
        ignore_values: values of the attribute that are not a class; their features are unlabelled, as are those
            without a value.
        background: class of all pixels outside the features; None leaves them unlabelled. A name that is not among
            the classes becomes the first one.
        all_touched: whether a polygon has every pixel that it touches, not those alone whose centre is inside.
    """

    attribute: str | None = None
    layer: str | None = None
    classes: Sequence[str] | None = None
    ignore_values: Sequence[str | int] = ()
    background: str | None = None
    all_touched: bool = False

    def __post_init__(self) -> None:
        for name in ("attribute", "layer", "background"):
            if getattr(self, name) == "":
                raise ValueError(f"{name}: expected a name, found an empty text. Leave the option out.")
        object.__setattr__(self, "classes", None if self.classes is None else tuple(self.classes))
        object.__setattr__(self, "ignore_values", tuple(map(str, self.ignore_values)))


@dataclass(frozen=True)
class LabelClasses:
    """The classes of labels.

    Attributes:
        names: names of the classes 0, 1, ...
        by_value: class of each value of an attribute or of a mask.
        class_values: value in files of each class, where it is not its number.
        background: class of everything outside the features, or None.
    """

    names: tuple[str, ...]
    by_value: Mapping[str, int]
    class_values: Mapping[int, int] = field(default_factory=dict)
    background: int | None = None

    @property
    def id2label(self) -> dict[int, str]:
        """Name of each class, as maps take it."""
        return dict(enumerate(self.names))


def choose_classes(found: Mapping[str, int], options: LabelOptions, name: str) -> LabelClasses:
    """Number the classes of a file in which values of the attribute were found, each in so many features.

    Raises:
        ValueError: values that are not among the classes, or numbers that a mask cannot hold.
    """
    ignored = set(options.ignore_values)
    values = [value for value in found if value not in ignored]
    if options.classes is not None:
        pairs = [(value, text or value) for value, _, text in (one.partition("=") for one in options.classes)]
        known = dict(pairs)
        twice = sorted(
            {value for value, _ in pairs if [one for one, _ in pairs].count(value) > 1} | ignored & {*known}
        )
        if twice or "" in known:
            raise ValueError(
                f"classes: expected VALUE or VALUE=NAME, each value once and none of ignore_values, found "
                f"{', '.join(map(repr, twice)) or 'an empty value'} in {' '.join(options.classes)}."
            )
        if unknown := [value for value in values if value not in known]:
            strangers = _list(found, unknown)
            raise ValueError(
                f"{name}: expected the values {', '.join(known)} of {options.attribute}, found {strangers} too. Add "
                "them to classes (VALUE or VALUE=NAME), or to ignore_values, whose features are unlabelled."
            )
    elif values and all(value.lstrip("-").isdecimal() for value in values):
        known = {value: value for value in sorted(values, key=int)}
    else:
        known = {value: value for value in sorted(values)}
    names, background = list(dict.fromkeys(known.values())), options.background
    numbers: dict[str, int] = {}
    if options.classes is None and all(one.lstrip("-").isdecimal() for one in names) and names:
        numbers = {one: int(one) for one in names}
        if background is not None and background not in numbers:
            numbers[background] = int(background) if background.isdecimal() else 0
    if background is not None and background not in names:
        names.insert(0, background)
    if not names:
        raise ValueError(
            f"{name}: expected features with values of {options.attribute} that are classes, found none. Name another "
            "attribute, or leave values out of ignore_values."
        )
    if NODATA_NAME in names:
        raise ValueError(
            f"{name}: expected names of classes, found {NODATA_NAME!r}, which pixels without one are called. Name the "
            "class otherwise, or list its value in ignore_values."
        )
    class_values = {names.index(one): value for one, value in numbers.items() if names.index(one) != value}
    try:
        file_values(dict(enumerate(names)), class_values)
    except ValueError as error:
        raise ValueError(
            f"{name}: expected at most 255 classes, whose numbers are 0 to 254 and differ from each other, found "
            f"{_list(found, [*found])}. Number them with classes, in their order: VALUE or VALUE=NAME."
        ) from error
    by_value = {value: names.index(text) for value, text in known.items()}
    return LabelClasses(tuple(names), by_value, class_values, None if background is None else names.index(background))


def _list(found: Mapping[str, int], values: Sequence[str]) -> str:
    """Write `road (3 features), path (1 feature)`."""
    shown = [f"{value} ({found[value]} feature{'s' if found[value] > 1 else ''})" for value in values[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(values) - _SHOWN} more values" if len(values) > _SHOWN else "")


class VectorLabels(Raster):
    """Labels as a raster of one uint8 band: class numbers, 255 where there is no label; see `open_vector_labels`.

    Where features overlap, the later one in the file (the higher feature number) is on top.

    Attributes:
        classes: the classes.
        counts: number of "features" in the file, of those "outside" the scene, "repaired" (invalid polygons),
            "empty" (without a shape), "without_value", "ignored" (by their value), and "between_pixels" (polygons so
            small or thin that they certainly have no pixel centre inside).
        extent: the window of the scene that holds all features.
    """

    def __init__(self, path: Path, grid: Grid, classes: LabelClasses, all_touched: bool, name: str) -> None:
        super().__init__(
            name=name,
            dtype="uint8",
            size=grid.size,
            descriptions=("class",),
            nodata=NODATA_CLASS,
            crs=grid.crs,
            transform=grid.transform,
            block_shape=(BLOCK_SIZE, BLOCK_SIZE),
        )
        self.classes, self._features, self._all_touched = classes, path, all_touched
        self.counts = dict.fromkeys(
            ("features", "outside", "repaired", "empty", "without_value", "ignored", "between_pixels"), 0
        )
        self.extent: Window = (0, 0, *grid.size)

    def _read(self, bands: tuple[int, ...], window: Window) -> np.ndarray:
        return self.paint(window)[0][None]

    def _read_mask(self, bands: tuple[int, ...], window: Window) -> np.ndarray | None:
        return None

    def add_features(self, shapes: np.ndarray, values: np.ndarray, places: np.ndarray) -> None:
        """Keep shapes (WKB, in pixels) with their classes and their places in the file, in batches, to be painted."""
        pyogrio = import_vector_package("pyogrio")
        columns = {"value": values.astype(np.int32), "place": places.astype(np.int64)}
        try:
            pyogrio.raw.write(
                *(self._features, shapes, list(columns.values()), list(columns)),
                layer=_FEATURES,
                driver="GPKG",
                geometry_type="Unknown",
                crs="EPSG:3857",  # some CRS, or there is a warning; coordinates are pixels
                append=self._features.exists(),
            )
        except (pyogrio.errors.DataSourceError, pyogrio.errors.FeatureError, RuntimeError) as error:
            raise OSError(f"{self._features.parent}: features cannot be kept there ({error}). Is it full?") from error

    def paint(self, window: Window) -> tuple[np.ndarray, int]:
        """Paint a window, (height, width) uint8, and count the pixels in which features of several classes overlap."""
        shapely, pyogrio = import_vector_package("shapely"), import_vector_package("pyogrio")
        row, column, height, width = window
        fill = NODATA_CLASS if self.classes.background is None else self.classes.background
        labels = np.full((height, width), fill, dtype=np.uint8)
        box = (column, row, column + width, row + height)
        _, _, shapes, (values, order) = pyogrio.raw.read(
            self._features, layer=_FEATURES, columns=["value", "place"], bbox=box
        )
        if not len(shapes):
            return labels, 0
        first = np.argsort(order, kind="stable")
        pairs = list(zip(shapely.from_wkb(shapes[first]), values[first].tolist(), strict=True))
        how = {"transform": Affine.translation(column, row), "all_touched": self._all_touched}
        rasterize(pairs, out=labels, **how)
        if len({value for _, value in pairs}) == 1:
            return labels, 0
        below = np.full((height, width), fill, dtype=np.uint8)
        rasterize(pairs[::-1], out=below, **how)  # what would be seen from the other side
        return labels, int((below != labels).sum())


@contextmanager
def open_vector_labels(
    path: str | os.PathLike,
    grid: Grid,
    options: LabelOptions,
    *,
    folder: str | os.PathLike | None = None,
    show_progress: bool = False,
) -> Iterator[VectorLabels]:
    """Lend the labels of a vector file as a raster on a grid, in any CRS.

    Args:
        path: GeoPackage, GeoJSON, FlatGeobuf or shapefile of polygons and points.
        grid: the grid of the scene.
        options: what is a label, and of which class.
        folder: where the features are kept meanwhile; None for the system's folder of temporary files.
        show_progress: whether to show a progress bar over the features.

    Raises:
        ValueError: the file, its attribute, its values or its CRS are not as expected, or no feature is in the scene.
        ImportError: the extra `vector` is not installed.
    """
    source = _VectorFile(path, options)
    if (source.crs is None) != (grid.crs is None):
        found = name_crs_pair(source.crs, grid.crs)
        raise ValueError(
            f"{source.name}: expected a CRS in the labels and in the scene, found {found[0]} and {found[1]}. Write it "
            "into the file that lacks it: `ogr2ogr -a_srs EPSG:32633 OUT IN`, `gdal_edit.py -a_srs EPSG:32633 SCENE`."
        )
    classes = choose_classes(source.count_values(), options, source.name)
    with tempfile.TemporaryDirectory(prefix=".prithvi-labels-", dir=folder) as place:
        labels = VectorLabels(Path(place) / "features.gpkg", grid, classes, options.all_touched, source.name)
        _collect_features(source, grid, labels, show_progress)
        yield labels


class _VectorFile:
    """A layer of a vector file, read batch by batch."""

    def __init__(self, path: str | os.PathLike, options: LabelOptions) -> None:
        self._pyogrio, self.name = import_vector_package("pyogrio"), os.fspath(path)
        self.path, self.options = os.path.abspath(os.path.expanduser(self.name)), options
        kinds = "a GeoPackage, GeoJSON, FlatGeobuf or shapefile of polygons or points"
        if not os.path.isfile(self.path):
            raise FileNotFoundError(f"{self.name}: expected {kinds}, found no file there. Check the path.")
        with open(self.path, "rb") as file:
            start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
        driver = next((name for magic, name in _FORMATS.items() if start.startswith(magic)), None)
        if driver is None:
            raise ValueError(
                f"{self.name}: expected {kinds}, found a file that starts with {start[:8]!r}. Convert it, e.g. "
                "`ogr2ogr labels.gpkg FILE`; of a shapefile give the .shp."
            )
        if driver == "ESRI Shapefile" and os.path.getsize(self.path) < 2 * int.from_bytes(start[24:28], "big"):
            raise ValueError(f"{self.name}: expected a complete file, found that its end is missing. Copy it again.")
        try:
            layers = [str(name) for name, kind in self._pyogrio.list_layers(self.path) if kind is not None]
            if not layers or (options.layer is None and len(layers) > 1) or options.layer not in (None, *layers):
                found = f"{options.layer!r} of {', '.join(layers)}" if options.layer else ", ".join(layers) or "none"
                raise ValueError(
                    f"{self.name}: expected one layer with shapes, found {found}. Name it with the option layer."
                )
            self.layer = options.layer or layers[0]
            info = self._pyogrio.read_info(self.path, layer=self.layer)
        except self._pyogrio.errors.DataSourceError as error:
            raise ValueError(
                f"{self.name}: expected {kinds}, found a file that cannot be read ({error}). Copy or convert it again."
            ) from error
        if info["driver"] != driver:
            raise ValueError(f"{self.name}: expected {kinds}, found {info['driver']}. Convert it with `ogr2ogr`.")
        self.crs = None if not info["crs"] else CRS.from_user_input(info["crs"])
        self.total, fields = int(info["features"]), [str(one) for one in info["fields"]]
        if options.attribute is not None and options.attribute not in fields:
            raise ValueError(
                f"{self.name}: expected an attribute {options.attribute}, found {', '.join(fields) or 'none'}. Name "
                "the one that holds the class."
            )
        if options.attribute is None and len(dict.fromkeys(options.classes or ())) != 1:
            raise ValueError(
                f"{self.name}: expected the attribute that tells the class of each feature, found none named among "
                f"{', '.join(fields) or 'none'}. Name it with the option attribute or, where all features are of one "
                "class, give that class alone with the option classes."
            )

    def read_batches(self, geometry: bool) -> Iterator[tuple[np.ndarray, list[str | None], list[bytes | None]]]:
        """Read the numbers of features, the text of their values, and their shapes as WKB, some at a time."""
        attribute = self.options.attribute
        what = {"columns": [] if attribute is None else [attribute], "read_geometry": geometry}
        try:
            with self._pyogrio.raw.open_arrow(
                *(self.path, self.layer), **what, return_fids=True, batch_size=_BATCH, use_pyarrow=True
            ) as (meta, batches):
                for batch in batches:
                    numbers = batch.column(meta["fid_column"] or "OGC_FID").to_numpy(zero_copy_only=False)
                    texts: list[str | None] = [(self.options.classes or [""])[0].partition("=")[0]] * len(numbers)
                    if attribute is not None:
                        texts = self._write_values(batch.column(attribute))
                    shapes = batch.column(meta["geometry_name"] or "wkb_geometry").to_pylist() if geometry else []
                    yield numbers, texts, shapes
        except (
            self._pyogrio.errors.DataSourceError,
            self._pyogrio.errors.DataLayerError,
            RuntimeError,
            OSError,
        ) as error:
            raise ValueError(
                f"{self.name}: expected features that can be read, found: {error}. Copy or convert the file again."
            ) from error

    def _write_values(self, column: Any) -> list[str | None]:
        """Write values as text: whole numbers as such, whatever type their column has; None and "" as None."""
        found: list[str | None] = []
        for value in column.to_pylist():
            if isinstance(value, bool):
                value = int(value)
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if value is not None and not isinstance(value, int | str):
                if value == value:  # not NaN
                    raise ValueError(
                        f"{self.name}: expected whole numbers or names as values of {self.options.attribute}, found "
                        f"{value!r} ({type(value).__name__}). Name the attribute that holds the class."
                    )
                value = None
            found.append(None if value is None or value == "" else str(value))
        return found

    def count_values(self) -> dict[str, int]:
        """Count the features of each value."""
        counts: Counter[str] = Counter()
        for _, texts, _ in self.read_batches(geometry=False):
            counts.update(text for text in texts if text is not None)
        return dict(counts)


def _collect_features(source: _VectorFile, grid: Grid, labels: VectorLabels, show_progress: bool) -> None:
    """Bring all features to pixel coordinates, into the file that `labels` are painted from, and count them."""
    shapely, counts, by_value = import_vector_package("shapely"), labels.counts, labels.classes.by_value
    ignored, placed = set(source.options.ignore_values), _Placement(source, grid)
    edges = np.array([np.inf, np.inf, -np.inf, -np.inf])
    with tqdm(desc="features", total=max(source.total, 0), unit="feature", disable=not show_progress) as bar:
        for numbers, texts, wkb in source.read_batches(geometry=True):
            values = np.array([NODATA_CLASS if text is None else by_value.get(text, NODATA_CLASS) for text in texts])
            parts, owners = _read_parts(source.name, numbers, wkb, counts)
            present = len(np.unique(owners))
            parts, owners = placed.to_pixels(parts, owners)
            bounds = shapely.bounds(parts).reshape(-1, 4)
            inside = (bounds[:, 2:] >= 0).all(axis=1) & (bounds[:, :2] <= grid.size[::-1]).all(axis=1)
            parts, owners, bounds = parts[inside], owners[inside], bounds[inside]
            # No centre of a pixel is between the edges of these.
            thin = (np.floor(bounds[:, 2:] - 0.5) < np.ceil(bounds[:, :2] - 0.5)).any(axis=1)
            thin &= shapely.get_type_id(parts) == _POLYGON
            counts["features"] += len(numbers)
            counts["without_value"] += texts.count(None)
            counts["ignored"] += sum(text in ignored for text in texts)
            counts["outside"] += present - len(np.unique(owners))
            counts["between_pixels"] += len(np.setdiff1d(owners[thin], owners[~thin]))
            if len(parts):
                edges[:2] = np.minimum(edges[:2], bounds[:, :2].min(axis=0))
                edges[2:] = np.maximum(edges[2:], bounds[:, 2:].max(axis=0))
                labels.add_features(shapely.to_wkb(parts), values[owners], numbers[owners])
            bar.update(len(numbers))
    if not np.isfinite(edges).all():
        left, bottom, right, top = grid.bounds
        crs = "no CRS" if grid.crs is None else grid.crs.to_string()[:_SHOWN_CRS]
        raise ValueError(
            f"{source.name}: expected features in the scene (x {left:.6g} to {right:.6g}, y {bottom:.6g} to {top:.6g} "
            f"of {crs}), found {counts['features']} features, none of them there. Check the CRS of both files."
        )
    left, top = (int(np.clip(edges[axis], 0, side - 1)) for axis, side in enumerate(grid.size[::-1]))
    right, bottom = (int(np.clip(np.ceil(edges[2 + axis]), 1, side)) for axis, side in enumerate(grid.size[::-1]))
    labels.extent = (top, left, max(1, bottom - top), max(1, right - left))


def _read_parts(
    name: str, numbers: np.ndarray, wkb: Sequence[bytes | None], counts: dict[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Read shapes as valid polygons and points, each with the position of its feature, and count what is not."""
    shapely = import_vector_package("shapely")
    try:
        shapes = shapely.force_2d(shapely.from_wkb(np.array(wkb, dtype=object)))
    except shapely.errors.GEOSException as error:
        raise ValueError(
            f"{name}: expected polygons or points, found a shape that cannot be read ({error}). Convert curves with "
            "`ogr2ogr -nlt CONVERT_TO_LINEAR`."
        ) from error
    parts, owners = _take_parts(shapes, np.arange(len(shapes)))
    if (strange := ~np.isin(shapely.get_type_id(parts), (_POINT, _POLYGON))).any():
        first = np.flatnonzero(strange)[0]
        raise ValueError(
            f"{name}: expected polygons and points, found a {parts[first].geom_type} in feature "
            f"{numbers[owners[first]]}. Lines have no width: make polygons of them first, with a buffer."
        )
    if (broken := ~np.isfinite(shapely.bounds(parts)).all(axis=-1)).any():
        raise ValueError(
            f"{name}: expected places, found coordinates that are not finite in feature "
            f"{numbers[owners[np.flatnonzero(broken)[0]]]}. Correct or delete it."
        )
    counts["empty"] += len(shapes) - len(np.unique(owners))
    invalid = ~shapely.is_valid(parts)
    if invalid.any():
        counts["repaired"] += len(np.unique(owners[invalid]))
        parts[invalid] = shapely.make_valid(parts[invalid])
        parts, owners = _take_parts(parts, owners, _POLYGON, _POINT)
    return parts, owners


def _take_parts(shapes: np.ndarray, owners: np.ndarray, *kinds: int) -> tuple[np.ndarray, np.ndarray]:
    """Take shapes apart, each part with the number of its owner, and keep those of some kinds, of all by default."""
    shapely = import_vector_package("shapely")
    for _ in range(3):  # a collection may hold collections
        shapes, places = shapely.get_parts(shapes, return_index=True)
        owners = owners[places]
    kept = ~shapely.is_empty(shapes)
    if kinds:
        kept &= np.isin(shapely.get_type_id(shapes), kinds)
    return shapes[kept], owners[kept]


class _Placement:
    """From coordinates of a vector file to pixels of a grid.

    Shapes that reach far beyond the scene are cut first, as their other parts may have no place in its CRS. Edges that
    are straight in the file are followed, though they bend in the CRS of the scene.
    """

    def __init__(self, source: _VectorFile, grid: Grid) -> None:
        self._source, self._grid = source, grid
        self._shapely = import_vector_package("shapely")
        self._transformer = None
        if source.crs and grid.crs and not is_same_crs(source.crs, grid.crs, grid.transform, grid.size):
            pyproj = import_vector_package("pyproj")
            self._transformer = pyproj.Transformer.from_crs(source.crs.to_wkt(), grid.crs.to_wkt(), always_xy=True)
        # In degrees, a scene beyond 180 has a place among -180 to 180 too.
        turns = (-360.0, 0.0, 360.0) if grid.crs is not None and grid.crs.is_geographic else (0.0,)
        self._boxes = [(box, turn) for turn in turns for box in self._find_boxes(turn)]

    def _find_boxes(self, turn: float) -> Iterator[tuple[float, float, float, float]]:
        """Find the scene, with a margin, in coordinates of the file: one box, or one on each side of 180 degrees."""
        grid, crs = self._grid, self._source.crs
        left, bottom, right, top = grid.bounds
        across, down = _MARGIN * (right - left), _MARGIN * (top - bottom)
        left, bottom, right, top = left - across - turn, bottom - down, right + across - turn, top + down
        if self._transformer is not None:
            if grid.crs is not None and grid.crs.is_geographic:
                left, right = max(left, -180), min(right, 180)
                bottom, top = max(bottom, -90), min(top, 90)
                if left >= right:
                    return
            try:
                left, bottom, right, top = transform_bounds(grid.crs, crs, left, bottom, right, top, densify_pts=101)
            except GDAL_ERRORS as error:
                raise ValueError(
                    f"{self._source.name}: expected a CRS that the scene's can be converted to, found {crs} "
                    f"({error}). Convert the labels with `ogr2ogr -t_srs` first."
                ) from error
        if left > right:
            yield left, bottom, 180.0, top
            left = -180.0
        yield left, bottom, right, top

    def to_pixels(self, parts: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bring shapes to (column, row) of the grid, where they are in it or near it, with their owners."""
        shapely, grid = self._shapely, self._grid
        found, found_owners = [], []
        for box, turn in self._boxes:
            bounds = shapely.bounds(parts).reshape(-1, 4)
            near = (bounds[:, 2] >= box[0]) & (bounds[:, 0] <= box[2])
            near &= (bounds[:, 3] >= box[1]) & (bounds[:, 1] <= box[3])
            some, whose, bounds = parts[near], owners[near], bounds[near]
            if self._transformer is not None and len(some):
                beyond = (bounds[:, :2] < box[:2]).any(axis=1) | (bounds[:, 2:] > box[2:]).any(axis=1)
                some[beyond] = shapely.intersection(some[beyond], shapely.box(*box))
                some, whose = _take_parts(some, whose, _POLYGON, _POINT)
                pixel = max(box[2] - box[0], box[3] - box[1]) / max(grid.size)
                some = shapely.segmentize(some, _LONGEST_EDGE * pixel)

            def place(points: np.ndarray, turn: float = turn) -> np.ndarray:
                x, y = points.T
                if self._transformer is not None:
                    x, y = self._transformer.transform(x, y)
                a, b, c, d, e, f = tuple(~grid.transform)[:6]
                x = x + turn
                return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

            some = shapely.transform(some, place) if len(some) else some
            if not np.isfinite(shapely.bounds(some)).all():
                raise ValueError(
                    f"{self._source.name}: expected features that have a place in the CRS of the scene, found some "
                    f"outside its domain ({grid.crs}). Convert the labels with `ogr2ogr -t_srs` first."
                )
            found.append(some)
            found_owners.append(whose)
        return np.concatenate(found), np.concatenate(found_owners)


def rasterize_labels(
    labels: str | os.PathLike,
    like: str | os.PathLike | Grid,
    output: str | os.PathLike,
    *,
    attribute: str | None = None,
    layer: str | None = None,
    classes: Sequence[str] | None = None,
    ignore_values: Sequence[str | int] = (),
    background: str | None = None,
    all_touched: bool = False,
    overwrite: bool = True,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Write the polygons and points of a vector file as a mask on the grid of a scene.

    The mask is a Cloud-Optimized GeoTIFF as maps are: uint8 class numbers, 255 (its nodata tag) where there is no
    label, names and colours of the classes inside. Training ignores pixels of 255. It is painted in blocks, so memory
    does not grow with the scene but for one row of blocks. A polygon has the pixels whose centre is inside, and the
    later of two features is on top. Invalid polygons are repaired by shapely's `make_valid` and counted.

    Args:
        labels: GeoPackage, GeoJSON, FlatGeobuf or shapefile, in any CRS.
        like: a GeoTIFF on the grid of the scene, or the grid.
        output: the mask to write; it is there once it is complete.
        attribute: attribute that holds the class of a feature; this and the next five as in [`LabelOptions`].
        layer: layer of a file that has several.
        classes: values of the attribute in the order of the classes, `VALUE` or `VALUE=NAME`.
        ignore_values: values of the attribute whose features are unlabelled.
        background: class of all other pixels.
        all_touched: whether polygons have every pixel that they touch.
        overwrite: whether an existing mask may be replaced.
        show_progress: whether to show progress bars.

    Returns:
        What was written: "classes", a list of dicts with "value", "name" and "pixels"; "unlabelled_pixels";
        "overlapping_pixels", in features of several classes; and the counts of features, see [`VectorLabels`].

    Raises:
        ValueError: the labels are not as expected, or none of them is in the scene. Nothing is written then.
        OSError: reading or writing fails.
    """
    source = like if isinstance(like, Grid) else None
    check_output_path(output, [labels, *([] if source else [like])], overwrite, "mask", TIFF_SUFFIXES)
    grid = source or Grid.of(GeoTiffRaster(like))  # type: ignore[arg-type]
    options = LabelOptions(attribute, layer, classes, tuple(ignore_values), background, all_touched)
    pixels, overlapping = np.zeros(256, dtype=np.int64), 0

    def paint_rows() -> Iterator[tuple[int, int, np.ndarray]]:
        nonlocal overlapping
        starts = range(0, grid.height, BLOCK_SIZE)
        for row in tqdm(starts, desc="rows of blocks", unit="row", disable=not show_progress):
            rows = np.empty((min(BLOCK_SIZE, grid.height - row), grid.width), dtype=np.uint8)
            for left in range(0, grid.width, _COLUMNS):
                width = min(_COLUMNS, grid.width - left)
                rows[:, left : left + width], count = raster.paint((row, left, len(rows), width))
                overlapping += count
            pixels[:] += np.bincount(rows.ravel(), minlength=256)
            yield 0, row, rows

    with (
        complete_or_absent(output) as part,
        open_vector_labels(labels, grid, options, folder=part.parent, show_progress=show_progress) as raster,
    ):
        mask = class_layer(raster.classes.id2label, None, raster.classes.class_values)
        write_geotiff(part, mask, grid.size, paint_rows(), grid.crs, grid.transform)
    return {
        "output": os.fspath(output),
        "classes": describe_classes(raster.classes, pixels),
        "unlabelled_pixels": int(pixels[NODATA_CLASS]),
        "overlapping_pixels": overlapping,
        **raster.counts,
    }


def describe_classes(classes: LabelClasses, pixels: np.ndarray) -> list[dict[str, Any]]:
    """List the classes with their values in files and their pixels, which are given by class number."""
    return [
        {"value": classes.class_values.get(number, number), "name": name, "pixels": int(pixels[number])}
        for number, name in enumerate(classes.names)
    ]
