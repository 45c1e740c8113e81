# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Recipes: the options of a fine-tuning run, from a YAML file and the command line, and what is built from them."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import yaml
from huggingface_hub.dataclasses import type_validator
from transformers import HfArgumentParser
from transformers.utils import cached_file

from prithvi_hf.models.prithvi.bands_prithvi import find_band_names
from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.modeling_prithvi import PrithviForSemanticSegmentation
from prithvi_hf.training.recipe_options import DataArguments, ModelArguments


if TYPE_CHECKING:
    from prithvi_hf.training.trainer import PrithviTrainingArguments


_IMAGE_OPTIONS = (
    "bands",
    "rescale_factor",
    "rescale_offset",
    "image_mean",
    "image_std",
    "nodata_value",
    "nodata_replacement",
    "nodata_rule",
    "frame_order",
)
_BAND_STATISTICS = ("image_mean", "image_std")
# Of one run and one machine, not of the recipe that repeats it.
_NOT_SAVED = ("output_dir", "hub_token", "resume_from_checkpoint", "config")
_RECIPES = Path(__file__).parents[1] / "recipes"


@dataclass
class Recipe:
    """A run's options, in groups.

    Attributes:
        model ([`ModelArguments`]): The model.
        data ([`DataArguments`]): The data.
        training ([`PrithviTrainingArguments`], *optional*): The training; None where a recipe was only read.
        given (`dict[str, Any]`): The options that differ from their defaults, as they were given.
    """

    model: ModelArguments
    data: DataArguments
    training: "PrithviTrainingArguments | None" = None
    given: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Recipe":
        """The model and the data that options describe, without a training.

        Args:
            values (`Mapping[str, Any]`): Options by name; those of the training are kept in `given` alone.

        Raises:
            ValueError: An option has a value that it cannot have.
        """
        groups = (
            group(**{name: values[name] for name in _field_types(group) if name in values})
            for group in (ModelArguments, DataArguments)
        )
        return cls(*groups, given=dict(values))

    def num_frames(self) -> int:
        """Dates in one input: as given, or those of a fine-tuned starting model, whose neck is built for them."""
        if self.data.num_frames is None and self.model.model is not None:
            start = _starting_config(self.model.model)
            if PrithviForSemanticSegmentation.__name__ in (start.architectures or ()):
                return start.num_frames
        return self.data.num_frames or 1

    def config_values(self) -> dict[str, Any]:
        """Fields of `PrithviConfig` that the recipe sets."""
        others = ("model", "freeze_backbone")
        values = {name: value for name, value in vars(self.model).items() if name not in others}
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
        return PrithviImageProcessor(**{**_image_options(self.model.model, given), **given})

    def build_model(self) -> PrithviForSemanticSegmentation:
        """The model to fine-tune: random weights, or those of `--model` adapted to the recipe.

        The frames may be others than the starting model's (positions are computed), layers may be fewer, bands are
        taken by name (see `set_bands`), neck and heads are new where their shapes differ. What would replace
        pretrained weights of the encoder is an error.

        Raises:
            FileNotFoundError: There is no such starting model.
            ValueError: It is no converted Prithvi model, or the recipe's architecture contradicts it.
        """
        values = {**self.config_values(), "num_frames": self.num_frames()}
        model = self._new_model(values) if self.model.model is None else self._started_model(self.model.model, values)
        if self.model.freeze_backbone:
            model.freeze_backbone()
        return model

    @staticmethod
    def _new_model(values: dict[str, Any]) -> PrithviForSemanticSegmentation:
        """A model of random weights."""
        attention = {"attn_implementation": values.pop("attn_implementation", None)}
        return PrithviForSemanticSegmentation._from_config(PrithviConfig(**values), **attention)

    def _started_model(self, source: str, values: dict[str, Any]) -> PrithviForSemanticSegmentation:
        """The starting model, adapted."""
        start = _starting_config(source)
        bands = _take_other_bands(start, values)
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
        if bands is not None:
            new += [f"the band {band}" for band in model.set_bands(bands)]
        if self.training is not None and not self.training.do_train and new:
            raise ValueError(
                f"Expected a model to evaluate, found no weights in {source} that fit {', '.join(new[:4])} "
                f"({len(new)} in all). Give the options that it was trained with, or train it (--do_train true)."
            )
        return model

    def save(self, path: str | Path) -> None:
        """Write the options that were given as a YAML file that `--config` takes to repeat the run.

        Args:
            path (`str` or `Path`): The file; it is replaced.
        """
        values = {"dataset": self.data.dataset}
        # As read, where the command line gave JSON.
        values |= {name: getattr(self.data, name, value) for name, value in self.given.items()}
        values = {name: value for name, value in values.items() if name not in _NOT_SAVED}
        if self.data.data_dir is not None:  # the run may be repeated from another folder
            values["data_dir"] = str(Path(self.data.data_dir).expanduser().absolute())
        if self.training is not None:
            values["seed"] = self.training.seed
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110)
        Path(path).write_text(f"# The options of this run: --config {Path(path).name} repeats it.\n{text}", "utf-8")


def _take_other_bands(start: PrithviConfig, values: dict[str, Any]) -> list[str] | None:
    """Take the bands out of the values where they are others than the starting model's; `set_bands` brings them in.

    A starting model without band names keeps its channels as they are.
    """
    bands = values.get("bands")
    if bands is None or start.bands is None or list(bands) == list(start.bands):
        return None
    values.pop("num_channels", None)
    return values.pop("bands")


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


def _image_options(source: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the weights of a starting model expect of an image, where it says so; its labels are its own affair.

    Statistics follow their bands by name where the recipe takes others.
    """
    if source is None:
        return {}
    if cached_file(source, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False) is None:
        return {}
    processor = PrithviImageProcessor.from_pretrained(source)
    options = {name: getattr(processor, name) for name in _IMAGE_OPTIONS if getattr(processor, name) is not None}
    bands = given.get("bands")
    if processor.frame_order != "time_major" and bands not in (None, processor.bands):
        raise ValueError(
            f"Expected the bands {', '.join(processor.bands)} with frame_order {processor.frame_order} of {source}, "
            f"found {', '.join(bands)}: its channels mix bands and dates, so no band can be picked. Start from a "
            "backbone instead."
        )
    if bands is None or set(_BAND_STATISTICS) <= given.keys():
        return options
    places = find_band_names(bands, processor.bands)
    unknown = [band for band, place in zip(bands, places, strict=True) if place is None]
    if unknown:
        raise ValueError(
            f"Expected image_mean and image_std of the bands {', '.join(bands)}, found statistics in {source} for "
            f"{', '.join(processor.bands)} alone. Give both in the recipe; `prithvi-hf stats` measures them."
        )
    return options | {name: [options[name][place] for place in places] for name in _BAND_STATISTICS}


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


def packaged_recipes() -> dict[str, Path]:
    """The recipes of this package by name."""
    return {recipe.stem: recipe for recipe in sorted(_RECIPES.glob("*.yaml"))}


def find_recipe(name_or_path: str | Path) -> Path:
    """The file of a recipe.

    Args:
        name_or_path (`str` or `Path`): A YAML file, or the name of a recipe of this package: `sen1floods11`,
            `hls_burn_scars`, `hls_irrigation_scenes`, `multi_temporal_crop`.

    Raises:
        FileNotFoundError: There is neither such a file nor such a recipe.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    packaged = packaged_recipes()
    if str(name_or_path) in packaged:
        return packaged[str(name_or_path)]
    raise FileNotFoundError(
        f"Expected a YAML file or one of the recipes {', '.join(packaged)}, found neither under {name_or_path}."
    )


def read_recipe(path: str | Path) -> Recipe:
    """Read the model and data options of a YAML recipe.

    Args:
        path (`str` or `Path`): The file, or the name of a recipe (see [`find_recipe`]).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: An option is unknown or has the wrong type.
    """
    from prithvi_hf.training.trainer import PrithviTrainingArguments

    types = _field_types(ModelArguments, DataArguments, PrithviTrainingArguments)
    content = _read_yaml(find_recipe(path), types)
    return Recipe.from_values(content)


def parse_arguments(arguments: Sequence[str] | None = None, description: str | None = None) -> Recipe:
    """Read `--config FILE ...` and every other option of the command line, which wins over the files.

    Args:
        arguments (`Sequence[str]`, *optional*): The words of the command line; those of the process by default.
        description (`str`, *optional*): Shown by `--help`.

    Raises:
        FileNotFoundError: A file of `--config` does not exist.
        ValueError: An option of a file is unknown or has the wrong type, or `--output_dir` is missing.
    """
    from prithvi_hf.training.trainer import PrithviTrainingArguments

    groups = (ModelArguments, DataArguments, PrithviTrainingArguments)
    usage = "%(prog)s [--config FILE ...] [--OPTION VALUE ...]; --help lists every option"
    parser = HfArgumentParser(groups, usage=usage, description=description, allow_abbrev=False)
    _accept_none(parser, groups)
    parser.add_argument(
        "--config",
        metavar="FILE",
        nargs="+",
        default=[],
        help="YAML recipes or their names, later ones win; every option of them can be given here as well.",
    )
    files, _ = parser.parse_known_args(arguments)
    values: dict[str, Any] = {}
    for name in files.config:
        values |= _read_yaml(find_recipe(name), _field_types(*groups))
    if files.output_dir is None and "output_dir" not in values:
        raise ValueError("Expected --output_dir, the folder for the model and its results, found none.")
    namespace = parser.parse_args(arguments, argparse.Namespace(**values))
    return Recipe(*_fill(groups, namespace), given=_given_options(parser, namespace))


def _given_options(parser: argparse.ArgumentParser, namespace: argparse.Namespace) -> dict[str, Any]:
    """The options that differ from their defaults, as YAML can hold them."""
    defaults = vars(parser.parse_args([]))
    values = {name: None if value == [None] else value for name, value in vars(namespace).items()}
    given = {name: value for name, value in values.items() if value != defaults[name]}
    return {name: value.value if isinstance(value, Enum) else value for name, value in given.items()}


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


__all__ = [
    "DataArguments",
    "ModelArguments",
    "Recipe",
    "find_recipe",
    "packaged_recipes",
    "parse_arguments",
    "read_recipe",
]
