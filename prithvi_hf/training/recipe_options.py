# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The options of a recipe: one dataclass for the model, one for the data. `recipe.py` reads and uses them."""
# ruff: noqa: RUF009 - the function calls among the defaults make fields

import json
import os
import re
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from prithvi_hf.data.augmentations import RadiometricJitter
from prithvi_hf.data.builders import DATASETS
from prithvi_hf.data.groups import GROUPINGS, check_group_by
from prithvi_hf.models.prithvi.adapter_prithvi import TARGETS
from prithvi_hf.models.prithvi.bands_prithvi import parse_band_map
from prithvi_hf.models.prithvi.decode_heads_prithvi import HEADS, NECKS
from prithvi_hf.models.prithvi.loss_prithvi import LOSSES, REGRESSION_LOSSES
from prithvi_hf.rasters.products import PIXEL_KINDS
from prithvi_hf.training.training_args import TASK_METRICS


CLASS_FIGURES = {"segmentation": "iou", "classification": "f1"}
"""What tables show of each class, by task; its list among the metrics is `per_category_...`."""
CLASS_TITLES = {"iou": "IoU", "f1": "F1"}
PUBLISHED_FIGURES = {
    task: [*metrics, "chips", *CLASS_FIGURES.get(task, "").split()] for task, metrics in TASK_METRICS.items()
}
"""What `published` may hold of a split: means in percent (of a regression in their unit), the number of chips, and one
figure of each class."""

_MAP_OPTIONS = (
    *("neck", "neck_hidden_size", "first_conv_channels", "channel_reduction_factor", "num_convs_per_upscale"),
    *("decode_head", "out_indices", "unet_channels", "classifier_channels", "padding", "input_upsampling"),
    *("head_hidden_size", "head_num_convs", "use_auxiliary_head", "auxiliary_head_num_convs"),
    *("auxiliary_loss_weight",),
)
_MASK_OPTIONS = ("ignore_values", "label_map", "do_reduce_labels")
_VALUE_OPTIONS = (
    *("regression_loss", "huber_delta", "target_mean", "target_std", "target_name", "target_unit"),
    *("target_rescale_factor", "target_rescale_offset", "target_nodata_value", "target_range"),
)
REFUSED_OPTIONS: dict[str, tuple[str, ...]] = {
    "segmentation": ("problem_type", *_VALUE_OPTIONS),
    "classification": (
        "architecture",
        *_MAP_OPTIONS,
        *_MASK_OPTIONS,
        "mask_nodata_labels",
        *("class_colors", "copy_paste"),
        *_VALUE_OPTIONS,
    ),
    "regression": (
        *("class_names", "class_colors", "class_weights", "loss", "focal_gamma", "problem_type"),
        *_MASK_OPTIONS,
        *("balance_classes", "copy_paste"),
    ),
}
"""Options that mean nothing in a task, by task: they are refused, so that none is overlooked."""

MAIN_OPTIONS = {
    "the run": "config output_dir model resume_from_checkpoint do_train do_predict seed seeds folds hp_search use_cpu",
    "the data": "task dataset data_dir dataset_options class_names train_split eval_split test_splits num_frames",
    "the files": "bands band_map band_names band_indices rescale_factor rescale_offset image_mean image_std "
    "nodata_value ignore_values label_map do_reduce_labels",
    "the model and its loss": "architecture freeze_backbone adapter adapter_rank neck loss class_weights problem_type "
    "regression_loss target_name target_unit",
    "training crops": "crop_size augmentation band_gain band_offset band_noise band_dropout frame_dropout "
    "balance_classes copy_paste custom_augmentation",
    "the training": "num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps learning_rate "
    "warmup_steps weight_decay layer_decay optim lr_scheduler_type ema_decay early_stopping_patience bf16 "
    "activation_checkpointing dataloader_num_workers",
    "evaluation and results": "eval_steps save_steps save_total_limit eval_window group_by logging_steps push_to_hub",
}
"""Options that `--help` shows, by heading; `--help_all` shows every other one too."""


HELD_OUT = "held_out"
"""Split of the chips that a fold leaves out of its training."""
_NOT_CLASSES = ("", "nodata", "ignore", "ignored")  # whatever is between the letters


def _option(text: str, default: Any = None) -> Any:
    """Make a field with its help text."""
    return field(default=default, metadata={"help": text})


@dataclass
class EncoderArguments:
    """The encoder: where it starts from and, where it starts from nothing, its architecture."""

    model: str | None = _option(
        "Folder or Hub id to start from: a converted backbone, a masked autoencoder or a fine-tuned model; without it "
        "the weights are random."
    )
    attn_implementation: str | None = _option("sdpa, eager or flash_attention_2.")
    image_size: int | None = _option("Pixels along a side that the position table is made for.")
    patch_size: list[int] | None = _option("Frames, rows and columns of a token.")
    hidden_size: int | None = _option("Width of the encoder, a multiple of 16.")
    num_hidden_layers: int | None = _option(
        "Layers of the encoder; fewer than the starting model has keeps its first ones."
    )
    num_attention_heads: int | None = _option("Attention heads.")
    mlp_ratio: float | None = _option("Width of the MLP over hidden_size.")
    hidden_dropout_prob: float | None = _option("Dropout of the encoder, 0 to 1.")
    drop_path_rate: float | None = _option(
        "Probability that training leaves out the last layer for a sample, 0 to 0.99; less in the layers before it."
    )
    coords_encoding: list[str] | None = _option(
        "What the encoder takes besides the image: time, location, both or, as [] (no word on the command line), "
        "nothing. By default what the starting model takes, as far as the training chips have dates and places."
    )

    def __post_init__(self) -> None:
        """Resolve `~` once, for everything that reads the starting model."""
        if self.model is not None:
            self.model = os.path.expanduser(self.model)


@dataclass
class ModelArguments(EncoderArguments):
    """The model: where it starts from and, where it starts from nothing, its architecture.

    Every field but `model`, `attn_implementation`, what is frozen and the adapter is the field of
    `PrithviConfig` of the same name; what is left out comes from the starting model or from the defaults there.
    """

    architecture: str | None = _option(
        "prithvi, or unet: a plain U-Net of 2 million parameters from random weights, the baseline to compare with."
    )
    freeze_backbone: bool = _option("Leave the encoder as it starts and train neck and heads alone.", default=False)
    train_norms: bool = _option("With freeze_backbone: train the encoder's normalisations too.", default=False)
    adapter: Literal["lora", "dora"] | None = _option(
        "Leave the encoder as it starts and train low-rank changes of its layers, and neck and heads; what is saved "
        "is a small file beside --model. lora, or dora, which is slower and also learns the length of each row."
    )
    adapter_rank: int | None = _option("Rank of the changes, from 1 to hidden_size; 8 by default.")
    adapter_alpha: float | None = _option(
        "They are multiplied by adapter_alpha / adapter_rank; above 0, twice the rank by default."
    )
    adapter_dropout: float | None = _option("Dropout of what goes into them, 0 to below 1; 0 by default.")
    adapter_targets: list[str] | None = _option(
        f"What is changed in every layer: {', '.join(TARGETS)}; attention and mlp by default."
    )
    neck: str | None = _option(f"Upsamples the tokens to a map: {', '.join(NECKS)}.")
    neck_hidden_size: int | None = _option("Channels of the neck; hidden_size times the frames by default.")
    first_conv_channels: int | None = _option("Channels after the first upsampling of the geospatial neck.")
    channel_reduction_factor: int | None = _option(
        "The geospatial neck divides its channels by it at each upsampling."
    )
    num_convs_per_upscale: int | None = _option("Convolutions after each upsampling of the geospatial neck.")
    decode_head: str | None = _option(f"Gives the class scores: {', '.join(HEADS)}.")
    out_indices: list[int] | None = _option("Layers, from 0, whose tokens the necks pyramid and token_map take.")
    unet_channels: list[int] | None = _option("Channels of the blocks of the head unet.")
    classifier_channels: list[int] | None = _option("3x3 convolutions before the classifier of heads other than fcn.")
    padding: str | None = _option("right_bottom, or both_sides as terratorch pads images.")
    input_upsampling: float | None = _option(
        "What images are upsampled by inside the model; the map has the image's size. 1.75 makes 224 of 128 pixels."
    )
    head_hidden_size: int | None = _option("Channels of the heads.")
    head_num_convs: int | None = _option("Convolutions of the decode head.")
    use_auxiliary_head: bool | None = _option("Train with an auxiliary head.")
    auxiliary_head_num_convs: int | None = _option("Convolutions of the auxiliary head.")
    auxiliary_loss_weight: float | None = _option("Weight of the auxiliary loss.")
    classifier_dropout: float | None = _option("Channel dropout of the heads, 0 to 1.")
    loss: str | None = _option(
        f"{', '.join(LOSSES)}; masked_dice leaves ignored pixels out where the original's dice does not."
    )
    focal_gamma: float | None = _option(
        "How much less well-classified pixels count in the focal loss; 0 is cross entropy."
    )
    class_weights: list[float] | None = _option("Weight of each class in the loss.")
    problem_type: Literal["single_label_classification", "multi_label_classification"] | None = _option(
        "Of task classification: whether a chip has one class (the default) or any number of them."
    )
    regression_loss: str | None = _option(f"{', '.join(REGRESSION_LOSSES)}, of standardised values.")
    huber_delta: float | None = _option("Error from which on huber grows linearly, in standard deviations.")
    target_mean: float | None = _option("Mean of the values; measured on the training split by default.")
    target_std: float | None = _option("Their standard deviation; measured on the training split by default.")
    target_name: str | None = _option("What the values are, such as canopy height.")
    target_unit: str | None = _option("Their unit, such as m.")

    def __post_init__(self) -> None:
        """Check that options of an adapter come with one, and that it is not frozen."""
        super().__post_init__()
        options = ("adapter_rank", "adapter_alpha", "adapter_dropout", "adapter_targets")
        given = [name for name in options if getattr(self, name) is not None]
        if self.adapter is None and given:
            raise ValueError(
                f"Expected adapter: lora or dora with {', '.join(given)}, found none. Name one, or leave it out."
            )
        if self.train_norms and not self.freeze_backbone:
            raise ValueError("Expected train_norms with freeze_backbone, found it alone: all of the encoder trains.")
        if self.adapter is not None and self.freeze_backbone:
            raise ValueError(
                "Expected an adapter or freeze_backbone, found both. An adapter leaves the encoder frozen."
            )
        if self.adapter is not None and self.model is None:
            raise ValueError(
                "Expected --model with an adapter, found none: it changes a pretrained encoder, which stays frozen, "
                "and random weights would never train. Name the model to start from, or leave the adapter out."
            )

    @property
    def is_multi_label(self) -> bool:
        """Whether an image may have several classes."""
        return self.problem_type == "multi_label_classification"


@dataclass
class ImageArguments:
    """How files are read, and how training examples are cut.

    What is left out of the options of the image (bands, scale, statistics, nodata) comes from the image processor of
    the starting model, whose weights expect it, or else from `PrithviImageProcessor`'s defaults.
    """

    first_day_of_year: Literal[0, 1] | None = _option(
        "What 1 January counts as where the encoder takes dates; as the starting model was trained by default, or 0."
    )
    num_frames: int | None = _option("Dates in one input; those of a fine-tuned starting model by default, or else 1.")
    bands: list[str] | None = _option(
        "Names of the bands that the model takes. A starting model's weights follow by name; a band that "
        "it lacks starts from the mean of its bands."
    )
    band_indices: list[int] | None = _option(
        "0-based positions of the bands in a file; like band_map and band_names they override its descriptions."
    )
    band_map: dict | str | None = _option(
        "Which band of a file to use for a band: a description or code in the file, or a 0-based position; "
        "NIR_NARROW=B08 ... on the command line, {NIR_NARROW: B08} in a recipe."
    )
    band_names: list[str] | None = _option("Names of all bands of a file, in its order.")
    rescale_factor: float | None = _option(
        "File values are multiplied by it; 1 by default. 0.0001 makes reflectance of most products."
    )
    rescale_offset: float | None = _option("Added after rescale_factor; 0 by default.")
    image_mean: list[float] | None = _option(
        "Mean of each band after scaling; Prithvi's pretraining statistics by default."
    )
    image_std: list[float] | None = _option("Standard deviation of each band.")
    nodata_value: float | None = _option("File value that means nodata.")
    nodata_replacement: float | None = _option("File value that replaces nodata; 0 by default.")
    nodata_rule: Literal["all", "any"] | None = _option(
        "Whether a pixel is nodata where all of its bands are (the default), or any."
    )
    crop_size: int | None = _option("Side of a training crop in pixels; the model's image size by default.")
    augmentation: Literal["none", "hflip", "d4"] = _option(
        "hflip: mirror half of the crops; d4: one of the eight turns and mirrors.", default="hflip"
    )

    def __post_init__(self) -> None:
        """Read the option that came as pairs, and check numbers that would be taken for "not given"."""
        self.band_map = parse_band_map(self.band_map)
        for name in ("num_frames", "crop_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"Expected {name} of at least 1, found {value}. Leave it out for the default.")


@dataclass
class DataArguments(ImageArguments):
    """The data: which dataset, how its files are read, and how chips are cut."""

    task: Literal["segmentation", "classification", "regression"] = _option(
        "What is learned: a class for each pixel, a class or several for each chip, or a value for each pixel.",
        default="segmentation",
    )
    dataset: str = _option(
        f"{', '.join(DATASETS)}; geotiff_folder is for your own, geotiff_classification where a chip has a label, "
        "parquet for a folder of Parquet shards with embedded GeoTIFFs; or such a dataset of the Hub, owner/name.",
        default="geotiff_folder",
    )
    data_dir: str | None = _option("Folder of the dataset; without it a public dataset is downloaded.")
    dataset_options: dict | str | None = _option("Options of the dataset builder, as JSON on the command line.")
    train_split: str = _option("Split to train on.", default="train")
    eval_split: str = _option("Split that chooses the best checkpoint.", default="validation")
    test_splits: list[str] = field(
        default_factory=lambda: ["test"],
        metadata={"help": "Splits evaluated at the end; each gives its name to its metrics (test_mean_iou)."},
    )
    class_names: list[str] | None = _option("Name of each class, in order.")
    class_colors: list[str] | None = _option("Colour of each class, '#rrggbb'.")
    frame_order: Literal["time_major", "original_crop"] | None = _option(
        "original_crop: bands and dates mixed as the published crop checkpoint was trained."
    )
    ignore_values: list[int] | None = _option("Mask values that are not a class.")
    label_map: dict | str | None = _option(
        "Class number of mask values that are not class numbers, as JSON on the command line: {255: 1} for masks of 0 "
        "and 255."
    )
    do_reduce_labels: bool = _option("Masks hold 1..n for the classes 0..n-1, and 0 is not a class.", default=False)
    mask_nodata_labels: bool = _option("Ignore the labels of pixels without data.", default=False)
    target_rescale_factor: float | None = _option("Numbers of a regression's files times it are its values.")
    target_rescale_offset: float | None = _option("Added after target_rescale_factor; 0 by default.")
    target_nodata_value: float | None = _option("Number in these files that means no value, beside tag and NaN.")
    target_range: list[float] | None = _option("Smallest and largest value that counts; others are left out.")
    decoded_cache: bool = _option(
        "Decode the needed bands of training and validation chips once, into a file that all processes "
        "share, and not crop by crop. Its size is printed first: pixels times bands, not compressed.",
        default=True,
    )
    decoded_cache_dir: str | None = _option(
        "Folder for the decoded chips; that of the cache of `datasets` by default."
    )
    streaming: bool = _option(
        "Read chips from Parquet shards, of a folder or of the Hub, or from their public place as they are needed: "
        "nothing is downloaded or decoded ahead, and each chip is checked when it is read.",
        default=False,
    )
    shuffle_buffer: int = _option(
        "Chips that each loading process holds and mixes with streaming; shards come in another order in each epoch.",
        default=1000,
    )
    normalize_on_device: bool = _option(
        "Scale and normalise training crops on the model's device, not in the loading processes; those whose values "
        "are augmented are always normalised there.",
        default=True,
    )
    band_gain: list[float] | None = _option(
        "Multiply training crops at random: spread of a gain common to all bands and, second, of one more of each "
        "band; 0.2 gives factors from exp(-0.2) to exp(0.2)."
    )
    band_offset: list[float] | None = _option(
        "Add to training crops at random: spread, in units of image_std (reflectance in most recipes), of what all "
        "bands have in common and, second, of each band; 0.01 gives -0.01 to 0.01."
    )
    band_noise: float = _option(
        "Standard deviation of the noise of each value of training crops, in units of image_std.", default=0.0
    )
    band_dropout: float = _option(
        "Probability of each band of a training crop to be replaced by its mean.", default=0.0
    )
    frame_dropout: float = _option(
        "Probability that one of the dates of a training crop is without data.", default=0.0
    )
    custom_augmentation: str | None = _option(
        "Your own augmentation of training crops, module.function: a function of image, mask and numpy's random "
        "numbers that returns image and mask."
    )
    balance_classes: bool = _option(
        "Place training crops around pixels of all classes alike; an epoch is as many crops as there are chips.",
        default=False,
    )
    copy_paste: float = _option(
        "Probability that the pixels of one class of another crop are written over a training crop.", default=0.0
    )
    check_data: Literal["all", "sample", "none", "true", "false", True, False] = field(
        default="all",
        metadata={
            "help": "all: read every chip once before training, to stop at a bad file and not later; chips that an "
            "earlier run checked and that are unchanged are not read again. sample: 500 chips of each split. none: no "
            "chip. true and false mean all and none.",
            "aliases": ["--check"],
        },
    )
    group_by: str | None = _option(
        f"Which chips belong together, for folds, intervals and tables: {', '.join(GROUPINGS)}, a column such as "
        "country, a .csv file of chip and group, or a regular expression for ids with (?P<group>...)."
    )
    data_license: str | None = _option(
        "Licence of the data, such as cc-by-4.0, for the model card; that of a public dataset by default."
    )
    hub_dataset_id: str | None = _option(
        "Hub id of the dataset, owner/name, which the Hub shows results of; that of a public dataset by default."
    )
    folds: int | None = _option(
        "Divide the chips of fold_splits into so many folds, whole groups (group_by) together, and train once with "
        "each held out, into OUT/fold-K; OUT itself then holds the figures over all chips and no model."
    )
    fold: int | None = _option("Train for this one of the folds alone, 0 to folds - 1, as a run of its own.")
    fold_splits: list[str] | None = _option(
        "Splits that are divided into folds; train_split and eval_split by default."
    )
    fold_file: str | None = _option("A .csv file with the columns chip and fold, in place of dividing groups.")
    num_sample_predictions: int = _option("Validation chips drawn with their predictions at the end.", default=4)
    published: dict | str | None = _option(
        "Published figures in percent by split, shown beside measured ones: "
        "{test: {chips: 90, mean_iou: 88.68, iou: {water: 80.46}}}; as JSON on the command line."
    )

    def __post_init__(self) -> None:
        """Read options that came as JSON or pairs, and check class names and published figures."""
        super().__post_init__()
        if self.hub_dataset_id is not None and not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", self.hub_dataset_id):
            raise ValueError(f"Expected hub_dataset_id as owner/name, found {self.hub_dataset_id!r}.")
        self.make_jitter()
        if not 0 <= self.copy_paste <= 1:
            raise ValueError(f"Expected copy_paste as a probability from 0 to 1, found {self.copy_paste}.")
        words: dict[Any, Literal["all", "none"]] = {True: "all", "true": "all", False: "none", "false": "none"}
        apart = [name for name in ("folds", "balance_classes", "copy_paste") if getattr(self, name)]
        if self.streaming and apart:
            raise ValueError(f"Expected no {', '.join(apart)} with streaming, found both. Leave out one of them.")
        if self.shuffle_buffer < 1:
            raise ValueError(f"Expected shuffle_buffer of at least 1 chip, found {self.shuffle_buffer}.")
        self.check_data = words.get(self.check_data, self.check_data)
        for name in ("dataset_options", "label_map", "published"):
            text = getattr(self, name)
            if isinstance(text, str):
                try:
                    content = json.loads(text)
                except (json.JSONDecodeError, RecursionError):
                    content = None
                if not isinstance(content, dict):
                    example = '{"255": 1}' if name == "label_map" else '{"name": "value"}'
                    raise ValueError(f"Expected --{name} as a JSON object such as '{example}', found {text!r}.")
                setattr(self, name, content)
        if self.group_by is not None:
            check_group_by(self.group_by)
        self.check_folds()
        names = self.class_names or []
        keys = [" ".join(name.split()).casefold() for name in names]
        doubles = sorted({name for name, key in zip(names, keys, strict=True) if keys.count(key) > 1})
        if doubles:
            raise ValueError(
                f"Expected class_names that differ, found {', '.join(doubles)} more than once. "
                "Remedy: give each class a name of its own; mask values of one class become one by label_map."
            )
        unclear = [name for name, key in zip(names, keys, strict=True) if re.sub(r"[\W_]", "", key) in _NOT_CLASSES]
        if unclear:
            raise ValueError(
                f"Expected names of classes, found {', '.join(map(repr, unclear))}, which maps and figures use for "
                "pixels without a class. Remedy: leave it out and add its mask value to ignore_values, or give it "
                "another name if it is to be learned."
            )
        for split, figures in self.published.items() if isinstance(self.published, dict) else ():
            class_figure = CLASS_FIGURES.get(self.task, "")
            classes = figures.get(class_figure, {}) if isinstance(figures, dict) else None
            if not isinstance(classes, dict):
                raise ValueError(
                    "Expected published as {split: {metric: percent, iou: {class: percent}}}, found "
                    f"{figures!r} for {split}."
                )
            known = PUBLISHED_FIGURES[self.task]
            unknown = [str(name) for name in figures if name not in known]
            if unknown:
                raise ValueError(
                    f"Expected published figures of {split} under {', '.join(known)}, found {', '.join(unknown)}."
                )
            values = [
                *classes.values(),
                *(value for name, value in figures.items() if name not in (class_figure, "chips")),
            ]
            wrong = [value for value in values if not (type(value) in (int, float) and 0 <= value <= 100)]
            if wrong and self.task in CLASS_FIGURES:
                raise ValueError(f"Expected published figures of {split} in percent, 0 to 100, found {wrong}.")

    def check_folds(self) -> None:
        """Refuse folds without what divides them, and add the fold that is held out to the splits of tests."""
        if self.folds is None:
            given = [name for name in ("fold", "fold_splits", "fold_file") if getattr(self, name) is not None]
            if given:
                raise ValueError(
                    f"Expected folds with {', '.join(given)}, found none. Write --folds 5, or leave them out."
                )
            return
        if self.folds < 2 or not 0 <= (self.fold or 0) < self.folds:
            raise ValueError(
                f"Expected at least 2 folds, and fold from 0 to folds - 1, found folds {self.folds} and fold "
                f"{self.fold}. Write --folds 5."
            )
        if self.group_by is None and self.fold_file is None:
            raise ValueError(
                "Expected group_by with folds, because figures are too good where chips of one event or tile are on "
                f"both sides, found none. Give {', '.join(GROUPINGS)}, a column, a .csv file, or a regular expression "
                "for ids; --group_by '(?P<group>.+)' takes each chip as a group of its own."
            )
        divided = self.fold_splits or [self.train_split, self.eval_split]
        if len(set(divided)) < len(divided) or HELD_OUT in divided:
            raise ValueError(f"Expected fold_splits that differ, without {HELD_OUT}, found {', '.join(divided)}.")
        if self.fold is not None:
            self.test_splits = [HELD_OUT, *(name for name in self.test_splits if name not in (HELD_OUT, *divided))]
            if isinstance(self.published, dict):  # of other chips than those of the fold
                self.published = {name: figures for name, figures in self.published.items() if name not in divided}

    def make_jitter(self) -> RadiometricJitter:
        """Make what changes the values of training crops, and refuse numbers outside their ranges."""
        given = {option.name: getattr(self, option.name) for option in fields(RadiometricJitter)}
        return RadiometricJitter(**{name: value for name, value in given.items() if value is not None})


@dataclass
class RepeatArguments:
    """Several trainings in one run: one for each of some seeds, or trials of a search."""

    seeds: list[int] | None = _option(
        "Train once with each of these seeds, into OUT/seed-N, and report mean, standard deviation and interquartile "
        "mean of every metric; OUT itself then holds the summary and no model."
    )

    hp_search: Literal["optuna"] | None = _option(
        "Search for the values of some options with which metric_for_best_model is best; OUT then holds the study, a "
        "table of its trials and best_recipe.yaml, and no model."
    )
    hp_trials: int = _option("Trials of the search, those of an earlier start that it continues included.", default=20)
    hp_space: dict | str | None = _option(
        "A YAML file, or lines of the recipe, with the options to search: learning_rate: {low: 1.0e-5, high: 1.0e-3, "
        "log: true} or decode_head: [fcn, upernet]. By default learning rate, decay, head, and rank of an adapter."
    )

    def __post_init__(self) -> None:
        """Refuse a search without trials, and seeds that repeat each other or that no generator takes."""
        if self.hp_trials < 1:
            raise ValueError(f"Expected hp_trials of at least 1, found {self.hp_trials}.")
        if self.hp_search is None and self.hp_space is not None:
            raise ValueError("Expected hp_search with hp_space, found none. Write --hp_search optuna.")
        if self.seeds is None:
            return
        wrong = [seed for seed in self.seeds if not 0 <= seed < 2**32 or self.seeds.count(seed) > 1]
        if wrong or not self.seeds:
            found = ", ".join(map(str, dict.fromkeys(wrong))) or "none"
            raise ValueError(
                f"Expected seeds that differ, whole numbers from 0 to {2**32 - 1}, found {found}"
                f"{' more than once' * (bool(wrong) and self.seeds.count(wrong[0]) > 1)}. Write --seeds 0 1 2."
            )


MAIN_PRETRAIN_OPTIONS = {
    "the run": "config output_dir model resume_from_checkpoint seed use_cpu",
    "the scenes": "scenes eval_scenes eval_fraction num_frames fmask min_valid windows_per_epoch eval_windows",
    "the files": "bands band_map band_names band_indices rescale_factor rescale_offset image_mean image_std "
    "nodata_value scale boa_add_offset crop_size augmentation",
    "the model and its loss": "mask_ratio norm_pix_loss coords_encoding coords_dropout",
    "the training": "num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps learning_rate "
    "warmup_steps weight_decay lr_scheduler_type bf16 fp16 activation_checkpointing dataloader_num_workers",
    "evaluation and results": "eval_strategy eval_steps save_steps save_total_limit logging_steps push_to_hub",
}
"""Options that `--help` shows, by heading; `--help_all` shows every other one too."""


@dataclass
class PretrainModelArguments(EncoderArguments):
    """The masked autoencoder: where it starts from and, where it starts from nothing, its architecture.

    Every field but `model` and `attn_implementation` is the field of `PrithviConfig` of the same name; what is left
    out comes from the starting model or from `PrithviConfig`'s defaults.
    """

    coords_encoding: list[str] | None = _option("What the model takes beside pixels: time, location, or both.")
    coords_scale_learn: bool | None = _option("Learn the scale of dates and places.")
    decoder_hidden_size: int | None = _option("Width of the decoder, a multiple of 16.")
    decoder_num_hidden_layers: int | None = _option("Layers of the decoder.")
    decoder_num_attention_heads: int | None = _option("Attention heads of the decoder.")
    mask_ratio: float | None = _option("Fraction of the patches that is hidden, above 0 and below 1.")
    norm_pix_loss: bool | None = _option("Predict each patch normalised by its own mean and standard deviation.")


@dataclass
class PretrainDataArguments(ImageArguments):
    """The scenes, how their files are read, and how windows are drawn from them."""

    scenes: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Scenes to train on, one source or several: a GeoTIFF, a folder of GeoTIFFs or granules, a "
            "glob, a text list (dates of a scene in one line), .csv, .jsonl, or a STAC item collection (.json)."
        },
    )
    eval_scenes: list[str] | None = _option("Scenes to evaluate, in the same forms; a part of scenes by default.")
    eval_fraction: float = _option(
        "Fraction of the scenes that is kept for evaluation, with all dates of a place on one side; 0 for none.",
        default=0.1,
    )
    windows_per_epoch: int | None = _option(
        "Windows drawn in an epoch; by default as many as the training scenes have room for side by side."
    )
    eval_windows: int = _option(
        "Windows of an evaluation, always the same ones with the same patches hidden.", default=256
    )
    min_valid: float = _option(
        "Fraction of a window that has data, over all its dates and in every band; others are drawn again.",
        default=0.5,
    )
    coords_dropout: float = _option(
        "Fraction of the windows without their dates, and of those without their place, for models that take them.",
        default=0.1,
    )
    scale: Literal["auto", "apply", "ignore", "refuse"] = _option(
        "Scale and offset of files and products: auto brings numbers to the units of the statistics, apply to "
        "reflectance, ignore leaves them, refuse makes an error of those that would change.",
        default="auto",
    )
    boa_add_offset: float | None = _option("Offset of Sentinel-2 values, where the product does not say it.")
    fmask: list[str] | None = _option(
        "Pixels that Fmask of HLS, SCL of Sentinel-2 or QA_PIXEL of Landsat marks as one of these have no data: "
        f"{', '.join(PIXEL_KINDS)}."
    )
    check_data: bool = _option(
        "Draw one window of every scene before the training, to stop at a bad file.", default=True
    )
    num_sample_reconstructions: int = _option("Windows drawn with their reconstructions at the end.", default=4)

    def __post_init__(self) -> None:
        """Check what no library checks."""
        super().__post_init__()
        for name, low, high in (("eval_fraction", 0, 1), ("min_valid", 0, 1.0001), ("coords_dropout", 0, 1.0001)):
            if not low <= getattr(self, name) < high:
                raise ValueError(f"Expected {name} as a fraction, 0 to {high:.0f}, found {getattr(self, name)}.")
        if self.eval_windows < 1 or (self.windows_per_epoch is not None and self.windows_per_epoch < 1):
            raise ValueError(
                "Expected windows_per_epoch and eval_windows of at least 1, found "
                f"{self.windows_per_epoch} and {self.eval_windows}."
            )
