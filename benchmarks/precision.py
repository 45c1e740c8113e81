# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What half precision and int8 cost on real chips: classes that change, and points of mean IoU.

Run alone: `python -m benchmarks.precision --data_dir DIR --output_dir OUT [--model FOLDER] [--config sen1floods11]`.
Without a model it trains the small FCN of `benchmarks.real_chips` in OUT first. Chips of all splits are predicted by
sliding window as `prithvi-hf evaluate` does; int8 is calibrated with those of the first split, the training's.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.model import has_bfloat16
from benchmarks.peers import describe_cpu
from benchmarks.real_chips import train
from prithvi_hf import PrithviForSemanticSegmentation, PrithviImageProcessor, load_dataset
from prithvi_hf.conversion.export_prithvi import export_model
from prithvi_hf.conversion.quantize_prithvi import export_int8
from prithvi_hf.metrics.segmentation_metrics.segmentation_metrics import (
    confusion_matrix,
    metrics_from_confusion_matrix,
)
from prithvi_hf.models.prithvi.exported_prithvi import PrithviExportedModel
from prithvi_hf.models.prithvi.sliding_window_prithvi import sliding_window_logits, window_and_stride
from prithvi_hf.training.recipe import read_recipe


Chips = list[tuple[torch.Tensor, torch.Tensor]]


def make_variants(
    model: PrithviForSemanticSegmentation, processor: PrithviImageProcessor, calibration: Path, folder: Path
) -> Iterator[tuple[str, Any]]:
    """Give the model in every precision, eager and exported; float32 is changed to bfloat16 after it was used.

    Args:
        model (`PrithviForSemanticSegmentation`): Trained, in float32.
        processor (`PrithviImageProcessor`): Its own.
        calibration (`Path`): Folder of chips for int8.
        folder (`Path`): Where models are exported to.

    Yields:
        `tuple[str, Any]`: A name and a model.
    """
    yield "PyTorch float32", model
    for export_format in ("openvino", "onnx"):
        export_model(model, processor, folder / export_format, export_format)
        export_int8(model, processor, folder / f"{export_format}-int8", calibration, export_format, max_drop=100)
        exported = PrithviExportedModel.from_pretrained(folder / export_format)
        yield f"{export_format} float32", exported
        if export_format == "openvino" and has_bfloat16():
            yield f"{export_format} bfloat16", exported.to(torch.bfloat16)
        yield f"{export_format} int8", PrithviExportedModel.from_pretrained(folder / f"{export_format}-int8")
    if has_bfloat16():
        yield "PyTorch bfloat16", model.to(torch.bfloat16)


def predict(model: Any, chips: Chips) -> list[torch.Tensor]:
    """Predict the classes of chips by sliding window with half overlap.

    Args:
        model: A segmentation model.
        chips: Pixel values (1, bands, frames, height, width) and labels (1, height, width).
    """
    window, stride = window_and_stride(model.config)
    pixels = [pixels.to(model.dtype if isinstance(model, torch.nn.Module) else torch.float32) for pixels, _ in chips]
    return [sliding_window_logits(model, chip, window, stride).argmax(dim=1) for chip in pixels]


def measure(variants: Iterator[tuple[str, Any]], chips: Chips, num_labels: int) -> list[dict[str, Any]]:
    """Rows of the table: each variant against the first one.

    Args:
        variants: What `make_variants` gives.
        chips: As for `predict`.
        num_labels: Number of classes.
    """
    rows: list[dict[str, Any]] = []
    expected: list[torch.Tensor] = []
    for name, model in variants:
        found = predict(model, chips)
        expected = expected or found
        valid = [labels >= 0 for _, labels in chips]
        same = [(one == other)[mask] for one, other, mask in zip(found, expected, valid, strict=True)]
        matrix = sum(confusion_matrix(one, labels, num_labels) for one, (_, labels) in zip(found, chips, strict=True))
        mean_iou = 100 * float(metrics_from_confusion_matrix(matrix)["mean_iou"])
        agreement = torch.cat(same).double().mean().item()
        rows.append({"what": name, "class_agreement": agreement, "mean_iou": mean_iou})
    return [row | {"change": row["mean_iou"] - rows[0]["mean_iou"]} for row in rows]


def tabulate(rows: list[Mapping[str, Any]]) -> str:
    """Make the table in Markdown.

    Args:
        rows: What `measure` gives.
    """
    lines = [f"| on {describe_cpu()} | same class as float32 | mean IoU | points |", "|---|---|---|---|"]
    lines += [
        f"| {row['what']} | {row['class_agreement']:.3%} | {row['mean_iou']:.2f} | {row['change']:+.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Train a model unless one is given, predict the chips in every precision, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description="Accuracy of precisions.")
    parser.add_argument("--data_dir", type=Path, required=True, help="folder of the dataset, Sen1Floods11 by default")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the run")
    parser.add_argument("--model", type=Path, help="folder of a fine-tuned model (default: train the small FCN)")
    parser.add_argument("--config", default="sen1floods11", help="recipe of the dataset (default sen1floods11)")
    parser.add_argument("--max_steps", type=int, default=300, help="steps of the training (default 300)")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="of the training (default 1e-3)")
    options = parser.parse_args()
    source = options.model or train("FCN", 0, options)
    model = PrithviForSemanticSegmentation.from_pretrained(source).eval()
    processor = PrithviImageProcessor.from_pretrained(source)
    dataset: Any = load_dataset(read_recipe(options.config).data.dataset, data_dir=options.data_dir)
    chips: Chips = []
    with tempfile.TemporaryDirectory() as folder:
        calibration = Path(folder, "calibration")
        calibration.mkdir()
        for number, split in enumerate(dataset.values()):
            for row in split:
                features = processor([row["image"]], [row["mask"]], return_tensors="pt")
                chips.append((features["pixel_values"], torch.from_numpy(np.asarray(features["labels"]))))
                if number == 0:
                    (calibration / Path(row["image"].path).name).symlink_to(Path(row["image"].path).resolve())
        variants = make_variants(model, processor, calibration, Path(folder))
        print(tabulate(measure(variants, chips, model.config.num_labels)))


if __name__ == "__main__":
    main()
