# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Prediction of whole scenes, whatever their size: frames in, georeferenced files out.

Strips of the map are kept beside the output as soon as they are final. When all are there, a last pass turns them into
the files and gives those their names. A run that was interrupted goes on where it was.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from prithvi_hf.disk import check_writable_folder
from prithvi_hf.models.prithvi.segmentation_map_prithvi import stretch_colors
from prithvi_hf.models.prithvi.sliding_window_prithvi import check_window_options
from prithvi_hf.outputs.assemble import (
    Canvas,
    Layer,
    Tally,
    check_free_space,
    class_layer,
    confidence_layer,
    entropy_layer,
    file_system,
    probability_layer,
    publish,
    small_cache,
    space_needed,
    write_layer,
    write_plain_layer,
)
from prithvi_hf.outputs.cog import (
    NODATA_CLASS,
    check_output_path,
    check_probability_dtype,
    file_values,
)
from prithvi_hf.outputs.products import ProductOptions, check_class_count
from prithvi_hf.outputs.quicklook import thumbnail_step
from prithvi_hf.outputs.staging import Staging, as_text, published_outputs
from prithvi_hf.scenes.engine import predict_strips
from prithvi_hf.scenes.predicted import PredictedScene, named_counts
from prithvi_hf.scenes.scene import Scene, open_scene
from prithvi_hf.scenes.sink import (
    StripSink,
    read_bad_windows,
    read_frame_shares,
    read_thumbnail,
)
from prithvi_hf.scenes.tiles import TilePlan


_FORMAT = 1
_PASSING = ("_name_or_path", "transformers_version")  # of a configuration: where it came from, not what it does


def run_plan(
    model: torch.nn.Module, image_processor: Any, fingerprint: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Describe a run.

    Batch size, device and number of processes are no part of it: they may change between the parts of a run that was
    interrupted, for example after the device ran out of memory. Pixels then differ at most by rounding.

    Args:
        model: The model.
        image_processor: Its image processor.
        fingerprint: Of the scene's files and options.
        options: Whatever else decides the content of strips.

    Returns:
        JSON-like dictionary; equal ones belong to runs that make the same strips.
    """
    config = {name: value for name, value in model.config.to_dict().items() if name not in _PASSING}
    return {
        "format": _FORMAT,
        "versions": {name: version(name) for name in ("prithvi_hf", "torch")},
        "scene": dict(fingerprint),
        "model": weights_digest(model),
        "config": json.loads(json.dumps(config, default=str)),
        "processor": json.loads(json.dumps(image_processor.to_dict(), default=str)),
        "options": dict(options),
    }


def weights_digest(model: torch.nn.Module) -> str:
    """Digest the weights, buffers included.

    Args:
        model: The model, on any device.

    Returns:
        SHA-256 over names, types, shapes and bytes of all tensors, as hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():  # tensors one at a time: a model may fill the memory of its device
            content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(memoryview(content.numpy()))
    return digest.hexdigest()


_TIFF = (".tif", ".tiff")
_SUFFIXES = {"map": _TIFF, "probabilities": _TIFF, "entropy": _TIFF, "quick look": (".png",), "report": (".json",)}
_LARGE_OUTPUTS = ("map", "probabilities", "entropy", "confidence")
_SMALL_OUTPUT = 2**20  # bytes that are asked for where the size of an output cannot be known beforehand


def predict_scene(
    model: torch.nn.Module,
    image_processor: Any,
    frames: Any,
    output: str | os.PathLike,
    *,
    batch_size: int = 8,
    overlap: float = 0.5,
    window: int | Sequence[int] | None = None,
    blending: str = "uniform",
    tta: str = "none",
    probabilities: str | os.PathLike | bool | None = None,
    probabilities_dtype: str = "float32",
    entropy: str | os.PathLike | bool | None = None,
    polygons: str | os.PathLike | bool | None = None,
    polygon_options: Mapping[str, Any] | None = None,
    quicklook: str | os.PathLike | bool | None = None,
    report: str | os.PathLike | bool | None = None,
    notes: Mapping[str, Any] | None = None,
    class_values: Mapping[int, int] | None = None,
    device: str | torch.device | None = None,
    overwrite: bool = True,
    on_read_error: str = "raise",
    resume: bool = True,
    show_progress: bool = True,
    process_index: int = 0,
    num_processes: int = 1,
    barrier: Callable[[], None] | None = None,
    **scene_options: Any,
) -> PredictedScene:
    """Map a scene and write the map, in memory that grows with the scene's width only.

    Outputs get their names together, when all of them are complete, the map last. Until then, finished parts are in
    the hidden folder `.NAME.partial` beside the output; the same call continues there after an interruption, and the
    result is the same to the byte. Where existing outputs are replaced, the old map goes before the first of the
    others is replaced, so that a map never stands beside outputs that are not its own. Two runs of one output
    at a time are refused.

    Args:
        model: A `PrithviForSemanticSegmentation`; in evaluation mode meanwhile, and as it was afterwards.
        image_processor: Its `PrithviImageProcessor`.
        frames: What `open_scene` takes: one GeoTIFF, or those of all dates in time order, and more; or a `Scene`.
        output: The Cloud-Optimized GeoTIFF of classes to write.
        batch_size: Windows in one forward pass, at least 1; memory of the device grows with it.
        overlap: Share of a window that the next one covers again, 0 <= overlap < 1.
        window: Side of the windows in pixels, or (height, width); None is the model's `image_size`.
        blending: Weights of overlapping windows: "uniform", "cosine" or "gaussian".
        tta: "none", or "d4" for the mean over the window turned and mirrored, at eight times the cost.
        probabilities: A GeoTIFF of class probabilities to write as well; None or False for none.
        probabilities_dtype: "float32", or "uint8" for a quarter of the size; holds for the entropy too.
        entropy: A GeoTIFF of the probabilities' entropy to write as well, as a share of the largest possible one,
            ln(num_labels): 0 where one class is certain, 1 where all are equally probable; None or False for none.
        polygons: A GeoPackage (.gpkg) or GeoParquet (.parquet) of the regions of each class to write as well, or None.
        polygon_options: `classes` and `min_area` of `write_polygons`, where not all regions are wanted.
        quicklook: A PNG of scene and map to write as well, or None.
        report: A JSON file of the report to write as well, or None.
        notes: Entries that the report gets as well, for JSON.
        class_values: Class index to file value, 0 to 254, where the two differ.
        device: Where to run, for example "cuda" or "cpu"; the model is moved there and stays. None is where it is.
        overwrite: Whether existing outputs may be replaced.
        on_read_error: "raise", or "nodata" to map blocks that cannot be read as no data and list them in the report.
        resume: Whether finished parts of an interrupted run are used; False begins anew.
        show_progress: Whether to show a progress bar over the windows.
        process_index: Number of this process, from 0, where several make one map.
        num_processes: How many make this map, each a part of it; the first one writes the outputs.
        barrier: Waits until all of these processes have called it. Each calls it as often as the others once it has
            accepted its arguments, also after an error; it may raise where it learns that another did not.
        scene_options: Options of `open_scene`.

    Returns:
        The map that was written, with a report: "scene", "files", "outputs", "height", "width", "crs", "options",
        "class_pixels", "nodata_share", "frame_nodata_shares" (one a date), "bad_windows", "bytes" (of each output but
        the report), "strips" ("total", "resumed", "computed") and "seconds" ("reading" in its own thread, "model",
        "waiting" of the model for the reader, "writing" in its own thread, "finishing", "total"). In processes other
        than the first the result says nothing of the last pass.

    Raises:
        ValueError: If an argument leaves its range, an output cannot be written or is an input, a frame is no GeoTIFF,
            frames do not fit together, or the processor refuses them. Nothing is written then.
        BusyOutputError: If another run writes the same output.
        OSError: If a folder takes no files or has too little room, which is noticed before the work begins; or if
            reading or writing fails or the disk is full: then no incomplete file gets the name of an output, and
            finished parts are kept for the next run.
    """
    outputs = {
        "probabilities": probabilities,
        "entropy": entropy,
        "polygons": polygons,
        "quick look": quicklook,
        "report": report,
        "map": output,
    }
    check_window_options(window, overlap, batch_size)
    check_outputs(outputs, _paths(frames), overwrite)
    check_probability_dtype(probabilities_dtype)
    file_values(model.config.id2label, class_values)
    check_class_count(len(model.config.id2label))
    scene = _opened(frames, image_processor, scene_options, on_read_error)
    _check_names(outputs, scene.files, overwrite)
    polygon_options = {"class_names": _names_in_file(model.config.id2label, class_values), **(polygon_options or {})}
    _check_polygons(polygons, scene, polygon_options)
    if num_processes > 1 and barrier is None:
        raise ValueError(f"Expected a barrier for a run of {num_processes} processes, found none: pass `barrier`.")
    plan = TilePlan.for_model(model.config, scene.grid.height, scene.grid.width, _window(window), overlap)
    job = _Job(
        model=model,
        image_processor=image_processor,
        scene=scene,
        plan=plan,
        products=ProductOptions(bool(probabilities), bool(entropy), bool(polygons), probabilities_dtype),
        outputs={purpose: Path(path) for purpose, path in outputs.items() if path},
        class_values=class_values,
        polygon_options=polygon_options,
        strip_options={"blending": blending, "tta": tta, "on_read_error": on_read_error, "thumbnail": bool(quicklook)},
        run_options={"batch_size": batch_size, "device": device},
        overwrite=overwrite,
        notes=dict(notes or {}),
        show_progress=show_progress,
        group={"process_index": process_index, "num_processes": num_processes},
        barrier=(lambda: None) if num_processes == 1 else barrier,
    )
    return job.run(resume)


def check_outputs(outputs: Mapping[str, Any], inputs: Sequence[Any], overwrite: bool) -> None:
    """Refuse outputs that cannot or must not be written, or that would replace each other.

    Args:
        outputs: What a file is, to its path; None and False are passed over.
        inputs: Paths of the frames.
        overwrite: Whether existing files may be replaced; those that an interrupted run of the same map has written
            may always be.

    Raises:
        ValueError: If one is refused; the message names it.
        OSError: If a folder takes no files.
    """
    _check_names(outputs, inputs, overwrite)
    for purpose, path in outputs.items():
        if path:
            check_writable_folder(Path(path).parent, f"the folder of the {purpose}")


def _check_names(outputs: Mapping[str, Any], inputs: Sequence[Any], overwrite: bool) -> None:
    """Refuse names of outputs, as `check_outputs`."""
    seen: dict[str, str] = {}
    own = published_outputs(outputs["map"]) if outputs.get("map") not in (None, True, False) else []
    for purpose, path in outputs.items():
        if not path:
            continue
        if path is True:
            raise ValueError(f"Expected a path for the {purpose}, found True: name the file to write.")
        resolved = os.path.realpath(path)
        check_output_path(path, inputs, overwrite or resolved in own, purpose)
        _check_suffix(purpose, path)
        if resolved in seen:
            raise ValueError(f"The {purpose} and the {seen[resolved]} are the same file {path}: name two files.")
        seen[resolved] = purpose


def _check_suffix(purpose: str, path: str | os.PathLike) -> None:
    """Refuse a name that says that the file is something else than it will be."""
    suffixes = _SUFFIXES.get(purpose)
    if suffixes and Path(path).suffix.lower() not in suffixes:
        raise ValueError(
            f"Expected a name that ends in {' or '.join(suffixes)} for the {purpose}, found {Path(path).name}: no "
            "other format is written, name the file so."
        )


@dataclass
class _Job:
    """One call of `predict_scene`."""

    model: torch.nn.Module
    image_processor: Any
    scene: Scene
    plan: TilePlan
    products: ProductOptions
    outputs: dict[str, Path]
    class_values: Mapping[int, int] | None
    polygon_options: dict[str, Any]
    strip_options: dict[str, Any]
    run_options: dict[str, Any]
    overwrite: bool
    notes: dict[str, Any]
    show_progress: bool
    group: dict[str, int]
    barrier: Callable[[], None]
    seconds: dict[str, float] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    begin: float = field(default_factory=time.perf_counter)

    def run(self, resume: bool) -> PredictedScene:
        """Make what is missing of the map, then the outputs."""
        plan = run_plan(self.model, self.image_processor, self.fingerprint, self._strip_plan())
        staging = Staging(self.outputs["map"], plan, self.plan.num_strips, resume=resume, **self.group)
        with closing(staging), _telling_what_is_kept(staging):
            self._together(
                staging.prepare, staging.join, lambda: self._compute(staging), lambda: self._finish(staging)
            )
        self.seconds.setdefault("total", time.perf_counter() - self.begin)
        return self._result()

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Of the scene when the run began."""
        return self.scene.fingerprint()

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """The GeoTIFF files by what they are, the map first."""
        names, dtype = self.model.config.id2label, self.products.dtype
        layers = {"map": class_layer(names, getattr(self.model.config, "class_colors", None), self.class_values)}
        if self.products.probabilities:
            layers["probabilities"] = probability_layer(names, dtype)
        if self.products.entropy:
            layers["entropy"] = entropy_layer(dtype)
        if self.products.confidence:
            layers["confidence"] = confidence_layer()
        return layers

    def _strip_plan(self) -> dict[str, Any]:
        """What besides scene, model and processor decides the content of strips."""
        tiles = {"window": list(self.plan.window), "stride": list(self.plan.stride)}
        return {**tiles, **self.strip_options, **self.products.to_dict()}

    def _together(self, *steps: Callable[[], None]) -> None:
        """Run steps, each begun when all processes are done with the one before.

        After an error a process goes on to meet the others at the barriers: they would wait for ever.
        """
        failure: Exception | None = None
        for step in steps:
            if failure is None:
                try:
                    step()
                except Exception as error:
                    failure = error
            self.barrier()
        if failure is not None:
            raise failure

    def _compute(self, staging: Staging) -> None:
        """Predict this process's share of the strips that are missing, and keep them."""
        self.report["strips"] = {"total": staging.count, "resumed": staging.resumed}
        if self.group["process_index"] == 0:
            self._check_space(staging)
        ranges = _consecutive(staging.share())
        tiles = sum(self.plan.count_tiles(strips) for strips in ranges)
        with StripSink(staging, self.products) as sink, _progress_bar(self.show_progress, tiles) as on_windows:
            for strips in ranges:
                self._predict(strips, sink, on_windows)
        self.seconds["writing"] = sink.seconds
        self.report["strips"]["computed"] = sink.count

    def _predict(self, strips: range, sink: StripSink, on_windows: Callable[[int], None] | None) -> None:
        """Predict consecutive strips."""
        options = {**self.run_options, **self.strip_options}
        arguments = (self.model, self.image_processor, self.scene, self.plan, strips)
        for strip in predict_strips(*arguments, on_windows=on_windows, **options):
            for name, seconds in strip.seconds.items():
                self.seconds[name] = self.seconds.get(name, 0.0) + seconds
            sink.put(strip)
            del strip  # it is large, and would stay in memory until the next one is made

    def _check_space(self, staging: Staging) -> None:
        """Refuse to begin what finds no room, on each of the file systems that get something."""
        rows = sum(stop - start for start, stop in map(self.plan.strip, staging.remaining()))
        strips = rows * self.plan.width * self.products.bytes_per_pixel(len(self.model.config.id2label))
        own = file_system(staging.folder)
        places = {own: ["confidence", "map"]}
        for purpose, path in self.outputs.items():
            if purpose != "map":
                places.setdefault(file_system(path.parent), []).append(purpose)
        for place, purposes in places.items():
            layers = [self.layers[purpose] for purpose in purposes if purpose in self.layers]
            needed = space_needed(self.plan.height * self.plan.width, strips if place == own else 0, layers)
            needed += _SMALL_OUTPUT * sum(purpose not in _LARGE_OUTPUTS for purpose in purposes)
            folder = staging.folder if place == own else self.outputs[purposes[0]].parent
            check_free_space(folder, needed, self._contents(purposes))

    def _contents(self, purposes: Sequence[str]) -> str:
        """Name what goes to one file system."""
        if "map" in purposes:
            return f"the map {self.outputs['map']} and its unfinished parts"
        return ", ".join(f"the {purpose} {self.outputs[purpose]}" for purpose in purposes)

    def _finish(self, staging: Staging) -> None:
        """Turn the strips into the outputs, in the first process."""
        if self.group["process_index"] > 0:
            return
        clock = time.perf_counter()
        self._check_complete(staging)
        folders = self._part_folders(staging)
        try:
            parts = {purpose: folders[purpose] / _part_name(purpose, path) for purpose, path in self.outputs.items()}
            with small_cache():
                self._write_parts(staging, parts)
            self._write_report(parts, clock)
            _check_names(self.outputs, self.scene.files, self.overwrite)  # again: much time has passed
            staging.note_outputs(self.outputs.values())
            publish({parts[purpose]: path for purpose, path in self.outputs.items()})  # the map is the last one
        finally:
            for folder in set(folders.values()):
                shutil.rmtree(folder, ignore_errors=True)
        staging.remove()

    def _write_report(self, parts: dict[str, Path], clock: float) -> None:
        """Complete the report, and write it where that is asked for; it gets its name together with the others."""
        self.report["bytes"] = {purpose: part.stat().st_size for purpose, part in parts.items() if part.exists()}
        now = time.perf_counter()
        self.seconds |= {"finishing": now - clock, "total": now - self.begin}
        if "report" in parts:
            self._result().to_json(parts["report"])

    def _check_complete(self, staging: Staging) -> None:
        """Refuse to finish a map with parts missing, or of files that changed meanwhile."""
        missing = staging.missing()
        if missing:
            raise OSError(
                f"Expected all {staging.count} strips of {self.outputs['map']}, found {len(missing)} missing: another "
                "process of this run failed, see its message. Run the same command again: finished strips are kept."
            )
        found = None
        with suppress(OSError):  # a file that is gone has changed
            found = self.scene.fingerprint()
        if as_text(found) != as_text(self.fingerprint):
            raise OSError(
                f"Expected the files of {self.scene.name} to stay as they are while they are mapped, found them "
                f"changed or gone: nothing was written to {self.outputs['map']}. Run the same command again."
            )

    def _part_folders(self, staging: Staging) -> dict[str, Path]:
        """Give each output a folder to be made in, on its own file system, so that it gets its name by a rename."""
        folders = {}
        for purpose, path in self.outputs.items():
            if path.parent.resolve() == staging.output.parent.resolve():
                folders[purpose] = staging.final_folder
            else:
                folders[purpose] = path.with_name(f".{path.name}.parts")
        for folder in set(folders.values()):
            shutil.rmtree(folder, ignore_errors=True)  # of an interrupted run
            folder.mkdir()
        return folders

    def _write_parts(self, staging: Staging, parts: dict[str, Path]) -> None:
        """Make all outputs under names that are not theirs yet."""
        tally = Tally(thumbnail_step(self.plan.height, self.plan.width))
        canvas = Canvas(
            self.plan.height, self.plan.width, self.plan.tops, self.scene.grid.crs, self.scene.grid.transform
        )
        for purpose in ("map", "probabilities", "entropy"):
            if purpose in parts:
                write_layer(parts[purpose], self.layers[purpose], staging, canvas, tally if purpose == "map" else None)
        if "polygons" in parts:
            self._write_polygons(parts, staging, canvas)
        if "quick look" in parts:
            self._write_quicklook(parts["quick look"], staging, tally)
        self._fill_report(staging, tally)

    def _write_polygons(self, parts: dict[str, Path], staging: Staging, canvas: Canvas) -> None:
        """Write the regions of the finished map."""
        from prithvi_hf.outputs.polygons import write_polygons

        confidence = parts["map"].with_name("confidence.tif")
        write_plain_layer(confidence, self.layers["confidence"], staging, canvas)
        write_polygons(parts["polygons"], parts["map"], probabilities=confidence, **self.polygon_options)

    def _write_quicklook(self, path: Path, staging: Staging, tally: Tally) -> None:
        """Draw scene and map from what is left of them when they are thinned."""
        from prithvi_hf.outputs.quicklook import write_quicklook

        thumbnail, config = read_thumbnail(staging), self.model.config
        rgb = None if thumbnail is None else stretch_colors(thumbnail, np.isfinite(thumbnail).all(axis=0))
        write_quicklook(
            path,
            tally.picture(),
            id2label=config.id2label,
            class_colors=getattr(config, "class_colors", None),
            rgb=rgb,
            present=set(np.flatnonzero(tally.counts).tolist()),
            crs=self.scene.grid.crs,
            transform=self.scene.grid.transform,
            step=thumbnail_step(self.plan.height, self.plan.width),
        )

    def _fill_report(self, staging: Staging, tally: Tally) -> None:
        """Say what is known now that every strip was seen."""
        self.report["class_pixels"] = named_counts(tally.counts, self.model.config.id2label)
        self.report["nodata_share"] = float(tally.counts[NODATA_CLASS] / tally.counts.sum())
        names = [frame.name for frame in self.scene.frames]
        self.report["frame_nodata_shares"] = read_frame_shares(staging, self.plan.height * self.plan.width, names)
        bad = read_bad_windows(staging)
        self.report["bad_windows"] = [{"file": name, "window": list(window)} for name, window in bad]

    def _result(self) -> PredictedScene:
        """Describe what was written."""
        grid, config = self.scene.grid, self.model.config
        report = {
            "scene": self.scene.name,
            "files": [os.fspath(file) for file in self.scene.files],
            "outputs": {purpose: os.fspath(path) for purpose, path in sorted(self.outputs.items())},
            "height": self.plan.height,
            "width": self.plan.width,
            "crs": grid.crs.to_string() if hasattr(grid.crs, "to_string") else grid.crs,
            "options": {**self._strip_plan(), "batch_size": self.run_options["batch_size"]},
            "versions": {name: version(name) for name in ("prithvi_hf", "torch", "rasterio")},
            **self.report,
            **self.notes,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }
        return PredictedScene(
            path=self.outputs["map"],
            outputs=dict(self.outputs),
            shape=(self.plan.height, self.plan.width),
            crs=grid.crs,
            transform=grid.transform,
            id2label=dict(config.id2label),
            class_colors=getattr(config, "class_colors", None),
            class_values=self.class_values,
            report=report,
        )


def _opened(frames: Any, image_processor: Any, options: Mapping[str, Any], on_read_error: str) -> Scene:
    """Open the scene, unless it was opened before."""
    if not isinstance(frames, Scene):
        return open_scene(frames, image_processor=image_processor, on_read_error=on_read_error, **options)
    if options:
        raise TypeError(f"A scene that is open takes no options, found {sorted(options)}: pass them to `open_scene`.")
    return frames


def _check_polygons(path: Any, scene: Scene, options: Mapping[str, Any]) -> None:
    """Refuse polygons that cannot be written here, that have no place on Earth, or of classes that there are not."""
    if path:
        from prithvi_hf.outputs.polygons import check_polygon_crs, check_polygon_options
        from prithvi_hf.outputs.vector_files import check_vector_path

        check_vector_path(path)
        check_polygon_crs(scene.frames[0])
        check_polygon_options(**options)


def _names_in_file(id2label: Mapping[int, str], class_values: Mapping[int, int] | None) -> dict[int, str]:
    """Give the name of each class by its value in the file, in class order."""
    values = file_values(id2label, class_values)
    return {values[index]: str(name) for index, name in sorted(id2label.items())}


def _paths(frames: Any) -> list[str | os.PathLike]:
    """Collect the paths among frames, at any depth of lists."""
    if isinstance(frames, str | os.PathLike):
        return [frames]
    if isinstance(frames, list | tuple):
        return [path for frame in frames for path in _paths(frame)]
    return []


def _window(window: int | Sequence[int] | None) -> int | tuple[int, int] | None:
    """Give the window as the sliding window takes it."""
    return tuple(window) if isinstance(window, list | tuple) else window


def _part_name(purpose: str, path: Path) -> str:
    """Name an output while it is made; its suffix may decide the format."""
    return f"{purpose.replace(' ', '_')}{path.suffix}"


def _consecutive(indices: Sequence[int]) -> list[range]:
    """Join numbers that follow each other."""
    ranges: list[range] = []
    for index in indices:
        if ranges and ranges[-1].stop == index:
            ranges[-1] = range(ranges[-1].start, index + 1)
        else:
            ranges.append(range(index, index + 1))
    return ranges


@contextmanager
def _telling_what_is_kept(staging: Staging) -> Iterator[None]:
    """Add to an error of the block what the next run finds done already."""
    try:
        yield
    except BaseException as error:
        kept = staging.kept()
        if kept:
            error.add_note(
                f"{kept} of {staging.count} parts of the map are kept in {staging.folder}: the same command goes on "
                "there, or discards them with resume=False (--no_resume)."
            )
        raise


@contextmanager
def _progress_bar(show: bool, total: int) -> Iterator[Callable[[int], None] | None]:
    """Lend a function that moves a bar over the windows, or None where none shall show."""
    if not show:
        yield None
        return
    with logging.tqdm(desc="windows", unit="window", total=total) as bar:
        yield bar.update


__all__ = ["check_outputs", "predict_scene", "run_plan", "weights_digest"]
