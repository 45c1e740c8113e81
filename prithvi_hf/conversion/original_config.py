# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What stands beside original weights: the Hub's `config.json`, terratorch's `config.yaml`, Lightning's parameters."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prithvi_hf.conversion.infer_config import (
    UnsupportedModelError,
    find_positions,
    infer_values,
    read_terratorch_fields,
)
from prithvi_hf.conversion.read_checkpoint import Checkpoint, is_config_name
from prithvi_hf.conversion.tensor_names import is_segmentation_layout, is_terratorch_layout
from prithvi_hf.models.prithvi.configuration_prithvi import PRITHVI_BANDS, read_json
from prithvi_hf.models.prithvi.loss_prithvi import REGRESSION_LOSSES
from prithvi_hf.models.prithvi.original_fields_prithvi import read_original_fields
from prithvi_hf.training.recipe import read_yaml


_SENTINEL_2 = ["COASTAL_AEROSOL", "BLUE", "GREEN", "RED", "RED_EDGE_1", "RED_EDGE_2", "RED_EDGE_3", "NIR_BROAD"]
_LANDSLIDE_BANDS = [*_SENTINEL_2, "WATER_VAPOR", "CIRRUS", "SWIR_1", "SWIR_2", "SLOPE", "DEM"]
_SENTINEL_2 += ["NIR_NARROW", "WATER_VAPOR", "CIRRUS", "SWIR_1", "SWIR_2"]
_CROPS = ["Natural Vegetation", "Forest", "Corn", "Soybeans", "Wetlands", "Developed/Barren", "Open Water"]
_CROPS += ["Winter Wheat", "Alfalfa", "Fallow/Idle Cropland", "Cotton", "Sorghum", "Other"]
DATA_MODULES: dict[str, dict[str, Any]] = {
    "Sen1Floods11NonGeoDataModule": {
        "dataset_bands": _SENTINEL_2,
        "means": [
            *(0.16450718, 0.1412956, 0.13795798, 0.12353792, 0.1481099, 0.23991728, 0.28587557, 0.26345379),
            *(0.30902815, 0.04911151, 0.00652506, 0.2044958, 0.11912015),
        ],
        "stds": [
            *(0.06977374, 0.07406382, 0.07370365, 0.08692279, 0.07778555, 0.09105416, 0.10690993, 0.10096586),
            *(0.11798815, 0.03380113, 0.01463465, 0.09772074, 0.07659938),
        ],
        "constant_scale": 0.0001,
        "no_data_replace": 0,
        "class_names": ["no water", "water"],
    },
    "FireScarsNonGeoDataModule": {
        "dataset_bands": PRITHVI_BANDS,
        "means": [
            *(0.033349706741586264, 0.05701185520536176, 0.05889748132001316),
            *(0.2323245113436119, 0.1972854853760658, 0.11944914225186566),
        ],
        "stds": [
            *(0.02269135568823774, 0.026807560223070237, 0.04004109844362779),
            *(0.07791732423672691, 0.08708738838140137, 0.07241979477437814),
        ],
        "no_data_replace": 0,
        "class_names": ["unburnt land", "burn scar"],
        "first_day_of_year": 1,
    },
    "Landslide4SenseNonGeoDataModule": {
        "dataset_bands": _LANDSLIDE_BANDS,
        "means": [
            *(-0.4914, -0.3074, -0.1277, -0.0625, 0.0439, 0.0803, 0.0644, 0.0802, 0.3, 0.4082, 0.0823, 0.0516),
            *(0.3338, 0.7819),
        ],
        "stds": [
            *(0.9325, 0.8775, 0.8860, 0.8869, 0.8857, 0.8418, 0.8354, 0.8491, 0.9061, 1.6072, 0.8848, 0.9232),
            *(0.9018, 1.2913),
        ],
        "class_names": ["no landslide", "landslide"],
        "image_size": 128,
    },
    "MultiTemporalCropClassificationDataModule": {
        "dataset_bands": PRITHVI_BANDS,
        "means": [494.905781, 815.239594, 924.335066, 2968.881459, 2634.621962, 1739.579917],
        "stds": [284.925432, 357.84876, 575.566823, 896.601013, 951.900334, 921.407808],
        "reduce_zero_label": True,
        "class_names": _CROPS,
    },
}
"""What terratorch's data modules know of themselves, by the names of their arguments; statistics are per band."""

# Fields and options that mean nothing where the weights show another value of one.
_DEPENDENT = {
    "hidden_size": ("num_attention_heads",),
    "decoder_hidden_size": ("decoder_num_attention_heads",),
    "num_hidden_layers": ("out_indices",),
    "num_channels": ("bands", "band_indices", "image_mean", "image_std"),
    "num_labels": ("id2label", "label2id", "class_weights", "num_labels", "label_type", "target_nodata_value"),
}
_LOSSES = {"ce": "cross_entropy", "focal": "focal"}


@dataclass
class OriginalConfig:
    """What an original configuration says of weights."""

    source: str | None = None  # the file, or what of the checkpoint; None where there is none
    values: dict[str, Any] = field(default_factory=dict)  # fields of PrithviConfig
    processing: dict[str, Any] = field(default_factory=dict)  # options of the image processor
    of_terratorch: bool = False  # of a model with a head, not of an encoder
    notes: list[str] = field(default_factory=list)


def read_original_config(path: Path) -> OriginalConfig | None:
    """Read a configuration file, or None where it is of something else."""
    return parse_original_config(read_json(path) if path.suffix == ".json" else read_yaml(path), path.name)


def find_contradictions(shown: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Find the fields of which the weights show another value: what they show, and what was given."""
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return {name: (shown[name], value) for name, value in given.items() if name in shown and shown[name] != value}


def find_original_config(
    checkpoint: Checkpoint, named: Path | None = None, overrides: Collection[str] = ()
) -> OriginalConfig:
    """Find the configuration of weights: the file `named`, one beside them, or what Lightning stored with them.

    Its values are those that no weight shows. Where a weight shows another, it decides, and a note says so. Models of
    mmsegmentation have no such file.

    Raises:
        ValueError: The named file is of something else or contradicts the weights, or several files fit as well as
            each other and say different things.
    """
    state_dict = checkpoint.state_dict
    is_terratorch = is_terratorch_layout(state_dict)
    if named is None and is_segmentation_layout(state_dict) and not is_terratorch:
        return OriginalConfig()
    shown = {"coords_encoding": [], **infer_values(state_dict)}
    if find_positions(state_dict) is None:
        free = {"image_size"} if is_terratorch else {"image_size", "num_frames"}  # the neck shows the frames
        shown = {name: value for name, value in shown.items() if name not in free}
    if shown["coords_encoding"] and not shown["coords_scale_learn"]:
        shown.pop("coords_scale_learn")  # a learned scale may be 1
    config = _find_beside(checkpoint, shown, is_terratorch) if named is None else read_original_config(named)
    if config is None:
        raise ValueError(
            f"Expected {named} to be the config.json of a Prithvi model or a config.yaml of terratorch, found "
            "neither. Give another file."
        )
    wrong = {name: pair for name, pair in find_contradictions(shown, config.values).items() if name not in overrides}
    texts = [f"{name} = {str(given)[:200]}, the weights show {found}" for name, (found, given) in wrong.items()]
    if named is not None and texts:
        raise ValueError(
            f"Expected {named} to fit the weights. It says {'; '.join(texts)}. Give the file that they were trained "
            "with, or override single values (--set NAME=VALUE)."
        )
    if not config.of_terratorch and not wrong.keys().isdisjoint(("hidden_size", "num_hidden_layers", "num_frames")):
        said = f"{config.source} beside the weights is of others and was not taken: it says {'; '.join(texts)}"
        return OriginalConfig(notes=[said])
    config.notes += [f"{config.source} says {text}: the weights decide" for text in texts]
    dropped = {other for name in wrong for other in _DEPENDENT.get(name, ())}
    config.values = {name: value for name, value in config.values.items() if name not in shown.keys() | dropped}
    config.processing = {name: value for name, value in config.processing.items() if name not in dropped}
    return config


def _find_beside(checkpoint: Checkpoint, shown: Mapping[str, Any], is_terratorch: bool) -> OriginalConfig:
    """Find the configuration beside weights that fits them best; YAML says more of the data than `config.json`."""
    found: list[OriginalConfig] = []
    notes = []
    paths = [path for path in checkpoint.path.parent.iterdir() if is_config_name(path.name) and path.is_file()]
    paths.sort(key=lambda path: (path.suffix == ".json", path.name))
    for path in [*paths, None]:  # last what Lightning stored
        if found and (path is None or path.suffix == ".json"):
            break
        try:
            stored = checkpoint.hyper_parameters
            config = parse_original_config(stored, "the weights' file") if path is None else read_original_config(path)
        except UnsupportedModelError:
            raise
        except ValueError as error:
            notes.append(f"the configuration {path.name if path else 'in the file'} was not read: {error}")
        else:
            found += [config] if config is not None and config.of_terratorch == is_terratorch else []
    counts = [len(find_contradictions(shown, config.values)) for config in found]
    found = [config for config, count in zip(found, counts, strict=True) if count == min(counts)]
    if any((config.values, config.processing) != (found[0].values, found[0].processing) for config in found):
        raise ValueError(
            f"Expected one configuration beside {checkpoint.path.name}, found {len(found)} that differ: "
            f"{', '.join(str(config.source) for config in found)}. Name the right one by --original_config."
        )
    config = found[0] if found else OriginalConfig()
    config.notes = notes + config.notes
    return config


def parse_original_config(content: Mapping[str, Any], source: str) -> OriginalConfig | None:
    """Read what the Hub's `config.json`, a YAML file of either generation, or Lightning's parameters hold.

    Raises:
        ValueError: It is of a Prithvi model of another kind, or damaged.
    """
    outer = _descend(content, "pretrained_cfg")
    arguments = _descend(_descend(outer, "model"), "init_args")
    model_args = _descend(arguments, "model_args")
    try:
        if "embed_dim" in model_args:
            training = {f"{key}".removeprefix("data_"): value for key, value in _get(outer, "train_params").items()}
            given = {**training, **model_args}
            values = read_original_fields(given)
            names = {"image_mean": "mean", "image_std": "std"}
            processing = {name: _read_numbers(given[key]) for name, key in names.items() if given.get(key)}
            bands = {"bands": values["bands"]} if "bands" in values else {}
            return OriginalConfig(source, values, processing | bands)
        if "backbone" not in model_args:
            return None
        return _read_terratorch(model_args, arguments, _get(outer, "data"), source)
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(
            f"Expected {source} to describe a Prithvi model as its code does, found a part that is not so "
            f"({type(error).__name__}: {error}). Correct it, or give another by --original_config."
        ) from error


def _descend(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Go into a part of a configuration, or stay where there is none of that name."""
    return content[key] if isinstance(content.get(key), Mapping) else content


def _get(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Get a part of a configuration, empty where there is none of that name."""
    return content[key] if isinstance(content.get(key), Mapping) else {}


def _read_numbers(values: Any, bands: Sequence[str] = ()) -> list[float]:
    """Read numbers per band, a list or by name; YAML reads some, as 1e-4, as text."""
    values = [values[band] for band in bands] if isinstance(values, Mapping) else list(values)
    try:
        return [float(value) for value in values]
    except ValueError as error:
        raise TypeError(str(error)) from error


def _read_terratorch(
    model_args: Mapping[str, Any], arguments: Mapping[str, Any], data: Mapping[str, Any], source: str
) -> OriginalConfig:
    """Read a model of terratorch's tasks, with what its data module says of images and labels."""
    values = read_terratorch_fields(model_args)
    known = DATA_MODULES.get(str(data.get("class_path")).rpartition(".")[2], {})
    given = {**known, **_get(data, "dict_kwargs"), **_get(data, "init_args")}
    file_bands = [str(band).rpartition(".")[2] for band in given.get("dataset_bands") or []]
    chosen = given.get("output_bands") or given.get("bands") or values.get("bands") or file_bands
    bands = [file_bands[band] if isinstance(band, int) else str(band).rpartition(".")[2] for band in chosen]
    config = OriginalConfig(source, values, of_terratorch=True)
    if bands:
        values |= {"bands": bands, "num_channels": len(bands)}
        config.processing["bands"] = bands
        if bands != file_bands and set(bands) <= set(file_bands):
            config.processing["band_indices"] = [file_bands.index(band) for band in bands]
    for option, key in (("image_mean", "means"), ("image_std", "stds")):
        if statistics := given.get(key):
            of_module = statistics is known.get(key)  # of every band of the files
            numbers = dict(zip(known["dataset_bands"], statistics, strict=True)) if of_module else statistics
            config.processing[option] = _read_numbers(numbers, bands)
    config.processing["first_day_of_year"] = known.get("first_day_of_year", 0)
    for option, key in (("rescale_factor", "constant_scale"), ("nodata_replacement", "no_data_replace")):
        if given.get(key) is not None:
            (config.processing[option],) = _read_numbers([given[key]])
    # Images of a dataset of one size may have been upsampled for the model.
    resized = [step["init_args"] for step in given.get("test_transform") or [] if "Resize" in str(step)]
    if resized and "image_size" in known:
        side = resized[-1].get("height") or resized[-1]["size"][0]
        values["input_upsampling"] = side / known["image_size"]
    ignored = arguments.get("ignore_index", given.get("no_label_replace"))
    if values["num_labels"] == 1:  # of a regression
        config.processing["label_type"] = "value"
        config.processing |= {} if ignored is None else {"target_nodata_value": ignored}
        values |= {"regression_loss": arguments["loss"]} if arguments.get("loss") in REGRESSION_LOSSES else {}
    else:
        config.processing["num_labels"] = values["num_labels"]
        config.processing |= {} if ignored is None else {"ignore_values": [int(ignored)]}
        config.processing |= {"do_reduce_labels": True} if given.get("reduce_zero_label") else {}
        values |= {"loss": _LOSSES[arguments["loss"]]} if arguments.get("loss") in _LOSSES else {}
        names = [str(name) for name in arguments.get("class_names") or given.get("class_names") or []]
        if len(names) == values["num_labels"]:
            labels = {name: index for index, name in enumerate(names)}
            values |= {"id2label": dict(enumerate(names)), "label2id": labels}
        if arguments.get("class_weights"):
            values["class_weights"] = _read_numbers(arguments["class_weights"])
    if values.get("coords_encoding") and not given.get("use_metadata"):
        config.notes.append(
            f"by {source} the model was tuned without dates and places, though it takes them; to leave them out of "
            "every map, convert with --set coords_encoding=[]"
        )
    if values["num_frames"] > 1:
        config.notes.append(
            "terratorch reads files of several dates as all dates of the first band first, where its data module "
            "expands the dates; files are read here as all bands of the first date first"
        )
    return config
