# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf demo`: a page on which people map their scenes in a browser."""

import argparse
import sys

from prithvi_hf.cli.common import Commands, add_command, import_quickly
from prithvi_hf.cli.fetch import SEARCH_OPTIONS


_EPILOG = """examples:
  prithvi-hf demo --model OUT --examples scenes/
  prithvi-hf demo --model OUT --collection hls --max_cloud 60
  prithvi-hf demo --model USER/NAME --host 0.0.0.0 --port 8000 --max_megapixels 4 --max_seconds 120

The page works without the internet. Files of visitors are in a temporary folder, and go when they leave the page.
"""


def add_parser(commands: Commands) -> None:
    """Describe `demo`."""
    text = "map scenes in a browser: upload or choose a scene, see and download its map"
    add = add_command(commands, "demo", text, epilog=_EPILOG).add_argument
    add("--model", required=True, help="folder of a fine-tuned or exported model of classes, or a Hub id")
    add(
        "--examples",
        metavar="DIR",
        help="folder of scenes to choose: GeoTIFFs, or, for a model of several dates, a folder of GeoTIFFs each",
    )
    for flag in ("--collection", "--stac", "--sign", "--max_cloud"):
        settings = SEARCH_OPTIONS[flag]
        if flag == "--collection":
            settings = {**settings, "help": f"visitors may also name a place and dates, of {settings['help']}"}
        add(flag, **settings)
    add("--title", help="heading of the page (default: made of the name of the model)")
    add("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine alone)")
    add("--port", type=int, default=7860, help="port to listen on (default 7860)")
    add("--device", default="auto", help='"auto" (default: a CUDA GPU where there is one), "cpu", "cuda", "cuda:1"')
    add(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16", "float16", "auto"),
        help="what the model computes in (default float32), as in predict",
    )
    add("--max_megabytes", type=float, default=500.0, metavar="MB", help="largest file (default 500)")
    add(
        "--max_megapixels", type=float, default=16.0, metavar="N", help="largest scene, in million pixels (default 16)"
    )
    add("--max_seconds", type=float, default=600.0, metavar="S", help="longest run of a map (default 600)")


def run(options: argparse.Namespace) -> int:
    """Show the page until Ctrl-C or SIGTERM."""
    if not 0 < options.port < 65536:
        raise ValueError(f"--port: expected a number from 1 to 65535, found {options.port}. Choose another one.")
    if options.collection is None and (options.stac or options.sign or options.max_cloud is not None):
        raise ValueError("--stac, --sign and --max_cloud say how scenes are searched for: add --collection.")
    with import_quickly():
        from prithvi_hf.demo.app import DemoOptions, run_demo
        from prithvi_hf.demo.jobs import Limits
        from prithvi_hf.demo.places import Catalog

    catalog = None
    if options.collection is not None:
        catalog = Catalog(tuple(options.collection), options.stac, options.sign, options.max_cloud)
    limits = Limits(options.max_megabytes, options.max_megapixels, options.max_seconds)
    settings = {name: getattr(options, name) for name in ("examples", "title", "host", "port", "device", "dtype")}
    run_demo(
        DemoOptions(options.model, limits=limits, catalog=catalog, **settings),
        lambda text: print(f"prithvi-hf: warning: {text}", file=sys.stderr),
    )
    return 0
