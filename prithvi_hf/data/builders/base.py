# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What the builders share: columns, rows, and a cache that never serves a folder that has changed."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import datasets
from datasets.utils import logging

from prithvi_hf.data.builders.files import DATA_SUFFIXES, ChipRow, list_files
from prithvi_hf.data.builders.splits import PUBLISHED, check_split_options
from prithvi_hf.data.geotiff import GeoTiff


logger = logging.get_logger(__name__)

AnyDownloadManager: TypeAlias = datasets.DownloadManager | datasets.StreamingDownloadManager

# Part of every cache key: raise it when rows of the same files come out differently.
_CODE_VERSION = "3"


def make_features(
    band_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    class_colors: Sequence[str] | None = None,
    *,
    frames_are_files: bool = False,
    multi_date: bool = False,
) -> datasets.Features:
    """Make the columns of a dataset of chips: `image`, `mask`, `id`, and `date` or `dates`.

    Bands are in file order, classes in the order of a model's labels, colours "#rrggbb". With `frames_are_files`
    `image` is a list of GeoTIFFs, one per frame; with `multi_date` there are `dates`, one per frame, and no `date`.
    """
    bands, names, colors = (
        None if given is None else list(given) for given in (band_names, class_names, class_colors)
    )
    image, mask = GeoTiff(band_names=bands), GeoTiff(class_names=names, class_colors=colors)
    date = {"dates": datasets.List(datasets.Value("string"))} if multi_date else {"date": datasets.Value("string")}
    return datasets.Features(
        {
            "image": datasets.List(image) if frames_are_files else image,
            "mask": mask,
            "id": datasets.Value("string"),
            **date,
        }
    )


class ChipBuilder(datasets.GeneratorBasedBuilder):
    """Base of builders that pair image and mask files and yield one row per chip, without reading a pixel.

    Subclasses set `DATASET_NAME`, which is the name of their module, and give `_info` and `_make_rows`; public ones
    set `IMAGE_NAME`, by which a copy of their files is known, and `LICENSE`. `datasets` names a builder's cache after
    its module and options only, so two versions of a folder would share one; here the names, sizes and times of its
    files are part of the key. Arguments are those of `datasets.DatasetBuilder` and the builder's own options.
    """

    DATASET_NAME: ClassVar[str]
    IMAGE_NAME: ClassVar[re.Pattern[str] | None] = None
    LICENSE: ClassVar[str | None] = None

    def __init__(self, *, data_dir: str | os.PathLike | None = None, **kwargs: Any) -> None:
        digest = hashlib.sha256(f"{self.DATASET_NAME} {_CODE_VERSION}".encode())
        if data_dir is not None:
            data_dir = os.path.abspath(os.path.expanduser(data_dir))
            for place in [data_dir, *self._find_other_places(data_dir, kwargs)]:
                files = {place: place} if os.path.isfile(place) else list_files(place)
                for relative, path in files.items():
                    if not relative.lower().endswith(DATA_SUFFIXES):
                        continue  # logs or outputs beside the data change nothing
                    try:
                        status = os.stat(path)
                        version = f"{status.st_size}\0{status.st_mtime_ns}"
                    except OSError:  # what reads a file that is gone says so, and of all such chips at once
                        version = "gone"
                    digest.update(f"{relative}\0{version}\n".encode(errors="surrogateescape"))
        kwargs.setdefault("hash", digest.hexdigest()[:32])
        kwargs.setdefault("dataset_name", self.DATASET_NAME)
        super().__init__(data_dir=data_dir, **kwargs)

    @classmethod
    def _find_other_places(cls, data_dir: str, options: Mapping[str, object]) -> list[str]:
        """Find files and folders outside `data_dir` that the options name: the cache is keyed on them as well."""
        return []

    def _make_rows(self, dl_manager: AnyDownloadManager) -> Mapping[str, list[ChipRow]]:
        """Return the checked rows of each split; errors raised here reach the user as they are."""
        raise NotImplementedError

    def _split_generators(self, dl_manager: AnyDownloadManager) -> list[datasets.SplitGenerator]:
        splits = self._make_rows(dl_manager)
        # A list is what `datasets` divides among the shards of a stream and the processes of `num_proc`.
        return [datasets.SplitGenerator(name=name, gen_kwargs={"rows": rows}) for name, rows in splits.items()]

    def _generate_examples(self, rows: list[ChipRow]) -> Iterator[tuple[str, ChipRow]]:
        for row in rows:
            yield row["id"], row


@dataclass
class HubChipConfig(datasets.BuilderConfig):
    """Options of datasets on the Hugging Face Hub.

    `repository`, "owner/name", and its `revision` (branch, tag or commit) are downloaded from without `data_dir`; by
    default the official one's "main". (`datasets` has an argument `repo_id` of its own.)
    """

    repository: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data_dir is not None and (self.repository or self.revision):
            raise ValueError(
                f"Options of the dataset: expected repository and revision without data_dir, found {self.repository} "
                f"and {self.revision} beside {self.data_dir}. Leave out data_dir to download, or the others not to."
            )


class HubChipBuilder(ChipBuilder):
    """Base of builders of datasets on the Hub: without `data_dir` they are downloaded whole, and extracted.

    Subclasses set what describes the dataset, and give `_make_folder_rows` in place of `_make_rows`. [`load_dataset`]
    downloads first and then builds from the folder, so that the cache is keyed on its files; a builder that is used by
    itself downloads when it prepares or streams.
    """

    REPOSITORY: ClassVar[str]
    DESCRIPTION: ClassVar[str]
    CITATION: ClassVar[str]
    LICENSE: ClassVar[str] = "cc-by-4.0"
    FEATURES: ClassVar[datasets.Features]
    VERSION = "1.0.0"
    BUILDER_CONFIG_CLASS = HubChipConfig

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description=self.DESCRIPTION,
            citation=self.CITATION,
            homepage=f"https://huggingface.co/datasets/{self.REPOSITORY}",
            license=self.LICENSE,
            features=self.FEATURES,
        )

    def download(self) -> str:
        """Download the dataset, if that has not been done, and return its folder; see [`download_dataset`]."""
        from prithvi_hf.data.builders.download import download_dataset

        repository = self.config.repository or self.REPOSITORY
        root = self._cache_downloaded_dir  # of `datasets`, `downloads` in its cache
        return download_dataset(repository, root, revision=self.config.revision, token=self.token)

    def _make_rows(self, dl_manager: AnyDownloadManager) -> Mapping[str, list[ChipRow]]:
        return self._make_folder_rows(self.config.data_dir or self.download())

    def _make_folder_rows(self, data_dir: str) -> Mapping[str, list[ChipRow]]:
        """Return the checked rows of each split of a folder that holds the dataset."""
        raise NotImplementedError


@dataclass
class OfficialSplitsConfig(HubChipConfig):
    """Options of datasets that were published with training and validation chips only.

    Args:
        split_scheme (`str`, *optional*, defaults to "published"): "published" gives the validation chips as `test`
            too, for the original reports them, and says so; "three_way" divides them into `validation` and `test`,
            and leaves the training chips near test chips out.
        split_seed (`int`, *optional*, defaults to 0): which of the validation chips "three_way" makes test chips.
        repository, revision (`str`, *optional*): as in [`HubChipConfig`].
    """

    split_scheme: str = PUBLISHED
    split_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_split_options("Options of the dataset", self.split_seed, self.split_scheme)


class OfficialSplitsBuilder(HubChipBuilder):
    """Base of builders whose datasets were published with training and validation chips only."""

    BUILDER_CONFIG_CLASS = OfficialSplitsConfig

    def as_dataset(
        self, split: str | datasets.Split | None = None, **kwargs: Any
    ) -> datasets.Dataset | datasets.DatasetDict:
        """As in `datasets.DatasetBuilder`; warns when `test` is given and is not independent of `validation`."""
        self._warn_about_test(split)
        return super().as_dataset(split, **kwargs)

    def as_streaming_dataset(
        self, split: str | None = None, base_path: str | None = None
    ) -> datasets.IterableDataset | datasets.IterableDatasetDict:
        """As in `datasets.DatasetBuilder`; warns when `test` is given and is not independent of `validation`."""
        self._warn_about_test(split)
        return super().as_streaming_dataset(split, base_path)

    def _warn_about_test(self, split: str | datasets.Split | None) -> None:
        # Here and not where rows are made: those come from the cache the next time.
        if self.config.split_scheme == PUBLISHED and (split is None or "test" in str(split)):
            logger.warning(
                f"{self.DATASET_NAME}: test holds the validation chips, as the original evaluates, so a checkpoint "
                "that is chosen by validation is reported too well. An independent test: split_scheme='three_way'."
            )
