# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf compare`: which of two models is better on the same chips, and whether that can be told."""

import argparse
import json
import tempfile
from typing import Any

from prithvi_hf.cli.common import TRUST_OPTION, Commands, add_command, import_quickly, load_model, make_labelled_recipe


def add_parser(commands: Commands) -> None:
    """Describe `compare`."""
    text = "compare two models on the same chips: differences with intervals, by group and by chip"
    note = (
        " Without --config the figures that `finetune` and `evaluate --chip_figures` stored are compared; with it "
        "both models are measured on its chips first, and those where they differ most are drawn."
    )
    add = add_command(commands, "compare", text, note).add_argument
    add("a", metavar="A", help="a model; without --config the folder of a run, or a Parquet file of its chips")
    add("b", metavar="B", help="the other one")
    add("--config", nargs="+", metavar="RECIPE", help="recipe of the dataset, a name or YAML files, later ones win")
    add("--data_dir", metavar="DIR", help="with --config: folder of the dataset (default: the recipe's, or download)")
    add("--splits", nargs="+", metavar="NAME", help="splits to compare on (default: those of both, or test_splits)")
    add(
        "--group_by",
        metavar="NAME",
        help="with --config: which chips belong together: event, tile, block, a column such as country, a .csv file "
        "of chip and group, or a regular expression for ids with (?P<group>...)",
    )
    add(
        "--output_dir",
        metavar="DIR",
        help="new folder for comparison.json, the figures of the chips of both and, with --config, maps",
    )
    add("--num_maps", type=int, default=4, metavar="N", help="chips that are drawn of each split (default 4)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if there is one")
    add("--no_check", action="store_true", help="with --config: do not read every chip once beforehand")
    add("--trust_remote_code", **TRUST_OPTION)
    add("--quiet", action="store_true", help="print only the comparison")


def run(options: argparse.Namespace) -> None:
    """Compare two models; the options are those of `compare`."""
    with import_quickly():
        import pyarrow as pa

        from prithvi_hf.disk import check_new_folder, write_folder
        from prithvi_hf.models.prithvi.configuration_prithvi import check_model_source
        from prithvi_hf.training.chip_figures import read_chip_figures, write_chip_figures
        from prithvi_hf.training.comparison import compare_tables, format_comparison, plot_differences
        from prithvi_hf.training.evaluation import evaluate_recipe, match_processor
        from prithvi_hf.training.process_group import leave_process_group
        from prithvi_hf.training.recipe_chips import load_splits
        from prithvi_hf.training.tasks import TASKS

    if options.output_dir is not None:
        check_new_folder(options.output_dir)
    if options.num_maps < 0:
        raise ValueError(f"Expected --num_maps of at least 0, found {options.num_maps}. Give 0 for no maps.")
    models: list[Any] = []
    processors: list[Any] = []
    tables: list[Any] = []
    chips: Any = {}
    first = True
    if options.config is None:
        given = [
            f"--{name}" for name in ("data_dir", "group_by", "no_check") if getattr(options, name) not in (None, False)
        ]
        if given:
            raise ValueError(
                f"Expected {', '.join(given)} with --config, found it alone: stored figures are compared as they are. "
                "Give --config RECIPE to measure both models."
            )
        tables = [read_chip_figures(source) for source in (options.a, options.b)]
    else:
        for source in (options.a, options.b):
            check_model_source(source)
        with tempfile.TemporaryDirectory(prefix="prithvi-hf-") as folder:  # the trainer insists on an output folder
            for source in (options.a, options.b):
                own = {"group_by": options.group_by, **({"check_data": "false"} if models else {})}  # once is enough
                recipe = make_labelled_recipe(options, options.config, folder, source, **own)
                first = recipe.training.process_index == 0
                model, processor = load_model(source, tuple(TASKS), options.trust_remote_code)
                processor = match_processor(processor, recipe)
                results = evaluate_recipe(model, processor, recipe, options.splits, first and not options.quiet)
                models, processors = [*models, model], [*processors, processor]
                tables.append(pa.concat_tables([result.chip_table for result in results]))
        chips = load_splits(recipe, [result.split for result in results], "Name them with --splits.")
        leave_process_group()
    if not first:
        return
    comparison = compare_tables(tables[0], tables[1], options.splits)
    print(format_comparison(comparison))
    if options.output_dir is None:
        return
    with write_folder(options.output_dir) as folder:
        text = json.dumps(comparison, indent=2, allow_nan=False) + "\n"
        (folder / "comparison.json").write_text(text, encoding="utf-8")
        for name, table in zip("ab", tables, strict=True):
            write_chip_figures(folder / f"chip_figures_{name}.parquet", [table])
        for split, dataset in chips.items():
            places = [one["place"] for one in comparison["splits"][split]["largest_differences"][: options.num_maps]]
            if places and comparison["task"] != "classification":
                window, overlap = recipe.training.eval_window, recipe.training.eval_overlap
                path = folder / f"differences_{split}.png"
                plot_differences(models, processors, dataset, places, path, window, overlap)
    print(f"comparison written to {options.output_dir}")
