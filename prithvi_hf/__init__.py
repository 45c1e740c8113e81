# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Prithvi geospatial foundation models for maps of scenes, as a Hugging Face Transformers-style package.

Importing it registers the Auto classes, the pipeline tasks "geospatial-segmentation", "geospatial-regression" and
"geospatial-classification", and the `datasets` feature `GeoTiff`. What that does not need (rasterio, evaluate,
matplotlib, the Trainer) is imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
    AutoModelForSemanticSegmentation,
)
from transformers.utils import is_vision_available

from prithvi_hf.data.geotiff import GeoTiff
from prithvi_hf.models.prithvi.backbone_prithvi import PrithviBackbone
from prithvi_hf.models.prithvi.classification_prithvi import PrithviForImageClassification
from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
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
    register_pipeline,
)
from prithvi_hf.models.prithvi.pretraining_prithvi import PrithviForPreTraining
from prithvi_hf.models.prithvi.regression_prithvi import PrithviForPixelRegression


if TYPE_CHECKING:
    from prithvi_hf.conversion.convert_prithvi_to_hf import convert_checkpoint, convert_state_dict
    from prithvi_hf.conversion.export_prithvi import export_model
    from prithvi_hf.data.load import load_dataset
    from prithvi_hf.hub import push_folder_to_hub
    from prithvi_hf.models.prithvi.exported_prithvi import PrithviExportedModel
    from prithvi_hf.scenes.embed_chips import embed_chips
    from prithvi_hf.scenes.embed_scene import embed_scene
    from prithvi_hf.scenes.predict_scene import predict_scene
    from prithvi_hf.scenes.reconstruct import reconstruct_window
    from prithvi_hf.scenes.windows import SceneWindows
    from prithvi_hf.training.trainer import PrithviTrainer
    from prithvi_hf.training.training_args import PrithviTrainingArguments


__version__ = "0.1.0"

_LAZY = {
    "PrithviExportedModel": "models.prithvi.exported_prithvi",
    "PrithviTrainer": "training.trainer",
    "PrithviTrainingArguments": "training.training_args",
    "SceneWindows": "scenes.windows",
    "convert_checkpoint": "conversion.convert_prithvi_to_hf",
    "convert_state_dict": "conversion.convert_prithvi_to_hf",
    "embed_chips": "scenes.embed_chips",
    "embed_scene": "scenes.embed_scene",
    "export_model": "conversion.export_prithvi",
    "load_dataset": "data.load",
    "predict_scene": "scenes.predict_scene",
    "push_folder_to_hub": "hub",
    "reconstruct_window": "scenes.reconstruct",
}


def register_auto_classes() -> None:
    """Make the Auto classes of transformers know Prithvi."""
    AutoConfig.register("prithvi", PrithviConfig, exist_ok=True)
    AutoBackbone.register(PrithviConfig, PrithviBackbone, exist_ok=True)
    AutoModel.register(PrithviConfig, PrithviModel, exist_ok=True)
    AutoModelForImageClassification.register(PrithviConfig, PrithviForImageClassification, exist_ok=True)
    AutoModelForPreTraining.register(PrithviConfig, PrithviForPreTraining, exist_ok=True)
    AutoModelForSemanticSegmentation.register(PrithviConfig, PrithviForSemanticSegmentation, exist_ok=True)
    if is_vision_available():  # without Pillow AutoImageProcessor is a dummy that only raises
        AutoImageProcessor.register(
            PrithviConfig,
            image_processor_classes=dict.fromkeys(("torchvision", "pil"), PrithviImageProcessor),
            exist_ok=True,
        )


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Every public name, imported yet or not."""
    return sorted(__all__)


register_auto_classes()
register_pipeline()

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
    "convert_checkpoint",
    "convert_state_dict",
    "embed_chips",
    "embed_scene",
    "export_model",
    "load_dataset",
    "predict_scene",
    "push_folder_to_hub",
    "reconstruct_window",
]
