# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The chips of a run: loading the splits that a recipe names, and checking every chip before anything is written."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from datasets import config as datasets_config
from transformers.utils import logging

from prithvi_hf.data.audit import SplitAudit, audit_split
from prithvi_hf.data.audit_manifest import AuditManifest
from prithvi_hf.data.augmentations import count_class_pixels, find_augmentation
from prithvi_hf.data.chip_cache import CachedChips, cache_chips
from prithvi_hf.data.chip_labels import find_chip_classes
from prithvi_hf.data.chips import Chip, find_given_coordinates, find_shared_images
from prithvi_hf.data.load import is_parquet, load_dataset
from prithvi_hf.data.statistics import BandMoments, measure_targets
from prithvi_hf.data.streaming import open_streams
from prithvi_hf.data.transforms import ClassificationTransform, SegmentationTransform
from prithvi_hf.models.prithvi.configuration_prithvi import PrithviConfig
from prithvi_hf.models.prithvi.image_processing_prithvi import PrithviImageProcessor
from prithvi_hf.models.prithvi.regression_prithvi import PrithviForPixelRegression
from prithvi_hf.training.fold_splits import arrange_fold
from prithvi_hf.training.process_group import compute_in_first_process, run_in_first_process
from prithvi_hf.training.recipe import TrainingRecipe, read_starting_config


logger = logging.get_logger(__name__)

_FILL_VALUES = (-999, -9999, -32768, -99999, 32767, 65535)


def load_splits(recipe: TrainingRecipe, wanted: Sequence[str], remedy: str) -> DatasetDict:
    """Load the splits that a run needs; the first process prepares them for the others.

    The remedy is what the message about a missing split advises.
    """
    data = recipe.data
    options = data.dataset_options if isinstance(data.dataset_options, dict) else {}
    loaded: list[Any] = []

    def load() -> None:
        if data.streaming:
            loaded.append(open_streams(data.dataset, data.data_dir, data.shuffle_buffer, **options))
        else:
            loaded.append(load_dataset(data.dataset, data.data_dir, **options))

    run_in_first_process(recipe.training, load)
    if not loaded:  # another process: the table is there, or is made by one process of each machine
        load()
    splits = loaded[0]
    if data.fold is not None:
        splits = DatasetDict(arrange_fold(recipe, splits))
    missing = [name for name in wanted if name not in splits]
    if missing:
        raise ValueError(f"Expected the split(s) {missing} in {data.dataset}, found {sorted(splits)}. {remedy}")
    return DatasetDict({name: splits[name] for name in dict.fromkeys(wanted)})


def choose_coords_encoding(recipe: TrainingRecipe, config: PrithviConfig, splits: Mapping[str, Dataset]) -> bool:
    """Leave out of the recipe's model what it takes of dates and places and not one training chip gives.

    A term that was never there in the training would otherwise disturb the maps of scenes that give it. Where the
    recipe has `coords_encoding`, that is what counts. Returns whether the model has to be built again.
    """
    encoded = list(config.coords_encoding)
    if not encoded or recipe.model.coords_encoding is not None or not recipe.training.do_train:
        return False
    given = find_given_coordinates(splits[recipe.data.train_split], encoded)
    if given == encoded:
        return False
    kinds = {"time": "a date", "location": "a CRS, which tells the place"}
    missing = [name for name in encoded if name not in given]
    logger.warning(
        f"The starting model takes {' and '.join(encoded)}, and not one training chip has "
        f"{' or '.join(kinds[name] for name in missing)}: coords_encoding is {given}, without "
        f"{' and '.join(missing)}. Set coords_encoding in the recipe to choose otherwise."
    )
    recipe.model.coords_encoding = given
    return True


def make_transform(
    recipe: TrainingRecipe,
    processor: PrithviImageProcessor,
    crop_size: Sequence[int] | None = None,
    coords_encoding: Sequence[str] = (),
) -> SegmentationTransform:
    """Make what turns rows into examples of a recipe: training crops of a size, or whole chips to evaluate.

    `coords_encoding` is that of the model.
    """
    data, options = recipe.data, dict[str, Any](coords_encoding=coords_encoding)
    if crop_size is not None:
        own = None if data.custom_augmentation is None else find_augmentation(data.custom_augmentation)
        options |= {"crop_size": crop_size, "augmentation": data.augmentation, "train": True}
        options |= {"jitter": data.make_jitter(), "custom_augmentation": own}
        options["normalize"] = not data.normalize_on_device or options["jitter"].is_on or own is not None
    if data.task != "classification":
        return SegmentationTransform(processor, **options)
    return ClassificationTransform(processor, data.class_names or [], recipe.model.is_multi_label, **options)


def count_classes(recipe: TrainingRecipe, chips: Any, processor: PrithviImageProcessor) -> np.ndarray | None:
    """Count, in the first process, the pixels of each class in each training chip, where crops are balanced by them.

    Of labels of whole chips every class of a chip counts once.
    """
    data = recipe.data
    if not data.balance_classes:
        return None
    of_chips = make_class_finder(recipe) if data.task == "classification" else None
    options = (len(data.class_names or []), data.train_split, of_chips)
    return compute_in_first_process(recipe.training, lambda: count_class_pixels(chips, processor, *options))


def make_class_finder(recipe: TrainingRecipe) -> Callable[[Chip], list[int]]:
    """Make what gives the class numbers of a chip whose label is of the whole."""
    names, multi_label = recipe.data.class_names or [], recipe.model.is_multi_label
    return lambda chip: find_chip_classes(chip.label, names, multi_label, chip.id)


def complete_target_statistics(recipe: TrainingRecipe, remedy: str) -> None:
    """Measure mean and standard deviation of the values to be learned, where neither recipe nor model gives them.

    The remedy is as of [`load_splits`].
    """
    model, data = recipe.model, recipe.data
    given = [model.target_mean, model.target_std]
    if data.task != "regression" or not recipe.training.do_train or None not in given:
        return
    if given != [None, None]:
        raise ValueError(
            f"Expected target_mean and target_std together, found {given[0]} and {given[1]}. Give both, as "
            "`prithvi-hf stats` writes them, or neither."
        )
    start = None if model.model is None else read_starting_config(model.model)
    if start is not None and PrithviForPixelRegression.__name__ in (start.architectures or ()):
        return  # its head is trained for its own
    split = load_splits(recipe, [data.train_split], remedy)[data.train_split]

    def measure() -> BandMoments:
        return measure_targets(split, recipe.build_image_processor(), data.train_split)

    found = compute_in_first_process(recipe.training, measure)
    model.target_mean, model.target_std = found.mean, found.std
    if recipe.training.process_index == 0:
        print(
            f"{data.train_split}: {found.count:,} values from {found.minimum:.6g} to {found.maximum:.6g} "
            f"{model.target_unit or ''}; target_mean {found.mean:.6g} and target_std {found.std:.6g} are saved "
            "with the model",
            flush=True,
        )


def check_splits(
    splits: Mapping[str, Dataset | CachedChips],
    processor: PrithviImageProcessor,
    recipe: TrainingRecipe,
    show_progress: bool = True,
    crop_size: Sequence[int] | None = None,
    coords_encoding: Sequence[str] = (),
    tables: Mapping[str, Dataset] | None = None,
) -> dict[str, SplitAudit]:
    """Read every chip once, in the first process, so that a bad file stops the run before anything is written.

    Chips whose files are unchanged since an earlier run checked them are known from its manifest; `tables` are the
    splits with the paths of their files, where `splits` are decoded ones.

    Equal images in two splits, training chips smaller than the crop (height, width), and chips without a date or a
    place that the model encodes are a warning. Returns what each split holds; nothing in other processes and without
    `check_data`.
    """
    check = recipe.data.check_data
    if check == "none" or (check == "all" and recipe.data.streaming):
        return {}
    audits: dict[str, SplitAudit] = {}
    class_names = recipe.data.class_names or []

    def audit() -> None:
        of_chips = make_class_finder(recipe) if recipe.data.task == "classification" else None
        for name, split in splits.items():
            manifest = open_manifest(recipe, processor, name, (tables or splits)[name], coords_encoding)
            audits[name] = audit_split(
                *(split, processor, len(class_names), name, show_progress, of_chips, coords_encoding),
                manifest=manifest,
                sample=check == "sample",
            )
            if show_progress:
                print(audits[name].summary(class_names), flush=True)
            values, options = audits[name].values, processor.checked_options()
            for value in (values.minimum, values.maximum) if values else ():
                number = round((value - options.target_rescale_offset) / options.target_rescale_factor, 3)
                if number in _FILL_VALUES:
                    logger.warning(
                        f"{name}: {number:g} is among the values that count, and is a usual sign of files for no "
                        f"value. Remedy: target_nodata_value: {number:g}, unless it means what it says."
                    )
            for problem, chips in audits[name].coordinate_problems.items():
                logger.warning(f"{name}: {chips} of {audits[name].chips} chips {problem}.")
            # Chips of a training split are cropped to one size; those of the others come whole.
            is_cropped = recipe.training.do_train and name == recipe.data.train_split
            sizes, batch_size = sorted(audits[name].sizes), recipe.training.per_device_eval_batch_size
            if len(sizes) > 1 and batch_size > 1 and not is_cropped:
                raise ValueError(
                    f"Split {name}: expected chips of one size to evaluate {batch_size} in a batch, found "
                    f"{', '.join(f'{height} x {width}' for height, width in sizes)}. Remedy: evaluate them one by one "
                    "with per_device_eval_batch_size: 1 in the recipe; windows of a chip still go together."
                )
            small = [size for size in sizes if crop_size and (size[0] < crop_size[0] or size[1] < crop_size[1])]
            if is_cropped and crop_size and small:
                logger.warning(
                    f"{name}: {sum(audits[name].sizes[size] for size in small)} of {audits[name].chips} chips are "
                    f"smaller than the crop of {crop_size[0]} x {crop_size[1]} pixels, the smallest {small[0][0]} x "
                    f"{small[0][1]}, and are padded by reflection. Remedy: --crop_size {min(map(min, small))}, or "
                    "larger chips."
                )
        for text in find_shared_images({name: audit.image_digests for name, audit in audits.items()}):
            logger.warning(text)

    run_in_first_process(recipe.training, audit)
    return audits


def open_manifest(
    recipe: TrainingRecipe,
    processor: PrithviImageProcessor,
    split_name: str,
    table: Dataset | CachedChips,
    coords_encoding: Sequence[str],
) -> AuditManifest | None:
    """Open the manifest of a split's check; None for an image processor of a user's own code, which may change."""
    if type(processor) is not PrithviImageProcessor or not isinstance(table, Dataset):
        return None
    data = recipe.data
    options = {
        "processor": json.loads(processor.to_json_string()),
        "task": [data.task, data.class_names, recipe.model.is_multi_label, list(coords_encoding)],
    }
    return AuditManifest(find_cache_dir(recipe) or datasets_config.HF_DATASETS_CACHE, split_name, options, table)


def find_cache_dir(recipe: TrainingRecipe) -> str | None:
    """Find the folder that a recipe names for what is kept between runs; None for the cache of `datasets`."""
    options = recipe.data.dataset_options if isinstance(recipe.data.dataset_options, dict) else {}
    return recipe.data.decoded_cache_dir or options.get("cache_dir")


def cache_splits(
    splits: Mapping[str, Dataset], processor: PrithviImageProcessor, recipe: TrainingRecipe
) -> dict[str, Dataset | CachedChips]:
    """Decode the chips that a training reads again and again, or find them decoded; the first process goes ahead.

    Without `decoded_cache`, or without a training, the splits stay as they are.
    """
    data = recipe.data
    if not data.decoded_cache or not recipe.training.do_train or data.streaming:
        return dict(splits)
    if is_parquet(data.dataset):
        if recipe.training.process_index == 0:
            logger.warning(
                f"The chips of {data.dataset} are embedded in its table and not decoded ahead: each crop is decoded "
                "when it is drawn. decoded_cache: false says the same without this message."
            )
        return dict(splits)
    # Test splits are read once in a run, so that decoding them ahead would gain nothing.
    names = [name for name in (data.train_split, data.eval_split) if name in splits]
    cache_dir = find_cache_dir(recipe)
    cached: dict[str, CachedChips] = {}

    def cache(show_progress: bool) -> None:
        for name in names:
            cached[name] = cache_chips(splits[name], processor, name, cache_dir, show_progress)

    run_in_first_process(recipe.training, partial(cache, show_progress=True))
    if not cached:  # another process: the cache is there, or is made by one process of each machine
        cache(show_progress=False)
    return {**splits, **cached}


def check_batches(recipe: TrainingRecipe, config: PrithviConfig, chips: int) -> None:
    """Check that every batch of a training can be trained on, and leave a last batch of one chip out for UPerNet.

    UPerNet pools its smallest map to one value, which batch normalisation cannot normalise within one chip. That small
    last batches do harm where an epoch is few batches was measured, see docs/results.md.
    """
    training = recipe.training
    size, share = training.per_device_train_batch_size, -(-chips // training.world_size)
    if training.dataloader_drop_last and share < size:
        raise ValueError(
            f"Expected at least {size} training chips for each process (per_device_train_batch_size) with "
            f"dataloader_drop_last, found {share}. Lower the batch size, or set dataloader_drop_last: false."
        )
    normalizes_alone = training.world_size == 1 or not training.sync_batch_norm
    if config.decode_head == "upernet" and normalizes_alone:
        if min(size, share) == 1:
            raise ValueError(
                "Expected batches of at least two chips with decode_head upernet, whose batch normalisation needs "
                f"them, found per_device_train_batch_size {size} and {chips} training chips. Raise them, or choose "
                "another head."
            )
        if share % size == 1 and not training.dataloader_drop_last:
            training.dataloader_drop_last = True
            logger.warning(
                f"The last batch of an epoch, of {chips} training chips, would be one chip, on which UPerNet cannot "
                "be trained: it is left out of each epoch."
            )
    rest, batches = share % size, -(-share // size)
    if (
        0 < rest <= size / 2
        and 1 < batches <= 10
        and not training.dataloader_drop_last
        and training.process_index == 0
    ):
        logger.warning(
            f"One batch in {batches} has {rest} of {size} chips, on which batch normalisation learns badly. "
            "--dataloader_drop_last true leaves the last batch out, other chips in each epoch."
        )
