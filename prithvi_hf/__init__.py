# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Prithvi geospatial foundation models for maps of scenes, as a Hugging Face Transformers-style package.

Importing it registers the Auto classes, the pipeline tasks "geospatial-segmentation", "geospatial-regression" and
"geospatial-classification", and the `datasets` feature `GeoTiff`. What that does not need (rasterio, evaluate,
matplotlib, the Trainer) is imported when first used.

A process that is the command `prithvi-hf` registers nothing: no other code there can ask the Auto classes, and its
commands import the modules that they need. Its help and its usage errors need no torch, which takes seconds to import.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from prithvi_hf.conversion.convert_prithvi_to_hf import convert_checkpoint, convert_state_dict
    from prithvi_hf.conversion.export_prithvi import export_model
    from prithvi_hf.data.geotiff import GeoTiff
    from prithvi_hf.data.load import load_dataset
    from prithvi_hf.data.vector_labels import rasterize_labels
    from prithvi_hf.hub import push_folder_to_hub
    from prithvi_hf.models.prithvi.backbone_prithvi import PrithviBackbone
    from prithvi_hf.models.prithvi.classification_prithvi import PrithviForImageClassification
    from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
    from prithvi_hf.models.prithvi.exported_prithvi import PrithviExportedModel
    from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
    from prithvi_hf.models.prithvi.modeling_prithvi import (
        PrithviForSemanticSegmentation,
        PrithviModel,
        PrithviPreTrainedModel,
    )
    from prithvi_hf.models.prithvi.pipeline_prithvi import (
        GeospatialClassificationPipeline,
        GeospatialRegressionPipeline,
        GeospatialSegmentationPipeline,
    )
    from prithvi_hf.models.prithvi.pretraining_prithvi import PrithviForPreTraining
    from prithvi_hf.models.prithvi.regression_prithvi import PrithviForPixelRegression
    from prithvi_hf.outputs.map_change import compare_maps
    from prithvi_hf.scenes.chip_scene import chip_scene
    from prithvi_hf.scenes.embed_chips import embed_chips
    from prithvi_hf.scenes.embed_scene import embed_scene
    from prithvi_hf.scenes.predict_scene import predict_scene
    from prithvi_hf.scenes.reconstruct import reconstruct_window
    from prithvi_hf.scenes.windows import SceneWindows
    from prithvi_hf.training.trainer import PrithviTrainer
    from prithvi_hf.training.training_args import PrithviTrainingArguments


__version__ = "0.1.0"

_MODULES = {
    "GeoTiff": "data.geotiff",
    "GeospatialClassificationPipeline": "models.prithvi.pipeline_prithvi",
    "GeospatialRegressionPipeline": "models.prithvi.pipeline_prithvi",
    "GeospatialSegmentationPipeline": "models.prithvi.pipeline_prithvi",
    "PrithviBackbone": "models.prithvi.backbone_prithvi",
    "PrithviConfig": "models.prithvi.configuration_prithvi",
    "PrithviExportedModel": "models.prithvi.exported_prithvi",
    "PrithviForImageClassification": "models.prithvi.classification_prithvi",
    "PrithviForPixelRegression": "models.prithvi.regression_prithvi",
    "PrithviForPreTraining": "models.prithvi.pretraining_prithvi",
    "PrithviForSemanticSegmentation": "models.prithvi.modeling_prithvi",
    "PrithviImageProcessor": "models.prithvi.image_processing_prithvi",
    "PrithviModel": "models.prithvi.modeling_prithvi",
    "PrithviPreTrainedModel": "models.prithvi.modeling_prithvi",
    "PrithviTrainer": "training.trainer",
    "PrithviTrainingArguments": "training.training_args",
    "SceneWindows": "scenes.windows",
    "chip_scene": "scenes.chip_scene",
    "compare_maps": "outputs.map_change",
    "convert_checkpoint": "conversion.convert_prithvi_to_hf",
    "convert_state_dict": "conversion.convert_prithvi_to_hf",
    "embed_chips": "scenes.embed_chips",
    "embed_scene": "scenes.embed_scene",
    "export_model": "conversion.export_prithvi",
    "load_dataset": "data.load",
    "predict_scene": "scenes.predict_scene",
    "push_folder_to_hub": "hub",
    "rasterize_labels": "data.vector_labels",
    "reconstruct_window": "scenes.reconstruct",
}

__all__ = [
    "GeoTiff",
    "GeospatialClassificationPipeline",
    "GeospatialRegressionPipeline",
    "GeospatialSegmentationPipeline",
    "PrithviBackbone",
    "PrithviConfig",
    "PrithviExportedModel",
    "PrithviForImageClassification",
    "PrithviForPixelRegression",
    "PrithviForPreTraining",
    "PrithviForSemanticSegmentation",
    "PrithviImageProcessor",
    "PrithviModel",
    "PrithviPreTrainedModel",
    "PrithviTrainer",
    "PrithviTrainingArguments",
    "SceneWindows",
    "chip_scene",
    "compare_maps",
    "convert_checkpoint",
    "convert_state_dict",
    "embed_chips",
    "embed_scene",
    "export_model",
    "load_dataset",
    "predict_scene",
    "push_folder_to_hub",
    "rasterize_labels",
    "reconstruct_window",
]


def _is_command() -> bool:
    """Whether this process is the command: `prithvi-hf ...` or `python -m prithvi_hf.cli ...`."""
    program = (getattr(sys, "argv", None) or [""])[0]  # "-m" while Python looks for the module that it will run
    if program == "-m":
        return "prithvi_hf.cli" in sys.orig_argv
    return Path(program).name in ("prithvi-hf", "prithvi-hf.exe")  # not a script prithvi-hf.py of a user's


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Every public name, imported yet or not."""
    return sorted(__all__)


IS_COMMAND = _is_command()
if not IS_COMMAND:
    from prithvi_hf.registration import register_auto_classes, register_pipeline

    register_auto_classes()
    register_pipeline()
