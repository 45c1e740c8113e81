# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf evaluate`: figures of a model on labelled chips."""

import argparse
import tempfile

from prithvi_hf.cli.common import Commands, check_model_source, load_model, resolve_device


def add_parser(commands: Commands) -> None:
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
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Evaluate a model on the splits of a recipe.

    Args:
        options: The options of `evaluate`.
    """
    from prithvi_hf.outputs.cog import check_output_path
    from prithvi_hf.training.evaluation import (
        evaluate_recipe,
        find_model_recipe,
        make_evaluation_recipe,
        write_results,
    )
    from prithvi_hf.training.process_group import leave_process_group

    if options.output is not None:
        check_output_path(options.output, purpose="JSON")
    check_model_source(options.model)
    configs = options.config or [find_model_recipe(options.model)]
    with tempfile.TemporaryDirectory(prefix="prithvi-hf-") as folder:  # the trainer insists on an output folder
        recipe = make_evaluation_recipe(
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
