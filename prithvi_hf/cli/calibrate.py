# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf calibrate`: probabilities of a finished model that can be believed."""

import argparse
import tempfile
from pathlib import Path

from prithvi_hf.cli.common import TRUST_OPTION, Commands, add_command, import_quickly, load_model, make_labelled_recipe


def add_parser(commands: Commands) -> None:
    """Describe `calibrate`."""
    text = "fit the temperature of a model on labelled chips, and write it into its config.json"
    note = (
        " Probabilities, confidence and entropy of every map are then at that temperature; classes stay as they are. "
        "Fit it on chips that the model was not trained on."
    )
    add = add_command(commands, "calibrate", text, note).add_argument
    add("--model", required=True, help="folder of a fine-tuned or exported model, whose config.json is written")
    add(
        "--config",
        nargs="+",
        metavar="RECIPE",
        help="recipe of the dataset, a name or YAML files, later ones win (default: recipe.yaml of the model)",
    )
    add("--data_dir", metavar="DIR", help="folder of the dataset (default: the recipe's, or download)")
    add("--dataset_options", metavar="JSON", help="options of the dataset in place of the recipe's")
    add("--split", metavar="NAME", help="split to fit on (default: the recipe's eval_split)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if there is one")
    add("--no_check", action="store_true", help="do not read every chip once beforehand")
    add("--trust_remote_code", **TRUST_OPTION)
    add("--quiet", action="store_true", help="print only the result")


def run(options: argparse.Namespace) -> None:
    """Fit and write the temperature; the options are those of `calibrate`."""
    with import_quickly():
        from prithvi_hf.disk import check_writable_folder
        from prithvi_hf.models.prithvi.configuration_prithvi import check_model_source
        from prithvi_hf.training.calibration import calibrate_recipe, write_temperature
        from prithvi_hf.training.evaluation import take_model_recipe
        from prithvi_hf.training.process_group import leave_process_group

    if not Path(options.model).is_dir():
        raise ValueError(
            f"Expected the folder of a model, whose config.json is written, found none at {options.model}. Download a "
            "model of the Hub first: hf download OWNER/NAME --local-dir DIR."
        )
    check_model_source(options.model)
    check_writable_folder(options.model, "--model")
    with tempfile.TemporaryDirectory(prefix="prithvi-hf-") as folder:  # the trainer insists on an output folder
        configs = options.config or [take_model_recipe(options.model, folder)]
        own = {"dataset_options": options.dataset_options}
        recipe = make_labelled_recipe(options, configs, folder, options.model, **own)
        first = recipe.training.process_index == 0
        model, image_processor = load_model(
            options.model, ("segmentation", "classification"), options.trust_remote_code
        )
        split = options.split or recipe.data.eval_split
        found = calibrate_recipe(model, image_processor, recipe, split, first and not options.quiet)
    if first:
        write_temperature(options.model, found.temperature)
        print(f"{found.describe(split)}\nwritten to {Path(options.model) / 'config.json'}")
    leave_process_group()
