# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf convert`: published weights to a folder that `from_pretrained` loads."""

import argparse
import json

from prithvi_hf.cli.common import Commands, add_command, import_quickly


_EPILOG = """examples:
  prithvi-hf convert Prithvi_EO_V1_100M.pt backbone
  prithvi-hf convert hf://ibm-nasa-geospatial/Prithvi-EO-2.0-300M-TL backbone
  prithvi-hf convert hf://ibm-nasa-geospatial/Prithvi-EO-2.0-300M-BurnScars burns
  prithvi-hf convert epoch=40.ckpt mine --original_config config.yaml
  prithvi-hf convert crops.pth crops --recipe multi_temporal_crop --report crops.json
"""


def add_parser(commands: Commands) -> None:
    """Describe `convert`."""
    text = "convert an original checkpoint (.pt, .pth, .safetensors) to a folder that from_pretrained loads"
    add = add_command(commands, "convert", text, epilog=_EPILOG).add_argument
    add(
        "source", metavar="SOURCE", help="file, or hf://owner/name[@revision][/file], the file where there are several"
    )
    add("output_dir", metavar="OUTPUT_DIR", help="new or empty folder for model and image processor")
    text = "config.json or terratorch's config.yaml of the weights (default: the one beside them that fits)"
    add("--original_config", metavar="FILE", help=text)
    text = "what no weight shows: classes, bands, statistics, attention heads, loss; a packaged recipe or a YAML file"
    add("--recipe", metavar="NAME_OR_YAML", help=text + " (default: that of a published model of mmsegmentation)")
    add("--report", metavar="JSON", help="also write what became of every tensor to this file")
    text = "fields of configuration or image processor that win, VALUE as JSON or text, e.g. num_attention_heads=8"
    add("--set", nargs="+", default=[], metavar="NAME=VALUE", help=text)
    text = "of a masked autoencoder: PrithviForPreTraining keeps its decoder (default: PrithviModel, the encoder)"
    add("--for_model", metavar="CLASS", help=text)


def run(options: argparse.Namespace) -> None:
    """Convert an original checkpoint to a folder that `from_pretrained` loads."""
    overrides = {}
    for setting in options.set:
        name, separator, value = setting.partition("=")
        if not separator or not name.isidentifier():
            raise ValueError(f"--set takes NAME=VALUE with the name of a configuration field, found {setting!r}.")
        try:
            overrides[name] = json.loads(value)
        except (json.JSONDecodeError, RecursionError):  # a value that is not JSON is plain text
            overrides[name] = value
    with import_quickly():
        from prithvi_hf.conversion.convert_prithvi_to_hf import convert_checkpoint

    report = convert_checkpoint(
        options.source,
        options.output_dir,
        options.recipe,
        options.report,
        options.for_model,
        options.original_config,
        **overrides,
    )
    print(report)
    print(f"written to {options.output_dir}")
