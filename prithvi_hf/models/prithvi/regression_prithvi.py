# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""PyTorch Prithvi for one value per pixel, such as biomass or canopy height.

This file must not postpone the evaluation of its annotations: transformers reads the class of a model's
configuration from one.
"""

import copy
from dataclasses import dataclass
from typing import cast

import torch
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_prithvi import PrithviConfig
from .modeling_prithvi import PrithviMapModel


@dataclass
class PixelRegressionOutput(ModelOutput):
    """What `PrithviForPixelRegression` returns.

    Args:
        loss: the configured loss of standardised values, without a unit, averaged over the pixels with a label.
        predicted_values: float32 or wider (batch_size, height, width), in the unit of the labels.
        hidden_states, attentions: those of the encoder, where they were asked for.
    """

    loss: torch.Tensor | None = None
    predicted_values: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None

    @property
    def logits(self) -> torch.Tensor:
        """The predicted values as maps of one channel, (batch_size, 1, height, width), as models of classes give."""
        return cast(torch.Tensor, self.predicted_values).unsqueeze(1)


class PrithviForPixelRegression(PrithviMapModel):
    """Prithvi with a neck and heads of one value per pixel.

    Necks, heads and their options are those of `PrithviForSemanticSegmentation`; `num_labels` becomes 1. The network
    predicts standardised values, `(value - config.target_mean) / config.target_std`.
    """

    task = "regression"

    def __init__(self, config: PrithviConfig) -> None:
        if config.num_labels != 1:  # a configuration without it says 2, one of a segmentation model its classes
            config = copy.deepcopy(config)
            config.class_weights = config.class_colors = None
            config.num_labels = 1
        super().__init__(config)
        self.post_init()

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether transformers' count of labels, which takes NaN for one, is what the loss is divided by: it is not.

        `PrithviTrainer` counts the labels by `count_loss_items`.
        """
        return False

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        temporal_coords: torch.Tensor | None = None,
        location_coords: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> PixelRegressionOutput:
        """Predict a value for each pixel, and compute the loss where labels are given.

        Args:
            pixel_values: (batch_size, num_channels, num_frames, height, width), or without frames for one, normalised
                bands of any height and width: the image is padded by reflection to whole patches, and the values are
                cropped back.
            labels: float (batch_size, height, width), the value of each pixel in the unit that the model predicts in;
                NaN where there is none. In training the loss is that of the decode head plus
                `auxiliary_loss_weight` times that of the auxiliary head; in evaluation it is the decode head's alone.
            temporal_coords: float32 (batch_size, num_frames, 2), as `PrithviModel` takes them.
            location_coords: float32 (batch_size, 2), as `PrithviModel` takes them.
            kwargs: `output_hidden_states`, `output_attentions`, `return_dict` and the like.

        Returns:
            [`PixelRegressionOutput`], with `predicted_values` (batch_size, height, width) in the unit of the labels.
        """
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        maps, outputs = self.predict_maps(pixel_values, temporal_coords, location_coords, labels, **kwargs)
        values = [self.restore_unit(head_map[:, 0]) for head_map in maps]  # each (B, H, W)
        loss = None
        if labels is not None:
            losses = [self.regression_loss(head_values, labels, num_items_in_batch) for head_values in values]
            loss = losses[0] if len(losses) == 1 else losses[0] + self.config.auxiliary_loss_weight * losses[1]
        return PixelRegressionOutput(
            loss=loss,
            predicted_values=values[0],
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def count_loss_items(self, labels: torch.Tensor) -> torch.Tensor:
        """Count what the loss of labels (batch_size, height, width) is divided by: those that are not NaN."""
        return (~labels.isnan()).sum()


__all__ = ["PixelRegressionOutput", "PrithviForPixelRegression"]
