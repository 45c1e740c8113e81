# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Convert original Prithvi checkpoints to `save_pretrained` folders.

Layouts: masked autoencoders of both generations (`Prithvi_100M.pt`, `Prithvi_EO_V1_100M.pt`,
`Prithvi_EO_V2_300M_TL.pt`), mmsegmentation's fine-tuned checkpoints (`backbone.`, `neck.`, `decode_head.`,
`auxiliary_head.`) and those of terratorch (`model.encoder.`, `model.neck.`, `model.decoder.`, `model.head.`). What no
weight shows comes from the configuration beside them or, for the published ones of mmsegmentation, from their recipe:

    prithvi-hf convert hf://ibm-nasa-geospatial/Prithvi-EO-2.0-300M-TL backbone
    prithvi-hf convert hf://ibm-nasa-geospatial/Prithvi-EO-2.0-300M-TL-Sen1Floods11 floods
    prithvi-hf convert hf://ibm-nasa-geospatial/Prithvi-EO-1.0-100M-burn-scar burns
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prithvi_hf.conversion.infer_config import (
    POSITION_TOLERANCE,
    find_positions,
    infer_config,
    infer_grid,
    infer_values,
)
from prithvi_hf.conversion.original_config import OriginalConfig, find_contradictions, find_original_config
from prithvi_hf.conversion.read_checkpoint import Checkpoint, find_file, find_published_recipe, load_checkpoint
from prithvi_hf.conversion.tensor_names import (
    convert_names,
    has_pretraining_decoder,
    is_segmentation_layout,
    is_terratorch_layout,
)
from prithvi_hf.disk import check_new_folder, explain_disk_full, write_folder
from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.models.prithvi.decode_heads_prithvi import MAP_NECKS
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.modeling_prithvi import (
    PrithviForSemanticSegmentation,
    PrithviModel,
    PrithviPreTrainedModel,
)
from prithvi_hf.models.prithvi.pretraining_prithvi import PrithviForPreTraining
from prithvi_hf.models.prithvi.processor_options_prithvi import to_json_number
from prithvi_hf.models.prithvi.regression_prithvi import PrithviForPixelRegression


if TYPE_CHECKING:
    from prithvi_hf.training.recipe import Recipe


ORIGINAL_PROCESSING: dict[str, tuple[dict[str, Any], str]] = {
    "multi_temporal_crop": (
        {"frame_order": "original_crop"},
        "the original's crop pipeline mixes bands and dates, and its checkpoints need input mixed in the same way",
    ),
    "hls_irrigation_scenes": (
        {"frame_order": "original_crop"},
        "the original's irrigation pipeline mixes bands and dates; it also trains output k on mask value k, so that "
        "output 0 is not a class and class_names of the recipe are one place off",
    ),
}
"""Where the original's mmsegmentation checkpoints expect other input than the recipe, which fixes its faults: by the
recipe's dataset, the image processor's options and the reason."""

SECOND_GENERATION_MEAN = [1087.0, 1342.0, 1433.0, 2734.0, 1958.0, 1363.0]
SECOND_GENERATION_STD = [2248.0, 2179.0, 2178.0, 1850.0, 1242.0, 1049.0]
"""Statistics of the six bands that Prithvi-EO-2.0 was pretrained with, reflectance times 10,000."""

_CONFIG_FIELDS = {"num_labels", "label2id", *PrithviConfig.__dataclass_fields__}


@dataclass
class ConversionReport:
    """What a conversion did with every tensor."""

    model_class: str  # of the model that was written
    source: str = ""  # where the tensors came from
    converted: dict[str, list[str]] = field(default_factory=dict)  # original name to the names it became
    dropped: dict[str, str] = field(default_factory=dict)  # original name to the reason it was left out
    newly_initialized: list[str] = field(default_factory=list)  # names of the model that the source did not hold
    assumed: dict[str, Any] = field(default_factory=dict)  # configuration values that no tensor's shape shows
    config_file: str | None = None  # the original configuration that was read
    config: dict[str, Any] = field(default_factory=dict)  # values of configuration and processor that it gave
    recipe: dict[str, Any] = field(default_factory=dict)  # values of configuration and processor that the recipe gave
    notes: list[str] = field(default_factory=list)  # what a user should know about the source

    def __str__(self) -> str:
        """A text for people: counts first, then every name that was not simply converted."""
        lines = [
            f"{self.model_class}: {len(self.converted)} tensors converted, {len(self.dropped)} dropped, "
            f"{len(self.newly_initialized)} newly initialised."
        ]
        lines += [f"  dropped {name}: {reason}" for name, reason in self.dropped.items()]
        lines += [f"  newly initialised: {name}" for name in self.newly_initialized]
        lines += [f"  assumed {name} = {value} (not visible in any shape)" for name, value in self.assumed.items()]
        lines += [f"  from {self.config_file}: {name} = {value}" for name, value in self.config.items()]
        lines += [f"  from the recipe: {name} = {value}" for name, value in self.recipe.items()]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])

    def save(self, path: str | Path) -> None:
        """Write everything as JSON; an existing file is replaced, and only by a whole one."""
        from prithvi_hf.outputs.cog import complete_or_absent  # with rasterio, which conversion does not need

        recipe = {name: to_json_number(value) for name, value in self.recipe.items()}
        text = json.dumps({**asdict(self), "recipe": recipe}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        with complete_or_absent(path) as part:
            part.write_text(text, encoding="utf-8")


def convert_state_dict(
    state_dict: Mapping[str, torch.Tensor],
    config: PrithviConfig,
    for_model: type[PrithviPreTrainedModel] | str | None = None,
) -> dict[str, torch.Tensor]:
    """Turn an original state dict into one of this package. Pure: nothing is read, written or changed.

    Args:
        state_dict (`Mapping[str, torch.Tensor]`): Tensors under their original names. Those of an encoder become a
            state dict of `PrithviModel`, those of a model of mmsegmentation or terratorch one of
            `PrithviForSemanticSegmentation` or, with a single output, of `PrithviForPixelRegression`.
        config (`PrithviConfig`): Configuration that the names and shapes are checked against.
        for_model (`type` or `str`, *optional*): `PrithviForPreTraining`, or its name, to keep the decoder that a file
            of the masked autoencoder holds; `PrithviModel`, the default, drops it.

    Returns:
        `dict[str, torch.Tensor]` that the model loads with `strict=True`.

    Raises:
        ValueError: A name is unknown or missing, or a shape differs from the configuration's.
    """
    model_class = _find_model_class(state_dict, for_model)
    with_decoder = model_class is PrithviForPreTraining
    coords = config.coords_scale_learn, config.coords_encoding
    converted, _ = convert_names(state_dict, bool(config.use_auxiliary_head), with_decoder, *coords)
    return _fit_tensors(converted, model_class, config)


def _fit_tensors(
    converted: Mapping[str, Mapping[str, torch.Tensor]],
    model_class: type[PrithviPreTrainedModel],
    config: PrithviConfig,
) -> dict[str, torch.Tensor]:
    """Put converted tensors together, which have to be those of the model, with its shapes."""
    tensors = {new: value for group in converted.values() for new, value in group.items()}
    with torch.device("meta"):  # names and shapes without memory
        model = model_class(config)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    problems = [f"{name}: missing" for name in sorted(expected.keys() - tensors.keys())]
    problems += [f"{name}: the model has no such tensor" for name in sorted(tensors.keys() - expected.keys())]
    problems += [
        f"{name}: expected {expected[name]}, found {tuple(value.shape)}"
        for name, value in tensors.items()
        if name in expected and tuple(value.shape) != expected[name]
    ]
    if problems:
        raise ValueError(
            f"The checkpoint does not fit the configuration ({len(problems)} tensor(s)): {'; '.join(problems[:6])}. "
            "Correct the configuration, or let convert_checkpoint read it from the shapes."
        )
    return tensors


def _find_model_class(
    state_dict: Mapping[str, torch.Tensor], for_model: type[PrithviPreTrainedModel] | str | None = None
) -> type[PrithviPreTrainedModel]:
    """Find the model that a state dict is of; a name that does not fit it is an error."""
    if is_segmentation_layout(state_dict):
        fitting: list[type[PrithviPreTrainedModel]] = [PrithviForSemanticSegmentation]
        if is_terratorch_layout(state_dict) and infer_values(state_dict)["num_labels"] == 1:
            fitting.insert(0, PrithviForPixelRegression)
    else:
        fitting = [PrithviModel, PrithviForPreTraining][: 2 if has_pretraining_decoder(state_dict) else 1]
    name = for_model if isinstance(for_model, str) or for_model is None else for_model.__name__
    found = next((model_class for model_class in fitting if name in (None, model_class.__name__)), None)
    if found is None:
        raise ValueError(
            f"Expected for_model to be one that the file has the weights of, "
            f"{' or '.join(model_class.__name__ for model_class in fitting)}, found {name}."
        )
    return found


def convert_checkpoint(
    source: str | Path,
    output_dir: str | Path,
    recipe: str | Path | None = None,
    report: str | Path | None = None,
    for_model: str | None = None,
    original_config: str | Path | None = None,
    **overrides: Any,
) -> ConversionReport:
    """Convert an original checkpoint file to a folder that `from_pretrained` loads.

    Args:
        source (`str` or `Path`): A `.pt`, `.pth` or `.safetensors` file, or `hf://owner/name/file` on the Hub
            (`hf://owner/name` where the repository is a published one or holds one checkpoint, `name@revision` for
            another than the newest).
        output_dir (`str` or `Path`): New or empty folder for the model and its image processor and, as `recipe.yaml`,
            the recipe.
        recipe (`str` or `Path`, *optional*): Name of a packaged recipe, or a YAML file like one, that names what no
            shape reveals: classes, bands, statistics, label rules, attention heads, loss. By default that of a
            published model of mmsegmentation, and none of others. Without it and an original configuration the image
            processor has the pretraining statistics, and class names are those stored with the weights, if any.
        report (`str` or `Path`, *optional*): JSON file for the whole report.
        for_model (`str`, *optional*): `"PrithviForPreTraining"` keeps the decoder of a masked autoencoder, as
            `convert_state_dict` does.
        original_config (`str` or `Path`, *optional*): The original's `config.json` or terratorch's `config.yaml`, a
            file or `hf://owner/name/file`. By default the one beside the weights that fits them or, without one,
            what Lightning stored with them. Where it says something else than a weight shows, that is an error if it
            is named here, else a note in the report, and the weight decides.
        overrides: `PrithviConfig` fields and `PrithviImageProcessor` options that replace what was read from the
            shapes, the original configuration or the recipe.

    Returns:
        [`ConversionReport`]: What became of every tensor.

    Raises:
        FileNotFoundError: The source or the recipe does not exist.
        ValueError: The source is not a known checkpoint or holds weights that are not finite numbers, the recipe
            contradicts it, an override is unknown, or the output folder is not empty. Nothing is written.
        OSError: The output folder cannot be written, the disk is full, or another process wrote there meanwhile.
            Nothing is left behind.
    """
    # What cannot be asked for or written to is refused before anything is read.
    output_dir, overrides = Path(output_dir), _check_overrides(overrides)
    check_new_folder(output_dir)
    if report is not None:
        file = Path(report)
        if file.is_dir() or (not file.parent.is_dir() and file.parent.resolve() != output_dir.resolve()):
            raise ValueError(
                f"Expected a file in an existing folder for the report, found {file}. Make the folder first."
            )
    recipe = recipe or find_published_recipe(source)
    loaded = None if recipe is None else _read_recipe(recipe, overrides)
    config_file = None if original_config is None else find_file(str(original_config))[1]
    checkpoint = load_checkpoint(source, with_configs=config_file is None)
    state_dict = checkpoint.state_dict
    model_class = _find_model_class(state_dict, for_model)
    result = ConversionReport(model_class.__name__, checkpoint.source)

    # The shapes first, over them the original configuration, the recipe or the class names stored with the weights,
    # over these the overrides.
    original = find_original_config(checkpoint, config_file, overrides.keys())
    result.notes += original.notes
    values = dict(original.values)
    if loaded is not None:
        result.recipe = _read_recipe_values(loaded, str(recipe), state_dict, overrides)
        values |= result.recipe
    values |= _read_stored_classes(checkpoint, {**values, **overrides}, result)
    values |= {name: value for name, value in overrides.items() if name in _CONFIG_FIELDS}
    config = infer_config(state_dict, **values)
    processor = _make_image_processor(loaded, original, state_dict, config, overrides, result)
    unsaid = {*overrides, "label2id", "num_channels"}  # the last two are of class names and bands
    result.recipe = {name: value for name, value in result.recipe.items() if name not in unsaid}
    given, unsaid = {**original.values, **original.processing}, unsaid | result.recipe.keys()
    result.config_file = original.source
    result.config = {name: value for name, value in given.items() if name not in unsaid}

    model = _build_model(checkpoint, model_class, config, result)
    _note_assumptions(state_dict, config, values, result)
    with write_folder(output_dir) as folder:
        for part in (model, processor):
            if part is not None:
                part.save_pretrained(folder)
        if loaded is not None:
            loaded.save(folder / "recipe.yaml")
    if report is not None:
        folder = Path(report).parent
        with explain_disk_full(folder, f"The model is complete in {output_dir}; its report is missing."):
            result.save(report)
    return result


def _build_model(
    checkpoint: Checkpoint, model_class: type[PrithviPreTrainedModel], config: PrithviConfig, report: ConversionReport
) -> PrithviPreTrainedModel:
    """Build the model with the weights of a checkpoint, and report what became of each."""
    with_decoder = model_class is PrithviForPreTraining
    coords = config.coords_scale_learn, config.coords_encoding
    converted, report.dropped = convert_names(
        checkpoint.state_dict, bool(config.use_auxiliary_head), with_decoder, *coords
    )
    broken = [name for name, group in converted.items() if not all(part.isfinite().all() for part in group.values())]
    if broken:  # by a training that diverged or a damaged copy: every map would be without meaning
        names = ", ".join(broken[:6]) + (" and others" if len(broken) > 6 else "")
        raise ValueError(
            f"Expected weights that are finite numbers, found NaN or infinite values in {len(broken)} tensor(s) of "
            f"{checkpoint.source}: {names}. Export the checkpoint again, from a step before its training diverged, or "
            "download it again."
        )
    model = model_class(config)
    model.load_state_dict(_fit_tensors(converted, model_class, config), strict=True)
    report.converted = {name: list(group) for name, group in converted.items()}
    averaging = "a copy that mmcv's EMAHook keeps of the weights before averaging"
    report.dropped |= dict.fromkeys(checkpoint.averaging, averaging)
    return model


def _note_assumptions(
    state_dict: Mapping[str, torch.Tensor], config: PrithviConfig, values: Mapping[str, Any], report: ConversionReport
) -> None:
    """Report the fields that neither the weights nor `values` show, and learned positions."""
    positions, segmentation = find_positions(state_dict), is_segmentation_layout(state_dict)
    unseen = ["num_attention_heads", "layer_norm_eps"]
    unseen += ["decoder_num_attention_heads"] if report.model_class == PrithviForPreTraining.__name__ else []
    if config.neck in MAP_NECKS and "out_indices" not in values:
        report.assumed["out_indices"] = config.feature_layers
    unseen += ["pool_scales"] if config.decode_head == "upernet" else []
    if positions is None:
        unseen += ["image_size"] if segmentation else ["image_size", "num_frames"]  # the neck shows the frames
    report.assumed |= {name: getattr(config, name) for name in unseen if name not in values}
    difference = infer_grid(positions, config.grid_size[0] if segmentation else None)[1]
    if difference > POSITION_TOLERANCE:
        report.notes.append(
            f"the stored pos_embed differs from the fixed table by up to {difference:.3g}; the fixed table is used"
        )


def _check_overrides(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Rename overrides to the names of this package; one that neither configuration nor processor has is an error."""
    renamed = {PrithviConfig.attribute_map.get(name, name): value for name, value in overrides.items()}
    known = _CONFIG_FIELDS | set(PrithviImageProcessor.option_names())
    for name in sorted(renamed.keys() - known):
        near = " or ".join(get_close_matches(name, known)) or "a field of PrithviConfig or PrithviImageProcessor"
        raise ValueError(f"There is no configuration field or processor option {name} to set, expected {near}.")
    names = renamed.get("id2label")
    if isinstance(names, Mapping) and all(str(index).isdecimal() for index in names):  # what JSON holds has text keys
        renamed["id2label"] = {int(index): name for index, name in names.items()}
        renamed.setdefault("label2id", {name: index for index, name in renamed["id2label"].items()})
    return renamed


def _read_recipe(recipe: str | Path, overrides: Mapping[str, Any]) -> "Recipe":
    """Read a recipe without what is of a training run, not of a checkpoint: its starting model and its kernels.

    It is saved with the model, so class names that are overridden are so in it too, and other classes' figures go.
    """
    from prithvi_hf.training.recipe import find_recipe, read_recipe

    loaded = read_recipe(find_recipe(recipe))
    for name in ("model", "attn_implementation"):
        setattr(loaded.model, name, None)
        loaded.given.pop(name, None)
    names = overrides.get("id2label")
    if isinstance(names, Mapping) and list(names.values()) != loaded.data.class_names:
        loaded.data.class_names = loaded.given["class_names"] = list(names.values())
        loaded.given.pop("published", None)
    return loaded


def _read_recipe_values(
    loaded: "Recipe", recipe: str, state_dict: Mapping[str, torch.Tensor], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Read the configuration values of a recipe; where the shapes show others, an override must decide."""
    values, shown = loaded.get_config_values(), infer_values(state_dict)
    # Only training uses the auxiliary head: a checkpoint without it, or a model without it, is complete.
    free = {"use_auxiliary_head", *overrides}
    if not is_segmentation_layout(state_dict):
        # The positions are computed and the neck is not there yet: a backbone takes any number of frames and any size.
        free |= {"num_frames", "image_size"}
    elif find_positions(state_dict) is None:
        free.add("image_size")
    pairs = find_contradictions(shown, {name: value for name, value in values.items() if name not in free})
    if "id2label" in values and "id2label" not in free:
        count = len(values["id2label"])
        if shown.get("num_labels", count) != count:
            pairs["number of classes (class_names)"] = shown["num_labels"], count
    if pairs:
        wrong = [f"{name}: the checkpoint has {found}, the recipe {value}" for name, (found, value) in pairs.items()]
        raise ValueError(
            f"Expected the recipe {recipe} to fit the checkpoint. {'; '.join(wrong)}. Give the recipe that the "
            "checkpoint was trained with, or override single values (--set NAME=VALUE)."
        )
    if not shown.get("use_auxiliary_head", True):
        values.pop("use_auxiliary_head", None)
    return values


def _read_stored_classes(checkpoint: Checkpoint, given: Mapping[str, Any], report: ConversionReport) -> dict[str, Any]:
    """Read class names and colours stored with the weights, where nothing else gives names."""
    names = checkpoint.class_names
    if names is None or not is_segmentation_layout(checkpoint.state_dict):
        return {}
    if "id2label" in given:
        if not isinstance(given["id2label"], Mapping) or list(given["id2label"].values()) != names:
            report.notes.append(f"the class names stored with the weights differ and were not taken: {names}")
        return {}
    num_labels = infer_values(checkpoint.state_dict)["num_labels"]
    if len(names) != num_labels:
        report.notes.append(
            f"the {len(names)} class names stored with the weights were not taken: the head has {num_labels} classes"
        )
        return {}
    report.notes.append("class names are those stored with the weights (CLASSES)")
    found = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    colors = None if "class_colors" in given else checkpoint.class_colors
    return found if colors is None else {**found, "class_colors": colors}


def _make_image_processor(
    loaded: "Recipe | None",
    original: OriginalConfig,
    state_dict: Mapping[str, torch.Tensor],
    config: PrithviConfig,
    overrides: Mapping[str, Any],
    report: ConversionReport,
) -> PrithviImageProcessor | None:
    """Make the image processor of the converted model, or None where the statistics of its bands are not known."""
    names = PrithviImageProcessor.option_names()
    source = PrithviImageProcessor() if loaded is None else loaded.build_image_processor()
    options = {name: getattr(source, name) for name in names} | original.processing
    if loaded is not None:
        mixed: dict[str, Any] = {}
        if loaded.data.dataset in ORIGINAL_PROCESSING and is_segmentation_layout(state_dict):
            expected, reason = ORIGINAL_PROCESSING[loaded.data.dataset]
            mixed = {name: value for name, value in expected.items() if name not in overrides}
            settings = ", ".join(f"{name} = {value}" for name, value in mixed.items())
            report.notes.append(f"{settings or 'overridden: ' + ', '.join(expected)}: {reason}")
        given = {name: getattr(source, name) for name in names if getattr(loaded.data, name, None) is not None}
        report.recipe |= {name: given[name] for name in given if name not in overrides.keys() | mixed.keys()}
        options |= given | mixed
    elif config.coords_encoding and not is_terratorch_layout(state_dict):
        options["first_day_of_year"] = 1  # the model card of the pretraining counts days from 1 to 365
    options |= {name: overrides[name] for name in names if name in overrides} | {"num_frames": config.num_frames}
    is_second = bool(config.coords_encoding) or config.num_frames == 4 or is_terratorch_layout(state_dict)
    if is_second and loaded is None and "image_mean" not in original.processing:
        statistics = {"image_mean": SECOND_GENERATION_MEAN, "image_std": SECOND_GENERATION_STD}
        report.assumed |= {name: value for name, value in statistics.items() if name not in overrides}
        options |= {name: value for name, value in statistics.items() if name not in overrides}
    known_bands = len(source.bands) == config.num_channels and options["bands"] == source.bands
    if known_bands or {"bands", "image_mean", "image_std"} <= overrides.keys() | original.processing.keys():
        return PrithviImageProcessor(**options)
    report.notes.append(
        f"no image processor is written: names and statistics of {config.num_channels} bands are not known; give "
        "them with a recipe, or set bands, image_mean and image_std"
    )
    return None
