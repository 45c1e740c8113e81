# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What transformers and `datasets` know of Prithvi once `prithvi_hf` is imported.

The feature `GeoTiff` of `datasets` is registered by the import of its module.
"""

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

from prithvi_hf.data.geotiff import GeoTiff as GeoTiff
from prithvi_hf.models.prithvi.backbone_prithvi import PrithviBackbone
from prithvi_hf.models.prithvi.classification_prithvi import PrithviForImageClassification
from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.modeling_prithvi import PrithviForSemanticSegmentation, PrithviModel
from prithvi_hf.models.prithvi.pipeline_prithvi import register_pipeline as register_pipeline
from prithvi_hf.models.prithvi.pretraining_prithvi import PrithviForPreTraining


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
