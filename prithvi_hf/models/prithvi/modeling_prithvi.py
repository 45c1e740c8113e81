# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""PyTorch Prithvi: the encoder and the segmentation model on top of it.

This file must not postpone the evaluation of its annotations: transformers reads the class of a model's
configuration from one.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
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
from transformers.utils import TransformersKwargs, find_adapter_config_file, logging
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import (
    capture_outputs,
    resolve_hidden_states_indices,
    selected_hidden_states,
)

from .adapter_prithvi import ADAPTER_OPTIONS, has_adapter, merge_adapter, save_adapter
from .bands_prithvi import find_band_names
from .baseline_prithvi import BASELINE_CHANNELS, PrithviBaselineUNet
from .configuration_prithvi import PrithviConfig
from .decode_heads_prithvi import HEADS, MAP_NECKS, NECKS, PrithviClassifier, PrithviFCNHead
from .embeddings_prithvi import (
    PrithviCoordinateEmbeddings,
    PrithviEmbeddings,
    as_frames,
    pad_by_reflection,
    sincos_position_table,
    upsample_images,
)
from .fused_upsampling_prithvi import FusedUpsampling
from .loss_prithvi import LOSSES, regression_loss
from .remote_code_prithvi import RemoteCodeMixin


logger = logging.get_logger(__name__)

LONGEST_PLAIN_ATTENTION = 640
"""Tokens up to which all weights of attention at once are fast and small (three frames of 224 px have 589)."""


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
        if (
            self.config._attn_implementation == "sdpa"
            and (query.device.type, query.dtype) == ("cpu", torch.bfloat16)
            and length <= LONGEST_PLAIN_ATTENTION
            and not (dropout or torch.compiler.is_compiling())
        ):
            # As two products: torch's own takes twice as long there, in training three times (torch 2.13).
            scores = torch.matmul(query * self.scaling, key.transpose(-1, -2))
            output, weights = torch.matmul(scores.softmax(-1), value).transpose(1, 2), None
        else:
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


class PrithviDropPath(nn.Module):
    """Stochastic depth: in training, leave a branch out for some samples and scale it up for the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        """Map `(B, L, hidden_size)` to the same shape."""
        if not self.training:
            return branch
        kept = torch.empty_like(branch[:, :1, :1]).bernoulli_(1 - self.rate)  # (B, 1, 1)
        return branch * kept / (1 - self.rate)


class PrithviLayer(GradientCheckpointingLayer):
    """A pre-norm transformer layer."""

    def __init__(self, config: PrithviConfig, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = PrithviAttention(config)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = PrithviMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.drop_path = PrithviDropPath(drop_path_rate) if drop_path_rate else nn.Identity()

    def forward(self, hidden_states: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        """Map `(B, L, hidden_size)` to the same shape."""
        attended, _ = self.attention(self.layernorm_before(hidden_states), **kwargs)
        hidden_states = hidden_states + self.drop_path(self.dropout(attended))
        return hidden_states + self.drop_path(self.dropout(self.mlp(self.layernorm_after(hidden_states))))


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
        if has_adapter(self):
            save_adapter(self, save_directory, kwargs.get("state_dict"))
        else:
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
        embeddings = cast(nn.Conv3d, self.get_input_embeddings())
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
        elif isinstance(module, PrithviCoordinateEmbeddings):
            for name, scale in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                init.constant_(scale, 0.1 if isinstance(getattr(module, name), nn.Parameter) else 1.0)
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
        elif isinstance(module, PrithviFCNHead | PrithviClassifier):
            init.normal_(module.classifier.weight, std=0.01)
        elif isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class PrithviModel(PrithviPreTrainedModel):
    """The bare Prithvi encoder: tokens of every patch, without a head."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load the encoder of any model as transformers does; that of an adapter has it merged into it."""
        name = pretrained_model_name_or_path
        options: Any = {option: kwargs[option] for option in ADAPTER_OPTIONS if option in kwargs}
        if find_adapter_config_file(name, **options):
            name, kwargs = None, merge_adapter(PrithviModel, str(name), **kwargs)
        return super().from_pretrained(name, *args, **kwargs)

    def __init__(self, config: PrithviConfig) -> None:
        super().__init__(config)
        if config.architecture != "prithvi":
            raise ValueError(
                f"Expected architecture prithvi, with an encoder, found {config.architecture}, which models of "
                "maps alone can have. Load it by PrithviForSemanticSegmentation or PrithviForPixelRegression."
            )
        self.embeddings = PrithviEmbeddings(config)
        step = config.drop_path_rate / max(1, config.num_hidden_layers - 1)
        self.layers = nn.ModuleList(PrithviLayer(config, step * depth) for depth in range(config.num_hidden_layers))
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        temporal_coords: torch.Tensor | None = None,
        location_coords: torch.Tensor | None = None,
        ids_keep: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        """Encode images to tokens.

        Args:
            pixel_values: (batch_size, num_channels, num_frames, height, width), or without frames for one, normalised
                bands. Any number of frames; any height and width of at least one patch. A border narrower than a
                patch is dropped.
            temporal_coords: float32 (batch_size, num_frames, 2), year and day of the year of each frame, for a model
                with "time" in `config.coords_encoding`. Without them, or where they are NaN, their term is left out.
            location_coords: float32 (batch_size, 2), latitude and longitude of the centre in degrees, for a model
                with "location" in `config.coords_encoding`; in the same way.
            ids_keep: (batch_size, kept), the only patches to encode, as places in the order frames, rows, columns.
            kwargs: `output_hidden_states`, `output_attentions`, `return_dict` and the like.

        Returns:
            `last_hidden_state` (batch_size, 1 + frames x rows x columns, hidden_size); the first token is the class
            token.
        """
        images = as_frames(pixel_values, self.config.num_channels)
        hidden_states = self.embeddings(images, temporal_coords, location_coords, ids_keep)  # (B, 1 + T h w, E)
        for layer in self.layers:
            hidden_states = layer(hidden_states, **kwargs)
        return BaseModelOutput(last_hidden_state=self.layernorm(hidden_states))


class PrithviTaskModel(PrithviPreTrainedModel):
    """An encoder, `prithvi`, with layers for a task after it: the base of the models that are fine-tuned.

    Attributes:
        task: `"segmentation"`, `"classification"` or `"regression"`, values of pixels.
    """

    prithvi: "PrithviModel"
    task = "segmentation"
    _untrained: Mapping[str, int] = {}  # weights that `from_pretrained` did not find, and their versions then

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """Load a model as transformers does, and remember which of its weights the folder did not hold.

        A folder of `prithvi-hf export`, which has a graph in place of weights, gives a `PrithviExportedModel`; an
        adapter, see `add_adapter`, gives its base model with the adapter merged into it.
        """
        name: Any = args[0] if args else kwargs.get("pretrained_model_name_or_path")
        name = (kwargs.get("adapter_kwargs") or {}).get("_adapter_model_path", name)  # of transformers' Auto classes
        options: Any = {option: kwargs[option] for option in ADAPTER_OPTIONS if option in kwargs}
        if find_adapter_config_file(name, **options):
            kwargs.pop("pretrained_model_name_or_path", None)
            args, kwargs = (None,), merge_adapter(PrithviModel, str(name), **kwargs)
        try:
            loaded: Any = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        except OSError:  # no weights
            from .exported_prithvi import PrithviExportedModel

            if not PrithviExportedModel.is_at(*args, **kwargs):
                raise
            return PrithviExportedModel.from_pretrained(*args, output_loading_info=output_loading_info, **kwargs)
        except RuntimeError as error:
            if "ignore_mismatched_sizes" not in str(error):
                raise
            raise RuntimeError(
                f"Expected weights of a {cls.__name__} with the sizes of its configuration, found other shapes (the "
                "report above names them), as of a model of another task or other classes. Load it by the class that "
                "saved it, or pass ignore_mismatched_sizes=True and fine-tune what is new."
            ) from error
        model, info = loaded
        if args[:1] == (None,):  # an adapter, loaded by what it was merged to
            model.config._name_or_path = model.name_or_path = str(name)
        new = set(info["missing_keys"])
        for name, *_ in info["mismatched_keys"]:
            new.add(name)
        model._untrained = {name: parameter._version for name, parameter in model.named_parameters() if name in new}
        return (model, info) if output_loading_info else model

    def check_trained(self) -> None:
        """Refuse to predict with layers that are as random as they were when a backbone was loaded.

        Raises:
            ValueError: `from_pretrained` found no weights for them, and neither training nor loading changed them.
        """
        weights = dict(self.named_parameters())
        heads = [name for name in self._untrained if not name.startswith("auxiliary_head.")]  # only training uses that
        names = [name for name in heads if name in weights and weights[name]._version == self._untrained[name]]
        if names:
            source = self.config._name_or_path or "FOLDER"
            (kind, *_) = self.config.architectures or [""]
            other = kind.endswith(("Segmentation", "Regression", "Classification")) and kind != type(self).__name__
            found, remedy = "the backbone", "A backbone cannot make predictions by itself: fine-tune it first"
            if other:
                found, remedy = f"the {kind}", "Load it as what it is, or fine-tune it for this task"
            raise ValueError(
                f"Expected a fine-tuned model, found {found} {source}: {len(names)} tensors of neck and head are "
                f"missing, e.g. {min(names)}. {remedy}, `prithvi-hf finetune --model {source} ...`."
            )

    def freeze_backbone(self, train_norms: bool = False) -> None:
        """Leave the encoder as it is: its parameters get no gradient, what follows it trains.

        With `train_norms` its layer normalisations train too. Bands that `set_bands` added are part of it and keep the
        kernels that they started from. Call it before an optimizer is made; `requires_grad_(True)` undoes it.

        Raises:
            ValueError: The architecture is `"unet"`, which has no encoder.
        """
        if self.config.architecture == "unet":
            raise ValueError("Expected an encoder to freeze, found architecture unet. Leave freeze_backbone out.")
        self.prithvi.requires_grad_(False)
        for module in self.prithvi.modules():
            if train_norms and isinstance(module, nn.LayerNorm):
                module.requires_grad_(True)

    def restore_unit(self, values: torch.Tensor) -> torch.Tensor:
        """Turn standardised values of a regression into those of `config.target_unit`, in float32 or wider."""
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        return values * self.config.target_std + self.config.target_mean

    def regression_loss(
        self,
        values: torch.Tensor,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Compute the configured loss of a regression's values and labels of one shape and unit, NaN for no label.

        Both are standardised, so the loss has no unit. `num_items_in_batch` is what the model's `count_loss_items`
        gives of a whole optimisation step; by default it is that of these labels.
        """
        config = self.config
        standard, targets = ((one - config.target_mean) / config.target_std for one in (values, labels))
        return regression_loss(standard, targets, config.regression_loss, num_items_in_batch, config.huber_delta)


class PrithviMapModel(PrithviTaskModel):
    """Encoder, neck and heads, which give `num_labels` values per pixel: the base of the models of maps.

    With `architecture="unet"` the baseline stands for encoder and neck, and a 1x1 convolution for the head.
    """

    def __init__(self, config: PrithviConfig) -> None:
        super().__init__(config)
        if config.architecture == "unet":
            self.model = PrithviBaselineUNet(config)
            self.decode_head: nn.Module = PrithviClassifier(config, BASELINE_CHANNELS[0])
            self.supports_gradient_checkpointing = False  # its batch normalisation would count every batch twice
        else:
            self.prithvi = PrithviModel(config)
            self.neck = NECKS[cast(str, config.neck)](config)
            self.decode_head = HEADS[config.decode_head](config)
            if config.decode_head == "transpose_fcn":  # takes the pooled map, which none of the neck's weights is for;
                self.neck.requires_grad_(False)  # checkpointing on several processes waits for every gradient
        self.auxiliary_head = (
            PrithviFCNHead(config, config.auxiliary_head_num_convs) if config.use_auxiliary_head else None
        )
        self._upsampling = FusedUpsampling()

    def predict_maps(
        self,
        pixel_values: torch.Tensor | None,
        temporal_coords: torch.Tensor | None,
        location_coords: torch.Tensor | None,
        labels: torch.Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[list[torch.Tensor], BaseModelOutput]:
        """Give the map (batch_size, num_labels, height, width) of the decode head and, in training, the auxiliary one.

        Arguments are those of the models' `forward`; `labels` are for the checks, and tell whether there is a loss.
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
        scale = self.config.input_upsampling
        if scale != 1:
            images = upsample_images(images, scale)
        both_sides = self.config.padding == "both_sides"
        patch_height, patch_width = self.config.tubelet_size[1:]
        pairs = 2 if both_sides else 1
        padded, (top, left) = pad_by_reflection(images, (pairs * patch_height, pairs * patch_width), both_sides)
        given: Any = kwargs.pop("output_hidden_states", None)  # whether, or which
        wanted = self.config.output_hidden_states if given is None else given
        if self.config.architecture == "unet":
            outputs = self.model(padded, bool(wanted), **kwargs)
            maps = [self.decode_head(outputs.last_hidden_state)]
        else:
            heads = [self.decode_head]
            if labels is not None and self.training and self.auxiliary_head is not None:
                heads.append(self.auxiliary_head)
            maps, outputs = self.compute_head_maps(
                padded, temporal_coords, location_coords, heads, bool(wanted), **kwargs
            )
        if wanted and (numbers := selected_hidden_states(wanted)) is not None:
            states: Any = outputs.hidden_states
            chosen = resolve_hidden_states_indices(self, numbers, len(states))
            states = tuple(state if number in chosen else None for number, state in enumerate(states))
            outputs.hidden_states = states
        for index, head_map in enumerate(maps):
            head_map = head_map[..., top : top + images.shape[-2], left : left + images.shape[-1]]
            if scale != 1:
                head_map = nn.functional.interpolate(head_map, (height, width), mode="bilinear", align_corners=False)
            maps[index] = head_map  # (B, num_labels, H, W)
        return maps, outputs

    def compute_head_maps(
        self,
        images: torch.Tensor,
        temporal_coords: torch.Tensor | None,
        location_coords: torch.Tensor | None,
        heads: list[nn.Module],
        wants_states: bool,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[list[torch.Tensor], BaseModelOutput]:
        """Give the map of each head, as large as the images, which are whole patches."""
        batch_size, patch_height, patch_width = images.shape[0], *self.config.tubelet_size[1:]
        # As multiples, which an export that leaves the size open can compare with the neck's.
        grid_size = (images.shape[-2] // patch_height, images.shape[-1] // patch_width)
        size = (grid_size[0] * patch_height, grid_size[1] * patch_width)
        takes_layers = self.config.neck in MAP_NECKS
        outputs = self.prithvi(
            images, temporal_coords, location_coords, output_hidden_states=wants_states or takes_layers, **kwargs
        )  # last_hidden_state (B, 1 + T h w, E)
        fused = None
        if takes_layers:
            # The last layer counts with its layer normalisation, as in the original.
            states = [*outputs.hidden_states[1 : self.config.num_hidden_layers], outputs.last_hidden_state]
            features = self.neck([states[layer] for layer in self.config.feature_layers], grid_size)
        elif self.config.fused_upsampling:
            fused = self._upsampling.prepare(self.neck, heads, num_pixels=batch_size * size[0] * size[1])
        if fused is not None:
            maps = fused(outputs.last_hidden_state, grid_size)  # each (B, num_labels, 16 h, 16 w)
        else:
            if not takes_layers:
                features = self.neck(outputs.last_hidden_state, grid_size)  # (B, neck_output_size, 16 h, 16 w)
            maps = [head(features) for head in heads]
        # Heads give maps of their own size: conv_transpose upsamples the grid 16 times whatever the patch.
        for index, head_map in enumerate(maps):
            if tuple(head_map.shape[-2:]) != size:
                maps[index] = nn.functional.interpolate(head_map, size=size, mode="bilinear", align_corners=False)
        outputs.hidden_states = outputs.hidden_states if wants_states else None
        return maps, outputs

    def set_fused_upsampling(self, enabled: bool = True) -> None:
        """Choose between the fused operator of neck and heads (the default) and their modules one by one.

        Both give the same values but for rounding; the fused operator is several times faster. It gives way by itself
        where a module of neck or heads was replaced, hooked or wrapped. Sets `config.fused_upsampling` to `enabled`.
        """
        self.config.fused_upsampling = enabled
        self._upsampling.drop()

    def train(self, mode: bool = True) -> "PrithviMapModel":
        """Switch between training and evaluation; what inference fused is dropped by training."""
        if mode:
            self._upsampling.drop()
        return super().train(mode)


class PrithviForSemanticSegmentation(PrithviMapModel):
    """Prithvi with a neck, a decode head and, for training, an auxiliary head on the same features."""

    def __init__(self, config: PrithviConfig) -> None:
        if cast(int, config.num_labels) < 2:
            raise ValueError(f"Expected at least two classes (num_labels), found {config.num_labels}.")
        super().__init__(config)
        self.post_init()

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether the loss is a sum over pixels that transformers' count of a whole optimisation step may divide.

        `transformers.Trainer` asks for it. Where it is false, as for the Dice losses, which are means over images, it
        averages the losses of accumulated batches instead. It counts the labels other than -100, so an ignore index
        of another value makes it false as well. `PrithviTrainer` counts for every loss what that is divided by.
        """
        return LOSSES[self.config.loss].is_sum_over_pixels and self.config.semantic_loss_ignore_index == -100

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        temporal_coords: torch.Tensor | None = None,
        location_coords: torch.Tensor | None = None,
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
            temporal_coords: float32 (batch_size, num_frames, 2), as `PrithviModel` takes them.
            location_coords: float32 (batch_size, 2), as `PrithviModel` takes them.
            kwargs: `output_hidden_states`, `output_attentions`, `return_dict` and the like.

        Returns:
            `logits` (batch_size, num_labels, height, width), and `loss` where labels are given.
        """
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        scores, outputs = self.predict_maps(pixel_values, temporal_coords, location_coords, labels, **kwargs)
        loss = None
        if labels is not None:
            losses = [self.segmentation_loss(logits, labels, num_items_in_batch) for logits in scores]
            loss = losses[0] if len(losses) == 1 else losses[0] + self.config.auxiliary_loss_weight * losses[1]
        return SemanticSegmenterOutput(
            loss=loss, logits=scores[0], hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def count_loss_items(self, labels: torch.Tensor) -> torch.Tensor:
        """Count what the loss of labels (batch_size, height, width) is divided by, which may be several numbers."""
        return LOSSES[self.config.loss].count_items(labels, self.config.semantic_loss_ignore_index)

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


def unwrap_model(model: nn.Module, tasks: Sequence[str] = ("segmentation", "regression")) -> Any:
    """Take a model that is to predict out of a data-parallel wrapper, and refuse one that cannot.

    `tasks` are those of the models that are wanted, by default those that make maps.

    Raises:
        ValueError: The model is a backbone or one for another task, or some of its weights are not in memory.
    """
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    task = getattr(model, "task", None) if isinstance(model, PrithviPreTrainedModel) else tasks[0]
    if task not in tasks:
        remedy = "Fine-tune it first: `prithvi-hf finetune --model FOLDER ...`."
        if task is not None:
            remedy = f'Use pipeline("geospatial-{task}", model=...).'
        raise ValueError(
            f"Expected a fine-tuned model for {' or '.join(tasks)}, found a {type(model).__name__}"
            f"{', the backbone without neck and head' if task is None else ''}. {remedy}"
        )
    elsewhere = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if elsewhere:
        raise ValueError(
            f"Expected a model whose weights are in memory, found {len(elsewhere)} tensors offloaded or never loaded, "
            f"e.g. {elsewhere[0]}. Load it without device_map and offload_folder, and give the device to use."
        )
    if isinstance(model, PrithviTaskModel):
        model.check_trained()
    return model


__all__ = ["PrithviForSemanticSegmentation", "PrithviModel", "PrithviPreTrainedModel", "unwrap_model"]
