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
from typing import Any

from prithvi_hf.cli.common import (
    check_model_source,
    in_shell_words,
    load_model,
    notes_of,
    resolve_device,
    user_message,
)
from prithvi_hf.cli.predict_options import add_predict


_DESCRIPTION = "Prithvi geospatial foundation models: convert weights, measure models, map satellite scenes."
_CONVERT_EPILOG = """examples:
  prithvi-hf convert Prithvi_EO_V1_100M.pt backbone
  prithvi-hf convert hf://ibm-nasa-geospatial/Prithvi-EO-1.0-100M-burn-scar burns --recipe hls_burn_scars
  prithvi-hf convert crops.pth crops --recipe multi_temporal_crop --report crops.json
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
    add_predict(commands)
    _add_evaluate(commands)
    _add_stats(commands)
    _add_info(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after `prithvi-hf`; None takes those of the process.

    Returns:
        Exit status: 0 for success, 1 where some of many scenes failed, 2 for an error of the user's, 130 after Ctrl-C.
    """
    options = build_parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return options.run(options) or 0
        except KeyboardInterrupt as interruption:
            print(": ".join([f"prithvi-hf {options.command}: interrupted", *notes_of(interruption)]), file=sys.stderr)
            return _INTERRUPTED
        except Exception as error:
            message = user_message(error)
            if message is None:
                raise
            print(f"prithvi-hf {options.command}: error: {message.strip()}", file=sys.stderr)
            return 2


def run_convert(options: argparse.Namespace) -> None:
    """Convert an original checkpoint to a folder that `from_pretrained` loads.

    Args:
        options: `source`, `output_dir`, `recipe`, `report`, `set`.
    """
    overrides = dict(_parse_setting(setting) for setting in options.set)
    from prithvi_hf.conversion.convert_prithvi_to_hf import convert_checkpoint

    print(convert_checkpoint(options.source, options.output_dir, options.recipe, options.report, **overrides))
    print(f"written to {options.output_dir}")


def run_evaluate(options: argparse.Namespace) -> None:
    """Evaluate a model on the splits of a recipe.

    Args:
        options: The options of `evaluate`.
    """
    from prithvi_hf.outputs.cog import check_output_path
    from prithvi_hf.training.evaluation import (
        evaluate_recipe,
        evaluation_recipe,
        recipe_of_model,
        write_results,
    )
    from prithvi_hf.training.process_group import leave_process_group

    if options.output is not None:
        check_output_path(options.output, purpose="JSON")
    check_model_source(options.model)
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
            use_cpu="true" if resolve_device(options.device) == "cpu" else "false",
            check_data="false" if options.no_check else None,
            disable_tqdm="true" if options.quiet else None,
        )
        first = recipe.training.process_index == 0
        model, image_processor = load_model(options.model)
        results = evaluate_recipe(model, image_processor, recipe, options.splits, first and not options.quiet)
    leave_process_group()
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
    from prithvi_hf.cli.stats import run_stats as measure_and_write

    measure_and_write(options)


def run_info(options: argparse.Namespace) -> None:
    """Print what a model folder or a GeoTIFF holds.

    Args:
        options: `path` and `model`.
    """
    from prithvi_hf.cli.info import describe_model, describe_raster

    if not Path(options.path).is_file():
        if options.model is not None:
            raise ValueError(f"--model goes with a GeoTIFF, but there is no file {options.path}.")
        check_model_source(options.path)
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
        check_model_source(options.model)
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


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning as a user of a command expects it, without the source line that raised it."""
    print(f"prithvi-hf: warning: {in_shell_words(str(message))}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())


__all__ = ["build_parser", "main"]
