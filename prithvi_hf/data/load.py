# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The datasets of this package by name."""

import os
from dataclasses import fields
from typing import Any

import datasets
from datasets import BuilderConfig, Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from datasets.utils import logging

from prithvi_hf.data.builders import find_builder, find_public_datasets
from prithvi_hf.data.builders.base import ChipBuilder, HubChipBuilder, HubChipConfig
from prithvi_hf.data.builders.files import list_files


logger = logging.get_logger(__name__)

_BUILDER_OPTIONS = ("cache_dir", "token", "storage_options", "writer_batch_size")


def load_dataset(
    name: str,
    data_dir: str | os.PathLike | None = None,
    split: str | None = None,
    streaming: bool = False,
    **options: Any,
) -> Dataset | DatasetDict | IterableDataset | IterableDatasetDict:
    """Load a dataset of georeferenced chips; rows hold rasters whose pixels are read when asked for.

    Args:
        name (`str`): "sen1floods11", "hls_burn_scars", "hls_irrigation_scenes", "multi_temporal_crop",
            "landslide4sense", or for files of your own "geotiff_folder" (masks) and "geotiff_classification"
            (a label for each chip). "parquet" is a folder of Parquet shards with embedded GeoTIFFs, as `push_to_hub`
            and `to_parquet` of such a dataset write them, and "owner/name" such a dataset on the Hub.
        data_dir (`str` or `os.PathLike`, *optional*): folder of the dataset; without it the data are downloaded from
            their public place into `downloads` of the cache, once.
        split (`str`, *optional*): one split, or an expression of `datasets` such as "train[:10%]" or
            "train+validation"; None gives all splits by name.
        streaming (`bool`, *optional*, defaults to `False`): give iterable datasets, without a table in the cache.
            Sen1Floods11 is then read chip by chip from its bucket; datasets of the Hub, which are archives there, are
            downloaded first, and a warning says so.
        options: options of the builder ([`Sen1Floods11Config`], [`OfficialSplitsConfig`],
            [`HLSIrrigationScenesConfig`], [`GeoTiffFolderConfig`]), and of `datasets.DatasetBuilder` such as
            `cache_dir` and `token`.

    Returns:
        `Dataset`, or `DatasetDict` without `split`; their iterable counterparts when streaming. Columns: `image`
        (GeoTIFF, or a list of GeoTIFFs, one per frame), `mask` (GeoTIFF), `id` (string), and `date` (ISO day, or
        None), or with several frames `dates` (such a list). Where classes are known, the feature of `mask` names them.

    Raises:
        ValueError: an unknown name, option or split, or inconsistent files.
        FileNotFoundError: a missing folder, or files missing from it.
        DownloadError: a download that failed; run it again to continue it.

    Example:
    ```python
    >>> dataset = load_dataset("sen1floods11", data_dir="sen1floods11", split="train")
    >>> dataset[0]["image"].read(bands=[1, 2, 3]).shape
    (3, 512, 512)
    ```
    """
    if is_parquet(name):
        return datasets.load_dataset(name, data_dir=data_dir, split=split, streaming=streaming, **options)
    builder = make_builder(name, data_dir, **options)
    if data_dir is None and isinstance(builder, HubChipBuilder):
        if streaming:
            logger.warning(f"{name}: streaming without data_dir downloads the whole dataset first.")
        remote = {field.name for field in fields(HubChipConfig)}
        options = {key: value for key, value in options.items() if key not in remote}
        builder = make_builder(name, builder.download(), **options)
    if streaming:
        return builder.as_streaming_dataset(split)
    builder.download_and_prepare()
    return builder.as_dataset(split)


def is_parquet(name: str) -> bool:
    """Whether a dataset's name stands for Parquet shards, in a folder or, "owner/name", on the Hub."""
    return name == "parquet" or "/" in name


def detect_dataset(data_dir: str | os.PathLike) -> str | None:
    """Tell by the names of its files which public dataset a folder holds; None where it is none, or several."""
    found = find_public_datasets(list_files(os.path.expanduser(data_dir)))
    return found[0] if len(found) == 1 else None


def make_builder(name: str, data_dir: str | os.PathLike | None = None, **options: Any) -> ChipBuilder:
    """Make the builder of a dataset, for its `info` or for other uses than [`load_dataset`].

    Args:
        name (`str`): as in [`load_dataset`], and so the others.
        data_dir (`str` or `os.PathLike`, *optional*): the folder.
        options: of the builder, and of `datasets.DatasetBuilder`.

    Raises:
        ValueError: an unknown name or option.
        FileNotFoundError: `data_dir` does not exist.
    """
    builder = find_builder(name)
    own, common = (
        {field.name for field in fields(config)} for config in (builder.BUILDER_CONFIG_CLASS, BuilderConfig)
    )
    known = {*(own - common), *_BUILDER_OPTIONS}
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"Dataset {name}: unknown options {unknown}, expected some of {sorted(known)}.")
    return builder(data_dir=data_dir, **options)
