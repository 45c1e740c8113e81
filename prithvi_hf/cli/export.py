# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf export`: a fine-tuned model as a graph for OpenVINO, ONNX Runtime or `torch.export`."""

import argparse
import shutil
import tempfile
import warnings
from contextlib import suppress
from typing import Any

from prithvi_hf.cli.common import Commands, add_command, import_quickly, load_model
from prithvi_hf.disk import check_new_folder


_EPILOG = """examples:
  prithvi-hf export OUT exported --format openvino --check chips/
  prithvi-hf export OUT exported_int8 --int8 --calibration chips/ --data_dir labelled/
  prithvi-hf predict --model exported --frames scene.tif --output map.tif --dtype bfloat16
"""


def add_parser(commands: Commands) -> None:
    """Describe `export`."""
    text = "export a fine-tuned model to a graph that OpenVINO or ONNX Runtime computes, and compare the two"
    add = add_command(commands, "export", text, epilog=_EPILOG).add_argument
    add("model", metavar="MODEL", help="folder of a fine-tuned model and its image processor, or a Hub id")
    add("output_dir", metavar="OUTPUT_DIR", help="new or empty folder, which predict and evaluate take as --model")
    text = "openvino (default, computes in bfloat16 as well), onnx (float32), or torch_export, a pickle"
    add("--format", choices=("openvino", "onnx", "torch_export"), default="openvino", help=text)
    text = "compare graph and model on the GeoTIFF chips of this folder as well, 32 at most; labels are not needed"
    add("--check", metavar="DIR", help=text)
    text = "let the graph take tiles of the model's size only (default: of any size, where the format can)"
    add("--fixed_size", action="store_true", help=text)
    text = "quantise weights and activations to int8 with NNCF (openvino, onnx), calibrated on --calibration"
    add("--int8", action="store_true", help=text)
    text = "folder of GeoTIFF chips that show what the model will see, 32 are read at most; labels are not needed"
    add("--calibration", metavar="DIR", help=text)
    text = "labelled chips of the recipe to measure what int8 costs on (default: compare its classes with float32's)"
    add("--data_dir", metavar="DIR", help=text)
    text = "recipe of --data_dir, a name or YAML files, later ones win (default: recipe.yaml of the model)"
    add("--config", nargs="+", metavar="RECIPE", help=text)
    add("--splits", nargs="+", metavar="NAME", help="splits to measure on (default: the recipe's eval_split)")
    text = "write nothing if int8 costs more points of mean IoU or, without labels, percent of the pixels (default 1)"
    add("--max_drop", type=float, metavar="POINTS", help=text)


def run(options: argparse.Namespace) -> None:
    """Export a model and print how far the graph is from it."""
    if options.int8 != (options.calibration is not None):
        raise ValueError("Expected --int8 and --calibration DIR together, found one of them. Give both or neither.")
    of_int8 = [f"--{name}" for name in ("data_dir", "config", "splits", "max_drop") if vars(options)[name] is not None]
    if of_int8 and not options.int8:
        raise ValueError(
            f"Expected {', '.join(of_int8)} with --int8, whose cost is measured, found no --int8. Add it."
        )
    if options.splits and not (options.data_dir or options.config):
        raise ValueError("Expected --splits with labels, found none. Name the labelled chips with --data_dir.")
    with import_quickly():
        from prithvi_hf.conversion.export_prithvi import export_model
        from prithvi_hf.models.prithvi.configuration_prithvi import check_has_weights
        from prithvi_hf.models.prithvi.exported_prithvi import check_packages
        from prithvi_hf.training.evaluation import find_model_recipe

    check_packages(options.format)
    check_has_weights(options.model)
    check_new_folder(options.output_dir)
    model, image_processor = load_model(options.model, ("segmentation", "regression", "classification"))
    fixed_size = options.fixed_size or None  # by default of any size where the graph can
    if options.int8:
        with import_quickly():
            from prithvi_hf.conversion.quantize_prithvi import MAX_DROP, export_int8
            from prithvi_hf.training.evaluation import make_evaluation_recipe, take_model_recipe

        with tempfile.TemporaryDirectory(prefix="prithvi-hf-") as folder:  # the trainer insists on an output folder
            recipe = None
            if options.data_dir or options.config:
                configs = options.config or [take_model_recipe(options.model, folder)]
                own = {"data_dir": options.data_dir, "use_cpu": "true", "disable_tqdm": "true"}
                recipe = make_evaluation_recipe(configs, folder, **own)
            report = export_int8(
                model,
                image_processor,
                options.output_dir,
                options.calibration,
                options.format,
                check=options.check,
                recipe=recipe,
                splits=options.splits,
                max_drop=MAX_DROP if options.max_drop is None else options.max_drop,
                fixed_size=fixed_size,
            )
    else:
        report = export_model(model, image_processor, options.output_dir, options.format, options.check, fixed_size)
    recipe_file = None
    with suppress(OSError):  # of a model without one
        recipe_file = find_model_recipe(options.model)
    if recipe_file is not None:  # evaluate takes the folder as it takes the model's
        shutil.copy(recipe_file, options.output_dir)
    print_report(report)
    print(f"written to {options.output_dir}")


def print_report(report: dict[str, Any]) -> None:
    """Print how far the graph is from its model, and what int8 costs."""
    from prithvi_hf.models.prithvi.inference_dtype_prithvi import LEAST_AGREEMENT

    size, has_int8 = report["fixed_size"], "int8" in report
    sizes = "any size" if size is None else f"{size[0]} x {size[1]} pixels"
    print(f"{report['format']}: batches of any size, images of {sizes}")
    for precision in ("float32", "bfloat16"):
        for kind, one in report.get(precision, {}).items():
            agreement = one["class_agreement"]
            same = "" if agreement is None else f", same class {100 * agreement:.3f} %"
            difference = f"{one['difference']:.3g} ({one['relative_difference']:.2g} of the largest)"
            name = f"int8, rest {precision}" if has_int8 else precision
            print(f"  {name:<9} {kind}: largest difference {difference}{same}")
            # What int8 may cost is for --max_drop to say; random numbers are not what it was calibrated for.
            if agreement is not None and agreement < LEAST_AGREEMENT and not has_int8:
                warnings.warn(
                    f"{precision} gives the model's class on {100 * agreement:.2f} % of the pixels of {kind} only, "
                    f"below {100 * LEAST_AGREEMENT:g} %. Use float32, or look at maps first.",
                    stacklevel=1,
                )
    if has_int8:
        cost = report["int8"]
        print(f"  int8: {cost['metric']} {cost['int8']:.2f}, in float32 {cost['float32']:.2f}")
