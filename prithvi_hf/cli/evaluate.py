# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf evaluate`: figures of a model on labelled chips."""

import argparse
import tempfile

from prithvi_hf.cli.common import (
    BAND_OPTIONS,
    TRUST_OPTION,
    Commands,
    add_command,
    import_quickly,
    load_model,
    make_labelled_recipe,
)


def add_parser(commands: Commands) -> None:
    """Describe `evaluate`."""
    text = "measure a model on labelled chips, with the published figures of its recipe beside the measured ones"
    parser = add_command(commands, "evaluate", text, " On many GPUs: accelerate launch -m prithvi_hf.cli evaluate ...")
    add = parser.add_argument
    add("--model", required=True, help="folder of a fine-tuned or exported model, or a Hub id")
    add(
        "--config",
        nargs="+",
        metavar="RECIPE",
        help="recipe of the dataset, a name such as sen1floods11 or YAML files, later ones win (default: recipe.yaml "
        "of the model, which a fine-tuning run leaves there)",
    )
    add("--data_dir", metavar="DIR", help="folder of the dataset (default: the recipe's, or download)")
    add("--dataset_options", metavar="JSON", help="options of the dataset in place of the recipe's")
    add("--label_map", metavar="JSON", help="class number of mask values, in place of the recipe's and the model's")
    add("--splits", nargs="+", metavar="NAME", help="splits to evaluate (default: the recipe's test_splits)")
    add("--output", metavar="JSON", help="also write every figure, including those of each class")
    add("--chip_figures", metavar="PARQUET", help="also write the figures of each chip")
    add(
        "--group_by",
        metavar="NAME",
        help="measure groups of chips too: event, tile, block, a column such as country, a .csv file of chip and "
        "group, or a regular expression for ids with (?P<group>...)",
    )
    add("--window", type=int, metavar="PIXELS", help="side of the windows (default: the recipe's)")
    add("--overlap", type=float, metavar="FRACTION", help="overlap of windows (default: the recipe's)")
    add("--batch_size", type=int, metavar="WINDOWS", help="windows in one forward pass (default 8)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if there is one")
    add(
        "--dtype",
        choices=("float32", "bfloat16", "float16", "auto"),
        help="what the model computes in (default: as the recipe says); auto: bfloat16 where the machine has matrix "
        "units for it and 99.5 %% of the pixels of some chips get the class that float32 gives, else float32",
    )
    add(
        "--rescale_factor",
        type=float,
        metavar="X",
        help="multiply the numbers of chips by X, not by the model's factor",
    )
    add("--rescale_offset", type=float, metavar="X", help="add X after that, in place of the model's own offset")
    add("--no_check", action="store_true", help="do not read every chip once beforehand")
    add("--trust_remote_code", **TRUST_OPTION)
    add("--quiet", action="store_true", help="print only the figures")
    for flag, settings in BAND_OPTIONS.items():
        add(flag, **settings)


def run(options: argparse.Namespace) -> None:
    """Evaluate a model on the splits of a recipe; the options are those of `evaluate`."""
    with import_quickly():
        from prithvi_hf.models.prithvi.configuration_prithvi import check_model_source
        from prithvi_hf.outputs.cog import check_output_path
        from prithvi_hf.training.chip_figures import write_chip_figures
        from prithvi_hf.training.evaluation import (
            evaluate_recipe,
            match_processor,
            take_model_recipe,
            write_results,
        )
        from prithvi_hf.training.process_group import leave_process_group
        from prithvi_hf.training.tasks import TASKS

    for path, purpose in ((options.output, "JSON"), (options.chip_figures, "table")):
        if path is not None:
            check_output_path(path, purpose=purpose)
    check_model_source(options.model)
    with tempfile.TemporaryDirectory(prefix="prithvi-hf-") as folder:  # the trainer insists on an output folder
        recipe = make_labelled_recipe(
            options,
            options.config or [take_model_recipe(options.model, folder)],
            folder,
            options.model,
            dataset_options=options.dataset_options,
            label_map=options.label_map,
            group_by=options.group_by,
            eval_window=options.window,
            eval_overlap=options.overlap,
            eval_window_batch_size=options.batch_size,
            **({} if options.dtype is None else {"bf16": "false", "fp16": "false"}),
            **{flag[2:]: getattr(options, flag[2:]) for flag in BAND_OPTIONS},
        )
        first = recipe.training.process_index == 0
        model, image_processor = load_model(options.model, tuple(TASKS), options.trust_remote_code)
        given = {"rescale_factor": options.rescale_factor, "rescale_offset": options.rescale_offset}
        image_processor = match_processor(image_processor, recipe).with_options(**given)
        show_progress = first and not options.quiet
        results = evaluate_recipe(model, image_processor, recipe, options.splits, show_progress, options.dtype)
    leave_process_group()
    if not first:
        return
    labels = recipe.data.class_names or []
    if options.dtype == "auto" and results[0].dtype is not None:
        print("evaluated in {chosen}: {reason}".format_map(results[0].dtype))
    for result in results:
        print(result.table(labels))
    if options.output is not None:
        write_results(options.output, options.model, labels, results)
        print(f"all figures written to {options.output}")
    if options.chip_figures is not None:
        write_chip_figures(options.chip_figures, [result.chip_table for result in results])
        print(f"figures of each chip written to {options.chip_figures}")
