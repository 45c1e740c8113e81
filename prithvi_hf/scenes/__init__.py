# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Whole-scene prediction and the files it writes."""

from prithvi_hf.scene_prithvi import SegmentationMap
from prithvi_hf.scenes.frames import Scene, open_scene
from prithvi_hf.scenes.palette import class_palette, default_colors
from prithvi_hf.scenes.predicted import PredictedScene
from prithvi_hf.scenes.prediction import predict_scene
from prithvi_hf.scenes.warping import Grid
from prithvi_hf.scenes.writer import write_class_map, write_probabilities


__all__ = [
    "Grid",
    "PredictedScene",
    "Scene",
    "SegmentationMap",
    "class_palette",
    "default_colors",
    "open_scene",
    "predict_scene",
    "write_class_map",
    "write_probabilities",
]
