# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Descriptions for people of what a model folder or a GeoTIFF holds, as `prithvi-hf info` prints them."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.rasters.geotiff_raster import GeoTiffRaster


_VALUES_IN_MEMORY = 2**24  # pixel values of one read; bounds the memory for scenes of any size


@dataclass
class BandStatistics:
    """Figures of the valid pixels of one band, in file units; NaN where there is none.

    Attributes:
        minimum: Least value.
        mean: Mean.
        maximum: Greatest value.
        valid: Number of valid pixels.
    """

    minimum: float = math.nan
    mean: float = math.nan
    maximum: float = math.nan
    valid: int = 0


def describe_model(name: str) -> str:
    """Describe a model: architecture, sizes, bands, classes, statistics.

    Args:
        name: A `save_pretrained` folder or a Hub id.

    Returns:
        Text of several lines.

    Raises:
        OSError: If there is no such model.
        ValueError: If its configuration describes none.
    """
    config = PrithviConfig.from_pretrained(name)
    kind = (config.architectures or ["unknown class"])[0]
    size = " x ".join(map(str, config.frame_size))
    lines = [
        f"{name}: {kind}{_parameter_count(name)}",
        f"  encoder      {config.num_hidden_layers} layers of width {config.hidden_size}, "
        f"{config.num_attention_heads} heads, patch {tuple(config.tubelet_size)} (frames, rows, columns)",
        f"  input        {config.num_frames} frame(s) of {_count_text(config.num_channels, 'band')}, "
        f"windows of {size} pixels",
    ]
    if kind == "PrithviForSemanticSegmentation":
        lines.append(f"  segmentation neck {config.neck}, head {config.decode_head}, loss {config.loss}")
        colors = config.class_colors or ["default colour"] * config.num_labels
        lines += [
            f"  class {index:<6} {config.id2label[index]} ({colors[index]})" for index in range(config.num_labels)
        ]
    return "\n".join([*lines, *_processor_lines(name)])


def describe_raster(path: str | os.PathLike, model: str | None = None) -> str:
    """Describe a GeoTIFF: grid, type, no data, and the figures of each band's valid pixels.

    Args:
        path: The GeoTIFF; it is read piece by piece, so its size does not matter.
        model: A model folder or Hub id: show which bands its processor takes, and their means beside its statistics.

    Returns:
        Text of several lines.

    Raises:
        ValueError: If the file is no GeoTIFF, or lacks bands of the model.
    """
    raster = GeoTiffRaster(path)
    processor = None if model is None else _processor_for(raster, model)
    statistics = band_statistics(raster, processor)
    nodata = "none" if raster.nodata is None else f"{raster.nodata:g}"
    lines = [
        f"{path}: {_count_text(raster.count, 'band')} of {raster.height} x {raster.width} pixels (height x width), "
        f"{raster.dtype}",
        f"  CRS          {raster.crs if raster.crs is not None else 'none'}",
        f"  transform    {tuple(raster.transform)[:6]}",
        f"  no data tag  {nodata}",
    ]
    for index, figures in enumerate(statistics):
        title = f"  band {index + 1:<4}    {raster.descriptions[index] or '(no description)':<20}"
        tags = _scale_text(raster.scales[index], raster.offsets[index])
        lines.append(f"{title} {_figures_text(figures, raster.height * raster.width)}{tags}")
    if processor is not None:
        lines += _mapping_lines(raster, statistics, processor, model)
    return "\n".join(lines)


def _processor_for(raster: GeoTiffRaster, model: str) -> PrithviImageProcessor:
    """The processor of a model, for as many dates as the file holds: one, or all that the model takes, stacked."""
    processor = PrithviImageProcessor.from_pretrained(model)
    found = processor.find_bands(raster.descriptions, raster.count, raster.name)
    if len(found) == len(processor.bands):
        processor.num_frames = 1
    return processor


def band_statistics(raster: GeoTiffRaster, processor: PrithviImageProcessor | None = None) -> list[BandStatistics]:
    """Measure the valid pixels of every band.

    A pixel of a band is valid if it is finite, is not the no data tag, and the file's own mask does not exclude it.
    With a processor, neither is what that takes for no data: its no data value, and pixels that its rule excludes.

    Args:
        raster: The raster.
        processor: The image processor of a model, for as many dates as the raster holds.

    Returns:
        Figures of each band.
    """
    bands = [BandStatistics(math.inf, 0.0, -math.inf) for _ in range(raster.count)]
    nodata_values = _nodata_values(raster, processor)
    for window in _strips(raster):
        values = raster.read(window=window)
        masked = _nodata_pixels(raster.select(window=window), processor)
        for band, band_values in zip(bands, values, strict=True):
            valid = np.isfinite(band_values) if masked is None else np.isfinite(band_values) & ~masked
            for value in nodata_values:
                with np.errstate(over="ignore"):
                    valid &= band_values != value  # a Python number: compared in the band's own precision
            _add(band, band_values[valid])
    for band in bands:
        if not band.valid:
            band.minimum = band.mean = band.maximum = math.nan
    return bands


def _nodata_values(raster: GeoTiffRaster, processor: PrithviImageProcessor | None) -> list[float]:
    """Values that stand for no data: the file's tag, and those of the processor."""
    own = None if processor is None else processor.nodata_value
    values = [raster.nodata, *(own if isinstance(own, list | tuple) else [own])]
    return [float(value) for value in values if value is not None]


def _nodata_pixels(strip: GeoTiffRaster, processor: PrithviImageProcessor | None) -> np.ndarray | None:
    """Pixels without data in all bands: by the processor's rule, or without one by the file's own mask."""
    return strip.read_nodata_mask() if processor is None else processor.read_frames(strip)[2]


def _add(band: BandStatistics, values: np.ndarray) -> None:
    """Take more valid values into the figures of a band."""
    if values.size:
        band.minimum = min(band.minimum, float(values.min()))
        band.maximum = max(band.maximum, float(values.max()))
        band.valid += values.size
        band.mean += (float(values.mean(dtype=np.float64)) - band.mean) * values.size / band.valid


def _strips(raster: GeoTiffRaster) -> Iterator[tuple[int, int, int, int]]:
    """Cut the raster into full-width windows of bounded size."""
    rows = max(1, _VALUES_IN_MEMORY // (raster.count * raster.width))
    for top in range(0, raster.height, rows):
        yield top, 0, min(rows, raster.height - top), raster.width


def _count_text(count: int, noun: str) -> str:
    """Write a number of things."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _figures_text(figures: BandStatistics, pixels: int) -> str:
    """Write the figures of one band."""
    if not figures.valid:
        return "no valid pixel"
    share = 100 * figures.valid / pixels
    return f"min {figures.minimum:.6g}  mean {figures.mean:.6g}  max {figures.maximum:.6g}  valid {share:.1f} %"


def _scale_text(scale: float, offset: float) -> str:
    """Write the scale and offset tags of one band where they say something."""
    return "" if (scale, offset) == (1.0, 0.0) else f"  (tags: scale {scale:g}, offset {offset:g}, not applied here)"


def _mapping_lines(
    raster: GeoTiffRaster, statistics: list[BandStatistics], processor: PrithviImageProcessor, model: str
) -> list[str]:
    """Show which file bands a model takes, and whether their units are those of its statistics."""
    found = processor.find_bands(raster.descriptions, raster.count, raster.name)
    if len(found) > len(processor.bands):
        bands = _count_text(len(processor.bands), "band")
        return [f"  for {model}: {processor.num_frames} dates of {bands}, date by date, in order"]
    scaling = f"x {processor.rescale_factor:g} + {processor.rescale_offset:g}"
    lines = [f"  for {model}, after its scaling ({scaling}), without what it takes for no data:"]
    for position, (name, index) in enumerate(zip(processor.bands, found, strict=True)):
        mean = statistics[index].mean
        scaled = mean * processor.rescale_factor + processor.rescale_offset if processor.do_rescale else mean
        expected, spread = _statistic(processor.image_mean, position), _statistic(processor.image_std, position)
        lines.append(
            f"    {name:<12} <- band {index + 1} ({raster.descriptions[index] or 'by position'}), mean {scaled:.4g}, "
            f"the model's {expected:.4g} +- {spread:.4g}: {(scaled - expected) / spread:+.1f} standard deviations"
        )
    return lines


def _processor_lines(name: str) -> list[str]:
    """Describe the image processor that was saved with a model."""
    if Path(name).is_dir() and not (Path(name) / "preprocessor_config.json").is_file():
        return ["  no image processor (preprocessor_config.json) lies in this folder"]
    processor = PrithviImageProcessor.from_pretrained(name)
    lines = [f"  scaling      x {processor.rescale_factor:g} + {processor.rescale_offset:g}"]
    for position, band in enumerate(processor.bands):
        mean, std = _statistic(processor.image_mean, position), _statistic(processor.image_std, position)
        lines.append(f"  band {position + 1:<4}    {band:<20} mean {mean:.6g}  std {std:.6g}")
    values = "" if processor.nodata_value is None else f" or {processor.nodata_value}"
    rule = f"file mask, or {processor.nodata_rule} of the bands NaN, the file tag{values}"
    lines.append(f"  no data      {rule}; becomes {processor.nodata_replacement:g} before scaling")
    if processor.frame_order != "time_major":
        lines.append(f"  frame order  {processor.frame_order}: bands and dates mixed as in the original crop recipe")
    return lines


def _statistic(values: float | list[float], position: int) -> float:
    """Give a band's entry of a statistic that may be one number for all."""
    return float(values[position] if isinstance(values, list | tuple) and len(values) > 1 else np.ravel(values)[0])


def _parameter_count(name: str) -> str:
    """Count the parameters of a local model from the headers of its weight files; no tensor is read."""
    files = sorted(Path(name).glob("*.safetensors")) if Path(name).is_dir() else []
    count = sum(math.prod(tensor["shape"]) for file in files for tensor in _tensor_headers(file))
    return f", {count:,} weights" if count else ""


def _tensor_headers(file: Path) -> list[dict]:
    """Read the header of a safetensors file: eight bytes of length, then JSON."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > file.stat().st_size:
            raise ValueError(f"{file} is no complete safetensors file: copy or download it again.")
        header = json.loads(stream.read(length))
    return [tensor for key, tensor in header.items() if key != "__metadata__"]


__all__ = ["BandStatistics", "band_statistics", "describe_model", "describe_raster"]
