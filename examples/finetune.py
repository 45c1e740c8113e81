# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Fine-tune Prithvi on georeferenced chips.

One process (CPU or one GPU):

    python examples/finetune.py --config examples/configs/sen1floods11.yaml --data_dir DIR --output_dir OUT

Many GPUs, one or more machines (settings in examples/accelerate):

    accelerate launch --config_file examples/accelerate/multi_gpu.yaml examples/finetune.py --config ... --output_dir OUT
    torchrun --nproc_per_node 2 examples/finetune.py --config ... --output_dir OUT

Every option of the recipe and every field of TrainingArguments can be given on the command line and wins over the
file; of several files after --config the later ones win. `--model FOLDER_OR_HUB_ID` starts from a converted backbone or a fine-tuned model instead of random weights.
`--resume_from_checkpoint true` goes on after an interruption.

At the end OUT holds the model, its image processor, a model card (README.md), all_results.json,
learning_curves.png, sample_predictions.png and recipe.yaml, every option that was given: `--config OUT/recipe.yaml
--output_dir OTHER` repeats the run.
"""  # noqa: E501

import itertools
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset
from huggingface_hub.errors import StrictDataclassError
from transformers import set_seed
from transformers.utils import logging

from prithvi_hf import (
    PrithviConfig,
    PrithviForSemanticSegmentation,
    PrithviImageProcessor,
    PrithviTrainer,
)
from prithvi_hf.data import (
    CachedChips,
    SegmentationTransform,
    SplitAudit,
    collate_chips,
)
from prithvi_hf.disk import check_writable_folder, no_room_left, no_room_message
from prithvi_hf.training.model_card import plot_learning_curves, plot_sample_predictions, write_model_card
from prithvi_hf.training.process_group import leave_process_group
from prithvi_hf.training.recipe import Recipe, parse_arguments
from prithvi_hf.training.recipe_chips import cache_splits, check_splits, load_splits
from prithvi_hf.training.trainer import find_damage, find_last_checkpoint


logger = logging.get_logger("prithvi_hf.finetune")

# Fields of the configuration that decide which weights a checkpoint holds.
SHAPES = (
    *("hidden_size", "num_hidden_layers", "mlp_ratio", "num_channels", "patch_size", "num_frames", "num_labels"),
    *("neck_hidden_size", "head_hidden_size", "head_num_convs", "use_auxiliary_head", "auxiliary_head_num_convs"),
)


@dataclass
class Run:
    """A run that is ready to start.

    Attributes:
        recipe ([`Recipe`]): The options.
        trainer ([`PrithviTrainer`]): The trainer.
        splits (`dict[str, Dataset | CachedChips]`): The splits by name.
        checkpoint (`str`, *optional*): The checkpoint to resume from, None for a fresh start.
        audits (`dict[str, SplitAudit]`): What each split holds, in the first process.
    """

    recipe: Recipe
    trainer: PrithviTrainer
    splits: dict[str, Dataset | CachedChips]
    checkpoint: str | None = None
    audits: dict[str, SplitAudit] = field(default_factory=dict)


def wanted_splits(recipe: Recipe) -> list[str]:
    """Names of the splits that the run needs."""
    data, training = recipe.data, recipe.training
    wanted = [data.train_split] * training.do_train
    wanted += [data.eval_split] * (training.do_eval or training.eval_strategy != "no")
    return wanted + data.test_splits * training.do_predict


def make_earlier_folder(output_dir: Path) -> Path:
    """Make the folder `earlier-DATE-TIME`, with a number behind it where that second has one already."""
    stamp = output_dir / f"earlier-{time.strftime('%Y%m%d-%H%M%S')}"
    names = itertools.chain([stamp], (Path(f"{stamp}-{number}") for number in itertools.count(2)))
    folder = next(name for name in names if not name.exists())
    folder.mkdir()
    return folder


def put_aside_earlier_run(output_dir: Path) -> None:
    """Move checkpoints and results of an earlier run out of the way of a fresh one, which would mix with them."""
    old = sorted([*output_dir.glob("checkpoint-*"), *output_dir.glob("*_results.json")])
    if old:
        folder = make_earlier_folder(output_dir)
        for path in old:
            path.rename(folder / path.name)
        logger.warning(
            f"{output_dir} held checkpoints or results of an earlier run; they are in {folder} now. Pass "
            "--resume_from_checkpoint true to continue a run instead."
        )


def checkpoint_to_resume(recipe: Recipe) -> str | None:
    """The checkpoint that `--resume_from_checkpoint` means; None for a fresh start."""
    wanted = recipe.training.resume_from_checkpoint
    output_dir = Path(recipe.training.output_dir)
    if wanted is None or str(wanted).lower() in ("false", "no"):
        return None
    if str(wanted).lower() not in ("true", "yes"):
        if not Path(wanted).is_dir():
            raise FileNotFoundError(f"Expected a checkpoint folder to resume from, found none at {wanted}.")
        damage = find_damage(wanted)
        if damage is not None:
            raise ValueError(
                f"Expected {wanted} to be a whole checkpoint, found that {damage}. Name another one; "
                "--resume_from_checkpoint true takes the newest whole one of the output folder."
            )
        return wanted
    first = recipe.training.process_index == 0
    found = find_last_checkpoint(output_dir, log=first)
    if first:
        logger.warning(
            f"Resuming from {found}." if found else f"No whole checkpoint in {output_dir}: starting afresh."
        )
    return found


def check_resumable(checkpoint: str | None, model: PrithviForSemanticSegmentation) -> None:
    """Refuse a checkpoint of another architecture than the recipe's."""
    if checkpoint is None:
        return
    saved = PrithviConfig.from_pretrained(checkpoint)
    other = [name for name in SHAPES if getattr(saved, name) != getattr(model.config, name)]
    if other:
        found = "; ".join(f"{name}: {getattr(saved, name)}, not {getattr(model.config, name)}" for name in other)
        raise ValueError(
            f"Expected the checkpoint {checkpoint} to be of the recipe's model, found {found}. Give the options that "
            "the run was started with, --model too."
        )


def make_trainer(
    recipe: Recipe,
    model: PrithviForSemanticSegmentation,
    processor: PrithviImageProcessor,
    splits: dict[str, Dataset | CachedChips],
) -> PrithviTrainer:
    """The model, its image processor and the transformed splits in a trainer."""
    data = recipe.data
    crop_size = model.config.frame_size if data.crop_size is None else data.crop_size
    on_device = data.normalize_on_device
    training = SegmentationTransform(processor, crop_size, data.augmentation, train=True, normalize=not on_device)
    whole = SegmentationTransform(processor, None, "none", train=False)
    train_dataset = splits[data.train_split].with_transform(training) if recipe.training.do_train else None
    for name in splits:
        splits[name] = splits[name].with_transform(whole)
    return PrithviTrainer(
        model=model,
        args=recipe.training,
        data_collator=collate_chips,
        train_dataset=train_dataset,
        eval_dataset=splits.get(data.eval_split),
        processing_class=processor,
    )


def train(run: Run) -> None:
    """Train, and save the best model with its processor and the recipe."""
    trainer, folder = run.trainer, Path(run.recipe.training.output_dir)
    if run.checkpoint is None and trainer.args.should_save:
        put_aside_earlier_run(folder)
    outcome = trainer.train(resume_from_checkpoint=run.checkpoint)
    trainer.save_model()
    trainer.save_state()
    trainer.log_metrics("train", outcome.metrics)
    trainer.save_metrics("train", outcome.metrics)
    if trainer.is_world_process_zero():
        run.recipe.save(folder / "recipe.yaml")


def evaluate(run: Run) -> dict[str, dict]:
    """Evaluate the splits asked for; metrics by their prefix."""
    data, training, trainer = run.recipe.data, run.recipe.training, run.trainer
    prefixes = {"eval": data.eval_split} if training.do_eval else {}
    prefixes |= {name: name for name in data.test_splits if training.do_predict}
    metrics = {}
    for prefix, split in prefixes.items():
        metrics[prefix] = trainer.evaluate(run.splits[split], metric_key_prefix=prefix)
        trainer.log_metrics(prefix, metrics[prefix])
        trainer.save_metrics(prefix, metrics[prefix])
    return metrics


def report(run: Run, metrics: dict[str, dict]) -> None:
    """Draw curves and samples and write the card, in the first process."""
    recipe, trainer = run.recipe, run.trainer
    if not trainer.is_world_process_zero():
        return
    folder, training = Path(recipe.training.output_dir), recipe.training
    if recipe.data.eval_split in run.splits and recipe.data.num_sample_predictions > 0:
        plot_sample_predictions(
            trainer.model,
            trainer.processing_class,
            run.splits[recipe.data.eval_split],
            folder / "sample_predictions.png",
            recipe.data.num_sample_predictions,
            training.eval_window,
            training.eval_overlap,
        )
    if not training.do_train:  # curves and card are those of the training
        return
    plot_learning_curves(trainer.state.log_history, folder / "learning_curves.png")
    results = {name: value for part in metrics.values() for name, value in part.items()}
    results["epoch"] = trainer.state.epoch
    names = {prefix: recipe.data.eval_split if prefix == "eval" else prefix for prefix in metrics}
    write_model_card(folder, recipe, trainer.processing_class, trainer.model, results, names, run.audits)


def prepare(recipe: Recipe) -> Run:
    """Build the model and check the data of a recipe.

    Args:
        recipe ([`Recipe`]): The options; `recipe.training` must be set.

    Returns:
        [`Run`]: What `execute` takes.

    Raises:
        ValueError: The data or the options are not as expected. Nothing has been written then.
        FileNotFoundError: A file or folder is missing.
        NotADirectoryError: The output folder is a file or lies below one.
        PermissionError: The output folder cannot be written.
    """
    check_writable_folder(recipe.training.output_dir, "--output_dir")
    if not recipe.data.class_names:
        raise ValueError("Expected class_names, the name of each class in order, found none. Set them in the recipe.")
    set_seed(recipe.training.seed)
    model, processor = recipe.build_model(), recipe.image_processor()
    if recipe.model.model is None and recipe.training.process_index == 0:
        logger.warning("The weights are random: pass --model FOLDER_OR_HUB_ID to start from a pretrained backbone.")
    checkpoint = checkpoint_to_resume(recipe)
    check_resumable(checkpoint, model)
    splits = cache_splits(load_splits(recipe, wanted_splits(recipe)), processor, recipe)
    audits = check_splits(splits, processor, recipe)
    return Run(recipe, make_trainer(recipe, model, processor, splits), splits, checkpoint, audits)


def execute(run: Run) -> dict[str, dict]:
    """Train, evaluate and report what `prepare` made ready.

    Args:
        run ([`Run`]): The run.

    Returns:
        `dict[str, dict]`: The metrics of each evaluated split by its prefix.
    """
    training = run.recipe.training
    if training.do_train:
        train(run)
    metrics = evaluate(run)
    report(run, metrics)
    if training.push_to_hub:
        run.trainer.push_to_hub()
    return metrics


def how_to_go_on(recipe: Recipe) -> str:
    """What a run that ended early says of a resume: the checkpoint that it would start from."""
    if not recipe.training.do_train:
        return "; run the same line again"
    found = find_last_checkpoint(recipe.training.output_dir, log=False)
    if found is None:
        return "; there is no whole checkpoint yet: --resume_from_checkpoint true would start afresh"
    return f"; --resume_from_checkpoint true goes on from {found}"


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status, 2 for input that is not as expected.

    Only errors of the preparation and a full disk are taken for the user's: what fails later otherwise keeps its
    traceback.
    """
    try:
        recipe = parse_arguments(arguments, description="Fine-tune Prithvi on georeferenced chips.")
        run = prepare(recipe)
    except (ValueError, OSError, StrictDataclassError) as error:
        if os.environ.get("PRITHVI_HF_TRACEBACK"):
            raise
        print(f"finetune.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("finetune.py: interrupted before the training; nothing was written", file=sys.stderr)
        return 130
    try:
        execute(run)
        leave_process_group(run.trainer)
    except KeyboardInterrupt:
        print(f"finetune.py: interrupted{how_to_go_on(recipe)}", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("PRITHVI_HF_TRACEBACK") or not no_room_left(error):
            raise
        message = no_room_message(recipe.training.output_dir, error)
        print(f"finetune.py: error: {message} Free space or raise the limit{how_to_go_on(recipe)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
