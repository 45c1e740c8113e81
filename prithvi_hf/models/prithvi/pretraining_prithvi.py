# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""PyTorch Prithvi as a masked autoencoder: what both generations were pretrained as.

This file must not postpone the evaluation of its annotations: transformers reads the class of a model's
configuration from one.
"""

import copy
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple

from .bands_prithvi import find_band_names
from .configuration_prithvi import PrithviConfig
from .embeddings_prithvi import (
    PrithviCoordinateEmbeddings,
    as_frames,
    interpolate_position_table,
    sincos_position_table,
)
from .modeling_prithvi import PrithviLayer, PrithviModel, PrithviPreTrainedModel


# Keeps the variance of a patch of one value from dividing by zero, as in the original.
_VARIANCE_EPS = 1e-6
# 10 * (1 - 0.9) is below 1 in floating point; the original then keeps no patch.
_ROUNDING = 1e-6


@dataclass
class PrithviForPreTrainingOutput(ModelOutput):
    """What `PrithviForPreTraining` returns.

    Args:
        loss: mean square error of the hidden patches.
        logits: (batch_size, patches, frames x rows x columns x channels of a patch), the predicted pixels of every
            patch; see `PrithviForPreTraining.unpatchify`.
        mask: (batch_size, patches), 1 for a hidden patch, 0 for one that was seen.
        ids_restore: (batch_size, patches), the place of each patch in the order that the encoder was given.
        hidden_states, attentions: those of the encoder, where they were asked for.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    ids_restore: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class PrithviPreTrainingDecoder(nn.Module):
    """Predict the pixels of every patch from the tokens of the patches that the encoder saw."""

    position_embeddings: torch.Tensor

    def __init__(self, config: PrithviConfig) -> None:
        super().__init__()
        if config.decoder_hidden_size % 16:
            raise ValueError(
                "Expected a decoder_hidden_size that is a multiple of 16 (3-D sine-cosine positions), found "
                f"{config.decoder_hidden_size}."
            )
        own = copy.deepcopy(config)
        own.hidden_size, own.num_hidden_layers = config.decoder_hidden_size, config.decoder_num_hidden_layers
        own.num_attention_heads = config.decoder_num_attention_heads
        self.config = config
        self.embedding = nn.Linear(config.hidden_size, own.hidden_size)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, own.hidden_size))
        table = sincos_position_table(own.hidden_size, config.grid_size).to(self.mask_token)
        self.register_buffer("position_embeddings", table, persistent=False)
        self.coordinates = PrithviCoordinateEmbeddings(config, own.hidden_size) if config.coords_encoding else None
        self.layers = nn.ModuleList(PrithviLayer(own) for _ in range(own.num_hidden_layers))
        self.layernorm = nn.LayerNorm(own.hidden_size, eps=config.layer_norm_eps)
        frames, rows, columns = config.tubelet_size
        self.prediction = nn.Linear(own.hidden_size, frames * rows * columns * config.num_channels)

    def forward(
        self,
        hidden_states: torch.Tensor,
        ids_restore: torch.Tensor,
        grid_size: tuple[int, int, int],
        temporal_coords: torch.Tensor | None,
        location_coords: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """Map tokens `(B, 1 + kept, hidden_size)`, class token first, to pixels `(B, patches, values of a patch)`."""
        seen = self.embedding(hidden_states)
        hidden = self.mask_token.expand(seen.shape[0], ids_restore.shape[1] + 1 - seen.shape[1], -1).to(seen.dtype)
        tokens = torch.cat([seen[:, 1:], hidden], dim=1)  # (B, T h w, D), shuffled
        tokens = tokens.gather(1, ids_restore.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
        positions = interpolate_position_table(self.position_embeddings, self.config.grid_size, grid_size)
        tokens = tokens + positions[:, 1:]
        if self.coordinates is not None:
            tokens = self.coordinates(tokens, grid_size, temporal_coords, location_coords)
        tokens = torch.cat([seen[:, :1] + positions[:, :1], tokens], dim=1)
        for layer in self.layers:
            tokens = layer(tokens, **kwargs)
        return self.prediction(self.layernorm(tokens))[:, 1:]


class PrithviForPreTraining(PrithviPreTrainedModel):
    """Prithvi as a masked autoencoder: most patches are hidden, and a decoder predicts their pixels.

    The encoder sees `1 - config.mask_ratio` of the patches. The loss is the mean square error of the normalised pixels
    of the others or, with `config.norm_pix_loss`, of each patch normalised by its own mean and standard deviation.
    """

    def __init__(self, config: PrithviConfig) -> None:
        super().__init__(config)
        self.prithvi = PrithviModel(config)
        self.decoder = PrithviPreTrainingDecoder(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Make fresh weights of the decoder too, and its position table, which no file holds."""
        super()._init_weights(module)
        if isinstance(module, PrithviPreTrainingDecoder):
            init.normal_(module.mask_token, std=self.config.initializer_range)
            table = sincos_position_table(self.config.decoder_hidden_size, self.config.grid_size)
            init.copy_(module.position_embeddings, table)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        temporal_coords: torch.Tensor | None = None,
        location_coords: torch.Tensor | None = None,
        nodata_mask: torch.BoolTensor | None = None,
        noise: torch.Tensor | None = None,
        mask_ratio: float | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> PrithviForPreTrainingOutput:
        """Hide patches, predict them, and compute the loss.

        Args:
            pixel_values: (batch_size, num_channels, num_frames, height, width), or without frames for one, normalised
                bands; a border narrower than a patch is dropped.
            temporal_coords: float32 (batch_size, num_frames, 2), as `PrithviModel` takes them.
            location_coords: float32 (batch_size, 2), as `PrithviModel` takes them.
            nodata_mask: bool (batch_size, num_frames, height, width), True where pixels say nothing. They have no part
                in the loss, and patches that hold nothing else are the first to be hidden.
            noise: (batch_size, patches), what decides: the patches of the lowest values are seen. Random without it.
            mask_ratio: fraction of the patches to hide, 0 to below 1; None for `config.mask_ratio`. At least one patch
                is seen.
            kwargs: `output_hidden_states`, `output_attentions`, `return_dict` and the like.

        Returns:
            [`PrithviForPreTrainingOutput`], with the loss of the hidden patches; 0 where none was hidden.

        Raises:
            ValueError: `mask_ratio` is out of its range, or `noise` or `nodata_mask` is of another shape.
        """
        images = as_frames(pixel_values, self.config.num_channels)
        patches = self.patchify(images)  # (B, L, values of a patch)
        batch_size, count, _ = patches.shape
        grid_size = tuple(
            size // patch for size, patch in zip(images.shape[2:], self.config.tubelet_size, strict=True)
        )
        ratio = self.config.mask_ratio if mask_ratio is None else mask_ratio
        if not 0 <= ratio < 1:
            raise ValueError(f"Expected a mask_ratio from 0 to below 1, found {ratio}.")
        if noise is None:
            noise = torch.rand(batch_size, count, device=images.device)
        if tuple(noise.shape) != (batch_size, count):
            raise ValueError(
                f"Expected noise of shape {(batch_size, count)}, one per patch, found {tuple(noise.shape)}."
            )
        weights = torch.ones_like(patches[:1, :1])
        if nodata_mask is not None:
            expected = (batch_size, *images.shape[2:])
            if tuple(nodata_mask.shape) != expected:
                raise ValueError(f"Expected a nodata_mask of shape {expected}, found {tuple(nodata_mask.shape)}.")
            weights = self.patchify((~nodata_mask).unsqueeze(1).expand(images.shape).to(patches.dtype))
            noise = noise.masked_fill(~weights.bool().any(dim=-1), float("inf"))
            patches = patches.masked_fill(weights == 0, 0)  # a NaN would stay one when it is multiplied by 0
        kept = _count_seen(count, ratio)
        ids_shuffle = noise.argsort(dim=1, stable=True)
        ids_restore = ids_shuffle.argsort(dim=1)
        mask = (ids_restore >= kept).to(patches.dtype)

        outputs = self.prithvi(images, temporal_coords, location_coords, ids_shuffle[:, :kept], **kwargs)
        logits = self.decoder(
            outputs.last_hidden_state, ids_restore, grid_size, temporal_coords, location_coords
        )  # (B, L, values of a patch)
        if self.config.norm_pix_loss:
            mean, std = _measure_patches(patches, weights)
            patches = (patches - mean) / std
        errors = (logits.float() - patches.float()) ** 2 * weights
        counted = mask * (weights.mean(dim=-1) > 0)
        losses = errors.sum(dim=-1) / weights.expand_as(errors).sum(dim=-1).clamp(min=1)
        loss = (losses * counted).sum() / counted.expand_as(mask).sum().clamp(min=1)
        return PrithviForPreTrainingOutput(
            loss=loss,
            logits=logits,
            mask=mask,
            ids_restore=ids_restore,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def count_hidden(self, nodata_mask: torch.Tensor, mask_ratio: float | None = None) -> torch.Tensor:
        """Count the hidden patches with data, whose mean the loss is, of images with a nodata_mask (B, T, H, W)."""
        has_data = self.patchify((~nodata_mask).unsqueeze(1)).any(dim=-1)  # (B, L)
        ratio = self.config.mask_ratio if mask_ratio is None else mask_ratio
        return (has_data.sum(dim=1) - _count_seen(has_data.shape[1], ratio)).clamp(min=0).sum()

    @torch.no_grad()
    def reconstruct(
        self,
        outputs: PrithviForPreTrainingOutput,
        pixel_values: torch.Tensor,
        nodata_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Give the images that were hidden in part with the prediction in the place of the hidden patches.

        Args:
            outputs: of the call with `pixel_values`.
            pixel_values: (batch_size, num_channels, num_frames, height, width), or without frames for one.
            nodata_mask: bool (batch_size, num_frames, height, width) of the call, if there was one.

        Returns:
            Normalised bands (batch_size, num_channels, num_frames, height, width), without a border narrower than a
            patch. Of a model with `norm_pix_loss` each predicted patch gets back the mean and the standard deviation
            that the hidden one has.
        """
        images = as_frames(pixel_values, self.config.num_channels)
        patches, mask = self.patchify(images).float(), cast("torch.Tensor", outputs.mask).unsqueeze(-1).bool()
        predicted = cast("torch.Tensor", outputs.logits).float()
        if self.config.norm_pix_loss:
            weights = torch.ones_like(patches[:1, :1])
            if nodata_mask is not None:
                weights = self.patchify((~nodata_mask).unsqueeze(1).expand(images.shape).to(patches.dtype))
            mean, std = _measure_patches(patches, weights)
            predicted = predicted * std + mean
        sides = zip(images.shape[2:], self.config.tubelet_size, strict=True)
        frames, height, width = (side // patch * patch for side, patch in sides)
        return self.unpatchify(torch.where(mask, predicted, patches), (frames, height, width))

    @torch.no_grad()
    def set_bands(self, bands: list[str]) -> list[str]:
        """Make the model take and predict other bands, see `PrithviPreTrainedModel.set_bands`.

        A new band is predicted as the mean of all bands that the model knows.
        """
        known = list(self.config.bands or [])
        new = super().set_bands(bands)
        places = [len(known) if place is None else place for place in find_band_names(bands, known)]
        layer = self.decoder.prediction
        for name in ("weight", "bias"):
            rows = getattr(layer, name).unflatten(0, (-1, len(known)))  # (values of a band in a patch, C, ...)
            rows = torch.cat([rows, rows.mean(dim=1, keepdim=True)], dim=1)[:, places]
            setattr(layer, name, nn.Parameter(rows.flatten(0, 1)))
        layer.out_features = len(layer.weight)
        return new

    def patchify(self, images: torch.Tensor) -> torch.Tensor:
        """Cut images (B, C, T, H, W) into patches (B, patches, frames x rows x columns x C), as the decoder's.

        Args:
            images: (batch_size, num_channels, num_frames, height, width); a border narrower than a patch is dropped.

        Returns:
            Patches in the order of frames, rows and columns, and the values of each in that order with channels last.
        """
        patch = self.config.tubelet_size
        grid = [size // step for size, step in zip(images.shape[2:], patch, strict=True)]
        images = images[:, :, : grid[0] * patch[0], : grid[1] * patch[1], : grid[2] * patch[2]]
        cut = images.reshape(*images.shape[:2], grid[0], patch[0], grid[1], patch[1], grid[2], patch[2])
        return cut.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4).flatten(1, 3)

    def unpatchify(self, patches: torch.Tensor, size: tuple[int, int, int]) -> torch.Tensor:
        """Put patches (B, patches, values of a patch) together to images (B, C, T, H, W) of `size` (T, H, W).

        Args:
            patches: as `patchify` orders them, or one value per patch (batch_size, patches, 1), such as a mask.
            size: frames, height and width of the images in pixels, whole patches.

        Returns:
            Images of `num_channels` channels, or of one where there is one value per patch.
        """
        patch = self.config.tubelet_size
        grid = [side // step for side, step in zip(size, patch, strict=True)]
        if patches.shape[-1] == 1:
            patches = patches.expand(-1, -1, patch[0] * patch[1] * patch[2])
        laid = patches.reshape(len(patches), *grid, *patch, -1)  # (B, T', h, w, t, p, q, C)
        laid = laid.permute(0, 7, 1, 4, 2, 5, 3, 6)
        return laid.reshape(len(patches), -1, *(side * step for side, step in zip(grid, patch, strict=True)))


def _measure_patches(patches: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Give mean and standard deviation of patches (B, L, V) over the values of weight 1, not 0, as (B, L, 1)."""
    count = weights.expand_as(patches).sum(dim=-1, keepdim=True)
    mean = (patches * weights).sum(dim=-1, keepdim=True) / count.clamp(min=1)
    squares = ((patches - mean) ** 2 * weights).sum(dim=-1, keepdim=True)
    return mean, (squares / (count - 1).clamp(min=1) + _VARIANCE_EPS) ** 0.5


def _count_seen(count: int, mask_ratio: float) -> int:
    """Count the patches that are seen of `count`."""
    return max(1, int(count * (1 - mask_ratio) + _ROUNDING))


__all__ = ["PrithviForPreTraining", "PrithviForPreTrainingOutput"]
