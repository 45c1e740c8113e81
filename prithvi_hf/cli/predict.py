# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""`prithvi-hf predict --scenes`: many scenes, divided among the processes of a launch."""

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prithvi_hf.cli.common import load_image_processor, resolve_device, user_message
from prithvi_hf.cli.predict_options import (
    PURPOSES,
    Settings,
    check_polygon_format,
    frames_of,
    load_typed_model,
    map_scene,
    output_paths,
)
from prithvi_hf.disk import check_writable_folder
from prithvi_hf.scenes.predict_scene import weights_digest
from prithvi_hf.scenes.predict_scenes import (
    FAILED,
    Outcome,
    ProcessGroup,
    Work,
    run_scenes,
    summary_table,
)
from prithvi_hf.scenes.scene import Scene, open_scene
from prithvi_hf.scenes.scene_list import SceneEntry, list_scenes


SUMMARY = "summary.json"
_DETAILS = ("height", "width", "nodata_share")  # of a scene's report that the summary repeats
_PASSING = ("_name_or_path", "transformers_version")  # of a configuration: where it came from, not what it does


def predict_many(options: argparse.Namespace, settings: Settings, group: ProcessGroup) -> int:
    """Map many scenes.

    Args:
        options: The options of `predict`.
        settings: Those that hold for every scene.
        group: The processes of the launch.

    Returns:
        Exit status: 0, or 1 where a scene failed.

    Raises:
        ValueError: If the list is none, or outputs would replace inputs or each other; nothing is written then.
        OSError: If the output folder cannot be written.
    """
    folder = Path(options.output_dir)
    device = resolve_device(group.device(options.device))
    check_polygon_format(output_paths(options, folder / "any.tif"))
    check_writable_folder(folder, "--output_dir")
    image_processor = load_image_processor(options.model)
    scenes = list_scenes(options.scenes, num_frames=image_processor.num_frames, allow_remote=options.allow_remote)
    _check_outputs(scenes, options, folder)
    model = load_typed_model(options)
    folder.mkdir(parents=True, exist_ok=True)
    together = group if options.split_scene else ProcessGroup()
    run = _Run(model, image_processor, options, settings, together, device, options.split_scene or group.count == 1)
    work = Work(run.predict, run.outputs, run.is_finished, user_message)

    def tell(number: int, outcome: Outcome) -> None:
        if not options.quiet and (outcome.process is not None or group.is_main):
            print(_line(number + 1, len(scenes), outcome), file=sys.stderr)

    outcomes = run_scenes(scenes, work, group, folder / SUMMARY, split=options.split_scene, on_outcome=tell)
    return _report(outcomes, folder / SUMMARY, group, options.quiet)


def _line(number: int, total: int, outcome: Outcome) -> str:
    """What became of one scene, as soon as it is known."""
    reason = f": {outcome.reason}" if outcome.reason else ""
    return f"[{number}/{total}] {outcome.name} {outcome.status}, {outcome.seconds:.1f} s{reason}"


def _report(outcomes: list[Outcome], summary: Path, group: ProcessGroup, quiet: bool) -> int:
    """Print what became of all scenes and choose the exit status."""
    failed = sum(outcome.status == FAILED for outcome in outcomes)
    if group.is_main and not quiet:
        print(summary_table(outcomes))
        print(f"summary written to {summary}")
    if group.is_main and failed:
        message = f"{failed} of {len(outcomes)} scenes failed, {summary} says why"
        print(f"prithvi-hf predict: error: {message}", file=sys.stderr)
    return 1 if failed else 0


@dataclass
class _Run:
    """What is done with each scene."""

    model: Any
    image_processor: Any
    options: argparse.Namespace
    settings: Settings
    group: ProcessGroup
    device: str
    show_progress: bool

    def __post_init__(self) -> None:
        config = {name: value for name, value in self.model.config.to_dict().items() if name not in _PASSING}
        written = sorted(output_paths(self.options, Path("any.tif")).items())
        parts = (weights_digest(self.model), config, self.image_processor.to_dict(), self.settings.predicting, written)
        self._same_for_all = json.dumps(parts, sort_keys=True, default=str)

    def outputs(self, entry: SceneEntry) -> dict[str, Path]:
        """Name the outputs of a scene."""
        return _outputs(entry, self.options, Path(self.options.output_dir))

    def is_finished(self, entry: SceneEntry) -> bool:
        """Whether all outputs are there, whole, and their report says that they were made of the same by the same."""
        paths = self.outputs(entry)
        if not self.options.resume or not all(path.is_file() for path in paths.values()):
            return False
        report = json.loads(paths["report"].read_text(encoding="utf-8"))
        if not isinstance(report, dict) or report.get("bytes") != _sizes(paths):
            return False
        return report.get("run") == self._digest(self._open(entry))

    def predict(self, entry: SceneEntry) -> dict[str, Any]:
        """Map a scene."""
        paths, scene = self.outputs(entry), self._open(entry)
        notes = {"run": self._digest(scene)}
        arguments = (self.model, self.image_processor, scene, paths, self.options, self.settings, self.group)
        result = map_scene(*arguments, self.device, self.show_progress, notes)
        details = {name: result.report[name] for name in _DETAILS if name in result.report}
        return {**details, "bad_windows": len(result.report.get("bad_windows", ()))}

    def _open(self, entry: SceneEntry) -> Scene:
        """Open a scene; its pixels are not read yet."""
        opening = {**self.settings.opening, "dates": entry.dates, "name": entry.name}
        return open_scene(frames_of(entry.frames), image_processor=self.image_processor, **opening)

    def _digest(self, scene: Scene) -> str:
        """Digest everything that decides the outputs of a scene."""
        text = self._same_for_all + json.dumps(scene.fingerprint(), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def _sizes(paths: dict[str, Path]) -> dict[str, int]:
    """Bytes of each output, as reports note them; a report does not know its own."""
    return {PURPOSES.get(name, name): path.stat().st_size for name, path in paths.items() if name != "report"}


def _outputs(entry: SceneEntry, options: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """Name the outputs of a scene; its report is always among them."""
    return {**output_paths(options, folder / f"{entry.name}.tif"), "report": folder / f"{entry.name}.json"}


def _check_outputs(scenes: list[SceneEntry], options: argparse.Namespace, folder: Path) -> None:
    """Refuse outputs that would replace inputs or each other."""
    inputs = {str(Path(file).resolve()) for scene in scenes for file in scene.files if "://" not in file}
    inputs.add(str(Path(options.scenes).resolve()))
    seen = {str((folder / SUMMARY).resolve()): "the summary"}
    for scene in scenes:
        for path in _outputs(scene, options, folder).values():
            resolved = str(path.resolve())
            if resolved in inputs:
                raise ValueError(f"{path} would be written, but is an input: choose another --output_dir.")
            if resolved in seen:
                raise ValueError(f"{scene.origin}: {path} would also be {seen[resolved]}: name the scene otherwise.")
            seen[resolved] = f"written for {scene.name}"


__all__ = ["SUMMARY", "predict_many"]
