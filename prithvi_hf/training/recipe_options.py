# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The options of a recipe: one dataclass for the model, one for the data. `recipe.py` reads and uses them."""

import json
import os
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class ModelArguments:
    """The model: where it starts from and, where it starts from nothing, its architecture.

    Every field but `model`, `attn_implementation` and `freeze_backbone` is the field of `PrithviConfig` of the same
    name; what is left out comes from the starting model or from `PrithviConfig`'s defaults.
    """

    model: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id to start from: a converted backbone or a fine-tuned model; random weights "
            "without it."
        },
    )
    attn_implementation: str | None = field(default=None, metadata={"help": "sdpa, eager or flash_attention_2."})
    image_size: int | None = field(
        default=None, metadata={"help": "Pixels along a side that the position table is made for."}
    )
    patch_size: list[int] | None = field(default=None, metadata={"help": "Frames, rows and columns of a token."})
    hidden_size: int | None = field(default=None, metadata={"help": "Width of the encoder, a multiple of 16."})
    num_hidden_layers: int | None = field(
        default=None,
        metadata={"help": "Layers of the encoder; fewer than the starting model has keeps its first ones."},
    )
    num_attention_heads: int | None = field(default=None, metadata={"help": "Attention heads."})
    mlp_ratio: float | None = field(default=None, metadata={"help": "Width of the MLP over hidden_size."})
    hidden_dropout_prob: float | None = field(default=None, metadata={"help": "Dropout of the encoder, 0 to 1."})
    freeze_backbone: bool = field(
        default=False, metadata={"help": "Leave the encoder as it starts and train neck and heads alone."}
    )
    neck: str | None = field(default=None, metadata={"help": "conv_transpose, or geospatial."})
    neck_hidden_size: int | None = field(
        default=None, metadata={"help": "Channels of the neck; hidden_size times the frames by default."}
    )
    first_conv_channels: int | None = field(
        default=None, metadata={"help": "Channels after the first enlargement of the geospatial neck."}
    )
    channel_reduction_factor: int | None = field(
        default=None, metadata={"help": "The geospatial neck divides its channels by it at each enlargement."}
    )
    num_convs_per_upscale: int | None = field(
        default=None, metadata={"help": "Convolutions after each enlargement of the geospatial neck."}
    )
    decode_head: str | None = field(default=None, metadata={"help": "fcn."})
    head_hidden_size: int | None = field(default=None, metadata={"help": "Channels of the heads."})
    head_num_convs: int | None = field(default=None, metadata={"help": "Convolutions of the decode head."})
    use_auxiliary_head: bool | None = field(default=None, metadata={"help": "Train with an auxiliary head."})
    auxiliary_head_num_convs: int | None = field(
        default=None, metadata={"help": "Convolutions of the auxiliary head."}
    )
    auxiliary_loss_weight: float | None = field(default=None, metadata={"help": "Weight of the auxiliary loss."})
    classifier_dropout: float | None = field(default=None, metadata={"help": "Channel dropout of the heads, 0 to 1."})
    loss: str | None = field(
        default=None,
        metadata={"help": "cross_entropy, dice (the original's), masked_dice, focal or cross_entropy+masked_dice."},
    )
    focal_gamma: float | None = field(
        default=None, metadata={"help": "How much the focal loss plays down what is easy; 0 is cross entropy."}
    )
    class_weights: list[float] | None = field(default=None, metadata={"help": "Weight of each class in the loss."})

    def __post_init__(self) -> None:
        """Resolve `~` once, for everything that reads the starting model."""
        if self.model is not None:
            self.model = os.path.expanduser(self.model)


@dataclass
class DataArguments:
    """The data: which data set, how its files are read, and how chips are cut.

    What is left out of the options of the image (bands, scale, statistics, nodata) comes from the image processor of
    the starting model, whose weights expect it, or else from `PrithviImageProcessor`'s defaults.
    """

    dataset: str = field(
        default="geotiff_folder",
        metadata={
            "help": "sen1floods11, hls_burn_scars, hls_irrigation_scenes, multi_temporal_crop, or geotiff_folder for "
            "your own."
        },
    )
    data_dir: str | None = field(
        default=None, metadata={"help": "Folder of the data set; without it a public data set is downloaded."}
    )
    dataset_options: dict | str | None = field(
        default=None, metadata={"help": "Options of the data set builder, as JSON on the command line."}
    )
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_split: str = field(default="validation", metadata={"help": "Split that chooses the best checkpoint."})
    test_splits: list[str] = field(
        default_factory=lambda: ["test"],
        metadata={"help": "Splits evaluated at the end; each gives its name to its metrics (test_mean_iou)."},
    )
    class_names: list[str] | None = field(default=None, metadata={"help": "Name of each class, in order."})
    class_colors: list[str] | None = field(default=None, metadata={"help": "Colour of each class, '#rrggbb'."})
    num_frames: int | None = field(
        default=None,
        metadata={"help": "Dates in one input; those of a fine-tuned starting model by default, or else 1."},
    )
    frame_order: Literal["time_major", "original_crop"] | None = field(
        default=None,
        metadata={"help": "original_crop: bands and dates mixed as the published crop checkpoint was trained."},
    )
    bands: list[str] | None = field(
        default=None,
        metadata={
            "help": "Names of the bands that the model takes. A starting model's weights follow by name; a band that "
            "it lacks starts from the mean of its bands."
        },
    )
    band_indices: list[int] | None = field(
        default=None, metadata={"help": "0-based places of the bands in files without band descriptions."}
    )
    rescale_factor: float | None = field(
        default=None,
        metadata={
            "help": "File values are multiplied by it; 1 by default. 0.0001 makes reflectance of most products."
        },
    )
    rescale_offset: float | None = field(default=None, metadata={"help": "Added after rescale_factor; 0 by default."})
    image_mean: list[float] | None = field(
        default=None,
        metadata={"help": "Mean of each band after scaling; Prithvi's pretraining statistics by default."},
    )
    image_std: list[float] | None = field(default=None, metadata={"help": "Standard deviation of each band."})
    nodata_value: float | None = field(default=None, metadata={"help": "File value that means no data."})
    nodata_replacement: float | None = field(
        default=None, metadata={"help": "File value put in place of no data; 0 by default."}
    )
    nodata_rule: Literal["all", "any"] | None = field(
        default=None,
        metadata={"help": "Whether all bands of a pixel (the default) or any must be no data for it to be no data."},
    )
    ignore_values: list[int] | None = field(default=None, metadata={"help": "Mask values that are not a class."})
    do_reduce_labels: bool = field(default=False, metadata={"help": "Masks hold 1..n for classes 0..n-1, 0 is none."})
    mask_nodata_labels: bool = field(default=False, metadata={"help": "Ignore the labels of pixels without data."})
    crop_size: int | None = field(
        default=None, metadata={"help": "Side of a training crop in pixels; the model's image size by default."}
    )
    augmentation: Literal["none", "hflip", "d4"] = field(
        default="hflip", metadata={"help": "hflip: mirror half of the crops; d4: one of the eight turns and mirrors."}
    )
    decoded_cache: bool = field(
        default=True,
        metadata={
            "help": "Decode the needed bands of training and validation chips once, into a file that all processes "
            "share, and not crop by crop. Its size is said first: pixels times bands, not compressed."
        },
    )
    decoded_cache_dir: str | None = field(
        default=None,
        metadata={"help": "Folder for the decoded chips; that of the cache of `datasets` by default."},
    )
    normalize_on_device: bool = field(
        default=True,
        metadata={"help": "Scale and normalise training crops on the model's device, not in the loading processes."},
    )
    check_data: bool = field(
        default=True, metadata={"help": "Read every chip once before training, to stop at a bad file and not later."}
    )
    num_sample_predictions: int = field(
        default=4, metadata={"help": "Validation chips drawn with their predictions at the end."}
    )
    published: dict | str | None = field(
        default=None,
        metadata={
            "help": "Published figures in percent by split, shown beside measured ones: "
            "{test: {chips: 90, mean_iou: 88.68, iou: {water: 80.46}}}; as JSON on the command line."
        },
    )

    def __post_init__(self) -> None:
        """Read options that came as JSON, and check class names and published figures."""
        for name in ("dataset_options", "published"):
            value = getattr(self, name)
            if isinstance(value, str):
                setattr(self, name, _read_json_object(name, value))
        names = self.class_names or []
        doubles = sorted({name for name in names if names.count(name) > 1})
        if doubles:
            raise ValueError(f"Expected class_names that differ, found {', '.join(doubles)} more than once.")
        _check_published(self.published or {})


def _read_json_object(name: str, text: str) -> dict[str, Any]:
    """An option's JSON object."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"""Expected --{name} as a JSON object such as '{{"name": "value"}}', found {text!r}.""")
    return content


_PUBLISHED_METRICS = (
    *("mean_iou", "mean_accuracy", "overall_accuracy", "mean_f1"),
    *("chips", "iou"),
)


def _check_published(published: dict[str, Any]) -> None:
    """Raise unless published figures are percents by split and name, those of single classes under `iou`."""
    for split, figures in published.items():
        classes = figures.get("iou", {}) if isinstance(figures, dict) else None
        if not isinstance(classes, dict):
            raise ValueError(
                "Expected published as {split: {metric: percent, iou: {class: percent}}}, found "
                f"{figures!r} for {split}."
            )
        unknown = [name for name in figures if name not in _PUBLISHED_METRICS]
        if unknown:
            raise ValueError(
                f"Expected published figures of {split} under {', '.join(_PUBLISHED_METRICS)}, found "
                f"{', '.join(map(str, unknown))}."
            )
        values = [*classes.values(), *(value for name, value in figures.items() if name not in ("iou", "chips"))]
        wrong = [value for value in values if not (type(value) in (int, float) and 0 <= value <= 100)]
        if wrong:
            raise ValueError(f"Expected published figures of {split} in percent, 0 to 100, found {wrong}.")


__all__ = ["DataArguments", "ModelArguments"]
