# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf compare-maps`: what changed from one map of classes to another."""

import argparse

from prithvi_hf.cli.common import Commands, add_command, import_quickly


_EPILOG = """examples:
  prithvi-hf compare-maps 2021.tif 2024.tif --output change.tif --report change.json --picture change.png
"""


def add_parser(commands: Commands) -> None:
    """Describe `compare-maps`."""
    text = "compare two maps of classes: areas that became another class, as figures, a map and a picture"
    parser = add_command(commands, "compare-maps", text, epilog=_EPILOG)
    add = parser.add_argument
    add("first", metavar="A", help="the earlier map, on whose grid everything is told")
    add("second", metavar="B", help="the later one; its classes are matched by their names")
    add("--output", metavar="TIF", help="map of the change to write: classes that stay, and each change; 255 = nodata")
    add("--report", metavar="JSON", help="figures to write: matrix of pixels and areas, gain and loss of each class")
    add("--picture", metavar="PNG", help="picture to write: both maps and their change")
    add(
        "--grid_mismatch",
        choices=("warp", "refuse"),
        default="warp",
        help="a second map on another grid is brought to the first one's by the nearest pixel (default), or refused",
    )
    add("--class_names", nargs="+", metavar="NAME", help="names of the values 0, 1, ... in maps that carry none")
    add("--no_overwrite", dest="overwrite", action="store_false", help="refuse outputs that exist")
    add("--quiet", action="store_true", help="print neither progress nor figures")


def run(options: argparse.Namespace) -> None:
    """Compare two maps, and say what changed."""
    with import_quickly():
        from prithvi_hf.outputs.map_change import compare_maps

    change = compare_maps(
        options.first,
        options.second,
        options.output,
        report=options.report,
        picture=options.picture,
        grid_mismatch=options.grid_mismatch,
        class_names=options.class_names,
        overwrite=options.overwrite,
        show_progress=not options.quiet,
    )
    if options.quiet:
        return
    print(change.table())
    same = f"{100 * change.agreement:.2f} % of {int(change.pixels.sum()):,} pixels have the same class in both"
    print(f"{same}; {change.only_first:,} have one in the first map alone, {change.only_second:,} in the second")
    for name in ("output", "report", "picture"):
        if getattr(options, name) is not None:
            print(f"{name} written to {getattr(options, name)}")
