# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""PyTorch Prithvi: the encoder and the segmentation model on top of it.

This file must not postpone the evaluation of its annotations: transformers reads the class of a model's
configuration from one.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, SemanticSegmenterOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, logging
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .bands_prithvi import find_band_names
from .configuration_prithvi import PrithviConfig
from .decode_heads_prithvi import HEADS, NECKS, PrithviFCNHead
from .fused_upsampling_prithvi import FusedUpsampling
from .loss_prithvi import LOSSES
from .remote_code_prithvi import RemoteCodeMixin


logger = logging.get_logger(__name__)


def sincos_position_table(hidden_size: int, grid_size: tuple[int, int, int]) -> torch.Tensor:
    """Make the fixed 3-D sine-cosine position table of Prithvi, class token (all zeros) first.

    Channels are split 6/16 to the column, 6/16 to the row, 4/16 to the frame, in this order; tokens run over columns
    first, then rows, then frames. Pretrained weights rely on both. It is made on the CPU, in float64, which not every
    device has; also while a model is being built on the meta device. The first generation computed its frequencies in
    float32; the difference is below 1e-6. Of a grid of frames, rows and columns it is float32 of shape
    `(1, 1 + frames * rows * columns, hidden_size)`, on the CPU.
    """
    frames, rows, columns = grid_size
    parts = []
    for sixteenths, length, shape in ((6, columns, (1, 1, -1)), (6, rows, (1, -1, 1)), (4, frames, (-1, 1, 1))):
        size = hidden_size // 16 * sixteenths
        frequencies = 10000.0 ** (torch.arange(size // 2, dtype=torch.float64, device="cpu") / -(size / 2))
        angles = torch.outer(torch.arange(length, dtype=torch.float64, device="cpu"), frequencies)
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (length, size)
        parts.append(waves.view(*shape, size).expand(frames, rows, columns, -1))
    table = torch.cat(parts, dim=-1)  # (T, h, w, E)
    return nn.functional.pad(table.reshape(1, -1, hidden_size), (0, 0, 1, 0)).float()


class PrithviPatchEmbeddings(nn.Conv3d):
    """The 3-D convolution of non-overlapping patches; in half precision, the matrix product that it is.

    torch 2.13's half-precision `Conv3d` on a CPU (oneDNN) returns wrong values for 1x16x16 patches, off by as much as
    the largest value. In float32 the convolution stays: it adds in the original's order, and one ReLU of the
    reference values is so close to zero that another order flips it.
    """

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Map `(B, C, T, H, W)` to `(B, frames * rows * columns, hidden_size)`; an indivisible border is dropped."""
        half = pixel_values.dtype in (torch.float16, torch.bfloat16)
        if not (half or torch.is_autocast_enabled(pixel_values.device.type)):
            return super().forward(pixel_values).flatten(2).transpose(1, 2)
        frames, rows, columns = self.kernel_size
        grid = [size // patch for size, patch in zip(pixel_values.shape[2:], self.kernel_size, strict=True)]
        cropped = pixel_values[:, :, : grid[0] * frames, : grid[1] * rows, : grid[2] * columns]
        patches = cropped.reshape(*cropped.shape[:2], grid[0], frames, grid[1], rows, grid[2], columns)
        patches = patches.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)  # (B, T' h w, C t p q)
        return nn.functional.linear(patches, self.weight.flatten(1), self.bias)


class PrithviEmbeddings(nn.Module):
    """Patch embedding, class token and fixed 3-D sine-cosine positions."""

    position_embeddings: torch.Tensor

    def __init__(self, config: PrithviConfig) -> None:
        super().__init__()
        if config.hidden_size % 16 or config.hidden_size < 16:
            raise ValueError(
                "Expected a hidden_size that is a multiple of 16 (3-D sine-cosine positions), found "
                f"{config.hidden_size}."
            )
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.patch_embeddings = PrithviPatchEmbeddings(
            config.num_channels, config.hidden_size, kernel_size=config.tubelet_size, stride=config.tubelet_size
        )
        # On the device and in the dtype of the weights. from_pretrained loses it, and _init_weights sets it again.
        table = sincos_position_table(config.hidden_size, config.grid_size).to(self.cls_token)
        self.register_buffer("position_embeddings", table, persistent=False)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self._kept_positions: tuple[tuple, torch.Tensor] | None = None

    def __getstate__(self) -> dict:
        """Return what a copy or a pickle holds: all but the table that is kept."""
        return {**vars(self), "_kept_positions": None}

    def interpolate_positions(self, grid_size: tuple[int, int, int]) -> torch.Tensor:
        """Give the position table `(1, 1 + frames * rows * columns, hidden_size)` for any grid of tokens.

        As terratorch does for the second generation: a new number of frames is computed, new rows and columns are
        interpolated from the configured ones, bicubically with `align_corners=True`.
        """
        frames, rows, columns = self.config.grid_size
        # A size that an export leaves open is never compared: it would be fixed to that of the example.
        is_open = [isinstance(size, torch.SymInt) for size in grid_size]
        if not any(is_open) and tuple(grid_size) == (frames, rows, columns):
            return self.position_embeddings
        table = self.position_embeddings.float()
        if is_open[0] or grid_size[0] != frames:
            table = sincos_position_table(self.config.hidden_size, (grid_size[0], rows, columns)).to(table.device)
        if any(is_open[1:]) or tuple(grid_size[1:]) != (rows, columns):
            maps = table[0, 1:].reshape(grid_size[0], rows, columns, -1).permute(0, 3, 1, 2)  # (T, E, h, w)
            maps = nn.functional.interpolate(maps, size=grid_size[1:], mode="bicubic", align_corners=True)
            table = torch.cat([table[:, :1], maps.permute(0, 2, 3, 1).reshape(1, -1, table.shape[-1])], dim=1)
        return table.to(self.position_embeddings.dtype)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Map `(B, C, T, H, W)` to tokens `(B, 1 + frames * rows * columns, hidden_size)`.

        A border narrower than a patch is dropped, as in the original.
        """
        patch = self.config.tubelet_size
        _, _, frames, height, width = pixel_values.shape
        grid_size = (frames // patch[0], height // patch[1], width // patch[2])
        if min(grid_size) < 1:
            raise ValueError(
                f"Expected at least one patch of {patch} (frames, rows, columns), found an input of "
                f"{tuple(pixel_values.shape[2:])}. Pad it, or use PrithviForSemanticSegmentation, which does."
            )
        table = self.position_embeddings
        # An interpolated table is kept while images keep their size; one of inference mode has no version.
        if torch.compiler.is_compiling() or grid_size == self.config.grid_size or table.is_inference():
            positions = self.interpolate_positions(grid_size)
        else:
            version = (table.data_ptr(), table._version, table.dtype, table.device)
            key, kept = (grid_size, self.config.grid_size, *version), self._kept_positions
            if kept is None or kept[0] != key:
                with torch.inference_mode(False):  # the next to want it may be training
                    kept = (key, self.interpolate_positions(grid_size))
                self._kept_positions = kept
            positions = kept[1]
        patches = self.patch_embeddings(pixel_values.to(self.patch_embeddings.weight.dtype))  # (B, T h w, E)
        tokens = patches + positions[:, 1:]
        cls_token = (self.cls_token + positions[:, :1]).expand(tokens.shape[0], -1, -1)
        return self.dropout(torch.cat([cls_token, tokens], dim=1))


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Write attention out: inputs `(B, heads, L, d)`, returns `(B, L, heads, d)` and weights `(B, heads, L, L)`.

    The softmax is taken in float32 whatever the dtype, as in transformers' own models.
    """
    scores = torch.matmul(query, key.transpose(-1, -2)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class PrithviAttention(nn.Module):
    """Multi-head self-attention with separate projections (the original's are fused; conversion splits them)."""

    def __init__(self, config: PrithviConfig) -> None:
        super().__init__()
        if config.num_attention_heads < 1 or config.hidden_size % config.num_attention_heads:
            raise ValueError(
                f"Expected a hidden_size that is a multiple of num_attention_heads, found {config.hidden_size} and "
                f"{config.num_attention_heads}."
            )
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend over `(B, L, hidden_size)`; returns the same shape and, from eager attention, the weights."""
        batch_size, length, _ = hidden_states.shape
        heads = (batch_size, length, -1, self.head_dim)
        query = self.q_proj(hidden_states).view(heads).transpose(1, 2)  # (B, heads, L, d)
        key = self.k_proj(hidden_states).view(heads).transpose(1, 2)
        value = self.v_proj(hidden_states).view(heads).transpose(1, 2)
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.attention_dropout if self.training else 0.0
        output, weights = attend(self, query, key, value, None, dropout=dropout, scaling=self.scaling, **kwargs)
        return self.o_proj(output.reshape(batch_size, length, -1).contiguous()), weights


class PrithviMLP(nn.Module):
    """The two-layer perceptron of a transformer layer."""

    def __init__(self, config: PrithviConfig) -> None:
        super().__init__()
        intermediate_size = int(config.hidden_size * config.mlp_ratio)
        self.fc1 = nn.Linear(config.hidden_size, intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map `(B, L, hidden_size)` to the same shape."""
        return self.fc2(self.activation(self.fc1(hidden_states)))


class PrithviLayer(GradientCheckpointingLayer):
    """A pre-norm transformer layer."""

    def __init__(self, config: PrithviConfig) -> None:
        super().__init__()
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = PrithviAttention(config)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = PrithviMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        """Map `(B, L, hidden_size)` to the same shape."""
        attended, _ = self.attention(self.layernorm_before(hidden_states), **kwargs)
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(self.layernorm_after(hidden_states)))


class PrithviPreTrainedModel(RemoteCodeMixin, PreTrainedModel):
    """What every Prithvi model shares: its configuration class, what it supports, how fresh weights are made."""

    config: PrithviConfig
    base_model_prefix = "prithvi"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    supports_gradient_checkpointing = True
    _no_split_modules = [
        *("PrithviEmbeddings", "PrithviLayer", "PrithviUpsampleBlock", "PrithviGeospatialUpsampleBlock"),
        "PrithviConvLayer",
    ]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": PrithviLayer, "attentions": PrithviAttention}
    _input_embed_layer = "patch_embeddings"

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Save as every model of transformers does, with weights that whoever may read the folder may read.

        safetensors 0.8 makes its files readable for their owner alone, whatever the umask; on a shared machine nobody
        else could load the model. The arguments are those of `PreTrainedModel.save_pretrained`.
        """
        super().save_pretrained(save_directory, *args, **kwargs)
        config = Path(save_directory, "config.json")
        for weights in Path(save_directory).glob("*.safetensors") if config.is_file() else ():
            weights.chmod(config.stat().st_mode)

    @torch.no_grad()
    def set_bands(self, bands: list[str]) -> list[str]:
        """Make the model take other bands: fewer, in another order, or new ones. It is changed in place.

        The patch embedding's kernels follow their bands by name, so the model computes from the same bands what it
        computed before, and leaving a band out is feeding it zeros. A band that the model does not know starts from
        the mean of the kernels of all bands that it knows. `config.bands` and `config.num_channels` follow. Call it
        before the model is wrapped or an optimizer is made: the weight is a new parameter.

        Args:
            bands (`list[str]`): Names of the bands in the order of the input's channels. Names of one kind and of
                another are understood, `"B8A"` or `"Narrow NIR"` for `"NIR_NARROW"`.

        Returns:
            `list[str]`: The bands that are new to the model, as they were given.

        Raises:
            ValueError: No name is given or two name one band, or the model's own bands have no names.
        """
        known = self.config.bands
        if known is None:
            raise ValueError(
                f"Expected config.bands to name the model's {self.config.num_channels} channels, found None. Set "
                "model.config.bands to their names first."
            )
        if isinstance(bands, str) or len(bands) == 0:
            raise ValueError(f"Expected a list of at least one band name, found {bands!r}.")
        positions = find_band_names(bands, known)
        taken = [position for position in positions if position is not None]
        if find_band_names(bands, bands) != list(range(len(bands))) or len(set(taken)) < len(taken):
            known_as = [known[position] if position is not None else "(new)" for position in positions]
            raise ValueError(
                f"Expected distinct bands, found {', '.join(bands)}, which the model knows as {', '.join(known_as)}. "
                "Name each band once."
            )
        embeddings = cast("PrithviModel", self.base_model).embeddings.patch_embeddings
        weight = embeddings.weight  # (E, C, t, p, q)
        mean_dtype = torch.promote_types(weight.dtype, torch.float32)
        mean = weight.mean(dim=1, keepdim=True, dtype=mean_dtype).to(weight.dtype)
        index = [embeddings.in_channels if position is None else position for position in positions]
        kernels = torch.cat([weight, mean], dim=1).index_select(1, torch.tensor(index, device=weight.device))
        embeddings.weight = nn.Parameter(kernels, requires_grad=weight.requires_grad)
        embeddings.in_channels = len(bands)
        self.config.bands, self.config.num_channels = list(bands), len(bands)
        new = [band for band, position in zip(bands, positions, strict=True) if position is None]
        if new:
            logger.warning(
                f"The bands {', '.join(new)} are new to the model and start from the mean of {', '.join(known)}: "
                "fine-tune it before use. If it knows one of them by another name, give that name."
            )
        return new

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Make fresh weights as the original does, and the position table, which no file holds.

        Linear layers and the patch embedding Xavier-uniform (masked autoencoder), transposed convolutions of the neck
        as torch makes them, convolutions of necks and heads Kaiming-normal, classifiers normal with deviation 0.01
        (mmsegmentation). Only functions that leave loaded weights alone are used.
        """
        super()._init_weights(module)
        if isinstance(module, PrithviEmbeddings):
            init.normal_(module.cls_token, std=self.config.initializer_range)
            init.copy_(
                module.position_embeddings, sincos_position_table(self.config.hidden_size, self.config.grid_size)
            )
        elif isinstance(module, nn.LayerNorm):  # the base class goes by the name, which PrithviChannelNorm has not
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Conv3d):
            bound = math.sqrt(6 / (module.weight[0].numel() + module.out_channels))
            init.uniform_(module.weight, -bound, bound)
        elif isinstance(module, nn.ConvTranspose2d):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            bound = 1 / math.sqrt(module.weight[0].numel())
            init.uniform_(cast(torch.Tensor, module.bias), -bound, bound)
        elif isinstance(module, PrithviFCNHead):
            init.normal_(module.classifier.weight, std=0.01)
        elif isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class PrithviModel(PrithviPreTrainedModel):
    """The bare Prithvi encoder: tokens of every patch, without a head."""

    def __init__(self, config: PrithviConfig) -> None:
        super().__init__(config)
        self.embeddings = PrithviEmbeddings(config)
        self.layers = nn.ModuleList(PrithviLayer(config) for _ in range(config.num_hidden_layers))
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self, pixel_values: torch.Tensor | None = None, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutput:
        """Encode images to tokens.

        Args:
            pixel_values: (batch_size, num_channels, num_frames, height, width), or without frames for one, normalised
                bands. Any number of frames; any height and width of at least one patch. A border narrower than a
                patch is dropped.
            kwargs: `output_hidden_states`, `output_attentions`, `return_dict` and the like.

        Returns:
            `last_hidden_state` (batch_size, 1 + frames x rows x columns, hidden_size); the first token is the class
            token.
        """
        hidden_states = self.embeddings(as_frames(pixel_values, self.config.num_channels))  # (B, 1 + T h w, E)
        for layer in self.layers:
            hidden_states = layer(hidden_states, **kwargs)
        return BaseModelOutput(last_hidden_state=self.layernorm(hidden_states))


def as_frames(pixel_values: torch.Tensor | None, num_channels: int) -> torch.Tensor:
    """Bring pixel values (B, C, T, H, W), or (B, C, H, W) of one frame, to (B, C, T, H, W); refuse all others."""
    if pixel_values is None:
        raise ValueError("Expected pixel_values, found None.")
    if pixel_values.ndim == 4:
        pixel_values = pixel_values.unsqueeze(2)
    if pixel_values.ndim != 5:
        raise ValueError(
            "Expected pixel_values of shape (batch_size, num_channels, num_frames, height, width), or without "
            f"num_frames for a single frame, found {tuple(pixel_values.shape)}."
        )
    if pixel_values.shape[1] != num_channels:
        raise ValueError(
            f"Expected pixel_values with {num_channels} bands in dimension 1 (config.num_channels), found "
            f"{pixel_values.shape[1]} in {tuple(pixel_values.shape)}. Select the bands with the image processor, or "
            "fit the model to the bands of your data with model.set_bands."
        )
    return pixel_values


def pad_by_reflection(pixel_values: torch.Tensor, multiple: tuple[int, int]) -> torch.Tensor:
    """Pad the last two dimensions right and bottom, by reflection, to the next multiple of rows and columns.

    Unlike torch's reflection padding it takes images smaller than the padding too: the reflection goes on back and
    forth, as numpy's `"reflect"` does.
    """
    for dim, step in zip((-2, -1), multiple, strict=True):
        size = pixel_values.shape[dim]
        padding = -size % step
        if isinstance(padding, torch.SymInt) or padding:  # a size that an export leaves open is not asked
            period = max(2 * (size - 1), 1)
            index = torch.arange(size + padding, device=pixel_values.device) % period
            pixel_values = pixel_values.index_select(dim, torch.minimum(index, period - index) if size > 1 else index)
    return pixel_values


class PrithviForSemanticSegmentation(PrithviPreTrainedModel):
    """Prithvi with a neck, a decode head and, for training, an auxiliary head on the same features."""

    def __init__(self, config: PrithviConfig) -> None:
        super().__init__(config)
        if cast(int, config.num_labels) < 2:
            raise ValueError(f"Expected at least two classes (num_labels), found {config.num_labels}.")
        self.prithvi = PrithviModel(config)
        self.neck = NECKS[config.neck](config)
        self.decode_head = HEADS[config.decode_head](config)
        self.auxiliary_head = (
            PrithviFCNHead(config, config.auxiliary_head_num_convs) if config.use_auxiliary_head else None
        )
        self._upsampling = FusedUpsampling()
        self._untrained: dict[str, int] = {}  # weights that `from_pretrained` did not find, and their versions then
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """Load a model as transformers does, and remember which of its weights the folder did not hold."""
        loaded: Any = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        model, info = loaded
        model._untrained = {
            name: parameter._version for name, parameter in model.named_parameters() if name in info["missing_keys"]
        }
        return (model, info) if output_loading_info else model

    def check_trained(self) -> None:
        """Refuse to make maps with a neck and heads that are as random as they were when a backbone was loaded.

        Raises:
            ValueError: `from_pretrained` found no weights for them, and neither training nor loading changed them.
        """
        weights = dict(self.named_parameters())
        heads = [name for name in self._untrained if not name.startswith("auxiliary_head.")]  # only training uses that
        names = [name for name in heads if name in weights and weights[name]._version == self._untrained[name]]
        if names:
            source = self.config._name_or_path or "FOLDER"
            raise ValueError(
                f"Expected a fine-tuned segmentation model, found the backbone {source}: {len(names)} tensors of neck "
                f"and head are missing, e.g. {min(names)}. A backbone cannot make maps by itself: fine-tune it first, "
                f"`prithvi-hf finetune --model {source} ...`."
            )

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether the loss is a sum over pixels that transformers' count of a whole optimisation step may divide.

        `transformers.Trainer` asks for it. Where it is false, as for the Dice losses, which are means over images, it
        averages the losses of accumulated batches instead. It counts the labels other than -100, so an ignore index
        of another value makes it false as well. `PrithviTrainer` counts for every loss what that is divided by.
        """
        return LOSSES[self.config.loss].is_sum_over_pixels and self.config.semantic_loss_ignore_index == -100

    def freeze_backbone(self) -> None:
        """Leave the encoder as it is: its parameters get no gradient, neck and heads train.

        Bands that `set_bands` added are part of it and keep the kernels that they started from. Call it before an
        optimizer is made; `model.prithvi.requires_grad_(True)` undoes it.
        """
        self.prithvi.requires_grad_(False)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SemanticSegmenterOutput:
        """Classify each pixel, and compute the loss where labels are given.

        Args:
            pixel_values: (batch_size, num_channels, num_frames, height, width), or without frames for one, normalised
                bands of any height and width: the image is padded right and bottom by reflection to whole patches,
                and the logits are cropped back.
            labels: (batch_size, height, width), the class of each pixel, 0 to `num_labels - 1`, or
                `semantic_loss_ignore_index`. In training the loss is that of the decode head plus
                `auxiliary_loss_weight` times that of the auxiliary head; in evaluation it is the decode head's alone.
            kwargs: `output_hidden_states`, `output_attentions`, `return_dict` and the like.

        Returns:
            `logits` (batch_size, num_labels, height, width), and `loss` where labels are given.
        """
        images = as_frames(pixel_values, self.config.num_channels)  # (B, C, T, H, W)
        batch_size, _, frames, height, width = images.shape
        if frames != self.config.num_frames:
            raise ValueError(
                f"Expected {self.config.num_frames} frame(s) in dimension 2 (config.num_frames; the neck is built for "
                f"them), found {frames} in {tuple(images.shape)}. Load the model with num_frames={frames} and "
                "fine-tune it, or give it the frames it was trained with."
            )
        if labels is not None and tuple(labels.shape) != (batch_size, height, width):
            expected = (batch_size, height, width)
            raise ValueError(f"Expected labels of shape {expected}, one per pixel, found {tuple(labels.shape)}.")
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        _, patch_height, patch_width = self.config.tubelet_size
        padded = pad_by_reflection(images, (patch_height, patch_width))
        # As multiples, which an export that leaves the size open can compare with the neck's.
        grid_size = (padded.shape[-2] // patch_height, padded.shape[-1] // patch_width)
        size = (grid_size[0] * patch_height, grid_size[1] * patch_width)
        heads = [self.decode_head]
        if labels is not None and self.training and self.auxiliary_head is not None:
            heads.append(self.auxiliary_head)
        outputs = self.prithvi(padded, **kwargs)  # last_hidden_state (B, 1 + T h w, E)
        fused = None
        if self.config.fused_upsampling:
            fused = self._upsampling.prepare(self.neck, heads, num_pixels=batch_size * size[0] * size[1])
        if fused is not None:
            scores = fused(outputs.last_hidden_state, grid_size)  # each (B, num_labels, 16 h, 16 w)
        else:
            features = self.neck(outputs.last_hidden_state, grid_size)  # (B, neck_output_size, 16 h, 16 w)
            scores = [head(features) for head in heads]
        loss = logits = None
        for index, head_scores in enumerate(scores):
            # The neck upsamples the token grid 16 times whatever the patch, so only patches other than 16 need it.
            if tuple(head_scores.shape[-2:]) != size:
                head_scores = nn.functional.interpolate(head_scores, size=size, mode="bilinear", align_corners=False)
            head_scores = head_scores[..., :height, :width]  # (B, num_labels, H, W)
            logits = head_scores if index == 0 else logits
            if labels is not None:
                head_loss = self.segmentation_loss(head_scores, labels, num_items_in_batch)
                loss = head_loss if loss is None else loss + self.config.auxiliary_loss_weight * head_loss
        return SemanticSegmenterOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def set_fused_upsampling(self, enabled: bool = True) -> None:
        """Choose between the fused operator of neck and heads (the default) and their modules one by one.

        Both give the same values but for rounding; the fused operator is several times faster. It gives way by itself
        where a module of neck or heads was replaced, hooked or wrapped. Sets `config.fused_upsampling` to `enabled`.
        """
        self.config.fused_upsampling = enabled
        self._upsampling.drop()

    def train(self, mode: bool = True) -> "PrithviForSemanticSegmentation":
        """Switch between training and evaluation; what inference fused is dropped by training."""
        if mode:
            self._upsampling.drop()
        return super().train(mode)

    def segmentation_loss(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Compute the configured loss of one head's logits (B, num_labels, H, W), given labels (B, H, W).

        `num_items_in_batch` is what the loss's `count_items` (see `LOSSES`) gives of a whole optimisation step; by
        default it is that of these labels.
        """
        loss = LOSSES[self.config.loss]
        options = {parameter: getattr(self.config, name) for parameter, name in loss.options.items()}
        options["num_items_in_batch"] = num_items_in_batch
        weights, ignore_index = self.config.class_weights, self.config.semantic_loss_ignore_index
        return loss.function(logits, labels, weights, ignore_index, **options)


def unwrap_model(model: nn.Module) -> PrithviForSemanticSegmentation:
    """Take a model that is to make maps out of a data-parallel wrapper, and refuse one that cannot make them.

    Raises:
        ValueError: The model is a backbone, or some of its weights are not in memory.
    """
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    if isinstance(model, PrithviModel):
        raise ValueError(
            "Expected a fine-tuned segmentation model, found a PrithviModel, the backbone without neck and head. "
            "Fine-tune it first: `prithvi-hf finetune --model FOLDER ...`."
        )
    elsewhere = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if elsewhere:
        raise ValueError(
            f"Expected a model whose weights are in memory, found {len(elsewhere)} tensors offloaded or never loaded, "
            f"e.g. {elsewhere[0]}. Load it without device_map and offload_folder, and give the device to use."
        )
    if isinstance(model, PrithviForSemanticSegmentation):
        model.check_trained()
    return cast(PrithviForSemanticSegmentation, model)


__all__ = ["PrithviForSemanticSegmentation", "PrithviModel", "PrithviPreTrainedModel", "unwrap_model"]
