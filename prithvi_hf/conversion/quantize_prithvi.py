# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Export a fine-tuned model in int8: NNCF quantises weights and activations after training, from chips of the user.

Matrix products and convolutions run in int8, all else in the precision of the runtime. The patch embedding keeps its
precision: it is a hundredth of the work and sees bands whose range differs most. Softmax, normalisation and GELU are
left by NNCF's scheme for transformers, which also moves outliers of activations into the weights (SmoothQuant, Xiao et
al., ICML 2023).
"""

import os
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from prithvi_hf.conversion.export_prithvi import export_model, measure_parity, read_chips, select_chips, take_model
from prithvi_hf.models.prithvi.embeddings_prithvi import encode_coordinates, pad_by_reflection
from prithvi_hf.models.prithvi.exported_prithvi import check_packages, drop_signal_stack
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.modeling_prithvi import PrithviTaskModel
from prithvi_hf.models.prithvi.segmentation_map_prithvi import PreparedScene, predict_scene_logits
from prithvi_hf.models.prithvi.sliding_window_prithvi import window_and_stride
from prithvi_hf.training.evaluation import evaluate_recipe
from prithvi_hf.training.training_args import TASK_METRICS


if TYPE_CHECKING:
    from prithvi_hf.training.recipe import TrainingRecipe

INT8_FORMATS = ("openvino", "onnx")
MAX_DROP = 1.0
"""Points of mean IoU that quantisation may cost by default."""
_WEIGHTED = ("MatMul", "Gemm", "Conv", "Convolution")


def collect_tiles(
    model: PrithviTaskModel, chips: Iterable[PreparedScene], most: int = 300
) -> list[dict[str, torch.Tensor]]:
    """Collect what the graph is called with when the model predicts chips, to calibrate with.

    Args:
        model: The model.
        chips: Chips as [`~prithvi_hf.conversion.export_prithvi.read_chips`] gives them.
        most: Number of tiles at which to end.

    Returns:
        Inputs of the graph, a batch of one tile of the model's size each; smaller chips are padded by reflection.
    """
    size, _ = window_and_stride(model.config)
    tiles: list[dict[str, torch.Tensor]] = []

    def keep(_: Any, __: Any, inputs: dict[str, torch.Tensor]) -> None:
        for index in range(len(inputs["pixel_values"])):
            tile = {name: values[index : index + 1].clone() for name, values in inputs.items()}
            pixels, _ = pad_by_reflection(tile.pop("pixel_values"), size)
            coordinates = {name: encode_coordinates(tile[name], model.config.hidden_size) for name in tile}
            tiles.append({"pixel_values": pixels, **coordinates})

    handle = model.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with torch.inference_mode():
            for chip in chips:
                if model.task == "classification":
                    model(pixel_values=chip.pixel_values, **chip.coordinates)
                else:
                    predict_scene_logits(model, chip, overlap=0.0)
                if len(tiles) >= most:
                    break
    finally:
        handle.remove()
    return tiles[:most]


def make_quantizer(format: str, tiles: Sequence[dict[str, torch.Tensor]]) -> Any:
    """Make the quantizer that `transformers.exporters` calls with the converted graph.

    Args:
        format: `"openvino"` or `"onnx"`.
        tiles: What [`collect_tiles`] gives.

    Raises:
        ImportError: NNCF or the packages of the format are not installed.
        ValueError: The format has no int8.
    """
    if format not in INT8_FORMATS:
        raise ValueError(f"Expected int8 of {' or '.join(INT8_FORMATS)}, found {format!r}. Choose one of them.")
    check_packages(format)
    if find_spec("nncf") is None:
        raise ImportError(f"int8 needs nncf, which is not installed: pip install 'prithvi_hf[{format}]'.")
    import nncf
    from transformers.exporters import quantizers

    base: Any = {"openvino": quantizers.NNCFOpenVINOQuantizer, "onnx": quantizers.NNCFOnnxQuantizer}[format]

    class Quantizer(base):
        """Leaves out the first product with weights, which is the patch embedding whatever its name in the graph."""

        def quantize(self, model: Any, sample_inputs: Any, format_name: Any) -> Any:
            if format == "openvino":
                names = [op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() in _WEIGHTED]
            else:
                names = [node.name for node in model.graph if node.op_type in _WEIGHTED]
            self.config.ignored_scope = nncf.IgnoredScope(names=names[:1])
            quantized = super().quantize(model, sample_inputs, format_name)
            drop_signal_stack()
            return quantized

    config = quantizers.NNCFQuantizationConfig(subset_size=len(tiles))
    if format == "onnx":  # NNCF 3.4 fails on products without weights there
        alphas = nncf.AdvancedSmoothQuantParameters(matmul=-1)
        config.advanced_parameters = nncf.AdvancedQuantizationParameters(smooth_quant_alphas=alphas)
    return Quantizer(config, calibration_dataset=tiles)


def _check_has_classes(model: PrithviTaskModel) -> None:
    """Refuse to judge a regression without labels."""
    if "regression" in (model.task, model.config.problem_type):
        raise ValueError(
            "Expected labels to measure what int8 costs a regression, found none. Name the labelled chips with "
            "--data_dir and, where the model has no recipe.yaml, --config."
        )


def measure_drop(
    model: PrithviTaskModel,
    exported: Any,
    image_processor: PrithviImageProcessor,
    chips: Sequence[PreparedScene],
    recipe: "TrainingRecipe | None" = None,
    splits: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Measure what quantisation costs: on labels where there are some, else by the pixels whose class changes.

    Args:
        model: The model in float32.
        exported: The same in int8.
        image_processor: That of both.
        chips: Chips without labels.
        recipe: The recipe of a dataset with labels, as `make_evaluation_recipe` makes it.
        splits: Splits of it, by default that which a training is evaluated on.

    Returns:
        `"metric"`, its value of either model as `"float32"` and `"int8"`, and `"drop"`: points of the mean IoU (of a
        classification of the macro F1), of a regression the percentage by which its RMSE rises; without labels the
        percentage of pixels, or images, that get another class.

    Raises:
        ValueError: A regression has no labels to be measured on.
    """
    if recipe is None:
        _check_has_classes(model)
        chips = select_chips(exported, chips)
        if not chips:
            raise ValueError(
                f"Expected chips of {exported.fixed_size} pixels or more to measure what int8 costs on, found none. "
                "Give others with --check, or labelled ones with --data_dir."
            )
        [figures] = measure_parity(model, {"int8": exported}, chips).values()
        same = 100 * cast(float, figures["class_agreement"])
        return {"metric": "class_agreement", "float32": 100.0, "int8": same, "drop": 100 - same}
    metric = next(iter(TASK_METRICS[model.task]))
    splits = list(splits or [recipe.data.eval_split])
    results = [evaluate_recipe(one, image_processor, recipe, splits, False) for one in (model, exported)]
    before, after = (sum(float(split.metrics[metric]) for split in result) / len(splits) for result in results)
    drop = 100 * ((after / before - 1) if model.task == "regression" else before - after)
    scale = 1 if model.task == "regression" else 100
    return {"metric": metric, "splits": splits, "float32": scale * before, "int8": scale * after, "drop": drop}


def export_int8(
    model: PrithviTaskModel,
    image_processor: PrithviImageProcessor,
    output_dir: str | Path,
    calibration: str | os.PathLike,
    format: str = "openvino",
    *,
    check: str | os.PathLike | None = None,
    recipe: "TrainingRecipe | None" = None,
    splits: Sequence[str] | None = None,
    max_drop: float = MAX_DROP,
    fixed_size: bool | None = None,
) -> dict[str, Any]:
    """Export a model in int8, as [`~prithvi_hf.conversion.export_prithvi.export_model`] does in float32.

    Args:
        model: A fine-tuned model of classes or values of pixels, or of classes of images.
        image_processor: Its image processor.
        output_dir: A new or empty folder.
        calibration: Folder of GeoTIFF chips that show what the model will see, at most 32 are read; no labels needed.
        format: `"openvino"` or `"onnx"`.
        check: Folder of other GeoTIFF chips to compare int8 and the model on; those of `calibration` by default.
        recipe: The recipe of a dataset with labels to measure the cost on; without one, it is the pixels of `check`
            that get another class.
        splits: Splits of the recipe's dataset, by default that which a training is evaluated on.
        max_drop: Largest cost, in points of the mean IoU or as [`measure_drop`] says.
        fixed_size: As in `export_model`, but that None is the model's tile alone for ONNX.

    Returns:
        The report of `export_model` with `"int8"`: what [`measure_drop`] gives, `"max_drop"` and `"tiles"`, the number
        of tiles that the ranges of activations are from.

    Raises:
        ImportError: NNCF or the packages of the format are not installed.
        ValueError: As `export_model`, or int8 costs more than `max_drop`. Nothing is written.
    """
    if not max_drop >= 0:
        raise ValueError(f"Expected max_drop in points, 0 or more, found {max_drop}.")
    make_quantizer(format, ())  # what is not installed is said before anything is read
    model = take_model(model)
    if recipe is None:
        _check_has_classes(model)
    chips = list(read_chips(calibration, model, image_processor))
    tiles = collect_tiles(model, chips)
    if check is not None:
        chips = list(read_chips(check, model, image_processor))

    def accept(exported: Any) -> dict[str, Any]:
        cost = measure_drop(model, exported, image_processor, chips, recipe, splits)
        if not cost["drop"] <= max_drop:
            raise ValueError(
                f"Expected int8 to cost at most {max_drop:g} points of {cost['metric']}, found {cost['drop']:.2f}: "
                f"{cost['float32']:.2f} in float32, {cost['int8']:.2f} in int8. Nothing was written: calibrate with "
                "more or other chips, allow more with --max_drop, or export without --int8 and predict in bfloat16."
            )
        return {"int8": cost | {"max_drop": max_drop, "tiles": len(tiles)}}

    quantizer = make_quantizer(format, tiles)
    if fixed_size is None and format == "onnx":
        # ONNX Runtime 1.32 moves a transposition of such a graph past the interpolation of positions, and fails at it.
        fixed_size = True
    return export_model(model, image_processor, output_dir, format, chips, fixed_size, quantizer, accept)
