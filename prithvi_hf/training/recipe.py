# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Recipes: the options of a fine-tuning run, from a YAML file and the command line, and what is built from them."""

import argparse
import itertools
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import yaml
from huggingface_hub.dataclasses import type_validator
from transformers import HfArgumentParser
from transformers.utils import cached_file, find_adapter_config_file, logging

from prithvi_hf.data.augmentations import find_augmentation
from prithvi_hf.models.prithvi.adapter_prithvi import add_adapter
from prithvi_hf.models.prithvi.bands_prithvi import find_band_names
from prithvi_hf.models.prithvi.configuration_prithvi import (
    ENCODER_FIELDS,
    PrithviConfig,
    check_has_weights,
    check_model_source,
)
from prithvi_hf.models.prithvi.decode_heads_prithvi import HEADS, MAP_NECKS, find_necks
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.training.recipe_options import (
    MAIN_OPTIONS,
    REFUSED_OPTIONS,
    DataArguments,
    ImageArguments,
    ModelArguments,
    RepeatArguments,
)
from prithvi_hf.training.tasks import TASKS
from prithvi_hf.training.training_args import SELECTABLE_METRICS, TASK_METRICS, PrithviTrainingArguments


logger = logging.get_logger(__name__)

# What the weights of a starting model expect of an image; labels are the dataset's own affair.
_IMAGE_OPTIONS = (
    *("bands", "rescale_factor", "rescale_offset", "image_mean", "image_std"),
    *("nodata_value", "nodata_replacement", "nodata_rule", "frame_order", "first_day_of_year"),
)
_BAND_STATISTICS = ("image_mean", "image_std")
_ENCODER_OPTIONS = (
    *(*ENCODER_FIELDS, "attn_implementation", "freeze_backbone", "activation_checkpointing"),
    *("adapter", "adapter_rank", "adapter_alpha", "adapter_dropout", "adapter_targets"),
    *("train_norms", "layer_decay", "unfreeze_every"),
)
# What belongs to one run and one machine, not to the recipe that repeats it.
_NOT_SAVED = ("output_dir", "hub_token", "resume_from_checkpoint", "config")
_RECIPES = Path(__file__).parents[1] / "recipes"
# Fields that a recipe sets; the base class's own are not among the options of a model.
_CONFIG_FIELDS = {"attn_implementation", *(option.name for option in fields(PrithviConfig))}
OPTION_GROUPS: tuple[type, ...] = (ModelArguments, DataArguments, PrithviTrainingArguments, RepeatArguments)
_MAX_BYTES, _MAX_DEPTH, _MAX_VALUES = 1_000_000, 20, 100_000
# Control characters but tab and line feed, and halves of surrogate pairs, which no file can hold.
_STRANGE = re.compile("[\0-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


@dataclass
class Recipe:
    """The options of a model and its data, in groups."""

    model: ModelArguments
    data: DataArguments
    # The options that differ from their defaults, as they were given; those of a training among them.
    given: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse options that mean nothing in the recipe's task."""
        task, values = self.data.task, {**vars(self.model), **vars(self.data)}
        found = [name for name in REFUSED_OPTIONS[task] if values[name] not in (None, False)]
        if found:
            raise ValueError(
                f"Expected options of task {task}, found {', '.join(found)}. Leave them out, or name another task "
                f"({', '.join(TASKS)})."
            )

    @staticmethod
    def from_values(values: Mapping[str, Any]) -> "Recipe":
        """Make a recipe from options by name; those of the training are kept in `given` alone."""
        own = [{option.name for option in fields(group)} & values.keys() for group in (ModelArguments, DataArguments)]
        model, data = ({name: values[name] for name in names} for names in own)
        return Recipe(ModelArguments(**model), DataArguments(**data), dict(values))

    def find_num_frames(self) -> int:
        """Find the dates of one input: as given, or those of a fine-tuned starting model, whose neck is built so."""
        if self.data.num_frames is None and self.model.model is not None:
            start = read_starting_config(self.model.model)
            if {task.model.__name__ for task in TASKS.values()} & {*(start.architectures or ())}:
                return start.num_frames
        return self.data.num_frames or 1

    def get_config_values(self) -> dict[str, Any]:
        """Collect the fields of `PrithviConfig` that the recipe sets."""
        values = {name: value for name, value in vars(self.model).items() if name in _CONFIG_FIELDS}
        values |= {name: getattr(self.data, name) for name in ("bands", "class_colors", "num_frames")}
        if self.data.task == "classification":
            values["problem_type"] = self.model.problem_type or "single_label_classification"
        if self.data.class_names is not None:
            values["id2label"] = dict(enumerate(self.data.class_names))
            values["label2id"] = {name: index for index, name in enumerate(self.data.class_names)}
        if self.data.bands is not None:
            values["num_channels"] = len(self.data.bands)
        return {name: value for name, value in values.items() if value is not None}

    def build_image_processor(self) -> PrithviImageProcessor:
        """Build the image processor: options left open come from the starting model's, where it has one."""
        given: dict[str, Any] = {"num_frames": self.find_num_frames()}
        if self.data.task == "regression":
            given["label_type"] = "value"
        elif self.data.class_names is not None:
            given["num_labels"] = len(self.data.class_names)
        return build_image_processor(self.model.model, self.data, given)

    def build_model(self, may_add_weights: bool = True) -> Any:
        """Build the model: random weights, or those of `--model` adapted to the recipe.

        The frames may be others than the starting model's (positions are computed), layers may be fewer, bands are
        taken by name (see `set_bands`), neck and heads are new where their shapes differ. What would replace
        pretrained weights of the encoder is an error, and so are, without `may_add_weights`, weights that the starting
        model lacks: others start at random, to be trained.
        """
        values = {**self.get_config_values(), "num_frames": self.find_num_frames()}
        if self.model.model is None:
            attention = values.pop("attn_implementation", None)
            kind = TASKS[self.data.task].model
            model = kind._from_config(PrithviConfig(**values), attn_implementation=attention)
        else:
            model = self._adapt_starting_model(self.model.model, values, may_add_weights)
        without_encoder = model.config.architecture == "unet"
        if without_encoder and (given := [name for name in _ENCODER_OPTIONS if self.given.get(name)]):
            raise ValueError(
                f"Expected no options of an encoder with architecture unet, found {', '.join(given)}. Leave them out; "
                "--architecture unet on the command line leaves out those of a recipe."
            )
        if self.model.freeze_backbone:
            model.freeze_backbone(self.model.train_norms)
        if self.model.adapter is not None and may_add_weights:
            self._add_adapter(model)
        return model

    def _add_adapter(self, model: Any) -> None:
        """Put the adapter of the recipe into the encoder of the starting model."""
        options, base = self.model, str(self.model.model)
        if find_adapter_config_file(base):
            raise ValueError(
                f"Expected a whole model to put an adapter on, found that {base} is an adapter. Merge it first: "
                f"`prithvi-hf merge {base} FOLDER`."
            )
        given: dict[str, Any] = {"alpha": options.adapter_alpha, "dropout": options.adapter_dropout}
        given |= {"rank": options.adapter_rank, "targets": options.adapter_targets}
        given = {name: value for name, value in given.items() if value is not None}
        add_adapter(model, base, cast(str, options.adapter), **given)

    def _adapt_starting_model(self, source: str, values: dict[str, Any], may_add_weights: bool) -> Any:
        """Load the starting model with the recipe's values in its configuration."""
        start, bands = read_starting_config(source), values.get("bands")
        # Other bands come in by name once the weights are loaded; channels without names stay as they are.
        other_bands = bands is not None and start.bands is not None and list(bands) != list(start.bands)
        if other_bands:
            values = {name: value for name, value in values.items() if name not in ("bands", "num_channels")}
        # Only the encoder is fixed; a neck or head that the starting model lacks is a new one.
        fixed = ("architecture", "hidden_size", "mlp_ratio", "num_channels", "patch_size")
        wrong = [name for name in fixed if name in values and values[name] != getattr(start, name)]
        wrong += ["num_hidden_layers"] * (values.get("num_hidden_layers", 0) > start.num_hidden_layers)
        if wrong:
            found = [
                f"{name}: {source} has {getattr(start, name)}, the recipe asks for {values[name]}" for name in wrong
            ]
            raise ValueError(
                f"Expected a recipe that fits the starting model. {'; '.join(found)}. Leave these options out, or "
                "--model."
            )
        if len(values.get("id2label", ())) not in (0, start.num_labels):
            # What the starting model says of each of its classes does not hold for others.
            values = {"class_weights": None, "class_colors": None, **values}
        # A head that the starting model has not brings the neck that it takes.
        head = values.get("decode_head", start.decode_head)
        if "neck" not in values and head in HEADS and start.neck not in find_necks(HEADS[head]):
            values = {**values, "neck": find_necks(HEADS[head])[0]}
        if values.get("neck", start.neck) in MAP_NECKS:
            values = {"use_auxiliary_head": False, **values}
        if set(values.get("coords_encoding", ())) - set(start.coords_encoding):
            values = {"coords_scale_learn": True, **values}  # a new term begins small
        loaded: Any = TASKS[self.data.task].model.from_pretrained(
            source, ignore_mismatched_sizes=True, output_loading_info=True, **values
        )
        model, info = loaded
        mismatched = [key for key, *_ in info["mismatched_keys"]]
        lost = [key for key in mismatched if key.startswith(("prithvi.", "model."))]
        if lost:
            raise ValueError(f"Expected the encoder of {source} to fit the recipe, found other shapes: {lost}.")
        new = sorted([*info["missing_keys"], *mismatched])
        if other_bands:
            new += [f"the band {band}" for band in model.set_bands(bands)]
        if new and not may_add_weights:
            raise ValueError(
                f"Expected a model to evaluate, found no weights in {source} that fit {', '.join(new[:4])} "
                f"({len(new)} in all). Give the options that it was trained with, or train it (--do_train true)."
            )
        return model

    def save(self, path: str | Path) -> None:
        """Write the options that were given as a YAML file that `--config` takes to repeat the run."""
        # The groups hold as values what the command line gave as JSON.
        values: dict[str, Any] = {"dataset": self.data.dataset}
        values |= {name: getattr(self.data, name, value) for name, value in self.given.items()}
        if self.data.data_dir is not None:  # the run may be repeated from another folder
            values["data_dir"] = str(Path(self.data.data_dir).expanduser().absolute())
        write_options(path, values)


@dataclass
class TrainingRecipe(Recipe):
    """A recipe with the options of a training, as the command line gives it.

    Attributes:
        training ([`PrithviTrainingArguments`]): The training; the other attributes are those of [`Recipe`].
        repeats ([`RepeatArguments`]): What several trainings of one run differ in.
        folds_of_chips (`dict[str, int]`, *optional*): Of a cross-validation the fold of each chip, once it is known.
    """

    training: PrithviTrainingArguments = field(kw_only=True)
    repeats: RepeatArguments = field(default_factory=RepeatArguments, kw_only=True)
    folds_of_chips: dict[str, int] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse options, and a metric that chooses the checkpoint, of another task, and what cannot be imported."""
        super().__post_init__()
        if self.training.unfreeze_every is not None and (self.model.freeze_backbone or self.model.adapter):
            raise ValueError(
                "Expected unfreeze_every of an encoder that trains in the end, found freeze_backbone or an adapter, "
                "which leave it frozen. Leave one of them out."
            )
        task, best = self.data.task, (self.training.metric_for_best_model or "loss").removeprefix("eval_")
        of_others = {name for other in TASKS if other != task for name in TASK_METRICS[other]}
        if self.model.problem_type != "multi_label_classification":
            of_others.add("mean_average_precision")
        if self.training.do_train and self.data.custom_augmentation is not None:
            find_augmentation(self.data.custom_augmentation)
        if self.training.do_train and best in of_others:
            own = [name for name in TASK_METRICS[task] if name in SELECTABLE_METRICS and name not in of_others]
            raise ValueError(
                f"Expected metric_for_best_model of task {task}, found {best}. Choose one of {', '.join(own)} or loss."
            )

    def list_evaluations(self) -> dict[str, str]:
        """List the splits that are evaluated at the end by the prefix of their metrics: `eval`, or a test split."""
        evaluations = {"eval": self.data.eval_split} if self.training.do_eval else {}
        return evaluations | {name: name for name in self.data.test_splits if self.training.do_predict}

    def change(self, options: Mapping[str, Any], without: Collection[str] = ()) -> "TrainingRecipe":
        """Make the recipe again with some options changed and others left out; all are checked as at first."""
        given = {name: value for name, value in {**self.given, **options}.items() if name not in without}
        model, data, training, repeats = make_groups(OPTION_GROUPS, given, "metric_for_best_model" in given)
        return TrainingRecipe(model, data, given, training=training, repeats=repeats)


def write_options(path: str | Path, values: Mapping[str, Any]) -> None:
    """Write options of a run as a recipe, without those that belong to one run alone."""
    kept = {name: value for name, value in values.items() if name not in _NOT_SAVED}
    text = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, width=110)
    Path(path).write_text(f"# The options of this run: --config {Path(path).name} repeats it.\n{text}", "utf-8")


def build_image_processor(
    source: str | None, data: ImageArguments, values: Mapping[str, Any]
) -> PrithviImageProcessor:
    """Build an image processor of the options that are given; others come from the starting model's, if it has one."""
    names = [name for name in PrithviImageProcessor.option_names() if hasattr(data, name)]
    given = {name: getattr(data, name) for name in names if getattr(data, name) is not None} | {**values}
    if source is None or not cached_file(
        source, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False
    ):
        own = PrithviImageProcessor.bands
        bands = given.get("bands", own)
        if not set(_BAND_STATISTICS) <= given.keys() and find_band_names(bands, own) != list(range(len(own))):
            raise ValueError(
                f"Expected image_mean and image_std of the bands {', '.join(bands)}, found none in the recipe. "
                f"The defaults are of {', '.join(own)}. Measure them by `prithvi-hf stats DIR --bands "
                f"{' '.join(bands)}`, and give what it writes to --config too."
            )
        return PrithviImageProcessor(**given)
    start = PrithviImageProcessor.from_pretrained(source)
    options = {name: getattr(start, name) for name in _IMAGE_OPTIONS if getattr(start, name) is not None}
    bands = given.get("bands", start.bands)
    if start.frame_order != "time_major" and bands != start.bands:
        raise ValueError(
            f"Expected the bands {', '.join(start.bands)} with frame_order {start.frame_order} of {source}, found "
            f"{', '.join(bands)}: its channels mix bands and dates, so no band can be picked. Start from a "
            "backbone instead."
        )
    if not set(_BAND_STATISTICS) <= given.keys():
        # Statistics follow their bands by name.
        places = find_band_names(bands, start.bands)
        known = [place for place in places if place is not None]
        if len(known) < len(bands):
            raise ValueError(
                f"Expected image_mean and image_std of the bands {', '.join(bands)}, found statistics in {source} "
                f"for {', '.join(start.bands)} alone. Give both in the recipe; `prithvi-hf stats` measures them."
            )
        options |= {name: [options[name][place] for place in known] for name in _BAND_STATISTICS}
    return PrithviImageProcessor(**{**options, **given})


def read_starting_config(source: str) -> PrithviConfig:
    """Read the configuration of a starting model, a folder or Hub repository of this package's layout."""
    path = Path(source)
    if path.is_file():
        raise ValueError(
            f"Expected --model as a folder or Hub id, found the file {source}. Make a folder of it by "
            f"`prithvi-hf convert {source} FOLDER`."
        )
    check_model_source(source)
    check_has_weights(source)
    found = PrithviConfig.get_config_dict(source)[0].get("model_type")
    if found != PrithviConfig.model_type:
        raise ValueError(
            f"Expected the config.json of {source} to be of model_type {PrithviConfig.model_type!r}, found {found!r}. "
            "Original weights are converted by `prithvi-hf convert SOURCE FOLDER`; give that folder to --model."
        )
    return PrithviConfig.from_pretrained(source)


class _RecipeLoader(yaml.SafeLoader):
    """YAML without keys that stand twice, strange characters, NaN, and nesting or aliases that no recipe needs."""

    def construct_document(self, node: Any) -> Any:
        """Check the nodes before anything is made of them."""
        self._measure(node, {}, [])
        return super().construct_document(node)

    def _measure(self, node: Any, sizes: dict[int, int], above: list[int]) -> int:
        """Count the values in a node; those of an alias count wherever it stands."""
        problem = None
        if len(above) > _MAX_DEPTH or id(node) in above:
            problem = f"more than {_MAX_DEPTH} levels of lists and options in each other"
        elif id(node) not in sizes and isinstance(node, yaml.ScalarNode):
            if _STRANGE.search(node.value):
                problem = "a control character or half of a surrogate pair"
            sizes[id(node)] = 1
        elif id(node) not in sizes:
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            keys = [key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode)]
            double = next((key for key in keys if keys.count(key) > 1), None)
            parts = itertools.chain.from_iterable(pairs) if pairs else node.value
            sizes[id(node)] = 1 + sum(self._measure(part, sizes, [*above, id(node)]) for part in parts)
            if double is not None:
                problem = f"{double} twice"
            elif sizes[id(node)] > _MAX_VALUES:
                problem = f"more than {_MAX_VALUES:,} values"
        if problem is not None:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return sizes[id(node)]


def check_value(name: str, value: Any, hint: Any, path: Path) -> None:
    """Raise unless a YAML value has its option's type; an integer will do for a float."""
    candidates = [value]
    if type(value) is int:
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
    note = " YAML reads 1e-4 as text: write 1.0e-4." if any(map(_NUMBER.fullmatch, texts)) else ""
    if "list[str]" in str(hint) and not isinstance(value, str):
        items = enumerate(value if isinstance(value, list) else [value], start=1)
        odd = [f"number {place} is {item!r}" for place, item in items if not isinstance(item, str)]
        words = "yes, no, on, off, true, false, null, ~ and numbers"
        note = f' {", ".join(odd)}: YAML reads {words} otherwise; write them in quotes, as in {name}: ["no", "yes"].'
    elif "list[str]" in str(hint):
        note = f" Write a list in brackets, each text in quotes where YAML reads it otherwise: {name}: ["
        note += ", ".join(f'"{item.strip()}"' for item in value.split(",")) + "]."
    elif isinstance(value, bool):
        note = " YAML reads yes, no, true and false as switches: write such a text in quotes."
    raise ValueError(f"{path}: {name} has the wrong type. {problem}.{note}")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of `name: value` lines, within limits and without anything that could run."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES:,} bytes")
        content = yaml.load(path.read_text(encoding="utf-8"), _RecipeLoader)  # noqa: S506  # it is a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, a number of 5,000 digits
        raise ValueError(f"Expected {path} to be a YAML file of options, found: {error}. Correct it there.") from error
    if not isinstance(content, dict):
        raise ValueError(f"Expected {path} to hold 'name: value' lines, found {type(content).__name__}.")
    return content


def find_option_types(groups: Sequence[type]) -> dict[str, Any]:
    """Find the type of each option of some dataclasses."""
    pairs = [(get_type_hints(group), fields(group)) for group in groups]
    return {option.name: hints[option.name] for hints, options in pairs for option in options if option.init}


def read_options(name_or_path: str | Path, groups: Sequence[type] = OPTION_GROUPS) -> dict[str, Any]:
    """Read the options in a recipe, with known names and values of the right types."""
    path, types = find_recipe(name_or_path), find_option_types(groups)
    content = read_yaml(path)
    unknown = sorted(str(name) for name in content if name not in types)
    if unknown:
        near = {name: get_close_matches(name, types, n=1) for name in unknown}
        hints = [f"{name} (did you mean {match[0]}?)" if match else name for name, match in near.items()]
        raise ValueError(f"{path} has unknown option(s): {', '.join(hints)}. See --help_all for all of them.")
    for name, value in content.items():
        check_value(name, value, types[name], path)
        # A file value of NaN is no data anyway; anywhere else NaN would spread without a word.
        if name != "nodata_value" and any(item != item for item in (value if isinstance(value, list) else [value])):
            raise ValueError(f"{path}: expected numbers for {name}, found NaN. Correct or leave it out.")
    return content


def find_packaged_recipes() -> dict[str, Path]:
    """Find the recipes of this package by name."""
    return {recipe.stem: recipe for recipe in sorted(_RECIPES.glob("*.yaml"))}


def find_recipe(name_or_path: str | Path) -> Path:
    """Find the file of a recipe, a YAML file or the name of one of this package such as `sen1floods11`."""
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    packaged = find_packaged_recipes()
    if str(name_or_path) in packaged:
        return packaged[str(name_or_path)]
    raise FileNotFoundError(
        f"Expected a YAML file or one of the recipes {', '.join(packaged)}, found neither under {name_or_path}."
    )


def read_recipe(path: str | Path) -> Recipe:
    """Read the model and data options of a YAML recipe, a file or a name (see [`find_recipe`])."""
    return Recipe.from_values(read_options(path))


def parse_arguments(
    arguments: Sequence[str] | None = None, description: str | None = None, program: str | None = None
) -> TrainingRecipe:
    """Read `--config FILE ...` and every other option of the command line, which wins over the files."""
    groups, given = parse_groups(OPTION_GROUPS, MAIN_OPTIONS, arguments, description, program)
    model, data, training, repeats = groups
    return TrainingRecipe(model, data, given, training=training, repeats=repeats)


def parse_groups(
    groups: Sequence[type],
    main_options: Mapping[str, str],
    arguments: Sequence[str] | None,
    description: str | None,
    program: str | None,
) -> tuple[list[Any], dict[str, Any]]:
    """Read recipes and the command line into one instance of each dataclass, and give the options that were given."""
    usage = "%(prog)s [--config FILE ...] [--OPTION VALUE ...]; --help lists the main ones"
    kinds: Any = groups  # typed as dataclasses of one class
    parser = HfArgumentParser(kinds, prog=program, usage=usage, description=description, allow_abbrev=False)
    defaults, types = (
        {option.name: option.default for group in kinds for option in fields(group)},
        find_option_types(groups),
    )
    for action in parser._actions:
        if action.dest in ("band_map", "report_to"):
            action.nargs = "+"
        if action.dest == "coords_encoding":
            action.nargs = "*"
        # `none` unsets an option, so that it can undo what a file sets; report_to has a "none" of its own.
        optional = type(None) in get_args(types.get(action.dest))
        if optional and defaults[action.dest] != "none" and callable(action.type):
            action.type = _accept_none(action.type)
    parser.add_argument(
        "--config",
        metavar="FILE",
        nargs="+",
        default=[],
        help=f"Recipes, later ones win: YAML files or names ({', '.join(find_packaged_recipes())}). Every option of a "
        "recipe can be given here as well.",
    )
    parser.add_argument("--help_all", action="help", help="show every option, also those of transformers' Trainer")
    words = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help", "--help_all"} & {*words}:
        arrange_help(parser, groups, main_options, everything="--help_all" in words)
    files, _ = parser.parse_known_args(arguments)
    values: dict[str, Any] = {}
    for name in files.config:
        values |= read_options(name, groups)
    if getattr(files, "architecture", None) == "unet" and (left_out := sorted({*_ENCODER_OPTIONS} & values.keys())):
        logger.warning(f"--architecture unet has no encoder: the recipe's {', '.join(left_out)} are left out.")
        values = {name: value for name, value in values.items() if name not in left_out}
    if files.output_dir is None and "output_dir" not in values:
        raise ValueError("Expected --output_dir, the folder for the model and its results, found none.")
    found = vars(parser.parse_args(arguments, argparse.Namespace(**values)))
    # Of an option that is a list, `none` is read as [None]; beside others it is one of the texts.
    options: dict[str, Any] = {name: None if value == [None] else value for name, value in found.items()}
    if options.get("class_names") is not None:
        options["class_names"] = ["none" if name is None else name for name in options["class_names"]]
    unset = vars(parser.parse_args([]))
    given = {name: value for name, value in options.items() if value != unset[name]}
    given = {name: value.value if isinstance(value, Enum) else value for name, value in given.items()}
    texts = {name: value if isinstance(value, list) else [value] for name, value in given.items()}
    texts = {name: [part for part in parts if isinstance(part, str)] for name, parts in texts.items()}
    empty = [name for name, parts in texts.items() if not all(map(str.strip, parts)) and defaults.get(name) != ""]
    if empty:
        raise ValueError(
            f"Expected a value of {', '.join(empty)}, found an empty text. Give one, or leave the option out; `none` "
            "undoes what a recipe sets."
        )
    given["seed"] = options["seed"]  # a run is repeated by it, whatever the default will be
    metric = "metric_for_best_model"  # asked for, it is checked, also where it is the default of segmentation
    is_asked_for = metric in values or any(word.startswith(f"--{metric}") for word in words)
    return make_groups(kinds, options, is_asked_for), given


def make_groups(groups: Sequence[type], options: Mapping[str, Any], has_metric: bool) -> list[Any]:
    """Make one instance of each dataclass; without a metric of its own, a task has its first to choose checkpoints."""
    if options.get("task", "segmentation") != "segmentation" and not has_metric:
        options = {**options, "metric_for_best_model": next(iter(TASK_METRICS[options["task"]]))}
    named = [{option.name for option in fields(group) if option.init} & options.keys() for group in groups]
    return [group(**{name: options[name] for name in names}) for group, names in zip(groups, named, strict=True)]


def arrange_help(
    parser: argparse.ArgumentParser, kinds: Sequence[type], main_options: Mapping[str, str], everything: bool
) -> None:
    """Show the options that matter first under headings, and the others below them or not at all."""
    actions = {action.dest: action for action in reversed(parser._actions)}  # --do_train, not --no_do_train
    for action in parser._actions:  # one spelling of each option is enough, and no "(default: None)"
        action.option_strings = [text for text in action.option_strings if "-" not in text.lstrip("-")]
        action.default = argparse.SUPPRESS if action.default is None else action.default
    groups = {title: names.split() for title, names in main_options.items()}
    shown = {"help", "help_all", *itertools.chain.from_iterable(groups.values())}
    if everything:
        groups |= {
            f"other options: {title}": [option.name for option in fields(group) if option.name not in shown]
            for title, group in zip(("the model", "the data", "the training", "the repeats"), kinds, strict=False)
        }
    general = parser._optionals
    general._group_actions = [action for action in parser._actions if action.dest in ("help", "help_all")]
    parser._action_groups = [general]
    for title, names in groups.items():
        parser.add_argument_group(title)._group_actions = [actions[name] for name in names if name in actions]


def _accept_none(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """Make a reader of command-line words that knows `none` too."""

    @wraps(convert)
    def read(text: str) -> Any:
        return None if text.lower() == "none" else convert(text)

    return read
