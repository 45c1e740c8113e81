# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Whole-scene prediction and the files it writes."""

from prithvi_hf.models.prithvi.regression_map_prithvi import RegressionMap
from prithvi_hf.models.prithvi.segmentation_map_prithvi import SegmentationMap
from prithvi_hf.outputs.cog import write_class_map, write_probabilities, write_value_map
from prithvi_hf.outputs.map_change import MapChange, compare_maps
from prithvi_hf.outputs.palette import class_palette, default_colors
from prithvi_hf.rasters.objects import as_raster
from prithvi_hf.rasters.warping import Grid
from prithvi_hf.scenes.predict_scene import predict_scene
from prithvi_hf.scenes.predicted import PredictedScene, PredictedValues
from prithvi_hf.scenes.scene import Scene, open_scene


__all__ = [
    "Grid",
    "MapChange",
    "PredictedScene",
    "PredictedValues",
    "RegressionMap",
    "Scene",
    "SegmentationMap",
    "as_raster",
    "class_palette",
    "compare_maps",
    "default_colors",
    "open_scene",
    "predict_scene",
    "write_class_map",
    "write_probabilities",
    "write_value_map",
]
