# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Prithvi model configuration: its fields, its file, and whether there is a model of a name.

This file must not postpone the evaluation of its annotations: `@strict` skips string annotations, and the validation
of every field would be off without a word.
"""

import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from huggingface_hub import hf_hub_url, try_to_load_from_cache
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import build_hf_headers, get_session, validate_repo_id
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from .decode_heads_prithvi import HEADS, MAP_NECKS, NECKS, find_necks
from .embeddings_prithvi import COORDINATE_ARGUMENTS
from .loss_prithvi import LOSSES, REGRESSION_LOSSES
from .original_fields_prithvi import read_original_fields
from .remote_code_prithvi import CODE_KEYS, CONFIG_FILE, EXPORT_FILE, without_remote_code


PRITHVI_BANDS = ["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"]
"""The six bands of Harmonized Landsat-Sentinel imagery that Prithvi was pretrained on, in channel order."""

ARCHITECTURES = ("prithvi", "unet")
"""Values of `PrithviConfig.architecture`."""
ENCODER_FIELDS = (
    *("patch_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "mlp_ratio", "hidden_act"),
    *("layer_norm_eps", "qkv_bias", "hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"),
    *("coords_encoding",),
    *("coords_scale_learn", "decoder_hidden_size", "decoder_num_hidden_layers", "decoder_num_attention_heads"),
    *("mask_ratio", "norm_pix_loss", "neck", "neck_hidden_size", "first_conv_channels", "channel_reduction_factor"),
    *("num_convs_per_upscale", "out_indices", "decode_head", "head_hidden_size", "head_num_convs", "unet_channels"),
    *("pool_scales", "use_auxiliary_head", "auxiliary_head_num_convs", "auxiliary_loss_weight"),
)
"""Fields of the encoder, its necks and heads, which the architecture `"unet"` has none of."""
NODATA_NAME = "no data"
"""What counts and legends call pixels without data."""
# Limits of sizes, far above every published model (0.6 billion parameters): nothing is built from a faulty file.
_MAX_SIZES = {
    **dict.fromkeys(("hidden_size", "neck_hidden_size", "first_conv_channels", "head_hidden_size"), 2**17),
    **dict.fromkeys(("num_channels", "num_frames", "num_hidden_layers", "num_attention_heads"), 2**12),
    **dict.fromkeys(("decoder_hidden_size", "unet_channels", "classifier_channels"), 2**17),
    **dict.fromkeys(("decoder_num_hidden_layers", "decoder_num_attention_heads", "pool_scales"), 2**12),
    **dict.fromkeys(("head_num_convs", "auxiliary_head_num_convs", "num_convs_per_upscale"), 2**8),
    **dict.fromkeys(("num_labels", "channel_reduction_factor"), 2**16),
}
_MAX_PARAMETERS, _MAX_POSITIONS, _MAX_SIDE = 2**33, 2**28, 2**16
_LEAST_SCALE = 1e-30  # what values are divided by
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # neither files nor messages can hold it
_HEX_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_HUB_TIMEOUT = 5  # seconds
_MAX_NESTING = 32  # a configuration of ours has 3 levels


@strict
class PrithviConfig(PreTrainedConfig):
    r"""Configuration of a Prithvi encoder and, where there is one, of its segmentation neck and heads.

    The defaults describe Prithvi-EO-1.0-100M (ViT-B/16, three frames of six bands). The names of the original
    configuration files, `embed_dim`, `depth`, `num_heads`, `in_chans` and `img_size`, are accepted as well.

    Args:
        architecture (`str`, defaults to `"prithvi"`): `"prithvi"`, or `"unet"`: a plain U-Net of 2 million parameters
            from random weights in place of encoder, neck and head, to compare with. All dates are stacked as channels.
            It takes the fields of images, classes, losses and padding, of the heads `classifier_channels` and
            `classifier_dropout`, and refuses the others.
        image_size (`int` or `list[int]`, defaults to 224): Height and width in pixels that the position table is
            made for; also the default tile of sliding-window inference. Other sizes interpolate the table.
        patch_size (`int` or `list[int]`, defaults to `[1, 16, 16]`): Frames, rows and columns of one token. An
            `int` stands for `[1, n, n]`.
        num_frames (`int`, defaults to 3): Number of dates in one input. A multiple of `patch_size[0]`.
        num_channels (`int`, defaults to 6): Number of bands in one frame.
        bands (`list[str]`, *optional*): Names of the bands in channel order; the six HLS bands where there are six
            channels.
        hidden_size (`int`, defaults to 768): Width of the encoder: a multiple of 16 (the position table gives 6/16
            of it to columns, 6/16 to rows and 4/16 to frames) and of `num_attention_heads`.
        num_hidden_layers (`int`, defaults to 12): Number of transformer layers.
        num_attention_heads (`int`, defaults to 12): Number of attention heads. No weight's shape depends on it.
        mlp_ratio (`float`, defaults to 4.0): Width of the MLP over `hidden_size`.
        hidden_act (`str`, defaults to `"gelu"`): Activation of the MLP.
        layer_norm_eps (`float`, defaults to 1e-5): Epsilon of the encoder's layer normalisations.
        qkv_bias (`bool`, defaults to `True`): Whether query, key and value projections have a bias.
        hidden_dropout_prob (`float`, defaults to 0.0): Dropout after the embeddings and inside each layer, 0 to 1.
        attention_probs_dropout_prob (`float`, defaults to 0.0): Dropout of the attention weights, 0 to 1.
        drop_path_rate (`float`, defaults to 0.0): Probability, 0 to below 1, that training leaves out the attention
            and the MLP of the last layer for a sample; it grows linearly with depth, from 0 in the first layer.
        initializer_range (`float`, defaults to 0.02): Standard deviation of a fresh class token.
        coords_encoding (`list[str]`, defaults to `[]`): What the tokens say of the image besides its pixels: `"time"`
            (`temporal_coords`), `"location"` (`location_coords`), both or nothing.
        coords_scale_learn (`bool`, defaults to `False`): Whether the scale of these terms is learned; else it is 1.
        decoder_hidden_size (`int`, defaults to 512): Width of the pretraining decoder, a multiple of 16 and of
            `decoder_num_attention_heads`.
        decoder_num_hidden_layers (`int`, defaults to 8): Transformer layers of the pretraining decoder.
        decoder_num_attention_heads (`int`, defaults to 16): Attention heads of the pretraining decoder.
        mask_ratio (`float`, defaults to 0.75): Fraction of the patches that pretraining hides, 0 to below 1.
        norm_pix_loss (`bool`, defaults to `False`): Whether pretraining predicts each patch normalised by its own
            mean and standard deviation.
        neck (`str`, *optional*): What turns tokens into a map and upsamples it 16 times:
            `"conv_transpose"`, two pairs of transposed convolutions of one width; or `"geospatial"`, four times a
            transposed convolution and 3x3 convolutions, ever narrower, a fraction of the cost. Both take the last
            layer, for the head `"fcn"`. Or maps of the layers `out_indices`, for the other heads: `"pyramid"`, four
            maps of four sizes; `"token_map"`, maps of one size. `None` is the one that suits the decode head.
        out_indices (`list[int]`, *optional*): Encoder layers, from 0, whose tokens the necks `"pyramid"` (four) and
            `"token_map"` (one, or any for `"upernet"`) take. `None` means the last layer of each quarter, or the last
            of all. Also the layers
            of which `PrithviBackbone` gives maps, in order and each once; negative ones count from the last layer.
        out_features (`list[str]`, *optional*): The same by the names in `stage_names`, `"stage1"` for layer 0; an
            attribute that follows `out_indices`, which is what a file holds.
        reshape_hidden_states (`bool`, defaults to `True`): Whether `PrithviBackbone` gives maps; else it gives tokens
            with the class token, as `DPTForSemanticSegmentation` takes them.
        neck_hidden_size (`int`, *optional*): Channels inside and after the `"conv_transpose"` neck; `None` means
            `hidden_size` times the number of frames of tokens. The `"geospatial"` neck does without it.
        first_conv_channels (`int`, *optional*): Channels after the first upsampling of the `"geospatial"` neck, which
            alone reads this and the next two; `None` means half of `hidden_size` times the number of frames of tokens.
        channel_reduction_factor (`int`, defaults to 2): What each further upsampling divides the channels by, rounded
            down.
        num_convs_per_upscale (`int`, defaults to 1): 3x3 convolutions after each upsampling.
        decode_head (`str`, defaults to `"fcn"`): The decode head, a name in the registry `HEADS`: `"fcn"` is
            convolutions and a 1x1 classifier; `"unet"` and `"upernet"` decode a `"pyramid"`, the latter also
            maps of one size; `"transpose_fcn"`
            upsamples the last map of a `"pyramid"` or a `"token_map"`, twice per convolution.
        unet_channels (`list[int]`, defaults to `[512, 256, 128, 64]`): Channels of the four blocks of `"unet"`.
        pool_scales (`list[int]`, defaults to `[1, 2, 3, 6]`): Sizes that `"upernet"` pools the smallest map to.
        classifier_channels (`list[int]`, defaults to `[]`): 3x3 convolutions before the classifier of the heads other
            than `"fcn"`, by their channels.
        head_hidden_size (`int`, defaults to 256): Channels of the heads.
        head_num_convs (`int`, defaults to 1): 3x3 convolutions of the decode head.
        use_auxiliary_head (`bool`, *optional*): Whether a second head on the same features adds its loss in training.
            `None` means yes for the necks that make one large map, which alone can have one.
        auxiliary_head_num_convs (`int`, defaults to 2): 3x3 convolutions of the auxiliary head.
        auxiliary_loss_weight (`float`, defaults to 1.0): Weight of the auxiliary loss. The original adds it in full.
        classifier_dropout (`float`, defaults to 0.1): Dropout of whole channels before the classifier, 0 to 1.
        loss (`str`, defaults to `"cross_entropy"`): The loss: `"cross_entropy"` or `"focal"`, averaged over the count
            of valid pixels; `"dice"`, the original's, which does count ignored pixels in its denominator;
            `"masked_dice"`, which does not and is the one to choose for a new model; or
            `"cross_entropy+masked_dice"`, their sum.
        focal_gamma (`float`, defaults to 2.0): How much less well-classified pixels count in the focal loss, at least
            0, which makes it the cross entropy.
        class_weights (`list[float]`, *optional*): One weight per class, in every loss.
        semantic_loss_ignore_index (`int`, defaults to -100): The label that no loss counts.
        regression_loss (`str`, defaults to `"mse"`): The loss of `PrithviForPixelRegression`, on standardised values:
            `"mse"`, `"mae"` or `"huber"`, averaged over the pixels that have a label.
        huber_delta (`float`, defaults to 1.0): The error from which on `"huber"` grows linearly, in standard
            deviations, above 0.
        target_mean (`float`, defaults to 0.0): Mean of the labels of a regression, in their unit. The network predicts
            `(value - target_mean) / target_std`, the model gives values in the unit of the labels.
        target_std (`float`, defaults to 1.0): Their standard deviation, above 0.
        target_name (`str`, *optional*): What the values of a regression are, such as `"aboveground biomass"`.
        target_unit (`str`, *optional*): Their unit, such as `"Mg/ha"`.
        padding (`str`, defaults to `"right_bottom"`): Where images of other sizes are padded, by reflection:
            `"right_bottom"`, to whole patches; or `"both_sides"`, to whole pairs of patches with the image in the
            middle, as terratorch 1.2 does.
        input_upsampling (`float`, defaults to 1.0): What the models of maps upsample images by, bilinearly, before
            they cut them into patches, 1/16 to 16; their maps come back at the images' size. 1.75 makes 224 pixels of
            chips of 128. `image_size` and patches are of the upsampled image.
        temperature (`float`, defaults to 1.0): What logits are divided by where they become probabilities, 0.001 to
            1000, see `prithvi-hf calibrate`. It changes neither classes nor losses.
        class_colors (`list[str]`, *optional*): One `"#rrggbb"` per class for maps and pictures.
        fused_upsampling (`bool`, defaults to `True`): Whether the last transposed convolution of the
            `"conv_transpose"` neck and the heads' first convolutions are computed as one operator: the same values
            but for rounding, several times faster. See `PrithviForSemanticSegmentation.set_fused_upsampling`.

    Raises:
        ValueError: A field or a combination of fields does not describe a model; the message names it.

    Example:
    ```python
    >>> from prithvi_hf import PrithviConfig, PrithviForSemanticSegmentation

    >>> config = PrithviConfig(num_frames=1, hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
    >>> model = PrithviForSemanticSegmentation(config)
    ```
    """

    model_type = "prithvi"
    attribute_map = {
        "embed_dim": "hidden_size",
        "depth": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "in_chans": "num_channels",
        "img_size": "image_size",
    }

    architecture: str = "prithvi"
    image_size: int | list[int] | tuple[int, ...] = 224
    patch_size: int | list[int] | tuple[int, ...] = (1, 16, 16)
    num_frames: int = 3
    num_channels: int = 6
    bands: list[str] | tuple[str, ...] | None = None
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    mlp_ratio: float | int = 4.0
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    qkv_bias: bool = True
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.0
    initializer_range: float | int = 0.02
    coords_encoding: list[str] | tuple[str, ...] = ()
    coords_scale_learn: bool = False
    decoder_hidden_size: int = 512
    decoder_num_hidden_layers: int = 8
    decoder_num_attention_heads: int = 16
    mask_ratio: float | int = 0.75
    norm_pix_loss: bool = False
    neck: str | None = None
    neck_hidden_size: int | None = None
    first_conv_channels: int | None = None
    channel_reduction_factor: int = 2
    num_convs_per_upscale: int = 1
    out_indices: list[int] | tuple[int, ...] | None = None
    reshape_hidden_states: bool = True
    decode_head: str = "fcn"
    head_hidden_size: int = 256
    head_num_convs: int = 1
    unet_channels: list[int] | tuple[int, ...] = (512, 256, 128, 64)
    pool_scales: list[int] | tuple[int, ...] = (1, 2, 3, 6)
    classifier_channels: list[int] | tuple[int, ...] = ()
    use_auxiliary_head: bool | None = None
    auxiliary_head_num_convs: int = 2
    auxiliary_loss_weight: float | int = 1.0
    classifier_dropout: float | int = 0.1
    loss: str = "cross_entropy"
    focal_gamma: float | int = 2.0
    class_weights: list[float | int] | tuple[float | int, ...] | None = None
    semantic_loss_ignore_index: int = -100
    regression_loss: str = "mse"
    huber_delta: float | int = 1.0
    target_mean: float | int = 0.0
    target_std: float | int = 1.0
    target_name: str | None = None
    target_unit: str | None = None
    padding: str = "right_bottom"
    input_upsampling: float | int = 1.0
    temperature: float | int = 1.0
    class_colors: list[str] | tuple[str, ...] | None = None
    fused_upsampling: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        """Set labels and the original's names (the base class does), then derive what was left open."""
        if not CODE_KEYS.isdisjoint(kwargs):
            kwargs = without_remote_code(type(self), kwargs)
        # What the base class trusts: it names as many classes, and takes whatever torch has under a name for a type.
        _check_size("num_labels", kwargs.get("num_labels"))
        if not all(isinstance(key, int) or key.isdecimal() for key in self.id2label or ()):
            raise ValueError(
                f"id2label must name classes by their numbers, got names of {list(self.id2label or ())[:5]}."
            )
        for name, dtype in (("dtype", self.dtype), ("torch_dtype", kwargs.get("torch_dtype"))):
            if isinstance(dtype, str) and not isinstance(getattr(torch, dtype, None), torch.dtype):
                raise ValueError(f"{name} must be a type of torch such as float32, got {dtype[:80]!r}.")
        stages, layers = kwargs.pop("out_features", None), self.out_indices
        super().__post_init__(**kwargs)
        if stages is not None:
            self.out_features = stages
            if layers is not None and list(layers) != self.out_indices:
                raise ValueError(
                    f"out_features and out_indices must name the same layers, got {list(stages)} and {list(layers)}."
                )
        for name, value in list(vars(self).items()):
            if isinstance(value, tuple):  # lists, as a saved configuration is read back
                setattr(self, name, list(value))
        if self.neck is None:
            self.neck = find_necks(HEADS.get(self.decode_head))[0]
        if self.use_auxiliary_head is None:
            self.use_auxiliary_head = self.architecture == "prithvi" and self.neck not in MAP_NECKS
        if self.bands is None and self.num_channels == len(PRITHVI_BANDS):
            self.bands = list(PRITHVI_BANDS)

    @classmethod
    def from_original(cls, values: Mapping[str, Any], **overrides: Any) -> "PrithviConfig":
        """Read the `config.json` of a published Prithvi repository.

        Args:
            values (`Mapping`): Its content, or what it holds under `pretrained_cfg`. Statistics (`mean`, `std`) are
                for the image processor; fields of other code are left out.
            overrides: Fields that replace what was read.

        Returns:
            [`PrithviConfig`]: Of the encoder and the pretraining decoder.

        Raises:
            ValueError: It does not describe a Prithvi encoder.
        """
        found = values.get("pretrained_cfg", values)
        missing = [name for name in ("embed_dim", "depth", "num_heads") if found.get(name) is None]
        if missing:
            raise ValueError(
                f"Expected the config.json of a published Prithvi model, found one without {', '.join(missing)}. Give "
                "what it holds under pretrained_cfg."
            )
        return cls(**read_original_fields(found) | overrides)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as they are saved; an installed class saves nothing about code on the Hub."""
        fields = super().to_dict()
        return fields if CODE_KEYS.isdisjoint(fields) else without_remote_code(type(self), fields)

    @property
    def tubelet_size(self) -> tuple[int, int, int]:
        """Frames, rows and columns of one token, whatever form `patch_size` was given in."""
        if isinstance(self.patch_size, int):
            return 1, self.patch_size, self.patch_size
        frames, rows, columns = self.patch_size
        return frames, rows, columns

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width in pixels, whatever form `image_size` was given in."""
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        height, width = self.image_size
        return height, width

    @property
    def grid_size(self) -> tuple[int, int, int]:
        """Frames, rows and columns of tokens at `num_frames` and `image_size`."""
        frames, height, width = self.tubelet_size
        return self.num_frames // frames, self.frame_size[0] // height, self.frame_size[1] // width

    @property
    def feature_layers(self) -> list[int]:
        """Encoder layers, from 0, whose tokens the neck takes."""
        depth = self.num_hidden_layers
        if self.neck not in MAP_NECKS:
            return [depth - 1]
        quarters = [max(1, depth * quarter // 4) - 1 for quarter in (1, 2, 3, 4)]
        takes_one = self.neck == "token_map" and self.decode_head == "transpose_fcn"
        return list(self.out_indices or (quarters[-1:] if takes_one else quarters))

    # What transformers asks of the configuration of a backbone. Its `BackboneConfigMixin` counts the embeddings as
    # layer 0, where `out_indices` here counts the encoder's layers, as terratorch and timm do.

    @property
    def stage_names(self) -> list[str]:
        """Names of the encoder layers, `"stage1"` to the last."""
        return [f"stage{number}" for number in range(1, self.num_hidden_layers + 1)]

    @property
    def _out_indices(self) -> list[int]:
        """Layers, from 0, of which `PrithviBackbone` gives maps."""
        layers = sorted(set(self.feature_layers)) if self.out_indices is None else self.out_indices
        return [layer + self.num_hidden_layers if layer < 0 else layer for layer in layers]

    @property
    def out_features(self) -> list[str]:
        """Their names."""
        self.verify_out_features_out_indices()
        return [self.stage_names[layer] for layer in self._out_indices]

    @out_features.setter
    def out_features(self, names: list[str] | tuple[str, ...] | None) -> None:
        unknown = [name for name in names or () if name not in self.stage_names]
        if unknown:
            raise ValueError(f"out_features must be some of {', '.join(self.stage_names)}, got {unknown}.")
        self.out_indices = None if names is None else [self.stage_names.index(name) for name in names]

    _out_features = out_features

    def verify_out_features_out_indices(self) -> None:
        """Refuse layers that a backbone cannot give: there is no such layer, or they are not in order."""
        layers = self._out_indices
        if not layers or layers != sorted(set(layers)) or not 0 <= layers[0] <= layers[-1] < self.num_hidden_layers:
            raise ValueError(
                f"out_indices of a backbone must be some of its {self.num_hidden_layers} layers, from 0, in order and "
                f"each once, got {self.out_indices}."
            )

    @property
    def neck_channels(self) -> list[int]:
        """Channels of the maps that the neck hands to the head, in their order."""
        width = self.hidden_size * self.grid_size[0]
        if self.neck in MAP_NECKS:
            return (
                [width // 4, width // 2, width, width]
                if self.neck == "pyramid"
                else [width] * len(self.feature_layers)
            )
        return [self.neck_output_size]

    @property
    def neck_output_size(self) -> int:
        """Channels of the map that the neck hands to the heads."""
        if self.neck == "geospatial":
            return self.geospatial_neck_channels[-1]
        return self.neck_hidden_size or self.hidden_size * self.grid_size[0]

    @property
    def geospatial_neck_channels(self) -> list[int]:
        """Channels after each of the four upsamplings of the `"geospatial"` neck."""
        first = self.first_conv_channels or self.hidden_size * self.grid_size[0] // 2
        return [first // self.channel_reduction_factor**level for level in range(4)]

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike) -> dict[str, Any]:
        """Read a configuration file, which transformers does by this method, and refuse one that is ambiguous."""
        return cls._decode_special_floats(read_json(json_file))

    def validate_encoder(self) -> None:
        """Check that sizes and fractions are in range, whole patches fit the images, and each channel has one name.

        What `hidden_size` must be a multiple of, the model checks when it is built, as every model of transformers
        does: its own tests of a configuration take any width.
        """
        if self.architecture == "unet":
            plain = type(self)(use_auxiliary_head=False)
            if given := [name for name in ENCODER_FIELDS if getattr(self, name) != getattr(plain, name)]:
                values = ", ".join(f"{name} {getattr(self, name)}" for name in given)
                raise ValueError(
                    f"architecture unet has no encoder, neck or head to set, got {values}. Leave it out; "
                    "--architecture unet on the command line leaves out what a recipe says of them."
                )
        for name in _MAX_SIZES:
            _check_size(name, getattr(self, name))
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act must be an activation of transformers, got {self.hidden_act!r}.")
        for name, low, high in (
            ("mlp_ratio", 0, 1024),
            ("layer_norm_eps", 0, 1),
            ("initializer_range", 0, 1024),
            ("input_upsampling", 1 / 16, 16),
            ("temperature", 0.001, 1000),
            ("hidden_dropout_prob", 0, 1),
            ("attention_probs_dropout_prob", 0, 1),
            ("drop_path_rate", 0, 0.99),
            ("classifier_dropout", 0, 1),
        ):
            if not low <= getattr(self, name) <= high:  # nor is NaN
                raise ValueError(f"{name} must be a number from {low} to {high}, got {getattr(self, name)}.")
        patch = [1, self.patch_size, self.patch_size] if isinstance(self.patch_size, int) else self.patch_size
        if len(patch) != 3 or min(patch) < 1:
            raise ValueError(
                f"patch_size must be three positive numbers (frames, rows, columns), got {self.patch_size}."
            )
        if (not isinstance(self.image_size, int) and len(self.image_size) != 2) or min(self.grid_size) < 1:
            raise ValueError(
                f"image_size {self.image_size} with {self.num_frames} frame(s) must hold at least one patch of "
                f"{self.tubelet_size}."
            )
        if self.num_frames % self.tubelet_size[0]:
            raise ValueError(
                f"num_frames ({self.num_frames}) must be a multiple of patch_size[0] ({self.tubelet_size[0]})."
            )
        if self.bands is not None and not len(self.bands) == len(set(self.bands)) == self.num_channels:
            raise ValueError(
                f"bands must be {self.num_channels} distinct names (num_channels), got {len(self.bands)}: "
                f"{list(self.bands)[:20]}."
            )
        if not set(self.coords_encoding) <= COORDINATE_ARGUMENTS.keys():
            raise ValueError(
                f"coords_encoding must be some of {', '.join(COORDINATE_ARGUMENTS)}, got {list(self.coords_encoding)}."
            )
        if "time" in self.coords_encoding and self.tubelet_size[0] != 1:
            raise ValueError(
                f"coords_encoding with time needs patch_size[0] = 1, tokens of one frame, got {self.tubelet_size[0]}."
            )
        if not 0 <= self.mask_ratio < 1:
            raise ValueError(f"mask_ratio must be from 0 to below 1, got {self.mask_ratio}.")

    def validate_heads(self) -> None:
        """Check that neck, heads and losses are known and fit each other and the layers of the encoder."""
        registries: dict[str, Mapping[str, Any] | tuple[str, ...]] = {
            "architecture": ARCHITECTURES,
            "neck": NECKS,
            "decode_head": HEADS,
            "loss": LOSSES,
            "regression_loss": REGRESSION_LOSSES,
        }
        for name, registry in registries.items():
            if getattr(self, name) not in registry:
                raise ValueError(f"{name} must be one of {', '.join(registry)}, got {getattr(self, name)!r}.")
        if self.neck == "geospatial" and self.neck_output_size < 1:
            raise ValueError(
                f"first_conv_channels ({self.geospatial_neck_channels[0]}) divided three times by "
                f"channel_reduction_factor ({self.channel_reduction_factor}) must leave at least one channel, got "
                f"{self.geospatial_neck_channels}."
            )
        necks = find_necks(HEADS[self.decode_head])
        if self.neck not in necks:
            raise ValueError(
                f"neck must be one of {', '.join(necks)} with the decode_head {self.decode_head}, got {self.neck!r}."
            )
        layers, count = self.feature_layers, 4 if self.neck == "pyramid" else 1
        if self.neck == "token_map" and self.decode_head == "upernet":
            count = max(1, len(layers))  # as many maps as there are layers
        if len(layers) != count or not 0 <= min(layers) <= max(layers) < self.num_hidden_layers:
            raise ValueError(
                f"out_indices must be {count} of the {self.num_hidden_layers} layers, from 0, with the neck "
                f"{self.neck}, got {layers}."
            )
        if self.use_auxiliary_head and self.neck in MAP_NECKS:
            raise ValueError(f"use_auxiliary_head must be False with the neck {self.neck}, a list of maps.")
        if self.decode_head == "unet" and len(self.unet_channels) != count:
            raise ValueError(f"unet_channels must be {count} numbers, got {list(self.unet_channels)}.")
        if self.padding not in ("right_bottom", "both_sides"):
            raise ValueError(f"padding must be right_bottom or both_sides, got {self.padding!r}.")

    def validate_labels(self) -> None:
        """Check what the losses weigh, the classes, and what the values of a regression are."""
        for name, least in (
            ("focal_gamma", 0),
            ("auxiliary_loss_weight", 0),
            ("huber_delta", _LEAST_SCALE),
            ("target_std", _LEAST_SCALE),
            ("target_mean", -sys.float_info.max),
        ):
            if not least <= getattr(self, name) < math.inf:  # nor is NaN
                raise ValueError(f"{name} must be a finite number of at least {least:g}, got {getattr(self, name)}.")
        labels = cast("dict[int, str]", self.id2label)
        texts = [*labels.values(), self.target_name or "", self.target_unit or ""]
        if broken := [text for text in texts if _NOT_TEXT.search(text)]:
            raise ValueError(
                "id2label, target_name and target_unit must hold text without control characters, got "
                f"{ascii(broken[0])[:80]}."
            )
        numbers = sorted(labels)
        if numbers != list(range(len(numbers))):
            raise ValueError(f"id2label must name the classes 0, 1, 2 and so on, got names of {numbers[:20]}.")
        for name in ("class_weights", "class_colors"):
            values = getattr(self, name)
            if values is not None and len(values) != self.num_labels:
                raise ValueError(
                    f"{name} must have one entry per class ({self.num_labels}), got {len(values)}: {values}."
                )
        if self.class_weights is not None and not (
            min(self.class_weights) >= 0 and 0 < sum(self.class_weights) < math.inf
        ):
            raise ValueError(f"class_weights must be finite, not negative nor all zero, got {self.class_weights}.")
        for color in self.class_colors or ():
            if not _HEX_COLOR.fullmatch(color):
                raise ValueError(f"class_colors must be written '#rrggbb', got {color!r}.")

    def validate_sizes(self) -> None:
        """Check, last of all, that the model is of a size that can be meant."""
        width, tokens = self.hidden_size, self.grid_size[0]
        count = self.num_hidden_layers * width**2 * (4 + 2 * self.mlp_ratio)
        count += width * self.num_channels * math.prod(self.tubelet_size)
        if self.neck in MAP_NECKS:
            widths = [2 * width * tokens, *self.unet_channels, self.head_hidden_size, *self.classifier_channels]
            count += 16 * sum(channels**2 for channels in widths)
        elif self.neck == "conv_transpose":
            count += 4 * (width * tokens + 3 * self.neck_output_size) * self.neck_output_size
        elif self.neck == "geospatial":
            first = self.geospatial_neck_channels[0]
            count += 4 * first * (width * tokens + 3 * first * self.num_convs_per_upscale)
        convs = self.head_num_convs + self.auxiliary_head_num_convs * bool(self.use_auxiliary_head)
        count += 9 * self.head_hidden_size * (2 * self.neck_output_size + convs * self.head_hidden_size)
        if (
            count > _MAX_PARAMETERS
            or max(self.frame_size) > _MAX_SIDE
            or width * math.prod(self.grid_size) > _MAX_POSITIONS
        ):
            raise ValueError(
                f"the sizes must describe a model of at most {_MAX_PARAMETERS:,} parameters for images of at most "
                f"{_MAX_SIDE:,} pixels and {_MAX_POSITIONS // width:,} tokens, got about {count:.3g} parameters, "
                f"{max(self.frame_size):,} pixels and {math.prod(self.grid_size):,} tokens: check hidden_size, "
                "num_hidden_layers, num_frames, image_size, and the channels of neck and heads."
            )


def _check_size(name: str, value: object) -> None:
    """Refuse a size that is not an integer from 1 to its limit; None is left to the types of the fields."""
    if isinstance(value, list | tuple) and len(value) <= 2**6:
        for item in value:
            _check_size(name, item)
    elif value is not None and not (isinstance(value, int) and 1 <= value <= _MAX_SIZES[name]):
        raise ValueError(f"{name} must be an integer from 1 to {_MAX_SIZES[name]:,}, got {value!r}.")


def make_unique_names(id2label: Mapping[int, str]) -> dict[int, str]:
    """Name each class so that no two share a name, nor one the name of no data: "crop" becomes "crop (3)" there."""
    names = {index: str(id2label[index]) for index in sorted(id2label)}
    while doubtful := {name for name, count in Counter([*names.values(), NODATA_NAME]).items() if count > 1}:
        names = {index: f"{name} ({index})" if name in doubtful else name for index, name in names.items()}
    return names


def name_counts(counts: np.ndarray, id2label: Mapping[int, str]) -> dict[str, int]:
    """Name pixel counts by class index, (256,) with 255 for no data: in class order, and last "no data".

    Every pixel is in one of them: names are made unique, and a class that has pixels but no name is "LABEL_3".
    """
    nameless = {int(index): f"LABEL_{index}" for index in np.flatnonzero(counts[:-1]) if index not in id2label}
    named = {name: int(counts[index]) for index, name in make_unique_names({**nameless, **id2label}).items()}
    return {**named, NODATA_NAME: int(counts[-1])}


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """Read the JSON object of a configuration file; of two values for one key, neither is chosen."""

    def make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
            raise ValueError(f"Expected {path} to give each key once, found {twice[:80]!r} twice. Delete one of them.")
        return values

    text = Path(path).read_text(encoding="utf-8")
    brackets = re.findall(r"[\[\]{}]", re.sub(r'"(\\.|[^"\\])*"', "", text))
    if max(accumulate(1 if bracket in "[{" else -1 for bracket in brackets), default=0) > _MAX_NESTING:
        raise ValueError(f"Expected {path} to be a configuration, found values nested too deep in it.")
    content = json.loads(text, object_pairs_hook=make_object)
    if not isinstance(content, dict):
        raise ValueError(f"Expected {path} to hold a JSON object, found {type(content).__name__}.")
    return content


def is_exported(name: str) -> bool:
    """Whether a folder holds a graph of `prithvi-hf export` in place of weights."""
    return Path(name, EXPORT_FILE).is_file()


def check_has_weights(name: str) -> None:
    """Refuse an exported folder, which only predicts.

    Raises:
        ValueError: It holds a graph in place of weights.
    """
    if is_exported(name):
        raise ValueError(
            f"Expected a model with weights, found that {name} is an exported one, which `prithvi-hf predict` and "
            "`evaluate` take. Name the folder that it was made of."
        )


def check_model_source(name: str) -> None:
    """Refuse what is neither the folder of a model nor a repository that the Hub, asked once, knows.

    Only a name of the form owner/name that is not in the cache is asked for; a mistyped path would otherwise be looked
    for on the Hub again and again.

    Raises:
        ValueError: There is no such model.
    """
    if not name:
        raise ValueError("Expected the folder of a model or a Hub id (owner/name), found no model name: give one.")
    folder = Path(name)
    if folder.is_dir():
        if not (folder / CONFIG_FILE).is_file():
            raise ValueError(f"{name} holds no model (no config.json): name a folder written by save_pretrained.")
        return
    try:
        validate_repo_id(name)
        may_be_id = name.count("/") == 1 and not folder.exists()
    except HFValidationError:
        may_be_id = False
    if not may_be_id:
        raise ValueError(f"There is no model folder {name}, and the name is not a Hub id (owner/name) either.")
    if isinstance(try_to_load_from_cache(name, CONFIG_FILE), str):
        return
    try:
        url = hf_hub_url(name, CONFIG_FILE)
        status = get_session().head(url, headers=build_hf_headers(), timeout=_HUB_TIMEOUT).status_code
        found = {401: "none that may be read without a token", 403: "none that may be read", 404: "none"}.get(status)
    except Exception as error:  # of the HTTP library of huggingface_hub's version
        found = f"no connection to it ({str(error).strip() or type(error).__name__})"
    if found is not None:
        raise ValueError(
            f"There is no model folder {name} in {Path.cwd()}. Expected a repository {name} with a config.json on the "
            f"Hub then, found {found}. Check the path, or the name of the repository."
        )
