# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What the demo does with the files of a visitor, within limits: open the scene and map it."""

import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prithvi_hf.demo.pictures import MapFigures, measure_map
from prithvi_hf.demo.sessions import Session
from prithvi_hf.models.prithvi.input_shift_prithvi import find_far_bands
from prithvi_hf.models.prithvi.segmentation_map_prithvi import title_picture
from prithvi_hf.outputs.polygons import check_polygon_options
from prithvi_hf.rasters import TIFF_SUFFIXES
from prithvi_hf.rasters.opening import FrameOptions
from prithvi_hf.scenes.predict_scene import predict_scene
from prithvi_hf.scenes.predicted import PredictedScene
from prithvi_hf.scenes.scene import Scene, open_scene
from prithvi_hf.scenes.scene_picture import read_scene_picture


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
    from prithvi_hf.models.prithvi.modeling_prithvi import PrithviMapModel

MEGABYTE = 2**20
"""Bytes, as browsers count them."""

_BANDS_A_FRAME = 20  # files of one frame, where each holds one band


class StoppedError(Exception):
    """The visitor stopped the run or left."""


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for.

    Attributes:
        max_megabytes: Of one file.
        max_megapixels: Of a scene, in millions of pixels of its grid.
        max_seconds: Of one map.
    """

    max_megabytes: float = 500.0
    max_megapixels: float = 16.0
    max_seconds: float = 600.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < 1e9:
                raise ValueError(f"{name}: expected a number above 0, found {value:g}. Choose another limit.")


@dataclass(frozen=True)
class SceneView:
    """A scene as the page shows it.

    Attributes:
        scene: The scene.
        title: What its picture shows.
        picture: (h, w, 4) uint8.
        notes: What the reader should know.
    """

    scene: Scene
    title: str
    picture: np.ndarray
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class MapView:
    """A map as the page shows it.

    Attributes:
        view: The scene.
        figures: Pictures and figures of the map.
        files: What can be downloaded.
        seconds: How long it took.
        notes: What the reader should know.
    """

    view: SceneView
    figures: MapFigures
    files: list[Path]
    seconds: float
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Mapper:
    """A model that maps the scenes of visitors.

    Attributes:
        model: A model of classes.
        image_processor: Its image processor.
        limits: What one visitor may ask for.
        device: Where it runs.
        dtype: What it computes in, as in `predict_scene`.
    """

    model: "PrithviMapModel"
    image_processor: "PrithviImageProcessor"
    limits: Limits
    device: str = "cpu"
    dtype: str = "float32"

    def check_files(self, files: Sequence[Path]) -> None:
        """Refuse files that are not GeoTIFFs by their names, too many, or too large.

        Raises:
            ValueError: The message says what was expected and found.
        """
        most = _BANDS_A_FRAME * self.image_processor.num_frames
        if not files or len(files) > most:
            raise ValueError(
                f"Expected {describe_frames(self.image_processor.num_frames)}, found {len(files)} files. Choose the "
                "files of one scene."
            )
        for file in files:
            if file.suffix.lower() not in TIFF_SUFFIXES:
                raise ValueError(
                    f"{file.name}: expected a GeoTIFF, whose name ends in .tif or .tiff, found another file. Convert "
                    f"it first, for example `gdal_translate -of COG {file.name} scene.tif`."
                )
            megabytes = file.stat().st_size / MEGABYTE
            if megabytes > self.limits.max_megabytes:
                raise ValueError(
                    f"{file.name}: expected at most {self.limits.max_megabytes:g} MB in one file, found "
                    f"{megabytes:,.0f} MB. Cut out a smaller scene, for example with `gdal_translate -srcwin`, or map "
                    "it on your own machine with `prithvi-hf predict`."
                )

    def open(self, session: Session, reading: FrameOptions) -> Scene:
        """Open the scene of a session.

        Raises:
            ValueError: If none was chosen, or it is not a scene for this model, or too large.
        """
        if not session.frames:
            raise ValueError(
                f"Expected {describe_frames(self.image_processor.num_frames)}, found none. Upload files, or choose an "
                "example."
            )
        if session.dates is not None:
            reading = replace(reading, dates=session.dates)
        scene = open_scene(list(session.frames), self.image_processor, reading, name=session.name)
        height, width = scene.grid.size
        if height * width > self.limits.max_megapixels * 1e6:
            raise ValueError(
                f"{scene.name}: expected at most {self.limits.max_megapixels:g} million pixels, found {height:,} x "
                f"{width:,} = {height * width / 1e6:,.1f} million. Cut out a smaller scene, for example with "
                "`gdal_translate -srcwin`, or map it on your own machine with `prithvi-hf predict`."
            )
        return scene

    def view(self, session: Session, reading: FrameOptions) -> SceneView:
        """Open the scene of a session and read its picture."""
        scene = self.open(session, reading)
        processor = reading.adapt(self.image_processor)
        title = title_picture(processor.bands, processor.num_frames, scene.dates[-1] if scene.dates else None)
        picture, problem = read_scene_picture(scene, processor)
        return SceneView(scene, title.replace("\n", ": "), picture, [] if problem is None else [problem])

    def map(
        self, session: Session, reading: FrameOptions, on_progress: Callable[[int, int], object] = lambda *_: None
    ) -> MapView:
        """Map the scene of a session.

        Args:
            session: Whose scene was chosen.
            reading: How its files are read.
            on_progress: Called with the number of windows that are done and that of all.

        Raises:
            StoppedError: The visitor stopped the run or left; nothing is kept.
            TimeoutError: It took longer than the limit.
            ValueError: The scene cannot be mapped.
        """
        if session.stopped.is_set():  # while it waited
            raise StoppedError
        begin = time.monotonic()
        session.running += 1
        folder = session.make_folder("map")

        def tell(done: int, total: int) -> None:
            if session.stopped.is_set():
                raise StoppedError
            seconds = time.monotonic() - begin
            if seconds > self.limits.max_seconds and done < total:
                raise TimeoutError(
                    f"{session.name}: expected a map within {self.limits.max_seconds:g} seconds, found {done:,} of "
                    f"{total:,} windows done by then. Cut out a smaller scene, for example with `gdal_translate "
                    "-srcwin`, or map it on your own machine with `prithvi-hf predict`."
                )
            on_progress(done, total)

        try:
            view = self.view(session, reading)
            notes = list(view.notes)
            has_place = view.scene.grid.crs is not None
            if has_place:
                try:
                    check_polygon_options(view.scene.grid, {}, name=view.scene.name)
                except ValueError as error:
                    has_place = False
                    notes.append(f"There are no areas and no polygons. {error}")
            else:
                notes.append(
                    "The files do not say where they are (they have no CRS): there are no areas and no polygons."
                )
            options: dict[str, Any] = {"polygons": True} if has_place else {}
            result = predict_scene(
                self.model,
                reading.adapt(self.image_processor),
                view.scene,
                folder / f"{session.name}_map.tif",
                confidence=True,
                quicklook=True,
                probabilities_dtype="uint8",
                device=self.device,
                dtype=self.dtype,
                show_progress=False,
                on_progress=tell,
                **options,
            )
            if not isinstance(result, PredictedScene):
                raise TypeError("Expected a model of classes.")
            figures = measure_map(result, has_place)
            if far := find_far_bands(result.report.get("input_check", {})):
                notes.append(
                    f"The values of {', '.join(far)} are far from those that the model was trained with: check "
                    "order and units of the bands, or the map is worse than it seems."
                )
            outputs = result.outputs
            files = [outputs[one] for one in ("map", "polygons", "quicklook", "confidence") if one in outputs]
            return MapView(view, figures, files, time.monotonic() - begin, notes)
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            if session.stopped.is_set():  # files that are gone are no fault then
                raise StoppedError from None
            raise
        finally:
            session.running -= 1
            session.used = time.monotonic()
            if session.closed:
                shutil.rmtree(session.folder, ignore_errors=True)


def describe_frames(num_frames: int) -> str:
    """Say how many files a model takes."""
    if num_frames == 1:
        return "one GeoTIFF of all bands (or one for each band)"
    return f"{num_frames} GeoTIFFs, one for each date in time order"


def read_options(
    band_names: str = "",
    band_indices: str = "",
    scale: str = "auto",
    boa_add_offset: str = "",
    rescale_factor: str = "",
    rescale_offset: str = "",
) -> FrameOptions:
    """Read how files are opened from what a visitor typed.

    Raises:
        ValueError: If a text is not of the expected form.
    """
    options: dict[str, Any] = {"scale": scale or "auto"}
    names = [name for name in re.split(r"[\s,;]+", band_names or "") if name]
    if names:
        options["band_names"] = names
    for name, text, kind, example in (
        ("band_indices", band_indices, int, "whole numbers from 0, such as 1 2 3 8 11 12"),
        ("boa_add_offset", boa_add_offset, float, "a number, such as -1000 or 0"),
        ("rescale_factor", rescale_factor, float, "a number, such as 0.0001"),
        ("rescale_offset", rescale_offset, float, "a number, such as 0 or -0.2"),
    ):
        words = [word for word in re.split(r"[\s,;]+", text or "") if word]
        if not words:
            continue
        try:
            numbers = [kind(word) for word in words]
        except ValueError as error:
            raise ValueError(f"{name}: expected {example}, found {text!r}. Correct it, or leave it empty.") from error
        if kind is float and len(numbers) > 1:
            raise ValueError(f"{name}: expected {example}, found {len(numbers)}. Give one.")
        options[name] = numbers if kind is int else numbers[0]
    return FrameOptions(**options)
