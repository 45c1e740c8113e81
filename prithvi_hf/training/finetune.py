# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A fine-tuning run from its recipe to its model card: `setup`, `train`, `evaluate`, `report`; `main` runs them."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from datasets import Dataset
from filelock import BaseFileLock
from huggingface_hub.errors import HfHubHTTPError, StrictDataclassError
from transformers import EarlyStoppingCallback, PreTrainedConfig, set_seed
from transformers.utils import logging

from prithvi_hf.data.audit import SplitAudit
from prithvi_hf.data.chip_cache import CachedChips, ChipCacheError
from prithvi_hf.data.chips import abbreviate_names
from prithvi_hf.data.groups import find_groups
from prithvi_hf.data.input_statistics import measure_training_input
from prithvi_hf.data.streaming import StreamedChipError, StreamedCrops
from prithvi_hf.data.transforms import TrainingCrops, collate_chips
from prithvi_hf.disk import check_writable_folder, describe_disk_full, is_disk_full
from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.models.prithvi.modeling_prithvi import PrithviForSemanticSegmentation
from prithvi_hf.models.prithvi.sliding_window_prithvi import window_and_stride
from prithvi_hf.outputs.figures import save_chart, save_picture
from prithvi_hf.training.calibration import CalibrationError, calibrate, name_figures, write_temperature
from prithvi_hf.training.checkpoints import (
    check_adapter,
    check_output_folder,
    describe_removed,
    fetch_checkpoint,
    find_damage,
    find_last_checkpoint,
    find_run_name,
    lock_output_folder,
    put_aside,
    restore_best_checkpoint,
)
from prithvi_hf.training.chip_figures import (
    CHIP_FIGURES,
    digest_weights,
    find_splits,
    read_chip_figures,
    read_columns,
    write_chip_figures,
)
from prithvi_hf.training.chip_pictures import ChipPicture, write_chip_pictures
from prithvi_hf.training.evaluation import measure_split
from prithvi_hf.training.fold_runs import FoldRuns
from prithvi_hf.training.hub_results import write_eval_results
from prithvi_hf.training.intervals import bootstrap_interval, name_intervals
from prithvi_hf.training.loss_guard import NonFiniteLossError
from prithvi_hf.training.model_card import make_curve_figure, write_model_card
from prithvi_hf.training.preemption import RunPreemptedError
from prithvi_hf.training.process_group import leave_process_group, run_in_first_process
from prithvi_hf.training.recipe import TrainingRecipe, parse_arguments
from prithvi_hf.training.recipe_chips import (
    cache_splits,
    check_batches,
    check_splits,
    choose_coords_encoding,
    complete_target_statistics,
    count_classes,
    load_splits,
    make_transform,
)
from prithvi_hf.training.reliability import RELIABILITY, make_reliability_figure
from prithvi_hf.training.repeats import Repeats, SeveralRuns
from prithvi_hf.training.report import REPORT, write_report
from prithvi_hf.training.run_record import make_run_record, write_run_record
from prithvi_hf.training.sample_pictures import PLOTS
from prithvi_hf.training.search import Search
from prithvi_hf.training.sharding import check_parts, gather_weights
from prithvi_hf.training.trackers import add_sample_pictures, check_trackers
from prithvi_hf.training.trainer import PrithviTrainer
from prithvi_hf.training.training_args import TASK_METRICS, PrithviTrainingArguments
from prithvi_hf.training.weight_average import check_averaging


logger = logging.get_logger(__name__)

_MISSING_SPLIT = (
    "Name others with --train_split, --eval_split and --test_splits, or leave a step out with --do_train false, "
    "--do_predict false, or --do_eval false --eval_strategy no --load_best_model_at_end false. Chips in one folder "
    "are divided by dataset_options: {splits: {train: train.txt, ...}}."
)
# Fields of PrithviConfig that a resumed run may change: they neither shape weights nor choose what is computed.
_FREE_TO_CHANGE = {
    *("image_size", "class_colors", "class_weights", "auxiliary_loss_weight", "focal_gamma"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "classifier_dropout"),
    *("initializer_range",),
    *("fused_upsampling", "target_name", "target_unit", "temperature"),
}


@dataclass
class Run:
    """A run that is ready to start."""

    recipe: TrainingRecipe
    trainer: PrithviTrainer
    splits: dict[str, Dataset | CachedChips]
    checkpoint: str | None = None  # to resume from, None for a fresh start
    audits: dict[str, SplitAudit] = field(default_factory=dict)  # what each split holds, in the first process
    groups: dict[str, list[str]] = field(default_factory=dict)  # of the chips of each split that is evaluated


def setup(recipe: TrainingRecipe) -> Run:
    """Build the model and the trainer of a recipe and check its data; nothing is written but caches.

    What is not as expected of data or options is a ValueError or an OSError, with what was expected and a remedy.
    """
    data, training = recipe.data, recipe.training
    check_writable_folder(training.output_dir or ".", "--output_dir")
    check_trackers(training)
    if not data.class_names and data.task != "regression":
        raise ValueError("Expected class_names, the name of each class in order, found none. Set them in the recipe.")
    complete_target_statistics(recipe, _MISSING_SPLIT)
    checkpoint = find_checkpoint_to_resume(training)
    model = build_model(recipe, checkpoint)
    processor = recipe.build_image_processor()
    processor.check_config(model.config)
    data.make_jitter().check_options(processor.checked_options())
    is_random = checkpoint is None and recipe.model.model is None and model.config.architecture != "unet"
    if is_random and training.process_index == 0:
        logger.warning("The weights are random: pass --model FOLDER_OR_HUB_ID to start from a pretrained backbone.")

    wanted = [data.train_split] * training.do_train
    wanted += [data.eval_split] * (training.do_eval or training.eval_strategy != "no")
    wanted += data.test_splits * training.do_predict
    chips = load_splits(recipe, wanted, _MISSING_SPLIT)
    evaluated = dict.fromkeys(wanted[int(training.do_train) :])
    groups = {name: find_groups(chips[name], data.group_by, name) for name in evaluated if data.group_by is not None}
    if choose_coords_encoding(recipe, model.config, chips):
        model = build_model(recipe, checkpoint)
    if checkpoint is not None:
        check_resumable(checkpoint, model.config)
        check_adapter(checkpoint, model)
    splits, encoded = cache_splits(chips, processor, recipe), model.config.coords_encoding
    crop_size = window_and_stride(model.config)[0] if data.crop_size is None else (data.crop_size, data.crop_size)
    audits = check_splits(splits, processor, recipe, crop_size=crop_size, coords_encoding=encoded, tables=chips)

    # Random crops to train on, whole chips to evaluate, also where both are of one split.
    crops, whole = (make_transform(recipe, processor, size, encoded) for size in (crop_size, None))
    train_dataset: TrainingCrops | None = None
    if training.do_train:
        seed = training.seed if training.data_seed is None else training.data_seed
        train_split = splits[data.train_split]
        if data.streaming:
            train_dataset = StreamedCrops(train_split, crops, seed, data.shuffle_buffer, give_index=True)
        else:
            class_pixels = count_classes(recipe, train_split, processor)
            train_dataset = TrainingCrops(train_split, crops, seed, class_pixels, data.copy_paste, give_index=True)
        check_batches(recipe, model.config, len(train_dataset))
        if data.custom_augmentation is not None and not data.streaming:
            train_dataset[0]  # the user's function shows what it does before anything is written
    splits = {name: split.with_transform(whole) for name, split in splits.items()}
    if training.do_train:
        PrithviTrainer.get_optimizer_cls_and_kwargs(training, model)  # refuses one whose package is not installed
    trainer = PrithviTrainer(
        model=model,
        args=training,
        data_collator=collate_chips,
        train_dataset=train_dataset,
        eval_dataset=splits.get(data.eval_split),
        processing_class=processor,
    )
    if checkpoint is not None:
        check_parts(checkpoint, trainer.accelerator)
    add_sample_pictures(trainer, data.num_sample_predictions)
    return Run(recipe, trainer, splits, checkpoint, audits, groups)


def build_model(recipe: TrainingRecipe, checkpoint: str | None) -> PrithviForSemanticSegmentation:
    """Build the model of a recipe after setting the seed; the weights of a checkpoint to resume come later."""
    verbosity = logging.get_verbosity()
    set_seed(recipe.training.seed)
    if checkpoint is not None:  # its weights replace those that the library would report as newly initialized
        logging.set_verbosity_error()
    try:
        model = recipe.build_model(may_add_weights=recipe.training.do_train)
    finally:
        logging.set_verbosity(verbosity)
    if recipe.training.do_train:  # that of the starting model is not of what it becomes
        model.config.temperature = 1.0
    model.config.validate()  # what would be refused when the model is saved
    return model


def find_checkpoint_to_resume(training: PrithviTrainingArguments) -> str | None:
    """Find the checkpoint that `--resume_from_checkpoint` means; None for a fresh start."""
    if training.continues_newest:
        output_dir, first = training.output_dir or ".", training.process_index == 0
        found = find_last_checkpoint(output_dir, log=first)
        if found is None and training.push_to_hub:
            found = fetch_checkpoint(training)
        if first:
            logger.warning(
                f"Resuming from {found}." if found else f"No whole checkpoint in {output_dir}: a fresh start."
            )
        if found:
            check_averaging(found, training.ema_decay)
        return found
    wanted = training.named_checkpoint
    if wanted is None:
        return None
    if not Path(wanted).is_dir():
        raise FileNotFoundError(f"Expected a checkpoint folder to resume from, found none at {wanted}.")
    damage = find_damage(wanted)
    if damage is not None:
        raise ValueError(
            f"Expected {wanted} to be a whole checkpoint, found that {damage}. Name another one; "
            "--resume_from_checkpoint true takes the newest whole one of the output folder."
        )
    check_averaging(wanted, training.ema_decay)
    return wanted


def check_resumable(checkpoint: str, config: PrithviConfig) -> None:
    """Refuse a checkpoint of another model than the recipe's: other sizes, another neck, head or loss."""
    saved = PrithviConfig.from_pretrained(checkpoint)
    inherited = {option.name for option in fields(PreTrainedConfig)}
    names = [option.name for option in fields(PrithviConfig) if option.name not in inherited | _FREE_TO_CHANGE]
    values = {name: (getattr(saved, name), getattr(config, name)) for name in [*names, "num_labels"]}
    other = {name: pair for name, pair in values.items() if pair[0] != pair[1]}
    if other:
        found = "; ".join(f"{name}: {own}, not {asked}" for name, (own, asked) in other.items())
        raise ValueError(
            f"Expected the checkpoint {checkpoint} to be of the recipe's model, found {found}. Give the options that "
            "the run was started with, --model too."
        )


def train(run: Run) -> None:
    """Train, save the best model with its image processor and the recipe, and calibrate it."""

    def describe_input() -> None:
        processor, chips = run.trainer.processing_class, run.splits[run.recipe.data.train_split]
        processor.training_statistics = measure_training_input(chips, processor)

    train_and_save(run, describe_input)
    calibrate_model(run)


def train_and_save(run: Any, before_saving: Callable[[], None] | None = None) -> None:
    """Train, of chips or in a pretraining, and save the best model with its image processor and the recipe."""
    trainer, folder = run.trainer, Path(run.recipe.training.output_dir or ".")
    if run.checkpoint is None and trainer.args.should_save:
        put_aside(folder, ("checkpoint-*", "*_results.json", CHIP_FIGURES))
    if run.checkpoint is not None and trainer.args.should_save:
        restore_best_checkpoint(run.checkpoint, folder)
    if run.checkpoint is not None and "run_name" not in run.recipe.given:
        trainer.args.run_name = find_run_name(run.checkpoint) or trainer.args.run_name
    outcome = trainer.train(resume_from_checkpoint=run.checkpoint)
    check_output_folder(folder)
    trainer.remove_callback(EarlyStoppingCallback)  # what is evaluated from here on stops nothing
    if trainer.args.should_save and before_saving is not None:
        before_saving()
    trainer.save_model(_internal_call=True)  # the upload comes once, at the end
    trainer.save_state()
    trainer.log_metrics("train", outcome.metrics)
    trainer.save_metrics("train", outcome.metrics)
    if trainer.is_world_process_zero():
        run.recipe.save(folder / "recipe.yaml")


def calibrate_model(run: Run) -> None:
    """Fit the temperature of the trained model on the validation split and save it in the model's configuration."""
    data, training, trainer = run.recipe.data, run.recipe.training, run.trainer
    names = {data.eval_split, data.train_split}
    if not training.calibrate or data.task == "regression" or data.eval_split not in run.splits or len(names) < 2:
        return
    try:
        with gather_weights(trainer.model, trainer.accelerator):
            found = calibrate(trainer, run.splits[data.eval_split])
    except CalibrationError as error:
        if trainer.is_world_process_zero():
            logger.warning(
                f"The probabilities of the model stay as they are, {data.eval_split} cannot tell better: {error}"
            )
        return
    trainer.model.config.temperature = found.temperature
    trainer.save_metrics("calibration", name_figures(found))
    if trainer.is_world_process_zero():
        write_temperature(training.output_dir or ".", found.temperature)
        print(found.describe(data.eval_split), flush=True)


def evaluate(run: Run) -> dict[str, dict[str, Any]]:
    """Evaluate the splits that the recipe asks for; metrics by their prefix: `eval`, or the name of a test split.

    The figures of each chip are written beside the model, by which every metric can be computed again.
    Chips that changed since they were checked are named in a warning, for figures and model may be of different ones.
    """
    for split, audit in run.audits.items():
        changed = audit.find_changed_files()
        if changed:
            logger.warning(
                f"Expected the chips of {split} to stay as they were when they were checked, found {len(changed)} "
                f"file(s) changed or gone: {abbreviate_names(changed)}. Run again when nothing writes to them."
            )
    data, training, trainer = run.recipe.data, run.recipe.training, run.trainer
    metrics: dict[str, dict[str, Any]] = {}
    folder = Path(training.output_dir or ".")
    model = folder if training.do_train else run.recipe.model.model
    digest = digest_weights(model) if model is not None and trainer.is_world_process_zero() else None
    tables = []
    for prefix, split in run.recipe.list_evaluations().items():
        about = {"groups": run.groups.get(split), "class_names": data.class_names or ()}
        metrics[prefix], table = measure_split(
            trainer, run.splits[split], split, prefix, model=model, model_digest=digest, **about
        )
        tables.append(table)
        trainer.log_metrics(prefix, metrics[prefix])
        metrics[prefix] |= name_intervals(prefix, bootstrap_interval(table))
        trainer.save_metrics(prefix, metrics[prefix])
    if tables and trainer.is_world_process_zero():
        write_chip_figures(folder / CHIP_FIGURES, tables)
        if "bin_count" in tables[-1].column_names:  # the last split is a test's where there is one
            title = f"{split}, temperature {trainer.model.config.temperature:.3g}"
            figure = make_reliability_figure(read_columns(tables[-1]), data.class_names or (), title)
            save_chart(figure, folder / RELIABILITY)
    return metrics


def report(run: Run, metrics: dict[str, dict[str, Any]]) -> None:
    """Draw samples and curves and write the card, in the first process; upload the folder where asked for."""
    data, training, trainer = run.recipe.data, run.recipe.training, run.trainer
    folder = Path(training.output_dir or ".")
    # Whatever the first process draws, it waits for no other.
    with gather_weights(trainer.model, trainer.accelerator):
        if trainer.is_world_process_zero():
            if data.eval_split in run.splits and data.num_sample_predictions > 0:
                samples = PLOTS[data.task](
                    trainer.model,
                    trainer.processing_class,
                    run.splits[data.eval_split],
                    data.num_sample_predictions,
                    training.eval_window,
                    training.eval_overlap,
                )
                save_picture(samples, folder / "sample_predictions.png")
            if training.do_train:  # curves and card are those of the training
                [(metric, title), *_] = TASK_METRICS[data.task].items()
                title = title.replace("Mean", "mean")
                curves = make_curve_figure(trainer.state.log_history, (metric, title))
                save_chart(curves, folder / "learning_curves.png")
                results = {name: value for part in metrics.values() for name, value in part.items()}
                results["epoch"] = trainer.state.epoch
                names = {prefix: data.eval_split if prefix == "eval" else prefix for prefix in metrics}
                write_model_card(
                    folder, run.recipe, trainer.processing_class, trainer.model, results, names, run.audits
                )
                write_eval_results(folder, data, results, names)
                done = f"The run is complete in {folder}"
                if metrics:
                    write_run_report(run, folder)
                    done += f"; {folder / REPORT} shows what it found"
                if data.task != "classification":
                    done += f". Map a scene: prithvi-hf predict --model {folder} --frames SCENE.tif --output MAP.tif"
                print(done, flush=True)
    if training.push_to_hub:
        trainer.push_to_hub()


def write_run_report(run: Run, folder: Path) -> None:
    """Draw the best and worst chips of the first evaluation, note data and versions, and write the page of a run."""
    data, training, trainer = run.recipe.data, run.recipe.training, run.trainer
    table = next(iter(find_splits(read_chip_figures(folder)).values()))
    pictures: list[ChipPicture] = []
    if data.num_sample_predictions > 0 and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        pictures = write_chip_pictures(
            folder,
            trainer.model,
            trainer.processing_class,
            run.splits[table["split"][0].as_py()],
            table,
            window=training.eval_window,
            overlap=training.eval_overlap,
        )
    write_run_record(folder, make_run_record(run.audits, pictures, training.world_size, training.device))
    write_report(folder)


def execute(run: Run) -> None:
    """Train, evaluate and report what `setup` made ready."""
    if run.recipe.training.do_train:
        train(run)
    report(run, evaluate(run))


def prepare(arguments: Sequence[str] | None, program: str) -> Run | SeveralRuns:
    """Read the command line and set the run up, or the first of several."""
    recipe = parse_arguments(arguments, "Fine-tune Prithvi on georeferenced chips.", program)
    if recipe.data.folds is not None and recipe.data.fold is None:
        return FoldRuns(recipe, setup)
    if recipe.repeats.hp_search is not None:
        return Search(recipe, setup)
    return setup(recipe) if recipe.repeats.seeds is None else Repeats(recipe, setup)


def main(
    arguments: Sequence[str] | None = None,
    program: str = "finetune.py",
    execute: Callable[[Any], None] = execute,
    prepare: Callable[[Sequence[str] | None, str], Any] = prepare,
) -> int:
    """Run from the command line and return the exit status: 2 for a user's error or a full disk, 130 after Ctrl-C.

    After SIGTERM or SIGUSR1 in a training, which saves a checkpoint then, it is 128 and the signal's number.

    Only errors before the training, a full disk, an output folder that was removed and a damaged cache are taken for
    the user's: what fails later otherwise keeps its traceback. The program's name is for usage and errors. `prepare`
    makes the run ready, and `execute` runs it, while no other run can write to the output folder.
    """
    run, locks = None, list[BaseFileLock]()
    try:
        ready = prepare(arguments, program)
        folder = Path(ready.recipe.training.output_dir or ".")
        run_in_first_process(ready.recipe.training, lambda: locks.append(lock_output_folder(folder)))
        run = ready
        if isinstance(run, SeveralRuns):
            run.execute(execute)
        else:
            execute(run)
        leave_process_group(run.trainer)
        return 0
    except RunPreemptedError as stop:  # in all processes alike
        leave_process_group(run.trainer if run else None)
        status, message = 128 + stop.number, str(stop)
    except KeyboardInterrupt:
        status, message = 130, "interrupted"
        if run is None:
            message += " before the training; nothing was written"
    except Exception as error:
        refused = run is None and isinstance(error, ValueError | OSError | ImportError | StrictDataclassError)
        gone = run is not None and not folder.is_dir()
        explained = isinstance(error, ChipCacheError | NonFiniteLossError | StreamedChipError)
        of_hub = run is not None and isinstance(error, HfHubHTTPError | ConnectionError)
        known = refused or gone or of_hub
        known |= run is not None and (is_disk_full(error) or explained)
        if os.environ.get("PRITHVI_HF_TRACEBACK") or not known:
            raise
        status, message = 2, f"error: {error}"
        if gone:
            run, message = None, f"error: {describe_removed(folder)}"
        elif run is not None and of_hub:
            repo = run.recipe.training.hub_model_id
            command = f"prithvi-hf push {folder}" + (f" --repo_id {repo}" if repo else "")
            run, message = None, f"{message}\nThe run is complete in {folder}; `{command}` uploads it."
        elif isinstance(error, ChipCacheError | StreamedChipError):  # of a worker it comes with a traceback before it
            message = f"error: {str(error).rpartition(f'{type(error).__name__}: ')[2].strip().rstrip('.')}"
        elif run is not None and not isinstance(error, NonFiniteLossError):
            message = f"error: {describe_disk_full(folder, error)} Free space or raise the limit"
    finally:
        for lock in locks:
            lock.release()
    if run is not None:  # it had begun: say where it can be taken up again
        training = run.recipe.training
        found = find_last_checkpoint(training.output_dir or ".", log=False) if training.do_train else None
        if isinstance(run, SeveralRuns):
            message += f"; {run.describe_resume()}"
        elif not training.do_train:
            message += "; run the same line again"
        elif found is None:
            message += "; there is no whole checkpoint yet: --resume_from_checkpoint true would start again"
        else:
            message += f"; --resume_from_checkpoint true continues from {found}"
    print(f"{program}: {message}", file=sys.stderr)
    return status
