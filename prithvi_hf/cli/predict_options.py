# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Options of `prithvi-hf predict`, and what they say about scenes, windows and outputs.

Options are called as the keywords of `predict_scene`. Everything heavy is imported inside the functions, so that help
and usage errors cost nothing.
"""

import argparse
from typing import TYPE_CHECKING, Any

from prithvi_hf.cli.common import BAND_OPTIONS, TRUST_OPTION, Commands, add_command
from prithvi_hf.cli.fetch import SEARCH_OPTIONS
from prithvi_hf.outputs.registry import OUTPUTS


if TYPE_CHECKING:
    from prithvi_hf.rasters.opening import FrameOptions

_EPILOG = """examples:
  prithvi-hf predict --model OUT --frames scene.tif --output map.tif --probabilities --quicklook
  prithvi-hf predict --model OUT --frames june.tif july.tif august.tif --output map.tif --polygons
  prithvi-hf predict --model OUT --frames june/ july/ august/ --output map.tif --fmask cloud shadow
  prithvi-hf predict --model OUT --bbox 12.2 45.3 12.5 45.5 --dates 2022-06 --collection hls --output map.tif
  prithvi-hf predict --model OUT --scenes "tiles/*.tif" --output_dir maps
  torchrun --nproc_per_node 8 -m prithvi_hf.cli predict --model OUT --scenes granules/ --output_dir maps

A frame is a GeoTIFF of all bands, or a folder with a file for each band, such as a granule of HLS, Sentinel-2 or
Landsat; several frames are the dates of one scene in time order. A run that was interrupted continues where it was
when the same command is given again. With --scenes the exit status is 1 when a scene failed, and summary.json says
why.
"""
# The first of the choices is the default.
_OUTPUTS_TITLE = "what is written beside each map"
GROUPS: dict[str, dict[str, dict[str, Any]]] = {
    "scenes and where their maps go": {
        "--frames": {
            "nargs": "+",
            "metavar": "FRAME",
            "help": "one scene: its GeoTIFF, or those of all its dates in time order; folders or band files of "
            "granules",
        },
        "--output": {
            "metavar": "TIF",
            "help": "with --frames or --bbox: map to write, uint8 classes, 255 = nodata; of a "
            "regression model float32 values, NaN = nodata",
        },
        "--scenes": {
            "metavar": "LIST",
            "help": "many scenes: a text list (frames of a scene in one line), .csv, .jsonl, a quoted glob, a folder "
            "of GeoTIFFs, of granules (grouped by tile and date) or of folders of bands, or a STAC item collection "
            "(.json)",
        },
        "--output_dir": {
            "metavar": "DIR",
            "help": "with --scenes: folder for NAME.tif, what else is asked for, NAME.json and summary.json; scenes "
            "that are finished there are skipped",
        },
        **SEARCH_OPTIONS,
        "--no_overwrite": {
            "dest": "overwrite",
            "action": "store_false",
            "help": "refuse outputs that exist; otherwise they are replaced, and only by complete ones",
        },
    },
    _OUTPUTS_TITLE: {
        "--probabilities_dtype": {
            "choices": ("float32", "uint8"),
            "help": "type of probabilities, confidence and entropy; float32 (default): 0 to 1, nodata NaN; uint8: 0 "
            "to 254 with scale 1/254 in the file, nodata 255",
        },
        "--polygon_classes": {
            "nargs": "+",
            "metavar": "CLASS",
            "help": "classes of the polygons, by name or file value (default: all)",
        },
        "--min_area": {
            "type": float,
            "default": 0.0,
            "metavar": "M2",
            "help": "smallest polygon in square metres (default 0)",
        },
        "--class_values": {
            "nargs": "+",
            "default": [],
            "metavar": "CLASS=VALUE",
            "help": "file values (0 to 254) of class indices where the two differ, e.g. 0=1 1=2",
        },
    },
    "how the model slides over the scene": {
        "--overlap": {
            "type": float,
            "default": 0.5,
            "metavar": "FRACTION",
            "help": "fraction of a window that the next one covers again, 0 <= FRACTION < 1 (default 0.5)",
        },
        "--window": {
            "type": int,
            "nargs": "+",
            "metavar": "PIXELS",
            "help": "side of the windows, or height and width, in pixels (default: the model's image_size)",
        },
        "--batch_size": {
            "type": int,
            "default": 8,
            "metavar": "WINDOWS",
            "help": "windows in one forward pass, at least 1 (default 8); less needs less memory",
        },
        "--blending": {
            "choices": ("uniform", "cosine", "gaussian"),
            "help": "weights of overlapping windows: uniform (default, as in the published evaluation), or less "
            "weight for their borders",
        },
        "--tta": {
            "choices": ("none", "d4"),
            "help": "d4: mean over the eight turned and mirrored windows, at eight times the cost (default none)",
        },
    },
    "how the frames are read": {
        "--grid_mismatch": {
            "choices": ("warp", "refuse"),
            "help": "frames on other grids than the first are warped to it (default), or refused",
        },
        "--grid": {
            "default": "first",
            "metavar": "TIF",
            "help": "GeoTIFF whose grid the map gets (default: the first frame's)",
        },
        "--resolution": {"type": float, "metavar": "UNITS", "help": "side of the map's pixels in units of the CRS"},
        "--scale": {
            "choices": ("auto", "apply", "refuse", "ignore"),
            "help": "scale and offset of files and products: auto (default) brings numbers to the model's units, "
            "apply to reflectance, ignore takes them as they are, refuse makes an error of those that would change",
        },
        "--boa_add_offset": {
            "type": float,
            "metavar": "X",
            "help": "offset of Sentinel-2 values, where the product does not say it",
        },
        "--rescale_factor": {
            "type": float,
            "metavar": "X",
            "help": "multiply the numbers of the files by X in this run, in place of the model's own factor; scale "
            "and offset of files and products are left alone then",
        },
        "--rescale_offset": {"type": float, "metavar": "X", "help": "add X after that, in place of the model's own"},
        "--fmask": {
            "nargs": "+",
            "default": [],
            "choices": ("cirrus", "cloud", "adjacent", "shadow", "snow", "water"),
            "help": "pixels that Fmask of HLS, SCL of Sentinel-2 or QA_PIXEL of Landsat marks as one of these are "
            "nodata. Of several dates, any is enough unless --fmask_rule says otherwise. A date that lacks data for "
            "other reasons (swath edge) is filled there, and the map is nodata where all dates lack it (nodata_rule "
            "of the model's image processor)",
        },
        "--fmask_rule": {
            "choices": ("any", "all"),
            "help": "pixels masked by --fmask in any date are nodata in the map (default); all: masked dates are "
            "filled, and the map is nodata where all dates are",
        },
        **BAND_OPTIONS,
        "--dates": {
            "nargs": "+",
            "metavar": "DATE",
            "help": "date of each frame, e.g. 2022-06-01, where file names do not say it; of a place that is "
            "searched the date, or days FROM/TO, of each frame: the clearest is taken",
        },
        "--location": {
            "nargs": 2,
            "type": float,
            "metavar": ("LAT", "LON"),
            "help": "latitude and longitude of the centre in degrees, of a scene without CRS for a model that takes "
            "places",
        },
        "--on_read_error": {
            "choices": ("raise", "nodata"),
            "help": "a block that cannot be read ends the scene (default), or is nodata in the map and listed in the "
            "report",
        },
        "--verify": {
            "action": "store_true",
            "help": "test the checksums of deflate blocks first: finds damage that GDAL does not notice, but reads "
            "every file twice",
        },
        "--allow_remote": {
            "action": "store_true",
            "help": "read http(s) addresses; anyone who writes a list can name any address",
        },
        "--allow_vrt": {"action": "store_true", "help": "read VRT files, which can name any other file"},
    },
    "how the work is done": {
        "--device": {
            "default": "auto",
            "help": '"auto" (default: a CUDA GPU where there is one), "cpu", "cuda", "cuda:1"; processes of one '
            "machine take its GPUs in turn",
        },
        "--dtype": {
            "choices": ("float32", "bfloat16", "float16", "auto"),
            "help": "what the model computes in (default float32); auto: bfloat16 where the machine has matrix units "
            "for it and 99.5 %% of the pixels of some windows get the class that float32 gives, else float32",
        },
        "--compile": {
            "action": "store_true",
            "help": "compile the model for its windows first (torch.compile, with CUDA graphs on a GPU): takes a "
            "minute, pays for large scenes on a GPU",
        },
        "--trust_remote_code": TRUST_OPTION,
        "--split_scene": {"action": "store_true", "help": "with --scenes: all processes work at each scene together"},
        "--no_resume": {
            "dest": "resume",
            "action": "store_false",
            "help": "compute again what an earlier run left or finished",
        },
        "--quiet": {"action": "store_true", "help": "print neither progress nor summary"},
    },
}


def add_parser(commands: Commands) -> None:
    """Describe `predict`."""
    text = "map scenes of any size: GeoTIFF frames in, Cloud-Optimized GeoTIFF of classes or values out"
    note = " Memory grows with the width of the scene only."
    parser = add_command(commands, "predict", text, note, _EPILOG)
    parser.add_argument("--model", required=True, help="folder of a fine-tuned or exported model, or a Hub id")
    for title, options in GROUPS.items():
        group = parser.add_argument_group(title)
        for output in OUTPUTS if title == _OUTPUTS_TITLE else ():
            if output.name != "map":
                text = f"{output.help}; without a name NAME{output.ending}"
                group.add_argument(f"--{output.name}", nargs="?", const=True, metavar=output.metavar, help=text)
        for flag, settings in options.items():
            default = {"default": settings["choices"][0]} if "choices" in settings else {}
            group.add_argument(flag, **{**default, **settings})


def check_usage(options: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    present = set()
    for name, value in vars(options).items():
        if value is not None:
            present.add(f"--{name}")
        if value == "" or (isinstance(value, list) and "" in value):
            raise ValueError(
                f'Expected a value after --{name}, found an empty one (""): give it, or leave the option out. Is a '
                "variable of the shell not set?"
            )
    given = sorted(present & {"--bbox", "--frames", "--scenes"})
    if len(given) != 1:
        raise ValueError(
            "Expected either --frames or --bbox with --output, or --scenes with --output_dir, found "
            f"{' and '.join(given) or 'none of them'}."
        )
    many = given == ["--scenes"]
    wanted, other = ("output_dir", "output") if many else ("output", "output_dir")
    if getattr(options, wanted) is None or getattr(options, other) is not None:
        raise ValueError(f"{given[0]} goes with --{wanted}, which names what is written; leave --{other} out.")
    if many and (options.dates or options.location):
        raise ValueError(
            f"{'--dates are those' if options.dates else '--location is that'} of one scene: leave them out with "
            "--scenes, where names or items say them."
        )
    if given == ["--bbox"]:
        missing = [f"--{name}" for name in ("dates", "collection") if not getattr(options, name)]
        if missing:
            raise ValueError(f"--bbox goes with --dates and --collection: add {' and '.join(missing)}.")
        if options.location:
            raise ValueError("--location is that of a scene without CRS: leave it out with --bbox.")
    elif extra := sorted(present & {*SEARCH_OPTIONS}):
        raise ValueError(f"{' and '.join(extra)} say what is searched for a place: add --bbox, or leave them out.")
    for output in OUTPUTS if many else ():
        value = getattr(options, output.name, None)
        if isinstance(value, str) and f".{value}" not in output.suffixes:
            formats = ", ".join(suffix[1:] for suffix in output.suffixes)
            raise ValueError(
                f"With --scenes every output is called after its scene: give --{output.name} without a name, or one "
                f"of {formats}."
            )
    if options.polygons is None and (options.polygon_classes or options.min_area):
        raise ValueError("--polygon_classes and --min_area say which polygons are written: add --polygons.")


def read_options(options: argparse.Namespace) -> tuple["FrameOptions", dict[str, Any]]:
    """Read and check the options that are the same for all scenes; no model is needed for that.

    Gives how frames are opened, and keywords of `predict_scene` for a scene that is open.
    """
    from prithvi_hf.scenes.predict_scene import OPTION_NAMES, sort_options

    keywords = {name: getattr(options, name) for names in OPTION_NAMES.values() for name in names}
    keywords |= {output.name: getattr(options, output.name) for output in OUTPUTS if output.name != "map"}
    if options.window is not None and len(options.window) == 1:
        keywords["window"] = options.window[0]
    keywords["class_values"] = {}
    for text in options.class_values:
        index, _, value = text.partition("=")
        if not index.isdecimal() or not value.isdecimal():
            raise ValueError(f"--class_values takes CLASS=VALUE pairs of whole numbers, e.g. 0=1 1=2, found {text!r}.")
        keywords["class_values"][int(index)] = int(value)
    asked, windows, opening, writing = sort_options(keywords)
    how = {"on_read_error": opening.on_read_error, "dtype": options.dtype, "compile": options.compile}
    return opening, {**asked, **vars(windows), **vars(writing), **how}
