# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf chip`: one scene and its labels as a dataset of chips for fine-tuning."""

import argparse
from pathlib import Path
from typing import Any

from prithvi_hf.cli.common import Commands, add_command, import_quickly
from prithvi_hf.cli.predict_options import GROUPS
from prithvi_hf.cli.rasterize import LABEL_OPTIONS, warn_of_features


_EPILOG = """examples:
  prithvi-hf chip scene.tif fields.gpkg --attribute crop --output chips
  prithvi-hf chip june.tif july.tif august.tif mask.tif --size 224 --min_labelled 0.2 --output chips
then train with
  prithvi-hf finetune --config chips/recipe.yaml --data_dir chips --output_dir OUT --model prithvi-300m-tl

Frames are given as in `prithvi-hf predict`, several are the dates of one scene. A run that was interrupted continues
when the same command is given again.
"""
_READING = "how the frames are read"
_NOT_SHARED = ("--location", "--on_read_error")  # of places and damaged files of `predict`
_CHIPS: dict[str, dict[str, Any]] = {
    "--size": {"type": int, "default": 512, "metavar": "PIXELS", "help": "side of a chip (default 512)"},
    "--stride": {"type": int, "metavar": "PIXELS", "help": "from one chip to the next (default: the size)"},
    "--min_labelled": {
        "type": float,
        "default": 0.0,
        "metavar": "FRACTION",
        "help": "fraction of a chip that must have a label and data (default 0: at least one pixel)",
    },
    "--split": {
        "choices": ("spatial", "none"),
        "default": "spatial",
        "help": "spatial (default): blocks of chips that do not touch train, validate and test, each with its "
        "fraction of every class as far as can be; none: all chips train",
    },
    "--fractions": {
        "nargs": 3,
        "type": float,
        "default": (0.7, 0.15, 0.15),
        "metavar": "F",
        "help": "of the chips for train, validation and test (default 0.7 0.15 0.15); 0 leaves a split out",
    },
    "--gap": {"type": int, "metavar": "PIXELS", "help": "between blocks, in no chip (default: a 16th of the size)"},
    "--block": {"type": int, "metavar": "CHIPS", "help": "side of a block (default: about a hundred blocks)"},
    "--seed": {"type": int, "default": 0, "help": "chooses among divisions into splits (default 0)"},
}


def add_parser(commands: Commands) -> None:
    """Describe `chip`."""
    text = "cut a scene and its labels into chips with splits that share no pixel, ready for fine-tuning"
    parser = add_command(commands, "chip", text, epilog=_EPILOG)
    add = parser.add_argument
    add("frames", nargs="+", metavar="SCENE", help="the scene: its GeoTIFF, or those of all its dates in time order")
    add("labels", metavar="LABELS", help="vector file of polygons or points, or a mask")
    add("--output", required=True, metavar="DIR", help="folder for chips, splits, recipe.yaml, report.json, chips.png")
    add("--quiet", action="store_true", help="print neither progress nor summary")
    add = parser.add_argument_group("how the scene is divided").add_argument
    for flag, settings in _CHIPS.items():
        add(flag, **settings)
    add = parser.add_argument_group("what the labels mean").add_argument
    for flag, settings in LABEL_OPTIONS.items():
        add(flag, **settings)
    add = parser.add_argument_group(_READING).add_argument
    add("--bands", nargs="+", metavar="NAME", help="bands that the model will take (default: Prithvi's six)")
    add("--num_frames", type=int, metavar="N", help="dates that a single file stacks")
    for flag, settings in GROUPS[_READING].items():
        if flag not in _NOT_SHARED:
            default = {"default": settings["choices"][0]} if "choices" in settings and "nargs" not in settings else {}
            add(flag, **{**default, **settings})


def run(options: argparse.Namespace) -> None:
    """Write chips, and say how many each split has."""
    with import_quickly():
        from prithvi_hf.data.chip_layout import ChipOptions
        from prithvi_hf.data.vector_labels import LabelOptions
        from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
        from prithvi_hf.scenes.chip_scene import PICTURE, RECIPE, chip_scene

    chips = ChipOptions(**{flag[2:]: getattr(options, flag[2:]) for flag in _CHIPS})
    labels = LabelOptions(**{flag[2:]: getattr(options, flag[2:]) for flag in LABEL_OPTIONS})
    count = options.num_frames or len(options.frames)
    # The numbers of other bands count as those of HLS do, reflectance times 10,000, where their units are asked for.
    own = {}
    if options.bands is not None:
        own = {"bands": options.bands, "image_mean": [1500.0] * len(options.bands), "image_std": [1000.0]}
        own["image_std"] *= len(options.bands)
    reading = {flag[2:]: getattr(options, flag[2:]) for flag in GROUPS[_READING] if flag not in _NOT_SHARED}
    report = chip_scene(
        options.frames if len(options.frames) > 1 else options.frames[0],
        options.labels,
        options.output,
        image_processor=PrithviImageProcessor(num_frames=count, **own),
        chips=chips,
        label_options=labels,
        show_progress=not options.quiet,
        **reading,
    )
    warn_of_features(report["features"] or {})
    if options.quiet:
        return
    states, folder = report["chips"], Path(options.output)
    print(
        f"{states['written']} chips, {states['unlabelled']} left out for their labels, {states['nodata']} without data"
    )
    for split, found in report["splits"].items():
        print(
            f"{split}: {found['chips']} chips in {found['blocks']} blocks, {found['labelled_pixels']} labelled pixels"
        )
        for name, pixels in found["classes"].items():
            print(f"  {name:<24} {pixels:>12} pixels  {100 * pixels / max(1, found['labelled_pixels']):6.2f} %")
    print(f"recipe written to {folder / RECIPE}\npicture written to {folder / PICTURE}")
