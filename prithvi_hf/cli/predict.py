# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf predict`: one scene, or many, on one process or many."""

import argparse
import hashlib
import json
import os
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prithvi_hf.cli.common import (
    SUMMARY,
    import_quickly,
    load_image_processor,
    load_model,
    resolve_device,
    run_list,
    user_message,
)
from prithvi_hf.cli.fetch import fetch_frames
from prithvi_hf.cli.predict_options import add_parser, check_usage, read_options
from prithvi_hf.disk import check_writable_folder
from prithvi_hf.outputs.registry import check_outputs, check_value_outputs, resolve_paths


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
    from prithvi_hf.models.prithvi.modeling_prithvi import PrithviMapModel
    from prithvi_hf.rasters.opening import FrameOptions
    from prithvi_hf.scenes.predict_scenes import ProcessGroup
    from prithvi_hf.scenes.scene import Scene
    from prithvi_hf.scenes.scene_list import SceneEntry

__all__ = ["add_parser", "run"]

_DETAILS = ("height", "width", "nodata_fraction", "values", "dtype")  # of a scene's report that the summary repeats


def run(options: argparse.Namespace) -> int:
    """Map one scene, by all processes together, or many; the exit status is 1 where one of many scenes failed."""
    check_usage(options)
    periods, options.dates = (None, options.dates) if options.bbox is None else (options.dates, None)
    with import_quickly():
        from prithvi_hf.scenes.predict_scene import predict_scene
        from prithvi_hf.scenes.predict_scenes import LAUNCH_VARIABLES, ProcessGroup, process_group
        from prithvi_hf.scenes.predicted import PredictedScene
        from prithvi_hf.scenes.scene import open_scene

    opening, keywords = read_options(options)
    is_launched = not {None, "", "0", "1"}.issuperset(map(os.environ.get, LAUNCH_VARIABLES))
    with process_group() if is_launched else nullcontext(None) as group:
        if options.scenes is not None:
            return _predict_many(options, opening, keywords, group or ProcessGroup())
        # What needs no model is checked first: it is loaded for a run that can succeed.
        paths = resolve_paths(options.output, keywords)
        check_outputs(paths, options.frames or (), options.overwrite)
        device = resolve_device(
            options.device if group is None else group.choose_device(options.device), options.model
        )
        if periods is not None:
            if group is not None and group.count > 1:
                raise ValueError("--bbox is for one process: run `prithvi-hf fetch` first, then give --frames.")
            folder = Path(options.output).with_name(f"{Path(options.output).stem}_scenes")
            fetched = fetch_frames(options, periods, opening.adapt(load_image_processor(options.model)), folder)
            if fetched is None:
                return 1
            options.frames, dates, is_masked = fetched
            opening = replace(opening, dates=dates, fmask=() if is_masked else opening.fmask)
            check_outputs(paths, options.frames, options.overwrite)
        with nullcontext() if group is None else group.together():
            image_processor = opening.adapt(load_image_processor(options.model))
            scene = open_scene(options.frames, image_processor, opening)
            model, _ = load_model(options.model, trust_remote_code=options.trust_remote_code)
            result = predict_scene(
                model,
                image_processor,
                scene,
                options.output,
                **keywords,
                device=device,
                overwrite=options.overwrite,
                resume=options.resume,
                show_progress=not options.quiet and (group is None or group.is_main),
                group=group,
            )
    if not options.quiet and (group is None or group.is_main):
        height, width = result.shape
        print(f"{height} x {width} pixels, CRS {result.crs}")
        if options.dtype == "auto":
            print("predicted in {chosen}: {reason}".format_map(result.report["dtype"]))
        if values := result.report.get("values"):  # of a regression
            unit, fraction = values["unit"] or "", 1 - values["pixels"] / (height * width)
            for name in ("mean", "std", "min", "max") if values["pixels"] else ():
                print(f"  {values['name']:<24} {name:>4} {values[name]:>12.6g} {unit}")
            print(f"  {'no data':<24} {height * width - values['pixels']:>12} pixels  {100 * fraction:6.2f} %")
        for name, count in result.class_counts().items() if isinstance(result, PredictedScene) else ():
            print(f"  {name:<24} {count:>12} pixels  {100 * count / (height * width):6.2f} %")
        if bad := result.report.get("bad_windows"):
            print(f"  {len(bad)} areas could not be read and are nodata: see --report")
        for name, path in paths.items():
            print(f"{name} written to {path}")
    return 0


def _predict_many(
    options: argparse.Namespace, opening: "FrameOptions", keywords: dict[str, Any], group: "ProcessGroup"
) -> int:
    """Map many scenes; returns the exit status: 0, or 1 where a scene failed."""
    import torch

    from prithvi_hf.scenes.predict_scene import describe_model
    from prithvi_hf.scenes.predict_scenes import ProcessGroup, Work
    from prithvi_hf.scenes.scene_list import list_scenes

    folder, keywords = Path(options.output_dir), {**keywords, "report": keywords["report"] or True}
    device = resolve_device(group.choose_device(options.device), options.model)
    check_writable_folder(folder, "--output_dir")
    image_processor = opening.adapt(load_image_processor(options.model))
    scenes = list_scenes(
        options.scenes,
        num_frames=image_processor.num_frames,
        allow_remote=options.allow_remote,
        output_dir=folder,
    )

    # No output may replace an input or another output.
    inputs = {os.path.realpath(file) for scene in scenes for file in scene.files if "://" not in file}
    inputs.add(str(Path(options.scenes).resolve()))
    seen = {str((folder / SUMMARY).resolve()): "the summary"}
    for scene in scenes:
        for path in resolve_paths(folder / f"{scene.name}.tif", keywords).values():
            resolved = str(path.resolve())
            if resolved in inputs:
                raise ValueError(f"{path} would be written, but is an input: choose another --output_dir.")
            if resolved in seen:
                raise ValueError(
                    f"{scene.origin}: {path} would also be {seen[resolved]}: give the scene another name."
                )
            seen[resolved] = f"written for {scene.name}"

    model, _ = load_model(options.model, trust_remote_code=options.trust_remote_code)
    if options.dtype != "auto":  # which is chosen for each scene
        model.to(getattr(torch, options.dtype))
    written = sorted(resolve_paths(folder / "any.tif", keywords))
    if model.task == "regression":
        check_value_outputs(written, keywords)
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps([describe_model(model, image_processor), keywords, written], sort_keys=True, default=str)
    together = group if options.split_scene else ProcessGroup()
    maker = _MapMaker(model, image_processor, options, opening, keywords, together, device, content)
    maker.show_progress = not options.quiet and (group.count == 1 or (options.split_scene and group.is_main))

    work = Work(maker.predict, maker.name_outputs, maker.is_finished, user_message)
    return run_list(options, scenes, work, group, options.split_scene)


@dataclass
class _MapMaker:
    """What is done with each of many scenes; `content` is all that decides outputs and is the same for every scene."""

    model: "PrithviMapModel"
    image_processor: "PrithviImageProcessor"
    options: argparse.Namespace
    opening: "FrameOptions"
    keywords: dict[str, Any]
    group: "ProcessGroup"
    device: str
    content: str
    show_progress: bool = False

    def name_outputs(self, entry: "SceneEntry") -> dict[str, Path]:
        """Name the outputs of a scene; its report is always among them."""
        return resolve_paths(Path(self.options.output_dir) / f"{entry.name}.tif", self.keywords)

    def is_finished(self, entry: "SceneEntry") -> bool:
        """Whether all outputs are there, whole, and their report says that they were made of the same by the same."""
        paths = self.name_outputs(entry)
        if not self.options.resume or not all(path.is_file() for path in paths.values()):
            return False
        report = json.loads(paths["report"].read_text(encoding="utf-8"))
        sizes = {name: path.stat().st_size for name, path in paths.items() if name != "report"}
        if not isinstance(report, dict) or report.get("bytes") != sizes:  # a report does not know its own size
            return False
        return report.get("run") == self._open(entry)[1]

    def predict(self, entry: "SceneEntry") -> dict[str, Any]:
        """Map a scene."""
        from prithvi_hf.scenes.predict_scene import predict_scene

        scene, digest = self._open(entry)
        result = predict_scene(
            self.model,
            self.image_processor,
            scene,
            self.name_outputs(entry)["map"],
            **self.keywords,
            device=self.device,
            overwrite=self.options.overwrite,
            resume=self.options.resume,
            show_progress=self.show_progress,
            notes={"run": digest},
            group=self.group if self.group.count > 1 else None,
        )
        details = {name: result.report[name] for name in _DETAILS if name in result.report}
        return {**details, "bad_windows": len(result.report.get("bad_windows", ()))}

    def _open(self, entry: "SceneEntry") -> tuple["Scene", str]:
        """Open a scene, whose pixels are not read yet, and digest all that decides its outputs."""
        from prithvi_hf.scenes.scene_list import open_entry

        scene = open_entry(entry, self.image_processor, self.opening)
        text = self.content + json.dumps(scene.fingerprint(), sort_keys=True, default=str)
        return scene, hashlib.sha256(text.encode()).hexdigest()
