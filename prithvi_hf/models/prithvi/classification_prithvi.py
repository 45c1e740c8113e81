# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""PyTorch Prithvi for the classification of whole images, with one class or several per image.

This file must not postpone the evaluation of its annotations: transformers reads the class of a model's
configuration from one.
"""

from typing import cast

import torch
from torch import nn
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_prithvi import PrithviConfig
from .embeddings_prithvi import as_frames, pad_by_reflection
from .loss_prithvi import LOSSES, binary_cross_entropy_loss
from .modeling_prithvi import PrithviModel, PrithviTaskModel


class PrithviForImageClassification(PrithviTaskModel):
    """Prithvi with a linear classifier on the mean of the tokens of all patches and frames.

    `config.problem_type` is that of transformers: `"single_label_classification"`, where an image is of one class,
    `"multi_label_classification"`, where it holds any number of them, or `"regression"`, values of whole images. Where
    it is None, the first labels decide between the first two: integers or floating point.

    Raises:
        ValueError: `config.loss` is not one of classes of whole images, `cross_entropy` or `focal`.
    """

    task = "classification"

    def __init__(self, config: PrithviConfig) -> None:
        if not LOSSES[config.loss].is_sum_over_pixels:
            raise ValueError(
                f"Expected the loss cross_entropy or focal for a classification of images, found {config.loss}, "
                "which compares areas. Choose one of the two."
            )
        super().__init__(config)
        self.prithvi = PrithviModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, cast(int, config.num_labels))
        self.post_init()

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether transformers' count of labels, those other than -100, is what the loss is divided by."""
        is_single = self.config.problem_type == "single_label_classification"
        return is_single and self.config.semantic_loss_ignore_index == -100

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        temporal_coords: torch.Tensor | None = None,
        location_coords: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput:
        """Classify each image, and compute the loss where labels are given.

        Args:
            pixel_values: (batch_size, num_channels, num_frames, height, width), or without frames for one, normalised
                bands. Any number of frames, any height and width: the image is padded right and bottom by reflection
                to whole patches.
            labels: int64 (batch_size,), the class of each image, 0 to `num_labels - 1`, or
                `semantic_loss_ignore_index`; or, for several classes per image, float (batch_size, num_labels), 1 for
                a class that is there, 0 for one that is not, NaN or negative for one that nobody looked for. For
                a regression float (batch_size,) or (batch_size, num_labels), NaN where there is no value.
            temporal_coords: float32 (batch_size, num_frames, 2), as `PrithviModel` takes them.
            location_coords: float32 (batch_size, 2), as `PrithviModel` takes them.
            kwargs: `output_hidden_states`, `output_attentions`, `return_dict` and the like.

        Returns:
            `logits` (batch_size, num_labels), values in the unit of the labels for a regression, and `loss` where
            labels are given.
        """
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        images, _ = pad_by_reflection(
            as_frames(pixel_values, self.config.num_channels), self.config.tubelet_size[1:]
        )  # (B, C, T, H, W)
        outputs = self.prithvi(images, temporal_coords, location_coords, **kwargs)
        tokens = outputs.last_hidden_state[:, 1:]  # (B, T h w, E), without the class token
        logits = self.classifier(self.dropout(tokens.mean(dim=1)))
        if self.config.problem_type == "regression":
            logits = self.restore_unit(logits)
        return ImageClassifierOutput(
            loss=None if labels is None else self.classification_loss(logits, labels, num_items_in_batch),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def count_loss_items(self, labels: torch.Tensor) -> torch.Tensor:
        """Count what the loss of labels is divided by: those that are not ignored."""
        if labels.is_floating_point():
            return (~labels.isnan() if self.config.problem_type == "regression" else labels >= 0).sum()
        return LOSSES[self.config.loss].count_items(labels, self.config.semantic_loss_ignore_index)

    def classification_loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Compute the loss of logits (B, num_labels), given labels as `forward` takes them.

        It is the configured loss of one class per image, the binary cross entropy of each class, or
        `config.regression_loss`.
        `num_items_in_batch` is what `count_loss_items` gives of a whole optimisation step; by default it is that of
        these labels.
        """
        config = self.config
        if config.problem_type is None:
            has_many = labels.is_floating_point()
            config.problem_type = "multi_label_classification" if has_many else "single_label_classification"
        if config.problem_type == "regression" and labels.ndim == 1:
            labels = labels.unsqueeze(1)
        expected = (len(logits),) if config.problem_type == "single_label_classification" else tuple(logits.shape)
        if tuple(labels.shape) != expected:
            raise ValueError(
                f"Expected labels of shape {expected} with problem_type {config.problem_type}, found "
                f"{tuple(labels.shape)}. Set config.problem_type to what the labels are."
            )
        if config.problem_type == "regression":
            return self.regression_loss(logits, labels, num_items_in_batch)
        if config.problem_type == "multi_label_classification":
            return binary_cross_entropy_loss(logits, labels, config.class_weights, num_items_in_batch)
        loss = LOSSES[config.loss]
        options = {parameter: getattr(config, name) for parameter, name in loss.options.items()}
        weights, ignore_index = config.class_weights, config.semantic_loss_ignore_index
        return loss.function(logits, labels, weights, ignore_index, num_items_in_batch, **options)


__all__ = ["PrithviForImageClassification"]
