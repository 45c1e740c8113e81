# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf composite`: many dates as one GeoTIFF without clouds."""

import argparse
from typing import Any

from prithvi_hf.cli.common import BAND_OPTIONS, Commands, add_command, import_quickly, load_image_processor


__all__ = ["add_parser", "run"]

# What loads in no time is repeated here.
METHODS = ("median", "clearest")
_KINDS = ("cirrus", "cloud", "adjacent", "shadow", "snow", "water")

FMASK_OPTION: dict[str, Any] = {
    "nargs": "*",
    "choices": _KINDS,
    "metavar": "KIND",
    "help": "pixels that the quality layer of a granule (Fmask, SCL, QA_PIXEL) marks as one of these are left out "
    f"({', '.join(_KINDS)}; default: cirrus cloud shadow); without a kind, none is",
}

_EPILOG = """examples:
  prithvi-hf composite --scenes fetched/granules --output summer.tif
  prithvi-hf composite --scenes "june/*" --method clearest --fmask cloud adjacent shadow --output june.tif

The file holds reflectance times 10,000, as HLS does, and is a frame for `prithvi-hf predict`. Its last band says on
how many dates each pixel was clear.
"""


def add_parser(commands: Commands) -> None:
    """Describe `composite`."""
    text = "make one GeoTIFF without clouds of scenes of many dates and tiles"
    parser = add_command(commands, "composite", text, " Memory does not grow with the area.", _EPILOG)
    parser.add_argument(
        "--scenes",
        required=True,
        metavar="LIST",
        help="scenes of one date each: a folder of granules, a quoted glob, or a list, as `predict` takes them",
    )
    parser.add_argument("--output", required=True, metavar="TIF", help="the file to write")
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="median",
        help="median (default): in each band the median of the clear dates; clearest: all bands of one date, of those "
        "that are clear there the one with the most clear pixels",
    )
    parser.add_argument("--fmask", **FMASK_OPTION)
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="folder or Hub id of a model: its bands are composed (default: Prithvi's six)",
    )
    parser.add_argument("--resolution", type=float, metavar="UNITS", help="side of a pixel in units of the CRS")
    parser.add_argument(
        "--boa_add_offset",
        type=float,
        metavar="X",
        help="offset of Sentinel-2 values, where the product does not say it",
    )
    for flag, settings in BAND_OPTIONS.items():
        parser.add_argument(flag, **settings)
    parser.add_argument("--allow_remote", action="store_true", help="read http(s) addresses in a list")
    parser.add_argument(
        "--no_overwrite", dest="overwrite", action="store_false", help="refuse to replace a file that exists"
    )
    parser.add_argument("--quiet", action="store_true", help="print neither progress nor summary")


def run(options: argparse.Namespace) -> int:
    """Compose the scenes of a list."""
    with import_quickly():
        from prithvi_hf.outputs.cog import check_output_path
        from prithvi_hf.rasters import TIFF_SUFFIXES
        from prithvi_hf.rasters.opening import FrameOptions
        from prithvi_hf.scenes.composite import DEFAULT_FMASK, make_processor, open_options, write_composite
        from prithvi_hf.scenes.scene_list import list_scenes, open_entry

    fmask = DEFAULT_FMASK if options.fmask is None else tuple(options.fmask)
    names = ("resolution", "boa_add_offset", "allow_remote", *(flag[2:] for flag in BAND_OPTIONS))
    opening = FrameOptions(fmask=fmask, **{name: getattr(options, name) for name in names})
    check_output_path(options.output, (), options.overwrite, "composite", TIFF_SUFFIXES)
    model = load_image_processor(options.model) if options.model else None
    processor = opening.adapt(make_processor(model))
    entries = list_scenes(options.scenes, allow_remote=options.allow_remote)
    for entry in entries:
        if entry.problem:
            raise ValueError(f"{entry.origin}: {entry.problem}")
    scenes = [open_entry(entry, processor, open_options(opening)) for entry in entries]
    result = write_composite(
        scenes,
        processor,
        options.output,
        method=options.method,
        fmask=fmask,
        resolution=options.resolution,
        overwrite=options.overwrite,
        show_progress=not options.quiet,
    )
    if not options.quiet:
        print_composite(result)
    return 0


def print_composite(result: Any) -> None:
    """Say what was composed."""
    print(
        f"{result.path}: {result.size[0]} x {result.size[1]} pixels, CRS {result.crs}, dates: {len(result.dates)}, "
        f"{100 * result.covered:.1f} % clear on at least one"
    )
