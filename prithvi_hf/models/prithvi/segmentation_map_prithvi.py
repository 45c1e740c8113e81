# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The way of one scene in memory from its frames to its map: open, prepare, predict, assemble.

The pipeline and the sample pictures of a model card go this way. This file travels to the Hub beside the pipeline, so
it works on arrays by itself and reaches for GeoTIFF reading and writing only where prithvi_hf is installed.
"""

import datetime
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedModel

from .bands_prithvi import find_band_names
from .configuration_prithvi import PrithviConfig, name_counts
from .image_processing_prithvi import PrithviImageProcessor
from .inference_dtype_prithvi import Sample, count_tiles_to_compare, spread_places
from .pixel_values_prithvi import GRID_TOLERANCE, Raster, as_frames, missing_package
from .sliding_window_prithvi import evaluation_mode, list_windows, sliding_window_logits, window_and_stride


NODATA_CLASS = 255
"""Value of pixels without data in a mask; classes are 0 to 254."""

# Bands that a picture shows as red, green and blue: natural colours, or else the usual false ones.
_COLOR_CHOICES = (
    ("RED", "GREEN", "BLUE"),
    *(("NIR", "RED", "GREEN"), ("NIR_NARROW", "RED", "GREEN")),
    *(("SWIR_2", "NIR_NARROW", "RED"), ("SWIR_1", "NIR_NARROW", "RED"), ("SWIR_2", "SWIR_1", "NIR_NARROW")),
)
_PICTURE_SIDE = 1536  # pixels
_COLOR_PERCENTILES = (2.0, 98.0)
_GAMMAS = (0.4, 0.7)  # lift dark land, which clouds would otherwise push into black
_MIDDLE = 0.42  # brightness of half the pixels, if one of these gammas can give it

Affine = Any  # affine.Affine, of a package that this file may not name
Frame = Raster | np.ndarray | torch.Tensor
FrameSource = Frame | str | os.PathLike | bytes | Any
"""One frame as a caller gives it, or several dates in one object: see `as_frames`; arrays are (C, H, W) or
(C, T, H, W)."""


@dataclass(eq=False, repr=False)
class SegmentationMap:
    """The classes of one scene, with its place on Earth.

    Attributes:
        mask: (H, W) uint8 class indices, 255 = no data.
        crs: The scene's CRS as rasterio reads it; None for a bare array.
        transform: Affine transform from pixel to CRS coordinates; None for a bare array.
        id2label: Class index to name.
        class_colors: `"#rrggbb"` per class, or None for default colours.
        probabilities: (num_labels, H, W) float32, NaN = no data; None where they were not asked for.
        rgb: (H / s, W / s, 4) uint8 picture of the scene's last date, as `stretch_colors` makes it (red, green, blue,
            opacity), thinned by a whole step s where the scene is large; None where there is none.
        rgb_title: What it shows, as `title_picture` says it.
        input_check: How far each band is from the training, as `check_input` says it; None where nothing tells.
    """

    mask: np.ndarray
    crs: object | None = None
    transform: Affine | None = None
    id2label: Mapping[int, str] = field(default_factory=dict)
    class_colors: Sequence[str] | None = None
    probabilities: np.ndarray | None = None
    rgb: np.ndarray | None = None
    rgb_title: str = "scene"
    input_check: Mapping[str, Mapping[str, float]] | None = None

    def __post_init__(self) -> None:
        if not self.id2label:
            used = self.mask[self.mask != NODATA_CLASS]
            self.id2label = {index: f"LABEL_{index}" for index in range(int(used.max(initial=0)) + 1)}

    def __repr__(self) -> str:
        height, width = self.mask.shape
        crs = self.crs.to_string() if hasattr(self.crs, "to_string") else self.crs
        return f"SegmentationMap({height} x {width} pixels, crs={crs}, classes={list(self.id2label.values())})"

    def class_counts(self) -> dict[str, int]:
        """Count the pixels of each class by its name, in class order, and last those of "no data".

        Names that several classes share, or that are "no data", are followed by the index of the class: "crop (3)".
        """
        return name_counts(np.bincount(self.mask.ravel(), minlength=NODATA_CLASS + 1), self.id2label)

    def to_geotiff(
        self,
        path: str | os.PathLike,
        *,
        nodata: int = NODATA_CLASS,
        class_values: Mapping[int, int] | None = None,
    ) -> None:
        """Write the classes as a Cloud-Optimized GeoTIFF with class names and a colour table.

        A map without a CRS, of a bare array, warns: nothing in the file says where it is.

        Args:
            path: The file to write; an existing one is replaced, and only by a complete one.
            nodata: File value of pixels without data, 0 to 255.
            class_values: Class index to file value, 0 to 255, where the two differ.

        Raises:
            ImportError: If prithvi_hf is not installed.
            ValueError: If the folder does not exist, or file values collide or leave their range.
        """
        try:
            from prithvi_hf.outputs.cog import write_class_map
        except ImportError as error:
            raise missing_package("Writing a GeoTIFF", "take `.mask`, `.crs` and `.transform`") from error
        warn_without_place(path, self.crs, self.transform)
        write_class_map(
            path,
            self.mask,
            id2label=self.id2label,
            crs=self.crs,
            transform=self.transform,
            class_colors=self.class_colors,
            nodata=nodata,
            class_values=class_values,
        )

    def probabilities_to_geotiff(self, path: str | os.PathLike, *, dtype: str = "float32") -> None:
        """Write the probabilities as a Cloud-Optimized GeoTIFF with one band per class.

        Args:
            path: The file to write; an existing one is replaced, and only by a complete one.
            dtype: "float32" (no data NaN) or "uint8" (0 to 254 with scale 1/254 in the file, no data 255).

        Raises:
            ImportError: If prithvi_hf is not installed.
            ValueError: If the map holds no probabilities, the folder does not exist or `dtype` is another.
        """
        pixels = self._take_probabilities()
        try:
            from prithvi_hf.outputs.cog import write_probabilities
        except ImportError as error:
            raise missing_package("Writing a GeoTIFF", "take `.probabilities`, `.crs` and `.transform`") from error
        write_probabilities(path, pixels, id2label=self.id2label, crs=self.crs, transform=self.transform, dtype=dtype)

    def to_xarray(self, *, probabilities: bool = False) -> Any:
        """Give the map as an `xarray.DataArray` that rioxarray reads.

        Args:
            probabilities: False for the classes (y, x), uint8 with 255 for no data; True for the probabilities
                (class, y, x).

        Raises:
            ImportError: If xarray or prithvi_hf is not installed.
            ValueError: If the map holds no probabilities.
        """
        pixels = self._take_probabilities() if probabilities else self.mask
        try:
            from prithvi_hf.outputs.objects import make_data_array
        except ImportError as error:
            raise missing_package("Making a DataArray", "take `.mask`, `.crs` and `.transform`") from error
        return make_data_array(pixels, self.id2label, cast(Any, self.crs), self.transform)

    def to_polygons(self, *, polygon_classes: Sequence[int | str] | None = None, min_area: float = 0.0) -> Any:
        """Give the regions of each class as a `geopandas.GeoDataFrame` in the CRS of the map.

        Pixels that share an edge and a class make one region. Columns are `class_value`, `class_name`, `area_m2` (on
        the WGS 84 ellipsoid, holes left out), `geometry` and, where the map holds probabilities, `mean_probability`.

        Args:
            polygon_classes: Names or indices of the classes; None for all.
            min_area: Square metres on the ground; smaller regions are left out.

        Raises:
            ImportError: If prithvi_hf or a package of its extra `vector` is not installed.
            ValueError: If the map has no CRS, or not these classes.
        """
        try:
            from prithvi_hf.outputs.cog import write_class_map
            from prithvi_hf.outputs.objects import make_geodataframe
        except ImportError as error:
            raise missing_package("Making polygons", "take `.mask`, `.crs` and `.transform`") from error
        with tempfile.TemporaryDirectory() as folder:
            path, probabilities = Path(folder) / "map.tif", None
            place = {"id2label": self.id2label, "crs": cast(Any, self.crs), "transform": self.transform}
            write_class_map(path, self.mask, **place)
            if self.probabilities is not None:
                probabilities = Path(folder) / "probabilities.tif"
                self.probabilities_to_geotiff(probabilities)
            return make_geodataframe(
                path,
                self.id2label,
                place["crs"],
                probabilities=probabilities,
                classes=polygon_classes,
                min_area=min_area,
            )

    def _take_probabilities(self) -> np.ndarray:
        """Give the probabilities, or say how to get them."""
        if self.probabilities is None:
            raise ValueError("This map holds no probabilities: ask for them with `probabilities=True`.")
        return self.probabilities

    def to_png(self, path: str | os.PathLike) -> None:
        """Draw the map with a legend, beside a picture of the scene, in natural colours if its bands have them.

        Args:
            path: The PNG to write; an existing one is replaced.

        Raises:
            ImportError: If prithvi_hf is not installed.
            ValueError: If the folder does not exist.
        """
        try:
            from prithvi_hf.outputs.quicklook import write_quicklook
        except ImportError as error:
            raise missing_package("Drawing a quick look", "draw `.mask` with `.class_colors`") from error
        write_quicklook(
            path,
            self.mask,
            id2label=self.id2label,
            class_colors=self.class_colors,
            rgb=self.rgb,
            rgb_title=self.rgb_title,
            crs=self.crs,
            transform=self.transform,
        )


def warn_without_place(path: str | os.PathLike, crs: object | None, transform: Affine | None) -> None:
    """Warn of a map whose file will not say where it is."""
    if crs is None or transform is None:
        warnings.warn(
            f"{os.fspath(path)}: expected a map with a CRS and a transform, found one without, which no other program "
            "can place. Give crs= and transform= to the pipeline with an array, or set them on the map.",
            stacklevel=3,
        )


@dataclass(eq=False)
class PreparedScene:
    """A scene as the model takes it, with what its map needs besides; no dictionary, see the pipeline's steps."""

    pixel_values: torch.Tensor  # (1, C, T, H, W) float32, in host memory
    nodata_mask: np.ndarray  # (H, W) bool, True = no data
    crs: object | None = None
    transform: Affine | None = None
    rgb: np.ndarray | None = None
    rgb_title: str = "scene"
    # Of a model that takes them: `temporal_coords` (1, T, 2), and `location_coords` (1, 2) of its centre
    coordinates: dict[str, torch.Tensor] = field(default_factory=dict)
    input_check: Mapping[str, Mapping[str, float]] | None = None  # see `check_input`

    def find_place(self, window: tuple[int, int, int, int]) -> tuple[float, float]:
        """Find latitude and longitude of the middle of a window, of a scene that has a CRS."""
        try:
            from prithvi_hf.rasters.raster import find_center
        except ImportError as error:
            raise missing_package("Finding a place by its CRS", "pass arrays, and `location`") from error
        return cast(Any, find_center(cast(Any, self.crs), cast(Any, self.transform), window, "the scene"))


def open_frames(scene: FrameSource | Sequence[FrameSource]) -> tuple[Frame, ...]:
    """Open the frames of one scene, given in time order, and check that they are on one grid; no pixel is read."""
    frames: list[Frame] = []
    for source in scene if isinstance(scene, tuple | list) else (scene,):
        frames += as_frames(source)
    if not frames:
        raise ValueError("A scene has at least one frame, found none.")
    for position, frame in enumerate(frames, start=1):
        if irregular := getattr(frame, "irregular", None):  # the map would lose the place
            raise ValueError(
                f"Expected {getattr(frame, 'name', 'a frame')} to be on a regular grid, found {irregular}"
            )
        _check_same_grid(frames[0], frame, position)
    return tuple(frames)


def _check_same_grid(first: Frame, other: Frame, position: int) -> None:
    """Refuse a frame that is elsewhere than the first; arrays are compared by size only."""
    rows, columns = first.shape[-2:]
    name = getattr(other, "name", None)
    title = f"Frame {position}" if name is None else f"Frame {position} ({name})"
    if tuple(other.shape[-2:]) != (rows, columns):
        raise ValueError(
            f"{title} has {other.shape[-2]} x {other.shape[-1]} pixels, the first {rows} x {columns}: bring all "
            "frames to one grid."
        )
    transform, other_transform = getattr(first, "transform", None), getattr(other, "transform", None)
    if transform is None or other_transform is None:
        return
    try:
        from prithvi_hf.rasters.raster import measure_shift, name_crs_pair
    except ImportError as error:
        raise missing_package("Comparing the places of frames", "pass arrays") from error
    crs, other_crs = getattr(first, "crs", None), getattr(other, "crs", None)
    shift = measure_shift((crs, transform), (other_crs, other_transform), (rows, columns))
    if shift == float("inf"):
        expected, found = name_crs_pair(crs, other_crs)
        raise ValueError(f"{title} is in {found}, the first in {expected}: bring all frames to one CRS.")
    if shift > GRID_TOLERANCE:
        raise ValueError(
            f"{title} is up to {shift:.2f} pixels beside the first (transforms {tuple(other_transform)[:6]} and "
            f"{tuple(transform)[:6]}): bring all frames to one grid."
        )


def in_model_units(
    image_processor: PrithviImageProcessor, frames: Sequence[Frame], scale: str = "auto"
) -> tuple[Frame, ...]:
    """Bring frames of files, not arrays, into the units that the model takes, see `rasters.opening.FrameOptions`."""
    if not any(hasattr(frame, "scales") for frame in frames):
        return tuple(frames)
    try:
        from prithvi_hf.rasters.opening import FrameOptions, open_whole
    except ImportError as error:
        raise missing_package("Reading a GeoTIFF", "pass arrays of shape (bands, height, width)") from error
    options = FrameOptions(scale=cast(Any, scale))
    return tuple(
        open_whole(cast(Any, frame), image_processor, options) if hasattr(frame, "scales") else frame
        for frame in frames
    )


def prepare_scene(
    image_processor: PrithviImageProcessor,
    frames: Sequence[Frame],
    coords_encoding: Sequence[str] = (),
    dates: Any = None,
) -> PreparedScene:
    """Read the bands that the model uses and apply its preprocessing, once.

    Of a model that takes dates and places `coords_encoding` is needed, and `dates` where they are known.
    """
    inputs = image_processor.preprocess(
        [frames[0] if len(frames) == 1 else tuple(frames)],
        return_nodata_mask=True,
        return_tensors="pt",
    )
    nodata_mask = np.asarray(inputs["nodata_mask"][0], dtype=bool)
    scene = PreparedScene(
        pixel_values=inputs["pixel_values"],
        nodata_mask=nodata_mask,
        crs=getattr(frames[0], "crs", None),
        transform=getattr(frames[0], "transform", None),
        rgb=draw_scene(image_processor, inputs["pixel_values"][0], nodata_mask),
        rgb_title=title_picture(image_processor.bands, image_processor.num_frames, getattr(frames[-1], "date", None)),
    )
    if coords_encoding:
        take_coordinates(scene, image_processor, coords_encoding, dates)
    return scene


def take_coordinates(
    scene: PreparedScene,
    image_processor: PrithviImageProcessor,
    coords_encoding: Sequence[str],
    dates: Any = None,
    location: Sequence[float] | None = None,
) -> None:
    """Give a scene what a model encodes of its date and place, NaN where that is not known.

    `dates` are those of its frames; `location`, latitude and longitude, is for scenes without CRS.
    """
    if scene.crs is not None and location is not None:
        raise ValueError(
            f"Expected location with a scene without CRS only, found it beside {scene.crs}, which tells the place. "
            "Leave it out."
        )
    if scene.crs is not None and "location" in coords_encoding:
        location = scene.find_place((0, 0, *scene.pixel_values.shape[-2:]))
    found = image_processor.encode_coordinates(
        ([None] * image_processor.num_frames if dates is None else dates) if "time" in coords_encoding else None,
        (location or (None, None)) if "location" in coords_encoding else None,
    )
    scene.coordinates = {name: torch.from_numpy(values) for name, values in found.items()}


def predict_scene_logits(
    model: PreTrainedModel,
    scene: PreparedScene,
    *,
    window: int | Sequence[int] | None = None,
    overlap: float = 0.5,
    batch_size: int = 8,
) -> torch.Tensor:
    """Slide the model over the scene: (num_labels, H, W) float32 logits, finite on valid pixels."""
    size, stride = window_and_stride(cast(PrithviConfig, model.config), window, overlap)
    coordinates = scene.coordinates
    if "location_coords" in coordinates and scene.crs is not None:  # of the middle of each tile
        places = [scene.find_place(tile) for tile in list_windows(scene.pixel_values.shape[-2:], size, stride)]
        coordinates = {**coordinates, "location_coords": torch.tensor([places], dtype=torch.float32)}
    with evaluation_mode(model), torch.inference_mode():
        logits = sliding_window_logits(model, scene.pixel_values, size, stride, batch_size, coordinates)[0]
    broken = ~torch.isfinite(logits).all(dim=0).cpu().numpy() & ~scene.nodata_mask
    if broken.any():
        raise ValueError(
            f"The model gives values that are not finite at {int(broken.sum())} pixels with data: "
            "check its weights, and the dtype it runs in (float32 or bfloat16 instead of float16)."
        )
    return logits


def sample_windows(
    config: PrithviConfig, scene: PreparedScene, window: int | Sequence[int] | None, overlap: float
) -> tuple[Iterator[Sample], int]:
    """Cut tiles from all over a scene, to compare dtypes on, and say how many of them are to be compared."""
    (height, width), stride = window_and_stride(config, window, overlap)
    tiles = list_windows(scene.nodata_mask.shape, (height, width), stride)
    tops, lefts = (sorted({tile[axis] for tile in tiles}) for axis in (0, 1))
    places = ((..., slice(top, top + height), slice(left, left + width)) for top, left in spread_places(tops, lefts))
    valid = torch.from_numpy(~scene.nodata_mask)[None]
    samples = (({"pixel_values": scene.pixel_values[place], **scene.coordinates}, valid[place]) for place in places)
    return samples, count_tiles_to_compare(len(tiles))


def assemble_map(
    config: PrithviConfig, logits: torch.Tensor, scene: PreparedScene, probabilities: bool = False
) -> SegmentationMap:
    """Turn logits (num_labels, H, W) into the scene's map: the most probable class of each pixel."""
    if len(logits) > NODATA_CLASS:
        raise ValueError(f"A map of uint8 classes holds at most {NODATA_CLASS} of them, the model has {len(logits)}.")
    mask = logits.argmax(dim=0).to(torch.uint8).cpu().numpy()
    mask[scene.nodata_mask] = NODATA_CLASS
    values = None
    if probabilities:
        values = (logits.float() / config.temperature).softmax(dim=0).cpu().numpy()
        values[:, scene.nodata_mask] = np.nan
    return SegmentationMap(
        mask=mask,
        crs=scene.crs,
        transform=scene.transform,
        id2label=dict(cast(dict[int, str], config.id2label)),
        class_colors=getattr(config, "class_colors", None),
        probabilities=values,
        rgb=scene.rgb,
        rgb_title=scene.rgb_title,
        input_check=scene.input_check,
    )


def choose_color_bands(bands: Sequence[str]) -> tuple[list[int], bool]:
    """Choose the three bands that a picture shows as red, green and blue, and say whether its colours are natural.

    They are false colours where one of red, green and blue is missing, and the first bands where the near or
    short-wave infrared is missing too.
    """
    for wanted in _COLOR_CHOICES:
        found = [index for index in find_band_names(wanted, bands) if index is not None]
        if len(found) == len(wanted):
            return found, wanted == _COLOR_CHOICES[0]
    return [min(channel, len(bands) - 1) for channel in range(3)], False


def title_picture(bands: Sequence[str], num_frames: int = 1, date: datetime.datetime | None = None) -> str:
    """Say what a picture of a scene shows: which of several dates, and which bands where its colours are false."""
    colors, is_natural = choose_color_bands(bands)
    title = "scene" if date is None else f"scene, {date:%Y-%m-%d}"
    title += f", date {num_frames} of {num_frames}" if num_frames > 1 else ""
    shown = ", ".join(bands[index] for index in dict.fromkeys(colors))
    return title if is_natural else f"{title}\n{shown} in false colours"


def stretch_colors(values: np.ndarray, valid: np.ndarray, is_natural: bool = True) -> np.ndarray:
    """Make a picture of three bands: each from its own dark level, in natural colours over one span for all three.

    Red, green and blue (3, H, W), in one unit if `is_natural`, valid where (H, W) is True, become uint8 red, green,
    blue and opacity (H, W, 4). Bands start at their 2nd percentiles; the span is the largest from there to a 98th
    percentile, clouds and snow left out, or each band's own where colours are false. A gamma from 0.4 to 0.7 brightens
    it, the smaller the darker half of the pixels are. Opacity is 255; all is zero where there is no data.
    """
    picture = np.zeros((*valid.shape, 4), dtype=np.uint8)
    if valid.any():
        colors = values[:, valid]  # (3, N)
        # Haze adds an amount of its own to every pixel of a band, most to blue: without the dark levels, pictures of
        # top-of-atmosphere reflectance are cyan. With a span for each band, a scene of water would be red.
        # A band that is 0 is missing there, as along the edge of a swath, and says nothing about its dark level.
        is_gap = np.isclose(colors, 0, rtol=0, atol=1e-4 * np.median(np.abs(colors))).any(axis=0)
        measured = colors if is_gap.all() else colors[:, ~is_gap]
        low, high = np.percentile(measured, _COLOR_PERCENTILES, axis=1)
        # Clouds and snow may saturate, or land would be dark beside them.
        lifted = measured - low[:, None]
        brightest = lifted.max(axis=0)
        is_white = (lifted.min(axis=0) > 0.75 * brightest) & (brightest > 3 * np.median(brightest))
        if is_natural and 0 < is_white.mean() < 0.5:
            high = np.percentile(measured[:, ~is_white], _COLOR_PERCENTILES[1], axis=1)
        span = (high - low).max() if is_natural else (high - low)[:, None]
        stretched = np.clip((colors - low[:, None]) / np.maximum(span, 1e-6), 0, 1)
        middle = float(np.clip(np.median(stretched.max(axis=0)), 1e-6, 1 - 1e-6))
        gamma = np.clip(math.log(_MIDDLE) / math.log(middle), *_GAMMAS)
        picture[valid, :3] = (stretched**gamma * 255).T
        picture[valid, 3] = 255
    return picture


def draw_scene(
    image_processor: PrithviImageProcessor, pixel_values: torch.Tensor, nodata_mask: np.ndarray
) -> np.ndarray:
    """Make a picture of the last frame from one image's pixel values (C, T, H, W), whose statistics are undone.

    It is uint8 (H / s, W / s, 4), see `choose_color_bands` and `stretch_colors`, with the smallest whole step s that
    keeps both sides within 1536 pixels.
    """
    colors, is_natural = choose_color_bands(image_processor.bands)
    step = -(-max(nodata_mask.shape) // _PICTURE_SIDE)
    last = image_processor.restore_frame_order(pixel_values)[:, -1, ::step, ::step]
    values = last[colors].float().cpu().numpy()  # (3, H / s, W / s)
    if image_processor.do_normalize:
        mean, std = (
            np.array(figures, np.float32)[colors, None, None]
            for figures in (image_processor.image_mean, image_processor.image_std)
        )
        values = values * std + mean
    return stretch_colors(values, ~nodata_mask[::step, ::step], is_natural)
