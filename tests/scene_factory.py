# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Small models and scenes for the tests of prediction, pipeline and command line."""

from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine
from rasterio.crs import CRS

from prithvi_hf.models.prithvi.configuration_prithvi import PRITHVI_BANDS, PrithviConfig
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.modeling_prithvi import PrithviForSemanticSegmentation, PrithviTaskModel
from prithvi_hf.models.prithvi.regression_prithvi import PrithviForPixelRegression
from prithvi_hf.rasters.write_geotiff import write_geotiff


CRS_UTM = CRS.from_epsg(32720)
# No round number: a writer that goes through text or single precision changes the last bits.
TRANSFORM = Affine(10.000000123, 0.0, 399960.123456789, 0.0, -10.000000321, 8400040.987654321)
LABELS = {0: "no water", 1: "water", 2: "cloud"}
WINDOW = 32


def tiny_model(
    num_frames: int = 1, kind: type[PrithviTaskModel] = PrithviForSemanticSegmentation, **options
) -> PrithviTaskModel:
    """A random model in evaluation mode whose classes all occur: batch normalisation gets statistics that spread."""
    torch.manual_seed(0)
    config = PrithviConfig(
        num_frames=num_frames,
        image_size=WINDOW,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        neck_hidden_size=16,
        head_hidden_size=8,
        use_auxiliary_head=False,
        id2label=LABELS,
        label2id={name: index for index, name in LABELS.items()},
        **options,
    )
    return kind(config).eval()


BIOMASS = {"target_name": "aboveground biomass", "target_unit": "Mg/ha", "target_mean": 120.0, "target_std": 40.0}


def tiny_regressor(**options) -> PrithviForPixelRegression:
    """A random model of biomass."""
    return tiny_model(kind=PrithviForPixelRegression, **BIOMASS, **options)


def tiny_processor(num_frames: int = 1, **options) -> PrithviImageProcessor:
    """A processor of reflectance x 10,000."""
    return PrithviImageProcessor(num_frames=num_frames, **options)


def save_model(folder: Path, num_frames: int = 1, **options) -> Path:
    """Save model and processor as fine-tuning does."""
    tiny_model(num_frames, **options).save_pretrained(folder)
    tiny_processor(num_frames).save_pretrained(folder)
    return folder


def scene_pixels(height: int = 72, width: int = 90, bands: int = 6, seed: int = 0) -> np.ndarray:
    """(bands, height, width) int16 with no pixel of nodata."""
    return np.random.default_rng(seed).integers(200, 4000, (bands, height, width)).astype(np.int16)


def read_map(path: Path) -> np.ndarray:
    """Read the first band of a GeoTIFF."""
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def write_scene(path: Path, pixels: np.ndarray | None = None, **options) -> Path:
    """Write a scene of the six bands with names, CRS and a nodata tag."""
    pixels = scene_pixels() if pixels is None else pixels
    descriptions = PRITHVI_BANDS if len(pixels) == len(PRITHVI_BANDS) else None
    settings = {"crs": CRS_UTM, "transform": TRANSFORM, "nodata": -9999, "descriptions": descriptions, **options}
    write_geotiff(path, pixels, **settings)
    return path
