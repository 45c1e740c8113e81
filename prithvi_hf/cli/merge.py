# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf merge`: an adapter and its base model to one plain model."""

import argparse
import shutil
from pathlib import Path

from prithvi_hf.cli.common import Commands, add_command, import_quickly, load_model


def add_parser(commands: Commands) -> None:
    """Describe `merge`."""
    text = "merge an adapter (LoRA, DoRA) into its base model: a plain model folder that stands alone"
    add = add_command(commands, "merge", text).add_argument
    add("adapter", metavar="ADAPTER", help="output folder of a run with --adapter, or a Hub id")
    add("output_dir", metavar="OUTPUT_DIR", help="new or empty folder for model and image processor")


def run(options: argparse.Namespace) -> None:
    """Merge an adapter, and save the model with its image processor and the recipe that it was trained by."""
    with import_quickly():
        from transformers.utils import find_adapter_config_file

        from prithvi_hf.disk import check_new_folder, write_folder
        from prithvi_hf.models.prithvi.configuration_prithvi import check_model_source

    check_new_folder(options.output_dir)
    check_model_source(options.adapter)
    if not find_adapter_config_file(options.adapter):
        raise ValueError(f"Expected an adapter, found none in {options.adapter}: it is a whole model already.")
    model, image_processor = load_model(options.adapter, tasks=("segmentation", "regression", "classification"))
    with write_folder(options.output_dir) as folder:
        model.save_pretrained(folder)
        image_processor.save_pretrained(folder)
        recipe = Path(options.adapter, "recipe.yaml")
        if recipe.is_file():  # `evaluate` reads the dataset there
            shutil.copyfile(recipe, folder / recipe.name)
    print(f"written to {options.output_dir}")
