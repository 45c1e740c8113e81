# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""The datasets, one builder per module: a module that is added here is a dataset of that name."""

import pkgutil
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from prithvi_hf.data.builders.base import ChipBuilder


_SHARED = ("base", "download", "files", "splits")

DATASETS: dict[str, str] = {
    module.name: f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__) if module.name not in _SHARED
}
"""Every dataset by name, with the module of its builder. The module is imported when the dataset is asked for."""


def find_builder(name: str) -> "type[ChipBuilder]":
    """Find the builder class of a dataset: the one that its module defines."""
    if name not in DATASETS:
        raise ValueError(f"Expected a dataset among {list(DATASETS)}, found {name!r}. Your own files: geotiff_folder.")
    from prithvi_hf.data.builders.base import ChipBuilder

    module = import_module(DATASETS[name])
    for member in vars(module).values():
        if isinstance(member, type) and issubclass(member, ChipBuilder) and member.__module__ == module.__name__:
            return member
    raise TypeError(f"{module.__name__}: expected a subclass of ChipBuilder, found none.")


def find_public_datasets(paths: Iterable[str]) -> list[str]:
    """Name the public datasets whose image files are among paths with forward slashes."""
    names = {path.rpartition("/")[2] for path in paths}
    patterns = {name: find_builder(name).IMAGE_NAME for name in DATASETS}
    return [name for name, pattern in patterns.items() if pattern and any(map(pattern.fullmatch, names))]
