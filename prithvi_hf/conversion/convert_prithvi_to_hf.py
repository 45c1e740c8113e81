# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Convert original Prithvi checkpoints to `save_pretrained` folders.

Layouts: the flat file of the first generation's masked autoencoder (`Prithvi_100M.pt`, `Prithvi_EO_V1_100M.pt`) and
mmsegmentation's fine-tuned checkpoints (`backbone.`, `neck.`, `decode_head.`, `auxiliary_head.`). The three published
ones, each with its recipe, which names what no weight shows:

    prithvi-hf convert hf://ibm-nasa-geospatial/Prithvi-EO-1.0-100M-sen1floods11 floods --recipe sen1floods11
    prithvi-hf convert hf://ibm-nasa-geospatial/Prithvi-EO-1.0-100M-burn-scar burns --recipe hls_burn_scars
    prithvi-hf convert hf://ibm-nasa-geospatial/Prithvi-EO-1.0-100M-multi-temporal-crop-classification crops \
        --recipe multi_temporal_crop
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prithvi_hf.conversion.infer_config import (
    POSITION_TOLERANCE,
    infer_config,
    infer_grid,
    infer_values,
    stored_positions,
)
from prithvi_hf.conversion.read_checkpoint import Checkpoint, load_checkpoint, load_original_state_dict
from prithvi_hf.conversion.tensor_names import convert_names, is_segmentation_layout
from prithvi_hf.disk import check_writable_folder, naming_a_full_disk
from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.modeling_prithvi import (
    PrithviForSemanticSegmentation,
    PrithviModel,
    PrithviPreTrainedModel,
)
from prithvi_hf.models.prithvi.processor_options_prithvi import to_json_number


if TYPE_CHECKING:
    from prithvi_hf.training.recipe import Recipe


ORIGINAL_PROCESSING: dict[str, tuple[dict[str, Any], str]] = {
    "multi_temporal_crop": (
        {"frame_order": "original_crop"},
        "the original's crop pipeline mixes bands and dates, and its checkpoints need input mixed alike",
    ),
    "hls_irrigation_scenes": (
        {"frame_order": "original_crop"},
        "the original's irrigation pipeline mixes bands and dates; it also trains output k on mask value k, so that "
        "output 0 is no class and class_names of the recipe are one place off",
    ),
}
"""Where the original's checkpoints expect other input than the recipe, which mends its faults: by the recipe's data
set, the image processor's options and the reason. It holds for mmsegmentation checkpoints, which the original made."""

_AVERAGING = "a copy that mmcv's EMAHook keeps of the weights before averaging"
_DERIVED = {"label2id", "num_channels"}  # of a recipe's class names and bands
# The positions are computed and the neck is not there yet: a backbone takes any number of frames and any size.
_FREE_IN_A_BACKBONE = ("num_frames", "image_size")
# Only training uses the auxiliary head: a checkpoint without it, or a model without it, is complete.
_FREE_ALWAYS = ("use_auxiliary_head",)


@dataclass
class ConversionReport:
    """What a conversion did with every tensor.

    Attributes:
        model_class (`str`): Class of the model that was written.
        source (`str`): Where the tensors came from.
        converted (`dict[str, list[str]]`): Original name to the names it became.
        dropped (`dict[str, str]`): Original name to the reason it was left out.
        newly_initialized (`list[str]`): Names of the model that the source did not hold.
        assumed (`dict[str, Any]`): Configuration values that no tensor's shape shows, as they were taken.
        recipe (`dict[str, Any]`): Values of configuration and image processor that the recipe gave.
        notes (`list[str]`): What a user should know about the source.
    """

    model_class: str
    source: str = ""
    converted: dict[str, list[str]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    newly_initialized: list[str] = field(default_factory=list)
    assumed: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """A text for people: counts first, then every name that was not simply converted."""
        lines = [
            f"{self.model_class}: {len(self.converted)} tensors converted, {len(self.dropped)} dropped, "
            f"{len(self.newly_initialized)} newly initialised."
        ]
        lines += [f"  dropped {name}: {reason}" for name, reason in self.dropped.items()]
        lines += [f"  newly initialised: {name}" for name in self.newly_initialized]
        lines += [f"  assumed {name} = {value} (not visible in any shape)" for name, value in self.assumed.items()]
        lines += [f"  from the recipe: {name} = {value}" for name, value in self.recipe.items()]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])

    def save(self, path: str | Path) -> None:
        """Write everything as JSON; an existing file is replaced, and only by a whole one.

        Args:
            path (`str` or `Path`): The file.
        """
        path = Path(path)
        recipe = {name: to_json_number(value) for name, value in self.recipe.items()}
        text = json.dumps({**asdict(self), "recipe": recipe}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(name, 0o644)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)


def convert_state_dict(state_dict: Mapping[str, torch.Tensor], config: PrithviConfig) -> dict[str, torch.Tensor]:
    """Turn an original state dict into one of this package. Pure: nothing is read, written or changed.

    Args:
        state_dict (`Mapping[str, torch.Tensor]`): Tensors under their original names. The flat layout becomes a state
            dict of `PrithviModel` (its decoder is dropped), the mmsegmentation layout one of
            `PrithviForSemanticSegmentation`.
        config (`PrithviConfig`): Configuration that the names and shapes are checked against.

    Returns:
        `dict[str, torch.Tensor]` that the model loads with `strict=True`.

    Raises:
        ValueError: A name is unknown or missing, or a shape differs from the configuration's.
    """
    converted, _ = convert_names(state_dict, config.use_auxiliary_head)
    tensors = {new: value for group in converted.values() for new, value in group.items()}
    with torch.device("meta"):  # names and shapes without memory
        _check_against_model(tensors, _model_class(state_dict)(config))
    return tensors


def _model_class(state_dict: Mapping[str, torch.Tensor]) -> type[PrithviPreTrainedModel]:
    """The class that a layout converts to."""
    return PrithviForSemanticSegmentation if is_segmentation_layout(state_dict) else PrithviModel


def _check_against_model(tensors: Mapping[str, torch.Tensor], model: PrithviPreTrainedModel) -> None:
    """Raise unless names and shapes are exactly those of the model."""
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


def convert_checkpoint(
    source: str | Path,
    output_dir: str | Path,
    recipe: str | Path | None = None,
    report_file: str | Path | None = None,
    **overrides: Any,
) -> ConversionReport:
    """Convert an original checkpoint file to a folder that `from_pretrained` loads.

    Args:
        source (`str` or `Path`): A `.pt`, `.pth` or `.safetensors` file, or `hf://owner/name/file` on the Hub
            (`hf://owner/name` where the repository holds one `.pt` or `.pth` file, `name@revision` for another than
            the newest).
        output_dir (`str` or `Path`): New or empty folder for the model and its image processor and, as `recipe.yaml`,
            the recipe.
        recipe (`str` or `Path`, *optional*): Name of a packaged recipe, or a YAML file like one, that names what no
            shape reveals: classes, bands, statistics, label rules, attention heads, loss. Without it the image
            processor has the pretraining statistics, and class names are those stored with the weights, if any.
        report_file (`str` or `Path`, *optional*): JSON file for the whole report.
        overrides: `PrithviConfig` fields and `PrithviImageProcessor` options that replace what was read from the
            shapes or the recipe.

    Returns:
        [`ConversionReport`]: What became of every tensor.

    Raises:
        FileNotFoundError: The source or the recipe does not exist.
        ValueError: The source is no known checkpoint or holds weights that are no finite numbers, the recipe
            contradicts it, an override is unknown, or the output folder is not empty. Nothing is written.
        OSError: The output folder cannot be written, the disk is full, or another process wrote there meanwhile.
            Nothing is left behind.
    """
    output_dir = Path(output_dir)
    overrides = _known_overrides(overrides)
    _check_outputs(output_dir, report_file)
    loaded = None if recipe is None else _read_recipe(recipe, overrides)
    checkpoint = load_checkpoint(source)
    state_dict = checkpoint.state_dict
    report = ConversionReport(_model_class(state_dict).__name__, checkpoint.source)
    values = {} if loaded is None else _recipe_values(loaded, recipe, state_dict, overrides)
    report.recipe = {name: value for name, value in values.items() if name not in overrides.keys() | _DERIVED}
    values |= _class_values(checkpoint, {**values, **overrides}, report)
    values |= {name: value for name, value in overrides.items() if name in _config_fields()}
    config = infer_config(state_dict, **values)
    processor = _image_processor(loaded, state_dict, config, overrides, report)
    _check_finite(checkpoint, config)
    model = _model_class(state_dict)(config)
    model.load_state_dict(convert_state_dict(state_dict, config), strict=True)
    _account(report, checkpoint, config, values)
    _save_atomically(output_dir, *[part for part in (model, processor) if part is not None], recipe=loaded)
    if report_file is not None:
        with naming_a_full_disk(
            Path(report_file).parent, f"The model is whole in {output_dir}; its report is missing."
        ):
            report.save(report_file)
    return report


# ---------------------------------------------------------------------- what is asked for


def _config_fields() -> set[str]:
    """Names of the configuration that an override may set."""
    return {"num_labels", "label2id", *PrithviConfig.__dataclass_fields__}


def _known_overrides(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides under the names of this package; a name that neither configuration nor processor has is an error."""
    renamed = {PrithviConfig.attribute_map.get(name, name): value for name, value in overrides.items()}
    known = _config_fields() | set(PrithviImageProcessor.option_names())
    for name in sorted(renamed.keys() - known):
        near = " or ".join(get_close_matches(name, known)) or "a field of PrithviConfig or PrithviImageProcessor"
        raise ValueError(f"There is no configuration field or processor option {name} to set, expected {near}.")
    names = renamed.get("id2label")
    if isinstance(names, Mapping) and all(str(index).isdecimal() for index in names):  # what JSON holds has text keys
        renamed["id2label"] = {int(index): name for index, name in names.items()}
        renamed.setdefault("label2id", {name: index for index, name in renamed["id2label"].items()})
    return renamed


def _check_outputs(output_dir: Path, report_file: str | Path | None) -> None:
    """Refuse places that cannot be written to before anything is read."""
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise ValueError(f"Expected {output_dir} to be a new or empty folder, found files there. Choose another name.")
    check_writable_folder(output_dir, "the output folder")
    if report_file is None:
        return
    path = Path(report_file)
    if path.is_dir() or (not path.parent.is_dir() and path.parent.resolve() != output_dir.resolve()):
        raise ValueError(f"Expected a file in an existing folder for the report, found {path}. Make the folder first.")


def _read_recipe(recipe: str | Path, overrides: Mapping[str, Any]) -> "Recipe":
    """A recipe without what is of a training run, not of a checkpoint: its starting model and its kernels.

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


def _recipe_values(
    loaded: "Recipe", recipe: str | Path, state_dict: Mapping[str, torch.Tensor], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Configuration values of a recipe that agrees with the shapes.

    Raises:
        ValueError: A value that shapes show is another there, and no override decides it.
    """
    values, shown = loaded.get_config_values(), infer_values(state_dict)
    if "id2label" in values:
        shown["id2label"] = dict.fromkeys(range(shown.pop("num_labels", len(values["id2label"]))))
    free = {*_FREE_ALWAYS, *(() if is_segmentation_layout(state_dict) else _FREE_IN_A_BACKBONE)}
    if stored_positions(state_dict) is None:
        free.add("image_size")
    wrong = [
        _contradiction(name, shown[name], value)
        for name, value in values.items()
        if name in shown and name not in free | overrides.keys() and _as_shown(value) != _as_shown(shown[name])
    ]
    if wrong:
        raise ValueError(
            f"Expected the recipe {recipe} to fit the checkpoint. {'; '.join(wrong)}. Give the recipe that the "
            "checkpoint was trained with, or override single values (--set NAME=VALUE)."
        )
    missing_head = not shown.get("use_auxiliary_head", True)
    return {name: value for name, value in values.items() if not (name == "use_auxiliary_head" and missing_head)}


def _as_shown(value: Any) -> Any:
    """A value in a form that compares: classes by their number."""
    return len(value) if isinstance(value, dict) else value


def _contradiction(name: str, shown: Any, value: Any) -> str:
    """Both values of one field."""
    name = "number of classes (class_names)" if name == "id2label" else name
    return f"{name}: the checkpoint has {_as_shown(shown)}, the recipe {_as_shown(value)}"


def _class_values(checkpoint: Checkpoint, given: Mapping[str, Any], report: ConversionReport) -> dict[str, Any]:
    """Class names and colours stored with the weights, where nothing else gives names."""
    names = checkpoint.class_names
    if names is None or not is_segmentation_layout(checkpoint.state_dict):
        return {}
    if "id2label" in given:
        if not isinstance(given["id2label"], Mapping) or list(given["id2label"].values()) != names:
            report.notes.append(f"the class names stored with the weights are others and were not taken: {names}")
        return {}
    num_labels = infer_values(checkpoint.state_dict)["num_labels"]
    if len(names) != num_labels:
        report.notes.append(
            f"the {len(names)} class names stored with the weights were not taken: the head has {num_labels} classes"
        )
        return {}
    report.notes.append("class names are those stored with the weights (CLASSES)")
    found = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    if checkpoint.class_colors is not None and "class_colors" not in given:
        found["class_colors"] = checkpoint.class_colors
    return found


def _image_processor(
    loaded: "Recipe | None",
    state_dict: Mapping[str, torch.Tensor],
    config: PrithviConfig,
    overrides: Mapping[str, Any],
    report: ConversionReport,
) -> PrithviImageProcessor | None:
    """The image processor of the converted model, or None where the statistics of its bands are not known."""
    names = PrithviImageProcessor.option_names()
    source = PrithviImageProcessor() if loaded is None else loaded.build_image_processor()
    options = {name: overrides.get(name, getattr(source, name)) for name in names}
    if loaded is not None:
        original = _original_processing(loaded, state_dict, overrides, report)
        given = {name for name in names if getattr(loaded.data, name, None) is not None}
        given -= overrides.keys() | original.keys()
        report.recipe |= {name: options[name] for name in names if name in given}
        options |= original
    options["num_frames"] = config.num_frames
    known_bands = len(source.bands) == config.num_channels and options["bands"] == source.bands
    if known_bands or {"bands", "image_mean", "image_std"} <= overrides.keys():
        return PrithviImageProcessor(**options)
    report.notes.append(
        f"no image processor is written: names and statistics of {config.num_channels} bands are not known; give "
        "them with a recipe, or set bands, image_mean and image_std"
    )
    return None


def _original_processing(
    loaded: "Recipe", state_dict: Mapping[str, torch.Tensor], overrides: Mapping[str, Any], report: ConversionReport
) -> dict[str, Any]:
    """What an original checkpoint of the recipe's data set expects of its input."""
    dataset = loaded.data.dataset
    if dataset not in ORIGINAL_PROCESSING or not is_segmentation_layout(state_dict):
        return {}
    options, reason = ORIGINAL_PROCESSING[dataset]
    taken = {name: value for name, value in options.items() if name not in overrides}
    settings = ", ".join(f"{name} = {value}" for name, value in taken.items())
    report.notes.append(f"{settings or 'overridden: ' + ', '.join(options)}: {reason}")
    return taken


# ---------------------------------------------------------------------- what came of it


def _check_finite(checkpoint: Checkpoint, config: PrithviConfig) -> None:
    """Refuse weights that training has blown up or a copy has damaged: every map would be without meaning."""
    converted, _ = convert_names(checkpoint.state_dict, config.use_auxiliary_head)
    broken = [name for name, group in converted.items() if not all(part.isfinite().all() for part in group.values())]
    if broken:
        names = ", ".join(broken[:6]) + (" and others" if len(broken) > 6 else "")
        raise ValueError(
            f"Expected weights that are finite numbers, found NaN or infinite values in {len(broken)} tensor(s) of "
            f"{checkpoint.source}: {names}. Export the checkpoint again, from a step before its training diverged, or "
            "download it again."
        )


def _account(
    report: ConversionReport, checkpoint: Checkpoint, config: PrithviConfig, given: Mapping[str, Any]
) -> None:
    """Account for every tensor of the source and every assumption."""
    converted, report.dropped = convert_names(checkpoint.state_dict, config.use_auxiliary_head)
    report.converted = {name: list(group) for name, group in converted.items()}
    report.dropped |= dict.fromkeys(checkpoint.averaging, _AVERAGING)
    for name in ("num_attention_heads", "layer_norm_eps"):
        if name not in given:
            report.assumed[name] = getattr(config, name)
    positions, segmentation = stored_positions(checkpoint.state_dict), is_segmentation_layout(checkpoint.state_dict)
    if positions is None:
        unseen = {"image_size"} if segmentation else {"num_frames", "image_size"}  # the neck shows the frames
        report.assumed |= {name: getattr(config, name) for name in sorted(unseen - given.keys())}
    difference = infer_grid(positions, config.grid_size[0] if segmentation else None)[1]
    if difference > POSITION_TOLERANCE:
        report.notes.append(
            f"the stored pos_embed differs from the fixed table by up to {difference:.3g}; the fixed table is used"
        )


def _save_atomically(
    output_dir: Path, *parts: PrithviPreTrainedModel | PrithviImageProcessor, recipe: "Recipe | None"
) -> None:
    """Save everything to a hidden folder first, then bring it to its place: the model is whole or not there."""
    output_dir = output_dir.resolve()
    with naming_a_full_disk(output_dir, "Free space or choose another disk; nothing was written."):
        output_dir.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{output_dir.name}-", dir=_staging_parent(output_dir), ignore_cleanup_errors=True
        ) as folder:
            staging = Path(folder) / output_dir.name
            staging.mkdir(mode=0o755)
            for part in parts:
                part.save_pretrained(staging)
            if recipe is not None:
                recipe.save(staging / "recipe.yaml")
            _put_in_place(staging, output_dir)


def _staging_parent(output_dir: Path) -> Path:
    """The folder beside the wanted one or, where that is another disk or takes no files, the wanted one itself."""
    inside = output_dir.is_dir() and (os.path.ismount(output_dir) or not os.access(output_dir.parent, os.W_OK))
    return output_dir if inside else output_dir.parent


def _put_in_place(staging: Path, output_dir: Path) -> None:
    """Make the folder the wanted one, in one step where the system can.

    Raises:
        FileExistsError: Another process wrote there since the folder was found to be new or empty.
    """
    if staging.parent.parent == output_dir or (output_dir.is_dir() and output_dir.samefile(os.curdir)):
        _move_files(staging, output_dir)  # what this process or its shell stands in stays
        return
    try:
        if output_dir.is_dir():
            output_dir.rmdir()
        staging.replace(output_dir)
    except OSError as error:
        if error.errno == errno.EBUSY:  # a mount point, which can be neither removed nor replaced
            _move_files(staging, output_dir)
        elif error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _written_by_another(output_dir) from error
        else:
            raise


def _move_files(staging: Path, output_dir: Path) -> None:
    """Move the files one by one; the last is config.json, without which the folder is no model."""
    if any(path != staging.parent for path in output_dir.iterdir()):
        raise _written_by_another(output_dir)
    targets: list[Path] = []
    try:
        for path in sorted(staging.iterdir(), key=lambda path: (path.name == "config.json", path.name)):
            targets.append(output_dir / path.name)
            shutil.move(path, targets[-1])
    except BaseException:
        for target in targets:
            target.unlink(missing_ok=True)
        raise


def _written_by_another(output_dir: Path) -> FileExistsError:
    """The error of a lost race."""
    return FileExistsError(
        f"Expected {output_dir} to be empty still, found that another process wrote there during the conversion. Look "
        "at what it holds, or choose another folder."
    )


__all__ = [
    "ORIGINAL_PROCESSING",
    "ConversionReport",
    "convert_checkpoint",
    "convert_state_dict",
    "infer_config",
    "load_original_state_dict",
]
