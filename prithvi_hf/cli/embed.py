# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf embed`: what the encoder says of each patch of a scene, or of each chip."""

import argparse
import glob
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prithvi_hf.cli.common import (
    Commands,
    add_command,
    import_quickly,
    load_image_processor,
    load_whole_model,
    resolve_device,
    run_list,
    user_message,
)
from prithvi_hf.cli.predict_options import GROUPS


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
    from prithvi_hf.models.prithvi.modeling_prithvi import PrithviModel
    from prithvi_hf.rasters.opening import FrameOptions
    from prithvi_hf.scenes.scene_list import SceneEntry

_EPILOG = """examples:
  prithvi-hf embed --model OUT --frames scene.tif --output embeddings.tif
  prithvi-hf embed --model OUT --scenes "tiles/*.tif" --output_dir embeddings --embedding_dtype float16
  prithvi-hf embed --model OUT --chips "chips/*_merged.tif" --output embeddings.parquet
  prithvi-hf embed --model OUT --chips sen1floods11 --data_dir floods --output embeddings.parquet

A model is any folder with an encoder: a converted backbone, a pretraining model, or a fine-tuned one, whose neck and
head are not used. Frames are given as in `prithvi-hf predict`.
"""
_OF_SCENES = ("layer", "frames_as", "embedding_dtype", "window", "overlap", "blending", "on_read_error")
_TARGETS = {"frames": "output", "scenes": "output_dir", "chips": "output"}  # what is read: what is written
_OF_CHIPS = {"pooling": "mean", "data_dir": None, "splits": None}  # their defaults
_OF_MAPS = {"frames_as": "mean", "embedding_dtype": "float32"}
_NOT_SHARED = ("--tta", "--split_scene", "--compile", "--trust_remote_code")  # of the options of `predict`
_SHARED = ("how the model slides over the scene", "how the frames are read", "how the work is done")
_RECIPES = "a recipe (a name such as sen1floods11, or a YAML file)"
_GROUPS: dict[str, dict[str, dict[str, Any]]] = {
    "what is read and where embeddings go": {
        "--frames": {
            "nargs": "+",
            "metavar": "FRAME",
            "help": "one scene: its GeoTIFF, or all its dates in time order",
        },
        "--scenes": {"metavar": "LIST", "help": "many scenes, a list as `prithvi-hf predict` takes it"},
        "--chips": {"help": f"a folder of GeoTIFFs of all bands, a quoted glob of them, or {_RECIPES}"},
        "--data_dir": {"metavar": "DIR", "help": "folder of a recipe's dataset (default: the recipe's, or download)"},
        "--splits": {"nargs": "+", "metavar": "NAME", "help": "splits of a recipe's dataset (default: all)"},
        "--num_frames": {"type": int, "metavar": "N", "help": "dates of a scene or chip, if not the model's"},
        "--output": {"metavar": "FILE", "help": "GeoTIFF to write with --frames, Parquet file with --chips"},
        "--output_dir": {"metavar": "DIR", "help": "with --scenes: folder for NAME.tif; finished scenes are skipped"},
        "--no_overwrite": {"dest": "overwrite", "action": "store_false", "help": "refuse an output that exists"},
    },
    "what is written": {
        "--layer": {"type": int, "default": -1, "metavar": "N", "help": "layer, from 0; -1 (default) is the last one"},
        "--pooling": {"choices": ("mean", "cls"), "help": "of chips: mean of the patches (default), or class token"},
        "--frames_as": {"choices": ("mean", "separate"), "help": "of several dates: mean (default), or all bands"},
        "--embedding_dtype": {"choices": ("float32", "float16"), "help": "of scenes; float16 takes half the room"},
    },
    **{title: GROUPS[title] for title in _SHARED},
}
_DTYPE = {"choices": ("float32", "bfloat16", "float16"), "help": "type of the weights (default float32)"}
_GROUPS["how the work is done"] = {**_GROUPS["how the work is done"], "--dtype": _DTYPE}


def add_parser(commands: Commands) -> None:
    """Describe `embed`."""
    text = "embed scenes as a GeoTIFF with one pixel per patch, or chips as a Parquet file with one row per chip"
    parser = add_command(commands, "embed", text, epilog=_EPILOG)
    parser.add_argument("--model", required=True, help="folder of a model and its image processor, or a Hub id")
    for title, options in _GROUPS.items():
        group = parser.add_argument_group(title)
        for flag, settings in options.items():
            if flag not in _NOT_SHARED:
                default = {"default": settings["choices"][0]} if "choices" in settings else {}
                group.add_argument(flag, **{**default, **settings})


def run(options: argparse.Namespace) -> int:
    """Write embeddings; the exit status is 1 where one of many scenes failed."""
    given = [name for name in _TARGETS if getattr(options, name) is not None]
    if len(given) != 1:
        found = " and ".join(f"--{name}" for name in given) or "none of them"
        raise ValueError(f"Expected one of --frames, --scenes and --chips, found {found}.")
    wanted = _TARGETS[given[0]]
    other = "output" if wanted == "output_dir" else "output_dir"
    if getattr(options, wanted) is None or getattr(options, other) is not None:
        raise ValueError(f"--{given[0]} goes with --{wanted}, which names what is written; leave --{other} out.")
    own, what = (_OF_MAPS, "scenes") if options.chips is not None else (_OF_CHIPS, "chips")
    if idle := [f"--{name}" for name, default in own.items() if getattr(options, name) != default]:
        raise ValueError(f"Expected options of --{given[0]}, found {', '.join(idle)}, of {what} alone. Leave it out.")
    if options.scenes is not None and (options.dates or options.location):
        found = "--dates are those" if options.dates else "--location is that"
        raise ValueError(f"{found} of one scene: leave them out with --scenes, where names or items say them.")

    with import_quickly():
        from prithvi_hf.outputs.cog import check_output_path
        from prithvi_hf.rasters.opening import FrameOptions
        from prithvi_hf.scenes.embed_chips import embed_chips
        from prithvi_hf.scenes.embed_scene import embed_scene
        from prithvi_hf.scenes.predict_scene import OPTION_NAMES
        from prithvi_hf.scenes.scene import open_scene

    opening = FrameOptions(**{name: getattr(options, name) for name in OPTION_NAMES[FrameOptions]})
    if options.window is not None and len(options.window) == 1:
        options.window = options.window[0]
    options.show_progress = not options.quiet
    if options.scenes is not None:
        return embed_many(options, opening)
    check_output_path(options.output, options.frames or (), options.overwrite, "file of embeddings")
    options.device = resolve_device(options.device)
    if options.frames is not None:
        image_processor = load_processor(options, opening)
        scene = open_scene(options.frames, image_processor, opening)  # before a model is loaded for it
        keywords = pick(options, *_OF_SCENES)
        report = embed_scene(load_encoder(options), image_processor, scene, options.output, **keywords)
        written = "{height} x {width} patches, {bands} bands, layer {layer}".format(**report)
    else:
        chips, image_processor = find_chips(options, opening)
        keywords = pick(options, "layer", "pooling")
        written = f"{embed_chips(load_encoder(options), image_processor, chips, options.output, **keywords)} chips"
    if not options.quiet:
        print(f"{written}\nembeddings written to {options.output}")
    return 0


def pick(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Give some options as keywords, and those of scenes and chips alike."""
    return {name: getattr(options, name) for name in (*names, "batch_size", "device", "overwrite", "show_progress")}


def load_processor(options: argparse.Namespace, opening: "FrameOptions") -> "PrithviImageProcessor":
    """Load the image processor for images as the options say."""
    return opening.adapt(load_image_processor(options.model).with_options(num_frames=options.num_frames))


def load_encoder(options: argparse.Namespace) -> "PrithviModel":
    """Load the encoder, for as many frames and in the type that was asked for."""
    import torch

    from prithvi_hf.models.prithvi.modeling_prithvi import PrithviModel

    frames = {} if options.num_frames is None else {"num_frames": options.num_frames}
    remedy = "Give a converted backbone, or a model that was fine-tuned from one."
    return load_whole_model(PrithviModel, options.model, remedy, **frames).to(getattr(torch, options.dtype))


def find_chips(options: argparse.Namespace, opening: "FrameOptions") -> "tuple[Any, PrithviImageProcessor]":
    """Find the chips of a folder, a glob or a recipe, as `embed_chips` takes them, and what prepares them."""
    from prithvi_hf.rasters import TIFF_SUFFIXES
    from prithvi_hf.rasters.granules import list_geotiffs

    is_glob = glob.has_magic(options.chips) or options.chips.lower().endswith(TIFF_SUFFIXES)
    if os.path.isdir(options.chips) or is_glob:
        files = list_geotiffs(options.chips) if os.path.isdir(options.chips) else sorted(glob.glob(options.chips))
        if not files:
            raise ValueError(f"--chips: expected GeoTIFFs in {options.chips}, found none. Check the path.")
        return files, load_processor(options, opening)
    from prithvi_hf.data.load import load_dataset
    from prithvi_hf.training.recipe import build_image_processor, read_recipe

    load_image_processor(options.model)  # says what is wrong with the model
    data = read_recipe(options.chips).data
    dataset_options = data.dataset_options if isinstance(data.dataset_options, dict) else {}
    splits = load_dataset(data.dataset, options.data_dir or data.data_dir, **dataset_options)
    missing = sorted(set(options.splits or ()) - set(splits))
    if missing:
        raise ValueError(f"--splits: expected some of {', '.join(splits)}, found {', '.join(missing)}.")
    options.num_frames = options.num_frames or data.num_frames
    frames = {} if options.num_frames is None else {"num_frames": options.num_frames}
    image_processor = opening.adapt(build_image_processor(options.model, data, frames))
    return {name: splits[name] for name in options.splits or splits}, image_processor


def embed_many(options: argparse.Namespace, opening: "FrameOptions") -> int:
    """Write the embeddings of many scenes, on all processes of the launch; returns the exit status."""
    import rasterio

    from prithvi_hf.disk import check_writable_folder
    from prithvi_hf.scenes.embed_scene import embed_scene
    from prithvi_hf.scenes.predict_scene import describe_model
    from prithvi_hf.scenes.predict_scenes import Work, process_group
    from prithvi_hf.scenes.scene import Scene
    from prithvi_hf.scenes.scene_list import list_scenes, open_entry

    folder = Path(options.output_dir)
    check_writable_folder(folder, "--output_dir")
    with process_group() as group:
        options.device = resolve_device(group.choose_device(options.device))
        image_processor = load_processor(options, opening)
        scenes = list_scenes(
            options.scenes,
            num_frames=image_processor.num_frames,
            allow_remote=options.allow_remote,
            output_dir=folder,
        )
        model = load_encoder(options)
        folder.mkdir(parents=True, exist_ok=True)
        own = {name: getattr(options, name) for name in (*_OF_SCENES, "dtype")}
        content = [describe_model(model, image_processor), own]

        def find_path(entry: "SceneEntry") -> Path:
            return folder / f"{entry.name}.tif"

        def prepare(entry: "SceneEntry") -> tuple[Scene, str]:
            """Open a scene, and digest all that decides its embeddings."""
            scene = open_entry(entry, image_processor, opening)
            text = json.dumps([content, scene.fingerprint()], sort_keys=True, default=str)
            return scene, hashlib.sha256(text.encode()).hexdigest()

        def is_finished(entry: "SceneEntry") -> bool:
            if not options.resume or not find_path(entry).is_file():
                return False
            with rasterio.open(find_path(entry), driver="GTiff") as dataset:
                return dataset.tags().get("run") == prepare(entry)[1]

        def make(entry: "SceneEntry") -> dict[str, Any]:
            scene, run = prepare(entry)
            keywords = {**pick(options, *_OF_SCENES), "tags": {"run": run}}
            return embed_scene(model, image_processor, scene, find_path(entry), **keywords)

        work = Work(make, lambda entry: {"embeddings": find_path(entry)}, is_finished, user_message)
        return run_list(options, scenes, work, group)
