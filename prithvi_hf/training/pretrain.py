# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A pretraining run on scenes without labels, from its recipe to its card: `setup`, `train`, `evaluate`, `report`."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import ModelCardData
from torch import nn
from tqdm.auto import tqdm
from transformers import set_seed
from transformers.utils import logging

from prithvi_hf.disk import check_writable_folder
from prithvi_hf.outputs.figures import save_chart
from prithvi_hf.scenes.reconstruct import Reconstruction, draw_reconstructions
from prithvi_hf.scenes.windows import SceneWindows
from prithvi_hf.training import finetune
from prithvi_hf.training.finetune import check_resumable, find_checkpoint_to_resume, train_and_save
from prithvi_hf.training.model_card import (
    escape_code,
    escape_text,
    list_options,
    make_curve_figure,
    tabulate_bands,
)
from prithvi_hf.training.pretrain_recipe import PretrainRecipe, parse_pretrain_arguments
from prithvi_hf.training.process_group import run_in_first_process
from prithvi_hf.training.sharding import check_parts
from prithvi_hf.training.trainer import PrithviTrainer


logger = logging.get_logger(__name__)

# Windows to evaluate are drawn with another seed than those to train on, whose scenes may be the same.
_EVAL_SEED = 1_000_003
_CHECKING_THREADS = 8


class PretrainingTrainer(PrithviTrainer):
    """A `PrithviTrainer` of masked autoencoders: the loss is the mean over all hidden patches with data of a step.

    So it does not depend on how a global batch is divided among processes and accumulated batches. An evaluation
    gives `eval_loss`, the mean over the hidden patches of all windows.
    """

    model: Any

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Count the hidden patches of a whole optimisation step, over its batches and all processes."""
        if self.args.n_gpu > 1:
            return None
        count = torch.stack([self.model.count_hidden(batch["nodata_mask"]) for batch in batch_samples]).sum()
        return self.accelerator.reduce(count.to(device), "sum")

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Compute the part of a step's loss that one batch has; the parameters are those of `Trainer.compute_loss`."""
        outputs = model(**inputs)
        loss = outputs["loss"]
        if num_items_in_batch is not None:  # processes take the mean of their gradients
            part = self.model.count_hidden(inputs["nodata_mask"]) / num_items_in_batch
            loss = loss * part * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def make_figures(self) -> "PretrainingFigures":
        """Make the sums of an evaluation."""
        return PretrainingFigures(self)


class PretrainingFigures:
    """What the windows of an evaluation add up to, in each process until `compute`."""

    def __init__(self, trainer: PretrainingTrainer) -> None:
        self.trainer = trainer
        dtype = torch.float32 if trainer.args.device.type == "mps" else torch.float64
        self.totals = torch.zeros(3, dtype=dtype, device=trainer.args.device)  # loss x patches, patches, windows

    def add(self, batch: dict[str, Any]) -> None:
        """Hide patches of the windows of a batch and compute the loss."""
        inputs = self.trainer._prepare_inputs(batch)
        with self.trainer.accelerator.autocast():
            loss = self.trainer.model(**inputs).loss
        count = self.trainer.model.count_hidden(inputs["nodata_mask"]).to(self.totals.dtype)
        self.totals += torch.stack([loss.to(count.dtype) * count, count, count.new_tensor(len(inputs["noise"]))])

    def compute(self) -> tuple[dict[str, Any], int]:
        """Add up the figures of all processes, once: the loss, and the number of windows."""
        summed, count, windows = self.trainer.accelerator.reduce(self.totals, reduction="sum").tolist()
        return {"loss": summed / max(count, 1)}, int(windows)


@dataclass
class PretrainingRun:
    """A pretraining run that is ready to start."""

    recipe: PretrainRecipe
    trainer: PretrainingTrainer
    windows: SceneWindows  # to train on
    eval_windows: SceneWindows | None
    checkpoint: str | None = None  # to resume from, None for a fresh start


def setup(recipe: PretrainRecipe) -> PretrainingRun:
    """Build model and trainer, and open and check the scenes; nothing is written.

    What is not as expected of data or options is a ValueError or an OSError, with what was expected and a remedy.
    """
    data, training = recipe.data, recipe.training
    check_writable_folder(training.output_dir or ".", "--output_dir")
    checkpoint = find_checkpoint_to_resume(training)
    set_seed(training.seed)
    model = recipe.build_model(quiet=checkpoint is not None or training.process_index > 0)
    config = model.config
    config.validate()
    if not 0 < config.mask_ratio < 1:
        raise ValueError(f"Expected a mask_ratio above 0 and below 1 to learn from, found {config.mask_ratio}.")
    processor = recipe.build_image_processor()
    processor.check_config(config)
    if checkpoint is not None:
        check_resumable(checkpoint, config)
    train_scenes, eval_scenes = recipe.open_scenes(processor)
    size = config.frame_size if data.crop_size is None else (data.crop_size, data.crop_size)
    seed = training.seed if training.data_seed is None else training.data_seed
    windows = SceneWindows(
        train_scenes,
        processor,
        config,
        size,
        recipe.count_windows(train_scenes, size),
        seed,
        min_valid=data.min_valid,
        augmentation=data.augmentation,
        coords_dropout=data.coords_dropout if config.coords_encoding else 0.0,
    )
    eval_windows = None
    if eval_scenes:
        eval_windows = SceneWindows(
            eval_scenes, processor, config, size, data.eval_windows, seed + _EVAL_SEED, min_valid=data.min_valid
        )
    elif training.eval_strategy != "no":
        raise ValueError("Expected scenes to evaluate, found none. Give --eval_scenes, or --eval_strategy no.")
    if data.check_data:
        run_in_first_process(training, lambda: check_scenes([windows, *([eval_windows] if eval_windows else [])]))
    if training.process_index == 0:
        print(
            f"{len(train_scenes)} scenes to train on, {len(windows):,} windows of {size[0]} x {size[1]} pixels in an "
            f"epoch; {len(eval_scenes)} scenes and {len(eval_windows or ())} windows to evaluate",
            flush=True,
        )
    trainer = PretrainingTrainer(
        model=model, args=training, train_dataset=windows, eval_dataset=eval_windows, processing_class=processor
    )
    if checkpoint is not None:
        check_parts(checkpoint, trainer.accelerator)
    return PretrainingRun(recipe, trainer, windows, eval_windows, checkpoint)


def check_scenes(splits: Sequence[SceneWindows]) -> None:
    """Draw a window of every scene, so that a bad file or one in other units is known before anything is written.

    Scenes whose dates or place a model takes and nothing tells are counted in a warning.
    """
    unknown: Counter[str] = Counter()
    with ThreadPoolExecutor(_CHECKING_THREADS) as pool:
        scenes = [(windows, scene) for windows in splits for scene in windows.scenes]
        numbers = [np.random.default_rng((windows.seed, place)) for place, (windows, _) in enumerate(scenes)]
        drawn = pool.map(lambda one, own: one[0].draw_window(one[1], own, check_units=True), scenes, numbers)
        for (windows, scene), window in zip(
            scenes, tqdm(drawn, "checking", len(scenes), leave=False, disable=None), strict=True
        ):
            if window is None:
                raise ValueError(
                    f"{scene.name}: expected windows of which {windows.min_valid:.0%} has data (min_valid), found "
                    "none in some that were drawn. Lower --min_valid, or leave the scene out."
                )
            unknown.update(name for name, values in window.coordinates.items() if np.isnan(values).any())
    kinds = {"temporal_coords": "the date of every frame", "location_coords": "their place"}
    for name, count in unknown.items():
        logger.warning(
            f"{count} of {len(scenes)} scenes do not tell {kinds[name]} ({name}), which the model takes: the term is "
            "left out there. Dates are read from published file names and lists, places from the CRS."
        )


def evaluate(run: PretrainingRun) -> dict[str, Any]:
    """Compute the loss of the fixed windows with their fixed patches hidden, if there are any."""
    if not run.recipe.training.do_eval or run.eval_windows is None:
        return {}
    metrics = run.trainer.evaluate()
    run.trainer.log_metrics("eval", metrics)
    run.trainer.save_metrics("eval", metrics)
    return metrics


def report(run: PretrainingRun, metrics: dict[str, Any]) -> None:
    """Draw curves and reconstructions and write the card, in the first process; upload the folder where asked for."""
    recipe, trainer = run.recipe, run.trainer
    training, folder = recipe.training, Path(recipe.training.output_dir or ".")
    if trainer.is_world_process_zero():
        if training.do_train:
            save_chart(make_curve_figure(trainer.state.log_history), folder / "learning_curves.png")
        windows = run.eval_windows or run.windows
        count = min(recipe.data.num_sample_reconstructions, len(windows))
        if count:
            examples = [windows[index] for index in range(count)]
            pictures = [
                Reconstruction.of_example(trainer.model, trainer.processing_class, example) for example in examples
            ]
            draw_reconstructions(folder / "sample_reconstructions.png", pictures)
        write_model_card(folder, run, metrics)
    if training.push_to_hub:
        trainer.push_to_hub()


_CARD = """---
{metadata}
---

# {name}

Masked autoencoder Prithvi for {frames} date(s) of {bands} bands, pretrained on {scenes} scenes without labels from
{start} by `prithvi_hf`.

```python
from prithvi_hf import PrithviForPreTraining

model = PrithviForPreTraining.from_pretrained({model})
```

`prithvi-hf finetune --model {code} ...` fine-tunes its encoder.

## Results

{results}

## Input

| band | mean | standard deviation |
|---|---|---|
{statistics}

File values are multiplied by {factor:g} and {offset:g} is added, then they are normalised; the image processor in this
repository does this.

## Training

`recipe.yaml` beside this card holds every option that was given;
`prithvi-hf pretrain --config recipe.yaml --output_dir FOLDER` repeats the run.

{training}
"""


def write_model_card(folder: Path, run: PretrainingRun, metrics: dict[str, Any]) -> None:
    """Write `README.md`: what the model takes, its loss, and how it was trained."""
    recipe, processor, config = run.recipe, run.trainer.processing_class, run.trainer.model.config
    name = recipe.training.hub_model_id or folder.resolve().name
    metadata = ModelCardData(
        library_name="transformers",
        license="apache-2.0",
        tags=["prithvi", "prithvi_hf", "remote-sensing", "masked-autoencoder", "geospatial"],
        model_name=name,
    )
    loss, source = metrics.get("eval_loss"), recipe.model.model
    results = "Not evaluated."
    if loss is not None and run.eval_windows is not None:
        results = f"Loss of {len(run.eval_windows)} fixed windows of {len(run.eval_windows.scenes)} held-out scenes: "
        results += f"{loss:.4f} (mask ratio {config.mask_ratio:g}, norm_pix_loss {str(config.norm_pix_loss).lower()})."
    own = {
        "mask ratio": config.mask_ratio,
        "windows of an epoch": len(run.windows),
        "smallest fraction with data": recipe.data.min_valid,
        "augmentation": recipe.data.augmentation,
    }
    text = _CARD.format(
        metadata=metadata.to_yaml().strip(),
        name=escape_text(name),
        code=escape_code(name),
        model=f'"{escape_code(name)}"',
        frames=config.num_frames,
        bands=config.num_channels,
        scenes=len(run.windows.scenes),
        start=f"`{escape_code(source)}`" if source else "random weights",
        results=results,
        statistics=tabulate_bands(processor),
        factor=processor.rescale_factor,
        offset=processor.rescale_offset,
        training=list_options(recipe.training, own, run.trainer.state.epoch),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def execute(run: PretrainingRun) -> None:
    """Train, evaluate and report what `setup` made ready."""
    started: Any = run  # what `train_and_save` reads of a run is here too
    if run.recipe.training.do_train:
        train_and_save(started)
    report(run, evaluate(run))


def main(
    arguments: Sequence[str] | None = None,
    program: str = "pretrain.py",
    execute: Callable[[PretrainingRun], None] = execute,
) -> int:
    """Run from the command line and return the exit status, see `finetune.main`."""
    return finetune.main(arguments, program, execute, lambda words, name: setup(parse_pretrain_arguments(words, name)))
