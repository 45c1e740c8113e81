# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The command `prithvi-hf info`: what a model folder or a GeoTIFF holds."""

import argparse
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from prithvi_hf.cli.common import BAND_OPTIONS, Commands, add_command


if TYPE_CHECKING:
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
    from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster


_VALUES_IN_MEMORY = 2**24  # pixel values of one read; bounds the memory for scenes of any size


def add_parser(commands: Commands) -> None:
    """Describe `info`."""
    text = "show what a model folder or a GeoTIFF holds"
    parser = add_command(commands, "info", text)
    parser.add_argument("path", metavar="MODEL_OR_TIF", help="model folder, Hub id, or GeoTIFF")
    parser.add_argument(
        "--model", help="with a GeoTIFF: show how this model's processor maps its bands and what units it expects"
    )
    group = parser.add_argument_group("with --model: where the bands are")
    for flag, settings in BAND_OPTIONS.items():
        group.add_argument(flag, **settings)


def run(options: argparse.Namespace) -> None:
    """Print what a model folder or a GeoTIFF holds."""
    from prithvi_hf.models.prithvi.configuration_prithvi import check_model_source

    if Path(options.path).is_file():
        if options.model is not None:
            check_model_source(options.model)
        given = {flag[2:]: getattr(options, flag[2:]) for flag in BAND_OPTIONS}
        print(describe_raster(options.path, options.model, **given))
        return
    if options.model is not None:
        raise ValueError(f"--model goes with a GeoTIFF, but there is no file {options.path}.")
    check_model_source(options.path)
    try:
        print(describe_model(options.path))
    except (TypeError, AttributeError, KeyError, json.JSONDecodeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{options.path} does not describe a model ({reason}): its config.json, preprocessor_config.json or "
            "export.json is damaged. Copy or download the folder again."
        ) from error


def describe_model(name: str) -> str:
    """Describe a model, a `save_pretrained` folder or a Hub id: architecture, sizes, bands, classes, statistics."""
    from safetensors import SafetensorError, safe_open

    from prithvi_hf.models.prithvi.adapter_prithvi import ADAPTER_CONFIG_FILE
    from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig, is_exported
    from prithvi_hf.models.prithvi.exported_prithvi import FORMAT_NAMES
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
    from prithvi_hf.models.prithvi.remote_code_prithvi import EXPORT_FILE
    from prithvi_hf.models.prithvi.sliding_window_prithvi import window_and_stride

    config = PrithviConfig.from_pretrained(name)
    kind, weights = (config.architectures or ["unknown class"])[0], 0
    for file in Path(name).glob("*.safetensors"):  # the headers alone tell; a Hub id has no such files here
        try:
            with safe_open(file, framework="np") as tensors:
                weights += sum(math.prod(tensors.get_slice(key).get_shape()) for key in tensors.keys())  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{file} is not a complete safetensors file: copy or download it again.") from error
    encoder = (
        f"{config.num_hidden_layers} layers of width {config.hidden_size}, {config.num_attention_heads} heads, patch "
        f"{tuple(config.tubelet_size)} (frames, rows, columns)"
    )
    has_encoder = config.architecture == "prithvi"
    lines = [
        f"{name}: {kind}" + (f", {weights:,} weights" if weights else ""),
        f"  encoder      {encoder if has_encoder else 'none: the architecture is unet, the baseline'}",
        f"  input        {config.num_frames} frame(s) of {_plural(config.num_channels, 'band')}, "
        f"tiles of {' x '.join(map(str, window_and_stride(config)[0]))} pixels",
    ]
    if is_exported(name):
        manifest = json.loads(Path(name, EXPORT_FILE).read_text(encoding="utf-8"))
        size = manifest["prithvi_hf"]["fixed_size"]
        precision = " in int8" if manifest["prithvi_hf"].get("int8") else ""
        lines.append(
            f"  graph        exported to {FORMAT_NAMES[manifest['export_format']]}{precision}, for batches of any "
            "size, images of " + ("any size" if size is None else f"at most {size[0]} x {size[1]} pixels")
        )
    adapter = Path(name, ADAPTER_CONFIG_FILE)
    if adapter.is_file():
        values = json.loads(adapter.read_text(encoding="utf-8"))
        method = "dora" if values.get("use_dora") else str(values["peft_type"]).lower()
        lines.append(f"  adapter      {method} of rank {values['r']} on {values['base_model_name_or_path']}")
    head = f"neck {config.neck}, head {config.decode_head}, " if has_encoder else ""
    if kind == "PrithviForPixelRegression":
        lines.append(f"  regression   {head}loss {config.regression_loss}")
        unit = f" {config.target_unit}" if config.target_unit else ""
        figures = f"mean {config.target_mean:g}{unit}, standard deviation {config.target_std:g}{unit}"
        lines.append(f"  values       {config.target_name or 'value'}, {figures}")
    elif kind == "PrithviForImageClassification":
        classes = sorted(cast("dict[int, str]", config.id2label).items())
        problem = f" ({config.problem_type})" if config.problem_type else ""
        lines.append(f"  classes      {', '.join(label for _, label in classes)}{problem}")
    elif kind == "PrithviForSemanticSegmentation":
        lines.append(f"  segmentation {head}loss {config.loss}")
        labels = cast("dict[int, str]", config.id2label)
        for index in sorted(labels):
            color = config.class_colors[index] if config.class_colors else "default colour"
            lines.append(f"  class {index:<6} {labels[index]} ({color})")
    if Path(name).is_dir() and not (Path(name) / "preprocessor_config.json").is_file():
        return "\n".join([*lines, "  no image processor (preprocessor_config.json) is in this folder"])
    processor = PrithviImageProcessor.from_pretrained(name)
    lines.append(f"  scaling      x {processor.rescale_factor:g} + {processor.rescale_offset:g}")
    for position, band in enumerate(processor.bands):
        mean, std = _statistic(processor.image_mean, position), _statistic(processor.image_std, position)
        lines.append(f"  band {position + 1:<4}    {band:<20} mean {mean:.6g}  std {std:.6g}")
    values = "" if processor.nodata_value is None else f" or {processor.nodata_value}"
    rule = f"file mask, or {processor.nodata_rule} of the bands NaN, the file tag{values}"
    lines.append(f"  no data      {rule}; becomes {processor.nodata_replacement:g} before scaling")
    if config.coords_encoding:
        first = f"; 1 January is day {processor.first_day_of_year}" if "time" in config.coords_encoding else ""
        lines.append(f"  coordinates  {' and '.join(config.coords_encoding)}{first}")
    if processor.frame_order != "time_major":
        lines.append(f"  frame order  {processor.frame_order}: bands and dates mixed as in the original crop recipe")
    return "\n".join(lines)


def describe_raster(path: str | os.PathLike[str], model: str | None = None, **options: Any) -> str:
    """Describe a GeoTIFF of any size: grid, type, no data, and the figures of each band's valid pixels.

    With a `model`, a folder or Hub id, show which bands its processor takes, and their means beside its statistics;
    `options` are some of the processor's own, such as `band_map`.
    """
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
    from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster

    raster, processor, found = GeoTiffRaster(path), None, []
    if model is not None:
        processor = PrithviImageProcessor.from_pretrained(model).with_options(**options)
        found = processor.find_bands(raster.descriptions, raster.count, raster.name)
        if len(found) == len(processor.bands):
            processor.num_frames = 1  # the file holds one date; otherwise all that the model takes, stacked
    bands = band_statistics(raster, processor)
    lines = [
        f"{path}: {_plural(raster.count, 'band')} of {raster.height} x {raster.width} pixels (height x width), "
        f"{raster.dtype}",
        f"  CRS          {raster.crs if raster.crs is not None else 'none'}",
        f"  transform    {tuple(raster.transform)[:6]}",
        f"  no data tag  {'none' if raster.nodata is None else format(raster.nodata, 'g')}",
    ]
    for index, band in enumerate(bands):
        line = f"  band {index + 1:<4}    {raster.descriptions[index] or '(no description)':<20} "
        if band.valid:
            percent = 100 * band.valid / (raster.height * raster.width)
            line += f"min {band.minimum:.6g}  mean {band.mean:.6g}  max {band.maximum:.6g}  valid {percent:.1f} %"
        else:
            line += "no valid pixel"
        scale, offset = raster.scales[index], raster.offsets[index]
        if (scale, offset) != (1.0, 0.0):
            line += f"  (tags: scale {scale:g}, offset {offset:g}, not applied here)"
        lines.append(line)
    if processor is None:
        return "\n".join(lines)
    if len(found) > len(processor.bands):
        dates = f"{processor.num_frames} dates of {_plural(len(processor.bands), 'band')}"
        return "\n".join([*lines, f"  for {model}: {dates}, date by date, in order"])
    scaling = f"x {processor.rescale_factor:g} + {processor.rescale_offset:g}"
    lines.append(f"  for {model}, after its scaling ({scaling}), without what it takes for no data:")
    for position, (name, index) in enumerate(zip(processor.bands, found, strict=True)):
        mean = bands[index].mean
        if processor.do_rescale:
            mean = mean * processor.rescale_factor + processor.rescale_offset
        expected, spread = _statistic(processor.image_mean, position), _statistic(processor.image_std, position)
        lines.append(
            f"    {name:<12} <- band {index + 1} ({raster.descriptions[index] or 'by position'}), mean {mean:.4g}, "
            f"the model's {expected:.4g} +- {spread:.4g}: {(mean - expected) / spread:+.1f} standard deviations"
        )
    return "\n".join(lines)


@dataclass
class BandStatistics:
    """Figures of the valid pixels of one band, in file units; NaN where there is none."""

    minimum: float = math.nan
    mean: float = 0.0
    maximum: float = math.nan
    valid: int = 0


def band_statistics(raster: "GeoTiffRaster", processor: "PrithviImageProcessor | None" = None) -> list[BandStatistics]:
    """Measure the valid pixels of every band: not nodata by value or tag, and not excluded by the file's own mask.

    With a processor of as many dates as the raster holds, its nodata value and rule exclude pixels too.
    """
    import numpy as np

    from prithvi_hf.models.prithvi.pixel_values_prithvi import equals_nodata

    own = None if processor is None else processor.nodata_value
    given = [raster.nodata, *(own if isinstance(own, list | tuple) else [own])]
    tags = [float(value) for value in given if value is not None]
    bands = [BandStatistics() for _ in range(raster.count)]
    rows = max(1, _VALUES_IN_MEMORY // (raster.count * raster.width))
    for top in range(0, raster.height, rows):
        strip = raster.select(window=(top, 0, min(rows, raster.height - top), raster.width))
        masked = strip.read_nodata_mask() if processor is None else processor.read_frames(strip)[2]
        for band, pixels in zip(bands, strip.read(), strict=True):
            missing = equals_nodata(pixels, tags)
            valid = np.ones(pixels.shape, dtype=bool) if missing is None else ~missing
            values = pixels[valid if masked is None else valid & ~masked]
            if values.size:
                band.minimum = float(np.fmin(band.minimum, values.min()))  # fmin passes over the NaN at the start
                band.maximum = float(np.fmax(band.maximum, values.max()))
                band.valid += values.size
                band.mean += (float(values.mean(dtype=np.float64)) - band.mean) * values.size / band.valid
    for band in bands:
        if not band.valid:
            band.mean = math.nan
    return bands


def _plural(count: int, noun: str) -> str:
    """Write a number of things."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _statistic(values: float | list[float], position: int) -> float:
    """Give a band's entry of a statistic that may be one number for all."""
    if not isinstance(values, list | tuple):
        return float(values)
    return float(values[position] if len(values) > 1 else values[0])
