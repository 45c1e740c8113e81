# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What the builders of this package share: columns, rows, and a cache that never serves a folder that has changed."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from datasets import Features, GeneratorBasedBuilder, SplitGenerator, Value

from .files import list_files
from .geotiff import GeoTiff


# Part of every cache key: raise it when rows of the same files come out differently.
_CODE_VERSION = "1"
# What a folder's listing is keyed on; logs or outputs beside the data change nothing.
_DATA_SUFFIXES = (".tif", ".tiff", ".csv", ".txt", ".json", ".geojson")


def chip_features(image: Any = None) -> Features:
    """Columns of a data set of chips: `image` (one GeoTIFF, or a list of frames), `mask`, `id`, `date`."""
    image = GeoTiff() if image is None else image
    return Features({"image": image, "mask": GeoTiff(), "id": Value("string"), "date": Value("string")})


class ChipBuilder(GeneratorBasedBuilder):
    """Base of builders that pair image and mask files and yield one row a chip, without reading a pixel.

    Subclasses set `DATASET_NAME` and give `_info` and `_rows_by_split`. `datasets` names a builder's cache after its
    module and options only, so two versions of a folder would share one; here the names, sizes and times of its files
    are part of the key.

    Args:
        data_dir (`str`, *optional*): the folder of the data set.
        cache_dir (`str`, *optional*): where `datasets` keeps its tables.
        kwargs: options of the builder's config, and other arguments of `datasets.DatasetBuilder`.
    """

    DATASET_NAME: ClassVar[str]

    def __init__(self, *, data_dir: str | os.PathLike | None = None, **kwargs: Any) -> None:
        if data_dir is not None:
            data_dir = os.path.abspath(os.path.expanduser(data_dir))
        kwargs.setdefault("dataset_name", self.DATASET_NAME)
        places = [] if data_dir is None else [data_dir, *self._other_places(data_dir, kwargs)]
        kwargs.setdefault("hash", _content_key(self.DATASET_NAME, places))
        super().__init__(data_dir=data_dir, **kwargs)

    @classmethod
    def _other_places(cls, data_dir: str, options: Mapping[str, Any]) -> list[str]:
        """Files and folders outside `data_dir` that the options name and the cache must be keyed on as well."""
        return []

    def _rows_by_split(self, dl_manager: Any) -> Mapping[str, list[dict[str, Any]]]:
        """Returns the checked rows of each split; errors raised here reach the user as they are."""
        raise NotImplementedError

    def _split_generators(self, dl_manager: Any) -> list[SplitGenerator]:
        splits = self._rows_by_split(dl_manager)
        # A list is what `datasets` divides among the shards of a stream and the processes of `num_proc`.
        return [SplitGenerator(name=name, gen_kwargs={"rows": rows}) for name, rows in splits.items()]

    def _generate_examples(self, rows: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in rows:
            yield row["id"], row


def _content_key(name: str, places: Iterable[str]) -> str:
    digest = hashlib.sha256(f"{name} {_CODE_VERSION}".encode())
    for place in places:
        files = {place: place} if os.path.isfile(place) else list_files(place)
        for relative, path in files.items():
            if relative.lower().endswith(_DATA_SUFFIXES):
                status = os.stat(path)
                entry = f"{relative}\0{status.st_size}\0{status.st_mtime_ns}\n"
                digest.update(entry.encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]
