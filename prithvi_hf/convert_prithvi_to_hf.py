# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Convert original Prithvi checkpoints to `save_pretrained` folders.

Layouts: the flat file of the first generation's masked autoencoder (`Prithvi_100M.pt`, `Prithvi_EO_V1_100M.pt`) and
mmsegmentation's fine-tuned checkpoints (`backbone.`, `neck.`, `decode_head.`, `auxiliary_head.`).
"""

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from .configuration_prithvi import PrithviConfig
from .image_processing_prithvi import PrithviImageProcessor
from .modeling_prithvi import (
    PrithviForSemanticSegmentation,
    PrithviModel,
    PrithviPreTrainedModel,
    sincos_position_table,
)


_ENCODER_NAMES = [
    (r"cls_token", r"embeddings.cls_token"),
    (r"patch_embed\.proj\.(weight|bias)", r"embeddings.patch_embeddings.\1"),
    (r"blocks\.(\d+)\.norm1\.(weight|bias)", r"layers.\1.layernorm_before.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(weight|bias)", r"layers.\1.attention.o_proj.\2"),
    (r"blocks\.(\d+)\.norm2\.(weight|bias)", r"layers.\1.layernorm_after.\2"),
    (r"blocks\.(\d+)\.mlp\.(fc[12])\.(weight|bias)", r"layers.\1.mlp.\2.\3"),
    (r"norm\.(weight|bias)", r"layernorm.\1"),
]
_HEAD_NAMES = [
    (r"neck\.fpn1\.0\.(weight|bias)", r"neck.upsample_blocks.0.conv_transpose_1.\1"),
    (r"neck\.fpn1\.1\.ln\.(weight|bias)", r"neck.upsample_blocks.0.norm.\1"),
    (r"neck\.fpn1\.3\.(weight|bias)", r"neck.upsample_blocks.0.conv_transpose_2.\1"),
    (r"neck\.fpn2\.0\.(weight|bias)", r"neck.upsample_blocks.1.conv_transpose_1.\1"),
    (r"neck\.fpn2\.1\.ln\.(weight|bias)", r"neck.upsample_blocks.1.norm.\1"),
    (r"neck\.fpn2\.3\.(weight|bias)", r"neck.upsample_blocks.1.conv_transpose_2.\1"),
    (r"(decode|auxiliary)_head\.convs\.(\d+)\.conv\.weight", r"\1_head.layers.\2.convolution.weight"),
    (r"(decode|auxiliary)_head\.convs\.(\d+)\.bn\.(\w+)", r"\1_head.layers.\2.normalization.\3"),
    (r"(decode|auxiliary)_head\.conv_seg\.(weight|bias)", r"\1_head.classifier.\2"),
]
_QKV = re.compile(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)")
_DROPPED = [
    (r"pos_embed", "fixed sine-cosine positions are computed, not stored"),
    (r"decoder_pos_embed", "belongs to the pretraining decoder"),
    (r"mask_token|decoder_(embed|blocks|norm|pred)(\..*)?", "belongs to the pretraining decoder"),
]


@dataclass
class ConversionReport:
    """What a conversion did with every tensor.

    Attributes:
        model_class (`str`): Class of the model that was written.
        converted (`dict[str, list[str]]`): Original name to the names it became.
        dropped (`dict[str, str]`): Original name to the reason it was left out.
        newly_initialized (`list[str]`): Names of the model that the source did not hold.
        assumed (`dict[str, Any]`): Configuration values that no tensor's shape shows, as they were taken.
        notes (`list[str]`): What a user should know about the source.
    """

    model_class: str
    converted: dict[str, list[str]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    newly_initialized: list[str] = field(default_factory=list)
    assumed: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """A text for people: counts first, then every name that was not simply converted."""
        lines = [f"{self.model_class}: {len(self.converted)} tensors converted, {len(self.dropped)} dropped."]
        lines += [f"  dropped {name}: {reason}" for name, reason in self.dropped.items()]
        lines += [f"  newly initialised: {name}" for name in self.newly_initialized]
        lines += [f"  assumed {name} = {value} (not visible in any shape)" for name, value in self.assumed.items()]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def is_segmentation_layout(state_dict: Mapping[str, torch.Tensor]) -> bool:
    """Whether the names are those of an mmsegmentation segmentor."""
    return any(name.startswith("backbone.") for name in state_dict)


def _rename(name: str, names: list[tuple[str, str]]) -> str | None:
    """The first full match's replacement, or None."""
    for pattern, replacement in names:
        if match := re.fullmatch(pattern, name):
            return match.expand(replacement)
    return None


def _convert_encoder_tensor(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """New names and tensors of one encoder tensor; the fused query-key-value projection becomes three."""
    if match := _QKV.fullmatch(name):
        if tensor.shape[0] % 3:
            raise ValueError(f"Expected {name} to hold three projections, found shape {tuple(tensor.shape)}.")
        target = f"layers.{match[1]}.attention.{{}}_proj.{match[2]}"
        return {target.format(part): chunk.clone() for part, chunk in zip("qkv", tensor.chunk(3), strict=True)}
    renamed = _rename(name, _ENCODER_NAMES)
    return {} if renamed is None else {renamed: tensor}


def _convert_names(
    state_dict: Mapping[str, torch.Tensor],
) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, str]]:
    """Sort every original name into converted (with its new tensors) and dropped (with the reason)."""
    segmentation = is_segmentation_layout(state_dict)
    prefix = "prithvi." if segmentation else ""
    converted, dropped, unknown = {}, {}, []
    for name, tensor in state_dict.items():
        short = name.removeprefix("backbone.") if segmentation else name
        reason = next((why for pattern, why in _DROPPED if re.fullmatch(pattern, short)), None)
        head = _rename(name, _HEAD_NAMES) if segmentation else None
        if reason is not None:
            dropped[name] = reason
        elif head is not None:
            converted[name] = {head: tensor}
        elif renamed := _convert_encoder_tensor(short, tensor):
            converted[name] = {prefix + new: value for new, value in renamed.items()}
        else:
            unknown.append(name)
    if unknown or not converted:
        raise ValueError(
            "Expected the flat layout of Prithvi_100M.pt or an mmsegmentation checkpoint of hls-foundation-os, found "
            f"{len(unknown)} unknown name(s) of {len(state_dict)}: {unknown[:5]}. Pass the original file."
        )
    return converted, dropped


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
    converted, _ = _convert_names(state_dict)
    tensors = {new: value for group in converted.values() for new, value in group.items()}
    _check_against_model(tensors, _meta_model(state_dict, config))
    return tensors


def _model_class(state_dict: Mapping[str, torch.Tensor]) -> type[PrithviPreTrainedModel]:
    """The class that a layout converts to."""
    return PrithviForSemanticSegmentation if is_segmentation_layout(state_dict) else PrithviModel


def _meta_model(state_dict: Mapping[str, torch.Tensor], config: PrithviConfig) -> PrithviPreTrainedModel:
    """The target model without memory, for its names and shapes."""
    with torch.device("meta"):
        return _model_class(state_dict)(config)


def _layer_count(state_dict: Mapping[str, torch.Tensor], prefix: str) -> int:
    """One more than the highest number that follows the prefix."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return max((int(match[1]) + 1 for name in state_dict if (match := pattern.match(name))), default=0)


def _grid_candidates(num_tokens: int) -> list[tuple[int, int, int]]:
    """Square token grids of a length, the published 224-pixel grid and three frames first."""
    grids = [
        (frames, round((num_tokens / frames) ** 0.5))
        for frames in (3, 1, 4, 2, *range(5, 65))
        if num_tokens % frames == 0 and round((num_tokens / frames) ** 0.5) ** 2 * frames == num_tokens
    ]
    return [(frames, side, side) for frames, side in sorted(grids, key=lambda grid: grid[1] != 14)]


def _infer_grid(positions: torch.Tensor | None) -> tuple[tuple[int, int, int], float]:
    """Token grid of a stored position table, and how far the table is from the computed one (largest difference).

    Only the values tell three frames of 4 x 4 from twelve of 2 x 2: the best fitting grid is taken. Without a table
    it is the published one, three frames of 14 x 14.
    """
    if positions is None:
        return (3, 14, 14), 0.0
    candidates = _grid_candidates(positions.shape[1] - 1)
    if not candidates:
        raise ValueError(f"Expected pos_embed of a square token grid, found {tuple(positions.shape)}.")
    differences = [
        (sincos_position_table(positions.shape[2], grid) - positions.float()).abs().max().item() for grid in candidates
    ]
    best = min(range(len(candidates)), key=lambda index: (differences[index] > 1e-3, index))
    return candidates[best], differences[best]


def _infer_encoder(state_dict: Mapping[str, torch.Tensor], prefix: str) -> dict[str, Any]:
    """Configuration values that the encoder's shapes show."""
    weight = state_dict.get(f"{prefix}patch_embed.proj.weight")
    if weight is None or weight.ndim != 5:
        raise ValueError(
            f"Expected a tensor {prefix}patch_embed.proj.weight with five dimensions, found "
            f"{None if weight is None else tuple(weight.shape)}. This is not a Prithvi checkpoint of a known layout."
        )
    hidden_size, num_channels, *patch_size = weight.shape
    (frames, rows, columns), _ = _infer_grid(state_dict.get(f"{prefix}pos_embed"))
    fc1 = state_dict.get(f"{prefix}blocks.0.mlp.fc1.weight")
    image_size = [rows * patch_size[1], columns * patch_size[2]]
    return {
        "hidden_size": hidden_size,
        "num_channels": num_channels,
        "patch_size": patch_size,
        "num_frames": frames * patch_size[0],
        "image_size": image_size[0] if image_size[0] == image_size[1] else image_size,
        "num_hidden_layers": _layer_count(state_dict, f"{prefix}blocks."),
        "mlp_ratio": 4.0 if fc1 is None else fc1.shape[0] / hidden_size,
        "qkv_bias": f"{prefix}blocks.0.attn.qkv.bias" in state_dict,
    }


def _infer_heads(state_dict: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Configuration values that the neck's and heads' shapes show."""
    classifier = state_dict["decode_head.conv_seg.weight"]
    auxiliary_convs = _layer_count(state_dict, "auxiliary_head.convs.")
    return {
        "num_labels": classifier.shape[0],
        "head_hidden_size": classifier.shape[1],
        "head_num_convs": _layer_count(state_dict, "decode_head.convs."),
        "neck_hidden_size": state_dict["neck.fpn1.0.weight"].shape[1],
        "use_auxiliary_head": auxiliary_convs > 0,
        "auxiliary_head_num_convs": auxiliary_convs or 2,
    }


def infer_config(state_dict: Mapping[str, torch.Tensor], **overrides: Any) -> PrithviConfig:
    """Read a configuration from the shapes of an original state dict.

    The number of attention heads shows in no shape: heads of 64 channels are assumed, as in every published model of
    the first generation but the multi-temporal crop one (8 heads).

    Args:
        state_dict (`Mapping[str, torch.Tensor]`): Tensors under their original names.
        overrides: `PrithviConfig` fields that replace what was read or assumed.

    Raises:
        ValueError: Neck or head tensors are missing, or the values do not describe a model.
    """
    segmentation = is_segmentation_layout(state_dict)
    values = _infer_encoder(state_dict, "backbone." if segmentation else "")
    values["num_attention_heads"] = max(1, values["hidden_size"] // 64)
    if segmentation:
        missing = [name for name in ("neck.fpn1.0.weight", "decode_head.conv_seg.weight") if name not in state_dict]
        if missing:
            raise ValueError(f"Expected a segmentor with neck and decode head, found no {missing}.")
        values |= _infer_heads(state_dict)
    if "id2label" in overrides:
        values.pop("num_labels", None)
    return PrithviConfig(**{**values, **overrides})


def load_original_state_dict(source: str | Path) -> dict[str, torch.Tensor]:
    """Read the tensors of an original checkpoint file.

    Args:
        source (`str` or `Path`): A `.pt` / `.pth` file, a `.safetensors` file, or `hf://owner/name/file` on the Hub.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a checkpoint, or needs more of pickle than tensors.
    """
    path = _local_file(str(source))
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on bytes that are no checkpoint the loaders raise almost anything, a KeyError too
        raise ValueError(
            f"Expected {path} to be a checkpoint of plain tensors, found a file that cannot be loaded safely "
            f"({_load_failure(error)}). A pickle with other objects could run code and is refused: re-save its state "
            "dict with torch.save, or as safetensors, where you trust it."
        ) from error
    return _find_state_dict(content, path)


def _load_failure(error: Exception) -> str:
    """What a loader found, in one sentence; torch's own text starts with how to load such a file all the same."""
    lines = str(error).rpartition("WeightsUnpickler error: ")[2].splitlines() or ["no reason given"]
    return f"{type(error).__name__}: {lines[0].split('. Please use')[0]}"


def _local_file(source: str) -> Path:
    """The local path of a source, downloaded first where it names a file on the Hub."""
    if source.startswith("hf://"):
        from huggingface_hub import hf_hub_download

        owner, _, rest = source.removeprefix("hf://").partition("/")
        name, _, filename = rest.partition("/")
        if not (owner and name and filename):
            raise ValueError(f"Expected hf://owner/name/file, found {source!r}.")
        return Path(hf_hub_download(f"{owner}/{name}", filename))
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a checkpoint file, found none at {path}.")
    return path


def _find_state_dict(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """The state dict inside what a checkpoint file holds."""
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"Expected {path} to hold a state dict, found {type(content).__name__}.")
    others = [name for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ValueError(f"Expected {path} to hold tensors by name, found other values under {others[:5]}.")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _report(
    state_dict: Mapping[str, torch.Tensor], config: PrithviConfig, overrides: Mapping[str, Any]
) -> ConversionReport:
    """Account for every tensor of the source and every assumption."""
    converted, dropped = _convert_names(state_dict)
    report = ConversionReport(_model_class(state_dict).__name__, dropped=dropped)
    report.converted = {name: list(group) for name, group in converted.items()}
    for name in ("num_attention_heads", "layer_norm_eps"):
        if name not in overrides:
            report.assumed[name] = getattr(config, name)
    positions = state_dict.get("pos_embed", state_dict.get("backbone.pos_embed"))
    if positions is None and not {"num_frames", "image_size"} <= overrides.keys():
        report.assumed |= {"num_frames": config.num_frames, "image_size": config.image_size}
    difference = _infer_grid(positions)[1]
    if difference > 1e-3:
        report.notes.append(
            f"the stored pos_embed differs from the fixed table by up to {difference:.3g}; the fixed table is used"
        )
    return report


def convert_checkpoint(
    source: str | Path, output_dir: str | Path, recipe: str | Path | None = None, **config_overrides: Any
) -> ConversionReport:
    """Convert an original checkpoint file to a folder that `from_pretrained` loads.

    Args:
        source (`str` or `Path`): A `.pt`, `.pth` or `.safetensors` file, or `hf://owner/name/file` on the Hub.
        output_dir (`str` or `Path`): New or empty folder for the model and its image processor.
        recipe (`str` or `Path`, *optional*): YAML recipe (as in `examples/configs`) that names what no shape
            reveals: classes, bands, statistics, heads, loss. Without it the image processor has the pretraining
            statistics.
        config_overrides: `PrithviConfig` fields that replace what was read from the shapes or the recipe.

    Returns:
        [`ConversionReport`]: What became of every tensor.

    Raises:
        FileNotFoundError: The source does not exist.
        ValueError: The source is no known checkpoint, or the output folder is not empty. Nothing is written.
    """
    output_dir = Path(output_dir)
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise ValueError(f"Expected {output_dir} to be a new or empty folder, found files there. Choose another name.")
    state_dict = load_original_state_dict(source)
    processor = PrithviImageProcessor()
    if recipe is not None:
        from .recipe import read_recipe

        loaded = read_recipe(recipe)
        config_overrides = {**loaded.config_values(), **config_overrides}
        processor = loaded.image_processor()
    config = infer_config(state_dict, **config_overrides)
    model = _model_class(state_dict)(config)
    model.load_state_dict(convert_state_dict(state_dict, config), strict=True)
    report = _report(state_dict, config, config_overrides)
    parts: list[PrithviPreTrainedModel | PrithviImageProcessor] = [model]
    if len(processor.bands) == config.num_channels:
        processor.num_frames = config.num_frames
        parts.append(processor)
    else:
        report.notes.append(
            f"no image processor is written: names and statistics of {config.num_channels} bands are not known; give "
            "them with a recipe"
        )
    _save_atomically(output_dir, *parts)
    return report


def _save_atomically(output_dir: Path, *parts: PrithviPreTrainedModel | PrithviImageProcessor) -> None:
    """Save everything to a folder beside the wanted one, then rename it: the folder is whole or not there."""
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{output_dir.name}-", dir=output_dir.parent))
    try:
        for part in parts:
            part.save_pretrained(staging)
        staging.chmod(0o755)
        if output_dir.exists():
            output_dir.rmdir()  # empty, as checked
        staging.replace(output_dir)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


__all__ = ["ConversionReport", "convert_checkpoint", "convert_state_dict", "infer_config", "load_original_state_dict"]
