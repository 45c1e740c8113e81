# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf export`: a fine-tuned model as a graph for OpenVINO, ONNX Runtime or `torch.export`."""

import argparse

from prithvi_hf.cli.common import Commands, add_command, import_quickly, load_model


_EPILOG = """examples:
  prithvi-hf export OUT exported --format openvino --check chips/
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


def run(options: argparse.Namespace) -> None:
    """Export a model and print how far the graph is from it."""
    with import_quickly():
        from prithvi_hf.conversion.export_prithvi import LEAST_AGREEMENT, export_model
        from prithvi_hf.models.prithvi.exported_prithvi import check_packages

    check_packages(options.format)
    model, image_processor = load_model(options.model, ("segmentation", "regression", "classification"))
    fixed = False if options.fixed_size else None
    report = export_model(model, image_processor, options.output_dir, options.format, options.check, fixed)
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
    print(f"written to {options.output_dir}")
