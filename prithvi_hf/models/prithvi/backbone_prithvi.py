# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The encoder as a backbone of transformers: maps of chosen layers, for the heads of other models.

This file must not postpone the evaluation of its annotations: transformers reads the class of a model's
configuration from one.
"""

import torch
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_outputs import BackboneOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .configuration_prithvi import PrithviConfig
from .embeddings_prithvi import as_frames, pad_by_reflection
from .modeling_prithvi import PrithviModel, PrithviPreTrainedModel


class PrithviBackbone(BackboneMixin, PrithviPreTrainedModel):
    """The encoder behind `AutoBackbone`, on which heads of transformers such as UPerNet, DPT or Mask2Former train.

    `config.out_indices` are the layers, from 0, of which it gives maps, or `out_features` their names, `"stage1"` for
    layer 0; without either the layers that the configured neck takes, for most models the last one. All maps have the
    grid of the patches and `hidden_size` channels per frame of tokens.

    Weights are those of every Prithvi folder: of a backbone, a pretraining model or a fine-tuned one, whose neck and
    head are left out. `AutoBackbone.from_pretrained` of transformers asks the Hub for every name: load a folder by
    `PrithviBackbone.from_pretrained`.

    Example:
    ```python
    >>> import torch
    >>> from transformers import AutoBackbone
    >>> from prithvi_hf import PrithviConfig

    >>> config = PrithviConfig(num_frames=1, hidden_size=64, num_hidden_layers=4, num_attention_heads=4)
    >>> config.out_indices = [1, 3]
    >>> backbone = AutoBackbone.from_config(config)
    >>> [tuple(one.shape) for one in backbone(torch.zeros(1, 6, 64, 64)).feature_maps]
    [(1, 64, 4, 4), (1, 64, 4, 4)]
    ```
    """

    def __init__(self, config: PrithviConfig) -> None:
        super().__init__(config)
        frames = config.grid_size[0] if config.reshape_hidden_states else 1
        self.num_features = [config.hidden_size * frames] * config.num_hidden_layers
        self.prithvi = PrithviModel(config)
        self.post_init()

    @can_return_tuple
    @filter_output_hidden_states
    def forward(
        self,
        pixel_values: torch.Tensor,
        temporal_coords: torch.Tensor | None = None,
        location_coords: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BackboneOutput:
        """Encode images to one map per chosen layer.

        Args:
            pixel_values: (batch_size, num_channels, num_frames, height, width), normalised bands. Models of
                transformers that know images of four dimensions only may be given all frames of each band side by
                side, (batch_size, num_channels * num_frames, height, width), which is `pixel_values.flatten(1, 2)`.
                Images are padded right and bottom by reflection to whole patches.
            temporal_coords: float32 (batch_size, num_frames, 2), as `PrithviModel` takes them.
            location_coords: float32 (batch_size, 2), as `PrithviModel` takes them.
            kwargs: `output_hidden_states`, `output_attentions`, `return_dict` and the like.

        Returns:
            `feature_maps`, for each layer in order (batch_size, hidden_size * frames, rows, columns), where channel
            `c * frames + t` is channel c of frame t, as in the first generation's necks:
            `feature_map.unflatten(1, (hidden_size, -1))` tells the frames apart. With `config.reshape_hidden_states`
            off they are the tokens (batch_size, 1 + frames * rows * columns, hidden_size), class token first, and a
            border narrower than a patch is dropped. The last layer of the encoder comes with its layer normalisation,
            the others as they are, as in the original.

        Raises:
            ValueError: The number of bands or of frames is not the model's.
        """
        config = self.config
        if pixel_values.ndim == 4 and pixel_values.shape[1] == config.num_channels * config.num_frames:
            pixel_values = pixel_values.unflatten(1, (config.num_channels, config.num_frames))
        images = as_frames(pixel_values, config.num_channels)  # (B, C, T, H, W)
        if images.shape[2] != config.num_frames:
            raise ValueError(
                f"Expected {config.num_frames} frame(s) in dimension 2 (config.num_frames; heads are built for the "
                f"channels of that many), found {images.shape[2]} in {tuple(images.shape)}. Load the backbone with "
                f"num_frames={images.shape[2]}."
            )
        _, patch_height, patch_width = config.tubelet_size
        if config.reshape_hidden_states:
            images, _ = pad_by_reflection(images, (patch_height, patch_width))
        outputs = self.prithvi(images, temporal_coords, location_coords, **kwargs)
        states = [*outputs.hidden_states[1:-1], outputs.last_hidden_state]  # each (B, 1 + T h w, E)
        maps = tuple(states[layer] for layer in self.out_indices)
        if config.reshape_hidden_states:
            grid_size = (images.shape[-2] // patch_height, images.shape[-1] // patch_width)
            # (B, E T, h, w), without the class token
            maps = tuple(state[:, 1:].transpose(1, 2).reshape(state.shape[0], -1, *grid_size) for state in maps)
        return BackboneOutput(feature_maps=maps, hidden_states=outputs.hidden_states, attentions=outputs.attentions)


__all__ = ["PrithviBackbone"]
