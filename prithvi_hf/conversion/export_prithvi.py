# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Export a fine-tuned model to a graph for OpenVINO, ONNX Runtime or `torch.export`, and compare the two.

The graph is the fused path of the model: the patch embedding as a matrix product, because runtimes that choose
bfloat16 by themselves compute its convolution of 1x16x16 wrongly, batch normalisation folded into the kernels, and
padding and interpolated positions inside, so that batch, height and width stay open. It maps normalised bands to
`logits`. Years, degrees and values in their unit have more digits than bfloat16: dates and places come encoded as
sines and cosines, and a regression's logits are standardised.
"""

import copy
import io
import json
import logging
import operator
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from transformers.utils.logging import get_logger

from prithvi_hf.disk import check_new_folder, is_disk_full, write_folder
from prithvi_hf.models.prithvi.embeddings_prithvi import COORDINATE_ARGUMENTS, encode_coordinates
from prithvi_hf.models.prithvi.exported_prithvi import FORMATS, PrithviExportedModel, check_packages
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.inference_dtype_prithvi import convert_model
from prithvi_hf.models.prithvi.modeling_prithvi import PrithviTaskModel, unwrap_model
from prithvi_hf.models.prithvi.segmentation_map_prithvi import (
    PreparedScene,
    open_frames,
    predict_scene_logits,
    prepare_scene,
    take_coordinates,
)
from prithvi_hf.models.prithvi.sliding_window_prithvi import evaluation_mode, window_and_stride
from prithvi_hf.rasters import TIFF_SUFFIXES
from prithvi_hf.scenes.scene import open_scene


logger = get_logger(__name__)

ROUNDING = 1e-3
"""Largest difference from the model in float32, as a fraction of its largest logit, that sums in another order make.

They make 1e-6 to 1e-4; a graph that is computed in half precision is off by 1e-2.
"""
PARITY_FILE = "parity.json"
_CARD = """---
library_name: prithvi_hf
tags: [prithvi, geospatial, {format}]
---
# A Prithvi model exported to {format}{precision}

The graph takes batches of any size and images of {size}:
`pixel_values` (batch, bands, frames, height, width), scaled and normalised as `preprocessor_config.json` says, and,
where `coords_encoding` in `config.json` names them, `temporal_coords` (batch, frames, hidden_size) and
`location_coords` (batch, hidden_size), as sines and cosines. It gives `logits` (batch, classes, height, width), which
divided by the `temperature` in `config.json` make probabilities by the softmax; those of a regression are
standardised.

```bash
prithvi-hf predict --model FOLDER --frames scene.tif --output map.tif{trust_option}
```

```python
from prithvi_hf import PrithviExportedModel

model = PrithviExportedModel.from_pretrained("FOLDER"{trust_argument})
```

Against the model that it was made of (logits; with {runtime} on the machine of the export):

| precision | on | largest difference | relative | same class |
|---|---|---|---|---|
{rows}
"""
_INT8_CARD = """
Weights and activations of matrix products and convolutions are int8; the precision is that of all else. {metric}:
{int8:.2f}, of the model {float32:.2f}.
"""
_MOST_CHIPS = 32


class _Graph(nn.Module):
    """What is traced: bands and coordinates to logits, without types of this package in its signature."""

    def __init__(self, model: PrithviTaskModel) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Give the logits of a batch."""
        return {"logits": self.model(**inputs).logits}


def take_model(model: Any) -> PrithviTaskModel:
    """Take a model that is to be exported out of its wrapper, in float32 as the graph is, and refuse one that cannot.

    Raises:
        ValueError: The model is a backbone, or an exported one.
    """
    model = unwrap_model(model, ("segmentation", "regression", "classification"))
    if isinstance(model, PrithviExportedModel):
        raise ValueError("Expected a model with weights, found an exported one. Export the model that it was made of.")
    return convert_model(model, "float32")


def make_tiles(config: Any, batch_size: int, size: Sequence[int], seed: int = 0) -> dict[str, torch.Tensor]:
    """Make inputs of a model from random numbers: tiles of a size and, where it takes them, dates and places."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch_size, config.num_channels, config.num_frames, *size)
    inputs = {"pixel_values": torch.randn(shape, generator=generator)}
    if "time" in config.coords_encoding:
        days = torch.randint(1, 366, (batch_size, config.num_frames), generator=generator)
        inputs[COORDINATE_ARGUMENTS["time"]] = torch.stack([torch.full_like(days, 2021), days], dim=-1).float()
    if "location" in config.coords_encoding:
        inputs[COORDINATE_ARGUMENTS["location"]] = torch.rand(batch_size, 2, generator=generator) * 120 - 60
    return inputs


def trace_graph(
    model: PrithviTaskModel, format: str = "openvino", fixed_size: bool = False, quantizer: Any = None
) -> PrithviExportedModel:
    """Turn a model into a graph, in memory and in float32; the model stays as it is.

    Args:
        model: A model of classes or values of pixels, or of classes of images.
        format: `"openvino"`, `"onnx"` or `"torch_export"`.
        fixed_size: Whether height and width are those of the model's tile; else they stay open, as the batch does.
        quantizer: A quantizer of `transformers.exporters`, for its calibration and settings.

    Raises:
        ImportError: The packages of the format are not installed.
        Exception: The model has an operation that cannot be traced or converted.
    """
    from transformers.exporters.auto import get_exporter_class

    check_packages(format)
    model = copy.deepcopy(model).cpu().float().eval()
    if model.config.architecture == "prithvi" and model.task != "classification":
        cast(Any, model)._upsampling.freeze(model.neck, model.decode_head)
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    model.config.target_mean, model.config.target_std = 0.0, 1.0  # the unit is restored outside the graph
    size, _ = window_and_stride(config)
    if not fixed_size and min(config.grid_size[1:]) < 4:  # of an example of one patch a side, that would stay so
        size = (4 * size[0], 4 * size[1])
    inputs = {
        name: values if name == "pixel_values" else encode_coordinates(values, config.hidden_size)
        for name, values in make_tiles(config, 2, size).items()
    }
    dynamic = torch.export.Dim.DYNAMIC
    shapes = {name: {0: dynamic} for name in inputs}
    if not fixed_size:
        shapes["pixel_values"] |= {3: dynamic, 4: dynamic}
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):  # what tracing prints is for its developers
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            exporter: Any = get_exporter_class(FORMATS[format][0])()
            options = exporter.config_class(dynamic_shapes=shapes, quantizer=quantizer)
            exported = exporter.export(_Graph(model), inputs, config=options)
        finally:
            logging.disable(logging.NOTSET)
    own = {"task": model.task, "fixed_size": list(size) if fixed_size else None, "int8": quantizer is not None}
    manifest = {"export_format": FORMATS[format][0], "prithvi_hf": own}
    return PrithviExportedModel(config, exported.components, manifest, [])


def read_chips(
    folder: str | os.PathLike, model: PrithviTaskModel, image_processor: PrithviImageProcessor
) -> Iterator[PreparedScene]:
    """Read GeoTIFF chips of a folder and those below it as the model takes them, 32 where there are more.

    Files that the image processor cannot read, such as masks beside the chips, and those of no data are left out.

    Raises:
        ValueError: There is no GeoTIFF that it can read.
    """
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in TIFF_SUFFIXES)
    np.random.default_rng(0).shuffle(files)  # neighbours look alike
    encoded = tuple(model.config.coords_encoding)
    count, reason = 0, f"no .tif in {folder}"
    for path in files:
        try:
            opened = open_scene(path, image_processor)
            scene = prepare_scene(image_processor, open_frames(opened.frames))
            if encoded:
                dates = opened.dates if len(opened.dates) == image_processor.num_frames else None
                take_coordinates(scene, image_processor, encoded, dates, None)
            if scene.nodata_mask.all():
                raise ValueError(f"no pixel of {path} has data")
        except ValueError as error:
            reason = str(error)
            continue
        count += 1
        yield scene
        if count == _MOST_CHIPS:
            return
    if not count:
        raise ValueError(f"Expected GeoTIFF chips of the model's bands in {folder}, found none ({reason}).")


def select_chips(exported: Any, chips: Iterable[PreparedScene]) -> list[PreparedScene]:
    """Leave out the chips that a graph of one size would be given padded by reflection, unlike the model."""
    chips, size = list(chips), getattr(exported, "fixed_size", None)
    if size is None:
        return chips
    compare = operator.eq if exported.task == "classification" else operator.ge  # of maps, tiles of larger ones
    fitting = [chip for chip in chips if all(map(compare, chip.pixel_values.shape[-2:], size))]
    if len(fitting) < len(chips):
        logger.warning(
            f"{len(chips) - len(fitting)} of {len(chips)} chips do not fit tiles of {size} pixels, the only size of "
            "this graph, and are left out of the comparison."
        )
    return fitting


def measure_parity(
    model: PrithviTaskModel, others: Mapping[str, Any], samples: Iterable[dict[str, torch.Tensor] | PreparedScene]
) -> dict[str, dict[str, float | None]]:
    """Compare the logits of other models with those of a model, on tiles or whole chips.

    Args:
        model: The model that is right.
        others: The others, by name.
        samples: Inputs of the models, or chips, of which only pixels with data count.

    Returns:
        Of each other model `"difference"`, the largest one of logits (of a regression in its unit),
        `"relative_difference"`, as a fraction of the model's largest logit (of a regression: of `target_std`), and
        `"class_agreement"`, the fraction of pixels or images of the same class, None of a regression.
    """
    has_classes = model.task != "regression" and model.config.problem_type != "regression"
    largest, count = 0.0 if has_classes else float(model.config.target_std), 0
    differences, agreeing = dict.fromkeys(others, 0.0), dict.fromkeys(others, 0)
    with evaluation_mode(model), torch.inference_mode():
        for sample in samples:
            expected, valid = _predict(model, sample)
            if has_classes:
                largest = max(largest, float(expected.abs().max()))
            count += int(valid.sum())
            for name, other in others.items():
                found, _ = _predict(other, sample)
                distance = (found - expected).abs().amax(dim=1)[valid]
                # NaN is never within a bound, and `max` would pass over it.
                worst = float(distance.nan_to_num(torch.inf).max()) if distance.numel() else 0.0
                differences[name] = max(differences[name], worst)
                agreeing[name] += int((found.argmax(dim=1) == expected.argmax(dim=1))[valid].sum())
    return {
        name: {
            "difference": differences[name],
            "relative_difference": differences[name] / max(largest, torch.finfo().tiny),
            "class_agreement": agreeing[name] / max(count, 1) if has_classes else None,
        }
        for name in others
    }


def _predict(model: Any, sample: dict[str, torch.Tensor] | PreparedScene) -> tuple[torch.Tensor, torch.Tensor]:
    """Give logits (batch_size, num_labels, ...) in float32, and where they count, (batch_size, ...)."""
    if isinstance(sample, dict):
        logits = model(**sample).logits.float()
    elif model.task == "classification":
        logits = model(pixel_values=sample.pixel_values, **sample.coordinates).logits.float()
    else:
        logits = predict_scene_logits(model, sample, overlap=0.0).unsqueeze(0).float()
        return logits, torch.from_numpy(~sample.nodata_mask).unsqueeze(0)
    return logits, torch.ones_like(logits[:, 0], dtype=torch.bool)


def report_parity(
    model: PrithviTaskModel, exported: PrithviExportedModel, chips: Sequence[PreparedScene] | None = None
) -> dict[str, Any]:
    """Compare an exported model with its origin in each precision that its runtime has; see [`export_model`].

    The tiles are two of the model's own size and, where the graph takes others, one less and one more wide than it.
    """
    height, width = window_and_stride(model.config)[0]
    sizes = {(2, height, width)}
    if exported.fixed_size is None:
        sizes |= {(1, height - 5, width + 9), (3, height // 2, width)}
    samples: dict[str, Any] = {
        "tiles": [make_tiles(model.config, batch, size, batch) for batch, *size in sorted(sizes)]
    }
    chips = select_chips(exported, chips or ())
    if chips:
        samples["chips"] = chips
    precisions = [one for one in FORMATS[exported.export_format][2] if one != torch.float16]
    others = {str(one).removeprefix("torch."): copy.deepcopy(exported).to(one) for one in precisions}
    measured = {kind: measure_parity(model, others, group) for kind, group in samples.items()}
    report: dict[str, Any] = {
        "format": exported.export_format,
        "runtime": exported.runtime,
        "fixed_size": exported.fixed_size,
        "num_chips": len(chips),
    }
    return report | {name: {kind: figures[name] for kind, figures in measured.items()} for name in others}


def make_card(report: Mapping[str, Any]) -> str:
    """Write the card of an exported folder, in Markdown, from its report."""
    size = "any height and width" if report["fixed_size"] is None else "{} x {} pixels".format(*report["fixed_size"])
    rows = [
        f"| {precision} | {kind} | {one['difference']:.3g} | {one['relative_difference']:.2g} | "
        + ("-" if one["class_agreement"] is None else f"{100 * one['class_agreement']:.3f} %")
        + " |"
        for precision in ("float32", "bfloat16")
        for kind, one in report.get(precision, {}).items()
    ]
    is_pickle = report["format"] == "torch_export"
    card = _CARD.format(
        size=size,
        rows="\n".join(rows),
        precision=" in int8" if "int8" in report else "",
        trust_option=" --trust_remote_code" if is_pickle else "",
        trust_argument=", trust_remote_code=True" if is_pickle else "",
        **report,
    )
    if "int8" in report:
        card += _INT8_CARD.format(**report["int8"])
    return card


def export_model(
    model: PrithviTaskModel,
    image_processor: PrithviImageProcessor,
    output_dir: str | Path,
    format: str = "openvino",
    check: str | os.PathLike | Sequence[PreparedScene] | None = None,
    fixed_size: bool | None = None,
    quantizer: Any = None,
    accept: Callable[[PrithviExportedModel], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Export a model to a folder that predicts without it, once the graph gives what the model gives.

    Beside the graph are the configurations, `export.json`, the report as `parity.json`, and a card, `README.md`.

    Args:
        model: A fine-tuned model of classes or values of pixels, or of classes of images.
        image_processor: Its image processor.
        output_dir: A new or empty folder.
        format: `"openvino"` (runs in bfloat16 as well), `"onnx"`, or `"torch_export"` (a pickle).
        check: Folder of GeoTIFF chips to compare the two on as well, at most 32 of them, or what [`read_chips`] gave;
            no labels are needed.
        fixed_size: Whether the graph takes images of the model's tile only, or of any size; None is any where it can.
        quantizer: As in [`trace_graph`].
        accept: Given the exported model, raises if it is not good enough, and else gives further entries of the
            report; it decides in place of the difference from the model.

    Returns:
        The report: `"format"`, `"runtime"`, `"fixed_size"`, and by precision (`"float32"`, of OpenVINO `"bfloat16"`)
        what [`measure_parity`] gives of `"tiles"`, made of random numbers, and of `"chips"`.

    Raises:
        ImportError: The packages of the format are not installed.
        ValueError: An argument is not as it should be, or the graph differs from the model by more than rounding.
            Nothing is written.
    """
    check_packages(format)
    check_new_folder(output_dir)
    model = take_model(model)
    image_processor.check_config(model.config)
    chips = list(read_chips(check, model, image_processor)) if isinstance(check, str | os.PathLike) else check
    with write_folder(output_dir) as folder:
        image_processor.save_pretrained(folder)
        problem: Any = None
        for is_fixed in (False, True) if fixed_size is None else (fixed_size,):
            if problem is not None:
                logger.warning(f"The graph takes images of the model's tile only: with open sizes, {problem}")
            try:
                trace_graph(model, format, is_fixed, quantizer).save_pretrained(folder)
                exported = PrithviExportedModel.from_pretrained(folder, trust_remote_code=True)
                report = report_parity(model, exported, chips)
            except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
                if is_disk_full(error):
                    raise
                problem = f"{type(error).__name__}: {' '.join(str(error.__cause__ or error).split())[:500]}"
                continue
            if accept is not None:
                report |= accept(exported)
                break
            worst = max(one["relative_difference"] for one in report["float32"].values())
            if worst <= ROUNDING:
                break
            problem = f"logits differ by {worst:.2g} of the largest one."
        else:
            raise ValueError(
                f"Expected a graph that gives the model's logits but for rounding, found that it does not: {problem} "
                "Choose another --format, or report it with the model's config.json. Nothing was written."
            )
        (folder / PARITY_FILE).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(make_card(report), encoding="utf-8")
    return report
