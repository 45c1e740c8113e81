# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The recipe of a pretraining run: its options, and the model, the image processor and the scenes they name."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers.utils import logging

from prithvi_hf.data.builders.splits import divide_groups
from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.pretraining_prithvi import PrithviForPreTraining
from prithvi_hf.rasters import TIFF_SUFFIXES
from prithvi_hf.rasters.opening import FrameOptions
from prithvi_hf.scenes.scene import Scene
from prithvi_hf.scenes.scene_list import SceneEntry, list_scenes, open_entry
from prithvi_hf.training.recipe import build_image_processor, parse_groups, read_starting_config, write_options
from prithvi_hf.training.recipe_options import MAIN_PRETRAIN_OPTIONS, PretrainDataArguments, PretrainModelArguments
from prithvi_hf.training.training_args import PrithviTrainingArguments


logger = logging.get_logger(__name__)


@dataclass
class PrithviPretrainingArguments(PrithviTrainingArguments):
    """`PrithviTrainingArguments` without what is of segmentation alone, with defaults of masked autoencoders."""

    eval_window: int | None = field(default=None, init=False)
    eval_overlap: float = field(default=0.5, init=False)
    eval_window_batch_size: int = field(default=8, init=False)
    sync_batch_norm: bool = field(default=False, init=False)
    do_predict: bool = field(default=False, init=False)
    metric_for_best_model: str | None = field(default="loss", init=False)
    learning_rate: float = field(default=1.0e-4, metadata={"help": "Highest learning rate."})
    weight_decay: float = field(default=0.05, metadata={"help": "Decay of matrices and kernels."})
    adam_beta2: float = field(default=0.95, metadata={"help": "Second moment's decay of Adam."})
    warmup_steps: float = field(default=0.05, metadata={"help": "Steps of warm-up, or below 1 a fraction of all."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Name of a schedule of transformers."})
    per_device_eval_batch_size: int = field(default=8, metadata={"help": "Windows in one evaluation batch."})


@dataclass
class PretrainRecipe:
    """The options of a pretraining run."""

    model: PretrainModelArguments
    data: PretrainDataArguments
    training: PrithviPretrainingArguments
    given: dict[str, Any] = field(default_factory=dict)  # options that differ from their defaults

    def build_image_processor(self) -> PrithviImageProcessor:
        """Build the image processor: options left open come from the starting model's, where it has one."""
        return build_image_processor(self.model.model, self.data, {"num_frames": self.data.num_frames or 1})

    def build_model(self, quiet: bool = False) -> PrithviForPreTraining:
        """Build the masked autoencoder: random weights, or those of `--model`, whose decoder may be a new one.

        What starts at random is a warning, unless `quiet`: a checkpoint may follow.
        """
        values = {name: value for name, value in vars(self.model).items() if name != "model" and value is not None}
        values["num_frames"], bands, source = self.data.num_frames or 1, self.data.bands, self.model.model
        if source is None:
            if bands is not None:
                values |= {"bands": bands, "num_channels": len(bands)}
            attention = values.pop("attn_implementation", None)
            if not quiet:
                logger.warning("The weights are random: pass --model FOLDER_OR_HUB_ID to continue a pretraining.")
            return PrithviForPreTraining._from_config(PrithviConfig(**values), attn_implementation=attention)
        start = read_starting_config(source)
        # Only fewer layers leave the pretrained encoder what it is.
        fixed = ("hidden_size", "mlp_ratio", "patch_size")
        wrong: list[str] = [name for name in fixed if name in values and values[name] != getattr(start, name)]
        wrong += ["num_hidden_layers"] * (values.get("num_hidden_layers", 0) > start.num_hidden_layers)
        if wrong:
            found = "; ".join(f"{name}: {source} has {getattr(start, name)}, not {values[name]}" for name in wrong)
            raise ValueError(f"Expected options that fit the starting model, found {found}. Leave them out.")
        loaded: Any = PrithviForPreTraining.from_pretrained(
            source, ignore_mismatched_sizes=True, output_loading_info=True, **values
        )
        model, info = loaded
        new = sorted([*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])])
        lost = [key for key in new if key.startswith("prithvi.") and not key.endswith("_scale")]
        if lost:
            raise ValueError(f"Expected the encoder of {source} to fit the options, found no weights for {lost}.")
        if new and not quiet:
            logger.warning(
                f"{source} has no weights for {len(new)} tensors of the pretraining decoder or of dates and places, "
                f"e.g. {new[0]}: they start at random. `prithvi-hf convert --for_model PrithviForPreTraining` keeps "
                "the decoder that was published."
            )
        if bands is not None and model.config.bands is not None and list(bands) != list(model.config.bands):
            model.set_bands(bands)
        return model

    def open_scenes(self, image_processor: PrithviImageProcessor) -> tuple[list[Scene], list[Scene]]:
        """Open the scenes to train on and those to evaluate; no pixel is read.

        What is wrong with any of them is a ValueError: a run of days should not miss a part of its data unnoticed.
        """
        data = self.data
        if not data.scenes:
            raise ValueError("Expected --scenes, the scenes to train on, found none: name a folder, a glob or a list.")
        train = self._open_lists(data.scenes, image_processor)
        if data.eval_scenes is not None or data.eval_fraction == 0:
            return train, self._open_lists(data.eval_scenes or [], image_processor)
        # Dates of one place, which are scenes of their own for a model of one frame, stay together.
        places = [
            f"{scene.grid.crs} {[round(side, 3) for side in scene.grid.bounds]}" if scene.grid.crs else scene.name
            for scene in train
        ]
        groups = {f"{index:08d}": place for index, place in enumerate(places)}
        if len(set(places)) < 2:
            raise ValueError(
                f"Expected scenes of at least two places, one of them for evaluation, found {len(train)} scene(s) of "
                "one. Give --eval_scenes, or --eval_fraction 0 with --eval_strategy no."
            )
        fractions = {"train": 1 - data.eval_fraction, "eval": data.eval_fraction}
        parts = divide_groups(groups, fractions, self.training.seed, "--scenes", "places")
        train_part, eval_part = ([train[int(index)] for index in parts[split]] for split in ("train", "eval"))
        return train_part, eval_part

    def _open_lists(self, sources: Sequence[str], image_processor: PrithviImageProcessor) -> list[Scene]:
        """Open the scenes of some lists; those of more dates than the model takes keep all of them."""
        options = FrameOptions(
            scale=self.data.scale, boa_add_offset=self.data.boa_add_offset, fmask=tuple(self.data.fmask or ())
        )
        scenes = []
        for source in sources:
            path = str(Path(source).expanduser())
            # One scene, or a glob that a shell expanded.
            if path.lower().endswith(TIFF_SUFFIXES) and Path(path).is_file():
                entries = [SceneEntry(Path(path).stem, (path,), path)]
            else:
                count, folder = image_processor.num_frames, self.training.output_dir
                entries = list_scenes(path, num_frames=count, output_dir=folder, more_dates=True)
            problems = [entry.problem for entry in entries if entry.problem]
            if problems:
                raise ValueError(f"{source}: {len(problems)} of {len(entries)} scenes cannot be used: {problems[0]}")
            for entry in entries:
                dates = max(len(entry.frames), image_processor.num_frames)
                scenes.append(open_entry(entry, image_processor.with_options(num_frames=dates), options))
        return scenes

    def count_windows(self, scenes: Sequence[Scene], size: tuple[int, int]) -> int:
        """Count the windows of an epoch."""
        if self.data.windows_per_epoch is not None:
            return self.data.windows_per_epoch
        return sum(math.ceil(scene.grid.height * scene.grid.width / math.prod(size)) for scene in scenes)

    def save(self, path: str | Path) -> None:
        """Write the options that were given as a YAML file that `--config` takes to repeat the run."""
        values = {name: getattr(self.data, name, value) for name, value in self.given.items()}
        for name in ("scenes", "eval_scenes"):  # the run may be repeated from another folder
            if values.get(name):
                values[name] = [str(Path(source).expanduser().absolute()) for source in values[name]]
        write_options(path, values)


def parse_pretrain_arguments(arguments: Sequence[str] | None = None, program: str | None = None) -> PretrainRecipe:
    """Read `--config FILE ...` and every other option of the command line, which wins over the files."""
    groups = (PretrainModelArguments, PretrainDataArguments, PrithviPretrainingArguments)
    text = "Continue the pretraining of Prithvi on your own scenes, without labels."
    (model, data, training), given = parse_groups(groups, MAIN_PRETRAIN_OPTIONS, arguments, text, program)
    return PretrainRecipe(model, data, training, given)
