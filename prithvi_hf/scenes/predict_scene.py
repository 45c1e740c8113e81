# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Prediction of whole scenes, whatever their size: frames in, georeferenced files out.

Strips of the map are kept beside the output as soon as they are final. When all are there, a last pass turns them into
the files and gives those their names. A run that was interrupted continues where it was.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import torch
from rasterio.crs import CRS
from rasterio.session import DummySession
from transformers.utils import logging

from prithvi_hf.models.prithvi.inference_dtype_prithvi import DtypeChoice
from prithvi_hf.models.prithvi.input_shift_prithvi import check_input
from prithvi_hf.models.prithvi.modeling_prithvi import unwrap_model
from prithvi_hf.models.prithvi.regression_map_prithvi import Quantity
from prithvi_hf.models.prithvi.segmentation_map_prithvi import title_picture
from prithvi_hf.outputs.assemble import (
    DETAILS,
    THUMBNAIL,
    VALUES,
    StagedMap,
    check_space,
    make_layer,
    make_products,
    publish,
    write_layer,
)
from prithvi_hf.outputs.cog import GDAL_CACHE_BYTES, file_values
from prithvi_hf.outputs.registry import (
    OUTPUTS,
    Output,
    OutputOptions,
    check_outputs,
    check_value_outputs,
    resolve_paths,
)
from prithvi_hf.outputs.staging import Staging, as_text
from prithvi_hf.rasters.opening import FrameOptions
from prithvi_hf.scenes.engine import Strip, predict_strips
from prithvi_hf.scenes.predicted import PredictedScene, PredictedValues
from prithvi_hf.scenes.reading import BadWindow
from prithvi_hf.scenes.scene import Scene, open_scene
from prithvi_hf.scenes.tiles import TilePlan, WindowOptions


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
    from prithvi_hf.models.prithvi.modeling_prithvi import PrithviMapModel, PrithviPreTrainedModel
    from prithvi_hf.scenes.predict_scenes import ProcessGroup

logger = logging.get_logger(__name__)

_FORMAT = 4
OPTION_NAMES = {kind: tuple(one.name for one in fields(kind)) for kind in (WindowOptions, FrameOptions, OutputOptions)}
_PASSING = ("_name_or_path", "transformers_version")  # of a configuration: where it came from, not what it does


def predict_scene(
    model: "PrithviMapModel",
    image_processor: "PrithviImageProcessor",
    frames: Any,
    output: str | os.PathLike,
    *,
    name: str | None = None,
    crs: Any = None,
    transform: Sequence[float] | None = None,
    device: str | torch.device | None = None,
    dtype: str | None = None,
    compile: bool = False,
    overwrite: bool = True,
    resume: bool = True,
    show_progress: bool = True,
    on_progress: Callable[[int, int], object] | None = None,
    notes: Mapping[str, Any] | None = None,
    group: "ProcessGroup | None" = None,
    **options: Any,
) -> PredictedScene | PredictedValues:
    """Map a scene and write the map, in memory that grows with the scene's width only.

    Outputs get their names together, when all of them are complete, the map last. Until then, finished parts are in
    the hidden folder `.NAME.partial` beside the output; the same call continues there after an interruption, and the
    result is the same to the byte. Where existing outputs are replaced, the old map goes before the first of the
    others is replaced, so that a map is never beside outputs that do not belong to it. Two runs of one output at a
    time are refused.

    Args:
        model: A model of classes or of values of pixels; in evaluation mode meanwhile, and as it was afterwards.
        image_processor: Its image processor.
        frames: What `open_scene` takes: one GeoTIFF, or those of all dates in time order, and more; or a `Scene`.
        output: The Cloud-Optimized GeoTIFF to write: uint8 classes, or float32 values of a regression.
        name: What to call the scene; None for the name of its first file.
        crs: CRS of frames that are arrays, such as "EPSG:32633".
        transform: Their affine transform, from (column, row) to coordinates of the CRS.
        device: Where to run, for example "cuda" or "cpu"; the model is moved there and stays. None is where it is.
        dtype: "float32", "bfloat16" or "float16" to predict in with a copy of the model; "auto" for bfloat16 where
            the device is made for it and the classes of some tiles stay the same, else float32, see
            [`~models.prithvi.inference_dtype_prithvi.resolve_dtype`]; None as the model is.
        compile: Whether to compile the model for tiles of one size by `torch.compile`, on a GPU with CUDA graphs.
            Values may differ by rounding, as with another batch size.
        overwrite: Whether existing outputs may be replaced.
        resume: Whether finished parts of an interrupted run are used; False computes all of them again.
        show_progress: Whether to show a progress bar over the windows.
        on_progress: Called with the number of windows that are done and that of all, first with 0, in the thread of
            the caller. An error that it raises ends the run as any other: finished parts are kept for the next one.
        notes: Entries that the report gets as well, for JSON.
        group: The processes that make this map together, each a part of it; the first one writes the outputs. Each
            calls `group.barrier` as often as the others once it has accepted its arguments, also after an error.
        options: By name:
            - other outputs, each a path, True for the default name beside the map, or None: `probabilities`,
              `confidence` and `entropy` (GeoTIFF), `polygons` (.gpkg, .parquet or .geojson), `quicklook` (.png),
              `report` (.json); and how they are written: `probabilities_dtype`, `class_values`, `polygon_classes`,
              `min_area`, see [`~outputs.registry.OutputOptions`]; of a map of values only `quicklook` and `report`;
            - how the model slides over the scene: `window`, `overlap`, `batch_size`, `blending`, `tta`, see
              [`~scenes.tiles.WindowOptions`];
            - how the frames are read: `scale`, `rescale_factor`, `rescale_offset`, `grid`, `grid_mismatch`, `fmask`,
              `band_map`, `dates`, `on_read_error` and others, see [`~rasters.opening.FrameOptions`]. With "nodata" for
              `on_read_error`, blocks that cannot be read are nodata in the map and listed in the report.

    Returns:
        The map that was written, with a report: "scene", "files", "outputs", "height", "width", "crs", "options",
        "dtype" ("chosen", "reason", and "agreement" with float32, None where it was not measured), "compiled",
        "versions", "class_pixels" (or "values", with "name", "unit", "pixels", "mean", "std", "min" and "max" of those
        with data), "nodata_fraction", "frame_nodata_fractions" (one per date), "input_check" (how far each band
        is from the training, of a model whose training measured it, see
        [`~models.prithvi.input_shift_prithvi.check_input`]), "bad_windows", "bytes"
        (of each output but the report), "strips" ("total", "resumed", "computed") and "seconds" ("reading" in its own
        thread, "model", "waiting" of the model for the reader, "writing" in its own thread, "finishing", "total"). In
        processes other than the first the result says nothing of the last pass.

    Raises:
        TypeError: If there is no such option.
        ValueError: If an option leaves its range, an output cannot be written or is an input, a frame is not a
            GeoTIFF, frames do not fit together, or the processor refuses them. Nothing is written then.
        BusyOutputError: If another run writes the same output.
        OSError: If a folder takes no files or has too little room, which is noticed before the work begins; or if
            reading or writing fails or the disk is full: then no incomplete file gets the name of an output, and
            finished parts are kept for the next run.
    """
    begin = time.perf_counter()
    model = unwrap_model(model)
    config = model.config
    quantity = Quantity.of(config) if getattr(model, "task", None) == "regression" else None
    id2label = {int(index): str(label) for index, label in (config.id2label or {}).items()}
    asked, windows, opening, writing = sort_options(options)
    paths = resolve_paths(output, asked)
    check_outputs(paths, frames if isinstance(frames, list | tuple) else [frames], overwrite)
    if quantity is not None:
        check_value_outputs(paths, vars(writing))
    file_values(id2label, writing.class_values)
    image_processor = opening.adapt(image_processor)
    image_processor.check_config(config)
    place = {name: value for name, value in (("crs", crs), ("transform", transform)) if value is not None}
    if not isinstance(frames, Scene):
        scene = open_scene(frames, image_processor, opening, name=name, **place)
    elif closed := sorted({*options} & {*OPTION_NAMES[FrameOptions]} - {"on_read_error"} | {*place}):
        raise TypeError(f"A scene that is open takes no options, found {closed}: pass them to `open_scene`.")
    else:
        scene = frames
    check_outputs(paths, scene.files, overwrite)

    grid = scene.grid
    plan = TilePlan.for_model(config, grid.height, grid.width, windows.window, windows.overlap)
    outputs = {record.name: (record, paths[record.name]) for record in OUTPUTS if record.name in paths}
    values = set() if quantity is None else {VALUES}
    index, count = (0, 1) if group is None else (group.index, group.count)
    own = str(getattr(model, "dtype", "float32")).removeprefix("torch.")
    choice, runner = DtypeChoice(own, "as the weights are"), model
    if compile or (dtype is not None and {dtype, own} != {"float32"}):
        from prithvi_hf.scenes.inference import set_up_model

        model, runner, choice = set_up_model(
            model,
            image_processor,
            scene,
            plan,
            batch_size=windows.batch_size,
            on_read_error=opening.on_read_error,
            device=device,
            dtype=dtype,
            compile=compile,
            group=group,
            choice=choice,
        )
    content: dict[str, Any] = {  # all that decides the strips besides scene, model and processor
        "window": list(plan.window),
        "stride": list(plan.stride),
        "blending": windows.blending,
        "tta": windows.tta,
        "dtype": choice.chosen,
        "on_read_error": opening.on_read_error,
        "needs": sorted({need for record, _ in outputs.values() for need in record.needs} | values),
        "probabilities_dtype": writing.probabilities_dtype,
    }
    # Batch size, device, number of processes and whether the model is compiled are not in the plan: they may change
    # between the parts of a run that was interrupted, for example after the device ran out of memory. Pixels then
    # differ at most by rounding.
    run_plan = {
        "format": _FORMAT,
        "versions": {package: version(package) for package in ("prithvi_hf", "torch")},
        "scene": scene.fingerprint(),
        **describe_model(model, image_processor),
        "options": content,
    }
    staging = Staging(paths["map"], run_plan, plan.num_strips, resume=resume, index=index, processes=count)
    colors = getattr(config, "class_colors", None)
    strips = StagedMap(staging, plan.tops, grid, id2label, colors, writing, show_progress=show_progress)
    strips.quantity = quantity
    strips.bands = tuple(image_processor.bands)
    if THUMBNAIL in content["needs"]:
        last = scene.dates[-1] if scene.dates else None
        strips.rgb_title = title_picture(strips.bands, image_processor.num_frames, last)
    strips.report = {
        "scene": scene.name,
        "files": list(map(os.fspath, scene.files)),
        "outputs": {one: os.fspath(path) for one, path in sorted(paths.items())},
        "height": grid.height,
        "width": grid.width,
        "crs": grid.crs.to_string() if isinstance(grid.crs, CRS) else grid.crs,
        "options": {
            **content,
            "batch_size": windows.batch_size,
            "rescale_factor": image_processor.rescale_factor if image_processor.do_rescale else 1.0,
            "rescale_offset": image_processor.rescale_offset if image_processor.do_rescale else 0.0,
        },
        "dtype": choice._asdict(),
        "compiled": compile,
        "versions": {package: version(package) for package in ("prithvi_hf", "torch", "rasterio")},
        **(notes or {}),
        "seconds": {},
    }
    for record, _ in outputs.values():
        if record.check is not None:
            record.check(strips)

    steps = (
        staging.prepare,
        staging.join,
        partial(check_space, strips, outputs),
        partial(
            compute_strips, runner, image_processor, scene, plan, strips, windows, device, show_progress, on_progress
        ),
        partial(finish_map, scene, image_processor, strips, outputs, overwrite, begin),
    )
    run_steps(steps, staging, group)
    written: dict[str, Any] = {
        "path": paths["map"],
        "outputs": paths,
        "shape": grid.size,
        "crs": grid.crs,
        "transform": grid.transform,
        "report": strips.report,
    }
    if quantity is not None:
        return PredictedValues(**written, **quantity._asdict())
    return PredictedScene(
        **written,
        id2label=strips.id2label,
        class_colors=strips.class_colors,
        class_values=writing.class_values,
    )


def run_steps(steps: Iterable[Callable[[], object]], staging: Staging, group: "ProcessGroup | None") -> None:
    """Run the steps of a prediction, by all processes of a group at a time, and close the staging after them.

    Each step begins when all processes are done with the one before. What is kept after an error is a note to it.
    """
    failure: Exception | None = None
    try:
        # After an error a process goes on to meet the others at the barriers: they would wait for ever.
        for step in steps:
            try:
                if failure is None:
                    step()
            except Exception as error:
                failure = error
            if group is not None:
                group.barrier()
        if failure is not None:
            raise failure
    except BaseException as error:
        if kept := staging.kept():
            error.add_note(
                f"{kept} of {staging.count} parts of the map are kept in {staging.folder}: the same command goes on "
                "there, or discards them and begins again with resume=False (--no_resume)."
            )
        raise
    finally:
        staging.close()


def sort_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], WindowOptions, FrameOptions, OutputOptions]:
    """Sort keywords of `predict_scene` by what they say: which outputs, how the model slides, how frames are read.

    Raises:
        TypeError: If there is no such option.
        ValueError: If one leaves its range.
    """
    names = [{record.name for record in OUTPUTS} - {"map"}, *map(set, OPTION_NAMES.values())]
    unknown = sorted(set(options) - set().union(*names))
    if unknown:
        known = "; ".join(", ".join(sorted(members)) for members in names)
        raise TypeError(f"predict_scene has no option {', '.join(unknown)}. Expected some of {known}.")
    asked, windows, opening, writing = (
        {name: value for name, value in options.items() if name in members} for members in names
    )
    return asked, WindowOptions(**windows), FrameOptions(**opening), OutputOptions(**writing)


def describe_model(model: "PrithviPreTrainedModel", image_processor: "PrithviImageProcessor") -> dict[str, Any]:
    """Describe a model for comparison, for JSON: digest of the weights, configuration and image processor.

    The digest is a SHA-256 over names, types, shapes and bytes of all tensors, buffers included.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():  # tensors one at a time: a model may fill the memory of its device
            content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(memoryview(content.numpy()))
    config = {name: value for name, value in model.config.to_dict().items() if name not in _PASSING}
    plain = {"config": config, "processor": image_processor.to_dict()}
    return {"model": digest.hexdigest(), **json.loads(json.dumps(plain, default=str))}


def compute_strips(
    model: "PrithviMapModel",
    image_processor: "PrithviImageProcessor",
    scene: Scene,
    plan: TilePlan,
    strips: StagedMap,
    windows: WindowOptions,
    device: str | torch.device | None,
    show_progress: bool,
    on_progress: Callable[[int, int], object] | None = None,
) -> None:
    """Predict the strips of this process, and keep each while the model makes the next one."""
    staging, report = strips.staging, strips.report
    content, seconds = report["options"], report["seconds"]
    report["strips"] = {"total": staging.count, "resumed": staging.resumed, "computed": 0}

    def keep(strip: Strip) -> None:
        """Make the products of a strip and commit them."""
        clock = time.perf_counter()
        options = content["needs"], content["probabilities_dtype"], model.config.temperature
        arrays = make_products(strip.logits, strip.nodata, *options)
        if strip.thumbnail is not None:
            arrays[THUMBNAIL] = strip.thumbnail
        details = {
            "bad_windows": strip.bad_windows,
            "frame_nodata": strip.frame_nodata,
            "band_sums": strip.band_sums,
        }
        arrays[DETAILS] = np.frombuffer(json.dumps(details).encode(), dtype=np.uint8)
        staging.commit(strip.index, arrays)
        seconds["writing"] = round(seconds.get("writing", 0.0) + time.perf_counter() - clock, 6)
        report["strips"]["computed"] += 1

    ranges: list[range] = []
    for index in staging.assigned():
        if ranges and ranges[-1].stop == index:
            ranges[-1] = range(ranges[-1].start, index + 1)
        else:
            ranges.append(range(index, index + 1))
    tiles = sum(plan.count_tiles(consecutive) for consecutive in ranges)
    pending: Future[None] | None = None
    with (
        ThreadPoolExecutor(max_workers=1, thread_name_prefix="strip writer") as writer,
        logging.tqdm(desc="windows", unit="window", total=tiles, disable=not show_progress) as bar,
    ):
        done = 0

        def tell(count: int) -> None:
            """Tell of windows that are done."""
            nonlocal done
            done += count
            bar.update(count)
            if on_progress is not None:
                on_progress(done, tiles)

        tell(0)
        for consecutive in ranges:
            for strip in predict_strips(
                model,
                image_processor,
                scene,
                plan,
                consecutive,
                batch_size=windows.batch_size,
                blending=windows.blending,
                tta=windows.tta,
                device=device,
                on_read_error=content["on_read_error"],
                thumbnail=THUMBNAIL in content["needs"],
                on_windows=tell,
            ):
                for name, spent in strip.seconds.items():
                    seconds[name] = round(seconds.get(name, 0.0) + spent, 6)
                if pending is not None:
                    pending.result()  # one strip waits at most, and an error is raised soon
                pending = writer.submit(keep, strip)
                del strip  # it is large, and would stay in memory until the next one is made
        if pending is not None:
            pending.result()


def finish_map(
    scene: Scene,
    image_processor: "PrithviImageProcessor",
    strips: StagedMap,
    outputs: Mapping[str, tuple[Output, Path]],
    overwrite: bool,
    begin: float,
) -> None:
    """Turn the strips into the outputs, in the first process; `begin` is the clock when the run began."""
    clock, staging, report, parts = time.perf_counter(), strips.staging, strips.report, strips.parts
    report["seconds"]["total"] = round(clock - begin, 6)
    if staging.index > 0:
        return
    paths = {name: path for name, (_, path) in outputs.items()}
    missing = staging.count - staging.kept()
    if missing:
        raise OSError(
            f"Expected all {staging.count} strips of {paths['map']}, found {missing} missing: another process of this "
            "run failed, see its message. Run the same command again: finished strips are kept."
        )
    found = None
    with suppress(OSError):  # a file that is gone has changed
        found = scene.fingerprint()
    if as_text(found) != as_text(staging.plan["scene"]):
        raise OSError(
            f"Expected the files of {scene.name} to stay as they are while they are mapped, found them changed or "
            f"gone: nothing was written to {paths['map']}. Run the same command again."
        )

    details = strips.load_details()
    nodata = np.sum([one["frame_nodata"] for one in details], axis=0)
    report["frame_nodata_fractions"] = measure_frames(nodata, scene)
    band_sums = np.sum([one["band_sums"] for one in details], axis=0)
    if image_processor.training_statistics and band_sums[0]:
        report["input_check"] = check_input(band_sums[1:] / band_sums[0], image_processor, scene.name)
    bad = join_windows((name, tuple(window)) for one in details for name, window in one["bad_windows"])
    report["bad_windows"] = [{"file": name, "window": list(window)} for name, window in bad]
    report["bytes"] = {}
    # Each output is made in a folder on its own file system, so that it gets its name by a rename.
    folders = {
        name: path.with_name(f".{path.name}.parts")
        if path.parent.resolve() != staging.output.parent.resolve()
        else staging.final_folder
        for name, path in paths.items()
    }
    try:
        for folder in set(folders.values()):
            shutil.rmtree(folder, ignore_errors=True)  # of an interrupted run
            folder.mkdir()
        with rasterio.Env(session=DummySession(), GDAL_CACHEMAX=GDAL_CACHE_BYTES):
            for name, (output, path) in outputs.items():
                parts[name] = folders[name] / f"{name}{path.suffix}"
                if output.write is not None:
                    output.write(parts[name], strips)
                else:
                    write_layer(parts[name], make_layer(output, strips), strips)
                if name != "report":  # which is the last one, and tells of all others
                    report["bytes"][name] = parts[name].stat().st_size
                    now = time.perf_counter()
                    report["seconds"] |= {"finishing": round(now - clock, 6), "total": round(now - begin, 6)}
        check_outputs(paths, scene.files, overwrite)  # again: much time has passed
        staging.note_outputs(paths.values())
        publish({parts[name]: paths[name] for name in [*(name for name in paths if name != "map"), "map"]})
    finally:
        for folder in set(folders.values()):
            shutil.rmtree(folder, ignore_errors=True)
    staging.remove()


def measure_frames(nodata_pixels: np.ndarray, scene: Scene) -> list[float]:
    """Give the fraction of the scene that each date lacks, and warn of dates without any data beside others with some.

    `nodata_pixels` counts the pixels in which each date has no value at all; one frame may stack several dates.
    """
    pixels, names = scene.grid.height * scene.grid.width, [frame.name for frame in scene.frames]
    if len(names) != len(nodata_pixels):
        names = [f"date {number} of {', '.join(names)}" for number in range(1, len(nodata_pixels) + 1)]
    is_empty = nodata_pixels == pixels
    for name in [] if is_empty.all() else np.array(names)[is_empty]:
        logger.warning(
            f"{name}: expected data in some part of the scene, found none in any pixel: the map comes from the "
            "other dates alone, with this one filled. Check the file, or choose another date."
        )
    return [int(count) / pixels for count in nodata_pixels]


def join_windows(windows: Iterable[BadWindow]) -> list[BadWindow]:
    """Join windows of a file that are one below the other: a block that reaches into several strips is in each."""
    columns: dict[tuple[str, int, int], list[tuple[int, int]]] = {}
    for name, (row, column, height, width) in sorted(set(windows)):
        parts = columns.setdefault((name, column, width), [])
        if parts and row <= parts[-1][1]:
            parts[-1] = (parts[-1][0], max(parts[-1][1], row + height))
        else:
            parts.append((row, row + height))
    return sorted(
        (name, (row, column, stop - row, width))
        for (name, column, width), parts in columns.items()
        for row, stop in parts
    )
