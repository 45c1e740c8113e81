# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf predict`: one scene, or many, on one process or many.

Everything heavy is imported inside the functions, so that help and usage errors cost nothing.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prithvi_hf.cli.common import Commands, load_image_processor, load_model, resolve_device


_EPILOG = """examples:
  prithvi-hf predict --model OUT --frames scene.tif --output map.tif --probabilities --quicklook
  prithvi-hf predict --model OUT --frames june.tif july.tif august.tif --output map.tif --polygons
  prithvi-hf predict --model OUT --frames june/ july/ august/ --output map.tif --fmask cloud shadow
  prithvi-hf predict --model OUT --scenes "tiles/*.tif" --output_dir maps
  torchrun --nproc_per_node 8 -m prithvi_hf.cli predict --model OUT --scenes granules/ --output_dir maps

A frame is a GeoTIFF of all bands, or the folder of one granule of HLS or Sentinel-2 with a file for each band; several
frames are the dates of one scene in time order. A run that was interrupted goes on where it was when the same command
is given again. With --scenes the exit status is 1 when a scene failed, and summary.json says why.
"""
_SUFFIXES = {
    "probabilities": "_probabilities.tif",
    "entropy": "_entropy.tif",
    "polygons": ".gpkg",
    "quicklook": ".png",
    "report": ".json",
}
_POLYGON_FORMATS = ("gpkg", "parquet")
PURPOSES = {"quicklook": "quick look"}  # what messages and reports call an output, where it is not the option's name
_DTYPES = ("float32", "bfloat16", "float16")
_FMASK = ("cirrus", "cloud", "adjacent", "shadow", "snow", "water")


def add_parser(commands: Commands) -> None:
    """Describe `predict`.

    Args:
        commands: The subparsers of `prithvi-hf`.
    """
    text = "map scenes of any size: GeoTIFF frames in, Cloud-Optimized GeoTIFF of classes out"
    parser = commands.add_parser(
        "predict",
        help=text,
        description=text[0].upper() + text[1:] + ", in memory that grows with the width of the scene only.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="folder of a fine-tuned model and its processor, or a Hub id")
    _add_scenes(parser.add_argument_group("scenes and where their maps go").add_argument)
    _add_outputs(parser.add_argument_group("what is written beside each map").add_argument)
    _add_windows(parser.add_argument_group("how the model slides over the scene").add_argument)
    _add_reading(parser.add_argument_group("how the frames are read").add_argument)
    _add_running(parser.add_argument_group("how the work is done").add_argument)
    parser.set_defaults(run=run)


def _add_scenes(add: Any) -> None:
    """Describe inputs and outputs."""
    add(
        "--frames",
        nargs="+",
        metavar="FRAME",
        help="one scene: its GeoTIFF, or those of all its dates in time order; folders or band files of granules",
    )
    add("--output", metavar="TIF", help="with --frames: map to write, uint8 classes, 255 = no data")
    add(
        "--scenes",
        metavar="LIST",
        help="many scenes: a text list (frames of a scene in one line), .csv, .jsonl, a quoted glob, a folder of "
        "GeoTIFFs or of HLS or Sentinel-2 granules (grouped by tile and date), or a STAC item collection (.json)",
    )
    add(
        "--output_dir",
        metavar="DIR",
        help="with --scenes: folder for NAME.tif, what else is asked for, NAME.json and summary.json; scenes that are "
        "finished there are skipped",
    )
    add(
        "--no_overwrite",
        dest="overwrite",
        action="store_false",
        help="refuse outputs that exist; without it they are replaced, and only by complete ones",
    )


def _add_outputs(add: Any) -> None:
    """Describe what is written."""

    def add_file(name: str, metavar: str, text: str) -> None:
        add(f"--{name}", nargs="?", const=True, metavar=metavar, help=f"{text}; by itself NAME{_SUFFIXES[name]}")

    add_file("probabilities", "TIF", "class probabilities, one band a class")
    add(
        "--probabilities_dtype",
        choices=("float32", "uint8"),
        default="float32",
        help="of probabilities and entropy; float32 (default): 0 to 1, no data NaN; uint8: 0 to 254 with scale 1/254 "
        "in the file, no data 255",
    )
    add_file("entropy", "TIF", "entropy of the probabilities, 0 (certain) to 1 (all classes equally probable)")
    add_file("polygons", "FILE", "regions of each class with area in m2 and mean probability, .gpkg or .parquet")
    add("--polygon_classes", nargs="+", metavar="CLASS", help="classes of the polygons, by name or file value (all)")
    add("--min_area", type=float, default=0.0, metavar="M2", help="smallest polygon in square metres (default 0)")
    add_file("quicklook", "PNG", "picture of scene and map with a legend")
    add_file("report", "JSON", "what was done: classes, files, unreadable blocks, seconds (always with --scenes)")
    add(
        "--class_values",
        nargs="+",
        default=[],
        metavar="CLASS=VALUE",
        help="file values (0 to 254) of class indices where the two differ, e.g. 0=1 1=2",
    )


def _add_windows(add: Any) -> None:
    """Describe how `predict` slides over the scene."""
    add(
        "--overlap",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="share of a window that the next one covers again, 0 <= SHARE < 1 (default 0.5)",
    )
    add(
        "--window",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="side of the windows, or height and width, in pixels (default: the model's image_size)",
    )
    add(
        "--batch_size",
        type=int,
        default=8,
        metavar="WINDOWS",
        help="windows in one forward pass, at least 1 (default 8); less needs less memory",
    )
    add(
        "--blending",
        choices=("uniform", "cosine", "gaussian"),
        default="uniform",
        help="weights of overlapping windows: uniform (default, as in the published evaluation), or less weight for "
        "their borders",
    )
    add(
        "--tta",
        choices=("none", "d4"),
        default="none",
        help="d4: mean over the eight turned and mirrored windows, at eight times the cost (default none)",
    )


def _add_reading(add: Any) -> None:
    """Describe how frames are read."""
    add(
        "--grid_mismatch",
        choices=("warp", "refuse"),
        default="warp",
        help="frames on other grids than the first are warped to it (default), or refused",
    )
    add("--grid", metavar="TIF", help="GeoTIFF whose grid the map gets (default: the first frame's)")
    add("--resolution", type=float, metavar="UNITS", help="side of the map's pixels in units of the CRS")
    add(
        "--scale",
        choices=("auto", "apply", "refuse", "ignore"),
        default="auto",
        help="scale and offset of files and products: auto (default) brings numbers to the model's units, apply to "
        "reflectance, ignore takes them as they are, refuse makes an error of those that would change",
    )
    add("--boa_add_offset", type=float, metavar="X", help="of Sentinel-2 numbers, where the product does not say")
    add(
        "--fmask",
        nargs="+",
        default=[],
        choices=_FMASK,
        help="HLS: pixels that Fmask says are such are no data. Of several dates, any is enough unless --fmask_rule "
        "says otherwise. A date that lacks data for other reasons (swath edge) is filled there, and the map is no "
        "data where all dates lack it (nodata_rule of the model's image processor)",
    )
    add(
        "--fmask_rule",
        choices=("any", "all"),
        default="any",
        help="pixels masked by --fmask in any date are no data in the map (default); all: masked dates are filled, "
        "and the map is no data where all dates are",
    )
    add("--dates", nargs="+", metavar="DATE", help="date of each frame, e.g. 2022-06-01, where file names say none")
    add(
        "--on_read_error",
        choices=("raise", "nodata"),
        default="raise",
        help="a block that cannot be read ends the scene (default), or is no data in the map and listed in the report",
    )
    add("--allow_remote", action="store_true", help="read http(s) addresses; anyone who writes a list can name any")
    add("--allow_vrt", action="store_true", help="read VRT files, which can name any other file")


def _add_running(add: Any) -> None:
    """Describe how the work is done."""
    add(
        "--device",
        default="auto",
        help='"auto" (default: a CUDA GPU where there is one), "cpu", "cuda", "cuda:1"; processes of one machine take '
        "its GPUs in turn",
    )
    add(
        "--dtype",
        choices=_DTYPES,
        default="float32",
        help="type of the weights (default float32); bfloat16 is faster on most GPUs, and classes may differ where "
        "two are about equally probable",
    )
    add("--split_scene", action="store_true", help="with --scenes: all processes work at each scene together")
    add("--no_resume", dest="resume", action="store_false", help="compute anew what a run before has left or finished")
    add("--quiet", action="store_true", help="print neither progress nor summary")


def run(options: argparse.Namespace) -> int:
    """Map scenes.

    Args:
        options: The options of `predict`.

    Returns:
        Exit status: 0, or 1 where one of many scenes failed.

    Raises:
        ValueError: If options do not go together, leave their range, or a single scene cannot be mapped.
        OSError: If files cannot be read or written.
    """
    _check_usage(options)
    settings = Settings.of(options)
    from prithvi_hf.scenes.predict_scenes import process_group

    with process_group() as group:
        if options.scenes is not None:
            from prithvi_hf.cli.predict import predict_many

            return predict_many(options, settings, group)
        _predict_one(options, settings, group)
    return 0


@dataclass(frozen=True)
class Settings:
    """Options that are the same for all scenes.

    Attributes:
        predicting: As `predict_scene` takes them.
        opening: As `open_scene` takes them.
    """

    predicting: dict[str, Any]
    opening: dict[str, Any]

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Settings":
        """Read and check them; no model is needed for that.

        Args:
            options: The options of `predict`.

        Returns:
            The settings.

        Raises:
            ValueError: If one leaves its range.
        """
        from prithvi_hf.models.prithvi.sliding_window_prithvi import check_window_options

        window = _parse_window(options.window)
        check_window_options(window, options.overlap, options.batch_size)
        predicting = {
            "batch_size": options.batch_size,
            "overlap": options.overlap,
            "window": window,
            "blending": options.blending,
            "tta": options.tta,
            "probabilities_dtype": options.probabilities_dtype,
            "polygon_options": {"classes": options.polygon_classes, "min_area": options.min_area},
            "class_values": dict(_parse_class_value(item) for item in options.class_values),
            "on_read_error": options.on_read_error,
        }
        names = ("grid_mismatch", "resolution", "boa_add_offset", "fmask", "fmask_rule", "dates", "allow_remote")
        opening = {name: getattr(options, name) for name in (*names, "allow_vrt", "on_read_error")}
        return cls(predicting, {**opening, "grid": options.grid or "first", "scale": options.scale})


def _check_usage(options: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    _check_given(options)
    many = options.scenes is not None
    if many == (options.frames is not None):
        found = "both --frames and --scenes" if many else "neither --frames nor --scenes"
        raise ValueError(f"Expected either --frames with --output, or --scenes with --output_dir, found {found}.")
    wanted, other = ("output_dir", "output") if many else ("output", "output_dir")
    if getattr(options, wanted) is None or getattr(options, other) is not None:
        given = "--scenes" if many else "--frames"
        raise ValueError(f"{given} goes with --{wanted}: name there what is to be written, and leave --{other} out.")
    if many and options.dates:
        raise ValueError(
            "--dates are those of one scene: leave them out with --scenes, where names or items say them."
        )
    if many:
        named = [name for name in _SUFFIXES if isinstance(getattr(options, name), str)]
        named = [name for name in named if name != "polygons" or options.polygons not in _POLYGON_FORMATS]
        if named:
            raise ValueError(
                f"With --scenes every output is called after its scene: give --{named[0]} without a name"
                + (f", or one of {', '.join(_POLYGON_FORMATS)}." if named[0] == "polygons" else ".")
            )
    if options.polygons is None and (options.polygon_classes or options.min_area):
        raise ValueError("--polygon_classes and --min_area say which polygons are written: add --polygons.")


def _check_given(options: argparse.Namespace) -> None:
    """Refuse options with nothing after them, as a shell variable that is not set leaves them."""
    for name, value in vars(options).items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise ValueError(
                f'Expected a value after --{name}, found an empty one (""): give it, or leave the option out. Is a '
                "variable of the shell not set?"
            )


def output_paths(options: argparse.Namespace, output: Path) -> dict[str, Path]:
    """Name all outputs of a scene.

    Args:
        options: The options of `predict`.
        output: The map.

    Returns:
        "map" and the options that ask for more, to paths.
    """
    paths = {"map": output}
    for name, suffix in _SUFFIXES.items():
        value = getattr(options, name)
        if value in _POLYGON_FORMATS and name == "polygons":
            value, suffix = True, f".{value}"
        if value is not None:
            paths[name] = output.with_name(f"{output.stem}{suffix}") if value is True else Path(value)
    return paths


def _predict_one(options: argparse.Namespace, settings: Settings, group: Any) -> None:
    """Map one scene, by all processes together."""
    from prithvi_hf.scenes.predict_scene import check_outputs
    from prithvi_hf.scenes.scene import open_scene

    # What needs no model is checked first: it is loaded for a run that can succeed.
    paths = output_paths(options, Path(options.output))
    check_polygon_format(paths)
    check_outputs({PURPOSES.get(name, name): path for name, path in paths.items()}, options.frames, options.overwrite)
    device = resolve_device(group.device(options.device))
    with group.together():
        image_processor = load_image_processor(options.model)
        scene = open_scene(frames_of(options.frames), image_processor=image_processor, **settings.opening)
        model = load_typed_model(options)
        result = map_scene(model, image_processor, scene, paths, options, settings, group, device)
    if group.is_main and not options.quiet:
        _print_summary(result, paths)


def map_scene(
    model: Any,
    image_processor: Any,
    scene: Any,
    paths: dict[str, Path],
    options: argparse.Namespace,
    settings: Settings,
    group: Any,
    device: str,
    show_progress: bool = True,
    notes: dict[str, Any] | None = None,
) -> Any:
    """Map an opened scene.

    Args:
        model: The model.
        image_processor: Its image processor.
        scene: The scene.
        paths: As `output_paths` gives them.
        options: The options of `predict`.
        settings: Those that hold for every scene.
        group: The processes that work at this scene together.
        device: Where to run.
        show_progress: Whether the first process shows a bar, unless the options say that it shall be quiet.
        notes: Entries that the report gets as well.

    Returns:
        What `predict_scene` returns.
    """
    from prithvi_hf.scenes.predict_scene import predict_scene

    several = {"process_index": group.index, "num_processes": group.count, "barrier": group.barrier}
    return predict_scene(
        *(model, image_processor, scene, paths["map"]),
        **{name: path for name, path in paths.items() if name != "map"},
        **settings.predicting,
        **(several if group.count > 1 else {}),
        device=device,
        overwrite=options.overwrite,
        resume=options.resume,
        notes=notes,
        show_progress=show_progress and group.is_main and not options.quiet,
    )


def load_typed_model(options: argparse.Namespace) -> Any:
    """Load the model in the type that is asked for.

    Args:
        options: The options of `predict`.

    Returns:
        The model.
    """
    import torch

    model, _ = load_model(options.model)
    return model.to(getattr(torch, options.dtype))


def check_polygon_format(paths: dict[str, Path]) -> None:
    """Refuse polygons that cannot be written here.

    Args:
        paths: As `output_paths` gives them.

    Raises:
        ValueError: If the suffix is none of a format.
        ImportError: If packages are missing.
    """
    if "polygons" in paths:
        from prithvi_hf.outputs.vector_files import check_vector_path

        check_vector_path(paths["polygons"])


def frames_of(frames: Sequence[Any]) -> list[Any]:
    """Give frames as `open_scene` takes them.

    Args:
        frames: Paths, and tuples of paths for frames of one file a band.

    Returns:
        Paths and lists of paths.
    """
    return [list(frame) if isinstance(frame, tuple) else frame for frame in frames]


def _parse_class_value(text: str) -> tuple[int, int]:
    """Read one CLASS=VALUE."""
    index, separator, value = text.partition("=")
    if not separator or not index.isdecimal() or not value.isdecimal():
        raise ValueError(f"--class_values takes CLASS=VALUE pairs of whole numbers, e.g. 0=1 1=2, found {text!r}.")
    return int(index), int(value)


def _parse_window(sides: Sequence[int] | None) -> int | tuple[int, ...] | None:
    """Turn the words after --window into a side or (height, width)."""
    if sides is None:
        return None
    return sides[0] if len(sides) == 1 else tuple(sides)


def _print_summary(result: Any, paths: dict[str, Path]) -> None:
    """Print what was written and how much of the scene each class covers."""
    height, width = result.shape
    print(f"{height} x {width} pixels, CRS {result.crs}")
    for name, count in result.class_counts().items():
        print(f"  {name:<24} {count:>12} pixels  {100 * count / (height * width):6.2f} %")
    bad = result.report.get("bad_windows")
    if bad:
        print(f"  {len(bad)} areas could not be read and are no data: see --report")
    for name, path in paths.items():
        print(f"{PURPOSES.get(name, name)} written to {path}")


__all__ = [
    "PURPOSES",
    "Settings",
    "add_parser",
    "check_polygon_format",
    "frames_of",
    "load_typed_model",
    "map_scene",
    "output_paths",
    "run",
]
