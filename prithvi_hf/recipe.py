# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Recipes: the options of a fine-tuning run, from a YAML file and the command line, and what is built from them."""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

import yaml
from huggingface_hub.dataclasses import type_validator
from transformers import HfArgumentParser
from transformers.utils import cached_file

from .configuration_prithvi import PrithviConfig
from .image_processing_prithvi import PrithviImageProcessor
from .modeling_prithvi import PrithviForSemanticSegmentation


if TYPE_CHECKING:
    from .trainer_prithvi import PrithviTrainingArguments


_IMAGE_OPTIONS = (
    "bands",
    "rescale_factor",
    "rescale_offset",
    "image_mean",
    "image_std",
    "nodata_value",
    "nodata_replacement",
    "nodata_rule",
)


@dataclass
class ModelArguments:
    """The model: where it starts from and, where it starts from nothing, its architecture.

    Every field but `model` and `attn_implementation` is the field of `PrithviConfig` of the same name; what is left
    out comes from the starting model or from `PrithviConfig`'s defaults.
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
    neck: str | None = field(default=None, metadata={"help": "conv_transpose."})
    neck_hidden_size: int | None = field(
        default=None, metadata={"help": "Channels of the neck; hidden_size times the frames by default."}
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
    loss: str | None = field(default=None, metadata={"help": "cross_entropy."})
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

    dataset: str = field(default="geotiff_folder", metadata={"help": "sen1floods11, or geotiff_folder for your own."})
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
    bands: list[str] | None = field(default=None, metadata={"help": "Names of the bands that the model takes."})
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
    check_data: bool = field(
        default=True, metadata={"help": "Read every chip once before training, to stop at a bad file and not later."}
    )
    num_sample_predictions: int = field(
        default=4, metadata={"help": "Validation chips drawn with their predictions at the end."}
    )

    def __post_init__(self) -> None:
        """Read options that came as JSON."""
        if isinstance(self.dataset_options, str):
            self.dataset_options = _read_json_object("dataset_options", self.dataset_options)


def _read_json_object(name: str, text: str) -> dict[str, Any]:
    """An option's JSON object."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"""Expected --{name} as a JSON object such as '{{"name": "value"}}', found {text!r}.""")
    return content


@dataclass
class Recipe:
    """A run's options, in groups.

    Attributes:
        model ([`ModelArguments`]): The model.
        data ([`DataArguments`]): The data.
        training ([`PrithviTrainingArguments`], *optional*): The training; None where a recipe was only read.
    """

    model: ModelArguments
    data: DataArguments
    training: "PrithviTrainingArguments | None" = None

    def num_frames(self) -> int:
        """Dates in one input: as given, or those of a fine-tuned starting model, whose neck is built for them."""
        if self.data.num_frames is None and self.model.model is not None:
            start = _starting_config(self.model.model)
            if PrithviForSemanticSegmentation.__name__ in (start.architectures or ()):
                return start.num_frames
        return self.data.num_frames or 1

    def config_values(self) -> dict[str, Any]:
        """Fields of `PrithviConfig` that the recipe sets."""
        starting_point = ("model",)
        values = {name: value for name, value in vars(self.model).items() if name not in starting_point}
        values |= {name: getattr(self.data, name) for name in ("bands", "class_colors", "num_frames")}
        if self.data.class_names is not None:
            values["id2label"] = dict(enumerate(self.data.class_names))
            values["label2id"] = {name: index for index, name in enumerate(self.data.class_names)}
        if self.data.bands is not None:
            values["num_channels"] = len(self.data.bands)
        return {name: value for name, value in values.items() if value is not None}

    def image_processor(self) -> PrithviImageProcessor:
        """The image processor that the recipe describes."""
        names = [name for name in PrithviImageProcessor.option_names() if hasattr(self.data, name)]
        values = {name: getattr(self.data, name) for name in names}
        if self.data.class_names is not None:
            values["num_labels"] = len(self.data.class_names)
        values["num_frames"] = self.num_frames()
        given = {name: value for name, value in values.items() if value is not None}
        return PrithviImageProcessor(**{**_image_options(self.model.model), **given})

    def build_model(self) -> PrithviForSemanticSegmentation:
        """The model to fine-tune: random weights, or those of `--model` adapted to the recipe.

        The frames may be others than the starting model's (positions are computed), layers may be fewer, neck and
        heads are new where their shapes differ. What would replace pretrained weights of the encoder is an error.

        Raises:
            FileNotFoundError: There is no such starting model.
            ValueError: It is no converted Prithvi model, or the recipe's architecture contradicts it.
        """
        values = {**self.config_values(), "num_frames": self.num_frames()}
        source = self.model.model
        if source is None:
            attention = {"attn_implementation": values.pop("attn_implementation", None)}
            return PrithviForSemanticSegmentation._from_config(PrithviConfig(**values), **attention)
        start = _starting_config(source)
        _check_starting_point(source, start, values)
        if len(values.get("id2label", ())) not in (0, start.num_labels):
            # What the starting model says of each of its classes does not hold for others.
            values = {"class_weights": None, "class_colors": None, **values}
        model, info = PrithviForSemanticSegmentation.from_pretrained(
            source, ignore_mismatched_sizes=True, output_loading_info=True, **values
        )
        lost = [key for key, *_ in info["mismatched_keys"] if key.startswith("prithvi.")]
        if lost:
            raise ValueError(f"Expected the encoder of {source} to fit the recipe, found other shapes: {lost}.")
        new = sorted([*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])])
        if self.training is not None and not self.training.do_train and new:
            raise ValueError(
                f"Expected a model to evaluate, found no weights in {source} that fit {', '.join(new[:4])} "
                f"({len(new)} in all). Give the options that it was trained with, or train it (--do_train true)."
            )
        return model


def _starting_config(source: str) -> PrithviConfig:
    """The configuration of a starting model, which must be a folder or Hub repository of this package's layout."""
    path = Path(source)
    if path.is_file():
        raise ValueError(
            f"Expected --model as a folder or Hub id, found the file {source}. Make a folder of it by "
            f"`prithvi-hf convert {source} FOLDER`."
        )
    if not path.is_dir() and (path.is_absolute() or source.startswith(".") or source.count("/") > 1):
        raise FileNotFoundError(f"Expected a folder or a Hub id for --model, found no folder {source}.")
    found = PrithviConfig.get_config_dict(source)[0].get("model_type")
    if found != PrithviConfig.model_type:
        raise ValueError(
            f"Expected the config.json of {source} to be of model_type {PrithviConfig.model_type!r}, found {found!r}. "
            "Original weights are converted by `prithvi-hf convert SOURCE FOLDER`; give that folder to --model."
        )
    return PrithviConfig.from_pretrained(source)


def _image_options(source: str | None) -> dict[str, Any]:
    """What the weights of a starting model expect of an image, where it says so; its labels are its own affair."""
    if source is None:
        return {}
    if cached_file(source, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False) is None:
        return {}
    processor = PrithviImageProcessor.from_pretrained(source)
    return {name: getattr(processor, name) for name in _IMAGE_OPTIONS if getattr(processor, name) is not None}


def _check_starting_point(source: str, config: PrithviConfig, values: Mapping[str, Any]) -> None:
    """Refuse an encoder that differs from the starting model's."""
    fixed = ("hidden_size", "mlp_ratio", "num_channels", "patch_size")
    wrong = {
        name: (getattr(config, name), values[name])
        for name in fixed
        if name in values and values[name] != getattr(config, name)
    }
    if values.get("num_hidden_layers", 0) > config.num_hidden_layers:
        wrong["num_hidden_layers"] = (config.num_hidden_layers, values["num_hidden_layers"])
    if wrong:
        found = "; ".join(
            f"{name}: {source} has {own}, the recipe asks for {asked}" for name, (own, asked) in wrong.items()
        )
        raise ValueError(f"Expected a recipe that fits the starting model. {found}. Leave these options out.")


def _field_types(*groups: type) -> dict[str, Any]:
    """Type of every option of the groups that a constructor takes."""
    return {
        option.name: get_type_hints(group)[option.name] for group in groups for option in fields(group) if option.init
    }


def _check_value(name: str, value: Any, hint: Any, path: Path) -> None:
    """Raise unless a YAML value has its option's type; an integer will do for a float."""
    candidates = [value]
    if isinstance(value, int) and not isinstance(value, bool):
        candidates.append(float(value))
    if isinstance(value, list) and all(type(item) in (int, float) for item in value):
        candidates.append([float(item) for item in value])
    for candidate in candidates:
        try:
            type_validator(name, candidate, hint)
        except TypeError as error:
            problem = error
        else:
            return
    texts = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]
    note = " YAML reads 1e-4 as text: write 1.0e-4." if any(map(_is_number, texts)) else ""
    if isinstance(value, bool):
        note = " YAML reads yes, no, true and false as switches: write such a text in quotes."
    raise ValueError(f"{path}: {name} has the wrong type. {problem}.{note}")


def _is_number(text: str) -> bool:
    """Whether a text would be a number elsewhere."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_yaml(path: str | Path, types: Mapping[str, Any]) -> dict[str, Any]:
    """The options in a YAML file, with known names and right types."""
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected {path} to be a YAML file, found: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"Expected {path} to hold 'name: value' lines, found {type(content).__name__}.")
    unknown = sorted(str(name) for name in content if name not in types)
    if unknown:
        from difflib import get_close_matches

        near = {name: get_close_matches(name, types, n=1) for name in unknown}
        hints = [f"{name} (did you mean {match[0]}?)" if match else name for name, match in near.items()]
        raise ValueError(f"{path} has unknown option(s): {', '.join(hints)}. See --help for all of them.")
    for name, value in content.items():
        _check_value(name, value, types[name], path)
    return content


def read_recipe(path: str | Path) -> Recipe:
    """Read the model and data options of a YAML recipe.

    Args:
        path (`str` or `Path`): The file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: An option is unknown or has the wrong type.
    """
    from .trainer_prithvi import PrithviTrainingArguments

    content = _read_yaml(path, _field_types(ModelArguments, DataArguments, PrithviTrainingArguments))
    groups = [
        group(**{name: content[name] for name in _field_types(group) if name in content})
        for group in (ModelArguments, DataArguments)
    ]
    return Recipe(*groups)


def parse_arguments(arguments: Sequence[str] | None = None, description: str | None = None) -> Recipe:
    """Read `--config FILE` and every other option of the command line, which wins over the file.

    Args:
        arguments (`Sequence[str]`, *optional*): The words of the command line; those of the process by default.
        description (`str`, *optional*): Shown by `--help`.

    Raises:
        FileNotFoundError: The file of `--config` does not exist.
        ValueError: An option of the file is unknown or has the wrong type, or `--output_dir` is missing.
    """
    from .trainer_prithvi import PrithviTrainingArguments

    groups = (ModelArguments, DataArguments, PrithviTrainingArguments)
    usage = "%(prog)s [--config FILE] [--OPTION VALUE ...]; --help lists every option"
    parser = HfArgumentParser(groups, usage=usage, description=description, allow_abbrev=False)
    _accept_none(parser, groups)
    parser.add_argument("--config", metavar="FILE", help="YAML recipe; every option of it can be given here as well.")
    config, _ = parser.parse_known_args(arguments)
    values = {} if config.config is None else _read_yaml(config.config, _field_types(*groups))
    if config.output_dir is None and "output_dir" not in values:
        raise ValueError("Expected --output_dir, the folder for the model and its results, found none.")
    namespace = parser.parse_args(arguments, argparse.Namespace(**values))
    return Recipe(*_fill(groups, namespace))


def _accept_none(parser: argparse.ArgumentParser, groups: Sequence[type]) -> None:
    """Let `none` on the command line unset an option, so that it can undo what the file sets."""
    hints = _field_types(*groups)
    defaults = {option.name: option.default for group in groups for option in fields(group)}
    for action in parser._actions:
        optional = type(None) in get_args(hints.get(action.dest))
        if optional and defaults[action.dest] != "none":  # report_to has a "none" of its own
            action.type = _or_none(action.type)


def _or_none(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """A reader of command-line words that knows `none` too."""

    @wraps(convert)
    def read(text: str) -> Any:
        return None if text.lower() == "none" else convert(text)

    return read


def _fill(groups: Sequence[type], namespace: argparse.Namespace) -> list[Any]:
    """Make one object of each group from parsed options."""
    values = {name: None if value == [None] else value for name, value in vars(namespace).items()}
    return [group(**{option.name: values[option.name] for option in fields(group) if option.init}) for group in groups]


__all__ = ["DataArguments", "ModelArguments", "Recipe", "parse_arguments", "read_recipe"]
