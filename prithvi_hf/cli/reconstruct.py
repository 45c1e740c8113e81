# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf reconstruct`: what a masked autoencoder makes of the hidden part of a window."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from prithvi_hf.cli.common import (
    BAND_OPTIONS,
    Commands,
    add_command,
    import_quickly,
    load_image_processor,
    load_whole_model,
    resolve_device,
)


def add_parser(commands: Commands) -> None:
    """Describe `reconstruct`."""
    text = "hide patches of a scene and draw what a masked autoencoder makes of them"
    parser = add_command(commands, "reconstruct", text)
    parser.add_argument(
        "--model", required=True, help="folder of a PrithviForPreTraining and its image processor, or a Hub id"
    )
    parser.add_argument(
        "--frames",
        nargs="+",
        required=True,
        metavar="FRAME",
        help="the scene: its GeoTIFF, or those of all its dates in time order; folders or band files of granules",
    )
    parser.add_argument(
        "--output", required=True, metavar="PNG", help="picture: input, what the model saw, and reconstruction"
    )
    parser.add_argument(
        "--geotiff", metavar="TIF", help="reconstruction as float32 in the units that the model takes, nodata NaN"
    )
    parser.add_argument(
        "--mask_ratio", type=float, metavar="R", help="fraction of patches to hide, 0 <= R < 1 (default: the model's)"
    )
    parser.add_argument("--seed", type=int, default=0, help="chooses which patches are hidden (default 0)")
    parser.add_argument(
        "--window",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="side of the window, or height and width, in pixels (default: the model's image_size)",
    )
    parser.add_argument(
        "--offset",
        type=int,
        nargs=2,
        metavar=("ROW", "COLUMN"),
        help="upper left pixel of the window (default: in the middle of the scene)",
    )
    for flag, settings in BAND_OPTIONS.items():
        parser.add_argument(flag, **settings)
    parser.add_argument(
        "--scale",
        choices=("auto", "apply", "refuse", "ignore"),
        default="auto",
        help="scale and offset of files and products, as of predict (default auto)",
    )
    parser.add_argument("--boa_add_offset", type=float, metavar="X", help="offset of Sentinel-2 values")
    parser.add_argument("--dates", nargs="+", metavar="DATE", help="date of each frame, where names do not say it")
    parser.add_argument("--device", default="auto", help='"auto" (default: a CUDA GPU where there is one), "cpu", ...')


def run(options: argparse.Namespace) -> int:
    """Draw the reconstruction of one window."""
    with import_quickly():
        from prithvi_hf.disk import check_writable_folder
        from prithvi_hf.models.prithvi.pretraining_prithvi import PrithviForPreTraining
        from prithvi_hf.outputs.cog import check_output_path
        from prithvi_hf.rasters import TIFF_SUFFIXES
        from prithvi_hf.rasters.opening import FrameOptions
        from prithvi_hf.scenes.reconstruct import reconstruct_window
        from prithvi_hf.scenes.scene import open_scene, warn_of_unknown_coordinates

    for name, suffixes in (("output", (".png",)), ("geotiff", TIFF_SUFFIXES)):
        value = getattr(options, name)
        if value is not None:
            check_output_path(value, purpose=f"file of --{name}", suffixes=suffixes)
            check_writable_folder(Path(value).absolute().parent, f"the folder of --{name}")
    if options.seed < 0:
        raise ValueError(f"Expected a --seed of at least 0, found {options.seed}.")
    if options.window is not None and (len(options.window) > 2 or min(options.window) < 1):
        raise ValueError(f"Expected --window as one side or height and width, found {options.window}.")
    names = {field.name for field in fields(FrameOptions)} & vars(options).keys()
    opening = FrameOptions(**{name: getattr(options, name) for name in names})
    image_processor = opening.adapt(load_image_processor(options.model))
    scene = open_scene(options.frames, image_processor, opening)
    for path in filter(None, (options.output, options.geotiff)):
        check_output_path(path, scene.files, purpose="file")
    device: Any = resolve_device(options.device)
    remedy = (
        "Without them it has no decoder that predicts pixels. Convert the published weights with `prithvi-hf convert "
        "--for_model PrithviForPreTraining`, or pretrain it with `prithvi-hf pretrain`."
    )
    model = load_whole_model(PrithviForPreTraining, options.model, remedy).to(device).eval()
    warn_of_unknown_coordinates(scene, image_processor, model.config.coords_encoding)
    height, width = (options.window * 2)[:2] if options.window else model.config.frame_size
    height, width = min(height, scene.grid.height), min(width, scene.grid.width)
    row, column = options.offset or ((scene.grid.height - height) // 2, (scene.grid.width - width) // 2)
    found = reconstruct_window(
        model,
        image_processor,
        scene,
        (row, column, height, width),
        mask_ratio=options.mask_ratio,
        seed=options.seed,
    )
    found.to_png(options.output)
    print(
        f"{found.hidden.mean():.0%} of {' x '.join(map(str, found.hidden.shape))} pixels hidden, loss {found.loss:.4f}"
    )
    print(f"picture written to {options.output}")
    if options.geotiff is not None:
        found.to_geotiff(options.geotiff)
        print(f"reconstruction written to {options.geotiff}")
    return 0
