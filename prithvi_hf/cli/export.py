# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf export`: a fine-tuned model as a graph for OpenVINO, ONNX Runtime or `torch.export`."""

import argparse
import tempfile

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
    add("--max_drop", type=float, default=1.0, metavar="POINTS", help=text)


def run(options: argparse.Namespace) -> None:
    """Export a model and print how far the graph is from it."""
    with import_quickly():
        from prithvi_hf.conversion.export_prithvi import export_model
        from prithvi_hf.models.prithvi.configuration_prithvi import check_has_weights
        from prithvi_hf.models.prithvi.exported_prithvi import check_packages
        from prithvi_hf.models.prithvi.inference_dtype_prithvi import LEAST_AGREEMENT

    if options.int8 != (options.calibration is not None):
        raise ValueError("Expected --int8 and --calibration DIR together, found one of them. Give both or neither.")
    if not options.int8 and any((options.data_dir, options.config, options.splits)):
        raise ValueError("Expected --int8 with --data_dir, --config and --splits, found none. They measure its cost.")
    check_packages(options.format)
    check_has_weights(options.model)
    check_new_folder(options.output_dir)
    model, image_processor = load_model(options.model, ("segmentation", "regression", "classification"))
    fixed_size = options.fixed_size or None  # by default of any size where the graph can
    if options.int8:
        with import_quickly():
            from prithvi_hf.conversion.quantize_prithvi import export_int8
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
                max_drop=options.max_drop,
                fixed_size=fixed_size,
            )
    else:
        report = export_model(model, image_processor, options.output_dir, options.format, options.check, fixed_size)
    size = report["fixed_size"]
    print(f"{options.format}: batches of any size, images of {'any size' if size is None else f'{size} pixels'}")
    for precision in ("float32", "bfloat16"):
        for kind, one in report.get(precision, {}).items():
            agreement = one["class_agreement"]
            same = "" if agreement is None else f", same class {100 * agreement:.3f} %"
            difference = f"{one['difference']:.3g} ({one['relative_difference']:.2g} of the largest)"
            print(f"  {precision:<9} {kind}: largest difference {difference}{same}")
            if agreement is not None and agreement < LEAST_AGREEMENT:
                print(
                    f"prithvi-hf: warning: {precision} gives the model's class on {100 * agreement:.2f} % of the "
                    f"pixels of {kind} only, below {100 * LEAST_AGREEMENT:g} %. Use float32, or look at maps first."
                )
    if "int8" in report:
        cost = report["int8"]
        print(f"  int8: {cost['metric']} {cost['int8']:.2f}, in float32 {cost['float32']:.2f}")
    print(f"written to {options.output_dir}")
