# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf`: convert published weights, measure models, map scenes, look at models and GeoTIFFs.

An error of the user's ends with one message on stderr and exit status 2, and nothing is written. Everything heavy is
imported inside the commands, so that this module costs nothing to load.
"""

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any


_DESCRIPTION = "Prithvi geospatial foundation models: convert weights, measure models, map satellite scenes."
_CONVERT_EPILOG = """examples:
  prithvi-hf convert Prithvi_EO_V1_100M.pt backbone
  prithvi-hf convert hf://ibm-nasa-geospatial/Prithvi-EO-1.0-100M-burn-scar burns --recipe hls_burn_scars
  prithvi-hf convert crops.pth crops --recipe multi_temporal_crop --report crops.json
"""
_PREDICT_EPILOG = """examples:
  prithvi-hf predict --model OUT --frames scene.tif --output map.tif
  prithvi-hf predict --model OUT --frames june.tif july.tif august.tif --output map.tif --probabilities
  prithvi-hf predict --model OUT --frames scene.tif --output map.tif --quicklook map.png --device cpu
"""
_STATS_EPILOG = """examples:
  prithvi-hf stats my_chips --config my.yaml --output stats.yaml
  prithvi-hf stats my_chips --dataset_options '{"image_suffix": "_image.tif", "mask_suffix": "_mask.tif"}' > stats.yaml
then train with
  accelerate launch examples/finetune.py --config my.yaml stats.yaml ...

Chips that cannot be read are named after the pass, nothing is written, and the exit status is 2; --skip_unreadable
leaves them out and lists them in the recipe. Labels that are no class are reported and do not stop the command.
"""
_INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line.

    Returns:
        The parser; the parsed `run` is the function of the chosen command.
    """
    parser = argparse.ArgumentParser(prog="prithvi-hf", description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_convert(commands)
    _add_predict(commands)
    _add_evaluate(commands)
    _add_stats(commands)
    _add_info(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after `prithvi-hf`; None takes those of the process.

    Returns:
        Exit status: 0 for success, 2 for an error of the user's, 130 after Ctrl-C.
    """
    options = build_parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            options.run(options)
        except KeyboardInterrupt:
            print(f"prithvi-hf {options.command}: interrupted", file=sys.stderr)
            return _INTERRUPTED
        except Exception as error:
            message = _user_message(error)
            if message is None:
                raise
            print(f"prithvi-hf {options.command}: error: {message.strip()}", file=sys.stderr)
            return 2
    return 0


def run_convert(options: argparse.Namespace) -> None:
    """Convert an original checkpoint to a folder that `from_pretrained` loads.

    Args:
        options: `source`, `output_dir`, `recipe`, `report`, `set`.
    """
    overrides = dict(_parse_setting(setting) for setting in options.set)
    from prithvi_hf.convert_prithvi_to_hf import convert_checkpoint

    print(convert_checkpoint(options.source, options.output_dir, options.recipe, options.report, **overrides))
    print(f"written to {options.output_dir}")


def run_predict(options: argparse.Namespace) -> None:
    """Map a scene.

    Args:
        options: The options of `predict`.
    """
    from prithvi_hf.scene_prithvi import check_window_options, open_frames
    from prithvi_hf.scenes.prediction import check_outputs, predict_scene

    # What needs no model is checked first: it is loaded for a run that can succeed.
    window = _parse_window(options.window)
    check_window_options(window, options.overlap, options.batch_size)
    probabilities = _probabilities_path(options.probabilities, options.output)
    outputs = {"map": options.output, "probabilities": probabilities, "quick look": options.quicklook}
    class_values = dict(_parse_class_value(item) for item in options.class_values)
    check_outputs(outputs, options.frames, options.overwrite)
    open_frames(options.frames)
    device = _resolve_device(options.device)
    model, image_processor = _load_model(options.model)
    result = predict_scene(
        model,
        image_processor,
        options.frames,
        options.output,
        batch_size=options.batch_size,
        overlap=options.overlap,
        window=window,
        probabilities=probabilities,
        probabilities_dtype=options.probabilities_dtype,
        quicklook=options.quicklook,
        class_values=class_values,
        device=device,
        overwrite=options.overwrite,
        show_progress=not options.quiet,
    )
    if not options.quiet:
        _print_summary(result, outputs)


def run_evaluate(options: argparse.Namespace) -> None:
    """Evaluate a model on the splits of a recipe.

    Args:
        options: The options of `evaluate`.
    """
    from prithvi_hf.evaluation import evaluate_recipe, evaluation_recipe, recipe_of_model, write_results
    from prithvi_hf.scenes.writer import check_output_path

    if options.output is not None:
        check_output_path(options.output, purpose="JSON")
    _check_model_source(options.model)
    configs = options.config or [recipe_of_model(options.model)]
    with tempfile.TemporaryDirectory(prefix="prithvi-hf-") as folder:  # the trainer insists on an output folder
        recipe = evaluation_recipe(
            configs,
            folder,
            data_dir=options.data_dir,
            dataset_options=options.dataset_options,
            eval_window=options.window,
            eval_overlap=options.overlap,
            eval_window_batch_size=options.batch_size,
            use_cpu="true" if _resolve_device(options.device) == "cpu" else "false",
            check_data="false" if options.no_check else None,
            disable_tqdm="true" if options.quiet else None,
        )
        first = recipe.training.process_index == 0
        model, image_processor = _load_model(options.model)
        results = evaluate_recipe(model, image_processor, recipe, options.splits, first and not options.quiet)
    if not first:
        return
    for result in results:
        print(result.table(recipe.data.class_names))
    if options.output is not None:
        write_results(options.output, options.model, recipe.data.class_names, results)
        print(f"all figures written to {options.output}")


def run_stats(options: argparse.Namespace) -> None:
    """Measure a data set: band statistics, class weights, labels that are no class.

    Args:
        options: The options of `stats`.
    """
    from prithvi_hf.cli_stats import run_stats as measure_and_write

    measure_and_write(options)


def run_info(options: argparse.Namespace) -> None:
    """Print what a model folder or a GeoTIFF holds.

    Args:
        options: `path` and `model`.
    """
    from prithvi_hf.describe import describe_model, describe_raster

    if not Path(options.path).is_file():
        if options.model is not None:
            raise ValueError(f"--model goes with a GeoTIFF, but there is no file {options.path}.")
        _check_model_source(options.path)
        try:
            print(describe_model(options.path))
        except (TypeError, AttributeError, KeyError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"{options.path} describes no model ({reason}): its config.json or preprocessor_config.json is "
                "damaged. Copy or download the folder again."
            ) from error
        return
    if options.model is not None:
        _check_model_source(options.model)
    print(describe_raster(options.path, options.model))


def _add_convert(commands: Any) -> None:
    """Describe `convert`."""
    text = "convert an original checkpoint (.pt, .pth, .safetensors) to a folder that from_pretrained loads"
    parser = commands.add_parser(
        "convert",
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=_CONVERT_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="the checkpoint file; on the Hub hf://owner/name/file, or hf://owner/name where there is only one; "
        "name@revision for another revision",
    )
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", help="new or empty folder for model and image processor")
    parser.add_argument(
        "--recipe",
        metavar="NAME_OR_YAML",
        help="recipe that names what no weight shows: classes, bands, statistics, attention heads, loss; the name of "
        "a packaged one or a YAML file",
    )
    parser.add_argument("--report", metavar="JSON", help="also write what became of every tensor to this file")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="fields of configuration or image processor that replace what checkpoint and recipe say, VALUE as JSON "
        "or plain text, e.g. num_attention_heads=8",
    )
    parser.set_defaults(run=run_convert)


def _add_predict(commands: Any) -> None:
    """Describe `predict`."""
    text = "map a scene: GeoTIFF frames in, Cloud-Optimized GeoTIFF of classes out"
    parser = commands.add_parser(
        "predict",
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=_PREDICT_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_files(parser)
    _add_window_options(parser)
    parser.add_argument(
        "--device", default="auto", help='"auto" (default: a CUDA GPU where there is one), "cpu", "cuda", "cuda:1"'
    )
    parser.add_argument("--quiet", action="store_true", help="print neither progress nor summary")
    parser.set_defaults(run=run_predict)


def _add_files(parser: argparse.ArgumentParser) -> None:
    """Describe what `predict` reads and writes."""
    parser.add_argument("--model", required=True, help="folder of a fine-tuned model and its processor, or a Hub id")
    parser.add_argument(
        "--frames",
        required=True,
        nargs="+",
        metavar="TIF",
        help="the scene's GeoTIFF, or those of all its dates in time order, on one grid",
    )
    parser.add_argument("--output", required=True, metavar="TIF", help="map to write: uint8 classes, 255 = no data")
    parser.add_argument(
        "--probabilities",
        nargs="?",
        const=True,
        metavar="TIF",
        help="also write class probabilities, one band a class; without a name OUTPUT's with _probabilities added",
    )
    parser.add_argument(
        "--probabilities_dtype",
        choices=("float32", "uint8"),
        default="float32",
        help="float32 (default): 0 to 1, no data NaN; uint8: 0 to 254 with scale 1/254 in the file, no data 255",
    )
    parser.add_argument("--quicklook", metavar="PNG", help="also draw scene and map with a legend")
    parser.add_argument(
        "--class_values",
        nargs="+",
        default=[],
        metavar="CLASS=VALUE",
        help="file values (0 to 254) of class indices where the two differ, e.g. 0=1 1=2",
    )
    parser.add_argument(
        "--no_overwrite",
        dest="overwrite",
        action="store_false",
        help="refuse outputs that exist; without it they are replaced, and only by complete ones",
    )


def _add_window_options(parser: argparse.ArgumentParser) -> None:
    """Describe how `predict` slides over the scene."""
    parser.add_argument(
        "--overlap",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="share of a window that the next one covers again, 0 <= SHARE < 1 (default 0.5)",
    )
    parser.add_argument(
        "--window",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="side of the windows, or height and width, in pixels (default: the model's image_size)",
    )
    parser.add_argument(
        "--batch_size",
        type=int,
        default=8,
        metavar="WINDOWS",
        help="windows in one forward pass, at least 1 (default 8); less needs less memory",
    )


def _add_evaluate(commands: Any) -> None:
    """Describe `evaluate`."""
    text = "measure a model on labelled chips, with the published figures of its recipe beside the measured ones"
    parser = commands.add_parser(
        "evaluate",
        help=text,
        description=text[0].upper() + text[1:] + ". On many GPUs: accelerate launch -m prithvi_hf.cli evaluate ...",
    )
    parser.add_argument("--model", required=True, help="folder of a fine-tuned model and its processor, or a Hub id")
    parser.add_argument(
        "--config",
        nargs="+",
        metavar="RECIPE",
        help="recipe of the data set, a name such as sen1floods11 or YAML files, later ones win (default: recipe.yaml "
        "of the model, which examples/finetune.py leaves there)",
    )
    parser.add_argument(
        "--data_dir", metavar="DIR", help="folder of the data set (default: the recipe's, or download)"
    )
    parser.add_argument("--dataset_options", metavar="JSON", help="options of the data set in place of the recipe's")
    parser.add_argument(
        "--splits", nargs="+", metavar="NAME", help="splits to evaluate (default: the recipe's test_splits)"
    )
    parser.add_argument("--output", metavar="JSON", help="also write every figure, each class's included")
    parser.add_argument("--window", type=int, metavar="PIXELS", help="side of the windows (default: the recipe's)")
    parser.add_argument("--overlap", type=float, metavar="SHARE", help="overlap of windows (default: the recipe's)")
    parser.add_argument("--batch_size", type=int, metavar="WINDOWS", help="windows in one forward pass (default 8)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if there is")
    parser.add_argument("--no_check", action="store_true", help="do not read every chip once beforehand")
    parser.add_argument("--quiet", action="store_true", help="print the figures alone")
    parser.set_defaults(run=run_evaluate)


def _add_stats(commands: Any) -> None:
    """Describe `stats`."""
    text = "measure a data set: band statistics, class weights, bad labels, as a recipe that --config takes"
    parser = commands.add_parser(
        "stats",
        help=text,
        description=text[0].upper() + text[1:] + ". Every file is read once.",
        epilog=_STATS_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("data_dir", metavar="DIR", help="folder of the data set")
    add("--config", nargs="+", default=[], metavar="YAML", help="recipes that say how files are read; flags win")
    add("--split", default="train", help="split that gives statistics and weights (default train); all are checked")
    add("--output", metavar="YAML", help="file to write; without it the recipe goes to the standard output")
    add("--plot", metavar="PNG", help="also draw histograms of the bands and the shares of the classes")
    add("--skip_unreadable", action="store_true", help="leave out chips that cannot be read, instead of failing")
    add("--quiet", action="store_true", help="print neither progress nor summary")
    _add_reading_options(parser.add_argument_group("how the files are read, as in recipes").add_argument)
    parser.set_defaults(run=run_stats)


def _add_reading_options(add: Any) -> None:
    """Describe the options of `stats` that are options of recipes."""
    add(
        "--dataset",
        metavar="NAME",
        help="sen1floods11, hls_burn_scars, ...; known by its files where they are a public data set's, or else "
        "geotiff_folder",
    )
    add("--dataset_options", metavar="JSON", help='options of the data set, e.g. \'{"mask_suffix": "_mask.tif"}\'')
    add("--class_names", nargs="+", metavar="NAME", help="name of each class; other mask values are reported")
    add("--bands", nargs="+", metavar="NAME", help="bands to measure (default: as the files describe them)")
    add("--band_indices", nargs="+", type=int, metavar="PLACE", help="their 0-based places in undescribed files")
    add("--num_frames", type=int, metavar="N", help="dates of a chip; the pixels of all dates are pooled by band")
    add("--rescale_factor", type=float, metavar="X", help="file values are multiplied by it, e.g. 0.0001")
    add("--rescale_offset", type=float, metavar="X", help="added after that")
    add("--nodata_value", type=float, metavar="X", help="file value that means no data, besides tag and NaN")
    add("--ignore_values", nargs="+", type=int, metavar="VALUE", help="mask values that are no class")
    add("--do_reduce_labels", action="store_true", default=None, help="masks hold 1..n for classes 0..n-1")


def _add_info(commands: Any) -> None:
    """Describe `info`."""
    text = "show what a model folder or a GeoTIFF holds"
    parser = commands.add_parser("info", help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("path", metavar="MODEL_OR_TIF", help="model folder, Hub id, or GeoTIFF")
    parser.add_argument(
        "--model", help="with a GeoTIFF: show how this model's processor maps its bands and what units it expects"
    )
    parser.set_defaults(run=run_info)


def _parse_setting(text: str) -> tuple[str, Any]:
    """Read one NAME=VALUE; a value that is no JSON is plain text."""
    name, separator, value = text.partition("=")
    if not separator or not name.isidentifier():
        raise ValueError(f"--set takes NAME=VALUE with the name of a configuration field, found {text!r}.")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


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


def _probabilities_path(value: str | bool | None, output: str) -> Path | None:
    """Resolve where the probabilities go."""
    if value is None:
        return None
    path = Path(output)
    return path.with_name(f"{path.stem}_probabilities.tif") if value is True else Path(value)


def _resolve_device(name: str) -> str:
    """Choose the device, or refuse one that is not there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name} cannot be used here ({reason}): try --device cpu.") from error
    return name


def _check_model_source(name: str) -> None:
    """Refuse a folder that holds no model, and a path that is no folder; other names are asked from the Hub."""
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(f"{name} holds no model (no config.json): name a folder written by save_pretrained.")
    elif folder.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1 or "\\" in name:
        raise ValueError(f"There is no model folder {name}, nor is that the form of a Hub id (owner/name).")


def _load_model(name: str) -> tuple[Any, Any]:
    """Load a segmentation model and its image processor."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers.utils import logging

    from prithvi_hf.image_processing_prithvi import PrithviImageProcessor
    from prithvi_hf.modeling_prithvi import PrithviForSemanticSegmentation

    _check_model_source(name)
    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # a report of missing tensors would come before the one message that names them
    try:
        image_processor = PrithviImageProcessor.from_pretrained(name)
        model, report = PrithviForSemanticSegmentation.from_pretrained(name, output_loading_info=True)
    except UnpicklingError as error:
        raise ValueError(
            f"The weights of {name} are a pickle that needs more than tensors, which could run code and is refused: "
            "save the model as safetensors (save_pretrained) where you trust it."
        ) from error
    except (StrictDataclassError, SafetensorError, RuntimeError, TypeError, AttributeError, KeyError) as error:
        reason = str(error).strip().replace("\n", " ")
        raise ValueError(f"The model {name} cannot be loaded ({type(error).__name__}: {reason}).") from error
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
    if report["missing_keys"]:
        raise ValueError(
            f"{name} is no fine-tuned segmentation model: {len(report['missing_keys'])} of its tensors are missing, "
            f"e.g. {min(report['missing_keys'])}. Fine-tune it first; a converted backbone cannot map by itself."
        )
    return model, image_processor


def _print_summary(result: Any, outputs: dict[str, Any]) -> None:
    """Print what was written and how much of the scene each class covers."""
    height, width = result.mask.shape
    print(f"{height} x {width} pixels, CRS {result.crs}")
    for name, count in result.class_counts().items():
        print(f"  {name:<24} {count:>12} pixels  {100 * count / result.mask.size:6.2f} %")
    for purpose, path in outputs.items():
        if path:
            print(f"{purpose} written to {path}")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning as a user of a command expects it, without the source line that raised it."""
    print(f"prithvi-hf: warning: {message}", file=sys.stderr)


def _user_message(error: Exception) -> str | None:
    """Give the message of an error that the user can mend; None for a fault of the program, which is not hidden."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return f"out of memory ({error}): use a smaller --batch_size or a smaller scene."
    # By name: the class that a faulty configuration raises comes with a library that need not be loaded here.
    if isinstance(error, ValueError | OSError | ImportError) or "StrictDataclassError" in names:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main())


__all__ = ["build_parser", "main"]
