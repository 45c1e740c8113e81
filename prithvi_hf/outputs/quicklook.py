# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Pictures of maps: classes or values beside the scene in natural colours, with a legend and a scale bar."""

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.session import DummySession

from prithvi_hf.models.prithvi.configuration_prithvi import NODATA_NAME, make_unique_names
from prithvi_hf.outputs.cog import NODATA_CLASS
from prithvi_hf.outputs.palette import Rgb, class_palette, format_color
from prithvi_hf.outputs.polygons import read_class_names
from prithvi_hf.rasters.raster import GDAL_ERRORS, GeoTiffError, find_degrees


if TYPE_CHECKING:
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

_LARGEST_SIDE = 1536  # pixels of a picture; more would not show
_LABEL_LENGTH = 48  # characters of a class name in the legend
_LEGEND_ENTRIES = 20
_VALUE_PERCENTILES = (2.0, 98.0)
_EARTH_RADIUS = 6_371_000.0  # metres
_HATCH_COLOR, _GAP_COLOR = "#a8a8a8", "#606060"


@dataclass(frozen=True)
class PictureRow:
    """Pictures of one place, drawn side by side.

    Args:
        pictures: By title, (h, w, 4) uint8 red, green, blue and opacity, see `paint_classes` and `stretch_colors`;
            None leaves the place empty.
        width_metres: Width on the ground of the last picture, for its scale bar; None for no bar.
    """

    pictures: Mapping[str, np.ndarray | None]
    width_metres: float | None = None


def thumbnail_step(height: int, width: int) -> int:
    """Give the smallest step that thins a scene so that both of its sides are within 1536 pixels."""
    return -(-max(height, width) // _LARGEST_SIDE)


def write_quicklook(path: str | os.PathLike[str], mask: np.ndarray, **options: Any) -> None:
    """Draw a map as PNG, whole or not at all; the options are those of [`make_map_figure`]."""
    from prithvi_hf.outputs.figures import save_picture

    save_picture(make_map_figure(mask, **options), path)


def make_map_figure(
    mask: np.ndarray,
    *,
    id2label: Mapping[int, str],
    class_colors: Sequence[str] | None = None,
    rgb: np.ndarray | None = None,
    rgb_title: str = "scene",
    present: Collection[int] | None = None,
    crs: CRS | str | None = None,
    transform: Affine | None = None,
    step: int = 1,
) -> "Figure":
    """Draw a map, beside a picture of the same scene where there is one.

    Args:
        mask: (H, W) class indices, 255 = no data.
        id2label: Class index to name.
        class_colors: `"#rrggbb"` for each class, or None for default colours.
        rgb: (h, w, 4) uint8 picture at any resolution, drawn to the left; or None.
        rgb_title: What stands above it.
        present: Class indices on the map, 255 among them for no data, where `mask` is thinned; None looks there.
        crs: CRS of the map, for a scale bar; or None.
        transform: From (column, row) of the map to coordinates of the CRS, or None.
        step: The mask holds every `step`-th row and column of the map, to which `transform` belongs.
    """
    palette = class_palette(len(id2label), class_colors, [id2label[index] for index in sorted(id2label)])
    classes = paint_classes(mask, palette)
    width_metres = measure_width(crs, transform, mask.shape[0] * step, mask.shape[1] * step)
    pictures = {"classes": classes} if rgb is None else {rgb_title: rgb, "classes": classes}
    present = set(np.unique(mask).tolist()) if present is None else set(present)
    rows = [PictureRow(pictures, width_metres)]
    return make_picture_figure(rows, id2label=id2label, palette=palette, present=present)


def write_value_quicklook(path: str | os.PathLike[str], values: np.ndarray, **options: Any) -> None:
    """Draw a map of values as PNG, whole or not at all; the options are those of [`make_value_figure`]."""
    from prithvi_hf.outputs.figures import save_picture

    save_picture(make_value_figure(values, **options), path)


def make_value_figure(
    values: np.ndarray,
    *,
    title: str,
    rgb: np.ndarray | None = None,
    rgb_title: str = "scene",
    crs: CRS | str | None = None,
    transform: Affine | None = None,
    step: int = 1,
) -> "Figure":
    """Draw a map of values with a colour bar, beside a picture of the same scene where there is one.

    Args:
        values: (H, W) floats, NaN = no data.
        title: What they are, and their unit.
        rgb: (h, w, 4) uint8 picture at any resolution, drawn to the left; or None.
        rgb_title: What stands above it.
        crs: CRS of the map, for a scale bar; or None.
        transform: From (column, row) of the map to coordinates of the CRS, or None.
        step: `values` hold every `step`-th row and column of the map, to which `transform` belongs.
    """
    width_metres = measure_width(crs, transform, values.shape[0] * step, values.shape[1] * step)
    thin = thumbnail_step(*values.shape)
    values = values[::thin, ::thin]
    scale = make_color_scale(values)
    painted = paint_values(values, scale)
    pictures = {"values": painted} if rgb is None else {rgb_title: rgb, "values": painted}
    rows = [PictureRow(pictures, width_metres)]
    return make_picture_figure(rows, id2label={}, palette=[], present=(), colorbar=(title, scale))


def make_file_figure(
    path: str | os.PathLike[str],
    rgb: np.ndarray | None = None,
    rgb_title: str = "scene",
    class_names: Sequence[str] | None = None,
) -> "Figure":
    """Draw a map of classes or values that is a GeoTIFF of one band, beside a picture of the same scene if any.

    Args:
        path: The map. Names and colours of classes are those in the file, a map of values is described by its band.
        rgb: (h, w, 4) uint8 picture on the same grid, thinned by `thumbnail_step`, drawn to the left; or None.
        rgb_title: What stands above it.
        class_names: Names of the values 0, 1, ... of a map that has none inside.

    Raises:
        GeoTiffError: The file cannot be read.
        ValueError: It is not a map of one band, is on another grid than the picture, or has values that its names do
            not explain.
    """
    with rasterio.Env(session=DummySession()):
        try:
            with rasterio.open(path, driver="GTiff") as dataset:
                step = thumbnail_step(*dataset.shape)
                if dataset.count != 1:
                    raise ValueError(f"{path}: expected a map of one band, found {dataset.count} bands.")
                values = dataset.read(1, out_shape=tuple(-(-side // step) for side in dataset.shape), masked=True)
                has_classes = dataset.dtypes[0] == "uint8" and dataset.scales[0] == 1
                table = dataset.colormap(1) if has_classes and dataset.colorinterp[0] == ColorInterp.palette else {}
                title = (dataset.descriptions[0] or "value") + (f" ({dataset.units[0]})" if dataset.units[0] else "")
                place: dict[str, Any] = {"crs": dataset.crs, "transform": dataset.transform, "step": step}
                scale, offset = dataset.scales[0], dataset.offsets[0]
        except GDAL_ERRORS as error:
            raise GeoTiffError(f"{path}: expected a map, found a file that cannot be read ({error}).") from error
    if rgb is not None and rgb.shape[:2] != values.shape:
        raise ValueError(
            f"{path}: expected the scene that was mapped, whose picture has {values.shape[0]} x {values.shape[1]} "
            f"pixels, found one of {rgb.shape[0]} x {rgb.shape[1]}. Give the scene of this map."
        )
    picture = {"rgb": rgb, "rgb_title": rgb_title, **place}
    if not has_classes:
        return make_value_figure(values.astype(np.float32).filled(np.nan) * scale + offset, title=title, **picture)
    names = read_class_names(path) or dict(enumerate(class_names or ()))
    present = [value for value in np.unique(values.compressed()).tolist() if names or value != NODATA_CLASS]
    names = names or {value: str(value) for value in present}
    if unknown := [value for value in present if value not in names]:
        raise ValueError(
            f"{path}: expected values that the names of the classes explain, found {', '.join(map(str, unknown[:8]))} "
            "too. Name them, or declare them nodata."
        )
    numbers = np.full(256, NODATA_CLASS, dtype=np.uint8)
    numbers[list(names)] = range(len(names))
    mask = np.where(values.mask, NODATA_CLASS, numbers[values.data])
    colors = [format_color(table[value]) for value in names] if table else None
    return make_map_figure(mask, id2label=dict(enumerate(names.values())), class_colors=colors, **picture)


def draw_pictures(path: str | os.PathLike[str], rows: Sequence[PictureRow], **options: Any) -> None:
    """Draw rows of pictures as PNG, whole or not at all; the options are those of [`make_picture_figure`]."""
    from prithvi_hf.outputs.figures import save_picture

    save_picture(make_picture_figure(rows, **options), path)


def make_picture_figure(
    rows: Sequence[PictureRow],
    *,
    id2label: Mapping[int, str],
    palette: Sequence[Rgb],
    present: Collection[int],
    nodata_label: str = NODATA_NAME,
    panel_inches: float = 6.0,
    colorbar: "tuple[str, ScalarMappable] | None" = None,
) -> "Figure":
    """Arrange rows of pictures with the same titles in a figure, with one legend. What is transparent is hatched.

    `present` are class indices on the maps, which the legend names alone where there are many classes;
    `panel_inches` is the larger side of a picture; `colorbar` the title and the colours of values, if there are any.
    """
    from matplotlib.patches import Rectangle
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    from prithvi_hf.outputs.figures import escape_label, make_figure

    shapes = [picture.shape for row in rows for picture in row.pictures.values() if picture is not None]
    height, width = max(shape[0] for shape in shapes), max(shape[1] for shape in shapes)
    unit = panel_inches / max(height, width)
    size = (max(width * unit, 2.0) * len(rows[0].pictures), (max(height * unit, 1.0) + 0.3) * len(rows) + 0.4)
    figure = make_figure(*size)
    hatched = False
    panels = figure.subplots(len(rows), len(rows[0].pictures), squeeze=False)
    for row, row_of_panels in zip(rows, panels, strict=True):
        for axes, (title, picture) in zip(row_of_panels, row.pictures.items(), strict=True):
            axes.set_title(title)
            axes.set_axis_off()
            if picture is None:
                continue
            is_gap = np.pad(picture[..., 3] == 0, 1)
            if is_gap.any():
                hatched = True
                places = (np.arange(-1, side - 1) for side in is_gap.shape[::-1])  # the border of the picture too
                axes.contour(*places, is_gap.astype(np.uint8), [0.5], colors=_GAP_COLOR, linewidths=0.8)
                hatch = Rectangle((0, 0), 1, 1, facecolor="white", edgecolor=_HATCH_COLOR, hatch="////", linewidth=0)
                hatch.set(transform=axes.transAxes, zorder=-1)
                axes.add_patch(hatch)
            axes.imshow(picture, interpolation="nearest")
        if picture is not None and row.width_metres is not None:
            longest = row.width_metres / 3  # the bar has a round length of no more than that
            power = 10.0 ** math.floor(math.log10(longest))
            metres = power * max(factor for factor in (1, 2, 5) if factor * power <= longest)
            bar = (
                metres / row.width_metres * picture.shape[1],
                f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m",
            )
            axes.add_artist(AnchoredSizeBar(axes.transData, *bar, "lower left", pad=0.4, sep=4, borderpad=0.6))

    if colorbar is not None:
        title, scale = colorbar
        figure.colorbar(scale, ax=panels, label=escape_label(title), extend="both", shrink=0.8)
    _add_legend(figure, id2label, palette, present, nodata_label if hatched or NODATA_CLASS in present else None)
    return figure


def _add_legend(
    figure: "Figure",
    id2label: Mapping[int, str],
    palette: Sequence[Rgb],
    present: Collection[int],
    nodata_label: str | None,
) -> None:
    """Add a legend of the classes, and of what is hatched where that has a label."""
    from matplotlib.patches import Patch

    from prithvi_hf.outputs.figures import escape_label

    names = [index for index in sorted(id2label) if len(id2label) <= _LEGEND_ENTRIES or index in present]
    entries = []
    labels = make_unique_names(id2label)
    for index in names[:_LEGEND_ENTRIES]:  # underscores in front would hide an entry
        label = labels[index] if len(labels[index]) <= _LABEL_LENGTH else f"{labels[index][: _LABEL_LENGTH - 3]}..."
        entries.append(Patch(facecolor=format_color(palette[index]), edgecolor="#888888", label=escape_label(label)))
    if nodata_label is not None:
        entries.append(Patch(facecolor="white", edgecolor=_HATCH_COLOR, hatch="////", label=nodata_label))
    if entries:
        figure.legend(handles=entries, loc="outside lower center", ncols=min(4, len(entries)), frameon=False)


def paint_classes(mask: np.ndarray, palette: Sequence[Rgb]) -> np.ndarray:
    """Paint class indices (H, W), 255 = no data, as uint8 colours and opacity (h, w, 4), thinned to what shows."""
    table = np.zeros((256, 4), dtype=np.uint8)
    table[: len(palette)] = [(*color, 255) for color in palette]
    step = thumbnail_step(*mask.shape)
    return table[mask[::step, ::step]]


def make_color_scale(values: np.ndarray) -> "ScalarMappable":
    """Make the colours of values, NaN = no data: they span them from their 2nd to their 98th percentile."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    valid = values[np.isfinite(values)]
    low, high = np.percentile(valid, _VALUE_PERCENTILES) if valid.size else (0.0, 1.0)
    return ScalarMappable(Normalize(low, high if high > low else low + 1), "viridis")


def paint_values(values: np.ndarray, scale: "ScalarMappable") -> np.ndarray:
    """Paint values (H, W), NaN = no data, as uint8 colours and opacity (H, W, 4)."""
    missing = np.isnan(values)
    painted = scale.to_rgba(np.where(missing, 0, values), bytes=True)
    painted[missing] = 0
    return painted


def measure_width(crs: CRS | str | None, transform: Affine | None, height: int, width: int) -> float | None:
    """Measure the width on the ground, in metres, of a grid in its middle; None where the CRS does not tell."""
    if crs is None or transform is None:
        return None
    a, b, c, d, e, f = transform[:6]
    columns, row = np.array([width / 2 - 0.5, width / 2 + 0.5]), height / 2  # the ends of one pixel
    xs, ys = a * columns + b * row + c, d * columns + e * row + f
    try:
        longitudes, latitudes = find_degrees(crs, xs, ys, "scale bar")
    except ValueError:
        return None
    # On a sphere, which is right to half a percent, whatever the units and the distortion of the CRS.
    east = math.radians(math.remainder(longitudes[1] - longitudes[0], 360))  # also across 180 degrees
    north = math.radians(latitudes[1] - latitudes[0])
    metres = width * _EARTH_RADIUS * math.hypot(east * math.cos(math.radians(latitudes[0])), north)
    return metres if math.isfinite(metres) and metres > 0 else None
