# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf rasterize`: polygons and points as a mask on the grid of a scene."""

import argparse
import sys
from typing import Any

from prithvi_hf.cli.common import Commands, add_command, import_quickly


LABEL_OPTIONS: dict[str, dict[str, Any]] = {
    "--attribute": {"metavar": "NAME", "help": "attribute that holds the class: a whole number or a name"},
    "--layer": {"metavar": "NAME", "help": "layer of a vector file that has several"},
    "--classes": {
        "nargs": "+",
        "metavar": "VALUE",
        "help": "values in the order of the classes, VALUE or VALUE=NAME; values of one name are one class (default: "
        "numbers as they are, names sorted)",
    },
    "--ignore_values": {
        "nargs": "+",
        "default": [],
        "metavar": "VALUE",
        "help": "values that are not a class; what has them is unlabelled",
    },
    "--background": {
        "metavar": "CLASS",
        "help": "class of all pixels outside the features (default: they are unlabelled, 255, and training ignores "
        "them); one that is not among the classes becomes class 0",
    },
    "--all_touched": {
        "action": "store_true",
        "help": "polygons have every pixel that they touch (default: those whose centre is inside)",
    },
}
"""Options of every command that takes labels as a vector file."""

_EPILOG = r"""examples:
  prithvi-hf rasterize fields.gpkg --like scene.tif --attribute crop --output mask.tif
  prithvi-hf rasterize burns.geojson --like scene.tif --classes "burn scar" --background unburnt --output mask.tif
  prithvi-hf rasterize codes.shp --like scene.tif --attribute code --classes 10=water 20=forest 30=forest \
    --output mask.tif

Labels may be in any CRS. Where features overlap, the later one in the file is on top.
"""


def add_parser(commands: Commands) -> None:
    """Describe `rasterize`."""
    text = "turn polygons or points into a mask on the grid of a scene, in blocks"
    parser = add_command(commands, "rasterize", text, epilog=_EPILOG)
    add = parser.add_argument
    add("labels", metavar="LABELS", help="GeoPackage, GeoJSON, FlatGeobuf or shapefile of polygons or points")
    add("--like", required=True, metavar="SCENE", help="a GeoTIFF, or the folder of a granule, whose grid is taken")
    add("--output", required=True, metavar="TIF", help="mask to write: uint8 classes with names, 255 = unlabelled")
    for flag, settings in LABEL_OPTIONS.items():
        add(flag, **settings)
    add("--no_overwrite", dest="overwrite", action="store_false", help="refuse an output that exists")
    add("--quiet", action="store_true", help="print neither progress nor summary")


def run(options: argparse.Namespace) -> None:
    """Write a mask and say what is in it."""
    with import_quickly():
        from prithvi_hf.data.vector_labels import rasterize_labels
        from prithvi_hf.outputs.cog import check_output_path
        from prithvi_hf.rasters import TIFF_SUFFIXES
        from prithvi_hf.scenes.scene import open_scene

    check_output_path(options.output, [options.labels, options.like], options.overwrite, "mask", TIFF_SUFFIXES)
    names = ("attribute", "layer", "classes", "ignore_values", "background", "all_touched", "overwrite")
    report = rasterize_labels(
        options.labels,
        open_scene(options.like, scale="ignore").grid,
        options.output,
        **{name: getattr(options, name) for name in names},
        show_progress=not options.quiet,
    )
    warn_of_features(report)
    if not options.quiet:
        print(f"{report['features']} features, {report['outside']} of them outside the scene")
        for one in report["classes"]:
            print(f"  {one['value']:>3} {one['name']:<24} {one['pixels']:>14} pixels")
        print(f"  255 {'(unlabelled)':<24} {report['unlabelled_pixels']:>14} pixels")
        print(f"mask written to {options.output}")


def warn_of_features(report: dict[str, Any]) -> None:
    """Say on stderr what became of features that are not simply painted."""
    texts = {
        "repaired": "features are invalid and were repaired (make_valid)",
        "empty": "features have no shape",
        "without_value": "features have no value of the attribute and are unlabelled",
        "between_pixels": "polygons are so small that they hold no pixel centre; --all_touched paints them",
        "overlapping_pixels": "pixels are in features of several classes; the later feature in the file is on top",
    }
    for name, text in texts.items():
        if report.get(name):
            print(f"prithvi-hf: warning: {report[name]} {text}", file=sys.stderr)
